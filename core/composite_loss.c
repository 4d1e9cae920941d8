/* Composites: losses and the distances they are made of. Class targets are 1-based. */
#include "core/composite.h"

static kn_tensor *along(kn_scope *s, kn_op op, kn_tensor *x, int64_t dim, bool keepdim) {
  return kx_reduce(s, op, x, (kn_ints){1, {dim}}, keepdim);
}

/* ---- classes ---- */

typedef struct classes {
  int dim;           /* of the scores that holds the classes */
  kn_tensor *weight; /* of each class, or NULL */
  int64_t ignore;
  double smoothing;
  int32_t reduction;
} classes;

static bool targets_fit(const kn_type *l, const kn_type *t, int dim) {
  bool fits = l->rank >= 1 && t->rank == l->rank - 1;
  for (int d = 0; fits && d < t->rank; d++) {
    int64_t a = l->dims[d < dim ? d : d + 1], b = t->dims[d];
    fits = !kn_dim_known(a) || !kn_dim_known(b) || a == b;
  }
  return fits;
}

/* The weight in a shape that broadcasts to the scores. */
static kn_tensor *weight_beside(kn_scope *s, kn_tensor *logp, const classes *c) {
  kn_ints sizes = {.n = logp->type.rank - c->dim, .v = {-1}};
  for (int d = 1; d < sizes.n; d++) sizes.v[d] = 1;
  return kn_tensor_numel(c->weight) == 0 ? c->weight : kx_reshape(s, c->weight, &sizes);
}

static kn_tensor *weight_of(kn_scope *s, kn_tensor *target, const classes *c) {
  const kn_ints line = {1, {-1}};
  const kn_attrs_axis first = {.dim = 0};
  kn_tensor *list = kx_reshape(s, target, &line);
  return kx_reshape_as(s, kx_with2(s, KN_OP_index_select, &first, c->weight, list), target);
}

static kn_tensor *nll(kn_scope *s, kn_tensor *logp, kn_tensor *target, classes c) {
  if (!logp) return NULL;
  if (!kn_dtype_is_float(kn_tensor_dtype(logp)))
    return kx_refuse(s, KN_DTYPE, "floating scores are needed", logp, target);
  if (!(target = kx_index(s, target))) return NULL;
  if (!targets_fit(&logp->type, &target->type, c.dim))
    return kx_refuse(s, KN_SHAPE, "scores [N,C] and targets [N], or [C] and one target, are needed", logp,
                     target);
  if (c.weight && c.weight->type.rank != 1)
    return kx_refuse(s, KN_SHAPE, "one weight for each class is needed", logp, c.weight);
  const kn_attrs_axis at = {.dim = c.dim};
  kn_tensor *ignored = kx_eq(s, target, kx_number(s, (double)c.ignore, target));
  target = kx_where(s, ignored, kx_number(s, 1, target), target);
  kn_tensor *places = kx_with(s, KN_OP_unsqueeze, &at, target);
  kn_tensor *loss = kx_neg(s, kx_select(s, kx_with2(s, KN_OP_gather, &at, logp, places), c.dim, 0));
  kn_tensor *w = c.weight ? weight_of(s, target, &c) : NULL, *zero = kx_number(s, 0, logp);
  if (w) loss = kx_mul(s, loss, w);
  if (c.smoothing != 0) {
    kn_tensor *every = w ? kx_mul(s, logp, weight_beside(s, logp, &c)) : logp;
    kn_tensor *smooth = kx_scale(s, along(s, KN_OP_mean, every, c.dim, false), -c.smoothing);
    loss = kx_add(s, kx_scale(s, loss, 1 - c.smoothing), smooth);
  }
  loss = kx_where(s, ignored, zero, loss);
  if (c.reduction != KN_CHOICE_reduction_mean) return kx_reduced(s, loss, c.reduction);
  kn_tensor *parts =
      w ? kx_where(s, ignored, zero, w) : kx_cast(s, kx_logical_not(s, ignored), kn_tensor_dtype(logp));
  return kx_div(s, kx_reduced(s, loss, KN_CHOICE_reduction_sum),
                kx_reduced(s, parts, KN_CHOICE_reduction_sum));
}

/* Targets are the probabilities of the classes. */
static kn_tensor *soft_targets(kn_scope *s, kn_tensor *logp, kn_tensor *t, classes c) {
  if (c.smoothing != 0) {
    kn_tensor *count = along(s, KN_OP_sum, kx_full_like(s, t, 1), c.dim, true);
    t = kx_add(s, kx_scale(s, t, 1 - c.smoothing), kx_div(s, kx_number(s, c.smoothing, t), count));
  }
  kn_tensor *each = kx_mul(s, logp, t);
  if (c.weight) each = kx_mul(s, each, weight_beside(s, logp, &c));
  return kx_reduced(s, kx_neg(s, along(s, KN_OP_sum, each, c.dim, false)), c.reduction);
}

