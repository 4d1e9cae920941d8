/* Reading tables of options by rows: see options.h. What ops take is read by args.c instead. */
#include "bindings/lua/options.h"
#include "bindings/lua/args.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static kn_status read_sizes(lua_State *L, kn_context *ctx, const char *what, const char *name,
                            kn_type *type) {
  if (lua_type(L, -1) != LUA_TTABLE) return kl_args_wrong(ctx, what, name, "a table of sizes", L, -1);
  size_t n = lua_rawlen(L, -1);
  if (n > KN_MAX_RANK)
    return kn_fail(ctx, KN_ARG, "%s: %s has %zu entries, more than %d dimensions", what, name, n,
                   KN_MAX_RANK);
  type->rank = (uint8_t)n;
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    int whole;
    lua_Integer v = lua_tointegerx(L, -1, &whole);
    kn_status st = lua_type(L, -1) == LUA_TNUMBER && whole && v >= 0
                       ? KN_OK
                       : kl_args_wrong(ctx, what, name, "a table of sizes", L, -1);
    lua_pop(L, 1);
    KN_TRY(st);
    type->dims[i] = v;
  }
  return KN_OK;
}

/* The value on top of the stack. */
static kn_status read_value(lua_State *L, kn_context *ctx, const char *what, const kl_option *o) {
  switch (o->kind) {
  case KL_OPTION_INT: {
    int whole;
    lua_Integer v = lua_tointegerx(L, -1, &whole);
    if (lua_type(L, -1) != LUA_TNUMBER || !whole)
      return kl_args_wrong(ctx, what, o->name, "an integer", L, -1);
    if (v < o->least)
      return kn_fail(ctx, KN_ARG, "%s: %s must be at least %" PRId64 ", got %lld", what, o->name, o->least,
                     (long long)v);
    *(int64_t *)o->at = v;
    return KN_OK;
  }
  case KL_OPTION_BOOL:
    if (lua_type(L, -1) != LUA_TBOOLEAN) return kl_args_wrong(ctx, what, o->name, "true or false", L, -1);
    *(bool *)o->at = lua_toboolean(L, -1);
    return KN_OK;
  case KL_OPTION_DTYPE: return kl_read_dtype(L, ctx, -1, what, o->at);
  case KL_OPTION_TEXT:
    if (lua_type(L, -1) != LUA_TSTRING) return kl_args_wrong(ctx, what, o->name, "a string", L, -1);
    *(const char **)o->at = lua_tostring(L, -1);
    return KN_OK;
  case KL_OPTION_SIZES: return read_sizes(L, ctx, what, o->name, o->at);
  }
  return KN_OK;
}

static kn_status unknown(kn_context *ctx, const char *what, const char *key, const kl_option *rows) {
  char known[200] = "";
  for (const kl_option *o = rows; o->name; o++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", o == rows ? "" : ", ", o->name);
  }
  return kn_fail(ctx, KN_ARG, "%s: there is no option '%s'; there are %s", what, key, known);
}

unsigned kl_read_options(lua_State *L, int idx, const char *what, const kl_option *rows) {
  kn_context *ctx = kl_context(L);
  unsigned given = 0;
  if (lua_isnoneornil(L, idx)) return 0;
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "%s: options must be a table, got %s", what, kl_kind(L, idx));
  luaL_checkstack(L, 6, what);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : kl_kind(L, -2);
    const kl_option *o = rows;
    while (o->name && (lua_type(L, -2) != LUA_TSTRING || strcmp(o->name, key) != 0)) o++;
    kl_check(L, o->name ? read_value(L, ctx, what, o) : unknown(ctx, what, key, rows));
    given |= 1u << (o - rows);
  }
  return given;
}
