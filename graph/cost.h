/* What a node costs, estimated: see cost.c. */
#ifndef KN_COST_H
#define KN_COST_H
#include "graph/graph.h"

typedef struct kn_cost {
  double flops; /* multiplications, additions and the like; functions such as exp count as one */
  double bytes; /* of tensors read and written */
} kn_cost;
/* Of an op node with tensors of these types; nothing for other nodes. Types without sizes count as nothing.
 */
kn_cost kn_node_cost(const kn_node *n, const kn_type *in, const kn_type *out);
/* The same by the types of all values of the graph, by id; whether all of its own have sizes. */
bool kn_cost_by_types(const kn_node *n, const kn_type *types, kn_cost *c);
/* By the tensors of a run, by id of their values; false for other nodes and where a tensor is missing. */
bool kn_cost_by_tensors(const kn_node *n, kn_tensor *const *vals, kn_cost *c);

#endif
