/* The software device with several threads at once, and with launches that somebody wants to end. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "spec/cuda/stage.h"
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, ROUNDS = 6 };

static const char loop_text[] = "graph g(%x: float32[3]@D, %n: integer) {\n"
                                "  slot state \"t\": integer = 0\n"
                                "  %t = load_state \"t\"\n"
                                "  %one = const 1\n"
                                "  %t1 = lua.add %t, %one\n"
                                "  store_state \"t\", %t1\n"
                                "  %zero = const 0\n"
                                "  %y: float32[3]@D = loop (%a: float32[3]@D = %x, %i: integer = %zero) {\n"
                                "    %half = mul %a, %a\n"
                                "    %b = sin %half\n"
                                "    %j = lua.add %i, %one\n"
                                "    %more = lua.lt %j, %n\n"
                                "    continue_if %more next(%b, %j) exit(%b)\n"
                                "  }\n"
                                "  return %y\n"
                                "}\n";

/* One in the other: three trips, each with n of its own. */
static const char nested_text[] =
    "graph g(%x: float32[3]@D, %n: integer) {\n"
    "  slot state \"t\": integer = 0\n"
    "  %one = const 1\n"
    "  %three = const 3\n"
    "  %y: float32[3]@D = loop (%a: float32[3]@D = %x, %i: integer = %one) {\n"
    "    %b: float32[3]@D = loop (%c: float32[3]@D = %a, %j: integer = %one) {\n"
    "      %d = sin %c\n"
    "      %j1 = lua.add %j, %one\n"
    "      %more = lua.lt %j, %n\n"
    "      continue_if %more next(%d, %j1) exit(%d)\n"
    "    }\n"
    "    %i1 = lua.add %i, %one\n"
    "    %again = lua.lt %i, %three\n"
    "    continue_if %again next(%b, %i1) exit(%b)\n"
    "  }\n"
    "  return %y\n"
    "}\n";

/* ---- threads ---- */

typedef struct job {
  stage *s;
  int id;
  pthread_t thread;
  char wrong[KN_ERROR_SIZE + 100]; /* Check's assertions are the main thread's */
} job;

static bool wrong(job *j, kn_context *c, const char *what) {
  if (!j->wrong[0]) snprintf(j->wrong, sizeof j->wrong, "%s: %s", what, kn_error(c));
  return false;
}
#define TRIED(call)                                                                                          \
  if ((call) != KN_OK) return wrong(j, c, #call)

static kn_status there(kn_context *c, kn_tensor *t, kn_device_id d, kn_tensor **out) {
  return kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = d}, &t, 1, out);
}

/* Ten times x and then its sum, by eager ops. */
static bool adds(job *j, kn_context *c) {
  kn_tensor *host = make(c, KN_F32, DIMS(5), LIST(1, 2, 3, 4, j->id)), *x, *y, *back;
  const kn_attrs_reduce all = {0};
  TRIED(there(c, host, KN_CUDA, &x));
  for (int k = 0; k < 10; k++) {
    TRIED(kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){x, x}, 2, &y));
    kn_tensor_release(x);
    x = y;
  }
  TRIED(kn_apply(c, KN_OP_sum, &all, &x, 1, &y));
  TRIED(there(c, y, KN_CPU, &back));
  const bool right = element(back, 0) == 1024.0 * (10 + j->id);
  kn_tensor_release(host), kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(back);
  return right || wrong(j, c, "a sum is wrong");
}

/* An index that is this thread's. */
static bool fails_by_index(job *j, kn_context *c) {
  const kn_attrs_axis first = {.dim = 0};
  char want[40];
  kn_tensor *host = make(c, KN_F32, DIMS(2), LIST(1, 2)), *at = make(c, KN_I64, DIMS(1), LIST(100 + j->id)),
            *x, *i, *y;
  snprintf(want, sizeof want, "index %d is out of range", 100 + j->id);
  TRIED(there(c, host, KN_CUDA, &x));
  TRIED(there(c, at, KN_CUDA, &i));
  const bool failed = kn_apply(c, KN_OP_gather, &first, (kn_tensor *[]){x, i}, 2, &y) == KN_INDEX;
  const bool right = failed && strstr(kn_error(c), want);
  kn_tensor_release(host), kn_tensor_release(at), kn_tensor_release(x), kn_tensor_release(i);
  return right || wrong(j, c, "an index of another thread");
}

