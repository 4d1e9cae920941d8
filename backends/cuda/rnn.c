/* Recurrent layers in one direction, and their gradients, as core/kernels/rnn.c has them: step by step a
 * product with the recurrent weight, by the device's kernel of matmul, and a pass over the units. Halves are
 * computed in float32. */
#include "backends/cuda/entries.h"
#include "backends/cuda/program.h"
#include "backends/cuda/work.h"
#include "core/device.h"

/* Sums are the gradients of h and c that come from the step that follows. */
CU_ARGUMENT(cell, {
  const void *in[7];
  void *out[3];
  const void *part;
  const void *before_h;
  const void *before_c;
  void *sum;
  void *sum2;
  i64 at;
  i64 n;
  i64 h;
  i32 relu;
});

/* Element j of gate k of a row: of `of` gates side by side, in a tensor of all steps or of one. */
static const char gates_text[] =
    "#define GATE(of, k) (((q.at * q.n + row) * (of) + (k)) * q.h + j)\n"
    "#define HERE(of, k) ((row * (of) + (k)) * q.h + j)\n"
    "#define UNITS(i) EACH(i, q.n * q.h)\n"
    "#define PLACE const i64 row = i / q.h, j = i % q.h, at = q.at * q.n * q.h + i\n"
    "#define SIGMOID(x) (1 / (1 + EXP(-(x))))\n";
static const char floats[] = "#define EXP(x) expf(x)\n#define TANH(x) tanhf(x)\n";
static const char doubles[] = "#define EXP(x) exp(x)\n#define TANH(x) tanh(x)\n";

/* clang-format off */
static const char lstm_source[] = CU_SOURCE(
    KERNEL(256, lstm)(cell q) {
      const E *gx = (const E *)q.in[0], *part = (const E *)q.part, *c0 = (const E *)q.before_c;
      E *hs = (E *)q.out[0], *cs = (E *)q.out[1], *gates = (E *)q.out[2];
      UNITS(i) {
        PLACE;
        E in = SIGMOID(gx[GATE(4, 0)] + part[HERE(4, 0)]), keep = SIGMOID(gx[GATE(4, 1)] + part[HERE(4, 1)]);
        E g = TANH(gx[GATE(4, 2)] + part[HERE(4, 2)]), o = SIGMOID(gx[GATE(4, 3)] + part[HERE(4, 3)]);
        E c = keep * c0[i] + in * g;
        cs[at] = c;
        hs[at] = o * TANH(c);
        gates[GATE(4, 0)] = in;
        gates[GATE(4, 1)] = keep;
        gates[GATE(4, 2)] = g;
        gates[GATE(4, 3)] = o;
      }
    }
    KERNEL(256, lstm_grad)(cell q) {
      const E *gates = (const E *)q.in[0], *c = (const E *)q.in[1], *gh = (const E *)q.in[4];
      const E *gc = (const E *)q.in[5], *gg = (const E *)q.in[6], *c0 = (const E *)q.before_c;
      E *to = (E *)q.out[0], *dh_next = (E *)q.sum, *dc_next = (E *)q.sum2;
      UNITS(i) {
        PLACE;
        E in = gates[GATE(4, 0)], keep = gates[GATE(4, 1)], g = gates[GATE(4, 2)], o = gates[GATE(4, 3)];
        E tc = TANH(c[at]), dh = gh[at] + dh_next[i], dc = gc[at] + dc_next[i] + dh * o * (1 - tc * tc);
        E di = dc * g, df = dc * c0[i], dg = dc * in, d_o = dh * tc;
        if (gg) {
          di += gg[GATE(4, 0)];
          df += gg[GATE(4, 1)];
          dg += gg[GATE(4, 2)];
          d_o += gg[GATE(4, 3)];
        }
        to[GATE(4, 0)] = di * in * (1 - in);
        to[GATE(4, 1)] = df * keep * (1 - keep);
        to[GATE(4, 2)] = dg * (1 - g * g);
        to[GATE(4, 3)] = d_o * o * (1 - o);
        dc_next[i] = dc * keep;
        dh_next[i] = 0;
      }
    });
/* clang-format on */

