/* Which values a tensor may be: branches, loops and choices hand tensors on, ops make others. */
#ifndef KN_MAY_BE_H
#define KN_MAY_BE_H
#include "graph/graph.h"

typedef struct kn_may_be {
  const kn_value **todo;
  uint32_t *seen; /* values by id: the round that has met them */
  uint32_t n, round;
} kn_may_be;

/* Arrays have room for all values of the graph. */
void kn_may_be_begin(kn_may_be *m);
void kn_may_be_add(kn_may_be *m, const kn_value *v); /* a tensor; once in a round */
/* Adds what v hands on; false: v was made, or comes from outside. */
bool kn_may_be_step(kn_may_be *m, const kn_value *v);

typedef struct kn_end { /* of the graph */
  kn_value *value;
  const kn_node *node; /* the first one that stores it, or updates with it; NULL: it is but a result */
} kn_end;
/* The ends at which tensors are, each value once: what is stored and updated, then results. How many; room
 * for as many as there are values. */
uint32_t kn_list_ends(const kn_region *body, kn_end *list);
/* An input, or a slot's? */
bool kn_from_outside(const kn_value *v);
/* By id: at how many ends of the graph a value may be: 2 is many, and from outside is 2. */
void kn_count_ends(kn_may_be *m, const kn_end *list, uint32_t n, uint8_t *ends);

#endif
