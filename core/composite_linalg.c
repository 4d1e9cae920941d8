/* Composites of linear algebra: norms, ranks, least squares, products of other kinds. What they are made of
 * says which dtypes they take. */
#include "core/composite.h"
#include "core/infer.h"
#include <float.h>

static bool are_matrices(kn_scope *s, const kn_tensor *x) {
  if (s->status == KN_OK && x && x->type.rank >= 2) return true;
  if (x) kx_refuse(s, KN_SHAPE, "at least two dims are needed", x, NULL);
  return false;
}

static kn_tensor *squeezed(kn_scope *s, kn_tensor *x, int64_t dim) {
  kn_attrs_optional_axis at = {.dim = dim};
  return kx_with(s, KN_OP_squeeze, &at, x);
}

/* ---- values ---- */

static kn_tensor *svdvals(kn_scope *s, kn_tensor *x) {
  kn_attrs_svd at = {.full_matrices = false};
  kn_tensor *all[3];
  kx_apply_all(s, KN_OP_svd, &at, &x, 1, all);
  return all[1];
}
EXPRESSION(svdvals, svdvals(s, in[0]))
EXPRESSION(eigvalsh, kx_with(s, KN_OP_eigh, attrs, in[0]))

/* ---- norms ---- */

static kn_tensor *vector_norm(kn_scope *s, kn_tensor *x, const kn_attrs_vector_norm *a) {
  kn_attrs_norm at = {.p = a->ord, .dim = a->dim, .keepdim = a->keepdim};
  return kx_with(s, KN_OP_norm, &at, x);
}
EXPRESSION(vector_norm, vector_norm(s, in[0], attrs))

/* Sums of sizes along one dim, the largest or smallest of them along the other. */
static kn_tensor *sum_norm(kn_scope *s, kn_tensor *x, int along, int across, kn_op pick) {
  kn_tensor *sums = kx_sum(s, kx_abs(s, x), &(kn_ints){1, {along}}, true);
  return kx_reduce(s, pick, sums, (kn_ints){1, {across}}, true);
}

/* Of the singular values, with dims of size 1 for those that are gone. */
static kn_tensor *value_norm(kn_scope *s, kn_tensor *x, int rows, int cols, kn_op pick) {
  kn_attrs_movedim last = {.source = {2, {rows, cols}}, .destination = {2, {-2, -1}}};
  kn_tensor *y =
      kx_reduce(s, pick, svdvals(s, kx_with(s, KN_OP_movedim, &last, x)), (kn_ints){1, {-1}}, false);
  y = kx_axis(s, KN_OP_unsqueeze, y, rows < cols ? rows : cols);
  return kx_axis(s, KN_OP_unsqueeze, y, rows < cols ? cols : rows);
}

static kn_tensor *matrix_norm(kn_scope *s, kn_tensor *x, const kn_attrs_matrix_norm *a) {
  if (!are_matrices(s, x)) return NULL;
  if (a->dim.n != 0 && a->dim.n != 2) return kx_refuse(s, KN_ARG, "dim names two dims, or none", x, NULL);
  int rank = x->type.rank, rows = kx_dim(s, a->dim.n ? a->dim.v[0] : -2, rank),
      cols = kx_dim(s, a->dim.n ? a->dim.v[1] : -1, rank);
  if (s->status == KN_OK && rows == cols) return kx_refuse(s, KN_ARG, "dim names one dim twice", x, NULL);
  kn_attrs_norm fro = {.p = 2, .dim = {2, {rows, cols}}, .keepdim = true};
  kn_tensor *y = NULL;
  switch (a->ord) {
  case KN_CHOICE_matrix_ord_fro: y = kx_with(s, KN_OP_norm, &fro, x); break;
  case KN_CHOICE_matrix_ord_nuc: y = value_norm(s, x, rows, cols, KN_OP_sum); break;
  case KN_CHOICE_matrix_ord_two: y = value_norm(s, x, rows, cols, KN_OP_amax); break;
  case KN_CHOICE_matrix_ord_minus_two: y = value_norm(s, x, rows, cols, KN_OP_amin); break;
  case KN_CHOICE_matrix_ord_inf: y = sum_norm(s, x, cols, rows, KN_OP_amax); break;
  case KN_CHOICE_matrix_ord_minus_inf: y = sum_norm(s, x, cols, rows, KN_OP_amin); break;
  case KN_CHOICE_matrix_ord_one: y = sum_norm(s, x, rows, cols, KN_OP_amax); break;
  case KN_CHOICE_matrix_ord_minus_one: y = sum_norm(s, x, rows, cols, KN_OP_amin); break;
  }
  if (a->keepdim) return y;
  return squeezed(s, squeezed(s, y, rows < cols ? cols : rows), rows < cols ? rows : cols);
}
EXPRESSION(matrix_norm, matrix_norm(s, kx_floating(s, in[0]), attrs))

