/* The IR: SSA values in nested regions. Nodes live in their graph's arena and die with it. A graph is built
 * through a kn_builder, then finished (kn_graph_finish) and from then on immutable and shareable between
 * threads (counted atomically). What a graph writes lives in the session that runs it.
 *
 * Invariants (checked by graph/verify.c):
 *  - a node's inputs are defined earlier in its region or in an enclosing region, or are region parameters;
 *  - nodes stay in program order; only passes that move code need to look at effects;
 *  - `if`: 1 input, 2 regions without parameters, each yields nout values of the outputs' types (or undef);
 *  - `loop`: nin carried inputs, 1 region with nin parameters; yields 1 + nin + nout values: the continue
 *    flag, the next value of each parameter, the exit value of each output. The body runs first; while the
 *    flag is true it runs again with the next values; then the outputs are the exit values;
 *  - op nodes: the first `ntensor` inputs are the op's tensors; the rest are integers that stand for the
 *    placeholders KN_DYN(0), KN_DYN(1) … in its attributes, each met once, in the order of kn_attrs_each_int.
 *    The integer is the field's value as C has it: positions count from 0 here (kn_recorder.position);
 *  - lists are values too: appending gives another list, the old one stays what it was. Elements may be
 *    undefined. Arguments and results of graphs from outside are no lists;
 *  - update: in the body, of a tensor input, one each; what is stored or updated is done when a run
 * succeeded;
 *  - results: one yield of the body per VALUE leaf, in the order of the leaves (a value may come twice); the
 *    values below a CHOICE that it does not choose may be undefined: tensors NULL, numbers 0;
 *  - arguments: the body's parameters, in the order in which leaves first name them. */
#ifndef KN_GRAPH_H
#define KN_GRAPH_H
#include "core/arena.h"
#include "core/dispatch.h"

/* Opcodes: the ops of core/ops.def, then the kinds of graph/nodes.def. */
typedef uint16_t kn_opcode;
enum kn_node_kind {
  kn_node_before_ = KN_OP_COUNT - 1,
#define NODE(name, text, in, outs, effect, doc) KN_NODE_##name,
#include "graph/nodes.def"
#undef NODE
  KN_OPCODE_COUNT
};
enum { KN_MAX_DYN = 64 }; /* most placeholders in one node's attributes */

typedef enum kn_effect { KN_PURE, KN_RAISES, KN_READS, KN_EFFECT } kn_effect;
typedef struct kn_opcode_info {
  const char *text;  /* as printed: op name or node text */
  uint8_t nin, nout; /* KN_VARIADIC where the kind decides; ops: min inputs in the op table */
  kn_effect effect;
  const char *doc;
} kn_opcode_info;
kn_opcode_info kn_opcode_describe(kn_opcode op);
bool kn_opcode_parse(const char *text, size_t len, kn_opcode *out);
static inline bool kn_opcode_is_op(kn_opcode op) { return op < KN_OP_COUNT; }
/* To the program's output, its error stream, or as a warning. */
static inline bool kn_opcode_says(kn_opcode op) { return op >= KN_NODE_print && op <= KN_NODE_warn; }

/* Values are tensors, Lua scalars, or lists. NUMBER is an integer or a float, known when it runs. A list of
 * what kind k is has the kind KN_V_LIST + k, so a list of lists of tensors has 2 * KN_V_LIST. */
typedef enum kn_vkind { KN_V_TENSOR, KN_V_INT, KN_V_FLOAT, KN_V_NUMBER, KN_V_BOOL, KN_V_LIST = 8 } kn_vkind;
enum { KN_V_DEEPEST = 8 * 16 }; /* no kind gets here */
typedef struct kn_vtype {
  kn_vkind kind;
  kn_type tensor; /* of TENSOR, and of what lies in lists of tensors */
} kn_vtype;
static inline bool kn_is_list(kn_vkind k) { return k >= KN_V_LIST; }
static inline kn_vkind kn_innermost(kn_vkind k) { return (kn_vkind)(k % KN_V_LIST); }
static inline bool kn_is_scalar(kn_vkind k) { return k != KN_V_TENSOR && !kn_is_list(k); }
static inline kn_vtype kn_list_of(kn_vtype t) { /* the type of a list of such */
  t.kind = (kn_vkind)(t.kind + KN_V_LIST);
  return t;
}
static inline kn_vtype kn_element_of(kn_vtype list) {
  list.kind = (kn_vkind)(list.kind - KN_V_LIST);
  return list;
}
bool kn_vtype_equal(const kn_vtype *a, const kn_vtype *b);
kn_vtype kn_stacked(const kn_vtype *list); /* what list_stack gives; ranks below KN_MAX_RANK */
/* The narrowest type for either: numbers of differing kinds join as NUMBER, sizes that differ as unknown.
 * False when there is none (dtype, rank, device, tensor beside number …). */
