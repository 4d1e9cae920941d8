/* Composites: ops written on top of other ops, once for eager tensors and for recorded ones. They reach the
 * graph and the tape as their parts. Sizes may be unknown while recording, so shapes are given by other
 * tensors (…_as, …_like), by -1, or by symbolic sizes (see `size_of`). */
#include "core/expr.h"
#include "core/kernels/kernel.h"

#define COMPOSITE(name)                                                                                      \
  kn_status kn_composite_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,             \
                                kn_tensor **out)
#define UNUSED (void)attrs, (void)n

/* The whole of a composite that is one expression. */
#define EXPRESSION(name, value)                                                                              \
  COMPOSITE(name) {                                                                                          \
    kn_scope scope, *s = &scope;                                                                             \
    kn_scope_open(s, ctx);                                                                                   \
    UNUSED;                                                                                                  \
    kn_tensor *result = value;                                                                               \
    return kn_scope_close(s, result, out);                                                                   \
  }

static kn_tensor *with(kn_scope *s, kn_op op, const void *attrs, kn_tensor *a) {
  return kx_apply(s, op, attrs, (kn_tensor *[]){a}, 1);
}

/* ---- creation ---- */

static kn_status filled(kn_context *ctx, const kn_attrs_create *a, double value, kn_tensor **out) {
  kn_attrs_fill f = {.sizes = a->sizes, .value = value, .dtype = a->dtype};
  return kn_apply(ctx, KN_OP_full, &f, NULL, 0, out);
}

COMPOSITE(zeros) {
  (void)in, (void)n;
  return filled(ctx, attrs, 0, out);
}

COMPOSITE(ones) {
  (void)in, (void)n;
  return filled(ctx, attrs, 1, out);
}

EXPRESSION(zeros_like, kx_full_like(s, in[0], 0))
EXPRESSION(ones_like, kx_full_like(s, in[0], 1))

/* ---- shapes ---- */

/* Size of a dim as an attribute: the number, or a placeholder for it while recording. */
static kn_status size_of(kn_context *ctx, kn_tensor *t, int dim, int64_t *out) {
  kn_scalar size;
  KN_TRY(kn_size(ctx, t, dim, &size));
  if (size.kind == KN_SCALAR_INT) {
    *out = size.as.i;
    return KN_OK;
  }
  return ctx->recorder->dynamic(ctx->recorder, ctx, &size, out);
}

/* Appends the sizes of dims [begin, end) of t. */
static void put_sizes(kn_scope *s, kn_tensor *t, int begin, int end, kn_ints *sizes) {
  for (int d = begin; d < end && s->status == KN_OK; d++) {
    if (sizes->n == KN_MAX_RANK) {
      kx_fail(s, kn_fail(s->ctx, KN_SHAPE, "the result would have more than %d dims", KN_MAX_RANK));
      return;
    }
    kn_status st = size_of(s->ctx, t, d, &sizes->v[sizes->n]);
    if (st != KN_OK)
      kx_fail(s, st);
    else
      sizes->n++;
  }
}

static kn_tensor *reshape(kn_scope *s, kn_tensor *t, const kn_ints *sizes) {
  kn_attrs_sizes a = {.sizes = *sizes};
  return with(s, KN_OP_reshape, &a, t);
}

/* While recording there are no strides to ask: the graph's reshape copies if it must. */
COMPOSITE(view) {
  (void)n;
  kn_type type;
  KN_TRY(kn_infer_types(ctx, KN_OP_reshape, attrs, &in[0]->type, 1, &type));
  int64_t strides[KN_MAX_RANK];
  if (!kn_tensor_is_symbolic(in[0]) && kn_type_known(&type) && !kn_reshape_strides(in[0], &type, strides)) {
    char from[KN_TYPE_TEXT], to[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_SHAPE, "%s is not laid out so that %s shows it without a copy; use reshape",
                   kn_type_text(&in[0]->type, from, sizeof from), kn_type_text(&type, to, sizeof to));
  }
  return kn_apply(ctx, KN_OP_reshape, attrs, in, 1, out);
}

static bool dims_known(const kn_tensor *t, int begin, int end) {
  for (int d = begin; d < end; d++)
    if (!kn_dim_known(t->type.dims[d])) return false;
  return true;
}

/* The joined dim is -1 where it is not known; or, if it is, one kept dim may be, so that [N,1,8,8] gives
 * [-1,64] and the rule sees that N stays. */
