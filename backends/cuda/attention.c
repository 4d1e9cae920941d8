/* The two graphs in the form in which cuDNN recognises attention: products, scale, mask, the parts of a
 * softmax with its statistics, which must be there even where nobody reads them. */
#include "backends/cuda/attention.h"
#include <math.h>
#include <string.h>

enum { ALIGNED = 16 };
static const cudnnDataType_t F32 = CUDNN_DATA_FLOAT;

/* ---- tensors ---- */

static cu_desc tensor(cu_graph *g, cudnnDataType_t type, cu_tensor_kind kind, int64_t b, int64_t h,
                      int64_t rows, int64_t columns) {
  const int64_t dims[] = {b, h, rows, columns};
  const cu_shape s = cu_shape_dense(type, 4, dims);
  return cu_graph_tensor(g, &s, kind, ALIGNED);
}

static cu_desc number(cu_graph *g) { return tensor(g, F32, CU_NUMBER, 1, 1, 1, 1); }

/* As it lies, or with its last two dims exchanged. */
static cu_desc lying_as(cu_graph *g, cudnnDataType_t type, cu_tensor_kind kind, int64_t b, int64_t h,
                        int64_t rows, int64_t columns, const int64_t strides[4], bool turned) {
  cu_shape s = {.type = type, .rank = 4, .dims = {b, h, rows, columns}};
  memcpy(s.strides, strides, 4 * sizeof *strides);
  if (turned) {
    s.dims[2] = columns, s.dims[3] = rows;
    s.strides[2] = strides[3], s.strides[3] = strides[2];
  }
  return cu_graph_tensor(g, &s, kind, ALIGNED);
}
static cu_desc lying(cu_graph *g, cudnnDataType_t type, int64_t b, int64_t h, int64_t rows, int64_t columns,
                     const int64_t strides[4], bool turned) {
  return lying_as(g, type, CU_MEMORY, b, h, rows, columns, strides, turned);
}

/* A function of scores, which are virtual. */
static cu_desc scores(cu_graph *g, const cu_attention *a, cudnnDataType_t type) {
  return tensor(g, type, CU_VIRTUAL, a->batch, a->heads, a->queries, a->keys);
}
static cu_desc rows(cu_graph *g, const cu_attention *a) {
  return tensor(g, F32, CU_VIRTUAL, a->batch, a->heads, a->queries, 1);
}
static cu_desc on_scores(cu_graph *g, const cu_attention *a, cudnnPointwiseMode_t mode, cu_desc x,
                         cu_desc y) {
  cu_desc out = scores(g, a, F32);
  cu_graph_pointwise(g, mode, F32, 0, x, y, NULL, out);
  return out;
}

/* The scores of keys after the query are `low`. */
static cu_desc causal(cu_graph *g, const cu_attention *a, cu_desc x, cu_desc low) {
  cu_desc row = scores(g, a, CUDNN_DATA_INT32), column = scores(g, a, CUDNN_DATA_INT32),
          seen = scores(g, a, CUDNN_DATA_BOOLEAN), out = scores(g, a, F32);
  cu_graph_pointwise(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, 2, x, NULL, NULL, row);
  cu_graph_pointwise(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_INT32, 3, x, NULL, NULL, column);
  cu_graph_pointwise(g, CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, 0, row, column, NULL, seen);
  cu_graph_pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, F32, 0, x, low, seen, out);
  return out;
}

static cu_desc masked(cu_graph *g, const cu_attention *a, cudnnDataType_t type, cu_desc x) {
  const int64_t *steps = a->mask_strides;
  if (!a->mask) return x;
  cu_desc mask = lying(g, a->wide ? F32 : type, steps[0] ? a->batch : 1, steps[1] ? a->heads : 1, a->queries,
                       a->keys, steps, false);
  return on_scores(g, a, CUDNN_POINTWISE_ADD, x, mask);
}

/* ---- forward: q, kᵀ, v, o, scale, then statistics, mask, low where there are such ---- */

static void make_forward(cu_graph *g, const void *problem) {
  const cu_attention *a = problem;
  cudnnDataType_t type = F32;
  cu_dnn_type((kn_dtype)a->dtype, &type);
  cu_desc q = lying(g, type, a->batch, a->heads, a->queries, a->depth, a->q, false),
          k = lying(g, type, a->batch, a->kv_heads, a->keys, a->depth, a->k, true),
          v = lying(g, type, a->batch, a->kv_heads, a->keys, a->value_depth, a->v, false),
          o = lying(g, type, a->batch, a->heads, a->queries, a->value_depth, a->o, false), scale = number(g),
          statistics = tensor(g, F32, a->keeps ? CU_MEMORY : CU_VIRTUAL, a->batch, a->heads, a->queries, 1);
  cu_desc s = scores(g, a, F32);
  cu_graph_matmul(g, F32, q, k, s);
  s = on_scores(g, a, CUDNN_POINTWISE_MUL, s, scale);
  s = masked(g, a, type, s);
  if (a->causal) s = causal(g, a, s, number(g));
  cu_desc most = rows(g, a), sum = rows(g, a), logs = rows(g, a);
  cu_graph_reduce(g, CUDNN_REDUCE_TENSOR_MAX, F32, s, most);
  cu_desc e = on_scores(g, a, CUDNN_POINTWISE_SUB, s, most);
  e = on_scores(g, a, CUDNN_POINTWISE_EXP, e, NULL);
  cu_graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, F32, e, sum);
  cu_graph_pointwise(g, CUDNN_POINTWISE_LOG, F32, 0, sum, NULL, NULL, logs);
  cu_graph_pointwise(g, CUDNN_POINTWISE_ADD, F32, 0, most, logs, NULL, statistics);
  cu_desc p = scores(g, a, type);
  cu_graph_pointwise(g, CUDNN_POINTWISE_DIV, F32, 0, e, sum, NULL, p);
  cu_graph_matmul(g, F32, p, v, o);
}

