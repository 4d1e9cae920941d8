/* Convolutions of images and their gradients: by plans of cuDNN, with bias, sum and relu in them where it has
 * an engine for that; by loops of our own (convolve.c) where it has none. */
#ifndef KN_CUDA_CONV_H
#define KN_CUDA_CONV_H
#include "backends/cuda/dnn.h"
#include "backends/cuda/view.h"
#include "core/attrs.h"

typedef struct cu_conv_tensor {
  int64_t dims[4], strides[4]; /* [N,C,H,W], [O,C/groups,KH,KW]; elements */
  int64_t alignment;           /* of its address, in bytes: 16 at most */
} cu_conv_tensor;

/* y = conv(x, w) (+ bias) (+ add) (then relu), or x or w from the others. Zeroed before it is filled:
 * compared as bytes.
 */
typedef struct cu_conv {
  int32_t kind, dtype; /* cu_conv_kind, kn_dtype */
  int32_t bias, add, relu;
  int32_t groups;
  int32_t planned; /* of a graph: by the engine that was found to be the fastest, where one was */
  cu_conv_tensor x, w, y;
  int64_t padding[2], stride[2], dilation[2];
} cu_conv;

/* Of these tensors at these addresses; of an address that is not known yet 0, and it will be a multiple
 * of 16. What is added lies as y does, and is aligned as y is. */
typedef struct cu_conv_data {
  CUdeviceptr x, w, y, bias,
      add; /* one of x, w, y is written, as the kind says; bias, add: 0 where there is none */
} cu_conv_data;
void cu_conv_of(cu_conv *c, cu_conv_kind kind, const kn_attrs_conv2d *a, cu_view x, cu_view w, cu_view y,
                const cu_conv_data *at);
/* The plan; KN_DECLINED with the reason where cuDNN has none. For the graph target, which may ask with bias,
 * add and relu and without. */
kn_status cu_conv_plan(kn_context *ctx, cu_dnn *s, const cu_conv *c, const cu_plan **out, const char **why);
/* The same by the nth engine that is allowed. */
kn_status cu_conv_plan_by(kn_context *ctx, cu_dnn *s, const cu_conv *c, int nth, const cu_plan **out,
                          const char **why);
kn_status cu_conv_run(kn_context *ctx, cu_device *d, const cu_plan *p, const cu_conv *c,
                      const cu_conv_data *at);

/* y = conv(x, w) with all that is given, for tensors. *whole: all of it was done; else the bias alone, and
 * sum and relu are left to the caller. */
typedef struct cu_conv_with {
  kn_tensor *bias, *add; /* NULL: none */
  bool relu, planned;
} cu_conv_with;
kn_status cu_conv_forward(kn_context *ctx, cu_device *d, const void *attrs, const kn_tensor *x,
                          const kn_tensor *w, const kn_tensor *y, const cu_conv_with *with, bool *whole);

/* The gradient of in[0], for out, from what the op of this kind has as inputs. */
kn_status cu_conv_gradient(kn_context *ctx, cu_conv_kind kind, const void *attrs, kn_tensor *const *in,
                           const kn_tensor *out, bool planned);

/* ---- what is measured (conv_tune.c) ---- */

/* Asks for the fastest engine for a convolution of a graph, with what follows it as far as cuDNN takes that:
 * as cu_blas_tune for products. */
void cu_conv_tune(kn_context *ctx, cu_device *d, const cu_conv *c);
int cu_conv_known(kn_context *ctx, cu_device *d, const cu_conv *c); /* nth; 0 where nothing is known */

/* ---- loops of our own (convolve.c) ---- */

/* Any sizes and strides; adds a bias, and nothing else. */
kn_status cu_convolve(kn_context *ctx, cu_device *d, const cu_conv *c, const cu_conv_data *at);
/* y[n, o, …] += bias[o], y contiguous. */
kn_status cu_conv_bias(kn_context *ctx, cu_device *d, const cu_conv *c, const cu_conv_data *at);
/* Their texts, as cu_kernel asks for them; ud: a const kn_dtype. */
void cu_convolve_write(void *ud, cu_text *t);

#endif
