/* Frozen graphs mean what the graph before meant: random graphs to the bit, random chains behind convolutions
 * and products within rounding; memory that runs out at every place. What is folded, and what is told of it,
 * is in spec/text/ and spec/lua/freeze*.lua. */
#include "spec/exec.h"
#include "spec/random_graph.h"
#include "backends/ref/ref.h"
#include "graph/measure.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "spec/scarce.h"

typedef struct bench { /* a graph, and a session that holds its slots */
  kn_context *c;
  kn_graph *g;
  kn_session *s;
  kn_target target;
  const kn_target *targets[1];
  const kn_rvalue *samples[1];
} bench;

/* For inference, on samples that are made up. */
static kn_optimize invented(const bench *b) {
  return (kn_optimize){.session = b->s,
                       .level = KN_PIPELINE_INFERENCE,
                       .targets = b->targets,
                       .ntargets = 1,
                       .invent = true,
                       .budget = {1e-3, false}};
}

static void open_bench(bench *b, kn_context *c, kn_graph *g) {
  *b = (bench){.c = c, .g = g};
  ck_assert(kn_ref_backend.target(c, NULL, &b->target));
  b->targets[0] = &b->target;
  OK(c, kn_session_new(c, g, b->targets, 1, &b->s));
}

static void close_bench(bench *b) {
  kn_session_free(b->s);
  kn_graph_release(b->g);
}

static kn_status optimize(bench *b, kn_pipeline level, const kn_rvalue *sample, kn_optimize_report *r,
                          kn_graph **out) {
  b->samples[0] = sample;
  kn_optimize o = {.session = b->s,
                   .level = level,
                   .targets = b->targets,
                   .ntargets = 1,
                   .samples = b->samples,
                   .nsamples = sample != NULL,
                   .budget = {1e-3, false}};
  return kn_optimize_graph(b->c, &o, r, out);
}

/* ---- random graphs ---- */

static void release(kn_rvalue *list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    kn_tensor_release(list[i].tensor);
    kn_list_release(list[i].list);
  }
}

static void fill_slots(bench *b) {
  for (uint32_t i = 0; i < b->g->nslots; i++) {
    bool matrix = b->g->slots[i]->type.tensor.rank == 2;
    kn_rvalue v = {.tensor =
                       matrix ? make(b->c, KN_F32, DIMS(3, 3), LIST(1, 0.5, -0.25, 0, 1, 0.75, 0.125, -1, 1))
                              : make(b->c, KN_F32, DIMS(3), LIST(0.5, -0.5, 1))};
    OK(b->c, kn_session_set_slot(b->s, i, &v));
    kn_tensor_release(v.tensor);
  }
}

/* What the graph gives when walked node by node. */
static kn_status walk(bench *b, kn_graph *g, const kn_rvalue *in, kn_rvalue *out) {
  kn_rvalue slots[64];
  ck_assert_uint_le(g->nslots, 64);
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g == b->g)
      OK(b->c, kn_session_get_slot(b->s, i, &slots[i]));
    else
      slots[i] = (kn_rvalue){.tensor = kn_tensor_retain(g->slots[i]->tensor)};
  kn_random start = b->c->random;
  kn_status st = evaluate(b->c, g, slots, in, out);
  b->c->random = start;
  for (uint32_t i = 0; i < g->nslots; i++) kn_tensor_release(slots[i].tensor);
  return st;
}

