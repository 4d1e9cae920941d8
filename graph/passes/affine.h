/* Products followed by what is one scale and one shift for each of their channels. Shared by affine.c
 * (finding them) and affine_make.c (folding them). Private to the two. */
#ifndef KN_AFFINE_H
#define KN_AFFINE_H
#include "graph/folding.h"

typedef struct kn_product { /* an op of which a constant weight says what its channels are */
  kn_op op;
  int channel; /* dim of the result; negative: from the end */
  int weight;  /* dim of the weight, which is input 1 */
  bool bias;   /* takes one as input 2 */
} kn_product;

typedef struct kn_affine {
  const kn_product *row;
  kn_node *node;
  kn_slot *slot, *bias_slot; /* of the weight, and the bias; NULL: it is computed, or shared */
  kn_node **views;           /* between the product and the last of the chain, in order */
  uint32_t nviews;
  double *scale, *shift; /* by channel, of the product without its bias */
  int64_t channels;
  bool scales, shifts; /* some scale is not 1, some shift is not 0 */
} kn_affine;

bool kn_affine_make(kn_builder *b, kn_known *k, const kn_fold *f, kn_value **to);

#endif
