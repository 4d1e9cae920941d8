/* Memory and time of trials: see trial.h. */
#include "backends/cuda/trial.h"
#include "core/random.h"

enum { IN_A_ROW = 8, BLOCK = 1 << 16 };
#define MOST_BYTES ((size_t)2 << 30)

/* A block of numbers from -1 to 1, again and again. */
static kn_status fill(cu_trial *t, kn_dtype dtype, CUdeviceptr to, size_t bytes) {
  const kn_memory *m = &t->d->tensors;
  const size_t size = kn_dtype_size(dtype), block = bytes < BLOCK ? bytes : BLOCK;
  char *numbers = kn_alloc(t->ctx->heap, block);
  if (!numbers) return kn_fail_nomem(t->ctx, block);
  for (size_t i = 0; i < block / size; i++)
    kn_element_put_float(dtype, numbers + i * size, (double)(kn_random_word(1, 2, i) % 4096) / 2048 - 1);
  kn_status st = m->copy(m->self, t->ctx, (void *)(uintptr_t)to, numbers, block, KN_TO_DEVICE);
  for (size_t done = block; done < bytes && st == KN_OK; done *= 2)
    st = m->copy(m->self, t->ctx, (void *)(uintptr_t)(to + done), (void *)(uintptr_t)to,
                 done < bytes - done ? done : bytes - done, KN_WITHIN_DEVICE);
  kn_free(t->ctx->heap, numbers, block);
  return st;
}

bool cu_trial_open(cu_trial *t, kn_dtype dtype) {
  const cu_api *f = &t->d->api;
  size_t all = 0;
  for (int i = 0; i < CU_TRIAL_OPERANDS; i++) all += t->bytes[i];
  if (all > MOST_BYTES || f->cuEventCreate(&t->from, 0) || f->cuEventCreate(&t->to, 0)) return false;
  for (int i = 0; i < CU_TRIAL_OPERANDS; i++)
    if (t->bytes[i] && (cu_alloc(t->ctx, t->d, t->bytes[i], &t->at[i]) != KN_OK ||
                        fill(t, dtype, t->at[i], t->bytes[i]) != KN_OK))
      return false;
  return true;
}

void cu_trial_close(cu_trial *t) {
  for (int i = 0; i < CU_TRIAL_OPERANDS; i++)
    if (t->at[i]) cu_free(t->d, t->at[i], t->bytes[i]);
  if (t->from) (void)t->d->api.cuEventDestroy(t->from);
  if (t->to) (void)t->d->api.cuEventDestroy(t->to);
}

bool cu_trial_time(cu_trial *t, kn_status (*launch)(void *ud), void *ud, double *seconds) {
  const cu_api *f = &t->d->api;
  float ms = 0;
  if (f->cuEventRecord(t->from, cu_stream(t->ctx, t->d))) return false;
  for (int i = 0; i < IN_A_ROW; i++)
    if (launch(ud) != KN_OK) return false;
  if (f->cuEventRecord(t->to, cu_stream(t->ctx, t->d)) || f->cuEventSynchronize(t->to)) return false;
  const bool timed = !f->cuEventElapsedTime(&ms, t->from, t->to);
  *seconds = 1e-3 * (double)ms / IN_A_ROW;
  return timed && ms > 0;
}
