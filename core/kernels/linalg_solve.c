/* By L U factors with partial pivoting: inv, det, slogdet, solve, and the cofactors that det's gradient is
 * made of. */
#include "core/infer.h"
#include "core/kernels/linalg.h"
#include <math.h>

enum { BLOCK = 32 };

/* ---- L U ---- */

static void swap_rows(double *a, int64_t width, int64_t i, int64_t j) {
  double *p = a + i * width, *q = a + j * width;
  for (int64_t c = 0; c < width && i != j; c++) {
    double x = p[c];
    p[c] = q[c];
    q[c] = x;
  }
}

/* Columns [k0, k1), all rows from k0 on. Gives the first zero pivot, from 1. */
static int64_t factor_panel(double *a, int64_t n, int64_t k0, int64_t k1, int64_t *swap, double *sign) {
  int64_t zero = 0;
  for (int64_t k = k0; k < k1; k++) {
    int64_t best = k;
    for (int64_t i = k + 1; i < n; i++)
      if (fabs(a[i * n + k]) > fabs(a[best * n + k])) best = i;
    swap[k] = best;
    if (best != k) *sign = -*sign;
    swap_rows(a, n, k, best);
    double pivot = a[k * n + k];
    if (pivot == 0) {
      zero = zero ? zero : k + 1;
      continue;
    }
    for (int64_t i = k + 1; i < n; i++) {
      double x = a[i * n + k] /= pivot;
      km_take(a + i * n + k + 1, a + k * n + k + 1, k1 - k - 1, x);
    }
  }
  return zero;
}

int64_t km_lu(double *a, int64_t n, int64_t *swap, double *sign) {
  int64_t zero = 0;
  *sign = 1;
  for (int64_t k0 = 0; k0 < n; k0 += BLOCK) {
    int64_t k1 = k0 + BLOCK < n ? k0 + BLOCK : n;
    int64_t found = factor_panel(a, n, k0, k1, swap, sign);
    zero = zero ? zero : found;
    for (int64_t i = k0 + 1; i < k1; i++) /* the rows of U beside the panel */
      for (int64_t p = k0; p < i; p++) km_take(a + i * n + k1, a + p * n + k1, n - k1, a[i * n + p]);
    km_subtract(n - k1, n - k1, k1 - k0, (km_matrix){a + k1 * n + k0, n, 1}, a + k0 * n + k1, n,
                a + k1 * n + k1, n);
  }
  return zero;
}

/* b[n,k], by the factors. */
static void solve_factored(const double *lu, int64_t n, const int64_t *swap, double *b, int64_t k) {
  for (int64_t i = 0; i < n; i++) swap_rows(b, k, i, swap[i]);
  km_solve_triangular(lu, n, false, true, b, k);
  km_solve_triangular(lu, n, true, false, b, k);
}

/* ---- inv, solve ---- */

typedef struct work {
  int64_t n, k; /* rows of a, columns of b */
  double *a, *b, *room, *sign;
  int64_t *swap, *fault;
  int64_t room_each;
} work;

static void factor_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  int64_t n = w->n;
  for (int64_t i = begin; i < end; i++)
    w->fault[i] = km_lu(w->a + i * n * n, n, w->swap + i * n, &w->sign[i]);
}

/* Loads x and factors it; own: matrices, signs, swaps, faults. */
static kn_status factor(kn_context *ctx, const kn_tensor *x, bool turned, kn_tensor *own[4], work *w) {
  int64_t n = km_rows(x), count = km_count(x);
  KN_TRY(km_load(ctx, x, turned, &own[0]));
  KN_TRY(km_room(ctx, KN_F64, count, &own[1]));
  KN_TRY(km_room(ctx, KN_I64, count * n, &own[2]));
  KN_TRY(km_room(ctx, KN_I64, count, &own[3]));
  *w = (work){.n = n,
              .a = km_at(own[0]),
              .sign = km_at(own[1]),
              .swap = kn_tensor_data(own[2]),
              .fault = kn_tensor_data(own[3])};
  kn_parallel_for(ctx, count, km_grain(n), factor_range, w);
  return KN_OK;
}

static kn_status singular(kn_context *ctx, kn_op op, const work *w, int64_t count) {
  return km_faults(ctx, op, w->fault, count, "the matrix is singular: pivot ", " is 0");
}

static void inverse_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  int64_t n = w->n;
  for (int64_t i = begin; i < end; i++) {
    double *to = w->b + i * n * n;
    for (int64_t j = 0; j < n; j++) to[j * n + j] = 1;
    solve_factored(w->a + i * n * n, n, w->swap + i * n, to, n);
  }
}

