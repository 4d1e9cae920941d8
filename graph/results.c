/* The end of a run: results handed over, and which tensors of the program they are, and what was stored.
 * What happens before is in run.c, who makes Lua values of them is the binding. */
#include "graph/run.h"

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

/* What branches and loops hand on. */
static kn_origin origin_of(const kn_run *r, uint32_t i, uint32_t object) {
  const kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  if (!r->s->hands_on || !object) return (kn_origin){KN_FROM_NONE, 0};
  for (uint32_t k = 0; k < body->nparams; k++)
    if (p->who[body->params[k]->id] == object) return (kn_origin){KN_FROM_INPUT, k};
  for (uint32_t k = 0; k < p->graph->nslots; k++)
    if (r->s->slots[k].object == object) return (kn_origin){KN_FROM_SLOT, k};
  for (uint32_t k = 0; k < i; k++)
    if (p->who[body->yields[k]->id] == object) return (kn_origin){KN_FROM_OUTPUT, k};
  return (kn_origin){KN_FROM_NONE, 0};
}

static kn_status give_result(kn_run *r, uint32_t i) {
  kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  const kn_value *v = body->yields[i];
  kn_rvalue *out = &r->s->out[i];
  r->s->origins[i] = (kn_origin){KN_FROM_NONE, 0};
  kn_list *list = p->lists[v->id];
  *out = (kn_rvalue){.list = list ? kn_list_retain(list) : NULL};
  if (v->type.kind != KN_V_TENSOR) {
    out->scalar = p->scalars[v->id];
    return KN_OK;
  }
  kn_tensor *t = p->vals[v->id];
  if (!t && p->graph->partial) return KN_OK;
  if (!t) {
    out->scalar = (kn_scalar){KN_SCALAR_INT, {.i = 0}};
    if (is_optional(p->graph->results, p->graph->nresults, i, false)) return KN_OK;
    return kn_fail(r->ctx, KN_INTERNAL, "result %u of graph %s has no value", i + 1, p->graph->name);
  }
  for (uint32_t k = 0; k < i; k++) /* a value returned twice is one tensor */
    if (body->yields[k] == v) return out->tensor = kn_tensor_retain(r->s->out[k].tensor), KN_OK;
  kn_origin from = r->s->origins[i] = origin_of(r, i, p->who[v->id]);
  if (from.from == KN_FROM_OUTPUT) return out->tensor = kn_tensor_retain(r->s->out[from.index].tensor), KN_OK;
  if (!ours_to_give(p, v)) return kn_run_clone(r, t, &out->tensor);
  out->tensor = kn_tensor_retain(t);
  return KN_OK;
}

/* ---- what was stored ---- */

static kn_origin stored_origin(const kn_run *r, uint32_t object) {
  const kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  for (uint32_t k = 0; k < r->s->nupdates; k++)
    if (r->s->updates[k].from == object) return (kn_origin){KN_FROM_INPUT, r->s->updates[k].input};
  for (uint32_t k = 0; k < body->nparams; k++)
    if (p->who[body->params[k]->id] == object) return (kn_origin){KN_FROM_INPUT, k};
  for (uint32_t k = 0; k < p->graph->nslots; k++)
    if (r->s->slots[k].object == object) return (kn_origin){KN_FROM_SLOT, k};
  for (uint32_t k = 0; k < body->nyields; k++)
    if (p->who[body->yields[k]->id] == object) return (kn_origin){KN_FROM_OUTPUT, k};
  return (kn_origin){KN_FROM_NONE, 0};
}

static void find_stored(kn_run *r) {
  for (uint32_t i = 0; r->s->tracks && i < r->p->graph->nslots; i++) {
    kn_slot_state *x = &r->s->slots[i];
    x->group = 0;
    if (!x->from) continue;
    uint32_t k = 0;
    while (r->s->slots[k].from != x->from) k++;
    x->group = k + 1;
    x->origin = k < i ? r->s->slots[k].origin : stored_origin(r, x->from);
  }
}

kn_status kn_run_results(kn_run *r) {
  find_stored(r);
  uint32_t n = r->p->graph->body->nyields, made = 0;
  kn_status st = KN_OK;
  while (made < n && st == KN_OK) st = give_result(r, made++);
  for (uint32_t i = 0; st != KN_OK && i < made; i++) {
    kn_tensor_release(r->s->out[i].tensor);
    kn_list_release(r->s->out[i].list);
  }
  return st;
}
