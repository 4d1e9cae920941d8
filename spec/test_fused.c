/* Parts of graphs that oneDNN computes as groups: random chains of convolutions and products with constant
 * weights and what may follow them, against the reference; what the log says of them; values that are no
 * numbers; constants that are replaced; memory. Where oneDNN is absent nothing is tested. */
#include "spec/suite.h"
#include "backends/registry.h"
#include "core/dispatch.h"
#include "graph/session.h"
#include <math.h>

static void shown(void *ud, kn_out kind, const char *text, size_t len) {
  (void)ud, (void)kind;
  fprintf(stderr, "%.*s\n", (int)len, text);
}

/* All backends, or "onednn" alone beside the reference; NULL where there is no oneDNN. */
static kn_context *context(const char *only, const char *debug, suite_lines *log) {
  kn_backend_report r = {.name = ""};
  kn_context *c = kn_context_new(NULL, debug);
  ck_assert_ptr_nonnull(c);
  c->threads = 2;
  if (debug && !log) c->output = shown;
  if (log) {
    suite_keep_lines(c, log);
  }
  OK(c, kn_registry_open(c, NULL));
  for (int i = 0; strcmp(r.name, "onednn") && i < kn_registry_count(); i++) kn_registry_report(c, i, &r);
  kn_registry_close(c);
  if (r.available) {
    OK(c, kn_registry_open(c, only));
    return c;
  }
  printf("skipped, as there is no oneDNN: %s\n", r.reason);
  kn_context_free(c);
  return NULL;
}

static void done(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

static uint32_t noise(uint32_t *s) { return (*s = *s * 1664525u + 1013904223u) >> 8; }
static int64_t below(uint32_t *s, int64_t n) { return (int64_t)(noise(s) % (uint32_t)n); }

static kn_tensor *filled(kn_context *c, uint32_t seed, double size, int rank, const int64_t *dims) {
  kn_type t = {.dtype = KN_F32, .rank = (uint8_t)rank};
  if (rank) memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
  kn_tensor *x;
  OK(c, kn_tensor_new(c, &t, &x));
  float *p = kn_tensor_data(x);
  for (int64_t i = 0; i < kn_tensor_numel(x); i++) p[i] = (float)(size * (noise(&seed) / 8388608.0 - 1));
  return x;
}
#define DIMS(...) ((int64_t[]){__VA_ARGS__})

/* ---- graphs ---- */

typedef struct made { /* a graph that is being written */
  kn_builder b;
  kn_graph *g;
  uint32_t seed;
} made;

static kn_value *constant(made *m, double size, int rank, const int64_t *dims) {
  kn_tensor *t = filled(m->b.ctx, noise(&m->seed), size, rank, dims);
  kn_vtype type = {.kind = KN_V_TENSOR, .tensor = t->type};
  kn_value *v = kn_add_slot_node(&m->b, KN_NODE_tensor, kn_add_slot(&m->b, KN_SLOT_CONST, "w", &type, t));
  kn_tensor_release(t);
  return v;
}

static kn_value *op(made *m, kn_op o, const void *attrs, kn_value *a, kn_value *b, kn_value *c) {
  kn_value *in[3] = {a, b, c};
  kn_node *n = kn_add_op(&m->b, o, attrs, in, c ? 3 : b ? 2 : 1, NULL, 0);
  ck_assert_msg(n != NULL, "%s: %s", kn_op_name(o), kn_error(m->b.ctx));
  return n->out[0];
}

static kn_value *number(made *m, double x) {
  kn_value *v = kn_add_const(&m->b, (kn_scalar){KN_SCALAR_FLOAT, {.f = x}});
  return kn_add_to_tensor(&m->b, v, KN_F32);
}

static const kn_type *type_of(const kn_value *v) { return &v->type.tensor; }

static kn_value *conv(made *m, kn_value *x) {
  const kn_type *t = type_of(x);
  int64_t in = t->dims[1], k = 1 + 2 * below(&m->seed, 3), out = 1 + below(&m->seed, 40), groups = 1;
  if (t->dims[2] < k || t->dims[3] < k) k = 1;
  if (below(&m->seed, 4) == 0) out = in, groups = in;
  kn_attrs_conv2d a = {.stride = {1, {1 + below(&m->seed, 2)}},
                       .padding = {1, {below(&m->seed, k)}},
                       .dilation = {1, {1}},
                       .groups = groups};
  kn_value *w = constant(m, 1.5 / sqrt((double)(in / groups * k * k)), 4, DIMS(out, in / groups, k, k));
  kn_value *bias = below(&m->seed, 2) ? constant(m, 1, 1, DIMS(out)) : NULL;
  return op(m, KN_OP_conv2d, &a, x, w, bias);
}

/* As a graph has linear(): times a constant that is turned, plus a constant. */
static kn_value *linear(made *m, kn_value *x) {
  int64_t in = type_of(x)->dims[type_of(x)->rank - 1], out = 1 + below(&m->seed, 70);
  kn_value *w;
  if (below(&m->seed, 2))
    w = constant(m, 1.5 / sqrt((double)in), 2, DIMS(in, out));
  else
    w = op(m, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1},
           constant(m, 1.5 / sqrt((double)in), 2, DIMS(out, in)), NULL, NULL);
  kn_value *y = op(m, KN_OP_matmul, NULL, x, w, NULL);
  return below(&m->seed, 3) ? op(m, KN_OP_add, NULL, y, constant(m, 1, 1, DIMS(out)), NULL) : y;
}

