/* Special functions of one number, in double. */
#ifndef KN_KERNELS_SPECIAL_H
#define KN_KERNELS_SPECIAL_H
#include <stdint.h>

double ks_digamma(double x);
double ks_polygamma(int64_t n, double x); /* the n-th derivative of digamma */
double ks_erfinv(double x);
double ks_i0(double x); /* modified Bessel functions of the first kind */
double ks_i1(double x);
/* d z / d a of a gamma variate z of shape a whose place in the distribution stays. */
double ks_gamma_grad(double a, double z);

#endif
