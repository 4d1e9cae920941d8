/* Composites: attention. By its parts; or, of halves on a device that prefers it, as one op that never stores
 * scores. */
#include "core/composite.h"
#include "core/device.h"
#include "core/infer.h"
#include <math.h>

/* ---- by its parts ---- */

/* Heads of k and v, each for as many heads of q as there are more. */
static kn_tensor *shared_heads(kn_scope *s, kn_tensor *k, kn_tensor *q) {
  int at = q->type.rank - 3;
  bool heads = at >= 0 && k->type.rank == q->type.rank;
  int64_t of_q = heads ? q->type.dims[at] : 1, of_k = heads ? k->type.dims[at] : 1;
  if (!heads || !kn_dim_known(of_q) || !kn_dim_known(of_k) || of_k == 0 || of_q % of_k)
    return kx_refuse(s, KN_SHAPE, "the heads of the query must be a known multiple of those of key and value",
                     q, k);
  kn_attrs_repeat times = {.repeats = of_q / of_k, .dim = at};
  return of_q == of_k ? k : kx_with(s, KN_OP_repeat_interleave, &times, k);
}

/* What may look at what: rows look at columns up to their own. */
static kn_tensor *causal(kn_scope *s, kn_tensor *scores) {
  for (kn_tensor *t = scores; t; t = kx_select(s, t, 0, 0))
    if (t->type.rank == 2) {
      kn_attrs_diagonal main = {.diagonal = 0};
      return kx_cast(s, kx_with(s, KN_OP_tril, &main, kx_full_like(s, t, 1)), KN_BOOL);
    }
  return NULL;
}

kn_tensor *kx_attention_scaled(kn_scope *s, kn_tensor *q, double scale) {
  int last = q ? q->type.rank - 1 : 0;
  int64_t width = q ? q->type.dims[last] : 0;
  if (!q) return NULL;
  if (scale >= 0 || kn_dim_known(width)) return kx_scale(s, q, kn_attention_scale(scale, width));
  return kx_mul(s, q, kx_rsqrt(s, kx_size(s, q, last, kn_tensor_dtype(q))));
}

kn_tensor *kx_attention_scores(kn_scope *s, kn_tensor *q, kn_tensor *k, kn_tensor *mask, bool is_causal,
                               double scale) {
  kn_tensor *scores = kx_attention_scaled(s, q, scale);
  scores = k ? kx_matmul(s, scores, kx_transpose(s, k, -2, -1)) : NULL;
  if (!scores) return NULL;
  if (is_causal) return kx_where(s, causal(s, scores), scores, kx_number(s, -INFINITY, scores));
  if (mask && kn_tensor_dtype(mask) == KN_BOOL)
    return kx_where(s, mask, scores, kx_number(s, -INFINITY, scores));
  return mask ? kx_add(s, scores, mask) : scores;
}

/* Rows that may look at nothing give zeros. */
static kn_tensor *kept(kn_scope *s, kn_tensor *mask, kn_tensor *rows) {
  if (!mask || kn_tensor_dtype(mask) != KN_BOOL || !rows) return rows;
  return kx_where(s, kx_reduce(s, KN_OP_any, mask, (kn_ints){1, {-1}}, true), rows, kx_number(s, 0, rows));
}

static kn_tensor *attention(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_attention *a) {
  kn_tensor *q = in[0], *k = in[1], *v = in[2], *mask = n > 3 ? in[3] : NULL;
  if (q->type.rank < 2 || k->type.rank < 2 || v->type.rank < 2)
    return kx_refuse(s, KN_SHAPE, "at least two dims [L,E] are needed", q, k);
  if (mask && a->is_causal) return kx_refuse(s, KN_ARG, "a mask and is_causal exclude each other", q, mask);
  if (a->enable_gqa) k = shared_heads(s, k, q), v = shared_heads(s, v, q);
  kn_tensor *scores = kx_attention_scores(s, q, k, mask, a->is_causal, a->scale);
  kn_tensor *p = kept(s, mask, kx_axis(s, KN_OP_softmax, scores, -1));
  if (a->dropout_p > 0) {
    kn_attrs_dropout drop = {.p = a->dropout_p, .training = true};
    p = kx_with(s, KN_OP_dropout, &drop, p);
  }
  return kx_matmul(s, p, v);
}

