/* Gradients of the elementwise rows. A new op costs one line here: UNARY or BINARY with the gradient as an
 * expression of G (the result's gradient), X or A and B (inputs) and Y (the result). Broadcasting is undone
 * by the macros. */
#include "core/grad/vjp.h"

#define G v->gout[0]
#define X kv_in(v, 0)
#define A kv_in(v, 0)
#define B kv_in(v, 1)
#define Y kv_out(v, 0)
#define UNARY(name, gx)                                                                                      \
  void kn_vjp_##name(kn_vjp *v) {                                                                            \
    kn_scope *s = v->s;                                                                                      \
    (void)s;                                                                                                 \
    v->gin[0] = gx;                                                                                          \
  }
#define BINARY(name, ga, gb)                                                                                 \
  void kn_vjp_##name(kn_vjp *v) {                                                                            \
    kn_scope *s = v->s;                                                                                      \
    (void)s;                                                                                                 \
    if (v->need[0]) v->gin[0] = kv_fit(v, ga, 0);                                                            \
    if (v->need[1]) v->gin[1] = kv_fit(v, gb, 1);                                                            \
  }

/* ---- small expressions ---- */

static kn_tensor *times(kn_scope *s, double c, kn_tensor *t) { return kx_mul(s, t, kx_number(s, c, t)); }
static kn_tensor *plus(kn_scope *s, double c, kn_tensor *t) { return kx_add(s, t, kx_number(s, c, t)); }

/* 1 - t * t, and t * (1 - t) */
static kn_tensor *one_less_square(kn_scope *s, kn_tensor *t) {
  return plus(s, 1, kx_neg(s, kx_mul(s, t, t)));
}
static kn_tensor *times_rest(kn_scope *s, kn_tensor *t) { return kx_mul(s, t, plus(s, 1, kx_neg(s, t))); }

/* g where the condition is false, else zero: so a nan input passes its gradient, as in PyTorch */
static kn_tensor *zero_where(kn_scope *s, kn_tensor *cond, kn_tensor *g) {
  return kx_where(s, cond, kx_number(s, 0, g), g);
}

static kn_tensor *is_number(kn_scope *s, kn_tensor *t, double c) { return kx_eq(s, t, kx_number(s, c, t)); }

/* Of maximum and minimum: all of g for the winner, half for a tie. `loses` tells where this input is not it.
 */
static kn_tensor *share(kn_scope *s, kn_tensor *g, kn_tensor *a, kn_tensor *b, kn_tensor *loses) {
  return kx_where(s, kx_eq(s, a, b), times(s, 0.5, g), zero_where(s, loses, g));
}

/* In the dtype of the result, so that an integer base or exponent loses no digits. */
static kn_tensor *promoted(kn_vjp *v, int i) {
  kn_tensor *t = kv_in(v, i);
  return !t || t->type.dtype == v->out[0]->type.dtype ? t : kx_cast(v->s, t, kn_tensor_dtype(v->out[0]));
}

/* b * a^(b - 1); at 0^0 the power would be infinite, and is taken as 1 so that the product is 0 */
static kn_tensor *pow_base(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *a = promoted(v, 0), *b = promoted(v, 1);
  kn_tensor *both_zero = kx_bitwise_and(s, is_number(s, a, 0), is_number(s, b, 0));
  kn_tensor *exponent = plus(s, -1, kx_where(s, both_zero, kx_number(s, 1, v->out[0]), b));
  return kx_mul(s, kx_mul(s, v->gout[0], b), kx_pow(s, a, exponent));
}

/* a^b * log(a); 0 where a is 0 and b is not negative: log(1) is put for log(0) there */
static kn_tensor *pow_exponent(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *a = promoted(v, 0), *b = promoted(v, 1);
  kn_tensor *flat = kx_bitwise_and(s, is_number(s, a, 0), kx_ge(s, b, kx_number(s, 0, b)));
  kn_tensor *log_a = kx_log(s, kx_where(s, flat, kx_number(s, 1, v->out[0]), a));
  return kx_mul(s, kx_mul(s, v->gout[0], kv_out(v, 0)), log_a);
}

