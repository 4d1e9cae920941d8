/* The tape: accumulation, rules for leaves and writes, gradients of gradients, long chains, failures. That
 * every row's gradient is right is shown by test_grad_sweep.c. */
#include "spec/suite.h"
#include "core/expr.h"
#include "core/grad/tape.h"

/* ---- making and looking ---- */

static kn_tensor *make(kn_context *c, const kn_type *type, const double *values, bool requires_grad) {
  kn_tensor *t;
  OK(c, kn_tensor_new(c, type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) {
    if (type->dtype == KN_F64)
      ((double *)kn_tensor_data(t))[k] = values[k];
    else if (type->dtype == KN_F32)
      ((float *)kn_tensor_data(t))[k] = (float)values[k];
    else
      ((int64_t *)kn_tensor_data(t))[k] = (int64_t)values[k];
  }
  if (requires_grad) OK(c, kn_set_requires_grad(c, t, true));
  return t;
}

static kn_tensor *vec(kn_context *c, int64_t n, const double *values, bool requires_grad) {
  return make(c, &(kn_type){.dtype = KN_F64, .rank = 1, .dims = {n}}, values, requires_grad);
}

#define VEC(c, grad, ...)                                                                                    \
  vec(c, sizeof((double[]){__VA_ARGS__}) / sizeof(double), (double[]){__VA_ARGS__}, grad)

static kn_tensor *number(kn_context *c, double v, bool grad) {
  return make(c, &(kn_type){.dtype = KN_F64}, &v, grad);
}

static double at(const kn_tensor *t, int64_t k) {
  ck_assert_ptr_nonnull(t);
  ck_assert_int_eq(t->type.dtype, KN_F64);
  int64_t step = t->type.rank ? t->strides[0] : 0;
  return ((double *)kn_tensor_data(t))[k * step];
}

#define NEAR(got, want) ck_assert_double_eq_tol(got, want, 1e-12)
#define GRAD_IS(t, ...)                                                                                      \
  do {                                                                                                       \
    const double want_[] = {__VA_ARGS__};                                                                    \
    ck_assert_ptr_nonnull(kn_grad_of(t));                                                                    \
    for (size_t k_ = 0; k_ < sizeof want_ / sizeof *want_; k_++)                                             \
      NEAR(at(kn_grad_of(t), (int64_t)k_), want_[k_]);                                                       \
  } while (0)

static void done(kn_scope *s) { OK(s->ctx, kn_scope_close(s, NULL, NULL)); }

static kn_tensor *total(kn_scope *s, kn_tensor *t) { return kx_sum(s, t, &(kn_ints){0}, false); }

/* The in-place form; gives the status. */
static kn_status inplace(kn_context *c, kn_op op, kn_tensor *a, kn_tensor *b) {
  kn_tensor *out;
  KN_TRY(kn_apply_inplace(c, op, NULL, (kn_tensor *[]){a, b}, b ? 2 : 1, &out));
  kn_tensor_release(out);
  return KN_OK;
}

/* ---- first order ---- */

START_TEST(accumulates) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2, 3);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = total(&s, kx_mul(&s, x, x));
  OK(c, kn_backward(c, y, NULL, false));
  GRAD_IS(x, 2, 4, 6);
  ck_assert(!kn_requires_grad(kn_grad_of(x)));
  OK(c, kn_backward(c, y, NULL, false)); /* the graph is still there */
  GRAD_IS(x, 4, 8, 12);
  OK(c, kn_set_grad(c, x, NULL));
  ck_assert_ptr_null(kn_grad_of(x));
  OK(c, kn_backward(c, y, NULL, false));
  GRAD_IS(x, 2, 4, 6);
  done(&s);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

START_TEST(diamond) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 2);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = kx_mul(&s, x, x), *left = kx_mul(&s, y, y), *right = kx_mul(&s, y, x);
  OK(c, kn_backward(c, total(&s, kx_add(&s, kx_add(&s, left, right), y)), NULL, false));
  GRAD_IS(x, 4 * 8 + 3 * 4 + 2 * 2); /* x^4 + x^3 + x^2 */
  done(&s);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