bool kn_vtype_join(const kn_vtype *a, const kn_vtype *b, kn_vtype *out);
/* A `from` may stand where a `to` is declared; or at least when sizes turn out to agree. */
bool kn_vtype_fits(const kn_vtype *from, const kn_vtype *to);
bool kn_vtype_may_be(const kn_vtype *from, const kn_vtype *to);

typedef struct kn_graph kn_graph;
typedef struct kn_region kn_region;
typedef struct kn_node kn_node;
typedef struct kn_value kn_value;

/* "float32[N,10]" with the graph's symbol names, "float32[2]@cuda", "integer" …; g may be NULL. KN_TYPE_TEXT
 * is room enough. */
char *kn_vtype_text(const kn_graph *g, const kn_vtype *t, char *buf, size_t size);

/* Where in the Lua program: interned in the graph. */
typedef struct kn_where {
  const char *chunk;         /* "digits.lua" */
  int line;                  /* 0: unknown (stripped) */
  const struct kn_where *at; /* where the function this line is in was called from; NULL outermost */
} kn_where;

struct kn_value {
  uint32_t id; /* unique in the graph; dense after kn_graph_finish; 0 is never used */
  kn_vtype type;
  const char *name;  /* Lua local or path it had; NULL */
  kn_node *def;      /* NULL for graph inputs and region parameters */
  kn_region *region; /* where it is defined */
  uint32_t index;    /* which output or parameter */
};

struct kn_node {
  kn_opcode op;
  uint8_t nregions;
  uint32_t nin, ntensor, nout;
  kn_value **in, **out;
  kn_region *regions[2];
  void *attrs;           /* ops: the table's struct (NULL for none); size: int64_t dim; to_tensor: kn_dtype */
  kn_scalar scalar;      /* const */
  struct kn_slot *slot;  /* tensor, param, load_state, store_state */
  const char *text;      /* raise, assert, print …: the message, for the values (graph/format.h) */
  const kn_where *where; /* NULL: none */
  bool no_grad;          /* ops: no gradient flows through it, it was made with gradients off */
  uint32_t again; /* nodes of one checkpointed call: gradients compute its values again; 0: none. Not text */
  bool told; /* select, at an end of the graph: where its boolean is false it gives a copy of its third input,
                or what that gives where it is such a select (passes/origins.c). Not text */
  uint32_t text_at; /* of one that was parsed: where it begins in the text */
  kn_node *prev, *next;
  kn_region *region; /* that holds it */
};

struct kn_region {
  kn_graph *graph;
  kn_node *owner; /* NULL: the graph's body */
  kn_value **params;
  uint32_t nparams;
  kn_node *first, *last;
  kn_value **yields;
  uint32_t nyields;
};

/* A named place outside the graph: parameter, buffer, counter, or a constant's data. */
typedef enum kn_slot_kind { KN_SLOT_PARAM, KN_SLOT_STATE, KN_SLOT_CONST } kn_slot_kind;
typedef struct kn_slot {
  kn_slot_kind kind;
  uint32_t index;    /* in graph->slots */
  const char *name;  /* path, unique in the graph: "net.fc1.weight" */
  kn_vtype type;     /* sizes known */
  kn_tensor *tensor; /* present or initial value (retained); NULL: none yet (a parsed text), or a scalar */
  kn_scalar scalar;  /* value of a scalar slot */
  const kn_where *where;
} kn_slot;

