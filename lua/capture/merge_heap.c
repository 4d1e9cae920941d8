/* The objects of merging: which tables and upvalues of two paths become one, their contents, renaming. */
#include "lua/capture/grads.h"
#include "lua/capture/growing.h"
#include "lua/capture/merge.h"
#include <string.h>

static const kc_reach *reach_of(kc_merge_job *m, kc_state *s, kc_reach *q) {
  if (!q->tab) kc_reach_of(m->c, s, m->pc, false, q);
  return q;
}

bool kc_seen_after(kc_merge_job *m, kc_val a) {
  const kc_reach *q = reach_of(m, m->s2, &m->q2);
  return a.k == KC_V_HANDLE ? q->han[a.id] : q->tab[a.id];
}

/* ---- pairing ---- */

static uint32_t partner(const kc_map *m, uint32_t id) {
  uintptr_t p = (uintptr_t)kc_map_get(m, id);
  return p ? (uint32_t)(p - 1) : UINT32_MAX;
}

void kc_mark_pair(kc_merge_job *m, kc_map *ab, kc_map *ba, uint32_t a, uint32_t b) {
  kc_map_set(m->c, ab, m->owner, a, (void *)((uintptr_t)b + 1));
  kc_map_set(m->c, ba, m->owner, b, (void *)((uintptr_t)a + 1));
}

static void push(kc_merge_job *m, kc_merge_work w) {
  m->work = kc_more(m->c, &m->c->arena, m->work, m->nwork, sizeof *m->work);
  m->work[m->nwork++] = w;
}

/* A pair of different ids is one object only if neither is visible on the other path. */
static bool may_rename(kc_merge_job *m, bool table, uint32_t a, uint32_t b) {
  kc_cap *c = m->c;
  if (table ? c->tab[a].object || c->tab[b].object || c->tab[a].argument || c->tab[b].argument
            : c->cell[a].object || c->cell[b].object)
    return false;
  const kc_reach *q1 = reach_of(m, m->s1, &m->q1), *q2 = reach_of(m, m->s2, &m->q2);
  bool seen = table ? q2->tab[a] || q1->tab[b] : q2->cell[a] || q1->cell[b];
  if (seen && !KN_MUTANT(alias_check_off)) return false;
  m->renamed = true;
  return true;
}

bool kc_pair_tables(kc_merge_job *m, uint32_t a, uint32_t b) {
  uint32_t pa = partner(&m->t12, a), pb = partner(&m->t21, b);
  if (pa != UINT32_MAX || pb != UINT32_MAX) return pa == b;
  if (a != b && !may_rename(m, true, a, b)) return false;
  kc_mark_pair(m, &m->t12, &m->t21, a, b);
  if (a != b || kc_table_get(m->s1, a) != kc_table_get(m->s2, b))
    push(m, (kc_merge_work){KC_WORK_TABLES, a, b, 0});
  return true;
}

bool kc_pair_cells(kc_merge_job *m, uint32_t a, uint32_t b) {
  uint32_t pa = partner(&m->c12, a), pb = partner(&m->c21, b);
  if (pa != UINT32_MAX || pb != UINT32_MAX) return pa == b;
  if (a != b && !may_rename(m, false, a, b)) return false;
  kc_mark_pair(m, &m->c12, &m->c21, a, b);
  if (a != b || kc_map_get(&m->s1->cells, a) != kc_map_get(&m->s2->cells, b))
    push(m, (kc_merge_work){KC_WORK_CELLS, a, b, 0});
  return true;
}

bool kc_pair_closures(kc_merge_job *m, uint32_t a, uint32_t b) {
  const kc_closure_info *x = &m->c->clos[a], *y = &m->c->clos[b];
  if (a != b && (!x->p || x->p != y->p || x->object || y->object)) return false;
  for (int i = 0; x->p && i < x->p->nup; i++)
    if (!kc_pair_cells(m, x->cell[i], y->cell[i])) return false;
  return true;
}

