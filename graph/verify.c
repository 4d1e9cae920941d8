/* Checks every invariant of graph.h. What it lets through, the executor may rely on: graphs from files pass
 * here first. Types are worked out again by the infer rules; a declared type may be wider, never narrower. */
#include "graph/verify.h"
#include "graph/host.h"
#include "graph/format.h"
#include "graph/internal.h"
#include "graph/scalar.h"
#include "graph/syntax.h"
#include "graph/text.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct verifier {
  kn_context *ctx;
  const kn_graph *g;
  kn_status bad;          /* what a broken rule is: INTERNAL, or FORMAT for untrusted graphs */
  const kn_value **scope; /* by id: the value that can be used here; GONE after its region */
  uint32_t nids;
  int depth;
  const kn_node *fault; /* that breaks a rule */
} verifier;

static const kn_value gone; /* marks ids whose region has been left */

static kn_status fail_node(verifier *v, const kn_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static kn_status fail_node(verifier *v, const kn_node *n, const char *fmt, ...) {
  char why[400], text[200], where[160];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  kn_where_text(n->where, where, sizeof where);
  v->fault = n;
  return kn_fail(v->ctx, v->bad, "graph %s: %s%s%s: %s", v->g->name, kn_node_text(n, text, sizeof text),
                 *where ? " at " : "", where, why);
}

/* ---- values and scopes ---- */

static kn_status define(verifier *v, const kn_value *val, const kn_region *r, const kn_node *def,
                        uint32_t index) {
  kn_context *c = v->ctx;
  if (!val || !val->id || val->id >= v->nids || v->scope[val->id])
    return kn_fail(c, v->bad, "graph %s: a value has no id of its own", v->g->name);
  if (val->region != r || val->def != def || val->index != index)
    return kn_fail(c, v->bad, "graph %s: value %u is not linked to the place that defines it", v->g->name,
                   val->id);
  const kn_type *t = &val->type.tensor;
  bool tensor = kn_innermost(val->type.kind) == KN_V_TENSOR;
  if ((unsigned)val->type.kind >= KN_V_DEEPEST || kn_innermost(val->type.kind) > KN_V_BOOL ||
      (tensor && (t->dtype >= KN_DTYPE_COUNT || t->device >= KN_DEVICE_COUNT || t->rank > KN_MAX_RANK)))
    return kn_fail(c, v->bad, "graph %s: value %u has no valid type", v->g->name, val->id);
  size_t bytes;
  for (int i = 0; tensor && i < t->rank; i++)
    if (t->dims[i] < KN_DIM_SYMBOL((int64_t)v->g->nsymbols - 1))
      return kn_fail(c, v->bad, "graph %s: value %u has a size without a name", v->g->name, val->id);
  if (tensor && kn_type_known(t) && !kn_type_bytes(t, &bytes))
    return kn_fail(c, v->bad, "graph %s: value %u is too large", v->g->name, val->id);
  v->scope[val->id] = val;
  return KN_OK;
}

static bool usable(const verifier *v, const kn_value *val) {
  return val && val->id && val->id < v->nids && v->scope[val->id] == val;
}

static kn_status check_fits(verifier *v, const kn_node *n, const kn_vtype *from, const kn_vtype *to,
                            const char *what) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (kn_vtype_fits(from, to)) return KN_OK;
  return fail_node(v, n, "%s is declared %s but is %s", what, kn_vtype_text(v->g, to, b, sizeof b),
                   kn_vtype_text(v->g, from, a, sizeof a));
}

static bool is(const kn_node *n, uint32_t i, kn_vkind k) { return n->in[i]->type.kind == k; }

/* ---- ops ---- */

typedef struct placeholders {
  uint32_t next;
  bool bad;
} placeholders;

static void in_order(void *ud, int64_t *x) {
  placeholders *p = ud;
  if (kn_is_dyn(*x) && kn_dyn_index(*x) != p->next++) p->bad = true;
}

