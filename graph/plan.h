/* A plan: how one session runs a graph for one tuple of input sizes. Everything that depends on sizes alone
 * is folded, dead branches of such conditions are gone, every tensor has its place, parts are compiled.
 * Internal to the executor. Built by plan.c: sizes.c (types and folded numbers), constant.c (folded tensors),
 * emit.c (steps, with place.c for where values live; strands.c finds what may run side by side), memory.c
 * (bytes of the arena); run by run.c. One plan belongs to one session and is used by one run at a time. */
#ifndef KN_PLAN_H
#define KN_PLAN_H
#include "core/arena.h"
#include "core/context.h"
#include "graph/list.h"
#include "graph/target.h"
#include <stdatomic.h>

enum { KN_PLAN_DEPTH = 200 }; /* most nested regions */
#define KN_NOWHERE UINT32_MAX
#define KN_NO_TYPE ((kn_type){.dtype = UINT8_MAX}) /* of an input that is undefined, in the plan's key */

/* Where a value's tensor is while the plan runs. */
typedef enum kn_place {
  KN_PLACE_NONE,  /* a scalar, or a value this plan never computes */
  KN_PLACE_ARENA, /* bytes of its own in the arena; header made with the plan */
  KN_PLACE_VIEW, /* a view of an ARENA or VIEW value; header made with the plan, the node has nothing to do */
  KN_PLACE_CONST, /* computed with the plan; the node has nothing to do. No header: nobody asks for it */
  KN_PLACE_SHELL, /* a view of something else; header made with the plan, the node gives it storage at each
                     run */
  KN_PLACE_FRESH, /* a result of the graph: a new tensor at each run, written by its node */
  KN_PLACE_LOOSE, /* bound or made when it runs, counted: inputs, results of if and loop, unknown sizes */
  KN_PLACE_LENT   /* bound when it runs, not counted: all that it may be stays for the whole run */
} kn_place;

typedef enum kn_step_kind {
  KN_STEP_PART,   /* parts[a] */
  KN_STEP_NODE,   /* a node that is no op: scalars, slots, item, assert … */
  KN_STEP_NUMBER, /* one that makes a number of numbers */
  KN_STEP_IF,     /* blocks[a] or blocks[b], then its outputs */
  KN_STEP_LOOP,   /* loops[a] */
  KN_STEP_BIND, /* the outputs of an `if` whose branch `a` the sizes chose; the branch's steps stand before it
                 */
  KN_STEP_STRANDS, /* sections[a]: strands, side by side where that pays */
  KN_STEP_WHOLE,   /* wholes[a]: steps that a target runs as one */
  KN_STEP_FAIL     /* fails[a]: what the sizes make impossible, told when it is reached */
} kn_step_kind;

/* A value that takes what a region has yielded. */
typedef enum kn_bind_how {
  KN_BIND_NUMBER,
  KN_BIND_LENT, /* the tensor, not counted */
  KN_BIND_OWN,  /* the tensor, counted */
  KN_BIND_COPY, /* its elements, into the place of its own */
  KN_BIND_LIST
} kn_bind_how;
typedef struct kn_bind {
  uint32_t to, from;
  kn_bind_how how;
} kn_bind;

typedef struct kn_step {
  kn_step_kind kind;
  const kn_node *node; /* of the graph; PART: the first one */
  uint32_t a, b;
  uint32_t pos;               /* time of its last node: lifetimes are intervals of these */
  uint32_t drop, ndrop;       /* drops[drop …]: values that no later step reads */
  uint32_t bind[2], nbind[2]; /* binds[bind[side] …]: outputs of IF and BIND, and of LOOP (side 0) */
} kn_step;

typedef struct kn_block { /* the steps of a region */
  kn_step *steps;
  uint32_t n;
  uint32_t parent;      /* block that holds the step that owns it; KN_NOWHERE for the body */
  const kn_node *owner; /* if or loop */
  int side;             /* if: which branch */
  uint32_t section;     /* of a strand: 1 + the index of its section */
} kn_block;

/* What an output needs before each run of its part. */
typedef enum kn_prepare_how {
  KN_PREPARE_SHELL, /* its header, without storage */
  KN_PREPARE_TAKE,  /* a tensor, one that is there to be used again if there is any */
  KN_PREPARE_MAKE,  /* a new tensor */
  KN_PREPARE_NONE   /* nothing: the target makes it */
} kn_prepare_how;
typedef struct kn_prepare {
  const kn_value *value;
  kn_prepare_how how;
} kn_prepare;

