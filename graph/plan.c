/* Making and freeing plans: allocation of the per-value arrays, the stages in order, and the lists of values
 * that each step may let go of. */
#include "graph/whole.h"
#include <string.h>

#define MOST_TUNING 0.2 /* seconds that one plan measures at most */

bool kn_push(kn_arena *a, void *array, uint32_t *count, const void *elem, size_t size) {
  char *at;
  memcpy(&at, array, sizeof at); /* array is some T ** */
  at = kn_arena_grow(a, at, *count, size);
  if (!at) return false;
  memcpy(at + (size_t)*count * size, elem, size);
  memcpy(array, &at, sizeof at);
  ++*count;
  return true;
}

bool kn_plan_push(kn_plan *p, void *array, uint32_t *count, const void *elem, size_t size) {
  return kn_push(&p->arena, array, count, elem, size);
}

static bool alloc_arrays(kn_plan *p) {
  size_t n = (size_t)p->graph->nvalues + 1;
#define ARRAY(field) (p->field = kn_arena_alloc(&p->arena, n * sizeof *p->field))
  bool ok = ARRAY(types) && ARRAY(hidden) && ARRAY(undefined) && ARRAY(maybe) && ARRAY(known) &&
            ARRAY(scalars) && ARRAY(failure) && ARRAY(result) && ARRAY(listed) && ARRAY(handle) &&
            ARRAY(exact) && ARRAY(place) && ARRAY(header) && ARRAY(same) && ARRAY(root) && ARRAY(reads) &&
            ARRAY(vals) && ARRAY(lists) && ARRAY(owned) && ARRAY(first) && ARRAY(last) && ARRAY(crosses) &&
            ARRAY(level) && ARRAY(home) && ARRAY(ready) && ARRAY(passed) && ARRAY(store);
#undef ARRAY
  p->slot_copied = kn_arena_alloc(&p->arena, (size_t)p->graph->nslots + 1);
  for (uint32_t v = 0; ok && v < n; v++) p->root[v] = v;
  return ok && p->slot_copied;
}

/* ---- lifetimes, once all steps are there ---- */

/* Strands run in any order: what was there before lives until the last of them has ended. */
static void outlive_strands(kn_plan *p, uint32_t v) {
  uint32_t low = 0, high = p->nsections; /* which follow one another, none in another */
  while (low < high) {
    uint32_t i = low + (high - low) / 2;
    if (p->sections[i].start < p->last[v])
      low = i + 1;
    else
      high = i;
  }
  const kn_section *x = low ? &p->sections[low - 1] : NULL; /* the last that starts before */
  if (x && p->first[v] <= x->start && p->last[v] < x->end) p->last[v] = x->end;
}

static void settle_lifetimes(kn_plan *p) {
  for (uint32_t v = 1; v <= p->graph->nvalues; v++) {
    uint32_t end = p->crosses[v] ? p->loops[p->crosses[v] - 1].end : 0;
    if (p->last[v] < end) p->last[v] = end;
  }
  for (uint32_t v = 1; v <= p->graph->nvalues; v++) outlive_strands(p, v);
  for (uint32_t i = p->naliases; i--;) { /* later ones first: they may hang on earlier ones */
    kn_alias a = p->aliases[i];
    if (p->last[a.src] < p->last[a.dst]) p->last[a.src] = p->last[a.dst];
    outlive_strands(p, a.src);
  }
  for (uint32_t i = 0; i < p->nbuffers; i++) {
    kn_buffer *b = &p->buffers[i];
    if (!b->value) continue;
    b->last = p->last[b->value];
    if (b->first > p->first[b->value]) b->first = p->first[b->value];
  }
}

/* Results that lie where an input of theirs lay, which is read no more: one buffer for both. Buffers of the
 * same trip of the same loops only; positions tell no more than that. */
static kn_status settle_overs(kn_context *ctx, kn_plan *p) {
  uint32_t *buffer = kn_arena_alloc(&p->arena, (p->graph->nvalues + 1u) * sizeof *buffer);
  if (!buffer) return kn_fail_nomem(ctx, (p->graph->nvalues + 1u) * sizeof *buffer);
  for (uint32_t i = 0; i < p->nbuffers; i++) buffer[p->buffers[i].value] = i + 1;
  for (uint32_t i = 0; i < p->novers; i++) {
    const kn_over *o = &p->overs[i];
    if (!buffer[o->value] || !buffer[o->under]) continue;
    kn_buffer *v = &p->buffers[buffer[o->value] - 1], *u = &p->buffers[buffer[o->under] - 1];
    bool done = u->last <= o->last && u->first < v->first; /* it is read no more, and not of the group */
    if (!done || v->store || u->store || v->under || v->none || u->none || v->bytes != u->bytes ||
        v->block != u->block)
      continue;
    v->under = buffer[o->under];
    for (kn_buffer *b = u;; b = &p->buffers[b->under - 1]) {
      b->last = v->last;
      if (!b->under) break;
    }
  }
  return KN_OK;
}

