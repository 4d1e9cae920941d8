/* Pooling over windows of the planes of an image, and the gradients. A plane is one thread's. Windows are cut
 * at the image's edges: padding counts as -inf for the largest, for the mean as zeros or not at all. */
#include "core/infer.h"
#include "core/kernels/kernel.h"
#include <math.h>

typedef struct pool {
  int64_t h, w, oh, ow; /* planes of x and of the windows */
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool with_padding; /* of the mean: padding counts */
  int64_t divisor;   /* of the mean; 0: what counts */
  const void *x, *g; /* contiguous; those that the kernel needs */
  void *out;
} pool;

/* Window number o: rows r0, r0 + dilation … below r1 and columns likewise, all on the plane; what the mean is
 * divided by. */
typedef struct window {
  int64_t r0, r1, c0, c1;
  double divisor;
} window;

/* Dim i of a window that begins at `start`: cut to [*begin, *end); gives how many elements count for the
 * mean. */
static int64_t cut(const pool *p, int i, int64_t start, int64_t size, int64_t *begin, int64_t *end) {
  int64_t d = p->dilation[i], stop = start + (p->kernel[i] - 1) * d + 1, room = size + p->padding[i];
  *begin = start < 0 ? start + (-start + d - 1) / d * d : start;
  *end = stop > size ? size : stop;
  return p->with_padding ? (stop > room ? room : stop) - start : *end - *begin;
}

static window window_at(const pool *p, int64_t o) {
  window w;
  int64_t rows = cut(p, 0, o / p->ow * p->stride[0] - p->padding[0], p->h, &w.r0, &w.r1);
  int64_t columns = cut(p, 1, o % p->ow * p->stride[1] - p->padding[1], p->w, &w.c0, &w.c1);
  w.divisor = (double)(p->divisor ? p->divisor : rows * columns);
  return w;
}

/* One function of ranges of planes for each kernel and dtype; i is an element's place in the plane. */
#define EACH_PLANE(fn, BODY)                                                                                 \
  static void fn(void *ud, int64_t begin, int64_t end) {                                                     \
    const pool *p = ud;                                                                                      \
    const int64_t elements = p->h * p->w, windows = p->oh * p->ow;                                           \
    for (int64_t plane = begin; plane < end; plane++) BODY                                                   \
  }
#define EACH_WINDOW for (int64_t o = 0; o < windows; o++)
#define EACH_ELEMENT                                                                                         \
  for (int64_t r = w.r0; r < w.r1; r += p->dilation[0])                                                      \
    for (int64_t i = r * p->w + w.c0; i < r * p->w + w.c1; i += p->dilation[1])

/* Place of the first largest element of a window, nan before all; -1 when the window is all padding. */
#define LARGEST(T, E)                                                                                        \
  static int64_t largest_##E(const pool *p, const T *x, window w) {                                          \
    int64_t best = -1;                                                                                       \
    EACH_ELEMENT if (best < 0 || x[i] > x[best] || (x[i] != x[i] && x[best] == x[best])) best = i;           \
    return best;                                                                                             \
  }
KK_FLOATS(LARGEST)

#define POOLS(T, E)                                                                                          \
  EACH_PLANE(max_##E, {                                                                                      \
    const T *x = (const T *)p->x + plane * elements;                                                         \
    T *y = (T *)p->out + plane * windows;                                                                    \
    EACH_WINDOW {                                                                                            \
      int64_t at = largest_##E(p, x, window_at(p, o));                                                       \
      y[o] = at < 0 ? (T)-INFINITY : x[at];                                                                  \
    }                                                                                                        \
  })                                                                                                         \
  EACH_PLANE(places_##E, {                                                                                   \
    const T *x = (const T *)p->x + plane * elements;                                                         \
    int64_t *y = (int64_t *)p->out + plane * windows;                                                        \
    EACH_WINDOW {                                                                                            \
      int64_t at = largest_##E(p, x, window_at(p, o));                                                       \
      y[o] = at < 0 ? 1 : at + 1;                                                                            \
    }                                                                                                        \
  })                                                                                                         \
  EACH_PLANE(max_grad_##E, {                                                                                 \
    const T *x = (const T *)p->x + plane * elements;                                                         \
    const T *g = (const T *)p->g + plane * windows;                                                          \
    T *dx = (T *)p->out + plane * elements;                                                                  \
    memset(dx, 0, (size_t)elements * sizeof(T));                                                             \
    EACH_WINDOW {                                                                                            \
      int64_t at = largest_##E(p, x, window_at(p, o));                                                       \
      if (at >= 0) dx[at] += g[o];                                                                           \
    }                                                                                                        \
  })                                                                                                         \
  EACH_PLANE(avg_##E, {                                                                                      \
    const T *x = (const T *)p->x + plane * elements;                                                         \
    T *y = (T *)p->out + plane * windows;                                                                    \
    EACH_WINDOW {                                                                                            \
      const window w = window_at(p, o);                                                                      \
      double sum = 0;                                                                                        \
      EACH_ELEMENT sum += (double)x[i];                                                                      \
      y[o] = (T)(sum / w.divisor);                                                                           \
    }                                                                                                        \
  })                                                                                                         \
  EACH_PLANE(avg_grad_##E, {                                                                                 \
    const T *g = (const T *)p->g + plane * windows;                                                          \
    T *dx = (T *)p->out + plane * elements;                                                                  \
    memset(dx, 0, (size_t)elements * sizeof(T));                                                             \
    EACH_WINDOW {                                                                                            \
      const window w = window_at(p, o);                                                                      \
      const T share = (T)((double)g[o] / w.divisor);                                                         \
      EACH_ELEMENT dx[i] += share;                                                                           \
    }                                                                                                        \
  })
