/* Parts of a plan: which target computes an op node, what it is shown, and what it says when the part is
 * compiled: nodes that run together, and the room that values need. */
#include "graph/emit.h"
#include "graph/text.h"
#include <stdio.h>
#include <string.h>

/* ---- op nodes ---- */

kn_status kn_part_copy(emitter *e, const kn_node *n, kn_node **out) {
  kn_plan *p = e->p;
  kn_node *c = kn_arena_dup(&p->arena, n, sizeof *n);
  if (!c) return kn_fail_nomem(e->ctx, sizeof *n);
  bool folded = n->nin > n->ntensor, same = false;
  for (uint32_t i = 0; i < n->ntensor; i++) same |= p->same[n->in[i]->id] != NULL;
  if (same && !(c->in = kn_arena_dup(&p->arena, n->in, n->nin * sizeof *n->in)))
    return kn_fail_nomem(e->ctx, n->nin * sizeof *n->in);
  for (uint32_t i = 0; i < n->ntensor && same; i++)
    if (p->same[n->in[i]->id]) c->in[i] = (kn_value *)(uintptr_t)p->same[n->in[i]->id];
  for (uint32_t i = n->ntensor; i < n->nin; i++) folded &= p->known[n->in[i]->id];
  if (folded) {
    kn_attrs_any room;
    const void *attrs;
    KN_TRY(kn_node_attrs_now(e->ctx, n, p->scalars, &room, &attrs));
    c->attrs = kn_arena_dup(&p->arena, attrs, kn_attrs_describe(kn_ops[n->op].attrs).size);
    if (!c->attrs) return kn_fail_nomem(e->ctx, sizeof room);
    c->nin = n->ntensor;
  }
  *out = c;
  return KN_OK;
}

/* Where its results are; those of what moves tensors between devices it makes itself. */
static kn_device_id device_of(const emitter *e, const kn_node *n) {
  return (kn_device_id)e->p->types[n->out[0]->id].device;
}

/* Of the targets that compute there the last, which does what the others do not. */
static const kn_target *last_target(const emitter *e, kn_device_id d) {
  for (int i = e->ntargets - 1; i > 0; i--)
    if (e->targets[i]->device == d) return e->targets[i];
  return e->targets[0];
}

const kn_target *kn_part_target(emitter *e, const kn_node *n) {
  const kn_device_id d = device_of(e, n);
  const kn_target *last = last_target(e, d);
  if (e->n && e->target->device == d && e->target->joins && !e->p->single) {
    kn_part so_far = kn_part_of(e, e->nodes, e->n);
    if (e->target->joins(e->target->self, &so_far, n)) return e->target;
  }
  for (int i = 0; i < e->ntargets && !e->p->single; i++) {
    const kn_target *t = e->targets[i];
    const kn_part so_far = kn_part_of(e, e->nodes, e->n);
    if (t->device == d && t->wants && t->wants(t->self, &so_far, n)) return t;
  }
  for (int i = 0; i < e->ntargets && e->targets[i] != last; i++) {
    const kn_target *t = e->targets[i];
    if (t->device != d) continue;
    char why[256] = "", where[256];
    if (t->supports(t->self, e->ctx, n, e->p->types, why, sizeof why)) return t;
    if (kn_debugging(e->ctx, KN_DEBUG_DISPATCH))
      kn_log(e->ctx, "dispatch: %s refuses %s (%s) %s", t->name, kn_op_name((kn_op)n->op), why,
             kn_where_brief(n->where, where, sizeof where));
  }
  return last;
}

/* ---- parts ---- */

static kn_prepare_how prepare_how(const kn_plan *p, const kn_value *v) {
  const kn_op_info *row = &kn_ops[v->def->op];
  bool tied = row->op_class == KN_CLASS_VIEW || row->flags & (KN_FLAG_WRITES | KN_FLAG_DYNAMIC);
  if (p->place[v->id] == KN_PLACE_SHELL) return KN_PREPARE_SHELL;
  if (p->place[v->id] == KN_PLACE_FRESH) return KN_PREPARE_MAKE;
  return tied || !kn_type_known(&p->types[v->id]) ? KN_PREPARE_NONE : KN_PREPARE_TAKE;
}

static bool watch(kn_plan *p, kn_part_plan *part, const kn_node *n, uint32_t v) {
  const kn_wary w = {n, v};
  bool before = part->nwary && part->wary[part->nwary - 1].value == v; /* as nodes in a row often do */
  return !p->maybe[v] || before || kn_plan_push(p, &part->wary, &part->nwary, &w, sizeof w);
}

