/* Elements that something holds of, counted and numbered in order: what nonzero and unique are made of. Not
 * while a graph is captured, as the host waits for their number. */
#ifndef KN_CUDA_FLAGS_H
#define KN_CUDA_FLAGS_H
#include "backends/cuda/program.h"

CU_ARGUMENT(flags, {
  i64 count;
  i64 tiles;
  i64 *sums;
});

/* After flags_text, and of the program's own: a type F that begins with `flags f`,
 *   DEVICE u32 is_flagged(const F *q, i64 i)
 *   DEVICE void take(const F *q, i64 i, i64 k, u32 flagged)   element i; k flagged ones stand before it */
extern const char cu_flags_source[];

/* How many there are; waits. `argument` is the program's F, whose flags have a count. What it leaves in *room
 * is for cu_flags_take, and then given back by cu_free. */
kn_status cu_flags_count(kn_context *ctx, cu_device *d, const cu_program *p, flags *f, void *argument,
                         int64_t *found, CUdeviceptr *room, size_t *bytes);
/* Then `take` for each element, flagged or not. */
kn_status cu_flags_take(kn_context *ctx, cu_device *d, const cu_program *p, const flags *f, void *argument);

#endif
