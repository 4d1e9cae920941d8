/* Host slots from Lua: the functions that kiln.ignore (lua/kiln/ignore.lua) has named, called eagerly, by
 * sessions, and put into graphs that are being traced or built. */
#include "bindings/lua/emit.h"
#include "bindings/lua/graph_parts.h"
#include "graph/host.h"
#include <stdio.h>
#include <string.h>

static const char hosts_key; /* registry: functions by name */

/* ---- sessions call ---- */

typedef struct host_call { /* one call on its way through lua_pcall */
  const char *name;
  const kn_rvalue *in;
  kn_rvalue *out;
  uint32_t nin, nout;
} host_call;

static void push(lua_State *L, const kn_rvalue *v) {
  if (v->tensor)
    kl_push_tensor(L, kn_tensor_retain(v->tensor));
  else
    kl_push_scalar(L, &v->scalar);
}

static int protected_host(lua_State *L) {
  const host_call *c = lua_touserdata(L, 1);
  luaL_checkstack(L, (int)(c->nin + c->nout) + 10, "host call");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &hosts_key);
  if (lua_getfield(L, -1, c->name) == LUA_TNIL)
    return kl_error(L, KN_STATE,
                    "host function '%s' is not bound: kiln.ignore(f, { name = \"%s\" }) binds it", c->name,
                    c->name);
  for (uint32_t i = 0; i < c->nin; i++) push(L, &c->in[i]);
  lua_call(L, (int)c->nin, (int)c->nout);
  int first = lua_gettop(L) - (int)c->nout + 1;
  for (uint32_t i = 0; i < c->nout; i++) {
    kn_rvalue v = {.tensor = kl_test_tensor(L, first + (int)i)};
    if (!v.tensor && !kl_test_scalar(L, first + (int)i, &v.scalar))
      return kl_error(L, KN_ARG,
                      "host function '%s': result %d is %s; tensors, numbers and booleans can be given",
                      c->name, (int)i + 1, kl_kind(L, first + (int)i));
    c->out[i] = v;
  }
  for (uint32_t i = 0; i < c->nout; i++)
    if (c->out[i].tensor) kn_tensor_retain(c->out[i].tensor);
  return 0;
}

static kn_status call_host(void *ud, kn_context *ctx, const char *name, const kn_rvalue *in, uint32_t nin,
                           kn_rvalue *out, uint32_t nout) {
  lua_State *L = ud;
  host_call c = {name, in, out, nin, nout};
  kn_context *own = kl_context(L);
  bool grad = own->grad_enabled;
  kn_recorder *recorder = own->recorder;
  own->grad_enabled = false;
  own->recorder = NULL;
  int top = lua_gettop(L), rc = LUA_ERRMEM;
  if (lua_checkstack(L, 4)) {
    lua_pushcfunction(L, protected_host);
    lua_pushlightuserdata(L, &c);
    rc = lua_pcall(L, 1, 0, 0);
  }
  own->grad_enabled = grad;
  own->recorder = recorder;
  kn_status st = KN_OK;
  if (rc != LUA_OK) {
    const char *text = lua_gettop(L) > top ? lua_tostring(L, -1) : "out of memory";
    st = kn_fail(ctx, KN_RAISED, "%s", text ? text : "host function: an error that is no text");
    ctx->error_placed = true;
    for (uint32_t i = 0; i < nout; i++) out[i] = (kn_rvalue){0};
  }
  lua_settop(L, top);
  return st;
}

void kl_offer_hosts(lua_State *L, kn_session *s) { kn_session_set_host(s, call_host, L); }

/* ---- the program calls ---- */

static int is_type(lua_State *L, int self) { /* pushes the list of results; its length */
  if (lua_type(L, self) != LUA_TTABLE || lua_getfield(L, self, "results") != LUA_TTABLE)
    kl_error(L, KN_ARG, "call_host: an ignored function is needed, got %s", kl_kind(L, self));
  return (int)lua_rawlen(L, -1);
}

/* The function itself, without gradients; the results it is to have. */
static int call_now(lua_State *L, int n) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "kiln");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "no_grad");
  lua_replace(L, -2);
  lua_getfield(L, 1, "f");
  lua_replace(L, 1);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, n);
  return n;
}

