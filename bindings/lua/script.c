/* kiln.script, kiln.spec, kiln.is_capturing: the Lua side of capture. Capture itself is lua/capture; Graph
 * objects and running them are graph.c. */
#include "bindings/lua/args.h"
#include "bindings/lua/emit.h"
#include "bindings/lua/graph_parts.h"
#include "core/device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- specs ---- */

static const char spec_key, eager_key; /* registry keys of the metatables */

enum { NAME = 48 };
typedef struct spec {
  kn_vtype type;
  char names[KN_MAX_RANK][NAME]; /* "" where the size is a number */
} spec;

static spec *test_spec(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx)) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &spec_key);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? lua_touserdata(L, idx) : NULL;
}

static bool is_name(const char *s) {
  if (!*s || strlen(s) >= NAME || (*s >= '0' && *s <= '9')) return false;
  for (; *s; s++)
    if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '_'))
      return false;
  return true;
}

static void read_size(lua_State *L, spec *s, int dim) { /* the size is on top */
  if (lua_type(L, -1) == LUA_TSTRING) {
    const char *name = lua_tostring(L, -1);
    if (!is_name(name))
      kl_error(L, KN_ARG, "spec: size %d is '%s'; a named size is a short identifier", dim + 1, name);
    snprintf(s->names[dim], NAME, "%s", name);
    s->type.tensor.dims[dim] = KN_DIM_UNKNOWN;
    return;
  }
  int whole;
  lua_Integer n = lua_tointegerx(L, -1, &whole);
  if (lua_type(L, -1) != LUA_TNUMBER || !whole || n < 0)
    kl_error(L, KN_ARG, "spec: size %d must be a whole number or a name, got %s", dim + 1, kl_kind(L, -1));
  s->type.tensor.dims[dim] = n;
}

/* kiln.spec(dtype, {sizes} [, {device = "cpu"}]): the type of an argument; a string among the sizes is a
 * named size.
 */
static int make_spec(lua_State *L) {
  kn_dtype dtype;
  const char *name = kl_check_text(L, 1, "spec", "a dtype such as \"float32\"", NULL);
  if (!kn_dtype_parse(name, &dtype)) return kl_error(L, KN_ARG, "spec: there is no dtype '%s'", name);
  kn_device_id device = KN_CPU;
  if (lua_type(L, 3) == LUA_TTABLE) {
    if (lua_getfield(L, 3, "device") != LUA_TNIL)
      kl_check(L, kl_read_device(L, kl_context(L), -1, "spec", &device));
  } else if (!lua_isnoneornil(L, 3))
    return kl_error(L, KN_ARG, "spec: options must be a table, got %s", kl_kind(L, 3));
  if (lua_isnoneornil(L, 2)) lua_settop(L, 1), lua_newtable(L);
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "spec: sizes must be a table such as {\"N\", 10}, got %s", kl_kind(L, 2));
  size_t rank = lua_rawlen(L, 2);
  if (rank > KN_MAX_RANK) return kl_error(L, KN_ARG, "spec: more than %d sizes", KN_MAX_RANK);
  spec *s = lua_newuserdatauv(L, sizeof *s, 0);
  *s =
      (spec){.type = {.kind = KN_V_TENSOR,
                      .tensor = {.dtype = (uint8_t)dtype, .device = (uint8_t)device, .rank = (uint8_t)rank}}};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &spec_key);
  lua_setmetatable(L, -2);
  for (int i = 0; i < (int)rank; i++) {
    lua_rawgeti(L, 2, i + 1);
    read_size(L, s, i);
    lua_pop(L, 1);
  }
  return 1;
}

static int spec_text(lua_State *L) {
  spec *s = test_spec(L, 1);
  luaL_Buffer b;
  luaL_argcheck(L, s, 1, "spec expected");
  luaL_buffinit(L, &b);
  luaL_addstring(&b, kn_dtype_name((kn_dtype)s->type.tensor.dtype));
  luaL_addchar(&b, '[');
  for (int i = 0; i < s->type.tensor.rank; i++) {
    char num[32];
    snprintf(num, sizeof num, "%lld", (long long)s->type.tensor.dims[i]);
    if (i) luaL_addchar(&b, ',');
    luaL_addstring(&b, *s->names[i] ? s->names[i] : num);
  }
  luaL_addchar(&b, ']');
  if (s->type.tensor.device != KN_CPU) {
    luaL_addchar(&b, '@');
    luaL_addstring(&b, kn_device_name((kn_device_id)s->type.tensor.device));
  }
  luaL_pushresult(&b);
  return 1;
}

