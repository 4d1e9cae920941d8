/* needs: nothing.
 * does:  computes numbers from constants; takes the branch of an if whose condition is a constant, or is
 * known from an if around it, an assert, or a branch that raised, and the one trip of a loop that never
 * repeats; both branches that do the same are one, those that only choose a number are a choice; replaces
 * results that are the same on both paths, carried values that never change, and constants that are there
 * already. keeps: effects and their order; what would raise is left to raise when it runs; types get narrower
 * at most. */
#include "graph/attempt.h"
#include "graph/internal.h"
#include "graph/pipeline.h"
#include "graph/scalar.h"
#include <string.h>

typedef struct folder {
  kn_builder *b;
  kn_value **instead; /* by value id: what to use in its place */
  uint32_t nids;
  kn_value **consts; /* constants visible here, outer ones first */
  uint32_t nconsts;
  uint8_t *truth;   /* by value id: what a boolean is known to be here */
  uint32_t *learnt; /* ids of those, in order */
  uint32_t nlearnt;
  kn_value **twin; /* by value id, while two branches are compared: the first one's of the second's */
  uint32_t changes;
} folder;

enum { UNKNOWN, IS_TRUE, IS_FALSE }; /* truth */
enum { LOOK_BACK = 256 };            /* most constants compared; programs have few */

/* ---- replacing ---- */

static kn_value *present(const folder *f, kn_value *v) {
  while (f->instead[v->id]) v = f->instead[v->id];
  return v;
}

static void replace(folder *f, kn_value *v, kn_value *with) {
  with = present(f, with);
  if (with == v) return;
  if (!with->name && with->def) with->name = v->name;
  f->instead[v->id] = with;
  f->changes++;
}

static void rewrite(const folder *f, kn_value **list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) list[i] = present(f, list[i]);
}

static void rewrite_tree(const folder *f, kn_tree *t) {
  if (t->kind == KN_TREE_VALUE) t->value = present(f, t->value);
  if (kn_tree_has_items(t->kind))
    for (uint32_t i = 0; i < t->n; i++) rewrite_tree(f, &t->items[i]);
}

/* ---- constants ---- */

static bool is_const(const kn_value *v) { return v->def && v->def->op == KN_NODE_const; }

static bool same_const(const kn_scalar *a, const kn_scalar *b) {
  if (a->kind != b->kind) return false;
  return a->kind == KN_SCALAR_BOOL ? a->as.b == b->as.b : !memcmp(&a->as, &b->as, sizeof a->as);
}

/* Constants that the program names apart stay apart, for the reader. */
static bool same_name(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

/* The node becomes a constant, in place. */
static void make_const(folder *f, kn_node *n, kn_scalar s) {
  static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_BOOL};
  n->op = KN_NODE_const;
  n->nin = n->ntensor = 0;
  n->attrs = NULL;
  n->scalar = s;
  n->out[0]->type.kind = kinds[s.kind];
  f->changes++;
}

static void note_const(folder *f, kn_node *n) {
  for (uint32_t i = f->nconsts, seen = 0; i-- > 0 && seen < LOOK_BACK; seen++)
    if (same_const(&f->consts[i]->def->scalar, &n->scalar) &&
        same_name(f->consts[i]->name, n->out[0]->name)) {
      replace(f, n->out[0], f->consts[i]);
      return;
    }
  f->consts[f->nconsts++] = n->out[0];
}

/* ---- what is known of booleans ---- */

static void learn(folder *f, const kn_value *v, bool is) {
  for (;; v = v->def->in[0], is = !is) {
    if (is_const(v) || f->truth[v->id]) return;
    f->truth[v->id] = is ? IS_TRUE : IS_FALSE;
    f->learnt[f->nlearnt++] = v->id;
    if (!v->def || v->def->op != KN_NODE_lua_not) return;
  }
}

static void forget(folder *f, uint32_t down_to) {
  while (f->nlearnt > down_to) f->truth[f->learnt[--f->nlearnt]] = UNKNOWN;
}

static bool knows(const folder *f, const kn_value *v, bool *is) {
  bool not = false;
  while (!f->truth[v->id] && v->def && v->def->op == KN_NODE_lua_not) v = v->def->in[0], not = !not ;
  if (is_const(v) && v->def->scalar.kind == KN_SCALAR_BOOL) return *is = v->def->scalar.as.b != not, true;
  *is = (f->truth[v->id] == IS_TRUE) != not ;
  return f->truth[v->id] != UNKNOWN;
}

/* ---- one node ---- */

static void fold_scalar(folder *f, kn_node *n) {
  kn_scalar in[3], out;
  kn_vkind kinds[3], kind;
  for (uint32_t i = 0; i < n->nin && i < 3; i++) kinds[i] = n->in[i]->type.kind;
  if (!n->nin || n->nin > 3 || n->nout != 1 || !kn_scalar_result(n->op, kinds, n->nin, &kind)) return;
  for (uint32_t i = 0; i < n->nin; i++) {
    if (!is_const(n->in[i])) return;
    in[i] = n->in[i]->def->scalar;
  }
  if (kn_scalar_eval(f->b->ctx, n->op, in, n->nin, &out) == KN_OK) make_const(f, n, out);
}

