/* Whole graphs on the software device: branches and loops on data of the device in one launch, against the
 * reference on the CPU; what is launched, and what waits. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "spec/cuda/stage.h"
#include "spec/random_graph.h"

START_TEST(branches_and_loops_in_each_other) {
  stage s;
  stage_open(&s, whole_nested);
  for (int k = 0; k < 6; k++) AGREE(&s, 1, T(vector(&s, k * 1.5, k, 0.5)), T(vector(&s, 0.25, -1, 0.125)));
  launched(&s, 6, 0, 1);
  stage_close(&s);
}
END_TEST

START_TEST(a_while_of_a_thousand_trips) {
  stage s;
  stage_open(&s, "graph g(%x: float32[3]@D, %n: integer) {\n"
                 "  %one = const 1\n"
                 "  %zero = const 0\n"
                 "  %y: float32[3]@D, %trips: integer = loop (%a: float32[3]@D = %x, %i: integer = %zero) {\n"
                 "    %half = mul %a, %a\n"
                 "    %b = sin %half\n"
                 "    %j = lua.add %i, %one\n"
                 "    %more = lua.lt %j, %n\n"
                 "    continue_if %more next(%b, %j) exit(%b, %j)\n"
                 "  }\n"
                 "  return %y, %trips\n"
                 "}\n");
  AGREE(&s, 2, T(vector(&s, 0.5, 1, 1.5)), INT(1000));
  AGREE(&s, 2, T(vector(&s, 0.25, 1, 1.25)), INT(7));
  launched(&s, 2, 2, 1); /* the number of trips is a result, which the host waits for */
  stage_close(&s);
}
END_TEST

/* A decoder that takes the best of what may follow until it is not sure any more. */
START_TEST(decoding_stops_early) {
  stage s;
  stage_open(&s, "graph g(%h: float32[3]@D, %m: float32[3,3]@D) {\n"
                 "  %sure = const 0.5\n"
                 "  %most = const 20\n"
                 "  %one = const 1\n"
                 "  %zero = const 0\n"
                 "  %y: float32[3]@D = loop (%a: float32[3]@D = %h, %i: integer = %zero) {\n"
                 "    %all = mul %m, %a\n"
                 "    %logits = sum %all {dim = {2}}\n"
                 "    %p = softmax %logits {dim = 1}\n"
                 "    %best = amax %p\n"
                 "    %c = item %best\n"
                 "    %hit = eq %p, %best\n"
                 "    %one_hot = cast %hit {dtype = \"float32\"}\n"
                 "    %b = mul %a, %one_hot\n"
                 "    %d = add %b, %p\n"
                 "    %j = lua.add %i, %one\n"
                 "    %stop = lua.lt %c, %sure\n"
                 "    %last = lua.le %most, %j\n"
                 "    %go: boolean = if %stop {\n"
                 "      %no = const false\n"
                 "      yield %no\n"
                 "    } else {\n"
                 "      %yes = lua.not %last\n"
                 "      yield %yes\n"
                 "    }\n"
                 "    continue_if %go next(%d, %j) exit(%d)\n"
                 "  }\n"
                 "  return %y\n"
                 "}\n");
  for (int k = 0; k < 4; k++)
    AGREE(&s, 1, T(vector(&s, 1, k, 0.5)),
          T(make(s.c, KN_F32, DIMS(3, 3), LIST(1, k, 0.5, -1, 0.25, 2, 0.125 * k, 1, 0.75))));
  launched(&s, 4, 0, 1);
  stage_close(&s);
}
END_TEST

/* Forward, backward, update: state and weights stay on the device, the counter on the host. */
START_TEST(a_training_step) {
  stage s;
  stage_open(&s, "graph g(%x: float32[3]@D, %w: float32[3]@D) {\n"
                 "  slot state \"m\": float32[3]@D\n"
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
                 "  update %w, %w1\n"
                 "  return %loss\n"
                 "}\n");
  for (int i = 0; i < 2; i++) {
    kn_tensor *host = vector(&s, 0.5, 0.25, 1), *m = to(s.c, host, i ? KN_CUDA : KN_CPU);
    OK(kn_session_context(s.s[i]), kn_session_set_slot(s.s[i], 0, &(kn_rvalue){.tensor = m}));
    kn_tensor_release(host), kn_tensor_release(m);
  }
  for (int k = 0; k < 6; k++) AGREE(&s, 1, T(vector(&s, 0.5 * k, 1 - k, 1)), T(vector(&s, 1, 2, k)));
  kn_rvalue m[2];
  for (int i = 0; i < 2; i++) OK(kn_session_context(s.s[i]), kn_session_get_slot(s.s[i], 0, &m[i]));
  near_values(s.c, &m[0], &m[1]);
  kn_tensor_release(m[0].tensor), kn_tensor_release(m[1].tensor);
  ck_assert_int_eq(s.d->launches.launches, 6);
  ck_assert_int_eq(s.d->launches.waits, 0);
  stage_close(&s);
}
END_TEST

