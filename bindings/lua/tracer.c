/* What kiln.trace (lua/kiln/trace.lua) is made of: a function is run once with a recorder that lets ops run
 * (graph/trace.h), and what it did becomes a Graph. Which tensors have names, what is compared and what is
 * said about it is decided there. */
#include "bindings/lua/emit.h"
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/trees.h"
#include "graph/pipeline.h"
#include "graph/trace.h"
#include <stdio.h>
#include <string.h>

static const char tracing_key; /* registry: the metatable */

enum { CHECK_MILLIONS = 5 }; /* instructions of Lua that the self-check waits for */

typedef struct named { /* a tensor that the function can reach from outside */
  kn_tensor *tensor;   /* borrowed: the list of names holds it */
  const char *name;
  int entry; /* in that list */
  kn_slot *slot;
} named;

typedef struct tracing {
  lua_State *L;
  kn_context *ctx;
  kn_graph *graph;
  kn_builder b;
  kn_trace t;
  bool open, strict;
  int levels; /* of the stack outside the function */
  named *names;
  uint32_t nnames;
  kn_recorder *before;
  kn_value *given[64]; /* values of results so far; further ones are not compared */
  uint32_t ngiven;
} tracing;

/* ---- life ---- */

static void close_tracing(tracing *x) {
  if (x->open) kn_trace_free(&x->t);
  x->open = false;
  kn_graph_release(x->graph);
  x->graph = NULL;
}

static int tracing_gc(lua_State *L) {
  close_tracing(lua_touserdata(L, 1));
  return 0;
}

static tracing *new_tracing(lua_State *L) {
  tracing *x = lua_newuserdatauv(L, sizeof *x, 1);
  *x = (tracing){.L = L, .ctx = kl_context(L)};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tracing_key);
  lua_setmetatable(L, -2);
  kl_check(L, kn_graph_new(x->ctx, "traced", &x->graph));
  kn_builder_init(&x->b, x->ctx, x->graph);
  kl_check(L, kn_trace_init(&x->t, &x->b));
  x->open = true;
  return x;
}

/* ---- what the recorder asks ---- */

static int count_levels(lua_State *L) {
  lua_Debug ar;
  int n = 0;
  while (lua_getstack(L, n, &ar)) n++;
  return n;
}

enum { CHAIN = 6 };

/* The place of the op: the lines of the program inside the traced function, innermost first. */
static void place(void *ud) {
  tracing *x = ud;
  lua_State *L = x->L;
  lua_Debug ar[CHAIN];
  int n = 0, inside = count_levels(L) - x->levels;
  for (int level = 0; level < inside && n < CHAIN; level++) {
    if (!lua_getstack(L, level, &ar[n])) break;
    lua_getinfo(L, "Sl", &ar[n]);
    if (ar[n].currentline > 0) n++;
  }
  const kn_where *at = NULL;
  while (n-- > 0) {
    const char *source = ar[n].source;
    at = kn_where_intern(&x->b, *source == '=' ? source + 1 : ar[n].short_src, ar[n].currentline, at);
  }
  x->b.where = at;
}

static named *find_name(tracing *x, const kn_tensor *t) {
  for (uint32_t i = 0; i < x->nnames; i++)
    if (x->names[i].tensor == t) return &x->names[i];
  for (uint32_t i = 0; i < x->nnames; i++) { /* another handle on the same elements */
    const kn_tensor *o = x->names[i].tensor;
    if (o->storage == t->storage && o->offset == t->offset && kn_type_equal(&o->type, &t->type) &&
        !memcmp(o->strides, t->strides, sizeof(int64_t) * t->type.rank))
      return &x->names[i];
  }
  return NULL;
}

static kn_slot *outside(void *ud, kn_tensor *t) {
  tracing *x = ud;
  char name[32], type[KN_TYPE_TEXT];
  named *known = find_name(x, t);
  kn_vtype of = {.kind = KN_V_TENSOR, .tensor = t->type};
  snprintf(name, sizeof name, "tensor.%u", x->graph->nslots + 1);
  kn_slot *s = kn_add_slot(&x->b, known ? KN_SLOT_PARAM : KN_SLOT_CONST, known ? known->name : name, &of, t);
  if (!s) return NULL;
  if (known) known->slot = s;
  kn_add_guard(&x->b, known ? "parameter" : "constant", s->name, kn_type_text(&t->type, type, sizeof type),
               x->b.where);
  return s;
}

