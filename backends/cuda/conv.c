/* Convolutions: problems made of tensors, and their plans. */
#include "backends/cuda/conv.h"
#include "backends/cuda/copy.h"
#include "backends/cuda/entries.h"
#include "core/infer.h"
#include <string.h>

/* ---- a problem ---- */

static void set_tensor(cu_conv_tensor *to, cu_view v, CUdeviceptr at) {
  for (int i = 0; i < 4; i++) {
    to->dims[i] = v.type->dims[i];
    to->strides[i] = v.strides[i];
  }
  to->alignment = cu_alignment(at, 16);
}

void cu_conv_of(cu_conv *c, cu_conv_kind kind, const kn_attrs_conv2d *a, cu_view x, cu_view w, cu_view y,
                const cu_conv_data *at) {
  memset(c, 0, sizeof *c);
  c->kind = (int32_t)kind;
  c->dtype = (int32_t)x.type->dtype;
  c->groups = (int32_t)a->groups;
  c->bias = at->bias != 0, c->add = at->add != 0;
  set_tensor(&c->x, x, at->x);
  set_tensor(&c->w, w, at->w);
  set_tensor(&c->y, y, at->y);
  for (int i = 0; i < 2; i++) {
    c->padding[i] = kn_ints_at(&a->padding, i);
    c->stride[i] = kn_ints_at(&a->stride, i);
    c->dilation[i] = kn_ints_at(&a->dilation, i);
  }
}

/* ---- its graph ---- */

static cu_desc tensor_of(cu_graph *g, cudnnDataType_t type, const cu_conv_tensor *t, cu_tensor_kind kind) {
  cu_shape s = {.type = type, .rank = 4};
  memcpy(s.dims, t->dims, sizeof t->dims);
  memcpy(s.strides, t->strides, sizeof t->strides);
  return cu_graph_tensor(g, &s, kind, kind == CU_VIRTUAL ? 16 : t->alignment);
}

/* What follows the sum, in the type that is computed in; the last of it writes y. Tensors with memory: x, w,
 * y, then bias and add. */
static void make(cu_graph *g, const void *problem) {
  const cu_conv *c = problem;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cu_dnn_type((kn_dtype)c->dtype, &type);
  cudnnDataType_t compute = type == CUDNN_DATA_DOUBLE ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
  cu_desc x = tensor_of(g, type, &c->x, CU_MEMORY), w = tensor_of(g, type, &c->w, CU_MEMORY),
          y = tensor_of(g, type, &c->y, CU_MEMORY);
  int left = c->bias + c->add + c->relu;
  cu_desc at = left ? tensor_of(g, compute, &c->y, CU_VIRTUAL) : y;
  cu_graph_conv(g, (cu_conv_kind)c->kind, compute, c->padding, c->stride, c->dilation, x, w, at);
  for (int i = 0; i < 2; i++) {
    if (!(i ? c->add : c->bias)) continue;
    const int64_t filters = c->y.dims[1];
    cu_shape row = {
        .type = type, .rank = 4, .dims = {1, filters, 1, 1}, .strides = {filters, 1, filters, filters}};
    cu_desc other = i ? tensor_of(g, type, &c->y, CU_MEMORY) : cu_graph_tensor(g, &row, CU_MEMORY, 16);
    cu_desc sum = --left ? tensor_of(g, compute, &c->y, CU_VIRTUAL) : y;
    cu_graph_pointwise(g, CUDNN_POINTWISE_ADD, compute, 0, at, other, NULL, sum);
    at = sum;
  }
  if (c->relu) cu_graph_pointwise(g, CUDNN_POINTWISE_RELU_FWD, compute, 0, at, NULL, NULL, y);
}

kn_status cu_conv_plan_by(kn_context *ctx, cu_dnn *s, const cu_conv *c, int nth, const cu_plan **out,
                          const char **why) {
  cu_conv q = *c;
  q.planned = 0; /* the same plan for all */
  return cu_dnn_plan(ctx, s, make, &q, sizeof q, c->dtype == KN_F32, nth, out, why);
}

kn_status cu_conv_plan(kn_context *ctx, cu_dnn *s, const cu_conv *c, const cu_plan **out, const char **why) {
  return cu_conv_plan_by(ctx, s, c, 0, out, why);
}

kn_status cu_conv_run(kn_context *ctx, cu_device *d, const cu_plan *p, const cu_conv *c,
                      const cu_conv_data *at) {
  void *data[5];
  int n = 0;
  data[n++] = (void *)(uintptr_t)at->x;
  data[n++] = (void *)(uintptr_t)at->w;
  data[n++] = (void *)(uintptr_t)at->y;
  if (c->bias) data[n++] = (void *)(uintptr_t)at->bias;
  if (c->add) data[n++] = (void *)(uintptr_t)at->add;
  return cu_plan_run(ctx, d, p, data, n);
}

/* ---- the ops ---- */

static void say(kn_context *ctx, const char *what, const char *why) {
  if (kn_debugging(ctx, KN_DEBUG_DISPATCH)) kn_log(ctx, "dispatch: cuDNN does not take %s: %s", what, why);
}

static bool degenerate(const cu_conv *c) {
  const cu_conv_tensor *t[] = {&c->x, &c->w, &c->y};
  for (int i = 0; i < 3; i++)
    for (int d = 0; d < 4; d++)
      if (!t[i]->dims[d]) return true;
  return false;
}

