/* Sessions: their life, inputs checked, plans chosen, state committed or rolled back. What a run does is in
 * run.c, how it was planned in plan.c. */
#include "core/device.h"
#include "graph/copy.h"
#include "graph/cost.h"
#include "graph/exec.h"
#include "graph/format.h"
#include "graph/lent.h"
#include "graph/pipeline.h"
#include "graph/profile.h"
#include "graph/session.h"
#include "graph/text.h"
#include "graph/whole.h"
#include <stdio.h>
#include <string.h>

/* What a run that warms a session may take: multiplications and the like, some tenth of a second; steps. */
#define MOST_WARM_WORK 5e9
enum { MOST_WARM_STEPS = 4096, WARM_RUNS = 6 };
#define MOST_WARM_SECONDS 0.02 /* after which no other run begins */
enum { MAX_PLANS = 16 };       /* sizes a session remembers; the least recently used plan goes first */

/* ---- life ---- */

static bool alloc_session(kn_session *s) {
  const kn_region *body = s->graph->body;
  kn_heap *h = s->ctx->heap;
  s->targets = kn_calloc(h, (size_t)s->ntargets, sizeof *s->targets);
  s->slots = kn_calloc(h, s->graph->nslots + 1u, sizeof *s->slots);
  s->in_types = kn_calloc(h, body->nparams + 1u, sizeof *s->in_types);
  s->symbols = kn_calloc(h, s->graph->nsymbols + 1u, sizeof *s->symbols);
  s->symbol_from = kn_calloc(h, s->graph->nsymbols + 1u, sizeof *s->symbol_from);
  s->out = kn_calloc(h, body->nyields + 1u, sizeof *s->out);
  return s->targets && s->slots && s->in_types && s->symbols && s->symbol_from && s->out;
}

static bool has_detach(const kn_region *r) {
  return kn_region_has(r, KN_NODE_detach) || kn_region_has(r, KN_NODE_with_history);
}

/* May it be a tensor that is another value, too? */
static bool hands_one_on(const kn_value *v) {
  const kn_node *def = v->type.kind == KN_V_TENSOR ? v->def : NULL;
  return def && (def->op == KN_NODE_if || def->op == KN_NODE_loop || def->op == KN_NODE_select);
}

/* A node that gives a handle of its own on the same elements would be taken for what it shows. */
static bool hands_on(const kn_region *body) {
  bool any = false;
  for (uint32_t i = 0; i < body->nyields; i++) any |= hands_one_on(body->yields[i]);
  return any && !has_detach(body);
}

/* May what is stored be the tensor of an input, a slot or a result, or stored twice? */
static bool tracks_stores(const kn_region *body) {
  KN_EACH_NODE (n, body) {
    if (n->op != KN_NODE_store_state || n->slot->type.kind != KN_V_TENSOR) continue;
    const kn_value *v = n->in[0];
    if (!v->def || !kn_opcode_is_op(v->def->op)) return true;
    for (uint32_t i = 0; i < body->nyields; i++)
      if (body->yields[i] == v || hands_one_on(body->yields[i])) return true;
    for (const kn_node *o = n->next; o; o = o->next)
      if ((o->op == KN_NODE_store_state && o->in[0] == v) || (o->op == KN_NODE_update && o->in[1] == v))
        return true;
  }
  return false;
}

/* Updates stand in the body. */
static bool alloc_updates(kn_session *s) {
  KN_EACH_NODE (n, s->graph->body) s->nupdates += n->op == KN_NODE_update;
  s->updates = kn_calloc(s->ctx->heap, s->nupdates + 1u, sizeof *s->updates);
  s->origins = kn_calloc(s->ctx->heap, s->graph->body->nyields + 1u, sizeof *s->origins);
  s->hands_on = hands_on(s->graph->body);
  s->tracks = tracks_stores(s->graph->body) && !has_detach(s->graph->body);
  uint32_t at = 0;
  if (s->updates)
    KN_EACH_NODE (n, s->graph->body)
      if (n->op == KN_NODE_update) s->updates[at++] = (kn_update_state){.input = n->in[0]->index, .node = n};
  return s->updates && s->origins;
}

kn_origin kn_session_origin(const kn_session *s, uint32_t output) {
  return output < s->graph->body->nyields ? s->origins[output] : (kn_origin){KN_FROM_NONE, 0};
}

kn_origin kn_session_stored(const kn_session *s, uint32_t slot, uint32_t *group) {
  bool known = s->tracks && slot < s->graph->nslots && s->slots[slot].group;
  *group = known ? s->slots[slot].group - 1 : slot;
  return known ? s->slots[slot].origin : (kn_origin){KN_FROM_NONE, 0};
}

bool kn_session_wrote(const kn_session *s, uint32_t slot) {
  return slot < s->graph->nslots && s->slots[slot].wrote;
}

