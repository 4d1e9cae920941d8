/* Type rules of the elementwise class. Each says which dtypes it takes: all; numbers (all but bool); floats;
 * bool and integers. */
#include "core/infer.h"

/* Shape of the inputs from `first` on, and the dtype that the two of them promote to. */
static kn_status binary(const kn_infer *q, kn_dtype dtype) {
  KN_TRY(kn_infer_broadcast(q, 0));
  q->out->dtype = (uint8_t)dtype;
  return KN_OK;
}

static kn_status same_shape(const kn_infer *q, kn_dtype dtype) {
  q->out[0] = q->in[0];
  q->out->dtype = (uint8_t)dtype;
  return KN_OK;
}

static kn_status refuse_bool(const kn_infer *q, kn_dtype dtype) {
  if (dtype != KN_BOOL) return KN_OK;
  return kn_infer_fail(q, KN_DTYPE, "not defined for bool; cast first, or use the bitwise and logical ops");
}

/* All. bool keeps: + is or, * is and, larger is or, smaller is and. */
kn_status kn_infer_arith(const kn_infer *q) { return binary(q, kn_promote_types(&q->in[0], &q->in[1])); }

/* Numbers, and bool beside numbers. */
kn_status kn_infer_arith_number(const kn_infer *q) {
  kn_dtype d = kn_promote_types(&q->in[0], &q->in[1]);
  KN_TRY(refuse_bool(q, d));
  return binary(q, d);
}

/* All; two that are not floats give float32. */
kn_status kn_infer_divide(const kn_infer *q) {
  kn_dtype d = kn_promote_types(&q->in[0], &q->in[1]);
  return binary(q, kn_dtype_is_float(d) ? d : KN_F32);
}

/* All. */
kn_status kn_infer_compare(const kn_infer *q) { return binary(q, KN_BOOL); }

/* bool and integers. */
kn_status kn_infer_bitwise(const kn_infer *q) {
  kn_dtype d = q->n == 1 ? (kn_dtype)q->in[0].dtype : kn_promote_types(&q->in[0], &q->in[1]);
  if (kn_dtype_is_float(d))
    return kn_infer_fail(q, KN_DTYPE, "defined for bool and integers only, not %s", kn_dtype_name(d));
  return binary(q, d);
}

/* Integers. */
kn_status kn_infer_shift(const kn_infer *q) {
  kn_dtype d = kn_promote_types(&q->in[0], &q->in[1]);
  if (kn_dtypes[d].category != KN_CAT_INT)
    return kn_infer_fail(q, KN_DTYPE, "defined for integers only, not %s", kn_dtype_name(d));
  return binary(q, d);
}

/* A bool condition, and all. */
kn_status kn_infer_where(const kn_infer *q) {
  if (q->in[0].dtype != KN_BOOL)
    return kn_infer_fail(q, KN_DTYPE, "the condition must be bool, not %s",
                         kn_dtype_name((kn_dtype)q->in[0].dtype));
  return binary(q, kn_promote_types(&q->in[1], &q->in[2]));
}

/* All. */
kn_status kn_infer_same(const kn_infer *q) { return same_shape(q, (kn_dtype)q->in[0].dtype); }

/* Numbers. */
kn_status kn_infer_unary(const kn_infer *q) {
  KN_TRY(refuse_bool(q, (kn_dtype)q->in[0].dtype));
  return kn_infer_same(q);
}

/* All; what is no float gives float32. */
kn_status kn_infer_unary_float(const kn_infer *q) {
  kn_dtype d = (kn_dtype)q->in[0].dtype;
  return same_shape(q, kn_dtype_is_float(d) ? d : KN_F32);
}

kn_status kn_infer_polygamma(const kn_infer *q) {
  const kn_attrs_polygamma *a = q->attrs;
  if (!kn_is_dyn(a->n) && (a->n < 0 || a->n > 150))
    return kn_infer_fail(q, KN_ARG, "n must lie between 0 and 150, not %lld", (long long)a->n);
  return kn_infer_unary_float(q);
}

/* Numbers. Bounds of integers are whole and leave some value of the dtype. */
kn_status kn_infer_clamp(const kn_infer *q) {
  const kn_attrs_clamp *a = q->attrs;
  const kn_dtype_info *row = &kn_dtypes[q->in[0].dtype];
  KN_TRY(kn_infer_unary(q));
  if (row->category != KN_CAT_INT) return KN_OK;
  const double bounds[] = {a->min, a->max};
  for (int i = 0; i < 2; i++)
    if (isnan(bounds[i]) || (isfinite(bounds[i]) && floor(bounds[i]) != bounds[i]))
      return kn_infer_fail(q, KN_ARG, "bounds of integers must be whole, not %g", bounds[i]);
  if (row->wide != q->in[0].dtype && (a->min > (double)row->highest || a->max < (double)row->lowest))
    return kn_infer_fail(q, KN_ARG, "no %s lies in [%g, %g]", row->name, a->min, a->max);
  return KN_OK;
}

/* All, to all. */
kn_status kn_infer_cast(const kn_infer *q) {
  const kn_attrs_cast *a = q->attrs;
  if ((unsigned)a->dtype >= KN_DTYPE_COUNT)
    return kn_infer_fail(q, KN_ARG, "unknown dtype %d", (int)a->dtype);
  return same_shape(q, a->dtype);
}

/* All. */
kn_status kn_infer_test(const kn_infer *q) { return same_shape(q, KN_BOOL); }
