/* Type rules of matrix products (numbers of one dtype), convolutions and pooling (floats of one dtype). */
#include "core/infer.h"
#include <string.h>

/* ---- matmul ---- */

/* Numbers of one dtype. */
kn_status kn_infer_matmul(const kn_infer *q) {
  const kn_type *a = &q->in[0], *b = &q->in[1];
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  if (a->dtype == KN_BOOL) return kn_infer_fail(q, KN_DTYPE, "not defined for bool");
  if (a->rank == 0 || b->rank == 0) return kn_infer_fail(q, KN_SHAPE, "both inputs need at least one dim");
  int64_t ka = a->dims[a->rank - 1], kb = b->dims[b->rank == 1 ? 0 : b->rank - 2];
  if (!kn_dim_may_equal(ka, kb))
    return kn_infer_fail(q, KN_SHAPE, "inner sizes differ, %lld and %lld", (long long)ka, (long long)kb);
  kn_type out;
  KN_TRY(kn_infer_batch(q, a->rank > 2 ? a->rank - 2 : 0, b->rank > 2 ? b->rank - 2 : 0, &out));
  if (a->rank > 1) out.dims[out.rank++] = a->dims[a->rank - 2];
  if (b->rank > 1) out.dims[out.rank++] = b->dims[b->rank - 1];
  q->out[0] = out;
  return KN_OK;
}

/* ---- windows: convolution and pooling ---- */

enum { SIDE_MAX = INT32_MAX }; /* keeps the sums below from overflowing */

/* One or two integers in [least, SIDE_MAX]; placeholders give KN_DIM_UNKNOWN. */
static kn_status pair(const kn_infer *q, const char *name, const kn_ints *v, int64_t least, int64_t out[2]) {
  if (v->n != 1 && v->n != 2)
    return kn_infer_fail(q, KN_ARG, "%s takes one number or two, not %d", name, (int)v->n);
  for (int i = 0; i < 2; i++) {
    int64_t x = kn_ints_at(v, i);
    if (!kn_is_dyn(x) && (x < least || x > SIDE_MAX))
      return kn_infer_fail(q, KN_ARG, "%s must be at least %lld, not %lld", name, (long long)least,
                           (long long)x);
    out[i] = kn_is_dyn(x) ? KN_DIM_UNKNOWN : x;
  }
  return KN_OK;
}

/* Positions of a window of `span` elements on `size` elements padded on both sides. */
static kn_status positions(const kn_infer *q, int64_t size, int64_t span, int64_t padding, int64_t stride,
                           int64_t *out) {
  *out = KN_DIM_UNKNOWN;
  if (!kn_dim_known(size) || span < 0 || padding < 0 || stride < 0) return KN_OK;
  if (size > INT64_MAX / 4) return kn_infer_fail(q, KN_SHAPE, "the input is too large");
  if (size + 2 * padding < span)
    return kn_infer_fail(q, KN_SHAPE, "a window of %lld does not fit an input of %lld padded to %lld",
                         (long long)span, (long long)size, (long long)(size + 2 * padding));
  *out = kn_dim_window(size, 2 * padding - span, stride, 1);
  return KN_OK;
}

static kn_status four_dims(const kn_infer *q, int i, const char *what) {
  if (q->in[i].rank == 4) return KN_OK;
  return kn_infer_fail(q, KN_SHAPE, "%s (input %d) must have four dims", what, i + 1);
}