/* ---- capturing ---- */

static const uint64_t *count_emptied(lua_State *L) { return &kl_state_of(L)->boxes->emptied; }
static bool called(lua_State *L, int idx, kc_called *out);

static const kc_host host = {.context = kl_context,
                             .push_methods = kl_push_methods,
                             .push_tensor = kl_push_tensor,
                             .test_tensor = kl_test_tensor,
                             .emptied = count_emptied,
                             .push_scalar = kl_push_scalar,
                             .test_scalar = kl_test_scalar,
                             .is_engine = kl_is_engine,
                             .missing = kl_missing,
                             .called = called,
                             .push_slot = kl_push_slot};

const kc_host *kl_host(void) { return &host; }

/* The sentence begins with the place in the captured function. */
static int raise_capture(lua_State *L) {
  kl_push_placed(L, kn_error(kl_context(L)), true);
  return lua_error(L);
}

/* User value 1 of a scripted Graph: {f = function, limit = most variants, reasons = {text …}}. */
static void push_source(lua_State *L, int self, const char *field) {
  lua_getiuservalue(L, self, 1);
  lua_getfield(L, -1, field);
  lua_remove(L, -2);
}

static void add_reason(lua_State *L, int self, const char *why) {
  push_source(L, self, "reasons");
  lua_pushstring(L, why);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  lua_pop(L, 1);
}

static int refuse_more(lua_State *L, int self, int n, const char *why) {
  luaL_Buffer b;
  push_source(L, self, "reasons");
  int reasons = lua_gettop(L);
  push_source(L, self, "f");
  lua_Debug ar = {.short_src = "?", .linedefined = -1};
  if (lua_type(L, -1) == LUA_TFUNCTION && lua_getinfo(L, ">S", &ar) && ar.linedefined > 0)
    lua_pushfstring(L, "the function of %s:%d", ar.short_src, ar.linedefined);
  else
    lua_pushliteral(L, "this function");
  lua_pushfstring(L,
                  "%s was captured %d times already (cache_limit), as each time something it depends on had "
                  "changed; give what changes as an argument, or raise cache_limit:",
                  lua_tostring(L, -1), n);
  int head = lua_gettop(L);
  luaL_buffinit(L, &b);
  luaL_addstring(&b, lua_tostring(L, head));
  for (int i = 1, k = (int)lua_rawlen(L, reasons); i <= k; i++) {
    luaL_addstring(&b, "\n  ");
    lua_rawgeti(L, reasons, i);
    luaL_addvalue(&b);
  }
  luaL_addstring(&b, "\n  ");
  luaL_addstring(&b, why);
  luaL_pushresult(&b);
  return kl_error(L, KN_LIMIT, "%s", lua_tostring(L, -1));
}

static kl_variant *choose(lua_State *L, kl_graph *g, int self, int first);

/* Captures for the arguments at [first, first + nargs) and keeps the variant. */
static kl_variant *capture(lua_State *L, kl_graph *g, int self, int first, int nargs, const kc_arg *args) {
  kn_context *ctx = kl_context(L);
  kn_graph *graph;
  kc_live *live;
  luaL_checkstack(L, 8, "capture");
  kl_load_files(L);
  kl_make_room(L);
  push_source(L, self, "f");
  int f = lua_gettop(L);
  const kc_live *before = g->variants ? g->variants->live : NULL;
  kn_status st = kc_capture(L, &host, f, first, nargs, args, before, &graph, &live);
  if (st == KN_CAPTURE && before) /* perhaps it cannot do without knowing a number that has changed */
    st = kc_capture(L, &host, f, first, nargs, args, NULL, &graph, &live);
  lua_pop(L, 1);
  if (st != KN_OK) raise_capture(L);
  if (kn_debugging(ctx, KN_DEBUG_CAPTURE))
    kn_log(ctx, "capture: %s: %u nodes, %u slots, %u guards", graph->name, graph->nnodes, graph->nslots,
           graph->nguards);
  return kl_add_variant(L, g, graph, live);
}

void kl_read_spec(lua_State *L, int idx, const char *name, const char *what, kc_arg *a) {
  static const struct {
    const char *name;
    kn_vkind kind;
  } scalars[] = {{"float", KN_V_FLOAT}, {"integer", KN_V_INT}, {"boolean", KN_V_BOOL}};
  *a = (kc_arg){.kind = KC_ARG_SPEC};
  spec *s = test_spec(L, idx);
  if (s) {
    a->type = s->type;
    for (int i = 0; i < s->type.tensor.rank; i++) a->sizes[i] = *s->names[i] ? s->names[i] : NULL;
    return;
  }
  const char *text = lua_type(L, idx) == LUA_TSTRING ? lua_tostring(L, idx) : "";
  for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
    if (!strcmp(text, scalars[i].name)) {
      a->type.kind = scalars[i].kind;
      return;
    }
  kl_error(L, KN_ARG, "%s: %s must be kiln.spec(...), \"float\", \"integer\" or \"boolean\", got %s", name,
           what, kl_kind(L, idx));
}

