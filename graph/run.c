/* Running a plan: flat arrays of steps, recursion only into the regions of `if` and `loop`. Values made or
 * bound here are counted (kn_plan.owned) and let go of at their last use, or when the run ends, however it
 * ends. */
#include "graph/attempt.h"
#include "graph/mutant.h"
#include "graph/format.h"
#include "graph/host.h"
#include "graph/scalar.h"
#include "graph/internal.h"
#include "graph/profile.h"
#include "graph/run.h"
#include <inttypes.h>
#include <stdio.h>

/* Not a part of who calls it, whose every step would then save and restore what this one needs. */
#define APART static __attribute__((noinline))

/* ---- if and loop ---- */

/* Lists that a region has yielded, from the first one on: nobody reads them there any more, and what is
 * theirs alone can be appended to. */
static void forget_lists(kn_plan *p, const kn_region *r, uint32_t first) {
  if (!p->has_lists) return;
  for (uint32_t i = first; i < r->nyields; i++)
    if (kn_is_list(r->yields[i]->type.kind) && r->yields[i]->def && r->yields[i]->region == r)
      kn_run_own_list(p, r->yields[i]->id, NULL);
}

static void bind_outputs(run *r, const kn_step *s, int side) {
  kn_run_bind_yields(r->p, s, side);
  forget_lists(r->p, s->node->regions[side], 0);
  if (r->quiet) return;
  if (kn_run_logs(r)) kn_log_node(r->ctx, "graph", s->node, side ? "else" : "then", r->p->vals);
  kn_run_watch(r, s->node);
}

static inline kn_status copy_outputs(run *r, const kn_step *s, int side) {
  return r->p->whole ? kn_run_copy_yields(r, s, side) : KN_OK;
}

/* The first branch, and the second where that raises. */
APART kn_status run_attempt(run *r, const kn_step *s) {
  kn_scalar *none_raised = &r->p->scalars[s->node->in[0]->id];
  kn_status st = kn_run_block(r, s->a);
  if (st != KN_OK && (!kn_can_be_caught(st) || r->gang)) return st; /* the order of errors is the program's */
  if (st != KN_OK) {
    KN_TRY(kn_catch(r->ctx, &r->s->caught));
    none_raised->as.b = false;
    KN_TRY(kn_run_block(r, s->b));
  }
  KN_TRY(copy_outputs(r, s, st == KN_OK ? 0 : 1));
  bind_outputs(r, s, st == KN_OK ? 0 : 1);
  return KN_OK;
}

APART kn_status run_if(run *r, const kn_step *s) {
  if (kn_is_attempt(s->node)) return run_attempt(r, s);
  bool yes = r->p->scalars[s->node->in[0]->id].as.b;
  KN_TRY(kn_run_block(r, yes ? s->a : s->b));
  KN_TRY(copy_outputs(r, s, yes ? 0 : 1));
  bind_outputs(r, s, yes ? 0 : 1);
  return KN_OK;
}

static kn_status enter_loop(run *r, const kn_loop_plan *l) {
  kn_plan *p = r->p;
  const kn_region *body = l->node->regions[0];
  for (uint32_t i = 0; i < body->nparams; i++) {
    const kn_value *v = body->params[i], *init = l->node->in[i];
    kn_tensor *t = p->vals[init->id];
    if (l->carry[i].how != KN_CARRY_COPY && l->carry[i].how != KN_CARRY_STAGED) {
      kn_run_bind_value(p, v, init);
      continue;
    }
    p->vals[v->id] = t ? p->header[v->id] : NULL;
    if (t) KN_TRY(kn_run_copy_into(r, p->header[v->id], t));
  }
  return KN_OK;
}

/* Next values that must be safe before any parameter changes. */
static kn_status gather_next(run *r, kn_carry *c, const kn_value *next) {
  kn_tensor *t = r->p->vals[next->id];
  c->next = NULL;
  c->list = kn_is_list(next->type.kind) ? kn_run_shared_list(r->p->lists[next->id]) : NULL;
  if (c->how == KN_CARRY_NUMBER) c->number = r->p->scalars[next->id];
  if (!t || next->type.kind != KN_V_TENSOR) return KN_OK;
  switch (c->how) {
  case KN_CARRY_KEEP:
  case KN_CARRY_NUMBER: break;
  case KN_CARRY_COPY: c->next = t; break; /* borrowed */
  case KN_CARRY_STAGED:
    KN_TRY(kn_run_copy_into(r, c->stage, t));
    c->next = c->stage;
    break;
  case KN_CARRY_HANDLE: c->next = kn_run_take(r->p, next->id); break;
  case KN_CARRY_OWN:
    return kn_run_in_arena(r->p, t) ? kn_run_clone(r, t, &c->next) : kn_tensor_alias(r->ctx, t, &c->next);
  }
  return KN_OK;
}

