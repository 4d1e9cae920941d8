/* WAV files in memory as float32 tensors [channels, frames], and back. Whole numbers of 8, 16, 24 and 32 bits
 * become -1 to 1; floats of 32 and 64 bits stay as they are. */
#ifndef KN_WAV_H
#define KN_WAV_H
#include "bindings/io/bytes.h"
#include "core/tensor.h"

kn_status kn_wav_decode(kn_context *ctx, const void *p, size_t n, kn_tensor **out, uint32_t *rate);

/* X(enum, name, bits, is float) */
#define KN_WAV_KINDS(X)                                                                                      \
  X(U8, "uint8", 8, false)                                                                                   \
  X(I16, "int16", 16, false) X(I24, "int24", 24, false) X(I32, "int32", 32, false) X(F32, "float32", 32, true)
typedef enum kn_wav_kind {
#define X(e, name, bits, is_float) KN_WAV_##e,
  KN_WAV_KINDS(X)
#undef X
} kn_wav_kind;
bool kn_wav_kind_parse(const char *name, kn_wav_kind *out);
/* t: float32 of sizes [channels, frames] or [frames]; what is outside of -1 to 1 is clipped in whole numbers.
 */
kn_status kn_wav_encode(kn_context *ctx, kn_tensor *t, uint32_t rate, kn_wav_kind kind, kn_bytes *out);

#endif