static kn_status check_op(verifier *v, const kn_node *n) {
  const kn_op_info *row = &kn_ops[n->op];
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  if (row->composite) return fail_node(v, n, "a composite has no place in a graph, only its parts do");
  if ((row->flags & KN_FLAG_WRITES) && v->bad == KN_FORMAT) /* a file may not write to its host's tensors */
    return fail_node(v, n, "an op that overwrites a tensor is not allowed in a graph from outside");
  if (n->ntensor > n->nin || n->ntensor > KN_MAX_INPUTS || n->nout != row->outs ||
      (row->attrs != KN_ATTRS_none && !n->attrs))
    return fail_node(v, n, "the node does not have the parts of its op");
  for (uint32_t i = 0; i < n->ntensor; i++) {
    if (!is(n, i, KN_V_TENSOR)) return fail_node(v, n, "input %u is not a tensor", i + 1);
    in[i] = n->in[i]->type.tensor;
  }
  for (uint32_t i = n->ntensor; i < n->nin; i++)
    if (!kn_may_stand(&n->in[i]->type, row->attrs, n->attrs, i - n->ntensor))
      return fail_node(v, n, "a size among its attributes is not an integer");
  placeholders p = {0, false};
  if (n->attrs && row->attrs != KN_ATTRS_none) kn_attrs_each_int(row->attrs, n->attrs, in_order, &p);
  if (p.bad || p.next != n->nin - n->ntensor)
    return fail_node(v, n, "its sizes and the inputs for them do not match");
  kn_status st = kn_infer_types(v->ctx, (kn_op)n->op, n->attrs, in, (int)n->ntensor, out);
  if (st == KN_NOMEM) return st;
  if (st != KN_OK) {
    char why[KN_ERROR_SIZE];
    memcpy(why, v->ctx->error, sizeof why);
    return fail_node(v, n, "%.390s", why);
  }
  for (uint32_t i = 0; i < n->nout; i++)
    KN_TRY(check_fits(v, n, &(kn_vtype){KN_V_TENSOR, out[i]}, &n->out[i]->type, "the result"));
  return KN_OK;
}

/* ---- the other kinds ---- */

static kn_status check_slot_node(verifier *v, const kn_node *n) {
  const kn_slot *s = n->slot;
  static const kn_slot_kind kinds[] = {KN_SLOT_CONST, KN_SLOT_PARAM, KN_SLOT_STATE, KN_SLOT_STATE};
  if (!s || s->index >= v->g->nslots || v->g->slots[s->index] != s)
    return fail_node(v, n, "its slot is not in the graph");
  if (s->kind != kinds[n->op - KN_NODE_tensor])
    return fail_node(v, n, "slot %s is of kind %s", s->name, kn_slot_words[s->kind]);
  if (n->op == KN_NODE_store_state) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    if (kn_vtype_may_be(&n->in[0]->type, &s->type)) return KN_OK;
    return fail_node(v, n, "slot %s is %s and cannot take %s", s->name,
                     kn_vtype_text(v->g, &s->type, a, sizeof a),
                     kn_vtype_text(v->g, &n->in[0]->type, b, sizeof b));
  }
  return check_fits(v, n, &s->type, &n->out[0]->type, "the slot's value");
}

static kn_status check_update(verifier *v, const kn_node *n) {
  const kn_value *x = n->in[0];
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (n->region->owner) return fail_node(v, n, "it stands in a branch or loop, not in the body");
  if (x->def || x->region != v->g->body || !is(n, 0, KN_V_TENSOR) || !is(n, 1, KN_V_TENSOR))
    return fail_node(v, n, "a tensor that is an input and its new value are needed");
  for (const kn_node *p = n->prev; p; p = p->prev)
    if (p->op == KN_NODE_update && p->in[0] == x) return fail_node(v, n, "this input is updated twice");
  if (kn_vtype_may_be(&n->in[1]->type, &x->type)) return KN_OK;
  return fail_node(v, n, "the input is %s and cannot take %s", kn_vtype_text(v->g, &x->type, a, sizeof a),
                   kn_vtype_text(v->g, &n->in[1]->type, b, sizeof b));
}

