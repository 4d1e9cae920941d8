/* Which nodes of a part are attention: softmax(q kT, scaled and masked) v. Both backends that compute it as
 * one ask here. */
#ifndef KN_ATTENTION_FIND_H
#define KN_ATTENTION_FIND_H
#include "graph/target.h"

/* What is done to scores, in order. */
typedef enum kn_score_step {
  KN_SCORE_MUL,  /* by a number */
  KN_SCORE_DIV,  /* by a number */
  KN_SCORE_ADD,  /* a tensor of their dtype */
  KN_SCORE_KEEP, /* where a bool tensor says so, else a number stands there */
  KN_SCORE_DROP  /* the other way round */
} kn_score_step;

enum { KN_SCORE_STEPS = 4 };

enum { KN_ATTENTION_LOOK = 24 }; /* nodes that are looked at, at most */

/* Values by id; 0: none. */
typedef struct kn_attention_op {
  kn_score_step step;
  uint32_t operand, number;
} kn_attention_op;

typedef struct kn_attention_nodes {
  uint32_t length;                             /* nodes of the list, from its first on */
  uint32_t others[KN_ATTENTION_LOOK], nothers; /* which of them are none of its, and run before */
  uint32_t q, k, v, out;                       /* k as the product reads it: [..., width, keys] */
  uint32_t scale;                              /* of q */
  bool divided;                                /* by it */
  kn_attention_op ops[KN_SCORE_STEPS];
  uint32_t nops;
  uint32_t kept, unkept; /* where(kept, weights, unkept) */
  uint32_t scores;       /* the first product's result, for its sizes */
  bool turned;           /* results lie with queries before heads: [..., queries, heads, values] */
  uint32_t hidden[KN_SCORE_STEPS + 6], nhidden; /* results that nobody sees */
} kn_attention_nodes;

/* Do the nodes from list[0] on compute it? Asks nothing of sets of instructions. */
bool kn_attention_find(const kn_part *part, const kn_node *const *list, uint32_t n,
                       kn_attention_nodes *found);

#endif
