/* From a graph to its frozen copy: see optimize.h. */
#include "graph/copy.h"
#include "graph/internal.h"
#include "graph/measure.h"
#include "graph/optimize_inside.h"
#include "graph/passes/freeze.h"
#include "graph/text.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *kn_report_text(kn_optimize_report *r, const char *s) { return kn_arena_strdup(&r->arena, s); }

void kn_optimize_report_free(kn_optimize_report *r) { kn_arena_free(&r->arena); }

/* ---- what stays ---- */

/* "net.fc" keeps "net.fc.weight" and "net.fc[1]" too. */
static bool is_named(const char *slot, const char *name) {
  size_t n = strlen(name);
  return !strncmp(slot, name, n) && (!slot[n] || slot[n] == '.' || slot[n] == '[');
}

static kn_status unknown_name(kn_context *ctx, const kn_graph *g, const char *name) {
  char known[600] = "";
  size_t at = 0, most = sizeof known - 16;
  for (uint32_t i = 0; i < g->nslots && at < most; i++) {
    if (g->slots[i]->kind == KN_SLOT_CONST) continue;
    int n = snprintf(known + at, most - at, "%s%s", at ? ", " : "", g->slots[i]->name);
    if ((size_t)n >= most - at) {
      snprintf(known + at, sizeof known - at, "%s…", at ? ", " : "");
      break;
    }
    at += (size_t)n;
  }
  return kn_fail(ctx, KN_ARG, "preserve: there is no parameter '%s' in graph %s; there %s%s", name, g->name,
                 *known ? "are " : "is none", known);
}

static bool is_preserved(const kn_optimize *o, const kn_slot *s) {
  bool named = false;
  for (uint32_t k = 0; k < o->npreserve && s->kind != KN_SLOT_CONST; k++)
    named |= is_named(s->name, o->preserve[k]);
  return named;
}

static kn_status check_names(kn_context *ctx, const kn_optimize *o, const kn_graph *g) {
  for (uint32_t k = 0; k < o->npreserve; k++) {
    bool met = false;
    for (uint32_t i = 0; i < g->nslots; i++)
      met |= g->slots[i]->kind != KN_SLOT_CONST && is_named(g->slots[i]->name, o->preserve[k]);
    if (!met) return unknown_name(ctx, g, o->preserve[k]);
  }
  return KN_OK;
}

/* ---- values ---- */

static kn_status take_values(kn_builder *b, kn_session *s) {
  kn_graph *g = b->graph;
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_rvalue v = {0};
    kn_status st = kn_session_get_slot(s, i, &v);
    if (st == KN_STATE) continue; /* a text without its data: said where it is needed */
    if (st != KN_OK) return kn_fail(b->ctx, st, "%s", kn_error(kn_session_context(s)));
    if (g->slots[i]->type.kind == KN_V_TENSOR) {
      kn_tensor_release(g->slots[i]->tensor);
      g->slots[i]->tensor = v.tensor;
    } else
      g->slots[i]->scalar = v.scalar;
  }
  return KN_OK;
}

/* Is it memory that somebody outside may write to? */
static bool is_live(const kn_optimize *o, const kn_tensor *t) {
  const kn_graph *g = kn_session_graph(o->session);
  bool live = false;
  for (uint32_t i = 0; i < g->nslots && !live; i++) {
    kn_rvalue v = {0};
    if (g->slots[i]->kind == KN_SLOT_CONST || g->slots[i]->type.kind != KN_V_TENSOR ||
        kn_session_get_slot(o->session, i, &v) != KN_OK)
      continue;
    live = v.tensor && v.tensor->storage == t->storage;
    kn_tensor_release(v.tensor);
  }
  return live;
}

/* Constants and state get memory of their own; what is preserved stays the very tensor. */
static kn_status own_values(kn_context *ctx, kn_graph *g, const kn_optimize *o) {
  bool grad = ctx->grad_enabled;
  kn_status st = KN_OK;
  ctx->grad_enabled = false;
  for (uint32_t i = 0; i < g->nslots && st == KN_OK; i++) {
    kn_slot *s = g->slots[i];
    if (!s->tensor || is_preserved(o, s) || !is_live(o, s->tensor)) continue;
    kn_tensor *own;
    st = kn_apply(ctx, KN_OP_clone, NULL, &s->tensor, 1, &own);
    if (st != KN_OK) break;
    kn_tensor_release(s->tensor);
    s->tensor = own;
  }
  ctx->grad_enabled = grad;
  return st;
}