static kn_status check_const(verifier *v, const kn_node *n) {
  static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_BOOL};
  if ((unsigned)n->scalar.kind > KN_SCALAR_BOOL) return fail_node(v, n, "it holds no number or boolean");
  return check_fits(v, n, &(kn_vtype){.kind = kinds[n->scalar.kind]}, &n->out[0]->type, "the constant");
}

static kn_status check_tensor_kind(verifier *v, const kn_node *n) {
  if (n->op == KN_NODE_same)
    return is(n, 0, KN_V_TENSOR) && is(n, 1, KN_V_TENSOR)
               ? check_fits(v, n, &(kn_vtype){.kind = KN_V_BOOL}, &n->out[0]->type, "the result")
               : fail_node(v, n, "two tensors are needed");
  if (n->op == KN_NODE_to_tensor) {
    if (is(n, 0, KN_V_TENSOR) || !n->attrs || *(kn_dtype *)n->attrs >= KN_DTYPE_COUNT)
      return fail_node(v, n, "a number is needed");
    kn_vtype t = {.kind = KN_V_TENSOR, .tensor = {.dtype = (uint8_t) * (kn_dtype *)n->attrs}};
    return check_fits(v, n, &t, &n->out[0]->type, "the result");
  }
  if (!is(n, 0, KN_V_TENSOR)) return fail_node(v, n, "a tensor is needed");
  const kn_type *t = &n->in[0]->type.tensor;
  if (n->op == KN_NODE_size) {
    if (!n->attrs || *(int64_t *)n->attrs < 0 || *(int64_t *)n->attrs >= t->rank)
      return fail_node(v, n, "there is no such dimension");
    return check_fits(v, n, &(kn_vtype){.kind = KN_V_INT}, &n->out[0]->type, "the size");
  }
  int64_t count = kn_type_numel(t);
  if (count != 1 && count != KN_DIM_UNKNOWN) return fail_node(v, n, "a tensor of one element is needed");
  return check_fits(v, n, &(kn_vtype){.kind = kn_item_kind((kn_dtype)t->dtype)}, &n->out[0]->type,
                    "the item");
}

static kn_status check_list(verifier *v, const kn_node *n) {
  kn_vtype t = n->nin ? n->in[0]->type : n->out[0]->type;
  kn_vtype element = kn_element_of(t);
  if (!kn_is_list(t.kind)) return fail_node(v, n, "a list is needed");
  switch ((int)n->op) {
  case KN_NODE_list_new: return KN_OK;
  case KN_NODE_list_append:
    KN_TRY(check_fits(v, n, &t, &n->out[0]->type, "the result"));
    element = kn_element_of(n->out[0]->type);
    return check_fits(v, n, &n->in[1]->type, &element, "an element");
  case KN_NODE_list_get:
    if (!is(n, 1, KN_V_INT)) return fail_node(v, n, "an integer is needed as the position");
    return check_fits(v, n, &element, &n->out[0]->type, "the element");
  case KN_NODE_list_first:
  case KN_NODE_list_thin:
    if (n->nin > 1 && !is(n, 1, KN_V_INT)) return fail_node(v, n, "an integer is needed as the count");
    return check_fits(v, n, &t, &n->out[0]->type, "the result");
  case KN_NODE_list_sum:
    if (t.kind != KN_V_LIST || n->in[1]->type.kind != KN_V_LIST)
      return fail_node(v, n, "two lists of tensors are needed");
    KN_TRY(check_fits(v, n, &n->in[1]->type, &n->out[0]->type, "the second list"));
    return check_fits(v, n, &t, &n->out[0]->type, "the result");
  case KN_NODE_list_with:
    if (t.kind != KN_V_LIST || !is(n, 1, KN_V_INT) || !is(n, 2, KN_V_INT))
      return fail_node(v, n, "a list of tensors, their number and a position are needed");
    KN_TRY(check_fits(v, n, &t, &n->out[0]->type, "the result"));
    element = kn_element_of(n->out[0]->type);
    return check_fits(v, n, &n->in[3]->type, &element, "an element");
  case KN_NODE_list_bytes:
  case KN_NODE_list_length:
    return check_fits(v, n, &(kn_vtype){.kind = KN_V_INT}, &n->out[0]->type, "the number");
  default: break;
  }
  if (t.kind != KN_V_LIST || t.tensor.rank == KN_MAX_RANK)
    return fail_node(v, n, "a list of tensors is needed");
  kn_vtype stacked = kn_stacked(&t);
  return check_fits(v, n, &stacked, &n->out[0]->type, "the result");
}

