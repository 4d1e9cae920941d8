/* A chain as steps, between the file that finds it (chain.c) and the one that walks it (walk.c). Private to
 * these.
 *
 * The chain's sizes are seen as rows of n elements: its last `inner` dims, which stay whole, or where no node
 * needs rows whatever lies one after the other in all operands. Values are of all elements, or one number a
 * row. */
#ifndef KN_CPU_WALK_H
#define KN_CPU_WALK_H
#include "backends/cpu/chain.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/softmax.h"

enum {
  CP_MOST_NODES = 64,
  CP_MOST_STEPS = 96,
  CP_MOST_MEMORY = 40,
  CP_MOST_BLOCKS = 16,
  CP_MOST_NUMBERS = 24,
  CP_MOST_FOLDS = 12,
  CP_TILE = 512,         /* elements of a tile, about */
  CP_LONGEST_ROW = 8192, /* elements of a row that stays whole */
  CP_AT_ONCE = 32768,    /* elements of rows whose columns are folded at once */
  CP_HEAD_WORK = 8192,   /* multiply-adds of a product that heads a chain */
  CP_HEAD_SUM = 256,     /* and how many of them make an element */
  CP_HEAD_ROOM = 98304   /* bytes of panels that such a product may want */
};
#define CP_WALK_ROOM                                                                                         \
  ((size_t)256 << 10) /* on the stack of each thread, of which what is needed is touched                     \
                       */

/* Where an operand of a step is: memory[spot], or block or numbers of the tile. */
typedef uint8_t cp_spot;
enum {
  CP_IN_MEMORY = 0,
  CP_IN_BLOCK = CP_IN_MEMORY + CP_MOST_MEMORY,
  CP_IN_NUMBERS = CP_IN_BLOCK + CP_MOST_BLOCKS,
  CP_SPOTS = CP_IN_NUMBERS + CP_MOST_NUMBERS
};

typedef enum cp_step_kind {
  CP_STEP_EACH,    /* a loop over the elements of the tile */
  CP_STEP_PRODUCT, /* a small matrix product that the only tile is, first of all */
  CP_STEP_ROWS,    /* the same over one number a row */
  CP_STEP_SPREAD,  /* a number for each row, to all its elements */
  CP_STEP_SOFTMAX, /* of each row */
  CP_STEP_FOLD,    /* each row into a number */
  CP_STEP_COLUMNS, /* all rows into one */
  CP_STEP_TOTAL    /* everything into a number */
} cp_step_kind;

typedef struct cp_step {
  uint8_t kind, n, fold; /* operands; FOLD and later: which of the folds */
  bool log;              /* SOFTMAX */
  cp_run run;
  cp_softmax_rows softmax;
  const void *arg;
  int64_t size; /* SPREAD, FOLD, COLUMNS, TOTAL: of an element that is read */
  cp_spot to, from[3];
} cp_step;

/* A reduction. Those of columns and of everything are cut into pieces as the eager kernel does it. */
typedef struct cp_folding {
  const kn_node *node;
  cp_fold_of of;
  cp_cut cut;
  int64_t width, pieces; /* accumulators of a piece; pieces */
  char *partial;         /* pieces x width accumulators */
  bool outside;          /* it folds a value of another's making, which may not lie as rows */
  bool apart;            /* in this run it does not: the eager kernel computes it */
  kn_tensor *made;       /* by the eager kernel, of a FOLD, while it runs */
} cp_folding;

typedef struct cp_memory { /* a tensor that the chain reads or writes */
  uint32_t value;
  kn_dtype dtype;
  bool numbers, written; /* one number a row */
  bool factor;           /* of a product, wherever its elements lie */
  int rank;              /* of the sizes that it is broadcast to */
} cp_memory;

/* How a tile of a tensor is brought. */
typedef enum cp_way {
  CP_WAY_AS_IS, /* it lies as the rows do */
  CP_WAY_LINE,  /* a row at a time, each somewhere, none copied */
  CP_WAY_ONCE,  /* the same for every tile: copied once */
  CP_WAY_COPY
} cp_way;

typedef struct cp_operand {
  char *data;
  int64_t size;
  cp_way way;
  uint8_t room;                                  /* where it is copied to */
  int64_t lead[KN_MAX_RANK], inner[KN_MAX_RANK]; /* strides in bytes */
} cp_operand;

/* Room of a tile: blocks, copies of operands, numbers of rows, accumulators, stages of folds. */
typedef struct cp_room {
  size_t block, numbers, stage;           /* bytes of each */
  size_t copies, rows, accs, stages, end; /* where they begin */
} cp_room;

typedef struct cp_origin { /* where a constant lay, and how, and what had been written to it by then */
  const void *data;
  int64_t strides[2];
  unsigned version;
} cp_origin;

struct cp_chain {
  const cp_set *set;
  uint32_t n, nsteps, nmemory, nblocks, nnumbers, nfolds;
  kn_type shape;
  int inner;
  int64_t grain;               /* elements that a thread should at least have */
  int64_t width;               /* bytes of the widest element of a block */
  bool totals, columns, whole; /* some node needs rows whole */
  cp_gemm head;                /* PRODUCT; without kit: there is none */
  char *turned; /* its second operand with rows that lie in their order, where it is a constant */
  size_t turned_bytes;
  cp_origin origin; /* of what was turned */
  cp_step steps[CP_MOST_STEPS];
  cp_memory memory[CP_MOST_MEMORY];
  cp_folding folds[CP_MOST_FOLDS];
  /* of the last run, good as long as all operands lie as they did */
  const kn_context *ctx;
  bool bound, turns; /* the product's second operand is what was turned */
  int nlead, ninner;
  int64_t lead[KN_MAX_RANK], within[KN_MAX_RANK]; /* sizes of the dims, joined */
  int64_t rows, row;                              /* how many rows, of how many elements */
  int64_t high, wide;                             /* rows and elements of a row in a tile */
  int64_t unit, units; /* rows, or where there is one row elements, of a unit of work; how many */
  bool single;         /* all of it is one tile, and nothing is folded over several */
  cp_room room;
  uint32_t ncopies;
  int64_t strides[CP_MOST_MEMORY][KN_MAX_RANK];
  cp_operand operands[CP_MOST_MEMORY];
};

enum { CP_NUMBER = 8 }; /* bytes of a row's number, or of an accumulator, at most */

cp_room cp_room_of(const cp_chain *c, int64_t high, int64_t wide, int64_t rows, uint32_t ncopies);

bool cp_chain_fits(const cp_chain *c);                    /* is there room for its tiles? */
kn_status cp_chain_reserve(kn_context *ctx, cp_chain *c); /* room for pieces of its folds */
bool cp_chain_lies_as_before(const cp_chain *c,
                             kn_tensor *const *vals); /* do operands, as in the last run? */
void cp_chain_bind(cp_chain *c, kn_tensor *const *vals);

#endif
