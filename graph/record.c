/* The recorder behind capture, trace, builder and gradients: what kn_apply sees becomes nodes. */
#include "graph/record.h"
#include "graph/internal.h"
#include <stdio.h>
#include <string.h>

/* ---- real tensors met so far: open addressing, at most half full, keyed by address ---- */

typedef struct kn_record_known {
  kn_tensor *tensor; /* retained, so that the address stays its own */
  kn_value *value;
} known;

static size_t table_size(uint32_t n) {
  size_t cap = 16;
  while (cap < 2 * (size_t)n) cap *= 2;
  return cap;
}

static known *find(known *table, size_t cap, const kn_tensor *t) {
  size_t i = ((uintptr_t)t >> 4) * 0x9E3779B97F4A7C15u & (cap - 1);
  while (table[i].tensor && table[i].tensor != t) i = (i + 1) & (cap - 1);
  return &table[i];
}

static kn_status remember(kn_record *r, kn_tensor *t, kn_value *v) {
  kn_heap *heap = r->b->ctx->heap;
  size_t old = r->known ? table_size(r->nknown) : 0, cap = table_size(r->nknown + 1);
  if (cap != old) {
    known *table = kn_calloc(heap, cap, sizeof *table);
    if (!table) return kn_fail_nomem(r->b->ctx, cap * sizeof *table);
    for (size_t i = 0; i < old; i++)
      if (r->known[i].tensor) *find(table, cap, r->known[i].tensor) = r->known[i];
    kn_free(heap, r->known, old * sizeof *table);
    r->known = table;
  }
  *find(r->known, cap, t) = (known){kn_tensor_retain(t), v};
  r->nknown++;
  return KN_OK;
}

/* A slot read at the very start of the body, so that every region sees it. */
static kn_value *own_slot(kn_record *r, kn_tensor *t) {
  kn_builder *b = r->b;
  char name[32];
  snprintf(name, sizeof name, "tensor.%u", r->nknown + 1);
  kn_slot *s = kn_add_slot(b, KN_SLOT_PARAM, name, &(kn_vtype){KN_V_TENSOR, t->type}, t);
  kn_region *at = b->at;
  kn_node *first = b->graph->body->first;
  b->at = b->graph->body;
  kn_value *v = kn_add_slot_node(b, KN_NODE_param, s);
  b->at = at;
  if (!v) return NULL;
  while (first && first->op == KN_NODE_param && first != v->def) first = first->next;
  if (first) kn_node_move_before(v->def, first);
  return v;
}

kn_value *kn_record_value(kn_record *r, kn_tensor *t) {
  if (t->value) return r->see ? r->see(r->see_ud, t->value, -1) : t->value;
  if (r->known) {
    kn_value *v = find(r->known, table_size(r->nknown), t)->value;
    if (v) return v;
  }
  kn_value *v = r->outside ? r->outside(r->ud, t) : own_slot(r, t);
  if (!v) {
    if (r->b->status == KN_OK)
      kn_build_fail(r->b,
                    kn_fail(r->b->ctx, KN_INTERNAL, "a tensor from outside the graph was not given a name"));
    return NULL;
  }
  kn_status st = remember(r, t, v);
  return st == KN_OK ? v : kn_build_fail(r->b, st);
}

kn_status kn_record_tensor(kn_record *r, kn_value *v, kn_tensor **out) {
  if (r->b->status != KN_OK) return r->b->status;
  if (!v || v->type.kind != KN_V_TENSOR)
    return kn_fail(r->b->ctx, KN_INTERNAL, "a graph value is not a tensor");
  return kn_tensor_symbolic(r->b->ctx, &v->type.tensor, v, out);
}

/* ---- what kn_apply calls ---- */

typedef struct taking { /* the placeholders of one op, renumbered from 0 */
  kn_record *r;
  kn_value *dyn[KN_MAX_DYN];
  uint32_t n;
  bool bad;
} taking;