/* clang-format off */
static const char gru_source[] = CU_SOURCE(
    KERNEL(256, gru)(cell q) {
      const E *gx = (const E *)q.in[0], *part = (const E *)q.part, *b = (const E *)q.in[3];
      const E *h0 = (const E *)q.before_h;
      E *hs = (E *)q.out[0], *gates = (E *)q.out[1];
      UNITS(i) {
        PLACE;
        E r = SIGMOID(gx[GATE(3, 0)] + part[HERE(3, 0)] + (b ? b[j] : 0));
        E z = SIGMOID(gx[GATE(3, 1)] + part[HERE(3, 1)] + (b ? b[q.h + j] : 0));
        E v = part[HERE(3, 2)] + (b ? b[2 * q.h + j] : 0), n = TANH(gx[GATE(3, 2)] + r * v);
        hs[at] = (1 - z) * n + z * h0[i];
        gates[GATE(4, 0)] = r;
        gates[GATE(4, 1)] = z;
        gates[GATE(4, 2)] = n;
        gates[GATE(4, 3)] = v;
      }
    }
    KERNEL(256, gru_grad)(cell q) {
      const E *gates = (const E *)q.in[0], *gh = (const E *)q.in[4], *gg = (const E *)q.in[5];
      const E *h0 = (const E *)q.before_h;
      E *to_x = (E *)q.out[0], *to_h = (E *)q.out[1], *dh_next = (E *)q.sum;
      UNITS(i) {
        PLACE;
        E r = gates[GATE(4, 0)], z = gates[GATE(4, 1)], n = gates[GATE(4, 2)], v = gates[GATE(4, 3)];
        E dh = gh[at] + dh_next[i], dz = dh * (h0[i] - n), dn = dh * (1 - z);
        if (gg) {
          dz += gg[GATE(4, 1)];
          dn += gg[GATE(4, 2)];
        }
        dn *= 1 - n * n;
        E dr = dn * v, dv = dn * r;
        if (gg) {
          dr += gg[GATE(4, 0)];
          dv += gg[GATE(4, 3)];
        }
        dr = dr * r * (1 - r);
        dz = dz * z * (1 - z);
        to_x[GATE(3, 0)] = dr;
        to_h[GATE(3, 0)] = dr;
        to_x[GATE(3, 1)] = dz;
        to_h[GATE(3, 1)] = dz;
        to_x[GATE(3, 2)] = dn;
        to_h[GATE(3, 2)] = dv;
        dh_next[i] = dh * z;
      }
    });
/* clang-format on */

/* clang-format off */
static const char rnn_source[] = CU_SOURCE(
    KERNEL(256, rnn)(cell q) {
      const E *gx = (const E *)q.in[0], *part = (const E *)q.part;
      E *hs = (E *)q.out[0];
      UNITS(i) {
        i64 at = q.at * q.n * q.h + i;
        E x = gx[at] + part[i];
        hs[at] = q.relu ? (x > 0 || x != x ? x : 0) : TANH(x);
      }
    }
    KERNEL(256, rnn_grad)(cell q) {
      const E *hs = (const E *)q.in[0], *gh = (const E *)q.in[2];
      E *to = (E *)q.out[0], *dh_next = (E *)q.sum;
      UNITS(i) {
        i64 at = q.at * q.n * q.h + i;
        E y = hs[at], dh = gh[at] + dh_next[i];
        to[at] = q.relu ? (y > 0 ? dh : 0) : dh * (1 - y * y);
        dh_next[i] = 0;
      }
    }
    KERNEL(256, add_part)(cell q) { UNITS(i) ((E *)q.sum)[i] += ((const E *)q.part)[i]; });
/* clang-format on */

/* ---- the walks ---- */

typedef struct layer {
  cell q;
  cu_device *d;
  cu_program p;
  const char *pass;
  int64_t steps, gates; /* gates: how many products with w_hh a unit has */
  bool reverse;
  kn_tensor *weight, *part; /* operand and result of the product; owned */
} layer;

static int64_t step_at(const layer *l, int64_t i) { return l->reverse ? l->steps - 1 - i : i; }

/* t with its first dim dropped: a step of t, to be moved by its offset. */
static kn_status step_of(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_tensor *v;
  KN_TRY(kn_tensor_alias(ctx, t, &v));
  v->type.rank--;
  for (int d = 0; d < v->type.rank; d++)
    v->type.dims[d] = t->type.dims[d + 1], v->strides[d] = t->strides[d + 1];
  *out = v;
  return KN_OK;
}

static const void *at_step(const kn_tensor *t, int64_t step) { /* of a contiguous tensor [T,N,*] */
  int64_t size = t->type.dims[1] * t->type.dims[2] * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
  return (const char *)kn_tensor_data(t) + step * size;
}

static kn_status product(kn_context *ctx, layer *l, kn_tensor *from) {
  return kn_device_run(ctx, KN_OP_matmul, NULL, (kn_tensor *[]){from, l->weight}, 2, &l->part, NULL);
}

