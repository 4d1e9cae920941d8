/* Layers of recurrent networks and their gradients: every instruction set of the cpu backend against the
 * reference kernels. Whole networks are in spec/lua/rnn.lua, the ops' types and gradients in the sweeps. */
#include "backends/cpu/cpu.h"
#include "core/infer.h"
#include "spec/tensors.h"

/* Sums may be in another order: relative to the largest element. */
static void check_near(const kn_provider *p, kn_op op, const char *what, const kn_tensor *got,
                       const kn_tensor *want) {
  double most = 1, allowed = kn_tensor_dtype(got) == KN_F64 ? 1e-12 : 1e-5;
  for (int64_t k = 0; k < kn_tensor_numel(want); k++) most = fmax(most, fabs(element(want, k)));
  for (int64_t k = 0; k < kn_tensor_numel(want); k++)
    ck_assert_msg(fabs(element(got, k) - element(want, k)) <= allowed * most,
                  "%s: %s, %s: element %lld is %.17g, the reference says %.17g", p->name, kn_op_name(op),
                  what, (long long)k + 1, element(got, k), element(want, k));
}

static void results(kn_context *c, kn_op op, const kn_type *types, kn_tensor **out) {
  for (int i = 0; i < kn_ops[op].outs; i++) OK(c, kn_tensor_new(c, &types[i], &out[i]));
}

static void release(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

static void compare(kn_context *c, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                    const char *what) {
  kn_type types[KN_MAX_INPUTS], outs[KN_MAX_OUTPUTS];
  kn_tensor *want[KN_MAX_OUTPUTS], *got[KN_MAX_OUTPUTS];
  for (int i = 0; i < n; i++) types[i] = in[i]->type;
  OK(c, kn_infer_types(c, op, attrs, types, n, outs));
  results(c, op, outs, want);
  OK(c, kn_ops[op].kernel(c, attrs, in, n, want));
  for (int k = 0; k < cp_provider_count(); k++) {
    kn_tensor *again[KN_MAX_OUTPUTS];
    results(c, op, outs, got), results(c, op, outs, again);
    c->threads = 1;
    OK(c, cp_provider_at(k)->kernel[op](c, attrs, in, n, got));
    c->threads = 2;
    OK(c, cp_provider_at(k)->kernel[op](c, attrs, in, n, again));
    for (int i = 0; i < kn_ops[op].outs; i++) {
      check_near(cp_provider_at(k), op, what, got[i], want[i]);
      ck_assert_mem_eq(kn_tensor_data(again[i]), kn_tensor_data(got[i]), got[i]->storage->bytes);
    }
    release(got, kn_ops[op].outs), release(again, kn_ops[op].outs);
  }
  release(want, kn_ops[op].outs);
}

/* In [-8, 8] of a unit. */
static kn_tensor *steps_of(kn_context *c, kn_dtype d, double unit, kn_ints dims, uint64_t seed) {
  kn_type t = type_of(d, dims);
  kn_tensor *x;
  OK(c, kn_tensor_new(c, &t, &x));
  for (int64_t k = 0; k < kn_tensor_numel(x); k++)
    set_element(x, k, unit * ((double)(kn_random_word(seed, 7, (uint64_t)k) % 17) - 8));
  return x;
}

/* Units that end within vectors and within chunks, few rows and blocks of many, sums longer than a panel,
 * both directions; what is optional left out and given. Gradients of gates that are no gates are as good. */
START_TEST(recurrent) {
  static const int64_t sizes[][3] = {{3, 1, 5},  {2, 3, 37},  {3, 4, 130},
                                     {4, 7, 64}, {2, 40, 67}, {2, 5, 390}};
  kn_context *c = suite_context();
  for (size_t i = 0; i < 4 * sizeof sizes / sizeof *sizes; i++) {
    const int64_t t = sizes[i / 4][0], n = sizes[i / 4][1], h = sizes[i / 4][2];
    const kn_dtype d = i % 4 < 2 ? KN_F32 : KN_F64;
    if (d == KN_F64 && h > 300) continue; /* slow */
    const kn_attrs_direction way = {.reverse = i % 2};
    const kn_attrs_rnn_direction kind = {.reverse = i % 2, .nonlinearity = i % 2};
    const kn_ints state = DIMS(n, h), all = DIMS(t, n, h), three = DIMS(t, n, 3 * h),
                  four = DIMS(t, n, 4 * h);
    kn_tensor *x = steps_of(c, d, 0.125, all, 1), *x3 = steps_of(c, d, 0.125, three, 2),
              *x4 = steps_of(c, d, 0.125, four, 3), *w = steps_of(c, d, 0x1p-7, DIMS(h, h), 4),
              *w3 = steps_of(c, d, 0x1p-7, DIMS(3 * h, h), 5),
              *w4 = steps_of(c, d, 0x1p-7, DIMS(4 * h, h), 6), *h0 = steps_of(c, d, 0.125, state, 7),
              *c0 = steps_of(c, d, 0.125, state, 8), *b = steps_of(c, d, 0.125, DIMS(3 * h), 9);
    compare(c, KN_OP_lstm_layer, &way, (kn_tensor *[]){x4, w4, h0, c0}, 4, "lstm");
    compare(c, KN_OP_rnn_layer, &kind, (kn_tensor *[]){x, w, h0}, 3, "rnn");
    compare(c, KN_OP_rnn_layer_grad, &kind, (kn_tensor *[]){x, w, x}, 3, "rnn back");
    for (int k = 0; k < 2; k++) {
      kn_tensor *gru[] = {x3, w3, h0, b}, *lstm_back[] = {x4, x, w4, c0, x, x, x4},
                *gru_back[] = {x4, x, w3, h0, x, x4};
      compare(c, KN_OP_gru_layer, &way, gru, 3 + k, "gru");
      compare(c, KN_OP_lstm_layer_grad, &way, lstm_back, 6 + k, "lstm back");
      compare(c, KN_OP_gru_layer_grad, &way, gru_back, 5 + k, "gru back");
    }
    release((kn_tensor *[]){x, x3, x4, w, w3, w4, h0, c0, b}, 9);
  }
  suite_done(c);
}

SUITE("recurrent", recurrent)
