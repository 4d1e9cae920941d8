/* Sums and products of the elements so far, along one dim. A row is one thread's; floats run in double. */
#include "core/kernels/kernel.h"

typedef struct scan {
  const char *x;
  char *y;
  int64_t n, inner; /* length of dim; elements between neighbours along it */
  bool product;
} scan;

#define SCAN(T, E, TO, ACC, ADD, MUL)                                                                        \
  static void scan_##E(void *ud, int64_t begin, int64_t end) {                                               \
    const scan *c = ud;                                                                                      \
    for (int64_t row = begin; row < end; row++) {                                                            \
      int64_t at = row / c->inner * c->n * c->inner + row % c->inner;                                        \
      ACC a = c->product;                                                                                    \
      for (int64_t i = 0; i < c->n; i++, at += c->inner) {                                                   \
        const ACC x = (ACC)((const T *)c->x)[at];                                                            \
        a = c->product ? MUL(a, x) : ADD(a, x);                                                              \
        ((TO *)c->y)[at] = (TO)a;                                                                            \
      }                                                                                                      \
    }                                                                                                        \
  }
#define PLUS(a, b) ((a) + (b))
#define TIMES(a, b) ((a) * (b))
#define SCAN_FLOAT(T, E) SCAN(T, E, T, double, PLUS, TIMES)
#define SCAN_WHOLE(T, E) SCAN(T, E, int64_t, int64_t, kk_wrap_add, kk_wrap_mul)
KK_FLOATS(SCAN_FLOAT)
SCAN_WHOLE(uint8_t, BOOL)
SCAN_WHOLE(int64_t, I64)
#define ROW(T, E) [KN_##E] = scan_##E,

static kn_status along(kn_context *ctx, const kn_attrs_axis *a, kn_tensor *x, bool product, kn_tensor *out) {
  static void (*const fn[KN_DTYPE_COUNT])(void *, int64_t, int64_t) = {KK_TYPES(ROW)};
  kn_tensor *c;
  int64_t count = kn_tensor_numel(out);
  if (count == 0) return KN_OK;
  KN_TRY(kk_contiguous(ctx, x, &c));
  int dim = kk_axis(a->dim, x->type.rank);
  scan r = {.x = kn_tensor_data(c), .y = kn_tensor_data(out), .n = 1, .inner = 1, .product = product};
  if (x->type.rank) r.n = x->type.dims[dim];
  for (int d = dim + 1; d < x->type.rank; d++) r.inner *= x->type.dims[d];
  kn_parallel_for(ctx, count / r.n, KK_GRAIN / r.n + 1, fn[kn_tensor_dtype(x)], &r);
  kn_tensor_release(c);
  return KN_OK;
}

WIDE_KERNEL(cumsum) {
  (void)n;
  return along(ctx, attrs, in[0], false, out[0]);
}

WIDE_KERNEL(cumprod) {
  (void)n;
  return along(ctx, attrs, in[0], true, out[0]);
}
