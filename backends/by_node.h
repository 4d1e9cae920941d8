/* A target that computes node by node by the eager kernels of a device: slow, and complete. */
#ifndef KN_BY_NODE_H
#define KN_BY_NODE_H
#include "graph/target.h"

typedef struct kn_by_node {
  const char *name; /* of the backend */
  bool eager; /* by the kernels of the device; else by the reference's, but for nodes that are not static */
  void (*meets)(kn_context *ctx, const kn_node *n); /* told of each before it runs; NULL */
} kn_by_node;

/* One node; `open`: it is not static. Logs it, and a failure has its line. */
kn_status kn_by_node_run(const kn_by_node *by, kn_context *ctx, const kn_node *n, bool open, kn_tensor **vals,
                         const kn_scalar *scalars);
/* Fills supports, compile, run, free and self, which is borrowed. */
void kn_by_node_target(const kn_by_node *self, kn_target *out);

#endif
