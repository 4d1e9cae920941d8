/* Recurrent layers in one direction, and their gradients: step by step, a product with the recurrent weight,
 * by whatever kernel of matmul the device has, and then a pass over the units, which are independent. */
#include "core/device.h"
#include "core/kernels/kernel.h"
#include <math.h>

/* What all cells share. Pointers that move are to the elements of one step. */
typedef struct layer {
  int64_t steps, n, h, gates; /* gates: how many products with w_hh a unit has */
  bool reverse, relu;
  kn_tensor *weight;      /* as the product wants it: [H, gates H] forward, [gates H, H] backward */
  kn_tensor *from, *part; /* operand and result of the product */
  void *sum, *sum2;       /* backward: gradients of h and c that come from the step that follows */
  const void *in[7], *bias;
  void *out[3];
  const void *before_h, *before_c; /* the states before this step */
  int64_t at;                      /* the step */
} layer;

static int64_t step_at(const layer *l, int64_t i) { return l->reverse ? l->steps - 1 - i : i; }

/* ---- the product of a step ---- */

/* One dim fewer, on t's storage: a step of t, to be moved by its offset. */
static kn_status step_of(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_tensor *v;
  KN_TRY(kn_tensor_alias(ctx, t, &v));
  v->type.rank--;
  for (int d = 0; d < v->type.rank; d++)
    v->type.dims[d] = t->type.dims[d + 1], v->strides[d] = t->strides[d + 1];
  *out = v;
  return KN_OK;
}

static kn_status product(kn_context *ctx, layer *l) {
  return kn_device_run(ctx, KN_OP_matmul, NULL, (kn_tensor *[]){l->from, l->weight}, 2, &l->part, NULL);
}

static kn_status scratch(kn_context *ctx, kn_dtype dtype, int64_t rows, int64_t columns, kn_tensor **out) {
  kn_type type = {.dtype = (uint8_t)dtype, .rank = 2, .dims = {rows, columns}};
  return kn_tensor_new(ctx, &type, out);
}

/* w turned round and laid out anew, once for all steps. */
static kn_status turned(kn_context *ctx, kn_tensor *w, kn_tensor **out) {
  kn_tensor *t;
  KN_TRY(kn_tensor_alias(ctx, w, &t));
  t->type.dims[0] = w->type.dims[1], t->type.dims[1] = w->type.dims[0];
  t->strides[0] = w->strides[1], t->strides[1] = w->strides[0];
  kn_status st = kk_contiguous(ctx, t, out);
  kn_tensor_release(t);
  return st;
}

/* ---- passes over the units [begin, end) of a step ---- */

#define SIGMOID_F32(x) (1 / (1 + expf(-(x))))
#define SIGMOID_F64(x) (1 / (1 + exp(-(x))))
#define TANH_F32(x) tanhf(x)
#define TANH_F64(x) tanh(x)

#define PASS(name)                                                                                           \
  static void name(void *ud, int64_t begin, int64_t end) {                                                   \
    const layer *l = ud;                                                                                     \
    const int64_t h = l->h, all = l->n * h;                                                                  \
    for (int64_t i = begin; i < end; i++) {                                                                  \
      const int64_t row = i / h, j = i % h, at = l->at * all + i;
#define END_PASS                                                                                             \
  }                                                                                                          \
  }

/* Element j of gate k of a row: of `of` gates side by side, in a tensor of all steps or of one. */
#define GATE(of, k) ((l->at * l->n + row) * (of)*h + (k)*h + j)
#define HERE(of, k) (row * (of)*h + (k)*h + j)

