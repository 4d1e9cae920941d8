/* Gradients of pooling by our own loops. */
#ifndef KN_CPU_POOL_H
#define KN_CPU_POOL_H
#include "backends/cpu/run.h"

/* n windows of two rows of x, gradients of what they gave, into two rows. */
typedef void (*cp_pool_row)(void *to, void *below, const void *x, const void *under, const void *g,
                            int64_t n);
typedef struct cp_pools {
  cp_pool_row rows[KN_DTYPE_COUNT];
} cp_pools;

kn_status cp_max_pool2d_grad(kn_context *ctx, const cp_pools *of, const kn_attrs_pool2d *a, kn_tensor *g,
                             kn_tensor *x, kn_tensor *out);

#endif
