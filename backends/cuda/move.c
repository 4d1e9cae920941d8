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
