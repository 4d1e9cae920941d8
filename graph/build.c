/* The builder: values, slots and nodes without regions. `if` and `loop` are in control.c, trees in tree.c. */
#include "graph/format.h"
#include "graph/graph.h"
#include "graph/internal.h"
#include "graph/scalar.h"
#include <stdio.h>
#include <string.h>

/* ---- memory and failure ---- */

void kn_builder_init(kn_builder *b, kn_context *ctx, kn_graph *g) {
  *b = (kn_builder){.ctx = ctx, .graph = g, .at = g->body, .budget = KN_NODE_BUDGET};
}

void *kn_build_fail(kn_builder *b, kn_status st) {
  if (b->status == KN_OK) b->status = st;
  return NULL;
}

void *kn_build_alloc(kn_builder *b, size_t size) {
  if (b->status != KN_OK) return NULL;
  void *p = kn_arena_alloc(&b->graph->arena, size);
  return p ? p : kn_build_fail(b, kn_fail_nomem(b->ctx, size));
}

void *kn_build_array(kn_builder *b, const void *p, size_t count, size_t elem) {
  size_t cap = 4;
  while (cap < count) cap *= 2;
  void *q = kn_build_alloc(b, cap * elem);
  if (q && count) memcpy(q, p, count * elem);
  return q;
}

bool kn_build_push(kn_builder *b, void *array, uint32_t *count, const void *elem, size_t size) {
  void *old, *p;
  memcpy(&old, array, sizeof old);
  if (b->status != KN_OK) return false;
  if (!(p = kn_arena_grow(&b->graph->arena, old, *count, size))) {
    kn_build_fail(b, kn_fail_nomem(b->ctx, (*count + 1) * size));
    return false;
  }
  memcpy((char *)p + *count * size, elem, size);
  memcpy(array, &p, sizeof p);
  ++*count;
  return true;
}

/* ---- text, places, symbols ---- */

size_t kn_utf8_length(const char *s, const char *end) {
  const unsigned char *u = (const unsigned char *)s;
  size_t left = (size_t)(end - s), n = u[0] < 0x80   ? 1
                                       : u[0] < 0xC2 ? 0
                                       : u[0] < 0xE0 ? 2
                                       : u[0] < 0xF0 ? 3
                                       : u[0] < 0xF5 ? 4
                                                     : 0;
  if (!n || n > left) return 0;
  for (size_t i = 1; i < n; i++)
    if ((u[i] & 0xC0) != 0x80) return 0;
  if (n == 3 && ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F)))
    return 0; /* long, surrogate */
  if (n == 4 && ((u[0] == 0xF0 && u[1] < 0x90) || (u[0] == 0xF4 && u[1] > 0x8F)))
    return 0; /* long, too large */
  return n;
}

const char *kn_build_text(kn_builder *b, const char *s) {
  if (!s) return NULL;
  size_t len = strlen(s);
  char *t = kn_build_alloc(b, len + 1);
  if (!t) return NULL;
  for (size_t i = 0; i < len;) {
    size_t n = kn_utf8_length(s + i, s + len);
    if (n == 0)
      t[i++] = '?';
    else {
      memcpy(t + i, s + i, n);
      i += n;
    }
  }
  return t;
}

const kn_where *kn_where_intern(kn_builder *b, const char *chunk, int line, const kn_where *at) {
  if (b->status != KN_OK) return NULL;
  const kn_where *w = b->where; /* most nodes come from the place of the one before */
  if (w && w->line == line && w->at == at && !strcmp(w->chunk, chunk)) return w;
  kn_graph *g = b->graph;
  for (uint32_t i = 0; i < g->nplaces; i++) {
    w = g->places[(g->nplaces - 1 - i)];
    if (w->line == line && w->at == at && !strcmp(w->chunk, chunk)) return w;
    if (i > 64) break; /* enough to share nearly all; sharing is for size only */
  }
  const char *name = NULL;
  for (uint32_t i = g->nplaces; i-- > 0 && !name && g->nplaces - i < 64;)
    if (!strcmp(g->places[i]->chunk, chunk)) name = g->places[i]->chunk;
  kn_where *made = kn_build_alloc(b, sizeof *made);
  if (!name) name = kn_build_text(b, chunk);
  if (!made || !name) return NULL;
  *made = (kn_where){name, line, at};
  w = made;
  return kn_build_push(b, &g->places, &g->nplaces, &w, sizeof w) ? made : NULL;
}

