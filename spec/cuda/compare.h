/* The software device in tests (spec/cuda/sim): a context whose "cuda" it is, and tensors on their way there
 * and back. */
#ifndef SPEC_CUDA_COMPARE_H
#define SPEC_CUDA_COMPARE_H
#include "backends/cuda/cuda.h"
#include "backends/cuda/kernel.h"
#include "backends/cuda/prelude.h"
#include "core/device.h"
#include "spec/cuda/nvrtc.h"
#include "spec/cuda/software.h"
#include "spec/tensors.h"

/* NULL, and said, where it cannot be used. */
static inline kn_context *sim_context(void) {
  kn_context *c = software_context();
  if (kn_backend_state(c, &kn_cuda_backend)) return c;
  kn_backend_report r = {0};
  for (int i = 0; i < kn_registry_count() && (!r.name || strcmp(r.name, "cuda")); i++)
    kn_registry_report(c, i, &r);
  kn_registry_close(c);
  suite_done(c);
  suite_skips(r.reason);
  return NULL;
}

static inline void sim_done(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* A copy on the other side, contiguous as the tensor is. */
static inline kn_tensor *moved(kn_context *c, kn_tensor *t, kn_device_id to) {
  kn_type type = t->type;
  kn_tensor *out;
  const kn_memory *m;
  ck_assert(kn_tensor_contiguous(t));
  type.device = (uint8_t)to;
  OK(c, kn_tensor_new(c, &type, &out));
  OK(c, kn_device_memory(c, KN_CUDA, &m));
  OK(c, m->copy(m->self, c, kn_tensor_data(out), kn_tensor_data(t),
                (size_t)kn_tensor_numel(t) * kn_dtype_size(kn_tensor_dtype(t)),
                to == KN_CPU ? KN_TO_HOST : KN_TO_DEVICE));
  return out;
}
static inline kn_tensor *on_cuda(kn_context *c, kn_tensor *t) { return moved(c, t, KN_CUDA); }
static inline kn_tensor *from_cuda(kn_context *c, kn_tensor *t) { return moved(c, t, KN_CPU); }

/* What a double exports, by name, from the library it stands for. */
#define SIM_VALUE(d, library, type, name) (*(type *)dlsym((d)->api.handle[library], name))

/* The real compiler takes what `write` writes for each of the dtypes, without spills; skipped where there is
 * none. */
static inline void sim_compiles(const char *key, cu_write_fn write, const kn_dtype *dtypes, int n) {
  cu_api api;
  if (!nvrtc_open(&api)) {
    suite_skips("there is no NVRTC");
    return;
  }
  kn_context *c = suite_context();
  for (int i = 0; i < n; i++) {
    kn_dtype dtype = dtypes[i];
    cu_text t = {.heap = c->heap};
    cu_put(&t, "%s", cu_prelude);
    write(&dtype, &t);
    nvrtc_check(&api, key, t.s);
    cu_text_free(&t);
  }
  cu_api_close(&api);
  suite_done(c);
}

/* As wide as rounding of the dtype, some sums long. */
static inline double sim_tolerance(kn_dtype d) {
  return d == KN_F64 ? 1e-12 : d == KN_F32 ? 2e-5 : d == KN_F16 ? 4e-3 : d == KN_BF16 ? 3e-2 : 0;
}

/* The op on both devices, from what lies on the CPU (`ref` has the reference only); within the dtype's
 * tolerance. */
static inline void sim_compare(kn_context *c, kn_context *ref, kn_op op, const void *attrs,
                               kn_tensor *const *host, kn_tensor *const *in, int n, const char *text) {
  kn_tensor *want, *got, *back;
  OK(ref, kn_apply(ref, op, attrs, host, n, &want));
  OK(c, kn_apply(c, op, attrs, in, n, &got));
  ck_assert_int_eq(got->type.device, KN_CUDA);
  back = from_cuda(c, got);
  kn_type type = got->type;
  type.device = KN_CPU;
  ck_assert_msg(kn_type_equal(&type, &want->type), "%s", text);
  for (int64_t k = 0; k < kn_tensor_numel(want); k++)
    ck_assert_msg(near(element(back, k), element(want, k), sim_tolerance(kn_tensor_dtype(want))),
                  "%s: element %d is %.9g instead of %.9g", text, (int)k + 1, element(back, k),
                  element(want, k));
  kn_tensor_release(want);
  kn_tensor_release(got);
  kn_tensor_release(back);
}

#endif
