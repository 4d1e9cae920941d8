/* Kernels of views: no element moves, only offset and strides are worked out (in elements, from the start of
 * the storage). reshape is the exception: it copies when no strides can show the new shape. */
#include "core/infer.h"
#include "core/kernels/kernel.h"

static kn_status set(kn_tensor *out, const kn_tensor *x, int64_t offset, const int64_t strides[KN_MAX_RANK]) {
  kn_tensor_set_view(out, x, offset, strides);
  return KN_OK;
}

/* ---- reshape ---- */

bool kn_reshape_strides(const kn_tensor *x, const kn_type *type, int64_t strides[KN_MAX_RANK]) {
  kn_strides_contiguous(type, strides);
  if (kn_tensor_contiguous(x)) return true;
  /* Groups of old dims that lie one after the other: how many elements, and how far apart. */
  int groups = 0;
  int64_t size[KN_MAX_RANK], apart[KN_MAX_RANK];
  for (int d = 0; d < x->type.rank; d++) {
    int64_t dim = x->type.dims[d], stride = x->strides[d];
    if (dim == 1) continue;
    bool joins = groups && apart[groups - 1] == stride * dim;
    if (!joins) size[groups++] = 1;
    size[groups - 1] *= dim;
    apart[groups - 1] = stride;
  }
  /* Each must be filled exactly by new dims; those left over have size 1, where any stride will do. */
  int d = 0;
  for (int g = 0; g < groups; g++) {
    int first = d;
    int64_t filled = 1, stride = apart[g];
    while (d < type->rank && filled < size[g]) filled *= type->dims[d++];
    if (filled != size[g]) return false;
    for (int i = d - 1; i >= first; i--) {
      strides[i] = stride;
      stride *= type->dims[i];
    }
  }
  return true;
}

static kn_status reshape(kn_context *ctx, kn_tensor *x, kn_tensor *out) {
  int64_t strides[KN_MAX_RANK];
  if (kn_reshape_strides(x, &out->type, strides)) return set(out, x, x->offset, strides);
  kn_type type = out->type;
  KN_TRY(kn_tensor_allocate(ctx, out, &type));
  kk_view dst = kk_view_of(out), src = kk_view_of(x);
  dst.rank = src.rank; /* the old shape, in order */
  memcpy(dst.dims, src.dims, sizeof dst.dims);
  kn_strides_contiguous(&x->type, strides);
  for (int d = 0; d < src.rank; d++) dst.strides[d] = strides[d] * (int64_t)kn_dtype_size(src.dtype);
  kk_copy(ctx, &dst, &src);
  return KN_OK;
}

KERNEL(reshape) {
  (void)attrs, (void)n;
  return reshape(ctx, in[0], out[0]);
}

KERNEL(reshape_as) {
  (void)attrs, (void)n;
  return reshape(ctx, in[0], out[0]);
}

/* ---- expand ---- */

static kn_status expand(const kn_tensor *x, kn_tensor *out) {
  int64_t strides[KN_MAX_RANK] = {0};
  int lead = out->type.rank - x->type.rank;
  for (int d = lead; d < out->type.rank; d++)
    strides[d] = x->type.dims[d - lead] == 1 && out->type.dims[d] != 1 ? 0 : x->strides[d - lead];
  return set(out, x, x->offset, strides);
}

KERNEL(expand) {
  (void)ctx, (void)attrs, (void)n;
  return expand(in[0], out[0]);
}

KERNEL(expand_as) {
  (void)ctx, (void)attrs, (void)n;
  return expand(in[0], out[0]);
}

/* ---- order of dims ---- */

KERNEL(transpose) {
  const kn_attrs_swap *a = attrs;
  (void)ctx, (void)n;
  int d0 = kk_axis(a->dim0, in[0]->type.rank), d1 = kk_axis(a->dim1, in[0]->type.rank);
  int64_t strides[KN_MAX_RANK];
  memcpy(strides, in[0]->strides, sizeof strides);
  strides[d0] = in[0]->strides[d1];
  strides[d1] = in[0]->strides[d0];
  return set(out[0], in[0], in[0]->offset, strides);
}

