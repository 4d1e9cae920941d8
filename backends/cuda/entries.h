/* Entries of the table of kernels (provider.c), by the file that has them. */
#ifndef KN_CUDA_ENTRIES_H
#define KN_CUDA_ENTRIES_H
#include "core/kernels/kernel.h"

#define CU_ENTRY(name)                                                                                       \
  kn_status cu_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out)

/* Those of elementwise.def are elementwise.c's and copy.c's. */
/* clang-format off */
#define CU_COPIES(X) X(copy_) X(reshape) X(reshape_as)
#define CU_REDUCE(X)                                                                                         \
  X(sum) X(mean) X(prod) X(amax) X(amin) X(all) X(any) X(argmax) X(argmin) X(sum_to) X(softmax) X(log_softmax)
#define CU_SCAN(X) X(cumsum) X(cumprod)
#define CU_PRODUCT(X) X(matmul) X(conv2d) X(conv2d_grad_input) X(conv2d_grad_weight)
#define CU_ATTENTION(X) X(fused_attention) X(fused_attention_grad)
#define CU_CREATE(X) X(full) X(full_like) X(arange) X(linspace) X(eye)
#define CU_RANDOM(X) X(rand) X(randn) X(randint) X(bernoulli)
#define CU_POOL(X) X(max_pool2d) X(max_pool2d_indices) X(max_pool2d_grad) X(avg_pool2d) X(avg_pool2d_grad)
#define CU_INDEX(X)                                                                                          \
  X(gather) X(index_select) X(scatter) X(scatter_add) X(scatter_fold) X(index_add) X(index_copy) X(nonzero)  \
  X(sort) X(searchsorted) X(unique) X(bincount)
#define CU_MOVE(X) KK_MOVES(X) X(tril) X(triu) X(unfold_grad)
#define CU_RECURRENT(X)                                                                                      \
  X(lstm_layer) X(lstm_layer_grad) X(gru_layer) X(gru_layer_grad) X(rnn_layer) X(rnn_layer_grad)

#define CU_ENTRIES(X)                                                                                        \
  CU_COPIES(X) CU_REDUCE(X) CU_SCAN(X) CU_CREATE(X) CU_RANDOM(X) CU_POOL(X) CU_INDEX(X) CU_MOVE(X)           \
  CU_RECURRENT(X) CU_PRODUCT(X) CU_ATTENTION(X)
/* clang-format on */

#define CU_DECLARE(name) CU_ENTRY(name);
CU_ENTRIES(CU_DECLARE)
#define ELEMENTWISE(name) CU_DECLARE(name)
#include "core/kernels/elementwise.def"
#undef CU_DECLARE

#endif
