/* A walk back over the tape: what it has met and in which order, and what it does at each place. The graph is
 * only read. Used by backward.c alone. */
#ifndef KN_WALK_H
#define KN_WALK_H
#include "core/grad/checkpoint.h"
#include "core/grad/node.h"

/* A node, or a leaf's link, met on the walk. */
typedef struct kn_place {
  kn_node *node;                  /* borrowed; NULL for a leaf */
  kn_grad *leaf;                  /* borrowed; NULL for a node */
  size_t pending;                 /* uses not walked over yet */
  bool target;                    /* its gradient was asked for */
  bool useful;                    /* a target is below it */
  kn_tensor *few[KN_MAX_OUTPUTS]; /* gradients so far, owned */
  kn_tensor **many;               /* the same for a custom function of more results */
} kn_place;

static inline kn_tensor **kn_walk_sums(kn_place *p) { return p->many ? p->many : p->few; }
static inline int kn_walk_results(const kn_place *p) { return p->node ? p->node->outs : 1; }

typedef struct kn_walk {
  kn_context *ctx;
  bool create_graph;
  kn_place *places;
  size_t n, room;
  size_t *slots; /* hash table of place numbers + 1, by address; its size is slot_room, a power of two */
  size_t slot_room;
  size_t *order;                      /* places, each after all its uses */
  kn_storage *blank[KN_DEVICE_COUNT]; /* behind tensors of which only sizes were saved */
  kn_checkpoint *filled;              /* whose values were computed again */
  kn_grad **ends; /* links of the results, then of the inputs: a hook may release these tensors or give
                     them another history */
  int ny, nx;
} kn_walk;

/* ---- walk.c: finding, ordering, adding up ---- */

/* The place a link belongs to, made when new. */
kn_status kn_walk_find(kn_walk *w, kn_grad *g, size_t *at);
kn_place *kn_walk_known(kn_walk *w, const kn_grad *g); /* NULL: not met */
/* Everything below the places found so far; counts uses. */
kn_status kn_walk_discover(kn_walk *w);
kn_status kn_walk_sort(kn_walk *w); /* each place after all its uses */
void kn_walk_mark(kn_walk *w);      /* those that a target is below */
bool kn_walk_wants(kn_walk *w, const kn_grad *edge);
/* Adds g, which is taken over even on failure. */
kn_status kn_walk_add(kn_walk *w, const kn_grad *link, kn_tensor *g);
void kn_walk_free(kn_walk *w);

/* ---- walk_node.c: one node ---- */

/* Runs hooks and the rule of a node, and adds to the places below it. */
kn_status kn_walk_pass(kn_walk *w, kn_place *p);
/* The hooks of one result (or leaf) on its complete gradient. */
kn_status kn_walk_hooks(kn_walk *w, kn_hook *list, int output, kn_tensor **g);

#endif
