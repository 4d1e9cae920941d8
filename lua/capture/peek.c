/* Is a Lua table laid out as peek.h says? Tried out once for each captured graph. */
#include "lua/capture/peek.h"
#include <stdlib.h>
#include <string.h>

static bool as_described(const kc_peek_table *t, const void *meta, const void *key) {
  if (t->tt != LUA_TTABLE || t->meta != meta || t->log2_nodes != 2 || t->limit != 3) return false;
  if (kc_peek_array_size(t) != 3 || !t->array || !t->nodes) return false;
  for (int i = 0; i < 3; i++)
    if (t->array[i].bits != (uint64_t)(0x5EED0000 + i)) return false;
  if (t->array[0].tag != t->array[2].tag || kc_peek_is_nil(t->array[0].tag)) return false;
  int found = 0, others = 0;
  for (uint32_t i = 0; i < kc_peek_count(t); i++) {
    const kc_peek_node *n = &t->nodes[i];
    if (kc_peek_is_nil(n->tag)) continue;
    if (n->key == (uint64_t)(uintptr_t)key && n->key_tag)
      found += n->bits == 0x5EED1000 && n->tag == t->array[0].tag;
    else
      others++;
  }
  return found == 1 && others == 3;
}

bool kc_peek_works(lua_State *L) {
  static const char *const names[] = {"a", "b", "c", "d"};
  const char *off = getenv("KILN_GUARDS");
  if ((off && !strcmp(off, "slow")) || sizeof(void *) != 8 || sizeof(lua_Integer) != 8 ||
      sizeof(lua_Number) != 8 || sizeof(kc_peek_node) != 24 || lua_version(L) != 504 || !lua_checkstack(L, 6))
    return false;
  int top = lua_gettop(L);
  lua_createtable(L, 3, 4);
  for (int i = 0; i < 3; i++) {
    lua_pushinteger(L, 0x5EED0000 + i);
    lua_rawseti(L, -2, i + 1);
  }
  for (int i = 0; i < 4; i++) {
    lua_pushstring(L, names[i]);
    lua_pushinteger(L, 0x5EED1000 + i);
    lua_rawset(L, -3);
  }
  lua_newtable(L);
  const void *meta = lua_topointer(L, -1);
  lua_setmetatable(L, top + 1);
  lua_pushstring(L, names[0]);
  bool works = as_described(lua_topointer(L, top + 1), meta, lua_topointer(L, -1));
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
