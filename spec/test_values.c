/* What ops compute and what they refuse, case by case, against values worked out by hand. */
#include "core/device.h"
#include "spec/tensors.h"

/* ---- one-line checks: run an op on inputs that the check releases, compare, release ---- */

static kn_tensor *run(kn_context *c, kn_op op, const void *attrs, kn_tensor *a, kn_tensor *b, kn_tensor *d) {
  kn_tensor *in[] = {a, b, d}, *out = NULL;
  OK(c, kn_apply(c, op, attrs, in, !a ? 0 : !b ? 1 : !d ? 2 : 3, &out));
  for (int i = 0; i < 3; i++) kn_tensor_release(in[i]);
  return out;
}

static kn_status refuse(kn_context *c, kn_op op, const void *attrs, kn_tensor *a, kn_tensor *b,
                        kn_tensor *d) {
  kn_tensor *in[] = {a, b, d}, *out = NULL;
  kn_status st = kn_apply(c, op, attrs, in, !a ? 0 : !b ? 1 : !d ? 2 : 3, &out);
  ck_assert_ptr_null(out);
  for (int i = 0; i < 3; i++) kn_tensor_release(in[i]);
  return st;
}

#define GIVES(value, dtype, dims, ...)                                                                       \
  do {                                                                                                       \
    kn_tensor *gives_ = (value);                                                                             \
    expect(gives_, dtype, dims, __VA_ARGS__);                                                                \
    kn_tensor_release(gives_);                                                                               \
  } while (0)
#define RUN(op, attrs, a, b, d) run(c, KN_OP_##op, attrs, a, b, d)
#define RUN1(op, a) RUN(op, NULL, a, NULL, NULL)
#define RUN2(op, a, b) RUN(op, NULL, a, b, NULL)
#define REFUSE(status, text, op, attrs, a, b, d) FAILS(c, status, text, refuse(c, KN_OP_##op, attrs, a, b, d))
#define F(dims, ...) make(c, KN_F32, dims, LIST(__VA_ARGS__))
#define D(dims, ...) make(c, KN_F64, dims, LIST(__VA_ARGS__))
#define I(dims, ...) make(c, KN_I64, dims, LIST(__VA_ARGS__))
#define B(dims, ...) make(c, KN_BOOL, dims, LIST(__VA_ARGS__))
#define NIL NULL

/* ---- elementwise ---- */

START_TEST(arithmetic) {
  kn_context *c = suite_context();
  GIVES(RUN2(add, F(DIMS(2, 1), 1, 2), F(DIMS(3), 10, 20, 30)), KN_F32, DIMS(2, 3),
        LIST(11, 21, 31, 12, 22, 32));
  GIVES(RUN2(sub, I(DIMS(2), 5, INT32_MAX), I(SCALAR, 7)), KN_I64, DIMS(2), LIST(-2, INT32_MAX - 7));
  GIVES(RUN2(add, B(DIMS(4), 0, 0, 1, 1), B(DIMS(4), 0, 1, 0, 1)), KN_BOOL, DIMS(4), LIST(0, 1, 1, 1));
  GIVES(RUN2(mul, B(DIMS(4), 0, 0, 1, 1), B(DIMS(4), 0, 1, 0, 1)), KN_BOOL, DIMS(4), LIST(0, 0, 0, 1));
  GIVES(RUN2(div, I(DIMS(2), 1, -7), I(DIMS(2), 2, 2)), KN_F32, DIMS(2), LIST(0.5, -3.5));
  GIVES(RUN2(div, D(DIMS(2), 1, -1), D(SCALAR, 0)), KN_F64, DIMS(2), LIST(INFINITY, -INFINITY));
  GIVES(RUN2(floor_divide, I(DIMS(4), 7, -7, 7, -7), I(DIMS(4), 2, 2, -2, -2)), KN_I64, DIMS(4),
        LIST(3, -4, -4, 3));
  GIVES(RUN2(floor_divide, F(DIMS(4), 7, -7, -1, 1), F(DIMS(4), 2, 2, INFINITY, 0)), KN_F32, DIMS(4),
        LIST(3, -4, -1, INFINITY));
  GIVES(RUN2(remainder, I(DIMS(4), 7, -7, 7, -7), I(DIMS(4), 3, 3, -3, -3)), KN_I64, DIMS(4),
        LIST(1, 2, -2, -1));
  GIVES(RUN2(remainder, D(DIMS(3), 5.5, -5.5, 1), D(DIMS(3), 2, 2, 0)), KN_F64, DIMS(3), LIST(1.5, 0.5, NAN));
  GIVES(RUN2(pow, I(DIMS(5), 2, -3, 2, -1, 1), I(DIMS(5), 10, 3, -1, -3, -9)), KN_I64, DIMS(5),
        LIST(1024, -27, 0, -1, 1));
  GIVES(RUN2(pow, I(DIMS(2), 2, -3), F(SCALAR, -1)), KN_F32, DIMS(2), LIST(0.5, (float)(-1.0 / 3)));
  GIVES(RUN2(pow, F(DIMS(2), 4, -2), F(DIMS(2), 0.5, 2)), KN_F32, DIMS(2), LIST(2, 4));
  GIVES(RUN2(maximum, F(DIMS(3), 1, NAN, 3), F(DIMS(3), 2, 2, NAN)), KN_F32, DIMS(3), LIST(2, NAN, NAN));
  GIVES(RUN2(minimum, D(DIMS(3), 1, NAN, 3), D(DIMS(3), 2, 2, NAN)), KN_F64, DIMS(3), LIST(1, NAN, NAN));
  suite_done(c);
}

START_TEST(integers_wrap) {
  kn_context *c = suite_context();
  kn_tensor *low = I(DIMS(1), 0), *one = I(DIMS(1), -1), *out;
  *(int64_t *)kn_tensor_data(low) = INT64_MIN;
  const struct {
    kn_op op;
    int64_t want;
  } rows[] = {
      {KN_OP_mul, INT64_MIN}, {KN_OP_floor_divide, INT64_MIN}, {KN_OP_remainder, 0}, {KN_OP_add, INT64_MAX}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    OK(c, kn_apply(c, rows[i].op, NULL, (kn_tensor *[]){low, one}, 2, &out));
    ck_assert_int_eq(*(int64_t *)kn_tensor_data(out), rows[i].want);
    kn_tensor_release(out);
  }
  OK(c, kn_apply(c, KN_OP_abs, NULL, &low, 1, &out));
  ck_assert_int_eq(*(int64_t *)kn_tensor_data(out), INT64_MIN);
  kn_tensor_release(out), kn_tensor_release(low), kn_tensor_release(one);
  suite_done(c);
}

START_TEST(division_by_zero) {
  kn_context *c = suite_context();
  REFUSE(KN_ARG, "floor_divide: integer division by zero", floor_divide, NIL, I(DIMS(2), 1, 2),
         I(DIMS(2), 1, 0), NIL);
  REFUSE(KN_ARG, "remainder: integer division by zero", remainder, NIL, I(DIMS(2), 1, 2), B(SCALAR, 0), NIL);
  REFUSE(
      KN_ARG,
      "pow: integers to negative integer powers are not allowed (got int64 to the power -2); make the base "
      "or the power a float first",
      pow, NIL, I(DIMS(2), 1, 2), I(SCALAR, -2), NIL);
  GIVES(RUN2(remainder, F(SCALAR, 1), I(SCALAR, 0)), KN_F32, SCALAR, LIST(NAN));
  suite_done(c);
}

