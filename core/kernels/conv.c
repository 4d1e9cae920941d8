/* conv2d and its two gradients, as direct loops whose innermost runs along a row of the image. Each output
 * plane (for the weight's gradient: each filter) is one thread's, so sums have one order. */
#include "core/infer.h"
#include "core/kernels/kernel.h"

typedef struct conv {
  int64_t images, channels, h, w;     /* x [images, channels, h, w] */
  int64_t filters, per_group, kh, kw; /* weight [filters, per_group, kh, kw] */
  int64_t oh, ow;                     /* y [images, filters, oh, ow] */
  int64_t group_filters;              /* filters of one group */
  int64_t stride[2], padding[2], dilation[2];
  const void *x, *weight, *bias, *g; /* contiguous; those that the kernel needs */
  void *out;
} conv;

static void set_sizes(conv *c, const kn_attrs_conv2d *a, const kn_tensor *x, const kn_tensor *weight,
                      const kn_tensor *y) {
  const int64_t *xd = x->type.dims, *wd = weight->type.dims, *yd = y->type.dims;
  c->images = xd[0], c->channels = xd[1], c->h = xd[2], c->w = xd[3];
  c->filters = wd[0], c->per_group = wd[1], c->kh = wd[2], c->kw = wd[3];
  c->oh = yd[2], c->ow = yd[3];
  c->group_filters = c->filters / a->groups;
  for (int i = 0; i < 2; i++) {
    c->stride[i] = kn_ints_at(&a->stride, i);
    c->padding[i] = kn_ints_at(&a->padding, i);
    c->dilation[i] = kn_ints_at(&a->dilation, i);
  }
}

/* Output positions [*begin, *end) of `count` whose tap `k` falls inside `size` elements; *first is where the
 * tap of *begin falls. */
static void inside(const conv *c, int dim, int64_t k, int64_t size, int64_t count, int64_t *begin,
                   int64_t *end, int64_t *first) {
  int64_t shift = k * c->dilation[dim] - c->padding[dim], s = c->stride[dim];
  *begin = shift < 0 ? (-shift + s - 1) / s : 0;
  *end = size > shift ? (size - shift - 1) / s + 1 : 0;
  if (*end > count) *end = count;
  *first = *begin * s + shift;
}

/* For one weight w[o, c, kh, kw]: rows of the output plane against rows of the image plane. ROW is the work
 * on n outputs at y whose taps are at x, x + sx, … */
#define EACH_ROW(PLANE_Y, PLANE_X, ROW)                                                                      \
  do {                                                                                                       \
    int64_t r0, r1, ry, c0, c1, rx;                                                                          \
    inside(c, 0, kh, c->h, c->oh, &r0, &r1, &ry);                                                            \
    inside(c, 1, kw, c->w, c->ow, &c0, &c1, &rx);                                                            \
    const int64_t n = c1 - c0, sx = c->stride[1];                                                            \
    if (n <= 0) break;                                                                                       \
    for (int64_t r = r0; r < r1; r++, ry += c->stride[0]) {                                                  \
      const int64_t at_y = (PLANE_Y)*c->oh * c->ow + r * c->ow + c0;                                         \
      const int64_t at_x = (PLANE_X)*c->h * c->w + ry * c->w + rx;                                           \
      ROW                                                                                                    \
    }                                                                                                        \
  } while (0)

/* y[image, o] += w · x, for planes image * filters + o in the range. */
#define FORWARD(T, E)                                                                                        \
  static void forward_##E(void *ud, int64_t begin, int64_t end) {                                            \
    const conv *c = ud;                                                                                      \
    for (int64_t plane = begin; plane < end; plane++) {                                                      \
      int64_t image = plane / c->filters, o = plane % c->filters;                                            \
      int64_t channel0 = o / c->group_filters * c->per_group;                                                \
      T *out = (T *)c->out + plane * c->oh * c->ow;                                                          \
      const T start = c->bias ? ((const T *)c->bias)[o] : 0;                                                 \
      for (int64_t i = 0; i < c->oh * c->ow; i++) out[i] = start;                                            \
      const T *w = (const T *)c->weight + o * c->per_group * c->kh * c->kw;                                  \
      for (int64_t ch = 0; ch < c->per_group; ch++)                                                          \
        for (int64_t kh = 0; kh < c->kh; kh++)                                                               \
          for (int64_t kw = 0; kw < c->kw; kw++) {                                                           \
            const T v = *w++;                                                                                \
            EACH_ROW(plane, image * c->channels + channel0 + ch, {                                           \
              T *restrict y = (T *)c->out + at_y;                                                            \
              const T *restrict x = (const T *)c->x + at_x;                                                  \
              if (sx == 1)                                                                                   \
                for (int64_t i = 0; i < n; i++) y[i] += v * x[i];                                            \
              else                                                                                           \
                for (int64_t i = 0; i < n; i++) y[i] += v * x[i * sx];                                       \
            });                                                                                              \
          }                                                                                                  \
    }                                                                                                        \
  }
KK_FLOATS(FORWARD)

