/* The sweep over backends: every eager kernel of every backend of the registry, and of every instruction set
 * of the cpu backend that this machine has, is compared with the reference kernel of the same op. Over all
 * dtypes; contiguous, broadcast, permuted, sliced, empty and 0-d inputs; sizes below and above those of
 * vectors, blocks and threads. Elementary functions also over bit patterns of every exponent, in units of the
 * last place. A kernel may decline; one that is never run by any case fails. */
#include "backends/cpu/cpu.h"
#include "backends/registry.h"
#include "core/infer.h"
#include "spec/gen.h"
#include "spec/layouts.h"
#include "spec/tensors.h"

/* ---- whose kernels ---- */

enum { MOST = 16 };
typedef struct set {
  const kn_provider *at[MOST];
  int n;
} set;

/* All but the reference, each once. */
static set providers(kn_context *c) {
  set s = {.n = 0};
  for (int i = 0; i < kn_registry_count(); i++) {
    kn_backend_report report;
    kn_registry_report(c, i, &report);
    const kn_provider *p = kn_registry_provider(i);
    if (report.available && p && p != &kn_ref_provider) s.at[s.n++] = p;
  }
  for (int i = 0; i < cp_provider_count(); i++) {
    bool known = false;
    for (int k = 0; k < s.n; k++) known |= s.at[k] == cp_provider_at(i);
    if (!known) s.at[s.n++] = cp_provider_at(i);
  }
  ck_assert_int_le(s.n, MOST);
  return s;
}

static kn_context *open_context(set *s) {
  kn_context *c = suite_context();
  OK(c, kn_registry_open(c, NULL));
  *s = providers(c);
  c->threads = 2;
  return c;
}

static void close_context(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* ---- how near ---- */

/* Units in the last place that two floats of a dtype are apart; nan is nan, and signs of zero count. */
static int64_t ordered(kn_dtype d, const void *p) {
  uint64_t bits = 0, top = UINT64_C(1) << (8 * kn_dtype_size(d) - 1);
  memcpy(&bits, p, kn_dtype_size(d));
  return bits & top ? -(int64_t)(bits & (top - 1)) : (int64_t)bits;
}

static double ulps(kn_dtype d, const void *a, const void *b) {
  double x = kn_element_float(d, a), y = kn_element_float(d, b);
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y) ? 0 : INFINITY;
  if (x == 0 && y == 0) return signbit(x) == signbit(y) ? 0 : INFINITY;
  int64_t i = ordered(d, a), j = ordered(d, b);
  return (i < 0) == (j < 0) ? fabs((double)(i - j)) : fabs((double)i - (double)j);
}

/* What is no plain rounding of the exact value, in units of the last place of float32 and float64. Ops that
 * are not here must give the reference's bits. Halves are rounded from float32, so they may be one off. */
static const struct {
  kn_op op;
  double most;
} inexact[] = {
    {KN_OP_exp, 2},  {KN_OP_expm1, 3}, {KN_OP_log, 3},  {KN_OP_log1p, 4},   {KN_OP_log2, 4}, {KN_OP_log10, 4},
    {KN_OP_sin, 2},  {KN_OP_cos, 2},   {KN_OP_tan, 4},  {KN_OP_asin, 4},    {KN_OP_acos, 4}, {KN_OP_atan, 4},
    {KN_OP_sinh, 4}, {KN_OP_cosh, 4},  {KN_OP_tanh, 4}, {KN_OP_sigmoid, 4}, {KN_OP_erf, 4},  {KN_OP_pow, 2},
};
static double ulps_allowed(kn_op op) {
  for (size_t i = 0; i < sizeof inexact / sizeof *inexact; i++)
    if (inexact[i].op == op) return inexact[i].most;
  return 0;
}

/* Sums and products may be in another order: relative to the largest element of the result. */
static double order_allowed(kn_dtype d) {
  return d == KN_F64 ? 1e-12 : d == KN_F16 ? 2e-3 : d == KN_BF16 ? 1.6e-2 : 1e-5;
}

