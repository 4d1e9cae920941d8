/* Graphs of the software device's cuDNN, computed op after op as naive loops in float64 of elements that are
 * rounded to the dtype of each tensor. Tensors that are virtual get memory for the time of the run. */
#include "core/half.h"
#include "spec/cuda/sim/dnn.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANK = 8 };

typedef struct tensor {
  int64_t uid, dims[RANK], strides[RANK];
  int rank;
  cudnnDataType_t type;
  char *data;
  bool own; /* data is this run's */
} tensor;

typedef struct run {
  const sim_dnn_run *given;
  tensor tensors[64];
  int n;
  bool tf32;
} run;

/* ---- elements ---- */

static size_t size_of(cudnnDataType_t t) {
  return t == CUDNN_DATA_DOUBLE                             ? 8
         : t == CUDNN_DATA_HALF || t == CUDNN_DATA_BFLOAT16 ? 2
         : t == CUDNN_DATA_BOOLEAN || t == CUDNN_DATA_INT8  ? 1
                                                            : 4;
}

static double load(const tensor *t, int64_t at) {
  switch (t->type) {
  case CUDNN_DATA_DOUBLE: return ((const double *)t->data)[at];
  case CUDNN_DATA_HALF: return (double)kn_f16_to_f32(((const uint16_t *)t->data)[at]);
  case CUDNN_DATA_BFLOAT16: return (double)kn_bf16_to_f32(((const uint16_t *)t->data)[at]);
  case CUDNN_DATA_BOOLEAN: return (double)((const unsigned char *)t->data)[at];
  case CUDNN_DATA_INT32: return (double)((const int32_t *)t->data)[at];
  default: return (double)((const float *)t->data)[at];
  }
}

static void store(const tensor *t, int64_t at, double x) {
  switch (t->type) {
  case CUDNN_DATA_DOUBLE: ((double *)t->data)[at] = x; break;
  case CUDNN_DATA_HALF: ((uint16_t *)t->data)[at] = kn_f32_to_f16((float)x); break;
  case CUDNN_DATA_BFLOAT16: ((uint16_t *)t->data)[at] = kn_f32_to_bf16((float)x); break;
  case CUDNN_DATA_BOOLEAN: ((unsigned char *)t->data)[at] = x != 0; break;
  case CUDNN_DATA_INT32: ((int32_t *)t->data)[at] = (int32_t)x; break;
  default: ((float *)t->data)[at] = (float)x;
  }
}

static double factor(const run *r, const tensor *t, int64_t at) {
  double x = load(t, at);
  if (!r->tf32 || t->type != CUDNN_DATA_FLOAT) return x;
  uint32_t u = kn_f32_bits((float)x);
  return (double)kn_f32_from_bits((u + 0xfffu + (u >> 13 & 1)) & ~0x1fffu);
}

/* ---- tensors ---- */

static int64_t span_of(const tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n += (t->dims[i] - 1) * t->strides[i];
  return n;
}

static tensor *tensor_of(run *r, const sim_desc *op, int name) {
  const sim_desc *d = sim_desc_of(op, name, 0);
  if (!d) return NULL;
  int64_t uid = sim_int_of(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
  for (int i = 0; i < r->n; i++)
    if (r->tensors[i].uid == uid) return &r->tensors[i];
  tensor *t = &r->tensors[r->n++];
  const sim_attribute *dims = sim_attribute_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS),
                      *strides = sim_attribute_of(d, CUDNN_ATTR_TENSOR_STRIDES);
  *t = (tensor){.uid = uid, .rank = (int)dims->count};
  t->type = (cudnnDataType_t)sim_int_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE, 0);
  memcpy(t->dims, dims->data, (size_t)dims->count * 8);
  memcpy(t->strides, strides->data, (size_t)dims->count * 8);
  bool number = sim_int_of(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, 0);
  t->own = number || sim_int_of(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0);
  if (t->own) t->data = calloc((size_t)span_of(t), size_of(t->type));
  for (int64_t i = 0; i < r->given->n; i++) {
    if (r->given->uids[i] != uid) continue;
    if (number)
      store(t, 0, r->given->numbers[i]);
    else
      t->data = r->given->data[i];
  }
  if (t->data) return t;
  fprintf(stderr, "software device: a graph of cuDNN has no address for tensor %lld\n", (long long)uid);
  abort();
}

/* Where place `at` (of sizes that those of t divide) lies in t when several are summed there in turn. */
static int64_t place_among(const tensor *t, const tensor *x, const int64_t *at) {
  int64_t i = 0;
  for (int d = 0; d < t->rank; d++) i += at[d] / (x->dims[d] / t->dims[d]) * t->strides[d];
  return i;
}