START_TEST(promotion) {
  kn_context *c = suite_context();
  static const struct {
    kn_dtype a, b, want;
    bool b_is_0d;
  } rows[] = {{KN_I64, KN_F32, KN_F32, false},  {KN_F32, KN_F64, KN_F64, false},
              {KN_BOOL, KN_I64, KN_I64, false}, {KN_F32, KN_F64, KN_F32, true},
              {KN_I64, KN_F64, KN_F64, true},   {KN_F32, KN_I64, KN_F32, true},
              {KN_BOOL, KN_I64, KN_I64, true},  {KN_BOOL, KN_BOOL, KN_BOOL, true}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    kn_tensor *a = make(c, rows[i].a, DIMS(2), LIST(1, 0));
    kn_tensor *b = rows[i].b_is_0d ? number(c, rows[i].b, 1) : make(c, rows[i].b, DIMS(2), LIST(1, 1));
    GIVES(RUN2(mul, a, b), rows[i].want, DIMS(2), LIST(1, 0));
  }
  /* float64 0-d beside float32: values are compared as float32 */
  GIVES(RUN2(eq, F(DIMS(1), 0.1), D(SCALAR, 0.1)), KN_BOOL, DIMS(1), LIST(1));
  GIVES(RUN2(eq, F(DIMS(1), 0.1), D(DIMS(1), 0.1)), KN_BOOL, DIMS(1), LIST(0));
  GIVES(RUN(where, NIL, B(DIMS(2), 1, 0), I(SCALAR, 3), F(DIMS(2), 0.5, 0.25)), KN_F32, DIMS(2),
        LIST(3, 0.25));
  suite_done(c);
}

/* Broadcasting of strided inputs, and of enough elements for several threads, element by element. */
START_TEST(broadcasting_spelled_out) {
  kn_context *c = suite_context();
  c->threads = 3;
  kn_attrs_create of_a = {.sizes = DIMS(3, 1, 50, 40), .dtype = KN_F64},
                  of_b = {.sizes = DIMS(7, 1, 40), .dtype = KN_F64};
  kn_attrs_swap last = {.dim0 = -1, .dim1 = -2};
  kn_tensor *a = RUN(randn, &of_a, NIL, NIL, NIL), *b = RUN(randn, &of_b, NIL, NIL, NIL), *at, *bt, *y;
  OK(c, kn_apply(c, KN_OP_transpose, &last, &a, 1, &at)); /* [3,1,40,50] */
  OK(c, kn_apply(c, KN_OP_transpose, &last, &b, 1, &bt)); /* [7,40,1] */
  OK(c, kn_apply(c, KN_OP_sub, NULL, (kn_tensor *[]){at, bt}, 2, &y));
  ck_assert_int_eq(kn_tensor_numel(y), 3 * 7 * 40 * 50);
  for (int64_t k = 0; k < kn_tensor_numel(y); k++) {
    int64_t i = k / (7 * 40 * 50), j = k / (40 * 50) % 7, r = k / 50 % 40, col = k % 50;
    ck_assert(element(y, k) == element(a, (i * 50 + col) * 40 + r) - element(b, j * 40 + r));
  }
  kn_tensor *all[] = {a, b, at, bt, y};
  for (int i = 0; i < 5; i++) kn_tensor_release(all[i]);
  suite_done(c);
}

START_TEST(functions) {
  kn_context *c = suite_context();
  GIVES(RUN1(neg, F(DIMS(2), 1, -2)), KN_F32, DIMS(2), LIST(-1, 2));
  GIVES(RUN1(sign, D(DIMS(4), -3, 0, 5, NAN)), KN_F64, DIMS(4), LIST(-1, 0, 1, NAN));
  GIVES(RUN1(sign, B(DIMS(2), 0, 1)), KN_BOOL, DIMS(2), LIST(0, 1));
  GIVES(RUN1(round, F(DIMS(5), 0.5, 1.5, 2.5, -0.5, -1.2)), KN_F32, DIMS(5), LIST(0, 2, 2, 0, -1));
  GIVES(RUN1(floor, D(DIMS(2), -1.5, 1.5)), KN_F64, DIMS(2), LIST(-2, 1));
  GIVES(RUN1(ceil, D(DIMS(2), -1.5, 1.5)), KN_F64, DIMS(2), LIST(-1, 2));
  GIVES(RUN1(exp, I(DIMS(2), 0, 1)), KN_F32, DIMS(2), LIST(1, 2.71828182845904523));
  GIVES(RUN1(log, D(DIMS(3), 1, 0, -1)), KN_F64, DIMS(3), LIST(0, -INFINITY, NAN));
  GIVES(RUN1(rsqrt, D(SCALAR, 4)), KN_F64, SCALAR, LIST(0.5));
  GIVES(RUN1(sigmoid, F(DIMS(3), 0, -200, 200)), KN_F32, DIMS(3), LIST(0.5, 0, 1));
  GIVES(RUN1(tanh, D(SCALAR, 0.5)), KN_F64, SCALAR, LIST(0.46211715726000975));
  GIVES(RUN1(erf, D(SCALAR, 1)), KN_F64, SCALAR, LIST(0.84270079294971487));
  GIVES(RUN1(relu, F(DIMS(4), -1, 0, 2, NAN)), KN_F32, DIMS(4), LIST(0, 0, 2, NAN));
  GIVES(RUN1(isnan, F(DIMS(2), 1, NAN)), KN_BOOL, DIMS(2), LIST(0, 1));
  GIVES(RUN1(bitwise_not, I(DIMS(2), 0, -1)), KN_I64, DIMS(2), LIST(-1, 0));
  GIVES(RUN1(bitwise_not, B(DIMS(2), 0, 1)), KN_BOOL, DIMS(2), LIST(1, 0));
  GIVES(RUN2(bitwise_xor, I(SCALAR, 6), I(SCALAR, 3)), KN_I64, SCALAR, LIST(5));
  GIVES(RUN2(lt, F(DIMS(3), 1, 2, NAN), F(SCALAR, 2)), KN_BOOL, DIMS(3), LIST(1, 0, 0));
  GIVES(RUN2(ne, F(DIMS(2), 1, NAN), F(DIMS(2), 1, NAN)), KN_BOOL, DIMS(2), LIST(0, 1));
  kn_attrs_clamp limits = {.min = -1, .max = 2};
  GIVES(RUN(clamp, &limits, F(DIMS(4), -5, 0.5, 7, NAN), NIL, NIL), KN_F32, DIMS(4), LIST(-1, 0.5, 2, NAN));
  GIVES(RUN(clamp, &limits, I(DIMS(3), -5, 0, 7), NIL, NIL), KN_I64, DIMS(3), LIST(-1, 0, 2));
  kn_attrs_clamp crossed = {.min = 3, .max = 2}, above = {.min = 0, .max = INFINITY};
  GIVES(RUN(clamp, &crossed, D(DIMS(2), 0, 9), NIL, NIL), KN_F64, DIMS(2), LIST(2, 2));
  GIVES(RUN(clamp, &above, I(DIMS(2), -4, 4), NIL, NIL), KN_I64, DIMS(2), LIST(0, 4));
  kn_attrs_cast whole = {.dtype = KN_I64}, truth = {.dtype = KN_BOOL};
  GIVES(RUN(cast, &whole, F(DIMS(4), 2.9, -2.9, NAN, 1e30), NIL, NIL), KN_I64, DIMS(4),
        LIST(2, -2, 0, 0x1p63));
  GIVES(RUN(cast, &truth, F(DIMS(3), 0, -0.1, NAN), NIL, NIL), KN_BOOL, DIMS(3), LIST(0, 1, 1));
  suite_done(c);
}

