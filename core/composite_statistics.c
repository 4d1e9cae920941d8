/* Composites: reductions that step over nan, choose by rank or count, and differences and sums along a dim.
 */
#include "core/composite.h"

static kn_status two(kn_scope *s, kn_tensor *first, kn_tensor *second, kn_tensor **out) {
  kn_tensor *both[2] = {first, second}, *kept = second ? kn_tensor_retain(second) : NULL;
  kn_status st = kn_scope_close(s, kept ? both[0] : NULL, out);
  if (st == KN_OK)
    out[1] = kept;
  else
    kn_tensor_release(kept);
  return st;
}

/* ---- without nan ---- */

static kn_tensor *nansum(kn_scope *s, kn_tensor *x, const kn_attrs_reduce *a) {
  return kx_with(s, KN_OP_sum, a, kx_where(s, kx_ne(s, x, x), kx_number(s, 0, x), x));
}
EXPRESSION(nansum, nansum(s, in[0], attrs))

static kn_tensor *nanmean(kn_scope *s, kn_tensor *x, const kn_attrs_reduce *a) {
  if (!kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_refuse(s, KN_DTYPE, "a floating dtype is needed", x, NULL);
  kn_tensor *count = kx_with(s, KN_OP_sum, a, kx_eq(s, x, x));
  return kx_div(s, nansum(s, x, a), count);
}
EXPRESSION(nanmean, nanmean(s, in[0], attrs))

COMPOSITE(aminmax) {
  const kn_attrs_argreduce *a = attrs;
  (void)n;
  kn_ints dim = {.n = a->dim != KN_NONE, .v = {a->dim}};
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_tensor *low = kx_reduce(&s, KN_OP_amin, in[0], dim, a->keepdim);
  kn_tensor *high = kx_reduce(&s, KN_OP_amax, in[0], dim, a->keepdim);
  return two(&s, low, high, out);
}

/* ---- by rank ---- */

static kn_tensor *dropped(kn_scope *s, kn_tensor *x, int64_t dim, bool keepdim) {
  const kn_attrs_optional_axis at = {.dim = dim};
  return keepdim || !x || x->type.rank == 0 ? x : kx_with(s, KN_OP_squeeze, &at, x);
}

COMPOSITE(kthvalue) {
  const kn_attrs_kth *a = attrs;
  (void)n;
  kn_scope s;
  kn_tensor *both[2] = {NULL, NULL}, *x = in[0];
  kn_scope_open(&s, ctx);
  int rank = x->type.rank, dim = kx_dim(&s, a->dim, rank);
  int64_t size = rank ? x->type.dims[dim] : 1;
  if (!kn_is_dyn(a->k) && (a->k < 1 || (kn_dim_known(size) && a->k > size)))
    kx_fail(&s, kn_fail(ctx, KN_ARG, "k must lie between 1 and the %lld elements of dim, not %lld",
                        (long long)size, (long long)a->k));
  if (kn_is_dyn(a->k)) kx_refuse(&s, KN_ARG, "k must be known while recording", x, NULL);
  const kn_attrs_sort order = {.dim = dim};
  kx_apply_all(&s, KN_OP_sort, &order, in, 1, both);
  for (int i = 0; i < 2 && rank; i++)
    both[i] = dropped(&s, kx_slice(&s, both[i], dim, a->k - 1, a->k, 1), dim, a->keepdim);
  return two(&s, both[0], both[1], out);
}

EXPRESSION(msort, kx_with(s, KN_OP_sort, &(kn_attrs_sort){.dim = 0}, in[0]))

/* How often each sorted element is there; of the most frequent ones the first, which is the smallest. The
 * position given is that of the last of the equal ones. */
COMPOSITE(mode) {
  const kn_attrs_last_reduce *a = attrs;
  (void)n;
  kn_scope s;
  kn_tensor *both[2] = {NULL, NULL}, *x = in[0];
  kn_scope_open(&s, ctx);
  int rank = x->type.rank, dim = kx_dim(&s, a->dim, rank);
  if (rank && x->type.dims[dim] == 0)
    kx_refuse(&s, KN_SHAPE, "there are no elements to choose from", x, NULL);
  if (rank == KN_MAX_RANK) kx_refuse(&s, KN_SHAPE, "there are too many dims", x, NULL);
  const kn_attrs_sort order = {.dim = dim};
  kx_apply_all(&s, KN_OP_sort, &order, in, 1, both);
  if (rank == 0) return two(&s, both[0], both[1], out);
  kn_tensor *same =
      kx_eq(&s, kx_axis(&s, KN_OP_unsqueeze, both[0], dim), kx_axis(&s, KN_OP_unsqueeze, both[0], dim + 1));
  kn_tensor *count = kx_reduce(&s, KN_OP_sum, same, (kn_ints){1, {dim}}, false);
  const kn_attrs_argreduce most = {.dim = dim, .keepdim = true};
  const kn_attrs_axis along = {.dim = dim};
  kn_tensor *at = kx_with(&s, KN_OP_argmax, &most, count);
  kn_tensor *times = kx_with2(&s, KN_OP_gather, &along, count, at);
  at = kx_maximum(&s, at, kx_plus(&s, kx_add(&s, at, times), -1)); /* nan equals nothing: 0 times */
  for (int i = 0; i < 2; i++)
    both[i] = dropped(&s, kx_with2(&s, KN_OP_gather, &along, both[i], at), dim, a->keepdim);
  return two(&s, both[0], both[1], out);
}

/* nan is sorted to the end: the middle of those before it. */
COMPOSITE(nanmedian) {
  const kn_attrs_argreduce *a = attrs;
  (void)n;
  kn_scope s;
  const kn_ints line = {1, {-1}};
  kn_tensor *both[2] = {NULL, NULL}, *x = in[0];
  kn_scope_open(&s, ctx);
  int rank = x->type.rank;
  if (a->dim == KN_NONE || rank == 0) x = kx_reshape(&s, x, &line);
  if (!x) return kn_scope_close(&s, NULL, out);
  int dim = a->dim == KN_NONE || rank == 0 ? 0 : kx_dim(&s, a->dim, rank);
  if (x->type.dims[dim] == 0) kx_refuse(&s, KN_SHAPE, "there are no elements to choose from", x, NULL);
  const kn_attrs_sort order = {.dim = dim};
  const kn_attrs_axis along = {.dim = dim};
  kx_apply_all(&s, KN_OP_sort, &order, &x, 1, both);
  kn_tensor *count = kx_reduce(&s, KN_OP_sum, kx_eq(&s, x, x), (kn_ints){1, {dim}}, true);
  kn_tensor *at = kx_floor_divide(&s, kx_plus(&s, count, 1), count ? kx_number(&s, 2, count) : NULL);
  at = at ? kx_maximum(&s, at, kx_number(&s, 1, at)) : NULL;
  kn_ints ones = {.n = rank};
  for (int d = 0; d < rank; d++) ones.v[d] = 1;
  for (int i = 0; i < 2; i++) {
    both[i] = kx_with2(&s, KN_OP_gather, &along, both[i], at);
    if (a->dim == KN_NONE && a->keepdim && both[i])
      both[i] = kx_reshape(&s, both[i], &ones);
    else
      both[i] = dropped(&s, both[i], dim, a->keepdim && rank);
  }
  return two(&s, both[0], both[1], out);
}

/* ---- along a dim ---- */

static kn_tensor *later(kn_scope *s, kn_tensor *x, int dim) { return kx_slice(s, x, dim, 1, KN_TO_END, 1); }
static kn_tensor *earlier(kn_scope *s, kn_tensor *x, int dim) { return kx_slice(s, x, dim, 0, -1, 1); }

static kn_tensor *diff(kn_scope *s, kn_tensor *x, const kn_attrs_diff *a) {
  if (x->type.rank == 0) return kx_refuse(s, KN_SHAPE, "at least one dim is needed", x, NULL);
  int dim = kx_dim(s, a->dim, x->type.rank);
  bool truth = kn_tensor_dtype(x) == KN_BOOL;
  if (kn_is_dyn(a->n)) return kx_refuse(s, KN_ARG, "n must be known while recording", x, NULL);
  if (a->n < 0 || a->n > KN_SCOPE_MAX / 4)
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "n must lie between 0 and %d, not %lld", KN_SCOPE_MAX / 4,
                              (long long)a->n));
  if (a->n == 0) return kx_reshape_as(s, x, x);
  for (int64_t i = 0; i < a->n && x && x->type.dims[dim] != 0; i++)
    x = truth ? kx_ne(s, later(s, x, dim), earlier(s, x, dim))
              : kx_sub(s, later(s, x, dim), earlier(s, x, dim));
  return x;
}
EXPRESSION(diff, diff(s, in[0], attrs))