/* "f.lua:3: item: …", once a line. The list of warnings is the tracing's user value. */
static kn_status leak(void *ud, kn_tensor *t) {
  tracing *x = ud;
  lua_State *L = x->L;
  lua_Debug ar;
  char where[LUA_IDSIZE + 32], type[KN_TYPE_TEXT];
  const char *what = "its data";
  if (lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar) && ar.name) what = ar.name;
  if (x->b.status != KN_OK) return x->b.status;
  place(x);
  kl_write_where(L, where, sizeof where);
  bool strict = x->strict; /* the place is then put before it by whoever raises */
  kn_fail(
      x->ctx, KN_CAPTURE,
      "%s%s%s: the data of a tensor (%s) becomes a Lua value: the trace keeps what it was in this run, and "
      "whatever depends on it; kiln.script keeps both sides",
      strict   ? "trace: "
      : *where ? where
               : "?",
      strict ? "" : ": ", what, kn_type_text(&t->type, type, sizeof type));
  if (strict) return x->b.status = KN_CAPTURE;
  kn_add_guard(&x->b, "data", what, kn_type_text(&t->type, type, sizeof type), x->b.where);
  if (!lua_checkstack(L, 6)) return KN_OK;
  lua_rawgetp(L, LUA_REGISTRYINDEX, x);
  lua_pushstring(L, kn_error(x->ctx));
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TNIL) { /* by text and in order */
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, (lua_Integer)lua_rawlen(L, -3) + 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
  } else
    lua_pop(L, 3);
  return KN_OK;
}

/* ---- regions in a trace ---- */

static kn_value *value_of(void *ud, kn_tensor *t) { return kn_trace_value(ud, t); }
static kn_status define(void *ud, kn_tensor *t, kn_value *v) { return kn_trace_define(ud, t, v); }
static void make_opaque(void *ud) { ((kn_trace *)ud)->opaque = true; }

bool kl_trace_emitter(lua_State *L, kl_emitter *out) {
  kn_recorder *r = kl_context(L)->recorder;
  if (!r || !r->runs) return false;
  kn_trace *t = (kn_trace *)r;
  *out = (kl_emitter){.b = t->b, .value = value_of, .define = define, .opaque = make_opaque, .ud = t};
  return true;
}

/* ---- arguments and results ---- */

static void read_names(lua_State *L, tracing *x, int list) {
  uint32_t n = (uint32_t)lua_rawlen(L, list);
  x->names = kn_arena_alloc(&x->graph->arena, (n + 1) * sizeof *x->names);
  if (!x->names) kl_check(L, kn_fail_nomem(x->ctx, n * sizeof *x->names));
  for (uint32_t i = 0; i < n; i++) {
    lua_rawgeti(L, list, i + 1);
    lua_getfield(L, -1, "tensor");
    lua_getfield(L, -2, "name");
    kn_tensor *t = kl_test_tensor(L, -2);
    if (t && t->storage) x->names[x->nnames++] = (named){t, lua_tostring(L, -1), (int)i + 1, NULL};
    lua_pop(L, 3);
  }
}

typedef struct argument {
  tracing *x;
  const char *name;
} argument;

static kn_value *take_argument(void *ud, lua_State *L, int idx, const char *path) {
  argument *a = ud;
  tracing *x = a->x;
  char text[80];
  kn_tensor *t = kl_test_tensor(L, idx);
  if (t && !t->storage)
    kl_error(L, KN_CAPTURE, "trace: %s is a symbol of a graph that is being built; real tensors are needed",
             path);
  if (t) {
    kn_value *v = kn_add_input(&x->b, path, &(kn_vtype){KN_V_TENSOR, t->type});
    if (v) kl_check(L, kn_trace_input(&x->t, t, v, path));
    return v;
  }
  if (lua_type(L, idx) == LUA_TTABLE || lua_isnil(L, idx)) return NULL;
  snprintf(text, sizeof text, "%.70s", luaL_tolstring(L, idx, NULL));
  lua_pop(L, 1);
  kn_add_guard(&x->b, "argument", path, text, NULL);
  return NULL;
}

static kn_value *take_result(void *ud, lua_State *L, int idx, const char *path) {
  tracing *x = ud;
  kn_tensor *t = kl_test_tensor(L, idx);
  if (!t) return NULL;
  if (!t->storage) kl_error(L, KN_CAPTURE, "trace: %s is a symbol of a graph that is being built", path);
  kn_value *v = kn_trace_result(&x->t, t, x->given, x->ngiven);
  if (v && x->ngiven < sizeof x->given / sizeof *x->given) x->given[x->ngiven++] = v;
  return v;
}

