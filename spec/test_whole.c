/* Pieces of plans that run as one launch: their programs as text, and what they mean, by a launcher that
 * walks them (mock_launch.h). */
#define _DEFAULT_SOURCE
#include "spec/fake_device.h"
#include "spec/scarce.h"
#include "spec/whole_bench.h"

/* ---- random graphs ---- */

typedef struct counts {
  int runs, launches, made, trips, branches;
} counts;

typedef struct kind {
  bool plain;
  kn_device_id device;
  uint64_t refuses;
} kind;

/* Each with several sizes and inputs, against the evaluator. */
static void compare_in(kn_context *c, uint64_t seed, int steps, kind k, counts *n) {
  mock m;
  kn_target ref;
  mock_init(&m, k.device, k.refuses);
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_graph *g = random_graph_of(c, seed, steps, k.plain, k.device);
  rg_compare(c, g, seed, k.device, (const kn_target *[]){&m.target, &ref}, 2, 0);
  kn_graph_release(g);
  n->runs += RG_RUNS, n->launches += m.launches, n->made += m.made, n->trips += m.trips,
      n->branches += m.branches;
}

static void compare(uint64_t seed, int steps, kind k, counts *n) {
  static fake_device f;
  kn_context *c = suite_context();
  c->threads = 1;
  if (k.device != KN_CPU) fake_device_open(&f, c);
  compare_in(c, seed, steps, k, n);
  if (k.device != KN_CPU) fake_device_close(&f);
  suite_done(c);
}

static int graphs(void) {
  const char *n = getenv("KILN_RANDOM_GRAPHS"); /* more of them, by hand */
  return n ? atoi(n) : 300;
}

START_TEST(random_graphs_in_pieces) {
  counts n = {0};
  for (int seed = 1; seed <= graphs(); seed++)
    compare((uint64_t)seed, 6 + seed % 50, (kind){.refuses = seed % 2 ? 0 : (uint64_t)seed}, &n);
  ck_assert_msg(n.launches > n.runs && n.made < n.launches && n.trips > n.runs / 4 && n.branches > n.runs / 8,
                "%d runs, %d launches of %d, %d trips, %d branches", n.runs, n.launches, n.made, n.trips,
                n.branches);
}
END_TEST

/* Most of these are one launch. */
START_TEST(random_graphs_as_one) {
  counts n = {0};
  for (int seed = 1; seed <= graphs(); seed++)
    compare((uint64_t)seed, 6 + seed % 80, (kind){.plain = true}, &n);
  ck_assert_msg(n.launches < n.runs * 3 / 2 && n.trips > n.runs * 2 && n.branches > n.runs,
                "%d runs, %d launches of %d, %d trips, %d branches", n.runs, n.launches, n.made, n.trips,
                n.branches);
}
END_TEST

/* Of a device whose memory the host cannot touch. */
START_TEST(random_graphs_on_a_device) {
  counts n = {0};
  for (int seed = 1; seed <= graphs() / 2; seed++)
    compare((uint64_t)seed, 6 + seed % 50,
            (kind){.plain = seed % 2, .device = KN_CUDA, .refuses = seed % 3 ? 0 : (uint64_t)seed}, &n);
  ck_assert_msg(n.launches > n.runs && n.trips > n.runs && n.branches > n.runs / 2,
                "%d runs, %d launches of %d, %d trips, %d branches", n.runs, n.launches, n.made, n.trips,
                n.branches);
}
END_TEST

/* ---- programs as text ---- */