static kn_status check_grad_kind(verifier *v, const kn_node *n) {
  if (!is(n, 0, KN_V_TENSOR)) return fail_node(v, n, "a tensor is needed");
  bool two = n->op == KN_NODE_with_history;
  if (two && (!is(n, 1, KN_V_TENSOR) || n->in[0]->type.tensor.dtype != n->in[1]->type.tensor.dtype ||
              n->in[0]->type.tensor.rank != n->in[1]->type.tensor.rank))
    return fail_node(v, n, "two tensors of one dtype and rank are needed");
  return check_fits(v, n, n->op != KN_NODE_defined ? &n->in[0]->type : &(kn_vtype){.kind = KN_V_BOOL},
                    &n->out[0]->type, "the result");
}

static kn_status check_scalar(verifier *v, const kn_node *n) {
  if (n->op == KN_NODE_select) {
    kn_vtype t;
    if (!is(n, 0, KN_V_BOOL) || !kn_vtype_join(&n->in[1]->type, &n->in[2]->type, &t))
      return fail_node(v, n, "a boolean and two values of one kind are needed");
    return check_fits(v, n, &t, &n->out[0]->type, "the result");
  }
  kn_vkind kinds[3], out;
  for (uint32_t i = 0; i < n->nin && i < 3; i++) kinds[i] = n->in[i]->type.kind;
  if (n->nin > 3 || !kn_scalar_result(n->op, kinds, n->nin, &out))
    return fail_node(v, n, "it cannot take inputs of these kinds");
  return check_fits(v, n, &(kn_vtype){.kind = out}, &n->out[0]->type, "the result");
}

static kn_status check_text(verifier *v, const kn_node *n) {
  uint32_t first = kn_format_first(n);
  if (!n->text || n->nin < first || (first && !is(n, 0, KN_V_BOOL)))
    return fail_node(v, n, "a message is needed, and a boolean to assert");
  const char *why = kn_format_used(n) ? kn_format_check(n->text, n->in + first, n->nin - first) : NULL;
  return why ? fail_node(v, n, "%s", why) : KN_OK;
}

/* ---- regions ---- */

static kn_status check_region(verifier *v, const kn_region *r);

static void leave(verifier *v, const kn_region *r) {
  for (uint32_t i = 0; i < r->nparams; i++) v->scope[r->params[i]->id] = &gone;
  KN_EACH_NODE (n, r)
    for (uint32_t i = 0; i < n->nout; i++) v->scope[n->out[i]->id] = &gone;
}

static kn_status enter(verifier *v, const kn_node *n, const kn_region *r) {
  if (!r || r->graph != v->g || r->owner != n) return fail_node(v, n, "a region is not linked to it");
  if (++v->depth > KN_REGION_DEPTH)
    return kn_fail(v->ctx, KN_LIMIT, "graph %s: regions are nested more than %d deep", v->g->name,
                   KN_REGION_DEPTH);
  kn_status st = check_region(v, r);
  v->depth--;
  if (st != KN_OK) return st;
  for (uint32_t i = 0; i < r->nyields; i++)
    if (!usable(v, r->yields[i]))
      return fail_node(v, n, "value %u that a region yields is not defined there", i + 1);
  return KN_OK;
}