/* Views of paired handles by the same op, or two tensors made inside. */
bool kc_pair_handles(kc_merge_job *m, uint32_t a, uint32_t b) {
  kc_cap *c = m->c;
  const kc_handle_info *x = &c->han[a], *y = &c->han[b];
  uint32_t pa = partner(&m->h12, a), pb = partner(&m->h21, b);
  if (pa != UINT32_MAX || pb != UINT32_MAX) return pa == b;
  if (a != b) {
    const kc_hold *h1 = kc_hold_of(c, m->s1, a), *h2 = kc_hold_of(c, m->s2, b);
    if (x->first || y->first || !h1 || !h2 || !x->parent != !y->parent) return false;
    if (x->parent ? !kc_same_view(x->view, y->view) || !kc_pair_handles(m, x->parent, y->parent)
                  : kc_class_of(c, kc_sym(h1->now)) != kc_class_of(c, kc_sym(h2->now)))
      return false;
    const kc_reach *q1 = reach_of(m, m->s1, &m->q1), *q2 = reach_of(m, m->s2, &m->q2);
    if (q2->han[a] || q1->han[b]) return false;
    m->renamed = true;
  } else if (!kc_hold_of(c, m->s1, a) || !kc_hold_of(c, m->s2, a)) /* forgotten on one path */
    return false;
  else if (x->parent && !kc_pair_handles(m, x->parent, x->parent))
    return false;
  kc_mark_pair(m, &m->h12, &m->h21, a, b);
  if (a != b || kc_hold_of(c, m->s1, a) != kc_hold_of(c, m->s2, b))
    push(m, (kc_merge_work){KC_WORK_HANDLES, a, b, 0});
  return true;
}

/* ---- objects of one path ---- */

static bool table_in(const kc_cap *c, const kc_state *s, uint32_t id) {
  return kc_table_get(s, id) || c->tab[id].object || c->tab[id].argument;
}
static bool cell_in(const kc_cap *c, const kc_state *s, uint32_t id) {
  return kc_map_get(&s->cells, id) || c->cell[id].object;
}

static const kc_state *state_before(const kc_merge_job *m) {
  return m->mode == KC_MERGE_EXIT ? m->l->entry : m->f->base;
}

/* Known before the region: the walk over differences takes care of it. */
static bool known_before(kc_merge_job *m, bool table, uint32_t id) {
  if (m->s2) return false;
  const kc_state *before = state_before(m);
  return table ? table_in(m->c, before, id) : cell_in(m->c, before, id);
}

/* The other path has it, too, but sees it no more: what it holds there does not matter. */
static bool is_forgotten(kc_merge_job *m, bool table, uint32_t id, int side) {
  const kc_cap *c = m->c;
  if (m->mode != KC_MERGE_PAIR || !m->s2) return false;
  if (table ? c->tab[id].object || c->tab[id].argument : c->cell[id].object != 0) return false;
  const void *a = table ? (void *)kc_table_get(m->s1, id) : kc_map_get(&m->s1->cells, id);
  const void *b = table ? (void *)kc_table_get(m->s2, id) : kc_map_get(&m->s2->cells, id);
  if (a == b || !a || !b) return false;
  const kc_reach *q = side == 1 ? reach_of(m, m->s2, &m->q2) : reach_of(m, m->s1, &m->q1);
  return table ? !q->tab[id] : !q->cell[id];
}

bool kc_touch_table(kc_merge_job *m, uint32_t id, int side) {
  if (m->s2 && partner(side == 1 ? &m->t12 : &m->t21, id) != UINT32_MAX) return true;
  if (m->s2 && !is_forgotten(m, true, id, side) && table_in(m->c, m->s1, id) && table_in(m->c, m->s2, id))
    return kc_pair_tables(m, id, id);
  if (known_before(m, true, id) || kc_map_get(&m->seen_tab, id)) return true;
  kc_map_set(m->c, &m->seen_tab, m->owner, id, m);
  push(m, (kc_merge_work){KC_WORK_TABLE, id, 0, side});
  return true;
}

bool kc_touch_cell(kc_merge_job *m, uint32_t id, int side) {
  if (m->s2 && partner(side == 1 ? &m->c12 : &m->c21, id) != UINT32_MAX) return true;
  if (m->s2 && !is_forgotten(m, false, id, side) && cell_in(m->c, m->s1, id) && cell_in(m->c, m->s2, id))
    return kc_pair_cells(m, id, id);
  if (known_before(m, false, id) || kc_map_get(&m->seen_cell, id)) return true;
  kc_map_set(m->c, &m->seen_cell, m->owner, id, m);
  push(m, (kc_merge_work){KC_WORK_CELL, id, 0, side});
  return true;
}

bool kc_touch_closure(kc_merge_job *m, uint32_t id, int side) {
  const kc_closure_info *f = &m->c->clos[id];
  for (int i = 0; f->p && i < f->p->nup; i++)
    if (!kc_touch_cell(m, f->cell[i], side)) return false;
  return true;
}

