/* Preparing and running one op. */
#include "backends/onednn/call.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The problem for inputs as they lie; where oneDNN has nothing for that, for inputs copied into one piece. */
static kn_status find(dn_state *s, kn_context *ctx, kn_op op, const void *attrs, const dn_view *in, int n,
                      const kn_type *out, unsigned *copy, dn_primitive **q, char *why, size_t size) {
  dn_problem p;
  if (!dn_describe(op, attrs, in, n, out, ctx->threads, &p, copy, why, size)) return KN_DECLINED;
  kn_status st = dn_state_primitive(s, ctx, &p, q, why, size);
  if (st != KN_DECLINED) return st;
  int64_t dense[DN_MAX_IN][KN_MAX_RANK];
  dn_view views[DN_MAX_IN];
  unsigned strided = 0, more;
  for (int i = 0; i < n; i++) {
    kn_strides_contiguous(in[i].type, dense[i]);
    if (p.arg[i].rank && memcmp(dense[i], in[i].strides, in[i].type->rank * sizeof dense[i][0]))
      strided |= 1u << i;
    views[i] = (dn_view){in[i].type, dense[i]};
  }
  if (strided == *copy) return st;
  if (!dn_describe(op, attrs, views, n, out, ctx->threads, &p, &more, why, size)) return KN_DECLINED;
  *copy = strided | more;
  return dn_state_primitive(s, ctx, &p, q, why, size);
}

kn_status dn_call_prepare(dn_state *s, kn_context *ctx, kn_op op, const void *attrs, const dn_view *in, int n,
                          const kn_type *out, dn_call *c, char *why, size_t size) {
  memset(c, 0, sizeof *c);
  if (n > DN_MAX_IN) return KN_DECLINED;
  dn_primitive *q;
  KN_TRY(find(s, ctx, op, attrs, in, n, out, &c->copy, &q, why, size));
  kn_status st = dn_runner_take(ctx, q, &c->runner);
  dn_primitive_release(q);
  c->op = op;
  c->n = n;
  if (n < 2 || !dn_thinned(op, attrs, in[1].type, c->step)) c->step[0] = c->step[1] = 0;
  for (int i = 0; i < n; i++) memcpy(c->strides[i], in[i].strides, in[i].type->rank * sizeof *in[i].strides);
  return st;
}

void dn_call_drop(dn_call *c) {
  dn_runner_give(c->runner);
  c->runner = NULL;
}

bool dn_call_fits(const dn_call *c, kn_tensor *const *in) {
  if (!c->runner) return false;
  for (int i = 0; i < c->n; i++)
    if (memcmp(c->strides[i], in[i]->strides, in[i]->type.rank * sizeof in[i]->strides[0])) return false;
  return true;
}

/* oneDNN's largest element ignores nan and never gives -inf. Looking for such values costs little beside the
 * work itself. */
static bool ordinary(kn_op op, const float *x, int64_t n, char *why, size_t size) {
  int odd = 0;
  if (op == KN_OP_max_pool2d)
    for (int64_t i = 0; i < n; i++) odd |= !(x[i] > -INFINITY);
  if (odd) snprintf(why, size, "the input holds nan or infinity");
  return !odd;
}

/* In one piece; of an image with `step` only some of its rows and columns. */
static kn_status copy_dense(kn_context *ctx, kn_tensor *t, const int64_t step[2], kn_tensor **out) {
  kn_tensor *from, *c = NULL;
  KN_TRY(kn_tensor_alias(ctx, t, &from));
  for (int i = 0; step && i < 2; i++) {
    from->type.dims[2 + i] = (from->type.dims[2 + i] + step[i] - 1) / step[i];
    from->strides[2 + i] *= step[i];
  }
  kn_status st = kn_tensor_new(ctx, &from->type, &c);
  if (st == KN_OK) st = kn_kernel_clone(ctx, NULL, &from, 1, &c);
  kn_tensor_release(from);
  if (st == KN_OK)
    *out = c;
  else
    kn_tensor_release(c);
  return st;
}

static kn_status run(kn_context *ctx, dn_runner *r, void *const data[DN_MAX_ARGS], void *workspace) {
  size_t bytes = dn_primitive_workspace(dn_runner_primitive(r));
  if (!bytes || workspace) return dn_runner_run(ctx, r, data, workspace);
  workspace = kn_claim_aligned(ctx, bytes);
  if (!workspace) return kn_fail_nomem(ctx, bytes);
  kn_status st = dn_runner_run(ctx, r, data, workspace);
  kn_free_aligned(ctx->heap, workspace, bytes);
  return st;
}

kn_status dn_call_run(kn_context *ctx, dn_call *c, kn_tensor *const *in, kn_tensor *out, void *workspace,
                      char *why, size_t size) {
  kn_tensor *copies[DN_MAX_IN] = {0};
  void *data[DN_MAX_ARGS] = {0};
  kn_status st = KN_OK;
  for (int i = 0; i < c->n && st == KN_OK; i++) {
    if (c->copy >> i & 1u) st = copy_dense(ctx, in[i], i == 0 && c->step[0] ? c->step : NULL, &copies[i]);
    if (st == KN_OK) data[i] = kn_tensor_data(copies[i] ? copies[i] : in[i]);
  }
  data[DN_OUT] = kn_tensor_data(out);
  if (st == KN_OK && !ordinary(c->op, data[0], kn_tensor_numel(in[0]), why, size)) st = KN_DECLINED;
  if (st == KN_OK) st = run(ctx, c->runner, data, workspace);
  for (int i = 0; i < c->n; i++) kn_tensor_release(copies[i]);
  return st;
}
