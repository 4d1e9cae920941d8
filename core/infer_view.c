/* Type rules of views and of their gradients: shapes only, the dtype is the first input's. */
#include "core/infer.h"
#include <string.h>

static void set_dims(const kn_infer *q, int rank, const int64_t *dims) {
  q->out[0] = (kn_type){.dtype = q->in[0].dtype, .rank = (uint8_t)rank};
  if (rank) memcpy(q->out[0].dims, dims, (size_t)rank * sizeof *dims);
}

/* A size in an attribute: a placeholder is any size. */
static int64_t given_size(int64_t v) { return kn_is_dyn(v) ? KN_DIM_UNKNOWN : v; }

static kn_status too_many_dims(const kn_infer *q) {
  return kn_infer_fail(q, KN_SHAPE, "the result would have more than %d dims", KN_MAX_RANK);
}

/* ---- reshape ---- */

/* The -1 of reshape when sizes are unknown: with one unknown size in the input, whose other sizes multiply to
 * what the target names, it is that very size (so [N,1,8,8] to [-1,64] keeps N). */
static int64_t leftover(const kn_type *x, int64_t named) {
  int64_t unknown = 0, known = 1, left = KN_DIM_UNKNOWN;
  for (int d = 0; d < x->rank; d++) {
    if (!kn_dim_known(x->dims[d]))
      unknown++, left = x->dims[d];
    else if (__builtin_mul_overflow(known, x->dims[d], &known))
      return KN_DIM_UNKNOWN;
  }
  return unknown == 1 && known == named && named > 0 ? left : KN_DIM_UNKNOWN;
}

kn_status kn_infer_reshape(const kn_infer *q) {
  const kn_attrs_sizes *a = q->attrs;
  int64_t count = kn_type_numel(&q->in[0]), named = 1, dims[KN_MAX_RANK];
  int open = -1;
  bool unknown = false;
  for (int i = 0; i < a->sizes.n; i++) {
    int64_t v = a->sizes.v[i];
    dims[i] = given_size(v);
    if (kn_is_dyn(v)) {
      unknown = true;
    } else if (v == -1) {
      if (open >= 0) return kn_infer_fail(q, KN_ARG, "only one size may be -1");
      open = i;
    } else if (v < 0) {
      return kn_infer_fail(q, KN_ARG, "size %lld is negative", (long long)v);
    } else if (__builtin_mul_overflow(named, v, &named)) {
      return kn_infer_fail(q, KN_SHAPE, "the sizes are too large");
    }
  }
  if (open >= 0 && !unknown) {
    if (named == 0) return kn_infer_fail(q, KN_SHAPE, "-1 can be anything beside a size of 0");
    if (count < 0)
      dims[open] = leftover(&q->in[0], named);
    else if (count % named)
      return kn_infer_fail(q, KN_SHAPE, "%lld elements do not divide into rows of %lld", (long long)count,
                           (long long)named);
    else
      dims[open] = count / named;
  } else if (!unknown && count >= 0 && count != named) {
    return kn_infer_fail(q, KN_SHAPE, "%lld elements do not fit a shape of %lld", (long long)count,
                         (long long)named);
  }
  set_dims(q, a->sizes.n, dims);
  return KN_OK;
}

kn_status kn_infer_reshape_as(const kn_infer *q) {
  int64_t x = kn_type_numel(&q->in[0]), b = kn_type_numel(&q->in[1]);
  if (!kn_dim_may_equal(x, b))
    return kn_infer_fail(q, KN_SHAPE, "%lld elements do not fit a shape of %lld", (long long)x, (long long)b);
  set_dims(q, q->in[1].rank, q->in[1].dims);
  return KN_OK;
}

/* ---- expand ---- */

