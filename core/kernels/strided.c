/* Kernels that take elements by strides, put them back and add them up there: what a write through a view and
 * the history of a view are made of (core/grad/inplace.c), and the gradient of windows. */
#include "core/kernels/kernel.h"
#include "core/overlap.h"

/* The places in t, which is contiguous. */
static kk_view placed(const kn_tensor *t, const kn_attrs_strided *a) {
  kk_view v = kk_view_of(t);
  int64_t size = (int64_t)kn_dtype_size(v.dtype);
  bool empty = false;
  v.rank = a->sizes.n;
  for (int d = 0; d < v.rank; d++) {
    v.dims[d] = a->sizes.v[d];
    v.strides[d] = v.dims[d] > 1 ? a->strides.v[d] * size : 0;
    empty |= v.dims[d] == 0;
  }
  v.data += empty ? 0 : a->offset * size;
  return v;
}

KK_MOVE(strided) {
  (void)n;
  kk_view to = kk_view_of(out[0]), from = placed(in[0], attrs);
  return m->put(m, &to, &from);
}

KERNEL(strided) {
  const kk_mover m = kk_mover_of(ctx);
  kn_tensor *x;
  KN_TRY(kk_contiguous(ctx, in[0], &x));
  kn_status st = kk_move_strided(&m, attrs, &x, n, out);
  kn_tensor_release(x);
  return st;
}

KK_MOVE(strided_put) {
  (void)n;
  kk_view all = kk_view_of(out[0]), x = kk_view_of(in[0]), to = placed(out[0], attrs),
          src = kk_view_of(in[1]);
  KN_TRY(m->put(m, &all, &x));
  return m->put(m, &to, &src);
}

/* ---- adding: one thread's work where a place may come twice ---- */

#define ADD(T, E, PLUS)                                                                                      \
  static void add_##E(char *const *p, const int64_t *step, int64_t n, const void *arg) {                     \
    (void)arg;                                                                                               \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      T *y = (T *)(void *)(p[0] + i * step[0]), x = *(const T *)(const void *)(p[1] + i * step[1]);          \
      *y = (T)(PLUS);                                                                                        \
    }                                                                                                        \
  }
ADD(uint8_t, BOOL, *y | x)
ADD(int64_t, I64, kk_wrap_add(*y, x))
ADD(float, F32, *y + x)
ADD(double, F64, *y + x)

static kn_status add(kn_context *ctx, const kk_view *to, const kn_tensor *g) {
#define CASE(T, E) [KN_##E] = add_##E,
  static const kk_inner_fn inner[KN_DTYPE_COUNT] = {KK_TYPES(CASE)};
#undef CASE
  kk_view both[] = {*to, kk_view_of(g)};
  bool twice = false;
  KN_TRY(kn_overlaps_itself(ctx, to->rank, to->dims, to->strides, &twice));
  int threads = ctx->threads;
  if (twice) ctx->threads = 1;
  kk_loop(ctx, both, 2, inner[to->dtype], NULL);
  ctx->threads = threads;
  return KN_OK;
}

WIDE_KERNEL(strided_grad) {
  (void)n;
  kk_zero(ctx, out[0]);
  kk_view to = placed(out[0], attrs);
  return add(ctx, &to, in[0]);
}

WIDE_KERNEL(unfold_grad) {
  const kn_attrs_unfold *a = attrs;
  (void)n;
  kk_zero(ctx, out[0]);
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  int64_t count = in[0]->type.dims[dim];
  to.dims[to.rank] = a->size;
  to.strides[to.rank++] = to.strides[dim];
  to.dims[dim] = count;
  if (count > 1) to.strides[dim] *= a->step;
  return add(ctx, &to, in[0]);
}
