/* Reading the real Lua heap on demand and recording each look. See heap.h. */
#include "lua/capture/heap.h"
#include "lua/capture/grads.h"
#include "lua/capture/growing.h"
#include "lua/capture/handle.h"
#include "lua/capture/race.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* ---- names ---- */

static bool is_name(const char *s) {
  if (!*s || (*s >= '0' && *s <= '9')) return false;
  for (; *s; s++)
    if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '_'))
      return false;
  return true;
}

const char *kc_field_path(kc_cap *c, const char *base, kc_val key) {
  char buf[256];
  if (!base) base = "?";
  if (key.k == KC_V_STRING && is_name(c->obj[key.id].s))
    snprintf(buf, sizeof buf, "%s%s%s", base, *base ? "." : "", c->obj[key.id].s);
  else if (key.k == KC_V_INT)
    snprintf(buf, sizeof buf, "%s[%lld]", base, (long long)key.i);
  else if (key.k == KC_V_STRING)
    snprintf(buf, sizeof buf, "%s[\"%.80s\"]", base, c->obj[key.id].s);
  else
    snprintf(buf, sizeof buf, "%s[%s]", base, kc_kind_name(key));
  return kc_keep(c, buf);
}

const char *kc_value_text(kc_cap *c, kc_val a, char *buf, size_t size) {
  const kc_obj *o;
  switch (a.k) {
  case KC_V_NIL: return "nil";
  case KC_V_BOOL: return a.i ? "true" : "false";
  case KC_V_INT: snprintf(buf, size, "%lld", (long long)a.i); return buf;
  case KC_V_FLOAT: snprintf(buf, size, "%.14g", a.f); return buf;
  case KC_V_STRING: snprintf(buf, size, "\"%.60s\"", c->obj[a.id].s); return buf;
  case KC_V_TABLE: o = &c->obj[c->tab[a.id].object]; break;
  case KC_V_CLOSURE: o = &c->obj[c->clos[a.id].object]; break;
  case KC_V_CFUNCTION:
  case KC_V_OBJECT: o = &c->obj[a.id]; break;
  default: return kc_kind_name(a);
  }
  bool named = o->path && *o->path; /* the path of the globals is empty */
  snprintf(buf, size, "%s%s%s", kc_kind_name(a), named ? " " : "",
           named     ? o->path
           : o->path ? " of globals"
                     : "");
  return buf;
}

/* ---- importing values ---- */

/* A symbol of the graph that this one becomes a part of: an input. NONE where there is no such graph, or no
 * room. */
static kc_val outer_symbol(kc_cap *c, void *symbol, const char *path) {
  const kn_value *v = symbol;
  kc_outer *o = c->outer;
  if (!o) return (kc_val){.k = KC_V_NONE};
  for (uint32_t i = 0; i < o->n; i++)
    if (o->value[i] == symbol) return kc_sym(c->outer_in[i]);
  if (o->n == sizeof o->value / sizeof *o->value) return (kc_val){.k = KC_V_NONE};
  kn_vtype type = v->type;
  for (int d = 0; type.kind == KN_V_TENSOR && d < type.tensor.rank; d++) {
    uint64_t k = kn_dim_symbol_of(type.tensor.dims[d]);
    if (!kn_dim_known(type.tensor.dims[d]) && type.tensor.dims[d] != KN_DIM_UNKNOWN)
      type.tensor.dims[d] = kn_symbol_intern(&c->b, v->region->graph->symbols[k]);
  }
  kn_value *in = kn_add_input(&c->b, path, &type);
  if (!in) return (kc_val){.k = KC_V_NONE};
  o->value[o->n] = symbol;
  c->outer_in[o->n++] = in;
  return kc_sym(in);
}