kn_status kn_infer_expand(const kn_infer *q) {
  const kn_attrs_sizes *a = q->attrs;
  const kn_type *x = &q->in[0];
  int64_t dims[KN_MAX_RANK];
  int more = a->sizes.n - x->rank;
  if (more < 0)
    return kn_infer_fail(q, KN_SHAPE, "%d sizes are too few for %d dims", (int)a->sizes.n, x->rank);
  for (int i = 0; i < a->sizes.n; i++) {
    int64_t v = a->sizes.v[i], d = i < more ? 1 : x->dims[i - more];
    if (v == -1 && i < more)
      return kn_infer_fail(q, KN_ARG, "-1 has no size to keep in the new dim %d", i + 1);
    if (v < -1 && !kn_is_dyn(v)) return kn_infer_fail(q, KN_ARG, "size %lld is negative", (long long)v);
    dims[i] = v == -1 ? d : given_size(v);
    if (d == 1 || v == -1) continue;
    if (!kn_dim_may_equal(d, dims[i]))
      return kn_infer_fail(q, KN_SHAPE, "dim %d of size %lld cannot become %lld", i + 1, (long long)d,
                           (long long)dims[i]);
    if (!kn_dim_known(dims[i])) dims[i] = d;
  }
  set_dims(q, a->sizes.n, dims);
  return KN_OK;
}

kn_status kn_infer_expand_as(const kn_infer *q) {
  KN_TRY(kn_infer_expands(q, &q->in[0], &q->in[1]));
  set_dims(q, q->in[1].rank, q->in[1].dims);
  return KN_OK;
}

/* ---- order of dims ---- */

kn_status kn_infer_transpose(const kn_infer *q) {
  const kn_attrs_swap *a = q->attrs;
  int d0, d1;
  KN_TRY(kn_infer_axis(q, a->dim0, q->in[0].rank, &d0));
  KN_TRY(kn_infer_axis(q, a->dim1, q->in[0].rank, &d1));
  q->out[0] = q->in[0];
  q->out[0].dims[d0] = q->in[0].dims[d1];
  q->out[0].dims[d1] = q->in[0].dims[d0];
  return KN_OK;
}

kn_status kn_infer_permute(const kn_infer *q) {
  const kn_attrs_axes *a = q->attrs;
  bool seen[KN_MAX_RANK] = {false};
  if (a->dims.n != q->in[0].rank)
    return kn_infer_fail(q, KN_ARG, "%d dims are named, not all %d", (int)a->dims.n, q->in[0].rank);
  q->out[0] = q->in[0];
  for (int i = 0; i < a->dims.n; i++) {
    int d;
    KN_TRY(kn_infer_axis(q, a->dims.v[i], q->in[0].rank, &d));
    if (seen[d]) return kn_infer_fail(q, KN_ARG, "dim %d is named twice", d + 1);
    seen[d] = true;
    q->out[0].dims[i] = q->in[0].dims[d];
  }
  return KN_OK;
}

/* ---- parts ---- */

/* The shape of x without `dim`, for select and its gradient. */
static kn_status selected(const kn_infer *q, const kn_type *x, kn_type *out) {
  const kn_attrs_select *a = q->attrs;
  int dim;
  if (x->rank == 0) return kn_infer_fail(q, KN_SHAPE, "a 0-d tensor has no dims to select from");
  KN_TRY(kn_infer_axis(q, a->dim, x->rank, &dim));
  int64_t size = x->dims[dim], at = a->index;
  if (kn_dim_known(size) && !kn_is_dyn(at) && (at < -size || at >= size))
    return kn_infer_fail(&(kn_infer){.ctx = q->ctx, .op = q->op, .in = x, .n = 1}, KN_INDEX,
                         "index %lld is out of range for dim %d of size %lld", kn_as_written(at), dim + 1,
                         (long long)size);
  *out = *x;
  out->rank--;
  memmove(out->dims + dim, out->dims + dim + 1, (size_t)(out->rank - dim) * sizeof *out->dims);
  out->dims[out->rank] = 0;
  return KN_OK;
}

kn_status kn_infer_select(const kn_infer *q) { return selected(q, &q->in[0], &q->out[0]); }

