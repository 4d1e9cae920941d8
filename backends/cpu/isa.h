/* What a file that is compiled once for each instruction set needs: names that carry the set's name, and the
 * few operations of which the sets have different best forms. Every formula is written once, as plain C that
 * the compiler vectorises; no file outside this folder sees this header. */
#ifndef KN_CPU_ISA_H
#define KN_CPU_ISA_H
#include "core/half.h"

#ifndef CP_ISA
#error "compiled without CP_ISA: see meson.build"
#endif
#define CP_PASTE(isa, name) cp_##isa##_##name
#define CP_EXPAND(isa, name) CP_PASTE(isa, name)
#define CP(name) CP_EXPAND(CP_ISA, name) /* a name of this instruction set */
#define CP_TEXT_OF(isa) #isa
#define CP_TEXT(isa) CP_TEXT_OF(isa)

/* Bytes of a vector register. */
#if defined(__AVX512F__)
#define CP_VECTOR 64
#elif defined(__AVX2__)
#define CP_VECTOR 32
#else
#define CP_VECTOR 16
#endif

/* a * b + c: rounded once where the machine can, else twice. Formulas count on neither. */
#ifdef __FMA__
static inline float cp_fma_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double cp_fma_f64(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
static inline float cp_fma_f32(float a, float b, float c) { return a * b + c; }
static inline double cp_fma_f64(double a, double b, double c) { return a * b + c; }
#endif

/* A vector that several operations read: loaded once, where compilers would load it for each. */
#if defined(__x86_64__) && defined(__GNUC__)
#define CP_LOADED(v) __asm__("" : "+v"(v))
#else
#define CP_LOADED(v) (void)0
#endif

static inline uint64_t cp_bits_f64(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
static inline double cp_from_bits_f64(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* Eight float16 in float32, and back, rounded to nearest even: compilers do not find these in loops. */
#ifdef __F16C__
typedef float cp_eight __attribute__((vector_size(32)));
typedef short cp_eight_halves __attribute__((vector_size(16)));
static inline cp_eight cp_widened(const uint16_t *x) {
  cp_eight_halves h;
  memcpy(&h, x, sizeof h);
  return __builtin_ia32_vcvtph2ps256(h);
}
static inline void cp_narrowed(uint16_t *to, cp_eight f) {
  const cp_eight_halves h = __builtin_ia32_vcvtps2ph256(f, 0);
  memcpy(to, &h, sizeof h);
}
#endif

/* Choosing by masks of bits: never a branch, so loops around it vectorise. */
static inline float cp_pick_f32(int when, float yes, float no) {
  uint32_t mask = 0u - (uint32_t)when;
  return kn_f32_from_bits((kn_f32_bits(yes) & mask) | (kn_f32_bits(no) & ~mask));
}
static inline double cp_pick_f64(int when, double yes, double no) {
  uint64_t mask = 0u - (uint64_t)when;
  return cp_from_bits_f64((cp_bits_f64(yes) & mask) | (cp_bits_f64(no) & ~mask));
}
static inline float cp_sign_f32(float size, float sign) { /* size >= 0 with the sign of the other */
  return kn_f32_from_bits(kn_f32_bits(size) | (kn_f32_bits(sign) & 0x80000000u));
}
static inline float cp_abs_f32(float x) { return kn_f32_from_bits(kn_f32_bits(x) & 0x7fffffffu); }
static inline double cp_sign_f64(double size, double sign) {
  return cp_from_bits_f64(cp_bits_f64(size) | (cp_bits_f64(sign) & UINT64_C(1) << 63));
}
static inline double cp_abs_f64(double x) { return cp_from_bits_f64(cp_bits_f64(x) & ~(UINT64_C(1) << 63)); }

#endif
