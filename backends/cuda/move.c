/* Ops that lay elements anew. Those that only move views are core/kernels' own (kk_mover), with copies made
 * by the device; triangles keep or clear each element where it stands; windows are added up by the element
 * that they go to, in the order of the CPU. */
#include "backends/cuda/copy.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/program.h"
#include "core/kernels/kernel.h"

static kn_status put(const kk_mover *m, const kk_view *to, const kk_view *from) {
  return cu_copy(m->ctx, m->self, to, from);
}

static kn_status fill(const kk_mover *m, kn_tensor *t, kn_number value) {
  kn_attrs_value v = {.value_number = value};
  return cu_full_like(m->ctx, &v, &t, 1, &t);
}

#define MOVES(name)                                                                                          \
  CU_ENTRY(name) {                                                                                           \
    cu_device *d;                                                                                            \
    if (KN_OP_##name == KN_OP_strided && !kn_tensor_contiguous(in[0])) return KN_DECLINED;                   \
    KN_TRY(cu_device_of(ctx, &d));                                                                           \
    const kk_mover m = {.ctx = ctx, .self = d, .put = put, .fill = fill};                                    \
    return kk_move_##name(&m, attrs, in, n, out);                                                            \
  }
KK_MOVES(MOVES)