static void check_near(const kn_provider *p, kn_op op, const char *what, const kn_tensor *got,
                       const kn_tensor *want) {
  kn_dtype d = kn_tensor_dtype(got);
  bool elementwise = kn_ops[op].op_class == KN_CLASS_ELEMENTWISE || kn_ops[op].composite,
       floats = kn_dtype_is_float(d);
  double allowed = ulps_allowed(op), most = 0;
  if (allowed > 0 && (d == KN_F16 || d == KN_BF16)) allowed = 1;
  int64_t size = (int64_t)kn_dtype_size(d);
  const char *a = kn_tensor_data(got), *b = kn_tensor_data(want);
  if (!memcmp(a, b, (size_t)(kn_tensor_numel(got) * size))) return;
  for (int64_t i = 0; floats && i < kn_tensor_numel(got); i++) {
    double y = fabs(kn_element_float(d, b + i * size));
    if (isfinite(y) && y > most) most = y;
  }
  for (int64_t i = 0; i < kn_tensor_numel(got); i++, a += size, b += size) {
    double x = kn_element_float(d, a), y = kn_element_float(d, b);
    bool same = !memcmp(a, b, (size_t)size) || (floats && ulps(d, a, b) <= allowed);
    if (!same && allowed > 0)
      same = fabs(x - y) < 1.2e-38; /* the reference overflows on its way to subnormals */
    if (!same && floats && !elementwise)
      same = isfinite(y) ? fabs(x - y) <= order_allowed(d) * (most + 1) : isnan(y) ? isnan(x) : x == y;
    if (!same)
      ck_abort_msg("%s: %s of %s, %s: element %lld is %.17g, the reference says %.17g", p->name,
                   kn_op_name(op), kn_dtype_name(kn_tensor_dtype(got)), what, (long long)i + 1, x, y);
  }
}

/* ---- one op both ways ---- */

static bool ran[MOST][KN_OP_COUNT]; /* by provider: the test is one process */

static void results(kn_context *c, kn_op op, const kn_type *types, kn_tensor *const *in, kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  for (int i = 0; i < row->outs; i++) {
    if (row->flags & KN_FLAG_DYNAMIC)
      OK(c, kn_tensor_symbolic(c, &types[i], NULL, &out[i]));
    else
      OK(c, kn_tensor_new(c, &types[i], &out[i]));
    if (row->flags & KN_FLAG_WRITES) OK(c, kn_kernel_clone(c, NULL, in, 1, &out[i]));
  }
}

static void release(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

/* False: the rule does not take these inputs. */
static bool compare(kn_context *c, const set *s, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                    const char *what) {
  kn_type types[KN_MAX_INPUTS], outs[KN_MAX_OUTPUTS];
  kn_tensor *want[KN_MAX_OUTPUTS], *got[KN_MAX_OUTPUTS];
  for (int i = 0; i < n; i++) types[i] = in[i]->type;
  if (kn_infer_types(c, op, attrs, types, n, outs) != KN_OK) return false;
  results(c, op, outs, in, want);
  kn_status law = kn_ops[op].kernel(c, attrs, in, n, want);
  for (int k = 0; k < s->n; k++) {
    if (!s->at[k]->kernel[op]) continue;
    results(c, op, outs, in, got);
    kn_status st = s->at[k]->kernel[op](c, attrs, in, n, got);
    ck_assert_msg(st == law || st == KN_DECLINED, "%s: %s, %s: %s", s->at[k]->name, kn_op_name(op), what,
                  kn_error(c));
    if (st == KN_OK) {
      ran[k][op] = true;
      for (int i = 0; i < kn_ops[op].outs; i++) check_near(s->at[k], op, what, got[i], want[i]);
    }
    release(got, kn_ops[op].outs);
  }
  release(want, kn_ops[op].outs);
  return law == KN_OK;
}

static bool offered(const set *s, kn_op op) {
  for (int k = 0; k < s->n; k++)
    if (s->at[k]->kernel[op]) return true;
  return false;
}

/* ---- the cases of spec/gen.h ---- */

static void run_case(kn_context *c, const set *s, const gen_case *g, kn_dtype d) {
  kn_tensor *near[GEN_MAX_IN], *far[GEN_MAX_IN];
  const void *attrs = kn_ops[g->op].attrs == KN_ATTRS_none ? NULL : &g->attrs;
  for (int i = 0; i < g->n; i++) {
    OK(c, gen_make(c, g, i, d, &near[i]));
    far[i] = scattered(c, near[i]);
  }
  compare(c, s, g->op, attrs, near, g->n, "small");
  compare(c, s, g->op, attrs, far, g->n, "small, scattered");
  release(near, g->n), release(far, g->n);
}

START_TEST(small_ones) {
  set s;
  kn_context *c = open_context(&s);
  gen_case made;
  for (int d = 0; d < KN_DTYPE_COUNT; d++) {
    for (int i = 0; i < GEN_CASES; i++)
      if (!kn_ops[gen_cases[i].op].composite && offered(&s, gen_cases[i].op))
        run_case(c, &s, &gen_cases[i], (kn_dtype)d);
    for (int op = 0; op < KN_OP_COUNT; op++)
      if (offered(&s, (kn_op)op) && gen_default((kn_op)op, &made)) run_case(c, &s, &made, (kn_dtype)d);
  }
  close_context(c);
}

/* ---- elementwise ops over layouts and sizes ---- */

static void run_layout(kn_context *c, const set *s, kn_op op, const layout *l, const kn_dtype *d) {
  const kn_op_info *row = &kn_ops[op];
  kn_tensor *in[3];
  char what[96];
  kn_attrs_any attrs;
  const int n = layout_make(c, op, l, d, in, &attrs, what, sizeof what);
  for (int to = 0; to < (op == KN_OP_cast ? KN_DTYPE_COUNT : 1); to++) {
    if (op == KN_OP_cast) attrs.cast.dtype = to;
    compare(c, s, op, row->attrs == KN_ATTRS_none ? NULL : &attrs, in, n, what);
  }
  release(in, n);
}

START_TEST(elementwise_layouts) {
  static const kn_dtype mixed[][2] = {{KN_F32, KN_F64}, {KN_I64, KN_F32},  {KN_U8, KN_I64},
                                      {KN_U8, KN_I8},   {KN_F16, KN_BF16}, {KN_I32, KN_F16},
                                      {KN_F16, KN_F32}, {KN_BOOL, KN_I16}};
  set s;
  kn_context *c = open_context(&s);
  for (int op = 0; op < KN_OP_COUNT; op++) {
    if (kn_ops[op].op_class != KN_CLASS_ELEMENTWISE || !offered(&s, (kn_op)op)) continue;
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) {
      bool few = layouts[l].dims[0].v[0] > 65536; /* large: only a dtype of each kind, and none mixed */
      for (int d = 0; d < KN_DTYPE_COUNT; d++)
        if (!few || d == KN_F32 || d == KN_BF16 || d == KN_I32)
          run_layout(c, &s, (kn_op)op, &layouts[l], (kn_dtype[]){(kn_dtype)d, (kn_dtype)d});
      for (size_t m = 0; !few && kn_ops[op].min_in > 1 && m < sizeof mixed / sizeof *mixed; m++)
        run_layout(c, &s, (kn_op)op, &layouts[l], mixed[m]);
    }
  }
  close_context(c);
}

