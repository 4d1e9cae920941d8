/* Singular values and vectors by one-sided Jacobi rotations (Golub and Van Loan, 4th ed., 8.6.3), of the
 * factor R of a QR factorisation, by rows, which takes fewer sweeps (Drmac and Veselic, SIAM J. Matrix Anal.
 * Appl. 29, 2008); the largest row first (de Rijk, SIAM J. Sci. Stat. Comput. 10, 1989). And the
 * pseudo-inverse. */
#include "core/kernels/linalg.h"
#include <float.h>
#include <math.h>

enum { SWEEPS = 60 };

/* The scaled copy; the turned vectors of a wide matrix; what `tall` and complete_rows take. */
int64_t km_svd_room(int64_t m, int64_t n, bool full) {
  int64_t k = m < n ? m : n, most = m > n ? m : n;
  return m * n + (m < n ? n * (full ? n : k) : 0) + 3 * k * k + 3 * most + 6 * k;
}

static void swap_rows(double *a, double *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double x = a[i];
    a[i] = b[i];
    b[i] = x;
  }
}

/* Makes rows p and q of r orthogonal; false when they are so already. norms are of the rows, squared. */
static bool rotate_pair(double *r, double *j, double *norms, int64_t n, int64_t p, int64_t q) {
  double dot = km_dot(r + p * n, r + q * n, n);
  if (fabs(dot) <= DBL_EPSILON * sqrt(norms[p]) * sqrt(norms[q]) || dot == 0) return false;
  double zeta = (norms[q] - norms[p]) / (2 * dot);
  double t = copysign(1, zeta) / (fabs(zeta) + hypot(1, zeta)), c = 1 / sqrt(1 + t * t);
  km_rotate(r + p * n, r + q * n, n, c, c * t);
  km_rotate(j + p * n, j + q * n, n, c, c * t);
  norms[p] = fmax(norms[p] - t * dot, 0);
  norms[q] += t * dot;
  return true;
}

/* Rotates the rows of r[n,n] until all are orthogonal, those of j with them; they end in order of their
 * norms. */
static bool orthogonalise(double *r, double *j, double *norms, int64_t n) {
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    bool rotated = false;
    for (int64_t i = 0; i < n; i++) norms[i] = km_dot(r + i * n, r + i * n, n);
    for (int64_t p = 0; p < n; p++) {
      int64_t best = p;
      for (int64_t q = p + 1; q < n; q++)
        if (norms[q] > norms[best]) best = q;
      if (best != p) {
        double x = norms[p];
        norms[p] = norms[best], norms[best] = x;
        swap_rows(r + p * n, r + best * n, n);
        swap_rows(j + p * n, j + best * n, n);
      }
      for (int64_t q = p + 1; q < n; q++) rotated |= rotate_pair(r, j, norms, n, p, q);
    }
    if (!rotated) return true;
  }
  return false;
}

/* Rows [from, n) of v, which are zero, become orthogonal to the others: the rest of their Q. */
static void complete_rows(double *v, int64_t from, int64_t n, double *room) {
  double *a = room, *tau = a + n * from, *q = tau + n, *work = q + n * n;
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < from; k++) a[i * from + k] = v[k * n + i];
  km_householder(a, n, from, tau, work);
  km_form_q(a, from, tau, from, q, n, n, work);
  for (int64_t k = from; k < n; k++)
    for (int64_t i = 0; i < n; i++) v[k * n + i] = q[i * n + k];
}

