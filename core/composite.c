/* Composites: ops written on top of other ops, once for eager tensors and for recorded ones. They reach the
 * graph and the tape as their parts. Sizes may be unknown while recording, so shapes are given by other
 * tensors (…_as, …_like), by -1, or by symbolic sizes (see `size_of`). */
#include "core/composite.h"
#include "core/infer.h"
#include <stdio.h>

#define UNUSED (void)attrs, (void)n

/* ---- creation ---- */

static kn_status filled(kn_context *ctx, const kn_attrs_create *a, double value, kn_tensor **out) {
  kn_attrs_fill f = {.sizes = a->sizes, .value = value, .dtype = a->dtype, .device = a->device};
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

/* base to powers that stand at equal distances */
COMPOSITE(logspace) {
  const kn_attrs_logspace *a = attrs;
  (void)in, (void)n;
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_attrs_linspace line = {
      .start = a->start, .end = a->end, .steps = a->steps, .dtype = KN_F64, .device = a->device};
  kn_tensor *at = kx_apply(&s, KN_OP_linspace, &line, NULL, 0);
  kn_tensor *r = at ? kx_cast(&s, kx_pow(&s, kx_number(&s, a->base, at), at), a->dtype) : NULL;
  return kn_scope_close(&s, r, out);
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
  return kn_recorder_of(ctx)->dynamic(kn_recorder_of(ctx), ctx, &size, out);
}

void kx_put_size(kn_scope *s, int64_t size, kn_ints *sizes) {
  if (s->status != KN_OK) return;
  if (sizes->n == KN_MAX_RANK)
    kx_fail(s, kn_fail(s->ctx, KN_SHAPE, "the result would have more than %d dims", KN_MAX_RANK));
  else
    sizes->v[sizes->n++] = size;
}

void kx_put_sizes(kn_scope *s, kn_tensor *t, int begin, int end, kn_ints *sizes) {
  for (int d = begin; t && d < end && s->status == KN_OK; d++) {
    int64_t size = 0;
    kn_status st = size_of(s->ctx, t, d, &size);
    if (st != KN_OK)
      kx_fail(s, st);
    else
      kx_put_size(s, size, sizes);
  }
}

kn_tensor *kx_size(kn_scope *s, kn_tensor *t, int dim, kn_dtype dtype) {
  kn_scalar size;
  kn_tensor *r;
  if (!t || s->status != KN_OK) return NULL;
  kn_status st = kn_size(s->ctx, t, dim, &size);
  if (st == KN_OK) st = kn_scalar_tensor(s->ctx, &size, dtype, &r);
  return st == KN_OK ? kx_own(s, r) : kx_fail(s, st);
}

kn_tensor *kx_detach(kn_scope *s, kn_tensor *t) {
  kn_tensor *fixed;
  if (!t || s->status != KN_OK) return NULL;
  kn_status st = kn_detach(s->ctx, t, &fixed);
  if (st != KN_OK) return kx_fail(s, st);
  fixed = kx_own(s, fixed);
  st = fixed ? kn_note_detached(s->ctx, fixed) : KN_OK;
  return st == KN_OK ? fixed : kx_fail(s, st);
}

int kx_dim(kn_scope *s, int64_t dim, int rank) {
  int room = rank ? rank : 1;
  if (dim >= -room && dim < room) return (int)(dim < 0 ? dim + room : dim);
  kx_fail(s, kn_fail(s->ctx, KN_ARG, "dim %lld does not exist in %d dims",
                     (long long)(dim < 0 ? dim : dim + 1), rank));
  return 0;
}

kn_tensor *kx_refuse(kn_scope *s, kn_status st, const char *sentence, const kn_tensor *a,
                     const kn_tensor *b) {
  char at[KN_TYPE_TEXT], bt[KN_TYPE_TEXT] = "";
  if (s->status != KN_OK) return NULL;
  if (b) kn_type_text(&b->type, bt, sizeof bt);
  return kx_fail(s, kn_fail(s->ctx, st, "%s (got %s%s%s)", sentence, kn_type_text(&a->type, at, sizeof at),
                            b ? ", " : "", bt));
}

void kx_expect(kn_scope *s, kn_tensor *t, int dim, int64_t wanted, const char *sentence, kn_tensor *a,
               kn_tensor *b) {
  kn_recorder *rec = kn_recorder_of(s->ctx);
  if (s->status != KN_OK || !t) return;
  int64_t size = t->type.dims[dim];
  if (size == wanted) return;
  if (kn_dim_known(size) && !kn_is_dyn(wanted))
    kx_refuse(s, KN_SHAPE, sentence, a, b);
  else if (rec && rec->expect)
    kx_fail(s, rec->expect(rec, s->ctx, t, dim, wanted, sentence, a, b));
}

bool kx_sizes_known(kn_scope *s, kn_tensor *x, int begin, int end) {
  for (int d = begin; d < end; d++)
    if (!kn_dim_known(x->type.dims[d]))
      return kx_refuse(s, KN_SHAPE, "the sizes must be known here", x, NULL), false;
  return true;
}

kn_tensor *kx_constant(kn_scope *s, const kn_tensor *beside, kn_dtype dtype, int64_t n,
                       double (*value)(const void *, int64_t), const void *ud) {
  kn_type type = {.dtype = (uint8_t)(dtype == KN_I64 ? KN_I64 : KN_F64), .rank = 1, .dims = {n}};
  kn_tensor *t;
  if (s->status != KN_OK) return NULL;
  kn_status st = kn_tensor_new(s->ctx, &type, &t);
  if (st != KN_OK) return kx_fail(s, st);
  for (int64_t i = 0; i < n; i++) {
    if (dtype == KN_I64)
      ((int64_t *)kn_tensor_data(t))[i] = (int64_t)value(ud, i);
    else
      ((double *)kn_tensor_data(t))[i] = value(ud, i);
  }
  t = kx_beside(s, kx_own(s, t), beside);
  return !t || dtype == KN_I64 || dtype == KN_F64 ? t : kx_cast(s, t, dtype);
}

kn_tensor *kx_pick(kn_scope *s, kn_tensor *x, int dim, kn_tensor *at) {
  kn_attrs_axis along = {.dim = dim};
  return kx_with2(s, KN_OP_index_select, &along, x, at);
}

/* While recording, strides are what the recorder knows of them: those of a contiguous tensor otherwise, or
 * where sizes are not known; the recorder hears of it and may know better. */
COMPOSITE(view) {
  (void)n;
  kn_type type;
  KN_TRY(kn_infer_types(ctx, KN_OP_reshape, attrs, &in[0]->type, 1, &type));
  int64_t strides[KN_MAX_RANK];
  if (kn_type_known(&in[0]->type) && kn_type_known(&type) && !kn_reshape_strides(in[0], &type, strides)) {
    char from[KN_TYPE_TEXT], to[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_SHAPE, "%s is not laid out so that %s shows it without a copy; use reshape",
                   kn_type_text(&in[0]->type, from, sizeof from), kn_type_text(&type, to, sizeof to));
  }
  KN_TRY(kn_apply(ctx, KN_OP_reshape, attrs, in, 1, out));
  kn_recorder *rec = kn_recorder_of(ctx);
  if (rec && rec->viewed && kn_tensor_is_symbolic(in[0])) rec->viewed(rec, in[0], *out);
  return KN_OK;
}

/* The dim from the front, -1 when there is none. */
static int axis_of(int64_t dim, int rank) {
  int64_t room = rank ? rank : 1;
  return dim < -room || dim >= room ? -1 : kk_axis(dim, rank);
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
  int rank = x->type.rank, start = axis_of(a->start_dim, rank), end = axis_of(a->end_dim, rank);
  if (start < 0 || end < 0 || start > end) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_ARG, "there are no dims %lld to %lld (got %s)", kn_as_written(a->start_dim),
                   kn_as_written(a->end_dim), kn_type_text(&x->type, text, sizeof text));
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
      kx_put_sizes(&s, x, d, d + 1, &sizes);
  }
  if (rank == 0) sizes = (kn_ints){1, {1}};
  kn_tensor *r = kx_reshape(&s, x, &sizes);
  return kn_scope_close(&s, r, out);
}

