/* Kernels that lay tensors into parts of others: joining, gradients of select and slice, overwriting. */
#include "core/infer.h"
#include "core/kernels/kernel.h"

static void put(kn_context *ctx, const kk_view *to, const kn_tensor *from) {
  kk_view src = kk_view_of(from);
  kk_copy(ctx, to, &src);
}

KERNEL(cat) {
  int dim = kk_axis(((const kn_attrs_axis_first *)attrs)->dim, out[0]->type.rank);
  int64_t at = 0;
  for (int i = 0; i < n; i++) {
    kk_view to = kk_view_of(out[0]);
    kk_slice(&to, dim, at, in[i]->type.dims[dim], 1);
    put(ctx, &to, in[i]);
    at += in[i]->type.dims[dim];
  }
  return KN_OK;
}

KERNEL(stack) {
  int dim = kk_axis(((const kn_attrs_axis_first *)attrs)->dim, out[0]->type.rank);
  for (int i = 0; i < n; i++) {
    kk_view to = kk_view_of(out[0]);
    kk_select(&to, dim, i);
    put(ctx, &to, in[i]);
  }
  return KN_OK;
}

KERNEL(select_grad) {
  const kn_attrs_select *a = attrs;
  (void)n;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  kk_zero(ctx, out[0]);
  kk_select(&to, dim, a->index < 0 ? a->index + to.dims[dim] : a->index);
  put(ctx, &to, in[0]);
  return KN_OK;
}

KERNEL(slice_grad) {
  const kn_attrs_slice *a = attrs;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  int64_t start = 0, length = 0;
  kn_infer q = {.ctx = ctx, .op = KN_OP_slice_grad, .attrs = attrs, .in = &in[1]->type, .n = n - 1};
  KN_TRY(kn_slice_range(&q, to.dims[dim], a, &start, &length));
  kk_zero(ctx, out[0]);
  kk_slice(&to, dim, start, length, a->step);
  put(ctx, &to, in[0]);
  return KN_OK;
}

/* All of x that a put leaves as it is; nothing where the result lies over it. */
static void put_base(kn_context *ctx, const kk_view *to, const kn_tensor *x, const kn_tensor *out) {
  if (kn_tensor_data(x) != kn_tensor_data(out)) put(ctx, to, x);
}

KERNEL(select_put) {
  const kn_attrs_select *a = attrs;
  (void)n;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  put_base(ctx, &to, in[0], out[0]);
  kk_select(&to, dim, a->index < 0 ? a->index + to.dims[dim] : a->index);
  put(ctx, &to, in[1]);
  return KN_OK;
}

KERNEL(slice_put) {
  const kn_attrs_slice *a = attrs;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  int64_t start = 0, length = 0;
  kn_infer q = {.ctx = ctx, .op = KN_OP_slice_put, .attrs = attrs, .in = &in[0]->type, .n = n - 1};
  KN_TRY(kn_slice_range(&q, to.dims[dim], a, &start, &length));
  put_base(ctx, &to, in[0], out[0]);
  kk_slice(&to, dim, start, length, a->step);
  put(ctx, &to, in[1]);
  return KN_OK;
}

/* The source may be another view of what is overwritten: then it is copied first. */
KERNEL(copy_) {
  (void)attrs, (void)n;
  kn_tensor *src = kn_tensor_retain(in[1]);
  if (src->storage == out[0]->storage) {
    kn_tensor *own;
    kn_status st = kn_tensor_new(ctx, &src->type, &own);
    kn_tensor_release(src);
    if (st != KN_OK) return st;
    kk_view to = kk_view_of(own);
    put(ctx, &to, in[1]);
    src = own;
  }
  kk_view to = kk_view_of(out[0]);
  put(ctx, &to, src);
  kn_tensor_release(src);
  return KN_OK;
}