/* Where place `at` (of y's sizes) lies in t, whose sizes of one stand for all. */
static int64_t place(const tensor *t, const int64_t *at) {
  int64_t i = 0;
  for (int d = 0; d < t->rank; d++) i += t->dims[d] == 1 ? 0 : at[d] * t->strides[d];
  return i;
}

/* The next place of y's; false after the last one. */
static bool next(const tensor *y, int64_t *at) {
  for (int d = y->rank - 1; d >= 0; d--) {
    if (++at[d] < y->dims[d]) return true;
    at[d] = 0;
  }
  return false;
}

/* ---- ops ---- */

typedef struct window {
  int64_t pad[2], stride[2], dilation[2];
} window;

static window window_of(const sim_desc *op, int name) {
  const sim_desc *d = sim_desc_of(op, name, 0);
  window w;
  memcpy(w.pad, sim_attribute_of(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)->data, 16);
  memcpy(w.stride, sim_attribute_of(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)->data, 16);
  memcpy(w.dilation, sim_attribute_of(d, CUDNN_ATTR_CONVOLUTION_DILATIONS)->data, 16);
  return w;
}

/* Sums x[n, c, iy, ix] w[o, c of its group, a, b] into y[n, o, oy, ox], or two of them into the third.
 * `result` is which of x, w, y. */
static void convolve(run *r, const window *v, tensor *x, tensor *w, tensor *y, tensor *result) {
  int64_t groups = x->dims[1] / w->dims[1], of_group = w->dims[0] / groups;
  double *sum = calloc((size_t)span_of(result), sizeof *sum);
  int64_t at[RANK] = {0};
  do {
    int64_t n = at[0], o = at[1], first = o / of_group * w->dims[1];
    for (int64_t c = 0; c < w->dims[1]; c++)
      for (int64_t a = 0; a < w->dims[2]; a++)
        for (int64_t b = 0; b < w->dims[3]; b++) {
          int64_t iy = at[2] * v->stride[0] - v->pad[0] + a * v->dilation[0];
          int64_t ix = at[3] * v->stride[1] - v->pad[1] + b * v->dilation[1];
          if (iy < 0 || iy >= x->dims[2] || ix < 0 || ix >= x->dims[3]) continue;
          int64_t px = place(x, (int64_t[]){n, first + c, iy, ix}), pw = place(w, (int64_t[]){o, c, a, b}),
                  py = place(y, at);
          if (result == y)
            sum[py] += factor(r, x, px) * factor(r, w, pw);
          else if (result == x)
            sum[px] += factor(r, y, py) * factor(r, w, pw);
          else
            sum[pw] += factor(r, y, py) * factor(r, x, px);
        }
  } while (next(y, at));
  memset(at, 0, sizeof at);
  do store(result, place(result, at), sum[place(result, at)]);
  while (next(result, at));
  free(sum);
}

