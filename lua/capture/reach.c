/* The walk over what a path can still see. See reach.h. */
#include "lua/capture/reach.h"

typedef struct marker {
  kc_cap *c;
  kc_state *s;
  kc_reach *q;
  bool waits; /* in a frame that waits for a call: what it holds cannot be replaced */
} marker;

static void mark(marker *k, kc_val a);

static void mark_cell(marker *k, uint32_t id) {
  if (k->q->cell[id]) return;
  k->q->cell[id] = 1;
  const kc_val *v = kc_map_get(&k->s->cells, id);
  bool waits = k->waits;
  k->waits = false;
  if (v) mark(k, *v);
  k->waits = waits;
}

/* tag NULL: by itself. One that has two codes with one tag, or too many tags, counts as such, too. */
static void refer(marker *k, kc_map *to, uint32_t id, kn_value *tag, int64_t code, uint32_t via) {
  kc_referred *by = kc_map_get(to, id);
  int i = 0;
  if (!by) kc_map_set(k->c, to, k->s->owner, id, by = kc_new(k->c, sizeof *by));
  while (i < by->n && by->tag[i] != tag) i++;
  if (!tag || k->waits || i == KC_MAX_TAGS || (i < by->n && (by->code[i] != code || by->via[i] != via)))
    by->otherwise = true;
  else if (i == by->n)
    by->tag[by->n] = tag, by->via[by->n] = via, by->code[by->n++] = code;
}

static void mark_table(marker *k, uint32_t id, kn_value *tag, int64_t code) {
  if (k->q->refs) refer(k, &k->q->by_tab, id, tag, code, 0);
  if (k->q->tab[id]) return;
  k->q->tab[id] = 1;
  const kc_table *t = kc_table_get(k->s, id);
  if (!t) return;
  bool waits = k->waits;
  k->waits = false;
  mark(k, t->meta);
  for (uint32_t i = 0; i < t->n; i++) {
    mark(k, t->key[i]);
    mark(k, t->val[i]);
  }
  k->waits = waits;
}

static void refer_handle(marker *k, uint32_t id, kn_value *tag, int64_t code) {
  uint32_t parent = k->c->han[id].parent;
  refer(k, &k->q->by_han, id, tag, code, 0);
  if (!parent)
    refer(k, &k->q->by_shown, id, tag, code, 0);
  else if (!k->c->han[parent].parent)
    refer(k, &k->q->by_shown, parent, tag, code, id);
  else
    for (; parent; parent = k->c->han[parent].parent) refer(k, &k->q->by_shown, parent, NULL, 0, 0);
}

static void mark_handle(marker *k, uint32_t id, kn_value *tag, int64_t code) {
  if (k->q->refs) refer_handle(k, id, tag, code);
  for (; id && !k->q->han[id]; id = k->c->han[id].parent) {
    k->q->han[id] = 1;
    uint32_t parent = k->c->han[id].parent;
    if (k->q->refs && parent) refer(k, &k->q->by_han, parent, NULL, 0, 0); /* a view shows it */
  }
}

static void mark_closure(marker *k, uint32_t id, kn_value *tag, int64_t code) {
  const kc_closure_info *info = &k->c->clos[id];
  if (k->q->refs) refer(k, &k->q->by_clos, id, tag, code, 0);
  for (int i = 0; info->p && i < info->p->nup; i++) {
    uint32_t cell = info->cell[i];
    if (k->q->refs) k->q->owner[cell] = k->q->owner[cell] && k->q->owner[cell] != id ? KC_SHARED : id;
    mark_cell(k, cell);
  }
}

/* A variable that is somebody else's, too. */
static void share_cell(marker *k, uint32_t id) {
  if (k->q->refs) k->q->owner[id] = KC_SHARED;
  mark_cell(k, id);
}

