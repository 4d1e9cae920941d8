/* Plans: random graphs against their meaning, memory shared and not allocated, memory that runs out, threads.
 */
#include "backends/registry.h"
#include "graph/session.h"
#include "spec/exec.h"
#include "spec/greedy.h"
#include "spec/scarce.h"
#include "spec/random_graph.h"
#include <math.h>
#include <pthread.h>

/* ---- random graphs ---- */

static void fill(kn_tensor *t, uint64_t seed) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)kn_random_word(seed, 7, (uint64_t)k) / 0x1p31 - 1);
}

/* One graph, several sizes and inputs, a session and the evaluator side by side. `before`: a target that
 * comes before the reference, or NULL. */
static void compare_random(uint64_t seed, int steps, bool check, const kn_target *before) {
  kn_context *c = suite_context();
  c->threads = 1;
  kn_graph *g = random_graph(c, seed, steps);
  kn_target ref;
  kn_session *s;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  const kn_target *both[] = {before, &ref};
  OK(c, kn_session_new(c, g, before ? both : both + 1, before ? 2 : 1, &s));
  kn_session_set_check(s, check);
  kn_rvalue slots[2], in[4], a[6], b[6];
  slots[0].tensor = make(c, KN_F32, DIMS(3, 3), LIST(1, 0.5, -0.25, 0, 1, 0.75, 0.125, -1, 1));
  slots[1].tensor = make(c, KN_F32, DIMS(3), LIST(0.5, -0.5, 1));
  for (uint32_t i = 0; i < 2; i++) OK(kn_session_context(s), kn_session_set_slot(s, i, &slots[i]));
  for (int run = 0; run < 6; run++) {
    kn_type t = type_of(KN_F32, DIMS(1 + (run * 2) % 5, 3));
    OK(c, kn_tensor_new(c, &t, &in[0].tensor));
    OK(c, kn_tensor_new(c, &t, &in[1].tensor));
    fill(in[0].tensor, seed + (uint64_t)run), fill(in[1].tensor, seed * 3 + (uint64_t)run);
    in[2] = INT(run), in[3] = NUM(run * 0.3 - 0.5);
    kn_status want = evaluate(c, g, slots, in, a), got = kn_session_run(s, in, 4, b, 6);
    ck_assert_msg(want == got, "seed %d, run %d: \"%s\" instead of \"%s\"", (int)seed, run,
                  got == KN_OK ? "ok" : kn_error(kn_session_context(s)), want == KN_OK ? "ok" : kn_error(c));
    for (int i = 0; i < 6 && want == KN_OK; i++) {
      ck_assert_msg(same_result(&a[i], &b[i]), "seed %d, run %d, result %d differs", (int)seed, run, i + 1);
      kn_tensor_release(a[i].tensor), kn_tensor_release(b[i].tensor);
    }
    kn_rvalue state;
    OK(kn_session_context(s), kn_session_get_slot(s, 1, &state));
    ck_assert_msg(same_result(&state, &slots[1]), "seed %d, run %d: the slot differs", (int)seed, run);
    ck_assert(c->random.offset == kn_session_context(s)->random.offset);
    kn_tensor_release(state.tensor);
    kn_tensor_release(in[0].tensor), kn_tensor_release(in[1].tensor);
  }
  kn_tensor_release(slots[0].tensor), kn_tensor_release(slots[1].tensor);
  kn_session_free(s);
  kn_graph_release(g);
  suite_done(c);
}

START_TEST(random_graphs) {
  const char *n = getenv("KILN_RANDOM_GRAPHS"); /* more of them, by hand */
  int count = n ? atoi(n) : 300;
  for (int seed = 1; seed <= count; seed++)
    compare_random((uint64_t)seed, 6 + seed % 50, seed % 10 == 0, NULL);
}
END_TEST