void kn_session_as_wrote(kn_session *s, const kn_session *other) {
  for (uint32_t i = 0; i < s->graph->nslots; i++) s->slots[i].wrote = kn_session_wrote(other, i);
}

void kn_session_forget_origins(kn_session *s) {
  for (uint32_t i = 0; i < s->graph->body->nyields; i++) s->origins[i] = (kn_origin){KN_FROM_NONE, 0};
  for (uint32_t i = 0; i < s->graph->nslots; i++) s->slots[i].group = 0;
}

/* Is there a target that computes where it is? */
static kn_status check_device(kn_context *ctx, const kn_graph *g, const kn_target *const *targets, int n,
                              const kn_vtype *t, const char *what) {
  if (t->kind != KN_V_TENSOR) return KN_OK;
  for (int i = 0; i < n; i++)
    if (targets[i]->device == t->tensor.device) return KN_OK;
  return kn_fail(ctx, KN_UNSUPPORTED, "graph %s: %s is on device %s, and nothing here runs that", g->name,
                 what ? what : "an input", kn_device_name((kn_device_id)t->tensor.device));
}

/* What is made or moved elsewhere on the way. */
static kn_status check_region(kn_context *ctx, const kn_graph *g, const kn_target *const *targets, int n,
                              const kn_region *r) {
  KN_EACH_NODE (node, r) {
    for (uint32_t i = 0; i < node->nout; i++) {
      const kn_value *v = node->out[i];
      kn_status st = check_device(ctx, g, targets, n, &v->type, v->name ? v->name : "a value");
      if (st != KN_OK) return kn_node_failed(ctx, node, st);
    }
    for (int i = 0; i < node->nregions; i++) KN_TRY(check_region(ctx, g, targets, n, node->regions[i]));
  }
  return KN_OK;
}

static bool is_on(const kn_value *v, kn_device_id d) {
  return kn_innermost(v->type.kind) == KN_V_TENSOR && v->type.tensor.device == d;
}

static bool has_tensors_on(const kn_region *r, kn_device_id d) {
  for (uint32_t i = 0; i < r->nparams; i++)
    if (is_on(r->params[i], d)) return true;
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++)
      if (is_on(n->out[i], d)) return true;
    for (int k = 0; k < n->nregions; k++)
      if (has_tensors_on(n->regions[k], d)) return true;
  }
  return false;
}

kn_status kn_session_new(kn_context *ctx, kn_graph *g, const kn_target *const *targets, int n,
                         kn_session **out) {
  if (n < 1) return kn_fail(ctx, KN_ARG, "a session needs at least one target");
  for (uint32_t i = 0; i < g->body->nparams; i++)
    KN_TRY(check_device(ctx, g, targets, n, &g->body->params[i]->type, g->body->params[i]->name));
  for (uint32_t i = 0; i < g->nslots; i++)
    KN_TRY(check_device(ctx, g, targets, n, &g->slots[i]->type, g->slots[i]->name));
  KN_TRY(check_region(ctx, g, targets, n, g->body));
  if (!g->finished) return kn_fail(ctx, KN_STATE, "graph %s is not finished and cannot run", g->name);
  kn_session *s = kn_calloc(ctx->heap, 1, sizeof *s);
  if (!s) return kn_fail_nomem(ctx, sizeof *s);
  s->ntargets = n;
  s->ctx = kn_context_child(ctx);
  if (!s->ctx) {
    kn_free(ctx->heap, s, sizeof *s);
    return kn_fail_nomem(ctx, sizeof *ctx);
  }
  s->ctx->keeps_scratch = true;
  s->graph = kn_graph_retain(g);
  if (!alloc_session(s) || !alloc_updates(s)) {
    kn_session_free(s);
    return kn_fail_nomem(ctx, 0);
  }
  memcpy(s->targets, targets, (size_t)n * sizeof *s->targets);
  for (int i = 0; i < n; i++)
    s->launches |= targets[i]->launcher && has_tensors_on(g->body, targets[i]->device);
  for (uint32_t i = 0; i < g->nslots; i++) {
    s->slots[i].value.scalar = g->slots[i]->scalar;
    if (g->slots[i]->tensor) s->slots[i].value.tensor = kn_tensor_retain(g->slots[i]->tensor);
  }
  *out = s;
  return KN_OK;
}

static void free_arena(kn_session *s, kn_device_id d) {
  kn_arena_on *a = &s->arena[d];
  if (a->memory && a->data)
    a->memory->release(a->memory->self, a->data, a->bytes);
  else
    kn_free_aligned(s->ctx->heap, a->data, a->bytes);
  *a = (kn_arena_on){0};
}

