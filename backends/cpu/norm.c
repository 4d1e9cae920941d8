/* The driver of layer_norm, and of batch_norm by running values, as a whole: which inputs their loops take.
 * All others are declined, and so computed by their parts (core/composite_norm.c), which also refuse what is
 * wrong. Compiled once. */
#include "backends/cpu/norm.h"

enum { LEAST_PLANE = 16 };

typedef struct job {
  cp_norm norm;
  void (*run)(const cp_norm *, int64_t, int64_t);
} job;

static void range(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  j->run(&j->norm, begin, end);
}

static const char *data_of(kn_tensor *const *in, int n, int i) {
  return i < n ? kn_tensor_data(in[i]) : NULL;
}

/* Contiguous, of one dtype and device, with elements. */
static bool alike(kn_tensor *const *in, int n) {
  for (int i = 0; i < n; i++)
    if (kn_tensor_dtype(in[i]) != kn_tensor_dtype(in[0]) || in[i]->type.device != in[0]->type.device ||
        !kn_tensor_contiguous(in[i]) || kn_tensor_numel(in[i]) == 0)
      return false;
  return true;
}

static kn_status run(kn_context *ctx, job *j, kn_tensor *x, kn_tensor *out) {
  KN_TRY(kn_tensor_allocate(ctx, out, &x->type));
  j->norm.to = kn_tensor_data(out);
  kn_parallel_for(ctx, kn_tensor_numel(x) / j->norm.n, CP_CHEAP / j->norm.n + 1, range, j);
  return KN_OK;
}

/* t has the sizes of the last dims of x, all that are normalised. */
static bool is_last(const kn_tensor *t, const kn_tensor *x, int dims) {
  bool same = t->type.rank == dims;
  for (int d = 0; same && d < dims; d++) same = t->type.dims[d] == x->type.dims[x->type.rank - dims + d];
  return same;
}

kn_status cp_layer_norm(kn_context *ctx, const cp_norms *of, const cp_folds *folds,
                        const kn_attrs_layer_norm *a, kn_tensor *const *in, int n, kn_tensor *out) {
  kn_tensor *x = in[0];
  kn_dtype dtype = kn_tensor_dtype(x);
  int dims = a->normalized_shape.n;
  if (!of->rows[dtype] || !alike(in, n) || dims < 1 || dims > x->type.rank) return KN_DECLINED;
  int64_t length = 1;
  for (int d = 0; d < dims; d++) {
    if (a->normalized_shape.v[d] != x->type.dims[x->type.rank - dims + d]) return KN_DECLINED;
    length *= a->normalized_shape.v[d];
  }
  for (int i = 1; i < n; i++)
    if (!is_last(in[i], x, dims)) return KN_DECLINED;
  if (!cp_folds_whole(length)) return KN_DECLINED;
  job j = {.norm = {.x = kn_tensor_data(x),
                    .w = data_of(in, n, 1),
                    .b = data_of(in, n, 2),
                    .n = length,
                    .eps = a->eps,
                    .sum = folds->of[CP_SUM][dtype].each},
           .run = of->rows[dtype]};
  return run(ctx, &j, x, out);
}

kn_status cp_batch_norm(kn_context *ctx, const cp_norms *of, const kn_attrs_batch_norm *a,
                        kn_tensor *const *in, int n, kn_tensor *out) {
  kn_tensor *x = in[0];
  kn_dtype dtype = kn_tensor_dtype(x);
  if (a->training || n < 3 || !of->planes[dtype] || !alike(in, n) || x->type.rank < 2) return KN_DECLINED;
  for (int i = 1; i < n; i++)
    if (in[i]->type.rank != 1 || in[i]->type.dims[0] != x->type.dims[1]) return KN_DECLINED;
  int64_t planes = x->type.dims[0] * x->type.dims[1], plane = kn_tensor_numel(x) / planes;
  if (plane < LEAST_PLANE) return KN_DECLINED;
  job j = {.norm = {.x = kn_tensor_data(x),
                    .mean = data_of(in, n, 1),
                    .var = data_of(in, n, 2),
                    .w = data_of(in, n, 3),
                    .b = data_of(in, n, 4),
                    .n = plane,
                    .channels = x->type.dims[1],
                    .eps = a->eps},
           .run = of->planes[dtype]};
  return run(ctx, &j, x, out);
}
