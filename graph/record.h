/* A recorder that emits what kn_apply sees into a graph: the one way tensor ops enter the IR, shared by
 * capture, trace, builder and gradients. Symbolic tensors carry their kn_value. A real tensor met as an input
 * becomes a slot, asked from `outside` (so the front end can name it) and remembered by identity. */
#ifndef KN_RECORD_H
#define KN_RECORD_H
#include "graph/graph.h"

typedef struct kn_record kn_record;
struct kn_record {
  kn_recorder base; /* install as ctx->recorder = &r.base */
  kn_builder *b;
  /* The graph value of a real tensor. NULL: a PARAM slot named "tensor.N". */
  kn_value *(*outside)(void *ud, kn_tensor *t);
  void *ud;
  /* NULL, or: the value that stands for v, or with dim >= 0 for that size of it, where nodes go now. */
  kn_value *(*see)(void *ud, kn_value *v, int dim);
  void *see_ud;
  kn_scalar *dyn; /* placeholders given so far */
  uint32_t ndyn;
  struct kn_record_known *known; /* real tensors already seen */
  uint32_t nknown;
};

void kn_record_init(kn_record *r, kn_builder *b);
void kn_record_free(kn_record *r);
/* A symbolic tensor for a graph value of kind TENSOR. Owned by the caller. */
kn_status kn_record_tensor(kn_record *r, kn_value *v, kn_tensor **out);
/* The value behind a tensor: its own when symbolic, a slot's otherwise. NULL on failure (b->status). */
kn_value *kn_record_value(kn_record *r, kn_tensor *t);

#endif
