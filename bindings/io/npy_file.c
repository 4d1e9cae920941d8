/* .npy files as tensors. */
#include "bindings/io/npy.h"
#include "core/op.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The whole file, in memory of the heap. */
static kn_status read_all(kn_context *ctx, const char *path, char **data, size_t *size, size_t *room) {
  FILE *f = fopen(path, "rb");
  if (!f) return kn_fail(ctx, KN_IO, "%s: %s", path, strerror(errno));
  size_t n = 0, cap = 1 << 16;
  char *p = kn_alloc(ctx->heap, cap);
  kn_status st = p ? KN_OK : kn_fail_nomem(ctx, cap);
  while (st == KN_OK) {
    n += fread(p + n, 1, cap - n, f);
    if (n < cap) break;
    char *more = cap > SIZE_MAX / 2 ? NULL : kn_realloc(ctx->heap, p, cap, cap * 2);
    if (!more)
      st = kn_fail_nomem(ctx, cap);
    else
      p = more, cap *= 2;
  }
  if (st == KN_OK && ferror(f)) st = kn_fail(ctx, KN_IO, "%s: could not be read", path);
  fclose(f);
  if (st != KN_OK) {
    kn_free(ctx->heap, p, cap);
    return st;
  }
  *data = p, *size = n, *room = cap;
  return KN_OK;
}

kn_status kn_npy_read(kn_context *ctx, const char *path, kn_tensor **out) {
  char *data = NULL, why[160];
  size_t size = 0, room = 0;
  kn_npy h;
  kn_tensor *t;
  KN_TRY(read_all(ctx, path, &data, &size, &room));
  kn_status st = KN_OK;
  if (!kn_npy_parse(data, size, &h, why, sizeof why)) st = kn_fail(ctx, KN_FORMAT, "%s: %s", path, why);
  if (st == KN_OK) st = kn_tensor_new(ctx, &h.type, &t);
  if (st == KN_OK) {
    kn_npy_elements(&h, data, kn_tensor_data(t));
    *out = t;
  }
  kn_free(ctx->heap, data, room);
  return st;
}

static kn_status dense(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  if (kn_tensor_contiguous(t)) {
    *out = kn_tensor_retain(t);
    return KN_OK;
  }
  kn_tensor *c;
  KN_TRY(kn_tensor_new(ctx, &t->type, &c));
  kn_status st = kn_kernel_clone(ctx, NULL, &t, 1, &c);
  if (st == KN_OK)
    *out = c;
  else
    kn_tensor_release(c);
  return st;
}

kn_status kn_npy_write(kn_context *ctx, const char *path, kn_tensor *t) {
  kn_tensor *c;
  if (!kn_dtypes[kn_tensor_dtype(t)].npy)
    return kn_fail(ctx, KN_DTYPE, "%s: the .npy format has no %s; cast the tensor to float32 first", path,
                   kn_dtype_name(kn_tensor_dtype(t)));
  KN_TRY(dense(ctx, t, &c));
  char header[KN_NPY_HEADER];
  size_t n = kn_npy_header(&c->type, header), bytes = 0;
  kn_type_bytes(&c->type, &bytes);
  FILE *f = fopen(path, "wb");
  kn_status st = f ? KN_OK : kn_fail(ctx, KN_IO, "%s: %s", path, strerror(errno));
  if (f) {
    bool good = fwrite(header, 1, n, f) == n && fwrite(kn_tensor_data(c), 1, bytes, f) == bytes;
    if (fclose(f) || !good) st = kn_fail(ctx, KN_IO, "%s: could not be written", path);
  }
  kn_tensor_release(c);
  return st;
}