/* ---- the report ---- */

static void count(const kn_graph *g, int side, kn_optimize_report *r) {
  r->nodes[side] = g->nnodes;
  r->bytes[side] = 0;
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g->slots[i]->type.kind == KN_V_TENSOR)
      r->bytes[side] += (uint64_t)kn_type_numel(&g->slots[i]->type.tensor) *
                        kn_dtype_size((kn_dtype)g->slots[i]->type.tensor.dtype);
}

static const char *hint_of(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (kn_opcode_is_op(n->op) && kn_ops[n->op].op_class == KN_CLASS_RANDOM)
      return "the graph draws random numbers: if that is dropout, it was captured in training mode; capture "
             "after net:eval()";
    for (int i = 0; i < n->nregions; i++) {
      const char *hint = hint_of(n->regions[i]);
      if (hint) return hint;
    }
    if (n->op == KN_NODE_store_state && n->where && strstr(n->where->chunk, "batch_norm"))
      return "batch_norm updates its running values: the graph was captured in training mode; capture after "
             "net:eval()";
  }
  return NULL;
}

static const char *place_text(kn_optimize_report *r, const kn_where *w) {
  char buf[512];
  return w ? kn_report_text(r, kn_where_brief(w, buf, sizeof buf)) : NULL;
}

static kn_status note_guards(kn_context *ctx, const kn_graph *g, uint32_t n, kn_optimize_report *r) {
  r->guards = kn_arena_alloc(&r->arena, (n + 1u) * sizeof *r->guards);
  r->places = kn_arena_alloc(&r->arena, (n + 1u) * sizeof *r->places);
  if (!r->guards || !r->places) return kn_fail_nomem(ctx, n * sizeof *r->guards);
  for (uint32_t i = 0; i < n; i++) {
    const kn_guard *from = &g->guards[g->nguards + i];
    r->guards[i] = (kn_guard){kn_report_text(r, from->kind), kn_report_text(r, from->name),
                              kn_report_text(r, from->value), NULL};
    r->places[i] = place_text(r, from->where);
    if (!r->guards[i].kind || !r->guards[i].name || !r->guards[i].value) return kn_fail_nomem(ctx, 0);
  }
  r->nguards = n;
  return KN_OK;
}

static bool is_still_there(const kn_graph *g, const char *name) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g->slots[i]->kind != KN_SLOT_CONST && !strcmp(g->slots[i]->name, name)) return true;
  return false;
}

/* Which of the slots became constants, and which are still there. */
static kn_status note_slots(kn_context *ctx, const kn_graph *g, const kn_graph *now, kn_optimize_report *r) {
  r->frozen = kn_arena_alloc(&r->arena, (g->nslots + 1u) * sizeof *r->frozen);
  r->stay = kn_arena_alloc(&r->arena, (g->nslots + 1u) * sizeof *r->stay);
  if (!r->frozen || !r->stay) return kn_fail_nomem(ctx, g->nslots * sizeof *r->frozen);
  for (uint32_t i = 0; i < g->nslots; i++) {
    if (g->slots[i]->kind == KN_SLOT_CONST) continue;
    const char *name = kn_report_text(r, g->slots[i]->name);
    if (!name) return kn_fail_nomem(ctx, 0);
    *(is_still_there(now, name) ? &r->stay[r->nstay++] : &r->frozen[r->nfrozen++]) = name;
  }
  return KN_OK;
}

/* ---- samples ---- */

static void samples_free(kn_context *ctx, kn_samples *s) {
  for (uint32_t i = 0; s->want && i < s->room; i++) {
    if (!s->want[i]) continue;
    kn_measure_release(s->want[i], s->nout);
    kn_free(ctx->heap, s->want[i], (s->nout + 1u) * sizeof **s->want);
  }
  if (s->own) kn_measure_release(s->own, s->nin);
  kn_free(ctx->heap, s->own, (s->nin + 1u) * sizeof *s->own);
  kn_free(ctx->heap, s->want, s->room * sizeof *s->want);
  kn_free(ctx->heap, s->in, s->room * sizeof *s->in);
}