static kn_status pass(kn_context *ctx, layer *l, const char *kernel) {
  return cu_start(ctx, l->d, &l->p, kernel, l->q.n * l->q.h, &l->q);
}

/* The states before step i, where the pass reads them: of the step before it, or those at the beginning. */
static void before(layer *l, int64_t i, const kn_tensor *h, const kn_tensor *h0, const kn_tensor *c,
                   const kn_tensor *c0) {
  int64_t last = i ? step_at(l, i - 1) : 0;
  l->q.at = step_at(l, i);
  l->q.before_h = !h ? NULL : i ? at_step(h, last) : kn_tensor_data(h0);
  l->q.before_c = !c ? NULL : i ? at_step(c, last) : kn_tensor_data(c0);
}

static kn_status walk(kn_context *ctx, layer *l, kn_tensor *h, kn_tensor *h0, kn_tensor *c, kn_tensor *c0) {
  kn_tensor *from = NULL;
  KN_TRY(step_of(ctx, h, &from));
  kn_status st = KN_OK;
  for (int64_t i = 0; i < l->steps && st == KN_OK; i++) {
    before(l, i, h, h0, c, c0);
    from->offset = h->offset + (i ? step_at(l, i - 1) : 0) * l->q.n * l->q.h;
    st = product(ctx, l, i ? from : h0);
    if (st == KN_OK) st = pass(ctx, l, l->pass);
  }
  kn_tensor_release(from);
  return st;
}

/* `g` [T,N,gates H] is what a pass writes and the product then reads. */
static kn_status walk_back(kn_context *ctx, layer *l, kn_tensor *g, kn_tensor *h, kn_tensor *h0, kn_tensor *c,
                           kn_tensor *c0) {
  kn_tensor *now = NULL;
  KN_TRY(step_of(ctx, g, &now));
  kn_status st = KN_OK;
  for (int64_t i = l->steps; i-- > 0 && st == KN_OK;) {
    before(l, i, h, h0, c, c0);
    st = pass(ctx, l, l->pass);
    now->offset = g->offset + l->q.at * l->q.n * l->gates * l->q.h;
    if (st == KN_OK) st = product(ctx, l, now);
    if (st == KN_OK) st = pass(ctx, l, "add_part");
  }
  kn_tensor_release(now);
  return st;
}

/* ---- the kernels ---- */

typedef struct kind {
  const char *pass, *source;
  int64_t gates;
  int weight; /* which input it is */
  bool backward;
} kind;

static kn_status turned(kn_context *ctx, kn_tensor *w, kn_tensor **out) {
  KN_TRY(kn_tensor_alias(ctx, w, out));
  kn_tensor *t = *out;
  t->type.dims[0] = w->type.dims[1], t->type.dims[1] = w->type.dims[0];
  t->strides[0] = w->strides[1], t->strides[1] = w->strides[0];
  return KN_OK;
}

/* x: [T,N,*]; as: inputs in one piece. */
static kn_status open_layer(kn_context *ctx, layer *l, const kind *k, const kn_type *x, kn_tensor *const *as,
                            int n, kn_tensor *const *out) {
  kn_type part = {.dtype = x->dtype, .device = x->device, .rank = 2};
  kn_tensor *w = as[k->weight];
  KN_TRY(cu_device_of(ctx, &l->d));
  l->pass = k->pass;
  l->gates = k->gates;
  l->steps = x->dims[0], l->q.n = x->dims[1], l->q.h = w->type.dims[1];
  l->p = (cu_program){
      "recurrent",
      {cell_text, gates_text, x->dtype == KN_F64 ? doubles : floats, lstm_source, gru_source, rnn_source},
      .elements = CU_OF_DTYPE,
      .dtype = (kn_dtype)x->dtype};
  for (int i = 0; i < n; i++) l->q.in[i] = kn_tensor_data(as[i]);
  for (int i = 0; i < 3 && out[i]; i++) l->q.out[i] = kn_tensor_data(out[i]);
  part.dims[0] = l->q.n, part.dims[1] = k->backward ? l->q.h : k->gates * l->q.h;
  if (k->backward)
    l->weight = kn_tensor_retain(w);
  else
    KN_TRY(turned(ctx, w, &l->weight));
  KN_TRY(cu_work_tensor(ctx, l->d, &part, &l->part));
  l->q.part = kn_tensor_data(l->part);
  return KN_OK;
}

