/* Where the slots of a traced graph live: fields and upvalues of the program, read afresh before each run,
 * and written after it where the graph stores. See graph_parts.h. */
#include "bindings/lua/graph_parts.h"

/* Pushes what is at the place now; the entry is at idx. */
static void look(lua_State *L, int idx) {
  lua_getfield(L, idx, "container");
  lua_getfield(L, idx, "key");
  if (lua_type(L, -2) == LUA_TFUNCTION) {
    if (!lua_getupvalue(L, -2, (int)lua_tointeger(L, -1))) lua_pushnil(L);
  } else if (lua_type(L, -2) == LUA_TTABLE) {
    lua_pushvalue(L, -1);
    lua_rawget(L, -3);
  } else
    lua_pushnil(L); /* a tensor without a place: the slot's own */
  lua_replace(L, -3);
  lua_pop(L, 1);
}

static const kn_slot *slot_of(lua_State *L, int idx) {
  lua_getfield(L, idx, "slot");
  const kn_slot *s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return s;
}

static kn_tensor *tensor_at(lua_State *L, int idx, const kn_slot *s) { /* pushes its handle */
  look(L, idx);
  kn_tensor *t = kl_test_tensor(L, -1);
  lua_getfield(L, idx, "container");
  bool placed = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (!placed) return s->tensor;
  if (!t) kl_error(L, KN_STATE, "graph: '%s' is not there any more (it was a tensor when traced)", s->name);
  return t;
}

static void check_slot(lua_State *L, kn_session *s, const kn_slot *slot, kn_status st) {
  if (st != KN_OK) kl_error(L, st, "%s: %s", slot->name, kn_error(kn_session_context(s)));
}

void kl_load_places(lua_State *L, kl_variant *v) {
  kn_session *s = kl_variant_session(L, v);
  luaL_checkstack(L, 8, "places");
  lua_rawgeti(L, LUA_REGISTRYINDEX, v->places);
  int list = lua_gettop(L), n = (int)lua_rawlen(L, list);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, list, i);
    const kn_slot *slot = slot_of(L, list + 1);
    kn_rvalue now = {.tensor = tensor_at(L, list + 1, slot)};
    check_slot(L, s, slot, kn_session_set_slot(s, slot->index, &now));
    lua_settop(L, list);
  }
  lua_settop(L, list - 1);
}

static void put(lua_State *L, int idx) { /* the new value is on top; pops it */
  lua_getfield(L, idx, "container");
  lua_getfield(L, idx, "key");
  lua_rotate(L, -3, 2);
  if (lua_type(L, -3) == LUA_TFUNCTION) {
    lua_setupvalue(L, -3, (int)lua_tointeger(L, -2));
    lua_pop(L, 2);
  } else {
    lua_rawset(L, -3);
    lua_pop(L, 1);
  }
}

/* In place, as the function would: every handle on the tensor sees it. */
static void overwrite(lua_State *L, kn_tensor *to, kn_tensor *from) {
  kn_context *ctx = kl_context(L);
  bool grad = ctx->grad_enabled;
  kn_tensor *out = NULL;
  ctx->grad_enabled = false;
  kn_status st = kn_apply(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){to, from}, 2, &out);
  ctx->grad_enabled = grad;
  kn_tensor_release(out);
  kl_check(L, st);
}

void kl_store_places(lua_State *L, kl_variant *v) {
  kn_session *s = kl_variant_session(L, v);
  luaL_checkstack(L, 8, "places");
  lua_rawgeti(L, LUA_REGISTRYINDEX, v->places);
  int list = lua_gettop(L), n = (int)lua_rawlen(L, list);
  for (int i = 1; i <= n; i++) {
    kn_rvalue now;
    lua_rawgeti(L, list, i);
    const kn_slot *slot = slot_of(L, list + 1);
    if (slot->kind != KN_SLOT_STATE) {
      lua_settop(L, list);
      continue;
    }
    kn_tensor *old = tensor_at(L, list + 1, slot);
    check_slot(L, s, slot, kn_session_get_slot(s, slot->index, &now));
    kl_push_tensor(L, now.tensor);
    lua_getfield(L, list + 1, "replace");
    bool replace = lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (replace)
      put(L, list + 1);
    else if (old != now.tensor)
      overwrite(L, old, now.tensor);
    lua_settop(L, list);
  }
  lua_settop(L, list - 1);
}

/* ---- a Graph that captured code calls ---- */

/* Pushes the tensors and numbers of the Graph's slots by name: user value 2, made when first asked for. They
 * stay the ones that its session has. */
static void push_own(lua_State *L, int idx, kl_variant *v) {
  if (lua_getiuservalue(L, idx, 2) == LUA_TTABLE) return;
  lua_pop(L, 1);
  kn_session *s = kl_variant_session(L, v);
  lua_newtable(L);
  for (uint32_t i = 0; i < v->graph->nslots; i++) {
    const kn_slot *slot = v->graph->slots[i];
    kn_rvalue now = {0};
    if (slot->kind == KN_SLOT_CONST || kn_session_get_slot(s, i, &now) != KN_OK) continue;
    if (slot->type.kind == KN_V_TENSOR)
      kl_push_tensor(L, now.tensor);
    else
      kl_push_scalar(L, &now.scalar);
    lua_setfield(L, -2, slot->name);
  }
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, idx, 2);
}

void kl_push_slot(lua_State *L, int idx, const kn_slot *slot) {
  kl_variant *v = kl_check_graph(L, idx)->variants;
  luaL_checkstack(L, 8, "places");
  int top = lua_gettop(L), n = 0;
  if (v->places) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, v->places);
    n = (int)lua_rawlen(L, -1);
  }
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, top + 1, i);
    if (slot_of(L, top + 2) == slot && lua_getfield(L, top + 2, "container") != LUA_TNIL) {
      lua_getfield(L, top + 2, "key");
      lua_replace(L, top + 1);
      lua_replace(L, top + 2);
      lua_insert(L, top + 1);
      return;
    }
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
  push_own(L, idx, v);
  lua_pushstring(L, slot->name);
}
