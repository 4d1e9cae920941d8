/* The one parallel loop: on OpenMP by default (its pool is shared with oneDNN), on a small pool of pthreads,
 * or in the calling thread (-Dthreads=openmp, pthreads, none); in each of these builds on a pool of the
 * host's where a context was given one. */
#ifndef KN_PARALLEL_H
#define KN_PARALLEL_H
#include <stdbool.h>
#include <stdint.h>

struct kn_context;

/* Handles [begin, end). Must not fail and must not touch the context. */
typedef void (*kn_range_fn)(void *ud, int64_t begin, int64_t end);

/* Runs fn over [0, n) in ranges of at least `grain` elements, on up to ctx->threads threads, and returns
 * when all is done. The ranges never change results: each element is handled once, independently. Called from
 * inside fn, or with less than two grains of work, it runs in the calling thread and wakes nobody. */
void kn_parallel_for(const struct kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud);
int kn_parallel_default_threads(void); /* what the machine offers, >= 1 */
const char *kn_parallel_name(void);    /* "openmp", "pthreads" or "none" */

/* What the context keeps for it. The pthread build has a pool per root context, shared with its children: one
 * loop at a time has it, others run in their own thread meanwhile. Its threads start when first needed and
 * are joined by kn_parallel_close. False when out of memory. */
bool kn_parallel_open(struct kn_context *ctx);
void kn_parallel_close(struct kn_context *ctx);

/* A pool of the host's: `run` calls task(arg, i) for each i from 0 to tasks - 1, on any threads and in any
 * order, and returns when all have ended. */
typedef struct kn_host_pool {
  void *ud;
  int threads;
  void (*run)(void *ud, int tasks, void (*task)(void *arg, int index), void *arg);
} kn_host_pool;

/* All loops of this root context, and of the children it gets, are run there, cut into as many ranges as
 * ever; one loop at a time has it. False when out of memory. */
bool kn_parallel_use(struct kn_context *ctx, const kn_host_pool *pool);
/* How many threads a library may use that has a pool of its own: one where the host supplies the pool. */
int kn_parallel_library_threads(const struct kn_context *ctx);

#endif