/* What the run must do for a part's outputs, and look at in its inputs. */
static bool prepare_part(kn_plan *p, kn_part_plan *part) {
  for (uint32_t i = 0; i < part->n; i++) {
    const kn_node *n = part->nodes[i];
    for (uint32_t k = 0; k < n->ntensor; k++)
      if (!watch(p, part, n, n->in[k]->id)) return false;
    for (uint32_t k = 0; k < n->nout; k++) {
      uint8_t at = p->place[n->out[k]->id];
      if (at != KN_PLACE_SHELL && at != KN_PLACE_FRESH && at != KN_PLACE_LOOSE) continue;
      const kn_prepare out = {n->out[k], prepare_how(p, n->out[k])};
      if (!kn_plan_push(p, &part->prepare, &part->nprepare, &out, sizeof out)) return false;
    }
  }
  return true;
}

kn_part kn_part_of(const emitter *e, const kn_node *const *nodes, uint32_t n) {
  const kn_plan *p = e->p;
  return (kn_part){.graph = p->graph,
                   .nodes = nodes,
                   .n = n,
                   .reads = p->reads,
                   .types = p->types,
                   .root = p->root,
                   .room = e->room,
                   .over = e->over};
}

/* The nodes from i to the last run together: all that they write is there from the first on, and so apart
 * from each other and from all that any of them reads. */
static void hold_together(kn_plan *p, const kn_part *part, uint32_t i, uint32_t last, uint32_t start) {
  for (uint32_t k = i; k <= last; k++)
    for (uint32_t j = 0; j < part->nodes[k]->nout; j++) p->first[part->nodes[k]->out[j]->id] = start + i;
}

/* What the target has found; `start`: the time of the part's first node. */
static kn_status settle_part(emitter *e, const kn_part *part, uint32_t start) {
  kn_plan *p = e->p;
  for (uint32_t i = 0, k; i < part->n; i += k) {
    k = part->together[i] ? part->together[i] : 1;
    if (k > part->n - i) k = part->n - i;
    hold_together(p, part, i, i + k - 1, start);
    for (uint32_t j = i; j < i + k; j++)
      for (uint32_t o = 0; o < part->nodes[j]->nout; o++) {
        uint32_t v = part->nodes[j]->out[o]->id;
        kn_over over = {v, e->over[v], start + i + k - 1};
        p->hidden[v] = e->room[v] != 0;
        if (over.under && (p->form == KN_PLAN_USUAL || p->whole) &&
            !kn_plan_push(p, &p->overs, &p->novers, &over, sizeof over))
          return kn_fail_nomem(e->ctx, sizeof over);
      }
  }
  for (uint32_t b = e->buffers; b < p->nbuffers; b++) {
    kn_buffer *at = &p->buffers[b];
    size_t room = e->room[at->value];
    if (!room) continue;
    at->none = room == KN_ROOM_NONE;
    if (!at->none && room > at->bytes) at->bytes = room;
  }
  return KN_OK;
}

static void forget_finds(emitter *e, const kn_part *part) {
  for (uint32_t i = 0; i < part->n; i++)
    for (uint32_t k = 0; k < part->nodes[i]->nout; k++)
      e->room[part->nodes[i]->out[k]->id] = 0, e->over[part->nodes[i]->out[k]->id] = 0;
  memset(part->together, 0, part->n * sizeof *part->together);
}

kn_status kn_part_flush(emitter *e) {
  if (!e->n) return KN_OK;
  kn_plan *p = e->p;
  kn_part_plan part = {.target = e->target, .nodes = e->nodes, .sources = e->sources, .n = e->n};
  kn_part given = kn_part_of(e, part.nodes, part.n);
  const kn_target *last = last_target(e, e->target->device);
  given.together = kn_arena_alloc(&p->arena, part.n * sizeof *given.together);
  if (!given.together) return kn_fail_nomem(e->ctx, part.n * sizeof *given.together);
  e->nodes = e->sources = NULL;
  e->n = e->nsources = 0;
  if (!prepare_part(p, &part) || !kn_plan_push(p, &p->parts, &p->nparts, &part, sizeof part))
    return kn_fail_nomem(e->ctx, sizeof part);
  kn_part_plan *made = &p->parts[p->nparts - 1];
  kn_status st = made->target->compile(made->target->self, e->ctx, &given, &made->program);
  if (st == KN_UNSUPPORTED && made->target != last) {
    if (kn_debugging(e->ctx, KN_DEBUG_DISPATCH))
      kn_log(e->ctx, "dispatch: %s gave up a part: %s", made->target->name, kn_error(e->ctx));
    made->target = last;
    forget_finds(e, &given);
    st = last->compile(last->self, e->ctx, &given, &made->program);
  }
  KN_TRY(st);
  uint32_t *together = kn_arena_dup(&p->arena, given.together, part.n * sizeof *together);
  if (!together) return kn_fail_nomem(e->ctx, part.n * sizeof *together);
  made->together = together;
  KN_TRY(settle_part(e, &given, e->pos + 1 - part.n));
  forget_finds(e, &given);
  return kn_push_step(e, (kn_step){.kind = KN_STEP_PART, .node = made->sources[0], .a = p->nparts - 1});
}
