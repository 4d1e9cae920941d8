/* Scopes of intermediates: see core/expr.h. */
#include "core/expr.h"

void kn_scope_open(kn_scope *s, kn_context *ctx) {
  s->ctx = ctx;
  s->status = KN_OK;
  s->n = 0;
}

kn_status kn_scope_close(kn_scope *s, kn_tensor *result, kn_tensor **out) {
  if (s->status == KN_OK && out) {
    if (result)
      *out = kn_tensor_retain(result);
    else
      s->status = kn_fail(s->ctx, KN_INTERNAL, "an expression gave no result");
  }
  for (int i = 0; i < s->n; i++) kn_tensor_release(s->owned[i]);
  s->n = 0;
  return s->status;
}

kn_status kn_scope_close_all(kn_scope *s, kn_tensor *const *results, int n, kn_tensor **out) {
  for (int i = 0; i < n && s->status == KN_OK; i++)
    if (!results[i]) s->status = kn_fail(s->ctx, KN_INTERNAL, "an expression gave no result %d", i + 1);
  for (int i = 0; i < n && s->status == KN_OK; i++) out[i] = kn_tensor_retain(results[i]);
  return kn_scope_close(s, NULL, NULL);
}

kn_tensor *kx_fail(kn_scope *s, kn_status st) {
  if (s->status == KN_OK) s->status = st;
  return NULL;
}

kn_tensor *kx_own(kn_scope *s, kn_tensor *t) {
  if (s->n == KN_SCOPE_MAX) {
    kn_tensor_release(t);
    return kx_fail(s, kn_fail(s->ctx, KN_INTERNAL, "an expression has more than %d parts", KN_SCOPE_MAX));
  }
  return s->owned[s->n++] = t;
}

kn_tensor *kx_apply(kn_scope *s, kn_op op, const void *attrs, kn_tensor *const *in, int n) {
  if (s->status != KN_OK) return NULL;
  for (int i = 0; i < n; i++)
    if (!in[i])
      return kx_fail(
          s, kn_fail(s->ctx, KN_INTERNAL, "%s: input %d is missing in an expression", kn_op_name(op), i + 1));
  kn_tensor *out[KN_MAX_OUTPUTS];
  kn_status st = kn_apply(s->ctx, op, attrs, in, n, out);
  if (st != KN_OK) return kx_fail(s, st);
  for (int i = 1; i < kn_ops[op].outs; i++) kn_tensor_release(out[i]);
  return kx_own(s, out[0]);
}

void kx_apply_all(kn_scope *s, kn_op op, const void *attrs, kn_tensor *const *in, int n, kn_tensor **out) {
  kn_tensor *made[KN_MAX_OUTPUTS];
  for (int i = 0; i < kn_ops[op].outs; i++) out[i] = NULL;
  for (int i = 0; i < n && s->status == KN_OK; i++)
    if (!in[i])
      kx_fail(
          s, kn_fail(s->ctx, KN_INTERNAL, "%s: input %d is missing in an expression", kn_op_name(op), i + 1));
  if (s->status != KN_OK) return;
  kn_status st = kn_apply(s->ctx, op, attrs, in, n, made);
  if (st != KN_OK)
    kx_fail(s, st);
  else
    for (int i = 0; i < kn_ops[op].outs; i++) out[i] = kx_own(s, made[i]);
}

kn_tensor *kx_number(kn_scope *s, double value, const kn_tensor *like) {
  return kx_exact(s, (kn_number){value, 0}, like);
}

kn_tensor *kx_exact(kn_scope *s, kn_number value, const kn_tensor *like) {
  if (s->status != KN_OK || !like) return NULL;
  kn_scalar number = {.kind = KN_SCALAR_FLOAT, .as.f = value.near};
  if (value.rest) number = (kn_scalar){.kind = KN_SCALAR_INT, .as.i = kn_number_int(value)};
  kn_tensor *t;
  kn_status st = kn_scalar_tensor(s->ctx, &number, kn_tensor_dtype(like), &t);
  return st == KN_OK ? kx_own(s, t) : kx_fail(s, st);
}

kn_tensor *kx_single(kn_scope *s, double value, const kn_tensor *like) {
  if (s->status != KN_OK || !like) return NULL;
  if (like->type.device == KN_CPU) return kx_number(s, value, like);
  const kn_attrs_fill one = {.value = value, .dtype = kn_tensor_dtype(like), .device = like->type.device};
  return kx_apply(s, KN_OP_full, &one, NULL, 0);
}

kn_tensor *kx_to_device(kn_scope *s, kn_tensor *t, kn_device_id d) {
  const kn_attrs_device to = {.device = (int32_t)d};
  if (!t || t->type.device == d) return s->status == KN_OK ? t : NULL;
  return kx_apply(s, KN_OP_to_device, &to, &t, 1);
}
