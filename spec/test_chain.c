/* Elementwise nodes that run as one walk (backends/cpu/chain.c): random ones with all kinds of operands
 * against the reference, to the bit, on every instruction set's loops that the target uses; and that walks
 * are used. */
#include "backends/cpu/chain.h"
#include "backends/cpu/rms.h"
#include "backends/cpu/cpu.h"
#include "spec/exec.h"

/* ---- graphs ---- */

typedef struct maker {
  char text[30000], *at;
  uint64_t seed, drawn;
  bool floats, rich;    /* softmaxes and means; reductions that are not exact */
  int full, truth;      /* values %f1 … of all sizes, %b1 … of booleans */
  int column, list;     /* %c1 … of the size 1 in the last dim, %d1 … without it */
  int side, all, plane; /* %k1 … of the last dim, %t1 … of no dim, %e1 … of the size 1 in the last two */
} maker;

static int draw(maker *m, int n) { return (int)(kn_random_word(m->seed, 3, m->drawn++) % (uint64_t)n); }
#define PUT(...) m->at += sprintf(m->at, __VA_ARGS__)

/* Late values more often, so that many have one reader. */
static int value(maker *m) {
  int back = draw(m, 3) && m->full > 3 ? 3 : m->full;
  return m->full - draw(m, back);
}

static void operand(maker *m) {
  static const char *const repeated[] = {"row", "mid", "one", "last", "turned"};
  int which = draw(m, 14);
  if (which < 4 || (which == 4 && !draw(m, 6)))
    PUT("%%%s", repeated[which]);
  else if (which == 4 && m->plane)
    PUT("%%e%d", m->plane);
  else if (which < 6 && m->column)
    PUT("%%c%d", m->column - draw(m, m->column));
  else
    PUT("%%f%d", value(m));
}

/* What a reduction reads: now and then what does not lie as rows. */
static void source(maker *m) {
  if (draw(m, 8))
    PUT("%%f%d", value(m));
  else
    PUT("%%%s", draw(m, 2) ? "turned" : "x");
}

static const char *reduction(maker *m) {
  static const char *const names[] = {"amax", "amin", "sum", "prod", "mean"};
  return names[draw(m, m->floats ? 5 : 4)];
}

static void rich_node(maker *m) {
  static const char *const two[] = {"add", "sub", "mul", "maximum"};
  switch (draw(m, 13)) {
  case 12:
    PUT("  %%e%d = %s ", ++m->plane, reduction(m));
    source(m);
    PUT(" {dim = {2, 3}, keepdim = true}");
    break;
  case 0:
  case 1:
  case 2:
    PUT("  %%c%d = %s ", ++m->column, reduction(m));
    source(m);
    PUT(" {dim = {-1}, keepdim = true}");
    break;
  case 3:
    PUT("  %%c%d = sum_to ", ++m->column);
    source(m);
    PUT(", %%last");
    break;
  case 4:
    PUT("  %%d%d = %s ", ++m->list, reduction(m));
    source(m);
    PUT(" {dim = {3}}");
    break;
  case 5:
    if (m->list)
      PUT("  %%d%d = %s %%d%d, %%d%d", m->list + 1, two[draw(m, 4)], m->list, 1 + draw(m, m->list));
    else
      PUT("  %%d%d = add %%list, %%one", m->list + 1);
    m->list++;
    break;
  case 6:
    PUT("  %%k%d = sum_to ", ++m->side);
    source(m);
    PUT(", %%row");
    break;
  case 7:
    PUT("  %%k%d = %s ", ++m->side, reduction(m));
    source(m);
    PUT(" {dim = {1, 2}}");
    break;
  case 8:
    PUT("  %%t%d = %s ", ++m->all, reduction(m));
    source(m);
    break;
  case 9:
  case 10:
    if (m->floats)
      PUT("  %%f%d = %s %%f%d {dim = -1}", m->full + 1, draw(m, 3) ? "softmax" : "log_softmax", value(m));
    else
      PUT("  %%f%d = abs %%f%d", m->full + 1, value(m));
    m->full++;
    break;
  default:
    if (m->column)
      PUT("  %%c%d = %s %%c%d, %s", m->column + 1, two[draw(m, 4)], 1 + draw(m, m->column),
          draw(m, 2) ? "%one" : "%last");
    else
      PUT("  %%c%d = neg %%last", m->column + 1);
    m->column++;
  }
}

