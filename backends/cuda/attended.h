/* Attention in graphs: nodes that compute softmax(q kᵀ, scaled and masked) v of halves, or of float32 between
 * casts from and to halves, as one plan of cuDNN (attention.h). */
#ifndef KN_CUDA_ATTENDED_H
#define KN_CUDA_ATTENDED_H
#include "backends/cuda/device.h"
#include "graph/target.h"

typedef struct cu_attended cu_attended;

/* The nodes that begin with node `first` of the part; *out is NULL where they are something else, or cuDNN
 * has no plan for them, which is said. Tells the plan. *looked: from how many nodes on others may begin. */
kn_status cu_attended_new(kn_context *ctx, cu_device *d, const kn_part *part, uint32_t first,
                          cu_attended **out, uint32_t *looked);
void cu_attended_free(kn_context *ctx, cu_attended *a); /* NULL is fine */
uint32_t cu_attended_length(const cu_attended *a);
/* Those of its nodes that are to be run before. */
uint32_t cu_attended_before(const cu_attended *a, const uint32_t **which);
kn_status cu_attended_run(kn_context *ctx, cu_device *d, const cu_attended *a, kn_tensor *const *vals);

#endif
