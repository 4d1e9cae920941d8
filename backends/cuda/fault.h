/* Errors that only data can tell: a kernel notes the first in a cell of the device and goes on without
 * touching memory by what is wrong; the host makes the sentence when it next waits. An eager op has a cell
 * for itself, as other threads have theirs, and waits for it; all that is captured into a graph has that of
 * its room, which who launches the graph looks at. */
#ifndef KN_CUDA_FAULT_H
#define KN_CUDA_FAULT_H
#include "backends/cuda/program.h"
#include "core/op.h"

/* Sentences; all are told the value. */
typedef enum cu_fault_kind {
  CU_FAULT_INDEX, /* "OP: index %lld is out of range for dim %d of size %lld (indices start at 1)" */
  CU_FAULT_COUNT, /* "OP: %lld cannot be counted: values start at 1" */
  CU_FAULT_ZERO,  /* "OP: integer division by zero" */
  CU_FAULT_POWER, /* "OP: integers to negative integer powers …": `dim` is the base's dtype */
} cu_fault_kind;

/* Where a kernel may fail. Of several faults the one of the least turn counts, and there the one at the least
 * place, which is the one that the CPU would have met first. */
CU_ARGUMENT(cu_site, {
  u64 *cell;
  u64 turn;
  u64 what;
  i64 size;
});
/* What sources with sites need, after cu_site_text: note_fault(site, place, value). */
extern const char cu_fault_source[];

enum { CU_FAULT_BYTES = 64 }; /* of a cell, of which the last 16 are another's (numbers.h) */

/* A site; `dim` from 0. It ends with cu_fault_check, whatever becomes of it. */
kn_status cu_site_of(kn_context *ctx, cu_device *d, kn_op op, cu_fault_kind kind, int dim, int64_t size,
                     cu_site *out);
/* st: of what was launched with the site. Waits for the device and says what was noted, if anything. While
 * capturing it does neither. */
kn_status cu_fault_check(kn_context *ctx, cu_device *d, const cu_site *s, kn_status st);
/* The sentence of a cell that was read; *turn of its site, 0: none was noted. */
kn_status cu_fault_say(kn_context *ctx, const void *cell, uint64_t *turn);
kn_status cu_fault_power(kn_context *ctx, kn_op op, kn_dtype base, int64_t power);
kn_status cu_fault_clear(kn_context *ctx, cu_device *d, CUdeviceptr cell);
void cu_fault_close(cu_device *d); /* before its memory */

#endif