static void fold_select(folder *f, kn_node *n) {
  bool is;
  if (knows(f, n->in[0], &is))
    replace(f, n->out[0], n->in[is ? 1 : 2]);
  else if (n->in[1] == n->in[2])
    replace(f, n->out[0], n->in[1]);
}

static void fold_plain(folder *f, kn_node *n) {
  bool is;
  switch ((int)n->op) {
  case KN_NODE_const: break;
  case KN_NODE_select: fold_select(f, n); break;
  case KN_NODE_size: {
    int64_t d = n->in[0]->type.tensor.dims[*(const int64_t *)n->attrs];
    if (kn_dim_known(d)) make_const(f, n, (kn_scalar){KN_SCALAR_INT, {.i = d}});
    break;
  }
  case KN_NODE_lua_tofloat:
    if (n->in[0]->type.kind == KN_V_FLOAT)
      replace(f, n->out[0], n->in[0]);
    else
      fold_scalar(f, n);
    break;
  case KN_NODE_lua_floor:
  case KN_NODE_lua_ceil:
    if (n->in[0]->type.kind == KN_V_INT)
      replace(f, n->out[0], n->in[0]);
    else
      fold_scalar(f, n);
    break;
  case KN_NODE_defined: {
    const kn_node *d = n->in[0]->def;
    bool made = d && (kn_opcode_is_op(d->op) || d->op == KN_NODE_to_tensor || d->op == KN_NODE_param ||
                      d->op == KN_NODE_tensor);
    if (made || (d && d->op == KN_NODE_undef)) make_const(f, n, (kn_scalar){KN_SCALAR_BOOL, {.b = made}});
    break;
  }
  case KN_NODE_lua_not:
    if (knows(f, n->in[0], &is)) make_const(f, n, (kn_scalar){KN_SCALAR_BOOL, {.b = !is}});
    break;
  case KN_NODE_assert:
    if (!knows(f, n->in[0], &is))
      learn(f, n->in[0], is = true);
    else if (is) {
      kn_node_remove(n);
      f->changes++;
    }
    break;
  default:
    if (!kn_opcode_is_op(n->op)) fold_scalar(f, n);
  }
  if (n->op == KN_NODE_const) note_const(f, n);
}

/* ---- regions ---- */

static void fold_region(folder *f, kn_region *r);

/* Puts a region's nodes where `n`, its owner, stands and removes n. Returns the first node to look at next.
 */
static kn_node *inline_region(kn_node *n, kn_region *r) {
  kn_node *first = r->first ? r->first : n->next;
  while (r->first) kn_node_move_before(r->first, n);
  kn_node_remove(n);
  return first;
}

static bool same_twin(const folder *f, const kn_value *a, const kn_value *b) {
  return a == b || f->twin[b->id] == a;
}

static bool same_attrs(const kn_node *a, const kn_node *b) {
  if (kn_opcode_is_op(a->op)) return kn_attrs_equal(kn_ops[a->op].attrs, a->attrs, b->attrs);
  if (a->op == KN_NODE_size) return *(const int64_t *)a->attrs == *(const int64_t *)b->attrs;
  return a->op != KN_NODE_to_tensor || *(const kn_dtype *)a->attrs == *(const kn_dtype *)b->attrs;
}

/* Do the two the same, at the same place where that could be told? */
static bool same_node(folder *f, const kn_node *a, const kn_node *b) {
  if (a->op != b->op || a->nin != b->nin || a->nout != b->nout || a->nregions || b->nregions) return false;
  if (a->slot != b->slot || a->no_grad != b->no_grad || a->again != b->again) return false;
  if (a->where != b->where && kn_node_may_raise(a)) return false;
  if ((a->text || b->text) && !(a->text && b->text && !strcmp(a->text, b->text))) return false;
  if (a->op == KN_NODE_const ? !same_const(&a->scalar, &b->scalar) : !same_attrs(a, b)) return false;
  if (a->op == KN_NODE_attempt) return false;
  for (uint32_t i = 0; i < a->nin; i++)
    if (!same_twin(f, a->in[i], b->in[i])) return false;
  for (uint32_t i = 0; i < a->nout; i++) {
    if (!kn_vtype_equal(&a->out[i]->type, &b->out[i]->type)) return false;
    f->twin[b->out[i]->id] = a->out[i];
  }
  return true;
}

static bool same_branches(folder *f, const kn_node *n) {
  const kn_node *a = n->regions[0]->first, *b = n->regions[1]->first;
  for (; a && b; a = a->next, b = b->next)
    if (!same_node(f, a, b)) return false;
  if (a || b) return false;
  for (uint32_t i = 0; i < n->nout; i++)
    if (!same_twin(f, n->regions[0]->yields[i], n->regions[1]->yields[i])) return false;
  return true;
}

/* Takes one of the branches, whose nodes come to stand where the if does. */
static kn_node *take(folder *f, kn_node *n, kn_region *taken) {
  for (uint32_t i = 0; i < n->nout; i++) replace(f, n->out[i], taken->yields[i]);
  f->changes++;
  return inline_region(n, taken);
}

