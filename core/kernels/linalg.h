/* What the kernels of linear algebra share: batches of matrices as float64, row by row, in memory of their
 * own, and the loops in which most time goes. float32 is computed in float64 and rounded once at the end.
 * Matrices of a batch are worked on side by side; what goes wrong in one is noted and told afterwards. */
#ifndef KN_KERNELS_LINALG_H
#define KN_KERNELS_LINALG_H
#include "core/kernels/kernel.h"

/* Sizes of the last two dims, and how many matrices there are. */
static inline int64_t km_rows(const kn_tensor *t) { return t->type.dims[t->type.rank - 2]; }
static inline int64_t km_cols(const kn_tensor *t) { return t->type.dims[t->type.rank - 1]; }
int64_t km_count(const kn_tensor *t);
static inline double *km_at(const kn_tensor *t) { return kn_tensor_data(t); }

/* x as float64, contiguous, a copy; `turned`: each matrix transposed. Owned. */
kn_status km_load(kn_context *ctx, const kn_tensor *x, bool turned, kn_tensor **out);
/* Elements without shape, all bits zero. Owned. */
kn_status km_room(kn_context *ctx, kn_dtype dtype, int64_t count, kn_tensor **out);
/* Contiguous float64 as `to`, which has as many elements; `turned`: `from` holds the transposed matrices. */
void km_store(const kn_context *ctx, const double *from, bool turned, kn_tensor *to);

/* Fails for the first matrix whose fault is not 0: "op: before fault after (matrix 2 of 5)". */
kn_status km_faults(kn_context *ctx, kn_op op, const int64_t *fault, int64_t count, const char *before,
                    const char *after);
/* Fewest matrices of n rows worth a thread. */
static inline int64_t km_grain(int64_t n) { return KK_GRAIN * 4 / (n * n * n + 1) + 1; }

/* A matrix in memory: element (i, j) at at[i * row + j * col]. */
typedef struct km_matrix {
  const double *at;
  int64_t row, col;
} km_matrix;
/* c[m,n] -= a[m,k] b[k,n]; rows of b and of c lie side by side within, b_row and c_row apart. */
void km_subtract(int64_t m, int64_t n, int64_t k, km_matrix a, const double *b, int64_t b_row, double *c,
                 int64_t c_row);
/* The rows x, y become c x - s y, s x + c y. */
void km_rotate(double *x, double *y, int64_t n, double c, double s);
double km_dot(const double *x, const double *y, int64_t n);
/* y -= a x */
void km_take(double *y, const double *x, int64_t n, double a);

/* b[n,k] becomes the solution of a x = b for triangular a[n,n]; nothing is checked. */
void km_solve_triangular(const double *a, int64_t n, bool upper, bool unit, double *b, int64_t k);
void km_turn(double *a, int64_t n); /* transposes a square matrix in place */

/* Householder's factors of a[m,n] in place (Golub and Van Loan, Matrix Computations, 4th ed., 5.2.1): R
 * above, the vectors below the diagonal, their weights in tau[min(m,n)]; work[n]. Signs are LAPACK's. */
void km_householder(double *a, int64_t m, int64_t n, double *tau, double *work);
/* The first `columns` columns of Q into q[m,columns]; k reflections; work[columns]. */
void km_form_q(const double *a, int64_t n, const double *tau, int64_t k, double *q, int64_t m,
               int64_t columns, double *work);

/* a[n,n] = P L U in place (ibid., 3.4.1, in blocks): row i was exchanged with row swap[i]. Gives the first
 * pivot, from 1, that is exactly 0, or 0. *sign: of the permutation. */
int64_t km_lu(double *a, int64_t n, int64_t *swap, double *sign);
/* Singular values of a[m,n], largest first, and vectors (linalg_svd.c). */
typedef struct km_svd {
  int64_t m, n, k; /* k = min(m, n) */
  double *s;       /* [k] */
  double *u;       /* [m, u_cols]; u_cols is k or m */
  double *vt;      /* [vt_rows, n]; vt_rows is k or n */
  int64_t u_cols, vt_rows;
} km_svd;
/* Doubles of room that km_svd_one needs. */
int64_t km_svd_room(int64_t m, int64_t n, bool full);
/* False when it does not converge. `a` is not changed. */
bool km_svd_one(const double *a, const km_svd *to, double *room);

#endif