bool kc_touch_handle(kc_merge_job *m, uint32_t id, int side) {
  uint32_t parent = m->c->han[id].parent;
  if (m->s2 && partner(side == 1 ? &m->h12 : &m->h21, id) != UINT32_MAX) return true;
  if (m->s2 && kc_held(m->c, m->s1, id) && kc_held(m->c, m->s2, id)) {
    if (kc_pair_handles(m, id, id)) return true;
    /* what it shows is another object on the other path: fine when that path sees it no more */
    if ((side == 1 ? reach_of(m, m->s2, &m->q2) : reach_of(m, m->s1, &m->q1))->han[id]) return false;
  }
  if ((!m->s2 && kc_held(m->c, state_before(m), id)) || kc_map_get(&m->seen_han, id)) return true;
  if (parent && !kc_touch_handle(m, parent, side)) return false;
  kc_map_set(m->c, &m->seen_han, m->owner, id, m);
  push(m, (kc_merge_work){KC_WORK_HANDLE, id, 0, side});
  return true;
}

/* ---- contents ---- */

static void set_table(kc_merge_job *m, uint32_t id, kc_table *t) {
  kc_map_set(m->c, &m->out->tabs, m->out->owner, id, t);
  kc_map_set(m->c, &m->made_tab, m->owner, id, m);
}

void kc_note_cell(kc_merge_job *m, uint32_t cell) { kc_map_set(m->c, &m->made_cell, m->owner, cell, m); }

static void set_cell(kc_merge_job *m, uint32_t id, kc_val v) {
  kc_map_set(m->c, &m->out->cells, m->out->owner, id, kc_dup(m->c, &v, sizeof v));
  kc_note_cell(m, id);
}

static void name_key(kc_merge_job *m, kc_val key) {
  m->name = key.k == KC_V_STRING ? m->c->obj[key.id].s : NULL;
}

/* A table that is a list on one path is made one on the other; before a loop, when that starts over. */
static kc_res both_lists(kc_merge_job *m, uint32_t a, uint32_t b) {
  kc_cap *c = m->c;
  const kn_value *x = kc_list_of(m->s1, a), *y = kc_list_of(m->s2, b);
  kn_vtype join;
  if (x && y && !kn_vtype_join(&x->type, &y->type, &join))
    return kc_fail(c, "a list whose length depends on tensor data holds things of different types");
  if (!x == !y) return KC_GO;
  kn_vtype element = kn_element_of((x ? x : y)->type);
  if (m->mode == KC_MERGE_GENERAL) {
    kc_grows_as(c, a, &element);
    return kc_fail(c,
                   "the length of this table depends on tensor data: it grows or shrinks on some path only");
  }
  kn_region *at = c->b.at;
  c->b.at = m->f->n->regions[x ? 1 : 0];
  kc_res r = kc_make_list(c, x ? m->s2 : m->s1, x ? b : a, &element);
  c->b.at = at;
  return r;
}

static kc_res merge_tables(kc_merge_job *m, uint32_t a, uint32_t b) {
  kc_cap *c = m->c;
  KC_TRY(both_lists(m, a, b));
  const kc_table *t1 = kc_table_get(m->s1, a), *t2 = kc_table_get(m->s2, b);
  kc_table *t = kc_new(c, sizeof *t);
  *t = (kc_table){.owner = m->out->owner,
                  .meta = kc_merge_places(m, t1 ? t1->meta : KC_NILV, t2 ? t2->meta : KC_NILV)};
  for (uint32_t i = 0; t1 && i < t1->n; i++) {
    kc_val v2;
    KC_TRY(kc_place_get(c, m->s2, b, t1->key[i], &v2));
    name_key(m, t1->key[i]);
    kc_table_put(c, t, t1->key[i], kc_merge_places(m, t1->val[i], v2));
  }
  for (uint32_t i = 0; t2 && i < t2->n; i++) {
    if (t1 && kc_table_find(t1, t2->key[i]) >= 0) continue;
    kc_val v1;
    KC_TRY(kc_place_get(c, m->s1, a, t2->key[i], &v1));
    name_key(m, t2->key[i]);
    kc_table_put(c, t, t2->key[i], kc_merge_places(m, v1, t2->val[i]));
  }
  m->name = NULL;
  set_table(m, a, t);
  return KC_GO;
}

