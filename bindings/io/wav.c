/* The WAV format: see wav.h. */
#include "bindings/io/wav.h"
#include <math.h>
#include <string.h>

enum { PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe, MOST_CHANNELS = 1024 };

static const struct {
  const char *name;
  unsigned bits;
  bool is_float;
} kinds[] = {
#define X(e, name, bits, is_float) {name, bits, is_float},
    KN_WAV_KINDS(X)
#undef X
};

bool kn_wav_kind_parse(const char *name, kn_wav_kind *out) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(kinds[i].name, name)) return *out = (kn_wav_kind)i, true;
  return false;
}

/* ---- decoding ---- */

typedef struct sound {
  unsigned format, channels, block, bits;
  uint32_t rate;
  const unsigned char *data;
  size_t bytes;
} sound;

static uint32_t u16(const unsigned char *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const unsigned char *p) { return u16(p) | u16(p + 2) << 16; }

static kn_status read_format(kn_context *ctx, const unsigned char *p, size_t n, sound *s) {
  if (n < 16) return kn_fail(ctx, KN_FORMAT, "the WAV's format chunk has %zu bytes, not 16", n);
  s->format = u16(p), s->channels = u16(p + 2), s->rate = u32(p + 4), s->block = u16(p + 12),
  s->bits = u16(p + 14);
  if (s->format == EXTENSIBLE && n >= 26) s->format = u16(p + 24);
  bool known = s->format == PCM ? s->bits == 8 || s->bits == 16 || s->bits == 24 || s->bits == 32
                                : s->format == FLOAT && (s->bits == 32 || s->bits == 64);
  if (!known)
    return kn_fail(ctx, KN_UNSUPPORTED,
                   "WAV format %u of %u bits is not supported: PCM of 8, 16, 24 and 32 bits and floats of 32 "
                   "and 64 bits are",
                   s->format, s->bits);
  if (!s->channels || s->channels > MOST_CHANNELS || s->block != s->channels * (s->bits / 8) || !s->rate)
    return kn_fail(ctx, KN_FORMAT,
                   "the WAV's format is damaged: %u channels, %u bits, blocks of %u bytes, rate %u",
                   s->channels, s->bits, s->block, (unsigned)s->rate);
  return KN_OK;
}

static kn_status find_chunks(kn_context *ctx, const unsigned char *p, size_t n, sound *s) {
  if (n < 12 || memcmp(p, "RIFF", 4) != 0 || memcmp(p + 8, "WAVE", 4) != 0)
    return kn_fail(ctx, KN_FORMAT, "this is no WAV file");
  for (size_t at = 12; n - at >= 8;) {
    const unsigned char *chunk = p + at;
    size_t size = u32(chunk + 4), left = n - at - 8;
    bool data = !memcmp(chunk, "data", 4);
    if (data && size == UINT32_MAX) size = left; /* written to a pipe: it goes to the end */
    if (size > left)
      return kn_fail(ctx, KN_FORMAT, "the WAV ends too early: a chunk of %zu bytes is promised, %zu are left",
                     size, left);
    if (!memcmp(chunk, "fmt ", 4)) KN_TRY(read_format(ctx, chunk + 8, size, s));
    if (data) {
      s->data = chunk + 8, s->bytes = size;
      break;
    }
    at += 8 + size;
    if (size % 2 && at < n) at++; /* chunks begin at even places */
  }
  if (!s->block || !s->data)
    return kn_fail(ctx, KN_FORMAT, "the WAV has no %s chunk", s->block ? "data" : "format");
  return KN_OK;
}

static float sample(const unsigned char *p, unsigned format, unsigned bits) {
  switch (bits) {
  case 8: return ((float)p[0] - 128) / 128;
  case 16: return (float)(int16_t)u16(p) / 0x1p15f;
  case 24: return (float)((int32_t)(u16(p) << 8 | (uint32_t)p[2] << 24) >> 8) / 0x1p23f;
  case 32: {
    uint32_t u = u32(p);
    float f;
    memcpy(&f, &u, sizeof f);
    return format == FLOAT ? f : (float)(int32_t)u / 0x1p31f;
  }
  default: {
    uint64_t u = u32(p) | (uint64_t)u32(p + 4) << 32;
    double d;
    memcpy(&d, &u, sizeof d);
    return (float)d;
  }
  }
}

