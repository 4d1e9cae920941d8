/* What a backend offers to graphs. The executor cuts each region's nodes into parts, each for one target, and
 * asks the target to compile the part. Targets come in order of preference; the last supports everything. */
#ifndef KN_TARGET_H
#define KN_TARGET_H
#include "graph/graph.h"

typedef struct kn_target kn_target;
typedef struct kn_program kn_program; /* a compiled part, defined by each target */
typedef struct kn_launch kn_launch;   /* a piece of a plan made ready to run as one, likewise */
struct kn_plan;                       /* graph/plan.h */
struct kn_whole;                      /* graph/whole.h */

/* A run of consecutive op nodes of one region, for one plan. The nodes are the plan's own copies: outputs and
 * where are the graph's, inputs too but for those that are another value to the plan, and placeholders in the
 * attributes are replaced wherever the plan knows the number. */
typedef struct kn_part {
  const kn_graph *graph;
  const kn_node *const *nodes; /* live as long as the program */
  uint32_t n;
  const uint32_t *reads; /* by value id: how often its elements are read, here and elsewhere in the graph */
  const kn_type *types;  /* by value id; a size is KN_DIM_UNKNOWN where only known when running */
  const uint32_t *root;  /* by value id: the value in whose bytes it lies, where it is a view without a node;
                            else itself */
  /* What compile finds for the plan, zero before. */
  uint32_t *together; /* by node: this many from it on run together; 0: it alone */
  size_t *room;       /* by id of an output: bytes in place of its tensor's own, when not 0 */
  uint32_t *over;     /* by id of an output: an input of the nodes it runs together with, in the very bytes of
                         which it may lie if nobody reads that input later; 0: none */
} kn_part;
/* What a program keeps beside itself, in bytes. */
typedef struct kn_part_memory {
  size_t packed;    /* constants in layouts of its own, those it shares with other programs included */
  size_t workspace; /* what runs write to that is not in the plan's arena: values in layouts of its own,
                       scratchpads */
} kn_part_memory;
#define KN_ROOM_NONE SIZE_MAX /* it never goes to memory: nobody may read it but its group */

/* Of a launch whose loops might go on for long: who made it stays until it is done. */
typedef struct kn_watch {
  kn_status (*ask)(void *ud); /* again and again: a status but OK wants it to end soon; NULL: nobody does */
  void *ud;
  uint64_t budget; /* of trips of its loops; 0: any number. Who wants more has the fault KN_FAULT_LIMIT */
  kn_status said;  /* what ask said: OK, or the first other status, and nothing that was computed counts */
  uint64_t trips;  /* made, where they are limited and the launch was waited for */
} kn_watch;

/* Pieces of a plan, branches and loops included, as one launch each: for targets of devices that would else
 * wait for the host at each condition. */
typedef struct kn_launcher {
  /* May this node, whose attributes and sizes the plan knows, be a part of one? False with a short reason. */
  bool (*supports)(void *self, const kn_node *n, char *why, size_t size);
  /* UNSUPPORTED with the reason where it cannot be made after all: its steps then run one by one, and where
   * *culprit is set to the op node of the plan that it could not be made of, plans are cut there from then
   * on. */
  kn_status (*make)(void *self, kn_context *ctx, const struct kn_plan *p, const struct kn_whole *w,
                    kn_launch **out, const kn_node **culprit);
  /* Runs it. `fresh`: the piece's cells are to be sent first. `wait`: they are fetched, which waits for the
   * device. watch: NULL for none. */
  kn_status (*run)(void *self, kn_context *ctx, kn_launch *l, struct kn_whole *w, bool fresh, bool wait,
                   kn_watch *watch);
  void (*free)(void *self, kn_context *ctx, kn_launch *l);
} kn_launcher;

/* Memory is planned node by node: a value's bytes may be taken again by any node after its last use, the next
 * one in the part included. So a target computes the nodes in order and each output at its node's time. Of
 * nodes that it says run together, all outputs lie apart from each other and from all that any of them reads,
 * so they may run in any way; one whose result lies over its input (`root`) stays alone. More room than its
 * tensor's is for a value that the part alone reads, in a layout of the target's own. Never keep a tensor or
 * data pointer from one run to the next, except of CONST slots. */
