/* PNG by libpng. It reports errors by longjmp: each call of it stands in a function that has set the target,
 * what is owned is in a struct of the caller's, and nothing of ours that owns is jumped over. */
#include "bindings/io/image.h"
#include <png.h>
#include <setjmp.h>
#include <string.h>

bool kn_is_png(const void *p, size_t n) { return n >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8); }

typedef struct job {
  kn_picture *picture; /* of a decoder */
  kn_context *ctx;
  png_structp png;
  png_infop info;
  const char *at, *end; /* not read yet */
  uint8_t *rows;        /* one, or all of an interlaced picture */
  size_t room;
  uint8_t **list; /* where each begins */
  size_t list_room;
  kn_bytes *out;    /* of an encoder */
  kn_planes planes; /* of an encoder */
  int level;        /* of an encoder */
  kn_status status; /* of our own part */
  char why[120];    /* libpng's sentence */
} job;

static void failed(png_structp png, png_const_charp why) {
  job *j = png_get_error_ptr(png);
  if (!j->why[0]) strncpy(j->why, why, sizeof j->why - 1);
  png_longjmp(png, 1);
}

static void warned(png_structp png, png_const_charp why) { (void)png, (void)why; }

static void take(png_structp png, png_bytep to, size_t n) {
  job *j = png_get_io_ptr(png);
  if (n > (size_t)(j->end - j->at)) png_error(png, "the file ends too early");
  memcpy(to, j->at, n);
  j->at += n;
}

/* Stops with a status of ours. */
static void stop(job *j, kn_status st) {
  j->status = st;
  png_longjmp(j->png, 1);
}

/* ---- decoding ---- */

/* Everything to 8 bits a sample; palettes to colours; transparency to alpha. */
static int expand(job *j) {
  png_structp png = j->png;
  png_set_expand(png);
  png_set_scale_16(png);
  png_read_update_info(png, j->info);
  return png_get_channels(png, j->info);
}

static bool claim(job *j, size_t row, size_t height, bool whole) {
  j->room = whole ? row * height : row; /* bounded by the limit on pixels */
  j->rows = kn_alloc(j->ctx->heap, j->room);
  j->list_room = whole ? height * sizeof *j->list : 0;
  if (whole) j->list = kn_alloc(j->ctx->heap, j->list_room);
  for (size_t y = 0; whole && j->rows && j->list && y < height; y++) j->list[y] = j->rows + y * row;
  return j->rows && (j->list || !whole);
}

static void read_picture(job *j) {
  png_structp png = j->png;
  png_read_info(png, j->info);
  png_uint_32 width = png_get_image_width(png, j->info), height = png_get_image_height(png, j->info);
  bool whole = png_get_interlace_type(png, j->info) != PNG_INTERLACE_NONE;
  int channels = expand(j);
  kn_status st = kn_picture_begin(j->picture, width, height, channels);
  if (st != KN_OK) stop(j, st);
  size_t row = png_get_rowbytes(png, j->info);
  if (row != (size_t)width * (size_t)channels) png_error(png, "rows have an odd size");
  if (!claim(j, row, height, whole)) stop(j, kn_fail_nomem(j->ctx, j->room));
  if (whole) png_read_image(png, j->list);
  for (png_uint_32 y = 0; y < height; y++) {
    if (!whole) png_read_row(png, j->rows, NULL);
    kn_picture_row(j->picture, y, whole ? j->list[y] : j->rows);
  }
  png_read_end(png, NULL);
}

static bool guarded(job *j, void (*body)(job *)) {
  if (setjmp(png_jmpbuf(j->png))) return false;
  body(j);
  return true;
}

static kn_status finish(job *j, bool good) {
  kn_free(j->ctx->heap, j->rows, j->room);
  kn_free(j->ctx->heap, j->list, j->list_room);
  if (good || j->status != KN_OK) return j->status;
  return kn_fail(j->ctx, KN_FORMAT, "the PNG cannot be %s: %s", j->out ? "written" : "read", j->why);
}

kn_status kn_png_decode(kn_picture *p, const void *bytes, size_t n) {
  job j = {.picture = p, .ctx = p->ctx, .at = bytes, .end = (const char *)bytes + n};
  j.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &j, failed, warned);
  if (j.png) j.info = png_create_info_struct(j.png);
  bool good = false;
  if (!j.info)
    j.status = kn_fail_nomem(p->ctx, 0);
  else {
    png_set_read_fn(j.png, &j, take);
    png_set_user_limits(j.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* ours comes before any memory is taken */
    png_set_chunk_malloc_max(j.png, 4 << 20);
    png_set_chunk_cache_max(j.png, 64);
    good = guarded(&j, read_picture);
  }
  png_destroy_read_struct(&j.png, &j.info, NULL);
  return finish(&j, good);
}

/* ---- encoding ---- */

static void put(png_structp png, png_bytep p, size_t n) {
  job *j = png_get_io_ptr(png);
  if (!kn_bytes_add(j->out, p, n)) stop(j, kn_fail_nomem(j->ctx, j->out->n + n));
}

static void flush(png_structp png) { (void)png; }

static void write_picture(job *j) {
  static const int colours[] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                PNG_COLOR_TYPE_RGB_ALPHA};
  const kn_planes *p = &j->planes;
  png_set_user_limits(j->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_set_compression_level(j->png, j->level);
  png_set_IHDR(j->png, j->info, (png_uint_32)p->width, (png_uint_32)p->height, 8, colours[p->channels],
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(j->png, j->info);
  for (int64_t y = 0; y < p->height; y++) {
    kn_planes_row(p, y, j->rows);
    png_write_row(j->png, j->rows);
  }
  png_write_end(j->png, NULL);
}

kn_status kn_png_encode(kn_context *ctx, kn_tensor *t, int level, kn_bytes *out) {
  job j = {.ctx = ctx, .out = out, .level = level};
  KN_TRY(kn_planes_of(ctx, t, "PNG", true, 1 << 24, &j.planes));
  bool good = false;
  j.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &j, failed, warned);
  if (j.png) j.info = png_create_info_struct(j.png);
  if (!j.info || !claim(&j, (size_t)(j.planes.width * j.planes.channels), 1, false))
    j.status = kn_fail_nomem(ctx, j.room);
  else {
    png_set_write_fn(j.png, &j, put, flush);
    good = guarded(&j, write_picture);
  }
  png_destroy_write_struct(&j.png, &j.info);
  return finish(&j, good);
}
