/* The flat list of guards, made to be quick: it is gone through at every call of a captured function. What it
 * compares lies on the stack of a Lua thread that never runs, so a look is two or three calls of Lua's
 * interface, without a table of objects between. It only says yes or no; which guard failed and why is found
 * by live.c, which also checks what is too special for this list. */
#include "graph/mutant.h"
#include "lua/capture/guards.h"
#include <lauxlib.h>
#include <string.h>

enum { PILE = 24 };     /* values left on the stack before they are popped */
enum { MOST = 400000 }; /* of guards, of objects: a Lua stack has room for a million values */

void kc_guards_open(kc_cap *c, kc_guards *g, kn_arena *a, uint32_t room, uint32_t objects) {
  lua_State *L = c->L;
  g->list = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *g->list);
  if (!g->list) luaL_error(L, "not enough memory");
  g->T = lua_newthread(L);
  g->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  if (objects > MOST || room > MOST) luaL_error(L, "the function depends on too many values outside");
  if (!lua_checkstack(g->T, (int)(room + objects) + PILE + 8)) luaL_error(L, "not enough memory");
  g->peeks = kc_peek_works(L);
}

int kc_guards_keep(lua_State *L, kc_guards *g) {
  lua_xmove(L, g->T, 1);
  return lua_gettop(g->T);
}

/* Pushes what is there now; its type. */
static inline int look(lua_State *T, const kc_guard *k) {
  switch ((kc_guard_how)k->how) {
  case KC_GUARD_FIELD: lua_pushvalue(T, k->key_place); return lua_rawget(T, k->container);
  case KC_GUARD_INDEX: return lua_rawgeti(T, k->container, k->i);
  case KC_GUARD_UPVALUE:
    if (!lua_getupvalue(T, k->container, (int)k->i)) break;
    return lua_type(T, -1);
  case KC_GUARD_META:
    if (!lua_getmetatable(T, k->container)) break;
    return LUA_TTABLE;
  case KC_GUARD_LENGTH: lua_pushinteger(T, (lua_Integer)lua_rawlen(T, k->container)); return LUA_TNUMBER;
  }
  lua_pushnil(T);
  return LUA_TNIL;
}

/* The tensor on top. An object that was one stays one: only another object is asked what it is. */
static inline kn_tensor *tensor_on_top(lua_State *T, const kc_host *host, kc_guard *k) {
  const void *p = lua_touserdata(T, -1);
  if (p && p == (const void *)k->box) return *k->box;
  kn_tensor *t = host->test_tensor(T, -1);
  if (t) {
    lua_copy(T, -1, k->last);
    k->box = lua_touserdata(T, -1);
  }
  return t;
}

static inline bool is_wanted(lua_State *T, const kc_guard *k) {
  switch (k->type) {
  case LUA_TNIL: return true;
  case LUA_TBOOLEAN: return lua_toboolean(T, -1) == (int)k->want.i || KN_MUTANT(boolean_guard_unchecked);
  case LUA_TNUMBER: {
    if (lua_isinteger(T, -1) != (int)k->integer) return false;
    if (KN_MUTANT(number_guard_unchecked)) return true;
    if (k->integer) return lua_tointeger(T, -1) == k->want.i;
    double f = lua_tonumber(T, -1);
    return !memcmp(&f, &k->want.f, sizeof f);
  }
  case LUA_TSTRING: return lua_tostring(T, -1) == k->want.ptr || lua_rawequal(T, -1, k->last);
  default:
    return lua_topointer(T, -1) == k->want.ptr ||
           (KN_MUTANT(function_guard_unchecked) && k->type == LUA_TFUNCTION);
  }
}

/* ---- without a call ---- */

static inline bool same_value(const kc_guard *k, uint64_t bits, uint8_t tag) {
  return tag == k->tag && (k->tag_only || bits == k->bits);
}

static inline bool is_absent(const kc_guard *k) {
  uint32_t n = kc_peek_count(k->table);
  const kc_peek_node *at = k->table->nodes;
  if (n > KC_PEEK_NODES) return false;
  for (uint32_t i = 0; i < n; i++)
    if (at[i].key == k->key && at[i].key_tag == k->key_tag && !kc_peek_is_nil(at[i].tag)) return false;
  return true;
}

/* Certainly what it was; false says nothing. */
static inline bool unchanged(const kc_guard *k) {
  const kc_peek_table *t = k->table;
  switch ((kc_guard_peek)k->peek) {
  case KC_PEEK_META: return t->meta == k->base;
  case KC_PEEK_ARRAY: return k->at < t->limit && same_value(k, t->array[k->at].bits, t->array[k->at].tag);
  case KC_PEEK_NODE: {
    const kc_peek_node *n = &t->nodes[k->at];
    return t->nodes == k->base && k->at < kc_peek_count(t) && n->key == k->key && n->key_tag == k->key_tag &&
           same_value(k, n->bits, n->tag);
  }
  case KC_PEEK_ABSENT: return is_absent(k);
  case KC_PEEK_NOT: break;
  }
  return false;
}

static void note_value(kc_guard *k, kc_guard_peek peek, uint64_t bits, uint8_t tag) {
  k->peek = (uint8_t)peek;
  k->bits = bits;
  k->tag = tag;
}

