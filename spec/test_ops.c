/* The op sweep, driven by the op table: every row, primitive or composite, on generated inputs of each dtype,
 * contiguous and scattered, with sizes of zero and with sizes not known, and with each allocation failing in
 * turn. A row without a case fails. What the values must be is test_values.c's matter, but for two things
 * that hold for all: the layout of the inputs does not matter, and the result has the type that the rule
 * says. And two that hold for all dtypes: an op takes a kind of dtype (floats, integers, bool) as a whole
 * (but for halves, which linear algebra refuses, in words of its own), and what is computed in a narrow one
 * is what a wide one gives for the same numbers. */
#define _DEFAULT_SOURCE /* mmap's MAP_ANONYMOUS */
#include "core/infer.h"
#include "spec/fake_device.h"
#include "spec/gen.h"
#include "spec/scarce.h"
#include "spec/tensors.h"

/* ---- cases of the rows that have none in spec/gen.h: no gradient flows through them, or they are composites
 * ---- */

/* clang-format off */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
#define GEN0(name, ...) {.op = KN_OP_##name, .n = 0, __VA_ARGS__}
#define LOSS(name, fields) \
  GEN2(name, GEN_F(4, 3), GEN_I(3, 4), .attrs.fields = {.reduction = 1}), \
  GEN2(name, GEN_F(4, 3), GEN_I(3, 4), .attrs.fields = {.reduction = 0}), \
  {.op = KN_OP_##name, .n = 2, .in = {GEN_F(3), {.kind = GEN_INDEX, .limit = 3}}, .attrs.fields = {.reduction = 2}}
#define SPREAD(name) \
  GEN1(name, GEN_F(2, 3, 4), .attrs.correction = {.correction = 1}), \
  GEN1(name, GEN_F(2, 3, 4), .attrs.correction = {.dim = GEN_DIMS(-1, 0), .keepdim = true}), \
  GEN1(name, GEN_F(5), .attrs.correction = {.dim = GEN_DIMS(0), .correction = 5})
static const gen_case more_cases[] = {
  GEN_UNARY(sign, GEN_F), GEN_UNARY(floor, GEN_F), GEN_UNARY(ceil, GEN_F),
  GEN_UNARY(round, GEN_F), GEN_BINARY(eq, GEN_F), GEN_BINARY(ne, GEN_F), GEN_BINARY(lt, GEN_F),
  GEN_BINARY(le, GEN_F), GEN_BINARY(gt, GEN_F), GEN_BINARY(ge, GEN_F), GEN_BINARY(bitwise_and, GEN_F),
  GEN_BINARY(bitwise_or, GEN_F), GEN_BINARY(bitwise_xor, GEN_F), GEN_UNARY(bitwise_not, GEN_F),
  GEN_UNARY(isnan, GEN_F), GEN_REDUCE(all), GEN_REDUCE(any),
  GEN1(argmax, GEN_F(2, 3, 4), .attrs.argreduce = {.dim = KN_NONE}),
  GEN1(argmax, GEN_F(2, 3, 4), .attrs.argreduce = {.dim = -2, .keepdim = true}),
  GEN1(argmin, GEN_F(2, 3, 4), .attrs.argreduce = {.dim = KN_NONE, .keepdim = true}),
  GEN1(argmin, GEN_F(2, 3), .attrs.argreduce = {.dim = 0}), GEN1(argmin, GEN_SCALAR, .attrs.argreduce = {.dim = 0}),
  GEN1(max_pool2d_indices, GEN_F(1, 2, 4, 5), GEN_POOL(.padding = GEN_DIMS(1))), GEN1(max_pool2d_indices, GEN_F(2, 5, 5), GEN_POOL(.ceil_mode = true, .dilation = GEN_DIMS(2, 1))),
  GEN6(fused_attention_grad, GEN_F(2, 2, 3, 2), GEN_F(2, 2, 4, 2), GEN_F(2, 2, 4, 3), GEN_F(2, 2, 3, 3), GEN_F(2, 2, 3), GEN_F(2, 2, 3, 3), .attrs.fused_attention = {.scale = -1}),
  GEN7(fused_attention_grad, GEN_F(1, 4, 3, 2), GEN_F(1, 2, 3, 2), GEN_F(1, 2, 3, 2), GEN_F(1, 4, 3, 2), GEN_F(1, 4, 3), GEN_F(1, 4, 3, 2), GEN_F(1, 1, 3, 3), .attrs.fused_attention = {.scale = -1}),
  GEN6(lstm_layer_grad, GEN_F(3, 2, 8), GEN_F(3, 2, 2), GEN_F(8, 2), GEN_F(2, 2), GEN_F(3, 2, 2), GEN_F(3, 2, 2)),
  GEN7(lstm_layer_grad, GEN_F(2, 1, 4), GEN_F(2, 1, 1), GEN_F(4, 1), GEN_F(1, 1), GEN_F(2, 1, 1), GEN_F(2, 1, 1), GEN_F(2, 1, 4), .attrs.direction = {.reverse = true}),
  GEN5(gru_layer_grad, GEN_F(3, 2, 8), GEN_F(3, 2, 2), GEN_F(6, 2), GEN_F(2, 2), GEN_F(3, 2, 2)),
  GEN6(gru_layer_grad, GEN_F(2, 1, 4), GEN_F(2, 1, 1), GEN_F(3, 1), GEN_F(1, 1), GEN_F(2, 1, 1), GEN_F(2, 1, 4), .attrs.direction = {.reverse = true}),
  GEN3(rnn_layer_grad, GEN_F(3, 2, 2), GEN_F(2, 2), GEN_F(3, 2, 2)), GEN3(rnn_layer_grad, GEN_F(3, 1, 2), GEN_F(2, 2), GEN_F(3, 1, 2), .attrs.rnn_direction = {.nonlinearity = 1, .reverse = true}),
  GEN_UNARY(trunc, GEN_F), GEN_BINARY(bitwise_left_shift, GEN_F), GEN_BINARY(bitwise_right_shift, GEN_F),
  GEN1(unique, GEN_I(3, 2, 3)), GEN1(unique, GEN_F(5)), GEN1(unique, GEN_SCALAR),
  GEN2(searchsorted, GEN_F(5), GEN_F(2, 3)), GEN2(searchsorted, GEN_F(2, 4), GEN_F(2, 3), .attrs.searchsorted = {.right = true}), GEN2(searchsorted, GEN_F(5), GEN_SCALAR),
  GEN1(bincount, GEN_I(4, 6), .attrs.bincount = {.minlength = 6}), GEN2(bincount, GEN_I(4, 6), GEN_F(6)),
  GEN1(one_hot, GEN_I(4, 5), .attrs.one_hot = {.num_classes = KN_NONE}),
  GEN5(batch_norm, GEN_F(3, 2, 2), GEN_F(2), GEN_P(2), GEN_F(2), GEN_F(2), .attrs.batch_norm = {.training = true, .momentum = 0.1, .eps = 1e-2}),
  GEN5(instance_norm, GEN_F(2, 2, 4), GEN_F(2), GEN_P(2), GEN_F(2), GEN_F(2), .attrs.instance_norm = {.use_input_stats = true, .momentum = 0.1, .eps = 1e-2}),
  GEN1(nonzero, GEN_B(2, 3)), GEN1(nonzero, GEN_F(4)), GEN1(nonzero, GEN_SCALAR), GEN1(nonzero, GEN_B(2, 3, 2)),
  GEN0(full, .attrs.fill = {.sizes = GEN_DIMS(2, 3), .value = 1.5, .dtype = KN_F32}),
  GEN0(full, .attrs.fill = {.value = -1, .dtype = KN_I64}),
  GEN0(full, .attrs.fill = {.sizes = GEN_DIMS(600), .value = 200, .dtype = KN_U8}),
  GEN0(full, .attrs.fill = {.sizes = GEN_DIMS(3), .value = 0.1, .dtype = KN_F16}),
  GEN_UNARY(full_like, GEN_F), GEN1(full_like, GEN_F(2, 3), .attrs.value = {.value = -2}),
  GEN0(arange, .attrs.range = {.start = 1, .end = 4, .step = 0.5, .dtype = KN_F64}),
  GEN0(arange, .attrs.range = {.start = 5, .end = 0, .step = -2, .dtype = KN_I64}),
  GEN0(linspace, .attrs.linspace = {.start = -1, .end = 1, .steps = 5, .dtype = KN_F32}),
  GEN0(eye, .attrs.eye = {.n = 2, .m = KN_NONE, .dtype = KN_BOOL}), GEN0(eye, .attrs.eye = {.n = 2, .m = 3, .dtype = KN_F32}),
  GEN0(rand, .attrs.create = {.sizes = GEN_DIMS(2, 3), .dtype = KN_F32}),
  GEN0(rand, .attrs.create = {.sizes = GEN_DIMS(5), .dtype = KN_F64}),
  GEN0(rand, .attrs.create = {.sizes = GEN_DIMS(5), .dtype = KN_BF16}),
  GEN0(randn, .attrs.create = {.sizes = GEN_DIMS(2, 3), .dtype = KN_F32}),
  GEN0(randn, .attrs.create = {.sizes = GEN_DIMS(5), .dtype = KN_F64}),
  GEN0(randn, .attrs.create = {.sizes = GEN_DIMS(5), .dtype = KN_F16}),
  GEN0(randint, .attrs.randint = {.low = -3, .high = 7, .sizes = GEN_DIMS(3, 3), .dtype = KN_I64}),
  GEN0(randint, .attrs.randint = {.low = 0, .high = 2, .sizes = GEN_DIMS(4), .dtype = KN_BOOL}),
  GEN0(tril_indices, .attrs.triangle_indices = {.row = 3, .col = 4, .offset = 1}), GEN0(triu_indices, .attrs.triangle_indices = {.row = 2, .col = 3}),
  GEN0(logspace, .attrs.logspace = {.start = 0, .end = 3, .steps = 4, .base = 2, .dtype = KN_F32}),
  GEN0(randperm, .attrs.randperm = {.n = 7}), GEN0(fork_random), GEN1(join_random, GEN_I(5, 2)), GEN1(bernoulli, GEN_P(3, 4)),

  GEN1(cholesky, GEN_S(2, 3, 3)), GEN1(eigh, GEN_S(2, 4, 4)), GEN1(qr, GEN_F(4, 2), .attrs.qr = {.mode = KN_CHOICE_qr_mode_complete}), GEN1(qr, GEN_F(2, 4, 2), .attrs.qr = {.mode = KN_CHOICE_qr_mode_r}),
  GEN1(svd, GEN_F(4, 2), .attrs.svd = {.full_matrices = true}), GEN1(svd, GEN_F(2, 2, 4), .attrs.svd = {.full_matrices = true}),
  GEN1(inv, GEN_W(2, 5, 5)), GEN1(det, GEN_F(2, 2, 4, 4)),

  GEN2(standard_gamma_grad, GEN_P(2, 3), GEN_P(3)), GEN1(poisson, GEN_P(3, 4)), GEN2(binomial, GEN_P(3, 1), GEN_Q(4)), GEN1(standard_gamma, GEN_P(2, 3)),
  GEN1(multinomial, GEN_P(4), .attrs.multinomial = {.num_samples = 3}), GEN1(multinomial, GEN_P(2, 3), .attrs.multinomial = {.num_samples = 5, .replacement = true}),
  GEN2(normal, GEN_F(2, 3), GEN_P(3)), GEN1(uniform_, GEN_F(2, 3), .attrs.uniform = {.from = -1, .to = 2}), GEN1(normal_, GEN_F(2, 3), .attrs.normal = {.mean = 1, .std = 2}),
  GEN1(log_normal_, GEN_F(2, 3), .attrs.log_normal = {.mean = 0, .std = 0.5}), GEN1(exponential_, GEN_F(2, 3), .attrs.exponential = {.lambd = 2}),
  GEN1(cauchy_, GEN_F(2, 3), .attrs.cauchy = {.median = 1, .sigma = 2}), GEN1(geometric_, GEN_F(2, 3), .attrs.probability = {.p = 0.4}),
  GEN1(bernoulli_, GEN_F(2, 3), .attrs.bernoulli = {.p = 0.5}), GEN2(bernoulli_, GEN_F(2, 3), GEN_Q(3)),
  GEN1(random_, GEN_F(2, 3), .attrs.bounds = {.from = 3, .to = 9}), GEN1(random_, GEN_F(2, 3), .attrs.bounds = {.from = 5, .to = KN_NONE}),

  GEN0(zeros, .attrs.create = {.sizes = GEN_DIMS(2, 3), .dtype = KN_F32}),
  GEN0(ones, .attrs.create = {.sizes = GEN_DIMS(2), .dtype = KN_I64}),
  GEN_UNARY(zeros_like, GEN_F), GEN_UNARY(ones_like, GEN_F),
  GEN1(view, GEN_F(4), .attrs.sizes = {.sizes = GEN_DIMS(2, -1)}),
  GEN1(view, GEN_F(2, 3), .attrs.sizes = {.sizes = GEN_DIMS(2, 1, 3)}),
  GEN1(flatten, GEN_F(2, 3, 4), .attrs.flatten = {.start_dim = 1, .end_dim = -1}),
  GEN1(flatten, GEN_F(2, 3, 4), .attrs.flatten = {.start_dim = 0, .end_dim = 1}),
  GEN1(flatten, GEN_SCALAR, .attrs.flatten = {.start_dim = 0, .end_dim = -1}),
  GEN1(narrow, GEN_F(2, 5), .attrs.narrow = {.dim = 1, .start = 1, .length = 3}),
  GEN1(narrow, GEN_F(5), .attrs.narrow = {.dim = -1, .start = -2, .length = 2}),
  GEN_UNARY(square, GEN_F), GEN_UNARY(reciprocal, GEN_N), GEN_UNARY(silu, GEN_F),
  GEN_UNARY(logical_not, GEN_F), GEN_BINARY(logical_and, GEN_F),
  GEN_BINARY(logical_or, GEN_F),
  GEN2(masked_select, GEN_F(2, 3), GEN_B(2, 3)), GEN2(masked_select, GEN_F(2, 1), GEN_B(3)),
  SPREAD(var), SPREAD(std), GEN1(norm, GEN_SCALAR, .attrs.norm = {.p = 2}),
  GEN2(linear, GEN_F(2, 3), GEN_F(4, 3)), GEN3(linear, GEN_F(2, 5, 3), GEN_F(4, 3), GEN_F(4)),
  GEN3(linear, GEN_F(3), GEN_F(4, 3), GEN_F(4)),
  GEN2(embedding, GEN_F(4, 3), GEN_I(4, 5)), GEN2(embedding, GEN_F(4, 3), GEN_I(4, 2, 2)),
  {.op = KN_OP_embedding, .n = 2, .in = {GEN_F(4, 3), {.kind = GEN_INDEX, .limit = 4}}},
  GEN1(dropout, GEN_F(4, 5), .attrs.dropout = {.p = 0.5, .training = true}),
  GEN1(dropout, GEN_F(4, 5), .attrs.dropout = {.p = 1, .training = true}),
  GEN1(dropout, GEN_F(4, 5), .attrs.dropout = {.p = 0.5, .training = false}),
  GEN1(feature_dropout, GEN_F(4, 5, 2), .attrs.dropout = {.p = 0.5, .training = true}), GEN1(alpha_dropout, GEN_F(4, 5), .attrs.dropout = {.p = 0.5, .training = true}),
  GEN1(feature_alpha_dropout, GEN_F(4, 5, 2), .attrs.dropout = {.p = 0.5, .training = true}),
  GEN1(gumbel_softmax, GEN_F(4, 5), .attrs.gumbel = {.tau = 0.7, .dim = -1}), GEN1(gumbel_softmax, GEN_F(4, 5), .attrs.gumbel = {.tau = 1, .hard = true, .dim = 0}),
  LOSS(nll_loss, nll), LOSS(cross_entropy, cross_entropy),
  GEN2(mse_loss, GEN_F(4, 3), GEN_F(4, 3), .attrs.reduction = {.reduction = 1}),
  GEN2(mse_loss, GEN_F(4, 3), GEN_F(4, 3), .attrs.reduction = {.reduction = 2}),
};
#pragma GCC diagnostic pop
/* clang-format on */

enum { MORE_CASES = sizeof more_cases / sizeof more_cases[0], LISTED = GEN_CASES + MORE_CASES };
enum { CASES = LISTED + KN_OP_COUNT }; /* after the listed ones, one for each row that is not listed */

static const gen_case *listed(int i) { return i < GEN_CASES ? &gen_cases[i] : &more_cases[i - GEN_CASES]; }

static bool is_listed(kn_op op) {
  for (int i = 0; i < LISTED; i++)
    if (listed(i)->op == op) return true;
  return false;
}

/* NULL: the row is listed, or nothing can be generated for it. */
static const gen_case *case_at(int i, gen_case *made) {
  if (i < LISTED) return listed(i);
  kn_op op = (kn_op)(i - LISTED);
  return !is_listed(op) && gen_default(op, made) ? made : NULL;
}

/* For each case c. */
#define EACH_CASE(c)                                                                                         \
  for (int i = 0; i < CASES; i++)                                                                            \
    for (gen_case made_, *once_ = &made_; once_; once_ = NULL)                                               \
      for (const gen_case *c = case_at(i, &made_); c; c = NULL)

/* ---- inputs ---- */

/* The dtypes that the generated floats of a case are given, input by input (the last one repeats): each dtype
 * by itself, and some side by side. */
static const kn_dtype mixed[][2] = {{KN_F32, KN_F64},  {KN_I64, KN_F32}, {KN_F64, KN_BOOL}, {KN_U8, KN_I8},
                                    {KN_F16, KN_BF16}, {KN_I32, KN_F16}, {KN_U8, KN_I64}};
enum { SAME = KN_DTYPE_COUNT, MIXES = SAME + sizeof mixed / sizeof mixed[0] };

static kn_dtype dtype_of(const gen_case *c, int i, int mix) {
  const gen_in *in = &c->in[i];
  if (!gen_is_float(in)) return in->kind == GEN_BOOL ? KN_BOOL : KN_I64;
  return mix < SAME ? (kn_dtype)mix : mixed[mix - SAME][i > 0];
}

/* Whole numbers but 0 for integers, for uint8 positive ones. */
static double value_of(const gen_case *c, int i, int mix, int64_t k) {
  double x = gen_value(&c->in[i], k, i);
  kn_dtype d = dtype_of(c, i, mix);
  if (!gen_is_float(&c->in[i]) || kn_dtypes[d].category != KN_CAT_INT) return x;
  x = floor(3 * x);
  return x == 0 ? 1 : d == KN_U8 ? fabs(x) : x;
}

/* Contiguous; or scattered: dims in reverse order, every other element, not at the start. */
static kn_tensor *input(kn_context *ctx, const gen_case *c, int i, int mix, bool scattered) {
  const gen_in *in = &c->in[i];
  kn_type type = {.dtype = (uint8_t)dtype_of(c, i, mix), .rank = (uint8_t)in->rank};
  memcpy(type.dims, in->dims, sizeof type.dims);
  kn_tensor *t;
  if (scattered) {
    kn_type block = type_of((kn_dtype)type.dtype, DIMS(3 + 2 * kn_type_numel(&type)));
    int64_t step = 2;
    OK(ctx, kn_tensor_new(ctx, &block, &t));
    memset(t->storage->data, 1, t->storage->bytes);
    t->type = type;
    t->offset = 3;
    for (int d = 0; d < in->rank; d++) {
      t->strides[d] = step;
      step *= in->dims[d];
    }
  } else
    OK(ctx, kn_tensor_new(ctx, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) set_element(t, k, value_of(c, i, mix, k));
  return t;
}

static void inputs(kn_context *ctx, const gen_case *c, int mix, bool scattered, kn_tensor **in) {
  for (int i = 0; i < c->n; i++) in[i] = input(ctx, c, i, mix, scattered);
}

static void release(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

static void check_unchanged(const gen_case *c, int mix, kn_tensor *const *in, bool written) {
  if (written && (c->op == KN_OP_batch_norm || c->op == KN_OP_instance_norm))
    return; /* running values follow */
  for (int i = written && (kn_ops[c->op].flags & KN_FLAG_WRITES); i < c->n; i++)
    for (int64_t k = 0; k < kn_tensor_numel(in[i]); k++) {
      kn_dtype d = kn_tensor_dtype(in[i]);
      char held[8];
      kn_element_put_float(d, held, value_of(c, i, mix, k));
      double x = kn_element_float(d, held);
      ck_assert_msg(element(in[i], k) == x, "%s: input %d was changed", kn_op_name(c->op), i + 1);
    }
}

static const void *attrs_of(const gen_case *c) {
  return kn_ops[c->op].attrs == KN_ATTRS_none ? NULL : &c->attrs;
}

static kn_status apply(kn_context *ctx, const gen_case *c, kn_tensor *const *in, kn_tensor **out) {
  kn_tensor *all[KN_MAX_OUTPUTS];
  kn_random_seed(&ctx->random, 7);
  KN_TRY(kn_apply(ctx, c->op, attrs_of(c), in, c->n, all));
  for (int i = 1; i < kn_ops[c->op].outs; i++) kn_tensor_release(all[i]);
  *out = all[0];
  return KN_OK;
}

/* ---- what the rule says ---- */

static void types_of(const gen_case *c, int mix, kn_type *types) {
  for (int i = 0; i < c->n; i++) {
    types[i] = (kn_type){.dtype = (uint8_t)dtype_of(c, i, mix), .rank = (uint8_t)c->in[i].rank};
    memcpy(types[i].dims, c->in[i].dims, sizeof types[i].dims);
  }
}

static kn_status infer(kn_context *ctx, const gen_case *c, int mix, kn_type *out) {
  kn_type types[GEN_MAX_IN];
  types_of(c, mix, types);
  return kn_infer_types(ctx, c->op, attrs_of(c), types, c->n, out);
}

/* Whether `loose`, where sizes may be unknown, agrees with `t`. */
static bool agrees(const kn_type *loose, const kn_type *t) {
  bool same = loose->dtype == t->dtype && loose->rank == t->rank;
  for (int d = 0; same && d < t->rank; d++) same = kn_dim_may_equal(loose->dims[d], t->dims[d]);
  return same;
}

static void check_type(const gen_case *c, const kn_type *loose, const kn_type *t) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  ck_assert_msg(agrees(loose, t), "%s: the rule says %s, the result is %s", kn_op_name(c->op),
                kn_type_text(loose, a, sizeof a), kn_type_text(t, b, sizeof b));
}

/* What the order of a sum may change. */
static double rounding(kn_dtype d) {
  return d == KN_F64 ? 1e-13 : d == KN_F16 ? 2e-3 : d == KN_BF16 ? 1.6e-2 : 1e-5;
}

/* ---- the sweeps ---- */

START_TEST(every_row_has_a_case) {
  gen_case made;
  for (int op = 0; op < KN_OP_COUNT; op++)
    ck_assert_msg(is_listed((kn_op)op) || gen_default((kn_op)op, &made) || kn_op_is_host((kn_op)op),
                  "%s: no case in spec/gen.h or spec/test_ops.c", kn_op_name((kn_op)op));
}

/* Runs when the rule allows, refuses with the rule's status when not; says whether it ran. */
static bool run_both_layouts(kn_context *ctx, const gen_case *c, int mix) {
  kn_tensor *in[GEN_MAX_IN] = {NULL}, *near_result, *far_result = NULL;
  kn_type said[KN_MAX_OUTPUTS];
  bool primitive = kn_ops[c->op].infer != NULL;
  kn_status rule = primitive ? infer(ctx, c, mix, said) : KN_OK;
  inputs(ctx, c, mix, false, in);
  kn_status st = apply(ctx, c, in, &near_result);
  if (primitive && rule != KN_OK) ck_assert_int_eq(st, rule);
  if (primitive && rule == KN_OK)
    ck_assert_msg(st == KN_OK || (st == KN_INDEX && kn_ops[c->op].flags & KN_FLAG_RAISES), "%s",
                  kn_error(ctx));
  if (st == KN_OK && primitive) check_type(c, &said[0], &near_result->type);
  check_unchanged(c, mix, in, st == KN_OK);
  release(in, c->n);
  if (st != KN_OK) {
    ck_assert_msg(strstr(kn_error(ctx), kn_op_name(c->op)) == kn_error(ctx), "%s", kn_error(ctx));
    return false;
  }
  inputs(ctx, c, mix, true, in);
  OK(ctx, apply(ctx, c, in, &far_result));
  ck_assert_msg(kn_type_equal(&near_result->type, &far_result->type), "%s", kn_op_name(c->op));
  double tolerance = rounding(kn_tensor_dtype(far_result));
  for (int64_t k = 0; k < kn_tensor_numel(near_result); k++)
    ck_assert_msg(near(element(near_result, k), element(far_result, k), tolerance),
                  "%s: element %d is %.9g, but %.9g for scattered inputs", kn_op_name(c->op), (int)k + 1,
                  element(near_result, k), element(far_result, k));
  check_unchanged(c, mix, in, true);
  release(in, c->n);
  kn_tensor_release(near_result);
  kn_tensor_release(far_result);
  return true;
}

/* view is the one op that asks for a layout: refusing a scattered input is right for it. */
static bool asks_layout(const gen_case *c) { return c->op == KN_OP_view && c->in[0].rank > 1; }

START_TEST(dtypes_and_layouts) {
  EACH_CASE(c) {
    if (asks_layout(c)) continue;
    kn_context *ctx = suite_context();
    bool ran = false;
    for (int mix = 0; mix < MIXES; mix++)
      if (mix < SAME || c->n > 1) ran |= run_both_layouts(ctx, c, mix);
    ck_assert_msg(ran, "%s: case %d runs for no dtype: %s", kn_op_name(c->op), i, kn_error(ctx));
    suite_done(ctx);
  }
}

/* ---- kinds of dtypes, narrow and wide ones ---- */

START_TEST(kinds_of_dtypes) {
  EACH_CASE(c) {
    if (c->n == 0) continue;
    kn_context *ctx = suite_context();
    int refused[3] = {-1, -1, -1};
    for (int d = 0; d < SAME; d++) {
      kn_tensor *in[GEN_MAX_IN], *out = NULL;
      inputs(ctx, c, d, false, in);
      bool half = kn_dtypes[d].wide != (kn_dtype)d && kn_dtypes[d].category == KN_CAT_FLOAT;
      int *kind = &refused[kn_dtypes[d].category], now = apply(ctx, c, in, &out) == KN_DTYPE;
      bool digits = now && half && strstr(kn_error(ctx), "float32 or float64 is needed");
      ck_assert_msg(digits || *kind < 0 || *kind == now, "%s: %s is %s, others of its kind are not",
                    kn_op_name(c->op), kn_dtypes[d].name, now ? "refused" : "taken");
      if (!digits) *kind = now;
      release(in, c->n);
      kn_tensor_release(out);
    }
    suite_done(ctx);
  }
}

/* The inputs of a case in dtype d, and the same numbers as int64 or float32. */
static void twins(kn_context *ctx, const gen_case *c, kn_dtype d, kn_tensor **narrow, kn_tensor **wide) {
  inputs(ctx, c, d, false, narrow);
  for (int i = 0; i < c->n; i++) {
    kn_attrs_cast to = {.dtype = kn_dtypes[kn_tensor_dtype(narrow[i])].wide};
    OK(ctx, kn_apply(ctx, KN_OP_cast, &to, &narrow[i], 1, &wide[i]));
  }
}

/* Integers must be those of int64, wrapped around; halves within some roundings of float32. */
static void check_twin(const gen_case *c, kn_dtype d, const kn_tensor *got, const kn_tensor *want) {
  kn_dtype of = kn_tensor_dtype(got);
  bool floats = kn_dtype_is_float(of);
  double tolerance = kn_dtype_is_float(d) ? 4 * rounding(d) : 0;
  ck_assert_msg(kn_dtypes[of].wide == kn_tensor_dtype(want), "%s of %s is %s", kn_op_name(c->op),
                kn_dtypes[d].name, kn_dtype_name(of));
  for (int64_t k = 0; k < kn_tensor_numel(want); k++) {
    char held[8];
    double a = element(got, k), b = element(want, k);
    if (!floats) {
      kn_element_put_int(of, held, kn_element_int(kn_tensor_dtype(want), element_at(want, k)));
      b = kn_element_float(of, held);
    }
    ck_assert_msg(near(a, b, tolerance), "%s of %s: element %d is %.9g instead of %.9g", kn_op_name(c->op),
                  kn_dtypes[d].name, (int)k + 1, a, b);
  }
}

START_TEST(narrow_dtypes_give_what_wide_ones_do) {
  EACH_CASE(c) {
    if (c->n == 0) continue;
    kn_context *ctx = suite_context();
    for (int d = 0; d < SAME; d++) {
      kn_tensor *narrow[GEN_MAX_IN], *wide[GEN_MAX_IN], *got = NULL, *want = NULL;
      if (kn_dtypes[d].wide == (kn_dtype)d) continue;
      twins(ctx, c, (kn_dtype)d, narrow, wide);
      kn_status st = apply(ctx, c, narrow, &got);
      if (st == KN_OK) {
        OK(ctx, apply(ctx, c, wide, &want));
        if (c->op != KN_OP_cast) check_twin(c, (kn_dtype)d, got, want);
      }
      release(narrow, c->n), release(wide, c->n);
      kn_tensor_release(got), kn_tensor_release(want);
    }
    suite_done(ctx);
  }
}

/* All dtypes when KILN_SWEEP is "whole"; else one of each sort of number. */
static bool is_starved(int mix) {
  const char *sweep = getenv("KILN_SWEEP");
  return (sweep && !strcmp(sweep, "whole")) || mix == KN_F32 || mix == KN_F16 || mix == KN_I64 ||
         mix == KN_BOOL || mix == SAME;
}

/* ---- on a device whose memory the host cannot read ---- */

static kn_tensor *moved(kn_context *ctx, kn_tensor *t, kn_device_id d) {
  const kn_attrs_device to = {.device = (int32_t)d};
  kn_tensor *there;
  OK(ctx, kn_apply(ctx, KN_OP_to_device, &to, &t, 1, &there));
  return there;
}

/* What makes a tensor from nothing makes it on the device. */
static gen_case case_on_device(const gen_case *c) {
  gen_case on = *c;
  for (const kn_field *f = kn_attrs_describe(kn_ops[c->op].attrs).fields; f->name; f++)
    if (!strcmp(f->name, "device")) *(int32_t *)kn_field_at(&on.attrs, f) = KN_CUDA;
  return on;
}

/* All results of the case, given on the host. In what layout they lie there does not matter. */
static kn_status apply_all(kn_context *ctx, const gen_case *c, kn_tensor *const *in, int mix,
                           kn_device_id device, kn_tensor **out) {
  kn_tensor *made[KN_MAX_OUTPUTS];
  kn_random_seed(&ctx->random, 7);
  KN_TRY(kn_apply(ctx, c->op, attrs_of(c), in, c->n, made));
  for (int i = 0; i < kn_ops[c->op].outs; i++) {
    ck_assert_msg(made[i]->type.device == device || c->op == KN_OP_to_device || c->op == KN_OP_fork_random,
                  "%s, dtypes %d: the result is elsewhere", kn_op_name(c->op), mix);
    out[i] = made[i]->type.device == KN_CPU ? kn_tensor_retain(made[i]) : moved(ctx, made[i], KN_CPU);
    kn_tensor_release(made[i]);
  }
  return KN_OK;
}

static void check_same(const gen_case *c, const kn_tensor *want, const kn_tensor *got) {
  ck_assert_msg(kn_type_equal(&want->type, &got->type), "%s: another type on the device", kn_op_name(c->op));
  for (int64_t k = 0; k < kn_tensor_numel(want); k++)
    ck_assert_msg(!memcmp(element_at(want, k), element_at(got, k), kn_dtype_size(kn_tensor_dtype(want))),
                  "%s: element %d is %.9g, on the device %.9g", kn_op_name(c->op), (int)k + 1,
                  element(want, k), element(got, k));
}

/* With `numbers`, inputs of no dims stay on the host, where the op takes plain numbers and has others. */
static bool stays(const gen_case *c, int i, bool numbers) {
  bool others = false;
  for (int k = 0; k < c->n; k++) others |= c->in[k].rank > 0;
  return numbers && others && c->in[i].rank == 0 && kn_ops[c->op].flags & KN_FLAG_SCALARS;
}

static void run_on_device(kn_context *ctx, const gen_case *c, int mix, bool scattered, bool numbers) {
  kn_tensor *in[GEN_MAX_IN], *there[GEN_MAX_IN], *want[KN_MAX_OUTPUTS], *got[KN_MAX_OUTPUTS];
  const gen_case on = case_on_device(c);
  char said[KN_ERROR_SIZE];
  inputs(ctx, c, mix, scattered, in);
  for (int i = 0; i < c->n; i++)
    there[i] = stays(c, i, numbers) ? kn_tensor_retain(in[i]) : moved(ctx, in[i], KN_CUDA);
  kn_status st = apply_all(ctx, c, in, mix, KN_CPU, want);
  memcpy(said, kn_error(ctx), sizeof said);
  kn_status st_there = apply_all(ctx, &on, there, mix, KN_CUDA, got);
  ck_assert_msg(st == st_there, "%s: \"%s\" on the device, \"%s\" on the CPU", kn_op_name(c->op),
                st_there ? kn_error(ctx) : "done", st ? said : "done");
  for (int i = 0; st == KN_OK && i < kn_ops[c->op].outs; i++) {
    check_same(c, want[i], got[i]);
    kn_tensor_release(want[i]), kn_tensor_release(got[i]);
  }
  release(in, c->n), release(there, c->n);
}

/* The same to the bit, as the same kernels compute it: the host has looked at nothing that it must not. */
START_TEST(on_a_device) {
  EACH_CASE(c) {
    kn_context *ctx = suite_context();
    fake_device f;
    fake_device_open(&f, ctx);
    for (int mix = 0; mix < MIXES; mix++)
      if (is_starved(mix) && (mix < SAME || c->n > 1)) run_on_device(ctx, c, mix, false, false);
    if (!asks_layout(c)) run_on_device(ctx, c, KN_F32, true, false);
    run_on_device(ctx, c, KN_F32, false, true);
    fake_device_close(&f);
    suite_done(ctx);
  }
}

/* All sizes of `size` made zero, in every input. */
START_TEST(zero_sizes) {
  EACH_CASE(full) {
    kn_context *ctx = suite_context();
    for (int64_t size = 1; size <= 6; size++) {
      gen_case c = *full;
      bool found = false;
      for (int k = 0; k < c.n; k++)
        for (int d = 0; d < c.in[k].rank; d++)
          if (c.in[k].dims[d] == size) c.in[k].dims[d] = 0, found = true;
      if (found && !asks_layout(&c))
        for (int mix = 0; mix < SAME; mix++) run_both_layouts(ctx, &c, mix);
    }
    suite_done(ctx);
  }
}

/* With some sizes not known, the rule still answers, and what it says is not wrong. */
static void infer_loose(kn_context *ctx, const gen_case *c, const kn_type *types, const void *attrs,
                        const kn_type *exact) {
  kn_type loose[KN_MAX_OUTPUTS];
  kn_status st = kn_infer_types(ctx, c->op, attrs, types, c->n, loose);
  if (c->op == KN_OP_squeeze && st == KN_SHAPE && strstr(kn_error(ctx), "not known here")) return;
  ck_assert_msg(st == KN_OK, "with unknown sizes: %s", kn_error(ctx));
  check_type(c, &loose[0], exact);
}

typedef struct placeholder {
  int at, which;
} placeholder;

static void put_placeholder(void *ud, int64_t *v) {
  placeholder *p = ud;
  if (p->at++ == p->which) *v = KN_DYN(1);
}

START_TEST(unknown_sizes) {
  EACH_CASE(c) {
    const kn_op_info *row = &kn_ops[c->op];
    if (!row->infer) continue;
    kn_context *ctx = suite_context();
    for (int mix = 0; mix < MIXES; mix++) {
      kn_type exact[KN_MAX_OUTPUTS], types[GEN_MAX_IN], all[GEN_MAX_IN], named[GEN_MAX_IN];
      if (infer(ctx, c, mix, exact) != KN_OK) continue;
      types_of(c, mix, types);
      memcpy(all, types, sizeof all);
      memcpy(named, types, sizeof named);
      for (int k = 0; k < c->n; k++)
        for (int d = 0; d < types[k].rank; d++) {
          int64_t size = types[k].dims[d];
          types[k].dims[d] = KN_DIM_UNKNOWN;
          if (size != 1) infer_loose(ctx, c, types, attrs_of(c), exact); /* a 1 that is needed must be said */
          types[k].dims[d] = size;
          if (size != 1) all[k].dims[d] = KN_DIM_UNKNOWN, named[k].dims[d] = KN_DIM_SYMBOL(size);
        }
      infer_loose(ctx, c, all, attrs_of(c), exact);
      infer_loose(ctx, c, named, attrs_of(c), exact);
      for (int which = 0; row->attrs != KN_ATTRS_none; which++) {
        kn_attrs_any attrs = c->attrs;
        placeholder p = {0, which};
        kn_attrs_each_int(row->attrs, &attrs, put_placeholder, &p);
        if (p.at <= which) break;
        infer_loose(ctx, c, types, &attrs, exact);
        infer_loose(ctx, c, all, &attrs, exact);
      }
    }
    suite_done(ctx);
  }
}

/* ---- out of memory ---- */

/* The op with allocation 1, 2, 3 … failing, that one alone or all from there on, until it succeeds. What
 * happens with a tape, walking back and in place is in test_scarce.c. */
static void starve(const gen_case *c, int mix, bool scattered, bool once) {
  scarce memory = {.left = -1};
  kn_heap *heap = kn_heap_new(scarce_alloc, &memory, 0);
  kn_context *ctx = kn_context_new(heap, NULL);
  kn_tensor *in[GEN_MAX_IN], *out = NULL;
  inputs(ctx, c, mix, scattered, in);
  bool refused = true;
  for (int n = 0; refused; n++) {
    uint64_t before = kn_heap_read_stats(heap).blocks;
    scarce_begin(&memory, n, once);
    kn_status st = apply(ctx, c, in, &out);
    refused = scarce_end(&memory);
    if (st != KN_OK) {
      ck_assert_msg(st == KN_NOMEM && refused, "%s: \"%s\" instead of out of memory: %s", kn_op_name(c->op),
                    kn_status_text(st), kn_error(ctx));
      ck_assert_ptr_null(out);
      ck_assert_msg(kn_heap_read_stats(heap).blocks == before, "%s: leaks when allocation %d fails",
                    kn_op_name(c->op), n + 1);
      ck_assert_msg(ctx->random.offset == 0 || kn_ops[c->op].composite, "%s: drew numbers and failed",
                    kn_op_name(c->op));
      check_unchanged(c, mix, in, false);
    } else if (refused) { /* it found a way without */
      kn_tensor_release(out);
      out = NULL;
    }
    ck_assert_int_lt(n, 300);
  }
  release(in, c->n);
  kn_tensor_release(out);
  suite_done(ctx);
  kn_heap_release(heap);
}

START_TEST(out_of_memory) {
  bool whole = is_starved(KN_F64);
  EACH_CASE(c) {
    kn_context *ctx = suite_context();
    for (int mix = 0; mix < MIXES; mix++) {
      kn_tensor *in[GEN_MAX_IN], *out;
      if (!is_starved(mix)) continue;
      inputs(ctx, c, mix, false, in);
      bool runs = (mix < SAME || c->n > 1) && apply(ctx, c, in, &out) == KN_OK;
      release(in, c->n);
      if (!runs) continue;
      kn_tensor_release(out);
      for (int once = 0; once < 2; once++) {
        starve(c, mix, false, once);
        if (!asks_layout(c) && (whole || mix == KN_F32)) starve(c, mix, true, once);
      }
    }
    suite_done(ctx);
  }
}

SUITE("ops", every_row_has_a_case, dtypes_and_layouts, kinds_of_dtypes, narrow_dtypes_give_what_wide_ones_do,
      zero_sizes, unknown_sizes, out_of_memory, on_a_device)