static kn_value *limited(made *m, kn_value *x, double low, double high) { /* as relu6 is in graphs */
  kn_value *a = number(m, high), *b = number(m, low);
  kn_value *y = op(m, KN_OP_where, NULL, op(m, KN_OP_ge, NULL, x, a, NULL), a, x);
  return op(m, KN_OP_where, NULL, op(m, KN_OP_le, NULL, x, b, NULL), b, y);
}

static kn_value *gelu(made *m, kn_value *x) {
  kn_value *e =
      op(m, KN_OP_erf, NULL, op(m, KN_OP_mul, NULL, x, number(m, 0.7071067690849304), NULL), NULL, NULL);
  e = op(m, KN_OP_mul, NULL, op(m, KN_OP_add, NULL, e, number(m, 1), NULL), number(m, 0.5), NULL);
  return op(m, KN_OP_mul, NULL, x, e, NULL);
}

static kn_value *leaky(made *m, kn_value *x) {
  kn_value *y = op(m, KN_OP_mul, NULL, x, number(m, 0.125), NULL);
  return op(m, KN_OP_where, NULL, op(m, KN_OP_gt, NULL, x, number(m, 0), NULL), x, y);
}

static kn_value *hardswish(made *m, kn_value *x) {
  kn_attrs_clamp six = {.min = 0, .max = 6};
  kn_value *y = op(m, KN_OP_clamp, &six, op(m, KN_OP_add, NULL, x, number(m, 3), NULL), NULL, NULL);
  return op(m, KN_OP_mul, NULL, x, op(m, KN_OP_mul, NULL, y, number(m, 0.1666666716337204), NULL), NULL);
}

static kn_value *function(made *m, kn_value *x) {
  switch (below(&m->seed, 11)) {
  case 0: return op(m, KN_OP_clamp, &(kn_attrs_clamp){.min = -0.5, .max = 1.25}, x, NULL, NULL);
  case 1: return limited(m, x, 0, 6);
  case 2: return op(m, KN_OP_mul, NULL, x, op(m, KN_OP_sigmoid, NULL, x, NULL, NULL), NULL);
  case 3: return gelu(m, x);
  case 4: return leaky(m, x);
  case 5: return hardswish(m, x);
  case 6: return op(m, KN_OP_sigmoid, NULL, x, NULL, NULL);
  case 7: return op(m, KN_OP_tanh, NULL, x, NULL, NULL);
  case 8: return op(m, KN_OP_mul, NULL, x, number(m, 0.75), NULL);
  default: return op(m, KN_OP_relu, NULL, x, NULL, NULL);
  }
}

static kn_value *per_channel(made *m, kn_value *x) {
  const kn_type *t = type_of(x);
  kn_value *w = t->rank == 4 ? constant(m, 1, 3, DIMS(t->dims[1], 1, 1))
                             : constant(m, 1, 1, DIMS(t->dims[t->rank - 1]));
  return op(m, below(&m->seed, 2) ? KN_OP_mul : KN_OP_add, NULL, x, w, NULL);
}

static kn_value *pool(made *m, kn_value *x) {
  const kn_type *t = type_of(x);
  int64_t k = 2 + below(&m->seed, 2), pad = below(&m->seed, 2);
  if (t->dims[2] < k || t->dims[3] < k) return x;
  if (below(&m->seed, 2)) {
    kn_attrs_pool2d a = {
        .kernel_size = {1, {k}}, .stride = {1, {2}}, .padding = {1, {pad}}, .dilation = {1, {1}}};
    return op(m, KN_OP_max_pool2d, &a, x, NULL, NULL);
  }
  kn_attrs_avg_pool2d a = {
      .kernel_size = {1, {k}}, .stride = {1, {2}}, .padding = {1, {pad}}, .count_include_pad = true};
  return op(m, KN_OP_avg_pool2d, &a, x, NULL, NULL);
}