/* A key that is a string: the same object is the same key, and short ones are one object. */
static void note_field(lua_State *T, kc_guard *k) {
  const kc_peek_table *t = k->table, *string = lua_topointer(T, k->key_place);
  if (lua_type(T, k->key_place) != LUA_TSTRING) return;
  uint8_t tag = 0;
  k->key = (uint64_t)(uintptr_t)string;
  for (uint32_t i = 0; i < kc_peek_count(t); i++) {
    const kc_peek_node *n = &t->nodes[i];
    if (n->key != k->key || (n->key_tag & 15) != LUA_TSTRING || kc_peek_is_nil(n->tag)) continue;
    k->at = i;
    k->base = t->nodes;
    k->key_tag = n->key_tag;
    note_value(k, KC_PEEK_NODE, n->bits, n->tag);
    return;
  }
  tag = (uint8_t)(LUA_TSTRING | 64); /* of a short string, which can be collected */
  if (k->tensor || k->type != LUA_TNIL || string->tt != LUA_TSTRING) return;
  k->key_tag = tag;
  k->peek = KC_PEEK_ABSENT;
}

/* What was just found, on top, is what is wanted: remembers where it lies. Only objects that are kept alive. */
static void note(kc_guards *g, kc_guard *k) {
  lua_State *T = g->T;
  k->peek = KC_PEEK_NOT;
  if (!g->peeks || lua_type(T, k->container) != LUA_TTABLE) return;
  if (k->type == LUA_TSTRING && !k->tensor && lua_topointer(T, -1) != lua_topointer(T, k->last)) return;
  k->table = lua_topointer(T, k->container);
  k->tag_only = !k->tensor && (k->type == LUA_TNIL || k->type == LUA_TBOOLEAN);
  if (k->how == KC_GUARD_META) {
    k->base = lua_topointer(T, -1); /* NULL for nil */
    k->peek = KC_PEEK_META;
  } else if (k->how == KC_GUARD_INDEX && kc_peek_in_array(k->table, k->i)) {
    k->at = (uint32_t)(k->i - 1);
    note_value(k, KC_PEEK_ARRAY, k->table->array[k->at].bits, k->table->array[k->at].tag);
  } else if (k->how == KC_GUARD_FIELD)
    note_field(T, k);
}

bool kc_guard_keys_note(const kc_peek_table *t, kc_guard_keys *k) {
  *k = (kc_guard_keys){t->array, t->nodes, t->limit, kc_peek_count(t), {0}, {0}};
  if (!kc_peek_whole_array(t) || k->count > KC_PEEK_NODES) return false;
  for (uint32_t i = 0; i < k->limit; i++)
    if (kc_peek_is_nil(t->array[i].tag)) return false;
  for (uint32_t i = 0; i < k->count; i++) {
    if (kc_peek_is_nil(t->nodes[i].tag)) continue;
    k->key[i] = t->nodes[i].key;
    k->key_tag[i] = t->nodes[i].key_tag;
  }
  return true;
}

bool kc_guard_keys_same(const kc_peek_table *t, const kc_guard_keys *k) {
  if (t->array != k->array || t->nodes != k->nodes || t->limit != k->limit || kc_peek_count(t) != k->count)
    return false;
  if (!kc_peek_whole_array(t)) return false;
  for (uint32_t i = 0; i < k->limit; i++)
    if (kc_peek_is_nil(t->array[i].tag)) return false;
  for (uint32_t i = 0; i < k->count; i++) {
    const kc_peek_node *n = &t->nodes[i];
    bool there = !kc_peek_is_nil(n->tag);
    if (there ? n->key != k->key[i] || n->key_tag != k->key_tag[i] : k->key_tag[i] != 0) return false;
  }
  return true;
}

/* ---- all of them ---- */

static inline bool same_type(const kn_type *a, const kn_type *b) {
  if (a->dtype != b->dtype || a->device != b->device || a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

/* By Lua's interface; what is found stays on the stack. */
static bool holds(kc_guards *g, const kc_host *host, kc_guard *k) {
  lua_State *T = g->T;
  int type = look(T, k);
  bool hold;
  if (k->tensor)
    hold = (k->now = type == LUA_TUSERDATA ? tensor_on_top(T, host, k) : NULL) != NULL;
  else
    hold = type == k->type && is_wanted(T, k);
  if (hold) note(g, k);
  return hold;
}

bool kc_guards_hold(kc_guards *g, const kc_host *host) {
  lua_State *T = g->T;
  int base = lua_gettop(T), pile = 0;
  bool hold = true;
  for (kc_guard *k = g->list, *end = k + g->n; k < end && hold; k++) {
    if (unchanged(k))
      k->now = k->tensor ? *k->box : NULL;
    else {
      hold = holds(g, host, k);
      if (++pile == PILE) lua_settop(T, base), pile = 0;
    }
    if (k->tensor && hold) hold = k->now && k->now->storage && same_type(&k->now->type, k->tensor);
  }
  lua_settop(T, base);
  return hold;
}

kn_tensor *kc_guards_tensor(kc_guards *g, const kc_host *host, uint32_t i) {
  kc_guard *k = &g->list[i];
  kn_tensor *t = look(g->T, k) == LUA_TUSERDATA ? tensor_on_top(g->T, host, k) : NULL;
  lua_pop(g->T, 1);
  return t;
}

void kc_guards_free(lua_State *L, kc_guards *g) {
  if (g->T) luaL_unref(L, LUA_REGISTRYINDEX, g->ref);
  g->T = NULL;
}