void kn_session_free(kn_session *s) {
  if (!s) return;
  kn_heap *h = kn_heap_retain(s->ctx->heap);
  const kn_region *body = s->graph->body;
  while (s->plans) {
    kn_plan *next = s->plans->next;
    kn_plan_free(s->ctx, s->plans);
    s->plans = next;
  }
  for (uint32_t i = 0; s->slots && i < s->graph->nslots; i++) {
    kn_tensor_release(s->slots[i].value.tensor);
    kn_tensor_release(s->slots[i].staged.tensor);
    kn_tensor_release(s->slots[i].spare);
  }
  kn_caught_clear(h, &s->caught);
  if (s->text.p) kn_writer_free(&s->text);
  for (uint32_t i = 0; s->updates && i < s->nupdates; i++) kn_tensor_release(s->updates[i].staged);
  kn_free(h, s->refused.nodes, s->refused.n * sizeof *s->refused.nodes);
  kn_free(h, s->origins, (body->nyields + 1u) * sizeof *s->origins);
  kn_free(h, s->updates, (s->nupdates + 1u) * sizeof *s->updates);
  for (int d = 0; d < KN_DEVICE_COUNT; d++) free_arena(s, (kn_device_id)d);
  kn_free(h, s->targets, (size_t)s->ntargets * sizeof *s->targets);
  kn_free(h, s->slots, (s->graph->nslots + 1u) * sizeof *s->slots);
  kn_free(h, s->in_types, (body->nparams + 1u) * sizeof *s->in_types);
  kn_free(h, s->symbols, (s->graph->nsymbols + 1u) * sizeof *s->symbols);
  kn_free(h, s->symbol_from, (s->graph->nsymbols + 1u) * sizeof *s->symbol_from);
  kn_free(h, s->out, (body->nyields + 1u) * sizeof *s->out);
  kn_graph_release(s->whole);
  kn_graph_release(s->graph);
  kn_heap_release(s->lent.heap);
  kn_context_free(s->ctx);
  kn_free(h, s, sizeof *s);
  kn_heap_release(h);
}

kn_graph *kn_session_graph(const kn_session *s) { return s->graph; }
kn_context *kn_session_context(kn_session *s) { return s->ctx; }

kn_status kn_session_at_rest(kn_session *s) {
  return s->running ? kn_fail(s->ctx, KN_STATE, "the session is running") : KN_OK;
}

void kn_session_use_random(kn_session *s, kn_random *r) { s->random = r; }
const kn_random *kn_session_random(const kn_session *s) { return s->random ? s->random : &s->ctx->random; }
void kn_session_set_step_limit(kn_session *s, uint64_t steps) { s->limit = steps; }
void kn_session_set_trip_limit(kn_session *s, uint64_t trips) { s->trip_limit = trips; }
void kn_session_set_deadline(kn_session *s, double seconds) { s->seconds = seconds > 0 ? seconds : 0; }
void kn_session_set_check(kn_session *s, bool on) { s->check = on; }
void kn_session_set_any_sizes(kn_session *s, bool on) { s->any_sizes = on; }

void kn_session_set_poll(kn_session *s, kn_poll_fn fn, void *ud) {
  s->poll = fn;
  s->poll_ud = ud;
}

void kn_session_set_watch(kn_session *s, bool on) { s->unwatched = !on; }

uint64_t kn_session_trips(const kn_session *s) { return s->trips; }

void kn_session_observe(kn_session *s, kn_observe_fn fn, void *ud) {
  s->observe = fn;
  s->observe_ud = ud;
}

/* ---- inputs ---- */

/* "input x", "input 2" */
static const char *input_text(const kn_session *s, uint32_t i, char *buf, size_t size) {
  const char *name = s->graph->body->params[i]->name;
  if (name)
    snprintf(buf, size, "input %s", name);
  else
    snprintf(buf, size, "input %u", i + 1);
  return buf;
}

static const char *given_text(const kn_rvalue *v, char *buf, size_t size) {
  static const char *const kinds[] = {[KN_SCALAR_INT] = "an integer",
                                      [KN_SCALAR_FLOAT] = "a float",
                                      [KN_SCALAR_BOOL] = "a boolean",
                                      [KN_SCALAR_SYMBOL] = "a symbolic number"};
  if (v->tensor) return kn_type_text(&v->tensor->type, buf, size);
  return kinds[v->scalar.kind];
}

static kn_status refuse(kn_session *s, uint32_t i, const kn_rvalue *v, kn_status st) {
  char name[128], want[KN_TYPE_TEXT], got[KN_TYPE_TEXT];
  const kn_vtype *t = &s->graph->body->params[i]->type;
  return kn_fail(s->ctx, st, "%s: %s%s is needed (got %s)", input_text(s, i, name, sizeof name),
                 t->kind == KN_V_TENSOR ? "" : "a value of kind ",
                 kn_vtype_text(s->graph, t, want, sizeof want), given_text(v, got, sizeof got));
}

