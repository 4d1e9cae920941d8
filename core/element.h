/* Elements in and out of the types that numbers are computed in: int64_t, float, double. This is what `cast`
 * means; all casts are made of it. Integers wrap around into narrower ones. Floats into integers are
 * truncated towards zero, those out of range give the nearest value, nan gives 0. Into bool: not zero, so nan
 * is true. Into halves: rounded once, to nearest even. */
#ifndef KN_ELEMENT_H
#define KN_ELEMENT_H
#include "core/dtype.h"
#include "core/half.h"

/* CASE(C type, enum), a line for each dtype: the places where a new one is added. */
#define KN_INTS(CASE)                                                                                        \
  CASE(uint8_t, U8) CASE(int8_t, I8) CASE(int16_t, I16) CASE(int32_t, I32) CASE(int64_t, I64)
#define KN_HALVES(CASE) CASE(uint16_t, F16) CASE(uint16_t, BF16)
#define KN_ELEMENTS(CASE) CASE(uint8_t, BOOL) KN_INTS(CASE) KN_HALVES(CASE) CASE(float, F32) CASE(double, F64)

/* kn_get_<E>(x): the number, exactly. kn_put_<E>_<type>(x): the element. */
static inline int64_t kn_get_BOOL(uint8_t x) { return x != 0; }
static inline uint8_t kn_put_BOOL_int(int64_t x) { return x != 0; }
static inline uint8_t kn_put_BOOL_float(float x) { return x != 0; }
static inline uint8_t kn_put_BOOL_double(double x) { return x != 0; }

#define KN_LOWEST(T) ((T)-1 < (T)1 ? INT64_MIN / (INT64_C(1) << (64 - 8 * sizeof(T))) : 0)
#define KN_HIGHEST(T) (INT64_MAX >> (64 - 8 * sizeof(T) - !((T)-1 < (T)1)))

#define KN_WHOLE_ELEMENT(T, E)                                                                               \
  static inline int64_t kn_get_##E(T x) { return x; }                                                        \
  static inline T kn_put_##E##_int(int64_t x) { return (T)x; }                                               \
  static inline T kn_put_##E##_double(double x) {                                                            \
    if (sizeof(T) == 8) return (T)kn_f64_to_i64(x);                                                          \
    const double low = (double)KN_LOWEST(T), high = (double)KN_HIGHEST(T);                                   \
    x = x == x ? x : 0;                                                                                      \
    return (T)(x < low ? low : x > high ? high : x);                                                         \
  }                                                                                                          \
  static inline T kn_put_##E##_float(float x) { return kn_put_##E##_double((double)x); }
KN_INTS(KN_WHOLE_ELEMENT)

#define KN_HALF_ELEMENT(E, name)                                                                             \
  static inline float kn_get_##E(uint16_t x) { return kn_##name##_to_f32(x); }                               \
  static inline uint16_t kn_put_##E##_float(float x) { return kn_f32_to_##name(x); }                         \
  static inline uint16_t kn_put_##E##_double(double x) { return kn_f64_to_##name(x); }                       \
  static inline uint16_t kn_put_##E##_int(int64_t x) { return kn_f64_to_##name((double)x); }
KN_HALF_ELEMENT(F16, f16)
KN_HALF_ELEMENT(BF16, bf16)

#define KN_FLOAT_ELEMENT(T, E)                                                                               \
  static inline T kn_get_##E(T x) { return x; }                                                              \
  static inline T kn_put_##E##_int(int64_t x) { return (T)x; }                                               \
  static inline T kn_put_##E##_float(float x) { return (T)x; }                                               \
  static inline T kn_put_##E##_double(double x) { return (T)x; }
KN_FLOAT_ELEMENT(float, F32)
KN_FLOAT_ELEMENT(double, F64)

/* The element of dtype E that number x becomes. */
#define KN_PUT(E, x)                                                                                         \
  _Generic((x), int64_t : kn_put_##E##_int, float : kn_put_##E##_float, double : kn_put_##E##_double)(x)

#endif
