/* See may_be.h. */
#include "graph/may_be.h"

void kn_may_be_begin(kn_may_be *m) {
  m->round++;
  m->n = 0;
}

void kn_may_be_add(kn_may_be *m, const kn_value *v) {
  if (v->type.kind != KN_V_TENSOR || m->seen[v->id] == m->round) return;
  m->seen[v->id] = m->round;
  m->todo[m->n++] = v;
}

static bool is_told(const kn_value *v) { return v->def && v->def->told; }

bool kn_may_be_step(kn_may_be *m, const kn_value *v) {
  const kn_node *d = v->def, *owner = v->region->owner;
  if (!d && owner && owner->op == KN_NODE_loop) {
    kn_may_be_add(m, owner->in[v->index]);
    kn_may_be_add(m, v->region->yields[1 + v->index]);
  } else if (!d)
    return false;
  else if (d->op == KN_NODE_if) {
    for (int side = 0; side < 2; side++)
      if (v->index < d->regions[side]->nyields) kn_may_be_add(m, d->regions[side]->yields[v->index]);
  } else if (d->op == KN_NODE_loop)
    kn_may_be_add(m, d->regions[0]->yields[1 + d->regions[0]->nparams + v->index]);
  else if (d->op == KN_NODE_select) {
    kn_may_be_add(m, d->in[1]);
    if (!d->told || is_told(d->in[2])) kn_may_be_add(m, d->in[2]);
  } else
    return false;
  return true;
}

static void add_end(kn_end *list, uint32_t *n, kn_value *v, const kn_node *node) {
  bool again = v->type.kind != KN_V_TENSOR;
  for (uint32_t i = 0; i < *n && !again; i++) again = list[i].value == v;
  if (!again) list[(*n)++] = (kn_end){v, node};
}

uint32_t kn_list_ends(const kn_region *body, kn_end *list) {
  uint32_t n = 0;
  KN_EACH_NODE (d, body)
    if (d->op == KN_NODE_store_state || d->op == KN_NODE_update) add_end(list, &n, d->in[d->nin - 1], d);
  for (uint32_t i = 0; i < body->nyields; i++) add_end(list, &n, body->yields[i], NULL);
  return n;
}

bool kn_from_outside(const kn_value *v) {
  if (!v->def) return !v->region->owner;
  return v->def->op == KN_NODE_param || v->def->op == KN_NODE_load_state || v->def->op == KN_NODE_tensor;
}

/* What may be there is there once more. */
void kn_count_ends(kn_may_be *m, const kn_end *list, uint32_t n, uint8_t *ends) {
  for (uint32_t i = 0; i < n; i++) {
    kn_may_be_begin(m);
    kn_may_be_add(m, list[i].value);
    while (m->n) {
      const kn_value *v = m->todo[--m->n];
      ends[v->id] = ends[v->id] || kn_from_outside(v) ? 2 : 1;
      kn_may_be_step(m, v);
    }
  }
}
