/* Errors that only data can tell: a kernel notes the first in the device's cell and goes on without touching
 * memory by what is wrong; the host makes the sentence when it next waits. */
#ifndef KN_CUDA_FAULT_H
#define KN_CUDA_FAULT_H
#include "backends/cuda/program.h"
#include "core/op.h"

/* Sentences; all are told the value. */
typedef enum cu_fault_kind {
  CU_FAULT_INDEX, /* "OP: index %lld is out of range for dim %d of size %lld (indices start at 1)" */
  CU_FAULT_COUNT, /* "OP: %lld cannot be counted: values start at 1" */
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

/* Makes the cell; before a capture, which would only record that it is cleared. */
kn_status cu_fault_open(kn_context *ctx, cu_device *d);
/* The address of 8 bytes that are not 0 once a fault was noted; 0 while there is no cell. */
CUdeviceptr cu_fault_noted(const cu_device *d);
/* The next site; `dim` from 0. */
kn_status cu_site_of(kn_context *ctx, cu_device *d, kn_op op, cu_fault_kind kind, int dim, int64_t size,
                     cu_site *out);
/* Waits for the device and says what was noted, if anything, and forgets it. While capturing: nothing; who
 * launches the graph looks. */
kn_status cu_fault_check(kn_context *ctx, cu_device *d);
/* The same, and the turn of its site; 0: none was noted. */
kn_status cu_fault_look(kn_context *ctx, cu_device *d, uint64_t *turn);
void cu_fault_close(cu_device *d); /* before its memory */

#endif