/* `over`: what is folded into one, a bit for each dim. */
typedef struct shape {
  const char *name;
  kn_ints dims;
  int over;
  bool exchanged, thinned;
} shape;

/* ---- composites as a whole ---- */

/* The kernel gives the bits that the parts give on the same provider. False: it declines. */
static bool is_its_parts(kn_context *c, const kn_provider *p, kn_op op, const void *given,
                         kn_tensor *const *in, int n, const char *what) {
  kn_tensor *got, *want;
  OK(c, kn_tensor_symbolic(c, &in[0]->type, NULL, &got));
  kn_status st = p->kernel[op](c, given, in, n, &got);
  ck_assert_msg(st == KN_OK || st == KN_DECLINED, "%s", kn_error(c));
  if (st == KN_OK) {
    kn_provider parts = *p; /* without its composites */
    for (int i = 0; i < KN_OP_COUNT; i++)
      if (kn_ops[i].composite) parts.kernel[i] = NULL;
    const kn_provider *first = c->providers[KN_CPU][0], *second = c->providers[KN_CPU][1],
                      *third = c->providers[KN_CPU][2];
    c->providers[KN_CPU][0] = &parts, c->providers[KN_CPU][1] = &kn_ref_provider,
    c->providers[KN_CPU][2] = NULL;
    OK(c, kn_apply(c, op, given, in, n, &want));
    c->providers[KN_CPU][0] = first, c->providers[KN_CPU][1] = second, c->providers[KN_CPU][2] = third;
    check_near(p, op, what, got, want);
    kn_tensor_release(want);
  }
  kn_tensor_release(got);
  return st == KN_OK;
}

static void compare_whole(kn_context *c, const kn_provider *p, kn_op op, const layout *l, kn_dtype d,
                          bool tanh_form) {
  kn_attrs_any attrs;
  kn_attrs_default(kn_ops[op].attrs, &attrs);
  if (op == KN_OP_gelu && tanh_form) attrs.gelu.approximate = KN_CHOICE_approximate_tanh;
  kn_tensor *x = filled(c, d, l->dims[0], 77);
  if (l->exchanged & 1) exchange(x, 0, x->type.rank - 1);
  if (l->thinned & 1) thin(x);
  is_its_parts(c, p, op, kn_ops[op].attrs == KN_ATTRS_none ? NULL : &attrs, &x, 1, l->name);
  kn_tensor_release(x);
}

