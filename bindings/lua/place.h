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
  int key[KN_MAX_RANK];         /* of a list whose positions are not known yet: which key it is, from 1 */
  int lists;                    /* how many there are */
} kl_place;

/* Reads the key at idx. INDEX where it points outside, ARG, SHAPE or DTYPE where it is none. */
kn_status kl_place_read(lua_State *L, kn_context *ctx, kn_tensor *t, int idx, kl_place *p);
void kl_place_free(kl_place *p);
kn_status kl_place_get(kn_context *ctx, const kl_place *p, kn_tensor **out);
kn_status kl_place_set(kn_context *ctx, const kl_place *p, kn_tensor *value);

/* Do the mask's sizes fit the view's dims from `dim` on, which are the whole's from `key` on? SHAPE when not.
 */
kn_status kl_place_fits(kn_context *ctx, kn_tensor *whole, kn_tensor *view, kn_tensor *mask, int dim,
                        int key);
/* What errors of a key, counted from 1, begin with: "index", "index: key 2". */
const char *kl_place_name(int key);
void *kl_newaxis(void); /* the light userdata that stands for a new dim of size 1 */

#endif
