/* What layers of recurrent networks are made of, between their driver, which walks over the steps, and the
 * loops over units of each instruction set. */
#ifndef KN_CPU_RNN_H
#define KN_CPU_RNN_H
#include "backends/cpu/gemm.h"
#include "core/op.h"

enum { CP_RNN_INS = 7, CP_RNN_OUTS = 3 };

/* Some rows of a step: pointers are to the elements of the first row, in the order of the op's inputs and
 * outputs; rows lie one after the other. An input that was left out is NULL, but for a bias, which then is
 * zeros. */
typedef struct cp_units {
  int64_t rows, h;
  int64_t first, last; /* the units of each row that are computed */
  const char *in[CP_RNN_INS];
  char *out[CP_RNN_OUTS];
  const char *before; /* states before the step, c of an lstm, h of a gru */
  const char *part;   /* forward: the rows' products with the recurrent weight */
  int64_t part_row;   /* elements from one to the next */
  bool relu;
} cp_units;
typedef void (*cp_units_fn)(const cp_units *);

/* By op: X(op, gates, weight, back, step, state, states, result). Products with the recurrent weight for each
 * unit; the input that is the weight; whether it goes from the last step to the first. Forward, the product
 * is of h, output 0, which begins as input 2; backward it is of output `result`, and is added to the output
 * behind the last one of all steps. `state` is the first of what stands before each step, an input, and
 * `states` are those after each step: an input, or forward an output; -1: it needs none. */
/* clang-format off */
#define CP_RECURRENT(X) \
  X(lstm_layer, 4, 1, false, 3, 1, 0) X(lstm_layer_grad, 4, 2, true, 3, 1, 0) \
  X(gru_layer, 3, 1, false, 2, 0, 0) X(gru_layer_grad, 3, 2, true, 3, 1, 1) \
  X(rnn_layer, 1, 1, false, -1, -1, 0) X(rnn_layer_grad, 1, 1, true, -1, -1, 0)
/* clang-format on */

/* Of one instruction set: by op and dtype; NULL: none. */
typedef struct cp_rnns {
  cp_units_fn units[KN_OP_COUNT][KN_DTYPE_COUNT];
} cp_rnns;

kn_status cp_rnn(kn_context *ctx, const cp_rnns *rnns, const cp_kit *const kits[KN_DTYPE_COUNT], kn_op op,
                 const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out);

#endif
