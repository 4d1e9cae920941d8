/* Values of capture: interning of Lua objects, unions, messages, and emitting small nodes. See value.h. */
#include "lua/capture/value.h"
#include "lua/capture/interp.h"
#include "lua/capture/protect.h"
#include "lua/capture/text.h"
#include "graph/text.h"
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- memory ---- */

static void out_of_memory(kc_cap *c) {
  kn_fail_nomem(c->ctx, 0);
  c->fatal = true;
  lua_pushnil(c->L); /* caught by kc_capture, which has the sentence already */
  lua_error(c->L);
}

void *kc_new(kc_cap *c, size_t size) {
  void *p = kn_arena_alloc(&c->arena, size ? size : 1);
  if (!p) out_of_memory(c);
  return p;
}

void *kc_dup(kc_cap *c, const void *p, size_t size) {
  void *q = kc_new(c, size);
  if (size) memcpy(q, p, size);
  return q;
}

void *kc_more(kc_cap *c, kn_arena *a, void *p, uint32_t n, size_t size) {
  void *q = kn_arena_grow(a, p, n, size);
  if (!q) out_of_memory(c);
  return q;
}

const char *kc_keep(kc_cap *c, const char *s) {
  char *p = kn_arena_strdup(&c->keep, s);
  if (!p) out_of_memory(c);
  return p;
}

const char *kc_format(kc_cap *c, const char *fmt, ...) {
  char buf[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(buf, sizeof buf, fmt, ap);
  va_end(ap);
  return kc_dup(c, buf, strlen(buf) + 1);
}

/* ---- where, refusing, raising ---- */

const kn_where *kc_where(kc_cap *c) {
  if (!c->S || !c->S->top) return c->base_where;
  const kc_frame *f = c->S->top;
  char buf[64];
  return kn_where_intern(&c->b, kc_chunk_name(f->p->source, buf, sizeof buf), kc_line(f->p, f->pc), f->at);
}

void kc_position(kc_cap *c, char *buf, size_t size) {
  buf[0] = 0;
  if (!c->S || !c->S->top) { /* before or after: the function as a whole */
    if (c->base_where) kn_where_text(c->base_where, buf, size);
    return;
  }
  const kc_frame *f = c->S->top;
  char name[64];
  /* Not interned: the builder may have failed. */
  kn_where here = {kc_chunk_name(f->p->source, name, sizeof name), kc_line(f->p, f->pc), f->at};
  const kn_where *w = kn_where_user(&here);
  if (w && w->line > 0)
    snprintf(buf, size, "%s:%d", w->chunk, w->line);
  else if (w)
    snprintf(buf, size, "%s:?", w->chunk);
}

bool kc_line_known(const kc_cap *c) { return c->S && c->S->top && kc_line(c->S->top->p, c->S->top->pc) > 0; }

kc_res kc_fail(kc_cap *c, const char *fmt, ...) {
  char text[KN_ERROR_SIZE], pos[160], chain[200] = "";
  if (c->b.status != KN_OK) { /* the builder knows better */
    snprintf(text, sizeof text, "%s", kn_error(c->ctx));
    if (c->b.status == KN_NOMEM || c->b.status == KN_LIMIT) c->fatal = true;
  } else {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
  }
  kc_position(c, pos, sizeof pos);
  char at[160], *rest;
  if (c->S && c->S->top && c->S->top->at && *kn_where_brief(c->S->top->at, at, sizeof at)) {
    rest = !strncmp(at, pos, strlen(pos)) ? at + strlen(pos)
                                          : at; /* the position itself may be its first place */
    rest += strspn(rest, " <-");
    if (*rest) snprintf(chain, sizeof chain, " (inlined at %s)", rest);
  }
  kn_status st = c->b.status != KN_OK ? c->b.status : KN_CAPTURE;
  kn_fail(c->ctx, st, "%s%s%s%s", pos, *pos ? ": " : "", text, chain);
  return KC_FAIL;
}

const kn_where *kc_lua_where(const kn_where *w) {
  const kn_where *user = kn_where_user(w);
  return user && user->line > 0 ? w : NULL;
}

kc_res kc_raise_text(kc_cap *c, const char *text, const kn_where *where) {
  c->b.where = where; /* whose position is put before the text */
  kn_add_raise(&c->b, KN_NODE_raise, NULL, text);
  return KC_DEAD;
}

kc_res kc_raise_value(kc_cap *c, kc_val message, const kn_where *where) {
  bool certain = false;
  if (c->protect) KC_TRY(kc_protected_raise(c, kc_placed(c, message, where), &certain));
  c->b.where = where;
  kc_add_message(c, KN_NODE_raise, NULL, "", message);
  return KC_DEAD;
}

/* `placed` texts begin with their position already. With inputs described beforehand, an error on every path
 * is one of the capture itself; else it is raised by the call, as what comes before may raise another one. */
static kc_res raise_at(kc_cap *c, const char *text, bool placed) {
  const kn_where *where = placed ? NULL : kc_where(c);
  char pos[160] = "";
  if (c->protect) return kc_raise_value(c, kc_string(c, text, strlen(text)), where);
  if (!c->early || c->b.at != c->b.graph->body) return kc_raise_text(c, text, where);
  if (!placed && kc_line_known(c)) kc_position(c, pos, sizeof pos);
  kn_fail(c->ctx, KN_CAPTURE, "%s%s%s", pos, *pos ? ": " : "", text);
  return KC_FAIL;
}

kc_res kc_raise(kc_cap *c, const char *fmt, ...) {
  char text[400] = "?:-1: "; /* how Lua begins when it knows no line */
  bool calling = !strncmp(fmt, "attempt to call", 15), lost = !kc_line_known(c);
  bool inside = kc_in_c_function(c) && !calling; /* Lua knows no line in a C function, and says nothing */
  size_t n = lost && !inside ? strlen(text) : 0;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text + n, sizeof text - n, fmt, ap);
  va_end(ap);
  return raise_at(c, text, inside || lost);
}