COMPOSITE(flatten) {
  const kn_attrs_flatten *a = attrs;
  (void)n;
  kn_tensor *x = in[0];
  int rank = x->type.rank, room = rank ? rank : 1, start = kk_axis(a->start_dim, rank),
      end = kk_axis(a->end_dim, rank);
  if (start < 0 || start >= room || end < 0 || end >= room || start > end) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_ARG, "there are no dims %lld to %lld (got %s)",
                   (long long)(a->start_dim < 0 ? a->start_dim : a->start_dim + 1),
                   (long long)(a->end_dim < 0 ? a->end_dim : a->end_dim + 1),
                   kn_type_text(&x->type, text, sizeof text));
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_ints sizes = {0};
  int64_t joined = 1;
  for (int d = start; d <= end && d < rank; d++)
    if (__builtin_mul_overflow(joined, x->type.dims[d], &joined)) joined = -1;
  bool open = !dims_known(x, start, rank ? end + 1 : 0);
  if (open) joined = -1;
  for (int d = 0; d < rank; d++) {
    bool inside = d >= start && d <= end;
    if (inside && d != start) continue;
    if (inside)
      sizes.v[sizes.n++] = joined;
    else if (!open && joined > 0 && !kn_dim_known(x->type.dims[d]))
      sizes.v[sizes.n++] = -1, open = true;
    else
      put_sizes(&s, x, d, d + 1, &sizes);
  }
  if (rank == 0) sizes = (kn_ints){1, {1}};
  kn_tensor *r = reshape(&s, x, &sizes);
  return kn_scope_close(&s, r, out);
}

/* With sizes only known later: [start …] and of that […, length), which clips where eager fails. */
COMPOSITE(narrow) {
  const kn_attrs_narrow *a = attrs;
  const kn_type *t = &in[0]->type;
  (void)n;
  int dim = kk_axis(a->dim, t->rank);
  if (dim < 0 || dim >= t->rank)
    return kn_fail(ctx, KN_ARG, "dim %lld does not exist in %d dims",
                   (long long)(a->dim < 0 ? a->dim : a->dim + 1), t->rank);
  int64_t size = t->dims[dim], start = a->start, length = a->length;
  if (length < 0 && !kn_is_dyn(length))
    return kn_fail(ctx, KN_ARG, "the length must not be negative: %lld", (long long)length);
  if (!kn_dim_known(size) || kn_is_dyn(start) || kn_is_dyn(length)) {
    kn_attrs_slice from = {.dim = dim, .start = start, .stop = KN_TO_END, .step = 1};
    kn_attrs_slice upto = {.dim = dim, .start = 0, .stop = length, .step = 1};
    kn_scope s;
    kn_scope_open(&s, ctx);
    kn_tensor *r = with(&s, KN_OP_slice, &upto, with(&s, KN_OP_slice, &from, in[0]));
    return kn_scope_close(&s, r, out);
  }
  if (start < 0) start += size;
  if (start < 0 || length < 0 || start > size || length > size - start) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_INDEX, "%lld elements from %lld on do not lie in dim %d of size %lld (got %s)",
                   (long long)length, (long long)(a->start < 0 ? a->start : a->start + 1), dim + 1,
                   (long long)size, kn_type_text(t, text, sizeof text));
  }
  kn_attrs_slice part = {.dim = dim, .start = start, .stop = start + length, .step = 1};
  return kn_apply(ctx, KN_OP_slice, &part, in, 1, out);
}

/* ---- small functions ---- */

static kn_tensor *as_bool(kn_scope *s, kn_tensor *x) {
  return kn_tensor_dtype(x) == KN_BOOL ? x : kx_cast(s, x, KN_BOOL);
}

static kn_tensor *scale(kn_scope *s, kn_tensor *x, double by) { return kx_mul(s, x, kx_number(s, by, x)); }
static kn_tensor *plus(kn_scope *s, kn_tensor *x, double c) { return kx_add(s, x, kx_number(s, c, x)); }

/* The result of a unary float function: integers become float32. */
static kn_tensor *floating(kn_scope *s, kn_tensor *x) {
  return kn_dtype_is_float(kn_tensor_dtype(x)) ? x : kx_cast(s, x, KN_F32);
}

static kn_tensor *gelu(kn_scope *s, kn_tensor *x) {
  kn_tensor *phi = scale(s, plus(s, kx_erf(s, scale(s, x, 0.70710678118654752)), 1), 0.5);
  return kx_mul(s, x, phi);
}

/* max(x, 0) + log(1 + exp(-|x|)): the exponential never overflows. */
static kn_tensor *softplus(kn_scope *s, kn_tensor *x) {
  kn_tensor *tail = kx_log(s, plus(s, kx_exp(s, kx_neg(s, kx_abs(s, x))), 1));
  return kx_add(s, kx_maximum(s, x, kx_number(s, 0, x)), tail);
}

