/* Trials of cuBLASLt's algorithms for products of graphs. */
#include "backends/cuda/blas.h"
#include "backends/cuda/trial.h"
#include "backends/registry.h"
#include "backends/tune.h"

enum { APART = 256 };

typedef struct trials {
  cu_trial on;
  cu_product p;
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

static bool begin(void *ud) {
  trials *t = ud;
  cu_product *p = &t->p;
  size_t *bytes = t->on.bytes;
  bytes[0] = reach_of(p, &p->a, p->m, p->k);
  bytes[1] = reach_of(p, &p->b, p->k, p->n);
  bytes[2] = (size_t)count_of(p) * kn_dtype_size(p->dtype);
  if (p->bias) bytes[3] = (size_t)p->n * kn_dtype_size(p->dtype);
  if (!cu_trial_open(&t->on, p->dtype)) return false;
  p->a.at = t->on.at[0], p->b.at = t->on.at[1], p->c = t->on.at[2], p->bias = t->on.at[3];
  return true;
}

static void end(void *ud) { cu_trial_close(&((trials *)ud)->on); }

static kn_status launch(void *ud) {
  trials *t = ud;
  return cu_product_run(t->on.ctx, t->on.d, &t->p);
}

static bool try_way(void *ud, int way, double *seconds) {
  trials *t = ud;
  return cu_blas_choose(t->on.ctx, t->on.d, &t->p, way) && cu_trial_time(&t->on, launch, t, seconds);
}

static void ask(kn_context *ctx, trials *t, double flops) {
  char key[KN_TUNE_KEY];
  cu_product *p = &t->p;
  p->planned = true;
  p->a.at = p->b.at = p->c = APART;
  if (p->bias) p->bias = APART;
  kn_question q = {.key = key,
                   .n = cu_blas_ways(t->on.ctx, t->on.d, p, key, sizeof key),
                   .flops = flops,
                   .ud = t,
                   .begin = begin,
                   .trial = try_way,
                   .end = end};
  for (int i = 0; i < q.n; i++) q.ways[i] = cu_blas_way_names[i];
  const int way = kn_tune(ctx, kn_registry_tuner(ctx), &q);
  if (q.n > 1) cu_blas_settle(t->on.ctx, t->on.d, p, way < 0 ? 0 : way);
}

void cu_blas_tune(kn_context *ctx, cu_device *d, const cu_product *p) {
  const double flops = 2 * count_of(p) * (double)p->k;
  if (kn_context_tuning(ctx) == KN_TUNING_FIXED || cu_captures(ctx, d) || !kn_tune_pays(flops)) return;
  trials t = {.on = {.ctx = kn_context_child(ctx), .d = d}, .p = *p};
  if (!t.on.ctx) return;
  if (cu_device_of(t.on.ctx, &t.on.d) == KN_OK) ask(ctx, &t, flops);
  kn_context_free(t.on.ctx);
}
