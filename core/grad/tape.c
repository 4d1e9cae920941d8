/* What autograd knows of a tensor, and how an op gets on the tape. The walk back is in backward.c. */
#include "core/grad/node.h"

bool kn_requires_grad(const kn_tensor *t) { return t->grad && t->grad->requires_grad; }
bool kn_is_leaf(const kn_tensor *t) { return !t->grad || !t->grad->node; }
kn_tensor *kn_grad_of(const kn_tensor *t) { return t->grad ? t->grad->sum : NULL; }
const char *kn_grad_op(const kn_tensor *t) { return kn_is_leaf(t) ? NULL : kn_op_name(t->grad->node->op); }

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
  if (!on && !t->grad) return KN_OK;
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

  kn_node *node;
  KN_TRY(kn_node_new(ctx, op, attrs, in, n, out, &node));
  kn_grad *link[KN_MAX_OUTPUTS] = {NULL};
  bool ok = true;
  for (int k = 0; ok && k < info->outs; k++)
    if (kn_dtype_is_float(kn_tensor_dtype(out[k]))) ok = (link[k] = kn_grad_new(ctx->heap, node, k)) != NULL;
  for (int k = 0; k < info->outs; k++) {
    if (!ok)
      kn_grad_free(link[k]);
    else if (link[k]) {
      kn_grad_free(out[k]->grad);
      out[k]->grad = link[k];
    }
  }
  kn_node_release(node);
  return ok ? KN_OK : kn_fail_nomem(ctx, sizeof(kn_grad));
}

kn_status kn_tape_check_write(kn_context *ctx, kn_op op, kn_tensor *const *in, int n) {
  if (!ctx->grad_enabled || !kn_dtype_is_float(kn_tensor_dtype(in[0])) || !any_requires_grad(in, n))
    return KN_OK;
  const char *name = kn_op_name(op), *suffix = kn_ops[op].flags & KN_FLAG_WRITES ? "" : "_";
  if (kn_requires_grad(in[0]) && kn_is_leaf(in[0]))
    return kn_fail(ctx, KN_STATE,
                   "%s%s: a leaf that requires grad is being changed in place; use kiln.no_grad", name,
                   suffix);
  if (in[0]->storage && !atomic_load(&in[0]->storage->viewed)) return KN_OK;
  return kn_fail(ctx, KN_UNSUPPORTED,
                 "%s%s: changing a tensor in place while gradients are recorded is not supported "
                 "yet when %s; use kiln.no_grad, or the form that gives a new tensor",
                 name, suffix, in[0]->storage ? "it is or has a view" : "a graph is being recorded");
}
