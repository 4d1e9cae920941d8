/* Composites: tensors overwritten by random numbers, and normal ones of given means. Draws are made in
 * float32 for halves, in float64 for integers, and rounded when they are written. */
#include "core/composite.h"

/* rand or randn in the shape of x. */
static kn_tensor *draws(kn_scope *s, kn_op op, kn_tensor *x, kn_dtype dtype) {
  kn_attrs_create at = {.dtype = dtype, .device = x->type.device};
  kx_put_sizes(s, x, 0, x->type.rank, &at.sizes);
  return s->status == KN_OK ? kx_apply(s, op, &at, NULL, 0) : NULL;
}

static kn_dtype dtype_of_draws(const kn_tensor *x) {
  kn_dtype d = kn_tensor_dtype(x);
  return kn_dtype_is_float(d) ? kn_dtypes[d].wide : KN_F64;
}

static kn_tensor *uniforms(kn_scope *s, kn_tensor *x) { return draws(s, KN_OP_rand, x, dtype_of_draws(x)); }
static kn_tensor *normals(kn_scope *s, kn_tensor *x) { return draws(s, KN_OP_randn, x, dtype_of_draws(x)); }

static bool floats(kn_scope *s, kn_tensor *x) {
  if (kn_dtype_is_float(kn_tensor_dtype(x))) return true;
  kx_refuse(s, KN_DTYPE, "a floating dtype is needed", x, NULL);
  return false;
}

static bool holds(kn_scope *s, bool condition, const char *sentence, double got) {
  if (!condition) kx_fail(s, kn_fail(s->ctx, KN_ARG, "%s, not %g", sentence, got));
  return condition;
}

static kn_tensor *write(kn_scope *s, kn_tensor *x, kn_tensor *values) {
  return kx_with2(s, KN_OP_copy_, NULL, x, values);
}

static kn_tensor *unary(kn_scope *s, kn_op op, kn_tensor *t) { return kx_with(s, op, NULL, t); }

static kn_tensor *uniform_(kn_scope *s, kn_tensor *x, const kn_attrs_uniform *a) {
  if (!floats(s, x) || !holds(s, a->from <= a->to, "from must not be above to", a->from)) return NULL;
  return write(s, x, kx_plus(s, kx_scale(s, uniforms(s, x), a->to - a->from), a->from));
}
EXPRESSION(uniform_, uniform_(s, in[0], attrs))

static kn_tensor *normal_(kn_scope *s, kn_tensor *x, const kn_attrs_normal *a) {
  if (!floats(s, x) || !holds(s, a->std >= 0, "std must be at least 0", a->std)) return NULL;
  return write(s, x, kx_plus(s, kx_scale(s, normals(s, x), a->std), a->mean));
}
EXPRESSION(normal_, normal_(s, in[0], attrs))

static kn_tensor *log_normal_(kn_scope *s, kn_tensor *x, const kn_attrs_log_normal *a) {
  if (!floats(s, x) || !holds(s, a->std > 0, "std must be positive", a->std)) return NULL;
  return write(s, x, kx_exp(s, kx_plus(s, kx_scale(s, normals(s, x), a->std), a->mean)));
}
EXPRESSION(log_normal_, log_normal_(s, in[0], attrs))

static kn_tensor *exponential_(kn_scope *s, kn_tensor *x, const kn_attrs_exponential *a) {
  if (!floats(s, x) || !holds(s, a->lambd > 0, "lambd must be positive", a->lambd)) return NULL;
  return write(s, x, kx_scale(s, unary(s, KN_OP_log1p, kx_neg(s, uniforms(s, x))), -1 / a->lambd));
}
EXPRESSION(exponential_, exponential_(s, in[0], attrs))

static kn_tensor *cauchy_(kn_scope *s, kn_tensor *x, const kn_attrs_cauchy *a) {
  if (!floats(s, x) || !holds(s, a->sigma > 0, "sigma must be positive", a->sigma)) return NULL;
  kn_tensor *angle = kx_scale(s, kx_plus(s, uniforms(s, x), -0.5), 3.141592653589793);
  return write(s, x, kx_plus(s, kx_scale(s, unary(s, KN_OP_tan, angle), a->sigma), a->median));
}
EXPRESSION(cauchy_, cauchy_(s, in[0], attrs))

