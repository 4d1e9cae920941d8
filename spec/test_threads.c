/* Threads: the one parallel loop, results that do not depend on how many there are, contexts at work side by
 * side, tensors handed from thread to thread. Made for ThreadSanitizer (./dev tsan), true in every build. */
#include "backends/registry.h"
#include "core/expr.h"
#include "core/grad/tape.h"
#include "core/parallel.h"
#include "spec/exec.h"
#include <pthread.h>
#include <stdatomic.h>

static kn_context *open_context(int threads) {
  kn_context *c = suite_context();
  c->threads = threads;
  OK(c, kn_registry_open(c, NULL));
  return c;
}

static void close_context(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* ---- the loop ---- */

enum { MOST = 2000 };
typedef struct coverage {
  kn_context *c;
  pthread_t caller;
  atomic_int hits[MOST];
  atomic_int calls, elsewhere; /* ranges; those that did not run in the calling thread */
  int64_t inner;               /* elements of a nested loop for each range; 0: none */
  atomic_llong nested;
} coverage;

static void count_nested(void *ud, int64_t begin, int64_t end) {
  atomic_fetch_add((atomic_llong *)ud, end - begin);
}

static void cover(void *ud, int64_t begin, int64_t end) {
  coverage *v = ud;
  atomic_fetch_add(&v->calls, 1);
  if (!pthread_equal(pthread_self(), v->caller)) atomic_fetch_add(&v->elsewhere, 1);
  for (int64_t i = begin; i < end; i++) atomic_fetch_add(&v->hits[i], 1);
  if (v->inner) kn_parallel_for(v->c, v->inner, 1, count_nested, &v->nested);
}

static void run_cover(kn_context *c, coverage *v, int64_t n, int64_t grain, int64_t inner) {
  memset(v, 0, sizeof *v);
  v->c = c;
  v->caller = pthread_self();
  v->inner = inner;
  kn_parallel_for(c, n, grain, cover, v);
  for (int64_t i = 0; i < MOST; i++) ck_assert_int_eq(v->hits[i], i < n);
}

START_TEST(each_element_once) {
  static coverage v;
  bool parallel = strcmp(kn_parallel_name(), "none");
  for (int threads = 1; threads <= 5; threads++) {
    kn_context *c = suite_context();
    c->threads = threads;
    for (int round = 0; round < 6; round++) {
      run_cover(c, &v, round * 7, 1, 0);
      run_cover(c, &v, MOST, 100 + round, 0);
      ck_assert_int_le(v.calls, threads);
      if (threads > 1 && parallel) ck_assert_int_ge(v.calls, 2);
    }
    run_cover(c, &v, 0, 1, 0);
    ck_assert_int_eq(v.calls, 0);
    suite_done(c);
  }
}
END_TEST

START_TEST(tiny_work_stays_here) {
  static coverage v;
  kn_context *c = suite_context();
  c->threads = 4;
  run_cover(c, &v, 199, 100, 0);
  ck_assert_int_eq(v.calls, 1);
  ck_assert_int_eq(v.elsewhere, 0);
  c->threads = 1;
  run_cover(c, &v, MOST, 1, 0);
  ck_assert_int_eq(v.calls, 1);
  ck_assert_int_eq(v.elsewhere, 0);
  suite_done(c);
}
END_TEST

START_TEST(nested_loops_run_in_place) {
  static coverage v;
  kn_context *c = suite_context();
  c->threads = 3;
  for (int round = 0; round < 10; round++) {
    run_cover(c, &v, MOST, 1, 50);
    ck_assert_int_eq(v.nested, 50 * v.calls);
  }
  suite_done(c);
}
END_TEST

START_TEST(more_threads_than_the_system_gives) {
  static coverage v;
  kn_context *c = suite_context();
  c->threads = strcmp(kn_parallel_name(), "pthreads") ? 4 : 1000;
  run_cover(c, &v, MOST, 1, 0);
  suite_done(c);
}
END_TEST

/* ---- the number of threads is not in the results ---- */

typedef struct results {
  kn_tensor *t[16];
  int n, exact; /* those from `exact` on are compared with a tolerance */
} results;

static void keep(results *r, kn_tensor *t) { r->t[r->n++] = t; }

static kn_tensor *op(kn_context *c, kn_op name, const void *attrs, kn_tensor *a, kn_tensor *b) {
  kn_tensor *out[KN_MAX_OUTPUTS] = {NULL};
  OK(c, kn_apply(c, name, attrs, (kn_tensor *[]){a, b}, b ? 2 : a ? 1 : 0, out));
  for (int i = 1; i < kn_ops[name].outs; i++) kn_tensor_release(out[i]);
  return out[0];
}

/* Large enough that every loop is shared out. */
static results compute(int threads) {
  results r = {.n = 0};
  kn_context *c = open_context(threads);
  kn_random_seed(&c->random, 5);
  kn_attrs_create sizes = {.sizes = DIMS(257, 1031), .dtype = KN_F32};
  kn_attrs_randint ints = {.low = -9, .high = 9, .sizes = DIMS(300000), .dtype = KN_I64};
  kn_attrs_reduce all = {.keepdim = false}, rows = {.dim = DIMS(0)}, columns = {.dim = DIMS(1)};
  kn_attrs_axis last = {.dim = 1};
  kn_attrs_sort order = {.dim = 1};
  kn_tensor *a = op(c, KN_OP_randn, &sizes, NULL, NULL), *b = op(c, KN_OP_rand, &sizes, NULL, NULL);
  keep(&r, a);
  keep(&r, b);
  keep(&r, op(c, KN_OP_randint, &ints, NULL, NULL));
  keep(&r, op(c, KN_OP_bernoulli, NULL, b, NULL));
  keep(&r, op(c, KN_OP_mul, NULL, a, b));
  keep(&r, op(c, KN_OP_exp, NULL, a, NULL));
  keep(&r, op(c, KN_OP_sum, &all, a, NULL));
  keep(&r, op(c, KN_OP_sum, &rows, a, NULL));
  keep(&r, op(c, KN_OP_sum, &columns, a, NULL));
  keep(&r, op(c, KN_OP_amax, &all, a, NULL));
  keep(&r, op(c, KN_OP_softmax, &last, a, NULL));
  keep(&r, op(c, KN_OP_cumsum, &last, a, NULL));
  keep(&r, op(c, KN_OP_sort, &order, a, NULL));
  r.exact = r.n;
  kn_attrs_sizes tall = {.sizes = DIMS(1031, 257)};
  kn_attrs_narrow few = {.dim = 1, .start = 0, .length = 16};
  kn_tensor *turned = op(c, KN_OP_reshape, &tall, b, NULL), *narrow = op(c, KN_OP_narrow, &few, turned, NULL);
  keep(&r, op(c, KN_OP_matmul, NULL, a, narrow));
  kn_tensor_release(turned);
  kn_tensor_release(narrow);
  kn_registry_close(c);
  kn_context_free(c);
  return r;
}

START_TEST(results_are_the_same) {
  results one = compute(1);
  for (int threads = 2; threads <= 3; threads++) {
    results more = compute(threads);
    ck_assert_int_eq(more.n, one.n);
    for (int i = 0; i < one.n; i++) {
      ck_assert(kn_type_equal(&one.t[i]->type, &more.t[i]->type));
      if (i < one.exact)
        ck_assert_msg(!memcmp(one.t[i]->storage->data, more.t[i]->storage->data, one.t[i]->storage->bytes),
                      "result %d differs with %d threads", i, threads);
      for (int64_t k = 0; i >= one.exact && k < kn_tensor_numel(one.t[i]); k++)
        ck_assert(near(element(one.t[i], k), element(more.t[i], k), 1e-4));
      kn_tensor_release(more.t[i]);
    }
  }
  for (int i = 0; i < one.n; i++) kn_tensor_release(one.t[i]);
}
END_TEST

/* ---- contexts side by side ---- */

enum { ROUNDS = 20 };

static const char graph_text[] = "graph net(%x: float32[N,16]) {\n"
                                 "  slot param \"w\": float32[16,16]\n"
                                 "  %w = param \"w\"\n"
                                 "  %h = matmul %x, %w\n"
                                 "  %y = relu %h\n"
                                 "  return %y\n"
                                 "}\n";

typedef struct side {
  pthread_t thread;
  kn_context *c;
  kn_graph *g; /* shared; NULL: none */
  double sum;
  bool large;
  kn_status failed;
  char why[KN_ERROR_SIZE];
} side;

/* A step of learning: products, broadcasting, reductions, gradients. */
static kn_status learn(kn_context *c, bool large, double *sum) {
  kn_attrs_create sizes = {.sizes = large ? DIMS(5000, 16) : DIMS(6, 16), .dtype = KN_F32};
  kn_attrs_create square = {.sizes = DIMS(16, 16), .dtype = KN_F32};
  kn_attrs_reduce all = {.keepdim = false};
  kn_tensor *x = NULL, *w = NULL, *h = NULL, *y = NULL, *loss = NULL;
  kn_status st = kn_apply(c, KN_OP_randn, &sizes, NULL, 0, &x);
  if (st == KN_OK) st = kn_apply(c, KN_OP_rand, &square, NULL, 0, &w);
  if (st == KN_OK) st = kn_set_requires_grad(c, w, true);
  if (st == KN_OK) st = kn_apply(c, KN_OP_matmul, NULL, (kn_tensor *[]){x, w}, 2, &h);
  if (st == KN_OK) st = kn_apply(c, KN_OP_tanh, NULL, &h, 1, &y);
  if (st == KN_OK) st = kn_apply(c, KN_OP_sum, &all, &y, 1, &loss);
  if (st == KN_OK) st = kn_backward(c, loss, NULL, false);
  if (st == KN_OK) *sum += element(loss, 0) + element(kn_grad_of(w), 1);
  kn_tensor *made[] = {x, w, h, y, loss};
  for (int i = 0; i < 5; i++) kn_tensor_release(made[i]);
  return st;
}

static kn_status run_graph(side *s, kn_session *run) {
  kn_attrs_create sizes = {.sizes = DIMS(5, 16), .dtype = KN_F32};
  kn_rvalue in, out;
  KN_TRY(kn_apply(s->c, KN_OP_rand, &sizes, NULL, 0, &in.tensor));
  kn_status st = kn_session_run(run, &in, 1, &out, 1);
  kn_tensor_release(in.tensor);
  if (st != KN_OK) return kn_fail(s->c, st, "%s", kn_error(kn_session_context(run)));
  s->sum += element(out.tensor, 3);
  kn_tensor_release(out.tensor);
  return KN_OK;
}

static kn_status open_session(side *s, kn_session **run) {
  const kn_target *const *targets;
  int n;
  kn_attrs_create square = {.sizes = DIMS(16, 16), .dtype = KN_F32};
  kn_rvalue w;
  KN_TRY(kn_registry_targets(s->c, &targets, &n));
  KN_TRY(kn_session_new(s->c, s->g, targets, n, run));
  kn_status st = kn_apply(s->c, KN_OP_rand, &square, NULL, 0, &w.tensor);
  if (st == KN_OK) st = kn_session_set_slot(*run, 0, &w);
  if (st == KN_OK) kn_tensor_release(w.tensor);
  return st;
}

static void *live(void *ud) {
  side *s = ud;
  kn_session *run = NULL;
  kn_random_seed(&s->c->random, 11);
  s->failed = s->g ? open_session(s, &run) : KN_OK;
  for (int i = 0; i < (s->large ? ROUNDS / 5 : ROUNDS) && s->failed == KN_OK; i++) {
    s->failed = learn(s->c, s->large, &s->sum);
    for (int k = 0; k < 5 && s->failed == KN_OK && run; k++) s->failed = run_graph(s, run);
    kn_tensor *bad = NULL; /* errors are the context's own */
    if (s->failed == KN_OK && kn_apply(s->c, KN_OP_matmul, NULL, &bad, 1, &bad) == KN_OK)
      s->failed = KN_INTERNAL;
  }
  kn_session_free(run);
  snprintf(s->why, sizeof s->why, "%s", kn_error(s->c));
  return NULL;
}

static void together(side *s, int n) {
  for (int i = 0; i < n; i++) ck_assert_int_eq(pthread_create(&s[i].thread, NULL, live, &s[i]), 0);
  for (int i = 0; i < n; i++) pthread_join(s[i].thread, NULL);
  for (int i = 0; i < n; i++) {
    ck_assert_msg(s[i].failed == KN_OK, "%s", s[i].why);
    ck_assert(s[i].sum == s[0].sum && s[i].sum != 0);
  }
}

START_TEST(two_contexts) {
  for (int large = 0; large < 2; large++) {
    side s[2] = {{.large = large}, {.large = large}};
    for (int i = 0; i < 2; i++) s[i].c = open_context(2);
    together(s, 2);
    for (int i = 0; i < 2; i++) close_context(s[i].c);
  }
}
END_TEST

/* One heap, one pool, one set of backends. */
START_TEST(children_of_one_context) {
  kn_context *c = open_context(3);
  side s[3] = {{.large = true}, {.large = true}, {.large = true}};
  for (int i = 0; i < 3; i++) ck_assert_ptr_nonnull(s[i].c = kn_context_child(c));
  together(s, 3);
  for (int i = 0; i < 3; i++) kn_context_free(s[i].c);
  close_context(c);
}
END_TEST

START_TEST(one_graph_in_two_threads) {
  for (int own = 0; own < 2; own++) {
    kn_context *c = open_context(2);
    kn_graph *g = parse(c, graph_text);
    side s[2] = {{.g = g}, {.g = g}};
    for (int i = 0; i < 2; i++) s[i].c = own ? open_context(2) : kn_context_child(c);
    together(s, 2);
    for (int i = 0; i < 2; i++) own ? close_context(s[i].c) : kn_context_free(s[i].c);
    kn_graph_release(g);
    close_context(c);
  }
}
END_TEST

/* ---- tensors go from thread to thread ---- */

enum { QUEUE = 8, GOODS = 300 };
typedef struct queue {
  pthread_mutex_t lock;
  pthread_cond_t moved;
  kn_tensor *item[QUEUE];
  int put, taken;
  kn_context *from, *to;
  double sum;
  kn_status failed;
} queue;

static void put(queue *q, kn_tensor *t) {
  pthread_mutex_lock(&q->lock);
  while (q->put - q->taken == QUEUE) pthread_cond_wait(&q->moved, &q->lock);
  q->item[q->put++ % QUEUE] = t;
  pthread_cond_signal(&q->moved);
  pthread_mutex_unlock(&q->lock);
}

static kn_tensor *take(queue *q) {
  pthread_mutex_lock(&q->lock);
  while (q->put == q->taken) pthread_cond_wait(&q->moved, &q->lock);
  kn_tensor *t = q->item[q->taken++ % QUEUE];
  pthread_cond_signal(&q->moved);
  pthread_mutex_unlock(&q->lock);
  return t;
}

static void *consume(void *ud) {
  queue *q = ud;
  kn_attrs_reduce all = {.keepdim = false};
  for (int i = 0; i < GOODS; i++) {
    kn_tensor *t = take(q), *sum = NULL, *with = NULL;
    kn_status st = kn_apply(q->to, KN_OP_add, NULL, (kn_tensor *[]){t, t}, 2, &with);
    if (st == KN_OK) st = kn_apply(q->to, KN_OP_sum, &all, &with, 1, &sum);
    if (st == KN_OK)
      q->sum += element(sum, 0);
    else
      q->failed = st;
    kn_tensor_release(sum);
    kn_tensor_release(with);
    kn_tensor_release(t); /* maybe the last to know the memory, maybe not */
  }
  return NULL;
}

/* The producer keeps a view of every third, and the tape of every fifth, beyond handing it over. */
static void handed_over(kn_context *from, kn_context *to) {
  queue q = {.from = from, .to = to};
  pthread_t consumer;
  kn_tensor *kept[GOODS];
  int nkept = 0;
  double want = 0;
  pthread_mutex_init(&q.lock, NULL);
  pthread_cond_init(&q.moved, NULL);
  ck_assert_int_eq(pthread_create(&consumer, NULL, consume, &q), 0);
  for (int i = 0; i < GOODS; i++) {
    kn_tensor *t = make(from, KN_F32, DIMS(4), LIST(i, 1, 2, 3));
    kn_attrs_slice half = {.dim = 0, .start = 0, .stop = 2, .step = 1};
    want += 2 * (i + 6);
    if (i % 3 == 0) kept[nkept++] = op(from, KN_OP_slice, &half, t, NULL);
    if (i % 5 == 0) {
      OK(from, kn_set_requires_grad(from, t, true));
      kept[nkept++] = op(from, KN_OP_exp, NULL, t, NULL);
    }
    put(&q, t);
    if (nkept > 20) kn_tensor_release(kept[--nkept]);
  }
  pthread_join(consumer, NULL);
  while (nkept) kn_tensor_release(kept[--nkept]);
  ck_assert_int_eq(q.failed, KN_OK);
  ck_assert(q.sum == want);
  pthread_cond_destroy(&q.moved);
  pthread_mutex_destroy(&q.lock);
}

START_TEST(tensors_change_hands) {
  kn_context *a = open_context(1), *b = open_context(1), *child = kn_context_child(a);
  handed_over(a, b); /* heaps of their own */
  handed_over(a, child);
  handed_over(child, a);
  kn_context_free(child);
  close_context(a);
  close_context(b);
}
END_TEST

SUITE("threads", each_element_once, tiny_work_stays_here, nested_loops_run_in_place,
      more_threads_than_the_system_gives, results_are_the_same, two_contexts, children_of_one_context,
      one_graph_in_two_threads, tensors_change_hands)
