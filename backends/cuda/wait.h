/* Waiting for the device while somebody may want it to end: of loops nobody knows how long they take. */
#ifndef KN_CUDA_WAIT_H
#define KN_CUDA_WAIT_H
#include "backends/cuda/device.h"

#define CU_ALL_LAUNCHES UINT64_MAX
/* The word that conditions of loops read at each trip, made when first asked for. */
kn_status cu_stop_open(kn_context *ctx, cu_device *d);
void cu_stop_close(cu_device *d);
/* Until all that was launched so far is done. What `ask` says is asked every now and then; when it is not OK
 * any more, *said is that, and the launch `id`, or all, end at their next trip. */
kn_status cu_wait_asking(kn_context *ctx, cu_device *d, uint64_t id, kn_status (*ask)(void *ud), void *ud,
                         kn_status *said);
/* The same; a context that can be interrupted (core/context.h) asks where loops may be under way, and the
 * interrupt is a failure. */
kn_status cu_wait(kn_context *ctx, cu_device *d);

#endif
