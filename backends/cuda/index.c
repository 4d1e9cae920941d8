/* Picking and placing elements by index, as core/kernels/index.c has it: indices from 1; one out of range is
 * noted (fault.h) and neither read nor written by. Where several elements go to one place their order is that
 * of the CPU, always: they are brought in order by place (order.h), and one thread takes those of a place,
 * the last one or their sum in the order of the source. */
#include "backends/cuda/entries.h"
#include "backends/cuda/fault.h"
#include "backends/cuda/flags.h"
#include "backends/cuda/order.h"
#include "core/kernels/kernel.h"

/* ---- picking: gather, index_select ---- */

/* Elements of the result lie at coordinates of dims; sx and si are the strides of x and of the index there,
 * x's being 0 at the dim where the index decides, which is `apart`. */
CU_ARGUMENT(picking, {
  const void *x;
  const void *index;
  void *to;
  i64 count;
  i64 apart;
  i64 size;
  i64 dims[8];
  i64 sx[8];
  i64 si[8];
  i32 rank;
  cu_site site;
});

/* clang-format off */
static const char pick_source[] = CU_SOURCE(KERNEL(256, pick)(picking q) {
  const E *x = (const E *)q.x;
  const I *index = (const I *)q.index;
  E *to = (E *)q.to;
  EACH(i, q.count) {
    i64 at = 0, by = 0;
    EACH_DIM(k, c, i, q.rank, q.dims) {
      at += (i64)c * q.sx[k];
      by += (i64)c * q.si[k];
    }
    i64 picked = (i64)index[by];
    if (picked < 1 || picked > q.size)
      note_fault(q.site, (u64)i, picked);
    else
      to[i] = x[at + (picked - 1) * q.apart];
  }
});
/* clang-format on */

/* Several elements at once, where they lie side by side and are all picked by one index. */
static size_t widen(picking *q, size_t size) {
  int last = q->rank - 1;
  if (last < 0 || q->sx[last] != 1 || q->si[last] != 0) return size;
  for (; size < 8; size *= 2) {
    bool even = (((uintptr_t)q->x | (uintptr_t)q->to) & (2 * size - 1)) == 0 && q->dims[last] % 2 == 0 &&
                q->apart % 2 == 0;
    for (int k = 0; k < last; k++) even &= q->sx[k] % 2 == 0;
    if (!even) break;
    for (int k = 0; k < last; k++) q->sx[k] /= 2;
    q->dims[last] /= 2, q->apart /= 2, q->count /= 2;
  }
  return size;
}

static kn_status pick(kn_context *ctx, kn_op op, int dim, const kn_tensor *x, const kn_tensor *index,
                      picking q, kn_tensor *out) {
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  q.x = kn_tensor_data(x), q.index = kn_tensor_data(index), q.to = kn_tensor_data(out);
  q.count = kn_tensor_numel(out);
  if (q.count == 0) return KN_OK;
  q.rank = out->type.rank;
  for (int k = 0; k < q.rank; k++) {
    q.dims[k] = out->type.dims[k];
    q.sx[k] = k == dim ? 0 : x->strides[k];
  }
  q.size = x->type.rank ? x->type.dims[dim] : 1;
  q.apart = x->type.rank ? x->strides[dim] : 0;
  KN_TRY(cu_site_of(ctx, d, op, CU_FAULT_INDEX, dim, q.size, &q.site));
  q.rank = cu_join_dims(q.rank, q.dims, q.sx, q.si);
  const cu_program p = {"pick",
                        {cu_site_text, cu_fault_source, picking_text, pick_source},
                        .wide = cu_is_wide(q.count),
                        .elements = CU_OF_BYTES,
                        .bytes = widen(&q, kn_dtype_size(kn_tensor_dtype(out))),
                        .index = kn_tensor_dtype(index)};
  return cu_fault_check(ctx, d, &q.site, cu_start(ctx, d, &p, "pick", q.count, &q));
}