START_TEST(elementwise_refusals) {
  kn_context *c = suite_context();
  REFUSE(KN_SHAPE, "add: sizes 2 and 3 of dim 1 do not broadcast (got float32[2], float32[3])", add, NIL,
         F(DIMS(2), 1, 2), F(DIMS(3), 1, 2, 3), NIL);
  REFUSE(KN_DTYPE, "sub: not defined for bool", sub, NIL, B(SCALAR, 1), B(SCALAR, 1), NIL);
  REFUSE(KN_DTYPE, "neg: not defined for bool", neg, NIL, B(SCALAR, 1), NIL, NIL);
  REFUSE(KN_DTYPE, "bitwise_and: defined for bool and integers only, not float32 (got int64[], float32[])",
         bitwise_and, NIL, I(SCALAR, 1), F(SCALAR, 1), NIL);
  REFUSE(KN_DTYPE, "where: the condition must be bool, not int64", where, NIL, I(SCALAR, 1), F(SCALAR, 1),
         F(SCALAR, 1));
  kn_attrs_clamp half = {.min = 0.5, .max = 2};
  REFUSE(KN_ARG, "clamp: bounds of integers must be whole, not 0.5", clamp, &half, I(SCALAR, 1), NIL, NIL);
  REFUSE(KN_ARG, "add: takes 2 tensors, got 1", add, NIL, F(SCALAR, 1), NIL, NIL);
  REFUSE(KN_ARG, "conv2d: attributes are missing", conv2d, NIL, F(SCALAR, 1), F(SCALAR, 1), NIL);
  REFUSE(KN_ARG, "linear: takes 2 to 3 tensors, got 1", linear, NIL, F(SCALAR, 1), NIL, NIL);
  kn_tensor *y = NULL;
  FAILS(c, KN_ARG, "add: tensor 1 is missing", kn_apply(c, KN_OP_add, NULL, (kn_tensor *[2]){NULL}, 2, &y));
  suite_done(c);
}

/* ---- reductions ---- */

START_TEST(reductions) {
  kn_context *c = suite_context();
  kn_attrs_reduce all = {0}, rows = {.dim = DIMS(1)}, keep = {.dim = DIMS(-2), .keepdim = true};
  GIVES(RUN(sum, &all, F(DIMS(2, 2), 1, 2, 3, 4), NIL, NIL), KN_F32, SCALAR, LIST(10));
  GIVES(RUN(sum, &rows, I(DIMS(2, 2), 1, 2, 3, 4), NIL, NIL), KN_I64, DIMS(2), LIST(3, 7));
  GIVES(RUN(sum, &keep, B(DIMS(3, 2), 1, 0, 1, 1, 1, 0), NIL, NIL), KN_I64, DIMS(1, 2), LIST(3, 1));
  GIVES(RUN(sum, &all, make(c, KN_F32, DIMS(0, 2), NULL), NIL, NIL), KN_F32, SCALAR, LIST(0));
  GIVES(RUN(mean, &all, make(c, KN_F32, DIMS(0), NULL), NIL, NIL), KN_F32, SCALAR, LIST(NAN));
  GIVES(RUN(mean, &rows, D(DIMS(2, 2), 1, 2, 3, 4), NIL, NIL), KN_F64, DIMS(2), LIST(1.5, 3.5));
  GIVES(RUN(amax, &rows, F(DIMS(2, 2), 1, 2, NAN, 4), NIL, NIL), KN_F32, DIMS(2), LIST(2, NAN));
  GIVES(RUN(amin, &all, B(DIMS(3), 1, 0, 1), NIL, NIL), KN_BOOL, SCALAR, LIST(0));
  GIVES(RUN(all, &rows, F(DIMS(2, 2), 1, 2, 0, 4), NIL, NIL), KN_BOOL, DIMS(2), LIST(1, 0));
  GIVES(RUN(any, &all, make(c, KN_F32, DIMS(0), NULL), NIL, NIL), KN_BOOL, SCALAR, LIST(0));
  GIVES(RUN(all, &all, make(c, KN_F32, DIMS(0), NULL), NIL, NIL), KN_BOOL, SCALAR, LIST(1));
  kn_attrs_argreduce flat = {.dim = KN_NONE}, last = {.dim = -1, .keepdim = true};
  GIVES(RUN(argmax, &flat, F(DIMS(2, 3), 1, 7, 3, 7, 2, 0), NIL, NIL), KN_I64, SCALAR, LIST(2));
  GIVES(RUN(argmax, &last, F(DIMS(2, 3), 1, 7, 7, NAN, 2, NAN), NIL, NIL), KN_I64, DIMS(2, 1), LIST(2, 1));
  GIVES(RUN(argmin, &flat, I(DIMS(4), 3, 1, 1, 2), NIL, NIL), KN_I64, SCALAR, LIST(2));
  GIVES(RUN(sum_to, NIL, F(DIMS(2, 3), 1, 2, 3, 4, 5, 6), F(DIMS(1, 3), 0, 0, 0), NIL), KN_F32, DIMS(1, 3),
        LIST(5, 7, 9));
  GIVES(RUN(sum_to, NIL, F(DIMS(2, 3), 1, 2, 3, 4, 5, 6), F(SCALAR, 0), NIL), KN_F32, SCALAR, LIST(21));
  REFUSE(KN_DTYPE, "mean: a floating dtype is needed, not int64 (got int64[1])", mean, &all, I(DIMS(1), 1),
         NIL, NIL);
  REFUSE(KN_SHAPE, "amax: dim 1 has no elements to choose from", amax, &all,
         make(c, KN_F32, DIMS(0, 2), NULL), NIL, NIL);
  REFUSE(KN_SHAPE, "argmin: dim 1 has no", argmin, &flat, make(c, KN_F32, DIMS(0), NULL), NIL, NIL);
  kn_attrs_reduce twice = {.dim = DIMS(0, -1)}, beyond = {.dim = DIMS(2)};
  REFUSE(KN_ARG, "sum: dim 1 is named twice", sum, &twice, F(DIMS(1), 1), NIL, NIL);
  REFUSE(KN_ARG, "sum: dim 3 does not exist in 2 dimensions (got float32[1,1])", sum, &beyond,
         F(DIMS(1, 1), 1), NIL, NIL);
  REFUSE(KN_SHAPE, "sum_to: [2] does not broadcast to [3]", sum_to, NIL, F(DIMS(3), 1, 2, 3),
         F(DIMS(2), 0, 0), NIL);
  suite_done(c);
}

/* 2^24 + 1 ones do not fit a float32 counter; the sum must not stall there. */
START_TEST(sums_are_accurate) {
  kn_context *c = suite_context();
  kn_attrs_fill ones = {.sizes = DIMS(5000, 5000), .value = 1, .dtype = KN_F32};
  kn_attrs_reduce all = {0};
  GIVES(RUN(sum, &all, RUN(full, &ones, NIL, NIL, NIL), NIL, NIL), KN_F32, SCALAR, LIST(25e6));
  suite_done(c);
}

