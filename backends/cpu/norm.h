/* What layer_norm and batch_norm as a whole are made of, between their driver and the loops of each
 * instruction set. */
#ifndef KN_CPU_NORM_H
#define KN_CPU_NORM_H
#include "backends/cpu/fold.h"

/* The elements of one dtype that a normalisation reads and writes; w and b may be NULL. */
typedef struct cp_norm {
  char *to;
  const char *x, *mean, *var, *w, *b;
  int64_t n;        /* elements of a row, or of a plane of one channel */
  int64_t channels; /* of batch_norm */
  double eps;
  cp_short_fn sum; /* of rows of this dtype: the one that reductions take */
} cp_norm;

/* Rows [begin, end), each by its own mean and variance, or by the mean of its squares (rms); planes [begin,
 * end) by those that are given for channels. */
typedef struct cp_norms {
  void (*rows[KN_DTYPE_COUNT])(const cp_norm *, int64_t begin, int64_t end);
  void (*rms[KN_DTYPE_COUNT])(const cp_norm *, int64_t begin, int64_t end);
  void (*planes[KN_DTYPE_COUNT])(const cp_norm *, int64_t begin, int64_t end);
} cp_norms;

/* Both give the result its type and storage, and decline what they do not take, bad input too. */
kn_status cp_layer_norm(kn_context *ctx, const cp_norms *of, const cp_folds *folds,
                        const kn_attrs_layer_norm *a, kn_tensor *const *in, int n, kn_tensor *out);
kn_status cp_batch_norm(kn_context *ctx, const cp_norms *of, const kn_attrs_batch_norm *a,
                        kn_tensor *const *in, int n, kn_tensor *out);

#endif
