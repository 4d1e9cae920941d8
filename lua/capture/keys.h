/* Tensors as keys of tables: `seen[p]`. Private to this room. */
#ifndef KC_KEYS_H
#define KC_KEYS_H
#include "lua/capture/heap.h"

/* *k becomes the key that it is where it is a tensor: an outside one is known by its identity, which is
 * guarded; others are refused. */
kc_res kc_tensor_key(kc_cap *c, kc_val *k);
/* A key of an outside table that is handed to the program: tensors are refused. */
kc_res kc_hand_key(kc_cap *c, kc_val k);

#endif