/* An if that does nothing but choose one number is a choice, which does not cut a part in two. */
static void make_choice(folder *f, kn_node *n) {
  kn_region *a = n->regions[0], *b = n->regions[1];
  if (a->first || b->first || n->nout != 1 || !kn_is_scalar(n->out[0]->type.kind)) return;
  kn_value *in[] = {n->in[0], a->yields[0], b->yields[0]}, **list = kn_build_array(f->b, in, 3, sizeof *in);
  kn_vtype type;
  if (!list || !kn_vtype_join(&in[1]->type, &in[2]->type, &type)) return;
  n->op = KN_NODE_select;
  n->in = list;
  n->nin = n->ntensor = 3;
  n->nregions = 0;
  n->regions[0] = n->regions[1] = NULL;
  f->changes++;
}

static bool raises_always(const kn_region *r) { return r->last && r->last->op == KN_NODE_raise; }

static void fold_branches(folder *f, kn_node *n) {
  bool attempt = kn_is_attempt(n);
  for (int k = 0; k < 2; k++) {
    uint32_t before = f->nlearnt;
    if (!attempt) learn(f, n->in[0], !k);
    fold_region(f, n->regions[k]);
    rewrite(f, n->regions[k]->yields, n->regions[k]->nyields);
    forget(f, before);
  }
  for (int k = 0; k < 2 && !attempt; k++)
    if (raises_always(n->regions[k])) learn(f, n->in[0], k);
}

static kn_node *fold_if(folder *f, kn_node *n) {
  bool is;
  if (kn_is_attempt(n) && !kn_region_may_raise(n->regions[0]))
    make_const(f, n->in[0]->def, (kn_scalar){KN_SCALAR_BOOL, {.b = true}});
  if (knows(f, n->in[0], &is)) return take(f, n, n->regions[is ? 0 : 1]);
  fold_branches(f, n);
  if (!kn_is_attempt(n) && same_branches(f, n)) return take(f, n, n->regions[0]);
  for (uint32_t i = 0; i < n->nout; i++) /* such a value is from outside both regions */
    if (n->regions[0]->yields[i] == n->regions[1]->yields[i]) replace(f, n->out[i], n->regions[0]->yields[i]);
  if (!kn_is_attempt(n)) make_choice(f, n);
  return n->next;
}

static kn_node *fold_loop(folder *f, kn_node *n) {
  kn_region *r = n->regions[0];
  const kn_value *flag = present(f, r->yields[0]);
  bool once = is_const(flag) && !flag->def->scalar.as.b;
  for (uint32_t i = 0; i < n->nin; i++)
    if (once || r->yields[1 + i] == r->params[i]) replace(f, r->params[i], n->in[i]);
  if (once) {
    for (uint32_t i = 0; i < n->nout; i++) replace(f, n->out[i], r->yields[1 + n->nin + i]);
    f->changes++;
    return inline_region(n, r);
  }
  fold_region(f, r);
  rewrite(f, r->yields, r->nyields);
  return n->next;
}

static void fold_region(folder *f, kn_region *r) {
  uint32_t visible = f->nconsts, learnt = f->nlearnt;
  for (kn_node *n = r->first, *next; n; n = next) {
    rewrite(f, n->in, n->nin);
    next = n->next;
    if (n->op == KN_NODE_if)
      next = fold_if(f, n);
    else if (n->op == KN_NODE_loop)
      next = fold_loop(f, n);
    else
      fold_plain(f, n);
  }
  f->nconsts = visible;
  forget(f, learnt);
}

/* ---- the pass ---- */

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  folder f = {.b = b, .nids = g->nvalues + 1};
  f.instead = kn_calloc(b->ctx->heap, f.nids, sizeof *f.instead);
  f.consts = kn_calloc(b->ctx->heap, f.nids, sizeof *f.consts);
  f.twin = kn_calloc(b->ctx->heap, f.nids, sizeof *f.twin);
  f.truth = kn_calloc(b->ctx->heap, f.nids, sizeof *f.truth);
  f.learnt = kn_calloc(b->ctx->heap, f.nids, sizeof *f.learnt);
  kn_status st = KN_OK;
  if (!f.instead || !f.consts || !f.twin || !f.truth || !f.learnt)
    st = kn_fail_nomem(b->ctx, f.nids * sizeof *f.instead);
  else {
    fold_region(&f, g->body);
    rewrite(&f, g->body->yields, g->body->nyields);
    for (uint32_t i = 0; i < g->nresults; i++) rewrite_tree(&f, &g->results[i]);
    *changes = f.changes;
  }
  kn_free(b->ctx->heap, f.instead, f.nids * sizeof *f.instead);
  kn_free(b->ctx->heap, f.consts, f.nids * sizeof *f.consts);
  kn_free(b->ctx->heap, f.twin, f.nids * sizeof *f.twin);
  kn_free(b->ctx->heap, f.truth, f.nids * sizeof *f.truth);
  kn_free(b->ctx->heap, f.learnt, f.nids * sizeof *f.learnt);
  return st;
}

const kn_pass kn_pass_fold = {"fold", run};
