/* kiln.h: runs that end in time. Limits of steps, trips and seconds against graphs that never end, and what
 * is left as it was; loops on a pool of the host's, whatever that does with them. */
#define _POSIX_C_SOURCE 200809L /* mkstemp, nanosleep */
#include "bindings/c/handle.h"
#include "core/parallel.h"
#include "spec/capi.h"
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* ---- graphs ---- */

/* Stores, draws and then goes on for as long as `go` says: for ever. */
static const char hostile_text[] =
    "graph hostile(%x: float32[N], %go: boolean) {\n"
    "  slot state \"count\": integer\n"
    "  slot state \"last\": float32[4]\n"
    "  %one = const 1\n"
    "  %n = load_state \"count\"\n"
    "  %next: integer = lua.add %n, %one\n"
    "  store_state \"count\", %next\n"
    "  %noise: float32[4] = rand {sizes = {4}, dtype = \"float32\"}\n"
    "  store_state \"last\", %noise\n"
    "  %y: float32[N], %trips: integer = loop (%h: float32[N] = %x, %i: integer = %one) {  ; bad.lua:7\n"
    "    %h2: float32[N] = tanh %h                    ; bad.lua:8\n"
    "    %i2: integer = lua.add %i, %one              ; bad.lua:9\n"
    "    continue_if %go next(%h2, %i2) exit(%h2, %i2)\n"
    "  }\n"
    "  return %y, %noise, %next\n"
    "}\n";
/* Two loops, one in the other. */
static const char nested_text[] = "graph nested(%outer: integer, %inner: integer) {\n"
                                  "  %one = const 1\n"
                                  "  %n: integer = loop (%i: integer = %one) {\n"
                                  "    %m: integer = loop (%k: integer = %one) {\n"
                                  "      %k2: integer = lua.add %k, %one\n"
                                  "      %more: boolean = lua.lt %k, %inner\n"
                                  "      continue_if %more next(%k2) exit(%k2)\n"
                                  "    }\n"
                                  "    %i2: integer = lua.add %i, %one\n"
                                  "    %again: boolean = lua.lt %i, %outer\n"
                                  "    continue_if %again next(%i2) exit(%i)\n"
                                  "  }\n"
                                  "  return %n\n"
                                  "}\n";
/* Enough work for several threads: a product, a chain, sums along rows and over all. */
static const char wide_text[] = "graph wide(%x: float32[N,256], %w: float32[256,256]) {\n"
                                "  %y: float32[N,256] = matmul %x, %w\n"
                                "  %z: float32[N,256] = exp %y\n"
                                "  %a: float32[N,256] = softmax %z {dim = 2}\n"
                                "  %b: float32[N,256] = tanh %x\n"
                                "  %c: float32[N,256] = mul %a, %b\n"
                                "  %s: float32[N] = sum %c {dim = {2}}\n"
                                "  %t: float32[] = sum %b\n"
                                "  return %c, %s, %t\n"
                                "}\n";

typedef struct host {
  char path[PATH_ROOM];
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
} host;

static void open_with(host *h, const char *text, const kiln_context_options *o) {
  char error[256] = "";
  write_texts(h->path, &text, 1);
  GOOD(kiln_context_new(o, &h->ctx, error, sizeof error), error);
  GOOD(kiln_graph_load(h->ctx, h->path, NULL, &h->g), kiln_error(h->ctx));
  GOOD(kiln_session_new(h->ctx, h->g, &h->s), kiln_error(h->ctx));
}

static void close_host(host *h) {
  kiln_session_free(h->s);
  kiln_graph_release(h->g);
  kiln_context_free(h->ctx);
  unlink(h->path);
}

/* Numbers that are not round, given to an input. */
static void set_floats(host *h, const char *name, int rank, const int64_t *sizes) {
  kiln_tensor *t;
  GOOD(kiln_tensor_new(h->ctx, KILN_FLOAT32, rank, sizes, NULL, &t), kiln_error(h->ctx));
  float *x = kiln_tensor_data(t);
  for (int64_t i = 0; i < kiln_tensor_numel(t); i++) x[i] = sinf((float)i * 0.37f + (float)name[0]);
  GOOD(kiln_session_set_tensor(h->s, name, t), kiln_session_error(h->s));
  kiln_tensor_release(t);
}

