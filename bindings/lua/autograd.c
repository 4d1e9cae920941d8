/* Autograd from Lua: backward, grad, grad mode. The work is the tape's (core/grad). */
#include "bindings/lua/state.h"
#include "core/grad/tape.h"
#include <string.h>

/* A boolean option of a table that may be missing; unknown keys are an error. */
static bool read_flags(lua_State *L, int idx, const char *name, const char *const keys[], bool values[]) {
  if (lua_isnoneornil(L, idx)) return true;
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "%s: options must be a table, got %s", name, kl_kind(L, idx));
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int i = 0;
    while (keys[i] && strcmp(keys[i], key)) i++;
    if (!keys[i]) kl_error(L, KN_ARG, "%s: there is no option '%s'", name, key);
    values[i] = lua_toboolean(L, -1);
    lua_pop(L, 1);
  }
  return true;
}

/* y:backward([grad [, {create_graph =}]]) */
static int backward(lua_State *L) {
  static const char *const keys[] = {"create_graph", NULL};
  bool flags[] = {false};
  kn_tensor *y = kl_check_tensor(L, 1), *g = kl_test_tensor(L, 2);
  bool options_second = !g && lua_type(L, 2) == LUA_TTABLE;
  if (!g && !options_second && !lua_isnoneornil(L, 2))
    return kl_error(L, KN_ARG, "backward: the gradient must be a tensor, got %s", kl_kind(L, 2));
  read_flags(L, options_second ? 2 : 3, "backward", keys, flags);
  kl_check(L, kn_backward(kl_context(L), y, g, flags[0]));
  return 0;
}

/* Tensors of a table, or the one at idx; borrowed. NULL entries where `holes` are allowed. */
static int read_tensors(lua_State *L, int idx, const char *what, kn_tensor *list[], bool holes) {
  kn_tensor *one = kl_test_tensor(L, idx);
  if (one) {
    list[0] = one;
    return 1;
  }
  if (lua_type(L, idx) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "grad: %s must be a tensor or a table of them, got %s", what, kl_kind(L, idx));
  lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
  if (n < 1 || n > KN_MAX_INPUTS * 16)
    return kl_error(L, KN_ARG, "grad: %s must be 1 to %d tensors, not %lld", what, KN_MAX_INPUTS * 16,
                    (long long)n);
  for (lua_Integer i = 0; i < n; i++) {
    lua_rawgeti(L, idx, i + 1);
    list[i] = kl_test_tensor(L, -1);
    if (!list[i] && !(holes && lua_type(L, -1) == LUA_TBOOLEAN))
      return kl_error(L, KN_ARG, "grad: entry %lld of %s must be a tensor, got %s", (long long)i + 1, what,
                      kl_kind(L, -1));
    lua_pop(L, 1);
  }
  return (int)n;
}

/* Moves the gradients into `table` (or the one slot) as userdata made before. */
static void give_gradients(lua_State *L, kn_tensor ***slots, kn_tensor **g, int n) {
  for (int i = 0; i < n; i++)
    if (g[i]) kl_put_tensor(slots[i], g[i]);
  kl_tell_collector(L);
}

/* kiln.grad(outputs, inputs, {grad_outputs =, create_graph =, allow_unused =}): a tensor for a tensor, a
 * table for a table. What does not take part is an error, or false in the table (nil alone) when
 * allow_unused. */