static void node(maker *m) {
  static const char *const two[] = {"add", "sub", "mul", "maximum", "minimum"};
  static const char *const one[] = {"neg", "relu", "abs", "floor", "sign"};
  int kind = draw(m, 14), x = value(m);
  if (m->rich && !draw(m, 3)) {
    rich_node(m);
  } else if (kind == 0 || !m->truth) {
    PUT("  %%b%d = %s %%f%d, ", ++m->truth, draw(m, 2) ? "lt" : "ge", x);
    operand(m);
  } else if (kind == 1)
    PUT("  %%c%d = amax %%f%d {dim = {-1}, keepdim = true}", ++m->column, x);
  else if (kind == 2) { /* it is in no walk */
    PUT("  %%f%d = sum_to %%f%d, %%x", m->full + 1, x);
    m->full++;
  } else if (kind == 3) {
    PUT("  %%f%d = where %%b%d, %%f%d, ", m->full + 1, 1 + draw(m, m->truth), x);
    operand(m);
    m->full++;
  } else if (kind < 7) {
    PUT("  %%f%d = %s %%f%d", m->full + 1, one[draw(m, 5)], x);
    m->full++;
  } else {
    PUT("  %%f%d = %s %%f%d, ", m->full + 1, two[draw(m, 5)], x);
    operand(m);
    m->full++;
  }
  PUT("\n");
}

static void result(maker *m, char kind, int n) {
  if (n)
    PUT(", %%%c%d", kind, n);
  else
    PUT(", %%one");
}

enum { INPUTS = 8, RESULTS = 10 };

static void begin_text(maker *m, uint64_t seed, kn_dtype d, bool rich) {
  const char *dtype = kn_dtypes[d].name;
  *m = (maker){.seed = seed, .floats = kn_dtype_is_float(d), .rich = rich};
  m->at = m->text;
  PUT("graph g(%%x: %s[A,B,C], %%y: %s[A,B,C], %%t: %s[C,B,A], %%row: %s[C], %%mid: %s[B,1], %%one: %s[], "
      "%%last: %s[A,B,1], %%list: %s[A,B]) {\n",
      dtype, dtype, dtype, dtype, dtype, dtype, dtype, dtype);
  PUT("  %%turned = transpose %%t {dim0 = 1, dim1 = 3}\n  %%f1 = add %%x, %%y\n");
  m->full = 1;
}

static const char *random_text(maker *m, uint64_t seed, kn_dtype d, bool rich, int nodes) {
  begin_text(m, seed, d, rich);
  for (int i = 0; i < nodes; i++) node(m);
  PUT("  return %%f%d, %%f%d, %%f%d, %%b1", m->full, value(m), 1 + draw(m, m->full));
  result(m, 'c', m->column), result(m, 'd', m->list), result(m, 'k', m->side), result(m, 't', m->all);
  result(m, 'k', m->side > 1), result(m, 'e', m->plane);
  PUT("\n}\n");
  return m->text;
}

/* ---- node by node, and together ---- */

static void fill(kn_tensor *t, uint64_t seed) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)(kn_random_word(seed, 7, (uint64_t)k) % 64) / 16 - 2);
}

static void watch(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars) {
  (void)ud, (void)n, (void)vals, (void)scalars;
}

