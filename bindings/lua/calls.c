/* kiln_lua.h: calls of the host into Lua. Each runs a body under lua_pcall, which may raise whatever it
 * wants; what was raised becomes a status, a sentence in the context and a report with a traceback. */
#include "bindings/c/handle.h"
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/kiln_lua.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

static const char texts_key; /* registry: the strings that kiln_lua_call gave last */

/* ---- reports ---- */

/* The sentence stands in the context; without memory for more it must do. */
static void keep_report(kl_state *s, const char *text, size_t n) {
  kl_calls *c = &s->calls;
  kn_free(s->ctx->heap, c->report, c->room);
  c->room = n + 1;
  c->report = text ? kn_alloc(s->ctx->heap, c->room) : NULL;
  if (c->report) memcpy(c->report, text, c->room);
  c->failed = true;
}

/* ---- limits ---- */

enum { COUNTED = 128 }; /* instructions between looks */

static int count_for(const kl_calls *c) { return c->limit < COUNTED ? (int)c->limit : COUNTED; }

/* Raised once, it is raised at every instruction, and as Lua's out-of-memory error: that calls no message
 * handler, which would run without hooks, as this one does, and for as long as it wants. */
static void look(lua_State *L, lua_Debug *ar) {
  kl_state *s = kl_find_state(L);
  (void)ar;
  if (!s || !s->ctx || !s->calls.depth || !s->calls.limit) return;
  kl_calls *c = &s->calls;
  int counted = lua_gethookcount(L);
  c->used += (uint64_t)counted;
  if (c->used < c->limit) {
    if (counted != count_for(c)) lua_sethook(L, look, LUA_MASKCOUNT, count_for(c));
    return;
  }
  c->spent = true;
  lua_sethook(L, look, LUA_MASKCOUNT, 1);
  if (!c->told) {
    c->told = true;
    kl_push_where(L);
    lua_pushfstring(L, "%sthe limit of %I instructions was reached", lua_tostring(L, -1),
                    (LUAI_UACINT)c->limit);
    luaL_traceback(L, L, lua_tostring(L, -1), 0);
    size_t n;
    const char *text = lua_tolstring(L, -1, &n);
    keep_report(s, text, n);
  }
  s->boxes->deny = 2; /* Lua asks again when it has collected its garbage */
  lua_newuserdatauv(L, 1, 0);
}

kn_status kl_count_step(kl_state *s) {
  kl_calls *c = &s->calls;
  if (!c->depth || !c->limit || ++c->used < c->limit) return KN_OK;
  c->spent = true;
  return KN_LIMIT;
}

void kiln_lua_limit_instructions(lua_State *L, uint64_t instructions) {
  kl_state *s = kl_find_state(L);
  if (!s) return;
  s->calls.limit = instructions;
  if (instructions)
    lua_sethook(L, look, LUA_MASKCOUNT, count_for(&s->calls));
  else if (lua_gethook(L) == look)
    lua_sethook(L, NULL, 0, 0);
}

/* ---- what was raised ---- */

void kl_close_calls(kl_state *s) { keep_report(s, NULL, 0); }

static bool ends_with(const char *text, size_t n, const char *end) {
  size_t m = strlen(end);
  return m && m <= n && !memcmp(text + n - m, end, m);
}

/* The message handler: what kiln itself raised ends with its context's sentence. */
static int explain(lua_State *L) {
  kl_state *s = kl_find_state(L);
  size_t n;
  const char *text = lua_tolstring(L, 1, &n);
  if (!text) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
      text = lua_tolstring(L, -1, &n);
    else
      text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  if (s && s->ctx && ends_with(text, n, kn_error(s->ctx))) s->calls.status = s->ctx->error_status;
  if (s && !strcmp(text, "not enough memory")) s->calls.status = KN_NOMEM; /* of Lua's string buffers */
  luaL_traceback(L, L, text, 1);
  return 1;
}

