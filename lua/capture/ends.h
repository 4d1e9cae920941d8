/* Which tensor is which where a graph ends. A caller is given tensors, and may compare them: each is known by
 * a value of its own, the same one wherever it is a result, a part of one, or stored. Private to this room.
 */
#ifndef KC_ENDS_H
#define KC_ENDS_H
#include "lua/capture/handle.h"
#include "lua/capture/interp.h"

typedef struct kc_end kc_end;
typedef struct kc_ends {
  kc_cap *c;
  kc_state *s;
  kc_end *end;
  uint32_t n, met; /* met: parts gone through, counted along every way to them */
} kc_ends;

enum { KC_MAX_DEEP = 60, KC_MAX_PARTS = 20000 };

/* A handle is given the value v, which may become a copy of it. */
kc_res kc_end_with(kc_ends *e, uint32_t handle, kn_value **v);
/* Every tensor that this is, may be or holds is one of them. */
void kc_meet_ends(kc_ends *e, kc_val a);
/* They get their values: what must be made for that is made where there is such a tensor. */
kc_res kc_make_ends(kc_ends *e);
/* The value of a tensor that was met; NULL of another. */
kn_value *kc_end_of(const kc_ends *e, kc_val a);
/* One tensor or another by a tag, as kc_chosen: the very tensor. */
kn_value *kc_chosen_end(const kc_ends *e, const kc_union *u);

#endif