static kn_status back_edge(run *r, const kn_loop_plan *l) {
  kn_plan *p = r->p;
  const kn_region *body = l->node->regions[0];
  kn_status st = KN_OK;
  uint32_t n = 0;
  while (n < body->nparams && st == KN_OK) st = gather_next(r, &l->carry[n], body->yields[1 + n]), n++;
  for (uint32_t i = 0; i < n; i++) {
    kn_carry *c = &l->carry[i];
    uint32_t v = body->params[i]->id;
    bool copied = c->how == KN_CARRY_COPY || c->how == KN_CARRY_STAGED;
    if (c->list || kn_is_list(body->params[i]->type.kind)) {
      if (st == KN_OK)
        kn_run_own_list(p, v, c->list);
      else
        kn_list_release(c->list);
      c->list = NULL;
    } else if (st != KN_OK) {
      if (!copied) kn_tensor_release(c->next); /* KEEP and NUMBER have none */
    } else if (c->how == KN_CARRY_NUMBER)
      p->scalars[v] = c->number;
    else if (c->how == KN_CARRY_OWN || c->how == KN_CARRY_HANDLE)
      kn_run_own(p, v, c->next);
    else if (copied) {
      p->vals[v] = c->next ? p->header[v] : NULL;
      if (c->next) st = kn_run_copy_into(r, p->header[v], c->next);
    }
    c->next = NULL;
  }
  forget_lists(p, body, 1);
  return st;
}

kn_status kn_run_too_many_trips(run *r, const kn_node *loop) {
  return kn_node_failed(
      r->ctx, loop,
      kn_fail(r->ctx, KN_LIMIT, "the limit of %" PRIu64 " trips of a loop was reached", r->s->trip_limit));
}

APART kn_status run_loop(run *r, const kn_step *s) {
  const kn_loop_plan *l = &r->p->loops[s->a];
  const kn_node *n = l->node;
  const kn_region *body = n->regions[0];
  KN_TRY(enter_loop(r, l));
  uint64_t trips = 0;
  for (;;) {
    KN_TRY(kn_run_tick(r, n));
    if (r->s->trip_limit && trips >= r->s->trip_limit) return kn_run_too_many_trips(r, n);
    if (r->s->profile) kn_profile_trip(r->s->profile);
    KN_TRY(kn_run_block(r, l->block));
    trips++;
    if (!r->p->scalars[body->yields[0]->id].as.b) break;
    KN_TRY(back_edge(r, l));
  }
  KN_TRY(copy_outputs(r, s, 0));
  kn_run_bind_yields(r->p, s, 0);
  forget_lists(r->p, body, 1);
  for (uint32_t i = 0; r->p->has_lists && i < body->nparams; i++)
    kn_run_own_list(r->p, body->params[i]->id, NULL);
  if (kn_run_logs(r)) {
    char impl[40];
    snprintf(impl, sizeof impl, "%" PRIu64 " trip%s", trips, trips == 1 ? "" : "s");
    kn_log_node(r->ctx, "graph", n, impl, r->p->vals);
  }
  if (!r->s->observe) return KN_OK;
  r->s->trips = trips;
  kn_run_watch(r, n);
  return KN_OK;
}

/* ---- steps ---- */

APART kn_status run_whole(run *r, const kn_step *s) { return kn_run_whole(r, r->p->wholes[s->a]); }

kn_status kn_run_fail(run *r, const kn_planned_failure *f) {
  return kn_node_failed(r->ctx, f->node, kn_fail(r->ctx, f->status, "%s", f->text));
}

static kn_status run_step(run *r, const kn_step *s) {
  kn_plan *p = r->p;
  switch (s->kind) {
  case KN_STEP_PART: return kn_run_part(r, &p->parts[s->a]);
  case KN_STEP_NUMBER:
  case KN_STEP_NODE: return kn_run_node(r, s->node);
  case KN_STEP_IF: return run_if(r, s);
  case KN_STEP_LOOP: return run_loop(r, s);
  case KN_STEP_BIND:
    KN_TRY(copy_outputs(r, s, (int)s->a));
    bind_outputs(r, s, (int)s->a);
    return KN_OK;
  case KN_STEP_STRANDS: return kn_run_section(r, &p->sections[s->a]);
  case KN_STEP_WHOLE: return run_whole(r, s);
  case KN_STEP_FAIL: break;
  }
  return kn_run_fail(r, p->fails[s->a]);
}

kn_status kn_run_step(run *r, const kn_step *s) { return run_step(r, s); }

