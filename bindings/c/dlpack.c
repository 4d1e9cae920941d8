/* Tensors of others, by DLPack. */
#include "bindings/c/dlpack.h"
#include "bindings/c/handle.h"
#include "core/device.h"
#include "core/dispatch.h"
#include <string.h>

static const struct {
  kn_dtype dtype;
  uint8_t code;
} dtypes[] = {
    {KN_F32, KILN_DL_FLOAT}, {KN_F64, KILN_DL_FLOAT}, {KN_F16, KILN_DL_FLOAT}, {KN_BF16, KILN_DL_BFLOAT},
    {KN_I8, KILN_DL_INT},    {KN_U8, KILN_DL_UINT},   {KN_I16, KILN_DL_INT},   {KN_I32, KILN_DL_INT},
    {KN_I64, KILN_DL_INT},   {KN_BOOL, KILN_DL_BOOL},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };
_Static_assert((int)DTYPES == (int)KN_DTYPE_COUNT, "each dtype has a code");

static uint8_t bits_of(kn_dtype d) { return (uint8_t)(8 * kn_dtype_size(d)); }

/* ---- out ---- */

typedef struct lent { /* what both kinds of managed tensors hold */
  kn_tensor *tensor;  /* retained */
  int64_t shape[KN_MAX_RANK], strides[KN_MAX_RANK];
} lent;

typedef struct plain {
  kiln_dl_managed outside; /* first: what others know of it */
  lent lent;
} plain;

typedef struct versioned {
  kiln_dl_versioned outside;
  lent lent;
} versioned;

static kn_status lend(kn_context *ctx, kn_tensor *t, lent *l, kiln_dl_tensor *out) {
  const kn_memory *m;
  kn_dtype d = kn_tensor_dtype(t);
  KN_TRY(kn_device_memory(ctx, (kn_device_id)t->type.device, &m));
  if (m) KN_TRY(m->synchronize(m->self, ctx));
  memcpy(l->shape, t->type.dims, sizeof l->shape);
  memcpy(l->strides, t->strides, sizeof l->strides);
  l->tensor = kn_tensor_retain(t);
  *out = (kiln_dl_tensor){.data = kn_tensor_data(t),
                          .device = t->type.device == KN_CPU ? KILN_DL_CPU : KILN_DL_CUDA,
                          .ndim = t->type.rank,
                          .shape = l->shape,
                          .strides = l->strides};
  out->dtype.bits = bits_of(d);
  out->dtype.lanes = 1;
  for (int i = 0; i < DTYPES; i++)
    if (dtypes[i].dtype == d) out->dtype.code = dtypes[i].code;
  return KN_OK;
}

static void end_lent(lent *l, void *block, size_t bytes) {
  kn_tensor *t = l->tensor;
  kn_free(t->heap, block, bytes); /* the tensor is a block of the heap, too */
  kn_tensor_release(t);
}

static void end_plain(kiln_dl_managed *m) {
  plain *p = (plain *)(void *)m;
  end_lent(&p->lent, p, sizeof *p);
}

static void end_versioned(kiln_dl_versioned *m) {
  versioned *v = (versioned *)(void *)m;
  end_lent(&v->lent, v, sizeof *v);
}

kiln_status kiln_tensor_to_dlpack(kiln_context *handle, kiln_tensor *t, struct DLManagedTensor **out) {
  kn_context *ctx = core_context(handle);
  kn_heap *heap = core_tensor(t)->heap; /* the block is freed there */
  plain *p = kn_calloc(heap, 1, sizeof *p);
  if (!p) return outside(kn_fail_nomem(ctx, sizeof *p));
  kn_status st = lend(ctx, core_tensor(t), &p->lent, &p->outside.tensor);
  p->outside.deleter = end_plain;
  if (st == KN_OK)
    *out = (struct DLManagedTensor *)(void *)p;
  else
    kn_free(heap, p, sizeof *p);
  return outside(st);
}

