/* kiln.h in many threads: one graph that all of them run at once, and contexts that know nothing of each
 * other.
 * `./dev tsan` watches it on the reference and on kiln's own kernels; oneDNN takes part in the other builds.
 */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "spec/capi.h"
#include <pthread.h>

enum { THREADS = 8, RUNS = 10000, INPUTS = 16, SIZE = 8 };

/* A product, a branch on data, a loop whose trips the data decide, a draw, and state. */
static const char text[] =
    "graph shared(%x: float32[1,8]) {\n"
    "  slot param \"w\": float32[8,8]\n"
    "  slot state \"count\": integer\n"
    "  %one = const 1\n"
    "  %n = load_state \"count\"\n"
    "  %next: integer = lua.add %n, %one\n"
    "  store_state \"count\", %next\n"
    "  %w = param \"w\"\n"
    "  %y: float32[1,8] = matmul %x, %w\n"
    "  %sum: float32[] = sum %y\n"
    "  %s: number = item %sum\n"
    "  %limit = const 0.0\n"
    "  %up: boolean = lua.lt %limit, %s\n"
    "  %z: float32[1,8] = if %up {\n"
    "    %a: float32[1,8] = tanh %y\n"
    "    yield %a\n"
    "  } else {\n"
    "    %b: float32[1,8] = sigmoid %y\n"
    "    yield %b\n"
    "  }\n"
    "  %half = const 0.75\n"
    "  %h: float32[] = to_tensor %half\n"
    "  %least = const 0.3\n"
    "  %last: float32[1,8], %trips: integer = loop (%c: float32[1,8] = %z, %i: integer = %one) {\n"
    "    %d: float32[1,8] = mul %c, %h\n"
    "    %m: float32[] = amax %d\n"
    "    %top: number = item %m\n"
    "    %i2: integer = lua.add %i, %one\n"
    "    %more: boolean = lua.lt %least, %top\n"
    "    continue_if %more next(%d, %i2) exit(%d, %i2)\n"
    "  }\n"
    "  %noise: float32[2] = rand {sizes = {2}, dtype = \"float32\"}\n"
    "  return %last, %trips, %next, %noise\n"
    "}\n";

typedef struct result {
  float last[SIZE], noise[2];
  int64_t trips;
} result;

/* Check's assertions are the main thread's. */
typedef struct job {
  kiln_context *ctx;
  kiln_graph *g;
  const char *path, *backend; /* of a context of its own */
  int id, runs, wrong;
  char why[200];
  const result *want; /* by input; NULL: fills `got` */
  result *got;
} job;

static bool failed(job *j, kiln_status st, const char *why) {
  if (st == KILN_OK) return false;
  if (!j->wrong++) snprintf(j->why, sizeof j->why, "%s: %s", kiln_status_text(st), why);
  return true;
}

static kiln_status take(kiln_session *s, const char *name, float *out, size_t n) {
  kiln_tensor *t;
  kiln_status st = kiln_session_get_tensor(s, name, &t);
  if (st) return st;
  memcpy(out, kiln_tensor_data(t), n * sizeof *out);
  kiln_tensor_release(t);
  return KILN_OK;
}

static kiln_status run_one(kiln_session *s, kiln_tensor *x, int count, result *out) {
  int64_t n = 0;
  kiln_status st = kiln_session_set_tensor(s, "x", x);
  memset(out, 0, sizeof *out);
  kiln_session_seed(s, 7);
  if (!st) st = kiln_session_run(s);
  if (!st) st = take(s, "last", out->last, SIZE);
  if (!st) st = take(s, "noise", out->noise, 2);
  if (!st) st = kiln_session_get_integer(s, "trips", &out->trips);
  if (!st) st = kiln_session_get_integer(s, "next", &n);
  return st ? st : n == count ? KILN_OK : KILN_INTERNAL;
}

/* Inputs of its own, a session of its own, the graph of all. */
static void run_all(job *j) {
  kiln_session *s = NULL;
  kiln_tensor *x[INPUTS] = {0};
  if (failed(j, kiln_session_new(j->ctx, j->g, &s), kiln_error(j->ctx))) return;
  for (int i = 0; i < INPUTS; i++) {
    float numbers[SIZE];
    for (int k = 0; k < SIZE; k++) numbers[k] = (float)((i * 31 + k * 17) % 23 - 11) / (float)(1 + i * i);
    if (failed(j, kiln_tensor_new(j->ctx, KILN_FLOAT32, 2, (int64_t[]){1, SIZE}, numbers, &x[i]),
               kiln_error(j->ctx)))
      break;
  }
  for (int r = 0; r < j->runs && !j->wrong; r++) {
    const int i = (r + j->id) % INPUTS;
    result got;
    if (failed(j, run_one(s, x[i], r + 1, &got), kiln_session_error(s))) break;
    if (j->got) j->got[i] = got;
    if (j->want && memcmp(&j->want[i], &got, sizeof got)) failed(j, KILN_INTERNAL, "another result");
  }
  for (int i = 0; i < INPUTS; i++) kiln_tensor_release(x[i]);
  kiln_session_free(s);
}

