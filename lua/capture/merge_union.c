/* Unions of merging: a value that is one thing on one path and another on the other, and what loops carry of
 * that. Objects made on either path become one alternative where nothing can tell them apart. See merge.h. */
#include "lua/capture/alike.h"
#include "lua/capture/merge.h"
#include "lua/capture/text.h"
#include <string.h>

static bool is_object(kc_val a) { return a.k == KC_V_TABLE || a.k == KC_V_CLOSURE || a.k == KC_V_HANDLE; }

static bool is_outside(const kc_cap *c, kc_val a) {
  if (a.k == KC_V_TABLE) return c->tab[a.id].object != 0 || c->tab[a.id].argument;
  if (a.k == KC_V_HANDLE) return c->han[a.id].first != NULL;
  return a.k != KC_V_CLOSURE || c->clos[a.id].object != 0;
}

/* An object that is there on entry and at the back edge. */
static bool known_to_both(const kc_merge_job *m, kc_val a) {
  if (a.k == KC_V_HANDLE) return kc_held(m->c, m->s1, a.id) && kc_held(m->c, m->s2, a.id);
  return a.k == KC_V_TABLE && kc_known_to_both(m, true, a.id);
}

static bool pair_same(kc_merge_job *m, kc_val a) {
  return a.k == KC_V_HANDLE ? kc_pair_handles(m, a.id, a.id) : kc_pair_tables(m, a.id, a.id);
}

/* ---- alternatives that are different objects on the two sides ---- */

/* Of each alternative of the second side: which of the first it is, -1 for none; its code from here on. */
typedef struct matching {
  int at[KC_MAX_ALTS];
  int64_t to[KC_MAX_ALTS];
} matching;

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

/* The same object, or none: then alternatives are told apart by their codes. */
static bool is_same(const kc_alt *a, const kc_alt *b) {
  return is_object(a->v) || is_object(b->v) ? kc_same(a->v, b->v) : a->code == b->code;
}

static bool has_code(const kc_union *u, const matching *t, int n, int64_t code) {
  for (int j = 0; j < n; j++)
    if (t->at[j] < 0 && t->to[j] == code) return true;
  return kc_alt_find(u, code) != NULL;
}

/* Alternatives that are one: the same ones first, then objects of one side each that can be one object; those
 * that were called alike before it. */
static void match(kc_merge_job *m, const kc_union *x, const kc_union *y, matching *t) {
  bool used[KC_MAX_ALTS] = {false};
  for (int j = 0; j < y->n; j++) {
    t->at[j] = -1;
    for (int i = 0; i < x->n && t->at[j] < 0; i++)
      if (is_same(&x->alt[i], &y->alt[j])) used[t->at[j] = i] = true;
  }
  for (int codes = 1; codes >= 0; codes--)
    for (int i = 0; i < x->n; i++)
      for (int j = 0; j < y->n && !used[i]; j++) {
        const kc_alt *a = &x->alt[i], *b = &y->alt[j];
        if (t->at[j] >= 0 || (codes && a->code != b->code) || !like(m, a->v, b->v)) continue;
        if (pair_objects(m, a->v, b->v)) used[t->at[j] = i] = true;
      }
  for (int j = 0; j < y->n; j++) {
    int64_t code = t->at[j] >= 0 ? x->alt[t->at[j]].code : y->alt[j].code;
    t->to[j] = t->at[j] < 0 && has_code(x, t, j, code) ? kc_fresh_code(m->c) : code;
  }
}

static const kc_val *matched(const kc_union *y, const matching *t, int i) {
  for (int j = 0; j < y->n; j++)
    if (t->at[j] == i) return &y->alt[j].v;
  return NULL;
}

/* The second side's tag with its alternatives called as they are from here on. */
static kc_val renamed_tag(kc_merge_job *m, const kc_union *y, const matching *t) {
  kc_cap *c = m->c;
  int64_t from[KC_MAX_ALTS], to[KC_MAX_ALTS];
  int n = 0;
  for (int j = 0; j < y->n; j++)
    if (y->alt[j].code != t->to[j]) from[n] = y->alt[j].code, to[n++] = t->to[j];
  if (!n) return y->tag;
  for (const kc_recoded *r = m->recoded; r; r = r->next) /* what had one tag has one tag */
    if (kc_same(r->tag, y->tag) && r->n == n && !memcmp(r->from, from, (size_t)n * sizeof *from) &&
        !memcmp(r->to, to, (size_t)n * sizeof *to))
      return r->now;
  kn_region *at = c->b.at;
  c->b.at = m->mode == KC_MERGE_GENERAL ? m->l->body : m->f->n->regions[1];
  kc_recoded *r = kc_new(c, sizeof *r);
  *r = (kc_recoded){.tag = y->tag, .n = n, .next = m->recoded, .now = kc_recode(c, y->tag, n, from, to)};
  memcpy(r->from, from, (size_t)n * sizeof *from);
  memcpy(r->to, to, (size_t)n * sizeof *to);
  c->b.at = at;
  m->recoded = r;
  return r->now;
}