/* For m >= n. a[m,n] is overwritten; u[m,columns], s[n], vt[n,n]. */
static bool tall(double *a, int64_t m, int64_t n, double *u, int64_t columns, double *s, double *vt,
                 double *room) {
  double *tau = room, *work = tau + n, *j = work + (m > columns ? m : columns) + n, *rest = j + n * n;
  km_householder(a, m, n, tau, work);
  for (int64_t i = 0; i < n; i++) {
    memset(vt + i * n, 0, (size_t)i * sizeof *vt);
    memcpy(vt + i * n + i, a + i * n + i, (size_t)(n - i) * sizeof *vt);
    for (int64_t k = 0; k < n; k++) j[i * n + k] = i == k ? 1 : 0;
  }
  if (!orthogonalise(vt, j, s, n)) return false;
  int64_t rank = 0;
  for (int64_t i = 0; i < n; i++) {
    double norm = s[i] = sqrt(km_dot(vt + i * n, vt + i * n, n));
    if (norm < 1e-150) {
      s[i] = norm = 0;
      memset(vt + i * n, 0, (size_t)n * sizeof *vt);
    }
    rank += norm > 0;
    for (int64_t k = 0; norm > 0 && k < n; k++) vt[i * n + k] /= norm;
  }
  if (rank < n) complete_rows(vt, rank, n, rest);
  /* u = Q (J 0; 0 1), where the rows of j are the columns of J */
  km_form_q(a, n, tau, n, u, m, columns, work);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t k = 0; k < n; k++) work[k] = km_dot(u + i * columns, j + k * n, n);
    memcpy(u + i * columns, work, (size_t)n * sizeof *u);
  }
  return true;
}

/* A wide matrix is a tall one turned round. */
bool km_svd_one(const double *a, const km_svd *to, double *room) {
  int64_t m = to->m, n = to->n;
  double most = 0, *copy = room, *rest;
  bool wide = m < n;
  for (int64_t i = 0; i < m * n; i++) {
    if (!isfinite(a[i])) return false;
    most = fmax(most, fabs(a[i]));
  }
  double scale = most > 0 ? most : 1;
  int64_t tall_m = wide ? n : m, k = to->k;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) copy[wide ? j * m + i : i * n + j] = a[i * n + j] / scale;
  rest = copy + m * n;
  if (!wide) {
    if (!tall(copy, m, n, to->u, to->u_cols, to->s, to->vt, rest)) return false;
  } else {
    int64_t columns = to->vt_rows; /* a^T = u' s v'^T: u is v', and vt is u' turned */
    double *u = rest;
    rest += tall_m * columns;
    if (!tall(copy, n, m, u, columns, to->s, to->u, rest)) return false;
    km_turn(to->u, m);
    for (int64_t i = 0; i < columns; i++)
      for (int64_t j = 0; j < n; j++) to->vt[i * n + j] = u[j * columns + i];
  }
  for (int64_t i = 0; i < k; i++) to->s[i] *= scale;
  return true;
}

/* ---- the ops ---- */

typedef struct work {
  km_svd each;
  double *a, *room;
  int64_t room_each, *fault;
  double *to; /* pinv */
  double atol, rtol;
} work;

static km_svd part(const work *w, int64_t i) {
  km_svd p = w->each;
  p.s += i * p.k;
  p.u += i * p.m * p.u_cols;
  p.vt += i * p.vt_rows * p.n;
  return p;
}

static bool is_finite(const double *a, int64_t count) {
  bool all = true;
  for (int64_t i = 0; i < count; i++) all &= isfinite(a[i]) != 0;
  return all;
}

static void svd_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  for (int64_t i = begin; i < end; i++) {
    km_svd p = part(w, i);
    w->fault[i] = !km_svd_one(w->a + i * p.m * p.n, &p, w->room + i * w->room_each);
  }
}

/* Matrices that came to nothing: their elements are at fault, or the rotations do not end. */
static kn_status told(kn_context *ctx, kn_op op, const work *w, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (!w->fault[i]) continue;
    bool finite = is_finite(w->a + i * w->each.m * w->each.n, w->each.m * w->each.n);
    return kn_fail(ctx, KN_ARG, "%s: matrix %lld of %lld %s", kn_op_name(op), (long long)i + 1,
                   (long long)count, finite ? "does not converge" : "has elements that are not finite");
  }
  return KN_OK;
}