/* i, f, o are sigmoids and g a tanh; c = f c' + i g, h = o tanh(c). */
#define LSTM(T, E)                                                                                           \
  PASS(lstm_##E)                                                                                             \
  const T *gx = l->in[0], *part = kn_tensor_data(l->part), *c0 = l->before_c;                                \
  T *hs = l->out[0], *cs = l->out[1], *gates = l->out[2];                                                    \
  const T in = SIGMOID_##E(gx[GATE(4, 0)] + part[HERE(4, 0)]);                                               \
  const T keep = SIGMOID_##E(gx[GATE(4, 1)] + part[HERE(4, 1)]);                                             \
  const T g = TANH_##E(gx[GATE(4, 2)] + part[HERE(4, 2)]);                                                   \
  const T o = SIGMOID_##E(gx[GATE(4, 3)] + part[HERE(4, 3)]);                                                \
  cs[at] = keep * c0[i] + in * g;                                                                            \
  hs[at] = o * TANH_##E(cs[at]);                                                                             \
  gates[GATE(4, 0)] = in, gates[GATE(4, 1)] = keep, gates[GATE(4, 2)] = g, gates[GATE(4, 3)] = o;            \
  END_PASS                                                                                                   \
  PASS(lstm_grad_##E)                                                                                        \
  const T *gates = l->in[0], *c = l->in[1], *gh = l->in[4], *gc = l->in[5], *gg = l->in[6],                  \
          *c0 = l->before_c;                                                                                 \
  T *to = l->out[0], *dh_next = l->sum, *dc_next = l->sum2;                                                  \
  const T in = gates[GATE(4, 0)], keep = gates[GATE(4, 1)], g = gates[GATE(4, 2)], o = gates[GATE(4, 3)];    \
  const T tc = TANH_##E(c[at]), dh = gh[at] + dh_next[i];                                                    \
  const T dc = gc[at] + dc_next[i] + dh * o * (1 - tc * tc);                                                 \
  T di = dc * g, df = dc * c0[i], dg = dc * in, d_o = dh * tc;                                               \
  if (gg) di += gg[GATE(4, 0)], df += gg[GATE(4, 1)], dg += gg[GATE(4, 2)], d_o += gg[GATE(4, 3)];           \
  to[GATE(4, 0)] = di * in * (1 - in), to[GATE(4, 1)] = df * keep * (1 - keep);                              \
  to[GATE(4, 2)] = dg * (1 - g * g), to[GATE(4, 3)] = d_o * o * (1 - o);                                     \
  dc_next[i] = dc * keep, dh_next[i] = 0;                                                                    \
  END_PASS
KK_FLOATS(LSTM)

/* r and z are sigmoids, n = tanh(x + r v) with v the state's part; h = (1 - z) n + z h'. */
#define GRU(T, E)                                                                                            \
  PASS(gru_##E)                                                                                              \
  const T *gx = l->in[0], *part = kn_tensor_data(l->part), *b = l->bias, *h0 = l->before_h;                  \
  T *hs = l->out[0], *gates = l->out[1];                                                                     \
  const T b0 = b ? b[j] : 0, b1 = b ? b[h + j] : 0, b2 = b ? b[2 * h + j] : 0;                               \
  const T r = SIGMOID_##E(gx[GATE(3, 0)] + part[HERE(3, 0)] + b0);                                           \
  const T z = SIGMOID_##E(gx[GATE(3, 1)] + part[HERE(3, 1)] + b1);                                           \
  const T v = part[HERE(3, 2)] + b2, n = TANH_##E(gx[GATE(3, 2)] + r * v);                                   \
  hs[at] = (1 - z) * n + z * h0[i];                                                                          \
  gates[GATE(4, 0)] = r, gates[GATE(4, 1)] = z, gates[GATE(4, 2)] = n, gates[GATE(4, 3)] = v;                \
  END_PASS                                                                                                   \
  PASS(gru_grad_##E)                                                                                         \
  const T *gates = l->in[0], *gh = l->in[4], *gg = l->in[5], *h0 = l->before_h;                              \
  T *to_x = l->out[0], *to_h = l->out[1], *dh_next = l->sum;                                                 \
  const T r = gates[GATE(4, 0)], z = gates[GATE(4, 1)], n = gates[GATE(4, 2)], v = gates[GATE(4, 3)];        \
  const T dh = gh[at] + dh_next[i];                                                                          \
  T dz = dh * (h0[i] - n), dn = dh * (1 - z);                                                                \
  if (gg) dz += gg[GATE(4, 1)], dn += gg[GATE(4, 2)];                                                        \
  dn *= 1 - n * n;                                                                                           \
  T dr = dn * v, dv = dn * r;                                                                                \
  if (gg) dr += gg[GATE(4, 0)], dv += gg[GATE(4, 3)];                                                        \
  to_x[GATE(3, 0)] = to_h[GATE(3, 0)] = dr * r * (1 - r);                                                    \
  to_x[GATE(3, 1)] = to_h[GATE(3, 1)] = dz * z * (1 - z);                                                    \
  to_x[GATE(3, 2)] = dn, to_h[GATE(3, 2)] = dv;                                                              \
  dh_next[i] = dh * z;                                                                                       \
  END_PASS
KK_FLOATS(GRU)

#define RNN(T, E)                                                                                            \
  PASS(rnn_##E)                                                                                              \
  const T *gx = l->in[0], *part = kn_tensor_data(l->part);                                                   \
  const T x = gx[at] + part[i];                                                                              \
  ((T *)l->out[0])[at] = l->relu ? (x > 0 || x != x ? x : 0) : TANH_##E(x);                                  \
  (void)row, (void)j;                                                                                        \
  END_PASS                                                                                                   \
  PASS(rnn_grad_##E)                                                                                         \
  const T *hs = l->in[0], *gh = l->in[2];                                                                    \
  T *dh_next = l->sum;                                                                                       \
  const T y = hs[at], dh = gh[at] + dh_next[i];                                                              \
  ((T *)l->out[0])[at] = l->relu ? (y > 0 ? dh : 0) : dh * (1 - y * y);                                      \
  dh_next[i] = 0;                                                                                            \
  (void)row, (void)j;                                                                                        \
  END_PASS
KK_FLOATS(RNN)

typedef kn_range_fn pass_fn[KN_DTYPE_COUNT];
#define ROW(name)                                                                                            \
  { [KN_F32] = name##_F32, [KN_F64] = name##_F64 }
enum { UNITS = 1024 }; /* of a thread: each costs some exponentials */

/* ---- the walks ---- */

static const void *at_step(const kn_tensor *t, int64_t step) { /* of a contiguous tensor [T,N,*] */
  int64_t size = t->type.dims[1] * t->type.dims[2] * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
  return (const char *)kn_tensor_data(t) + step * size;
}

/* From the first step to the last: before a step, h is h0 or what the step before wrote. */
static kn_status walk(kn_context *ctx, layer *l, const pass_fn pass, kn_tensor *h, kn_tensor *h0,
                      kn_tensor *c, kn_tensor *c0) {
  kn_tensor *before = NULL;
  KN_TRY(step_of(ctx, h, &before));
  kn_status st = KN_OK;
  for (int64_t i = 0; i < l->steps && st == KN_OK; i++) {
    int64_t last = i ? step_at(l, i - 1) : 0;
    l->at = step_at(l, i);
    before->offset = h->offset + last * l->n * l->h;
    l->from = i ? before : h0;
    l->before_h = i ? at_step(h, last) : kn_tensor_data(h0);
    l->before_c = !c ? NULL : i ? at_step(c, last) : kn_tensor_data(c0);
    st = product(ctx, l);
    if (st == KN_OK) kn_parallel_for(ctx, l->n * l->h, UNITS, pass[kn_tensor_dtype(h)], l);
  }
  kn_tensor_release(before);
  return st;
}

#define ADD(T, E)                                                                                            \
  static void add_##E(void *to, const void *from, int64_t n) {                                               \
    T *a = to;                                                                                               \
    const T *b = from;                                                                                       \
    for (int64_t i = 0; i < n; i++) a[i] += b[i];                                                            \
  }
KK_FLOATS(ADD)

/* From the last step to the first. `g` [T,N,gates H] is what a pass writes and the product then reads; h, c:
 * the states after each step, where the pass reads those before it. What is left in l->sum is the gradient of
 * h0. */
static kn_status walk_back(kn_context *ctx, layer *l, const pass_fn pass, kn_tensor *g, kn_tensor *h,
                           kn_tensor *h0, kn_tensor *c, kn_tensor *c0) {
  static void (*const add[KN_DTYPE_COUNT])(void *, const void *,
                                           int64_t) = {[KN_F32] = add_F32, [KN_F64] = add_F64};
  kn_dtype dtype = kn_tensor_dtype(g);
  kn_tensor *now = NULL;
  KN_TRY(step_of(ctx, g, &now));
  kn_status st = KN_OK;
  for (int64_t i = l->steps; i-- > 0 && st == KN_OK;) {
    int64_t last = i ? step_at(l, i - 1) : 0;
    l->at = step_at(l, i);
    l->before_h = !h ? NULL : i ? at_step(h, last) : kn_tensor_data(h0);
    l->before_c = !c ? NULL : i ? at_step(c, last) : kn_tensor_data(c0);
    kn_parallel_for(ctx, l->n * l->h, UNITS, pass[dtype], l);
    now->offset = g->offset + l->at * l->n * l->gates * l->h;
    l->from = now;
    st = product(ctx, l);
    if (st == KN_OK) add[dtype](l->sum, kn_tensor_data(l->part), l->n * l->h);
  }
  kn_tensor_release(now);
  return st;
}

/* ---- the kernels ---- */

/* Sizes and layouts: `x` is [T,N,gates H], as[] the inputs contiguous, weight number w turned if so wanted.
 */
static kn_status open_layer(kn_context *ctx, layer *l, const kn_type *x, int64_t gates, kn_tensor *const *in,
                            int n, int w, bool turn, kn_tensor **as) {
  l->steps = x->dims[0], l->n = x->dims[1], l->gates = gates;
  l->h = in[w]->type.dims[1];
  kn_status st = kk_contiguous_all(ctx, in, n, as);
  if (st != KN_OK) {
    memset(as, 0, (size_t)n * sizeof *as); /* nothing to release */
    return st;
  }
  for (int i = 0; i < n; i++) l->in[i] = kn_tensor_data(as[i]);
  st = turn ? turned(ctx, as[w], &l->weight) : KN_OK;
  if (st == KN_OK && !turn) l->weight = kn_tensor_retain(as[w]);
  if (st == KN_OK) st = scratch(ctx, (kn_dtype)x->dtype, l->n, turn ? gates * l->h : l->h, &l->part);
  return st;
}

static void close_layer(layer *l, kn_tensor **as, int n) {
  kn_tensor_release(l->weight);
  kn_tensor_release(l->part);
  kk_release_all(as, n);
}

WIDE_KERNEL(lstm_layer) {
  static const pass_fn pass = ROW(lstm);
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_tensor *as[4] = {NULL};
  kn_status st = open_layer(ctx, &l, &in[0]->type, 4, in, n, 1, true, as);
  for (int i = 0; i < 3; i++) l.out[i] = kn_tensor_data(out[i]);
  if (st == KN_OK) st = walk(ctx, &l, pass, out[0], as[2], out[1], as[3]);
  close_layer(&l, as, n);
  return st;
}

WIDE_KERNEL(lstm_layer_grad) { /* gates, c, w_hh, c0, g_h, g_c, g_gates */
  static const pass_fn pass = ROW(lstm_grad);
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_tensor *as[7] = {NULL};
  kn_status st = open_layer(ctx, &l, &in[0]->type, 4, in, n, 2, false, as);
  kk_zero(ctx, out[1]), kk_zero(ctx, out[2]);
  l.out[0] = kn_tensor_data(out[0]), l.sum = kn_tensor_data(out[1]), l.sum2 = kn_tensor_data(out[2]);
  if (st == KN_OK) st = walk_back(ctx, &l, pass, out[0], NULL, NULL, as[1], as[3]);
  close_layer(&l, as, n);
  return st;
}

WIDE_KERNEL(gru_layer) {
  static const pass_fn pass = ROW(gru);
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_tensor *as[4] = {NULL};
  kn_status st = open_layer(ctx, &l, &in[0]->type, 3, in, n, 1, true, as);
  l.bias = l.in[3];
  for (int i = 0; i < 2; i++) l.out[i] = kn_tensor_data(out[i]);
  if (st == KN_OK) st = walk(ctx, &l, pass, out[0], as[2], NULL, NULL);
  close_layer(&l, as, n);
  return st;
}

WIDE_KERNEL(gru_layer_grad) { /* gates, h, w_hh, h0, g_h, g_gates */
  static const pass_fn pass = ROW(gru_grad);
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_tensor *as[6] = {NULL};
  kn_status st = open_layer(ctx, &l, &in[0]->type, 3, in, n, 2, false, as);
  kk_zero(ctx, out[2]);
  l.out[0] = kn_tensor_data(out[0]), l.out[1] = kn_tensor_data(out[1]), l.sum = kn_tensor_data(out[2]);
  if (st == KN_OK) st = walk_back(ctx, &l, pass, out[1], as[1], as[3], NULL, NULL);
  close_layer(&l, as, n);
  return st;
}

static bool is_relu(const kn_attrs_rnn_direction *a) {
  return a->nonlinearity == KN_CHOICE_nonlinearity_relu;
}

WIDE_KERNEL(rnn_layer) {
  static const pass_fn pass = ROW(rnn);
  layer l = {.reverse = ((const kn_attrs_rnn_direction *)attrs)->reverse, .relu = is_relu(attrs)};
  kn_tensor *as[3] = {NULL};
  kn_status st = open_layer(ctx, &l, &in[0]->type, 1, in, n, 1, true, as);
  l.out[0] = kn_tensor_data(out[0]);
  if (st == KN_OK) st = walk(ctx, &l, pass, out[0], as[2], NULL, NULL);
  close_layer(&l, as, n);
  return st;
}

WIDE_KERNEL(rnn_layer_grad) { /* h, w_hh, g_h */
  static const pass_fn pass = ROW(rnn_grad);
  layer l = {.reverse = ((const kn_attrs_rnn_direction *)attrs)->reverse, .relu = is_relu(attrs)};
  kn_tensor *as[3] = {NULL};
  kn_status st = open_layer(ctx, &l, &in[0]->type, 1, in, n, 1, false, as);
  kk_zero(ctx, out[1]);
  l.out[0] = kn_tensor_data(out[0]), l.sum = kn_tensor_data(out[1]);
  if (st == KN_OK) st = walk_back(ctx, &l, pass, out[0], NULL, NULL, NULL, NULL);
  close_layer(&l, as, n);
  return st;
}
