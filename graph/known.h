/* The tensors of a graph that are the same whenever it runs: constant slots, numbers as tensors, views of
 * such; and, where asked for, what is computed of them. */
#ifndef KN_KNOWN_H
#define KN_KNOWN_H
#include "graph/graph.h"

typedef struct kn_known {
  kn_context *ctx;
  kn_tensor **at; /* by value id; NULL: not known. Owned */
  uint32_t n;
  bool grad;             /* the context's mode, given back at the end */
  kn_recorder *recorder; /* likewise */
  uint8_t autocast;      /* likewise */
} kn_known;

/* Room for the values that the graph has now. While it is open the context records and tapes nothing. */
kn_status kn_known_begin(kn_context *ctx, const kn_graph *g, kn_known *k);
void kn_known_end(kn_known *k);
/* Looks at one node whose inputs have been looked at. `compute`: ops that are no views, too, where what they
 * give is small or takes no more memory than what they read. Fails for lack of memory alone. */
kn_status kn_known_node(kn_known *k, const kn_node *n, bool compute);
/* All nodes of a region and those inside, without computing. */
kn_status kn_known_region(kn_known *k, const kn_region *r);
static inline kn_tensor *kn_known_at(const kn_known *k, const kn_value *v) {
  return v->id < k->n ? k->at[v->id] : NULL;
}
/* The tensor, taken, on that device. */
kn_status kn_known_move(kn_context *ctx, kn_device_id d, kn_tensor *owned, kn_tensor **out);
/* Its elements are its input's: a view that needed no copy. */
bool kn_known_shares(const kn_known *k, const kn_node *n);
size_t kn_tensor_bytes(const kn_tensor *t); /* of its elements, each once */

/* A constant slot of these elements; one that is there already where it holds the same. Takes the tensor,
 * also on failure (NULL). */
kn_slot *kn_known_slot(kn_builder *b, const char *name, kn_tensor *owned);

#endif
