/* Kernels that pick and place elements by index. Indices are 1-based and all are checked before anything is
 * read or written by them. Adding at indices is one thread's work: the same place may come twice. */
#include "core/kernels/kernel.h"

/* Every index lies in 1 … size. `dim` is 0-based. */
static kn_status check(kn_context *ctx, kn_op op, const kn_tensor *index, int dim, int64_t size) {
  const int64_t *v = kn_tensor_data(index);
  for (int64_t i = 0, count = kn_tensor_numel(index); i < count; i++)
    if (v[i] < 1 || v[i] > size)
      return kn_fail(ctx, KN_INDEX,
                     "%s: index %lld is out of range for dim %d of size %lld (indices start at 1)",
                     kn_op_name(op), (long long)v[i], dim + 1, (long long)size);
  return KN_OK;
}

/* The inputs contiguous and the index (input 1) int64 and checked. On failure none is owed. */
static kn_status prepare(kn_context *ctx, kn_op op, int64_t axis, kn_tensor *const *in, int n,
                         kn_tensor **as) {
  KN_TRY(kk_contiguous_all(ctx, in, n, as));
  int dim = kk_axis(axis, in[0]->type.rank);
  kn_tensor *given = as[1];
  kn_status st = kk_cast(ctx, given, KN_I64, &as[1]);
  if (st == KN_OK)
    kn_tensor_release(given);
  else
    as[1] = given;
  if (st == KN_OK) st = check(ctx, op, as[1], dim, in[0]->type.rank ? in[0]->type.dims[dim] : 1);
  if (st != KN_OK) kk_release_all(as, n);
  return st;
}

static void start_from(kn_context *ctx, kn_tensor *out, const kn_tensor *x) {
  kk_view to = kk_view_of(out), from = kk_view_of(x);
  kk_copy(ctx, &to, &from);
}

/* Adding by dtype; bool adds as or. */
static uint8_t add_BOOL(uint8_t a, uint8_t b) { return a | b; }
static int64_t add_I64(int64_t a, int64_t b) { return kk_wrap_add(a, b); }
static float add_F32(float a, float b) { return a + b; }
static double add_F64(double a, double b) { return a + b; }

/* ---- gather, scatter_add: an index for each element ---- */

/* Elements of the index, in order, and where each points: `place` is the element of a tensor with strides
 * `strides`, at the index's own coordinates but for `dim`, where the index decides. */
typedef struct points {
  const int64_t *index;
  int rank, dim;
  int64_t dims[KN_MAX_RANK],
      strides[KN_MAX_RANK]; /* of the index; of the tensor pointed into, dim's set to 0 */
  int64_t apart;            /* the stride of dim */
  const char *from;
  char *to;
} points;

static points points_of(const kn_tensor *index, const kn_tensor *x, int64_t axis) {
  points p = {.index = kn_tensor_data(index),
              .rank = index->type.rank,
              .dim = kk_axis(axis, x->type.rank),
              .apart = 1};
  for (int d = 0; d < p.rank; d++) {
    p.dims[d] = index->type.dims[d];
    p.strides[d] = x->strides[d];
  }
  if (p.rank) {
    p.apart = p.strides[p.dim];
    p.strides[p.dim] = 0;
  }
  return p;
}

static int64_t place(const points *p, const int64_t *strides, int64_t i) {
  int64_t at = 0;
  for (int64_t d = p->rank - 1, rest = i; d >= 0; d--) {
    at += rest % p->dims[d] * strides[d];
    rest /= p->dims[d];
  }
  return at;
}

/* Elements of SIZE bytes, whatever they are. */
#define GATHER(SIZE)                                                                                         \
  static void gather_##SIZE(void *ud, int64_t begin, int64_t end) {                                          \
    const points *p = ud;                                                                                    \
    for (int64_t i = begin; i < end; i++)                                                                    \
      memcpy(p->to + i * SIZE, p->from + (place(p, p->strides, i) + (p->index[i] - 1) * p->apart) * SIZE,    \
             SIZE);                                                                                          \
  }
GATHER(1)
GATHER(2)
GATHER(4)
GATHER(8)

KERNEL(gather) {
  static void (*const fns[9])(void *, int64_t,
                              int64_t) = {[1] = gather_1, [2] = gather_2, [4] = gather_4, [8] = gather_8};
  const kn_attrs_axis *a = attrs;
  kn_tensor *as[2];
  KN_TRY(prepare(ctx, KN_OP_gather, a->dim, in, n, as));
  points p = points_of(as[1], as[0], a->dim);
  p.from = kn_tensor_data(as[0]);
  p.to = kn_tensor_data(out[0]);
  kn_parallel_for(ctx, kn_tensor_numel(out[0]), KK_GRAIN / 4, fns[kn_dtype_size(kn_tensor_dtype(out[0]))],
                  &p);
  kk_release_all(as, n);
  return KN_OK;
}

