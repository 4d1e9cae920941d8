/* Ops as expressions, for code written on top of ops: composites, gradients. A scope keeps every
 * intermediate alive and remembers the first failure, after which all calls do nothing and give NULL:
 *     kn_scope s; kn_scope_open(&s, ctx);
 *     kn_tensor *y = kx_mul(&s, x, kx_sigmoid(&s, x));
 *     return kn_scope_close(&s, y, out);                                                                   */
#ifndef KN_EXPR_H
#define KN_EXPR_H
#include "core/dispatch.h"

enum { KN_SCOPE_MAX = 240 };
typedef struct kn_scope {
  kn_context *ctx;
  kn_status status;
  int n;
  kn_tensor *owned[KN_SCOPE_MAX];
} kn_scope;

void kn_scope_open(kn_scope *s, kn_context *ctx);
/* Releases all but `result`, which is handed to *out (retained). Returns the scope's status. */
kn_status kn_scope_close(kn_scope *s, kn_tensor *result, kn_tensor **out);
/* The same for n results. */
kn_status kn_scope_close_all(kn_scope *s, kn_tensor *const *results, int n, kn_tensor **out);

/* Results are borrowed from the scope. A NULL input (after a failure) gives NULL. */
kn_tensor *kx_apply(kn_scope *s, kn_op op, const void *attrs, kn_tensor *const *in, int n);
/* All results of an op that has several; NULLs after a failure. */
void kx_apply_all(kn_scope *s, kn_op op, const void *attrs, kn_tensor *const *in, int n, kn_tensor **out);
kn_tensor *kx_number(kn_scope *s, double value, const kn_tensor *like); /* 0-d, dtype of `like` */
/* The same on the device of `like`, for ops that do not take plain numbers of the host. */
kn_tensor *kx_single(kn_scope *s, double value, const kn_tensor *like);
/* t itself, or its elements on that device; on that of `like`. */
kn_tensor *kx_to_device(kn_scope *s, kn_tensor *t, kn_device_id d);
static inline kn_tensor *kx_beside(kn_scope *s, kn_tensor *t, const kn_tensor *like) {
  return t && like ? kx_to_device(s, t, (kn_device_id)like->type.device) : NULL;
}
kn_tensor *kx_exact(kn_scope *s, kn_number value, const kn_tensor *like);
kn_tensor *kx_fail(kn_scope *s, kn_status st); /* error text already set */
kn_tensor *kx_own(kn_scope *s, kn_tensor *t);  /* takes over an owned tensor */

/* kx_<op>(s, attrs, a …) for every row, e.g. kx_add(s, a, b), kx_softmax(s, x, dim): the common forms. */
/* clang-format off */
#define KX1(name) \
  static inline kn_tensor *kx_##name(kn_scope *s, kn_tensor *a) { \
    return kx_apply(s, KN_OP_##name, NULL, (kn_tensor *[]){a}, 1); }
#define KX2(name) \
  static inline kn_tensor *kx_##name(kn_scope *s, kn_tensor *a, kn_tensor *b) { \
    return kx_apply(s, KN_OP_##name, NULL, (kn_tensor *[]){a, b}, 2); }
KX1(neg) KX1(abs) KX1(sign) KX1(exp) KX1(log) KX1(sqrt) KX1(rsqrt) KX1(sin) KX1(cos) KX1(tanh) KX1(sigmoid)
KX1(erf) KX1(relu) KX1(clone) KX1(floor) KX1(isnan) KX1(zeros_like) KX1(ones_like) KX1(logical_not)
KX1(nonzero) KX1(trunc) KX1(sinh) KX1(cosh) KX1(isfinite)
KX2(add) KX2(sub) KX2(mul) KX2(div) KX2(pow) KX2(floor_divide) KX2(maximum) KX2(minimum) KX2(eq) KX2(ne)
KX2(lt) KX2(le) KX2(gt) KX2(ge) KX2(bitwise_and) KX2(bitwise_or) KX2(matmul) KX2(sum_to) KX2(expand_as)
KX2(reshape_as)
/* clang-format on */
#undef KX1
#undef KX2

                    static inline kn_tensor *kx_where(kn_scope *s, kn_tensor *c, kn_tensor *a, kn_tensor *b) {
  return kx_apply(s, KN_OP_where, NULL, (kn_tensor *[]){c, a, b}, 3);
}
static inline kn_tensor *kx_sum(kn_scope *s, kn_tensor *a, const kn_ints *dim, bool keepdim) {
  kn_attrs_reduce t = {.dim = *dim, .keepdim = keepdim};
  return kx_apply(s, KN_OP_sum, &t, (kn_tensor *[]){a}, 1);
}
static inline kn_tensor *kx_transpose(kn_scope *s, kn_tensor *a, int64_t dim0, int64_t dim1) {
  kn_attrs_swap t = {.dim0 = dim0, .dim1 = dim1};
  return kx_apply(s, KN_OP_transpose, &t, (kn_tensor *[]){a}, 1);
}
static inline kn_tensor *kx_axis(kn_scope *s, kn_op op, kn_tensor *a, int64_t dim) {
  kn_attrs_axis t = {.dim = dim};
  return kx_apply(s, op, &t, (kn_tensor *[]){a}, 1);
}
static inline kn_tensor *kx_cast(kn_scope *s, kn_tensor *a, kn_dtype d) {
  kn_attrs_cast t = {.dtype = d};
  return kx_apply(s, KN_OP_cast, &t, (kn_tensor *[]){a}, 1);
}
static inline kn_tensor *kx_full_like(kn_scope *s, kn_tensor *a, double v) {
  kn_attrs_value t = {.value = v};
  return kx_apply(s, KN_OP_full_like, &t, (kn_tensor *[]){a}, 1);
}

#endif