int64_t kn_symbol_intern(kn_builder *b, const char *name) {
  kn_graph *g = b->graph;
  const char *text = kn_build_text(b, name);
  if (!text) return KN_DIM_UNKNOWN;
  for (uint32_t i = 0; i < g->nsymbols; i++)
    if (!strcmp(g->symbols[i], text)) return KN_DIM_SYMBOL(i);
  if (!kn_build_push(b, &g->symbols, &g->nsymbols, &text, sizeof text)) return KN_DIM_UNKNOWN;
  return KN_DIM_SYMBOL(g->nsymbols - 1);
}

/* ---- values and slots ---- */

kn_value *kn_build_value(kn_builder *b, kn_region *r, kn_node *def, uint32_t index, const kn_vtype *type) {
  kn_value *v = kn_build_alloc(b, sizeof *v);
  if (!v) return NULL;
  *v = (kn_value){.id = ++b->graph->nvalues, .type = *type, .def = def, .region = r, .index = index};
  if (kn_innermost(type->kind) != KN_V_TENSOR) v->type.tensor = (kn_type){0};
  return v;
}

void kn_value_name(kn_builder *b, kn_value *v, const char *name) {
  if (b->status == KN_OK && v && name && *name && !v->name) v->name = kn_build_text(b, name);
}

kn_value *kn_add_param(kn_builder *b, kn_region *r, const char *name, const kn_vtype *type) {
  if (b->status != KN_OK) return NULL;
  kn_value *v = kn_build_value(b, r, NULL, r->nparams, type);
  if (!v || !kn_build_push(b, &r->params, &r->nparams, &v, sizeof v)) return NULL;
  kn_value_name(b, v, name);
  return v;
}

kn_value *kn_add_input(kn_builder *b, const char *name, const kn_vtype *type) {
  return kn_add_param(b, b->graph->body, name, type);
}

kn_region *kn_region_new(kn_builder *b, kn_node *owner) {
  kn_region *r = kn_build_alloc(b, sizeof *r);
  if (r) *r = (kn_region){.graph = b->graph, .owner = owner};
  return r;
}

static bool slot_named(const kn_graph *g, const char *name) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (!strcmp(g->slots[i]->name, name)) return true;
  return false;
}

/* The name itself, or with the first suffix .2, .3 … that is new. */
static const char *new_slot_name(kn_builder *b, const char *name) {
  const char *text = kn_build_text(b, name && *name ? name : "slot");
  if (!text || !slot_named(b->graph, text)) return text;
  size_t size = strlen(text) + 16;
  char *with = kn_build_alloc(b, size);
  for (uint32_t k = 2; with; k++) {
    snprintf(with, size, "%s.%u", text, k);
    if (!slot_named(b->graph, with)) break;
  }
  return with;
}

kn_slot *kn_build_slot(kn_builder *b, kn_slot_kind kind, const char *name, const kn_vtype *type) {
  kn_slot *s = kn_build_alloc(b, sizeof *s);
  if (!s || !name) return NULL;
  *s = (kn_slot){.kind = kind, .index = b->graph->nslots, .name = name, .type = *type, .where = b->where};
  if (type->kind == KN_V_FLOAT) s->scalar = (kn_scalar){KN_SCALAR_FLOAT, {.f = 0}};
  if (type->kind == KN_V_BOOL) s->scalar = (kn_scalar){KN_SCALAR_BOOL, {.b = false}};
  return kn_build_push(b, &b->graph->slots, &b->graph->nslots, &s, sizeof s) ? s : NULL;
}

