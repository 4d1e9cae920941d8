/* Composites: recurrent networks over whole sequences, and their cells. The input's part of all steps is one
 * product; what depends on the step before is in lstm_layer, gru_layer and rnn_layer. Weights are laid out as
 * in PyTorch, gates one above the other: i f g o, and r z n. lstm   i, f, o = sigmoid, g = tanh of W x + b +
 * V h' + d;  c = f c' + i g;  h = o tanh(c) (Hochreiter and Schmidhuber, 1997, with the forget gate of Gers
 * et al., 2000) gru    r, z = sigmoid of W x + b + V h' + d;  n = tanh(W x + b + r (V h' + d));  h = (1 - z)
 * n + z h' (Cho et al., 2014) rnn    h = tanh or relu of W x + b + V h' + d (Elman, 1990) */
#include "core/composite.h"

typedef enum cell { LSTM, GRU, RNN_TANH, RNN_RELU } cell;
static int states_of(cell c) { return c == LSTM ? 2 : 1; }

/* What an op is given, taken apart. */
typedef struct network {
  cell cell;
  const kn_attrs_rnn *a;
  int directions, per; /* of weights and biases in a direction of a layer */
  bool alone;          /* one sequence without a batch */
  kn_tensor *x, *state[2], *const *params;
} network;

static bool open_network(kn_scope *s, network *w, cell c, kn_tensor *const *in, int n,
                         const kn_attrs_rnn *a) {
  *w = (network){.cell = c, .a = a, .directions = a->bidirectional ? 2 : 1, .per = a->has_biases ? 4 : 2};
  if (a->num_layers < 1 || a->num_layers > KN_MAX_INPUTS)
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "num_layers must be known and lie in 1 to %d", KN_MAX_INPUTS)),
           false;
  int params = (int)a->num_layers * w->directions * w->per, states = n - 1 - params;
  if (states != 0 && states != states_of(c))
    return kx_fail(
               s,
               kn_fail(
                   s->ctx, KN_ARG,
                   "%d weights and biases are needed for %d layer%s%s%s, and before them %d state%s or none; "
                   "there are %d tensors beside the input",
                   params, (int)a->num_layers, a->num_layers == 1 ? "" : "s",
                   a->bidirectional ? " in two directions" : "", a->has_biases ? "" : " without biases",
                   states_of(c), states_of(c) == 1 ? "" : "s", n - 1)),
           false;
  if (!(a->dropout >= 0 && a->dropout <= 1))
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "dropout must lie in [0, 1], not %g", a->dropout)), false;
  w->x = in[0];
  for (int i = 0; i < states; i++) w->state[i] = in[1 + i];
  w->params = in + 1 + states;
  w->alone = w->x->type.rank == 2;
  if (w->x->type.rank != 2 && w->x->type.rank != 3)
    return kx_refuse(s, KN_SHAPE, "a sequence [T,N,I], or [T,I] of one sample, is needed", w->x, NULL), false;
  for (int i = 0; i < states; i++)
    if (w->state[i]->type.rank != w->x->type.rank)
      return kx_refuse(s, KN_SHAPE, "a state must be [layers * directions,N,H], without N for one sample",
                       w->x, w->state[i]),
             false;
  return true;
}

/* The sequence with steps first and a batch, states with a batch. */
static void arrange(kn_scope *s, network *w) {
  if (w->alone) {
    w->x = kx_axis(s, KN_OP_unsqueeze, w->x, 1);
    for (int i = 0; i < 2; i++)
      if (w->state[i]) w->state[i] = kx_axis(s, KN_OP_unsqueeze, w->state[i], 1);
  } else if (w->a->batch_first) {
    w->x = kx_transpose(s, w->x, 0, 1);
  }
  if (w->x && w->x->type.dims[0] == 0) kx_refuse(s, KN_SHAPE, "a sequence has at least one step", w->x, NULL);
  int64_t layers = w->a->num_layers * w->directions;
  for (int i = 0; i < 2; i++)
    if (w->state[i] && kn_dim_known(w->state[i]->type.dims[0]) && w->state[i]->type.dims[0] != layers)
      kx_refuse(s, KN_SHAPE, "a state must have one entry for each layer and direction in dim 1", w->x,
                w->state[i]);
}

