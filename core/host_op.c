/* Ops of the host: their list, the type rule, the kernel and the gradient of the rows host_op. */
#include "core/host_op.h"
#include "core/grad/vjp.h"
#include "core/infer.h"
#include <string.h>

/* ---- the list ---- */

static kn_context *root_of(const kn_context *ctx) {
  while (ctx->parent) ctx = ctx->parent;
  return (kn_context *)(uintptr_t)ctx;
}

const kn_host_op *kn_host_op_first(const kn_context *ctx) { return root_of(ctx)->host_ops; }

const kn_host_op *kn_host_op_find(const kn_context *ctx, const char *name) {
  const kn_host_op *op = kn_host_op_first(ctx);
  while (op && strcmp(op->name.s, name)) op = op->next;
  return op;
}

kn_status kn_host_op_register(kn_context *ctx, const kn_host_op *op, const void *extra, size_t bytes) {
  kn_context *root = root_of(ctx);
  if (kn_host_op_find(ctx, op->name.s))
    return kn_fail(ctx, KN_ARG, "there is an op '%s' in this context already", op->name.s);
  kn_host_op *copy = kn_alloc(root->heap, sizeof *copy + bytes);
  if (!copy) return kn_fail_nomem(ctx, sizeof *copy + bytes);
  *copy = *op;
  copy->ud = copy + 1;
  copy->bytes = bytes;
  memcpy(copy->ud, extra, bytes);
  copy->next = root->host_ops;
  root->host_ops = copy;
  return KN_OK;
}

void kn_host_ops_free(kn_context *ctx) {
  while (ctx->host_ops) {
    kn_host_op *next = ctx->host_ops->next;
    kn_free(ctx->heap, ctx->host_ops, sizeof *next + ctx->host_ops->bytes);
    ctx->host_ops = next;
  }
}

/* The op that is meant, called as it may be. */
static kn_status meant(kn_context *ctx, const kn_attrs_host_op *a, const kn_host_op **out) {
  const kn_host_op *op = kn_host_op_find(ctx, a->name.s);
  if (!op)
    return kn_fail(
        ctx, KN_UNSUPPORTED,
        "op '%s' is the host's, and this context has none of that name: see kiln_context_register_op",
        a->name.s);
  if (a->values.n != op->nvalues)
    return kn_fail(ctx, KN_ARG, "op '%s' has %d values, not %d", op->name.s, op->nvalues, (int)a->values.n);
  *out = op;
  return KN_OK;
}

/* ---- types ---- */

static bool is_floating(const kn_type *t) { return kn_dtype_is_float((kn_dtype)t->dtype); }

/* Is a size that is not known one of the inputs'? */
static bool is_theirs(const kn_host_op *op, const kn_type *in, int64_t size) {
  for (int i = 0; i < op->inputs; i++)
    for (int d = 0; d < in[i].rank; d++)
      if (in[i].dims[d] == size) return true;
  return false;
}

static kn_status check_result(kn_context *ctx, const kn_host_op *op, const kn_type *in, bool known, int i,
                              const kn_type *t) {
  if (t->dtype >= KN_DTYPE_COUNT || t->rank > KN_MAX_RANK)
    return kn_fail(ctx, KN_ARG, "%s: its shape rule gave no dtype and rank for result %d", op->name.s, i + 1);
  for (int d = 0; d < t->rank; d++) {
    const int64_t size = t->dims[d];
    if (kn_dim_known(size) || (!known && size == KN_DIM_UNKNOWN) || is_theirs(op, in, size)) continue;
    return kn_fail(ctx, KN_SHAPE, "%s: its shape rule gave %lld as size %d of result %d", op->name.s,
                   (long long)size, d + 1, i + 1);
  }
  return KN_OK;
}

/* The results of the op itself. */
static kn_status results(kn_context *ctx, const kn_host_op *op, const kn_attrs_host_op *a, const kn_type *in,
                         kn_type *out) {
  bool known = true;
  for (int i = 0; i < op->inputs; i++) known &= kn_type_known(&in[i]);
  memset(out, 0, (size_t)op->outputs * sizeof *out);
  KN_TRY(op->shape(op, ctx, a->values.v, in, out));
  for (int i = 0; i < op->outputs; i++) {
    KN_TRY(check_result(ctx, op, in, known, i, &out[i]));
    out[i].device = in[0].device;
    for (int d = out[i].rank; d < KN_MAX_RANK; d++) out[i].dims[d] = 0;
  }
  return KN_OK;
}

static bool may_be(const kn_type *a, const kn_type *b) {
  bool same = a->dtype == b->dtype && a->rank == b->rank;
  for (int d = 0; same && d < a->rank; d++) same = kn_dim_may_equal(a->dims[d], b->dims[d]);
  return same;
}

