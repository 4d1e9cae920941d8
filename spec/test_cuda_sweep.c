/* Every op of the table on the CUDA backend's tensors, on the software device (spec/cuda/sim), against the
 * reference kernel: small cases of gen.h in every dtype, in order, scattered (blocks and threads then run in
 * reverse order), expanded, empty and 0-d; elementwise ops over layouts; larger ones of what the backend has
 * kernels of its own for; draws; faults in data and their sentences. Each tensor has a block of its own, so
 * that the device sees what is written beside it. And the backend's README tells which ops take the host
 * route. */
#define _DEFAULT_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/fault.h"
#include "backends/cuda/provider.h"
#include "backends/registry.h"
#include "spec/cuda/software.h"
#include "spec/gen.h"
#include "spec/layouts.h"
#include "spec/tensors.h"

/* ---- there and back ---- */

static const kn_memory *memory_of(kn_context *c) {
  const kn_memory *m;
  OK(c, kn_device_memory(c, KN_CUDA, &m));
  return m;
}

/* The same elements on the device, lying as t's do. */
static kn_tensor *there(kn_context *c, const kn_tensor *t) {
  const kn_memory *m = memory_of(c);
  size_t size = kn_dtype_size(kn_tensor_dtype(t));
  kn_type all = {
      .dtype = t->type.dtype, .device = KN_CUDA, .rank = 1, .dims = {(int64_t)(t->storage->bytes / size)}};
  kn_type type = t->type;
  kn_tensor *flat, *made;
  type.device = KN_CUDA;
  OK(c, kn_tensor_new(c, &all, &flat));
  OK(c, m->copy(m->self, c, kn_tensor_data(flat), t->storage->data, t->storage->bytes / size * size,
                KN_TO_DEVICE));
  OK(c, kn_tensor_symbolic(c, &type, NULL, &made));
  kn_tensor_set_view(made, flat, t->offset, t->strides);
  kn_tensor_release(flat);
  return made;
}

/* In one piece, on the host. Takes t. */
static kn_tensor *here(kn_context *c, kn_tensor *t) {
  kn_type type = t->type;
  kn_tensor *line = t, *made;
  if (!kn_tensor_contiguous(t)) {
    OK(c, kn_apply(c, KN_OP_clone, NULL, &t, 1, &line));
    kn_tensor_release(t);
  }
  if (type.device == KN_CPU) return line;
  type.device = KN_CPU;
  OK(c, kn_tensor_new(c, &type, &made));
  size_t bytes = (size_t)kn_tensor_numel(made) * kn_dtype_size(kn_tensor_dtype(made));
  const kn_memory *m = memory_of(c);
  OK(c, m->copy(m->self, c, kn_tensor_data(made), kn_tensor_data(line), bytes, KN_TO_HOST));
  kn_tensor_release(line);
  return made;
}

/* ---- one op both ways ---- */

typedef struct bench {
  kn_context *c;
  suite_lines lines;
} bench;

static bool on_device[KN_OP_COUNT]; /* by op, in all tests: a kernel of the backend's own ran */

/* A block of its own for each tensor, so that the device sees who writes beside it. */
static cu_device *device;
static kn_status exact_alloc(void *self, kn_context *ctx, size_t bytes, void **data) {
  CUdeviceptr p;
  (void)self;
  if (device->api.cuMemAlloc(&p, bytes ? bytes : 1)) return kn_fail_nomem(ctx, bytes);
  *data = (void *)(uintptr_t)p;
  return KN_OK;
}
static void exact_release(void *self, void *data, size_t bytes) {
  (void)self, (void)bytes;
  ck_assert_int_eq(device->api.cuMemFree((CUdeviceptr)(uintptr_t)data), CUDA_SUCCESS);
}

