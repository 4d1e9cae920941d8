/* Which tensors that a loop carries must stay the tensors they are, because whoever runs the graph is told at
 * its end that a result, or what a slot was given, is a certain tensor: an input, a slot's, another result.
 * All other ones may be carried as copies. What the program itself compares is place.c's. */
#include "graph/plan.h"
#include "graph/when.h"
#include <string.h>

typedef struct search {
  kn_plan *p;
  const kn_value **todo;
  uint32_t *seen; /* values by id: the round that has met them */
  uint32_t n, round;
  uint8_t *ends; /* how many ends of the graph a value may be at: 2 is many, and outside is 2 */
} search;

static void add(search *s, const kn_value *v) {
  if (v->type.kind != KN_V_TENSOR || s->seen[v->id] == s->round) return;
  s->seen[v->id] = s->round;
  s->todo[s->n++] = v;
}

static void begin(search *s) {
  s->round++;
  s->n = 0;
}

static bool is_view(const kn_node *d) {
  return kn_node_passes(d) || (kn_opcode_is_op(d->op) && (kn_ops[d->op].op_class == KN_CLASS_VIEW ||
                                                          kn_ops[d->op].flags & KN_FLAG_WRITES));
}

/* The values that may be the very tensor v; with `shown`, also those whose elements it may show. */
static void step(search *s, const kn_value *v, bool shown) {
  const kn_node *d = v->def, *owner = v->region->owner;
  if (!d && owner && owner->op == KN_NODE_loop) {
    add(s, owner->in[v->index]);
    add(s, v->region->yields[1 + v->index]);
  } else if (!d)
    return;
  else if (d->op == KN_NODE_if) {
    for (int side = 0; side < 2; side++)
      if (v->index < d->regions[side]->nyields) add(s, d->regions[side]->yields[v->index]);
  } else if (d->op == KN_NODE_loop)
    add(s, d->regions[0]->yields[1 + d->regions[0]->nparams + v->index]);
  else if (d->op == KN_NODE_select)
    add(s, d->in[1]), add(s, d->in[2]);
  else if (shown && is_view(d))
    add(s, d->in[0]);
}

static bool is_outside(const kn_value *v) {
  if (!v->def) return !v->region->owner;
  return v->def->op == KN_NODE_param || v->def->op == KN_NODE_load_state || v->def->op == KN_NODE_tensor;
}

/* One end of the graph: what may be there is there once more. */
static void count_end(search *s, const kn_value *v) {
  begin(s);
  add(s, v);
  while (s->n) {
    v = s->todo[--s->n];
    s->ends[v->id] = s->ends[v->id] || is_outside(v) ? 2 : 1;
    step(s, v, false);
  }
}

static void count_ends(search *s) {
  const kn_region *body = s->p->graph->body;
  for (uint32_t i = 0; i < body->nyields; i++) {
    bool again = false; /* a value that is two results is one anyhow */
    for (uint32_t k = 0; k < i && !again; k++) again = body->yields[k] == body->yields[i];
    if (!again) count_end(s, body->yields[i]);
  }
  KN_EACH_NODE (n, body) {
    if (n->op == KN_NODE_store_state) count_end(s, n->in[0]);
    if (n->op == KN_NODE_update) count_end(s, n->in[1]);
  }
}

/* May the parameter be a tensor that somebody could tell? */
static bool is_asked(search *s, const kn_value *param) {
  bool found = false;
  begin(s);
  for (add(s, param); s->n && !found;) {
    const kn_value *v = s->todo[--s->n];
    found = s->ends[v->id] > 1;
    step(s, v, false);
  }
  return found;
}

/* It is carried as it is, so nothing that it may be lies where the next trip writes. */
static void keep(search *s, const kn_value *param) {
  begin(s);
  for (add(s, param); s->n;) {
    const kn_value *v = s->todo[--s->n];
    s->p->handle[v->id] = true;
    step(s, v, true);
  }
}

static void visit(search *s, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) visit(s, n->regions[i]);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->regions[0]->nparams; i++) {
      const kn_value *v = n->regions[0]->params[i];
      if (v->type.kind == KN_V_TENSOR && s->ends[v->id] && is_asked(s, v)) keep(s, v);
    }
    const bool chooses = s->p->whole && (n->op == KN_NODE_if || n->op == KN_NODE_select);
    for (uint32_t i = 0; chooses && i < n->nout; i++) /* is that tensor, and no copy of its elements */
      if (n->out[i]->type.kind == KN_V_TENSOR && s->ends[n->out[i]->id] && is_asked(s, n->out[i]))
        s->p->handle[n->out[i]->id] = true;
  }
}

static bool add_seen(void *s, const kn_value *v) { return add(s, v), false; }

/* As `step`; of a loop's values those that a trip ends with which goes on, or does not. */
static void step_seen(search *s, const kn_value *v) {
  const kn_node *d = v->def, *owner = v->region->owner;
  if (!d && owner && owner->op == KN_NODE_loop) {
    add(s, owner->in[v->index]);
    kn_any_when(v->region->yields[1 + v->index], v->region->yields[0], true, add_seen, s);
  } else if (d && d->op == KN_NODE_loop) {
    const kn_region *r = d->regions[0];
    kn_any_when(r->yields[1 + r->nparams + v->index], r->yields[0], false, add_seen, s);
  } else {
    step(s, v, false);
  }
}

/* What v may be has a value or has none, and that is seen. */
static void mark_exact(search *s, const kn_value *v) {
  begin(s);
  for (add(s, v); s->n;) {
    v = s->todo[--s->n];
    s->p->exact[v->id] = true;
    step_seen(s, v);
  }
}

/* All but ops and what hands tensors on may ask; a store in a branch is only reached where there is one. */
static void find_exact(search *s, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    const bool asks = !(n->op == KN_NODE_store_state && r->owner) && !kn_opcode_is_op(n->op) &&
                      !n->nregions && n->op != KN_NODE_item && n->op != KN_NODE_size &&
                      n->op != KN_NODE_select;
    for (uint32_t i = 0; asks && i < n->nin; i++) mark_exact(s, n->in[i]);
    for (int k = 0; k < n->nregions; k++) find_exact(s, n->regions[k]);
  }
  for (uint32_t i = 0; !r->owner && i < r->nyields; i++) mark_exact(s, r->yields[i]);
}

kn_status kn_plan_identities(kn_context *ctx, kn_plan *p) {
  uint32_t n = p->graph->nvalues + 1;
  if (!kn_region_has(p->graph->body, KN_NODE_loop) && !p->whole) return KN_OK;
  search s = {.p = p,
              .todo = kn_arena_alloc(&p->arena, n * sizeof *s.todo),
              .seen = kn_arena_alloc(&p->arena, n * sizeof *s.seen),
              .ends = kn_arena_alloc(&p->arena, n)};
  if (!s.todo || !s.seen || !s.ends) return kn_fail_nomem(ctx, n);
  if (p->whole) find_exact(&s, p->graph->body);
  count_ends(&s);
  visit(&s, p->graph->body);
  return KN_OK;
}