/* The result of convolving x with w, checking all that conv2d needs. */
static kn_status convolved(const kn_infer *q, const kn_type *x, const kn_type *w, kn_type *out) {
  const kn_attrs_conv2d *a = q->attrs;
  int64_t stride[2], padding[2], dilation[2], groups = a->groups;
  KN_TRY(pair(q, "stride", &a->stride, 1, stride));
  KN_TRY(pair(q, "padding", &a->padding, 0, padding));
  KN_TRY(pair(q, "dilation", &a->dilation, 1, dilation));
  bool groups_known = !kn_is_dyn(groups);
  if (groups_known && groups < 1)
    return kn_infer_fail(q, KN_ARG, "groups must be at least 1, not %lld", (long long)groups);
  int64_t channels = x->dims[1], filters = w->dims[0], per_group = w->dims[1];
  if (groups_known && kn_dim_known(filters) && filters % groups)
    return kn_infer_fail(q, KN_SHAPE, "%lld filters do not divide into %lld groups", (long long)filters,
                         (long long)groups);
  if (groups_known && kn_dim_known(channels) && kn_dim_known(per_group) &&
      (channels % groups || channels / groups != per_group))
    return kn_infer_fail(
        q, KN_SHAPE, "the weight takes %lld channels in each of %lld group%s, the input has %lld",
        (long long)per_group, (long long)groups, groups == 1 ? "" : "s", (long long)channels);
  *out = (kn_type){.dtype = x->dtype, .rank = 4, .dims = {x->dims[0], filters}};
  for (int i = 0; i < 2; i++) {
    int64_t k = w->dims[2 + i], span = KN_DIM_UNKNOWN;
    if (k == 0 || k > SIDE_MAX)
      return kn_infer_fail(q, KN_SHAPE, "a kernel size of %lld is not possible", (long long)k);
    if (kn_dim_known(k) && dilation[i] > 0) span = dilation[i] * (k - 1) + 1;
    KN_TRY(positions(q, x->dims[2 + i], span, padding[i], stride[i], &out->dims[2 + i]));
  }
  return KN_OK;
}

kn_status kn_infer_conv2d(const kn_infer *q) {
  KN_TRY(kn_infer_floating(q, 0));
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  KN_TRY(four_dims(q, 0, "the image"));
  KN_TRY(four_dims(q, 1, "the weight"));
  if (q->n == 3) {
    KN_TRY(kn_infer_same_dtype(q, 0, 2));
    if (q->in[2].rank != 1 || !kn_dim_may_equal(q->in[2].dims[0], q->in[1].dims[0]))
      return kn_infer_fail(q, KN_SHAPE, "the bias (input 3) must have one element for each filter");
  }
  return convolved(q, &q->in[0], &q->in[1], &q->out[0]);
}

/* Input 1 must have the shape of the forward result `y`. */
static kn_status gradient_fits(const kn_infer *q, const kn_type *y) {
  bool fits = q->in[0].rank == y->rank;
  for (int d = 0; fits && d < y->rank; d++) fits = kn_dim_may_equal(q->in[0].dims[d], y->dims[d]);
  if (fits) return KN_OK;
  char text[KN_TYPE_TEXT];
  kn_type_text(y, text, sizeof text);
  return kn_infer_fail(q, KN_SHAPE, "the gradient must have the shape %s", strchr(text, '['));
}

static kn_status conv2d_grad(const kn_infer *q, int x, int w, int like) {
  kn_type y;
  KN_TRY(kn_infer_floating(q, 0));
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  KN_TRY(kn_infer_same_dtype(q, 0, 2));
  KN_TRY(four_dims(q, 0, "the gradient"));
  KN_TRY(four_dims(q, x, "the image"));
  KN_TRY(four_dims(q, w, "the weight"));
  KN_TRY(convolved(q, &q->in[x], &q->in[w], &y));
  KN_TRY(gradient_fits(q, &y));
  q->out[0] = q->in[like];
  return KN_OK;
}

kn_status kn_infer_conv2d_grad_input(const kn_infer *q) { return conv2d_grad(q, 2, 1, 2); }
kn_status kn_infer_conv2d_grad_weight(const kn_infer *q) { return conv2d_grad(q, 1, 2, 2); }

/* ---- pooling ---- */

/* The options of max_pool2d and avg_pool2d that say where the windows are. */
typedef struct windows {
  const kn_ints *kernel, *stride, *padding, *dilation; /* dilation may be NULL: 1 */
  bool ceil;
} windows;

