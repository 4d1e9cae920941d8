/* Gradients of the recurrent layers. Usually one op goes back through all steps; when the gradient must
 * itself be differentiated, and the number of steps is known, they are taken one by one in ops that have
 * gradients. What flows to the recurrent weight is then one product over all steps. The equations are in
 * core/composite_rnn.c. */
#include "core/composite.h"
#include "core/grad/vjp.h"

enum { GROUP = KN_MAX_INPUTS, MOST_STEPS = GROUP * GROUP };

static bool reversed(const kn_vjp *v) {
  return kn_ops[v->op].attrs == KN_ATTRS_direction ? ((const kn_attrs_direction *)v->attrs)->reverse
                                                   : ((const kn_attrs_rnn_direction *)v->attrs)->reverse;
}

/* The gradient of result i, zeros when there is none. */
static kn_tensor *flowing(kn_vjp *v, int i) {
  return v->gout[i] ? v->gout[i] : kx_full_like(v->s, kv_out(v, i), 0);
}

/* ---- over all steps at once ---- */

/* The states before each step: all of `states` but the one after the last step, and the first one. */
static kn_tensor *states_before(kn_vjp *v, kn_tensor *states, kn_tensor *first) {
  const kn_attrs_axis_first along = {.dim = 0};
  kn_tensor *start = kx_axis(v->s, KN_OP_unsqueeze, first, 0);
  if (reversed(v)) {
    kn_tensor *rest = kx_slice(v->s, states, 0, 1, KN_TO_END, 1);
    return kx_apply(v->s, KN_OP_cat, &along, (kn_tensor *[]){rest, start}, 2);
  }
  kn_tensor *rest = kx_slice(v->s, states, 0, 0, -1, 1);
  return kx_apply(v->s, KN_OP_cat, &along, (kn_tensor *[]){start, rest}, 2);
}

static kn_tensor *rows(kn_vjp *v, kn_tensor *t) {
  const kn_attrs_flatten both = {.start_dim = 0, .end_dim = 1};
  return kx_with(v->s, KN_OP_flatten, &both, t);
}

/* Of the recurrent weight, from the gradients of its products. */
static kn_tensor *weight_gradient(kn_vjp *v, kn_tensor *g, kn_tensor *states, kn_tensor *first) {
  if (!g || !states || !first) return NULL;
  return kx_matmul(v->s, kx_transpose(v->s, rows(v, g), 0, 1), rows(v, states_before(v, states, first)));
}

/* ---- step by step ---- */

/* A step back: from the tensors of all steps, and the gradients of the state (h, c) that come from the step
 * that follows, what is collected for each step (one or two) and the gradients for the step before. */
typedef struct back {
  kn_vjp *v;
  int64_t t, units;
  kn_tensor *before;   /* the state before: c of an lstm, h of a gru */
  kn_tensor *next[2];  /* in and out; NULL: zero */
  kn_tensor *found[2]; /* out */
} back;
typedef void (*back_fn)(kn_scope *s, back *b);

static bool by_steps(kn_vjp *v) {
  const kn_type *t = &v->out[0]->type;
  return v->s->ctx->grad_enabled && kn_type_known(t) && t->dims[0] <= MOST_STEPS;
}

/* n tensors of one shape stacked, in groups if need be. They are released. */
static kn_tensor *stacked(kn_scope *s, kn_tensor **list, int64_t n) {
  const kn_attrs_axis_first first = {.dim = 0};
  kn_tensor *group[GROUP];
  int groups = 0;
  for (int64_t i = 0; i < n; i += GROUP)
    group[groups++] = kx_apply(s, KN_OP_stack, &first, list + i, (int)(n - i < GROUP ? n - i : GROUP));
  for (int64_t i = 0; i < n; i++) kn_tensor_release(list[i]);
  return kx_apply(s, KN_OP_cat, &first, group, groups);
}

/* Replaces what *keep owns by t, which lives in a scope about to be closed. */
static void hold(kn_tensor **keep, kn_tensor *t) {
  if (t) kn_tensor_retain(t);
  kn_tensor_release(*keep);
  *keep = t;
}

static void one_step(kn_vjp *v, back_fn fn, int64_t t, kn_tensor *before, kn_tensor *next[2],
                     kn_tensor *found[2]) {
  kn_scope s;
  kn_scope_open(&s, v->s->ctx);
  back b = {.v = v,
            .t = t,
            .units = v->out[0]->type.dims[2],
            .before = kx_select(&s, before, 0, t),
            .next = {next[0], next[1]}};
  fn(&s, &b);
  for (int k = 0; k < 2 && s.status == KN_OK; k++) {
    hold(&next[k], b.next[k]);
    found[k] = b.found[k] ? kn_tensor_retain(b.found[k]) : NULL;
  }
  kn_status st = kn_scope_close(&s, NULL, NULL);
  if (st != KN_OK) kx_fail(v->s, st);
}