/* ---- backward: q, kᵀ, vᵀ, o, grad, statistics, dq, dk, dv, row sums, sums of dq, one, scale, then mask,
 * low, dv and dk of each head where heads share them, where there are such ---- */

/* The same scores with rows for columns, as the next product reads them. */
static cu_desc turned(cu_graph *g, const cu_attention *a, cudnnDataType_t type, cu_desc x) {
  cu_shape s = {.type = type,
                .rank = 4,
                .dims = {a->batch, a->heads, a->keys, a->queries},
                .strides = {a->heads * a->queries * a->keys, a->queries * a->keys, 1, a->keys}};
  cu_desc out = cu_graph_tensor(g, &s, CU_VIRTUAL, ALIGNED);
  cu_graph_reshape(g, x, out);
  return out;
}

/* Gradients of keys or values: where heads share them, those of each head are added up. */
static void to_keys(cu_graph *g, const cu_attention *a, cudnnDataType_t type, cu_desc x, cu_desc y,
                    cu_desc to) {
  const bool shared = a->kv_heads != a->heads;
  cu_desc each = shared ? tensor(g, type, CU_MEMORY, a->batch, a->heads, a->keys, a->depth) : to;
  cu_graph_matmul(g, F32, turned(g, a, type, x), y, each);
  if (shared) cu_graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, F32, each, to);
}

static void make_backward(cu_graph *g, const void *problem) {
  const cu_attention *a = problem;
  cudnnDataType_t type = F32;
  cu_dnn_type((kn_dtype)a->dtype, &type);
  int64_t b = a->batch, h = a->heads, kv = a->kv_heads, n = a->queries, m = a->keys, depth = a->depth;
  cu_desc q = lying(g, type, b, h, n, depth, a->q, false), k = lying(g, type, b, kv, m, depth, a->k, true),
          v = lying(g, type, b, kv, m, depth, a->v, true), o = lying(g, type, b, h, n, depth, a->o, false),
          grad = lying(g, type, b, h, n, depth, a->grad, false),
          statistics = tensor(g, F32, CU_MEMORY, b, h, n, 1),
          dq = lying(g, type, b, h, n, depth, a->dq, false),
          dk = lying(g, type, b, kv, m, depth, a->dk, false),
          dv = lying(g, type, b, kv, m, depth, a->dv, false), sums = tensor(g, F32, CU_MEMORY, b, h, n, 1),
          dq_sum = tensor(g, F32, CU_MEMORY, b, h, n, depth), one = number(g), scale = number(g);
  cu_desc both = tensor(g, F32, CU_VIRTUAL, b, h, n, depth), row = rows(g, a);
  cu_graph_pointwise(g, CUDNN_POINTWISE_MUL, F32, 0, grad, o, NULL, both);
  cu_graph_reduce(g, CUDNN_REDUCE_TENSOR_ADD, F32, both, row);
  cu_graph_pointwise(g, CUDNN_POINTWISE_MUL, F32, 0, row, one, NULL, sums);
  cu_desc s = scores(g, a, F32);
  cu_graph_matmul(g, F32, q, k, s);
  s = on_scores(g, a, CUDNN_POINTWISE_MUL, s, scale);
  s = masked(g, a, type, s);
  s = on_scores(g, a, CUDNN_POINTWISE_SUB, s, statistics);
  if (a->causal) s = causal(g, a, s, number(g));
  cu_desc p = on_scores(g, a, CUDNN_POINTWISE_EXP, s, NULL);
  to_keys(g, a, type, p, grad, dv);
  cu_desc dp = scores(g, a, F32);
  cu_graph_matmul(g, F32, grad, v, dp);
  dp = on_scores(g, a, CUDNN_POINTWISE_SUB, dp, sums);
  dp = on_scores(g, a, CUDNN_POINTWISE_MUL, dp, p);
  cu_desc ds = scores(g, a, type);
  cu_graph_pointwise(g, CUDNN_POINTWISE_MUL, F32, 0, dp, scale, NULL, ds);
  to_keys(g, a, type, ds, q, dk);
  cu_desc keys = lying_as(g, type, CU_VIRTUAL, b, kv, m, depth, a->k, false);
  cu_graph_reshape(g, k, keys);
  cu_graph_matmul(g, F32, ds, keys, dq_sum);
  cu_graph_pointwise(g, CUDNN_POINTWISE_IDENTITY, F32, 0, dq_sum, NULL, NULL, dq);
}

