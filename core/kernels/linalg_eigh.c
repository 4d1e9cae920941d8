/* Eigenvalues and vectors of symmetric matrices: Householder's reduction to a tridiagonal matrix, then
 * implicit QR steps with Wilkinson's shift (Golub and Van Loan, 4th ed., 8.3.1 and 8.3.5). */
#include "core/kernels/linalg.h"
#include <float.h>
#include <math.h>

enum { STEPS = 60 }; /* for each eigenvalue, of which two or three are usual */

/* v[n] becomes (1, v1, …) of the reflection that leaves only its first element, which is given back. */
static double reflection(double *v, int64_t n, double *tau) {
  double rest = 0, alpha = v[0];
  for (int64_t i = 1; i < n; i++) rest = hypot(rest, v[i]);
  *tau = 0;
  v[0] = 1;
  if (rest == 0) return alpha;
  double beta = -copysign(hypot(alpha, rest), alpha);
  *tau = (beta - alpha) / beta;
  for (int64_t i = 1; i < n; i++) v[i] /= alpha - beta;
  return beta;
}

/* a[n,n], symmetric, becomes tridiagonal: d[n], e[n - 1]. Row k of a then holds v_k from column k + 1 on. */
static void tridiagonalise(double *a, int64_t n, double *d, double *e, double *tau, double *w) {
  for (int64_t k = 0; k + 1 < n; k++) {
    int64_t size = n - k - 1;
    double *v = a + k * n + k + 1, *rest = a + (k + 1) * n + k + 1;
    d[k] = a[k * n + k];
    e[k] = reflection(v, size, &tau[k]);
    if (tau[k] == 0) continue;
    memset(w, 0, (size_t)size * sizeof *w); /* w = tau rest v - (tau² / 2)(v^T rest v) v */
    for (int64_t i = 0; i < size; i++) km_take(w, rest + i * n, size, -tau[k] * v[i]);
    km_take(w, v, size, tau[k] / 2 * km_dot(w, v, size));
    for (int64_t i = 0; i < size; i++) {
      double *row = rest + i * n, x = v[i], y = w[i];
      for (int64_t j = 0; j < size; j++) row[j] -= x * w[j] + y * v[j];
    }
  }
  if (n) d[n - 1] = a[n * n - 1];
}

/* z[n,n] = the product of the reflections, transposed. */
static void form_vectors(const double *a, int64_t n, const double *tau, double *z, double *w) {
  memset(z, 0, (size_t)(n * n) * sizeof *z);
  for (int64_t i = 0; i < n; i++) z[i * n + i] = 1;
  for (int64_t k = n - 2; k >= 0; k--) {
    int64_t size = n - k - 1;
    const double *v = a + k * n + k + 1;
    double *block = z + (k + 1) * n + k + 1;
    if (tau[k] == 0) continue;
    memset(w, 0, (size_t)size * sizeof *w);
    for (int64_t i = 0; i < size; i++) km_take(w, block + i * n, size, -v[i]);
    for (int64_t i = 0; i < size; i++) km_take(block + i * n, w, size, tau[k] * v[i]);
  }
  km_turn(z, n);
}

/* One step on rows lo … hi; the rows of z turn with it. */
static void step(double *d, double *e, int64_t lo, int64_t hi, double *z, int64_t n) {
  double half = (d[hi - 1] - d[hi]) / 2, last = e[hi - 1];
  double shift = d[hi] - last / (half + copysign(hypot(half, last), half)) * last;
  double x = d[lo] - shift, y = e[lo];
  for (int64_t k = lo; k < hi; k++) {
    double r = hypot(x, y), c = r > 0 ? x / r : 1, s = r > 0 ? y / r : 0;
    double p = d[k], q = d[k + 1], b = e[k];
    if (k > lo) e[k - 1] = r;
    d[k] = c * c * p + 2 * c * s * b + s * s * q;
    d[k + 1] = s * s * p - 2 * c * s * b + c * c * q;
    e[k] = (c * c - s * s) * b + c * s * (q - p);
    x = e[k];
    if (k + 1 < hi) {
      y = s * e[k + 1];
      e[k + 1] *= c;
    }
    km_rotate(z + k * n, z + (k + 1) * n, n, c, -s);
  }
}

