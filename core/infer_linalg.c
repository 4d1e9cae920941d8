/* Type rules of linear algebra: batches of matrices in the last two dims, float32 and float64. */
#include "core/infer.h"

/* Input i is made of matrices of a dtype that the kernels have; halves lack the digits. */
static kn_status matrices(const kn_infer *q, int i) {
  const kn_type *t = &q->in[i];
  if (t->dtype != KN_F32 && t->dtype != KN_F64)
    return kn_infer_fail(q, KN_DTYPE, "float32 or float64 is needed, not %s",
                         kn_dtype_name((kn_dtype)t->dtype));
  if (t->rank < 2) return kn_infer_fail(q, KN_SHAPE, "input %d must have at least two dims", i + 1);
  return KN_OK;
}

static kn_status square(const kn_infer *q, int i) {
  const kn_type *t = &q->in[i];
  KN_TRY(matrices(q, i));
  if (!kn_dim_may_equal(t->dims[t->rank - 2], t->dims[t->rank - 1]))
    return kn_infer_fail(q, KN_SHAPE, "square matrices are needed, not %lld by %lld",
                         (long long)t->dims[t->rank - 2], (long long)t->dims[t->rank - 1]);
  return KN_OK;
}

/* inv, cofactor, cholesky: square matrices to square matrices. */
kn_status kn_infer_matrices(const kn_infer *q) {
  KN_TRY(square(q, 0));
  q->out[0] = q->in[0];
  return KN_OK;
}

kn_status kn_infer_det(const kn_infer *q) {
  KN_TRY(square(q, 0));
  q->out[0] = q->in[0];
  q->out[0].rank = (uint8_t)(q->in[0].rank - 2);
  return KN_OK;
}

kn_status kn_infer_slogdet(const kn_infer *q) {
  KN_TRY(kn_infer_det(q));
  q->out[1] = q->out[0];
  return KN_OK;
}

bool kn_solve_is_vector(const kn_type *a, const kn_type *b) {
  if (b->rank == 1) return true;
  bool same = b->rank == a->rank - 1;
  for (int d = 0; same && d < b->rank; d++) same = kn_dim_may_equal(a->dims[d], b->dims[d]);
  return same;
}

/* a and b as a and b of a x = b (left) or x a = b, where b is a matrix. */
static kn_status system(const kn_infer *q, bool left) {
  const kn_type *a = &q->in[0], *b = &q->in[1];
  KN_TRY(matrices(q, 1));
  int64_t n = a->dims[a->rank - 1], m = b->dims[b->rank - (left ? 2 : 1)];
  if (!kn_dim_may_equal(n, m))
    return kn_infer_fail(q, KN_SHAPE, "the matrices have %lld rows, the right side has %lld %s", (long long)n,
                         (long long)m, left ? "rows" : "columns");
  KN_TRY(kn_infer_batch(q, q->in[0].rank - 2, q->in[1].rank - 2, &q->out[0]));
  q->out->dims[q->out->rank++] = b->dims[b->rank - 2];
  q->out->dims[q->out->rank++] = b->dims[b->rank - 1];
  if (!kn_dim_known(m)) q->out->dims[q->out->rank - (left ? 2 : 1)] = n;
  return KN_OK;
}

kn_status kn_infer_solve(const kn_infer *q) {
  const kn_attrs_solve *at = q->attrs;
  const kn_type *a = &q->in[0], *b = &q->in[1];
  KN_TRY(square(q, 0));
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  if (!kn_solve_is_vector(a, b)) return system(q, at->left);
  if (!at->left)
    return kn_infer_fail(q, KN_ARG, "with left = false the right side must be a matrix, not a vector");
  int64_t n = a->dims[a->rank - 1], m = b->dims[b->rank - 1];
  if (!kn_dim_may_equal(n, m))
    return kn_infer_fail(q, KN_SHAPE, "the matrices have %lld rows, the right side has %lld elements",
                         (long long)n, (long long)m);
  KN_TRY(kn_infer_batch(q, a->rank - 2, b->rank - 1, &q->out[0]));
  q->out->dims[q->out->rank++] = kn_dim_known(n) ? n : m;
  return KN_OK;
}

kn_status kn_infer_solve_triangular(const kn_infer *q) {
  const kn_attrs_solve_triangular *at = q->attrs;
  KN_TRY(square(q, 0));
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  return system(q, at->left);
}

/* The smaller of two sizes, unknown when that cannot be told. */
static int64_t smaller(int64_t a, int64_t b) {
  if (kn_dim_known(a) && kn_dim_known(b)) return a < b ? a : b;
  return a == b ? a : KN_DIM_UNKNOWN;
}

/* The shape of input 0 with other matrices. */
static kn_type with_matrices(const kn_infer *q, int64_t rows, int64_t cols) {
  kn_type t = q->in[0];
  t.dims[t.rank - 2] = rows;
  t.dims[t.rank - 1] = cols;
  return t;
}

kn_status kn_infer_qr(const kn_infer *q) {
  const kn_attrs_qr *at = q->attrs;
  const kn_type *x = &q->in[0];
  KN_TRY(matrices(q, 0));
  int64_t m = x->dims[x->rank - 2], n = x->dims[x->rank - 1];
  int64_t k = at->mode == KN_CHOICE_qr_mode_complete ? m : smaller(m, n);
  q->out[0] = with_matrices(q, m, k);
  q->out[1] = with_matrices(q, k, n);
  if (at->mode == KN_CHOICE_qr_mode_r) q->out[0] = (kn_type){.dtype = x->dtype, .rank = 1};
  return KN_OK;
}

kn_status kn_infer_svd(const kn_infer *q) {
  const kn_attrs_svd *at = q->attrs;
  const kn_type *x = &q->in[0];
  KN_TRY(matrices(q, 0));
  int64_t m = x->dims[x->rank - 2], n = x->dims[x->rank - 1], k = smaller(m, n);
  q->out[0] = with_matrices(q, m, at->full_matrices ? m : k);
  q->out[1] = with_matrices(q, k, 0);
  q->out[1].rank--;
  q->out[2] = with_matrices(q, at->full_matrices ? n : k, n);
  return KN_OK;
}

kn_status kn_infer_eigh(const kn_infer *q) {
  KN_TRY(square(q, 0));
  q->out[0] = q->out[1] = q->in[0];
  q->out[0].rank--;
  return KN_OK;
}

kn_status kn_infer_pinv(const kn_infer *q) {
  const kn_type *x = &q->in[0];
  KN_TRY(matrices(q, 0));
  q->out[0] = with_matrices(q, x->dims[x->rank - 1], x->dims[x->rank - 2]);
  return KN_OK;
}