/* Shape of the arguments and results as Lua sees them: leaves are values or constants. */
typedef enum kn_tree_kind {
  KN_TREE_VALUE,
  KN_TREE_NIL,
  KN_TREE_BOOL,
  KN_TREE_INT,
  KN_TREE_FLOAT,
  KN_TREE_STRING,
  KN_TREE_NONE,  /* an alternative of a CHOICE that is a whole result: there is no such result, nor one after
                    it */
  KN_TREE_AGAIN, /* results: the table around it whose same_as is the same, which contains itself */
  KN_TREE_TABLE,
  KN_TREE_CHOICE, /* results: a table's fields, keys "which", 1, 2 …: an integer says which of the rest it is
                   */
  KN_TREE_TEXT    /* results: a string; the fields are VALUEs for its `text` (graph/format.h) */
} kn_tree_kind;
/* Has fields. */
static inline bool kn_tree_has_items(kn_tree_kind k) { return k >= KN_TREE_TABLE; }
typedef struct kn_tree {
  kn_tree_kind kind;
  kn_value *value;      /* VALUE */
  int64_t i;            /* INT, BOOL; VALUE: 0-based position among the graph's inputs or outputs */
  double f;             /* FLOAT */
  const char *text;     /* STRING (bytes: length in n) */
  uint32_t n;           /* TABLE: entries */
  struct kn_tree *keys; /* TABLE: INT or STRING keys, in order */
  struct kn_tree *items;
  uint32_t same_as; /* TABLE, AGAIN: tables with equal nonzero numbers are the same table */
} kn_tree;

/* What capture assumed. Kept with the graph as text; the live check belongs to the front end. */
typedef struct kn_guard {
  const char *kind;  /* "global", "upvalue", "field", "argument", "dtype", "size", "mode" … */
  const char *name;  /* path */
  const char *value; /* printed */
  const kn_where *where;
} kn_guard;

/* What an input must be beside its type: graph/needs.def. */
typedef enum kn_need_kind {
#define NEED(name, text, of, doc) KN_NEED_##name,
#include "graph/needs.def"
#undef NEED
  KN_NEED_COUNT
} kn_need_kind;
typedef enum kn_need_of { KN_NEED_OF_TENSOR, KN_NEED_OF_NUMBER, KN_NEED_OF_RUN } kn_need_of;
typedef struct kn_need_info {
  const char *text;
  kn_need_of of;
  const char *doc;
} kn_need_info;
extern const kn_need_info kn_need_kinds[KN_NEED_COUNT];
typedef struct kn_need {
  kn_need_kind kind;
  const kn_value *input;        /* NULL: OF_RUN */
  int64_t strides[KN_MAX_RANK]; /* strides */
  const char *text;             /* as printed: "contiguous", "strides {1, 3}" */
} kn_need;

struct kn_graph {
  atomic_int refs;
  kn_heap *heap; /* retained */
  kn_arena arena;
  const char *name;
  kn_region *body; /* its params are the inputs, its yields the outputs, both flat */
  kn_tree *args;   /* nargs trees over the inputs */
  uint32_t nargs;
  kn_tree *results; /* nresults trees over the outputs */
  uint32_t nresults;
  const char **symbols; /* names of KN_DIM_SYMBOL(k) */
  uint32_t nsymbols;
  kn_slot **slots;
  uint32_t nslots;
  kn_guard *guards;
  uint32_t nguards;
  kn_need *needs;
  uint32_t nneeds;
  const kn_where **places; /* every kn_where */
  uint32_t nplaces;
  uint32_t nvalues; /* ids are in [1, nvalues] */
  uint32_t nnodes;  /* nodes ever made while building; exact after finish */
  bool finished;
  bool partial; /* inputs and results may be undefined: graphs of gradients, never from outside */
};

kn_status kn_graph_new(kn_context *ctx, const char *name, kn_graph **out);
/* All that it has and computes lies on `d` from now on, wherever it was, but for tensors made of numbers
 * alone. For who alone has it; on failure (a loop that carries such a one and one of the device) it is good
 * for nothing. */
kn_status kn_graph_move(kn_context *ctx, kn_graph *g, kn_device_id d);
kn_graph *kn_graph_retain(kn_graph *g);
void kn_graph_release(kn_graph *g);

/* Building. The first failure sticks in `status` (sentence in ctx); functions then return NULL and do
 * nothing. */
