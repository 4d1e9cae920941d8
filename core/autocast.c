/* Autocast: see core/autocast.h. */
#include "core/autocast.h"
#include "core/dispatch.h"

bool kn_autocast_parse(const char *name, uint8_t *half) {
  kn_dtype d;
  if (!kn_dtype_parse(name, &d) || !kn_dtype_is_float(d) || kn_dtypes[d].wide == d) return false;
  *half = (uint8_t)d;
  return true;
}

kn_dtype kn_autocast_dtype(const kn_context *ctx, const kn_op_info *row, kn_dtype d) {
  if (ctx->autocast == KN_BOOL || !kn_dtype_is_float(d) || d == KN_F64) return d;
  if (row->flags & KN_FLAG_LOW) return (kn_dtype)ctx->autocast;
  return row->flags & KN_FLAG_FULL ? kn_dtypes[d].wide : d;
}

/* An input as it is to be; owned. */
static kn_status suited(kn_context *ctx, kn_tensor *t, kn_dtype d, kn_tensor **out) {
  const kn_attrs_cast to = {.dtype = d};
  if (d != kn_tensor_dtype(t)) return kn_apply(ctx, KN_OP_cast, &to, &t, 1, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

kn_status kn_autocast_apply(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                            kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  const uint8_t half = ctx->autocast;
  const kn_dtype widest = row->flags & KN_FLAG_ALIKE ? kn_promote_floats(in, n) : KN_BOOL;
  kn_tensor *as[KN_MAX_INPUTS] = {NULL};
  kn_status st = KN_OK;
  int given = 0;
  for (; given < n; given++) {
    if (!in[given]) continue;
    const kn_dtype d = kn_tensor_dtype(in[given]);
    const bool alike = widest != KN_BOOL && kn_dtype_is_float(d);
    st = suited(ctx, in[given], alike ? widest : kn_autocast_dtype(ctx, row, d), &as[given]);
    if (st != KN_OK) break;
  }
  ctx->autocast = KN_BOOL;
  if (st == KN_OK) st = kn_apply(ctx, op, attrs, as, n, out);
  ctx->autocast = half;
  while (given-- > 0) kn_tensor_release(as[given]);
  return st;
}
