/* The cell of faults: see fault.h. It is made when first needed, and lives as long as the device. */
#include "backends/cuda/fault.h"

/* The cell: a lock, then turn (0: no fault), place, value, what, size. */
enum { CELL_TURN = 1, CELL_WORDS = 6 };

/* clang-format off */
const char cu_fault_source[] = CU_SOURCE(
    DEVICE void note_fault(cu_site s, u64 place, i64 value) {
      volatile u64 *cell = s.cell;
      for (u32 done = 0; !done;) {
        if (atomic_cas_u32((u32 *)s.cell, 0, 1)) continue;
        FENCE();
        if (!cell[1] || s.turn < cell[1] || (s.turn == cell[1] && place < cell[2])) {
          cell[1] = s.turn;
          cell[2] = place;
          cell[3] = (u64)value;
          cell[4] = s.what;
          cell[5] = (u64)s.size;
        }
        FENCE();
        atomic_cas_u32((u32 *)s.cell, 1, 0);
        done = 1;
      }
    });
/* clang-format on */

kn_status cu_fault_open(kn_context *ctx, cu_device *d) {
  CUdeviceptr cell;
  if (d->faults) return KN_OK;
  KN_TRY(cu_alloc(ctx, d, CELL_WORDS * sizeof(u64), &cell));
  d->faults = cell;
  CU_TRY(ctx, d, d->api.cuMemsetD8Async(cell, 0, CELL_WORDS * sizeof(u64), d->stream), "cuMemsetD8Async");
  return KN_OK;
}

CUdeviceptr cu_fault_noted(const cu_device *d) { return d->faults ? d->faults + CELL_TURN * sizeof(u64) : 0; }

kn_status cu_site_of(kn_context *ctx, cu_device *d, kn_op op, cu_fault_kind kind, int dim, int64_t size,
                     cu_site *out) {
  KN_TRY(cu_fault_open(ctx, d));
  *out = (cu_site){.cell = (u64 *)(uintptr_t)d->faults,
                   .turn = ++d->turns,
                   .what = (u64)op | (u64)kind << 16 | (u64)dim << 32,
                   .size = size};
  return KN_OK;
}

void cu_fault_close(cu_device *d) {
  if (d->faults) cu_free(d, d->faults, CELL_WORDS * sizeof(u64));
  d->faults = 0;
}

static kn_status say(kn_context *ctx, const u64 *cell) {
  const char *op = kn_op_name((kn_op)(cell[4] & 0xffff));
  long long value = (long long)cell[3], size = (long long)cell[5];
  if ((cell[4] >> 16 & 0xffff) == CU_FAULT_COUNT)
    return kn_fail(ctx, KN_INDEX, "%s: %lld cannot be counted: values start at 1", op, value);
  return kn_fail(ctx, KN_INDEX, "%s: index %lld is out of range for dim %d of size %lld (indices start at 1)",
                 op, value, (int)(cell[4] >> 32) + 1, size);
}

kn_status cu_fault_check(kn_context *ctx, cu_device *d) {
  uint64_t turn;
  return cu_fault_look(ctx, d, &turn);
}

kn_status cu_fault_look(kn_context *ctx, cu_device *d, uint64_t *turn) {
  u64 cell[CELL_WORDS] = {0};
  *turn = 0;
  if (d->capturing || !d->faults) return KN_OK;
  KN_TRY(cu_read(ctx, d, cell, d->faults, sizeof cell));
  if (!(*turn = cell[CELL_TURN])) return KN_OK;
  CU_TRY(ctx, d, d->api.cuMemsetD8Async(d->faults, 0, sizeof cell, d->stream), "cuMemsetD8Async");
  return say(ctx, cell);
}
