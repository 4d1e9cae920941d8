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
  GEN_UNIT,    /* floats in [-0.9, 0.9] */
  GEN_ABOVE,   /* floats in [1.2, 3.2] */
  GEN_PART,    /* floats in [0.1, 0.9] */
  GEN_WELL,    /* matrices in the last two dims: floats in [-1, 1], 3 more on the diagonal */
  GEN_SYM,     /* symmetric and positive definite ones; they stay symmetric while an element is moved */
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

enum { GEN_MAX_IN = 9 };
typedef struct gen_case {
  kn_op op;
  int n;
  gen_in in[GEN_MAX_IN];
  kn_attrs_any attrs;
  bool flat; /* a composite through which no gradient flows */
} gen_case;

#define GEN_SHAPE(...) .rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dims = {__VA_ARGS__}
#define GEN_F(...)                                                                                           \
  { .kind = GEN_ANY, GEN_SHAPE(__VA_ARGS__) }
#define GEN_P(...)                                                                                           \
  { .kind = GEN_POS, GEN_SHAPE(__VA_ARGS__) }
#define GEN_N(...)                                                                                           \
  { .kind = GEN_NONZERO, GEN_SHAPE(__VA_ARGS__) }
#define GEN_T(...)                                                                                           \
  { .kind = GEN_UNIT, GEN_SHAPE(__VA_ARGS__) }
#define GEN_A(...)                                                                                           \
  { .kind = GEN_ABOVE, GEN_SHAPE(__VA_ARGS__) }
#define GEN_Q(...)                                                                                           \
  { .kind = GEN_PART, GEN_SHAPE(__VA_ARGS__) }
#define GEN_B(...)                                                                                           \
  { .kind = GEN_BOOL, GEN_SHAPE(__VA_ARGS__) }
#define GEN_I(max, ...)                                                                                      \
  { .kind = GEN_INDEX, GEN_SHAPE(__VA_ARGS__), .limit = max }
#define GEN_U(max, ...)                                                                                      \
  { .kind = GEN_UNIQUE, GEN_SHAPE(__VA_ARGS__), .limit = max }
#define GEN_W(...)                                                                                           \
  { .kind = GEN_WELL, GEN_SHAPE(__VA_ARGS__) }
#define GEN_S(...)                                                                                           \
  { .kind = GEN_SYM, GEN_SHAPE(__VA_ARGS__) }
#define GEN_SCALAR                                                                                           \
  { .kind = GEN_POS, .rank = 0 } /* also for what should stay away from zero */