/* Captured anew, launched twice. */
static bool launches(job *j, kn_context *c, int trips) {
  kn_session *s[2];
  const kn_target *const *targets, *ref = &j->s->ref;
  int n;
  TRIED(kn_registry_targets(c, &targets, &n));
  TRIED(kn_session_new(c, j->s->g[0], &ref, 1, &s[0]));
  TRIED(kn_session_new(c, j->s->g[1], targets, n, &s[1]));
  for (int k = 0; k < 2; k++) {
    kn_tensor *host = make(c, KN_F32, DIMS(3), LIST(0.5, 0.25 * j->id, 1)), *x, *back;
    kn_rvalue want[1], got[1];
    TRIED(there(c, host, KN_CUDA, &x));
    if (kn_session_run(s[0], (kn_rvalue[]){T(host), INT(trips)}, 2, want, 1) != KN_OK)
      return wrong(j, kn_session_context(s[0]), "the reference");
    if (kn_session_run(s[1], (kn_rvalue[]){T(x), INT(trips)}, 2, got, 1) != KN_OK)
      return wrong(j, kn_session_context(s[1]), "a launch");
    TRIED(there(c, got->tensor, KN_CPU, &back));
    for (int i = 0; i < 3; i++)
      if (!near(element(back, i), element(want->tensor, i), 1e-5)) return wrong(j, c, "a launch is wrong");
    kn_tensor_release(host), kn_tensor_release(x), kn_tensor_release(back);
    kn_tensor_release(want->tensor), kn_tensor_release(got->tensor);
  }
  kn_session_free(s[0]), kn_session_free(s[1]);
  return true;
}

static void *work(void *of) {
  job *j = of;
  kn_context *c = kn_context_child(j->s->c);
  for (int k = 0; k < ROUNDS && adds(j, c) && fails_by_index(j, c) && launches(j, c, 3 + j->id); k++)
    continue;
  kn_context_free(c);
  return NULL;
}

