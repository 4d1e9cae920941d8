/* Methods of Graph objects that show what is in them, and plan ahead. */
#include "bindings/lua/graph_parts.h"
#include "core/device.h"
#include "graph/profile.h"
#include "graph/text.h"
#include <string.h>

/* ---- texts ---- */

/* Keeps what C made out of harm's way: pushes the text as a Lua string. */
typedef struct text {
  char *p;
  size_t n;
} text;

static int push_text_protected(lua_State *L) {
  const text *t = lua_touserdata(L, 1);
  lua_pushlstring(L, t->p, t->n);
  return 1;
}

/* Pushes the text and frees it. */
static void push_owned(lua_State *L, text t) {
  lua_pushcfunction(L, push_text_protected);
  lua_pushlightuserdata(L, &t);
  int status = lua_pcall(L, 1, 1, 0);
  kn_free(kl_context(L)->heap, t.p, t.n + 1);
  if (status != LUA_OK) lua_error(L);
}

void kl_push_graph_text(lua_State *L, const kn_graph *g, kn_text_form form) {
  text t;
  luaL_checkstack(L, 4, "graph text");
  kl_check(L, kn_graph_print(kl_context(L), g, form, &t.p, &t.n));
  push_owned(L, t);
}

void kl_push_value_type(lua_State *L, const kn_graph *g, const kn_vtype *t) {
  char buf[256];
  lua_pushstring(L, kn_vtype_text(g, t, buf, sizeof buf));
}

/* g:code(): a listing in Lua's words. */
static int graph_code(lua_State *L) {
  text t;
  luaL_checkstack(L, 4, "graph text");
  kl_check(L, kn_graph_code(kl_context(L), kl_newest_variant(L, 1)->graph, &t.p, &t.n));
  push_owned(L, t);
  return 1;
}

/* ---- lists ---- */

void kl_set_where(lua_State *L, const kn_where *w) {
  char buf[512];
  if (!w) return;
  lua_pushstring(L, kn_where_brief(w, buf, sizeof buf));
  lua_setfield(L, -2, "where");
}

