/* What integers and booleans of a graph may be, as far as the sizes of a plan tell: counters of loops, and
 * what is made of them. */
#ifndef KN_RANGE_H
#define KN_RANGE_H
#include "graph/plan.h"

typedef struct kn_range { /* false is 0, true 1 */
  int64_t low, high;
} kn_range;

/* From INT64_MIN to INT64_MAX where nothing is known. */
kn_range kn_range_of(const kn_plan *p, const kn_value *v);
/* How often a loop goes on after its first trip, at most; INT64_MAX where that is not known. */
int64_t kn_range_trips(const kn_plan *p, const kn_node *loop);

#endif
