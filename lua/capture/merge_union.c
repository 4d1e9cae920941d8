/* Unions of merging: a value that is one thing on one path and another on the other, and what loops carry of
 * that. Objects made on either path become one alternative where nothing can tell them apart. See merge.h. */
#include "lua/capture/merge.h"
#include "lua/capture/text.h"

static bool is_object(kc_val a) { return a.k == KC_V_TABLE || a.k == KC_V_CLOSURE || a.k == KC_V_HANDLE; }

static bool is_outside(const kc_cap *c, kc_val a) {
  if (a.k == KC_V_TABLE) return c->tab[a.id].object != 0 || c->tab[a.id].argument;
  if (a.k == KC_V_HANDLE) return c->han[a.id].first != NULL;
  return a.k != KC_V_CLOSURE || c->clos[a.id].object != 0;
}

/* An object that is there on entry and at the back edge. */
static bool known_to_both(const kc_merge_job *m, kc_val a) {
  if (a.k == KC_V_HANDLE) return kc_hold_of(m->c, m->s1, a.id) && kc_hold_of(m->c, m->s2, a.id);
  return a.k == KC_V_TABLE && kc_known_to_both(m, true, a.id);
}

static bool pair_same(kc_merge_job *m, kc_val a) {
  return a.k == KC_V_HANDLE ? kc_pair_handles(m, a.id, a.id) : kc_pair_tables(m, a.id, a.id);
}

/* ---- alternatives that are different objects on the two sides ---- */

typedef struct matching {
  int64_t from[KC_MAX_ALTS], to[KC_MAX_ALTS]; /* codes of the second side, and what they become */
  int n;
} matching;

static bool is_matched(const matching *t, int64_t code) {
  for (int i = 0; i < t->n; i++)
    if (t->from[i] == code) return true;
  return false;
}

static bool like(kc_merge_job *m, kc_val a, kc_val b) {
  kc_cap *c = m->c;
  if (a.k != b.k || !is_object(a) || is_outside(c, a) || is_outside(c, b)) return false;
  if (a.k == KC_V_HANDLE) return true;
  if (a.k == KC_V_CLOSURE) return c->clos[a.id].p && c->clos[a.id].p == c->clos[b.id].p;
  const kc_table *x = kc_table_get(m->s1, a.id), *y = kc_table_get(m->s2, b.id);
  return x && y && kc_same(kc_resolve(c, m->s1, x->meta), kc_resolve(c, m->s2, y->meta));
}

static bool pair_objects(kc_merge_job *m, kc_val a, kc_val b) {
  return a.k == KC_V_TABLE    ? kc_pair_tables(m, a.id, b.id)
         : a.k == KC_V_HANDLE ? kc_pair_handles(m, a.id, b.id)
                              : kc_pair_closures(m, a.id, b.id);
}

/* An alternative of the second side alone that can be one object with this one of the first. */
static bool match(kc_merge_job *m, const kc_alt *a, const kc_union *x, const kc_union *y, matching *t) {
  for (int j = 0; j < y->n; j++) {
    const kc_alt *b = &y->alt[j];
    if (kc_alt_find(x, b->code) || is_matched(t, b->code) || !like(m, a->v, b->v)) continue;
    if (!pair_objects(m, a->v, b->v)) continue;
    t->from[t->n] = b->code;
    t->to[t->n++] = a->code;
    return true;
  }
  return false;
}

/* The second side's tag with its matched alternatives called as the first side calls them. */
static kc_val renamed_tag(kc_merge_job *m, kc_val tag, const matching *t) {
  kc_cap *c = m->c;
  kn_region *at = c->b.at;
  c->b.at = m->mode == KC_MERGE_GENERAL ? m->l->body : m->f->n->regions[1];
  kc_val made = tag;
  for (int i = 0; i < t->n; i++) {
    kc_val is = kc_equals_code(c, tag, t->from[i]);
    if (is.k == KC_V_SYM)
      made = kc_sym(kc_emit(c, KN_NODE_select, 3, is, kc_int(t->to[i]), made));
    else if (is.i)
      made = kc_int(t->to[i]);
  }
  c->b.at = at;
  return made;
}

/* ---- joins ---- */

kc_val kc_pair_unions(kc_merge_job *m, kc_val a, kc_val b) {
  kc_cap *c = m->c;
  kc_union x, y, u = {.n = 0};
  matching t = {.n = 0};
  const char *name = m->name;
  kc_alts(c, a, &x);
  kc_alts(c, b, &y);
  for (int i = 0; i < x.n; i++) {
    const kc_val *q = kc_alt_find(&y, x.alt[i].code);
    bool fixed =
        x.alt[i].code == KC_CLASS_NIL || (x.alt[i].code >= KC_CLASS_OTHER && x.alt[i].v.k != KC_V_TEXT);
    m->name = name;
    kc_val v = x.alt[i].v;
    if (q && !fixed)
      v = kc_pair_values(m, v, *q);
    else if (q || !match(m, &x.alt[i], &x, &y, &t))
      v = kc_merge_single(m, v, 1);
    u.alt[u.n++] = (kc_alt){x.alt[i].code, v};
  }
  for (int i = 0; i < y.n; i++) {
    if (kc_alt_find(&x, y.alt[i].code) || is_matched(&t, y.alt[i].code)) continue;
    if (u.n == KC_MAX_ALTS) return KC_POISONED;
    u.alt[u.n++] = (kc_alt){y.alt[i].code, kc_merge_single(m, y.alt[i].v, 2)};
  }
  m->name = NULL;
  kc_val tag = renamed_tag(m, y.tag, &t);
  u.tag = kc_pair_values(m, x.tag, KN_MUTANT(tag_of_one_side) && x.tag.k == KC_V_INT ? x.tag : tag);
  return kc_make_union(c, &u);
}

