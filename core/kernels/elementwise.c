/* Kernels of the elementwise class. One line an op: its name and its value for elements x and y.
 * The line makes a loop for each dtype that is computed in (bool, int64, float32, float64) and the kernel
 * that picks one; elements of other dtypes come to it and go from it in blocks (kk_loop_as).
 *
 *   UNARY_FLOAT(name, value)             floating dtypes; other inputs are cast to the result's dtype
 *   UNARY_NUMBER(name, integer, floating)
 *   BINARY_…(name, values)               both inputs cast to the result's dtype
 *   COMPARE(name, value)                 both inputs cast to their common dtype, the result is bool
 * Integers are computed in int64, those beside them in wider dtypes too, and wrap around into the result's
 * dtype; so comparisons are of their values.
 * In a value, exp(x) and the like have the precision of x (tgmath). */
#include "core/infer.h"
#include "core/kernels/kernel.h"
#include "core/kernels/special.h"
#include <tgmath.h>

/* ---- the loops ---- */

/* Element i of operand k, as type T. */
#define AT(T, k) (*(T *)(p[k] + i * step[k]))
#define NEAR(T, k) (step[k] == (int64_t)sizeof(T))

#define LOOP1(fn, TO, T, value)                                                                              \
  static void fn(char *const *p, const int64_t *step, int64_t n, const void *arg) {                          \
    (void)arg;                                                                                               \
    if (NEAR(TO, 0) && NEAR(T, 1)) {                                                                         \
      TO *restrict to = (TO *)p[0];                                                                          \
      const T *a = (const T *)p[1];                                                                          \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const T x = a[i];                                                                                    \
        to[i] = (TO)(value);                                                                                 \
      }                                                                                                      \
    } else {                                                                                                 \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const T x = AT(const T, 1);                                                                          \
        AT(TO, 0) = (TO)(value);                                                                             \
      }                                                                                                      \
    }                                                                                                        \
  }

/* Besides the general loop: both lie one after the other, or one of them is the same element all along. */
#define LOOP2(fn, TO, T, value)                                                                              \
  static void fn(char *const *p, const int64_t *step, int64_t n, const void *arg) {                          \
    (void)arg;                                                                                               \
    TO *restrict to = (TO *)p[0];                                                                            \
    const T *a = (const T *)p[1], *b = (const T *)p[2];                                                      \
    if (NEAR(TO, 0) && NEAR(T, 1) && NEAR(T, 2)) {                                                           \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const T x = a[i], y = b[i];                                                                          \
        to[i] = (TO)(value);                                                                                 \
      }                                                                                                      \
    } else if (NEAR(TO, 0) && NEAR(T, 1) && step[2] == 0) {                                                  \
      const T y = *b;                                                                                        \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const T x = a[i];                                                                                    \
        to[i] = (TO)(value);                                                                                 \
      }                                                                                                      \
    } else {                                                                                                 \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const T x = AT(const T, 1), y = AT(const T, 2);                                                      \
        AT(TO, 0) = (TO)(value);                                                                             \
      }                                                                                                      \
    }                                                                                                        \
  }

/* ---- the kernels ---- */

/* Runs the loop for inputs [0, n) seen as `dtype`. */
static kn_status run(kn_context *ctx, kn_op op, kn_dtype dtype, const kk_inner_fn loops[KN_DTYPE_COUNT],
                     const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out) {
  kk_inner_fn inner = loops[kk_wide(dtype)];
  if (inner && kk_run_flat(out[0], in, n, dtype, inner, attrs)) return KN_OK;
  kk_view operands[3];
  kn_dtype as[3] = {kn_tensor_dtype(out[0])};
  operands[0] = kk_view_of(out[0]);
  if (!inner) return kn_fail(ctx, KN_INTERNAL, "%s: no kernel for %s", kn_op_name(op), kn_dtype_name(dtype));
  for (int i = 0; i < n; i++) {
    operands[i + 1] = kk_view_of(in[i]);
    as[i + 1] = dtype;
  }
  kk_loop_as(ctx, operands, as, n + 1, inner, attrs);
  return KN_OK;
}

