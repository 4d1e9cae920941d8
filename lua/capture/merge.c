/* Merging states at joins, seeing one from outside its region, and generalising a loop's entry. One walk over
 * what differs, root first (live registers, results), then tables and upvalues that both paths know and one
 * changed; leaves are paired, exported or generalised by mode. See interp.h. Objects and renaming:
 * merge_heap.c. */
#include "lua/capture/merge.h"
#include "lua/capture/race.h"
#include "lua/capture/text.h"

/* ---- outputs of regions ---- */

static kn_value *remember(kc_cap *c, kc_pairing **memo, uint32_t *n, kn_value *a, kn_value *b,
                          kn_value *out) {
  *memo = kc_more(c, &c->arena, *memo, *n, sizeof **memo);
  (*memo)[(*n)++] = (kc_pairing){a, b, out};
  return out;
}

kn_value *kc_if_out(kc_cap *c, kc_if *f, kn_value *a, kn_value *b, const kn_vtype *type, const char *name) {
  for (uint32_t i = 0; i < f->nmemo; i++)
    if (f->memo[i].a == a && f->memo[i].b == b) return f->memo[i].out;
  kn_value *out = kn_if_output(&c->b, f->n, type, name, a, b);
  return out ? remember(c, &f->memo, &f->nmemo, a, b, out) : kc_dummy(c);
}

kn_value *kc_loop_out(kc_cap *c, kc_loop_node *l, kn_value *v) {
  if (KN_MUTANT(exit_before_the_trip))
    for (uint32_t i = 0; i < l->nnext; i++)
      if (l->next[i].k == KC_V_SYM && l->next[i].v == v) v = l->body->params[i];
  for (uint32_t i = 0; i < l->nmemo; i++)
    if (l->memo[i].a == v) return l->memo[i].out;
  kn_value *out = kn_loop_output(&c->b, l->n, NULL, v->name, v);
  return out ? remember(c, &l->memo, &l->nmemo, v, NULL, out) : kc_dummy(c);
}

static kn_value *exported(kc_merge_job *m, kn_value *v, int side) {
  if (m->mode == KC_MERGE_GENERAL) return v;
  if (m->mode == KC_MERGE_EXIT) return v->region == m->l->body ? kc_loop_out(m->c, m->l, v) : v;
  if (v->region != m->f->n->regions[side - 1]) return v;
  kn_value *undef = kc_undef(m->c, &v->type);
  return side == 1 ? kc_if_out(m->c, m->f, v, undef, NULL, v->name)
                   : kc_if_out(m->c, m->f, undef, v, NULL, v->name);
}

kc_val kc_merge_single(kc_merge_job *m, kc_val a, int side) {
  switch (a.k) {
  case KC_V_SYM: return kc_sym(exported(m, a.v, side));
  case KC_V_UNION: {
    kc_union u = *a.u;
    u.tag = kc_merge_single(m, u.tag, side);
    for (int i = 0; i < u.n; i++) u.alt[i].v = kc_merge_single(m, u.alt[i].v, side);
    return kc_make_union(m->c, &u);
  }
  case KC_V_TEXT: {
    kc_val *v = kc_vals(m->c, (int)a.t->n);
    for (uint32_t i = 0; i < a.t->n; i++) v[i] = kc_merge_single(m, a.t->v[i], side);
    return kc_text_with(m->c, a.t, v);
  }
  case KC_V_TABLE: return kc_touch_table(m, a.id, side) ? a : KC_POISONED;
  case KC_V_CLOSURE: return kc_touch_closure(m, a.id, side) ? a : KC_POISONED;
  case KC_V_HANDLE: return kc_touch_handle(m, a.id, side) ? a : KC_POISONED;
  default: return a;
  }
}

/* ---- loops: parameters ---- */

bool kc_is_param(const kc_merge_job *m, kc_val a) {
  return m->mode == KC_MERGE_GENERAL && a.k == KC_V_SYM && !a.v->def && a.v->region == m->l->body;
}

void kc_bind_param(kc_merge_job *m, kc_val param, kc_val next) { m->l->next[param.v->index] = next; }