#define GEN1(name, a, ...)                                                                                   \
  { .op = KN_OP_##name, .n = 1, .in = {a}, __VA_ARGS__ }
#define GEN2(name, a, b, ...)                                                                                \
  { .op = KN_OP_##name, .n = 2, .in = {a, b}, __VA_ARGS__ }
#define GEN3(name, a, b, c, ...)                                                                             \
  { .op = KN_OP_##name, .n = 3, .in = {a, b, c}, __VA_ARGS__ }
#define GEN4(name, a, b, c, d, ...)                                                                          \
  { .op = KN_OP_##name, .n = 4, .in = {a, b, c, d}, __VA_ARGS__ }
#define GEN5(name, a, b, c, d, e, ...)                                                                       \
  { .op = KN_OP_##name, .n = 5, .in = {a, b, c, d, e}, __VA_ARGS__ }
#define GEN6(name, a, b, c, d, e, f, ...)                                                                    \
  { .op = KN_OP_##name, .n = 6, .in = {a, b, c, d, e, f}, __VA_ARGS__ }
#define GEN7(name, a, b, c, d, e, f, g, ...)                                                                 \
  { .op = KN_OP_##name, .n = 7, .in = {a, b, c, d, e, f, g}, __VA_ARGS__ }
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
                                       .dilation = GEN_DIMS(1), __VA_ARGS__}
#define GEN_AVG(...) .attrs.avg_pool2d = {.kernel_size = GEN_DIMS(2), .stride = GEN_DIMS(0), .padding = GEN_DIMS(0), \
                                          .count_include_pad = true, __VA_ARGS__}

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
  GEN_BINARY(fmod, GEN_N), GEN_BINARY(atan2, GEN_N), GEN_UNARY(asin, GEN_T), GEN_UNARY(acos, GEN_T),
  GEN_UNARY(atanh, GEN_T), GEN1(acosh, GEN_A(2, 3)), GEN_UNARY(expm1, GEN_F), GEN_UNARY(atan, GEN_F), GEN_UNARY(sinh, GEN_F),
  GEN_UNARY(cosh, GEN_F), GEN_UNARY(asinh, GEN_F), GEN_UNARY(erfc, GEN_F), GEN_UNARY(tan, GEN_T),
  GEN_UNARY(sigmoid, GEN_F), GEN_UNARY(erf, GEN_F), GEN_UNARY(relu, GEN_F), GEN_UNARY(clone, GEN_F), GEN_UNARY(to_device, GEN_F),
  GEN1(clamp, GEN_F(3, 4), .attrs.clamp = {.min = -1, .max = 0.5}),
  GEN1(clamp, GEN_F(3, 4), .attrs.clamp = {.min = -INFINITY, .max = 0.5}),
  GEN1(clamp, GEN_F(3, 4), .attrs.clamp = {.min = 0, .max = INFINITY}),
  GEN1(cast, GEN_F(2, 3), .attrs.cast = {.dtype = KN_F64}),
  GEN3(where, GEN_B(2, 3), GEN_F(2, 3), GEN_F(2, 3)), GEN3(where, GEN_B(3), GEN_F(2, 1), GEN_SCALAR),
  GEN3(where, GEN_B(2, 1, 3), GEN_F(3), GEN_F(4, 1)),

  GEN_REDUCE(sum), GEN_REDUCE(mean), GEN_REDUCE(amax), GEN_REDUCE(amin),
  GEN_REDUCE(prod),
  GEN1(cumsum, GEN_F(2, 3, 4), .attrs.axis = {.dim = 1}), GEN1(cumsum, GEN_F(3), .attrs.axis = {.dim = -1}), GEN1(cumsum, GEN_SCALAR, .attrs.axis = {.dim = 0}),
  GEN1(cumprod, GEN_F(2, 3, 4), .attrs.axis = {.dim = 1}), GEN1(cumprod, GEN_F(3), .attrs.axis = {.dim = -1}), GEN1(cumprod, GEN_SCALAR, .attrs.axis = {.dim = 0}),
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
  GEN1(max_pool2d, GEN_F(1, 2, 4, 4), GEN_POOL(.padding = GEN_DIMS(0))),
  GEN1(max_pool2d, GEN_F(1, 1, 5, 4), GEN_POOL(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0))),
  GEN1(max_pool2d, GEN_F(2, 5, 6), GEN_POOL(.kernel_size = GEN_DIMS(2, 3), .stride = GEN_DIMS(2), .dilation = GEN_DIMS(2, 1), .ceil_mode = true)),
  GEN2(max_pool2d_grad, GEN_F(1, 2, 2, 2), GEN_F(1, 2, 4, 5), GEN_POOL(.padding = GEN_DIMS(0))),
  GEN2(max_pool2d_grad, GEN_F(1, 1, 5, 2), GEN_F(1, 1, 5, 4), GEN_POOL(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0))),
  GEN1(avg_pool2d, GEN_F(2, 5, 4), GEN_AVG(.kernel_size = GEN_DIMS(3), .stride = GEN_DIMS(2), .padding = GEN_DIMS(1), .ceil_mode = true)),
  GEN1(avg_pool2d, GEN_F(1, 2, 5, 4), GEN_AVG(.kernel_size = GEN_DIMS(3), .stride = GEN_DIMS(2), .padding = GEN_DIMS(1), .ceil_mode = true, .count_include_pad = false)),
  GEN1(avg_pool2d, GEN_F(1, 2, 5, 4), GEN_AVG(.padding = GEN_DIMS(1), .divisor_override = 3)),
  GEN1(avg_pool2d, GEN_F(1, 2, 4, 4), GEN_AVG(.padding = GEN_DIMS(0))),
  GEN1(avg_pool2d, GEN_F(1, 1, 5, 4), GEN_AVG(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0))),
  GEN2(avg_pool2d_grad, GEN_F(1, 2, 2, 2), GEN_F(1, 2, 4, 5), GEN_AVG(.padding = GEN_DIMS(0))),
  GEN2(avg_pool2d_grad, GEN_F(1, 1, 5, 2), GEN_F(1, 1, 5, 4), GEN_AVG(.kernel_size = GEN_DIMS(3, 2), .stride = GEN_DIMS(1, 2), .padding = GEN_DIMS(1, 0))),

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
  GEN2(select_put, GEN_F(2, 3, 4), GEN_F(2, 4), .attrs.select = {.dim = 1, .index = 2}),
  GEN2(select_put, GEN_F(3, 2), GEN_SCALAR, .attrs.select = {.dim = 0, .index = -1}),
  GEN2(slice_put, GEN_F(2, 5), GEN_F(2, 2), .attrs.slice = {.dim = 1, .start = 1, .stop = 4, .step = 2}),
  GEN2(slice_put, GEN_F(4, 2), GEN_F(1, 2), .attrs.slice = {.dim = -2, .start = -3, .stop = KN_TO_END, .step = 1}),
  GEN2(slice_grad, GEN_F(2, 2), GEN_F(2, 5), .attrs.slice = {.dim = 1, .start = 1, .stop = 4, .step = 2}),
  GEN2(slice_grad, GEN_F(3, 2), GEN_F(4, 2), .attrs.slice = {.dim = -2, .start = -3, .stop = KN_TO_END, .step = 1}),

  GEN1(diagonal, GEN_F(3, 4), .attrs.diagonal_of = {.dim2 = 1}), GEN1(diagonal, GEN_F(3, 2, 4), .attrs.diagonal_of = {.offset = -1, .dim1 = 2, .dim2 = 0}),
  GEN1(diagonal, GEN_F(3, 4), .attrs.diagonal_of = {.offset = 2, .dim2 = -1}),
  GEN2(diagonal_grad, GEN_F(2), GEN_F(3, 4), .attrs.diagonal_of = {.offset = 2, .dim2 = 1}),
  GEN2(diagonal_grad, GEN_F(2, 3), GEN_F(3, 2, 4), .attrs.diagonal_of = {.dim1 = 2, .dim2 = 0}),
  GEN2(unfold_grad, GEN_F(2, 2, 3), GEN_F(2, 5), .attrs.unfold = {.dim = 1, .size = 3, .step = 2}), GEN2(unfold_grad, GEN_F(3, 2, 2), GEN_F(4, 2), .attrs.unfold = {.dim = 0, .size = 2, .step = 1}),
  GEN1(strided, GEN_F(3, 4), .attrs.strided = {.sizes = GEN_DIMS(2, 3), .strides = GEN_DIMS(4, 1), .offset = 2}), GEN1(strided, GEN_F(3, 4), .attrs.strided = {.sizes = GEN_DIMS(3, 3), .strides = GEN_DIMS(1, 2)}),
  GEN2(strided_grad, GEN_F(2, 3), GEN_F(3, 4), .attrs.strided = {.sizes = GEN_DIMS(2, 3), .strides = GEN_DIMS(4, 1), .offset = 2}), GEN2(strided_grad, GEN_F(3, 3), GEN_F(12), .attrs.strided = {.sizes = GEN_DIMS(3, 3), .strides = GEN_DIMS(1, 2)}),
  GEN2(strided_put, GEN_F(3, 4), GEN_F(2, 3), .attrs.strided = {.sizes = GEN_DIMS(2, 3), .strides = GEN_DIMS(4, 1), .offset = 2}), GEN2(strided_put, GEN_F(3, 4), GEN_SCALAR, .attrs.strided = {.sizes = GEN_DIMS(3), .strides = GEN_DIMS(5)}),
  GEN1(flip, GEN_F(2, 3), .attrs.axes = {.dims = GEN_DIMS(1)}), GEN1(flip, GEN_F(2, 3, 4), .attrs.axes = {.dims = GEN_DIMS(-1, 0)}), GEN1(flip, GEN_F(4)), GEN1(flip, GEN_SCALAR),
  GEN1(tril, GEN_F(3, 4), .attrs.diagonal = {0}), GEN1(tril, GEN_F(2, 3, 2), .attrs.diagonal = {.diagonal = -1}),
  GEN1(triu, GEN_F(3, 4), .attrs.diagonal = {.diagonal = 1}), GEN1(triu, GEN_F(2, 4, 3), .attrs.diagonal = {.diagonal = -2}),
  GEN1(constant_pad, GEN_F(2, 3), .attrs.constant_pad = {.pad = GEN_DIMS(1, 2), .value = 7}),
  GEN1(constant_pad, GEN_F(3, 4), .attrs.constant_pad = {.pad = GEN_DIMS(-1, 2, 1, -1)}),
  GEN1(constant_pad, GEN_F(2, 3, 4), .attrs.constant_pad = {.pad = GEN_DIMS(0, 0, 2, 0)}),

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
  GEN3(scatter_fold, GEN_F(3, 4), GEN_I(3, 5, 4), GEN_F(5, 4), .attrs.scatter_fold = {.dim = 0}),
  GEN3(scatter_fold, GEN_F(3, 4), GEN_I(4, 2, 3), GEN_F(3, 5), .attrs.scatter_fold = {.dim = -1, .reduce = 1}),
  {.op = KN_OP_scatter_fold, .n = 3, .in = {GEN_SCALAR, {.kind = GEN_INDEX, .limit = 1}, GEN_SCALAR}, .attrs.scatter_fold = {.reduce = 2}},
  GEN3(scatter, GEN_F(4), GEN_U(4, 3), GEN_F(3), .attrs.axis = {.dim = 0}),
  GEN3(scatter, GEN_F(6, 1), GEN_U(6, 4, 1), GEN_F(5, 2), .attrs.axis = {.dim = 0}),
  GEN3(scatter, GEN_F(1, 6), GEN_U(6, 1, 4), GEN_F(1, 4), .attrs.axis = {.dim = -1}),
  GEN_BINARY(floor_divide, GEN_N),
  GEN1(sort, GEN_F(2, 5), .attrs.sort = {.dim = -1}), GEN1(sort, GEN_F(3, 2, 4), .attrs.sort = {.dim = 0, .descending = true}), GEN1(sort, GEN_SCALAR, .attrs.sort = {.dim = 0}),
  GEN2(index_select, GEN_F(3, 4), GEN_I(3, 5), .attrs.axis = {.dim = 0}),
  GEN2(index_select, GEN_F(2, 3, 4), GEN_I(4, 2), .attrs.axis = {.dim = -1}),
  GEN3(index_add, GEN_F(3, 4), GEN_I(3, 5), GEN_F(5, 4), .attrs.axis = {.dim = 0}),
  GEN3(index_add, GEN_F(2, 4), GEN_I(4, 3), GEN_F(2, 3), .attrs.axis = {.dim = -1}),
  GEN3(index_copy, GEN_F(4, 2), GEN_U(4, 3), GEN_F(3, 2), .attrs.axis = {.dim = 0}),
  GEN3(index_copy, GEN_F(2, 4), GEN_U(4, 2), GEN_F(2, 2), .attrs.axis = {.dim = -1}),
  GEN2(copy_, GEN_F(2, 3), GEN_F(2, 3)), GEN2(copy_, GEN_F(2, 3), GEN_F(3)), GEN2(copy_, GEN_F(2, 3), GEN_SCALAR),

  GEN_UNARY(erfinv, GEN_T), GEN_UNARY(lgamma, GEN_N), GEN_UNARY(digamma, GEN_N), GEN1(polygamma, GEN_P(2, 3), .attrs.polygamma = {.n = 1}),
  GEN1(polygamma, GEN_P(5), .attrs.polygamma = {.n = 2}), GEN1(polygamma, GEN_P(5), .attrs.polygamma = {.n = 0}), GEN_UNARY(i0, GEN_F), GEN_UNARY(i1, GEN_F),
  GEN_BINARY(xlogy, GEN_P), GEN_BINARY(xlog1py, GEN_P),

  /* linear algebra */
  GEN1(inv, GEN_W(3, 3)), GEN1(inv, GEN_W(2, 3, 3)), GEN1(inv, GEN_F(1, 1)), GEN1(det, GEN_W(3, 3)), GEN1(det, GEN_F(2, 2, 2)), GEN1(det, GEN_F(1, 1)),
  GEN1(slogdet, GEN_W(3, 3)), GEN1(slogdet, GEN_F(2, 2, 2)), GEN1(cofactor, GEN_W(3, 3)), GEN1(cofactor, GEN_W(2, 2, 2)),
#define GEN_LEFT .attrs.solve = {.left = true}
  GEN2(solve, GEN_W(3, 3), GEN_F(3, 2), GEN_LEFT), GEN2(solve, GEN_W(3, 3), GEN_F(3), GEN_LEFT), GEN2(solve, GEN_W(2, 3, 3), GEN_F(3), GEN_LEFT),
  GEN2(solve, GEN_W(2, 3, 3), GEN_F(2, 3), GEN_LEFT), GEN2(solve, GEN_W(3, 3), GEN_F(2, 3, 1), GEN_LEFT), GEN2(solve, GEN_W(3, 3), GEN_F(2, 3), .attrs.solve = {.left = false}),
  GEN2(solve_triangular, GEN_W(3, 3), GEN_F(3, 2), .attrs.solve_triangular = {.upper = true, .left = true}),
  GEN2(solve_triangular, GEN_W(3, 3), GEN_F(2, 3), .attrs.solve_triangular = {.upper = false, .left = false}),
  GEN2(solve_triangular, GEN_F(2, 3, 3), GEN_F(3, 2), .attrs.solve_triangular = {.upper = false, .left = true, .unitriangular = true}),
  GEN2(solve_triangular, GEN_F(3, 3), GEN_F(2, 2, 3), .attrs.solve_triangular = {.upper = true, .left = false, .unitriangular = true}),
  GEN1(cholesky, GEN_S(3, 3)), GEN1(cholesky, GEN_S(4, 4), .attrs.cholesky = {.upper = true}),
  GEN1(qr, GEN_W(3, 3)), GEN1(qr, GEN_F(4, 2)), GEN1(qr, GEN_F(2, 4)), GEN1(qr, GEN_F(2, 3, 2)), GEN1(qr, GEN_F(2, 3), .attrs.qr = {.mode = KN_CHOICE_qr_mode_complete}),
  GEN1(svd, GEN_W(3, 3)), GEN1(svd, GEN_F(4, 2)), GEN1(svd, GEN_F(2, 4)), GEN1(svd, GEN_F(2, 3, 2)), GEN1(svd, GEN_W(3, 3), .attrs.svd = {.full_matrices = true}),
  GEN1(eigh, GEN_S(3, 3)), GEN1(eigh, GEN_S(4, 4), .attrs.eigh = {.UPLO = KN_CHOICE_triangle_U}),
#define GEN_TOLERANCE .attrs.tolerance = {.rtol = -1, .atol = -1}
  GEN1(pinv, GEN_F(3, 2), GEN_TOLERANCE), GEN1(pinv, GEN_F(2, 4), GEN_TOLERANCE), GEN1(pinv, GEN_W(2, 2, 2), GEN_TOLERANCE),
  GEN1(svdvals, GEN_F(3, 2)), GEN1(svdvals, GEN_F(2, 2, 3)), GEN1(eigvalsh, GEN_S(3, 3)),
  GEN1(norm, GEN_N(2, 3), .attrs.norm = {.p = 0.5, .dim = GEN_DIMS(1)}),
  GEN1(cond, GEN_W(3, 3), .attrs.cond = {.p = KN_CHOICE_matrix_ord_two}), GEN1(cond, GEN_F(2, 3), .attrs.cond = {.p = KN_CHOICE_matrix_ord_minus_two}), GEN1(cond, GEN_W(2, 2, 2), .attrs.cond = {.p = KN_CHOICE_matrix_ord_nuc}),
  GEN1(matrix_norm, GEN_F(2, 3)), GEN1(matrix_norm, GEN_F(2, 3), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_nuc}),
  GEN1(matrix_norm, GEN_F(2, 3), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_inf}), GEN1(matrix_norm, GEN_F(2, 3), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_minus_inf}),
  GEN1(matrix_norm, GEN_F(2, 3), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_one}), GEN1(matrix_norm, GEN_F(2, 3), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_minus_one}),
  GEN1(matrix_norm, GEN_F(2, 3, 2), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_two, .dim = GEN_DIMS(2, 0), .keepdim = true}), GEN1(matrix_norm, GEN_F(3, 2, 2), .attrs.matrix_norm = {.ord = KN_CHOICE_matrix_ord_minus_two, .dim = GEN_DIMS(0, 1)}),
  GEN1(vector_norm, GEN_F(2, 3), .attrs.vector_norm = {.ord = 2}), GEN1(vector_norm, GEN_F(2, 3), .attrs.vector_norm = {.ord = 3, .dim = GEN_DIMS(1), .keepdim = true}),
  GEN1(matrix_rank, GEN_F(3, 2), GEN_TOLERANCE, .flat = true), GEN1(matrix_rank, GEN_F(2, 3, 3), .attrs.tolerance = {.rtol = 0.1, .atol = 0.01}, .flat = true),
  GEN2(lstsq, GEN_F(4, 2), GEN_F(4, 2), .attrs.rcond = {.rcond = -1}), GEN2(lstsq, GEN_F(2, 4), GEN_F(2), .attrs.rcond = {.rcond = -1}),
  GEN2(cholesky_solve, GEN_F(3, 2), GEN_W(3, 3)), GEN2(cholesky_solve, GEN_F(3, 2), GEN_W(3, 3), .attrs.upper = {.upper = true}),
  GEN1(matrix_power, GEN_W(2, 2), .attrs.matrix_power = {.n = 3}), GEN1(matrix_power, GEN_W(2, 2, 2), .attrs.matrix_power = {.n = -2}), GEN1(matrix_power, GEN_F(2, 2), .attrs.matrix_power = {.n = 1}),
  GEN1(matrix_power, GEN_F(2, 2), .attrs.matrix_power = {.n = 0}, .flat = true),
  GEN1(trace, GEN_F(2, 3)), GEN2(cross, GEN_F(2, 3), GEN_F(2, 3), .attrs.last_axis = {.dim = -1}), GEN2(cross, GEN_F(3, 2), GEN_F(3, 1), .attrs.last_axis = {.dim = 0}),
  GEN2(vecdot, GEN_F(2, 3), GEN_F(3), .attrs.last_axis = {.dim = -1}), GEN2(kron, GEN_F(2, 3), GEN_F(3, 2)), GEN2(kron, GEN_F(2), GEN_F(2, 2)), GEN2(kron, GEN_SCALAR, GEN_F(2)),
  GEN2(cdist, GEN_F(3, 2), GEN_F(4, 2), .attrs.cdist = {.p = 2}), GEN2(cdist, GEN_F(2, 2, 2), GEN_F(3, 2), .attrs.cdist = {.p = 3}),

  /* composites */
  GEN1(zeros_like, GEN_F(2, 3), .flat = true), GEN1(ones_like, GEN_F(2, 3), .flat = true),
  GEN1(logical_not, GEN_F(2, 3), .flat = true), GEN2(logical_and, GEN_F(2, 3), GEN_F(3), .flat = true),
  GEN2(logical_or, GEN_F(2, 3), GEN_B(3), .flat = true),
  GEN1(view, GEN_F(2), .attrs.sizes = {.sizes = GEN_DIMS(1, -1)}),
  GEN1(flatten, GEN_F(2, 3, 4), .attrs.flatten = {.start_dim = 1, .end_dim = -1}),
  GEN1(narrow, GEN_F(2, 5), .attrs.narrow = {.dim = 1, .start = 1, .length = 3}),
  GEN_UNARY(square, GEN_F), GEN_UNARY(reciprocal, GEN_N), GEN_UNARY(silu, GEN_F),
  GEN3(masked_fill, GEN_F(2, 3), GEN_B(3), GEN_SCALAR), GEN3(masked_fill, GEN_F(3), GEN_B(2, 3), GEN_SCALAR),
  GEN2(masked_select, GEN_F(2, 3), GEN_B(2, 3)), GEN2(masked_select, GEN_F(2, 3), GEN_B(3)),
  GEN_SPREAD(var), GEN_SPREAD(std),
  GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = 2}), GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = 2, .dim = GEN_DIMS(1), .keepdim = true}),
  GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = 3, .dim = GEN_DIMS(1)}), GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = INFINITY}),
  GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = 1}), GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = -INFINITY, .dim = GEN_DIMS(0)}),
  GEN1(norm, GEN_F(2, 3), .attrs.norm = {.p = 0}),
  GEN2(linear, GEN_F(2, 3), GEN_F(4, 3)), GEN3(linear, GEN_F(2, 3), GEN_F(4, 3), GEN_F(4)),
  GEN3(linear, GEN_F(2, 2, 3), GEN_F(4, 3), GEN_F(4)), GEN3(linear, GEN_F(3), GEN_F(4, 3), GEN_F(4)),
  GEN2(embedding, GEN_F(4, 3), GEN_I(4, 5)), GEN2(embedding, GEN_F(4, 3), GEN_I(4, 2, 3)),
  GEN1(dropout, GEN_F(2, 3), .attrs.dropout = {.p = 0.5, .training = false}),
  GEN2(nll_loss, GEN_F(3, 4), GEN_I(4, 3), .attrs.nll = {.reduction = 1, .ignore_index = -100}),
  GEN2(nll_loss, GEN_F(3, 4), GEN_I(4, 3), .attrs.nll = {.reduction = 0, .ignore_index = -100}),
  GEN3(nll_loss, GEN_F(2, 4, 3), GEN_I(4, 2, 3), GEN_P(4), .attrs.nll = {.reduction = 1, .ignore_index = 2}),
  GEN2(cross_entropy, GEN_F(3, 4), GEN_I(4, 3), .attrs.cross_entropy = {.reduction = 2}),
  GEN2(cross_entropy, GEN_F(3, 4), GEN_I(4, 3), .attrs.cross_entropy = {.reduction = 1}),
  GEN3(cross_entropy, GEN_F(3, 4), GEN_I(4, 3), GEN_P(4), .attrs.cross_entropy = {.reduction = 1, .label_smoothing = 0.1}),
  GEN2(cross_entropy, GEN_F(3, 4), GEN_P(3, 4), .attrs.cross_entropy = {.reduction = 1, .label_smoothing = 0.1}),
  GEN2(mse_loss, GEN_F(2, 3), GEN_F(2, 3), .attrs.reduction = {.reduction = 1}),
  GEN_UNARY(frac, GEN_F), GEN3(lerp, GEN_F(2, 3), GEN_F(3), GEN_SCALAR), GEN_BINARY(logaddexp, GEN_F),
  GEN1(gelu, GEN_F(2, 3)), GEN1(gelu, GEN_F(2, 3), .attrs.gelu = {.approximate = KN_CHOICE_approximate_tanh}),
  GEN1(softplus, GEN_F(2, 3), .attrs.softplus = {.beta = 1, .threshold = 20}), GEN1(softplus, GEN_F(2, 3), .attrs.softplus = {.beta = 2, .threshold = 1}),
  GEN_UNARY(relu6, GEN_F), GEN1(leaky_relu, GEN_F(2, 3), .attrs.slope = {.negative_slope = 0.1}),
  GEN1(elu, GEN_F(2, 3), .attrs.alpha = {.alpha = 1.5}), GEN1(celu, GEN_F(2, 3), .attrs.alpha = {.alpha = 1.5}), GEN_UNARY(selu, GEN_F), GEN_UNARY(mish, GEN_F),
  GEN_UNARY(softsign, GEN_F), GEN1(hardtanh, GEN_F(2, 3), .attrs.hardtanh = {.min_val = -1, .max_val = 1}), GEN_UNARY(hardswish, GEN_F), GEN_UNARY(hardsigmoid, GEN_F),
  GEN1(glu, GEN_F(2, 4), .attrs.last_axis = {.dim = -1}), GEN1(glu, GEN_F(2, 3), .attrs.last_axis = {.dim = 0}),
  GEN2(prelu, GEN_F(2, 3), GEN_P(3)), GEN2(prelu, GEN_F(2, 3, 2), GEN_P(1)), GEN2(prelu, GEN_F(2, 3, 2), GEN_P(3)),
  GEN1(threshold, GEN_F(2, 3), .attrs.threshold = {.threshold = 0.25, .value = -3}), GEN_UNARY(logsigmoid, GEN_F), GEN_UNARY(tanhshrink, GEN_F),
  GEN1(softshrink, GEN_F(2, 3), .attrs.shrink = {.lambd = 0.5}), GEN1(hardshrink, GEN_F(2, 3), .attrs.shrink = {.lambd = 0.5}),
  GEN2(logical_xor, GEN_F(2, 3), GEN_F(3), .flat = true), GEN1(isinf, GEN_F(2, 3), .flat = true), GEN1(isfinite, GEN_F(2, 3), .flat = true),
  GEN_SPREAD(var_mean), GEN_SPREAD(std_mean), GEN1(logsumexp, GEN_F(2, 3)), GEN1(logsumexp, GEN_F(2, 3), .attrs.reduce = {.dim = GEN_DIMS(1), .keepdim = true}),
  GEN1(count_nonzero, GEN_F(2, 3), .flat = true), GEN1(argsort, GEN_F(2, 3), .attrs.sort = {.dim = -1}, .flat = true),
  GEN1(topk, GEN_F(2, 5), .attrs.topk = {.k = 3, .dim = -1, .largest = true}), GEN1(topk, GEN_F(5, 2), .attrs.topk = {.k = 2, .dim = 0}),
  GEN1(median, GEN_F(2, 3), .attrs.argreduce = {.dim = KN_NONE}), GEN1(median, GEN_F(2, 4), .attrs.argreduce = {.dim = 1, .keepdim = true}),
  GEN2(quantile, GEN_F(2, 3), GEN_Q(2), .attrs.quantile = {.dim = KN_NONE}), GEN2(quantile, GEN_F(4, 2), GEN_Q(3), .attrs.quantile = {.dim = 0, .keepdim = true}),
  GEN2(nanquantile, GEN_F(2, 5), GEN_Q(2), .attrs.quantile = {.dim = 1}), GEN2(nanquantile, GEN_F(5), GEN_Q(1), .attrs.quantile = {.dim = KN_NONE, .interpolation = KN_CHOICE_interpolation_midpoint}),
  GEN1(tile, GEN_F(2, 3), .attrs.tile = {.repeats = GEN_DIMS(2)}), GEN1(tile, GEN_F(3), .attrs.tile = {.repeats = GEN_DIMS(2, 3)}),
  GEN1(repeat_interleave, GEN_F(2, 3), .attrs.repeat = {.repeats = 2, .dim = KN_NONE}), GEN1(repeat_interleave, GEN_F(2, 3), .attrs.repeat = {.repeats = 3, .dim = 0}),
  GEN1(movedim, GEN_F(2, 3, 4), .attrs.movedim = {.source = GEN_DIMS(0, 2), .destination = GEN_DIMS(2, 1)}),
  GEN1(roll, GEN_F(2, 3), .attrs.roll = {.shifts = GEN_DIMS(2)}), GEN1(roll, GEN_F(2, 3), .attrs.roll = {.shifts = GEN_DIMS(1, -1), .dims = GEN_DIMS(0, 1)}),
  GEN1(pad, GEN_F(2, 3), .attrs.pad = {.pad = GEN_DIMS(1, 2, 0, 1), .value = 3}), GEN1(pad, GEN_F(3, 4), .attrs.pad = {.pad = GEN_DIMS(1, 2, 2, 1), .mode = KN_CHOICE_pad_mode_reflect}),
  GEN1(pad, GEN_F(2, 3), .attrs.pad = {.pad = GEN_DIMS(1, 2, 3, 0), .mode = KN_CHOICE_pad_mode_replicate}),
  GEN1(diag, GEN_F(3), .attrs.diagonal = {.diagonal = -1}), GEN1(diag, GEN_F(3), .attrs.diagonal = {.diagonal = 0}), GEN1(diag, GEN_F(3, 4), .attrs.diagonal = {.diagonal = 1}),
  GEN1(unfold, GEN_F(2, 5), .attrs.unfold = {.dim = 1, .size = 3, .step = 2}), GEN1(unfold, GEN_F(4, 2), .attrs.unfold = {.dim = 0, .size = 2, .step = 1}),
  GEN1(pixel_shuffle, GEN_F(1, 8, 2, 3), .attrs.factor = {.factor = 2}), GEN1(pixel_unshuffle, GEN_F(1, 2, 4, 6), .attrs.factor = {.factor = 2}),
  GEN2(take_along_dim, GEN_F(3, 4), GEN_I(4, 3, 2), .attrs.optional_axis = {.dim = 1}), GEN2(take_along_dim, GEN_F(3, 4), GEN_I(3, 2, 1), .attrs.optional_axis = {.dim = 0}),
  GEN2(take_along_dim, GEN_F(2, 3), GEN_I(6, 4), .attrs.optional_axis = {.dim = KN_NONE}),
  GEN1(one_hot, GEN_I(3, 2, 2), .attrs.one_hot = {.num_classes = 4}, .flat = true),
  GEN2(index, GEN_F(5, 2), GEN_I(5, 3)), GEN3(index, GEN_F(3, 4, 2), GEN_I(3, 2, 1), GEN_I(4, 2)),
  GEN3(index_put, GEN_F(5, 2), GEN_F(3, 2), GEN_U(5, 3)), GEN4(index_put, GEN_F(3, 4), GEN_F(1), GEN_I(3, 2, 2), GEN_I(4, 2), .attrs.index_put = {.accumulate = true}),
  GEN2(mm, GEN_F(2, 3), GEN_F(3, 4)), GEN2(bmm, GEN_F(2, 2, 3), GEN_F(2, 3, 2)), GEN2(mv, GEN_F(2, 3), GEN_F(3)), GEN2(dot, GEN_F(3), GEN_F(3)), GEN2(outer, GEN_F(3), GEN_F(2)),
  GEN3(addmm, GEN_F(4), GEN_F(2, 3), GEN_F(3, 4), .attrs.addmm = {.beta = 0.5, .alpha = 2}),
  GEN_CONV(conv1d, GEN_F(2, 2, 5), GEN_F(3, 2, 2), GEN_F(3), .padding = GEN_DIMS(1), .stride = GEN_DIMS(2)),
