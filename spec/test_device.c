/* Devices whose memory the host cannot read, shown on one that has no hardware (spec/fake_device.h). */
#define _DEFAULT_SOURCE /* mmap's MAP_ANONYMOUS */
#include "backends/registry.h"
#include "backends/ref/ref.h"
#include "bindings/c/kiln.h"
#include "core/grad/tape.h"
#include "graph/text.h"
#include "spec/exec.h"
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
  ck_assert_uint_eq(kn_heap_bytes(c->heap) - kn_heap_read_stats(c->heap).bytes,
                    24 + 80000);           /* for collectors */
  OK(c, kn_tensor_allocate(c, a, &large)); /* what it had is given back */
  ck_assert(fake_owns(&f, kn_tensor_data(a)));
  ck_assert_int_eq(f.alive, 3);
  kn_tensor_release(a);
  kn_tensor_release(b);
  kn_tensor_release(e);
  ck_assert_uint_eq(kn_heap_bytes(c->heap), kn_heap_read_stats(c->heap).bytes);
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
  if (kn_device_memory(c, KN_CUDA, &m) != KN_OK) { /* else there is one here */
    FAILS(c, KN_UNSUPPORTED, "device cuda cannot be used here: ", kn_device_memory(c, KN_CUDA, &m));
    FAILS(c, KN_UNSUPPORTED, "device cuda cannot be used here: ", kn_tensor_new(c, &type, &t));
  }
  kn_registry_close(c);
  FAILS(c, KN_UNSUPPORTED, "not open", kn_device_memory(c, KN_CUDA, &m));
  suite_done(c);
}
END_TEST

static kn_tensor *there(kn_context *c, kn_tensor *t, kn_device_id d) {
  const kn_attrs_device to = {.device = (int32_t)d};
  kn_tensor *made;
  OK(c, kn_apply(c, KN_OP_to_device, &to, &t, 1, &made));
  return made;
}

/* The same, and t is released. */
static kn_tensor *sent(kn_context *c, kn_tensor *t) {
  kn_tensor *made = there(c, t, KN_CUDA);
  kn_tensor_release(t);
  return made;
}

static void expect_there(kn_context *c, kn_tensor *t, kn_dtype dtype, kn_ints dims, const double *values) {
  ck_assert_int_eq(t->type.device, KN_CUDA);
  kn_tensor *host;
  OK(c, kn_to_host(c, t, &host));
  expect(host, dtype, dims, values);
  kn_tensor_release(host);
}

START_TEST(there_and_back) {
  kn_context *c = suite_context();
  fake_device f;
  fake_device_open(&f, c);
  kn_tensor *x = make(c, KN_F32, DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6)), *y = there(c, x, KN_CUDA), *z, *turned,
            *same;
  expect_there(c, y, KN_F32, DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6));
  const kn_attrs_swap swap = {.dim0 = 0, .dim1 = 1};
  OK(c, kn_apply(c, KN_OP_transpose, &swap, &y, 1, &turned)); /* it is put in order where it is */
  expect_there(c, turned, KN_F32, DIMS(3, 2), LIST(1, 4, 2, 5, 3, 6));
  z = there(c, turned, KN_CUDA);
  ck_assert(kn_tensor_contiguous(z) && z->storage != turned->storage);
  kn_tensor_release(z);
  OK(c, kn_apply(c, KN_OP_transpose, &swap, &x, 1, &z));
  z = sent(c, z); /* what does not lie in order on the host either */
  expect_there(c, z, KN_F32, DIMS(3, 2), LIST(1, 4, 2, 5, 3, 6));
  OK(c, kn_to_host(c, x, &same));
  ck_assert_ptr_eq(same, x);
  kn_tensor_release(same);
  char text[KN_TYPE_TEXT];
  ck_assert_str_eq(kn_type_text(&z->type, text, sizeof text), "float32[3,2]@cuda");
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(z), kn_tensor_release(turned);
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