EXPRESSION(square, kx_mul(s, in[0], in[0]))
EXPRESSION(reciprocal, kx_div(s, kx_number(s, 1, in[0]), in[0]))
EXPRESSION(gelu, gelu(s, floating(s, in[0])))
EXPRESSION(silu, kx_mul(s, in[0], kx_sigmoid(s, in[0])))
EXPRESSION(softplus, softplus(s, floating(s, in[0])))
EXPRESSION(logical_not, kx_apply(s, KN_OP_bitwise_not, NULL, (kn_tensor *[]){as_bool(s, in[0])}, 1))
EXPRESSION(logical_and, kx_bitwise_and(s, as_bool(s, in[0]), as_bool(s, in[1])))
EXPRESSION(logical_or, kx_bitwise_or(s, as_bool(s, in[0]), as_bool(s, in[1])))

/* ---- masks ---- */

EXPRESSION(masked_fill, kx_where(s, kx_expand_as(s, in[1], in[0]),
                                 kx_number(s, ((const kn_attrs_value *)attrs)->value, in[0]), in[0]))

/* Both are broadcast to one shape and flattened; the places of true then pick. */
COMPOSITE(masked_select) {
  UNUSED;
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_ints flat = {1, {-1}};
  kn_tensor *x = kx_where(&s, in[1], in[0], in[0]), *mask = kx_expand_as(&s, in[1], x);
  if (x && kn_tensor_numel(x) == 0) flat.v[0] = 0; /* -1 beside no elements could be anything */
  x = reshape(&s, x, &flat);
  mask = reshape(&s, mask, &flat);
  kn_attrs_select first = {.dim = 1, .index = 0};
  kn_attrs_axis rows = {.dim = 0};
  kn_tensor *at = with(&s, KN_OP_select, &first, kx_nonzero(&s, mask)); /* [count, 1] to [count] */
  kn_tensor *r = kx_apply(&s, KN_OP_index_select, &rows, (kn_tensor *[]){x, at}, 2);
  return kn_scope_close(&s, r, out);
}

/* ---- spread ---- */

/* sqrt with gradient 0, not infinite, at 0. */
static kn_tensor *safe_sqrt(kn_scope *s, kn_tensor *x) {
  kn_tensor *zero = kx_number(s, 0, x), *none = kx_eq(s, x, zero);
  return kx_where(s, none, zero, kx_sqrt(s, kx_where(s, none, kx_number(s, 1, x), x)));
}

/* Elements that go into one result: a number, or a 0-d tensor while sizes are not known. */
static kn_tensor *count_of(kn_scope *s, kn_tensor *x, const kn_attrs_correction *a) {
  int64_t count = 1;
  for (int i = 0; i < (a->dim.n ? a->dim.n : x->type.rank); i++) {
    int d = a->dim.n ? kk_axis(a->dim.v[i], x->type.rank) : i;
    if (d < 0 || d >= x->type.rank) continue; /* mean has refused it, or x is 0-d */
    if (!kn_dim_known(x->type.dims[d])) {
      kn_attrs_reduce all = {.dim = a->dim, .keepdim = a->keepdim};
      return with(s, KN_OP_sum, &all, kx_full_like(s, x, 1));
    }
    count *= x->type.dims[d];
  }
  return kx_number(s, (double)count, x);
}

static kn_tensor *variance(kn_scope *s, kn_tensor *x, const kn_attrs_correction *a) {
  kn_attrs_reduce keep = {.dim = a->dim, .keepdim = true}, over = {.dim = a->dim, .keepdim = a->keepdim};
  kn_tensor *mean = with(s, KN_OP_mean, &keep, x);
  kn_tensor *d = kx_sub(s, x, mean), *total = with(s, KN_OP_sum, &over, kx_mul(s, d, d));
  kn_tensor *count = plus(s, count_of(s, x, a), -(double)a->correction);
  return kx_div(s, total, kx_maximum(s, count, kx_number(s, 0, x)));
}

EXPRESSION(var, variance(s, in[0], attrs))
EXPRESSION(std, safe_sqrt(s, variance(s, in[0], attrs)))
EXPRESSION(norm, safe_sqrt(s, with(s, KN_OP_sum, attrs, kx_mul(s, floating(s, in[0]), floating(s, in[0])))))

/* ---- layers ---- */

COMPOSITE(linear) {
  (void)attrs;
  if (in[1]->type.rank != 2) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_SHAPE, "the weight must have two dims (got %s)",
                   kn_type_text(&in[1]->type, text, sizeof text));
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_tensor *y = kx_matmul(&s, in[0], kx_transpose(&s, in[1], 0, 1));
  if (n == 3) y = kx_add(&s, y, in[2]);
  return kn_scope_close(&s, y, out);
}