#define GEN_TURNED(...) .attrs.conv_transpose = {.stride = GEN_DIMS(1), .padding = GEN_DIMS(0), .output_padding = GEN_DIMS(0), .groups = 1, .dilation = GEN_DIMS(1), __VA_ARGS__}
  GEN3(conv_transpose1d, GEN_F(2, 2, 3), GEN_F(2, 3, 2), GEN_F(3), GEN_TURNED(.stride = GEN_DIMS(2), .output_padding = GEN_DIMS(1))),
  GEN3(conv_transpose2d, GEN_F(2, 2, 3, 2), GEN_F(2, 3, 2, 2), GEN_F(3), GEN_TURNED(.stride = GEN_DIMS(2, 1), .padding = GEN_DIMS(0, 1))),
  GEN2(conv_transpose2d, GEN_F(1, 2, 2, 3), GEN_F(2, 1, 2, 2), GEN_TURNED(.groups = 2, .dilation = GEN_DIMS(2))),
  GEN1(max_pool1d, GEN_F(1, 2, 5), GEN_POOL(.padding = GEN_DIMS(1))), GEN1(avg_pool1d, GEN_F(1, 2, 5), GEN_AVG(.padding = GEN_DIMS(1))),
  GEN1(adaptive_avg_pool2d, GEN_F(1, 2, 4, 6), .attrs.output_size = {.output_size = GEN_DIMS(2)}), GEN1(adaptive_avg_pool2d, GEN_F(2, 5, 4), .attrs.output_size = {.output_size = GEN_DIMS(3, 3)}),
  GEN1(adaptive_max_pool2d, GEN_F(1, 2, 4, 4), .attrs.output_size = {.output_size = GEN_DIMS(2)}), GEN1(adaptive_max_pool2d, GEN_F(1, 2, 5, 4), .attrs.output_size = {.output_size = GEN_DIMS(3)}),
  GEN1(interpolate, GEN_F(1, 2, 3, 2), .attrs.interpolate = {.size = GEN_DIMS(5, 3)}), GEN1(interpolate, GEN_F(1, 2, 3, 3), .attrs.interpolate = {.size = GEN_DIMS(0), .scale_factor = 2, .mode = KN_CHOICE_interpolate_mode_bilinear}),
  GEN1(interpolate, GEN_F(1, 2, 3, 3), .attrs.interpolate = {.size = GEN_DIMS(5), .mode = KN_CHOICE_interpolate_mode_bilinear, .align_corners = true}),
  GEN1(interpolate, GEN_F(1, 2, 3), .attrs.interpolate = {.size = GEN_DIMS(2), .mode = KN_CHOICE_interpolate_mode_linear}),
  GEN1(max_pool1d_with_indices, GEN_F(1, 2, 6), GEN_POOL(.padding = GEN_DIMS(1))), GEN1(max_pool2d_with_indices, GEN_F(1, 2, 4, 5), GEN_POOL(.kernel_size = GEN_DIMS(3), .stride = GEN_DIMS(2), .ceil_mode = true)),
  GEN1(max_pool3d, GEN_F(1, 1, 3, 4, 4), GEN_POOL(.kernel_size = GEN_DIMS(2, 3, 2), .stride = GEN_DIMS(1), .padding = GEN_DIMS(1, 1, 0))), GEN1(max_pool3d, GEN_F(2, 4, 3, 4), GEN_POOL(.ceil_mode = true)),
  GEN1(max_pool3d_with_indices, GEN_F(1, 1, 3, 4, 4), GEN_POOL(.kernel_size = GEN_DIMS(2, 3, 2), .stride = GEN_DIMS(1), .padding = GEN_DIMS(1, 1, 0))),
