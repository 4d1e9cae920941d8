/* pcall and xpcall, and what raising means inside them. Private to this room. */
#ifndef KC_PROTECT_H
#define KC_PROTECT_H
#include "lua/capture/interp.h"

/* Something that may raise when the graph runs is about to be, or was just, emitted here: refused where a
 * protected call has written to something older. */
kc_res kc_may_raise(kc_cap *c);
/* A value is raised here. *certain: a protected call takes it at once and KC_DEAD is given; else a raise node
 * is to be emitted. */
kc_res kc_protected_raise(kc_cap *c, kc_val value, bool *certain);
/* Has this path written to a table, variable or tensor that was there in `before`? */
bool kc_has_written(kc_cap *c, const kc_state *before);
bool kc_protects_directly(const kc_cap *c); /* pcall(error, …): no Lua function in between */
bool kc_protects_this(const kc_cap *c);     /* the function that runs was called by pcall */
/* A STRING or TEXT with the position in front. */
kc_val kc_placed(kc_cap *c, kc_val message, const kn_where *where);

/* Models: see builtin.c. */
kc_res kc_m_pcall(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_xpcall(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);

#endif
