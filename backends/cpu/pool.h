/* Gradients of pooling by our own loops. */
#ifndef KN_CPU_POOL_H
#define KN_CPU_POOL_H
#include "backends/cpu/run.h"

kn_status cp_max_pool2d_grad(kn_context *ctx, const kn_attrs_pool2d *a, kn_tensor *g, kn_tensor *x,
                             kn_tensor *out);

#endif
