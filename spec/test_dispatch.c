/* The choke point: recording instead of running, in-place forms, overwriting, composites eager and recorded.
 */
#include "backends/registry.h"
#include "core/grad/tape.h"
#include "core/infer.h"
#include "spec/tensors.h"

/* ---- a recorder that notes what it is given ---- */

typedef struct notes {
  kn_recorder base;
  char text[1024]; /* "add mul …" */
  int sizes, items, placeholders;
} notes;

static kn_status note_apply(kn_recorder *r, kn_context *ctx, kn_op op, const void *attrs,
                            kn_tensor *const *in, int n, const kn_type *types, kn_tensor **out) {
  notes *w = (notes *)r;
  size_t at = strlen(w->text);
  (void)attrs, (void)in, (void)n;
  snprintf(w->text + at, sizeof w->text - at, "%s%s", at ? " " : "", kn_op_name(op));
  ck_assert_ptr_nonnull(kn_ops[op].infer); /* composites never come */
  return kn_tensor_symbolic(ctx, &types[0], w, out);
}

static kn_status note_item(kn_recorder *r, kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  (void)ctx, (void)t;
  ((notes *)r)->items++;
  *out = (kn_scalar){KN_SCALAR_SYMBOL, {.value = r}};
  return KN_OK;
}

static kn_status note_size(kn_recorder *r, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out) {
  (void)ctx, (void)t, (void)dim;
  ((notes *)r)->sizes++;
  *out = (kn_scalar){KN_SCALAR_SYMBOL, {.value = r}};
  return KN_OK;
}

static kn_status note_to_tensor(kn_recorder *r, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                                kn_tensor **out) {
  kn_type type = {.dtype = (uint8_t)dtype};
  (void)s;
  return kn_tensor_symbolic(ctx, &type, r, out);
}

static kn_status note_dynamic(kn_recorder *r, kn_context *ctx, const kn_scalar *s, int64_t *placeholder) {
  (void)ctx, (void)s;
  *placeholder = KN_DYN(((notes *)r)->placeholders++);
  return KN_OK;
}

static notes recorder(bool all) {
  return (notes){.base = {.all = all,
                          .apply = note_apply,
                          .item = note_item,
                          .size = note_size,
                          .to_tensor = note_to_tensor,
                          .dynamic = note_dynamic}};
}

static kn_tensor *symbol(kn_context *c, kn_dtype dtype, kn_ints dims) {
  kn_type type = type_of(dtype, dims);
  kn_tensor *t;
  OK(c, kn_tensor_symbolic(c, &type, c, &t));
  return t;
}

/* Runs an op on inputs that are released. */
static kn_tensor *run(kn_context *c, kn_op op, const void *attrs, kn_tensor *a, kn_tensor *b, kn_tensor *d) {
  kn_tensor *in[] = {a, b, d}, *out = NULL;
  OK(c, kn_apply(c, op, attrs, in, !a ? 0 : !b ? 1 : !d ? 2 : 3, &out));
  for (int i = 0; i < 3; i++) kn_tensor_release(in[i]);
  return out;
}

#define RUN(op, attrs, a, b, d) run(c, KN_OP_##op, attrs, a, b, d)
#define F(dims, ...) make(c, KN_F32, dims, LIST(__VA_ARGS__))
#define D(dims, ...) make(c, KN_F64, dims, LIST(__VA_ARGS__))
#define I(dims, ...) make(c, KN_I64, dims, LIST(__VA_ARGS__))
#define B(dims, ...) make(c, KN_BOOL, dims, LIST(__VA_ARGS__))
#define GIVES(value, dtype, dims, ...)                                                                       \
  do {                                                                                                       \
    kn_tensor *gives_ = (value);                                                                             \
    expect(gives_, dtype, dims, __VA_ARGS__);                                                                \
    kn_tensor_release(gives_);                                                                               \
  } while (0)

/* ---- recording ---- */