static kn_status check_if(verifier *v, const kn_node *n) {
  if (n->nregions != 2 || !is(n, 0, KN_V_BOOL))
    return fail_node(v, n, "a boolean and two regions are needed");
  for (int k = 0; k < 2; k++) {
    const kn_region *r = n->regions[k];
    KN_TRY(enter(v, n, r));
    if (r->nparams || r->nyields != n->nout)
      return fail_node(v, n, "each region yields one value per result");
    for (uint32_t i = 0; i < n->nout; i++)
      KN_TRY(check_fits(v, n, &r->yields[i]->type, &n->out[i]->type,
                        k ? "a result, in the second region," : "a result, in the first region,"));
    leave(v, r);
  }
  return KN_OK;
}

static kn_status check_loop(verifier *v, const kn_node *n) {
  const kn_region *r = n->regions[0];
  if (n->nregions != 1 || !r || r->nparams != n->nin || r->nyields != (uint64_t)1 + n->nin + n->nout)
    return fail_node(
        v, n,
        "the region needs a parameter per input, and yields for the flag, each parameter and each result");
  for (uint32_t i = 0; i < n->nin; i++)
    KN_TRY(check_fits(v, n, &n->in[i]->type, &r->params[i]->type, "a loop value"));
  KN_TRY(enter(v, n, r));
  if (r->yields[0]->type.kind != KN_V_BOOL) return fail_node(v, n, "the continue flag is not a boolean");
  for (uint32_t i = 0; i < n->nin; i++)
    KN_TRY(
        check_fits(v, n, &r->yields[1 + i]->type, &r->params[i]->type, "a loop value, for the next trip,"));
  for (uint32_t i = 0; i < n->nout; i++)
    KN_TRY(check_fits(v, n, &r->yields[1 + n->nin + i]->type, &n->out[i]->type, "a loop result"));
  leave(v, r);
  return KN_OK;
}

static kn_status check_node(verifier *v, const kn_node *n) {
  if (n->op >= KN_OPCODE_COUNT)
    return kn_fail(v->ctx, v->bad, "graph %s: unknown opcode %u", v->g->name, n->op);
  kn_opcode_info info = kn_opcode_describe(n->op);
  for (uint32_t i = 0; i < n->nin; i++)
    if (!usable(v, n->in[i])) return fail_node(v, n, "input %u is not defined where it is used", i + 1);
  if ((info.nin != KN_VARIADIC && !kn_opcode_is_op(n->op) && n->nin != info.nin) ||
      (info.nout != KN_VARIADIC && n->nout != info.nout))
    return fail_node(v, n, "it takes %d inputs and gives %d results", info.nin, info.nout);
  if (n->nregions && n->op != KN_NODE_if && n->op != KN_NODE_loop)
    return fail_node(v, n, "it has no regions");
  if (kn_opcode_is_op(n->op)) return check_op(v, n);
  if (n->no_grad) return fail_node(v, n, "only ops have no_grad");
  switch ((int)n->op) {
  case KN_NODE_const: return check_const(v, n);
  case KN_NODE_undef: return KN_OK;
  case KN_NODE_tensor:
  case KN_NODE_param:
  case KN_NODE_load_state:
  case KN_NODE_store_state: return check_slot_node(v, n);
  case KN_NODE_update: return check_update(v, n);
  case KN_NODE_if: return check_if(v, n);
  case KN_NODE_loop: return check_loop(v, n);
  case KN_NODE_size:
  case KN_NODE_item:
  case KN_NODE_to_tensor:
  case KN_NODE_same: return check_tensor_kind(v, n);
  case KN_NODE_list_new:
  case KN_NODE_list_append:
  case KN_NODE_list_get:
  case KN_NODE_list_first:
  case KN_NODE_list_thin:
  case KN_NODE_list_sum:
  case KN_NODE_list_with:
  case KN_NODE_list_bytes:
  case KN_NODE_list_length:
  case KN_NODE_list_stack: return check_list(v, n);
  case KN_NODE_defined:
  case KN_NODE_with_history:
  case KN_NODE_detach: return check_grad_kind(v, n);
  case KN_NODE_attempt:
    return check_fits(v, n, &(kn_vtype){.kind = KN_V_BOOL}, &n->out[0]->type, "the attempt");
  case KN_NODE_caught: return check_fits(v, n, &(kn_vtype){.kind = KN_V_INT}, &n->out[0]->type, "the number");
  case KN_NODE_assert:
  case KN_NODE_raise:
  case KN_NODE_print:
  case KN_NODE_write:
  case KN_NODE_write_error:
  case KN_NODE_warn: return check_text(v, n);
  case KN_NODE_host_call: {
    const char *why = kn_host_check(n);
    return why ? fail_node(v, n, "%s", why) : KN_OK;
  }
  default: return check_scalar(v, n);
  }
}

