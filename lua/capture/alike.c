/* Making alternatives one that nobody can tell apart. See alike.h. */
#include "lua/capture/alike.h"
#include "lua/capture/handle.h"
#include "lua/capture/reach.h"
#include <string.h>

enum { MAX_MEMBERS = 64, MAX_GROUP_TAGS = 8 };

typedef struct member {
  uint32_t id;
  const kc_referred *by;
  int group; /* of members that share tags, one by one; -1: of none that becomes fewer */
} member;

typedef struct slot { /* what a group's members become: the one that this tag says */
  kn_value *tag;
  uint32_t id;
  int64_t code;
} slot;

typedef struct retag { /* the codes of a tag's alternatives from here on */
  kn_value *tag;
  kc_val now;
} retag;

typedef struct job {
  kc_cap *c;
  kc_state *s;
  kc_reach q;
  member m[MAX_MEMBERS];
  slot slot[MAX_MEMBERS];
  retag tag[MAX_MEMBERS];
  int n, nslot, ntag;
  int from[MAX_MEMBERS + 1]; /* of each group: its first slot; the last one's end */
  int ngroup;
} job;

/* ---- which ---- */

void kc_note_crowd(kc_cap *c, const kc_union *u) {
  int n = 0;
  for (int i = 0; i < u->n; i++) n += u->alt[i].v.k == KC_V_HANDLE && !c->han[u->alt[i].v.id].first;
  if (n >= KC_CROWD) c->crowded = true;
}

/* Tensors from outside, and those whose gradient may be asked for, are what they are. */
static bool is_itself(const kc_cap *c, uint32_t id) {
  for (uint32_t i = 0; i < c->ninner; i++)
    if (kc_same(c->inner[i], kc_ref(KC_V_HANDLE, id))) return true;
  return c->han[id].first != NULL;
}

static const int64_t *code_of(const member *m, const kn_value *tag) {
  for (int i = 0; i < m->by->n; i++)
    if (m->by->tag[i] == tag) return &m->by->code[i];
  return NULL;
}

