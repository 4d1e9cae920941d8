/* Making alternatives one that nobody can tell apart. See alike.h. */
#include "lua/capture/alike.h"
#include "lua/capture/growing.h"
#include "lua/capture/handle.h"
#include "lua/capture/reach.h"
#include <string.h>

enum {
  MAX_MEMBERS = 64,
  MAX_GROUP_TAGS = 8,
  MAX_ROUNDS = 8,
  MAX_KINDS = 4,
  MAX_VIEWS = MAX_MEMBERS * MAX_KINDS
};

typedef struct member {
  kc_val v;
  const kc_referred *by;
  int group; /* of members that share tags, one by one; -1: of none that becomes fewer */
} member;

typedef struct slot { /* what a group's members become: the one that this tag says */
  kn_value *tag;
  kc_val v;
  int group;
} slot;

typedef struct retag { /* the codes of a tag's alternatives from here on */
  kn_value *tag;
  kc_val now;
} retag;

typedef struct shown_as { /* what the view `was` of a member is of this slot */
  const slot *slot;
  uint32_t was, is;
} shown_as;

typedef struct job {
  kc_cap *c;
  kc_state *s;
  kc_kind kind; /* of members: HANDLE, TABLE, CLOSURE */
  bool shown;   /* handles with their views */
  kc_reach q;
  member m[MAX_MEMBERS];
  slot slot[MAX_MEMBERS];
  retag tag[MAX_MEMBERS];
  int n, nslot, ntag;
  shown_as view[MAX_VIEWS];
  int nview;
  int from[MAX_MEMBERS + 1]; /* of each group: its first slot; the last one's end */
  int ngroup;
  uint32_t ntab, ncell; /* before */
} job;

/* ---- which ---- */

/* What is from outside, tensors whose gradient may be asked for, and lists are what they are. */
static bool is_itself(const kc_cap *c, const kc_state *s, kc_val a) {
  if (a.k == KC_V_TABLE) {
    const kc_table_info *info = &c->tab[a.id];
    return info->object || info->argument || info->growth || !kc_table_get(s, a.id) || kc_list_of(s, a.id);
  }
  if (a.k == KC_V_CLOSURE) return c->clos[a.id].object || !c->clos[a.id].p;
  for (uint32_t i = 0; i < c->ninner; i++)
    if (kc_same(c->inner[i], a)) return true;
  return c->han[a.id].first || !kc_held(c, s, a.id);
}

void kc_note_crowd(kc_cap *c, const kc_union *u) {
  int n = 0;
  for (int i = 0; i < u->n; i++) {
    kc_val v = u->alt[i].v;
    n += v.k == KC_V_HANDLE    ? !c->han[v.id].first
         : v.k == KC_V_TABLE   ? !c->tab[v.id].object && !c->tab[v.id].argument
         : v.k == KC_V_CLOSURE ? c->clos[v.id].p && !c->clos[v.id].object
                               : 0;
  }
  if (n >= KC_CROWD) c->crowded = true;
}

static const int64_t *code_of(const member *m, const kn_value *tag) {
  for (int i = 0; i < m->by->n; i++)
    if (m->by->tag[i] == tag) return &m->by->code[i];
  return NULL;
}

static uint32_t via_of(const member *m, const kn_value *tag) {
  for (int i = 0; i < m->by->n; i++)
    if (m->by->tag[i] == tag) return m->by->via[i];
  return 0;
}

/* Views by the same op with inputs of the same types, of whatever. */
static bool same_kind(job *j, uint32_t x, uint32_t y) {
  const kc_hold *a = kc_hold_of(j->c, j->s, x), *b = kc_hold_of(j->c, j->s, y);
  if (!kc_same_view(j->c->han[x].view, j->c->han[y].view) || a->nin != b->nin) return false;
  for (uint32_t i = 1; i < a->nin; i++)
    if (!kn_vtype_equal(&a->in[i]->type, &b->in[i]->type)) return false;
  return true;
}

/* The view of this kind that the member is referred to by; 0: none. */
static uint32_t view_of_kind(job *j, const member *m, uint32_t kind) {
  for (int i = 0; i < m->by->n; i++)
    if (m->by->via[i] && same_kind(j, m->by->via[i], kind)) return m->by->via[i];
  return 0;
}

