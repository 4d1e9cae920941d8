/* Elementary functions of float32, a formula each: no branches, no tables, so loops of them vectorise.
 * Largest errors, seen over all float32 values or a dense sample: 1 to 3 ulp, said beside each; zeros,
 * infinities, nan and subnormals as C99's annex F has them. The reductions are the classical ones (Cody and
 * Waite, 1980; Muller, Elementary Functions, 2016); the polynomials are our own fits, made by fit.py. */
#ifndef KN_CPU_FORMULA32_H
#define KN_CPU_FORMULA32_H
#include "backends/cpu/isa.h"
#include <math.h>

/* c[0] + c[1] x + … by Horner's rule; N is a constant, so it unrolls. */
#define CP_POLY(fn, T, FMA)                                                                                  \
  static inline __attribute__((always_inline)) T fn(const T *c, int n, T x) {                                \
    T sum = c[n - 1];                                                                                        \
    for (int i = n - 2; i >= 0; i--) sum = FMA(sum, x, c[i]);                                                \
    return sum;                                                                                              \
  }
CP_POLY(cp_horner_f32, float, cp_fma_f32)
CP_POLY(cp_horner_f64, double, cp_fma_f64)
#define CP_SUM32(x, ...) cp_horner_f32((const float[]){__VA_ARGS__}, sizeof((float[]){__VA_ARGS__}) / 4, x)
#define CP_SUM64(x, ...) cp_horner_f64((const double[]){__VA_ARGS__}, sizeof((double[]){__VA_ARGS__}) / 8, x)

/* Adding this rounds to a whole number and leaves it in the low bits. */
#define CP_ROUNDER32 0x1.8p23f

/* ---- exponentials ---- */

/* x = n log 2 + r, |r| <= log(2) / 2; gives e^r - 1. |x| < 2^15, or nan. */
static inline float cp_exp_parts_f32(float x, int32_t *n) {
  float t = cp_fma_f32(x, 0x1.715476p0f, CP_ROUNDER32), whole = t - CP_ROUNDER32;
  float r = cp_fma_f32(whole, -0x1.62e4p-1f, x);
  r = cp_fma_f32(whole, -0x1.7f7d1cp-20f, r);
  *n = (int32_t)(kn_f32_bits(t) - kn_f32_bits(CP_ROUNDER32));
  float p =
      CP_SUM32(r, 0.5f, 0x1.555556p-3f, 0x1.555478p-5f, 0x1.111082p-7f, 0x1.6d9ea4p-10f, 0x1.a1b128p-13f);
  return cp_fma_f32(r * r, p, r);
}

static inline float cp_power_of_two_f32(int32_t n) { return kn_f32_from_bits((uint32_t)(n + 127) << 23); }

static inline float cp_exp_f32(float x) { /* 1 ulp */
  int32_t n;
  x = x < -104 ? -104 : x;
  x = x > 89 ? 89 : x;
  float p = 1 + cp_exp_parts_f32(x, &n);
  int32_t half = n >> 1; /* in two steps, so that subnormal and infinite results come by themselves */
  return p * cp_power_of_two_f32(half) * cp_pick_f32(x == -104, 0, cp_power_of_two_f32(n - half));
}

/* The same of x <= 0, or nan: fewer steps. Where it is nothing that is not left to rounding: processors take
 * a hundred times as long for products that vanish. */
static inline float cp_below_f32(float x) {
  int32_t n;
  float p = 1 + cp_exp_parts_f32(x < -104 ? -104 : x, &n);
  return p * cp_power_of_two_f32(n + 64) * cp_pick_f32(x < -104, 0, 0x1p-64f);
}

static inline float cp_expm1_f32(float x) { /* 1 ulp */
  int32_t n;
  float a = x < -50 ? -50 : x;
  a = a > 89 ? 89 : a;
  float p = cp_exp_parts_f32(a, &n), h = cp_power_of_two_f32(n - 1);
  float y = 2 * cp_fma_f32(h, p, h - 0.5f);
  return cp_pick_f32(cp_abs_f32(x) < 0x1p-25f, x, y);
}

/* With e = e^-|x|: 1 / (1 + e), or below 0 e / (1 + e). */
static inline float cp_sigmoid_f32(float x) { /* 3 ulp */
  float e = cp_below_f32(-cp_abs_f32(x));
  return cp_pick_f32(x < 0, e, 1) / (1 + e);
}

