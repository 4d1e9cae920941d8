/* softmax and log_softmax along one dim: the largest element is taken off first, so nothing overflows; the
 * sum of exponentials is kept in double. */
#include "core/kernels/kernel.h"
#include <tgmath.h>

typedef struct rows {
  const char *x;
  char *y;
  int64_t n, inner; /* length of dim; elements between neighbours along it */
  bool log;
} rows;

#define ROWS(T, E)                                                                                           \
  static void rows_##E(void *ud, int64_t begin, int64_t end) {                                               \
    const rows *r = ud;                                                                                      \
    for (int64_t row = begin; row < end; row++) {                                                            \
      int64_t first = row / r->inner * r->n * r->inner + row % r->inner, last = first + r->n * r->inner;     \
      const T *x = (const T *)r->x;                                                                          \
      T *y = (T *)r->y, top = x[first];                                                                      \
      for (int64_t i = first; i < last; i += r->inner) top = x[i] > top || x[i] != x[i] ? x[i] : top;        \
      double sum = 0;                                                                                        \
      for (int64_t i = first; i < last; i += r->inner) sum += (double)(y[i] = exp(x[i] - top));              \
      const T log_sum = (T)log(sum), scale = (T)(1 / sum);                                                   \
      for (int64_t i = first; i < last; i += r->inner) y[i] = r->log ? x[i] - top - log_sum : y[i] * scale;  \
    }                                                                                                        \
  }
KK_FLOATS(ROWS)

static kn_status along(kn_context *ctx, const kn_attrs_axis *a, kn_tensor *x, bool log_of, kn_tensor *out) {
  static void (*const fn[KN_DTYPE_COUNT])(void *, int64_t,
                                          int64_t) = {[KN_F32] = rows_F32, [KN_F64] = rows_F64};
  kn_tensor *c;
  int64_t count = kn_tensor_numel(out);
  if (count == 0) return KN_OK;
  KN_TRY(kk_contiguous(ctx, x, &c));
  int dim = kk_axis(a->dim, x->type.rank);
  rows r = {.x = kn_tensor_data(c), .y = kn_tensor_data(out), .n = 1, .inner = 1, .log = log_of};
  if (x->type.rank) r.n = x->type.dims[dim];
  for (int d = dim + 1; d < x->type.rank; d++) r.inner *= x->type.dims[d];
  kn_parallel_for(ctx, count / r.n, KK_GRAIN / 8 / r.n + 1, fn[kn_tensor_dtype(x)], &r);
  kn_tensor_release(c);
  return KN_OK;
}

WIDE_KERNEL(softmax) {
  (void)n;
  return along(ctx, attrs, in[0], false, out[0]);
}

WIDE_KERNEL(log_softmax) {
  (void)n;
  return along(ctx, attrs, in[0], true, out[0]);
}