START_TEST(softmaxes) {
  kn_context *c = suite_context();
  kn_attrs_axis last = {.dim = -1}, first = {.dim = 0};
  double e = exp(1), s = 1 + e + e * e;
  GIVES(RUN(softmax, &last, D(DIMS(1, 3), 0, 1, 2), NIL, NIL), KN_F64, DIMS(1, 3),
        LIST(1 / s, e / s, e * e / s));
  GIVES(RUN(softmax, &first, F(DIMS(2, 2), 1000, 0, 1000, -1000), NIL, NIL), KN_F32, DIMS(2, 2),
        LIST(0.5, 1, 0.5, 0));
  GIVES(RUN(log_softmax, &last, D(DIMS(2), -1000, 0), NIL, NIL), KN_F64, DIMS(2), LIST(-1000, 0));
  GIVES(RUN(softmax, &last, F(DIMS(2), NAN, 0), NIL, NIL), KN_F32, DIMS(2), LIST(NAN, NAN));
  REFUSE(KN_DTYPE, "softmax: a floating dtype is needed", softmax, &last, I(DIMS(2), 1, 2), NIL, NIL);
  suite_done(c);
}

/* ---- products ---- */

START_TEST(products) {
  kn_context *c = suite_context();
  GIVES(RUN2(matmul, F(DIMS(2, 3), 1, 2, 3, 4, 5, 6), F(DIMS(3, 2), 1, 0, 0, 1, 1, 1)), KN_F32, DIMS(2, 2),
        LIST(4, 5, 10, 11));
  GIVES(RUN2(matmul, I(DIMS(2), 1, 2), I(DIMS(2), 3, 4)), KN_I64, SCALAR, LIST(11));
  GIVES(RUN2(matmul, D(DIMS(2, 2), 1, 2, 3, 4), D(DIMS(2), 1, -1)), KN_F64, DIMS(2), LIST(-1, -1));
  GIVES(RUN2(matmul, D(DIMS(2), 1, -1), D(DIMS(2, 2), 1, 2, 3, 4)), KN_F64, DIMS(2), LIST(-2, -2));
  GIVES(RUN2(matmul, F(DIMS(2, 1, 2), 1, 2, 3, 4), F(DIMS(2, 1), 1, 10)), KN_F32, DIMS(2, 1, 1),
        LIST(21, 43));
  GIVES(RUN2(matmul, F(DIMS(2, 0)), F(DIMS(0, 2))), KN_F32, DIMS(2, 2), LIST(0, 0, 0, 0));
  REFUSE(KN_SHAPE, "matmul: inner sizes differ, 3 and 4 (got float32[1,3], float32[4,1])", matmul, NIL,
         F(DIMS(1, 3), 1, 2, 3), F(DIMS(4, 1), 1, 2, 3, 4), NIL);
  REFUSE(KN_DTYPE, "matmul: inputs 1 and 2 must have one dtype, not float32 and float64", matmul, NIL,
         F(DIMS(1), 1), D(DIMS(1), 1), NIL);
  REFUSE(KN_SHAPE, "matmul: both inputs need at least one dim", matmul, NIL, F(SCALAR, 1), F(DIMS(1), 1),
         NIL);
  REFUSE(KN_SHAPE, "matmul: batch sizes 2 and 3 do not broadcast", matmul, NIL, F(DIMS(2, 1, 1), 1, 2),
         F(DIMS(3, 1, 1), 1, 2, 3), NIL);
  suite_done(c);
}

/* Larger than one block in every direction, and on several threads, against the sum spelled out. */
START_TEST(large_product) {
  kn_context *c = suite_context();
  c->threads = 3;
  enum { M = 37, K = 29, N = 2100 };
  kn_attrs_create sizes = {.sizes = DIMS(M, K), .dtype = KN_F64},
                  other = {.sizes = DIMS(K, N), .dtype = KN_F64};
  kn_tensor *a = RUN(randn, &sizes, NIL, NIL, NIL), *b = RUN(randn, &other, NIL, NIL, NIL), *y;
  OK(c, kn_apply(c, KN_OP_matmul, NULL, (kn_tensor *[]){a, b}, 2, &y));
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j += 13) {
      double sum = 0;
      for (int k = 0; k < K; k++) sum += element(a, i * K + k) * element(b, k * N + j);
      ck_assert(near(element(y, i * N + j), sum, 1e-12));
    }
  kn_tensor_release(a), kn_tensor_release(b), kn_tensor_release(y);
  suite_done(c);
}

static const kn_attrs_conv2d plain_conv = {
    .stride = {1, {1}}, .padding = {1, {0}}, .dilation = {1, {1}}, .groups = 1};

START_TEST(convolutions) {
  kn_context *c = suite_context();
  kn_attrs_conv2d plain = plain_conv, padded = plain_conv, strided = plain_conv, spread = plain_conv,
                  grouped = plain_conv;
  GIVES(RUN(conv2d, &plain, F(DIMS(1, 1, 3, 3), 1, 2, 3, 4, 5, 6, 7, 8, 9), F(DIMS(1, 1, 2, 2), 1, 0, 0, -1),
            F(DIMS(1), 10)),
        KN_F32, DIMS(1, 1, 2, 2), LIST(6, 6, 6, 6));
  padded.padding = DIMS(1);
  GIVES(RUN(conv2d, &padded, F(DIMS(1, 1, 2, 2), 1, 2, 3, 4), F(DIMS(1, 1, 3, 3), 1, 1, 1, 1, 1, 1, 1, 1, 1),
            NIL),
        KN_F32, DIMS(1, 1, 2, 2), LIST(10, 10, 10, 10));
  strided.stride = DIMS(1, 2);
  GIVES(RUN(conv2d, &strided, D(DIMS(1, 1, 1, 5), 1, 2, 3, 4, 5), D(DIMS(1, 1, 1, 1), 2), NIL), KN_F64,
        DIMS(1, 1, 1, 3), LIST(2, 6, 10));
  spread.dilation = DIMS(1, 3);
  GIVES(RUN(conv2d, &spread, D(DIMS(1, 1, 1, 5), 1, 2, 3, 4, 5), D(DIMS(1, 1, 1, 2), 1, 10), NIL), KN_F64,
        DIMS(1, 1, 1, 2), LIST(41, 52));
  grouped.groups = 2;
  GIVES(RUN(conv2d, &grouped, F(DIMS(1, 2, 1, 1), 3, 5), F(DIMS(2, 1, 1, 1), 10, 100), NIL), KN_F32,
        DIMS(1, 2, 1, 1), LIST(30, 500));
  /* gradients of conv2d(x [1,1,1,3], w [1,1,1,2]) */
  GIVES(RUN(conv2d_grad_input, &plain, F(DIMS(1, 1, 1, 2), 1, 10), F(DIMS(1, 1, 1, 2), 2, 3),
            F(DIMS(1, 1, 1, 3), 0, 0, 0)),
        KN_F32, DIMS(1, 1, 1, 3), LIST(2, 23, 30));
  GIVES(RUN(conv2d_grad_weight, &plain, F(DIMS(1, 1, 1, 2), 1, 10), F(DIMS(1, 1, 1, 3), 1, 2, 3),
            F(DIMS(1, 1, 1, 2), 0, 0)),
        KN_F32, DIMS(1, 1, 1, 2), LIST(21, 32));
  /* what is not finite reaches what it is multiplied with, and nothing beside it */
  GIVES(RUN(conv2d_grad_input, &plain, F(DIMS(1, 1, 2, 1), 1, 1), F(DIMS(1, 1, 1, 2), 2, INFINITY),
            F(DIMS(1, 1, 2, 2), 0, 0, 0, 0)),
        KN_F32, DIMS(1, 1, 2, 2), LIST(2, INFINITY, 2, INFINITY));
  GIVES(RUN(conv2d_grad_weight, &plain, D(DIMS(1, 1, 2, 1), 1, 1), D(DIMS(1, 1, 2, 2), 1, 2, INFINITY, 3),
            D(DIMS(1, 1, 1, 2), 0, 0)),
        KN_F64, DIMS(1, 1, 1, 2), LIST(INFINITY, 5));
  REFUSE(KN_SHAPE, "conv2d: a window of 2 does not fit an input of 1 padded to 1", conv2d, &plain,
         F(DIMS(1, 1, 1, 1), 1), F(DIMS(1, 1, 2, 1), 1, 1), NIL);
  REFUSE(KN_SHAPE, "conv2d: the weight takes 1 channels in each of 1 group, the input has 2", conv2d, &plain,
         F(DIMS(1, 2, 1, 1), 1, 2), F(DIMS(1, 1, 1, 1), 1), NIL);
  REFUSE(KN_SHAPE, "conv2d: the image (input 1) must have four dims", conv2d, &plain, F(DIMS(1), 1),
         F(DIMS(1), 1), NIL);
  REFUSE(KN_SHAPE, "conv2d: the bias (input 3)", conv2d, &plain, F(DIMS(1, 1, 1, 1), 1),
         F(DIMS(1, 1, 1, 1), 1), F(DIMS(2), 1, 1));
  strided.stride = DIMS(0);
  REFUSE(KN_ARG, "conv2d: stride must be at least 1, not 0", conv2d, &strided, F(DIMS(1, 1, 1, 1), 1),
         F(DIMS(1, 1, 1, 1), 1), NIL);
  strided.stride = DIMS(1, 1, 1);
  REFUSE(KN_ARG, "conv2d: stride takes one number or two, not 3", conv2d, &strided, F(DIMS(1, 1, 1, 1), 1),
         F(DIMS(1, 1, 1, 1), 1), NIL);
  REFUSE(KN_SHAPE, "conv2d_grad_input: the gradient must have the shape [1,1,1,2]", conv2d_grad_input, &plain,
         F(DIMS(1, 1, 1, 1), 1), F(DIMS(1, 1, 1, 2), 2, 3), F(DIMS(1, 1, 1, 3), 0, 0, 0));
  suite_done(c);
}

