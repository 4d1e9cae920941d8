/* Before every kernel that the software device compiles: what backends/cuda/prelude.h is in CUDA, in C. A
 * thread of a block runs after the other; where they wait for each other, by switching between their stacks.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;
typedef struct v16 {
  u32 x, y, z, w;
} __attribute__((aligned(16))) v16;

/* Filled by libcuda.so.1 (run.c has the same struct). */
typedef struct emu_host {
  u32 thread, threads, block[3], blocks[3], turn; /* turn: no two blocks have the same */
  void *shared;
  u64 *slots;              /* one a thread: values for others of the warp */
  void (*sync)(void);      /* until all threads of the block are here */
  void (*sync_warp)(void); /* likewise of the warp */
  void (*set_condition)(u64, u32);
} emu_host;
emu_host *emu;

#define KERNEL(most, name) static void emu_kernel_##name
#define DEVICE static inline
#define RESTRICT
/* Its first thread finds rubbish there. */
#define SHARED(type, name, n)                                                                                \
  static type name[n];                                                                                       \
  static u32 emu_turn_##name;                                                                                \
  if (emu_turn_##name != emu->turn) emu_turn_##name = emu->turn, memset(name, 0xa5, sizeof name)
#define SHARED_BYTES(type, name) type *name = (type *)emu->shared
#define THREAD (emu->thread)
#define THREADS (emu->threads)
#define BLOCK (emu->block[0])
#define BLOCK_Y (emu->block[1])
#define BLOCK_Z (emu->block[2])
#define BLOCKS (emu->blocks[0])
#define BLOCKS_Y (emu->blocks[1])
#define BLOCKS_Z (emu->blocks[2])
#define SYNC() emu->sync()
#define FENCE() ((void)0)
#define cudaGraphSetConditional(handle, value) emu->set_condition(handle, value)

/* ---- numbers ---- */

static inline u32 bits_f32(float x) {
  u32 u;
  memcpy(&u, &x, 4);
  return u;
}
static inline float f32_bits(u32 u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}
static inline u64 bits_f64(double x) {
  u64 u;
  memcpy(&u, &x, 8);
  return u;
}
static inline double f64_bits(u64 u) {
  double x;
  memcpy(&x, &u, 8);
  return x;
}
#define INF_F32 f32_bits(0x7f800000u)
#define NAN_F32 f32_bits(0x7fc00000u)
#define INF_F64 f64_bits(0x7ff0000000000000ull)
#define NAN_F64 f64_bits(0x7ff8000000000000ull)

static inline float f32_of_bf16(u16 x) { return f32_bits((u32)x << 16); }
static inline u16 bf16_of_f32(float x) {
  u32 u = bits_f32(x);
  return (u16)((u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
/* Towards zero, and odd where something was lost. */
static inline float emu_odd(double x) {
  float f = (float)x;
  if ((double)f == x || x != x) return f;
  if (fabs((double)f) > fabs(x)) f = f32_bits(bits_f32(f) - 1);
  return f32_bits(bits_f32(f) | 1);
}
static inline u16 bf16_of_f64(double x) { return bf16_of_f32(emu_odd(x)); }
static inline float f32_of_f16(u16 h) {
  u32 sign = (u32)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 1023u;
  if (e == 31) return f32_bits(sign | 0x7f800000u | m << 13);
  if (e) return f32_bits(sign | (e + 112) << 23 | m << 13);
  float x = (float)m * (1.0f / 16777216);
  return sign ? -x : x;
}
static inline u16 f16_of_f32(float x) {
  u32 u = bits_f32(x), sign = u >> 16 & 0x8000u;
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return 0x7fffu;
  if (u >= 0x477ff000u) return (u16)(sign | 0x7c00u); /* 65520 and more */
  if (u < 0x38800000u) { /* below 2^-14: steps of 2^-24, to even by the addition */
    float f = f32_bits(u) + 0.5f;
    return (u16)(sign | (bits_f32(f) - 0x3f000000u));
  }
  return (u16)(sign | ((u + 0xfffu + (u >> 13 & 1)) - 0x38000000u) >> 13);
}
static inline u16 f16_of_f64(double x) { return f16_of_f32(emu_odd(x)); }
static inline u32 mulhi_u32(u32 x, u32 y) { return (u32)((u64)x * y >> 32); }
static inline u64 mulhi_u64(u64 x, u64 y) {
  u64 a = x >> 32, b = (u32)x, c = y >> 32, d = (u32)y, low = b * d >> 32;
  u64 middle = a * d + low, other = b * c + (u32)middle;
  return a * c + (middle >> 32) + (other >> 32);
}

/* ---- other threads ---- */

#define EMU_WARP(type, name)                                                                                 \
  static inline type emu_other_##name(type v, u32 lane) {                                                    \
    u64 bits = 0;                                                                                            \
    memcpy(&bits, &v, sizeof v);                                                                             \
    emu->slots[emu->thread] = bits;                                                                          \
    emu->sync_warp();                                                                                        \
    u32 from = (emu->thread & ~31u) + lane;                                                                  \
    if (lane < 32 && from < emu->threads) memcpy(&v, &emu->slots[from], sizeof v);                           \
    emu->sync_warp();                                                                                        \
    return v;                                                                                                \
  }                                                                                                          \
  static inline type warp_xor_##name(type v, int lanes) {                                                    \
    return emu_other_##name(v, (emu->thread & 31u) ^ (u32)lanes);                                            \
  }                                                                                                          \
  static inline type warp_up_##name(type v, int lanes) {                                                     \
    return emu_other_##name(v, (emu->thread & 31u) - (u32)lanes);                                            \
  }                                                                                                          \
  static inline type warp_down_##name(type v, int lanes) {                                                   \
    return emu_other_##name(v, (emu->thread & 31u) + (u32)lanes);                                            \
  }                                                                                                          \
  static inline type warp_from_##name(type v, int lane) { return emu_other_##name(v, (u32)lane & 31u); }