/* Memory that lives as long as the table at `kept`. */
static void *keep(lua_State *L, int kept, size_t size) {
  void *p = lua_newuserdatauv(L, size, 0);
  lua_rawseti(L, kept, (lua_Integer)lua_rawlen(L, kept) + 1);
  return p;
}

/* The description on top of the stack, which stays there: a spec, or a table of descriptions. */
static void read_described(lua_State *L, int kept, const char *what, kc_arg *a, int depth) {
  int at = lua_gettop(L);
  if (lua_type(L, at) != LUA_TTABLE) {
    kl_read_spec(L, at, "script", what, a);
    return;
  }
  if (depth > 60) kl_error(L, KN_ARG, "script: %s is nested too deeply, or contains itself", what);
  luaL_checkstack(L, 12, "inputs");
  *a = (kc_arg){.kind = KC_ARG_TABLE};
  for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) a->n++;
  a->fields = keep(L, kept, (a->n + 1) * sizeof *a->fields);
  a->name = keep(L, kept, (a->n + 1) * sizeof *a->name);
  int64_t *key = keep(L, kept, (a->n + 1) * sizeof *key);
  a->key = key;
  uint32_t i = 0;
  for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1), i++) {
    char field[96];
    bool word = lua_type(L, -2) == LUA_TSTRING;
    if (!word && !lua_isinteger(L, -2))
      kl_error(L, KN_ARG, "script: %s: keys must be strings or integers, got %s", what, kl_kind(L, -2));
    a->name[i] = word ? lua_tostring(L, -2) : NULL; /* `inputs` holds it */
    key[i] = word ? 0 : (int64_t)lua_tointeger(L, -2);
    if (word)
      snprintf(field, sizeof field, "%.60s.%.30s", what, a->name[i]);
    else
      snprintf(field, sizeof field, "%.60s[%lld]", what, (long long)key[i]);
    read_described(L, kept, field, &a->fields[i], depth + 1);
  }
}

/* The n descriptions in the table at `inputs`, which they leave on the stack, above what holds the result. */
static kc_arg *read_inputs(lua_State *L, int inputs, int n) {
  luaL_checkstack(L, n + 8, "too many inputs");
  lua_newtable(L);
  int kept = lua_gettop(L);
  kc_arg *args = keep(L, kept, (size_t)(n + 1) * sizeof *args);
  for (int i = 0; i < n; i++) {
    char what[32];
    lua_rawgeti(L, inputs, i + 1);
    snprintf(what, sizeof what, "inputs[%d]", i + 1);
    read_described(L, kept, what, &args[i], 0);
  }
  return args;
}

static kl_variant *capture_now(lua_State *L, kl_graph *g, int self, int inputs) {
  int n = (int)lua_rawlen(L, inputs);
  kc_arg *args = read_inputs(L, inputs, n);
  return capture(L, g, self, lua_gettop(L) - n + 1, n, args);
}

/* See kc_host. Of a scripted Graph its function, of another its nodes. */
static bool called(lua_State *L, int idx, kc_called *out) {
  const kl_graph *g = kl_test_graph(L, idx);
  *out = (kc_called){.graph = NULL};
  if (!g) return false;
  if (g->choose != choose) {
    out->graph = g->variants->graph;
    return true;
  }
  int top = lua_gettop(L);
  push_source(L, idx, "f");
  push_source(L, idx, "inputs");
  if (lua_isnil(L, -1)) return true;
  out->ninputs = (int)lua_rawlen(L, -1);
  out->inputs = read_inputs(L, top + 2, out->ninputs);
  lua_settop(L, top + 3);
  lua_remove(L, top + 2);
  return true;
}

/* Where `inputs` were given, a call with too few or too many arguments fits no capture there could ever be.
 */
static void check_count(lua_State *L, const kl_graph *g, int self, int first, int nargs) {
  push_source(L, self, "inputs");
  int takes = lua_isnil(L, -1) ? nargs : (int)lua_rawlen(L, -1);
  lua_pop(L, 1);
  int given = nargs;
  while (given > takes && lua_isnil(L, first + given - 1)) given--; /* nil is nothing */
  if (given != takes && g->variants)
    kl_error(L, KN_ARG, "graph %s: takes %d argument%s, got %d", g->variants->graph->name, takes,
             takes == 1 ? "" : "s", given);
}