kc_val kc_import(kc_cap *c, int idx, const char *path) {
  lua_State *L = c->L;
  kn_scalar s;
  if (c->outer && lua_type(L, idx) == LUA_TUSERDATA) {
    const kn_tensor *t = c->host->test_tensor(L, idx);
    void *symbol = t && !t->storage ? t->value : NULL;
    if (!t && c->host->test_scalar(L, idx, &s) && s.kind == KN_SCALAR_SYMBOL) symbol = s.as.value;
    kc_val v = symbol ? outer_symbol(c, symbol, path) : (kc_val){.k = KC_V_NONE};
    if (v.k != KC_V_NONE) return v;
  }
  switch (lua_type(L, idx)) {
  case LUA_TNONE:
  case LUA_TNIL: return KC_NILV;
  case LUA_TBOOLEAN: return kc_bool(lua_toboolean(L, idx));
  case LUA_TNUMBER:
    return lua_isinteger(L, idx) ? kc_int(lua_tointeger(L, idx)) : kc_float(lua_tonumber(L, idx));
  default: break;
  }
  uint32_t id = kc_intern(c, idx);
  kc_obj *o = &c->obj[id];
  if (!o->path && path && o->type != LUA_TSTRING) o->path = kc_keep(c, path);
  o = &c->obj[id];
  if (o->type == LUA_TSTRING) return kc_ref(KC_V_STRING, id);
  if (o->cfunction) return kc_ref(KC_V_CFUNCTION, id);
  if (o->type != LUA_TTABLE && o->type != LUA_TFUNCTION) return kc_ref(KC_V_OBJECT, id);
  if (o->attempt != c->attempt) {
    bool table = o->type == LUA_TTABLE;
    kc_val v = kc_ref(table ? KC_V_TABLE : KC_V_CLOSURE,
                      table ? kc_new_table_id(c, id) : kc_new_closure_id(c, NULL, id));
    o = &c->obj[id];
    o->val = v;
    o->attempt = c->attempt;
  }
  return o->val;
}

static kc_look *tensor_look(kc_cap *c, const kn_tensor *t) {
  for (kc_look *l = c->looks; l; l = l->next)
    if (l->slot && l->slot->tensor == t && !l->again) return l;
  return NULL;
}

static kn_value *slot_value(kc_cap *c, kn_slot *slot) {
  kn_region *at = c->b.at;
  const kn_where *where = c->b.where;
  c->b.at = c->b.graph->body;
  c->b.where = kc_where(c);
  kn_value *v = kn_add_slot_node(&c->b,
                                 slot->kind == KN_SLOT_STATE   ? KN_NODE_load_state
                                 : slot->kind == KN_SLOT_CONST ? KN_NODE_tensor
                                                               : KN_NODE_param,
                                 slot);
  c->b.at = at;
  c->b.where = where;
  if (!v) return NULL;
  kc_hoist(c, v->def);
  const char *dot = strrchr(slot->name, '.');
  kn_value_name(&c->b, v, dot && dot[1] ? dot + 1 : slot->name);
  return v;
}

kc_res kc_import_tensor(kc_cap *c, kn_tensor *t, const char *name, kn_slot_kind kind, kn_slot **slot,
                        kn_value **v, bool *again) {
  kc_look *l = kind == KN_SLOT_PARAM ? tensor_look(c, t) : NULL;
  if (l && l->seen.k == KC_V_SYM && l->slot && l->slot->kind == KN_SLOT_PARAM) {
    *slot = l->slot;
    *v = l->seen.v;
    *again = true;
    return KC_GO;
  }
  *again = false;
  if (kn_tensor_is_symbolic(t))
    return kc_fail(c, "the tensor '%s' belongs to another graph that is being built", name);
  c->b.where = kc_where(c);
  *slot = kn_add_slot(&c->b, kind, name, &(kn_vtype){.kind = KN_V_TENSOR, .tensor = t->type}, t);
  *v = *slot ? slot_value(c, *slot) : NULL;
  return *v ? KC_GO : kc_fail(c, "slot");
}

/* ---- looks ---- */

static uint32_t look_hash(kc_look_kind kind, uint32_t container, kc_val key) {
  uint64_t x = key.k == KC_V_INT || key.k == KC_V_BOOL ? (uint64_t)key.i : key.k == KC_V_FLOAT ? 0 : key.id;
  if (key.k == KC_V_FLOAT) memcpy(&x, &key.f, sizeof x);
  x = (x * 31 + container) * 31 + (uint64_t)kind;
  return (uint32_t)(x * 0x9E3779B97F4A7C15u >> 32);
}

static kc_look *find_look(const kc_cap *c, kc_look_kind kind, uint32_t container, kc_val key) {
  if (!c->nhash) return NULL;
  for (kc_look *l = c->hash[look_hash(kind, container, key) & (c->nhash - 1)]; l; l = l->next_hash)
    if (l->kind == kind && l->container == container && kc_same(l->key, key)) return l;
  return NULL;
}

