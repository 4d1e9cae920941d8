/* A product or a convolution of a graph with what follows it, if anything: bias and relu, of convolutions a
 * sum with another image, too. As one call of the library where it takes that, else its own call and a kernel
 * behind it. */
#ifndef KN_CUDA_JOINED_H
#define KN_CUDA_JOINED_H
#include "backends/cuda/device.h"
#include "graph/target.h"

/* Values by id; 0: there is none. */
typedef struct cu_joined {
  const kn_node *main;
  uint32_t n; /* nodes, from `main` on; 0: they are none of these */
  uint32_t bias, add, out;
  bool relu;
} cu_joined;

/* What begins at node `first` of the part; n == 0 where it is neither. Tells the plan. */
void cu_joined_find(const kn_part *part, uint32_t first, cu_joined *out);
/* Has the library's fastest algorithm for it found, as the context's tuning has it. */
void cu_joined_tune(kn_context *ctx, cu_device *d, const cu_joined *j, const kn_type *types);
/* *how: what the profile calls it. */
kn_status cu_joined_run(kn_context *ctx, cu_device *d, const cu_joined *j, kn_tensor *const *vals,
                        const char **how);

#endif