START_TEST(threads_compute_and_capture_at_once) {
  stage s;
  job jobs[THREADS];
  stage_open(&s, loop_text);
  for (int i = 0; i < THREADS; i++) {
    jobs[i] = (job){.s = &s, .id = i};
    ck_assert_int_eq(pthread_create(&jobs[i].thread, NULL, work, &jobs[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(jobs[i].thread, NULL);
  for (int i = 0; i < THREADS; i++) ck_assert_msg(!jobs[i].wrong[0], "%s", jobs[i].wrong);
  launched(&s, 2 * THREADS * ROUNDS, 0, THREADS * ROUNDS);
  stage_close(&s);
}
END_TEST

/* ---- an end ---- */

/* The state that runs count, on the device's side. */
static int64_t count_of(stage *s) {
  kn_rvalue v;
  OK(kn_session_context(s->s[1]), kn_session_get_slot(s->s[1], 0, &v));
  return v.scalar.as.i;
}

static kn_status run_for(stage *s, int64_t trips) {
  kn_tensor *host = vector(s, 0.5, 1, 1.5), *x = to(s->c, host, KN_CUDA);
  kn_rvalue out[1];
  kn_status st = kn_session_run(s->s[1], (kn_rvalue[]){T(x), INT(trips)}, 2, out, 1);
  if (st == KN_OK) kn_tensor_release(out->tensor);
  kn_tensor_release(host), kn_tensor_release(x);
  return st;
}

enum { NO_END = 1000000000 };

START_TEST(limits_end_loops) {
  stage s;
  stage_open(&s, loop_text);
  kn_context *c = kn_session_context(s.s[1]);
  kn_session_set_step_limit(s.s[1], 100);
  for (int k = 0; k < 2; k++) FAILS(c, KN_LIMIT, "the limit of 100 steps was reached", run_for(&s, NO_END));
  ck_assert_int_eq(count_of(&s), 0);
  OK(c, run_for(&s, 50));
  OK(c, run_for(&s, 50)); /* counted anew */
  kn_session_set_step_limit(s.s[1], 0);
  OK(c, run_for(&s, 300));
  ck_assert_int_eq(count_of(&s), 3);
  launched(&s, 5, 4, 1);
  stage_close(&s);
}
END_TEST

START_TEST(trips_and_deadlines_end_loops) {
  stage s;
  stage_open(&s, loop_text);
  kn_context *c = kn_session_context(s.s[1]);
  kn_session_set_trip_limit(s.s[1], 100);
  for (int k = 0; k < 2; k++) FAILS(c, KN_LIMIT, "the limit of 100 trips of a loop", run_for(&s, NO_END));
  OK(c, run_for(&s, 100));
  kn_session_set_step_limit(s.s[1], 60); /* whichever is less */
  FAILS(c, KN_LIMIT, "the limit of 60 steps was reached", run_for(&s, 100));
  kn_session_set_step_limit(s.s[1], 0);
  kn_session_set_trip_limit(s.s[1], 0);
  kn_session_set_deadline(s.s[1], 0.05);
  for (int k = 0; k < 2; k++)
    FAILS(c, KN_LIMIT, "the deadline of 0.05 seconds has passed", run_for(&s, NO_END));
  ck_assert_int_eq(count_of(&s), 1);
  kn_session_set_deadline(s.s[1], 0);
  OK(c, run_for(&s, 300));
  ck_assert_int_eq(count_of(&s), 2);
  stage_close(&s);
  stage_open(&s, nested_text); /* a launch counts all trips together, a limit those of one loop */
  c = kn_session_context(s.s[1]);
  OK(c, run_for(&s, 20));
  kn_session_set_trip_limit(s.s[1], 20);
  OK(c, run_for(&s, 20));
  FAILS(c, KN_LIMIT, "the limit of 20 trips of a loop", run_for(&s, 21));
  kn_session_set_trip_limit(s.s[1], 2);
  FAILS(c, KN_LIMIT, "the limit of 2 trips of a loop", run_for(&s, 1));
  stage_close(&s);
}
END_TEST

typedef struct will {
  atomic_bool ends;
  int asked;
} will;

static kn_status ask(void *of, uint64_t steps) {
  will *w = of;
  (void)steps;
  w->asked++;
  return atomic_load(&w->ends) ? KN_CANCELLED : KN_OK;
}

static void *end_soon(void *of) {
  const struct timespec a_while = {0, 30000000};
  nanosleep(&a_while, NULL);
  atomic_store(&((will *)of)->ends, true);
  return NULL;
}

START_TEST(another_thread_ends_a_loop) {
  stage s;
  will w = {.asked = 0};
  pthread_t thread;
  stage_open(&s, loop_text);
  kn_context *c = kn_session_context(s.s[1]);
  kn_session_set_poll(s.s[1], ask, &w);
  OK(c, run_for(&s, 5));
  for (int k = 0; k < 2; k++) {
    atomic_store(&w.ends, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, end_soon, &w), 0);
    FAILS(c, KN_CANCELLED, "stopped by the host (cancelled)", run_for(&s, NO_END));
    pthread_join(thread, NULL);
    ck_assert_int_eq(count_of(&s), 1 + k);
    atomic_store(&w.ends, false);
    OK(c, run_for(&s, 5));
  }
  ck_assert_int_gt(w.asked, 10);
  launched(&s, 5, 0, 1);
  stage_close(&s);
}
END_TEST

/* Nobody watches the launch; who then waits for the device can be interrupted. */
static kn_status interrupt(void *of, bool begins) { return begins ? KN_OK : ask(of, 0); }

START_TEST(an_interrupt_ends_a_wait) {
  stage s;
  will w = {.asked = 0};
  pthread_t thread;
  stage_open(&s, loop_text);
  kn_session_set_poll(s.s[1], ask, &w);
  kn_session_set_watch(s.s[1], false);
  OK(s.c, run_for(&s, NO_END));
  s.c->interrupt = interrupt;
  s.c->interrupt_ud = &w;
  const kn_memory *m = &s.d->tensors;
  ck_assert_int_eq(pthread_create(&thread, NULL, end_soon, &w), 0);
  FAILS(s.c, KN_CANCELLED, "stopped by the host (cancelled)", m->synchronize(m->self, s.c));
  pthread_join(thread, NULL);
  OK(s.c, m->synchronize(m->self, s.c)); /* nothing is under way any more */
  s.c->interrupt = NULL;
  stage_close(&s);
}
END_TEST

/* ---- what integers may not do ---- */

static kn_tensor *whole(stage *s, double a, double b, double c) {
  return make(s->c, KN_I64, DIMS(3), LIST(a, b, c));
}

START_TEST(integers_divided_by_zero) {
  stage s;
  stage_open(&s, "graph g(%x: int64[3]@D, %y: int64[3]@D, %p: int64[]@D) {\n"
                 "  %a = add %x, %y\n"
                 "  %q = floor_divide %x, %y ; f.lua:3\n"
                 "  %r = remainder %q, %a ; f.lua:4\n"
                 "  %e = pow %r, %p ; f.lua:5\n"
                 "  %z = add %e, %a\n"
                 "  return %z\n"
                 "}\n");
  for (int k = 0; k < 2; k++) {
    AGREE(&s, 1, T(whole(&s, 7, 8, 9)), T(whole(&s, 2, 3, 4)), T(number(s.c, KN_I64, 2)));
    AGREE(&s, 1, T(whole(&s, 7, 8, 9)), T(whole(&s, 2, 0, 4)), T(number(s.c, KN_I64, 2)));
    AGREE(&s, 1, T(whole(&s, 7, 8, 9)), T(whole(&s, 2, -8, 4)), T(number(s.c, KN_I64, 2)));
    AGREE(&s, 1, T(whole(&s, 7, 8, 9)), T(whole(&s, 2, 3, 4)), T(number(s.c, KN_I64, -2)));
    AGREE(&s, 1, T(whole(&s, 7, 8, 9)), T(whole(&s, 0, 3, 4)), T(number(s.c, KN_I64, -2)));
  }
  launched(&s, 10, 10, 1);
  stage_close(&s);
}
END_TEST

SUITE("cuda_threads", threads_compute_and_capture_at_once, limits_end_loops, trips_and_deadlines_end_loops,
      another_thread_ends_a_loop, an_interrupt_ends_a_wait, integers_divided_by_zero)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_threads", no_headers)
#endif
