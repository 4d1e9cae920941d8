/* Blocks with a finalizer: see owned.h. */
#include "bindings/lua/owned.h"
#include <string.h>

typedef union owned { /* a union, so that what follows is aligned for anything */
  void (*give_back)(void *block);
  max_align_t align;
} owned;

void kl_give_back(lua_State *L, int idx) {
  owned *o = lua_touserdata(L, idx);
  void (*give_back)(void *) = o->give_back;
  o->give_back = NULL;
  if (give_back) give_back(o + 1);
}

static int owned_gc(lua_State *L) {
  kl_give_back(L, 1);
  return 0;
}

void *kl_push_owned(lua_State *L, size_t size, void (*give_back)(void *block)) {
  owned *o = lua_newuserdatauv(L, sizeof *o + size, 0);
  memset(o, 0, sizeof *o + size);
  if (luaL_newmetatable(L, "kiln.owned")) {
    lua_pushcfunction(L, owned_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, owned_gc);
    lua_setfield(L, -2, "__close");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
  }
  lua_setmetatable(L, -2);
  o->give_back = give_back;
  return o + 1;
}
