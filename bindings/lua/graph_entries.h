/* Graphs on their way to or from a file: what graph_files.c (load, parse) and graph_save.c share. */
#ifndef KL_GRAPH_ENTRIES_H
#define KL_GRAPH_ENTRIES_H
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/owned.h"
#include "graph/file.h"

typedef struct kl_entries { /* freed with its userdata */
  kn_context *ctx;
  kn_heap *heap;
  kn_entry *list;
  uint32_t n;
  size_t room;     /* of the list, when it is ours */
  bool loaded;     /* by kn_file_load: all of the list is its own */
  kn_notes *notes; /* to be saved; owned */
} kl_entries;
kl_entries *kl_push_entries(lua_State *L);
void kl_make_entries(lua_State *L, kl_entries *e, size_t n); /* room for n. Raises */

/* Runs test vectors in a session of their own and keeps what they give, or compares. Raises. */
void kl_run_vectors(lua_State *L, kn_graph *g, kn_vectors *v, bool record);

void kl_set_save_functions(lua_State *L); /* graph_save.c: kiln.save */

#endif