typedef struct kn_wary { /* an input that may be undefined, and the first node of the part that reads it */
  const kn_node *node;
  uint32_t value;
} kn_wary;

typedef struct kn_part_plan {
  const kn_target *target;
  kn_program *program;
  const kn_node **nodes;   /* copies, as in kn_part */
  const kn_node **sources; /* the graph's own */
  uint32_t n;
  const uint32_t *together; /* by node, as in kn_part */
  kn_prepare *prepare;      /* outputs without a place of their own: SHELL, FRESH, LOOSE */
  uint32_t nprepare;
  kn_wary *wary;
  uint32_t nwary;
} kn_part_plan;

/* How a carried value of a loop reaches the next trip. */
typedef enum kn_carry_how {
  KN_CARRY_KEEP, /* it never changes: bound once (or a number the plan knows) */
  KN_CARRY_NUMBER,
  KN_CARRY_COPY,   /* into the parameter's bytes */
  KN_CARRY_STAGED, /* the same, by way of `stage`: the next value may overlap a parameter */
  KN_CARRY_OWN,    /* sizes change: bound, after leaving the arena */
  KN_CARRY_HANDLE  /* the same tensor, since someone writes to it or asks which it is */
} kn_carry_how;

typedef struct kn_carry {
  kn_carry_how how;
  kn_tensor *stage; /* STAGED */
  kn_tensor *next;  /* during a back edge */
  kn_list *list;
  kn_scalar number;
} kn_carry;

typedef struct kn_loop_plan {
  const kn_node *node;
  uint32_t block;
  kn_carry *carry;     /* one a parameter */
  uint32_t start, end; /* positions */
} kn_loop_plan;

/* Steps that depend on nothing in the other strands of their section and have no effects, so that any order
 * gives the same. */
typedef struct kn_strand {
  uint32_t block;
  uint32_t streams; /* of random numbers, that it forks and joins */
  uint32_t group;   /* strands of a group begin before those of the next one */
  double ns;        /* estimated, then as the last run took */
  kn_context *ctx;  /* of one thread; with what its kernels work in */
  /* During a run. */
  kn_random random; /* the state that it begins with */
  uint64_t steps;
  kn_status status;
} kn_strand;

typedef struct kn_section {
  kn_strand *strands; /* in the order of the program */
  uint32_t *order;    /* in each group those that take longest first */
  uint32_t n;
  uint32_t start, end; /* positions */
  double took[2];      /* nanoseconds, lately: on one thread, on several */
  uint32_t runs, rest; /* how many there were; how many more are to be in order */
} kn_section;

typedef struct kn_buffer { /* bytes of the arena */
  kn_tensor *header;
  uint32_t value;       /* 0: the stage of a carried value */
  uint32_t first, last; /* live in [first, last] */
  uint32_t block;       /* where it is written */
  size_t bytes, offset;
  const kn_node *store; /* it is no part of the arena: what this node stages; NULL */
  uint32_t into;  /* 1 + index of the buffer of what its value is yielded to, in whose place it may lie */
  bool none;      /* never touched */
  uint32_t under; /* 1 + index of the buffer in whose place it lies; 0: it has its own */
} kn_buffer;

typedef struct kn_over { /* value may lie over another that nobody reads after `last` */
  uint32_t value, under, last;
} kn_over;

typedef struct kn_planned_failure {
  const kn_node *node;
  kn_status status;
  const char *text;
} kn_planned_failure;

typedef struct kn_bound { /* a slot that runs only read: bound when a run starts */
  uint32_t value;
  const kn_slot *slot;
} kn_bound;

typedef struct kn_early { /* a view of an input or a slot, made when a run starts */
  const kn_node *node;
  bool stays; /* of a slot: good for the next run, unless the slot's tensor lies otherwise then */
  const kn_storage *storage; /* of the node's input when it was made; NULL: make it anew */
  int64_t offset, strides[KN_MAX_RANK];
} kn_early;

typedef struct kn_alias { /* dst may be (a view of) src: src lives as long as dst */
  uint32_t dst, src;
} kn_alias;

/* Tensors that runs have made for values without a place, and that nobody looks at any more: for the next
 * values of that type. */
enum { KN_LOOSE_TYPES = 8, KN_LOOSE_SPARES = 4 };
typedef struct kn_loose {
  kn_type type;
  kn_tensor *spare[KN_LOOSE_SPARES];
  uint32_t n;
} kn_loose;