#define RUN(name, inputs, dtype, ...)                                                                        \
  KERNEL(name) {                                                                                             \
    (void)n;                                                                                                 \
    static const kk_inner_fn loops[KN_DTYPE_COUNT] = {__VA_ARGS__};                                          \
    return run(ctx, KN_OP_##name, dtype, loops, attrs, in, inputs, out);                                     \
  }
#define RESULT kn_tensor_dtype(out[0])
#define FLOATS(name) [KN_F32] = name##_F32, [KN_F64] = name##_F64
#define NUMBERS(name) [KN_I64] = name##_I64, FLOATS(name)
#define ALL(name) [KN_BOOL] = name##_BOOL, NUMBERS(name)

#define LOOPS1_FLOAT(name, value)                                                                            \
  LOOP1(name##_F32, float, float, value) LOOP1(name##_F64, double, double, value)
#define LOOPS2_FLOAT(name, value)                                                                            \
  LOOP2(name##_F32, float, float, value) LOOP2(name##_F64, double, double, value)

#define UNARY_FLOAT(name, value) LOOPS1_FLOAT(name, value) RUN(name, 1, RESULT, FLOATS(name))
#define UNARY_NUMBER(name, integer, floating)                                                                \
  LOOP1(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOPS1_FLOAT(name, floating) RUN(name, 1, RESULT, NUMBERS(name))
#define UNARY_ALL(name, boolean, integer, floating)                                                          \
  LOOP1(name##_BOOL, uint8_t, uint8_t, boolean)                                                              \
  LOOP1(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOPS1_FLOAT(name, floating) RUN(name, 1, RESULT, ALL(name))
#define BINARY_FLOAT(name, value) LOOPS2_FLOAT(name, value) RUN(name, 2, RESULT, FLOATS(name))
#define BINARY_NUMBER(name, integer, floating)                                                               \
  LOOP2(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOPS2_FLOAT(name, floating) RUN(name, 2, RESULT, NUMBERS(name))
#define BINARY_ALL(name, boolean, integer, floating)                                                         \
  LOOP2(name##_BOOL, uint8_t, uint8_t, boolean)                                                              \
  LOOP2(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOPS2_FLOAT(name, floating) RUN(name, 2, RESULT, ALL(name))
#define BINARY_BITS(name, value)                                                                             \
  LOOP2(name##_BOOL, uint8_t, uint8_t, value)                                                                \
  LOOP2(name##_I64, int64_t, int64_t, value)                                                                 \
  RUN(name, 2, RESULT, [KN_BOOL] = name##_BOOL, [KN_I64] = name##_I64)
#define COMPARE(name, value)                                                                                 \
  LOOP2(name##_BOOL, uint8_t, uint8_t, value)                                                                \
  LOOP2(name##_I64, uint8_t, int64_t, value)                                                                 \
  LOOP2(name##_F32, uint8_t, float, value)                                                                   \
  LOOP2(name##_F64, uint8_t, double, value)                                                                  \
  RUN(name, 2, kn_promote_types(&in[0]->type, &in[1]->type), ALL(name))

/* ---- arithmetic ---- */

BINARY_ALL(add, x | y, kk_wrap_add(x, y), x + y)
BINARY_NUMBER(sub, kk_wrap_sub(x, y), x - y)
BINARY_ALL(mul, (x & y), kk_wrap_mul(x, y), (x * y))
BINARY_FLOAT(div, x / y)
BINARY_ALL(maximum, x | y, x > y ? x : y, x != x || x > y ? x : y)
BINARY_ALL(minimum, (x & y), x < y ? x : y, x != x || x < y ? x : y)

/* Exact where a and b are: the quotient is corrected by the remainder, as Lua and PyTorch do. */
static float mod_f32(float a, float b) {
  float r = fmodf(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static double mod_f64(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t mod_i64(int64_t a, int64_t b) {
  if (b == -1 || b == 0) return 0; /* MIN % -1 overflows; 0 has been refused before */
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t floor_div_i64(int64_t a, int64_t b) {
  if (b == -1 || b == 0) return kk_wrap_sub(0, a);
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
#define FLOOR_DIV_FLOAT(fn, T)                                                                               \
  static T fn(T a, T b) {                                                                                    \
    if (b == 0) return a / b;                                                                                \
    T r = fmod(a, b), q = (a - r) / b;                                                                       \
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;                                                                \
    if (q == 0) return copysign((T)0, a / b);                                                                \
    T whole = floor(q);                                                                                      \
    return q - whole > (T)0.5 ? whole + 1 : whole; /* q is whole but for rounding */                         \
  }
FLOOR_DIV_FLOAT(floor_div_f32, float)
FLOOR_DIV_FLOAT(floor_div_f64, double)

LOOP2(floor_divide_I64, int64_t, int64_t, floor_div_i64(x, y))
LOOP2(floor_divide_F32, float, float, floor_div_f32(x, y))
LOOP2(floor_divide_F64, double, double, floor_div_f64(x, y))
LOOP2(remainder_I64, int64_t, int64_t, mod_i64(x, y))
LOOP2(remainder_F32, float, float, mod_f32(x, y))
LOOP2(remainder_F64, double, double, mod_f64(x, y))

static void find_zero(char *const *p, const int64_t *step, int64_t n, const void *arg) {
  for (int64_t i = 0; i < n; i++)
    if (AT(const int64_t, 0) == 0) atomic_store((atomic_bool *)(uintptr_t)arg, true);
}

/* Integers have no value for a division by zero. */
static kn_status check_divisor(kn_context *ctx, kn_op op, kn_tensor *b, kn_dtype dtype) {
  if (kn_dtypes[dtype].category != KN_CAT_INT) return KN_OK;
  kn_tensor *divisor;
  KN_TRY(kk_cast(ctx, b, KN_I64, &divisor));
  atomic_bool found = false;
  kk_view v = kk_view_of(divisor);
  kk_loop(ctx, &v, 1, find_zero, &found);
  kn_tensor_release(divisor);
  return found ? kn_fail(ctx, KN_ARG, "%s: integer division by zero", kn_op_name(op)) : KN_OK;
}

KERNEL(floor_divide) {
  static const kk_inner_fn loops[KN_DTYPE_COUNT] = {NUMBERS(floor_divide)};
  (void)n;
  KN_TRY(check_divisor(ctx, KN_OP_floor_divide, in[1], RESULT));
  return run(ctx, KN_OP_floor_divide, RESULT, loops, attrs, in, 2, out);
}

KERNEL(remainder) {
  static const kk_inner_fn loops[KN_DTYPE_COUNT] = {NUMBERS(remainder)};
  (void)n;
  KN_TRY(check_divisor(ctx, KN_OP_remainder, in[1], RESULT));
  return run(ctx, KN_OP_remainder, RESULT, loops, attrs, in, 2, out);
}

static int64_t truncated_mod_i64(int64_t a, int64_t b) { return b == -1 || b == 0 ? 0 : a % b; }
LOOP2(fmod_I64, int64_t, int64_t, truncated_mod_i64(x, y))
LOOPS2_FLOAT(fmod, fmod(x, y))
KERNEL(fmod) {
  static const kk_inner_fn loops[KN_DTYPE_COUNT] = {NUMBERS(fmod)};
  (void)n;
  KN_TRY(check_divisor(ctx, KN_OP_fmod, in[1], RESULT));
  return run(ctx, KN_OP_fmod, RESULT, loops, attrs, in, 2, out);
}

/* Wraps around; a negative power of a whole number is whole only for 1 and -1, else 0 (as PyTorch has it
 * where powers are many: one negative power for all elements is refused below). */
static int64_t pow_i64(int64_t base, int64_t power) {
  if (power < 0) return base == 1 ? 1 : base == -1 ? (power % 2 ? -1 : 1) : 0;
  int64_t result = 1;
  for (; power; power >>= 1) {
    if (power & 1) result = kk_wrap_mul(result, base);
    base = kk_wrap_mul(base, base);
  }
  return result;
}
LOOP2(pow_I64, int64_t, int64_t, pow_i64(x, y))
LOOPS2_FLOAT(pow, y == 2 ? x * x : pow(x, y))
KERNEL(pow) {
  static const kk_inner_fn loops[KN_DTYPE_COUNT] = {NUMBERS(pow)};
  const kn_tensor *power = in[1];
  (void)n;
  if (kn_dtypes[RESULT].category == KN_CAT_INT && power->type.rank == 0 &&
      kn_element_int(kn_tensor_dtype(power), kn_tensor_data(power)) < 0)
    return kn_fail(
        ctx, KN_ARG,
        "pow: integers to negative integer powers are not allowed (got %s to the power %lld); make "
        "the base or the power a float first",
        kn_dtype_name(kn_tensor_dtype(in[0])),
        (long long)kn_element_int(kn_tensor_dtype(power), kn_tensor_data(power)));
  return run(ctx, KN_OP_pow, RESULT, loops, attrs, in, 2, out);
}

UNARY_NUMBER(neg, kk_wrap_sub(0, x), -x)
UNARY_NUMBER(abs, x < 0 ? kk_wrap_sub(0, x) : x, fabs(x))
UNARY_ALL(sign, x, (x > 0) - (x < 0), x > 0 ? 1 : x < 0 ? -1 : x != x ? x : 0)
UNARY_NUMBER(floor, x, floor(x))
UNARY_NUMBER(ceil, x, ceil(x))
UNARY_NUMBER(round, x, nearbyint(x))
UNARY_NUMBER(trunc, x, trunc(x))
UNARY_FLOAT(exp, exp(x))
UNARY_FLOAT(expm1, expm1(x))
UNARY_FLOAT(log1p, log1p(x))
UNARY_FLOAT(log2, log2(x))
UNARY_FLOAT(log10, log10(x))
UNARY_FLOAT(log, log(x))
UNARY_FLOAT(sqrt, sqrt(x))
UNARY_FLOAT(rsqrt, 1 / sqrt(x))
UNARY_FLOAT(sin, sin(x))
UNARY_FLOAT(cos, cos(x))
UNARY_FLOAT(tan, tan(x))
UNARY_FLOAT(asin, asin(x))
UNARY_FLOAT(acos, acos(x))
UNARY_FLOAT(atan, atan(x))
BINARY_FLOAT(atan2, atan2(x, y))
UNARY_FLOAT(sinh, sinh(x))
UNARY_FLOAT(cosh, cosh(x))
UNARY_FLOAT(tanh, tanh(x))
UNARY_FLOAT(asinh, asinh(x))
UNARY_FLOAT(acosh, acosh(x))
UNARY_FLOAT(atanh, atanh(x))
UNARY_FLOAT(sigmoid, 1 / (1 + exp(-x)))
UNARY_FLOAT(erf, erf(x))
UNARY_FLOAT(erfc, erfc(x))
UNARY_FLOAT(erfinv, ks_erfinv((double)x))
UNARY_FLOAT(lgamma, lgamma((double)x))
UNARY_FLOAT(digamma, ks_digamma((double)x))
UNARY_FLOAT(polygamma, ks_polygamma(((const kn_attrs_polygamma *)arg)->n, (double)x))
UNARY_FLOAT(i0, ks_i0((double)x))
UNARY_FLOAT(i1, ks_i1((double)x))
BINARY_FLOAT(standard_gamma_grad, ks_gamma_grad((double)x, (double)y))
UNARY_NUMBER(relu, x > 0 ? x : 0, x > 0 || x != x ? x : 0)

/* ---- comparison, logic ---- */

COMPARE(eq, x == y)
COMPARE(ne, x != y)
COMPARE(lt, x < y)
COMPARE(le, x <= y)
COMPARE(gt, x > y)
COMPARE(ge, x >= y)

BINARY_BITS(bitwise_and, (x & y))
BINARY_BITS(bitwise_or, x | y)
BINARY_BITS(bitwise_xor, x ^ y)
LOOP1(bitwise_not_BOOL, uint8_t, uint8_t, !x)
LOOP1(bitwise_not_I64, int64_t, int64_t, ~x)
RUN(bitwise_not, 1, RESULT, [KN_BOOL] = bitwise_not_BOOL, [KN_I64] = bitwise_not_I64)

/* Shifted out of the word, or by a negative number: 0, or what the sign fills in. */
static int64_t shift_left(int64_t a, int64_t by) {
  return by < 0 || by > 63 ? 0 : (int64_t)((uint64_t)a << by);
}
static int64_t shift_right(int64_t a, int64_t by) { return a >> (by < 0 || by > 63 ? 63 : by); }
LOOP2(bitwise_left_shift_I64, int64_t, int64_t, shift_left(x, y))
LOOP2(bitwise_right_shift_I64, int64_t, int64_t, shift_right(x, y))
RUN(bitwise_left_shift, 2, RESULT, [KN_I64] = bitwise_left_shift_I64)
RUN(bitwise_right_shift, 2, RESULT, [KN_I64] = bitwise_right_shift_I64)

static void isnan_whole(char *const *p, const int64_t *step, int64_t n, const void *arg) {
  (void)arg;
  for (int64_t i = 0; i < n; i++) AT(uint8_t, 0) = 0;
}
LOOP1(isnan_F32, uint8_t, float, x != x)
LOOP1(isnan_F64, uint8_t, double, x != x)
RUN(isnan, 1, kn_tensor_dtype(in[0]), [KN_BOOL] = isnan_whole, [KN_I64] = isnan_whole, FLOATS(isnan))

/* ---- clamp, where, cast ---- */

/* min(max(x, low), high): nan stays, a nan bound makes nan, high wins over low. */
#define CLAMP_FLOAT(E, T)                                                                                    \
  static void clamp_##E(char *const *p, const int64_t *step, int64_t n, const void *arg) {                   \
    const kn_attrs_clamp *a = arg;                                                                           \
    const T low = (T)a->min, high = (T)a->max;                                                               \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      T x = AT(const T, 1);                                                                                  \
      x = x < low || low != low ? low : x;                                                                   \
      AT(T, 0) = x > high || high != high ? high : x;                                                        \
    }                                                                                                        \
  }
CLAMP_FLOAT(F32, float)
CLAMP_FLOAT(F64, double)
static void clamp_I64(char *const *p, const int64_t *step, int64_t n, const void *arg) {
  const kn_attrs_clamp *a = arg;
  const int64_t low = kn_number_int(a->min_number), high = kn_number_int(a->max_number);
  for (int64_t i = 0; i < n; i++) {
    int64_t x = AT(const int64_t, 1);
    x = x < low ? low : x;
    AT(int64_t, 0) = x > high ? high : x;
  }
}
RUN(clamp, 1, RESULT, NUMBERS(clamp))

#define WHERE(T, E)                                                                                          \
  static void where_##E(char *const *p, const int64_t *step, int64_t n, const void *arg) {                   \
    (void)arg;                                                                                               \
    for (int64_t i = 0; i < n; i++) AT(T, 0) = AT(const uint8_t, 1) ? AT(const T, 2) : AT(const T, 3);       \
  }
KK_TYPES(WHERE)

KERNEL(where) {
  static const kk_inner_fn loops[KN_DTYPE_COUNT] = {ALL(where)};
  (void)attrs, (void)n;
  kk_view operands[4] = {kk_view_of(out[0]), kk_view_of(in[0]), kk_view_of(in[1]), kk_view_of(in[2])};
  const kn_dtype as[4] = {RESULT, KN_BOOL, RESULT, RESULT};
  kk_loop_as(ctx, operands, as, 4, loops[kk_wide(RESULT)], NULL);
  return KN_OK;
}

static void copy(kn_context *ctx, const kn_tensor *from, kn_tensor *to) {
  kk_view dst = kk_view_of(to), src = kk_view_of(from);
  kk_copy(ctx, &dst, &src);
}

KERNEL(cast) {
  (void)attrs, (void)n;
  copy(ctx, in[0], out[0]);
  return KN_OK;
}

KERNEL(clone) {
  (void)attrs, (void)n;
  copy(ctx, in[0], out[0]);
  return KN_OK;
}