/* The value on top becomes the report; pops it. */
static kiln_status report(lua_State *L, kl_state *s, int rc) {
  kl_calls *c = &s->calls;
  kn_status st = c->spent ? KN_LIMIT : rc == LUA_ERRMEM ? KN_NOMEM : c->status;
  size_t n = 0;
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : "";
  if (!c->told || rc != LUA_ERRMEM) keep_report(s, text, n);
  if (c->report) text = c->report;
  const char *end = strstr(text, "\nstack traceback:");
  kn_fail(s->ctx, st, "%.*s", end ? (int)(end - text) : KN_ERROR_SIZE, text);
  lua_pop(L, 1);
  if (st == KN_NOMEM) kl_collect(s);
  return outside(st);
}

const char *kiln_lua_error(lua_State *L) {
  const kl_state *s = kl_find_state(L);
  if (!s || !s->ctx) return "kiln is not open in this Lua state";
  return s->calls.report ? s->calls.report : s->calls.failed ? kn_error(s->ctx) : "";
}

kiln_context *kiln_lua_context(lua_State *L) {
  const kl_state *s = kl_find_state(L);
  return s ? (kiln_context *)s->ctx : NULL;
}

/* ---- protected ---- */

static kiln_status fail(kl_state *s, kn_status st, const char *why) {
  keep_report(s, NULL, 0);
  return outside(kn_fail(s->ctx, st, "%s", why));
}

/* Calls body(arg, what lies above `base`): in its place are the results, or, on failure, nothing. */
static kiln_status protect(lua_State *L, int base, lua_CFunction body, void *arg, int nresults) {
  kl_state *s = kl_find_state(L);
  bool usable = s && kl_usable(s);
  if (!usable || !lua_checkstack(L, LUA_MINSTACK)) {
    lua_settop(L, base);
    return usable ? fail(s, KN_NOMEM, "out of memory: no room on the Lua stack") : KILN_STATE;
  }
  kl_calls *c = &s->calls;
  int nargs = lua_gettop(L) - base;
  lua_pushcfunction(L, explain);
  lua_pushcfunction(L, body);
  lua_pushlightuserdata(L, arg);
  lua_rotate(L, base + 1, 3);
  if (!c->depth++) {
    c->used = 0;
    c->spent = c->told = false;
  }
  c->status = KN_RAISED;
  int rc = lua_pcall(L, nargs + 1, nresults, base + 1);
  c->depth--;
  lua_remove(L, base + 1);
  kiln_status st = rc == LUA_OK ? KILN_OK : report(L, s, rc);
  if (!c->depth) kl_bury(s);
  return st;
}

/* ---- chunks and functions ---- */

typedef struct chunk {
  const char *text, *name; /* text NULL: a file */
  size_t length;
  int nresults;
} chunk;

static int run_chunk(lua_State *L) {
  const chunk *c = lua_touserdata(L, 1);
  int rc;
  lua_settop(L, 0);
  if (c->text)
    rc = luaL_loadbufferx(L, c->text, c->length, lua_pushfstring(L, "=%s", c->name), "t");
  else
    rc = luaL_loadfilex(L, c->name, "t");
  if (rc == LUA_ERRMEM) return lua_error(L);
  if (rc != LUA_OK) return kl_error(L, rc == LUA_ERRSYNTAX ? KN_FORMAT : KN_IO, "%s", lua_tostring(L, -1));
  lua_insert(L, 1);
  lua_settop(L, 1);
  lua_call(L, 0, c->nresults);
  return lua_gettop(L);
}

kiln_status kiln_lua_run(lua_State *L, const char *text, size_t length, const char *name, int nresults) {
  return protect(L, lua_gettop(L), run_chunk, &(chunk){text, name, length, nresults}, nresults);
}

kiln_status kiln_lua_run_file(lua_State *L, const char *path, int nresults) {
  return protect(L, lua_gettop(L), run_chunk, &(chunk){NULL, path, 0, nresults}, nresults);
}

