/* The symbolic interpreter's parts and what they hand each other. Private to this room.
 *
 * A fork runs both sides of a branch, each into its own region, until they arrive at a *stop*: a join block
 * both can reach, a loop's header, the function's return. What arrived where is a set of outcomes; a
 * selector, an integer value, says which one was taken when there are several. Correctness does not depend on
 * where stops are. */
#ifndef KC_INTERP_H
#define KC_INTERP_H
#include "graph/scalar.h"
#include "lua/capture/heap.h"

struct kc_stop {
  int kind; /* unique */
  int depth,
      pc;    /* frame depth and instruction; pc -1: the return of the frame; -2: end of a distributed step */
  int order; /* lower ones are gone on with first */
  bool back; /* of a loop header: matches arrivals by the back edge, else the first entry */
  int iteration; /* the loop iteration (or loop) it belongs to; stale ones never match */
};

typedef struct kc_outcome {
  int kind;
  kc_state *s;
} kc_outcome;
enum { KC_MAX_OUTCOMES = 24 };
typedef struct kc_outs {
  int n;
  kc_val sel; /* INT, or SYM: equals the kind of the outcome taken */
  kc_outcome o[KC_MAX_OUTCOMES];
} kc_outs;

typedef enum kc_loop_mode {
  KC_UNROLL,
  KC_LOOP,
  KC_FORCE
} kc_loop_mode; /* FORCE: unroll, as a loop it failed */
struct kc_loop_try {
  const kc_loop *loop;
  int id, pc, line;
  kc_loop_mode mode;
  kc_state *snap;
  kn_region *region;
  kn_node *mark;
  int nstop;
  kc_protect *protect;
  int peel, nest, calls; /* trips to run before the loop node; to restore */
  uint32_t nodes;        /* in the graph at entry */
  uint32_t nunrolled;    /* reports of loops before it; to restore */
  const kn_where *where;
  const char *why; /* it could not be a loop node */
  bool lists;      /* tables found to grow are lists in it: tried last, as tables can do more */
};

/* One `if` being built. */
typedef struct kc_pairing {
  kn_value *a, *b, *out;
} kc_pairing;
typedef struct kc_if {
  kn_node *n;
  kn_value *cond, *negated;
  kn_region *parent;
  kc_state *base; /* before the fork */
  kc_pairing *memo;
  uint32_t nmemo;
} kc_if;

/* One `loop` being built. */
typedef struct kc_loop_node {
  kn_node *n;
  kn_region *parent, *body;
  kc_state *entry; /* before the loop */
  kc_val *next;    /* by parameter; NONE: undefined */
  uint32_t nnext;
  kc_pairing *memo;
  uint32_t nmemo;
  bool peeled;   /* no more trips are run before it: objects of one trip are carried into the next */
  bool conflict; /* objects of one trip and the next could not be made one */
} kc_loop_node;

enum { KC_RUN_PAST_STOP = 1, KC_RUN_PAST_LOOP = 2 };

/* exec.c: runs from pc until every path stopped. KC_DEAD: none arrived anywhere. */
kc_res kc_run(kc_cap *c, kc_state *s, int pc, int flags, kc_outs *out);

/* fork.c */
/* Forks on a graph boolean at the present instruction; to where it leads when true and when false. When one
 * path goes on, *s and *pc are where and *on is true; else *out has the outcomes. `reg` >= 0 is set to v on
 * the side that jumps when `side` equals the condition. */
typedef struct kc_assign {
  int reg;
  kc_val v;
  bool side;
} kc_assign;
kc_res kc_fork(kc_cap *c, kc_state **s, int *pc, kn_value *cond, int if_true, int if_false,
               const kc_assign *set, kc_outs *out, bool *on);
int kc_new_stop(kc_cap *c, int depth, int pc, int order, bool back, int iteration);
int kc_stop_at(const kc_cap *c, int depth, int pc, bool back, int iteration); /* kind, 0 for none */
const kc_stop *kc_stop_of(const kc_cap *c, int kind);
kc_res kc_begin_if(kc_cap *c, kc_if *f, kc_state *s, kn_value *cond);
kc_res kc_end_if(kc_cap *c, kc_if *f, const kc_outs *a, const kc_outs *b, kc_outs *out);
int kc_find_outcome(const kc_outs *o, int kind);
/* Goes on with local stops (from `base` on): true in *on when one path is left, at *s and *pc. */
kc_res kc_schedule(kc_cap *c, kc_outs *o, int base, kc_state **s, int *pc, bool *on);
int kc_iteration_of(const kc_frame *f, int block); /* of the innermost active loop that contains the block */

/* loop.c */
kc_res kc_enter_loop(kc_cap *c, kc_state **s, int *pc, const kc_loop *l, kc_outs *out, bool *on);
/* At a fork whose sides leave the loop differently: may unwind to make it a loop node. */
kc_res kc_loop_exit_fork(kc_cap *c, kc_state *s, int if_true, int if_false);
kc_res kc_want_loop(kc_cap *c, kc_loop_try *l);
void kc_leave_loops(kc_cap *c, kc_state *s,
                    int block); /* forget active loops that do not contain the block */

