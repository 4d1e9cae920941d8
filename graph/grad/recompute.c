/* Values of checkpointed calls (kiln.checkpoint): what a rule reads of them is computed once more where the
 * gradient is, from what went into the call, so that nothing of the call is kept until then. Draws, and what
 * branches and loops gave, are kept. Not again.c, which is about trips of loops. */
#include "graph/grad/inside.h"
#include <string.h>

static bool repeats(const kn_node *n) {
  if (kn_opcode_is_op(n->op)) return !kn_op_is_effect((kn_op)n->op);
  if (n->op == KN_NODE_attempt || n->op == KN_NODE_caught) return false; /* there is one of it */
  return !n->nregions && !n->slot && kn_opcode_describe(n->op).effect != KN_EFFECT;
}

bool kg_is_again(const kg_walk *w, const kn_node *n, const kn_value *v) {
  if (!n->again || !v->def || v->def->again != n->again || !repeats(v->def)) return false;
  for (const kg_frame *f = w->memory ? w->f : NULL; f; f = f->up)
    if (f->kind == KG_LAST || f->kind == KG_TRIPS) return false; /* trips are computed again as a whole */
  return true;
}

static uint64_t key_of(const kn_value *v, const kn_region *r) {
  return (uint64_t)(uintptr_t)r * UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)v->id << 1 ^ 1;
}

typedef struct made { /* keys of several may be equal */
  const kn_region *at;
  const kn_value *of;
  kn_value *v;
  struct made *next;
} made;

static kn_value *find(const kg_walk *w, const kn_value *v) {
  for (const kn_region *r = w->b->at; r; r = r->owner ? r->owner->region : NULL)
    for (const made *m = kg_get(&w->again, key_of(v, r)); m; m = m->next)
      if (m->at == r && m->of == v) return m->v;
  return NULL;
}

static void keep(kg_walk *w, const kn_value *of, kn_value *v) {
  uint64_t key = key_of(of, w->b->at);
  made *m = kg_alloc(w, sizeof *m);
  if (!m) return;
  *m = (made){w->b->at, of, v, kg_get(&w->again, key)};
  kg_put(w, &w->again, key, m);
}

/* The node on what its inputs are here. */
static void repeat(kg_walk *w, const kn_node *n) {
  kn_value **in = kg_alloc(w, (n->nin + 1) * sizeof *in);
  kn_vtype types[KN_MAX_OUTPUTS];
  for (uint32_t i = 0; in && i < n->nin; i++) {
    in[i] = kg_is_again(w, n, n->in[i]) ? kg_compute_again(w, n->in[i]) : kg_see(w, n->in[i]);
    if (!in[i]) return;
  }
  for (uint32_t i = 0; i < n->nout; i++) types[i] = n->out[i]->type;
  const kn_where *where = w->b->where;
  w->b->where = n->where;
  kn_node *to = in ? kn_add_node(w->b, n->op, n->attrs, in, n->nin, types, n->nout) : NULL;
  w->b->where = where;
  if (!to) return;
  to->ntensor = n->ntensor;
  to->scalar = n->scalar;
  to->text = n->text;
  to->no_grad |= n->no_grad;
  for (uint32_t i = 0; i < n->nout; i++) {
    kn_value_name(w->b, to->out[i], n->out[i]->name);
    keep(w, n->out[i], to->out[i]);
  }
}

/* Long chains are gone through without recursion: what a node reads comes before it. */
kn_value *kg_compute_again(kg_walk *w, kn_value *v) {
  kn_value *got = find(w, v);
  if (got || !kg_ok(w)) return got;
  kn_value **todo = NULL;
  uint32_t n = 0;
  if (!(todo = kn_arena_grow(&w->arena, NULL, 0, sizeof *todo)))
    return kn_build_fail(w->b, kn_fail_nomem(w->ctx, sizeof *todo));
  todo[n++] = v;
  while (n && kg_ok(w)) {
    const kn_node *d = todo[n - 1]->def;
    uint32_t before = n;
    for (uint32_t i = 0; i < d->nin && !find(w, d->out[0]); i++) {
      if (!kg_is_again(w, d, d->in[i]) || find(w, d->in[i])) continue;
      kn_value **more = kn_arena_grow(&w->arena, todo, n, sizeof *todo);
      if (!more) return kn_build_fail(w->b, kn_fail_nomem(w->ctx, sizeof *todo));
      todo = more;
      todo[n++] = d->in[i];
    }
    if (n > before) continue;
    if (!find(w, d->out[0])) repeat(w, d);
    n--;
  }
  return find(w, v);
}
