/* Pictures: PNG, JPEG, PPM and PGM in memory to uint8 tensors [channels, height, width], and back. Files are
 * told apart by their first bytes. Samples of 16 bits are brought to 8. */
#ifndef KN_IMAGE_H
#define KN_IMAGE_H
#include "bindings/io/bytes.h"
#include "core/tensor.h"

/* X(enum, name, channels): torchvision's ImageReadMode. */
#define KN_IMAGE_MODES(X)                                                                                    \
  X(UNCHANGED, "UNCHANGED", 0)                                                                               \
  X(GRAY, "GRAY", 1) X(GRAY_ALPHA, "GRAY_ALPHA", 2) X(RGB, "RGB", 3) X(RGB_ALPHA, "RGB_ALPHA", 4)
typedef enum kn_image_mode {
#define X(e, name, channels) KN_IMAGE_##e,
  KN_IMAGE_MODES(X)
#undef X
} kn_image_mode;
bool kn_image_mode_parse(const char *name, kn_image_mode *out);

/* max_pixels bounds height * width; 0: 2^28. */
kn_status kn_image_decode(kn_context *ctx, const void *p, size_t n, kn_image_mode mode, int64_t max_pixels,
                          kn_tensor **out);

/* t: uint8 of sizes [channels, height, width] or [height, width], on the CPU. Added to out. */
kn_status kn_png_encode(kn_context *ctx, kn_tensor *t, int level,
                        kn_bytes *out); /* 1 to 4 channels; 0 to 9 */
kn_status kn_jpeg_encode(kn_context *ctx, kn_tensor *t, int quality, kn_bytes *out); /* 1 or 3; 1 to 100 */
kn_status kn_ppm_encode(kn_context *ctx, kn_tensor *t, kn_bytes *out);               /* 1 (PGM) or 3 */

/* ---- between the files of pictures ---- */

/* A picture being decoded. Decoders know nothing of tensors: they call begin, then row for every y. */
typedef struct kn_picture {
  kn_context *ctx;
  kn_image_mode mode;
  int64_t max_pixels;
  kn_tensor *t; /* made by begin; the caller's to release or keep */
  int64_t width, height, channels;
  int from; /* channels of the rows */
} kn_picture;

/* Rows will come with `channels`: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. */
kn_status kn_picture_begin(kn_picture *p, uint64_t width, uint64_t height, int channels);
void kn_picture_row(kn_picture *p, int64_t y, const uint8_t *row);

bool kn_is_png(const void *p, size_t n);
bool kn_is_jpeg(const void *p, size_t n);
bool kn_is_pnm(const void *p, size_t n);
kn_status kn_png_decode(kn_picture *p, const void *bytes, size_t n);
kn_status kn_jpeg_decode(kn_picture *p, const void *bytes, size_t n);
kn_status kn_pnm_decode(kn_picture *p, const void *bytes, size_t n);

/* What is to be encoded: sizes, and where its samples are. */
typedef struct kn_planes {
  int64_t channels, height, width;
  const uint8_t *data;
  int64_t stride[3];
} kn_planes;
/* `most` channels at most; 2 only where alpha is said to be possible. */
kn_status kn_planes_of(kn_context *ctx, kn_tensor *t, const char *format, bool alpha, int64_t side,
                       kn_planes *out);
void kn_planes_row(const kn_planes *p, int64_t y, uint8_t *row); /* interleaved */

#endif