static kn_status bind_symbol(kn_session *s, uint32_t i, int dim, uint64_t k, int64_t size) {
  uint32_t here = 1 + i * KN_MAX_RANK + (uint32_t)dim;
  if (!s->symbol_from[k]) {
    s->symbol_from[k] = here;
    s->symbols[k] = size;
    return KN_OK;
  }
  if (s->symbols[k] == size) return KN_OK;
  char a[128], b[128];
  uint32_t there = s->symbol_from[k] - 1;
  return kn_fail(s->ctx, KN_SHAPE, "size %s is %lld in dimension %d of %s, but %lld in dimension %d of %s",
                 s->graph->symbols[k], (long long)s->symbols[k], (int)(there % KN_MAX_RANK) + 1,
                 input_text(s, there / KN_MAX_RANK, a, sizeof a), (long long)size, dim + 1,
                 input_text(s, i, b, sizeof b));
}

static kn_status check_tensor(kn_session *s, uint32_t i, const kn_rvalue *v) {
  const kn_type *want = &s->graph->body->params[i]->type.tensor;
  if (!v->tensor && s->graph->partial) {
    s->in_types[i] = KN_NO_TYPE;
    return KN_OK;
  }
  if (!v->tensor) return refuse(s, i, v, KN_ARG);
  const kn_type *got = &v->tensor->type;
  char name[128];
  if (!v->tensor->storage)
    return kn_fail(s->ctx, KN_STATE, "%s: a symbolic tensor has no data",
                   input_text(s, i, name, sizeof name));
  if (got->dtype != want->dtype) return refuse(s, i, v, KN_DTYPE);
  if (got->device != want->device) return refuse(s, i, v, KN_ARG);
  if (got->rank != want->rank) return refuse(s, i, v, KN_SHAPE);
  for (int d = 0; d < want->rank; d++) {
    int64_t size = want->dims[d];
    if (kn_dim_known(size) && size != got->dims[d] && !s->any_sizes) return refuse(s, i, v, KN_SHAPE);
    uint64_t k = kn_dim_symbol_of(size);
    if (size < KN_DIM_UNKNOWN && k < s->graph->nsymbols) KN_TRY(bind_symbol(s, i, d, k, got->dims[d]));
  }
  s->in_types[i] = *got;
  for (int d = got->rank; d < KN_MAX_RANK; d++) s->in_types[i].dims[d] = 0;
  return KN_OK;
}

static kn_status check_scalar(kn_session *s, uint32_t i, const kn_rvalue *v) {
  kn_vkind want = s->graph->body->params[i]->type.kind;
  kn_scalar_kind got = v->scalar.kind;
  if (kn_is_list(want))
    return !v->tensor && (!v->list || kn_list_kind(v->list) == want) ? KN_OK : refuse(s, i, v, KN_ARG);
  bool fits = !v->tensor && (want == KN_V_BOOL  ? got == KN_SCALAR_BOOL
                             : want == KN_V_INT ? got == KN_SCALAR_INT
                                                : got == KN_SCALAR_INT || got == KN_SCALAR_FLOAT);
  return fits ? KN_OK : refuse(s, i, v, KN_ARG);
}

static kn_status check_inputs(kn_session *s, const kn_rvalue *in, uint32_t nin) {
  const kn_region *body = s->graph->body;
  if (nin != body->nparams)
    return kn_fail(s->ctx, KN_ARG, "graph %s takes %u input%s, got %u", s->graph->name, body->nparams,
                   body->nparams == 1 ? "" : "s", nin);
  memset(s->symbol_from, 0, (s->graph->nsymbols + 1u) * sizeof *s->symbol_from);
  for (uint32_t i = 0; i < nin; i++) {
    bool tensor = body->params[i]->type.kind == KN_V_TENSOR;
    KN_TRY(tensor ? check_tensor(s, i, &in[i]) : check_scalar(s, i, &in[i]));
  }
  return KN_OK;
}

/* ---- inputs that are updated ---- */

static bool shares(const kn_tensor *a, const kn_tensor *b) {
  return b && b->storage && a->storage == b->storage && kn_type_numel(&a->type) && kn_type_numel(&b->type);
}

