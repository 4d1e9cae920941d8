/* Arithmetic of floats that formulas of elementwise.def are made of, in float and double. As formula_int.h
 * the part that C and CUDA have in common; fmod(x, y) and the like have the precision of x. */
#ifndef KN_FORMULA_FLOAT_H
#define KN_FORMULA_FLOAT_H
#include "core/kernels/formula_int.h"
#include <tgmath.h>

/* Remainder: the sign of b. The floor of a quotient, exact where a and b are: corrected by the remainder, as
 * Lua and PyTorch do. Limits: min(max(x, low), high), nan stays, a nan bound makes nan, high wins over low.
 */
#define FORMULAS(E, T)                                                                                       \
  FORMULA T kk_mod_##E(T a, T b) {                                                                           \
    T r = fmod(a, b);                                                                                        \
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;                                                         \
  }                                                                                                          \
  FORMULA T kk_floor_div_##E(T a, T b) {                                                                     \
    if (b == 0) return a / b;                                                                                \
    T r = fmod(a, b), q = (a - r) / b;                                                                       \
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;                                                                \
    if (q == 0) return copysign((T)0, a / b);                                                                \
    T whole = floor(q);                                                                                      \
    return q - whole > (T)0.5 ? whole + 1 : whole; /* q is whole but for rounding */                         \
  }                                                                                                          \
  FORMULA T kk_pow_##E(T a, T b) { return b == 2 ? a * a : pow(a, b); }                                      \
  FORMULA T kk_limit_##E(T x, T low, T high) {                                                               \
    x = x < low || low != low ? low : x;                                                                     \
    return x > high || high != high ? high : x;                                                              \
  }
FORMULAS(f32, float)
FORMULAS(f64, double)
#undef FORMULAS

#endif