START_TEST(composites_as_a_whole) {
  set s;
  kn_context *c = open_context(&s);
  for (int op = 0; op < KN_OP_COUNT; op++)
    for (int k = 0; kn_ops[op].composite && k < s.n; k++) {
      if (!s.at[k]->kernel[op]) continue;
      for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
        for (int d = KN_F16; d <= KN_F64; d++)
          for (int form = 0; form < 2; form++)
            compare_whole(c, s.at[k], (kn_op)op, &layouts[l], (kn_dtype)d, form);
      ran[k][op] = true;
    }
  close_context(c);
}

/* x, and lists of sizes `list`, the second of them positive; few special values. */
static void make_norm(kn_context *c, kn_dtype d, kn_ints sizes, kn_ints list, kn_tensor **in, int n) {
  for (int i = 0; i < n; i++) {
    in[i] = filled(c, d, i ? list : sizes, 3 + (uint64_t)i);
    for (int64_t k = 0; k < kn_tensor_numel(in[i]) - (i ? 0 : 9); k++) {
      double x = kn_element_float(d, element_at(in[i], k));
      if (!isfinite(x) || fabs(x) > 100 || i == 2)
        kn_element_put_float(d, element_at(in[i], k), 0.25 + (double)(k % 7));
    }
  }
}

/* A norm of n inputs by each provider that has it; `taken`: as a whole. */
static void norm_as_a_whole(kn_context *c, const set *s, kn_op op, const void *attrs, kn_tensor *const *in,
                            int n, bool taken) {
  for (int k = 0; k < s->n; k++)
    if (s->at[k]->kernel[op]) ck_assert(is_its_parts(c, s->at[k], op, attrs, in, n, "its parts") == taken);
}

START_TEST(norms_as_a_whole) {
  static const struct {
    kn_ints sizes;
    int over; /* last dims of layer_norm */
    bool layer, batch;
  } cases[] = {{{2, {5, 1031}}, 1, true, false}, {{3, {5, 7, 3}}, 2, true, false},
               {{2, {2, 5000}}, 1, true, false}, {{4, {3, 6, 5, 7}}, 2, true, true},
               {{3, {2, 5, 16}}, 1, true, true}, {{2, {70, 1}}, 1, true, false},
               {{1, {4099}}, 1, true, false},    {{3, {1, 3, 22000}}, 3, false, true}};
  set s;
  kn_context *c = open_context(&s);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int d = KN_F16; d <= KN_F64; d++)
      for (int n = 1; n <= 5; n++) {
        kn_attrs_layer_norm layer = {.normalized_shape = {.n = cases[i].over}, .eps = 1e-5};
        kn_attrs_batch_norm batch = {.momentum = 0.1, .eps = 1e-3};
        int rank = cases[i].sizes.n;
        memcpy(layer.normalized_shape.v, cases[i].sizes.v + rank - cases[i].over, (size_t)cases[i].over * 8);
        kn_tensor *in[5];
        bool wide = d == KN_F32 || d == KN_F64;
        if (n <= 3) {
          make_norm(c, (kn_dtype)d, cases[i].sizes, layer.normalized_shape, in, n);
          norm_as_a_whole(c, &s, KN_OP_layer_norm, &layer, in, n, wide && cases[i].layer);
          release(in, n);
        }
        if (n >= 3 && rank > 1) {
          make_norm(c, (kn_dtype)d, cases[i].sizes, DIMS(cases[i].sizes.v[1]), in, n);
          norm_as_a_whole(c, &s, KN_OP_batch_norm, &batch, in, n, wide && cases[i].batch);
          release(in, n);
        }
      }
  close_context(c);
}

/* ---- overwriting ---- */

START_TEST(copies) {
  static const shape to[] = {{"plain", {2, {130, 150}}, 0, 0, 0},
                             {"exchanged", {2, {150, 130}}, 0, true, 0},
                             {"sliced", {2, {130, 300}}, 0, 0, true}};
  set s;
  kn_context *c = open_context(&s);
  for (int k = 0; k < s.n; k++)
    for (int i = 0; i < 9; i++)
      for (int d = 0; s.at[k]->kernel[KN_OP_copy_] && d < KN_DTYPE_COUNT; d++) {
        kn_tensor *x[2], *got[2];
        for (int which = 0; which < 2;
             which++) { /* what is overwritten, and what stays around it, is seen too */
          const shape *a = &to[i / 3], *b = &to[i % 3];
          got[which] = filled(c, (kn_dtype)d, a->dims, 5);
          x[0] = got[which];
          x[1] = filled(c, (kn_dtype)((d + i) % KN_DTYPE_COUNT), b->dims, 6);
          kn_type whole = x[0]->type;
          int64_t strides[KN_MAX_RANK];
          memcpy(strides, x[0]->strides, sizeof strides);
          if (a->exchanged) exchange(x[0], 0, 1);
          if (a->thinned) thin(x[0]);
          if (b->exchanged) exchange(x[1], 0, 1);
          if (b->thinned) thin(x[1]);
          OK(c, (which ? kn_kernel_copy_ : s.at[k]->kernel[KN_OP_copy_])(c, NULL, x, 2, x));
          x[0]->type = whole, x[0]->offset = 0;
          memcpy(x[0]->strides, strides, sizeof strides);
          kn_tensor_release(x[1]);
        }
        check_near(s.at[k], KN_OP_copy_, to[i / 3].name, got[0], got[1]);
        release(got, 2);
        ran[k][KN_OP_copy_] = true;
      }
  close_context(c);
}