kc_res kc_complain(kc_cap *c, const char *fmt, ...) {
  char text[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return raise_at(c, text, kc_protects_directly(c) || !kc_line_known(c));
}

kc_res kc_engine_complain(kc_cap *c, const char *text) { return raise_at(c, text, kc_protects_directly(c)); }

/* ---- names and kinds ---- */

const char *kc_kind_name(kc_val a) {
  switch (a.k) {
  case KC_V_NIL: return "nil";
  case KC_V_BOOL: return "boolean";
  case KC_V_INT:
  case KC_V_FLOAT: return "number";
  case KC_V_STRING: return "string";
  case KC_V_CFUNCTION:
  case KC_V_CLOSURE: return "function";
  case KC_V_OBJECT: return "userdata";
  case KC_V_TABLE: return "table";
  case KC_V_HANDLE: return "tensor";
  case KC_V_SYM:
    return a.v->type.kind == KN_V_TENSOR ? "tensor"
           : a.v->type.kind == KN_V_BOOL ? "boolean that depends on tensor data"
                                         : "number that depends on tensor data or arguments";
  case KC_V_UNION: return "value whose type depends on tensor data";
  case KC_V_TEXT: return "string that depends on tensor data or arguments";
  case KC_V_NONE:
  case KC_V_POISON: break;
  }
  return "value that differs between paths or loop trips in a way that cannot be captured";
}

const char *kc_type_name(kc_val a) {
  if (kc_is_tensor(a)) return "kiln.tensor";
  if (kc_is_symbool(a)) return "boolean";
  if (a.k == KC_V_TEXT) return "string";
  return kc_is_number(a) ? "number" : kc_kind_name(a);
}

bool kc_same(kc_val a, kc_val b) {
  if (a.k != b.k) return false;
  switch (a.k) {
  case KC_V_NONE:
  case KC_V_POISON:
  case KC_V_NIL: return true;
  case KC_V_BOOL:
  case KC_V_INT: return a.i == b.i;
  case KC_V_FLOAT: return memcmp(&a.f, &b.f, sizeof a.f) == 0;
  case KC_V_SYM: return a.v == b.v;
  case KC_V_TEXT:
    if (a.t->format != b.t->format) return false;
    for (uint32_t i = 0; i < a.t->n; i++)
      if (a.t->v[i].v != b.t->v[i].v) return false;
    return true;
  case KC_V_UNION: break;
  default: return a.id == b.id;
  }
  if (a.u == b.u) return true;
  if (a.u->n != b.u->n || !kc_same(a.u->tag, b.u->tag)) return false;
  for (int i = 0; i < a.u->n; i++)
    if (a.u->alt[i].code != b.u->alt[i].code || !kc_same(a.u->alt[i].v, b.u->alt[i].v)) return false;
  return true;
}

bool kc_scalar_kind(kc_val a, kn_vkind *out) {
  switch (a.k) {
  case KC_V_BOOL: *out = KN_V_BOOL; return true;
  case KC_V_INT: *out = KN_V_INT; return true;
  case KC_V_FLOAT: *out = KN_V_FLOAT; return true;
  case KC_V_SYM: *out = a.v->type.kind; return true;
  default: return false;
  }
}

/* ---- interning ---- */

uint32_t kc_intern(kc_cap *c, int idx) {
  lua_State *L = c->L;
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 6, "capture");
  lua_pushvalue(L, idx);
  if (lua_rawget(L, c->ids) == LUA_TNUMBER) {
    uint32_t id = (uint32_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return id;
  }
  lua_pop(L, 1);
  if (c->nobj == 0) c->obj = kc_more(c, &c->keep, c->obj, c->nobj++, sizeof *c->obj); /* id 0 is none */
  c->obj = kc_more(c, &c->keep, c->obj, c->nobj, sizeof *c->obj);
  uint32_t id = c->nobj++;
  lua_pushvalue(L, idx);
  lua_rawseti(L, c->objects, id);
  lua_pushvalue(L, idx);
  lua_pushinteger(L, id);
  lua_rawset(L, c->ids);
  kc_obj *o = &c->obj[id];
  *o = (kc_obj){.type = lua_type(L, idx), .ptr = lua_topointer(L, idx)};
  if (o->type == LUA_TSTRING) o->s = lua_tolstring(L, idx, &o->n); /* anchored: stays where it is */
  if (lua_iscfunction(L, idx)) {
    o->cfunction = true;
    o->engine = c->host->is_engine(L, idx);
  }
  return id;
}

void kc_push_object(kc_cap *c, uint32_t id) { lua_rawgeti(c->L, c->objects, id); }

kc_val kc_string(kc_cap *c, const char *s, size_t n) {
  lua_pushlstring(c->L, s, n);
  kc_val v = kc_ref(KC_V_STRING, kc_intern(c, -1));
  lua_pop(c->L, 1);
  return v;
}

bool kc_is_str(const kc_cap *c, kc_val a, const char *s) {
  return a.k == KC_V_STRING && !strcmp(c->obj[a.id].s, s);
}

void kc_push(kc_cap *c, kc_val a) {
  lua_State *L = c->L;
  luaL_checkstack(L, 4, "capture");
  switch (a.k) {
  case KC_V_BOOL: lua_pushboolean(L, (int)a.i); break;
  case KC_V_INT: lua_pushinteger(L, a.i); break;
  case KC_V_FLOAT: lua_pushnumber(L, a.f); break;
  case KC_V_STRING:
  case KC_V_CFUNCTION:
  case KC_V_OBJECT: kc_push_object(c, a.id); break;
  case KC_V_TABLE: kc_push_object(c, c->tab[a.id].object); break;
  case KC_V_CLOSURE: kc_push_object(c, c->clos[a.id].object); break;
  default: lua_pushnil(L); break;
  }
}

/* ---- unions ---- */

static int64_t class_of_object(kc_cap *c, kc_val a) {
  for (uint32_t i = 0; i < c->nclasses; i++)
    if (kc_same(c->classes[i], a)) return KC_CLASS_OTHER + i;
  c->classes = kc_more(c, &c->arena, c->classes, c->nclasses, sizeof *c->classes);
  c->classes[c->nclasses] = a;
  return KC_CLASS_OTHER + c->nclasses++;
}

int64_t kc_class_of(kc_cap *c, kc_val a) {
  kn_vkind kind;
  if (a.k == KC_V_NIL) return KC_CLASS_NIL;
  if (a.k == KC_V_TEXT)
    return class_of_object(c, kc_ref(KC_V_OBJECT, a.t->format)); /* a string is no OBJECT */
  if (!kc_scalar_kind(a, &kind)) return class_of_object(c, a);
  if (kind == KN_V_BOOL) return KC_CLASS_BOOL;
  if (kind != KN_V_TENSOR) return KC_CLASS_NUMBER;
  const kn_type *t = &a.v->type.tensor;
  return KC_CLASS_TENSOR + ((int64_t)t->device * KN_DTYPE_COUNT + t->dtype) * (KN_MAX_RANK + 1) + t->rank;
}

kc_val kc_make_union(kc_cap *c, const kc_union *u) {
  return (kc_val){.k = KC_V_UNION, .u = kc_dup(c, u, sizeof *u)};
}

void kc_alts(kc_cap *c, kc_val a, kc_union *u) {
  if (a.k == KC_V_UNION) {
    *u = *a.u;
    return;
  }
  *u = (kc_union){.n = 1};
  u->alt[0] = (kc_alt){kc_class_of(c, a), a};
  u->tag = kc_int(u->alt[0].code);
}

const kc_val *kc_alt_find(const kc_union *u, int64_t code) {
  for (int i = 0; i < u->n; i++)
    if (u->alt[i].code == code) return &u->alt[i].v;
  return NULL;
}

kc_res kc_alt_add(kc_cap *c, kc_union *u, int64_t code, kc_val v) {
  if (u->n == KC_MAX_ALTS)
    return kc_fail(c, "a value may be one of more than %d different things, depending on tensor data",
                   KC_MAX_ALTS);
  u->alt[u->n++] = (kc_alt){code, v};
  return KC_GO;
}

static int64_t recoded(int64_t code, int n, const int64_t *from, const int64_t *to) {
  for (int i = 0; i < n; i++)
    if (code == from[i]) return to[i];
  return code;
}

kc_val kc_recode(kc_cap *c, kc_val tag, int n, const int64_t *from, const int64_t *to) {
  if (tag.k != KC_V_SYM) return kc_int(recoded(tag.i, n, from, to));
  const kc_note *old = kc_note_of(c, tag.v, false);
  kc_note note = old ? *old : (kc_note){0};
  if (note.choice) { /* what the path knows of the old tag, it knows of this one */
    note.a = recoded(note.a, n, from, to);
    note.b = recoded(note.b, n, from, to);
    if (note.a == note.b) return kc_int(note.a);
  }
  kc_val made = tag;
  for (int i = 0; i < n; i++) {
    kc_val is = kc_equals_code(c, tag, from[i]);
    if (is.k == KC_V_SYM) made = kc_sym(kc_emit(c, KN_NODE_select, 3, is, kc_int(to[i]), made));
  }
  if (note.choice && made.v != tag.v) *kc_note_of(c, made.v, true) = note;
  return made;
}

int64_t kc_fresh_code(kc_cap *c) {
  c->classes = kc_more(c, &c->arena, c->classes, c->nclasses, sizeof *c->classes);
  c->classes[c->nclasses] = (kc_val){.k = KC_V_NONE};
  return KC_CLASS_OTHER + c->nclasses++;
}

bool kc_may_be_absent(kc_val a) {
  for (int i = 0; a.k == KC_V_UNION && i < a.u->n; i++)
    if (kc_same(a.u->alt[i].v, KC_ABSENT)) return true;
  return kc_same(a, KC_ABSENT);
}

kc_val kc_absent_to_nil(kc_cap *c, kc_val a) {
  if (!kc_may_be_absent(a)) return a;
  if (a.k != KC_V_UNION) return KC_NILV;
  kc_union u = *a.u;
  int64_t code = kc_class_of(c, KC_ABSENT);
  u.tag = kc_recode(c, u.tag, 1, &code, &(int64_t){KC_CLASS_NIL});
  u.n = 0;
  for (int i = 0; i < a.u->n; i++)
    if (a.u->alt[i].code != code && a.u->alt[i].code != KC_CLASS_NIL) u.alt[u.n++] = a.u->alt[i];
  u.alt[u.n++] = (kc_alt){KC_CLASS_NIL, KC_NILV};
  return u.n == 1 ? KC_NILV : kc_make_union(c, &u);
}

/* ---- emitting ---- */

kn_value *kc_dummy(kc_cap *c) { return c->anchor->out[0]; }

void kc_hoist(kc_cap *c, kn_node *n) {
  if (n) kn_node_move_before(n, c->anchor);
}

static kn_value *pooled(kc_cap *c, kc_val key, const kn_vtype *type) {
  for (uint32_t i = c->npool; i-- > 0;) {
    const struct kc_pooled *p = &c->pool[i];
    bool fits = key.k == KC_V_NONE ? kn_vtype_equal(&p->type, type) : p->type.kind != KN_V_TENSOR;
    if (kc_same(p->key, key) && fits) return p->v;
  }
  kn_region *at = c->b.at;
  const kn_where *where = c->b.where;
  c->b.at = c->b.graph->body;
  c->b.where = NULL;
  kn_scalar s = {KN_SCALAR_INT, {.i = key.i}};
  if (key.k == KC_V_FLOAT) s = (kn_scalar){KN_SCALAR_FLOAT, {.f = key.f}};
  if (key.k == KC_V_BOOL) s = (kn_scalar){KN_SCALAR_BOOL, {.b = key.i != 0}};
  kn_value *v = key.k == KC_V_NONE ? kn_add_undef(&c->b, type) : kn_add_const(&c->b, s);
  c->b.at = at;
  c->b.where = where;
  if (!v) return kc_dummy(c);
  kc_hoist(c, v->def);
  c->pool = kc_more(c, &c->arena, c->pool, c->npool, sizeof *c->pool);
  c->pool[c->npool++] = (struct kc_pooled){key, v, v->type};
  return v;
}

kn_value *kc_undef(kc_cap *c, const kn_vtype *type) { return pooled(c, (kc_val){.k = KC_V_NONE}, type); }

kn_value *kc_value(kc_cap *c, kc_val a) {
  switch (a.k) {
  case KC_V_SYM: return a.v;
  case KC_V_BOOL:
  case KC_V_INT:
  case KC_V_FLOAT: return pooled(c, a, NULL);
  default: return kc_dummy(c); /* callers ask kc_scalar_kind first */
  }
}

kn_value *kc_emit(kc_cap *c, kn_opcode op, int n, kc_val a, kc_val b, kc_val d) {
  kn_value *in[3] = {kc_value(c, a), n > 1 ? kc_value(c, b) : NULL, n > 2 ? kc_value(c, d) : NULL};
  c->b.where = kc_where(c);
  kn_value *v = op == KN_NODE_select ? kn_add_select(&c->b, in[0], in[1], in[2])
                                     : kn_add_scalar(&c->b, op, in, (uint32_t)n);
  return v ? v : kc_dummy(c);
}

kc_note *kc_note_of(kc_cap *c, const kn_value *v, bool make) {
  if (v->id < c->nnote && c->note[v->id]) return c->note[v->id];
  if (!make) return NULL;
  if (v->id >= c->nnote) {
    uint32_t n = v->id * 2 + 64;
    kc_note **note = kc_new(c, n * sizeof *note);
    if (c->nnote) memcpy(note, c->note, c->nnote * sizeof *note);
    c->note = note;
    c->nnote = n;
  }
  return c->note[v->id] = kc_new(c, sizeof(kc_note));
}

kc_val kc_not(kc_cap *c, kn_value *cond) {
  if (cond->def && cond->def->op == KN_NODE_lua_not) return kc_sym(cond->def->in[0]);
  return kc_sym(kc_emit(c, KN_NODE_lua_not, 1, kc_sym(cond), KC_NILV, KC_NILV));
}

kc_val kc_equals_code(kc_cap *c, kc_val tag, int64_t code) {
  if (tag.k == KC_V_INT) return kc_bool(tag.i == code);
  const kc_note *n = kc_note_of(c, tag.v, false);
  if (n && n->choice) {
    if (n->a != code && n->b != code) return kc_bool(false);
    if (n->a == code && n->b != code) return kc_sym(n->choice);
    if (n->b == code && n->a != code) return kc_not(c, n->choice);
  }
  kn_value *v = kc_emit(c, KN_NODE_lua_eq, 2, tag, kc_int(code), KC_NILV);
  kc_note *m = kc_note_of(c, v, true);
  m->tag = tag.v;
  m->code = code;
  return kc_sym(v);
}