#define GEN_UNPOOL(...) .attrs.max_unpool = {.kernel_size = GEN_DIMS(2), .stride = GEN_DIMS(0), .padding = GEN_DIMS(0), .output_size = GEN_DIMS(0), __VA_ARGS__}
  GEN2(max_unpool1d, GEN_F(1, 1, 3), GEN_U(6, 1, 1, 3), GEN_UNPOOL(.padding = GEN_DIMS(0))), GEN2(max_unpool2d, GEN_F(1, 2, 2), GEN_U(20, 1, 2, 2), GEN_UNPOOL(.output_size = GEN_DIMS(4, 5))),
  GEN2(max_unpool3d, GEN_F(1, 1, 2, 1, 2), GEN_U(32, 1, 1, 2, 1, 2), GEN_UNPOOL(.padding = GEN_DIMS(0))),
  GEN1(avg_pool3d, GEN_F(1, 1, 3, 4, 4), GEN_AVG(.kernel_size = GEN_DIMS(2, 3, 2), .stride = GEN_DIMS(1), .padding = GEN_DIMS(1, 1, 0))), GEN1(avg_pool3d, GEN_F(2, 4, 3, 4), GEN_AVG(.ceil_mode = true, .count_include_pad = false, .padding = GEN_DIMS(1))),
  GEN1(lp_pool1d, GEN_P(1, 2, 5), .attrs.lp_pool = {.norm_type = 2, .kernel_size = GEN_DIMS(2), .stride = GEN_DIMS(0)}), GEN1(lp_pool2d, GEN_P(1, 2, 4, 5), .attrs.lp_pool = {.norm_type = 3, .kernel_size = GEN_DIMS(2, 3), .stride = GEN_DIMS(1), .ceil_mode = true}),
  GEN1(lp_pool3d, GEN_P(1, 1, 2, 4, 3), .attrs.lp_pool = {.norm_type = 2, .kernel_size = GEN_DIMS(2), .stride = GEN_DIMS(1)}),
  GEN1(adaptive_avg_pool1d, GEN_F(1, 2, 5), .attrs.output_size = {.output_size = GEN_DIMS(3)}), GEN1(adaptive_avg_pool3d, GEN_F(1, 1, 3, 4, 2), .attrs.output_size = {.output_size = GEN_DIMS(2, 3, 1)}),
  GEN1(adaptive_max_pool1d, GEN_F(2, 5), .attrs.output_size = {.output_size = GEN_DIMS(3)}), GEN1(adaptive_max_pool3d, GEN_F(1, 2, 4, 2), .attrs.output_size = {.output_size = GEN_DIMS(2, 2, 1)}),
