/* Composites: losses with margins, and those of other distributions. Class targets are 1-based. */
#include "core/composite.h"

static kn_tensor *above_zero(kn_scope *s, kn_tensor *x) { return kx_clamp(s, x, 0, INFINITY); }

/* ---- element by element ---- */

static kn_tensor *hinge(kn_scope *s, kn_tensor *x, kn_tensor *t, double margin) {
  kn_tensor *zero = kx_number(s, 0, x), *apart = above_zero(s, kx_minus(s, margin, x));
  kn_tensor *unlike = kx_where(s, kx_ne(s, t, kx_number(s, 1, t)), apart, zero);
  return kx_add(s, unlike, kx_where(s, kx_ne(s, t, kx_number(s, -1, t)), x, zero));
}

/* Stirling's approximation of log(t!), 0 up to 1. */
static kn_tensor *log_factorial(kn_scope *s, kn_tensor *t) {
  kn_tensor *large = kx_gt(s, t, kx_number(s, 1, t)), *safe = kx_where(s, large, t, kx_number(s, 2, t));
  kn_tensor *log_t = kx_log(s, safe);
  kn_tensor *about = kx_sub(s, kx_mul(s, safe, log_t), safe);
  about = kx_add(s, about, kx_scale(s, kx_plus(s, log_t, log(2 * 3.14159265358979323846)), 0.5));
  return kx_where(s, large, about, kx_number(s, 0, about));
}

static kn_tensor *poisson(kn_scope *s, kn_tensor *x, kn_tensor *t, const kn_attrs_poisson_nll *a) {
  kn_tensor *loss = a->log_input ? kx_sub(s, kx_exp(s, x), kx_mul(s, t, x))
                                 : kx_sub(s, x, kx_mul(s, t, kx_log(s, kx_plus(s, x, a->eps))));
  return a->full ? kx_add(s, loss, log_factorial(s, kx_floating(s, t))) : loss;
}

/* The variance, not below eps, with the gradient it would have without that. */
static kn_tensor *kept_above(kn_scope *s, kn_tensor *var, double eps) {
  kn_tensor *fixed = kx_detach(s, var);
  return kx_add(s, var, kx_sub(s, kx_clamp(s, fixed, eps, INFINITY), fixed));
}

static kn_tensor *gaussian(kn_scope *s, kn_tensor *const *in, const kn_attrs_gaussian_nll *a) {
  kn_tensor *x = in[0], *var = in[2];
  if (!(a->eps > 0)) return kx_refuse(s, KN_ARG, "eps must be positive", x, var);
  if (var->type.rank + 1 == x->type.rank) var = kx_axis(s, KN_OP_unsqueeze, var, -1);
  if (!var) return NULL;
  var = kept_above(s, var, a->eps);
  kn_tensor *d = kx_sub(s, x, in[1]);
  kn_tensor *loss = kx_scale(s, kx_add(s, kx_log(s, var), kx_div(s, kx_mul(s, d, d), var)), 0.5);
  return a->full ? kx_plus(s, loss, 0.5 * log(2 * 3.14159265358979323846)) : loss;
}

LOSS(soft_margin_loss, reduction, kx_softplus(s, kx_neg(s, kx_mul(s, in[1], kx_floating(s, in[0])))))
LOSS(hinge_embedding_loss, hinge_embedding, hinge(s, in[0], in[1], a->margin))
LOSS(margin_ranking_loss, cosine_embedding,
     above_zero(s, kx_minus(s, a->margin,
                            kx_mul(s, in[2], kx_sub(s, kx_floating(s, in[0]), kx_floating(s, in[1]))))))
LOSS(poisson_nll_loss, poisson_nll, poisson(s, kx_floating(s, in[0]), in[1], a))
LOSS(gaussian_nll_loss, gaussian_nll, gaussian(s, in, a))

/* ---- classes ---- */

