/* What recurrent layers are made of, between their driver and the loops of each instruction set. */
#ifndef KN_CPU_RNN_H
#define KN_CPU_RNN_H
#include "backends/cpu/gemm.h"
#include "backends/cpu/run.h"

/* One row of one step: h units. `x` is what comes from the input, `part` the product of the state before with
 * the recurrent weight, gates side by side; `before` the cell state (LSTM) or the state (GRU) before. */
typedef struct cp_cells {
  void (*lstm)(int64_t h, const float *x, const float *part, const float *before, float *state, float *cell,
               float *gates);
  void (*gru)(int64_t h, const float *x, const float *part, const float *bias, const float *before,
              float *state, float *gates);
  void (*rnn)(int64_t h, const float *x, const float *part, bool relu, float *state);
} cp_cells;

#define CP_RECURRENT(X) X(lstm_layer) X(gru_layer) X(rnn_layer)

/* These of float32; anything else is DECLINED. */
kn_status cp_recurrent(kn_context *ctx, const cp_cells *cells, const cp_kit *const kits[KN_DTYPE_COUNT],
                       kn_op op, const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out);

#endif
