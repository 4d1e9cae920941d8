/* Slots that are only read become constants. */
#ifndef KN_FREEZE_H
#define KN_FREEZE_H
#include "graph/graph.h"

/* `keep`, by slot: those that stay as they are; what the graph writes is added to it. Tensors that are one
 * become one slot. *frozen: how many became constants. STATE when a slot has no data. */
kn_status kn_freeze_slots(kn_builder *b, bool *keep, uint32_t *frozen);
/* Guards stay that tell of arguments and of slots that are kept; the others go to the end of the list, and
 * *dropped is how many they are: the caller may look at them until the graph changes again. */
void kn_freeze_guards(kn_graph *g, uint32_t *dropped);

#endif
