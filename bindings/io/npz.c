/* .npz files: entries of a zip archive as .npy files in memory, and back. */
#include "bindings/io/npz.h"
#include "bindings/io/npy.h"
#include <stdio.h>
#include <string.h>

kn_status kn_npz_next(kn_context *ctx, kn_archive *a, kn_bytes *buffer, bool *found, const char **name,
                      size_t *length, kn_tensor **out) {
  const char *entry;
  KN_TRY(kn_archive_next(ctx, a, found, &entry, buffer));
  if (!*found) return KN_OK;
  size_t n = strlen(entry);
  if (n < 4 || strcmp(entry + n - 4, ".npy") != 0)
    return kn_fail(ctx, KN_FORMAT, "entry %.200s is no .npy file: this is no .npz file", entry);
  kn_status st = kn_npy_decode(ctx, buffer->p, buffer->n, out);
  if (st != KN_OK) {
    kn_error_prefix(ctx, "array %.*s", (int)(n - 4 < 200 ? n - 4 : 200), entry);
    return st;
  }
  *name = entry;
  *length = n - 4;
  return KN_OK;
}

kn_status kn_npz_add(kn_context *ctx, kn_zip *z, const char *name, kn_tensor *t) {
  char header[KN_NPY_HEADER], entry[512];
  size_t bytes = 0;
  int length = snprintf(entry, sizeof entry, "%s.npy", name);
  if (length < 5 || (size_t)length >= sizeof entry)
    return kn_fail(ctx, KN_ARG, "names of arrays have 1 to %zu bytes, not %zu", sizeof entry - 5,
                   strlen(name));
  size_t n = kn_npy_header(&t->type, header);
  if (!n)
    return kn_fail(ctx, KN_DTYPE, "array %s: the .npy format has no %s; cast the tensor to float32 first",
                   name, kn_dtype_name(kn_tensor_dtype(t)));
  kn_tensor *c;
  KN_TRY(kn_npy_dense(ctx, t, &c));
  (void)!kn_type_bytes(&c->type, &bytes);
  kn_status st = kn_zip_begin(ctx, z, entry, n + (uint64_t)bytes);
  if (st == KN_OK) st = kn_zip_add(ctx, z, header, n);
  if (st == KN_OK) st = kn_zip_add(ctx, z, kn_tensor_data(c), bytes);
  kn_tensor_release(c);
  return st;
}