static void export_table(kc_merge_job *m, uint32_t id, int side) {
  kc_cap *c = m->c;
  const kc_state *s = side == 2 && m->s2 ? m->s2 : m->s1;
  const kc_table *from = kc_table_get(s, id);
  if (!from) return;
  kc_table *t = kc_table_copy(c, from, m->out->owner);
  t->meta = kc_merge_single(m, t->meta, side);
  for (uint32_t i = 0; i < t->n; i++) t->val[i] = kc_merge_single(m, kc_resolve(c, s, t->val[i]), side);
  set_table(m, id, t);
}

static kc_res cell_value(kc_merge_job *m, kc_state *s, uint32_t id, kc_val *out) {
  const kc_val *v = kc_map_get(&s->cells, id);
  *out = v ? *v : KC_NILV;
  if (!v && m->c->cell[id].grad) return kc_grad_entry(m->c, id, out);
  if (!v && m->c->cell[id].look) *out = m->c->cell[id].look->seen;
  return KC_GO;
}

static kc_res merge_cells(kc_merge_job *m, uint32_t a, uint32_t b) {
  kc_val v1, v2;
  KC_TRY(cell_value(m, m->s1, a, &v1));
  KC_TRY(cell_value(m, m->s2, b, &v2));
  const kc_cell_info *info = &m->c->cell[a];
  m->name = info->look ? info->look->name : NULL;
  set_cell(m, a, kc_merge_places(m, v1, v2));
  m->name = NULL;
  return KC_GO;
}

static void set_hold(kc_merge_job *m, uint32_t id, const kc_hold *h) {
  kc_map_set(m->c, &m->out->holds, m->out->owner, id, kc_dup(m->c, h, sizeof *h));
  kc_map_set(m->c, &m->made_han, m->owner, id, m);
}

static kn_value *merged_value(kc_merge_job *m, kn_value *a, kn_value *b) {
  m->contents = true;
  kc_val v = kc_merge_places(m, kc_sym(a), kc_sym(b));
  m->contents = false;
  if (v.k == KC_V_SYM || v.k == KC_V_INT) return kc_value(m->c, v);
  m->lost = true;
  return a;
}

/* Of a view what was derived is kept where it is the same on both paths, or was there before the loop. */
static kc_res merge_handles(kc_merge_job *m, uint32_t a, uint32_t b) {
  kc_cap *c = m->c;
  const kc_hold *x = kc_hold_of(c, m->s1, a), *y = kc_hold_of(c, m->s2, b);
  kc_hold h = *x;
  if (!c->han[a].parent) {
    m->name = x->now->name;
    h.now = merged_value(m, x->now, y->now);
  } else {
    if (m->mode != KC_MERGE_GENERAL && (x->now != y->now || x->of != y->of)) h.now = h.of = NULL;
    h.in = kc_dup(c, x->in, x->nin * sizeof *h.in);
    for (uint32_t i = 1; i < h.nin; i++)
      if (x->in[i] != y->in[i]) h.in[i] = merged_value(m, x->in[i], y->in[i]);
  }
  m->name = NULL;
  set_hold(m, a, &h);
  return KC_GO;
}

static void export_handle(kc_merge_job *m, uint32_t id, int side) {
  kc_cap *c = m->c;
  const kc_hold *x = kc_hold_of(c, side == 2 && m->s2 ? m->s2 : m->s1, id);
  if (!x) return;
  kc_hold h = *x;
  if (!c->han[id].parent)
    h.now = kc_merge_single(m, kc_sym(h.now), side).v;
  else {
    h.now = h.of = NULL; /* derived again when it is read */
    h.in = kc_dup(c, x->in, x->nin * sizeof *h.in);
    for (uint32_t i = 1; i < h.nin; i++) h.in[i] = kc_merge_single(m, kc_sym(h.in[i]), side).v;
  }
  set_hold(m, id, &h);
}

/* Met first as one path's own, and made one with another path's object since. */
static bool paired_since(const kc_merge_job *m, const kc_map *t12, const kc_map *t21,
                         const kc_merge_work *w) {
  return m->s2 && partner(w->side == 1 ? t12 : t21, w->a) != UINT32_MAX;
}

/* ---- objects of the back edge that the next trip finds on entry ---- */