enum { MOST = 40 };

/* Some value before that has these sizes, or this one. */
static kn_value *alike(made *m, kn_value *const *all, int n, kn_value *x) {
  for (int i = 0; i < 2 * n; i++) {
    kn_value *v = all[below(&m->seed, n)];
    if (v != x && kn_type_equal(type_of(v), type_of(x))) return v;
  }
  return x;
}

static void finish(kn_context *c, made *m, kn_value *x, kn_value **flat) {
  kn_tree args[1] = {{.kind = KN_TREE_VALUE, .value = x}},
          results[2] = {{.kind = KN_TREE_VALUE, .value = flat[0]},
                        {.kind = KN_TREE_VALUE, .value = flat[1], .i = 1}};
  ck_assert(kn_set_args(&m->b, args, 1) && kn_set_results(&m->b, flat, 2, results, 2));
  OK(c, kn_graph_finish(&m->b));
}

static void chain(made *m, kn_context *c, uint32_t seed, int64_t batch, kn_type *input) {
  m->seed = seed;
  OK(c, kn_graph_new(c, "chain", &m->g));
  kn_builder_init(&m->b, c, m->g);
  bool image = below(&m->seed, 4) != 0;
  int64_t channels = 1 + below(&m->seed, 24), side = 5 + below(&m->seed, 12);
  *input = image ? (kn_type){.dtype = KN_F32, .rank = 4, .dims = {batch, channels, side, side + 1}}
                 : (kn_type){.dtype = KN_F32, .rank = 3, .dims = {batch, side, channels}};
  kn_value *all[MOST], *x = kn_add_input(&m->b, "x", &(kn_vtype){.kind = KN_V_TENSOR, .tensor = *input});
  int n = 0;
  all[n++] = x;
  for (int i = 0, steps = 4 + (int)below(&m->seed, 14); i < steps; i++) {
    x = below(&m->seed, 6) ? all[n - 1] : all[below(&m->seed, n)];
    image = type_of(x)->rank == 4;
    int64_t what = below(&m->seed, 10);
    if (what < 4)
      x = image ? conv(m, x) : linear(m, x);
    else if (what < 6)
      x = function(m, x);
    else if (what == 6)
      x = op(m, KN_OP_add, NULL, x, alike(m, all, n, x), NULL);
    else if (what == 7)
      x = per_channel(m, x);
    else if (image && what == 8)
      x = pool(m, x);
    else if (image && i > 8)
      x = op(m, KN_OP_mean, &(kn_attrs_reduce){.dim = {2, {2, 3}}, .keepdim = below(&m->seed, 2)}, x, NULL,
             NULL);
    else
      x = function(m, x);
    all[n++] = x;
  }
  kn_value *flat[2] = {all[n - 1], all[below(&m->seed, n)]};
  finish(c, m, all[0], flat);
}

/* ---- both ways ---- */

static kn_session *session(kn_context *c, kn_graph *g, bool ref) {
  const kn_target *const *targets;
  int n;
  kn_session *s;
  OK(c, kn_registry_targets(c, &targets, &n));
  OK(c, kn_session_new(c, g, ref ? targets + n - 1 : targets, ref ? 1 : n, &s));
  return s;
}

static void same(const kn_tensor *a, const kn_tensor *b, uint32_t seed, const char *what) {
  ck_assert(kn_type_equal(&a->type, &b->type));
  const float *p = kn_tensor_data(a), *q = kn_tensor_data(b);
  double most = 0;
  for (int64_t i = 0; i < kn_tensor_numel(b); i++)
    if (isfinite(q[i]) && fabs((double)q[i]) > most) most = fabs((double)q[i]);
  for (int64_t i = 0; i < kn_tensor_numel(a); i++) {
    bool fits = isnan(q[i])   ? isnan(p[i])
                : isinf(q[i]) ? p[i] == q[i]
                              : fabs((double)p[i] - (double)q[i]) <= 2e-5 * (most + 1);
    if (!fits)
      ck_abort_msg("chain %u, %s: element %lld is %.9g, not %.9g", seed, what, (long long)i, (double)p[i],
                   (double)q[i]);
  }
}

