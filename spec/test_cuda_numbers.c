/* The kernel of numbers: its text is compiled by the real NVRTC, and by this compiler to be run on the host,
 * where it must do what kn_scalar_eval and its like do. */
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/numbers.h"
#include "backends/cuda/prelude.h"
#include "core/half.h"
#include "graph/scalar_rules.h"
#include "spec/cuda/nvrtc.h"
#include "spec/tensors.h"

/* ---- the device's text, on the host ---- */

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int16_t i16;
typedef int32_t i32;
#define DEVICE static inline
#define KERNEL(threads, name) static void name
#define NUMBERS_SET_IF CU_SET_IF
#define NUMBERS_SET_AGAIN CU_SET_AGAIN
#define NUMBERS_SET_ENTER CU_SET_ENTER
#define f32_of_f16 kn_f16_to_f32
#define f32_of_bf16 kn_bf16_to_f32
#define f16_of_f64 kn_f64_to_f16
#define bf16_of_f64 kn_f64_to_bf16
static int was_set;
static void cudaGraphSetConditional(u64 handle, u32 value) { was_set = (int)(handle * 10 + value); }
#include "backends/cuda/numbers_device.h"

/* ---- cells ---- */

enum { CELLS = 16 };
static kn_scalar cells[CELLS];

static void run(const kn_whole_number *x, uint32_t n, cu_set set, uint32_t cell) {
  numbers_all q = {.cells = (u64)(uintptr_t)cells, .n = n, .first = 5, .set = set, .cell = cell, .handle = 1};
  for (uint32_t i = 0; i < n; i++) q.step[i] = cu_number_step(&x[i]);
  numbers(q);
}

static kn_scalar draw(uint64_t seed, uint64_t i) {
  static const double floats[] = {0, -0.0, 1, -1, 2, 0.5, 3, -7.5, 1e300, -1e19, 0x1p63, INFINITY, NAN, 300};
  static const int64_t ints[] = {0, 1, -1, 2, 3, -7, 63, 64, -64, 255, 256, INT64_MAX, INT64_MIN, 40};
  const uint32_t w = kn_random_word(seed, 3, i);
  if (w % 2) return (kn_scalar){KN_SCALAR_FLOAT, {.f = floats[w / 2 % 14]}};
  return (kn_scalar){KN_SCALAR_INT, {.i = ints[w / 2 % 14]}};
}

static bool same(const kn_scalar *a, const kn_scalar *b) {
  if (a->kind != b->kind) return false;
  if (a->kind == KN_SCALAR_BOOL) return a->as.b == b->as.b;
  if (a->kind == KN_SCALAR_FLOAT && isnan(a->as.f)) return isnan(b->as.f);
  return a->as.i == b->as.i;
}

/* All ops on all kinds of numbers, faults included, which stay the first. */
START_TEST(evaluates_as_the_host) {
  kn_context *c = suite_context();
  int faults = 0, fine = 0;
  for (uint64_t i = 0; i < 20000; i++) {
    const kn_opcode op =
        (kn_opcode)(KN_NODE_lua_add + (kn_opcode)(i % (KN_NODE_for_count - KN_NODE_lua_add + 1)));
    const uint32_t n = kn_opcode_describe(op).nin;
    kn_scalar want;
    kn_whole_number x = {.kind = KN_NUMBER_EVAL, .op = op, .nin = n, .in = {4, 5, 6}, .out = 7};
    memset(cells, 0, sizeof cells);
    for (uint32_t k = 0; k < 3; k++) cells[4 + k] = draw(7, 3 * i + k);
    if (op == KN_NODE_lua_not) cells[4] = (kn_scalar){KN_SCALAR_BOOL, {.b = i % 3 == 0}};
    const kn_status st = kn_scalar_eval(c, op, cells + 4, n, &want);
    if (st != KN_OK && st != KN_RAISED) continue; /* not these kinds */
    run(&x, 1, CU_SET_NONE, 0);
    ck_assert_int_eq(cells[0].as.i, st == KN_OK ? 0 : 6);
    if (st == KN_OK)
      ck_assert_msg(same(&want, &cells[7]), "%s", kn_opcode_describe(op).text), fine++;
    else
      ck_assert(same(&cells[1], &cells[4])), faults++;
    kn_scalar one = cells[0];
    run(&(kn_whole_number){.kind = KN_NUMBER_FAIL}, 1, CU_SET_NONE, 0);
    ck_assert(st == KN_OK ? cells[0].as.i == 6 : same(&cells[0], &one));
  }
  ck_assert(fine > 5000 && faults > 200);
  suite_done(c);
}
END_TEST

