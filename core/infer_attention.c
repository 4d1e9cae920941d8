/* Type rules of attention as one op: floats of one dtype, four dims; a mask is added, of their dtype or of
 * the wide one, in which statistics are. */
#include "core/infer.h"
#include <math.h>

enum { N, HEADS, ROWS, WIDTH };

double kn_attention_scale(double scale, int64_t width) {
  return scale >= 0 ? scale : 1 / sqrt((double)(width > 0 ? width : 1));
}

static bool is_wide(const kn_infer *q, int i) { return q->in[i].dtype == kn_dtypes[q->in[0].dtype].wide; }

static kn_status same(const kn_infer *q, int a, int da, int b, int db, const char *what) {
  const int64_t x = q->in[a].dims[da], y = q->in[b].dims[db];
  if (kn_dim_may_equal(x, y)) return KN_OK;
  return kn_infer_fail(q, KN_SHAPE, "inputs %d and %d differ in %s, %lld and %lld", a + 1, b + 1, what,
                       (long long)x, (long long)y);
}

static kn_status mask_fits(const kn_infer *q, int i) {
  const kn_type *m = &q->in[i];
  const int64_t scores[] = {q->in[0].dims[N], q->in[0].dims[HEADS], q->in[0].dims[ROWS], q->in[1].dims[ROWS]};
  if (m->dtype != q->in[0].dtype && !is_wide(q, i))
    return kn_infer_fail(q, KN_DTYPE, "the mask must have the dtype of the query, or the wide one");
  bool fits = m->rank == 4;
  for (int d = 0; fits && d < 4; d++) fits = m->dims[d] == 1 || kn_dim_may_equal(m->dims[d], scores[d]);
  return fits ? KN_OK : kn_infer_fail(q, KN_SHAPE, "the mask must be [N or 1,H or 1,L or 1,S or 1]");
}

/* q, k and v. */
static kn_status operands_fit(const kn_infer *q) {
  KN_TRY(kn_infer_floating(q, 0));
  for (int i = 0; i < 3; i++) {
    KN_TRY(kn_infer_same_dtype(q, 0, i));
    if (q->in[i].rank != 4) return kn_infer_fail(q, KN_SHAPE, "input %d must have four dims", i + 1);
  }
  KN_TRY(same(q, 0, N, 1, N, "their batch"));
  KN_TRY(same(q, 1, N, 2, N, "their batch"));
  KN_TRY(same(q, 1, HEADS, 2, HEADS, "their heads"));
  KN_TRY(same(q, 1, ROWS, 2, ROWS, "their rows"));
  KN_TRY(same(q, 0, WIDTH, 1, WIDTH, "their width"));
  const int64_t heads = q->in[0].dims[HEADS], shared = q->in[1].dims[HEADS];
  if (kn_dim_known(heads) && kn_dim_known(shared) && (shared ? heads % shared : heads))
    return kn_infer_fail(q, KN_SHAPE, "%lld heads do not share %lld evenly", (long long)heads,
                         (long long)shared);
  return KN_OK;
}

static kn_type result_of(const kn_infer *q) {
  kn_type t = q->in[0];
  t.dims[WIDTH] = q->in[2].dims[WIDTH];
  return t;
}

static kn_type statistics_of(const kn_infer *q) {
  kn_type t = q->in[0];
  t.dtype = (uint8_t)kn_dtypes[t.dtype].wide;
  t.rank = WIDTH;
  t.dims[WIDTH] = 0;
  return t;
}

kn_status kn_infer_fused_attention(const kn_infer *q) {
  KN_TRY(operands_fit(q));
  if (q->n > 3) KN_TRY(mask_fits(q, 3));
  q->out[0] = result_of(q);
  q->out[1] = statistics_of(q);
  return KN_OK;
}

/* (q, k, v, out, statistics, g[, mask]) */
kn_status kn_infer_fused_attention_grad(const kn_infer *q) {
  KN_TRY(operands_fit(q));
  const kn_type want[] = {result_of(q), statistics_of(q), result_of(q)};
  for (int i = 0; i < 3; i++) {
    const kn_type *t = &q->in[3 + i];
    bool fits = t->dtype == want[i].dtype && t->rank == want[i].rank;
    for (int d = 0; fits && d < t->rank; d++) fits = kn_dim_may_equal(t->dims[d], want[i].dims[d]);
    if (!fits)
      return kn_infer_fail(q, KN_SHAPE, "input %d must have the type of fused_attention's %s", 4 + i,
                           i == 1 ? "statistics" : "result");
  }
  if (q->n > 6) KN_TRY(mask_fits(q, 6));
  for (int i = 0; i < 3; i++) q->out[i] = q->in[i];
  return KN_OK;
}
