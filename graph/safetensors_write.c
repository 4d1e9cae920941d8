/* Writing the container: rows of the header, its end, tensors in order. Files are file_save.c's and
 * tensors_file.c's. */
#include "graph/safetensors.h"
#include "core/device.h"
#include "graph/checksum.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- tensors ---- */

static void copy_strided(const kn_tensor *from, kn_tensor *to) {
  size_t size = kn_dtype_size(kn_tensor_dtype(from));
  int64_t n = kn_tensor_numel(from), at[KN_MAX_RANK] = {0};
  char *out = kn_tensor_data(to);
  for (int64_t i = 0; i < n; i++, out += size) {
    int64_t offset = 0;
    for (int d = 0; d < from->type.rank; d++) offset += at[d] * from->strides[d];
    memcpy(out, (const char *)kn_tensor_data(from) + offset * (int64_t)size, size);
    for (int d = from->type.rank - 1; d >= 0 && ++at[d] == from->type.dims[d]; d--) at[d] = 0;
  }
}

kn_status kn_safetensors_dense(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  if (t->type.device != KN_CPU) return kn_to_host(ctx, t, out);
  if (kn_tensor_contiguous(t)) {
    *out = kn_tensor_retain(t);
    return KN_OK;
  }
  KN_TRY(kn_tensor_new(ctx, &t->type, out));
  copy_strided(t, *out);
  return KN_OK;
}

/* ---- header ---- */

bool kn_safetensors_before(const kn_type *a, kn_span name_a, const kn_type *b, kn_span name_b) {
  size_t m = kn_dtype_size((kn_dtype)a->dtype), n = kn_dtype_size((kn_dtype)b->dtype);
  if (m != n) return m > n;
  int order = memcmp(name_a.s, name_b.s, name_a.n < name_b.n ? name_a.n : name_b.n);
  return order ? order < 0 : name_a.n < name_b.n;
}

void kn_safetensors_put(kn_writer *w, kn_span name, const kn_type *type, uint64_t *at) {
  size_t bytes = 0;
  (void)!kn_type_bytes(type, &bytes);
  kn_put_json(w, name.s, name.n);
  kn_putf(w, ":{\"dtype\":\"%s\",\"shape\":[", kn_dtypes[type->dtype].safetensors);
  for (int d = 0; d < type->rank; d++) kn_putf(w, "%s%" PRId64, d ? "," : "", type->dims[d]);
  kn_putf(w, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at, *at + bytes);
  *at += bytes;
}

kn_status kn_safetensors_close_header(kn_context *ctx, kn_writer *w, unsigned char length[8]) {
  while ((w->n + 8) % 64 && !w->failed) kn_puts(w, " ");
  if (w->failed) return kn_fail_nomem(ctx, w->n);
  if (w->n > KN_HEADER_MAX)
    return kn_fail(ctx, KN_LIMIT, "the header would take %zu bytes, more than %d", w->n, KN_HEADER_MAX);
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)w->n >> 8 * i);
  return KN_OK;
}

/* ---- checksum ---- */

kn_status kn_safetensors_sum(kn_context *ctx, const kn_piece *pieces, size_t n, char *digits) {
  kn_crc *crc = kn_alloc(ctx->heap, sizeof *crc);
  if (!crc) return kn_fail_nomem(ctx, sizeof *crc);
  kn_crc_start(crc);
  for (size_t i = 0; i < n; i++) kn_crc_feed(crc, pieces[i].p, pieces[i].n);
  char text[17];
  snprintf(text, sizeof text, "%016" PRIx64, kn_crc_value(crc));
  memcpy(digits, text, 16);
  kn_free(ctx->heap, crc, sizeof *crc);
  return KN_OK;
}
