/* Persistent maps, frames and tables of the interpreter's state. See state.h. */
#include "lua/capture/state.h"
#include "graph/mutant.h"
#include <math.h>
#include <string.h>

/* ---- maps: tries of 16-way nodes; a node is written in place by the state that owns it ---- */

enum { WAYS = 16, BITS = 4 };
struct kc_map_node {
  uint32_t owner;
  void *slot[WAYS];
};

static bool covers(const kc_map *m, uint32_t key) { return m->levels >= 8 || !(key >> (m->levels * BITS)); }

void *kc_map_get(const kc_map *m, uint32_t key) {
  if (!m->root || !covers(m, key)) return NULL;
  const kc_map_node *n = m->root;
  for (int level = m->levels - 1; level > 0 && n; level--) n = n->slot[key >> (level * BITS) & (WAYS - 1)];
  return n ? n->slot[key & (WAYS - 1)] : NULL;
}

static kc_map_node *own_node(kc_cap *c, kc_map_node *n, uint32_t owner) {
  if (n && n->owner == owner) return n;
  kc_map_node *copy = n ? kc_dup(c, n, sizeof *n) : kc_new(c, sizeof *n);
  copy->owner = owner;
  return copy;
}

void kc_map_set(kc_cap *c, kc_map *m, uint32_t owner, uint32_t key, void *p) {
  if (m->levels == 0) m->levels = 1;
  while (!covers(m, key)) {
    if (m->root) {
      kc_map_node *up = kc_new(c, sizeof *up);
      up->owner = owner;
      up->slot[0] = m->root;
      m->root = up;
    }
    m->levels++;
  }
  kc_map_node *n = m->root = own_node(c, m->root, owner);
  for (int level = m->levels - 1; level > 0; level--) {
    void **slot = &n->slot[key >> (level * BITS) & (WAYS - 1)];
    n = *slot = own_node(c, *slot, owner);
  }
  n->slot[key & (WAYS - 1)] = p;
}

static kc_res diff(const kc_map_node *a, const kc_map_node *b, int level, uint32_t base, kc_map_fn fn,
                   void *ud) {
  if (a == b) return KC_GO;
  for (uint32_t i = 0; i < WAYS; i++) {
    void *x = a ? a->slot[i] : NULL, *y = b ? b->slot[i] : NULL;
    if (x == y) continue;
    uint32_t key = base + (i << (level * BITS));
    if (level == 0)
      KC_TRY(fn(ud, key, x, y));
    else
      KC_TRY(diff(x, y, level - 1, key, fn, ud));
  }
  return KC_GO;
}

static const kc_map_node *raise_to(const kc_map *m, int levels, kc_map_node *tmp) {
  const kc_map_node *n = m->root;
  for (int l = m->levels; n && l < levels; l++) {
    tmp[l] = (kc_map_node){.slot = {(void *)(uintptr_t)n}};
    n = &tmp[l];
  }
  return n;
}

kc_res kc_map_diff(const kc_map *a, const kc_map *b, kc_map_fn fn, void *ud) {
  if (a->root == b->root) return KC_GO;
  kc_map_node up[9];
  int levels = a->levels > b->levels ? a->levels : b->levels;
  const kc_map_node *x = raise_to(a, levels, up), *y;
  if (a->levels < levels)
    y = b->root;
  else
    y = raise_to(b, levels, up);
  return diff(x, y, levels - 1, 0, fn, ud);
}

static kc_map_node *common(kc_cap *c, kc_map_node *a, kc_map_node *b, int level, uint32_t owner,
                           kc_map_join_fn join) {
  kc_map_node made = {.owner = owner};
  bool same = true, any = false;
  if (a == b || !a || !b) return a == b ? a : NULL;
  for (int i = 0; i < WAYS; i++) {
    void *x = a->slot[i], *y = b->slot[i];
    if (x != y)
      x = !x || !y ? NULL : level ? common(c, x, y, level - 1, owner, join) : join ? join(x, y) : NULL;
    made.slot[i] = x;
    same &= x == a->slot[i];
    any |= x != NULL;
  }
  return !any ? NULL : same ? a : kc_dup(c, &made, sizeof made);
}