/* ---- graphs that never end ---- */

static void open_hostile(host *h) {
  open_with(h, hostile_text, NULL);
  set_floats(h, "x", 1, (int64_t[]){3});
  GOOD(kiln_session_set_boolean(h->s, "go", 1), kiln_session_error(h->s));
}

/* A run that ends, and what it drew. */
static void run_well(host *h, int64_t count, float noise[4]) {
  int64_t n = 0;
  kiln_tensor *t;
  GOOD(kiln_session_set_boolean(h->s, "go", 0), kiln_session_error(h->s));
  GOOD(kiln_session_run(h->s), kiln_session_error(h->s));
  GOOD(kiln_session_get_integer(h->s, "next", &n), kiln_session_error(h->s));
  ck_assert_int_eq(n, count);
  GOOD(kiln_session_get_tensor(h->s, "noise", &t), kiln_session_error(h->s));
  memcpy(noise, kiln_tensor_data(t), 4 * sizeof *noise);
  kiln_tensor_release(t);
  GOOD(kiln_session_set_boolean(h->s, "go", 1), kiln_session_error(h->s));
}

static void holds(host *h, int64_t count, const float last[4]) {
  kiln_value v;
  GOOD(kiln_session_get_slot(h->s, kiln_graph_find_slot(h->g, "count"), &v), kiln_session_error(h->s));
  ck_assert(v.kind == KILN_INTEGER && v.i == count);
  GOOD(kiln_session_get_slot(h->s, kiln_graph_find_slot(h->g, "last"), &v), kiln_session_error(h->s));
  ck_assert(!memcmp(kiln_tensor_data(v.tensor), last, 4 * sizeof *last));
  kiln_value_clear(&v);
}

static void limit(kiln_session *s, int which, bool on) {
  if (which == 0) kiln_session_set_step_limit(s, on ? 500 : 0);
  if (which == 1) kiln_session_set_trip_limit(s, on ? 300 : 0);
  if (which == 2) GOOD(kiln_session_set_deadline(s, on ? 0.02 : 0), kiln_session_error(s));
}

START_TEST(endless_loops_end_and_change_nothing) {
  static const char *const said[] = {"the limit of 500 steps was reached",
                                     "bad.lua:7: the limit of 300 trips of a loop was reached",
                                     "the deadline of 0.02 seconds has passed"};
  host calm, h;
  open_hostile(&calm); /* what there is without such runs */
  open_hostile(&h);
  float want[4], got[4];
  run_well(&calm, 1, want);
  run_well(&h, 1, got);
  ck_assert(!memcmp(want, got, sizeof want));
  for (int i = 0; i < 9; i++) {
    limit(h.s, i % 3, true);
    BAD(KILN_LIMIT, said[i % 3], kiln_session_run(h.s), kiln_session_error(h.s));
    BAD(KILN_LIMIT, "bad.lua:", kiln_session_run(h.s), kiln_session_error(h.s));
    holds(&h, 1 + i, got);
    kiln_value v;
    BAD(KILN_STATE, "no run has succeeded", kiln_session_get(h.s, 0, &v), kiln_session_error(h.s));
    run_well(&calm, 2 + i, want); /* and under the limit one that ends is fine */
    run_well(&h, 2 + i, got);
    ck_assert(!memcmp(want, got, sizeof want));
    limit(h.s, i % 3, false);
  }
  close_host(&calm);
  close_host(&h);
}
END_TEST

START_TEST(trips_are_of_any_one_loop) {
  host h;
  open_with(&h, nested_text, NULL);
  int64_t n = 0;
  kiln_session_set_integer(h.s, "outer", 20);
  kiln_session_set_integer(h.s, "inner", 30);
  kiln_session_set_trip_limit(h.s, 30); /* 600 in all */
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_get_integer(h.s, "1", &n), kiln_session_error(h.s));
  ck_assert_int_eq(n, 20);
  kiln_session_set_trip_limit(h.s, 29);
  BAD(KILN_LIMIT, "the limit of 29 trips", kiln_session_run(h.s), kiln_session_error(h.s));
  kiln_session_set_integer(h.s, "inner", 29);
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  kiln_session_set_integer(h.s, "outer", 30);
  BAD(KILN_LIMIT, "the limit of 29 trips", kiln_session_run(h.s), kiln_session_error(h.s));
  kiln_session_set_trip_limit(h.s, 0);
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  close_host(&h);
}
END_TEST