CU_ENTRY(gather) {
  picking q = {.rank = 0};
  (void)n;
  for (int k = 0; k < in[1]->type.rank; k++) q.si[k] = in[1]->strides[k];
  return pick(ctx, KN_OP_gather, kk_axis(((const kn_attrs_axis *)attrs)->dim, in[0]->type.rank), in[0], in[1],
              q, out[0]);
}

CU_ENTRY(index_select) {
  int dim = kk_axis(((const kn_attrs_axis *)attrs)->dim, in[0]->type.rank);
  picking q = {.rank = 0};
  (void)n;
  q.si[dim] = in[1]->strides[0];
  return pick(ctx, KN_OP_index_select, dim, in[0], in[1], q, out[0]);
}

/* ---- placing: scatter, scatter_add, scatter_fold, index_add, index_copy ---- */

/* Element i of the index, at coordinates of dims, is about place(st) + (index - 1) apart of the result; the
 * source has it at place(ss). For lists (index_add, index_copy) the index has one dim, and what it says holds
 * for `inner` elements `outer` times. */
CU_ARGUMENT(placing, {
  ordering o;
  const void *index;
  const void *src;
  void *to;
  i64 apart;
  i64 size;
  i64 dims[8];
  i64 st[8];
  i64 si[8];
  i64 ss[8];
  i32 rank;
  i32 how;
  i64 outer;
  i64 inner;
  cu_site site;
});

enum how { PUT_LAST, ADD_ALL, TIMES_ALL, LARGEST, SMALLEST };

/* clang-format off */
static const char place_source[] = "typedef placing Q;\ntypedef pos K;\n" CU_SOURCE(
    DEVICE i64 place_of(const placing *q, const i64 *strides, i64 i) {
      i64 at = 0;
      EACH_DIM(k, c, i, q->rank, q->dims) at += (i64)c * strides[k];
      return at;
    }
    DEVICE K key_at(const placing *q, i64 row, i64 i) {
      i64 picked = (i64)((const I *)q->index)[place_of(q, q->si, i)];
      if (picked >= 1 && picked <= q->size) return (K)(place_of(q, q->st, i) + (picked - 1) * q->apart);
      note_fault(q->site, (u64)i, picked);
      return (K)~(K)0;
    });
/* clang-format on */

/* Two by what is asked for; nan is the largest and the smallest. */
/* clang-format off */
static const char fold_source[] = CU_SOURCE(
    DEVICE T fold_two(i32 how, T a, T b) {
      if (how == 1) return PLUS(a, b);
      if (how == 2) return TIMES(a, b);
      if (a != a || b != b) return a != a ? a : b;
      return (how == 3) == (a < b) ? b : a;
    }
    DEVICE void fold_run(const placing *q, i64 j, E *to, i64 i) {
      const K *keys = (const K *)q->o.keys;
      const E *src = (const E *)q->src;
      K key = keys[j];
      i64 end = j + 1;
      if (q->how == 0) {
        while (end < q->o.length && keys[end] == key) end++;
        *to = src[place_of(q, q->ss, q->o.places[end - 1]) + i];
        return;
      }
      T sum = GET(*to);
      for (end = j; end < q->o.length && keys[end] == key; end++) {
        T x = GET(src[place_of(q, q->ss, q->o.places[end]) + i]);
        sum = fold_two(q->how, sum, x);
      }
      *to = PUT(sum);
    }
    KERNEL(256, fold)(placing q) {
      const K *keys = (const K *)q.o.keys;
      EACH(n, q.o.length * q.outer * q.inner) {
        i64 i = n % q.inner, j = n / q.inner % q.o.length, o = n / q.inner / q.o.length;
        if (keys[j] == (K)~(K)0 || (j > 0 && keys[j - 1] == keys[j])) continue;
        E *to = (E *)q.to + o * q.size * q.inner + (i64)keys[j] * q.inner + i;
        fold_run(&q, j, to, o * q.o.length * q.inner + i);
      }
    });
/* clang-format on */

/* The result starts as x. */
static kn_status start_from(kn_context *ctx, kn_tensor *x, kn_tensor *out) {
  return kn_device_run(ctx, KN_OP_clone, NULL, &x, 1, &out, NULL);
}