/* Two views of it of one kind are two tensors although they show the same. */
static bool has_twins(job *j, const kc_referred *by) {
  for (int i = 0; i < by->n; i++)
    if (by->via[i] && is_itself(j->c, j->s, kc_ref(KC_V_HANDLE, by->via[i]))) return true;
  for (int i = 0; i < by->n; i++)
    for (int k = 0; k < i; k++)
      if (by->via[i] && by->via[k] && by->via[i] != by->via[k] && same_kind(j, by->via[i], by->via[k]))
        return true;
  return false;
}

static bool alike_handles(job *j, uint32_t x, uint32_t y) {
  kc_cap *c = j->c;
  const kc_handle_info *a = &c->han[x], *b = &c->han[y];
  const kc_hold *p = kc_hold_of(c, j->s, x), *q = kc_hold_of(c, j->s, y);
  kn_vtype type;
  if (a->parent != b->parent) return false;
  if (!a->parent)
    return kc_class_of(c, kc_sym(p->now)) == kc_class_of(c, kc_sym(q->now)) &&
           kn_vtype_join(&p->now->type, &q->now->type, &type);
  if (!kc_same_view(a->view, b->view) || p->nin != q->nin) return false;
  for (uint32_t i = 1; i < p->nin; i++)
    if (!kn_vtype_join(&p->in[i]->type, &q->in[i]->type, &type)) return false;
  return true;
}

static kc_val field(job *j, const kc_table *t, kc_val key) {
  int64_t at = kc_table_find(t, key);
  return at < 0 ? KC_NILV : kc_resolve(j->c, j->s, t->val[at]);
}

/* Places of a list that one table has and the other does not would make its length unknown. */
static bool same_places(job *j, const kc_table *a, const kc_table *b) {
  for (uint32_t i = 0; i < a->n; i++)
    if (a->key[i].k != KC_V_STRING &&
        (field(j, a, a->key[i]).k == KC_V_NIL) != (field(j, b, a->key[i]).k == KC_V_NIL))
      return false;
  return true;
}

/* Tables of one class: what they hold may differ. */
static bool alike_tables(job *j, uint32_t x, uint32_t y) {
  const kc_table *a = kc_table_get(j->s, x), *b = kc_table_get(j->s, y);
  return kc_same(kc_resolve(j->c, j->s, a->meta), kc_resolve(j->c, j->s, b->meta)) && same_places(j, a, b) &&
         same_places(j, b, a);
}

/* An upvalue that is nobody else's, so that closures that have it can have another instead. */
static bool is_own(job *j, uint32_t clos, int i) {
  const kc_closure_info *info = &j->c->clos[clos];
  for (int k = 0; k < info->p->nup; k++)
    if (k != i && info->cell[k] == info->cell[i]) return false;
  return j->q.owner[info->cell[i]] == clos && kc_map_get(&j->s->cells, info->cell[i]);
}

static bool alike_closures(job *j, uint32_t x, uint32_t y) {
  const kc_closure_info *a = &j->c->clos[x], *b = &j->c->clos[y];
  if (a->p != b->p) return false;
  for (int i = 0; i < a->p->nup; i++)
    if (a->cell[i] != b->cell[i] && (!is_own(j, x, i) || !is_own(j, y, i))) return false;
  return true;
}

/* Could one object be either? */
static bool alike(job *j, const member *x, const member *y) {
  return j->kind == KC_V_HANDLE  ? alike_handles(j, x->v.id, y->v.id)
         : j->kind == KC_V_TABLE ? alike_tables(j, x->v.id, y->v.id)
                                 : alike_closures(j, x->v.id, y->v.id);
}

/* They are told apart by a tag. Two that one code stands for are there at once. */
static bool share_tag(const member *x, const member *y, bool *at_once) {
  bool share = false;
  for (int i = 0; i < x->by->n; i++) {
    const int64_t *code = code_of(y, x->by->tag[i]);
    share |= code != NULL;
    *at_once |= code && *code == x->by->code[i];
  }
  return share;
}

static kc_res add_member(void *ud, uint32_t id, void *a, void *b) {
  job *j = ud;
  const kc_referred *by = a;
  kc_val v = kc_ref(j->kind, id);
  (void)b;
  if (j->n == MAX_MEMBERS || !by->n || by->otherwise || is_itself(j->c, j->s, v)) return KC_GO;
  if (j->shown && (j->c->han[id].parent || has_twins(j, by))) return KC_GO;
  j->m[j->n] = (member){v, by, j->n};
  j->n++;
  return KC_GO;
}

