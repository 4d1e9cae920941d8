/* Compares the gradients of a function with central differences. For tests, and kiln.gradcheck. */
#ifndef KN_GRADCHECK_H
#define KN_GRADCHECK_H
#include "core/tensor.h"

/* A function of tensors; *out is owned by the caller. It must give the same for the same values. */
typedef kn_status (*kn_gradcheck_fn)(kn_context *ctx, void *ud, kn_tensor *const *in, int n, kn_tensor **out);

/* OK when d sum(w · fn(in)) / d in, with fixed uneven weights w, agrees with differences of step eps for
 * every element of every input that requires grad: |analytic - numeric| <= atol + rtol * |numeric|. Those
 * inputs are float64 leaves on the CPU with an address of its own for each element; their values are changed
 * during the call and put back. An input that does not take part has gradient zero. Else STATE, with the
 * input, the element and both values in the sentence, or what fn failed with. */
kn_status kn_gradcheck(kn_context *ctx, kn_gradcheck_fn fn, void *ud, kn_tensor *const *in, int n, double eps,
                       double atol, double rtol);

#endif
