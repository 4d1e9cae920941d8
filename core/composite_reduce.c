/* Composites: reductions made of others, and what is read off sorted elements. */
#include "core/composite.h"

/* ---- sums ---- */

static kn_tensor *count_nonzero(kn_scope *s, kn_tensor *x, const kn_attrs_reduce *a) {
  return kx_with(s, KN_OP_sum, a, kx_ne(s, x, kx_number(s, 0, x)));
}
EXPRESSION(count_nonzero, count_nonzero(s, in[0], attrs))

/* The largest is taken off before and put back after, so that nothing overflows; it passes no gradient, which
 * would cancel. */
static kn_tensor *logsumexp(kn_scope *s, kn_tensor *x, const kn_attrs_reduce *a) {
  kn_tensor *zero = kx_number(s, 0, x), *top = kx_reduce(s, KN_OP_amax, kx_detach(s, x), a->dim, true);
  top = kx_where(s, kx_with(s, KN_OP_isfinite, NULL, top), top, zero);
  kn_tensor *total = kx_log(s, kx_with(s, KN_OP_sum, a, kx_exp(s, kx_sub(s, x, top))));
  return kx_add(s, total, kx_reshape_as(s, top, total));
}
EXPRESSION(logsumexp, logsumexp(s, kx_floating(s, in[0]), attrs))

static kn_tensor *power_norm(kn_scope *s, kn_tensor *x, double p, const kn_attrs_reduce *over) {
  kn_tensor *size = kx_abs(s, x), *zero = kx_number(s, 0, x), *to = kx_number(s, p, x);
  kn_tensor *power = kx_pow(s, size, to);
  if (p < 1) { /* at 0 the slope is infinite, and taken as 0 */
    kn_tensor *at = kx_eq(s, x, zero), *there = kx_where(s, at, kx_number(s, 1, x), size);
    power = kx_where(s, at, kx_number(s, p < 0 ? INFINITY : 0, x), kx_pow(s, there, to));
  }
  kn_tensor *total = kx_with(s, KN_OP_sum, over, power), *none = kx_eq(s, total, zero);
  kn_tensor *safe = kx_where(s, none, kx_number(s, 1, x), total);
  return kx_where(s, none, zero, kx_pow(s, safe, kx_number(s, 1 / p, x)));
}

/* How many are not 0, with the gradient of a step: 0. */
static kn_tensor *count_norm(kn_scope *s, kn_tensor *x, const kn_attrs_reduce *over) {
  kn_tensor *one = kx_where(s, kx_isnan(s, x), kx_number(s, 1, x), kx_abs(s, kx_sign(s, x)));
  return kx_with(s, KN_OP_sum, over, one);
}

static kn_tensor *norm(kn_scope *s, kn_tensor *x, const kn_attrs_norm *a) {
  kn_attrs_reduce over = {.dim = a->dim, .keepdim = a->keepdim};
  if (!x) return NULL;
  if (a->p == 2) return kx_safe_sqrt(s, kx_with(s, KN_OP_sum, &over, kx_mul(s, x, x)));
  if (a->p == 1) return kx_with(s, KN_OP_sum, &over, kx_abs(s, x));
  if (a->p == INFINITY) return kx_with(s, KN_OP_amax, &over, kx_abs(s, x));
  if (a->p == -INFINITY) return kx_with(s, KN_OP_amin, &over, kx_abs(s, x));
  if (a->p == 0) return count_norm(s, x, &over);
  return power_norm(s, x, a->p, &over);
}
EXPRESSION(norm, norm(s, kx_floating(s, in[0]), attrs))

/* ---- two results ---- */

static kn_status spread_and_mean(kn_context *ctx, kn_op op, const kn_attrs_correction *a, kn_tensor *x,
                                 kn_tensor **out) {
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_tensor *spread = kx_with(&s, op, a, x);
  kn_tensor *mean = kx_reduce(&s, KN_OP_mean, x, a->dim, a->keepdim);
  return kn_scope_close_all(&s, (kn_tensor *[]){spread, mean}, 2, out);
}

COMPOSITE(var_mean) {
  (void)n;
  return spread_and_mean(ctx, KN_OP_var, attrs, in[0], out);
}

COMPOSITE(std_mean) {
  (void)n;
  return spread_and_mean(ctx, KN_OP_std, attrs, in[0], out);
}

/* ---- sorted ---- */

COMPOSITE(argsort) {
  (void)n;
  kn_scope s;
  kn_tensor *both[2];
  kn_scope_open(&s, ctx);
  kx_apply_all(&s, KN_OP_sort, attrs, in, 1, both);
  return kn_scope_close(&s, both[1], out);
}

