/* Graphs called with tensors that require grad: the call is one node on the tape, whose backward runs the
 * graph's gradient graph. What is derived stays with the variant, once for each set of inputs and slots. */
#include "backends/registry.h"
#include "bindings/lua/graph_parts.h"
#include "core/grad/tape.h"
#include "graph/target.h"
#include "graph/text.h"
#include "graph/grad/call.h"
#include <string.h>

struct kl_derived { /* one set */
  kl_derived *next;
  kn_taped *taped;
};

void kl_free_derived(kn_heap *heap, kl_derived *d) {
  while (d) {
    kl_derived *next = d->next;
    kn_taped_release(d->taped);
    kn_free(heap, d, sizeof *d);
    d = next;
  }
}

/* g:grad([options]), which is written in Lua. */
static int graph_grad(lua_State *L) {
  kl_check_graph(L, 1);
  lua_settop(L, 2);
  bool scripted = lua_getiuservalue(L, 1, 1) == LUA_TTABLE && lua_getfield(L, -1, "f") != LUA_TNIL;
  if (!scripted)
    return kl_error(
        L, KN_UNSUPPORTED,
        "grad: this graph was not captured from a function here; capture a function that takes the "
        "gradient, and save that");
  lua_replace(L, 1);
  lua_settop(L, 2);
  lua_getglobal(L, "require");
  lua_pushstring(L, "kiln.graph.gradient");
  lua_call(L, 1, 1);
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

void kl_set_grad_methods(lua_State *L) {
  lua_pushcfunction(L, graph_grad);
  lua_setfield(L, -2, "grad");
}

static bool slot_wants(kn_session *s, uint32_t i) {
  kn_rvalue v = {0};
  if (kn_session_graph(s)->slots[i]->type.kind != KN_V_TENSOR || kn_session_get_slot(s, i, &v) != KN_OK)
    return false;
  bool wants = v.tensor && kn_requires_grad(v.tensor);
  kn_tensor_release(v.tensor);
  return wants;
}

/* Marks the values that gradients flow to, by id; those of a loop's trips before, too. */
static bool mark_grad(const kn_region *r, const bool *wants, bool *on) {
  bool more = false;
  KN_EACH_NODE (n, r) {
    bool flows = n->slot && n->op != KN_NODE_store_state && wants[r->graph->body->nparams + n->slot->index];
    for (uint32_t i = n->op == KN_NODE_with_history; i < n->nin; i++) flows |= on[n->in[i]->id];
    for (int k = 0; k < n->nregions; k++) {
      kn_region *in = n->regions[k];
      for (uint32_t i = 0; i < in->nparams; i++) /* a loop's: whatever comes in, or comes around */
        if (!on[in->params[i]->id] && (flows || (in->nyields > 1 + i && on[in->yields[1 + i]->id])))
          on[in->params[i]->id] = more = true;
      more |= mark_grad(in, wants, on);
      for (uint32_t i = 0; i < in->nyields; i++) flows |= on[in->yields[i]->id];
    }
    if (n->no_grad || n->op == KN_NODE_detach) continue;
    for (uint32_t i = 0; flows && i < n->nout; i++)
      if (!on[n->out[i]->id]) on[n->out[i]->id] = more = true;
  }
  return more;
}

/* Eager would refuse to write to a leaf, and give another tensor a history that a graph cannot give. */
static kn_status check_updates(lua_State *L, const kn_graph *g, const kn_rvalue *in, const bool *wants) {
  const kn_node *last = g->body->last;
  while (last && last->op == KN_NODE_store_state) last = last->prev;
  if (!last || last->op != KN_NODE_update) return KN_OK; /* they stand at the end */
  bool *on = lua_newuserdatauv(L, g->nvalues + 1u, 0);
  memset(on, 0, g->nvalues + 1u);
  for (uint32_t i = 0; i < g->body->nparams; i++) on[g->body->params[i]->id] = wants[i];
  while (mark_grad(g->body, wants, on)) {
  }
  for (const kn_node *n = last; n && (n->op == KN_NODE_update || n->op == KN_NODE_store_state); n = n->prev) {
    if (n->op != KN_NODE_update || (!wants[n->in[0]->index] && !on[n->in[1]->id])) continue;
    const char *name = n->in[0]->name;
    kn_context *ctx = kl_context(L);
    kn_status st = KN_OK;
    if (n->where && kn_where_composite(n->where)) /* as what writes to it would say it */
      st = kn_check_writable(ctx, "", in[n->in[0]->index].tensor);
    kn_error_unname(ctx, kn_op_name(KN_OP_copy_));
    if (st == KN_OK)
      st = kn_fail(
          ctx, KN_UNSUPPORTED,
          "graph %s: input %s %s, and the graph overwrites it; call it under kiln.no_grad, or give it "
          "a clone",
          g->name, name ? name : "", wants[n->in[0]->index] ? "requires grad" : "would get a history");
    return kn_node_failed(ctx, n, st);
  }
  lua_pop(L, 1);
  return KN_OK;
}

/* Which inputs and slots require grad; false when none does. */
static bool list_wants(kn_session *s, const kn_rvalue *in, bool *wants) {
  const kn_graph *g = kn_session_graph(s);
  bool any = false;
  for (uint32_t i = 0; i < g->body->nparams; i++)
    any |= wants[i] =
        in[i].tensor && g->body->params[i]->type.kind == KN_V_TENSOR && kn_requires_grad(in[i].tensor);
  for (uint32_t i = 0; i < g->nslots; i++) any |= wants[g->body->nparams + i] = slot_wants(s, i);
  return any;
}

static kn_taped *derive(lua_State *L, kl_graph *g, kl_variant *v, const bool *wants) {
  kn_context *ctx = kl_context(L);
  for (kl_derived *d = v->derived; d; d = d->next)
    if (kn_taped_is_for(d->taped, wants)) return d->taped;
  const kn_target *const *targets;
  int n;
  kl_check(L, kn_registry_targets(ctx, &targets, &n));
  kl_derived *d = kn_calloc(g->heap, 1, sizeof *d);
  if (!d) kl_check(L, kn_fail_nomem(ctx, sizeof *d));
  kn_status st = kn_taped_new(ctx, v->graph, wants, g->memory, targets, n, &d->taped);
  if (st != KN_OK) {
    kn_free(g->heap, d, sizeof *d);
    kn_error_prefix(ctx, "the gradient of graph %s", v->graph->name);
    kl_check(L, st);
  }
  kn_taped_set_poll(d->taped, kl_poll_hook, kl_state_of(L));
  d->next = v->derived;
  return (v->derived = d)->taped;
}

static kn_status copy_slots(kn_context *ctx, kn_session *from, kn_session *to, bool all) {
  const kn_graph *g = kn_session_graph(all ? from : to); /* that of the function: the other has more */
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_rvalue v = {0};
    if (!all && g->slots[i]->kind != KN_SLOT_STATE) continue;
    if (kn_session_get_slot(from, i, &v) != KN_OK)
      continue; /* it has no data: the run says so if that matters */
    kn_status st = kn_session_set_slot(to, i, &v);
    kn_tensor_release(v.tensor);
    if (st != KN_OK)
      return kn_fail(ctx, st, "slot %s: %s", g->slots[i]->name, kn_error(kn_session_context(to)));
  }
  return KN_OK;
}