/* What is promised to nodes that run together holds: see greedy.h. */
START_TEST(random_graphs_in_groups) {
  const char *n = getenv("KILN_RANDOM_GRAPHS");
  int count = n ? atoi(n) : 300, joined = 0, grouped = 0, hidden = 0, roomy = 0, over = 0;
  for (int seed = 1; seed <= count; seed++) {
    greedy g;
    greedy_init(&g, (uint64_t)seed);
    compare_random((uint64_t)seed, 6 + seed % 50, seed % 4 == 0, &g.target);
    joined += g.joined, grouped += g.grouped, hidden += g.hidden, roomy += g.roomy, over += g.over;
  }
  ck_assert_msg(joined > count && grouped > count && hidden > count && roomy > count && over > count,
                "too few: %d joined, %d groups, %d hidden, %d roomy, %d over", joined, grouped, hidden, roomy,
                over);
}
END_TEST

/* The targets of this build against the reference, node by node. */
START_TEST(random_graphs_on_all_backends) {
  kn_context *c = suite_context();
  c->threads = 2;
  OK(c, kn_registry_open(c, NULL));
  const kn_target *const *targets;
  int n;
  OK(c, kn_registry_targets(c, &targets, &n));
  for (uint64_t seed = 1; seed <= 40; seed++) {
    kn_graph *g = random_graph(c, seed, 40);
    kn_session *s;
    OK(c, kn_session_new(c, g, targets, n, &s));
    kn_session_set_check(s, true);
    for (int run = 0; run < 2; run++) {
      kn_type t = type_of(KN_F32, DIMS(3 + run, 3));
      kn_rvalue in[4] = {{0}, {0}, INT(run), NUM(0.5)}, out[6];
      for (uint32_t i = 0; i < 2; i++) {
        kn_rvalue slot;
        OK(c, kn_tensor_new(c, &t, &in[i].tensor));
        OK(c, kn_tensor_new(c, &g->slots[i]->type.tensor, &slot.tensor));
        fill(in[i].tensor, seed + i), fill(slot.tensor, seed * i);
        OK(kn_session_context(s), kn_session_set_slot(s, i, &slot));
        kn_tensor_release(slot.tensor);
      }
      OK(kn_session_context(s), kn_session_run(s, in, 4, out, 6));
      for (int i = 0; i < 6; i++) kn_tensor_release(out[i].tensor);
      kn_tensor_release(in[0].tensor), kn_tensor_release(in[1].tensor);
    }
    kn_session_free(s);
    kn_graph_release(g);
  }
  kn_registry_close(c);
  suite_done(c);
}
END_TEST

/* ---- memory ---- */

/* A loop that puts rows into a carried tensor needs its bytes once, unless the tensor is read as it was. */
START_TEST(puts_lie_over_what_they_are_made_from) {
  static const char *const later[] = {"%b", "%a"};
  for (int k = 0; k < 2; k++) {
    char text[800];
    snprintf(text, sizeof text,
             "graph g(%%x: float32[8,128], %%n: integer) {\n"
             "  %%one = const 1\n"
             "  %%y: float32[8,128], %%s: float32[8,128] = loop (%%a: float32[8,128] = %%x, %%i: integer = "
             "%%one) {\n"
             "    %%row: float32[128] = select %%a {dim = 1, index = 1}\n"
             "    %%new: float32[128] = exp %%row\n"
             "    %%b: float32[8,128] = select_put %%a, %%new {dim = 1, index = %%i}\n"
             "    %%c: float32[8,128] = exp %s\n"
             "    %%k: integer = lua.add %%i, %%one\n"
             "    %%more: boolean = lua.lt %%k, %%n\n"
             "    continue_if %%more next(%%b, %%k) exit(%%b, %%c)\n"
             "  }\n"
             "  %%z: float32[8,128] = add %%y, %%s\n"
             "  return %%z\n"
             "}\n",
             later[k]);
    rig r;
    rig_open_debug(&r, text, "mem");
    double numbers[1024];
    for (int i = 0; i < 1024; i++) numbers[i] = i / 1024.0;
    kn_tensor *x = f32(&r, DIMS(8, 128), numbers);
    kn_rvalue in[2] = {T(x), INT(5)}, out[1];
    kn_run_memory m = {0};
    OK(rig_ctx(&r), kn_session_prepare(r.s, in, 2, &m));
    ck_assert_int_eq(m.arena, (k ? 3 : 2) * 4096);
    OK(rig_ctx(&r), kn_session_run(r.s, in, 2, out, 1));
    double put = exp(numbers[0]), last = k ? exp(numbers[4 * 128]) : exp(put);
    ck_assert_double_eq_tol(element(out[0].tensor, 4 * 128), put + last, 1e-5);
    kn_tensor_release(out[0].tensor);
    kn_tensor_release(x);
    rig_close(&r);
  }
}
END_TEST

