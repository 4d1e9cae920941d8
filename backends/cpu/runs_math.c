/* Loops of elementary functions: the formulas of formula32.h and formula64.h. Compiled once for each
 * instruction set. */
#include "backends/cpu/formula32.h"
#include "backends/cpu/runs.h"

#define F32_ONLY(op) CP_LOOP1(op##_F32, float, float, cp_##op##_f32(x)) CP_ROW(op, [KN_F32] = op##_F32)
F32_ONLY(exp)
F32_ONLY(expm1)
F32_ONLY(log)
F32_ONLY(log1p)
F32_ONLY(log2)
F32_ONLY(log10)
F32_ONLY(asin)
F32_ONLY(acos)
F32_ONLY(atan)
F32_ONLY(sinh)
F32_ONLY(cosh)
F32_ONLY(tanh)
F32_ONLY(sigmoid)
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
#define CIRCULAR_ROW(op)                                                                                     \
  CIRCULAR(op, float, F32, cp_##op##_f32, op##f, CP_SINE_LIMIT32) CP_ROW(op, [KN_F32] = op##_F32)
CIRCULAR_ROW(sin)
CIRCULAR_ROW(cos)
CIRCULAR_ROW(tan)

CP_LOOP2(pow_F32, float, float, cp_pow_f32(x, y))
CP_ROW(pow, [KN_F32] = pow_F32)