static kn_status check_region(verifier *v, const kn_region *r) {
  for (uint32_t i = 0; i < r->nparams; i++) KN_TRY(define(v, r->params[i], r, NULL, i));
  const kn_node *prev = NULL;
  KN_EACH_NODE (n, r) {
    if (n->region != r || n->prev != prev)
      return kn_fail(v->ctx, v->bad, "graph %s: a node is not linked to its region", v->g->name);
    KN_TRY(check_node(v, n));
    for (uint32_t i = 0; i < n->nout; i++) KN_TRY(define(v, n->out[i], r, n, i));
    prev = n;
  }
  if (r->last != prev)
    return kn_fail(v->ctx, v->bad, "graph %s: a region's last node is not its last", v->g->name);
  return KN_OK;
}

/* ---- slots, arguments, results ---- */

static kn_status check_slots(verifier *v) {
  for (uint32_t i = 0; i < v->g->nslots; i++) {
    const kn_slot *s = v->g->slots[i];
    static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_BOOL};
    bool tensor = s->type.kind == KN_V_TENSOR;
    size_t bytes;
    if (kn_is_list(s->type.kind))
      return kn_fail(v->ctx, v->bad, "graph %s: slot %u is a list", v->g->name, i + 1);
    if (s->index != i || !s->name || (unsigned)s->kind > KN_SLOT_CONST)
      return kn_fail(v->ctx, v->bad, "graph %s: slot %u is malformed", v->g->name, i + 1);
    if (tensor ? !kn_type_bytes(&s->type.tensor, &bytes) ||
                     (s->tensor && !kn_type_equal(&s->tensor->type, &s->type.tensor))
               : (unsigned)s->scalar.kind > KN_SCALAR_BOOL || s->tensor ||
                     !kn_vtype_fits(&(kn_vtype){.kind = kinds[s->scalar.kind]}, &s->type))
      return kn_fail(v->ctx, v->bad, "graph %s: slot %s does not hold a value of its type", v->g->name,
                     s->name);
  }
  return KN_OK;
}

typedef struct leaves {
  kn_value *const *list;
  uint32_t n, met;
  bool repeats; /* arguments: a leaf may name one met before */
} leaves;

typedef struct around { /* tables that a tree is in */
  uint32_t same_as;
  const struct around *up;
} around;

static bool is_around(const around *a, uint32_t same_as) {
  while (a && a->same_as != same_as) a = a->up;
  return a && same_as;
}