/* Expanded tensors are none of cuDNN's. */
static bool overlaps(const cu_conv *c) {
  const cu_conv_tensor *t[] = {&c->x, &c->w, &c->y};
  for (int i = 0; i < 3; i++)
    for (int d = 0; d < 4; d++)
      if (t[i]->dims[d] > 1 && t[i]->strides[d] <= 0) return true;
  return false;
}

static kn_status by_plan(kn_context *ctx, cu_device *d, const cu_conv *c, const cu_conv_data *at,
                         const char *what) {
  cu_dnn *s = NULL;
  const cu_plan *p;
  const char *why;
  kn_status st = cu_dnn_of(ctx, d, &s, &why);
  const int nth = st == KN_OK && c->planned ? cu_conv_known(ctx, d, c) : 0;
  if (st == KN_OK) st = nth ? cu_conv_plan_by(ctx, s, c, nth, &p, &why) : KN_DECLINED;
  if (st == KN_DECLINED && s) st = cu_conv_plan(ctx, s, c, &p, &why);
  if (st == KN_DECLINED) say(ctx, what, why);
  return st == KN_OK ? cu_conv_run(ctx, d, p, c, at) : st;
}

/* Without sum and relu. */
static kn_status run(kn_context *ctx, cu_device *d, const cu_conv *given, const cu_conv_data *at,
                     const char *what) {
  cu_conv c = *given;
  kn_status st = KN_DECLINED;
  if (!degenerate(&c) && !overlaps(&c)) {
    if (at->bias % 16 == 0) st = by_plan(ctx, d, &c, at, what); /* wide loads */
    if (st == KN_DECLINED && c.bias) {
      c.bias = 0;
      st = by_plan(ctx, d, &c, at, what);
      if (st == KN_OK) st = cu_conv_bias(ctx, d, given, at);
    }
  }
  return st == KN_DECLINED ? cu_convolve(ctx, d, given, at) : st;
}

/* g and w for x, or g and x for w. */
kn_status cu_conv_gradient(kn_context *ctx, cu_conv_kind kind, const void *attrs, kn_tensor *const *in,
                           const kn_tensor *out, bool planned) {
  const bool of_input = kind == CU_CONV_GRAD_INPUT;
  const kn_tensor *x = of_input ? out : in[1], *w = of_input ? in[1] : out, *y = in[0];
  cu_device *d;
  cu_conv c;
  const cu_conv_data at = {cu_address(x), cu_address(w), cu_address(y), 0, 0};
  if (!kn_tensor_numel(out)) return KN_OK;
  KN_TRY(cu_device_of(ctx, &d));
  cu_conv_of(&c, kind, attrs, cu_view_of(x), cu_view_of(w), cu_view_of(y), &at);
  c.planned = planned;
  return run(ctx, d, &c, &at, of_input ? "conv2d_grad_input" : "conv2d_grad_weight");
}

static kn_status forward(kn_context *ctx, cu_device *d, const void *attrs, const kn_tensor *x,
                         const kn_tensor *w, const kn_tensor *y, const cu_conv_with *with, bool *whole) {
  cu_conv c;
  const kn_tensor *bias = with->bias, *add = with->add;
  cu_conv_data at = {cu_address(x), cu_address(w), cu_address(y), bias ? cu_address(bias) : 0,
                     add ? cu_address(add) : 0};
  kn_status st = KN_DECLINED;
  cu_conv_of(&c, CU_CONV_FORWARD, attrs, cu_view_of(x), cu_view_of(w), cu_view_of(y), &at);
  c.relu = with->relu;
  c.planned = with->planned;
  *whole = !add && !with->relu;
  const bool like = !add || (kn_tensor_contiguous(add) && at.add % (uint64_t)c.y.alignment == 0);
  if (!*whole && like && at.bias % 16 == 0 && !degenerate(&c) && !overlaps(&c))
    st = by_plan(ctx, d, &c, &at, "conv2d with what follows it");
  if (st != KN_DECLINED) {
    *whole = true;
    return st;
  }
  c.add = c.relu = 0;
  at.add = 0;
  return run(ctx, d, &c, &at, "conv2d");
}

kn_status cu_conv_forward(kn_context *ctx, cu_device *d, const void *attrs, const kn_tensor *x,
                          const kn_tensor *w, const kn_tensor *y, const cu_conv_with *with, bool *whole) {
  cu_conv_with given = *with;
  if (with->bias) KN_TRY(cu_contiguous(ctx, d, with->bias, &given.bias));
  kn_status st = forward(ctx, d, attrs, x, w, y, &given, whole);
  kn_tensor_release(given.bias);
  return st;
}

CU_ENTRY(conv2d) {
  cu_device *d;
  bool whole;
  if (!kn_tensor_numel(out[0])) return KN_OK;
  KN_TRY(cu_device_of(ctx, &d));
  const cu_conv_with with = {.bias = n > 2 ? in[2] : NULL};
  return cu_conv_forward(ctx, d, attrs, in[0], in[1], out[0], &with, &whole);
}

CU_ENTRY(conv2d_grad_input) {
  (void)n;
  return cu_conv_gradient(ctx, CU_CONV_GRAD_INPUT, attrs, in, out[0], false);
}

CU_ENTRY(conv2d_grad_weight) {
  (void)n;
  return cu_conv_gradient(ctx, CU_CONV_GRAD_WEIGHT, attrs, in, out[0], false);
}
