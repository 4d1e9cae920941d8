/* Lua values as trees of arguments and results: what trace and builder share. */
#ifndef KL_TREES_H
#define KL_TREES_H
#include "bindings/lua/state.h"

/* The graph value behind a leaf at idx (a tensor, a symbol); NULL: it is a constant, or, with b->status set,
 * a failure. May raise. */
typedef kn_value *(*kl_leaf_fn)(void *ud, lua_State *L, int idx, const char *path);
typedef struct kl_tree_maker {
  lua_State *L;
  kn_builder *b;
  const char *name; /* of the function, for messages */
  kl_leaf_fn leaf;
  void *ud;
  int memo;         /* stack index of a Lua table, table → number; 0: a table met twice is refused */
  uint32_t ntables; /* numbers given */
} kl_tree_maker;

/* Fills *to, in the graph's memory. `path` names the value in messages: "result 1". Raises. */
void kl_make_tree(kl_tree_maker *m, int idx, const char *path, kn_tree *to);
kn_tree *kl_new_trees(kl_tree_maker *m, size_t n);

#endif
