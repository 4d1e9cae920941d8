/* The tensors and numbers of a graph's slots: from the program's places into a session before a run, and what
 * the graph stores back after it. What is guarded is live.c's business. */
#include "lua/capture/live_inside.h"
#include "core/grad/tape.h"

/* ---- before a run ---- */

static kn_status give_slot(kn_context *ctx, kn_session *s, const kc_check *k, const kn_rvalue *v) {
  kn_status st = kn_session_set_slot(s, k->slot->index, v);
  return st == KN_OK ? st : kn_fail(ctx, st, "%s: %s", k->name, kn_error(kn_session_context(s)));
}

static kn_status load_slot(lua_State *L, const kc_host *host, kc_live *l, kn_session *s, const kc_check *k) {
  kn_context *ctx = host->context(L);
  kn_rvalue v = {0};
  bool there, grad = ctx->grad_enabled;
  if (k->kind == KC_LOOK_GRAD) {
    lua_rawgeti(L, -1, k->container);
    const kn_tensor *of = host->test_tensor(L, -1);
    there = of && (v.tensor = kn_grad_of(of)) != NULL;
    lua_pop(L, 1);
  } else if (k->quick)
    there = (v.tensor = kc_guards_tensor(&l->quick, host, k->quick - 1)) != NULL;
  else {
    int anchors = lua_gettop(L);
    lua_rawgeti(L, anchors, k->container);
    kc_look_again(L, anchors, k);
    there = k->number ? host->test_scalar(L, -1, &v.scalar) : (v.tensor = host->test_tensor(L, -1)) != NULL;
    lua_settop(L, anchors);
  }
  if (!there) return kn_fail(ctx, KN_STATE, "'%s' (%s) is not there any more", k->name, k->where);
  if (k->quiet) ctx->grad_enabled = false;
  kn_status st = k->overwritten ? kn_check_writable(ctx, k->name, v.tensor) : KN_OK;
  ctx->grad_enabled = grad;
  KN_TRY(st);
  return give_slot(ctx, s, k, &v);
}

kn_status kc_live_load(lua_State *L, const kc_host *host, kc_live *l, kn_session *s) {
  kn_status st = KN_OK;
  if (!lua_checkstack(L, 8)) return kn_fail_nomem(host->context(L), 0);
  l->loaded = NULL;
  kc_guards_forget(&l->quick);
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  for (uint32_t i = 0; st == KN_OK && i < l->nslots; i++)
    st = load_slot(L, host, l, s, &l->checks[l->slots[i]]);
  lua_pop(L, 1);
  return st;
}

kn_status kc_live_load_checked(lua_State *L, const kc_host *host, kc_live *l, kn_session *s) {
  kn_context *ctx = host->context(L);
  kn_status st = KN_OK;
  bool again = l->loaded == s;
  if (again && l->all_quick && !l->quick.moved) return KN_OK;
  if (!lua_checkstack(L, 8)) return kn_fail_nomem(ctx, 0);
  if (!again) kc_guards_forget(&l->quick);
  l->loaded = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  for (uint32_t i = 0; st == KN_OK && i < l->nslots; i++) {
    const kc_check *k = &l->checks[l->slots[i]];
    if (!k->quick)
      st = load_slot(L, host, l, s, k);
    else if (!kc_guards_is_given(&l->quick, k->quick - 1))
      st = give_slot(ctx, s, k, &(kn_rvalue){.tensor = kc_guards_give(&l->quick, k->quick - 1)});
  }
  if (st != KN_OK) kc_guards_forget(&l->quick);
  l->loaded = st == KN_OK ? s : NULL;
  lua_pop(L, 1);
  return st;
}

/* ---- after it ---- */

static kn_status get_slot(kn_context *ctx, kn_session *s, const kc_check *k, const kn_slot *slot,
                          kn_rvalue *v) {
  kn_status st = kn_session_get_slot(s, slot->index, v);
  return st == KN_OK ? st : kn_fail(ctx, st, "%s: %s", k->name, kn_error(kn_session_context(s)));
}

/* The tensor that is there keeps its identity and gets other contents; its container is on top. The slot then
 * has that tensor, and the session what it had stored to in another run. */
