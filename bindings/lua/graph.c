/* Graph objects: life, and calls. A Graph holds the variants captured so far (one, when it was loaded or
 * parsed) and runs the one that fits the arguments, in a session of its own. */
#include "backends/registry.h"
#include "bindings/lua/graph_parts.h"
#include "core/grad/tape.h"
#include <stdlib.h>
#include <string.h>

static const char graph_key; /* registry key of the metatable */

/* ---- life ---- */

kl_graph *kl_push_graph(lua_State *L) {
  kl_graph *g = lua_newuserdatauv(L, sizeof *g, 4);
  *g = (kl_graph){.heap = NULL};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &graph_key);
  lua_setmetatable(L, -2);
  g->heap = kn_heap_retain(kl_context(L)->heap);
  return g;
}

kl_graph *kl_test_graph(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx)) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &graph_key);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? lua_touserdata(L, idx) : NULL;
}

kl_graph *kl_check_graph(lua_State *L, int idx) {
  kl_graph *g = kl_test_graph(L, idx);
  if (!g) kl_error(L, KN_ARG, "argument %d must be a Graph, got %s", idx, kl_kind(L, idx));
  return g;
}

static void free_variant(lua_State *L, kn_heap *heap, kl_variant *v) {
  if (v->live) kc_live_free(L, v->live);
  if (v->places) luaL_unref(L, LUA_REGISTRYINDEX, v->places);
  kl_free_derived(heap, v->derived);
  kn_session_free(v->session);
  kn_graph_release(v->graph);
  kn_free(heap, v, sizeof *v);
}

kl_variant *kl_add_variant(lua_State *L, kl_graph *g, kn_graph *owned, kc_live *live) {
  kl_variant *v = kn_calloc(g->heap, 1, sizeof *v);
  if (!v) {
    if (live) kc_live_free(L, live);
    kn_graph_release(owned);
    kl_check(L, kn_fail_nomem(kl_context(L), sizeof *v));
    return NULL;
  }
  *v = (kl_variant){.next = g->variants, .graph = owned, .live = live};
  return g->variants = v;
}

static int graph_gc(lua_State *L) {
  kl_graph *g = lua_touserdata(L, 1);
  while (g->variants) {
    kl_variant *next = g->variants->next;
    free_variant(L, g->heap, g->variants);
    g->variants = next;
  }
  kn_heap_release(g->heap);
  g->heap = NULL;
  return 0;
}

kl_variant *kl_newest_variant(lua_State *L, int idx) {
  kl_graph *g = kl_check_graph(L, idx);
  if (!g->variants)
    kl_error(L, KN_STATE,
             "this function has not been captured yet: call it once, or give kiln.script its inputs");
  return g->variants;
}

/* ---- sessions ---- */

static int run_failed(lua_State *L, bool placed) {
  if (!placed) return kl_fail(L);
  kl_push_placed(L, kn_error(kl_context(L)), false);
  return lua_error(L);
}

int kl_session_fail(lua_State *L, kn_session *s, kn_status st) {
  const kn_context *run = kn_session_context(s);
  bool placed = run->error_placed;
  kn_fail(kl_context(L), st, "%s", kn_error(run));
  return run_failed(L, placed);
}

void kl_note_hook(lua_State *L) {
  kl_state *s = kl_state_of(L);
  s->hook = lua_gethook(s->main);
}

kn_status kl_poll_hook(void *ud, uint64_t steps) {
  kl_state *s = ud;
  lua_Hook now = lua_gethook(s->main);
  (void)steps;
  return now && now != s->hook ? KN_CANCELLED : kl_count_step(s);
}

kn_status kl_interrupt(void *ud, bool begins) {
  kl_state *s = ud;
  if (begins) s->hook = lua_gethook(s->main);
  return kl_poll_hook(s, 0);
}

kn_session *kl_variant_session(lua_State *L, kl_variant *v) {
  kn_context *ctx = kl_context(L);
  kl_note_hook(L);
  if (v->session) return v->session;
  const kn_target *const *targets;
  const char *check = getenv("KILN_CHECK");
  int n;
  kl_check(L, kn_registry_targets(ctx, &targets, &n));
  kl_check(L, kn_session_new(ctx, v->graph, targets, n, &v->session));
  kn_session_context(v->session)->reclaims = true;
  kn_session_set_poll(v->session, kl_poll_hook, kl_state_of(L));
  kn_session_set_watch(v->session, false);
  kn_session_set_check(v->session, check && !strcmp(check, "1"));
  return v->session;
}

void kl_load_live(lua_State *L, kl_variant *v) {
  if (v->live) kl_check(L, kc_live_load(L, kl_host(), v->live, kl_variant_session(L, v)));
  if (v->places) kl_load_places(L, v);
}

/* ---- calls ---- */

kl_variant *kl_choose_variant(lua_State *L, kl_graph *g, int self, int first) {
  kl_variant *v = g->choose ? g->choose(L, g, self, first) : g->variants;
  if (!v) kl_error(L, KN_STATE, "this Graph is empty");
  return v;
}

enum { ON_STACK = 32 }; /* inputs or outputs kept in the C stack */

/* Room for n values: in `few`, or in a userdata that is left on the Lua stack. */
static kn_rvalue *room(lua_State *L, uint32_t n, kn_rvalue *few) {
  return n <= ON_STACK ? few : lua_newuserdatauv(L, n * sizeof *few, 0);
}