kn_slot *kn_add_slot(kn_builder *b, kn_slot_kind kind, const char *name, const kn_vtype *type,
                     kn_tensor *tensor) {
  if (b->status != KN_OK) return NULL;
  char want[KN_TYPE_TEXT], got[KN_TYPE_TEXT];
  if (tensor &&
      (type->kind != KN_V_TENSOR || !kn_type_equal(&type->tensor, &tensor->type) || !tensor->storage))
    return kn_build_fail(b,
                         kn_fail(b->ctx, KN_ARG, "slot %s: a real tensor of its type %s is needed (got %s)",
                                 name, kn_vtype_text(b->graph, type, want, sizeof want),
                                 kn_type_text(&tensor->type, got, sizeof got)));
  if (type->kind == KN_V_TENSOR && !kn_type_known(&type->tensor))
    return kn_build_fail(b, kn_fail(b->ctx, KN_ARG, "slot %s: the sizes of a slot are known (got %s)", name,
                                    kn_vtype_text(b->graph, type, want, sizeof want)));
  kn_slot *s = kn_build_slot(b, kind, new_slot_name(b, name), type);
  if (s) s->tensor = tensor ? kn_tensor_retain(tensor) : NULL;
  return s;
}

bool kn_add_guard(kn_builder *b, const char *kind, const char *name, const char *value,
                  const kn_where *where) {
  kn_guard g = {kn_build_text(b, kind), kn_build_text(b, name), kn_build_text(b, value), where};
  return b->status == KN_OK && kn_build_push(b, &b->graph->guards, &b->graph->nguards, &g, sizeof g);
}

/* ---- nodes ---- */

static size_t attrs_size(kn_opcode op) {
  if (kn_opcode_is_op(op))
    return kn_ops[op].attrs == KN_ATTRS_none ? 0 : kn_attrs_describe(kn_ops[op].attrs).size;
  return op == KN_NODE_size ? sizeof(int64_t) : op == KN_NODE_to_tensor ? sizeof(kn_dtype) : 0;
}

static bool inputs_given(kn_builder *b, kn_opcode op, kn_value *const *in, uint32_t nin) {
  for (uint32_t i = 0; i < nin; i++)
    if (!in[i]) {
      kn_build_fail(
          b, kn_fail(b->ctx, KN_INTERNAL, "%s: input %u is missing", kn_opcode_describe(op).text, i + 1));
      return false;
    }
  return true;
}

static void append(kn_region *r, kn_node *n) {
  n->region = r;
  n->prev = r->last;
  *(r->last ? &r->last->next : &r->first) = n;
  r->last = n;
}

kn_node *kn_add_node(kn_builder *b, kn_opcode op, const void *attrs, kn_value *const *in, uint32_t nin,
                     const kn_vtype *types, uint32_t nout) {
  if (b->status != KN_OK || !inputs_given(b, op, in, nin)) return NULL;
  if (b->graph->finished)
    return kn_build_fail(
        b, kn_fail(b->ctx, KN_STATE, "the graph %s is finished and cannot change", b->graph->name));
  uint32_t budget = b->budget ? b->budget : KN_NODE_BUDGET;
  if (b->graph->nnodes >= budget)
    return kn_build_fail(b, kn_fail(b->ctx, KN_LIMIT, "the graph needs more than %u nodes", budget));
  size_t size = attrs_size(op);
  kn_node *n = kn_build_alloc(b, sizeof *n);
  if (!n) return NULL;
  *n =
      (kn_node){.op = op, .nin = nin, .ntensor = nin, .nout = nout, .where = b->where, .text_at = b->text_at};
  n->no_grad = b->no_grad && kn_opcode_is_op(op);
  n->again = b->again;
  n->in = kn_build_array(b, in, nin, sizeof *n->in);
  n->out = kn_build_array(b, NULL, 0, sizeof *n->out);
  if (nout > 4) n->out = kn_build_alloc(b, 2 * nout * sizeof *n->out);
  if (size) n->attrs = kn_build_alloc(b, size);
  for (uint32_t i = 0; b->status == KN_OK && i < nout; i++)
    n->out[i] = kn_build_value(b, b->at, n, i, &types[i]);
  if (b->status != KN_OK) return NULL;
  if (size && attrs) memcpy(n->attrs, attrs, size);
  b->graph->nnodes++;
  append(b->at, n);
  return n;
}

static kn_value *only(const kn_node *n) { return n ? n->out[0] : NULL; }

