/* Generated inputs for the sweeps over the op table: per op some attributes and the shapes and kinds of its
 * inputs. The gradient sweep needs a case for each differentiable row and fails for one without; elementwise
 * rows get one by themselves (gen_default). Small sizes, uneven values: no ties, no zeros, no value near a
 * kink of any op. */
#ifndef SPEC_GEN_H
#define SPEC_GEN_H
#include "core/dispatch.h"

typedef enum gen_kind {
  GEN_ANY,     /* floats in [-2, 2], distinct in a tensor and between inputs */
  GEN_POS,     /* floats in [0.5, 2] */
  GEN_NONZERO, /* floats in [-2, -0.5] and [0.5, 2] */
  GEN_INDEX,   /* int64 in [1, limit], some twice */
  GEN_UNIQUE,  /* int64 in [1, limit], none twice (at most limit elements) */
  GEN_BOOL
} gen_kind;

typedef struct gen_in {
  gen_kind kind;
  int rank;
  int64_t dims[KN_MAX_RANK];
  int64_t limit;
} gen_in;

enum { GEN_MAX_IN = 3 };
typedef struct gen_case {
  kn_op op;
  int n;
  gen_in in[GEN_MAX_IN];
  kn_attrs_any attrs;
  bool once; /* the gradient itself is not differentiable */
  bool flat; /* a composite through which no gradient flows */
} gen_case;

#define GEN_SHAPE(...) .rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dims = {__VA_ARGS__}
#define GEN_F(...)                                                                                           \
  { .kind = GEN_ANY, GEN_SHAPE(__VA_ARGS__) }
#define GEN_P(...)                                                                                           \
  { .kind = GEN_POS, GEN_SHAPE(__VA_ARGS__) }
#define GEN_N(...)                                                                                           \
  { .kind = GEN_NONZERO, GEN_SHAPE(__VA_ARGS__) }
#define GEN_B(...)                                                                                           \
  { .kind = GEN_BOOL, GEN_SHAPE(__VA_ARGS__) }
#define GEN_I(max, ...)                                                                                      \
  { .kind = GEN_INDEX, GEN_SHAPE(__VA_ARGS__), .limit = max }
#define GEN_U(max, ...)                                                                                      \
  { .kind = GEN_UNIQUE, GEN_SHAPE(__VA_ARGS__), .limit = max }
#define GEN_SCALAR                                                                                           \
  { .kind = GEN_POS, .rank = 0 } /* also for what should stay away from zero */