/* With sizes only known later: [start …] and of that […, length), which clips where eager fails. */
#define OUTSIDE "%lld elements from %lld on do not lie in dim %d"
COMPOSITE(narrow) {
  const kn_attrs_narrow *a = attrs;
  const kn_type *t = &in[0]->type;
  (void)n;
  int dim = axis_of(a->dim, t->rank);
  if (dim < 0 || dim >= t->rank)
    return kn_fail(ctx, KN_ARG, "dim %lld does not exist in %d dims", kn_as_written(a->dim), t->rank);
  int64_t size = t->dims[dim], start = a->start, length = a->length;
  if (length < 0 && !kn_is_dyn(length))
    return kn_fail(ctx, KN_ARG, "the length must not be negative: %lld", (long long)length);
  if (!kn_dim_known(size) || kn_is_dyn(start) || kn_is_dyn(length)) {
    kn_attrs_slice from = {.dim = dim, .start = start, .stop = KN_TO_END, .step = 1};
    kn_attrs_slice upto = {.dim = dim, .start = 0, .stop = length, .step = 1};
    kn_scope s;
    kn_scope_open(&s, ctx);
    kn_tensor *r = kx_with(&s, KN_OP_slice, &upto, kx_with(&s, KN_OP_slice, &from, in[0]));
    char sentence[120];
    if (kn_is_dyn(start) || kn_is_dyn(length))
      snprintf(sentence, sizeof sentence, "the elements do not lie in dim %d", dim + 1);
    else
      snprintf(sentence, sizeof sentence, OUTSIDE, (long long)length, kn_as_written(start), dim + 1);
    kx_expect(&s, r, dim, length, sentence, in[0], NULL);
    return kn_scope_close(&s, r, out);
  }
  if (start < 0) start += size;
  if (start < 0 || length < 0 || start > size || length > size - start) {
    char text[KN_TYPE_TEXT];
    char sentence[120];
    snprintf(sentence, sizeof sentence, OUTSIDE, (long long)length, kn_as_written(a->start), dim + 1);
    return kn_fail(ctx, KN_INDEX, "%s (got %s)", sentence, kn_type_text(t, text, sizeof text));
  }
  kn_attrs_slice part = {.dim = dim, .start = start, .stop = start + length, .step = 1};
  return kn_apply(ctx, KN_OP_slice, &part, in, 1, out);
}