kn_value *kn_add_const(kn_builder *b, kn_scalar s) {
  static const kn_vkind kinds[] = {
      [KN_SCALAR_INT] = KN_V_INT, [KN_SCALAR_FLOAT] = KN_V_FLOAT, [KN_SCALAR_BOOL] = KN_V_BOOL};
  if (s.kind == KN_SCALAR_SYMBOL) return s.as.value;
  kn_node *n = kn_add_node(b, KN_NODE_const, NULL, NULL, 0, &(kn_vtype){.kind = kinds[s.kind]}, 1);
  if (n) n->scalar = s;
  return only(n);
}

kn_value *kn_add_undef(kn_builder *b, const kn_vtype *type) {
  return only(kn_add_node(b, KN_NODE_undef, NULL, NULL, 0, type, 1));
}

kn_value *kn_add_slot_node(kn_builder *b, kn_opcode op, kn_slot *slot) {
  if (b->status != KN_OK || !slot) return NULL;
  kn_node *n = kn_add_node(b, op, NULL, NULL, 0, &slot->type, 1);
  if (n) n->slot = slot;
  return only(n);
}

kn_node *kn_add_store(kn_builder *b, kn_slot *slot, kn_value *v) {
  if (b->status != KN_OK || !slot || !v) return NULL;
  char want[KN_TYPE_TEXT], got[KN_TYPE_TEXT];
  if (slot->kind != KN_SLOT_STATE || !kn_vtype_may_be(&v->type, &slot->type))
    return kn_build_fail(b, kn_fail(b->ctx, KN_ARG, KN_STORE_SENTENCE, slot->name,
                                    kn_vtype_text(b->graph, &slot->type, want, sizeof want),
                                    kn_vtype_text(b->graph, &v->type, got, sizeof got)));
  kn_node *n = kn_add_node(b, KN_NODE_store_state, NULL, &v, 1, NULL, 0);
  if (n) n->slot = slot;
  return n;
}

kn_node *kn_add_update(kn_builder *b, kn_value *input, kn_value *v) {
  if (b->status != KN_OK || !input || !v) return NULL;
  return kn_add_node(b, KN_NODE_update, NULL, (kn_value *[]){input, v}, 2, NULL, 0);
}

kn_value *kn_add_scalar(kn_builder *b, kn_opcode op, kn_value *const *in, uint32_t nin) {
  if (b->status != KN_OK || !inputs_given(b, op, in, nin)) return NULL;
  kn_vkind kinds[4] = {KN_V_INT}, out;
  for (uint32_t i = 0; i < nin && i < 4; i++) kinds[i] = in[i]->type.kind;
  if (nin > 3 || !kn_scalar_result(op, kinds, nin, &out)) {
    char text[3][KN_TYPE_TEXT] = {"", "", ""};
    for (uint32_t i = 0; i < nin && i < 3; i++)
      kn_vtype_text(b->graph, &in[i]->type, text[i], sizeof text[i]);
    return kn_build_fail(b, kn_fail(b->ctx, KN_ARG, "%s: cannot take %s%s%s%s%s", kn_opcode_describe(op).text,
                                    text[0], nin > 1 ? ", " : "", text[1], nin > 2 ? ", " : "", text[2]));
  }
  return only(kn_add_node(b, op, NULL, in, nin, &(kn_vtype){.kind = out}, 1));
}

/* The value must be of one kind for this node. */
static bool need(kn_builder *b, kn_opcode op, kn_value *v, bool fine, const char *what) {
  if (b->status != KN_OK || !inputs_given(b, op, &v, 1)) return false;
  if (fine) return true;
  char got[KN_TYPE_TEXT];
  kn_build_fail(b, kn_fail(b->ctx, KN_ARG, "%s: %s is needed (got %s)", kn_opcode_describe(op).text, what,
                           kn_vtype_text(b->graph, &v->type, got, sizeof got)));
  return false;
}
#define IS(v, k) ((v) && (v)->type.kind == (k))

