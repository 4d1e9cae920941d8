/* Kernels that lay tensors into parts of others: joining, gradients of select and slice, overwriting. */
#include "core/device.h"
#include "core/infer.h"
#include "core/kernels/kernel.h"

static kn_status copy_view(const kk_mover *m, const kk_view *to, const kk_view *from) {
  kk_copy(m->ctx, to, from);
  return KN_OK;
}

static kn_status fill_tensor(const kk_mover *m, kn_tensor *t, kn_number value) {
  kn_attrs_value v = {.value_number = value};
  return kn_kernel_full_like(m->ctx, &v, &t, 1, &t);
}

kk_mover kk_mover_of(kn_context *ctx) {
  return (kk_mover){.ctx = ctx, .put = copy_view, .fill = fill_tensor};
}

#define MOVES(name)                                                                                          \
  KERNEL(name) {                                                                                             \
    const kk_mover m = kk_mover_of(ctx);                                                                     \
    return kk_move_##name(&m, attrs, in, n, out);                                                            \
  }
MOVES(cat)
MOVES(stack)
MOVES(select_grad)
MOVES(slice_grad)
MOVES(select_put)
MOVES(slice_put)
MOVES(diagonal_grad)
MOVES(constant_pad)
MOVES(strided_put)

static kn_status put(const kk_mover *m, const kk_view *to, const kn_tensor *from) {
  kk_view src = kk_view_of(from);
  return m->put(m, to, &src);
}

static kn_status zero(const kk_mover *m, kn_tensor *t) { return m->fill(m, t, (kn_number){0}); }

KK_MOVE(cat) {
  int dim = kk_axis(((const kn_attrs_axis_first *)attrs)->dim, out[0]->type.rank);
  int64_t at = 0;
  for (int i = 0; i < n; i++) {
    kk_view to = kk_view_of(out[0]);
    kk_slice(&to, dim, at, in[i]->type.dims[dim], 1);
    KN_TRY(put(m, &to, in[i]));
    at += in[i]->type.dims[dim];
  }
  return KN_OK;
}

KK_MOVE(stack) {
  int dim = kk_axis(((const kn_attrs_axis_first *)attrs)->dim, out[0]->type.rank);
  for (int i = 0; i < n; i++) {
    kk_view to = kk_view_of(out[0]);
    kk_select(&to, dim, i);
    KN_TRY(put(m, &to, in[i]));
  }
  return KN_OK;
}

KK_MOVE(select_grad) {
  const kn_attrs_select *a = attrs;
  (void)n;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  KN_TRY(zero(m, out[0]));
  kk_select(&to, dim, a->index < 0 ? a->index + to.dims[dim] : a->index);
  return put(m, &to, in[0]);
}

KK_MOVE(slice_grad) {
  const kn_attrs_slice *a = attrs;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  int64_t start = 0, length = 0;
  kn_infer q = {.ctx = m->ctx, .op = KN_OP_slice_grad, .attrs = attrs, .in = &in[1]->type, .n = n - 1};
  KN_TRY(kn_slice_range(&q, to.dims[dim], a, &start, &length));
  KN_TRY(zero(m, out[0]));
  kk_slice(&to, dim, start, length, a->step);
  return put(m, &to, in[0]);
}

/* All of x that a put leaves as it is; nothing where the result lies over it. */
static kn_status put_base(const kk_mover *m, const kk_view *to, const kn_tensor *x, const kn_tensor *out) {
  return kn_tensor_data(x) != kn_tensor_data(out) ? put(m, to, x) : KN_OK;
}

KK_MOVE(select_put) {
  const kn_attrs_select *a = attrs;
  (void)n;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  KN_TRY(put_base(m, &to, in[0], out[0]));
  kk_select(&to, dim, a->index < 0 ? a->index + to.dims[dim] : a->index);
  return put(m, &to, in[1]);
}

KK_MOVE(slice_put) {
  const kn_attrs_slice *a = attrs;
  kk_view to = kk_view_of(out[0]);
  int dim = kk_axis(a->dim, to.rank);
  int64_t start = 0, length = 0;
  kn_infer q = {.ctx = m->ctx, .op = KN_OP_slice_put, .attrs = attrs, .in = &in[0]->type, .n = n - 1};
  KN_TRY(kn_slice_range(&q, to.dims[dim], a, &start, &length));
  KN_TRY(put_base(m, &to, in[0], out[0]));
  kk_slice(&to, dim, start, length, a->step);
  return put(m, &to, in[1]);
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
    kk_view to = kk_view_of(own), from = kk_view_of(in[1]);
    kk_copy(ctx, &to, &from);
    src = own;
  }
  kk_view to = kk_view_of(out[0]), from = kk_view_of(src);
  kk_copy(ctx, &to, &from);
  kn_tensor_release(src);
  return KN_OK;
}

/* Bytes go over as they lie, so they are put in order first, on their own side. */
static kn_status transfer(kn_context *ctx, const kn_tensor *from, kn_tensor *to) {
  const kn_memory *m;
  const bool fetch = to->type.device == KN_CPU;
  size_t bytes = (size_t)kn_tensor_numel(from) * kn_dtype_size(kn_tensor_dtype(from));
  const kn_copy_way way = fetch ? KN_TO_HOST : from->type.device == KN_CPU ? KN_TO_DEVICE : KN_WITHIN_DEVICE;
  KN_TRY(kn_device_memory(ctx, (kn_device_id)(fetch ? from : to)->type.device, &m));
  return bytes ? m->copy(m->self, ctx, kn_tensor_data(to), kn_tensor_data(from), bytes, way) : KN_OK;
}

KERNEL(to_device) {
  (void)attrs, (void)n;
  const bool stays = in[0]->type.device == KN_CPU && out[0]->type.device == KN_CPU;
  kn_tensor *line = NULL;
  if (stays || !kn_tensor_contiguous(in[0])) {
    kn_tensor *const *to = stays ? out : &line;
    if (!stays) KN_TRY(kn_tensor_new(ctx, &in[0]->type, &line));
    kn_status st = kn_device_run(ctx, KN_OP_clone, NULL, in, 1, to, NULL);
    if (stays || st != KN_OK) {
      kn_tensor_release(line);
      return st;
    }
  }
  kn_status st = transfer(ctx, line ? line : in[0], out[0]);
  kn_tensor_release(line);
  return st;
}