/* g where min < x < max, or at the limit when there is one alone, as PyTorch has it; nan is outside */
static kn_tensor *clamped(kn_vjp *v) {
  const kn_attrs_clamp *at = v->attrs;
  kn_scope *s = v->s;
  kn_tensor *x = kv_in(v, 0), *g = v->gout[0];
  bool both = at->min > -INFINITY && at->max < INFINITY;
  kn_tensor *above = (both ? kx_gt : kx_ge)(s, x, kx_number(s, at->min, x));
  kn_tensor *below = (both ? kx_lt : kx_le)(s, x, kx_number(s, at->max, x));
  return kx_where(s, kx_bitwise_and(s, above, below), g, kx_number(s, 0, g));
}

/* g / sqrt(sign x² + c): of the inverse functions */
static kn_tensor *over_root(kn_scope *s, kn_tensor *g, double sign, double c, kn_tensor *x) {
  return kx_mul(
      s, g, kx_apply(s, KN_OP_rsqrt, NULL, (kn_tensor *[]){plus(s, c, times(s, sign, kx_mul(s, x, x)))}, 1));
}

/* g a / (a² + b²) */
static kn_tensor *over_squares(kn_scope *s, kn_tensor *g, kn_tensor *a, kn_tensor *b) {
  return kx_div(s, kx_mul(s, g, a), kx_add(s, kx_mul(s, a, a), kx_mul(s, b, b)));
}

static kn_tensor *polygamma(kn_scope *s, kn_tensor *x, int64_t n) {
  kn_attrs_polygamma at = {.n = n};
  return kx_apply(s, KN_OP_polygamma, &at, &x, 1);
}

/* i0(x) - i1(x) / x, which is 1 / 2 at 0 */
static kn_tensor *i1_slope(kn_scope *s, kn_tensor *x, kn_tensor *y) {
  if (!x || !y) return NULL;
  kn_tensor *zero = is_number(s, x, 0), *safe = kx_where(s, zero, kx_number(s, 1, x), x);
  kn_tensor *slope = kx_sub(s, kx_apply(s, KN_OP_i0, NULL, &x, 1), kx_div(s, y, safe));
  return kx_where(s, zero, kx_number(s, 0.5, y), slope);
}

/* ---- the rows ---- */

BINARY(add, G, G)
BINARY(sub, G, kx_neg(s, G))
BINARY(mul, kx_mul(s, G, B), kx_mul(s, G, A))
BINARY(div, kx_div(s, G, B), kx_neg(s, kx_mul(s, G, kx_div(s, kx_div(s, A, B), B))))
BINARY(floor_divide, kx_zeros_like(s, G), kx_zeros_like(s, G))
BINARY(remainder, G, kx_neg(s, kx_mul(s, G, kx_floor_divide(s, A, B))))
BINARY(fmod, G, kx_neg(s, kx_mul(s, G, kx_trunc(s, kx_div(s, A, B)))))
BINARY(atan2, over_squares(s, G, promoted(v, 1), promoted(v, 0)),
       kx_neg(s, over_squares(s, G, promoted(v, 0), promoted(v, 1))))
BINARY(pow, pow_base(v), pow_exponent(v))
BINARY(maximum, share(s, G, A, B, kx_lt(s, A, B)), share(s, G, A, B, kx_gt(s, A, B)))
BINARY(minimum, share(s, G, A, B, kx_gt(s, A, B)), share(s, G, A, B, kx_lt(s, A, B)))

