/* Composites: what well-known ops are with an argument more (rows that a FORM of the op table leads to), and
 * scans and scatters that no primitive gives. */
#include "core/composite.h"

/* ---- arithmetic with an option ---- */

/* b times alpha in the dtype of the result, so that 0.5 of an integer beside a float is not lost. */
static kn_tensor *scaled(kn_scope *s, kn_tensor *a, kn_tensor *b, kn_number alpha) {
  if (!kn_dtype_is_float(kn_tensor_dtype(b)) && kn_dtype_is_float(kn_tensor_dtype(a)))
    b = kx_cast(s, b, kn_tensor_dtype(a));
  if (!kn_dtype_is_float(kn_tensor_dtype(b)) && alpha.near != floor(alpha.near))
    return kx_refuse(s, KN_ARG, "alpha must be a whole number beside integers", a, b);
  return kx_scale_exact(s, b, alpha);
}
#define ALPHA ((const kn_attrs_alpha *)attrs)->alpha_number
EXPRESSION(add_scaled, kx_add(s, in[0], scaled(s, in[0], in[1], ALPHA)))
EXPRESSION(sub_scaled, kx_sub(s, in[0], scaled(s, in[0], in[1], ALPHA)))

/* Whole numbers: what divides without a rest. */
static kn_tensor *divided(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_rounding *r) {
  if (r->rounding_mode == KN_CHOICE_rounding_none) return kx_div(s, a, b);
  if (r->rounding_mode == KN_CHOICE_rounding_floor) return kx_floor_divide(s, a, b);
  if (kn_dtype_is_float(kn_tensor_dtype(a)) || kn_dtype_is_float(kn_tensor_dtype(b)))
    return kx_trunc(s, kx_div(s, a, b));
  return kx_floor_divide(s, kx_sub(s, a, kx_with2(s, KN_OP_fmod, NULL, a, b)), b);
}
EXPRESSION(div_rounded, divided(s, in[0], in[1], attrs))

