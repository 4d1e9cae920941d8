/* Matrix product. Blocks of four rows of the result go over the rows of b together, in blocks of columns that
 * stay in the cache; sums are kept in the dtype itself, in order of the inner index. */
#include "core/kernels/kernel.h"

/* c[m,n] = a[m,k] b[k,n] for each of `batches`; strides in bytes; columns of b and c lie side by side. */
typedef struct product {
  int64_t m, k, n;
  const char *a, *b;
  char *c;
  int64_t a_row, a_col, b_row, b_col, c_row;
  int rank; /* batch dims */
  int64_t dims[KN_MAX_RANK], a_batch[KN_MAX_RANK], b_batch[KN_MAX_RANK];
} product;

enum { ROWS = 4, COLUMNS = 2048 };

/* `rows` (at most ROWS) rows of c, all columns. U is the unsigned type for integers: they wrap around. */
#define BLOCK(U, E)                                                                                          \
  static void block_##E(const product *p, const char *a, const char *b, char *c, int64_t rows) {             \
    for (int64_t r = 0; r < rows; r++) memset(c + r * p->c_row, 0, (size_t)p->n * sizeof(U));                \
    for (int64_t j0 = 0; j0 < p->n; j0 += COLUMNS) {                                                         \
      int64_t width = p->n - j0 < COLUMNS ? p->n - j0 : COLUMNS;                                             \
      for (int64_t k = 0; k < p->k; k++) {                                                                   \
        const U *restrict bk = (const U *)(b + k * p->b_row) + j0;                                           \
        for (int64_t r = 0; r < rows; r++) {                                                                 \
          const U x = *(const U *)(a + r * p->a_row + k * p->a_col);                                         \
          U *restrict to = (U *)(c + r * p->c_row) + j0;                                                     \
          for (int64_t j = 0; j < width; j++) to[j] += x * bk[j];                                            \
        }                                                                                                    \
      }                                                                                                      \
    }                                                                                                        \
  }
BLOCK(uint64_t, I64)
BLOCK(float, F32)
BLOCK(double, F64)

/* The same for b whose columns lie apart, as those of a transposed matrix do: columns of a block of the
 * result are summed side by side. */
#define APART(U, E)                                                                                          \
  static void apart_##E(const product *p, const char *a, const char *b, char *c, int64_t rows) {             \
    enum { SIDE = 4 };                                                                                       \
    for (int64_t r = 0; r < rows; r++) {                                                                     \
      const char *ar = a + r * p->a_row;                                                                     \
      U *to = (U *)(c + r * p->c_row);                                                                       \
      int64_t j = 0;                                                                                         \
      for (; j + SIDE <= p->n; j += SIDE) {                                                                  \
        U sum[SIDE] = {0};                                                                                   \
        const char *bj = b + j * p->b_col;                                                                   \
        for (int64_t k = 0; k < p->k; k++) {                                                                 \
          const U x = *(const U *)(ar + k * p->a_col);                                                       \
          for (int i = 0; i < SIDE; i++) sum[i] += x * *(const U *)(bj + k * p->b_row + i * p->b_col);       \
        }                                                                                                    \
        for (int i = 0; i < SIDE; i++) to[j + i] = sum[i];                                                   \
      }                                                                                                      \
      for (; j < p->n; j++) {                                                                                \
        U sum = 0;                                                                                           \
        for (int64_t k = 0; k < p->k; k++)                                                                   \
          sum += *(const U *)(ar + k * p->a_col) * *(const U *)(b + k * p->b_row + j * p->b_col);            \
        to[j] = sum;                                                                                         \
      }                                                                                                      \
    }                                                                                                        \
  }
APART(uint64_t, I64)
APART(float, F32)
APART(double, F64)

typedef void (*block_fn)(const product *, const char *, const char *, char *, int64_t);
typedef struct job {
  product p;
  block_fn block;
} job;

