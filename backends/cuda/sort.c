/* sort, unique and searchsorted, in the order of core/kernels/sort.c: nan is larger than all numbers, equal
 * elements keep their order. Elements become whole numbers that stand in that order (order.h). */
#include "backends/cuda/entries.h"
#include "backends/cuda/order.h"
#include "backends/cuda/flags.h"
#include "core/kernels/kernel.h"

/* Row r begins at coordinates of dims in x, its elements lie `apart`. */
CU_ARGUMENT(sorting, {
  ordering o;
  const void *x;
  i64 dims[8];
  i64 sx[8];
  i64 apart;
  i64 inner;
  i32 rank;
  i32 falls;
  void *values;
  i64 *positions;
});

/* RANK(x): an element's place in the order. */
static const char rank_whole[] = "#define RANK(x) ((K)(x) ^ (K)1 << (8 * sizeof(K) - 1))\n";
/* clang-format off */
static const char rank_float[] = CU_SOURCE(DEVICE u32 rank_of(float x) {
  u32 b = bits_f32(x == 0 ? 0.0f : x);
  return x != x ? 0xffffffffu : b >> 31 ? ~b : b | 0x80000000u;
}) "#define RANK(x) rank_of(GET(x))\n";
static const char rank_double[] = CU_SOURCE(DEVICE u64 rank_of(double x) {
  u64 b = bits_f64(x == 0 ? 0.0 : x);
  return x != x ? ~(u64)0 : b >> 63 ? ~b : b | (u64)1 << 63;
}) "#define RANK(x) rank_of(x)\n";
/* clang-format on */

/* clang-format off */
static const char sort_source[] = "typedef sorting Q;\n" CU_SOURCE(
    DEVICE i64 row_of(const sorting *q, i64 row) {
      i64 at = 0;
      for (i32 k = q->rank - 1; k >= 0; k--) {
        at += row % q->dims[k] * q->sx[k];
        row /= q->dims[k];
      }
      return at;
    }
    DEVICE K key_at(const sorting *q, i64 row, i64 i) {
      K key = RANK(((const E *)q->x)[row_of(q, row) + i * q->apart]);
      return q->falls ? (K)~key : key;
    });
/* clang-format on */

/* clang-format off */
static const char write_source[] = CU_SOURCE(KERNEL(256, sorted)(sorting q) {
  EACH(n, q.o.rows * q.o.length) {
    i64 row = n / (q.o.length * q.inner) * q.inner + n % q.inner, i = n / q.inner % q.o.length;
    u32 from = q.o.places[row * q.o.length + i];
    ((E *)q.values)[n] = ((const E *)q.x)[row_of(&q, row) + from * q.apart];
    q.positions[n] = (i64)from + 1;
  }
});
/* clang-format on */

static bool is_long(kn_dtype d) { return kn_dtype_size(d) == 8; }
static const char *key_type(kn_dtype d) { return is_long(d) ? "typedef u64 K;\n" : "typedef u32 K;\n"; }
static const char *rank_text(kn_dtype d) {
  return !kn_dtype_is_float(d) ? rank_whole : is_long(d) ? rank_double : rank_float;
}

CU_ENTRY(sort) {
  const kn_attrs_sort *a = attrs;
  const kn_tensor *x = in[0];
  kn_dtype dtype = kn_tensor_dtype(x);
  int rank = x->type.rank, dim = kk_axis(a->dim, rank);
  sorting q = {
      .x = kn_tensor_data(x), .apart = rank ? x->strides[dim] : 1, .inner = 1, .falls = a->descending};
  CUdeviceptr room;
  size_t bytes;
  cu_device *d;
  (void)n;
  int64_t count = kn_tensor_numel(x);
  if (count == 0) return KN_OK;
  KN_TRY(cu_device_of(ctx, &d));
  for (int k = 0; k < rank; k++) {
    if (k != dim) q.dims[q.rank] = x->type.dims[k], q.sx[q.rank++] = x->strides[k];
    if (k > dim) q.inner *= x->type.dims[k];
  }
  q.o.length = rank ? x->type.dims[dim] : 1, q.o.rows = count / q.o.length;
  q.values = kn_tensor_data(out[0]), q.positions = kn_tensor_data(out[1]);
  const cu_program p = {"sort",
                        {ordering_text, sorting_text, key_type(dtype), rank_text(dtype), sort_source,
                         cu_order_source, write_source},
                        .elements = CU_OF_DTYPE,
                        .dtype = dtype};
  KN_TRY(cu_order(ctx, d, &p, is_long(dtype) ? 8 : 4, &q.o, &q, &room, &bytes));
  kn_status st = cu_start(ctx, d, &p, "sorted", count, &q);
  cu_free(d, room, bytes);
  return st;
}

/* ---- searchsorted ---- */

CU_ARGUMENT(searching, {
  const void *list;
  const void *x;
  i64 *to;
  i64 count;
  i64 n;
  i64 row;
  i32 shared;
  i32 right;
});

/* clang-format off */
static const char search_source[] = CU_SOURCE(
    DEVICE u32 is_less(T a, T b) { return a < b || (b != b && a == a); }
    KERNEL(256, search)(searching q) {
      EACH(i, q.count) {
        const E *list = (const E *)q.list + (q.shared ? 0 : i / q.row * q.n);
        T x = GET(((const E *)q.x)[i]);
        i64 low = 0, high = q.n;
        while (low < high) {
          i64 mid = low + (high - low) / 2;
          T y = GET(list[mid]);
          if (q.right ? !is_less(x, y) : is_less(y, x))
            low = mid + 1;
          else
            high = mid;
        }
        q.to[i] = low + 1;
      }
    });
