/* Composites: picking and putting elements by index. Index values are 1-based. */
#include "core/composite.h"
#include "core/device.h"

/* Broadcast of x and index, but for dim, where the index decides; no dim: both as a line. */
static kn_tensor *take_along(kn_scope *s, kn_tensor *x, kn_tensor *index, const kn_attrs_optional_axis *a) {
  const kn_ints flat = {1, {-1}};
  kn_attrs_axis at = {.dim = 0};
  if (a->dim == KN_NONE)
    return kx_with2(s, KN_OP_gather, &at, kx_reshape(s, x, &flat), kx_reshape(s, index, &flat));
  int rank = x->type.rank;
  at.dim = kx_dim(s, a->dim, rank);
  if (index->type.rank != rank)
    return kx_refuse(s, KN_SHAPE, "x and index differ in their number of dims", x, index);
  kn_ints of_x = {.n = rank}, of_index = {.n = rank};
  bool wide_x = false, wide_index = false;
  for (int d = 0; d < rank; d++) {
    kn_ints other = {0};
    of_x.v[d] = of_index.v[d] = -1;
    if (d == at.dim) continue;
    if (x->type.dims[d] == 1 && index->type.dims[d] != 1) {
      kx_put_sizes(s, index, d, d + 1, &other);
      of_x.v[d] = other.v[0], wide_x = true;
    } else if (index->type.dims[d] == 1 && x->type.dims[d] != 1) {
      kx_put_sizes(s, x, d, d + 1, &other);
      of_index.v[d] = other.v[0], wide_index = true;
    }
  }
  if (s->status != KN_OK) return NULL;
  if (wide_x) x = kx_expand(s, x, &of_x);
  if (wide_index) index = kx_expand(s, index, &of_index);
  return kx_with2(s, KN_OP_gather, &at, x, index);
}
EXPRESSION(take_along_dim, take_along(s, in[0], in[1], attrs))

/* Zeros with a 1 put at each index: so an index out of range is found. */
static kn_tensor *one_hot(kn_scope *s, kn_tensor *index, const kn_attrs_one_hot *a) {
  if (!(index = kx_index(s, index))) return NULL;
  const kn_attrs_axis last = {.dim = -1};
  int64_t classes = a->num_classes;
  if (classes == KN_NONE) {
    kn_scalar most;
    if (kn_tensor_numel(index) == 0)
      return kx_refuse(s, KN_ARG, "num_classes is needed for no elements", index, NULL);
    kn_tensor *top = kx_reduce(s, KN_OP_amax, index, (kn_ints){0}, false);
    if (!top) return NULL;
    if (kn_tensor_is_symbolic(top))
      return kx_refuse(s, KN_ARG, "num_classes is needed while recording", index, NULL);
    kn_status st = kn_item(s->ctx, top, &most);
    if (st != KN_OK) return kx_fail(s, st);
    if (most.kind != KN_SCALAR_INT)
      return kx_refuse(s, KN_DTYPE, "the index must be int64 or int32", index, NULL);
    classes = most.as.i;
  }
  if (!kn_is_dyn(classes) && classes < 1)
    return kx_refuse(s, KN_ARG, "at least one class is needed", index, NULL);
  kn_ints sizes = {0};
  kx_put_sizes(s, index, 0, index->type.rank, &sizes);
  kx_put_size(s, classes, &sizes);
  if (s->status != KN_OK) return NULL;
  kn_attrs_fill zero = {.sizes = sizes, .value = 0, .dtype = KN_I64, .device = index->type.device};
  kn_tensor *at = kx_with(s, KN_OP_unsqueeze, &last, index), *zeros = kx_apply(s, KN_OP_full, &zero, NULL, 0);
  return kx_apply(s, KN_OP_scatter, &last, (kn_tensor *[]){zeros, at, at ? kx_full_like(s, at, 1) : NULL}, 3);
}
EXPRESSION(one_hot, one_hot(s, in[0], attrs))

/* ---- several indices at once ---- */

/* Where the values are there, an index out of range is told with its dim. */
static bool is_outside(kn_scope *s, kn_tensor *at, int dim, int64_t size) {
  if (!at->storage || !kn_dim_known(size) || kn_tensor_dtype(at) != KN_I64) return false;
  kn_tensor *line = kn_tensor_contiguous(at) ? at : kx_clone(s, at);
  if (!line || !line->storage) return false;
  kn_tensor *host;
  kn_status st = kn_to_host(s->ctx, line, &host);
  if (st != KN_OK) return kx_fail(s, st), true;
  line = kx_own(s, host);
  const int64_t *v = line ? kn_tensor_data(line) : NULL;
  for (int64_t i = 0, n = kn_tensor_numel(line); i < n; i++) {
    if (v[i] != 0 && v[i] >= -size && v[i] <= size) continue;
    kx_fail(s,
            kn_fail(s->ctx, KN_INDEX,
                    "index %lld is out of range for dim %d of size %lld (indices start at 1, -1 is the last)",
                    (long long)v[i], dim + 1, (long long)size));
    return true;
  }
  return false;
}

/* The row of [d1 … dk, *] that k indices, broadcast together, point at, as an index into the rows in a line.
 */
