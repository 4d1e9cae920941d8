/* What autograd knows of a tensor, and how an op gets on the tape. The walk back is in backward.c. */
#include "core/grad/node.h"

/* A view whose base was written to since has the history of its base, which it will look for
 * (kn_tape_freshen).
 */
bool kn_requires_grad(const kn_tensor *t) {
  if (kn_tape_is_stale(t)) t = t->base;
  return t->grad && t->grad->requires_grad;
}

bool kn_is_leaf(const kn_tensor *t) {
  if (kn_tape_is_stale(t)) return !kn_requires_grad(t);
  return !t->grad || !t->grad->node;
}

kn_tensor *kn_grad_of(const kn_tensor *t) { return t->grad ? t->grad->sum : NULL; }

const char *kn_grad_op(const kn_tensor *t) {
  if (kn_is_leaf(t)) return NULL;
  return kn_tape_is_stale(t) ? kn_op_name(KN_OP_strided) : kn_node_name(t->grad->node);
}

/* The tensor's link, made when there is none. */
static kn_status ensure_link(kn_context *ctx, kn_tensor *t) {
  if (!t->grad) t->grad = kn_grad_new(t->heap, NULL, 0);
  return t->grad ? KN_OK : kn_fail_nomem(ctx, sizeof(kn_grad));
}

kn_status kn_set_requires_grad(kn_context *ctx, kn_tensor *t, bool on) {
  if (!kn_is_leaf(t))
    return kn_fail(ctx, KN_STATE,
                   "requires_grad can be changed for leaves only, and this tensor is a result of %s; "
                   "detach it first",
                   kn_grad_op(t));
  if (on && !kn_dtype_is_float(kn_tensor_dtype(t)))
    return kn_fail(ctx, KN_DTYPE, "requires_grad: only floating tensors can require grad, and this one is %s",
                   kn_dtype_name(kn_tensor_dtype(t)));
  if (on && t->storage && t->storage->inference && !ctx->inference)
    return kn_fail(ctx, KN_STATE,
                   "requires_grad: the tensor was made in inference mode and never takes part in gradients; "
                   "clone it first");
  if (!on && !t->grad) return KN_OK;
  KN_TRY(kn_tape_freshen(ctx, t));
  KN_TRY(ensure_link(ctx, t));
  t->grad->requires_grad = on;
  return KN_OK;
}

kn_status kn_set_grad(kn_context *ctx, kn_tensor *t, kn_tensor *g) {
  if (g == t) return kn_fail(ctx, KN_ARG, "a tensor cannot be its own gradient");
  if (g && !kn_type_equal(&g->type, &t->type)) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    return kn_fail(ctx, g->type.dtype == t->type.dtype ? KN_SHAPE : KN_DTYPE,
                   "a gradient %s cannot be set for a tensor %s", kn_type_text(&g->type, a, sizeof a),
                   kn_type_text(&t->type, b, sizeof b));
  }
  if (!g && !t->grad) return KN_OK;
  KN_TRY(ensure_link(ctx, t));
  kn_tensor *old = t->grad->sum;
  t->grad->sum = g ? kn_tensor_retain(g) : NULL;
  kn_tensor_release(old);
  return KN_OK;
}

static bool any_requires_grad(kn_tensor *const *in, int n) {
  for (int i = 0; i < n; i++)
    if (in[i] && kn_requires_grad(in[i])) return true;
  return false;
}

kn_status kn_tape_record(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                         kn_tensor *const *out) {
  const kn_op_info *info = &kn_ops[op];
  if (!ctx->grad_enabled || !info->vjp || !any_requires_grad(in, n)) return KN_OK;
  bool floating = false;
  for (int k = 0; k < info->outs; k++) floating |= kn_dtype_is_float(kn_tensor_dtype(out[k]));
  if (!floating) return KN_OK;
  for (int i = 0; i < n; i++)
    if (in[i] && kn_tape_is_stale(in[i])) {
      kn_status st = kn_tape_freshen(ctx, in[i]);
      if (st != KN_OK) {
        kn_error_prefix(ctx, "%s: input %d", info->name, i + 1);
        return st;
      }
    }

  kn_node *node;
  KN_TRY(kn_node_new(ctx, op, attrs, in, n, out, &node));
  kn_grad *link[KN_MAX_OUTPUTS] = {NULL};
  bool ok = true;
  int links = 0;
  for (int k = 0; ok && k < info->outs; k++)
    if (kn_dtype_is_float(kn_tensor_dtype(out[k]))) ok = (link[k] = kn_grad_new(ctx->heap, NULL, k)) != NULL;
  for (int k = 0; k < info->outs; k++) {
    if (!ok) {
      kn_grad_free(link[k]);
    } else if (link[k]) {
      link[k]->node = node;
      link[k]->requires_grad = true;
      links++;
      kn_grad_free(out[k]->grad);
      out[k]->grad = link[k];
      if (out[k]->base) out[k]->history = out[k]->base->history;
    }
  }
  if (ok)
    atomic_store_explicit(&node->refs, links, memory_order_relaxed); /* nobody else has seen it yet */
  else
    kn_node_release(node);
  return ok ? KN_OK : kn_fail_nomem(ctx, sizeof(kn_grad));
}