/* What a branch yields lies in the place of what it is yielded to, where it has a place of its own, and none
 * of its views is another result. */
static void settle_yields(kn_plan *p) {
  for (uint32_t i = 0; i < p->nbuffers; i++) {
    kn_buffer *b = &p->buffers[i];
    if (!b->into || b->under || b->store || b->none) continue;
    const kn_buffer *to = &p->buffers[b->into - 1];
    const bool after = b->last > p->first[to->value]; /* somebody reads it then, who knows when */
    if (b->bytes == to->bytes && !to->under && !after) b->under = b->into;
  }
}

static void own_pos(kn_plan *p, kn_step **owner, uint32_t size, kn_step *s) {
  uint32_t from = s->pos;
  if (s->kind == KN_STEP_PART) from = s->pos - p->parts[s->a].n + 1;
  for (uint32_t i = from; i <= s->pos && i < size; i++) owner[i] = s;
  if (s->kind == KN_STEP_LOOP && p->loops[s->a].end < size) owner[p->loops[s->a].end] = s;
}

/* Values made or bound by the run are let go of at the step of their last use; those that have none (results
 * of the graph, what only one branch yields) at the end. */
static kn_status list_drops(kn_context *ctx, kn_plan *p) {
  uint32_t size = 1, total = 0;
  for (uint32_t v = 1; v <= p->graph->nvalues; v++)
    if (p->last[v] >= size) size = p->last[v] + 1;
  kn_step **owner = kn_calloc(ctx->heap, size, sizeof *owner);
  if (!owner) return kn_fail_nomem(ctx, size * sizeof *owner);
  for (uint32_t b = 0; b < p->nblocks; b++)
    for (uint32_t i = 0; i < p->blocks[b].n; i++) own_pos(p, owner, size, &p->blocks[b].steps[i]);
#define DROPS(v)                                                                                             \
  ((p->place[v] == KN_PLACE_LOOSE || p->place[v] == KN_PLACE_SHELL) && owner[p->last[v]] && !p->ready[v])
  for (uint32_t v = 1; v <= p->graph->nvalues; v++)
    if (DROPS(v)) owner[p->last[v]]->ndrop++, total++;
  p->drops = kn_arena_alloc(&p->arena, (total + 1) * sizeof *p->drops);
  if (p->drops) {
    uint32_t at = 0;
    for (uint32_t b = 0; b < p->nblocks; b++)
      for (uint32_t i = 0; i < p->blocks[b].n; i++) {
        p->blocks[b].steps[i].drop = at;
        at += p->blocks[b].steps[i].ndrop;
        p->blocks[b].steps[i].ndrop = 0;
      }
    for (uint32_t v = 1; v <= p->graph->nvalues; v++)
      if (DROPS(v)) p->drops[owner[p->last[v]]->drop + owner[p->last[v]]->ndrop++] = v;
  }
#undef DROPS
  kn_free(ctx->heap, owner, size * sizeof *owner);
  return p->drops ? KN_OK : kn_fail_nomem(ctx, (total + 1) * sizeof *p->drops);
}

/* ---- values that have no place ---- */

/* The types of which runs make tensors. Those of tensors that are handed over count as well: what comes back
 * is theirs. */
static void list_loose(kn_plan *p) {
  for (uint32_t i = 0; i < p->nparts; i++)
    for (uint32_t k = 0; k < p->parts[i].nprepare; k++) {
      const kn_value *v = p->parts[i].prepare[k].value;
      if (p->parts[i].prepare[k].how != KN_PREPARE_TAKE) continue;
      uint32_t at = 0;
      while (at < p->nloose && !kn_type_equal(&p->loose[at].type, &p->types[v->id])) at++;
      if (at == p->nloose && at < KN_LOOSE_TYPES) p->loose[p->nloose++].type = p->types[v->id];
    }
}

/* What a run may hold when it ends, however it ends: not inputs, slots and views of slots. */
static kn_status list_held(kn_context *ctx, kn_plan *p) {
  bool *again = kn_arena_alloc(&p->arena, (size_t)p->graph->nvalues + 1);
  if (!again) return kn_fail_nomem(ctx, p->graph->nvalues);
  for (uint32_t i = 0; i < p->nearly; i++) again[p->early[i].node->out[0]->id] = !p->early[i].stays;
  for (uint32_t v = 1; v <= p->graph->nvalues; v++) {
    bool held = p->place[v] >= KN_PLACE_SHELL;
    if (held && (!p->ready[v] || again[v]) && !kn_plan_push(p, &p->held, &p->nheld, &v, sizeof v))
      return kn_fail_nomem(ctx, sizeof v);
  }
  return KN_OK;
}

/* ---- life ---- */

