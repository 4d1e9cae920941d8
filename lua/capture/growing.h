/* Lists that grow in loops of the graph: a table of the shadow heap whose elements 1 to n are one list value.
 * The value stands under a key that no program has. Private to this room. */
#ifndef KC_GROWING_H
#define KC_GROWING_H
#include "lua/capture/interp.h"

#define KC_LIST_KEY ((kc_val){.k = KC_V_NONE})

kn_value *kc_list_of(const kc_state *s, uint32_t table); /* NULL: a table like others */
/* The length of this table depends on data: a loop that starts over begins with it as a list, where it can be
 * one. */
void kc_may_grow(kc_cap *c, kc_state *s, uint32_t table);
void kc_grows_as(kc_cap *c, uint32_t table, const kn_vtype *element);
uint32_t kc_growth(const kc_cap *c, const kc_state *s); /* greater when more was found of what is there */
/* Makes lists of the tables found to grow, or of this one; emits where the builder is. */
kc_res kc_make_lists(kc_cap *c, kc_state *s);
kc_res kc_make_list(kc_cap *c, kc_state *s, uint32_t table, const kn_vtype *element);
/* Of tables that are lists. Positions are INT or SYM. */
kc_val kc_list_length(kc_cap *c, kc_state *s, uint32_t table);
kc_res kc_list_read(kc_cap *c, kc_state *s, uint32_t table, kc_val position, kc_val *out);
kc_res kc_list_set(kc_cap *c, kc_state *s, uint32_t table, kc_val position, kc_val v);
kc_res kc_list_append(kc_cap *c, kc_state *s, uint32_t table, kc_val v);
/* kiln.stack and kiln.cat of one; *done stays false for what is none. */
kc_res kc_list_call(kc_cap *c, kc_state **s, kc_val f, const kc_val *a, int n, kc_values *out, bool *done);
kc_res kc_list_refused(kc_cap *c, const char *what);

#endif
