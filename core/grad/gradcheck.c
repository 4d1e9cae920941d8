/* Gradients against central differences: see core/grad/gradcheck.h. */
#include "core/grad/gradcheck.h"
#include "core/dispatch.h"
#include "core/grad/tape.h"
#include <math.h>

typedef struct check {
  kn_context *ctx;
  kn_gradcheck_fn fn;
  void *ud;
  kn_tensor *const *in;
  int n;
  double eps, atol, rtol;
} check;

static kn_status usable(kn_context *ctx, const kn_tensor *t, int i) {
  char text[KN_TYPE_TEXT];
  bool ok = kn_is_leaf(t) && t->storage && t->type.dtype == KN_F64 && t->type.device == KN_CPU;
  for (int d = 0; d < t->type.rank; d++) ok &= t->type.dims[d] < 2 || t->strides[d] != 0;
  if (ok) return KN_OK;
  return kn_fail(ctx, KN_ARG,
                 "gradcheck: input %d, %s, must be a float64 leaf on the cpu that is not expanded", i + 1,
                 kn_type_text(&t->type, text, sizeof text));
}

/* Address of element k in row-major order. */
static double *element(const kn_tensor *t, int64_t k) {
  int64_t at = t->offset;
  for (int d = t->type.rank - 1; d >= 0; d--) {
    at += k % t->type.dims[d] * t->strides[d];
    k /= t->type.dims[d];
  }
  return (double *)t->storage->data + at;
}

/* Neither equal nor of a simple pattern, so that errors do not cancel; between 0.5 and 1.5. */
static double weight(int64_t k) { return 1 + 0.5 * sin(1.7 * (double)k + 0.6); }

static kn_status weights_like(check *c, const kn_tensor *y, kn_tensor **out) {
  kn_tensor *w;
  KN_TRY(kn_tensor_new(c->ctx, &y->type, &w));
  for (int64_t k = 0; k < kn_tensor_numel(w); k++) *element(w, k) = weight(k);
  *out = w;
  return KN_OK;
}

static kn_status call(check *c, kn_tensor **y) {
  kn_tensor *out;
  KN_TRY(c->fn(c->ctx, c->ud, c->in, c->n, &out));
  if (out->storage && out->type.dtype == KN_F64 && out->type.device == KN_CPU) {
    *y = out;
    return KN_OK;
  }
  char text[KN_TYPE_TEXT];
  kn_status st = kn_fail(c->ctx, KN_ARG, "gradcheck: the function must give float64 on the cpu, not %s",
                         kn_type_text(&out->type, text, sizeof text));
  kn_tensor_release(out);
  return st;
}

/* sum(w · fn(in)), not on the tape */
static kn_status evaluate(check *c, double *out) {
  kn_tensor *y;
  bool mode = c->ctx->grad_enabled;
  c->ctx->grad_enabled = false;
  kn_status st = call(c, &y);
  c->ctx->grad_enabled = mode;
  if (st != KN_OK) return st;
  double sum = 0;
  for (int64_t k = 0; k < kn_tensor_numel(y); k++) sum += weight(k) * *element(y, k);
  kn_tensor_release(y);
  *out = sum;
  return KN_OK;
}

static kn_status numeric(check *c, double *at, double *out) {
  double old = *at, above, below;
  *at = old + c->eps;
  kn_status st = evaluate(c, &above);
  *at = old - c->eps;
  if (st == KN_OK) st = evaluate(c, &below);
  *at = old;
  if (st == KN_OK) *out = (above - below) / (2 * c->eps);
  return st;
}

static kn_status compare(check *c, int i, const kn_tensor *g) {
  for (int64_t k = 0; k < kn_tensor_numel(c->in[i]); k++) {
    double want, got = g ? *element(g, k) : 0;
    KN_TRY(numeric(c, element(c->in[i], k), &want));
    if (fabs(got - want) <= c->atol + c->rtol * fabs(want)) continue;
    return kn_fail(c->ctx, KN_STATE,
                   "gradcheck: for input %d, element %lld, backward gives %.10g and differences give "
                   "%.10g",
                   i + 1, (long long)k + 1, got, want);
  }
  return KN_OK;
}

static kn_status analytic(check *c, kn_tensor *const *xs, int nx, kn_tensor **gs) {
  kn_tensor *y, *w;
  bool mode = c->ctx->grad_enabled;
  c->ctx->grad_enabled = true;
  kn_status st = call(c, &y);
  if (st == KN_OK) {
    st = weights_like(c, y, &w);
    if (st == KN_OK) {
      st = kn_gradients(c->ctx, &y, 1, &w, xs, nx, false, gs);
      kn_tensor_release(w);
    }
    kn_tensor_release(y);
  }
  c->ctx->grad_enabled = mode;
  return st;
}

kn_status kn_gradcheck(kn_context *ctx, kn_gradcheck_fn fn, void *ud, kn_tensor *const *in, int n, double eps,
                       double atol, double rtol) {
  check c = {ctx, fn, ud, in, n, eps, atol, rtol};
  kn_tensor *xs[KN_MAX_INPUTS], *gs[KN_MAX_INPUTS] = {NULL};
  int which[KN_MAX_INPUTS], nx = 0;
  if (n > KN_MAX_INPUTS) return kn_fail(ctx, KN_LIMIT, "gradcheck: more than %d inputs", KN_MAX_INPUTS);
  for (int i = 0; i < n; i++) {
    if (!kn_requires_grad(in[i])) continue;
    KN_TRY(usable(ctx, in[i], i));
    which[nx] = i;
    xs[nx++] = in[i];
  }
  if (!nx) return kn_fail(ctx, KN_ARG, "gradcheck: no input requires grad");
  KN_TRY(analytic(&c, xs, nx, gs));
  kn_status st = KN_OK;
  for (int i = 0; i < nx && st == KN_OK; i++) st = compare(&c, which[i], gs[i]);
  for (int i = 0; i < nx; i++) kn_tensor_release(gs[i]);
  return st;
}