kn_status kn_wav_decode(kn_context *ctx, const void *p, size_t n, kn_tensor **out, uint32_t *rate) {
  sound s = {.block = 0};
  kn_tensor *t;
  KN_TRY(find_chunks(ctx, p, n, &s));
  if (s.bytes % s.block)
    return kn_fail(ctx, KN_FORMAT, "the WAV has %zu bytes of sound, no whole number of frames of %u", s.bytes,
                   s.block);
  int64_t frames = (int64_t)(s.bytes / s.block), channels = s.channels;
  kn_type type = {.dtype = KN_F32, .device = KN_CPU, .rank = 2, .dims = {channels, frames}};
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  float *to = kn_tensor_data(t);
  for (int64_t i = 0; i < frames; i++)
    for (int64_t c = 0; c < channels; c++, s.data += s.bits / 8)
      to[c * frames + i] = sample(s.data, s.format, s.bits);
  *out = t;
  *rate = s.rate;
  return KN_OK;
}

/* ---- encoding ---- */

static void put_u(unsigned char *p, uint32_t v, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static void put_sample(unsigned char *p, float f, kn_wav_kind kind) {
  unsigned bits = kinds[kind].bits;
  uint32_t u;
  if (kinds[kind].is_float)
    memcpy(&u, &f, sizeof u);
  else {
    double top = ldexp(1, (int)bits - 1), v = isnan(f) ? 0 : nearbyint((double)f * top);
    v = v < -top ? -top : v > top - 1 ? top - 1 : v;
    u = (uint32_t)(int32_t)v + (bits == 8 ? 128u : 0);
  }
  put_u(p, u, bits / 8);
}

static void put_header(unsigned char *h, uint32_t rate, uint32_t channels, uint32_t bytes, kn_wav_kind kind) {
  uint32_t block = channels * (kinds[kind].bits / 8);
  memcpy(h, "RIFF....WAVEfmt ", 16);
  put_u(h + 4, 36 + bytes + bytes % 2, 4);
  put_u(h + 16, 16, 4);
  put_u(h + 20, kinds[kind].is_float ? FLOAT : PCM, 2);
  put_u(h + 22, channels, 2);
  put_u(h + 24, rate, 4);
  put_u(h + 28, rate * block, 4);
  put_u(h + 32, block, 2);
  put_u(h + 34, kinds[kind].bits, 2);
  memcpy(h + 36, "data", 4);
  put_u(h + 40, bytes, 4);
}

kn_status kn_wav_encode(kn_context *ctx, kn_tensor *t, uint32_t rate, kn_wav_kind kind, kn_bytes *out) {
  enum { HEADER = 44 };
  char text[KN_TYPE_TEXT];
  bool flat = t->type.rank == 1;
  if (kn_tensor_dtype(t) != KN_F32 || (t->type.rank != 2 && !flat) || t->type.device != KN_CPU)
    return kn_fail(ctx, KN_SHAPE, "a float32 tensor of sizes [channels, frames] is needed, got %s",
                   kn_type_text(&t->type, text, sizeof text));
  int64_t channels = flat ? 1 : t->type.dims[0], frames = t->type.dims[flat ? 0 : 1],
          each = kinds[kind].bits / 8;
  if (channels < 1 || channels > MOST_CHANNELS || frames > (INT32_MAX - HEADER) / (channels * each))
    return kn_fail(ctx, KN_SHAPE, "a WAV has 1 to %d channels and at most 2 GB, got %s", MOST_CHANNELS,
                   kn_type_text(&t->type, text, sizeof text));
  if ((uint64_t)rate * (uint64_t)(channels * each) > UINT32_MAX)
    return kn_fail(ctx, KN_ARG, "a rate of %u is too high for %d channels", (unsigned)rate, (int)channels);
  size_t bytes = (size_t)(frames * channels * each), all = HEADER + bytes + bytes % 2;
  if (!kn_bytes_reserve(out, all)) return kn_fail_nomem(ctx, all);
  unsigned char *to = (unsigned char *)out->p + out->n;
  put_header(to, rate, (uint32_t)channels, (uint32_t)bytes, kind);
  to[all - 1] = 0;
  to += HEADER;
  const float *data = kn_tensor_data(t);
  const int64_t across = flat ? 0 : t->strides[0], along = t->strides[flat ? 0 : 1];
  for (int64_t i = 0; i < frames; i++)
    for (int64_t c = 0; c < channels; c++, to += each) put_sample(to, data[c * across + i * along], kind);
  out->n += all;
  return KN_OK;
}
