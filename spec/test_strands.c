/* Strands: what runs side by side gives the bits, the errors, the random numbers and the counts that it gives
 * in order. Made for ThreadSanitizer too (./dev tsan). */
#include "backends/registry.h"
#include "core/parallel.h"
#include "graph/session.h"
#include "spec/exec.h"
#include "spec/random_graph.h"
#include "spec/scarce.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static void fill(kn_tensor *t, uint64_t seed) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)kn_random_word(seed, 7, (uint64_t)k) / 0x1p31 - 1);
}

typedef struct two { /* one graph, in order and side by side */
  kn_context *c;
  kn_graph *g;
  kn_session *s[2];
} two;

static void open_two(two *t, kn_context *c, kn_graph *g, const kn_target *const *targets, int n) {
  *t = (two){.c = c, .g = g};
  for (int i = 0; i < 2; i++) {
    c->beside = i ? KN_BESIDE_ALWAYS : KN_BESIDE_NEVER;
    OK(c, kn_session_new(c, g, targets, n, &t->s[i]));
  }
}

static void close_two(two *t) {
  for (int i = 0; i < 2; i++) kn_session_free(t->s[i]);
  kn_graph_release(t->g);
}

/* Both give the same; the status that they gave. */
static kn_status run_two(two *t, const kn_rvalue *in, uint32_t nin, uint32_t nout, const char *what) {
  kn_rvalue out[2][6];
  kn_status st[2];
  kn_context *c[2];
  for (int i = 0; i < 2; i++) {
    c[i] = kn_session_context(t->s[i]);
    st[i] = kn_session_run(t->s[i], in, nin, out[i], nout);
  }
  ck_assert_msg(st[0] == st[1], "%s: \"%s\" in order, \"%s\" side by side", what,
                st[0] ? kn_error(c[0]) : "ok", st[1] ? kn_error(c[1]) : "ok");
  if (st[0] != KN_OK) ck_assert_str_eq(kn_error(c[0]), kn_error(c[1]));
  ck_assert_msg(c[0]->random.seed == c[1]->random.seed && c[0]->random.offset == c[1]->random.offset,
                "%s: the random stream is elsewhere", what);
  for (uint32_t k = 0; k < nout && st[0] == KN_OK; k++) {
    ck_assert_msg(same_result(&out[0][k], &out[1][k]), "%s: result %u differs", what, k + 1);
    for (int i = 0; i < 2; i++) kn_tensor_release(out[i][k].tensor);
  }
  return st[0];
}

static kn_context *open_context(void) {
  kn_context *c = suite_context();
  c->threads = 3;
  OK(c, kn_registry_open(c, NULL));
  return c;
}

