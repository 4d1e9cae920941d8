/* g:nodes(inputs…): the nodes of a Graph, and when inputs are given what a run on them did at each.
 * g:captures(): how often it was captured, why, and which loops were unrolled. Both are what kiln.explain
 * puts together. */
#include "bindings/lua/graph_parts.h"
#include "graph/cost.h"
#include <stdlib.h>

typedef struct seen { /* one node */
  const kn_node *node;
  uint64_t runs, yes, trips; /* yes: times an `if` was true */
  kn_cost cost;
} seen;

typedef struct observed {
  const kn_graph *g;
  kn_session *s;
  seen *at; /* by address of the node */
  size_t n;
  kl_variant *v;
  int first;
  bool none; /* called without inputs */
} observed;

static int by_node(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)((const seen *)a)->node, y = (uintptr_t)((const seen *)b)->node;
  return x < y ? -1 : x > y;
}

static void gather(observed *o, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    o->at[o->n++] = (seen){.node = n};
    for (int i = 0; i < n->nregions; i++) gather(o, n->regions[i]);
  }
}

static size_t count_nodes(const kn_region *r) {
  size_t count = 0;
  KN_EACH_NODE (n, r) {
    count++;
    for (int i = 0; i < n->nregions; i++) count += count_nodes(n->regions[i]);
  }
  return count;
}

static seen *find(const observed *o, const kn_node *n) {
  seen key = {.node = n};
  return bsearch(&key, o->at, o->n, sizeof *o->at, by_node);
}

/* ---- a run, watched ---- */

static void watch(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars) {
  observed *o = ud;
  seen *x = find(o, n);
  if (!x) return;
  x->runs++;
  kn_cost c;
  if (kn_cost_by_tensors(n, vals, &c)) {
    x->cost.flops += c.flops;
    x->cost.bytes += c.bytes;
  }
  if (n->op == KN_NODE_if) x->yes += scalars[n->in[0]->id].as.b;
  if (n->op == KN_NODE_loop) x->trips += kn_session_trips(o->s);
}

/* On the stack: the observed, the Graph, its arguments. */
static int run_watched(lua_State *L) {
  observed *o = lua_touserdata(L, 1);
  kl_run_graph(L, kl_check_graph(L, 2), o->v, 3, KL_RUN_LOOK);
  return 0;
}

/* Runs on the arguments at [2, top]; what it stores and draws is forgotten. Leaves the error's text, or nil.
 */
static void run(lua_State *L, observed *o) {
  int nargs = lua_gettop(L) - 2; /* the observed lies on top */
  kn_context *ctx = kl_context(L);
  kn_random start = ctx->random;
  luaL_checkstack(L, nargs + 8, "too many arguments");
  lua_pushcfunction(L, run_watched);
  lua_pushlightuserdata(L, o);
  for (int i = 1; i <= nargs + 1; i++) lua_pushvalue(L, i);
  kn_session_observe(o->s, watch, o);
  int status = lua_pcall(L, nargs + 2, 0, 0);
  kn_session_observe(o->s, NULL, NULL);
  ctx->random = start;
  if (status == LUA_OK) lua_pushnil(L);
}

/* ---- the list ---- */

/* A choice between paths that meet, not one of the program: capture compares the number of a path. */
static bool is_selector(const kn_node *n) {
  const kn_node *eq = n->in[0]->def;
  if (!eq || eq->op != KN_NODE_lua_eq || eq->in[0]->type.kind != KN_V_INT || eq->in[0]->name) return false;
  const kn_node *from = eq->in[0]->def, *code = eq->in[1]->def;
  return from && (from->op == KN_NODE_if || from->op == KN_NODE_loop) && code && code->op == KN_NODE_const;
}

