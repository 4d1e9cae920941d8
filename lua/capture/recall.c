/* What one capture of a function tells the next: where it had to start over, the next need not. Only where to
 * look, never what is there: what is recalled wrongly costs a handle or a slot too many, and a capture that
 * is refused is tried once more without (kc_capture is then called with nothing before). */
#include "lua/capture/handle.h"
#include "lua/capture/live_inside.h"

/* It can be a state slot as it is now: see state_slot in heap.c. */
static bool may_be_state(kc_cap *c, int idx) {
  int type = lua_type(c->L, idx);
  return type == LUA_TNIL || type == LUA_TNUMBER || type == LUA_TBOOLEAN || c->host->test_tensor(c->L, idx);
}

/* The place of a check whose container is below the top, what is there now on top. */
static void recall_place(kc_cap *c, const kc_check *k) {
  lua_State *L = c->L;
  kn_tensor *t = c->host->test_tensor(L, -1);
  bool text = k->key.type == LUA_TSTRING, whole = k->key.type == LUA_TNUMBER && k->key.integer;
  if (k->handle && t) kc_note_birth(c, (kc_birth){KC_BORN_OUTSIDE, (uintptr_t)t});
  if (!k->written || (!text && !whole) || !may_be_state(c, -1)) return;
  bool any = k->slot && k->slot->type.kind == KN_V_NUMBER;
  uint32_t container = kc_intern(c, -2);
  kc_val key = text ? kc_string(c, k->key.s, k->key.n) : kc_int(k->key.as.i);
  kc_note_role(
      c, (kc_dynamic){
             .role = KC_ROLE_STATE, .kind = k->kind, .container = container, .key = key, .any_number = any});
}

void kc_live_recall(kc_cap *c, const kc_live *before) {
  lua_State *L = c->L;
  for (uint32_t i = 0; i < before->nbirths; i++) kc_note_birth(c, before->births[i]);
  lua_rawgeti(L, LUA_REGISTRYINDEX, before->ref);
  int anchors = lua_gettop(L);
  for (uint32_t i = 0; i < before->nchecks; i++) {
    const kc_check *k = &before->checks[i];
    if (!k->handle && !k->written) continue;
    if (k->kind != KC_LOOK_UPVALUE && k->kind != KC_LOOK_FIELD) continue;
    lua_rawgeti(L, anchors, k->container);
    kc_look_again(L, anchors, k);
    recall_place(c, k);
    lua_settop(L, anchors);
  }
  lua_pop(L, 1);
}