/* Gradients are nobody else's: changing one changes neither another nor what was given. */
START_TEST(gradients_are_fresh) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2), *y = VEC(c, true, 3, 4), *g = VEC(c, false, 5, 6);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *z = kx_add(&s, x, y);
  OK(c, kn_backward(c, z, g, false));
  ck_assert_ptr_ne(kn_grad_of(x)->storage, kn_grad_of(y)->storage);
  ck_assert_ptr_ne(kn_grad_of(x)->storage, g->storage);
  ck_assert_ptr_ne(kn_grad_of(y)->storage, g->storage);
  GRAD_IS(x, 5, 6);
  GRAD_IS(y, 5, 6);
  OK(c, kn_set_grad(c, x, NULL));
  OK(c, kn_backward(c, total(&s, x), NULL, false)); /* an expanded one is written out */
  ck_assert(kn_tensor_contiguous(kn_grad_of(x)));
  OK(c, kn_backward(c, x, g, false)); /* a leaf's own */
  GRAD_IS(x, 6, 7);
  kn_tensor *both[2];
  OK(c, kn_gradients(c, &z, 1, &g, (kn_tensor *[]){x, y}, 2, false, both));
  ck_assert_ptr_ne(both[0]->storage, both[1]->storage);
  ck_assert_ptr_ne(both[0]->storage, g->storage);
  for (int i = 0; i < 2; i++) kn_tensor_release(both[i]);
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(y);
  kn_tensor_release(g);
  suite_done(c);
}
END_TEST

START_TEST(some_of_many) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 2), *w = VEC(c, true, 3), *unused = VEC(c, true, 4);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = kx_mul(&s, x, w), *z = kx_mul(&s, y, y), *g[4];
  OK(c, kn_gradients(c, &z, 1, NULL, (kn_tensor *[]){x, y, unused, z}, 4, false, g));
  NEAR(at(g[0], 0), 36);
  NEAR(at(g[1], 0), 12); /* of a result of an op */
  ck_assert_ptr_null(g[2]);
  NEAR(at(g[3], 0), 1);
  ck_assert_ptr_null(kn_grad_of(x)); /* leaves are not touched */
  for (int i = 0; i < 4; i++) kn_tensor_release(g[i]);
  kn_tensor *ys[] = {y, z}, *gs[] = {NULL, y}; /* several results, some with a weight */
  OK(c, kn_gradients(c, ys, 2, gs, &x, 1, false, g));
  NEAR(at(g[0], 0), 3 + 36 * 6);
  kn_tensor_release(g[0]);
  OK(c, kn_gradients(c, &z, 1, NULL, (kn_tensor *[]){x, x}, 2, false, g)); /* asked twice */
  ck_assert_ptr_ne(g[0], g[1]);
  NEAR(at(g[1], 0), 36);
  kn_tensor_release(g[0]);
  kn_tensor_release(g[1]);
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(w);
  kn_tensor_release(unused);
  suite_done(c);
}
END_TEST

START_TEST(grad_mode) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 2);
  kn_scope s;
  kn_scope_open(&s, c);
  c->grad_enabled = false;
  kn_tensor *y = kx_mul(&s, x, x);
  ck_assert(!kn_requires_grad(y) && kn_is_leaf(y));
  FAILS(c, KN_STATE, "float64[1] does not require grad", kn_backward(c, y, NULL, false));
  ck_assert(!c->grad_enabled);
  c->grad_enabled = true;
  kn_tensor *z = kx_mul(&s, x, x), *less = kx_lt(&s, x, z), *whole = kx_floor(&s, x);
  ck_assert(kn_requires_grad(z) && !kn_is_leaf(z) && !strcmp(kn_grad_op(z), "mul"));
  ck_assert(!kn_requires_grad(less) &&
            kn_requires_grad(whole)); /* the gradient of a step is 0, as in PyTorch */
  ck_assert(!kn_requires_grad(kx_cast(&s, z, KN_I64)));
  c->grad_enabled = false; /* the walk needs no grad mode, and puts it back */
  OK(c, kn_backward(c, z, NULL, true));
  ck_assert(!c->grad_enabled);
  c->grad_enabled = true;
  GRAD_IS(x, 4);
  ck_assert(kn_requires_grad(kn_grad_of(x)));
  done(&s);
  OK(c, kn_set_grad(c, x, NULL));
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

