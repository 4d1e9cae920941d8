/* Kernels that lay elements out anew: reversed, on a diagonal, above or below one, within a margin. */
#include "core/kernels/kernel.h"

/* Rows of the last dim, few elements of 4 bytes: most of the time would go into setting up the loop below. */
static bool flip_rows(const kn_attrs_axes *a, const kn_tensor *x, kn_tensor *out) {
  enum { FEW = 256 };
  int rank = x->type.rank;
  int64_t total = kn_tensor_numel(x), size = rank ? x->type.dims[rank - 1] : 0;
  if (a->dims.n != 1 || !rank || kk_axis(a->dims.v[0], rank) != rank - 1 || !size || total > FEW ||
      kn_dtype_size(kn_tensor_dtype(x)) != sizeof(uint32_t) || !kn_tensor_contiguous(x))
    return false;
  const uint32_t *from = kn_tensor_data(x);
  uint32_t *to = kn_tensor_data(out);
  for (int64_t r = 0; r < total; r += size)
    for (int64_t i = 0; i < size; i++) to[r + i] = from[r + size - 1 - i];
  return true;
}

KERNEL(flip) {
  const kk_mover m = kk_mover_of(ctx);
  return flip_rows(attrs, in[0], out[0]) ? KN_OK : kk_move_flip(&m, attrs, in, n, out);
}

/* The input as a view that runs backwards. */
KK_MOVE(flip) {
  const kn_attrs_axes *a = attrs;
  (void)n;
  kk_view to = kk_view_of(out[0]), from = kk_view_of(in[0]);
  if (kn_tensor_numel(out[0]) == 0) return KN_OK;
  for (int i = 0; i < (a->dims.n ? a->dims.n : from.rank) && from.rank; i++) {
    int d = a->dims.n ? kk_axis(a->dims.v[i], from.rank) : i;
    from.data += (from.dims[d] - 1) * from.strides[d];
    from.strides[d] = -from.strides[d];
  }
  return m->put(m, &to, &from);
}

KK_MOVE(diagonal_grad) {
  const kn_attrs_diagonal_of *a = attrs;
  (void)n;
  kk_view x = kk_view_of(out[0]), from = kk_view_of(in[0]), to = x;
  int d1 = kk_axis(a->dim1, x.rank), d2 = kk_axis(a->dim2, x.rank);
  KN_TRY(m->fill(m, out[0], (kn_number){0}));
  if (kn_tensor_numel(in[0]) == 0) return KN_OK;
  to.rank = 0;
  for (int d = 0; d < x.rank; d++)
    if (d != d1 && d != d2) to.dims[to.rank] = x.dims[d], to.strides[to.rank++] = x.strides[d];
  to.dims[to.rank] = from.dims[from.rank - 1];
  to.strides[to.rank++] = x.strides[d1] + x.strides[d2];
  to.data += a->offset >= 0 ? a->offset * x.strides[d2] : -a->offset * x.strides[d1];
  return m->put(m, &to, &from);
}

/* Row by row the part that stays, of matrices that stand one after the other. */
static kn_status triangle(kn_context *ctx, const kn_attrs_diagonal *a, const kn_tensor *x, bool lower,
                          kn_tensor *out) {
  kk_view all = kk_view_of(x), to_all = kk_view_of(out);
  int rank = all.rank;
  int64_t rows = all.dims[rank - 2], columns = all.dims[rank - 1];
  kk_zero(ctx, out);
  if (kn_tensor_numel(x) == 0) return KN_OK;
  for (int64_t r = 0; r < rows; r++) {
    int64_t edge = a->diagonal < -rows ? -1 : a->diagonal > columns ? columns : r + a->diagonal;
    int64_t start = lower ? 0 : edge, stop = lower ? edge + 1 : columns;
    if (start < 0) start = 0;
    if (stop > columns) stop = columns;
    if (start >= stop) continue;
    kk_view from = all, to = to_all;
    kk_slice(&from, rank - 1, start, stop - start, 1);
    kk_slice(&to, rank - 1, start, stop - start, 1);
    kk_select(&from, rank - 2, r);
    kk_select(&to, rank - 2, r);
    kk_copy(ctx, &to, &from);
  }
  return KN_OK;
}

KERNEL(tril) {
  (void)n;
  return triangle(ctx, attrs, in[0], true, out[0]);
}

KERNEL(triu) {
  (void)n;
  return triangle(ctx, attrs, in[0], false, out[0]);
}

/* All of the value first, then what of x is inside. */
KK_MOVE(constant_pad) {
  const kn_attrs_constant_pad *a = attrs;
  (void)n;
  kk_view from = kk_view_of(in[0]), to = kk_view_of(out[0]);
  KN_TRY(m->fill(m, out[0], a->value_number));
  if (kn_tensor_numel(in[0]) == 0 || kn_tensor_numel(out[0]) == 0) return KN_OK;
  for (int i = 0; i < a->pad.n; i += 2) {
    int d = from.rank - 1 - i / 2;
    int64_t before = a->pad.v[i], after = a->pad.v[i + 1], cut = before < 0 ? -before : 0;
    int64_t length = from.dims[d] - cut - (after < 0 ? -after : 0);
    if (length <= 0) return KN_OK;
    kk_slice(&from, d, cut, length, 1);
    kk_slice(&to, d, before > 0 ? before : 0, length, 1);
  }
  return m->put(m, &to, &from);
}