static bool compare_seed(kn_context *c, uint64_t seed, int run) {
  bench b;
  kn_rvalue in[4] = {{0}}, want[6] = {{0}}, got[6] = {{0}};
  kn_optimize_report r;
  kn_graph *h, *again, *folded;
  open_bench(&b, c, random_graph(c, seed, 10 + (int)seed % 60));
  fill_slots(&b);
  rg_inputs(c, seed, run, in);
  kn_status st = walk(&b, b.g, in, want);
  OK(c, optimize(&b, KN_PIPELINE_FREEZE, NULL, &r, &h));
  kn_optimize_report_free(&r);
  OK(c, kn_graph_verify(c, h, true));
  for (uint32_t i = 0; i < h->nslots; i++) ck_assert(h->slots[i]->kind != KN_SLOT_PARAM);
  kn_status now = walk(&b, h, in, got);
  ck_assert_msg(now == st || now == KN_OK, "seed %d: %s", (int)seed, kn_error(c));
  for (int i = 0; i < 6 && st == KN_OK; i++)
    ck_assert_msg(same_result(&want[i], &got[i]), "seed %d, run %d: result %d differs", (int)seed, run,
                  i + 1);
  kn_status folds = optimize(&b, KN_PIPELINE_INFERENCE, st == KN_OK ? in : NULL, &r, &folded);
  ck_assert_msg(folds == KN_OK, "seed %d: %s", (int)seed, kn_error(c));
  if (st == KN_OK) ck_assert_msg(r.error <= 1e-3 || !r.nfolds, "seed %d: off by %g", (int)seed, r.error);
  kn_optimize_report_free(&r);
  OK(c, kn_graph_verify(c, folded, true));
  bench of_h; /* what is frozen stays as it is */
  open_bench(&of_h, c, kn_graph_retain(h));
  OK(c, optimize(&of_h, KN_PIPELINE_FREEZE, NULL, &r, &again));
  kn_optimize_report_free(&r);
  char *a, *z;
  size_t na, nz;
  OK(c, kn_graph_print(c, h, KN_TEXT_FULL, &a, &na));
  OK(c, kn_graph_print(c, again, KN_TEXT_FULL, &z, &nz));
  if (strcmp(a, z)) { /* too long for Check's messages */
    fprintf(stderr, "instead of\n%s----\n%s", a, z);
    ck_abort_msg("seed %d: frozen twice it is something else", (int)seed);
  }
  kn_free(c->heap, a, na + 1);
  kn_free(c->heap, z, nz + 1);
  close_bench(&of_h);
  release(in, 4), release(want, 6), release(got, 6);
  kn_graph_release(h), kn_graph_release(again), kn_graph_release(folded);
  close_bench(&b);
  return st == KN_OK;
}

START_TEST(random_graphs) {
  kn_context *c = suite_context();
  int ran = 0;
  c->threads = 1;
  for (int seed = 1; seed <= 200; seed++) ran += compare_seed(c, (uint64_t)seed, seed % 4);
  ck_assert_int_gt(ran, 60);
  suite_done(c);
}
END_TEST

/* ---- random chains ---- */

typedef struct maker {
  kn_builder *b;
  uint64_t seed, drawn;
} maker;

static int draw(maker *m, int n) { return (int)(kn_random_word(m->seed, 1, m->drawn++) % (uint32_t)n); }

