/* Graphs of cuDNN, one descriptor after the other. The first failure is kept and ends it; everything that
 * decides about the graph is also written down as text, which names its plan on disk. */
#include "backends/cuda/dnn_inside.h"
#include <string.h>

void cu_graph_open(cu_graph *g, cu_dnn *s) {
  memset(g, 0, sizeof *g);
  g->s = s;
  g->api = s->api;
  g->text.heap = s->heap;
}

void cu_graph_close(cu_graph *g) {
  for (int i = g->nmade - 1; i >= 0; i--) g->api->cudnnBackendDestroyDescriptor(g->made[i]);
  cu_text_free(&g->text);
  g->nmade = 0;
}

/* ---- descriptors ---- */

static void check(cu_graph *g, cudnnStatus_t r, const char *what) {
  if (r == CUDNN_STATUS_SUCCESS || g->failed) return;
  g->failed = true;
  g->status = r;
  cu_dnn_error(g->s, r, what, g->why, sizeof g->why);
}

static cu_desc begin(cu_graph *g, cudnnBackendDescriptorType_t type) {
  cu_desc d = NULL;
  if (g->nmade == CU_DNN_DESCRIPTORS) check(g, CUDNN_STATUS_NOT_SUPPORTED, "a graph that is too large");
  if (g->failed) return NULL;
  check(g, g->api->cudnnBackendCreateDescriptor(type, &d), "a descriptor");
  if (!g->failed) g->made[g->nmade++] = d;
  return d;
}

static void set(cu_graph *g, cu_desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t n, const void *from) {
  if (!g->failed) check(g, g->api->cudnnBackendSetAttribute(d, name, type, n, from), "an attribute");
}

static void set_desc(cu_graph *g, cu_desc d, cudnnBackendAttributeName_t name, cu_desc other) {
  set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other);
}

static void finalize(cu_graph *g, cu_desc d, const char *what) {
  if (!g->failed) check(g, g->api->cudnnBackendFinalize(d), what);
}

static void add_op(cu_graph *g, cu_desc op, const char *what) {
  finalize(g, op, what);
  if (g->nops == CU_DNN_OPS) check(g, CUDNN_STATUS_NOT_SUPPORTED, "a graph that is too large");
  if (!g->failed) g->ops[g->nops++] = op;
}

/* The number of a tensor, for the text. */
static long long number(const cu_graph *g, cu_desc d) {
  int64_t uid = 0, n = 0;
  if (d && !g->failed)
    g->api->cudnnBackendGetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &n, &uid);
  return (long long)uid;
}

/* ---- tensors ---- */

bool cu_dnn_type(kn_dtype d, cudnnDataType_t *out) {
  switch (d) {
  case KN_F32: *out = CUDNN_DATA_FLOAT; return true;
  case KN_F64: *out = CUDNN_DATA_DOUBLE; return true;
  case KN_F16: *out = CUDNN_DATA_HALF; return true;
  case KN_BF16: *out = CUDNN_DATA_BFLOAT16; return true;
  default: return false;
  }
}

cu_shape cu_shape_dense(cudnnDataType_t type, int rank, const int64_t *dims) {
  cu_shape s = {.type = type, .rank = rank};
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; i--) {
    s.dims[i] = dims[i];
    s.strides[i] = step;
    step *= dims[i];
  }
  return s;
}

cu_desc cu_graph_tensor(cu_graph *g, const cu_shape *shape, cu_tensor_kind kind, int64_t alignment) {
  cu_desc d = begin(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const int64_t uid = ++g->next;
  const bool is_virtual = kind == CU_VIRTUAL, by_value = kind == CU_NUMBER;
  set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
  set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &shape->type);
  set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, shape->rank, shape->dims);
  set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, shape->rank, shape->strides);
  set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
  finalize(g, d, "a tensor");
  cu_put(&g->text, "t%lld kind %d type %d align %lld:", (long long)uid, (int)kind, (int)shape->type,
         (long long)alignment);
  for (int i = 0; i < shape->rank; i++)
    cu_put(&g->text, " %lld/%lld", (long long)shape->dims[i], (long long)shape->strides[i]);
  cu_put(&g->text, "\n");
  if (is_virtual) return d;
  if (g->nreal == CU_DNN_REAL) check(g, CUDNN_STATUS_NOT_SUPPORTED, "a graph of too many tensors");
  if (!g->failed) g->real[g->nreal++] = uid;
  return d;
}

/* ---- ops ---- */

