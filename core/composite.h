/* What the composites share (core/composite*.c): how one is written, and small expressions on a scope. */
#ifndef KN_COMPOSITE_H
#define KN_COMPOSITE_H
#include "core/expr.h"
#include "core/kernels/kernel.h"

#define COMPOSITE(name)                                                                                      \
  kn_status kn_composite_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,             \
                                kn_tensor **out)

/* The whole of a composite that is one expression of s, attrs, in and n. */
#define EXPRESSION(name, value)                                                                              \
  COMPOSITE(name) {                                                                                          \
    kn_scope scope, *s = &scope;                                                                             \
    kn_scope_open(s, ctx);                                                                                   \
    (void)attrs, (void)n;                                                                                    \
    kn_tensor *result = value;                                                                               \
    return kn_scope_close(s, result, out);                                                                   \
  }

/* A loss of each element, then reduced. */
#define LOSS(name, kind, value)                                                                              \
  static kn_tensor *name(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_##kind *a) {               \
    (void)n;                                                                                                 \
    return kx_reduced(s, value, a->reduction);                                                               \
  }                                                                                                          \
  EXPRESSION(name, name(s, in, n, attrs))

static inline kn_tensor *kx_with(kn_scope *s, kn_op op, const void *attrs, kn_tensor *a) {
  return kx_apply(s, op, attrs, (kn_tensor *[]){a}, 1);
}
static inline kn_tensor *kx_with2(kn_scope *s, kn_op op, const void *attrs, kn_tensor *a, kn_tensor *b) {
  return kx_apply(s, op, attrs, (kn_tensor *[]){a, b}, 2);
}
static inline kn_tensor *kx_scale(kn_scope *s, kn_tensor *x, double by) {
  return by == 1 ? x : kx_mul(s, x, kx_number(s, by, x));
}
/* The same by an attribute that may be an integer. */
static inline kn_tensor *kx_scale_exact(kn_scope *s, kn_tensor *x, kn_number by) {
  return by.near == 1 ? x : kx_mul(s, x, kx_exact(s, by, x));
}
static inline kn_tensor *kx_plus(kn_scope *s, kn_tensor *x, double c) {
  return c == 0 ? x : kx_add(s, x, kx_number(s, c, x));
}
static inline kn_tensor *kx_minus(kn_scope *s, double c, kn_tensor *x) { return kx_plus(s, kx_neg(s, x), c); }
static inline kn_tensor *kx_clamp(kn_scope *s, kn_tensor *x, double min, double max) {
  kn_attrs_clamp a = {.min = min, .max = max};
  return kx_with(s, KN_OP_clamp, &a, x);
}
static inline kn_tensor *kx_reduce(kn_scope *s, kn_op op, kn_tensor *x, kn_ints dim, bool keepdim) {
  kn_attrs_reduce a = {.dim = dim, .keepdim = keepdim};
  return kx_with(s, op, &a, x);
}
static inline kn_tensor *kx_reshape(kn_scope *s, kn_tensor *x, const kn_ints *sizes) {
  kn_attrs_sizes a = {.sizes = *sizes};
  return kx_with(s, KN_OP_reshape, &a, x);
}
static inline kn_tensor *kx_expand(kn_scope *s, kn_tensor *x, const kn_ints *sizes) {
  kn_attrs_sizes a = {.sizes = *sizes};
  return kx_with(s, KN_OP_expand, &a, x);
}
static inline kn_tensor *kx_slice(kn_scope *s, kn_tensor *x, int64_t dim, int64_t start, int64_t stop,
                                  int64_t step) {
  kn_attrs_slice a = {.dim = dim, .start = start, .stop = stop, .step = step};
  return kx_with(s, KN_OP_slice, &a, x);
}
static inline kn_tensor *kx_select(kn_scope *s, kn_tensor *x, int64_t dim, int64_t index) {
  kn_attrs_select a = {.dim = dim, .index = index};
  return kx_with(s, KN_OP_select, &a, x);
}

/* Attention: q by the scale, or over the square root of the size of its last dim where that is negative; and
 * scores, masked. */
kn_tensor *kx_attention_scaled(kn_scope *s, kn_tensor *q, double scale);
kn_tensor *kx_attention_scores(kn_scope *s, kn_tensor *q, kn_tensor *k, kn_tensor *mask, bool is_causal,
                               double scale);
/* A loss by a choice of `reduction`. */
kn_tensor *kx_reduced(kn_scope *s, kn_tensor *loss, int32_t how);
/* The result of a unary float function: integers become float32. */
kn_tensor *kx_floating(kn_scope *s, kn_tensor *x);
/* Halves as float32, for composites that cannot have the flag WIDE; others as they are. */
kn_tensor *kx_wide(kn_scope *s, kn_tensor *x);
/* An index of int32 as int64; others as they are, for rules to refuse. */
kn_tensor *kx_index(kn_scope *s, kn_tensor *index);
kn_tensor *kx_as_bool(kn_scope *s, kn_tensor *x);
/* sqrt with gradient 0, not infinite, at 0. */
kn_tensor *kx_safe_sqrt(kn_scope *s, kn_tensor *x);
/* log(1 + exp(x)): the exponential never overflows. */
kn_tensor *kx_softplus(kn_scope *s, kn_tensor *x);
/* Appends the sizes of dims [begin, end) of t: numbers, or placeholders for them while recording. */
void kx_put_sizes(kn_scope *s, kn_tensor *t, int begin, int end, kn_ints *sizes);
void kx_put_size(kn_scope *s, int64_t size, kn_ints *sizes);
/* The size of a dim as a 0-d tensor: a number, or a value of the graph that is being recorded. */
kn_tensor *kx_size(kn_scope *s, kn_tensor *t, int dim, kn_dtype dtype);
/* The same values, through which no gradient flows, eager and recorded. */
kn_tensor *kx_detach(kn_scope *s, kn_tensor *t);
/* False, and the scope fails, when a size of dims [begin, end) is not known. */
bool kx_sizes_known(kn_scope *s, kn_tensor *x, int begin, int end);
/* int64 positions or floats, made here: constants of a graph. On the device of `beside`. */
kn_tensor *kx_constant(kn_scope *s, const kn_tensor *beside, kn_dtype dtype, int64_t n,
                       double (*value)(const void *, int64_t), const void *ud);
/* The slices of x at 1-based positions of a dim. */
kn_tensor *kx_pick(kn_scope *s, kn_tensor *x, int dim, kn_tensor *at);
/* A dimension argument made 0-based and checked; 0 and a failed scope when there is no such dim. */
int kx_dim(kn_scope *s, int64_t dim, int rank);
/* The scope fails with "sentence (got types of a and b)"; b may be NULL. Gives NULL. */
kn_tensor *kx_refuse(kn_scope *s, kn_status st, const char *sentence, const kn_tensor *a, const kn_tensor *b);
/* t's dim must have this size (or placeholder), or it is refused with "sentence (got types of a and b)": now,
 * or, where sizes are not known yet, when the graph runs. b may be NULL. */
void kx_expect(kn_scope *s, kn_tensor *t, int dim, int64_t wanted, const char *sentence, kn_tensor *a,
               kn_tensor *b);

#endif