kc_look *kc_new_look(kc_cap *c, kc_look_kind kind, uint32_t container, kc_val key) {
  if (c->nlooks >= c->nhash / 2) {
    uint32_t n = c->nhash ? c->nhash * 2 : 64;
    c->hash = kc_new(c, n * sizeof *c->hash);
    c->nhash = n;
    for (kc_look *l = c->looks; l; l = l->next) {
      kc_look **at = &c->hash[look_hash(l->kind, l->container, l->key) & (n - 1)];
      l->next_hash = *at;
      *at = l;
    }
  }
  kc_look *l = kc_new(c, sizeof *l);
  *l = (kc_look){.kind = kind, .container = container, .key = key, .seen = KC_NILV, .where = kc_where(c)};
  kc_look **at = &c->hash[look_hash(kind, container, key) & (c->nhash - 1)];
  l->next_hash = *at;
  *at = l;
  *(c->last_look ? &c->last_look->next : &c->looks) = l;
  c->last_look = l;
  c->nlooks++;
  return l;
}

static kc_dynamic *dynamic(const kc_cap *c, kc_look_kind kind, uint32_t container, kc_val key) {
  for (uint32_t i = 0; i < c->ndynamic; i++) {
    kc_dynamic *d = &c->dynamic[i];
    if (d->kind == kind && d->container == container && kc_same(d->key, key)) return d;
  }
  return NULL;
}

static bool is_handle(const kc_cap *c, const kn_tensor *t) {
  return kc_is_born(c, (kc_birth){KC_BORN_OUTSIDE, (uintptr_t)t});
}

/* The handle of an outside tensor that is overwritten somewhere: one, at however many places it is. */
static void handle_look(kc_cap *c, kc_look *l, kn_tensor *t, kn_value *v) {
  for (kc_look *o = c->looks; o; o = o->next)
    if (o != l && o->inplace && o->slot->tensor == t) {
      l->seen = o->seen;
      return;
    }
  l->inplace = true;
  l->seen = kc_ref(KC_V_HANDLE, kc_handle_outside(c, v, t));
  c->han[l->seen.id].slot = l->slot;
}

static kc_res take_handle(kc_cap *c, kc_look *l, kn_tensor *t) {
  kn_value *v;
  bool again;
  for (kc_look *o = c->looks; o; o = o->next)
    if (o != l && o->inplace && o->slot->tensor == t) {
      l->slot = o->slot;
      l->seen = o->seen;
      l->again = true;
      return KC_GO;
    }
  KC_TRY(kc_import_tensor(c, t, l->name, KN_SLOT_STATE, &l->slot, &v, &again));
  handle_look(c, l, t, v);
  return KC_GO;
}

/* A number, boolean or tensor that the function writes: a state slot. The real value is on top. */
static kc_res state_slot(kc_cap *c, kc_look *l, const kc_dynamic *d) {
  lua_State *L = c->L;
  kn_tensor *t = c->host->test_tensor(L, -1);
  kn_value *v;
  bool again;
  if (lua_isnil(L, -1)) {
    l->born = true;
    l->seen = KC_NILV;
    return KC_GO;
  }
  if (t) {
    KC_TRY(kc_import_tensor(c, t, l->name, KN_SLOT_STATE, &l->slot, &v, &again));
  } else {
    kn_vtype type = {.kind = lua_isboolean(L, -1)   ? KN_V_BOOL
                             : d->any_number        ? KN_V_NUMBER
                             : lua_isinteger(L, -1) ? KN_V_INT
                                                    : KN_V_FLOAT};
    c->b.where = kc_where(c);
    l->slot = kn_add_slot(&c->b, KN_SLOT_STATE, l->name, &type, NULL);
    if (!l->slot) return kc_fail(c, "slot");
    if (!c->host->test_scalar(L, -1, &l->slot->scalar)) return kc_fail(c, "internal: state is no number");
    v = slot_value(c, l->slot);
    if (!v) return kc_fail(c, "slot");
  }
  l->seen = kc_sym(v);
  if (t && is_handle(c, t)) handle_look(c, l, t, v);
  return KC_GO;
}

/* A number that the graph reads afresh: a slot that is never written. The real value is on top. */
static kc_res free_number(kc_cap *c, kc_look *l) {
  kn_vtype type = {.kind = lua_isinteger(c->L, -1) ? KN_V_INT : KN_V_FLOAT};
  l->slot = kn_add_slot(&c->b, KN_SLOT_PARAM, l->name, &type, NULL);
  kn_value *v = l->slot && c->host->test_scalar(c->L, -1, &l->slot->scalar) ? slot_value(c, l->slot) : NULL;
  if (!v) return kc_fail(c, "slot");
  l->seen = kc_sym(v);
  return KC_GO;
}