/* own: matrices, s, u, vt, room, faults. */
static kn_status decompose(kn_context *ctx, kn_op op, const kn_tensor *x, bool full, kn_tensor *own[6],
                           work *w) {
  int64_t m = km_rows(x), n = km_cols(x), k = m < n ? m : n, count = km_count(x);
  w->each = (km_svd){.m = m, .n = n, .k = k, .u_cols = full ? m : k, .vt_rows = full ? n : k};
  w->room_each = km_svd_room(m, n, full);
  KN_TRY(km_load(ctx, x, false, &own[0]));
  KN_TRY(km_room(ctx, KN_F64, count * k, &own[1]));
  KN_TRY(km_room(ctx, KN_F64, count * m * w->each.u_cols, &own[2]));
  KN_TRY(km_room(ctx, KN_F64, count * w->each.vt_rows * n, &own[3]));
  KN_TRY(km_room(ctx, KN_F64, count * w->room_each, &own[4]));
  KN_TRY(km_room(ctx, KN_I64, count, &own[5]));
  w->a = km_at(own[0]), w->room = km_at(own[4]), w->fault = kn_tensor_data(own[5]);
  w->each.s = km_at(own[1]), w->each.u = km_at(own[2]), w->each.vt = km_at(own[3]);
  kn_parallel_for(ctx, count, km_grain(m > n ? m : n), svd_range, w);
  return told(ctx, op, w, count);
}

KERNEL(svd) {
  const kn_attrs_svd *at = attrs;
  kn_tensor *own[6] = {NULL};
  work w = {.to = NULL};
  (void)n;
  kn_status st = decompose(ctx, KN_OP_svd, in[0], at->full_matrices, own, &w);
  if (st == KN_OK) {
    km_store(ctx, w.each.u, false, out[0]);
    km_store(ctx, w.each.s, false, out[1]);
    km_store(ctx, w.each.vt, false, out[2]);
  }
  kk_release_all(own, 6);
  return st;
}

/* v s^-1 u^T, without the singular values that count as 0. */
static void pinv_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  for (int64_t i = begin; i < end; i++) {
    km_svd p = part(w, i);
    double *to = w->to + i * p.n * p.m, least = p.k ? fmax(w->atol, w->rtol * p.s[0]) : 0;
    for (int64_t k = 0; k < p.k; k++) {
      if (!(p.s[k] > least)) continue;
      for (int64_t c = 0; c < p.m; c++) w->room[i * w->room_each + c] = p.u[c * p.u_cols + k];
      for (int64_t r = 0; r < p.n; r++)
        km_take(to + r * p.m, w->room + i * w->room_each, p.m, -p.vt[k * p.n + r] / p.s[k]);
    }
  }
}

KERNEL(pinv) {
  const kn_attrs_tolerance *at = attrs;
  kn_tensor *own[7] = {NULL};
  work w = {.atol = fmax(at->atol, 0), .rtol = at->rtol};
  int64_t rows = km_rows(in[0]), cols = km_cols(in[0]);
  (void)n;
  if (w.rtol < 0)
    w.rtol = at->atol > 0 ? 0
                          : (double)(rows > cols ? rows : cols) *
                                (kn_tensor_dtype(in[0]) == KN_F32 ? (double)FLT_EPSILON : DBL_EPSILON);
  kn_status st = decompose(ctx, KN_OP_pinv, in[0], false, own, &w);
  if (st == KN_OK) st = km_room(ctx, KN_F64, km_count(in[0]) * rows * cols, &own[6]);
  if (st == KN_OK) {
    w.to = km_at(own[6]);
    kn_parallel_for(ctx, km_count(in[0]), km_grain(rows), pinv_range, &w);
    km_store(ctx, w.to, false, out[0]);
  }
  kk_release_all(own, 7);
  return st;
}