/* in: x, index, src */
static kn_status place(kn_context *ctx, kn_op op, enum how how, int dim, placing q, kn_tensor *const *in,
                       kn_tensor *out) {
  kn_dtype dtype = kn_tensor_dtype(out);
  CUdeviceptr room;
  size_t bytes;
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  q.o.rows = 1;
  q.o.length = kn_tensor_numel(in[1]);
  if (q.o.length >= INT32_MAX) return KN_DECLINED;
  KN_TRY(start_from(ctx, in[0], out));
  if (q.o.length == 0) return KN_OK;
  q.index = kn_tensor_data(in[1]), q.src = kn_tensor_data(in[2]), q.to = kn_tensor_data(out);
  q.how = (i32)how;
  q.rank = in[1]->type.rank;
  for (int k = 0; k < q.rank; k++) q.dims[k] = in[1]->type.dims[k], q.si[k] = in[1]->strides[k];
  KN_TRY(cu_site_of(ctx, d, op, CU_FAULT_INDEX, dim, q.size, &q.site));
  const cu_program p = {"place",
                        {cu_site_text, cu_fault_source, ordering_text, placing_text, cu_arithmetic(dtype),
                         place_source, cu_order_source, fold_source},
                        .wide = cu_is_wide(kn_tensor_numel(out)),
                        .elements = CU_OF_DTYPE,
                        .dtype = dtype,
                        .index = kn_tensor_dtype(in[1])};
  kn_status st = cu_order(ctx, d, &p, p.wide ? 8 : 4, &q.o, &q, &room, &bytes);
  if (st == KN_OK) {
    st = cu_start(ctx, d, &p, "fold", q.o.length * q.outer * q.inner, &q);
    cu_free(d, room, bytes);
  }
  return cu_fault_check(ctx, d, &q.site, st);
}

/* An index for each element. */
static kn_status place_each(kn_context *ctx, kn_op op, enum how how, int64_t axis, kn_tensor *const *in,
                            kn_tensor *out) {
  int dim = kk_axis(axis, in[0]->type.rank);
  placing q = {.size = in[0]->type.rank ? in[0]->type.dims[dim] : 1, .outer = 1, .inner = 1, .apart = 1};
  for (int k = 0; k < in[1]->type.rank; k++) {
    q.st[k] = k == dim ? 0 : out->strides[k];
    q.ss[k] = in[2]->strides[k];
  }
  if (in[0]->type.rank) q.apart = out->strides[dim];
  return place(ctx, op, how, dim, q, in, out);
}

CU_ENTRY(scatter) {
  (void)n;
  return place_each(ctx, KN_OP_scatter, PUT_LAST, ((const kn_attrs_axis *)attrs)->dim, in, out[0]);
}

CU_ENTRY(scatter_add) {
  (void)n;
  return place_each(ctx, KN_OP_scatter_add, ADD_ALL, ((const kn_attrs_axis *)attrs)->dim, in, out[0]);
}

CU_ENTRY(scatter_fold) {
  const kn_attrs_scatter_fold *a = attrs;
  (void)n;
  enum how how = a->reduce == KN_CHOICE_fold_prod   ? TIMES_ALL
                 : a->reduce == KN_CHOICE_fold_amax ? LARGEST
                                                    : SMALLEST;
  return place_each(ctx, KN_OP_scatter_fold, how, a->dim, in, out[0]);
}

/* A list of positions along a dim; source and result lie as [outer, K or size, inner]. */
static kn_status place_slices(kn_context *ctx, kn_op op, enum how how, int64_t axis, kn_tensor *const *in,
                              kn_tensor *out) {
  int dim = kk_axis(axis, in[0]->type.rank);
  placing q = {.size = in[0]->type.dims[dim], .outer = 1, .inner = 1, .apart = 1};
  if (!kn_tensor_contiguous(in[2])) return KN_DECLINED;
  for (int k = 0; k < dim; k++) q.outer *= out->type.dims[k];
  for (int k = dim + 1; k < out->type.rank; k++) q.inner *= out->type.dims[k];
  q.ss[0] = q.inner;
  return place(ctx, op, how, dim, q, in, out);
}