kc_map kc_map_common(kc_cap *c, const kc_map *a, const kc_map *b, uint32_t owner, kc_map_join_fn join) {
  int levels = a->levels < b->levels ? a->levels : b->levels;
  kc_map_node *x = a->root, *y = b->root;
  for (int l = a->levels; x && l > levels; l--) x = x->slot[0]; /* the rest only one of them has */
  for (int l = b->levels; y && l > levels; l--) y = y->slot[0];
  return (kc_map){common(c, x, y, levels - 1, owner, join), levels};
}

/* ---- states ---- */

kc_state *kc_state_new(kc_cap *c) {
  kc_state *s = kc_new(c, sizeof *s);
  s->owner = ++c->owner;
  return s;
}

kc_state *kc_snapshot(kc_cap *c, kc_state *s) {
  kc_state *copy = kc_dup(c, s, sizeof *s);
  copy->owner = ++c->owner;
  s->owner = ++c->owner; /* what both share belongs to neither */
  return copy;
}

kc_frame *kc_frame_new(kc_cap *c, kc_state *s, kc_proto *p, uint32_t clos) {
  kc_frame *f = kc_new(c, sizeof *f);
  const kc_flow *flow = kc_flow_of(&c->keep, p);
  if (!flow) flow = kc_new(c, SIZE_MAX / 2); /* raises out of memory */
  *f = (kc_frame){.owner = s->owner,
                  .up = s->top,
                  .p = p,
                  .flow = flow,
                  .clos = clos,
                  .values_before = c->b.graph->nvalues};
  f->r = kc_new(c, (size_t)p->maxstack * sizeof *f->r);
  f->cell = kc_new(c, (size_t)p->maxstack * sizeof *f->cell);
  for (int i = 0; i < p->maxstack; i++) f->r[i] = KC_NILV;
  if (s->top) f->at = kc_where(c);
  s->top = f;
  s->depth++;
  return f;
}

kc_frame *kc_top(kc_cap *c, kc_state *s) {
  kc_frame *f = s->top;
  if (f->owner == s->owner) return f;
  kc_frame *copy = kc_dup(c, f, sizeof *f);
  copy->owner = s->owner;
  copy->r = kc_dup(c, f->r, (size_t)f->p->maxstack * sizeof *f->r);
  copy->cell = kc_dup(c, f->cell, (size_t)f->p->maxstack * sizeof *f->cell);
  return s->top = copy;
}

/* ---- facts ---- */

void kc_add_fact(kc_cap *c, kc_state *s, kn_value *cond, bool truth) {
  while (cond->def && cond->def->op == KN_NODE_lua_not) {
    cond = cond->def->in[0];
    truth = !truth;
  }
  kc_map_set(c, &s->facts, s->owner, cond->id, (void *)(uintptr_t)(truth + 1));
  const kc_note *n = kc_note_of(c, cond, false);
  if (!n || !n->tag) return;
  kc_tag_fact *f = kc_new(c, sizeof *f);
  *f = (kc_tag_fact){n->code, truth, kc_map_get(&s->tags, n->tag->id)};
  kc_map_set(c, &s->tags, s->owner, n->tag->id, f);
}

/* 1 true, 0 false, -1 not known. */
static int known_truth(const kc_state *s, const kn_value *v) {
  bool flip = false;
  for (;;) {
    uintptr_t t = (uintptr_t)kc_map_get(&s->facts, v->id);
    if (t) return (t == 2) != flip;
    if (!v->def || v->def->op != KN_NODE_lua_not) return -1;
    v = v->def->in[0];
    flip = !flip;
  }
}