UNARY(neg, kx_neg(s, G))
UNARY(abs, kx_mul(s, G, kx_sign(s, X)))
UNARY(exp, kx_mul(s, G, Y))
UNARY(expm1, kx_mul(s, G, plus(s, 1, Y)))
UNARY(log, kx_div(s, G, X))
UNARY(log1p, kx_div(s, G, plus(s, 1, X)))
UNARY(log2, kx_div(s, G, times(s, 0.69314718055994531, X)))
UNARY(log10, kx_div(s, G, times(s, 2.3025850929940457, X)))
UNARY(sqrt, kx_div(s, G, times(s, 2, Y)))
UNARY(rsqrt, times(s, -0.5, kx_mul(s, G, kx_mul(s, Y, kx_mul(s, Y, Y)))))
UNARY(sin, kx_mul(s, G, kx_cos(s, X)))
UNARY(cos, kx_neg(s, kx_mul(s, G, kx_sin(s, X))))
UNARY(tan, kx_mul(s, G, plus(s, 1, kx_mul(s, Y, Y))))
UNARY(asin, over_root(s, G, -1, 1, X))
UNARY(acos, kx_neg(s, over_root(s, G, -1, 1, X)))
UNARY(atan, kx_div(s, G, plus(s, 1, kx_mul(s, X, X))))
UNARY(sinh, kx_mul(s, G, kx_cosh(s, X)))
UNARY(cosh, kx_mul(s, G, kx_sinh(s, X)))
UNARY(asinh, over_root(s, G, 1, 1, X))
UNARY(acosh, over_root(s, G, 1, -1, X))
UNARY(atanh, kx_div(s, G, one_less_square(s, X)))
UNARY(tanh, kx_mul(s, G, one_less_square(s, Y)))
UNARY(sigmoid, kx_mul(s, G, times_rest(s, Y)))
UNARY(erf,
      times(s, 1.1283791670955126 /* 2 / sqrt(pi) */, kx_mul(s, G, kx_exp(s, kx_neg(s, kx_mul(s, X, X))))))
UNARY(erfc, times(s, -1.1283791670955126, kx_mul(s, G, kx_exp(s, kx_neg(s, kx_mul(s, X, X))))))
UNARY(erfinv, times(s, 0.88622692545275801 /* sqrt(pi) / 2 */, kx_mul(s, G, kx_exp(s, kx_mul(s, Y, Y)))))
UNARY(lgamma, kx_mul(s, G, kx_apply(s, KN_OP_digamma, NULL, (kn_tensor *[]){X}, 1)))
UNARY(digamma, kx_mul(s, G, polygamma(s, X, 1)))
UNARY(polygamma, kx_mul(s, G, polygamma(s, X, ((const kn_attrs_polygamma *)v->attrs)->n + 1)))
UNARY(i0, kx_mul(s, G, kx_apply(s, KN_OP_i1, NULL, (kn_tensor *[]){X}, 1)))
UNARY(i1, kx_mul(s, G, i1_slope(s, X, Y)))
UNARY(relu, zero_where(s, kx_le(s, Y, kx_number(s, 0, Y)), G))
UNARY(clamp, clamped(v))
UNARY(cast, G)
UNARY(clone, G)

void kn_vjp_where(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *cond = kv_in(v, 0), *zero = kx_number(s, 0, v->gout[0]);
  if (v->need[1]) v->gin[1] = kv_fit(v, kx_where(s, cond, v->gout[0], zero), 1);
  if (v->need[2]) v->gin[2] = kv_fit(v, kx_where(s, cond, zero, v->gout[0]), 2);
}

/* ---- steps: the gradient is 0, and results require grad as in PyTorch ---- */

UNARY(sign, kx_zeros_like(s, G))
UNARY(floor, kx_zeros_like(s, G))
UNARY(ceil, kx_zeros_like(s, G))
UNARY(trunc, kx_zeros_like(s, G))
UNARY(round, kx_zeros_like(s, G))

/* A draw moves with its shape as if its place in the distribution stayed. */
void kn_vjp_standard_gamma(kn_vjp *v) {
  kn_tensor *both[] = {kv_in(v, 0), kv_out(v, 0)};
  v->gin[0] = kx_mul(v->s, v->gout[0], kx_apply(v->s, KN_OP_standard_gamma_grad, NULL, both, 2));
}