/* What the graph as it was gives. Its failure is the caller's where the samples are his. */
static kn_status run_samples(kn_context *ctx, const kn_optimize *o, kn_samples *s) {
  kn_graph *g = kn_session_graph(o->session);
  for (uint32_t i = 0; i < s->n; i++) {
    kn_rvalue *want = kn_calloc(ctx->heap, s->nout + 1u, sizeof *want);
    if (!want) return kn_fail_nomem(ctx, s->nout * sizeof *want);
    kn_status st = kn_measure_run(ctx, o, g, o->session, s->in[i], s->smaller, NULL, NULL, want);
    if (st != KN_OK) {
      kn_free(ctx->heap, want, (s->nout + 1u) * sizeof *want);
      return st;
    }
    s->want[i] = want;
  }
  return KN_OK;
}

static kn_status invent(kn_context *ctx, const kn_optimize *o, kn_samples *s, kn_optimize_report *r) {
  kn_status st = KN_OK;
  const char *why;
  s->own = kn_calloc(ctx->heap, s->nin + 1u, sizeof *s->own);
  if (!s->own) return kn_fail_nomem(ctx, s->nin * sizeof *s->own);
  for (int attempt = s->smaller ? 0 : KN_MEASURE_SMALLER;
       kn_measure_invent(ctx, kn_session_graph(o->session), &attempt, s->own, &why, &st); attempt++) {
    s->smaller = attempt < KN_MEASURE_SMALLER;
    s->in[0] = s->own;
    s->n = 1;
    st = run_samples(ctx, o, s);
    if (st == KN_OK) {
      r->unmeasured = NULL;
      return KN_OK;
    }
    kn_measure_release(s->own, s->nin);
    s->n = 0;
    if (st == KN_NOMEM) return st;
    char text[300];
    snprintf(text, sizeof text, "random inputs do not fit it (%.240s)", kn_error(ctx));
    r->unmeasured = kn_report_text(r, text);
  }
  if (why && !r->unmeasured) r->unmeasured = why;
  return st == KN_NOMEM ? st : KN_OK;
}

static kn_status samples_make(kn_context *ctx, const kn_optimize *o, kn_samples *s, kn_optimize_report *r) {
  const kn_graph *g = kn_session_graph(o->session);
  bool smaller = s->smaller && !o->nsamples;
  *s = (kn_samples){
      .nin = g->body->nparams, .nout = g->body->nyields, .room = o->nsamples + 1, .smaller = smaller};
  if (!o->nsamples && !o->invent) {
    r->unmeasured = "there are no samples";
    return KN_OK;
  }
  if (kn_graph_host(g, 0)) {
    r->unmeasured = "it calls functions of the host";
    return KN_OK;
  }
  s->in = kn_calloc(ctx->heap, s->room, sizeof *s->in);
  s->want = kn_calloc(ctx->heap, s->room, sizeof *s->want);
  if (!s->in || !s->want) return kn_fail_nomem(ctx, s->room * sizeof *s->want);
  s->n = o->nsamples;
  for (uint32_t i = 0; i < s->n; i++) s->in[i] = o->samples[i];
  kn_status st = s->n ? run_samples(ctx, o, s) : invent(ctx, o, s, r);
  r->samples = s->n;
  r->invented = !o->nsamples && s->n;
  r->smaller = r->invented && s->smaller;
  return st;
}

kn_status kn_samples_measure(kn_context *ctx, const kn_optimize *o, const kn_samples *s, kn_graph *g,
                             double *share, double *error) {
  *share = *error = 0;
  kn_rvalue *got = kn_calloc(ctx->heap, s->nout + 1u, sizeof *got);
  kn_status st = got ? KN_OK : kn_fail_nomem(ctx, s->nout * sizeof *got);
  for (uint32_t i = 0; i < s->n && st == KN_OK; i++) {
    st = kn_measure_run(ctx, o, g, NULL, s->in[i], s->smaller, NULL, NULL, got);
    if (st == KN_OK) st = kn_measure_outputs(ctx, &o->budget, got, s->want[i], s->nout, share, error);
    kn_measure_release(got, s->nout);
  }
  kn_free(ctx->heap, got, (s->nout + 1u) * sizeof *got);
  return st;
}