/* By the singular values where they say it, which are there for a singular x too: its answer is infinite. */
static kn_tensor *cond(kn_scope *s, kn_tensor *x, const kn_attrs_cond *a) {
  kn_attrs_matrix_norm at = {.ord = a->p};
  if (!are_matrices(s, x)) return NULL;
  if (a->p == KN_CHOICE_matrix_ord_two || a->p == KN_CHOICE_matrix_ord_minus_two) {
    kn_tensor *values = svdvals(s, x), *first = kx_select(s, values, -1, 0),
              *last = kx_select(s, values, -1, -1);
    return a->p == KN_CHOICE_matrix_ord_two ? kx_div(s, first, last) : kx_div(s, last, first);
  }
  kn_tensor *inverse = kx_with(s, KN_OP_inv, NULL, x);
  return kx_mul(s, kx_with(s, KN_OP_matrix_norm, &at, x), kx_with(s, KN_OP_matrix_norm, &at, inverse));
}
EXPRESSION(cond, cond(s, kx_floating(s, in[0]), attrs))

/* ---- rank, least squares ---- */

/* rtol as a number of x's dtype: given, or eps times the larger size. */
static kn_tensor *relative(kn_scope *s, kn_tensor *x, const kn_attrs_tolerance *a) {
  kn_dtype dtype = kn_tensor_dtype(x);
  int rank = x->type.rank;
  if (a->rtol >= 0) return kx_number(s, a->rtol, x);
  if (a->atol > 0) return kx_number(s, 0, x);
  kn_tensor *larger = kx_maximum(s, kx_size(s, x, rank - 2, dtype), kx_size(s, x, rank - 1, dtype));
  return kx_scale(s, larger, dtype == KN_F32 ? (double)FLT_EPSILON : DBL_EPSILON);
}

static kn_tensor *matrix_rank(kn_scope *s, kn_tensor *x, const kn_attrs_tolerance *a) {
  if (!are_matrices(s, x)) return NULL;
  kn_tensor *values = svdvals(s, x), *least = kx_mul(s, kx_slice(s, values, -1, 0, 1, 1), relative(s, x, a));
  if (a->atol > 0) least = kx_maximum(s, least, kx_number(s, a->atol, least));
  return kx_sum(s, kx_gt(s, values, least), &(kn_ints){1, {-1}}, false);
}
EXPRESSION(matrix_rank, matrix_rank(s, in[0], attrs))

/* By the pseudo-inverse, so that matrices of lower rank have an answer, and a gradient, too. */
static kn_tensor *lstsq(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_rcond *at) {
  kn_attrs_tolerance tolerance = {.rtol = at->rcond, .atol = -1};
  if (!are_matrices(s, a)) return NULL;
  bool vector = kn_solve_is_vector(&a->type, &b->type);
  kn_tensor *inverse = kx_with(s, KN_OP_pinv, &tolerance, a);
  if (!vector) return kx_matmul(s, inverse, b);
  return squeezed(s, kx_matmul(s, inverse, kx_axis(s, KN_OP_unsqueeze, b, -1)), -1);
}
EXPRESSION(lstsq, lstsq(s, in[0], in[1], attrs))

static kn_tensor *cholesky_solve(kn_scope *s, kn_tensor *b, kn_tensor *l, const kn_attrs_upper *a) {
  if (!are_matrices(s, l) || !are_matrices(s, b)) return NULL;
  if (a->upper) l = kx_transpose(s, l, -2, -1);
  kn_attrs_solve_triangular lower = {.upper = false, .left = true}, upper = {.upper = true, .left = true};
  b = kx_with2(s, KN_OP_solve_triangular, &lower, l, b);
  return kx_with2(s, KN_OP_solve_triangular, &upper, kx_transpose(s, l, -2, -1), b);
}
EXPRESSION(cholesky_solve, cholesky_solve(s, in[0], in[1], attrs))

/* ---- products ---- */

static kn_tensor *identity_like(kn_scope *s, kn_tensor *x) {
  kn_attrs_diagonal_of at = {.dim1 = -2, .dim2 = -1};
  kn_tensor *like = kx_full_like(s, x, 1);
  return kx_with2(s, KN_OP_diagonal_grad, &at, kx_with(s, KN_OP_diagonal, &at, like), like);
}