START_TEST(records_what_concerns_it) {
  kn_context *c = suite_context();
  notes w = recorder(false);
  kn_tensor *x = symbol(c, KN_F32, DIMS(KN_DIM_UNKNOWN, 3)), *k = F(DIMS(3), 1, 2, 3), *y, *z;
  FAILS(c, KN_STATE, "add: a symbolic tensor has no data, and no graph is being recorded",
        kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){x, k}, 2, &y));
  c->recorder = &w.base;
  OK(c, kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){x, k}, 2, &y));
  ck_assert(kn_tensor_is_symbolic(y) && y->type.dims[0] == KN_DIM_UNKNOWN && y->type.dims[1] == 3);
  OK(c, kn_apply(c, KN_OP_mul, NULL, (kn_tensor *[]){k, k}, 2, &z)); /* real: runs */
  expect(z, KN_F32, DIMS(3), LIST(1, 4, 9));
  ck_assert_str_eq(w.text, "add");
  kn_tensor_release(z);
  FAILS(c, KN_SHAPE, "add: sizes 3 and 2 of dim 2 do not broadcast (got float32[?,3], float32[2])",
        kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){x, z = F(DIMS(2), 1, 2)}, 2, &y));
  kn_tensor_release(z);
  w.base.all = true;
  OK(c, kn_apply(c, KN_OP_mul, NULL, (kn_tensor *[]){k, k}, 2, &z));
  kn_tensor_release(z);
  z = RUN(zeros, (&(kn_attrs_create){.sizes = DIMS(2), .dtype = KN_F32}), NULL, NULL, NULL);
  ck_assert(kn_tensor_is_symbolic(z));
  ck_assert_str_eq(w.text, "add mul full");
  kn_tensor_release(z), kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(k);
  suite_done(c);
}

START_TEST(numbers_while_recording) {
  kn_context *c = suite_context();
  notes w = recorder(false);
  kn_tensor *x = symbol(c, KN_F32, DIMS(KN_DIM_SYMBOL(0), 3)), *one = symbol(c, KN_F32, SCALAR),
            *k = F(SCALAR, 5), *t;
  kn_scalar s;
  FAILS(c, KN_STATE, "item: a symbolic tensor has no data", kn_item(c, one, &s));
  FAILS(c, KN_STATE, "size: a symbolic tensor has no sizes yet", kn_size(c, x, 0, &s));
  c->recorder = &w.base;
  OK(c, kn_item(c, one, &s));
  ck_assert_int_eq(s.kind, KN_SCALAR_SYMBOL);
  OK(c, kn_scalar_tensor(c, &s, KN_F64, &t));
  ck_assert(kn_tensor_is_symbolic(t) && kn_tensor_dtype(t) == KN_F64);
  OK(c, kn_item(c, k, &s));
  ck_assert(s.kind == KN_SCALAR_FLOAT && s.as.f == 5);
  OK(c, kn_size(c, x, 0, &s));
  ck_assert_int_eq(s.kind, KN_SCALAR_SYMBOL);
  OK(c, kn_size(c, x, 1, &s));
  ck_assert(s.kind == KN_SCALAR_INT && s.as.i == 3);
  FAILS(c, KN_SHAPE, "item: a tensor of one element is needed (got float32[0])",
        kn_item(c, (kn_tensor_release(k), k = make(c, KN_F32, DIMS(0), NULL)), &s));
  ck_assert(w.items == 1 && w.sizes == 1);
  kn_tensor_release(t), kn_tensor_release(x), kn_tensor_release(one), kn_tensor_release(k);
  suite_done(c);
}

/* An attribute that stands for a graph value makes the op the recorder's, whatever the inputs are. */
START_TEST(placeholders_are_recorded) {
  kn_context *c = suite_context();
  notes w = recorder(false);
  kn_attrs_sizes a = {.sizes = DIMS(KN_DYN(0), -1)};
  kn_tensor *k = F(DIMS(4), 1, 2, 3, 4), *y;
  FAILS(c, KN_STATE, "reshape: a symbolic", kn_apply(c, KN_OP_reshape, &a, &k, 1, &y));
  c->recorder = &w.base;
  OK(c, kn_apply(c, KN_OP_reshape, &a, &k, 1, &y));
  ck_assert(kn_tensor_is_symbolic(y) && y->type.rank == 2 && y->type.dims[0] == KN_DIM_UNKNOWN);
  kn_tensor_release(k), kn_tensor_release(y);
  suite_done(c);
}

