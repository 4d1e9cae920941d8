/* Small tensors for tests: made from a list, compared with a list.
 *     kn_tensor *x = make(c, KN_F32, DIMS(2, 2), (double[]){1, 2, 3, 4});
 *     expect(x, KN_F32, DIMS(2, 2), (double[]){1, 2, 3, 4}); */
#ifndef SPEC_TENSORS_H
#define SPEC_TENSORS_H
#include "core/dispatch.h"
#include "spec/suite.h"
#include <math.h>

#define DIMS(...) ((kn_ints){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}})
#define SCALAR ((kn_ints){0})
#define LIST(...) ((double[]){__VA_ARGS__})

static inline kn_type type_of(kn_dtype dtype, kn_ints dims) {
  kn_type t = {.dtype = (uint8_t)dtype, .device = KN_CPU, .rank = (uint8_t)dims.n};
  memcpy(t.dims, dims.v, sizeof t.dims);
  for (int d = dims.n; d < KN_MAX_RANK; d++) t.dims[d] = 0;
  return t;
}

/* Where element k (row-major) of a real tensor lies. */
static inline void *element_at(const kn_tensor *t, int64_t k) {
  int64_t at = t->offset;
  for (int d = t->type.rank - 1; d >= 0; d--) {
    at += k % t->type.dims[d] * t->strides[d];
    k /= t->type.dims[d];
  }
  return (char *)t->storage->data + at * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
}

static inline double element(const kn_tensor *t, int64_t k) {
  return kn_element_float(kn_tensor_dtype(t), element_at(t, k));
}

static inline void set_element(kn_tensor *t, int64_t k, double x) {
  kn_element_put_float(kn_tensor_dtype(t), element_at(t, k), x);
}

/* Not inlined: where the list is empty, gcc would warn of reading it. */
__attribute__((noinline, unused)) static kn_tensor *make(kn_context *ctx, kn_dtype dtype, kn_ints dims,
                                                         const double *values) {
  kn_type type = type_of(dtype, dims);
  kn_tensor *t;
  OK(ctx, kn_tensor_new(ctx, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) set_element(t, k, values[k]);
  return t;
}

static inline kn_tensor *number(kn_context *ctx, kn_dtype dtype, double x) {
  return make(ctx, dtype, SCALAR, &x);
}

/* Equal within `tolerance` of the larger; nan equals nan, and each infinity itself. */
static inline bool near(double a, double b, double tolerance) {
  if (a == b || (isnan(a) && isnan(b))) return true;
  return fabs(a - b) <= tolerance * fmax(1, fmax(fabs(a), fabs(b)));
}

static inline void expect_near(const kn_tensor *t, kn_dtype dtype, kn_ints dims, const double *values,
                               double tolerance) {
  kn_type want = type_of(dtype, dims);
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  ck_assert_msg(kn_type_equal(&t->type, &want), "%s instead of %s", kn_type_text(&t->type, a, sizeof a),
                kn_type_text(&want, b, sizeof b));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    ck_assert_msg(near(element(t, k), values[k], tolerance), "element %d is %.17g instead of %.17g",
                  (int)k + 1, element(t, k), values[k]);
}

static inline void expect(const kn_tensor *t, kn_dtype dtype, kn_ints dims, const double *values) {
  expect_near(t, dtype, dims, values, dtype == KN_F64 ? 1e-14 : 1e-6);
}

#endif
