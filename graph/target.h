/* What a backend offers to graphs. The executor cuts each region's nodes into parts, each for one target, and
 * asks the target to compile the part. Targets come in order of preference; the last supports everything. */
#ifndef KN_TARGET_H
#define KN_TARGET_H
#include "graph/graph.h"

typedef struct kn_target kn_target;
typedef struct kn_program kn_program; /* a compiled part, defined by each target */

/* A run of consecutive op nodes of one region, with concrete types for this plan. */
typedef struct kn_part {
  const kn_graph *graph;
  const kn_node *const *nodes;
  uint32_t n;
  const kn_type *types;       /* by value id; rank 0xff where only known when running */
} kn_part;

struct kn_target {
  const char *name;
  /* False with a short reason: "float64 is not supported". Types as in kn_part. */
  bool (*supports)(void *self, const kn_node *n, const kn_type *types, char *why, size_t size);
  kn_status (*compile)(void *self, kn_context *ctx, const kn_part *part, kn_program **out);
  /* vals: tensors by value id. Inputs are real; outputs with planned memory are real and are filled in place;
   * outputs that are NULL (views, unplanned) are created and owned by the caller. With KILN_DEBUG=exec logs one
   * line a node: backend, implementation, where. On failure the error names the node and its Lua line. */
  kn_status (*run)(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars);
  void (*free)(void *self, kn_context *ctx, kn_program *p);
  void *self;
};

#endif
