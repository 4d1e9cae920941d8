/* What the files of models share: builtin.c and tables.c. Private to this room. */
#ifndef KC_MODELS_H
#define KC_MODELS_H
#include "lua/capture/interp.h"

#define ARG(i) ((i) < n ? a[i] : KC_NILV)
#define MODEL(name)                                                                                          \
  static kc_res m_##name(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out)

/* Results: the first n of three; one; a list. */
kc_res kc_give(kc_cap *c, kc_values *out, int n, kc_val x, kc_val y, kc_val z);
kc_res kc_give1(kc_cap *c, kc_values *out, kc_val x);
kc_res kc_give_all(kc_cap *c, kc_state *s, kc_values *out, const kc_val *a, int n);
/* What messages call the function. */
const char *kc_name_of(kc_cap *c, kc_val f);
/* An integer that must be known; a free number is burnt in. */
kc_res kc_known_int(kc_cap *c, kc_val f, kc_val a, int which, int64_t *out);
kc_res kc_need_table(kc_cap *c, kc_val f, kc_val t);

/* tables.c */
kc_res kc_m_insert(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_remove(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_unpack(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_move(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_pack(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_concat(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
kc_res kc_m_sort(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);

#endif
