/* Composites: elementwise functions made of others. Those of activations stand in composite_activation.c. */
#include "core/composite.h"
#include <float.h>

/* ---- one number of two ---- */

/* nan of either wins, as for the bound it does in x. */
static kn_tensor *bounded(kn_scope *s, kn_op beyond, kn_tensor *x, kn_tensor *bound) {
  kn_tensor *over = kx_with2(s, beyond, NULL, x, bound);
  return kx_where(s, kx_bitwise_or(s, over, kx_ne(s, bound, bound)), bound, x);
}
EXPRESSION(clamp_min, bounded(s, KN_OP_lt, in[0], in[1]))
EXPRESSION(clamp_max, bounded(s, KN_OP_gt, in[0], in[1]))

/* The first where it is the better one or the second is nan. */
static kn_tensor *but_nan(kn_scope *s, kn_op better, kn_tensor *a, kn_tensor *b) {
  return kx_where(s, kx_bitwise_or(s, kx_with2(s, better, NULL, a, b), kx_ne(s, b, b)), a, b);
}
EXPRESSION(fmax, but_nan(s, KN_OP_ge, in[0], in[1]))
EXPRESSION(fmin, but_nan(s, KN_OP_le, in[0], in[1]))

static kn_tensor *heaviside(kn_scope *s, kn_tensor *x, kn_tensor *values) {
  kn_tensor *zero = kx_number(s, 0, x), *step = kx_gt(s, x, zero);
  step = step ? kx_cast(s, step, kn_tensor_dtype(x)) : NULL;
  return kx_where(s, kx_eq(s, x, zero), values, step);
}
EXPRESSION(heaviside, heaviside(s, in[0], in[1]))

/* ---- signs ---- */

/* 1 / -0 is below 0 too. */
static kn_tensor *negative_sign(kn_scope *s, kn_tensor *x) {
  kn_tensor *zero = kx_number(s, 0, x), *below = kx_lt(s, x, zero);
  if (!below || !kn_dtype_is_float(kn_tensor_dtype(x))) return below;
  kn_tensor *under = kx_lt(s, kx_div(s, kx_number(s, 1, x), x), zero);
  return kx_bitwise_or(s, below, kx_bitwise_and(s, kx_eq(s, x, zero), under));
}
EXPRESSION(signbit, negative_sign(s, in[0]))

static kn_tensor *with_sign(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  kn_tensor *size = kx_abs(s, a);
  return kx_where(s, negative_sign(s, b), kx_neg(s, size), size);
}
EXPRESSION(copysign, with_sign(s, kx_floating(s, in[0]), in[1]))

static kn_tensor *is_infinite(kn_scope *s, kn_tensor *x, double which) {
  if (!kn_dtype_is_float(kn_tensor_dtype(x))) return kx_ne(s, x, x);
  return kx_eq(s, x, kx_number(s, which, x));
}
EXPRESSION(isposinf, is_infinite(s, in[0], INFINITY))
EXPRESSION(isneginf, is_infinite(s, in[0], -INFINITY))

/* ---- closeness ---- */

static kn_tensor *isclose(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_close *c) {
  if (!(c->rtol >= 0) || !(c->atol >= 0))
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "rtol and atol must not be negative"));
  a = kx_cast(s, a, KN_F64);
  b = kx_cast(s, b, KN_F64);
  kn_tensor *room = kx_plus(s, kx_scale(s, kx_abs(s, b), c->rtol), c->atol);
  kn_tensor *finite = kx_isfinite(s, b);
  kn_tensor *near = kx_bitwise_and(s, finite, kx_le(s, kx_abs(s, kx_sub(s, a, b)), room));
  near = kx_bitwise_or(s, near, kx_eq(s, a, b));
  return c->equal_nan ? kx_bitwise_or(s, near, kx_bitwise_and(s, kx_isnan(s, a), kx_isnan(s, b))) : near;
}
EXPRESSION(isclose, isclose(s, in[0], in[1], attrs))

static kn_tensor *replaced(kn_scope *s, kn_tensor *where, double with, kn_tensor *x) {
  return kx_where(s, where, kx_number(s, with, x), x);
}

