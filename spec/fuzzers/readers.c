/* Targets that read files of others: tensors, pictures, sound, archives. What was read is written again, and
 * must be the same when it is read back. */
#include "spec/fuzzers/fuzz.h"
#include "bindings/io/archives.h"
#include "bindings/io/image.h"
#include "bindings/io/npy.h"
#include "bindings/io/npz.h"
#include "bindings/io/wav.h"
#include "graph/tensors_file.h"

/* Every byte of a contiguous tensor, so that what should not be read is met. */
static uint64_t touch(kn_tensor *t) {
  size_t bytes;
  FUZZ_HOLDS(kn_type_bytes(&t->type, &bytes));
  return fuzz_seed(kn_tensor_data(t), bytes);
}

static bool same(kn_tensor *a, kn_tensor *b) {
  return kn_type_equal(&a->type, &b->type) && touch(a) == touch(b);
}

/* ---- tensors ---- */

void fuzz_safetensors(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_tensors_file f = {.map = NULL};
  if (!fuzz_ok(ctx, kn_mapping_new(ctx, data, size, NULL, NULL, &f.map))) return;
  kn_status st = kn_safetensors_read(ctx, f.map->bytes, f.map->size, "safetensors", &f.header);
  if (st == KN_OK) st = kn_safetensors_check(ctx, &f.header);
  for (uint32_t i = 0; st == KN_OK && i < f.header.ntensors; i++) {
    const kn_st_tensor *t = &f.header.tensors[i];
    kn_tensor *out;
    FUZZ_HOLDS(kn_safetensors_tensor(&f.header, t->name) == t);
    st = kn_tensors_get(ctx, &f, t, &out);
    if (st != KN_OK) break;
    touch(out);
    kn_tensor_release(out);
  }
  (void)fuzz_ok(ctx, st);
  kn_tensors_close(&f);
}

void fuzz_npy(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_tensor *t, *back;
  char header[KN_NPY_HEADER];
  if (!fuzz_ok(ctx, kn_npy_decode(ctx, data, size, &t))) return;
  size_t bytes, n = kn_npy_header(&t->type, header);
  FUZZ_HOLDS(n && kn_type_bytes(&t->type, &bytes));
  char *again = malloc(n + bytes);
  memcpy(again, header, n);
  memcpy(again + n, kn_tensor_data(t), bytes);
  if (fuzz_ok(ctx, kn_npy_decode(ctx, again, n + bytes, &back))) {
    FUZZ_HOLDS(same(t, back));
    kn_tensor_release(back);
  }
  free(again);
  kn_tensor_release(t);
}

static const kn_archive_limits limits = {.entry = 64 << 10, .total = 128 << 10, .entries = 64};

void fuzz_npz(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_archive *a;
  kn_bytes buffer = {.heap = ctx->heap};
  bool found = true;
  if (!fuzz_ok(ctx, kn_archive_open(ctx, fuzz_path(data, size), &limits, &a))) return;
  while (found) {
    const char *name;
    size_t length;
    kn_tensor *t;
    if (!fuzz_ok(ctx, kn_npz_next(ctx, a, &buffer, &found, &name, &length, &t)) || !found) break;
    touch(t);
    kn_tensor_release(t);
  }
  kn_bytes_free(&buffer);
  kn_archive_close(a);
}

/* ---- sound and pictures ---- */

void fuzz_wav(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_tensor *t, *back;
  uint32_t rate, rate_back;
  kn_bytes again = {.heap = ctx->heap};
  if (!fuzz_ok(ctx, kn_wav_decode(ctx, data, size, &t, &rate))) return;
  if (fuzz_ok(ctx, kn_wav_encode(ctx, t, rate, KN_WAV_F32, &again)) &&
      fuzz_ok(ctx, kn_wav_decode(ctx, again.p, again.n, &back, &rate_back))) {
    FUZZ_HOLDS(rate == rate_back && same(t, back));
    kn_tensor_release(back);
  }
  kn_bytes_free(&again);
  kn_tensor_release(t);
}

void fuzz_picture(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_tensor *t, *back;
  const kn_image_mode mode = (kn_image_mode)(fuzz_seed(data, size) % (KN_IMAGE_RGB_ALPHA + 1));
  if (!fuzz_ok(ctx, kn_image_decode(ctx, data, size, mode, 1 << 16, &t))) return;
  kn_bytes again = {.heap = ctx->heap};
  if (fuzz_ok(ctx, kn_png_encode(ctx, t, 0, &again)) &&
      fuzz_ok(ctx, kn_image_decode(ctx, again.p, again.n, KN_IMAGE_UNCHANGED, 0, &back))) {
    FUZZ_HOLDS(same(t, back));
    kn_tensor_release(back);
  }
  kn_bytes_free(&again);
  kn_tensor_release(t);
}

/* ---- compressed files and archives ---- */

void fuzz_packed(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_archive *a;
  kn_bytes out = {.heap = ctx->heap};
  if (kn_is_gzip(data, size))
    (void)fuzz_ok(ctx, kn_gunzip(ctx, data, size, 64 << 10, &out));
  else if (kn_is_packed(data, size))
    (void)fuzz_ok(ctx, kn_unpack(ctx, data, size, 64 << 10, &out));
  if (fuzz_ok(ctx, kn_archive_open(ctx, fuzz_path(data, size), &limits, &a))) {
    bool found = true;
    const char *name;
    while (found && fuzz_ok(ctx, kn_archive_next(ctx, a, &found, &name, &out)))
      if (found) (void)fuzz_seed((const uint8_t *)name, strlen(name));
    kn_archive_close(a);
  }
  kn_bytes_free(&out);
}