static void find_groups(job *j) {
  bool at_once[MAX_MEMBERS] = {false};
  for (int i = 0; i < j->n; i++)
    for (int k = 0; k < i; k++) {
      bool both = false;
      if (!share_tag(&j->m[i], &j->m[k], &both) || !alike(j, &j->m[i], &j->m[k])) continue;
      int a = j->m[i].group, b = j->m[k].group;
      at_once[a] = at_once[b] = at_once[a] || at_once[b] || both;
      for (int x = 0; x <= i; x++)
        if (j->m[x].group == a) j->m[x].group = b;
    }
  for (int i = 0; i < j->n; i++)
    if (at_once[j->m[i].group]) j->m[i].group = -1;
}

/* Adds a tag to those of a group. False when there is no room. */
static bool add_tag(kn_value **tag, int *n, kn_value *t) {
  int k = 0;
  while (k < *n && tag[k] != t) k++;
  if (k == MAX_GROUP_TAGS) return false;
  if (k == *n) tag[(*n)++] = t;
  return true;
}

/* Slots for the group that is called g so far, if they are fewer. */
static void make_slots(job *j, int g) {
  int members = 0, first = j->nslot, n = 0;
  bool few = true;
  kn_value *tag[MAX_GROUP_TAGS];
  for (int i = 0; i < j->n; i++) {
    if (j->m[i].group != g) continue;
    members++;
    for (int t = 0; few && t < j->m[i].by->n; t++) few = add_tag(tag, &n, j->m[i].by->tag[t]);
  }
  const bool fewer = few && n < members && first + n <= MAX_MEMBERS;
  for (int i = 0; i < j->n; i++)
    if (j->m[i].group == g) j->m[i].group = fewer ? MAX_MEMBERS + j->ngroup : -1;
  if (!fewer) return;
  for (int k = 0; k < n; k++) j->slot[j->nslot++] = (slot){.tag = tag[k], .group = MAX_MEMBERS + j->ngroup};
  j->from[++j->ngroup] = j->nslot;
}

/* ---- one of several ---- */

static kn_value *either(kc_cap *c, kc_val is, kn_value *yes, kn_value *no) {
  return yes == no ? yes : kc_emit(c, KN_NODE_select, 3, is, kc_sym(yes), kc_sym(no));
}

static kc_val either_value(job *j, kc_val is, kc_val yes, kc_val no);

/* Alternatives of both: the same object, or of one class, is one. POISON when there are too many. */
static kc_val either_union(job *j, kc_val is, kc_val yes, kc_val no) {
  kc_cap *c = j->c;
  kc_union x, y;
  int64_t from[KC_MAX_ALTS], to[KC_MAX_ALTS];
  int n = 0;
  kc_alts(c, yes, &x);
  kc_alts(c, no, &y);
  int had = x.n;
  for (int k = 0; k < y.n; k++) {
    kc_val v = y.alt[k].v;
    bool object = v.k == KC_V_TABLE || v.k == KC_V_HANDLE || v.k == KC_V_CLOSURE;
    int i = 0;
    while (i < had && (object ? !kc_same(x.alt[i].v, v) : x.alt[i].code != y.alt[k].code)) i++;
    int64_t code = i < had ? x.alt[i].code : y.alt[k].code;
    if (i < had && !object) x.alt[i].v = either_value(j, is, x.alt[i].v, v);
    if (i == had && x.n == KC_MAX_ALTS) return KC_POISONED;
    if (i == had && kc_alt_find(&x, code)) code = kc_fresh_code(c);
    if (i == had) x.alt[x.n++] = (kc_alt){code, v};
    if (code != y.alt[k].code) from[n] = y.alt[k].code, to[n++] = code;
  }
  for (int i = 0; i < x.n; i++)
    if (x.alt[i].v.k == KC_V_POISON) return KC_POISONED;
  x.tag = either_value(j, is, x.tag, kc_recode(c, y.tag, n, from, to));
  kc_note_crowd(c, &x);
  return kc_make_union(c, &x);
}

