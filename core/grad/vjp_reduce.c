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

/* Whether the gradient is going to be differentiated and an element of x is 0. The rules below treat zeros as
 * places, which is right for one derivative and loses the next; the slower ways hold for any order. Where the
 * values are not there (symbolic tensors) the answer is no. */
static bool zeros_matter(kn_vjp *v, kn_tensor *x) {
  kn_scope *s = v->s;
  const kn_attrs_reduce all = {.keepdim = false};
  kn_scalar found;
  if (!x || !s->ctx->grad_enabled || s->ctx->recorder || kn_tensor_is_symbolic(x) || kn_tensor_numel(x) == 0)
    return false;
  kn_tensor *zero = kx_eq(s, x, kx_number(s, 0, x));
  zero = kx_apply(s, KN_OP_any, &all, &zero, 1);
  kn_status st = zero ? kn_item(s->ctx, zero, &found) : s->status;
  if (st != KN_OK) return kx_fail(s, st), false;
  return found.as.b;
}

static kn_tensor *in_lines(kn_scope *s, kn_tensor *x, int64_t length) {
  const kn_attrs_sizes lines = {.sizes = {2, {-1, length}}};
  return kx_apply(s, KN_OP_reshape, &lines, &x, 1);
}

/* Of each line of x the products of what stands before (after) each element. */
static kn_tensor *product_beside(kn_scope *s, kn_tensor *x, bool after) {
  const kn_attrs_axes dim = {.dims = {1, {1}}};
  const kn_attrs_slice rest = {.dim = 1, .start = 0, .stop = -1, .step = 1};
  const kn_attrs_constant_pad one = {.pad = {2, {1, 0}}, .value = 1};
  if (after) x = kx_apply(s, KN_OP_flip, &dim, &x, 1);
  x = kx_apply(s, KN_OP_slice, &rest, &x, 1);
  x = kx_apply(s, KN_OP_constant_pad, &one, &x, 1);
  x = kx_axis(s, KN_OP_cumprod, x, 1);
  return after ? kx_apply(s, KN_OP_flip, &dim, &x, 1) : x;
}

/* The gradient of prod without division: what stands before an element times what stands after it. */
static kn_tensor *product_of_others(kn_vjp *v, kn_tensor *x) {
  const kn_attrs_reduce *at = v->attrs;
  kn_scope *s = v->s;
  int rank = x->type.rank, kept = 0;
  bool reduced[KN_MAX_RANK] = {false};
  int64_t length = 1;
  kn_attrs_axes order = {.dims.n = rank}, back = {.dims.n = rank};
  for (int i = 0; i < at->dim.n; i++) reduced[at->dim.v[i] < 0 ? at->dim.v[i] + rank : at->dim.v[i]] = true;
  for (int pass = 0; pass < 2; pass++)
    for (int d = 0; d < rank; d++) {
      if ((reduced[d] || at->dim.n == 0) != (pass == 1)) continue;
      length *= pass ? x->type.dims[d] : 1;
      back.dims.v[d] = kept;
      order.dims.v[kept++] = d;
    }
  kn_tensor *turned = kx_apply(s, KN_OP_permute, &order, &x, 1), *line = in_lines(s, turned, length);
  kn_tensor *r = kx_mul(s, product_beside(s, line, false), product_beside(s, line, true));
  r = r ? kx_reshape_as(s, r, turned) : NULL;
  return kx_apply(s, KN_OP_permute, &back, &r, 1);
}

/* The gradient of cumprod without division: element i of a line gets the sum over j from i on of g[j] times
 * the product of x[1 … j] without x[i]; that product is what stands before i times those from i + 1 to j. */
static kn_tensor *sums_of_others(kn_vjp *v, kn_tensor *x, kn_tensor *g) {
  const kn_attrs_axis *at = v->attrs;
  const kn_attrs_diagonal from = {.diagonal = 0}, past = {.diagonal = 1};
  kn_scope *s = v->s;
  int rank = x->type.rank;
  kn_tensor *turned = rank ? kx_transpose(s, x, at->dim, -1) : x;
  if (!turned) return NULL;
  int64_t n = rank ? turned->type.dims[rank - 1] : 1;
  kn_tensor *lines = in_lines(s, turned, n), *gs = in_lines(s, rank ? kx_transpose(s, g, at->dim, -1) : g, n);
  kn_attrs_fill square = {.sizes = {2, {n, n}}, .value = 1, .dtype = KN_BOOL, .device = x->type.device};
  kn_tensor *ones = kx_apply(s, KN_OP_full, &square, NULL, 0);
  kn_tensor *later = kx_apply(s, KN_OP_triu, &past, &ones, 1),
            *since = kx_apply(s, KN_OP_triu, &from, &ones, 1);
  kn_tensor *spread = kx_axis(s, KN_OP_unsqueeze, lines, 1); /* [line, i, j] from here on */
  spread = kx_where(s, later, spread, x ? kx_number(s, 1, x) : NULL);
  spread = kx_where(s, since, kx_axis(s, KN_OP_cumprod, spread, 2), kx_number(s, 0, x));
  spread = kx_mul(s, spread, kx_axis(s, KN_OP_unsqueeze, gs, 1));
  kn_tensor *sum = kx_sum(s, spread, &(kn_ints){1, {2}}, false);
  sum = kx_mul(s, sum, product_beside(s, lines, false));
  sum = sum ? kx_reshape_as(s, sum, turned) : NULL;
  return rank ? kx_transpose(s, sum, at->dim, -1) : sum;
}

/* The product of the other elements. With one zero among them only it has such a product that is not zero;
 * with more, none has. */
void kn_vjp_prod(kn_vjp *v) {
  const kn_attrs_reduce *at = v->attrs;
  kn_attrs_reduce keep = {.dim = at->dim, .keepdim = true};
  kn_scope *s = v->s;
  kn_tensor *x = kv_in(v, 0), *g = restored(v, v->gout[0]), *zero = kx_number(s, 0, x);
  if (zeros_matter(v, x)) {
    v->gin[0] = kx_mul(s, g, product_of_others(v, x));
    return;
  }
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
  if (zeros_matter(v, x)) {
    v->gin[0] = sums_of_others(v, x, g);
    return;
  }
  kn_tensor *is_zero = kx_eq(s, x, zero), *safe = kx_where(s, is_zero, kx_number(s, 1, x), x);
  kn_tensor *zeros = kx_axis(s, KN_OP_cumsum, is_zero, at->dim);
  kn_tensor *one = kx_eq(s, zeros, kx_number(s, 1, zeros));
  kn_tensor *lacking = kx_mul(s, g, kx_where(s, one, kx_axis(s, KN_OP_cumprod, safe, at->dim), zero));
  kn_tensor *first = kx_where(s, one, sum_from(v, lacking), zero);
  v->gin[0] = kx_where(s, is_zero, first, kx_div(s, sum_from(v, kx_mul(s, g, kv_out(v, 0))), safe));
}
