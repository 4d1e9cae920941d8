/* What emit.c (regions become steps) and parts.c (op nodes become parts of targets) share. Private to these.
 */
#ifndef KN_GRAPH_EMIT_H
#define KN_GRAPH_EMIT_H
#include "graph/plan.h"

typedef struct emitter {
  kn_context *ctx;
  kn_plan *p;
  const kn_target *const *targets;
  int ntargets;
  uint32_t pos;
  uint32_t block;                        /* steps go here */
  uint32_t loops[KN_PLAN_DEPTH], nloops; /* around this place */
  const kn_target *target;               /* of the part being gathered: nodes[0 … n) */
  const kn_node **nodes, **sources;
  uint32_t n, nsources;
  uint32_t buffers; /* there were so many when gathering began */
  size_t *room;     /* by value id, for targets: see kn_part */
  uint32_t *over;   /* likewise */
} emitter;

kn_status kn_push_step(emitter *e, kn_step s); /* at the present place and time */

/* parts.c */
kn_part kn_part_of(const emitter *e, const kn_node *const *nodes, uint32_t n); /* as targets see it */
/* The node as targets see it: attributes with the numbers the plan knows. */
kn_status kn_part_copy(emitter *e, const kn_node *n, kn_node **out);
const kn_target *kn_part_target(emitter *e, const kn_node *n); /* who computes it */
/* Compile what was gathered. A target that cannot after all leaves its nodes to the last one. */
kn_status kn_part_flush(emitter *e);

#endif
