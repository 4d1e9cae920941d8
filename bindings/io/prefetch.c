/* A ring of jobs between one thread that pushes and pops and some that work: see prefetch.h. All that is
 * shared is under one lock; a job that is being done belongs to who does it. Each worker has a context of its
 * own on the same heap. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/io/prefetch.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>

#if defined(KN_THREADS_OPENMP) || defined(KN_THREADS_PTHREADS)
enum { HAVE_THREADS = 1 };
#else
enum { HAVE_THREADS = 0 };
#endif

enum { MOST_WORKERS = 256 };

typedef enum state { WAITING, RUNNING, DONE } state;

typedef struct slot {
  state state;
  kn_job job; /* path and bytes are ours: `held` */
  void *held;
  size_t room;
  kn_status status; /* once DONE */
  kn_tensor *t;
  char why[KN_ERROR_SIZE];
} slot;

struct kn_prefetcher {
  kn_heap *heap; /* retained */
  kn_prefetch_options options;
  slot *slots;                 /* a ring of `depth` */
  uint64_t first, next, taken; /* jobs popped, pushed, and begun by anybody */
  pthread_mutex_t lock;
  pthread_cond_t work, done;
  pthread_t threads[MOST_WORKERS];
  kn_context *contexts[MOST_WORKERS];
  int nthreads;
  bool stop;
};

static slot *slot_of(kn_prefetcher *p, uint64_t i) { return &p->slots[i % (uint64_t)p->options.depth]; }

/* ---- one job ---- */

static kn_status as_tensor(kn_context *ctx, const void *p, size_t n, kn_tensor **out) {
  kn_type type = {.dtype = KN_U8, .device = KN_CPU, .rank = 1, .dims = {(int64_t)n}};
  kn_tensor *t;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  if (n) memcpy(kn_tensor_data(t), p, n);
  *out = t;
  return KN_OK;
}

static kn_status work_on(kn_context *ctx, const kn_prefetch_options *o, const kn_job *job, kn_tensor **out) {
  kn_bytes file = {.heap = ctx->heap};
  if (job->path) KN_TRY(kn_read_file(ctx, job->path, o->max_bytes, &file));
  const void *p = job->path ? file.p : job->bytes;
  size_t n = job->path ? file.n : job->n;
  kn_status st =
      job->image ? kn_image_decode(ctx, p, n, job->mode, o->max_pixels, out) : as_tensor(ctx, p, n, out);
  if (st != KN_OK && job->path) kn_error_prefix(ctx, "%s", job->path);
  kn_bytes_free(&file);
  return st;
}

/* Outside of the lock: the slot is RUNNING and ours. */
static void run(kn_context *ctx, const kn_prefetcher *p, slot *s) {
  s->t = NULL;
  s->status = work_on(ctx, &p->options, &s->job, &s->t);
  if (s->status != KN_OK) memcpy(s->why, ctx->error, sizeof s->why);
}

static void drop_job(kn_prefetcher *p, slot *s) {
  kn_free(p->heap, s->held, s->room);
  s->held = NULL;
  s->room = 0;
}

/* ---- the threads ---- */

static void work(kn_prefetcher *p, kn_context *ctx) {
  pthread_mutex_lock(&p->lock);
  while (!p->stop) {
    if (p->taken == p->next) {
      pthread_cond_wait(&p->work, &p->lock);
      continue;
    }
    slot *s = slot_of(p, p->taken++);
    s->state = RUNNING;
    pthread_mutex_unlock(&p->lock);
    run(ctx, p, s);
    pthread_mutex_lock(&p->lock);
    s->state = DONE;
    pthread_cond_signal(&p->done);
  }
  pthread_mutex_unlock(&p->lock);
}

static void *begin(void *ud) {
  kn_prefetcher *p = ud;
  pthread_mutex_lock(&p->lock); /* until its context is where it looks for it */
  kn_context *ctx = NULL;
  for (int i = 0; i < p->nthreads; i++)
    if (pthread_equal(p->threads[i], pthread_self())) ctx = p->contexts[i];
  pthread_mutex_unlock(&p->lock);
  if (ctx) work(p, ctx);
  return NULL;
}

