/* Gradient nodes that run on one path only: of an `if` and of a choice, and of what gets a gradient on some
 * paths. A value from outside that either side gave something to has, after the `if`, what the path taken
 * made of it. */
#include "graph/grad/inside.h"

bool kg_open(kg_walk *w, kg_branch *b, kn_value *cond) {
  *b = (kg_branch){.n = kn_add_if(w->b, cond)};
  for (int k = 0; b->n && k < 2; k++) b->side[k] = (kg_frame){.kind = KG_GUARD, .em = b->n->regions[k]};
  return b->n != NULL;
}

/* What a side has for v, seen inside of it. */
static kn_gradient on_side(kg_walk *w, kg_frame *f, kn_value *v, kn_gradient before) {
  kn_gradient g = kg_own(f, v);
  if (g.v) return g;
  if (before.v) return before;
  kn_region *at = w->b->at;
  w->b->at = f->em;
  g = (kn_gradient){kn_add_undef(w->b, &v->type), !kn_is_list(v->type.kind)};
  w->b->at = at;
  return g;
}

void kg_close(kg_walk *w, kg_branch *b) {
  bool any = false;
  for (int k = 0; k < 2; k++)
    for (uint32_t i = 0; i < b->side[k].n && kg_ok(w); i++) {
      kn_value *v = b->side[k].list[i]->v;
      if (kg_belongs(&b->side[k], v)) continue;
      if (k && kg_own(&b->side[0], v).v) continue; /* has been joined */
      kn_gradient before = kg_find(w, v);
      kn_gradient one = on_side(w, &b->side[0], v, before), other = on_side(w, &b->side[1], v, before);
      kn_value *out = kn_if_output(w->b, b->n, NULL, NULL, one.v, other.v);
      kg_set(w, v, (kn_gradient){out, one.maybe || other.maybe});
      any = true;
    }
  if (!any && kg_ok(w)) kn_node_remove(b->n);
}

/* ---- if ---- */

static void walk_side(kg_walk *w, kg_frame *f, kn_node *n, const kn_gradient *g, uint32_t nout) {
  kn_value **ys = kg_alloc(w, (nout + 1) * sizeof *ys);
  uint32_t ny = 0;
  kg_enter(w, f);
  for (uint32_t i = 0; ys && i < nout; i++) {
    if (!g[i].v) continue;
    ys[ny] = n->regions[f->side]->yields[i];
    kg_add(w, ys[ny++], g[i]);
  }
  if (ys) kg_walk_back(w, ys, ny);
  kg_leave(w);
}

void kg_if_rule(kg_walk *w, kn_node *n) {
  uint32_t nout = n->nout; /* there may be more of them soon */
  kn_gradient *g = kg_alloc(w, (nout + 1) * sizeof *g);
  for (uint32_t i = 0; g && i < nout; i++) g[i] = kg_find(w, n->out[i]);
  kn_value *c = kg_see(w, n->in[0]);
  if (c && c->def && c->def->op == KN_NODE_attempt) /* a condition for one `if` alone: this is another */
    for (int k = 0; k < 2; k++) c = kn_add_scalar(w->b, KN_NODE_lua_not, &c, 1);
  if (!g || !c) return;
  if (c->def && c->def->op == KN_NODE_const) {
    int side = c->def->scalar.as.b ? 0 : 1;
    kg_frame f = {
        .kind = KG_SIDE, .owner = n, .fwd = n->regions[side], .em = w->b->at, .inlined = true, .side = side};
    walk_side(w, &f, n, g, nout);
    return;
  }
  kg_branch b;
  if (!kg_open(w, &b, c)) return;
  for (int k = 0; k < 2; k++) {
    kg_frame *f = &b.side[k];
    f->kind = KG_SIDE;
    f->owner = n;
    f->fwd = n->regions[k];
    f->side = k;
    f->known = n->in[0];
    f->truth = k == 0;
    walk_side(w, f, n, g, nout);
  }
  kg_close(w, &b);
}

void kg_select_rule(kg_walk *w, kn_node *n) {
  kn_gradient g = kg_find(w, n->out[0]);
  kg_branch b;
  if (!kg_open(w, &b, kg_see(w, n->in[0]))) return;
  for (int k = 0; k < 2; k++) {
    kg_enter(w, &b.side[k]);
    kg_add(w, n->in[1 + k], g);
    kg_leave(w);
  }
  kg_close(w, &b);
}