static kn_status overwrite_there(lua_State *L, const kc_host *host, kn_session *s, int anchors,
                                 const kc_check *k) {
  kn_context *ctx = host->context(L);
  const kn_slot *slot = k->was ? k->was : k->slot;
  kn_rvalue v = {0};
  KN_TRY(get_slot(ctx, s, k, slot, &v));
  kc_look_again(L, anchors, k);
  kn_tensor *t = host->test_tensor(L, -1);
  bool grad = ctx->grad_enabled;
  ctx->grad_enabled = false;
  kn_status st = t == v.tensor ? KN_OK
                 : t           ? kn_take_elements(ctx, t, v.tensor)
                               : kn_fail(ctx, KN_STATE, "it is not there any more");
  ctx->grad_enabled = grad;
  kn_tensor_release(v.tensor);
  if (st == KN_OK) st = kn_session_set_slot(s, slot->index, &(kn_rvalue){.tensor = t});
  lua_pop(L, 1);
  return st;
}

/* The gradient of the tensor that is the container, on top: what the slot holds now, or none. */
static kn_status store_grad(lua_State *L, const kc_host *host, kn_session *s, const kc_check *k) {
  kn_context *ctx = host->context(L);
  kn_tensor *t = host->test_tensor(L, -1);
  kn_rvalue v = {0};
  if (!t) return KN_OK;
  if (!k->clears && (!k->sometimes || kn_session_wrote(s, k->slot->index)))
    KN_TRY(get_slot(ctx, s, k, k->slot, &v));
  kn_status st = kn_set_grad(ctx, t, v.tensor);
  kn_tensor_release(v.tensor);
  return st;
}

static void write_back(lua_State *L, int anchors, const kc_check *k) { /* container, value */
  if (k->kind == KC_LOOK_UPVALUE) {
    if (!lua_setupvalue(L, -2, (int)k->key.as.i)) lua_pop(L, 1);
    return;
  }
  kc_push_key(L, anchors, &k->key);
  lua_insert(L, -2);
  lua_rawset(L, -3);
}

/* Where tensors that are stored are found. */
typedef struct storing {
  lua_State *L;
  const kc_host *host;
  kc_live *l;
  kn_session *s;
  int anchors, ins, outs, objects; /* objects: of what is stored, by number of its check, from 1 */
} storing;

static const kn_slot *overwrites(const kc_check *k) {
  return !k->overwritten ? NULL : k->was ? k->was : k->slot;
}

/* Pushes what is at the place. */
static bool push_place(lua_State *L, int anchors, const kc_check *k) {
  lua_rawgeti(L, anchors, k->container);
  kc_look_again(L, anchors, k);
  lua_remove(L, -2);
  return true;
}

/* A result that has a history is not kept: what is outside has none. */
static bool push_output(const storing *x, uint32_t i) {
  const kn_tensor *t = x->host->test_tensor(x->L, x->outs + (int)i);
  if (!t || kn_requires_grad(t)) return false;
  lua_pushvalue(x->L, x->outs + (int)i);
  return true;
}

static bool push_input(const storing *x, uint32_t i) {
  lua_pushvalue(x->L, x->ins + (int)i);
  return true;
}

/* What the graph itself says. */
static bool push_known(const storing *x, const kn_value *v) {
  const kn_region *body = kn_session_graph(x->s)->body;
  if (!v->def && v->region == body) return push_input(x, v->index);
  if (v->def && (v->def->op == KN_NODE_param || v->def->op == KN_NODE_load_state) &&
      kc_live_push_slot(x->L, x->l, v->def->slot))
    return true;
  const kn_node *n = body->last;
  for (; n && (n->op == KN_NODE_update || n->op == KN_NODE_store_state); n = n->prev) {
    if (n->op == KN_NODE_update && n->in[1] == v) return push_input(x, n->in[0]->index);
    if (n->op == KN_NODE_store_state && n->in[0] == v && kc_live_push_overwritten(x->L, x->l, n->slot))
      return true;
  }
  return false;
}

static bool push_result(const storing *x, const kn_value *v) {
  const kn_region *body = kn_session_graph(x->s)->body;
  for (uint32_t i = 0; i < body->nyields; i++)
    if (body->yields[i] == v) return push_output(x, i);
  return false;
}

/* What the run has found out. */
static bool push_found(const storing *x, const kc_check *k) {
  uint32_t group, other;
  kn_origin from = kn_session_stored(x->s, k->slot->index, &group);
  for (uint32_t i = 0; i < x->l->nchecks; i++) {
    const kn_slot *slot = overwrites(&x->l->checks[i]);
    if (!slot || !x->l->checks[i].in_graph) continue;
    kn_session_stored(x->s, slot->index, &other);
    if (other == group) return push_place(x->L, x->anchors, &x->l->checks[i]);
  }
  if (from.from == KN_FROM_INPUT) return push_input(x, from.index);
  if (from.from == KN_FROM_SLOT)
    return kc_live_push_slot(x->L, x->l, kn_session_graph(x->s)->slots[from.index]);
  return from.from == KN_FROM_OUTPUT && push_output(x, from.index);
}

