/* Linear algebra: that factors multiply to what they are of, gradients of every result of the ops that have
 * several, sizes at which loops change (blocks, threads), what is singular, and what is refused. Values
 * against PyTorch are in golden/ops.txt; each row's first result is in the gradient sweep. */
#include "core/expr.h"
#include "core/grad/gradcheck.h"
#include "core/grad/tape.h"
#include "spec/tensors.h"

/* Uneven numbers in [-1, 1]. */
static kn_tensor *matrix(kn_context *c, kn_dtype dtype, kn_ints dims, uint64_t seed) {
  kn_type type = type_of(dtype, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) {
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    set_element(t, k, (double)(seed >> 33) * 0x1p-30 - 1);
  }
  return t;
}

static kn_tensor *turned(kn_scope *s, kn_tensor *t) { return kx_transpose(s, t, -2, -1); }

static void check_near(kn_scope *s, kn_tensor *a, kn_tensor *b, double tolerance, const char *what,
                       int64_t n) {
  ck_assert_msg(s->status == KN_OK, "%s: %s", what, kn_error(s->ctx));
  kn_tensor *e = kx_abs(s, kx_sub(s, a, b));
  ck_assert_msg(e != NULL, "%s: %s", what, kn_error(s->ctx));
  for (int64_t k = 0; k < kn_tensor_numel(e); k++)
    ck_assert_msg(element(e, k) <= tolerance, "%s of %lld: element %lld is off by %g", what, (long long)n,
                  (long long)k + 1, element(e, k));
}

static kn_tensor *identity(kn_scope *s, kn_dtype dtype, int64_t n) {
  kn_attrs_eye at = {.n = n, .m = KN_NONE, .dtype = dtype};
  return kx_apply(s, KN_OP_eye, &at, NULL, 0);
}

/* ---- factors multiply to what they are of ---- */

static void check_factors(kn_dtype dtype, int64_t batch, int64_t n) {
  kn_context *c = suite_context();
  kn_scope s;
  kn_scope_open(&s, c);
  double tolerance = (dtype == KN_F64 ? 2e-13 : 1e-4) * (double)(n + 1);
  kn_tensor *x = kx_own(&s, matrix(c, dtype, DIMS(batch, n, n), (uint64_t)n)), *all[3],
            *one = identity(&s, dtype, n);
  kn_tensor *a = kx_add(&s, x, kx_mul(&s, one, kx_number(&s, 2 + (double)n / 4, x)));
  kn_tensor *spd = kx_add(&s, kx_matmul(&s, x, turned(&s, x)), one);
  check_near(&s, kx_matmul(&s, a, kx_apply(&s, KN_OP_inv, NULL, &a, 1)), kx_expand_as(&s, one, a), tolerance,
             "inv", n);
  for (int left = 0; left < 2; left++) {
    kn_attrs_solve at = {.left = left};
    kn_tensor *y = kx_apply(&s, KN_OP_solve, &at, (kn_tensor *[]){a, x}, 2);
    check_near(&s, left ? kx_matmul(&s, a, y) : kx_matmul(&s, y, a), x, tolerance, "solve", n);
  }
  for (int upper = 0; upper < 2; upper++) {
    kn_attrs_cholesky at = {.upper = upper};
    kn_tensor *l = kx_apply(&s, KN_OP_cholesky, &at, &spd, 1);
    check_near(&s, upper ? kx_matmul(&s, turned(&s, l), l) : kx_matmul(&s, l, turned(&s, l)), spd, tolerance,
               "cholesky", n);
    for (int left = 0; left < 2; left++) {
      kn_attrs_solve_triangular by = {.upper = upper, .left = left};
      kn_tensor *y = kx_apply(&s, KN_OP_solve_triangular, &by, (kn_tensor *[]){l, x}, 2);
      check_near(&s, left ? kx_matmul(&s, l, y) : kx_matmul(&s, y, l), x, 20 * tolerance, "solve_triangular",
                 n);
    }
  }
  kn_attrs_eigh low = {.UPLO = KN_CHOICE_triangle_L};
  kx_apply_all(&s, KN_OP_eigh, &low, &spd, 1, all);
  kn_tensor *scaled = kx_mul(&s, all[1], kx_axis(&s, KN_OP_unsqueeze, all[0], -2));
  check_near(&s, kx_matmul(&s, scaled, turned(&s, all[1])), spd, 10 * tolerance, "eigh", n);
  check_near(&s, kx_matmul(&s, turned(&s, all[1]), all[1]), kx_expand_as(&s, one, a), tolerance,
             "eigh vectors", n);
  for (int64_t k = 1; k < kn_tensor_numel(all[0]); k++)
    ck_assert(k % n == 0 || element(all[0], k) >= element(all[0], k - 1));
  kn_scope_close(&s, NULL, NULL);
  suite_done(c);
}