/* One value or the other. POISON when there is no such value. */
static kc_val either_value(job *j, kc_val is, kc_val yes, kc_val no) {
  kc_cap *c = j->c;
  kn_vkind a, b;
  if (kc_same(yes, no)) return yes;
  if (yes.k == KC_V_POISON || no.k == KC_V_POISON || yes.k == KC_V_TEXT || no.k == KC_V_TEXT)
    return KC_POISONED;
  if (is.k == KC_V_BOOL) return is.i ? yes : no;
  if (!kc_scalar_kind(yes, &a) || !kc_scalar_kind(no, &b) || kc_class_of(c, yes) != kc_class_of(c, no))
    return either_union(j, is, yes, no);
  kn_value *x = kc_value(c, yes), *y = kc_value(c, no);
  kn_vtype type;
  return kn_vtype_join(&x->type, &y->type, &type) ? kc_sym(either(c, is, x, y)) : KC_POISONED;
}

static void fill_handle(job *j, slot *s, const kc_val *v, const kc_val *is, int n) {
  kc_cap *c = j->c;
  const kc_hold *x = kc_hold_of(c, j->s, v[0].id);
  kc_hold h = *x;
  bool view = c->han[v[0].id].parent != 0;
  s->v = kc_ref(KC_V_HANDLE, kc_handle_new(c, j->s, NULL));
  c->han[s->v.id] = c->han[v[0].id];
  h.in = kc_dup(c, x->in, x->nin * sizeof *h.in);
  if (view) h.now = h.of = NULL; /* derived again when it is read */
  for (int i = 1; i < n; i++) {
    x = kc_hold_of(c, j->s, v[i].id);
    c->han[s->v.id].with_grad |= c->han[v[i].id].with_grad;
    if (!view) h.now = either(c, is[i], x->now, h.now);
    for (uint32_t k = 1; view && k < h.nin; k++) h.in[k] = either(c, is[i], x->in[k], h.in[k]);
  }
  kc_map_set(c, &j->s->holds, j->s->owner, s->v.id, kc_dup(c, &h, sizeof h));
}

/* The fields of x where it is x. False when that is no value. */
static bool add_fields(job *j, kc_table *t, const kc_table *x, kc_val is) {
  for (uint32_t k = 0; k < x->n; k++)
    if (kc_table_find(t, x->key[k]) < 0) kc_table_put(j->c, t, x->key[k], KC_NILV);
  for (uint32_t k = 0; k < t->n; k++) {
    kc_val now = field(j, x, t->key[k]);
    bool was = t->val[k].k == KC_V_POISON || now.k == KC_V_POISON;
    t->val[k] = either_value(j, is, now, t->val[k]);
    if (t->val[k].k == KC_V_POISON && !was) return false;
  }
  return true;
}

static bool fill_table(job *j, slot *s, const kc_val *v, const kc_val *is, int n) {
  kc_cap *c = j->c;
  s->v = kc_ref(KC_V_TABLE, kc_table_new(c, j->s));
  kc_table *t = kc_table_copy(c, kc_table_get(j->s, v[0].id), j->s->owner);
  for (uint32_t k = 0; k < t->n; k++) t->val[k] = kc_resolve(c, j->s, t->val[k]);
  for (int i = 1; i < n; i++)
    if (!add_fields(j, t, kc_table_get(j->s, v[i].id), is[i])) return false;
  kc_map_set(c, &j->s->tabs, j->s->owner, s->v.id, t);
  return true;
}

/* A variable that holds what those of the closures hold. */
static bool fill_cell(job *j, uint32_t to, const kc_val *v, const kc_val *is, int n, int i) {
  kc_cap *c = j->c;
  kc_val held = KC_NILV;
  for (int k = 0; k < n; k++) {
    kc_val now = kc_resolve(c, j->s, *(kc_val *)kc_map_get(&j->s->cells, c->clos[v[k].id].cell[i]));
    bool was = held.k == KC_V_POISON || now.k == KC_V_POISON;
    held = k ? either_value(j, is[k], now, held) : now;
    if (held.k == KC_V_POISON && !was) return false;
  }
  kc_map_set(c, &j->s->cells, j->s->owner, to, kc_dup(c, &held, sizeof held));
  return true;
}

static bool fill_closure(job *j, slot *s, const kc_val *v, const kc_val *is, int n) {
  kc_cap *c = j->c;
  kc_proto *p = c->clos[v[0].id].p;
  s->v = kc_ref(KC_V_CLOSURE, kc_new_closure_id(c, p, 0));
  for (int i = 0; i < p->nup; i++) {
    uint32_t cell = c->clos[v[0].id].cell[i];
    bool same = true;
    for (int k = 1; k < n; k++) same &= c->clos[v[k].id].cell[i] == cell;
    if (!same) {
      cell = kc_new_cell_id(c);
      if (!fill_cell(j, cell, v, is, n, i)) return false;
    }
    c->clos[s->v.id].cell[i] = cell;
  }
  return true;
}

