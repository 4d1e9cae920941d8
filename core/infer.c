/* What the shape and dtype rules share: error sentences, broadcasting, promotion, dimension arguments.
 * The rules themselves are in infer_<kind>.c. */
#include "core/infer.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

kn_status kn_infer_fail(const kn_infer *q, kn_status st, const char *fmt, ...) {
  char text[KN_ERROR_SIZE], type[KN_TYPE_TEXT];
  size_t at = 0;
  va_list ap;
  va_start(ap, fmt);
  int w = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  at = w < 0 ? 0 : (size_t)w < sizeof text ? (size_t)w : sizeof text - 1;
  for (int i = 0; i < q->n && at < sizeof text - 1; i++) {
    const char *before = i ? ", " : " (got ";
    w = snprintf(text + at, sizeof text - at, "%s%s%s", before, kn_type_text(&q->in[i], type, sizeof type),
                 i == q->n - 1 ? ")" : "");
    at = w < 0 || (size_t)w >= sizeof text - at ? sizeof text - 1 : at + (size_t)w;
  }
  return kn_fail(q->ctx, st, "%s: %s", kn_op_name(q->op), text);
}

kn_status kn_infer_axis(const kn_infer *q, int64_t dim, int rank, int *out) {
  int room = rank ? rank : 1;
  if (dim < -room || dim >= room)
    return kn_infer_fail(q, KN_ARG, "dim %lld does not exist in %d dimension%s", kn_as_written(dim), rank,
                         rank == 1 ? "" : "s");
  *out = (int)(dim < 0 ? dim + room : dim);
  return KN_OK;
}

bool kn_dim_broadcast(int64_t a, int64_t b, int64_t *out) {
  if (a == 1)
    *out = b;
  else if (b == 1 || a == b)
    *out = a;
  else if (kn_dim_known(a) && kn_dim_known(b))
    return false;
  else
    *out = kn_dim_known(a) ? a : kn_dim_known(b) ? b : KN_DIM_UNKNOWN;
  return true;
}

int64_t kn_dim_window(int64_t d, int64_t add, int64_t div, int64_t more) {
  if (!kn_dim_known(d)) return KN_DIM_UNKNOWN;
  int64_t x = d + add, whole = x / div;
  if (x % div < 0) whole--;
  return whole + more;
}

int64_t kn_ints_at(const kn_ints *v, int i) { return v->n == 1 ? v->v[0] : v->v[i]; }

kn_dtype kn_promote_types(const kn_type *a, const kn_type *b) {
  kn_dtype da = (kn_dtype)a->dtype, db = (kn_dtype)b->dtype;
  if (!a->rank == !b->rank) return kn_dtype_promote(da, db);
  kn_dtype full = a->rank ? da : db, scalar = a->rank ? db : da;
  return kn_dtypes[scalar].category > kn_dtypes[full].category ? kn_dtype_promote(full, scalar) : full;
}

kn_status kn_infer_broadcast(const kn_infer *q, int first) {
  kn_type out = {0};
  for (int i = first; i < q->n; i++)
    if (q->in[i].rank > out.rank) out.rank = q->in[i].rank;
  for (int d = 0; d < out.rank; d++) out.dims[d] = 1;
  for (int i = first; i < q->n; i++) {
    const kn_type *t = &q->in[i];
    for (int d = 0; d < t->rank; d++) {
      int64_t *o = &out.dims[out.rank - t->rank + d];
      int64_t before = *o;
      if (!kn_dim_broadcast(before, t->dims[d], o))
        return kn_infer_fail(q, KN_SHAPE, "sizes %lld and %lld of dim %d do not broadcast", (long long)before,
                             (long long)t->dims[d], out.rank - t->rank + d + 1);
    }
  }
  q->out[0].rank = out.rank;
  memcpy(q->out[0].dims, out.dims, sizeof out.dims);
  return KN_OK;
}

kn_status kn_infer_batch(const kn_infer *q, int na, int nb, kn_type *out) {
  const kn_type *a = &q->in[0], *b = &q->in[1];
  *out = (kn_type){.dtype = a->dtype, .rank = (uint8_t)(na > nb ? na : nb)};
  for (int i = 1; i <= out->rank; i++) {
    int64_t da = i <= na ? a->dims[na - i] : 1, db = i <= nb ? b->dims[nb - i] : 1;
    if (!kn_dim_broadcast(da, db, &out->dims[out->rank - i]))
      return kn_infer_fail(q, KN_SHAPE, "batch sizes %lld and %lld do not broadcast", (long long)da,
                           (long long)db);
  }
  return KN_OK;
}

kn_status kn_infer_expands(const kn_infer *q, const kn_type *from, const kn_type *to) {
  bool fits = from->rank <= to->rank;
  for (int d = 0; fits && d < from->rank; d++)
    fits = from->dims[d] == 1 || kn_dim_may_equal(from->dims[d], to->dims[to->rank - from->rank + d]);
  if (fits) return KN_OK;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  kn_type_text(from, a, sizeof a), kn_type_text(to, b, sizeof b);
  return kn_fail(q->ctx, KN_SHAPE, "%s: %s does not broadcast to %s", kn_op_name(q->op), strchr(a, '['),
                 strchr(b, '['));
}

kn_status kn_infer_same_dtype(const kn_infer *q, int a, int b) {
  if (q->in[a].dtype == q->in[b].dtype) return KN_OK;
  return kn_infer_fail(q, KN_DTYPE, "inputs %d and %d must have one dtype, not %s and %s", a + 1, b + 1,
                       kn_dtype_name((kn_dtype)q->in[a].dtype), kn_dtype_name((kn_dtype)q->in[b].dtype));
}

kn_status kn_infer_floating(const kn_infer *q, int a) {
  if (kn_dtype_is_float((kn_dtype)q->in[a].dtype)) return KN_OK;
  return kn_infer_fail(q, KN_DTYPE, "a floating dtype is needed, not %s",
                       kn_dtype_name((kn_dtype)q->in[a].dtype));
}

kn_status kn_infer_index(const kn_infer *q, int a) {
  if (q->in[a].dtype == KN_I64 || q->in[a].dtype == KN_I32) return KN_OK;
  return kn_infer_fail(q, KN_DTYPE, "the index (input %d) must be int64 or int32, not %s", a + 1,
                       kn_dtype_name((kn_dtype)q->in[a].dtype));
}

kn_status kn_infer_holds(const kn_infer *q, kn_dtype d, kn_number x) {
  char said[KN_NUMBER_SAID];
  if (kn_number_fits(x, d)) return KN_OK;
  return kn_infer_fail(q, KN_ARG, "%s does not fit in %s (%lld to %lld)", kn_number_said(x, said),
                       kn_dtype_name(d), (long long)kn_dtypes[d].lowest, (long long)kn_dtypes[d].highest);
}
