/* kiln_lua.h: Lua states that are made here. What Lua takes comes from the context's heap, so that it and
 * tensors have one limit. */
#include "bindings/lua/kiln_lua.h"
#include "bindings/lua/state.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

/* The heap outlives its last block: whoever frees that needs no more. */
static void *from_heap(void *heap, void *p, size_t osize, size_t nsize) {
  if (!p) return nsize ? kn_alloc(heap, nsize) : NULL; /* osize says what for */
  if (nsize) return kn_realloc(heap, p, osize, nsize);
  kn_free(heap, p, osize);
  return NULL;
}

/* ---- Lua's libraries ---- */

static const struct {
  const char *name;
  lua_CFunction open;
  bool always; /* kiln's own files need it */
} libraries[] = {
    {LUA_GNAME, luaopen_base, true},          {LUA_LOADLIBNAME, luaopen_package, true},
    {LUA_COLIBNAME, luaopen_coroutine, true}, {LUA_TABLIBNAME, luaopen_table, true},
    {LUA_STRLIBNAME, luaopen_string, true},   {LUA_MATHLIBNAME, luaopen_math, true},
    {LUA_UTF8LIBNAME, luaopen_utf8, true},    {LUA_IOLIBNAME, luaopen_io, false},
    {LUA_OSLIBNAME, luaopen_os, false},       {LUA_DBLIBNAME, luaopen_debug, false},
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

/* The library whose name is the first word of the list, which moves past it; LIBRARIES: there is none. */
static int take_word(const char **list) {
  size_t n = strcspn(*list, ",");
  int i = 0;
  while (i < LIBRARIES && (strlen(libraries[i].name) != n || memcmp(libraries[i].name, *list, n))) i++;
  *list += n + ((*list)[n] == ',');
  return i;
}

static bool is_listed(int library, const char *list) {
  while (*list)
    if (take_word(&list) == library) return true;
  return false;
}

static const char *unknown_library(const char *list) {
  while (list && *list) {
    const char *word = list;
    if (take_word(&list) == LIBRARIES) return word;
  }
  return NULL;
}

/* ---- what scripts print, for the host's context ---- */

static int print(lua_State *L) {
  luaL_Buffer b;
  int n = lua_gettop(L);
  luaL_buffinit(L, &b);
  for (int i = 1; i <= n; i++) {
    if (i > 1) luaL_addchar(&b, '\t');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, '\n');
  luaL_pushresult(&b);
  size_t bytes;
  const char *text = lua_tolstring(L, -1, &bytes);
  kn_print(kl_context(L), KN_OUT_PRINT, text, bytes);
  return 0;
}

static void warn(void *ctx, const char *text, int more) {
  (void)more;
  kn_print(ctx, KN_OUT_WARN, text, strlen(text));
}

/* ---- life ---- */

static int open_all(lua_State *L) {
  const kiln_lua_options *o = lua_touserdata(L, 1);
  kn_context *ctx = lua_touserdata(L, 2);
  kl_state *s = kl_state_open(L, ctx);
  if (!o->context) kl_own_context(s);
  for (int i = 0; i < LIBRARIES; i++)
    if (libraries[i].always || !o->libraries || is_listed(i, o->libraries)) {
      luaL_requiref(L, libraries[i].name, libraries[i].open, 1);
      lua_pop(L, 1);
    }
  if (o->context) {
    lua_pushcfunction(L, print);
    lua_setglobal(L, "print");
    lua_setwarnf(L, warn, ctx);
  }
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_gc(L, LUA_GCGEN, 0, 0);
  return 0;
}

static kiln_status refuse(char *error, size_t size, kiln_status st, const char *text) {
  if (error && size) snprintf(error, size, "%s", text);
  return st;
}

/* With its context, when that is its own. */
static kiln_status open_state(const kiln_lua_options *o, kiln_context *ctx, lua_State **out, char *error,
                              size_t size) {
  lua_State *L = lua_newstate(from_heap, ((kn_context *)ctx)->heap);
  bool held = false;
  kiln_status st = KILN_NOMEM;
  if (L) {
    lua_pushcfunction(L, open_all);
    lua_pushlightuserdata(L, (void *)(size_t)o);
    lua_pushlightuserdata(L, ctx);
    int rc = lua_pcall(L, 2, 0, 0);
    const kl_state *s = kl_find_state(L);
    held = s && s->owned;
    if (rc == LUA_OK) {
      kiln_lua_limit_instructions(L, o->instruction_limit);
      *out = L;
      return KILN_OK;
    }
    st = rc == LUA_ERRMEM ? KILN_NOMEM : KILN_STATE;
    refuse(error, size, st, lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "");
    lua_close(L);
  } else
    refuse(error, size, st, "out of memory: a Lua state");
  if (!o->context && !held) kiln_context_free(ctx);
  return st;
}

kiln_status kiln_lua_new(const kiln_lua_options *options, lua_State **out, char *error, size_t size) {
  kiln_lua_options o = {.size = sizeof o};
  if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
  if (options && options->size < offsetof(kiln_lua_options, memory_limit))
    return refuse(error, size, KILN_ARG, "the options do not say their size");
  if (o.context && o.memory_limit)
    return refuse(error, size, KILN_ARG, "a context that is given has a memory limit of its own");
  const char *word = unknown_library(o.libraries);
  if (word) {
    char text[128];
    snprintf(text, sizeof text, "Lua has no library '%.60s'", word);
    return refuse(error, size, KILN_ARG, text);
  }
  kiln_context *ctx = o.context;
  const kiln_context_options own = {.size = sizeof own, .memory_limit = o.memory_limit};
  if (!ctx) {
    kiln_status st = kiln_context_new(&own, &ctx, error, size);
    if (st != KILN_OK) return st;
  }
  return open_state(&o, ctx, out, error, size);
}

void kiln_lua_free(lua_State *L) {
  if (L) lua_close(L);
}