static bench *open_bench(void) {
  static bench b;
  static kn_memory memory;
  const kn_memory *cached;
  b = (bench){.c = software_context()};
  OK(b.c, kn_device_memory(b.c, KN_CUDA, &cached));
  OK(b.c, cu_device_of(b.c, &device));
  memory = *cached;
  memory.alloc = exact_alloc, memory.release = exact_release;
  b.c->memory[KN_CUDA] = &memory;
  b.c->debug |= 1u << KN_DEBUG_DISPATCH;
  suite_keep_lines(b.c, &b.lines);
  return &b;
}

static void close_bench(bench *b) {
  kn_registry_close(b->c);
  suite_done(b->c);
}

/* Ops that move elements or decide give the same bits, others are rounded here and there. */
static bool is_exact(kn_op op) {
  kn_class k = kn_ops[op].op_class;
  if (op == KN_OP_randn) return false;
  return k == KN_CLASS_MOVE || k == KN_CLASS_VIEW || k == KN_CLASS_INDEX || k == KN_CLASS_CREATE ||
         k == KN_CLASS_RANDOM || k == KN_CLASS_POOL;
}

static double tolerance(kn_dtype d) {
  return d == KN_F64 ? 1e-11 : d == KN_F16 ? 4e-3 : d == KN_BF16 ? 3e-2 : 1e-5;
}

static void check_same(kn_op op, const char *what, const kn_tensor *got, const kn_tensor *want) {
  kn_dtype d = kn_tensor_dtype(want);
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  double most = 0;
  ck_assert_msg(kn_type_equal(&got->type, &want->type), "%s, %s: %s instead of %s", kn_op_name(op), what,
                kn_type_text(&got->type, a, sizeof a), kn_type_text(&want->type, b, sizeof b));
  for (int64_t k = 0; k < kn_tensor_numel(want); k++)
    if (isfinite(element(want, k))) most = fmax(most, fabs(element(want, k)));
  for (int64_t k = 0; k < kn_tensor_numel(want); k++) {
    double x = element(got, k), y = element(want, k);
    bool same = !memcmp(element_at(got, k), element_at(want, k), kn_dtype_size(d)) ||
                (isnan(x) && isnan(y)) || x == y;
    if (!same && !is_exact(op) && kn_dtype_is_float(d)) same = fabs(x - y) <= tolerance(d) * (most + 1);
    ck_assert_msg(same, "%s of %s, %s: element %lld is %.17g, the reference says %.17g", kn_op_name(op),
                  kn_dtype_name(d), what, (long long)k + 1, x, y);
  }
}