static bool check_tree(leaves *l, const kn_tree *t, const around *up, int depth) {
  if (depth > KN_TREE_DEPTH) return false;
  if (t->kind == KN_TREE_AGAIN) return !l->repeats && is_around(up, t->same_as);
  if (t->kind == KN_TREE_VALUE) {
    if (t->i < 0 || t->i > l->met || t->i >= l->n || t->value != l->list[t->i]) return false;
    if (t->i < l->met) return l->repeats;
    l->met++;
    return true;
  }
  if (t->kind == KN_TREE_STRING) return t->text != NULL;
  if (t->kind == KN_TREE_NONE) return depth == 1 && !l->repeats;
  if (!kn_tree_has_items(t->kind)) return true;
  if ((unsigned)t->kind > KN_TREE_TEXT) return false;
  if (t->kind == KN_TREE_TEXT && (l->repeats || !t->text || kn_format_check_tree(t))) return false;
  if (t->kind == KN_TREE_CHOICE && (l->repeats || t->n < 3 || t->items[0].kind != KN_TREE_VALUE ||
                                    !t->items[0].value || t->items[0].value->type.kind != KN_V_INT))
    return false;
  around here = {t->kind == KN_TREE_TABLE ? t->same_as : 0, up};
  for (uint32_t i = 0; i < t->n; i++)
    if ((t->keys[i].kind != KN_TREE_INT && t->keys[i].kind != KN_TREE_STRING) ||
        (t->kind == KN_TREE_TABLE && t->items[i].kind == KN_TREE_NONE) ||
        !check_tree(l, &t->items[i], &here, depth + 1))
      return false;
  return true;
}

static kn_status check_trees(verifier *v, const kn_tree *t, uint32_t n, leaves l, const char *what) {
  for (uint32_t i = 0; i < n; i++)
    if (!check_tree(&l, &t[i], NULL, 0))
      return kn_fail(v->ctx, v->bad, "graph %s: %s %u is malformed", v->g->name, what, i + 1);
  if (n && l.met != l.n)
    return kn_fail(v->ctx, v->bad, "graph %s: not every %s has its place", v->g->name, what);
  return KN_OK;
}

static kn_status check_graph(verifier *v) {
  const kn_graph *g = v->g;
  KN_TRY(check_slots(v));
  for (uint32_t i = 0; g->body && v->bad == KN_FORMAT && i < g->body->nparams; i++)
    if (kn_is_list(g->body->params[i]->type.kind))
      return kn_fail(v->ctx, v->bad, "graph %s: argument %u is a list", g->name, i + 1);
  for (uint32_t i = 0; g->body && v->bad == KN_FORMAT && i < g->body->nyields; i++)
    if (g->body->yields[i] && kn_is_list(g->body->yields[i]->type.kind))
      return kn_fail(v->ctx, v->bad, "graph %s: result %u is a list", g->name, i + 1);
  if (!g->body || g->body->owner || g->body->graph != g)
    return kn_fail(v->ctx, v->bad, "graph %s: it has no body", g->name);
  KN_TRY(check_region(v, g->body));
  for (uint32_t i = 0; i < g->nneeds; i++) {
    const char *why = kn_need_wrong(g, &g->needs[i]);
    if (why) return kn_fail(v->ctx, v->bad, "graph %s: need %u cannot be: %s", g->name, i + 1, why);
  }
  for (uint32_t i = 0; i < g->body->nyields; i++)
    if (!usable(v, g->body->yields[i]))
      return kn_fail(v->ctx, v->bad, "graph %s: result %u is not defined", g->name, i + 1);
  KN_TRY(check_trees(v, g->args, g->nargs, (leaves){g->body->params, g->body->nparams, 0, true}, "argument"));
  return check_trees(v, g->results, g->nresults, (leaves){g->body->yields, g->body->nyields, 0, false},
                     "result");
}

kn_status kn_graph_verify(kn_context *ctx, const kn_graph *g, bool untrusted) {
  const kn_node *fault;
  return kn_graph_verify_to(ctx, g, untrusted, &fault);
}

kn_status kn_graph_verify_to(kn_context *ctx, const kn_graph *g, bool untrusted, const kn_node **fault) {
  verifier v = {.ctx = ctx, .g = g, .bad = untrusted ? KN_FORMAT : KN_INTERNAL, .nids = g->nvalues + 1};
  if (!(v.scope = kn_calloc(ctx->heap, v.nids, sizeof *v.scope)))
    return kn_fail_nomem(ctx, v.nids * sizeof *v.scope);
  kn_status st = check_graph(&v);
  *fault = v.fault;
  kn_free(ctx->heap, v.scope, v.nids * sizeof *v.scope);
  return st;
}