/* ---- joins ---- */

/* A value that is the same whatever path it comes by. */
static bool is_fixed(const kc_alt *a) {
  return a->code == KC_CLASS_NIL || (a->code >= KC_CLASS_OTHER && a->v.k != KC_V_TEXT);
}

kc_val kc_pair_unions(kc_merge_job *m, kc_val a, kc_val b) {
  kc_cap *c = m->c;
  kc_union x, y, u = {.n = 0};
  matching t;
  const char *name = m->name;
  kc_alts(c, a, &x);
  kc_alts(c, b, &y);
  match(m, &x, &y, &t);
  for (int i = 0; i < x.n; i++) {
    const kc_val *q = matched(&y, &t, i);
    kc_val v = x.alt[i].v;
    m->name = name;
    if (q && !is_fixed(&x.alt[i]))
      v = kc_pair_values(m, v, *q);
    else if (!q || kc_same(v, *q))
      v = kc_merge_single(m, v, 1);
    u.alt[u.n++] = (kc_alt){x.alt[i].code, v};
  }
  for (int j = 0; j < y.n; j++) {
    if (t.at[j] >= 0) continue;
    if (u.n == KC_MAX_ALTS) return KC_POISONED;
    u.alt[u.n++] = (kc_alt){t.to[j], kc_merge_single(m, y.alt[j].v, 2)};
  }
  m->name = NULL;
  kc_val tag = renamed_tag(m, &y, &t);
  u.tag = kc_pair_values(m, x.tag, KN_MUTANT(tag_of_one_side) && x.tag.k == KC_V_INT ? x.tag : tag);
  kc_note_crowd(c, &u);
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
static bool carry_old(kc_merge_job *m, const kc_alt *a, const kc_val *q, kc_val *v) {
  *v = a->v;
  if (q && is_object(*v) && !kc_same(*v, *q)) return true; /* they are one from here on */
  if (q) {
    if (a->code != KC_CLASS_NIL && v->k != KC_V_STRING && v->k != KC_V_CFUNCTION && v->k != KC_V_OBJECT)
      *v = kc_pair_values(m, *v, *q);
    return true;
  }
  if (known_to_both(m, *v) && kc_seen_after(m, *v)) return pair_same(m, *v);
  if (kc_is_param(m, *v)) kc_bind_param(m, *v, (kc_val){.k = KC_V_NONE});
  return true; /* an object that the back edge has forgotten keeps what it holds */
}

/* A loop-carried value of several types: a tag is carried, and a payload for each. */
kc_val kc_carry_union(kc_merge_job *m, kc_val a, kc_val b) {
  kc_cap *c = m->c;
  kc_union x, y, u = {.n = 0};
  matching t;
  const char *name = m->name;
  kc_alts(c, a, &x);
  kc_alts(c, b, &y);
  match(m, &x, &y, &t);
  for (int i = 0; i < x.n; i++) {
    kc_val v;
    m->name = name;
    if (!carry_old(m, &x.alt[i], matched(&y, &t, i), &v)) return poison(m);
    u.alt[u.n++] = (kc_alt){x.alt[i].code, v};
  }
  for (int j = 0; j < y.n; j++) {
    kc_val v = y.alt[j].v;
    if (t.at[j] >= 0) continue;
    if (u.n == KC_MAX_ALTS) return poison(m);
    m->name = name;
    if (known_to_both(m, v) ? !pair_same(m, v) : !m->l->peeled && !kc_may_carry(m, v)) return poison(m);
    if (!known_to_both(m, v)) v = kc_carry_new(m, v);
    u.alt[u.n++] = (kc_alt){t.to[j], v};
    *m->changed = true;
  }
  kc_val tag = renamed_tag(m, &y, &t);
  m->name = NULL;
  if (kc_is_param(m, x.tag))
    kc_bind_param(m, u.tag = x.tag, tag);
  else if (kc_same(x.tag, tag) && u.n == x.n)
    u.tag = x.tag;
  else
    u.tag = kc_new_param(m, &(kn_vtype){.kind = KN_V_INT}, kc_value(c, x.tag), tag);
  kc_note_crowd(c, &u);
  return kc_make_union(c, &u);
}
