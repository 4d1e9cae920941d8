/* Tensors to and from others by DLPack: layouts of its structs beside its own header where that is there,
 * dtypes, strides, who gives memory back and when, and all that is refused. */
#include "spec/suite.h"
#include "bindings/c/dlpack.h"
#include "bindings/c/kiln.h"
#include "spec/scarce.h"
#include <stddef.h>
#if defined(__has_include)
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#define HAS_DLPACK
#endif
#endif

#ifdef HAS_DLPACK
#define SAME(ours, field, theirs, other)                                                                     \
  _Static_assert(offsetof(ours, field) == offsetof(theirs, other), #ours "." #field " lies elsewhere")
_Static_assert(sizeof(kiln_dl_tensor) == sizeof(DLTensor), "DLTensor has another size");
_Static_assert(sizeof(kiln_dl_managed) == sizeof(DLManagedTensor), "DLManagedTensor has another size");
_Static_assert(sizeof(DLDevice) == 2 * sizeof(int32_t) && sizeof(DLDataType) == 4, "parts have other sizes");
SAME(kiln_dl_tensor, data, DLTensor, data);
SAME(kiln_dl_tensor, device, DLTensor, device.device_type);
SAME(kiln_dl_tensor, device_id, DLTensor, device.device_id);
SAME(kiln_dl_tensor, ndim, DLTensor, ndim);
SAME(kiln_dl_tensor, dtype.code, DLTensor, dtype.code);
SAME(kiln_dl_tensor, dtype.bits, DLTensor, dtype.bits);
SAME(kiln_dl_tensor, dtype.lanes, DLTensor, dtype.lanes);
SAME(kiln_dl_tensor, shape, DLTensor, shape);
SAME(kiln_dl_tensor, strides, DLTensor, strides);
SAME(kiln_dl_tensor, byte_offset, DLTensor, byte_offset);
SAME(kiln_dl_managed, tensor, DLManagedTensor, dl_tensor);
SAME(kiln_dl_managed, owner, DLManagedTensor, manager_ctx);
SAME(kiln_dl_managed, deleter, DLManagedTensor, deleter);
_Static_assert((int)KILN_DL_INT == (int)kDLInt && (int)KILN_DL_UINT == (int)kDLUInt &&
                   (int)KILN_DL_FLOAT == (int)kDLFloat && (int)KILN_DL_BFLOAT == (int)kDLBfloat,
               "type codes differ");
_Static_assert((int)KILN_DL_CPU == (int)kDLCPU && (int)KILN_DL_CUDA == (int)kDLCUDA &&
                   (int)KILN_DL_CUDA_HOST == (int)kDLCUDAHost,
               "devices differ");
#ifdef DLPACK_MAJOR_VERSION
_Static_assert(sizeof(kiln_dl_versioned) == sizeof(DLManagedTensorVersioned), "another size");
SAME(kiln_dl_versioned, major, DLManagedTensorVersioned, version.major);
SAME(kiln_dl_versioned, minor, DLManagedTensorVersioned, version.minor);
SAME(kiln_dl_versioned, owner, DLManagedTensorVersioned, manager_ctx);
SAME(kiln_dl_versioned, deleter, DLManagedTensorVersioned, deleter);
SAME(kiln_dl_versioned, flags, DLManagedTensorVersioned, flags);
SAME(kiln_dl_versioned, tensor, DLManagedTensorVersioned, dl_tensor);
_Static_assert((int)KILN_DL_BOOL == (int)kDLBool && KILN_DL_READ_ONLY == DLPACK_FLAG_BITMASK_READ_ONLY,
               "flags or codes differ");
#endif
#endif

START_TEST(the_header_agrees) {
#ifdef HAS_DLPACK
  ck_assert_uint_eq(sizeof(kiln_dl_managed), sizeof(DLManagedTensor)); /* as all the assertions above */
#else
  if (suite_skips("dlpack/dlpack.h is not on this machine")) return;
#endif
}
END_TEST

static kiln_context *new_context(void) {
  kiln_context *ctx;
  const kiln_context_options o = {.size = sizeof o, .backend = "ref"};
  ck_assert_int_eq(kiln_context_new(&o, &ctx, NULL, 0), KILN_OK);
  return ctx;
}

static void done(kiln_context *ctx) {
  kiln_memory m = {.size = sizeof m};
  kiln_context_memory(ctx, &m);
  ck_assert_uint_eq(m.blocks, 2); /* the context and what it knows of backends */
  kiln_context_free(ctx);
}

/* ---- a tensor of somebody else ---- */

typedef struct theirs {
  kiln_dl_managed m;
  kiln_dl_versioned v;
  int64_t shape[9], strides[9];
  float numbers[12];
  int deleted;
} theirs;

static void delete_plain(kiln_dl_managed *m) {
  theirs *t = m->owner;
  t->deleted++;
}

static void delete_versioned(kiln_dl_versioned *v) {
  theirs *t = v->owner;
  t->deleted++;
}

/* float32[3,4], row-major. */
static struct DLManagedTensor *make(theirs *t) {
  *t = (theirs){.shape = {3, 4}, .strides = {4, 1}};
  for (int i = 0; i < 12; i++) t->numbers[i] = (float)i;
  t->m.tensor = (kiln_dl_tensor){.data = t->numbers,
                                 .device = KILN_DL_CPU,
                                 .ndim = 2,
                                 .dtype = {KILN_DL_FLOAT, 32, 1},
                                 .shape = t->shape,
                                 .strides = t->strides};
  t->m.owner = t;
  t->m.deleter = delete_plain;
  return (struct DLManagedTensor *)&t->m;
}

static struct DLManagedTensorVersioned *make_versioned(theirs *t, uint64_t flags) {
  make(t);
  t->v = (kiln_dl_versioned){
      .major = 1, .minor = 3, .owner = t, .deleter = delete_versioned, .flags = flags, .tensor = t->m.tensor};
  return (struct DLManagedTensorVersioned *)&t->v;
}

START_TEST(comes_in) {
  kiln_context *ctx = new_context();
  theirs t;
  kiln_tensor *x, *other;
  float numbers[12];
  ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, make(&t), &x), KILN_OK);
  ck_assert_ptr_eq(kiln_tensor_data(x), t.numbers);
  ck_assert(kiln_tensor_rank(x) == 2 && kiln_tensor_size(x, 0) == 3 && kiln_tensor_size(x, 1) == 4);
  ck_assert(kiln_tensor_dtype(x) == KILN_FLOAT32 && kiln_tensor_is_contiguous(x));
  kiln_tensor_retain(x);
  kiln_tensor_release(x);
  ck_assert_int_eq(t.deleted, 0);
  kiln_tensor_release(x);
  ck_assert_int_eq(t.deleted, 1);

  make(&t); /* columns, one on, without its first row: strides and byte_offset */
  t.shape[0] = 2, t.shape[1] = 2, t.strides[0] = 1, t.strides[1] = 4;
  t.m.tensor.byte_offset = 4 * sizeof(float);
  ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, (struct DLManagedTensor *)&t.m, &x), KILN_OK);
  ck_assert_int_eq(kiln_tensor_read(ctx, x, numbers, 4 * sizeof(float)), KILN_OK);
  ck_assert(numbers[0] == 4 && numbers[1] == 8 && numbers[2] == 5 && numbers[3] == 9);
  kiln_tensor_release(x);

  make(&t);
  t.m.tensor.strides = NULL;
  t.m.deleter = NULL;
  ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, (struct DLManagedTensor *)&t.m, &x), KILN_OK);
  ck_assert(kiln_tensor_stride(x, 0) == 4 && kiln_tensor_stride(x, 1) == 1);
  kiln_tensor_release(x);
  ck_assert_int_eq(t.deleted, 0);

  make(&t); /* nothing in it, and a single number */
  t.shape[1] = 0;
  t.m.tensor.data = NULL;
  ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, (struct DLManagedTensor *)&t.m, &x), KILN_OK);
  ck_assert_int_eq((int)kiln_tensor_numel(x), 0);
  kiln_tensor_release(x);
  ck_assert_int_eq(t.deleted, 1);
  make(&t);
  t.m.tensor.ndim = 0;
  t.m.tensor.shape = t.m.tensor.strides = NULL;
  ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, (struct DLManagedTensor *)&t.m, &x), KILN_OK);
  ck_assert(kiln_tensor_numel(x) == 1 && kiln_tensor_data(x) == t.numbers);
  kiln_tensor_release(x);
  make(&t); /* expanded */
  t.strides[0] = 0;
  ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, (struct DLManagedTensor *)&t.m, &x), KILN_OK);
  ck_assert_int_eq(kiln_tensor_read(ctx, x, numbers, sizeof numbers), KILN_OK);
  ck_assert(numbers[0] == 0 && numbers[4] == 0 && numbers[11] == 3);
  kiln_tensor_release(x);

  ck_assert_int_eq(kiln_tensor_from_dlpack_versioned(ctx, make_versioned(&t, 0), &x), KILN_OK);
  ck_assert_ptr_eq(kiln_tensor_data(x), t.numbers);
  ck_assert_int_eq(t.deleted, 0);
  kiln_tensor_release(x);
  ck_assert_int_eq(t.deleted, 1);
  make_versioned(&t, KILN_DL_READ_ONLY);
  ck_assert_int_eq(kiln_tensor_from_dlpack_versioned(ctx, (struct DLManagedTensorVersioned *)&t.v, &x),
                   KILN_OK);
  ck_assert_int_eq(t.deleted, 1); /* a copy */
  ck_assert_ptr_ne(kiln_tensor_data(x), t.numbers);
  ck_assert_float_eq(((float *)kiln_tensor_data(x))[11], 11);
  kiln_tensor_release(x);
  ck_assert_int_eq(t.deleted, 1);
  make_versioned(&t, 0);
  t.v.major = 2;
  ck_assert_int_eq(kiln_tensor_from_dlpack_versioned(ctx, (struct DLManagedTensorVersioned *)&t.v, &other),
                   KILN_UNSUPPORTED);
  ck_assert_int_eq(t.deleted, 0);
  done(ctx);
}
END_TEST