/* Areas of the strips between neighbours; x has the shape of y, or is a list along dim. */
static kn_tensor *strips(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_trapezoid *a, int *dim) {
  kn_tensor *y = kx_floating(s, in[0]), *x = n == 1 ? NULL : kx_floating(s, in[1]), *width;
  if (!y || (n > 1 && !x)) return NULL;
  if (y->type.rank == 0) return kx_refuse(s, KN_SHAPE, "at least one dim is needed", y, NULL);
  *dim = kx_dim(s, a->dim, y->type.rank);
  kn_tensor *sum = kx_add(s, later(s, y, *dim), earlier(s, y, *dim));
  if (n == 1) return kx_scale(s, sum, a->dx / 2);
  if (x->type.rank == 0) return kx_refuse(s, KN_SHAPE, "x has as many dims as y, or one", y, x);
  bool line = x->type.rank == 1 && y->type.rank > 1;
  int along = line ? 0 : *dim - (y->type.rank - x->type.rank);
  if (along < 0 || along >= x->type.rank)
    return kx_refuse(s, KN_SHAPE, "x has as many dims as y, or one", y, x);
  width = kx_sub(s, later(s, x, along), earlier(s, x, along));
  for (int d = *dim + 1; line && d < y->type.rank; d++) width = kx_axis(s, KN_OP_unsqueeze, width, -1);
  return kx_scale(s, kx_mul(s, sum, width), 0.5);
}