static void check_rectangle(kn_dtype dtype, int64_t m, int64_t n) {
  kn_context *c = suite_context();
  kn_scope s;
  kn_scope_open(&s, c);
  double tolerance = (dtype == KN_F64 ? 1e-13 : 5e-5) * (double)(m + n);
  kn_tensor *x = kx_own(&s, matrix(c, dtype, DIMS(2, m, n), (uint64_t)(m + n))), *all[3];
  for (int full = 0; full < 2; full++) {
    kn_attrs_qr mode = {.mode = full};
    kn_attrs_svd how = {.full_matrices = full};
    kx_apply_all(&s, KN_OP_qr, &mode, &x, 1, all);
    check_near(&s, kx_matmul(&s, all[0], all[1]), x, tolerance, "qr", m);
    kn_tensor *q = kx_matmul(&s, turned(&s, all[0]), all[0]);
    check_near(&s, q, kx_expand_as(&s, identity(&s, dtype, q->type.dims[2]), q), tolerance, "q", m);
    kx_apply_all(&s, KN_OP_svd, &how, &x, 1, all);
    kn_tensor *u = kx_matmul(&s, turned(&s, all[0]), all[0]), *v = kx_matmul(&s, all[2], turned(&s, all[2]));
    check_near(&s, u, kx_expand_as(&s, identity(&s, dtype, u->type.dims[2]), u), tolerance, "u", m);
    check_near(&s, v, kx_expand_as(&s, identity(&s, dtype, v->type.dims[2]), v), tolerance, "v", m);
    if (full) continue;
    kn_tensor *us = kx_mul(&s, all[0], kx_axis(&s, KN_OP_unsqueeze, all[1], -2));
    check_near(&s, kx_matmul(&s, us, all[2]), x, tolerance, "svd", m);
    for (int64_t k = 1, each = all[1]->type.dims[1]; k < kn_tensor_numel(all[1]); k++)
      ck_assert(k % each == 0 || element(all[1], k) <= element(all[1], k - 1));
  }
  kn_attrs_tolerance none = {.rtol = -1, .atol = -1};
  kn_tensor *p = kx_apply(&s, KN_OP_pinv, &none, &x, 1);
  check_near(&s, kx_matmul(&s, kx_matmul(&s, x, p), x), x, 10 * tolerance, "pinv", m);
  kn_scope_close(&s, NULL, NULL);
  suite_done(c);
}

START_TEST(factors) {
  static const int64_t sizes[] = {1, 2, 3, 7, 31, 32, 33, 70};
  for (int i = 0; i < 8; i++) {
    check_factors(KN_F64, 3, sizes[i]);
    check_factors(KN_F32, 2, sizes[i]);
  }
  check_factors(KN_F64, 200, 4); /* many small ones: on several threads */
  static const int64_t shapes[][2] = {{1, 4},   {4, 1},  {5, 3},  {3, 5}, {40, 33},
                                      {33, 40}, {65, 2}, {2, 65}, {6, 6}};
  for (int i = 0; i < 9; i++) {
    check_rectangle(KN_F64, shapes[i][0], shapes[i][1]);
    check_rectangle(KN_F32, shapes[i][0], shapes[i][1]);
  }
}
END_TEST

/* ---- gradients of all results ---- */

typedef struct several {
  kn_op op;
  kn_attrs_any attrs;
  kn_ints dims;
  bool symmetric;
  int which; /* the result that is looked at */
} several;

static kn_status one_result(kn_context *ctx, void *ud, kn_tensor *const *in, int n, kn_tensor **out) {
  const several *w = ud;
  kn_scope s;
  kn_tensor *x = in[0], *all[KN_MAX_OUTPUTS];
  (void)n;
  kn_scope_open(&s, ctx);
  if (w->symmetric) x = kx_add(&s, x, turned(&s, x));
  kx_apply_all(&s, w->op, &w->attrs, &x, 1, all);
  return kn_scope_close(&s, all[w->which], out);
}

