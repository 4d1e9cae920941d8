/* KILN_CHECK: every op node is computed again by its reference kernel on the very same inputs, and compared.
 * Random draws and ops that overwrite their input cannot be repeated and are passed over. */
#include "graph/session.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Two ways to sum the same numbers differ by rounding that grows with the numbers: tolerances are relative to
 * the largest element of the reference. */
static double tolerance(kn_dtype d) {
  return d == KN_F16 ? 2e-3 : d == KN_BF16 ? 1.6e-2 : d == KN_F32 ? 2e-5 : d == KN_F64 ? 1e-12 : 0;
}

static double element(const kn_tensor *t, int64_t i) {
  kn_dtype d = kn_tensor_dtype(t);
  return kn_element_float(d, (const char *)kn_tensor_data(t) + i * (int64_t)kn_dtype_size(d));
}

static bool exactly_equal(const kn_tensor *a, const kn_tensor *b) {
  return !memcmp(kn_tensor_data(a), kn_tensor_data(b),
                 (size_t)kn_tensor_numel(a) * kn_dtype_size(kn_tensor_dtype(a)));
}

/* "[1,3,2]", 1-based */
static void place_text(const kn_type *t, int64_t i, char *buf, size_t size) {
  int64_t at[KN_MAX_RANK];
  for (int d = t->rank - 1; d >= 0; d--) at[d] = i % t->dims[d] + 1, i /= t->dims[d];
  size_t n = (size_t)snprintf(buf, size, "[");
  for (int d = 0; d < t->rank && n < size; d++)
    n += (size_t)snprintf(buf + n, size - n, "%s%" PRId64, d ? "," : "", at[d]);
  if (n < size) snprintf(buf + n, size - n, "]");
}

/* Both contiguous, of one type. */
static kn_status compare(kn_context *ctx, const char *backend, const kn_node *n, const kn_tensor *got,
                         const kn_tensor *want) {
  int64_t count = kn_tensor_numel(want);
  if (exactly_equal(got, want)) return KN_OK;
  double most = 0, slack = tolerance(kn_tensor_dtype(want));
  for (int64_t i = 0; i < count; i++) {
    double x = fabs(element(want, i));
    if (isfinite(x) && x > most) most = x;
  }
  for (int64_t i = 0; i < count; i++) {
    double a = element(got, i), b = element(want, i);
    if (a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= slack * most) continue;
    char at[128];
    place_text(&want->type, i, at, sizeof at);
    return kn_fail(ctx, KN_INTERNAL,
                   "%s by %s differs from the reference: element %s is %.9g instead of %.9g",
                   kn_op_name((kn_op)n->op), backend, at, a, b);
  }
  return KN_OK;
}

static kn_status contiguous(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_tensor *c;
  KN_TRY(kn_tensor_new(ctx, &t->type, &c));
  kn_status st = kn_ops[KN_OP_clone].kernel(ctx, NULL, &t, 1, &c);
  if (st == KN_OK)
    *out = c;
  else
    kn_tensor_release(c);
  return st;
}

static kn_status compare_any(kn_context *ctx, const char *backend, const kn_node *n, kn_tensor *got,
                             kn_tensor *want) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&got->type, &want->type))
    return kn_fail(ctx, KN_INTERNAL, "%s by %s is %s, by the reference %s", kn_op_name((kn_op)n->op), backend,
                   kn_type_text(&got->type, a, sizeof a), kn_type_text(&want->type, b, sizeof b));
  kn_tensor *x = NULL, *y = NULL;
  kn_status st = contiguous(ctx, got, &x);
  if (st == KN_OK) st = contiguous(ctx, want, &y);
  if (st == KN_OK) st = compare(ctx, backend, n, x, y);
  kn_tensor_release(x);
  kn_tensor_release(y);
  return st;
}

static kn_status check(kn_context *ctx, const char *backend, const kn_node *n, kn_tensor *const *vals,
                       const kn_scalar *scalars) {
  const kn_op_info *row = &kn_ops[n->op];
  kn_attrs_any room;
  const void *attrs;
  kn_tensor *in[KN_MAX_INPUTS], *out[KN_MAX_OUTPUTS] = {NULL};
  kn_type types[KN_MAX_INPUTS], made[KN_MAX_OUTPUTS];
  KN_TRY(kn_node_attrs_now(ctx, n, scalars, &room, &attrs));
  for (uint32_t i = 0; i < n->ntensor; i++) types[i] = (in[i] = vals[n->in[i]->id])->type;
  KN_TRY(kn_infer_types(ctx, (kn_op)n->op, attrs, types, (int)n->ntensor, made));
  bool bare = row->op_class == KN_CLASS_VIEW || row->flags & KN_FLAG_DYNAMIC;
  kn_status st = KN_OK;
  for (uint32_t i = 0; st == KN_OK && i < n->nout; i++)
    st = bare ? kn_tensor_symbolic(ctx, &made[i], NULL, &out[i]) : kn_tensor_new(ctx, &made[i], &out[i]);
  if (st == KN_OK) st = row->kernel(ctx, attrs, in, (int)n->ntensor, out);
  for (uint32_t i = 0; st == KN_OK && i < n->nout; i++)
    st = compare_any(ctx, backend, n, vals[n->out[i]->id], out[i]);
  for (uint32_t i = 0; i < n->nout; i++) kn_tensor_release(out[i]);
  return st;
}

kn_status kn_check_node(kn_context *ctx, const char *backend, const kn_node *n, kn_tensor *const *vals,
                        const kn_scalar *scalars) {
  if (kn_op_is_effect((kn_op)n->op)) return KN_OK;
  kn_status st = check(ctx, backend, n, vals, scalars);
  return st == KN_OK ? KN_OK : kn_node_failed(ctx, n, st);
}
