/* Kernels of the elementwise class. elementwise.def has a line for each op, which makes a loop for each dtype
 * that is computed in (bool, int64, float32, float64) and the kernel that picks one; elements of other dtypes
 * come to it and go from it in blocks (kk_loop_as). */
#include "core/infer.h"
#include "core/kernels/kernel.h"
#include "core/kernels/formula_float.h"
#include "core/kernels/special.h"

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

/* ---- what data may be at fault for ---- */

static void find_zero(char *const *p, const int64_t *step, int64_t n, const void *arg) {
  for (int64_t i = 0; i < n; i++)
    if (AT(const int64_t, 0) == 0) atomic_store((atomic_bool *)(uintptr_t)arg, true);
}

/* Integers have no value for a division by zero. */
static kn_status check_divisor(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_dtype dtype) {
  if (kn_dtypes[dtype].category != KN_CAT_INT) return KN_OK;
  kn_tensor *divisor;
  KN_TRY(kk_cast(ctx, in[1], KN_I64, &divisor));
  atomic_bool found = false;
  kk_view v = kk_view_of(divisor);
  kk_loop(ctx, &v, 1, find_zero, &found);
  kn_tensor_release(divisor);
  return found ? kn_fail(ctx, KN_ARG, "%s: integer division by zero", kn_op_name(op)) : KN_OK;
}

static kn_status check_power(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_dtype dtype) {
  const kn_tensor *power = in[1];
  if (kn_dtypes[dtype].category != KN_CAT_INT || power->type.rank != 0 ||
      kn_element_int(kn_tensor_dtype(power), kn_tensor_data(power)) >= 0)
    return KN_OK;
  return kn_fail(ctx, KN_ARG,
                 "%s: integers to negative integer powers are not allowed (got %s to the power %lld); make "
                 "the base or the power a float first",
                 kn_op_name(op), kn_dtype_name(kn_tensor_dtype(in[0])),
                 (long long)kn_element_int(kn_tensor_dtype(power), kn_tensor_data(power)));
}

/* ---- the ops ---- */

