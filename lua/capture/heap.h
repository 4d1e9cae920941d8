/* The shadow heap's edge: reading the real Lua heap (never writing it), each look recorded once. Private. */
#ifndef KC_HEAP_H
#define KC_HEAP_H
#include "lua/capture/state.h"

/* The value at idx when it is no tensor: concrete, or an outside table or function reached by `path`. */
kc_val kc_import(kc_cap *c, int idx, const char *path);
/* The value of a tensor met at a place called `name`: a slot of the graph. `again`: it has been met
 * elsewhere. */
kc_res kc_import_tensor(kc_cap *c, kn_tensor *t, const char *name, kn_slot_kind kind, kn_slot **slot,
                        kn_value **v, bool *again);

kc_look *kc_new_look(kc_cap *c, kc_look_kind kind, uint32_t container, kc_val key);
/* Looks at all keys since then are none, unless they are made again. */
void kc_drop_keys(kc_cap *c, const kc_look *after);
kc_res kc_raw_get(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val *out);
kc_res kc_raw_set(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val v);
kc_res kc_cell_get(kc_cap *c, kc_state *s, uint32_t cell, kc_val *out);
kc_res kc_cell_set(kc_cap *c, kc_state *s, uint32_t cell, kc_val v);
/* The metatable (TABLE) or nil. */
kc_res kc_metatable(kc_cap *c, kc_state *s, kc_val a, kc_val *out);
/* Field of the metatable, resolved; nil when there is none. */
kc_res kc_metafield(kc_cap *c, kc_state *s, kc_val a, const char *event, kc_val *out);
kc_res kc_border(kc_cap *c, kc_state *s, uint32_t table, int64_t *out);
/* The pair after `key` (nil: the first); *k is nil at the end. Tables built inside go in order of insertion.
 */
kc_res kc_next(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val *k, kc_val *v);
/* Makes sure an outside function's prototype and upvalue cells are there. */
kc_res kc_load_closure(kc_cap *c, uint32_t clos);
/* Plain views for merging: the value or nil, no guard made anew unless it is an outside place. */
kc_res kc_place_get(kc_cap *c, kc_state *s, uint32_t table, kc_val key, kc_val *out);

/* A number that must be known: burns in the free arguments and sizes it comes from and starts over, if it
 * comes from nothing else; KC_GO when it cannot. */
kc_res kc_burn(kc_cap *c, kc_val a);
/* "net.fc1": the path of a field, in the keep arena. */
const char *kc_field_path(kc_cap *c, const char *base, kc_val key);
const char *kc_value_text(kc_cap *c, kc_val a, char *buf, size_t size); /* for guards and messages */

/* This outside place has a role from the start, unless one is known already. */
void kc_note_role(kc_cap *c, kc_dynamic what);

#endif
