/* Which folds are kept: each is made beside what it would replace, in a copy of the graph, and one run over
 * the samples tells how far the two are apart. Then as many as the results allow, those that cost least
 * first. See optimize.h. */
#include "graph/copy.h"
#include "graph/folding.h"
#include "graph/internal.h"
#include "graph/measure.h"
#include "graph/optimize_inside.h"
#include "graph/text.h"
#include <math.h>
#include <string.h>

typedef struct pair { /* made beside each other */
  kn_value *from, *to;
  uint32_t fold;
} pair;

typedef struct chooser {
  kn_context *ctx;
  const kn_optimize *o;
  const kn_samples *s;
  const kn_folding *folding;
  kn_optimize_report *r;
  kn_fold_note *notes; /* of this folding, one for each fold */
  uint32_t n;
  double *share; /* of the budget, by fold; negative: not measured */
  bool *keep;
  kn_graph *beside; /* that was measured; NULL */
  pair *pairs;      /* of it, in its arena */
  uint32_t npairs;
  const pair **of; /* by id of `to` */
  uint32_t ids;
  kn_status failed; /* of the observer */
} chooser;

/* ---- each for itself ---- */

static const pair *pair_of(const chooser *c, const kn_node *n) {
  return n->nout && n->out[0]->id < c->ids ? c->of[n->out[0]->id] : NULL;
}

static void look(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars) {
  chooser *c = ud;
  const pair *p = pair_of(c, n);
  (void)scalars;
  if (!p || c->failed != KN_OK) return;
  kn_tensor *want = vals[p->from->id], *got = vals[p->to->id];
  double error;
  if (!want || !got) return;
  c->failed = kn_measure_tensors(c->ctx, c->o->budget.ulps, got, want, &error);
  if (c->failed != KN_OK) return;
  double limit = kn_measure_limit(&c->o->budget, kn_tensor_dtype(want));
  double share = error == 0 ? 0 : limit > 0 ? error / limit : INFINITY;
  c->notes[p->fold].error = fmax(c->notes[p->fold].error, error);
  c->share[p->fold] = fmax(c->share[p->fold], share);
}

static kn_status note(chooser *c, const kn_fold *list, uint32_t n) {
  kn_optimize_report *r = c->r;
  kn_fold_note *all = kn_arena_alloc(&r->arena, (r->nfolds + n + 1u) * sizeof *all);
  c->share = kn_arena_alloc(&r->arena, (n + 1u) * sizeof *c->share);
  c->keep = kn_arena_alloc(&r->arena, n + 1u);
  if (!all || !c->share || !c->keep) return kn_fail_nomem(c->ctx, n * sizeof *all);
  if (r->nfolds) memcpy(all, r->folds, r->nfolds * sizeof *all);
  c->notes = all + r->nfolds;
  c->n = n;
  for (uint32_t i = 0; i < n; i++) {
    char buf[512];
    const kn_where *w = list[i].node->where;
    c->notes[i] = (kn_fold_note){.fold = c->folding->pass.name,
                                 .what = kn_report_text(r, list[i].what),
                                 .where = w ? kn_report_text(r, kn_where_brief(w, buf, sizeof buf)) : NULL,
                                 .of = kn_report_text(r, list[i].of),
                                 .why = list[i].never ? kn_report_text(r, list[i].never) : NULL,
                                 .error = -1};
    c->share[i] = -1;
    c->keep[i] = !list[i].never;
  }
  r->folds = all;
  r->nfolds += n;
  return KN_OK;
}

static bool make_beside(chooser *c, kn_builder *b, kn_known *k, const kn_fold *list) {
  for (uint32_t i = 0; i < c->n; i++) {
    if (list[i].never) continue;
    kn_value **to = kn_build_alloc(b, list[i].n * sizeof *to);
    if (!to || !c->folding->make(b, k, &list[i], to)) return false;
    for (uint32_t v = 0; v < list[i].n; v++) {
      pair p = {list[i].from[v], to[v], i};
      if (!kn_build_push(b, &c->pairs, &c->npairs, &p, sizeof p)) return false;
    }
  }
  return b->status == KN_OK;
}

