/* Checks every invariant of graph.h, with types through the infer rules. */
#ifndef KN_VERIFY_H
#define KN_VERIFY_H
#include "graph/graph.h"
/* INTERNAL (or FORMAT for untrusted graphs, when `untrusted`) naming the node. */
kn_status kn_graph_verify(kn_context *ctx, const kn_graph *g, bool untrusted);
/* The same; *fault is the node that breaks a rule, where it is one. */
kn_status kn_graph_verify_to(kn_context *ctx, const kn_graph *g, bool untrusted, const kn_node **fault);
#endif