/* The sum spelled out, for sizes and attributes in all combinations; and the gradients by what defines them:
 * for the scalar product <,> of tensors, <g, conv(x, w)> = <grad_input(g, w), x> = <grad_weight(g, x), w>. */
static double spelled_out(const kn_attrs_conv2d *a, const kn_tensor *x, const kn_tensor *w, int64_t image,
                          int64_t o, int64_t r, int64_t col) {
  const int64_t *xd = x->type.dims, *wd = w->type.dims;
  int64_t group = o / (wd[0] / a->groups);
  double sum = 0;
  for (int64_t ch = 0; ch < wd[1]; ch++)
    for (int64_t kh = 0; kh < wd[2]; kh++)
      for (int64_t kw = 0; kw < wd[3]; kw++) {
        int64_t i = r * a->stride.v[0] + kh * a->dilation.v[0] - a->padding.v[0];
        int64_t j = col * a->stride.v[1] + kw * a->dilation.v[1] - a->padding.v[1];
        if (i >= 0 && i < xd[2] && j >= 0 && j < xd[3])
          sum += element(w, ((o * wd[1] + ch) * wd[2] + kh) * wd[3] + kw) *
                 element(x, ((image * xd[1] + group * wd[1] + ch) * xd[2] + i) * xd[3] + j);
      }
  return sum;
}

static double product(const kn_tensor *a, const kn_tensor *b) {
  double sum = 0;
  for (int64_t k = 0; k < kn_tensor_numel(a); k++) sum += element(a, k) * element(b, k);
  return sum;
}

START_TEST(convolution_spelled_out) {
  kn_context *c = suite_context();
  for (int code = 0; code < 3 * 3 * 3 * 3 * 2 * 2; code++) {
    int rest = code, sh, sw, ph, pw, dh, groups;
    sh = rest % 3 + 1, rest /= 3, sw = rest % 3 + 1, rest /= 3, ph = rest % 3, rest /= 3, pw = rest % 3,
    rest /= 3;
    dh = rest % 2 + 1, rest /= 2, groups = rest + 1;
    kn_attrs_conv2d a = {
        .stride = DIMS(sh, sw), .padding = DIMS(ph, pw), .dilation = DIMS(dh, 1), .groups = groups};
    kn_attrs_create of_x = {.sizes = DIMS(2, 4, 6, 5), .dtype = KN_F64};
    kn_attrs_create of_w = {.sizes = DIMS(6, 4 / groups, 3, 2), .dtype = KN_F64};
    kn_tensor *x = RUN(randn, &of_x, NIL, NIL, NIL), *w = RUN(randn, &of_w, NIL, NIL, NIL), *y, *g, *dx, *dw;
    OK(c, kn_apply(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, w}, 2, &y));
    const int64_t *yd = y->type.dims;
    for (int64_t k = 0; k < kn_tensor_numel(y); k++) {
      double want = spelled_out(&a, x, w, k / (yd[1] * yd[2] * yd[3]), k / (yd[2] * yd[3]) % yd[1],
                                k / yd[3] % yd[2], k % yd[3]);
      ck_assert_msg(near(element(y, k), want, 1e-12), "combination %d, element %d", code, (int)k);
    }
    kn_attrs_create of_g = {.sizes = DIMS(yd[0], yd[1], yd[2], yd[3]), .dtype = KN_F64};
    g = RUN(randn, &of_g, NIL, NIL, NIL);
    OK(c, kn_apply(c, KN_OP_conv2d_grad_input, &a, (kn_tensor *[]){g, w, x}, 3, &dx));
    OK(c, kn_apply(c, KN_OP_conv2d_grad_weight, &a, (kn_tensor *[]){g, x, w}, 3, &dw));
    double defined = product(g, y);
    ck_assert_msg(near(product(dx, x), defined, 1e-11) && near(product(dw, w), defined, 1e-11),
                  "combination %d", code);
    kn_tensor *all[] = {x, w, y, g, dx, dw};
    for (int i = 0; i < 6; i++) kn_tensor_release(all[i]);
  }
  suite_done(c);
}

START_TEST(pooling) {
  kn_context *c = suite_context();
  kn_attrs_pool2d two = {.kernel_size = DIMS(2), .stride = DIMS(0), .padding = DIMS(0), .dilation = DIMS(1)};
  kn_attrs_pool2d three = {
      .kernel_size = DIMS(3), .stride = DIMS(2), .padding = DIMS(1), .dilation = DIMS(1)};
  kn_attrs_avg_pool2d mean2 = {
      .kernel_size = DIMS(2), .stride = DIMS(0), .padding = DIMS(0), .count_include_pad = true};
  kn_attrs_avg_pool2d mean3 = {
      .kernel_size = DIMS(3), .stride = DIMS(2), .padding = DIMS(1), .count_include_pad = true};
  GIVES(RUN(max_pool2d, &two, F(DIMS(1, 1, 2, 5), 1, 5, -3, -2, 9, 4, 2, -1, NAN, 9), NIL, NIL), KN_F32,
        DIMS(1, 1, 1, 2), LIST(5, NAN));
  GIVES(RUN(avg_pool2d, &mean2, F(DIMS(1, 1, 2, 2), 1, 2, 3, 4), NIL, NIL), KN_F32, DIMS(1, 1, 1, 1),
        LIST(2.5));
  GIVES(RUN(max_pool2d, &three, F(DIMS(1, 1, 2, 2), -1, -2, -3, -4), NIL, NIL), KN_F32, DIMS(1, 1, 1, 1),
        LIST(-1));
  GIVES(RUN(avg_pool2d, &mean3, D(DIMS(1, 1, 2, 2), 9, 9, 9, 9), NIL, NIL), KN_F64, DIMS(1, 1, 1, 1),
        LIST(4));
  GIVES(RUN(max_pool2d_grad, &two, F(DIMS(1, 1, 1, 1), 5), F(DIMS(1, 1, 2, 2), 1, 7, 7, 0), NIL), KN_F32,
        DIMS(1, 1, 2, 2), LIST(0, 5, 0, 0)); /* the first of two maxima */
  GIVES(RUN(avg_pool2d_grad, &mean2, F(DIMS(1, 1, 1, 1), 8), F(DIMS(1, 1, 2, 3), 0, 0, 0, 0, 0, 0), NIL),
        KN_F32, DIMS(1, 1, 2, 3), LIST(2, 2, 0, 2, 2, 0));
  kn_attrs_pool2d wide = {.kernel_size = DIMS(2), .stride = DIMS(0), .padding = DIMS(2), .dilation = DIMS(1)};
  REFUSE(KN_ARG, "max_pool2d: padding must be at most half of kernel_size, 2 is too much for 2", max_pool2d,
         &wide, F(DIMS(1, 1, 1, 1), 1), NIL, NIL);
  REFUSE(KN_SHAPE, "avg_pool2d: a window of 2 does not fit", avg_pool2d, &mean2, F(DIMS(1, 1, 1, 1), 1), NIL,
         NIL);
  suite_done(c);
}