void kl_set_text(lua_State *L, const char *key, const char *value) {
  if (!value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

void kl_set_number(lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

void kl_set_count(lua_State *L, const char *key, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, key);
}

static void push_value_info(lua_State *L, const kn_graph *g, const kn_value *v) {
  lua_createtable(L, 0, 4);
  kl_set_text(L, "name", v->name);
  kl_push_value_type(L, g, &v->type);
  lua_setfield(L, -2, "type");
  if (v->type.kind != KN_V_TENSOR) return;
  const kn_type *t = &v->type.tensor;
  kl_set_text(L, "dtype", kn_dtype_name((kn_dtype)t->dtype));
  kl_set_text(L, "device", kn_device_name((kn_device_id)t->device));
  lua_createtable(L, t->rank, 0);
  for (int i = 0; i < t->rank; i++) {
    int64_t d = t->dims[i];
    uint64_t k = kn_dim_symbol_of(d);
    if (kn_dim_known(d))
      lua_pushinteger(L, d);
    else
      lua_pushstring(L, d != KN_DIM_UNKNOWN && k < g->nsymbols ? g->symbols[k] : "?");
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "shape");
}

static int list_values(lua_State *L, const kn_graph *g, kn_value *const *v, uint32_t n) {
  luaL_checkstack(L, 8, "values");
  lua_newtable(L);
  for (uint32_t i = 0; i < n; i++) {
    push_value_info(L, g, v[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* g:inputs(), g:outputs(): {name =, type = "float32[N,10]", dtype =, shape = {"N", 10}, device =} each. */
static int graph_inputs(lua_State *L) {
  const kn_graph *g = kl_newest_variant(L, 1)->graph;
  return list_values(L, g, g->body->params, g->body->nparams);
}

static int graph_outputs(lua_State *L) {
  const kn_graph *g = kl_newest_variant(L, 1)->graph;
  return list_values(L, g, g->body->yields, g->body->nyields);
}

/* g:guards(): {kind =, name =, value =, where =} each. */
static int graph_guards(lua_State *L) {
  const kn_graph *g = kl_newest_variant(L, 1)->graph;
  luaL_checkstack(L, 6, "guards");
  lua_newtable(L);
  for (uint32_t i = 0; i < g->nguards; i++) {
    lua_createtable(L, 0, 4);
    kl_set_text(L, "kind", g->guards[i].kind);
    kl_set_text(L, "name", g->guards[i].name);
    kl_set_text(L, "value", g->guards[i].value);
    kl_set_where(L, g->guards[i].where);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* g:parameters(): tensors and numbers from outside, by name, as they are now. */
static int graph_parameters(lua_State *L) {
  kl_variant *v = kl_newest_variant(L, 1);
  const kn_graph *g = v->graph;
  kn_session *s = kl_variant_session(L, v);
  kl_load_live(L, v);
  luaL_checkstack(L, 6, "parameters");
  lua_newtable(L);
  for (uint32_t i = 0; i < g->nslots; i++) {
    const kn_slot *slot = g->slots[i];
    kn_rvalue value;
    if (slot->kind == KN_SLOT_CONST) continue;
    kn_tensor **to = slot->type.kind == KN_V_TENSOR ? kl_reserve_tensor(L) : NULL;
    kn_status st = kn_session_get_slot(s, i, &value);
    if (st == KN_STATE) { /* from a text that does not hold its data */
      lua_settop(L, lua_gettop(L) - (to != NULL));
      continue;
    }
    if (st != KN_OK) return kl_session_fail(L, s, st);
    if (to)
      kl_fill_tensor(L, to, value.tensor);
    else
      kl_push_scalar(L, &value.scalar);
    lua_setfield(L, -2, slot->name);
  }
  return 1;
}

/* ---- planning ahead ---- */

/* Calls that are made beforehand, where warming up took no longer than this. */
enum { SOME_CALLS = 3 };
#define MOST_SECONDS_OF_CALLS 0.01

static bool names_sizes(lua_State *L, const kn_graph *g, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE) return false;
  bool all = true;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    bool known = false;
    for (uint32_t i = 0; i < g->nsymbols && lua_type(L, -2) == LUA_TSTRING; i++)
      known |= !strcmp(lua_tostring(L, -2), g->symbols[i]);
    all &= known;
    lua_pop(L, 1);
  }
  return all;
}

static int64_t size_given(lua_State *L, const kn_graph *g, const kn_value *v, int dim, int sizes) {
  int64_t d = v->type.tensor.dims[dim];
  uint64_t k = kn_dim_symbol_of(d);
  if (kn_dim_known(d)) return d;
  if (d == KN_DIM_UNKNOWN || k >= g->nsymbols)
    kl_error(L, KN_ARG, "graph %s: size %d of input %s has no name; give the inputs themselves", g->name,
             dim + 1, v->name ? v->name : "");
  int whole = 0;
  lua_Integer n = 0;
  if (sizes) {
    lua_getfield(L, sizes, g->symbols[k]);
    n = lua_tointegerx(L, -1, &whole);
    lua_pop(L, 1);
  }
  if (!whole || n < 0)
    kl_error(L, KN_ARG, "graph %s: size %s is needed, a whole number", g->name, g->symbols[k]);
  return n;
}

/* Inputs of the sizes given; their memory is never touched. */
static void make_inputs(lua_State *L, const kn_graph *g, int sizes, kn_rvalue *in) {
  luaL_checkstack(L, (int)g->body->nparams + 8, "too many inputs");
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    const kn_value *v = g->body->params[i];
    in[i] = (kn_rvalue){0};
    if (v->type.kind != KN_V_TENSOR) {
      in[i].scalar.kind = v->type.kind == KN_V_BOOL    ? KN_SCALAR_BOOL
                          : v->type.kind == KN_V_FLOAT ? KN_SCALAR_FLOAT
                                                       : KN_SCALAR_INT;
      continue;
    }
    kn_type t = v->type.tensor;
    for (int d = 0; d < t.rank; d++) t.dims[d] = size_given(L, g, v, d, sizes);
    kn_tensor **slot = kl_reserve_tensor(L);
    kl_check(L, kn_tensor_new(kl_context(L), &t, slot));
    in[i].tensor = *slot;
  }
}

static bool gives_sizes(lua_State *L, const kn_graph *g) {
  int given = lua_gettop(L) - 1;
  return given == 0 || (given == 1 && names_sizes(L, g, 2));
}

/* Plans for the arguments or sizes that a method was given. The inputs stay on the Lua stack. */
static kn_session *plan(lua_State *L, kl_variant *v, kn_rvalue **inputs, kn_run_memory *memory) {
  const kn_graph *g = v->graph;
  int given = lua_gettop(L) - 1;
  bool sizes = gives_sizes(L, g);
  kn_rvalue *in = lua_newuserdatauv(L, ((size_t)g->body->nparams + 1) * sizeof *in, 0);
  luaL_checkstack(L, (int)g->body->nparams + 8, "too many inputs");
  if (sizes)
    make_inputs(L, g, given ? 2 : 0, in);
  else
    kl_flatten(L, v, 2, given, in);
  kn_session *s = kl_variant_session(L, v);
  kn_status st = kn_session_prepare(s, in, g->body->nparams, memory);
  if (st != KN_OK) kl_session_fail(L, s, st);
  *inputs = in;
  return s;
}

/* The way from Lua and back is warm after calls as a script makes them: of graphs that leave nothing behind,
 * where a call would run this variant. */
static void call_some(lua_State *L, kl_graph *g, kl_variant *v, int top) {
  char why[400];
  if (!kn_session_is_pure(v->session)) return;
  if (g->choose && !kc_live_check(L, kl_host(), v->live, 2, top - 1, why, sizeof why)) return;
  luaL_checkstack(L, top, "too many inputs");
  for (int i = 0; i < SOME_CALLS; i++) {
    for (int k = 1; k <= top; k++) lua_pushvalue(L, k);
    lua_call(L, top - 1, 0);
  }
  kl_run_graph(L, g, v, 2, KL_RUN_WARM); /* whose results' memory is what the next call takes */
}

/* g:prepare{N = 8}, or with inputs: plans now, and runs it until that is as fast as it will be, with nothing
 * of it kept, so that the first call with these sizes has nothing to make. */
static int graph_prepare(lua_State *L) {
  kl_graph *g = kl_check_graph(L, 1);
  kl_variant *v = kl_newest_variant(L, 1);
  kn_context *ctx = kl_context(L);
  kn_run_memory memory;
  kn_rvalue *in;
  int top = lua_gettop(L);
  bool as_called =
      !gives_sizes(L, v->graph) && !ctx->recorder && !kn_mode_needed(v->graph, ctx->grad_enabled);
  kn_session *s = plan(L, v, &in, &memory);
  uint32_t n = v->graph->body->nparams;
  kl_load_live(L, v);
  kn_session *taped = kl_taped_session(L, g, v, s, in);
  kn_status st = taped ? kn_session_prepare(taped, in, n, &memory) : KN_OK;
  if (st != KN_OK) return kl_session_fail(L, taped, st);
  kl_tell_collector(L); /* of what has been made, so that no call has to */
  if (as_called && !taped) {
    lua_settop(L, top);
    const double start = kn_profile_clock();
    const bool ran = kl_run_graph(L, g, v, 2, KL_RUN_WARM);
    lua_settop(L, top);
    if (ran && kn_profile_clock() - start < MOST_SECONDS_OF_CALLS) call_some(L, g, v, top);
  } else {
    if (taped) s = taped;
    kn_session_context(s)->threads = ctx->threads;
    st = kn_session_warm(s, in, n, NULL);
    if (st != KN_OK && st != KN_DECLINED) return kl_session_fail(L, s, st);
  }
  lua_settop(L, 1);
  return 1;
}

/* g:memory{N = 8}, or with inputs: bytes that calls take beside results and weights, with the weights that
 * are packed; and a table of what that is and what else there is: {arena =, workspace =, packed =, plan =,
 * results =, state =}. */
static int graph_memory(lua_State *L) {
  kn_run_memory m;
  plan(L, kl_newest_variant(L, 1), &(kn_rvalue *){NULL}, &m);
  const struct {
    const char *name;
    size_t bytes;
  } rows[] = {{"arena", m.arena}, {"workspace", m.workspace}, {"packed", m.packed},
              {"plan", m.plan},   {"results", m.results},     {"state", m.state}};
  luaL_checkstack(L, 4, "memory");
  lua_pushinteger(L, (lua_Integer)(m.arena + m.workspace + m.packed));
  lua_createtable(L, 0, 4);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    lua_pushinteger(L, (lua_Integer)rows[i].bytes);
    lua_setfield(L, -2, rows[i].name);
  }
  return 2;
}

void kl_set_look_methods(lua_State *L) {
  kl_set_nodes_methods(L);
  kl_set_grad_methods(L);
  static const luaL_Reg list[] = {{"code", graph_code},       {"inputs", graph_inputs},
                                  {"outputs", graph_outputs}, {"parameters", graph_parameters},
                                  {"guards", graph_guards},   {"memory", graph_memory},
                                  {"prepare", graph_prepare}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}
