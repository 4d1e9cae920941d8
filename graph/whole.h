/* Pieces of a plan that a target runs as one launch, branches and loops included: what it has to do, as a
 * small program over tensors and numbers that stay where they are. Numbers of the program live in cells,
 * which the target keeps in its device's memory, so that nobody waits for the host.
 *
 * A plan of the form WHOLE gives every tensor a fixed place. whole.c finds the pieces, the longest runs of
 * steps of which nothing needs the host, and says of each other step why it does not fit; lower.c makes the
 * program when a piece first runs, with the tensors of that run; run_whole.c runs it. Tensors that come from
 * outside and move from run to run are copied into tensors of the piece's own (homes) before each launch. */
#ifndef KN_WHOLE_H
#define KN_WHOLE_H
#include "graph/plan.h"

/* What is done to cells. */
typedef enum kn_number_kind {
  KN_NUMBER_EVAL,     /* out = op(in …), as kn_scalar_eval has it; a fault where that raises */
  KN_NUMBER_MOVE,     /* out = in[0] */
  KN_NUMBER_WHEN,     /* the same where in[1] is true */
  KN_NUMBER_READ,     /* out = the only element of `tensor` */
  KN_NUMBER_WRITE,    /* that element = in[0]; a fault where the dtype does not reach so far */
  KN_NUMBER_CHECK,    /* a fault unless in[0] is true */
  KN_NUMBER_FAIL,     /* a fault */
  KN_NUMBER_POSITION, /* out = in[0], which counts from 0, from the end below that, as one of `size` places; a
                         fault unless it is one */
  KN_NUMBER_ELEMENT,  /* out = in[0] - 1; a fault unless in[0] is from 1 to in[1] */
  KN_NUMBER_KEEP      /* out = in[0] where the fault is that of number `size` of the piece */
} kn_number_kind;

typedef struct kn_whole_number {
  kn_number_kind kind;
  kn_opcode op;        /* EVAL */
  uint32_t nin, in[3]; /* cells */
  uint32_t out;
  int64_t size;                   /* POSITION, KEEP */
  bool faults;                    /* it may be at fault */
  kn_tensor *tensor;              /* READ, WRITE */
  const kn_node *node;            /* whose fault it is */
  const kn_planned_failure *fail; /* FAIL that the sizes have made; NULL: the node raises */
} kn_whole_number;

typedef enum kn_whole_kind {
  KN_WHOLE_PART,    /* parts[a] of the plan, with the piece's `vals` */
  KN_WHOLE_NUMBERS, /* numbers[a … a + b) in order */
  KN_WHOLE_COPY,    /* the elements of `from` into `to`, which is contiguous */
  KN_WHOLE_ZERO,    /* zeros into `to`, likewise */
  KN_WHOLE_PICK,    /* what `from` has at the place of dim a that the cell says, into `to` */
  KN_WHOLE_PUT,     /* what `to` has there becomes `from`, broadcast and cast */
  KN_WHOLE_IF,      /* blocks[a] where the cell is true, else blocks[b] */
  KN_WHOLE_LOOP /* blocks[a], and again for as long as the cell is true when it has run and there is no fault
                 */
} kn_whole_kind;

typedef struct kn_whole_step {
  kn_whole_kind kind;
  const kn_node *node; /* of the graph; COPY: what binds or carries */
  uint32_t a, b, cell;
  kn_tensor *to, *from;
} kn_whole_step;

typedef struct kn_whole_block {
  kn_whole_step *steps;
  uint32_t n;
} kn_whole_block;

/* Cells that stand first. A fault stops all loops; what else the piece computes then is of no use. */
enum {
  KN_CELL_FAULT,   /* an integer: 0, or 1 + the number whose fault it was, the first one, or one of these: */
  KN_CELL_OPERAND, /* what its inputs were: three */
  KN_CELL_EXPORTS = KN_CELL_OPERAND + 3
};
enum { KN_FAULT_LIMIT = -1, KN_FAULT_STOPPED = -2 }; /* kn_watch's: all trips were made; it was told to end */