static kn_value *constant(maker *m, kn_dtype dtype, kn_ints dims, double around) {
  kn_tensor *t;
  kn_type type = type_of(dtype, dims);
  OK(m->b->ctx, kn_tensor_new(m->b->ctx, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, around + (draw(m, 2000) - 1000) / 1500.0);
  kn_slot *s = kn_add_slot(m->b, KN_SLOT_PARAM, "net.weight", &(kn_vtype){KN_V_TENSOR, type}, t);
  kn_tensor_release(t);
  return kn_add_slot_node(m->b, KN_NODE_param, s);
}

static kn_value *op(maker *m, kn_op o, const void *attrs, kn_value *a, kn_value *c) {
  kn_node *n = kn_add_op(m->b, o, attrs, (kn_value *[]){a, c}, c ? 2 : 1, NULL, 0);
  OK(m->b->ctx, m->b->status);
  return n->out[0];
}

/* Dims of a constant that fits behind some of v's last dims: all of them 1, or one of them the size. */
static kn_ints fitting(maker *m, const kn_type *t) {
  kn_ints dims = {.n = draw(m, t->rank + 1)};
  for (int i = 0; i < dims.n; i++) {
    int64_t size = t->dims[t->rank - dims.n + i];
    dims.v[i] = kn_dim_known(size) && draw(m, 2) ? size : 1;
  }
  return dims;
}

static kn_value *step(maker *m, kn_value *v) {
  static const kn_op binary[] = {KN_OP_add, KN_OP_sub, KN_OP_mul, KN_OP_div};
  const kn_type *t = &v->type.tensor;
  int what = draw(m, 12);
  if (what < 7) {
    kn_op o = binary[draw(m, 4)];
    kn_value *c = constant(m, (kn_dtype)t->dtype, fitting(m, t), o == KN_OP_div || o == KN_OP_mul ? 1.5 : 0);
    return o != KN_OP_div && draw(m, 3) == 0 ? op(m, o, NULL, c, v) : op(m, o, NULL, v, c);
  }
  switch (what) {
  case 7: return op(m, KN_OP_neg, NULL, v, NULL);
  case 8:
    return op(m, KN_OP_transpose, &(kn_attrs_swap){.dim0 = draw(m, t->rank), .dim1 = draw(m, t->rank)}, v,
              NULL);
  case 9:
    return t->rank < 6 ? op(m, KN_OP_unsqueeze, &(kn_attrs_axis){.dim = draw(m, t->rank + 1)}, v, NULL) : v;
  case 10: {
    int d = draw(m, t->rank);
    return t->rank > 1 && kn_dim_known(t->dims[d])
               ? op(m, KN_OP_select, &(kn_attrs_select){.dim = d, .index = 0}, v, NULL)
               : v;
  }
  default: {
    kn_attrs_cast wide = {.dtype = KN_F64}, back = {.dtype = (kn_dtype)t->dtype};
    kn_value *w = op(m, KN_OP_mul, NULL, op(m, KN_OP_cast, &wide, v, NULL), constant(m, KN_F64, SCALAR, 1.5));
    return op(m, KN_OP_cast, &back, w, NULL);
  }
  }
}

static kn_value *product(maker *m, kn_value *image, kn_value *rows) {
  switch (draw(m, 4)) {
  case 0: {
    int groups = 1 + draw(m, 2);
    kn_value *in[3] = {image, constant(m, KN_F32, DIMS(6, 4 / groups, 2, 2), 0),
                       constant(m, KN_F32, DIMS(6), 0)};
    kn_attrs_conv2d a = {
        .stride = {2, {1, 1}}, .padding = {2, {draw(m, 2), 0}}, .dilation = {2, {1, 1}}, .groups = groups};
    kn_node *n = kn_add_op(m->b, KN_OP_conv2d, &a, in, 2 + (uint32_t)draw(m, 2), NULL, 0);
    OK(m->b->ctx, m->b->status);
    return n->out[0];
  }
  case 1: return op(m, KN_OP_matmul, NULL, rows, constant(m, KN_F32, DIMS(4, 5), 0));
  case 2:
    return op(m, KN_OP_matmul, NULL, rows,
              op(m, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1},
                 constant(m, KN_F32, DIMS(5, 4), 0), NULL));
  default: {
    kn_value *in[3] = {image, constant(m, KN_F32, DIMS(4, 3, 1, 1), 0), NULL};
    in[2] = op(m, KN_OP_slice, &(kn_attrs_slice){.dim = 1, .start = 0, .stop = 3, .step = 1}, image, NULL);
    kn_attrs_conv2d a = {.stride = {2, {1, 1}}, .padding = {2, {0, 0}}, .dilation = {2, {1, 1}}, .groups = 1};
    kn_node *n = kn_add_op(m->b, KN_OP_conv2d_grad_input, &a, in, 3, NULL, 0);
    OK(m->b->ctx, m->b->status);
    return n->out[0];
  }
  }
}