COMPOSITE(topk) {
  const kn_attrs_topk *a = attrs;
  (void)n;
  kn_scope s;
  kn_tensor *both[2];
  kn_scope_open(&s, ctx);
  int rank = in[0]->type.rank, dim = kx_dim(&s, a->dim, rank);
  int64_t size = rank ? in[0]->type.dims[dim] : 1;
  if (!kn_is_dyn(a->k) && (a->k < 0 || (kn_dim_known(size) && a->k > size)))
    kx_fail(&s, kn_fail(ctx, KN_ARG, "k must lie between 0 and the %lld elements of dim, not %lld",
                        (long long)size, (long long)a->k));
  kn_attrs_sort order = {.dim = dim, .descending = a->largest};
  kx_apply_all(&s, KN_OP_sort, &order, in, 1, both);
  for (int i = 0; i < 2 && rank; i++) both[i] = kx_slice(&s, both[i], dim, 0, a->k, 1);
  return kn_scope_close_all(&s, (kn_tensor *[]){both[0], both[1]}, 2, out);
}

/* What is sorted and along which dim; no dim: all elements in a line. */
typedef struct line {
  kn_tensor *values, *at,
      *last; /* sorted, ascending; their positions; the last of them, where nan would be */
  int dim;
  int64_t size;
} line;

static line line_up(kn_scope *s, kn_tensor *x, int64_t dim) {
  line l = {.size = 0};
  const kn_ints flat = {1, {-1}};
  kn_tensor *both[2];
  if (dim == KN_NONE || x->type.rank == 0) x = kx_reshape(s, x, &flat);
  if (!x) return l;
  l.dim = dim == KN_NONE ? 0 : kx_dim(s, dim, x->type.rank);
  l.size = x->type.dims[l.dim];
  if (l.size == 0) kx_refuse(s, KN_SHAPE, "there are no elements to choose from", x, NULL);
  kn_attrs_sort order = {.dim = l.dim};
  kx_apply_all(s, KN_OP_sort, &order, &x, 1, both);
  l.values = both[0], l.at = both[1];
  l.last = kx_select(s, l.values, l.dim, -1);
  return l;
}

/* The lower of the two in the middle. While the size is not known, by an index worked out from it. */
static kn_tensor *middle(kn_scope *s, const line *l, kn_tensor *from) {
  if (kn_dim_known(l->size)) return kx_select(s, from, l->dim, (l->size - 1) / 2);
  const kn_ints one = {1, {1}};
  const kn_attrs_axis along = {.dim = l->dim};
  kn_tensor *at = kx_floor(s, kx_scale(s, kx_plus(s, kx_size(s, l->values, l->dim, KN_F64), 1), 0.5));
  at = at ? kx_reshape(s, kx_cast(s, at, KN_I64), &one) : NULL;
  return kx_select(s, kx_with2(s, KN_OP_index_select, &along, from, at), l->dim, 0);
}

/* Without dim and with keepdim, all dims become 1. */
static kn_tensor *kept(kn_scope *s, kn_tensor *r, const line *l, int64_t dim, bool keepdim, int rank) {
  if (!keepdim || rank == 0) return r;
  kn_ints ones = {.n = rank};
  for (int d = 0; d < rank; d++) ones.v[d] = 1;
  return dim == KN_NONE ? kx_reshape(s, r, &ones) : kx_axis(s, KN_OP_unsqueeze, r, l->dim);
}

/* The lower of the two in the middle; nan if there is one. */
COMPOSITE(median) {
  const kn_attrs_argreduce *a = attrs;
  kn_scope s;
  (void)n;
  kn_scope_open(&s, ctx);
  line l = line_up(&s, in[0], a->dim);
  if (s.status != KN_OK) return kn_scope_close(&s, NULL, NULL);
  kn_tensor *value = middle(&s, &l, l.values);
  kn_tensor *at = middle(&s, &l, l.at), *bad = kx_isnan(&s, l.last);
  value = kx_where(&s, bad, l.last, value);
  at = kx_where(&s, bad, kx_select(&s, l.at, l.dim, -1), at);
  int rank = in[0]->type.rank;
  value = kept(&s, value, &l, a->dim, a->keepdim, rank);
  at = kept(&s, at, &l, a->dim, a->keepdim, rank);
  return kn_scope_close_all(&s, (kn_tensor *[]){value, at}, 2, out);
}