/* ---- small functions ---- */

kn_tensor *kx_as_bool(kn_scope *s, kn_tensor *x) {
  return kn_tensor_dtype(x) == KN_BOOL ? x : kx_cast(s, x, KN_BOOL);
}

kn_tensor *kx_wide(kn_scope *s, kn_tensor *x) {
  kn_dtype d = x ? kn_tensor_dtype(x) : KN_F32;
  return kn_dtype_is_float(d) && kn_dtypes[d].wide != d ? kx_cast(s, x, kn_dtypes[d].wide) : x;
}

kn_tensor *kx_index(kn_scope *s, kn_tensor *index) {
  return index && kn_tensor_dtype(index) == KN_I32 ? kx_cast(s, index, KN_I64) : index;
}

kn_tensor *kx_reduced(kn_scope *s, kn_tensor *loss, int32_t how) {
  const kn_ints all = {0};
  switch (how) {
  case KN_CHOICE_reduction_none: return loss;
  case KN_CHOICE_reduction_mean: return kx_reduce(s, KN_OP_mean, loss, all, false);
  case KN_CHOICE_reduction_sum: return kx_reduce(s, KN_OP_sum, loss, all, false);
  default: return kx_fail(s, kn_fail(s->ctx, KN_ARG, "there is no reduction %d", (int)how));
  }
}