bool kc_known_to_both(const kc_merge_job *m, bool table, uint32_t id) {
  return table ? kc_table_get(m->s1, id) && kc_table_get(m->s2, id)
               : kc_map_get(&m->s1->cells, id) && kc_map_get(&m->s2->cells, id);
}

void kc_adopt_table(kc_merge_job *m, uint32_t id) {
  if (partner(&m->t21, id) != UINT32_MAX) { /* it is one of the entry's */
    m->renamed = true;
    return;
  }
  if (kc_known_to_both(m, true, id)) {
    kc_pair_tables(m, id, id);
    return;
  }
  if (kc_map_get(&m->seen_tab, id)) return;
  kc_map_set(m->c, &m->seen_tab, m->owner, id, m);
  push(m, (kc_merge_work){KC_WORK_NEW_TABLE, id, 0, 2});
}

void kc_adopt_cell(kc_merge_job *m, uint32_t id) {
  if (m->c->cell[id].object) return;
  if (partner(&m->c21, id) != UINT32_MAX) {
    m->renamed = true;
    return;
  }
  if (kc_known_to_both(m, false, id)) {
    kc_pair_cells(m, id, id);
    return;
  }
  if (kc_map_get(&m->seen_cell, id)) return;
  kc_map_set(m->c, &m->seen_cell, m->owner, id, m);
  push(m, (kc_merge_work){KC_WORK_NEW_CELL, id, 0, 2});
}

void kc_adopt_handle(kc_merge_job *m, uint32_t id) {
  kc_cap *c = m->c;
  if (c->han[id].parent) kc_adopt_handle(m, c->han[id].parent);
  if (partner(&m->h21, id) != UINT32_MAX) {
    m->renamed = true;
    return;
  }
  if (kc_held(c, m->s1, id)) {
    if (kc_pair_handles(m, id, id)) return;
    m->lost |= reach_of(m, m->s1, &m->q1)->han[id];
  }
  if (kc_map_get(&m->seen_han, id)) return;
  kc_map_set(c, &m->seen_han, m->owner, id, m);
  push(m, (kc_merge_work){KC_WORK_NEW_HANDLE, id, 0, 2});
}

static void new_table(kc_merge_job *m, uint32_t id) {
  kc_cap *c = m->c;
  const kc_table *from = kc_table_get(m->s2, id);
  if (!from || partner(&m->t21, id) != UINT32_MAX) return;
  kc_table *t = kc_table_copy(c, from, m->out->owner);
  *m->changed = true;
  t->meta = kc_carry_new(m, kc_resolve(c, m->s2, t->meta));
  for (uint32_t i = 0; i < t->n; i++) {
    name_key(m, t->key[i]);
    t->val[i] = kc_carry_new(m, kc_resolve(c, m->s2, t->val[i]));
  }
  m->name = NULL;
  set_table(m, id, t);
}

/* A view of it is derived again when it is read. */
static void new_handle(kc_merge_job *m, uint32_t id) {
  const kc_hold *x = kc_hold_of(m->c, m->s2, id);
  if (!x || partner(&m->h21, id) != UINT32_MAX) return;
  kc_hold h = *x;
  *m->changed = true;
  if (!m->c->han[id].parent)
    h.now = kc_carry_new(m, kc_sym(h.now)).v;
  else {
    h.now = h.of = NULL;
    h.in = kc_dup(m->c, x->in, x->nin * sizeof *h.in);
    for (uint32_t i = 1; i < h.nin; i++) h.in[i] = kc_carry_new(m, kc_sym(h.in[i])).v;
  }
  set_hold(m, id, &h);
}

static void new_cell(kc_merge_job *m, uint32_t id) {
  const kc_val *v = kc_map_get(&m->s2->cells, id);
  if (!v || partner(&m->c21, id) != UINT32_MAX) return;
  *m->changed = true;
  set_cell(m, id, kc_carry_new(m, kc_resolve(m->c, m->s2, *v)));
}

