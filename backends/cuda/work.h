/* Tensors that live as long as what is launched next: workspace, and inputs as kernels want them. */
#ifndef KN_CUDA_WORK_H
#define KN_CUDA_WORK_H
#include "backends/cuda/device.h"
#include "core/op.h"

/* A contiguous tensor of workspace; to be released once what uses it is launched. */
kn_status cu_work_tensor(kn_context *ctx, cu_device *d, const kn_type *type, kn_tensor **out);
/* kk_run_wide for kernels of the device that read their inputs in one piece: halves as float32, others as
 * they are; results are rounded at the end. */
kn_status cu_run_wide(kn_context *ctx, kn_op op, kn_kernel_fn kernel, const void *attrs, kn_tensor *const *in,
                      int n, kn_tensor *const *out);

#endif