/* What a plan is for. */
typedef enum kn_plan_form {
  KN_PLAN_USUAL,
  KN_PLAN_SINGLE, /* for observers: one node a part, so that what it gave is still there */
  KN_PLAN_APART,  /* for KILN_CHECK: what runs as one still does, but no two values share bytes */
  KN_PLAN_WHOLE   /* tensors stay where they are, for targets that run pieces as one (graph/whole.h) */
} kn_plan_form;

/* Nodes that turned out to be no part of a launch, though nobody had known: later plans cut there. */
typedef struct kn_refused {
  const kn_node **nodes; /* of the graph */
  uint32_t n;
} kn_refused;

typedef struct kn_flat { /* a list as one tensor */
  kn_type type;          /* of an element; numbers are 0-d */
  int64_t most;          /* elements */
} kn_flat;
kn_type kn_flat_type(const kn_flat *f); /* of that tensor */

typedef struct kn_plan kn_plan;
struct kn_plan {
  kn_plan *next; /* in the session's cache, most recently used first */
  const kn_graph *graph;
  kn_plan_form form;
  bool single;               /* of the form SINGLE */
  const kn_target *whole;    /* of the form WHOLE: who runs pieces as one; else NULL */
  const kn_refused *refused; /* while it is made */
  bool stale;                /* a better one can be made: it is not used again */
  bool fixed;                /* made by the fixed rule alone, whatever was measured */
  bool unmeasured;           /* some of it, as nothing is known */
  kn_arena arena;            /* holds all arrays below */
  kn_type *inputs;           /* the key: types of the graph's inputs (scalars: zero) */

  /* by value id */
  kn_type *types;     /* tensors: sizes unknown where only a run knows */
  bool *hidden;       /* tensors: not in memory as they are, but in a target's own way or not at all */
  bool *undefined;    /* tensors: no path defines it (type is meaningless) */
  bool *maybe;        /* tensors: some path leaves it undefined */
  bool *known;        /* scalars: the plan knows the number */
  kn_scalar *scalars; /* known ones set for good, others by the run */
  kn_planned_failure **failure; /* of the node whose first output it is */
  bool *result;                 /* the graph returns it */
  bool *listed; /* tensors that a list takes up: not made in the arena, so that it can keep them */
  kn_flat *
      *flat; /* of the form WHOLE, lists: the one tensor that may stand for it (flat.c); NULL; all: no list */
  bool *exact;  /* of the form WHOLE, tensors: somebody may ask whether a path has defined it */
  bool *handle; /* tensors that must stay the same handle: written to, compared, told at the end */
  const kn_node *
      *store; /* of a tensor that is computed straight into what this node stages; NULL (stored.c) */
  const kn_value **same;  /* the value that it is, element by element, to nodes that read it; NULL: itself */
  uint32_t *root;         /* the value in whose bytes it lies: of a view without a step; else itself */
  uint32_t *reads;        /* how often its elements are read, as it is or as a value that is the same */
  uint8_t *place;         /* kn_place */
  kn_tensor **header;     /* ARENA, VIEW, CONST, SHELL; owned by the plan */
  kn_tensor **vals;       /* what the run sees */
  kn_list **lists;        /* the same for lists, owned by the run */
  bool has_lists;         /* some value that the steps make or read is a list */
  bool *owned;            /* vals holds a reference of this run */
  bool *passed;           /* a yield of its own region that passes that reference on */
  uint32_t *first, *last; /* lifetime */
  uint32_t *crosses;      /* 1 + index of the last loop that uses it from outside */
  uint32_t *level;        /* number of loops around its definition */
  uint32_t *home;         /* block of its definition */

  kn_block *blocks;
  kn_part_plan *parts;
  kn_loop_plan *loops;
  kn_section *sections;
  struct kn_whole **wholes;
  kn_buffer *buffers;
  kn_planned_failure **fails;
  kn_alias *aliases;
  kn_over *overs;
  kn_bind *binds;
  kn_bound *bound;
  kn_early *early;
  uint32_t *staged; /* buffers with a `store` */
  uint32_t *held;   /* values that a run may still hold when it ends */
  bool *ready;      /* by value id: there from the start of a run on */
  uint32_t *drops;
  kn_loose loose[KN_LOOSE_TYPES];
  atomic_flag loose_taken; /* while `beside` */
  bool beside;             /* strands run on several threads just now */
  uint32_t nloose;
  uint32_t nblocks, nparts, nloops, nsections, nwholes, nbuffers, nfails, naliases, nbinds, nbound, nearly,
      nheld, novers, nstaged;
  bool
      *slot_copied; /* by slot: the graph writes into the loaded tensor itself, so each run works on a copy */
  size_t bytes[KN_DEVICE_COUNT]; /* of the arena on each device */
  size_t kept;                   /* of the heap, by the plan and its programs when it was made */
  size_t bytes_apart;            /* what it would be if nothing shared bytes */
  char *base[KN_DEVICE_COUNT];   /* the arenas that the headers point into now */
};

