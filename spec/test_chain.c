/* Elementwise nodes that run as one walk (backends/cpu/chain.c): random ones with all kinds of operands
 * against the reference, to the bit, on every instruction set's loops that the target uses; and that walks
 * are used. */
#include "backends/cpu/chain.h"
#include "backends/cpu/rms.h"
#include "backends/cpu/cpu.h"
#include "spec/exec.h"

/* ---- graphs ---- */

typedef struct maker {
  char text[20000], *at;
  uint64_t seed, drawn;
  int full, truth,
      column; /* values %f1 … of all sizes, %b1 … of booleans, %c1 … of the size 1 in the last dim */
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
  else if (which < 6 && m->column)
    PUT("%%c%d", m->column - draw(m, m->column));
  else
    PUT("%%f%d", value(m));
}

static void node(maker *m) {
  static const char *const two[] = {"add", "sub", "mul", "maximum", "minimum"};
  static const char *const one[] = {"neg", "relu", "abs", "floor", "sign"};
  int kind = draw(m, 14), x = value(m);
  if (kind == 0 || !m->truth) {
    PUT("  %%b%d = %s %%f%d, ", ++m->truth, draw(m, 2) ? "lt" : "ge", x);
    operand(m);
  } else if (kind == 1) /* these two are in no walk */
    PUT("  %%c%d = amax %%f%d {dim = {-1}, keepdim = true}", ++m->column, x);
  else if (kind == 2) {
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

static const char *random_text(maker *m, uint64_t seed, const char *dtype, int nodes) {
  *m = (maker){.seed = seed};
  m->at = m->text;
  PUT("graph g(%%x: %s[A,B,C], %%y: %s[A,B,C], %%t: %s[C,B,A], %%row: %s[C], %%mid: %s[B,1], %%one: %s[], "
      "%%last: %s[A,B,1]) {\n",
      dtype, dtype, dtype, dtype, dtype, dtype, dtype);
  PUT("  %%turned = transpose %%t {dim0 = 1, dim1 = 3}\n  %%f1 = add %%x, %%y\n");
  m->full = 1;
  for (int i = 0; i < nodes; i++) node(m);
  PUT("  return %%f%d, %%f%d, %%f%d, %%b1\n}\n", m->full, value(m), 1 + draw(m, m->full));
  return m->text;
}

/* ---- against the reference ---- */

enum { INPUTS = 7, RESULTS = 4 };

static void fill(kn_tensor *t, uint64_t seed) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)(kn_random_word(seed, 7, (uint64_t)k) % 64) / 16 - 2);
}

static void run_both(kn_context *c, const char *text, kn_dtype dtype, int64_t a, int64_t b, int64_t d) {
  const kn_ints dims[INPUTS] = {DIMS(a, b, d), DIMS(a, b, d), DIMS(d, b, a), DIMS(d),
                                DIMS(b, 1),    SCALAR,        DIMS(a, b, 1)};
  kn_graph *g = parse(c, text);
  kn_target ref, cpu;
  ck_assert(kn_ref_backend.target(c, NULL, &ref) && kn_cpu_backend.target(c, NULL, &cpu));
  kn_session *s[2];
  OK(c, kn_session_new(c, g, (const kn_target *[]){&ref}, 1, &s[0]));
  OK(c, kn_session_new(c, g, (const kn_target *[]){&cpu, &ref}, 2, &s[1]));
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
      ck_assert_msg(x == y || (isnan(x) && isnan(y)), "result %d, element %d is %g instead of %g:\n%s", i + 1,
                    (int)k + 1, y, x, text);
    }
    kn_tensor_release(out[0][i].tensor), kn_tensor_release(out[1][i].tensor);
  }
  for (int i = 0; i < INPUTS; i++) kn_tensor_release(in[i].tensor);
  kn_session_free(s[0]), kn_session_free(s[1]);
  kn_graph_release(g);
}

START_TEST(random_chains) {
  static const int64_t sizes[][3] = {{2, 3, 5}, {1, 1, 1}, {3, 1, 700}, {1, 40, 33}, {0, 2, 3}};
  static const struct {
    kn_dtype dtype;
    const char *name;
  } dtypes[] = {{KN_F32, "float32"}, {KN_F64, "float64"}, {KN_F16, "float16"}, {KN_I32, "int32"}};
  kn_context *c = suite_context();
  c->threads = 2;
  maker m;
  for (uint64_t seed = 1; seed <= 120; seed++) {
    size_t d = seed % 3 ? 0 : 1 + seed / 3 % 3; /* float32 mostly */
    const int64_t *n = sizes[seed % COUNT(sizes)];
    run_both(c, random_text(&m, seed, dtypes[d].name, 10 + (int)(seed % 60)), dtypes[d].dtype, n[0], n[1],
             n[2]);
  }
  for (uint64_t seed = 1; seed <= 4; seed++) /* for two threads, in each of which memory is taken again */
    run_both(c, random_text(&m, seed, "float32", 80), KN_F32, 20, 30, 60);
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
  uint32_t reads[64] = {0}, n = 0;
  for (uint32_t i = 0; i < g->body->nparams; i++)
    types[g->body->params[i]->id] = g->body->params[i]->type.tensor;
  KN_EACH_NODE (x, g->body) {
    types[x->out[0]->id] = x->out[0]->type.tensor;
    for (uint32_t k = 0; k < x->nin; k++) reads[x->in[k]->id]++;
    nodes[n++] = x;
  }
  for (uint32_t i = 0; i < g->body->nyields; i++) reads[g->body->yields[i]->id]++;
  const kn_part part = {.graph = g, .nodes = nodes, .n = n, .reads = reads, .types = types};
  for (uint32_t i = 0, length; i < n; i += length) {
    cp_chain *chain;
    cp_rms *rms;
    OK(c, cp_chain_new(c, cp_best_set()->loops, &part, i, &chain));
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
          "  %g = sum %f\n" /* not elementwise */
          "  %h = div %f, %g\n"
          "  %j = add %h, %i\n" /* a cast */
          "  %k = sub %j, %h\n"
          "  %l = relu %k\n"
          "  return %l\n}\n",
          got);
  ck_assert_str_eq(got, "3 1 2 1 1 1 2");
}
END_TEST

/* The parts of rms_norm, where nobody else reads what is between them; values are compared in
 * spec/lua/nn_blocks.lua. */
START_TEST(parts_of_rms_norm) {
  static const struct {
    const char *dims, *factor, *result, *lengths;
  } cases[] = {
      {"{-1}", "%w", "%z", "rms 6"},       {"{2}", "%w", "%z", "rms 6"},
      {"{1}", "%w", "%z", "1 1 2 2"},      {"{1, 2}", "%w", "%z", "rms 5 1"},
      {"{-1}", "%x", "%z", "rms 5 1"},     {"{-1}", "%w", "%z, %y", "rms 5 1"},
      {"{-1}", "%w", "%z, %m", "1 1 2 2"}, {"{-1}", "%w", "%z, %s", "1 1 2 2"},
      {"{-1}", "%e", "%z", "rms 5 1"},
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

SUITE("chain", random_chains, same_sizes_go_together, parts_of_rms_norm)