/* ---- reductions, softmax, sums so far ---- */

static const shape shapes[] = {
    {"all of a long one", {1, {70003}}, 1, 0, 0},
    {"last", {2, {37, 1031}}, 2, 0, 0},
    {"last, short", {2, {1031, 5}}, 2, 0, 0},
    {"first", {2, {517, 131}}, 1, 0, 0},
    {"first, tall", {2, {40001, 3}}, 1, 0, 0},
    {"first, wide", {2, {3, 40001}}, 1, 0, 0},
    {"middle", {3, {5, 67, 33}}, 2, 0, 0},
    {"first and last", {3, {29, 31, 37}}, 5, 0, 0},
    {"last of exchanged", {3, {41, 7, 37}}, 4, true, 0},
    {"first of exchanged", {3, {41, 7, 37}}, 1, true, 0},
    {"last of a slice", {2, {19, 1200}}, 2, 0, true},
    {"first of a slice", {2, {190, 130}}, 1, 0, true},
    {"all of a slice", {2, {190, 130}}, 3, 0, true},
    {"one element", {2, {1, 1}}, 3, 0, 0},
    {"none of each", {2, {5, 0}}, 2, 0, 0},
    {"none at all", {2, {5, 0}}, 1, 0, 0},
};

/* False: the op does not fold over such dims. */
static bool set_dims(kn_op op, const shape *s, kn_attrs_any *a) {
  int first = -1, n = 0;
  kn_attrs_default(kn_ops[op].attrs, a);
  for (int d = 0; d < s->dims.n; d++)
    if (s->over >> d & 1) first = first < 0 ? d : first, n++;
  if (kn_ops[op].attrs == KN_ATTRS_reduce) {
    a->reduce.dim.n = n;
    for (int d = 0, k = 0; d < s->dims.n; d++)
      if (s->over >> d & 1) a->reduce.dim.v[k++] = d;
    return true;
  }
  if (kn_ops[op].attrs == KN_ATTRS_argreduce)
    a->argreduce.dim = first;
  else if (kn_ops[op].attrs == KN_ATTRS_axis)
    a->axis.dim = first;
  else
    return false;
  return n == 1;
}

/* Of whole numbers in turn, so that sums of them are exact and there are ties; of anything. */
static kn_tensor *shaped(kn_context *c, kn_op op, kn_dtype d, const shape *s, int special) {
  kn_tensor *t = filled(c, d, s->dims, 31);
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) {
    double x = element(t, k);
    if (!special && kn_dtype_is_float(d)) set_element(t, k, isfinite(x) && fabs(x) < 100 ? x : 1.25);
    if (op == KN_OP_prod && kn_dtype_is_float(d))
      set_element(t, k, 1 + 1e-3 * (double)(k % 5 - 2)); /* stays finite */
    if (!special && !kn_dtype_is_float(d)) set_element(t, k, (double)(k * 7 % 5));
  }
  if (s->exchanged) exchange(t, 0, t->type.rank - 1);
  if (s->thinned) thin(t);
  return t;
}

START_TEST(folds) {
  set s;
  kn_context *c = open_context(&s);
  kn_attrs_any attrs;
  for (int op = 0; op < KN_OP_COUNT; op++) {
    kn_class class = kn_ops[op].op_class;
    if ((class != KN_CLASS_REDUCE && class != KN_CLASS_SOFTMAX) || !offered(&s, (kn_op)op)) continue;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
      for (int d = 0; d < KN_DTYPE_COUNT; d++)
        for (int special = 0; special < 2; special++) {
          if (!set_dims((kn_op)op, &shapes[i], &attrs)) continue;
          char what[96];
          snprintf(what, sizeof what, "%s, %s%s", shapes[i].name, kn_dtype_name((kn_dtype)d),
                   special ? ", special values" : "");
          kn_tensor *x = shaped(c, (kn_op)op, (kn_dtype)d, &shapes[i], special);
          compare(c, &s, (kn_op)op, &attrs, &x, 1, what);
          kn_tensor_release(x);
        }
  }
  close_context(c);
}

