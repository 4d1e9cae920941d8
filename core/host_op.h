/* Ops that the host has registered: rows host_op, host_op_2 … of the op table, by their count of results, of
 * which the attribute `name` says which op is meant. A root context has them; its children find them there.
 * The gradient of an op is a host_op, too, with the attribute `gradient`: from its inputs, its results and
 * the gradients of these, to those of its floating inputs, one each. */
#ifndef KN_HOST_OP_H
#define KN_HOST_OP_H
#include "core/op.h"

enum { KN_HOST_INPUTS = 32 };

typedef struct kn_host_op kn_host_op;
struct kn_host_op {
  kn_text name;
  int inputs, outputs;          /* 1 … KN_HOST_INPUTS, 1 … KN_MAX_OUTPUTS */
  int nvalues;                  /* attributes, at most KN_MAX_RANK: numbers */
  kn_text keys[KN_MAX_RANK];    /* what they are called … */
  double standard[KN_MAX_RANK]; /* … and are where they are not given */
  bool differentiable;
  /* Types of the results, all fields of them, from those of the inputs; sizes may be symbols. */
  kn_status (*shape)(const kn_host_op *op, kn_context *ctx, const double *values, const kn_type *in,
                     kn_type *out);
  /* Contiguous tensors of the host, results to be filled; any thread. RAISED with a sentence, or NOMEM. */
  kn_status (*run)(const kn_host_op *op, kn_context *ctx, const kn_attrs_host_op *attrs, kn_tensor *const *in,
                   int n, kn_tensor *const *out, int outs);
  void *ud; /* the extra bytes given with it */
  size_t bytes;
  kn_host_op *next;
};

/* Copies op, with `extra` bytes behind it that ud shows. ARG where there is one of this name already. Not
 * while others use the context or children of it. */
kn_status kn_host_op_register(kn_context *ctx, const kn_host_op *op, const void *extra, size_t bytes);
void kn_host_ops_free(kn_context *ctx); /* of a root context */
/* NULL: none of this name. First and next: the last one registered, and so on. */
const kn_host_op *kn_host_op_find(const kn_context *ctx, const char *name);
const kn_host_op *kn_host_op_first(const kn_context *ctx);
/* The row for so many results. */
static inline kn_op kn_host_op_row(int outs) { return (kn_op)(KN_OP_host_op + outs - 1); }
_Static_assert(KN_OP_host_op_4 - KN_OP_host_op + 1 == KN_MAX_OUTPUTS, "a row for each count of results");

#endif