kc_val kc_new_param(kc_merge_job *m, const kn_vtype *type, kn_value *init, kc_val next) {
  kc_loop_node *l = m->l;
  *m->changed = true;
  kn_value *p = kn_loop_param(&m->c->b, l->n, type, m->name, init);
  if (!p) return KC_POISONED; /* the builder's failure is seen after the instruction */
  l->next = kc_more(m->c, &m->c->arena, l->next, l->nnext, sizeof *l->next);
  l->next[l->nnext++] = next;
  return kc_sym(p);
}

bool kc_type_of(kc_val a, kn_vtype *t) {
  *t = (kn_vtype){0};
  if (!kc_scalar_kind(a, &t->kind)) return false;
  if (a.k == KC_V_SYM) *t = a.v->type;
  return true;
}

/* The parameter takes b after a trip; its type widens to fit. False when no type fits both. */
static bool rebind(kc_merge_job *m, kc_val param, kc_val b) {
  kn_vtype t, join;
  if (!kc_type_of(b, &t) || kc_class_of(m->c, param) != kc_class_of(m->c, b) ||
      !kn_vtype_join(&param.v->type, &t, &join))
    return false;
  if (!kn_vtype_equal(&join, &param.v->type)) {
    param.v->type = join;
    *m->changed = true;
  }
  kc_bind_param(m, param, b);
  return true;
}

/* ---- two values become one ---- */

/* Texts of one format: their values, one by one. */
static kc_val pair_texts(kc_merge_job *m, kc_val a, kc_val b) {
  kc_val *v = kc_vals(m->c, (int)a.t->n);
  bool fits = true;
  m->name = NULL;
  for (uint32_t i = 0; i < a.t->n; i++)
    fits &= (v[i] = kc_pair_values(m, a.t->v[i], b.t->v[i])).k == KC_V_SYM;
  return fits ? kc_text_with(m->c, a.t, v) : KC_POISONED;
}

static kc_val pair_equal(kc_merge_job *m, kc_val a, kc_val b) {
  switch (a.k) {
  case KC_V_TABLE: return kc_pair_tables(m, a.id, a.id) ? a : KC_POISONED;
  case KC_V_CLOSURE: return kc_pair_closures(m, a.id, a.id) ? a : KC_POISONED;
  case KC_V_HANDLE: return kc_pair_handles(m, a.id, a.id) ? a : KC_POISONED;
  case KC_V_UNION: return m->mode == KC_MERGE_GENERAL ? kc_carry_union(m, a, b) : kc_merge_single(m, a, 1);
  case KC_V_TEXT: return pair_texts(m, a, b);
  default: break;
  }
  if (kc_is_param(m, a)) kc_bind_param(m, a, b);
  return a;
}

static kc_val join_scalars(kc_merge_job *m, kc_val a, kc_val b, const kn_vtype *type) {
  kc_cap *c = m->c;
  kc_if *f = m->f;
  if (a.k == KC_V_BOOL && b.k == KC_V_BOOL) {
    if (a.i) return kc_sym(f->cond);
    if (!f->negated) f->negated = kc_not(c, f->cond).v;
    return kc_sym(f->negated);
  }
  kn_value *out = kc_if_out(c, f, kc_value(c, a), kc_value(c, b), type, m->name);
  if (a.k == KC_V_INT && b.k == KC_V_INT)
    *kc_note_of(c, out, true) = (kc_note){.choice = f->cond, .a = a.i, .b = b.i};
  return kc_sym(out);
}

/* Nothing fits both: a union where that can be carried; before objects of one trip are carried into the next,
 * trips are peeled off, after which it may fit. */
static kc_val general_conflict(kc_merge_job *m, kc_val a, kc_val b) {
  if (m->l->peeled || (kc_may_carry(m, a) && kc_may_carry(m, b))) return kc_carry_union(m, a, b);
  m->conflict = *m->changed = true;
  return KC_POISONED;
}

/* A tensor made inside that is a handle on one path only: both become one object when it is one on both. */
static void meets_plain(kc_merge_job *m, kc_val a, kc_val b) {
  if (b.k == KC_V_HANDLE) {
    kc_val t = a;
    a = b, b = t;
  }
  if (kc_is_plain_tensor(a) && kc_is_plain_tensor(b) && !m->contents) kc_note_meeting(m->c, a.v, b.v);
  if (a.k == KC_V_HANDLE && kc_is_plain_tensor(b) && !m->c->han[a.id].first && !m->c->han[a.id].parent)
    kc_wants_handle(m->c, b.v);
}

