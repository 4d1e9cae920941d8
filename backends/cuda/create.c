/* Tensors made from numbers: the same values as core/kernels/create.c, worked out in double, whole ones for
 * int64 in int64. */
#include "backends/cuda/entries.h"
#include "backends/cuda/program.h"
#include <string.h>

/* ---- one value ---- */

CU_ARGUMENT(fill_all, {
  void *to;
  i64 count;
  u64 bits;
});

/* clang-format off */
static const char fill_source[] = CU_SOURCE(
    KERNEL(256, fill)(fill_all q) {
      E *to = (E *)q.to;
      for (i64 i = (i64)BLOCK * 256 + THREAD; i < q.count; i += (i64)BLOCKS * 256) to[i] = (E)q.bits;
    });
/* clang-format on */

/* Elements of up to 4 bytes are what the driver sets by itself. */
static kn_status fill(kn_context *ctx, kn_number value, kn_tensor *out) {
  kn_dtype dtype = kn_tensor_dtype(out);
  fill_all q = {.to = kn_tensor_data(out), .count = kn_tensor_numel(out)};
  CUdeviceptr to = cu_address(out);
  size_t n = (size_t)q.count;
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  if (dtype == KN_I64)
    kn_element_put_int(dtype, &q.bits, kn_number_int(value));
  else
    kn_element_put_float(dtype, &q.bits, value.near);
  if (n == 0) return KN_OK;
  switch (kn_dtype_size(dtype)) {
  case 1:
    CU_TRY(ctx, d, d->api.cuMemsetD8Async(to, (unsigned char)q.bits, n, cu_stream(ctx, d)), "memset");
    break;
  case 2:
    CU_TRY(ctx, d, d->api.cuMemsetD16Async(to, (unsigned short)q.bits, n, cu_stream(ctx, d)), "memset");
    break;
  case 4:
    CU_TRY(ctx, d, d->api.cuMemsetD32Async(to, (unsigned)q.bits, n, cu_stream(ctx, d)), "memset");
    break;
  default: {
    const cu_program p = {"fill", {fill_all_text, fill_source}, .elements = CU_OF_BYTES, .bytes = 8};
    return cu_start(ctx, d, &p, "fill", q.count, &q);
  }
  }
  return KN_OK;
}

CU_ENTRY(full) {
  (void)in, (void)n;
  return fill(ctx, ((const kn_attrs_fill *)attrs)->value_number, out[0]);
}

CU_ENTRY(full_like) {
  (void)in, (void)n;
  return fill(ctx, ((const kn_attrs_value *)attrs)->value_number, out[0]);
}

/* ---- values by position ---- */

CU_ARGUMENT(range_of, {
  void *to;
  i64 count;
  i64 columns;
  i64 first;
  i64 by;
  double start;
  double step;
  double end;
});

/* clang-format off */
static const char range_source[] = CU_SOURCE(
    KERNEL(256, whole)(range_of q) {
      E *to = (E *)q.to;
      EACH(i, q.count) to[i] = (E)((u64)q.first + (u64)i * (u64)q.by);
    }
    KERNEL(256, arange)(range_of q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        double x = ADD(q.start, MUL((double)i, q.step));
        to[i] = PUT_F64(x);
      }
    }
    KERNEL(256, linspace)(range_of q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        double x = i < q.count / 2 || q.count == 1 ? ADD(q.start, MUL((double)i, q.step))
                                                   : ADD(q.end, -MUL((double)(q.count - 1 - i), q.step));
        to[i] = PUT_F64(x);
      }
    }
    KERNEL(256, eye)(range_of q) {
      E *to = (E *)q.to;
      EACH(i, q.count) {
        double x = i / q.columns == i % q.columns;
        to[i] = PUT_F64(x);
      }
    });
/* clang-format on */

static kn_status by_place(kn_context *ctx, const char *kernel, range_of q, kn_tensor *out) {
  const cu_program p = {
      "create", {range_of_text, range_source}, .elements = CU_OF_DTYPE, .dtype = kn_tensor_dtype(out)};
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  q.to = kn_tensor_data(out);
  q.count = kn_tensor_numel(out);
  return cu_start(ctx, d, &p, kernel, q.count, &q);
}

CU_ENTRY(arange) {
  const kn_attrs_range *a = attrs;
  range_of q = {.start = a->start, .step = a->step};
  (void)in, (void)n;
  bool whole = a->dtype == KN_I64 && kn_number_whole(a->start_number, &q.first) &&
               kn_number_whole(a->step_number, &q.by);
  return by_place(ctx, whole ? "whole" : "arange", q, out[0]);
}

CU_ENTRY(linspace) {
  const kn_attrs_linspace *a = attrs;
  double gaps = (double)(kn_tensor_numel(out[0]) - 1);
  range_of q = {.start = a->start, .end = a->end, .step = gaps > 0 ? (a->end - a->start) / gaps : 0};
  (void)in, (void)n;
  return by_place(ctx, "linspace", q, out[0]);
}

CU_ENTRY(eye) {
  (void)attrs, (void)in, (void)n;
  return by_place(ctx, "eye", (range_of){.columns = out[0]->type.dims[1]}, out[0]);
}
