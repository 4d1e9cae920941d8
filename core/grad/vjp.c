/* Running a vjp rule, and how rules reach what was saved. The rules themselves are in vjp_*.c. */
#include "core/grad/vjp.h"
#include "core/grad/tape.h"
#include <string.h>

/* `at` counts inputs, then results. */
static kn_tensor *value(kn_vjp *v, kn_tensor *t, unsigned saved, int at, const char *what, int i) {
  if (v->s->status != KN_OK) return NULL;
  if (!(kn_ops[v->op].saves & saved))
    return kx_fail(v->s, kn_fail(v->s->ctx, KN_INTERNAL,
                                 "the rule reads the values of %ss, its row in the op "
                                 "table does not say so",
                                 what));
  if (v->version && t->storage && atomic_load(&t->storage->version) != v->version[at])
    return kx_fail(v->s, kn_tape_fail_changed(v->s->ctx, t, what, i + 1));
  kn_recorder *rec = v->s->ctx->recorder;
  if (rec && rec->saved && kn_tensor_is_symbolic(t)) rec->saved(rec, t, what, i + 1);
  return t;
}

kn_tensor *kv_in(kn_vjp *v, int i) { return value(v, v->in[i], KN_SAVE_INPUTS, i, "input", i); }
kn_tensor *kv_out(kn_vjp *v, int i) { return value(v, v->out[i], KN_SAVE_OUTPUTS, v->n + i, "result", i); }

kn_tensor *kv_like(kn_vjp *v, int i) {
  if (v->s->status != KN_OK) return NULL;
  if (!v->in[i]->grad) return v->in[i];
  kn_tensor *t;
  kn_status st = kn_tensor_alias(v->s->ctx, v->in[i], &t);
  return st == KN_OK ? kx_own(v->s, t) : kx_fail(v->s, st);
}

int64_t kv_size(kn_vjp *v, int i, int dim) {
  kn_context *ctx = v->s->ctx;
  kn_scalar size;
  int64_t stop = 0;
  kn_status st = kn_size(ctx, v->in[i], dim, &size);
  if (st == KN_OK && size.kind == KN_SCALAR_INT) return size.as.i;
  if (st == KN_OK) st = kn_recorder_of(ctx)->dynamic(kn_recorder_of(ctx), ctx, &size, &stop);
  if (st != KN_OK) kx_fail(v->s, st);
  return stop;
}

/* Surely the same sizes; unlike kn_type_equal, two unknown sizes are not. */
static bool same_sizes(const kn_type *a, const kn_type *b) {
  bool same = a->rank == b->rank;
  for (int i = 0; same && i < a->rank; i++) same = a->dims[i] == b->dims[i] && a->dims[i] != KN_DIM_UNKNOWN;
  return same;
}

kn_tensor *kv_fit(kn_vjp *v, kn_tensor *t, int i) {
  if (!t || same_sizes(&t->type, &v->in[i]->type)) return t;
  if (t->type.device != v->in[i]->type.device) return kx_sum(v->s, t, &(kn_ints){0}, false); /* a number */
  return kx_sum_to(v->s, t, kv_like(v, i));
}

void kn_vjp_not_differentiable(kn_vjp *v) {
  kx_fail(v->s, kn_fail(v->s->ctx, KN_UNSUPPORTED, "%s is not differentiable", kn_op_name(v->op)));
}

/* A gradient has the dtype, the shape and the device of its input; only unknown sizes are taken on trust. */
static kn_tensor *checked(kn_vjp *v, int i) {
  kn_tensor *g = v->gin[i];
  const kn_type *want = &v->in[i]->type;
  bool fits = g->type.rank == want->rank;
  for (int d = 0; fits && d < want->rank; d++)
    fits = g->type.dims[d] == want->dims[d] || !kn_dim_known(g->type.dims[d]) || !kn_dim_known(want->dims[d]);
  if (!fits) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    return kx_fail(v->s, kn_fail(v->s->ctx, KN_INTERNAL, "the gradient of input %d, %s, is %s", i + 1,
                                 kn_type_text(want, a, sizeof a), kn_type_text(&g->type, b, sizeof b)));
  }
  if (g->type.dtype != want->dtype) g = kx_cast(v->s, g, (kn_dtype)want->dtype);
  return kx_beside(v->s, g, v->in[i]); /* a number of the host beside tensors of a device */
}

kn_status kn_vjp_run(kn_context *ctx, kn_vjp *v, kn_tensor **gin) {
  kn_scope scope;
  kn_tensor *found[KN_MAX_INPUTS] = {NULL};
  const uint8_t autocast = ctx->autocast; /* gradients have the dtypes of what was computed */
  kn_scope_open(&scope, ctx);
  v->s = &scope;
  v->gin = found;
  ctx->autocast = KN_BOOL;
  kn_ops[v->op].vjp(v);
  for (int i = 0; i < v->n && scope.status == KN_OK; i++)
    found[i] = v->need[i] && found[i] ? checked(v, i) : NULL;
  ctx->autocast = autocast;
  if (scope.status == KN_OK)
    for (int i = 0; i < v->n; i++) gin[i] = found[i] ? kn_tensor_retain(found[i]) : NULL;
  else
    kn_error_prefix(ctx, "backward of %s", kn_op_name(v->op));
  return kn_scope_close(&scope, NULL, NULL);
}

kn_status kn_vjp_fit(kn_context *ctx, const kn_type *type, int i, kn_tensor **g) {
  kn_tensor *t = *g, *like;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (kn_type_equal(type, &t->type)) return KN_OK;
  bool fits = type->rank <= t->type.rank && kn_dtype_is_float(kn_tensor_dtype(t));
  for (int d = 0; fits && d < type->rank; d++) {
    int64_t have = t->type.dims[t->type.rank - type->rank + d];
    fits = type->dims[d] == have || type->dims[d] == 1 || !kn_dim_known(have) || !kn_dim_known(type->dims[d]);
  }
  if (!fits)
    return kn_fail(ctx, KN_SHAPE, "the gradient of input %d, %s, is %s", i + 1,
                   kn_type_text(type, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_status st = kn_tensor_alias(ctx, t, &like);
  if (st != KN_OK) return kn_scope_close(&s, NULL, NULL), st;
  like->type = *type; /* asked for its sizes only */
  memset(like->strides, 0, sizeof like->strides);
  like->type.device = t->type.device;
  kn_tensor *r = kx_cast(&s, kx_sum_to(&s, t, kx_own(&s, like)), (kn_dtype)type->dtype), *made;
  r = kx_to_device(&s, r, (kn_device_id)type->device);
  KN_TRY(kn_scope_close(&s, r, &made));
  kn_tensor_release(t);
  *g = made;
  return KN_OK;
}
