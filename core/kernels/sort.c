/* Order: sort, unique, searchsorted, and counting. nan is larger than all numbers; equal elements keep their
 * order. */
#include "core/kernels/kernel.h"

/* nan only ever among floats, so asked of the element as a double. */
#define IS_NAN(x) ((double)(x) != (double)(x))
#define LESS(T, E)                                                                                           \
  static bool less_##E(T a, T b) { return a < b || (IS_NAN(b) && !IS_NAN(a)); }
KK_TYPES(LESS)

/* ---- merge sort of positions ---- */

/* at[0 … n) are positions in v; tmp has room for as many. */
#define SORT(T, E)                                                                                           \
  static void sort_##E(const void *values, int64_t n, bool descending, int64_t *at, int64_t *tmp) {          \
    const T *v = values;                                                                                     \
    int64_t *from = at, *to = tmp;                                                                           \
    for (int64_t i = 0; i < n; i++) at[i] = i;                                                               \
    for (int64_t run = 1; run < n; run *= 2) {                                                               \
      for (int64_t lo = 0; lo < n; lo += 2 * run) {                                                          \
        int64_t mid = lo + run < n ? lo + run : n, hi = mid + run < n ? mid + run : n;                       \
        int64_t a = lo, b = mid;                                                                             \
        for (int64_t k = lo; k < hi; k++) {                                                                  \
          bool second = a >= mid || (b < hi && (descending ? less_##E(v[from[a]], v[from[b]])                \
                                                           : less_##E(v[from[b]], v[from[a]])));             \
          to[k] = second ? from[b++] : from[a++];                                                            \
        }                                                                                                    \
      }                                                                                                      \
      int64_t *swap = from;                                                                                  \
      from = to, to = swap;                                                                                  \
    }                                                                                                        \
    if (from != at) memcpy(at, from, (size_t)n * sizeof *at);                                                \
  }
KK_TYPES(SORT)
#define SORT_ROW(T, E) [KN_##E] = sort_##E,
typedef void (*sort_fn)(const void *, int64_t, bool, int64_t *, int64_t *);
static const sort_fn sorts[KN_DTYPE_COUNT] = {KK_TYPES(SORT_ROW)};

/* Room for n elements and twice n positions. */
typedef struct scratch {
  kn_tensor *row, *places;
} scratch;

static kn_status scratch_new(kn_context *ctx, kn_dtype dtype, int64_t n, scratch *s) {
  kn_type row = {.dtype = (uint8_t)dtype, .rank = 1, .dims = {n}},
          places = {.dtype = KN_I64, .rank = 2, .dims = {2, n}};
  KN_TRY(kn_tensor_new(ctx, &row, &s->row));
  kn_status st = kn_tensor_new(ctx, &places, &s->places);
  if (st != KN_OK) kn_tensor_release(s->row);
  return st;
}

static void scratch_free(scratch *s) {
  kn_tensor_release(s->row);
  kn_tensor_release(s->places);
}

/* Element copies by size, for rows whose elements lie `inner` apart. */
static void copy_row(char *to, int64_t to_apart, const char *from, int64_t from_apart, int64_t n,
                     size_t size) {
  if (to_apart == 1 && from_apart == 1) {
    memcpy(to, from, (size_t)n * size);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    memcpy(to + i * to_apart * (int64_t)size, from + i * from_apart * (int64_t)size, size);
}

WIDE_KERNEL(sort) {
  const kn_attrs_sort *a = attrs;
  kn_dtype dtype = kn_tensor_dtype(in[0]);
  int rank = in[0]->type.rank, dim = kk_axis(a->dim, rank);
  int64_t count = kn_tensor_numel(in[0]), length = rank ? in[0]->type.dims[dim] : 1, inner = 1;
  size_t size = kn_dtype_size(dtype);
  kn_tensor *x;
  scratch s;
  (void)n;
  if (count == 0) return KN_OK;
  for (int d = dim + 1; d < rank; d++) inner *= in[0]->type.dims[d];
  KN_TRY(kk_contiguous(ctx, in[0], &x));
  kn_status st = scratch_new(ctx, dtype, length, &s);
  if (st == KN_OK) {
    char *row = kn_tensor_data(s.row);
    int64_t *at = kn_tensor_data(s.places);
    for (int64_t r = 0; r < count / length; r++) {
      int64_t first = r / inner * length * inner + r % inner;
      copy_row(row, 1, (const char *)kn_tensor_data(x) + first * (int64_t)size, inner, length, size);
      sorts[dtype](row, length, a->descending, at, at + length);
      char *values = (char *)kn_tensor_data(out[0]) + first * (int64_t)size;
      int64_t *places = (int64_t *)kn_tensor_data(out[1]) + first;
      for (int64_t i = 0; i < length; i++) {
        memcpy(values + i * inner * (int64_t)size, row + at[i] * (int64_t)size, size);
        places[i * inner] = at[i] + 1;
      }
    }
    scratch_free(&s);
  }
  kn_tensor_release(x);
  return st;
}

/* ---- unique ---- */

#define SAME(T, E)                                                                                           \
  static bool same_##E(const void *values, int64_t a, int64_t b) {                                           \
    const T *v = values;                                                                                     \
    return !(v[a] < v[b]) && !(v[b] < v[a]) && !IS_NAN(v[a]) && !IS_NAN(v[b]);                               \
  }
KK_TYPES(SAME)
#define SAME_ROW(T, E) [KN_##E] = same_##E,
static bool (*const sames[KN_DTYPE_COUNT])(const void *, int64_t, int64_t) = {KK_TYPES(SAME_ROW)};

static kn_status allocate(kn_context *ctx, kn_tensor *out, int64_t n) {
  kn_type type = out->type;
  if (n >= 0) type.dims[0] = n;
  return kn_tensor_allocate(ctx, out, &type);
}

/* at: the positions of x's elements in order. */
static kn_status write_unique(kn_context *ctx, const kn_tensor *x, const int64_t *at, kn_tensor *const *out) {
  kn_dtype dtype = kn_tensor_dtype(x);
  int64_t count = kn_tensor_numel(x), found = 0;
  size_t size = kn_dtype_size(dtype);
  const char *v = kn_tensor_data(x);
  for (int64_t i = 0; i < count; i++) found += i == 0 || !sames[dtype](v, at[i - 1], at[i]);
  KN_TRY(allocate(ctx, out[0], found));
  KN_TRY(allocate(ctx, out[1], -1));
  KN_TRY(allocate(ctx, out[2], found));
  char *values = kn_tensor_data(out[0]);
  int64_t *inverse = kn_tensor_data(out[1]), *counts = kn_tensor_data(out[2]);
  for (int64_t i = 0, k = -1; i < count; i++) {
    if (i == 0 || !sames[dtype](v, at[i - 1], at[i])) {
      memcpy(values + ++k * (int64_t)size, v + at[i] * (int64_t)size, size);
      counts[k] = 0;
    }
    counts[k]++;
    inverse[at[i]] = k + 1;
  }
  return KN_OK;
}

WIDE_KERNEL(unique) {
  kn_tensor *x;
  scratch s;
  (void)attrs, (void)n;
  KN_TRY(kk_contiguous(ctx, in[0], &x));
  kn_status st = scratch_new(ctx, kn_tensor_dtype(x), kn_tensor_numel(x), &s);
  if (st == KN_OK) {
    int64_t *at = kn_tensor_data(s.places), count = kn_tensor_numel(x);
    sorts[kn_tensor_dtype(x)](kn_tensor_data(x), count, false, at, at + count);
    st = write_unique(ctx, x, at, out);
    scratch_free(&s);
  }
  kn_tensor_release(x);
  return st;
}

/* ---- searchsorted ---- */

typedef struct search {
  const void *list, *x;
  int64_t *to;
  int64_t n, row; /* length of a list; elements of x for each list */
  bool shared, right;
} search;

#define SEARCH(T, E)                                                                                         \
  static void search_##E(void *ud, int64_t begin, int64_t end) {                                             \
    const search *q = ud;                                                                                    \
    for (int64_t i = begin; i < end; i++) {                                                                  \
      const T *list = (const T *)q->list + (q->shared ? 0 : i / q->row * q->n), x = ((const T *)q->x)[i];    \
      int64_t low = 0, high = q->n;                                                                          \
      while (low < high) {                                                                                   \
        int64_t mid = low + (high - low) / 2;                                                                \
        bool before = q->right ? !less_##E(x, list[mid]) : less_##E(list[mid], x);                           \
        if (before)                                                                                          \
          low = mid + 1;                                                                                     \
        else                                                                                                 \
          high = mid;                                                                                        \
      }                                                                                                      \
      q->to[i] = low + 1;                                                                                    \
    }                                                                                                        \
  }
