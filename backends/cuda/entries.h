/* Entries of the table of kernels (provider.c), by the file that has them. */
#ifndef KN_CUDA_ENTRIES_H
#define KN_CUDA_ENTRIES_H
#include "core/kernels/kernel.h"

#define CU_ENTRY(name)                                                                                       \
  kn_status cu_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out)

/* clang-format off */
#define CU_CREATE(X) X(full) X(full_like) X(arange) X(linspace) X(eye)
#define CU_RANDOM(X) X(rand) X(randn) X(randint) X(bernoulli)
#define CU_POOL(X) X(max_pool2d) X(max_pool2d_indices) X(max_pool2d_grad) X(avg_pool2d) X(avg_pool2d_grad)

#define CU_INDEX(X)                                                                                          \
  X(gather) X(index_select) X(scatter) X(scatter_add) X(scatter_fold) X(index_add) X(index_copy) X(nonzero) \
  X(sort) X(searchsorted) X(unique) X(bincount)

#define CU_MOVE(X) X(tril) X(triu) X(unfold_grad)

#define CU_RECURRENT(X)                                                                                      \
  X(lstm_layer) X(lstm_layer_grad) X(gru_layer) X(gru_layer_grad) X(rnn_layer) X(rnn_layer_grad)

#define CU_ENTRIES(X) CU_RECURRENT(X) CU_MOVE(X) CU_CREATE(X) CU_RANDOM(X) CU_POOL(X) CU_INDEX(X)
/* clang-format on */

#define CU_DECLARE(name) CU_ENTRY(name);
CU_ENTRIES(CU_DECLARE)
#undef CU_DECLARE

#endif