static int call_value(lua_State *L) {
  int nresults = *(const int *)lua_touserdata(L, 1);
  lua_remove(L, 1);
  lua_call(L, lua_gettop(L) - 1, nresults);
  return lua_gettop(L);
}

kiln_status kiln_lua_pcall(lua_State *L, int nargs, int nresults) {
  return protect(L, lua_gettop(L) - nargs - 1, call_value, &nresults, nresults);
}

/* ---- tensors ---- */

/* A handle of its own: what autograd does with one is not seen by the other. */
static void push_alias(lua_State *L, kn_tensor *t) {
  kn_tensor *alias;
  kl_check(L, kn_tensor_alias(kl_context(L), t, &alias));
  kl_push_tensor(L, alias);
}

static kn_status fetch(kn_context *ctx, kn_tensor *t, kiln_tensor **out) {
  kn_tensor *alias;
  KN_TRY(kn_tensor_alias(ctx, t, &alias));
  *out = (kiln_tensor *)alias;
  return KN_OK;
}

/* Raises unless it has elements. */
static kn_tensor *look_at(lua_State *L, int idx, const char *what) {
  kn_tensor *t = kl_test_tensor(L, idx);
  if (!t) kl_error(L, KN_ARG, "%s: a tensor is needed, got %s", what, kl_kind(L, idx));
  kl_check(L, kn_read_data(kl_context(L), t));
  if (!t->storage)
    kl_error(L, KN_STATE, "%s: the elements of this tensor are known only when the graph runs", what);
  return t;
}

static int push_tensor(lua_State *L) {
  push_alias(L, lua_touserdata(L, 1));
  return 1;
}

kiln_status kiln_lua_push_tensor(lua_State *L, kiln_tensor *t) {
  return protect(L, lua_gettop(L), push_tensor, core_tensor(t), 1);
}

static int to_tensor(lua_State *L) {
  kl_check(L, fetch(kl_context(L), look_at(L, 2, "to_tensor"), lua_touserdata(L, 1)));
  return 0;
}

/* protect, with copies of the values at some indices (0: none) as arguments. */
static kiln_status protect_with(lua_State *L, lua_CFunction body, void *arg, int a, int b) {
  int base = lua_gettop(L);
  if (lua_checkstack(L, 2)) { /* if not, protect says so */
    a = a ? lua_absindex(L, a) : 0;
    b = b ? lua_absindex(L, b) : 0;
    if (a) lua_pushvalue(L, a);
    if (b) lua_pushvalue(L, b);
  }
  return protect(L, base, body, arg, 0);
}

kiln_status kiln_lua_to_tensor(lua_State *L, int index, kiln_tensor **out) {
  return protect_with(L, to_tensor, out, index, 0);
}

/* ---- calls with values ---- */

typedef struct call {
  const char *name;
  const kiln_value *args;
  kiln_value *results;
  int nargs, nresults;
} call;

/* a.b.c: of the globals, or of the modules that are loaded. */
static void push_named(lua_State *L, const char *name) {
  const char *at = name;
  for (int part = 0;; part++) {
    size_t n = strcspn(at, ".");
    lua_pushlstring(L, at, n);
    if (!part) {
      lua_pushglobaltable(L);
      lua_pushvalue(L, -2);
      if (lua_gettable(L, -2) == LUA_TNIL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        lua_pushvalue(L, -4);
        lua_gettable(L, -2);
      }
    } else {
      if (lua_type(L, -2) != LUA_TTABLE && lua_type(L, -2) != LUA_TUSERDATA)
        kl_error(L, KN_ARG, "call: there is no '%s': '%.*s' is %s", name, (int)(at - name - 1), name,
                 kl_kind(L, -2));
      lua_gettable(L, -2);
    }
    if (!at[n]) break;
    at += n + 1;
  }
  if (lua_isnil(L, -1)) kl_error(L, KN_ARG, "call: there is no '%s'", name);
}

