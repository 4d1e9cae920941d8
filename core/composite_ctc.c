/* Composite: connectionist temporal classification (Graves et al., 2006). The forward variables of all
 * samples go through the steps together, as logarithms, in ops, so that gradients of any order come by
 * themselves. What cannot be is -1e30, not -inf: nothing then is nan. Classes are 1-based in targets. */
#include "core/composite.h"
#include "core/infer.h"

#define NEVER (-1e30)

typedef struct ctc {
  kn_tensor *labels;         /* [N,L], L = 2 S + 1: targets with blanks before, between and behind, 1-based */
  kn_tensor *skip;           /* [N,L] bool: may come from two labels before */
  kn_tensor *scores;         /* [T,N,L]: log-probabilities of the labels */
  kn_tensor *steps, *length; /* [N] int64: of inputs and targets */
  int64_t count, labels_each; /* T, L */
} ctc;

static kn_tensor *column(kn_scope *s, kn_tensor *list) { return kx_axis(s, KN_OP_unsqueeze, list, 1); }

static kn_tensor *counted(kn_scope *s, int64_t n, const kn_tensor *beside) { /* 0 … n - 1 */
  kn_attrs_range a = {
      .start = 0, .end = (double)n, .step = 1, .dtype = KN_I64, .device = beside->type.device};
  return kx_apply(s, KN_OP_arange, &a, NULL, 0);
}

/* Concatenated targets as rows of the longest. */
static kn_tensor *as_rows(kn_scope *s, kn_tensor *list, kn_tensor *length) {
  const kn_attrs_axis first = {.dim = 0};
  const kn_ints all = {0}, line = {1, {-1}};
  kn_scalar most;
  kn_tensor *longest = kx_reduce(s, KN_OP_amax, length, all, false);
  if (!longest) return NULL;
  if (kn_tensor_is_symbolic(longest) || kn_tensor_is_symbolic(list))
    return kx_refuse(s, KN_SHAPE, "concatenated targets cannot be recorded; give them as rows [N,S]", list,
                     length);
  kn_status st = kn_item(s->ctx, longest, &most);
  if (st != KN_OK) return kx_fail(s, st);
  if (most.as.i < 0) return kx_refuse(s, KN_ARG, "a target length is negative", list, length);
  kn_tensor *start = kx_sub(s, kx_with(s, KN_OP_cumsum, &first, length), length);
  kn_tensor *at = kx_plus(s, kx_add(s, column(s, start), counted(s, most.as.i, list)), 1);
  kn_ints sizes = {2, {length->type.dims[0], most.as.i}};
  if (most.as.i == 0) return kx_reshape(s, kx_slice(s, list, 0, 0, 0, 1), &sizes);
  at = kx_clamp(s, at, 1, (double)list->type.dims[0]); /* what is behind a target is not looked at */
  return kx_reshape(s, kx_with2(s, KN_OP_index_select, &first, list, kx_reshape(s, at, &line)), &sizes);
}

/* The targets with blanks around them, and where two labels may be stepped over. */
static void put_labels(kn_scope *s, ctc *c, kn_tensor *rows, double blank) {
  const kn_attrs_axis_first behind = {.dim = 2}, along = {.dim = 1};
  const kn_attrs_flatten pairs = {.start_dim = 1, .end_dim = 2};
  if (!rows || !kx_sizes_known(s, rows, 1, 2)) return;
  int64_t each = rows->type.dims[1];
  c->labels_each = 2 * each + 1;
  kn_tensor *given = kx_lt(s, counted(s, each, rows), column(s, c->length)),
            *none = kx_full_like(s, rows, blank);
  kn_tensor *last = kx_full_like(s, column(s, c->length), blank);
  rows = kx_where(s, given, rows, none);
  kn_tensor *both = kx_apply(s, KN_OP_stack, &behind, (kn_tensor *[]){none, rows}, 2);
  both = kx_with(s, KN_OP_flatten, &pairs, both);
  c->labels = kx_apply(s, KN_OP_cat, &along, (kn_tensor *[]){both, last}, 2);
  kn_attrs_constant_pad two = {.pad = {2, {2, -2}}, .value = blank};
  kn_tensor *before = kx_with(s, KN_OP_constant_pad, &two, c->labels);
  c->skip = kx_ne(s, c->labels, before); /* a blank has a blank, or the start, two before it */
}