kn_tensor *kx_floating(kn_scope *s, kn_tensor *x) {
  return !x || kn_dtype_is_float(kn_tensor_dtype(x)) ? x : kx_cast(s, x, KN_F32);
}

static kn_tensor *square(kn_scope *s, kn_tensor *x) {
  if (kn_tensor_dtype(x) == KN_BOOL) x = kx_cast(s, x, KN_I64);
  return kx_mul(s, x, x);
}
EXPRESSION(square, square(s, in[0]))
EXPRESSION(reciprocal, kx_div(s, kx_number(s, 1, in[0]), in[0]))
EXPRESSION(logical_not, kx_apply(s, KN_OP_bitwise_not, NULL, (kn_tensor *[]){kx_as_bool(s, in[0])}, 1))
EXPRESSION(logical_and, kx_bitwise_and(s, kx_as_bool(s, in[0]), kx_as_bool(s, in[1])))
EXPRESSION(logical_or, kx_bitwise_or(s, kx_as_bool(s, in[0]), kx_as_bool(s, in[1])))
EXPRESSION(logical_xor, kx_with2(s, KN_OP_bitwise_xor, NULL, kx_as_bool(s, in[0]), kx_as_bool(s, in[1])))

/* 0 * x is 0 but for nan and infinities, where it is nan. */
static kn_tensor *finite(kn_scope *s, kn_tensor *x) {
  kn_tensor *zero = kx_number(s, 0, x);
  return kx_eq(s, kx_mul(s, x, zero), zero);
}
EXPRESSION(isfinite, finite(s, in[0]))
EXPRESSION(isinf,
           kx_with2(s, KN_OP_bitwise_xor, NULL, kx_logical_not(s, finite(s, in[0])), kx_isnan(s, in[0])))

EXPRESSION(frac, kx_sub(s, in[0], kx_with(s, KN_OP_trunc, NULL, in[0])))
EXPRESSION(lerp, kx_add(s, in[0], kx_mul(s, in[2], kx_sub(s, in[1], in[0]))))

/* The larger, plus log(1 + exp of minus the distance); equal ones, infinities too, have distance 0. */
static kn_tensor *logaddexp(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  kn_tensor *d = kx_sub(s, a, b);
  d = kx_where(s, kx_eq(s, a, b), kx_number(s, 0, d), d);
  kn_tensor *tail = kx_with(s, KN_OP_log1p, NULL, kx_exp(s, kx_neg(s, kx_abs(s, d))));
  return kx_add(s, kx_maximum(s, a, b), tail);
}
EXPRESSION(logaddexp, logaddexp(s, kx_floating(s, in[0]), kx_floating(s, in[1])))

/* ---- masks ---- */

/* The value takes the dtype of x. */
static kn_tensor *masked_fill(kn_scope *s, kn_tensor *x, kn_tensor *mask, kn_tensor *value) {
  if (kn_tensor_dtype(mask) != KN_BOOL) return kx_refuse(s, KN_DTYPE, "the mask must be bool", x, mask);
  if (value->type.rank != 0) return kx_refuse(s, KN_SHAPE, "one value is needed", x, value);
  return kx_where(s, mask, kx_cast(s, value, kn_tensor_dtype(x)), x);
}
EXPRESSION(masked_fill, masked_fill(s, in[0], in[1], in[2]))

