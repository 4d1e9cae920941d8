/* Loops of ops that cost less than fetching their elements: arithmetic, comparison, bits, choosing. Integers
 * are computed in their own dtype and wrap around; halves are computed in float32, for most ops by
 * the caller. Values
 * are those of the reference, exactly. Compiled once for each instruction set. */
#include "backends/cpu/runs.h"
#include "core/half.h"
#include <math.h>

/* CASE(T, E, W): the integer dtypes, and the unsigned type in which arithmetic wraps around. */
#define INTS(CASE)                                                                                           \
  CASE(uint8_t, U8, uint32_t)                                                                                \
  CASE(int8_t, I8, uint32_t)                                                                                 \
  CASE(int16_t, I16, uint32_t) CASE(int32_t, I32, uint32_t) CASE(int64_t, I64, uint64_t)

#define ROW_INTS(fn)                                                                                         \
  [KN_U8] = fn##_U8, [KN_I8] = fn##_I8, [KN_I16] = fn##_I16, [KN_I32] = fn##_I32, [KN_I64] = fn##_I64
#define ROW_FLOATS(fn) [KN_F32] = fn##_F32, [KN_F64] = fn##_F64
#define ROW_NUMBERS(fn) ROW_INTS(fn), ROW_FLOATS(fn)
#define ROW_ALL(fn) [KN_BOOL] = fn##_BOOL, ROW_NUMBERS(fn)

/* ---- two inputs ---- */

#define WRAPPED(op, sign)                                                                                    \
  INTS_OF_##op CP_LOOP2(op##_F32, float, float, x sign y) CP_LOOP2(op##_F64, double, double, x sign y)
#define ADD_INT(T, E, W) CP_LOOP2(add_##E, T, T, (W)x + (W)y)
#define SUB_INT(T, E, W) CP_LOOP2(sub_##E, T, T, (W)x - (W)y)
#define MUL_INT(T, E, W) CP_LOOP2(mul_##E, T, T, (W)x *(W)y)
#define INTS_OF_add INTS(ADD_INT)
#define INTS_OF_sub INTS(SUB_INT)
#define INTS_OF_mul INTS(MUL_INT)
/* Halves pass through float32 in registers. */
#ifdef __F16C__
#define LOOP2_F16(op, sign)                                                                                  \
  static void op##_F16(char *const *p, int64_t n, const void *arg) {                                         \
    (void)arg;                                                                                               \
    uint16_t *restrict to = (uint16_t *)p[0];                                                                \
    const uint16_t *restrict a = (const uint16_t *)p[1], *restrict b = (const uint16_t *)p[2];               \
    int64_t i = 0;                                                                                           \
    for (; i + 32 <= n; i += 32)                                                                             \
      for (int k = 0; k < 32; k += 8)                                                                        \
        cp_narrowed(to + i + k, cp_widened(a + i + k) sign cp_widened(b + i + k));                           \
    for (; i < n; i++) to[i] = kn_f32_to_f16(kn_f16_to_f32(a[i]) sign kn_f16_to_f32(b[i]));                  \
  }