static kn_graph *random_chain(kn_context *c, uint64_t seed) {
  kn_graph *g;
  kn_builder b;
  OK(c, kn_graph_new(c, "chain", &g));
  kn_builder_init(&b, c, g);
  maker m = {&b, seed, 0};
  int64_t n = kn_symbol_intern(&b, "N");
  kn_vtype image = {KN_V_TENSOR, {.dtype = KN_F32, .rank = 4, .dims = {n, 4, 5, 6}}};
  kn_vtype rows = {KN_V_TENSOR, {.dtype = KN_F32, .rank = 3, .dims = {n, 3, 4}}};
  kn_value *x = kn_add_input(&b, "x", &image), *y = kn_add_input(&b, "y", &rows), *v = product(&m, x, y);
  for (int k = 1 + draw(&m, 7); k > 0; k--) v = step(&m, v);
  kn_set_results(&b, &v, 1, NULL, 0);
  OK(c, kn_graph_finish(&b));
  return g;
}

static uint32_t fold_chain(kn_context *c, uint64_t seed) {
  bench b;
  kn_optimize_report r;
  kn_graph *h;
  kn_rvalue in[2], want = {0}, got = {0};
  double error = -1;
  maker m = {NULL, seed, 5000};
  open_bench(&b, c, random_chain(c, seed));
  kn_type types[2] = {type_of(KN_F32, DIMS(2, 4, 5, 6)), type_of(KN_F32, DIMS(2, 3, 4))};
  for (int i = 0; i < 2; i++) {
    in[i] = (kn_rvalue){0};
    OK(c, kn_tensor_new(c, &types[i], &in[i].tensor));
    for (int64_t k = 0; k < kn_tensor_numel(in[i].tensor); k++)
      set_element(in[i].tensor, k, (draw(&m, 2000) - 1000) / 700.0);
  }
  OK(c, optimize(&b, KN_PIPELINE_INFERENCE, NULL, &r, &h)); /* nothing is measured: all are made */
  uint32_t folds = r.nfolds;
  ck_assert_msg(r.unmeasured != NULL, "not measured");
  for (uint32_t i = 0; i < folds; i++)
    ck_assert_msg(r.folds[i].kept, "seed %d: %s", (int)seed, r.folds[i].why);
  kn_optimize_report_free(&r);
  OK(c, walk(&b, b.g, in, &want));
  OK(c, walk(&b, h, in, &got));
  OK(c, kn_measure_tensors(c, false, got.tensor, want.tensor, &error));
  if (error > 3e-5) {
    char *text;
    size_t n;
    OK(c, kn_graph_print(c, b.g, KN_TEXT_FULL, &text, &n));
    fputs(text, stderr);
    kn_free(c->heap, text, n + 1);
    OK(c, kn_graph_print(c, h, KN_TEXT_FULL, &text, &n));
    fputs(text, stderr);
    kn_free(c->heap, text, n + 1);
  }
  ck_assert_msg(error <= 3e-5, "seed %d: off by %g", (int)seed, error);
  release(in, 2), release(&want, 1), release(&got, 1);
  kn_graph_release(h);
  close_bench(&b);
  return folds;
}

START_TEST(chains) {
  kn_context *c = suite_context();
  uint32_t folds = 0;
  c->threads = 1;
  for (int seed = 1; seed <= 500; seed++) folds += fold_chain(c, (uint64_t)seed);
  ck_assert_uint_gt(folds, 250);
  suite_done(c);
}
END_TEST

/* ---- samples of smaller sizes ---- */