/* Numbers that take each other's place, and one of the trip before the last. */
START_TEST(numbers_are_carried_at_once) {
  bench b;
  bench_open(&b,
             "graph g(%n: integer, %x: float32[]) {\n"
             "  %zero = const 0\n"
             "  %one = const 1\n"
             "  %was: integer, %is: integer, %y: float32[] = loop (%a: integer = %zero, %b: integer = %one, "
             "%i: integer = %n, %t: float32[] = %x) {\n"
             "    %j = lua.sub %i, %one\n"
             "    %more = lua.lt %zero, %j\n"
             "    %u = add %t, %t\n"
             "    continue_if %more next(%b, %a, %j, %u) exit(%a, %b, %u)\n"
             "  }\n"
             "  return %was, %is, %y\n"
             "}\n");
  kn_tensor *x = number(b.r.c, KN_F32, 1.5);
  for (int n = 0; n < 9; n++) AGREE(&b, 3, INT(n), T(x));
  reads(&b, "copied in: %x\n"
            "number in: $6 = %zero\n"
            "number in: $8 = %one\n"
            "number in: $10 = %n\n"
            "%t = copy %x\n"
            "numbers: $7 = $6\n"
            "         $9 = $8\n"
            "         $11 = $10\n"
            "loop\n"
            "  %u = add\n"
            "  %t = copy %y\n"
            "  numbers: $12 = lua.sub $11, $8\n"
            "           $13 = lua.lt $6, $12\n"
            "           $14 = $7\n"
            "           $7 = when $13: $9\n"
            "           $9 = when $13: $14\n"
            "           $11 = when $13: $12\n"
            "again if $13\n"
            "numbers: $4 = $7\n"
            "         $5 = $9\n"
            "number out: $4 = %was\n"
            "number out: $5 = %is\n");
  kn_tensor_release(x);
  bench_close(&b);
}
END_TEST

/* What a branch computes lies where the result does; what it hands on is copied. The exit value of the inner
 * loop is a parameter, so its last trip carries nothing. */
START_TEST(branches_and_loops_in_each_other) {
  bench b;
  bench_open(&b, whole_nested);
  for (int k = 0; k < 6; k++) {
    kn_tensor *x = VEC(&b.r, k * 1.5, k), *y = VEC(&b.r, 0.25, -1);
    AGREE(&b, 1, T(x), T(y));
    kn_tensor_release(x), kn_tensor_release(y);
  }
  ck_assert_int_eq(b.m.launches, 6);
  ck_assert_int_eq(b.m.waits, 0);
  reads(&b, "copied in: %x\n"
            "copied in: %y\n"
            "number in: $5 = %ten\n"
            "number in: $8 = %one\n"
            "%sum = sum\n"
            "numbers: $4 = item %sum\n"
            "         $6 = lua.lt $5, $4\n"
            "if $6\n"
            "  %n = neg\n"
            "else\n"
            "  %p = copy %x\n"
            "  %b = copy %y\n"
            "  numbers: $7 = $4\n"
            "  loop\n"
            "    numbers: $9 = lua.add $7, $8\n"
            "             put $9 in %t\n"
            "             $10 = lua.lt $4, $7\n"
            "    %c = add; %e = mul\n"
            "    if $10\n"
            "      %q = copy %e\n"
            "    else\n"
            "      %q = copy %y\n"
            "    numbers: $11 = lua.lt $9, $5\n"
            "    if $11\n"
            "      (stage) = copy %b\n"
            "      %p = copy (stage)\n"
            "      %b = copy %q\n"
            "    numbers: $7 = when $11: $9\n"
            "  again if $11\n"
            "  %r = sub\n"
            "%w = add\n");
  bench_close(&b);
}
END_TEST

/* Two tensors that change places, by way of a stage; sizes choose a branch. */
START_TEST(carries_that_overlap_are_staged) {
  bench b;
  bench_open(
      &b, "graph g(%x: float32[N], %y: float32[N], %n: integer) {\n"
          "  %one = const 1\n"
          "  %zero = const 0\n"
          "  %size = size %x {dim = 1}\n"
          "  %few = lua.lt %size, %n\n"
          "  %known = lua.lt %size, %zero\n"
          "  %z: float32[N] = if %known {\n"
          "    %m = neg %x\n"
          "    yield %m\n"
          "  } else {\n"
          "    %m2 = abs %x\n"
          "    yield %m2\n"
          "  }\n"
          "  %p: float32[N], %q: float32[N] = loop (%a: float32[N] = %z, %b: float32[N] = %y, %i: integer = "
          "%n) {\n"
          "    %j = lua.sub %i, %one\n"
          "    %more = lua.lt %zero, %j\n"
          "    %c = add %a, %b\n"
          "    continue_if %more next(%b, %a, %j) exit(%c, %b)\n"
          "  }\n"
          "  %r = sub %p, %q\n"
          "  return %r\n"
          "}\n");
  for (int k = 0; k < 4; k++) {
    kn_tensor *x = VEC(&b.r, k * 1.5, -k), *y = VEC(&b.r, 0.25, -1);
    AGREE(&b, 1, T(x), T(y), INT(k));
    kn_tensor_release(x), kn_tensor_release(y);
  }
  ck_assert_int_eq(b.m.waits, 0);
  reads(&b, "copied in: %x\n"
            "copied in: %y\n"
            "number in: $4 = %n\n"
            "number in: $6 = %one\n"
            "number in: $8 = %zero\n"
            "%m2 = abs\n"
            "%a = copy %z\n"
            "%q = copy %y\n"
            "numbers: $5 = $4\n"
            "loop\n"
            "  %c = add\n"
            "  numbers: $7 = lua.sub $5, $6\n"
            "           $9 = lua.lt $8, $7\n"
            "  if $9\n"
            "    (stage) = copy %q\n"
            "    (stage) = copy %a\n"
            "    %a = copy (stage)\n"
            "    %q = copy (stage)\n"
            "  numbers: $5 = when $9: $7\n"
            "again if $9\n"
            "%r = sub\n");
  bench_close(&b);
}
END_TEST

