/* Frames: the gradients found so far, and forward values as they are seen from where gradient nodes go. */
#include "graph/grad/inside.h"
#include <string.h>

/* ---- memory, maps ---- */

void *kg_alloc(kg_walk *w, size_t size) {
  void *p = kn_arena_alloc(&w->arena, size);
  return p ? p : kn_build_fail(w->b, kn_fail_nomem(w->ctx, size));
}

static uint32_t place_of(const kg_map *m, uint64_t key) {
  uint32_t i = (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (m->cap - 1);
  while (m->key[i] && m->key[i] != key) i = (i + 1) & (m->cap - 1);
  return i;
}

void *kg_get(const kg_map *m, uint64_t key) { return m->cap ? m->val[place_of(m, key)] : NULL; }

bool kg_put(kg_walk *w, kg_map *m, uint64_t key, void *val) {
  if (2 * m->n >= m->cap) {
    kg_map big = {.cap = m->cap ? 2 * m->cap : 16};
    big.key = kg_alloc(w, big.cap * sizeof *big.key);
    big.val = kg_alloc(w, big.cap * sizeof *big.val);
    if (!big.key || !big.val) return false;
    for (uint32_t i = 0; i < m->cap; i++) {
      if (!m->key[i]) continue;
      uint32_t at = place_of(&big, m->key[i]);
      big.key[at] = m->key[i];
      big.val[at] = m->val[i];
    }
    big.n = m->n;
    *m = big;
  }
  uint32_t at = place_of(m, key);
  m->n += !m->key[at];
  m->key[at] = key;
  m->val[at] = val;
  return true;
}

/* ---- what is where ---- */

kn_value *kg_meant(const kg_walk *w, kn_value *v) {
  for (kn_value *of; (of = kg_get(&w->seen_of, v->id));) v = of;
  return v;
}

bool kg_needs(const kg_walk *w, const kn_value *v) {
  for (const kn_value *of; (of = kg_get(&w->seen_of, v->id));) v = of;
  return v->id <= w->n0 ? w->need[v->id] : kg_get(&w->copied, v->id) != NULL;
}

bool kg_visible(const kn_value *v, const kn_region *from) {
  for (; from; from = from->owner ? from->owner->region : NULL)
    if (v->region == from) return true;
  return false;
}

bool kg_belongs(const kg_frame *f, const kn_value *v) {
  return f->kind == KG_TOP ? true : f->kind != KG_GUARD && v->region == f->fwd;
}

void kg_enter(kg_walk *w, kg_frame *f) {
  f->up = w->f;
  w->f = f;
  w->b->at = f->em;
}

void kg_leave(kg_walk *w) {
  w->f = w->f->up;
  w->b->at = w->f->em;
}

/* ---- gradients so far ---- */

kn_gradient kg_own(const kg_frame *f, const kn_value *v) {
  const kg_entry *e = kg_get(&f->entries, v->id);
  return e ? e->g : (kn_gradient){NULL, false};
}

kn_gradient kg_find(const kg_walk *w, const kn_value *v) {
  for (const kg_frame *f = w->f; f; f = f->up) {
    kn_gradient g = kg_own(f, v);
    if (g.v || kg_belongs(f, v)) return g;
  }
  return (kn_gradient){NULL, false};
}

/* The frame that keeps it: where nodes go to the same place there is one for values from outside. */
static kg_frame *keeper(const kg_walk *w, const kn_value *v) {
  kg_frame *f = w->f;
  while (f->inlined && !kg_belongs(f, v)) f = f->up;
  return f;
}

void kg_set(kg_walk *w, kn_value *v, kn_gradient g) {
  kg_frame *f = keeper(w, v);
  kg_entry *e = kg_get(&f->entries, v->id);
  if (!e) {
    if (!(e = kg_alloc(w, sizeof *e))) return;
    kg_entry **list = kn_arena_grow(&w->arena, f->list, f->n, sizeof(kg_entry *));
    if (!list || !kg_put(w, &f->entries, v->id, e)) {
      kn_build_fail(w->b, kn_fail_nomem(w->ctx, sizeof *list));
      return;
    }
    f->list = list;
    f->list[f->n++] = e;
    e->v = v;
  }
  e->g = g;
}

static kn_value *plus(kg_walk *w, kn_value *a, kn_value *b) {
  if (kn_is_list(a->type.kind)) return kn_add_list_sum(w->b, a, b);
  kn_node *n = kn_add_op(w->b, KN_OP_add, NULL, (kn_value *[]){a, b}, 2, NULL, 0);
  return n ? n->out[0] : NULL;
}

/* b, or the sum where `maybe` is defined. */
static kn_value *plus_defined(kg_walk *w, kn_value *sum, kn_value *maybe, bool maybe_first) {
  kn_region *at = w->b->at;
  kn_node *n = kn_add_if(w->b, kn_add_defined(w->b, maybe));
  if (!n) return NULL;
  w->b->at = n->regions[0];
  kn_value *both = maybe_first ? plus(w, maybe, sum) : plus(w, sum, maybe);
  w->b->at = at;
  return kn_if_output(w->b, n, NULL, NULL, both, sum);
}

static kn_gradient total(kg_walk *w, kn_gradient a, kn_gradient b) {
  if (!a.v || !b.v) return a.v ? a : b;
  if (!a.maybe && !b.maybe) return (kn_gradient){plus(w, a.v, b.v), false};
  if (!a.maybe) return (kn_gradient){plus_defined(w, a.v, b.v, false), false};
  if (!b.maybe) return (kn_gradient){plus_defined(w, b.v, a.v, true), false};
  kn_region *at = w->b->at;
  kn_node *n = kn_add_if(w->b, kn_add_defined(w->b, a.v));
  if (!n) return a;
  w->b->at = n->regions[0];
  kn_value *some = plus_defined(w, a.v, b.v, false);
  w->b->at = at;
  return (kn_gradient){kn_if_output(w->b, n, NULL, NULL, some, b.v), true};
}

void kg_add(kg_walk *w, kn_value *v, kn_gradient g) {
  v = kg_meant(w, v);
  if (!g.v || !kg_needs(w, v) || !kg_ok(w)) return;
  kg_frame *f = keeper(w, v);
  if (f->kind == KG_TRIPS && !kg_belongs(f, v) && !kg_get(&f->entries, v->id)) {
    kn_build_fail(w->b, kn_fail(w->ctx, KN_INTERNAL, "a gradient leaves a loop at a place not foreseen"));
    return;
  }
  kg_set(w, v, total(w, kg_find(w, v), g));
}

/* ---- forward values ---- */

kn_value *kg_integer(kg_walk *w, int64_t i) {
  return kn_add_const(w->b, (kn_scalar){KN_SCALAR_INT, {.i = i}});
}

kn_value *kg_carry(kg_walk *w, kn_node *loop, kn_value *init) {
  return kn_loop_param(w->b, loop, NULL, NULL, init);
}

void kg_carry_next(kg_walk *w, kn_node *loop, kn_value *next) {
  kn_region *r = loop->regions[0];
  uint32_t at = r->nparams, n = r->nyields;
  if (!next || !kn_build_push(w->b, &r->yields, &r->nyields, &next, sizeof next)) return;
  memmove(&r->yields[at + 1], &r->yields[at], (n - at) * sizeof *r->yields);
  r->yields[at] = next;
}

/* The list of what v, a value of the loop's body, was in each trip; seen from where the loop stands. */
static kn_value *list_of(kg_walk *w, kn_node *loop, kn_value *v) {
  kn_region *at = w->b->at;
  w->b->at = loop->region;
  kn_value *none = kn_add_list(w->b, &v->type);
  if (!none) return NULL;
  kn_node_move_before(none->def, loop);
  kn_value *so_far = kg_carry(w, loop, none);
  w->b->at = loop->regions[0];
  kn_value *more = kn_add_append(w->b, so_far, v);
  w->b->at = at;
  kg_carry_next(w, loop, more);
  return more ? kn_loop_output(w->b, loop, NULL, v->name, more) : NULL;
}

enum { AS_LIST, AS_LAST, OF_SIDE, AS_SIZE }; /* how something is exported; sizes: and the dimension */
static uint64_t export_key(const kn_value *v, int how) { return (uint64_t)(how + 1) << 32 | v->id; }

/* Puts what was emitted since `last` behind the anchor. */
static void to_anchor(kg_frame *f, kn_node *last) {
  while (last->next) {
    kn_node *n = last->next, *before = f->anchor->next;
    if (n == before) {
      f->anchor = n;
      last = n;
      continue;
    }
    kn_node_move_before(n, before);
    f->anchor = n;
  }
}

static kn_value *in_trip(kg_walk *w, kg_frame *f, kn_value *v) {
  kg_frame *inner = w->f;
  kn_region *at = w->b->at;
  w->f = f;
  w->b->at = f->em;
  kn_node *last = f->em->last;
  kn_value *all = kg_get(&w->exported, export_key(v, AS_LIST));
  if (!all && (all = list_of(w, f->owner, v))) kg_put(w, &w->exported, export_key(v, AS_LIST), all);
  all = kg_see(w, all);
  kn_value *got = kn_add_list_get(w->b, all, f->at);
  if (got && f->em->last != last) to_anchor(f, last);
  kn_value_name(w->b, got, v->name);
  w->f = inner;
  w->b->at = at;
  return got;
}

static kn_value *out_of_side(kg_walk *w, kg_frame *f, kn_value *v) {
  kn_region *at = w->b->at;
  w->b->at = f->owner->regions[!f->side];
  kn_value *none = kn_add_undef(w->b, &v->type);
  w->b->at = at;
  return kn_if_output(w->b, f->owner, &v->type, v->name, f->side ? none : v, f->side ? v : none);
}

static kn_value *see_in(kg_walk *w, kg_frame *f, kn_value *v) {
  bool trips = f->kind == KG_TRIPS;
  uint64_t key = trips ? v->id : export_key(v, f->kind == KG_LAST ? AS_LAST : OF_SIDE);
  kg_map *m = trips ? &f->seen : &w->exported;
  kn_value *seen = kg_get(m, key);
  if (seen) return seen;
  seen = trips                ? in_trip(w, f, v)
         : f->kind == KG_LAST ? kn_loop_output(w->b, f->owner, &v->type, v->name, v)
                              : out_of_side(w, f, v);
  if (seen) kg_put(w, m, key, seen);
  return seen;
}

kn_value *kg_see(kg_walk *w, kn_value *v) {
  if (!v || !kg_ok(w)) return NULL;
  for (const kg_frame *f = w->f; f; f = f->up)
    if (f->known == v) return kn_add_const(w->b, (kn_scalar){KN_SCALAR_BOOL, {.b = f->truth}});
  if (kg_visible(v, w->b->at)) return v;
  if (v->def && v->def->op == KN_NODE_const) return kn_add_const(w->b, v->def->scalar);
  kg_frame *f = w->f;
  while (f && !(f->owner && f->fwd == v->region)) f = f->up;
  if (!f)
    return kn_build_fail(w->b, kn_fail(w->ctx, KN_INTERNAL, "a value that a gradient needs is out of sight"));
  kn_value *seen = see_in(w, f, v);
  return f->kind == KG_TRIPS ? seen : kg_see(w, seen);
}

kn_value *kg_see_size(kg_walk *w, kn_value *v, int dim) {
  if (!v || !kg_ok(w)) return NULL;
  if (kn_dim_known(v->type.tensor.dims[dim])) return kg_integer(w, v->type.tensor.dims[dim]);
  if (kg_visible(v, w->b->at)) return kn_add_size(w->b, v, dim);
  kn_value *size = kg_get(&w->exported, export_key(v, AS_SIZE + dim));
  if (!size) {
    kn_region *at = w->b->at;
    w->b->at = v->region;
    size = kn_add_size(w->b, v, dim);
    w->b->at = at;
    if (size) kg_put(w, &w->exported, export_key(v, AS_SIZE + dim), size);
  }
  return kg_see(w, size);
}