static kn_status build(kn_context *ctx, kn_plan *p, const kn_target *const *targets, int ntargets,
                       const kn_type *inputs) {
  const kn_graph *g = p->graph;
  p->inputs = kn_arena_dup(&p->arena, inputs, g->body->nparams * sizeof *inputs);
  if (!p->inputs || !alloc_arrays(p)) return kn_fail_nomem(ctx, 0);
  for (uint32_t i = 0; i < g->body->nyields; i++) p->result[g->body->yields[i]->id] = true;
  KN_TRY(kn_plan_sizes(ctx, p));
  KN_TRY(kn_plan_flats(ctx, p));
  KN_TRY(kn_plan_handles(ctx, p));
  KN_TRY(kn_plan_identities(ctx, p));
  KN_TRY(kn_plan_stores(ctx, p));
  KN_TRY(kn_plan_constants(ctx, p));
  KN_TRY(kn_plan_emit(ctx, p, targets, ntargets));
  KN_TRY(kn_plan_bindings(ctx, p));
  settle_lifetimes(p);
  list_loose(p);
  KN_TRY(settle_overs(ctx, p));
  settle_yields(p);
  KN_TRY(list_drops(ctx, p));
  KN_TRY(list_held(ctx, p));
  KN_TRY(kn_plan_layout(ctx, p));
  for (uint32_t v = 1; v <= g->nvalues; v++)
    if (kn_plan_is_fixed(p, v)) p->vals[v] = p->header[v];
  return p->whole ? kn_plan_wholes(ctx, p) : KN_OK;
}

/* Who would run pieces of plans as one: the first that can. */
static const kn_target *find_launcher(const kn_target *const *targets, int n) {
  for (int i = 0; i < n; i++)
    if (targets[i]->launcher) return targets[i];
  return NULL;
}

kn_status kn_plan_new(kn_context *ctx, const kn_graph *g, const kn_target *const *targets, int ntargets,
                      kn_plan_form form, const kn_refused *refused, const kn_type *inputs, kn_plan **out) {
  const size_t before = kn_heap_bytes(ctx->heap);
  kn_plan *p = kn_calloc(ctx->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  p->graph = g;
  p->form = form;
  p->single = form == KN_PLAN_SINGLE;
  p->whole = form == KN_PLAN_WHOLE ? find_launcher(targets, ntargets) : NULL;
  p->refused = refused;
  atomic_flag_clear(&p->loose_taken);
  p->fixed = kn_context_tuning(ctx) == KN_TUNING_FIXED;
  ctx->tuning_left = MOST_TUNING;
  ctx->tuning_missed = false;
  kn_arena_init(&p->arena, ctx->heap);
  kn_status st = build(ctx, p, targets, ntargets, inputs);
  if (st != KN_OK) {
    kn_plan_free(ctx, p);
    return st;
  }
  p->unmeasured = ctx->tuning_missed;
  const size_t after = kn_heap_bytes(ctx->heap); /* other threads may have given memory back meanwhile */
  p->kept = after > before ? after - before : 0;
  if (kn_debugging(ctx, KN_DEBUG_MEM)) kn_plan_log(ctx, p);
  *out = p;
  return KN_OK;
}

void kn_plan_drop_spares(kn_plan *p) {
  for (uint32_t i = 0; i < p->nloose; i++)
    while (p->loose[i].n) kn_tensor_release(p->loose[i].spare[--p->loose[i].n]);
}

void kn_plan_free(kn_context *ctx, kn_plan *p) {
  if (!p) return;
  for (uint32_t i = 0; i < p->nwholes; i++) kn_whole_free(ctx, p->wholes[i]);
  for (uint32_t i = 0; i < p->nparts; i++)
    if (p->parts[i].program) p->parts[i].target->free(p->parts[i].target->self, ctx, p->parts[i].program);
  for (uint32_t v = 1; p->place && v <= p->graph->nvalues; v++)
    if (p->place[v] == KN_PLACE_CONST) {
      kn_tensor_release(p->header[v]); /* twice: see constant.c */
      kn_tensor_release(p->header[v]);
    } else if (p->place[v] == KN_PLACE_VIEW || p->place[v] == KN_PLACE_SHELL)
      kn_tensor_release(p->header[v]);
  for (uint32_t i = 0; i < p->nbuffers; i++) kn_tensor_release(p->buffers[i].header);
  for (uint32_t i = 0; i < p->nsections; i++)
    for (uint32_t k = 0; k < p->sections[i].n; k++) kn_context_free(p->sections[i].strands[k].ctx);
  kn_plan_drop_spares(p);
  kn_arena_free(&p->arena);
  kn_free(ctx->heap, p, sizeof *p);
}

void kn_plan_place_at(kn_plan *p, kn_device_id d, char *base) {
  if (p->base[d] == base) return;
  for (uint32_t i = 0; i < p->nbuffers; i++) {
    const kn_buffer *b = &p->buffers[i];
    if (!b->store && b->header->type.device == d) b->header->storage->data = base + b->offset;
  }
  p->base[d] = base;
}