kn_status kn_slice_range(const kn_infer *q, int64_t size, const kn_attrs_slice *a, int64_t *start,
                         int64_t *length) {
  int64_t from = a->start, stop = a->stop, step = a->step;
  if (!kn_is_dyn(step) && step < 1)
    return kn_infer_fail(q, KN_ARG, "the step must be at least 1, not %lld", (long long)step);
  *length = KN_DIM_UNKNOWN;
  if (from == 0 && stop == KN_TO_END && step == 1) *length = size; /* all of it, known or not */
  if (*length != KN_DIM_UNKNOWN && !kn_dim_known(size)) return KN_OK;
  if (!kn_dim_known(size) || kn_is_dyn(from) || kn_is_dyn(stop) || kn_is_dyn(step)) return KN_OK;
  if (from < 0) from += size;
  if (stop < 0) stop += size;
  from = from < 0 ? 0 : from > size ? size : from;
  stop = stop < from ? from : stop > size ? size : stop;
  *start = from;
  *length = (stop - from) / step + ((stop - from) % step != 0);
  return KN_OK;
}

static kn_status sliced(const kn_infer *q, const kn_type *x, kn_type *out) {
  const kn_attrs_slice *a = q->attrs;
  int dim;
  if (x->rank == 0) return kn_infer_fail(q, KN_SHAPE, "a 0-d tensor has no dims to slice");
  KN_TRY(kn_infer_axis(q, a->dim, x->rank, &dim));
  int64_t start = 0, length = KN_DIM_UNKNOWN;
  KN_TRY(kn_slice_range(q, x->dims[dim], a, &start, &length));
  *out = *x;
  out->dims[dim] = length;
  return KN_OK;
}

kn_status kn_infer_slice(const kn_infer *q) { return sliced(q, &q->in[0], &q->out[0]); }

/* (g, x): g has the shape of the part, the result that of x. */
static kn_status part_grad(const kn_infer *q, const kn_type *part) {
  bool fits = part->rank == q->in[0].rank;
  for (int d = 0; fits && d < part->rank; d++) fits = kn_dim_may_equal(part->dims[d], q->in[0].dims[d]);
  if (!fits) {
    char text[KN_TYPE_TEXT];
    kn_type_text(part, text, sizeof text);
    return kn_infer_fail(q, KN_SHAPE, "the gradient must have the shape %s", strchr(text, '['));
  }
  set_dims(q, q->in[1].rank, q->in[1].dims);
  return KN_OK;
}

kn_status kn_infer_select_grad(const kn_infer *q) {
  kn_type part;
  KN_TRY(selected(q, &q->in[1], &part));
  return part_grad(q, &part);
}

kn_status kn_infer_slice_grad(const kn_infer *q) {
  kn_type part;
  KN_TRY(sliced(q, &q->in[1], &part));
  return part_grad(q, &part);
}

/* (x, src): src broadcast and cast into the part, the result is as x. */
static kn_status part_put(const kn_infer *q, const kn_type *part) {
  KN_TRY(kn_infer_expands(q, &q->in[1], part));
  q->out[0] = q->in[0];
  return KN_OK;
}

kn_status kn_infer_select_put(const kn_infer *q) {
  kn_type part;
  KN_TRY(selected(q, &q->in[0], &part));
  return part_put(q, &part);
}

kn_status kn_infer_slice_put(const kn_infer *q) {
  kn_type part;
  KN_TRY(sliced(q, &q->in[0], &part));
  return part_put(q, &part);
}

/* ---- windows and strides ---- */

static kn_status unfolded(const kn_infer *q, const kn_type *x, kn_type *out) {
  const kn_attrs_unfold *a = q->attrs;
  int dim;
  if (x->rank == 0) return kn_infer_fail(q, KN_SHAPE, "at least one dim is needed");
  if (x->rank == KN_MAX_RANK)
    return kn_infer_fail(q, KN_SHAPE, "the result would have more than %d dims", KN_MAX_RANK);
  KN_TRY(kn_infer_axis(q, a->dim, x->rank, &dim));
  bool known = !kn_is_dyn(a->size) && !kn_is_dyn(a->step);
  if ((!kn_is_dyn(a->size) && a->size < 1) || (!kn_is_dyn(a->step) && a->step < 1))
    return kn_infer_fail(q, KN_ARG, "size and step must be at least 1");
  *out = *x;
  if (known && kn_dim_known(x->dims[dim])) {
    if (a->size > x->dims[dim])
      return kn_infer_fail(q, KN_SHAPE, "the window of %lld is larger than dim %d of size %lld",
                           (long long)a->size, dim + 1, (long long)x->dims[dim]);
    out->dims[dim] = (x->dims[dim] - a->size) / a->step + 1;
  } else {
    out->dims[dim] = KN_DIM_UNKNOWN;
  }
  out->dims[out->rank++] = given_size(a->size);
  return KN_OK;
}

