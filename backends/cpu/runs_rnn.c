/* Passes over the units of a step of recurrent layers, with the formulas of this backend; the steps and their
 * products are core/kernels/rnn.c. Compiled once for each instruction set. */
#include "backends/cpu/formula32.h"
#include "core/kernels/rnn.h"

/* name##_units(l, row, j, m): units [j, j + m) of a row, which lie one after the other. */
#define PASS(name)                                                                                           \
  static void name(void *ud, int64_t begin, int64_t end) {                                                   \
    const kn_rnn_layer *l = ud;                                                                              \
    for (int64_t i = begin, m; i < end; i += m) {                                                            \
      const int64_t row = i / l->h, j = i % l->h;                                                            \
      m = l->h - j < end - i ? l->h - j : end - i;                                                           \
      name##_units(l, row, j, m);                                                                            \
    }                                                                                                        \
  }

/* Element j of gate k of a row of this step, of `of` gates side by side in a tensor of all steps; the same in
 * one of a step; element j of a row of all steps. */
#define GATE(of, k) ((l->at * l->n + row) * (of)*l->h + (k)*l->h + j)
#define HERE(of, k) (row * (of)*l->h + (k)*l->h + j)
#define UNIT ((l->at * l->n + row) * l->h + j)

static void lstm_units(const kn_rnn_layer *l, int64_t row, int64_t j, int64_t m) {
  const float *gx = l->in[0], *part = l->product;
  const float *restrict xi = gx + GATE(4, 0), *restrict xf = gx + GATE(4, 1), *restrict xg = gx + GATE(4, 2),
                        *restrict xo = gx + GATE(4, 3);
  const float *restrict hi = part + HERE(4, 0), *restrict hf = part + HERE(4, 1),
                        *restrict hg = part + HERE(4, 2), *restrict ho = part + HERE(4, 3);
  const float *restrict c0 = (const float *)l->before_c + row * l->h + j;
  float *restrict hs = (float *)l->out[0] + UNIT, *restrict cs = (float *)l->out[1] + UNIT;
  float *gates = l->out[2];
  float *restrict to_i = gates + GATE(4, 0), *restrict to_f = gates + GATE(4, 1),
                  *restrict to_g = gates + GATE(4, 2), *restrict to_o = gates + GATE(4, 3);
  for (int64_t k = 0; k < m; k++) {
    const float in = cp_sigmoid_f32(xi[k] + hi[k]), keep = cp_sigmoid_f32(xf[k] + hf[k]);
    const float g = cp_tanh_f32(xg[k] + hg[k]), o = cp_sigmoid_f32(xo[k] + ho[k]);
    const float c = keep * c0[k] + in * g;
    cs[k] = c, hs[k] = o * cp_tanh_f32(c);
    to_i[k] = in, to_f[k] = keep, to_g[k] = g, to_o[k] = o;
  }
}
PASS(lstm)

static void lstm_grad_units(const kn_rnn_layer *l, int64_t row, int64_t j, int64_t m) {
  const float *gates = l->in[0], *gg = l->in[6];
  const float *restrict gi = gates + GATE(4, 0), *restrict gf = gates + GATE(4, 1),
                        *restrict gc = gates + GATE(4, 2), *restrict go = gates + GATE(4, 3);
  const float *restrict cs = (const float *)l->in[1] + UNIT, *restrict to_h = (const float *)l->in[4] + UNIT,
                        *restrict to_c = (const float *)l->in[5] + UNIT;
  const float *restrict c0 = (const float *)l->before_c + row * l->h + j;
  float *restrict dh_next = (float *)l->sum + row * l->h + j, *restrict dc_next =
                                                                  (float *)l->sum2 + row * l->h + j;
  float *to = l->out[0];
  float *restrict ti = to + GATE(4, 0), *restrict tf = to + GATE(4, 1), *restrict tg = to + GATE(4, 2),
                  *restrict t_o = to + GATE(4, 3);
  for (int64_t k = 0; k < m; k++) {
    const float in = gi[k], keep = gf[k], g = gc[k], o = go[k], tc = cp_tanh_f32(cs[k]);
    const float dh = to_h[k] + dh_next[k], dc = to_c[k] + dc_next[k] + dh * o * (1 - tc * tc);
    ti[k] = dc * g, tf[k] = dc * c0[k], tg[k] = dc * in, t_o[k] = dh * tc;
    dc_next[k] = dc * keep, dh_next[k] = 0;
  }
  for (int gate = 0; gg && gate < 4; gate++) {
    float *restrict at = to + GATE(4, gate);
    const float *restrict more = gg + GATE(4, gate);
    for (int64_t k = 0; k < m; k++) at[k] += more[k];
  }
  for (int64_t k = 0; k < m; k++) {
    const float in = gi[k], keep = gf[k], g = gc[k], o = go[k];
    ti[k] = ti[k] * in * (1 - in), tf[k] = tf[k] * keep * (1 - keep);
    tg[k] = tg[k] * (1 - g * g), t_o[k] = t_o[k] * o * (1 - o);
  }
}
PASS(lstm_grad)

static void gru_units(const kn_rnn_layer *l, int64_t row, int64_t j, int64_t m) {
  const float *gx = l->in[0], *part = l->product, *b = l->bias;
  const float *restrict xr = gx + GATE(3, 0), *restrict xz = gx + GATE(3, 1), *restrict xn = gx + GATE(3, 2);
  const float *restrict hr = part + HERE(3, 0), *restrict hz = part + HERE(3, 1),
                        *restrict hn = part + HERE(3, 2);
  const float *restrict h0 = (const float *)l->before_h + row * l->h + j;
  const float *restrict br = b + j, *restrict bz = b + l->h + j, *restrict bn = b + 2 * l->h + j;
  float *restrict hs = (float *)l->out[0] + UNIT, *gates = l->out[1];
  float *restrict tr = gates + GATE(4, 0), *restrict tz = gates + GATE(4, 1),
                  *restrict tn = gates + GATE(4, 2), *restrict tv = gates + GATE(4, 3);
  for (int64_t k = 0; k < m; k++) {
    const float r = cp_sigmoid_f32(xr[k] + hr[k] + br[k]), z = cp_sigmoid_f32(xz[k] + hz[k] + bz[k]);
    const float v = hn[k] + bn[k], n = cp_tanh_f32(xn[k] + r * v);
    hs[k] = (1 - z) * n + z * h0[k];
    tr[k] = r, tz[k] = z, tn[k] = n, tv[k] = v;
  }
}
PASS(gru)

extern const kn_rnn_passes CP(rnn_passes);
const kn_rnn_passes CP(rnn_passes) = {.lstm = lstm, .lstm_grad = lstm_grad, .gru = gru};
