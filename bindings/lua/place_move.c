/* Reading and writing at a place (place.h) that has index tensors or a mask: the dims that are picked from
 * are brought to the front, where `index` and `index_put` work. */
#include "bindings/lua/place.h"
#include "core/composite.h"
#include "core/expr.h"
#include <string.h>

/* The dims of a place in the order: those with a list, then the others. */
typedef struct order {
  kn_attrs_axes dims;
  kn_tensor *index[KN_MAX_RANK + 2]; /* borrowed, from 2 on */
  int lists, before;                 /* dims before the lists, when they are neighbours; else 0 */
} order;

static order order_of(const kl_place *p) {
  order o = {.lists = 0};
  int rank = p->view->type.rank, first = -1, last = -1;
  for (int d = 0; d < rank; d++) {
    if (!p->list[d]) continue;
    first = first < 0 ? d : first;
    last = d;
    o.index[2 + o.lists++] = p->list[d];
    o.dims.dims.v[o.dims.dims.n++] = d;
  }
  o.before = last - first + 1 == o.lists ? first : 0;
  for (int d = 0; d < rank; d++)
    if (!p->list[d]) o.dims.dims.v[o.dims.dims.n++] = d;
  return o;
}

static kn_tensor *permuted(kn_scope *s, kn_tensor *t, const kn_attrs_axes *dims) {
  bool moves = false;
  for (int i = 0; i < dims->dims.n; i++) moves |= dims->dims.v[i] != i;
  return moves && t ? kx_apply(s, KN_OP_permute, dims, &t, 1) : t;
}

/* [B …, before …, rest …] as [before …, B …, rest …], or back. */
static kn_tensor *turned(kn_scope *s, kn_tensor *t, int before, int shared, bool back) {
  if (!t) return NULL;
  kn_attrs_axes dims = {.dims.n = t->type.rank};
  int front = back ? before : shared, then = back ? shared : before;
  for (int i = 0; i < t->type.rank; i++)
    dims.dims.v[i] = i < then ? front + i : i < then + front ? i - then : i;
  return permuted(s, t, &dims);
}

/* The rows where a mask over the leading dims is true. */
static kn_tensor *masked_rows(kn_scope *s, kn_tensor *t, kn_tensor *mask) {
  kn_attrs_flatten lead = {.start_dim = 0, .end_dim = mask->type.rank - 1};
  kn_attrs_sizes line = {.sizes = {1, {-1}}};
  kn_attrs_axis first = {.dim = 0};
  kn_attrs_optional_axis last = {.dim = 1};
  kn_tensor *rows = kx_apply(s, KN_OP_flatten, &lead, &t, 1);
  kn_tensor *flat = kx_apply(s, KN_OP_reshape, &line, &mask, 1), *where = flat ? kx_nonzero(s, flat) : NULL;
  kn_tensor *at = kx_apply(s, KN_OP_squeeze, &last, &where, 1);
  return kx_apply(s, KN_OP_index_select, &first, (kn_tensor *[]){rows, at}, 2);
}

/* One list of one dim: the op for it, which every backend has. */
static bool is_simple(const kl_place *p, int *dim) {
  for (int d = 0; d < p->view->type.rank; d++)
    if (p->list[d]) *dim = d;
  return p->lists == 1 && p->list[*dim]->type.rank == 1;
}

/* Positions that are known when the graph runs: those in range that count from the end, counted from 1. */
static kn_tensor *counted(kn_scope *s, const kl_place *p, int dim) {
  if (!p->key[dim]) return p->list[dim];
  kn_tensor *at = kx_index(s, p->list[dim]), *size = kx_size(s, p->view, dim, KN_I64);
  if (!at || !size) return NULL;
  kn_tensor *back = kx_bitwise_and(s, kx_lt(s, at, kx_number(s, 0, at)), kx_ge(s, at, kx_neg(s, size)));
  return kx_where(s, back, kx_add(s, at, kx_plus(s, size, 1)), at);
}

/* An op whose errors are those of the key. */
static kn_tensor *apply_for(kn_scope *s, const kl_place *p, int dim, kn_op op, kn_tensor *const *in, int n) {
  kn_attrs_axis along = {.dim = dim};
  const kn_within index = {kl_place_name(p->key[dim]), s->ctx->within}, part = {KN_UNNAMED, &index};
  s->ctx->within = &part;
  kn_tensor *t = kx_apply(s, op, &along, in, n);
  s->ctx->within = index.up;
  return t;
}

static kn_tensor *picked(kn_scope *s, const kl_place *p) {
  int dim = 0;
  if (is_simple(p, &dim)) {
    kn_tensor *in[] = {p->view, counted(s, p, dim)};
    return apply_for(s, p, dim, KN_OP_index_select, in, 2);
  }
  order o = order_of(p);
  o.index[1] = permuted(s, p->view, &o.dims);
  kn_tensor *r = kx_apply(s, KN_OP_index, NULL, o.index + 1, o.lists + 1);
  if (!r || !o.before) return r;
  return turned(s, r, o.before, r->type.rank - (p->view->type.rank - o.lists), false);
}

/* The place with its mask where the view is: it may be given on the host. */
static kl_place beside(kn_scope *s, const kl_place *p) {
  kl_place near = *p;
  if (p->mask && p->mask->type.device == KN_CPU) near.mask = kx_beside(s, p->mask, p->view);
  return near;
}

