/* Ops that lay elements anew. Those that only move views are core/kernels' own (kk_mover), with copies made
 * by the device; triangles keep or clear each element where it stands; windows are added up by the element
 * that they go to, in the order of the CPU. */
#include "backends/cuda/chain.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/program.h"
#include "core/kernels/kernel.h"

/* A dtype of the same size whose elements are moved as they are, a nan's bits too. */
static kn_dtype bits_of(kn_dtype d) {
  static const kn_dtype by_size[9] = {[1] = KN_U8, [2] = KN_I16, [4] = KN_I32, [8] = KN_I64};
  return by_size[kn_dtype_size(d)];
}

/* v broadcast to the dims of `all`. */
static cu_operand operand_of(const kk_view *v, const kk_view *all, bool bits) {
  cu_operand x = {.dtype = bits ? bits_of(v->dtype) : v->dtype, .at = (CUdeviceptr)(uintptr_t)v->data};
  int lead = all->rank - v->rank;
  for (int k = lead; k < all->rank; k++)
    if (v->dims[k - lead] != 1 || all->dims[k] == 1)
      x.strides[k] = v->strides[k - lead] / (int64_t)kn_dtype_size(v->dtype);
  return x;
}

static kn_status put(const kk_mover *m, const kk_view *to, const kk_view *from) {
  bool same = to->dtype == from->dtype;
  cu_chain c = {.rank = to->rank};
  const cu_operand x = operand_of(from, to, same), y = operand_of(to, to, same);
  for (int k = 0; k < to->rank; k++) c.dims[k] = to->dims[k];
  int value = cu_chain_operand(&c, &x);
  if (!same) value = cu_chain_step(&c, KN_OP_cast, NULL, &value, 1, to->dtype, to->dtype);
  cu_chain_result(&c, value, &y);
  return cu_chain_run(m->ctx, m->self, &c);
}

static kn_status fill(const kk_mover *m, kn_tensor *t, kn_number value) {
  kn_attrs_value v = {.value_number = value};
  return cu_full_like(m->ctx, &v, &t, 1, &t);
}

#define MOVES(name)                                                                                          \
  CU_ENTRY(name) {                                                                                           \
    cu_device *d;                                                                                            \
    if (KN_OP_##name == KN_OP_strided && !kn_tensor_contiguous(in[0])) return KN_DECLINED;                   \
    for (int i = 0; i < n; i++)                                                                              \
      if (in[i]->type.device == KN_CPU) return KN_DECLINED; /* a number of the host's */                     \
    KN_TRY(cu_device_of(ctx, &d));                                                                           \
    const kk_mover m = {.ctx = ctx, .self = d, .put = put, .fill = fill};                                    \
    return kk_move_##name(&m, attrs, in, n, out);                                                            \
  }
KK_MOVES(MOVES)

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
    pos rest = (pos)i, column = rest % (pos)q.columns, row = rest / (pos)q.columns % (pos)q.rows;
    i64 over = (i64)column - (i64)row - q.diagonal, at = 0;
    if (q.lower ? over > 0 : over < 0) {
      to[i] = 0;
      continue;
    }
    for (i32 k = q.rank - 1; k >= 0; k--) {
      pos next = rest / (pos)q.dims[k];
      at += (i64)(rest - next * (pos)q.dims[k]) * q.sx[k];
      rest = next;
    }
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
    i64 at = i / q.inner % q.size, rest = i, from = 0;
    for (i32 k = q.rank - 1; k >= 0; k--) {
      i64 next = rest / q.dims[k];
      from += (rest - next * q.dims[k]) * q.sg[k];
      rest = next;
    }
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
                        .elements = CU_OF_DTYPE,
                        .dtype = dtype};
  cu_device *d;
  (void)n;
  KN_TRY(cu_device_of(ctx, &d));
  for (int k = 0; k < rank; k++) q.dims[k] = out[0]->type.dims[k], q.sg[k] = k == dim ? 0 : g->strides[k];
  for (int k = dim + 1; k < rank; k++) q.inner *= out[0]->type.dims[k];
  return cu_start(ctx, d, &p, "fold_windows", q.count, &q);
}
