/* Gradients of graph values: reverse mode on the IR. Emits the nodes that compute them by calling core's vjp
 * rules on symbolic tensors, so a gradient is a graph like any other and can be differentiated again. */
#ifndef KN_GRAPH_GRAD_H
#define KN_GRAPH_GRAD_H
#include "graph/record.h"

/* A gradient. v NULL: none flows, on no path. maybe: some path leaves v undefined, as none flows on it. */
typedef struct kn_gradient {
  kn_value *v;
  bool maybe;
} kn_gradient;

typedef struct kn_gradient_request {
  kn_record *record; /* nodes go to the end of its builder's region; constants by its `outside` */
  kn_value *const *ys;
  const kn_gradient *gs; /* of the ys; NULL, or v NULL: 1, for a y of one element */
  uint32_t ny;
  kn_value *const *xs; /* gradients for these */
  uint32_t nx;
  size_t memory; /* bytes that checkpoints of loops may take, from which other trips are computed again; 0:
                    all that is read of each trip is kept */
} kn_gradient_request;

/* Gradients of sum(ys · gs) for each x; all are visible where the builder stands. Nodes in front may get more
 * results and carried values: what the rules read of the inside of an `if` or `loop`. False when it fails,
 * the builder's status says why. */
bool kn_emit_gradients(const kn_gradient_request *q, kn_gradient *out);

/* Which of the ys depend on an x so that gradients flow, on some path. */
bool kn_values_depend(kn_builder *b, kn_value *const *ys, uint32_t ny, kn_value *const *xs, uint32_t nx,
                      bool *out);

/* A kn_record.outside that makes numbers constants at the start of the graph, each once. ud is such a pool,
 * which starts zeroed and holds nothing to free. */
typedef struct kn_number_pool {
  kn_value *v[64];
  kn_scalar number[64];
  uint32_t n;
  kn_builder *b;
} kn_number_pool;
kn_value *kn_pooled_number(void *pool, kn_tensor *t);

#endif