/* With u = e^(2|x|) - 1: u / (u + 2). */
static inline float cp_tanh_f32(float x) { /* 2 ulp */
  int32_t n;
  float a = cp_abs_f32(x);
  a = a > 10 ? 10 : a;
  float p = cp_exp_parts_f32(2 * a, &n), s = cp_power_of_two_f32(n);
  float u = cp_fma_f32(s, p, s - 1);
  return cp_sign_f32(u / (u + 2), x);
}

/* With u = e^|x| - 1: (u + u / (u + 1)) / 2; where e^|x| overflows, (e^|x|/2 / 2) 2. */
static inline float cp_sinh_f32(float x) { /* 2 ulp */
  float a = cp_abs_f32(x), u = cp_expm1_f32(a > 88 ? 88 : a), h = cp_exp_f32(0.5f * a);
  float y = 0.5f * (u + u / (u + 1));
  y = cp_pick_f32(a > 88, 0.5f * h * h, y);
  return cp_sign_f32(cp_pick_f32(a < 0x1p-12f, a, y), x);
}

static inline float cp_cosh_f32(float x) { /* 2 ulp */
  float a = cp_abs_f32(x), e = cp_exp_f32(a > 88 ? 88 : a), h = cp_exp_f32(0.5f * a);
  return cp_pick_f32(a > 88, 0.5f * h * h, 0.5f * (e + 1 / e));
}

/* ---- logarithms ---- */

/* x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), for finite x > 0; gives log(1 + f) - f. */
static inline float cp_log_parts_f32(float x, float *e, float *f) {
  int tiny = x < 0x1p-126f;
  uint32_t u = kn_f32_bits(cp_pick_f32(tiny, x * 0x1p23f, x));
  int32_t k = (int32_t)(u - 0x3f3504f3u) >> 23;
  float g = kn_f32_from_bits(u - ((uint32_t)k << 23)) - 1, z = g * g;
  float p = CP_SUM32(g, 0x1.555548p-2f, -0x1.000008p-2f, 0x1.99a4eap-3f, -0x1.555c24p-3f, 0x1.23328ep-3f,
                     -0x1.fc2094p-4f, 0x1.e73d0cp-4f, -0x1.de6caap-4f, 0x1.13e14ep-4f);
  *e = (float)k - cp_pick_f32(tiny, 23, 0);
  *f = g;
  return cp_fma_f32(-0.5f, z, g * z * p);
}

/* What a logarithm is where x is not finite and positive. */
static inline float cp_log_ends_f32(float x, float y) {
  float end = cp_pick_f32(x == 0, -INFINITY, cp_pick_f32(x < 0, NAN, x));
  return cp_pick_f32(x > 0 && x < INFINITY, y, end);
}

static inline float cp_log_f32(float x) { /* 1 ulp */
  float e, f, rest = cp_log_parts_f32(x, &e, &f);
  float y = cp_fma_f32(e, -0x1.bd0106p-13f, rest) + f;
  return cp_log_ends_f32(x, cp_fma_f32(e, 0x1.63p-1f, y));
}

static inline float cp_log2_f32(float x) { /* 2 ulp */
  float e, f, rest = cp_log_parts_f32(x, &e, &f), high = f + rest, low = f - high + rest;
  return cp_log_ends_f32(
      x, cp_fma_f32(high, 0x1.715476p0f, cp_fma_f32(low, 0x1.715476p0f, high * 0x1.4ae0cp-26f)) + e);
}

static inline float cp_log10_f32(float x) { /* 2 ulp */
  float e, f, rest = cp_log_parts_f32(x, &e, &f), high = f + rest, low = f - high + rest;
  float y = cp_fma_f32(high, 0x1.bcb7b2p-2f, cp_fma_f32(low, 0x1.bcb7b2p-2f, high * -0x1.5b235ep-27f));
  y = cp_fma_f32(e, 0x1.3509f8p-18f, y);
  return cp_log_ends_f32(x, cp_fma_f32(e, 0x1.344p-2f, y));
}

/* log(u) for u = 1 + x rounded, and the derivative 1 / u times what rounding lost. */
static inline float cp_log1p_f32(float x) { /* 2 ulp */
  float u = 1 + x, lost = u - 1 > x ? -(u - 1 - x) : x - (u - 1);
  float y = cp_log_f32(u) + lost / u;
  y = cp_pick_f32(u > 0 && u < INFINITY, y, cp_log_ends_f32(u, y));
  return cp_pick_f32(cp_abs_f32(x) < 0x1p-26f, x, y);
}

/* ---- sines ---- */

/* Up to here the quadrant's number times the first part of pi / 2 is exact in double. */
#define CP_SINE_LIMIT32 0x1p20f