/* What the slot's tag says. False when that cannot be one object. */
static bool fill(job *j, slot *s, int group) {
  kc_cap *c = j->c;
  kc_val v[MAX_MEMBERS], is[MAX_MEMBERS];
  int n = 0;
  for (int i = 0; i < j->n; i++) {
    const int64_t *code = j->m[i].group == group ? code_of(&j->m[i], s->tag) : NULL;
    if (!code) continue;
    v[n] = j->m[i].v;
    is[n++] = kc_equals_code(c, kc_sym(s->tag), *code);
  }
  if (j->kind == KC_V_HANDLE)
    fill_handle(j, s, v, is, n);
  else if (j->kind == KC_V_TABLE ? !fill_table(j, s, v, is, n) : !fill_closure(j, s, v, is, n))
    return false;
  return true;
}

/* The slot, or its view that is as this one was of a member. */
static kc_val seen_as(job *j, const slot *s, uint32_t via) {
  kc_cap *c = j->c;
  if (!via) return s->v;
  for (int i = 0; i < j->nview; i++)
    if (j->view[i].slot == s && same_kind(j, j->view[i].was, via)) return kc_ref(KC_V_HANDLE, j->view[i].is);
  kc_hold h = *kc_hold_of(c, j->s, via);
  uint32_t id = kc_handle_new(c, j->s, NULL);
  c->han[id] = c->han[via];
  c->han[id].parent = s->v.id;
  h.now = h.of = NULL; /* derived again when it is read */
  h.in = kc_dup(c, h.in, h.nin * sizeof *h.in);
  for (int i = 0; i < j->n && h.nin > 1; i++) {
    const int64_t *code = j->m[i].group == s->group ? code_of(&j->m[i], s->tag) : NULL;
    uint32_t view = code ? view_of_kind(j, &j->m[i], via) : 0;
    if (!view) continue;
    kc_val is = kc_equals_code(c, kc_sym(s->tag), *code);
    for (uint32_t k = 1; k < h.nin; k++) h.in[k] = either(c, is, kc_hold_of(c, j->s, view)->in[k], h.in[k]);
  }
  kc_map_set(c, &j->s->holds, j->s->owner, id, kc_dup(c, &h, sizeof h));
  j->view[j->nview++] = (shown_as){s, via, id};
  return kc_ref(KC_V_HANDLE, id);
}

/* The code of this slot, where its tag says that it is this member: that of an earlier slot that is it, too.
 */
static kc_val code_in(job *j, const member *m, int first, const slot *s) {
  uint32_t via = via_of(m, s->tag);
  kc_val code = kc_int(kc_class_of(j->c, seen_as(j, s, via)));
  for (const slot *x = s; x-- > &j->slot[first];) {
    const int64_t *other = code_of(m, x->tag);
    if (!other) continue;
    kc_val is = kc_equals_code(j->c, kc_sym(x->tag), *other);
    kc_val there = kc_int(kc_class_of(j->c, seen_as(j, x, via)));
    if (is.k == KC_V_SYM)
      code = kc_sym(kc_emit(j->c, KN_NODE_select, 3, is, there, code));
    else if (is.i)
      code = there;
  }
  return code;
}

static retag *tag_of(job *j, kn_value *tag) {
  for (int i = 0; i < j->ntag; i++)
    if (j->tag[i].tag == tag) return &j->tag[i];
  return NULL;
}