kn_value *kn_add_size(kn_builder *b, kn_value *tensor, int dim) {
  if (!need(b, KN_NODE_size, tensor, IS(tensor, KN_V_TENSOR), "a tensor")) return NULL;
  const kn_type *t = &tensor->type.tensor;
  if (dim < 0 || dim >= t->rank)
    return kn_build_fail(
        b, kn_fail(b->ctx, KN_INDEX, "size: dimension %d of a tensor with %d", dim + 1, t->rank));
  if (kn_dim_known(t->dims[dim])) return kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = t->dims[dim]}});
  int64_t d = dim;
  return only(kn_add_node(b, KN_NODE_size, &d, &tensor, 1, &(kn_vtype){.kind = KN_V_INT}, 1));
}

kn_vkind kn_item_kind(kn_dtype d) {
  static const kn_vkind kinds[] = {
      [KN_CAT_BOOL] = KN_V_BOOL, [KN_CAT_INT] = KN_V_INT, [KN_CAT_FLOAT] = KN_V_FLOAT};
  return kinds[kn_dtypes[d].category];
}

kn_value *kn_add_item(kn_builder *b, kn_value *tensor) {
  if (!need(b, KN_NODE_item, tensor, IS(tensor, KN_V_TENSOR), "a tensor")) return NULL;
  const kn_type *t = &tensor->type.tensor;
  int64_t n = kn_type_numel(t);
  if (!need(b, KN_NODE_item, tensor, n == 1 || n == KN_DIM_UNKNOWN, "a tensor of one element")) return NULL;
  kn_vtype type = {.kind = kn_item_kind((kn_dtype)t->dtype)};
  return only(kn_add_node(b, KN_NODE_item, NULL, &tensor, 1, &type, 1));
}

kn_value *kn_add_to_tensor(kn_builder *b, kn_value *scalar, kn_dtype dtype) {
  if (!need(b, KN_NODE_to_tensor, scalar, !IS(scalar, KN_V_TENSOR), "a number or boolean")) return NULL;
  kn_vtype type = {.kind = KN_V_TENSOR, .tensor = {.dtype = (uint8_t)dtype}};
  return only(kn_add_node(b, KN_NODE_to_tensor, &dtype, &scalar, 1, &type, 1));
}

kn_value *kn_add_select(kn_builder *b, kn_value *cond, kn_value *a, kn_value *c) {
  kn_vtype type = {.kind = KN_V_BOOL};
  if (!need(b, KN_NODE_select, cond, IS(cond, KN_V_BOOL), "a boolean first") || !a || !c ||
      !need(b, KN_NODE_select, c, kn_vtype_join(&a->type, &c->type, &type),
            "a second choice that joins the first"))
    return NULL;
  return only(kn_add_node(b, KN_NODE_select, NULL, (kn_value *[]){cond, a, c}, 3, &type, 1));
}

/* ---- lists, and what concerns gradients ---- */

kn_value *kn_add_list(kn_builder *b, const kn_vtype *element) {
  kn_vtype type = kn_list_of(*element);
  if (b->status == KN_OK && (int)type.kind >= KN_V_DEEPEST)
    return kn_build_fail(b, kn_fail(b->ctx, KN_LIMIT, "lists are nested too deeply"));
  return only(kn_add_node(b, KN_NODE_list_new, NULL, NULL, 0, &type, 1));
}

kn_value *kn_add_append(kn_builder *b, kn_value *list, kn_value *v) {
  if (!need(b, KN_NODE_list_append, list, list && kn_is_list(list->type.kind), "a list") || !v) return NULL;
  kn_vtype element = kn_element_of(list->type), type;
  if (!need(b, KN_NODE_list_append, v, kn_vtype_join(&element, &v->type, &type) && type.kind == element.kind,
            "a value of the kind of the list's"))
    return NULL;
  type = kn_list_of(type);
  return only(kn_add_node(b, KN_NODE_list_append, NULL, (kn_value *[]){list, v}, 2, &type, 1));
}

kn_value *kn_add_list_get(kn_builder *b, kn_value *list, kn_value *position) {
  if (!need(b, KN_NODE_list_get, list, list && kn_is_list(list->type.kind), "a list") ||
      !need(b, KN_NODE_list_get, position, IS(position, KN_V_INT), "an integer as the position"))
    return NULL;
  kn_vtype type = kn_element_of(list->type);
  return only(kn_add_node(b, KN_NODE_list_get, NULL, (kn_value *[]){list, position}, 2, &type, 1));
}

