/* Is a Lua table laid out as peek.h says? Tried out once for each captured graph. */
#include "lua/capture/peek.h"
#include <stdlib.h>
#include <string.h>

static bool as_described(const kc_peek_table *t, const void *meta, const void *const *keys) {
  if (t->tt != LUA_TTABLE || t->meta != meta || t->log2_nodes != 2 || t->limit != 3) return false;
  if (kc_peek_array_size(t) != 3 || !t->array || !t->nodes) return false;
  for (int i = 0; i < 3; i++)
    if (t->array[i].bits != (uint64_t)(0x5EED0000 + i)) return false;
  if (t->array[0].tag != t->array[2].tag || kc_peek_is_nil(t->array[0].tag)) return false;
  for (int i = 0; i < 4; i++) {
    const kc_peek_string *k = keys[i];
    if (k->tt != LUA_TSTRING || k->length != 1) return false;
    bool there;
    const kc_peek_node *n = kc_peek_find(t, (uint64_t)(uintptr_t)k, KC_PEEK_STRING, k->hash, &there);
    if (!n || !there || n->bits != (uint64_t)(0x5EED1000 + i) || n->tag != t->array[0].tag) return false;
  }
  return true;
}

bool kc_peek_works(lua_State *L) {
  static const char *const names[] = {"a", "b", "c", "d"};
  const char *off = getenv("KILN_GUARDS");
  if ((off && !strcmp(off, "slow")) || sizeof(void *) != 8 || sizeof(lua_Integer) != 8 ||
      sizeof(lua_Number) != 8 || sizeof(kc_peek_node) != 24 || lua_version(L) != 504 || !lua_checkstack(L, 6))
    return false;
  const void *keys[4];
  int top = lua_gettop(L);
  lua_createtable(L, 3, 4);
  for (int i = 0; i < 3; i++) {
    lua_pushinteger(L, 0x5EED0000 + i);
    lua_rawseti(L, -2, i + 1);
  }
  for (int i = 0; i < 4; i++) {
    lua_pushstring(L, names[i]);
    keys[i] = lua_topointer(L, -1);
    lua_pushinteger(L, 0x5EED1000 + i);
    lua_rawset(L, -3);
  }
  lua_newtable(L);
  const void *meta = lua_topointer(L, -1);
  lua_setmetatable(L, top + 1);
  bool works = as_described(lua_topointer(L, top + 1), meta, keys);
  lua_createtable(L, 8, 0);
  for (int i = 1; i <= 5; i++) {
    lua_pushinteger(L, i);
    lua_rawseti(L, -2, i);
  }
  works = works && lua_rawlen(L, -1) == 5; /* leaves a hint */
  const kc_peek_table *list = lua_topointer(L, -1);
  works = works && kc_peek_array_size(list) == 8 && list->limit >= 5 && kc_peek_is_nil(list->array[7].tag);
  lua_settop(L, top);
  return works;
}

const kc_peek_upvalue *kc_peek_upvalue_of(lua_State *L, int idx, int n, const void *ptr) {
  if (lua_type(L, idx) != LUA_TFUNCTION || lua_iscfunction(L, idx)) return NULL;
  const kc_peek_closure *f = lua_topointer(L, idx);
  const kc_peek_upvalue *up = lua_upvalueid(L, idx, n);
  if (f->tt != KC_PEEK_CLOSURE || !up || n > f->count || f->up[n - 1] != up || up->tt != KC_PEEK_UPVALUE)
    return NULL;
  return up->at && up->at->bits == (uint64_t)(uintptr_t)ptr ? up : NULL;
}
