/* The driver of softmax and log_softmax: rows along the last dim, or columns side by side along another one.
 * A row or column is one thread's, so results do not depend on the number of threads. Halves are cast
 * to float32 as a whole, and back. Compiled once. */
#include "backends/cpu/softmax.h"
#include <string.h>

enum { COLUMNS = 128 }; /* at most CP_BLOCK */

typedef struct job {
  cp_softmax_rows rows;
  cp_softmax_columns columns;
  const char *x;
  char *to;
  int64_t size, n, inner; /* bytes of an element; length of the dim; elements between neighbours along it */
  int64_t blocks;         /* of columns, in `inner` */
  bool log;
} job;

static void row_range(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  int64_t at = begin * j->n * j->size;
  j->rows(j->to + at, j->x + at, end - begin, j->n, j->log);
}

static void column_range(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  for (int64_t u = begin; u < end; u++) {
    int64_t first = u % j->blocks * COLUMNS, left = j->inner - first;
    int64_t at = (u / j->blocks * j->n * j->inner + first) * j->size;
    j->columns(j->to + at, j->x + at, left < COLUMNS ? left : COLUMNS, j->n, j->inner, j->log);
  }
}

static void run(kn_context *ctx, job *j, int64_t total) {
  if (j->inner == 1) {
    kn_parallel_for(ctx, total / j->n, CP_DEAR / j->n + 1, row_range, j);
    return;
  }
  int64_t width = j->inner < COLUMNS ? j->inner : COLUMNS;
  j->blocks = (j->inner + COLUMNS - 1) / COLUMNS;
  kn_parallel_for(ctx, total / j->n / j->inner * j->blocks, CP_DEAR / (j->n * width) + 1, column_range, j);
}

/* x, contiguous and in `dtype`: x itself, or a copy. */
static kn_status bring(kn_context *ctx, const cp_isa *isa, const kn_tensor *x, kn_dtype dtype,
                       kn_tensor **copy) {
  kn_type type = x->type;
  type.dtype = (uint8_t)dtype;
  KN_TRY(kn_tensor_new(ctx, &type, copy));
  kn_status st = cp_copy(ctx, isa, x, *copy);
  if (st == KN_OK) return st;
  kn_tensor_release(*copy);
  return st;
}

kn_status cp_softmax(kn_context *ctx, const cp_isa *isa, const cp_softmaxes *of, bool log, const kn_tensor *x,
                     int dim, kn_tensor *out) {
  kn_dtype own = kn_tensor_dtype(x), wide = kn_dtypes[own].wide;
  int64_t total = kn_tensor_numel(x);
  kn_tensor *in = NULL, *made = NULL;
  if (!of->rows[wide] || kn_tensor_dtype(out) != own) return KN_DECLINED;
  if (total == 0) return KN_OK;
  if (own != wide || !kn_tensor_contiguous(x)) KN_TRY(bring(ctx, isa, x, wide, &in));
  job j = {.rows = of->rows[wide],
           .columns = of->columns[wide],
           .x = kn_tensor_data(in ? in : x),
           .size = (int64_t)kn_dtype_size(wide),
           .n = x->type.rank ? x->type.dims[dim] : 1,
           .inner = 1,
           .log = log};
  for (int d = dim + 1; d < x->type.rank; d++) j.inner *= x->type.dims[d];
  kn_status st = KN_OK;
  if (own != wide) st = kn_tensor_new(ctx, &in->type, &made);
  if (st == KN_OK) {
    j.to = kn_tensor_data(made ? made : out);
    run(ctx, &j, total);
    if (made) st = cp_copy(ctx, isa, made, out);
  }
  kn_tensor_release(in);
  kn_tensor_release(made);
  return st;
}
