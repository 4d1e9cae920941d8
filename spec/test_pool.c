/* Kernels of pooling by our own loops (backends/cpu/pool.c) against the reference, to the bit. */
#include "backends/cpu/cpu.h"
#include "core/device.h"
#include "spec/tensors.h"

static kn_tensor *some(kn_context *c, kn_dtype d, kn_ints dims, uint64_t seed) {
  kn_type type = type_of(d, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)(kn_random_word(seed, 7, (uint64_t)k) % 7) - 3);
  return t;
}

static void same_bits(const kn_tensor *a, const kn_tensor *b, const char *who, int i) {
  size_t bytes = (size_t)kn_tensor_numel(a) * kn_dtype_size(kn_tensor_dtype(a));
  ck_assert_msg(!memcmp(kn_tensor_data(a), kn_tensor_data(b), bytes), "%s, case %d", who, i);
}

/* Windows with ties, with nan in each place, with gradients of -0; rows and columns that no window reaches.
 */
START_TEST(gradient_of_the_largest) {
  static const kn_ints sizes[] = {
      {4, {2, 3, 8, 10}}, {4, {1, 2, 7, 5}}, {3, {40, 6, 9}}, {4, {3, 16, 28, 28}}};
  const double odd[] = {NAN, 1, -0.0, 0, INFINITY, -INFINITY, 1, NAN, 2};
  kn_context *c = suite_context();
  c->threads = 2;
  for (int i = 0; i < 8; i++) {
    const kn_dtype d = i < 4 ? KN_F32 : KN_F64;
    const kn_attrs_pool2d two = {
        .kernel_size = {1, {2}}, .stride = {1, {i % 2 ? 2 : 0}}, .padding = {1, {0}}, .dilation = {1, {1}}};
    kn_ints dims = sizes[i % 4], windows = dims;
    for (int k = dims.n - 2; k < dims.n; k++) windows.v[k] /= 2;
    kn_tensor *in[2] = {some(c, d, windows, 1), some(c, d, dims, 2)}, *want = some(c, d, dims, 3);
    for (int64_t k = 0; k < kn_tensor_numel(in[1]); k++)
      if (k % 5 < 2) set_element(in[1], k, odd[k % 7 + k % 3]);
    set_element(in[0], 1, -0.0);
    OK(c, kn_ref_provider.kernel[KN_OP_max_pool2d_grad](c, &two, in, 2, &want));
    for (int k = 0; k < cp_provider_count(); k++) {
      const kn_provider *p = cp_provider_at(k);
      kn_tensor *got = some(c, d, dims, 4);
      OK(c, p->kernel[KN_OP_max_pool2d_grad](c, &two, in, 2, &got));
      same_bits(got, want, p->name, i);
      kn_tensor_release(got);
    }
    kn_tensor_release(in[0]), kn_tensor_release(in[1]), kn_tensor_release(want);
  }
  suite_done(c);
}
END_TEST

/* Windows that overlap, are padded, thinned or of another size are left to others. */
START_TEST(other_windows_are_declined) {
  static const kn_attrs_pool2d others[] = {
      {.kernel_size = {1, {3}}, .stride = {1, {2}}, .padding = {1, {0}}, .dilation = {1, {1}}},
      {.kernel_size = {1, {2}}, .stride = {1, {1}}, .padding = {1, {0}}, .dilation = {1, {1}}},
      {.kernel_size = {1, {2}}, .stride = {1, {2}}, .padding = {1, {1}}, .dilation = {1, {1}}},
      {.kernel_size = {1, {2}}, .stride = {1, {2}}, .padding = {1, {0}}, .dilation = {2, {1, 2}}},
  };
  kn_context *c = suite_context();
  kn_tensor *in[2] = {some(c, KN_F32, DIMS(1, 1, 2, 2), 1), some(c, KN_F32, DIMS(1, 1, 4, 4), 2)};
  kn_tensor *out = some(c, KN_F32, DIMS(1, 1, 4, 4), 3);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    ck_assert_int_eq(cp_provider_at(0)->kernel[KN_OP_max_pool2d_grad](c, &others[i], in, 2, &out),
                     KN_DECLINED);
  kn_tensor_release(in[0]), kn_tensor_release(in[1]), kn_tensor_release(out);
  suite_done(c);
}
END_TEST

SUITE("pool", gradient_of_the_largest, other_windows_are_declined)