/* ---- views ---- */

START_TEST(views_share) {
  kn_context *c = suite_context();
  kn_tensor *x = F(DIMS(2, 3), 1, 2, 3, 4, 5, 6), *t, *flat, *copy, *row;
  OK(c, kn_apply(c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, &x, 1, &t));
  OK(c, kn_apply(c, KN_OP_reshape, &(kn_attrs_sizes){.sizes = DIMS(-1)}, &x, 1, &flat));
  OK(c, kn_apply(c, KN_OP_reshape, &(kn_attrs_sizes){.sizes = DIMS(-1)}, &t, 1, &copy));
  OK(c, kn_apply(c, KN_OP_select, &(kn_attrs_select){.dim = 0, .index = -1}, &t, 1, &row));
  ck_assert(t->storage == x->storage && flat->storage == x->storage && row->storage == x->storage);
  ck_assert(copy->storage != x->storage);
  set_element(x, 2, 30); /* seen through the views, not by the copy */
  expect(t, KN_F32, DIMS(3, 2), LIST(1, 4, 2, 5, 30, 6));
  expect(flat, KN_F32, DIMS(6), LIST(1, 2, 30, 4, 5, 6));
  expect(copy, KN_F32, DIMS(6), LIST(1, 4, 2, 5, 3, 6));
  expect(row, KN_F32, DIMS(2), LIST(30, 6));
  FAILS(c, KN_SHAPE,
        "view: float32[3,2] is not laid out so that float32[6] shows it without a copy; use reshape",
        kn_apply(c, KN_OP_view, &(kn_attrs_sizes){.sizes = DIMS(6)}, &t, 1, &copy));
  kn_tensor *all[] = {x, t, flat, copy, row};
  for (int i = 0; i < 5; i++) kn_tensor_release(all[i]);
  suite_done(c);
}

/* Splitting and joining dims of a strided view without a copy. */
START_TEST(reshape_without_copy) {
  kn_context *c = suite_context();
  kn_tensor *x = RUN(arange, (&(kn_attrs_range){.end = 24, .step = 1, .dtype = KN_F32}), NIL, NIL, NIL), *y,
            *z;
  OK(c, kn_apply(c, KN_OP_reshape, &(kn_attrs_sizes){.sizes = DIMS(4, 6)}, &x, 1, &y));
  kn_tensor_release(x);
  OK(c, kn_apply(c, KN_OP_slice, &(kn_attrs_slice){.dim = 1, .start = 0, .stop = 4, .step = 1}, &y, 1, &x));
  OK(c, kn_apply(c, KN_OP_view, &(kn_attrs_sizes){.sizes = DIMS(2, 2, 1, 2, 2)}, &x, 1, &z));
  ck_assert(z->storage == y->storage);
  expect(z, KN_F32, DIMS(2, 2, 1, 2, 2), LIST(0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15, 18, 19, 20, 21));
  kn_tensor_release(x);
  OK(c, kn_apply(c, KN_OP_view, &(kn_attrs_sizes){.sizes = DIMS(4, 4)}, &z, 1, &x));
  expect(x, KN_F32, DIMS(4, 4), LIST(0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15, 18, 19, 20, 21));
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(z);
  suite_done(c);
}

START_TEST(slices) {
  kn_context *c = suite_context();
  static const struct {
    int64_t start, stop, step;
    int n;
    double want[5];
  } rows[] = {{0, KN_TO_END, 1, 5, {1, 2, 3, 4, 5}},
              {1, 3, 1, 2, {2, 3}},
              {-2, KN_TO_END, 1, 2, {4, 5}},
              {0, -1, 2, 2, {1, 3}},
              {0, 99, 3, 2, {1, 4}},
              {-99, 2, 1, 2, {1, 2}},
              {4, 2, 1, 0, {0}},
              {99, 200, 1, 0, {0}},
              {1, KN_TO_END, INT64_MAX, 1, {2}}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    kn_attrs_slice a = {.dim = 0, .start = rows[i].start, .stop = rows[i].stop, .step = rows[i].step};
    GIVES(RUN(slice, &a, F(DIMS(5), 1, 2, 3, 4, 5), NIL, NIL), KN_F32, DIMS(rows[i].n), rows[i].want);
  }
  kn_attrs_slice still = {.dim = 0, .stop = KN_TO_END, .step = 0},
                 odd = {.dim = 0, .start = 1, .stop = 5, .step = 2};
  REFUSE(KN_ARG, "slice: the step must be at least 1, not 0", slice, &still, F(DIMS(1), 1), NIL, NIL);
  REFUSE(KN_SHAPE, "slice: a 0-d tensor", slice, &odd, F(SCALAR, 1), NIL, NIL);
  GIVES(RUN(slice_grad, &odd, F(DIMS(2), 7, 8), F(DIMS(5), 0, 0, 0, 0, 0), NIL), KN_F32, DIMS(5),
        LIST(0, 7, 0, 8, 0));
  kn_attrs_select third = {.dim = 0, .index = 2};
  GIVES(RUN(slice_put, &odd, F(DIMS(5), 1, 2, 3, 4, 5), F(DIMS(2), 7, 8), NIL), KN_F32, DIMS(5),
        LIST(1, 7, 3, 8, 5));
  GIVES(RUN(select_put, &third, F(DIMS(3), 1, 2, 3), F(SCALAR, 7), NIL), KN_F32, DIMS(3), LIST(1, 2, 7));
  REFUSE(KN_SHAPE, "slice_put: [3] does not broadcast to [2]", slice_put, &odd, F(DIMS(5), 1, 2, 3, 4, 5),
         F(DIMS(3), 1, 2, 3), NIL);
  GIVES(RUN(select_grad, &third, F(SCALAR, 7), F(DIMS(3), 0, 0, 0), NIL), KN_F32, DIMS(3), LIST(0, 0, 7));
  kn_attrs_select far = {.dim = 0, .index = INT64_MAX}, no_dim = {.dim = INT64_MAX};
  REFUSE(KN_INDEX, "select: index 9223372036854775807 is out of range", select, &far, F(DIMS(2), 1, 2), NIL,
         NIL);
  REFUSE(KN_ARG, "select: dim 9223372036854775807 does not exist", select, &no_dim, F(DIMS(2), 1, 2), NIL,
         NIL);
  kn_attrs_narrow wrong = {.dim = INT64_C(1) << 32, .length = 1};
  REFUSE(KN_ARG, "narrow: dim 4294967297 does not exist in 1 dims", narrow, &wrong, F(DIMS(2), 1, 2), NIL,
         NIL);
  kn_attrs_flatten all = {.start_dim = INT64_C(1) << 32, .end_dim = -1};
  REFUSE(KN_ARG, "flatten: there are no dims 4294967297 to -1", flatten, &all, F(DIMS(2), 1, 2), NIL, NIL);
  REFUSE(KN_INDEX, "select: index 3 is out of range for dim 1 of size 2 (got float32[2])", select, &third,
         F(DIMS(2), 1, 2), NIL, NIL);
  kn_attrs_narrow two = {.dim = 0, .start = 1, .length = 2};
  GIVES(RUN(narrow, &two, F(DIMS(3), 1, 2, 3), NIL, NIL), KN_F32, DIMS(2), LIST(2, 3));
  REFUSE(KN_INDEX, "narrow: 2 elements from 2 on do not lie in dim 1 (got float32[2])", narrow, &two,
         F(DIMS(2), 1, 2), NIL, NIL);
  suite_done(c);
}