static kn_status run_beside(chooser *c, kn_graph *g) {
  kn_rvalue *out = kn_calloc(c->ctx->heap, c->s->nout + 1u, sizeof *out);
  c->ids = g->nvalues + 1;
  c->of = kn_calloc(c->ctx->heap, c->ids, sizeof *c->of);
  kn_status st = out && c->of ? KN_OK : kn_fail_nomem(c->ctx, c->ids * sizeof *c->of);
  for (uint32_t i = 0; st == KN_OK && i < c->npairs; i++) c->of[c->pairs[i].to->id] = &c->pairs[i];
  for (uint32_t i = 0; st == KN_OK && i < c->s->n; i++) {
    st = kn_measure_run(c->ctx, c->o, g, NULL, c->s->in[i], c->s->smaller, look, c, out);
    kn_measure_release(out, c->s->nout);
    if (st == KN_OK) st = c->failed;
  }
  kn_free(c->ctx->heap, out, (c->s->nout + 1u) * sizeof *out);
  kn_free(c->ctx->heap, c->of, c->ids * sizeof *c->of);
  c->of = NULL;
  return st;
}

/* Finds the folds of a copy, notes them, and measures each where there are samples. */
static kn_status measure_each(chooser *c, const kn_graph *g) {
  kn_builder b;
  kn_graph *beside;
  kn_known k = {0};
  kn_fold *list = NULL;
  uint32_t n = 0;
  KN_TRY(kn_graph_copy(c->ctx, g, &b, &beside));
  kn_status st = kn_known_begin(c->ctx, beside, &k);
  if (st == KN_OK) st = kn_known_region(&k, beside->body);
  if (st == KN_OK) st = c->folding->find(&b, &k, &list, &n);
  if (st == KN_OK) st = note(c, list, n);
  bool runs = st == KN_OK && n && c->s->n;
  if (runs && !make_beside(c, &b, &k, list)) st = b.status;
  kn_known_end(&k);
  if (runs && st == KN_OK) st = kn_graph_finish(&b);
  if (runs && st == KN_OK) st = run_beside(c, beside);
  if (runs && st == KN_OK)
    c->beside = beside;
  else
    kn_graph_release(beside);
  return st;
}

/* ---- all together ---- */

/* All that were measured: they have been made already. */
static kn_status copy_beside(chooser *c, kn_builder *b, kn_graph **made) {
  const size_t bytes = 2 * (c->npairs + 1u) * sizeof(kn_value *);
  kn_value **list = kn_alloc(c->ctx->heap, bytes);
  if (!list) return kn_fail_nomem(c->ctx, bytes);
  for (uint32_t i = 0; i < c->npairs; i++) list[2 * i] = c->pairs[i].from, list[2 * i + 1] = c->pairs[i].to;
  kn_status st = kn_graph_copy_tell(c->ctx, c->beside, b, list, 2 * c->npairs, made);
  for (uint32_t i = 0; i < c->npairs && st == KN_OK; i++)
    kn_fold_replace(*made, list[2 * i], list[2 * i + 1]);
  kn_free(c->ctx->heap, list, bytes);
  return st;
}

static kn_status copy_and_fold(chooser *c, const kn_graph *g, kn_builder *b, kn_graph **made) {
  uint32_t changes = 0;
  KN_TRY(kn_graph_copy(c->ctx, g, b, made));
  kn_status st = kn_folding_run(b, c->folding, c->keep, &changes);
  if (st != KN_OK) kn_graph_release(*made);
  return st;
}

static bool keeps_all(const chooser *c) {
  bool all = true;
  for (uint32_t i = 0; i < c->npairs; i++) all &= c->keep[c->pairs[i].fold];
  return all;
}

/* The graph with the folds that are kept. */
static kn_status make_kept(chooser *c, const kn_graph *g, kn_graph **out) {
  kn_builder b;
  kn_graph *made;
  KN_TRY(c->beside && keeps_all(c) ? copy_beside(c, &b, &made) : copy_and_fold(c, g, &b, &made));
  kn_status st = kn_pipeline_run(&b, KN_PIPELINE_FREEZE);
  if (st == KN_OK) st = kn_graph_finish(&b);
  if (st == KN_OK)
    *out = made;
  else
    kn_graph_release(made);
  return st;
}