/* ---- all of it ---- */

/* Until no more slots become constants: what wrote to one may go as others are known. */
static kn_status freeze_all(const kn_optimize *o, kn_builder *b) {
  for (uint32_t frozen = 1; frozen;) {
    kn_graph *g = b->graph;
    bool *keep = kn_build_alloc(b, g->nslots + 1u);
    if (!keep) return b->status;
    for (uint32_t i = 0; i < g->nslots; i++) keep[i] = is_preserved(o, g->slots[i]);
    KN_TRY(kn_freeze_slots(b, keep, &frozen));
    KN_TRY(kn_pipeline_run(b, KN_PIPELINE_FREEZE));
  }
  return KN_OK;
}

static kn_status freeze(kn_context *ctx, const kn_optimize *o, kn_builder *b, kn_optimize_report *r) {
  const kn_graph *g = kn_session_graph(o->session);
  uint32_t dropped;
  KN_TRY(take_values(b, o->session));
  KN_TRY(check_names(ctx, o, g));
  KN_TRY(freeze_all(o, b));
  KN_TRY(note_slots(ctx, g, b->graph, r));
  kn_freeze_guards(b->graph, &dropped);
  KN_TRY(note_guards(ctx, b->graph, dropped, r));
  return kn_graph_finish(b);
}

static kn_status optimize(kn_context *ctx, const kn_optimize *o, kn_samples *s, kn_optimize_report *r,
                          kn_graph **out) {
  const kn_graph *g = kn_session_graph(o->session);
  kn_builder b;
  kn_graph *made;
  double share = 0;
  count(g, 0, r);
  r->hint = hint_of(g->body);
  KN_TRY(samples_make(ctx, o, s, r));
  KN_TRY(kn_graph_copy(ctx, g, &b, &made));
  kn_status st = freeze(ctx, o, &b, r);
  if (st != KN_OK) {
    kn_graph_release(made);
    return st;
  }
  if (o->level >= KN_PIPELINE_INFERENCE) st = kn_optimize_folds(ctx, o, s, r, &made);
  if (st == KN_OK && s->n && r->error < 0) st = kn_samples_measure(ctx, o, s, made, &share, &r->error);
  r->over = share > 1;
  if (st == KN_OK) st = own_values(ctx, made, o); /* last: most of what was folded is gone */
  count(made, 1, r);
  if (st == KN_OK)
    *out = made;
  else
    kn_graph_release(made);
  return st;
}

/* What a sample of smaller sizes has not met, or has spoken against, is to be seen on one of the right sizes;
 * so is a graph that does not take it any more, since freezing decides by the sizes that the graph says. */
static bool is_open(const kn_optimize_report *r) {
  return r->smaller && (r->doubt || !(r->error >= 0 && isfinite(r->error)));
}

static kn_status attempt(kn_context *ctx, const kn_optimize *o, bool smaller, kn_optimize_report *r,
                         kn_graph **out) {
  kn_samples s = {.smaller = smaller};
  *r = (kn_optimize_report){.error = -1, .budget = o->budget};
  kn_arena_init(&r->arena, ctx->heap);
  r->graph = kn_report_text(r, kn_session_graph(o->session)->name);
  kn_status st = r->graph ? optimize(ctx, o, &s, r, out) : kn_fail_nomem(ctx, 0);
  samples_free(ctx, &s);
  if (st != KN_OK) kn_optimize_report_free(r);
  return st;
}

kn_status kn_optimize_graph(kn_context *ctx, const kn_optimize *o, kn_optimize_report *r, kn_graph **out) {
  kn_graph *made;
  kn_status st = attempt(ctx, o, true, r, &made);
  bool again = st == KN_OK ? is_open(r) : st != KN_NOMEM && o->invent && !o->nsamples;
  if (again && st == KN_OK) {
    kn_graph_release(made);
    kn_optimize_report_free(r);
  }
  if (again) st = attempt(ctx, o, false, r, &made);
  kn_heap_empty_cache(ctx->heap); /* runs that measured leave more there than others will ask for */
  if (st == KN_OK) *out = made;
  return st;
}