KK_TYPES(SEARCH)
#define SEARCH_ROW(T, E) [KN_##E] = search_##E,

WIDE_KERNEL(searchsorted) {
  static void (*const fns[KN_DTYPE_COUNT])(void *, int64_t, int64_t) = {KK_TYPES(SEARCH_ROW)};
  const kn_attrs_searchsorted *a = attrs;
  kk_dense as;
  KN_TRY(kk_dense_all(ctx, in, n, &as));
  const kn_type *list = &in[0]->type, *x = &in[1]->type;
  search q = {.list = as.data[0],
              .x = as.data[1],
              .to = kn_tensor_data(out[0]),
              .n = list->dims[list->rank - 1],
              .row = x->rank ? x->dims[x->rank - 1] : 1,
              .shared = list->rank == 1,
              .right = a->right};
  kn_parallel_for(ctx, kn_tensor_numel(out[0]), KK_GRAIN / 16, fns[kn_tensor_dtype(in[0])], &q);
  kk_dense_give(ctx, &as);
  return KN_OK;
}

/* ---- bincount ---- */

#define COUNT(T, E)                                                                                          \
  static void count_##E(const int64_t *x, const void *weights, int64_t n, void *out) {                       \
    for (int64_t i = 0; i < n; i++) ((T *)out)[x[i] - 1] += weights ? ((const T *)weights)[i] : (T)1;        \
  }