/* A training step: state is read before the launch, and stored after it; its counter never leaves the host.
 */
START_TEST(steps_of_training_store_afterwards) {
  bench b;
  bench_open(&b, "graph g(%x: float32[2], %w: float32[2]) {\n"
                 "  slot state \"m\": float32[2]\n"
                 "  slot state \"t\": integer = 0\n"
                 "  %one = const 1\n"
                 "  %half = const 0.5\n"
                 "  %t = load_state \"t\"\n"
                 "  %t1 = lua.add %t, %one\n"
                 "  store_state \"t\", %t1\n"
                 "  %beta = lua.pow %half, %t1\n"
                 "  %bt: float32[] = to_tensor %beta\n"
                 "  %m = load_state \"m\"\n"
                 "  %g = mul %x, %w\n"
                 "  %m1 = add %m, %g\n"
                 "  store_state \"m\", %m1\n"
                 "  %d = mul %m1, %bt\n"
                 "  %w1 = sub %w, %d\n"
                 "  %loss = sum %g\n"
                 "  %e = neg %d\n"
                 "  %f = exp %e\n"
                 "  update %w, %w1\n"
                 "  return %loss, %f\n"
                 "}\n");
  kn_rvalue m = T(VEC(&b.r, 0.5, 0.25));
  OK(rig_ctx(&b.r), kn_session_set_slot(b.r.s, 0, &m));
  OK(kn_session_context(b.s), kn_session_set_slot(b.s, 0, &m));
  kn_tensor_release(m.tensor);
  kn_tensor *w[2] = {VEC(&b.r, 1, 2), VEC(&b.r, 1, 2)};
  for (int k = 0; k < 5; k++) {
    kn_tensor *x = VEC(&b.r, 0.5 * k, 1 - k);
    kn_rvalue want[2], got[2];
    OK(rig_ctx(&b.r), kn_session_run(b.r.s, (kn_rvalue[]){T(x), T(w[0])}, 2, want, 2));
    OK(kn_session_context(b.s), kn_session_run(b.s, (kn_rvalue[]){T(x), T(w[1])}, 2, got, 2));
    for (int i = 0; i < 2; i++) {
      ck_assert(same_result(&want[i], &got[i]));
      kn_tensor_release(want[i].tensor), kn_tensor_release(got[i].tensor);
    }
    ck_assert(same_result(&(kn_rvalue){.tensor = w[0]}, &(kn_rvalue){.tensor = w[1]}));
    kn_tensor_release(x);
  }
  for (uint32_t slot = 0; slot < 2; slot++) {
    kn_rvalue want, got;
    OK(rig_ctx(&b.r), kn_session_get_slot(b.r.s, slot, &want));
    OK(kn_session_context(b.s), kn_session_get_slot(b.s, slot, &got));
    ck_assert(same_result(&want, &got));
    kn_tensor_release(want.tensor), kn_tensor_release(got.tensor);
  }
  kn_tensor_release(w[0]), kn_tensor_release(w[1]);
  ck_assert_int_eq(b.m.launches, 5);
  ck_assert_int_eq(b.m.waits, 0);
  reads(&b, "copied in: %x\n"
            "copied in: %w\n"
            "copied in: %m\n"
            "number in: $4 = %beta\n"
            "numbers: put $4 in %bt\n"
            "%g = mul; %m1 = add\n"
            "%d = mul; %w1 = sub; %loss = sum; %e = neg; %f = exp\n");
  bench_close(&b);
}
END_TEST