/* x moved to the right by n labels. */
static kn_tensor *moved(kn_scope *s, kn_tensor *x, int64_t n) {
  kn_attrs_constant_pad by = {.pad = {2, {n, -n}}, .value = NEVER};
  return kx_with(s, KN_OP_constant_pad, &by, x);
}

/* The forward variables [N,L] after step t. */
static kn_tensor *forward(kn_scope *s, const ctc *c, kn_tensor *before, int64_t t) {
  const kn_attrs_axis_first first = {.dim = 0};
  const kn_attrs_reduce over = {.dim = {1, {0}}};
  kn_tensor *score = kx_select(s, c->scores, 0, t), *never = score ? kx_number(s, NEVER, score) : NULL;
  if (!before)
    return kx_where(s, kx_lt(s, counted(s, c->labels_each, c->steps), kx_number(s, 2, c->steps)), score,
                    never);
  kn_tensor *ways[3] = {before, moved(s, before, 1), NULL};
  ways[2] =
      c->labels_each > 1 ? kx_where(s, c->skip, moved(s, before, c->labels_each > 2 ? 2 : 1), never) : NULL;
  kn_tensor *sum = kx_apply(s, KN_OP_stack, &first, ways, c->labels_each > 1 ? 3 : 1);
  sum = kx_add(s, kx_with(s, KN_OP_logsumexp, &over, sum), score);
  return kx_where(s, column(s, kx_gt(s, c->steps, kx_number(s, (double)t, c->steps))), sum, before);
}

/* All steps, each in a scope of its own. */
static kn_tensor *walk(kn_scope *outer, const ctc *c) {
  kn_tensor *now = NULL;
  for (int64_t t = 0; t < c->count && outer->status == KN_OK; t++) {
    kn_scope s;
    kn_tensor *next;
    kn_scope_open(&s, outer->ctx);
    kn_status st = kn_scope_close(&s, forward(&s, c, now, t), &next);
    kn_tensor_release(now);
    now = st == KN_OK ? next : NULL;
    if (st != KN_OK) kx_fail(outer, st);
  }
  return now ? kx_own(outer, now) : NULL;
}

/* Of the last label and the blank behind it. */
static kn_tensor *total(kn_scope *s, const ctc *c, kn_tensor *end) {
  const kn_attrs_axis last = {.dim = 1};
  kn_tensor *at = column(s, kx_scale(s, c->length, 2)); /* 1-based: of the label; the blank is one more */
  kn_tensor *blank = kx_with2(s, KN_OP_gather, &last, end, kx_plus(s, at, 1));
  kn_tensor *one = at ? kx_number(s, 1, at) : NULL, *some = kx_ge(s, at, one);
  kn_tensor *label = kx_with2(s, KN_OP_gather, &last, end, kx_maximum(s, at, one));
  label = kx_where(s, some, label, label ? kx_number(s, NEVER, label) : NULL);
  return kx_neg(s, kx_select(s, kx_with2(s, KN_OP_logaddexp, NULL, blank, label), 1, 0));
}

static kn_tensor *losses(kn_scope *s, kn_tensor *loss, const ctc *c, const kn_attrs_ctc *a) {
  const kn_ints all = {0};
  if (!loss) return NULL;
  kn_tensor *possible = kx_lt(s, loss, kx_number(s, 1e29, loss));
  loss = kx_where(s, possible, loss, kx_number(s, a->zero_infinity ? 0 : INFINITY, loss));
  if (a->reduction == KN_CHOICE_reduction_none || !loss) return loss;
  if (a->reduction == KN_CHOICE_reduction_sum) return kx_reduce(s, KN_OP_sum, loss, all, false);
  kn_tensor *length = kx_cast(s, c->length, kn_tensor_dtype(loss));
  return kx_reduce(s, KN_OP_mean, kx_div(s, loss, kx_clamp(s, length, 1, INFINITY)), all, false);
}

