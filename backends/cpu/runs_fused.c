/* Loops of composites of one input that would otherwise go through memory once for each of their parts. Each
 * value goes through the same roundings as the parts one after the other (core/composite_activation.c), so a
 * captured graph, which holds the parts, gives the same bits. Compiled once for each instruction set. */
#include "backends/cpu/formula32.h"
#include "backends/cpu/runs.h"

static inline float above_zero(float x) { return cp_pick_f32((x > 0) | (x != x), x, 0); }
static inline float limited(float x, float low, float high) {
  x = cp_pick_f32(x < low, low, x);
  return cp_pick_f32(x > high, high, x);
}
static inline float log_tail(float x) { return cp_log1p_f32(cp_exp_f32(-cp_abs_f32(x))); }
static inline float softplus(float x) { return cp_pick_f32((x != x) | (x > 0), x, 0) + log_tail(x); }

static inline float gelu(float x) { return x * ((cp_erf_f32(x * (float)0.70710678118654752) + 1) * 0.5f); }
static inline float gelu_tanh(float x) {
  const float cube = x * (x * x);
  return x * ((cp_tanh_f32((x + cube * (float)0.044715) * (float)0.79788456080286536) + 1) * 0.5f);
}
CP_LOOP1(gelu_none, float, float, gelu(x))
CP_LOOP1(gelu_older, float, float, gelu_tanh(x))
static void gelu_F32(char *const *p, int64_t n, const void *arg) {
  const kn_attrs_gelu *a = arg;
  (a->approximate == KN_CHOICE_approximate_tanh ? gelu_older : gelu_none)(p, n, arg);
}
CP_ROW(gelu, [KN_F32] = gelu_F32)

CP_LOOP1(silu_F32, float, float, x *cp_sigmoid_f32(x))
CP_ROW(silu, [KN_F32] = silu_F32)
CP_LOOP1(mish_F32, float, float, x *cp_tanh_f32(softplus(x)))
CP_ROW(mish, [KN_F32] = mish_F32)
CP_LOOP1(logsigmoid_F32, float, float, cp_pick_f32((x != x) | (x < 0), x, 0) - log_tail(x))
CP_ROW(logsigmoid, [KN_F32] = logsigmoid_F32)
CP_LOOP1(softsign_F32, float, float, x / (cp_abs_f32(x) + 1))
CP_ROW(softsign, [KN_F32] = softsign_F32)
CP_LOOP1(tanhshrink_F32, float, float, x - cp_tanh_f32(x))
CP_ROW(tanhshrink, [KN_F32] = tanhshrink_F32)
CP_LOOP1(hardswish_F32, float, float, x *(limited(x + 3, 0, 6) * (float)(1.0 / 6)))
CP_ROW(hardswish, [KN_F32] = hardswish_F32)

/* Loops whose attributes are numbers: ATTRIBUTES declares them as floats. */
#define WITH(op, attributes, value)                                                                          \
  static void op##_F32(char *const *p, int64_t n, const void *arg) {                                         \
    const kn_attrs_##attributes *a = arg;                                                                    \
    float *restrict to = (float *)p[0];                                                                      \
    const float *restrict from = (const float *)p[1];                                                        \
    NUMBERS_OF_##op;                                                                                         \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const float x = from[i];                                                                               \
      to[i] = (value);                                                                                       \
    }                                                                                                        \
  }                                                                                                          \
  CP_ROW(op, [KN_F32] = op##_F32)
#define NUMBERS_OF_leaky_relu const float slope = (float)a->negative_slope
WITH(leaky_relu, slope, cp_pick_f32(x > 0, x, x *slope))
#define NUMBERS_OF_elu const float alpha = (float)a->alpha
WITH(elu, alpha, above_zero(x) + cp_expm1_f32(cp_pick_f32(x > 0, 0, x)) * alpha)
#define NUMBERS_OF_softplus                                                                                  \
  const float beta = (float)a->beta, by = (float)(1 / a->beta), threshold = (float)a->threshold
WITH(softplus, softplus, cp_pick_f32(x *beta > threshold, x, softplus(x *beta) * by))
