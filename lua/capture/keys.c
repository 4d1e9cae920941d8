/* Tensors as keys of tables. A tensor that lies outside is one object as long as its place holds it, so the
 * key is that object and the place is guarded to hold it. Of tensors that are arguments, or made inside, the
 * graph knows values, not objects: they are refused. */
#include "lua/capture/keys.h"
#include "lua/capture/handle.h"

static const kn_slot *slot_of(const kc_cap *c, kc_val k) {
  if (k.k == KC_V_HANDLE) return c->han[k.id].parent ? NULL : c->han[k.id].slot;
  const kn_node *def = k.v->def;
  return def && (def->op == KN_NODE_param || def->op == KN_NODE_load_state) ? def->slot : NULL;
}

static kc_look *place_of(const kc_cap *c, const kn_slot *slot) {
  for (kc_look *l = c->looks; l && slot && slot->tensor; l = l->next)
    if (l->slot == slot && !l->again && (l->kind == KC_LOOK_FIELD || l->kind == KC_LOOK_UPVALUE)) return l;
  return NULL;
}

kc_res kc_tensor_key(kc_cap *c, kc_val *k) {
  if (!kc_is_tensor(*k)) return KC_GO;
  kc_look *l = place_of(c, slot_of(c, *k));
  if (!l)
    return kc_fail(
        c, "a tensor is used as a table key that is an argument or made inside; use a number or a name");
  kc_push_object(c, l->container);
  if (l->kind == KC_LOOK_FIELD) {
    kc_push(c, l->key);
    lua_rawget(c->L, -2);
  } else if (!lua_getupvalue(c->L, -1, (int)l->key.i))
    lua_pushnil(c->L);
  bool there = c->host->test_tensor(c->L, -1) == l->slot->tensor;
  if (there) *k = kc_ref(KC_V_OBJECT, kc_intern(c, -1));
  lua_pop(c->L, 2);
  if (!there) return kc_fail(c, "the tensor '%s' has moved while it was captured", l->name);
  l->identity = true;
  return KC_GO;
}

kc_res kc_hand_key(kc_cap *c, kc_val k) {
  if (k.k != KC_V_OBJECT) return KC_GO;
  kc_push_object(c, k.id);
  bool tensor = c->host->test_tensor(c->L, -1) != NULL;
  lua_pop(c->L, 1);
  return tensor ? kc_fail(c, "goes through a table whose keys are tensors; keep a list of them") : KC_GO;
}