typedef struct conv_row {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t conv, x, w, y, alpha, beta;
  const char *name;
} conv_row;
#define CONV(TYPE, NAME, X, W, Y, name)                                                                      \
  {                                                                                                          \
    CUDNN_BACKEND_OPERATION_CONVOLUTION_##TYPE##_DESCRIPTOR,                                                 \
        CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##X,  \
        CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##W, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##Y,        \
        CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_BETA,     \
        name                                                                                                 \
  }
static const conv_row convs[CU_CONV_KINDS] = {
    [CU_CONV_FORWARD] = CONV(FORWARD, FORWARD, X, W, Y, "conv"),
    [CU_CONV_GRAD_INPUT] = CONV(BACKWARD_DATA, BWD_DATA, DX, W, DY, "conv grad input"),
    [CU_CONV_GRAD_WEIGHT] = CONV(BACKWARD_FILTER, BWD_FILTER, X, DW, DY, "conv grad weight"),
};

void cu_graph_conv(cu_graph *g, cu_conv_kind kind, cudnnDataType_t compute, const int64_t padding[2],
                   const int64_t stride[2], const int64_t dilation[2], cu_desc x, cu_desc w, cu_desc y) {
  const conv_row *row = &convs[kind];
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const int64_t dims = 2;
  const bool wide = compute == CUDNN_DATA_DOUBLE;
  const float one = 1, zero = 0;
  const double wide_one = 1, wide_zero = 0;
  cu_desc c = begin(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  set(g, c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
  set(g, c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  set(g, c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  set(g, c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
  set(g, c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
  set(g, c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
  set(g, c, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
  finalize(g, c, "a window");
  cu_desc op = begin(g, row->type);
  set_desc(g, op, row->conv, c);
  set_desc(g, op, row->x, x);
  set_desc(g, op, row->w, w);
  set_desc(g, op, row->y, y);
  cudnnBackendAttributeType_t number_type = wide ? CUDNN_TYPE_DOUBLE : CUDNN_TYPE_FLOAT;
  set(g, op, row->alpha, number_type, 1, wide ? (const void *)&wide_one : &one);
  set(g, op, row->beta, number_type, 1, wide ? (const void *)&wide_zero : &zero);
  add_op(g, op, row->name);
  cu_put(&g->text, "%s in %d pad %lld %lld stride %lld %lld dilation %lld %lld: %lld %lld %lld\n", row->name,
         (int)compute, (long long)padding[0], (long long)padding[1], (long long)stride[0],
         (long long)stride[1], (long long)dilation[0], (long long)dilation[1], number(g, x), number(g, w),
         number(g, y));
}

void cu_graph_pointwise(cu_graph *g, cudnnPointwiseMode_t mode, cudnnDataType_t compute, int64_t axis,
                        cu_desc x, cu_desc b, cu_desc t, cu_desc y) {
  cu_desc p = begin(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set(g, p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  set(g, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  if (mode == CUDNN_POINTWISE_GEN_INDEX) set(g, p, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
  finalize(g, p, "a function");
  cu_desc op = begin(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p);
  set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (b) set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
  if (t) set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
  set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  add_op(g, op, "a function of elements");
  cu_put(&g->text, "pointwise %d in %d axis %lld: %lld %lld %lld %lld\n", (int)mode, (int)compute,
         (long long)axis, number(g, x), number(g, b), number(g, t), number(g, y));
}

void cu_graph_reduce(cu_graph *g, cudnnReduceTensorOp_t op, cudnnDataType_t compute, cu_desc x, cu_desc y) {
  cu_desc p = begin(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  set(g, p, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &op);
  set(g, p, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  finalize(g, p, "a reduction");
  cu_desc o = begin(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  set_desc(g, o, CUDNN_ATTR_OPERATION_REDUCTION_DESC, p);
  set_desc(g, o, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
  set_desc(g, o, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
  add_op(g, o, "a reduction");
  cu_put(&g->text, "reduce %d in %d: %lld %lld\n", (int)op, (int)compute, number(g, x), number(g, y));
}

void cu_graph_matmul(cu_graph *g, cudnnDataType_t compute, cu_desc a, cu_desc b, cu_desc c) {
  cu_desc p = begin(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  set(g, p, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  finalize(g, p, "a product");
  cu_desc op = begin(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, p);
  set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
  set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
  set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
  add_op(g, op, "a product");
  cu_put(&g->text, "matmul in %d: %lld %lld %lld\n", (int)compute, number(g, a), number(g, b), number(g, c));
}

void cu_graph_reshape(cu_graph *g, cu_desc x, cu_desc y) {
  cu_desc op = begin(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
  set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
  add_op(g, op, "another shape");
  cu_put(&g->text, "reshape: %lld %lld\n", number(g, x), number(g, y));
}