/* ---- loops ---- */

/* May this value be one alternative of a loop-carried union? Objects made inside the loop may not. */
bool kc_may_carry(const kc_merge_job *m, kc_val a) {
  if (a.k == KC_V_UNION) {
    for (int i = 0; i < a.u->n; i++)
      if (!kc_may_carry(m, a.u->alt[i].v)) return false;
    return true;
  }
  kn_vkind kind;
  return known_to_both(m, a) || a.k == KC_V_NIL || a.k == KC_V_STRING || a.k == KC_V_CFUNCTION ||
         kc_scalar_kind(a, &kind) || (is_object(a) && is_outside(m->c, a)) || a.k == KC_V_OBJECT;
}

kc_val kc_carry_new(kc_merge_job *m, kc_val b) {
  kc_cap *c = m->c;
  kn_vtype t;
  if (kc_type_of(b, &t)) {
    kc_val p = kc_new_param(m, &t, kc_undef(c, &t), b);
    if (p.k == KC_V_SYM && b.k == KC_V_SYM) kc_note_carried(c, p.v, b.v);
    return p;
  }
  if (b.k == KC_V_UNION) {
    kc_union u = *b.u;
    u.tag = kc_carry_new(m, u.tag);
    for (int i = 0; i < u.n; i++) u.alt[i].v = kc_carry_new(m, u.alt[i].v);
    return kc_make_union(c, &u);
  }
  if (b.k == KC_V_TEXT) {
    kc_val *v = kc_vals(c, (int)b.t->n);
    for (uint32_t i = 0; i < b.t->n; i++) v[i] = kc_carry_new(m, b.t->v[i]);
    return kc_text_with(c, b.t, v);
  }
  if (b.k == KC_V_TABLE && !is_outside(c, b)) kc_adopt_table(m, b.id);
  if (b.k == KC_V_HANDLE && !is_outside(c, b)) kc_adopt_handle(m, b.id);
  if (b.k == KC_V_CLOSURE && c->clos[b.id].p)
    for (int i = 0; i < c->clos[b.id].p->nup; i++) kc_adopt_cell(m, c->clos[b.id].cell[i]);
  return b;
}

static kc_val poison(kc_merge_job *m) {
  *m->changed = true;
  return KC_POISONED;
}

/* An alternative that the entry has and the back edge may have. */
static bool carry_old(kc_merge_job *m, const kc_union *x, const kc_union *y, const kc_alt *a, matching *t,
                      kc_val *v) {
  const kc_val *q = kc_alt_find(y, a->code);
  *v = a->v;
  if (q) {
    if (a->code != KC_CLASS_NIL && v->k != KC_V_STRING && v->k != KC_V_CFUNCTION && v->k != KC_V_OBJECT)
      *v = kc_pair_values(m, *v, *q);
    return true;
  }
  if (match(m, a, x, y, t)) return true;
  if (known_to_both(m, *v)) return pair_same(m, *v);
  if (kc_is_param(m, *v)) kc_bind_param(m, *v, (kc_val){.k = KC_V_NONE});
  return true; /* an object that the back edge has forgotten keeps what it holds */
}

/* A loop-carried value of several types: a tag is carried, and a payload for each. */
kc_val kc_carry_union(kc_merge_job *m, kc_val a, kc_val b) {
  kc_cap *c = m->c;
  kc_union x, y, u = {.n = 0};
  matching t = {.n = 0};
  const char *name = m->name;
  kc_alts(c, a, &x);
  kc_alts(c, b, &y);
  for (int i = 0; i < x.n; i++) {
    kc_val v;
    m->name = name;
    if (!carry_old(m, &x, &y, &x.alt[i], &t, &v)) return poison(m);
    u.alt[u.n++] = (kc_alt){x.alt[i].code, v};
  }
  for (int i = 0; i < y.n; i++) {
    kc_val v = y.alt[i].v;
    if (kc_alt_find(&x, y.alt[i].code) || is_matched(&t, y.alt[i].code)) continue;
    if (u.n == KC_MAX_ALTS) return poison(m);
    m->name = name;
    if (known_to_both(m, v) ? !pair_same(m, v) : !m->l->peeled && !kc_may_carry(m, v)) return poison(m);
    if (!known_to_both(m, v)) v = kc_carry_new(m, v);
    u.alt[u.n++] = (kc_alt){y.alt[i].code, v};
    *m->changed = true;
  }
  kc_val tag = renamed_tag(m, y.tag, &t);
  m->name = NULL;
  if (kc_is_param(m, x.tag))
    kc_bind_param(m, u.tag = x.tag, tag);
  else if (kc_same(x.tag, tag) && u.n == x.n)
    u.tag = x.tag;
  else
    u.tag = kc_new_param(m, &(kn_vtype){.kind = KN_V_INT}, kc_value(c, x.tag), tag);
  return kc_make_union(c, &u);
}
