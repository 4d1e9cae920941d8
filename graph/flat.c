/* Lists that can be one tensor on a device: elements of one type, of which sizes bound how many there are,
 * and of which no two versions that somebody may still read differ in a place that both have. Such are those
 * in which gradients of loops keep what trips have computed. */
#include "graph/attempt.h"
#include "graph/plan.h"
#include "graph/range.h"
#include <string.h>

enum { MOST_ELEMENTS = 1 << 16 };
#define MOST_BYTES ((size_t)1 << 30)

typedef struct search {
  kn_plan *p;
  uint32_t *parent;      /* by value: those that may be versions of one list */
  kn_flat *found;        /* by the first of them */
  bool *bad;             /* likewise */
  const kn_node **at;    /* likewise: where it is made */
  const kn_node **last;  /* likewise: the branch or loop that has given one, or carries one */
  const kn_node **taken; /* by value: who goes on from it, in its region */
  uint8_t *sides;        /* likewise: in which branches, as bits */
  bool *ends;            /* likewise: its region ends with it */
} search;

static uint32_t find(search *s, uint32_t v) {
  while (s->parent[v] != v) v = s->parent[v] = s->parent[s->parent[v]];
  return v;
}

static void unite(search *s, const kn_value *a, const kn_value *b) {
  if (kn_is_list(a->type.kind)) s->parent[find(s, a->id)] = find(s, b->id);
}

static bool takes(const kn_node *n) {
  return n->op == KN_NODE_list_append || n->op == KN_NODE_list_get || n->op == KN_NODE_list_length;
}

static void join(search *s, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    const kn_region *a = n->regions[0], *b = n->regions[1];
    for (int k = 0; k < n->nregions; k++) join(s, n->regions[k]);
    if (n->op == KN_NODE_list_append) unite(s, n->out[0], n->in[0]);
    for (uint32_t i = 0; n->op == KN_NODE_if && i < n->nout; i++) {
      if (i < a->nyields) unite(s, n->out[i], a->yields[i]);
      if (i < b->nyields) unite(s, n->out[i], b->yields[i]);
    }
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < a->nparams; i++) {
      unite(s, a->params[i], n->in[i]);
      unite(s, a->params[i], a->yields[1 + i]);
    }
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nout; i++)
      unite(s, n->out[i], a->yields[1 + a->nparams + i]);
  }
}

static void spoil(search *s, const kn_value *v) {
  if (kn_is_list(v->type.kind)) s->bad[find(s, v->id)] = true;
}

static bool is_inside(const kn_region *r, const kn_node *owner) {
  while (r->owner && r->owner != owner) r = r->owner->region;
  return r->owner != NULL;
}

/* How often it may be done since the list was made. */
static int64_t times(search *s, const kn_node *n, const kn_node *made) {
  int64_t all = 1;
  for (const kn_node *o = n->region->owner; o && !is_inside(made->region, o); o = o->region->owner) {
    if (o->op != KN_NODE_loop) continue;
    const int64_t trips = kn_range_trips(s->p, o);
    if (trips >= MOST_ELEMENTS || (all *= trips + 1) > MOST_ELEMENTS) return MOST_ELEMENTS + 1;
  }
  return all;
}

static bool element_type(const search *s, const kn_value *v, kn_type *out) {
  static const kn_dtype numbers[] = {[KN_V_INT] = KN_I64, [KN_V_FLOAT] = KN_F64, [KN_V_BOOL] = KN_BOOL};
  const kn_plan *p = s->p;
  if (v->type.kind == KN_V_TENSOR) {
    *out = p->types[v->id];
    return kn_type_known(out) && !p->maybe[v->id] && !p->undefined[v->id] && out->rank < KN_MAX_RANK &&
           out->device == p->whole->device;
  }
  if (v->type.kind != KN_V_INT && v->type.kind != KN_V_FLOAT && v->type.kind != KN_V_BOOL) return false;
  *out = (kn_type){.dtype = (uint8_t)numbers[v->type.kind], .device = (uint8_t)p->whole->device};
  return true;
}

static void spoil(search *s, const kn_value *v);

/* A version that something in region r goes on from: no other may, but in the other branch. */
static void take(search *s, const kn_value *v, const kn_node *n, const kn_region *r) {
  uint8_t sides = 3;
  if (!kn_is_list(v->type.kind)) return;
  for (; r != v->region; r = n->region) {
    n = r->owner;
    if (!n || n->op == KN_NODE_loop) { /* time and again from the same */
      spoil(s, v);
      return;
    }
    sides = r == n->regions[0] ? 1 : 2;
  }
  if ((s->taken[v->id] && s->taken[v->id] != n) || s->sides[v->id] & sides) spoil(s, v);
  s->taken[v->id] = n;
  s->sides[v->id] |= sides;
}

static void take_yields(search *s, const kn_region *r) {
  for (uint32_t i = 0; i < r->nyields; i++) {
    const kn_value *v = r->yields[i];
    if (!kn_is_list(v->type.kind)) continue;
    if (v->region == r)
      s->ends[v->id] = true;
    else
      take(s, v, NULL, r);
  }
}

