/* Profiles: rows of groups and of what lies in loops and branches, runs that fail in the middle, memory that
 * runs out. Numbers of the report and the trace are looked at in spec/lua/profile.lua. */
#include "backends/cpu/cpu.h"
#include "core/device.h"
#include "graph/profile.h"
#include "spec/exec.h"
#include "spec/scarce.h"

static const char text[] = "graph g(%x: float32[N,4], %n: integer) {\n"
                           "  slot state \"seen\": integer = 5\n"
                           "  %seen = load_state \"seen\"\n"
                           "  %one = const 1\n"
                           "  %next: integer = lua.add %seen, %one\n"
                           "  store_state \"seen\", %next\n"
                           "  %a: float32[N,4] = mul %x, %x\n"
                           "  %b: float32[N,4] = tanh %a\n"
                           "  %y: float32[N,4] = loop (%h: float32[N,4] = %b, %i: integer = %one) {\n"
                           "    %c: float32[N,4] = add %h, %x\n"
                           "    %d: float32[N,4] = exp %c\n"
                           "    %more: boolean = lua.lt %i, %n\n"
                           "    %i2: integer = lua.add %i, %one\n"
                           "    continue_if %more next(%d, %i2) exit(%d)\n"
                           "  }\n"
                           "  %ok: boolean = lua.lt %n, %next\n"
                           "  assert %ok \"too many\"\n"
                           "  return %y, %next\n"
                           "}\n";

typedef struct both { /* the CPU backend before the reference */
  kn_context *c;
  kn_target cpu, ref;
  kn_graph *g;
  kn_session *s;
  kn_tensor *x;
} both;

static void both_open(both *b, kn_context *c) {
  static const double values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  b->c = c;
  OK(c, kn_device_add(c, KN_CPU, cp_provider_at(cp_provider_count() - 1)));
  ck_assert(kn_ref_backend.target(c, NULL, &b->ref) && kn_cpu_backend.target(c, NULL, &b->cpu));
  b->g = parse(c, text);
  OK(c, kn_session_new(c, b->g, (const kn_target *[]){&b->cpu, &b->ref}, 2, &b->s));
  b->x = make(c, KN_F32, DIMS(2, 4), values);
  kn_session_context(b->s)->peaks = (kn_peaks){1e9, 1e9, kn_session_context(b->s)->threads};
}

static void both_close(both *b) {
  kn_tensor_release(b->x);
  kn_session_free(b->s);
  kn_graph_release(b->g);
  suite_done(b->c);
}

static const kn_profile_row *row_of(const kn_profile *p, const char *name) {
  char buf[128];
  for (uint32_t i = 0; i < p->nrows; i++)
    if (!strcmp(kn_profile_name(&p->rows[i], buf, sizeof buf), name)) return &p->rows[i];
  ck_abort_msg("no row %s", name);
  return NULL;
}

START_TEST(rows_are_what_ran) {
  both b;
  kn_profile *p;
  both_open(&b, suite_context());
  const kn_rvalue in[] = {{.tensor = b.x}, INT(3)};
  kn_context *c = kn_session_context(b.s);
  OK(c, kn_session_profile(b.s, in, 2, &(kn_profile_options){.runs = 4}, &p));
  ck_assert_uint_eq(p->done, 4);
  const kn_profile_row *before = row_of(p, "mul + tanh"), *inside = row_of(p, "add + exp"),
                       *loop = row_of(p, "loop");
  ck_assert(before->calls == 4 && inside->calls == 12 && loop->calls == 4 && loop->trips == 12);
  ck_assert(before->depth == 0 && inside->depth == 1 && before->n == 2);
  ck_assert_double_eq(before->cost.bytes, 4 * 4 * 16.0); /* %x once, what lies between never */
  ck_assert_double_eq(before->cost.flops, 4 * 16.0);
  ck_assert(loop->total >= loop->own + inside->own);
  ck_assert_str_eq(inside->backend, "cpu");
  kn_profile_free(p);
  OK(c, kn_session_profile(b.s, in, 2, &(kn_profile_options){.runs = 1, .nodes = true}, &p));
  ck_assert(row_of(p, "exp")->n == 1 && row_of(p, "tanh")->calls == 1);
  ck_assert_double_eq(row_of(p, "mul")->cost.bytes, 3 * 32.0);
  kn_profile_free(p);
  kn_rvalue v;
  OK(c, kn_session_get_slot(b.s, 0, &v));
  ck_assert_int_eq(v.scalar.as.i, 5);
  both_close(&b);
}
END_TEST

