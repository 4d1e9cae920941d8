/* float16 (IEEE binary16) and bfloat16 (the upper half of a float32) as their bits, in and out of float32 and
 * float64. Widening is exact. Narrowing rounds to nearest, ties to even, overflows to infinity, keeps the
 * sign and the upper payload bits of a nan and makes it quiet. Plain integer code, so it is the same
 * everywhere and loops of it vectorise. */
#ifndef KN_HALF_H
#define KN_HALF_H
#include <stdint.h>
#include <string.h>

static inline uint32_t kn_f32_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
static inline float kn_f32_from_bits(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* yes where `when`, else no; without a branch, which compilers do not vectorise around float arithmetic. */
static inline uint32_t kn_bits_choose(int when, uint32_t yes, uint32_t no) {
  uint32_t mask = 0u - (uint32_t)when;
  return (yes & mask) | (no & ~mask);
}

/* Exponents of float16 have the bias 15, those of float32 127. A subnormal is read as if it were the next
 * larger exponent's mantissa, and what that adds, 2^-14, is taken off again. */
static inline float kn_f16_to_f32(uint16_t h) {
  uint32_t rest = (uint32_t)(h & 0x7fffu) << 13, sign = (uint32_t)(h & 0x8000u) << 16;
  uint32_t small = kn_f32_bits(kn_f32_from_bits(rest + (113u << 23)) - 0x1p-14f);
  /* Infinity, nan: the exponent is all ones again. */
  uint32_t other = rest + (112u << 23) + kn_bits_choose(rest >= 0x7c00u << 13, 112u << 23, 0);
  return kn_f32_from_bits(kn_bits_choose(rest < 0x0400u << 13, small, other) | sign);
}

static inline uint16_t kn_f32_to_f16(float x) {
  uint32_t u = kn_f32_bits(x), sign = u >> 16 & 0x8000u, rest = u & 0x7fffffffu;
  int is_small = rest < 0x38800000u; /* 2^-14 */
  /* Dropping 13 bits: just under half is added, and one more if the last bit kept is odd. */
  uint32_t normal = (rest - (112u << 23) + 0xfffu + (rest >> 13 & 1)) >> 13;
  /* Subnormals: the last place is 2^-24, as it is in float32 next to 0.5, so that adding 0.5 rounds. */
  float tiny = kn_f32_from_bits(kn_bits_choose(is_small, rest, 0));
  uint32_t small = kn_f32_bits(tiny + 0.5f) - 0x3f000000u;
  uint32_t special = kn_bits_choose(rest > 0x7f800000u, 0x7e00u | (rest >> 13 & 0x3ffu), 0x7c00u);
  uint32_t finite = kn_bits_choose(is_small, small, normal);
  return (uint16_t)(kn_bits_choose(rest < 0x47800000u, finite, special) | sign);
}

static inline float kn_bf16_to_f32(uint16_t h) { return kn_f32_from_bits((uint32_t)h << 16); }

static inline uint16_t kn_f32_to_bf16(float x) {
  uint32_t u = kn_f32_bits(x);
  uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40u;
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* float64 is first made float32 with the last bit odd wherever something was lost: rounding that once more to
 * far fewer bits then gives what rounding x at once would have given. */
static inline float kn_f64_to_f32_odd(double x) {
  float near = (float)x;
  double back = (double)near;
  uint32_t u = kn_f32_bits(near);
  if (back == x || x != x || u & 1) return near;
  return kn_f32_from_bits((back < 0 ? -back : back) > (x < 0 ? -x : x) ? u - 1 : u + 1);
}

static inline uint16_t kn_f64_to_f16(double x) { return kn_f32_to_f16(kn_f64_to_f32_odd(x)); }
static inline uint16_t kn_f64_to_bf16(double x) { return kn_f32_to_bf16(kn_f64_to_f32_odd(x)); }

#endif