static kn_tensor *row_of(kn_scope *s, kn_tensor *x, kn_tensor *const *index, int k) {
  kn_tensor *row = NULL;
  for (int i = 0; i < k; i++) {
    kn_tensor *at = kx_index(s, index[i]);
    if (!at) return NULL;
    if (kn_tensor_dtype(at) != KN_I64) return kx_refuse(s, KN_DTYPE, "indices must be int64 or int32", x, at);
    if (is_outside(s, at, i, x->type.dims[i])) return NULL;
    kn_tensor *zero = kx_number(s, 0, at), *high = kx_size(s, x, i, KN_I64), *inside;
    if (k == 1) /* what is out of range stays as it is */
      return kx_where(s, kx_bitwise_and(s, kx_lt(s, at, zero), kx_ge(s, at, kx_neg(s, high))),
                      kx_add(s, at, kx_plus(s, high, 1)), at);
    at = kx_where(s, kx_lt(s, at, zero), kx_add(s, at, kx_plus(s, high, 1)), at); /* -1 is the last */
    inside = kx_bitwise_and(s, kx_gt(s, at, zero), kx_le(s, at, high));
    row = row ? kx_add(s, kx_mul(s, kx_plus(s, row, -1), high), at) : at;
    row = kx_where(s, inside, row, kx_number(s, -(double)(INT32_MAX), at)); /* stays out of range */
  }
  return row;
}

/* x, index 1 … k: what they point at in the leading dims, in their broadcast shape. */
static kn_tensor *index_all(kn_scope *s, kn_tensor *const *in, int n) {
  kn_tensor *x = in[0];
  int k = n - 1, rank = x->type.rank;
  if (k > rank) return kx_refuse(s, KN_ARG, "there are more indices than dims", x, NULL);
  kn_tensor *row = row_of(s, x, in + 1, k);
  if (!row) return NULL;
  if (row->type.rank + rank - k > KN_MAX_RANK)
    return kx_refuse(s, KN_SHAPE, "the result would have more than 8 dims", x, row);
  kn_ints line = {1, {-1}}, lines = {1, {-1}}, spread = {0};
  int64_t rows = 1;
  for (int i = 0; i < k; i++) rows = kn_dim_known(x->type.dims[i]) && rows >= 0 ? rows * x->type.dims[i] : -1;
  lines.v[0] = rows;
  kx_put_sizes(s, x, k, rank, &lines);
  kx_put_sizes(s, row, 0, row->type.rank, &spread);
  kx_put_sizes(s, x, k, rank, &spread);
  if (kn_dim_known(kn_tensor_numel(row))) line.v[0] = kn_tensor_numel(row);
  if (s->status != KN_OK) return NULL;
  kn_attrs_axis first = {.dim = 0};
  kn_tensor *list = kx_reshape(s, row, &line);
  kn_tensor *of = kx_reshape(s, x, &lines);
  const kn_within part = {KN_UNNAMED, s->ctx->within};
  if (k == 1) s->ctx->within = &part; /* the index at fault is the caller's */
  kn_tensor *picked = kx_with2(s, KN_OP_index_select, &first, of, list);
  s->ctx->within = part.up;
  return kx_reshape(s, picked, &spread);
}
EXPRESSION(index, index_all(s, in, n))

/* A bool index stands for the coordinates of what is true in it, one index for each of its dims. */
static int spell_out(kn_scope *s, kn_tensor *const *in, int n, kn_tensor **index) {
  int k = 0;
  for (int i = 0; i < n; i++) {
    int wide = kn_tensor_dtype(in[i]) == KN_BOOL ? in[i]->type.rank : 1;
    if (k + wide > KN_MAX_RANK) return KN_MAX_RANK + 1;
    kn_tensor *at = kn_tensor_dtype(in[i]) == KN_BOOL ? kx_nonzero(s, in[i]) : NULL;
    for (int d = 0; d < wide; d++) index[k++] = at ? kx_select(s, at, 1, d) : in[i];
  }
  return s->status == KN_OK ? k : 0;
}

/* x, values, index 1 … k: values, broadcast, put (or added) where the indices point. */
static kn_tensor *index_put(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_index_put *a) {
  kn_tensor *x = in[0], *values = in[1], *index[KN_MAX_RANK];
  int k = spell_out(s, in + 2, n - 2, index), rank = x->type.rank;
  if (s->status != KN_OK) return NULL;
  if (k > rank) return kx_refuse(s, KN_ARG, "there are more indices than dims", x, NULL);
  kn_tensor *row = row_of(s, x, index, k);
  if (!row) return NULL;
  kn_ints lines = {1, {-1}}, whole = {1, {-1}}, spread = {0}, many = {1, {-1}};
  kx_put_sizes(s, row, 0, row->type.rank, &spread);
  kx_put_sizes(s, x, k, rank, &spread);
  kx_put_sizes(s, x, k, rank, &whole);
  kx_put_sizes(s, x, k, rank, &many);
  if (s->status != KN_OK) return NULL;
  int64_t rows = 1, puts = kn_tensor_numel(row);
  for (int i = 0; i < k; i++) rows = kn_dim_known(x->type.dims[i]) && rows >= 0 ? rows * x->type.dims[i] : -1;
  whole.v[0] = rows;
  if (puts >= 0) many.v[0] = puts;
  kn_tensor *flat = kx_reshape(s, x, &whole), *list = kx_reshape(s, row, &lines);
  kn_tensor *src = kx_expand(s, kx_cast(s, values, kn_tensor_dtype(x)), &spread);
  kn_attrs_axis first = {.dim = 0};
  kn_tensor *parts[] = {flat, list, src ? kx_reshape(s, src, &many) : NULL};
  kn_tensor *all = kx_apply(s, a->accumulate ? KN_OP_index_add : KN_OP_index_copy, &first, parts, 3);
  return all ? kx_reshape_as(s, all, x) : NULL;
}
EXPRESSION(index_put, index_put(s, in, n, attrs))