START_TEST(devices_meet) {
  kn_context *c = suite_context();
  fake_device f;
  fake_device_open(&f, c);
  kn_tensor *x = make(c, KN_F32, DIMS(2), LIST(1, 2)), *y = there(c, x, KN_CUDA), *two = number(c, KN_F32, 2),
            *r;
  kn_scalar s;
  FAILS(c, KN_ARG, "add: tensors are on different devices, cpu and cuda; t:to(\"cuda\") moves one",
        kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){x, y}, 2, &r));
  FAILS(c, KN_ARG, "tensors are on different devices, cuda and cpu",
        kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){y, x}, 2, &r));
  FAILS(c, KN_ARG, "stack: tensors are on different devices, cpu and cuda",
        kn_apply(c, KN_OP_stack, &(kn_attrs_axis_first){0}, (kn_tensor *[]){two, y}, 2, &r));
  kn_tensor *one = there(c, two, KN_CUDA);
  FAILS(c, KN_ARG, "add_: the result is on cuda, and the tensor to overwrite on cpu",
        kn_apply_inplace(c, KN_OP_add, NULL, (kn_tensor *[]){two, one}, 2, &r));
  kn_tensor_release(one);
  kn_tensor *numbers[3][2] = {{y, two}, {two, y}, {two, two}};
  for (int i = 0; i < 2; i++) { /* plain numbers stay with the host */
    OK(c, kn_apply(c, KN_OP_mul, NULL, numbers[i], 2, &r));
    expect_there(c, r, KN_F32, DIMS(2), LIST(2, 4));
    kn_tensor_release(r);
  }
  OK(c, kn_apply(c, KN_OP_mul, NULL, numbers[2], 2, &r));
  ck_assert_int_eq(r->type.device, KN_CPU);
  kn_tensor_release(r);
  const kn_attrs_reduce all = {.keepdim = false};
  OK(c, kn_apply(c, KN_OP_sum, &all, &y, 1, &r));
  OK(c, kn_item(c, r, &s));
  ck_assert(s.kind == KN_SCALAR_FLOAT && s.as.f == 3);
  kn_tensor_release(r);
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(two);
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

START_TEST(elements_go_over) {
  kn_context *c = suite_context();
  fake_device f;
  fake_device_open(&f, c);
  kn_tensor *x = make(c, KN_F64, DIMS(2), LIST(1, 2)), *y = there(c, x, KN_CUDA), *same,
            *new = make(c, KN_F32, DIMS(2), LIST(7, 8)),
            *wide = sent(c, make(c, KN_F64, DIMS(2), LIST(3, 4)));
  OK(c, kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){y, new}, 2, &same));
  kn_tensor_release(same);
  expect_there(c, y, KN_F64, DIMS(2), LIST(7, 8));
  OK(c, kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){x, y}, 2, &same));
  kn_tensor_release(same);
  expect(x, KN_F64, DIMS(2), LIST(7, 8));
  c->grad_enabled = false;
  const void *before = y->storage->data, *other = wide->storage->data;
  OK(c, kn_take_elements(c, y, wide)); /* memory changes hands within a device, … */
  ck_assert(y->storage->data == other && wide->storage->data == before);
  expect_there(c, y, KN_F64, DIMS(2), LIST(3, 4));
  OK(c, kn_take_elements(c, x, y)); /* … and never between two */
  expect(x, KN_F64, DIMS(2), LIST(3, 4));
  ck_assert(fake_owns(&f, y->storage->data) && !fake_owns(&f, x->storage->data));
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(new), kn_tensor_release(wide);
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

