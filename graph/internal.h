/* What the files of this room share and nobody else needs. */
#ifndef KN_GRAPH_INTERNAL_H
#define KN_GRAPH_INTERNAL_H
#include "graph/graph.h"

/* Makes the builder fail for good: its first failure sticks. Always NULL, for `return kn_build_fail(…)`. */
void *kn_build_fail(kn_builder *b, kn_status st);
/* Zeroed memory in the graph's arena; NULL after setting the builder's status. */
void *kn_build_alloc(kn_builder *b, size_t size);
/* A copy with the spare room that kn_arena_grow expects, so that it may grow. */
void *kn_build_array(kn_builder *b, const void *p, size_t count, size_t elem);
/* Text that can stand in a file: bytes that are no UTF-8 become '?'. */
const char *kn_build_text(kn_builder *b, const char *s);
/* Appends p to an array made by the two above. */
bool kn_build_push(kn_builder *b, void *array, uint32_t *count, const void *elem, size_t size);
kn_value *kn_build_value(kn_builder *b, kn_region *r, kn_node *def, uint32_t index, const kn_vtype *type);

/* A slot under a name known to be new. */
kn_slot *kn_build_slot(kn_builder *b, kn_slot_kind kind, const char *name, const kn_vtype *type);
/* What is wrong with a need; NULL: nothing. */
const char *kn_need_wrong(const kn_graph *g, const kn_need *need);
/* kn_graph_finish, for a graph from outside when `untrusted`. */
kn_status kn_build_finish(kn_builder *b, bool untrusted);

/* Deep copy into the graph. Leaves of kind VALUE get their position from `place`, called in order. */
typedef bool (*kn_tree_place)(void *ud, kn_tree *leaf);
bool kn_tree_copy(kn_builder *b, kn_tree *to, const kn_tree *from, uint32_t n, kn_tree_place place, void *ud);

/* Bytes of the character at s (which ends at `end`): 1 to 4, or 0 when it is no valid UTF-8. */
size_t kn_utf8_length(const char *s, const char *end);

/* Of a state slot: its name, its type, that of what is to be stored. */
#define KN_STORE_SENTENCE                                                                                    \
  "'%s' is %s and would become %s: what a graph stores keeps its dtype and sizes; return it, and store it "  \
  "outside"

enum { KN_TREE_DEPTH = 100 };
#endif