/* Userdata for the output tensors, before there are any: nothing may be raised while C owns them. */
static int reserve_outputs(lua_State *L, const kn_region *body) {
  int outs = lua_gettop(L) + 1;
  for (uint32_t i = 0; i < body->nyields; i++)
    if (body->yields[i]->type.kind == KN_V_TENSOR)
      kl_reserve_tensor(L);
    else
      lua_pushnil(L);
  return outs;
}

/* Results that nobody is to have. */
static void empty_outputs(lua_State *L, const kn_region *body, int outs) {
  for (uint32_t i = 0; i < body->nyields; i++)
    if (lua_touserdata(L, outs + (int)i))
      kl_empty_box(kl_state_of(L)->boxes, lua_touserdata(L, outs + (int)i));
}

static void fill_outputs(lua_State *L, const kn_region *body, int outs, const kn_rvalue *out) {
  for (uint32_t i = 0; i < body->nyields; i++)
    if (out[i].tensor) kl_put_tensor(lua_touserdata(L, outs + (int)i), out[i].tensor);
  kl_tell_collector(L); /* all are safe now */
}

int kl_run_graph(lua_State *L, kl_graph *g, kl_variant *v, int first, kl_run how) {
  kn_context *ctx = kl_context(L);
  const kn_region *body = v->graph->body;
  kn_rvalue few_in[ON_STACK], few_out[ON_STACK];
  int given = lua_gettop(L) - first + 1;
  if (ctx->recorder && ctx->recorder->runs) return kl_run_in_trace(L, g, v, first);
  if (ctx->recorder)
    return kl_error(L, KN_UNSUPPORTED,
                    "graph %s: calling a Graph inside a captured function is not supported yet; call "
                    "the function it was made of",
                    v->graph->name);
  uint64_t slots = (uint64_t)body->nparams + body->nyields + 16;
  if (slots > 100000)
    return kl_error(L, KN_LIMIT, "graph %s has too many inputs and outputs for Lua", v->graph->name);
  luaL_checkstack(L, (int)slots, "too many inputs and outputs");
  kn_rvalue *in = room(L, body->nparams, few_in), *out = room(L, body->nyields, few_out);
  int ins = kl_flatten(L, v, first, given, in);
  const char *why = kn_mode_needed(v->graph, ctx->grad_enabled);
  if (why && !v->live) return kl_error(L, KN_ARG, "graph %s: %s", v->graph->name, why);
  kn_session *s = kl_variant_session(L, v);
  kl_offer_hosts(L, s);
  if (!v->loaded) kl_load_live(L, v);
  v->loaded = false;
  int outs = reserve_outputs(L, body);
  kn_status st;
  if (how == KL_RUN_CALL &&
      kl_run_taped(L, g, v, s, in, out, &st)) { /* who only looks watches the graph itself */
    if (st != KN_OK) return run_failed(L, ctx->error_placed);
    goto ran;
  }
  kn_session_use_random(s, &ctx->random);
  kn_session_context(s)->threads = ctx->threads;
  kn_session_context(s)->print = ctx->print;
  st = how == KL_RUN_WARM ? kn_session_warm(s, in, body->nparams, out)
                          : kn_session_run(s, in, body->nparams, out, body->nyields);
  if (st == KN_DECLINED && how == KL_RUN_WARM) return 0;
  if (st != KN_OK) return kl_session_fail(L, s, st);
ran:
  fill_outputs(L, body, outs, out);
  if (how == KL_RUN_CALL && v->places) kl_store_places(L, v);
  int n = kl_unflatten(L, v, ins, outs, out); /* before places get other tensors than the run has seen */
  if (how == KL_RUN_WARM) return empty_outputs(L, body, outs), 1;
  if (how == KL_RUN_CALL && v->live) kl_check(L, kc_live_store(L, kl_host(), v->live, s, ins, outs));
  return n;
}

int kl_run_variant(lua_State *L, kl_graph *g, kl_variant *v, int first) {
  return kl_run_graph(L, g, v, first, KL_RUN_CALL);
}

static int graph_call(lua_State *L) {
  kl_graph *g = kl_check_graph(L, 1);
  return kl_run_variant(L, g, kl_choose_variant(L, g, 1, 2), 2);
}

/* ---- opening ---- */

/* The newest capture, as in every other look at a Graph: the text of one graph is what kiln.parse reads. */
static int graph_text(lua_State *L) {
  kl_graph *g = kl_check_graph(L, 1);
  int older = 0;
  if (!g->variants) {
    lua_pushliteral(L, "Graph (not captured yet)");
    return 1;
  }
  for (const kl_variant *v = g->variants->next; v; v = v->next) older++;
  kl_push_graph_text(L, g->variants->graph, KN_TEXT_BRIEF);
  if (!older) return 1;
  lua_pushfstring(L, "; the newest of %d captures\n", older + 1);
  lua_concat(L, 2);
  return 1;
}

void kl_open_graph(lua_State *L) {
  static const luaL_Reg meta[] = {
      {"__gc", graph_gc}, {"__call", graph_call}, {"__tostring", graph_text}, {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, meta, 0);
  lua_newtable(L);
  kl_set_look_methods(L);
  kl_set_profile_methods(L);
  kl_set_verify_methods(L);
  kl_set_optimize_methods(L);
  kl_set_file_methods(L);
  kl_set_owed_methods(L);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "Graph");
  lua_setfield(L, -2, "__name");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &graph_key);
  kl_set_file_functions(L);
}