kn_status kl_place_get(kn_context *ctx, const kl_place *p, kn_tensor **out) {
  if (!p->mask && !p->lists) {
    *out = kn_tensor_retain(p->view);
    return KN_OK;
  }
  kn_scope s;
  if (p->mask) KN_TRY(kl_place_fits(ctx, p->whole, p->view, p->mask, 0, 0));
  kn_scope_open(&s, ctx);
  const kl_place near = beside(&s, p);
  kn_tensor *r = NULL;
  if (!p->mask)
    r = picked(&s, p);
  else if (p->mask->type.rank >= p->view->type.rank)
    r = kx_apply(&s, KN_OP_masked_select, NULL, (kn_tensor *[]){p->view, near.mask}, 2);
  else if (near.mask)
    r = masked_rows(&s, p->view, near.mask);
  return kn_scope_close(&s, r, out);
}

/* ---- writing ---- */

static kn_status overwrite(kn_context *ctx, kn_tensor *view, kn_tensor *value) {
  kn_tensor *same;
  KN_TRY(kn_apply(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){view, value}, 2, &same));
  kn_tensor_release(same);
  return KN_OK;
}

/* All of the (permuted) view with the values put in. They are broadcast to what t[key] would give. */
static kn_tensor *put(kn_scope *s, const kl_place *p, kn_tensor *value, kn_tensor *view, order *o) {
  kn_attrs_index_put how = {.accumulate = false};
  kn_dtype dtype = kn_tensor_dtype(p->view);
  if (kn_tensor_dtype(value) != dtype) value = kx_cast(s, value, dtype);
  if (value && value->type.rank > 0) {
    kn_tensor *like = picked(s, p);
    value = like ? kx_expand_as(s, value, like) : NULL;
    if (value && o->before)
      value = turned(s, value, o->before, like->type.rank - (p->view->type.rank - o->lists), true);
  }
  o->index[0] = view;
  o->index[1] = value;
  return kx_apply(s, KN_OP_index_put, &how, o->index, o->lists + 2);
}

static kn_status set_listed(kn_context *ctx, const kl_place *p, kn_tensor *value) {
  kn_scope s;
  int dim = 0;
  kn_scope_open(&s, ctx);
  order o = order_of(p);
  kn_tensor *view = p->view, *all;
  value = kx_beside(&s, value, view);
  if (!value) return kn_scope_close(&s, NULL, NULL);
  if (is_simple(p, &dim)) {
    kn_tensor *like = picked(&s, p), *cast = kx_cast(&s, value, kn_tensor_dtype(p->view));
    kn_tensor *src = like && cast ? kx_expand_as(&s, cast, like) : NULL;
    all = apply_for(&s, p, dim, KN_OP_index_copy, (kn_tensor *[]){view, counted(&s, p, dim), src}, 3);
  } else {
    view = permuted(&s, p->view, &o.dims);
    all = view ? put(&s, p, value, view, &o) : NULL;
  }
  if (all && view) kx_fail(&s, overwrite(ctx, view, all));
  return kn_scope_close(&s, NULL, NULL);
}

/* One value everywhere: where. As many values as the mask has places: put there in order. */
static kn_tensor *masked(kn_scope *s, const kl_place *p, kn_tensor *value) {
  kn_tensor *mask = p->mask, *view = p->view;
  kn_attrs_axis last = {.dim = -1}, first = {.dim = 0};
  kn_attrs_sizes line = {.sizes = {1, {-1}}};
  kn_attrs_optional_axis column = {.dim = 1};
  kn_tensor *cast = kx_cast(s, value, kn_tensor_dtype(view));
  while (mask && mask->type.rank < view->type.rank) mask = kx_apply(s, KN_OP_unsqueeze, &last, &mask, 1);
  if (value->type.rank == 0) return mask ? kx_where(s, mask, cast, view) : NULL;
  if (p->mask->type.rank < view->type.rank) { /* broadcast over the dims that the mask does not have */
    kn_tensor *like = masked_rows(s, view, p->mask);
    cast = like && cast ? kx_expand_as(s, cast, like) : NULL;
  }
  kn_tensor *full = mask ? kx_expand_as(s, mask, view) : NULL;
  kn_tensor *marks = kx_apply(s, KN_OP_reshape, &line, &full, 1),
            *where = marks ? kx_nonzero(s, marks) : NULL;
  kn_tensor *at = kx_apply(s, KN_OP_squeeze, &column, &where, 1);
  kn_tensor *flat = kx_apply(s, KN_OP_reshape, &line, &view, 1),
            *src = kx_apply(s, KN_OP_reshape, &line, &cast, 1);
  kn_tensor *all = kx_apply(s, KN_OP_index_copy, &first, (kn_tensor *[]){flat, at, src}, 3);
  return all ? kx_reshape_as(s, all, view) : NULL;
}

kn_status kl_place_set(kn_context *ctx, const kl_place *p, kn_tensor *value) {
  if (p->lists) return set_listed(ctx, p, value);
  if (!p->mask) return overwrite(ctx, p->view, value);
  KN_TRY(kl_place_fits(ctx, p->whole, p->view, p->mask, 0, 0));
  kn_scope s;
  kn_scope_open(&s, ctx);
  const kl_place near = beside(&s, p);
  value = kx_beside(&s, value, p->view);
  kn_tensor *all = near.mask && value ? masked(&s, &near, value) : NULL;
  if (all) kx_fail(&s, overwrite(ctx, p->view, all));
  return kn_scope_close(&s, NULL, NULL);
}