/* State k at the start of layer number `at`: zeros [N,H] when none was given. */
static kn_tensor *first_state(kn_scope *s, const network *w, int k, int at, kn_tensor *w_hh) {
  if (w->state[k]) return kx_select(s, w->state[k], 0, at);
  kn_ints sizes = {0};
  kx_put_sizes(s, w->x, 1, 2, &sizes);
  kx_put_sizes(s, w_hh, 1, 2, &sizes);
  return s->status == KN_OK ? kx_expand(s, kx_single(s, 0, w->x), &sizes) : NULL;
}

static bool weights_fit(kn_scope *s, kn_tensor *const *p, int per) {
  if (p[0]->type.rank != 2 || p[1]->type.rank != 2)
    return kx_refuse(s, KN_SHAPE, "the weights w_ih and w_hh must have two dims", p[0], p[1]), false;
  if (per == 4 && (p[2]->type.rank != 1 || p[3]->type.rank != 1))
    return kx_refuse(s, KN_SHAPE, "the biases b_ih and b_hh must have one dim", p[2], p[3]), false;
  return true;
}

/* x times the weight of the input, and the biases that can be added there: a gru's b_hh stands within. */
static kn_tensor *input_part(kn_scope *s, cell c, kn_tensor *x, kn_tensor *const *p, int per) {
  kn_tensor *in[3] = {x, p[0], NULL};
  if (per == 4) in[2] = c == GRU ? p[2] : kx_add(s, p[2], p[3]);
  return kx_apply(s, KN_OP_linear, NULL, in, per == 4 ? 3 : 2);
}

/* The op of one layer in one direction: the states of all steps. */
static void run_layer(kn_scope *s, cell c, kn_tensor *gx, kn_tensor *w_hh, kn_tensor *const *first,
                      kn_tensor *b_hh, bool reverse, kn_tensor **states) {
  kn_attrs_direction way = {.reverse = reverse};
  kn_attrs_rnn_direction kind = {.reverse = reverse,
                                 .nonlinearity = c == RNN_RELU ? KN_CHOICE_nonlinearity_relu
                                                               : KN_CHOICE_nonlinearity_tanh};
  kn_tensor *in[4] = {gx, w_hh, first[0], c == LSTM ? first[1] : b_hh}, *all[3] = {NULL};
  switch (c) {
  case LSTM: kx_apply_all(s, KN_OP_lstm_layer, &way, in, 4, all); break;
  case GRU: kx_apply_all(s, KN_OP_gru_layer, &way, in, b_hh ? 4 : 3, all); break;
  case RNN_TANH:
  case RNN_RELU: kx_apply_all(s, KN_OP_rnn_layer, &kind, in, 3, all); break;
  }
  for (int k = 0; k < states_of(c); k++) states[k] = all[k];
}

/* Layer number `at` (directions counted) on x: h of all steps, and the states at its end. In a scope of its
 * own: there may be many layers. */
static void one_direction(kn_scope *outer, const network *w, kn_tensor *x, int at, kn_tensor **h,
                          kn_tensor **end) {
  kn_scope s;
  bool reverse = at % w->directions == 1;
  kn_tensor *const *p = w->params + at * w->per;
  kn_tensor *first[2] = {NULL}, *states[2] = {NULL}, *results[3] = {NULL}, *made[3];
  int n = states_of(w->cell);
  if (outer->status != KN_OK || !x || !weights_fit(outer, p, w->per)) return;
  kn_scope_open(&s, outer->ctx);
  for (int k = 0; k < n; k++) first[k] = first_state(&s, w, k, at, p[1]);
  kn_tensor *gx = input_part(&s, w->cell, x, p, w->per);
  if (gx) run_layer(&s, w->cell, gx, p[1], first, w->per == 4 ? p[3] : NULL, reverse, states);
  results[0] = states[0];
  for (int k = 0; k < n; k++)
    results[1 + k] = states[k] ? kx_select(&s, states[k], 0, reverse ? 0 : -1) : NULL;
  kn_status st = kn_scope_close_all(&s, results, n + 1, made);
  if (st != KN_OK) {
    kx_fail(outer, st);
    return;
  }
  *h = kx_own(outer, made[0]);
  for (int k = 0; k < n; k++) end[k] = kx_own(outer, made[1 + k]);
}