static kc_res work(kc_merge_job *m) {
  while (m->done < m->nwork) {
    kc_merge_work w = m->work[m->done++];
    switch (w.what) {
    case KC_WORK_TABLES: KC_TRY(merge_tables(m, w.a, w.b)); break;
    case KC_WORK_TABLE:
      if (!paired_since(m, &m->t12, &m->t21, &w)) export_table(m, w.a, w.side);
      break;
    case KC_WORK_CELLS: KC_TRY(merge_cells(m, w.a, w.b)); break;
    case KC_WORK_NEW_TABLE: new_table(m, w.a); break;
    case KC_WORK_NEW_CELL: new_cell(m, w.a); break;
    case KC_WORK_NEW_HANDLE: new_handle(m, w.a); break;
    case KC_WORK_HANDLES: KC_TRY(merge_handles(m, w.a, w.b)); break;
    case KC_WORK_HANDLE:
      if (!paired_since(m, &m->h12, &m->h21, &w)) export_handle(m, w.a, w.side);
      break;
    case KC_WORK_CELL: {
      if (paired_since(m, &m->c12, &m->c21, &w)) break;
      const kc_state *s = w.side == 2 && m->s2 ? m->s2 : m->s1;
      const kc_val *v = kc_map_get(&s->cells, w.a);
      if (v) set_cell(m, w.a, kc_merge_single(m, kc_resolve(m->c, s, *v), w.side));
      break;
    }
    }
  }
  return KC_GO;
}

/* ---- differences ---- */

static kc_res differ_tables(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  (void)a, (void)b;
  if (m->s2) {
    bool both = table_in(m->c, m->s1, id) && table_in(m->c, m->s2, id);
    if (both && !kc_map_get(&m->seen_tab, id)) kc_pair_tables(m, id, id);
  } else if (known_before(m, true, id)) {
    if (!kc_map_get(&m->seen_tab, id)) {
      kc_map_set(m->c, &m->seen_tab, m->owner, id, m);
      push(m, (kc_merge_work){KC_WORK_TABLE, id, 0, m->side});
    }
  }
  return KC_GO;
}

static kc_res differ_cells(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  (void)a, (void)b;
  if (m->s2) {
    bool both = cell_in(m->c, m->s1, id) && cell_in(m->c, m->s2, id);
    if (both && !kc_map_get(&m->seen_cell, id)) kc_pair_cells(m, id, id);
  } else if (known_before(m, false, id)) {
    if (!kc_map_get(&m->seen_cell, id)) {
      kc_map_set(m->c, &m->seen_cell, m->owner, id, m);
      push(m, (kc_merge_work){KC_WORK_CELL, id, 0, m->side});
    }
  }
  return KC_GO;
}

static kc_res differ_handles(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  kc_cap *c = m->c;
  (void)a, (void)b;
  if (m->s2) {
    if (kc_held(c, m->s1, id) && kc_held(c, m->s2, id)) kc_pair_handles(m, id, id);
  } else if (kc_held(c, state_before(m), id) && !kc_map_get(&m->seen_han, id)) {
    kc_map_set(c, &m->seen_han, m->owner, id, m);
    push(m, (kc_merge_work){KC_WORK_HANDLE, id, 0, m->side});
  }
  return KC_GO;
}

/* Objects that differ and that nothing can reach any more still hold values of a region: they are forgotten.
 */
static kc_res drop_table(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  (void)b;
  if (a && !kc_map_get(&m->made_tab, id)) kc_map_set(m->c, &m->out->tabs, m->out->owner, id, NULL);
  return KC_GO;
}

static kc_res drop_cell(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  (void)b;
  if (a && !kc_map_get(&m->made_cell, id)) kc_map_set(m->c, &m->out->cells, m->out->owner, id, NULL);
  return KC_GO;
}

static kc_res drop_handle(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  (void)b;
  if (a && !kc_map_get(&m->made_han, id)) kc_map_set(m->c, &m->out->holds, m->out->owner, id, NULL);
  return KC_GO;
}

/* ---- renaming: s2's objects that became s1's ---- */

/* A view of a handle that has another name shows it under that. */
static uint32_t renamed_handle(kc_merge_job *m, uint32_t id) {
  kc_cap *c = m->c;
  uint32_t to = partner(&m->h21, id), parent = c->han[id].parent;
  if (to != UINT32_MAX) return to;
  uint32_t now = parent ? renamed_handle(m, parent) : 0;
  if (now == parent) return id;
  kc_handle_info info = c->han[id];
  info.parent = now;
  to = kc_handle_new(c, m->out, NULL);
  c->han[to] = info;
  kc_map_set(c, &m->out->holds, m->out->owner, to, kc_map_get(&m->out->holds, id));
  kc_mark_pair(m, &m->h12, &m->h21, to, id);
  return to;
}

