/* What pictures of all formats share: sizes checked, rows to planes in the mode asked for, and back. */
#include "bindings/io/image.h"
#include <inttypes.h>
#include <string.h>

static const struct {
  const char *name;
  int channels;
} modes[] = {
#define X(e, name, channels) {name, channels},
    KN_IMAGE_MODES(X)
#undef X
};

bool kn_image_mode_parse(const char *name, kn_image_mode *out) {
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (!strcmp(modes[i].name, name)) return *out = (kn_image_mode)i, true;
  return false;
}

/* ---- decoding ---- */

kn_status kn_picture_begin(kn_picture *p, uint64_t width, uint64_t height, int channels) {
  uint64_t most = p->max_pixels ? (uint64_t)p->max_pixels : UINT64_C(1) << 28;
  if (!width || !height) return kn_fail(p->ctx, KN_FORMAT, "the picture has no pixels");
  if (width > most / height)
    return kn_fail(p->ctx, KN_LIMIT,
                   "a picture of %" PRIu64 " x %" PRIu64 " pixels is more than the limit of %" PRIu64, width,
                   height, most);
  p->from = channels;
  p->channels = p->mode == KN_IMAGE_UNCHANGED ? channels : modes[p->mode].channels;
  p->width = (int64_t)width, p->height = (int64_t)height;
  kn_type type = {.dtype = KN_U8, .device = KN_CPU, .rank = 3, .dims = {p->channels, p->height, p->width}};
  return kn_tensor_new(p->ctx, &type, &p->t);
}

/* Luma of ITU-R 601, in 16 bits of fraction. */
static uint8_t luma(const uint8_t *s) {
  return (uint8_t)((s[0] * 19595 + s[1] * 38470 + s[2] * 7471 + 32768) >> 16);
}

/* From `n` channels to p->channels of them: colour to grey and back, alpha dropped or opaque. */
void kn_picture_row(kn_picture *p, int64_t y, const uint8_t *row) {
  int64_t w = p->width, plane = w * p->height, n = p->from, to = p->channels;
  uint8_t *out = (uint8_t *)kn_tensor_data(p->t) + y * w;
  bool colour = n >= 3, alpha = n == 2 || n == 4;
  if (n == 3 && to == 3) { /* nearly all pictures */
    for (int64_t x = 0; x < w; x++, row += 3)
      out[x] = row[0], out[x + plane] = row[1], out[x + 2 * plane] = row[2];
    return;
  }
  for (int64_t x = 0; x < w; x++, row += n, out++) {
    if (to <= 2)
      out[0] = colour ? luma(row) : row[0];
    else
      for (int c = 0; c < 3; c++) out[c * plane] = row[colour ? c : 0];
    if (to == 2 || to == 4) out[(to - 1) * plane] = alpha ? row[n - 1] : 255;
  }
}

kn_status kn_image_decode(kn_context *ctx, const void *p, size_t n, kn_image_mode mode, int64_t max_pixels,
                          kn_tensor **out) {
  kn_picture picture = {.ctx = ctx, .mode = mode, .max_pixels = max_pixels};
  kn_status st = kn_is_png(p, n)    ? kn_png_decode(&picture, p, n)
                 : kn_is_jpeg(p, n) ? kn_jpeg_decode(&picture, p, n)
                 : kn_is_pnm(p, n)  ? kn_pnm_decode(&picture, p, n)
                                    : kn_fail(ctx, KN_FORMAT, "this is no PNG, JPEG, PPM or PGM picture");
  if (st == KN_OK)
    *out = picture.t;
  else
    kn_tensor_release(picture.t);
  return st;
}

/* ---- encoding ---- */

kn_status kn_planes_of(kn_context *ctx, kn_tensor *t, const char *format, bool alpha, int64_t side,
                       kn_planes *out) {
  char text[KN_TYPE_TEXT];
  const int64_t *d = t->type.dims, *s = t->strides;
  bool flat = t->type.rank == 2;
  int first = flat ? 0 : 1;
  if (kn_tensor_dtype(t) != KN_U8 || (t->type.rank != 3 && !flat) || t->type.device != KN_CPU)
    return kn_fail(ctx, KN_SHAPE, "a uint8 tensor of sizes [channels, height, width] is needed, got %s",
                   kn_type_text(&t->type, text, sizeof text));
  kn_planes p = {
      flat ? 1 : d[0], d[first], d[first + 1], kn_tensor_data(t), {flat ? 0 : s[0], s[first], s[first + 1]}};
  bool fits = p.channels == 1 || p.channels == 3 || (alpha && (p.channels == 2 || p.channels == 4));
  if (!fits)
    return kn_fail(ctx, KN_SHAPE, "a %s has %s channels, not %" PRId64, format, alpha ? "1 to 4" : "1 or 3",
                   p.channels);
  if (p.height < 1 || p.width < 1 || p.height > side || p.width > side)
    return kn_fail(ctx, KN_SHAPE, "a %s has 1 to %" PRId64 " rows and columns, got %s", format, side,
                   kn_type_text(&t->type, text, sizeof text));
  *out = p;
  return KN_OK;
}

void kn_planes_row(const kn_planes *p, int64_t y, uint8_t *row) {
  for (int64_t c = 0; c < p->channels; c++) {
    const uint8_t *from = p->data + c * p->stride[0] + y * p->stride[1];
    for (int64_t x = 0; x < p->width; x++) row[x * p->channels + c] = from[x * p->stride[2]];
  }
}