/* Draws are those of the CPU, at each run further on. */
START_TEST(draws_go_on_from_run_to_run) {
  stage s;
  stage_open(&s, "graph g(%x: float32[3]@D) {\n"
                 "  %r = bernoulli %x\n"
                 "  %a = add %x, %r\n"
                 "  %q = bernoulli %x\n"
                 "  %b = sub %a, %q\n"
                 "  return %b\n"
                 "}\n");
  for (int k = 0; k < 4; k++) AGREE(&s, 1, T(vector(&s, 0.5, 0.75, 0.25 * k)));
  launched(&s, 4, 0, 1);
  stage_close(&s);
}
END_TEST

/* How many is known when it has run. */
START_TEST(draws_in_branches_and_loops) {
  stage s;
  stage_open(&s, whole_draws);
  for (int n = 1; n < 9; n++) {
    AGREE(&s, 1, T(vector(&s, 0.5, 0.75, 0.25)), INT(n));
    ck_assert(kn_session_context(s.s[0])->random.offset == kn_session_context(s.s[1])->random.offset);
  }
  launched(&s, 8, 8, 1);
  stage_close(&s);
}
END_TEST

START_TEST(places_that_numbers_say) {
  stage s;
  stage_open(&s,
             "graph g(%x: float32[3,2]@D, %y: float32[3]@D, %n: integer, %first: integer) {\n"
             "  %one = const 1\n"
             "  %all: float32[3,2]@D = mul %x, %x\n"
             "  %h0 = sum %x {dim = {1}}\n"
             "  %out: float32[3,2]@D, %h: float32[2]@D = loop (%o: float32[3,2]@D = %all, %a: float32[2]@D = "
             "%h0, %i: integer = %first) {\n"
             "    %row = select %x {dim = 1, index = %i} ; f.lua:3\n"
             "    %b = add %row, %a\n"
             "    %half = cast %b {dtype = \"float16\"}\n"
             "    %o2 = select_put %o, %half {dim = 1, index = %i} ; f.lua:4\n"
             "    %k = select %y {dim = 1, index = %i}\n"
             "    %t = transpose %o2 {dim0 = 1, dim1 = 2}\n"
             "    %o3 = select_put %t, %k {dim = 2, index = %i} ; f.lua:5\n"
             "    %o4 = transpose %o3 {dim0 = 1, dim1 = 2}\n"
             "    %o5 = add %o4, %o2\n"
             "    %j = lua.add %i, %one\n"
             "    %more = lua.lt %j, %n\n"
             "    continue_if %more next(%o5, %b, %j) exit(%o5, %b)\n"
             "  }\n"
             "  %g = select_grad %h, %x {dim = 1, index = %first}\n"
             "  %z = add %g, %out\n"
             "  return %z, %h\n"
             "}\n");
  for (int n = -1; n < 5; n += 2)
    for (int first = -4; first < 4; first++)
      AGREE(&s, 2, T(make(s.c, KN_F32, DIMS(3, 2), LIST(1, 2, 0.5, 4, -1, 6))), T(vector(&s, 3, 4, 5)),
            INT(n), INT(first));
  launched(&s, 24, 24, 1);
  stage_close(&s);
}
END_TEST

START_TEST(texts_of_faults_show_what_there_was) {
  stage s;
  stage_open(&s, whole_fault_texts);
  for (int limit = -1; limit < 12; limit++)
    AGREE(&s, 1, T(vector(&s, limit == 5 ? -9 : 0.125, 0.25, 0)), NUM(limit + 0.5));
  launched(&s, 13, 13, 1);
  stage_close(&s);
}
END_TEST

