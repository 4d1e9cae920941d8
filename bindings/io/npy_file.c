/* .npy files as tensors. */
#include "bindings/io/bytes.h"
#include "bindings/io/npy.h"
#include "core/device.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

kn_status kn_npy_decode(kn_context *ctx, const void *bytes, size_t n, kn_tensor **out) {
  char why[160];
  kn_npy h;
  kn_tensor *t;
  if (!kn_npy_parse(bytes, n, &h, why, sizeof why)) return kn_fail(ctx, KN_FORMAT, "%s", why);
  KN_TRY(kn_tensor_new(ctx, &h.type, &t));
  kn_npy_elements(&h, bytes, kn_tensor_data(t));
  *out = t;
  return KN_OK;
}

kn_status kn_npy_read(kn_context *ctx, const char *path, kn_tensor **out) {
  kn_bytes file;
  KN_TRY(kn_read_file(ctx, path, 0, &file));
  kn_status st = kn_npy_decode(ctx, file.p, file.n, out);
  if (st != KN_OK) kn_error_prefix(ctx, "%s", path);
  kn_bytes_free(&file);
  return st;
}

kn_status kn_npy_dense(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  if (t->type.device != KN_CPU) return kn_to_host(ctx, t, out);
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
  KN_TRY(kn_npy_dense(ctx, t, &c));
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
