/* How the elements of a tensor lie, as far as that can be told where sizes are not known: which dims come
 * right behind one another, whatever their sizes. Where sizes are known, strides say more (view.h). */
#ifndef KN_LIE_H
#define KN_LIE_H
#include "graph/graph.h"

/* Of a tensor whose type is known beside it: a dim of the literal size 1 stands in nobody's way. */
typedef struct kn_lie {
  uint16_t joined; /* bit d: a step along dim d is as long as all of dim d + 1 */
  bool unit;       /* a step along the last dim is one element */
} kn_lie;

extern const kn_lie kn_lie_in_order, kn_lie_unknown;

bool kn_lie_contiguous(const kn_lie *x, const kn_type *type);
kn_lie kn_lie_meet(const kn_lie *x, const kn_lie *y); /* what holds of both */
kn_lie kn_lie_of_strides(const kn_tensor *t);         /* sizes known */
/* Does a tensor of type `from` that lies so show its elements in the shape `to` without a copy, whatever the
 * sizes? How they then lie. */
bool kn_lie_shows(const kn_lie *x, const kn_type *from, const kn_type *to, kn_lie *out);
/* The result `to` of an op of class VIEW. */
kn_lie kn_lie_of_view(kn_op op, const void *attrs, const kn_lie *x, const kn_type *from, const kn_type *to);

#endif
