/* Composites: elements picked, put and counted by position or by value. Positions are 1-based. */
#include "core/composite.h"

static const kn_ints LINE = {1, {-1}};
static kn_tensor *line_of(kn_scope *s, kn_tensor *x) {
  static const kn_ints none = {1, {0}}; /* -1 beside no elements could be anything */
  return x ? kx_reshape(s, x, kn_tensor_numel(x) == 0 ? &none : &LINE) : NULL;
}

/* ---- positions in the elements as a line ---- */

static kn_tensor *take(kn_scope *s, kn_tensor *x, kn_tensor *index) {
  const kn_attrs_axis first = {.dim = 0};
  kn_tensor *from = line_of(s, x), *at = line_of(s, kx_index(s, index));
  kn_tensor *past = kx_plus(s, kx_size(s, from, 0, KN_I64), 1); /* -1 is the last */
  if (!at || !past) return NULL;
  at = kx_where(s, kx_lt(s, at, kx_number(s, 0, at)), kx_add(s, at, past), at);
  kn_tensor *r = kx_with2(s, KN_OP_gather, &first, from, at);
  return r ? kx_reshape_as(s, r, index) : NULL;
}
EXPRESSION(take, take(s, in[0], in[1]))

/* put(x, index, source): as index_put of the elements as a line. */
static kn_tensor *put(kn_scope *s, kn_tensor *x, kn_tensor *index, kn_tensor *source,
                      const kn_attrs_index_put *a) {
  kn_tensor *parts[] = {line_of(s, x), line_of(s, source), line_of(s, index)};
  kn_tensor *r = kx_apply(s, KN_OP_index_put, a, parts, 3);
  return r ? kx_reshape_as(s, r, x) : NULL;
}
EXPRESSION(put, put(s, in[0], in[1], in[2], attrs))

/* The elements of source, one after the other, where mask is true. */
static kn_tensor *masked_scatter(kn_scope *s, kn_tensor *x, kn_tensor *mask, kn_tensor *source) {
  const kn_attrs_axis first = {.dim = 0};
  if (kn_tensor_dtype(mask) != KN_BOOL) return kx_refuse(s, KN_DTYPE, "the mask must be bool", x, mask);
  kn_tensor *whole = kx_where(s, mask, x, x), *wide = whole ? kx_expand_as(s, mask, whole) : NULL;
  if (!wide || kn_tensor_numel(wide) == 0) return whole;
  kn_tensor *flat = line_of(s, wide), *at = kx_with(s, KN_OP_cumsum, &first, flat);
  kn_tensor *from = line_of(s, source);
  if (from && kn_tensor_numel(source) == 0) { /* right where nothing is to be put: one more than there is */
    const kn_attrs_constant_pad one = {.pad = {2, {0, 1}}};
    from = kx_with(s, KN_OP_constant_pad, &one, from);
    at = kx_add(s, at, kx_cast(s, flat, KN_I64));
  }
  at = at ? kx_maximum(s, at, kx_number(s, 1, at)) : NULL;
  kn_tensor *put =
      kx_with2(s, KN_OP_gather, &first, from, kx_where(s, flat, at, at ? kx_number(s, 1, at) : NULL));
  put = put ? kx_cast(s, kx_reshape_as(s, put, whole), kn_tensor_dtype(x)) : NULL;
  return kx_where(s, wide, put, whole);
}
EXPRESSION(masked_scatter, masked_scatter(s, in[0], in[1], in[2]))

/* Marks put at index say where the value goes: so equal indices are one. */
static kn_tensor *index_fill(kn_scope *s, kn_tensor *x, kn_tensor *index, kn_tensor *value,
                             const kn_attrs_axis *a) {
  if (value->type.rank != 0) return kx_refuse(s, KN_SHAPE, "one value is needed", x, value);
  const kn_attrs_axis along = {.dim = kx_dim(s, a->dim, x->type.rank)};
  kn_tensor *whole = x->type.rank == 0 ? line_of(s, x) : x, *no = whole ? kx_full_like(s, whole, 0) : NULL;
  if (index->type.rank == 0) index = kx_axis(s, KN_OP_unsqueeze, index, 0);
  kn_tensor *part = kx_with2(s, KN_OP_index_select, &along, no, index);
  kn_tensor *yes = part ? kx_full_like(s, part, 1) : NULL;
  kn_tensor *mark = kx_apply(s, KN_OP_index_copy, &along, (kn_tensor *[]){no, index, yes}, 3);
  mark = mark ? kx_cast(s, mark, KN_BOOL) : NULL;
  kn_tensor *r = kx_where(s, mark, kx_cast(s, value, kn_tensor_dtype(x)), whole);
  return x->type.rank == 0 && r ? kx_reshape_as(s, r, x) : r;
}
EXPRESSION(index_fill, index_fill(s, in[0], in[1], in[2], attrs))

