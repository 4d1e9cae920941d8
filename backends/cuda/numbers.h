/* Numbers of a piece of a plan (graph/whole.h) on the device: one kernel of one thread for all of them, told
 * as an argument what to do. It may set the condition of a node of the graph that is captured. */
#ifndef KN_CUDA_NUMBERS_H
#define KN_CUDA_NUMBERS_H
#include "backends/cuda/program.h"
#include "graph/whole.h"

enum { CU_MOST_NUMBERS = 64 }; /* of one kernel: an argument has 4 kB at most */

CU_ARGUMENT(numbers_step, {
  u32 kind;
  u32 op;
  u32 n;
  u32 dtype;
  u32 in[3];
  u32 out;
  u64 tensor;
  i64 low;
  i64 high;
});
CU_ARGUMENT(numbers_all, {
  u64 cells;
  u64 handle;
  u64 guard;
  u64 stop;
  u64 id;
  u32 n;
  u32 first;
  u32 set;
  u32 cell;
  u64 drawn;
  u64 random;
  numbers_step step[64];
});

/* Words of a guard: a part has a fault; how many trips its loops may make in all, 0: any number; how many
 * they have made, where that is limited. */
enum { CU_GUARD_NOTED = 1, CU_GUARD_BUDGET = 6, CU_GUARD_TRIPS = 7 };

typedef enum cu_set { CU_SET_NONE, CU_SET_IF, CU_SET_AGAIN, CU_SET_ENTER } cu_set;

typedef struct cu_condition {
  cu_set set; /* IF: true where the cell is; AGAIN: likewise, unless there is a fault or it is to end; ENTER:
                 true */
  CUgraphConditionalHandle handle;
  uint32_t cell;
} cu_condition;

typedef struct cu_cells { /* of a launch */
  CUdeviceptr at;
  CUdeviceptr guard; /* the cell of faults, with CU_GUARD_… behind it */
  CUdeviceptr stop;  /* the launch's number there: it is to end */
  uint64_t id;
} cu_cells;

void cu_numbers_source(void *ud, cu_text *t); /* the program, without the prelude */
numbers_step cu_number_step(const kn_whole_number *x);
/* Launches w->numbers[first … first + n) on the cells, moves the stream of draws on, then sets the condition;
 * kernels hold so many each. */
kn_status cu_numbers(kn_context *ctx, cu_device *d, const kn_whole *w, const cu_cells *cells, uint32_t first,
                     uint32_t n, const cu_condition *condition, uint64_t drawn);

#endif