/* Each input's gradient comes to where the input is: back through to_device, and for a number of the host. */
START_TEST(gradients_come_home) {
  kn_context *c = suite_context();
  fake_device f;
  fake_device_open(&f, c);
  kn_tensor *x = make(c, KN_F32, DIMS(2), LIST(1, 2)), *w = number(c, KN_F32, 3), *in[2], *y, *z, *g[2];
  OK(c, kn_set_requires_grad(c, x, true));
  OK(c, kn_set_requires_grad(c, w, true));
  in[0] = there(c, x, KN_CUDA), in[1] = w;
  OK(c, kn_apply(c, KN_OP_mul, NULL, in, 2, &y));
  const kn_attrs_reduce all = {.keepdim = false};
  OK(c, kn_apply(c, KN_OP_sum, &all, &y, 1, &z));
  OK(c, kn_gradients(c, &z, 1, NULL, (kn_tensor *[]){x, w}, 2, false, g));
  expect(g[0], KN_F32, DIMS(2), LIST(3, 3));
  expect(g[1], KN_F32, SCALAR, LIST(3));
  kn_tensor_release(g[0]);
  FAILS(c, KN_SHAPE, "a gradient float32[]@cuda was given for a tensor float32[]",
        kn_gradients(c, &w, 1, &z, &w, 1, false, g));
  OK(c, kn_backward(c, z, NULL, false));
  OK(c, kn_backward(c, z, NULL, false)); /* adds up */
  expect(kn_grad_of(x), KN_F32, DIMS(2), LIST(6, 6));
  kn_tensor_release(g[1]);
  kn_tensor_release(x), kn_tensor_release(w), kn_tensor_release(in[0]), kn_tensor_release(y),
      kn_tensor_release(z);
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

START_TEST(from_outside) {
  kn_context *c = suite_context();
  kiln_context *outside = (kiln_context *)c;
  fake_device f;
  fake_device_open(&f, c);
  const float numbers[] = {1, 2, 3, 4};
  float got[4];
  kiln_tensor *x, *y, *same;
  ck_assert_int_eq(kiln_tensor_new(outside, KILN_FLOAT32, 2, (int64_t[]){2, 2}, numbers, &x), KILN_OK);
  ck_assert_int_eq(kiln_tensor_to(outside, x, "cuda:0", &y), KILN_OK);
  ck_assert_str_eq(kiln_tensor_device(x), "cpu");
  ck_assert_str_eq(kiln_tensor_device(y), "cuda");
  ck_assert_ptr_null(kiln_tensor_data(y));
  ck_assert_int_eq(kiln_tensor_read(outside, y, got, sizeof got), KILN_OK);
  ck_assert_mem_eq(got, numbers, sizeof got);
  ck_assert_int_eq(kiln_tensor_to(outside, y, "cuda", &same), KILN_OK);
  ck_assert_ptr_eq(same, y);
  kiln_tensor_release(same);
  ck_assert_int_eq(kiln_tensor_to(outside, y, "cpu", &same), KILN_OK);
  ck_assert_mem_eq(kiln_tensor_data(same), numbers, sizeof numbers);
  kiln_tensor_release(same);
  ck_assert_int_eq(kiln_tensor_to(outside, x, "abacus", &same), KILN_ARG);
  kiln_tensor_release(x), kiln_tensor_release(y);
  fake_device_close(&f);
  suite_done(c);
}
END_TEST

/* ---- graphs ---- */

/* The device of what is made from nothing and of what is moved is an attribute, not written where it is the
 * CPU. */
START_TEST(in_graphs) {
  static const char text[] = "graph g(%x: float32[N,2]) {\n"
                             "  %y: float32[N,2]@cuda = to_device %x {device = \"cuda\"}\n"
                             "  %o: float32[2]@cuda = full {sizes = {2}, value = 1.0, device = \"cuda\"}\n"
                             "  %two = const 2.0\n"
                             "  %n: float32[] = to_tensor %two\n"
                             "  %s: float32[N,2]@cuda = add %y, %o\n"
                             "  %d: float32[N,2]@cuda = mul %n, %s\n"
                             "  %z: float32[N,2] = to_device %d\n"
                             "  return %z\n"
                             "}\n";
  kn_context *c = suite_context();
  char *said;
  size_t length;
  kn_graph *g = parse(c, text);
  OK(c, kn_graph_print(c, g, KN_TEXT_FULL, &said, &length));
  ck_assert_str_eq(said, text);
  kn_free(c->heap, said, length + 1);
  kn_target t;
  kn_session *s;
  ck_assert(kn_ref_backend.target(c, NULL, &t));
  FAILS(c, KN_UNSUPPORTED, "y is on device cuda, and nothing here runs that",
        kn_session_new(c, g, (const kn_target *[]){&t}, 1, &s));
  kn_graph_release(g);
  FAILS(c, KN_FORMAT, "on different devices",
        kn_graph_parse(
            c, "graph g(%x: float32[2], %y: float32[2]@cuda) {\n  %z: float32[2] = add %x, %y\n}\n", 82, &g));
  FAILS(c, KN_FORMAT, "only constants on the CPU are written out",
        kn_graph_parse(c, "graph g() {\n  slot const \"k\": float32[1]@cuda = {1.0}\n}\n", 58, &g));
  suite_done(c);
}
END_TEST

SUITE("device", tensors_lie_on_the_device, children_ask_the_root, no_device, there_and_back, devices_meet,
      elements_go_over, gradients_come_home, from_outside, in_graphs)