/* A chain needs two buffers however long it is; the branches of an if share theirs, beside what the last of
 * them still reads. */
START_TEST(buffers_share_bytes) {
  rig r;
  rig_open_debug(&r,
                 "graph g(%x: float32[N], %c: boolean) {\n"
                 "  %a: float32[N] = neg %x\n"
                 "  %b: float32[N] = neg %a\n"
                 "  %d: float32[N] = neg %b\n"
                 "  %e: float32[N] = neg %d\n"
                 "  %y: float32[N] = if %c {\n"
                 "    %f: float32[N] = neg %e\n"
                 "    %g: float32[N] = neg %f\n"
                 "    yield %g\n"
                 "  } else {\n"
                 "    %h: float32[N] = sin %e\n"
                 "    %i: float32[N] = sin %h\n"
                 "    yield %i\n"
                 "  }\n"
                 "  %z: float32[N] = neg %y\n"
                 "  return %z\n"
                 "}\n",
                 "mem");
  double ones[1024];
  for (int i = 0; i < 1024; i++) ones[i] = 1;
  kn_tensor *x = f32(&r, DIMS(1024), ones);
  kn_run_memory m = {0};
  kn_rvalue in[2] = {T(x), BOOL(true)};
  OK(rig_ctx(&r), kn_session_prepare(r.s, in, 2, &m));
  ck_assert_int_eq(m.arena, 3 * 4096);
  ck_assert_ptr_nonnull(strstr(
      r.log, "mem: plan of g(float32[1024], boolean): 8 values in 12288 bytes, 32768 without sharing"));
  ck_assert_ptr_nonnull(strstr(r.log, "mem:   %a"));
  kn_rvalue out[1];
  OK(rig_ctx(&r), kn_session_run(r.s, in, 2, out, 1));
  ck_assert(element(out[0].tensor, 5) == -1);
  kn_tensor_release(out[0].tensor);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* Loops in loops do not multiply the planning: forty deep, each with a counter that the plan cannot know. */
START_TEST(deep_nesting_plans_quickly) {
  static char text[20000];
  char *at =
      text +
      sprintf(text,
              "graph g(%%x: float32[2], %%n: integer) {\n  %%one = const 1\n  %%h0: float32[2] = neg %%x\n");
  enum { DEEP = 40 };
  for (int d = 1; d <= DEEP; d++)
    at += sprintf(at, "%%r%d: float32[?] = loop (%%h%d: float32[?] = %%h%d, %%i%d: integer = %%one) {\n", d,
                  d, d - 1, d);
  at += sprintf(at, "%%r%d: float32[?] = neg %%h%d\n", DEEP + 1, DEEP);
  for (int d = DEEP; d >= 1; d--)
    at += sprintf(at,
                  "%%m%d: boolean = lua.lt %%i%d, %%n\n%%j%d: integer = lua.add %%i%d, %%one\n"
                  "continue_if %%m%d next(%%r%d, %%j%d) exit(%%r%d)\n}\n",
                  d, d, d, d, d, d + 1, d, d + 1);
  sprintf(at, "return %%r1\n}\n");
  rig r;
  rig_open(&r, text);
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[1];
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), INT(1)));
  GIVES(out, 1, 2);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