/* Arguments lie in the table at `inputs` (its field n, or its length, says how many). */
static void make_args(lua_State *L, tracing *x, int f, int inputs, int n) {
  argument a = {.x = x};
  kl_tree_maker m = {.L = L, .b = &x->b, .name = "trace", .leaf = take_argument, .ud = &a};
  kn_tree *trees = kl_new_trees(&m, (size_t)n);
  for (int i = 0; i < n; i++) {
    char path[64];
    const char *name = NULL;
    if (lua_type(L, f) == LUA_TFUNCTION) {
      lua_pushvalue(L, f);
      name = lua_getlocal(L, NULL, i + 1);
      lua_pop(L, 1);
    }
    snprintf(path, sizeof path, name ? "%.60s" : "arg%.0s%d", name ? name : "", i + 1);
    lua_rawgeti(L, inputs, i + 1);
    kl_make_tree(&m, -1, path, &trees[i]);
    lua_pop(L, 1);
  }
  kn_set_args(&x->b, trees, (uint32_t)n);
  kl_check(L, x->b.status);
}

static void make_results(lua_State *L, tracing *x, int first) {
  int n = lua_gettop(L) - first + 1;
  kl_tree_maker m = {.L = L, .b = &x->b, .name = "trace", .leaf = take_result, .ud = x};
  lua_newtable(L);
  m.memo = lua_gettop(L);
  kn_tree *trees = kl_new_trees(&m, (size_t)n);
  for (int i = 0; i < n; i++) {
    char path[32];
    snprintf(path, sizeof path, "result %d", i + 1);
    kl_make_tree(&m, first + i, path, &trees[i]);
  }
  lua_settop(L, first + n - 1);
  if (!kn_set_results(&x->b, NULL, 0, trees, (uint32_t)n)) kl_check(L, x->b.status);
}

/* ---- the run ---- */

static int run_function(lua_State *L, tracing *x, int f, int inputs, int n) {
  lua_pushvalue(L, f);
  for (int i = 0; i < n; i++) lua_rawgeti(L, inputs, i + 1);
  x->before = x->ctx->recorder;
  x->ctx->recorder = &x->t.base;
  x->levels = count_levels(L);
  int rc = lua_pcall(L, n, LUA_MULTRET, 0);
  x->ctx->recorder = x->before;
  x->b.where = NULL;
  return rc;
}

/* tracer.run(f, inputs, n, names, warnings, strict): a tracing, then the results. */
static int trace_run(lua_State *L) {
  lua_settop(L, 6);
  kn_context *ctx = kl_context(L);
  int n = (int)lua_tointeger(L, 3);
  if (ctx->recorder)
    return kl_error(L, KN_CAPTURE,
                    "trace: a graph is being captured or traced already; call the function itself");
  luaL_checkstack(L, n + 20, "too many inputs");
  tracing *x = new_tracing(L);
  int self = lua_gettop(L);
  x->strict = lua_toboolean(L, 6);
  x->t.ud = x;
  x->t.place = place;
  x->t.outside = outside;
  x->t.leak = leak;
  read_names(L, x, 4);
  make_args(L, x, 1, 2, n);
  lua_pushvalue(L, 5);
  lua_rawsetp(L, LUA_REGISTRYINDEX, x);
  int rc = run_function(L, x, 1, 2, n);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, x);
  if (rc != LUA_OK) return lua_error(L);
  if (x->b.status != KN_OK) kl_check(L, x->b.status);
  make_results(L, x, self + 1);
  return lua_gettop(L) - self + 1;
}

/* tracer.replaced(tracing, entry, tensor): the place of this name holds another tensor now: it becomes state.
 */
static int trace_replaced(lua_State *L) {
  tracing *x = lua_touserdata(L, 1);
  int entry = (int)lua_tointeger(L, 2);
  kn_tensor *t = kl_check_tensor(L, 3);
  named *n = NULL;
  for (uint32_t i = 0; i < x->nnames; i++)
    if (x->names[i].entry == entry) n = &x->names[i];
  if (!n) return 0;
  if (!kn_type_equal(&n->tensor->type, &t->type)) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    return kl_error(L, KN_CAPTURE, "trace: '%s' was %s and became %s: state keeps its type", n->name,
                    kn_type_text(&n->tensor->type, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  }
  kn_trace_value(&x->t, n->tensor); /* gives it a slot, if it was not read */
  kn_value *v = kn_trace_value(&x->t, t);
  if (!v || !n->slot) kl_check(L, x->b.status);
  if (n->slot->kind == KN_SLOT_STATE)
    return kl_error(L, KN_CAPTURE, "trace: '%s' is both written in place and replaced", n->name);
  for (kn_node *r = x->graph->body->first; r; r = r->next)
    if (r->slot == n->slot && r->op == KN_NODE_param) r->op = KN_NODE_load_state;
  n->slot->kind = KN_SLOT_STATE;
  kn_add_store(&x->b, n->slot, v);
  kl_check(L, x->b.status);
  lua_pushboolean(L, 1);
  return 1;
}

static bool in_graph(const kn_graph *g, const kn_slot *s) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g->slots[i] == s) return true;
  return false;
}

