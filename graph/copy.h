/* Copying nodes from a finished graph into one that is being built. */
#ifndef KN_COPY_H
#define KN_COPY_H
#include "graph/graph.h"

typedef struct kn_copy {
  kn_builder *b;
  const kn_graph *from;
  kn_value **map; /* by id of a value of `from`: what stands for it; set before for what is not copied */
  uint32_t room;
} kn_copy;

/* Room for all values of g, none mapped; its named sizes and slots are made in the builder's graph, which has
 * none yet, so that they keep their numbers. */
bool kn_copy_begin(kn_copy *c, kn_builder *b, const kn_graph *g);
void kn_copy_end(kn_copy *c);
/* Inputs of g as inputs. */
bool kn_copy_inputs(kn_copy *c);
/* The nodes from `first` to the end of its region, to where the builder stands. A node whose first result is
 * mapped already is left out. */
bool kn_copy_nodes(kn_copy *c, const kn_node *first);
/* One node, to where the builder stands. The map may be the caller's own (kn_copy_begin makes another), and
 * `from` the graph that is being built. */
bool kn_copy_node(kn_copy *c, const kn_node *n);

/* All of g as a graph of its own that is still being built, by b: its slots hold the same tensors. The caller
 * owns it. */
kn_status kn_graph_copy(kn_context *ctx, const kn_graph *g, kn_builder *b, kn_graph **out);
/* The same; list[i], a value of g, becomes what it is in the copy. */
kn_status kn_graph_copy_tell(kn_context *ctx, const kn_graph *g, kn_builder *b, kn_value **list, uint32_t n,
                             kn_graph **out);

#endif
