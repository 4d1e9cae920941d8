/* Batches of matrices in and out, and the loops that the factorisations share. */
#include "core/kernels/linalg.h"
#include <math.h>
#include <stdio.h>

int64_t km_count(const kn_tensor *t) {
  int64_t n = 1;
  for (int d = 0; d < t->type.rank - 2; d++) n *= t->type.dims[d];
  return n;
}

static void turn_view(kk_view *v) {
  int a = v->rank - 2, b = v->rank - 1;
  int64_t dim = v->dims[a], stride = v->strides[a];
  v->dims[a] = v->dims[b], v->strides[a] = v->strides[b];
  v->dims[b] = dim, v->strides[b] = stride;
}

kn_status km_load(kn_context *ctx, const kn_tensor *x, bool turned, kn_tensor **out) {
  kk_view from = kk_view_of(x);
  kn_type type = x->type;
  type.dtype = KN_F64;
  if (turned) turn_view(&from);
  for (int d = 0; d < type.rank; d++) type.dims[d] = from.dims[d];
  kn_tensor *t;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  kk_view to = kk_view_of(t);
  kk_copy(ctx, &to, &from);
  *out = t;
  return KN_OK;
}

kn_status km_room(kn_context *ctx, kn_dtype dtype, int64_t count, kn_tensor **out) {
  kn_type type = {.dtype = (uint8_t)dtype, .rank = 1, .dims = {count}};
  KN_TRY(kn_tensor_new(ctx, &type, out));
  kk_zero(ctx, *out);
  return KN_OK;
}

void km_store(const kn_context *ctx, const double *from, bool turned, kn_tensor *to) {
  kk_view dst = kk_view_of(to), src;
  if (turned) turn_view(&dst);
  src = dst;
  src.data = (char *)(uintptr_t)from;
  src.dtype = KN_F64;
  int64_t step = (int64_t)sizeof(double);
  for (int d = src.rank - 1; d >= 0; d--) {
    src.strides[d] = step;
    step *= src.dims[d];
  }
  kk_copy(ctx, &dst, &src);
}

kn_status km_faults(kn_context *ctx, kn_op op, const int64_t *fault, int64_t count, const char *before,
                    const char *after) {
  for (int64_t i = 0; i < count; i++) {
    char which[64] = "";
    if (!fault[i]) continue;
    if (count > 1)
      snprintf(which, sizeof which, " (matrix %lld of %lld)", (long long)i + 1, (long long)count);
    return kn_fail(ctx, KN_ARG, "%s: %s%lld%s%s", kn_op_name(op), before, (long long)fault[i], after, which);
  }
  return KN_OK;
}

/* ---- loops ---- */

/* Two rows of c and four of the sum at a time, so that an element of c is read and written once for four
 * products. */
void km_subtract(int64_t m, int64_t n, int64_t k, km_matrix a, const double *b, int64_t b_row, double *c,
                 int64_t c_row) {
  int64_t i = 0;
  for (; i + 1 < m; i += 2) {
    double *restrict c0 = c + i * c_row, *restrict c1 = c0 + c_row;
    const double *a0 = a.at + i * a.row, *a1 = a0 + a.row;
    int64_t p = 0;
    for (; p + 3 < k; p += 4) {
      const double *b0 = b + p * b_row, *b1 = b0 + b_row, *b2 = b1 + b_row, *b3 = b2 + b_row;
      const double x0 = a0[p * a.col], x1 = a0[(p + 1) * a.col], x2 = a0[(p + 2) * a.col],
                   x3 = a0[(p + 3) * a.col];
      const double y0 = a1[p * a.col], y1 = a1[(p + 1) * a.col], y2 = a1[(p + 2) * a.col],
                   y3 = a1[(p + 3) * a.col];
      for (int64_t j = 0; j < n; j++) {
        c0[j] -= (x0 * b0[j] + x1 * b1[j]) + (x2 * b2[j] + x3 * b3[j]);
        c1[j] -= (y0 * b0[j] + y1 * b1[j]) + (y2 * b2[j] + y3 * b3[j]);
      }
    }
    for (; p < k; p++) {
      const double x = a0[p * a.col], y = a1[p * a.col];
      const double *bp = b + p * b_row;
      for (int64_t j = 0; j < n; j++) {
        c0[j] -= x * bp[j];
        c1[j] -= y * bp[j];
      }
    }
  }
  for (; i < m; i++)
    for (int64_t p = 0; p < k; p++) km_take(c + i * c_row, b + p * b_row, n, a.at[i * a.row + p * a.col]);
}

