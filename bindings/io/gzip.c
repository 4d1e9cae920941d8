/* gzip in memory, by zlib, which checks the checksum and the length at the end of each member. */
#include "bindings/io/bytes.h"
#include <limits.h>
#include <zlib.h>

bool kn_is_gzip(const void *p, size_t n) {
  const unsigned char *b = p;
  return n >= 3 && b[0] == 0x1f && b[1] == 0x8b && b[2] == 8;
}

enum { PIECE = 1 << 20 };

/* Until the end of a member. What is left to read is in z and *rest. */
static kn_status member(kn_context *ctx, z_stream *z, size_t *rest, uint64_t limit, kn_bytes *out) {
  for (;;) {
    if (!z->avail_in && *rest) {
      z->avail_in = *rest < PIECE ? (uInt)*rest : PIECE;
      *rest -= z->avail_in;
    }
    if (!kn_bytes_reserve(out, 64 << 10)) return kn_fail_nomem(ctx, out->room * 2);
    size_t room = out->room - out->n;
    uInt ask = room < PIECE ? (uInt)room : PIECE;
    z->next_out = (Bytef *)out->p + out->n;
    z->avail_out = ask;
    int rc = inflate(z, Z_NO_FLUSH);
    out->n += ask - z->avail_out;
    if (out->n > limit)
      return kn_fail(ctx, KN_LIMIT, "unpacked it has more than the limit of %llu bytes",
                     (unsigned long long)limit);
    if (rc == Z_STREAM_END) return KN_OK;
    if (rc == Z_MEM_ERROR) return kn_fail_nomem(ctx, 0);
    if (rc == Z_BUF_ERROR && !z->avail_in && !*rest)
      return kn_fail(ctx, KN_FORMAT, "the gzip data ends too early");
    if (rc != Z_OK && rc != Z_BUF_ERROR)
      return kn_fail(ctx, KN_FORMAT, "the gzip data is damaged: %s", z->msg ? z->msg : "unknown error");
  }
}

kn_status kn_gunzip(kn_context *ctx, const void *p, size_t n, uint64_t limit, kn_bytes *out) {
  z_stream z = {.next_in = (z_const Bytef *)(uintptr_t)p};
  kn_bytes b = {.heap = ctx->heap};
  if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) return kn_fail_nomem(ctx, 0);
  size_t rest = n;
  kn_status st;
  do st = member(ctx, &z, &rest, limit ? limit : UINT64_MAX, &b);
  while (st == KN_OK && kn_is_gzip(z.next_in, z.avail_in + rest) && inflateReset(&z) == Z_OK);
  inflateEnd(&z);
  if (st == KN_OK)
    *out = b;
  else
    kn_bytes_free(&b);
  return st;
}
