/* Errors that a graph catches: `if %a {…} else {…}` whose condition is an `attempt` runs the first branch,
 * and where that raises, the second. The sentence of the error is kept by the session, under a number that
 * the node `caught` gives and the directive %m of a text shows, until the next run begins. */
#ifndef KN_ATTEMPT_H
#define KN_ATTEMPT_H
#include "graph/graph.h"

static inline bool kn_is_attempt(const kn_node *n) {
  return n->op == KN_NODE_if && n->in[0]->def && n->in[0]->def->op == KN_NODE_attempt;
}
/* May running this region raise an error, as far as can be told without its sizes? */
bool kn_region_may_raise(const kn_region *r);
bool kn_node_may_raise(const kn_node *n);
/* May it raise because of what numbers and elements are, or an index, not of sizes alone? Such nodes are kept
 * though nobody reads what they give. */
bool kn_data_may_raise(const kn_node *n);
/* Is it an error of the program, or of the machinery around it (limits, cancelling, faults of our own)? */
bool kn_can_be_caught(kn_status st);

typedef struct kn_caught { /* sentences, each once */
  char **text;
  uint32_t n, last; /* last: the number of the present one */
} kn_caught;
kn_status kn_catch(kn_context *ctx, kn_caught *c); /* the context's error is caught */
void kn_caught_clear(kn_heap *heap, kn_caught *c);

#endif
