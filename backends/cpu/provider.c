/* The provider of one instruction set: a kernel for each op of run.h's lists. A kernel is not told its op, so
 * there is one function each. Compiled once for each instruction set. */
#include "backends/cpu/fold.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/norm.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/rnn.h"
#include "backends/cpu/runs.h"
#include "backends/cpu/softmax.h"
#include "core/chosen.h"

extern const cp_isa CP(isa);
extern const cp_folds CP(folds);
extern const cp_softmaxes CP(softmaxes);
extern const cp_pools CP(pools);
extern const cp_norms CP(norms);
extern const cp_rnns CP(rnns);
extern const kn_provider CP(provider);
extern const cp_kit *const CP(kits)[KN_DTYPE_COUNT];

extern const cp_loops CP(loops)[KN_OP_COUNT];

#define X(op, grain) [KN_OP_##op] = {KN_IF_WITH(op, CP(op##_runs)), grain},
const cp_loops CP(loops)[KN_OP_COUNT] = {CP_ELEMENTWISE(X)};
#undef X

#define X(op, grain)                                                                                         \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    return cp_elementwise(ctx, &CP(isa), CP(op##_runs), grain, attrs, in, n, out[0]);                        \
  }
CP_ELEMENTWISE(X)
#undef X

#define X(op, grain)                                                                                         \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    (void)n;                                                                                                 \
    return cp_fused(ctx, &CP(isa), KN_OP_##op, CP(op##_runs), grain, attrs, in[0], out[0]);                  \
  }
CP_FUSED(X)
#undef X

static kn_status clone_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                              kn_tensor *const *out) {
  (void)attrs, (void)n;
  return cp_copy(ctx, &CP(isa), in[0], out[0]);
}

static kn_status cast_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                             kn_tensor *const *out) {
  (void)attrs, (void)n;
  return cp_copy(ctx, &CP(isa), in[0], out[0]);
}

static kn_status copy__kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                              kn_tensor *const *out) {
  (void)attrs, (void)n;
  if (in[1]->storage == out[0]->storage) return KN_DECLINED; /* they may overlap */
  return cp_copy(ctx, &CP(isa), in[1], out[0]);
}

static kn_status matmul_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                               kn_tensor *const *out) {
  (void)attrs, (void)n;
  return cp_matmul(ctx, CP(kits), in, out[0]);
}

static kn_status conv2d_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                               kn_tensor *const *out) {
  return cp_conv2d(ctx, CP(kits), attrs, in, n, out[0]);
}

static kn_status max_pool2d_grad_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                                        kn_tensor *const *out) {
  (void)n;
  return cp_max_pool2d_grad(ctx, &CP(pools), attrs, in[0], in[1], out[0]);
}

static int axis_of(int64_t dim, const kn_tensor *x) {
  return (int)(dim < 0 ? dim + (x->type.rank ? x->type.rank : 1) : dim);
}

static kn_status reduce(kn_context *ctx, const kn_attrs_reduce *a, const cp_reduction *r, const kn_tensor *x,
                        kn_tensor *out) {
  bool over[KN_MAX_RANK];
  for (int d = 0; d < KN_MAX_RANK; d++) over[d] = a->dim.n == 0;
  for (int i = 0; i < a->dim.n; i++) over[axis_of(a->dim.v[i], x)] = true;
  return cp_reduce(ctx, &CP(isa), &CP(folds), r, x, over, out);
}

#define X(op, ...)                                                                                           \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    (void)n;                                                                                                 \
    static const cp_reduction r = __VA_ARGS__;                                                               \
    return reduce(ctx, attrs, &r, in[0], out[0]);                                                            \
  }
CP_REDUCTIONS(X)
#undef X

static kn_status sum_to_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                               kn_tensor *const *out) {
  static const cp_reduction r = {.kind = CP_SUM};
  if (kn_type_equal(&in[0]->type, &out[0]->type)) return clone_kernel(ctx, attrs, in, n, out);
  const kn_type *x = &in[0]->type, *b = &in[1]->type;
  bool over[KN_MAX_RANK] = {false};
  int lead = x->rank - b->rank;
  for (int d = 0; d < x->rank; d++) over[d] = d < lead || (b->dims[d - lead] == 1 && x->dims[d] != 1);
  return cp_reduce(ctx, &CP(isa), &CP(folds), &r, in[0], over, out[0]);
}

#define X(op, which)                                                                                         \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    (void)n;                                                                                                 \
    const kn_attrs_argreduce *a = attrs;                                                                     \
    int dim = a->dim == KN_NONE || !in[0]->type.rank ? -1 : axis_of(a->dim, in[0]);                          \
    return cp_place(ctx, &CP(isa), &CP(folds), which, in[0], dim, out[0]);                                   \
  }
CP_PLACES(X)
#undef X

#define X(op, log)                                                                                           \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    (void)n;                                                                                                 \
    int dim = axis_of(((const kn_attrs_axis *)attrs)->dim, in[0]);                                           \
    return cp_softmax(ctx, &CP(isa), &CP(softmaxes), log, in[0], dim, out[0]);                               \
  }
CP_SOFTMAXES(X)
#undef X

#define X(op, ...)                                                                                           \
  static kn_status op##_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    return cp_rnn(ctx, &CP(rnns), CP(kits), KN_OP_##op, attrs, in, n, out);                                  \
  }
CP_RECURRENT(X)
#undef X

static kn_status layer_norm_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                                   kn_tensor *const *out) {
  return cp_layer_norm(ctx, &CP(norms), &CP(folds), attrs, in, n, out[0]);
}

static kn_status batch_norm_kernel(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                                   kn_tensor *const *out) {
  return cp_batch_norm(ctx, &CP(norms), attrs, in, n, out[0]);
}

const kn_provider CP(provider) = {
    .name = "cpu:" CP_TEXT(CP_ISA),
    .kernel =
        {
#define X(op, ...) [KN_OP_##op] = KN_IF_WITH(op, op##_kernel),
            CP_ELEMENTWISE(X) CP_FUSED(X) CP_REDUCTIONS(X) CP_PLACES(X) CP_SOFTMAXES(X) CP_RECURRENT(X)
#undef X
                [KN_OP_sum_to] = KN_IF_WITH(sum_to, sum_to_kernel),
            [KN_OP_layer_norm] = KN_IF_WITH(layer_norm, layer_norm_kernel),
            [KN_OP_batch_norm] = KN_IF_WITH(batch_norm, batch_norm_kernel),
            [KN_OP_matmul] = KN_IF_WITH(matmul, matmul_kernel),
            [KN_OP_conv2d] = KN_IF_WITH(conv2d, conv2d_kernel),
            [KN_OP_max_pool2d_grad] = KN_IF_WITH(max_pool2d_grad, max_pool2d_grad_kernel),
            [KN_OP_clone] = clone_kernel,
            [KN_OP_cast] = cast_kernel,
            [KN_OP_copy_] = copy__kernel,
        },
};