START_TEST(a_run_that_fails_leaves_all_as_it_was) {
  both b;
  kn_profile *p = NULL;
  kn_rvalue v, out[2];
  both_open(&b, suite_context());
  kn_rvalue in[] = {{.tensor = b.x}, INT(6)};
  kn_context *c = kn_session_context(b.s);
  kn_profile_options o = {.runs = 2};
  FAILS(c, KN_RAISED, "too many", kn_session_profile(b.s, in, 2, &o, &p));
  FAILS(c, KN_ARG, "takes 2 inputs", kn_session_profile(b.s, in, 1, &o, &p));
  o.runs = KN_PROFILE_MOST_RUNS + 1;
  FAILS(c, KN_ARG, "too many", kn_session_profile(b.s, in, 2, &o, &p));
  ck_assert_ptr_null(p);
  OK(c, kn_session_get_slot(b.s, 0, &v));
  ck_assert_int_eq(v.scalar.as.i, 5);
  in[1] = INT(2);
  OK(c, kn_session_run(b.s, in, 2, out, 2));
  ck_assert_int_eq(out[1].scalar.as.i, 6);
  kn_tensor_release(out[0].tensor);
  both_close(&b);
}
END_TEST

START_TEST(every_allocation_may_fail) {
  scarce mem = {.left = -1};
  both b;
  kn_heap *heap = kn_heap_new(scarce_alloc, &mem, 0);
  kn_context *c = kn_context_new(heap, NULL);
  kn_heap_release(heap);
  both_open(&b, c);
  const kn_rvalue in[] = {{.tensor = b.x}, INT(2)};
  kn_status st = KN_NOMEM;
  kn_rvalue out[2];
  OK(kn_session_context(b.s), kn_session_run(b.s, in, 2, out, 2));
  kn_tensor_release(out[0].tensor);
  for (long at = 0; st != KN_OK; at++) {
    uint64_t blocks = kn_heap_read_stats(c->heap).blocks;
    kn_profile *p;
    kn_writer w = {.heap = c->heap};
    scarce_begin(&mem, at, true);
    st = kn_session_profile(b.s, in, 2, &(kn_profile_options){.runs = 2}, &p);
    bool made = st == KN_OK;
    if (made) kn_profile_text(p, &w);
    if (w.failed) st = KN_NOMEM;
    ck_assert_msg(scarce_end(&mem) == (st != KN_OK), "allocation %ld", at);
    kn_writer_free(&w);
    if (made) kn_profile_free(p);
    ck_assert_msg(kn_heap_read_stats(c->heap).blocks == blocks, "allocation %ld: a leak", at);
    ck_assert_int_lt(at, 5000);
  }
  both_close(&b);
}
END_TEST

START_TEST(what_the_machine_reaches) {
  kn_context *c = suite_context();
  OK(c, kn_peaks_measure(c));
  ck_assert(c->peaks.flops > 1e6 && c->peaks.bytes > 1e6 && c->peaks.threads == c->threads);
  c->peaks.flops = 7;
  OK(c, kn_peaks_measure(c)); /* once */
  ck_assert_double_eq(c->peaks.flops, 7);
  suite_done(c);
}
END_TEST

SUITE("profile", rows_are_what_ran, a_run_that_fails_leaves_all_as_it_was, every_allocation_may_fail,
      what_the_machine_reaches)
