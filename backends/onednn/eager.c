/* The eager kernels: each call finds its primitive in the cache of the state. */
#include "backends/onednn/call.h"
#include "backends/onednn/onednn.h"
#include "backends/registry.h"
#include <string.h>

static kn_status compute(dn_state *s, kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in,
                         int n, kn_tensor *out, char *why, size_t size) {
  if (n > DN_MAX_IN) return KN_DECLINED;
  if (op == KN_OP_matmul && !dn_matmul_pays(&in[0]->type, &out->type)) { /* told before all other work */
    strcpy(why, "too small to pay");
    return KN_DECLINED;
  }
  dn_view views[DN_MAX_IN];
  for (int i = 0; i < n; i++) views[i] = (dn_view){&in[i]->type, in[i]->strides};
  dn_call c;
  KN_TRY(dn_call_prepare(s, ctx, op, attrs, views, n, &out->type, &c, why, size));
  kn_status st = dn_call_run(ctx, &c, in, out, NULL, why, size);
  dn_call_drop(&c);
  return st;
}

static kn_status kernel(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                        kn_tensor *out) {
  dn_state *s = kn_backend_state(ctx, &kn_onednn_backend);
  if (!s) return KN_DECLINED;
  char why[96];
  why[0] = 0;
  kn_status st = compute(s, ctx, op, attrs, in, n, out, why, sizeof why);
  if (st == KN_DECLINED && kn_debugging(ctx, KN_DEBUG_DISPATCH))
    kn_log(ctx, "dispatch: onednn declines %s: %s", kn_op_name(op), why);
  return st;
}

/* A kernel is not told its op, so there is one function each. */
#define X(op, a, b, c, o)                                                                                    \
  static kn_status onednn_##op(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    return kernel(ctx, KN_OP_##op, attrs, in, n, out[0]);                                                    \
  }
DN_OPS(X)
#undef X

const kn_provider dn_provider = {
    .name = "onednn",
    .kernel =
        {
#define X(op, a, b, c, o) [KN_OP_##op] = onednn_##op,
            DN_OPS(X)
#undef X
        },
};
