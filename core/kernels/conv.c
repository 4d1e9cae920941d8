/* conv2d and its two gradients. The image is laid into a padded copy first, so no loop asks where the edge
 * is: all three kernels are then, for each weight w[o, ch, kh, kw], one pass over an output plane y and the
 * image plane x shifted by (kh, kw). With stride 1 y is given the row length of x, its rows then follow one
 * another exactly as those of x do, and the pass is a single long loop; what falls on the added columns is
 * not used (y) or zero (gradients). Each plane, or filter, is one thread's work, so sums have one order. */
#include "core/infer.h"
#include "core/kernels/kernel.h"

typedef struct conv {
  int64_t images, channels, h, w;            /* x [images, channels, h, w], padding included */
  int64_t filters, per_group, group_filters; /* of all groups; input channels and filters of one */
  int64_t kh, kw, oh, ow;                    /* weight [filters, per_group, kh, kw]; rows and columns of y */
  int64_t padding[2], stride[2], dilation[2];
  int64_t pitch;                 /* from row to row of y */
  int64_t rows, length, x_pitch; /* a pass: its loops, and from row to row of x */
  const void *weight, *bias;     /* bias may be NULL */
  void *x, *y, *to;              /* the copies, contiguous; the weight's gradient */
} conv;

static void set_sizes(conv *c, const kn_attrs_conv2d *a, const kn_type *x, const kn_type *weight,
                      const kn_type *y) {
  for (int i = 0; i < 2; i++) {
    c->stride[i] = kn_ints_at(&a->stride, i);
    c->padding[i] = kn_ints_at(&a->padding, i);
    c->dilation[i] = kn_ints_at(&a->dilation, i);
  }
  c->images = x->dims[0], c->channels = x->dims[1];
  c->h = x->dims[2] + 2 * c->padding[0], c->w = x->dims[3] + 2 * c->padding[1];
  c->filters = weight->dims[0], c->per_group = weight->dims[1], c->kh = weight->dims[2],
  c->kw = weight->dims[3];
  c->group_filters = c->filters / a->groups;
  c->oh = y->dims[2], c->ow = y->dims[3];
  bool flat = c->stride[0] == 1 && c->stride[1] == 1;
  c->pitch = flat ? c->w : c->ow;
  c->rows = flat ? 1 : c->oh;
  c->length = flat ? (c->oh - 1) * c->w + c->ow : c->ow;
  c->x_pitch = c->stride[0] * c->w;
}

/* Added columns are only harmless where zero times anything is zero: otherwise rows are passed one by one. */
static void by_rows_unless_finite(conv *c, const kn_tensor *t) {
  int64_t n = kn_tensor_numel(t), odd = 0;
  if (kn_tensor_dtype(t) == KN_F32) {
    const float *x = kn_tensor_data(t);
    for (int64_t i = 0; i < n; i++) odd |= !(x[i] - x[i] == 0);
  } else {
    const double *x = kn_tensor_data(t);
    for (int64_t i = 0; i < n; i++) odd |= !(x[i] - x[i] == 0);
  }
  if (odd) c->pitch = c->length = c->ow, c->rows = c->oh;
}

/* ---- the copies ---- */

static bool same_size(const kn_tensor *t, int64_t h, int64_t w) {
  return t->type.dims[2] == h && t->type.dims[3] == w;
}

/* The part of a plane of `whole` that is `part`, `top` rows down and `left` columns in. */
static kk_view inner(const kn_tensor *whole, const kn_tensor *part, int64_t top, int64_t left) {
  kk_view v = kk_view_of(whole);
  kk_slice(&v, 2, top, part->type.dims[2], 1);
  kk_slice(&v, 3, left, part->type.dims[3], 1);
  return v;
}

/* A tensor like t with planes of h by w, zeroed. */
static kn_status blank(kn_context *ctx, const kn_tensor *t, int64_t h, int64_t w, kn_tensor **out) {
  kn_type type = t->type;
  type.dims[2] = h, type.dims[3] = w;
  KN_TRY(kn_tensor_new(ctx, &type, out));
  kk_zero(ctx, *out);
  return KN_OK;
}

/* t in planes of h by w, zero around it; t itself when that is what it is. */
static kn_status laid_in(kn_context *ctx, kn_tensor *t, int64_t top, int64_t left, int64_t h, int64_t w,
                         kn_tensor **out) {
  if (same_size(t, h, w)) return kk_contiguous(ctx, t, out);
  KN_TRY(blank(ctx, t, h, w, out));
  kk_view to = inner(*out, t, top, left), from = kk_view_of(t);
  kk_copy(ctx, &to, &from);
  return KN_OK;
}

static kn_status padded_image(kn_context *ctx, const conv *c, kn_tensor *x, kn_tensor **out) {
  return laid_in(ctx, x, c->padding[0], c->padding[1], c->h, c->w, out);
}

static kn_status pitched_gradient(kn_context *ctx, const conv *c, kn_tensor *g, kn_tensor **out) {
  return laid_in(ctx, g, 0, 0, c->oh, c->pitch, out);
}