typedef struct kn_builder {
  kn_context *ctx;
  kn_graph *graph;
  kn_region *at;         /* nodes are appended here */
  const kn_where *where; /* given to new nodes */
  bool no_grad;          /* given to new op nodes */
  uint32_t again;        /* given to new nodes */
  uint32_t text_at;      /* given to new nodes */
  const kn_node *fault;  /* the verifier's, when the graph could not be finished; NULL: it is no node's */
  uint32_t budget;       /* most nodes; LIMIT beyond; 0: KN_NODE_BUDGET */
  kn_status status;
} kn_builder;
enum { KN_NODE_BUDGET = 200000 };

void kn_builder_init(kn_builder *b, kn_context *ctx, kn_graph *g); /* at the graph's body */
const kn_where *kn_where_intern(kn_builder *b, const char *chunk, int line, const kn_where *at);
int64_t kn_symbol_intern(kn_builder *b,
                         const char *name); /* the KN_DIM_SYMBOL of a name; same name, same symbol */
kn_value *kn_add_input(kn_builder *b, const char *name, const kn_vtype *type); /* to the body's parameters */
kn_value *kn_add_param(kn_builder *b, kn_region *r, const char *name, const kn_vtype *type);
kn_region *kn_region_new(kn_builder *b, kn_node *owner);
/* Name must be new (a suffix .2, .3 … is added where it is not); tensor is retained. */
kn_slot *kn_add_slot(kn_builder *b, kn_slot_kind kind, const char *name, const kn_vtype *type,
                     kn_tensor *tensor);

/* A node with nout fresh outputs whose types are set from `types`. attrs are copied (size by op). in is
 * copied. */
kn_node *kn_add_node(kn_builder *b, kn_opcode op, const void *attrs, kn_value *const *in, uint32_t nin,
                     const kn_vtype *types, uint32_t nout);
kn_value *kn_add_const(kn_builder *b, kn_scalar s);
kn_value *kn_add_undef(kn_builder *b, const kn_vtype *type);
kn_value *kn_add_slot_node(kn_builder *b, kn_opcode op, kn_slot *slot); /* tensor, param, load_state */
kn_node *kn_add_store(kn_builder *b, kn_slot *slot, kn_value *v);
/* A call of the host's function bound to `name`, with results of these types (no lists). */
kn_node *kn_add_host_call(kn_builder *b, const char *name, kn_value *const *in, uint32_t n,
                          const kn_vtype *types, uint32_t nout);
/* The name of the graph's i-th host slot, each once; NULL past the last. */
const char *kn_graph_host(const kn_graph *g, uint32_t i);
/* The tensor given for the graph's input holds v after a run that succeeded. At the end of the body, at most
 * one for each input. */
kn_node *kn_add_update(kn_builder *b, kn_value *input, kn_value *v);
kn_value *kn_add_scalar(kn_builder *b, kn_opcode op, kn_value *const *in,
                        uint32_t nin); /* lua.*, types by rule */
kn_value *kn_add_size(kn_builder *b, kn_value *tensor, int dim);
kn_value *kn_add_item(kn_builder *b, kn_value *tensor);
kn_value *kn_add_to_tensor(kn_builder *b, kn_value *scalar, kn_dtype dtype);
kn_value *kn_add_list(kn_builder *b, const kn_vtype *element); /* an empty one */
kn_value *kn_add_append(kn_builder *b, kn_value *list, kn_value *v);
kn_value *kn_add_list_get(kn_builder *b, kn_value *list, kn_value *position); /* positions count from 1 */
kn_value *kn_add_list_length(kn_builder *b, kn_value *list);
kn_value *kn_add_list_sum(kn_builder *b, kn_value *x, kn_value *y);
kn_value *kn_add_list_with(kn_builder *b, kn_value *const in[4]); /* list, number, position, tensor */
/* list_length, list_bytes, list_thin; list_first with its count. */
kn_value *kn_add_of_list(kn_builder *b, kn_opcode op, kn_value *list, kn_value *count);
kn_value *kn_add_list_stack(kn_builder *b, kn_value *list); /* of tensors */
kn_value *kn_add_defined(kn_builder *b, kn_value *tensor);
kn_value *kn_add_detach(kn_builder *b, kn_value *tensor);
kn_value *kn_add_with_history(kn_builder *b, kn_value *tensor, kn_value *of);
kn_value *kn_add_select(kn_builder *b, kn_value *cond, kn_value *a, kn_value *c);
kn_node *kn_add_raise(kn_builder *b, kn_opcode op, kn_value *cond,
                      const char *text); /* raise (cond NULL), assert */
