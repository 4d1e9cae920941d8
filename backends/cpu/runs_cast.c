/* Loops that cast: from every dtype to every other, as core/element.h says. Compiled once for each
 * instruction set. Only halves need the machine's own instructions: compilers do not find them in loops. */
#include "backends/cpu/runs.h"
#include "core/element.h"

/* ---- a run of halves ---- */

static void f16_to_f32(char *const *p, int64_t n, const void *arg) {
  (void)arg;
  float *restrict to = (float *)p[0];
  const uint16_t *restrict x = (const uint16_t *)p[1];
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    const cp_eight f = cp_widened(x + i);
    memcpy(to + i, &f, sizeof f);
  }
#endif
  for (; i < n; i++) to[i] = kn_f16_to_f32(x[i]);
}

static void f32_to_f16(char *const *p, int64_t n, const void *arg) {
  (void)arg;
  uint16_t *restrict to = (uint16_t *)p[0];
  const float *restrict x = (const float *)p[1];
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    cp_eight f;
    memcpy(&f, x + i, sizeof f);
    cp_narrowed(to + i, f);
  }
#endif
  for (; i < n; i++) to[i] = kn_f32_to_f16(x[i]);
}

/* ---- the others ---- */

/* Out of range the nearest value, nan 0; without a branch. */
static inline int64_t whole_f64(double x) {
  const double safe = x >= 0x1p63 || x != x ? 0 : x < -0x1p63 ? -0x1p63 : x;
  return x >= 0x1p63 ? INT64_MAX : (int64_t)safe;
}
#define NARROW(name, T, low, high)                                                                           \
  static inline T whole_##name(double x) {                                                                   \
    x = x == x ? x : 0;                                                                                      \
    x = x < (low) ? (low) : x;                                                                               \
    return (T)(int32_t)(x > (high) ? (high) : x);                                                            \
  }
NARROW(U8, uint8_t, 0., 255.)
NARROW(I8, int8_t, -128., 127.)
NARROW(I16, int16_t, -32768., 32767.)
NARROW(I32, int32_t, -2147483648., 2147483647.)
static inline int64_t whole_I64(double x) { return whole_f64(x); }

#define INT_TYPES(CASE, ...)                                                                                 \
  CASE(uint8_t, U8, __VA_ARGS__)                                                                             \
  CASE(int8_t, I8, __VA_ARGS__)                                                                              \
  CASE(int16_t, I16, __VA_ARGS__) CASE(int32_t, I32, __VA_ARGS__) CASE(int64_t, I64, __VA_ARGS__)

/* From bool and the integers: to bool, to integers, to floats. */
#define WHOLE_TO_WHOLE(TO, E_TO, T, E) CP_LOOP1(E##_to_##E_TO, TO, T, x)
#define FROM_U8_TO(TO, E_TO, ...) WHOLE_TO_WHOLE(TO, E_TO, uint8_t, U8)
#define FROM_I8_TO(TO, E_TO, ...) WHOLE_TO_WHOLE(TO, E_TO, int8_t, I8)
#define FROM_I16_TO(TO, E_TO, ...) WHOLE_TO_WHOLE(TO, E_TO, int16_t, I16)
#define FROM_I32_TO(TO, E_TO, ...) WHOLE_TO_WHOLE(TO, E_TO, int32_t, I32)
#define FROM_I64_TO(TO, E_TO, ...) WHOLE_TO_WHOLE(TO, E_TO, int64_t, I64)
INT_TYPES(FROM_U8_TO, )
INT_TYPES(FROM_I8_TO, )
INT_TYPES(FROM_I16_TO, )
INT_TYPES(FROM_I32_TO, )
INT_TYPES(FROM_I64_TO, )

