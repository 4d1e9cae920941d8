/* LSTM and GRU layers by the kernels of every instruction set of the cpu backend, beside the reference: units
 * that end within vectors, one row and many, both directions, what is optional left out and given. */
#include "backends/cpu/cpu.h"
#include "spec/exec.h"

static kn_tensor *eighths(kn_context *c, kn_ints dims, uint64_t seed) {
  kn_type t = type_of(KN_F32, dims);
  kn_tensor *x;
  OK(c, kn_tensor_new(c, &t, &x));
  for (int64_t k = 0; k < kn_tensor_numel(x); k++)
    set_element(x, k, (double)(kn_random_word(seed, 7, (uint64_t)k) % 17) / 8 - 1);
  return x;
}

static void compare(kn_context *c, kn_op op, const void *attrs, kn_tensor *const *in, int n) {
  kn_type types[KN_MAX_INPUTS], outs[KN_MAX_OUTPUTS];
  kn_tensor *out[2][KN_MAX_OUTPUTS];
  const int results = kn_ops[op].outs;
  for (int i = 0; i < n; i++) types[i] = in[i]->type;
  OK(c, kn_infer_types(c, op, attrs, types, n, outs));
  for (int p = 0; p < cp_provider_count(); p++)
    for (int k = 0; k < results; k++) {
      double most = 1;
      for (int r = 0; r < 2 * results; r++) OK(c, kn_tensor_new(c, &outs[r / 2], &out[r % 2][r / 2]));
      OK(c, kn_ops[op].kernel(c, attrs, in, n, out[0]));
      OK(c, cp_provider_at(p)->kernel[op](c, attrs, in, n, out[1]));
      for (int64_t i = 0; i < kn_tensor_numel(out[0][k]); i++) most = fmax(most, fabs(element(out[0][k], i)));
      for (int64_t i = 0; i < kn_tensor_numel(out[0][k]); i++) {
        const double x = element(out[0][k], i), y = element(out[1][k], i);
        ck_assert_msg(fabs(x - y) <= 1e-5 * most, "%s of %s: element %d of result %d is %.9g, not %.9g",
                      kn_op_name(op), cp_provider_at(p)->name, (int)i + 1, k + 1, y, x);
      }
      for (int r = 0; r < 2 * results; r++) kn_tensor_release(out[r % 2][r / 2]);
    }
}

START_TEST(layers) {
  static const int64_t sizes[][3] = {{3, 1, 5}, {2, 3, 37}, {4, 7, 64}, {2, 40, 67}};
  kn_context *c = suite_context();
  c->threads = 2;
  for (size_t i = 0; i < 2 * COUNT(sizes); i++) {
    const int64_t t = sizes[i / 2][0], n = sizes[i / 2][1], h = sizes[i / 2][2];
    const kn_attrs_direction way = {.reverse = i % 2};
    const kn_ints dims[] = {DIMS(t, n, 4 * h), DIMS(4 * h, h),    DIMS(n, h),     DIMS(n, h),  DIMS(t, n, h),
                            DIMS(t, n, h),     DIMS(t, n, 3 * h), DIMS(3 * h, h), DIMS(3 * h), DIMS(t, n, h)};
    kn_tensor *in[COUNT(dims)];
    for (size_t k = 0; k < COUNT(dims); k++) in[k] = eighths(c, dims[k], k);
    kn_tensor *lstm[] = {in[0], in[1], in[2], in[3]}, *gru[] = {in[6], in[7], in[2], in[8]};
    kn_tensor *back[] = {in[0], in[4], in[1], in[3], in[5], in[9], in[0]};
    compare(c, KN_OP_lstm_layer, &way, lstm, 4);
    for (int k = 6; k <= 7; k++) compare(c, KN_OP_lstm_layer_grad, &way, back, k);
    for (int k = 3; k <= 4; k++) compare(c, KN_OP_gru_layer, &way, gru, k);
    for (size_t k = 0; k < COUNT(dims); k++) kn_tensor_release(in[k]);
  }
  suite_done(c);
}
END_TEST

SUITE("recurrent", layers)