/* What freezing decides by the sizes that the graph says may not fit smaller ones. */
START_TEST(sizes_that_are_decided) {
  kn_context *c = suite_context();
  bench b;
  kn_optimize_report r;
  kn_graph *h;
  c->threads = 1;
  open_bench(&b, c,
             parse(c, "graph g(%x: float32[32,2]) {\n"
                      "  slot const \"w\": float32[2,2] = {1.0, 2.0, 3.0, 4.0}\n"
                      "  slot const \"s\": float32[2] = {2.0, 0.5}\n"
                      "  %w = tensor \"w\"\n  %s = tensor \"s\"\n"
                      "  %h = matmul %x, %w\n  %p = mul %h, %s\n"
                      "  %n = size %x {dim = 1}\n"
                      "  %k = const 32\n  %c: boolean = lua.eq %n, %k\n"
                      "  %y: float32[32,2] = if %c {\n"
                      "    %q: float32[32,2] = reshape %p {sizes = {32, 2}}\n    yield %q\n"
                      "  } else {\n    %m: float32[32,2] = neg %p\n    yield %m\n  }\n  return %y\n}\n"));
  kn_optimize o = invented(&b);
  OK(c, kn_optimize_graph(c, &o, &r, &h));
  ck_assert(!r.smaller && r.samples == 1 && r.error >= 0 && r.error < 1e-3);
  ck_assert_uint_eq(r.nfolds, 1);
  kn_optimize_report_free(&r);
  kn_graph_release(h);
  close_bench(&b);
  suite_done(c);
}
END_TEST

/* What a rule cannot tell is not what the graph says where inputs have other sizes. */
START_TEST(sizes_of_other_inputs) {
  rig r;
  rig_open(&r, "graph g(%x: float32[32,2], %n: integer) {\n"
               "  %none: list[float32[32,2]] = list\n  %s: float32[32,2] = abs %x\n"
               "  %l: list[float32[32,2]] = append %none, %s\n"
               "  %m: list[float32[32,2]] = sum_of_lists %l, %l\n"
               "  %t: float32[32,2] = element %m, %n\n  %y: float32[32,2] = neg %t\n"
               "  return %y\n}\n");
  kn_rvalue in[2] = {{.tensor = make(r.c, KN_F32, DIMS(1, 2), LIST(1, -2))},
                     {.scalar = {KN_SCALAR_INT, {.i = 1}}}};
  kn_rvalue out;
  kn_session_set_any_sizes(r.s, true);
  OK(kn_session_context(r.s), kn_session_run(r.s, in, 2, &out, 1));
  ck_assert_int_eq(out.tensor->type.dims[0], 1);
  ck_assert_double_eq(kn_element_float(KN_F32, kn_tensor_data(out.tensor)), -2);
  kn_tensor_release(out.tensor);
  kn_tensor_release(in[0].tensor);
  rig_close(&r);
}
END_TEST

/* ---- memory that runs out ---- */

START_TEST(scarce_memory) {
  scarce memory = {.left = -1};
  kn_heap *heap = kn_heap_new(scarce_alloc, &memory, 0);
  kn_context *c = kn_context_new(heap, NULL);
  bench b;
  kn_optimize_report r;
  kn_graph *h = NULL;
  long refused = 0;
  c->threads = 1;
  uint64_t seed = 1;
  kn_graph *g = random_chain(c, seed);
  while (kn_ops[g->body->last->op].op_class != KN_CLASS_ELEMENTWISE || g->nslots < 4) {
    kn_graph_release(g);
    g = random_chain(c, ++seed);
  }
  open_bench(&b, c, g);
  b.samples[0] = NULL;
  for (int once = 0; once < 2; once++)
    for (long n = 0;; n++) {
      uint64_t blocks = kn_heap_read_stats(heap).blocks;
      kn_optimize o = invented(&b);
      scarce_begin(&memory, n, once);
      kn_status st = kn_optimize_graph(c, &o, &r, &h);
      bool any = scarce_end(&memory);
      if (st == KN_OK) {
        kn_optimize_report_free(&r);
        kn_graph_release(h);
      } else
        ck_assert_msg(st == KN_NOMEM, "%s: %s", kn_status_text(st), kn_error(c));
      ck_assert_uint_eq(kn_heap_read_stats(heap).blocks, blocks);
      ck_assert(st != KN_OK || !any || once);
      if (!any) break;
      refused++;
    }
  ck_assert_int_gt(refused, 100);
  close_bench(&b);
  suite_done(c);
  kn_heap_release(heap);
}
END_TEST

SUITE("optimize", random_graphs, chains, sizes_that_are_decided, sizes_of_other_inputs, scarce_memory)
