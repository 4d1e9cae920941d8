/* The one parallel loop. OpenMP by default (its pool is shared with oneDNN), or none (-Dthreads=). */
#ifndef KN_PARALLEL_H
#define KN_PARALLEL_H
#include <stdint.h>

struct kn_context;

/* Handles [begin, end). Must not fail and must not touch the context. */
typedef void (*kn_range_fn)(void *ud, int64_t begin, int64_t end);

/* Runs fn over [0, n) in ranges of at least `grain` elements, on up to ctx->threads threads, and returns
 * when all is done. The ranges never change results: each element is handled once, independently. */
void kn_parallel_for(const struct kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud);
int kn_parallel_default_threads(void); /* what the machine offers, >= 1 */
const char *kn_parallel_name(void);    /* "openmp" or "none" */

#endif