START_TEST(goes_out_and_comes_back) {
  kiln_context *ctx = new_context();
  for (int d = KILN_FLOAT32; d <= KILN_BOOL; d++) {
    kiln_tensor *x, *y;
    struct DLManagedTensor *m;
    struct DLManagedTensorVersioned *v;
    ck_assert_int_eq(kiln_tensor_new(ctx, (kiln_dtype)d, 3, (const int64_t[]){2, 1, 3}, NULL, &x), KILN_OK);
    ck_assert_int_eq(kiln_tensor_to_dlpack(ctx, x, &m), KILN_OK);
    const kiln_dl_managed *seen = (const kiln_dl_managed *)m;
    ck_assert_int_eq(seen->tensor.dtype.bits, 8 * (int)kiln_dtype_size((kiln_dtype)d));
    ck_assert(seen->tensor.dtype.lanes == 1 && seen->tensor.device == KILN_DL_CPU);
    ck_assert(seen->tensor.ndim == 3 && seen->tensor.shape[2] == 3 && seen->tensor.strides[0] == 3);
    const void *data = kiln_tensor_data(x);
    kiln_tensor_release(x); /* m holds it */
    ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, m, &y), KILN_OK);
    ck_assert(kiln_tensor_data(y) == data && kiln_tensor_dtype(y) == (kiln_dtype)d);
    ck_assert_int_eq(kiln_tensor_to_dlpack_versioned(ctx, y, &v), KILN_OK);
    kiln_tensor_release(y);
    ck_assert_int_eq(kiln_tensor_from_dlpack_versioned(ctx, v, &x), KILN_OK);
    ck_assert(kiln_tensor_data(x) == data && kiln_tensor_dtype(x) == (kiln_dtype)d);
    kiln_tensor_release(x);
  }
  kiln_tensor *x; /* nobody takes it: it is deleted */
  struct DLManagedTensor *m;
  ck_assert_int_eq(kiln_tensor_new(ctx, KILN_INT64, 0, NULL, NULL, &x), KILN_OK);
  ck_assert_int_eq(kiln_tensor_to_dlpack(ctx, x, &m), KILN_OK);
  ((kiln_dl_managed *)m)->deleter((kiln_dl_managed *)m);
  kiln_tensor_release(x);
  done(ctx);
}
END_TEST

