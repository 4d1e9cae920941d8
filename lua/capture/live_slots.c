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
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  for (uint32_t i = 0; st == KN_OK && i < l->nslots; i++)
    st = load_slot(L, host, l, s, &l->checks[l->slots[i]]);
  lua_pop(L, 1);
  return st;
}

kn_status kc_live_load_checked(lua_State *L, const kc_host *host, kc_live *l, kn_session *s) {
  kn_context *ctx = host->context(L);
  kn_status st = KN_OK;
  if (!lua_checkstack(L, 8)) return kn_fail_nomem(ctx, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  for (uint32_t i = 0; st == KN_OK && i < l->nslots; i++) {
    const kc_check *k = &l->checks[l->slots[i]];
    st = k->quick ? give_slot(ctx, s, k, &(kn_rvalue){.tensor = l->quick.list[k->quick - 1].now})
                  : load_slot(L, host, l, s, k);
  }
  lua_pop(L, 1);
  return st;
}

/* ---- after it ---- */

static kn_status get_slot(kn_context *ctx, kn_session *s, const kc_check *k, const kn_slot *slot,
                          kn_rvalue *v) {
  kn_status st = kn_session_get_slot(s, slot->index, v);
  return st == KN_OK ? st : kn_fail(ctx, st, "%s: %s", k->name, kn_error(kn_session_context(s)));
}

/* The tensor that is there keeps its identity and gets other contents; its container is on top. */
static kn_status overwrite_there(lua_State *L, const kc_host *host, kn_session *s, int anchors,
                                 const kc_check *k) {
  kn_context *ctx = host->context(L);
  kn_rvalue v = {0};
  kn_tensor *same;
  KN_TRY(get_slot(ctx, s, k, k->was ? k->was : k->slot, &v));
  kc_look_again(L, anchors, k);
  kn_tensor *t = host->test_tensor(L, -1);
  bool grad = ctx->grad_enabled;
  ctx->grad_enabled = false;
  kn_status st = t ? kn_apply(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){t, v.tensor}, 2, &same)
                   : kn_fail(ctx, KN_STATE, "it is not there any more");
  ctx->grad_enabled = grad;
  if (st == KN_OK) kn_tensor_release(same);
  kn_tensor_release(v.tensor);
  lua_pop(L, 1);
  return st;
}

/* The gradient of the tensor that is the container, on top: what the slot holds now, or none. */
static kn_status store_grad(lua_State *L, const kc_host *host, kn_session *s, const kc_check *k) {
  kn_context *ctx = host->context(L);
  kn_tensor *t = host->test_tensor(L, -1);
  kn_rvalue v = {0};
  if (!t) return KN_OK;
  if (!k->clears) KN_TRY(get_slot(ctx, s, k, k->slot, &v));
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

kn_status kc_live_store(lua_State *L, const kc_host *host, kc_live *l, kn_session *s) {
  kn_context *ctx = host->context(L);
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 8)) return kn_fail_nomem(ctx, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  for (uint32_t i = 0; i < l->nchecks; i++) {
    const kc_check *k = &l->checks[i];
    bool stored = k->slot && k->in_graph && (k->written || k->overwritten);
    if (!stored && !k->clears) continue;
    kn_rvalue v = {0};
    lua_rawgeti(L, top + 1, k->container);
    if (k->kind == KC_LOOK_GRAD) {
      kn_status done = store_grad(L, host, s, k);
      lua_settop(L, done == KN_OK ? top + 1 : top);
      if (done != KN_OK) return done;
      continue;
    }
    kn_status st = k->overwritten ? overwrite_there(L, host, s, top + 1, k) : KN_OK;
    if (st == KN_OK && k->written) st = get_slot(ctx, s, k, k->slot, &v);
    if (st != KN_OK) {
      lua_settop(L, top);
      return st;
    }
    if (!k->written) {
      lua_settop(L, top + 1);
      continue;
    }
    if (v.tensor)
      host->push_tensor(L, v.tensor);
    else
      host->push_scalar(L, &v.scalar);
    write_back(L, top + 1, k);
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  return KN_OK;
}

bool kc_live_push_slot(lua_State *L, kc_live *l, const kn_slot *slot) {
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 8)) return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  for (uint32_t i = 0; i < l->nchecks; i++) {
    const kc_check *k = &l->checks[i];
    if (k->slot != slot || k->same || k->written) continue;
    lua_rawgeti(L, top + 1, k->container);
    kc_look_again(L, top + 1, k);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return true;
  }
  lua_settop(L, top);
  return false;
}
