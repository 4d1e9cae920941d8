/* Inside the differentiation of a graph; private to this folder.
 *
 * The nodes of a region are walked in reverse. While a region of an `if` or a `loop` is, a *frame* says where
 * its gradient nodes go and how a value of the region is seen from there: as another result of the `if`, as
 * the last trip's value, or as an element of a list that the loop was made to carry. Gradients found so far
 * are kept by the frame; those of values from outside go to the frames around it when it is closed. */
#ifndef KN_GRAD_INSIDE_H
#define KN_GRAD_INSIDE_H
#include "graph/grad/grad.h"
#include "graph/internal.h"

typedef struct kg_map { /* by number: at most half full */
  uint64_t *key;
  void **val;
  uint32_t n, cap;
} kg_map;

typedef struct kg_entry {
  kn_value *v;
  kn_gradient g;
} kg_entry;

typedef enum kg_kind {
  KG_TOP,   /* everything that can be seen from the place of the request */
  KG_SIDE,  /* a region of an if */
  KG_GUARD, /* none: only gradients are gathered, those of one path */
  KG_LAST,  /* a loop's last trip */
  KG_TRIPS  /* its other trips */
} kg_kind;

typedef struct kg_frame kg_frame;
struct kg_frame {
  kg_kind kind;
  kg_frame *up;
  kn_node *owner;  /* the `if` or `loop` */
  kn_region *fwd;  /* its region; TOP: where the request stands */
  kn_region *em;   /* gradient nodes go here */
  bool inlined;    /* em is that of the frame above */
  int side;        /* SIDE */
  kn_value *known; /* this boolean is `truth` here */
  bool truth;
  kn_value *at;    /* TRIPS: which trip, from 1 */
  kn_node *anchor; /* TRIPS: what is seen of the forward loop stands behind this node */
  kg_map entries;
  kg_map seen;     /* TRIPS: elements taken from lists */
  kg_entry **list; /* entries in the order they came */
  uint32_t n;
};

typedef struct kg_walk {
  kn_record *r;
  kn_builder *b;
  kn_context *ctx;
  kn_arena arena;
  bool *need;  /* by id: depends on an x so that gradients flow */
  uint32_t n0; /* values there were before */
  kg_frame *f;
  kg_map exported; /* a value inside, and how → a result of the `if` or `loop` it is in */
  size_t memory;   /* bytes that checkpoints of a loop may take; 0: every trip is kept */
  kg_map copied;   /* values of trips that are computed again and depend on an x */
  kg_map again;    /* values computed again, by region and value (recompute.c) */
  kg_map seen_of;  /* what trips computed again read of a value → that value */
} kg_walk;

/* ---- frames.c ---- */

void *kg_alloc(kg_walk *w, size_t size); /* NULL fails the builder */
void *kg_get(const kg_map *m, uint64_t key);
bool kg_put(kg_walk *w, kg_map *m, uint64_t key, void *val);
static inline bool kg_ok(const kg_walk *w) { return w->b->status == KN_OK; }
bool kg_needs(const kg_walk *w, const kn_value *v);
/* The value whose gradient that of v adds to: v itself, but for what kg_walk.seen_of knows. */
kn_value *kg_meant(const kg_walk *w, kn_value *v);
bool kg_visible(const kn_value *v, const kn_region *from);
/* Enters the frame; what is emitted then goes to f->em. */
void kg_enter(kg_walk *w, kg_frame *f);
void kg_leave(kg_walk *w);
bool kg_belongs(const kg_frame *f, const kn_value *v);
/* A forward value, or the size of its dimension dim (-1: itself), as it is seen from here. */
kn_value *kg_see(kg_walk *w, kn_value *v);
kn_value *kg_see_size(kg_walk *w, kn_value *v, int dim);
/* The gradient of v so far; what another path has added is not seen. */
kn_gradient kg_find(const kg_walk *w, const kn_value *v);
kn_gradient kg_own(const kg_frame *f, const kn_value *v); /* of this frame alone */
void kg_set(kg_walk *w, kn_value *v, kn_gradient g);
void kg_add(kg_walk *w, kn_value *v, kn_gradient g);
kn_value *kg_integer(kg_walk *w, int64_t i);
/* Another carried value of a finished loop: the parameter; then what it is after a trip. */
kn_value *kg_carry(kg_walk *w, kn_node *loop, kn_value *init);
void kg_carry_next(kg_walk *w, kn_node *loop, kn_value *next);

/* ---- recompute.c: values of checkpointed calls ---- */

/* Does the rule of n get v computed again, in place of as it was? Then v as it is computed here. */
bool kg_is_again(const kg_walk *w, const kn_node *n, const kn_value *v);
kn_value *kg_compute_again(kg_walk *w, kn_value *v);

/* ---- rules.c ---- */

/* Walks back from the values seeded: their gradients are there already. */
void kg_walk_back(kg_walk *w, kn_value *const *ys, uint32_t ny);

/* ---- branch.c: gradient nodes of two paths ---- */

typedef struct kg_branch {
  kn_node *n;
  kg_frame side[2];
} kg_branch;
bool kg_open(kg_walk *w, kg_branch *b, kn_value *cond);
void kg_close(kg_walk *w, kg_branch *b);
void kg_if_rule(kg_walk *w, kn_node *n);
void kg_select_rule(kg_walk *w, kn_node *n);

/* ---- loop.c ---- */

void kg_loop_rule(kg_walk *w, kn_node *n);

/* ---- lists.c ---- */

void kg_list_rule(kg_walk *w, kn_node *n);

/* ---- again.c: trips computed again in place of being kept ---- */

typedef struct kg_again {
  kg_walk *w;
  kn_node *loop;
  uint32_t nin;   /* its carried values, without those added for gradients */
  kn_node **trip; /* what is computed again to walk a trip back, in order */
  kn_node **next; /* and to go on to the next one */
  uint32_t ntrip, nnext;
  kn_value **outer; /* from outside, read by these */
  kn_value **outer_seen;
  uint32_t nouter;
  uint32_t *param; /* carried values that are kept at checkpoints */
  uint32_t nparam;
  bool random;      /* it draws: the state of the stream is kept too */
  kn_value **lists; /* of checkpoints: trips, each param, the stream's state; params of the loop back */
  uint32_t nlists;
  kn_value **first; /* the same where the walk back begins */
  kn_value **after; /* what they are after a trip back */
  kn_value *stream; /* its state before the walk back */
  kn_value **map;   /* by id: a value of the forward trip as it is in the trip back */
} kg_again;

/* Makes the loop keep checkpoints; false when it fails. *trips: how many there were, seen from here. param:
 * the carried values through which gradients flow. */
bool kg_again_begin(kg_walk *w, kg_again *a, kn_node *loop, uint32_t nin, const bool *param,
                    kn_value **trips);
/* Around the loop back, where it stands. */
void kg_again_open(kg_again *a, kn_value *trips);
void kg_again_close(kg_again *a);
/* Its carried values for the lists of checkpoints. */
void kg_again_params(kg_again *a, kn_node *back);
/* In its body: trip number `at` is computed again; a->map and a->after say the rest. */
void kg_again_trip(kg_again *a, kn_value *at);

#endif
