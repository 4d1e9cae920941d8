/* Sessions: one thread running one graph. A session owns its state (slots the graph writes), its plan cache
 * (one plan per concrete input sizes: folded sizes, one arena, parts compiled by targets), its RNG and its
 * error. */
#ifndef KN_EXEC_H
#define KN_EXEC_H
#include "graph/list.h"
#include "graph/target.h"

typedef struct kn_session kn_session;

/* A run-time value: a tensor or a list (borrowed in, owned out), or a scalar. tensor NULL means one of the
 * others, or an undefined result (only graphs made here have any: kn_graph_finish, not kn_graph_parse). */
typedef struct kn_rvalue {
  kn_tensor *tensor;
  kn_scalar scalar;
  kn_list *list;
} kn_rvalue;

/* targets are borrowed and outlive the session; the last must support everything. Retains the graph. The
 * session runs in a child of ctx with its own error and RNG (seeded as ctx). */
kn_status kn_session_new(kn_context *ctx, kn_graph *g, const kn_target *const *targets, int n,
                         kn_session **out);
void kn_session_free(kn_session *s);
kn_graph *kn_session_graph(const kn_session *s);
kn_context *kn_session_context(kn_session *s); /* its child context: error text, RNG, threads */
/* OK, or STATE with a sentence while a run is under way: a function of the host is being called. */
kn_status kn_session_at_rest(kn_session *s);

/* Inputs and outputs flat, in the order of the body's parameters and yields. Checks kind, dtype, rank and
 * sizes (named symbols must agree) with sentences that name the input. On failure out is untouched, state is
 * as before. Outputs are fresh tensors that the caller owns. Inputs that the graph updates
 * are overwritten when all has succeeded, their version counted up; they must share memory with no other
 * input and no slot. */
kn_status kn_session_run(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out, uint32_t nout);
/* A KN_TREE_TEXT of the results, with the outputs of the last run; the session's until its next text or run.
 */
kn_status kn_session_text(kn_session *s, const kn_tree *t, const kn_rvalue *out, const char **text,
                          size_t *len);
/* Slots: the value used by the next run. A tensor slot is retained, not copied (PARAM and CONST are only
 * read); type must match. A session starts with the graph's values. */
kn_status kn_session_set_slot(kn_session *s, uint32_t slot, const kn_rvalue *v);
kn_status kn_session_get_slot(kn_session *s, uint32_t slot, kn_rvalue *v); /* tensor retained */

/* Are the inputs what the graph needs beside their types (graph/needs.def)? A session asks before it runs. */
kn_status kn_check_needs(kn_context *ctx, const kn_graph *g, const kn_rvalue *in);
/* The same of gradients being on, which only a front end knows: what is wrong, or NULL. */
const char *kn_mode_needed(const kn_graph *g, bool grad);

/* Use the caller's RNG instead of the session's own (Lua's live stream); NULL: back to its own. Borrowed. */
void kn_session_use_random(kn_session *s, kn_random *r);
const kn_random *kn_session_random(const kn_session *s); /* as it is now */
/* Called before each loop trip and each part with the count so far; a status other than OK stops the run with
 * it. Where strands of the graph run side by side any of their threads may call it, one at a time. */
typedef kn_status (*kn_poll_fn)(void *ud, uint64_t steps);
void kn_session_set_poll(kn_session *s, kn_poll_fn fn, void *ud);
/* Off: a run goes on while a launch with loops is under way, which only an interrupt of the context ends
 * then.
 */
void kn_session_set_watch(kn_session *s, bool on);
/* LIMIT when a run passes one of these, with the line of what would have come next; 0: none. Trips are of any
 * one loop from where it is entered on. Seconds are of a run, by a clock that is read where it is polled. */
void kn_session_set_step_limit(kn_session *s, uint64_t steps);
void kn_session_set_trip_limit(kn_session *s, uint64_t trips);
void kn_session_set_deadline(kn_session *s, double seconds);

/* Which tensor an output of the last run is, where a branch gives a tensor on without computing one: an
 * input, a slot's, an earlier output. The output itself is a copy, or the earlier output's tensor. */
