/* Composites: activation functions, each elementwise but glu. Bounded ones have gradient 0 on their bounds.
 */
#include "core/composite.h"

#define ACTIVATION(name, kind, value)                                                                        \
  static kn_tensor *name(kn_scope *s, kn_tensor *x, const kn_attrs_##kind *a) {                              \
    (void)a;                                                                                                 \
    return value;                                                                                            \
  }                                                                                                          \
  EXPRESSION(name, name(s, in[0], attrs))

static kn_tensor *map(kn_scope *s, kn_op op, kn_tensor *x) { return kx_with(s, op, NULL, x); }

/* min(x, 0): all of the gradient at 0 too. */
static kn_tensor *below_zero(kn_scope *s, kn_tensor *x) { return kx_clamp(s, x, -INFINITY, 0); }

static kn_tensor *bounded(kn_scope *s, kn_tensor *x, kn_number min, kn_number max) {
  kn_tensor *low = kx_exact(s, min, x), *high = kx_exact(s, max, x);
  return kx_where(s, kx_le(s, x, low), low, kx_where(s, kx_ge(s, x, high), high, x));
}

/* log(1 + exp(-|x|)) */
static kn_tensor *log_tail(kn_scope *s, kn_tensor *x) {
  return map(s, KN_OP_log1p, kx_exp(s, kx_neg(s, kx_abs(s, x))));
}

kn_tensor *kx_softplus(kn_scope *s, kn_tensor *x) {
  return kx_add(s, kx_maximum(s, x, kx_number(s, 0, x)), log_tail(s, x));
}

/* ---- linear below zero, or bounded ---- */

ACTIVATION(relu6, none, bounded(s, x, kn_number_of(0), kn_number_of(6)))
ACTIVATION(hardtanh, hardtanh, bounded(s, x, a->min_val_number, a->max_val_number))
ACTIVATION(hardsigmoid, none,
           bounded(s, kx_plus(s, kx_scale(s, kx_floating(s, x), 1.0 / 6), 0.5), kn_number_of(0),
                   kn_number_of(1)))
ACTIVATION(leaky_relu, slope,
           kx_where(s, kx_gt(s, x, kx_number(s, 0, x)), x, kx_scale(s, x, a->negative_slope)))
ACTIVATION(threshold, threshold,
           kx_where(s, kx_le(s, x, kx_exact(s, a->threshold_number, x)), kx_exact(s, a->value_number, x), x))
/* two clamps, as the gradient is 0 at ±lambd too */
ACTIVATION(softshrink, shrink,
           kx_sub(s, x, kx_clamp(s, kx_clamp(s, x, -a->lambd, INFINITY), -INFINITY, a->lambd)))
ACTIVATION(hardshrink, shrink,
           kx_where(s, kx_le(s, kx_abs(s, x), kx_number(s, a->lambd, x)), kx_number(s, 0, x), x))

/* The weight: one for all, or one for each channel (dim 2). */
static kn_tensor *prelu(kn_scope *s, kn_tensor *x, kn_tensor *w) {
  int64_t count = kn_tensor_numel(w);
  if (w->type.rank > 1) return kx_refuse(s, KN_SHAPE, "the weight must have one dim", x, w);
  if (count != 1 && x->type.rank >= 2) {
    kn_ints sizes = {.n = x->type.rank - 1, .v = {-1}};
    for (int d = 1; d < sizes.n; d++) sizes.v[d] = 1;
    w = count == 0 ? w : kx_reshape(s, w, &sizes);
  }
  if (x->type.rank == 0 && count == 1) w = kx_reshape(s, w, &(const kn_ints){0});
  return kx_where(s, kx_gt(s, x, kx_number(s, 0, x)), x, kx_mul(s, x, w));
}
EXPRESSION(prelu, prelu(s, in[0], in[1]))

/* ---- with exponentials ---- */

