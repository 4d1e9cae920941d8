/* The time in which what is launched becomes a graph: memory that is taken then is kept for as long as the
 * graph lives, and workspaces are one, as its nodes follow one another. */
#ifndef KN_CUDA_CAPTURE_H
#define KN_CUDA_CAPTURE_H
#include "backends/cuda/memory.h"
#include "graph/target.h"

/* Whether the driver takes graphs with conditional nodes: tried once. UNSUPPORTED with the reason. */
kn_status cu_capture_offered(kn_context *ctx, cu_device *d);
/* What is captured next is of this node: its faults will be, and it is why if that fails. */
void cu_capture_meets(kn_context *ctx, const kn_node *n);
void cu_room_free_suspects(kn_heap *heap, cu_room *room);
/* From here on the context captures: c, whose room and random are set, is the device's until the end. It may
 * take memory, compile and load kernels meanwhile, and other contexts may do all that they like: so streams
 * are captured in the relaxed mode, which forbids nobody anything. */
kn_status cu_capture_begin(kn_context *ctx, cu_device *d, cu_capture *c);
cu_held *cu_capture_end(cu_device *d, cu_capture *c); /* what the graph keeps */

#endif
