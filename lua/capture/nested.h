/* Graph objects that captured code calls. One that was scripted is the function it was made of, and capture
 * goes on in that; another has nodes only, which are copied. Private to this room. */
#ifndef KC_NESTED_H
#define KC_NESTED_H
#include "lua/capture/interp.h"

/* *done false: the object is no Graph. */
kc_res kc_call_graph(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, int want, kc_values *out,
                     bool *done);
/* nested_nodes.c: one without a function. */
kc_res kc_call_nodes(kc_cap *c, kc_state **s, kc_val f, const kn_graph *g, const kc_val *args, int n,
                     kc_values *out);
/* The number as a parameter of this kind gets it, as a Graph converts it: KC_V_NONE when it is none. */
kc_res kc_give_scalar(kc_cap *c, kc_val a, kn_vkind kind, kc_val *out);

#endif
