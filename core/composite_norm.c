/* Composites: normalisation and attention. */
#include "core/composite.h"

/* x less its mean, over its deviation. */
static kn_tensor *standard(kn_scope *s, kn_tensor *x, const kn_ints *over, double eps) {
  kn_tensor *d = kx_sub(s, x, kx_reduce(s, KN_OP_mean, x, *over, true));
  kn_tensor *var = kx_reduce(s, KN_OP_mean, kx_mul(s, d, d), *over, true);
  return kx_mul(s, d, kx_rsqrt(s, kx_plus(s, var, eps)));
}

static kn_tensor *affine(kn_scope *s, kn_tensor *x, kn_tensor *w, kn_tensor *b) {
  if (w) x = kx_mul(s, x, w);
  return b ? kx_add(s, x, b) : x;
}

/* A list for the channels of x (dim 2), in a shape that broadcasts. */
static kn_tensor *beside(kn_scope *s, kn_tensor *list, kn_tensor *x) {
  if (!list || !x) return NULL;
  if (list->type.rank != 1 || (kn_dim_known(list->type.dims[0]) && kn_dim_known(x->type.dims[1]) &&
                               list->type.dims[0] != x->type.dims[1]))
    return kx_refuse(s, KN_SHAPE, "one number for each channel (dim 2) is needed", x, list);
  kn_ints sizes = {.n = x->type.rank - 1};
  sizes.v[0] = kn_dim_known(list->type.dims[0]) ? list->type.dims[0] : -1;
  for (int d = 1; d < sizes.n; d++) sizes.v[d] = 1;
  return kx_reshape(s, list, &sizes);
}

static bool has_channels(kn_scope *s, kn_tensor *x) {
  if (x->type.rank >= 2) return true;
  kx_refuse(s, KN_SHAPE, "at least two dims are needed, channels being the second", x, NULL);
  return false;
}

/* ---- over the last dims ---- */

/* The dims that normalized_shape names, checked; the scope fails when it is not how x ends. */
static kn_ints last_dims(kn_scope *s, kn_tensor *x, const kn_ints *shape) {
  kn_ints over = {.n = shape->n};
  static const char sentence[] = "the input must end with normalized_shape";
  int first = x->type.rank - (int)shape->n;
  if (shape->n == 0 || first < 0) kx_refuse(s, KN_SHAPE, sentence, x, NULL);
  for (int i = 0; s->status == KN_OK && i < shape->n; i++) {
    over.v[i] = i - shape->n;
    kx_expect(s, x, first + i, shape->v[i], sentence, x, NULL);
  }
  return over;
}

static kn_tensor *layer_norm(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_layer_norm *a) {
  kn_ints over = last_dims(s, in[0], &a->normalized_shape);
  if (s->status != KN_OK) return NULL;
  return affine(s, standard(s, in[0], &over, a->eps), n > 1 ? in[1] : NULL, n > 2 ? in[2] : NULL);
}

static kn_tensor *rms_norm(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_rms_norm *a) {
  kn_ints over = last_dims(s, in[0], &a->normalized_shape);
  if (s->status != KN_OK) return NULL;
  double eps = a->eps >= 0 ? a->eps : kn_tensor_dtype(in[0]) == KN_F64 ? 0x1p-52 : 0x1p-23;
  kn_tensor *square = kx_reduce(s, KN_OP_mean, kx_mul(s, in[0], in[0]), over, true);
  return affine(s, kx_mul(s, in[0], kx_rsqrt(s, kx_plus(s, square, eps))), n > 1 ? in[1] : NULL, NULL);
}
EXPRESSION(layer_norm, layer_norm(s, in, n, attrs))
EXPRESSION(rms_norm, rms_norm(s, in, n, attrs))

/* ---- over channels ---- */