static bool iterate(double *d, double *e, double *z, int64_t n) {
  int steps = 0;
  for (int64_t hi = n - 1; hi > 0;) {
    for (int64_t i = 0; i < hi; i++)
      if (fabs(e[i]) <= DBL_EPSILON * (fabs(d[i]) + fabs(d[i + 1])) || fabs(e[i]) < DBL_MIN) e[i] = 0;
    if (e[hi - 1] == 0) {
      hi--;
      steps = 0;
      continue;
    }
    int64_t lo = hi - 1;
    while (lo > 0 && e[lo - 1] != 0) lo--;
    if (++steps > STEPS) return false;
    step(d, e, lo, hi, z, n);
  }
  return true;
}

/* Ascending, by the smallest of what is left. */
static void arrange(double *d, double *z, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int64_t best = i;
    for (int64_t k = i + 1; k < n; k++)
      if (d[k] < d[best]) best = k;
    if (best == i) continue;
    double x = d[i];
    d[i] = d[best], d[best] = x;
    for (int64_t j = 0; j < n; j++) {
      x = z[i * n + j];
      z[i * n + j] = z[best * n + j];
      z[best * n + j] = x;
    }
  }
}

typedef struct work {
  int64_t n;
  double *a, *d, *z, *room;
  int64_t *fault; /* 1: not finite; 2: does not converge */
} work;

/* The rows of z are the vectors. */
static int64_t eigh(double *a, int64_t n, double *d, double *z, double *room) {
  double *e = room, *tau = e + n, *w = tau + n, most = 0;
  for (int64_t i = 0; i < n * n; i++) {
    if (!isfinite(a[i])) return 1;
    most = fmax(most, fabs(a[i]));
  }
  double scale = most > 0 ? most : 1;
  for (int64_t i = 0; i < n * n; i++) a[i] /= scale;
  tridiagonalise(a, n, d, e, tau, w);
  form_vectors(a, n, tau, z, w);
  if (!iterate(d, e, z, n)) return 2;
  arrange(d, z, n);
  for (int64_t i = 0; i < n; i++) d[i] *= scale;
  return 0;
}

static void eigh_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  int64_t n = w->n;
  for (int64_t i = begin; i < end; i++)
    w->fault[i] = eigh(w->a + i * n * n, n, w->d + i * n, w->z + i * n * n, w->room + i * 3 * n);
}

/* The triangle that does not count becomes the mirror image of the other. */
static void mirror(double *a, int64_t n, bool upper) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) {
      if (upper)
        a[i * n + j] = a[j * n + i];
      else
        a[j * n + i] = a[i * n + j];
    }
}

KERNEL(eigh) {
  const kn_attrs_eigh *at = attrs;
  kn_tensor *own[5] = {NULL};
  int64_t count = km_count(in[0]), each = km_rows(in[0]);
  (void)n;
  kn_status st = km_load(ctx, in[0], false, &own[0]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * each, &own[1]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * each * each, &own[2]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * each * 3, &own[3]);
  if (st == KN_OK) st = km_room(ctx, KN_I64, count, &own[4]);
  if (st == KN_OK) {
    work w = {.n = each,
              .a = km_at(own[0]),
              .d = km_at(own[1]),
              .z = km_at(own[2]),
              .room = km_at(own[3]),
              .fault = kn_tensor_data(own[4])};
    for (int64_t i = 0; i < count; i++) mirror(w.a + i * each * each, each, at->UPLO == KN_CHOICE_triangle_U);
    kn_parallel_for(ctx, count, km_grain(each), eigh_range, &w);
    for (int64_t i = 0; i < count && st == KN_OK; i++)
      if (w.fault[i])
        st = kn_fail(ctx, KN_ARG, "eigh: matrix %lld of %lld %s", (long long)i + 1, (long long)count,
                     w.fault[i] == 1 ? "has elements that are not finite" : "does not converge");
    if (st == KN_OK) {
      km_store(ctx, w.d, false, out[0]);
      km_store(ctx, w.z, true, out[1]);
    }
  }
  kk_release_all(own, 5);
  return st;
}