void kc_note_role(kc_cap *c, kc_dynamic what) {
  if (dynamic(c, what.kind, what.container, what.key)) return;
  c->dynamic = kc_more(c, &c->keep, c->dynamic, c->ndynamic, sizeof *c->dynamic);
  c->dynamic[c->ndynamic++] = what;
}

/* Fills the look from the real value on top of the stack, which it pops. */
static kc_res take_look(kc_cap *c, kc_look *l) {
  const kc_dynamic *d = dynamic(c, l->kind, l->container, l->key);
  kn_tensor *t = c->host->test_tensor(c->L, -1);
  kc_res r = KC_GO;
  if (d && d->role == KC_ROLE_STATE)
    r = state_slot(c, l, d);
  else if (d && d->role == KC_ROLE_FREE && lua_type(c->L, -1) == LUA_TNUMBER)
    r = free_number(c, l);
  else if (t && t->storage && is_handle(c, t))
    r = take_handle(c, l, t);
  else if (t && (t->storage || !c->outer)) {
    kn_value *v;
    r = kc_import_tensor(c, t, l->name, KN_SLOT_PARAM, &l->slot, &v, &l->again);
    if (r == KC_GO) l->seen = kc_sym(v);
  } else {
    const char *path = l->name;
    if (lua_istable(c->L, -1)) { /* the table of globals has no name of its own */
      lua_rawgeti(c->L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
      if (lua_rawequal(c->L, -1, -2)) path = "";
      lua_pop(c->L, 1);
    }
    l->seen = kc_import(c, -1, path);
    if (l->seen.k == KC_V_TABLE) l->object = c->tab[l->seen.id].object;
    if (l->seen.k == KC_V_CLOSURE) l->object = c->clos[l->seen.id].object;
    if (l->seen.k == KC_V_TABLE && c->tab[l->seen.id].argument)
      r = kc_fail(c, "'%s' is also given as an argument; reach it one way only", l->name);
  }
  lua_pop(c->L, 1);
  if (r == KC_FAIL) c->fatal = true; /* the look is half made: no other way may be tried */
  return r;
}

static kc_res field_look(kc_cap *c, uint32_t object, kc_val key, kc_look **out) {
  kc_look *l = find_look(c, KC_LOOK_FIELD, object, key);
  if (!l) {
    l = kc_new_look(c, KC_LOOK_FIELD, object, key);
    const char *base = c->obj[object].path;
    l->guard = base && !*base ? "global" : "field";
    l->name = kc_field_path(c, base, key);
    kc_push_object(c, object);
    kc_push(c, key);
    lua_rawget(c->L, -2);
    lua_remove(c->L, -2);
    KC_TRY(take_look(c, l));
  }
  *out = l;
  return KC_GO;
}

/* ---- tables ---- */

static bool is_key(kc_val k) {
  return k.k != KC_V_SYM && k.k != KC_V_UNION && k.k != KC_V_POISON && k.k != KC_V_NONE && k.k != KC_V_TEXT;
}

kc_res kc_raw_get(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val *out) {
  kc_touch(c, s, (kc_place){KC_PLACE_FIELD, table, key}, false);
  const kc_table *t = kc_table_get(s, table);
  int64_t at = t ? kc_table_find(t, key) : -1;
  *out = KC_NILV;
  if (at < 0 && key.k == KC_V_INT && kc_list_of(s, table)) return kc_list_read(c, s, table, key, out);
  if (at >= 0)
    *out = kc_resolve(c, s, t->val[at]);
  else if (c->tab[table].object && key.k != KC_V_NIL && is_key(key)) {
    if ((key.k == KC_V_TABLE && !c->tab[key.id].object) || (key.k == KC_V_CLOSURE && !c->clos[key.id].object))
      return KC_GO; /* made inside: cannot be a key outside */
    kc_look *l;
    KC_TRY(field_look(c, c->tab[table].object, key, &l));
    *out = kc_resolve(c, s, l->seen);
  }
  return KC_GO;
}

kc_res kc_place_get(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val *out) {
  const kc_table *t = kc_table_get(s, table);
  int64_t at = t ? kc_table_find(t, key) : -1;
  *out = KC_NILV;
  if (at >= 0)
    *out = t->val[at];
  else if (c->tab[table].object) {
    kc_look *l;
    KC_TRY(field_look(c, c->tab[table].object, key, &l));
    *out = l->seen;
  }
  return KC_GO;
}

/* The place is a state slot in the next attempt; this one goes on, to find others. */
static kc_res make_dynamic(kc_cap *c, const kc_look *l) {
  kn_vkind kind;
  if (l->seen.k != KC_V_HANDLE && l->seen.k != KC_V_NIL && !kc_scalar_kind(l->seen, &kind))
    return kc_fail(
        c,
        "writes '%s', which exists outside and is now %s: only numbers, booleans and tensors that are there "
        "already can be written; return the new value instead",
        l->name, kc_kind_name(l->seen));
  kc_dynamic *d = dynamic(c, l->kind, l->container, l->key);
  if (d)
    d->role = KC_ROLE_STATE;
  else
    kc_note_role(
        c, (kc_dynamic){.role = KC_ROLE_STATE, .kind = l->kind, .container = l->container, .key = l->key});
  c->doomed = true;
  return KC_GO;
}

static kc_res check_state_value(kc_cap *c, const kc_look *l, kc_val v) {
  kn_vkind kind;
  if (v.k == KC_V_UNION || v.k == KC_V_POISON || v.k == KC_V_HANDLE || kc_scalar_kind(v, &kind))
    return KC_GO; /* the end decides */
  if (l->born && v.k == KC_V_NIL) return KC_GO;
  if (l->born)
    return kc_fail(
        c,
        "writes '%s', which exists outside and is now nil: only numbers, booleans and tensors can be put "
        "there; return the new value instead",
        l->name);
  return kc_fail(c, "'%s', which exists outside and holds a %s, is set to a %s: state keeps its kind",
                 l->name, kc_kind_name(l->seen), kc_kind_name(v));
}

static bool is_state(const kc_look *l) { return l->born || (l->slot && l->slot->kind == KN_SLOT_STATE); }

/* What has not been seen to change is written what it holds. */
static bool is_as_seen(const kc_look *l, kc_val v) { return !is_state(l) && kc_same(l->seen, v); }

static kc_res note_write(kc_cap *c, kc_look *l, kc_val v) {
  if (!is_state(l)) return make_dynamic(c, l);
  KC_TRY(check_state_value(c, l, v));
  l->written = true;
  return KC_GO;
}

kc_res kc_raw_set(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val v) {
  kc_touch(c, s, (kc_place){KC_PLACE_FIELD, table, key}, true);
  const kc_table_info *info = &c->tab[table];
  if (info->argument)
    return kc_fail(
        c, "writes into a table that was passed as an argument, which the caller would see; return a new "
           "table instead");
  if (info->object) {
    kc_look *l;
    KC_TRY(field_look(c, info->object, key, &l));
    if (is_as_seen(l, v)) return KC_GO;
    KC_TRY(note_write(c, l, v));
  }
  if (key.k == KC_V_INT && kc_list_of(s, table)) return kc_list_set(c, s, table, key, v);
  kc_table_put(c, kc_table_write(c, s, table), key, v);
  return KC_GO;
}

/* All tensors have one: looked up with the first. */
static kc_res tensor_metatable(kc_cap *c, kc_state *s, kc_val a) {
  lua_State *L = c->L;
  kn_tensor *t;
  if (c->tensor_meta) return KC_GO;
  if (kn_record_tensor(&c->record, kc_tensor_value(c, s, a), &t) != KN_OK)
    return kc_fail(c, "%s", "out of memory");
  c->host->push_tensor(L, t);
  if (lua_getmetatable(L, -1)) {
    c->tensor_meta = kc_intern(c, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return KC_GO;
}

kc_res kc_metatable(kc_cap *c, kc_state *s, kc_val a, kc_val *out) {
  lua_State *L = c->L;
  uint32_t object = 0;
  *out = KC_NILV;
  if (a.k == KC_V_TABLE) {
    if (!c->tab[a.id].object) {
      const kc_table *t = kc_table_get(s, a.id);
      if (t) *out = kc_resolve(c, s, t->meta);
      return KC_GO;
    }
    object = c->tab[a.id].object;
  } else if (a.k == KC_V_OBJECT)
    object = a.id;
  else if (kc_is_tensor(a)) {
    KC_TRY(tensor_metatable(c, s, a));
    if (!c->tensor_meta) return KC_GO;
    kc_push_object(c, c->tensor_meta);
    *out = kc_import(c, -1, "tensor");
    lua_pop(L, 1);
    return KC_GO;
  } else if (a.k == KC_V_STRING || a.k == KC_V_TEXT) {
    kc_push(c, a.k == KC_V_TEXT ? kc_string(c, "", 0) : a);
    if (lua_getmetatable(L, -1)) {
      *out = kc_import(c, -1, "string");
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return KC_GO;
  } else
    return KC_GO;
  kc_look *l = find_look(c, KC_LOOK_META, object, KC_NILV);
  if (!l) {
    l = kc_new_look(c, KC_LOOK_META, object, KC_NILV);
    l->guard = "metatable";
    l->name = c->obj[object].path ? c->obj[object].path : "?";
    kc_push_object(c, object);
    if (!lua_getmetatable(L, -1)) lua_pushnil(L);
    lua_remove(L, -2);
    const char *path = kc_format(c, "metatable of %s", l->name);
    l->seen = kc_import(c, -1, path);
    if (l->seen.k == KC_V_TABLE) l->object = c->tab[l->seen.id].object;
    lua_pop(L, 1);
  }
  *out = l->seen;
  return KC_GO;
}

kc_res kc_metafield(kc_cap *c, kc_state *s, kc_val a, const char *event, kc_val *out) {
  kc_val m;
  *out = KC_NILV;
  KC_TRY(kc_metatable(c, s, a, &m));
  if (m.k == KC_V_POISON || m.k == KC_V_UNION)
    return kc_fail(c, "the metatable of this table depends on tensor data");
  return m.k == KC_V_TABLE ? kc_raw_get(c, s, m.id, kc_string(c, event, strlen(event)), out) : KC_GO;
}

kc_res kc_border(kc_cap *c, kc_state *s, uint32_t table, int64_t *out) {
  kc_touch(c, s, (kc_place){KC_PLACE_FIELD, table, KC_POISONED}, false);
  uint32_t object = c->tab[table].object;
  const kc_table *t = kc_table_get(s, table);
  if (object) { /* writes keep what is there, but may have put more behind it */
    kc_look *l = find_look(c, KC_LOOK_LENGTH, object, KC_NILV);
    if (!l) {
      l = kc_new_look(c, KC_LOOK_LENGTH, object, KC_NILV);
      l->guard = "length";
      l->name = c->obj[object].path ? c->obj[object].path : "?";
      kc_push_object(c, object);
      l->seen = kc_int((int64_t)lua_rawlen(c->L, -1));
      lua_pop(c->L, 1);
    }
    *out = l->seen.i;
    for (int64_t at; t && (at = kc_table_find(t, kc_int(*out + 1))) >= 0; ++*out) {
      kc_val v = kc_resolve(c, s, t->val[at]);
      if (v.k == KC_V_NIL) break;
      if (v.k == KC_V_POISON || (v.k == KC_V_UNION && kc_alt_find(v.u, KC_CLASS_NIL)))
        return kc_fail(
            c, "the length of this table depends on tensor data: it grows or shrinks on some path only");
    }
    return KC_GO;
  }
  int64_t n = 0, most = 0;
  if (kc_list_of(s, table)) return kc_list_refused(c, "needs to know the length of");
  for (uint32_t i = 0; t && i < t->n; i++) {
    kc_val v = kc_resolve(c, s, t->val[i]);
    if (t->key[i].k != KC_V_INT || t->key[i].i < 1 || v.k == KC_V_NIL) continue;
    const kc_val *nil = v.k == KC_V_UNION ? kc_alt_find(v.u, KC_CLASS_NIL) : NULL;
    if (nil || v.k == KC_V_POISON) {
      kc_may_grow(c, s, table);
      return kc_fail(
          c, "the length of this table depends on tensor data: it grows or shrinks on some path only");
    }
    n++;
    if (t->key[i].i > most) most = t->key[i].i;
  }
  if (n != most) return kc_fail(c, "the length of a table with holes is not defined by Lua");
  *out = n;
  return KC_GO;
}

static kc_res keys_look(kc_cap *c, uint32_t object, kc_look **out) {
  lua_State *L = c->L;
  kc_look *l = find_look(c, KC_LOOK_KEYS, object, KC_NILV);
  if (!l) {
    l = kc_new_look(c, KC_LOOK_KEYS, object, KC_NILV);
    l->guard = "keys";
    l->name = c->obj[object].path ? c->obj[object].path : "?";
    luaL_checkstack(L, 8, "capture");
    kc_push_object(c, object);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      l->keys = kc_more(c, &c->arena, l->keys, l->nkeys, sizeof *l->keys);
      l->keys[l->nkeys++] = kc_import(c, -2, NULL);
    }
    lua_pop(L, 1);
  }
  l->dropped = false;
  *out = l;
  return KC_GO;
}

void kc_drop_keys(kc_cap *c, const kc_look *after) {
  for (kc_look *l = after ? after->next : c->looks; l; l = l->next) l->dropped |= l->kind == KC_LOOK_KEYS;
}

/* The keys of an outside table: those that are there, then those that the function made. */
static kc_res outside_keys(kc_cap *c, const kc_table *t, uint32_t object, kc_val **keys, uint32_t *n) {
  kc_look *l;
  KC_TRY(keys_look(c, object, &l));
  *keys = l->keys;
  *n = l->nkeys;
  for (uint32_t i = 0; t && i < t->n; i++) {
    const kc_look *f = find_look(c, KC_LOOK_FIELD, object, t->key[i]);
    if (!f || !f->born) continue;
    if (*keys == l->keys) {
      *keys = kc_new(c, ((size_t)l->nkeys + t->n) * sizeof **keys);
      if (l->nkeys) memcpy(*keys, l->keys, l->nkeys * sizeof **keys);
    }
    (*keys)[(*n)++] = t->key[i];
  }
  return KC_GO;
}

kc_res kc_next(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val *k, kc_val *v) {
  kc_touch(c, s, (kc_place){KC_PLACE_FIELD, table, KC_POISONED}, false);
  uint32_t object = c->tab[table].object, i = 0;
  const kc_table *t = kc_table_get(s, table);
  kc_val *keys = t ? t->key : NULL;
  uint32_t n = t ? t->n : 0;
  if (object) KC_TRY(outside_keys(c, t, object, &keys, &n));
  *k = *v = KC_NILV;
  if (kc_list_of(s, table)) return kc_list_refused(c, "goes through, or hands on,");
  if (key.k != KC_V_NIL) {
    while (i < n && !kc_same(keys[i], key)) i++;
    if (i++ == n) return kc_fail(c, "next: the key is not in the table");
  }
  for (; i < n; i++) {
    kc_val x;
    KC_TRY(kc_raw_get(c, s, table, keys[i], &x));
    if (x.k == KC_V_POISON || (x.k == KC_V_UNION && kc_alt_find(x.u, KC_CLASS_NIL))) {
      kc_may_grow(c, s, table);
      return kc_fail(c,
                     "goes through a table whose keys depend on tensor data: '%s' is there on some path only",
                     kc_field_path(c, "", keys[i]));
    }
    if (x.k == KC_V_NIL) continue;
    *k = keys[i];
    *v = x;
    return KC_GO;
  }
  return KC_GO;
}

/* ---- functions and upvalues ---- */

static kc_proto *cached_proto(kc_cap *c, const uint8_t *bytes, size_t n) {
  for (uint32_t i = 0; i < c->nprotos; i++)
    if (c->protos[i].n == n && !memcmp(c->protos[i].bytes, bytes, n)) return c->protos[i].p;
  return NULL;
}

static kc_res read_proto(kc_cap *c, uint32_t object, kc_proto **out) {
  uint8_t *bytes;
  size_t n, size;
  kc_push_object(c, object);
  kn_status st = kc_dump(c->L, c->ctx, -1, &bytes, &n, &size);
  lua_pop(c->L, 1);
  if (st != KN_OK) return c->fatal = true, KC_FAIL;
  kc_proto *p = cached_proto(c, bytes, n);
  uint8_t *kept = p ? NULL : kn_arena_dup(&c->keep, bytes, n);
  if (!p && kept)
    st = kc_parse(c->ctx, &c->keep, kept, n, &p);
  else if (!p)
    st = kn_fail_nomem(c->ctx, n);
  kn_free(c->ctx->heap, bytes, size);
  if (st != KN_OK) return c->fatal = st == KN_NOMEM, kc_fail(c, "%s", kc_format(c, "%s", kn_error(c->ctx)));
  if (kept) {
    c->protos = kc_more(c, &c->keep, c->protos, c->nprotos, sizeof *c->protos);
    c->protos[c->nprotos++] = (struct kc_proto_cache){kept, n, p};
  }
  *out = p;
  return KC_GO;
}

kc_res kc_load_closure(kc_cap *c, uint32_t clos) {
  kc_closure_info *f = &c->clos[clos];
  if (f->p) return KC_GO;
  kc_proto *p = NULL;
  KC_TRY(read_proto(c, f->object, &p));
  uint32_t *cell = kc_new(c, (size_t)p->nup * sizeof *cell);
  kc_push_object(c, f->object);
  for (int i = 0; i < p->nup; i++) {
    const void *id = lua_upvalueid(c->L, -1, i + 1);
    for (uint32_t k = 1; k < c->ncell && !cell[i]; k++)
      if (c->cell[k].id == id && id) cell[i] = k;
    if (cell[i]) continue;
    cell[i] = kc_new_cell_id(c);
    c->cell[cell[i]] = (kc_cell_info){.object = f->object, .index = i + 1, .id = id};
  }
  lua_pop(c->L, 1);
  f = &c->clos[clos];
  f->p = p;
  f->cell = cell;
  return KC_GO;
}

static kc_res upvalue_look(kc_cap *c, uint32_t cell, kc_look **out) {
  kc_cell_info *info = &c->cell[cell];
  if (!info->look) {
    kc_look *l = kc_new_look(c, KC_LOOK_UPVALUE, info->object, kc_int(info->index));
    kc_push_object(c, info->object);
    const char *name = lua_getupvalue(c->L, -1, info->index);
    if (!name || !*name || *name == '(') name = kc_format(c, "upvalue %d", info->index);
    lua_remove(c->L, -2);
    l->guard = "upvalue";
    l->name = kc_keep(c, name);
    KC_TRY(take_look(c, l));
    c->cell[cell].look = l;
  }
  *out = c->cell[cell].look;
  return KC_GO;
}

kc_res kc_cell_get(kc_cap *c, kc_state *s, uint32_t cell, kc_val *out) {
  kc_touch(c, s, (kc_place){KC_PLACE_VARIABLE, cell, KC_NILV}, false);
  const kc_val *v = kc_map_get(&s->cells, cell);
  *out = v ? *v : KC_NILV;
  if (!v && c->cell[cell].grad) {
    KC_TRY(kc_grad_entry(c, cell, out));
  } else if (!v && c->cell[cell].object) {
    kc_look *l;
    KC_TRY(upvalue_look(c, cell, &l));
    *out = l->seen;
  }
  *out = kc_resolve(c, s, *out);
  return KC_GO;
}

kc_res kc_cell_set(kc_cap *c, kc_state *s, uint32_t cell, kc_val v) {
  kc_touch(c, s, (kc_place){KC_PLACE_VARIABLE, cell, KC_NILV}, true);
  if (c->cell[cell].object) {
    kc_look *l;
    KC_TRY(upvalue_look(c, cell, &l));
    if (is_as_seen(l, v)) return KC_GO;
    KC_TRY(note_write(c, l, v));
  }
  kc_map_set(c, &s->cells, s->owner, cell, kc_dup(c, &v, sizeof v));
  return KC_GO;
}

/* ---- burning in ---- */

/* A free number of the outside becomes a guarded one. */
static bool fix_one(kc_cap *c, const kn_value *v) {
  if (!v->def || v->def->op != KN_NODE_param || v->type.kind == KN_V_TENSOR) return false;
  for (const kc_look *l = c->looks; l; l = l->next) {
    kc_dynamic *d = l->slot == v->def->slot ? dynamic(c, l->kind, l->container, l->key) : NULL;
    if (!d || d->role != KC_ROLE_FREE) continue;
    d->role = KC_ROLE_FIXED;
    return true;
  }
  return false;
}

static bool burn_one(kc_cap *c, const kn_value *v) {
  if (fix_one(c, v)) return true;
  for (uint32_t i = 0; i < c->ninput; i++) {
    const kc_input *in = &c->input[i];
    bool hit = in->dim < 0 ? in->value == v
                           : v->def && v->def->op == KN_NODE_size && v->def->in[0] == in->value &&
                                 *(const int64_t *)v->def->attrs == in->dim;
    if (!hit) continue;
    c->burnt = kc_more(c, &c->keep, c->burnt, c->nburnt, sizeof *c->burnt);
    c->burnt[c->nburnt++] = in->leaf * 16 + (uint32_t)(in->dim + 1);
    return true;
  }
  return false;
}

static bool burnable(kc_cap *c, const kn_value *v, int depth, bool *found) {
  if (burn_one(c, v)) return *found = true;
  if (!v->def || depth > 20) return false;
  if (v->def->op == KN_NODE_const) return true;
  if (v->def->op < KN_NODE_lua_add || v->def->op > KN_NODE_lua_tofloat) return false;
  for (uint32_t i = 0; i < v->def->nin; i++)
    if (!burnable(c, v->def->in[i], depth + 1, found)) return false;
  return true;
}

kc_res kc_burn(kc_cap *c, kc_val a) {
  if (a.k != KC_V_SYM || a.v->type.kind == KN_V_TENSOR) return KC_GO;
  uint32_t before = c->nburnt;
  bool found = false;
  if (burnable(c, a.v, 0, &found) && found) return KC_RESTART;
  c->nburnt = before;
  return KC_GO;
}