kc_val kc_pair_values(kc_merge_job *m, kc_val a, kc_val b) {
  kc_cap *c = m->c;
  bool general = m->mode == KC_MERGE_GENERAL;
  kn_vtype ta, tb, join;
  if (kc_same(a, b)) {
    kc_val v = pair_equal(m, a, b);
    if (v.k == KC_V_POISON && a.k != KC_V_POISON && general) m->conflict = true, *m->changed = true;
    return v;
  }
  if (kc_is_param(m, a)) return rebind(m, a, b) ? a : general_conflict(m, a, b);
  if (a.k == KC_V_POISON || b.k == KC_V_POISON) {
    if (general && a.k != KC_V_POISON) *m->changed = true;
    return KC_POISONED;
  }
  if (a.k == KC_V_TABLE && b.k == KC_V_TABLE && kc_pair_tables(m, a.id, b.id)) return a;
  if (a.k == KC_V_CLOSURE && b.k == KC_V_CLOSURE && kc_pair_closures(m, a.id, b.id)) return a;
  if (a.k == KC_V_HANDLE && b.k == KC_V_HANDLE && kc_pair_handles(m, a.id, b.id)) return a;
  meets_plain(m, a, b);
  if (a.k == KC_V_TEXT && b.k == KC_V_TEXT && a.t->format == b.t->format) return pair_texts(m, a, b);
  if (kc_type_of(a, &ta) && kc_type_of(b, &tb) && kc_class_of(c, a) == kc_class_of(c, b) &&
      kn_vtype_join(&ta, &tb, &join))
    return general ? kc_new_param(m, &join, kc_value(c, a), b) : join_scalars(m, a, b, &join);
  return general ? general_conflict(m, a, b) : kc_pair_unions(m, a, b);
}

/* What is known on each path narrows its value first. */
kc_val kc_merge_places(kc_merge_job *m, kc_val a, kc_val b) {
  return kc_pair_values(m, kc_resolve(m->c, m->s1, a), kc_resolve(m->c, m->s2, b));
}

/* ---- frames and results ---- */

/* The contents of a register that is an upvalue on one path and a plain one on the other. When the function
 * itself reads it no more, only the path that has the upvalue can. */
static void mixed_contents(kc_merge_job *m, int r, bool live) {
  kc_cap *c = m->c;
  const kc_frame *f1 = m->s1->top, *f2 = m->s2->top;
  int side = f1->cell[r] ? 1 : 2;
  uint32_t cell = side == 1 ? f1->cell[r] : f2->cell[r];
  const kc_val *v1 = side == 1 ? kc_map_get(&m->s1->cells, cell) : &f1->r[r];
  const kc_val *v2 = side == 2 ? kc_map_get(&m->s2->cells, cell) : &f2->r[r];
  kc_val a = v1 ? *v1 : KC_NILV, b = v2 ? *v2 : KC_NILV, v;
  if (live && !KN_MUTANT(upvalue_of_one_path))
    v = kc_merge_places(m, a, b);
  else if (m->mode != KC_MERGE_GENERAL)
    v = kc_merge_single(m, kc_resolve(c, side == 1 ? m->s1 : m->s2, side == 1 ? a : b), side);
  else
    v = side == 1 ? a : kc_carry_new(m, b);
  kc_map_set(c, &m->out->cells, m->out->owner, cell, kc_dup(c, &v, sizeof v));
  kc_note_cell(m, cell);
}

/* Registers that are upvalues of closures, before anything else is paired: an upvalue that is one register's
 * here and another closure's there would be two variables in one. */
static void merge_frame_cells(kc_merge_job *m) {
  kc_frame *to = kc_top(m->c, m->out);
  const kc_frame *f1 = m->s1->top, *f2 = m->s2->top;
  for (int r = 0; r < f1->p->maxstack; r++) {
    uint32_t c1 = f1->cell[r], c2 = f2->cell[r];
    if (!c1 && !c2) continue;
    to->cell[r] = c1 ? c1 : c2;
    if (!c1 || !c2)
      kc_mark_pair(m, &m->c12, &m->c21, to->cell[r], to->cell[r]);
    else if (!kc_pair_cells(m, c1, c2)) {
      to->cell[r] = 0;
      to->r[r] = KC_POISONED;
    }
    if (m->mode == KC_MERGE_GENERAL && to->cell[r] != c1) *m->changed = true;
  }
}

