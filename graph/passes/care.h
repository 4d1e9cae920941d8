/* What passes take care of when one tensor is to stand for another: which handles somebody can tell apart,
 * what is written to, and where a gradient may come, as sums of gradients would add up in another order. No
 * pass. */
#ifndef KN_PASSES_CARE_H
#define KN_PASSES_CARE_H
#include "graph/graph.h"

enum { KN_CARE_SEEN = 1, KN_CARE_WRITTEN = 2 };
typedef struct kn_care {
  kn_builder *b;
  uint32_t *parent; /* values that may be one handle, slots after them: a union-find */
  uint8_t *mark;    /* of a class, at its root: KN_CARE_* */
  bool *leads;      /* by value: a gradient that came to it would go on */
  bool *wants;      /* by value: a gradient may come to it */
  uint32_t n, ids;
  bool freely; /* what gradients add up to may change by rounding */
} kn_care;

/* Ids of the graph are those it has now; values made later have none of this. */
kn_status kn_care_begin(kn_care *c, kn_builder *b, bool freely);
void kn_care_end(kn_care *c);
/* A handle that somebody outside gets or gave, or that is compared with others. */
bool kn_care_seen(const kn_care *c, const kn_value *v);
bool kn_care_written(const kn_care *c, const kn_value *v); /* its elements change while the graph runs */
/* May v be computed in another way, or what reads it read `with` in its place, as far as gradients go? */
bool kn_care_may_change(const kn_care *c, const kn_value *v);
bool kn_care_may_be(const kn_care *c, const kn_value *v, const kn_value *with);
/* From here on `with` is v, too. */
void kn_care_note(kn_care *c, const kn_value *v, const kn_value *with);

/* An op that depends on its inputs alone and changes nothing; it may raise. */
bool kn_care_pure_op(const kn_node *n);

#endif