/* Gradients are taped on symbolic results too. */
START_TEST(tapes_what_it_records) {
  kn_context *c = suite_context();
  notes w = recorder(false);
  kn_tensor *x = symbol(c, KN_F32, DIMS(3)), *k = F(DIMS(3), 1, 2, 3), *y;
  OK(c, kn_set_requires_grad(c, k, true));
  c->recorder = &w.base;
  OK(c, kn_apply(c, KN_OP_mul, NULL, (kn_tensor *[]){x, k}, 2, &y));
  ck_assert(kn_requires_grad(y) && !kn_is_leaf(y));
  kn_tensor_release(y);
  OK(c, kn_apply(c, KN_OP_gt, NULL, (kn_tensor *[]){x, k}, 2, &y));
  ck_assert(!kn_requires_grad(y));
  kn_tensor_release(y);
  c->grad_enabled = false;
  OK(c, kn_apply(c, KN_OP_mul, NULL, (kn_tensor *[]){x, k}, 2, &y));
  ck_assert(!kn_requires_grad(y));
  kn_tensor_release(y), kn_tensor_release(x), kn_tensor_release(k);
  suite_done(c);
}

/* ---- composites, recorded with sizes that are not known ---- */

enum { N = -1 }; /* KN_DIM_UNKNOWN, in a shape */

static const struct composite_case {
  kn_op op;
  kn_attrs_any attrs;
  struct {
    kn_dtype dtype;
    kn_ints dims;
  } in[3];
  int n;
  kn_ints want; /* sizes of the result */
  const char *parts;
} recorded[] = {
    {KN_OP_flatten,
     {.flatten = {.start_dim = 1, .end_dim = -1}},
     {{KN_F32, {4, {N, 2, 3, 4}}}},
     1,
     {2, {N, 24}},
     "reshape"},
    {KN_OP_flatten,
     {.flatten = {.start_dim = 1, .end_dim = -1}},
     {{KN_F32, {4, {N, 2, N, 4}}}},
     1,
     {2, {N, N}},
     "reshape"},
    {KN_OP_flatten,
     {.flatten = {.start_dim = 0, .end_dim = 1}},
     {{KN_F32, {3, {N, 2, N}}}},
     1,
     {2, {N, N}},
     "reshape"},
    {KN_OP_view, {.sizes = {.sizes = {2, {-1, 6}}}}, {{KN_F32, {3, {N, 2, 3}}}}, 1, {2, {N, 6}}, "reshape"},
    {KN_OP_narrow,
     {.narrow = {.dim = 0, .start = 1, .length = 2}},
     {{KN_F32, {2, {N, 2}}}},
     1,
     {2, {N, 2}},
     "slice slice"},
    {KN_OP_narrow,
     {.narrow = {.dim = 1, .start = 0, .length = 1}},
     {{KN_F32, {2, {N, 2}}}},
     1,
     {2, {N, 1}},
     "slice"},
    {KN_OP_zeros_like, {.none = {0}}, {{KN_F32, {2, {N, 2}}}}, 1, {2, {N, 2}}, "full_like"},
    {KN_OP_square, {.none = {0}}, {{KN_F32, {1, {N}}}}, 1, {1, {N}}, "mul"},
    {KN_OP_gelu, {.gelu = {0}}, {{KN_I64, {1, {N}}}}, 1, {1, {N}}, "cast mul erf add mul mul"},
    {KN_OP_silu, {.none = {0}}, {{KN_F32, {1, {N}}}}, 1, {1, {N}}, "sigmoid mul"},
    {KN_OP_logical_and,
     {.none = {0}},
     {{KN_F32, {1, {N}}}, {KN_BOOL, {1, {N}}}},
     2,
     {1, {N}},
     "cast bitwise_and"},
    {KN_OP_masked_fill,
     {.none = {0}},
     {{KN_F32, {2, {N, 3}}}, {KN_BOOL, {1, {3}}}, {KN_F32, {0}}},
     3,
     {2, {N, 3}},
     "cast where"},
    {KN_OP_masked_select,
     {.none = {0}},
     {{KN_F32, {2, {N, 3}}}, {KN_BOOL, {2, {N, 3}}}},
     2,
     {1, {N}},
     "where expand_as reshape reshape nonzero select index_select"},
    {KN_OP_var,
     {.correction = {.dim = {1, {1}}, .correction = 1}},
     {{KN_F32, {2, {N, 3}}}},
     1,
     {1, {N}},
     "mean sub mul sum div"},
    {KN_OP_var,
     {.correction = {.dim = {1, {0}}, .correction = 1}},
     {{KN_F32, {2, {N, 3}}}},
     1,
     {1, {3}},
     "mean sub mul sum full_like sum add maximum div"},
    {KN_OP_linear,
     {.none = {0}},
     {{KN_F32, {2, {N, 3}}}, {KN_F32, {2, {4, 3}}}, {KN_F32, {1, {4}}}},
     3,
     {2, {N, 4}},
     "transpose matmul add"},
    {KN_OP_embedding,
     {.none = {0}},
     {{KN_F32, {2, {9, 3}}}, {KN_I64, {2, {N, N}}}},
     2,
     {3, {N, N, 3}},
     "reshape index_select reshape"},
    {KN_OP_dropout,
     {.dropout = {.p = 0.5, .training = true}},
     {{KN_F32, {1, {N}}}},
     1,
     {1, {N}},
     "full_like bernoulli mul mul"},
    {KN_OP_dropout, {.dropout = {.p = 0.5, .training = false}}, {{KN_F32, {1, {N}}}}, 1, {1, {N}}, ""},
    {KN_OP_cross_entropy,
     {.cross_entropy = {.reduction = 1}},
     {{KN_F32, {2, {N, 3}}}, {KN_I64, {1, {N}}}},
     2,
     {0, {0}},
     "log_softmax eq where unsqueeze gather select neg where bitwise_not cast sum sum div"},
    {KN_OP_nll_loss,
     {.nll = {.reduction = 0}},
     {{KN_F32, {2, {N, N}}}, {KN_I64, {1, {N}}}},
     2,
     {1, {N}},
     "eq where unsqueeze gather select neg where"},
    {KN_OP_mse_loss,
     {.reduction = {.reduction = 2}},
     {{KN_F32, {1, {N}}}, {KN_F32, {1, {N}}}},
     2,
     {0, {0}},
     "sub mul sum"},
};