static kn_tensor *nll_loss(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_nll *a) {
  return nll(s, in[0], in[1],
             (classes){.dim = in[0]->type.rank > 1,
                       .weight = n > 2 ? in[2] : NULL,
                       .ignore = a->ignore_index,
                       .reduction = a->reduction});
}

static kn_tensor *cross_entropy(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_cross_entropy *a) {
  classes c = {.dim = in[0]->type.rank > 1,
               .weight = n > 2 ? in[2] : NULL,
               .ignore = a->ignore_index,
               .smoothing = a->label_smoothing,
               .reduction = a->reduction};
  if (!(a->label_smoothing >= 0 && a->label_smoothing <= 1))
    return kx_fail(s,
                   kn_fail(s->ctx, KN_ARG, "label_smoothing must lie in [0, 1], not %g", a->label_smoothing));
  kn_tensor *logp = kx_axis(s, KN_OP_log_softmax, in[0], c.dim);
  if (!logp) return NULL;
  bool soft = kn_dtype_is_float(kn_tensor_dtype(in[1])) && in[1]->type.rank == in[0]->type.rank;
  return soft ? soft_targets(s, logp, in[1], c) : nll(s, logp, in[1], c);
}

EXPRESSION(nll_loss, nll_loss(s, in, n, attrs))
EXPRESSION(cross_entropy, cross_entropy(s, in, n, attrs))

/* ---- element by element ---- */

static kn_tensor *distance(kn_scope *s, kn_tensor *const *in) { return kx_abs(s, kx_sub(s, in[0], in[1])); }

static kn_tensor *squared(kn_scope *s, kn_tensor *x, kn_tensor *y) {
  kn_tensor *d = kx_sub(s, x, y);
  return kx_mul(s, d, d);
}

/* Half the square below `edge`, `slope` times the distance beyond, joined smoothly; all over `edge` if asked.
 */
static kn_tensor *huber(kn_scope *s, kn_tensor *d, double edge, double scale) {
  kn_tensor *near_zero = kx_scale(s, kx_mul(s, d, d), 0.5 * scale);
  kn_tensor *beyond = kx_scale(s, kx_plus(s, d, -0.5 * edge), edge * scale);
  return kx_where(s, kx_lt(s, d, kx_number(s, edge, d)), near_zero, beyond);
}

/* log(p), not below -100; nor is the logarithm of 0 taken, whose gradient would be nan. */
static kn_tensor *bounded_log(kn_scope *s, kn_tensor *p) {
  return kx_clamp(s, kx_log(s, kx_clamp(s, p, 0x1p-149, INFINITY)), -100, INFINITY);
}

static kn_tensor *binary(kn_scope *s, kn_tensor *const *in, int n) {
  kn_tensor *yes = kx_mul(s, in[1], bounded_log(s, in[0]));
  kn_tensor *no = kx_mul(s, kx_minus(s, 1, in[1]), bounded_log(s, kx_minus(s, 1, in[0])));
  kn_tensor *loss = kx_neg(s, kx_add(s, yes, no));
  return n > 2 ? kx_mul(s, loss, in[2]) : loss;
}

/* x, t, weight, pos_weight: (1 - t) x + (1 + (pos_weight - 1) t) log(1 + exp(-x)) */
static kn_tensor *binary_logits(kn_scope *s, kn_tensor *const *in, int n) {
  kn_tensor *x = kx_floating(s, in[0]), *t = kx_floating(s, in[1]), *tail = kx_softplus(s, kx_neg(s, x));
  if (n > 3) tail = kx_mul(s, tail, kx_plus(s, kx_mul(s, kx_plus(s, in[3], -1), t), 1));
  kn_tensor *loss = kx_add(s, kx_mul(s, kx_minus(s, 1, t), x), tail);
  return n > 2 && in[2] ? kx_mul(s, loss, in[2]) : loss;
}

LOSS(mse_loss, reduction, squared(s, in[0], in[1]))
LOSS(l1_loss, reduction, distance(s, in))
LOSS(smooth_l1_loss, smooth_l1,
     a->beta == 0 ? distance(s, in) : huber(s, distance(s, in), a->beta, 1 / a->beta))
LOSS(huber_loss, huber, huber(s, distance(s, in), a->delta, 1))
LOSS(binary_cross_entropy, reduction, binary(s, in, n))
LOSS(binary_cross_entropy_with_logits, reduction, binary_logits(s, in, n))