COMPOSITE(embedding) {
  UNUSED;
  kn_tensor *w = in[0], *index = in[1];
  if (w->type.rank != 2) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_SHAPE, "the weight must have two dims (got %s)",
                   kn_type_text(&w->type, text, sizeof text));
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_attrs_axis rows = {.dim = 0};
  kn_ints flat = {1, {kn_tensor_numel(index) == KN_DIM_UNKNOWN ? -1 : kn_tensor_numel(index)}}, sizes = {0};
  kn_tensor *list = index->type.rank == 1 ? index : reshape(&s, index, &flat);
  kn_tensor *r = kx_apply(&s, KN_OP_index_select, &rows, (kn_tensor *[]){w, list}, 2);
  if (index->type.rank != 1) {
    put_sizes(&s, index, 0, index->type.rank, &sizes);
    put_sizes(&s, w, 1, 2, &sizes);
    r = reshape(&s, r, &sizes);
  }
  return kn_scope_close(&s, r, out);
}

COMPOSITE(dropout) {
  const kn_attrs_dropout *a = attrs;
  (void)n;
  if (!(a->p >= 0 && a->p <= 1)) return kn_fail(ctx, KN_ARG, "p must lie in [0, 1], not %g", a->p);
  if (!a->training || a->p == 0) {
    *out = kn_tensor_retain(in[0]);
    return KN_OK;
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_tensor *keep = kx_full_like(&s, in[0], 1 - a->p);
  kn_tensor *mask = with(&s, KN_OP_bernoulli, NULL, keep);
  if (a->p < 1) mask = scale(&s, mask, 1 / (1 - a->p));
  kn_tensor *r = kx_mul(&s, in[0], mask);
  return kn_scope_close(&s, r, out);
}

/* ---- losses ---- */

static kn_tensor *reduced(kn_scope *s, kn_tensor *loss, const kn_attrs_reduction *a) {
  static const kn_attrs_reduce all = {.keepdim = false};
  switch (a->reduction) {
  case KN_CHOICE_reduction_none: return loss;
  case KN_CHOICE_reduction_mean: return with(s, KN_OP_mean, &all, loss);
  case KN_CHOICE_reduction_sum: return with(s, KN_OP_sum, &all, loss);
  default: return kx_fail(s, kn_fail(s->ctx, KN_ARG, "there is no reduction %d", (int)a->reduction));
  }
}

/* logp [N,C] or [C]; target [N] or 0-d. */
static kn_tensor *nll(kn_scope *s, kn_tensor *logp, kn_tensor *target, const kn_attrs_reduction *a) {
  const kn_type *l = &logp->type, *t = &target->type;
  if (l->rank < 1 || l->rank > 2 || t->rank != l->rank - 1 ||
      (l->rank == 2 && kn_dim_known(l->dims[0]) && kn_dim_known(t->dims[0]) && l->dims[0] != t->dims[0])) {
    char lt[KN_TYPE_TEXT], tt[KN_TYPE_TEXT];
    return kx_fail(s, kn_fail(s->ctx, KN_SHAPE,
                              "scores [N,C] and targets [N], or [C] and one target, are needed (got %s, %s)",
                              kn_type_text(l, lt, sizeof lt), kn_type_text(t, tt, sizeof tt)));
  }
  kn_attrs_axis last = {.dim = -1};
  kn_attrs_select only = {.dim = -1, .index = 0};
  kn_tensor *at = with(s, KN_OP_unsqueeze, &last, target);
  kn_tensor *picked =
      with(s, KN_OP_select, &only, kx_apply(s, KN_OP_gather, &last, (kn_tensor *[]){logp, at}, 2));
  return reduced(s, kx_neg(s, picked), a);
}

static kn_tensor *cross_entropy(kn_scope *s, kn_tensor *logits, kn_tensor *target,
                                const kn_attrs_reduction *a) {
  kn_tensor *logp = kx_axis(s, KN_OP_log_softmax, logits, -1);
  return logp ? nll(s, logp, target, a) : NULL;
}

static kn_tensor *mse(kn_scope *s, kn_tensor *x, kn_tensor *y, const kn_attrs_reduction *a) {
  kn_tensor *d = kx_sub(s, x, y);
  return reduced(s, kx_mul(s, d, d), a);
}

EXPRESSION(nll_loss, nll(s, in[0], in[1], attrs))
EXPRESSION(cross_entropy, cross_entropy(s, in[0], in[1], attrs))
EXPRESSION(mse_loss, mse(s, in[0], in[1], attrs))