KERNEL(permute) {
  const kn_attrs_axes *a = attrs;
  (void)ctx, (void)n;
  int64_t strides[KN_MAX_RANK] = {0};
  for (int d = 0; d < a->dims.n; d++) strides[d] = in[0]->strides[kk_axis(a->dims.v[d], in[0]->type.rank)];
  return set(out[0], in[0], in[0]->offset, strides);
}

/* ---- parts ---- */

KERNEL(select) {
  const kn_attrs_select *a = attrs;
  const kn_tensor *x = in[0];
  (void)ctx, (void)n;
  int dim = kk_axis(a->dim, x->type.rank);
  int64_t at = a->index < 0 ? a->index + x->type.dims[dim] : a->index, strides[KN_MAX_RANK] = {0};
  for (int d = 0; d < x->type.rank - 1; d++) strides[d] = x->strides[d < dim ? d : d + 1];
  return set(out[0], x, x->offset + at * x->strides[dim], strides);
}

KERNEL(slice) {
  const kn_attrs_slice *a = attrs;
  const kn_tensor *x = in[0];
  int dim = kk_axis(a->dim, x->type.rank);
  int64_t start = 0, length = 0, strides[KN_MAX_RANK];
  kn_infer q = {.ctx = ctx, .op = KN_OP_slice, .attrs = attrs, .in = &x->type, .n = n};
  KN_TRY(kn_slice_range(&q, x->type.dims[dim], a, &start, &length));
  memcpy(strides, x->strides, sizeof strides);
  if (length > 1) strides[dim] *= a->step; /* of no use otherwise, and a huge step could overflow */
  return set(out[0], x, x->offset + (length ? start * x->strides[dim] : 0), strides);
}

/* ---- dims of size 1 ---- */

KERNEL(squeeze) {
  const kn_attrs_optional_axis *a = attrs;
  const kn_tensor *x = in[0];
  (void)ctx, (void)n;
  int only = a->dim == KN_NONE ? -1 : kk_axis(a->dim, x->type.rank), to = 0;
  int64_t strides[KN_MAX_RANK] = {0};
  for (int d = 0; d < x->type.rank; d++)
    if (x->type.dims[d] != 1 || (only >= 0 && only != d)) strides[to++] = x->strides[d];
  return set(out[0], x, x->offset, strides);
}

KERNEL(unsqueeze) {
  const kn_attrs_axis *a = attrs;
  const kn_tensor *x = in[0];
  (void)ctx, (void)n;
  int dim = kk_axis(a->dim, out[0]->type.rank);
  int64_t strides[KN_MAX_RANK] = {0};
  for (int d = 0; d < out[0]->type.rank; d++) strides[d] = d == dim ? 1 : x->strides[d < dim ? d : d - 1];
  return set(out[0], x, x->offset, strides);
}

KERNEL(diagonal) {
  const kn_attrs_diagonal_of *a = attrs;
  const kn_tensor *x = in[0];
  (void)ctx, (void)n;
  int d1 = kk_axis(a->dim1, x->type.rank), d2 = kk_axis(a->dim2, x->type.rank), to = 0;
  int64_t strides[KN_MAX_RANK] = {0}, start = 0;
  for (int d = 0; d < x->type.rank; d++)
    if (d != d1 && d != d2) strides[to++] = x->strides[d];
  strides[to] = x->strides[d1] + x->strides[d2];
  if (out[0]->type.dims[to] > 0)
    start = a->offset >= 0 ? a->offset * x->strides[d2] : -a->offset * x->strides[d1];
  return set(out[0], x, x->offset + start, strides);
}

/* Windows: the dim moves on by whole steps, the new last one by elements. */
KERNEL(unfold) {
  const kn_attrs_unfold *a = attrs;
  const kn_tensor *x = in[0];
  (void)ctx, (void)n;
  int dim = kk_axis(a->dim, x->type.rank);
  int64_t strides[KN_MAX_RANK];
  memcpy(strides, x->strides, sizeof strides);
  strides[x->type.rank] = x->strides[dim];
  if (out[0]->type.dims[dim] > 1) strides[dim] *= a->step;
  return set(out[0], x, x->offset, strides);
}