#define GEN1(name, a, ...)                                                                                   \
  { .op = KN_OP_##name, .n = 1, .in = {a}, __VA_ARGS__ }
#define GEN2(name, a, b, ...)                                                                                \
  { .op = KN_OP_##name, .n = 2, .in = {a, b}, __VA_ARGS__ }
#define GEN3(name, a, b, c, ...)                                                                             \
  { .op = KN_OP_##name, .n = 3, .in = {a, b, c}, __VA_ARGS__ }
#define GEN_DIMS(...)                                                                                        \
  {                                                                                                          \
    .n = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .v = { __VA_ARGS__ }                            \
  }

/* clang-format off */
#define GEN_BINARY(name, K)                                                                                   \
  GEN2(name, GEN_F(2, 3), K(2, 3)), GEN2(name, GEN_F(2, 3), K(3)), GEN2(name, GEN_F(2, 1), K(4, 1, 3)),       \
  GEN2(name, GEN_SCALAR, K(3)), GEN2(name, GEN_F(2, 2), GEN_SCALAR)
#define GEN_UNARY(name, K) GEN1(name, K(2, 3)), GEN1(name, GEN_SCALAR), GEN1(name, K(2, 1, 4))
#define GEN_REDUCE(name)                                                                                      \
  GEN1(name, GEN_F(2, 3)), GEN1(name, GEN_F(2, 3), .attrs.reduce = {.keepdim = true}), GEN1(name, GEN_SCALAR),\
  GEN1(name, GEN_F(2, 3, 4), .attrs.reduce = {.dim = GEN_DIMS(1)}),                                           \
  GEN1(name, GEN_F(2, 3, 4), .attrs.reduce = {.dim = GEN_DIMS(-1, 0)}),                                       \
  GEN1(name, GEN_F(2, 3, 4), .attrs.reduce = {.dim = GEN_DIMS(2, 0), .keepdim = true}),                       \
  GEN1(name, GEN_SCALAR, .attrs.reduce = {.dim = GEN_DIMS(0)})
#define GEN_CONV(name, A, B, C, ...)                                                                          \
  {.op = KN_OP_##name, .n = 3, .in = {A, B, C}, .attrs.conv2d = {.stride = GEN_DIMS(1), .padding = GEN_DIMS(0), \
                                                .dilation = GEN_DIMS(1), .groups = 1, __VA_ARGS__}}
#define GEN_POOL(...) .attrs.pool2d = {.kernel_size = GEN_DIMS(2), .stride = GEN_DIMS(0), .padding = GEN_DIMS(0), \
                                       __VA_ARGS__}

#define GEN_SPREAD(name)                                                                                      \
  GEN1(name, GEN_F(2, 3), .attrs.correction = {.correction = 1}),                                             \
  GEN1(name, GEN_F(2, 3), .attrs.correction = {.dim = GEN_DIMS(-1), .keepdim = true, .correction = 0})

/* Later fields override those that the macros above fill in. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
static const gen_case gen_cases[] = {
  GEN_BINARY(add, GEN_F), GEN_BINARY(sub, GEN_F), GEN_BINARY(mul, GEN_F), GEN_BINARY(div, GEN_N),
  GEN_BINARY(remainder, GEN_N), GEN_BINARY(maximum, GEN_F), GEN_BINARY(minimum, GEN_F),
  GEN2(pow, GEN_P(2, 3), GEN_F(2, 3)), GEN2(pow, GEN_P(2, 1), GEN_F(4, 1, 3)), GEN2(pow, GEN_SCALAR, GEN_F(3)),
  GEN2(pow, GEN_P(3), GEN_SCALAR),
  GEN_UNARY(neg, GEN_F), GEN_UNARY(abs, GEN_F), GEN_UNARY(exp, GEN_F), GEN_UNARY(log, GEN_P), GEN_UNARY(sqrt, GEN_P),
  GEN_UNARY(rsqrt, GEN_P), GEN_UNARY(sin, GEN_F), GEN_UNARY(cos, GEN_F), GEN_UNARY(tanh, GEN_F),
  GEN_UNARY(sigmoid, GEN_F), GEN_UNARY(erf, GEN_F), GEN_UNARY(relu, GEN_F), GEN_UNARY(clone, GEN_F),
  GEN1(clamp, GEN_F(3, 4), .attrs.clamp = {.min = -1, .max = 0.5}),
  GEN1(clamp, GEN_F(3, 4), .attrs.clamp = {.min = -INFINITY, .max = 0.5}),
  GEN1(clamp, GEN_F(3, 4), .attrs.clamp = {.min = 0, .max = INFINITY}),
  GEN1(cast, GEN_F(2, 3), .attrs.cast = {.dtype = KN_F64}),
  GEN3(where, GEN_B(2, 3), GEN_F(2, 3), GEN_F(2, 3)), GEN3(where, GEN_B(3), GEN_F(2, 1), GEN_SCALAR),
  GEN3(where, GEN_B(2, 1, 3), GEN_F(3), GEN_F(4, 1)),

  GEN_REDUCE(sum), GEN_REDUCE(mean), GEN_REDUCE(amax), GEN_REDUCE(amin),
  GEN2(sum_to, GEN_F(2, 3), GEN_F(3)), GEN2(sum_to, GEN_F(2, 3, 4), GEN_F(3, 1)), GEN2(sum_to, GEN_F(2, 3), GEN_SCALAR),
  GEN2(sum_to, GEN_F(2, 3), GEN_F(2, 3)),
  GEN1(softmax, GEN_F(2, 3, 4), .attrs.axis = {.dim = 1}), GEN1(softmax, GEN_F(3, 4), .attrs.axis = {.dim = -1}),
  GEN1(softmax, GEN_SCALAR, .attrs.axis = {.dim = 0}),
  GEN1(log_softmax, GEN_F(2, 3, 4), .attrs.axis = {.dim = 1}), GEN1(log_softmax, GEN_F(3, 4), .attrs.axis = {.dim = -1}),

  GEN2(matmul, GEN_F(2, 3), GEN_F(3, 4)), GEN2(matmul, GEN_F(3), GEN_F(3)), GEN2(matmul, GEN_F(3), GEN_F(3, 4)),
  GEN2(matmul, GEN_F(2, 3), GEN_F(3)), GEN2(matmul, GEN_F(2, 4, 3), GEN_F(3)), GEN2(matmul, GEN_F(3), GEN_F(2, 3, 4)),
  GEN2(matmul, GEN_F(2, 4, 3), GEN_F(3, 2)), GEN2(matmul, GEN_F(4, 3), GEN_F(2, 3, 2)),
  GEN2(matmul, GEN_F(2, 1, 2, 3), GEN_F(3, 3, 2)), GEN2(matmul, GEN_F(2, 2, 3), GEN_F(1, 3, 2)),
  GEN2(matmul, GEN_F(2, 2, 2, 3), GEN_F(3)), GEN2(matmul, GEN_F(3), GEN_F(2, 2, 3, 2)),

  {.op = KN_OP_conv2d, .n = 2, .in = {GEN_F(2, 2, 4, 4), GEN_F(3, 2, 3, 2)}, .attrs.conv2d = {.stride = GEN_DIMS(1),
    .padding = GEN_DIMS(0), .dilation = GEN_DIMS(1), .groups = 1}},
  GEN_CONV(conv2d, GEN_F(2, 2, 4, 4), GEN_F(2, 2, 3, 2), GEN_F(2), .padding = GEN_DIMS(1)),
  GEN_CONV(conv2d, GEN_F(1, 2, 5, 4), GEN_F(2, 2, 2, 2), GEN_F(2), .stride = GEN_DIMS(2, 1), .padding = GEN_DIMS(0, 1)),
  GEN_CONV(conv2d, GEN_F(1, 4, 5, 4), GEN_F(2, 2, 2, 2), GEN_F(2), .groups = 2, .dilation = GEN_DIMS(2, 1)),
  GEN_CONV(conv2d_grad_input, GEN_F(2, 3, 3, 3), GEN_F(3, 2, 2, 2), GEN_F(2, 2, 4, 4)),
  GEN_CONV(conv2d_grad_input, GEN_F(1, 2, 3, 2), GEN_F(2, 1, 2, 2), GEN_F(1, 2, 6, 4), .groups = 2, .stride = GEN_DIMS(2)),
  GEN_CONV(conv2d_grad_input, GEN_F(1, 2, 3, 4), GEN_F(2, 2, 3, 1), GEN_F(1, 2, 3, 4), .padding = GEN_DIMS(1, 0)),
  GEN_CONV(conv2d_grad_weight, GEN_F(2, 3, 3, 3), GEN_F(2, 2, 4, 4), GEN_F(3, 2, 2, 2)),
  GEN_CONV(conv2d_grad_weight, GEN_F(1, 2, 3, 2), GEN_F(1, 2, 6, 4), GEN_F(2, 1, 2, 2), .groups = 2, .stride = GEN_DIMS(2)),
  GEN_CONV(conv2d_grad_weight, GEN_F(1, 2, 1, 4), GEN_F(1, 2, 3, 4), GEN_F(2, 2, 3, 1), .dilation = GEN_DIMS(1)),
  GEN1(max_pool2d, GEN_F(1, 2, 4, 4), GEN_POOL(.padding = GEN_DIMS(0)), .once = true),
  GEN1(max_pool2d, GEN_F(1, 1, 5, 4), GEN_POOL(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0)), .once = true),
  GEN1(avg_pool2d, GEN_F(1, 2, 4, 4), GEN_POOL(.padding = GEN_DIMS(0))),
  GEN1(avg_pool2d, GEN_F(1, 1, 5, 4), GEN_POOL(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0))),
  GEN2(avg_pool2d_grad, GEN_F(1, 2, 2, 2), GEN_F(1, 2, 4, 5), GEN_POOL(.padding = GEN_DIMS(0))),
  GEN2(avg_pool2d_grad, GEN_F(1, 1, 5, 2), GEN_F(1, 1, 5, 4), GEN_POOL(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0))),

  GEN1(reshape, GEN_F(2, 3), .attrs.sizes = {.sizes = GEN_DIMS(3, -1)}),
  GEN1(reshape, GEN_F(2, 3, 2), .attrs.sizes = {.sizes = GEN_DIMS(12)}),
  GEN1(reshape, GEN_SCALAR, .attrs.sizes = {.sizes = GEN_DIMS(1, 1)}),
  GEN2(reshape_as, GEN_F(2, 3), GEN_F(3, 1, 2)), GEN2(reshape_as, GEN_F(1, 1), GEN_SCALAR),
  GEN1(expand, GEN_F(2, 1), .attrs.sizes = {.sizes = GEN_DIMS(3, -1, 4)}),
  GEN1(expand, GEN_SCALAR, .attrs.sizes = {.sizes = GEN_DIMS(2, 2)}),
  GEN1(expand, GEN_F(2, 3), .attrs.sizes = {.sizes = GEN_DIMS(2, 3)}),
  GEN2(expand_as, GEN_F(2, 1), GEN_F(3, 2, 4)), GEN2(expand_as, GEN_SCALAR, GEN_F(2, 2)),
  GEN1(transpose, GEN_F(2, 3), .attrs.swap = {.dim0 = 0, .dim1 = 1}),
  GEN1(transpose, GEN_F(2, 3, 4), .attrs.swap = {.dim0 = -1, .dim1 = 0}),
  GEN1(permute, GEN_F(2, 3, 4), .attrs.axes = {.dims = GEN_DIMS(1, 2, 0)}),
  GEN1(permute, GEN_F(2, 3, 4), .attrs.axes = {.dims = GEN_DIMS(-1, 0, -2)}),
  GEN1(select, GEN_F(2, 3, 4), .attrs.select = {.dim = 1, .index = 2}),
  GEN1(select, GEN_F(2, 3), .attrs.select = {.dim = -1, .index = -3}),
  GEN1(select, GEN_F(3), .attrs.select = {.dim = 0, .index = 1}),
  GEN1(slice, GEN_F(2, 5), .attrs.slice = {.dim = 1, .start = 1, .stop = 4, .step = 1}),
  GEN1(slice, GEN_F(5, 2), .attrs.slice = {.dim = 0, .start = 0, .stop = KN_TO_END, .step = 2}),
  GEN1(slice, GEN_F(2, 5), .attrs.slice = {.dim = -1, .start = -4, .stop = -1, .step = 2}),
  GEN1(squeeze, GEN_F(2, 1, 3, 1), .attrs.optional_axis = {.dim = KN_NONE}),
  GEN1(squeeze, GEN_F(2, 1, 3, 1), .attrs.optional_axis = {.dim = 1}),
  GEN1(squeeze, GEN_F(2, 3), .attrs.optional_axis = {.dim = -1}),
  GEN1(unsqueeze, GEN_F(2, 3), .attrs.axis = {.dim = 1}), GEN1(unsqueeze, GEN_F(2, 3), .attrs.axis = {.dim = -1}),
  GEN1(unsqueeze, GEN_SCALAR, .attrs.axis = {.dim = 0}),
  GEN2(select_grad, GEN_F(2, 4), GEN_F(2, 3, 4), .attrs.select = {.dim = 1, .index = 2}),
  GEN2(select_grad, GEN_SCALAR, GEN_F(3), .attrs.select = {.dim = 0, .index = -1}),
  GEN2(slice_grad, GEN_F(2, 2), GEN_F(2, 5), .attrs.slice = {.dim = 1, .start = 1, .stop = 4, .step = 2}),
  GEN2(slice_grad, GEN_F(3, 2), GEN_F(4, 2), .attrs.slice = {.dim = -2, .start = -3, .stop = KN_TO_END, .step = 1}),

  GEN3(cat, GEN_F(2, 3), GEN_F(1, 3), GEN_F(2, 3), .attrs.axis_first = {.dim = 0}),
  GEN2(cat, GEN_F(2, 3), GEN_F(2, 2), .attrs.axis_first = {.dim = -1}),
  GEN1(cat, GEN_F(2, 3), .attrs.axis_first = {.dim = 1}),
  GEN3(stack, GEN_F(2, 3), GEN_F(2, 3), GEN_F(2, 3), .attrs.axis_first = {.dim = 1}),
  GEN2(stack, GEN_F(2, 3), GEN_F(2, 3), .attrs.axis_first = {.dim = -1}),
  GEN2(stack, GEN_SCALAR, GEN_SCALAR, .attrs.axis_first = {.dim = 0}),
  GEN2(gather, GEN_F(3, 4), GEN_I(3, 5, 4), .attrs.axis = {.dim = 0}),
  GEN2(gather, GEN_F(3, 4), GEN_I(4, 2, 3), .attrs.axis = {.dim = -1}),
  GEN3(scatter_add, GEN_F(3, 4), GEN_I(3, 5, 4), GEN_F(5, 4), .attrs.axis = {.dim = 0}),
  GEN3(scatter_add, GEN_F(3, 4), GEN_I(4, 2, 3), GEN_F(3, 5), .attrs.axis = {.dim = -1}),
  GEN2(index_select, GEN_F(3, 4), GEN_I(3, 5), .attrs.axis = {.dim = 0}),
  GEN2(index_select, GEN_F(2, 3, 4), GEN_I(4, 2), .attrs.axis = {.dim = -1}),
  GEN3(index_add, GEN_F(3, 4), GEN_I(3, 5), GEN_F(5, 4), .attrs.axis = {.dim = 0}),
  GEN3(index_add, GEN_F(2, 4), GEN_I(4, 3), GEN_F(2, 3), .attrs.axis = {.dim = -1}),
  GEN3(index_copy, GEN_F(4, 2), GEN_U(4, 3), GEN_F(3, 2), .attrs.axis = {.dim = 0}),
  GEN3(index_copy, GEN_F(2, 4), GEN_U(4, 2), GEN_F(2, 2), .attrs.axis = {.dim = -1}),
  GEN2(copy_, GEN_F(2, 3), GEN_F(2, 3)), GEN2(copy_, GEN_F(2, 3), GEN_F(3)), GEN2(copy_, GEN_F(2, 3), GEN_SCALAR),

  /* composites */
  GEN1(zeros_like, GEN_F(2, 3), .flat = true), GEN1(ones_like, GEN_F(2, 3), .flat = true),
  GEN1(logical_not, GEN_F(2, 3), .flat = true), GEN2(logical_and, GEN_F(2, 3), GEN_F(3), .flat = true),
  GEN2(logical_or, GEN_F(2, 3), GEN_B(3), .flat = true),
  GEN1(view, GEN_F(2), .attrs.sizes = {.sizes = GEN_DIMS(1, -1)}),
  GEN1(flatten, GEN_F(2, 3, 4), .attrs.flatten = {.start_dim = 1, .end_dim = -1}),
  GEN1(narrow, GEN_F(2, 5), .attrs.narrow = {.dim = 1, .start = 1, .length = 3}),
  GEN_UNARY(square, GEN_F), GEN_UNARY(reciprocal, GEN_N), GEN_UNARY(gelu, GEN_F), GEN_UNARY(silu, GEN_F),
  GEN_UNARY(softplus, GEN_F),
  GEN2(masked_fill, GEN_F(2, 3), GEN_B(3), .attrs.value = {.value = 7}),
  GEN2(masked_select, GEN_F(2, 3), GEN_B(2, 3)), GEN2(masked_select, GEN_F(2, 3), GEN_B(3)),
  GEN_SPREAD(var), GEN_SPREAD(std),
  GEN1(norm, GEN_F(2, 3)), GEN1(norm, GEN_F(2, 3), .attrs.reduce = {.dim = GEN_DIMS(1), .keepdim = true}),
  GEN2(linear, GEN_F(2, 3), GEN_F(4, 3)), GEN3(linear, GEN_F(2, 3), GEN_F(4, 3), GEN_F(4)),
  GEN3(linear, GEN_F(2, 2, 3), GEN_F(4, 3), GEN_F(4)), GEN3(linear, GEN_F(3), GEN_F(4, 3), GEN_F(4)),
  GEN2(embedding, GEN_F(4, 3), GEN_I(4, 5)), GEN2(embedding, GEN_F(4, 3), GEN_I(4, 2, 3)),
  GEN1(dropout, GEN_F(2, 3), .attrs.dropout = {.p = 0.5, .training = false}),
  GEN2(nll_loss, GEN_F(3, 4), GEN_I(4, 3), .attrs.reduction = {.reduction = 1}),
  GEN2(nll_loss, GEN_F(3, 4), GEN_I(4, 3), .attrs.reduction = {.reduction = 0}),
  GEN2(cross_entropy, GEN_F(3, 4), GEN_I(4, 3), .attrs.reduction = {.reduction = 2}),
  GEN2(cross_entropy, GEN_F(3, 4), GEN_I(4, 3), .attrs.reduction = {.reduction = 1}),
  GEN2(mse_loss, GEN_F(2, 3), GEN_F(2, 3), .attrs.reduction = {.reduction = 1}),
};
#pragma GCC diagnostic pop
/* clang-format on */

