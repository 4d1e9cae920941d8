/* The vjp rules: one per differentiable row of the op table, each written only by calling ops, and by shape-
 * generic ones (sum_to, expand_as, full_like …) so that it serves graphs with symbolic sizes too. */
#ifndef KN_VJP_H
#define KN_VJP_H
#include "core/expr.h"

/* What a rule is given. It reaches inputs and results through the three functions below. */
typedef struct kn_vjp {
  kn_scope *s; /* intermediates and the sticky status */
  kn_op op;
  const void *attrs;
  int n;
  kn_tensor *const *in;    /* as given to the op (casts not applied); values only if the row saves them */
  kn_tensor *const *out;   /* its results; values only if the row saves them */
  const uint32_t *version; /* of the storages when saved, inputs then results; NULL: not watched */
  kn_tensor *const *gout;  /* gradients of the results; NULL where zero (the only one is never NULL) */
  const bool *need;        /* which inputs want a gradient */
  kn_tensor **gin; /* to fill, borrowed from the scope; leave NULL for zero. The rule gives the input's
                      shape; the caller casts to its dtype */
} kn_vjp;

/* Input or result i (0-based) for its values. NULL, and the scope fails, when they were changed in place
 * since, or when the op's row does not say that the rule reads them. */
kn_tensor *kv_in(kn_vjp *v, int i);
kn_tensor *kv_out(kn_vjp *v, int i);
/* Input i for its sizes and dtype only: no gradient flows into it and its values are undefined. */
kn_tensor *kv_like(kn_vjp *v, int i);
/* Input i's size along dim, as a number in attributes: a placeholder while it is only known to a graph. */
int64_t kv_size(kn_vjp *v, int i, int dim);
/* t summed down to the shape of input i, or t itself when it has it already. */
kn_tensor *kv_fit(kn_vjp *v, kn_tensor *t, int i);

/* Runs the rule of v->op. v->s and v->gin are set here. gin[i] gets, for each needed input, an owned tensor
 * of the input's shape and dtype, or NULL for zero. Errors are prefixed with the op. */
kn_status kn_vjp_run(kn_context *ctx, kn_vjp *v, kn_tensor **gin);

/* Makes a gradient that came from outside fit input i (of this type): summed down where it was broadcast,
 * cast. Replaces *g; on failure *g stays owned. */
kn_status kn_vjp_fit(kn_context *ctx, const kn_type *type, int i, kn_tensor **g);

#endif