#define SCATTER(T, E)                                                                                        \
  static void scatter_##E(const points *p, const int64_t *src_strides, int64_t count) {                      \
    for (int64_t i = 0; i < count; i++) {                                                                    \
      T *to = (T *)p->to + place(p, p->strides, i) + (p->index[i] - 1) * p->apart;                           \
      *to = add_##E(*to, ((const T *)p->from)[place(p, src_strides, i)]);                                    \
    }                                                                                                        \
  }
KK_TYPES(SCATTER)
#define SCATTER_ROW(T, E) [KN_##E] = scatter_##E,

WIDE_KERNEL(scatter_add) { /* x, index, src */
  static void (*const fns[KN_DTYPE_COUNT])(const points *, const int64_t *,
                                           int64_t) = {KK_TYPES(SCATTER_ROW)};
  const kn_attrs_axis *a = attrs;
  kn_tensor *as[3];
  KN_TRY(prepare(ctx, KN_OP_scatter_add, a->dim, in, n, as));
  points p = points_of(as[1], out[0], a->dim);
  start_from(ctx, out[0], as[0]);
  p.from = kn_tensor_data(as[2]);
  p.to = kn_tensor_data(out[0]);
  fns[kn_tensor_dtype(out[0])](&p, as[2]->strides, kn_tensor_numel(as[1]));
  kk_release_all(as, n);
  return KN_OK;
}

/* Of both, by what is asked for; nan is the largest and the smallest. */
static uint8_t times_BOOL(uint8_t a, uint8_t b) { return a & b; }
static int64_t times_I64(int64_t a, int64_t b) { return kk_wrap_mul(a, b); }
static float times_F32(float a, float b) { return a * b; }
static double times_F64(double a, double b) { return a * b; }

#define FOLD(T, E)                                                                                           \
  static T fold_two_##E(int32_t how, T a, T b) {                                                             \
    if (how == KN_CHOICE_fold_prod) return times_##E(a, b);                                                  \
    if (a != a || b != b) return a != a ? a : b;                                                             \
    return (how == KN_CHOICE_fold_amax) == (a < b) ? b : a;                                                  \
  }                                                                                                          \
  static void fold_##E(const points *p, const int64_t *src_strides, int64_t count, int32_t how) {            \
    for (int64_t i = 0; i < count; i++) {                                                                    \
      T *to = (T *)p->to + place(p, p->strides, i) + (p->index[i] - 1) * p->apart;                           \
      *to = fold_two_##E(how, *to, ((const T *)p->from)[place(p, src_strides, i)]);                          \
    }                                                                                                        \
  }
KK_TYPES(FOLD)
#define FOLD_ROW(T, E) [KN_##E] = fold_##E,

WIDE_KERNEL(scatter_fold) { /* x, index, src */
  static void (*const fns[KN_DTYPE_COUNT])(const points *, const int64_t *, int64_t,
                                           int32_t) = {KK_TYPES(FOLD_ROW)};
  const kn_attrs_scatter_fold *a = attrs;
  kn_tensor *as[3];
  KN_TRY(prepare(ctx, KN_OP_scatter_fold, a->dim, in, n, as));
  points p = points_of(as[1], out[0], a->dim);
  start_from(ctx, out[0], as[0]);
  p.from = kn_tensor_data(as[2]);
  p.to = kn_tensor_data(out[0]);
  fns[kn_tensor_dtype(out[0])](&p, as[2]->strides, kn_tensor_numel(as[1]), a->reduce);
  kk_release_all(as, n);
  return KN_OK;
}

/* Elements of SIZE bytes, whatever they are. */
#define PUT(SIZE)                                                                                            \
  static void put_##SIZE(const points *p, const int64_t *src_strides, int64_t count) {                       \
    for (int64_t i = 0; i < count; i++)                                                                      \
      memcpy(p->to + (place(p, p->strides, i) + (p->index[i] - 1) * p->apart) * SIZE,                        \
             p->from + place(p, src_strides, i) * SIZE, SIZE);                                               \
  }
PUT(1)
PUT(2)
PUT(4)
PUT(8)

KERNEL(scatter) { /* x, index, src */
  static void (*const fns[9])(const points *, const int64_t *,
                              int64_t) = {[1] = put_1, [2] = put_2, [4] = put_4, [8] = put_8};
  const kn_attrs_axis *a = attrs;
  kn_tensor *as[3];
  KN_TRY(prepare(ctx, KN_OP_scatter, a->dim, in, n, as));
  points p = points_of(as[1], out[0], a->dim);
  start_from(ctx, out[0], as[0]);
  p.from = kn_tensor_data(as[2]);
  p.to = kn_tensor_data(out[0]);
  fns[kn_dtype_size(kn_tensor_dtype(out[0]))](&p, as[2]->strides, kn_tensor_numel(as[1]));
  kk_release_all(as, n);
  return KN_OK;
}

/* ---- index_select, index_add, index_copy: a list of positions along a dim ---- */

