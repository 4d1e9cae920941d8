/* Tensors of workspace: see work.h. */
#include "backends/cuda/work.h"
#include "core/device.h"

static void give_back(void *ud, void *data, size_t bytes) {
  cu_free(ud, (CUdeviceptr)(uintptr_t)data, bytes);
}

kn_status cu_work_tensor(kn_context *ctx, cu_device *d, const kn_type *type, kn_tensor **out) {
  size_t bytes = 0;
  CUdeviceptr room;
  kn_type_bytes(type, &bytes);
  KN_TRY(cu_workspace(ctx, d, bytes, &room));
  return kn_tensor_wrap(ctx, type, (void *)(uintptr_t)room, give_back, d, out);
}

static kn_dtype wide(const kn_tensor *t) {
  kn_dtype d = kn_tensor_dtype(t);
  return kn_dtype_is_float(d) ? kn_dtypes[d].wide : d;
}

static kn_status cast(kn_context *ctx, kn_tensor *from, kn_tensor *to) {
  const kn_attrs_cast as = {.dtype = kn_tensor_dtype(to)};
  return kn_device_run(ctx, KN_OP_cast, &as, &from, 1, &to, NULL);
}

/* t itself, retained, where it fits already. */
static kn_status fitting(kn_context *ctx, cu_device *d, kn_tensor *t, bool filled, kn_tensor **out) {
  kn_type type = t->type;
  type.dtype = (uint8_t)wide(t);
  if (type.dtype == t->type.dtype && kn_tensor_contiguous(t)) {
    *out = kn_tensor_retain(t);
    return KN_OK;
  }
  KN_TRY(cu_work_tensor(ctx, d, &type, out));
  kn_status st = filled ? cast(ctx, t, *out) : KN_OK;
  if (st != KN_OK) kn_tensor_release(*out);
  return st;
}

static void release_all(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

kn_status cu_run_wide(kn_context *ctx, kn_op op, kn_kernel_fn kernel, const void *attrs, kn_tensor *const *in,
                      int n, kn_tensor *const *out) {
  int outs = kn_ops[op].outs, ins = 0, made = 0;
  kn_tensor *as[KN_MAX_INPUTS], *to[KN_MAX_OUTPUTS];
  kn_status st = KN_OK;
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  for (; st == KN_OK && ins < n; ins += st == KN_OK) st = fitting(ctx, d, in[ins], true, &as[ins]);
  for (; st == KN_OK && made < outs; made += st == KN_OK) st = fitting(ctx, d, out[made], false, &to[made]);
  if (st == KN_OK) st = kernel(ctx, attrs, as, n, to);
  for (int i = 0; st == KN_OK && i < outs; i++)
    if (to[i] != out[i]) st = cast(ctx, to[i], out[i]);
  release_all(as, ins);
  release_all(to, made);
  return st;
}