static kn_tensor *trapezoid(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_trapezoid *a) {
  int dim = 0;
  kn_tensor *each = strips(s, in, n, a, &dim);
  return kx_reduce(s, KN_OP_sum, each, (kn_ints){1, {dim}}, false);
}
EXPRESSION(trapezoid, trapezoid(s, in, n, attrs))

static kn_tensor *cumulative_trapezoid(kn_scope *s, kn_tensor *const *in, int n,
                                       const kn_attrs_trapezoid *a) {
  int dim = 0;
  kn_tensor *each = strips(s, in, n, a, &dim);
  return kx_axis(s, KN_OP_cumsum, each, dim);
}
EXPRESSION(cumulative_trapezoid, cumulative_trapezoid(s, in, n, attrs))

/* ---- distances and spread ---- */

static kn_tensor *norm_of(kn_scope *s, kn_tensor *x, double p, kn_ints dim, bool keepdim) {
  const kn_attrs_norm a = {.p = p, .dim = dim, .keepdim = keepdim};
  return kx_with(s, KN_OP_norm, &a, x);
}
EXPRESSION(dist, norm_of(s, kx_sub(s, kx_floating(s, in[0]), kx_floating(s, in[1])),
                         ((const kn_attrs_power *)attrs)->p, (kn_ints){0}, false))

/* Slices along dim whose norm is above maxnorm are brought down to it. */
static kn_tensor *renorm(kn_scope *s, kn_tensor *x, const kn_attrs_renorm *a) {
  if (!x) return NULL;
  if (x->type.rank < 2) return kx_refuse(s, KN_SHAPE, "at least two dims are needed", x, NULL);
  int dim = kx_dim(s, a->dim, x->type.rank);
  kn_ints others = {0};
  for (int d = 0; d < x->type.rank; d++)
    if (d != dim) others.v[others.n++] = d;
  kn_tensor *size = norm_of(s, x, a->p, others, true), *most = size ? kx_number(s, a->maxnorm, size) : NULL;
  kn_tensor *by = kx_div(s, most, kx_plus(s, size, 1e-7));
  return kx_mul(s, x, kx_where(s, kx_gt(s, size, most), by, by ? kx_number(s, 1, by) : NULL));
}
EXPRESSION(renorm, renorm(s, kx_floating(s, in[0]), attrs))

/* Rows are variables, columns observations; a list is one variable. */
static kn_tensor *cov(kn_scope *s, kn_tensor *x, double correction) {
  if (!x) return NULL;
  if (x->type.rank > 2) return kx_refuse(s, KN_SHAPE, "at most two dims are needed", x, NULL);
  int rank = x->type.rank;
  for (int d = rank; d < 2 && x; d++) x = kx_axis(s, KN_OP_unsqueeze, x, 0);
  kn_tensor *d = kx_sub(s, x, kx_reduce(s, KN_OP_mean, x, (kn_ints){1, {1}}, true));
  kn_tensor *count = d ? kx_plus(s, kx_size(s, x, 1, kn_tensor_dtype(d)), -correction) : NULL;
  count = count ? kx_maximum(s, count, kx_number(s, 0, count)) : NULL;
  kn_tensor *c = kx_div(s, kx_matmul(s, d, kx_transpose(s, d, 0, 1)), count);
  const kn_ints none = {0};
  return rank < 2 || x->type.dims[0] == 1 ? kx_reshape(s, c, &none) : c;
}
EXPRESSION(cov, cov(s, kx_floating(s, in[0]), (double)((const kn_attrs_cov *)attrs)->correction))

static kn_tensor *corrcoef(kn_scope *s, kn_tensor *x) {
  kn_tensor *c = cov(s, x, 1);
  if (!c) return NULL;
  if (c->type.rank == 0) return kx_div(s, c, c);
  const kn_attrs_diagonal_of on = {.dim1 = 0, .dim2 = 1};
  kn_tensor *spread = kx_sqrt(s, kx_with(s, KN_OP_diagonal, &on, c));
  c = kx_div(s, kx_div(s, c, kx_axis(s, KN_OP_unsqueeze, spread, 1)), spread);
  return kx_clamp(s, c, -1, 1);
}
EXPRESSION(corrcoef, corrcoef(s, kx_floating(s, in[0])))