/* merge.c */
typedef enum kc_merge_mode {
  KC_MERGE_PAIR,
  KC_MERGE_FIRST,
  KC_MERGE_SECOND,
  KC_MERGE_GENERAL,
  KC_MERGE_EXIT
} kc_merge_mode;
/* PAIR: two arrivals of an if become one. FIRST, SECOND: one side's arrival, seen from outside. GENERAL:
 * entry and back edge of a loop become the entry of a body that fits both. EXIT: a path leaving the loop,
 * seen from outside. pc: where it goes on (liveness), negative: registers are dead. */
kc_res kc_merge(kc_cap *c, kc_merge_mode mode, kc_state *a, kc_state *b, kc_if *f, kc_loop_node *l, int pc,
                bool *changed, kc_state **out);
kn_value *kc_if_out(kc_cap *c, kc_if *f, kn_value *a, kn_value *b, const kn_vtype *type, const char *name);
kn_value *kc_loop_out(kc_cap *c, kc_loop_node *l, kn_value *v);

/* ops.c: on values, with metamethods; *s may become another state (calls fork and join). */
kc_res kc_index(kc_cap *c, kc_state **s, kc_val o, kc_val k, kc_val *out);
kc_res kc_set_index(kc_cap *c, kc_state **s, kc_val o, kc_val k, kc_val v);
kc_res kc_number_arith(kc_cap *c, int op, kc_val a, kc_val b, kc_val *out, bool *done);
kc_res kc_arith(kc_cap *c, kc_state **s, int op, kc_val a, kc_val b, kc_val *out);
kc_res kc_less(kc_cap *c, kc_state **s, bool or_equal, kc_val a, kc_val b,
               kc_val *out); /* BOOL or SYM boolean */
kc_res kc_equal(kc_cap *c, kc_state **s, kc_val a, kc_val b, kc_val *out);
kc_res kc_length(kc_cap *c, kc_state **s, kc_val a, kc_val *out);
kc_res kc_concat(kc_cap *c, kc_state **s, kc_val *v, int n, kc_val *out);
kc_res kc_truth(kc_cap *c, kc_state *s, kc_val a, kc_val *out);
kc_res kc_is_nil(kc_cap *c, kc_state *s, kc_val a, kc_val *out);
/* Does a step for each alternative of the unions among the operands. */
typedef struct kc_values {
  kc_val *v;
  int n;
} kc_values;
typedef kc_res (*kc_step_fn)(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out);
kc_res kc_distribute(kc_cap *c, kc_state **s, const kc_val *o, int n, kc_step_fn fn, void *ud,
                     kc_values *out);
/* Does both sides of a condition, each in its region, and joins what they give. */
typedef kc_res (*kc_side_fn)(kc_cap *c, kc_state **s, bool yes, void *ud, kc_values *out);
kc_res kc_either(kc_cap *c, kc_state **s, kn_value *cond, kc_side_fn fn, void *ud, kc_values *out);
kc_res kc_one(kc_cap *c, kc_val v, kc_values *out); /* a single value */
kc_val *kc_vals(kc_cap *c, int n);

/* switch.c: a field by a number that only the graph knows. */
kc_res kc_index_by_data(kc_cap *c, kc_state **s, uint32_t table, kc_val k, kc_val *out);
kc_res kc_set_by_data(kc_cap *c, kc_state **s, uint32_t table, kc_val k, kc_val v);

/* call.c */
/* Results in out; want >= 0 pads or cuts to that many. */
kc_res kc_call(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, int want, kc_values *out);
kc_res kc_call1(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, kc_val *out);
/* engine.c: a C function of the engine, called for real under recording. */
kc_res kc_call_engine(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, kc_values *out);
/* Burns in the sizes of arguments that are sizes of these tensors (NULL: all), and starts over. KC_GO when
 * there are none. */
kc_res kc_burn_sizes(kc_cap *c, kc_state *s, const kc_val *args, int n);
/* Calls a C function for real on concrete values only. */
kc_res kc_call_concrete(kc_cap *c, kc_val f, const kc_val *args, int n, kc_values *out);

/* names.c: " (local 'x')", as Lua's messages call an operand of the present instruction; "" when they do not.
 */
typedef enum kc_operand {
  KC_OPERAND_INDEXED,
  KC_OPERAND_CALLED,
  KC_OPERAND_FIRST,
  KC_OPERAND_SECOND,
  KC_OPERAND_PART /* the nth of a concatenation */
} kc_operand;
const char *kc_operand_name(kc_cap *c, kc_operand which, int nth);
const char *kc_called_name(kc_cap *c); /* what the present instruction calls; NULL when it has no name */
bool kc_in_c_function(
    const kc_cap *c); /* the present instruction is a call, of a C function when nothing was entered */

/* builtin.c */
typedef kc_res (*kc_model_fn)(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);
struct kc_model {
  uint32_t object;
  const char *name;
  kc_model_fn fn;
};
void kc_find_models(kc_cap *c);
const kc_model *kc_model_of(const kc_cap *c, uint32_t object);
bool kc_has_model(lua_State *L, int idx); /* without a capture */
kc_res kc_m_call_host(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out); /* host.c */
/* What to do instead of calling a C function that capture does not know. */
const char *kc_call_hint(const char *path);

enum { KC_MAX_DEPTH = 190, KC_MAX_NEST = 6000, KC_STEP_BUDGET = 20000000 };
enum { KC_MAX_STACK = 5 << 20 }; /* bytes of C stack that nested branches may take */

#endif
