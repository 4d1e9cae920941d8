/* What oneDNN is asked to compute: an op with concrete shapes, memory layouts and thread count, in canonical
 * form. Made from an op of the table by problem.c, turned into primitives by primitive.c, and the key of the
 * cache. */
#ifndef KN_ONEDNN_PROBLEM_H
#define KN_ONEDNN_PROBLEM_H
#include "core/op.h"

/* The ops offered. X(op, argument of input 1, 2, 3, argument of the result); 0: the input is not read. */
#define DN_OPS(X)                                                                                            \
  X(matmul, DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, 0, DNNL_ARG_DST)                                                 \
  X(conv2d, DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST)                                     \
  X(conv2d_grad_input, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, 0, DNNL_ARG_DIFF_SRC)                            \
  X(conv2d_grad_weight, DNNL_ARG_DIFF_DST, DNNL_ARG_SRC, 0, DNNL_ARG_DIFF_WEIGHTS)                           \
  X(max_pool2d, DNNL_ARG_SRC, 0, 0, DNNL_ARG_DST)                                                            \
  X(avg_pool2d, DNNL_ARG_SRC, 0, 0, DNNL_ARG_DST)                                                            \
  X(avg_pool2d_grad, DNNL_ARG_DIFF_DST, 0, 0, DNNL_ARG_DIFF_SRC)

/* A convolution at fewer places than this does not let oneDNN choose its layouts. */
enum { DN_LEAST_PLACES = 170 };
enum { DN_MAX_IN = 3, DN_MAX_ARGS = DN_MAX_IN + 1, DN_OUT = DN_MAX_IN };

/* Unused places are zero, so that problems compare and hash as bytes. */
typedef struct dn_layout {
  int64_t rank; /* 0: this argument is not there */
  int64_t dims[KN_MAX_RANK];
  int64_t strides[KN_MAX_RANK]; /* in elements, > 0 */
} dn_layout;

typedef struct dn_problem {
  int64_t op;      /* kn_op */
  int64_t threads; /* that primitives are made for and run with */
  int64_t blocked; /* let oneDNN choose layouts; the arguments are reordered to and from them */
  int64_t stride[2], kernel[2], dilation[2], padding[2]; /* dilation as oneDNN counts: 0 is dense */
  dn_layout arg[DN_MAX_ARGS];                            /* inputs, then at DN_OUT the result */
} dn_problem;

bool dn_offers(kn_op op);

/* A real tensor's layout, or one yet to be. */
typedef struct dn_view {
  const kn_type *type;
  const int64_t *strides;
} dn_view;

/* A convolution whose taps are single elements, `step` apart, is done on a copy of those elements: oneDNN is
 * much quicker with a dense image. */
bool dn_thinned(kn_op op, const void *attrs, const kn_type *weight, int64_t step[2]);

/* False, with a short reason, when oneDNN cannot or should not do it. *copy gets a bit for each input that
 * must be made contiguous first: the problem then describes the copy. The result is contiguous. */
bool dn_describe(kn_op op, const void *attrs, const dn_view *in, int n, const kn_type *out, int threads,
                 dn_problem *p, unsigned *copy, char *why, size_t size);

#endif
