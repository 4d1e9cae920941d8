/* Copies and casts on the device. */
#ifndef KN_CUDA_COPY_H
#define KN_CUDA_COPY_H
#include "backends/cuda/device.h"
#include "core/kernels/kernel.h"

/* kk_copy on addresses of the device: to = from, broadcast and cast; strides may be negative. They must not
 * overlap. */
kn_status cu_copy(kn_context *ctx, cu_device *d, const kk_view *to, const kk_view *from);
/* kk_cast and kk_contiguous: the answer is owned, t itself retained when it fits already. */
kn_status cu_cast_to(kn_context *ctx, cu_device *d, kn_tensor *t, kn_dtype dtype, kn_tensor **out);
kn_status cu_contiguous(kn_context *ctx, cu_device *d, kn_tensor *t, kn_tensor **out);

#endif