/* Before anything runs: what is written to may be, and nothing else of this run shows its elements. */
static kn_status check_update(kn_session *s, const kn_node *n, const kn_rvalue *in) {
  uint32_t i = n->in[0]->index;
  kn_tensor *t = in[i].tensor;
  char a[128], b[128];
  input_text(s, i, a, sizeof a);
  bool grad = s->ctx->grad_enabled, named = n->where && kn_where_composite(n->where);
  s->ctx->grad_enabled = false; /* gradients are the caller's business */
  kn_status st = kn_check_writable(s->ctx, a, t);
  s->ctx->grad_enabled = grad;
  if (st != KN_OK && named) { /* as what writes to it says it */
    kn_error_unname(s->ctx, a);
    return kn_node_failed(s->ctx, n, st);
  }
  KN_TRY(st);
  if (!kn_find_need(s->graph, s->graph->body->params[i], KN_NEED_strides) && !kn_tensor_contiguous(t))
    return kn_fail(s->ctx, KN_ARG,
                   "%s is overwritten, and its elements do not lie in order; give a contiguous tensor", a);
  for (uint32_t k = 0; k < s->graph->body->nparams; k++)
    if (k != i && shares(t, in[k].tensor))
      return kn_fail(s->ctx, KN_ARG, "%s is overwritten, and %s shares memory with it; give a clone of one",
                     a, input_text(s, k, b, sizeof b));
  for (uint32_t k = 0; k < s->graph->nslots; k++)
    if (shares(t, s->slots[k].value.tensor))
      return kn_fail(
          s->ctx, KN_ARG,
          "%s is overwritten, and '%s', which the graph reads, shares memory with it; give a clone", a,
          s->graph->slots[k]->name);
  return KN_OK;
}

static kn_status check_updates(kn_session *s, const kn_rvalue *in) {
  for (uint32_t i = 0; i < s->nupdates; i++) KN_TRY(check_update(s, s->updates[i].node, in));
  return KN_OK;
}

/* The one moment at which the caller's tensors change; nothing here can fail any more, memory lies ready. */
static kn_status settle_updates(kn_session *s, const kn_rvalue *in, bool commit) {
  kn_status st = KN_OK;
  for (uint32_t i = 0; i < s->nupdates; i++) {
    kn_update_state *u = &s->updates[i];
    kn_tensor *t = in[u->input].tensor, *same;
    if (commit && u->is_staged && st == KN_OK) {
      bool grad = s->ctx->grad_enabled;
      s->ctx->grad_enabled = false;
      st = kn_apply(s->ctx, KN_OP_copy_, NULL, (kn_tensor *[]){t, u->staged}, 2, &same);
      s->ctx->grad_enabled = grad;
      if (st == KN_OK) kn_tensor_release(same);
    }
    u->is_staged = false;
  }
  return st;
}

/* ---- plans ---- */

static bool plan_fits(const kn_session *s, const kn_plan *p, kn_plan_form form) {
  if (p->form != form || p->stale || (!p->fixed && kn_context_tuning(s->ctx) == KN_TUNING_FIXED))
    return false;
  for (uint32_t i = 0; i < s->graph->body->nparams; i++)
    if (s->graph->body->params[i]->type.kind == KN_V_TENSOR && !kn_type_equal(&p->inputs[i], &s->in_types[i]))
      return false;
  return true;
}

static void forget_plans(kn_session *s) {
  int n = 0;
  for (kn_plan **at = &s->plans; *at;) {
    if (!(*at)->stale && ++n <= MAX_PLANS) {
      at = &(*at)->next;
      continue;
    }
    kn_plan *old = *at;
    *at = old->next;
    kn_plan_free(s->ctx, old);
  }
}

/* What is told step by step is done so. */
static bool runs_whole(const kn_session *s) { return !s->profile && !s->ctx->recorder; }

static bool hands_any_on(const kn_region *body) {
  KN_EACH_NODE (n, body)
    if (n->op == KN_NODE_if || n->op == KN_NODE_loop || n->op == KN_NODE_select) return true;
  return false;
}

/* What plans of a form run. */
static kn_status choose_graph(kn_session *s, kn_plan_form form, const kn_graph **out) {
  *out = s->graph;
  if (form != KN_PLAN_WHOLE || !hands_any_on(s->graph->body)) return KN_OK;
  if (!s->whole) {
    kn_builder b;
    kn_graph *made;
    uint32_t changes;
    KN_TRY(kn_graph_copy(s->ctx, s->graph, &b, &made));
    kn_status st = kn_pass_run(&b, &kn_pass_origins, &changes);
    if (st == KN_OK) st = kn_graph_finish(&b);
    if (st != KN_OK) {
      kn_graph_release(made);
      return st;
    }
    s->whole = changes ? made : kn_graph_retain(s->graph);
    if (!changes) kn_graph_release(made);
  }
  *out = s->whole;
  return KN_OK;
}

/* The plan for these inputs, first in the cache afterwards; where `measured`, another one instead of one for
 * which there was something to measure. */
static kn_status choose_plan(kn_session *s, const kn_rvalue *in, uint32_t nin, bool measured, kn_plan **out) {
  KN_TRY(check_inputs(s, in, nin));
  kn_plan_form form = s->observe || s->single        ? KN_PLAN_SINGLE
                      : s->check                     ? KN_PLAN_APART
                      : s->launches && runs_whole(s) ? KN_PLAN_WHOLE
                                                     : KN_PLAN_USUAL;
  kn_plan **at = &s->plans, *p;
  while (*at && !plan_fits(s, *at, form)) at = &(*at)->next;
  p = *at;
  if (p) *at = p->next;
  if (p && measured && p->unmeasured) {
    kn_plan_free(s->ctx, p);
    p = NULL;
  }
  const kn_graph *g = NULL;
  if (!p) KN_TRY(choose_graph(s, form, &g));
  if (!p) KN_TRY(kn_plan_new(s->ctx, g, s->targets, s->ntargets, form, &s->refused, s->in_types, &p));
  p->next = s->plans;
  s->plans = p;
  forget_plans(s);
  *out = p;
  return KN_OK;
}

