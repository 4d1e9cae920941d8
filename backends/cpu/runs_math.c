/* Loops of elementary functions: the formulas of formula32.h and formula64.h. Compiled once for each
 * instruction set. */
#include "backends/cpu/formula64.h"
#include "backends/cpu/runs.h"

#define F32(op) CP_LOOP1(op##_F32, float, float, cp_##op##_f32(x))
#define F64(op) CP_LOOP1(op##_F64, double, double, cp_##op##_f64(x))
#define F32_ONLY(op) F32(op) CP_ROW(op, [KN_F32] = op##_F32)
#define BOTH(op) F32(op) F64(op) CP_ROW(op, [KN_F32] = op##_F32, [KN_F64] = op##_F64)
BOTH(exp)
BOTH(log)
BOTH(tanh)
BOTH(sigmoid)
F32_ONLY(expm1)
F32_ONLY(log1p)
F32_ONLY(log2)
F32_ONLY(log10)
F32_ONLY(asin)
F32_ONLY(acos)
F32_ONLY(atan)
F32_ONLY(sinh)
F32_ONLY(cosh)
F32_ONLY(erf)

/* Large arguments are rare, and left to the C library. */
#define CIRCULAR(op, T, E, formula, library, limit)                                                          \
  static void op##_##E(char *const *p, int64_t n, const void *arg) {                                         \
    (void)arg;                                                                                               \
    enum { BLOCK = 256 };                                                                                    \
    for (int64_t at = 0; at < n; at += BLOCK) {                                                              \
      T *restrict to = (T *)p[0] + at;                                                                       \
      const T *restrict x = (const T *)p[1] + at;                                                            \
      const int m = n - at < BLOCK ? (int)(n - at) : BLOCK;                                                  \
      int large = 0;                                                                                         \
      for (int i = 0; i < m; i++) {                                                                          \
        to[i] = formula(x[i]);                                                                               \
        large |= (x[i] >= limit) | (x[i] <= -limit);                                                         \
      }                                                                                                      \
      for (int i = 0; large && i < m; i++)                                                                   \
        if (x[i] >= limit || x[i] <= -limit) to[i] = library(x[i]);                                          \
    }                                                                                                        \
  }
CIRCULAR(sin, float, F32, cp_sin_f32, sinf, CP_SINE_LIMIT32)
CIRCULAR(cos, float, F32, cp_cos_f32, cosf, CP_SINE_LIMIT32)
CIRCULAR(tan, float, F32, cp_tan_f32, tanf, CP_SINE_LIMIT32)
CIRCULAR(sin, double, F64, cp_sin_f64, sin, CP_SINE_LIMIT64)
CIRCULAR(cos, double, F64, cp_cos_f64, cos, CP_SINE_LIMIT64)
CP_ROW(sin, [KN_F32] = sin_F32, [KN_F64] = sin_F64)
CP_ROW(cos, [KN_F32] = cos_F32, [KN_F64] = cos_F64)
CP_ROW(tan, [KN_F32] = tan_F32)

CP_LOOP2(pow_F32, float, float, cp_pow_f32(x, y))
CP_ROW(pow, [KN_F32] = pow_F32)
