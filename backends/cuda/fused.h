/* Nodes of a graph that share a kernel: elementwise ops, casts, reductions and softmaxes that follow each
 * other in a part, as one chain (chain.h). Values are rounded between nodes as the nodes alone would round
 * them. */
#ifndef KN_CUDA_FUSED_H
#define KN_CUDA_FUSED_H
#include "backends/cuda/device.h"
#include "graph/target.h"

typedef struct cu_fused cu_fused;

/* The longest such list that begins at node `first` of the part; NULL where no two go together. Tells the
 * plan which nodes run together and which values need no memory. */
kn_status cu_fused_new(kn_context *ctx, cu_device *d, const kn_part *part, uint32_t first, cu_fused **out);
void cu_fused_free(kn_context *ctx, cu_fused *f); /* NULL is fine */
uint32_t cu_fused_length(const cu_fused *f);
kn_status cu_fused_run(kn_context *ctx, cu_device *d, const cu_fused *f, kn_tensor *const *vals);

#endif