/* Could one handle hold either? */
static bool alike(job *j, const member *x, const member *y) {
  kc_cap *c = j->c;
  const kc_handle_info *a = &c->han[x->id], *b = &c->han[y->id];
  const kc_hold *p = kc_hold_of(c, j->s, x->id), *q = kc_hold_of(c, j->s, y->id);
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

static void find_members(job *j) {
  kc_cap *c = j->c;
  for (uint32_t id = 1; id < c->nhan && j->n < MAX_MEMBERS; id++) {
    const kc_referred *by = &j->q.by[id];
    if (!by->n || by->otherwise || is_itself(c, id) || !kc_hold_of(c, j->s, id)) continue;
    j->m[j->n] = (member){id, by, j->n};
    j->n++;
  }
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

/* Slots for the group that is called g so far, if they are fewer. */
static void make_slots(job *j, int g) {
  int members = 0, first = j->nslot, n = 0;
  kn_value *tag[MAX_GROUP_TAGS];
  for (int i = 0; i < j->n; i++) {
    if (j->m[i].group != g) continue;
    members++;
    for (int t = 0; t < j->m[i].by->n; t++) {
      int k = 0;
      while (k < n && tag[k] != j->m[i].by->tag[t]) k++;
      if (k == MAX_GROUP_TAGS) n = MAX_MEMBERS;
      if (n == MAX_MEMBERS) break;
      if (k == n) tag[n++] = j->m[i].by->tag[t];
    }
  }
  bool fewer = n < members && first + n <= MAX_MEMBERS && n <= MAX_GROUP_TAGS;
  for (int i = 0; i < j->n; i++)
    if (j->m[i].group == g) j->m[i].group = fewer ? MAX_MEMBERS + j->ngroup : -1;
  if (!fewer) return;
  for (int k = 0; k < n; k++) j->slot[j->nslot++].tag = tag[k];
  j->from[++j->ngroup] = j->nslot;
}

/* ---- one of several ---- */

static kn_value *either(kc_cap *c, kc_val is, kn_value *yes, kn_value *no) {
  return yes == no ? yes : kc_emit(c, KN_NODE_select, 3, is, kc_sym(yes), kc_sym(no));
}

/* The handle with the contents of the member that the slot's tag says. */
static void fill(job *j, slot *s, int group) {
  kc_cap *c = j->c;
  kc_hold h = {0};
  s->id = kc_handle_new(c, j->s, NULL);
  s->code = kc_class_of(c, kc_ref(KC_V_HANDLE, s->id));
  for (int i = 0; i < j->n; i++) {
    const member *m = &j->m[i];
    const int64_t *code = m->group == group ? code_of(m, s->tag) : NULL;
    if (!code) continue;
    const kc_hold *x = kc_hold_of(c, j->s, m->id);
    kc_val is = kc_equals_code(c, kc_sym(s->tag), *code);
    bool view = c->han[m->id].parent != 0, first = !h.now && !h.in;
    if (is.k == KC_V_BOOL && !is.i && !first) continue;
    if (first) {
      c->han[s->id] = c->han[m->id];
      h = *x;
      h.in = kc_dup(c, x->in, x->nin * sizeof *h.in);
    } else if (view) {
      for (uint32_t k = 1; k < h.nin; k++) h.in[k] = either(c, is, x->in[k], h.in[k]);
    } else
      h.now = either(c, is, x->now, h.now);
    c->han[s->id].with_grad |= c->han[m->id].with_grad;
    if (view) h.now = h.of = NULL; /* derived again when it is read */
  }
  kc_map_set(c, &j->s->holds, j->s->owner, s->id, kc_dup(c, &h, sizeof h));
}

/* The code of this slot, where its tag says that it is this member: that of an earlier slot that is it, too.
 */
static kc_val code_in(job *j, const member *m, int first, const slot *s) {
  kc_val code = kc_int(s->code);
  for (const slot *x = s; x-- > &j->slot[first];) {
    const int64_t *other = code_of(m, x->tag);
    if (!other) continue;
    kc_val is = kc_equals_code(j->c, kc_sym(x->tag), *other);
    if (is.k == KC_V_SYM)
      code = kc_sym(kc_emit(j->c, KN_NODE_select, 3, is, kc_int(x->code), code));
    else if (is.i)
      code = kc_int(x->code);
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

static void add(kc_union *u, int64_t code, kc_val v) {
  if (!kc_alt_find(u, code) && u->n < KC_MAX_ALTS) u->alt[u->n++] = (kc_alt){code, v};
}

static const member *member_of(const job *j, kc_val a) {
  for (int i = 0; a.k == KC_V_HANDLE && i < j->n; i++)
    if (j->m[i].id == a.id && j->m[i].group >= 0) return &j->m[i];
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
    if (!m) add(&u, a.u->alt[i].code, a.u->alt[i].v);
    if (!m) continue;
    int g = m->group - MAX_MEMBERS, end = j->from[g + 1];
    for (int k = j->from[g]; k < end; k++) {
      const slot *s = &j->slot[k];
      if (code_of(m, s->tag)) add(&u, s->code, kc_ref(KC_V_HANDLE, s->id));
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
  if (!t || !j->q.tab[id]) return KC_GO;
  kc_val v = replaced(j, t->meta);
  if (!kc_same(v, t->meta)) kc_table_write(j->c, j->s, id)->meta = v;
  for (uint32_t i = 0; i < t->n; i++)
    if (!kc_same(v = replaced(j, t->val[i]), t->val[i])) (t = kc_table_write(j->c, j->s, id))->val[i] = v;
  return KC_GO;
}

static kc_res replace_in_cell(void *ud, uint32_t id, void *a, void *b) {
  job *j = ud;
  (void)b;
  if (!a || !j->q.cell[id]) return KC_GO;
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

kc_res kc_merge_alike(kc_cap *c, kc_state *s, int pc) {
  if (!c->crowded || c->protect || s->events || s->part) return KC_GO;
  c->crowded = false;
  job *j = kc_new(c, sizeof *j);
  *j = (job){.c = c, .s = s};
  j->q.by = kc_new(c, (c->nhan + 1) * sizeof *j->q.by);
  kc_reach_of(c, s, pc, &j->q);
  find_members(j);
  find_groups(j);
  for (int i = 0; i < j->n; i++)
    if (j->m[i].group >= 0 && j->m[i].group < MAX_MEMBERS) make_slots(j, j->m[i].group);
  if (!j->nslot) return KC_GO;
  for (int g = 0; g < j->ngroup; g++)
    for (int k = j->from[g]; k < j->from[g + 1]; k++) fill(j, &j->slot[k], MAX_MEMBERS + g);
  for (int g = 0; g < j->ngroup; g++)
    for (int k = j->from[g]; k < j->from[g + 1]; k++) recode(j, MAX_MEMBERS + g, &j->slot[k]);
  return replace_all(j, pc);
}