/* t (log t - x), 0 where t is 0; batchmean divides the sum by the size of dim 1. */
static kn_tensor *kl_div(kn_scope *s, kn_tensor *x, kn_tensor *t, const kn_attrs_kl *a) {
  kn_tensor *loss;
  x = kx_floating(s, x);
  if (a->log_target) {
    loss = kx_mul(s, kx_exp(s, t), kx_sub(s, t, x));
  } else {
    kn_tensor *safe = kx_where(s, kx_eq(s, t, kx_number(s, 0, t)), kx_number(s, 1, t), t);
    loss = kx_mul(s, t, kx_sub(s, kx_log(s, safe), x));
  }
  if (a->reduction != KN_CHOICE_kl_reduction_batchmean) return kx_reduced(s, loss, a->reduction);
  if (!loss || loss->type.rank == 0) return kx_reduced(s, loss, KN_CHOICE_reduction_sum);
  kn_tensor *rows = loss;
  while (rows && rows->type.rank > 1) rows = along(s, KN_OP_sum, rows, -1, false);
  return kx_reduced(s, rows, KN_CHOICE_reduction_mean);
}
EXPRESSION(kl_div, kl_div(s, in[0], in[1], attrs))

/* ---- vectors ---- */

static kn_tensor *dot_along(kn_scope *s, kn_tensor *a, kn_tensor *b, int64_t dim) {
  return along(s, KN_OP_sum, kx_mul(s, a, b), dim, false);
}

static kn_tensor *at_least(kn_scope *s, kn_tensor *x, double least) {
  return kx_clamp(s, x, least, INFINITY);
}

/* The dim is one of what a and b broadcast to. */
static kn_tensor *cosine(kn_scope *s, kn_tensor *a, kn_tensor *b, const kn_attrs_cosine *at) {
  kn_tensor *both = kx_mul(s, a, b);
  if (!both) return NULL;
  if (!kn_type_equal(&a->type, &both->type)) a = kx_expand_as(s, a, both);
  if (!kn_type_equal(&b->type, &both->type)) b = kx_expand_as(s, b, both);
  kn_tensor *la = at_least(s, kx_safe_sqrt(s, dot_along(s, a, a, at->dim)), at->eps);
  kn_tensor *lb = at_least(s, kx_safe_sqrt(s, dot_along(s, b, b, at->dim)), at->eps);
  return kx_div(s, along(s, KN_OP_sum, both, at->dim, false), kx_mul(s, la, lb));
}
EXPRESSION(cosine_similarity, cosine(s, in[0], in[1], attrs))

static kn_tensor *apart(kn_scope *s, kn_tensor *a, kn_tensor *b, double p, double eps, bool keepdim) {
  a = kx_floating(s, a);
  kn_attrs_norm at = {.p = p, .dim = {1, {-1}}, .keepdim = keepdim};
  return kx_with(s, KN_OP_norm, &at, kx_plus(s, kx_sub(s, a, b), eps));
}
static kn_tensor *pairwise(kn_scope *s, kn_tensor *const *in, const kn_attrs_pairwise *a) {
  return apart(s, in[0], in[1], a->p, a->eps, a->keepdim);
}
EXPRESSION(pairwise_distance, pairwise(s, in, attrs))

/* 1 - cos where the target is 1, cos beyond the margin where it is -1. */
static kn_tensor *cosine_embedding(kn_scope *s, kn_tensor *const *in, const kn_attrs_cosine_embedding *a) {
  kn_tensor *x = kx_floating(s, in[0]), *y = kx_floating(s, in[1]), *t = in[2];
  kn_tensor *lengths =
      kx_mul(s, kx_plus(s, dot_along(s, x, x, -1), 1e-12), kx_plus(s, dot_along(s, y, y, -1), 1e-12));
  kn_tensor *cos = kx_div(s, dot_along(s, x, y, -1), kx_sqrt(s, lengths));
  if (!cos) return NULL;
  kn_tensor *zero = kx_number(s, 0, cos), *far_off = at_least(s, kx_plus(s, cos, -a->margin), 0);
  kn_tensor *unlike = kx_where(s, kx_eq(s, t, kx_number(s, -1, t)), far_off, zero);
  return kx_reduced(s, kx_where(s, kx_eq(s, t, kx_number(s, 1, t)), kx_minus(s, 1, cos), unlike),
                    a->reduction);
}
EXPRESSION(cosine_embedding_loss, cosine_embedding(s, in, attrs))

/* anchor, positive, negative */
static kn_tensor *triplet(kn_scope *s, kn_tensor *const *in, const kn_attrs_triplet *a) {
  kn_tensor *to_like = apart(s, in[0], in[1], a->p, a->eps, false);
  kn_tensor *to_unlike = apart(s, in[0], in[2], a->p, a->eps, false);
  if (a->swap) to_unlike = kx_minimum(s, to_unlike, apart(s, in[1], in[2], a->p, a->eps, false));
  return kx_reduced(s, at_least(s, kx_plus(s, kx_sub(s, to_like, to_unlike), a->margin), 0), a->reduction);
}
EXPRESSION(triplet_margin_loss, triplet(s, in, attrs))