static void run_both(kn_session *mine, kn_session *ref, kn_tensor *x, uint32_t seed, const char *what) {
  kn_rvalue in = {.tensor = x}, a[2], b[2];
  OK(kn_session_context(mine), kn_session_run(mine, &in, 1, a, 2));
  OK(kn_session_context(ref), kn_session_run(ref, &in, 1, b, 2));
  for (int i = 0; i < 2; i++) {
    same(a[i].tensor, b[i].tensor, seed, what);
    kn_tensor_release(a[i].tensor);
    kn_tensor_release(b[i].tensor);
  }
}

/* Each constant in turn holds something that is no number; then it is as it was. Not filters: what of them
 * lies over padding is not multiplied by everybody. */
static void replace_constants(const kn_graph *g, kn_session *mine, kn_session *ref, kn_tensor *x,
                              uint32_t seed) {
  for (uint32_t i = 0; i < g->nslots; i++) {
    const kn_type *t = &g->slots[i]->type.tensor;
    if (t->rank == 4) continue;
    kn_rvalue was = {.tensor = g->slots[i]->tensor},
              odd = {.tensor = filled(mine->ctx, seed, 1, t->rank, t->dims)};
    ((float *)kn_tensor_data(odd.tensor))[seed % (uint32_t)kn_tensor_numel(odd.tensor)] = NAN;
    for (int k = 0; k < 2; k++) {
      OK(mine->ctx, kn_session_set_slot(mine, i, k ? &was : &odd));
      OK(ref->ctx, kn_session_set_slot(ref, i, k ? &was : &odd));
      char what[64];
      snprintf(what, sizeof what, "constant %u %s", i + 1, k ? "is back" : "is no number");
      run_both(mine, ref, x, seed, what);
    }
    kn_tensor_release(odd.tensor);
  }
}

static void compare(kn_context *c, uint32_t seed, int64_t batch) {
  made m;
  kn_type type;
  chain(&m, c, seed, batch, &type);
  kn_session *mine = session(c, m.g, false), *ref = session(c, m.g, true);
  kn_tensor *x = filled(c, seed, 2, type.rank, type.dims), *y = filled(c, seed + 1, 2, type.rank, type.dims);
  run_both(mine, ref, x, seed, "first run");
  run_both(mine, ref, y, seed, "second run");
  if (seed % 4 == 0) replace_constants(m.g, mine, ref, x, seed);
  int64_t turned = y->type.dims[type.rank - 1] == y->type.dims[type.rank - 2];
  if (turned) { /* lies in another way */
    int64_t s = y->strides[type.rank - 1];
    y->strides[type.rank - 1] = y->strides[type.rank - 2];
    y->strides[type.rank - 2] = s;
  } else
    y->strides[0] = 0;
  run_both(mine, ref, y, seed, "other strides");
  ((float *)kn_tensor_data(x))[seed % (uint32_t)kn_tensor_numel(x)] = seed % 2 ? NAN : INFINITY;
  run_both(mine, ref, x, seed, "not a number");
  kn_tensor_release(x);
  kn_tensor_release(y);
  kn_session_free(mine);
  kn_session_free(ref);
  kn_graph_release(m.g);
}

START_TEST(chains_beside_the_reference_alone) {
  kn_context *c = context("onednn", getenv("KILN_DEBUG"), NULL);
  if (!c) return;
  const char *only = getenv("SEED");
  for (uint32_t seed = only ? (uint32_t)atoi(only) : 1; seed <= (only ? (uint32_t)atoi(only) : 120); seed++)
    compare(c, seed, 1 + seed % 3);
  done(c);
}
END_TEST

START_TEST(chains_beside_all_backends) {
  kn_context *c = context(NULL, NULL, NULL);
  if (!c) return;
  for (uint32_t seed = 1001; seed <= 1080; seed++) compare(c, seed, 1 + seed % 3);
  done(c);
}
END_TEST

/* Whatever way is the fastest now, with all that is folded in. */
START_TEST(chains_that_are_measured) {
  kn_context *c = context("onednn", NULL, NULL);
  if (!c) return;
  c->tuning = KN_TUNING_MEASURE;
  for (uint32_t seed = 3001; seed <= 3030; seed++) compare(c, seed, 4);
  done(c);
}
END_TEST

/* ---- slices of a batch ---- */

static int count(const char *text, const char *what) {
  int n = 0;
  while ((text = strstr(text, what))) text += strlen(what), n++;
  return n;
}