#define GEN_COLUMNS .kernel_size = GEN_DIMS(2), .dilation = GEN_DIMS(1), .stride = GEN_DIMS(1)
  GEN1(im2col, GEN_F(1, 2, 3, 3), .attrs.im2col = {GEN_COLUMNS, .padding = GEN_DIMS(1), .stride = GEN_DIMS(2)}), GEN1(im2col, GEN_F(2, 1, 4, 3), .attrs.im2col = {GEN_COLUMNS, .padding = GEN_DIMS(0), .dilation = GEN_DIMS(2, 1)}),
  GEN1(col2im, GEN_F(1, 8, 4), .attrs.col2im = {.output_size = GEN_DIMS(3), GEN_COLUMNS, .padding = GEN_DIMS(0)}), GEN1(col2im, GEN_F(1, 4, 4), .attrs.col2im = {.output_size = GEN_DIMS(3, 3), GEN_COLUMNS, .padding = GEN_DIMS(1), .stride = GEN_DIMS(2)}),
  GEN3(layer_norm, GEN_F(2, 3, 4), GEN_F(3, 4), GEN_F(3, 4), .attrs.layer_norm = {.normalized_shape = GEN_DIMS(3, 4), .eps = 1e-2}), GEN1(layer_norm, GEN_F(2, 3), .attrs.layer_norm = {.normalized_shape = GEN_DIMS(3), .eps = 1e-2}),
  GEN2(rms_norm, GEN_F(2, 4), GEN_F(4), .attrs.rms_norm = {.normalized_shape = GEN_DIMS(4), .eps = 1e-3}), GEN1(rms_norm, GEN_F(2, 4), .attrs.rms_norm = {.normalized_shape = GEN_DIMS(4), .eps = -1}),
  GEN3(group_norm, GEN_F(2, 4, 3), GEN_F(4), GEN_F(4), .attrs.group_norm = {.num_groups = 2, .eps = 1e-2}), GEN1(group_norm, GEN_F(2, 2, 3), .attrs.group_norm = {.num_groups = 1, .eps = 1e-2}),
  GEN1(instance_norm, GEN_F(2, 2, 4), .attrs.instance_norm = {.use_input_stats = true, .eps = 1e-2}),
  GEN5(instance_norm, GEN_F(2, 2, 4), GEN_F(2), GEN_P(2), GEN_F(2), GEN_F(2), .attrs.instance_norm = {.use_input_stats = false, .eps = 1e-2}),
  GEN1(batch_norm, GEN_F(3, 2, 2), .attrs.batch_norm = {.training = true, .eps = 1e-2}),
  GEN5(batch_norm, GEN_F(3, 2, 2), GEN_F(2), GEN_P(2), GEN_F(2), GEN_F(2), .attrs.batch_norm = {.eps = 1e-2}), GEN3(batch_norm, GEN_F(3, 2), GEN_F(2), GEN_P(2), .attrs.batch_norm = {.eps = 1e-2}),
  GEN3(scaled_dot_product_attention, GEN_F(2, 3, 2), GEN_F(2, 4, 2), GEN_F(2, 4, 3), .attrs.attention = {.scale = -1}),
  GEN4(scaled_dot_product_attention, GEN_F(3, 2), GEN_F(4, 2), GEN_F(4, 3), GEN_F(3, 4), .attrs.attention = {.scale = 0.3}),
  GEN4(scaled_dot_product_attention, GEN_F(2, 3, 2), GEN_F(2, 4, 2), GEN_F(2, 4, 3), GEN_B(3, 4), .attrs.attention = {.scale = -1}),
  GEN3(scaled_dot_product_attention, GEN_F(4, 3, 2), GEN_F(2, 3, 2), GEN_F(2, 3, 2), .attrs.attention = {.scale = -1, .is_causal = true, .enable_gqa = true}),
  GEN3(fused_attention, GEN_F(2, 2, 3, 2), GEN_F(2, 2, 4, 2), GEN_F(2, 2, 4, 3), .attrs.fused_attention = {.scale = -1}),
  GEN3(fused_attention, GEN_F(1, 4, 3, 2), GEN_F(1, 2, 3, 2), GEN_F(1, 2, 3, 2), .attrs.fused_attention = {.scale = 0.3, .is_causal = true}),
  GEN4(fused_attention, GEN_F(2, 2, 3, 2), GEN_F(2, 1, 4, 2), GEN_F(2, 1, 4, 2), GEN_F(1, 2, 3, 4), .attrs.fused_attention = {.scale = -1}),
  GEN4(lstm_layer, GEN_F(3, 2, 8), GEN_F(8, 2), GEN_F(2, 2), GEN_F(2, 2)), GEN4(lstm_layer, GEN_F(2, 1, 12), GEN_F(12, 3), GEN_F(1, 3), GEN_F(1, 3), .attrs.direction = {.reverse = true}),
  GEN3(gru_layer, GEN_F(3, 2, 6), GEN_F(6, 2), GEN_F(2, 2)), GEN4(gru_layer, GEN_F(2, 1, 9), GEN_F(9, 3), GEN_F(1, 3), GEN_F(9), .attrs.direction = {.reverse = true}),
  GEN3(rnn_layer, GEN_F(3, 2, 2), GEN_F(2, 2), GEN_F(2, 2)), GEN3(rnn_layer, GEN_F(4, 1, 3), GEN_P(3, 3), GEN_F(1, 3), .attrs.rnn_direction = {.nonlinearity = 1, .reverse = true}),