/* Elements are read, checked and written as the host does it, of all dtypes. */
START_TEST(elements_as_the_host) {
  kn_context *c = suite_context();
  for (int d = 0; d < KN_DTYPE_COUNT; d++)
    for (uint64_t i = 0; i < 400; i++) {
      kn_tensor *a = number(c, (kn_dtype)d, 0), *b = number(c, (kn_dtype)d, 0);
      memset(cells, 0, sizeof cells);
      cells[4] = i % 9 ? draw(9, i) : (kn_scalar){KN_SCALAR_BOOL, {.b = i % 2}};
      const kn_whole_number x[] = {{.kind = KN_NUMBER_WRITE, .nin = 1, .in = {4}, .tensor = a},
                                   {.kind = KN_NUMBER_READ, .out = 5, .tensor = a}};
      run(x, 2, CU_SET_NONE, 0);
      const kn_status st = kn_scalar_check(c, &cells[4], (kn_dtype)d);
      ck_assert_int_eq(cells[0].as.i != 0, st != KN_OK);
      if (st == KN_OK) kn_scalar_write(&cells[4], b);
      const kn_scalar want = kn_scalar_read(b);
      ck_assert_msg(same(&want, &cells[5]), "%s", kn_dtype_name((kn_dtype)d));
      kn_tensor_release(a), kn_tensor_release(b);
    }
  suite_done(c);
}
END_TEST

START_TEST(conditions) {
  const kn_scalar yes = {KN_SCALAR_BOOL, {.b = true}}, no = {KN_SCALAR_BOOL, {.b = false}};
  memset(cells, 0, sizeof cells);
  cells[4] = yes, cells[5] = no, cells[6] = (kn_scalar){KN_SCALAR_INT, {.i = 9}};
  const kn_whole_number moves[] = {{.kind = KN_NUMBER_WHEN, .nin = 2, .in = {6, 4}, .out = 7},
                                   {.kind = KN_NUMBER_WHEN, .nin = 2, .in = {6, 5}, .out = 8},
                                   {.kind = KN_NUMBER_MOVE, .nin = 1, .in = {6}, .out = 9}};
  run(moves, 3, CU_SET_IF, 4);
  ck_assert(cells[7].as.i == 9 && cells[8].as.i == 0 && cells[9].as.i == 9);
  ck_assert_int_eq(was_set, 11);
  run(NULL, 0, CU_SET_IF, 5);
  ck_assert_int_eq(was_set, 10);
  run(NULL, 0, CU_SET_AGAIN, 4);
  ck_assert_int_eq(was_set, 11);
  const kn_whole_number check = {.kind = KN_NUMBER_CHECK, .nin = 1, .in = {5}};
  run(&check, 1, CU_SET_AGAIN, 4); /* a fault ends loops */
  ck_assert_int_eq(was_set, 10);
  ck_assert_int_eq(cells[0].as.i, 6);
  run(NULL, 0, CU_SET_ENTER, 0);
  ck_assert_int_eq(was_set, 11);
}
END_TEST

START_TEST(compiles) {
  cu_api api;
  if (!nvrtc_open(&api) && suite_skips("there is no NVRTC")) return;
  kn_context *c = suite_context();
  cu_text t = {.heap = c->heap};
  cu_put(&t, "%s", cu_prelude);
  cu_numbers_source(NULL, &t);
  ck_assert(!t.failed);
  nvrtc_check(&api, "numbers", t.s);
  cu_text_free(&t);
  cu_api_close(&api);
  suite_done(c);
}
END_TEST

SUITE("cuda_numbers", evaluates_as_the_host, elements_as_the_host, conditions, compiles)
#else
START_TEST(without_cuda) { suite_skips("CUDA's headers are not here"); }
END_TEST
SUITE("cuda_numbers", without_cuda)
#endif