START_TEST(chains_in_slices) {
  static suite_lines log;
  kn_context *c = context("onednn", "exec", &log);
  const char *only = getenv("SEED");
  int cut = 0;
  if (!c) return;
  c->cache = 64;
  for (uint32_t seed = only ? (uint32_t)atoi(only) : 2001; seed <= (only ? (uint32_t)atoi(only) : 2120);
       seed++) {
    log.n = 0;
    compare(c, seed, 2 + seed % 5);
    cut += strstr(log.text, " slices)") != NULL;
  }
  ck_assert(only || cut > 20);
  done(c);
}
END_TEST

/* A block of MobileNetV2's and a pool; of the inner values one is a result, too. */
static kn_value *block(made *m, kn_value *x, kn_value **inner) {
  kn_attrs_conv2d one = {.stride = {1, {1}}, .padding = {1, {0}}, .dilation = {1, {1}}, .groups = 1},
                  deep = one;
  kn_attrs_pool2d two = {
      .kernel_size = {1, {2}}, .stride = {1, {2}}, .padding = {1, {0}}, .dilation = {1, {1}}};
  deep.padding.v[0] = 1, deep.groups = 48;
  kn_value *y = op(m, KN_OP_conv2d, &one, x, constant(m, 0.4, 4, DIMS(48, 16, 1, 1)), NULL);
  y = limited(m, y, 0, 6);
  y = op(m, KN_OP_conv2d, &deep, y, constant(m, 0.4, 4, DIMS(48, 1, 3, 3)), constant(m, 1, 1, DIMS(48)));
  *inner = y = limited(m, y, 0, 6);
  y = op(m, KN_OP_conv2d, &one, y, constant(m, 0.2, 4, DIMS(16, 48, 1, 1)), NULL);
  y = op(m, KN_OP_add, NULL, y, x, NULL);
  return op(m, KN_OP_max_pool2d, &two, y, NULL, NULL);
}

/* There are 64 slices at most: where only single images would do, the batch stays whole. */
START_TEST(batches_that_no_number_divides) {
  static const struct {
    int64_t batch;
    int slices;
  } rows[] = {{61, 61}, {67, 0}, {130, 26}, {128, 64}};
  static suite_lines log;
  kn_context *c = context("onednn", "exec", &log);
  if (!c) return;
  c->cache = 1;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    made m = {.seed = 5};
    char text[32];
    kn_attrs_conv2d one = {.stride = {1, {1}}, .padding = {1, {0}}, .dilation = {1, {1}}, .groups = 1};
    kn_type type = {.dtype = KN_F32, .rank = 4, .dims = {rows[i].batch, 16, 5, 5}};
    OK(c, kn_graph_new(c, "two", &m.g));
    kn_builder_init(&m.b, c, m.g);
    kn_value *x = kn_add_input(&m.b, "x", &(kn_vtype){.kind = KN_V_TENSOR, .tensor = type}), *y[2];
    y[0] = op(&m, KN_OP_conv2d, &one, x, constant(&m, 0.4, 4, DIMS(16, 16, 1, 1)), NULL);
    y[1] = op(&m, KN_OP_conv2d, &one, y[0], constant(&m, 0.4, 4, DIMS(16, 16, 1, 1)), NULL);
    finish(c, &m, x, y);
    kn_tensor *in = filled(c, 7, 2, type.rank, type.dims);
    kn_session *mine = session(c, m.g, false), *ref = session(c, m.g, true);
    log = (suite_lines){.n = 0};
    run_both(mine, ref, in, (uint32_t)rows[i].batch, "a batch");
    snprintf(text, sizeof text, "(%d slices)", rows[i].slices);
    ck_assert_msg(count(log.text, text) == (rows[i].slices ? 2 : 0), "%s", log.text);
    ck_assert_int_eq(count(log.text, " slices)"), rows[i].slices ? 2 : 0);
    kn_session_free(mine), kn_session_free(ref);
    kn_tensor_release(in);
    kn_graph_release(m.g);
  }
  done(c);
}
END_TEST

