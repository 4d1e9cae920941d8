/* The inside of a session, shared by exec.c (its life and interface) and run.c (what a run does). */
#ifndef KN_SESSION_H
#define KN_SESSION_H
#include "core/device.h"
#include "graph/exec.h"
#include "graph/attempt.h"
#include "graph/plan.h"
#include "graph/writer.h"

typedef struct kn_slot_state {
  kn_rvalue value;  /* what the next run reads; tensor retained */
  kn_rvalue staged; /* what the run under way has stored, or the copy it writes into */
  bool is_staged;
  bool wrote;       /* the last run has stored to it */
  bool stored;      /* the value is what a run has stored */
  kn_tensor *spare; /* a tensor of the slot's type to store into, once nobody else looks at it; NULL */
  kn_tensor *from;  /* during a run: what was stored, of which staged has the elements */
  kn_origin origin; /* of what the last run stored */
  uint32_t group;   /* the first slot that it stored the very same tensor to, from 1; 0: unknown */
} kn_slot_state;

/* A tensor given for an input that the graph updates. */
typedef struct kn_update_state {
  uint32_t input;
  const kn_node *node;
  kn_tensor *staged; /* what the run under way gave it; kept for the next run */
  bool is_staged;
  kn_tensor *from; /* as a slot's */
} kn_update_state;

/* Where the values of plans lie on one device. */
typedef struct kn_arena_on {
  char *data;
  size_t bytes;
  const kn_memory *memory; /* NULL: the host's */
} kn_arena_on;

/* Memory of the caller's, in which runs live (lent.c). */
typedef struct kn_lent {
  char *memory; /* NULL: none */
  size_t bytes;
  kn_heap *heap; /* over its end: what the last run has made; NULL before one */
  bool aside;    /* runs live elsewhere for the moment */
} kn_lent;

struct kn_session {
  kn_context *ctx;
  kn_graph *graph;
  kn_graph *
      whole; /* the same for plans whose pieces run as one: which tensors are at its ends, as numbers; NULL */
  const kn_target **targets;
  int ntargets;
  bool launches; /* one of them runs pieces of plans as one */
  kn_slot_state *slots;
  kn_update_state *updates;
  uint32_t nupdates;
  kn_origin *origins;                 /* of the outputs of the last run */
  bool hands_on;                      /* an output may be a tensor that a branch or loop has handed on */
  bool tracks;                        /* a slot may be stored a tensor that is also something else */
  kn_plan *plans;                     /* most recently used first */
  kn_refused refused;                 /* found by its runs */
  kn_arena_on arena[KN_DEVICE_COUNT]; /* for all plans: only one runs at a time */
  kn_lent lent;
  kn_type *in_types; /* scratch of the call under way: the plan's key … */
  int64_t *symbols;
  uint32_t *symbol_from; /* … and which input said so: 1 + index * KN_MAX_RANK + dim */
  kn_rvalue *out;        /* scratch: results before they are handed over */
  kn_random *random;     /* borrowed; NULL: the context's own */
  kn_poll_fn poll;
  void *poll_ud;
  bool unwatched; /* it is not for launches to wait for what it says */
  kn_observe_fn observe;
  void *observe_ud;
  kn_host_fn host;
  void *host_ud;
  bool check;
  bool any_sizes;             /* inputs may have others than the graph says */
  bool single;                /* every node alone, for a profile of nodes */
  struct kn_profile *profile; /* told of each step of the run under way; NULL */
  bool running;
  uint64_t limit, steps;
  uint64_t trip_limit; /* 0: none */
  double seconds, due; /* that a run may take, 0: any; when the one under way has to be done, 0: never */
  atomic_bool late;    /* it was not: why a run has ended with LIMIT */
  uint64_t told;       /* to the host: steps, but it never goes back where a section is run again */
  kn_caught caught;    /* since the last run began */
  kn_writer text;      /* kn_session_text's */
  uint64_t beside;     /* sections whose strands ran on several threads */
  uint64_t trips;      /* of the loop that an observer is told of */
};

/* Is t all that there is of its memory, and nobody else's? */
bool kn_is_forgotten(const kn_tensor *t);

/* Runs the plan on checked inputs. Results go to s->out, owned; stores stay staged. Cleans the plan up. */
kn_status kn_run_plan(kn_session *s, kn_plan *p, const kn_rvalue *in);

/* Computes the op nodes of a part that has just run again by the reference kernels; INTERNAL when a result
 * differs, with the node and its place. The plan is of the form APART or SINGLE. */
kn_status kn_check_part(kn_context *ctx, const kn_plan *p, const kn_part_plan *part);

#endif