START_TEST(dtypes) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2);
  kn_tensor *f = make(c, &(kn_type){.dtype = KN_F32, .rank = 1, .dims = {2}}, (double[]){3, 4}, true);
  kn_tensor *i = make(c, &(kn_type){.dtype = KN_I64, .rank = 1, .dims = {2}}, (double[]){2, 3}, false);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = kx_mul(&s, kx_mul(&s, x, f), kx_pow(&s, x, i));
  ck_assert_int_eq(y->type.dtype, KN_F64);
  OK(c, kn_backward(c, total(&s, y), NULL, false));
  GRAD_IS(x, 3 * 3, 4 * 4 * 8); /* x^(i+1) f */
  ck_assert_int_eq(kn_grad_of(f)->type.dtype, KN_F32);
  ck_assert_float_eq(((float *)kn_tensor_data(kn_grad_of(f)))[1], 16);
  OK(c, kn_set_grad(c, x, NULL));
  OK(c, kn_backward(c, total(&s, kx_cast(&s, kx_mul(&s, x, x), KN_F32)), NULL, false));
  GRAD_IS(x, 2, 4);
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(f);
  kn_tensor_release(i);
  suite_done(c);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(leaf_rules) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2), *plain = VEC(c, false, 1, 2);
  kn_tensor *i = make(c, &(kn_type){.dtype = KN_I64, .rank = 1, .dims = {2}}, (double[]){2, 3}, false);
  kn_tensor *f = make(c, &(kn_type){.dtype = KN_F32, .rank = 1, .dims = {2}}, (double[]){2, 3}, false);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = kx_mul(&s, x, x);
  FAILS(c, KN_STATE, "result of mul", kn_set_requires_grad(c, y, false));
  FAILS(c, KN_DTYPE, "int64", kn_set_requires_grad(c, i, true));
  OK(c, kn_set_requires_grad(c, i, false));
  FAILS(c, KN_SHAPE, "float64[2]", kn_backward(c, y, NULL, false));
  FAILS(c, KN_SHAPE, "a gradient float64[] was given for a tensor float64[2]",
        kn_backward(c, y, total(&s, x), false));
  FAILS(c, KN_DTYPE, "float32[2]", kn_backward(c, y, f, false));
  FAILS(c, KN_STATE, "does not require grad", kn_backward(c, plain, NULL, false));
  kn_tensor *g;
  FAILS(c, KN_STATE, "input 1 does not require grad", kn_gradients(c, &y, 1, &x, &plain, 1, false, &g));
  FAILS(c, KN_ARG, "its own", kn_set_grad(c, x, x));
  FAILS(c, KN_DTYPE, "float32[2]", kn_set_grad(c, x, f));
  FAILS(c, KN_SHAPE, "float64[]", kn_set_grad(c, x, total(&s, x)));
  OK(c, kn_set_grad(c, x, plain));
  ck_assert_ptr_eq(kn_grad_of(x), plain);
  OK(c, kn_set_requires_grad(c, x, false)); /* keeps its gradient, takes no more */
  OK(c, kn_backward(c, y, plain, false));
  ck_assert_ptr_eq(kn_grad_of(x), plain);
  ck_assert(!kn_requires_grad(kx_mul(&s, x, x)));
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(plain);
  kn_tensor_release(i);
  kn_tensor_release(f);
  suite_done(c);
}
END_TEST

/* A value that a rule reads must still be what it was; one that it does not read may change. */
START_TEST(changed_after_saved) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2), *two = VEC(c, false, 2, 2);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *product = total(&s, kx_mul(&s, x, two)), *sum = total(&s, kx_add(&s, x, two));
  kn_tensor *root = kx_exp(&s, x), *result = total(&s, root);
  c->grad_enabled = false;
  OK(c, inplace(c, KN_OP_add, two, two));
  OK(c, inplace(c, KN_OP_add, x, two));
  OK(c, inplace(c, KN_OP_add, root, two));
  c->grad_enabled = true;
  FAILS(c, KN_STATE,
        "backward of mul: input 2 was changed in place by add_ after it was saved for backward; use add,",
        kn_backward(c, product, NULL, false));
  FAILS(c, KN_STATE, "backward of exp: result 1 was changed in place by add_",
        kn_backward(c, result, NULL, false));
  ck_assert_ptr_null(kn_grad_of(x));
  OK(c, kn_backward(c, sum, NULL, false));
  GRAD_IS(x, 1, 1);
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(two);
  suite_done(c);
}
END_TEST

