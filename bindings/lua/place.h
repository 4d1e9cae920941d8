/* What the key in t[key] points at: a view of the tensor, made by basic ops, and per dim of the view perhaps
 * an index tensor. Nothing here raises. */
#ifndef KL_PLACE_H
#define KL_PLACE_H
#include "bindings/lua/state.h"

typedef struct kl_place {
  kn_tensor *whole;             /* borrowed: what is indexed */
  kn_tensor *view;              /* owned */
  kn_tensor *list[KN_MAX_RANK]; /* owned, per dim of the view: positions, NULL where all are meant */
  kn_tensor *mask;              /* borrowed: the key is this mask over the leading dims, and nothing else */
  int lists;                    /* how many there are */
} kl_place;

/* Reads the key at idx. INDEX where it points outside, ARG, SHAPE or DTYPE where it is none. */
kn_status kl_place_read(lua_State *L, kn_context *ctx, kn_tensor *t, int idx, kl_place *p);
void kl_place_free(kl_place *p);
kn_status kl_place_get(kn_context *ctx, const kl_place *p, kn_tensor **out);
kn_status kl_place_set(kn_context *ctx, const kl_place *p, kn_tensor *value);

void *kl_newaxis(void); /* the light userdata that stands for a new dim of size 1 */

#endif