#else
#define LOOP2_F16(op, sign)                                                                                  \
  CP_LOOP2(op##_F16, uint16_t, uint16_t, kn_f32_to_f16(kn_f16_to_f32(x) sign kn_f16_to_f32(y)))
#endif
/* Two bfloat16 are one word: the upper one is a float once the lower is cleared, so nothing has to be moved
 * between lanes. */
typedef uint32_t some_words __attribute__((vector_size(CP_VECTOR), aligned(2), may_alias));
typedef float some_floats __attribute__((vector_size(CP_VECTOR)));
enum { SOME_BF16 = CP_VECTOR / 2 };
static inline some_words upper_bf16(some_floats x) { /* as kn_f32_to_bf16, but for the bits below */
  const some_words u = (some_words)x, nan = (some_words)(x != x), rounded = u + 0x7fffu + (u >> 16 & 1);
  return (rounded & ~nan) | ((u | 0x400000u) & nan);
}
#define LOOP2_BF16(op, sign)                                                                                 \
  static void op##_BF16(char *const *p, int64_t n, const void *arg) {                                        \
    (void)arg;                                                                                               \
    uint16_t *restrict to = (uint16_t *)p[0];                                                                \
    const uint16_t *restrict a = (const uint16_t *)p[1], *restrict b = (const uint16_t *)p[2];               \
    int64_t i = 0;                                                                                           \
    for (; i + SOME_BF16 <= n; i += SOME_BF16) {                                                             \
      const some_words x = *(const some_words *)(a + i), y = *(const some_words *)(b + i);                   \
      const some_words low = upper_bf16((some_floats)(x << 16) sign(some_floats)(y << 16));                  \
      const some_words high = upper_bf16((some_floats)(x & 0xffff0000u) sign(some_floats)(y & 0xffff0000u)); \
      *(some_words *)(to + i) = (low >> 16) | (high & 0xffff0000u);                                          \
    }                                                                                                        \
    for (; i < n; i++) to[i] = kn_f32_to_bf16(kn_bf16_to_f32(a[i]) sign kn_bf16_to_f32(b[i]));               \
  }
#define HALVES(op, sign)                                                                                     \
  LOOP2_F16(op, sign)                                                                                        \
  LOOP2_BF16(op, sign)
HALVES(add, +)
HALVES(sub, -)
HALVES(mul, *)
HALVES(div, /)
#define ROW_HALVES(fn) [KN_F16] = fn##_F16, [KN_BF16] = fn##_BF16

WRAPPED(add, +)
WRAPPED(sub, -)
WRAPPED(mul, *)
CP_LOOP2(add_BOOL, uint8_t, uint8_t, x | y)
CP_LOOP2(mul_BOOL, uint8_t, uint8_t, x &y)
CP_ROW(add, ROW_ALL(add), ROW_HALVES(add))
CP_ROW(sub, ROW_NUMBERS(sub), ROW_HALVES(sub))
CP_ROW(mul, ROW_ALL(mul), ROW_HALVES(mul))

CP_LOOP2(div_F32, float, float, x / y)
CP_LOOP2(div_F64, double, double, x / y)
CP_ROW(div, ROW_FLOATS(div), ROW_HALVES(div))

/* nan wins; of equal zeros the second. */
#define MAX_INT(T, E, W) CP_LOOP2(maximum_##E, T, T, x > y ? x : y)
#define MIN_INT(T, E, W) CP_LOOP2(minimum_##E, T, T, x < y ? x : y)
INTS(MAX_INT)
INTS(MIN_INT)
CP_LOOP2(maximum_BOOL, uint8_t, uint8_t, x | y)
CP_LOOP2(minimum_BOOL, uint8_t, uint8_t, x &y)
CP_LOOP2(maximum_F32, float, float, cp_pick_f32((x != x) | (x > y), x, y))
CP_LOOP2(maximum_F64, double, double, cp_pick_f64((x != x) | (x > y), x, y))
CP_LOOP2(minimum_F32, float, float, cp_pick_f32((x != x) | (x < y), x, y))
CP_LOOP2(minimum_F64, double, double, cp_pick_f64((x != x) | (x < y), x, y))
CP_ROW(maximum, ROW_ALL(maximum))
CP_ROW(minimum, ROW_ALL(minimum))