/* Ranges are over blocks of rows of all batches. */
static void run_blocks(void *ud, int64_t begin, int64_t end) {
  const job *w = ud;
  const product *p = &w->p;
  int64_t per = (p->m + ROWS - 1) / ROWS;
  for (int64_t i = begin; i < end; i++) {
    int64_t batch = i / per, row = i % per * ROWS;
    const char *a = p->a + row * p->a_row, *b = p->b;
    for (int64_t d = p->rank - 1, rest = batch; d >= 0; d--) {
      a += rest % p->dims[d] * p->a_batch[d];
      b += rest % p->dims[d] * p->b_batch[d];
      rest /= p->dims[d];
    }
    w->block(p, a, b, p->c + (batch * p->m + row) * p->c_row, p->m - row < ROWS ? p->m - row : ROWS);
  }
}

/* Byte strides of batch dim d (of p->rank) in `v`, whose last `matrix` dims are the matrix. */
static int64_t batch_stride(const kk_view *v, int matrix, int rank, int d) {
  int at = d - (rank - (v->rank - matrix));
  return at < 0 || v->dims[at] == 1 ? 0 : v->strides[at];
}

WIDE_KERNEL(matmul) {
  (void)attrs, (void)n;
  static const block_fn blocks[2][KN_DTYPE_COUNT] = {
      {[KN_I64] = block_I64, [KN_F32] = block_F32, [KN_F64] = block_F64},
      {[KN_I64] = apart_I64, [KN_F32] = apart_F32, [KN_F64] = apart_F64}};
  int64_t size = (int64_t)kn_dtype_size(kn_tensor_dtype(out[0]));
  kn_tensor *bt = in[1];
  int b_rank = bt->type.rank;
  /* Columns of b that lie apart are laid side by side when that pays: when several blocks of rows use them.
   * Those of a matrix with one column lie side by side anyhow. */
  kn_tensor *own = NULL;
  bool apart = b_rank > 1 && bt->type.dims[b_rank - 1] > 1 && bt->strides[b_rank - 1] != 1;
  int a_rank = in[0]->type.rank;
  if (apart && a_rank > 1 && in[0]->type.dims[a_rank - 2] > ROWS) {
    KN_TRY(kk_contiguous(ctx, bt, &own));
    bt = own;
    apart = false;
  }
  kk_view a = kk_view_of(in[0]), b = kk_view_of(bt);
  int am = a.rank > 1 ? 2 : 1, bm = b.rank > 1 ? 2 : 1;
  job w = {.block = blocks[apart][kn_tensor_dtype(out[0])]};
  product *p = &w.p;
  *p = (product){
      .m = am == 2 ? a.dims[a.rank - 2] : 1,
      .k = a.dims[a.rank - 1],
      .n = bm == 2 ? b.dims[b.rank - 1] : 1,
      .a = a.data,
      .b = b.data,
      .c = kn_tensor_data(out[0]),
      .a_row = am == 2 ? a.strides[a.rank - 2] : 0,
      .a_col = a.strides[a.rank - 1],
      .b_row = b.strides[b.rank - bm],
      .b_col = b.strides[b.rank - 1],
      .rank = out[0]->type.rank - (am == 2) - (bm == 2),
  };
  p->c_row = p->n * size;
  int64_t batches = 1;
  for (int d = 0; d < p->rank; d++) {
    p->dims[d] = out[0]->type.dims[d];
    p->a_batch[d] = batch_stride(&a, am, p->rank, d);
    p->b_batch[d] = batch_stride(&b, bm, p->rank, d);
    batches *= p->dims[d];
  }
  if (kn_tensor_numel(out[0]) > 0) {
    int64_t work = ROWS * p->k * p->n;
    kn_parallel_for(ctx, batches * ((p->m + ROWS - 1) / ROWS), KK_GRAIN / (work > 0 ? work : 1) + 1,
                    run_blocks, &w);
  }
  kn_tensor_release(own);
  return KN_OK;
}