/* By `cpu` together; one by one by the reference, or rich ones by the same kernels. */
static void run_both(kn_context *c, const maker *m, const kn_target *cpu, kn_dtype dtype, int64_t a,
                     int64_t b, int64_t d) {
  const kn_ints dims[INPUTS] = {DIMS(a, b, d), DIMS(a, b, d), DIMS(d, b, a), DIMS(d),
                                DIMS(b, 1),    SCALAR,        DIMS(a, b, 1), DIMS(a, b)};
  kn_graph *g = parse(c, m->text);
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_session *s[2];
  OK(c, kn_session_new(c, g, (const kn_target *[]){m->rich ? cpu : &ref, &ref}, 2, &s[0]));
  OK(c, kn_session_new(c, g, (const kn_target *[]){cpu, &ref}, 2, &s[1]));
  if (m->rich) kn_session_observe(s[0], watch, NULL); /* a node a part */
  kn_rvalue in[INPUTS] = {{0}}, out[2][RESULTS];
  for (int i = 0; i < INPUTS; i++) {
    kn_type t = type_of(dtype, dims[i]);
    OK(c, kn_tensor_new(c, &t, &in[i].tensor));
    fill(in[i].tensor, (uint64_t)i);
  }
  for (int i = 0; i < 2; i++) OK(kn_session_context(s[i]), kn_session_run(s[i], in, INPUTS, out[i], RESULTS));
  for (int i = 0; i < RESULTS; i++) {
    const kn_tensor *want = out[0][i].tensor, *got = out[1][i].tensor;
    ck_assert(kn_type_equal(&want->type, &got->type));
    for (int64_t k = 0; k < kn_tensor_numel(want); k++) {
      double x = element(want, k), y = element(got, k);
      ck_assert_msg(x == y || (isnan(x) && isnan(y)), "result %d, element %d is %.17g instead of %.17g:\n%s",
                    i + 1, (int)k + 1, y, x, m->text);
    }
    kn_tensor_release(out[0][i].tensor), kn_tensor_release(out[1][i].tensor);
  }
  for (int i = 0; i < INPUTS; i++) kn_tensor_release(in[i].tensor);
  kn_session_free(s[0]), kn_session_free(s[1]);
  kn_graph_release(g);
}

static const kn_dtype drawn_dtypes[] = {KN_F64, KN_F16, KN_I32};

/* Float32 mostly. */
static kn_dtype dtype_for(uint64_t seed) { return seed % 3 ? KN_F32 : drawn_dtypes[seed / 3 % 3]; }

START_TEST(random_chains) {
  static const int64_t sizes[][3] = {{2, 3, 5}, {1, 1, 1}, {3, 1, 700}, {1, 40, 33}, {0, 2, 3}};
  kn_context *c = suite_context();
  c->threads = 2;
  maker m;
  const kn_target cpu = cp_target_of(cp_best_set());
  for (uint64_t seed = 1; seed <= 120; seed++) {
    const int64_t *n = sizes[seed % COUNT(sizes)];
    random_text(&m, seed, dtype_for(seed), false, 10 + (int)(seed % 60));
    run_both(c, &m, &cpu, dtype_for(seed), n[0], n[1], n[2]);
  }
  for (uint64_t seed = 1; seed <= 4; seed++) { /* for two threads, in each of which memory is taken again */
    random_text(&m, seed, KN_F32, false, 80);
    run_both(c, &m, &cpu, KN_F32, 20, 30, 60);
  }
  suite_done(c);
}
END_TEST

/* With reductions and softmaxes, on every instruction set; sizes at which folds have one piece and several,
 * with and without rows that are taken as one. */
START_TEST(random_rows) {
  static const int64_t sizes[][3] = {{2, 3, 5},   {1, 1, 1},    {3, 1, 700},  {1, 40, 33}, {2, 1, 3},
                                     {7, 11, 64}, {2, 2, 2500}, {20, 30, 16}, {1, 1, 40},  {9, 40, 21}};
  static const int64_t large[][3] = {{33, 40, 65}, {9, 64, 128}, {3, 70, 520}, {40, 50, 41}};
  kn_context *c = suite_context();
  c->threads = 2;
  maker m;
  for (int isa = 0; isa < cp_provider_count(); isa++) {
    const kn_target cpu = cp_target_of(cp_set_at(isa));
    for (uint64_t seed = 1; seed <= 36; seed++) {
      const int64_t *n = sizes[seed % COUNT(sizes)];
      random_text(&m, seed, dtype_for(seed), true, 10 + (int)(seed % 40));
      run_both(c, &m, &cpu, dtype_for(seed), n[0], n[1], n[2]);
    }
    for (uint64_t seed = 1; seed <= COUNT(large); seed++) {
      const int64_t *n = large[seed % COUNT(large)];
      random_text(&m, seed, KN_F32, true, 25);
      run_both(c, &m, &cpu, KN_F32, n[0], n[1], n[2]);
    }
  }
  suite_done(c);
}
END_TEST