typedef struct kn_origin {
  enum { KN_FROM_NONE, KN_FROM_INPUT, KN_FROM_SLOT, KN_FROM_OUTPUT } from;
  uint32_t index;
} kn_origin;
kn_origin kn_session_origin(const kn_session *s, uint32_t output);
/* The same of the tensor that the last run stored to a slot: FROM_INPUT also where an update has put it into
 * that input, FROM_SLOT where it is what slot `index` held before the run. Slots that were stored the very
 * same tensor have the same *group, the lowest of them; without such a run it is the slot itself. */
kn_origin kn_session_stored(const kn_session *s, uint32_t slot, uint32_t *group);
/* Whether the last run stored to the slot; as another session's did, when that ran in its place. */
bool kn_session_wrote(const kn_session *s, uint32_t slot);
void kn_session_as_wrote(kn_session *s, const kn_session *other);
/* The results come from elsewhere (another session has run): nothing is known about them. */
void kn_session_forget_origins(kn_session *s);

/* Called for the graph's host slots, by name, in the order of the program. Tensors in `in` are borrowed but
 * may be kept (retained); those put into `out` become the session's. STATE for a name it does not know. */
typedef kn_status (*kn_host_fn)(void *ud, kn_context *ctx, const char *name, const kn_rvalue *in,
                                uint32_t nin, kn_rvalue *out, uint32_t nout);
void kn_session_set_host(kn_session *s, kn_host_fn fn, void *ud);

/* What a run with certain inputs needs; sizes that only a run knows are left out. */
typedef struct kn_run_memory {
  size_t arena; /* values that come and go */
  size_t
      workspace;  /* those in layouts of a target's own, scratchpads, what pieces that are one launch keep */
  size_t packed;  /* constants in such layouts; plans that want the same ones share them */
  size_t plan;    /* the plan itself with what targets made for it: programs, the two above where they were
                     not there before */
  size_t results; /* made anew by each run, and handed over */
  size_t state;   /* what is stored and updated, until a run has succeeded */
} kn_run_memory;
/* Plans for these inputs without running, and takes the arena, so that a run then only makes its results. */
kn_status kn_session_prepare(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_run_memory *memory);
/* Runs it with these inputs, so that all is made and its memory touched when it is called, again while that
 * makes it faster and takes no time. Nothing stays: no state, no draws, no sentence; DECLINED where it fails
 * (but for CANCELLED and NOMEM), where somebody else would see it (it prints, calls the host, is observed),
 * or it takes long. out: as kn_session_run's; NULL: nobody wants them. */
kn_status kn_session_warm(kn_session *s, const kn_rvalue *in, uint32_t nin, kn_rvalue *out);
/* Do runs leave nothing but their results? */
bool kn_session_is_pure(const kn_session *s);

/* From now on runs live in these bytes, aligned to 64, of the caller's: values that come and go, results,
 * what functions of the host are given. Not: what stays between runs (stored and updated tensors, plans with
 * their workspaces), texts, memory of devices. A run needs kn_session_lent_bytes (NOMEM before it begins
 * otherwise; where only a run knows sizes, a list grows or a loop makes tensors, maybe more), and all of the
 * last one's must have been released (STATE). What is still held keeps its place there. NULL: no longer. */
kn_status kn_session_lend(kn_session *s, void *memory, size_t bytes);
kn_status kn_session_lent_bytes(kn_session *s, const kn_rvalue *in, uint32_t nin, size_t *bytes);
void kn_session_lend_aside(kn_session *s, bool on); /* runs are as if there were none */

/* Called after each node that ran, with its outputs (verify, debugging). NULL: off. While on, every op node
 * is a part of its own, so that what it gave is still there; numbers the plan folded do not run. */
typedef void (*kn_observe_fn)(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars);
void kn_session_observe(kn_session *s, kn_observe_fn fn, void *ud);
/* In an observer that is told of a loop: how often its body ran. */
uint64_t kn_session_trips(const kn_session *s);
/* KILN_CHECK: after each part compute its op nodes again by the reference kernels; INTERNAL naming the first
 * node whose result differs by more than rounding. Plans are of a form of their own, in which no values share
 * bytes, but what runs as one still does. What lies on a device is copied to the host for it. */
void kn_session_set_check(kn_session *s, bool on);
/* Inputs may have other sizes than their types in the graph: plans look at what is given, and an op that does
 * not fit it fails by its own rule. Only for graphs whose values all have sizes that follow from the inputs'.
 */
void kn_session_set_any_sizes(kn_session *s, bool on);

#endif
