/* Tensors and dtypes of the C API. A kiln_tensor is core's tensor. */
#include "bindings/c/handle.h"
#include "core/device.h"
#include "core/dispatch.h"
#include <string.h>

/* ---- dtypes: the numbers outside never change, core's follow its table ---- */

static const struct {
  kiln_dtype outside;
  const char *name;
} dtypes[] = {
    {KILN_FLOAT32, "float32"},   {KILN_FLOAT64, "float64"}, {KILN_FLOAT16, "float16"},
    {KILN_BFLOAT16, "bfloat16"}, {KILN_INT8, "int8"},       {KILN_UINT8, "uint8"},
    {KILN_INT16, "int16"},       {KILN_INT32, "int32"},     {KILN_INT64, "int64"},
    {KILN_BOOL, "bool"},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static bool find_dtype(kiln_dtype d, kn_dtype *out) {
  for (int i = 0; i < DTYPES; i++)
    if (dtypes[i].outside == d) return kn_dtype_parse(dtypes[i].name, out);
  return false;
}

kn_status kiln_core_dtype(kn_context *ctx, kiln_dtype d, kn_dtype *out) {
  if (find_dtype(d, out)) return KN_OK;
  for (int i = 0; i < DTYPES; i++)
    if (dtypes[i].outside == d)
      return kn_fail(ctx, KN_DTYPE, "dtype %s is not supported yet", dtypes[i].name);
  return kn_fail(ctx, KN_DTYPE, "there is no dtype number %d", (int)d);
}

kiln_dtype kiln_outside_dtype(kn_dtype d) {
  for (int i = 0; i < DTYPES; i++)
    if (!strcmp(dtypes[i].name, kn_dtype_name(d))) return dtypes[i].outside;
  return (kiln_dtype)0;
}

const char *kiln_dtype_name(kiln_dtype dtype) {
  kn_dtype d;
  return find_dtype(dtype, &d) ? kn_dtype_name(d) : NULL;
}

size_t kiln_dtype_size(kiln_dtype dtype) {
  kn_dtype d;
  return find_dtype(dtype, &d) ? kn_dtype_size(d) : 0;
}

/* ---- making ---- */

static kn_status read_type(kn_context *ctx, kiln_dtype dtype, int rank, const int64_t *sizes, kn_type *out) {
  kn_dtype d;
  KN_TRY(kiln_core_dtype(ctx, dtype, &d));
  if (rank < 0 || rank > KN_MAX_RANK)
    return kn_fail(ctx, KN_SHAPE, "a tensor has 0 to %d dimensions, not %d", KN_MAX_RANK, rank);
  if (rank && !sizes) return kn_fail(ctx, KN_ARG, "sizes are needed for %d dimensions", rank);
  *out = (kn_type){.dtype = (uint8_t)d, .device = KN_CPU, .rank = (uint8_t)rank};
  for (int i = 0; i < rank; i++) {
    if (sizes[i] < 0)
      return kn_fail(ctx, KN_SHAPE, "size %lld of dimension %d is below 0", (long long)sizes[i], i);
    out->dims[i] = sizes[i];
  }
  return KN_OK;
}

kiln_status kiln_tensor_new(kiln_context *handle, kiln_dtype dtype, int rank, const int64_t *sizes,
                            const void *data, kiln_tensor **out) {
  kn_context *ctx = core_context(handle);
  kn_type type;
  kn_tensor *t;
  kn_status st = read_type(ctx, dtype, rank, sizes, &type);
  if (st == KN_OK) st = kn_tensor_new(ctx, &type, &t);
  if (st != KN_OK) return outside(st);
  if (!data)
    memset(t->storage->data, 0, t->storage->bytes);
  else if (t->storage->bytes)
    memcpy(t->storage->data, data, t->storage->bytes);
  *out = (kiln_tensor *)t;
  return KILN_OK;
}

kiln_status kiln_tensor_wrap(kiln_context *handle, kiln_dtype dtype, int rank, const int64_t *sizes,
                             void *data, kiln_release_fn release, void *ud, kiln_tensor **out) {
  kn_context *ctx = core_context(handle);
  kn_type type;
  kn_tensor *t;
  size_t bytes = 0;
  kn_status st = read_type(ctx, dtype, rank, sizes, &type);
  if (st == KN_OK && !kn_type_bytes(&type, &bytes)) st = kn_fail(ctx, KN_SHAPE, "the sizes are too large");
  if (st == KN_OK && (uintptr_t)data % kn_dtype_size((kn_dtype)type.dtype))
    st = kn_fail(ctx, KN_ARG, "the memory is not aligned for %s", kn_dtype_name((kn_dtype)type.dtype));
  if (st != KN_OK) {
    if (release) release(ud, data, bytes);
    return outside(st);
  }
  st = kn_tensor_wrap(ctx, &type, data, release, ud, &t); /* calls release itself when it fails */
  if (st == KN_OK) *out = (kiln_tensor *)t;
  return outside(st);
}

kiln_tensor *kiln_tensor_retain(kiln_tensor *t) { return (kiln_tensor *)kn_tensor_retain(core_tensor(t)); }
void kiln_tensor_release(kiln_tensor *t) { kn_tensor_release(core_tensor(t)); }

/* ---- looking ---- */

kiln_dtype kiln_tensor_dtype(const kiln_tensor *t) {
  return kiln_outside_dtype(kn_tensor_dtype(core_tensor(t)));
}
int kiln_tensor_rank(const kiln_tensor *t) { return core_tensor(t)->type.rank; }

int64_t kiln_tensor_size(const kiln_tensor *t, int dim) {
  const kn_tensor *c = core_tensor(t);
  return dim >= 0 && dim < c->type.rank ? c->type.dims[dim] : 0;
}

int64_t kiln_tensor_stride(const kiln_tensor *t, int dim) {
  const kn_tensor *c = core_tensor(t);
  return dim >= 0 && dim < c->type.rank ? c->strides[dim] : 0;
}

int64_t kiln_tensor_numel(const kiln_tensor *t) { return kn_tensor_numel(core_tensor(t)); }
int kiln_tensor_is_contiguous(const kiln_tensor *t) { return kn_tensor_contiguous(core_tensor(t)); }
const char *kiln_tensor_device(const kiln_tensor *t) {
  return kn_device_name((kn_device_id)core_tensor(t)->type.device);
}

kiln_status kiln_tensor_to(kiln_context *handle, const kiln_tensor *t, const char *device,
                           kiln_tensor **out) {
  kn_context *ctx = core_context(handle);
  kn_tensor *from = core_tensor(t), *made;
  kn_device_id d;
  if (!device || !kn_device_parse(device, &d))
    return outside(kn_fail(ctx, KN_ARG, "there is no device '%s'", device ? device : "(null)"));
  if (from->type.device == d) {
    *out = (kiln_tensor *)kn_tensor_retain(from);
    return KILN_OK;
  }
  const kn_attrs_device to = {.device = (int32_t)d};
  kn_status st = kn_apply(ctx, KN_OP_to_device, &to, &from, 1, &made);
  if (st == KN_OK) *out = (kiln_tensor *)made;
  return outside(st);
}

void *kiln_tensor_data(const kiln_tensor *t) {
  return core_tensor(t)->type.device == KN_CPU ? kn_tensor_data(core_tensor(t)) : NULL;
}

kiln_status kiln_tensor_read(kiln_context *handle, const kiln_tensor *t, void *out, size_t bytes) {
  kn_context *ctx = core_context(handle);
  kn_tensor *from = core_tensor(t), *to;
  size_t want = (size_t)kn_tensor_numel(from) * kn_dtype_size(kn_tensor_dtype(from));
  if (bytes != want)
    return outside(kn_fail(ctx, KN_ARG, "the tensor takes %zu bytes, the room given has %zu", want, bytes));
  if (!bytes) return KILN_OK;
  if (kn_tensor_contiguous(from) && from->type.device == KN_CPU) {
    memcpy(out, kn_tensor_data(from), bytes);
    return KILN_OK;
  }
  kn_type type = from->type;
  type.device = KN_CPU;
  kn_status st = kn_tensor_new(ctx, &type, &to);
  if (st != KN_OK) return outside(st);
  st = kn_kernel_to_device(ctx, &(kn_attrs_device){.device = KN_CPU}, &from, 1, &to);
  if (st == KN_OK) memcpy(out, kn_tensor_data(to), bytes);
  kn_tensor_release(to);
  return outside(st);
}

void kiln_value_clear(kiln_value *v) {
  if (v->kind == KILN_TENSOR) kiln_tensor_release(v->tensor);
  memset(v, 0, sizeof *v);
}