KERNEL(inv) {
  kn_tensor *own[5] = {NULL};
  work w;
  int64_t count = km_count(in[0]), each = km_rows(in[0]);
  (void)attrs, (void)n;
  kn_status st = factor(ctx, in[0], false, own, &w);
  if (st == KN_OK) st = singular(ctx, KN_OP_inv, &w, count);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * each * each, &own[4]);
  if (st == KN_OK) {
    w.b = km_at(own[4]);
    kn_parallel_for(ctx, count, km_grain(each), inverse_range, &w);
    km_store(ctx, w.b, false, out[0]);
  }
  kk_release_all(own, 5);
  return st;
}

/* Batch dims of the right side and of the result; a's own are broadcast to them, each a factored once. */
typedef struct batch {
  const work *w;
  int rank;
  int64_t dims[KN_MAX_RANK], step[KN_MAX_RANK]; /* in matrices of a */
} batch;

static batch batch_of(const work *w, const kn_tensor *a, const kk_view *b) {
  batch q = {.w = w, .rank = b->rank - 2};
  int lead = q.rank - (a->type.rank - 2);
  int64_t step = 1;
  for (int d = q.rank - 1; d >= 0; d--) {
    int64_t size = d < lead ? 1 : a->type.dims[d - lead];
    q.dims[d] = b->dims[d];
    q.step[d] = size == 1 ? 0 : step;
    step *= size;
  }
  return q;
}

static void solve_range(void *ud, int64_t begin, int64_t end) {
  const batch *q = ud;
  const work *w = q->w;
  for (int64_t i = begin; i < end; i++) {
    int64_t at = 0, rest = i;
    for (int d = q->rank - 1; d >= 0; d--) {
      at += rest % q->dims[d] * q->step[d];
      rest /= q->dims[d];
    }
    solve_factored(w->a + at * w->n * w->n, w->n, w->swap + at * w->n, w->b + i * w->n * w->k, w->k);
  }
}

/* A right side that is a vector is given to the loops as one column. x a = b is a^T x^T = b^T. */
KERNEL(solve) {
  const kn_attrs_solve *at = attrs;
  kn_tensor *own[5] = {NULL};
  work w;
  (void)n;
  bool vector = kn_solve_is_vector(&in[0]->type, &in[1]->type), turned = !at->left && !vector;
  kn_type type = out[0]->type;
  kk_view from = kk_view_of(in[1]), to = kk_view_of(out[0]);
  kk_view *both[] = {&from, &to};
  if (vector) type.dims[type.rank++] = 1;
  for (int i = 0; i < 2; i++) {
    kk_view *v = both[i];
    if (vector) v->dims[v->rank] = 1, v->strides[v->rank++] = 0;
    if (turned) {
      int64_t dim = v->dims[v->rank - 1], stride = v->strides[v->rank - 1];
      v->dims[v->rank - 1] = v->dims[v->rank - 2], v->strides[v->rank - 1] = v->strides[v->rank - 2];
      v->dims[v->rank - 2] = dim, v->strides[v->rank - 2] = stride;
    }
  }
  type.dtype = KN_F64;
  for (int d = 0; d < type.rank; d++) type.dims[d] = to.dims[d];
  kn_status st = factor(ctx, in[0], turned, own, &w);
  if (st == KN_OK) st = singular(ctx, KN_OP_solve, &w, km_count(in[0]));
  if (st == KN_OK) st = kn_tensor_new(ctx, &type, &own[4]);
  if (st == KN_OK) {
    kk_view b = kk_view_of(own[4]);
    batch q = batch_of(&w, in[0], &b);
    kk_copy(ctx, &b, &from);
    w.b = km_at(own[4]);
    w.k = km_cols(own[4]);
    kn_parallel_for(ctx, km_count(own[4]), km_grain(w.n), solve_range, &q);
    kk_copy(ctx, &to, &b);
  }
  kk_release_all(own, 5);
  return st;
}

/* ---- determinants ---- */