/* x above zero, alpha * (exp(x / width) - 1) below. */
static kn_tensor *exponential(kn_scope *s, kn_tensor *x, double alpha, double width) {
  kn_tensor *tail = map(s, KN_OP_expm1, kx_scale(s, below_zero(s, x), 1 / width));
  return kx_add(s, kx_relu(s, x), kx_scale(s, tail, alpha));
}
ACTIVATION(elu, alpha, exponential(s, kx_floating(s, x), a->alpha, 1))
ACTIVATION(celu, alpha, exponential(s, kx_floating(s, x), a->alpha, a->alpha))
ACTIVATION(selu, none,
           kx_scale(s, exponential(s, kx_floating(s, x), 1.6732632423543772, 1), 1.0507009873554805))

static kn_tensor *gelu(kn_scope *s, kn_tensor *x, const kn_attrs_gelu *a) {
  kn_tensor *t;
  if (a->approximate == KN_CHOICE_approximate_tanh) {
    kn_tensor *cube = kx_mul(s, x, kx_mul(s, x, x));
    t = kx_tanh(s, kx_scale(s, kx_add(s, x, kx_scale(s, cube, 0.044715)), 0.79788456080286536));
  } else {
    t = kx_erf(s, kx_scale(s, x, 0.70710678118654752));
  }
  return kx_mul(s, x, kx_scale(s, kx_plus(s, t, 1), 0.5));
}
EXPRESSION(gelu, gelu(s, kx_floating(s, in[0]), attrs))
EXPRESSION(silu, kx_mul(s, in[0], kx_sigmoid(s, in[0])))
EXPRESSION(mish, kx_mul(s, in[0], kx_tanh(s, kx_softplus(s, kx_floating(s, in[0])))))

/* Beyond the threshold it is x itself. */
static kn_tensor *softplus(kn_scope *s, kn_tensor *x, const kn_attrs_softplus *a) {
  kn_tensor *z = kx_scale(s, x, a->beta), *y = kx_scale(s, kx_softplus(s, z), 1 / a->beta);
  return kx_where(s, kx_gt(s, z, kx_number(s, a->threshold, z)), x, y);
}
EXPRESSION(softplus, softplus(s, kx_floating(s, in[0]), attrs))

static kn_tensor *logsigmoid(kn_scope *s, kn_tensor *x) {
  return kx_sub(s, kx_minimum(s, x, kx_number(s, 0, x)), log_tail(s, x));
}
EXPRESSION(logsigmoid, logsigmoid(s, kx_floating(s, in[0])))
EXPRESSION(softsign, kx_div(s, in[0], kx_plus(s, kx_abs(s, in[0]), 1)))
EXPRESSION(tanhshrink, kx_sub(s, in[0], kx_tanh(s, in[0])))
EXPRESSION(hardswish,
           kx_mul(s, in[0], kx_scale(s, kx_clamp(s, kx_plus(s, kx_floating(s, in[0]), 3), 0, 6), 1.0 / 6)))

/* ---- glu ---- */

/* The first half of dim times the sigmoid of the second; the halves by a reshape, so that no size is needed.
 */
static kn_tensor *glu(kn_scope *s, kn_tensor *x, const kn_attrs_last_axis *a) {
  int rank = x->type.rank, dim = kx_dim(s, a->dim, rank);
  if (rank == 0) return kx_refuse(s, KN_SHAPE, "at least one dim is needed", x, NULL);
  if (s->status != KN_OK) return NULL;
  int64_t size = x->type.dims[dim];
  if (kn_dim_known(size) && size % 2) return kx_refuse(s, KN_SHAPE, "the size of dim must be even", x, NULL);
  kn_ints sizes = {0};
  kx_put_sizes(s, x, 0, dim, &sizes);
  kx_put_size(s, 2, &sizes);
  kx_put_size(s, kn_dim_known(size) ? size / 2 : -1, &sizes);
  kx_put_sizes(s, x, dim + 1, rank, &sizes);
  kn_tensor *halves = s->status == KN_OK ? kx_reshape(s, x, &sizes) : NULL;
  return kx_mul(s, kx_select(s, halves, dim, 0), kx_sigmoid(s, kx_select(s, halves, dim, 1)));
}
EXPRESSION(glu, glu(s, in[0], attrs))