START_TEST(composites_record_their_parts) {
  for (size_t i = 0; i < sizeof recorded / sizeof *recorded; i++) {
    const struct composite_case *w = &recorded[i];
    kn_context *c = suite_context();
    notes r = recorder(false);
    kn_tensor *in[3], *y = NULL;
    c->recorder = &r.base;
    for (int k = 0; k < w->n; k++) in[k] = symbol(c, w->in[k].dtype, w->in[k].dims);
    OK(c, kn_apply(c, w->op, &w->attrs, in, w->n, &y));
    ck_assert_msg(!strcmp(r.text, w->parts), "%s: parts are %s", kn_op_name(w->op), r.text);
    ck_assert_msg(y->type.rank == w->want.n, "%s: %d dims", kn_op_name(w->op), y->type.rank);
    for (int d = 0; d < y->type.rank; d++)
      ck_assert_msg(y->type.dims[d] == w->want.v[d], "%s: case %d, dim %d is %d", kn_op_name(w->op), (int)i,
                    d + 1, (int)y->type.dims[d]);
    for (int k = 0; k < w->n; k++) kn_tensor_release(in[k]);
    kn_tensor_release(y);
    suite_done(c);
  }
}

/* A named size goes through reshape where it can be told. */
START_TEST(names_of_sizes_stay) {
  kn_context *c = suite_context();
  notes r = recorder(false);
  c->recorder = &r.base;
  kn_tensor *x = symbol(c, KN_F32, DIMS(KN_DIM_SYMBOL(0), 1, 8, 8));
  kn_tensor *y = RUN(flatten, (&(kn_attrs_flatten){.start_dim = 1, .end_dim = -1}), x, NULL, NULL);
  ck_assert(y->type.dims[0] == KN_DIM_SYMBOL(0) && y->type.dims[1] == 64);
  kn_tensor_release(y);
  suite_done(c);
}

/* ---- composites, eager ---- */