bool kl_run_taped(lua_State *L, kl_graph *g, kl_variant *v, kn_session *s, const kn_rvalue *in,
                  kn_rvalue *out, kn_status *st) {
  kn_context *ctx = kl_context(L);
  const kn_region *body = v->graph->body;
  if (!ctx->grad_enabled) return false;
  bool *wants = lua_newuserdatauv(L, body->nparams + v->graph->nslots + 1u, 0);
  bool any = list_wants(s, in, wants);
  if (any) {
    kl_check(L, kn_check_needs(ctx, v->graph, in));
    if ((*st = check_updates(L, v->graph, in, wants)) != KN_OK) return true;
  }
  kn_taped *t = any ? derive(L, g, v, wants) : NULL;
  lua_pop(L, 1);
  if (!t) return false;
  kn_session *run = kn_taped_session(t);
  kl_offer_hosts(L, run);
  kn_session_use_random(run, &ctx->random);
  kn_session_context(run)->threads = ctx->threads;
  kn_session_context(run)->print = ctx->print;
  ctx->error_placed = false;
  *st = copy_slots(ctx, s, run, true);
  if (*st == KN_OK) *st = kn_taped_run(ctx, t, in, body->nparams, out, body->nyields);
  if (*st == KN_OK) *st = copy_slots(ctx, run, s, false);
  kn_session_as_wrote(s, run);
  kn_session_forget_origins(s);
  return true;
}