/* A tensor that has been found for an earlier place. */
static bool push_earlier(const storing *x, const kc_check *k) {
  uint32_t group, other;
  kn_session_stored(x->s, k->slot->index, &group);
  for (const kc_check *o = x->l->checks; o < k; o++) {
    if (!o->written || !o->in_graph || o->number || o->kind == KC_LOOK_GRAD) continue;
    kn_session_stored(x->s, o->slot->index, &other);
    if (o->stored != k->stored && other != group) continue;
    lua_rawgeti(x->L, x->objects, (lua_Integer)(o - x->l->checks) + 1);
    return true;
  }
  return false;
}

/* Pushes what goes to the place. */
static kn_status push_stored(const storing *x, const kc_check *k) {
  kn_rvalue v = {0};
  if (!k->number && k->stored &&
      (push_known(x, k->stored) || push_found(x, k) || push_result(x, k->stored) || push_earlier(x, k)))
    return KN_OK;
  KN_TRY(get_slot(x->host->context(x->L), x->s, k, k->slot, &v));
  if (v.tensor)
    x->host->push_tensor(x->L, v.tensor);
  else
    x->host->push_scalar(x->L, &v.scalar);
  return KN_OK;
}

/* All are found before the first is written: a place may get what another one had. */
static kn_status find_objects(const storing *x) {
  for (uint32_t i = 0; i < x->l->nchecks; i++) {
    const kc_check *k = &x->l->checks[i];
    if (!k->slot || !k->in_graph || !k->written || k->kind == KC_LOOK_GRAD) continue;
    KN_TRY(push_stored(x, k));
    lua_rawseti(x->L, x->objects, (lua_Integer)i + 1);
  }
  return KN_OK;
}

static kn_status store_place(const storing *x, uint32_t i) {
  lua_State *L = x->L;
  const kc_check *k = &x->l->checks[i];
  bool stored = k->slot && k->in_graph && (k->written || k->overwritten);
  if (!stored && !k->clears) return KN_OK;
  lua_rawgeti(L, x->anchors, k->container);
  if (k->kind == KC_LOOK_GRAD) return store_grad(L, x->host, x->s, k);
  if (k->overwritten) KN_TRY(overwrite_there(L, x->host, x->s, x->anchors, k));
  if (!k->written) return KN_OK;
  lua_rawgeti(L, x->objects, (lua_Integer)i + 1);
  write_back(L, x->anchors, k);
  return KN_OK;
}

kn_status kc_live_store(lua_State *L, const kc_host *host, kc_live *l, kn_session *s, int ins, int outs) {
  int top = lua_gettop(L);
  if (!l->stores) return KN_OK;
  if (!lua_checkstack(L, 12)) return kn_fail_nomem(host->context(L), 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  bool any = false;
  for (uint32_t i = 0; i < l->nchecks && !any; i++) any = l->checks[i].slot && l->checks[i].written;
  if (any)
    lua_newtable(L);
  else
    lua_pushnil(L);
  storing x = {L, host, l, s, top + 1, ins, outs, top + 2};
  kn_status st = any ? find_objects(&x) : KN_OK;
  for (uint32_t i = 0; st == KN_OK && i < l->nchecks; i++) {
    st = store_place(&x, i);
    lua_settop(L, top + 2);
  }
  lua_settop(L, top);
  return st;
}

static bool push_where(lua_State *L, kc_live *l, const kn_slot *slot, bool overwritten) {
  if (!lua_checkstack(L, 8)) return false;
  for (uint32_t i = 0; i < l->nchecks; i++) {
    const kc_check *k = &l->checks[i];
    if ((overwritten ? overwrites(k) : k->slot) != slot) continue;
    if (k->number || k->born || k->kind == KC_LOOK_GRAD) continue;
    lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
    push_place(L, lua_gettop(L), k);
    lua_remove(L, -2);
    return true;
  }
  return false;
}

bool kc_live_push_slot(lua_State *L, kc_live *l, const kn_slot *slot) {
  return push_where(L, l, slot, false);
}

bool kc_live_push_overwritten(lua_State *L, kc_live *l, const kn_slot *slot) {
  return push_where(L, l, slot, true);
}
