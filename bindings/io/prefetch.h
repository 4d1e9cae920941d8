/* Files read and pictures decoded ahead, by threads that know nothing of Lua. Jobs go in and their results
 * come out in the same order; a job that fails costs only its own result. Used by one thread. Without threads
 * (-Dthreads=none, or none asked for) a job is done when its result is asked for. */
#ifndef KN_PREFETCH_H
#define KN_PREFETCH_H
#include "bindings/io/image.h"

typedef struct kn_prefetcher kn_prefetcher;

typedef struct kn_job {
  const char *path; /* NULL: the bytes below. Copied, as they are */
  const void *bytes;
  size_t n;
  bool image;         /* decode; else the bytes as a uint8 tensor */
  kn_image_mode mode; /* of a picture */
} kn_job;

typedef struct kn_prefetch_options {
  int workers;        /* threads, started with the first job */
  int depth;          /* most jobs that are pending at a time */
  int64_t max_pixels; /* of a picture; 0: the default of image.h */
  uint64_t max_bytes; /* of a file; 0: any */
} kn_prefetch_options;

kn_status kn_prefetcher_new(kn_context *ctx, const kn_prefetch_options *options, kn_prefetcher **out);
/* *taken false: as many as `depth` are pending already; the job is not there. */
kn_status kn_prefetcher_push(kn_context *ctx, kn_prefetcher *p, const kn_job *job, bool *taken);
/* The oldest job's result, waited for. A failure is that job's, which is gone then as well. */
kn_status kn_prefetcher_pop(kn_context *ctx, kn_prefetcher *p, kn_tensor **out);
int kn_prefetcher_pending(const kn_prefetcher *p);
/* Waits for the jobs that are being done, drops the others. NULL is fine. Uses no context. */
void kn_prefetcher_free(kn_prefetcher *p);

#endif