/* Views repeat elements for nothing: what they make endless is work for more steps than one. */
START_TEST(a_part_without_end_is_many_steps) {
  host h;
  open_with(&h,
            "graph g(%x: float32[1], %n: integer) {\n"
            "  %y: float32[?] = expand %x {sizes = {%n}}  ; bad.lua:2\n"
            "  %z: float32[] = sum %y                     ; bad.lua:3\n"
            "  return %z\n}\n",
            NULL);
  float one = 1;
  kiln_tensor *x;
  GOOD(kiln_tensor_new(h.ctx, KILN_FLOAT32, 1, (int64_t[]){1}, &one, &x), kiln_error(h.ctx));
  GOOD(kiln_session_set_tensor(h.s, "x", x), kiln_session_error(h.s));
  kiln_tensor_release(x);
  kiln_session_set_step_limit(h.s, 1000);
  static const int64_t sizes[] = {INT64_C(1) << 40, INT64_C(1) << 56, 1 << 20};
  for (int i = 0; i < 3; i++) {
    kiln_session_set_integer(h.s, "n", sizes[i]);
    if (i < 2)
      BAD(KILN_LIMIT, "bad.lua:2: the limit of 1000 steps", kiln_session_run(h.s), kiln_session_error(h.s));
    else
      GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  }
  close_host(&h);
}
END_TEST

START_TEST(deadlines_are_of_a_run) {
  host h;
  open_with(&h, nested_text, NULL);
  kiln_session_set_integer(h.s, "outer", 3);
  kiln_session_set_integer(h.s, "inner", 3);
  static const double wrong[] = {-1, -INFINITY, NAN};
  for (int i = 0; i < 3; i++)
    BAD(KILN_ARG, "0 or more seconds", kiln_session_set_deadline(h.s, wrong[i]), kiln_session_error(h.s));
  GOOD(kiln_session_set_deadline(h.s, 0.2), kiln_session_error(h.s));
  BAD(KILN_ARG, "0 or more seconds", kiln_session_set_deadline(h.s, NAN), kiln_session_error(h.s));
  for (int i = 0; i < 3; i++) { /* longer together than one may take */
    GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
    nanosleep(&(struct timespec){.tv_nsec = 110000000}, NULL);
  }
  kiln_session_set_integer(h.s, "outer", INT64_MAX);
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  BAD(KILN_LIMIT, "0.2 seconds", kiln_session_run(h.s), kiln_session_error(h.s));
  clock_gettime(CLOCK_MONOTONIC, &b);
  const double took = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
  ck_assert_msg(took >= 0.2 && took < 20, "it took %g s", took);
  kiln_session_set_integer(h.s, "outer", 3);
  GOOD(kiln_session_set_deadline(h.s, 1e-9), kiln_session_error(h.s)); /* before its first step */
  BAD(KILN_LIMIT, "1e-09 seconds", kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_set_deadline(h.s, INFINITY), kiln_session_error(h.s));
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_set_deadline(h.s, 0), kiln_session_error(h.s));
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  close_host(&h);
}
END_TEST

/* ---- a pool of the host's ---- */

typedef struct pool {
  int order;         /* 0: in turn; 1: backwards; 2: a thread each; 3: some twice; 4: the last ones never */
  atomic_int inside; /* tasks that run now */
  atomic_int runs, tasks, nested;
} pool;

typedef struct task {
  pool *p;
  void (*run)(void *arg, int index);
  void *arg;
  int index;
} task;

static _Thread_local bool in_task;

