/* Composites: dropout of other kinds, samples of softmax, and small layers of channels. */
#include "core/composite.h"

/* ---- dropout ---- */

/* 1 with probability 1 - p, else 0: for each element, or for each channel of each sample. */
static kn_tensor *kept(kn_scope *s, kn_tensor *x, double p, bool channels) {
  for (int d = x->type.rank - 1; channels && x && d >= 2; d--) x = kx_slice(s, x, d, 0, 1, 1);
  return x ? kx_with(s, KN_OP_bernoulli, NULL, kx_full_like(s, x, 1 - p)) : NULL;
}

static bool dropout_fits(kn_scope *s, kn_tensor *x, const kn_attrs_dropout *a, bool channels) {
  if (!(a->p >= 0 && a->p <= 1))
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "p must lie in [0, 1], not %g", a->p)), false;
  if (channels && x->type.rank < 2)
    return kx_refuse(s, KN_SHAPE, "at least two dims are needed, channels being the second", x, NULL), false;
  return true;
}

static kn_tensor *feature_dropout(kn_scope *s, kn_tensor *x, const kn_attrs_dropout *a) {
  if (!dropout_fits(s, x, a, true)) return NULL;
  if (!a->training || a->p == 0) return x;
  return kx_mul(s, x, kx_scale(s, kept(s, x, a->p, true), a->p < 1 ? 1 / (1 - a->p) : 1));
}
EXPRESSION(feature_dropout, feature_dropout(s, in[0], attrs))

/* What is dropped becomes the limit of selu on the left; then all is scaled and moved so that mean 0 and
 * variance 1 stay. */