/* x = q pi / 2 + r in double, |r| <= pi / 4: exact enough next to multiples of pi / 2 too. */
static inline float cp_quadrant_f32(float x, uint32_t *q) {
  double d = (double)x, t = cp_fma_f64(d, 0x1.45f306dc9c883p-1, 0x1.8p52), n = t - 0x1.8p52;
  *q = (uint32_t)cp_bits_f64(t);
  return (float)cp_fma_f64(n, -0x1.0b4611a626331p-34, cp_fma_f64(n, -0x1.921fb544p0, d));
}

static inline float cp_sine_f32(float r) { /* the sign is set for the sake of -0 */
  float z = r * r;
  float p = CP_SUM32(z, -0x1.555556p-3f, 0x1.111108p-7f, -0x1.a00f94p-13f, 0x1.6cd5e8p-19f);
  return cp_sign_f32(cp_fma_f32(r * z, p, r), r);
}

static inline float cp_cosine_f32(float r) {
  float z = r * r, p = CP_SUM32(z, 0x1.555556p-5f, -0x1.6c16b8p-10f, 0x1.a01118p-16f, -0x1.242906p-22f);
  return cp_fma_f32(z * z, p, cp_fma_f32(-0.5f, z, 1));
}

static inline float cp_turned_f32(float r, uint32_t q) {
  float y = cp_pick_f32(q & 1, cp_cosine_f32(r), cp_sine_f32(r));
  return kn_f32_from_bits(kn_f32_bits(y) ^ (q & 2) << 30);
}

static inline float cp_sin_f32(float x) { /* 1 ulp, |x| < CP_SINE_LIMIT32 */
  uint32_t q;
  float r = cp_quadrant_f32(x, &q);
  return cp_turned_f32(r, q);
}

static inline float cp_cos_f32(float x) { /* 1 ulp, |x| < CP_SINE_LIMIT32 */
  uint32_t q;
  float r = cp_quadrant_f32(x, &q);
  return cp_turned_f32(r, q + 1);
}

static inline float cp_tan_f32(float x) { /* 3 ulp, |x| < CP_SINE_LIMIT32 */
  uint32_t q;
  float r = cp_quadrant_f32(x, &q), s = cp_sine_f32(r), c = cp_cosine_f32(r);
  return cp_pick_f32(q & 1, -c, s) / cp_pick_f32(q & 1, s, c);
}

/* ---- inverse circular functions ---- */

static inline float cp_atan_near_f32(float t) { /* |t| <= 1 */
  float z = t * t;
  float p = CP_SUM32(z, -0x1.555552p-2f, 0x1.9997fap-3f, -0x1.2474e4p-3f, 0x1.c50578p-4f, -0x1.69323ap-4f,
                     0x1.14d12cp-4f, -0x1.700b7p-5f, 0x1.74a2f4p-6f, -0x1.e5f08cp-8f, 0x1.29172p-10f);
  return cp_fma_f32(t * z, p, t);
}

static inline float cp_atan_f32(float x) { /* 3 ulp */
  float a = cp_abs_f32(x), t = cp_atan_near_f32(cp_pick_f32(a > 1, 1 / a, a));
  return cp_sign_f32(cp_pick_f32(a > 1, 0x1.921fb6p0f - t, t), x);
}

static inline float cp_asin_near_f32(float t, float z) { /* z = t^2 <= 1/4 */
  float p = CP_SUM32(z, 0x1.55554cp-3f, 0x1.333892p-4f, 0x1.6cabb6p-5f, 0x1.04aaf8p-5f, 0x1.d7a874p-7f,
                     0x1.33d6fp-5f);
  return cp_fma_f32(t * z, p, t);
}

/* Above 1/2: asin(a) = pi / 2 - 2 asin(sqrt((1 - a) / 2)). */
static inline float cp_asin_f32(float x) { /* 3 ulp */
  float a = cp_abs_f32(x), far = 0.5f * (1 - a);
  float z = cp_pick_f32(a > 0.5f, far, a * a), t = cp_pick_f32(a > 0.5f, sqrtf(far), a);
  float y = cp_asin_near_f32(t, z);
  return cp_sign_f32(cp_pick_f32(a > 0.5f, 0x1.921fb6p0f - 2 * y, y), x);
}

static inline float cp_acos_f32(float x) { /* 3 ulp */
  float a = cp_abs_f32(x), far = 0.5f * (1 - a);
  float z = cp_pick_f32(a > 0.5f, far, a * a), t = cp_pick_f32(a > 0.5f, sqrtf(far), x);
  float y = cp_asin_near_f32(t, z);
  float wide = cp_pick_f32(x < 0, 0x1.921fb6p1f - 2 * y, 2 * y);
  return cp_pick_f32(a > 0.5f, wide, 0x1.921fb6p0f - (y + 0x1.777a5cp-25f));
}