static int tag_is(kc_cap *c, const kc_state *s, kc_val tag, int64_t code) {
  if (tag.k == KC_V_INT) return tag.i == code;
  const kc_note *n = kc_note_of(c, tag.v, false);
  if (n && n->choice) {
    int t = known_truth(s, n->choice);
    if (t >= 0) return (t ? n->a : n->b) == code;
    if (n->a != code && n->b != code) return 0;
  }
  for (const kc_tag_fact *f = kc_map_get(&s->tags, tag.v->id); f; f = f->next) {
    if (f->equal) return f->code == code;
    if (f->code == code) return 0;
  }
  return -1;
}

kc_val kc_resolve(kc_cap *c, const kc_state *s, kc_val a) {
  if (a.k == KC_V_SYM && a.v->type.kind == KN_V_BOOL) {
    int t = known_truth(s, a.v);
    return t < 0 ? a : kc_bool(t);
  }
  if (a.k != KC_V_UNION) return a;
  kc_union left = {.tag = a.u->tag};
  for (int i = 0; i < a.u->n; i++) {
    int t = tag_is(c, s, a.u->tag, a.u->alt[i].code);
    if (t == 1) return kc_resolve(c, s, a.u->alt[i].v);
    if (t < 0) left.alt[left.n++] = a.u->alt[i];
  }
  if (left.n == 1) return kc_resolve(c, s, left.alt[0].v);
  return left.n == 0 || left.n == a.u->n ? a : kc_make_union(c, &left);
}

/* ---- registers ---- */

kc_val kc_get_reg(kc_cap *c, kc_state *s, int r) {
  const kc_frame *f = s->top;
  if (!f->cell[r]) return kc_resolve(c, s, f->r[r]);
  const kc_val *v = kc_map_get(&s->cells, f->cell[r]);
  return v ? kc_resolve(c, s, *v) : KC_NILV;
}

void kc_set_reg(kc_cap *c, kc_state *s, int r, kc_val v) {
  kc_frame *f = kc_top(c, s);
  if (f->cell[r])
    kc_map_set(c, &s->cells, s->owner, f->cell[r], kc_dup(c, &v, sizeof v));
  else
    f->r[r] = v;
  const kc_hold *h = v.k == KC_V_HANDLE ? kc_map_get(&s->holds, v.id) : NULL;
  kn_value *named = v.k == KC_V_SYM ? v.v : h ? h->now : NULL;
  if (named && !named->name) kn_value_name(&c->b, named, kc_local_name(f->p, r, f->pc + 1));
}

/* ---- tables ---- */

kc_val kc_normal_key(kc_val k) {
  if (k.k == KC_V_FLOAT && k.f >= -0x1p63 && k.f < 0x1p63 && floor(k.f) == k.f) return kc_int((int64_t)k.f);
  return k;
}