static const char steady_text[] = "graph g(%x: float32[N,4], %n: integer) {\n"
                                  "  slot param \"w\": float32[4,4]\n"
                                  "  slot state \"s\": float32[4]\n"
                                  "  %w = param \"w\"\n"
                                  "  %one = const 1\n"
                                  "  %wt: float32[4,4] = transpose %w\n"
                                  "  %y: float32[N,4] = loop (%h: float32[N,4] = %x, %i: integer = %one) {\n"
                                  "    %p: float32[N,4] = mul %h, %h\n"
                                  "    %t: float32[4,N] = transpose %p\n"
                                  "    %u: float32[4,N] = tanh %t\n"
                                  "    %v: float32[N,4] = transpose %u\n"
                                  "    %m: float32[] = mean %v\n"
                                  "    %f: float = item %m\n"
                                  "    %z = const 0.1\n"
                                  "    %c: boolean = lua.lt %z, %f\n"
                                  "    %q: float32[N,4] = if %c {\n"
                                  "      %a: float32[N,4] = add %v, %h\n"
                                  "      yield %a\n"
                                  "    } else {\n"
                                  "      yield %v\n"
                                  "    }\n"
                                  "    %more: boolean = lua.lt %i, %n\n"
                                  "    %i2: integer = lua.add %i, %one\n"
                                  "    continue_if %more next(%q, %i2) exit(%q)\n"
                                  "  }\n"
                                  "  %wx: float32[N,4] = mul %y, %y\n"
                                  "  %row: float32[4] = select %wt {dim = 1, index = 2}\n"
                                  "  %r: float32[N,4] = add %wx, %row\n"
                                  "  %s = load_state \"s\"\n"
                                  "  %k: float32[4] = select %r {dim = 1, index = 1}\n"
                                  "  %s2: float32[4] = add %s, %k\n"
                                  "  store_state \"s\", %s2\n"
                                  "  %flat: float32[?] = reshape %r {sizes = {-1}}\n"
                                  "  return %r, %flat, %s2, %y\n"
                                  "}\n";

static void open_steady(rig *r) {
  rig_open(r, steady_text);
  kn_rvalue w = {.tensor = f32(r, DIMS(4, 4), LIST(1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8))};
  kn_rvalue s = {.tensor = VEC(r, 1, 2, 3, 4)};
  OK(rig_ctx(r), kn_session_set_slot(r->s, 0, &w));
  OK(rig_ctx(r), kn_session_set_slot(r->s, 1, &s));
  kn_tensor_release(w.tensor), kn_tensor_release(s.tensor);
}

