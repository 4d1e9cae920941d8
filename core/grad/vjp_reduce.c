/* Gradients of the reductions and of softmax. */
#include "core/grad/vjp.h"

/* t, a result or its gradient, with the reduced dims back as size 1, so that it broadcasts to the input. */
static kn_tensor *restored(kn_vjp *v, kn_tensor *t) {
  const kn_attrs_reduce *at = v->attrs;
  int rank = v->in[0]->type.rank;
  bool reduced[KN_MAX_RANK] = {false};
  if (at->keepdim || rank == 0) return t; /* and with all dims reduced a scalar broadcasts as it is */
  for (int i = 0; i < at->dim.n; i++) reduced[at->dim.v[i] < 0 ? at->dim.v[i] + rank : at->dim.v[i]] = true;
  for (int d = 0; d < rank; d++)
    if (reduced[d]) t = kx_axis(v->s, KN_OP_unsqueeze, t, d);
  return t;
}

void kn_vjp_sum(kn_vjp *v) { v->gin[0] = kx_expand_as(v->s, restored(v, v->gout[0]), kv_like(v, 0)); }

/* How many elements of the input make one of the result; a tensor, since sizes may not be known yet. */
static kn_tensor *group_size(kn_vjp *v) {
  const kn_attrs_reduce *at = v->attrs;
  const kn_type *type = &v->in[0]->type;
  int64_t count = 1;
  for (int i = 0; i < (at->dim.n ? at->dim.n : type->rank) && type->rank; i++) {
    int64_t d = at->dim.n ? at->dim.v[i] : i, size = type->dims[d < 0 ? d + type->rank : d];
    if (!kn_dim_known(size)) return kx_sum(v->s, kx_full_like(v->s, kv_like(v, 0), 1), &at->dim, true);
    count *= size;
  }
  return kx_number(v->s, (double)count, v->gout[0]);
}

void kn_vjp_mean(kn_vjp *v) {
  kn_tensor *g = kx_div(v->s, restored(v, v->gout[0]), group_size(v));
  v->gin[0] = kx_expand_as(v->s, g, kv_like(v, 0));
}

/* amax, amin: the elements equal to the result share its gradient. */
static void share_among_equals(kn_vjp *v) {
  const kn_attrs_reduce *at = v->attrs;
  kn_scope *s = v->s;
  kn_tensor *g = restored(v, v->gout[0]);
  kn_tensor *hit = kx_eq(s, kv_in(v, 0), restored(v, kv_out(v, 0)));
  if (!g || !hit) return; /* the scope has failed */
  hit = kx_cast(s, hit, kn_tensor_dtype(g));
  v->gin[0] = kx_mul(s, hit, kx_div(s, g, kx_sum(s, hit, &at->dim, true)));
}
void kn_vjp_amax(kn_vjp *v) { share_among_equals(v); }
void kn_vjp_amin(kn_vjp *v) { share_among_equals(v); }

void kn_vjp_sum_to(kn_vjp *v) {
  if (v->need[0]) v->gin[0] = kx_expand_as(v->s, v->gout[0], kv_like(v, 0));
}

static kn_tensor *sum_along(kn_vjp *v, kn_tensor *t) {
  const kn_attrs_axis *at = v->attrs;
  return kx_sum(v->s, t, &(kn_ints){.n = 1, .v = {at->dim}}, true);
}

/* y * (g - sum(g * y)) */
void kn_vjp_softmax(kn_vjp *v) {
  kn_tensor *y = kv_out(v, 0), *g = v->gout[0];
  v->gin[0] = kx_mul(v->s, y, kx_sub(v->s, g, sum_along(v, kx_mul(v->s, g, y))));
}

/* g - exp(y) * sum(g) */
void kn_vjp_log_softmax(kn_vjp *v) {
  kn_tensor *g = v->gout[0];
  v->gin[0] = kx_sub(v->s, g, kx_mul(v->s, kx_exp(v->s, kv_out(v, 0)), sum_along(v, g)));
}

/* ---- products ---- */

/* The product of the other elements. With one zero among them only it has such a product that is not zero;
 * with more, none has. */
void kn_vjp_prod(kn_vjp *v) {
  const kn_attrs_reduce *at = v->attrs;
  kn_attrs_reduce keep = {.dim = at->dim, .keepdim = true};
  kn_scope *s = v->s;
  kn_tensor *x = kv_in(v, 0), *g = restored(v, v->gout[0]), *zero = kx_number(s, 0, x);
  kn_tensor *is_zero = kx_eq(s, x, zero), *safe = kx_where(s, is_zero, kx_number(s, 1, x), x);
  kn_tensor *zeros = kx_sum(s, is_zero, &at->dim, true);
  kn_tensor *others = kx_div(s, kx_apply(s, KN_OP_prod, &keep, &safe, 1), safe);
  kn_tensor *none = kx_eq(s, zeros, kx_number(s, 0, zeros)), *one = kx_eq(s, zeros, kx_number(s, 1, zeros));
  kn_tensor *counts = kx_bitwise_or(s, none, kx_bitwise_and(s, one, is_zero));
  v->gin[0] = kx_mul(s, g, kx_where(s, counts, others, zero));
}

/* ---- scans ---- */

/* For each element the sum of those from it on. */
static kn_tensor *sum_from(kn_vjp *v, kn_tensor *t) {
  const kn_attrs_axis *at = v->attrs;
  const kn_attrs_axes dim = {.dims = {1, {at->dim}}};
  if (t && t->type.rank == 0) return t;
  kn_tensor *turned = kx_apply(v->s, KN_OP_flip, &dim, &t, 1);
  turned = kx_axis(v->s, KN_OP_cumsum, turned, at->dim);
  return kx_apply(v->s, KN_OP_flip, &dim, &turned, 1);
}

void kn_vjp_cumsum(kn_vjp *v) { v->gin[0] = sum_from(v, v->gout[0]); }

/* What follows an element, without it: its products over it. The first zero of a row gets the products that
 * lack it, up to the next zero; later zeros get nothing. */
void kn_vjp_cumprod(kn_vjp *v) {
  const kn_attrs_axis *at = v->attrs;
  kn_scope *s = v->s;
  kn_tensor *x = kv_in(v, 0), *g = v->gout[0], *zero = kx_number(s, 0, x);
  kn_tensor *is_zero = kx_eq(s, x, zero), *safe = kx_where(s, is_zero, kx_number(s, 1, x), x);
  kn_tensor *zeros = kx_axis(s, KN_OP_cumsum, is_zero, at->dim);
  kn_tensor *one = kx_eq(s, zeros, kx_number(s, 1, zeros));
  kn_tensor *lacking = kx_mul(s, g, kx_where(s, one, kx_axis(s, KN_OP_cumprod, safe, at->dim), zero));
  kn_tensor *first = kx_where(s, one, sum_from(v, lacking), zero);
  v->gin[0] = kx_where(s, is_zero, first, kx_div(s, sum_from(v, kx_mul(s, g, kv_out(v, 0))), safe));
}