/* The first fault is told as if the nodes had run one by one, with what its inputs were. */
START_TEST(faults_are_told_after_the_launch) {
  bench b;
  bench_open(&b, whole_faults);
  for (int n = -4; n < 6; n++) {
    kn_tensor *x = VEC(&b.r, 0.5, n == 4 ? 9 : 0.25);
    AGREE(&b, 1, T(x), INT(n));
    kn_tensor_release(x);
  }
  ck_assert_int_eq(b.m.waits, b.m.launches);
  bench_close(&b);
}
END_TEST

static void origin_is(const kn_session *s, uint32_t i, kn_origin want) {
  const kn_origin got = kn_session_origin(s, i);
  ck_assert_msg(got.from == want.from && got.index == want.index, "result %d is of %d, %d", (int)i + 1,
                (int)got.from, (int)got.index);
}

/* Which tensor a result is may be asked where it may be an input: the launch says it, and the host takes it.
 */
START_TEST(which_tensor_it_is_is_a_number) {
  bench b;
  bench_open(&b, "graph g(%x: float32[2]) {\n"
                 "  %zero = const 0.0\n"
                 "  %sum = sum %x\n"
                 "  %s = item %sum\n"
                 "  %less = lua.lt %s, %zero\n"
                 "  %y: float32[2] = if %less {\n"
                 "    %m = neg %x\n"
                 "    %m2 = exp %m\n"
                 "    yield %m2\n"
                 "  } else {\n"
                 "    yield %x\n"
                 "  }\n"
                 "  return %y\n"
                 "}\n");
  for (int k = -1; k < 2; k += 2) {
    kn_tensor *x = VEC(&b.r, k, 0.25);
    AGREE(&b, 1, T(x));
    origin_is(b.s, 0, (kn_origin){k < 0 ? KN_FROM_NONE : KN_FROM_INPUT, 0});
    kn_tensor_release(x);
  }
  ck_assert_int_eq(b.m.launches, 2);
  ck_assert_int_eq(b.m.waits, 2);
  reads(&b, "copied in: %x\n"
            "number in: $6 = %zero\n"
            "number in: $9 = %3\n"
            "number in: $10 = %2\n"
            "%sum = sum\n"
            "numbers: $5 = item %sum\n"
            "         $7 = lua.lt $5, $6\n"
            "if $7\n"
            "  %m = neg; %m2 = exp\n"
            "  numbers: $8 = $9\n"
            "else\n"
            "  %y = copy %x\n"
            "  numbers: $8 = $10\n"
            "numbers: $4 = lua.eq $8, $10\n"
            "number out: $4 = %12\n");
  bench_close(&b);
}
END_TEST