/* The gradient of sum(sin(result) * weights), as a function. */
static kn_status gradient_of(kn_context *ctx, void *ud, kn_tensor *const *in, int n, kn_tensor **out) {
  kn_tensor *y, *g = NULL;
  kn_scope s;
  bool mode = ctx->grad_enabled;
  ctx->grad_enabled = true;
  kn_scope_open(&s, ctx);
  kn_status st = one_result(ctx, ud, in, n, &y);
  if (st == KN_OK) {
    kx_own(&s, y);
    kn_tensor *z =
        kx_sum(&s, kx_apply(&s, KN_OP_sin, NULL, (kn_tensor *[]){kx_mul(&s, y, y)}, 1), &(kn_ints){0}, false);
    z = kx_add(&s, z,
               kx_sum(&s,
                      kx_mul(&s, kx_own(&s, matrix(ctx, KN_F64, DIMS(kn_tensor_numel(y)), 5)),
                             kx_apply(&s, KN_OP_reshape, &(kn_attrs_sizes){.sizes = {1, {-1}}}, &y, 1)),
                      &(kn_ints){0}, false));
    st = s.status == KN_OK ? kn_gradients(ctx, &z, 1, NULL, (kn_tensor **)(uintptr_t)in, 1, true, &g)
                           : s.status;
  }
  if (st == KN_OK) *out = g;
  kn_scope_close(&s, NULL, NULL);
  ctx->grad_enabled = mode;
  return st;
}