START_TEST(composite_values) {
  kn_context *c = suite_context();
  kn_attrs_correction unbiased = {.correction = 1}, biased = {.dim = DIMS(0), .keepdim = true};
  GIVES(RUN(var, &unbiased, D(DIMS(4), 1, 2, 3, 4), NULL, NULL), KN_F64, SCALAR, LIST(5.0 / 3));
  GIVES(RUN(var, &biased, D(DIMS(2, 2), 1, 2, 3, 6), NULL, NULL), KN_F64, DIMS(1, 2), LIST(1, 4));
  GIVES(RUN(var, &unbiased, D(DIMS(1), 1), NULL, NULL), KN_F64, SCALAR, LIST(NAN));
  GIVES(RUN(std, &biased, D(DIMS(2, 2), 1, 2, 1, 6), NULL, NULL), KN_F64, DIMS(1, 2), LIST(0, 2));
  kn_attrs_norm two = {.p = 2};
  kn_attrs_gelu exact = {.approximate = KN_CHOICE_approximate_none};
  kn_attrs_softplus plain = {.beta = 1, .threshold = 20};
  GIVES(RUN(norm, &two, F(DIMS(2), 3, -4), NULL, NULL), KN_F32, SCALAR, LIST(5));
  GIVES(RUN(norm, &two, F(DIMS(2), 0, 0), NULL, NULL), KN_F32, SCALAR, LIST(0));
  GIVES(RUN(gelu, &exact, D(DIMS(2), 0, 1), NULL, NULL), KN_F64, DIMS(2), LIST(0, 0.84134474606854293));
  GIVES(RUN(silu, NULL, F(DIMS(2), 0, 1), NULL, NULL), KN_F32, DIMS(2), LIST(0, 0.7310585786300049));
  GIVES(RUN(softplus, &plain, D(DIMS(3), 0, 1000, -1000), NULL, NULL), KN_F64, DIMS(3),
        LIST(0.69314718055994531, 1000, 0));
  GIVES(RUN(reciprocal, NULL, I(DIMS(2), 2, 4), NULL, NULL), KN_F32, DIMS(2), LIST(0.5, 0.25));
  GIVES(RUN(logical_not, NULL, F(DIMS(3), 0, 2, NAN), NULL, NULL), KN_BOOL, DIMS(3), LIST(1, 0, 0));
  GIVES(RUN(logical_or, NULL, F(DIMS(2), 0, 0), I(DIMS(2), 0, 5), NULL), KN_BOOL, DIMS(2), LIST(0, 1));
  GIVES(RUN(masked_fill, NULL, F(DIMS(2, 2), 1, 2, 3, 4), B(DIMS(2), 1, 0), F(DIMS(), 7)), KN_F32, DIMS(2, 2),
        LIST(7, 2, 7, 4));
  GIVES(RUN(masked_select, NULL, F(DIMS(2, 2), 1, 2, 3, 4), B(DIMS(2), 0, 1), NULL), KN_F32, DIMS(2),
        LIST(2, 4));
  GIVES(RUN(masked_select, NULL, F(DIMS(2), 1, 2), B(DIMS(2), 0, 0), NULL), KN_F32, DIMS(0), NULL);
  GIVES(RUN(linear, NULL, F(DIMS(1, 2), 1, 2), F(DIMS(2, 2), 1, 1, 0, 1), F(DIMS(2), 10, 20)), KN_F32,
        DIMS(1, 2), LIST(13, 22));
  GIVES(RUN(embedding, NULL, F(DIMS(2, 2), 1, 2, 3, 4), I(DIMS(1, 2), 2, 1), NULL), KN_F32, DIMS(1, 2, 2),
        LIST(3, 4, 1, 2));
  kn_attrs_reduction mean = {.reduction = 1}, odd = {.reduction = 9};
  kn_attrs_nll each = {.reduction = 0, .ignore_index = -100};
  kn_attrs_cross_entropy soft = {.reduction = 1, .ignore_index = -100};
  GIVES(RUN(nll_loss, &each, F(DIMS(2, 2), -1, -2, -3, -4), I(DIMS(2), 2, 1), NULL), KN_F32, DIMS(2),
        LIST(2, 3));
  GIVES(RUN(cross_entropy, &soft, D(DIMS(2, 2), 0, 0, 5, 5), I(DIMS(2), 2, 1), NULL), KN_F64, SCALAR,
        LIST(0.69314718055994531));
  GIVES(RUN(cross_entropy, &soft, D(DIMS(2), 0, 0), I(SCALAR, 2), NULL), KN_F64, SCALAR,
        LIST(0.69314718055994531));
  GIVES(RUN(mse_loss, &mean, F(DIMS(2), 1, 2), F(DIMS(2), 3, 2), NULL), KN_F32, SCALAR, LIST(2));
  kn_tensor *x = F(DIMS(2, 2), 1, 2, 3, 4), *t = I(DIMS(2), 3, 1), *y = NULL;
  FAILS(c, KN_INDEX, "cross_entropy: gather: index 3 is out of range for dim 2 of size 2",
        kn_apply(c, KN_OP_cross_entropy, &soft, (kn_tensor *[]){x, t}, 2, &y));
  FAILS(c, KN_ARG, "mse_loss: there is no reduction 9",
        kn_apply(c, KN_OP_mse_loss, &odd, (kn_tensor *[]){x, x}, 2, &y));
  FAILS(c, KN_SHAPE,
        "nll_loss: scores [N,C] and targets [N], or [C] and one target, are needed (got float32[2,2], "
        "float32[2,2])",
        kn_apply(c, KN_OP_nll_loss, &each, (kn_tensor *[]){x, x}, 2, &y));
  FAILS(c, KN_ARG, "dropout: p must lie in [0, 1], not 2",
        kn_apply(c, KN_OP_dropout, &(kn_attrs_dropout){.p = 2, .training = true}, &x, 1, &y));
  FAILS(c, KN_ARG, "flatten: there are no dims 2 to 1",
        kn_apply(c, KN_OP_flatten, &(kn_attrs_flatten){.start_dim = 1, .end_dim = 0}, &x, 1, &y));
  ck_assert_ptr_null(y);
  kn_tensor_release(x), kn_tensor_release(t);
  suite_done(c);
}

