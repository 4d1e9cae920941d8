/* conv2d as a blocked product: filters [filters, channels x taps] times the image's windows [channels x taps,
 * places], of all images side by side. The windows are never written out: the images are laid into a padded
 * copy, apart by phases of the stride, in which the elements that one tap meets along a row of the result lie
 * one after the other, and panels are packed from runs of it. Compiled once. */
#include "backends/cpu/gemm.h"
#include "core/infer.h"
#include "core/kernels/kernel.h"
#include "core/parallel.h"

enum { MOST_TAPS = 64, FARTHEST = 1 << 20 }; /* beyond it others compute: products stay far from overflow */

typedef struct windows {
  const cp_kit *kit;
  const char *x; /* [images, channels, h, w] */
  char *copy;    /* [images, channels, phases down, phases across, rows, pitch] */
  int64_t images, channels, h, w, padding[2], stride[2];
  int64_t rows, pitch, plane, image; /* of a phase; elements of a channel's phases, of an image's */
  int64_t taps, tap[MOST_TAPS];      /* where each begins in a channel's phases */
  int64_t oh, ow, run;               /* of the result; places that lie one after the other in the copy */
  int64_t first;                     /* channel of the group */
  bool used[MOST_TAPS];              /* phases that some tap meets */
} windows;

/* ---- the copy ---- */

/* Every `stride`th element of a row, from `first` on. */
static void pick(int64_t size, const char *from, int64_t first, int64_t stride, int64_t w, char *to) {
  if (stride == 1) {
    memcpy(to, from + first * size, (size_t)((w - first) * size));
  } else if (size == sizeof(float)) {
    const float *x = (const float *)(const void *)from;
    float *y = (float *)(void *)to;
    for (int64_t i = first; i < w; i += stride) *y++ = x[i];
  } else {
    const double *x = (const double *)(const void *)from;
    double *y = (double *)(void *)to;
    for (int64_t i = first; i < w; i += stride) *y++ = x[i];
  }
}

/* The phases that no tap meets are left as they are. */
static void lay_channels(void *ud, int64_t begin, int64_t end) {
  const windows *v = ud;
  int64_t size = v->kit->size, phase = v->rows * v->pitch;
  for (int64_t c = begin; c < end; c++) {
    const char *from = v->x + c * v->h * v->w * size;
    char *to = v->copy + c * v->plane * size;
    if (v->padding[0] || v->padding[1]) memset(to, 0, (size_t)(v->plane * size));
    for (int64_t y = 0; y < v->h; y++, from += v->w * size) {
      int64_t down = y + v->padding[0];
      for (int64_t across = 0; across < v->stride[1]; across++) {
        int64_t at = down % v->stride[0] * v->stride[1] + across, first = across - v->padding[1];
        if (!v->used[at]) continue;
        while (first < 0) first += v->stride[1];
        if (first >= v->w) continue;
        char *row = to + (at * phase + down / v->stride[0] * v->pitch) * size;
        pick(size, from, first, v->stride[1], v->w, row + (first + v->padding[1]) / v->stride[1] * size);
      }
    }
  }
}

/* ---- a panel ---- */

static void pack_windows(const cp_gemm *g, int64_t p, int64_t k, int64_t j, int64_t width, char *to) {
  const windows *v = g->source;
  int64_t start[CP_MOST_COLUMNS], offset[CP_MOST_COLUMNS], count = 0, places = v->oh * v->ow;
  for (int64_t i = 0; i < width; count++) {
    int64_t image = (j + i) / places, at = (j + i) % places, in = at % v->run, left = v->run - in;
    start[count] = i;
    offset[count] = image * v->image + at / v->run * v->pitch + in;
    i += left;
  }
  const cp_kit *kit = v->kit;
  int64_t channel = v->first + p / v->taps, tap = p % v->taps;
  for (int64_t i = 0; i < k; i++, to += kit->columns * kit->size) {
    kit->runs(count, start, offset, v->copy + (channel * v->plane + v->tap[tap]) * kit->size, to, i == k - 1);
    if (++tap == v->taps) tap = 0, channel++;
  }
}

/* ---- the op ---- */