static kn_tensor *group_norm(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_group_norm *a) {
  kn_tensor *x = in[0];
  if (!has_channels(s, x)) return NULL;
  int64_t channels = x->type.dims[1], groups = a->num_groups;
  if (!kn_is_dyn(groups) && (groups < 1 || (kn_dim_known(channels) && channels % groups)))
    return kx_refuse(s, KN_ARG, "num_groups must divide the channels (dim 2)", x, NULL);
  kn_ints shape = {0}, over = {1, {2}};
  kx_put_sizes(s, x, 0, 1, &shape);
  kx_put_size(s, groups, &shape);
  kx_put_size(s, kn_tensor_numel(x) == 0 ? 0 : -1, &shape);
  kn_tensor *y = s->status == KN_OK ? standard(s, kx_reshape(s, x, &shape), &over, a->eps) : NULL;
  y = y ? kx_reshape_as(s, y, x) : NULL;
  return affine(s, y, n > 1 ? beside(s, in[1], x) : NULL, n > 2 ? beside(s, in[2], x) : NULL);
}
EXPRESSION(group_norm, group_norm(s, in, n, attrs))

static kn_tensor *followed(kn_scope *s, kn_tensor *running, kn_tensor *seen, double momentum) {
  return kx_add(s, kx_scale(s, running, 1 - momentum), kx_scale(s, seen, momentum));
}

/* Elements of x for each channel; -1 when it is not known. */
static int64_t in_channel(const kn_tensor *x) {
  int64_t count = 1;
  for (int d = 0; d < x->type.rank; d++)
    if (d != 1) count = kn_dim_known(x->type.dims[d]) && count >= 0 ? count * x->type.dims[d] : -1;
  return count;
}

/* The variance over one less than the number of elements. */
static kn_tensor *unbiased(kn_scope *s, kn_tensor *x, kn_tensor *var, const kn_ints *over) {
  int64_t count = in_channel(x);
  if (count >= 0) return kx_scale(s, var, (double)count / (double)(count - 1));
  kn_tensor *n = kx_reduce(s, KN_OP_sum, kx_full_like(s, x, 1), *over, false);
  return kx_mul(s, var, kx_div(s, n, kx_plus(s, n, -1)));
}

/* What was computed from wide ones, in the dtype of x, as in PyTorch: its channels' values may be wider. */
static kn_tensor *rounded(kn_scope *s, kn_tensor *y, const kn_tensor *x) {
  kn_dtype d = kn_tensor_dtype(x);
  return y && kn_tensor_dtype(y) == kn_dtypes[d].wide && kn_tensor_dtype(y) != d ? kx_cast(s, y, d) : y;
}

/* What batch_norm and instance_norm are given, checked: x, running mean and variance, weight, bias. */
typedef struct norm_inputs {
  kn_tensor *x, *mean, *var, *w, *b; /* all but x may be NULL */
} norm_inputs;

static norm_inputs norm_inputs_of(kn_scope *s, kn_tensor *const *in, int n, bool by_running) {
  kn_tensor *at[5] = {NULL};
  for (int i = 0; i < n; i++) at[i] = in[i];
  norm_inputs p = {at[0], at[1], at[2], at[3], at[4]};
  if (!kn_dtype_is_float(kn_tensor_dtype(p.x)))
    kx_refuse(s, KN_DTYPE, "a floating input is needed", p.x, NULL);
  else if (!p.mean != !p.var || (by_running && !p.mean))
    kx_refuse(s, KN_ARG, "running_mean and running_var are needed, both of them", p.x,
              p.mean ? p.mean : p.var);
  return p;
}

/* The running values, overwritten: what is followed passes no gradient, and is written last. */
static void follow(kn_scope *s, const norm_inputs *p, kn_tensor *mean, kn_tensor *var, double momentum) {
  bool mode = s->ctx->grad_enabled;
  if (s->status != KN_OK || !p->mean) return;
  s->ctx->grad_enabled = false;
  kn_tensor *next_mean = followed(s, p->mean, kx_reshape_as(s, mean, p->mean), momentum);
  kn_tensor *next_var = followed(s, p->var, kx_reshape_as(s, var, p->var), momentum);
  if (next_mean && next_var) {
    kx_with2(s, KN_OP_copy_, NULL, p->mean, next_mean);
    kx_with2(s, KN_OP_copy_, NULL, p->var, next_var);
  }
  s->ctx->grad_enabled = mode;
}

/* 1 / sqrt(var + eps), times the weight: for each channel, so that the elements are gone over less often. */
static kn_tensor *channel_scale(kn_scope *s, kn_tensor *var, double eps, kn_tensor *w) {
  kn_tensor *scale = kx_rsqrt(s, kx_plus(s, var, eps));
  return w ? kx_mul(s, scale, kx_wide(s, w)) : scale;
}

