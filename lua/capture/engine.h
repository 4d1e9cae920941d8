/* The recorder's door to the outside; see engine.c. */
#ifndef KC_ENGINE_H
#define KC_ENGINE_H
#include "graph/record.h"
kn_value *kc_outside_tensor(void *cap, kn_tensor *t);
#endif