#define GEN_RNN(...) .attrs.rnn = {.num_layers = 1, __VA_ARGS__}
  GEN7(lstm, GEN_F(2, 2, 3), GEN_F(1, 2, 2), GEN_F(1, 2, 2), GEN_F(8, 3), GEN_F(8, 2), GEN_F(8), GEN_F(8), GEN_RNN(.has_biases = true)),
  GEN5(lstm, GEN_F(2, 3, 1), GEN_F(4, 1), GEN_F(4, 1), GEN_F(4, 1), GEN_F(4, 1), GEN_RNN(.bidirectional = true, .batch_first = true)),
  GEN6(gru, GEN_F(3, 2), GEN_F(1, 2), GEN_F(6, 2), GEN_F(6, 2), GEN_F(6), GEN_F(6), GEN_RNN(.has_biases = true)),
  GEN5(gru, GEN_F(2, 2, 2), GEN_F(6, 2), GEN_F(6, 2), GEN_F(6, 2), GEN_F(6, 2), GEN_RNN(.num_layers = 2)),
  GEN6(rnn_tanh, GEN_F(3, 1, 2), GEN_F(1, 1, 2), GEN_F(2, 2), GEN_F(2, 2), GEN_F(2), GEN_F(2), GEN_RNN(.has_biases = true)), GEN3(rnn_relu, GEN_F(3, 2), GEN_P(2, 2), GEN_P(2, 2), GEN_RNN(0)),
  GEN7(lstm_cell, GEN_F(2, 3), GEN_F(2, 2), GEN_F(2, 2), GEN_F(8, 3), GEN_F(8, 2), GEN_F(8), GEN_F(8)), GEN5(lstm_cell, GEN_F(3), GEN_F(2), GEN_F(2), GEN_F(8, 3), GEN_F(8, 2)),
  GEN6(gru_cell, GEN_F(2, 3), GEN_F(2, 2), GEN_F(6, 3), GEN_F(6, 2), GEN_F(6), GEN_F(6)), GEN4(rnn_tanh_cell, GEN_F(2, 3), GEN_F(2, 2), GEN_F(2, 3), GEN_F(2, 2)),
  GEN6(rnn_relu_cell, GEN_F(3), GEN_F(2), GEN_P(2, 3), GEN_P(2, 2), GEN_F(2), GEN_F(2)),
  {.op = KN_OP_conv3d, .n = 3, .in = {GEN_F(2, 2, 3, 3, 3), GEN_F(2, 1, 2, 2, 2), GEN_F(2)}, .attrs.conv2d = {.stride = GEN_DIMS(1), .padding = GEN_DIMS(1, 0, 0), .dilation = GEN_DIMS(1), .groups = 2}},
  {.op = KN_OP_conv3d, .n = 2, .in = {GEN_F(1, 1, 5, 3, 4), GEN_F(2, 1, 2, 2, 3)}, .attrs.conv2d = {.stride = GEN_DIMS(2, 1, 1), .padding = GEN_DIMS(0), .dilation = GEN_DIMS(2, 1, 1), .groups = 1}},
  GEN3(conv_transpose3d, GEN_F(1, 2, 2, 2, 1), GEN_F(2, 1, 2, 2, 2), GEN_F(2), GEN_TURNED(.stride = GEN_DIMS(2, 1, 1), .padding = GEN_DIMS(1, 0, 0), .output_padding = GEN_DIMS(1, 0, 0), .groups = 2)),
  GEN1(interpolate, GEN_F(1, 1, 4, 3), .attrs.interpolate = {.size = GEN_DIMS(3, 5), .mode = KN_CHOICE_interpolate_mode_bicubic}), GEN1(interpolate, GEN_F(1, 1, 2, 3, 2), .attrs.interpolate = {.size = GEN_DIMS(3), .mode = KN_CHOICE_interpolate_mode_trilinear}),
  GEN1(interpolate, GEN_F(1, 2, 5), .attrs.interpolate = {.size = GEN_DIMS(3), .mode = KN_CHOICE_interpolate_mode_area}), GEN1(interpolate, GEN_F(1, 2, 5), .attrs.interpolate = {.size = GEN_DIMS(3), .mode = KN_CHOICE_interpolate_mode_nearest_exact}),
  GEN2(grid_sample, GEN_F(1, 2, 3, 4), GEN_T(1, 2, 2, 2), .attrs.grid_sample = {0}), GEN2(grid_sample, GEN_F(1, 1, 3, 3), GEN_F(1, 2, 1, 2), .attrs.grid_sample = {.padding_mode = 2, .align_corners = true}),
  GEN2(grid_sample, GEN_F(1, 1, 2, 3, 2), GEN_T(1, 1, 1, 2, 3), .attrs.grid_sample = {.padding_mode = 1}),
  GEN1(affine_grid, GEN_F(2, 2, 3), .attrs.affine_grid = {.size = GEN_DIMS(2, 1, 2, 3)}), GEN1(affine_grid, GEN_F(1, 3, 4), .attrs.affine_grid = {.size = GEN_DIMS(1, 1, 2, 1, 2), .align_corners = true}),
  GEN1(channel_shuffle, GEN_F(1, 4, 2), .attrs.groups = {.groups = 2}), GEN1(normalize, GEN_F(2, 3), .attrs.normalize = {.p = 2, .dim = 1, .eps = 1e-12}),
  GEN1(local_response_norm, GEN_F(1, 4, 2), .attrs.local_response_norm = {.size = 3, .alpha = 0.5, .beta = 0.75, .k = 1}),
  GEN1(feature_dropout, GEN_F(2, 3, 2), .attrs.dropout = {.p = 0.5, .training = false}), GEN1(alpha_dropout, GEN_F(2, 3), .attrs.dropout = {.p = 0.5, .training = false}),
  GEN1(feature_alpha_dropout, GEN_F(2, 3, 2), .attrs.dropout = {.p = 0.5, .training = false}),
  GEN1(pad, GEN_F(2, 3, 4), .attrs.pad = {.pad = GEN_DIMS(2, 3, 1, 1), .mode = KN_CHOICE_pad_mode_circular}),
