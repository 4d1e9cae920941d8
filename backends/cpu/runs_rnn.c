/* Loops over the units of a step of a recurrent layer. Compiled once for each instruction set. */
#include "backends/cpu/formula32.h"
#include "backends/cpu/rnn.h"
#include "backends/cpu/runs.h"

extern const cp_cells CP(cells);

/* i, f, o are sigmoids and g a tanh; c = f c' + i g, h = o tanh(c). */
static void lstm(int64_t h, const float *restrict x, const float *restrict part, const float *restrict before,
                 float *restrict state, float *restrict cell, float *restrict gates) {
  for (int64_t j = 0; j < h; j++) {
    const float in = cp_sigmoid_f32(x[j] + part[j]), keep = cp_sigmoid_f32(x[h + j] + part[h + j]);
    const float g = cp_tanh_f32(x[2 * h + j] + part[2 * h + j]);
    const float c = keep * before[j] + in * g;
    gates[j] = in, gates[h + j] = keep, gates[2 * h + j] = g, cell[j] = c;
  }
  for (int64_t j = 0; j < h; j++) {
    const float o = cp_sigmoid_f32(x[3 * h + j] + part[3 * h + j]);
    gates[3 * h + j] = o, state[j] = o * cp_tanh_f32(cell[j]);
  }
}

/* r and z are sigmoids, n = tanh(x + r v) with v the state's part; h = (1 - z) n + z h'. */
static void gru(int64_t h, const float *restrict x, const float *restrict part, const float *restrict bias,
                const float *restrict before, float *restrict state, float *restrict gates) {
  for (int64_t j = 0; j < h; j++) {
    const float r = cp_sigmoid_f32(x[j] + part[j] + bias[j]);
    const float z = cp_sigmoid_f32(x[h + j] + part[h + j] + bias[h + j]);
    const float v = part[2 * h + j] + bias[2 * h + j], n = cp_tanh_f32(x[2 * h + j] + r * v);
    state[j] = (1 - z) * n + z * before[j];
    gates[j] = r, gates[h + j] = z, gates[2 * h + j] = n, gates[3 * h + j] = v;
  }
}

static void rnn(int64_t h, const float *restrict x, const float *restrict part, bool relu,
                float *restrict state) {
  if (relu)
    for (int64_t j = 0; j < h; j++) {
      const float sum = x[j] + part[j];
      state[j] = cp_pick_f32((sum > 0) | (sum != sum), sum, 0);
    }
  else
    for (int64_t j = 0; j < h; j++) state[j] = cp_tanh_f32(x[j] + part[j]);
}

const cp_cells CP(cells) = {.lstm = lstm, .gru = gru, .rnn = rnn};