CU_ENTRY(index_add) {
  (void)n;
  return place_slices(ctx, KN_OP_index_add, ADD_ALL, ((const kn_attrs_axis *)attrs)->dim, in, out[0]);
}

CU_ENTRY(index_copy) {
  (void)n;
  return place_slices(ctx, KN_OP_index_copy, PUT_LAST, ((const kn_attrs_axis *)attrs)->dim, in, out[0]);
}

/* ---- nonzero ---- */

CU_ARGUMENT(coordinates, {
  flags f;
  const void *x;
  i64 *to;
  i32 rank;
  i64 dims[8];
  i64 sx[8];
});

/* clang-format off */
static const char nonzero_source[] = "typedef coordinates F;\n" CU_SOURCE(
    DEVICE u32 is_flagged(const coordinates *q, i64 i) {
      i64 at = 0;
      for (i32 k = q->rank - 1; k >= 0; k--) {
        at += i % q->dims[k] * q->sx[k];
        i /= q->dims[k];
      }
      return GET(((const E *)q->x)[at]) != 0;
    }
    DEVICE void take(const coordinates *q, i64 i, i64 k, u32 flagged) {
      if (!flagged) return;
      for (i32 d = q->rank - 1; d >= 0; d--) {
        q->to[k * q->rank + d] = i % q->dims[d] + 1;
        i /= q->dims[d];
      }
    });
/* clang-format on */

CU_ENTRY(nonzero) {
  const kn_tensor *x = in[0];
  coordinates q = {.f.count = kn_tensor_numel(x), .x = kn_tensor_data(x), .rank = x->type.rank};
  kn_type type = out[0]->type;
  CUdeviceptr room;
  size_t bytes;
  cu_device *d;
  (void)attrs, (void)n;
  KN_TRY(cu_device_of(ctx, &d));
  if (cu_captures(ctx, d)) return KN_DECLINED;
  for (int k = 0; k < q.rank; k++) q.dims[k] = x->type.dims[k], q.sx[k] = x->strides[k];
  const cu_program p = {"nonzero",
                        {flags_text, coordinates_text, nonzero_source, cu_flags_source},
                        .elements = CU_OF_DTYPE,
                        .dtype = kn_tensor_dtype(x)};
  KN_TRY(cu_flags_count(ctx, d, &p, &q.f, &q, &type.dims[0], &room, &bytes));
  kn_status st = kn_tensor_allocate(ctx, out[0], &type);
  if (st == KN_OK) {
    q.to = kn_tensor_data(out[0]);
    st = cu_flags_take(ctx, d, &p, &q.f, &q);
  }
  cu_free(d, room, bytes);
  return st;
}

/* ---- bincount ---- */

/* Weights are added up by the thread of their place, in the order of x. */
CU_ARGUMENT(counting, {
  ordering o;
  const void *x;
  i64 apart;
  const void *weights;
  i64 apart_weights;
  void *to;
  i64 *most;
  i64 bins;
  cu_site site;
});

/* clang-format off */
static const char bins_source[] = CU_SOURCE(KERNEL(256, largest)(counting q) {
  SHARED(i64, room, 256);
  i64 most = 0;
  EACH(i, q.o.length) {
    i64 x = (i64)((const I *)q.x)[i * q.apart];
    if (x < 1 || x > 0x7fffffff)
      note_fault(q.site, (u64)i, x);
    else if (x > most)
      most = x;
  }
  room[THREAD] = most;
  SYNC();
  if (THREAD == 0) {
    for (u32 k = 1; k < 256; k++) most = room[k] > most ? room[k] : most;
    atomic_max_i64(q.most, most);
  }
}
KERNEL(256, count)(counting q) {
  EACH(i, q.o.length) {
    i64 x = (i64)((const I *)q.x)[i * q.apart];
    atomic_add_u64((u64 *)q.to + (x - 1), 1);
  }
});
/* clang-format on */

