/* Autograd from Lua: backward, grad, grad mode; autocast. The work is the tape's (core/grad). */
#include "bindings/lua/state.h"
#include "core/autocast.h"
#include "core/grad/tape.h"
#include <string.h>

/* Tensors of a table, or the one at idx; borrowed. NULL entries where `holes` are allowed. */
enum { MOST = KN_MAX_INPUTS * 16 };

static int read_tensors(lua_State *L, int idx, const char *name, const char *what, kn_tensor *list[],
                        bool holes) {
  kn_tensor *one = kl_test_tensor(L, idx);
  if (one) {
    list[0] = one;
    return 1;
  }
  if (lua_type(L, idx) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "%s: %s must be a tensor or a table of them, got %s", name, what,
                    kl_kind(L, idx));
  lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
  if (n < 1 || n > MOST)
    return kl_error(L, KN_ARG, "%s: %s must be 1 to %d tensors, not %lld", name, what, MOST, (long long)n);
  for (lua_Integer i = 0; i < n; i++) {
    lua_rawgeti(L, idx, i + 1);
    list[i] = kl_test_tensor(L, -1);
    if (!list[i] && !(holes && lua_type(L, -1) == LUA_TBOOLEAN))
      return kl_error(L, KN_ARG, "%s: entry %lld of %s must be a tensor, got %s", name, (long long)i + 1,
                      what, kl_kind(L, -1));
    lua_pop(L, 1);
  }
  return (int)n;
}

/* ---- backward ---- */

/* The value of option `key`, or nil, on top. */
static bool option(lua_State *L, int idx, const char *key) {
  lua_pushstring(L, key);
  return lua_rawget(L, idx) != LUA_TNIL;
}

static void check_options(lua_State *L, int idx, const char *name, const char *const keys[]) {
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "%s: options must be a table, got %s", name, kl_kind(L, idx));
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int i = 0;
    while (keys[i] && strcmp(keys[i], key)) i++;
    if (!keys[i]) kl_error(L, KN_ARG, "%s: there is no option '%s'", name, key);
    lua_pop(L, 1);
  }
}

/* Bytes that checkpoints of a captured loop may take. The tape has no loops: what it keeps is kept by now. */
static void check_memory(lua_State *L, int idx, const char *name, bool create_graph) {
  bool given = option(L, idx, "memory");
  lua_pop(L, 1);
  if (!given) return;
  lua_Integer bytes = 0;
  if (lua_getfield(L, idx, "memory") == LUA_TNUMBER) bytes = lua_tointeger(L, -1);
  if (bytes < 1)
    kl_error(L, KN_ARG, "%s: option 'memory' must be a whole number of bytes above 0, got %s", name,
             lua_isinteger(L, -1) ? lua_tostring(L, -1) : kl_kind(L, -1));
  if (create_graph) kl_error(L, KN_ARG, "%s: memory and create_graph do not go together", name);
  lua_pop(L, 1);
}