/* No trip, some trips; the best of them so far beside the last; what is stored; an early end in the depth. */
START_TEST(loops_hand_tensors_on) {
  bench b;
  bench_open(&b, "graph g(%x: float32[2], %n: integer, %m: integer) {\n"
                 "  slot state \"s\": float32[2]\n"
                 "  %zero = const 0\n"
                 "  %one = const 1\n"
                 "  %some = lua.lt %zero, %n\n"
                 "  %last: float32[2], %best: float32[2] = if %some {\n"
                 "    %l: float32[2], %b: float32[2] = loop (%t: float32[2] = %x, %u: float32[2] = %x, "
                 "%i: integer = %zero) {\n"
                 "      %j = lua.add %i, %one\n"
                 "      %v = tanh %t\n"
                 "      %w: float32[2] = loop (%p: float32[2] = %v, %k: integer = %zero) {\n"
                 "        %k1 = lua.add %k, %one\n"
                 "        %even = lua.lt %k1, %m\n"
                 "        %q = neg %p\n"
                 "        continue_if %even next(%q, %k1) exit(%q)\n"
                 "      }\n"
                 "      %first = lua.lt %j, %m\n"
                 "      %best1: float32[2] = choose %first, %w, %u\n"
                 "      %more = lua.lt %j, %n\n"
                 "      continue_if %more next(%w, %best1, %j) exit(%w, %best1)\n"
                 "    }\n"
                 "    yield %l, %b\n"
                 "  } else {\n"
                 "    yield %x, %x\n"
                 "  }\n"
                 "  store_state \"s\", %best\n"
                 "  return %last, %best\n"
                 "}\n");
  kn_rvalue start = T(VEC(&b.r, 0.5, 0.25));
  OK(rig_ctx(&b.r), kn_session_set_slot(b.r.s, 0, &start));
  OK(kn_session_context(b.s), kn_session_set_slot(b.s, 0, &start));
  kn_tensor_release(start.tensor);
  for (int n = 0; n < 4; n++)
    for (int m = 0; m < 5; m++) {
      kn_tensor *x = VEC(&b.r, 0.5 * n, 0.25);
      uint32_t group;
      AGREE(&b, 2, T(x), INT(n), INT(m));
      const kn_origin none = {KN_FROM_NONE, 0}, input = {KN_FROM_INPUT, 0}, last = {KN_FROM_OUTPUT, 0};
      origin_is(b.s, 0, n ? none : input);
      origin_is(b.s, 1, !n || m < 2 ? input : m > n ? last : none);
      const kn_origin want = kn_session_stored(b.r.s, 0, &group), got = kn_session_stored(b.s, 0, &group);
      ck_assert(want.from == got.from && want.index == got.index);
      kn_tensor_release(x);
    }
  ck_assert_int_eq(b.m.launches, 20);
  bench_close(&b);
}
END_TEST

/* What a branch computes, and a view of it that is read for longer. */
START_TEST(views_outlive_what_a_branch_gives) {
  bench b;
  bench_open(&b, "graph g(%x: float32[2,2], %n: integer) {\n"
                 "  %zero = const 0\n"
                 "  %some = lua.lt %zero, %n\n"
                 "  %a: float32[2,2], %b: float32[2,2] = if %some {\n"
                 "    %e = exp %x\n"
                 "    %v = transpose %e\n"
                 "    yield %e, %v\n"
                 "  } else {\n"
                 "    yield %x, %x\n"
                 "  }\n"
                 "  %none: list[float32[2,2]] = list\n"
                 "  %l = append %none, %b\n"
                 "  %k = length %l\n"
                 "  %c = matmul %a, %x\n"
                 "  %d = matmul %c, %x\n"
                 "  %f = matmul %d, %c\n"
                 "  %g = add %b, %f\n"
                 "  return %g, %k\n"
                 "}\n");
  for (int n = 3; n >= 0; n--) {
    kn_tensor *x = make(b.r.c, KN_F32, DIMS(2, 2), LIST(1, 0.5, n, -0.25));
    AGREE(&b, 2, T(x), INT(n));
    kn_tensor_release(x);
  }
  bench_close(&b);
}
END_TEST

/* A number that the program is given costs one wait. */
START_TEST(results_that_are_numbers_wait_once) {
  bench b;
  bench_open(&b, "graph g(%x: float32[2]) {\n"
                 "  %y = exp %x\n"
                 "  %sum = sum %y\n"
                 "  %s = item %sum\n"
                 "  return %s, %y\n"
                 "}\n");
  for (int k = 0; k < 3; k++) {
    kn_tensor *x = VEC(&b.r, k, 0.25);
    AGREE(&b, 2, T(x));
    kn_tensor_release(x);
  }
  ck_assert_int_eq(b.m.launches, 3);
  ck_assert_int_eq(b.m.waits, 3);
  ck_assert_int_eq(b.m.made, 1);
  bench_close(&b);
}
END_TEST