static kn_status determinants(kn_context *ctx, kn_tensor *x, bool logarithm, kn_tensor *const *out) {
  kn_tensor *own[5] = {NULL};
  work w;
  int64_t count = km_count(x), n = km_rows(x);
  kn_status st = factor(ctx, x, false, own, &w);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count, &own[4]);
  for (int64_t i = 0; st == KN_OK && i < count; i++) {
    double *log_to = km_at(own[4]) + i, value = w.sign[i], sum = 0;
    for (int64_t j = 0; j < n; j++) {
      double d = w.a[(i * n + j) * n + j];
      if (logarithm) {
        value *= d == 0 ? 0 : d < 0 ? -1 : d > 0 ? 1 : d;
        sum += log(fabs(d));
      } else {
        value *= d;
      }
    }
    w.sign[i] = value;
    *log_to = sum;
  }
  if (st == KN_OK) {
    km_store(ctx, w.sign, false, out[0]);
    if (logarithm) km_store(ctx, km_at(own[4]), false, out[1]);
  }
  kk_release_all(own, 5);
  return st;
}

KERNEL(det) {
  (void)attrs, (void)n;
  return determinants(ctx, in[0], false, out);
}

KERNEL(slogdet) {
  (void)attrs, (void)n;
  return determinants(ctx, in[0], true, out);
}

/* det(a) a^-T where a can be inverted. Else, with the sign that U and V have together, U times the products
 * of the other singular values times V^T: no division. */
static void singular_cofactor(const double *a, int64_t n, double *to, double *room, int64_t *swap,
                              int64_t *fault) {
  double *s = room, *u = s + n, *vt = u + n * n, *rest = vt + n * n, sign_u, sign_v;
  km_svd parts = {.m = n, .n = n, .k = n, .s = s, .u = u, .vt = vt, .u_cols = n, .vt_rows = n};
  *fault = !km_svd_one(a, &parts, rest);
  double *copy = rest;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) { /* rows of vt times the products */
      double product = 1;
      for (int64_t k = 0; k < n; k++) product *= k == i ? 1 : s[k];
      to[i * n + j] = 0;
      copy[i * n + j] = -product * vt[i * n + j];
    }
  km_subtract(n, n, n, (km_matrix){u, n, 1}, copy, n, to, n);
  km_lu(u, n, swap, &sign_u);
  km_lu(vt, n, swap, &sign_v);
  for (int64_t i = 0; i < n; i++) {
    if (u[i * n + i] < 0) sign_u = -sign_u;
    if (vt[i * n + i] < 0) sign_v = -sign_v;
  }
  for (int64_t i = 0; i < n * n; i++) to[i] *= sign_u * sign_v;
}

static void cofactor_range(void *ud, int64_t begin, int64_t end) {
  const work *w = ud;
  int64_t n = w->n;
  for (int64_t i = begin; i < end; i++) {
    double *a = w->room + i * w->room_each, *to = w->b + i * n * n, det;
    memcpy(a, w->a + i * n * n, (size_t)(n * n) * sizeof *a);
    if (km_lu(a, n, w->swap + i * n, &det)) {
      singular_cofactor(w->a + i * n * n, n, to, a, w->swap + i * n, &w->fault[i]);
      continue;
    }
    for (int64_t j = 0; j < n; j++) {
      to[j * n + j] = 1;
      det *= a[j * n + j];
    }
    solve_factored(a, n, w->swap + i * n, to, n);
    km_turn(to, n);
    for (int64_t j = 0; j < n * n; j++) to[j] *= det;
  }
}

KERNEL(cofactor) {
  kn_tensor *own[5] = {NULL};
  int64_t count = km_count(in[0]), each = km_rows(in[0]);
  int64_t room = each + 2 * each * each + km_svd_room(each, each, false);
  (void)attrs, (void)n;
  kn_status st = km_load(ctx, in[0], false, &own[0]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * each * each, &own[1]);
  if (st == KN_OK) st = km_room(ctx, KN_F64, count * room, &own[2]);
  if (st == KN_OK) st = km_room(ctx, KN_I64, count * each, &own[3]);
  if (st == KN_OK) st = km_room(ctx, KN_I64, count, &own[4]);
  if (st == KN_OK) {
    work w = {.n = each,
              .a = km_at(own[0]),
              .b = km_at(own[1]),
              .room = km_at(own[2]),
              .swap = kn_tensor_data(own[3]),
              .fault = kn_tensor_data(own[4]),
              .room_each = room};
    kn_parallel_for(ctx, count, km_grain(each), cofactor_range, &w);
    st = km_faults(ctx, KN_OP_cofactor, w.fault, count, "the singular values of ", " matrix do not converge");
    if (st == KN_OK) km_store(ctx, w.b, false, out[0]);
  }
  kk_release_all(own, 5);
  return st;
}