static void recode(job *j, int group, const slot *s) {
  kc_cap *c = j->c;
  int first = j->from[group - MAX_MEMBERS];
  retag *t = tag_of(j, s->tag);
  if (!t) {
    t = &j->tag[j->ntag++];
    *t = (retag){s->tag, kc_sym(s->tag)};
  }
  int64_t from[MAX_MEMBERS], to[MAX_MEMBERS];
  kc_val code[MAX_MEMBERS];
  int n = 0;
  bool plain = t->now.k == KC_V_SYM && t->now.v == s->tag;
  for (int i = 0; i < j->n; i++) {
    const int64_t *old = j->m[i].group == group ? code_of(&j->m[i], s->tag) : NULL;
    if (!old) continue;
    code[n] = code_in(j, &j->m[i], first, s);
    plain &= code[n].k == KC_V_INT;
    to[n] = code[n].k == KC_V_INT ? code[n].i : 0;
    from[n++] = *old;
  }
  if (plain) {
    t->now = kc_recode(c, t->now, n, from, to);
    return;
  }
  for (int i = 0; i < n; i++) {
    kc_val is = kc_equals_code(c, kc_sym(s->tag), from[i]);
    if (is.k == KC_V_SYM)
      t->now = kc_sym(kc_emit(c, KN_NODE_select, 3, is, code[i], t->now));
    else if (is.i)
      t->now = code[i];
  }
}

/* ---- everywhere ---- */

/* False when there is no room. */
static bool add(kc_union *u, int64_t code, kc_val v) {
  if (kc_alt_find(u, code)) return true;
  if (u->n == KC_MAX_ALTS) return false;
  u->alt[u->n++] = (kc_alt){code, v};
  return true;
}

/* So many kinds of views that there is room for each of each slot? */
static bool few_kinds(job *j) {
  uint32_t kind[MAX_KINDS];
  int n = 0;
  for (int i = 0; j->shown && i < j->n; i++)
    for (int t = 0; j->m[i].group >= 0 && t < j->m[i].by->n; t++) {
      uint32_t via = j->m[i].by->via[t];
      int k = 0;
      while (via && k < n && !same_kind(j, kind[k], via)) k++;
      if (via && k == MAX_KINDS) return false;
      if (via && k == n) kind[n++] = via;
    }
  return true;
}

/* What it is, or is a view of. */
static const member *member_of(const job *j, kc_val a) {
  uint32_t shown = j->shown && a.k == KC_V_HANDLE ? j->c->han[a.id].parent : 0;
  for (int i = 0; a.k == j->kind && i < j->n; i++)
    if (j->m[i].v.id == (shown ? shown : a.id) && j->m[i].group >= 0) return &j->m[i];
  return NULL;
}

static kc_val replaced(job *j, kc_val a) {
  a = kc_resolve(j->c, j->s, a); /* what is known of the old tag narrows it now */
  retag *t = a.k == KC_V_UNION && a.u->tag.k == KC_V_SYM ? tag_of(j, a.u->tag.v) : NULL;
  if (!t) return a;
  kc_union u = {.tag = t->now};
  bool any = false;
  for (int i = 0; i < a.u->n; i++) {
    const member *m = member_of(j, a.u->alt[i].v);
    if (!m && !add(&u, a.u->alt[i].code, a.u->alt[i].v)) return KC_POISONED;
    if (!m) continue;
    int g = m->group - MAX_MEMBERS, end = j->from[g + 1];
    for (int k = j->from[g]; k < end; k++) {
      const slot *s = &j->slot[k];
      kc_val v = code_of(m, s->tag) ? seen_as(j, s, via_of(m, t->tag)) : KC_NILV;
      if (v.k != KC_V_NIL && !add(&u, kc_class_of(j->c, v), v)) return KC_POISONED;
      if (s->tag == t->tag) break; /* those after it are never meant */
    }
    any = true;
  }
  return !any ? a : u.n == 1 ? u.alt[0].v : kc_resolve(j->c, j->s, kc_make_union(j->c, &u));
}

static kc_res replace_in_table(void *ud, uint32_t id, void *a, void *b) {
  job *j = ud;
  const kc_table *t = a;
  (void)b;
  if (!t || id >= j->ntab || !j->q.tab[id]) return KC_GO; /* what was made here is as it should be */
  kc_val v = replaced(j, t->meta);
  if (!kc_same(v, t->meta)) kc_table_write(j->c, j->s, id)->meta = v;
  for (uint32_t i = 0; i < t->n; i++)
    if (!kc_same(v = replaced(j, t->val[i]), t->val[i])) (t = kc_table_write(j->c, j->s, id))->val[i] = v;
  return KC_GO;
}

static kc_res replace_in_cell(void *ud, uint32_t id, void *a, void *b) {
  job *j = ud;
  (void)b;
  if (!a || id >= j->ncell || !j->q.cell[id]) return KC_GO;
  kc_val old = *(kc_val *)a, v = replaced(j, old);
  if (!kc_same(v, old)) kc_map_set(j->c, &j->s->cells, j->s->owner, id, kc_dup(j->c, &v, sizeof v));
  return KC_GO;
}