/* What most loops count and compare, in place. */
static inline bool run_quickly(run *r, const kn_step *s) {
  if (s->kind != KN_STEP_NUMBER || !r->quiet) return false;
  kn_scalar *x = r->p->scalars;
  const kn_node *n = s->node;
  return kn_scalar_quick(n->op, &x[n->in[0]->id], &x[n->in[n->nin - 1]->id], &x[n->out[0]->id]);
}

static kn_status run_timed(run *r, uint32_t block, uint32_t i) {
  kn_profile_frame f;
  kn_profile_begin(r->s->profile, block, i, &f);
  kn_status st = run_step(r, &r->p->blocks[block].steps[i]);
  kn_profile_end(r->s->profile, &f);
  return st;
}

kn_status kn_run_block(run *r, uint32_t block) {
  kn_plan *p = r->p;
  const kn_block *b = &p->blocks[block];
  const bool timed = r->s->profile != NULL;
  for (const kn_step *s = b->steps; s < b->steps + b->n; s++) {
    if (!run_quickly(r, s))
      KN_TRY(timed && s->kind != KN_STEP_STRANDS ? run_timed(r, block, (uint32_t)(s - b->steps))
                                                 : run_step(r, s));
    for (const uint32_t *v = p->drops + s->drop; v < p->drops + s->drop + s->ndrop; v++) kn_run_let_go(p, *v);
  }
  return KN_OK;
}

/* ---- a run ---- */

static kn_status bind_inputs(run *r, const kn_rvalue *in) {
  kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  for (uint32_t i = 0; i < body->nparams; i++) {
    uint32_t v = body->params[i]->id;
    p->vals[v] = in[i].tensor;
    if (in[i].tensor) continue;
    if (!kn_is_scalar(body->params[i]->type.kind)) {
      if (kn_is_list(body->params[i]->type.kind)) kn_run_own_list(p, v, kn_run_shared_list(in[i].list));
      continue;
    }
    p->scalars[v] = in[i].scalar;
    if (body->params[i]->type.kind == KN_V_FLOAT && in[i].scalar.kind == KN_SCALAR_INT)
      p->scalars[v] = (kn_scalar){KN_SCALAR_FLOAT, {.f = (double)in[i].scalar.as.i}};
  }
  for (uint32_t i = 0; i < p->nbound; i++) {
    const kn_slot_state *x = &r->s->slots[p->bound[i].slot->index];
    if (p->bound[i].slot->type.kind != KN_V_TENSOR)
      p->scalars[p->bound[i].value] = x->value.scalar;
    else if (x->value.tensor)
      p->vals[p->bound[i].value] = x->value.tensor;
    else
      return kn_fail(r->ctx, KN_STATE, "slot \"%s\" has no data", p->bound[i].slot->name);
  }
  return KN_OK;
}

/* May the tensor of a result be handed over as it is: made by a node of this run, and by nobody else's bytes?
 */
static bool ours_to_give(const kn_plan *p, const kn_value *v) {
  if (p->place[v->id] == KN_PLACE_FRESH) return true;
  if (!p->owned[v->id] || atomic_load(&p->vals[v->id]->refs) != 1 || !v->def || !kn_opcode_is_op(v->def->op))
    return false;
  const kn_op_info *row = &kn_ops[v->def->op];
  return row->op_class != KN_CLASS_VIEW && !(row->flags & KN_FLAG_WRITES);
}

/* Is result i a leaf below a choice? */
static bool is_optional(const kn_tree *t, uint32_t n, uint32_t i, bool below) {
  for (uint32_t k = 0; k < n; k++) {
    if (t[k].kind == KN_TREE_VALUE && t[k].i == i) return below;
    bool inside = below || t[k].kind == KN_TREE_CHOICE;
    if (kn_tree_has_items(t[k].kind) && is_optional(t[k].items, t[k].n, i, inside)) return true;
  }
  return false;
}

/* Branches and loops hand tensors on as they are; ops never do. */
static kn_origin origin_of(const run *r, const kn_rvalue *in, uint32_t i, const kn_tensor *t) {
  const kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  if (!r->s->hands_on) return (kn_origin){KN_FROM_NONE, 0};
  for (uint32_t k = 0; k < body->nparams; k++)
    if (in[k].tensor == t) return (kn_origin){KN_FROM_INPUT, k};
  for (uint32_t k = 0; k < p->graph->nslots; k++)
    if (r->s->slots[k].value.tensor == t) return (kn_origin){KN_FROM_SLOT, k};
  for (uint32_t k = 0; k < i; k++)
    if (p->vals[body->yields[k]->id] == t) return (kn_origin){KN_FROM_OUTPUT, k};
  return (kn_origin){KN_FROM_NONE, 0};
}