static windows windows_of(const kn_infer *q) {
  if (kn_ops[q->op].attrs == KN_ATTRS_pool2d) {
    const kn_attrs_pool2d *a = q->attrs;
    return (windows){&a->kernel_size, &a->stride, &a->padding, &a->dilation, a->ceil_mode};
  }
  const kn_attrs_avg_pool2d *a = q->attrs;
  return (windows){&a->kernel_size, &a->stride, &a->padding, NULL, a->ceil_mode};
}

/* As `positions`, and with `ceil` windows may reach over the end, but must not begin beyond the input. */
static kn_status pool_positions(const kn_infer *q, int64_t size, int64_t span, int64_t padding,
                                int64_t stride, bool ceil, int64_t *out) {
  KN_TRY(positions(q, size, span, padding, stride, out));
  if (!ceil || !kn_dim_known(*out)) return KN_OK;
  *out = kn_dim_window(size, 2 * padding - span + stride - 1, stride, 1);
  if ((*out - 1) * stride >= size + padding) --*out;
  return KN_OK;
}

static kn_status pooled(const kn_infer *q, const kn_type *x, kn_type *out) {
  windows a = windows_of(q);
  int64_t kernel[2], stride[2], padding[2], dilation[2] = {1, 1};
  KN_TRY(pair(q, "kernel_size", a.kernel, 1, kernel));
  KN_TRY(pair(q, "stride", a.stride, 0, stride));
  KN_TRY(pair(q, "padding", a.padding, 0, padding));
  if (a.dilation) KN_TRY(pair(q, "dilation", a.dilation, 1, dilation));
  *out = *x;
  for (int i = 0; i < 2; i++) {
    int64_t span = kernel[i] > 0 && dilation[i] > 0 ? dilation[i] * (kernel[i] - 1) + 1 : KN_DIM_UNKNOWN;
    int64_t *size = &out->dims[x->rank - 2 + i];
    if (span > 0 && padding[i] > span / 2)
      return kn_infer_fail(q, KN_ARG,
                           "padding must be at most half of kernel_size, %lld is too much for %lld",
                           (long long)padding[i], (long long)kernel[i]);
    KN_TRY(pool_positions(q, *size, span, padding[i], stride[i] ? stride[i] : kernel[i], a.ceil, size));
  }
  return KN_OK;
}

static kn_status an_image(const kn_infer *q, int i, const char *what) {
  if (q->in[i].rank == 3 || q->in[i].rank == 4) return KN_OK;
  return kn_infer_fail(q, KN_SHAPE, "%s (input %d) must have four dims, or three without a batch", what,
                       i + 1);
}

kn_status kn_infer_pool2d(const kn_infer *q) {
  KN_TRY(kn_infer_floating(q, 0));
  KN_TRY(an_image(q, 0, "the image"));
  return pooled(q, &q->in[0], &q->out[0]);
}

kn_status kn_infer_pool2d_indices(const kn_infer *q) {
  KN_TRY(kn_infer_pool2d(q));
  q->out[0].dtype = KN_I64;
  return KN_OK;
}

kn_status kn_infer_pool2d_grad(const kn_infer *q) {
  kn_type y;
  KN_TRY(kn_infer_floating(q, 0));
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  KN_TRY(an_image(q, 0, "the gradient"));
  KN_TRY(an_image(q, 1, "the image"));
  KN_TRY(pooled(q, &q->in[1], &y));
  KN_TRY(gradient_fits(q, &y));
  q->out[0] = q->in[1];
  return KN_OK;
}

static kn_status check_divisor(const kn_infer *q) {
  const kn_attrs_avg_pool2d *a = q->attrs;
  if (kn_is_dyn(a->divisor_override) || a->divisor_override >= 0) return KN_OK;
  return kn_infer_fail(q, KN_ARG, "divisor_override must be positive, or 0 for none, not %lld",
                       (long long)a->divisor_override);
}

kn_status kn_infer_avg_pool2d(const kn_infer *q) {
  KN_TRY(check_divisor(q));
  return kn_infer_pool2d(q);
}

kn_status kn_infer_avg_pool2d_grad(const kn_infer *q) {
  KN_TRY(check_divisor(q));
  return kn_infer_pool2d_grad(q);
}