#define GEN_LOSS .reduction = 1
  GEN4(ctc_loss, GEN_F(6, 2, 3), GEN_I(3, 2, 2), GEN_I(6, 2), GEN_I(2, 2), .attrs.ctc = {GEN_LOSS, .blank = 2}), GEN4(ctc_loss, GEN_F(3, 2), GEN_I(1, 2), GEN_I(1, 1), GEN_I(1, 1), .attrs.ctc = {GEN_LOSS, .blank = 1}),
  GEN2(soft_margin_loss, GEN_F(2, 3), GEN_F(2, 3), .attrs.reduction = {GEN_LOSS}), GEN2(hinge_embedding_loss, GEN_F(2, 3), GEN_I(1, 2, 3), .attrs.hinge_embedding = {GEN_LOSS, .margin = 1}),
  GEN3(margin_ranking_loss, GEN_F(4), GEN_F(4), GEN_I(1, 4), .attrs.cosine_embedding = {GEN_LOSS, .margin = 0.3}),
  GEN3(multi_margin_loss, GEN_F(3, 4), GEN_I(4, 3), GEN_P(4), .attrs.multi_margin = {GEN_LOSS, .p = 2, .margin = 1}), {.op = KN_OP_multi_margin_loss, .n = 2, .in = {GEN_F(4), {.kind = GEN_INDEX, .limit = 4}}, .attrs.multi_margin = {GEN_LOSS, .p = 1, .margin = 1}},
  GEN2(multilabel_margin_loss, GEN_F(3, 4), GEN_I(4, 3, 4), .attrs.reduction = {GEN_LOSS}), GEN3(multilabel_soft_margin_loss, GEN_F(3, 4), GEN_P(3, 4), GEN_P(4), .attrs.reduction = {GEN_LOSS}),
  GEN2(poisson_nll_loss, GEN_F(2, 3), GEN_A(2, 3), .attrs.poisson_nll = {GEN_LOSS, .log_input = true, .full = true, .eps = 1e-8}), GEN2(poisson_nll_loss, GEN_P(2, 3), GEN_P(2, 3), .attrs.poisson_nll = {GEN_LOSS, .eps = 1e-3}),
  GEN3(gaussian_nll_loss, GEN_F(2, 3), GEN_F(2, 3), GEN_P(2, 3), .attrs.gaussian_nll = {GEN_LOSS, .full = true, .eps = 1e-6}), GEN3(gaussian_nll_loss, GEN_F(2, 3), GEN_F(2, 3), GEN_P(2), .attrs.gaussian_nll = {GEN_LOSS, .eps = 1e-6}),
  GEN2(l1_loss, GEN_F(2, 3), GEN_F(2, 3), .attrs.reduction = {GEN_LOSS}), GEN2(smooth_l1_loss, GEN_F(2, 3), GEN_F(2, 3), .attrs.smooth_l1 = {GEN_LOSS, .beta = 0.5}),
  GEN2(huber_loss, GEN_F(2, 3), GEN_F(2, 3), .attrs.huber = {GEN_LOSS, .delta = 0.7}),
  GEN3(binary_cross_entropy, GEN_Q(2, 3), GEN_P(2, 3), GEN_P(3), .attrs.reduction = {GEN_LOSS}),
  GEN4(binary_cross_entropy_with_logits, GEN_F(2, 3), GEN_P(2, 3), GEN_P(3), GEN_P(3), .attrs.reduction = {GEN_LOSS}), GEN2(binary_cross_entropy_with_logits, GEN_F(2, 3), GEN_P(2, 3), .attrs.reduction = {0}),
  GEN2(kl_div, GEN_F(2, 3), GEN_P(2, 3), .attrs.kl = {.reduction = KN_CHOICE_kl_reduction_batchmean}), GEN2(kl_div, GEN_F(2, 3), GEN_F(2, 3), .attrs.kl = {.reduction = 2, .log_target = true}),
  GEN2(cosine_similarity, GEN_F(2, 3), GEN_F(2, 3), .attrs.cosine = {.dim = 1, .eps = 1e-8}), GEN2(pairwise_distance, GEN_F(2, 3), GEN_F(2, 3), .attrs.pairwise = {.p = 2, .eps = 1e-6}),
  GEN3(cosine_embedding_loss, GEN_F(3, 4), GEN_F(3, 4), GEN_I(1, 3), .attrs.cosine_embedding = {GEN_LOSS}),
  GEN3(triplet_margin_loss, GEN_F(2, 3), GEN_F(2, 3), GEN_F(2, 3), .attrs.triplet = {GEN_LOSS, .margin = 3, .p = 2, .eps = 1e-6, .swap = true}),

  GEN_BINARY(clamp_min, GEN_F), GEN_BINARY(clamp_max, GEN_F), GEN_BINARY(fmax, GEN_F), GEN_BINARY(fmin, GEN_F),
  GEN2(heaviside, GEN_F(2, 3), GEN_F(3)), GEN1(signbit, GEN_F(2, 3), .flat = true), GEN2(copysign, GEN_N(2, 3), GEN_N(3)),
  GEN1(isposinf, GEN_F(2, 3), .flat = true), GEN1(isneginf, GEN_F(2, 3), .flat = true), GEN2(isclose, GEN_F(2, 3), GEN_F(3), .flat = true, .attrs.close = {.atol = 0.5}),
  GEN1(nan_to_num, GEN_F(2, 3), .attrs.nan_to_num = {.posinf = INFINITY, .neginf = -INFINITY}), GEN_UNARY(positive, GEN_F), GEN_UNARY(deg2rad, GEN_F), GEN_UNARY(rad2deg, GEN_F),
  GEN_UNARY(exp2, GEN_F), GEN_BINARY(ldexp, GEN_F), GEN2(float_power, GEN_P(2, 3), GEN_F(3)), GEN_BINARY(logaddexp2, GEN_F), GEN_UNARY(sinc, GEN_N),
  GEN_BINARY(hypot, GEN_N), GEN1(logit, GEN_Q(2, 3), .attrs.logit = {.eps = -1}), GEN1(logit, GEN_Q(2, 3), .attrs.logit = {.eps = 0.25}),
  GEN3(addcmul, GEN_F(2, 3), GEN_F(3), GEN_F(2, 1), .attrs.scaled = {.value = 0.5}), GEN3(addcdiv, GEN_F(2, 3), GEN_F(3), GEN_N(2, 1), .attrs.scaled = {.value = 2}),
  GEN_REDUCE(nansum), GEN_REDUCE(nanmean), GEN1(aminmax, GEN_F(2, 3), .attrs.argreduce = {.dim = KN_NONE}), GEN1(aminmax, GEN_F(2, 3), .attrs.argreduce = {.dim = -1, .keepdim = true}),
  GEN1(kthvalue, GEN_F(2, 4), .attrs.kth = {.k = 2, .dim = -1}), GEN1(kthvalue, GEN_F(4, 2), .attrs.kth = {.k = 3, .dim = 0, .keepdim = true}),
  GEN1(mode, GEN_F(2, 4), .attrs.last_reduce = {.dim = -1}), GEN1(mode, GEN_F(4, 2), .attrs.last_reduce = {.dim = 0, .keepdim = true}),
  GEN1(nanmedian, GEN_F(2, 3), .attrs.argreduce = {.dim = KN_NONE}), GEN1(nanmedian, GEN_F(2, 4), .attrs.argreduce = {.dim = 1, .keepdim = true}),
  GEN1(msort, GEN_F(4, 2)), GEN1(diff, GEN_F(2, 4), .attrs.diff = {.n = 2, .dim = -1}), GEN1(diff, GEN_F(3, 2), .attrs.diff = {.n = 1, .dim = 0}),
  GEN1(trapezoid, GEN_F(2, 4), .attrs.trapezoid = {.dx = 0.5, .dim = -1}), GEN2(trapezoid, GEN_F(3, 2), GEN_F(3), .attrs.trapezoid = {.dx = 1, .dim = 0}),
  GEN2(add_scaled, GEN_F(2, 3), GEN_F(3), .attrs.alpha = {.alpha = 2}), GEN2(sub_scaled, GEN_F(2, 1), GEN_F(3), .attrs.alpha = {.alpha = -3}),
  GEN2(div_rounded, GEN_N(2, 3), GEN_N(3)), GEN2(div_rounded, GEN_N(2, 3), GEN_N(3), .attrs.rounding = {.rounding_mode = KN_CHOICE_rounding_trunc}),
  GEN1(round_to, GEN_F(2, 3), .attrs.decimals = {.decimals = 1}), GEN3(clamp_between, GEN_F(3, 4), GEN_T(4), GEN_A(3, 1)),
  GEN2(clamp_between, GEN_F(2, 3), GEN_F(3)), GEN2(repeat_each, GEN_F(3, 2), GEN_I(3, 3), .attrs.optional_axis = {.dim = 0}),
  GEN3(scatter_number, GEN_F(3, 4), GEN_I(3, 2, 4), GEN_SCALAR, .attrs.axis = {.dim = 0}),
  GEN3(scatter_reduce, GEN_F(3, 2), GEN_I(3, 4, 2), GEN_F(4, 2), .attrs.scatter_reduce = {.dim = 0, .include_self = true}),
  GEN3(scatter_reduce, GEN_F(3, 2), GEN_I(3, 4, 2), GEN_F(4, 2), .attrs.scatter_reduce = {.dim = 0, .reduce = KN_CHOICE_scatter_reduction_amax}),
  GEN3(scatter_reduce, GEN_F(3, 2), GEN_I(3, 4, 1), GEN_F(4, 2), .attrs.scatter_reduce = {.dim = 0, .reduce = KN_CHOICE_scatter_reduction_prod}),
  GEN1(cummax, GEN_F(2, 5), .attrs.axis = {.dim = 1}), GEN1(cummin, GEN_F(5, 2), .attrs.axis = {.dim = 0}), GEN1(logcumsumexp, GEN_F(2, 5), .attrs.axis = {.dim = -1}),
  GEN2(tensordot, GEN_F(2, 3, 4), GEN_F(4, 3, 2), .attrs.tensordot = {.dims_self = GEN_DIMS(1, 2), .dims_other = GEN_DIMS(1, 0)}),
  GEN2(trapezoid, GEN_F(2, 4), GEN_F(2, 4), .attrs.trapezoid = {.dx = 1, .dim = 1}), GEN2(cumulative_trapezoid, GEN_F(3, 2), GEN_F(3), .attrs.trapezoid = {.dx = 1, .dim = 0}),
  GEN2(dist, GEN_F(2, 3), GEN_F(3), .attrs.power = {.p = 2}), GEN2(dist, GEN_F(2, 3), GEN_P(2, 3), .attrs.power = {.p = 3}),
  GEN1(renorm, GEN_F(3, 4), .attrs.renorm = {.p = 2, .dim = 0, .maxnorm = 2}), GEN1(cov, GEN_F(2, 5), .attrs.cov = {.correction = 1}), GEN1(corrcoef, GEN_F(2, 5)),
  GEN1(cov, GEN_F(5), .attrs.cov = {.correction = 0}),
  GEN_UNARY(atleast_1d, GEN_F), GEN_UNARY(atleast_2d, GEN_F), GEN_UNARY(atleast_3d, GEN_F), GEN2(hstack, GEN_F(2, 3), GEN_F(2, 1)), GEN2(hstack, GEN_F(2), GEN_F(3)),
  GEN2(vstack, GEN_F(2, 3), GEN_F(1, 3)), GEN2(vstack, GEN_F(3), GEN_F(3)), GEN2(dstack, GEN_F(2, 3), GEN_F(2, 3)), GEN2(column_stack, GEN_F(2), GEN_F(2, 3)),
  GEN3(block_diag, GEN_F(2, 3), GEN_F(2), GEN_F(1, 2)), GEN1(block_diag, GEN_F(2, 3)),
  GEN1(diag_embed, GEN_F(2, 3), .attrs.embed = {.offset = 1, .dim1 = -2, .dim2 = -1}), GEN1(diag_embed, GEN_F(2, 3), .attrs.embed = {.offset = -2, .dim1 = 0, .dim2 = 2}),
  GEN1(diagflat, GEN_F(2, 2), .attrs.offset = {.offset = -1}), GEN2(select_scatter, GEN_F(2, 3), GEN_F(2), .attrs.select = {.dim = 1, .index = 2}),
  GEN2(diagonal_scatter, GEN_F(3, 4), GEN_F(3), .attrs.diagonal_of = {.offset = 1, .dim2 = 1}), GEN1(fliplr, GEN_F(2, 3)), GEN1(flipud, GEN_F(2, 3)),
  GEN1(rot90, GEN_F(2, 3), .attrs.rot90 = {.k = 1}), GEN1(rot90, GEN_F(2, 3, 2), .attrs.rot90 = {.k = -1, .dims = GEN_DIMS(1, 2)}), GEN1(rot90, GEN_F(2, 3), .attrs.rot90 = {.k = 2}),
  GEN1(ravel, GEN_F(2, 3)), GEN1(unflatten, GEN_F(2, 6), .attrs.unflatten = {.dim = 1, .sizes = GEN_DIMS(2, -1)}),
  GEN2(take, GEN_F(2, 3), GEN_I(6, 2, 2)), GEN3(put, GEN_F(2, 3), GEN_U(6, 2), GEN_F(2)), GEN3(put, GEN_F(2, 3), GEN_I(6, 4), GEN_F(4), .attrs.index_put = {.accumulate = true}),
  GEN3(masked_scatter, GEN_F(2, 3), GEN_B(2, 3), GEN_F(6)), GEN3(index_fill, GEN_F(3, 2), GEN_I(3, 2), GEN_SCALAR, .attrs.axis = {.dim = 0}),
  GEN2(isin, GEN_F(2, 3), GEN_F(4), .flat = true), GEN2(bucketize, GEN_F(2, 3), GEN_F(4), .flat = true), GEN1(histc, GEN_F(7), .attrs.histc = {.bins = 4}, .flat = true),
  GEN1(unique_consecutive, GEN_F(5)),
  GEN2(inner, GEN_F(2, 3), GEN_F(4, 3)), GEN2(inner, GEN_F(3), GEN_F(2, 2, 3)), GEN2(inner, GEN_F(2, 3), GEN_F(3)),