static kn_status give_result(run *r, const kn_rvalue *in, uint32_t i) {
  kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  const kn_value *v = body->yields[i];
  kn_rvalue *out = &r->s->out[i];
  r->s->origins[i] = (kn_origin){KN_FROM_NONE, 0};
  *out = (kn_rvalue){.list = kn_run_shared_list(p->lists[v->id])};
  if (v->type.kind != KN_V_TENSOR) {
    out->scalar = p->scalars[v->id];
    return KN_OK;
  }
  kn_tensor *t = p->vals[v->id];
  if (!t && p->graph->partial) return KN_OK;
  if (!t) {
    out->scalar = (kn_scalar){KN_SCALAR_INT, {.i = 0}};
    if (is_optional(p->graph->results, p->graph->nresults, i, false)) return KN_OK;
    return kn_fail(r->ctx, KN_FORMAT, "result %u of graph %s has no value", i + 1, p->graph->name);
  }
  for (uint32_t k = 0; k < i; k++) { /* a value returned twice is one tensor */
    if (body->yields[k] != v) continue;
    r->s->origins[i] = r->s->origins[k];
    return out->tensor = kn_tensor_retain(r->s->out[k].tensor), KN_OK;
  }
  kn_origin from = r->s->origins[i] = origin_of(r, in, i, t);
  if (from.from == KN_FROM_OUTPUT) return out->tensor = kn_tensor_retain(r->s->out[from.index].tensor), KN_OK;
  if (!ours_to_give(p, v)) return kn_run_clone(r, t, &out->tensor);
  out->tensor = kn_tensor_retain(t);
  return KN_OK;
}

static kn_status give_results(run *r, const kn_rvalue *in) {
  uint32_t n = r->p->graph->body->nyields, made = 0;
  kn_status st = KN_OK;
  while (made < n && st == KN_OK) st = give_result(r, in, made++);
  for (uint32_t i = 0; st != KN_OK && i < made; i++) {
    kn_tensor_release(r->s->out[i].tensor);
    kn_list_release(r->s->out[i].list);
  }
  return st;
}

/* ---- what was stored ---- */

static kn_origin stored_origin(const run *r, const kn_rvalue *in, const kn_tensor *t) {
  const kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  for (uint32_t k = 0; k < r->s->nupdates; k++)
    if (r->s->updates[k].from == t) return (kn_origin){KN_FROM_INPUT, r->s->updates[k].input};
  for (uint32_t k = 0; k < body->nparams; k++)
    if (in[k].tensor == t) return (kn_origin){KN_FROM_INPUT, k};
  for (uint32_t k = 0; k < p->graph->nslots; k++)
    if (r->s->slots[k].value.tensor == t) return (kn_origin){KN_FROM_SLOT, k};
  for (uint32_t k = 0; k < body->nyields; k++)
    if (p->vals[body->yields[k]->id] == t) return (kn_origin){KN_FROM_OUTPUT, k};
  return (kn_origin){KN_FROM_NONE, 0};
}

/* While all that was stored is still held, and results are not handed over yet. */
static void find_stored(run *r, const kn_rvalue *in) {
  for (uint32_t i = 0; r->s->tracks && i < r->p->graph->nslots; i++) {
    kn_slot_state *x = &r->s->slots[i];
    x->group = 0;
    if (!x->from) continue;
    uint32_t k = 0;
    while (r->s->slots[k].from != x->from) k++;
    x->group = k + 1;
    x->origin = k < i ? r->s->slots[k].origin : stored_origin(r, in, x->from);
  }
}

static void let_stored_go(kn_session *s) {
  for (uint32_t i = 0; s->tracks && i < s->graph->nslots; i++) {
    kn_tensor_release(s->slots[i].from);
    s->slots[i].from = NULL;
  }
  for (uint32_t i = 0; s->tracks && i < s->nupdates; i++) {
    kn_tensor_release(s->updates[i].from);
    s->updates[i].from = NULL;
  }
}

kn_status kn_run_plan(kn_session *s, kn_plan *p, const kn_rvalue *in) {
  run r = {.s = s, .p = p, .ctx = s->ctx, .quiet = !s->observe && !s->ctx->debug && !s->ctx->recorder};
  kn_caught_clear(s->ctx->heap, &s->caught);
  kn_status st = bind_inputs(&r, in);
  if (st == KN_OK) st = kn_run_give_stores(&r);
  if (st == KN_OK) st = kn_run_early(&r);
  if (st == KN_OK) st = kn_run_block(&r, 0);
  if (st == KN_OK) find_stored(&r, in);
  let_stored_go(s);
  if (st == KN_OK) st = give_results(&r, in);
  kn_run_clean_up(p);
  if (s->ctx->runs) kn_run_keep_nothing(p);
  return st;
}