/* clang-format on */

CU_ENTRY(searchsorted) {
  const kn_attrs_searchsorted *a = attrs;
  const kn_type *list = &in[0]->type, *x = &in[1]->type;
  searching q = {.list = kn_tensor_data(in[0]),
                 .x = kn_tensor_data(in[1]),
                 .to = kn_tensor_data(out[0]),
                 .count = kn_tensor_numel(out[0]),
                 .n = list->dims[list->rank - 1],
                 .row = x->rank ? x->dims[x->rank - 1] : 1,
                 .shared = list->rank == 1,
                 .right = a->right};
  cu_device *d;
  if (!kn_tensor_contiguous(in[0]) || !kn_tensor_contiguous(in[1]) || list->dtype != x->dtype)
    return KN_DECLINED;
  const cu_program p = {
      "search", {searching_text, search_source}, .elements = CU_OF_DTYPE, .dtype = kn_tensor_dtype(in[0])};
  (void)n;
  KN_TRY(cu_device_of(ctx, &d));
  return cu_start(ctx, d, &p, "search", q.count, &q);
}

/* ---- unique ---- */

/* `flagged` are the firsts of equal keys; starts[k] is where the k-th of them stands in the order. */
CU_ARGUMENT(finding, {
  flags f;
  sorting s;
  u32 *starts;
  i64 found;
  void *values;
  i64 *inverse;
  i64 *counts;
});

/* clang-format off */
static const char find_source[] = "typedef finding F;\n" CU_SOURCE(
    DEVICE u32 is_flagged(const finding *q, i64 i) {
      const K *keys = (const K *)q->s.o.keys;
      if (i == 0 || keys[i] != keys[i - 1]) return 1;
      E x = ((const E *)q->s.x)[q->s.o.places[i]];
      return GET(x) != GET(x);
    }
    DEVICE void take(const finding *q, i64 i, i64 k, u32 flagged) {
      u32 from = q->s.o.places[i];
      q->inverse[from] = k + flagged;
      if (flagged) {
        ((E *)q->values)[k] = ((const E *)q->s.x)[from];
        q->starts[k] = (u32)i;
      }
    });
static const char count_source[] = CU_SOURCE(KERNEL(256, counted)(finding q) {
  EACH(k, q.found) {
    i64 end = k + 1 < q.found ? (i64)q.starts[k + 1] : q.f.count;
    q.counts[k] = end - (i64)q.starts[k];
  }
});
/* clang-format on */

static kn_status allocate(kn_context *ctx, kn_tensor *out, int64_t n) {
  kn_type type = out->type;
  if (n >= 0) type.dims[0] = n;
  return kn_tensor_allocate(ctx, out, &type);
}

static kn_status write_unique(kn_context *ctx, cu_device *d, const cu_program *p, finding *q,
                              kn_tensor *const *out) {
  CUdeviceptr starts;
  size_t bytes = (size_t)q->found * sizeof(u32);
  KN_TRY(allocate(ctx, out[0], q->found));
  KN_TRY(allocate(ctx, out[1], -1));
  KN_TRY(allocate(ctx, out[2], q->found));
  q->values = kn_tensor_data(out[0]), q->inverse = kn_tensor_data(out[1]), q->counts = kn_tensor_data(out[2]);
  KN_TRY(cu_workspace(ctx, d, bytes, &starts));
  q->starts = (u32 *)(uintptr_t)starts;
  kn_status st = cu_flags_take(ctx, d, p, &q->f, q);
  if (st == KN_OK) st = cu_start(ctx, d, p, "counted", q->found, q);
  cu_free(d, starts, bytes);
  return st;
}

CU_ENTRY(unique) {
  kn_dtype dtype = kn_tensor_dtype(in[0]);
  finding q = {.s = {.x = kn_tensor_data(in[0]), .apart = 1, .inner = 1}};
  CUdeviceptr room, sums;
  size_t bytes, sum_bytes;
  cu_device *d;
  (void)attrs, (void)n;
  KN_TRY(cu_device_of(ctx, &d));
  q.f.count = kn_tensor_numel(in[0]);
  if (cu_captures(ctx, d) || !kn_tensor_contiguous(in[0]) || q.f.count == 0) return KN_DECLINED;
  q.s.o.rows = 1, q.s.o.length = q.f.count;
  const cu_program order = {
      "unique_order",
      {ordering_text, sorting_text, key_type(dtype), rank_text(dtype), sort_source, cu_order_source},
      .elements = CU_OF_DTYPE,
      .dtype = dtype};
  const cu_program p = {"unique",
                        {ordering_text, sorting_text, flags_text, finding_text, key_type(dtype), find_source,
                         cu_flags_source, count_source},
                        .elements = CU_OF_DTYPE,
                        .dtype = dtype};
  KN_TRY(cu_order(ctx, d, &order, is_long(dtype) ? 8 : 4, &q.s.o, &q.s, &room, &bytes));
  kn_status st = cu_flags_count(ctx, d, &p, &q.f, &q, &q.found, &sums, &sum_bytes);
  if (st == KN_OK) {
    st = write_unique(ctx, d, &p, &q, out);
    cu_free(d, sums, sum_bytes);
  }
  cu_free(d, room, bytes);
  return st;
}