START_TEST(shapes) {
  kn_context *c = suite_context();
  kn_attrs_sizes bad = {.sizes = DIMS(4, -1)}, two = {.sizes = DIMS(-1, -1)}, none = {.sizes = DIMS(0, -1)},
                 wide = {.sizes = DIMS(2, 3)}, huge = {.sizes = DIMS(INT64_C(1) << 40, INT64_C(1) << 40)};
  REFUSE(KN_SHAPE, "reshape: 6 elements do not divide into rows of 4 (got float32[6])", reshape, &bad,
         F(DIMS(6), 1, 2, 3, 4, 5, 6), NIL, NIL);
  REFUSE(KN_ARG, "reshape: only one size may be -1", reshape, &two, F(DIMS(1), 1), NIL, NIL);
  REFUSE(KN_SHAPE, "reshape: -1 can be anything beside a size of 0", reshape, &none, F(DIMS(0)), NIL, NIL);
  REFUSE(KN_SHAPE, "expand: dim 2 of size 2 cannot become 3", expand, &wide, F(DIMS(1, 2), 1, 2), NIL, NIL);
  REFUSE(KN_SHAPE, "expand: the result float32[1099511627776,1099511627776] is too large", expand, &huge,
         F(SCALAR, 1), NIL, NIL);
  REFUSE(KN_SHAPE, "reshape_as: 2 elements do not fit a shape of 3", reshape_as, NIL, F(DIMS(2), 1, 2),
         F(DIMS(3), 1, 2, 3), NIL);
  kn_attrs_axes repeat = {.dims = DIMS(0, 0)}, few = {.dims = DIMS(0)};
  REFUSE(KN_ARG, "permute: dim 1 is named twice", permute, &repeat, F(DIMS(1, 1), 1), NIL, NIL);
  REFUSE(KN_ARG, "permute: 1 dims are named, not all 2", permute, &few, F(DIMS(1, 1), 1), NIL, NIL);
  kn_attrs_axis last = {.dim = -1};
  GIVES(RUN(unsqueeze, &last, F(DIMS(2), 1, 2), NIL, NIL), KN_F32, DIMS(2, 1), LIST(1, 2));
  REFUSE(KN_SHAPE, "unsqueeze: the result would have more than 8 dims", unsqueeze, &last,
         F(DIMS(1, 1, 1, 1, 1, 1, 1, 1), 1), NIL, NIL);
  suite_done(c);
}

/* ---- joining and indexing ---- */

START_TEST(joining) {
  kn_context *c = suite_context();
  kn_attrs_axis_first first = {.dim = 0}, last = {.dim = -1};
  GIVES(RUN(cat, &last, I(DIMS(2, 1), 1, 2), F(DIMS(2, 2), 3, 4, 5, 6), NIL), KN_F32, DIMS(2, 3),
        LIST(1, 3, 4, 2, 5, 6));
  GIVES(RUN(stack, &last, F(DIMS(2), 1, 2), F(DIMS(2), 3, 4), NIL), KN_F32, DIMS(2, 2), LIST(1, 3, 2, 4));
  REFUSE(KN_SHAPE, "cat: tensors 1 and 2 differ in dim 2: 1 and 2 (got float32[1,1], float32[1,2])", cat,
         &first, F(DIMS(1, 1), 1), F(DIMS(1, 2), 1, 2), NIL);
  REFUSE(KN_SHAPE, "stack: tensors 1 and 2 differ in shape", stack, &first, F(DIMS(1), 1), F(DIMS(2), 1, 2),
         NIL);
  REFUSE(KN_SHAPE, "cat: 0-d tensors have no dim to join along", cat, &first, F(SCALAR, 1), NIL, NIL);
  REFUSE(KN_ARG, "cat: takes 1 to 64 tensors, got 0", cat, &first, NIL, NIL, NIL);
  suite_done(c);
}

START_TEST(indexing) {
  kn_context *c = suite_context();
  kn_attrs_axis first = {.dim = 0}, second = {.dim = 1};
  GIVES(RUN(gather, &second, F(DIMS(2, 2), 1, 2, 3, 4), I(DIMS(2, 3), 1, 1, 2, 2, 2, 1), NIL), KN_F32,
        DIMS(2, 3), LIST(1, 1, 2, 4, 4, 3));
  GIVES(RUN(scatter_add, &second, F(DIMS(1, 3), 1, 1, 1), I(DIMS(1, 2), 3, 3), F(DIMS(1, 2), 5, 6)), KN_F32,
        DIMS(1, 3), LIST(1, 1, 12));
  GIVES(RUN(index_select, &first, F(DIMS(3, 2), 1, 2, 3, 4, 5, 6), I(DIMS(2), 3, 1), NIL), KN_F32, DIMS(2, 2),
        LIST(5, 6, 1, 2));
  GIVES(
      RUN(index_add, &first, I(DIMS(2, 2), 1, 1, 1, 1), I(DIMS(3), 2, 2, 1), I(DIMS(3, 2), 1, 2, 3, 4, 5, 6)),
      KN_I64, DIMS(2, 2), LIST(6, 7, 5, 7));
  GIVES(RUN(index_copy, &first, F(DIMS(3), 0, 0, 0), I(DIMS(3), 3, 1, 3), F(DIMS(3), 7, 8, 9)), KN_F32,
        DIMS(3), LIST(8, 0, 9)); /* the last of two wins */
  GIVES(RUN1(nonzero, F(DIMS(2, 2), 0, 1, NAN, 0)), KN_I64, DIMS(2, 2), LIST(1, 2, 2, 1));
  GIVES(RUN1(nonzero, F(DIMS(2), 0, 0)), KN_I64, DIMS(0, 1), NULL);
  GIVES(RUN1(nonzero, F(SCALAR, 3)), KN_I64, DIMS(1, 0), NULL);
  REFUSE(KN_INDEX, "gather: index 0 is out of range for dim 1 of size 2 (indices start at 1)", gather, &first,
         F(DIMS(2), 1, 2), I(DIMS(1), 0), NIL);
  REFUSE(KN_INDEX, "index_select: index 4 is out of range for dim 2 of size 3", index_select, &second,
         F(DIMS(1, 3), 1, 2, 3), I(DIMS(2), 3, 4), NIL);
  REFUSE(KN_INDEX, "index_add: index -1 is out of range", index_add, &first, F(DIMS(2), 1, 2), I(DIMS(1), -1),
         F(DIMS(1), 1));
  REFUSE(KN_INDEX, "index_copy: index 3 is out of range", index_copy, &first, F(DIMS(2), 1, 2), I(DIMS(1), 3),
         F(DIMS(1), 1));
  REFUSE(KN_INDEX, "scatter_add: index 3 is out of range", scatter_add, &first, F(DIMS(2), 1, 2),
         I(DIMS(1), 3), F(DIMS(1), 1));
  REFUSE(KN_DTYPE, "gather: the index (input 2) must be int64 or int32, not float32", gather, &first,
         F(DIMS(2), 1, 2), F(DIMS(1), 1), NIL);
  REFUSE(KN_SHAPE, "index_select: the index (input 2) must have one dim", index_select, &first,
         F(DIMS(2), 1, 2), I(DIMS(1, 1), 1), NIL);
  REFUSE(KN_SHAPE, "gather: input 2 is larger than input 1 in dim 2", gather, &first, F(DIMS(1, 1), 1),
         I(DIMS(1, 2), 1, 1), NIL);
  REFUSE(KN_SHAPE, "index_copy: src (input 3) must have the shape", index_copy, &first,
         F(DIMS(2, 2), 1, 2, 3, 4), I(DIMS(1), 1), F(DIMS(2, 2), 1, 2, 3, 4));
  suite_done(c);
}