static kn_status network_of(kn_context *ctx, cell c, const kn_attrs_rnn *a, kn_tensor *const *in, int n,
                            kn_tensor **out) {
  kn_scope scope, *s = &scope;
  kn_tensor *ends[2][KN_MAX_INPUTS], *results[3] = {NULL};
  const kn_attrs_axis_first first = {.dim = 0}, last = {.dim = -1};
  const kn_attrs_dropout drop = {.p = a->dropout, .training = true};
  network w;
  kn_scope_open(s, ctx);
  if (!open_network(s, &w, c, in, n, a)) return kn_scope_close(s, NULL, NULL);
  arrange(s, &w);
  kn_tensor *x = w.x;
  int layers = (int)a->num_layers * w.directions;
  for (int at = 0; at < layers && s->status == KN_OK; at += w.directions) {
    kn_tensor *h[2] = {NULL};
    if (at && a->train && a->dropout > 0) x = kx_with(s, KN_OP_dropout, &drop, x);
    for (int d = 0; d < w.directions; d++) {
      kn_tensor *end[2] = {NULL};
      one_direction(s, &w, x, at + d, &h[d], end);
      for (int k = 0; k < 2; k++) ends[k][at + d] = end[k];
    }
    x = w.directions == 2 ? kx_apply(s, KN_OP_cat, &last, h, 2) : h[0];
  }
  if (s->status == KN_OK)
    results[0] = w.alone ? kx_select(s, x, 1, 0) : a->batch_first ? kx_transpose(s, x, 0, 1) : x;
  for (int k = 0; k < states_of(c) && s->status == KN_OK; k++) {
    results[1 + k] = kx_apply(s, KN_OP_stack, &first, ends[k], layers);
    if (w.alone) results[1 + k] = kx_select(s, results[1 + k], 1, 0);
  }
  return kn_scope_close_all(s, results, 1 + states_of(c), out);
}

COMPOSITE(lstm) { return network_of(ctx, LSTM, attrs, in, n, out); }
COMPOSITE(gru) { return network_of(ctx, GRU, attrs, in, n, out); }
COMPOSITE(rnn_tanh) { return network_of(ctx, RNN_TANH, attrs, in, n, out); }
COMPOSITE(rnn_relu) { return network_of(ctx, RNN_RELU, attrs, in, n, out); }

/* ---- cells: one step ---- */

/* The cell as a layer of one step; samples may lack their dim. `in`: x, states, w_ih, w_hh and maybe two
 * biases. */
static kn_status cell_of(kn_context *ctx, cell c, kn_tensor *const *in, int n, kn_tensor **out) {
  kn_scope scope, *s = &scope;
  int count = states_of(c), per = n - 1 - count;
  kn_tensor *const *p = in + 1 + count, *first[2] = {NULL}, *states[2] = {NULL}, *x = in[0];
  bool alone = x->type.rank == 1;
  kn_scope_open(s, ctx);
  if (per == 3)
    kx_fail(s, kn_fail(ctx, KN_ARG, "both biases are needed, or none"));
  else if (x->type.rank != 1 && x->type.rank != 2)
    kx_refuse(s, KN_SHAPE, "an input [N,I] or [I] is needed", x, NULL);
  else
    weights_fit(s, p, per);
  for (int k = 0; k < count && s->status == KN_OK; k++) {
    if (in[1 + k]->type.rank != x->type.rank)
      kx_refuse(s, KN_SHAPE, "a state must be [N,H], [H] for one sample", x, in[1 + k]);
    first[k] = alone && s->status == KN_OK ? kx_axis(s, KN_OP_unsqueeze, in[1 + k], 0) : in[1 + k];
  }
  for (int d = x->type.rank; d < 3 && s->status == KN_OK; d++) x = kx_axis(s, KN_OP_unsqueeze, x, 0);
  kn_tensor *gx = s->status == KN_OK ? input_part(s, c, x, p, per) : NULL;
  if (gx) run_layer(s, c, gx, p[1], first, per == 4 ? p[3] : NULL, false, states);
  for (int k = 0; k < count && s->status == KN_OK; k++) {
    states[k] = kx_select(s, states[k], 0, 0);
    if (alone) states[k] = kx_select(s, states[k], 0, 0);
  }
  return kn_scope_close_all(s, states, count, out);
}

#define CELL(name, kind)                                                                                     \
  COMPOSITE(name) {                                                                                          \
    (void)attrs;                                                                                             \
    return cell_of(ctx, kind, in, n, out);                                                                   \
  }
CELL(lstm_cell, LSTM)
CELL(gru_cell, GRU)
CELL(rnn_tanh_cell, RNN_TANH)
CELL(rnn_relu_cell, RNN_RELU)