static void take_place(void *ud, int64_t *v) {
  taking *t = ud;
  if (!kn_is_dyn(*v)) return;
  uint32_t k = kn_dyn_index(*v);
  if (k >= t->r->ndyn || t->n == KN_MAX_DYN) {
    t->bad = true;
    return;
  }
  t->dyn[t->n] = t->r->dyn[k].as.value;
  *v = KN_DYN(t->n++);
}

static kn_status record_apply(kn_recorder *base, kn_context *ctx, kn_op op, const void *attrs,
                              kn_tensor *const *in, int n, const kn_type *types, kn_tensor **out) {
  (void)types; /* the node's own rule says the same */
  kn_record *r = (kn_record *)base;
  const kn_op_info *row = &kn_ops[op];
  if (r->b->status != KN_OK) return r->b->status;
  if (row->flags & KN_FLAG_WRITES)
    return kn_fail(ctx, KN_CAPTURE,
                   "%s: overwriting a tensor inside a captured function is not supported yet; "
                   "make a new one instead, as in `x = x + y` for `x:add_(y)`",
                   row->name);
  kn_value *values[KN_MAX_INPUTS];
  for (int i = 0; i < n; i++)
    if (!(values[i] = kn_record_value(r, in[i]))) return r->b->status;
  kn_attrs_any copy = {0};
  taking t = {.r = r};
  if (attrs) {
    memcpy(&copy, attrs, kn_attrs_describe(row->attrs).size);
    kn_attrs_each_int(row->attrs, &copy, take_place, &t);
    if (t.bad) return kn_fail(ctx, KN_INTERNAL, "%s: a size placeholder is unknown here", row->name);
  }
  kn_node *node = kn_add_op(r->b, op, attrs ? &copy : NULL, values, (uint32_t)n, t.dyn, t.n);
  if (!node) return r->b->status;
  for (int i = 0; i < row->outs; i++) {
    kn_status st = kn_record_tensor(r, node->out[i], &out[i]);
    if (st == KN_OK) continue;
    while (i-- > 0) kn_tensor_release(out[i]);
    return st;
  }
  return KN_OK;
}

static kn_status give_symbol(kn_record *r, kn_value *v, kn_scalar *out) {
  if (!v) return r->b->status;
  *out = (kn_scalar){KN_SCALAR_SYMBOL, {.value = v}};
  return KN_OK;
}

static kn_status record_item(kn_recorder *base, kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  (void)ctx;
  kn_record *r = (kn_record *)base;
  kn_value *v = kn_record_value(r, t);
  return give_symbol(r, v ? kn_add_item(r->b, v) : NULL, out);
}

static kn_status record_size(kn_recorder *base, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out) {
  (void)ctx;
  kn_record *r = (kn_record *)base;
  if (dim >= 0 && dim < t->type.rank && kn_dim_known(t->type.dims[dim])) {
    *out = (kn_scalar){KN_SCALAR_INT, {.i = t->type.dims[dim]}};
    return KN_OK;
  }
  if (t->value && r->see) return give_symbol(r, r->see(r->see_ud, t->value, dim), out);
  kn_value *v = kn_record_value(r, t);
  return give_symbol(r, v ? kn_add_size(r->b, v, dim) : NULL, out);
}

static kn_status record_detach(kn_recorder *base, kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  (void)ctx;
  kn_record *r = (kn_record *)base;
  kn_value *v = kn_record_value(r, t);
  v = v ? kn_add_detach(r->b, v) : NULL;
  return v ? kn_record_tensor(r, v, out) : r->b->status;
}

static kn_status record_to_tensor(kn_recorder *base, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                                  kn_tensor **out) {
  (void)ctx;
  kn_record *r = (kn_record *)base;
  kn_value *v = kn_add_to_tensor(r->b, kn_add_const(r->b, *s), dtype);
  return v ? kn_record_tensor(r, v, out) : r->b->status;
}