static bool scores_fit(kn_scope *s, kn_tensor *x, kn_tensor *t, int target_rank) {
  if (!kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_refuse(s, KN_DTYPE, "floating scores are needed", x, t), false;
  if ((x->type.rank == 1 || x->type.rank == 2) && t->type.rank == target_rank) return true;
  return kx_refuse(s, KN_SHAPE, "scores [N,C] or [C] and targets that fit them are needed", x, t), false;
}

static kn_tensor *multi_margin(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_multi_margin *a) {
  kn_tensor *x = in[0], *t = kx_index(s, in[1]);
  const kn_attrs_axis last = {.dim = -1}, first = {.dim = 0};
  const kn_ints line = {1, {-1}}, over = {1, {-1}};
  if (!t || !scores_fit(s, x, t, x->type.rank - 1)) return NULL;
  if (a->p != 1 && a->p != 2) return kx_refuse(s, KN_ARG, "p must be 1 or 2", x, t);
  kn_tensor *at = kx_with(s, KN_OP_unsqueeze, &last, t), *own = kx_with2(s, KN_OP_gather, &last, x, at);
  kn_tensor *loss = above_zero(s, kx_plus(s, kx_sub(s, x, own), a->margin));
  if (a->p == 2) loss = kx_mul(s, loss, loss);
  kn_tensor *zero = kx_number(s, 0, x);
  if (n > 2 && loss) {
    if (in[2]->type.rank != 1) return kx_refuse(s, KN_SHAPE, "one weight for each class is needed", x, in[2]);
    kn_tensor *w = kx_with2(s, KN_OP_index_select, &first, in[2], kx_reshape(s, t, &line));
    loss = kx_mul(s, loss, kx_reshape_as(s, w, at));
  }
  kn_tensor *none = kx_with2(s, KN_OP_gather, &last, loss, at); /* the target's own place does not count */
  loss = kx_apply(s, KN_OP_scatter, &last, (kn_tensor *[]){loss, at, kx_mul(s, none, zero)}, 3);
  return kx_reduced(s, kx_reduce(s, KN_OP_mean, loss, over, false), a->reduction);
}
EXPRESSION(multi_margin_loss, multi_margin(s, in, n, attrs))

/* For each target, of all classes that are none: what 1 - x[target] + x is above 0. Targets end at the first
 * that is no class. */
static kn_tensor *multilabel_margin(kn_scope *s, kn_tensor *const *in, const kn_attrs_reduction *a) {
  kn_tensor *x = in[0], *t = kx_index(s, in[1]);
  const kn_attrs_axis last = {.dim = -1};
  const kn_ints over = {2, {-2, -1}};
  if (!t || !scores_fit(s, x, t, x->type.rank)) return NULL;
  kn_tensor *given = kx_cast(s, kx_gt(s, t, kx_number(s, 0, t)), KN_I64);
  given = kx_cast(s, kx_with(s, KN_OP_cumprod, &last, given), kn_tensor_dtype(x)); /* 1 up to the end */
  kn_tensor *at = kx_where(s, kx_gt(s, given, kx_number(s, 0, given)), t, kx_number(s, 1, t));
  kn_tensor *hits =
      kx_apply(s, KN_OP_scatter_add, &last, (kn_tensor *[]){kx_full_like(s, x, 0), at, given}, 3);
  kn_tensor *other = kx_cast(s, kx_eq(s, hits, kx_number(s, 0, x)), kn_tensor_dtype(x));
  kn_tensor *own = kx_with2(s, KN_OP_gather, &last, x, at);
  kn_tensor *apart = kx_sub(s, kx_axis(s, KN_OP_unsqueeze, x, -2), kx_axis(s, KN_OP_unsqueeze, own, -1));
  kn_tensor *loss = above_zero(s, kx_plus(s, apart, 1)); /* [*, targets, classes] */
  loss = kx_mul(s, loss,
                kx_mul(s, kx_axis(s, KN_OP_unsqueeze, other, -2), kx_axis(s, KN_OP_unsqueeze, given, -1)));
  kn_tensor *count = kx_size(s, x, x->type.rank - 1, kn_tensor_dtype(x));
  return kx_reduced(s, kx_div(s, kx_reduce(s, KN_OP_sum, loss, over, false), count), a->reduction);
}
EXPRESSION(multilabel_margin_loss, multilabel_margin(s, in, attrs))

static kn_tensor *multilabel_soft(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_reduction *a) {
  kn_tensor *x = kx_floating(s, in[0]), *t = kx_floating(s, in[1]);
  const kn_ints over = {1, {-1}};
  if (!x || !t) return NULL;
  if (x->type.rank < 1) return kx_refuse(s, KN_SHAPE, "scores with classes as the last dim are needed", x, t);
  kn_tensor *loss =
      kx_add(s, kx_mul(s, t, kx_softplus(s, kx_neg(s, x))), kx_mul(s, kx_minus(s, 1, t), kx_softplus(s, x)));
  if (n > 2) loss = kx_mul(s, loss, in[2]);
  return kx_reduced(s, kx_reduce(s, KN_OP_mean, loss, over, false), a->reduction);
}
EXPRESSION(multilabel_soft_margin_loss, multilabel_soft(s, in, n, attrs))