#define FROM_BOOL_TO(TO, E_TO, ...) CP_LOOP1(BOOL_to_##E_TO, TO, uint8_t, x != 0)
INT_TYPES(FROM_BOOL_TO, )
#define WHOLE_TO_FLOATS(T, E, ...)                                                                           \
  CP_LOOP1(E##_to_BOOL, uint8_t, T, x != 0)                                                                  \
  CP_LOOP1(E##_to_F32, float, T, x)                                                                          \
  CP_LOOP1(E##_to_F64, double, T, x)                                                                         \
  CP_LOOP1(E##_to_F16, uint16_t, T, kn_put_F16_int(x))                                                       \
  CP_LOOP1(E##_to_BF16, uint16_t, T, kn_put_BF16_int(x))
INT_TYPES(WHOLE_TO_FLOATS, )
CP_LOOP1(BOOL_to_F32, float, uint8_t, x != 0)
CP_LOOP1(BOOL_to_F64, double, uint8_t, x != 0)
CP_LOOP1(BOOL_to_F16, uint16_t, uint8_t, x ? 0x3c00 : 0)
CP_LOOP1(BOOL_to_BF16, uint16_t, uint8_t, x ? 0x3f80 : 0)

/* From floats. */
#define FLOAT_TO_WHOLE(TO, E_TO, T, E, get) CP_LOOP1(E##_to_##E_TO, TO, T, whole_##E_TO((double)get(x)))
#define SAME(x) (x)
#define FROM_FLOAT(T, E, get)                                                                                \
  INT_TYPES(FLOAT_TO_WHOLE, T, E, get)                                                                       \
  CP_LOOP1(E##_to_BOOL, uint8_t, T, get(x) != 0)
FROM_FLOAT(float, F32, SAME)
FROM_FLOAT(double, F64, SAME)
FROM_FLOAT(uint16_t, F16, kn_f16_to_f32)
FROM_FLOAT(uint16_t, BF16, kn_bf16_to_f32)
CP_LOOP1(F32_to_F64, double, float, x)
CP_LOOP1(F64_to_F32, float, double, x)
CP_LOOP1(F32_to_BF16, uint16_t, float, kn_f32_to_bf16(x))
CP_LOOP1(BF16_to_F32, float, uint16_t, kn_bf16_to_f32(x))
CP_LOOP1(F64_to_F16, uint16_t, double, kn_f64_to_f16(x))
CP_LOOP1(F64_to_BF16, uint16_t, double, kn_f64_to_bf16(x))
CP_LOOP1(F16_to_F64, double, uint16_t, kn_f16_to_f32(x))
CP_LOOP1(BF16_to_F64, double, uint16_t, kn_bf16_to_f32(x))
CP_LOOP1(F16_to_BF16, uint16_t, uint16_t, kn_f32_to_bf16(kn_f16_to_f32(x)))
CP_LOOP1(BF16_to_F16, uint16_t, uint16_t, kn_f32_to_f16(kn_bf16_to_f32(x)))
#define F16_to_F32 f16_to_f32
#define F32_to_F16 f32_to_f16

/* The same dtype: bits are moved. */
#define MOVE(size)                                                                                           \
  static void move_##size(char *const *p, int64_t n, const void *arg) {                                      \
    (void)arg;                                                                                               \
    memcpy(p[0], p[1], (size_t)n *size);                                                                     \
  }
MOVE(1)
MOVE(2)
MOVE(4)
MOVE(8)
#define BOOL_to_BOOL move_1
#define F16_to_F16 move_2
#define BF16_to_BF16 move_2
#define F32_to_F32 move_4
#define F64_to_F64 move_8

#define FROM(E)                                                                                              \
  [KN_##                                                                                                     \
      E] = {[KN_BOOL] = E##_to_BOOL, [KN_U8] = E##_to_U8,   [KN_I8] = E##_to_I8,   [KN_I16] = E##_to_I16,    \
            [KN_I32] = E##_to_I32,   [KN_I64] = E##_to_I64, [KN_F16] = E##_to_F16, [KN_BF16] = E##_to_BF16,  \
            [KN_F32] = E##_to_F32,   [KN_F64] = E##_to_F64}
const cp_isa CP(isa) = {
    .name = CP_TEXT(CP_ISA),
    .cast = {FROM(BOOL), FROM(U8), FROM(I8), FROM(I16), FROM(I32), FROM(I64), FROM(F16), FROM(BF16),
             FROM(F32), FROM(F64)},
};
