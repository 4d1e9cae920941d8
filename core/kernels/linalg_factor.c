/* Cholesky, QR and triangular systems. */
#include "core/kernels/linalg.h"
#include <math.h>

enum { BLOCK = 32 };

typedef struct work {
  int64_t m, n, k, columns; /* of a [m,n]; of b [m,k] or what min(m, n) is; of Q */
  double *a, *b, *tau, *room;
  int64_t *fault;
  bool upper, unit;
} work;

/* ---- Cholesky ---- */

/* a = U^T U (Golub and Van Loan, 4th ed., 4.2.5, in blocks), from and into the upper triangle; zeros below.
 * Gives the order of the first leading minor that is not positive, or 0. */
static int64_t cholesky(double *a, int64_t n) {
  for (int64_t k0 = 0; k0 < n; k0 += BLOCK) {
    int64_t k1 = k0 + BLOCK < n ? k0 + BLOCK : n;
    for (int64_t k = k0; k < k1; k++) {
      double *row = a + k * n, d = row[k];
      if (!(d > 0) || isinf(d)) return k + 1;
      d = sqrt(d);
      for (int64_t j = k; j < n; j++) row[j] /= d;
      for (int64_t i = k + 1; i < k1; i++) km_take(a + i * n + i, row + i, n - i, row[i]);
    }
    for (int64_t i = k1; i < n; i += BLOCK) {
      int64_t end = i + BLOCK < n ? i + BLOCK : n;
      km_subtract(end - i, n - i, k1 - k0, (km_matrix){a + k0 * n + i, 1, n}, a + k0 * n + i, n,
                  a + i * n + i, n);
    }
  }
  for (int64_t i = 1; i < n; i++) memset(a + i * n, 0, (size_t)i * sizeof *a);
  return 0;
}

static void cholesky_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  for (int64_t i = begin; i < end; i++) w->fault[i] = cholesky(w->a + i * w->n * w->n, w->n);
}

/* The lower factor is the upper one of the transposed matrix, transposed. */
KERNEL(cholesky) {
  const kn_attrs_cholesky *at = attrs;
  kn_tensor *own[2] = {NULL};
  int64_t count = km_count(in[0]);
  (void)n;
  kn_status st = km_load(ctx, in[0], !at->upper, &own[0]);
  if (st == KN_OK) st = km_room(ctx, KN_I64, count, &own[1]);
  if (st == KN_OK) {
    work w = {.n = km_rows(in[0]), .a = km_at(own[0]), .fault = kn_tensor_data(own[1])};
    kn_parallel_for(ctx, count, km_grain(w.n), cholesky_range, &w);
    st = km_faults(ctx, KN_OP_cholesky, w.fault, count,
                   "the matrix is not positive definite: its leading minor of order ", " is not positive");
    if (st == KN_OK) km_store(ctx, w.a, !at->upper, out[0]);
  }
  kk_release_all(own, 2);
  return st;
}

/* ---- QR ---- */

static void qr_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  for (int64_t i = begin; i < end; i++) {
    double *a = w->a + i * w->m * w->n, *tau = w->tau + i * w->k;
    double *room = w->room + i * (w->n + w->columns), *r = w->b + i * w->columns * w->n;
    km_householder(a, w->m, w->n, tau, room);
    for (int64_t j = 0; j < w->k; j++)
      memcpy(r + j * w->n + j, a + j * w->n + j, (size_t)(w->n - j) * sizeof *r);
  }
}

static void q_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  for (int64_t i = begin; i < end; i++)
    km_form_q(w->a + i * w->m * w->n, w->n, w->tau + i * w->k, w->k, w->b + i * w->m * w->columns, w->m,
              w->columns, w->room + i * (w->n + w->columns));
}

KERNEL(qr) {
  const kn_attrs_qr *at = attrs;
  kn_tensor *own[5] = {NULL};
  int64_t count = km_count(in[0]);
  work w = {.m = km_rows(in[0]), .n = km_cols(in[0])};
  (void)n;
  w.k = w.m < w.n ? w.m : w.n;
  w.columns = at->mode == KN_CHOICE_qr_mode_complete ? w.m : w.k;
  kn_status st = km_load(ctx, in[0], false, &own[0]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * w.k, &own[1]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * (w.n + w.columns), &own[2]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * w.columns * w.n, &own[3]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * w.m * w.columns, &own[4]);
  if (st == KN_OK) {
    w.a = km_at(own[0]), w.tau = km_at(own[1]), w.room = km_at(own[2]), w.b = km_at(own[3]);
    kn_parallel_for(ctx, count, km_grain(w.n), qr_range, &w);
    km_store(ctx, w.b, false, out[1]);
  }
  if (st == KN_OK && at->mode != KN_CHOICE_qr_mode_r) {
    w.b = km_at(own[4]);
    kn_parallel_for(ctx, count, km_grain(w.m), q_range, &w);
    km_store(ctx, w.b, false, out[0]);
  }
  kk_release_all(own, 5);
  return st;
}

/* ---- triangular systems ---- */

static void triangular_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  for (int64_t i = begin; i < end; i++)
    km_solve_triangular(w->a + i * w->n * w->n, w->n, w->upper, w->unit, w->b + i * w->n * w->k, w->k);
}

/* As float64 in the shape of the result, whose batch dims it is broadcast to. */
static kn_status spread(kn_context *ctx, const kn_tensor *x, const kn_tensor *like, bool turned,
                        kn_tensor **out) {
  kn_tensor wide = *x;
  int rank = like->type.rank, lead = rank - x->type.rank;
  wide.type.rank = (uint8_t)rank;
  for (int d = rank - 1; d >= 0; d--) {
    bool batch = d < rank - 2, there = d >= lead;
    int64_t size = there ? x->type.dims[d - lead] : 1, step = there ? x->strides[d - lead] : 0;
    wide.type.dims[d] = batch ? like->type.dims[d] : size;
    wide.strides[d] = batch && size != like->type.dims[d] ? 0 : step;
  }
  return km_load(ctx, &wide, turned, out);
}

/* x a = b is a^T x^T = b^T, whose triangle is the other one. */
KERNEL(solve_triangular) {
  const kn_attrs_solve_triangular *at = attrs;
  kn_tensor *own[2] = {NULL};
  bool turned = !at->left;
  (void)n;
  kn_status st = spread(ctx, in[0], out[0], turned, &own[0]);
  if (st == KN_OK) st = spread(ctx, in[1], out[0], turned, &own[1]);
  if (st == KN_OK) {
    work w = {.n = km_rows(own[0]),
              .k = km_cols(own[1]),
              .a = km_at(own[0]),
              .b = km_at(own[1]),
              .upper = at->upper != turned,
              .unit = at->unitriangular};
    kn_parallel_for(ctx, km_count(own[0]), km_grain(w.n), triangular_range, &w);
    km_store(ctx, w.b, turned, out[0]);
  }
  kk_release_all(own, 2);
  return st;
}
