/* The provider of one instruction set: a kernel for each op of run.h's lists. A kernel is not told its op, so
 * there is one function each. Compiled once for each instruction set. */
#include "backends/cpu/runs.h"

extern const cp_isa CP(isa);
extern const kn_provider CP(provider);

#define X(op, grain)                                                                                         \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    return cp_elementwise(ctx, &CP(isa), CP(op##_runs), grain, attrs, in, n, out[0]);                        \
  }
CP_ELEMENTWISE(X)
#undef X

const kn_provider CP(provider) = {
    .name = "cpu:" CP_TEXT(CP_ISA),
    .kernel =
        {
#define X(op, grain) [KN_OP_##op] = op##_kernel,
            CP_ELEMENTWISE(X)
#undef X
        },
};
