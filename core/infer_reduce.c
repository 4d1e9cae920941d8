/* Type rules of reductions and softmax. Each says which dtypes it takes. */
#include "core/infer.h"

/* Marks the dims to reduce; an empty list means all. */
static kn_status which_dims(const kn_infer *q, const kn_ints *dim, bool over[KN_MAX_RANK]) {
  int rank = q->in[0].rank;
  for (int d = 0; d < KN_MAX_RANK; d++) over[d] = dim->n == 0;
  for (int i = 0; i < dim->n; i++) {
    int d;
    KN_TRY(kn_infer_axis(q, dim->v[i], rank, &d));
    if (over[d]) return kn_infer_fail(q, KN_ARG, "dim %d is named twice", d + 1);
    over[d] = true;
  }
  return KN_OK;
}

static void drop_dims(const kn_type *x, const bool over[KN_MAX_RANK], bool keepdim, kn_dtype dtype,
                      kn_type *out) {
  *out = (kn_type){.dtype = (uint8_t)dtype};
  for (int d = 0; d < x->rank; d++) {
    if (!over[d])
      out->dims[out->rank++] = x->dims[d];
    else if (keepdim)
      out->dims[out->rank++] = 1;
  }
}

static kn_status reduce(const kn_infer *q, kn_dtype dtype) {
  const kn_attrs_reduce *a = q->attrs;
  bool over[KN_MAX_RANK];
  KN_TRY(which_dims(q, &a->dim, over));
  drop_dims(&q->in[0], over, a->keepdim, dtype, &q->out[0]);
  return KN_OK;
}

static kn_dtype sum_dtype(kn_dtype d) { return kn_dtype_is_float(d) ? d : KN_I64; }

/* All; integers and bool give int64. */
kn_status kn_infer_sum(const kn_infer *q) { return reduce(q, sum_dtype((kn_dtype)q->in[0].dtype)); }

/* Floats. */
kn_status kn_infer_mean(const kn_infer *q) {
  KN_TRY(kn_infer_floating(q, 0));
  return reduce(q, (kn_dtype)q->in[0].dtype);
}

/* amax, amin: all. No elements have no largest. */
kn_status kn_infer_reduce(const kn_infer *q) {
  const kn_attrs_reduce *a = q->attrs;
  bool over[KN_MAX_RANK];
  KN_TRY(which_dims(q, &a->dim, over));
  for (int d = 0; d < q->in[0].rank; d++)
    if (over[d] && q->in[0].dims[d] == 0)
      return kn_infer_fail(q, KN_SHAPE, "dim %d has no elements to choose from", d + 1);
  return reduce(q, (kn_dtype)q->in[0].dtype);
}

/* All; gives bool. */
kn_status kn_infer_reduce_bool(const kn_infer *q) { return reduce(q, KN_BOOL); }

/* All; gives int64. */
kn_status kn_infer_argreduce(const kn_infer *q) {
  const kn_attrs_argreduce *a = q->attrs;
  kn_ints dim = {.n = a->dim != KN_NONE, .v = {a->dim}};
  bool over[KN_MAX_RANK];
  KN_TRY(which_dims(q, &dim, over));
  for (int d = 0; d < q->in[0].rank; d++)
    if (over[d] && q->in[0].dims[d] == 0)
      return kn_infer_fail(q, KN_SHAPE, "dim %d has no elements to choose from", d + 1);
  drop_dims(&q->in[0], over, a->keepdim, KN_I64, &q->out[0]);
  return KN_OK;
}

/* All, as sum. */
kn_status kn_infer_sum_to(const kn_infer *q) {
  KN_TRY(kn_infer_expands(q, &q->in[1], &q->in[0]));
  q->out[0] = q->in[1];
  q->out->dtype = (uint8_t)sum_dtype((kn_dtype)q->in[0].dtype);
  return KN_OK;
}

/* cumsum, cumprod */
kn_status kn_infer_scan(const kn_infer *q) {
  const kn_attrs_axis *a = q->attrs;
  int d;
  KN_TRY(kn_infer_axis(q, a->dim, q->in[0].rank, &d));
  q->out[0] = q->in[0];
  q->out->dtype = (uint8_t)sum_dtype((kn_dtype)q->in[0].dtype);
  return KN_OK;
}

/* Floats. */
kn_status kn_infer_softmax(const kn_infer *q) {
  const kn_attrs_axis *a = q->attrs;
  int d;
  KN_TRY(kn_infer_floating(q, 0));
  KN_TRY(kn_infer_axis(q, a->dim, q->in[0].rank, &d));
  q->out[0] = q->in[0];
  return KN_OK;
}