static bool set(windows *v, const kn_attrs_conv2d *a, const kn_type *x, const kn_type *w, const kn_type *y) {
  v->images = x->dims[0], v->channels = x->dims[1], v->h = x->dims[2], v->w = x->dims[3];
  v->oh = y->dims[2], v->ow = y->dims[3];
  int64_t kernel[2] = {w->dims[2], w->dims[3]}, dilation[2], size[2];
  for (int i = 0; i < 2; i++) {
    v->stride[i] = kn_ints_at(&a->stride, i);
    v->padding[i] = kn_ints_at(&a->padding, i);
    dilation[i] = kn_ints_at(&a->dilation, i);
    if (v->stride[i] > FARTHEST || v->padding[i] > FARTHEST || dilation[i] > FARTHEST) return false;
    size[i] = (x->dims[2 + i] + 2 * v->padding[i] + v->stride[i] - 1) / v->stride[i];
  }
  v->rows = size[0], v->pitch = size[1];
  if (__builtin_mul_overflow(v->rows * v->stride[0], v->pitch * v->stride[1], &v->plane) ||
      __builtin_mul_overflow(v->channels, v->plane, &v->image))
    return false;
  v->run = v->pitch == v->ow ? v->oh * v->ow : v->ow;
  v->taps = kernel[0] * kernel[1];
  if (v->taps > MOST_TAPS || v->stride[0] * v->stride[1] > MOST_TAPS) return false;
  for (int64_t i = 0; i < kernel[0]; i++)
    for (int64_t j = 0; j < kernel[1]; j++) {
      int64_t down = i * dilation[0], across = j * dilation[1];
      v->used[down % v->stride[0] * v->stride[1] + across % v->stride[1]] = true;
      v->tap[i * kernel[1] + j] =
          ((down % v->stride[0] * v->stride[1] + across % v->stride[1]) * v->rows + down / v->stride[0]) *
              v->pitch +
          across / v->stride[1];
    }
  return true;
}

/* Which problems are better off elsewhere: with few filters or a short sum packing is most of the work. */
static bool suits(const windows *v, int64_t filters, int64_t k) {
  return filters >= 8 && k >= 8 && v->images * v->oh * v->ow >= 16;
}

static kn_status run(kn_context *ctx, windows *v, const kn_attrs_conv2d *a, const kn_type *wt, const char *w,
                     const char *bias, char *y) {
  const cp_kit *kit = v->kit;
  int64_t places = v->oh * v->ow, filters = wt->dims[0] / a->groups;
  cp_gemm g = {.kit = kit,
               .m = filters,
               .n = v->images * places,
               .k = wt->dims[1] * v->taps,
               .a_row = wt->dims[1] * v->taps,
               .a_column = 1,
               .c_row = places,
               .group = v->images > 1 ? places : 0,
               .group_step = wt->dims[0] * places,
               .pack_b = pack_windows,
               .source = v};
  kn_status st = KN_OK;
  for (int64_t i = 0; i < a->groups && st == KN_OK; i++) {
    v->first = i * wt->dims[1];
    g.a = w + i * filters * g.k * kit->size;
    g.c = y + i * filters * places * kit->size;
    g.bias = bias ? bias + i * filters * kit->size : NULL;
    st = cp_gemm_run(ctx, &g);
  }
  return st;
}

kn_status cp_conv2d(kn_context *ctx, const cp_kit *const kits[KN_DTYPE_COUNT], const void *attrs,
                    kn_tensor *const *in, int n, kn_tensor *out) {
  const kn_attrs_conv2d *a = attrs;
  windows v = {.kit = kits[kn_tensor_dtype(out)]};
  if (!v.kit || kn_dtypes[kn_tensor_dtype(out)].category != KN_CAT_FLOAT || !kn_tensor_numel(out) ||
      !set(&v, a, &in[0]->type, &in[1]->type, &out->type) ||
      !suits(&v, in[1]->type.dims[0] / a->groups, in[1]->type.dims[1] * v.taps))
    return KN_DECLINED;
  kk_dense dense;
  KN_TRY(kk_dense_all(ctx, in, n, &dense));
  v.x = dense.data[0];
  size_t bytes = (size_t)(v.images * v.image + v.kit->columns) * (size_t)v.kit->size;
  v.copy = kn_scratch_take(ctx, bytes);
  kn_status st = v.copy ? KN_OK : kn_fail_nomem(ctx, bytes);
  if (st == KN_OK) {
    kn_parallel_for(ctx, v.images * v.channels, KK_GRAIN / (v.plane + 1) + 1, lay_channels, &v);
    st = run(ctx, &v, a, &in[1]->type, dense.data[1], n > 2 ? dense.data[2] : NULL, kn_tensor_data(out));
    kn_scratch_give(ctx, v.copy, bytes);
  }
  kk_dense_give(ctx, &dense);
  return st;
}