/* After the first runs, a run allocates its results and nothing else, loops, views and state included. */
START_TEST(steady_runs_allocate_results_only) {
  rig r;
  open_steady(&r);
  kn_tensor *x = f32(&r, DIMS(2, 4), LIST(1, 2, 3, 4, 5, 6, 7, 8));
  uint64_t before = kn_heap_read_stats(r.c->heap).calls;
  kn_tensor *one = VEC(&r, 1);
  uint64_t a_tensor = kn_heap_read_stats(r.c->heap).calls - before;
  kn_tensor_release(one);
  kn_rvalue out[4];
  for (int i = 0; i < 6; i++) {
    before = kn_heap_read_stats(r.c->heap).calls;
    OK(rig_ctx(&r), RUN(&r, out, 4, T(x), INT(4)));
    uint64_t calls = kn_heap_read_stats(r.c->heap).calls - before;
    if (i > 2) ck_assert_int_eq(calls, 4 * a_tensor);
    for (int k = 0; k < 4; k++) kn_tensor_release(out[k].tensor);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- what is known before a run ---- */

/* %count and what hangs on it are constants; %large is written out for %shifted alone; %same is %y, %less is
 * not. */
static const char constant_text[] = "graph g(%x: float32[N,3], %b: float32[M,3]) {\n"
                                    "  slot state \"s\": float32[1,3]\n"
                                    "  %k = const 0.5\n"
                                    "  %half: float32[] = to_tensor %k\n"
                                    "  %ones: float32[N,3] = full_like %x {value = 1.0}\n"
                                    "  %count: float32[1,3] = sum %ones {dim = {1}, keepdim = true}\n"
                                    "  %share: float32[1,3] = div %half, %count\n"
                                    "  %row: float32[3] = select %share {dim = 1, index = 1}\n"
                                    "  %y: float32[N,3] = mul %x, %row\n"
                                    "  %same: float32[N,3] = sum_to %y, %x\n"
                                    "  %less: float32[?,3] = sum_to %same, %b\n"
                                    "  %large: float32[N,3] = full_like %x {value = 2.0}\n"
                                    "  %shifted: float32[N,3] = add %same, %large\n"
                                    "  store_state \"s\", %share\n"
                                    "  return %same, %less, %shifted, %count, %row\n"
                                    "}\n";

static int times(const char *log, const char *word) {
  int n = 0;
  for (; (log = strstr(log, word)); log++) n++;
  return n;
}

START_TEST(constants_are_computed_with_the_plan) {
  enum { MANY = 32768 };
  rig r;
  rig_open_debug(&r, constant_text, "exec");
  kn_rvalue out[5], state = {.tensor = make(r.c, KN_F32, DIMS(1, 3), LIST(0, 0, 0))};
  OK(rig_ctx(&r), kn_session_set_slot(r.s, 0, &state));
  kn_tensor_release(state.tensor);
  kn_tensor *x = f32(&r, DIMS(2, 3), LIST(4, 8, 12, 16, 20, 24)), *b = f32(&r, DIMS(1, 3), LIST(0, 0, 0));
  for (int run = 0; run < 2; run++) {
    OK(rig_ctx(&r), RUN(&r, out, 5, T(x), T(b)));
    gives(&out[0], DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6));
    gives(&out[1], DIMS(1, 3), LIST(5, 7, 9));
    gives(&out[2], DIMS(2, 3), LIST(3, 4, 5, 6, 7, 8));
    gives(&out[3], DIMS(1, 3), LIST(2, 2, 2));
    gives(&out[4], DIMS(3), LIST(0.25, 0.25, 0.25));
    OK(rig_ctx(&r), kn_session_get_slot(r.s, 0, &state));
    gives(&state, DIMS(1, 3), LIST(0.25, 0.25, 0.25));
  }
  ck_assert_int_eq(times(r.log, "full_like"), 0);
  ck_assert_int_eq(times(r.log, "to_tensor"), 0);
  ck_assert_int_eq(times(r.log, " div "), 0);
  kn_tensor_release(x);
  const kn_type wide = type_of(KN_F32, DIMS(MANY, 3));
  OK(r.c, kn_tensor_new(r.c, &wide, &x));
  fill(x, 1);
  OK(rig_ctx(&r), RUN(&r, out, 5, T(x), T(x)));
  ck_assert_int_eq(times(r.log, "full_like"), 1); /* %large; %ones is never written out */
  ck_assert(element(out[3].tensor, 2) == MANY);
  ck_assert(element(out[1].tensor, 5) == element(out[0].tensor, 5));
  ck_assert(element(out[2].tensor, 5) == (float)(2 + element(out[0].tensor, 5)));
  for (int i = 0; i < 5; i++) kn_tensor_release(out[i].tensor);
  kn_tensor_release(x), kn_tensor_release(b);
  rig_close(&r);
}
END_TEST

/* ---- memory that runs out ---- */

static kn_status run_scarce(kn_context *c, kn_graph *g, const kn_target *ref, scarce *mem, uint64_t fail_at,
                            const kn_rvalue *in, uint32_t nin, uint32_t nout, const kn_rvalue *slots) {
  kn_session *s;
  kn_rvalue out[8];
  scarce_begin(mem, (long)fail_at - 1, true);
  kn_status st = kn_session_new(c, g, &ref, 1, &s);
  if (st != KN_OK) return st;
  for (uint32_t i = 0; i < g->nslots; i++) OK(kn_session_context(s), kn_session_set_slot(s, i, &slots[i]));
  st = kn_session_run(s, in, nin, out, nout);
  if (st != KN_OK) {
    ck_assert_msg(strstr(kn_error(kn_session_context(s)), "out of memory"), "%s",
                  kn_error(kn_session_context(s)));
    scarce_end(mem);
    OK(kn_session_context(s), kn_session_run(s, in, nin, out, nout)); /* it is still of use */
    for (uint32_t i = 0; i < nout; i++) kn_tensor_release(out[i].tensor);
    kn_session_free(s);
    return st;
  }
  for (uint32_t i = 0; i < nout; i++) kn_tensor_release(out[i].tensor);
  kn_session_free(s);
  return st;
}

static void sweep(const char *text, uint64_t seed, int64_t n) {
  scarce mem = {.left = -1};
  kn_heap *heap = kn_heap_new(scarce_alloc, &mem, 0);
  kn_context *c = kn_context_new(heap, NULL);
  kn_heap_release(heap);
  kn_graph *g = text ? parse(c, text) : random_graph(c, seed, 40);
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_rvalue slots[2] = {{0}}, in[4] = {{0}};
  for (uint32_t i = 0; i < g->nslots; i++) {
    OK(c, kn_tensor_new(c, &g->slots[i]->type.tensor, &slots[i].tensor));
    fill(slots[i].tensor, i);
  }
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    if (g->body->params[i]->type.kind != KN_V_TENSOR) {
      in[i] = g->body->params[i]->type.kind == KN_V_FLOAT ? NUM(0.5) : INT(3);
      continue;
    }
    kn_type t = g->body->params[i]->type.tensor;
    t.dims[0] = n;
    OK(c, kn_tensor_new(c, &t, &in[i].tensor));
    fill(in[i].tensor, seed + i);
  }
  kn_status st = KN_NOMEM;
  for (uint64_t at = 1; st == KN_NOMEM; at++) {
    uint64_t blocks = kn_heap_read_stats(c->heap).blocks;
    st = run_scarce(c, g, &ref, &mem, at, in, g->body->nparams, g->body->nyields, slots);
    ck_assert_msg(st == KN_OK || st == KN_NOMEM, "allocation %d: %s", (int)at, kn_error(c));
    ck_assert_msg(kn_heap_read_stats(c->heap).blocks == blocks, "allocation %d: a leak", (int)at);
    ck_assert_int_lt(at, 5000);
  }
  scarce_end(&mem);
  for (int i = 0; i < 4; i++) kn_tensor_release(in[i].tensor);
  for (int i = 0; i < 2; i++) kn_tensor_release(slots[i].tensor);
  kn_graph_release(g);
  suite_done(c);
}