#define GEN_SUM .attrs.addmm = {.beta = 0.5, .alpha = 2}
  GEN3(addmv, GEN_F(2), GEN_F(2, 3), GEN_F(3), GEN_SUM), GEN3(addr, GEN_F(2, 3), GEN_F(2), GEN_F(3), GEN_SUM),
  GEN3(baddbmm, GEN_F(2, 2, 2), GEN_F(2, 2, 3), GEN_F(2, 3, 2), GEN_SUM), GEN3(addbmm, GEN_F(2, 2), GEN_F(2, 2, 3), GEN_F(2, 3, 2), GEN_SUM),
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
  int64_t cols = in->rank > 1 ? in->dims[in->rank - 1] : 1, rows = in->rank > 1 ? in->dims[in->rank - 2] : 1;
  int64_t i = k / cols % rows, j = k % cols;
  if (in->kind == GEN_SYM && j > i) k += (j - i) * cols - (j - i); /* that of the element mirrored */
  double u = (double)((k * 37 + salt * 11 + 5) % 101) / 101 + 0.00093 * (salt + 1); /* in (0, 1) */
  switch (in->kind) {
  case GEN_ANY: return 4 * u - 2;
  case GEN_POS: return 0.5 + 1.5 * u;
  case GEN_UNIT: return 1.8 * u - 0.9;
  case GEN_PART: return 0.1 + 0.8 * u;
  case GEN_ABOVE: return 1.2 + 2 * u;
  case GEN_WELL: return 2 * u - 1 + (i == j ? 3 : 0);
  case GEN_SYM: return 2 * u - 1 + (i == j ? 3 + (double)i : 0);
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