static kc_res replace_all(job *j, int pc) {
  kc_frame *f = kc_top(j->c, j->s);
  kc_regs live = kc_live_in(f, true, pc);
  for (int r = 0; r < f->p->maxstack; r++)
    if (!f->cell[r]) f->r[r] = kc_regs_has(&live, r) ? replaced(j, f->r[r]) : KC_POISONED;
  for (int i = 0; i < j->s->nret; i++) j->s->ret[i] = replaced(j, j->s->ret[i]);
  const kc_map none = {0}, tabs = j->s->tabs, cells = j->s->cells;
  kc_snapshot(j->c, j->s); /* the maps are gone through as they are now */
  KC_TRY(kc_map_diff(&tabs, &none, replace_in_table, j));
  return kc_map_diff(&cells, &none, replace_in_cell, j);
}

static bool holds_member(const job *j, kc_val a) {
  for (int i = 0; a.k == KC_V_UNION && i < a.u->n; i++)
    if (member_of(j, a.u->alt[i].v)) return true;
  return false;
}

/* Does one of these tables, or the variables of one of these closures, hold another? */
static bool hold_members(const job *j) {
  for (int i = 0; i < j->n; i++) {
    uint32_t id = j->m[i].v.id;
    if (j->m[i].group < 0) continue;
    const kc_table *t = j->kind == KC_V_TABLE ? kc_table_get(j->s, id) : NULL;
    for (uint32_t k = 0; t && k < t->n; k++)
      if (holds_member(j, t->val[k])) return true;
    for (int k = 0; j->kind == KC_V_CLOSURE && k < j->c->clos[id].p->nup; k++) {
      const kc_val *v = kc_map_get(&j->s->cells, j->c->clos[id].cell[k]);
      if (v && holds_member(j, *v)) return true;
    }
  }
  return false;
}

/* Tables and closures are done a group at a time: what they hold has other tags then. */
static kc_res merge_kind(kc_cap *c, kc_state *s, int pc, kc_kind kind, bool shown, bool *done) {
  job *j = kc_new(c, sizeof *j);
  *j = (job){.c = c, .s = s, .kind = kind, .shown = shown, .ntab = c->ntab, .ncell = c->ncell};
  kc_reach_of(c, s, pc, true, &j->q);
  const kc_map none = {0};
  const kc_map *by = shown                 ? &j->q.by_shown
                     : kind == KC_V_HANDLE ? &j->q.by_han
                     : kind == KC_V_TABLE  ? &j->q.by_tab
                                           : &j->q.by_clos;
  KC_TRY(kc_map_diff(by, &none, add_member, j));
  find_groups(j);
  for (int i = 0; i < j->n; i++)
    if (j->m[i].group >= 0 && j->m[i].group < MAX_MEMBERS) {
      if (j->ngroup && kind != KC_V_HANDLE)
        j->m[i].group = -1;
      else
        make_slots(j, j->m[i].group);
    }
  *done = j->nslot && !hold_members(j) && few_kinds(j);
  for (int g = 0; *done && g < j->ngroup; g++)
    for (int k = j->from[g]; *done && k < j->from[g + 1]; k++) *done = fill(j, &j->slot[k], MAX_MEMBERS + g);
  for (int g = 0; *done && g < j->ngroup; g++)
    for (int k = j->from[g]; k < j->from[g + 1]; k++) recode(j, MAX_MEMBERS + g, &j->slot[k]);
  return *done ? replace_all(j, pc) : KC_GO;
}

kc_res kc_merge_alike(kc_cap *c, kc_state *s, int pc) {
  if (!c->crowded || c->protect || s->events || s->part) return KC_GO;
  bool more = true;
  c->crowded = false;
  for (int i = 0; more && i < MAX_ROUNDS; i++) KC_TRY(merge_kind(c, s, pc, KC_V_TABLE, false, &more));
  more = true;
  for (int i = 0; more && i < MAX_ROUNDS; i++) KC_TRY(merge_kind(c, s, pc, KC_V_CLOSURE, false, &more));
  KC_TRY(merge_kind(c, s, pc, KC_V_HANDLE, false, &more));
  return merge_kind(c, s, pc, KC_V_HANDLE, true, &more);
}