kn_status kn_infer_unfold(const kn_infer *q) { return unfolded(q, &q->in[0], &q->out[0]); }

kn_status kn_infer_unfold_grad(const kn_infer *q) {
  kn_type part;
  KN_TRY(unfolded(q, &q->in[1], &part));
  return part_grad(q, &part);
}

/* The shape that strides give; every place lies in x. */
static kn_status strided(const kn_infer *q, const kn_type *x, kn_type *out) {
  const kn_attrs_strided *a = q->attrs;
  int64_t last = a->offset, step, count = kn_type_numel(x);
  bool known = !kn_is_dyn(last) && kn_dim_known(count), empty = false;
  if (a->sizes.n != a->strides.n)
    return kn_infer_fail(q, KN_ARG, "%d sizes and %d strides", (int)a->sizes.n, (int)a->strides.n);
  *out = (kn_type){.dtype = x->dtype, .rank = (uint8_t)a->sizes.n};
  for (int i = 0; i < a->sizes.n; i++) {
    int64_t size = a->sizes.v[i], stride = a->strides.v[i];
    if (!kn_is_dyn(size) && size < 0)
      return kn_infer_fail(q, KN_ARG, "size %lld is negative", (long long)size);
    if (!kn_is_dyn(stride) && stride < 0)
      return kn_infer_fail(q, KN_ARG, "stride %lld is negative", (long long)stride);
    out->dims[i] = given_size(size);
    known &= !kn_is_dyn(size) && !kn_is_dyn(stride);
    empty |= size == 0;
    if (known && size > 1 &&
        (__builtin_mul_overflow(size - 1, stride, &step) || __builtin_add_overflow(last, step, &last)))
      return kn_infer_fail(q, KN_ARG, "the strides reach too far");
  }
  if (known && !empty && (a->offset < 0 || last >= count))
    return kn_infer_fail(q, KN_ARG, "the strides reach from element %lld to %lld of %lld",
                         (long long)((uint64_t)a->offset + 1), (long long)((uint64_t)last + 1),
                         (long long)count);
  return KN_OK;
}

kn_status kn_infer_strided(const kn_infer *q) { return strided(q, &q->in[0], &q->out[0]); }

kn_status kn_infer_strided_grad(const kn_infer *q) {
  kn_type part;
  KN_TRY(strided(q, &q->in[1], &part));
  return part_grad(q, &part);
}

kn_status kn_infer_strided_put(const kn_infer *q) {
  kn_type part;
  KN_TRY(strided(q, &q->in[0], &part));
  return part_put(q, &part);
}

/* ---- dims of size 1 ---- */

/* Whether a size is 1 decides the rank, so it must be known. */
kn_status kn_infer_squeeze(const kn_infer *q) {
  const kn_attrs_optional_axis *a = q->attrs;
  const kn_type *x = &q->in[0];
  int only = -1;
  if (a->dim != KN_NONE) KN_TRY(kn_infer_axis(q, a->dim, x->rank, &only));
  kn_type out = {.dtype = x->dtype};
  for (int d = 0; d < x->rank; d++) {
    bool asked = only < 0 || only == d;
    if (asked && !kn_dim_known(x->dims[d]))
      return kn_infer_fail(q, KN_SHAPE,
                           "the size of dim %d is not known here, so neither is the number of dims "
                           "of the result; name a dim of size 1, or use select",
                           d + 1);
    if (!asked || x->dims[d] != 1) out.dims[out.rank++] = x->dims[d];
  }
  q->out[0] = out;
  return KN_OK;
}

kn_status kn_infer_unsqueeze(const kn_infer *q) {
  const kn_attrs_axis *a = q->attrs;
  int rank = q->in[0].rank, dim;
  if (rank == KN_MAX_RANK) return too_many_dims(q);
  KN_TRY(kn_infer_axis(q, a->dim, rank + 1, &dim));
  kn_type out = q->in[0];
  memmove(out.dims + dim + 1, out.dims + dim, (size_t)(rank - dim) * sizeof *out.dims);
  out.dims[dim] = 1;
  out.rank++;
  q->out[0] = out;
  return KN_OK;
}

