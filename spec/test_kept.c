/* What sessions and programs keep from run to run, chains and products of the CPU backend among it, beside
 * sessions that run for the first time: slots and inputs elsewhere, otherwise strided, of other sizes, runs
 * that stop in the middle, memory that runs out. */
#include "backends/cpu/cpu.h"
#include "spec/exec.h"
#include "spec/scarce.h"

/* Views of a slot that loops make (one of them a copy), a put over a carried tensor, a product, a chain, a
 * constant of sizes that only the plan knows. */
static const char text[] = "graph g(%x: float32[N,4], %n: integer) {\n"
                           "  slot param \"w\": float32[4,4]\n"
                           "  %w = param \"w\"\n"
                           "  %one = const 1\n"
                           "  %start: float32[N,4] = mul %x, %x\n"
                           "  %y: float32[N,4] = loop (%h: float32[N,4] = %start, %i: integer = %one) {\n"
                           "    %wt: float32[4,4] = transpose %w\n"
                           "    %flat: float32[16] = reshape %wt {sizes = {16}}\n"
                           "    %row: float32[4] = select %wt {dim = 1, index = 2}\n"
                           "    %m: float32[N,4] = matmul %h, %wt\n"
                           "    %a: float32[N,4] = add %m, %row\n"
                           "    %b: float32[N,4] = relu %a\n"
                           "    %c: float32[N,4] = minimum %b, %x\n"
                           "    %five: float32[] = select %flat {dim = 1, index = 5}\n"
                           "    %p: float32[N,4] = select_put %c, %five {dim = 2, index = 1}\n"
                           "    %q: float32[N,4] = select_put %p, %row {dim = 1, index = -1}\n"
                           "    %more: boolean = lua.lt %i, %n\n"
                           "    %i2: integer = lua.add %i, %one\n"
                           "    continue_if %more next(%q, %i2) exit(%q)\n"
                           "  }\n"
                           "  %ones: float32[N,4] = full_like %x {value = 1.0}\n"
                           "  %count: float32[1,4] = sum %ones {dim = {1}, keepdim = true}\n"
                           "  %turned: float32[4,1] = transpose %count\n"
                           "  %z: float32[N,1] = matmul %y, %turned\n"
                           "  %r: float32[N,4] = div %y, %count\n"
                           "  return %y, %z, %r\n"
                           "}\n";
enum { RESULTS = 3 };

static void fill(kn_tensor *t, uint64_t seed) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)kn_random_word(seed, 7, (uint64_t)k) / 0x1p31 - 1);
}

/* A tensor of n rows, in order or turned. */
static kn_tensor *rows(kn_context *c, int64_t n, bool turned, uint64_t seed) {
  kn_type t = type_of(KN_F32, DIMS(turned ? 4 : n, turned ? n : 4));
  const kn_attrs_swap swap = {.dim0 = 0, .dim1 = 1};
  kn_tensor *made, *out;
  OK(c, kn_tensor_new(c, &t, &made));
  fill(made, seed);
  if (!turned) return made;
  OK(c, kn_apply(c, KN_OP_transpose, &swap, &made, 1, &out));
  kn_tensor_release(made);
  return out;
}

typedef struct targets { /* sessions borrow them */
  kn_target cpu, ref;
} targets;

static targets open_targets(kn_context *c) {
  targets t;
  OK(c, kn_device_add(c, KN_CPU, cp_provider_at(cp_provider_count() - 1)));
  ck_assert(kn_ref_backend.target(c, NULL, &t.ref) && kn_cpu_backend.target(c, NULL, &t.cpu));
  return t;
}

static kn_session *session(kn_context *c, kn_graph *g, const targets *t) {
  kn_session *s;
  OK(c, kn_session_new(c, g, (const kn_target *[]){&t->cpu, &t->ref}, 2, &s));
  return s;
}

static void give(kn_session *s, kn_tensor *w) {
  kn_rvalue v = {.tensor = w};
  OK(kn_session_context(s), kn_session_set_slot(s, 0, &v));
}

START_TEST(runs_do_not_show_in_later_ones) {
  kn_context *c = suite_context();
  const targets t = open_targets(c);
  kn_graph *g = parse(c, text);
  kn_session *old = session(c, g, &t);
  for (uint64_t run = 0; run < 48; run++) {
    kn_tensor *w = rows(c, 4, run / 2 % 2, run), *x = rows(c, run % 3 ? 3 : 5, run / 3 % 2, run + 100);
    kn_rvalue in[] = {{.tensor = x}, INT(1 + run % 4)}, want[RESULTS], got[RESULTS];
    kn_session *fresh = session(c, g, &t);
    if (run % 5 < 3) give(old, w);
    kn_rvalue now;
    OK(kn_session_context(old), kn_session_get_slot(old, 0, &now));
    give(fresh, now.tensor);
    kn_tensor_release(now.tensor);
    kn_session_set_step_limit(old, 1 + run % 7);
    kn_status st = kn_session_run(old, in, 2, got, RESULTS);
    if (st == KN_OK)
      for (int i = 0; i < RESULTS; i++) kn_tensor_release(got[i].tensor);
    kn_session_set_step_limit(old, 0);
    OK(kn_session_context(old), kn_session_run(old, in, 2, got, RESULTS));
    OK(kn_session_context(fresh), kn_session_run(fresh, in, 2, want, RESULTS));
    for (int i = 0; i < RESULTS; i++) {
      for (int64_t k = 0; k < kn_tensor_numel(want[i].tensor); k++)
        ck_assert_msg(element(want[i].tensor, k) == element(got[i].tensor, k), "run %d, result %d", (int)run,
                      i + 1);
      kn_tensor_release(want[i].tensor), kn_tensor_release(got[i].tensor);
    }
    kn_session_free(fresh);
    kn_tensor_release(w), kn_tensor_release(x);
  }
  kn_session_free(old);
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

/* ---- memory that runs out ---- */

START_TEST(every_allocation_may_fail) {
  scarce mem = {.left = -1};
  kn_heap *heap = kn_heap_new(scarce_alloc, &mem, 0);
  kn_context *c = kn_context_new(heap, NULL);
  kn_heap_release(heap);
  const targets t = open_targets(c);
  kn_graph *g = parse(c, text);
  kn_tensor *w = rows(c, 4, false, 1), *x = rows(c, 3, false, 2);
  const kn_rvalue in[] = {{.tensor = x}, INT(3)};
  kn_status st = KN_NOMEM;
  for (uint64_t at = 1; st != KN_OK; at++) {
    uint64_t blocks = kn_heap_read_stats(c->heap).blocks;
    kn_rvalue out[RESULTS];
    kn_session *s = session(c, g, &t);
    give(s, w);
    scarce_begin(&mem, (long)at - 1, true);
    st = kn_session_run(s, in, 2, out, RESULTS);
    bool failed = scarce_end(&mem);
    ck_assert_msg((st != KN_OK) == failed, "allocation %d: %s", (int)at, kn_status_text(st));
    if (st != KN_OK)
      OK(kn_session_context(s), kn_session_run(s, in, 2, out, RESULTS)); /* it is still of use */
    for (int i = 0; i < RESULTS; i++) kn_tensor_release(out[i].tensor);
    kn_session_free(s);
    ck_assert_msg(kn_heap_read_stats(c->heap).blocks == blocks, "allocation %d: a leak", (int)at);
    ck_assert_int_lt(at, 5000);
  }
  kn_tensor_release(x), kn_tensor_release(w);
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

SUITE("kept", runs_do_not_show_in_later_ones, every_allocation_may_fail)