static uint32_t hash_of(kc_val k) {
  uint64_t x = k.k == KC_V_INT || k.k == KC_V_BOOL ? (uint64_t)k.i : k.id;
  if (k.k == KC_V_FLOAT) memcpy(&x, &k.f, sizeof x);
  if (k.k == KC_V_SYM) x = k.v->id;
  x = (x + (uint64_t)k.k * 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
  return (uint32_t)(x >> 32);
}

static void hash_add(kc_table *t, uint32_t at) {
  uint32_t i = hash_of(t->key[at]) & (t->nhash - 1);
  while (t->hash[i]) i = (i + 1) & (t->nhash - 1);
  t->hash[i] = at + 1;
}

static void rehash(kc_cap *c, kc_table *t) {
  uint32_t want = 16;
  while (want < t->cap * 2) want *= 2;
  t->nhash = want;
  t->hash = kc_new(c, want * sizeof *t->hash);
  for (uint32_t i = 0; i < t->n; i++) hash_add(t, i);
}

int64_t kc_table_find(const kc_table *t, kc_val key) {
  if (!t->hash) {
    for (uint32_t i = 0; i < t->n; i++)
      if (kc_same(t->key[i], key)) return i;
    return -1;
  }
  for (uint32_t i = hash_of(key) & (t->nhash - 1); t->hash[i]; i = (i + 1) & (t->nhash - 1))
    if (kc_same(t->key[t->hash[i] - 1], key)) return t->hash[i] - 1;
  return -1;
}

void kc_table_put(kc_cap *c, kc_table *t, kc_val key, kc_val v) {
  int64_t at = kc_table_find(t, key);
  if (at >= 0) {
    t->val[at] = v;
    return;
  }
  if (t->n == t->cap) {
    uint32_t cap = t->cap ? t->cap * 2 : 4;
    kc_val *keys = kc_new(c, cap * sizeof *keys), *vals = kc_new(c, cap * sizeof *vals);
    if (t->n) memcpy(keys, t->key, t->n * sizeof *keys), memcpy(vals, t->val, t->n * sizeof *vals);
    t->key = keys;
    t->val = vals;
    t->cap = cap;
    if (cap > 8) {
      t->key[t->n] = key;
      rehash(c, t);
    }
  }
  t->key[t->n] = key;
  t->val[t->n] = v;
  if (t->hash) hash_add(t, t->n);
  t->n++;
}

kc_table *kc_table_copy(kc_cap *c, const kc_table *t, uint32_t owner) {
  kc_table *copy = kc_dup(c, t, sizeof *t);
  copy->owner = owner;
  if (t->cap) {
    copy->key = kc_new(c, t->cap * sizeof *t->key);
    copy->val = kc_new(c, t->cap * sizeof *t->val);
    memcpy(copy->key, t->key, t->n * sizeof *t->key);
    memcpy(copy->val, t->val, t->n * sizeof *t->val);
  }
  if (t->hash) copy->hash = kc_dup(c, t->hash, t->nhash * sizeof *t->hash);
  return copy;
}

kc_table *kc_table_get(const kc_state *s, uint32_t id) { return kc_map_get(&s->tabs, id); }

kc_table *kc_table_write(kc_cap *c, kc_state *s, uint32_t id) {
  kc_table *t = kc_table_get(s, id);
  if (t && (t->owner == s->owner || KN_MUTANT(tables_shared))) return t;
  if (t)
    t = kc_table_copy(c, t, s->owner);
  else {
    t = kc_new(c, sizeof *t);
    *t = (kc_table){.owner = s->owner, .meta = KC_NILV};
  }
  kc_map_set(c, &s->tabs, s->owner, id, t);
  return t;
}

uint32_t kc_new_table_id(kc_cap *c, uint32_t object) {
  if (c->ntab == 0) c->tab = kc_more(c, &c->arena, c->tab, c->ntab++, sizeof *c->tab);
  c->tab = kc_more(c, &c->arena, c->tab, c->ntab, sizeof *c->tab);
  c->tab[c->ntab] = (kc_table_info){.object = object};
  return c->ntab++;
}

uint32_t kc_table_new(kc_cap *c, kc_state *s) {
  uint32_t id = kc_new_table_id(c, 0);
  kc_table_write(c, s, id);
  return id;
}

uint32_t kc_new_cell_id(kc_cap *c) {
  if (c->ncell == 0) c->cell = kc_more(c, &c->arena, c->cell, c->ncell++, sizeof *c->cell);
  c->cell = kc_more(c, &c->arena, c->cell, c->ncell, sizeof *c->cell);
  c->cell[c->ncell] = (kc_cell_info){0};
  return c->ncell++;
}

uint32_t kc_new_closure_id(kc_cap *c, kc_proto *p, uint32_t object) {
  if (c->nclos == 0) c->clos = kc_more(c, &c->arena, c->clos, c->nclos++, sizeof *c->clos);
  c->clos = kc_more(c, &c->arena, c->clos, c->nclos, sizeof *c->clos);
  c->clos[c->nclos] = (kc_closure_info){.object = object, .p = p};
  if (p) c->clos[c->nclos].cell = kc_new(c, (size_t)p->nup * sizeof(uint32_t));
  return c->nclos++;
}