struct kn_target {
  const char *name;
  kn_device_id device;         /* of the tensors that it computes on */
  const kn_launcher *launcher; /* NULL: none */
  /* False with a short reason: "float64 is not supported". Node and types as in kn_part. */
  bool (*supports)(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                   size_t size);
  /* May the node that follows the part so far be one of it, whatever `supports` says of it alone? NULL:
   * no. Views without a node may stand between. */
  bool (*joins)(void *self, const kn_part *so_far, const kn_node *n);
  /* Does this node begin some that it runs as one, so that it should have it before those that stand before
   * it in the list? `so_far` is what is gathered, whoever's it is; the nodes that follow are the graph's.
   * NULL: no. */
  bool (*wants)(void *self, const kn_part *so_far, const kn_node *n);
  kn_status (*compile)(void *self, kn_context *ctx, const kn_part *part, kn_program **out);
  /* vals: tensors by value id. Inputs are real, with any strides and offset. An output is one of
   *  - real and contiguous: fill it in place;
   *  - class VIEW, real: over its input's storage it is the result already; over a storage of its own (a
   * reshape that has to copy) fill it with the input's elements;
   *  - class VIEW, without storage: set storage (retained), offset and strides;
   *  - NULL: sizes only known now, or a WRITES op. Made by kn_node_outputs; the caller owns it.
   * A target that refuses VIEW, WRITES and what kn_node_static refuses only ever meets the first.
   * With KILN_DEBUG=exec logs each node by kn_log_node. On failure the error names the node and its Lua line
   * (kn_node_failed), and outputs made are left in vals or NULL. */
  kn_status (*run)(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars);
  void (*free)(void *self, kn_context *ctx, kn_program *p);
  /* Adds what the program holds to *m. NULL: nothing. */
  void (*memory)(void *self, const kn_program *p, kn_part_memory *m);
  void *self;
};

/* Are all sizes and attributes of an op node known to the plan? When not, `why` says so. */
bool kn_node_static(const kn_node *n, const kn_type *types, char *why, size_t size);
/* Is all known but which place of a dim it takes, gives or puts: a select and the like? */
bool kn_node_is_placed(const kn_node *n, const kn_type *types);
/* kn_node_attrs for a run: `scalars` by value id; *attrs is n->attrs itself when there are no placeholders,
 * else in `room`. */
kn_status kn_node_attrs_now(kn_context *ctx, const kn_node *n, const kn_scalar *scalars, kn_attrs_any *room,
                            const void **attrs);
/* For nodes that are not static, and outputs that are NULL: check the inputs and attributes of this moment by
 * the op's own rule (the plan could not), and make the missing outputs. Fails with the op's sentence. */
/* Do the types of an op of the host, which may be another one than where the graph was made, fit what the
 * graph says of the results? SHAPE with a sentence when not; nothing to ask of other ops. */
kn_status kn_check_declared(kn_context *ctx, const kn_node *n, const kn_type *in, const kn_type *out);
kn_status kn_node_outputs(kn_context *ctx, const kn_node *n, const void *attrs, kn_tensor **vals);
/* A node of class VIEW whose output is real (see `run` above): makes it the view, or fills it. */
kn_status kn_node_view(kn_context *ctx, const kn_node *n, const void *attrs, kn_tensor **vals,
                       const char **impl);
/* The elements of `from` into the contiguous `to`, of the same device. */
kn_status kn_node_copy(kn_context *ctx, kn_tensor *from, kn_tensor *to);
/* A tensor whose data never changes, a constant of the graph or that transposed: its slot, and `strides` as v
 * lies. NULL: it is none. */
const kn_slot *kn_constant_of(const kn_value *v, int64_t strides[KN_MAX_RANK]);
/* The strides a value will most likely have. A wrong guess only costs time at the first run. */
void kn_guess_strides(const kn_value *v, const kn_type *types, int64_t strides[KN_MAX_RANK]);
/* The node by itself: by the reference's kernel, or `eager`, as its device computes it outside of graphs.
 * `open`: it is not static, so that its attributes and outputs are those of this moment. */
kn_status kn_node_run(kn_context *ctx, const kn_node *n, bool open, bool eager, kn_tensor **vals,
                      const kn_scalar *scalars, const char **impl);
/* One line of KILN_DEBUG=exec: backend, op, implementation, output with its type, where in Lua. The caller
 * asks kn_debugging first. vals may hold NULL for outputs. A session that is profiled (graph/profile.h) turns
 * the topic on: then nothing is printed, and the time since the call before is the node's. */
void kn_log_node(kn_context *ctx, const char *backend, const kn_node *n, const char *impl,
                 kn_tensor *const *vals);
/* The same with another name for the op: "conv2d+relu" of nodes that were one computation, n giving the
 * result. */
void kn_log_nodes(kn_context *ctx, const char *backend, const char *op, const kn_node *n, const char *impl,
                  kn_tensor *const *vals);
/* The same for nodes that were computed as one: a line each; to a profile they are one. */
void kn_log_group(kn_context *ctx, const char *backend, const kn_node *const *nodes, uint32_t n,
                  const char *impl, kn_tensor *const *vals);
/* A piece of what is logged later, with n first, has run: its time is that one's. */
void kn_log_piece(kn_context *ctx, const kn_node *n);
/* Puts the node's Lua position before the sentence of a failure; returns `st`. */
kn_status kn_node_failed(kn_context *ctx, const kn_node *n, kn_status st);

#endif
