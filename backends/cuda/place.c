/* See place.h: a copy of which one side begins where the device says. */
#include "backends/cuda/place.h"
#include "backends/cuda/copy.h"
#include "backends/cuda/program.h"

/* Element i at coordinates of dims; a side that is a part of the whole begins `apart` times the place on. */
CU_ARGUMENT(placing_one, {
  const void *from;
  void *to;
  const i64 *at;
  i64 count;
  i64 from_apart;
  i64 to_apart;
  i64 dims[8];
  i64 sf[8];
  i64 st[8];
  i32 rank;
});

/* clang-format off */
static const char place_source[] = CU_SOURCE(KERNEL(256, place)(placing_one q) {
  const i64 at = *q.at;
  const E *from = (const E *)q.from + at * q.from_apart;
  E *to = (E *)q.to + at * q.to_apart;
  EACH(i, q.count) {
    i64 a = 0, b = 0;
    EACH_DIM(k, c, i, q.rank, q.dims) {
      a += (i64)c * q.sf[k];
      b += (i64)c * q.st[k];
    }
    to[b] = from[a];
  }
});
/* clang-format on */

static kn_status start(kn_context *ctx, cu_device *d, placing_one q, const kn_tensor *to) {
  q.count = 1;
  for (int k = 0; k < q.rank; k++) q.count *= q.dims[k];
  q.rank = cu_join_dims(q.rank, q.dims, q.sf, q.st);
  const cu_program p = {"place",
                        {placing_one_text, place_source},
                        .wide = cu_is_wide(q.count),
                        .elements = CU_OF_BYTES,
                        .bytes = kn_dtype_size(kn_tensor_dtype(to))};
  return cu_start(ctx, d, &p, "place", q.count, &q);
}

/* The dims of t but for one, and their strides. */
static int others(const kn_tensor *t, int dim, i64 *dims, i64 *strides) {
  int n = 0;
  for (int k = 0; k < t->type.rank; k++) {
    if (k == dim) continue;
    dims[n] = t->type.dims[k];
    strides[n++] = t->strides[k];
  }
  return n;
}

kn_status cu_place_pick(kn_context *ctx, cu_device *d, int dim, CUdeviceptr at, kn_tensor *from,
                        kn_tensor *to) {
  placing_one q = {.from = kn_tensor_data(from),
                   .to = kn_tensor_data(to),
                   .at = (const i64 *)(uintptr_t)at,
                   .from_apart = from->strides[dim]};
  q.rank = others(from, dim, q.dims, q.sf);
  memcpy(q.st, to->strides, (size_t)q.rank * sizeof *q.st);
  return start(ctx, d, q, to);
}

kn_status cu_place_put(kn_context *ctx, cu_device *d, int dim, CUdeviceptr at, kn_tensor *from,
                       kn_tensor *to) {
  KN_TRY(cu_cast_to(ctx, d, from, kn_tensor_dtype(to), &from));
  placing_one q = {.from = kn_tensor_data(from),
                   .to = kn_tensor_data(to),
                   .at = (const i64 *)(uintptr_t)at,
                   .to_apart = to->strides[dim]};
  q.rank = others(to, dim, q.dims, q.st);
  for (int k = q.rank - from->type.rank, i = 0; i < from->type.rank; i++)
    q.sf[k + i] = from->type.dims[i] == 1 ? 0 : from->strides[i];
  kn_status st = start(ctx, d, q, to);
  kn_tensor_release(from);
  return st;
}
