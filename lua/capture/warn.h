/* What Lua folds to a constant and a program surely meant otherwise: said once for each line. Private to this
 * room. */
#ifndef KC_WARN_H
#define KC_WARN_H
#include "lua/capture/state.h"

/* `a == b`, at the present instruction. */
void kc_warn_equal(kc_cap *c, kc_val a, kc_val b);
/* `if a then`, `a and b`, `not a`, `assert(a)`. */
void kc_warn_truth(kc_cap *c, kc_val a);

#endif