static void push_value(lua_State *L, const kiln_value *v, int i) {
  switch (v->kind) {
  case KILN_NIL: lua_pushnil(L); return;
  case KILN_TENSOR: push_alias(L, core_tensor(v->tensor)); return;
  case KILN_INTEGER: lua_pushinteger(L, v->i); return;
  case KILN_FLOAT: lua_pushnumber(L, v->f); return;
  case KILN_BOOLEAN: lua_pushboolean(L, v->b); return;
  case KILN_STRING: lua_pushlstring(L, v->text ? v->text : "", v->text ? v->length : 0); return;
  case KILN_NUMBER: break;
  }
  kl_error(L, KN_ARG, "call: argument %d is of kind %d, which no value has", i, (int)v->kind);
}

/* Tensors are told apart from the rest only: they are fetched when nothing can be raised any more. */
static void read_value(lua_State *L, int idx, int i, kiln_value *v) {
  char what[32];
  switch (lua_type(L, idx)) {
  case LUA_TNIL: return;
  case LUA_TBOOLEAN: *v = (kiln_value){.kind = KILN_BOOLEAN, .b = lua_toboolean(L, idx)}; return;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx))
      *v = (kiln_value){.kind = KILN_INTEGER, .i = lua_tointeger(L, idx)};
    else
      *v = (kiln_value){.kind = KILN_FLOAT, .f = lua_tonumber(L, idx)};
    return;
  case LUA_TSTRING:
    v->kind = KILN_STRING;
    v->text = lua_tolstring(L, idx, &v->length);
    return;
  default: break;
  }
  if (!kl_test_tensor(L, idx))
    kl_error(L, KN_ARG, "call: result %d is %s, which is no value of C; push and fetch it with Lua's API", i,
             kl_kind(L, idx));
  snprintf(what, sizeof what, "call: result %d", i);
  look_at(L, idx, what);
  v->kind = KILN_TENSOR;
}

/* The results at [first, first + n) become values: all or none. */
static void give_values(lua_State *L, int first, int n, kiln_value *out) {
  kiln_value *v = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *v, 0);
  memset(v, 0, (size_t)(n + 1) * sizeof *v);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    read_value(L, first + i, i + 1, &v[i]);
    lua_pushvalue(L, first + i);
    lua_rawseti(L, -2, i + 1); /* holds the strings */
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &texts_key);
  kn_status st = KN_OK;
  int done = 0;
  for (; done < n && st == KN_OK; done++)
    if (v[done].kind == KILN_TENSOR) {
      v[done].kind = KILN_NIL;
      st = fetch(kl_context(L), kl_test_tensor(L, first + done), &v[done].tensor);
      if (st == KN_OK) v[done].kind = KILN_TENSOR;
    }
  for (int i = 0; st != KN_OK && i < done; i++) kiln_value_clear(&v[i]);
  kl_check(L, st);
  if (n) memcpy(out, v, (size_t)n * sizeof *v);
}

static int call_named(lua_State *L) {
  const call *c = lua_touserdata(L, 1);
  luaL_checkstack(L, c->nargs + c->nresults + LUA_MINSTACK, "too many arguments or results");
  push_named(L, c->name);
  int f = lua_gettop(L);
  for (int i = 0; i < c->nargs; i++) push_value(L, &c->args[i], i + 1);
  lua_call(L, c->nargs, c->nresults);
  give_values(L, f, c->nresults, c->results);
  return 0;
}

kiln_status kiln_lua_call(lua_State *L, const char *name, const kiln_value *args, int nargs,
                          kiln_value *results, int nresults) {
  call c = {name, args, results, nargs, nresults};
  kl_state *s = kl_find_state(L);
  if (s && kl_usable(s) && (nargs < 0 || nresults < 0))
    return fail(s, KN_ARG, "call: numbers of arguments and results are not below 0");
  return protect(L, lua_gettop(L), call_named, &c, 0);
}

