/* kn_parallel_for on OpenMP, on pthreads, or in the calling thread: see parallel.h. */
#include "core/parallel.h"
#include "core/context.h"

/* How many ranges n elements are cut into; 1: not worth waking anybody. */
#if defined(KN_THREADS_OPENMP) || defined(KN_THREADS_PTHREADS)
static int64_t parts_of(const kn_context *ctx, int64_t n, int64_t grain) {
  if (n / 2 < grain) return 1; /* most calls by far: no division by a number */
  int64_t parts = n / (grain < 1 ? 1 : grain);
  return parts > ctx->threads ? ctx->threads : parts;
}
#endif

#if defined(KN_THREADS_OPENMP)
#include <omp.h>

void kn_parallel_for(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  if (n <= 0) return;
  int64_t parts = parts_of(ctx, n, grain);
  if (parts > 1 && !omp_in_parallel()) {
#pragma omp parallel for num_threads((int)parts) schedule(static, 1)
    for (int64_t p = 0; p < parts; p++) fn(ud, n * p / parts, n * (p + 1) / parts);
    return;
  }
  fn(ud, 0, n);
}

int kn_parallel_default_threads(void) {
  int n = omp_get_max_threads();
  return n > 0 ? n : 1;
}

const char *kn_parallel_name(void) { return "openmp"; }
bool kn_parallel_open(kn_context *ctx) { return ctx; }
void kn_parallel_close(kn_context *ctx) { (void)ctx; }

#elif defined(KN_THREADS_PTHREADS)
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WORKERS = 255 };

/* The loop under way is written under the lock before `round` goes up and is read by the workers that take
 * part; `left` is how many of them have not finished. Whoever runs a loop holds `busy`, so a second loop, be
 * it nested or another thread's, sees it taken and runs by itself. */
struct kn_pool {
  atomic_flag busy;
  pthread_mutex_t lock;
  pthread_cond_t wake, done;
  kn_range_fn fn;
  void *ud;
  int64_t n, parts;
  uint64_t round;
  int64_t left;
  bool stop;
  int workers; /* started; changed by who holds `busy` */
  struct worker {
    struct kn_pool *pool;
    pthread_t thread;
    int64_t part; /* the range it takes in each loop that has so many */
    uint64_t seen;
  } worker[MAX_WORKERS];
};

static void run_part(const struct kn_pool *p, int64_t part) {
  p->fn(p->ud, p->n * part / p->parts, p->n * (part + 1) / p->parts);
}

static void *work(void *ud) {
  struct worker *w = ud;
  struct kn_pool *p = w->pool;
  pthread_mutex_lock(&p->lock);
  for (;;) {
    while (!p->stop && p->round == w->seen) pthread_cond_wait(&p->wake, &p->lock);
    if (p->stop) break;
    w->seen = p->round;
    if (w->part >= p->parts) continue;
    pthread_mutex_unlock(&p->lock);
    run_part(p, w->part);
    pthread_mutex_lock(&p->lock);
    if (--p->left == 0) pthread_cond_signal(&p->done);
  }
  pthread_mutex_unlock(&p->lock);
  return NULL;
}

/* As many workers as `wanted`, or those that the system allows. */
static int start_workers(struct kn_pool *p, int64_t wanted) {
  while (p->workers < wanted && p->workers < MAX_WORKERS) {
    struct worker *w = &p->worker[p->workers];
    *w = (struct worker){.pool = p, .part = p->workers + 1, .seen = p->round};
    if (pthread_create(&w->thread, NULL, work, w)) break;
    p->workers++;
  }
  return p->workers;
}

void kn_parallel_for(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  if (n <= 0) return;
  struct kn_pool *p = ctx->pool;
  int64_t parts = parts_of(ctx, n, grain);
  if (parts < 2 || !p || atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire)) {
    fn(ud, 0, n);
    return;
  }
  int workers = start_workers(p, parts - 1);
  if (parts > workers + 1) parts = workers + 1;
  pthread_mutex_lock(&p->lock);
  p->fn = fn;
  p->ud = ud;
  p->n = n;
  p->parts = parts;
  p->left = parts - 1;
  p->round++;
  if (parts > 1) pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
  run_part(p, 0);
  pthread_mutex_lock(&p->lock);
  while (p->left > 0) pthread_cond_wait(&p->done, &p->lock);
  pthread_mutex_unlock(&p->lock);
  atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

int kn_parallel_default_threads(void) {
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > MAX_WORKERS ? MAX_WORKERS : (int)n;
}

const char *kn_parallel_name(void) { return "pthreads"; }

bool kn_parallel_open(kn_context *ctx) {
  struct kn_pool *p = kn_calloc(ctx->heap, 1, sizeof *p);
  if (!p) return false;
  if (pthread_mutex_init(&p->lock, NULL) || pthread_cond_init(&p->wake, NULL) ||
      pthread_cond_init(&p->done, NULL)) {
    kn_free(ctx->heap, p, sizeof *p);
    return false;
  }
  atomic_flag_clear(&p->busy);
  ctx->pool = p;
  return true;
}

void kn_parallel_close(kn_context *ctx) {
  struct kn_pool *p = ctx->pool;
  pthread_mutex_lock(&p->lock);
  p->stop = true;
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
  for (int i = 0; i < p->workers; i++) pthread_join(p->worker[i].thread, NULL);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->lock);
  kn_free(ctx->heap, p, sizeof *p);
}

#else

void kn_parallel_for(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  (void)ctx, (void)grain;
  if (n > 0) fn(ud, 0, n);
}

int kn_parallel_default_threads(void) { return 1; }
const char *kn_parallel_name(void) { return "none"; }
bool kn_parallel_open(kn_context *ctx) { return ctx; }
void kn_parallel_close(kn_context *ctx) { (void)ctx; }

#endif
