/* Cells of faults: see fault.h. Those that nobody uses and in which nothing is noted are kept. */
#include "backends/cuda/fault.h"
#include <string.h>

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

/* ---- cells ---- */

kn_status cu_fault_clear(kn_context *ctx, cu_device *d, CUdeviceptr cell) {
  CU_TRY(ctx, d, d->api.cuMemsetD8Async(cell, 0, CU_FAULT_BYTES, cu_stream(ctx, d)), "cuMemsetD8Async");
  return KN_OK;
}

static kn_status take_cell(kn_context *ctx, cu_device *d, CUdeviceptr *cell) {
  *cell = 0;
  pthread_mutex_lock(&d->lock);
  if (d->faults.n) *cell = d->faults.cell[--d->faults.n];
  pthread_mutex_unlock(&d->lock);
  if (*cell) return KN_OK;
  KN_TRY(cu_alloc(ctx, d, CU_FAULT_BYTES, cell));
  kn_status st = cu_fault_clear(ctx, d, *cell);
  if (st != KN_OK) cu_free(d, *cell, CU_FAULT_BYTES);
  return st;
}

static void give_cell(cu_device *d, CUdeviceptr cell, bool clean) {
  pthread_mutex_lock(&d->lock);
  const bool keep = clean && d->faults.n < CU_FAULT_CELLS;
  if (keep) d->faults.cell[d->faults.n++] = cell;
  pthread_mutex_unlock(&d->lock);
  if (!keep) cu_free(d, cell, CU_FAULT_BYTES);
}

void cu_fault_close(cu_device *d) {
  while (d->faults.n) cu_free(d, d->faults.cell[--d->faults.n], CU_FAULT_BYTES);
}

/* ---- sites ---- */

kn_status cu_site_of(kn_context *ctx, cu_device *d, kn_op op, cu_fault_kind kind, int dim, int64_t size,
                     cu_site *out) {
  const cu_capture *c = cu_capture_of(ctx, d);
  CUdeviceptr cell;
  if (c)
    cell = c->room->faults;
  else
    KN_TRY(take_cell(ctx, d, &cell));
  *out = (cu_site){.cell = (u64 *)(uintptr_t)cell,
                   .turn = c ? ++c->room->turns : 1,
                   .what = (u64)op | (u64)kind << 16 | (u64)dim << 32,
                   .size = size};
  return KN_OK;
}

kn_status cu_fault_power(kn_context *ctx, kn_op op, kn_dtype base, int64_t power) {
  return kn_fail(ctx, KN_ARG,
                 "%s: integers to negative integer powers are not allowed (got %s to the power %lld); make "
                 "the base or the power a float first",
                 kn_op_name(op), kn_dtype_name(base), (long long)power);
}

kn_status cu_fault_say(kn_context *ctx, const void *of, uint64_t *turn) {
  u64 cell[CELL_WORDS];
  memcpy(cell, of, sizeof cell);
  const char *op = kn_op_name((kn_op)(cell[4] & 0xffff));
  const int dim = (int)(cell[4] >> 32);
  const long long value = (long long)cell[3], size = (long long)cell[5];
  if (!(*turn = cell[CELL_TURN])) return KN_OK;
  switch ((cu_fault_kind)(cell[4] >> 16 & 0xffff)) {
  case CU_FAULT_COUNT:
    return kn_fail(ctx, KN_INDEX, "%s: %lld cannot be counted: values start at 1", op, value);
  case CU_FAULT_ZERO: return kn_fail(ctx, KN_ARG, "%s: integer division by zero", op);
  case CU_FAULT_POWER: return cu_fault_power(ctx, (kn_op)(cell[4] & 0xffff), (kn_dtype)dim, value);
  case CU_FAULT_INDEX: break;
  }
  return kn_fail(ctx, KN_INDEX, "%s: index %lld is out of range for dim %d of size %lld (indices start at 1)",
                 op, value, dim + 1, size);
}

kn_status cu_fault_check(kn_context *ctx, cu_device *d, const cu_site *s, kn_status st) {
  const CUdeviceptr at = (CUdeviceptr)(uintptr_t)s->cell;
  u64 cell[CELL_WORDS] = {0};
  uint64_t turn = 0;
  if (cu_captures(ctx, d)) return st;
  if (st == KN_OK) st = cu_read(ctx, d, cell, at, sizeof cell);
  const bool looked = st == KN_OK;
  if (looked) st = cu_fault_say(ctx, cell, &turn);
  give_cell(d, at, looked && !turn);
  return st;
}