kn_value *kn_add_of_list(kn_builder *b, kn_opcode op, kn_value *list, kn_value *count) {
  bool part = op == KN_NODE_list_first || op == KN_NODE_list_thin;
  if (!need(b, op, list, list && kn_is_list(list->type.kind), "a list")) return NULL;
  if (op == KN_NODE_list_first && !need(b, op, count, IS(count, KN_V_INT), "an integer as the count"))
    return NULL;
  kn_vtype type = part ? list->type : (kn_vtype){.kind = KN_V_INT};
  return only(kn_add_node(b, op, NULL, (kn_value *[]){list, count}, count ? 2 : 1, &type, 1));
}

kn_value *kn_add_list_sum(kn_builder *b, kn_value *x, kn_value *y) {
  kn_vtype type;
  bool lists = x && y && x->type.kind == KN_V_LIST && kn_vtype_join(&x->type, &y->type, &type);
  if (!need(b, KN_NODE_list_sum, y, lists, "two lists of tensors of one dtype and rank")) return NULL;
  return only(kn_add_node(b, KN_NODE_list_sum, NULL, (kn_value *[]){x, y}, 2, &type, 1));
}

kn_value *kn_add_list_with(kn_builder *b, kn_value *const in[4]) {
  kn_value *list = in[0], *v = in[3];
  if (!need(b, KN_NODE_list_with, list, list && list->type.kind == KN_V_LIST, "a list of tensors") ||
      !need(b, KN_NODE_list_with, in[1], IS(in[1], KN_V_INT), "an integer as the number") ||
      !need(b, KN_NODE_list_with, in[2], IS(in[2], KN_V_INT), "an integer as the position"))
    return NULL;
  kn_vtype element = kn_element_of(list->type), type;
  if (!need(b, KN_NODE_list_with, v, v && kn_vtype_join(&element, &v->type, &type),
            "a tensor as of the list's"))
    return NULL;
  type = kn_list_of(type);
  return only(kn_add_node(b, KN_NODE_list_with, NULL, in, 4, &type, 1));
}

kn_value *kn_add_list_length(kn_builder *b, kn_value *list) {
  return kn_add_of_list(b, KN_NODE_list_length, list, NULL);
}

kn_value *kn_add_list_stack(kn_builder *b, kn_value *list) {
  if (!need(b, KN_NODE_list_stack, list,
            list && list->type.kind == KN_V_LIST && list->type.tensor.rank < KN_MAX_RANK,
            "a list of tensors"))
    return NULL;
  kn_vtype type = kn_stacked(&list->type);
  return only(kn_add_node(b, KN_NODE_list_stack, NULL, &list, 1, &type, 1));
}

kn_value *kn_add_defined(kn_builder *b, kn_value *tensor) {
  if (!need(b, KN_NODE_defined, tensor, IS(tensor, KN_V_TENSOR), "a tensor")) return NULL;
  return only(kn_add_node(b, KN_NODE_defined, NULL, &tensor, 1, &(kn_vtype){.kind = KN_V_BOOL}, 1));
}

kn_value *kn_add_detach(kn_builder *b, kn_value *tensor) {
  if (!need(b, KN_NODE_detach, tensor, IS(tensor, KN_V_TENSOR), "a tensor")) return NULL;
  return only(kn_add_node(b, KN_NODE_detach, NULL, &tensor, 1, &tensor->type, 1));
}

kn_value *kn_add_with_history(kn_builder *b, kn_value *tensor, kn_value *of) {
  bool alike = IS(tensor, KN_V_TENSOR) && IS(of, KN_V_TENSOR) &&
               tensor->type.tensor.dtype == of->type.tensor.dtype &&
               tensor->type.tensor.rank == of->type.tensor.rank;
  if (!need(b, KN_NODE_with_history, tensor, alike, "two tensors of one dtype and rank")) return NULL;
  return only(kn_add_node(b, KN_NODE_with_history, NULL, (kn_value *[]){tensor, of}, 2, &tensor->type, 1));
}