/* By squaring: as many products as the number has digits in base 2. */
static kn_tensor *matrix_power(kn_scope *s, kn_tensor *x, const kn_attrs_matrix_power *a) {
  if (!are_matrices(s, x)) return NULL;
  if (!kn_dim_may_equal(x->type.dims[x->type.rank - 2], x->type.dims[x->type.rank - 1]))
    return kx_refuse(s, KN_SHAPE, "square matrices are needed", x, NULL);
  if (kn_is_dyn(a->n)) return kx_refuse(s, KN_ARG, "n must be known while recording", x, NULL);
  uint64_t n = a->n < 0 ? -(uint64_t)a->n : (uint64_t)a->n;
  kn_tensor *y = NULL;
  if (n == 0) return identity_like(s, x);
  if (a->n < 0) x = kx_apply(s, KN_OP_inv, NULL, &x, 1);
  for (;;) {
    if (n & 1) y = y ? kx_matmul(s, y, x) : x;
    n >>= 1;
    if (n == 0) break;
    x = kx_matmul(s, x, x);
  }
  return a->n == 1 ? kx_clone(s, y) : y;
}
EXPRESSION(matrix_power, matrix_power(s, in[0], attrs))

static kn_tensor *trace(kn_scope *s, kn_tensor *x) {
  kn_attrs_diagonal_of at = {.dim1 = 0, .dim2 = 1};
  if (x->type.rank != 2) return kx_refuse(s, KN_SHAPE, "a matrix is needed", x, NULL);
  return kx_sum(s, kx_with(s, KN_OP_diagonal, &at, x), &(kn_ints){0}, false);
}
EXPRESSION(trace, trace(s, in[0]))

static kn_tensor *cross(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_last_axis *at) {
  int rank = a->type.rank, dim = kx_dim(s, at->dim, rank);
  kn_tensor *x[3], *y[3], *z[3];
  if (s->status != KN_OK) return NULL;
  if (rank == 0 || b->type.rank != rank || !kn_dim_may_equal(a->type.dims[dim], 3) ||
      !kn_dim_may_equal(b->type.dims[dim], 3))
    return kx_refuse(s, KN_SHAPE, "vectors of 3 elements along dim are needed, in as many dims", a, b);
  for (int i = 0; i < 3; i++) x[i] = kx_select(s, a, dim, i), y[i] = kx_select(s, b, dim, i);
  for (int i = 0; i < 3; i++) {
    int j = (i + 1) % 3, k = (i + 2) % 3;
    z[i] = kx_sub(s, kx_mul(s, x[j], y[k]), kx_mul(s, x[k], y[j]));
  }
  kn_attrs_axis_first join = {.dim = dim};
  return kx_apply(s, KN_OP_stack, &join, z, 3);
}
EXPRESSION(cross, cross(s, in[0], in[1], attrs))

EXPRESSION(vecdot, kx_sum(s, kx_mul(s, in[0], in[1]),
                          &(kn_ints){1, {((const kn_attrs_last_axis *)attrs)->dim}}, false))

/* The dims of a and b in turns, [i1, 1, i2, 1] times [1, j1, 1, j2]; then each two made one. */
static kn_tensor *kron(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  int rank = a->type.rank > b->type.rank ? a->type.rank : b->type.rank, unknown = 0;
  kn_ints sizes = {.n = rank};
  if (2 * rank > KN_MAX_RANK) return kx_refuse(s, KN_SHAPE, "at most 4 dims are possible", a, b);
  while (a && a->type.rank < rank) a = kx_axis(s, KN_OP_unsqueeze, a, 0);
  while (b && b->type.rank < rank) b = kx_axis(s, KN_OP_unsqueeze, b, 0);
  for (int d = 0; a && b && d < rank; d++) {
    int64_t m = a->type.dims[d], n = b->type.dims[d];
    bool known = kn_dim_known(m) && kn_dim_known(n) && !__builtin_mul_overflow(m, n, &sizes.v[d]);
    if (!known) sizes.v[d] = -1;
    unknown += !known;
  }
  if (unknown > 1) return kx_refuse(s, KN_SHAPE, "all sizes but one must be known while recording", a, b);
  for (int d = rank - 1; d >= 0; d--) {
    a = kx_axis(s, KN_OP_unsqueeze, a, d + 1);
    b = kx_axis(s, KN_OP_unsqueeze, b, d);
  }
  return kx_reshape(s, kx_mul(s, a, b), &sizes);
}
EXPRESSION(kron, kron(s, in[0], in[1]))

static kn_tensor *cdist(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_cdist *at) {
  if (!are_matrices(s, a) || !are_matrices(s, b)) return NULL;
  kn_attrs_norm over = {.p = at->p, .dim = {1, {-1}}};
  kn_tensor *d = kx_sub(s, kx_axis(s, KN_OP_unsqueeze, a, -2), kx_axis(s, KN_OP_unsqueeze, b, -3));
  return kx_with(s, KN_OP_norm, &over, d);
}
EXPRESSION(cdist, cdist(s, kx_floating(s, in[0]), kx_floating(s, in[1]), attrs))
