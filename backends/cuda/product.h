/* The tiled product of our own (product.c). */
#ifndef KN_CUDA_PRODUCT_H
#define KN_CUDA_PRODUCT_H
#include "backends/cuda/kernel.h"

/* c[batches, m, n] = a b, with strides in elements, any; c contiguous but for its step from batch to batch.
 */
typedef struct cu_tiles {
  kn_dtype dtype;
  CUdeviceptr a, b, c;
  int64_t m, n, k, batches;
  int64_t a_row, a_column, a_step, b_row, b_column, b_step, c_step;
} cu_tiles;
kn_status cu_tiles_run(kn_context *ctx, cu_device *d, const cu_tiles *t);
/* The text of its kernel for a dtype, as cu_kernel asks for it; ud: a const kn_dtype. */
void cu_tiles_write(void *ud, cu_text *t);

/* How elements of a dtype lie in memory, what they are summed as, and functions from one to the other ("":
 * none). stored is NULL where there are no sums. */
typedef struct cu_summand {
  const char *stored, *sum, *load, *store;
} cu_summand;
const cu_summand *cu_summand_of(kn_dtype d);

#endif