static void release(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

/* The law's results; in-place ops get a tensor of their own. */
static kn_status law(kn_context *c, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                     const kn_type *types, kn_tensor **want) {
  const kn_op_info *row = &kn_ops[op];
  bool bare = row->op_class == KN_CLASS_VIEW || row->flags & KN_FLAG_DYNAMIC;
  for (int i = 0; i < row->outs; i++) {
    OK(c, bare ? kn_tensor_symbolic(c, &types[i], NULL, &want[i]) : kn_tensor_new(c, &types[i], &want[i]));
    if (row->flags & KN_FLAG_WRITES) OK(c, kn_kernel_clone(c, NULL, in, 1, &want[i]));
  }
  kn_status st = row->kernel(c, attrs, in, n, want);
  if (st != KN_OK) release(want, row->outs);
  return st;
}

/* False: the rule does not take these inputs. */
static bool compare(bench *b, kn_op op, const void *attrs, kn_tensor *const *in, int n, const char *what) {
  kn_context *c = b->c;
  kn_type types[KN_MAX_INPUTS], outs[KN_MAX_OUTPUTS];
  kn_tensor *want[KN_MAX_OUTPUTS], *got[KN_MAX_OUTPUTS], *on[KN_MAX_INPUTS];
  char said[KN_ERROR_SIZE];
  for (int i = 0; i < n; i++) types[i] = in[i]->type;
  if (kn_infer_types(c, op, attrs, types, n, outs) != KN_OK) return false;
  kn_random start = c->random;
  kn_status st = law(c, op, attrs, in, n, outs, want);
  kn_random end = c->random;
  strcpy(said, st == KN_OK ? "" : kn_error(c));
  for (int i = 0; i < n; i++) on[i] = there(c, in[i]);
  for (int i = 0; i < kn_ops[op].outs; i++) outs[i].device = KN_CUDA;
  c->random = start;
  b->lines.n = 0, b->lines.text[0] = 0;
  kn_status mine = kn_run_now(c, op, attrs, on, n, outs, got);
  ck_assert_msg(mine == st, "%s, %s: \"%s\" instead of \"%s\"", kn_op_name(op), what, kn_error(c), said);
  if (st != KN_OK) ck_assert_str_eq(kn_error(c), said);
  ck_assert_msg(c->random.offset == end.offset && c->random.seed == end.seed, "%s", kn_op_name(op));
  on_device[op] |= strstr(b->lines.text, "ran on cuda") != NULL;
  for (int i = 0; st == KN_OK && i < kn_ops[op].outs; i++) {
    want[i] = here(c, want[i]), got[i] = here(c, got[i]);
    check_same(op, what, got[i], want[i]);
    kn_tensor_release(want[i]), kn_tensor_release(got[i]);
  }
  release(on, n);
  return true;
}

/* ---- the table ---- */

/* As the case says; scattered, and with all that runs at the same time in another order; and all of a dim the
 * same. */
static void run_case(bench *b, const gen_case *g, kn_dtype d, const char *what) {
  kn_tensor *in[3][GEN_MAX_IN];
  char text[64];
  const void *attrs = kn_ops[g->op].attrs == KN_ATTRS_none ? NULL : &g->attrs;
  for (int i = 0; i < g->n; i++) {
    OK(b->c, gen_make(b->c, g, i, d, &in[0][i]));
    in[1][i] = scattered(b->c, in[0][i]);
    OK(b->c, gen_make(b->c, g, i, d, &in[2][i]));
    if (g->in[i].rank && g->in[i].dims[0] && !(kn_ops[g->op].flags & KN_FLAG_WRITES))
      in[2][i]->strides[0] = 0;
  }
  compare(b, g->op, attrs, in[0], g->n, what);
  setenv("SIM_ORDER", "last", 1);
  snprintf(text, sizeof text, "%s, scattered", what);
  compare(b, g->op, attrs, in[1], g->n, text);
  unsetenv("SIM_ORDER");
  snprintf(text, sizeof text, "%s, expanded", what);
  compare(b, g->op, attrs, in[2], g->n, text);
  for (int k = 0; k < 3; k++) release(in[k], g->n);
}

/* The case with nothing in the dims of one size, for each size; and with no dims at all. */
static void run_empty(bench *b, const gen_case *g, kn_dtype d) {
  gen_case empty;
  for (int64_t size = 1; size < 9; size++) {
    bool any = false;
    empty = *g;
    for (int i = 0; i < g->n; i++)
      for (int k = 0; k < g->in[i].rank; k++)
        if (g->in[i].dims[k] == size) empty.in[i].dims[k] = 0, any = true;
    if (any) run_case(b, &empty, d, "empty");
  }
  empty = *g;
  for (int i = 0; i < g->n; i++) empty.in[i].rank = 0;
  run_case(b, &empty, d, "0-d");
}

static bool sweeps_all(void) {
  const char *sweep = getenv("KILN_SWEEP");
  return sweep && !strcmp(sweep, "whole");
}

/* Dtypes that kernels are most written for; all with KILN_SWEEP=whole. */
static bool is_swept(kn_dtype d) { return sweeps_all() || d == KN_F32 || d == KN_BF16 || d == KN_I32; }

/* Every case in those, in all others the first of each op. */
START_TEST(small_ones) {
  bench *b = open_bench();
  gen_case made;
  for (int d = 0; d < KN_DTYPE_COUNT; d++) {
    bool met[KN_OP_COUNT] = {false};
    for (int i = 0; i < GEN_CASES + KN_OP_COUNT; i++) {
      const gen_case *g = i < GEN_CASES ? &gen_cases[i] : &made;
      if (i >= GEN_CASES && !gen_default((kn_op)(i - GEN_CASES), &made)) continue;
      if (kn_ops[g->op].composite || (met[g->op] && !is_swept((kn_dtype)d))) continue;
      run_case(b, g, (kn_dtype)d, "small");
      if (!met[g->op] && is_swept((kn_dtype)d)) run_empty(b, g, (kn_dtype)d);
      met[g->op] = true;
    }
  }
  close_bench(b);
}
END_TEST

/* Each layout in a dtype or two, of mixed ones every third. */
START_TEST(elementwise_layouts) {
  bench *b = open_bench();
  kn_tensor *in[3];
  kn_attrs_any attrs;
  char what[96];
  for (int op = 0; op < KN_OP_COUNT; op++) {
    if (kn_ops[op].op_class != KN_CLASS_ELEMENTWISE || kn_ops[op].composite) continue;
    for (int l = 0; l < LAYOUTS; l++) {
      if (layouts[l].dims[0].v[0] > 65536) continue;
      const kn_dtype one = (kn_dtype)((op + l) % KN_DTYPE_COUNT),
                     other = (kn_dtype)((op + 3 * l) % KN_DTYPE_COUNT);
      const kn_dtype d[] = {one, l % 3 ? one : other};
      const int n = layout_make(b->c, (kn_op)op, &layouts[l], d, in, &attrs, what, sizeof what);
      compare(b, (kn_op)op, kn_ops[op].attrs == KN_ATTRS_none ? NULL : &attrs, in, n, what);
      release(in, n);
    }
  }
  close_bench(b);
}
END_TEST

/* ---- larger ones ---- */

static kn_tensor *places(kn_context *c, kn_dtype d, kn_ints dims, int64_t limit) {
  kn_type type = type_of(d, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    kn_element_put_int(d, element_at(t, k), (k * 7 + k / 11) % limit + 1);
  return t;
}

/* Owns what it is given. */
#define RUN(b, op, attrs, ...)                                                                               \
  do {                                                                                                       \
    kn_tensor *run_in_[] = {__VA_ARGS__};                                                                    \
    int run_n_ = sizeof run_in_ / sizeof *run_in_;                                                           \
    ck_assert_msg(compare(b, KN_OP_##op, attrs, run_in_, run_n_, "larger"), "%s", kn_error((b)->c));         \
    release(run_in_, run_n_);                                                                                \
  } while (0)

static void orders(bench *b, kn_dtype d) {
  kn_context *c = b->c;
  RUN(b, nonzero, NULL, filled(c, d, DIMS(7, 701), 3));
  RUN(b, unique, NULL, filled(c, d, DIMS(3000), 3));
  RUN(b, unique, NULL, filled(c, d, DIMS(3, 7), 3));
  for (int falls = 0; falls < 2; falls++) {
    const kn_attrs_sort rows = {.dim = 1, .descending = falls}, columns = {.dim = 0, .descending = falls};
    RUN(b, sort, &columns, filled(c, d, DIMS(2500), 3));
    RUN(b, sort, &columns, filled(c, d, DIMS(1025, 2), 3));
    RUN(b, sort, &rows, filled(c, d, DIMS(2, 2100), 3));
    RUN(b, sort, &rows, filled(c, d, DIMS(300, 7), 3));
    RUN(b, sort, &rows, filled(c, d, DIMS(30, 7, 2), 3));
    const kn_attrs_searchsorted side = {.right = falls};
    kn_tensor *list = filled(c, d, DIMS(50), 3), *sorted[2];
    OK(c, kn_apply(c, KN_OP_sort, &(kn_attrs_sort){.dim = 0}, &list, 1, sorted));
    RUN(b, searchsorted, &side, kn_tensor_retain(sorted[0]), filled(c, d, DIMS(40, 6), 8));
    release(sorted, 2), kn_tensor_release(list);
  }
}

static void picks(bench *b, kn_dtype d, int dim) {
  kn_context *c = b->c;
  const kn_attrs_axis at = {.dim = dim};
  const kn_dtype id = dim ? KN_I32 : KN_I64;
  const kn_ints wide = dim ? DIMS(30, 80) : DIMS(2000, 5);
#define EACH_PLACE places(c, id, wide, dim ? 6 : 40)
#define LIST_OF places(c, KN_I64, DIMS(1500), dim ? 6 : 40)
  RUN(b, gather, &at, filled(c, d, DIMS(40, 6), 1), EACH_PLACE);
  RUN(b, index_select, &at, filled(c, d, DIMS(40, 6, 4), 1), LIST_OF);
  RUN(b, index_select, &at, filled(c, d, DIMS(40, 6, 3), 1), LIST_OF);
  RUN(b, scatter, &at, filled(c, d, DIMS(40, 6), 1), EACH_PLACE,
      filled(c, d, dim ? DIMS(40, 80) : DIMS(2000, 6), 2));
  RUN(b, scatter_add, &at, filled(c, d, DIMS(40, 6), 1), EACH_PLACE,
      filled(c, d, dim ? DIMS(40, 80) : DIMS(2000, 6), 2));
  for (int how = 0; how < KN_CHOICE_fold_count; how++) {
    const kn_attrs_scatter_fold fold = {.dim = dim, .reduce = how};
    RUN(b, scatter_fold, &fold, filled(c, d, DIMS(40, 6), 1), EACH_PLACE,
        filled(c, d, dim ? DIMS(40, 80) : DIMS(2000, 6), 2));
  }
  const kn_ints slices = dim ? DIMS(40, 1500, 3) : DIMS(1500, 6, 3);
  RUN(b, index_add, &at, filled(c, d, DIMS(40, 6, 3), 1), LIST_OF, filled(c, d, slices, 2));
  RUN(b, index_copy, &at, filled(c, d, DIMS(40, 6, 3), 1), LIST_OF, filled(c, d, slices, 2));
#undef EACH_PLACE
#undef LIST_OF
}

static void moves(bench *b, kn_dtype d) {
  kn_context *c = b->c;
  for (int64_t k = -9; k < 60; k += 17) {
    const kn_attrs_diagonal at = {.diagonal = k};
    RUN(b, tril, &at, filled(c, d, DIMS(3, 20, 50), 4));
    RUN(b, triu, &at, filled(c, d, DIMS(3, 20, 50), 4));
  }
  for (int step = 2; step < 8; step += 5) {
    const kn_attrs_unfold at = {.dim = 1, .size = 5, .step = step};
    RUN(b, unfold_grad, &at, filled(c, d, DIMS(3, step == 2 ? 8 : 3, 4, 5), 4),
        filled(c, d, DIMS(3, 20, 4), 4));
  }
}

static void pools(bench *b, kn_dtype d) {
  kn_context *c = b->c;
  const kn_attrs_pool2d at = {
      .kernel_size = DIMS(3, 2), .stride = DIMS(2), .padding = DIMS(1), .dilation = DIMS(1)};
  const kn_attrs_avg_pool2d mean = {.kernel_size = DIMS(3, 2), .stride = DIMS(2), .padding = DIMS(1)};
  RUN(b, max_pool2d, &at, filled(c, d, DIMS(2, 3, 17, 19), 3));
  RUN(b, max_pool2d_indices, &at, filled(c, d, DIMS(2, 3, 17, 19), 3));
  RUN(b, max_pool2d_grad, &at, filled(c, d, DIMS(2, 3, 9, 10), 5), filled(c, d, DIMS(2, 3, 17, 19), 3));
  RUN(b, avg_pool2d, &mean, filled(c, d, DIMS(2, 3, 17, 19), 3));
  RUN(b, avg_pool2d_grad, &mean, filled(c, d, DIMS(2, 3, 9, 10), 5), filled(c, d, DIMS(2, 3, 17, 19), 3));
}

/* What gen.h has no case for. */
static void others(bench *b, kn_dtype d) {
  kn_context *c = b->c;
  const kn_attrs_value nine = {.value = 9};
  RUN(b, full_like, &nine, filled(c, d, DIMS(50), 3));
  for (int dim = 0; dim < 2; dim++) {
    const kn_attrs_reduce over = {.dim = DIMS(dim)};
    const kn_attrs_argreduce at = {.dim = dim ? 1 : KN_NONE};
    RUN(b, all, &over, filled(c, d, DIMS(37, 301), 1));
    RUN(b, any, &over, filled(c, d, DIMS(37, 301), 1));
    RUN(b, argmax, &at, filled(c, d, DIMS(37, 301), 1));
    RUN(b, argmin, &at, filled(c, d, DIMS(37, 301), 1));
  }
}

/* Small values, so that products of them stay near. */
static kn_tensor *small(kn_context *c, kn_dtype d, kn_ints dims, int salt) {
  kn_type type = type_of(d, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) set_element(t, k, 0.3 * sin(0.7 * (double)k + salt));
  return t;
}

static void layers(bench *b, kn_dtype d, bool reverse) {
  kn_context *c = b->c;
  const kn_attrs_direction way = {.reverse = reverse};
  const kn_attrs_rnn_direction rnn = {.reverse = reverse, .nonlinearity = reverse};
#define S(...) small(c, d, DIMS(__VA_ARGS__), __LINE__)
  RUN(b, lstm_layer, &way, S(4, 3, 20), S(20, 5), S(3, 5), S(3, 5));
  RUN(b, lstm_layer_grad, &way, S(4, 3, 20), S(4, 3, 5), S(20, 5), S(3, 5), S(4, 3, 5), S(4, 3, 5),
      S(4, 3, 20));
  RUN(b, gru_layer, &way, S(4, 3, 15), S(15, 5), S(3, 5), S(15));
  RUN(b, gru_layer_grad, &way, S(4, 3, 20), S(4, 3, 5), S(15, 5), S(3, 5), S(4, 3, 5), S(4, 3, 20));
  RUN(b, rnn_layer, &rnn, S(4, 3, 5), S(5, 5), S(3, 5));
  RUN(b, rnn_layer_grad, &rnn, S(4, 3, 5), S(5, 5), S(4, 3, 5));
#undef S
}

/* Halves by cuDNN, in turn with what it does not take; others by the host route. */
static void attention(bench *b, kn_dtype d, bool causal) {
  kn_context *c = b->c;
  const kn_attrs_fused_attention a = {.is_causal = causal, .scale = -1};
#define S(...) small(c, d, DIMS(__VA_ARGS__), __LINE__)
#define W(...) small(c, kn_dtypes[d].wide, DIMS(__VA_ARGS__), __LINE__)
  RUN(b, fused_attention, &a, S(2, 4, 5, 8), S(2, 2, 7, 8), S(2, 2, 7, 16));
  RUN(b, fused_attention, &a, S(2, 4, 5, 8), S(2, 4, 7, 8), S(2, 4, 7, 8), S(1, 4, 5, 7));
  RUN(b, fused_attention, &a, S(2, 4, 5, 8), S(2, 4, 7, 8), S(2, 4, 7, 8), W(2, 1, 1, 7));
  RUN(b, fused_attention_grad, &a, S(2, 4, 5, 8), S(2, 2, 7, 8), S(2, 2, 7, 8), S(2, 4, 5, 8), W(2, 4, 5),
      S(2, 4, 5, 8));
  RUN(b, fused_attention_grad, &a, S(2, 4, 5, 8), S(2, 4, 7, 8), S(2, 4, 7, 8), S(2, 4, 5, 8), W(2, 4, 5),
      S(2, 4, 5, 8), W(2, 1, 1, 7));
#undef W
#undef S
}

static void counts(bench *b, kn_dtype d) {
  kn_context *c = b->c;
  const kn_attrs_bincount few = {.minlength = 3}, many = {.minlength = 200};
  RUN(b, bincount, &few, places(c, d, DIMS(3000), 93));
  RUN(b, bincount, &many, places(c, d, DIMS(3000), 93));
  RUN(b, bincount, &few, places(c, d, DIMS(3000), 93), filled(c, KN_F32, DIMS(3000), 9));
}

START_TEST(larger_ones) {
  bench *b = open_bench();
  for (int d = 0; d < KN_DTYPE_COUNT; d++) {
    if (!is_swept((kn_dtype)d)) continue;
    orders(b, (kn_dtype)d);
    for (int dim = 0; dim < 2; dim++) picks(b, (kn_dtype)d, dim);
    moves(b, (kn_dtype)d);
    others(b, (kn_dtype)d);
    if (kn_dtypes[d].category == KN_CAT_INT) counts(b, (kn_dtype)d);
    if (!kn_dtype_is_float((kn_dtype)d)) continue;
    pools(b, (kn_dtype)d);
    for (int reverse = 0; reverse < 2; reverse++) layers(b, (kn_dtype)d, reverse);
    for (int causal = 0; causal < 2; causal++) attention(b, (kn_dtype)d, causal);
    kn_tensor *some[] = {places(b->c, (kn_dtype)d, DIMS(60), 9), places(b->c, (kn_dtype)d, DIMS(60), 7)};
    compare(b, KN_OP_standard_gamma_grad, NULL, some, 2, "larger");
    release(some, 2);
  }
  close_bench(b);
}
END_TEST

/* ---- what is made of numbers, and draws ---- */

START_TEST(made_ones) {
  bench *b = open_bench();
  for (int d = 0; d < KN_DTYPE_COUNT; d++) {
    const kn_dtype t = (kn_dtype)d;
    const bool whole = kn_dtypes[d].category != KN_CAT_FLOAT;
#define MADE(op, kind, ...) compare(b, KN_OP_##op, &(kn_attrs_##kind){__VA_ARGS__}, NULL, 0, "made")
    for (int k = 0; k < 3; k++)
      MADE(full, fill, .sizes = DIMS(5, 77), .value = (double[]){0, 3.7, -1e9}[k], .dtype = t);
    MADE(arange, range, .start = 2, .end = 90, .step = whole ? 3 : 0.7, .dtype = t);
    MADE(linspace, linspace, .start = 3.3, .end = 70.1, .steps = 777, .dtype = t);
    MADE(linspace, linspace, .start = 3.3, .end = 70.1, .steps = 1, .dtype = t);
    MADE(eye, eye, .n = 20, .m = 33, .dtype = t);
    for (int k = 0; k < 4; k++) {
      const kn_ints sizes = DIMS((int64_t[]){1, 4, 1003, 5000}[k]);
      MADE(randint, randint, .low = t == KN_I64 ? INT64_MIN : 0, .high = t == KN_I64 ? INT64_MAX : 100,
           .sizes = sizes, .dtype = t);
      if (whole) continue;
      MADE(rand, create, .sizes = sizes, .dtype = t);
      MADE(randn, create, .sizes = sizes, .dtype = t);
    }
    if (whole) continue;
    kn_tensor *p = filled(b->c, t, DIMS(999), 5);
    for (int64_t k = 0; k < 999; k++) set_element(p, k, (double)(k % 11) / 10);
    RUN(b, bernoulli, NULL, p);
#undef MADE
  }
  close_bench(b);
}
END_TEST

/* ---- faults ---- */

START_TEST(faults) {
  bench *b = open_bench();
  kn_context *c = b->c;
  const kn_attrs_axis at = {.dim = 0};
  for (int way = 0; way < 5; way++) {
    kn_tensor *x = filled(c, KN_F32, DIMS(40, 6), 1), *list = places(c, KN_I64, DIMS(1500), 40);
    kn_tensor *each = places(c, KN_I64, DIMS(300, 6), 40), *src = filled(c, KN_F32, DIMS(1500, 6), 2);
    kn_element_put_int(KN_I64, element_at(list, 700), 41),
        kn_element_put_int(KN_I64, element_at(each, 900), 41);
    kn_element_put_int(KN_I64, element_at(list, 71), -3), kn_element_put_int(KN_I64, element_at(each, 71), 0);
    if (way == 0) compare(b, KN_OP_gather, &at, (kn_tensor *[]){x, each}, 2, "fault");
    if (way == 1) compare(b, KN_OP_index_select, &at, (kn_tensor *[]){x, list}, 2, "fault");
    if (way == 2) compare(b, KN_OP_index_add, &at, (kn_tensor *[]){x, list, src}, 3, "fault");
    if (way == 3) compare(b, KN_OP_scatter, &at, (kn_tensor *[]){x, each, src}, 3, "fault");
    if (way == 4) compare(b, KN_OP_bincount, &(kn_attrs_bincount){0}, &list, 1, "fault");
    /* It is said once, and what comes after is as if nothing had been. */
    kn_element_put_int(KN_I64, element_at(list, 700), 1), kn_element_put_int(KN_I64, element_at(list, 71), 1);
    compare(b, KN_OP_index_select, &at, (kn_tensor *[]){x, list}, 2, "after a fault");
    kn_tensor_release(x), kn_tensor_release(list), kn_tensor_release(each), kn_tensor_release(src);
  }
  close_bench(b);
}
END_TEST

/* The last: no kernel of the device is there for nothing, and none declines all that was asked. */
START_TEST(kernels_ran) {
  char idle[1024] = "";
  for (int op = 0; op < KN_OP_COUNT; op++)
    if (!kn_ops[op].composite && cu_provider.kernel[op] && !on_device[op] && op != KN_OP_to_device)
      snprintf(idle + strlen(idle), sizeof idle - strlen(idle), " %s", kn_op_name((kn_op)op));
  ck_assert_msg(!idle[0], "never on the device:%s", idle);
}
END_TEST

/* ---- the host route ---- */

/* "`cholesky` `cofactor` …": rows without a kernel of the device, in the table's order. */
static void list_host_route(char *text, size_t size) {
  size_t at = 0;
  text[0] = 0;
  for (int op = 0; op < KN_OP_COUNT; op++)
    if (!kn_ops[op].composite && !cu_provider.kernel[op])
      at += (size_t)snprintf(text + at, size - at, "%s`%s`", at ? " " : "", kn_op_name((kn_op)op));
}

/* The README's paragraph between its marks, on one line. */
static void read_told(char *text, size_t size) {
  char path[512], line[1024];
  bool inside = false;
  text[0] = 0;
  snprintf(path, sizeof path, "%s/backends/cuda/README.md",
           getenv("KILN_SOURCE") ? getenv("KILN_SOURCE") : ".");
  FILE *f = fopen(path, "r");
  ck_assert_ptr_nonnull(f);
  while (fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "<!-- host route -->") || !strcmp(line, "<!-- end -->")) {
      inside = line[5] == 'h';
      continue;
    }
    if (!inside || !line[0]) continue;
    snprintf(text + strlen(text), size - strlen(text), "%s%s", text[0] ? " " : "", line);
  }
  fclose(f);
}

START_TEST(host_route_is_told) {
  char is[4096], told[4096];
  list_host_route(is, sizeof is);
  read_told(told, sizeof told);
  ck_assert_str_eq(told, is);
}
END_TEST

SUITE("cuda_sweep", host_route_is_told, small_ones, elementwise_layouts, larger_ones, made_ones, faults,
      kernels_ran)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_sweep", no_headers)
#endif
