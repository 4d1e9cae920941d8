/* Attention by plans of cuDNN: softmax(q kᵀ scale + mask) v as one, scores never stored, and its gradient.
 * For halves only. */
#ifndef KN_CUDA_ATTENTION_H
#define KN_CUDA_ATTENTION_H
#include "backends/cuda/dnn.h"
#include "core/op.h"

/* Zeroed before it is filled: compared as bytes. Strides, in elements, are of [batch, heads, rows, depth],
 * and depth lies side by side. Several heads may share keys and values: kv_heads divides heads. */
typedef struct cu_attention {
  int32_t dtype; /* KN_F16, KN_BF16 */
  int32_t backward;
  int32_t causal; /* query i sees keys 0 … i */
  int32_t mask;   /* one is added: [batch or 1, heads or 1, queries, keys], of dtype … */
  int32_t wide;   /* … or of float32 */
  int32_t keeps;  /* forward: `statistics` are written, for the gradient */
  int64_t batch, heads, kv_heads, queries, keys, depth, value_depth;
  int64_t q[4], k[4], v[4], o[4], mask_strides[4];
  int64_t grad[4], dq[4], dk[4], dv[4]; /* backward: of o's gradient, and of what is computed */
} cu_attention;

typedef struct cu_attention_data {
  CUdeviceptr q, k, v, o, mask;
  CUdeviceptr statistics;       /* float32 [batch, heads, queries]: log of the sum of exponentials */
  CUdeviceptr grad, dq, dk, dv; /* backward */
  CUdeviceptr room;             /* backward: cu_attention_room bytes */
  float scale;
} cu_attention_data;

/* Of the way it lies only; whether there is an engine is for cu_attention_plan to say (DECLINED). */
/* [heads, rows, depth] in one piece. */
void cu_attention_dense(int64_t to[4], int64_t heads, int64_t rows, int64_t depth);
bool cu_attention_supports(const cu_attention *a, char *why, size_t size);
size_t cu_attention_room(const cu_attention *a);
kn_status cu_attention_plan(kn_context *ctx, cu_dnn *s, const cu_attention *a, const cu_plan **out,
                            const char **why);
kn_status cu_attention_run(kn_context *ctx, cu_device *d, const cu_plan *p, const cu_attention *a,
                           const cu_attention_data *at);

/* Says with KILN_DEBUG that it is not taken. */
void cu_attention_refused(kn_context *ctx, const char *what, const char *why);
/* The provider's `prefers`: attention as one op where there is a plan for it. */
bool cu_attention_prefers(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n);

#endif
