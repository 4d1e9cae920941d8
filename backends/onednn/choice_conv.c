/* The ways of a convolution and trials of them: its image brought into the layout that the way wants, the
 * convolution with all that is folded into it, and its result brought into the layout that the fixed rule's
 * way leaves, for those who read it. */
#include "backends/onednn/choice.h"
#include "backends/onednn/trial.h"
#include "backends/registry.h"
#include "core/tensor.h"
#include "graph/profile.h"
#include <string.h>

/* One thread is tried for what is done in a millisecond or two, as for products. Trials of what takes ten
 * would use up all that a plan may measure. */
#define MOST_FLOPS_OF_ONE 3e8
#define MOST_FLOPS 1e9
enum { MOST_BYTES = 256 << 20, MOST_ARGS = DN_STEP_ARGS };

/* In oneDNN's own order: the implementations that take the image as it lies, and those that do when all
 * layouts are free. */
static const dn_conv_way ways[] = {
    {.name = "given"},
    {.name = "free", .free = true},
    {.name = "given 2", .nth = 1},
    {.name = "free 2", .free = true, .nth = 1},
};
enum { ROWS = sizeof ways / sizeof *ways };

typedef struct tried {
  dn_conv_way way;
  dnnl_primitive_desc_t pd; /* NULL: there is no such way */
  dn_trial in, conv, out;
  bool made;
} tried;

typedef struct trials {
  dn_state *s;
  const dn_library *l;
  kn_context *ctx; /* of the trials: failures are told to nobody */
  const dn_conv *c;
  tried all[KN_TUNE_WAYS];
  int n;
  int arg[MOST_ARGS], nargs; /* of the convolution */
  kn_tensor *data[MOST_ARGS], *image, *result;
  dnnl_stream_t stream;
} trials;

/* ---- what there is ---- */

static void add(trials *t, dn_conv_way w, const char *name, int threads) {
  w.name = name, w.threads = threads;
  for (int i = 0; i < t->n; i++)
    if (!strcmp(t->all[i].way.name, name)) return;
  if (t->n < KN_TUNE_WAYS) t->all[t->n++].way = w;
}

/* That of the fixed rule first. */
static void list_ways(trials *t, dn_conv_way rule, double flops) {
  add(t, rule, ways[rule.free].name, rule.threads);
  if (rule.threads > 1 && flops <= MOST_FLOPS_OF_ONE) add(t, rule, rule.free ? "free/1" : "given/1", 1);
  for (int i = 0; i < ROWS; i++) add(t, ways[i], ways[i].name, rule.threads);
}

static dn_md_ref md_of(const trials *t, int i, int arg) {
  return t->l->primitive_desc_query_md(t->all[i].pd, dnnl_query_exec_arg_md, arg);
}

static const char *impl_of(const trials *t, int i) {
  const char *impl = NULL;
  t->l->primitive_desc_query(t->all[i].pd, dnnl_query_impl_info_str, 0, &impl);
  return impl ? impl : "";
}

static bool is_there(const trials *t, int i) {
  for (int k = 0; k < i; k++)
    if (t->all[k].pd && t->all[k].way.threads == t->all[i].way.threads &&
        !strcmp(impl_of(t, k), impl_of(t, i)) &&
        t->l->memory_desc_equal(md_of(t, k, DNNL_ARG_SRC), md_of(t, i, DNNL_ARG_SRC)))
      return true;
  return false;
}

static void drop(trials *t, int i) {
  if (t->all[i].pd) t->l->primitive_desc_destroy(t->all[i].pd);
  t->all[i].pd = NULL;
}

static void describe(trials *t, int i) {
  tried *w = &t->all[i];
  int before = dn_threads_set(t->l, w->way.threads);
  if (t->c->describe(t->c->ud, &w->way, &w->pd)) w->pd = NULL;
  dn_threads_restore(t->l, before);
  if (w->pd && is_there(t, i)) drop(t, i);
}

/* ---- operands ---- */

static bool hold(trials *t, size_t bytes, kn_tensor **out, size_t *sum) {
  *sum += bytes;
  return *sum <= MOST_BYTES && dn_trial_floats(t->ctx, (int64_t)(bytes / sizeof(float)) + 1, out) == KN_OK;
}

/* Each as large as any way wants it. */
static bool begin(void *ud) {
  trials *t = ud;
  size_t sum = 0;
  if (t->l->stream_create(&t->stream, dn_state_engine(t->s), dnnl_stream_default_flags)) return false;
  for (int i = 0; i < t->n; i++) describe(t, i);
  if (!t->all[0].pd || !hold(t, t->l->memory_desc_get_size(t->c->image), &t->image, &sum) ||
      !hold(t, dn_trial_bytes(t->l, t->all[0].pd, DNNL_ARG_DST), &t->result, &sum))
    return false;
  for (int k = 0; k < t->nargs; k++) {
    size_t most = 0;
    for (int i = 0; i < t->n; i++) {
      size_t bytes = t->all[i].pd ? dn_trial_bytes(t->l, t->all[i].pd, t->arg[k]) : 0;
      if (bytes > most) most = bytes;
    }
    if (!hold(t, most, &t->data[k], &sum)) return false;
  }
  return true;
}

