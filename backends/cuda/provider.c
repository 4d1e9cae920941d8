/* The table of eager kernels: a row for each op that has one here. What has none, or is declined, takes the
 * host route (host.c). */
#include "backends/cuda/provider.h"
#include "backends/cuda/attention.h"
#include "backends/cuda/entries.h"

/* Views move no element: what the reference does to offset and strides does for any memory. to_device asks
 * both sides' memory. */
#define OF_ANY_MEMORY(X)                                                                                     \
  X(expand)                                                                                                  \
  X(expand_as)                                                                                               \
  X(transpose) X(permute) X(select) X(slice) X(squeeze) X(unsqueeze) X(diagonal) X(unfold) X(to_device)

const kn_provider cu_provider = {
    .name = "cuda",
    .prefers = cu_attention_prefers,
    .kernel =
        {
#define ROW(name) [KN_OP_##name] = cu_##name,
            CU_ENTRIES(ROW)
#define ELEMENTWISE(name) ROW(name)
#include "core/kernels/elementwise.def"
#undef ROW
#define ROW(name) [KN_OP_##name] = kn_kernel_##name,
                OF_ANY_MEMORY(ROW)
#undef ROW
        },
};