static bool flag(lua_State *L, int idx, const char *key) {
  option(L, idx, key);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

/* y:backward([grad [, {create_graph =, inputs =, memory =, retain_graph =}]]). A graph lives as long as
 * something refers to it, so retain_graph changes nothing. */
static int backward(lua_State *L) {
  static const char *const keys[] = {"create_graph", "inputs", "memory", "retain_graph", NULL};
  kn_tensor *y = kl_check_tensor(L, 1), *g = kl_test_tensor(L, 2), **xs = NULL;
  int options = !g && lua_type(L, 2) == LUA_TTABLE ? 2 : 3, nx = 0;
  bool create_graph = false;
  if (!g && options == 3 && !lua_isnoneornil(L, 2))
    return kl_error(L, KN_ARG, "backward: the gradient must be a tensor, got %s", kl_kind(L, 2));
  if (!lua_isnoneornil(L, options)) {
    check_options(L, options, "backward", keys);
    create_graph = flag(L, options, "create_graph");
    check_memory(L, options, "backward", create_graph);
    if (option(L, options, "inputs")) { /* stays on the stack: it holds what xs borrows */
      xs = lua_newuserdatauv(L, MOST * sizeof(kn_tensor *), 0);
      nx = read_tensors(L, lua_gettop(L) - 1, "backward", "inputs", xs, false);
    }
  }
  kn_context *ctx = kl_context(L);
  lua_State *before = kl_enter_tape(L);
  kl_leave_tape(L, before, kn_backward_into(ctx, &y, 1, &g, xs, nx, create_graph));
  return 0;
}

/* Moves the gradients into `table` (or the one slot) as userdata made before. */
static void give_gradients(lua_State *L, kn_tensor ***slots, kn_tensor **g, int n) {
  for (int i = 0; i < n; i++)
    if (g[i]) kl_put_tensor(slots[i], g[i]);
  kl_tell_collector(L);
}

/* kiln.grad(outputs, inputs, {grad_outputs =, create_graph =, allow_unused =, memory =}): a tensor for a
 * tensor, a table for a table. What does not take part is an error, or false in the table (nil alone) when
 * allow_unused. */
static int grad(lua_State *L) {
  kn_context *ctx = kl_context(L);
  bool create_graph = false, allow_unused = false;
  lua_settop(L, 3);
  size_t room = sizeof(kn_tensor *) * MOST;
  kn_tensor **ys = lua_newuserdatauv(L, 4 * room, 0), **gs = ys + MOST, **xs = gs + MOST, **out = xs + MOST;
  kn_tensor ***slots = lua_newuserdatauv(L, sizeof *slots * MOST, 0);
  int ny = read_tensors(L, 1, "grad", "outputs", ys, false),
      nx = read_tensors(L, 2, "grad", "inputs", xs, false);
  bool has_gs = false;
  if (!lua_isnil(L, 3)) {
    static const char *const keys[] = {"grad_outputs", "create_graph", "allow_unused",
                                       "memory",       "retain_graph", NULL};
    check_options(L, 3, "grad", keys);
    create_graph = flag(L, 3, "create_graph");
    check_memory(L, 3, "grad", create_graph);
    allow_unused = flag(L, 3, "allow_unused");
    if (option(L, 3, "grad_outputs")) {
      has_gs = true;
      if (read_tensors(L, lua_gettop(L), "grad", "grad_outputs", gs, true) != ny)
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
  lua_State *before = kl_enter_tape(L);
  kl_leave_tape(L, before, kn_gradients(ctx, ys, ny, has_gs ? gs : NULL, xs, nx, create_graph, out));
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

typedef struct mode {
  const char *name;
  bool grad, inference;
} mode;

static void need_function(lua_State *L, const char *name) {
  if (lua_type(L, 1) == LUA_TFUNCTION) return;
  if (luaL_getmetafield(L, 1, "__call") == LUA_TNIL)
    kl_error(L, KN_ARG, "%s: a function to call is needed, got %s", name, kl_kind(L, 1));
  lua_pop(L, 1);
}

/* Inside inference mode nothing turns gradients on again. */
static int call_in_mode(lua_State *L, const mode *m) {
  kn_context *ctx = kl_context(L);
  bool grad_before = ctx->grad_enabled, inference_before = ctx->inference;
  need_function(L, m->name);
  ctx->inference |= m->inference;
  ctx->grad_enabled = m->grad && !ctx->inference;
  int st = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  ctx->grad_enabled = grad_before;
  ctx->inference = inference_before;
  if (st != LUA_OK) return lua_error(L);
  return lua_gettop(L);
}

static int no_grad(lua_State *L) { return call_in_mode(L, &(mode){"no_grad", false, false}); }
static int enable_grad(lua_State *L) { return call_in_mode(L, &(mode){"enable_grad", true, false}); }
static int inference_mode(lua_State *L) { return call_in_mode(L, &(mode){"inference_mode", false, true}); }

static int is_grad_enabled(lua_State *L) {
  lua_pushboolean(L, kl_context(L)->grad_enabled);
  return 1;
}

static int set_grad_enabled(lua_State *L) {
  kn_context *ctx = kl_context(L);
  lua_pushboolean(L, ctx->grad_enabled);
  ctx->grad_enabled = lua_toboolean(L, 1) && !ctx->inference;
  return 1;
}

static int is_inference_mode(lua_State *L) {
  lua_pushboolean(L, kl_context(L)->inference);
  return 1;
}

/* t:is_inference(): made in inference mode. */
static int is_inference(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  lua_pushboolean(L, t->storage && t->storage->inference);
  return 1;
}

/* x:requires_grad_([on]) */
static int requires_grad(lua_State *L) {
  bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
  kl_check(L, kn_set_requires_grad(kl_context(L), kl_check_tensor(L, 1), on));
  lua_settop(L, 1);
  return 1;
}

/* ---- autocast ---- */

/* autocast(dtype or false, f, …) */
static int autocast(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const uint8_t before = ctx->autocast;
  uint8_t half = KN_BOOL;
  bool off = lua_type(L, 1) == LUA_TBOOLEAN && !lua_toboolean(L, 1);
  if (!off && !(lua_type(L, 1) == LUA_TSTRING && kn_autocast_parse(lua_tostring(L, 1), &half)))
    return kl_error(L, KN_ARG, KN_AUTOCAST_WANTED ", got %s",
                    lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : kl_kind(L, 1));
  lua_remove(L, 1);
  need_function(L, "autocast");
  ctx->autocast = half;
  int st = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  ctx->autocast = before;
  if (st != LUA_OK) return lua_error(L);
  return lua_gettop(L);
}

static int is_autocast_enabled(lua_State *L) {
  lua_pushboolean(L, kl_context(L)->autocast != KN_BOOL);
  return 1;
}

static int get_autocast_dtype(lua_State *L) {
  const kn_dtype half = (kn_dtype)kl_context(L)->autocast;
  if (half == KN_BOOL)
    lua_pushnil(L);
  else
    lua_pushstring(L, kn_dtype_name(half));
  return 1;
}

void kl_open_autograd(lua_State *L) {
  static const luaL_Reg methods[] = {{"backward", backward},
                                     {"requires_grad_", requires_grad},
                                     {"is_inference", is_inference},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"no_grad", no_grad},
                                       {"enable_grad", enable_grad},
                                       {"inference_mode", inference_mode},
                                       {"is_inference_mode_enabled", is_inference_mode},
                                       {"is_grad_enabled", is_grad_enabled},
                                       {"set_grad_enabled", set_grad_enabled},
                                       {"autocast", autocast},
                                       {NULL, NULL}};
  static const luaL_Reg engine[] = {{"grad", grad},
                                    {"is_autocast_enabled", is_autocast_enabled},
                                    {"get_autocast_dtype", get_autocast_dtype},
                                    {NULL, NULL}};
  kl_set_methods(L, methods, false, false);
  luaL_setfuncs(L, functions, 0);
  kl_set_engine_functions(L, engine);
}