static void end(void *ud) {
  trials *t = ud;
  for (int i = 0; i < t->n; i++) {
    dn_trial *all[] = {&t->all[i].in, &t->all[i].conv, &t->all[i].out};
    for (int k = 0; k < 3; k++) dn_trial_free(t->l, all[k]);
    drop(t, i);
  }
  for (int k = 0; k < t->nargs; k++) kn_tensor_release(t->data[k]);
  kn_tensor_release(t->image);
  kn_tensor_release(t->result);
  if (t->stream) t->l->stream_destroy(t->stream);
}

/* ---- trials ---- */

static dnnl_status_t make_reorder(trials *t, dn_trial *r, dn_md_ref from, dn_md_ref to, kn_tensor *x,
                                  kn_tensor *y) {
  dnnl_primitive_desc_t pd;
  if (t->l->memory_desc_equal(from, to)) return dnnl_success;
  dnnl_engine_t e = dn_state_engine(t->s);
  dnnl_status_t s = t->l->reorder_primitive_desc_create(&pd, from, e, to, e, NULL);
  if (s) return s;
  s = t->l->primitive_create(&r->primitive, pd);
  if (!s) s = dn_trial_bind(t->s, r, pd, DNNL_ARG_FROM, kn_tensor_data(x));
  if (!s) s = dn_trial_bind(t->s, r, pd, DNNL_ARG_TO, kn_tensor_data(y));
  t->l->primitive_desc_destroy(pd);
  return s;
}

static kn_tensor *data_of(const trials *t, int arg) {
  int k = 0;
  while (t->arg[k] != arg) k++;
  return t->data[k];
}

static dnnl_status_t make(trials *t, int i) {
  tried *w = &t->all[i];
  dnnl_status_t s = t->l->primitive_create(&w->conv.primitive, w->pd);
  for (int k = 0; k < t->nargs && !s; k++)
    s = dn_trial_bind(t->s, &w->conv, w->pd, t->arg[k], kn_tensor_data(t->data[k]));
  if (!s)
    s = make_reorder(t, &w->in, t->c->image, md_of(t, i, DNNL_ARG_SRC), t->image, data_of(t, DNNL_ARG_SRC));
  if (!s)
    s = make_reorder(t, &w->out, md_of(t, i, DNNL_ARG_DST), md_of(t, 0, DNNL_ARG_DST),
                     data_of(t, DNNL_ARG_DST), t->result);
  w->made = true;
  return s;
}

static bool try_way(void *ud, int i, double *seconds) {
  trials *t = ud;
  tried *w = &t->all[i];
  if (!w->pd) return false;
  int before = dn_threads_set(t->l, w->way.threads);
  double at = kn_profile_clock();
  bool again = w->made, fine = again || !make(t, i); /* the first trial is not counted, but what it took is */
  dn_trial *all[] = {&w->in, &w->conv, &w->out};
  if (again) at = kn_profile_clock();
  for (int k = 0; k < 3 && fine; k++)
    if (all[k]->primitive)
      fine = !t->l->primitive_execute(all[k]->primitive, t->stream, all[k]->nargs, all[k]->args);
  *seconds = kn_profile_clock() - at;
  dn_threads_restore(t->l, before);
  return fine;
}

bool dn_choose_conv(dn_state *s, kn_context *ctx, const dn_conv *c, dn_conv_way *way) {
  if (kn_context_tuning(ctx) == KN_TUNING_FIXED || !kn_tune_pays(c->flops) || c->flops > MOST_FLOPS)
    return false;
  static const int usual[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS,
                              DNNL_ARG_SCRATCHPAD};
  trials t = {.s = s, .l = dn_state_library(s), .c = c};
  for (size_t k = 0; k < sizeof usual / sizeof *usual; k++) t.arg[t.nargs++] = usual[k];
  for (int i = 0; i < DN_MAX_POSTS; i++)
    if (c->reads[i]) t.arg[t.nargs++] = DNNL_ARG_ATTR_MULTIPLE_POST_OP(i) | DNNL_ARG_SRC_1;
  list_ways(&t, *way, c->flops);
  kn_question q = {
      .key = c->key, .n = t.n, .flops = c->flops, .ud = &t, .begin = begin, .trial = try_way, .end = end};
  for (int i = 0; i < t.n; i++) q.ways[i] = t.all[i].way.name;
  t.ctx = kn_context_child(ctx);
  if (!t.ctx) return false;
  int best = kn_tune(ctx, kn_registry_tuner(ctx), &q);
  kn_context_free(t.ctx);
  if (best < 0) return false;
  *way = t.all[best].way;
  return true;
}