/* The guards hold: the slots' tensors are the ones just seen, whatever finalizers do before the run. */
static kl_variant *chosen(lua_State *L, kl_variant *v) {
  v->loaded = false;
  if (!v->session) return v;
  kl_check(L, kc_live_load_checked(L, &host, v->live, v->session));
  v->loaded = true;
  return v;
}

static kl_variant *choose(lua_State *L, kl_graph *g, int self, int first) {
  char why[400];
  int nargs = lua_gettop(L) - first + 1, n = 0;
  *why = 0;
  for (kl_variant *v = g->variants; v; v = v->next, n++) {
    char other[400];
    *other = 0;
    if (kc_live_check(L, &host, v->live, first, nargs, n ? other : why, sizeof why)) return chosen(L, v);
  }
  if (n) {
    check_count(L, g, self, first, nargs);
    push_source(L, self, "limit");
    lua_Integer limit = lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (n >= limit) refuse_more(L, self, n, why);
    kn_context *ctx = kl_context(L);
    if (kn_debugging(ctx, KN_DEBUG_CAPTURE)) kn_log(ctx, "capture: again, because %s", why);
  }
  push_source(L, self, "inputs");
  int inputs = lua_gettop(L);
  kl_variant *made =
      lua_isnil(L, -1) ? capture(L, g, self, first, nargs, NULL) : capture_now(L, g, self, inputs);
  lua_settop(L, inputs - 1);
  if (n) add_reason(L, self, why); /* not before it was captured again */
  return made;
}

/* ---- kiln.script ---- */

static bool is_callable(lua_State *L, int idx) {
  if (lua_type(L, idx) == LUA_TFUNCTION) return true;
  if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL) return false;
  lua_pop(L, 1);
  return true;
}

static int eager_call(lua_State *L) {
  lua_getiuservalue(L, 1, 1);
  lua_replace(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int eager_index(lua_State *L) {
  return kl_error(L, KN_STATE, "KILN_CAPTURE=0: functions run eagerly and there is no graph to ask for '%s'",
                  luaL_tolstring(L, 2, NULL));
}

static int eager_graph(lua_State *L) {
  lua_newuserdatauv(L, 0, 1);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &eager_key);
  lua_setmetatable(L, -2);
  return 1;
}

/* What explain needs to know of how often, and why, this was captured: fields of the table on top. */
void kl_set_captures(lua_State *L, int self) {
  if (lua_getiuservalue(L, self, 1) != LUA_TTABLE) {
    lua_pop(L, 1);
    return;
  }
  lua_getfield(L, -1, "limit");
  lua_setfield(L, -3, "cache_limit");
  lua_getfield(L, -1, "reasons");
  lua_newtable(L); /* a copy: the list is ours */
  for (lua_Integer i = 1; lua_rawgeti(L, -2, i) == LUA_TSTRING; i++) lua_rawseti(L, -2, i);
  lua_pop(L, 1);
  lua_setfield(L, -4, "reasons");
  lua_pop(L, 2);
}

static void check_options(lua_State *L, int idx) {
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      kl_error(L, KN_ARG, "script: option names must be strings, got %s", kl_kind(L, -2));
    const char *key = lua_tostring(L, -2);
    if (strcmp(key, "inputs") && strcmp(key, "cache_limit") && strcmp(key, "memory"))
      kl_error(L, KN_ARG, "script: there is no option '%s'; there are inputs, cache_limit, memory", key);
    lua_pop(L, 1);
  }
}

/* graph_source(value): the function or module that a Graph was made of; nil for other values. */
static int graph_source(lua_State *L) {
  bool known = lua_type(L, 1) == LUA_TUSERDATA && lua_getmetatable(L, 1);
  if (!known) return lua_pushnil(L), 1;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &eager_key);
  bool eager = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  if (!eager && !kl_test_graph(L, 1)) return lua_pushnil(L), 1;
  lua_getiuservalue(L, 1, 1);
  if (!eager && lua_type(L, -1) == LUA_TTABLE) lua_getfield(L, -1, "f");
  return 1;
}

/* kiln.script(f [, {inputs = {…}, cache_limit = 8, memory = BYTES}]): memory is for the gradients of calls.
 */
