/* Which nodes may write their result over their first input, in its bytes (ops with the flag OVER): when it
 * lies in the arena and nobody reads it afterwards, neither as it is nor by a view. A loop that puts rows
 * into a carried tensor then copies nothing. */
#include "graph/attempt.h"
#include "graph/plan.h"

enum { MOST_VIEWS = 32 };

typedef struct search {
  const kn_plan *p;
  const kn_node *n;
  const kn_value *shown[MOST_VIEWS]; /* the input, and what shows its elements */
  uint32_t nshown;
  bool passed, refused;
} search;

static bool is_shown(const search *o, const kn_value *v) {
  for (uint32_t i = 0; i < o->nshown; i++)
    if (o->shown[i] == v) return true;
  return false;
}

static void show(search *o, const kn_value *v) {
  if (o->nshown == MOST_VIEWS)
    o->refused = true;
  else
    o->shown[o->nshown++] = v;
}

static bool holds(const kn_node *owner, const kn_node *n) {
  for (const kn_node *at = n->region->owner; at; at = at->region->owner)
    if (at == owner) return true;
  return false;
}

static int side_of(const kn_node *owner, const kn_node *n) {
  const kn_region *r = n->region;
  while (r->owner != owner) r = r->owner->region;
  return r == owner->regions[1];
}

/* Reads elements before they are overwritten, and hands them on by no other way than a view. */
static void use(search *o, const kn_node *n) {
  bool op = kn_opcode_is_op(n->op);
  bool reads = op ? !(kn_ops[n->op].flags & KN_FLAG_WRITES)
                  : n->op == KN_NODE_item || n->op == KN_NODE_size || n->op == KN_NODE_defined;
  if (o->passed || !reads)
    o->refused = true;
  else if (op && (kn_ops[n->op].op_class == KN_CLASS_VIEW || o->p->place[n->out[0]->id] == KN_PLACE_VIEW))
    show(o, n->out[0]);
}

static void walk(search *o, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (o->refused) return;
    for (uint32_t i = n == o->n; i < n->nin && !o->refused; i++)
      if (is_shown(o, n->in[i])) use(o, n), o->refused |= n == o->n;
    if (n == o->n) o->passed = true;
    bool around = n->nregions && holds(n, o->n);
    o->refused |= around && n->op == KN_NODE_if && kn_is_attempt(n); /* both branches may run */
    for (int k = 0; k < n->nregions && !o->refused; k++)
      if (!around || n->op != KN_NODE_if || k == side_of(n, o->n)) walk(o, n->regions[k]);
  }
  for (uint32_t i = 0; i < r->nyields; i++) o->refused |= is_shown(o, r->yields[i]);
}

static const kn_node *loop_around(const kn_region *r) {
  while (r->owner && r->owner->op != KN_NODE_loop) r = r->owner->region;
  return r->owner;
}

bool kn_plan_is_over(const kn_plan *p, const kn_value *v) {
  return p->place[v->id] == KN_PLACE_VIEW && v->def && kn_opcode_is_op(v->def->op) &&
         kn_ops[v->def->op].flags & KN_FLAG_OVER;
}

static bool may_be_over(const kn_plan *p, const kn_node *n) {
  if (!(kn_ops[n->op].flags & KN_FLAG_OVER) || (p->form != KN_PLAN_USUAL && !p->whole)) return false;
  const kn_value *x = n->in[0], *v = n->out[0];
  uint32_t a = x->id, b = v->id;
  bool place = p->place[a] == KN_PLACE_ARENA || kn_plan_is_over(p, x);
  if (!place) return false;
  if (p->handle[a] || p->handle[b] || p->listed[a] || p->listed[b]) return false;
  if (!kn_type_known(&p->types[b]) || !kn_type_equal(&p->types[a], &p->types[b])) return false;
  if (loop_around(x->region) != loop_around(n->region)) return false;
  search o = {.p = p, .n = n, .shown = {x}, .nshown = 1};
  walk(&o, x->region);
  return !o.refused && o.passed;
}

kn_status kn_plan_over(kn_context *ctx, kn_plan *p, const kn_node *n, bool *over) {
  *over = may_be_over(p, n);
  if (!*over) return KN_OK;
  const kn_tensor *x = p->header[n->in[0]->id];
  uint32_t v = n->out[0]->id;
  kn_tensor *t;
  KN_TRY(kn_tensor_symbolic(ctx, &p->types[v], NULL, &t));
  kn_tensor_set_view(t, x, x->offset, x->strides);
  p->header[v] = t;
  p->place[v] = KN_PLACE_VIEW;
  return KN_OK;
}