static int grad(lua_State *L) {
  kn_context *ctx = kl_context(L);
  enum { MOST = KN_MAX_INPUTS * 16 };
  bool create_graph = false, allow_unused = false;
  lua_settop(L, 3);
  size_t room = sizeof(kn_tensor *) * MOST;
  kn_tensor **ys = lua_newuserdatauv(L, 4 * room, 0), **gs = ys + MOST, **xs = gs + MOST, **out = xs + MOST;
  kn_tensor ***slots = lua_newuserdatauv(L, sizeof *slots * MOST, 0);
  int ny = read_tensors(L, 1, "outputs", ys, false), nx = read_tensors(L, 2, "inputs", xs, false);
  bool has_gs = false;
  if (!lua_isnil(L, 3)) {
    luaL_argexpected(L, lua_istable(L, 3), 3, "table");
    lua_pushliteral(L, "create_graph");
    lua_rawget(L, 3);
    create_graph = lua_toboolean(L, -1);
    lua_pushliteral(L, "allow_unused");
    lua_rawget(L, 3);
    allow_unused = lua_toboolean(L, -1);
    lua_pop(L, 2);
    lua_pushliteral(L, "grad_outputs");
    if (lua_rawget(L, 3) != LUA_TNIL) {
      has_gs = true;
      if (read_tensors(L, lua_gettop(L), "grad_outputs", gs, true) != ny)
        return kl_error(L, KN_ARG, "grad: as many grad_outputs as outputs are needed");
    } /* stays on the stack: it holds what gs borrows */
  }
  bool single = kl_test_tensor(L, 2) != NULL;
  if (single)
    slots[0] = kl_reserve_tensor(L);
  else
    lua_createtable(L, nx, 0);
  for (int i = 0; !single && i < nx; i++) {
    slots[i] = kl_reserve_tensor(L);
    lua_rawseti(L, -2, i + 1);
  }
  kl_check(L, kn_gradients(ctx, ys, ny, has_gs ? gs : NULL, xs, nx, create_graph, out));
  give_gradients(L, slots, out, nx);
  for (int i = 0; i < nx; i++) {
    if (out[i]) continue;
    if (!allow_unused)
      return kl_error(L, KN_STATE,
                      "grad: input %d takes no part in the outputs (allow_unused = true gives %s for it)",
                      i + 1, single ? "nil" : "false");
    if (single) return 0;
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* ---- grad mode ---- */

static int call_in_mode(lua_State *L, bool on) {
  kn_context *ctx = kl_context(L);
  bool before = ctx->grad_enabled;
  if (lua_type(L, 1) != LUA_TFUNCTION) {
    if (luaL_getmetafield(L, 1, "__call") == LUA_TNIL)
      return kl_error(L, KN_ARG, "%s: a function to call is needed, got %s", on ? "enable_grad" : "no_grad",
                      kl_kind(L, 1));
    lua_pop(L, 1);
  }
  ctx->grad_enabled = on;
  int st = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  ctx->grad_enabled = before;
  if (st != LUA_OK) return lua_error(L);
  return lua_gettop(L);
}

static int no_grad(lua_State *L) { return call_in_mode(L, false); }
static int enable_grad(lua_State *L) { return call_in_mode(L, true); }

static int is_grad_enabled(lua_State *L) {
  lua_pushboolean(L, kl_context(L)->grad_enabled);
  return 1;
}

static int set_grad_enabled(lua_State *L) {
  kn_context *ctx = kl_context(L);
  lua_pushboolean(L, ctx->grad_enabled);
  ctx->grad_enabled = lua_toboolean(L, 1);
  return 1;
}

/* x:requires_grad_([on]) */
static int requires_grad(lua_State *L) {
  bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
  kl_check(L, kn_set_requires_grad(kl_context(L), kl_check_tensor(L, 1), on));
  lua_settop(L, 1);
  return 1;
}

void kl_open_autograd(lua_State *L) {
  static const luaL_Reg methods[] = {{"backward", backward}, {"requires_grad_", requires_grad}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"no_grad", no_grad},
                                       {"enable_grad", enable_grad},
                                       {"is_grad_enabled", is_grad_enabled},
                                       {"set_grad_enabled", set_grad_enabled},
                                       {NULL, NULL}};
  static const luaL_Reg engine[] = {{"grad", grad}, {NULL, NULL}};
  kl_set_methods(L, methods, false, false);
  luaL_setfuncs(L, functions, 0);
  kl_set_engine_functions(L, engine);
}