/* All or nothing: one leaf's part is fine, another's fails. */
START_TEST(nothing_half_done) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2), *w = VEC(c, true, 2, 2), *k = VEC(c, false, 1, 1);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = total(&s, kx_add(&s, w, kx_mul(&s, x, k)));
  c->grad_enabled = false;
  OK(c, inplace(c, KN_OP_add, k, k));
  c->grad_enabled = true;
  FAILS(c, KN_STATE, "mul", kn_backward(c, y, NULL, false));
  ck_assert(c->grad_enabled);
  ck_assert_ptr_null(kn_grad_of(x));
  ck_assert_ptr_null(kn_grad_of(w));
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(w);
  kn_tensor_release(k);
  suite_done(c);
}
END_TEST

START_TEST(not_differentiable) {
  kn_context *c = suite_context();
  kn_type steps = {.dtype = KN_F64, .rank = 3, .dims = {2, 1, 1}},
          square = {.dtype = KN_F64, .rank = 2, .dims = {1, 1}};
  kn_tensor *h = make(c, &steps, (double[]){0.5, 0.25}, true), *w = make(c, &square, (double[]){2}, false);
  kn_tensor *g = make(c, &steps, (double[]){1, 1}, false), *gg;
  kn_attrs_rnn_direction a = {.nonlinearity = KN_CHOICE_nonlinearity_tanh};
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *z = total(&s, kx_apply(&s, KN_OP_rnn_layer_grad, &a, (kn_tensor *[]){h, w, g}, 3));
  FAILS(c, KN_UNSUPPORTED, "rnn_layer_grad is not differentiable",
        kn_gradients(c, &z, 1, NULL, &h, 1, false, &gg));
  done(&s);
  kn_tensor_release(h);
  kn_tensor_release(w);
  kn_tensor_release(g);
  suite_done(c);
}
END_TEST

/* ---- writing in place ---- */

START_TEST(writes) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2), *two = VEC(c, false, 2, 2), *into = VEC(c, false, 0, 0), *out;
  kn_scope s;
  kn_scope_open(&s, c);
  FAILS(c, KN_STATE, "add_: a leaf that requires grad is being changed in place; do it under kiln.no_grad",
        inplace(c, KN_OP_add, x, two));
  FAILS(c, KN_STATE, "copy_: a leaf", kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){x, two}, 2, &out));
  NEAR(at(x, 0), 1);
  kn_tensor *y = kx_add(&s, x, two);  /* 3 4 */
  OK(c, inplace(c, KN_OP_add, y, x)); /* 4 6, y = 2 x + 2 */
  OK(c, kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){into, y}, 2, &out));
  kn_tensor_release(out);
  ck_assert(kn_requires_grad(into) && !strcmp(kn_grad_op(into), "copy_"));
  OK(c, kn_backward(c, total(&s, kx_mul(&s, into, into)), NULL, false));
  GRAD_IS(x, 2 * 4 * 2, 2 * 6 * 2);
  done(&s);
  kn_tensor_release(x);
  kn_tensor_release(two);
  kn_tensor_release(into);
  suite_done(c);
}
END_TEST

/* ---- higher orders ---- */

START_TEST(third_order) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 2), *g1, *g2, *g3;
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = kx_mul(&s, x, kx_mul(&s, x, x));
  OK(c, kn_gradients(c, &y, 1, NULL, &x, 1, true, &g1));
  NEAR(at(g1, 0), 12);
  OK(c, kn_gradients(c, &g1, 1, NULL, &x, 1, true, &g2));
  NEAR(at(g2, 0), 12);
  OK(c, kn_gradients(c, &g2, 1, NULL, &x, 1, true, &g3));
  NEAR(at(g3, 0), 6);
  kn_tensor_release(g1);
  kn_tensor_release(g2);
  kn_tensor_release(g3);
  done(&s);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

/* A gradient of something linear depends on the input's sizes only, and so has no history. */
START_TEST(sizes_carry_no_gradient) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 2), *g;
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = total(&s, x);
  OK(c, kn_gradients(c, &y, 1, NULL, &x, 1, true, &g));
  ck_assert(!kn_requires_grad(g));
  kn_tensor_release(g);
  done(&s);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