static void *run_task(void *of) {
  task *t = of;
  in_task = true;
  atomic_fetch_add(&t->p->inside, 1);
  atomic_fetch_add(&t->p->tasks, 1);
  t->run(t->arg, t->index);
  atomic_fetch_sub(&t->p->inside, 1);
  in_task = false;
  return NULL;
}

static void run_pool(void *ud, int tasks, void (*run)(void *arg, int index), void *arg) {
  pool *p = ud;
  task t[64];
  pthread_t threads[64];
  atomic_fetch_add(&p->runs, 1);
  if (in_task) atomic_fetch_add(&p->nested, 1);
  ck_assert(tasks >= 2 && tasks <= 64);
  for (int i = 0; i < tasks; i++) t[i] = (task){p, run, arg, p->order == 1 ? tasks - 1 - i : i};
  if (p->order == 2) {
    for (int i = 0; i < tasks; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, run_task, &t[i]), 0);
    for (int i = 0; i < tasks; i++) pthread_join(threads[i], NULL);
    return;
  }
  for (int i = 0; i < tasks - (p->order == 4); i++) {
    run_task(&t[i]);
    if (p->order == 3) run_task(&t[i]);
  }
}

enum { ROWS = 300, WIDE = 256, WIDE_BYTES = (ROWS * WIDE + ROWS + 1) * 4 };

/* All results of a run of `wide`, one after the other. */
static void run_wide(const char *backend, int threads, const kiln_pool *p, char *out) {
  kiln_context_options o = {.size = sizeof o, .backend = backend, .threads = threads, .pool = p};
  host h;
  open_with(&h, wide_text, &o);
  set_floats(&h, "x", 2, (int64_t[]){ROWS, WIDE});
  set_floats(&h, "w", 2, (int64_t[]){WIDE, WIDE});
  for (int i = 0; i < 2; i++) GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  for (int i = 0; i < 3; i++) {
    kiln_value v;
    GOOD(kiln_session_get(h.s, i, &v), kiln_session_error(h.s));
    const size_t bytes = 4 * (size_t)kiln_tensor_numel(v.tensor);
    GOOD(kiln_tensor_read(h.ctx, v.tensor, out, bytes), kiln_error(h.ctx));
    out += bytes;
    kiln_value_clear(&v);
  }
  close_host(&h);
}

START_TEST(results_are_the_same_on_any_pool) {
  static char want[WIDE_BYTES], got[WIDE_BYTES];
  static const char *const backends[] = {"ref", "cpu", NULL};
  for (int b = 0; b < 3; b++) {
    run_wide(backends[b], 1, NULL, want);
    if (backends[b]) { /* oneDNN's own threads may add in another order */
      run_wide(backends[b], 4, NULL, got);
      ck_assert_msg(!memcmp(want, got, sizeof want), "%s on threads of kiln's own", backends[b]);
    }
    for (int order = 0; order < 5; order++) {
      pool p = {.order = order};
      for (int threads = 1; threads <= 7; threads += 3) {
        const kiln_pool mine = {sizeof mine, &p, threads, run_pool};
        run_wide(backends[b], 0, &mine, got);
        ck_assert_msg(!memcmp(want, got, sizeof want), "backend %d, order %d, %d threads", b, order, threads);
      }
      ck_assert(atomic_load(&p.runs) > 0 && atomic_load(&p.inside) == 0 && atomic_load(&p.nested) == 0);
      const kiln_pool fewer = {sizeof fewer, &p, 7, run_pool};
      atomic_store(&p.runs, 0);
      run_wide(backends[b], 1, &fewer, got); /* `threads` says fewer */
      ck_assert(!memcmp(want, got, sizeof want) && atomic_load(&p.runs) == 0);
    }
  }
}
END_TEST

typedef struct inner {
  kn_context *ctx;
  atomic_int done;
} inner;

static void count_range(void *ud, int64_t begin, int64_t end) {
  atomic_fetch_add(&((inner *)ud)->done, (int)(end - begin));
}

static void loop_within(void *ud, int64_t begin, int64_t end) {
  inner *x = ud;
  for (int64_t i = begin; i < end; i++) kn_parallel_for(x->ctx, 100, 1, count_range, x);
}

