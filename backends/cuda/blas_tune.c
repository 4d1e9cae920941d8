/* Trials of cuBLASLt's algorithms for products of graphs, on operands of random numbers. The device's own
 * clock is asked: events around several launches in a row. */
#include "backends/cuda/blas.h"
#include "backends/registry.h"
#include "backends/tune.h"
#include <string.h>

enum { OPERANDS = 4, IN_A_ROW = 8, BLOCK = 1 << 16, APART = 256 };
#define MOST_BYTES ((size_t)2 << 30)

typedef struct trials {
  kn_context *ctx; /* of the trials: failures are told to nobody */
  cu_device *d;
  cu_product p;
  size_t bytes[OPERANDS]; /* a, b, c, bias */
  CUdeviceptr at[OPERANDS];
  CUevent from, to;
} trials;

static size_t reach_of(const cu_product *p, const cu_factor *f, int64_t rows, int64_t columns) {
  int64_t reach = 1 + (rows - 1) * f->row + (columns - 1) * f->column;
  for (int i = 0; i < p->rank; i++) reach += (p->dims[i] - 1) * f->step[i];
  return (size_t)reach * kn_dtype_size(p->dtype);
}

static double count_of(const cu_product *p) {
  double n = (double)p->m * (double)p->n;
  for (int i = 0; i < p->rank; i++) n *= (double)p->dims[i];
  return n;
}

/* A block of numbers from -1 to 1, again and again. */
static kn_status fill(trials *t, CUdeviceptr to, size_t bytes) {
  const kn_memory *m = &t->d->tensors;
  const size_t size = kn_dtype_size(t->p.dtype), block = bytes < BLOCK ? bytes : BLOCK;
  char *numbers = kn_alloc(t->ctx->heap, block);
  if (!numbers) return kn_fail_nomem(t->ctx, block);
  for (size_t i = 0; i < block / size; i++)
    kn_element_put_float(t->p.dtype, numbers + i * size, (double)(kn_random_word(1, 2, i) % 4096) / 2048 - 1);
  kn_status st = m->copy(m->self, t->ctx, (void *)(uintptr_t)to, numbers, block, KN_TO_DEVICE);
  for (size_t done = block; done < bytes && st == KN_OK; done *= 2)
    st = m->copy(m->self, t->ctx, (void *)(uintptr_t)(to + done), (void *)(uintptr_t)to,
                 done < bytes - done ? done : bytes - done, KN_WITHIN_DEVICE);
  kn_free(t->ctx->heap, numbers, block);
  return st;
}

static bool begin(void *ud) {
  trials *t = ud;
  cu_product *p = &t->p;
  size_t all = 0;
  t->bytes[0] = reach_of(p, &p->a, p->m, p->k);
  t->bytes[1] = reach_of(p, &p->b, p->k, p->n);
  t->bytes[2] = (size_t)count_of(p) * kn_dtype_size(p->dtype);
  t->bytes[3] = (size_t)p->n * kn_dtype_size(p->dtype);
  for (int i = 0; i < OPERANDS; i++) all += t->bytes[i];
  if (all > MOST_BYTES || t->d->api.cuEventCreate(&t->from, 0) || t->d->api.cuEventCreate(&t->to, 0))
    return false;
  for (int i = 0; i < OPERANDS; i++)
    if (cu_alloc(t->ctx, t->d, t->bytes[i], &t->at[i]) != KN_OK || fill(t, t->at[i], t->bytes[i]) != KN_OK)
      return false;
  p->a.at = t->at[0], p->b.at = t->at[1], p->c = t->at[2];
  if (p->bias) p->bias = t->at[3];
  return true;
}

static void end(void *ud) {
  trials *t = ud;
  for (int i = 0; i < OPERANDS; i++)
    if (t->at[i]) cu_free(t->d, t->at[i], t->bytes[i]);
  if (t->from) (void)t->d->api.cuEventDestroy(t->from);
  if (t->to) (void)t->d->api.cuEventDestroy(t->to);
}

static bool try_way(void *ud, int way, double *seconds) {
  trials *t = ud;
  const cu_api *f = &t->d->api;
  float ms = 0;
  if (!cu_blas_choose(t->ctx, t->d, &t->p, way) || f->cuEventRecord(t->from, t->d->stream)) return false;
  for (int i = 0; i < IN_A_ROW; i++)
    if (cu_product_run(t->ctx, t->d, &t->p) != KN_OK) return false;
  if (f->cuEventRecord(t->to, t->d->stream) || f->cuEventSynchronize(t->to)) return false;
  const bool timed = !f->cuEventElapsedTime(&ms, t->from, t->to);
  *seconds = 1e-3 * (double)ms / IN_A_ROW;
  return timed && ms > 0;
}

void cu_blas_tune(kn_context *ctx, cu_device *d, const cu_product *p) {
  char key[KN_TUNE_KEY];
  const double flops = 2 * count_of(p) * (double)p->k;
  if (kn_context_tuning(ctx) == KN_TUNING_FIXED || d->capturing || !kn_tune_pays(flops)) return;
  trials t = {.ctx = kn_context_child(ctx), .d = d, .p = *p};
  if (!t.ctx) return;
  t.p.planned = true;
  t.p.a.at = t.p.b.at = t.p.c = APART;
  if (t.p.bias) t.p.bias = APART;
  kn_question q = {.key = key,
                   .n = cu_blas_ways(t.ctx, d, &t.p, key, sizeof key),
                   .flops = flops,
                   .ud = &t,
                   .begin = begin,
                   .trial = try_way,
                   .end = end};
  for (int i = 0; i < q.n; i++) q.ways[i] = cu_blas_way_names[i];
  const int way = kn_tune(ctx, kn_registry_tuner(ctx), &q);
  if (q.n > 1) cu_blas_settle(t.ctx, d, &t.p, way < 0 ? 0 : way);
  kn_context_free(t.ctx);
}
