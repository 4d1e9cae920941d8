/* One place of a dim that a number on the device says, as select and select_put take it. */
#ifndef KN_CUDA_PLACE_H
#define KN_CUDA_PLACE_H
#include "backends/cuda/device.h"

/* at: the address of an int64, from 0 and in range. What `from` has there into `to`, which is contiguous … */
kn_status cu_place_pick(kn_context *ctx, cu_device *d, int dim, CUdeviceptr at, kn_tensor *from,
                        kn_tensor *to);
/* … and what `to` has there becomes `from`, broadcast and cast. */
kn_status cu_place_put(kn_context *ctx, cu_device *d, int dim, CUdeviceptr at, kn_tensor *from,
                       kn_tensor *to);

#endif