typedef struct kn_whole_input { /* a tensor from outside */
  uint32_t value;
  kn_tensor
      *home; /* a copy of it is what the piece reads; NULL: it itself, where it lay when this was made */
  kn_tensor *there; /* a header of the piece's own for it then, owned */
  const void *data; /* there */
  int64_t strides[KN_MAX_RANK];
} kn_whole_input;

typedef struct kn_whole_cell { /* a number from outside, or for it */
  uint32_t cell, value;
} kn_whole_cell;

typedef struct kn_whole_lent { /* what the host is to take for `to`: the tensor of `from`, or this view */
  uint32_t to, from;
  kn_tensor *view; /* owned */
} kn_whole_lent;

typedef struct kn_whole_kept { /* what the text of a fault shows */
  const kn_node *node;
  uint32_t value, cell; /* a number, as it was then … */
  kn_tensor *tensor;    /* … or a tensor: a copy, owned */
} kn_whole_kept;

typedef struct kn_whole_list { /* a list that is a tensor, and a number: how many it has */
  const kn_flat *flat;
  kn_tensor *all, *one; /* owned; one: an element of numbers on its way, or NULL */
} kn_whole_list;

typedef struct kn_whole_constant {
  uint32_t cell;
  int64_t value;
} kn_whole_constant;

typedef enum kn_whole_time { KN_WHOLE_WITHIN, KN_WHOLE_BEFORE, KN_WHOLE_AFTER } kn_whole_time;

typedef struct kn_whole {
  uint32_t index; /* in the plan */
  const kn_target *target;
  kn_step *steps; /* of the plan, in its order, … */
  uint8_t *time;  /* … and whether the host does one, before or after the launch: kn_whole_time */
  uint32_t n;
  uint32_t *exports; /* numbers that the host wants, by value: cells from KN_CELL_EXPORTS on */
  uint32_t nexports;
  bool *moves;   /* by value: a tensor from outside that was elsewhere in another run */
  char *refused; /* why it could not be made after all: its steps run one by one; NULL */
  /* Made when it first runs, and again when what it is made of lies elsewhere. */
  kn_arena arena; /* holds what follows */
  bool made;
  uint32_t makes;         /* how often */
  const char *base;       /* the arena of the plan on the target's device */
  kn_whole_block *blocks; /* [0]: the piece */
  kn_whole_number *numbers;
  kn_tensor **vals; /* by value */
  kn_scalar *cells; /* as the host has set and seen them */
  uint32_t random;  /* one of them, which is a kn_random: what draws go on from; 0: there are none */
  kn_whole_input *inputs;
  kn_whole_cell *uploads;
  kn_whole_lent *lents;
  kn_whole_kept *kept;
  kn_whole_list *lists;
  kn_whole_constant *constants;
  uint32_t nblocks, nnumbers, ncells, ninputs, nuploads, nlents, nkept, nlists, nconstants;
  bool fresh;  /* the device has not seen `cells` yet */
  bool faults; /* some number may be at fault */
  bool draws;  /* how many random numbers were drawn is only known when it has run: the cell says so then */
  uint32_t loops; /* in it, nested ones too */
  kn_launch *launch;
} kn_whole;

/* Could this op node be in a piece, as far as it can be told without knowing its neighbours? `source` is the
 * graph's. */
bool kn_whole_takes(const kn_plan *p, const kn_node *n, const kn_node *source);
/* Cuts the blocks of a plan of the form WHOLE. */
kn_status kn_plan_wholes(kn_context *ctx, kn_plan *p);
void kn_whole_free(kn_context *ctx, kn_whole *w);
/* Makes the program; UNSUPPORTED with the reason where it cannot be. `vals` of the plan are those of a run.
 */
kn_status kn_whole_lower(kn_context *ctx, kn_plan *p, kn_whole *w);
/* Leaves numbers out that nobody reads. */
kn_status kn_whole_prune(kn_context *ctx, kn_whole *w);
void kn_whole_unmake(kn_context *ctx, kn_whole *w);
/* Tensors that it keeps: copies of what comes from outside, lists, what texts of faults show; 0 before it is
 * made. */
size_t kn_whole_bytes(const kn_whole *w);
/* Its program as text, for golden cases and KILN_DEBUG. */
struct kn_writer;
void kn_whole_print(const kn_plan *p, const kn_whole *w, struct kn_writer *out);

#endif
