/* The library written in Lua (lua/kiln/), embedded in the binary: found by require "kiln.nn", and loaded when
 * first seen as a field of the module. */
#include "bindings/lua/files.h"
#include "bindings/lua/state.h"
#include <string.h>

/* __index of a module that is a plain table: upvalue 1 is its row. */
static int no_field(lua_State *L) {
  const kl_file *f = lua_touserdata(L, lua_upvalueindex(1));
  kl_check_misspelt(L, 2, 1, f->module, "function");
  return 0;
}

static void watch_fields(lua_State *L, const kl_file *f) {
  if (lua_type(L, -1) != LUA_TTABLE) return;
  if (lua_getmetatable(L, -1)) {
    lua_pop(L, 1); /* it watches for itself, and is what the file gives */
    return;
  }
  lua_createtable(L, 0, 1);
  lua_pushlightuserdata(L, (void *)(size_t)f);
  lua_pushcclosure(L, no_field, 1);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
}

/* package.preload's function for one file: upvalue 1 is its row. */
static int load_file(lua_State *L) {
  const kl_file *f = lua_touserdata(L, lua_upvalueindex(1));
  if (luaL_loadbufferx(L, f->data, f->size, f->chunk, "t") != LUA_OK) return lua_error(L);
  lua_insert(L, 1); /* the chunk gets require's arguments */
  lua_call(L, lua_gettop(L) - 1, 1);
  watch_fields(L, f);
  return 1;
}

static void require_module(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
}

static bool is_field(const kl_file *f) { return !strchr(f->module + sizeof "kiln." - 1, '.'); }

/* __index of the module: kiln.nn the first time. Later it is a plain field. */
static int lazy_field(lua_State *L) {
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  const char *key = lua_tostring(L, 2);
  for (const kl_file *f = kl_files; f->module; f++) {
    if (!is_field(f) || strcmp(f->module + sizeof "kiln." - 1, key)) continue;
    require_module(L, f->module);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -2);
    lua_rawset(L, 1);
    return 1;
  }
  kl_check_misspelt(L, 2, 1, "kiln", "function");
  return 0;
}

const char *kl_module_of(lua_State *L, int idx) {
  lua_CFunction f = lua_tocfunction(L, idx);
  if (f == lazy_field) return "kiln";
  if (f != no_field || !lua_getupvalue(L, idx, 1)) return NULL;
  const kl_file *file = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return file->module;
}

void kl_load_files(lua_State *L) {
  require_module(L, "kiln");
  for (const kl_file *f = kl_files; f->module; f++) {
    if (!is_field(f)) continue;
    lua_getfield(L, -1, f->module + sizeof "kiln." - 1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  kl_load_host_ops(L);
}

void kl_open_files(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const kl_file *f = kl_files; f->module; f++) {
    lua_pushlightuserdata(L, (void *)(size_t)f);
    lua_pushcclosure(L, load_file, 1);
    lua_setfield(L, -2, f->module);
  }
  lua_pop(L, 1);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, lazy_field);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
}