/* Their number-th of those that may be kept, cheapest first, is the last one that is. */
static void keep_cheapest(chooser *c, const uint32_t *order, uint32_t may, uint32_t number) {
  for (uint32_t i = 0; i < may; i++) c->keep[order[i]] = i < number;
}

static uint32_t sort_by_share(const chooser *c, uint32_t *order) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < c->n; i++) {
    if (!c->keep[i]) continue;
    uint32_t at = n++;
    while (at && c->share[order[at - 1]] > c->share[i]) order[at] = order[at - 1], at--;
    order[at] = i;
  }
  return n;
}

static void leave_out(chooser *c, uint32_t i, const char *why) {
  c->keep[i] = false;
  c->r->doubt = true;
  c->notes[i].why = why;
}

static kn_status try_number(chooser *c, const kn_graph *g, const uint32_t *order, uint32_t may,
                            uint32_t number, bool *fits, double *off, kn_graph **made) {
  double share = 0, error = -1;
  keep_cheapest(c, order, may, number);
  KN_TRY(make_kept(c, g, made));
  kn_status st = c->s->n ? kn_samples_measure(c->ctx, c->o, c->s, *made, &share, &error) : KN_OK;
  if (st != KN_OK) kn_graph_release(*made);
  *fits = share <= 1;
  *off = error;
  return st;
}

/* As many as fit, found by halving: errors add up, more or less. */
static kn_status keep_most(chooser *c, const kn_graph *g, kn_graph **out) {
  uint32_t *order = kn_arena_alloc(&c->r->arena, (c->n + 1u) * sizeof *order);
  if (!order) return kn_fail_nomem(c->ctx, c->n * sizeof *order);
  uint32_t may = sort_by_share(c, order), fine = 0, high = may, number = may;
  kn_graph *best = NULL;
  while (number) {
    kn_graph *made;
    bool fits;
    double off;
    kn_status st = try_number(c, g, order, may, number, &fits, &off, &made);
    if (st != KN_OK) {
      kn_graph_release(best);
      return st;
    }
    kn_graph_release(fits ? best : made);
    if (fits)
      best = made, fine = number, c->r->error = off;
    else
      high = number - 1;
    if (fine >= high) break;
    number = fine + (high - fine + 1) / 2;
  }
  keep_cheapest(c, order, may, fine);
  for (uint32_t i = fine; i < may; i++)
    leave_out(c, order[i], "the results would be over the tolerance with it, after those that cost less");
  *out = best;
  return KN_OK;
}

static kn_status choose(chooser *c, kn_graph **g) {
  kn_graph *made = NULL;
  for (uint32_t i = 0; i < c->n; i++) {
    if (c->share[i] > 1) leave_out(c, i, "over the tolerance");
    if (c->notes[i].why == NULL && c->share[i] < 0) c->r->doubt = true;
    if (c->keep[i] && c->s->n && c->share[i] < 0) c->notes[i].why = "the samples do not come there";
  }
  KN_TRY(keep_most(c, *g, &made));
  for (uint32_t i = 0; i < c->n; i++) c->notes[i].kept = c->keep[i];
  if (!made) return KN_OK;
  kn_graph_release(*g);
  *g = made;
  return KN_OK;
}

static kn_status fold_all(chooser *c, kn_graph **g) {
  KN_TRY(measure_each(c, *g));
  kn_status st = c->n ? choose(c, g) : KN_OK;
  kn_graph_release(c->beside);
  return st;
}

kn_status kn_optimize_folds(kn_context *ctx, const kn_optimize *o, const kn_samples *s, kn_optimize_report *r,
                            kn_graph **g) {
  const kn_folding *folding;
  for (uint32_t i = 0; (folding = kn_pipeline_folding(i)); i++) {
    chooser c = {.ctx = ctx, .o = o, .s = s, .folding = folding, .r = r};
    KN_TRY(fold_all(&c, g));
  }
  return KN_OK;
}