/* What one stretch leaves, another one adds to, that has as many slices: each to its own. */
START_TEST(slices_of_two_stretches) {
  enum { BATCH = 6, CHANNELS = 8, SIDE = 9 };
  static suite_lines log;
  made m = {.seed = 5};
  kn_context *c = context("onednn", "exec", &log);
  if (!c) return;
  c->cache = 1;
  kn_type type = {.dtype = KN_F32, .rank = 4, .dims = {BATCH, CHANNELS, SIDE, SIDE}};
  kn_attrs_conv2d one = {.stride = {1, {1}}, .padding = {1, {0}}, .dilation = {1, {1}}, .groups = 1},
                  deep = one;
  kn_attrs_reduce plane = {.dim = {2, {2, 3}}};
  deep.padding.v[0] = 1, deep.groups = CHANNELS;
  OK(c, kn_graph_new(c, "two", &m.g));
  kn_builder_init(&m.b, c, m.g);
  kn_value *x = kn_add_input(&m.b, "x", &(kn_vtype){.kind = KN_V_TENSOR, .tensor = type}), *y = x, *flat[2];
  y = op(&m, KN_OP_conv2d, &one, y, constant(&m, 0.4, 4, DIMS(CHANNELS, CHANNELS, 1, 1)), NULL);
  for (int i = 0; i < 3; i++) { /* the mean is computed between the first two */
    kn_value *z = op(&m, KN_OP_conv2d, &deep, y, constant(&m, 0.4, 4, DIMS(CHANNELS, 1, 3, 3)), NULL);
    y = op(&m, KN_OP_add, NULL, z, y, NULL);
    if (!i) flat[1] = op(&m, KN_OP_mean, &plane, y, NULL, NULL);
  }
  flat[0] = y;
  finish(c, &m, x, flat);
  kn_tensor *in = filled(c, 7, 2, type.rank, type.dims);
  kn_session *mine = session(c, m.g, false), *ref = session(c, m.g, true);
  run_both(mine, ref, in, 0, "two stretches");
  ck_assert_msg(count(log.text, "(6 slices)") >= 4, "%s", log.text);
  kn_session_free(mine), kn_session_free(ref);
  kn_tensor_release(in);
  kn_graph_release(m.g);
  done(c);
}
END_TEST

START_TEST(a_few_images_at_a_time) {
  enum { BATCH = 12, SIDE = 9 };
  static suite_lines log;
  made m = {.seed = 5};
  kn_context *c = context("onednn", "exec", &log);
  if (!c) return;
  kn_type type = {.dtype = KN_F32, .rank = 4, .dims = {BATCH, 16, SIDE, SIDE}};
  OK(c, kn_graph_new(c, "block", &m.g));
  kn_builder_init(&m.b, c, m.g);
  kn_value *x = kn_add_input(&m.b, "x", &(kn_vtype){.kind = KN_V_TENSOR, .tensor = type}), *flat[2];
  flat[0] = block(&m, x, &flat[1]);
  finish(c, &m, x, flat);
  kn_tensor *in = filled(c, 7, 2, type.rank, type.dims);
  kn_session *ref = session(c, m.g, true);
  size_t whole = 0;
  /* What a core has close by; how many slices that makes, of how many groups: of an image these move 21, 31,
   * 26 and 6 kB. */
  static const struct {
    int64_t cache;
    int slices, groups;
  } rows[] = {{1 << 20, 0, 0}, {100 << 10, 4, 3}, {50 << 10, 12, 3}, {20 << 10, 12, 4}, {1, 12, 4}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    kn_run_memory memory;
    char text[32];
    c->cache = rows[i].cache;
    kn_session *mine = session(c, m.g, false);
    OK(kn_session_context(mine), kn_session_prepare(mine, &(kn_rvalue){.tensor = in}, 1, &memory));
    if (!i) whole = memory.workspace;
    ck_assert_msg(!i || memory.workspace < whole, "%zu %zu of %zu", i, memory.workspace, whole);
    log = (suite_lines){.n = 0};
    run_both(mine, ref, in, 0, "a few at a time");
    snprintf(text, sizeof text, "(%d slices)", rows[i].slices);
    ck_assert_msg(count(log.text, text) == rows[i].groups, "%s", log.text);
    ck_assert_int_eq(count(log.text, " slices)"), rows[i].groups);
    ck_assert_int_eq(count(log.text, "onednn   conv2d"), 3);
    kn_session_set_check(mine, true);
    run_both(mine, ref, in, 0, "checked");
    kn_session_free(mine);
  }
  kn_session_free(ref);
  kn_tensor_release(in);
  kn_graph_release(m.g);
  done(c);
}
END_TEST

SUITE("fused", chains_beside_the_reference_alone, chains_beside_all_backends, chains_that_are_measured,
      chains_in_slices, batches_that_no_number_divides, slices_of_two_stretches, a_few_images_at_a_time)