START_TEST(a_loop_within_a_loop_stays_where_it_is) {
  for (int order = 0; order < 5; order++) {
    pool p = {.order = order};
    kiln_context *ctx, *child;
    const kiln_pool mine = {sizeof mine, &p, 4, run_pool};
    kiln_context_options o = {.size = sizeof o, .backend = "ref", .pool = &mine};
    GOOD(kiln_context_new(&o, &ctx, NULL, 0), "");
    GOOD(kiln_context_child(ctx, &child), kiln_error(ctx));
    inner x = {.ctx = core_context(child)}; /* as strands of a graph have a context of their own */
    kn_parallel_for(core_context(ctx), 8, 1, loop_within, &x);
    ck_assert_int_eq(atomic_load(&x.done), 800);
    ck_assert(atomic_load(&p.runs) == 1 && atomic_load(&p.nested) == 0);
    kiln_context_free(child);
    kiln_context_free(ctx);
  }
}
END_TEST

static void *run_beside(void *of) {
  host *h = of;
  for (int i = 0; i < 50; i++)
    if (kiln_session_run(h->s)) return h;
  return NULL;
}

START_TEST(threads_share_a_pool) {
  pool p = {.order = 2};
  const kiln_pool mine = {sizeof mine, &p, 3, run_pool};
  kiln_context_options o = {.size = sizeof o, .backend = "cpu", .pool = &mine};
  host h, more[3];
  pthread_t threads[3];
  void *failed;
  open_with(&h, wide_text, &o);
  for (int i = 0; i < 3; i++) {
    more[i] = (host){.g = h.g};
    GOOD(kiln_context_child(h.ctx, &more[i].ctx), kiln_error(h.ctx));
    GOOD(kiln_session_new(more[i].ctx, h.g, &more[i].s), kiln_error(more[i].ctx));
    set_floats(&more[i], "x", 2, (int64_t[]){ROWS, WIDE});
    set_floats(&more[i], "w", 2, (int64_t[]){WIDE, WIDE});
  }
  for (int i = 0; i < 3; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, run_beside, &more[i]), 0);
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], &failed);
    ck_assert_ptr_null(failed);
  }
  for (int i = 0; i < 3; i++) {
    kiln_session_free(more[i].s);
    kiln_context_free(more[i].ctx);
  }
  ck_assert(atomic_load(&p.runs) > 0 && atomic_load(&p.nested) == 0);
  close_host(&h);
}
END_TEST

START_TEST(pools_that_are_none) {
  static const struct {
    kiln_pool pool;
    const char *said;
  } cases[] = {{{0, NULL, 2, run_pool}, "does not say its size"},
               {{sizeof(size_t), NULL, 2, run_pool}, "does not say its size"},
               {{sizeof(kiln_pool), NULL, 2, NULL}, "no function `run`"},
               {{sizeof(kiln_pool), NULL, 0, run_pool}, "1 … 4096 threads"},
               {{sizeof(kiln_pool), NULL, -1, run_pool}, "1 … 4096 threads"},
               {{sizeof(kiln_pool), NULL, 4097, run_pool}, "1 … 4096 threads"}};
  char error[256];
  kiln_context *ctx = NULL;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    account memory = {.left = -1};
    kiln_context_options o = {.size = sizeof o, .alloc = count, .alloc_ud = &memory, .pool = &cases[i].pool};
    BAD(KILN_ARG, cases[i].said, kiln_context_new(&o, &ctx, error, sizeof error), error);
    ck_assert(!ctx && memory.live == 0);
  }
  /* A host compiled against an older header says a smaller size, and what lies behind is not looked at. */
  kiln_context_options o = {.size = offsetof(kiln_context_options, pool), .pool = &cases[0].pool};
  GOOD(kiln_context_new(&o, &ctx, error, sizeof error), error);
  kiln_context_free(ctx);
}
END_TEST

SUITE("capi_limits", endless_loops_end_and_change_nothing, trips_are_of_any_one_loop,
      a_part_without_end_is_many_steps, deadlines_are_of_a_run, results_are_the_same_on_any_pool,
      a_loop_within_a_loop_stays_where_it_is, threads_share_a_pool, pools_that_are_none)
