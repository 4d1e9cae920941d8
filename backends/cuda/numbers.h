/* Numbers of a piece of a plan (graph/whole.h) on the device: one kernel of one thread for all of them, told as an
 * argument what to do. It may set the condition of a node of the graph that is captured. */
#ifndef KN_CUDA_NUMBERS_H
#define KN_CUDA_NUMBERS_H
#include "backends/cuda/kernel.h"
#include "graph/whole.h"

typedef enum cu_set { CU_SET_NONE, CU_SET_IF, CU_SET_AGAIN, CU_SET_ENTER } cu_set;

typedef struct cu_condition {
  cu_set set; /* IF: true where the cell is; AGAIN: likewise, unless there is a fault; ENTER: true */
  CUgraphConditionalHandle handle;
  uint32_t cell;
} cu_condition;

/* Launches w->numbers[first … first + n) on the cells, then sets the condition; kernels hold so many each. */
kn_status cu_numbers(kn_context *ctx, cu_device *d, const kn_whole *w, CUdeviceptr cells, uint32_t first, uint32_t n,
                     const cu_condition *condition);

#endif
