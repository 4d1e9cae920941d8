/* The blocked matrix product that matmul and convolution are made of: C = A B, by tiles of C that are held in
 * registers, from packed panels of A and B that are held in caches. gemm_loops.c has what is compiled once
 * for each instruction set, gemm.c the blocking. Numbers of elements throughout, strides too. */
#ifndef KN_CPU_GEMM_H
#define KN_CPU_GEMM_H
#include "core/context.h"
#include "core/tensor.h"

/* The loops for one dtype. A panel holds `rows` rows of A (or `columns` columns of B), all k of them: the
 * elements of one k side by side. */
typedef struct cp_kit {
  int64_t rows, columns, size; /* of a tile; bytes of an element */
  /* `width` lines of k elements, into a panel of `full` lines, the rest zero. Element p of line i is at
   * from[i * line + p * step]. */
  void (*pack)(int64_t width, int64_t full, int64_t k, const char *from, int64_t line, int64_t step,
               char *to);
  /* c[rows, columns] = or += panel a times panel b; b_step from one k to the next in b. `columns` may be
   * fewer than a tile's, b still has all. */
  void (*tile)(int64_t rows, int64_t k, const char *a, const char *b, int64_t b_step, char *c, int64_t c_row,
               int64_t columns, bool add);
  /* c[i * c_row + j * c_column] = sum of x[i, p] y[j, p], p side by side: few rows of x, many of y. */
  void (*dots)(int64_t m, int64_t n, int64_t k, const char *x, int64_t x_row, const char *y, int64_t y_row,
               char *c, int64_t c_row, int64_t c_column);
  /* c[i, j] = or += sum of a[i, p] b[p, j], j side by side in b and c, in the order of p: few rows of a. */
  void (*strips)(int64_t m, int64_t n, int64_t k, const char *a, int64_t a_row, int64_t a_column,
                 const char *b, int64_t b_row, char *c, int64_t c_row, bool add);
  /* The same for a b that comes from memory. */
  void (*streams)(int64_t m, int64_t n, int64_t k, const char *a, int64_t a_row, int64_t a_column,
                  const char *b, int64_t b_row, char *c, int64_t c_row, bool add);
  /* As strips, p side by side in b. */
  void (*turned)(int64_t m, int64_t n, int64_t k, const char *a, int64_t a_row, int64_t a_column,
                 const char *b, int64_t b_column, char *c, int64_t c_row);
  /* One k of a panel of B from runs: from place start[i] on come the elements at from + offset[i]. May read a
   * tile's columns too far and, unless `last`, write a vector too far. */
  void (*runs)(int64_t count, const int64_t *start, const int64_t *offset, const char *from, char *to,
               bool last);
  void (*fill)(int64_t rows, int64_t columns, const char *values, char *c,
               int64_t c_row); /* a value for each row */
} cp_kit;

/* Sums of fewer products go in the order of k, however the operands lie. */
enum { CP_LONG_SUM = 32 };
enum { CP_FEW_ROWS = 4, CP_MOST_ROWS = 8, CP_MOST_COLUMNS = 32, CP_PANEL_K = 384, CP_BLOCK_BYTES = 2048 };
/* Of a matrix that few rows are multiplied with: a thread has whole numbers of so many. */
enum { CP_STREAM_COLUMNS = 128 };
/* Multiply-adds that a thread should at least have; so few, where a tile is too wide, that packing
 * costs more than they do. */
enum { CP_LEAST_WORK = 1 << 18, CP_TINY_WORK = 1 << 12 };

/* How a product is made, which its sizes and strides tell. */
typedef enum cp_gemm_way {
  CP_GEMM_ASK,
  CP_GEMM_DOTS,
  CP_GEMM_STRIPS,
  CP_GEMM_STREAMS,
  CP_GEMM_BLOCKS
} cp_gemm_way;
typedef struct cp_gemm cp_gemm;
struct cp_gemm {
  const cp_kit *kit;
  int64_t m, n, k;
  const char *a, *b;
  int64_t a_row, a_column, b_row, b_column;
  char *c;
  int64_t c_row;
  /* Where columns of C are cut into groups that lie `group_step` apart (images); 0: they are one group. */
  int64_t group, group_step;
  /* Instead of b: rows p … p + k of columns j … j + width, as a panel. */
  void (*pack_b)(const cp_gemm *g, int64_t p, int64_t k, int64_t j, int64_t width, char *to);
  const void *source; /* for pack_b */
  const char *bias;   /* added to each row of C, an element each; or NULL */
  cp_gemm_way way;    /* ASK: not known yet */
};

cp_gemm_way cp_gemm_way_of(const cp_gemm *g);
/* The result does not depend on the number of threads. Fails only for memory. */
kn_status cp_gemm_run(kn_context *ctx, const cp_gemm *g);
/* The same for many products of one shape, for use inside a parallel loop: no memory is taken but `room`, of
 * as many bytes as the first function says. */
bool cp_gemm_at_once(const kn_context *ctx,
                     const cp_gemm *g); /* what needs no room; false, nothing is done */
size_t cp_gemm_room(const cp_gemm *g);
void cp_gemm_in(const kn_context *ctx, const cp_gemm *g, char *room);

/* Casts of a whole tensor and products of all ranks; DECLINED where there is no kit for the dtype. */
kn_status cp_matmul(kn_context *ctx, const cp_kit *const kits[KN_DTYPE_COUNT], kn_tensor *const *in,
                    kn_tensor *out);
/* A matmul that a graph runs again and again: set up once for the strides that its operands have. Sizes and
 * dtypes stay; `out` is contiguous. */
typedef struct cp_product cp_product;
kn_status cp_product_new(kn_context *ctx, const cp_kit *const kits[KN_DTYPE_COUNT], kn_tensor *const *in,
                         const kn_tensor *out, cp_product **made); /* DECLINED where operands need casts */
void cp_product_free(kn_context *ctx, cp_product *p);              /* NULL is fine */
bool cp_product_fits(const cp_product *p, kn_tensor *const *in);
kn_status cp_product_run(kn_context *ctx, cp_product *p, kn_tensor *const *in, const kn_tensor *out);
kn_status cp_conv2d(kn_context *ctx, const cp_kit *const kits[KN_DTYPE_COUNT], const void *attrs,
                    kn_tensor *const *in, int n, kn_tensor *out);

#endif