/* Not more of them than a bit of memory takes: what runs compute lies in each other's place. */
START_TEST(constants_have_an_end) {
  static char text[40000];
  int at =
      snprintf(text, sizeof text,
               "graph g(%%x: float32[256,256]) {\n  %%c0: float32[256,256] = full_like %%x {value = 0.5}\n");
  for (int i = 0; i < 400; i++)
    at += snprintf(text + at, sizeof text - (size_t)at, "  %%c%d: float32[256,256] = sin %%c%d\n", i + 1, i);
  snprintf(text + at, sizeof text - (size_t)at,
           "  %%y: float32[256,256] = add %%x, %%c400\n  return %%y\n}\n");
  rig r;
  rig_open(&r, text);
  kn_rvalue in = {0};
  kn_run_memory m;
  kn_type t = type_of(KN_F32, DIMS(256, 256));
  OK(r.c, kn_tensor_new(r.c, &t, &in.tensor));
  kn_heap_reset_peak(r.c->heap);
  OK(kn_session_context(r.s), kn_session_prepare(r.s, &in, 1, &m));
  ck_assert_uint_lt(m.plan, 48 << 20);
  ck_assert_uint_lt(kn_heap_read_stats(r.c->heap).peak, 96 << 20);
  kn_tensor_release(in.tensor);
  rig_close(&r);
}
END_TEST
START_TEST(every_allocation_may_fail) {
  sweep(steady_text, 0, 3);
  sweep(constant_text, 0, 3);
  for (uint64_t seed = 1; seed < 12; seed++) sweep(NULL, seed, 2);
}
END_TEST

/* ---- threads ---- */

typedef struct worker {
  pthread_t thread;
  kn_session *s;
  kn_tensor *x;
  float sum;
  int failed;
} worker;

static void *work(void *ud) {
  worker *w = ud;
  for (int i = 0; i < 50; i++) {
    kn_rvalue out[4];
    int64_t n = 1 + i % 3; /* plans of its own, too */
    kn_tensor *part;
    kn_attrs_slice a = {.dim = 0, .start = 0, .stop = n, .step = 1};
    kn_context *c = kn_session_context(w->s);
    if (kn_apply(c, KN_OP_slice, &a, &w->x, 1, &part) != KN_OK ||
        kn_session_run(w->s, (kn_rvalue[]){T(part), INT(i % 5)}, 2, out, 4) != KN_OK) {
      w->failed++;
      continue;
    }
    w->sum += (float)element(out[0].tensor, 0);
    for (int k = 0; k < 4; k++) kn_tensor_release(out[k].tensor);
    kn_tensor_release(part);
  }
  return NULL;
}