static void mark_union(marker *k, const kc_union *u) {
  kn_value *tag = u->tag.k == KC_V_SYM ? u->tag.v : NULL;
  for (int i = 0; i < u->n; i++)
    if (u->alt[i].v.k == KC_V_HANDLE)
      mark_handle(k, u->alt[i].v.id, tag, u->alt[i].code);
    else if (u->alt[i].v.k == KC_V_TABLE)
      mark_table(k, u->alt[i].v.id, tag, u->alt[i].code);
    else if (u->alt[i].v.k == KC_V_CLOSURE)
      mark_closure(k, u->alt[i].v.id, tag, u->alt[i].code);
    else
      mark(k, u->alt[i].v);
}

static void mark(marker *k, kc_val a) {
  if (k->q->refs) a = kc_resolve(k->c, k->s, a); /* one that is known is referred to by itself */
  if (a.k == KC_V_TABLE)
    mark_table(k, a.id, NULL, 0);
  else if (a.k == KC_V_HANDLE)
    mark_handle(k, a.id, NULL, 0);
  else if (a.k == KC_V_CLOSURE)
    mark_closure(k, a.id, NULL, 0);
  else if (a.k == KC_V_UNION)
    mark_union(k, a.u);
}

static kc_res mark_outside_table(void *ud, uint32_t id, void *a, void *b) {
  marker *k = ud;
  (void)a, (void)b;
  if (k->c->tab[id].object || k->c->tab[id].argument) mark_table(k, id, NULL, 0);
  return KC_GO;
}

static kc_res mark_outside_cell(void *ud, uint32_t id, void *a, void *b) {
  marker *k = ud;
  (void)a, (void)b;
  if (k->c->cell[id].object) share_cell(k, id);
  return KC_GO;
}

/* What calls this frame no more than gives it results: a Lua function called by an instruction. C functions
 * that call it go on with their arguments. */
static bool only_returns(kc_val f) {
  if (f.k != KC_V_UNION) return f.k == KC_V_CLOSURE;
  for (int i = 0; i < f.u->n; i++)
    if (f.u->alt[i].v.k != KC_V_CLOSURE) return false;
  return true;
}

kc_regs kc_live_in(const kc_frame *f, bool top, int pc) {
  if (top) return pc >= 0 ? f->flow->live[pc] : (kc_regs){{0}};
  kc_code i = f->p->code[f->pc];
  bool call = (kc_op(i) == KC_CALL || kc_op(i) == KC_TAILCALL) && !f->cell[kc_a(i)];
  return call && only_returns(f->r[kc_a(i)]) ? kc_live_beside(f->p, f->pc) : f->flow->live[f->pc];
}

static void mark_frame(marker *k, const kc_frame *f, int pc) {
  bool top = f == k->s->top;
  kc_regs live = kc_live_in(f, top, pc);
  k->waits = !top;
  for (int r = 0; r < f->p->maxstack; r++)
    if (f->cell[r])
      share_cell(k, f->cell[r]);
    else if (kc_regs_has(&live, r))
      mark(k, f->r[r]);
  k->waits = true;
  if (f->clos) mark(k, kc_ref(KC_V_CLOSURE, f->clos));
  for (int i = 0; i < f->nva && kc_regs_has(&live, KC_VARARGS); i++) mark(k, f->va[i]);
  k->waits = false;
}

void kc_reach_of(kc_cap *c, kc_state *s, int pc, bool refs, kc_reach *q) {
  if (refs) q->owner = kc_new(c, (c->ncell + 1) * sizeof *q->owner);
  q->tab = kc_new(c, c->ntab + 1);
  q->cell = kc_new(c, c->ncell + 1);
  q->han = kc_new(c, c->nhan + 1);
  q->refs = refs;
  marker k = {c, s, q, false};
  for (const kc_frame *f = s->top; f; f = f->up) mark_frame(&k, f, pc);
  for (int i = 0; i < s->nret; i++) mark(&k, s->ret[i]);
  const kc_map none = {0}; /* what was put outside is seen by whoever looks there */
  kc_map_diff(&s->tabs, &none, mark_outside_table, &k);
  kc_map_diff(&s->cells, &none, mark_outside_cell, &k);
}