/* An infinite replacement is the largest number of the dtype. */
static kn_tensor *nan_to_num(kn_scope *s, kn_tensor *x, const kn_attrs_nan_to_num *a) {
  kn_dtype d = kn_tensor_dtype(x);
  if (!kn_dtype_is_float(d)) return kx_with(s, KN_OP_clone, NULL, x);
  double most = d == KN_F64 ? DBL_MAX : d == KN_F16 ? 65504 : d == KN_BF16 ? 0x1.fep127 : FLT_MAX;
  kn_tensor *r = replaced(s, kx_isnan(s, x), a->nan, x);
  r = replaced(s, is_infinite(s, x, INFINITY), a->posinf == INFINITY ? most : a->posinf, r);
  return replaced(s, is_infinite(s, x, -INFINITY), a->neginf == -INFINITY ? -most : a->neginf, r);
}
EXPRESSION(nan_to_num, nan_to_num(s, in[0], attrs))

/* ---- functions ---- */

static const double pi = 3.14159265358979323846, ln2 = 0.69314718055994530942;

EXPRESSION(positive, kx_reshape_as(s, in[0], in[0]))
EXPRESSION(deg2rad, kx_scale(s, kx_floating(s, in[0]), pi / 180))
EXPRESSION(rad2deg, kx_scale(s, kx_floating(s, in[0]), 180 / pi))

static kn_tensor *exp2_of(kn_scope *s, kn_tensor *x) { return kx_pow(s, kx_number(s, 2, x), x); }
EXPRESSION(exp2, exp2_of(s, kx_floating(s, in[0])))
EXPRESSION(ldexp, kx_mul(s, in[0], exp2_of(s, kx_floating(s, in[1]))))
EXPRESSION(float_power, kx_pow(s, kx_cast(s, in[0], KN_F64), kx_cast(s, in[1], KN_F64)))

static kn_tensor *logaddexp2(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  return kx_scale(s, kx_with2(s, KN_OP_logaddexp, NULL, kx_scale(s, a, ln2), kx_scale(s, b, ln2)), 1 / ln2);
}
EXPRESSION(logaddexp2, logaddexp2(s, kx_floating(s, in[0]), kx_floating(s, in[1])))

/* At 0, where the quotient is not defined, its limit. */
static kn_tensor *sinc(kn_scope *s, kn_tensor *x) {
  kn_tensor *one = kx_number(s, 1, x), *none = kx_eq(s, x, kx_number(s, 0, x));
  kn_tensor *t = kx_scale(s, kx_where(s, none, one, x), pi);
  return kx_where(s, none, one, kx_div(s, kx_sin(s, t), t));
}
EXPRESSION(sinc, sinc(s, kx_floating(s, in[0])))

/* The larger is taken out before squaring, so that nothing overflows; it is a constant to the gradient. */
static kn_tensor *length_of(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  kn_tensor *big = kx_maximum(s, kx_abs(s, a), kx_abs(s, b));
  big = kx_detach(s, big);
  kn_tensor *endless = kx_bitwise_or(s, kx_with(s, KN_OP_isinf, NULL, a), kx_with(s, KN_OP_isinf, NULL, b));
  kn_tensor *plain = kx_bitwise_and(s, kx_isfinite(s, big), kx_ne(s, big, kx_number(s, 0, big)));
  big = kx_where(s, plain, big, kx_number(s, 1, big));
  a = kx_div(s, a, big);
  b = kx_div(s, b, big);
  kn_tensor *r = kx_mul(s, big, kx_sqrt(s, kx_add(s, kx_mul(s, a, a), kx_mul(s, b, b))));
  return kx_where(s, endless, kx_number(s, INFINITY, big), r); /* even beside nan */
}
EXPRESSION(hypot, length_of(s, kx_floating(s, in[0]), kx_floating(s, in[1])))

/* A negative eps: none. */
static kn_tensor *logit(kn_scope *s, kn_tensor *x, double eps) {
  if (eps >= 0) x = kx_clamp(s, x, eps, 1 - eps);
  return kx_log(s, kx_div(s, x, kx_sub(s, kx_number(s, 1, x), x)));
}
EXPRESSION(logit, logit(s, kx_floating(s, in[0]), ((const kn_attrs_logit *)attrs)->eps))

#define VALUE ((const kn_attrs_scaled *)attrs)->value_number
EXPRESSION(addcmul, kx_add(s, in[0], kx_scale_exact(s, kx_mul(s, in[1], in[2]), VALUE)))
EXPRESSION(addcdiv, kx_add(s, in[0], kx_scale_exact(s, kx_div(s, in[1], in[2]), VALUE)))
