/* The gradient of max pooling by the windows that most networks have: two by two, side by side. Each element
 * is in one window at most, so that it is written once, without looking for places. All others are declined.
 * Compiled once. */
#include "backends/cpu/pool.h"
#include "core/infer.h"
#include <string.h>

typedef struct pool {
  int64_t h, w, oh, ow, size; /* planes of x and of the windows; bytes of an element */
  cp_pool_row row;
  const char *g, *x;
  char *to;
} pool;

static void planes(void *ud, int64_t begin, int64_t end) {
  const pool *p = ud;
  const int64_t line = p->w * p->size, plane = p->h * line, windows = p->ow * p->size;
  for (int64_t i = begin; i < end; i++) {
    const char *x = p->x + i * plane, *g = p->g + i * p->oh * windows;
    char *to = p->to + i * plane;
    if (p->h != 2 * p->oh || p->w != 2 * p->ow) memset(to, 0, (size_t)plane);
    for (int64_t r = 0; r < p->oh; r++, g += windows, x += 2 * line, to += 2 * line)
      p->row(to, to + line, x, x + line, g, p->ow);
  }
}

static bool all(const kn_ints *v, int64_t a, int64_t b) {
  for (int i = 0; i < 2; i++)
    if (kn_ints_at(v, i) != a && kn_ints_at(v, i) != b) return false;
  return true;
}

kn_status cp_max_pool2d_grad(kn_context *ctx, const cp_pools *of, const kn_attrs_pool2d *a, kn_tensor *g,
                             kn_tensor *x, kn_tensor *out) {
  const kn_dtype dtype = kn_tensor_dtype(x);
  const int rank = x->type.rank;
  if (!of->rows[dtype] || kn_tensor_dtype(g) != dtype || rank < 3) return KN_DECLINED;
  if (!kn_tensor_contiguous(x) || !kn_tensor_contiguous(g)) return KN_DECLINED;
  pool p = {.h = x->type.dims[rank - 2], .w = x->type.dims[rank - 1]};
  p.row = of->rows[dtype], p.size = (int64_t)kn_dtype_size(dtype);
  p.oh = g->type.dims[rank - 2], p.ow = g->type.dims[rank - 1];
  if (!all(&a->kernel_size, 2, 2) || !all(&a->stride, 2, 0) || !all(&a->padding, 0, 0) ||
      !all(&a->dilation, 1, 1) || 2 * p.oh > p.h || 2 * p.ow > p.w)
    return KN_DECLINED;
  if (kn_tensor_numel(x) == 0) return KN_OK;
  p.g = kn_tensor_data(g), p.x = kn_tensor_data(x), p.to = kn_tensor_data(out);
  kn_parallel_for(ctx, kn_tensor_numel(x) / (p.h * p.w), CP_CHEAP / (p.h * p.w) + 1, planes, &p);
  return KN_OK;
}
