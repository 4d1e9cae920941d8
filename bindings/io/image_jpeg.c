/* JPEG by libjpeg(-turbo). It reports errors through a function that must not return: that one jumps back to
 * the function that called it, over nothing of ours that owns. Warnings that mean lost picture data are
 * errors; others are not told. */
#include "bindings/io/image.h"
#include <setjmp.h>
#include <stdio.h> /* before jpeglib.h, which needs FILE */
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

bool kn_is_jpeg(const void *p, size_t n) { return n >= 3 && !memcmp(p, "\xff\xd8\xff", 3); }

typedef struct job {
  struct jpeg_error_mgr errors; /* first: libjpeg hands it back */
  jmp_buf target;
  kn_context *ctx;
  kn_status status;          /* of our own part */
  char why[JMSG_LENGTH_MAX]; /* libjpeg's sentence */
  uint8_t *row, *rgb;
  size_t room;
  struct jpeg_source_mgr source;
  struct jpeg_progress_mgr progress;
  struct jpeg_destination_mgr destination;
  kn_bytes *out;
  JOCTET buffer[4096];
} job;

static void failed(j_common_ptr info) {
  job *j = (job *)(void *)info->err;
  if (!j->why[0]) info->err->format_message(info, j->why);
  longjmp(j->target, 1);
}

static void warned(j_common_ptr info, int level) {
  int code = info->err->msg_code;
  if (level < 0 && (code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC ||
                    code == JWRN_ARITH_BAD_CODE || code == JWRN_JPEG_EOF))
    failed(info);
}

static void no_output(j_common_ptr info) { (void)info; }

/* Stops with a status of ours. */
static void stop(job *j, kn_status st) {
  j->status = st;
  longjmp(j->target, 1);
}

static struct jpeg_error_mgr *errors_of(job *j) {
  jpeg_std_error(&j->errors);
  j->errors.error_exit = failed;
  j->errors.emit_message = warned;
  j->errors.output_message = no_output;
  return &j->errors;
}

static kn_status finish(job *j, bool good) {
  kn_free(j->ctx->heap, j->row, j->room);
  kn_free(j->ctx->heap, j->rgb, j->room);
  if (good || j->status != KN_OK) return j->status;
  return kn_fail(j->ctx, KN_FORMAT, "the JPEG cannot be %s: %s", j->out ? "written" : "read", j->why);
}

static bool claim(job *j, size_t room) {
  j->room = room;
  j->row = kn_alloc(j->ctx->heap, room);
  j->rgb = kn_alloc(j->ctx->heap, room);
  return j->row && j->rgb;
}

/* ---- decoding ---- */

typedef struct decoder {
  job j; /* first: errors lead here */
  struct jpeg_decompress_struct info;
  kn_picture *picture;
} decoder;

static void source_nothing(j_decompress_ptr info) { (void)info; }

static boolean source_ended(j_decompress_ptr info) {
  job *j = (job *)(void *)info->err;
  strcpy(j->why, "the file ends too early");
  failed((j_common_ptr)info);
  return FALSE;
}

static void source_skip(j_decompress_ptr info, long n) {
  struct jpeg_source_mgr *s = info->src;
  if (n <= 0) return;
  if ((size_t)n > s->bytes_in_buffer) source_ended(info);
  s->next_input_byte += n;
  s->bytes_in_buffer -= (size_t)n;
}

/* A file of many scans costs as much time as it says, not as it has bytes. */
enum { MOST_SCANS = 500 };
static void progressed(j_common_ptr common) {
  j_decompress_ptr info = (j_decompress_ptr)common;
  job *j = (job *)(void *)common->err;
  if (info->input_scan_number <= MOST_SCANS) return;
  snprintf(j->why, sizeof j->why, "it has more than %d scans", MOST_SCANS);
  failed(common);
}

/* Four inks to three colours; Adobe's programs store them inverted. */
static void inks_to_colours(const uint8_t *from, uint8_t *to, int64_t n, bool inverted) {
  for (int64_t i = 0; i < n; i++, from += 4, to += 3) {
    int k = inverted ? from[3] : 255 - from[3];
    for (int c = 0; c < 3; c++) to[c] = (uint8_t)(((inverted ? from[c] : 255 - from[c]) * k + 127) / 255);
  }
}