START_TEST(dropout_drops) {
  kn_context *c = suite_context();
  enum { COUNT = 10000 };
  kn_attrs_fill ones = {.sizes = DIMS(COUNT), .value = 1, .dtype = KN_F32};
  kn_attrs_dropout quarter = {.p = 0.25, .training = true}, off = {.p = 0.25, .training = false};
  kn_tensor *x = RUN(full, &ones, NULL, NULL, NULL), *y;
  OK(c, kn_apply(c, KN_OP_dropout, &off, &x, 1, &y));
  ck_assert_ptr_eq(x, y);
  kn_tensor_release(y);
  OK(c, kn_apply(c, KN_OP_dropout, &quarter, &x, 1, &y));
  int dropped = 0;
  for (int k = 0; k < COUNT; k++) {
    double v = element(y, k);
    ck_assert(v == 0 || near(v, 1 / 0.75, 1e-6));
    dropped += v == 0;
  }
  ck_assert(dropped > 2300 && dropped < 2700);
  kn_tensor_release(x), kn_tensor_release(y);
  suite_done(c);
}

/* ---- writing ---- */

START_TEST(in_place) {
  kn_context *c = suite_context();
  kn_tensor *x = F(DIMS(2, 2), 1, 2, 3, 4), *row = F(DIMS(2), 10, 20), *i = I(SCALAR, 3), *y = NULL, *t;
  unsigned before = atomic_load(&x->storage->version);
  OK(c, kn_apply_inplace(c, KN_OP_add, NULL, (kn_tensor *[]){x, row}, 2, &y));
  ck_assert_ptr_eq(x, y);
  kn_tensor_release(y);
  expect(x, KN_F32, DIMS(2, 2), LIST(11, 22, 13, 24));
  ck_assert_uint_eq(atomic_load(&x->storage->version), before + 1);
  OK(c, kn_apply(c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, &x, 1, &t));
  OK(c, kn_apply_inplace(c, KN_OP_mul, NULL, (kn_tensor *[]){t, i}, 2,
                         &y)); /* int64 into float32, through a view */
  kn_tensor_release(y);
  expect(x, KN_F32, DIMS(2, 2), LIST(33, 66, 39, 72));
  y = NULL;
  FAILS(c, KN_SHAPE,
        "add_: the result float32[2,2] does not have the shape of the tensor to overwrite, float32[2]",
        kn_apply_inplace(c, KN_OP_add, NULL, (kn_tensor *[]){row, x}, 2, &y));
  FAILS(c, KN_DTYPE, "mul_: the result is float32, which cannot be kept in a int64 tensor",
        kn_apply_inplace(c, KN_OP_mul, NULL, (kn_tensor *[]){i, kn_tensor_retain(y = F(SCALAR, 2))}, 2, &y));
  kn_tensor_release(y), kn_tensor_release(y);
  FAILS(c, KN_UNSUPPORTED, "transpose: there is no in-place form",
        kn_apply_inplace(c, KN_OP_transpose, &(kn_attrs_swap){.dim1 = 1}, &x, 1, &y));
  expect(x, KN_F32, DIMS(2, 2), LIST(33, 66, 39, 72));
  kn_tensor_release(x), kn_tensor_release(row), kn_tensor_release(i), kn_tensor_release(t);
  suite_done(c);
}

