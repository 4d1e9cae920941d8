/* t[key] and t[key] = value. String keys are methods and fields; of the rest place.c makes a place. */
#include "bindings/lua/args.h"
#include "bindings/lua/place.h"
#include "core/grad/tape.h"
#include <string.h>

/* Did `for i, row in ipairs(t)` ask, and for the row after the last? Such a loop ends at nil; everybody else
 * is told that there is no such row. Looked into only where the place has been refused. */
static bool ends_ipairs(lua_State *L, const kn_tensor *t) {
  lua_Debug caller;
  if (!lua_isinteger(L, 2) || t->type.rank == 0 || lua_tointeger(L, 2) != t->type.dims[0] + 1) return false;
  if (!lua_getstack(L, 1, &caller) || !lua_getinfo(L, "f", &caller)) return false;
  bool is = lua_iscfunction(L, -1) && lua_rawequal(L, -1, lua_upvalueindex(3));
  lua_pop(L, 1);
  return is;
}

/* Upvalues: methods, fields, the function that ipairs gives. */
static int tensor_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) {
      kl_check_misspelt(L, 2, lua_upvalueindex(1), "tensor", "method");
      return 1;
    }
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
  }
  kn_context *ctx = kl_context(L);
  kn_tensor *t = kl_check_tensor(L, 1), *out;
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_place p;
  kn_status st = kl_place_read(L, ctx, t, 2, &p);
  if (st == KN_OK) {
    st = kl_place_get(ctx, &p, &out);
    kl_place_free(&p);
  }
  if (st == KN_INDEX && ends_ipairs(L, t)) {
    lua_pushnil(L);
    return 1;
  }
  kl_check(L, st);
  kl_fill_tensor(L, slot, out);
  return 1;
}

/* ---- writing elements ---- */

/* The right-hand side: a tensor, a number, or a table of numbers. */
static kn_status read_value(lua_State *L, kn_context *ctx, kn_tensor *beside, int idx, kn_tensor **out) {
  kn_tensor *t = kl_test_tensor(L, idx);
  kn_scalar s;
  if (t)
    *out = kn_tensor_retain(t);
  else if (kl_test_scalar(L, idx, &s))
    return kn_scalar_tensor(ctx, &s, kn_tensor_dtype(beside), out);
  else if (lua_type(L, idx) == LUA_TTABLE)
    return kl_read_tensor(L, ctx, idx, kn_tensor_dtype(beside), out);
  else
    return kn_fail(ctx, KN_ARG, "index: the new value must be a tensor, a number or a table, got %s",
                   kl_kind(L, idx));
  return KN_OK;
}

static kn_status set_elements(lua_State *L, kn_context *ctx, kn_tensor *t, int key, int value) {
  kl_place p;
  kn_tensor *v;
  KN_TRY(read_value(L, ctx, t, value, &v));
  kn_status st = kl_place_read(L, ctx, t, key, &p);
  if (st == KN_OK) {
    st = kl_place_set(ctx, &p, v);
    kl_place_free(&p);
  }
  kn_tensor_release(v);
  return st;
}

static int set_field(lua_State *L, kn_tensor *t) {
  kn_context *ctx = kl_context(L);
  const char *name = lua_tostring(L, 2);
  if (!strcmp(name, "requires_grad")) {
    if (lua_type(L, 3) != LUA_TBOOLEAN)
      return kl_error(L, KN_ARG, "requires_grad must be true or false, got %s", kl_kind(L, 3));
    kl_check(L, kn_set_requires_grad(ctx, t, lua_toboolean(L, 3)));
    return 0;
  }
  if (!strcmp(name, "grad")) {
    kn_tensor *g = kl_test_tensor(L, 3);
    if (!g && !lua_isnil(L, 3))
      return kl_error(L, KN_ARG, "grad must be a tensor or nil, got %s", kl_kind(L, 3));
    kl_check(L, kn_set_grad(ctx, t, g));
    return 0;
  }
  return kl_error(L, KN_ARG, "a tensor has no field '%s' that can be set", name);
}

static int tensor_newindex(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  if (lua_type(L, 2) == LUA_TSTRING) return set_field(L, t);
  kl_check(L, set_elements(L, kl_context(L), t, 2, 3));
  return 0;
}

/* Pushes the function that ipairs gives, or nil where there is no ipairs. */
static void push_ipairs_step(lua_State *L) {
  if (lua_getglobal(L, "ipairs") == LUA_TFUNCTION) {
    lua_newtable(L);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) return;
  }
  lua_pop(L, 1);
  lua_pushnil(L);
}

void kl_open_index(lua_State *L) {
  lua_pushlightuserdata(L, kl_newaxis());
  lua_setfield(L, -2, "newaxis");
  kl_push_tensor_metatable(L);
  kl_push_methods(L);
  lua_getfield(L, -2, "fields");
  push_ipairs_step(L);
  lua_pushcclosure(L, tensor_index, 3);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "__index");
  static const luaL_Reg set[] = {{"__newindex", tensor_newindex}, {NULL, NULL}};
  kl_set_engine_functions(L, set);
  lua_pop(L, 1);
}