/* A leaf's gradient with a history leads back to the leaf: still nothing is left over. */
START_TEST(no_cycle) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 3);
  kn_scope s;
  kn_scope_open(&s, c);
  OK(c, kn_backward(c, kx_mul(&s, x, kx_mul(&s, x, x)), NULL, true));
  kn_tensor *g = kn_tensor_retain(kn_grad_of(x));
  OK(c, kn_backward(c, g, NULL, true)); /* 3 x^2 + 6 x */
  GRAD_IS(x, 27 + 18);
  kn_tensor_release(g);
  done(&s);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

/* The tensor of a leaf may go before its graph does. */
START_TEST(leaf_is_gone) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 3), *w = VEC(c, true, 2);
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *y = kx_mul(&s, x, w);
  kn_tensor_release(x);
  OK(c, kn_backward(c, y, NULL, false));
  GRAD_IS(w, 3);
  done(&s);
  kn_tensor_release(w);
  suite_done(c);
}
END_TEST

/* ---- conventions at special points, as PyTorch has them ---- */

static void point(kn_op op, const void *attrs, double a, double b, double ga, double gb) {
  kn_context *c = suite_context();
  kn_tensor *in[] = {number(c, a, true), number(c, b, true)}, *y;
  int n = kn_ops[op].min_in;
  OK(c, kn_apply(c, op, attrs, in, n, &y));
  OK(c, kn_backward(c, y, NULL, false));
  const double want[] = {ga, gb};
  for (int i = 0; i < n; i++)
    ck_assert_msg(at(kn_grad_of(in[i]), 0) == want[i], "%s(%g, %g): gradient %d is %g, not %g",
                  kn_op_name(op), a, b, i + 1, at(kn_grad_of(in[i]), 0), want[i]);
  kn_tensor_release(y);
  kn_tensor_release(in[0]);
  kn_tensor_release(in[1]);
  suite_done(c);
}

START_TEST(special_points) {
  kn_attrs_clamp limits = {.min = -1, .max = 1};
  point(KN_OP_abs, NULL, 0, 0, 0, 0);
  point(KN_OP_relu, NULL, 0, 0, 0, 0);
  kn_attrs_clamp least = {.min = -1, .max = INFINITY}, most = {.min = -INFINITY, .max = 1};
  point(KN_OP_clamp, &limits, 1, 0, 0, 0);
  point(KN_OP_clamp, &limits, -1, 0, 0, 0);
  point(KN_OP_clamp, &limits, 0.5, 0, 1, 0);
  point(KN_OP_clamp, &least, -1, 0, 1, 0);
  point(KN_OP_clamp, &most, 1, 0, 1, 0);
  point(KN_OP_clamp, &limits, 1.5, 0, 0, 0);
  point(KN_OP_maximum, NULL, 2, 2, 0.5, 0.5);
  point(KN_OP_minimum, NULL, 2, 2, 0.5, 0.5);
  point(KN_OP_maximum, NULL, 3, 2, 1, 0);
  point(KN_OP_minimum, NULL, 3, 2, 0, 1);
  point(KN_OP_pow, NULL, 0, 0, 0, 0);
  point(KN_OP_pow, NULL, 0, 2, 0, 0);
  point(KN_OP_pow, NULL, 0, 1, 1, 0);
  point(KN_OP_pow, NULL, 3, 0, 0, log(3));
}
END_TEST