static int script(lua_State *L) {
  lua_settop(L, 2);
  if (!is_callable(L, 1))
    return kl_error(L, KN_ARG, "script: a function or module is needed, got %s", kl_kind(L, 1));
  if (lua_iscfunction(L, 1))
    return kl_error(L, KN_ARG,
                    "script: a C function has no bytecode to capture; give a Lua function that calls it");
  if (!lua_isnil(L, 2) && lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "script: options must be a table, got %s", kl_kind(L, 2));
  lua_Integer limit = 8;
  const char *off = getenv("KILN_CAPTURE");
  if (lua_isnil(L, 2)) lua_newtable(L), lua_replace(L, 2);
  check_options(L, 2);
  if (lua_getfield(L, 2, "cache_limit") != LUA_TNIL) {
    limit = lua_tointeger(L, -1);
    if (limit < 1)
      return kl_error(L, KN_ARG, "script: cache_limit must be at least 1, got %s", kl_kind(L, -1));
  }
  lua_Integer memory = 0;
  if (lua_getfield(L, 2, "memory") != LUA_TNIL && (memory = lua_tointeger(L, -1)) < 1)
    return kl_error(L, KN_ARG, "script: memory must be a whole number of bytes above 0, got %s",
                    kl_kind(L, -1));
  bool now = lua_getfield(L, 2, "inputs") != LUA_TNIL;
  if (now && lua_type(L, -1) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "script: inputs must be a table, got %s", kl_kind(L, -1));
  int inputs = lua_gettop(L);
  if (off && !strcmp(off, "0")) return eager_graph(L);
  kl_graph *g = kl_push_graph(L);
  int self = lua_gettop(L);
  g->choose = choose;
  g->memory = (size_t)memory;
  lua_createtable(L, 0, 4);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "f");
  lua_pushinteger(L, limit);
  lua_setfield(L, -2, "limit");
  lua_pushvalue(L, inputs);
  lua_setfield(L, -2, "inputs");
  lua_newtable(L);
  lua_setfield(L, -2, "reasons");
  lua_setiuservalue(L, self, 1);
  if (now) capture_now(L, g, self, inputs);
  lua_settop(L, self);
  return 1;
}

/* True inside captured code: capture calls it as an engine function, with its recorder on. */
static int is_capturing(lua_State *L) {
  lua_pushboolean(L, kl_context(L)->recorder != NULL);
  return 1;
}

/* kiln.lint(f): the list of capture's findings, without capturing; its text is one line each. */
static int lint_text(lua_State *L) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 1, n = (int)lua_rawlen(L, 1); i <= n; i++) {
    lua_rawgeti(L, 1, i);
    lua_getfield(L, -1, "text");
    lua_remove(L, -2);
    luaL_addvalue(&b);
    luaL_addchar(&b, '\n');
  }
  luaL_pushresult(&b);
  return 1;
}

static int lint(lua_State *L) {
  lua_settop(L, 1);
  if (lua_type(L, 1) == LUA_TTABLE) { /* a module */
    lua_getfield(L, 1, "forward");
    if (lua_type(L, -1) == LUA_TFUNCTION) lua_replace(L, 1);
  }
  if (lua_type(L, 1) != LUA_TFUNCTION || lua_iscfunction(L, 1))
    return kl_error(L, KN_ARG, "lint: a Lua function or module is needed, got %s",
                    lua_iscfunction(L, 1) ? "a C function" : kl_kind(L, 1));
  kl_load_files(L);
  kl_check(L, kc_lint(L, &host, 1));
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, lint_text);
  lua_setfield(L, -2, "__tostring");
  lua_setmetatable(L, -2);
  return 1;
}

/* ---- opening ---- */

static void make_metatable(lua_State *L, const char *key, const char *name, const luaL_Reg *list) {
  luaL_checkstack(L, 4, "kiln");
  lua_newtable(L);
  luaL_setfuncs(L, list, 0);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void kl_open_script(lua_State *L) {
  static const luaL_Reg specs[] = {{"__tostring", spec_text}, {NULL, NULL}};
  static const luaL_Reg eager[] = {{"__call", eager_call}, {"__index", eager_index}, {NULL, NULL}};
  static const luaL_Reg list[] = {
      {"script", script}, {"spec", make_spec}, {"lint", lint}, {"graph_source", graph_source}, {NULL, NULL}};
  static const luaL_Reg engine[] = {{"is_capturing", is_capturing}, {NULL, NULL}};
  make_metatable(L, &spec_key, "spec", specs);
  make_metatable(L, &eager_key, "Graph", eager);
  luaL_setfuncs(L, list, 0);
  kl_set_engine_functions(L, engine);
}
