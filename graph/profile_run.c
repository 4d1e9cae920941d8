/* Profiles: running a session so that nothing of it stays, and by turns with clocks and without. */
#include "graph/plan.h"
#include "graph/profile.h"
#include "graph/session.h"
#include <string.h>

/* What runs change of a session, as it was. */
typedef struct kept {
  kn_rvalue *slots; /* values, retained */
  kn_rvalue *in;    /* the inputs to run on: those that are overwritten as copies */
  kn_random own, lent;
  bool check;
  kn_observe_fn observe;
} kept;

static kn_status copy_updated(kn_session *s, kn_rvalue *in) {
  for (uint32_t i = 0; i < s->nupdates; i++) {
    kn_tensor **t = &in[s->updates[i].input].tensor, *made;
    if (!*t) continue;
    if (!kn_tensor_contiguous(*t)) {
      in[s->updates[i].input].tensor = NULL;
      return kn_fail(s->ctx, KN_UNSUPPORTED,
                     "profile: input %u is overwritten, and its elements do not lie in order; give a "
                     "contiguous tensor",
                     s->updates[i].input + 1);
    }
    const kn_attrs_device same = {.device = (*t)->type.device};
    kn_status st = kn_tensor_new(s->ctx, &(*t)->type, &made);
    if (st == KN_OK) st = kn_kernel_to_device(s->ctx, &same, t, 1, &made);
    *t = st == KN_OK ? made : NULL;
    KN_TRY(st);
  }
  return KN_OK;
}

static kn_status keep(kn_session *s, const kn_rvalue *in, uint32_t nin, kept *k) {
  uint32_t n = s->graph->nslots;
  *k = (kept){.slots = kn_calloc(s->ctx->heap, n + 1u, sizeof *k->slots),
              .in = kn_calloc(s->ctx->heap, nin + 1u, sizeof *k->in),
              .own = s->ctx->random,
              .check = s->check,
              .observe = s->observe};
  if (s->random) k->lent = *s->random;
  if (!k->slots || !k->in) {
    kn_free(s->ctx->heap, k->slots, (n + 1u) * sizeof *k->slots);
    k->slots = NULL;
    return kn_fail_nomem(s->ctx, (n + nin + 2u) * sizeof *k->in);
  }
  for (uint32_t i = 0; i < n; i++) {
    k->slots[i] = s->slots[i].value;
    if (k->slots[i].tensor) kn_tensor_retain(k->slots[i].tensor);
  }
  memcpy(k->in, in, nin * sizeof *in);
  s->check = false;
  s->observe = NULL;
  return copy_updated(s, k->in);
}

static void restore(kn_session *s, const kn_rvalue *in, uint32_t nin, kept *k) {
  uint32_t n = s->graph->nslots;
  for (uint32_t i = 0; k->slots && i < n; i++) {
    kn_tensor *now = s->slots[i].value.tensor;
    s->slots[i].value = k->slots[i];
    kn_tensor_release(now);
  }
  for (uint32_t i = 0; k->in && i < nin; i++)
    if (k->in[i].tensor && k->in[i].tensor != in[i].tensor) kn_tensor_release(k->in[i].tensor);
  s->ctx->random = k->own;
  if (s->random) *s->random = k->lent;
  s->check = k->check;
  s->observe = k->observe;
  kn_free(s->ctx->heap, k->slots, (n + 1u) * sizeof *k->slots);
  kn_free(s->ctx->heap, k->in, (nin + 1u) * sizeof *k->in);
}

/* Seconds of one run, whose results are let go. */
static kn_status run_once(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out, double *seconds) {
  uint32_t n = s->graph->body->nyields;
  double start = kn_profile_settled(s->ctx);
  KN_TRY(kn_session_run(s, in, nin, out, n));
  *seconds = kn_profile_settled(s->ctx) - start;
  for (uint32_t i = 0; i < n; i++) {
    kn_tensor_release(out[i].tensor);
    kn_list_release(out[i].list);
  }
  return KN_OK;
}

static kn_status run_timed(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out, kn_profile *p) {
  double seconds;
  unsigned debug = s->ctx->debug;
  s->profile = s->ctx->profile = p;
  p->ctx = s->ctx;
  s->ctx->debug |= 1u << KN_DEBUG_EXEC; /* targets tell of each node then */
  kn_profile_start(p);
  kn_status st = run_once(s, in, nin, out, &seconds);
  kn_profile_stop(p);
  s->ctx->debug = debug;
  s->profile = s->ctx->profile = NULL;
  p->ctx = NULL;
  return st;
}

static kn_status run_all(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out, kn_profile *p) {
  double warm;
  s->single = p->options.nodes;
  KN_TRY(run_once(s, in, nin, out, &warm));
  KN_TRY(kn_profile_open(s->ctx, p, s->plans));
  KN_TRY(run_timed(s, in, nin, out, p));
  KN_TRY(kn_profile_open(s->ctx, p, s->plans)); /* now it is known which nodes run as one */
  for (uint32_t i = 0; i < p->options.runs; i++) {
    KN_TRY(run_once(s, in, nin, out, &p->plain[i]));
    KN_TRY(run_timed(s, in, nin, out, p));
  }
  return kn_profile_close(s->ctx, p);
}

static kn_status make(kn_session *s, const kn_profile_options *o, kn_profile **out) {
  kn_profile *p = kn_calloc(s->ctx->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(s->ctx, sizeof *p);
  p->heap = kn_heap_retain(s->ctx->heap);
  p->graph = kn_graph_retain(s->graph);
  p->options = *o;
  if (!p->options.runs) p->options.runs = KN_PROFILE_RUNS;
  kn_arena_init(&p->arena, p->heap);
  *out = p;
  return KN_OK;
}

kn_status kn_session_profile(kn_session *s, const kn_rvalue *in, uint32_t nin, const kn_profile_options *o,
                             kn_profile **out) {
  KN_TRY(kn_session_at_rest(s));
  if (o->runs > KN_PROFILE_MOST_RUNS)
    return kn_fail(s->ctx, KN_ARG, "profile: %u runs are too many; at most %d", o->runs,
                   KN_PROFILE_MOST_RUNS);
  if (nin != s->graph->body->nparams)
    return kn_fail(s->ctx, KN_ARG, "graph %s takes %u inputs, got %u", s->graph->name,
                   s->graph->body->nparams, nin);
  uint32_t nout = s->graph->body->nyields;
  kn_profile *p = NULL;
  KN_TRY(kn_peaks_measure(s->ctx));
  KN_TRY(make(s, o, &p));
  p->peaks = s->ctx->peaks;
  kept k;
  kn_rvalue *results = kn_calloc(s->ctx->heap, nout + 1u, sizeof *results);
  kn_status st = keep(s, in, nin, &k);
  if (!results) st = kn_fail_nomem(s->ctx, nout * sizeof *results);
  if (st == KN_OK) st = run_all(s, k.in, nin, results, p);
  s->single = false;
  restore(s, in, nin, &k);
  kn_free(s->ctx->heap, results, (nout + 1u) * sizeof *results);
  if (st == KN_OK)
    *out = p;
  else
    kn_profile_free(p);
  return st;
}