/* All steps, last first. all[k] gets what was found, stacked; first[k] the gradients of the first states. */
static void steps_back(kn_vjp *v, back_fn fn, int kinds, kn_tensor *before, kn_tensor *all[2],
                       kn_tensor *first[2]) {
  int64_t steps = v->out[0]->type.dims[0], done = 0;
  size_t bytes = (size_t)(2 * steps + 1) * sizeof(kn_tensor *);
  kn_tensor **list = kn_alloc(v->s->ctx->heap, bytes), *next[2] = {NULL, NULL};
  if (!list) {
    kx_fail(v->s, kn_fail_nomem(v->s->ctx, bytes));
    return;
  }
  memset(list, 0, bytes);
  for (; done < steps && v->s->status == KN_OK; done++) {
    int64_t t = reversed(v) ? done : steps - 1 - done;
    kn_tensor *found[2] = {NULL, NULL};
    one_step(v, fn, t, before, next, found);
    list[t] = found[0], list[steps + t] = found[1];
  }
  for (int k = 0; k < kinds; k++) {
    if (v->s->status == KN_OK && steps)
      all[k] = stacked(v->s, list + k * steps, steps);
    else
      for (int64_t i = 0; i < steps; i++) kn_tensor_release(list[k * steps + i]);
  }
  for (int k = 0; k < 2; k++) first[k] = next[k] ? kx_own(v->s, next[k]) : NULL;
  kn_free(v->s->ctx->heap, list, bytes);
}

static kn_tensor *plus(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  return a && b ? kx_add(s, a, b) : a ? a : b;
}
static kn_tensor *one_minus(kn_scope *s, kn_tensor *x) { return kx_plus(s, kx_neg(s, x), 1); }
/* g x (1 - x), and g (1 - x²): through a sigmoid and a tanh. */
static kn_tensor *through_sigmoid(kn_scope *s, kn_tensor *g, kn_tensor *x) {
  return kx_mul(s, g, kx_mul(s, x, one_minus(s, x)));
}
static kn_tensor *through_tanh(kn_scope *s, kn_tensor *g, kn_tensor *x) {
  return kx_mul(s, g, one_minus(s, kx_mul(s, x, x)));
}

/* Gate k of this step in a tensor of all steps, which may be NULL. */
static kn_tensor *gate(kn_scope *s, const back *b, kn_tensor *all, int k) {
  if (!all) return NULL;
  return kx_slice(s, kx_select(s, all, 0, b->t), -1, k * b->units, (k + 1) * b->units, 1);
}

static kn_tensor *joined(kn_scope *s, kn_tensor **part, int n) {
  const kn_attrs_axis_first last = {.dim = -1};
  return kx_apply(s, KN_OP_cat, &last, part, n);
}

/* The gradient of result i at this step, and what comes from the step that follows. */
static kn_tensor *arriving(kn_scope *s, const back *b, int i, kn_tensor *next) {
  kn_tensor *g = b->v->gout[i];
  if (g) g = kx_select(s, g, 0, b->t);
  g = plus(s, g, next);
  return g ? g : kx_full_like(s, kx_select(s, kv_out(b->v, i), 0, b->t), 0);
}

/* ---- lstm ---- */

static void lstm_back(kn_scope *s, back *b) {
  kn_tensor *gates = kv_out(b->v, 2), *gg = b->v->gout[2], *x[4];
  for (int k = 0; k < 4; k++) x[k] = gate(s, b, gates, k);
  kn_tensor *tc = kx_tanh(s, kx_select(s, kv_out(b->v, 1), 0, b->t));
  kn_tensor *dh = arriving(s, b, 0, b->next[0]);
  kn_tensor *dc = kx_add(s, arriving(s, b, 1, b->next[1]), through_tanh(s, kx_mul(s, dh, x[3]), tc));
  kn_tensor *d[4] = {kx_mul(s, dc, x[2]), kx_mul(s, dc, b->before), kx_mul(s, dc, x[0]), kx_mul(s, dh, tc)};
  for (int k = 0; k < 4; k++) {
    d[k] = plus(s, d[k], gate(s, b, gg, k));
    d[k] = k == 2 ? through_tanh(s, d[k], x[k]) : through_sigmoid(s, d[k], x[k]);
  }
  b->found[0] = joined(s, d, 4);
  b->next[0] = kx_matmul(s, b->found[0], kv_in(b->v, 1));
  b->next[1] = kx_mul(s, dc, x[1]);
}

