/* The vjp rules: one per differentiable row of the op table, each written only by calling ops, and by shape-
 * generic ones (sum_to, expand_as, full_like …) so that it serves graphs with symbolic sizes too. */
#ifndef KN_VJP_H
#define KN_VJP_H
#include "core/expr.h"

typedef struct kn_vjp {
  kn_scope *s;            /* intermediates and the sticky status */
  const void *attrs;
  int n;
  kn_tensor *const *in;   /* as given to the op (casts not applied) */
  kn_tensor *const *out;  /* its results */
  kn_tensor *const *gout; /* gradients of the results; NULL where zero (the only one is never NULL) */
  const bool *need;       /* which inputs want a gradient */
  kn_tensor **gin;        /* to fill, borrowed from the scope; leave NULL for zero. The tape casts to the input's
                             dtype; the rule gives the input's shape */
} kn_vjp;

#endif
