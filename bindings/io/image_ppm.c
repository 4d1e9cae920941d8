/* PPM and PGM: P2 and P3 (decimals), P5 and P6 (bytes), up to 16 bits a sample. Written as P5 and P6. */
#include "bindings/io/image.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool kn_is_pnm(const void *p, size_t n) {
  const char *s = p;
  return n >= 2 && s[0] == 'P' && s[1] >= '1' && s[1] <= '7';
}

typedef struct reader {
  const unsigned char *at, *end;
} reader;

static bool blank(unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A decimal of at most `most`; blanks and comments before it are skipped. */
static bool take_number(reader *r, uint64_t most, uint64_t *out) {
  while (r->at < r->end && (blank(*r->at) || *r->at == '#'))
    if (*r->at++ == '#')
      while (r->at < r->end && *r->at != '\n' && *r->at != '\r') r->at++;
  uint64_t v = 0;
  const unsigned char *first = r->at;
  for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
    v = v * 10 + (uint64_t)(*r->at - '0');
    if (v > most) return false;
  }
  *out = v;
  return r->at > first;
}

static uint8_t scaled(uint64_t v, uint64_t maxval) {
  if (maxval == 255) return (uint8_t)v;
  return (uint8_t)((v * 255 + maxval / 2) / maxval);
}

/* A row of samples. False when the file ends or a sample is too large. */
static bool take_row(reader *r, bool decimal, uint64_t maxval, uint8_t *row, size_t n) {
  size_t each = maxval > 255 ? 2 : 1;
  if (!decimal && (size_t)(r->end - r->at) < n * each) return false;
  for (size_t i = 0; i < n; i++) {
    uint64_t v;
    if (decimal) {
      if (!take_number(r, maxval, &v)) return false;
    } else {
      v = each == 2 ? (uint64_t)r->at[0] << 8 | r->at[1] : r->at[0];
      r->at += each;
      if (v > maxval) return false;
    }
    row[i] = scaled(v, maxval);
  }
  return true;
}

kn_status kn_pnm_decode(kn_picture *p, const void *bytes, size_t n) {
  reader r = {(const unsigned char *)bytes + 2, (const unsigned char *)bytes + n};
  char kind = ((const char *)bytes)[1];
  uint64_t width, height, maxval;
  if (kind == '1' || kind == '4' || kind == '7')
    return kn_fail(p->ctx, KN_UNSUPPORTED, "P%c (%s) is not supported: P2, P3, P5 and P6 are", kind,
                   kind == '7' ? "PAM" : "PBM");
  bool colour = kind == '3' || kind == '6', decimal = kind < '4';
  if (!take_number(&r, INT32_MAX, &width) || !take_number(&r, INT32_MAX, &height) ||
      !take_number(&r, 65535, &maxval) || !maxval || r.at == r.end || !blank(*r.at))
    return kn_fail(p->ctx, KN_FORMAT, "the header of the P%c picture is damaged", kind);
  r.at++;
  size_t samples = (size_t)width * (colour ? 3 : 1), there = (size_t)(r.end - r.at);
  size_t rows = samples ? (decimal ? (there + 1) / 2 : maxval > 255 ? there / 2 : there) / samples : height;
  if (rows < height)
    return kn_fail(p->ctx, KN_FORMAT, "the P%c picture ends too early: %zu bytes follow its header", kind,
                   there);
  KN_TRY(kn_picture_begin(p, width, height, colour ? 3 : 1));
  uint8_t *row = kn_alloc(p->ctx->heap, samples);
  if (!row) return kn_fail_nomem(p->ctx, samples);
  kn_status st = KN_OK;
  for (int64_t y = 0; st == KN_OK && y < p->height; y++) {
    if (take_row(&r, decimal, maxval, row, samples))
      kn_picture_row(p, y, row);
    else
      st = kn_fail(p->ctx, KN_FORMAT, "row %" PRId64 " of the P%c picture is damaged, or not all there",
                   y + 1, kind);
  }
  kn_free(p->ctx->heap, row, samples);
  return st;
}

kn_status kn_ppm_encode(kn_context *ctx, kn_tensor *t, kn_bytes *out) {
  kn_planes p;
  char header[64];
  KN_TRY(kn_planes_of(ctx, t, "PPM", false, INT32_MAX, &p));
  int n = snprintf(header, sizeof header, "P%c\n%" PRId64 " %" PRId64 "\n255\n", p.channels == 1 ? '5' : '6',
                   p.width, p.height);
  size_t row = (size_t)(p.width * p.channels);
  if (!kn_bytes_add(out, header, (size_t)n) || !kn_bytes_reserve(out, row * (size_t)p.height))
    return kn_fail_nomem(ctx, row * (size_t)p.height);
  for (int64_t y = 0; y < p.height; y++, out->n += row) kn_planes_row(&p, y, (uint8_t *)out->p + out->n);
  return KN_OK;
}
