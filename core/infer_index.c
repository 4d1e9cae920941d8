/* Type rules of joining, picking and overwriting elements: all dtypes, indices int64 or int32. cat and stack
 * promote, copy_ casts, where elements are placed into others both have one dtype. */
#include "core/infer.h"
#include <string.h>

/* Promotion over all inputs: dimensioned ones decide among themselves, 0-d ones only add a higher category.
 */
static kn_dtype promote_all(const kn_infer *q) {
  kn_type acc = q->in[0];
  for (int i = 1; i < q->n; i++) {
    acc.dtype = (uint8_t)kn_promote_types(&acc, &q->in[i]);
    if (q->in[i].rank > acc.rank) acc.rank = q->in[i].rank;
  }
  return (kn_dtype)acc.dtype;
}

kn_status kn_infer_cat(const kn_infer *q) {
  const kn_attrs_axis_first *a = q->attrs;
  int dim;
  kn_type out = q->in[0];
  if (out.rank == 0) return kn_infer_fail(q, KN_SHAPE, "0-d tensors have no dim to join along; use stack");
  KN_TRY(kn_infer_axis(q, a->dim, out.rank, &dim));
  for (int i = 1; i < q->n; i++) {
    const kn_type *t = &q->in[i];
    if (t->rank != out.rank)
      return kn_infer_fail(q, KN_SHAPE, "tensors 1 and %d differ in their number of dims", i + 1);
    for (int d = 0; d < out.rank; d++) {
      int64_t *o = &out.dims[d];
      if (d == dim) {
        if (!kn_dim_known(*o) || !kn_dim_known(t->dims[d]))
          *o = KN_DIM_UNKNOWN;
        else if (__builtin_add_overflow(*o, t->dims[d], o))
          return kn_infer_fail(q, KN_SHAPE, "too many elements");
      } else if (!kn_dim_may_equal(*o, t->dims[d])) {
        return kn_infer_fail(q, KN_SHAPE, "tensors 1 and %d differ in dim %d: %lld and %lld", i + 1, d + 1,
                             (long long)*o, (long long)t->dims[d]);
      } else if (!kn_dim_known(*o)) {
        *o = t->dims[d];
      }
    }
  }
  out.dtype = (uint8_t)promote_all(q);
  q->out[0] = out;
  return KN_OK;
}

kn_status kn_infer_stack(const kn_infer *q) {
  const kn_attrs_axis_first *a = q->attrs;
  kn_type out = q->in[0];
  int dim;
  if (out.rank == KN_MAX_RANK)
    return kn_infer_fail(q, KN_SHAPE, "the result would have more than %d dims", KN_MAX_RANK);
  KN_TRY(kn_infer_axis(q, a->dim, out.rank + 1, &dim));
  for (int i = 1; i < q->n; i++) {
    bool same = q->in[i].rank == out.rank;
    for (int d = 0; same && d < out.rank; d++) {
      same = kn_dim_may_equal(out.dims[d], q->in[i].dims[d]);
      if (!kn_dim_known(out.dims[d])) out.dims[d] = q->in[i].dims[d];
    }
    if (!same) return kn_infer_fail(q, KN_SHAPE, "tensors 1 and %d differ in shape", i + 1);
  }
  memmove(out.dims + dim + 1, out.dims + dim, (size_t)(out.rank - dim) * sizeof *out.dims);
  out.dims[dim] = q->n;
  out.rank++;
  out.dtype = (uint8_t)promote_all(q);
  q->out[0] = out;
  return KN_OK;
}

/* Input `a` is at most as large as input `b` in every dim but `except` (-1: in all). */
static kn_status within(const kn_infer *q, int a, int b, int except) {
  const kn_type *ta = &q->in[a], *tb = &q->in[b];
  if (ta->rank != tb->rank)
    return kn_infer_fail(q, KN_SHAPE, "inputs %d and %d differ in their number of dims", a + 1, b + 1);
  for (int d = 0; d < ta->rank; d++)
    if (d != except && kn_dim_known(ta->dims[d]) && kn_dim_known(tb->dims[d]) && ta->dims[d] > tb->dims[d])
      return kn_infer_fail(q, KN_SHAPE, "input %d is larger than input %d in dim %d", a + 1, b + 1, d + 1);
  return KN_OK;
}

kn_status kn_infer_gather(const kn_infer *q) {
  const kn_attrs_axis *a = q->attrs;
  int dim;
  KN_TRY(kn_infer_index(q, 1));
  KN_TRY(kn_infer_axis(q, a->dim, q->in[0].rank, &dim));
  KN_TRY(within(q, 1, 0, dim));
  q->out[0] = q->in[1];
  q->out->dtype = q->in[0].dtype;
  return KN_OK;
}

static kn_status scattered(const kn_infer *q, int64_t axis) {
  int dim;
  KN_TRY(kn_infer_index(q, 1));
  KN_TRY(kn_infer_same_dtype(q, 0, 2));
  KN_TRY(kn_infer_axis(q, axis, q->in[0].rank, &dim));
  KN_TRY(within(q, 1, 0, dim));
  KN_TRY(within(q, 1, 2, -1));
  q->out[0] = q->in[0];
  return KN_OK;
}

