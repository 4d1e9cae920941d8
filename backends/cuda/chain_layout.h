/* How a chain is computed: between chain.c, which looks at sizes and strides, and the writers of its source.
 */
#ifndef KN_CUDA_CHAIN_LAYOUT_H
#define KN_CUDA_CHAIN_LAYOUT_H
#include "backends/cuda/chain.h"

typedef enum cu_way {
  CU_FLAT,  /* operands lie one after the other: one index */
  CU_LINES, /* vectors along the last dim, places from the indices of all dims */
  CU_TILES, /* tiles of two dims: what lies across goes through shared memory */
  /* with folds, by who has a row: */
  CU_WARP,   /* 32 threads */
  CU_BLOCK,  /* a block */
  CU_COLUMN, /* the threads of a block with the same lane: rows that lie side by side */
} cu_way;

typedef enum cu_lie {
  CU_NUMBER, /* an argument */
  CU_ONE,    /* one element for all */
  CU_SAME,   /* at the element's own index */
  CU_NEAR,   /* neighbours along the last dim */
  CU_FAR,    /* any distance along the last dim */
  CU_STILL,  /* the same all along the last dim; with folds, all along the row */
  CU_TURNED, /* neighbours along CU_TILES' other dim */
} cu_lie;

enum { CU_OPERANDS = CU_CHAIN_INPUTS + CU_CHAIN_OUTPUTS, CU_TILE = 32, CU_COLUMN_THREADS = 512 };

typedef struct cu_layout {
  const cu_chain *c;
  cu_way way;
  bool wide; /* positions may need 64 bits */
  bool
      split; /* rows are cut in parts: what was folded of each goes to memory, and a second kernel joins it */
  int vector; /* elements that go together */
  int held; /* how often a thread's vectors reach along a row, where it keeps them between passes; 0: it does
               not */
  uint32_t keeps; /* inputs that are kept: those that several passes read */
  int threads;    /* of a block */
  int turned;     /* CU_TILES' other dim */
  /* Dims, joined where they lie one after the other in all operands; the last `over` are the row's. Operands:
   * inputs, then outputs from CU_CHAIN_INPUTS on. */
  int rank, over;
  int64_t dims[KN_MAX_RANK], strides[CU_OPERANDS][KN_MAX_RANK];
  cu_lie lie[CU_OPERANDS];
  int64_t rows, cols, parts, chunk;
  /* Of steps: how many passes over the row it takes to know them; whether they are one value a row. */
  uint8_t level[CU_CHAIN_STEPS], levels;
  bool per_row[CU_CHAIN_STEPS];
} cu_layout;

static inline const cu_operand *cu_operand_of(const cu_layout *p, int o) {
  return o < CU_CHAIN_INPUTS ? &p->c->input[o] : &p->c->output[o - CU_CHAIN_INPUTS];
}
/* Whether there is such an operand. */
static inline bool cu_operand_is(const cu_layout *p, int o) {
  return o < CU_CHAIN_INPUTS ? o < p->c->inputs : o - CU_CHAIN_INPUTS < p->c->outputs;
}

/* ---- chain.c ---- */

kn_status cu_chain_lay(kn_context *ctx, const cu_device *d, const cu_chain *c, cu_layout *p);

/* ---- chain_text.c: the source, but for rows ---- */

void cu_chain_write(void *plan, cu_text *t);
/* The fields of the arguments, in the order of cu_chain_arguments. */
enum { CU_CHAIN_SLOTS = CU_OPERANDS * (KN_MAX_RANK + 1) + 2 * KN_MAX_RANK + 8 };
/* Fills the arguments (each takes 8 bytes), and writes their struct where there is a text. How many. */
int cu_chain_arguments(const cu_layout *p, CUdeviceptr room, uint64_t *slot, cu_text *t);

/* What values are made of. */
typedef struct cu_wanted {
  uint64_t steps;
  uint32_t inputs;
} cu_wanted;
bool cu_value_per_row(const cu_layout *p, int value);
/* Adds what `value` is made of: values of each element, or those of rows, which are made between passes. */
void cu_want(const cu_layout *p, int value, cu_wanted *w);
/* Indices c0, c1 … along dims [first, end) from a count of their elements; of the last one `units` go
 * together. Uses the count up. */
void cu_put_indices(cu_text *t, int first, int end, const char *count, int units);
/* The place of an operand by the indices of dims [first, end): an expression that begins with +, or nothing.
 */
void cu_put_place(cu_text *t, const cu_layout *p, int o, int first, int end);
/* `x3`, an input of dtype's value, from an element. */
void cu_put_input(cu_text *t, const cu_layout *p, int input, const char *format, ...);
void cu_put_constants(cu_text *t, const cu_layout *p);
void cu_put_steps(cu_text *t, const cu_layout *p, const cu_wanted *w);
void cu_put_step(cu_text *t, const cu_layout *p, int step);
/* A value as what computes in `as` sees it; as an element of output `k`. */
void cu_put_value(cu_text *t, const cu_layout *p, int value, kn_dtype as);
void cu_put_result(cu_text *t, const cu_layout *p, int k);
/* A vector in memory into or out of the union `name`. */
void cu_put_vector(cu_text *t, const cu_layout *p, int o, const char *name, const char *place);

/* ---- chain_rows.c: rows ---- */

/* What pass `pass` over a row needs of each element; the one after p->levels makes results of elements.
 * False: there is no such pass. */
bool cu_pass_wants(const cu_layout *p, int pass, cu_wanted *w);
void cu_chain_write_folds(cu_text *t, const cu_layout *p); /* functions */
void cu_chain_write_rows(cu_text *t, const cu_layout *p);  /* kernels */
/* How many values of 8 bytes all folds have of a row. */
int cu_fold_values(const cu_layout *p);

#endif