static void append(search *s, const kn_node *n) {
  const uint32_t c = find(s, n->in[0]->id);
  kn_flat *f = &s->found[c];
  kn_type type;
  take(s, n->in[0], n, n->region);
  if (!s->at[c] || !element_type(s, n->in[1], &type)) {
    s->bad[c] = true;
    return;
  }
  if (f->most && !kn_type_equal(&f->type, &type)) s->bad[c] = true;
  f->type = type;
  f->most += times(s, n, s->at[c]);
}

/* One list of a kind alone goes on by a branch or loop, so that there is one that is the newest. */
static void once(search *s, const kn_value *v, const kn_node *owner, const kn_node **last) {
  if (!kn_is_list(v->type.kind)) return;
  const uint32_t c = find(s, v->id);
  if (last[c] == owner) s->bad[c] = true;
  last[c] = owner;
}

static void look(search *s, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin && n->op != KN_NODE_loop && !takes(n); i++) spoil(s, n->in[i]);
    if (n->op == KN_NODE_list_append && kn_is_list(n->in[1]->type.kind))
      spoil(s, n->in[0]), spoil(s, n->in[1]);
    if (n->op == KN_NODE_list_append) append(s, n);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->regions[0]->nparams; i++) {
      const kn_value *v = n->regions[0]->params[i];
      once(s, v, n, s->last);
      take(s, n->in[i], n, n->region);
      if (kn_is_list(v->type.kind) && s->at[find(s, v->id)] && is_inside(s->at[find(s, v->id)]->region, n))
        spoil(s, v);
    }
    for (int k = 0; k < n->nregions; k++) {
      look(s, n->regions[k]);
      take_yields(s, n->regions[k]);
    }
    for (uint32_t i = 0; i < n->nout; i++) {
      if (kn_is_attempt(n) ||
          (!n->nregions && !takes(n) && n->op != KN_NODE_list_new && n->op != KN_NODE_undef))
        spoil(s, n->out[i]);
      if (n->op == KN_NODE_list_get) spoil(s, n->out[i]); /* a list of lists */
      if (n->op == KN_NODE_if) once(s, n->out[i], n, s->last);
    }
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nout; i++)
      for (uint32_t k = 0; k < i; k++)
        if (kn_is_list(n->out[i]->type.kind) && kn_is_list(n->out[k]->type.kind) &&
            find(s, n->out[i]->id) == find(s, n->out[k]->id))
          spoil(s, n->out[i]);
  }
}

static void find_made(search *s, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_list_new) {
      const uint32_t c = find(s, n->out[0]->id);
      s->bad[c] |= s->at[c] != NULL;
      s->at[c] = n;
    }
    for (int k = 0; k < n->nregions; k++) find_made(s, n->regions[k]);
  }
}

static bool fits(const kn_flat *f) {
  kn_type all = f->type;
  size_t bytes;
  if (!f->most || f->most > MOST_ELEMENTS) return false;
  all = kn_flat_type(f);
  return kn_type_bytes(&all, &bytes) && bytes <= MOST_BYTES;
}

kn_type kn_flat_type(const kn_flat *f) {
  kn_type t = f->type;
  memmove(t.dims + 1, f->type.dims, f->type.rank * sizeof *t.dims);
  t.dims[0] = f->most;
  t.rank++;
  return t;
}

static bool has_lists(const kn_region *r) { return kn_region_has(r, KN_NODE_list_new); }

kn_status kn_plan_flats(kn_context *ctx, kn_plan *p) {
  const kn_region *body = p->graph->body;
  const uint32_t n = p->graph->nvalues + 1;
  if (!p->whole || !has_lists(body)) return KN_OK;
  search s = {.p = p,
              .parent = kn_arena_alloc(&p->arena, n * sizeof *s.parent),
              .found = kn_arena_alloc(&p->arena, n * sizeof *s.found),
              .bad = kn_arena_alloc(&p->arena, n),
              .at = kn_arena_alloc(&p->arena, n * sizeof *s.at),
              .last = kn_arena_alloc(&p->arena, n * sizeof *s.last),
              .taken = kn_arena_alloc(&p->arena, n * sizeof *s.taken),
              .sides = kn_arena_alloc(&p->arena, n),
              .ends = kn_arena_alloc(&p->arena, n)};
  p->flat = kn_arena_alloc(&p->arena, n * sizeof *p->flat);
  if (!s.parent || !s.found || !s.bad || !s.at || !s.last || !s.taken || !s.sides || !s.ends || !p->flat)
    return kn_fail_nomem(ctx, n);
  for (uint32_t i = 0; i < n; i++) s.parent[i] = i;
  join(&s, body);
  find_made(&s, body);
  for (uint32_t i = 0; i < body->nparams; i++) spoil(&s, body->params[i]);
  for (uint32_t i = 0; i < body->nyields; i++) spoil(&s, body->yields[i]);
  look(&s, body);
  for (uint32_t v = 1; v < n; v++)
    if (s.taken[v] && s.ends[v]) s.bad[find(&s, v)] = true;
  for (uint32_t v = 1; v < n; v++) {
    const uint32_t c = find(&s, v);
    if (!s.bad[c] && s.at[c] && fits(&s.found[c])) p->flat[v] = &s.found[c];
  }
  return KN_OK;
}
