/* Which values are computed straight into the tensor that a store or update of them stages, so that it copies
 * nothing: made by an op of the body, stored there once, by what stores nowhere else, and handed on by
 * nothing but ops. Their buffers are no part of the arena; each run says where they lie (run_values.c). */
#include "graph/plan.h"

enum { MOST_SUMS = 8 };

/* How often a slot is stored to, and which values are more than operands of ops. */
static void look(const kn_region *r, uint32_t *stores, bool *handed) {
  KN_EACH_NODE (n, r) {
    const bool store = n->op == KN_NODE_store_state || n->op == KN_NODE_update;
    const bool reads = kn_opcode_is_op(n->op) || n->op == KN_NODE_item || n->op == KN_NODE_size;
    if (n->op == KN_NODE_store_state) stores[n->slot->index]++;
    for (uint32_t i = 0; i < n->nin && !store && !reads; i++) handed[n->in[i]->id] = true;
    for (int i = 0; i < n->nregions; i++) look(n->regions[i], stores, handed);
  }
  for (uint32_t i = 0; i < r->nyields; i++) handed[r->yields[i]->id] = true;
}

/* A sum to sizes that it has already is what it sums; of very long rows of such not the first. */
static const kn_value *source(const kn_plan *p, const kn_value *v) {
  for (int i = 0; i < MOST_SUMS && v->def && kn_plan_may_pass_on(p, v->def); i++) v = v->def->in[0];
  return v;
}

kn_status kn_plan_stores(kn_context *ctx, kn_plan *p) {
  const kn_region *body = p->graph->body;
  if (p->whole) return KN_OK; /* where it lies would change from run to run */
  uint32_t *stores = kn_arena_alloc(&p->arena, (p->graph->nslots + 1u) * sizeof *stores);
  bool *handed = kn_arena_alloc(&p->arena, p->graph->nvalues + 1u);
  if (!stores || !handed) return kn_fail_nomem(ctx, p->graph->nvalues + 1u);
  look(body, stores, handed);
  KN_EACH_NODE (n, body) {
    const bool slot = n->op == KN_NODE_store_state;
    if ((!slot && n->op != KN_NODE_update) || n->in[!slot]->type.kind != KN_V_TENSOR) continue;
    if (slot && (stores[n->slot->index] != 1 || p->slot_copied[n->slot->index])) continue;
    const kn_value *v = source(p, n->in[!slot]);
    const kn_type *to = slot ? &n->slot->type.tensor : &p->inputs[n->in[0]->index];
    const bool made = v->def && v->region == body && kn_opcode_is_op(v->def->op);
    if (made && !handed[v->id] && !p->store[v->id] && kn_type_equal(&p->types[v->id], to))
      p->store[v->id] = n;
  }
  return KN_OK;
}