/* Long, wide, tall; many rows, and few long ones. */
static const shape cut_shapes[] = {
    {"all of a long one", {1, {100003}}, 1, 0, 0}, {"last", {2, {600, 131}}, 2, 0, 0},
    {"last, long", {2, {2, 70001}}, 2, 0, 0},      {"first, tall", {2, {30001, 3}}, 1, 0, 0},
    {"first, wide", {2, {20, 4001}}, 1, 0, 0},     {"middle", {3, {5, 67, 233}}, 2, 0, 0},
};

static void compare_threads(kn_context *c, const kn_provider *p, kn_op op, const shape *s, kn_tensor *x) {
  kn_attrs_any attrs;
  kn_type type;
  kn_tensor *got[2] = {NULL, NULL};
  if (!p->kernel[op] || !set_dims(op, s, &attrs)) return;
  kn_status st = kn_infer_types(c, op, &attrs, &x->type, 1, &type);
  for (int t = 0; st == KN_OK && t < 2; t++) {
    c->threads = t + 1;
    results(c, op, &type, &x, &got[t]);
    st = p->kernel[op](c, &attrs, &x, 1, &got[t]);
  }
  size_t bytes = st == KN_OK ? (size_t)kn_tensor_numel(got[0]) * kn_dtype_size(kn_tensor_dtype(got[0])) : 0;
  if (bytes && memcmp(kn_tensor_data(got[0]), kn_tensor_data(got[1]), bytes))
    ck_abort_msg("%s: %s of %s, %s: two threads give other bits than one", p->name, kn_op_name(op),
                 kn_dtype_name(kn_tensor_dtype(x)), s->name);
  release(got, 2);
}

/* The same bits, however many threads there are. */
START_TEST(folds_by_threads) {
  static const kn_dtype dtypes[] = {KN_F32, KN_F64, KN_BF16, KN_I32};
  set s;
  kn_context *c = open_context(&s);
  for (size_t i = 0; i < sizeof cut_shapes / sizeof *cut_shapes; i++)
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
      kn_tensor *x = filled(c, dtypes[d], cut_shapes[i].dims, 31);
      for (int64_t k = 3; k < kn_tensor_numel(x); k += 17) set_element(x, k, 1.25); /* the special ones */
      for (int op = 0; op < KN_OP_COUNT; op++)
        if (kn_ops[op].op_class == KN_CLASS_REDUCE || kn_ops[op].op_class == KN_CLASS_SOFTMAX)
          for (int k = 0; k < s.n; k++) compare_threads(c, s.at[k], (kn_op)op, &cut_shapes[i], x);
      kn_tensor_release(x);
    }
  close_context(c);
}

/* ---- products and convolutions ---- */

/* Small whole numbers: sums are exact, so all backends must give the same bits. */
static kn_tensor *whole_numbers(kn_context *c, kn_dtype d, kn_ints dims, uint64_t seed) {
  kn_type type = type_of(d, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) {
    int64_t x = (int64_t)(draw(&seed) * 7) - 3;
    if (kn_dtype_is_float(d))
      kn_element_put_float(d, element_at(t, k), (double)x);
    else
      kn_element_put_int(d, element_at(t, k), d == KN_BOOL ? x > 0 : x);
  }
  return t;
}

typedef struct factors {
  kn_ints a, b;
} factors;

/* Below, at and above the sizes of tiles, panels and blocks; few rows and columns; all ranks; many matrices.
 */
static const factors products[] = {
    {{2, {1, 1}}, {2, {1, 1}}},
    {{2, {7, 5}}, {2, {5, 3}}},
    {{2, {8, 384}}, {2, {384, 32}}},
    {{2, {9, 385}}, {2, {385, 33}}},
    {{2, {70, 600}}, {2, {600, 50}}},
    {{2, {20, 390}}, {2, {390, 1100}}},
    {{2, {1, 512}}, {2, {512, 100}}},
    {{2, {8, 67}}, {2, {67, 70}}},
    {{2, {101, 64}}, {2, {64, 1}}},
    {{2, {13, 40}}, {2, {40, 4}}},
    {{1, {300}}, {2, {300, 40}}},
    {{2, {40, 300}}, {1, {300}}},
    {{1, {300}}, {1, {300}}},
    {{3, {9, 12, 33}}, {3, {9, 33, 20}}},
    {{3, {9, 12, 33}}, {2, {33, 20}}},
    {{2, {12, 33}}, {3, {9, 33, 20}}},
    {{4, {3, 1, 17, 40}}, {3, {5, 40, 33}}},
    {{3, {2, 60, 80}}, {3, {2, 80, 90}}},
    {{3, {9, 2, 3}}, {3, {9, 3, 0}}},
    {{3, {9, 0, 3}}, {3, {9, 3, 4}}},
    {{3, {9, 2, 0}}, {3, {9, 0, 4}}},
    {{3, {0, 2, 3}}, {3, {1, 3, 4}}},
    {{2, {6, 0}}, {2, {0, 5}}},
    {{2, {0, 6}}, {2, {6, 5}}},
    {{2, {200, 300}}, {2, {300, 200}}},
};