static void close_layer(layer *l) {
  kn_tensor_release(l->weight);
  kn_tensor_release(l->part);
}

static kn_status zero(kn_context *ctx, kn_tensor *t) {
  const kn_attrs_value none = {.value = 0};
  return cu_full_like(ctx, &none, &t, 1, &t);
}

/* Runs what the inputs as float32 or float64, each in one piece, give. */
#define LAYER(name)                                                                                          \
  static kn_status name##_wide(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out);                                                       \
  CU_ENTRY(name) {                                                                                           \
    if (kn_tensor_numel(in[0]) == 0) return KN_DECLINED;                                                     \
    return cu_run_wide(ctx, KN_OP_##name, name##_wide, attrs, in, n, out);                                   \
  }                                                                                                          \
  static kn_status name##_wide(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out)

LAYER(lstm_layer) { /* gx, w_hh, h0, c0 */
  static const kind k = {"lstm", lstm_source, 4, 1, false};
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_status st = open_layer(ctx, &l, &k, &in[0]->type, in, n, (kn_tensor *[]){out[0], out[1], out[2]});
  if (st == KN_OK) st = walk(ctx, &l, out[0], in[2], out[1], in[3]);
  close_layer(&l);
  return st;
}

LAYER(lstm_layer_grad) { /* gates, c, w_hh, c0, g_h, g_c[, g_gates] */
  static const kind k = {"lstm_grad", lstm_source, 4, 2, true};
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_status st = open_layer(ctx, &l, &k, &in[0]->type, in, n, (kn_tensor *[]){out[0], NULL, NULL});
  l.q.sum = kn_tensor_data(out[1]), l.q.sum2 = kn_tensor_data(out[2]);
  if (st == KN_OK) st = zero(ctx, out[1]);
  if (st == KN_OK) st = zero(ctx, out[2]);
  if (st == KN_OK) st = walk_back(ctx, &l, out[0], NULL, NULL, in[1], in[3]);
  close_layer(&l);
  return st;
}

LAYER(gru_layer) { /* gx, w_hh, h0[, b_hh] */
  static const kind k = {"gru", gru_source, 3, 1, false};
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_status st = open_layer(ctx, &l, &k, &in[0]->type, in, n, (kn_tensor *[]){out[0], out[1], NULL});
  if (st == KN_OK) st = walk(ctx, &l, out[0], in[2], NULL, NULL);
  close_layer(&l);
  return st;
}

LAYER(gru_layer_grad) { /* gates, h, w_hh, h0, g_h[, g_gates] */
  static const kind k = {"gru_grad", gru_source, 3, 2, true};
  layer l = {.reverse = ((const kn_attrs_direction *)attrs)->reverse};
  kn_status st = open_layer(ctx, &l, &k, &in[0]->type, in, n, (kn_tensor *[]){out[0], out[1], NULL});
  l.q.sum = kn_tensor_data(out[2]);
  if (st == KN_OK) st = zero(ctx, out[2]);
  if (st == KN_OK) st = walk_back(ctx, &l, out[1], in[1], in[3], NULL, NULL);
  close_layer(&l);
  return st;
}

static bool is_relu(const kn_attrs_rnn_direction *a) {
  return a->nonlinearity == KN_CHOICE_nonlinearity_relu;
}

LAYER(rnn_layer) { /* gx, w_hh, h0 */
  static const kind k = {"rnn", rnn_source, 1, 1, false};
  layer l = {.reverse = ((const kn_attrs_rnn_direction *)attrs)->reverse, .q.relu = is_relu(attrs)};
  kn_status st = open_layer(ctx, &l, &k, &in[0]->type, in, n, (kn_tensor *[]){out[0], NULL, NULL});
  if (st == KN_OK) st = walk(ctx, &l, out[0], in[2], NULL, NULL);
  close_layer(&l);
  return st;
}

LAYER(rnn_layer_grad) { /* h, w_hh, g_h */
  static const kind k = {"rnn_grad", rnn_source, 1, 1, true};
  layer l = {.reverse = ((const kn_attrs_rnn_direction *)attrs)->reverse, .q.relu = is_relu(attrs)};
  kn_status st = open_layer(ctx, &l, &k, &in[0]->type, in, n, (kn_tensor *[]){out[0], NULL, NULL});
  l.q.sum = kn_tensor_data(out[1]);
  if (st == KN_OK) st = zero(ctx, out[1]);
  if (st == KN_OK) st = walk_back(ctx, &l, out[0], NULL, NULL, NULL, NULL);
  close_layer(&l);
  return st;
}