/* dx[image, channel] += w · g, for planes image * channels + channel in the range. */
#define GRAD_INPUT(T, E)                                                                                     \
  static void grad_input_##E(void *ud, int64_t begin, int64_t end) {                                         \
    const conv *c = ud;                                                                                      \
    for (int64_t plane = begin; plane < end; plane++) {                                                      \
      int64_t image = plane / c->channels, channel = plane % c->channels;                                    \
      int64_t group = channel / c->per_group, ch = channel % c->per_group;                                   \
      memset((T *)c->out + plane * c->h * c->w, 0, (size_t)(c->h * c->w) * sizeof(T));                       \
      for (int64_t o = group * c->group_filters; o < (group + 1) * c->group_filters; o++) {                  \
        const T *w = (const T *)c->weight + (o * c->per_group + ch) * c->kh * c->kw;                         \
        for (int64_t kh = 0; kh < c->kh; kh++)                                                               \
          for (int64_t kw = 0; kw < c->kw; kw++) {                                                           \
            const T v = *w++;                                                                                \
            EACH_ROW(image * c->filters + o, plane, {                                                        \
              T *restrict x = (T *)c->out + at_x;                                                            \
              const T *restrict g = (const T *)c->g + at_y;                                                  \
              if (sx == 1)                                                                                   \
                for (int64_t i = 0; i < n; i++) x[i] += v * g[i];                                            \
              else                                                                                           \
                for (int64_t i = 0; i < n; i++) x[i * sx] += v * g[i];                                       \
            });                                                                                              \
          }                                                                                                  \
      }                                                                                                      \
    }                                                                                                        \
  }
KK_FLOATS(GRAD_INPUT)

/* dw[o] = sum of g · x over all images; a row's sum in T, the rows' in double. */
#define GRAD_WEIGHT(T, E)                                                                                    \
  static void grad_weight_##E(void *ud, int64_t begin, int64_t end) {                                        \
    const conv *c = ud;                                                                                      \
    for (int64_t o = begin; o < end; o++) {                                                                  \
      int64_t channel0 = o / c->group_filters * c->per_group;                                                \
      T *to = (T *)c->out + o * c->per_group * c->kh * c->kw;                                                \
      for (int64_t ch = 0; ch < c->per_group; ch++)                                                          \
        for (int64_t kh = 0; kh < c->kh; kh++)                                                               \
          for (int64_t kw = 0; kw < c->kw; kw++) {                                                           \
            double sum = 0;                                                                                  \
            for (int64_t image = 0; image < c->images; image++)                                              \
              EACH_ROW(image * c->filters + o, image * c->channels + channel0 + ch, {                        \
                const T *x = (const T *)c->x + at_x;                                                         \
                const T *g = (const T *)c->g + at_y;                                                         \
                T row = 0;                                                                                   \
                for (int64_t i = 0; i < n; i++) row += g[i] * x[i * sx];                                     \
                sum += (double)row;                                                                          \
              });                                                                                            \
            *to++ = (T)sum;                                                                                  \
          }                                                                                                  \
    }                                                                                                        \
  }
KK_FLOATS(GRAD_WEIGHT)

typedef void (*range_fn)(void *, int64_t, int64_t);
#define ROW(name)                                                                                            \
  { [KN_F32] = name##_F32, [KN_F64] = name##_F64 }

/* `work` multiply-adds for each of `count` parts. */
static void run(kn_context *ctx, conv *c, const range_fn fns[KN_DTYPE_COUNT], kn_tensor *out, int64_t count,
                int64_t work) {
  c->out = kn_tensor_data(out);
  kn_parallel_for(ctx, count, KK_GRAIN / (work > 0 ? work : 1) + 1, fns[kn_tensor_dtype(out)], c);
}

KERNEL(conv2d) {
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(forward);
  kn_tensor *as[3];
  KN_TRY(kk_contiguous_all(ctx, in, n, as));
  conv c = {.x = kn_tensor_data(as[0]),
            .weight = kn_tensor_data(as[1]),
            .bias = n == 3 ? kn_tensor_data(as[2]) : NULL};
  set_sizes(&c, attrs, as[0], as[1], out[0]);
  run(ctx, &c, fns, out[0], c.images * c.filters, c.oh * c.ow * c.per_group * c.kh * c.kw);
  kk_release_all(as, n);
  return KN_OK;
}

KERNEL(conv2d_grad_input) { /* g, w, x */
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(grad_input);
  (void)n;
  kn_tensor *as[2];
  KN_TRY(kk_contiguous_all(ctx, in, 2, as));
  conv c = {.g = kn_tensor_data(as[0]), .weight = kn_tensor_data(as[1])};
  set_sizes(&c, attrs, in[2], as[1], as[0]);
  run(ctx, &c, fns, out[0], c.images * c.channels, c.oh * c.ow * c.group_filters * c.kh * c.kw);
  kk_release_all(as, 2);
  return KN_OK;
}

KERNEL(conv2d_grad_weight) { /* g, x, w */
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(grad_weight);
  (void)n;
  kn_tensor *as[2];
  KN_TRY(kk_contiguous_all(ctx, in, 2, as));
  conv c = {.g = kn_tensor_data(as[0]), .x = kn_tensor_data(as[1])};
  set_sizes(&c, attrs, as[1], in[2], as[0]);
  run(ctx, &c, fns, out[0], c.filters, c.images * c.oh * c.ow * c.per_group * c.kh * c.kw);
  kk_release_all(as, 2);
  return KN_OK;
}