/* As many as were asked for, or as many as there can be: with none, pop does the work. */
static void start_threads(kn_prefetcher *p) {
  sigset_t all, before;
  sigfillset(&all); /* signals are for the program's own threads */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_mutex_lock(&p->lock);
  while (HAVE_THREADS && p->nthreads < p->options.workers) {
    kn_context *ctx = kn_context_new(p->heap, NULL);
    if (!ctx) break;
    if (pthread_create(&p->threads[p->nthreads], NULL, begin, p) != 0) {
      kn_context_free(ctx);
      break;
    }
    p->contexts[p->nthreads++] = ctx;
  }
  pthread_mutex_unlock(&p->lock);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- the caller's side ---- */

kn_status kn_prefetcher_new(kn_context *ctx, const kn_prefetch_options *o, kn_prefetcher **out) {
  if (o->workers < 0 || o->workers > MOST_WORKERS)
    return kn_fail(ctx, KN_ARG, "workers must be 0 to %d, not %d", MOST_WORKERS, o->workers);
  if (o->depth < 1 || o->depth > 1 << 16)
    return kn_fail(ctx, KN_ARG, "depth must be 1 to %d, not %d", 1 << 16, o->depth);
  kn_prefetcher *p = kn_calloc(ctx->heap, 1, sizeof *p);
  slot *slots = kn_calloc(ctx->heap, (size_t)o->depth, sizeof *slots);
  if (!p || !slots) {
    kn_free(ctx->heap, p, sizeof *p);
    kn_free(ctx->heap, slots, (size_t)o->depth * sizeof *slots);
    return kn_fail_nomem(ctx, (size_t)o->depth * sizeof *slots);
  }
  p->heap = kn_heap_retain(ctx->heap);
  p->options = *o;
  p->slots = slots;
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_cond_init(&p->done, NULL);
  *out = p;
  return KN_OK;
}

kn_status kn_prefetcher_push(kn_context *ctx, kn_prefetcher *p, const kn_job *job, bool *taken) {
  *taken = p->next - p->first < (uint64_t)p->options.depth;
  if (!*taken) return KN_OK;
  size_t room = job->path ? strlen(job->path) + 1 : job->n + !job->n;
  char *held = kn_alloc(p->heap, room);
  if (!held) return kn_fail_nomem(ctx, room);
  if (job->path || job->n) memcpy(held, job->path ? job->path : job->bytes, job->path ? room : job->n);
  slot *s = slot_of(p, p->next); /* nobody else looks at it: it is neither waiting nor running */
  s->job = *job;
  s->job.path = job->path ? held : NULL;
  s->job.bytes = job->path ? NULL : held;
  s->held = held, s->room = room;
  if (p->next == 0) start_threads(p);
  pthread_mutex_lock(&p->lock);
  s->state = WAITING;
  p->next++;
  pthread_cond_signal(&p->work);
  pthread_mutex_unlock(&p->lock);
  return KN_OK;
}

kn_status kn_prefetcher_pop(kn_context *ctx, kn_prefetcher *p, kn_tensor **out) {
  if (p->first == p->next) return kn_fail(ctx, KN_STATE, "nothing is pending");
  slot *s = slot_of(p, p->first);
  pthread_mutex_lock(&p->lock);
  bool ours = s->state == WAITING; /* nobody has begun it: p->taken is it */
  if (ours) p->taken++;
  while (!ours && s->state != DONE) pthread_cond_wait(&p->done, &p->lock);
  pthread_mutex_unlock(&p->lock);
  if (ours) run(ctx, p, s);
  p->first++;
  drop_job(p, s);
  if (s->status == KN_OK) {
    *out = s->t;
    s->t = NULL;
    return KN_OK;
  }
  return kn_fail(ctx, s->status, "%s", s->why);
}

int kn_prefetcher_pending(const kn_prefetcher *p) { return (int)(p->next - p->first); }

void kn_prefetcher_free(kn_prefetcher *p) {
  if (!p) return;
  pthread_mutex_lock(&p->lock);
  p->stop = true;
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->lock);
  for (int i = 0; i < p->nthreads; i++) pthread_join(p->threads[i], NULL);
  for (int i = 0; i < p->nthreads; i++) kn_context_free(p->contexts[i]);
  for (uint64_t i = p->first; i < p->next; i++) {
    slot *s = slot_of(p, i);
    drop_job(p, s);
    if (s->state == DONE) kn_tensor_release(s->t);
  }
  pthread_mutex_destroy(&p->lock);
  pthread_cond_destroy(&p->work);
  pthread_cond_destroy(&p->done);
  kn_heap *heap = p->heap;
  kn_free(heap, p->slots, (size_t)p->options.depth * sizeof *p->slots);
  kn_free(heap, p, sizeof *p);
  kn_heap_release(heap);
}
