/* The ways of a product, their key, and trials of them on operands of random numbers. */
#include "backends/onednn/choice.h"
#include "backends/onednn/onednn.h"
#include "backends/onednn/trial.h"
#include "backends/registry.h"
#include "core/device.h"
#include "core/parallel.h"
#include "core/tensor.h"
#include "graph/profile.h"
#include <stdio.h>
#include <string.h>

/* One thread is tried for products that are done in a millisecond or two; operands are held twice at most. */
#define MOST_FLOPS_OF_ONE 3e8
enum { MOST_BYTES = 256 << 20, OPERANDS = 3 };

typedef struct way {
  const char *name;
  bool elsewhere, packed;
  int threads;
} way;

typedef struct made { /* a way that oneDNN computes */
  dn_trial run;
  kn_tensor *room[2]; /* a packed matrix, scratch */
} made;

typedef struct trials {
  dn_state *s;
  const dn_library *l;
  kn_context *ctx; /* of the trials: failures are told to nobody */
  const dn_product *m;
  way ways[KN_TUNE_WAYS];
  int n;
  kn_tensor *base[OPERANDS], *view[OPERANDS];
  dnnl_stream_t stream;
  made made[KN_TUNE_WAYS];
} trials;

/* ---- ways and keys ---- */

static double flops_of(const dn_problem *p) {
  const dn_layout *a = &p->arg[0], *c = &p->arg[DN_OUT];
  double n = 2.0 * (double)a->dims[a->rank - 1];
  for (int i = 0; i < c->rank; i++) n *= (double)c->dims[i];
  return n;
}

static void add(trials *t, way w) {
  static const char *const names[2][2] = {{"given", "given/1"}, {"packed", "packed/1"}};
  w.name =
      w.elsewhere ? "elsewhere" : names[w.packed][w.threads == 1 && kn_parallel_library_threads(t->ctx) > 1];
  for (int i = 0; i < t->n; i++)
    if (!strcmp(t->ways[i].name, w.name)) return;
  if (t->n < KN_TUNE_WAYS) t->ways[t->n++] = w;
}

/* That of the fixed rule first. */
static void list_ways(trials *t, const kn_context *ctx, double flops) {
  const dn_product *m = t->m;
  int usual = (int)m->p->threads;
  bool others = dn_offered_elsewhere(ctx, KN_OP_matmul);
  if (others && dn_is_slow(KN_OP_matmul, m->node->attrs, m->in)) add(t, (way){.elsewhere = true});
  const int threads[] = {usual, usual == 1 ? kn_parallel_library_threads(ctx) : 1};
  for (int i = 0; i < 2; i++) {
    if (threads[i] == 1 && usual != 1 && flops > MOST_FLOPS_OF_ONE) break;
    if (m->constant) add(t, (way){.packed = true, .threads = threads[i]});
    add(t, (way){.threads = threads[i]});
  }
  if (others) add(t, (way){.elsewhere = true});
}

static void write_key(char key[KN_TUNE_KEY], const trials *t) {
  const dn_problem *p = t->m->p;
  int at = snprintf(key, KN_TUNE_KEY, "matmul t%d%s", kn_parallel_library_threads(t->ctx),
                    t->m->constant ? " constant" : "");
  static const int order[OPERANDS] = {0, 1, DN_OUT};
  for (int k = 0; k < OPERANDS; k++) {
    const dn_layout *l = &p->arg[order[k]];
    for (int i = 0; i < l->rank && at < KN_TUNE_KEY; i++)
      at += snprintf(key + at, KN_TUNE_KEY - (size_t)at, "%s%lld", i ? "x" : " ", (long long)l->dims[i]);
    for (int i = 0; i < l->rank && k < 2 && at < KN_TUNE_KEY; i++)
      at += snprintf(key + at, KN_TUNE_KEY - (size_t)at, "%s%lld", i ? "," : ":", (long long)l->strides[i]);
  }
}

/* ---- operands ---- */

static int64_t reach_of(const dn_view *v) {
  int64_t reach = 1;
  for (int d = 0; d < v->type->rank; d++) reach += (v->type->dims[d] - 1) * v->strides[d];
  return reach;
}

static bool begin(void *ud) {
  trials *t = ud;
  int64_t strides[KN_MAX_RANK], bytes = 0;
  kn_strides_contiguous(t->m->out, strides);
  const dn_view views[OPERANDS] = {t->m->in[0], t->m->in[1], {t->m->out, strides}};
  for (int i = 0; i < OPERANDS; i++) bytes += reach_of(&views[i]) * (int64_t)sizeof(float);
  if (bytes > MOST_BYTES || t->l->stream_create(&t->stream, dn_state_engine(t->s), dnnl_stream_default_flags))
    return false;
  for (int i = 0; i < OPERANDS; i++) {
    if (dn_trial_floats(t->ctx, reach_of(&views[i]), &t->base[i]) != KN_OK) return false;
    if (kn_tensor_symbolic(t->ctx, views[i].type, NULL, &t->view[i]) != KN_OK) return false;
    kn_tensor_set_view(t->view[i], t->base[i], 0, views[i].strides);
  }
  return true;
}

static void end(void *ud) {
  trials *t = ud;
  for (int i = 0; i < t->n; i++) {
    made *w = &t->made[i];
    dn_trial_free(t->l, &w->run);
    for (int k = 0; k < 2; k++) kn_tensor_release(w->room[k]);
  }
  for (int i = 0; i < OPERANDS; i++) {
    kn_tensor_release(t->view[i]);
    kn_tensor_release(t->base[i]);
  }
  if (t->stream) t->l->stream_destroy(t->stream);
}

/* ---- oneDNN's ways ---- */

