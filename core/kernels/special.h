/* Special functions of one number, in double: recurrences to where an asymptotic series is exact to the last
 * digits, power series else (Abramowitz and Stegun, Handbook of Mathematical Functions, chapters 6 and 9). As
 * formula_int.h the part that C and CUDA have in common (FORMULA_TABLE: how a constant array is declared). */
#ifndef KN_KERNELS_SPECIAL_H
#define KN_KERNELS_SPECIAL_H
#include <math.h>
#include <stdint.h>
#ifndef FORMULA
#define FORMULA static inline
#endif
#ifndef FORMULA_TABLE
#define FORMULA_TABLE static const
#endif

#define KS_PI 3.14159265358979323846

/* B_2k, k = 1 … */
FORMULA_TABLE double ks_bernoulli[] = {1. / 6,       -1. / 30, 1. / 42,       -1. / 30,     5. / 66,
                                       -691. / 2730, 7. / 6,   -3617. / 510., 43867. / 798, -174611. / 330};
enum { KS_TERMS = 10 };

/* 6.3.5, 6.3.7, 6.3.18 */
FORMULA double ks_digamma(double x) {
  double sum = 0, turned = 0;
  if (x == 0) return copysign((double)INFINITY, -x);
  if (x < 0) {
    if (x == floor(x)) return NAN;
    double rest = x - floor(x); /* the tangent has period pi */
    turned = KS_PI / tan(KS_PI * rest);
    x = 1 - x;
  }
  for (; x < 10; x++) sum -= 1 / x;
  if (isinf(x)) return x;
  double square = 1 / (x * x), power = square, series = 0;
  for (int k = 0; k < KS_TERMS; k++, power *= square) series += ks_bernoulli[k] / (2 * k + 2) * power;
  return sum + log(x) - 0.5 / x - series - turned;
}

/* The n-th derivative of digamma: (-1)^(n+1) n! times the sum of (x + k)^-(n+1), whose tail is 6.4.11. */
FORMULA double ks_polygamma(int64_t n, double x) {
  if (n == 0) return ks_digamma(x);
  double s = (double)n + 1, sum = 0, turned = 0;
  if (x <= 0 && x == floor(x)) return n % 2 ? INFINITY : NAN;
  if (n == 1 && x < -20) { /* 6.4.7 */
    double sine = sin(KS_PI * (x - floor(x)));
    turned = KS_PI * KS_PI / (sine * sine);
    x = 1 - x;
  }
  if (x < -1e5) return NAN;
  for (; x < 20 + (double)n; x++) sum += pow(x, -s);
  double power = pow(x, -s), factor = s;
  sum += x * power / (s - 1) + power / 2;
  power /= x;
  for (int k = 0; k < KS_TERMS; k++) {
    sum += ks_bernoulli[k] * factor * power / tgamma((double)(2 * k + 3));
    factor *= (s + 2 * k + 1) * (s + 2 * k + 2);
    power /= x * x;
  }
  sum *= (n % 2 ? 1 : -1) * tgamma(s);
  return turned != 0 ? turned - sum : sum;
}

/* From Winitzki's approximation by Newton's steps, of erfc where erf is close to 1. */
FORMULA double ks_erfinv(double x) {
  double far = fabs(x);
  if (!(far < 1)) return far == 1 ? copysign((double)INFINITY, x) : NAN;
  double l = log1p(-x * x), b = 2 / (KS_PI * 0.147) + l / 2, y = sqrt(fmax(sqrt(b * b - l / 0.147) - b, 0.));
  for (int i = 0; i < 4; i++) {
    double e = far < 0.5 ? erf(y) - far : (1 - far) - erfc(y);
    double step = e / (2 / sqrt(KS_PI) * exp(-y * y));
    y -= step / (1 + y * step); /* Halley's */
  }
  return copysign(y, x);
}

/* Modified Bessel functions of the first kind, nu: 0 or 1. 9.6.10, whose terms are all positive; 9.7.1 for
 * large x. */
FORMULA double ks_bessel_i(int nu, double x) {
  double term = 1, sum = 1;
  if (isnan(x)) return x;
  if (x < 40) {
    for (int k = 1; term > sum * 1e-17; k++) {
      term *= x / 2 * (x / 2) / ((double)k * (k + nu));
      sum += term;
    }
    return nu ? x / 2 * sum : sum;
  }
  if (isinf(x)) return x;
  for (int k = 1; k < 30; k++) {
    term *= -(4. * nu - (2. * k - 1) * (2 * k - 1)) / (8 * k * x);
    sum += term;
  }
  double half = exp(x / 2);
  return half * (sum / sqrt(2 * KS_PI * x)) * half;
}

FORMULA double ks_i0(double x) { return ks_bessel_i(0, fabs(x)); }
FORMULA double ks_i1(double x) { return x < 0 ? -ks_bessel_i(1, -x) : ks_bessel_i(1, x); }

/* ---- gamma variates ---- */

/* The cube root of z / a is nearly normal (Wilson and Hilferty, 1931): its derivative where the place in that
 * stays. */
FORMULA double ks_gamma_grad_large(double a, double z) {
  double root = cbrt(z / a), sd = sqrt(1 / (9 * a)), u = (root - (1 - 1 / (9 * a))) / sd;
  double change = 1 / (9 * a * a) - u * sd / (2 * a);
  return root * root * root + 3 * a * root * root * change;
}

/* d z / d a of a gamma variate z of shape a whose place in the distribution stays. Implicit
 * reparameterisation (Figurnov, Mohamed and Mnih, 2018): - dF/da / (dF/dz), where with t_0 = 1 / a, t_k =
 * t_(k-1) z / (a + k): F = z^a e^-z / gamma(a) sum of t_k,   dF/da / (z^(a-1) e^-z / gamma(a)) = z sum of t_k
 * (log z - psi(a)
 * - h_k) and h_k = 1 / a + … + 1 / (a + k). */
FORMULA double ks_gamma_grad(double a, double z) {
  if (!(a > 0) || !(z >= 0) || isinf(a)) return NAN;
  if (a > 1000) return ks_gamma_grad_large(a, z);
  if (z < 1e-290) z = 1e-290;
  double base = log(z) - ks_digamma(a), t = 1 / a, h = 1 / a, sum = 0, most = 0;
  for (int k = 1; k < 20000; k++) {
    double part = t * (base - h);
    sum += part;
    most = fmax(most, fabs(part));
    if (k > z - a && fabs(part) < 1e-17 * most) break;
    t *= z / (a + k);
    h += 1 / (a + k);
  }
  double grad = -z * sum, digits = z * most * 1e-15;
  return fabs(grad) > 1e3 * digits ? grad : ks_gamma_grad_large(a, z);
}

#endif