static kn_tensor *rounded(kn_scope *s, kn_tensor *x, int64_t decimals) {
  if (!kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_refuse(s, KN_DTYPE, "a floating dtype is needed to round to decimals", x, NULL);
  if (kn_is_dyn(decimals)) return kx_refuse(s, KN_ARG, "decimals must be known while recording", x, NULL);
  kn_tensor *ten = kx_number(s, pow(10, (double)(decimals < 0 ? -decimals : decimals)), x);
  kn_op there = decimals < 0 ? KN_OP_div : KN_OP_mul, back = decimals < 0 ? KN_OP_mul : KN_OP_div;
  return kx_with2(s, back, NULL, kx_with(s, KN_OP_round, NULL, kx_with2(s, there, NULL, x, ten)), ten);
}
EXPRESSION(round_to, rounded(s, in[0], ((const kn_attrs_decimals *)attrs)->decimals))

/* The upper bound counts where both do not hold. */
static kn_tensor *between(kn_scope *s, kn_tensor *x, kn_tensor *low, kn_tensor *high) {
  if (!low && !high) return kx_refuse(s, KN_ARG, "a bound is needed", x, NULL);
  if (low) x = kx_with2(s, KN_OP_clamp_min, NULL, x, low);
  return high ? kx_with2(s, KN_OP_clamp_max, NULL, x, high) : x;
}
EXPRESSION(clamp_between, between(s, in[0], n > 1 ? in[1] : NULL, n > 2 ? in[2] : NULL))

/* ---- scans by doubling: each step joins runs that are twice as long ---- */

typedef struct scan {
  int dim;
  int64_t size;
} scan;

static bool scan_of(kn_scope *s, kn_tensor *x, const kn_attrs_axis *a, scan *out) {
  if (!x) return false;
  out->dim = kx_dim(s, a->dim, x->type.rank);
  if (s->status != KN_OK) return false;
  out->size = x->type.rank ? x->type.dims[out->dim] : 1;
  return x->type.rank == 0 || kx_sizes_known(s, x, out->dim, out->dim + 1);
}

static kn_tensor *head(kn_scope *s, kn_tensor *x, const scan *at, int64_t n) {
  return kx_slice(s, x, at->dim, 0, n, 1);
}

/* The first `step` of x as they are, then `rest`. */
static kn_tensor *with_rest(kn_scope *s, kn_tensor *x, const scan *at, int64_t step, kn_tensor *rest) {
  const kn_attrs_axis_first along = {.dim = at->dim};
  return kx_with2(s, KN_OP_cat, &along, head(s, x, at, step), rest);
}

static kn_tensor *logcumsumexp(kn_scope *s, kn_tensor *x, const kn_attrs_axis *a) {
  scan at;
  if (!scan_of(s, x, a, &at)) return NULL;
  kn_tensor *sum = x;
  for (int64_t step = 1; step < at.size && sum; step *= 2) {
    kn_tensor *late = kx_slice(s, sum, at.dim, step, at.size, 1);
    kn_tensor *both = kx_with2(s, KN_OP_logaddexp, NULL, head(s, sum, &at, at.size - step), late);
    sum = with_rest(s, sum, &at, step, both);
  }
  return sum == x ? kx_clone(s, x) : sum;
}
EXPRESSION(logcumsumexp, logcumsumexp(s, kx_floating(s, in[0]), attrs))

/* Positions are found on values that no gradient comes to; the values then are those at the positions. The
 * later of equals counts, and a nan. */
static kn_status extremes(kn_context *ctx, kn_op better, kn_tensor *x, const kn_attrs_axis *a,
                          kn_tensor **out) {
  kn_scope scope, *s = &scope;
  kn_scope_open(s, ctx);
  scan at;
  kn_tensor *still = NULL, *result[2] = {NULL};
  if (scan_of(s, x, a, &at)) still = kx_detach(s, x);
  const kn_attrs_axis along = {.dim = at.dim};
  kn_tensor *best = still, *from = still ? kx_cast(s, kx_full_like(s, still, 1), KN_I64) : NULL;
  from = kx_with(s, KN_OP_cumsum, &along, from);
  for (int64_t step = 1; still && step < at.size && best; step *= 2) {
    kn_tensor *early = head(s, best, &at, at.size - step);
    kn_tensor *late = kx_slice(s, best, at.dim, step, at.size, 1);
    kn_tensor *take = kx_bitwise_or(s, kx_with2(s, better, NULL, late, early), kx_ne(s, late, late));
    kn_tensor *place =
        kx_where(s, take, kx_slice(s, from, at.dim, step, at.size, 1), head(s, from, &at, at.size - step));
    best = with_rest(s, best, &at, step, kx_where(s, take, late, early));
    from = with_rest(s, from, &at, step, place);
  }
  result[0] = still ? kx_with2(s, KN_OP_gather, &along, x, from) : NULL;
  result[1] = from;
  return kn_scope_close_all(s, result, 2, out);
}
COMPOSITE(cummax) {
  (void)n;
  return extremes(ctx, KN_OP_ge, in[0], attrs, out);
}
COMPOSITE(cummin) {
  (void)n;
  return extremes(ctx, KN_OP_le, in[0], attrs, out);
}

/* ---- scatters ---- */

static kn_tensor *put_number(kn_scope *s, kn_tensor *x, kn_tensor *index, kn_tensor *value,
                             const kn_attrs_axis *a) {
  if (value->type.rank != 0) return kx_refuse(s, KN_SHAPE, "one value is needed", x, value);
  kn_tensor *no = kx_full_like(s, x, 0), *yes = kx_cast(s, kx_full_like(s, index, 1), kn_tensor_dtype(x));
  kn_tensor *mark = kx_apply(s, KN_OP_scatter, a, (kn_tensor *[]){no, index, yes}, 3);
  mark = mark ? kx_cast(s, mark, KN_BOOL) : NULL; /* so equal indices are one */
  return kx_where(s, mark, kx_cast(s, value, kn_tensor_dtype(x)), x);
}
EXPRESSION(scatter_number, put_number(s, in[0], in[1], in[2], attrs))

/* What x has no part in: where index points, the number that changes nothing. Integers have no gradient and
 * need no such number to be the largest: any element of src that comes there does. */
static kn_tensor *without_self(kn_scope *s, kn_tensor *x, kn_tensor *index, kn_tensor *src,
                               const kn_attrs_scatter_reduce *a) {
  const kn_attrs_axis at = {.dim = a->dim};
  bool largest = a->reduce == KN_CHOICE_scatter_reduction_amax;
  bool extreme = largest || a->reduce == KN_CHOICE_scatter_reduction_amin;
  if (extreme && !kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_apply(s, KN_OP_scatter, &at, (kn_tensor *[]){x, index, src}, 3);
  double nothing = a->reduce == KN_CHOICE_scatter_reduction_prod ? 1 : 0;
  if (extreme) nothing = largest ? -INFINITY : INFINITY;
  kn_tensor *number = kx_number(s, nothing, x);
  return kx_apply(s, KN_OP_scatter_number, &at, (kn_tensor *[]){x, index, number}, 3);
}

static kn_tensor *folded(kn_scope *s, kn_tensor *x, kn_tensor *index, kn_tensor *src, int64_t dim,
                         int32_t how) {
  const kn_attrs_scatter_fold a = {.dim = dim, .reduce = how};
  return kx_apply(s, KN_OP_scatter_fold, &a, (kn_tensor *[]){x, index, src}, 3);
}

static kn_tensor *scatter_reduce(kn_scope *s, kn_tensor *x, kn_tensor *index, kn_tensor *src,
                                 const kn_attrs_scatter_reduce *a) {
  const kn_attrs_axis at = {.dim = a->dim};
  if (kn_tensor_dtype(x) != kn_tensor_dtype(src))
    return kx_refuse(s, KN_DTYPE, "x and src must have one dtype", x, src);
  kn_tensor *from = a->include_self ? x : without_self(s, x, index, src, a);
  switch (a->reduce) {
  case KN_CHOICE_scatter_reduction_prod: return folded(s, from, index, src, a->dim, KN_CHOICE_fold_prod);
  case KN_CHOICE_scatter_reduction_amax: return folded(s, from, index, src, a->dim, KN_CHOICE_fold_amax);
  case KN_CHOICE_scatter_reduction_amin: return folded(s, from, index, src, a->dim, KN_CHOICE_fold_amin);
  default: break;
  }
  kn_tensor *sum = kx_apply(s, KN_OP_scatter_add, &at, (kn_tensor *[]){from, index, src}, 3);
  if (a->reduce == KN_CHOICE_scatter_reduction_sum || !sum) return sum;
  kn_tensor *count = kx_full_like(s, x, a->include_self), *ones = kx_full_like(s, src, 1);
  count = kx_apply(s, KN_OP_scatter_add, &at, (kn_tensor *[]){count, index, ones}, 3);
  count = count ? kx_maximum(s, count, kx_number(s, 1, count)) : NULL;
  return kn_dtype_is_float(kn_tensor_dtype(x)) ? kx_div(s, sum, count) : kx_floor_divide(s, sum, count);
}
EXPRESSION(scatter_reduce, scatter_reduce(s, in[0], in[1], in[2], attrs))

/* ---- tensordot ---- */

/* The dims that are summed over last (first), the others in order. */
static bool to_side(kn_scope *s, kn_tensor *x, const kn_ints *dims, bool last, kn_attrs_axes *order) {
  bool summed[KN_MAX_RANK] = {false};
  int64_t at[KN_MAX_RANK] = {0};
  *order = (kn_attrs_axes){.dims = {0}};
  for (int i = 0; i < dims->n; i++) {
    int d = kx_dim(s, dims->v[i], x->type.rank);
    if (s->status == KN_OK && (summed[d] || x->type.rank == 0))
      return kx_refuse(s, KN_ARG, "a dim is named twice", x, NULL), false;
    summed[d] = true;
    at[i] = d;
  }
  for (int pass = 0; pass < 2; pass++) {
    if ((pass == 1) == last)
      for (int i = 0; i < dims->n; i++) order->dims.v[order->dims.n++] = at[i];
    else
      for (int d = 0; d < x->type.rank; d++)
        if (!summed[d]) order->dims.v[order->dims.n++] = d;
  }
  return s->status == KN_OK;
}

/* A dim of size 1 meets any size: the other side is summed over, which leaves 1 there too. */
static kn_tensor *meet_ones(kn_scope *s, kn_tensor *x, const kn_ints *dims, const kn_tensor *other,
                            const kn_ints *others) {
  kn_ints sum = {0};
  for (int i = 0; i < dims->n; i++) {
    int d = kx_dim(s, dims->v[i], x->type.rank), o = kx_dim(s, others->v[i], other->type.rank);
    if (s->status == KN_OK && x->type.rank && other->type.rank && other->type.dims[o] == 1 &&
        kn_dim_known(x->type.dims[d]) && x->type.dims[d] != 1)
      sum.v[sum.n++] = d;
  }
  return sum.n ? kx_cast(s, kx_sum(s, x, &sum, true), kn_tensor_dtype(x)) : x;
}

static kn_tensor *tensordot(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_tensordot *t) {
  kn_attrs_axes left, right;
  int k = t->dims_self.n;
  if (k != t->dims_other.n) return kx_refuse(s, KN_ARG, "as many dims of each are needed", a, b);
  kn_tensor *whole = a;
  a = meet_ones(s, a, &t->dims_self, b, &t->dims_other);
  b = meet_ones(s, b, &t->dims_other, whole, &t->dims_self);
  if (!a || !b) return NULL;
  if (!to_side(s, a, &t->dims_self, true, &left) || !to_side(s, b, &t->dims_other, false, &right))
    return NULL;
  int ra = a->type.rank - k, rb = b->type.rank - k;
  kn_ints sizes = {0};
  if (ra + rb > KN_MAX_RANK) return kx_refuse(s, KN_SHAPE, "the result would have more than 8 dims", a, b);
  a = kx_with(s, KN_OP_permute, &left, a);
  b = kx_with(s, KN_OP_permute, &right, b);
  if (!a || !b) return NULL;
  int64_t length = 1;
  for (int i = 0; i < k; i++) {
    int64_t size = a->type.dims[ra + i], other = b->type.dims[i];
    if (kn_dim_known(size) && kn_dim_known(other) && size != other)
      return kx_refuse(s, KN_SHAPE, "dims that are summed over together must have one size", a, b);
    length = length < 0 || !kn_dim_known(size) ? -1 : length * size;
  }
  kx_put_sizes(s, a, 0, ra, &sizes);
  kx_put_sizes(s, b, k, b->type.rank, &sizes);
  if (length < 0 && !kx_sizes_known(s, a, ra, a->type.rank)) return NULL;
  int64_t rows = 1, columns = 1;
  for (int i = 0; i < ra; i++)
    rows = kn_dim_known(a->type.dims[i]) && rows >= 0 ? rows * a->type.dims[i] : -1;
  for (int i = k; i < b->type.rank; i++)
    columns = kn_dim_known(b->type.dims[i]) && columns >= 0 ? columns * b->type.dims[i] : -1;
  const kn_ints as = {2, {rows, length}}, bs = {2, {length, columns}};
  if (s->status != KN_OK) return NULL;
  return kx_reshape(s, kx_matmul(s, kx_reshape(s, a, &as), kx_reshape(s, b, &bs)), &sizes);
}
EXPRESSION(tensordot, tensordot(s, in[0], in[1], attrs))

/* ---- repeats that differ ---- */

/* Result k lies where the sums of repeats so far first reach k. */
static kn_tensor *repeat_each(kn_scope *s, kn_tensor *x, kn_tensor *repeats,
                              const kn_attrs_optional_axis *a) {
  const kn_attrs_axis first = {.dim = 0};
  const kn_attrs_searchsorted left = {.right = false};
  const kn_ints line = {1, {-1}};
  kn_attrs_fill ones = {.sizes = {1, {0}}, .value = 1, .dtype = KN_I64, .device = x->type.device};
  kn_scalar total;
  if (a->dim == KN_NONE) x = kx_reshape(s, x, &line);
  int dim = x ? kx_dim(s, a->dim == KN_NONE ? 0 : a->dim, x->type.rank) : 0;
  if (!x || s->status != KN_OK) return NULL;
  kn_dtype kind = kn_tensor_dtype(repeats);
  if (repeats->type.rank > 1 || kn_dtypes[kind].category != KN_CAT_INT || x->type.rank == 0)
    return kx_refuse(s, KN_ARG, "repeats must be an integer or a list of them, one for each place of dim", x,
                     repeats);
  kn_tensor *each = kx_cast(s, repeats, KN_I64);
  if (repeats->type.rank == 0) each = kx_beside(s, each, x); /* it may be a number of the host */
  if (repeats->type.rank == 0 || repeats->type.dims[0] == 1) {
    kn_ints size = {0};
    kx_put_sizes(s, x, dim, dim + 1, &size);
    each = s->status == KN_OK ? kx_expand(s, each, &size) : NULL;
  } else if (kn_dim_known(repeats->type.dims[0]) && kn_dim_known(x->type.dims[dim]) &&
             repeats->type.dims[0] != x->type.dims[dim]) {
    return kx_refuse(s, KN_SHAPE, "as many repeats as dim has places are needed", x, repeats);
  }
  kn_tensor *ends = kx_with(s, KN_OP_cumsum, &first, each);
  kn_tensor *sum = each ? kx_sum(s, each, &(kn_ints){0}, false) : NULL, *negative = NULL;
  if (each) negative = kx_reduce(s, KN_OP_any, kx_lt(s, each, kx_number(s, 0, each)), (kn_ints){0}, false);
  if (!sum || !negative) return NULL;
  if (kn_tensor_is_symbolic(sum))
    return kx_refuse(s, KN_ARG, "repeats must be a number while recording", x, repeats);
  kn_status st = kn_item(s->ctx, sum, &total);
  if (st != KN_OK) return kx_fail(s, st);
  if (total.kind != KN_SCALAR_INT)
    return kx_refuse(s, KN_ARG, "repeats must be a number while recording", x, repeats);
  kn_scalar some = {.kind = KN_SCALAR_BOOL};
  st = kn_scalar_of(s->ctx, negative, &some);
  if (st != KN_OK) return kx_fail(s, st);
  if (some.as.b) return kx_refuse(s, KN_ARG, "repeats must not be negative", x, repeats);
  ones.sizes.v[0] = total.as.i;
  kn_tensor *place = kx_with(s, KN_OP_cumsum, &first, kx_apply(s, KN_OP_full, &ones, NULL, 0));
  return kx_pick(s, x, dim, kx_with2(s, KN_OP_searchsorted, &left, ends, place));
}
EXPRESSION(repeat_each, repeat_each(s, in[0], in[1], attrs))