KK_FLOATS(COUNT)
COUNT(int64_t, I64)
#define COUNT_ROW(T, E) [KN_##E] = count_##E,

WIDE_KERNEL(bincount) {
  static void (*const fns[KN_DTYPE_COUNT])(const int64_t *, const void *, int64_t,
                                           void *) = {KK_FLOATS(COUNT_ROW)[KN_I64] = count_I64};
  const kn_attrs_bincount *a = attrs;
  kk_dense as;
  KN_TRY(kk_dense_all(ctx, in, n, &as));
  const int64_t *x = as.data[0];
  int64_t count = kn_tensor_numel(in[0]), most = a->minlength;
  kn_status st = KN_OK;
  for (int64_t i = 0; i < count && st == KN_OK; i++) {
    if (x[i] < 1 || x[i] > INT32_MAX)
      st = kn_fail(ctx, KN_INDEX, "bincount: %lld cannot be counted: values start at 1", (long long)x[i]);
    most = x[i] > most ? x[i] : most;
  }
  if (st == KN_OK) st = allocate(ctx, out[0], most);
  if (st == KN_OK) {
    kk_zero(ctx, out[0]);
    fns[kn_tensor_dtype(out[0])](x, n > 1 ? as.data[1] : NULL, count, kn_tensor_data(out[0]));
  }
  kk_dense_give(ctx, &as);
  return st;
}