/* ---- by value ---- */

static kn_tensor *isin(kn_scope *s, kn_tensor *x, kn_tensor *test, const kn_attrs_isin *a) {
  kn_tensor *same = kx_eq(s, kx_axis(s, KN_OP_unsqueeze, x, -1), line_of(s, test));
  kn_tensor *r = kx_reduce(s, KN_OP_any, same, (kn_ints){1, {-1}}, false);
  return a->invert ? kx_logical_not(s, r) : r;
}
EXPRESSION(isin, isin(s, in[0], in[1], attrs))

EXPRESSION(bucketize, kx_with2(s, KN_OP_searchsorted, attrs, in[1], in[0]))

/* How many lie in each of `bins` equal parts of [min, max], the last with its end; 0, 0: from the least to
 * the largest. What lies outside goes to a part that is cut off. */
static kn_tensor *histc(kn_scope *s, kn_tensor *x, const kn_attrs_histc *a) {
  if (kn_is_dyn(a->bins)) return kx_refuse(s, KN_ARG, "bins must be known while recording", x, NULL);
  if (a->bins < 1)
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "bins must be at least 1, not %lld", (long long)a->bins));
  if (!(a->min <= a->max)) return kx_fail(s, kn_fail(s->ctx, KN_ARG, "min must not be above max"));
  kn_dtype dtype = kn_tensor_dtype(x);
  if (!kn_dtype_is_float(dtype)) return kx_refuse(s, KN_DTYPE, "a floating dtype is needed", x, NULL);
  kn_tensor *v = kx_cast(s, line_of(s, x), KN_F64), *low, *high;
  if (!v) return NULL;
  low = kx_number(s, a->min, v), high = kx_number(s, a->max, v);
  if (a->min == a->max && kn_tensor_numel(x) != 0) {
    low = kx_reduce(s, KN_OP_amin, v, (kn_ints){0}, false);
    high = kx_reduce(s, KN_OP_amax, v, (kn_ints){0}, false);
  }
  kn_tensor *same = kx_eq(s, low, high), *one = kx_number(s, 1, v);
  low = kx_sub(s, low, kx_where(s, same, one, kx_number(s, 0, v)));
  high = kx_add(s, high, kx_where(s, same, one, kx_number(s, 0, v)));
  kn_tensor *part =
      kx_floor(s, kx_scale(s, kx_div(s, kx_sub(s, v, low), kx_sub(s, high, low)), (double)a->bins));
  kn_tensor *inside = kx_bitwise_and(s, kx_ge(s, v, low), kx_le(s, v, high));
  part = kx_plus(s, kx_clamp(s, part, 0, (double)a->bins - 1), 1);
  part = kx_cast(s, kx_where(s, inside, part, kx_number(s, (double)a->bins + 1, v)), KN_I64);
  const kn_attrs_bincount count = {.minlength = a->bins + 1};
  return kx_cast(s, kx_slice(s, kx_with(s, KN_OP_bincount, &count, part), 0, 0, a->bins, 1), dtype);
}
EXPRESSION(histc, histc(s, in[0], attrs))

/* Each run of equal elements once, for each element which run it is in, and how long each is. */
COMPOSITE(unique_consecutive) {
  (void)attrs, (void)n;
  kn_scope s;
  kn_scope_open(&s, ctx);
  const kn_attrs_axis first = {.dim = 0};
  const kn_attrs_bincount all = {.minlength = 0};
  kn_tensor *line = line_of(&s, in[0]), *run[3] = {NULL};
  kn_tensor *fresh = kx_ne(&s, kx_slice(&s, line, 0, 1, KN_TO_END, 1), kx_slice(&s, line, 0, 0, -1, 1));
  if (line && kn_tensor_numel(line) != 0) { /* the first is always fresh */
    const kn_attrs_constant_pad one = {.pad = {2, {1, 0}}, .value = 1};
    fresh = kx_with(&s, KN_OP_constant_pad, &one, fresh);
  }
  run[0] = kx_with2(&s, KN_OP_masked_select, NULL, line, fresh);
  kn_tensor *which = kx_with(&s, KN_OP_cumsum, &first, fresh);
  run[2] = kx_with(&s, KN_OP_bincount, &all, which);
  run[1] = which ? kx_reshape_as(&s, which, in[0]) : NULL;
  for (int i = 1; i < 3 && s.status == KN_OK; i++) kn_tensor_retain(run[i]);
  bool held = s.status == KN_OK;
  kn_status st = kn_scope_close(&s, run[0], out);
  for (int i = 1; i < 3 && held; i++) {
    if (st == KN_OK)
      out[i] = run[i];
    else
      kn_tensor_release(run[i]);
  }
  return st;
}
