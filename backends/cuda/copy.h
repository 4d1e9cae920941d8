/* Copies of views on the device. */
#ifndef KN_CUDA_COPY_H
#define KN_CUDA_COPY_H
#include "backends/cuda/device.h"
#include "core/kernels/kernel.h"

/* kk_copy on addresses of the device: to = from, broadcast and cast; strides may be negative. */
kn_status cu_copy(kn_context *ctx, cu_device *d, const kk_view *to, const kk_view *from);

#endif
