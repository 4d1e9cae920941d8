/* The gradient of max pooling by the windows that most networks have: two by two, side by side. Each element
 * is in one window at most, so that it is written once, without looking for places. All others are declined.
 * Compiled once. */
#include "backends/cpu/pool.h"
#include "core/infer.h"
#include <string.h>

typedef struct pool {
  int64_t h, w, oh, ow; /* planes of x and of the windows */
  const void *g, *x;
  void *to;
} pool;

/* Is b chosen where a was so far: larger, or the first nan? */
#define BEATS(b, a) ((b) > (a) || ((b) != (b) && (a) == (a)))

/* A sum with zero, as the reference adds to zeros: it makes of -0 a 0. */
#define PLANES(T, E)                                                                                         \
  static void row_##E(T *restrict d0, T *restrict d1, const T *restrict x0, const T *restrict x1,            \
                      const T *restrict g, int64_t n) {                                                      \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T a = x0[2 * i], b = x0[2 * i + 1], c = x1[2 * i], d = x1[2 * i + 1], v = g[i] + (T)0;           \
      const int at_b = BEATS(b, a);                                                                          \
      const T ab = at_b ? b : a;                                                                             \
      const int at_c = BEATS(c, ab);                                                                         \
      const T abc = at_c ? c : ab;                                                                           \
      const int at_d = BEATS(d, abc);                                                                        \
      d0[2 * i] = at_b | at_c | at_d ? (T)0 : v;                                                             \
      d0[2 * i + 1] = (at_b ^ 1) | at_c | at_d ? (T)0 : v;                                                   \
      d1[2 * i] = (at_c ^ 1) | at_d ? (T)0 : v;                                                              \
      d1[2 * i + 1] = at_d ? v : (T)0;                                                                       \
    }                                                                                                        \
  }                                                                                                          \
  static void planes_##E(void *ud, int64_t begin, int64_t end) {                                             \
    const pool *p = ud;                                                                                      \
    for (int64_t plane = begin; plane < end; plane++) {                                                      \
      const T *x = (const T *)p->x + plane * p->h * p->w, *g = (const T *)p->g + plane * p->oh * p->ow;      \
      T *to = (T *)p->to + plane * p->h * p->w;                                                              \
      if (p->h != 2 * p->oh || p->w != 2 * p->ow) memset(to, 0, (size_t)(p->h * p->w) * sizeof(T));          \
      for (int64_t r = 0; r < p->oh; r++)                                                                    \
        row_##E(to + 2 * r * p->w, to + (2 * r + 1) * p->w, x + 2 * r * p->w, x + (2 * r + 1) * p->w,        \
                g + r * p->ow, p->ow);                                                                       \
    }                                                                                                        \
  }
PLANES(float, F32)
PLANES(double, F64)

static bool all(const kn_ints *v, int64_t a, int64_t b) {
  for (int i = 0; i < 2; i++)
    if (kn_ints_at(v, i) != a && kn_ints_at(v, i) != b) return false;
  return true;
}

kn_status cp_max_pool2d_grad(kn_context *ctx, const kn_attrs_pool2d *a, kn_tensor *g, kn_tensor *x,
                             kn_tensor *out) {
  const kn_dtype dtype = kn_tensor_dtype(x);
  const int rank = x->type.rank;
  if ((dtype != KN_F32 && dtype != KN_F64) || kn_tensor_dtype(g) != dtype || rank < 3) return KN_DECLINED;
  if (!kn_tensor_contiguous(x) || !kn_tensor_contiguous(g)) return KN_DECLINED;
  pool p = {.h = x->type.dims[rank - 2], .w = x->type.dims[rank - 1]};
  p.oh = g->type.dims[rank - 2], p.ow = g->type.dims[rank - 1];
  if (!all(&a->kernel_size, 2, 2) || !all(&a->stride, 2, 0) || !all(&a->padding, 0, 0) ||
      !all(&a->dilation, 1, 1) || 2 * p.oh > p.h || 2 * p.ow > p.w)
    return KN_DECLINED;
  if (kn_tensor_numel(x) == 0) return KN_OK;
  p.g = kn_tensor_data(g), p.x = kn_tensor_data(x), p.to = kn_tensor_data(out);
  kn_parallel_for(ctx, kn_tensor_numel(x) / (p.h * p.w), CP_CHEAP / (p.h * p.w) + 1,
                  dtype == KN_F32 ? planes_F32 : planes_F64, &p);
  return KN_OK;
}