#define COMPARE(op, sign)                                                                                    \
  CP_LOOP2(op##_BOOL, uint8_t, uint8_t, x sign y)                                                            \
  CP_LOOP2(op##_U8, uint8_t, uint8_t, x sign y)                                                              \
  CP_LOOP2(op##_I8, uint8_t, int8_t, x sign y)                                                               \
  CP_LOOP2(op##_I16, uint8_t, int16_t, x sign y)                                                             \
  CP_LOOP2(op##_I32, uint8_t, int32_t, x sign y)                                                             \
  CP_LOOP2(op##_I64, uint8_t, int64_t, x sign y)                                                             \
  CP_LOOP2(op##_F32, uint8_t, float, x sign y)                                                               \
  CP_LOOP2(op##_F64, uint8_t, double, x sign y)                                                              \
  CP_ROW(op, ROW_ALL(op))
COMPARE(eq, ==)
COMPARE(ne, !=)
COMPARE(lt, <)
COMPARE(le, <=)
COMPARE(gt, >)
COMPARE(ge, >=)

#define AND_INT(T, E, W) CP_LOOP2(and_##E, T, T, x &y)
#define OR_INT(T, E, W) CP_LOOP2(or_##E, T, T, x | y)
#define XOR_INT(T, E, W) CP_LOOP2(xor_##E, T, T, x ^ y)
INTS(AND_INT)
INTS(OR_INT)
INTS(XOR_INT)
CP_ROW(bitwise_and, [KN_BOOL] = and_U8, ROW_INTS(and))
CP_ROW(bitwise_or, [KN_BOOL] = or_U8, ROW_INTS(or))
CP_ROW(bitwise_xor, [KN_BOOL] = xor_U8, ROW_INTS(xor))

/* By a negative number, or beyond the word: 0, or what the sign fills in. Narrow integers are shifted as
 * int64 is, and then wrap around. */
#define LEFT(T, E, W)                                                                                        \
  CP_LOOP2(left_##E, T, T, (W)y < 8 * sizeof(W) ? (W)x << ((W)y & (8 * sizeof(W) - 1)) : 0)
#define SHIFT_RIGHT(x, y, bits) ((x) >> ((y) < 0 || (y) > (bits)-1 ? (bits)-1 : (y)))
INTS(LEFT)
CP_LOOP2(right_U8, uint8_t, uint8_t, y > 31 ? 0 : x >> y)
CP_LOOP2(right_I8, int8_t, int8_t, SHIFT_RIGHT((int32_t)x, (int32_t)y, 32))
CP_LOOP2(right_I16, int16_t, int16_t, SHIFT_RIGHT((int32_t)x, (int32_t)y, 32))
CP_LOOP2(right_I32, int32_t, int32_t, SHIFT_RIGHT(x, y, 32))
CP_LOOP2(right_I64, int64_t, int64_t, SHIFT_RIGHT(x, y, 64))
CP_ROW(bitwise_left_shift, ROW_INTS(left))
CP_ROW(bitwise_right_shift, ROW_INTS(right))

/* ---- one input ---- */

#define NOT_INT(T, E, W) CP_LOOP1(not_##E, T, T, ~x)
#define NEG_INT(T, E, W) CP_LOOP1(neg_##E, T, T, 0 - (W)x)
#define ABS_INT(T, E, W) CP_LOOP1(abs_##E, T, T, x < 0 ? 0 - (W)x : (W)x)
#define SIGN_INT(T, E, W) CP_LOOP1(sign_##E, T, T, (x > 0) - (x < 0))
#define RELU_INT(T, E, W) CP_LOOP1(relu_##E, T, T, x > 0 ? x : 0)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtype-limits" /* x < 0 of an unsigned x: written once for all dtypes */
INTS(NOT_INT)
INTS(NEG_INT)
INTS(ABS_INT)
INTS(SIGN_INT)
INTS(RELU_INT)
#pragma GCC diagnostic pop
CP_LOOP1(not_BOOL, uint8_t, uint8_t, !x)
CP_LOOP1(sign_BOOL, uint8_t, uint8_t, x)
CP_LOOP1(neg_F32, float, float, -x)
CP_LOOP1(neg_F64, double, double, -x)
CP_LOOP1(abs_F32, float, float, cp_abs_f32(x))
CP_LOOP1(abs_F64, double, double, cp_abs_f64(x))
CP_LOOP1(sign_F32, float, float, cp_pick_f32(x == x, (float)((x > 0) - (x < 0)), x))
CP_LOOP1(sign_F64, double, double, cp_pick_f64(x == x, (double)((x > 0) - (x < 0)), x))
CP_LOOP1(relu_F32, float, float, cp_pick_f32((x > 0) | (x != x), x, 0))
CP_LOOP1(relu_F64, double, double, cp_pick_f64((x > 0) | (x != x), x, 0))
CP_ROW(bitwise_not, [KN_BOOL] = not_BOOL, ROW_INTS(not ))
CP_ROW(neg, ROW_NUMBERS(neg))
CP_ROW(abs, ROW_NUMBERS(abs))
CP_ROW(sign, ROW_ALL(sign))
CP_ROW(relu, ROW_NUMBERS(relu))

#define BOTH_FLOATS(op, f32, f64)                                                                            \
  CP_LOOP1(op##_F32, float, float, f32) CP_LOOP1(op##_F64, double, double, f64) CP_ROW(op, ROW_FLOATS(op))
BOTH_FLOATS(floor, floorf(x), floor(x))
BOTH_FLOATS(ceil, ceilf(x), ceil(x))
BOTH_FLOATS(trunc, truncf(x), trunc(x))
BOTH_FLOATS(round, nearbyintf(x), nearbyint(x))
BOTH_FLOATS(sqrt, sqrtf(x), sqrt(x))
BOTH_FLOATS(rsqrt, 1 / sqrtf(x), 1 / sqrt(x))

CP_LOOP1(isnan_F32, uint8_t, float, x != x)
CP_LOOP1(isnan_F64, uint8_t, double, x != x)
CP_ROW(isnan, ROW_FLOATS(isnan))

/* ---- clamp, where ---- */

#define CLAMP_FLOAT(T, E, pick)                                                                              \
  static void clamp_##E(char *const *p, int64_t n, const void *arg) {                                        \
    const kn_attrs_clamp *c = arg;                                                                           \
    const T low = (T)c->min, high = (T)c->max;                                                               \
    T *restrict to = (T *)p[0];                                                                              \
    const T *restrict a = (const T *)p[1];                                                                   \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T x = pick((a[i] < low) | (low != low), low, a[i]);                                              \
      to[i] = pick((x > high) | (high != high), high, x);                                                    \
    }                                                                                                        \
  }
CLAMP_FLOAT(float, F32, cp_pick_f32)
CLAMP_FLOAT(double, F64, cp_pick_f64)
static void clamp_I64(char *const *p, int64_t n, const void *arg) {
  const kn_attrs_clamp *c = arg;
  const int64_t low = kn_number_int(c->min_number), high = kn_number_int(c->max_number);
  int64_t *restrict to = (int64_t *)p[0];
  const int64_t *restrict a = (const int64_t *)p[1];
  for (int64_t i = 0; i < n; i++) {
    const int64_t x = a[i] < low ? low : a[i];
    to[i] = x > high ? high : x;
  }
}
CP_ROW(clamp, [KN_I64] = clamp_I64, ROW_FLOATS(clamp))

#define WHERE(T, size)                                                                                       \
  static void where_##size(char *const *p, int64_t n, const void *arg) {                                     \
    (void)arg;                                                                                               \
    T *restrict to = (T *)p[0];                                                                              \
    const uint8_t *restrict c = (const uint8_t *)p[1];                                                       \
    const T *restrict a = (const T *)p[2], *restrict b = (const T *)p[3];                                    \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T mask = (T)(0 - (T)(c[i] != 0));                                                                \
      to[i] = (T)((a[i] & mask) | (b[i] & (T)~mask));                                                        \
    }                                                                                                        \
  }
WHERE(uint8_t, 1)
WHERE(uint16_t, 2)
WHERE(uint32_t, 4)
WHERE(uint64_t, 8)
CP_ROW(
    where, [KN_BOOL] = where_1, [KN_U8] = where_1, [KN_I8] = where_1, [KN_I16] = where_2, [KN_F16] = where_2,
    [KN_BF16] = where_2, [KN_I32] = where_4, [KN_F32] = where_4, [KN_I64] = where_8, [KN_F64] = where_8)