#define CONV(NAME, X, W, Y, result)                                                                          \
  {                                                                                                          \
    window v = window_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_CONV_DESC);                           \
    tensor *x = tensor_of(r, op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##X);                             \
    tensor *w = tensor_of(r, op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##W);                             \
    tensor *y = tensor_of(r, op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##Y);                             \
    convolve(r, &v, x, w, y, result);                                                                        \
  }

static double pointwise(int mode, double x, double b, double t) {
  switch (mode) {
  case CUDNN_POINTWISE_ADD: return x + b;
  case CUDNN_POINTWISE_SUB: return x - b;
  case CUDNN_POINTWISE_MUL: return x * b;
  case CUDNN_POINTWISE_DIV: return x / b;
  case CUDNN_POINTWISE_MAX: return x > b ? x : b;
  case CUDNN_POINTWISE_MIN: return x < b ? x : b;
  case CUDNN_POINTWISE_EXP: return exp(x);
  case CUDNN_POINTWISE_LOG: return log(x);
  case CUDNN_POINTWISE_SQRT: return sqrt(x);
  case CUDNN_POINTWISE_IDENTITY: return x;
  case CUDNN_POINTWISE_RELU_FWD: return x > 0 ? x : x != x ? x : 0;
  case CUDNN_POINTWISE_TANH_FWD: return tanh(x);
  case CUDNN_POINTWISE_SIGMOID_FWD: return 1 / (1 + exp(-x));
  case CUDNN_POINTWISE_CMP_GE: return x >= b;
  case CUDNN_POINTWISE_CMP_GT: return x > b;
  case CUDNN_POINTWISE_BINARY_SELECT: return t != 0 ? x : b;
  default: fprintf(stderr, "software device: no function %d of cuDNN's\n", mode); abort();
  }
}

static void run_pointwise(run *r, const sim_desc *op) {
  const sim_desc *p = sim_desc_of(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 0);
  int mode = (int)sim_int_of(p, CUDNN_ATTR_POINTWISE_MODE, -1);
  int64_t axis = sim_int_of(p, CUDNN_ATTR_POINTWISE_AXIS, 0), at[RANK] = {0};
  tensor *x = tensor_of(r, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC),
         *b = tensor_of(r, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC),
         *t = tensor_of(r, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC),
         *y = tensor_of(r, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
  do {
    double v = mode == CUDNN_POINTWISE_GEN_INDEX
                   ? (double)at[axis]
                   : pointwise(mode, load(x, place(x, at)), b ? load(b, place(b, at)) : 0,
                               t ? load(t, place(t, at)) : 0);
    store(y, place(y, at), v);
  } while (next(y, at));
}

static void run_reduce(run *r, const sim_desc *op) {
  int which = (int)sim_int_of(sim_desc_of(op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, 0),
                              CUDNN_ATTR_REDUCTION_OPERATOR, -1);
  tensor *x = tensor_of(r, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC),
         *y = tensor_of(r, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
  double *sum = malloc((size_t)span_of(y) * sizeof *sum);
  for (int64_t i = 0; i < span_of(y); i++) sum[i] = which == CUDNN_REDUCE_TENSOR_MAX ? -INFINITY : 0;
  int64_t at[RANK] = {0};
  do {
    double v = load(x, place(x, at)), *to = &sum[place_among(y, x, at)];
    *to = which == CUDNN_REDUCE_TENSOR_MAX ? (v > *to || v != v ? v : *to) : *to + v;
  } while (next(x, at));
  memset(at, 0, sizeof at);
  do store(y, place(y, at), sum[place(y, at)]);
  while (next(y, at));
  free(sum);
}

/* Batches of one factor may be fewer: each is then met by several of the other in turn. */
static void run_matmul(run *r, const sim_desc *op) {
  tensor *a = tensor_of(r, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC),
         *b = tensor_of(r, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC),
         *c = tensor_of(r, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
  int64_t at[RANK] = {0};
  int last = c->rank - 1;
  do {
    int64_t pa[RANK], pb[RANK];
    for (int d = 0; d < last - 1; d++) {
      pa[d] = at[d] / (c->dims[d] / a->dims[d]);
      pb[d] = at[d] / (c->dims[d] / b->dims[d]);
    }
    pa[last - 1] = at[last - 1], pb[last] = at[last];
    double sum = 0;
    for (int64_t k = 0; k < a->dims[last]; k++) {
      pa[last] = pb[last - 1] = k;
      sum += factor(r, a, place(a, pa)) * factor(r, b, place(b, pb));
    }
    store(c, place(c, at), sum);
  } while (next(c, at));
}

/* The same elements in the order of memory. */
static void run_reshape(run *r, const sim_desc *op) {
  tensor *x = tensor_of(r, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC),
         *y = tensor_of(r, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
  for (int64_t i = 0; i < span_of(y); i++) store(y, i, load(x, i));
}

static void run_op(run *r, const sim_desc *op) {
  switch ((int)op->type) {
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: CONV(FORWARD, X, W, Y, y) break;
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: CONV(BWD_DATA, DX, W, DY, x) break;
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: CONV(BWD_FILTER, X, DW, DY, w) break;
  case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: run_pointwise(r, op); break;
  case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: run_reduce(r, op); break;
  case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: run_matmul(r, op); break;
  case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR: run_reshape(r, op); break;
  default: fprintf(stderr, "software device: no op %d of cuDNN's\n", (int)op->type); abort();
  }
}

void sim_dnn_interpret(void *given) {
  run r = {.given = given};
  r.tf32 = sim_engine_of(r.given->plan) == SIM_ENGINE_TENSOR_CORE;
  const sim_attribute *ops = sim_attribute_of(sim_graph_of(r.given->plan), CUDNN_ATTR_OPERATIONGRAPH_OPS);
  for (int64_t i = 0; i < ops->count; i++) run_op(&r, ((sim_desc **)ops->data)[i]);
  for (int i = 0; i < r.n; i++)
    if (r.tensors[i].own) free(r.tensors[i].data);
}
