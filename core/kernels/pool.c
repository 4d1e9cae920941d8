/* Pooling over windows of the planes of an image, and the gradients. A plane is one thread's. Windows are cut
 * at the image's edges: padding counts as -inf for the largest, as zeros for the mean. */
#include "core/infer.h"
#include "core/kernels/kernel.h"
#include <math.h>

typedef struct pool {
  int64_t h, w, oh, ow; /* planes of x and of the windows */
  int64_t kernel[2], stride[2], padding[2];
  const void *x, *g; /* contiguous; those that the kernel needs */
  void *out;
} pool;

/* Window number o: rows [r0, r1) and columns [c0, c1) of the plane. */
typedef struct window {
  int64_t r0, r1, c0, c1;
} window;

static window window_at(const pool *p, int64_t o) {
  int64_t r = o / p->ow * p->stride[0] - p->padding[0], c = o % p->ow * p->stride[1] - p->padding[1];
  int64_t r1 = r + p->kernel[0], c1 = c + p->kernel[1];
  return (window){r < 0 ? 0 : r, r1 > p->h ? p->h : r1, c < 0 ? 0 : c, c1 > p->w ? p->w : c1};
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
  for (int64_t r = w.r0; r < w.r1; r++)                                                                      \
    for (int64_t i = r * p->w + w.c0; i < r * p->w + w.c1; i++)

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
      y[o] = (T)(sum / (double)(p->kernel[0] * p->kernel[1]));                                               \
    }                                                                                                        \
  })                                                                                                         \
  EACH_PLANE(avg_grad_##E, {                                                                                 \
    const T *g = (const T *)p->g + plane * windows;                                                          \
    T *dx = (T *)p->out + plane * elements;                                                                  \
    memset(dx, 0, (size_t)elements * sizeof(T));                                                             \
    EACH_WINDOW {                                                                                            \
      const window w = window_at(p, o);                                                                      \
      const T share = (T)((double)g[o] / (double)(p->kernel[0] * p->kernel[1]));                             \
      EACH_ELEMENT dx[i] += share;                                                                           \
    }                                                                                                        \
  })
KK_FLOATS(POOLS)

typedef void (*range_fn)(void *, int64_t, int64_t);
#define ROW(name)                                                                                            \
  { [KN_F32] = name##_F32, [KN_F64] = name##_F64 }

/* x: the image, or a tensor of its sizes; windows: the pooled result, or its gradient. */
static void run(kn_context *ctx, pool *p, const kn_attrs_pool2d *a, const kn_type *x, const kn_type *windows,
                const range_fn fns[KN_DTYPE_COUNT], kn_tensor *out) {
  for (int i = 0; i < 2; i++) {
    p->kernel[i] = kn_ints_at(&a->kernel_size, i);
    p->stride[i] = kn_ints_at(&a->stride, i);
    if (p->stride[i] == 0) p->stride[i] = p->kernel[i];
    p->padding[i] = kn_ints_at(&a->padding, i);
  }
  p->h = x->dims[2], p->w = x->dims[3], p->oh = windows->dims[2], p->ow = windows->dims[3];
  p->out = kn_tensor_data(out);
  int64_t work = p->oh * p->ow * p->kernel[0] * p->kernel[1];
  kn_parallel_for(ctx, x->dims[0] * x->dims[1], KK_GRAIN / (work > 0 ? work : 1) + 1,
                  fns[kn_tensor_dtype(out)], p);
}

static kn_status forward(kn_context *ctx, const void *attrs, kn_tensor *in,
                         const range_fn fns[KN_DTYPE_COUNT], kn_tensor *out) {
  kn_tensor *x;
  KN_TRY(kk_contiguous(ctx, in, &x));
  pool p = {.x = kn_tensor_data(x)};
  run(ctx, &p, attrs, &x->type, &out->type, fns, out);
  kn_tensor_release(x);
  return KN_OK;
}

/* in: gradient of the windows, image */
static kn_status backward(kn_context *ctx, const void *attrs, kn_tensor *const *in,
                          const range_fn fns[KN_DTYPE_COUNT], kn_tensor *out) {
  kn_tensor *as[2];
  KN_TRY(kk_contiguous_all(ctx, in, 2, as));
  pool p = {.g = kn_tensor_data(as[0]), .x = kn_tensor_data(as[1])};
  run(ctx, &p, attrs, &as[1]->type, &as[0]->type, fns, out);
  kk_release_all(as, 2);
  return KN_OK;
}

WIDE_KERNEL(max_pool2d) {
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(max);
  (void)n;
  return forward(ctx, attrs, in[0], fns, out[0]);
}

WIDE_KERNEL(avg_pool2d) {
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(avg);
  (void)n;
  return forward(ctx, attrs, in[0], fns, out[0]);
}

WIDE_KERNEL(max_pool2d_grad) {
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(max_grad);
  (void)n;
  return backward(ctx, attrs, in, fns, out[0]);
}

WIDE_KERNEL(avg_pool2d_grad) {
  static const range_fn fns[KN_DTYPE_COUNT] = ROW(avg_grad);
  (void)n;
  return backward(ctx, attrs, in, fns, out[0]);
}
