/* Which tensor is which where a graph ends: all that results and stored places may be is gone through first,
 * then each tensor gets a value. See ends.h. */
#include "lua/capture/ends.h"
#include "lua/capture/lie.h"
#include "lua/capture/text.h"

/* There is this alternative only where the tag says so, and where what it is in is there. */
typedef struct within {
  kc_val tag;
  int64_t code;
  const struct within *up; /* NULL: on every path */
} within;

typedef struct place {
  const within *in;
  const struct place *next;
} place;

struct kc_end {
  kc_val is;   /* HANDLE, or a plain tensor */
  kn_value *v; /* NULL so far */
  const place *places;
  bool always; /* it is there on every path */
};

/* ---- meeting ---- */

static kc_end *find(const kc_ends *e, kc_val a) {
  for (uint32_t i = 0; i < e->n; i++)
    if (kc_same(e->end[i].is, a)) return &e->end[i];
  return NULL;
}

static kc_end *new_end(kc_ends *e, kc_val a) {
  e->end = kc_more(e->c, &e->c->arena, e->end, e->n, sizeof *e->end);
  e->end[e->n] = (kc_end){.is = a};
  return &e->end[e->n++];
}

static void meet_tensor(kc_ends *e, kc_val a, const within *in) {
  kc_end *t = find(e, a);
  if (!t) t = new_end(e, a);
  t->always |= !in;
  if (!t->v && !t->always) t->places = kc_dup(e->c, &(place){in, t->places}, sizeof(place));
}

/* A table whose fields are being gone through. */
typedef struct opened {
  uint32_t table;
  const struct opened *up;
} opened;

static bool is_open(const opened *o, uint32_t table) {
  while (o && o->table != table) o = o->up;
  return o;
}

static void meet(kc_ends *e, kc_val a, const within *in, const opened *open, int depth) {
  kc_cap *c = e->c;
  a = kc_resolve(c, e->s, a);
  if (depth > KC_MAX_DEEP || e->met++ > KC_MAX_PARTS) return; /* refused where results are made of it */
  if (kc_is_tensor(a)) meet_tensor(e, a, in);
  for (int i = 0; a.k == KC_V_UNION && i < a.u->n; i++) {
    const within here = {a.u->tag, a.u->alt[i].code, in};
    meet(e, a.u->alt[i].v, kc_dup(c, &here, sizeof here), open, depth + 1);
  }
  for (uint32_t i = 0; a.k == KC_V_TEXT && i < a.t->n; i++) meet(e, a.t->v[i], in, open, depth + 1);
  const kc_table *t = a.k == KC_V_TABLE && !is_open(open, a.id) ? kc_table_get(e->s, a.id) : NULL;
  const opened here = {a.id, open};
  for (uint32_t i = 0; t && i < t->n; i++) meet(e, t->val[i], in, &here, depth + 1);
}

void kc_meet_ends(kc_ends *e, kc_val a) { meet(e, a, NULL, NULL, 0); }

/* ---- making ---- */

/* A value that stands for another tensor already, or is an input or slot, is copied for this one. */
static bool needs_copy(const kc_ends *e, kc_val a, const kn_value *v) {
  uint32_t handle = a.k == KC_V_HANDLE ? a.id : 0;
  const kn_node *def = v->def;
  bool outside = !def || def->op == KN_NODE_param || def->op == KN_NODE_load_state;
  if (handle && outside && v != e->c->han[handle].initial) return true;
  for (uint32_t i = 0; i < e->n; i++)
    if (e->end[i].v == v && !kc_same(e->end[i].is, a)) return true;
  return false;
}

static kc_res copy(kc_cap *c, kn_value **v) {
  kn_node *n = kn_add_op(&c->b, KN_OP_clone, NULL, v, 1, NULL, 0);
  if (!n) return kc_fail(c, "clone");
  *v = n->out[0];
  return KC_GO;
}

static kc_val both(kc_cap *c, kc_val a, kc_val b) {
  if (a.k == KC_V_BOOL) return a.i ? b : a;
  if (b.k == KC_V_BOOL) return b.i ? a : b;
  return kc_sym(kc_emit(c, KN_NODE_select, 3, a, b, kc_bool(false)));
}

static kc_val one_or_other(kc_cap *c, kc_val a, kc_val b) {
  if (a.k == KC_V_BOOL) return a.i ? a : b;
  if (b.k == KC_V_BOOL) return b.i ? b : a;
  return kc_sym(kc_emit(c, KN_NODE_select, 3, a, kc_bool(true), b));
}

/* Is it one of what there is? Tags that this path does not define read as 0, which is no code. */
static kc_val is_there(kc_cap *c, const kc_end *t) {
  if (t->always) return kc_bool(true);
  kc_val any = kc_bool(false);
  for (const place *p = t->places; p; p = p->next) {
    kc_val here = kc_bool(true);
    for (const within *w = p->in; w; w = w->up) here = both(c, kc_equals_code(c, w->tag, w->code), here);
    any = one_or_other(c, here, any);
  }
  return any;
}

/* A view is derived, or a copy made, only where there is that tensor: elsewhere what it shows may not be. */
static kc_res make(kc_ends *e, kc_end *t) {
  kc_cap *c = e->c;
  kc_state *s = e->s;
  kc_if f;
  bool view = t->is.k == KC_V_HANDLE && c->han[t->is.id].parent;
  if (!view) t->v = kc_tensor_value(c, s, t->is);
  if (!view && !needs_copy(e, t->is, t->v)) return KC_GO;
  kc_val there = is_there(c, t);
  bool branch = there.k == KC_V_SYM || !there.i;
  if (branch) {
    KC_TRY(kc_begin_if(c, &f, s, kc_value(c, there)));
    s = kc_snapshot(c, s);
    c->b.at = f.n->regions[0];
  }
  kn_value *v = kc_tensor_value(c, s, t->is);
  t->v = NULL;
  if (needs_copy(e, t->is, v)) KC_TRY(copy(c, &v));
  if (branch) {
    c->b.at = f.parent;
    v = kc_if_out(c, &f, v, kc_undef(c, &v->type), NULL, v->name);
  }
  t->v = v;
  return KC_GO;
}

kc_res kc_make_ends(kc_ends *e) {
  for (uint32_t i = 0; i < e->n; i++) {
    const kc_val a = e->end[i].is;
    for (uint32_t k = 0; k < i && e->c->npairs && a.k == KC_V_SYM; k++)
      if (e->end[k].is.k == KC_V_SYM) KC_TRY(kc_lie_pair(e->c, a.v, e->end[k].is.v));
    if (!e->end[i].v) KC_TRY(make(e, &e->end[i]));
  }
  return KC_GO;
}

kc_res kc_end_with(kc_ends *e, uint32_t handle, kn_value **v) {
  kc_val a = kc_ref(KC_V_HANDLE, handle);
  if (needs_copy(e, a, *v)) KC_TRY(copy(e->c, v));
  new_end(e, a)->v = *v;
  return KC_GO;
}

kn_value *kc_end_of(const kc_ends *e, kc_val a) {
  const kc_end *t = find(e, a);
  return t ? t->v : NULL;
}

kn_value *kc_chosen_end(const kc_ends *e, const kc_union *u) {
  kc_union own = *u;
  for (int i = 0; i < u->n; i++) {
    kn_value *v = kc_end_of(e, kc_resolve(e->c, e->s, u->alt[i].v));
    if (!v) return NULL;
    own.alt[i].v = kc_sym(v);
  }
  return kc_chosen(e->c, e->s, &own);
}