/* ---- graphs ---- */

static int push_graph(lua_State *L) {
  const kiln_graph *g = lua_touserdata(L, 1);
  kl_graph *object = kl_push_graph(L);
  kl_add_variant(L, object, kn_graph_retain(g->graph), NULL);
  return 1;
}

kiln_status kiln_lua_push_graph(lua_State *L, kiln_graph *g) {
  return protect(L, lua_gettop(L), push_graph, g, 1);
}

/* Lua goes on writing to the tensors that the slots have. */
static kn_status part_from_lua(kn_context *ctx, kn_graph *g) {
  bool grad = ctx->grad_enabled;
  kn_status st = KN_OK;
  ctx->grad_enabled = false;
  for (uint32_t i = 0; i < g->nslots && st == KN_OK; i++) {
    kn_slot *slot = g->slots[i];
    kn_tensor *copy;
    if (slot->type.kind != KN_V_TENSOR) continue;
    st = kn_apply(ctx, KN_OP_clone, NULL, &slot->tensor, 1, &copy);
    if (st != KN_OK) break;
    kn_tensor_release(slot->tensor);
    slot->tensor = copy;
  }
  ctx->grad_enabled = grad;
  return st;
}

static void fetch_graph(lua_State *L, int idx, const char *name, kiln_graph **out) {
  kn_context *ctx = kl_context(L);
  if (!kl_test_graph(L, idx)) kl_error(L, KN_ARG, "%s: a Graph is needed, got %s", name, kl_kind(L, idx));
  kl_variant *v = kl_newest_variant(L, idx);
  bool shared =
      !v->graph->nslots || (!v->live && !v->places && !v->session); /* nothing to be told apart by */
  kl_check_storable(L, v, name);
  kn_graph *g = shared ? kn_graph_retain(v->graph) : kl_graph_now(L, v, name);
  kn_status st = shared ? KN_OK : part_from_lua(ctx, g);
  if (st == KN_OK) st = kiln_graph_wrap(ctx, g, out);
  kn_graph_release(g);
  kl_check(L, st);
}

static int to_graph(lua_State *L) {
  fetch_graph(L, 2, "to_graph", lua_touserdata(L, 1));
  return 0;
}

kiln_status kiln_lua_to_graph(lua_State *L, int index, kiln_graph **out) {
  return protect_with(L, to_graph, out, index, 0);
}

typedef struct script {
  const char *specs;
  kiln_graph **out;
} script;

static int capture(lua_State *L) {
  const script *s = lua_touserdata(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "kiln") != LUA_TTABLE)
    return kl_error(L, KN_STATE, "script: the module kiln is not loaded");
  int module = lua_gettop(L);
  if (s->specs) {
    lua_settop(L, module);
    const char *text = lua_pushfstring(L, "local kiln = ... return {%s}", s->specs);
    if (luaL_loadbufferx(L, text, strlen(text), "=specs", "t") != LUA_OK)
      return kl_error(L, KN_FORMAT, "script: %s", lua_tostring(L, -1));
    lua_pushvalue(L, module);
    lua_call(L, 1, 1);
  } else
    lua_pushvalue(L, 3);
  int inputs = lua_gettop(L);
  lua_getfield(L, module, "script");
  lua_pushvalue(L, 2);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, inputs);
  lua_setfield(L, -2, "inputs");
  lua_call(L, 2, 1);
  if (!kl_test_graph(L, -1))
    return kl_error(L, KN_UNSUPPORTED, "script: KILN_CAPTURE=0: functions run eagerly and there is no graph");
  fetch_graph(L, lua_gettop(L), "script", s->out);
  return 0;
}

kiln_status kiln_lua_script(lua_State *L, int function, const char *specs, int table, kiln_graph **out) {
  return protect_with(L, capture, &(script){specs, out}, function, specs ? 0 : table);
}