START_TEST(faults_are_told) {
  stage s;
  stage_open(&s, whole_faults);
  for (int n = -4; n < 6; n++) AGREE(&s, 1, T(vector(&s, 0.5, n == 4 ? 9 : 0.25, 0)), INT(n));
  const kn_device_launches n = cu_launches_of(s.d);
  ck_assert(n.launches == 10 && n.waits == 10);
  stage_close(&s);
}
END_TEST

/* Indices that are out of range, in the first graph that the device has seen: which of them it was is known,
 * and the number that is made of what it did not read counts for nothing, nor does it in the next launch. */
START_TEST(faults_of_parts_are_told) {
  stage s;
  stage_open(&s, "graph g(%x: float32[3]@D, %i: int64[2]@D, %h: int64[2]@D, %l: int64[2]@D) {\n"
                 "  %nine = const 9.0\n"
                 "  %y: float32[2]@D = gather %x, %i {dim = 1} ; f.lua:7\n"
                 "  %m = amin %y\n"
                 "  %v = item %m\n"
                 "  %fine = lua.lt %v, %nine\n"
                 "  assert %fine \"too large\" ; f.lua:8\n"
                 "  %u: float32[2]@D = gather %y, %h {dim = 1} ; f.lua:9\n"
                 "  %e = gather %u, %l {dim = 1} ; f.lua:10\n"
                 "  %z = add %y, %e\n"
                 "  return %z\n"
                 "}\n");
  for (int k = 0; k < 9; k++)
    AGREE(&s, 1, T(vector(&s, k % 3 == 2 ? 50 : 2, 60, 2)),
          T(make(s.c, KN_I64, DIMS(2), LIST(2, k % 3 == 1 ? 4 : 1))),
          T(make(s.c, KN_I64, DIMS(2), LIST(1, k == 4 || k == 6 ? 5 : 2))),
          T(make(s.c, KN_I64, DIMS(2), LIST(1, k == 3 || k == 6 ? 7 : 2))));
  launched(&s, 9, 9, 1);
  stage_close(&s);
}
END_TEST

/* Beside their nodes one by one on the same device; every other one with nodes as late as they may be. */
START_TEST(random_graphs) {
  const char *more = getenv("KILN_RANDOM_GRAPHS"); /* by hand */
  const kn_target *const *targets;
  const kn_memory *m;
  cu_device *d;
  int n;
  kn_context *c = software_context();
  OK(c, kn_device_memory(c, KN_CUDA, &m));
  OK(c, cu_device_of(c, &d));
  OK(c, kn_registry_targets(c, &targets, &n));
  c->threads = 1;
  const int seeds = more ? atoi(more) : 60;
  for (int seed = 1; seed <= seeds; seed++) {
    kn_graph *g = random_graph_of(c, (uint64_t)seed, 6 + seed % 50, seed % 2, KN_CUDA);
    if (seed / 2 % 2) setenv("SIM_ORDER", "last", 1);
    rg_compare(c, g, (uint64_t)seed, KN_CUDA, targets, n, 1e-5);
    unsetenv("SIM_ORDER");
    kn_graph_release(g);
  }
  ck_assert_msg(d->launches.launches > (uint64_t)seeds * RG_RUNS, "%d launches", (int)d->launches.launches);
  kn_registry_close(c);
  suite_done(c);
}
END_TEST

/* What has no kernel here stands between two launches. */
START_TEST(the_host_between_launches) {
  stage s;
  stage_open(&s, "graph g(%x: float32[3,3]@D) {\n"
                 "  %a = add %x, %x\n"
                 "  %b = cos %a\n"
                 "  %d = inv %b\n"
                 "  %e = mul %d, %x\n"
                 "  %f = sin %e\n"
                 "  return %f\n"
                 "}\n");
  for (int k = 0; k < 3; k++)
    AGREE(&s, 1, T(make(s.c, KN_F32, DIMS(3, 3), LIST(1, 0.5 * k, 0.5, -1, 0.25, 2, 0.125, 1, 0.75))));
  launched(&s, 6, 0, 2);
  stage_close(&s);
}
END_TEST

SUITE("cuda_whole", random_graphs, branches_and_loops_in_each_other, a_while_of_a_thousand_trips,
      decoding_stops_early, a_training_step, draws_go_on_from_run_to_run, draws_in_branches_and_loops,
      places_that_numbers_say, texts_of_faults_show_what_there_was, faults_are_told, faults_of_parts_are_told,
      the_host_between_launches)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_whole", no_headers)
#endif