/* Both are broadcast to one shape and flattened; the places of true then pick. */
COMPOSITE(masked_select) {
  UNUSED;
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_ints flat = {1, {-1}};
  kn_tensor *x = kx_where(&s, in[1], in[0], in[0]), *mask = kx_expand_as(&s, in[1], x);
  if (x && kn_tensor_numel(x) == 0) flat.v[0] = 0; /* -1 beside no elements could be anything */
  x = kx_reshape(&s, x, &flat);
  mask = kx_reshape(&s, mask, &flat);
  kn_attrs_select first = {.dim = 1, .index = 0};
  kn_attrs_axis rows = {.dim = 0};
  kn_tensor *at = kx_with(&s, KN_OP_select, &first, kx_nonzero(&s, mask)); /* [count, 1] to [count] */
  kn_tensor *r = kx_apply(&s, KN_OP_index_select, &rows, (kn_tensor *[]){x, at}, 2);
  return kn_scope_close(&s, r, out);
}

/* ---- spread ---- */

kn_tensor *kx_safe_sqrt(kn_scope *s, kn_tensor *x) {
  kn_tensor *zero = kx_number(s, 0, x), *none = kx_eq(s, x, zero);
  return kx_where(s, none, zero, kx_sqrt(s, kx_where(s, none, kx_number(s, 1, x), x)));
}

/* Elements that go into one result: a number, or a 0-d tensor while sizes are not known. */
static kn_tensor *count_of(kn_scope *s, kn_tensor *x, const kn_attrs_correction *a) {
  int64_t count = 1;
  for (int i = 0; i < (a->dim.n ? a->dim.n : x->type.rank); i++) {
    int d = a->dim.n ? axis_of(a->dim.v[i], x->type.rank) : i;
    if (d < 0 || d >= x->type.rank) continue; /* mean has refused it, or x is 0-d */
    if (!kn_dim_known(x->type.dims[d])) {
      kn_attrs_reduce all = {.dim = a->dim, .keepdim = a->keepdim};
      return kx_with(s, KN_OP_sum, &all, kx_full_like(s, x, 1));
    }
    count *= x->type.dims[d];
  }
  return kx_number(s, (double)count, x);
}

static kn_tensor *variance(kn_scope *s, kn_tensor *x, const kn_attrs_correction *a) {
  kn_attrs_reduce keep = {.dim = a->dim, .keepdim = true}, over = {.dim = a->dim, .keepdim = a->keepdim};
  kn_tensor *mean = kx_with(s, KN_OP_mean, &keep, x);
  kn_tensor *d = kx_sub(s, x, mean), *total = kx_with(s, KN_OP_sum, &over, kx_mul(s, d, d));
  kn_tensor *count = kx_plus(s, count_of(s, x, a), -(double)a->correction);
  return kx_div(s, total, kx_maximum(s, count, kx_number(s, 0, x)));
}

EXPRESSION(var, variance(s, in[0], attrs))
EXPRESSION(std, kx_safe_sqrt(s, variance(s, in[0], attrs)))

/* ---- layers ---- */

COMPOSITE(linear) {
  (void)attrs;
  int rank = in[1]->type.rank; /* 1: one output, without a dim for it */
  if (rank != 2 && (rank != 1 || n == 3)) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_SHAPE, "the weight must have two dims (got %s)",
                   kn_type_text(&in[1]->type, text, sizeof text));
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_tensor *y = kx_matmul(&s, in[0], rank == 1 ? in[1] : kx_transpose(&s, in[1], 0, 1));
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
  kn_tensor *list = index->type.rank == 1 ? index : kx_reshape(&s, index, &flat);
  kn_tensor *r = kx_apply(&s, KN_OP_index_select, &rows, (kn_tensor *[]){w, list}, 2);
  if (index->type.rank != 1) {
    kx_put_sizes(&s, index, 0, index->type.rank, &sizes);
    kx_put_sizes(&s, w, 1, 2, &sizes);
    r = kx_reshape(&s, r, &sizes);
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
  kn_tensor *mask = kx_with(&s, KN_OP_bernoulli, NULL, keep);
  if (a->p < 1) mask = kx_scale(&s, mask, 1 / (1 - a->p));
  kn_tensor *r = kx_mul(&s, in[0], mask);
  return kn_scope_close(&s, r, out);
}