kn_status kn_infer_scatter_add(const kn_infer *q) {
  return scattered(q, ((const kn_attrs_axis *)q->attrs)->dim);
}
kn_status kn_infer_scatter_fold(const kn_infer *q) {
  return scattered(q, ((const kn_attrs_scatter_fold *)q->attrs)->dim);
}

/* The dim that a list of positions (input 1, one dim) picks from. */
static kn_status list_axis(const kn_infer *q, int64_t attr, int *dim) {
  KN_TRY(kn_infer_index(q, 1));
  if (q->in[1].rank != 1) return kn_infer_fail(q, KN_SHAPE, "the index (input 2) must have one dim");
  if (q->in[0].rank == 0) return kn_infer_fail(q, KN_SHAPE, "a 0-d tensor has no dim to pick from");
  return kn_infer_axis(q, attr, q->in[0].rank, dim);
}

kn_status kn_infer_index_select(const kn_infer *q) {
  const kn_attrs_axis *a = q->attrs;
  int dim;
  KN_TRY(list_axis(q, a->dim, &dim));
  q->out[0] = q->in[0];
  q->out[0].dims[dim] = q->in[1].dims[0];
  return KN_OK;
}

kn_status kn_infer_index_into(const kn_infer *q) {
  const kn_attrs_axis *a = q->attrs;
  int dim;
  KN_TRY(list_axis(q, a->dim, &dim));
  KN_TRY(kn_infer_same_dtype(q, 0, 2));
  const kn_type *x = &q->in[0], *src = &q->in[2];
  bool fits = src->rank == x->rank;
  for (int d = 0; fits && d < x->rank; d++)
    fits = kn_dim_may_equal(src->dims[d], d == dim ? q->in[1].dims[0] : x->dims[d]);
  if (!fits)
    return kn_infer_fail(
        q, KN_SHAPE, "src (input 3) must have the shape of input 1 with one slice in dim %d for each index",
        dim + 1);
  q->out[0] = *x;
  return KN_OK;
}

kn_status kn_infer_nonzero(const kn_infer *q) {
  q->out[0] = (kn_type){.dtype = KN_I64, .rank = 2, .dims = {KN_DIM_UNKNOWN, q->in[0].rank}};
  return KN_OK;
}

kn_status kn_infer_copy(const kn_infer *q) {
  KN_TRY(kn_infer_expands(q, &q->in[1], &q->in[0]));
  q->out[0] = q->in[0];
  return KN_OK;
}

/* ---- order ---- */

kn_status kn_infer_sort(const kn_infer *q) {
  const kn_attrs_sort *a = q->attrs;
  int dim;
  KN_TRY(kn_infer_axis(q, a->dim, q->in[0].rank, &dim));
  q->out[0] = q->out[1] = q->in[0];
  q->out[1].dtype = KN_I64;
  return KN_OK;
}

kn_status kn_infer_unique(const kn_infer *q) {
  q->out[0] = (kn_type){.dtype = q->in[0].dtype, .rank = 1, .dims = {KN_DIM_UNKNOWN}};
  q->out[1] = q->in[0];
  q->out[1].dtype = KN_I64;
  q->out[2] = (kn_type){.dtype = KN_I64, .rank = 1, .dims = {KN_DIM_UNKNOWN}};
  return KN_OK;
}

/* One sorted list for all, or one for each row of x. */
kn_status kn_infer_searchsorted(const kn_infer *q) {
  const kn_type *list = &q->in[0], *x = &q->in[1];
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  if (list->rank == 0) return kn_infer_fail(q, KN_SHAPE, "the sorted list needs a dim");
  bool fits = list->rank == 1 || list->rank == x->rank;
  for (int d = 0; fits && d < list->rank - 1; d++) fits = kn_dim_may_equal(list->dims[d], x->dims[d]);
  if (!fits)
    return kn_infer_fail(q, KN_SHAPE,
                         "the sorted list must have one dim, or all dims of input 2 but the last");
  q->out[0] = *x;
  q->out->dtype = KN_I64;
  return KN_OK;
}

/* Integers; weights are floats. */
kn_status kn_infer_bincount(const kn_infer *q) {
  const kn_attrs_bincount *a = q->attrs;
  if (kn_dtypes[q->in[0].dtype].category != KN_CAT_INT)
    return kn_infer_fail(q, KN_DTYPE, "integers are needed, not %s", kn_dtype_name((kn_dtype)q->in[0].dtype));
  if (q->in[0].rank != 1) return kn_infer_fail(q, KN_SHAPE, "one dim is needed");
  if (!kn_is_dyn(a->minlength) && a->minlength < 0)
    return kn_infer_fail(q, KN_ARG, "minlength must not be negative: %lld", (long long)a->minlength);
  q->out[0] = (kn_type){.dtype = KN_I64, .rank = 1, .dims = {KN_DIM_UNKNOWN}};
  if (q->n < 2) return KN_OK;
  KN_TRY(kn_infer_floating(q, 1));
  if (q->in[1].rank != 1 || !kn_dim_may_equal(q->in[0].dims[0], q->in[1].dims[0]))
    return kn_infer_fail(q, KN_SHAPE, "a weight for each value is needed");
  q->out->dtype = q->in[1].dtype;
  return KN_OK;
}
