/* Triangles of matrices, whose elements stay or are cleared where they stand; and windows, added up by the
 * element that they go to, in the order of the CPU. */
#include "backends/cuda/entries.h"
#include "backends/cuda/program.h"

/* ---- triangles ---- */

/* Matrices in the last two dims; x lies at coordinates of dims. */
CU_ARGUMENT(triangle, {
  const void *x;
  void *to;
  i64 count;
  i64 rows;
  i64 columns;
  i64 diagonal;
  i64 dims[8];
  i64 sx[8];
  i32 rank;
  i32 lower;
});

/* clang-format off */
static const char triangle_source[] = CU_SOURCE(KERNEL(256, triangles)(triangle q) {
  const E *x = (const E *)q.x;
  E *to = (E *)q.to;
  EACH(i, q.count) {
    pos column = (pos)i % (pos)q.columns, row = (pos)i / (pos)q.columns % (pos)q.rows;
    i64 over = (i64)column - (i64)row - q.diagonal, at = 0;
    if (q.lower ? over > 0 : over < 0) {
      to[i] = 0;
      continue;
    }
    EACH_DIM(k, c, i, q.rank, q.dims) at += (i64)c * q.sx[k];
    to[i] = x[at];
  }
});
/* clang-format on */

static kn_status triangles(kn_context *ctx, int64_t diagonal, bool lower, const kn_tensor *x,
                           kn_tensor *out) {
  int rank = x->type.rank;
  triangle q = {.x = kn_tensor_data(x),
                .to = kn_tensor_data(out),
                .count = kn_tensor_numel(out),
                .rows = x->type.dims[rank - 2],
                .columns = x->type.dims[rank - 1],
                .rank = rank,
                .lower = lower};
  /* Farther than all of the matrix is as good as that far, and does not overflow. */
  q.diagonal = diagonal < -q.rows ? -q.rows : diagonal > q.columns ? q.columns : diagonal;
  const cu_program p = {"triangle",
                        {triangle_text, triangle_source},
                        .wide = cu_is_wide(q.count),
                        .elements = CU_OF_BYTES,
                        .bytes = kn_dtype_size(kn_tensor_dtype(x))};
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  for (int k = 0; k < rank; k++) q.dims[k] = x->type.dims[k], q.sx[k] = x->strides[k];
  return cu_start(ctx, d, &p, "triangles", q.count, &q);
}

CU_ENTRY(tril) {
  (void)n;
  return triangles(ctx, ((const kn_attrs_diagonal *)attrs)->diagonal, true, in[0], out[0]);
}

CU_ENTRY(triu) {
  (void)n;
  return triangles(ctx, ((const kn_attrs_diagonal *)attrs)->diagonal, false, in[0], out[0]);
}

/* ---- windows ---- */

/* The result lies as [outer, size, inner]; g has windows at the dim, and the place in a window as its last
 * dim. */
CU_ARGUMENT(windows, {
  const void *g;
  void *to;
  i64 count;
  i64 size;
  i64 inner;
  i64 windows;
  i64 length;
  i64 step;
  i64 apart;
  i64 along;
  i64 dims[8];
  i64 sg[8];
  i32 rank;
});

/* clang-format off */
static const char window_source[] = CU_SOURCE(KERNEL(256, fold_windows)(windows q) {
  const E *g = (const E *)q.g;
  E *to = (E *)q.to;
  EACH(i, q.count) {
    i64 at = i / q.inner % q.size, from = 0;
    EACH_DIM(k, c, i, q.rank, q.dims) from += (i64)c * q.sg[k];
    i64 w = at < q.length ? 0 : (at - q.length) / q.step + 1;
    T sum = 0;
    for (; w < q.windows && w * q.step <= at; w++) {
      T x = GET(g[from + w * q.apart + (at - w * q.step) * q.along]);
      sum = PLUS(sum, x);
    }
    to[i] = PUT(sum);
  }
});
/* clang-format on */

CU_ENTRY(unfold_grad) {
  const kn_attrs_unfold *a = attrs;
  const kn_tensor *g = in[0];
  kn_dtype dtype = kn_tensor_dtype(out[0]);
  int rank = out[0]->type.rank, dim = kk_axis(a->dim, rank);
  windows q = {.g = kn_tensor_data(g),
               .to = kn_tensor_data(out[0]),
               .count = kn_tensor_numel(out[0]),
               .size = rank ? out[0]->type.dims[dim] : 1,
               .inner = 1,
               .windows = rank ? g->type.dims[dim] : 1,
               .length = a->size,
               .step = a->step,
               .apart = rank ? g->strides[dim] : 0,
               .along = g->strides[g->type.rank - 1],
               .rank = rank};
  const cu_program p = {"windows",
                        {windows_text, cu_arithmetic(dtype), window_source},
                        .wide = cu_is_wide(q.count),
                        .elements = CU_OF_DTYPE,
                        .dtype = dtype};
  cu_device *d;
  (void)n;
  KN_TRY(cu_device_of(ctx, &d));
  for (int k = 0; k < rank; k++) q.dims[k] = out[0]->type.dims[k], q.sg[k] = k == dim ? 0 : g->strides[k];
  for (int k = dim + 1; k < rank; k++) q.inner *= out[0]->type.dims[k];
  return cu_start(ctx, d, &p, "fold_windows", q.count, &q);
}
