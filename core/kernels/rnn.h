/* Recurrent layers by passes over units that a backend has better ones of. */
#ifndef KN_KERNELS_RNN_H
#define KN_KERNELS_RNN_H
#include "core/op.h"
#include "core/parallel.h"

/* A layer while a step is computed: what a pass over its units, [0, n h) row after row, reads and writes.
 * Pointers that move are to the elements of one step. */
typedef struct kn_rnn_layer {
  int64_t steps, n, h, gates; /* gates: how many products with w_hh a unit has */
  bool reverse, relu;
  kn_tensor *weight;      /* as the product wants it: [H, gates H] forward, [gates H, H] backward */
  kn_tensor *from, *part; /* operand and result of the product */
  const void *product;    /* the elements of `part` */
  void *sum, *sum2;       /* backward: gradients of h and c that come from the step that follows */
  const void *in[7], *bias;
  void *out[3];
  const void *before_h, *before_c; /* the states before this step */
  int64_t at;                      /* the step */
} kn_rnn_layer;

/* Of float32; NULL: the reference's own. gru's `bias` is there. */
typedef struct kn_rnn_passes {
  kn_range_fn lstm, lstm_grad, gru;
} kn_rnn_passes;

/* The kernel of a recurrent op, inputs and outputs as any kernel's; halves go the reference's way. */
kn_status kn_rnn_run(kn_context *ctx, kn_op op, const kn_rnn_passes *passes, const void *attrs,
                     kn_tensor *const *in, int n, kn_tensor *const *out);

#endif