/* Both as they are, and each with its last two dims turned, or with gaps. */
START_TEST(matrix_products) {
  set s;
  kn_context *c = open_context(&s);
  for (int d = 0; d < KN_DTYPE_COUNT; d++)
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
      for (int lay = 0; lay < 9; lay++) {
        kn_tensor *in[2];
        char what[64];
        snprintf(what, sizeof what, "product %zu, layout %d", i, lay);
        for (int k = 0; k < 2; k++) {
          kn_ints dims = k ? products[i].b : products[i].a;
          int how = k ? lay / 3 : lay % 3, last = dims.n - 1;
          if (how == 1 && last > 0) {
            int64_t rows = dims.v[last - 1];
            dims.v[last - 1] = dims.v[last], dims.v[last] = rows;
          }
          if (how == 2) dims.v[last] *= 2;
          in[k] = whole_numbers(c, (kn_dtype)d, dims, i + (uint64_t)k * 77);
          if (how == 1 && last > 0) exchange(in[k], last - 1, last);
          if (how == 2) thin(in[k]);
        }
        compare(c, &s, KN_OP_matmul, NULL, in, 2, what);
        release(in, 2);
      }
  close_context(c);
}

typedef struct image_case {
  kn_ints x, w;
  int64_t stride[2], padding[2], dilation[2], groups;
} image_case;

static const image_case image_cases[] = {
    {{4, {1, 16, 12, 13}}, {4, {16, 16, 3, 3}}, {1, 1}, {1, 1}, {1, 1}, 1},
    {{4, {3, 16, 12, 13}}, {4, {20, 16, 3, 3}}, {1, 1}, {1, 1}, {1, 1}, 1},
    {{4, {3, 16, 11, 14}}, {4, {20, 16, 3, 2}}, {2, 3}, {1, 2}, {1, 1}, 1},
    {{4, {2, 32, 12, 12}}, {4, {34, 16, 3, 3}}, {1, 2}, {2, 0}, {2, 1}, 2},
    {{4, {5, 33, 7, 7}}, {4, {70, 33, 1, 1}}, {1, 1}, {0, 0}, {1, 1}, 1},
    {{4, {5, 33, 14, 13}}, {4, {70, 33, 1, 1}}, {2, 2}, {0, 0}, {1, 1}, 1},
    {{4, {2, 50, 20, 21}}, {4, {16, 50, 3, 3}}, {1, 1}, {0, 0}, {1, 1}, 1},
    {{4, {2, 3, 40, 41}}, {4, {24, 3, 7, 7}}, {2, 2}, {3, 3}, {1, 1}, 1},
    {{4, {2, 8, 9, 9}}, {4, {8, 1, 3, 3}}, {1, 1}, {1, 1}, {1, 1}, 8},
};

START_TEST(convolutions) {
  set s;
  kn_context *c = open_context(&s);
  for (int d = KN_F32; d <= KN_F64; d++)
    for (size_t i = 0; i < sizeof image_cases / sizeof *image_cases; i++)
      for (int bias = 0; bias < 2; bias++) {
        const image_case *g = &image_cases[i];
        kn_attrs_conv2d a = {.groups = g->groups};
        a.stride = (kn_ints){2, {g->stride[0], g->stride[1]}};
        a.padding = (kn_ints){2, {g->padding[0], g->padding[1]}};
        a.dilation = (kn_ints){2, {g->dilation[0], g->dilation[1]}};
        kn_tensor *in[3] = {whole_numbers(c, (kn_dtype)d, g->x, i),
                            whole_numbers(c, (kn_dtype)d, g->w, i + 50),
                            whole_numbers(c, (kn_dtype)d, DIMS(g->w.v[0]), i + 90)};
        char what[64];
        snprintf(what, sizeof what, "convolution %zu, bias %d", i, bias);
        ck_assert_msg(compare(c, &s, KN_OP_conv2d, &a, in, 2 + bias, what), "%s: %s", what, kn_error(c));
        release(in, 3);
      }
  close_context(c);
}

