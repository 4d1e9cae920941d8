/* The gradient of attention as one op: one op where the device prefers that, else by its parts, which can be
 * differentiated again. */
#include "core/composite.h"
#include "core/device.h"
#include "core/grad/vjp.h"

static kn_tensor *turned(kn_scope *s, kn_tensor *t) { return kx_transpose(s, t, -2, -1); }

static kn_tensor *mask_of(kn_vjp *v) { return v->n > 3 ? kv_in(v, 3) : NULL; }

/* Where heads share keys, what is of H heads is shown as of [G,H/G], and what is of G as of [G,1]. */
static bool are_shared(const kn_vjp *v) {
  const int64_t heads = v->in[0]->type.dims[1];
  return !kn_dim_known(heads) || heads != v->in[1]->type.dims[1];
}

static kn_tensor *grouped(kn_vjp *v, kn_tensor *t) {
  const int64_t heads = v->in[0]->type.dims[1], groups = v->in[1]->type.dims[1];
  kn_ints sizes = {0};
  if (!t || !are_shared(v)) return t;
  kx_put_sizes(v->s, t, 0, 1, &sizes);
  kx_put_sizes(v->s, v->in[1], 1, 2, &sizes);
  kx_put_size(v->s, kn_dim_known(heads) && kn_dim_known(groups) ? heads / groups : -1, &sizes);
  kx_put_sizes(v->s, t, 2, 4, &sizes);
  return kx_reshape(v->s, t, &sizes);
}

static kn_tensor *of_groups(kn_vjp *v, kn_tensor *t) {
  return t && are_shared(v) ? kx_axis(v->s, KN_OP_unsqueeze, t, 2) : t;
}

/* The gradient of what is of groups. */
static kn_tensor *added_up(kn_vjp *v, kn_tensor *g) {
  return g && are_shared(v) ? kx_sum(v->s, g, &(kn_ints){1, {2}}, false) : g;
}

static kn_tensor *grouped_mask(kn_vjp *v) {
  kn_tensor *mask = mask_of(v);
  kn_ints sizes = {0};
  if (!mask || !are_shared(v)) return mask;
  kx_put_sizes(v->s, v->in[0], 0, 3, &sizes);
  kx_put_sizes(v->s, v->in[1], 2, 3, &sizes);
  return grouped(v, kx_expand(v->s, mask, &sizes));
}

/* [N,H,L,S] or [N,G,H/G,L,S], as the mask lies. */
static kn_tensor *mask_gradient(kn_vjp *v, kn_tensor *ds) {
  kn_ints sizes = {0};
  if (!are_shared(v)) return kv_fit(v, ds, 3);
  kx_put_sizes(v->s, v->in[0], 0, 3, &sizes);
  kx_put_sizes(v->s, v->in[1], 2, 3, &sizes);
  return kv_fit(v, kx_reshape(v->s, ds, &sizes), 3);
}

static void by_parts(kn_vjp *v) {
  const kn_attrs_fused_attention *a = v->attrs;
  const kn_ints last = {1, {-1}};
  kn_scope *s = v->s;
  kn_tensor *q = grouped(v, kx_wide(s, kv_in(v, 0))), *k = of_groups(v, kx_wide(s, kv_in(v, 1)));
  kn_tensor *w = of_groups(v, kx_wide(s, kv_in(v, 2))), *mask = kx_wide(s, grouped_mask(v));
  kn_tensor *g = grouped(v, kx_wide(s, v->gout[0])), *gs = v->gout[1], *ds = NULL;
  if (s->status != KN_OK) return;
  kn_tensor *scores = kx_attention_scores(s, q, k, mask, a->is_causal, a->scale);
  kn_tensor *p = kx_axis(s, KN_OP_softmax, scores, -1);
  if (g) {
    kn_tensor *dp = kx_matmul(s, g, turned(s, w));
    ds = kx_mul(s, p, kx_sub(s, dp, kx_sum(s, kx_mul(s, dp, p), &last, true)));
    if (v->need[2]) v->gin[2] = added_up(v, kx_matmul(s, turned(s, p), g));
  }
  if (gs) { /* of the logarithm of the sum of exponentials */
    kn_tensor *of = kx_mul(s, p, grouped(v, kx_axis(s, KN_OP_unsqueeze, gs, -1)));
    ds = ds ? kx_add(s, ds, of) : of;
  }
  if (!ds) return;
  kn_tensor *dq = kx_attention_scaled(s, kx_matmul(s, ds, k), a->scale);
  if (v->need[0]) v->gin[0] = are_shared(v) ? kx_reshape_as(s, dq, kv_like(v, 0)) : dq;
  if (v->need[1]) v->gin[1] = added_up(v, kx_matmul(s, turned(s, ds), kx_attention_scaled(s, q, a->scale)));
  if (v->n > 3 && v->need[3]) v->gin[3] = mask_gradient(v, ds);
}

void kn_vjp_fused_attention(kn_vjp *v) {
  kn_context *ctx = v->s->ctx;
  const int n = v->n > 3 ? 7 : 6;
  kn_tensor *g[3];
  if (ctx->grad_enabled || !v->gout[0] || v->gout[1] || (v->n > 3 && v->need[3])) {
    by_parts(v);
    return;
  }
  kn_tensor *in[] = {kv_in(v, 0),  kv_in(v, 1), kv_in(v, 2), kv_out(v, 0),
                     kv_out(v, 1), v->gout[0],  mask_of(v)};
  if (v->s->status != KN_OK) return;
  if (!kn_device_prefers(ctx, KN_OP_fused_attention_grad, v->attrs, in, n)) {
    by_parts(v);
    return;
  }
  kx_apply_all(v->s, KN_OP_fused_attention_grad, v->attrs, in, n, g);
  for (int i = 0; i < 3; i++) v->gin[i] = g[i];
}
