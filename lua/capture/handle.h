/* Tensors with an identity. A tensor that nothing writes to is its value. One that is written to somewhere is
 * a *handle*: an object of the shadow heap whose contents are in the state, like a table with one field, so
 * that joins and loops treat it as they treat tables. Which tensors those are is found out by trying: the
 * first write to a plain value notes where it was born (kc_birth), and capture starts over. Private to this
 * room. */
#ifndef KC_HANDLE_H
#define KC_HANDLE_H
#include "lua/capture/heap.h"

/* A handle of contents that were made inside, of an outside tensor, of a view of another handle. */
uint32_t kc_handle_new(kc_cap *c, kc_state *s, kn_value *contents);
uint32_t kc_handle_outside(kc_cap *c, kn_value *initial, const kn_tensor *t);
uint32_t kc_handle_view(kc_cap *c, kc_state *s, uint32_t parent, const kn_record_shown *shown);

bool kc_same_view(const kn_node *a, const kn_node *b); /* the same op, of whatever it is applied to */

/* The state's record of it; outside ones have one from the start. NULL: not known on this path. */
const kc_hold *kc_hold_of(kc_cap *c, const kc_state *s, uint32_t id);
/* It and what it shows are there: a view that nothing can reach may outlive that. */
bool kc_held(const kc_cap *c, const kc_state *s, uint32_t id);
/* Present contents; a view of what has changed is derived again. NULL on failure. */
kn_value *kc_contents(kc_cap *c, kc_state *s, uint32_t id);
void kc_set_contents(kc_cap *c, kc_state *s, uint32_t id, kn_value *v); /* of one that is no view */
/* The value of any tensor. */
kn_value *kc_tensor_value(kc_cap *c, kc_state *s, kc_val a);

/* One tensor or another by a tag, all of one dtype and rank: the contents of the one it is. NULL where they
 * are not alike. A write to it changes the one it is. */
kn_value *kc_chosen(kc_cap *c, kc_state *s, const kc_union *u);
kc_res kc_set_chosen(kc_cap *c, kc_state *s, const kc_union *u, kn_value *v);

/* ---- where they are born ---- */
void kc_note_made(kc_cap *c, uint32_t first, uint64_t place); /* values from `first` on (engine.c) */
uint64_t kc_here(const kc_state *s);                          /* the call stack, as a number */
bool kc_is_born(const kc_cap *c, kc_birth b);
void kc_note_birth(kc_cap *c, kc_birth b);
/* A loop's parameter that has no value at first gets v by the back edge. */
void kc_note_carried(kc_cap *c, const kn_value *param, const kn_value *v);
/* Notes where v, which is written to, comes from; the attempt is doomed from here on. Or refused. */
kc_res kc_must_be_handle(kc_cap *c, const kn_value *v);
/* False when nothing is noted, by this attempt. */
bool kc_make_handle(kc_cap *c, const kn_value *v);
/* The same when all it comes from is made inside; false when nothing was noted. */
bool kc_wants_handle(kc_cap *c, const kn_value *v);
/* Two tensors made inside became one value. Where one of them turns out to be a handle, the next attempt
 * would only find that the other must be one, too: kc_spread_births finds it at the end of this one. */
void kc_note_meeting(kc_cap *c, const kn_value *a, const kn_value *b);
void kc_spread_births(kc_cap *c);

#endif