/* ---- creation and random ---- */

START_TEST(creation) {
  kn_context *c = suite_context();
#define NEW(op, kind, ...) RUN(op, (&(kn_attrs_##kind){__VA_ARGS__}), NIL, NIL, NIL)
#define NOT_NEW(status, text, op, kind, ...)                                                                 \
  REFUSE(status, text, op, (&(kn_attrs_##kind){__VA_ARGS__}), NIL, NIL, NIL)
  GIVES(NEW(arange, range, .end = 3, .step = 1, .dtype = KN_I64), KN_I64, DIMS(3), LIST(0, 1, 2));
  GIVES(NEW(arange, range, .start = 1, .end = 2, .step = 0.3, .dtype = KN_F64), KN_F64, DIMS(4),
        LIST(1, 1.3, 1.6, 1.9));
  GIVES(NEW(arange, range, .start = 3, .end = 3, .step = 1, .dtype = KN_I64), KN_I64, DIMS(0), NULL);
  GIVES(NEW(linspace, linspace, .start = 0, .end = 1, .steps = 3, .dtype = KN_F32), KN_F32, DIMS(3),
        LIST(0, 0.5, 1));
  GIVES(NEW(linspace, linspace, .start = 2, .end = 1, .steps = 1, .dtype = KN_F32), KN_F32, DIMS(1), LIST(2));
  GIVES(NEW(eye, eye, .n = 2, .m = 3, .dtype = KN_F32), KN_F32, DIMS(2, 3), LIST(1, 0, 0, 0, 1, 0));
  GIVES(NEW(full, fill, .sizes = DIMS(2), .value = 2.7, .dtype = KN_I64), KN_I64, DIMS(2), LIST(2, 2));
  GIVES(NEW(full, fill, .sizes = DIMS(2), .value = NAN, .dtype = KN_BOOL), KN_BOOL, DIMS(2), LIST(1, 1));
  NOT_NEW(KN_ARG, "arange: the step must not be 0", arange, range, .end = 3, .dtype = KN_I64);
  NOT_NEW(KN_ARG, "arange: a step of -1 does not lead from 0 to 3", arange, range, .end = 3, .step = -1,
          .dtype = KN_I64);
  NOT_NEW(KN_SHAPE, "too many elements", arange, range, .end = 1e300, .step = 1, .dtype = KN_I64);
  NOT_NEW(KN_ARG, "full: size -2 is negative", full, fill, .sizes = DIMS(-2), .dtype = KN_F32);
  NOT_NEW(KN_DTYPE, "rand: a floating dtype is needed, not int64", rand, create, .sizes = DIMS(2),
          .dtype = KN_I64);
  NOT_NEW(KN_ARG, "randint: there is no whole number in [3, 3)", randint, randint, .low = 3, .high = 3,
          .dtype = KN_I64);
  suite_done(c);
}

static kn_tensor *draw(kn_context *c, kn_op op, int64_t n, int threads) {
  kn_attrs_any a = {.create = {.sizes = DIMS(n), .dtype = KN_F32}};
  if (op == KN_OP_randint)
    a.randint = (kn_attrs_randint){.low = -2, .high = 3, .sizes = DIMS(n), .dtype = KN_I64};
  if (op == KN_OP_randperm) a.randperm = (kn_attrs_randperm){.n = n};
  kn_random_seed(&c->random, 12345);
  c->threads = threads;
  return run(c, op, &a, NULL, NULL, NULL);
}

START_TEST(random_draws) {
  kn_context *c = suite_context();
  static const kn_op ops[] = {KN_OP_rand, KN_OP_randn, KN_OP_randint, KN_OP_randperm};
  for (int i = 0; i < 4; i++) {
    enum { N = 100001 };
    kn_tensor *one = draw(c, ops[i], N, 1), *many = draw(c, ops[i], N, 5), *part = draw(c, ops[i], 100, 1);
    double sum = 0, squares = 0, low = 1e9, high = -1e9;
    for (int64_t k = 0; k < N; k++) {
      double x = element(one, k);
      ck_assert(x == element(many, k));
      if (k < 100 && ops[i] != KN_OP_randperm)
        ck_assert(x == element(part, k)); /* value i depends on i alone */
      sum += x, squares += x * x;
      low = fmin(low, x), high = fmax(high, x);
    }
    double mean = sum / N, variance = squares / N - mean * mean;
    if (ops[i] == KN_OP_rand)
      ck_assert(low >= 0 && high < 1 && near(mean, 0.5, 0.01) && near(variance, 1. / 12, 0.01));
    if (ops[i] == KN_OP_randn)
      ck_assert(near(mean, 0, 0.02) && near(variance, 1, 0.02) && high > 3.5 && high < 7);
    if (ops[i] == KN_OP_randint) ck_assert(low == -2 && high == 2 && near(mean, 0, 0.02));
    if (ops[i] == KN_OP_randperm) ck_assert(low == 1 && high == N && sum == (double)N * (N + 1) / 2);
    kn_tensor_release(one), kn_tensor_release(many), kn_tensor_release(part);
  }
  kn_random_seed(&c->random, 1);
  kn_attrs_create a = {.sizes = DIMS(5), .dtype = KN_F32};
  kn_tensor *first = RUN(rand, &a, NIL, NIL, NIL), *second = RUN(rand, &a, NIL, NIL, NIL);
  ck_assert_uint_eq(c->random.offset, 4); /* two draws of five words */
  ck_assert(element(first, 0) != element(second, 0));
  uint32_t w[4];
  kn_philox(1, 3, w);
  ck_assert(element(second, 4) == (double)kn_uniform_f32(w[0]));
  kn_tensor_release(first), kn_tensor_release(second);
  GIVES(RUN1(bernoulli, D(DIMS(4), 0, 1, 0, 1)), KN_F64, DIMS(4), LIST(0, 1, 0, 1));
  suite_done(c);
}

SUITE("values", arithmetic, integers_wrap, division_by_zero, promotion, broadcasting_spelled_out, functions,
      elementwise_refusals, reductions, sums_are_accurate, softmaxes, products, large_product, convolutions,
      convolution_spelled_out, pooling, views_share, reshape_without_copy, slices, shapes, joining, indexing,
      creation, random_draws)