/* ---- plans and runs ---- */

void cu_attention_dense(int64_t to[4], int64_t heads, int64_t rows, int64_t depth) {
  to[0] = heads * rows * depth, to[1] = rows * depth, to[2] = depth, to[3] = 1;
}

void cu_attention_refused(kn_context *ctx, const char *what, const char *why) {
  const bool exec = kn_debugging(ctx, KN_DEBUG_EXEC);
  if (exec || kn_debugging(ctx, KN_DEBUG_DISPATCH))
    kn_log(ctx, "%s: cuDNN does not take %s as one: %s", exec ? "exec" : "dispatch", what, why);
}

static bool refuse(char *why, size_t size, const char *reason) {
  snprintf(why, size, "%s", reason);
  return false;
}

bool cu_attention_supports(const cu_attention *a, char *why, size_t size) {
  const int64_t *strides[] = {a->q, a->k, a->v, a->o, a->grad, a->dq, a->dk, a->dv};
  if (a->dtype != KN_F16 && a->dtype != KN_BF16) return refuse(why, size, "attention of cuDNN is of halves");
  if (!a->batch || !a->heads || !a->queries || !a->keys || !a->depth)
    return refuse(why, size, "nothing to attend to");
  if (a->depth % 8 || a->value_depth % 8) return refuse(why, size, "its depth is no multiple of 8");
  if (a->depth > 256 || a->value_depth > 256) return refuse(why, size, "its depth is above 256");
  if (a->heads % a->kv_heads) return refuse(why, size, "heads do not share keys evenly");
  if (a->backward && a->value_depth != a->depth)
    return refuse(why, size, "its gradient has values of another depth than keys");
  for (int i = 0; i < (a->backward ? 8 : 4); i++)
    if (strides[i][3] != 1 || strides[i][2] % 8 || strides[i][1] % 8 || strides[i][0] % 8)
      return refuse(why, size, "rows do not begin at multiples of 16 bytes");
  return true;
}

/* What a gradient needs: row sums, sums of dq, and dv and dk of each head where heads share them. */
typedef struct room {
  size_t dq_sum, dv, dk, bytes; /* from its beginning */
} room;

static size_t round_up(size_t bytes) { return (bytes + 255) / 256 * 256; }

static room room_of(const cu_attention *a) {
  const size_t heads = (size_t)(a->batch * a->heads), queries = heads * (size_t)a->queries;
  const size_t each = a->kv_heads == a->heads ? 0 : round_up(2 * heads * (size_t)a->keys * (size_t)a->depth);
  room r = {.dq_sum = round_up(queries * sizeof(float))};
  r.dv = r.dq_sum + round_up(queries * (size_t)a->depth * sizeof(float));
  r.dk = r.dv + each;
  r.bytes = r.dk + each;
  return r;
}

size_t cu_attention_room(const cu_attention *a) { return room_of(a).bytes; }

kn_status cu_attention_plan(kn_context *ctx, cu_dnn *s, const cu_attention *a, const cu_plan **out,
                            const char **why) {
  return cu_dnn_plan(ctx, s, a->backward ? make_backward : make_forward, a, sizeof *a, false, 0, out, why);
}

kn_status cu_attention_run(kn_context *ctx, cu_device *d, const cu_plan *p, const cu_attention *a,
                           const cu_attention_data *at) {
  float scale = at->scale, low = -INFINITY, one = 1;
  void *data[CU_DNN_REAL];
  int n = 0;
#define AT(x) data[n++] = (void *)(uintptr_t)(x)
  AT(at->q), AT(at->k), AT(at->v), AT(at->o);
  if (a->backward) {
    const room r = room_of(a);
    AT(at->grad), AT(at->statistics), AT(at->dq), AT(at->dk), AT(at->dv);
    AT(at->room), AT(at->room + r.dq_sum);
    /* Engines may add to it, and nothing says that they clear it. */
    CU_TRY(ctx, d, d->api.cuMemsetD8Async(at->room + r.dq_sum, 0, r.dv - r.dq_sum, cu_stream(ctx, d)),
           "zeros");
    data[n++] = &one, data[n++] = &scale;
  } else {
    data[n++] = &scale;
    if (a->keeps) AT(at->statistics);
  }
  if (a->mask) AT(at->mask);
  if (a->causal) data[n++] = &low;
  if (a->backward && a->kv_heads != a->heads) AT(at->room + room_of(a).dv), AT(at->room + room_of(a).dk);
#undef AT
  return cu_plan_run(ctx, d, p, data, n);
}
