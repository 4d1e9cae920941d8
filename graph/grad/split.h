/* A graph and its gradient as two graphs: forward, which gives what the gradient reads besides its results,
 * and backward, which takes that and the gradients of the results. */
#ifndef KN_GRAD_SPLIT_H
#define KN_GRAD_SPLIT_H
#include "graph/graph.h"

typedef enum kn_saved_from {
  KN_SAVED_INPUT, /* of the graph */
  KN_SAVED_SLOT,  /* what it held when the graph ran */
  KN_SAVED_RESULT /* of forward */
} kn_saved_from;
typedef struct kn_saved_value {
  kn_saved_from from;
  uint32_t index;
} kn_saved_value;

typedef struct kn_grad_pair {
  kn_heap *heap;
  kn_graph *forward;  /* results: those of the graph, then what is saved; the same slots in the same order */
  kn_graph *backward; /* inputs: the saved values, then a gradient for each of ys, undefined where none came;
                         results: a gradient for each x, undefined where none flows */
  kn_saved_value *saved;
  uint32_t nsaved;
  uint32_t *ys; /* results of the graph to which a gradient may come */
  uint32_t ny, nx;
  uint32_t results; /* of the graph */
} kn_grad_pair;

/* The xs: inputs with wants[i], in order, then slots with wants[inputs + s]. memory: as kn_gradient_request.
 */
kn_status kn_grad_split(kn_context *ctx, const kn_graph *g, const bool *wants, size_t memory,
                        kn_grad_pair *out);
/* May the graph be computed again? NULL, or what it does besides giving results. */
const char *kn_grad_effects(const kn_graph *g);
/* The gradient alone, of what the pair's backward gives, as a graph of the graph's own inputs (then gradients
 * for its ys) and slots: for gradients of it. It computes the graph again; what that prints is left out. */
kn_status kn_grad_joint(kn_context *ctx, const kn_graph *g, const bool *wants, size_t memory, kn_graph **out);
void kn_grad_pair_free(kn_grad_pair *p);

#endif