void kn_vjp_lstm_layer(kn_vjp *v) {
  kn_tensor *w = kv_in(v, 1), *h0 = kv_in(v, 2), *c0 = kv_in(v, 3), *h = kv_out(v, 0), *c = kv_out(v, 1);
  kn_tensor *g[3] = {NULL}, *all[2] = {NULL}, *first[2] = {NULL};
  if (by_steps(v)) {
    steps_back(v, lstm_back, 1, states_before(v, c, c0), all, first);
    g[0] = all[0], g[1] = first[0], g[2] = first[1];
  } else {
    kn_tensor *in[] = {kv_out(v, 2), c, w, c0, flowing(v, 0), flowing(v, 1), v->gout[2]};
    kx_apply_all(v->s, KN_OP_lstm_layer_grad, v->attrs, in, v->gout[2] ? 7 : 6, g);
  }
  v->gin[0] = g[0], v->gin[2] = g[1], v->gin[3] = g[2];
  if (v->need[1]) v->gin[1] = weight_gradient(v, g[0], h, h0);
}

/* ---- gru ---- */

static void gru_back(kn_scope *s, back *b) {
  kn_tensor *gates = kv_out(b->v, 1), *gg = b->v->gout[1], *x[4];
  for (int k = 0; k < 4; k++) x[k] = gate(s, b, gates, k);
  kn_tensor *dh = arriving(s, b, 0, b->next[0]);
  kn_tensor *dz = kx_mul(s, dh, kx_sub(s, b->before, x[2])), *dn = kx_mul(s, dh, one_minus(s, x[1]));
  dz = through_sigmoid(s, plus(s, dz, gate(s, b, gg, 1)), x[1]);
  dn = through_tanh(s, plus(s, dn, gate(s, b, gg, 2)), x[2]);
  kn_tensor *dr = through_sigmoid(s, plus(s, kx_mul(s, dn, x[3]), gate(s, b, gg, 0)), x[0]);
  kn_tensor *dv = plus(s, kx_mul(s, dn, x[0]), gate(s, b, gg, 3));
  b->found[0] = joined(s, (kn_tensor *[]){dr, dz, dn}, 3);
  b->found[1] = joined(s, (kn_tensor *[]){dr, dz, dv}, 3);
  b->next[0] = kx_add(s, kx_mul(s, dh, x[1]), kx_matmul(s, b->found[1], kv_in(b->v, 1)));
}

void kn_vjp_gru_layer(kn_vjp *v) {
  kn_tensor *w = kv_in(v, 1), *h0 = kv_in(v, 2), *h = kv_out(v, 0);
  kn_tensor *g[3] = {NULL}, *first[2] = {NULL};
  if (by_steps(v)) {
    steps_back(v, gru_back, 2, states_before(v, h, h0), g, first);
    g[2] = first[0];
  } else {
    kn_tensor *in[] = {kv_out(v, 1), h, w, h0, flowing(v, 0), v->gout[1]};
    kx_apply_all(v->s, KN_OP_gru_layer_grad, v->attrs, in, v->gout[1] ? 6 : 5, g);
  }
  v->gin[0] = g[0], v->gin[2] = g[2];
  if (v->need[1]) v->gin[1] = weight_gradient(v, g[1], h, h0);
  if (v->n > 3 && v->need[3] && g[1]) v->gin[3] = kx_sum(v->s, g[1], &(kn_ints){2, {0, 1}}, false);
}

/* ---- rnn ---- */

static void rnn_back(kn_scope *s, back *b) {
  const kn_attrs_rnn_direction *a = b->v->attrs;
  kn_tensor *h = kx_select(s, kv_out(b->v, 0), 0, b->t), *dh = arriving(s, b, 0, b->next[0]);
  if (a->nonlinearity == KN_CHOICE_nonlinearity_relu)
    b->found[0] = kx_where(s, kx_gt(s, h, kx_number(s, 0, h)), dh, kx_number(s, 0, dh));
  else
    b->found[0] = through_tanh(s, dh, h);
  b->next[0] = kx_matmul(s, b->found[0], kv_in(b->v, 1));
}

void kn_vjp_rnn_layer(kn_vjp *v) {
  kn_tensor *w = kv_in(v, 1), *h0 = kv_in(v, 2), *h = kv_out(v, 0);
  kn_tensor *g[2] = {NULL}, *all[2] = {NULL}, *first[2] = {NULL};
  if (by_steps(v)) {
    steps_back(v, rnn_back, 1, h, all, first);
    g[0] = all[0], g[1] = first[0];
  } else {
    kx_apply_all(v->s, KN_OP_rnn_layer_grad, v->attrs, (kn_tensor *[]){h, w, flowing(v, 0)}, 3, g);
  }
  v->gin[0] = g[0], v->gin[2] = g[1];
  if (v->need[1]) v->gin[1] = weight_gradient(v, g[0], h, h0);
}