/* x scale + (b - mean scale) */
static kn_tensor *by_running(kn_scope *s, const norm_inputs *p, kn_tensor *x, double eps, kn_tensor *w,
                             kn_tensor *b) {
  kn_tensor *scale = channel_scale(s, kx_wide(s, beside(s, p->var, x)), eps, w);
  kn_tensor *moved = kx_mul(s, kx_wide(s, beside(s, p->mean, x)), scale);
  kn_tensor *shift = b ? kx_sub(s, kx_wide(s, b), moved) : kx_neg(s, moved);
  return kx_add(s, kx_mul(s, x, scale), shift);
}

/* Halves are computed wide by hand, not by the flag: the running values are overwritten, so they must be the
 * very ones. */
static kn_tensor *batch_norm(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_batch_norm *a) {
  if (!has_channels(s, in[0])) return NULL;
  norm_inputs p = norm_inputs_of(s, in, n, !a->training);
  if (s->status != KN_OK) return NULL;
  if (a->training && in_channel(p.x) == 1)
    return kx_refuse(s, KN_SHAPE, "training needs more than one value for each channel", p.x, NULL);
  kn_ints over = {.n = 0};
  for (int d = 0; d < p.x->type.rank; d++)
    if (d != 1) over.v[over.n++] = d;
  kn_tensor *w = p.w ? beside(s, p.w, p.x) : NULL, *b = p.b ? beside(s, p.b, p.x) : NULL;
  kn_tensor *x = kx_wide(s, p.x);
  if (!x) return NULL;
  if (!a->training) return rounded(s, by_running(s, &p, x, a->eps, w, b), in[0]);
  kn_tensor *mean = kx_reduce(s, KN_OP_mean, x, over, true), *d = kx_sub(s, x, mean);
  kn_tensor *var = kx_reduce(s, KN_OP_mean, kx_mul(s, d, d), over, true);
  kn_tensor *y = affine(s, kx_mul(s, d, channel_scale(s, var, a->eps, w)), NULL, b);
  y = rounded(s, y, in[0]);
  if (p.mean && s->status == KN_OK)
    follow(s, &p, mean, unbiased(s, x, kx_reshape_as(s, var, p.var), &over), a->momentum);
  return y;
}
EXPRESSION(batch_norm, batch_norm(s, in, n, attrs))

/* Each sample has its own mean and variance; the running values follow their means over the batch. */
static kn_tensor *instance_norm(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_instance_norm *a) {
  if (in[0]->type.rank < 3)
    return kx_refuse(s, KN_SHAPE, "an input [N,C,*] with at least three dims is needed", in[0], NULL);
  norm_inputs p = norm_inputs_of(s, in, n, !a->use_input_stats);
  if (s->status != KN_OK) return NULL;
  kn_ints over = {.n = p.x->type.rank - 2}, samples = {1, {0}};
  int64_t count = 1;
  for (int i = 0; i < over.n; i++) {
    over.v[i] = 2 + i;
    count = kn_dim_known(p.x->type.dims[2 + i]) && count >= 0 ? count * p.x->type.dims[2 + i] : -1;
  }
  if (a->use_input_stats && count == 1)
    return kx_refuse(s, KN_SHAPE, "more than one value for each channel of a sample is needed", p.x, NULL);
  kn_tensor *w = p.w ? beside(s, p.w, p.x) : NULL, *b = p.b ? beside(s, p.b, p.x) : NULL;
  kn_tensor *x = kx_wide(s, p.x);
  if (!x) return NULL;
  if (!a->use_input_stats) return rounded(s, by_running(s, &p, x, a->eps, w, b), in[0]);
  kn_tensor *y = rounded(s, affine(s, standard(s, x, &over, a->eps), w, b), in[0]);
  if (!p.mean || s->status != KN_OK) return y;
  kn_attrs_correction spread = {.dim = over, .correction = 1, .keepdim = true};
  kn_tensor *mean = kx_reduce(s, KN_OP_mean, kx_reduce(s, KN_OP_mean, x, over, true), samples, true);
  kn_tensor *var = kx_reduce(s, KN_OP_mean, kx_with(s, KN_OP_var, &spread, x), samples, true);
  follow(s, &p, mean, var, a->momentum);
  return y;
}
EXPRESSION(instance_norm, instance_norm(s, in, n, attrs))