/* raise, assert (its condition is in[0]), print, write, write_error, warn: a text with values
 * (graph/format.h). */
kn_node *kn_add_text(kn_builder *b, kn_opcode op, const char *text, kn_value *const *in, uint32_t n);
/* Whether a value of that type can be what placeholder k of the attributes stands for: an integer, or any
 * number. */
static inline bool kn_may_stand(const kn_vtype *t, kn_attrs_kind kind, const void *attrs, uint32_t k) {
  return t->kind == KN_V_INT ||
         ((t->kind == KN_V_FLOAT || t->kind == KN_V_NUMBER) && kn_attrs_any_number(kind, attrs, k));
}

/* A tensor op, through its infer rule; `dyn` are the numbers that KN_DYN(k) in attrs stand for. */
kn_node *kn_add_op(kn_builder *b, kn_op op, const void *attrs, kn_value *const *in, uint32_t n,
                   kn_value *const *dyn, uint32_t ndyn);
/* An `if` without outputs yet: emit into regions[0] (then) and [1] (else) by moving b->at; outputs are added
 * by kn_if_output, which appends a yield to both regions. */
kn_node *kn_add_if(kn_builder *b, kn_value *cond);
kn_value *kn_if_output(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name, kn_value *a,
                       kn_value *c);
/* A `loop` with one region, parameters added with kn_loop_param (an initial value each). When the body is
 * done: kn_loop_finish sets the yields (next[nparams]); then kn_loop_output adds exits. */
kn_node *kn_add_loop(kn_builder *b);
kn_value *kn_loop_param(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name, kn_value *init);
bool kn_loop_finish(kn_builder *b, kn_node *n, kn_value *flag, kn_value *const *next);
kn_value *kn_loop_output(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name, kn_value *exit);
bool kn_set_results(kn_builder *b, kn_value *const *flat, uint32_t n, const kn_tree *trees, uint32_t ntrees);
bool kn_set_args(kn_builder *b, const kn_tree *trees, uint32_t ntrees); /* trees are copied */
bool kn_add_guard(kn_builder *b, const char *kind, const char *name, const char *value,
                  const kn_where *where);
bool kn_add_need(kn_builder *b, kn_need need); /* once each; its text is set here */
const kn_need *kn_find_need(const kn_graph *g, const kn_value *input, kn_need_kind kind); /* NULL: none */
void kn_value_name(kn_builder *b, kn_value *v, const char *name); /* sets it when it has none */

/* Undo: forget every node after `mark` (a region's last node at the time, NULL: all). Memory stays in the
 * arena. */
void kn_region_truncate(kn_region *r, kn_node *mark);
void kn_node_remove(kn_node *n);
void kn_node_move_before(kn_node *n, kn_node *at);
void kn_region_append(kn_region *to, kn_region *from); /* all nodes of `from`, to the end of `to` */

/* Dense ids in the order of the text, counts of values and nodes. Part of kn_graph_finish; passes use it too.
 */
void kn_graph_renumber(kn_graph *g);
/* Renumbers densely, counts, verifies, and makes the graph immutable. */
kn_status kn_graph_finish(kn_builder *b);
/* An op node's attributes with dyn[i] (integers, as kn_scalar) put in for placeholder i. Attributes of the
 * ops that have none are left alone; without placeholders it is a plain copy. */
kn_status kn_node_attrs(kn_context *ctx, const kn_node *n, const kn_scalar *dyn, kn_attrs_any *out);
kn_vkind kn_item_kind(kn_dtype d); /* what item() gives */
/* True when v is defined in r or in a region inside it. */
bool kn_value_inside(const kn_value *v, const kn_region *r);

bool kn_region_has(const kn_region *r, kn_opcode op); /* such a node, in it or in a region inside it */

#define KN_EACH_NODE(n, region) for (kn_node *n = (region)->first; n; n = n->next)

#endif
