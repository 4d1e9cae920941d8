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
typedef struct kn_checkpoint kn_checkpoint; /* checkpoint.h */

struct kn_grad {
  atomic_int refs;   /* tensors and edges */
  atomic_int owners; /* tensors only; with the last the gradient goes */
  kn_heap *heap;
  kn_node *node;      /* that made the tensor, one reference; NULL for a leaf */
  int output;         /* which result of the node */
  bool requires_grad; /* may change for leaves only */
  bool retains;       /* no leaf, and takes its gradient all the same: its node points back to it */
  kn_tensor *sum;     /* the accumulated gradient, owned; NULL before the first */
  kn_hook *hooks;     /* of a leaf; those of other tensors are their node's */
};

/* A function on the gradient of a tensor. Owned by the list it is in and by its handle. */
struct kn_hook {
  atomic_int refs;
  kn_heap *heap; /* retained */
  kn_hook *next;
  int output;       /* which result of the node */
  kn_tensor *after; /* called after accumulation, with this leaf; borrowed, removed when it goes */
  kn_hook_fn fn;    /* NULL once removed */
  void *ud;
  void (*release)(void *ud);
};
void kn_hooks_free(kn_hook *list);

/* What only few nodes have. */
typedef struct kn_extra { /* one block: this and the keepers */
  size_t bytes;
  kn_hook *hooks;
  kn_custom_fn custom; /* in place of the rule of a row */
  bool holes;          /* it wants no zeros for gradients that did not come */
  void *ud;
  void (*release)(void *ud);
  char name[64];     /* of a custom node */
  char place[128];   /* where in the user's program it was recorded, "" unless asked for (ctx->anomaly) */
  kn_grad *keeper[]; /* per result: the link that takes its gradient; borrowed */
} kn_extra;

/* An input or result of a node. Rules that do not read values get a tensor of the right sizes and no more. */
typedef struct kn_saved {
  kn_storage *storage; /* retained; NULL when symbolic, or when only the sizes are kept */
  kn_checkpoint *lost; /* retained; the value is computed again when needed, as its number `version` */
  void *value;         /* graph value of a symbolic tensor */
  int64_t offset;
  int64_t *ints;    /* sizes, then (with a storage) strides; in the node's block */
  uint32_t version; /* of the storage when saved */
  uint8_t dtype, device, rank;
  bool symbolic;
} kn_saved;

struct kn_node { /* one block: node, edges, saved, ints, attrs */
  atomic_int refs;
  kn_op op; /* KN_OP_COUNT: a custom one */
  int n, outs, extras;
  size_t bytes;
  kn_heap *heap;
  kn_node *next;     /* list of nodes being freed */
  kn_grad **edge;    /* per input: its link, one reference; NULL where no gradient is wanted */
  kn_saved *saved;   /* inputs, then results, then what a custom function keeps besides */
  const void *attrs; /* NULL when none were given */
  kn_extra *extra;   /* owned; mostly NULL */
};

kn_status kn_node_new(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                      kn_tensor *const *out, kn_node **node);
/* A custom one. keep: per input and result whether its value is kept; extras are kept and have no history. */
kn_status kn_node_custom(kn_context *ctx, const char *name, kn_tensor *const *in, int n,
                         kn_tensor *const *out, int outs, const bool *keep, kn_tensor *const *extra,
                         int extras, kn_node **node);
void kn_node_release(kn_node *node);
const char *kn_node_name(const kn_node *node);
kn_status kn_node_extra(kn_context *ctx, kn_node *node); /* makes node->extra when there is none */
kn_status kn_link_retain(kn_context *ctx, kn_grad *g);   /* the link of a result takes its gradient */

/* A new link with one owner. node is retained; NULL makes a leaf. NULL when out of memory. */
kn_grad *kn_grad_new(kn_heap *heap, kn_node *node, int output);
void kn_link_release(kn_grad *g); /* one reference that is no owner */
/* One more tensor on the same link. */
kn_grad *kn_grad_share(kn_grad *g);

/* A tensor with what was saved: i counts inputs, then results, then extras. `linked` joins it to the tape
 * again, for gradients of gradients. `blank` backs those of which only the sizes were kept. What was lost is
 * computed again; its checkpoint then is in the list *filled. *version is what the storage's was when saved.
 */
kn_status kn_node_unpack(kn_context *ctx, kn_node *node, int i, bool linked, kn_storage *blank,
                         kn_checkpoint **filled, kn_tensor **out, uint32_t *version);

#endif
