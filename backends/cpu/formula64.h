/* Elementary functions of float64: the formulas of formula32.h with longer polynomials. Largest errors seen:
 * 1 to 3 ulp, said beside each. What is not here is left to the reference, which asks the C library. */
#ifndef KN_CPU_FORMULA64_H
#define KN_CPU_FORMULA64_H
#include "backends/cpu/formula32.h"

#define CP_ROUNDER64 0x1.8p52

/* ---- exponentials ---- */

/* x = n log 2 + r, |r| <= log(2) / 2; gives e^r - 1, and n as a double. |x| < 2^20, or nan. */
static inline double cp_exp_parts_f64(double x, double *n) {
  double t = cp_fma_f64(x, 0x1.71547652b82fep0, CP_ROUNDER64), whole = t - CP_ROUNDER64;
  double r = cp_fma_f64(whole, -0x1.62e42feep-1, x);
  r = cp_fma_f64(whole, -0x1.a39ef35793c76p-33, r);
  double p =
      CP_SUM64(r, 0.5, 0x1.555555555555cp-3, 0x1.555555555555ep-5, 0x1.111111110e891p-7,
               0x1.6c16c16c1315ep-10, 0x1.a01a01b4f2919p-13, 0x1.a01a01b576b5cp-16, 0x1.71ddec86edd87p-19,
               0x1.27e4bcfdb1d62p-22, 0x1.af72222eda1e8p-26, 0x1.1fa11988eed5cp-29);
  *n = whole;
  return cp_fma_f64(r * r, p, r);
}

/* n: a whole number in (-1023, 1024). */
static inline double cp_power_of_two_f64(double n) {
  return cp_from_bits_f64((cp_bits_f64(n + CP_ROUNDER64) + 1023) << 52);
}

static inline double cp_exp_f64(double x) { /* 1 ulp */
  double n;
  x = x < -746 ? -746 : x;
  x = x > 710 ? 710 : x;
  double p = 1 + cp_exp_parts_f64(x, &n), half = (0.5 * n + CP_ROUNDER64) - CP_ROUNDER64;
  return p * cp_power_of_two_f64(half) * cp_pick_f64(x == -746, 0, cp_power_of_two_f64(n - half));
}

static inline double cp_below_f64(double x) { /* of x <= 0, or nan */
  double n, p = 1 + cp_exp_parts_f64(x < -746 ? -746 : x, &n);
  return p * cp_power_of_two_f64(n + 512) * cp_pick_f64(x < -746, 0, 0x1p-512);
}

static inline double cp_sigmoid_f64(double x) { /* 3 ulp */
  double e = cp_below_f64(-cp_abs_f64(x));
  return cp_pick_f64(x < 0, e, 1) / (1 + e);
}

static inline double cp_tanh_f64(double x) { /* 3 ulp */
  double n, a = cp_abs_f64(x);
  a = a > 20 ? 20 : a;
  double p = cp_exp_parts_f64(2 * a, &n), s = cp_power_of_two_f64(n);
  double u = cp_fma_f64(s, p, s - 1);
  return cp_sign_f64(u / (u + 2), x);
}

/* ---- logarithm ---- */

/* x = 2^e (1 + f), s = f / (2 + f): log(1 + f) = 2 atanh(s) = f - s (f - 2 s^2 P(s^2)). */
static inline double cp_log_f64(double x) { /* 1 ulp */
  int tiny = x < 0x1p-1022;
  uint64_t u = cp_bits_f64(cp_pick_f64(tiny, x * 0x1p54, x));
  uint64_t k = (u + (UINT64_C(0x3ff0000000000000) - UINT64_C(0x3fe6a09e667f3bcd))) >> 52;
  double f = cp_from_bits_f64(u - (k << 52) + (UINT64_C(1023) << 52)) - 1;
  double e = cp_from_bits_f64(UINT64_C(0x4330000000000000) | k) - (0x1p52 + 1023) - cp_pick_f64(tiny, 54, 0);
  double s = f / (2 + f), z = s * s;
  double p =
      CP_SUM64(z, 0x1.5555555555555p-2, 0x1.9999999999e2bp-3, 0x1.2492492427c6bp-3, 0x1.c71c725d18c89p-4,
               0x1.745cdcec1d24fp-4, 0x1.3b20e3ff9ca45p-4, 0x1.0f57ccf6d35bbp-4, 0x1.0f90842ec3c9bp-4);
  double low = cp_fma_f64(e, -0x1.a39ef35793c76p-33, s * (f - 2 * z * p));
  double y = cp_fma_f64(e, 0x1.62e42feep-1, f - low);
  double end = cp_pick_f64(x == 0, -INFINITY, cp_pick_f64(x < 0, (double)NAN, x));
  return cp_pick_f64((x > 0) & (x < INFINITY), y, end);
}

/* ---- sines ---- */

#define CP_SINE_LIMIT64 0x1p20

/* x = q pi / 2 + r, |r| <= pi / 4, by pi / 2 in three parts, of which the first two times q are exact. */
static inline double cp_turned_f64(double x, uint64_t quarter) {
  double t = x * 0x1.45f306dc9c883p-1 + CP_ROUNDER64, n = t - CP_ROUNDER64;
  double r = ((x - n * 0x1.921fb544p0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69, z = r * r;
  double s =
      CP_SUM64(z, -0x1.5555555555555p-3, 0x1.111111111110bp-7, -0x1.a01a01a018ab2p-13, 0x1.71de3a53355e3p-19,
               -0x1.ae645292db671p-26, 0x1.61208f30abe03p-33, -0x1.aaa37fd72b2abp-41);
  double c =
      CP_SUM64(z, 0x1.5555555555555p-5, -0x1.6c16c16c16c10p-10, 0x1.a01a01a018dbfp-16, -0x1.27e4fb75fa8d8p-22,
               0x1.1eed8ca05a133p-29, -0x1.939334753a655p-37, 0x1.aac3f1c5e1394p-45);
  double h = 1 - 0.5 * z;
  s = cp_sign_f64(cp_abs_f64(cp_fma_f64(r * z, s, r)), r);
  c = h + ((1 - h - 0.5 * z) + z * z * c);
  uint64_t q = cp_bits_f64(t) + quarter;
  return cp_from_bits_f64(cp_bits_f64(cp_pick_f64((int)(q & 1), c, s)) ^ (q & 2) << 62);
}
static inline double cp_sin_f64(double x) { return cp_turned_f64(x, 0); } /* 2 ulp */
static inline double cp_cos_f64(double x) { return cp_turned_f64(x, 1); } /* 2 ulp */

#endif