static dnnl_status_t layout(const dn_library *l, dn_md *md, const dn_layout *from, bool any) {
  dnnl_dims_t d, s;
  for (int i = 0; i < DNNL_MAX_NDIMS; i++)
    d[i] = i < from->rank ? from->dims[i] : 0, s[i] = i < from->rank ? from->strides[i] : 0;
  return any ? dn_md_any(l, md, (int)from->rank, d) : dn_md_strides(l, md, (int)from->rank, d, s);
}

static dnnl_status_t describe(const trials *t, const way *w, dnnl_primitive_desc_t *pd) {
  const dn_library *l = t->l;
  const dn_problem *p = t->m->p;
  dn_md a = {0}, b = {0}, c = {0};
  dnnl_primitive_attr_t attr = NULL;
  dnnl_status_t s = layout(l, &a, &p->arg[0], false);
  if (!s) s = layout(l, &b, &p->arg[1], w->packed);
  if (!s) s = layout(l, &c, &p->arg[DN_OUT], false);
  if (!s) s = l->primitive_attr_create(&attr);
  if (!s) s = l->primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
  if (!s) s = dn_matmul_create(l, pd, dn_state_engine(t->s), dn_ref(&a), dn_ref(&b), NULL, dn_ref(&c), attr);
  if (attr) l->primitive_attr_destroy(attr);
  dn_md_free(l, &a);
  dn_md_free(l, &b);
  dn_md_free(l, &c);
  return s;
}

static dnnl_status_t bind(const trials *t, made *w, dnnl_primitive_desc_t pd, int arg, void *data, int room) {
  size_t bytes = dn_trial_bytes(t->l, pd, arg);
  if (!data && bytes) {
    if (dn_trial_floats(t->ctx, (int64_t)(bytes / sizeof(float)) + 1, &w->room[room]) != KN_OK)
      return dnnl_out_of_memory;
    data = kn_tensor_data(w->room[room]);
  }
  return dn_trial_bind(t->s, &w->run, pd, arg, data);
}

static bool make(trials *t, int i) {
  const way *w = &t->ways[i];
  made *to = &t->made[i];
  dnnl_primitive_desc_t pd;
  dnnl_status_t s = describe(t, w, &pd);
  if (s) return false;
  s = t->l->primitive_create(&to->run.primitive, pd);
  if (!s) s = bind(t, to, pd, DNNL_ARG_SRC, kn_tensor_data(t->view[0]), 0);
  if (!s) s = bind(t, to, pd, DNNL_ARG_WEIGHTS, w->packed ? NULL : kn_tensor_data(t->view[1]), 0);
  if (!s) s = bind(t, to, pd, DNNL_ARG_DST, kn_tensor_data(t->view[2]), 0);
  if (!s) s = bind(t, to, pd, DNNL_ARG_SCRATCHPAD, NULL, 1);
  t->l->primitive_desc_destroy(pd);
  return !s;
}

/* ---- trials ---- */

static bool try_elsewhere(trials *t, double *seconds) {
  for (int i = 0; i < KN_MAX_PROVIDERS && t->ctx->providers[KN_CPU][i]; i++) {
    const kn_provider *p = t->ctx->providers[KN_CPU][i];
    if (p == &dn_provider || p == &kn_ref_provider || !p->kernel[KN_OP_matmul]) continue;
    double at = kn_profile_clock();
    kn_status st = p->kernel[KN_OP_matmul](t->ctx, t->m->node->attrs, t->view, 2, &t->view[2]);
    *seconds = kn_profile_clock() - at;
    return st == KN_OK;
  }
  return false;
}

static bool try_way(void *ud, int i, double *seconds) {
  trials *t = ud;
  if (t->ways[i].elsewhere) return try_elsewhere(t, seconds);
  int before = dn_threads_set(t->l, t->ways[i].threads);
  dn_trial *w = &t->made[i].run;
  double at = kn_profile_clock();
  bool fine = w->primitive || make(t, i);
  if (w->nargs && fine) {
    at = kn_profile_clock();
    fine = !t->l->primitive_execute(w->primitive, t->stream, w->nargs, w->args);
  }
  *seconds = kn_profile_clock() - at;
  dn_threads_restore(t->l, before);
  return fine;
}

dn_choice dn_choose_product(dn_state *s, kn_context *ctx, const dn_product *m) {
  dn_choice rule = {.packed = m->constant, .threads = (int)m->p->threads};
  double flops = flops_of(m->p);
  if (kn_context_tuning(ctx) == KN_TUNING_FIXED || !kn_tune_pays(flops)) return rule;
  trials t = {.s = s, .l = dn_state_library(s), .ctx = ctx, .m = m};
  list_ways(&t, ctx, flops);
  char key[KN_TUNE_KEY];
  write_key(key, &t);
  kn_question q = {
      .key = key, .n = t.n, .flops = flops, .ud = &t, .begin = begin, .trial = try_way, .end = end};
  for (int i = 0; i < t.n; i++) {
    q.ways[i] = t.ways[i].name;
    if (t.ways[i].packed) q.keeps[i] = (size_t)kn_type_numel(m->in[1].type) * sizeof(float);
    q.light[i] = m->constant && !t.ways[i].packed && !t.ways[i].elsewhere; /* that folds nothing in */
  }
  t.ctx = kn_context_child(ctx);
  if (!t.ctx) return rule;
  int best = kn_tune(ctx, kn_registry_tuner(ctx), &q);
  kn_context_free(t.ctx);
  if (best < 0) return rule;
  return (dn_choice){.measured = true,
                     .elsewhere = t.ways[best].elsewhere,
                     .packed = t.ways[best].packed,
                     .threads = t.ways[best].threads};
}