static kn_tensor *alpha_dropout(kn_scope *s, kn_tensor *x, const kn_attrs_dropout *a, bool channels) {
  const double limit = -1.7580993408473766;
  if (!dropout_fits(s, x, a, channels)) return NULL;
  if (!kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_refuse(s, KN_DTYPE, "a floating input is needed", x, NULL);
  if (!a->training || a->p == 0) return x;
  double scale = a->p < 1 ? 1 / sqrt((1 - a->p) * (1 + a->p * limit * limit)) : 0;
  kn_tensor *keep = kept(s, x, a->p, channels);
  if (!keep) return NULL;
  keep = kx_as_bool(s, keep);
  return kx_plus(s, kx_scale(s, kx_where(s, keep, x, kx_number(s, limit, x)), scale), -scale * limit * a->p);
}
EXPRESSION(alpha_dropout, alpha_dropout(s, in[0], attrs, false))
EXPRESSION(feature_alpha_dropout, alpha_dropout(s, in[0], attrs, true))

/* ---- gumbel ---- */

/* softmax((x + g) / tau) with g = -log(e), e exponential, not quite 0. If hard, one-hot, with the gradient of
 * the soft one. */
static kn_tensor *gumbel(kn_scope *s, kn_tensor *x, const kn_attrs_gumbel *a) {
  const kn_attrs_axis along = {.dim = a->dim};
  if (!(a->tau > 0)) return kx_fail(s, kn_fail(s->ctx, KN_ARG, "tau must be positive, not %g", a->tau));
  if (!kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_refuse(s, KN_DTYPE, "floating logits are needed", x, NULL);
  kn_attrs_create made = {.dtype = kn_tensor_dtype(x), .device = x->type.device};
  kx_put_sizes(s, x, 0, x->type.rank, &made.sizes);
  kn_tensor *u = s->status == KN_OK ? kx_apply(s, KN_OP_rand, &made, NULL, 0) : NULL;
  kn_tensor *e = u ? kx_neg(s, kx_with(s, KN_OP_log1p, NULL, kx_neg(s, u))) : NULL;
  kn_tensor *noisy = e ? kx_sub(s, x, kx_log(s, kx_clamp(s, e, 0x1p-60, INFINITY))) : NULL;
  kn_tensor *soft = kx_axis(s, KN_OP_softmax, noisy ? kx_scale(s, noisy, 1 / a->tau) : NULL, a->dim);
  if (!a->hard || !soft) return soft;
  kn_attrs_argreduce top = {.dim = a->dim, .keepdim = true};
  kn_tensor *at = kx_with(s, KN_OP_argmax, &top, soft);
  kn_tensor *one = at ? kx_cast(s, kx_full_like(s, at, 1), kn_tensor_dtype(soft)) : NULL;
  kn_tensor *hot = kx_apply(s, KN_OP_scatter, &along, (kn_tensor *[]){kx_full_like(s, soft, 0), at, one}, 3);
  return kx_add(s, hot, kx_sub(s, soft, kx_detach(s, soft)));
}
EXPRESSION(gumbel_softmax, gumbel(s, in[0], attrs))

/* ---- channels ---- */

static kn_tensor *channel_shuffle(kn_scope *s, kn_tensor *x, const kn_attrs_groups *a) {
  kn_ints shape = {0};
  if (x->type.rank < 3)
    return kx_refuse(s, KN_SHAPE, "an input [N,C,*] with at least three dims is needed", x, NULL);
  if (!kx_sizes_known(s, x, 1, 2)) return NULL;
  if (kn_is_dyn(a->groups) || a->groups < 1 || x->type.dims[1] % a->groups)
    return kx_refuse(s, KN_ARG, "groups must divide the channels (dim 2)", x, NULL);
  kx_put_sizes(s, x, 0, 1, &shape);
  kx_put_size(s, a->groups, &shape);
  kx_put_size(s, x->type.dims[1] / a->groups, &shape);
  kx_put_sizes(s, x, 2, x->type.rank, &shape);
  return s->status == KN_OK ? kx_reshape_as(s, kx_transpose(s, kx_reshape(s, x, &shape), 1, 2), x) : NULL;
}
EXPRESSION(channel_shuffle, channel_shuffle(s, in[0], attrs))

static kn_tensor *normalize(kn_scope *s, kn_tensor *x, const kn_attrs_normalize *a) {
  kn_attrs_norm along = {.p = a->p, .dim = {1, {a->dim}}, .keepdim = true};
  return kx_div(s, x, kx_clamp(s, kx_with(s, KN_OP_norm, &along, x), a->eps, INFINITY));
}
EXPRESSION(normalize, normalize(s, kx_floating(s, in[0]), attrs))

static kn_tensor *local_response_norm(kn_scope *s, kn_tensor *x, const kn_attrs_local_response_norm *a) {
  if (x->type.rank < 3)
    return kx_refuse(s, KN_SHAPE, "an input [N,C,*] with at least three dims is needed", x, NULL);
  if (kn_is_dyn(a->size) || a->size < 1 || a->size > KN_MAX_INPUTS)
    return kx_refuse(s, KN_ARG, "size must lie in 1 to 64", x, NULL);
  kn_attrs_constant_pad around = {.pad = {.n = 2 * (x->type.rank - 1)}};
  around.pad.v[around.pad.n - 2] = a->size / 2, around.pad.v[around.pad.n - 1] = (a->size - 1) / 2;
  x = kx_floating(s, x);
  kn_tensor *square = kx_with(s, KN_OP_constant_pad, &around, kx_mul(s, x, x)), *sum = NULL;
  for (int64_t k = 0; k < a->size; k++) {
    int64_t rest = a->size - 1 - k;
    kn_tensor *part = kx_slice(s, square, 1, k, rest ? -rest : KN_TO_END, 1);
    sum = sum ? kx_add(s, sum, part) : part;
  }
  if (!sum) return NULL;
  kn_tensor *base = kx_plus(s, kx_scale(s, sum, a->alpha / (double)a->size), a->k);
  return base ? kx_div(s, x, kx_pow(s, base, kx_number(s, a->beta, base))) : NULL;
}
EXPRESSION(local_response_norm, local_response_norm(s, in[0], attrs))