/* Where a kernel writes planes of h by w whose inner part is the result: the result itself if that is all. */
static kn_status work_space(kn_context *ctx, kn_tensor *result, int64_t h, int64_t w, kn_tensor **out) {
  if (!same_size(result, h, w)) return blank(ctx, result, h, w, out);
  *out = kn_tensor_retain(result);
  return KN_OK;
}

static void give_result(kn_context *ctx, kn_tensor *work, int64_t top, int64_t left, kn_tensor *result) {
  if (work == result) return;
  kk_view to = kk_view_of(result), from = inner(work, result, top, left);
  kk_copy(ctx, &to, &from);
}

/* ---- the passes ---- */

/* For each weight of filter `o` and channel `ch` of its group: how far into x the pass begins. */
#define EACH_TAP                                                                                             \
  for (int64_t kh = 0; kh < c->kh; kh++)                                                                     \
    for (int64_t kw = 0, shift = kh * c->dilation[0] * c->w; kw < c->kw; kw++, shift += c->dilation[1])

/* to[i * to_step] += v * from[i * from_step] */
#define ADD_SCALED(T, E)                                                                                     \
  static void add_scaled_##E(T *restrict to, int64_t to_step, const T *restrict from, int64_t from_step,     \
                             T v, int64_t n) {                                                               \
    if (to_step == 1 && from_step == 1)                                                                      \
      for (int64_t i = 0; i < n; i++) to[i] += v * from[i];                                                  \
    else                                                                                                     \
      for (int64_t i = 0; i < n; i++) to[i * to_step] += v * from[i * from_step];                            \
  }                                                                                                          \
  /* Sum of a[i] * b[i * step], in eight sums side by side. */                                               \
  static T dot_##E(const T *a, const T *b, int64_t step, int64_t n) {                                        \
    T s[8] = {0}, sum = 0;                                                                                   \
    int64_t i = 0;                                                                                           \
    if (step == 1)                                                                                           \
      for (; i + 8 <= n; i += 8)                                                                             \
        for (int k = 0; k < 8; k++) s[k] += a[i + k] * b[i + k];                                             \
    for (; i < n; i++) sum += a[i] * b[i * step];                                                            \
    for (int k = 0; k < 8; k++) sum += s[k];                                                                 \
    return sum;                                                                                              \
  }
KK_FLOATS(ADD_SCALED)

/* y[image, o] += w · x, for planes image * filters + o in the range. */
#define FORWARD(T, E)                                                                                        \
  static void forward_##E(void *ud, int64_t begin, int64_t end) {                                            \
    const conv *c = ud;                                                                                      \
    for (int64_t plane = begin; plane < end; plane++) {                                                      \
      int64_t image = plane / c->filters, o = plane % c->filters;                                            \
      const T *w = (const T *)c->weight + o * c->per_group * c->kh * c->kw;                                  \
      const T *x =                                                                                           \
          (const T *)c->x + (image * c->channels + o / c->group_filters * c->per_group) * c->h * c->w;       \
      T *y = (T *)c->y + plane * c->oh * c->pitch;                                                           \
      const T start = c->bias ? ((const T *)c->bias)[o] : 0;                                                 \
      for (int64_t i = 0; i < c->oh * c->pitch; i++) y[i] = start;                                           \
      for (int64_t ch = 0; ch < c->per_group; ch++, x += c->h * c->w) EACH_TAP {                             \
          const T v = *w++;                                                                                  \
          for (int64_t r = 0; r < c->rows; r++)                                                              \
            add_scaled_##E(y + r * c->pitch, 1, x + shift + r * c->x_pitch, c->stride[1], v, c->length);     \
        }                                                                                                    \
    }                                                                                                        \
  }
KK_FLOATS(FORWARD)

/* x[image, channel] += w · y, for planes image * channels + channel in the range. */
#define GRAD_INPUT(T, E)                                                                                     \
  static void grad_input_##E(void *ud, int64_t begin, int64_t end) {                                         \
    const conv *c = ud;                                                                                      \
    for (int64_t plane = begin; plane < end; plane++) {                                                      \
      int64_t image = plane / c->channels, channel = plane % c->channels;                                    \
      int64_t first = channel / c->per_group * c->group_filters, ch = channel % c->per_group;                \
      T *x = (T *)c->x + plane * c->h * c->w;                                                                \
      memset(x, 0, (size_t)(c->h * c->w) * sizeof(T));                                                       \
      for (int64_t o = first; o < first + c->group_filters; o++) {                                           \
        const T *w = (const T *)c->weight + (o * c->per_group + ch) * c->kh * c->kw;                         \
        const T *y = (const T *)c->y + (image * c->filters + o) * c->oh * c->pitch;                          \
        EACH_TAP {                                                                                           \
          const T v = *w++;                                                                                  \
          for (int64_t r = 0; r < c->rows; r++)                                                              \
            add_scaled_##E(x + shift + r * c->x_pitch, c->stride[1], y + r * c->pitch, 1, v, c->length);     \
        }                                                                                                    \
      }                                                                                                      \
    }                                                                                                        \
  }
KK_FLOATS(GRAD_INPUT)

/* to[o, ch] = sum of y · x over all images, for planes o * per_group + ch in the range; images add in double.
 */
