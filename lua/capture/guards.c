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
}

int kc_guards_keep(lua_State *L, kc_guards *g) {
  lua_xmove(L, g->T, 1);
  return lua_gettop(g->T);
}

/* Pushes what is there now; its type. */
static inline int look(lua_State *T, const kc_guard *k) {
  switch ((kc_guard_how)k->how) {
  case KC_GUARD_FIELD: lua_pushvalue(T, k->key); return lua_rawget(T, k->container);
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

bool kc_guards_hold(kc_guards *g, const kc_host *host) {
  lua_State *T = g->T;
  int base = lua_gettop(T), pile = 0;
  bool hold = true;
  for (uint32_t i = 0; i < g->n && hold; i++) {
    kc_guard *k = &g->list[i];
    int type = look(T, k);
    if (k->tensor) {
      const kn_tensor *t = k->now = type == LUA_TUSERDATA ? tensor_on_top(T, host, k) : NULL;
      hold = t && t->storage && kn_type_equal(&t->type, k->tensor);
    } else
      hold = type == k->type && is_wanted(T, k);
    if (++pile < PILE) continue;
    lua_settop(T, base);
    pile = 0;
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