START_TEST(ties_share) {
  kn_context *c = suite_context();
  kn_tensor *x = VEC(c, true, 1, 3, 3, 2, 3), *y;
  kn_attrs_reduce all = {.keepdim = false};
  OK(c, kn_apply(c, KN_OP_amax, &all, &x, 1, &y));
  OK(c, kn_backward(c, y, NULL, false));
  GRAD_IS(x, 0, 1.0 / 3, 1.0 / 3, 0, 1.0 / 3);
  kn_tensor_release(y);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

/* ---- size and failure ---- */

/* Values that no rule reads do not stay in memory. */
START_TEST(keeps_what_is_read) {
  enum { N = 10000 };
  kn_context *c = suite_context();
  static const double zeros[N];
  kn_tensor *x = vec(c, N, zeros, true), *y = kn_tensor_retain(x), *next;
  size_t before = kn_heap_read_stats(c->heap).bytes;
  for (int i = 0; i < 10; i++) { /* neither keeps anything; exp would keep each result */
    OK(c, kn_apply(c, i % 2 ? KN_OP_neg : KN_OP_clone, NULL, &y, 1, &next));
    kn_tensor_release(y);
    y = next;
  }
  ck_assert_uint_lt(kn_heap_read_stats(c->heap).bytes - before, 2 * N * sizeof(double));
  OK(c, kn_apply(c, KN_OP_exp, NULL, &y, 1, &next));
  kn_tensor_release(y);
  OK(c, kn_apply(c, KN_OP_neg, NULL, &next, 1, &y));
  kn_tensor_release(next);
  ck_assert_uint_gt(kn_heap_read_stats(c->heap).bytes - before, 2 * N * sizeof(double));
  kn_tensor_release(y);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

enum { CHAIN = 400000 };

/* Freed and walked without recursion; that many frames would not fit a stack. */
START_TEST(long_chain) {
  kn_context *c = suite_context();
  kn_tensor *x = number(c, 1, true), *y = kn_tensor_retain(x), *next;
  for (int i = 0; i < CHAIN; i++) {
    OK(c, kn_apply(c, KN_OP_neg, NULL, &y, 1, &next));
    kn_tensor_release(y);
    y = next;
  }
  OK(c, kn_backward(c, y, NULL, false));
  GRAD_IS(x, 1);
  kn_tensor_release(y);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

/* Paths double at each step; nodes do not. */
START_TEST(many_paths) {
  kn_context *c = suite_context();
  kn_tensor *x = number(c, 1, true), *y = kn_tensor_retain(x), *next;
  for (int i = 0; i < 60; i++) {
    OK(c, kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){y, y}, 2, &next));
    kn_tensor_release(y);
    y = next;
  }
  OK(c, kn_backward(c, y, NULL, false));
  GRAD_IS(x, 1152921504606846976.0);
  kn_tensor_release(y);
  kn_tensor_release(x);
  suite_done(c);
}
END_TEST

typedef struct shaky {
  uint64_t calls, fail_at;
} shaky;

static void *shaky_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  shaky *h = ud;
  (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  return ++h->calls == h->fail_at ? NULL : realloc(ptr, nsize);
}

/* Two steps of a small network, gradients of gradients among them. */
static kn_status small_step(kn_context *c, kn_tensor *x, kn_tensor *w, kn_tensor **g) {
  kn_scope s;
  kn_scope_open(&s, c);
  kn_tensor *h = kx_tanh(&s, kx_mul(&s, kx_exp(&s, w), x)), *y = total(&s, kx_mul(&s, h, w));
  kn_status st = s.status;
  *g = NULL;
  if (st == KN_OK) st = kn_backward(c, y, NULL, false);
  if (st == KN_OK) st = kn_gradients(c, &y, 1, NULL, &x, 1, true, g);
  if (st == KN_OK) st = kn_backward(c, *g, x, true);
  for (int i = 0; i < s.n; i++) kn_tensor_release(s.owned[i]);
  return st;
}

START_TEST(out_of_memory) {
  for (uint64_t fail_at = 1;; fail_at++) {
    ck_assert_uint_lt(fail_at, 100000);
    shaky h = {0};
    kn_heap *heap = kn_heap_new(shaky_alloc, &h, 0);
    ck_assert_ptr_nonnull(heap);
    kn_context *c = kn_context_new(heap, NULL);
    ck_assert_ptr_nonnull(c);
    kn_tensor *x = VEC(c, true, 1, 2), *w = VEC(c, true, 0.5, -0.5), *g;
    uint64_t blocks = kn_heap_read_stats(heap).blocks;
    h.fail_at = h.calls + fail_at;
    kn_status st = small_step(c, x, w, &g);
    h.fail_at = 0;
    ck_assert(st == KN_OK || st == KN_NOMEM);
    ck_assert(c->grad_enabled);
    kn_tensor_release(g);
    OK(c, kn_set_grad(c, x, NULL));
    OK(c, kn_set_grad(c, w, NULL));
    ck_assert_uint_eq(kn_heap_read_stats(heap).blocks, blocks);
    kn_tensor_release(x);
    kn_tensor_release(w);
    kn_heap_release(heap);
    suite_done(c);
    if (st == KN_OK) break;
  }
}
END_TEST

SUITE("grad", accumulates, diamond, gradients_are_fresh, some_of_many, grad_mode, dtypes, leaf_rules,
      changed_after_saved, nothing_half_done, not_differentiable, writes, third_order,
      sizes_carry_no_gradient, no_cycle, leaf_is_gone, special_points, ties_share, keeps_what_is_read,
      long_chain, many_paths, out_of_memory)
