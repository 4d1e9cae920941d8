/* Inside the tape: nodes and the links of tensors to them. Private to core/grad.
 *
 * What points at what: a tensor owns its link (kn_grad); a link made by an op holds its node; a node holds
 * the links of its inputs (edges) and the storages of what its rule reads, never a tensor. So there is no
 * cycle: a saved result has no link, it gets one when it is unpacked. A leaf's gradient belongs to the
 * tensors that share the link (owners), not to the edges, so a gradient that has a history does not keep
 * itself alive. */
#ifndef KN_NODE_H
#define KN_NODE_H
#include "core/grad/tape.h"

typedef struct kn_node kn_node;

struct kn_grad {
  atomic_int refs;   /* tensors and edges */
  atomic_int owners; /* tensors only; with the last the gradient goes */
  kn_heap *heap;
  kn_node *node;      /* that made the tensor, one reference; NULL for a leaf */
  int output;         /* which result of the node */
  bool requires_grad; /* may change for leaves only */
  kn_tensor *sum;     /* the accumulated gradient, owned; NULL before the first */
};

/* An input or result of a node. Rules that do not read values get a tensor of the right sizes and no more. */
typedef struct kn_saved {
  kn_storage *storage; /* retained; NULL when symbolic, or when only the sizes are kept */
  void *value;         /* graph value of a symbolic tensor */
  int64_t offset;
  int64_t *ints;    /* sizes, then (with a storage) strides; in the node's block */
  uint32_t version; /* of the storage when saved */
  uint8_t dtype, device, rank;
  bool symbolic;
} kn_saved;

struct kn_node { /* one block: node, edges, saved, ints, attrs */
  atomic_int refs;
  kn_op op;
  int n, outs;
  size_t bytes;
  kn_heap *heap;
  kn_node *next;     /* list of nodes being freed */
  kn_grad **edge;    /* per input: its link, one reference; NULL where no gradient is wanted */
  kn_saved *saved;   /* inputs, then results */
  const void *attrs; /* NULL when none were given */
};

kn_status kn_node_new(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                      kn_tensor *const *out, kn_node **node);
void kn_node_release(kn_node *node);

/* A new link with one owner. node is retained; NULL makes a leaf. NULL when out of memory. */
kn_grad *kn_grad_new(kn_heap *heap, kn_node *node, int output);
/* One more tensor on the same link. */
kn_grad *kn_grad_share(kn_grad *g);

/* A tensor with what was saved: i counts inputs, then results. `linked` joins it to the tape again, for
 * gradients of gradients. `blank` backs those of which only the sizes were kept. */
kn_status kn_node_unpack(kn_context *ctx, kn_node *node, int i, bool linked, kn_storage *blank,
                         kn_tensor **out);

#endif