kiln_status kiln_tensor_to_dlpack_versioned(kiln_context *handle, kiln_tensor *t,
                                            struct DLManagedTensorVersioned **out) {
  kn_context *ctx = core_context(handle);
  kn_heap *heap = core_tensor(t)->heap;
  versioned *v = kn_calloc(heap, 1, sizeof *v);
  if (!v) return outside(kn_fail_nomem(ctx, sizeof *v));
  kn_status st = lend(ctx, core_tensor(t), &v->lent, &v->outside.tensor);
  v->outside.major = KILN_DL_MAJOR;
  v->outside.minor = KILN_DL_MINOR;
  v->outside.deleter = end_versioned;
  if (st == KN_OK)
    *out = (struct DLManagedTensorVersioned *)(void *)v;
  else
    kn_free(heap, v, sizeof *v);
  return outside(st);
}

/* ---- in ---- */

static kn_status read_dtype(kn_context *ctx, const kiln_dl_tensor *t, uint8_t *out) {
  if (t->dtype.lanes != 1)
    return kn_fail(ctx, KN_DTYPE, "from_dlpack: elements of %d lanes; kiln's are single numbers",
                   t->dtype.lanes);
  for (int i = 0; i < DTYPES; i++)
    if (dtypes[i].code == t->dtype.code && bits_of(dtypes[i].dtype) == t->dtype.bits) {
      *out = (uint8_t)dtypes[i].dtype;
      return KN_OK;
    }
  return kn_fail(ctx, KN_DTYPE, "from_dlpack: kiln has no dtype of type code %d with %d bits", t->dtype.code,
                 t->dtype.bits);
}

static kn_status read_device(kn_context *ctx, const kiln_dl_tensor *t, uint8_t *out) {
  const kn_memory *m;
  bool cuda = t->device == KILN_DL_CUDA && t->device_id == 0;
  if (!cuda && t->device != KILN_DL_CPU && t->device != KILN_DL_CUDA_HOST)
    return kn_fail(ctx, KN_UNSUPPORTED,
                   "from_dlpack: device %d, number %d; the host's memory or cuda:0 is "
                   "needed: copy it there first",
                   (int)t->device, (int)t->device_id);
  *out = cuda ? KN_CUDA : KN_CPU;
  return kn_device_memory(ctx, (kn_device_id)*out, &m);
}

/* The type, how its elements lie, and how many there are from the first to the last. */
static kn_status read_layout(kn_context *ctx, const kiln_dl_tensor *t, kn_type *type, int64_t *strides,
                             int64_t *extent) {
  size_t bytes;
  if (t->ndim < 0 || t->ndim > KN_MAX_RANK)
    return kn_fail(ctx, KN_SHAPE, "from_dlpack: a tensor has 0 to %d dimensions, not %d", KN_MAX_RANK,
                   (int)t->ndim);
  if (t->ndim && !t->shape) return kn_fail(ctx, KN_ARG, "from_dlpack: there is no shape");
  type->rank = (uint8_t)t->ndim;
  bool empty = false;
  for (int i = 0; i < t->ndim; i++) {
    type->dims[i] = t->shape[i];
    empty = empty || !t->shape[i];
    if (t->shape[i] < 0)
      return kn_fail(ctx, KN_SHAPE, "from_dlpack: size %lld of dimension %d is below 0",
                     (long long)t->shape[i], i);
  }
  bool fits = kn_type_bytes(type, &bytes);
  kn_strides_contiguous(type, strides);
  int64_t last = 0, way;
  for (int i = 0; i < t->ndim && t->strides && fits && !empty; i++) {
    if (t->shape[i] > 1) strides[i] = t->strides[i]; /* of one element nothing is said */
    if (strides[i] < 0)
      return kn_fail(ctx, KN_SHAPE, "from_dlpack: stride %lld of dimension %d is below 0: make it contiguous",
                     (long long)strides[i], i);
    fits = !__builtin_mul_overflow(t->shape[i] - 1, strides[i], &way) &&
           !__builtin_add_overflow(last, way, &last);
  }
  if (!t->strides || empty) last = fits ? (int64_t)(bytes / kn_dtype_size((kn_dtype)type->dtype)) - 1 : 0;
  if (!fits || last >= INT64_MAX / 16) return kn_fail(ctx, KN_SHAPE, "from_dlpack: the sizes are too large");
  *extent = last + 1;
  return KN_OK;
}

