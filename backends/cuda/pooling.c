/* Pooling over windows of planes, and the gradients, as core/kernels/pool.c has them: a thread for each
 * element of the result, whose sums run in the same order. */
#include "backends/cuda/entries.h"
#include "backends/cuda/program.h"
#include "core/infer.h"

CU_ARGUMENT(pools, {
  const void *x;
  const void *g;
  void *to;
  i64 count;
  i32 h;
  i32 w;
  i32 oh;
  i32 ow;
  i32 kernel[2];
  i32 stride[2];
  i32 padding[2];
  i32 dilation[2];
  i32 channels;
  i64 divisor;
  i32 with_padding;
  i64 strides_x[4];
  i64 strides_g[4];
});

/* clang-format off */
static const char pool_source[] = CU_SOURCE(
    typedef struct window {
      i32 r0;
      i32 r1;
      i32 c0;
      i32 c1;
      double divisor;
    } window;
    typedef struct place {
      pos plane;
      i32 r;
      i32 c;
    } place;
    DEVICE place place_at(pos i, i32 rows, i32 columns) {
      pos row = i / (pos)columns, plane = row / (pos)rows;
      place a = {plane, (i32)(row - plane * (pos)rows), (i32)(i - row * (pos)columns)};
      return a;
    }
    DEVICE i32 cut(const pools *p, u32 i, i32 start, i32 size, i32 *begin, i32 *end) {
      i32 d = p->dilation[i], stop = start + (p->kernel[i] - 1) * d + 1, room = size + p->padding[i];
      *begin = start < 0 ? start + (-start + d - 1) / d * d : start;
      *end = stop > size ? size : stop;
      return p->with_padding ? (stop > room ? room : stop) - start : *end - *begin;
    }
    DEVICE window window_at(const pools *p, i32 r, i32 c) {
      window w;
      i32 rows = cut(p, 0, r * p->stride[0] - p->padding[0], p->h, &w.r0, &w.r1);
      i32 columns = cut(p, 1, c * p->stride[1] - p->padding[1], p->w, &w.c0, &w.c1);
      w.divisor = (double)(p->divisor ? p->divisor : (i64)rows * columns);
      return w;
    }
    DEVICE const E *plane_of(const pools *p, const void *x, const i64 *strides, pos plane) {
      pos n = plane / (pos)p->channels;
      return (const E *)x + (i64)n * strides[0] + (i64)(plane - n * (pos)p->channels) * strides[1];
    }
    DEVICE i64 largest(const pools *p, const E *x, i32 r, i32 c, T *value) {
      window w = window_at(p, r, c);
      i64 best = -1;
      T most = (T)-INF_F32;
      for (i32 i = w.r0; i < w.r1; i += p->dilation[0])
        for (i32 j = w.c0; j < w.c1; j += p->dilation[1]) {
          T v = GET(x[i * p->strides_x[2] + j * p->strides_x[3]]);
          if (best < 0 || v > most || (v != v && most == most)) {
            best = (i64)i * p->w + j;
            most = v;
          }
        }
      *value = most;
      return best;
    }
    DEVICE i32 extent(const pools *p, u32 i, i32 window, i32 size) {
      i32 start = window * p->stride[i] - p->padding[i], stop = start + p->kernel[i];
      if (p->with_padding) return (stop > size + p->padding[i] ? size + p->padding[i] : stop) - start;
      return (stop > size ? size : stop) - (start < 0 ? 0 : start);
    }
    DEVICE i32 first_window(const pools *p, u32 i, i32 at) {
      i32 reach = at + p->padding[i] - (p->kernel[i] - 1) * p->dilation[i];
      return reach <= 0 ? 0 : (reach + p->stride[i] - 1) / p->stride[i];
    }
    DEVICE i32 end_window(const pools *p, u32 i, i32 at, i32 windows) {
      i32 end = (at + p->padding[i]) / p->stride[i] + 1;
      return end < windows ? end : windows;
    });
/* clang-format on */

/* Of the windows: element i is window (r, c) of a plane. Of the image: element (r, c), which the windows (o,
 * p) may have, taken in order. */
