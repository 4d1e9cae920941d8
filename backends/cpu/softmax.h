/* What softmax and log_softmax are made of, between their driver and the loops of each instruction set. */
#ifndef KN_CPU_SOFTMAX_H
#define KN_CPU_SOFTMAX_H
#include "backends/cpu/run.h"

/* Rows of n elements that lie one after the other. */
typedef void (*cp_softmax_rows)(char *to, const char *x, int64_t rows, int64_t n, bool log);
/* Columns side by side, each of n elements that are `apart` elements from each other. */
typedef void (*cp_softmax_columns)(char *to, const char *x, int64_t columns, int64_t n, int64_t apart,
                                   bool log);

/* Halves are cast to float32 first. */
typedef struct cp_softmaxes {
  cp_softmax_rows rows[KN_DTYPE_COUNT];
  cp_softmax_columns columns[KN_DTYPE_COUNT];
} cp_softmaxes;

/* dim counts from 0; x of rank 0 is one row of one element. */
kn_status cp_softmax(kn_context *ctx, const cp_isa *isa, const cp_softmaxes *of, bool log, const kn_tensor *x,
                     int dim, kn_tensor *out);

#endif
