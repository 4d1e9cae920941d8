/* The provider of one instruction set: a kernel for each op of run.h's lists. A kernel is not told its op, so
 * there is one function each. Compiled once for each instruction set. */
#include "backends/cpu/gemm.h"
#include "backends/cpu/runs.h"

extern const cp_isa CP(isa);
extern const kn_provider CP(provider);
extern const cp_kit *const CP(kits)[KN_DTYPE_COUNT];

#define X(op, grain)                                                                                         \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    return cp_elementwise(ctx, &CP(isa), CP(op##_runs), grain, attrs, in, n, out[0]);                        \
  }
CP_ELEMENTWISE(X)
#undef X

static kn_status matmul_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                               kn_tensor *const *out) {
  (void)attrs, (void)n;
  return cp_matmul(ctx, CP(kits), in, out[0]);
}

static kn_status conv2d_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                               kn_tensor *const *out) {
  return cp_conv2d(ctx, CP(kits), attrs, in, n, out[0]);
}

const kn_provider CP(provider) = {
    .name = "cpu:" CP_TEXT(CP_ISA),
    .kernel =
        {
#define X(op, grain) [KN_OP_##op] = op##_kernel,
            CP_ELEMENTWISE(X)
#undef X
                [KN_OP_matmul] = matmul_kernel,
            [KN_OP_conv2d] = conv2d_kernel,
        },
};
