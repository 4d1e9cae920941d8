/* What a captured function leaves: results, stored state, tensors that it overwrites. Private to this room.
 */
#ifndef KC_RESULT_H
#define KC_RESULT_H
#include "lua/capture/handle.h"
#include "lua/capture/interp.h"

typedef struct kc_given { /* a tensor that was given as an argument */
  const kn_tensor *t;
  kn_tree tree;
  kc_val v;
  uint32_t leaf, number;
} kc_given;

/* Emits it all at the end of the body. */
kc_res kc_outcome_of(kc_cap *c, kc_state *s, const kc_values *v, const kc_given *given, uint32_t ngiven);

#endif