/* The old one is given back after the new one is there: plans that point into it are told by its address. */
static kn_status grow_arena(kn_session *s, kn_device_id d, size_t bytes) {
  kn_arena_on fresh = {.bytes = bytes};
  void *data = NULL;
  KN_TRY(kn_device_memory(s->ctx, d, &fresh.memory));
  if (fresh.memory)
    KN_TRY(fresh.memory->alloc(fresh.memory->self, s->ctx, bytes, &data));
  else if (!(data = kn_claim_aligned(s->ctx, bytes)))
    return kn_fail_nomem(s->ctx, bytes);
  free_arena(s, d);
  fresh.data = data;
  s->arena[d] = fresh;
  return KN_OK;
}

static kn_status give_arena(kn_session *s, kn_plan *p) {
  for (int d = 0; d < KN_DEVICE_COUNT; d++) {
    const kn_arena_on *a = &s->arena[d];
    if (d == KN_CPU && kn_is_lent(s)) continue;
    if (p->bytes[d] > a->bytes || (d == KN_CPU && !a->data))
      KN_TRY(grow_arena(s, (kn_device_id)d, p->bytes[d]));
    if (p->base[d] != a->data) kn_plan_place_at(p, (kn_device_id)d, a->data);
  }
  return kn_is_lent(s) ? kn_lent_begin(s, p) : KN_OK;
}

static size_t bytes_of(const kn_type *t) {
  size_t n;
  return kn_type_bytes(t, &n) ? n : 0;
}

/* Each value that is returned once, however often it is. */
static size_t result_bytes(const kn_plan *p) {
  const kn_region *body = p->graph->body;
  size_t sum = 0;
  for (uint32_t i = 0; i < body->nyields; i++) {
    const kn_value *v = body->yields[i];
    bool again = v->type.kind != KN_V_TENSOR || p->undefined[v->id];
    for (uint32_t k = 0; k < i; k++) again |= body->yields[k] == v;
    if (!again) sum += bytes_of(&p->types[v->id]);
  }
  return sum;
}

static void mark_stores(const kn_region *r, bool *stored) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_store_state) stored[n->slot->index] = true;
    for (int i = 0; i < n->nregions; i++) mark_stores(n->regions[i], stored);
  }
}

static kn_status state_bytes(kn_session *s, const kn_plan *p, size_t *bytes) {
  uint32_t n = s->graph->nslots;
  bool *stored = kn_calloc(s->ctx->heap, n + 1u, sizeof *stored);
  if (!stored) return kn_fail_nomem(s->ctx, n + 1u);
  mark_stores(s->graph->body, stored);
  *bytes = 0;
  for (uint32_t i = 0; i < n; i++)
    if ((stored[i] || p->slot_copied[i]) && s->graph->slots[i]->type.kind == KN_V_TENSOR)
      *bytes += bytes_of(&s->graph->slots[i]->type.tensor);
  for (uint32_t i = 0; i < s->nupdates; i++) *bytes += bytes_of(&p->inputs[s->updates[i].input]);
  kn_free(s->ctx->heap, stored, n + 1u);
  return KN_OK;
}

/* The system hands pages out when they are first written to, which takes longer than most nodes. */
static void touch(char *p, size_t bytes) {
  enum { PAGE = 4096 };
  for (size_t i = 0; i < bytes; i += PAGE) ((volatile char *)p)[i] = 0;
}

static void parts_memory(const kn_plan *p, kn_run_memory *m) {
  kn_part_memory sum = {0};
  for (uint32_t i = 0; i < p->nparts; i++) {
    const kn_target *t = p->parts[i].target;
    if (t->memory) t->memory(t->self, p->parts[i].program, &sum);
  }
  m->workspace = sum.workspace;
  for (uint32_t i = 0; i < p->nwholes; i++) m->workspace += kn_whole_bytes(p->wholes[i]);
  m->packed = sum.packed;
}

static kn_status choose_measured(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_plan **out) {
  KN_TRY(kn_session_at_rest(s));
  kn_tuning tuning = s->ctx->tuning;
  if (tuning == KN_TUNING_KNOWN) s->ctx->tuning = KN_TUNING_MEASURE;
  kn_status st = choose_plan(s, in, nin, true, out);
  s->ctx->tuning = tuning;
  return st;
}