static kn_status record_dynamic(kn_recorder *base, kn_context *ctx, const kn_scalar *s,
                                int64_t *placeholder) {
  kn_record *r = (kn_record *)base;
  if (s->kind == KN_SCALAR_INT) {
    *placeholder = s->as.i;
    return KN_OK;
  }
  kn_value *v = s->kind == KN_SCALAR_SYMBOL ? s->as.value : NULL;
  if (!v || v->type.kind != KN_V_INT)
    return kn_fail(ctx, KN_ARG, "an integer is needed here, and this number is not known to be one");
  size_t have = r->ndyn; /* capacity: the next power of two, from 16 */
  if (have >= 16 ? !(have & (have - 1)) : have == 0) {
    size_t cap = have ? have * 2 : 16;
    kn_scalar *dyn = kn_realloc(ctx->heap, r->dyn, have * sizeof *dyn, cap * sizeof *dyn);
    if (!dyn) return kn_fail_nomem(ctx, cap * sizeof *dyn);
    r->dyn = dyn;
  }
  r->dyn[r->ndyn] = *s;
  *placeholder = KN_DYN(r->ndyn++);
  return KN_OK;
}

/* Positive positions are the common case, but which case it is is known only when the graph runs. */
static kn_status record_position(kn_recorder *base, kn_context *ctx, const kn_scalar *s, bool last,
                                 kn_scalar *out) {
  kn_record *r = (kn_record *)base;
  kn_builder *b = r->b;
  kn_value *v = s->kind == KN_SCALAR_SYMBOL ? s->as.value : NULL;
  if (!v || v->type.kind != KN_V_INT)
    return kn_fail(ctx, KN_ARG, "an integer is needed here, and this number is not known to be one");
  kn_value *zero = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = 0}});
  kn_value *one = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = 1}});
  kn_value *is_zero = kn_add_scalar(b, KN_NODE_lua_eq, (kn_value *[]){v, zero}, 2);
  kn_value *fine = kn_add_scalar(b, KN_NODE_lua_not, &is_zero, 1);
  kn_add_raise(b, KN_NODE_assert, fine, "index is 0, but counting starts at 1 (-1 is the last)");
  kn_value *from_start = kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){zero, v}, 2);
  if (!last) {
    kn_value *less = kn_add_scalar(b, KN_NODE_lua_sub, (kn_value *[]){v, one}, 2);
    return give_symbol(r, kn_add_select(b, from_start, less, v), out);
  }
  kn_value *end = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = KN_TO_END}});
  kn_value *minus = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = -1}});
  kn_value *is_last = kn_add_scalar(b, KN_NODE_lua_eq, (kn_value *[]){v, minus}, 2);
  kn_value *more = kn_add_scalar(b, KN_NODE_lua_add, (kn_value *[]){v, one}, 2);
  kn_value *back = kn_add_select(b, is_last, end, more);
  return give_symbol(r, kn_add_select(b, from_start, v, back), out);
}

void kn_record_init(kn_record *r, kn_builder *b) {
  *r = (kn_record){.base = {.apply = record_apply,
                            .item = record_item,
                            .size = record_size,
                            .to_tensor = record_to_tensor,
                            .detach = record_detach,
                            .dynamic = record_dynamic,
                            .position = record_position},
                   .b = b};
}

void kn_record_free(kn_record *r) {
  kn_heap *heap = r->b->ctx->heap;
  size_t cap = 16;
  while (cap < r->ndyn) cap *= 2;
  kn_free(heap, r->dyn, cap * sizeof *r->dyn);
  size_t n = r->known ? table_size(r->nknown) : 0;
  for (size_t i = 0; i < n; i++) kn_tensor_release(r->known[i].tensor);
  kn_free(heap, r->known, n * sizeof *r->known);
  r->known = NULL;
  r->dyn = NULL;
  r->nknown = r->ndyn = 0;
}