/* Sums of everything take elements in their order, also where so much waits for them that tiles are small. */
START_TEST(many_totals) {
  static const char *const by[] = {"%turned", "%row", "%mid", "%one", "%last", "%y"};
  enum { TOTALS = 12 };
  kn_context *c = suite_context();
  maker made, *m = &made;
  const kn_target cpu = cp_target_of(cp_best_set());
  begin_text(m, 1, KN_F64, true);
  for (int i = 1; i <= TOTALS; i++) PUT("  %%f%d = mul %%f%d, %s\n", i + 1, i, by[i % 6]);
  for (int i = 1; i <= TOTALS; i++) PUT("  %%t%d = sum %%f%d\n", i, i + 1);
  PUT("  %%z = add %%t10, %%t11\n  %%w = add %%z, %%t12\n  return %%w");
  for (int i = 1; i < RESULTS; i++) PUT(", %%t%d", i);
  PUT("\n}\n");
  run_both(c, m, &cpu, KN_F64, 4, 9, 700);
  run_both(c, m, &cpu, KN_F64, 3, 40, 600);
  suite_done(c);
}
END_TEST

/* Pieces of columns may end with tiles of one row, at which a number that is repeated along it is another. */
START_TEST(rows_of_one_at_ends_of_pieces) {
  kn_context *c = suite_context();
  maker made, *m = &made;
  const kn_target cpu = cp_target_of(cp_best_set());
  c->threads = 2;
  begin_text(m, 1, KN_F32, true);
  PUT("  %%f2 = mul %%f1, %%mid\n  %%k1 = sum %%f2 {dim = {1, 2}}\n  return %%k1");
  for (int i = 1; i < RESULTS; i++) PUT(", %%one");
  PUT("\n}\n");
  run_both(c, m, &cpu, KN_F32, 4, 131, 251);
  suite_done(c);
}
END_TEST

/* A matrix that a plan has turned for itself: hosts may write to it, and give slots other ones, which may
 * even be the same bytes seen in another way. */
START_TEST(turned_constants_that_change) {
  static const char text[] = "graph g(%x: float32[3,2]) {\n"
                             "  slot const \"w\": float32[2,2] = {1, 2, 4, 8}\n"
                             "  %w = tensor \"w\"\n"
                             "  %t = transpose %w {dim0 = 1, dim1 = 2}\n"
                             "  %y = matmul %x, %t\n"
                             "  %z = relu %y\n"
                             "  return %z\n}\n";
  kn_context *c = suite_context();
  kn_graph *g = parse(c, text);
  const kn_target cpu = cp_target_of(cp_best_set());
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_session *s[2];
  OK(c, kn_session_new(c, g, (const kn_target *[]){&cpu, &ref}, 2, &s[0]));
  OK(c, kn_session_new(c, g, (const kn_target *[]){&ref}, 1, &s[1]));
  kn_type types[2] = {g->slots[0]->type.tensor, type_of(KN_F32, DIMS(3, 2))};
  kn_rvalue was = {.tensor = g->slots[0]->tensor}, other, turned, in, out[2];
  OK(c, kn_tensor_new(c, &types[0], &other.tensor));
  OK(c, kn_tensor_new(c, &types[1], &in.tensor));
  fill(other.tensor, 1), fill(in.tensor, 2);
  const kn_attrs_swap swap = {.dim0 = 0, .dim1 = 1};
  OK(c, kn_apply(c, KN_OP_transpose, &swap, &was.tensor, 1, &turned.tensor));
  const kn_rvalue *now[] = {&was, &other, &was, &turned, &was, &was};
  for (size_t i = 0; i < COUNT(now); i++) {
    if (i == COUNT(now) - 1) {
      OK(c, kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){was.tensor, other.tensor}, 2, &out[0].tensor));
      kn_tensor_release(out[0].tensor);
    }
    for (int k = 0; k < 2; k++) {
      OK(kn_session_context(s[k]), kn_session_set_slot(s[k], 0, now[i]));
      OK(kn_session_context(s[k]), kn_session_run(s[k], &in, 1, &out[k], 1));
    }
    for (int64_t k = 0; k < 6; k++) ck_assert_double_eq(element(out[0].tensor, k), element(out[1].tensor, k));
    for (int k = 0; k < 2; k++) kn_tensor_release(out[k].tensor);
  }
  kn_tensor_release(other.tensor), kn_tensor_release(turned.tensor), kn_tensor_release(in.tensor);
  kn_session_free(s[0]), kn_session_free(s[1]);
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

/* ---- which nodes ---- */