/* clang-format off */
static const char pool_kernels[] = CU_SOURCE(
    KERNEL(256, max_pool)(pools q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        place o = place_at((pos)i, q.oh, q.ow);
        T most;
        i64 at = largest(&q, plane_of(&q, q.x, q.strides_x, o.plane), o.r, o.c, &most);
        if (at < 0) most = (T)-INF_F32;
        to[i] = PUT(most);
      }
    }
    KERNEL(256, max_places)(pools q) {
      i64 *to = (i64 *)q.to;
      EACH(i, q.count) {
        place o = place_at((pos)i, q.oh, q.ow);
        T most;
        i64 at = largest(&q, plane_of(&q, q.x, q.strides_x, o.plane), o.r, o.c, &most);
        to[i] = at < 0 ? 1 : at + 1;
      }
    }
    KERNEL(256, max_pool_grad)(pools q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        place a = place_at((pos)i, q.h, q.w);
        const E *x = plane_of(&q, q.x, q.strides_x, a.plane), *g = plane_of(&q, q.g, q.strides_g, a.plane);
        i32 r1 = end_window(&q, 0, a.r, q.oh), c1 = end_window(&q, 1, a.c, q.ow);
        T sum = 0, most;
        for (i32 o = first_window(&q, 0, a.r); o < r1; o++)
          for (i32 p = first_window(&q, 1, a.c); p < c1; p++)
            if (largest(&q, x, o, p, &most) == (i64)a.r * q.w + a.c) sum += GET(g[o * q.strides_g[2] + p * q.strides_g[3]]);
        to[i] = PUT(sum);
      }
    }
    KERNEL(256, avg_pool)(pools q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        place o = place_at((pos)i, q.oh, q.ow);
        const E *x = plane_of(&q, q.x, q.strides_x, o.plane);
        window w = window_at(&q, o.r, o.c);
        double sum = 0;
        for (i32 r = w.r0; r < w.r1; r++)
          for (i32 c = w.c0; c < w.c1; c++) sum += (double)GET(x[r * q.strides_x[2] + c * q.strides_x[3]]);
        T mean = (T)(sum / w.divisor);
        to[i] = PUT(mean);
      }
    }
    KERNEL(256, avg_pool_grad)(pools q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        place a = place_at((pos)i, q.h, q.w);
        const E *g = plane_of(&q, q.g, q.strides_g, a.plane);
        i32 r1 = end_window(&q, 0, a.r, q.oh), c1 = end_window(&q, 1, a.c, q.ow);
        T sum = 0;
        for (i32 o = first_window(&q, 0, a.r); o < r1; o++) {
          i32 rows = extent(&q, 0, o, q.h);
          for (i32 p = first_window(&q, 1, a.c); p < c1; p++) {
            i64 divisor = q.divisor ? q.divisor : (i64)rows * extent(&q, 1, p, q.w);
            sum += (T)((double)GET(g[o * q.strides_g[2] + p * q.strides_g[3]]) / (double)divisor);
          }
        }
        to[i] = PUT(sum);
      }
    });
/* clang-format on */

static void read_max(pools *q, const void *attrs) {
  const kn_attrs_pool2d *a = attrs;
  for (int i = 0; i < 2; i++) {
    q->kernel[i] = (i32)kn_ints_at(&a->kernel_size, i);
    q->stride[i] = (i32)kn_ints_at(&a->stride, i);
    q->padding[i] = (i32)kn_ints_at(&a->padding, i);
    q->dilation[i] = (i32)kn_ints_at(&a->dilation, i);
  }
}

static void read_avg(pools *q, const void *attrs) {
  const kn_attrs_avg_pool2d *a = attrs;
  for (int i = 0; i < 2; i++) {
    q->kernel[i] = (i32)kn_ints_at(&a->kernel_size, i);
    q->stride[i] = (i32)kn_ints_at(&a->stride, i);
    q->padding[i] = (i32)kn_ints_at(&a->padding, i);
    q->dilation[i] = 1;
  }
  q->with_padding = a->count_include_pad;
  q->divisor = a->divisor_override;
}

/* Of [N,C,H,W] or [C,H,W]. */
static void strides_of(const kn_tensor *t, i64 strides[4]) {
  int lead = 4 - t->type.rank;
  for (int d = 0; d < 4; d++) strides[d] = d < lead ? 0 : t->strides[d - lead];
}

/* x: the image, or a tensor of its sizes; g: NULL, or the gradient of the windows; `windows` has their sizes.
 */
static kn_status pool(kn_context *ctx, const char *kernel, pools q, const kn_tensor *x, const kn_tensor *g,
                      const kn_tensor *windows, kn_tensor *out) {
  const cu_program p = {"pool",
                        {pools_text, pool_source, pool_kernels},
                        .wide = cu_is_wide(kn_tensor_numel(out)),
                        .elements = CU_OF_DTYPE,
                        .dtype = kn_tensor_dtype(x)};
  int rows = x->type.rank - 2, columns = x->type.rank - 1;
  cu_device *d;
  for (int i = rows; i <= columns; i++) /* places are 32 bits */
    if (x->type.dims[i] > INT16_MAX * 1024 || windows->type.dims[i] > INT16_MAX * 1024) return KN_DECLINED;
  KN_TRY(cu_device_of(ctx, &d));
  for (int i = 0; i < 2; i++)
    if (q.stride[i] == 0) q.stride[i] = q.kernel[i];
  q.x = kn_tensor_data(x), q.g = g ? kn_tensor_data(g) : NULL, q.to = kn_tensor_data(out);
  q.count = kn_tensor_numel(out);
  q.channels = (i32)x->type.dims[rows - 1];
  q.h = (i32)x->type.dims[rows], q.w = (i32)x->type.dims[columns];
  q.oh = (i32)windows->type.dims[rows], q.ow = (i32)windows->type.dims[columns];
  strides_of(x, q.strides_x);
  if (g) strides_of(g, q.strides_g);
  return cu_start(ctx, d, &p, kernel, q.count, &q);
}

#define FORWARD(name, read, kernel)                                                                          \
  CU_ENTRY(name) {                                                                                           \
    pools q = {0};                                                                                           \
    (void)n;                                                                                                 \
    read(&q, attrs);                                                                                         \
    return pool(ctx, kernel, q, in[0], NULL, out[0], out[0]);                                                \
  }
#define BACKWARD(name, read, kernel)                                                                         \
  CU_ENTRY(name) {                                                                                           \
    pools q = {0};                                                                                           \
    (void)n;                                                                                                 \
    read(&q, attrs);                                                                                         \
    return pool(ctx, kernel, q, in[1], in[0], in[0], out[0]);                                                \
  }
FORWARD(max_pool2d, read_max, "max_pool")
FORWARD(max_pool2d_indices, read_max, "max_places")
FORWARD(avg_pool2d, read_avg, "avg_pool")
BACKWARD(max_pool2d_grad, read_max, "max_pool_grad")
BACKWARD(avg_pool2d_grad, read_avg, "avg_pool_grad")