void km_rotate(double *x, double *y, int64_t n, double c, double s) {
  double *restrict p = x, *restrict q = y;
  for (int64_t i = 0; i < n; i++) {
    const double a = p[i], b = q[i];
    p[i] = c * a - s * b;
    q[i] = s * a + c * b;
  }
}

/* Four sums, which the compiler keeps side by side. */
double km_dot(const double *x, const double *y, int64_t n) {
  double sum[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 3 < n; i += 4)
    for (int j = 0; j < 4; j++) sum[j] += x[i + j] * y[i + j];
  for (; i < n; i++) sum[0] += x[i] * y[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void km_take(double *y, const double *x, int64_t n, double a) {
  double *restrict to = y;
  for (int64_t i = 0; i < n; i++) to[i] -= a * x[i];
}

void km_turn(double *a, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++) {
      double x = a[i * n + j];
      a[i * n + j] = a[j * n + i];
      a[j * n + i] = x;
    }
}

/* ---- triangular systems ---- */

enum { BLOCK = 32 };

/* Rows [r0, r1) of b, those that they need being solved; in order for a lower, backwards for an upper one. */
static void solve_rows(const double *a, int64_t n, bool upper, bool unit, double *b, int64_t k, int64_t r0,
                       int64_t r1) {
  for (int64_t t = 0; t < r1 - r0; t++) {
    int64_t i = upper ? r1 - 1 - t : r0 + t;
    int64_t from = upper ? i + 1 : r0, to = upper ? r1 : i;
    double *row = b + i * k;
    for (int64_t p = from; p < to; p++) km_take(row, b + p * k, k, a[i * n + p]);
    if (unit) continue;
    for (int64_t j = 0; j < k; j++) row[j] /= a[i * n + i];
  }
}

void km_solve_triangular(const double *a, int64_t n, bool upper, bool unit, double *b, int64_t k) {
  for (int64_t t = 0; t < n; t += BLOCK) {
    int64_t r0 = upper ? (n - t > BLOCK ? n - t - BLOCK : 0) : t;
    int64_t r1 = upper ? n - t : (t + BLOCK < n ? t + BLOCK : n);
    int64_t from = upper ? r1 : 0, count = upper ? n - r1 : r0;
    km_subtract(r1 - r0, k, count, (km_matrix){a + r0 * n + from, n, 1}, b + from * k, k, b + r0 * k, k);
    solve_rows(a, n, upper, unit, b, k, r0, r1);
  }
}

/* ---- Householder ---- */

/* c[rows,cols] becomes (1 - tau v v^T) c; v = (1, v1, v2 …), its elements v_step apart. */
static void reflect(double *c, int64_t c_row, int64_t rows, int64_t cols, const double *v, int64_t v_step,
                    double tau, double *work) {
  if (tau == 0) return;
  memcpy(work, c, (size_t)cols * sizeof *work);
  for (int64_t i = 1; i < rows; i++) km_take(work, c + i * c_row, cols, -v[i * v_step]);
  km_take(c, work, cols, tau);
  for (int64_t i = 1; i < rows; i++) km_take(c + i * c_row, work, cols, tau * v[i * v_step]);
}

/* The norm of x without its squares overflowing. */
static double column_norm(const double *x, int64_t n, int64_t step) {
  double most = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(x[i * step]));
  if (most == 0 || isinf(most)) return most;
  for (int64_t i = 0; i < n; i++) sum += x[i * step] / most * (x[i * step] / most);
  return most * sqrt(sum);
}

void km_householder(double *a, int64_t m, int64_t n, double *tau, double *work) {
  for (int64_t k = 0; k < m && k < n; k++) {
    double *v = a + k * n + k, alpha = *v, rest = column_norm(v + n, m - k - 1, n);
    tau[k] = 0;
    if (rest == 0) continue; /* nothing below: H is 1, the sign stays */
    double beta = -copysign(hypot(alpha, rest), alpha);
    tau[k] = (beta - alpha) / beta;
    for (int64_t i = 1; i < m - k; i++) v[i * n] /= alpha - beta;
    reflect(v + 1, n, m - k, n - k - 1, v, n, tau[k], work);
    *v = beta;
  }
}

void km_form_q(const double *a, int64_t n, const double *tau, int64_t k, double *q, int64_t m,
               int64_t columns, double *work) {
  memset(q, 0, (size_t)(m * columns) * sizeof *q);
  for (int64_t i = 0; i < m && i < columns; i++) q[i * columns + i] = 1;
  for (int64_t i = k - 1; i >= 0; i--)
    reflect(q + i * columns + i, columns, m - i, columns - i, a + i * n + i, n, tau[i], work);
}