kn_status kn_session_lent_bytes(kn_session *s, const kn_rvalue *in, uint32_t nin, size_t *bytes) {
  kn_plan *p;
  KN_TRY(choose_measured(s, in, nin, &p));
  *bytes = kn_lent_need(p);
  return KN_OK;
}

kn_status kn_session_prepare(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_run_memory *memory) {
  kn_plan *p;
  kn_run_memory m = {0};
  KN_TRY(choose_measured(s, in, nin, &p));
  const char *before = s->arena[KN_CPU].data;
  if (!kn_is_lent(s)) KN_TRY(give_arena(s, p));
  if (s->arena[KN_CPU].data != before) touch(s->arena[KN_CPU].data, s->arena[KN_CPU].bytes);
  for (int d = 0; d < KN_DEVICE_COUNT; d++) m.arena += p->bytes[d];
  m.plan = p->kept;
  parts_memory(p, &m);
  m.results = result_bytes(p);
  KN_TRY(state_bytes(s, p, &m.state));
  *memory = m;
  return KN_OK;
}

/* ---- runs ---- */

/* The slot's last tensor may take the next store. What a run has stored may be somebody's still, as gradients
 * are until there are new ones. */
static void keep_spare(kn_slot_state *x, kn_tensor *t) {
  bool keep = t && (x->stored || kn_is_forgotten(t)) && !(x->spare && kn_is_forgotten(x->spare));
  kn_tensor *gone = keep ? x->spare : t;
  if (keep) x->spare = t;
  kn_tensor_release(gone);
}

static void settle_slots(kn_session *s, bool commit) {
  for (uint32_t i = 0; i < s->graph->nslots; i++) {
    kn_slot_state *x = &s->slots[i];
    x->wrote = commit && x->is_staged;
    if (!x->is_staged) continue;
    keep_spare(x, commit ? x->value.tensor : x->staged.tensor);
    if (commit) x->value = x->staged;
    x->stored |= commit;
    x->staged = (kn_rvalue){0};
    x->is_staged = false;
  }
}

/* Without `keep` nothing of it stays: no results, no state, no number that was drawn. */
static kn_status run_once(kn_session *s, const kn_rvalue *in, uint32_t nin, bool keep) {
  kn_plan *p;
  s->due = s->seconds > 0 ? kn_profile_clock() + s->seconds : 0;
  KN_TRY(choose_plan(s, in, nin, false, &p));
  KN_TRY(kn_check_needs(s->ctx, s->graph, in));
  KN_TRY(check_updates(s, in));
  KN_TRY(give_arena(s, p));
  kn_random own = s->ctx->random;
  if (s->random) s->ctx->random = *s->random;
  s->running = true;
  s->steps = s->told = 0;
  atomic_store_explicit(&s->late, false, memory_order_relaxed);
  s->ctx->runs = kn_is_lent(s) ? s->lent.heap : NULL;
  kn_status st = kn_run_plan(s, p, in);
  s->ctx->runs = NULL;
  s->running = false;
  bool ran = st == KN_OK;
  kn_status settled = settle_updates(s, in, ran && keep);
  if (ran) st = settled;
  settle_slots(s, st == KN_OK && keep);
  if (st == KN_OK && keep && s->random) *s->random = s->ctx->random;
  if (st != KN_OK || !keep || s->random) s->ctx->random = own;
  return st;
}

kn_status kn_session_run(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out, uint32_t nout) {
  uint32_t results = s->graph->body->nyields;
  KN_TRY(kn_session_at_rest(s));
  if (nout != results)
    return kn_fail(s->ctx, KN_ARG, "graph %s gives %u result%s, room is for %u", s->graph->name, results,
                   results == 1 ? "" : "s", nout);
  KN_TRY(run_once(s, in, nin, true));
  if (nout) memcpy(out, s->out, nout * sizeof *out);
  return KN_OK;
}

/* Does somebody else see that it runs? */
static bool is_seen(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_host_call || kn_opcode_says(n->op)) return true;
    for (int k = 0; k < n->nregions; k++)
      if (is_seen(n->regions[k])) return true;
  }
  return false;
}

static bool is_pure(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (kn_opcode_describe(n->op).effect == KN_EFFECT) return false;
    for (int k = 0; k < n->nregions; k++)
      if (!is_pure(n->regions[k])) return false;
  }
  return true;
}

bool kn_session_is_pure(const kn_session *s) { return is_pure(s->graph->body); }

/* Multiplications and the like of all parts, loops by one trip. */
static double work_of(const kn_plan *p) {
  double flops = 0;
  for (uint32_t i = 0; i < p->nparts; i++)
    for (uint32_t k = 0; k < p->parts[i].n; k++) {
      kn_cost c;
      kn_cost_by_types(p->parts[i].nodes[k], p->types, &c);
      flops += c.flops;
    }
  return flops;
}