/* In a graph that is being written: the node, and what it gives. */
static int emit_call(lua_State *L, kl_emitter *e, int args, int list, int n) {
  kn_value *in[KN_HOST_VALUES];
  kn_vtype types[KN_HOST_VALUES];
  kn_context *ctx = kl_context(L);
  lua_getfield(L, 1, "name");
  const char *name = lua_tostring(L, -1);
  if (args > KN_HOST_VALUES || n > KN_HOST_VALUES)
    return kl_error(L, KN_LIMIT, "'%s': more than %d values", name, KN_HOST_VALUES);
  for (int i = 0; i < args; i++) {
    kn_scalar s;
    kn_tensor *t = kl_test_tensor(L, 2 + i);
    if (!t && !kl_test_scalar(L, 2 + i, &s))
      return kl_error(L, KN_ARG,
                      "the ignored function '%s' is called with %s; it can be given tensors, numbers and "
                      "booleans",
                      name, kl_kind(L, 2 + i));
    in[i] = t ? e->value(e->ud, t) : kn_add_const(e->b, s);
    kl_check(L, e->b->status);
  }
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, list, i + 1);
    if (!lua_isstring(L, -1) || !kn_host_type(e->b, lua_tostring(L, -1), &types[i]))
      return kl_error(L, KN_ARG, "'%s': results are not types", name);
    lua_pop(L, 1);
  }
  kn_node *made = kn_add_host_call(e->b, name, in, (uint32_t)args, types, (uint32_t)n);
  if (!made) kl_check(L, e->b->status);
  if (!e->define) {
    for (int i = 0; i < n; i++) kl_push_graph_value(L, ctx, made->out[i]);
    return n;
  }
  lua_settop(L, 1 + args);
  kn_recorder *recorder = ctx->recorder;
  lua_getfield(L, 1, "f");
  lua_replace(L, 1);
  bool grad = ctx->grad_enabled;
  ctx->recorder = NULL;
  ctx->grad_enabled = false;
  int rc = lua_pcall(L, args, n, 0);
  ctx->recorder = recorder;
  ctx->grad_enabled = grad;
  if (rc != LUA_OK) return lua_error(L);
  for (int i = 1; i <= n; i++) {
    kn_tensor *t = kl_test_tensor(L, i), *copy;
    if (!t)
      return kl_error(L, KN_CAPTURE,
                      "an ignored function gives %s; a traced function can keep only tensors of it",
                      kl_kind(L, i));
    kn_tensor **slot = kl_reserve_tensor(L);
    ctx->recorder = NULL;
    kn_status st = kn_apply(ctx, KN_OP_clone, NULL, &t, 1, &copy);
    ctx->recorder = recorder;
    kl_check(L, st);
    kl_put_tensor(slot, copy);
    kl_check(L, e->define(e->ud, copy, made->out[i - 1]));
    lua_replace(L, i);
  }
  return n;
}

/* kiln.call_host(ignored, …): what calling it does. Capture knows this function and makes a node of the call.
 */
static int ignored_call(lua_State *L) {
  int args = lua_gettop(L) - 1;
  kl_emitter e;
  int n = is_type(L, 1), list = lua_gettop(L);
  if (kl_find_emitter(L, 2, 1 + args, &e)) return emit_call(L, &e, args, list, n);
  lua_settop(L, 1 + args);
  return call_now(L, n);
}

/* tracer.name_of(f): "model_12", where it is defined. */
static int name_of(lua_State *L) {
  lua_Debug ar;
  char text[96];
  lua_settop(L, 1);
  lua_getinfo(L, ">S", &ar);
  const char *slash = strrchr(ar.short_src, '/');
  snprintf(text, sizeof text, "%.60s", slash ? slash + 1 : ar.short_src);
  char *dot = strstr(text, ".lua");
  if (dot) *dot = 0;
  for (char *p = text; *p; p++)
    if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9'))) *p = '_';
  lua_pushfstring(L, "%s_%d", text, ar.linedefined);
  return 1;
}

void kl_open_host(lua_State *L) { /* kiln.tracer is there */
  static const luaL_Reg functions[] = {{"call_host", ignored_call}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_getfield(L, -1, "tracer");
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &hosts_key);
  lua_setfield(L, -2, "hosts");
  lua_pushcfunction(L, name_of);
  lua_setfield(L, -2, "name_of");
  lua_pop(L, 1);
}