#define GRAD_WEIGHT(T, E)                                                                                    \
  static void grad_weight_##E(void *ud, int64_t begin, int64_t end) {                                        \
    const conv *c = ud;                                                                                      \
    for (int64_t plane = begin; plane < end; plane++) {                                                      \
      int64_t o = plane / c->per_group;                                                                      \
      int64_t channel = o / c->group_filters * c->per_group + plane % c->per_group;                          \
      T *to = (T *)c->to + plane * c->kh * c->kw;                                                            \
      EACH_TAP {                                                                                             \
        double sum = 0;                                                                                      \
        for (int64_t image = 0; image < c->images; image++) {                                                \
          const T *x = (const T *)c->x + (image * c->channels + channel) * c->h * c->w + shift;              \
          const T *y = (const T *)c->y + (image * c->filters + o) * c->oh * c->pitch;                        \
          for (int64_t r = 0; r < c->rows; r++)                                                              \
            sum += (double)dot_##E(y + r * c->pitch, x + r * c->x_pitch, c->stride[1], c->length);           \
        }                                                                                                    \
        *to++ = (T)sum;                                                                                      \
      }                                                                                                      \
    }                                                                                                        \
  }
KK_FLOATS(GRAD_WEIGHT)

/* ---- the kernels ---- */

typedef void (*range_fn)(void *, int64_t, int64_t);
#define ROW(name)                                                                                            \
  { [KN_F32] = name##_F32, [KN_F64] = name##_F64 }

/* `passes` for each of `count` parts. */
static void run(kn_context *ctx, conv *c, const range_fn fns[KN_DTYPE_COUNT], kn_dtype dtype, int64_t count,
                int64_t passes) {
  int64_t work = passes * c->rows * c->length;
  kn_parallel_for(ctx, count, KK_GRAIN / (work > 0 ? work : 1) + 1, fns[dtype], c);
}

WIDE_KERNEL(conv2d) {
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(forward);
  conv c = {0};
  set_sizes(&c, attrs, &in[0]->type, &in[1]->type, &out[0]->type);
  kn_tensor *as[2] = {NULL, NULL}, *x = NULL, *y = NULL;
  if (kn_tensor_numel(out[0]) == 0) return KN_OK;
  KN_TRY(kk_contiguous_all(ctx, in + 1, n - 1, as));
  kn_status st = padded_image(ctx, &c, in[0], &x);
  if (st == KN_OK) st = work_space(ctx, out[0], c.oh, c.pitch, &y);
  if (st == KN_OK) {
    c.x = kn_tensor_data(x), c.y = kn_tensor_data(y), c.weight = kn_tensor_data(as[0]);
    c.bias = as[1] ? kn_tensor_data(as[1]) : NULL;
    run(ctx, &c, fns, kn_tensor_dtype(y), c.images * c.filters, c.per_group * c.kh * c.kw);
    give_result(ctx, y, 0, 0, out[0]);
  }
  kk_release_all((kn_tensor *[]){as[0], as[1], x, y}, 4);
  return st;
}

WIDE_KERNEL(conv2d_grad_input) { /* g, w, x */
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(grad_input);
  (void)n;
  conv c = {0};
  set_sizes(&c, attrs, &in[2]->type, &in[1]->type, &in[0]->type);
  kn_tensor *w = NULL, *x = NULL, *y = NULL;
  if (kn_tensor_numel(out[0]) == 0) return KN_OK;
  kn_status st = kk_contiguous(ctx, in[1], &w);
  if (st == KN_OK) by_rows_unless_finite(&c, w);
  if (st == KN_OK) st = pitched_gradient(ctx, &c, in[0], &y);
  if (st == KN_OK) st = work_space(ctx, out[0], c.h, c.w, &x);
  if (st == KN_OK) {
    c.x = kn_tensor_data(x), c.y = kn_tensor_data(y), c.weight = kn_tensor_data(w);
    run(ctx, &c, fns, kn_tensor_dtype(x), c.images * c.channels, c.group_filters * c.kh * c.kw);
    give_result(ctx, x, c.padding[0], c.padding[1], out[0]);
  }
  kk_release_all((kn_tensor *[]){w, x, y}, 3);
  return st;
}

WIDE_KERNEL(conv2d_grad_weight) { /* g, x, w */
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(grad_weight);
  (void)n;
  conv c = {0};
  set_sizes(&c, attrs, &in[1]->type, &in[2]->type, &in[0]->type);
  kn_tensor *x = NULL, *y = NULL;
  kn_status st = padded_image(ctx, &c, in[1], &x);
  if (st == KN_OK) by_rows_unless_finite(&c, x);
  if (st == KN_OK) st = pitched_gradient(ctx, &c, in[0], &y);
  if (st == KN_OK) {
    c.x = kn_tensor_data(x), c.y = kn_tensor_data(y), c.to = kn_tensor_data(out[0]);
    run(ctx, &c, fns, kn_tensor_dtype(x), c.filters * c.per_group, c.images * c.kh * c.kw);
  }
  kk_release_all((kn_tensor *[]){x, y}, 2);
  return st;
}