/* Memory runs out at each of the first run's requests in turn; the next run is as if there had been none. */
static void runs_scarcely(const char *text, bool unable, double want) {
  scarce mem = {.left = -1};
  bool refused = true;
  for (long n = 0; refused; n++) {
    kn_heap *heap = kn_heap_new(scarce_alloc, &mem, 0);
    kn_context *c = kn_context_new(heap, NULL);
    kn_heap_release(heap);
    kn_graph *g = parse(c, text);
    mock m;
    kn_session *s;
    kn_rvalue z[2] = {{0}};
    mock_init(&m, KN_CPU, 0);
    m.unable = unable;
    OK(c, kn_session_new(c, g, (const kn_target *[]){&m.target}, 1, &s));
    kn_tensor *x = make(c, KN_F32, DIMS(2), LIST(0, 0));
    scarce_begin(&mem, n, true);
    kn_status st = kn_session_run(s, (kn_rvalue[]){T(x)}, 1, z, g->body->nyields);
    refused = scarce_end(&mem);
    ck_assert(st == (refused ? st : KN_OK) && (st == KN_OK || st == KN_NOMEM));
    for (int i = 0; i < 2; i++) kn_tensor_release(z[i].tensor), z[i].tensor = NULL;
    const int before = m.launches;
    OK(kn_session_context(s), kn_session_run(s, (kn_rvalue[]){T(x)}, 1, z, g->body->nyields));
    ck_assert(element(z[0].tensor, 0) == want && m.launches == before + !unable);
    kn_tensor_release(z[0].tensor), kn_tensor_release(z[1].tensor), kn_tensor_release(x);
    kn_session_free(s), kn_graph_release(g);
    suite_done(c);
  }
}

/* What cannot be made runs step by step, also after there was no memory to note that. */
START_TEST(memory_runs_out_while_a_piece_is_refused) {
  runs_scarcely("graph g(%x: float32[2]) {\n  %y = neg %x\n  %z = exp %y\n  return %z\n}\n", true, 1);
}
END_TEST

START_TEST(memory_runs_out_while_ends_get_numbers) {
  runs_scarcely("graph g(%x: float32[2]) {\n"
                "  %one = const 1.0\n"
                "  %b: float32[2] = loop (%t: float32[2] = %x, %u: float32[2] = %x) {\n"
                "    %v = exp %t\n"
                "    %sum = sum %v\n"
                "    %f = item %sum\n"
                "    %more = lua.le %f, %one\n"
                "    %w: float32[2] = choose %more, %u, %v\n"
                "    continue_if %more next(%v, %w) exit(%w)\n"
                "  }\n"
                "  %c: float32[2] = loop (%t2: float32[2] = %b) {\n"
                "    %g = sum %t2\n"
                "    %h = item %g\n"
                "    %less = lua.lt %h, %one\n"
                "    %t3 = exp %t2\n"
                "    continue_if %less next(%t3) exit(%t2)\n"
                "  }\n"
                "  return %c, %b\n"
                "}\n",
                false, 1);
}
END_TEST

/* Of a node that turns out not to fit the rest knows from the next run on; so does one that is known before.
 */
START_TEST(pieces_are_cut_at_what_does_not_fit) {
  kn_context *c = suite_context();
  kn_graph *g = parse(c, "graph g(%x: float32[2]) {\n"
                         "  %a = neg %x\n  %b = exp %a\n  %c = sin %b\n  %d = cos %c\n  %e = neg %d\n"
                         "  return %e\n}\n");
  mock m;
  kn_session *s;
  mock_init(&m, KN_CPU, 0);
  m.hates = 1 + KN_OP_sin;
  OK(c, kn_session_new(c, g, (const kn_target *[]){&m.target}, 1, &s));
  for (int k = 0; k < 3; k++) {
    kn_tensor *x = make(c, KN_F32, DIMS(2), LIST(k, 0));
    kn_rvalue z;
    OK(kn_session_context(s), kn_session_run(s, (kn_rvalue[]){T(x)}, 1, &z, 1));
    ck_assert(near(element(z.tensor, 0), -cos(sin(exp(-k))), 1e-6));
    ck_assert_int_eq(m.launches, 2 * k); /* before it and after it */
    ck_assert_int_eq(m.made, k ? 2 : 0);
    kn_tensor_release(z.tensor), kn_tensor_release(x);
  }
  kn_session_free(s), kn_graph_release(g);
  suite_done(c);
}
END_TEST

SUITE("whole", random_graphs_in_pieces, random_graphs_as_one, random_graphs_on_a_device,
      numbers_are_carried_at_once, branches_and_loops_in_each_other, carries_that_overlap_are_staged,
      steps_of_training_store_afterwards, faults_are_told_after_the_launch, which_tensor_it_is_is_a_number,
      loops_hand_tensors_on, views_outlive_what_a_branch_gives, results_that_are_numbers_wait_once,
      memory_runs_out_while_a_piece_is_refused, memory_runs_out_while_ends_get_numbers,
      pieces_are_cut_at_what_does_not_fit)