EMU_WARP(float, f32)
EMU_WARP(double, f64)
EMU_WARP(i64, i64)
EMU_WARP(u64, u64)
EMU_WARP(u32, u32)
EMU_WARP(i32, i32)

static inline u32 warp_vote(int yes) {
  u32 votes = 0;
  emu->slots[emu->thread] = yes != 0;
  emu->sync_warp();
  for (u32 lane = 0, first = emu->thread & ~31u; lane < 32 && first + lane < emu->threads; lane++)
    votes |= (u32)emu->slots[first + lane] << lane;
  emu->sync_warp();
  return votes;
}

#define EMU_ATOMIC(verb, type, name, value)                                                                  \
  static inline type atomic_##verb##_##name(type *p, type v) {                                               \
    type was = *p;                                                                                           \
    *p = value;                                                                                              \
    return was;                                                                                              \
  }
EMU_ATOMIC(add, float, f32, was + v)
EMU_ATOMIC(add, double, f64, was + v)
EMU_ATOMIC(add, i32, i32, (i32)((u32)was + (u32)v))
EMU_ATOMIC(add, u32, u32, was + v)
EMU_ATOMIC(add, i64, i64, (i64)((u64)was + (u64)v))
EMU_ATOMIC(add, u64, u64, was + v)
EMU_ATOMIC(max, i32, i32, was > v ? was : v)
EMU_ATOMIC(min, i32, i32, was < v ? was : v)
EMU_ATOMIC(max, u32, u32, was > v ? was : v)
EMU_ATOMIC(min, u32, u32, was < v ? was : v)
EMU_ATOMIC(max, i64, i64, was > v ? was : v)
EMU_ATOMIC(min, i64, i64, was < v ? was : v)
EMU_ATOMIC(max, u64, u64, was > v ? was : v)
EMU_ATOMIC(min, u64, u64, was < v ? was : v)
EMU_ATOMIC(or, u32, u32, was | v)
EMU_ATOMIC(exchange, u32, u32, v)
EMU_ATOMIC(exchange, u64, u64, v)
static inline u32 atomic_cas_u32(u32 *p, u32 old, u32 v) {
  u32 was = *p;
  if (was == old) *p = v;
  return was;
}
static inline u64 atomic_cas_u64(u64 *p, u64 old, u64 v) {
  u64 was = *p;
  if (was == old) *p = v;
  return was;
}

/* ---- functions with the precision of what they are given, as C++ has them ---- */

#define EMU_1(name, x) _Generic((x), float : name##f, default : name)(x)
#define EMU_2(name, x, y)                                                                                    \
  _Generic((x), float : _Generic((y), float : name##f, default : name), default : name)(x, y)
#define exp(x) EMU_1(exp, x)
#define exp2(x) EMU_1(exp2, x)
#define expm1(x) EMU_1(expm1, x)
#define log(x) EMU_1(log, x)
#define log1p(x) EMU_1(log1p, x)
#define log2(x) EMU_1(log2, x)
#define log10(x) EMU_1(log10, x)
#define sqrt(x) EMU_1(sqrt, x)
#define sin(x) EMU_1(sin, x)
#define cos(x) EMU_1(cos, x)
#define tan(x) EMU_1(tan, x)
#define asin(x) EMU_1(asin, x)
#define acos(x) EMU_1(acos, x)
#define atan(x) EMU_1(atan, x)
#define sinh(x) EMU_1(sinh, x)
#define cosh(x) EMU_1(cosh, x)
#define tanh(x) EMU_1(tanh, x)
#define asinh(x) EMU_1(asinh, x)
#define acosh(x) EMU_1(acosh, x)
#define atanh(x) EMU_1(atanh, x)
#define erf(x) EMU_1(erf, x)
#define erfc(x) EMU_1(erfc, x)
#define lgamma(x) EMU_1(lgamma, x)
#define floor(x) EMU_1(floor, x)
#define ceil(x) EMU_1(ceil, x)
#define trunc(x) EMU_1(trunc, x)
#define rint(x) EMU_1(rint, x)
#define nearbyint(x) EMU_1(nearbyint, x)
#define fabs(x) EMU_1(fabs, x)
#define fmod(x, y) EMU_2(fmod, x, y)
#define pow(x, y) EMU_2(pow, x, y)
#define atan2(x, y) EMU_2(atan2, x, y)
#define copysign(x, y) EMU_2(copysign, x, y)
#define fmax(x, y) EMU_2(fmax, x, y)
#define fmin(x, y) EMU_2(fmin, x, y)
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