/* A gradient: what stands behind the inputs is as the op's results, twice. */
static kn_status gradients(const kn_infer *q, const kn_host_op *op, const kn_type *made) {
  int floating = 0;
  for (int i = 0; i < 2 * op->outputs; i++)
    if (!may_be(&q->in[op->inputs + i], &made[i % op->outputs]))
      return kn_infer_fail(q, KN_SHAPE, "the gradient of op '%s' is given what is no result of it",
                           op->name.s);
  for (int i = 0; i < op->inputs; i++) {
    if (!is_floating(&q->in[i])) continue;
    if (floating < kn_ops[q->op].outs) q->out[floating] = q->in[i];
    floating++;
  }
  if (floating == kn_ops[q->op].outs && op->differentiable) return KN_OK;
  return kn_infer_fail(q, KN_ARG, "op '%s' has no gradient for %d inputs", op->name.s,
                       (int)kn_ops[q->op].outs);
}

kn_status kn_infer_host_op(const kn_infer *q) {
  const kn_attrs_host_op *a = q->attrs;
  const kn_host_op *op;
  KN_TRY(meant(q->ctx, a, &op));
  const int takes = op->inputs + (a->gradient ? 2 * op->outputs : 0);
  if (q->n != takes)
    return kn_fail(q->ctx, KN_ARG, "%s: takes %d tensor%s, got %d", op->name.s, takes, takes == 1 ? "" : "s",
                   q->n);
  if (!a->gradient && kn_ops[q->op].outs != op->outputs)
    return kn_infer_fail(q, KN_ARG, "op '%s' has %d results", op->name.s, op->outputs);
  kn_type made[KN_MAX_OUTPUTS];
  KN_TRY(results(q->ctx, op, a, q->in, made));
  if (a->gradient) return gradients(q, op, made);
  memcpy(q->out, made, (size_t)op->outputs * sizeof *made);
  return KN_OK;
}

/* ---- running ---- */

static kn_status run(kn_context *ctx, const kn_attrs_host_op *a, kn_tensor *const *in, int n,
                     kn_tensor *const *out, int outs) {
  const kn_host_op *op;
  kn_tensor *flat[KN_MAX_INPUTS];
  int have = 0;
  KN_TRY(meant(ctx, a, &op));
  kn_status st = KN_OK;
  for (; have < n && st == KN_OK; have += st == KN_OK) {
    if (kn_tensor_contiguous(in[have])) {
      flat[have] = kn_tensor_retain(in[have]);
      continue;
    }
    st = kn_tensor_new(ctx, &in[have]->type, &flat[have]);
    if (st == KN_OK) st = kn_kernel_clone(ctx, NULL, &in[have], 1, &flat[have]);
  }
  if (st == KN_OK) st = op->run(op, ctx, a, flat, n, out, outs);
  while (have) kn_tensor_release(flat[--have]);
  return st;
}

/* ---- gradients ---- */

static void gradient(kn_vjp *v, int outs) {
  kn_attrs_host_op a = *(const kn_attrs_host_op *)v->attrs;
  const kn_host_op *op = kn_host_op_find(v->s->ctx, a.name.s);
  kn_tensor *in[KN_MAX_INPUTS], *made[KN_MAX_OUTPUTS];
  int n = 0, floating = 0;
  if (a.gradient || !op || !op->differentiable) {
    kx_fail(v->s, kn_fail(v->s->ctx, KN_UNSUPPORTED,
                          a.gradient ? "the gradient of op '%s' is not differentiable"
                                     : "op '%s' has no gradient: it was registered without a vjp",
                          a.name.s));
    return;
  }
  for (int i = 0; i < v->n; i++) {
    in[n++] = kv_in(v, i);
    floating += is_floating(&v->in[i]->type);
  }
  for (int i = 0; i < outs; i++) in[n++] = kv_out(v, i);
  for (int i = 0; i < outs; i++) {
    kn_tensor *y = in[v->n + i];
    in[n++] = v->gout[i] ? v->gout[i] : y ? kx_full_like(v->s, y, 0) : NULL;
  }
  if (floating > KN_MAX_OUTPUTS) {
    kx_fail(v->s,
            kn_fail(v->s->ctx, KN_UNSUPPORTED, "op '%s' has %d floating inputs, and gradients are for %d",
                    a.name.s, floating, (int)KN_MAX_OUTPUTS));
    return;
  }
  a.gradient = true;
  kx_apply_all(v->s, kn_host_op_row(floating), &a, in, n, made);
  for (int i = 0, k = 0; i < v->n; i++)
    if (is_floating(&v->in[i]->type)) v->gin[i] = v->need[i] ? made[k++] : (k++, NULL);
}

#define ROW(name, outs)                                                                                      \
  kn_status kn_kernel_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,                \
                             kn_tensor *const *out) {                                                        \
    return run(ctx, attrs, in, n, out, outs);                                                                \
  }                                                                                                          \
  void kn_vjp_##name(kn_vjp *v) { gradient(v, outs); }

ROW(host_op, 1)
ROW(host_op_2, 2)
ROW(host_op_3, 3)
ROW(host_op_4, 4)