START_TEST(is_refused) {
  kiln_context *ctx = new_context();
  theirs t;
  kiln_tensor *x = NULL;
#define REFUSES(status, part, change)                                                                        \
  do {                                                                                                       \
    make(&t);                                                                                                \
    change;                                                                                                  \
    ck_assert_int_eq(kiln_tensor_from_dlpack(ctx, (struct DLManagedTensor *)&t.m, &x), status);              \
    ck_assert_msg(strstr(kiln_error(ctx), part) != NULL, "no \"%s\" in \"%s\"", part, kiln_error(ctx));      \
    ck_assert(!x && t.deleted == 0);                                                                         \
  } while (0)
  REFUSES(KILN_DTYPE, "4 lanes", t.m.tensor.dtype.lanes = 4);
  REFUSES(KILN_DTYPE, "0 lanes", t.m.tensor.dtype.lanes = 0);
  REFUSES(KILN_DTYPE, "code 5", t.m.tensor.dtype.code = 5);
  REFUSES(KILN_DTYPE, "8 bits", t.m.tensor.dtype.bits = 8);
  REFUSES(KILN_DTYPE, "code 1 with 32", t.m.tensor.dtype.code = KILN_DL_UINT);
  REFUSES(KILN_SHAPE, "not 9", t.m.tensor.ndim = 9);
  REFUSES(KILN_SHAPE, "not -1", t.m.tensor.ndim = -1);
  REFUSES(KILN_SHAPE, "size -2", t.shape[1] = -2);
  REFUSES(KILN_SHAPE, "stride -4", t.strides[0] = -4);
  REFUSES(KILN_SHAPE, "too large", (t.shape[0] = INT64_MAX, t.shape[1] = 2));
  REFUSES(KILN_SHAPE, "too large", t.strides[0] = INT64_MAX);
  REFUSES(KILN_SHAPE, "too large", (t.strides[0] = INT64_MAX / 4, t.strides[1] = INT64_MAX / 4));
  REFUSES(KILN_ARG, "no shape", t.m.tensor.shape = NULL);
  REFUSES(KILN_ARG, "no memory", t.m.tensor.data = NULL);
  REFUSES(KILN_ARG, "aligned", t.m.tensor.byte_offset = 2);
  REFUSES(KILN_UNSUPPORTED, "device 10", t.m.tensor.device = 10);
  REFUSES(KILN_UNSUPPORTED, "number 1", (t.m.tensor.device = KILN_DL_CUDA, t.m.tensor.device_id = 1));
  done(ctx);
}
END_TEST