/* ---- diagonals, order, padding ---- */

/* x with the diagonal of two dims as its last. */
static kn_status diagonal(const kn_infer *q, const kn_type *x, kn_type *out) {
  const kn_attrs_diagonal_of *a = q->attrs;
  int d1, d2;
  if (x->rank < 2) return kn_infer_fail(q, KN_SHAPE, "at least two dims are needed");
  KN_TRY(kn_infer_axis(q, a->dim1, x->rank, &d1));
  KN_TRY(kn_infer_axis(q, a->dim2, x->rank, &d2));
  if (d1 == d2) return kn_infer_fail(q, KN_ARG, "two different dims are needed");
  int64_t rows = x->dims[d1], columns = x->dims[d2], length = KN_DIM_UNKNOWN;
  if (kn_dim_known(rows) && kn_dim_known(columns) && !kn_is_dyn(a->offset)) {
    if (a->offset >= 0)
      columns = a->offset < columns ? columns - a->offset : 0;
    else
      rows = a->offset > -rows ? rows + a->offset : 0;
    length = rows < columns ? rows : columns;
  }
  kn_type made = {.dtype = x->dtype};
  for (int d = 0; d < x->rank; d++)
    if (d != d1 && d != d2) made.dims[made.rank++] = x->dims[d];
  made.dims[made.rank++] = length;
  *out = made;
  return KN_OK;
}

kn_status kn_infer_diagonal(const kn_infer *q) { return diagonal(q, &q->in[0], &q->out[0]); }

kn_status kn_infer_diagonal_grad(const kn_infer *q) {
  kn_type part;
  KN_TRY(diagonal(q, &q->in[1], &part));
  return part_grad(q, &part);
}

kn_status kn_infer_triangle(const kn_infer *q) {
  if (q->in[0].rank < 2) return kn_infer_fail(q, KN_SHAPE, "at least two dims are needed");
  q->out[0] = q->in[0];
  return KN_OK;
}

kn_status kn_infer_flip(const kn_infer *q) {
  const kn_attrs_axes *a = q->attrs;
  bool seen[KN_MAX_RANK] = {false};
  for (int i = 0; i < a->dims.n; i++) {
    int d;
    KN_TRY(kn_infer_axis(q, a->dims.v[i], q->in[0].rank, &d));
    if (seen[d]) return kn_infer_fail(q, KN_ARG, "dim %d is named twice", d + 1);
    seen[d] = true;
  }
  q->out[0] = q->in[0];
  return KN_OK;
}

kn_status kn_infer_constant_pad(const kn_infer *q) {
  const kn_attrs_constant_pad *a = q->attrs;
  kn_type out = q->in[0];
  KN_TRY(kn_infer_holds(q, (kn_dtype)out.dtype, a->value_number));
  if (a->pad.n % 2 || a->pad.n / 2 > out.rank)
    return kn_infer_fail(q, KN_ARG, "two numbers for each padded dim are needed, the last dim first, not %d",
                         (int)a->pad.n);
  for (int i = 0; i < a->pad.n; i += 2) {
    int64_t *size = &out.dims[out.rank - 1 - i / 2], before = a->pad.v[i], after = a->pad.v[i + 1], sum;
    if (before == 0 && after == 0) continue;
    if (!kn_dim_known(*size) || kn_is_dyn(before) || kn_is_dyn(after)) {
      *size = KN_DIM_UNKNOWN;
      continue;
    }
    if (__builtin_add_overflow(before, after, &sum) || __builtin_add_overflow(*size, sum, size) ||
        before < -INT32_MAX || after < -INT32_MAX)
      return kn_infer_fail(q, KN_SHAPE, "the sizes are too large");
    if (*size < 0)
      return kn_infer_fail(q, KN_SHAPE, "more is cut off than there is in dim %d", out.rank - i / 2);
  }
  q->out[0] = out;
  return KN_OK;
}
