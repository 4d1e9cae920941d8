/* Waiting that can be cut short: see wait.h. */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include "backends/cuda/wait.h"
#include <time.h>

/* ---- the word ---- */

kn_status cu_stop_open(kn_context *ctx, cu_device *d) {
  void *word = NULL;
  CUresult r = CUDA_SUCCESS;
  pthread_mutex_lock(&d->lock);
  if (!d->launches.stop) {
    r = d->api.cuMemHostAlloc(&word, sizeof *d->launches.stop, CU_MEMHOSTALLOC_PORTABLE);
    if (r == CUDA_SUCCESS) {
      atomic_init((atomic_uint_fast64_t *)word, 0);
      d->launches.stop = word;
    }
  }
  pthread_mutex_unlock(&d->lock);
  return r == CUDA_SUCCESS ? KN_OK : cu_fail(ctx, d, r, "a word that host and device read");
}

void cu_stop_close(cu_device *d) {
  if (d->launches.stop) (void)d->api.cuMemFreeHost((void *)(uintptr_t)d->launches.stop);
  d->launches.stop = NULL;
}

/* ---- waiting ---- */

/* Now and then, so that the thread does not only ask. */
static void rest(unsigned asked) {
  enum { EAGER = 4096 };
  const struct timespec pause = {0, 20000};
  if (asked > EAGER) nanosleep(&pause, NULL);
}

static CUresult wait_for(cu_device *d, CUevent done, uint64_t id, kn_status (*ask)(void *ud), void *ud,
                         kn_status *said) {
  uint_fast64_t told = id;
  CUresult r = d->api.cuEventRecord(done, d->main);
  if (r != CUDA_SUCCESS) return r;
  for (unsigned asked = 0; (r = d->api.cuEventQuery(done)) == CUDA_ERROR_NOT_READY; asked++) {
    if (*said == KN_OK && ask) *said = ask(ud);
    if (*said != KN_OK) atomic_store(d->launches.stop, id); /* others may have written theirs */
    rest(asked);
  }
  if (*said != KN_OK) (void)atomic_compare_exchange_strong(d->launches.stop, &told, 0);
  return r;
}

kn_status cu_wait_asking(kn_context *ctx, cu_device *d, uint64_t id, kn_status (*ask)(void *ud), void *ud,
                         kn_status *said) {
  CUevent done;
  d->launches.syncs++;
  CU_TRY(ctx, d, d->api.cuEventCreate(&done, CU_EVENT_DISABLE_TIMING), "an event for launches");
  const CUresult r = wait_for(d, done, id, ask, ud, said);
  (void)d->api.cuEventDestroy(done);
  CU_TRY(ctx, d, r, "waiting for the device");
  return KN_OK;
}

static kn_status interrupt(void *of) {
  const kn_context *root = of;
  return root->interrupt(root->interrupt_ud, false);
}

kn_status cu_wait(kn_context *ctx, cu_device *d) {
  const kn_context *root = ctx;
  kn_status said = KN_OK;
  while (root->parent && root->reclaims) root = root->parent;
  if (root->parent || !root->interrupt || !atomic_exchange(&d->launches.loops, false)) {
    d->launches.syncs++;
    CU_TRY(ctx, d, d->api.cuStreamSynchronize(cu_stream(ctx, d)), "waiting for the device");
    return KN_OK;
  }
  (void)root->interrupt(root->interrupt_ud, true);
  KN_TRY(cu_wait_asking(ctx, d, CU_ALL_LAUNCHES, interrupt, (void *)(uintptr_t)root, &said));
  return said == KN_OK ? KN_OK : kn_fail(ctx, said, "stopped by the host (%s)", kn_status_text(said));
}
