/* Preparing and running one op. */
#include "backends/onednn/call.h"
#include "core/kernels/kernel.h"
#include "core/parallel.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The problem for inputs as they lie; where oneDNN has nothing for that, for inputs copied into one piece. */
static kn_status find(dn_state *s, kn_context *ctx, kn_op op, const void *attrs, const dn_view *in, int n,
                      const kn_type *out, unsigned *copy, dn_primitive **q, char *why, size_t size) {
  dn_problem p;
  if (!dn_describe(op, attrs, in, n, out, kn_parallel_library_threads(ctx), &p, copy, why, size))
    return KN_DECLINED;
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
  if (!dn_describe(op, attrs, views, n, out, kn_parallel_library_threads(ctx), &p, &more, why, size))
    return KN_DECLINED;
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

/* What is copied into one piece: all of input i, or only some rows and columns of an image. */
static kk_view seen(const dn_call *c, int i, const kn_tensor *t) {
  kk_view v = kk_view_of(t);
  for (int k = 0; i == 0 && c->step[0] && k < 2; k++)
    kk_slice(&v, 2 + k, 0, (v.dims[2 + k] + c->step[k] - 1) / c->step[k], c->step[k]);
  return v;
}

static kn_status run(kn_context *ctx, dn_runner *r, void *const data[DN_MAX_ARGS], void *workspace) {
  size_t bytes = dn_primitive_workspace(dn_runner_primitive(r));
  if (!bytes || workspace) return dn_runner_run(ctx, r, data, workspace);
  workspace = kn_claim_aligned(ctx, bytes);
  if (!workspace) return kn_fail_nomem(ctx, bytes);
  kn_status st = dn_runner_run(ctx, r, data, workspace);
  kn_free_aligned(kn_claim_heap(ctx), workspace, bytes);
  return st;
}

kn_status dn_call_run(kn_context *ctx, dn_call *c, kn_tensor *const *in, kn_tensor *out, void *workspace,
                      char *why, size_t size) {
  kk_view from[DN_MAX_IN];
  kk_dense dense;
  void *data[DN_MAX_ARGS] = {0};
  for (int i = 0; i < c->n; i++) from[i] = seen(c, i, in[i]);
  KN_TRY(kk_dense_take(ctx, from, c->n, c->copy, &dense));
  memcpy(data, dense.data, (size_t)c->n * sizeof *data);
  data[DN_OUT] = kn_tensor_data(out);
  bool fine = ordinary(c->op, data[0], kn_tensor_numel(in[0]), why, size);
  kn_status st = fine ? run(ctx, c->runner, data, workspace) : KN_DECLINED;
  kk_dense_give(ctx, &dense);
  return st;
}