static kn_status by_parts(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n, kn_tensor **out) {
  kn_scope s;
  kn_scope_open(&s, ctx);
  return kn_scope_close(&s, attention(&s, in, n, attrs), out);
}

/* ---- as one op ---- */

/* A mask that chooses becomes one that is added: of float32, and with a number that no half reaches but that
 * stays one when it is scaled. Who may look at nothing looks at all alike; zeros take its place. */
#define UNSEEN (-1e30)

static bool is_half(const kn_tensor *t) { return t->type.dtype == KN_F16 || t->type.dtype == KN_BF16; }

/* What its rule would refuse, and sizes that are shared by broadcasting, are left to the parts. */
static bool fits_one_op(kn_context *ctx, kn_tensor *const *in, int n, const kn_attrs_attention *a) {
  const kn_attrs_fused_attention one = {.is_causal = a->is_causal, .scale = a->scale};
  const kn_type *q = &in[0]->type;
  kn_type types[3], out[KN_MAX_OUTPUTS];
  if (q->device == KN_CPU || a->dropout_p != 0 || (n > 3 && a->is_causal)) return false;
  for (int i = 0; i < n; i++) {
    const kn_type *t = &in[i]->type;
    if (!kn_type_known(t) || t->device != q->device) return false;
    if (i < 3 ? t->rank != q->rank || t->dtype != q->dtype
              : t->rank > q->rank || (t->dtype != q->dtype && t->dtype != KN_BOOL))
      return false;
  }
  if (!is_half(in[0]) || q->rank < 3 || q->rank > 4) return false;
  for (int i = 0; i < 3; i++) {
    types[i] = in[i]->type;
    for (; types[i].rank < 4; types[i].rank++) {
      memmove(types[i].dims + 1, types[i].dims, types[i].rank * sizeof *types[i].dims);
      types[i].dims[0] = 1;
    }
  }
  if (!a->enable_gqa && types[0].dims[1] != types[1].dims[1]) return false;
  return kn_infer_types(ctx, KN_OP_fused_attention, &one, types, 3, out) == KN_OK;
}

static kn_tensor *with_four_dims(kn_scope *s, kn_tensor *t) {
  while (t && t->type.rank < 4) t = kx_axis(s, KN_OP_unsqueeze, t, 0);
  return t;
}

static kn_tensor *number_wide(kn_scope *s, double value) {
  const kn_scalar number = {.kind = KN_SCALAR_FLOAT, .as.f = value};
  kn_tensor *t;
  if (s->status != KN_OK) return NULL;
  const kn_status st = kn_scalar_tensor(s->ctx, &number, KN_F32, &t);
  return st == KN_OK ? kx_own(s, t) : kx_fail(s, st);
}

static kn_tensor *added(kn_scope *s, kn_tensor *mask) {
  if (kn_tensor_dtype(mask) != KN_BOOL) return mask;
  return kx_where(s, mask, number_wide(s, 0), number_wide(s, UNSEEN));
}

/* DECLINED: nobody prefers it. */
static kn_status by_one_op(kn_context *ctx, kn_tensor *const *in, int n, const kn_attrs_attention *a,
                           kn_tensor **out) {
  const kn_attrs_fused_attention one = {.is_causal = a->is_causal, .scale = a->scale};
  kn_tensor *as[4];
  kn_scope s;
  if (!fits_one_op(ctx, in, n, a)) return KN_DECLINED;
  kn_scope_open(&s, ctx);
  for (int i = 0; i < n; i++) as[i] = with_four_dims(&s, i < 3 ? in[i] : added(&s, in[i]));
  if (s.status == KN_OK && !kn_device_prefers(ctx, KN_OP_fused_attention, &one, as, n))
    s.status = KN_DECLINED;
  kn_tensor *y = kx_apply(&s, KN_OP_fused_attention, &one, as, n);
  if (y && in[0]->type.rank == 3) y = kx_select(&s, y, 0, 0);
  return kn_scope_close(&s, kept(&s, n > 3 ? in[3] : NULL, y), out);
}

COMPOSITE(scaled_dot_product_attention) {
  const kn_status st = by_one_op(ctx, in, n, attrs, out);
  if (st != KN_DECLINED) return st;
  return kn_apply_wide(ctx, KN_OP_scaled_dot_product_attention, by_parts, attrs, in, n, out);
}