static void read_picture(decoder *d) {
  struct jpeg_decompress_struct *info = &d->info;
  kn_picture *p = d->picture;
  jpeg_read_header(info, TRUE);
  bool grey = info->num_components == 1, inks = info->num_components == 4;
  if (!inks) grey = grey || p->mode == KN_IMAGE_GRAY || p->mode == KN_IMAGE_GRAY_ALPHA;
  if (info->jpeg_color_space == JCS_RGB && info->num_components == 3) grey = false; /* made grey by us */
  info->out_color_space = inks ? JCS_CMYK : grey ? JCS_GRAYSCALE : JCS_RGB;
  kn_status st = kn_picture_begin(p, info->image_width, info->image_height, grey ? 1 : 3);
  if (st != KN_OK) stop(&d->j, st);
  jpeg_start_decompress(info);
  if (!claim(&d->j, (size_t)info->output_width * 4)) stop(&d->j, kn_fail_nomem(d->j.ctx, d->j.room));
  if (info->output_width != p->width || info->output_height != p->height) ERREXIT(info, JERR_BAD_STATE);
  while (info->output_scanline < info->output_height) {
    JDIMENSION y = info->output_scanline;
    JSAMPROW rows[1] = {d->j.row};
    jpeg_read_scanlines(info, rows, 1);
    if (inks) inks_to_colours(d->j.row, d->j.rgb, p->width, info->saw_Adobe_marker);
    kn_picture_row(p, y, inks ? d->j.rgb : d->j.row);
  }
  jpeg_finish_decompress(info);
}

static bool decode_guarded(decoder *d, const void *bytes, size_t n) {
  if (setjmp(d->j.target)) return false;
  jpeg_create_decompress(&d->info);
  d->j.source = (struct jpeg_source_mgr){
      bytes, n, source_nothing, source_ended, source_skip, jpeg_resync_to_restart, source_nothing};
  d->j.progress.progress_monitor = progressed;
  d->info.src = &d->j.source;
  d->info.progress = &d->j.progress;
  read_picture(d);
  return true;
}

kn_status kn_jpeg_decode(kn_picture *p, const void *bytes, size_t n) {
  decoder d = {.picture = p, .j.ctx = p->ctx};
  d.info.err = errors_of(&d.j);
  bool good = decode_guarded(&d, bytes, n);
  jpeg_destroy_decompress(&d.info);
  return finish(&d.j, good);
}

/* ---- encoding ---- */

typedef struct encoder {
  job j; /* first */
  struct jpeg_compress_struct info;
  kn_planes planes;
  int quality;
} encoder;

static void buffer_begins(j_compress_ptr info) {
  job *j = (job *)(void *)info->err;
  j->destination.next_output_byte = j->buffer;
  j->destination.free_in_buffer = sizeof j->buffer;
}

static void add(job *j, size_t n) {
  if (!kn_bytes_add(j->out, j->buffer, n)) stop(j, kn_fail_nomem(j->ctx, j->out->n + n));
}

static boolean buffer_full(j_compress_ptr info) {
  add((job *)(void *)info->err, sizeof((job *)0)->buffer);
  buffer_begins(info);
  return TRUE;
}

static void buffer_ends(j_compress_ptr info) {
  job *j = (job *)(void *)info->err;
  add(j, sizeof j->buffer - j->destination.free_in_buffer);
}

static bool encode_guarded(encoder *e) {
  if (setjmp(e->j.target)) return false;
  struct jpeg_compress_struct *info = &e->info;
  jpeg_create_compress(info);
  e->j.destination.init_destination = buffer_begins;
  e->j.destination.empty_output_buffer = buffer_full;
  e->j.destination.term_destination = buffer_ends;
  info->dest = &e->j.destination;
  info->image_width = (JDIMENSION)e->planes.width;
  info->image_height = (JDIMENSION)e->planes.height;
  info->input_components = (int)e->planes.channels;
  info->in_color_space = e->planes.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(info);
  jpeg_set_quality(info, e->quality, TRUE);
  jpeg_start_compress(info, TRUE);
  while (info->next_scanline < info->image_height) {
    kn_planes_row(&e->planes, info->next_scanline, e->j.row);
    JSAMPROW rows[1] = {e->j.row};
    jpeg_write_scanlines(info, rows, 1);
  }
  jpeg_finish_compress(info);
  return true;
}

kn_status kn_jpeg_encode(kn_context *ctx, kn_tensor *t, int quality, kn_bytes *out) {
  encoder e = {.j.ctx = ctx, .j.out = out, .quality = quality};
  KN_TRY(kn_planes_of(ctx, t, "JPEG", false, JPEG_MAX_DIMENSION, &e.planes));
  e.info.err = errors_of(&e.j);
  bool good = false;
  if (!claim(&e.j, (size_t)(e.planes.width * 4)))
    e.j.status = kn_fail_nomem(ctx, e.j.room);
  else
    good = encode_guarded(&e);
  jpeg_destroy_compress(&e.info);
  return finish(&e.j, good);
}
