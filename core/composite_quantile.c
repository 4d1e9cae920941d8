/* Composites: quantiles, also of what is not nan. */
#include "core/composite.h"

/* The elements at a position of each line, 0-based, rounded already; `at` is [*, Q]. */
static kn_tensor *at_position(kn_scope *s, kn_tensor *sorted, kn_tensor *at) {
  const kn_attrs_axis last = {.dim = -1};
  return at ? kx_with2(s, KN_OP_gather, &last, sorted, kx_cast(s, kx_plus(s, at, 1), KN_I64)) : NULL;
}

/* Between the neighbours of a position `at` [*, Q] that is no whole number. */
static kn_tensor *between(kn_scope *s, kn_tensor *sorted, kn_tensor *at, int32_t how) {
  if (how == KN_CHOICE_interpolation_nearest)
    return at_position(s, sorted, kx_with(s, KN_OP_round, NULL, at));
  kn_tensor *low = kx_floor(s, at), *high = kx_with(s, KN_OP_ceil, NULL, at);
  if (how == KN_CHOICE_interpolation_lower) return at_position(s, sorted, low);
  if (how == KN_CHOICE_interpolation_higher) return at_position(s, sorted, high);
  kn_tensor *a = at_position(s, sorted, low), *b = at_position(s, sorted, high), *rest = kx_sub(s, at, low);
  if (how == KN_CHOICE_interpolation_midpoint && rest)
    rest = kx_where(s, kx_eq(s, low, high), kx_number(s, 0, rest), kx_number(s, 0.5, rest));
  rest = rest && a ? kx_cast(s, rest, kn_tensor_dtype(a)) : NULL;
  return kx_add(s, a, kx_mul(s, kx_sub(s, b, a), rest));
}

static bool in_range(kn_scope *s, kn_tensor *q) {
  kn_scalar least, most;
  if (kn_tensor_is_symbolic(q) || kn_tensor_numel(q) == 0) return true;
  kn_tensor *low = kx_reduce(s, KN_OP_amin, q, (kn_ints){0}, false);
  kn_tensor *high = kx_reduce(s, KN_OP_amax, q, (kn_ints){0}, false);
  if (!low || !high || kn_item(s->ctx, low, &least) != KN_OK || kn_item(s->ctx, high, &most) != KN_OK)
    return true;
  double worst = least.as.f >= 0 ? most.as.f : least.as.f;
  if (least.kind != KN_SCALAR_FLOAT || (least.as.f >= 0 && most.as.f <= 1)) return true;
  kx_fail(s, kn_fail(s->ctx, KN_ARG, "q must lie in [0, 1], not %.9g", worst));
  return false;
}

/* dim goes to the end, where Q replaces it; then Q goes to the front, or away when q is a number. nan is
 * sorted to the end: a line that has one is nan, or is as long as what stands before it. */
static kn_tensor *quantile(kn_scope *s, kn_tensor *x, kn_tensor *q, const kn_attrs_quantile *a, bool nan) {
  const kn_ints flat = {1, {-1}};
  if (!x || !q) return NULL;
  int rank = x->type.rank, dim = a->dim == KN_NONE ? 0 : kx_dim(s, a->dim, rank), qrank = q->type.rank;
  if (qrank > 1) return kx_refuse(s, KN_SHAPE, "q must be a number or a list", q, NULL);
  if (!in_range(s, q)) return NULL;
  if (!qrank) q = kx_beside(s, q, x); /* it may be a number of the host */
  if (a->dim == KN_NONE || rank == 0) x = kx_reshape(s, x, &flat);
  const kn_attrs_movedim back = {.source = {1, {dim}}, .destination = {1, {-1}}};
  x = x && x->type.rank > 1 ? kx_with(s, KN_OP_movedim, &back, x) : x;
  if (!x) return NULL;
  if (x->type.dims[x->type.rank - 1] == 0)
    return kx_refuse(s, KN_SHAPE, "there are no elements to choose from", x, NULL);
  const kn_attrs_sort order = {.dim = -1};
  kn_tensor *sorted[2], *real = kx_eq(s, x, x),
                        *count = kx_reduce(s, KN_OP_sum, real, (kn_ints){1, {-1}}, true);
  kx_apply_all(s, KN_OP_sort, &order, &x, 1, sorted);
  kn_tensor *end = count ? kx_plus(s, kx_cast(s, count, KN_F64), -1) : NULL;
  if (!nan && end)
    end = kx_add(s, kx_scale(s, end, 0), kx_plus(s, kx_size(s, x, x->type.rank - 1, KN_F64), -1));
  end = end ? kx_maximum(s, end, kx_number(s, 0, end)) : NULL;
  kn_tensor *list = kx_cast(s, qrank ? q : kx_axis(s, KN_OP_unsqueeze, q, 0), KN_F64);
  kn_tensor *r = between(s, sorted[0], kx_mul(s, end, list), a->interpolation);
  kn_tensor *whole = kx_with(s, KN_OP_all, &(kn_attrs_reduce){.dim = {1, {-1}}, .keepdim = true}, real);
  if (!nan && r) r = kx_where(s, whole, r, kx_number(s, NAN, r));
  if (a->keepdim && rank) {
    for (int d = 0; a->dim == KN_NONE && d < rank; d++) r = kx_axis(s, KN_OP_unsqueeze, r, 0);
    if (a->dim != KN_NONE) r = kx_axis(s, KN_OP_unsqueeze, r, dim);
  }
  if (!qrank) return kx_select(s, r, -1, 0);
  const kn_attrs_movedim first = {.source = {1, {-1}}, .destination = {1, {0}}};
  return r && r->type.rank > 1 ? kx_with(s, KN_OP_movedim, &first, r) : r;
}
EXPRESSION(quantile, quantile(s, kx_floating(s, in[0]), in[1], attrs, false))
EXPRESSION(nanquantile, quantile(s, kx_floating(s, in[0]), in[1], attrs, true))
