/* Strings that depend on data, and the functions that print them. Private to this room. */
#ifndef KC_TEXT_H
#define KC_TEXT_H
#include "lua/capture/interp.h"

/* A string, a text, or a number: what .. and io.write take. */
bool kc_is_text(kc_val a);
kc_val kc_join_texts(kc_cap *c, kc_val x, kc_val y);         /* x .. y, of such */
kc_val kc_text_with(kc_cap *c, const kc_text *t, kc_val *v); /* the same format, other values */
/* As luaL_tolstring: STRING or TEXT. */
kc_res kc_tostring(kc_cap *c, kc_state **s, kc_val a, kc_val *out);
kc_val kc_caught_text(kc_cap *c, kn_value *number); /* the message of an error that was caught */
/* A string that must be known: burns in the arguments a TEXT is made of and starts over, or refuses it. */
kc_res kc_settle_text(kc_cap *c, kc_val a);
/* raise (cond NULL) or assert with the STRING or TEXT after `before`. */
kn_node *kc_add_message(kc_cap *c, kn_opcode op, kn_value *cond, const char *before, kc_val message);

/* Models: see builtin.c. */
kc_res kc_m_tostring(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_format(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_print(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_write(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_file_write(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_warn(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);

#endif
