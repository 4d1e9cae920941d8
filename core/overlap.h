/* Whether elements share memory: within one tensor, and between two. Decided by sizes and strides alone. */
#ifndef KN_OVERLAP_H
#define KN_OVERLAP_H
#include "core/tensor.h"

/* Whether two elements of a layout lie at one address. Strides in any unit, not negative. Exact: where
 * nested strides do not settle it, the addresses are marked one by one, which may run out of memory. */
kn_status kn_overlaps_itself(kn_context *ctx, int rank, const int64_t *dims, const int64_t *strides,
                             bool *out);

/* How the elements of two tensors lie to each other. */
typedef enum kn_overlap {
  KN_OVERLAP_NONE,  /* no byte in common */
  KN_OVERLAP_SAME,  /* element by element the same */
  KN_OVERLAP_MIXED, /* some may be common, and not in order */
} kn_overlap;
kn_overlap kn_tensor_overlap(const kn_tensor *a, const kn_tensor *b);

#endif