/* ---- elementary functions, to the last place ---- */

/* float32: 2^15 bit patterns all over, and all of the ends of each power of two. float64: as many. The exact
 * value is the reference's in float64, rounded; for float64 the reference's own. */
static kn_tensor *patterns(kn_context *c, kn_dtype d) {
  enum { COUNT = 1 << 15 };
  kn_type type = type_of(d, DIMS(COUNT));
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < COUNT; k++) {
    uint64_t near = (uint64_t)(k % 4096), bits;
    if (d == KN_F32)
      bits = k >= 4096 ? (uint64_t)k * 131009u : near << 20 | (near & 1 ? 0xfffff : 0);
    else
      bits =
          k >= 4096 ? (uint64_t)k * UINT64_C(562949953421309) : near << 52 | (near & 1 ? 0xffffffffffff : 0);
    if (k % 4 == 1) { /* where functions bend */
      double x = ldexp((double)(k - COUNT / 2), -10);
      kn_element_put_float(d, element_at(t, k), x);
      continue;
    }
    memcpy(element_at(t, k), &bits, kn_dtype_size(d));
  }
  return t;
}

static void check_last_place(kn_context *c, const set *s, kn_op op, kn_dtype d, kn_tensor *const *in, int n) {
  kn_type type = in[0]->type;
  kn_tensor *wide[2], *exact, *want, *got;
  double allowed = ulps_allowed(op);
  for (int i = 0; i < n; i++)
    OK(c, kn_apply(c, KN_OP_cast, &(kn_attrs_cast){.dtype = KN_F64}, &in[i], 1, &wide[i]));
  kn_type wide_type = type_of(KN_F64, DIMS(kn_tensor_numel(in[0])));
  OK(c, kn_tensor_new(c, &wide_type, &exact));
  OK(c, kn_ops[op].kernel(c, NULL, wide, n, &exact));
  OK(c, kn_tensor_new(c, &type, &want));
  OK(c, kn_kernel_cast(c, NULL, &exact, 1, &want));
  for (int k = 0; k < s->n; k++) {
    if (!s->at[k]->kernel[op]) continue;
    OK(c, kn_tensor_new(c, &type, &got));
    kn_status st = s->at[k]->kernel[op](c, NULL, in, n, &got);
    double worst = 0;
    for (int64_t i = 0; st == KN_OK && i < kn_tensor_numel(got); i++) {
      double off = ulps(d, element_at(got, i), element_at(want, i));
      worst = off > worst ? off : worst;
      if (off > allowed)
        ck_abort_msg("%s: %s(%a%s) of %s is %a, not %a: %g units in the last place", s->at[k]->name,
                     kn_op_name(op), element(in[0], i), n > 1 ? ", …" : "", kn_dtype_name(d), element(got, i),
                     element(want, i), off);
    }
    if (getenv("KILN_ULPS") && st == KN_OK)
      printf("%s %s %s: %g ulp\n", s->at[k]->name, kn_op_name(op), kn_dtype_name(d), worst);
    kn_tensor_release(got);
  }
  release(wide, n);
  kn_tensor_release(exact), kn_tensor_release(want);
}

START_TEST(last_places) {
  set s;
  kn_context *c = open_context(&s);
  for (int d = KN_F32; d <= KN_F64; d++) {
    kn_tensor *in[2] = {patterns(c, (kn_dtype)d), filled(c, (kn_dtype)d, DIMS(1 << 15), 5)};
    for (size_t i = 0; i < sizeof inexact / sizeof *inexact; i++)
      check_last_place(c, &s, inexact[i].op, (kn_dtype)d, in, kn_ops[inexact[i].op].min_in);
    release(in, 2);
  }
  close_context(c);
}

/* ---- and none was left out; recurrent layers are test_recurrent.c's ---- */

START_TEST(every_kernel_ran) {
  set s;
  kn_context *c = open_context(&s);
  for (int k = 0; k < s.n; k++)
    for (int op = 0; op < KN_OP_COUNT; op++)
      ck_assert_msg(!s.at[k]->kernel[op] || ran[k][op] || kn_ops[op].op_class == KN_CLASS_RECURRENT,
                    "%s: no case runs %s", s.at[k]->name, kn_op_name((kn_op)op));
  close_context(c);
}

SUITE("backends", small_ones, elementwise_layouts, composites_as_a_whole, norms_as_a_whole, copies, folds,
      folds_by_threads, matrix_products, convolutions, last_places, every_kernel_ran)
