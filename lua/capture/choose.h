/* One value or another by a boolean, both there already. Private to this room. */
#ifndef KC_CHOOSE_H
#define KC_CHOOSE_H
#include "lua/capture/value.h"

/* a where `is` (BOOL or SYM), else b; POISON where there are too many kinds of it. */
kc_val kc_choose(kc_cap *c, kc_val is, kc_val a, kc_val b);

#endif