static void set_seen(lua_State *L, const kn_node *n, const seen *x) {
  kl_set_count(L, "runs", x->runs);
  if (kn_opcode_is_op(n->op)) {
    kl_set_number(L, "flops", x->cost.flops);
    kl_set_number(L, "bytes", x->cost.bytes);
  }
  if (n->op == KN_NODE_if) {
    kl_set_count(L, "taken", x->yes);
    kl_set_count(L, "not_taken", x->runs - x->yes);
  }
  if (n->op == KN_NODE_loop) kl_set_count(L, "trips", x->trips);
}

static void list_nodes(lua_State *L, const observed *o, const kn_region *r, int depth, lua_Integer *n) {
  KN_EACH_NODE (node, r) {
    lua_createtable(L, 0, 6);
    kl_set_text(L, "op", kn_opcode_describe(node->op).text);
    kl_set_where(L, node->where);
    if (node->nout) kl_set_text(L, "name", node->out[0]->name);
    kl_set_count(L, "depth", (uint64_t)depth);
    if (node->op == KN_NODE_host_call) kl_set_text(L, "host", node->text);
    if (node->op == KN_NODE_if && is_selector(node)) {
      lua_pushboolean(L, 1);
      lua_setfield(L, -2, "joins");
    }
    if (!o->none) set_seen(L, node, find(o, node));
    lua_rawseti(L, -2, ++*n);
    for (int i = 0; i < node->nregions; i++) list_nodes(L, o, node->regions[i], depth + 1, n);
  }
}

/* g:nodes([inputs…]): {op =, where =, name =, depth =} each, in program order; regions follow their node, one
 * deeper. With inputs the graph is run on them, for this list alone, and each has runs =, an op flops = and
 * bytes =, an `if` taken = and not_taken =, a loop trips =; a call of the host has host =, its name; what the
 * run raised is the second result. */
static int graph_nodes(lua_State *L) {
  kl_graph *g = kl_check_graph(L, 1);
  observed o = {.none = lua_gettop(L) == 1};
  luaL_checkstack(L, 8, "nodes");
  if (o.none && g->variants) {
    const kn_graph *newest = kl_newest_variant(L, 1)->graph;
    o.none = newest->nargs > 0;
  }
  o.v = o.none ? kl_newest_variant(L, 1) : kl_choose_variant(L, g, 1, 2);
  o.g = o.v->graph;
  if (!o.none) {
    o.s = kl_variant_session(L, o.v);
    o.at = lua_newuserdatauv(L, (count_nodes(o.g->body) + 1) * sizeof *o.at, 0);
    gather(&o, o.g->body);
    qsort(o.at, o.n, sizeof *o.at, by_node);
    run(L, &o);
  } else
    lua_pushnil(L);
  lua_Integer n = 0;
  lua_newtable(L);
  list_nodes(L, &o, o.g->body, 1, &n);
  lua_insert(L, -2);
  return 2;
}

/* g:captures(): {n =, name =, cache_limit =, reasons = {text …}, unrolled = {{where =, trips =} …}}. */
static int graph_captures(lua_State *L) {
  kl_graph *g = kl_check_graph(L, 1);
  kl_variant *v = kl_newest_variant(L, 1);
  uint64_t n = 0;
  const char *where;
  int64_t trips;
  for (const kl_variant *x = g->variants; x; x = x->next) n++;
  luaL_checkstack(L, 8, "captures");
  lua_createtable(L, 0, 5);
  kl_set_count(L, "n", n);
  kl_set_text(L, "name", v->graph->name);
  lua_newtable(L);
  lua_setfield(L, -2, "reasons");
  kl_set_captures(L, 1);
  lua_newtable(L);
  for (uint32_t i = 0; v->live && kc_live_unrolled(v->live, i, &where, &trips); i++) {
    lua_createtable(L, 0, 2);
    kl_set_text(L, "where", where);
    kl_set_count(L, "trips", (uint64_t)trips);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "unrolled");
  return 1;
}

void kl_set_nodes_methods(lua_State *L) {
  static const luaL_Reg list[] = {{"nodes", graph_nodes}, {"captures", graph_captures}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}
