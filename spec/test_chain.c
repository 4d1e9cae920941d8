/* Elementwise nodes that run as one walk (backends/cpu/chain.c): random ones with all kinds of operands
 * against the reference, to the bit, on every instruction set's loops that the target uses; and that walks
 * are used. */
#include "backends/cpu/chain.h"
#include "backends/cpu/rms.h"
#include "backends/cpu/cpu.h"
#include "spec/chain_text.h"

/* By `cpu` together; one by one by the reference, or rich ones by the same kernels. */
static void run_both(kn_context *c, const maker *m, const kn_target *cpu, kn_dtype dtype, int64_t a,
                     int64_t b, int64_t d) {
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  const kn_target *alone[] = {m->rich ? cpu : &ref, &ref}, *together[] = {cpu, &ref};
  run_both_by(c, m, alone, together, 2, m->rich, dtype, a, b, d);
}

START_TEST(random_chains) {
  static const int64_t sizes[][3] = {{2, 3, 5}, {1, 1, 1}, {3, 1, 700}, {1, 40, 33}, {0, 2, 3}};
  kn_context *c = suite_context();
  c->threads = 2;
  maker m = {.device = KN_CPU};
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
  maker m = {.device = KN_CPU};
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
  maker made = {.device = KN_CPU}, *m = &made;
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
  maker made = {.device = KN_CPU}, *m = &made;
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
