/* What emit.c (regions become steps) and parts.c (op nodes become parts of targets) share. Private to these.
 */
#ifndef KN_GRAPH_EMIT_H
#define KN_GRAPH_EMIT_H
#include "graph/plan.h"

typedef struct kn_label { /* of a value, in the search with that stamp: the strand it is computed in, and that
                             reads it */
  uint32_t stamp, strand, reader;
} kn_label;

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
  uint32_t buffers;  /* there were so many when gathering began */
  size_t *room;      /* by value id, for targets: see kn_part */
  uint32_t *over;    /* likewise */
  kn_label *labels;  /* by value id: strands.c's */
  uint32_t *strands; /* by node of the section that is looked for: the strand; strands.c's */
  uint32_t stamp;
  uint64_t visits;       /* of nodes, in search of strands */
  uint32_t strand;       /* 1 + the block of the strand that is emitted; 0: none */
  const kn_value **kept; /* what is stored, which the host does when all has run */
  uint32_t nkept;
  bool early; /* what is emitted stands before others that come first in the program */
} emitter;

kn_status kn_push_step(emitter *e, kn_step s); /* at the present place and time */
/* One node. *dead: nothing after it runs. */
kn_status kn_emit_node(emitter *e, const kn_node *n, bool *dead);

/* strands.c */
typedef struct kn_found { /* nodes from first to before end (NULL: to the region's last) that make a section
                           */
  const kn_node *first, *end;
  uint32_t n;       /* of strands */
  uint32_t *strand; /* of each of the nodes: from 1; 0: it is emitted before them all */
  double *ns;       /* of strands 1 to n: what they take, as far as that can be told */
  uint32_t *streams;
  uint8_t *marks;
} kn_found;
/* The next section of a region from `from` on; *found: NULL for none. */
kn_status kn_find_section(emitter *e, const kn_node *from, kn_found **found);
kn_status kn_emit_section(emitter *e, const kn_found *f, bool *dead);

/* parts.c */
kn_part kn_part_of(const emitter *e, const kn_node *const *nodes, uint32_t n); /* as targets see it */
/* The node as targets see it: attributes with the numbers the plan knows. */
kn_status kn_part_copy(emitter *e, const kn_node *n, kn_node **out);
const kn_target *kn_part_target(emitter *e, const kn_node *n); /* who computes it */
/* Compile what was gathered. A target that cannot after all leaves its nodes to the last one. */
kn_status kn_part_flush(emitter *e);

#endif
