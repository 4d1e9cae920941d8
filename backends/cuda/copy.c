/* Copies and casts: chains of at most one step. */
#include "backends/cuda/copy.h"
#include "backends/cuda/chain.h"
#include "backends/cuda/entries.h"

/* A dtype of the same size whose elements are moved as they are, a nan's bits too. */
static kn_dtype bits_of(kn_dtype d) {
  static const kn_dtype by_size[9] = {[1] = KN_U8, [2] = KN_I16, [4] = KN_I32, [8] = KN_I64};
  return by_size[kn_dtype_size(d)];
}

/* A view as an operand of a chain that has the dims of `to`. */
static cu_operand operand_of(const kk_view *v, const kk_view *to, bool bits) {
  cu_operand x = {.dtype = bits ? bits_of(v->dtype) : v->dtype, .at = (CUdeviceptr)(uintptr_t)v->data};
  int lead = to->rank - v->rank;
  for (int d = lead; d < to->rank; d++)
    x.strides[d] = v->dims[d - lead] == 1 && to->dims[d] != 1
                       ? 0
                       : v->strides[d - lead] / (int64_t)kn_dtype_size(v->dtype);
  return x;
}

kn_status cu_copy(kn_context *ctx, cu_device *d, const kk_view *to, const kk_view *from) {
  cu_chain c = {.rank = to->rank};
  bool same = to->dtype == from->dtype;
  cu_operand source = operand_of(from, to, same), result = operand_of(to, to, same);
  memcpy(c.dims, to->dims, sizeof c.dims);
  int x = cu_chain_operand(&c, &source);
  cu_chain_result(&c, same ? x : cu_chain_step(&c, KN_OP_cast, NULL, &x, 1, to->dtype, to->dtype), &result);
  return cu_chain_run(ctx, d, &c);
}

static kn_status copy(kn_context *ctx, const kn_tensor *from, const kn_tensor *to) {
  cu_device *d;
  kk_view dst = kk_view_of(to), src = kk_view_of(from);
  KN_TRY(cu_device_of(ctx, &d));
  if (from->type.device != KN_CPU) return cu_copy(ctx, d, &dst, &src);
  cu_chain c = {.rank = dst.rank}; /* a plain number */
  cu_operand result = operand_of(&dst, &dst, false);
  memcpy(c.dims, dst.dims, sizeof c.dims);
  int x = cu_chain_input(&c, from);
  cu_chain_result(&c, cu_chain_step(&c, KN_OP_cast, NULL, &x, 1, dst.dtype, dst.dtype), &result);
  return cu_chain_run(ctx, d, &c);
}

static kn_status copied(kn_context *ctx, kn_tensor *t, kn_dtype dtype, kn_tensor **out) {
  kn_type type = t->type;
  kn_tensor *made;
  type.dtype = (uint8_t)dtype;
  type.device = KN_CUDA;
  KN_TRY(kn_tensor_new(ctx, &type, &made));
  kn_status st = copy(ctx, t, made);
  if (st == KN_OK)
    *out = made;
  else
    kn_tensor_release(made);
  return st;
}

kn_status cu_cast_to(kn_context *ctx, cu_device *d, kn_tensor *t, kn_dtype dtype, kn_tensor **out) {
  (void)d;
  if (kn_tensor_dtype(t) != dtype || t->type.device == KN_CPU) return copied(ctx, t, dtype, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

kn_status cu_contiguous(kn_context *ctx, cu_device *d, kn_tensor *t, kn_tensor **out) {
  (void)d;
  if (!kn_tensor_contiguous(t)) return copied(ctx, t, kn_tensor_dtype(t), out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

/* ---- the ops ---- */

CU_ENTRY(cast) {
  (void)attrs, (void)n;
  return copy(ctx, in[0], out[0]);
}

CU_ENTRY(clone) {
  (void)attrs, (void)n;
  return copy(ctx, in[0], out[0]);
}

/* The source may be another view of what is overwritten: then it is copied first. */
CU_ENTRY(copy_) {
  kn_tensor *from = in[1];
  (void)attrs, (void)n;
  if (from->storage != out[0]->storage) return copy(ctx, from, out[0]);
  KN_TRY(copied(ctx, from, kn_tensor_dtype(from), &from));
  kn_status st = copy(ctx, from, out[0]);
  kn_tensor_release(from);
  return st;
}

/* A view where strides can show it. */
static kn_status reshape(kn_context *ctx, kn_tensor *const *in, int n, kn_tensor *const *out) {
  int64_t strides[KN_MAX_RANK];
  kn_tensor *lined;
  if (kn_reshape_strides(in[0], &out[0]->type, strides)) return kn_kernel_reshape(ctx, NULL, in, n, out);
  KN_TRY(copied(ctx, in[0], kn_tensor_dtype(in[0]), &lined));
  kn_status st = kn_kernel_reshape(ctx, NULL, &lined, 1, out);
  kn_tensor_release(lined);
  return st;
}

CU_ENTRY(reshape) {
  (void)attrs;
  return reshape(ctx, in, n, out);
}

CU_ENTRY(reshape_as) {
  (void)attrs;
  return reshape(ctx, in, n, out);
}