kn_node *kn_add_raise(kn_builder *b, kn_opcode op, kn_value *cond, const char *text) {
  return kn_add_text(b, op, text ? text : "", &cond, op == KN_NODE_assert);
}

kn_node *kn_add_text(kn_builder *b, kn_opcode op, const char *text, kn_value *const *in, uint32_t n) {
  if (op == KN_NODE_assert && !need(b, op, n ? in[0] : NULL, IS(in[0], KN_V_BOOL), "a boolean")) return NULL;
  const char *message = kn_build_text(b, text), *why;
  kn_node *made = message ? kn_add_node(b, op, NULL, in, n, NULL, 0) : NULL;
  if (!made) return NULL;
  made->text = message;
  uint32_t first = kn_format_first(made);
  if (kn_format_used(made) && (why = kn_format_check(message, in + first, n - first)))
    return kn_build_fail(b, kn_fail(b->ctx, KN_INTERNAL, "%s: %s", kn_opcode_describe(op).text, why));
  return made;
}

/* ---- tensor ops ---- */

typedef struct places { /* renumbers placeholders in the order they are met, each an input of its own */
  kn_builder *b;
  const char *name;
  kn_value *const *dyn;
  uint32_t ndyn, n;
  kn_value *in[KN_MAX_DYN];
} places;

static void no_integer(kn_builder *b, const char *op) {
  kn_build_fail(b, kn_fail(b->ctx, KN_INTERNAL, "%s: a size placeholder stands for no integer", op));
}

static void renumber_place(void *ud, int64_t *v) {
  places *p = ud;
  if (!kn_is_dyn(*v)) return;
  uint32_t k = kn_dyn_index(*v);
  if (k >= p->ndyn || p->n == KN_MAX_DYN || !p->dyn[k]) {
    no_integer(p->b, p->name);
    return;
  }
  p->in[p->n] = p->dyn[k];
  *v = KN_DYN(p->n++);
}

kn_node *kn_add_op(kn_builder *b, kn_op op, const void *attrs, kn_value *const *in, uint32_t n,
                   kn_value *const *dyn, uint32_t ndyn) {
  if (b->status != KN_OK || !inputs_given(b, (kn_opcode)op, in, n)) return NULL;
  const kn_op_info *row = &kn_ops[op];
  kn_type types[KN_MAX_INPUTS], made[KN_MAX_OUTPUTS];
  kn_value *all[KN_MAX_INPUTS + KN_MAX_DYN];
  kn_vtype out[KN_MAX_OUTPUTS];
  if (n > KN_MAX_INPUTS)
    return kn_build_fail(b, kn_fail(b->ctx, KN_ARG, "%s: more than %d tensors", row->name, KN_MAX_INPUTS));
  for (uint32_t i = 0; i < n; i++) {
    if (!need(b, (kn_opcode)op, in[i], IS(in[i], KN_V_TENSOR), "a tensor")) return NULL;
    types[i] = in[i]->type.tensor;
    all[i] = in[i];
  }
  kn_attrs_any copy = {0};
  places p = {.b = b, .name = row->name, .dyn = dyn, .ndyn = ndyn};
  if (attrs) {
    memcpy(&copy, attrs, kn_attrs_describe(row->attrs).size);
    kn_attrs_each_int(row->attrs, &copy, renumber_place, &p);
    for (uint32_t i = 0; i < p.n; i++)
      if (!kn_may_stand(&p.in[i]->type, row->attrs, &copy, i)) no_integer(b, row->name);
    if (b->status != KN_OK) return NULL;
  }
  kn_status st = kn_infer_types(b->ctx, op, attrs ? &copy : NULL, types, (int)n, made);
  if (st != KN_OK) return kn_build_fail(b, st);
  for (uint32_t i = 0; i < p.n; i++) all[n + i] = p.in[i];
  for (int i = 0; i < row->outs; i++) out[i] = (kn_vtype){KN_V_TENSOR, made[i]};
  kn_node *node = kn_add_node(b, (kn_opcode)op, &copy, all, n + p.n, out, row->outs);
  if (node) node->ntensor = n;
  return node;
}