/* How many trials until the first success. */
static kn_tensor *geometric_(kn_scope *s, kn_tensor *x, const kn_attrs_probability *a) {
  if (!holds(s, a->p > 0 && a->p < 1, "p must lie between 0 and 1", a->p)) return NULL;
  if (kn_tensor_dtype(x) == KN_BOOL) return kx_refuse(s, KN_DTYPE, "not defined for bool", x, NULL);
  kn_tensor *failures = kx_scale(s, unary(s, KN_OP_log1p, kx_neg(s, uniforms(s, x))), 1 / log1p(-a->p));
  return write(s, x, kx_plus(s, kx_floor(s, failures), 1));
}
EXPRESSION(geometric_, geometric_(s, in[0], attrs))

static kn_tensor *bernoulli_(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_bernoulli *a) {
  kn_tensor *u = uniforms(s, in[0]);
  if (n > 1) return write(s, in[0], kx_lt(s, u, in[1]));
  if (!holds(s, a->p >= 0 && a->p <= 1, "p must lie in [0, 1]", a->p)) return NULL;
  return u ? write(s, in[0], kx_lt(s, u, kx_number(s, a->p, u))) : NULL;
}
EXPRESSION(bernoulli_, bernoulli_(s, in, n, attrs))

/* The numbers below it are exact in the dtype; of int64 the last 1024 are left out, as a bound there has no
 * double. */
static int64_t end_of_exact(kn_dtype d) {
  switch (d) {
  case KN_BOOL: return 2;
  case KN_F16: return (1 << 11) + 1;
  case KN_BF16: return (1 << 8) + 1;
  case KN_F32: return (1 << 24) + 1;
  case KN_F64: return (INT64_C(1) << 53) + 1;
  case KN_I64: return INT64_MAX - 1023;
  default: return (int64_t)kn_dtypes[d].highest + 1;
  }
}

/* random_(to), random_(from, to); without both from 0 to the last that is exact. */
static kn_tensor *random_(kn_scope *s, kn_tensor *x, const kn_attrs_bounds *a) {
  kn_attrs_randint at = {.low = a->from, .high = a->to, .dtype = KN_I64, .device = x->type.device};
  if (a->to == KN_NONE) {
    at.low = 0;
    at.high = a->from == KN_NONE ? end_of_exact(kn_tensor_dtype(x)) : a->from;
  } else if (a->from == KN_NONE) {
    at.low = 0;
  }
  kx_put_sizes(s, x, 0, x->type.rank, &at.sizes);
  return s->status == KN_OK ? write(s, x, kx_apply(s, KN_OP_randint, &at, NULL, 0)) : NULL;
}
EXPRESSION(random_, random_(s, in[0], attrs))

/* normal(mean, std): one for each pair. */
static kn_tensor *normal(kn_scope *s, kn_tensor *mean, kn_tensor *std) {
  kn_tensor *like = kx_add(s, mean, std);
  if (!like || !floats(s, like)) return NULL;
  return kx_add(s, mean, kx_mul(s, std, draws(s, KN_OP_randn, like, kn_tensor_dtype(like))));
}
EXPRESSION(normal, normal(s, in[0], in[1]))

/* x log(y), 0 where x is 0, also where the logarithm has no number; nan stays. There `safe` is put for y, so
 * that no gradient becomes nan. log_of(y) is a number for y above `low`. */
static kn_tensor *times_log(kn_scope *s, kn_tensor *x, kn_tensor *y, kn_op log_of, double low, double safe) {
  if (!x || !y) return NULL;
  kn_tensor *outside =
      kx_bitwise_or(s, kx_le(s, y, kx_number(s, low, y)), kx_eq(s, y, kx_number(s, INFINITY, y)));
  kn_tensor *none = kx_bitwise_and(s, kx_eq(s, x, kx_number(s, 0, x)), outside);
  kn_tensor *product = kx_mul(s, x, unary(s, log_of, kx_where(s, none, kx_number(s, safe, y), y)));
  return product ? kx_where(s, none, kx_number(s, 0, product), product) : NULL;
}
EXPRESSION(xlogy, times_log(s, kx_floating(s, in[0]), kx_floating(s, in[1]), KN_OP_log, 0, 1))
EXPRESSION(xlog1py, times_log(s, kx_floating(s, in[0]), kx_floating(s, in[1]), KN_OP_log1p, -1, 0))
