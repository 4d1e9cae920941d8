/* Which tensors that a loop carries must stay the tensors they are, because whoever runs the graph is told at
 * its end that a result, or what a slot was given, is a certain tensor: an input, a slot's, another result.
 * All other ones may be carried as copies. What the program itself compares is place.c's. */
#include "graph/may_be.h"
#include "graph/plan.h"
#include "graph/when.h"

typedef struct search {
  kn_plan *p;
  kn_may_be m;
  uint8_t *ends; /* how many ends of the graph a value may be at */
} search;

static void begin(search *s, const kn_value *v) {
  kn_may_be_begin(&s->m);
  kn_may_be_add(&s->m, v);
}

static bool is_view(const kn_node *d) {
  return kn_node_passes(d) || (kn_opcode_is_op(d->op) && (kn_ops[d->op].op_class == KN_CLASS_VIEW ||
                                                          kn_ops[d->op].flags & KN_FLAG_WRITES));
}

/* The values that may be the very tensor v, and those whose elements it may show. */
static void step_shown(search *s, const kn_value *v) {
  if (!kn_may_be_step(&s->m, v) && v->def && is_view(v->def)) kn_may_be_add(&s->m, v->def->in[0]);
}

/* May the parameter be a tensor that somebody could tell? */
static bool is_asked(search *s, const kn_value *param) {
  bool found = false;
  for (begin(s, param); s->m.n && !found;) {
    const kn_value *v = s->m.todo[--s->m.n];
    found = s->ends[v->id] > 1;
    kn_may_be_step(&s->m, v);
  }
  return found;
}

/* It is carried as it is, so nothing that it may be lies where the next trip writes. */
static void keep(search *s, const kn_value *param) {
  for (begin(s, param); s->m.n;) {
    const kn_value *v = s->m.todo[--s->m.n];
    s->p->handle[v->id] = true;
    step_shown(s, v);
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

static bool add_seen(void *m, const kn_value *v) { return kn_may_be_add(m, v), false; }

/* As kn_may_be_step; of a loop's values those that a trip ends with which goes on, or does not. */
static void step_seen(search *s, const kn_value *v) {
  const kn_node *d = v->def, *owner = v->region->owner;
  if (!d && owner && owner->op == KN_NODE_loop) {
    kn_may_be_add(&s->m, owner->in[v->index]);
    kn_any_when(v->region->yields[1 + v->index], v->region->yields[0], true, add_seen, &s->m);
  } else if (d && d->op == KN_NODE_loop) {
    const kn_region *r = d->regions[0];
    kn_any_when(r->yields[1 + r->nparams + v->index], r->yields[0], false, add_seen, &s->m);
  } else {
    kn_may_be_step(&s->m, v);
  }
}

/* What v may be has a value or has none, and that is seen. */
static void mark_exact(search *s, const kn_value *v) {
  for (begin(s, v); s->m.n;) {
    v = s->m.todo[--s->m.n];
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
              .m = {.todo = kn_arena_alloc(&p->arena, n * sizeof *s.m.todo),
                    .seen = kn_arena_alloc(&p->arena, n * sizeof *s.m.seen)},
              .ends = kn_arena_alloc(&p->arena, n)};
  kn_end *list = kn_arena_alloc(&p->arena, n * sizeof *list);
  if (!s.m.todo || !s.m.seen || !s.ends || !list) return kn_fail_nomem(ctx, n);
  if (p->whole) find_exact(&s, p->graph->body);
  kn_count_ends(&s.m, list, kn_list_ends(p->graph->body, list), s.ends);
  visit(&s, p->graph->body);
  return KN_OK;
}