static void merge_frame(kc_merge_job *m, int pc) {
  kc_cap *c = m->c;
  kc_frame *to = kc_top(c, m->out);
  const kc_frame *f1 = m->s1->top, *f2 = m->s2 ? m->s2->top : NULL;
  if (f2) merge_frame_cells(m);
  for (int r = 0; r < f1->p->maxstack; r++) {
    bool live = pc >= 0 && kc_regs_has(&f1->flow->live[pc], r);
    uint32_t c1 = f1->cell[r], c2 = f2 ? f2->cell[r] : 0;
    m->name = live ? kc_local_name(f1->p, r, pc) : NULL;
    if (!f2 && c1)
      kc_touch_cell(m, c1, m->side);
    else if (!f2)
      to->r[r] = live ? kc_merge_single(m, kc_resolve(c, m->s1, f1->r[r]), m->side) : KC_POISONED;
    else if (!c1 && !c2)
      to->r[r] = live ? kc_merge_places(m, f1->r[r], f2->r[r]) : KC_POISONED;
    else if (!c1 || !c2)
      mixed_contents(m, r, live);
  }
  m->name = NULL;
}

static kc_res merge_results(kc_merge_job *m) {
  kc_cap *c = m->c;
  int n = m->s1->nret, n2 = m->s2 ? m->s2->nret : n;
  m->out->nret = n > n2 ? n : n2;
  m->out->ret = kc_vals(c, m->out->nret);
  for (int i = 0; i < m->out->nret; i++)
    m->out->ret[i] =
        m->s2 ? kc_merge_places(m, i < n ? m->s1->ret[i] : KC_ABSENT, i < n2 ? m->s2->ret[i] : KC_ABSENT)
              : kc_merge_single(m, kc_resolve(c, m->s1, m->s1->ret[i]), m->side);
  return KC_GO;
}

/* ---- facts ---- */

/* Of what two paths know of a tag, what both do: lists grow at the head, so a shared tail. */
static void *common_tags(void *a, void *b) {
  for (kc_tag_fact *x = a; x; x = (kc_tag_fact *)(uintptr_t)x->next)
    for (const kc_tag_fact *y = b; y; y = y->next)
      if (x == y) return x;
  return NULL;
}

kc_res kc_merge(kc_cap *c, kc_merge_mode mode, kc_state *a, kc_state *b, kc_if *f, kc_loop_node *l, int pc,
                bool *changed, kc_state **out) {
  bool ignored = false;
  kc_merge_job *m = kc_new(c, sizeof *m);
  *m = (kc_merge_job){.c = c,
                      .mode = mode,
                      .side = mode == KC_MERGE_SECOND ? 2 : 1,
                      .s1 = a,
                      .s2 = b,
                      .f = f,
                      .l = l,
                      .pc = pc,
                      .changed = changed ? changed : &ignored};
  m->out = kc_snapshot(c, a);
  m->owner = ++c->owner;
  if (b && (a->depth != b->depth || a->top->up != b->top->up))
    return kc_fail(c, "internal: paths that meet are at different calls");
  if (b && mode == KC_MERGE_PAIR && !KN_MUTANT(facts_leak)) {
    m->out->facts = kc_map_common(c, &a->facts, &b->facts, m->out->owner, NULL);
    m->out->tags = kc_map_common(c, &a->tags, &b->tags, m->out->owner, common_tags);
  }
  if (mode == KC_MERGE_PAIR && b) m->out->events = kc_join_events(c, a->events, b->events);
  if (mode == KC_MERGE_GENERAL) kc_touch_again(c, a, b);
  merge_frame(m, pc);
  KC_TRY(merge_results(m));
  KC_TRY(kc_merge_heap(m));
  if (m->conflict && mode == KC_MERGE_GENERAL) m->l->conflict = true;
  *out = m->out;
  return c->b.status == KN_OK ? KC_GO : kc_fail(c, "merge");
}