/* A contiguous tensor as [outer, size, inner]. */
typedef struct slab {
  int64_t outer, size, inner;
} slab;

static slab slab_of(const kn_tensor *t, int64_t axis) {
  int dim = kk_axis(axis, t->type.rank);
  slab s = {1, t->type.dims[dim], 1};
  for (int d = 0; d < dim; d++) s.outer *= t->type.dims[d];
  for (int d = dim + 1; d < t->type.rank; d++) s.inner *= t->type.dims[d];
  return s;
}

KERNEL(index_select) {
  const kn_attrs_axis *a = attrs;
  kn_tensor *as[2];
  KN_TRY(prepare(ctx, KN_OP_index_select, a->dim, in, n, as));
  slab s = slab_of(as[0], a->dim);
  const int64_t *index = kn_tensor_data(as[1]), count = as[1]->type.dims[0];
  int64_t run = s.inner * (int64_t)kn_dtype_size(kn_tensor_dtype(out[0]));
  const char *from = kn_tensor_data(as[0]);
  char *to = kn_tensor_data(out[0]);
  if (run)
    for (int64_t o = 0; o < s.outer; o++)
      for (int64_t k = 0; k < count; k++, to += run)
        memcpy(to, from + (o * s.size + index[k] - 1) * run, (size_t)run);
  kk_release_all(as, n);
  return KN_OK;
}

/* out[o, index[k], :] += src[o, k, :] */
#define INDEX_ADD(T, E)                                                                                      \
  static void index_add_##E(slab s, const int64_t *index, int64_t count, const void *src, void *out) {       \
    const T *from = src;                                                                                     \
    for (int64_t o = 0; o < s.outer; o++)                                                                    \
      for (int64_t k = 0; k < count; k++) {                                                                  \
        T *to = (T *)out + (o * s.size + index[k] - 1) * s.inner;                                            \
        for (int64_t i = 0; i < s.inner; i++, from++) to[i] = add_##E(to[i], *from);                         \
      }                                                                                                      \
  }
KK_TYPES(INDEX_ADD)
#define INDEX_ADD_ROW(T, E) [KN_##E] = index_add_##E,

WIDE_KERNEL(index_add) { /* x, index, src */
  static void (*const fns[KN_DTYPE_COUNT])(slab, const int64_t *, int64_t, const void *,
                                           void *) = {KK_TYPES(INDEX_ADD_ROW)};
  const kn_attrs_axis *a = attrs;
  kn_tensor *as[3];
  KN_TRY(prepare(ctx, KN_OP_index_add, a->dim, in, n, as));
  start_from(ctx, out[0], as[0]);
  fns[kn_tensor_dtype(out[0])](slab_of(out[0], a->dim), kn_tensor_data(as[1]), as[1]->type.dims[0],
                               kn_tensor_data(as[2]), kn_tensor_data(out[0]));
  kk_release_all(as, n);
  return KN_OK;
}

/* At equal indices the last stays. */
KERNEL(index_copy) { /* x, index, src */
  const kn_attrs_axis *a = attrs;
  kn_tensor *as[3];
  KN_TRY(prepare(ctx, KN_OP_index_copy, a->dim, in, n, as));
  start_from(ctx, out[0], as[0]);
  slab s = slab_of(out[0], a->dim);
  const int64_t *index = kn_tensor_data(as[1]), count = as[1]->type.dims[0];
  int64_t run = s.inner * (int64_t)kn_dtype_size(kn_tensor_dtype(out[0]));
  const char *from = kn_tensor_data(as[2]);
  char *to = kn_tensor_data(out[0]);
  if (run)
    for (int64_t o = 0; o < s.outer; o++)
      for (int64_t k = 0; k < count; k++, from += run)
        memcpy(to + (o * s.size + index[k] - 1) * run, from, (size_t)run);
  kk_release_all(as, n);
  return KN_OK;
}

/* ---- nonzero ---- */

KERNEL(nonzero) {
  (void)attrs, (void)n;
  kn_tensor *x, *set;
  KN_TRY(kk_contiguous(ctx, in[0], &x));
  kn_status st = kk_cast(ctx, x, KN_BOOL, &set);
  kn_tensor_release(x);
  KN_TRY(st);
  const uint8_t *is_set = kn_tensor_data(set);
  int64_t count = kn_tensor_numel(set), found = 0;
  int rank = set->type.rank;
  for (int64_t i = 0; i < count; i++) found += is_set[i];
  kn_type type = out[0]->type;
  type.dims[0] = found;
  st = kn_tensor_allocate(ctx, out[0], &type);
  if (st == KN_OK) {
    int64_t *to = kn_tensor_data(out[0]);
    for (int64_t i = 0; i < count; i++) {
      if (!is_set[i]) continue;
      for (int64_t d = rank - 1, rest = i; d >= 0; d--) {
        to[d] = rest % set->type.dims[d] + 1;
        rest /= set->type.dims[d];
      }
      to += rank;
    }
  }
  kn_tensor_release(set);
  return st;
}