static void write_model(char path[PATH_ROOM]) {
  kn_context *c = suite_context();
  kn_graph *g = parsed(c, text);
  fill_slots(c, g);
  float *w = g->slots[0]->tensor->storage->data;
  for (int i = 0; i < SIZE * SIZE; i++) w[i] = (float)(i * 13 % 29 - 14) / 7;
  write_graphs(c, path, &g, 1);
  suite_done(c);
}

static kiln_context *context(const char *backend, int threads) {
  kiln_context *ctx = NULL;
  char error[200] = "";
  kiln_context_options o = {.size = sizeof o, .backend = backend, .threads = threads};
  GOOD(kiln_context_new(&o, &ctx, error, sizeof error), error);
  return ctx;
}

static void *run_child(void *of) {
  run_all(of);
  return NULL;
}

/* NULL: whatever is best for each part. */
enum { BACKENDS = 4 };
static const char *const backends[BACKENDS] = {"ref", "cpu", "onednn", NULL};

static bool is_there(const char *backend) {
  kiln_context *ctx = context(NULL, 1);
  bool there = !backend;
  for (int i = 0; backend && i < kiln_backend_count(); i++) {
    kiln_backend b = {.size = sizeof b};
    GOOD(kiln_backend_report(ctx, i, &b), kiln_error(ctx));
    there |= !strcmp(b.name, backend) && b.available;
  }
  kiln_context_free(ctx);
  return there;
}

/* One thread says what is right; then all of them at once. */
static void share(const char *backend, int runs) {
  char path[PATH_ROOM];
  result want[INPUTS];
  job jobs[THREADS];
  pthread_t threads[THREADS];
  kiln_graph *g;
  write_model(path);
  kiln_context *ctx = context(backend, 2);
  GOOD(kiln_graph_load(ctx, path, NULL, &g), kiln_error(ctx));
  job first = {.ctx = ctx, .g = g, .runs = 2 * INPUTS, .got = want};
  run_all(&first);
  ck_assert_msg(!first.wrong, "%s", first.why);
  ck_assert(want[0].trips != want[1].trips || want[1].trips != want[2].trips);
  for (int i = 0; i < THREADS; i++) {
    jobs[i] = (job){.g = g, .id = i, .runs = runs, .want = want};
    GOOD(kiln_context_child(ctx, &jobs[i].ctx), kiln_error(ctx));
  }
  for (int i = 0; i < THREADS; i++)
    ck_assert_int_eq(pthread_create(&threads[i], NULL, run_child, &jobs[i]), 0);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < THREADS; i++) {
    ck_assert_msg(!jobs[i].wrong, "thread %d: %s", i, jobs[i].why);
    kiln_context_free(jobs[i].ctx);
  }
  kiln_graph_release(g);
  kiln_context_free(ctx);
  unlink(path);
}

START_TEST(eight_threads_share_a_graph) {
  for (int i = 0; i < BACKENDS; i++)
    if (is_there(backends[i])) share(backends[i], RUNS);
}
END_TEST

/* ---- contexts that know nothing of each other ---- */

static void *live(void *of) {
  job *j = of;
  char error[200] = "";
  for (int i = 0; i < 20 && !j->wrong; i++) {
    kiln_context_options o = {.size = sizeof o, .backend = j->backend, .threads = 2};
    if (failed(j, kiln_context_new(&o, &j->ctx, error, sizeof error), error)) break;
    if (!failed(j, kiln_graph_load(j->ctx, j->path, NULL, &j->g), kiln_error(j->ctx))) run_all(j);
    kiln_graph_release(j->g);
    kiln_context_free(j->ctx);
  }
  return NULL;
}

/* From the making of a context to its end in several threads, each with all that it needs of its own. */
START_TEST(contexts_never_touch) {
  char path[PATH_ROOM];
  write_model(path);
  for (int b = 0; b < BACKENDS; b++) {
    if (!is_there(backends[b])) continue;
    result want[INPUTS];
    job jobs[2] = {{.runs = INPUTS, .got = want}};
    pthread_t threads[2];
    jobs[0].ctx = context(backends[b], 2);
    GOOD(kiln_graph_load(jobs[0].ctx, path, NULL, &jobs[0].g), kiln_error(jobs[0].ctx));
    run_all(&jobs[0]);
    kiln_graph_release(jobs[0].g);
    kiln_context_free(jobs[0].ctx);
    for (int i = 0; i < 2; i++) {
      jobs[i] = (job){.path = path, .backend = backends[b], .id = i, .runs = 50, .want = want};
      ck_assert_int_eq(pthread_create(&threads[i], NULL, live, &jobs[i]), 0);
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) ck_assert_msg(!jobs[i].wrong, "thread %d: %s", i, jobs[i].why);
  }
  unlink(path);
}
END_TEST

SUITE("capi_threads", eight_threads_share_a_graph, contexts_never_touch)