static bool is_integer(const kn_tensor *t) { return kn_tensor_dtype(t) == KN_I64; }

/* log-probabilities [T,N,C] or [T,C], targets [N,S], or all one behind the other, lengths of inputs and
 * targets [N]. */
static kn_tensor *ctc_loss(kn_scope *s, kn_tensor *const *in, const kn_attrs_ctc *a) {
  const kn_attrs_axis last = {.dim = 2};
  kn_tensor *x = in[0], *t = kx_index(s, in[1]);
  ctc c = {.steps = kx_index(s, in[2]), .length = kx_index(s, in[3])};
  bool alone = x->type.rank == 2;
  if (s->status != KN_OK) return NULL;
  if (!kn_dtype_is_float(kn_tensor_dtype(x)))
    return kx_refuse(s, KN_DTYPE, "floating log-probabilities are needed", x, t);
  if (!is_integer(t) || !is_integer(c.steps) || !is_integer(c.length))
    return kx_refuse(s, KN_DTYPE, "targets and lengths must be int64 or int32", t, c.length);
  if (alone) {
    const kn_ints one = {1, {1}}, row = {2, {1, -1}};
    x = kx_axis(s, KN_OP_unsqueeze, x, 1);
    if (t->type.rank == 1 && kn_tensor_numel(t) != 0) t = kx_reshape(s, t, &row);
    c.steps = kx_reshape(s, c.steps, &one), c.length = kx_reshape(s, c.length, &one);
  }
  if (!x || !t || !c.steps || !c.length) return NULL;
  if (x->type.rank != 3 || t->type.rank < 1 || t->type.rank > 2 || c.steps->type.rank != 1 ||
      c.length->type.rank != 1)
    return kx_refuse(s, KN_SHAPE, "log-probabilities [T,N,C], targets [N,S] and lengths [N] are needed", x,
                     t);
  if (!kx_sizes_known(s, x, 0, 1) || !kx_sizes_known(s, x, 2, 3)) return NULL;
  for (int i = 0; i < 2; i++) {
    int64_t n = (i ? c.length : c.steps)->type.dims[0];
    if (kn_dim_known(n) && kn_dim_known(x->type.dims[1]) && n != x->type.dims[1])
      return kx_refuse(s, KN_SHAPE, "one length for each sample is needed", x, i ? c.length : c.steps);
  }
  if (x->type.dims[0] < 1 || a->blank < 0 || a->blank >= x->type.dims[2])
    return kx_refuse(s, KN_ARG, "there must be a step, and blank must be one of the classes", x, t);
  put_labels(s, &c, t->type.rank == 1 ? as_rows(s, t, c.length) : t, (double)a->blank + 1);
  if (!c.skip) return NULL;
  c.count = x->type.dims[0];
  kn_ints each = {1, {c.count}};
  kn_tensor *at = kx_axis(s, KN_OP_unsqueeze, c.labels, 0);
  kx_put_size(s, -1, &each), kx_put_size(s, -1, &each);
  c.scores = kx_with2(s, KN_OP_gather, &last, x, at ? kx_expand(s, at, &each) : NULL);
  kn_tensor *end = c.scores ? walk(s, &c) : NULL;
  kn_tensor *loss = end ? losses(s, total(s, &c, end), &c, a) : NULL;
  return loss && alone && a->reduction == KN_CHOICE_reduction_none ? kx_select(s, loss, 0, 0) : loss;
}
EXPRESSION(ctc_loss, ctc_loss(s, in, attrs))
