/* Trials of cuDNN's engines for convolutions of graphs. Making a plan may take a second, which is not
 * counted; it is kept on disk like any other. */
#include "backends/cuda/conv.h"
#include "backends/cuda/kernel_inside.h"
#include "backends/cuda/trial.h"
#include "backends/registry.h"
#include "backends/tune.h"
#include <stdio.h>
#include <string.h>

enum { WAYS = 4 };
static const char *const names[WAYS] = {"engine-1", "engine-2", "engine-3", "engine-4"};

typedef struct trials {
  cu_trial on;
  cu_dnn *s;
  cu_conv c;
  const cu_plan *plan;
  cu_conv_data at;
} trials;

/* All of the problem by a sum over its bytes, some of it to be read. */
static void write_key(const kn_context *ctx, const cu_device *d, const cu_conv *c, char key[KN_TUNE_KEY]) {
  const int64_t *x = c->x.dims, *w = c->w.dims;
  const bool exact = c->dtype == KN_F32 && kn_context_precision(ctx) == KN_FLOAT32_HIGHEST;
  snprintf(key, KN_TUNE_KEY,
           "cuDNN %zu sm_%d %.48s: conv%d %s%s b%d a%d r%d %lldx%lldx%lldx%lld %lldx%lldx%lldx%lld %016llx",
           d->api.cudnnGetVersion(), d->capability, d->name, c->kind, kn_dtype_name((kn_dtype)c->dtype),
           exact ? " exact" : "", c->bias, c->add, c->relu, (long long)x[0], (long long)x[1], (long long)x[2],
           (long long)x[3], (long long)w[0], (long long)w[1], (long long)w[2], (long long)w[3],
           (unsigned long long)cu_hash(c, sizeof *c));
}

int cu_conv_known(kn_context *ctx, cu_device *d, const cu_conv *c) {
  char key[KN_TUNE_KEY], name[KN_TUNE_NAME];
  kn_tuner *t = kn_context_tuning(ctx) == KN_TUNING_FIXED ? NULL : kn_registry_tuner(ctx);
  if (!t) return 0;
  write_key(ctx, d, c, key);
  if (!kn_tuner_find(ctx, t, key, name)) return 0;
  for (int i = 0; i < WAYS; i++)
    if (!strcmp(name, names[i])) return i;
  return 0;
}

/* ---- trials ---- */

static size_t reach_of(const cu_conv *c, const cu_conv_tensor *t) {
  int64_t reach = 1;
  for (int i = 0; i < 4; i++) reach += (t->dims[i] - 1) * t->strides[i];
  return (size_t)reach * kn_dtype_size((kn_dtype)c->dtype);
}

static bool begin(void *ud) {
  trials *t = ud;
  const cu_conv *c = &t->c;
  size_t *bytes = t->on.bytes;
  bytes[0] = reach_of(c, &c->x), bytes[1] = reach_of(c, &c->w), bytes[2] = reach_of(c, &c->y);
  if (c->bias) bytes[3] = (size_t)c->y.dims[1] * kn_dtype_size((kn_dtype)c->dtype);
  if (c->add) bytes[4] = bytes[2];
  if (!cu_trial_open(&t->on, (kn_dtype)c->dtype)) return false;
  t->at = (cu_conv_data){t->on.at[0], t->on.at[1], t->on.at[2], t->on.at[3], t->on.at[4]};
  return true;
}

static void end(void *ud) { cu_trial_close(&((trials *)ud)->on); }

static kn_status launch(void *ud) {
  trials *t = ud;
  return cu_conv_run(t->on.ctx, t->on.d, t->plan, &t->c, &t->at);
}

static bool try_way(void *ud, int way, double *seconds) {
  trials *t = ud;
  const char *why;
  return cu_conv_plan_by(t->on.ctx, t->s, &t->c, way, &t->plan, &why) == KN_OK &&
         cu_trial_time(&t->on, launch, t, seconds);
}

/* What cuDNN has an engine for, as conv.c asks for it: with all that follows, with the bias, without. */
static bool find_plan(trials *t) {
  const char *why;
  if (cu_conv_plan(t->on.ctx, t->s, &t->c, &t->plan, &why) == KN_OK) return true;
  t->c.add = t->c.relu = 0;
  if (cu_conv_plan(t->on.ctx, t->s, &t->c, &t->plan, &why) == KN_OK) return true;
  t->c.bias = 0;
  return cu_conv_plan(t->on.ctx, t->s, &t->c, &t->plan, &why) == KN_OK;
}

static double flops_of(const cu_conv *c) {
  double n = 2;
  for (int i = 0; i < 4; i++) n *= (double)c->y.dims[i] * (i ? (double)c->w.dims[i] : 1);
  return n;
}

void cu_conv_tune(kn_context *ctx, cu_device *d, const cu_conv *c) {
  char key[KN_TUNE_KEY];
  const char *why;
  const double flops = flops_of(c);
  if (kn_context_tuning(ctx) == KN_TUNING_FIXED || cu_captures(ctx, d) || !kn_tune_pays(flops)) return;
  trials t = {.on = {.ctx = kn_context_child(ctx), .d = d}, .c = *c};
  if (!t.on.ctx) return;
  t.c.planned = 1;
  if (cu_device_of(t.on.ctx, &d) == KN_OK && cu_dnn_of(t.on.ctx, d, &t.s, &why) == KN_OK && find_plan(&t)) {
    write_key(t.on.ctx, d, &t.c, key);
    kn_question q = {
        .key = key, .n = WAYS, .flops = flops, .ud = &t, .begin = begin, .trial = try_way, .end = end};
    for (int i = 0; i < WAYS; i++) q.ways[i] = names[i];
    (void)kn_tune(ctx, kn_registry_tuner(ctx), &q);
  }
  kn_context_free(t.on.ctx);
}