/* clang-format off */
static const char weighed_source[] = "typedef counting Q;\ntypedef u32 K;\n" CU_SOURCE(
    DEVICE K key_at(const counting *q, i64 row, i64 i) { return (K)(((const I *)q->x)[i * q->apart] - 1); });
static const char weigh_source[] = CU_SOURCE(KERNEL(256, weigh)(counting q) {
  const K *keys = (const K *)q.o.keys;
  EACH(j, q.o.length) {
    if (j > 0 && keys[j - 1] == keys[j]) continue;
    T sum = 0;
    for (i64 k = j; k < q.o.length && keys[k] == keys[j]; k++) {
      T x = GET(((const E *)q.weights)[(i64)q.o.places[k] * q.apart_weights]);
      sum = PLUS(sum, x);
    }
    ((E *)q.to)[keys[j]] = PUT(sum);
  }
});
/* clang-format on */

static kn_status weigh(kn_context *ctx, cu_device *d, kn_dtype index, const kn_tensor *weights, counting *q) {
  kn_dtype dtype = kn_tensor_dtype(weights);
  CUdeviceptr room;
  size_t bytes;
  const cu_program p = {"weigh",
                        {cu_site_text, ordering_text, counting_text, cu_arithmetic(dtype), weighed_source,
                         cu_order_source, weigh_source},
                        .elements = CU_OF_DTYPE,
                        .dtype = dtype,
                        .index = index};
  q->o.rows = 1;
  q->weights = kn_tensor_data(weights), q->apart_weights = weights->strides[0];
  KN_TRY(cu_order(ctx, d, &p, sizeof(u32), &q->o, q, &room, &bytes));
  kn_status st = cu_start(ctx, d, &p, "weigh", q->o.length, q);
  cu_free(d, room, bytes);
  return st;
}

/* The largest value, at least `most`; waits. */
static kn_status largest(kn_context *ctx, cu_device *d, const cu_program *p, counting *q, int64_t *most) {
  CUdeviceptr cell;
  int64_t found = 0;
  kn_status st = cu_workspace(ctx, d, sizeof found, &cell);
  if (st != KN_OK) return cu_fault_check(ctx, d, &q->site, st);
  q->most = (i64 *)(uintptr_t)cell;
  if (d->api.cuMemsetD8Async(cell, 0, sizeof found, cu_stream(ctx, d)) != CUDA_SUCCESS)
    st = kn_fail(ctx, KN_INTERNAL, "bincount: the device cannot be written to");
  if (st == KN_OK) st = cu_start(ctx, d, p, "largest", q->o.length, q);
  if (st == KN_OK) st = cu_read(ctx, d, &found, cell, sizeof found);
  cu_free(d, cell, sizeof found);
  if (found > *most) *most = found;
  return cu_fault_check(ctx, d, &q->site, st);
}

CU_ENTRY(bincount) {
  counting q = {.o.length = kn_tensor_numel(in[0]), .x = kn_tensor_data(in[0]), .apart = in[0]->strides[0]};
  kn_type type = out[0]->type;
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  if (cu_captures(ctx, d) || (n > 1 && kn_tensor_dtype(in[1]) != kn_tensor_dtype(out[0]))) return KN_DECLINED;
  const cu_program p = {"bins",
                        {cu_site_text, cu_fault_source, ordering_text, counting_text, bins_source},
                        .index = kn_tensor_dtype(in[0])};
  type.dims[0] = ((const kn_attrs_bincount *)attrs)->minlength;
  KN_TRY(cu_site_of(ctx, d, KN_OP_bincount, CU_FAULT_COUNT, 0, 0, &q.site));
  KN_TRY(largest(ctx, d, &p, &q, &type.dims[0]));
  KN_TRY(kn_tensor_allocate(ctx, out[0], &type));
  kn_attrs_value zero = {.value = 0};
  KN_TRY(cu_full_like(ctx, &zero, out, 1, out));
  q.to = kn_tensor_data(out[0]);
  return n > 1 ? weigh(ctx, d, kn_tensor_dtype(in[0]), in[1], &q)
               : cu_start(ctx, d, &p, "count", q.o.length, &q);
}
