/* Devices whose memory the host cannot read, shown on one that has no hardware (spec/fake_device.h). */
#define _DEFAULT_SOURCE /* mmap's MAP_ANONYMOUS */
#include "backends/registry.h"
#include "spec/fake_device.h"
#include "spec/tensors.h"

static kn_type on_device(kn_dtype dtype, kn_ints dims) {
  kn_type t = type_of(dtype, dims);
  t.device = KN_CUDA;
  return t;
}

START_TEST(tensors_lie_on_the_device) {
  kn_context *c = suite_context();
  fake_device f;
  fake_device_open(&f, c);
  const kn_type small = on_device(KN_F32, DIMS(2, 3)), large = on_device(KN_F64, DIMS(100, 100)),
                none = on_device(KN_F32, DIMS(0, 3));
  kn_tensor *a, *b, *e;
  OK(c, kn_tensor_new(c, &small, &a));
  OK(c, kn_tensor_new(c, &large, &b));
  OK(c, kn_tensor_new(c, &none, &e));
  ck_assert_int_eq(a->storage->device, KN_CUDA);
  ck_assert(fake_owns(&f, kn_tensor_data(a)) && fake_owns(&f, kn_tensor_data(b)));
  ck_assert_int_eq(f.alive, 3);
  OK(c, kn_tensor_allocate(c, a, &large)); /* what it had is given back */
  ck_assert(fake_owns(&f, kn_tensor_data(a)));
  ck_assert_int_eq(f.alive, 3);
  kn_tensor_release(a);
  kn_tensor_release(b);
  kn_tensor_release(e);
  const kn_type huge = on_device(KN_F64, DIMS(1 << 20, 1 << 10));
  FAILS(c, KN_NOMEM, "out of memory", kn_tensor_new(c, &huge, &a));
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

START_TEST(children_ask_the_root) {
  kn_context *c = suite_context(), *child = kn_context_child(c), *grandchild = kn_context_child(child);
  const kn_memory *m = NULL;
  OK(c, kn_device_memory(grandchild, KN_CPU, &m));
  ck_assert_ptr_null(m);
  FAILS(grandchild, KN_UNSUPPORTED, "device cuda cannot be used: the backends of this context are not open",
        kn_device_memory(grandchild, KN_CUDA, &m));
  fake_device f;
  fake_device_open(&f, c);
  OK(grandchild, kn_device_memory(grandchild, KN_CUDA, &m));
  ck_assert_ptr_eq(m, &f.memory);
  kn_context_free(grandchild);
  kn_context_free(child);
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

/* Where there is no device the backend's own reason is told. */
START_TEST(no_device) {
  kn_context *c = suite_context();
  const kn_memory *m;
  kn_tensor *t;
  const kn_type type = on_device(KN_F32, DIMS(2));
  OK(c, kn_registry_open(c, "ref"));
  FAILS(c, KN_UNSUPPORTED, "device cuda cannot be used here: ", kn_device_memory(c, KN_CUDA, &m));
  FAILS(c, KN_UNSUPPORTED, "device cuda cannot be used here: ", kn_tensor_new(c, &type, &t));
  kn_registry_close(c);
  FAILS(c, KN_UNSUPPORTED, "not open", kn_device_memory(c, KN_CUDA, &m));
  suite_done(c);
}
END_TEST

SUITE("device", tensors_lie_on_the_device, children_ask_the_root, no_device)