static kc_val renamed(kc_merge_job *m, kc_val a) {
  kc_cap *c = m->c;
  if (a.k == KC_V_HANDLE)
    a.id = renamed_handle(m, a.id);
  else if (a.k == KC_V_TABLE) {
    uint32_t to = partner(&m->t21, a.id);
    if (to != UINT32_MAX) a.id = to;
  } else if (a.k == KC_V_UNION) {
    kc_union u = *a.u;
    bool any = false;
    for (int i = 0; i < u.n; i++) {
      kc_val v = renamed(m, u.alt[i].v);
      any |= !kc_same(v, u.alt[i].v);
      u.alt[i].v = v;
    }
    if (any) return kc_make_union(c, &u);
  } else if (a.k == KC_V_CLOSURE && c->clos[a.id].p && !c->clos[a.id].object) {
    kc_proto *p = c->clos[a.id].p;
    uint32_t fresh = 0;
    for (int i = 0; i < p->nup; i++) {
      uint32_t cell = c->clos[a.id].cell[i], to = partner(&m->c21, cell);
      if (to == UINT32_MAX || to == cell) continue;
      if (!fresh) {
        fresh = kc_new_closure_id(c, p, 0);
        memcpy(c->clos[fresh].cell, c->clos[a.id].cell, (size_t)p->nup * sizeof(uint32_t));
      }
      c->clos[fresh].cell[i] = to;
    }
    if (fresh) a.id = fresh;
  }
  return a;
}

static kc_res rename_in_table(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  const kc_table *t = a;
  (void)b;
  if (!t) return KC_GO;
  kc_val v = renamed(m, t->meta);
  if (!kc_same(v, t->meta)) kc_table_write(m->c, m->out, id)->meta = v;
  for (uint32_t k = 0; k < t->n; k++) {
    if (!kc_same(v = renamed(m, t->val[k]), t->val[k])) kc_table_write(m->c, m->out, id)->val[k] = v;
    if (!kc_same(renamed(m, t->key[k]), t->key[k]))
      return kc_fail(m->c, "a table made on one path only is used as a key");
  }
  return KC_GO;
}

static kc_res rename_in_cell(void *ud, uint32_t id, void *a, void *b) {
  kc_merge_job *m = ud;
  (void)b;
  if (!a) return KC_GO;
  kc_val old = *(kc_val *)a, v = renamed(m, old);
  if (!kc_same(v, old)) kc_map_set(m->c, &m->out->cells, m->out->owner, id, kc_dup(m->c, &v, sizeof v));
  return KC_GO;
}

/* Everywhere: what only s2 can still see, and has not changed, was not looked at so far and holds them, too.
 */
static kc_res rename_all(kc_merge_job *m) {
  kc_frame *f = m->out->top; /* written by this merge */
  for (int r = 0; r < f->p->maxstack; r++) f->r[r] = renamed(m, f->r[r]);
  for (int i = 0; i < m->out->nret; i++) m->out->ret[i] = renamed(m, m->out->ret[i]);
  const kc_map none = {0}, tabs = m->out->tabs, cells = m->out->cells;
  kc_snapshot(m->c, m->out); /* the maps are gone through as they are now */
  KC_TRY(kc_map_diff(&tabs, &none, rename_in_table, m));
  return kc_map_diff(&cells, &none, rename_in_cell, m);
}

kc_res kc_merge_heap(kc_merge_job *m) {
  KC_TRY(work(m)); /* from the roots first, so that objects that replaced each other meet */
  kc_state *before = m->s2 ? m->s2 : m->mode == KC_MERGE_EXIT ? m->l->entry : m->f->base;
  KC_TRY(kc_map_diff(&m->s1->tabs, &before->tabs, differ_tables, m));
  KC_TRY(kc_map_diff(&m->s1->cells, &before->cells, differ_cells, m));
  KC_TRY(kc_map_diff(&m->s1->holds, &before->holds, differ_handles, m));
  KC_TRY(work(m));
  if (m->lost)
    return kc_fail(m->c,
                   "a tensor that is written to differs between paths in a way that cannot be captured");
  if (m->mode != KC_MERGE_GENERAL) {
    KC_TRY(kc_map_diff(&m->s1->tabs, &before->tabs, drop_table, m));
    KC_TRY(kc_map_diff(&m->s1->cells, &before->cells, drop_cell, m));
    KC_TRY(kc_map_diff(&m->s1->holds, &before->holds, drop_handle, m));
  }
  return m->renamed && m->s2 ? rename_all(m) : KC_GO;
}