START_TEST(without_memory) {
  scarce memory = {.left = -1};
  kiln_context *ctx;
  const kiln_context_options o = {
      .size = sizeof o, .alloc = scarce_alloc, .alloc_ud = &memory, .backend = "ref"};
  ck_assert_int_eq(kiln_context_new(&o, &ctx, NULL, 0), KILN_OK);
  for (int read_only = 0; read_only < 2; read_only++) {
    bool refused = true;
    for (long n = 0; refused; n++) {
      theirs t;
      kiln_tensor *x, *y;
      struct DLManagedTensorVersioned *v;
      scarce_begin(&memory, n, false);
      kiln_status st =
          kiln_tensor_from_dlpack_versioned(ctx, make_versioned(&t, read_only ? KILN_DL_READ_ONLY : 0), &x);
      ck_assert_int_eq(t.deleted, st == KILN_OK && read_only); /* a failure leaves it to the caller */
      bool came = st == KILN_OK;
      if (came) {
        st = kiln_tensor_to_dlpack_versioned(ctx, x, &v);
        if (st == KILN_OK) {
          st = kiln_tensor_from_dlpack_versioned(ctx, v, &y);
          if (st == KILN_OK)
            kiln_tensor_release(y);
          else
            ((kiln_dl_versioned *)v)->deleter((kiln_dl_versioned *)v);
        }
        kiln_tensor_release(x);
        ck_assert_int_eq(t.deleted, 1);
      }
      refused = scarce_end(&memory);
      ck_assert(st == (refused ? KILN_NOMEM : KILN_OK));
    }
  }
  done(ctx);
}
END_TEST

SUITE("dlpack", the_header_agrees, comes_in, goes_out_and_comes_back, is_refused, without_memory)