static void drop_results(const kn_session *s, kn_rvalue *out) {
  for (uint32_t i = 0; i < s->graph->body->nyields; i++) {
    kn_tensor_release(out[i].tensor);
    kn_list_release(out[i].list);
    out[i] = (kn_rvalue){0};
  }
}

kn_status kn_session_warm(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out) {
  const uint32_t nout = s->graph->body->nyields;
  if (s->running || s->observe || s->check || s->profile || s->launches || s->ctx->debug ||
      is_seen(s->graph->body))
    return KN_DECLINED;
  kn_plan *p;
  KN_TRY(choose_plan(s, in, nin, false, &p));
  if (work_of(p) > MOST_WARM_WORK) return KN_DECLINED;
  const uint64_t limit = s->limit;
  if (!limit || limit > MOST_WARM_STEPS) s->limit = MOST_WARM_STEPS;
  kn_status st = KN_OK;
  const double start = kn_profile_clock();
  for (int i = 0; i < WARM_RUNS && st == KN_OK; i++) {
    if (i && kn_profile_clock() - start > MOST_WARM_SECONDS) break;
    if (i) drop_results(s, s->out);
    st = run_once(s, in, nin, false);
  }
  s->limit = limit;
  if (st != KN_OK) return st == KN_CANCELLED || st == KN_NOMEM ? st : KN_DECLINED;
  if (out)
    memcpy(out, s->out, nout * sizeof *out);
  else
    drop_results(s, s->out);
  return KN_OK;
}

typedef struct leaf_values {
  const kn_tree *t;
  const kn_rvalue *out;
} leaf_values;

static kn_format_value leaf_value(const void *ud, uint32_t i) {
  const leaf_values *x = ud;
  const kn_rvalue *v = &x->out[x->t->items[i].i];
  return (kn_format_value){v->tensor, v->scalar};
}

kn_status kn_session_text(kn_session *s, const kn_tree *t, const kn_rvalue *out, const char **text,
                          size_t *len) {
  leaf_values x = {t, out};
  s->text.heap = s->ctx->heap;
  s->text.n = 0;
  KN_TRY(kn_format_text(s->ctx, t->text, leaf_value, &x, &s->caught, &s->text));
  *text = s->text.p ? s->text.p : "";
  *len = s->text.n;
  return KN_OK;
}

/* ---- slots ---- */

static kn_status find_slot(kn_session *s, uint32_t slot, kn_slot_state **out) {
  KN_TRY(kn_session_at_rest(s));
  if (slot >= s->graph->nslots)
    return kn_fail(s->ctx, KN_INDEX, "graph %s has %u slots, not %u", s->graph->name, s->graph->nslots,
                   slot + 1);
  *out = &s->slots[slot];
  return KN_OK;
}

kn_status kn_session_set_slot(kn_session *s, uint32_t slot, const kn_rvalue *v) {
  kn_slot_state *x = NULL;
  KN_TRY(find_slot(s, slot, &x));
  const kn_slot *def = s->graph->slots[slot];
  char want[KN_TYPE_TEXT], got[KN_TYPE_TEXT];
  kn_scalar_kind k = v->scalar.kind;
  bool fits = def->type.kind == KN_V_TENSOR
                  ? v->tensor && v->tensor->storage && kn_type_equal(&v->tensor->type, &def->type.tensor)
              : v->tensor                    ? false
              : def->type.kind == KN_V_BOOL  ? k == KN_SCALAR_BOOL
              : def->type.kind == KN_V_INT   ? k == KN_SCALAR_INT
              : def->type.kind == KN_V_FLOAT ? k == KN_SCALAR_FLOAT
                                             : k == KN_SCALAR_INT || k == KN_SCALAR_FLOAT;
  if (!fits)
    return kn_fail(s->ctx, KN_ARG, "slot \"%s\": %s is needed (got %s)", def->name,
                   kn_vtype_text(s->graph, &def->type, want, sizeof want), given_text(v, got, sizeof got));
  if (v->tensor && v->tensor == x->value.tensor) return KN_OK; /* what most calls find: no counting */
  if (v->tensor) kn_tensor_retain(v->tensor);
  keep_spare(x, x->value.tensor); /* what was stored last, when its elements have been copied elsewhere */
  x->value = *v;
  x->stored = false;
  return KN_OK;
}

kn_status kn_session_get_slot(kn_session *s, uint32_t slot, kn_rvalue *v) {
  kn_slot_state *x = NULL;
  KN_TRY(find_slot(s, slot, &x));
  const kn_slot *def = s->graph->slots[slot];
  if (def->type.kind == KN_V_TENSOR && !x->value.tensor)
    return kn_fail(s->ctx, KN_STATE, "slot \"%s\" has no data", def->name);
  if (x->value.tensor) kn_tensor_retain(x->value.tensor);
  *v = x->value;
  return KN_OK;
}