/* Over the same memory, which nobody gives back yet: `base` is to be what releases it. */
static kn_status wrap(kn_context *ctx, const kiln_dl_tensor *t, kn_tensor **out, kn_tensor **base) {
  kn_type type = {0};
  int64_t strides[KN_MAX_RANK], extent = 0;
  KN_TRY(read_dtype(ctx, t, &type.dtype));
  KN_TRY(read_device(ctx, t, &type.device));
  KN_TRY(read_layout(ctx, t, &type, strides, &extent));
  char *data = t->data ? (char *)t->data + t->byte_offset : NULL;
  if (!data && extent) return kn_fail(ctx, KN_ARG, "from_dlpack: there is no memory");
  if ((uintptr_t)data % kn_dtype_size((kn_dtype)type.dtype))
    return kn_fail(ctx, KN_ARG, "from_dlpack: the memory is not aligned for %s: copy it first",
                   kn_dtype_name((kn_dtype)type.dtype));
  const kn_type flat = {.dtype = type.dtype, .device = type.device, .rank = 1, .dims = {extent}};
  kn_tensor *whole, *view;
  KN_TRY(kn_tensor_symbolic(ctx, &type, NULL, &view));
  kn_status st = kn_tensor_wrap(ctx, &flat, data, NULL, NULL, &whole);
  if (st == KN_OK) {
    kn_tensor_set_view(view, whole, 0, strides);
    *out = view;
    *base = whole;
  } else
    kn_tensor_release(view);
  return st;
}

static void end_outside_plain(void *ud, void *data, size_t bytes) {
  kiln_dl_managed *m = ud;
  (void)data, (void)bytes;
  if (m->deleter) m->deleter(m);
}

static void end_outside_versioned(void *ud, void *data, size_t bytes) {
  kiln_dl_versioned *m = ud;
  (void)data, (void)bytes;
  if (m->deleter) m->deleter(m);
}

/* Nothing can fail any more: from now on the memory is given back. */
static void take_over(kn_tensor *t, kn_tensor *base, kn_release_fn release, void *ud, kiln_tensor **out) {
  t->storage->release = release;
  t->storage->release_ud = ud;
  kn_tensor_release(base);
  *out = (kiln_tensor *)t;
}

kiln_status kiln_tensor_from_dlpack(kiln_context *handle, struct DLManagedTensor *m, kiln_tensor **out) {
  kn_tensor *t, *base;
  kiln_dl_managed *from = (kiln_dl_managed *)(void *)m;
  kn_status st = wrap(core_context(handle), &from->tensor, &t, &base);
  if (st == KN_OK) take_over(t, base, end_outside_plain, from, out);
  return outside(st);
}

kiln_status kiln_tensor_from_dlpack_versioned(kiln_context *handle, struct DLManagedTensorVersioned *m,
                                              kiln_tensor **out) {
  kn_context *ctx = core_context(handle);
  kn_tensor *t, *base, *copy;
  kiln_dl_versioned *from = (kiln_dl_versioned *)(void *)m;
  if (from->major != KILN_DL_MAJOR)
    return outside(kn_fail(ctx, KN_UNSUPPORTED, "from_dlpack: version %u of DLPack; kiln knows version %d",
                           (unsigned)from->major, KILN_DL_MAJOR));
  kn_status st = wrap(ctx, &from->tensor, &t, &base);
  if (st != KN_OK) return outside(st);
  if (!(from->flags & KILN_DL_READ_ONLY)) {
    take_over(t, base, end_outside_versioned, from, out);
    return KILN_OK;
  }
  st = kn_apply(ctx, KN_OP_clone, NULL, &t, 1, &copy);
  kn_tensor_release(t);
  kn_tensor_release(base);
  if (st != KN_OK) return outside(st);
  *out = (kiln_tensor *)copy;
  end_outside_versioned(from, NULL, 0);
  return KILN_OK;
}