static void close_context(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* ---- random graphs ---- */

START_TEST(random_graphs) {
  const char *more = getenv("KILN_RANDOM_GRAPHS");
  int count = more ? atoi(more) : 150;
  uint64_t sections = 0;
  kn_context *c = open_context();
  const kn_target *const *targets;
  int n;
  OK(c, kn_registry_targets(c, &targets, &n));
  for (int seed = 1; seed <= count; seed++) {
    two t;
    char what[64];
    open_two(&t, c, random_graph(c, (uint64_t)seed, 10 + seed % 60), targets + (seed % 2 ? n - 1 : 0),
             seed % 2 ? 1 : n);
    for (uint32_t i = 0; i < 2; i++) {
      kn_rvalue slot;
      OK(c, kn_tensor_new(c, &t.g->slots[i]->type.tensor, &slot.tensor));
      fill(slot.tensor, (uint64_t)seed + i);
      for (int k = 0; k < 2; k++) OK(kn_session_context(t.s[k]), kn_session_set_slot(t.s[k], i, &slot));
      kn_tensor_release(slot.tensor);
    }
    for (int run = 0; run < 3; run++) {
      kn_type type = type_of(KN_F32, DIMS(1 + run % 2 * 4, 3));
      kn_rvalue in[4] = {{0}, {0}, INT(run), NUM(run * 0.3 - 0.5)}, state[2];
      for (uint32_t i = 0; i < 2; i++) {
        OK(c, kn_tensor_new(c, &type, &in[i].tensor));
        fill(in[i].tensor, (uint64_t)(seed * 5 + run) + i);
      }
      snprintf(what, sizeof what, "seed %d, run %d", seed, run);
      run_two(&t, in, 4, 6, what);
      for (int k = 0; k < 2; k++) OK(kn_session_context(t.s[k]), kn_session_get_slot(t.s[k], 1, &state[k]));
      ck_assert_msg(same_result(&state[0], &state[1]), "%s: the slot differs", what);
      for (int k = 0; k < 2; k++) kn_tensor_release(state[k].tensor), kn_tensor_release(in[k].tensor);
    }
    ck_assert_int_eq((int)t.s[0]->beside, 0);
    sections += t.s[1]->beside;
    close_two(&t);
  }
  ck_assert_msg(sections > (uint64_t)count, "only %d sections ran", (int)sections);
  close_context(c);
}
END_TEST

/* ---- graphs by hand ---- */

/* Two loops that end after %n and %m trips, each in a stream of random numbers; what %k says goes wrong: in
 * trip %k of the first, or of the second with %k negative. 0: nothing. */
static const char loops_text[] =
    "graph g(%x: float32[N], %n: integer, %m: integer, %k: integer) {\n"
    "  %one = const 1\n  %zero = const 0\n  %shown: float32[N] = sin %x\n"
    "  %s1: int64[2] = fork_random\n"
    "  %a: float32[N] = loop (%h: float32[N] = %shown, %i: integer = %one) {\n"
    "    %p: float32[N] = sigmoid %h\n    %r: float32[N] = bernoulli %p\n    %t: float32[N] = tanh %h\n    "
    "%u: float32[N] = add %t, %r\n"
    "    %bad: boolean = lua.eq %i, %k\n    %good: boolean = lua.not %bad\n    assert %good \"first\"\n"
    "    %more: boolean = lua.lt %i, %n\n    %j: integer = lua.add %i, %one\n"
    "    continue_if %more next(%u, %j) exit(%u)\n  }\n"
    "  %e1: int64[2] = join_random %s1\n"
    "  %s2: int64[2] = fork_random\n"
    "  %b: float32[N] = loop (%h2: float32[N] = %shown, %i2: integer = %one) {\n"
    "    %p2: float32[N] = sigmoid %h2\n    %r2: float32[N] = bernoulli %p2\n    %t2: float32[N] = cos %h2\n "
    "   %u2: float32[N] = sub %t2, %r2\n"
    "    %minus: integer = lua.unm %i2\n    %bad2: boolean = lua.eq %minus, %k\n"
    "    %good2: boolean = lua.not %bad2\n    assert %good2 \"second\"\n"
    "    %more2: boolean = lua.lt %i2, %m\n    %j2: integer = lua.add %i2, %one\n"
    "    continue_if %more2 next(%u2, %j2) exit(%u2)\n  }\n"
    "  %e2: int64[2] = join_random %s2\n"
    "  %p3: float32[N] = sigmoid %x\n  %r3: float32[N] = bernoulli %p3\n"
    "  %y: float32[N] = mul %a, %b\n  %z: float32[N] = add %y, %r3\n"
    "  return %z, %a, %b\n}\n";

typedef struct bench_two {
  two t;
  kn_target ref;
  const kn_target *targets[1];
  kn_tensor *x;
} by_hand;

static void open_hand(by_hand *h, const char *text) {
  kn_context *c = suite_context();
  c->threads = 2;
  ck_assert(kn_ref_backend.target(c, NULL, &h->ref));
  h->targets[0] = &h->ref;
  open_two(&h->t, c, parse(c, text), h->targets, 1);
  h->x = make(c, KN_F32, DIMS(5), LIST(0.5, -1, 2, 0.25, 3));
}

static void close_hand(by_hand *h) {
  kn_context *c = h->t.c;
  kn_tensor_release(h->x);
  close_two(&h->t);
  suite_done(c);
}

static kn_status loops(by_hand *h, int64_t n, int64_t m, int64_t k) {
  kn_rvalue in[4] = {T(h->x), INT(n), INT(m), INT(k)};
  char what[64];
  snprintf(what, sizeof what, "%d and %d trips, %d", (int)n, (int)m, (int)k);
  return run_two(&h->t, in, 4, 3, what);
}

START_TEST(streams_errors_and_state) {
  by_hand h;
  open_hand(&h, loops_text);
  for (int run = 0; run < 30; run++) {
    ck_assert_int_eq(loops(&h, 1 + run % 5, 20 - run % 7, 0), KN_OK);
    ck_assert_int_eq(loops(&h, 9, 30, 1 + run % 9), KN_RAISED);
    ck_assert_int_eq(loops(&h, 9, 30, -1 - run % 30), KN_RAISED);
    ck_assert_ptr_nonnull(strstr(kn_error(kn_session_context(h.t.s[1])), "second"));
  }
  ck_assert(h.t.s[1]->beside > 0);
  close_hand(&h);
}
END_TEST

/* A stream may go on from anywhere: only the end of the one that was begun leaves the stream outside as it
 * was. */
START_TEST(streams_that_go_elsewhere) {
  by_hand h;
  open_hand(&h, "graph g(%x: float32[N], %n: integer, %m: integer, %k: integer) {\n"
                "  %f1: int64[] = to_tensor %k\n"
                "  %f2: int64[1] = reshape %f1 {sizes = {1}}\n  %at: int64[2] = expand %f2 {sizes = {2}}\n"
                "  %s1: int64[2] = fork_random\n  %p1: float32[N] = sigmoid %x\n"
                "  %a: float32[N] = bernoulli %p1\n  %e1: int64[2] = join_random %at\n"
                "  %s2: int64[2] = fork_random\n  %p2: float32[N] = tanh %x\n  %q2: float32[N] = abs %p2\n"
                "  %b: float32[N] = bernoulli %q2\n  %e2: int64[2] = join_random %s2\n"
                "  %c: float32[N] = bernoulli %p1\n  %y: float32[N] = add %a, %b\n"
                "  return %y, %c, %e2\n}\n");
  for (int run = 0; run < 5; run++) ck_assert_int_eq(loops(&h, 1, 1, 7 + run), KN_OK);
  close_hand(&h);
}
END_TEST

/* Whatever the limit, it is reached in both or in none, and before or after an error as the program has it.
 * Parts count as steps, so both have the same. */
START_TEST(step_limits) {
  by_hand h;
  open_hand(&h, loops_text);
  kn_context *first = kn_session_context(h.t.s[0]);
  first->beside = KN_BESIDE_ALWAYS;
  ck_assert_int_eq(loops(&h, 1, 1, 0), KN_OK);
  first->beside = KN_BESIDE_NEVER;
  int reached = 0, raised = 0, passed = 0;
  for (uint64_t limit = 1; limit < 70; limit++)
    for (int k = -1; k < 2; k++) {
      for (int i = 0; i < 2; i++) kn_session_set_step_limit(h.t.s[i], limit);
      kn_status st = loops(&h, 8, 10, 5 * k);
      reached += st == KN_LIMIT, raised += st == KN_RAISED, passed += st == KN_OK;
      if (st != KN_LIMIT) ck_assert_int_eq(h.t.s[0]->steps, h.t.s[1]->steps);
    }
  ck_assert(reached > 20 && raised > 20 && passed > 5);
  close_hand(&h);
}
END_TEST

/* After as many polls as are left. */
static kn_status stop_after(void *left, uint64_t steps) {
  (void)steps;
  return atomic_fetch_sub((atomic_int *)left, 1) < 0 ? KN_CANCELLED : KN_OK;
}

/* Neither loop ends: the host does. */
START_TEST(cancelled_inside) {
  by_hand h;
  atomic_int polls;
  open_hand(&h, loops_text);
  for (int run = 0; run < 5; run++) {
    for (int i = 0; i < 2; i++) {
      atomic_init(&polls, 2000);
      kn_session_set_poll(h.t.s[i], stop_after, &polls);
      kn_rvalue in[4] = {T(h.x), INT(INT64_MAX), INT(INT64_MAX), INT(0)}, out[3];
      kn_context *c = kn_session_context(h.t.s[i]);
      ck_assert_int_eq(kn_session_run(h.t.s[i], in, 4, out, 3), KN_CANCELLED);
      ck_assert_str_eq(kn_error(c), "stopped by the host (cancelled)");
      kn_session_set_poll(h.t.s[i], NULL, NULL);
    }
    ck_assert_int_eq(loops(&h, 4, 3, 0), KN_OK);
  }
  close_hand(&h);
}
END_TEST

typedef struct teller {
  atomic_bool back;
  atomic_uint_least64_t last;
} teller;

static kn_status note_count(void *ud, uint64_t steps) {
  teller *t = ud;
  if (steps && steps <= atomic_load(&t->last)) atomic_store(&t->back, true);
  if (!steps && atomic_load(&t->last) != UINT64_MAX) atomic_store(&t->back, true);
  atomic_store(&t->last, steps);
  return KN_OK;
}

/* The host may take 0 for the beginning of a run: a section that is run again does not tell it so. */
START_TEST(counts_that_never_go_back) {
  by_hand h;
  teller t;
  open_hand(&h, loops_text);
  atomic_init(&t.back, false);
  kn_session_set_poll(h.t.s[1], note_count, &t);
  for (int k = -12; k < 12; k++) {
    atomic_init(&t.last, UINT64_MAX);
    loops(&h, 20, 20, k);
    ck_assert(!atomic_load(&t.back));
  }
  ck_assert(h.t.s[1]->beside > 0);
  close_hand(&h);
}
END_TEST

/* Loops that stand behind an error are not waited for, though they took longest when there was none. */
START_TEST(loops_behind_an_error) {
  by_hand h;
  atomic_int polls;
  open_hand(&h, "graph g(%x: float32[N], %n: integer, %m: integer, %k: integer) {\n"
                "  %one = const 1\n"
                "  %a: float32[N] = loop (%h: float32[N] = %x, %i: integer = %one) {\n"
                "    %t: float32[N] = tanh %h\n"
                "    %more: boolean = lua.lt %i, %m\n    %j: integer = lua.add %i, %one\n"
                "    continue_if %more next(%t, %j) exit(%t)\n  }\n"
                "  %good: boolean = lua.lt %n, %k\n  assert %good \"too many\"\n"
                "  %c: integer = loop (%i4: integer = %one) {\n"
                "    %more4: boolean = lua.lt %i4, %n\n    %j4: integer = lua.add %i4, %one\n"
                "    continue_if %more4 next(%j4) exit(%j4)\n  }\n"
                "  %b: float32[N] = loop (%h2: float32[N] = %x, %i2: integer = %one) {\n"
                "    %t2: float32[N] = sin %h2\n    %u2: float32[N] = cos %t2\n"
                "    %more2: boolean = lua.lt %i2, %n\n    %j2: integer = lua.add %i2, %one\n"
                "    continue_if %more2 next(%u2, %j2) exit(%u2)\n  }\n"
                "  %d: float32[N] = loop (%h3: float32[N] = %x, %i3: integer = %one) {\n"
                "    %t3: float32[N] = cos %h3\n    %u3: float32[N] = sin %t3\n"
                "    %more3: boolean = lua.lt %i3, %n\n    %j3: integer = lua.add %i3, %one\n"
                "    continue_if %more3 next(%u3, %j3) exit(%u3)\n  }\n"
                "  %y: float32[N] = add %a, %b\n  %z: float32[N] = add %y, %d\n"
                "  return %z, %c, %d\n}\n");
  for (int i = 0; i < 2; i++) kn_session_set_poll(h.t.s[i], stop_after, &polls);
  for (int beside = 0; beside < 2; beside++) { /* on two threads, then on one that takes the strands */
    kn_session_context(h.t.s[1])->threads = beside ? 1 : 2;
    for (int run = 0; run < 4; run++) {
      atomic_init(&polls, 200000);
      for (int fine = 0; fine < 16; fine++) ck_assert_int_eq(loops(&h, 90, 3, 100), KN_OK);
      ck_assert_int_eq(loops(&h, INT64_MAX, 3, 100), KN_RAISED);
    }
  }
  ck_assert(h.t.s[1]->beside > 0);
  close_hand(&h);
}
END_TEST

/* What an error is caught by is inside a strand. */
START_TEST(caught_inside) {
  by_hand h;
  open_hand(&h,
            "graph g(%x: float32[N], %n: integer, %m: integer, %k: integer) {\n"
            "  %zero = const 0\n  %yes = const true\n  %no = const false\n"
            "  %t1: boolean = attempt\n"
            "  %ok: boolean, %c1: integer, %a: float32[N] = if %t1 {\n"
            "    %q: integer = lua.idiv %n, %m\n    %f: float32[] = to_tensor %q\n"
            "    %b: float32[N] = mul %x, %f\n    yield %yes, %zero, %b\n"
            "  } else {\n    %w: integer = caught\n    %d: float32[N] = neg %x\n    yield %no, %w, %d\n  }\n"
            "  %t2: boolean = attempt\n"
            "  %ok2: boolean, %c2: integer, %a2: float32[N] = if %t2 {\n"
            "    %q2: integer = lua.mod %n, %k\n    %f2: float32[] = to_tensor %q2\n"
            "    %b2: float32[N] = mul %x, %f2\n    yield %yes, %zero, %b2\n"
            "  } else {\n    %w2: integer = caught\n    %d2: float32[N] = exp %x\n"
            "    yield %no, %w2, %d2\n  }\n"
            "  %y: float32[N] = add %a, %a2\n  return %y, %c1, %c2\n}\n");
  for (int run = 0; run < 40; run++) ck_assert_int_eq(loops(&h, 7, run % 3, run % 4), KN_OK);
  ck_assert(h.t.s[1]->beside > 0);
  close_hand(&h);
}
END_TEST

/* After the first runs only results are allocated, on one thread and on several. */
START_TEST(steady_runs_allocate_results_only) {
  by_hand h;
  open_hand(&h, loops_text);
  kn_heap *heap = h.t.c->heap;
  kn_rvalue in[4] = {T(h.x), INT(40), INT(50), INT(0)}, out[3];
  uint64_t want = 0;
  for (int i = 0; i < 2; i++)
    for (int run = 0; run < 12; run++) {
      uint64_t before = kn_heap_read_stats(heap).calls;
      OK(kn_session_context(h.t.s[i]), kn_session_run(h.t.s[i], in, 4, out, 3));
      uint64_t calls = kn_heap_read_stats(heap).calls - before;
      if (!i && run == 11) want = calls;
      if (i && run > 2) ck_assert_int_eq(calls, want);
      for (int k = 0; k < 3; k++) kn_tensor_release(out[k].tensor);
    }
  close_hand(&h);
}
END_TEST

/* What is looked at in vain, from each node on, leaves nothing in the plan: it grows as the graph does. */
START_TEST(searches_leave_nothing) {
  enum { LINE = 64, MOST = 512 };
  static char text[LINE * (MOST + 2)];
  size_t kept[2];
  for (int k = 0; k < 2; k++) {
    int nodes = k ? MOST : MOST / 4;
    size_t at = (size_t)snprintf(text, sizeof text, "graph g(%%y0: float32[40,40]) {\n");
    for (int i = 1; i <= nodes; i++) /* one behind the other */
      at += (size_t)snprintf(text + at, sizeof text - at, "  %%y%d = matmul %%y%d, %%y0\n", i, i - 1);
    snprintf(text + at, sizeof text - at, "  return %%y%d\n}\n", nodes);
    kn_run_memory m;
    by_hand h;
    open_hand(&h, text);
    kn_type type = type_of(KN_F32, DIMS(40, 40));
    kn_rvalue in = {0};
    OK(h.t.c, kn_tensor_new(h.t.c, &type, &in.tensor));
    OK(kn_session_context(h.t.s[1]), kn_session_prepare(h.t.s[1], &in, 1, &m));
    kept[k] = m.plan;
    kn_tensor_release(in.tensor);
    close_hand(&h);
  }
  ck_assert_msg(kept[1] < 6 * kept[0], "plans of %zu and %zu bytes", kept[0], kept[1]);
}
END_TEST

/* ---- memory that runs out ---- */

START_TEST(every_allocation_may_fail) {
  scarce memory = {.left = -1};
  kn_heap *heap = kn_heap_new(scarce_alloc, &memory, 0);
  kn_context *c = kn_context_new(heap, NULL);
  c->threads = 2;
  c->beside = KN_BESIDE_ALWAYS;
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_graph *g = parse(c, loops_text);
  kn_rvalue in[4] = {T(make(c, KN_F32, DIMS(2), LIST(1, 2))), INT(3), INT(4), INT(0)}, out[3];
  long refused = 0;
  for (int once = 0; once < 2; once++)
    for (long n = 0;; n++) {
      uint64_t blocks = kn_heap_read_stats(heap).blocks;
      kn_session *s = NULL;
      scarce_begin(&memory, n, once);
      kn_status st = kn_session_new(c, g, (const kn_target *[]){&ref}, 1, &s);
      if (st == KN_OK) st = kn_session_run(s, in, 4, out, 3);
      bool any = scarce_end(&memory);
      ck_assert(st == KN_OK || st == KN_NOMEM);
      if (st == KN_OK) ck_assert_uint_eq(s->plans->nsections, 1);
      for (int k = 0; k < 3 && st == KN_OK; k++) kn_tensor_release(out[k].tensor);
      kn_session_free(s);
      ck_assert_uint_eq(kn_heap_read_stats(heap).blocks, blocks);
      if (!any) break;
      refused++;
    }
  ck_assert_int_gt(refused, 50);
  kn_tensor_release(in[0].tensor);
  kn_graph_release(g);
  suite_done(c);
  kn_heap_release(heap);
}
END_TEST

/* ---- at the same time ---- */

typedef struct meeting { /* the reference, whose first two parts on two threads wait for each other */
  kn_target ref;
  pthread_t caller;
  atomic_int here, there; /* parts that have begun in the caller's thread, and elsewhere */
  bool met;
} meeting;

static bool any(void *ud, kn_context *ctx, const kn_node *n, const kn_type *types, char *why, size_t size) {
  (void)ud, (void)ctx, (void)n, (void)types, (void)why, (void)size;
  return true;
}

static kn_status compile(void *ud, kn_context *ctx, const kn_part *part, kn_program **out) {
  const meeting *m = ud;
  return m->ref.compile(m->ref.self, ctx, part, out);
}

static kn_status meet(void *ud, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  meeting *m = ud;
  bool inside = ctx->threads == 1;
  atomic_int *mine = pthread_equal(pthread_self(), m->caller) ? &m->here : &m->there;
  atomic_int *other = mine == &m->here ? &m->there : &m->here;
  if (inside) atomic_fetch_add(mine, 1);
  time_t end = time(NULL) + 20;
  while (inside && !atomic_load(other) && time(NULL) < end) sched_yield();
  return m->ref.run(m->ref.self, ctx, p, vals, scalars);
}

static void forget(void *ud, kn_context *ctx, kn_program *p) {
  const meeting *m = ud;
  m->ref.free(m->ref.self, ctx, p);
}

START_TEST(at_the_same_time) {
  if (!strcmp(kn_parallel_name(), "none")) return;
  kn_context *c = suite_context();
  c->threads = 2;
  meeting m = {.caller = pthread_self()};
  ck_assert(kn_ref_backend.target(c, NULL, &m.ref));
  kn_target target = {
      .name = "meeting", .supports = any, .compile = compile, .run = meet, .free = forget, .self = &m};
  kn_graph *g = parse(c, loops_text);
  kn_session *s;
  OK(c, kn_session_new(c, g, (const kn_target *[]){&target}, 1,
                       &s)); /* loops are worth it, as far as one can tell */
  kn_rvalue in[4] = {T(make(c, KN_F32, DIMS(2), LIST(1, 2))), INT(5), INT(5), INT(0)}, out[3];
  OK(kn_session_context(s), kn_session_run(s, in, 4, out, 3));
  ck_assert_int_eq(atomic_load(&m.here), 5 + 2);
  ck_assert_int_eq(atomic_load(&m.there), 5 + 2);
  ck_assert_int_eq((int)s->beside, 1);
  for (int k = 0; k < 3; k++) kn_tensor_release(out[k].tensor);
  kn_tensor_release(in[0].tensor);
  kn_session_free(s);
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

SUITE("strands", random_graphs, streams_errors_and_state, streams_that_go_elsewhere, step_limits,
      cancelled_inside, counts_that_never_go_back, loops_behind_an_error, caught_inside,
      steady_runs_allocate_results_only, searches_leave_nothing, every_allocation_may_fail, at_the_same_time)