/* The lengths of the walks that the body's nodes make. */
static void lengths(const char *text, char *out) {
  kn_context *c = suite_context();
  kn_graph *g = parse(c, text);
  const kn_node *nodes[64];
  kn_type types[64];
  uint32_t reads[64] = {0}, root[64], together[64] = {0}, n = 0;
  size_t room[64] = {0};
  for (uint32_t i = 0; i < g->body->nparams; i++)
    types[g->body->params[i]->id] = g->body->params[i]->type.tensor;
  KN_EACH_NODE (x, g->body) {
    types[x->out[0]->id] = x->out[0]->type.tensor;
    for (uint32_t k = 0; k < x->nin; k++) reads[x->in[k]->id]++;
    nodes[n++] = x;
  }
  for (uint32_t i = 0; i < g->body->nyields; i++) reads[g->body->yields[i]->id]++;
  for (uint32_t v = 0; v < 64; v++) root[v] = v;
  const kn_part part = {.graph = g,
                        .nodes = nodes,
                        .n = n,
                        .reads = reads,
                        .types = types,
                        .root = root,
                        .together = together,
                        .room = room};
  for (uint32_t i = 0, length; i < n; i += length) {
    cp_chain *chain;
    cp_rms *rms;
    OK(c, cp_chain_new(c, cp_best_set(), &part, i, &chain));
    OK(c, cp_rms_new(c, cp_best_set(), &part, i, &rms));
    length = rms ? cp_rms_length(rms) : chain ? cp_chain_length(chain) : 1;
    out += sprintf(out, "%s%s%d", i ? " " : "", rms ? "rms " : "", (int)length);
    if (chain) cp_chain_free(c, chain);
    if (rms) cp_rms_free(c, rms);
  }
  kn_graph_release(g);
  suite_done(c);
}

START_TEST(same_sizes_go_together) {
  char got[64];
  lengths("graph g(%x: float32[8,3], %r: float32[3], %i: int64[8,3]) {\n"
          "  %a = mul %x, %r\n"
          "  %b = lt %a, %r\n"
          "  %c = where %b, %a, %x\n"
          "  %d = neg %r\n" /* other sizes */
          "  %e = add %c, %d\n"
          "  %f = exp %e\n"
          "  %g = sum %f\n" /* a row of all */
          "  %h = div %f, %g\n"
          "  %j = add %h, %i\n" /* a cast */
          "  %k = sub %j, %h\n"
          "  %l = relu %k\n"
          "  return %l\n}\n",
          got);
  ck_assert_str_eq(got, "3 1 4 1 2");
}
END_TEST

/* The parts of rms_norm, where nobody else reads what is between them; values are compared in
 * spec/lua/nn_blocks.lua. */
START_TEST(parts_of_rms_norm) {
  static const struct {
    const char *dims, *factor, *result, *lengths;
  } cases[] = {
      {"{-1}", "%w", "%z", "rms 6"},     {"{2}", "%w", "%z", "rms 6"},    {"{1}", "%w", "%z", "2 2 2"},
      {"{1, 2}", "%w", "%z", "rms 5 1"}, {"{-1}", "%x", "%z", "rms 5 1"}, {"{-1}", "%w", "%z, %y", "rms 5 1"},
      {"{-1}", "%w", "%z, %m", "6"},     {"{-1}", "%w", "%z, %s", "6"},   {"{-1}", "%e", "%z", "rms 5 1"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char text[600], got[64];
    snprintf(text, sizeof text,
             "graph g(%%x: float32[4,64], %%w: float32[64], %%e: float32[]) {\n"
             "  %%s = mul %%x, %%x\n"
             "  %%m = mean %%s {dim = %s, keepdim = true}\n"
             "  %%p = add %%m, %%e\n"
             "  %%r = rsqrt %%p\n"
             "  %%y = mul %%r, %%x\n"
             "  %%z = mul %%y, %s\n"
             "  return %s\n}\n",
             cases[i].dims, cases[i].factor, cases[i].result);
    lengths(text, got);
    ck_assert_msg(!strcmp(got, cases[i].lengths), "%s instead of %s:\n%s", got, cases[i].lengths, text);
  }
}
END_TEST

SUITE("chain", random_chains, random_rows, many_totals, rows_of_one_at_ends_of_pieces,
      turned_constants_that_change, same_sizes_go_together, parts_of_rms_norm)