static void add_place(lua_State *L, int places, kn_slot *s) { /* the entry or nil is on top; pops it */
  lua_createtable(L, 0, 4);
  lua_pushlightuserdata(L, s);
  lua_setfield(L, -2, "slot");
  static const char *const fields[] = {"container", "key", "replace"};
  for (int i = 0; i < 3 && lua_type(L, -2) == LUA_TTABLE; i++) {
    lua_getfield(L, -2, fields[i]);
    lua_setfield(L, -2, fields[i]);
  }
  lua_rawseti(L, places, (lua_Integer)lua_rawlen(L, places) + 1);
  lua_pop(L, 1);
}

/* The places of the slots that are left, in a table on top; the list of names is at idx. */
static void push_places(lua_State *L, const tracing *x, int names) {
  lua_newtable(L);
  int places = lua_gettop(L);
  for (uint32_t k = 0; k < x->graph->nslots; k++) {
    kn_slot *s = x->graph->slots[k];
    const named *n = NULL;
    for (uint32_t i = 0; i < x->nnames && !n; i++)
      if (x->names[i].slot == s) n = &x->names[i];
    if ((!n && s->kind != KN_SLOT_STATE) || !in_graph(x->graph, s)) continue;
    if (n)
      lua_rawgeti(L, names, n->entry);
    else
      lua_pushnil(L);
    add_place(L, places, s);
  }
}

/* tracer.finish(tracing, f, names): the Graph. */
static int trace_finish(lua_State *L) {
  tracing *x = lua_touserdata(L, 1);
  lua_settop(L, 3);
  kl_check(L, kn_trace_stores(&x->t));
  kl_check(L, kn_pipeline_run(&x->b, KN_PIPELINE_CAPTURE));
  kl_check(L, kn_graph_finish(&x->b));
  kl_graph *g = kl_push_graph(L);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "f");
  lua_setiuservalue(L, -2, 1);
  push_places(L, x, 3);
  kn_graph *graph = x->graph;
  x->graph = kn_graph_retain(graph);
  kl_variant *v = kl_add_variant(L, g, graph, NULL);
  if (lua_rawlen(L, -1))
    v->places = luaL_ref(L, LUA_REGISTRYINDEX);
  else
    lua_pop(L, 1);
  close_tracing(x);
  return 1;
}

/* tracer.upvalue(f, i): name and value, as debug.getupvalue, which a host may not offer. */
static int get_upvalue(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  const char *name = lua_getupvalue(L, 1, (int)luaL_checkinteger(L, 2));
  if (!name) return 0;
  lua_pushstring(L, name);
  lua_insert(L, -2);
  return 2;
}

static int get_metatable(lua_State *L) { return lua_type(L, 1) == LUA_TTABLE && lua_getmetatable(L, 1); }

/* tracer.log(text): a line of the context's output of warnings. */
static int log_line(lua_State *L) {
  kn_log(kl_context(L), "%s", luaL_checkstring(L, 1));
  return 0;
}

static int where(lua_State *L) {
  kl_push_where(L);
  return 1;
}

static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  luaL_error(L, "it had not ended after %d million instructions of Lua; give check_inputs with which it ends",
             CHECK_MILLIONS);
}

/* tracer.limited(f, ...): calls f, which is stopped when it does not seem to end. A hook that the host has
 * set stays: the host has limits of its own. */
static int limited(lua_State *L) {
  bool ours = !lua_gethook(L);
  if (ours) lua_sethook(L, stop, LUA_MASKCOUNT, CHECK_MILLIONS * 1000000);
  int rc = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  if (ours) lua_sethook(L, NULL, 0, 0);
  if (rc != LUA_OK) return lua_error(L);
  return lua_gettop(L);
}

/* kiln.trace: of a matrix the sum of its diagonal (upvalue 1), of a function and its inputs the Graph. */
static int trace_either(lua_State *L) {
  if (kl_test_tensor(L, 1)) {
    lua_pushvalue(L, lua_upvalueindex(1));
  } else {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "kiln.tracing");
    lua_call(L, 1, 1);
  }
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

void kl_open_tracer(lua_State *L) {
  static const luaL_Reg list[] = {{"run", trace_run},
                                  {"replaced", trace_replaced},
                                  {"finish", trace_finish},
                                  {"limited", limited},
                                  {"upvalue", get_upvalue},
                                  {"metatable", get_metatable},
                                  {"log", log_line},
                                  {"where", where},
                                  {NULL, NULL}};
  lua_newtable(L);
  lua_pushcfunction(L, tracing_gc);
  lua_setfield(L, -2, "__gc");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tracing_key);
  luaL_newlib(L, list);
  lua_setfield(L, -2, "tracer");
  lua_getfield(L, -1, "trace");
  lua_pushcclosure(L, trace_either, 1);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "trace");
}