#define UNARY_FLOAT(name, value) LOOPS1_FLOAT(name, value) RUN(name, 1, RESULT, FLOATS(name))
#define UNARY_NUMBER(name, integer, floating)                                                                \
  LOOP1(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOPS1_FLOAT(name, floating) RUN(name, 1, RESULT, NUMBERS(name))
#define UNARY_ALL(name, boolean, integer, floating)                                                          \
  LOOP1(name##_BOOL, uint8_t, uint8_t, boolean)                                                              \
  LOOP1(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOPS1_FLOAT(name, floating) RUN(name, 1, RESULT, ALL(name))
#define UNARY_BITS(name, boolean, integer)                                                                   \
  LOOP1(name##_BOOL, uint8_t, uint8_t, boolean)                                                              \
  LOOP1(name##_I64, int64_t, int64_t, integer)                                                               \
  RUN(name, 1, RESULT, [KN_BOOL] = name##_BOOL, [KN_I64] = name##_I64)
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
#define BINARY_INT(name, value)                                                                              \
  LOOP2(name##_I64, int64_t, int64_t, value) RUN(name, 2, RESULT, [KN_I64] = name##_I64)
#define CHECKED(name, check, integer, single, wide)                                                          \
  LOOP2(name##_I64, int64_t, int64_t, integer)                                                               \
  LOOP2(name##_F32, float, float, single)                                                                    \
  LOOP2(name##_F64, double, double, wide)                                                                    \
  KERNEL(name) {                                                                                             \
    static const kk_inner_fn loops[KN_DTYPE_COUNT] = {NUMBERS(name)};                                        \
    (void)n;                                                                                                 \
    KN_TRY(check(ctx, KN_OP_##name, in, RESULT));                                                            \
    return run(ctx, KN_OP_##name, RESULT, loops, attrs, in, 2, out);                                         \
  }
#define COMPARE(name, value)                                                                                 \
  LOOP2(name##_BOOL, uint8_t, uint8_t, value)                                                                \
  LOOP2(name##_I64, uint8_t, int64_t, value)                                                                 \
  LOOP2(name##_F32, uint8_t, float, value)                                                                   \
  LOOP2(name##_F64, uint8_t, double, value)                                                                  \
  RUN(name, 2, kn_promote_types(&in[0]->type, &in[1]->type), ALL(name))
#define TEST(name, value)                                                                                    \
  LOOP1(name##_F32, uint8_t, float, value)                                                                   \
  LOOP1(name##_F64, uint8_t, double, value)                                                                  \
  RUN(name, 1, kn_tensor_dtype(in[0]), [KN_BOOL] = no, [KN_I64] = no, FLOATS(name))
#define ORDER_LOOP(fn, T, value)                                                                             \
  static void fn(char *const *p, const int64_t *step, int64_t count, const void *arg) {                      \
    const int64_t n = ((const kn_attrs_polygamma *)arg)->n;                                                  \
    for (int64_t i = 0; i < count; i++) {                                                                    \
      const T x = AT(const T, 1);                                                                            \
      AT(T, 0) = (T)(value);                                                                                 \
    }                                                                                                        \
  }
#define ORDER(name, value)                                                                                   \
  ORDER_LOOP(name##_F32, float, value)                                                                       \
  ORDER_LOOP(name##_F64, double, value) RUN(name, 1, RESULT, FLOATS(name))
#define LIMIT_LOOP(fn, T, low, high, value)                                                                  \
  static void fn(char *const *p, const int64_t *step, int64_t n, const void *arg) {                          \
    const kn_attrs_clamp *a = arg;                                                                           \
    const T y = low, z = high;                                                                               \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T x = AT(const T, 1);                                                                            \
      AT(T, 0) = value;                                                                                      \
    }                                                                                                        \
  }
#define LIMIT(name, integer, single, wide)                                                                   \
  LIMIT_LOOP(name##_I64, int64_t, kn_number_int(a->min_number), kn_number_int(a->max_number), integer)       \
  LIMIT_LOOP(name##_F32, float, (float)a->min, (float)a->max, single)                                        \
  LIMIT_LOOP(name##_F64, double, a->min, a->max, wide) RUN(name, 1, RESULT, NUMBERS(name))
#define CHOOSE_LOOP(fn, T, value)                                                                            \
  static void fn(char *const *p, const int64_t *step, int64_t n, const void *arg) {                          \
    (void)arg;                                                                                               \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const uint8_t x = AT(const uint8_t, 1);                                                                \
      const T y = AT(const T, 2), z = AT(const T, 3);                                                        \
      AT(T, 0) = value;                                                                                      \
    }                                                                                                        \
  }
#define CHOOSE(name, value)                                                                                  \
  CHOOSE_LOOP(name##_BOOL, uint8_t, value)                                                                   \
  CHOOSE_LOOP(name##_I64, int64_t, value)                                                                    \
  CHOOSE_LOOP(name##_F32, float, value)                                                                      \
  CHOOSE_LOOP(name##_F64, double, value)                                                                     \
  KERNEL(name) {                                                                                             \
    static const kk_inner_fn loops[KN_DTYPE_COUNT] = {ALL(name)};                                            \
    (void)attrs, (void)n;                                                                                    \
    kk_view operands[4] = {kk_view_of(out[0]), kk_view_of(in[0]), kk_view_of(in[1]), kk_view_of(in[2])};     \
    const kn_dtype as[4] = {RESULT, KN_BOOL, RESULT, RESULT};                                                \
    kk_loop_as(ctx, operands, as, 4, loops[kk_wide(RESULT)], NULL);                                          \
    return KN_OK;                                                                                            \
  }
#define MOVE(name)                                                                                           \
  KERNEL(name) {                                                                                             \
    (void)attrs, (void)n;                                                                                    \
    kk_view dst = kk_view_of(out[0]), src = kk_view_of(in[0]);                                               \
    kk_copy(ctx, &dst, &src);                                                                                \
    return KN_OK;                                                                                            \
  }

/* A test of floats says no to whole numbers. */
static void no(char *const *p, const int64_t *step, int64_t n, const void *arg) {
  (void)arg;
  for (int64_t i = 0; i < n; i++) AT(uint8_t, 0) = 0;
}

#include "core/kernels/elementwise.def"