START_TEST(two_threads_share_a_graph) {
  rig r;
  open_steady(&r);
  kn_tensor *x = f32(&r, DIMS(3, 4), LIST(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
  worker w[3] = {{0}};
  for (int i = 0; i < 3; i++) {
    w[i].x = x;
    OK(r.c, kn_session_new(r.c, r.g, (const kn_target *[]){&r.target}, 1, &w[i].s));
    for (uint32_t k = 0; k < 2; k++) {
      kn_rvalue v;
      OK(rig_ctx(&r), kn_session_get_slot(r.s, k, &v));
      OK(kn_session_context(w[i].s), kn_session_set_slot(w[i].s, k, &v));
      kn_tensor_release(v.tensor);
    }
  }
  for (int i = 0; i < 2; i++) ck_assert(!pthread_create(&w[i].thread, NULL, work, &w[i]));
  for (int i = 0; i < 2; i++) pthread_join(w[i].thread, NULL);
  work(&w[2]);
  for (int i = 0; i < 3; i++) {
    ck_assert_int_eq(w[i].failed, 0);
    ck_assert(w[i].sum == w[2].sum);
    kn_session_free(w[i].s);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* The branch that goes on yields a value, the other one none, or another flag decides. */
static bool next_may_miss(const char *flag) {
  char text[1200];
  snprintf(text, sizeof text,
           "graph g(%%x: float32[2]) {\n"
           "  %%none: float32[2] = undef\n  %%one = const 1\n  %%two = const 2\n  %%most = const 100.0\n"
           "  %%y: float32[2] = loop (%%h: float32[2] = %%x) {\n"
           "    %%s: float32[] = sum %%h\n    %%f: float = item %%s\n"
           "    %%less: boolean = lua.lt %%f, %%most\n    %%not: boolean = lua.not %%less\n"
           "    %%z: float32[2], %%tag: integer = if %%less {\n"
           "      %%a: float32[2] = add %%h, %%h\n      yield %%a, %%two\n"
           "    } else {\n      yield %%none, %%one\n    }\n"
           "    %%is_two: boolean = lua.eq %%tag, %%two\n    %%is_one: boolean = lua.eq %%tag, %%one\n"
           "    %%not_one: boolean = lua.not %%is_one\n    %%twice: boolean = lua.not %%not\n"
           "    %%other: boolean = lua.le %%f, %%most\n"
           "    continue_if %%%s next(%%z) exit(%%h)\n  }\n  return %%y\n}\n",
           flag);
  rig r;
  rig_open(&r, text);
  kn_tensor *x = f32(&r, DIMS(2), LIST(1, 2));
  kn_rvalue in = {.tensor = x}, out = {0};
  const bool stops = kn_session_run(r.s, &in, 1, &out, 1) == KN_OK;
  const kn_region *body = kn_session_graph(r.s)->body;
  const kn_node *loop = body->first;
  while (loop->op != KN_NODE_loop) loop = loop->next;
  const bool maybe = r.s->plans->maybe[loop->regions[0]->params[0]->id];
  ck_assert(stops || maybe); /* a value that is not there is found out */
  if (!maybe) ck_assert_double_eq(element(out.tensor, 0), 64);
  kn_tensor_release(out.tensor), kn_tensor_release(x);
  rig_close(&r);
  return maybe;
}

START_TEST(what_goes_on_has_a_value) {
  ck_assert(!next_may_miss("less"));
  ck_assert(!next_may_miss("twice"));
  ck_assert(!next_may_miss("is_two"));
  ck_assert(!next_may_miss("not_one"));
  ck_assert(next_may_miss("other"));
}
END_TEST

START_TEST(what_does_not_go_on_has_none) {
  ck_assert(next_may_miss("not"));
  ck_assert(next_may_miss("is_one"));
}
END_TEST

SUITE("plan", what_goes_on_has_a_value, what_does_not_go_on_has_none, random_graphs, random_graphs_in_groups,
      random_graphs_on_all_backends, puts_lie_over_what_they_are_made_from, buffers_share_bytes,
      deep_nesting_plans_quickly, steady_runs_allocate_results_only, constants_are_computed_with_the_plan,
      constants_have_an_end, every_allocation_may_fail, two_threads_share_a_graph)