enum { GEN_CASES = sizeof gen_cases / sizeof gen_cases[0] };

/* A case for an elementwise row that has none in the table, so that adding such an op needs none. */
static inline bool gen_default(kn_op op, gen_case *out) {
  static const gen_case one = GEN1(neg, GEN_P(2, 3)), two = GEN2(add, GEN_P(2, 1), GEN_P(3));
  if (kn_ops[op].op_class != KN_CLASS_ELEMENTWISE || kn_ops[op].min_in > 2) return false;
  *out = kn_ops[op].min_in == 1 ? one : two;
  out->op = op;
  kn_attrs_default(kn_ops[op].attrs, &out->attrs);
  return true;
}

static inline bool gen_has_case(kn_op op) {
  for (int i = 0; i < GEN_CASES; i++)
    if (gen_cases[i].op == op) return true;
  return false;
}

static inline bool gen_is_float(const gen_in *in) { return in->kind <= GEN_NONZERO; }

/* Element k (row-major) of input `salt` of a case. */
static inline double gen_value(const gen_in *in, int64_t k, int salt) {
  double u = (double)((k * 37 + salt * 11 + 5) % 101) / 101 + 0.00093 * (salt + 1); /* in (0, 1) */
  switch (in->kind) {
  case GEN_ANY: return 4 * u - 2;
  case GEN_POS: return 0.5 + 1.5 * u;
  case GEN_NONZERO: return (k % 2 ? -1 : 1) * (0.5 + 1.5 * u);
  case GEN_INDEX: return (double)((k * 5 + k / 3) % in->limit + 1);
  case GEN_UNIQUE: return (double)(in->limit - k);
  case GEN_BOOL: return k % 3 != 1;
  }
  return 0;
}

/* Input i of the case, contiguous; floats in the dtype given. */
static inline kn_status gen_make(kn_context *ctx, const gen_case *c, int i, kn_dtype floats,
                                 kn_tensor **out) {
  const gen_in *in = &c->in[i];
  kn_dtype dtype = gen_is_float(in) ? floats : in->kind == GEN_BOOL ? KN_BOOL : KN_I64;
  kn_type type = {.dtype = (uint8_t)dtype, .device = KN_CPU, .rank = (uint8_t)in->rank};
  for (int d = 0; d < in->rank; d++) type.dims[d] = in->dims[d];
  kn_tensor *t;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    kn_element_put_float(dtype, (char *)kn_tensor_data(t) + k * (int64_t)kn_dtype_size(dtype),
                         gen_value(in, k, i));
  *out = t;
  return KN_OK;
}

#endif
