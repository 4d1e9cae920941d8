/* One graph as part of another that is being built: its nodes are copied to where the builder stands. */
#ifndef KN_INLINE_H
#define KN_INLINE_H
#include "graph/graph.h"

typedef struct kn_inlining {
  kn_builder *b;
  const kn_graph *graph; /* finished */
  kn_value *const *in;   /* one for each input of the graph, of types that may be theirs */
  kn_value **out;        /* gets one for each of its outputs */
  /* The value of a slot that the graph only reads. NULL on failure (b->status). */
  kn_value *(*slot)(void *ud, const kn_slot *s);
  void *ud;
  const char *name; /* of who does this, for messages */
} kn_inlining;

/* A graph that writes state is refused. */
kn_status kn_inline(kn_inlining *x);

#endif