START_TEST(gradients_of_all_results) {
  static const several cases[] = {
      {KN_OP_qr, {.qr = {0}}, {2, {3, 3}}, false, 1},
      {KN_OP_qr, {.qr = {0}}, {2, {4, 2}}, false, 0},
      {KN_OP_qr, {.qr = {0}}, {2, {4, 2}}, false, 1},
      {KN_OP_qr, {.qr = {0}}, {3, {2, 2, 4}}, false, 0},
      {KN_OP_qr, {.qr = {0}}, {2, {2, 4}}, false, 1},
      {KN_OP_svd, {.svd = {.full_matrices = false}}, {2, {4, 3}}, false, 0},
      {KN_OP_svd, {.svd = {.full_matrices = false}}, {2, {4, 3}}, false, 1},
      {KN_OP_svd, {.svd = {.full_matrices = false}}, {2, {4, 3}}, false, 2},
      {KN_OP_svd, {.svd = {.full_matrices = false}}, {3, {2, 2, 4}}, false, 0},
      {KN_OP_svd, {.svd = {.full_matrices = false}}, {2, {3, 4}}, false, 2},
      {KN_OP_svd, {.svd = {.full_matrices = true}}, {2, {3, 3}}, false, 2},
      {KN_OP_svd, {.svd = {.full_matrices = true}}, {2, {4, 2}}, false, 1},
      {KN_OP_svd, {.svd = {.full_matrices = true}}, {2, {4, 2}}, false, 2},
      {KN_OP_eigh, {.eigh = {0}}, {2, {4, 4}}, true, 0},
      {KN_OP_eigh, {.eigh = {0}}, {2, {4, 4}}, true, 1},
      {KN_OP_eigh, {.eigh = {.UPLO = KN_CHOICE_triangle_U}}, {3, {2, 3, 3}}, true, 1},
      {KN_OP_slogdet, {.none = {0}}, {3, {2, 3, 3}}, false, 1},
      {KN_OP_det, {.none = {0}}, {2, {4, 4}}, false, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    kn_context *c = suite_context();
    several w = cases[i];
    kn_tensor *x = matrix(c, KN_F64, w.dims, 11 + i);
    OK(c, kn_set_requires_grad(c, x, true));
    kn_status st = kn_gradcheck(c, one_result, &w, &x, 1, 1e-6, 1e-5, 1e-5);
    ck_assert_msg(st == KN_OK, "%s, case %d: %s", kn_op_name(w.op), (int)i, kn_error(c));
    st = kn_gradcheck(c, gradient_of, &w, &x, 1, 1e-6, 1e-4, 1e-4);
    ck_assert_msg(st == KN_OK, "%s, case %d, second order: %s", kn_op_name(w.op), (int)i, kn_error(c));
    kn_tensor_release(x);
    suite_done(c);
  }
}
END_TEST

/* ---- singular, and not quite a matrix ---- */

static kn_tensor *apply1(kn_context *c, kn_op op, const void *attrs, kn_tensor *x) {
  kn_tensor *out[KN_MAX_OUTPUTS];
  OK(c, kn_apply(c, op, attrs, &x, 1, out));
  for (int i = 1; i < kn_ops[op].outs; i++) kn_tensor_release(out[i]);
  kn_tensor_release(x);
  return out[0];
}

#define GIVES(value, dims, ...)                                                                              \
  do {                                                                                                       \
    kn_tensor *gives_ = (value);                                                                             \
    expect_near(gives_, KN_F64, dims, __VA_ARGS__, 1e-12);                                                   \
    kn_tensor_release(gives_);                                                                               \
  } while (0)
#define D(dims, ...) make(c, KN_F64, dims, LIST(__VA_ARGS__))

START_TEST(singular) {
  kn_context *c = suite_context();
  kn_attrs_tolerance none = {.rtol = -1, .atol = -1};
  GIVES(apply1(c, KN_OP_det, NULL, D(DIMS(2, 2), 1, 2, 2, 4)), SCALAR, LIST(0));
  GIVES(apply1(c, KN_OP_cofactor, NULL, D(DIMS(2, 2), 1, 2, 2, 4)), DIMS(2, 2), LIST(4, -2, -2, 1));
  GIVES(apply1(c, KN_OP_cofactor, NULL, D(DIMS(2, 2), 1, 2, 3, 4)), DIMS(2, 2), LIST(4, -3, -2, 1));
  GIVES(apply1(c, KN_OP_cofactor, NULL, D(DIMS(3, 3), 1, 0, 0, 0, 0, 0, 0, 0, -2)), DIMS(3, 3),
        LIST(0, 0, 0, 0, -2, 0, 0, 0, 0));
  GIVES(apply1(c, KN_OP_slogdet, NULL, D(DIMS(2, 2), 1, 2, 2, 4)), SCALAR, LIST(0));
  GIVES(apply1(c, KN_OP_pinv, &none, D(DIMS(2, 2), 1, 1, 1, 1)), DIMS(2, 2), LIST(0.25, 0.25, 0.25, 0.25));
  GIVES(apply1(c, KN_OP_det, NULL, make(c, KN_F64, DIMS(2, 0, 0), NULL)), DIMS(2), LIST(1, 1));
  GIVES(apply1(c, KN_OP_svdvals, NULL, D(DIMS(2, 2), 1e300, 0, 0, 1e300)), DIMS(2), LIST(1e300, 1e300));
  GIVES(apply1(c, KN_OP_svdvals, NULL, D(DIMS(2, 3), 0, 0, 0, 0, 0, 0)), DIMS(2), LIST(0, 0));
  suite_done(c);
}
END_TEST

static kn_status refuse(kn_context *c, kn_op op, const void *attrs, kn_tensor *a, kn_tensor *b) {
  kn_tensor *in[] = {a, b}, *out[KN_MAX_OUTPUTS];
  kn_status st = kn_apply(c, op, attrs, in, b ? 2 : 1, out);
  for (int i = 0; st == KN_OK && i < kn_ops[op].outs; i++) kn_tensor_release(out[i]);
  kn_tensor_release(a), kn_tensor_release(b);
  return st;
}

START_TEST(refusals) {
  kn_context *c = suite_context();
  kn_attrs_solve left = {.left = true}, right = {.left = false};
  kn_attrs_solve_triangular upper = {.upper = true, .left = true};
  kn_attrs_cholesky low = {.upper = false};
  kn_attrs_svd full = {.full_matrices = true};
  kn_attrs_eigh lower = {.UPLO = 0};
  kn_attrs_matrix_power power = {.n = -1};
  kn_attrs_last_axis last = {.dim = -1};
#define NO(status, text, op, attrs, a, b) FAILS(c, status, text, refuse(c, KN_OP_##op, attrs, a, b))
  NO(KN_ARG, "inv: the matrix is singular: pivot 2 is 0", inv, NULL, D(DIMS(2, 2), 1, 2, 2, 4), NULL);
  NO(KN_ARG, "inv: the matrix is singular: pivot 1 is 0 (matrix 2 of 2)", inv, NULL, D(DIMS(2, 1, 1), 1, 0),
     NULL);
  NO(KN_ARG, "solve: the matrix is singular: pivot 2 is 0", solve, &left, D(DIMS(2, 2), 1, 1, 1, 1),
     D(DIMS(2), 1, 1));
  NO(KN_ARG, "not positive definite: its leading minor of order 2 is not positive", cholesky, &low,
     D(DIMS(2, 2), 1, 2, 2, 1), NULL);
  NO(KN_ARG, "of order 1 is not positive (matrix 2 of 2)", cholesky, &low, D(DIMS(2, 1, 1), 1, NAN), NULL);
  NO(KN_ARG, "svd: matrix 1 of 1 has elements that are not finite", svd, &full, D(DIMS(1, 2), 1, INFINITY),
     NULL);
  NO(KN_ARG, "eigh: matrix 2 of 2 has elements that are not finite", eigh, &lower, D(DIMS(2, 1, 1), 1, NAN),
     NULL);
  NO(KN_SHAPE, "inv: square matrices are needed, not 1 by 2 (got float64[1,2])", inv, NULL,
     D(DIMS(1, 2), 1, 2), NULL);
  NO(KN_SHAPE, "det: input 1 must have at least two dims", det, NULL, D(DIMS(2), 1, 2), NULL);
  NO(KN_DTYPE, "inv: float32 or float64 is needed, not int64", inv, NULL,
     make(c, KN_I64, DIMS(1, 1), LIST(1)), NULL);
  NO(KN_DTYPE, "qr: float32 or float64 is needed, not bfloat16", qr, &(kn_attrs_qr){0},
     make(c, KN_BF16, DIMS(1, 1), LIST(1)), NULL);
  NO(KN_DTYPE, "solve: inputs 1 and 2 must have one dtype", solve, &left, D(DIMS(1, 1), 1),
     make(c, KN_F32, DIMS(1), LIST(1)));
  NO(KN_SHAPE, "solve: the matrices have 2 rows, the right side has 3 elements", solve, &left,
     D(DIMS(2, 2), 1, 0, 0, 1), D(DIMS(3), 1, 2, 3));
  NO(KN_SHAPE, "solve: the matrices have 2 rows, the right side has 1 columns", solve, &right,
     D(DIMS(2, 2), 1, 0, 0, 1), D(DIMS(2, 1), 1, 2));
  NO(KN_ARG, "with left = false the right side must be a matrix", solve, &right, D(DIMS(1, 1), 1),
     D(DIMS(1), 1));
  NO(KN_SHAPE, "solve_triangular: batch sizes 2 and 3 do not broadcast", solve_triangular, &upper,
     D(DIMS(2, 1, 1), 1, 1), D(DIMS(3, 1, 1), 1, 1, 1));
  NO(KN_SHAPE, "matrix_power: square matrices are needed", matrix_power, &power, D(DIMS(1, 2), 1, 1), NULL);
  NO(KN_ARG, "matrix_power: inv: the matrix is singular", matrix_power, &power, D(DIMS(1, 1), 0), NULL);
  NO(KN_SHAPE, "trace: a matrix is needed", trace, NULL, D(DIMS(2), 1, 1), NULL);
  NO(KN_SHAPE, "cross: vectors of 3 elements along dim are needed", cross, &last, D(DIMS(2), 1, 1),
     D(DIMS(2), 1, 1));
  suite_done(c);
}
END_TEST

/* A tall Q beyond its columns is anything: no gradient. */
START_TEST(complete_tall_qr_has_no_gradient) {
  kn_context *c = suite_context();
  kn_attrs_qr mode = {.mode = KN_CHOICE_qr_mode_complete};
  kn_tensor *x = D(DIMS(2, 1), 1, 2), *out[2], *w = D(DIMS(2, 2), 1, 1, 1, 1), *g;
  OK(c, kn_set_requires_grad(c, x, true));
  OK(c, kn_apply(c, KN_OP_qr, &mode, &x, 1, out));
  FAILS(c, KN_UNSUPPORTED, "backward of qr: mode 'complete' has a gradient only when",
        kn_gradients(c, out, 1, &w, &x, 1, false, &g));
  kn_tensor_release(x), kn_tensor_release(w), kn_tensor_release(out[0]), kn_tensor_release(out[1]);
  suite_done(c);
}
END_TEST

SUITE("linalg", factors, gradients_of_all_results, singular, refusals, complete_tall_qr_has_no_gradient)