/* ---- error function ---- */

/* Near 0 x times a polynomial, then 1 - 2^(a polynomial); 1 from 3.95 on. */
static inline float cp_erf_f32(float x) { /* 2 ulp */
  float a = cp_abs_f32(x), z = x * x, b = a > 3.95f ? 3.95f : a;
  float near = CP_SUM32(z, 0x1.06eba6p-3f, -0x1.81271p-2f, 0x1.ce21bep-4f, -0x1.b6fc5p-6f, 0x1.49fca2p-8f,
                        -0x1.460782p-11f);
  float far = CP_SUM32(b, -0x1.907f88p-13f, -0x1.a0951ep+0f, -0x1.d65358p-1f, -0x1.34464p-3f, 0x1.0905e8p-5f,
                       -0x1.2478d4p-8f, 0x1.303b44p-12f);
  float t = far + CP_ROUNDER32, f = far - (t - CP_ROUNDER32);
  float p = CP_SUM32(f, 0x1.000002p0f, 0x1.62e428p-1f, 0x1.ebf918p-3f, 0x1.c6b6e6p-5f, 0x1.3d0c52p-7f,
                     0x1.5c085ep-10f);
  float e = p * kn_f32_from_bits((kn_f32_bits(t) << 23) + (127u << 23)); /* the rounder falls out */
  return cp_pick_f32(a < 0.875f, cp_fma_f32(x, near, x), cp_sign_f32(1 - e, x));
}

/* ---- powers ---- */

/* log2 of a finite x > 0 that is no subnormal: 2^-50. */
static inline double cp_log2_wide(double x) {
  uint64_t u = cp_bits_f64(x), k = (u + (UINT64_C(0x3ff0000000000000) - UINT64_C(0x3fe6a09e667f3bcd))) >> 52;
  double m = cp_from_bits_f64(u - (k << 52) + (UINT64_C(1023) << 52));
  double e = cp_from_bits_f64(UINT64_C(0x4330000000000000) | k) - (0x1p52 + 1023);
  double s = (m - 1) / (m + 1), z = s * s;
  double p = CP_SUM64(z, 0x1.555555555386bp-2, 0x1.999999a2d6564p-3, 0x1.24924149f2b9ap-3,
                      0x1.c72293170336ep-4, 0x1.7328908ee14cap-4, 0x1.58a4624650991p-4);
  return cp_fma_f64(cp_fma_f64(s * z, p, s), 2 * 0x1.71547652b82fep0, e);
}

static inline double cp_exp2_wide(double w) { /* 2^-40 */
  w = w < -300 ? -300 : w;
  w = w > 300 ? 300 : w;
  double t = w + 0x1.8p52, f = w - (t - 0x1.8p52);
  double p =
      CP_SUM64(f, 1, 0x1.62e42fef85088p-1, 0x1.ebfbdff810ba9p-3, 0x1.c6b08dd6a882fp-5, 0x1.3b2ab734703a9p-7,
               0x1.5d8745eed78f2p-10, 0x1.43087c3a288fdp-13, 0x1.00dc257413185p-16, 0x1.64031daaca5dbp-20);
  return p * cp_from_bits_f64((cp_bits_f64(t) - cp_bits_f64(0x1.8p52) + 1023) << 52);
}

/* |x|^y through double, then what C99 wants of signs and ends. */
static inline float cp_pow_f32(float x, float y) { /* 1 ulp */
  float a = cp_abs_f32(x), b = cp_abs_f32(y), half = 0.5f * b;
  double l = cp_log2_wide((double)a);
  l = cp_pick_f64(a == 0, -INFINITY, cp_pick_f64(a == INFINITY, INFINITY, l));
  float size = (float)cp_exp2_wide((double)y * l);
  int whole = (b >= 0x1p23f) | ((b + 0x1p23f) - 0x1p23f == b);
  int even = (half >= 0x1p23f) | ((half + 0x1p23f) - 0x1p23f == half);
  float r = kn_f32_from_bits(kn_f32_bits(size) ^ (kn_f32_bits(x) & (uint32_t)(whole & !even) << 31));
  r = cp_pick_f32((x < 0) & (a != INFINITY) & !whole, NAN, r);
  r = cp_pick_f32((x != x) | (y != y), x + y, r);
  r = cp_pick_f32((x == 1) | (y == 0) | ((a == 1) & (b == INFINITY)), 1, r);
  return cp_pick_f32(y == 2, x * x, r);
}

#endif
