/* The tape: what autograd knows of tensors, and the backward walk. Gradients are computed by vjp rules that
 * only call ops, so the same walk serves eager tensors, recorded (symbolic) ones and higher orders. */
#ifndef KN_TAPE_H
#define KN_TAPE_H
#include "core/op.h"

typedef struct kn_grad kn_grad;

/* Frees the link of a tensor and, with the last reference, its tape nodes (iteratively: chains may be long).
 */
void kn_grad_free(kn_grad *g);

bool kn_requires_grad(const kn_tensor *t);
/* Leaves only (no history): STATE otherwise. Floating dtypes only: DTYPE otherwise. */
kn_status kn_set_requires_grad(kn_context *ctx, kn_tensor *t, bool on);
bool kn_is_leaf(const kn_tensor *t);
/* The accumulated gradient, or NULL. Borrowed. */
kn_tensor *kn_grad_of(const kn_tensor *t);
/* Replace (g retained) or clear (g NULL) it. */
kn_status kn_set_grad(kn_context *ctx, kn_tensor *t, kn_tensor *g);
/* Name of the op that made it, NULL for leaves. */
const char *kn_grad_op(const kn_tensor *t);

/* Called by kn_apply after a kernel ran or was recorded: links out[] to a new node if any input requires
 * grad. */
kn_status kn_tape_record(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                         kn_tensor *const *out);

/* Called before an op writes into in[0] (a WRITES row or an in-place form). Matters only while grad mode is
 * on and in[0], or a value that would flow into it, requires grad. STATE for a leaf that requires grad.
 * UNSUPPORTED when other tensors are or were views of the same elements, since their history would not know
 * of the write. Else the write becomes part of in[0]'s history (kn_tape_record with out[0] == in[0]). */
kn_status kn_tape_check_write(kn_context *ctx, kn_op op, kn_tensor *const *in, int n);

/* Accumulate d y / d leaf into each leaf's grad. g NULL: y must have one element, 1 is used. create_graph
 * keeps the gradients differentiable. Values changed in place since they were saved are an error that names
 * the op. */
kn_status kn_backward(kn_context *ctx, kn_tensor *y, kn_tensor *g, bool create_graph);
/* Gradients of sum(ys · gs) for each x, owned in out[]; NULL where x does not take part. gs may be NULL or
 * hold NULLs (ones, for one-element ys). Leaves' grad fields are not touched. */
kn_status kn_gradients(kn_context *ctx, kn_tensor *const *ys, int ny, kn_tensor *const *gs,
                       kn_tensor *const *xs, int nx, bool create_graph, kn_tensor **out);

#endif