KK_FLOATS(POOLS)

typedef void (*range_fn)(void *, int64_t, int64_t);
#define ROW(name)                                                                                            \
  { [KN_F32] = name##_F32, [KN_F64] = name##_F64 }

static void read_max(pool *p, const void *attrs) {
  const kn_attrs_pool2d *a = attrs;
  for (int i = 0; i < 2; i++) {
    p->kernel[i] = kn_ints_at(&a->kernel_size, i);
    p->stride[i] = kn_ints_at(&a->stride, i);
    p->padding[i] = kn_ints_at(&a->padding, i);
    p->dilation[i] = kn_ints_at(&a->dilation, i);
  }
}

static void read_avg(pool *p, const void *attrs) {
  const kn_attrs_avg_pool2d *a = attrs;
  for (int i = 0; i < 2; i++) {
    p->kernel[i] = kn_ints_at(&a->kernel_size, i);
    p->stride[i] = kn_ints_at(&a->stride, i);
    p->padding[i] = kn_ints_at(&a->padding, i);
    p->dilation[i] = 1;
  }
  p->with_padding = a->count_include_pad;
  p->divisor = a->divisor_override;
}

/* x: the image, or a tensor of its sizes; windows: the pooled result, or its gradient. */
static void run(kn_context *ctx, pool *p, const kn_type *x, const kn_type *windows,
                const range_fn fns[KN_DTYPE_COUNT], kn_tensor *out) {
  int rows = x->rank - 2, columns = x->rank - 1;
  int64_t planes = x->rank == 4 ? x->dims[0] * x->dims[1] : x->dims[0];
  for (int i = 0; i < 2; i++)
    if (p->stride[i] == 0) p->stride[i] = p->kernel[i];
  p->h = x->dims[rows], p->w = x->dims[columns], p->oh = windows->dims[rows], p->ow = windows->dims[columns];
  p->out = kn_tensor_data(out);
  int64_t work = p->oh * p->ow * p->kernel[0] * p->kernel[1];
  kn_parallel_for(ctx, planes, KK_GRAIN / (work > 0 ? work : 1) + 1, fns[x->dtype], p);
}

static kn_status forward(kn_context *ctx, pool *p, kn_tensor *in, const range_fn fns[KN_DTYPE_COUNT],
                         kn_tensor *out) {
  kk_dense x;
  KN_TRY(kk_dense_all(ctx, &in, 1, &x));
  p->x = x.data[0];
  run(ctx, p, &in->type, &out->type, fns, out);
  kk_dense_give(ctx, &x);
  return KN_OK;
}

/* in: gradient of the windows, image */
static kn_status backward(kn_context *ctx, pool *p, kn_tensor *const *in, const range_fn fns[KN_DTYPE_COUNT],
                          kn_tensor *out) {
  kk_dense as;
  KN_TRY(kk_dense_all(ctx, in, 2, &as));
  p->g = as.data[0], p->x = as.data[1];
  run(ctx, p, &in[1]->type, &in[0]->type, fns, out);
  kk_dense_give(ctx, &as);
  return KN_OK;
}

#define FORWARD(name, read, pass)                                                                            \
  WIDE_KERNEL(name) {                                                                                        \
    static const range_fn fns[KN_DTYPE_COUNT] = ROW(pass);                                                   \
    (void)n;                                                                                                 \
    pool p = {0};                                                                                            \
    read(&p, attrs);                                                                                         \
    return forward(ctx, &p, in[0], fns, out[0]);                                                             \
  }
#define BACKWARD(name, read, pass)                                                                           \
  WIDE_KERNEL(name) {                                                                                        \
    static const range_fn fns[KN_DTYPE_COUNT] = ROW(pass);                                                   \
    (void)n;                                                                                                 \
    pool p = {0};                                                                                            \
    read(&p, attrs);                                                                                         \
    return backward(ctx, &p, in, fns, out[0]);                                                               \
  }
FORWARD(max_pool2d, read_max, max)
FORWARD(max_pool2d_indices, read_max, places)
FORWARD(avg_pool2d, read_avg, avg)
BACKWARD(max_pool2d_grad, read_max, max_grad)
BACKWARD(avg_pool2d_grad, read_avg, avg_grad)
