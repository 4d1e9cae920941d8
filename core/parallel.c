/* kn_parallel_for on OpenMP, on pthreads, in the calling thread, or on a pool of the host's: see parallel.h.
 */
#include "core/parallel.h"
#include "core/context.h"
#include <stdatomic.h>

/* How many ranges n elements are cut into; 1: not worth waking anybody. */
static int64_t parts_of(const kn_context *ctx, int64_t n, int64_t grain) {
  if (n / 2 < grain) return 1; /* most calls by far: no division by a number */
  int64_t parts = n / (grain < 1 ? 1 : grain);
  return parts > ctx->threads ? ctx->threads : parts;
}

/* ---- a pool of the host's ---- */

/* Whoever runs a loop there holds `busy`: a second one, nested or another thread's, runs by itself, so that
 * no thread of the pool ever waits for the pool. */
struct kn_hosted {
  kn_host_pool pool;
  atomic_flag busy;
};

typedef struct hosted_loop {
  kn_range_fn fn;
  void *ud;
  int64_t n, parts;
  _Atomic int64_t next;
} hosted_loop;

/* One range, whichever comes next: a pool that runs a task twice or leaves one out does no harm. */
static void run_next(void *arg, int index) {
  hosted_loop *l = arg;
  int64_t p = atomic_fetch_add(&l->next, 1);
  (void)index;
  if (p < l->parts) l->fn(l->ud, l->n * p / l->parts, l->n * (p + 1) / l->parts);
}

static void run_hosted(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  struct kn_hosted *h = ctx->hosted;
  int64_t parts = parts_of(ctx, n, grain);
  if (parts < 2 || atomic_flag_test_and_set_explicit(&h->busy, memory_order_acquire)) {
    fn(ud, 0, n);
    return;
  }
  hosted_loop l = {.fn = fn, .ud = ud, .n = n, .parts = parts};
  h->pool.run(h->pool.ud, (int)parts, run_next, &l);
  while (atomic_load(&l.next) < parts) run_next(&l, 0);
  atomic_flag_clear_explicit(&h->busy, memory_order_release);
}

bool kn_parallel_use(kn_context *ctx, const kn_host_pool *pool) {
  struct kn_hosted *h = kn_alloc(ctx->heap, sizeof *h);
  if (!h) return false;
  h->pool = *pool;
  atomic_flag_clear(&h->busy);
  ctx->hosted = h;
  return true;
}

int kn_parallel_library_threads(const kn_context *ctx) { return ctx->hosted ? 1 : ctx->threads; }

/* ---- those of kiln's own ---- */

#if defined(KN_THREADS_OPENMP)
#include <omp.h>

static void run_own(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
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
static void close_own(kn_context *ctx) { (void)ctx; }

#elif defined(KN_THREADS_PTHREADS)
#include <pthread.h>
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

static void run_own(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
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

static void close_own(kn_context *ctx) {
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

static void run_own(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  (void)ctx, (void)grain;
  fn(ud, 0, n);
}

int kn_parallel_default_threads(void) { return 1; }
const char *kn_parallel_name(void) { return "none"; }
bool kn_parallel_open(kn_context *ctx) { return ctx; }
static void close_own(kn_context *ctx) { (void)ctx; }

#endif

void kn_parallel_for(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  if (n <= 0) return;
  (ctx->hosted ? run_hosted : run_own)(ctx, n, grain, fn, ud);
}

void kn_parallel_close(kn_context *ctx) {
  close_own(ctx);
  kn_free(ctx->heap, ctx->hosted, sizeof *ctx->hosted);
}