START_TEST(overwriting) {
  kn_context *c = suite_context();
  kn_tensor *x = F(DIMS(4), 1, 2, 3, 4), *head, *tail, *wide, *y;
  OK(c, kn_apply(c, KN_OP_slice, &(kn_attrs_slice){.dim = 0, .stop = 3, .step = 1}, &x, 1, &head));
  OK(c,
     kn_apply(c, KN_OP_slice, &(kn_attrs_slice){.dim = 0, .start = 1, .stop = 4, .step = 1}, &x, 1, &tail));
  OK(c, kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){tail, head}, 2, &y)); /* they overlap */
  expect(x, KN_F32, DIMS(4), LIST(1, 1, 2, 3));
  kn_tensor_release(y);
  OK(c, kn_apply(c, KN_OP_expand, &(kn_attrs_sizes){.sizes = DIMS(3, 4)}, &x, 1, &wide));
  FAILS(c, KN_ARG, "copy_: cannot write to an expanded tensor (dim 1 repeats one element); clone it first",
        kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){wide, x}, 2, &y));
  FAILS(c, KN_ARG, "relu_: cannot write to an expanded tensor",
        kn_apply_inplace(c, KN_OP_relu, NULL, &wide, 1, &y));
  FAILS(c, KN_SHAPE, "copy_: [3] does not broadcast to [4]",
        kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){x, head}, 2, &y));
  kn_tensor_release(x), kn_tensor_release(head), kn_tensor_release(tail), kn_tensor_release(wide);
  suite_done(c);
}

START_TEST(devices_do_not_mix) {
  kn_context *c = suite_context();
  kn_type types[2] = {type_of(KN_F32, DIMS(2)), type_of(KN_F32, DIMS(2))}, out;
  types[1].device = KN_CUDA;
  FAILS(c, KN_ARG, "add: tensors are on different devices, cpu and cuda",
        kn_infer_types(c, KN_OP_add, NULL, types, 2, &out));
  types[0].device = KN_CUDA;
  OK(c, kn_infer_types(c, KN_OP_add, NULL, types, 2, &out));
  ck_assert_int_eq(out.device, KN_CUDA);
  FAILS(c, KN_UNSUPPORTED, "square: a composite has no type rule of its own",
        kn_infer_types(c, KN_OP_square, NULL, types, 1, &out));
  suite_done(c);
}

static void ask_all(void *ud, kn_out kind, const char *text, size_t len) {
  kn_backend_report r;
  (void)kind, (void)text, (void)len;
  for (int i = 0; i < kn_registry_count(); i++) kn_registry_report(ud, i, &r);
}

/* Who is told of a backend may ask for all of them. */
START_TEST(asked_while_it_probes) {
  kn_context *c = kn_context_new(NULL, "dispatch");
  const kn_target *const *targets;
  int n;
  c->output = ask_all;
  c->output_ud = c;
  OK(c, kn_registry_open(c, NULL));
  OK(c, kn_registry_targets(c, &targets, &n));
  ck_assert_int_ge(n, 1);
  kn_registry_close(c);
  suite_done(c);
}
END_TEST

SUITE("dispatch", records_what_concerns_it, numbers_while_recording, placeholders_are_recorded,
      tapes_what_it_records, composites_record_their_parts, names_of_sizes_stay, composite_values,
      dropout_drops, in_place, overwriting, devices_do_not_mix, asked_while_it_probes)