/* Fails only for lack of memory or too deep nesting; what the sizes make impossible is a step of its own. */
kn_status kn_plan_new(kn_context *ctx, const kn_graph *g, const kn_target *const *targets, int ntargets,
                      kn_plan_form form, const kn_refused *refused, const kn_type *inputs, kn_plan **out);
void kn_plan_free(kn_context *ctx, kn_plan *p);
void kn_plan_drop_spares(kn_plan *p); /* of `loose` */
/* Point the headers of a device into an arena there, of so many p->bytes. */
void kn_plan_place_at(kn_plan *p, kn_device_id d, char *base);

/* Is its header there with the plan, over bytes that stay? */
static inline bool kn_plan_is_fixed(const kn_plan *p, uint32_t v) {
  return p->place[v] == KN_PLACE_ARENA || p->place[v] == KN_PLACE_VIEW || p->place[v] == KN_PLACE_CONST;
}

/* May it have no value, so that somebody can tell? What nobody can tell may be anything. */
static inline bool kn_plan_may_miss(const kn_plan *p, uint32_t v) { return p->maybe[v] && p->exact[v]; }

static inline bool kn_plan_is_flat(const kn_plan *p, const kn_value *v) { return p->flat && p->flat[v->id]; }

/* Its output is the tensor of its first input: not even another handle. */
static inline bool kn_node_passes(const kn_node *n) {
  return n->op == KN_NODE_detach || n->op == KN_NODE_with_history;
}

/* The stages, in order. */
kn_status kn_plan_sizes(kn_context *ctx, kn_plan *p);   /* types, undefined, maybe, known, scalars, failure */
kn_status kn_plan_flats(kn_context *ctx, kn_plan *p);   /* flat */
kn_status kn_plan_handles(kn_context *ctx, kn_plan *p); /* handle, slot_copied */
kn_status kn_plan_identities(kn_context *ctx, kn_plan *p); /* handle (identity.c) */
kn_status kn_plan_stores(kn_context *ctx, kn_plan *p);     /* store */
kn_status kn_plan_constants(kn_context *ctx, kn_plan *p);  /* place and header of constants */
kn_status kn_plan_emit(kn_context *ctx, kn_plan *p, const kn_target *const *targets,
                       int ntargets);                  /* the rest */
kn_status kn_plan_layout(kn_context *ctx, kn_plan *p); /* offsets of buffers, bytes */

/* Appends to an array in an arena, in the plan's. */
bool kn_push(kn_arena *a, void *array, uint32_t *count, const void *elem, size_t size);
bool kn_plan_push(kn_plan *p, void *array, uint32_t *count, const void *elem, size_t size);
/* New bytes in the arena, live from `first` on. value 0: a stage. The header is owned by the plan. */
kn_status kn_plan_buffer(kn_context *ctx, kn_plan *p, const kn_type *type, uint32_t value, uint32_t first,
                         uint32_t block, kn_tensor **header);
/* Decides the place of one output of a node (n: the plan's copy) and makes its header. `once`: the node runs
 * exactly once a run, so a result may be written straight into the tensor that is returned. */
kn_status kn_plan_place(kn_context *ctx, kn_plan *p, const kn_node *n, const kn_value *v, uint32_t pos,
                        uint32_t block, bool once);
/* What `if` and loop bind, and what of it, and of select, need not be counted: LENT, `passed`. */
kn_status kn_plan_bindings(kn_context *ctx, kn_plan *p);
/* Lays the result of n over its first input, where that may be (over.c). */
kn_status kn_plan_over(kn_context *ctx, kn_plan *p, const kn_node *n, bool *over);
bool kn_plan_is_over(const kn_plan *p, const kn_value *v);
/* A sum to sizes that its input has already is that input, where it lies in the arena: may it be one, and
 * make it so. */
bool kn_plan_may_pass_on(const kn_plan *p, const kn_node *n);
kn_status kn_plan_pass_on(kn_context *ctx, kn_plan *p, const kn_node *n, bool *passed);
void kn_plan_log(kn_context *ctx, const kn_plan *p); /* KILN_DEBUG=mem */

#endif
