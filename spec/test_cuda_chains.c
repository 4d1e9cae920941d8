/* Sources of chains and scans: elementwise ops and folds, in every way of going over elements and rows,
 * compiled by the real NVRTC for each kind of device, with nothing spilled from registers. None of this needs
 * a device; what they compute is looked at by spec/test_cuda_sweep.c on the software device. KILN_REGISTERS=1
 * prints what each kernel takes. */
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/chain_layout.h"
#include "backends/cuda/prelude.h"
#include "backends/cuda/scan.h"
#include "spec/cuda/nvrtc.h"

/* An H200, as far as chains ask. Nothing is launched. */
static const cu_device h200 = {.processors = 132, .threads_per_processor = 2048};
static cu_api api;
static int compiled;

static void print_registers(const char *name, const char *source) {
  bool fine;
  char *log = nvrtc_log(&api, source, 90, &fine);
  for (const char *at = log; (at = strstr(at, "Used ")); at++)
    printf("%-40s %.*s\n", name, (int)strcspn(at, "\n"), at);
  free(log);
}

static void check_source(kn_context *c, cu_write_fn write, void *ud, const char *name) {
  cu_text t = {.heap = c->heap};
  cu_put(&t, "%s", cu_prelude);
  write(ud, &t);
  ck_assert(!t.failed);
  nvrtc_check(&api, name, t.s);
  if (getenv("KILN_REGISTERS")) print_registers(name, t.s);
  compiled++;
  cu_text_free(&t);
}

/* The chain must be gone over in this way, and its source must compile. */
static void check(kn_context *c, const cu_chain *chain, cu_way way, const char *name) {
  static cu_layout plan;
  OK(c, cu_chain_lay(c, &h200, chain, &plan));
  ck_assert_msg(plan.way == way, "%s: way %d instead of %d", name, (int)plan.way, (int)way);
  check_source(c, cu_chain_write, &plan, name);
}

/* Addresses that nobody follows. */
static cu_operand lying(kn_dtype dtype, const int64_t *strides, int rank) {
  static CUdeviceptr next = 1 << 20;
  cu_operand x = {.dtype = dtype, .at = next += 1 << 20};
  for (int d = 0; d < rank; d++) x.strides[d] = strides[d];
  return x;
}

static int read(cu_chain *c, kn_dtype dtype, const int64_t *strides) {
  cu_operand x = lying(dtype, strides, c->rank);
  return cu_chain_operand(c, &x);
}

static void write(cu_chain *c, int value, const int64_t *strides) {
  cu_operand x = lying(cu_chain_dtype(c, value), strides, c->rank);
  cu_chain_result(c, value, &x);
}

#define STRIDES(...) ((int64_t[]){__VA_ARGS__})
static cu_chain sized(int64_t rows, int64_t cols, int over) {
  return (cu_chain){.rank = 2, .over = over, .dims = {rows, cols}};
}

static kn_context *open_all(void) {
  return nvrtc_open(&api) || !suite_skips("there is no NVRTC") ? suite_context() : NULL;
}

static void close_all(kn_context *c) {
  cu_api_close(&api);
  suite_done(c);
}

/* ---- elementwise ---- */

static void one_op(kn_context *c, kn_op op, kn_dtype dtype) {
  cu_chain chain = sized(1000, 1000, 0);
  cu_formula_kind kind = cu_formula_kind_of(op);
  bool boolean = kind == CU_FORMULA_COMPARE || kind == CU_FORMULA_TEST;
  kn_attrs_any attrs = {.polygamma = {.n = 1}};
  int in[3], n = kind == CU_FORMULA_ORDER || kind == CU_FORMULA_LIMIT ? 1 : cu_formula_arity(op);
  char name[64];
  for (int k = 0; k < n; k++)
    in[k] = read(&chain, kind == CU_FORMULA_CHOOSE && k == 0 ? KN_BOOL : dtype, STRIDES(1000, 1));
  write(&chain, cu_chain_step(&chain, op, &attrs, in, n, dtype, boolean ? KN_BOOL : dtype), STRIDES(1000, 1));
  snprintf(name, sizeof name, "%s of %s", kn_op_name(op), kn_dtype_name(dtype));
  check(c, &chain, CU_FLAT, name);
}

START_TEST(every_formula) {
  kn_context *c = open_all();
  if (!c) return;
  static const kn_op all[] = {
#define ELEMENTWISE(name) KN_OP_##name,
#include "core/kernels/elementwise.def"
  };
  static const kn_dtype some[] = {KN_BOOL, KN_I64, KN_F32, KN_F64};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    for (size_t d = 0; d < 4; d++)
      if (cu_formula_has(all[i], some[d]) && (i + d) % 3 == 0) one_op(c, all[i], some[d]);
  static const kn_dtype dtypes[] = {KN_U8, KN_I8, KN_I16, KN_I32, KN_F16, KN_BF16};
  for (size_t d = 0; d < 6; d++) one_op(c, KN_OP_add, dtypes[d]);
  ck_assert_int_gt(compiled, 30);
  close_all(c);
}
END_TEST

/* ---- layouts ---- */

START_TEST(layouts) {
  kn_context *c = open_all();
  if (!c) return;
  static const kn_dtype dtypes[] = {KN_F32, KN_BF16, KN_U8};
  for (size_t d = 0; d < 3; d++) {
    cu_chain row = sized(512, 1024, 0), column = row, across = row, odd = sized(513, 1001, 0);
    int x = read(&row, dtypes[d], STRIDES(1024, 1)), b = read(&row, dtypes[d], STRIDES(0, 1));
    write(&row, cu_chain_step(&row, KN_OP_add, NULL, (int[]){x, b}, 2, dtypes[d], dtypes[d]),
          STRIDES(1024, 1));
    check(c, &row, CU_LINES, "a row beside each");
    x = read(&column, dtypes[d], STRIDES(1024, 1)), b = read(&column, dtypes[d], STRIDES(1, 0));
    write(&column, cu_chain_step(&column, KN_OP_add, NULL, (int[]){x, b}, 2, dtypes[d], dtypes[d]),
          STRIDES(1024, 1));
    check(c, &column, CU_LINES, "a column beside each");
    write(&across, read(&across, dtypes[d], STRIDES(1, 512)), STRIDES(1024, 1));
    check(c, &across, CU_TILES, "transposed copy");
    x = read(&odd, dtypes[d], STRIDES(2002, 2)), b = read(&odd, dtypes[d], STRIDES(1, 513));
    write(&odd, cu_chain_step(&odd, KN_OP_mul, NULL, (int[]){x, b}, 2, dtypes[d], dtypes[d]),
          STRIDES(1001, 1));
    check(c, &odd, CU_TILES, "every other one, by a transposed one");
  }
  cu_chain huge = sized(1 << 20, 1 << 13, 0); /* more elements than 32 bits count */
  write(&huge,
        cu_chain_step(&huge, KN_OP_exp, NULL, (int[]){read(&huge, KN_F32, STRIDES(0, 1))}, 1, KN_F32, KN_F32),
        STRIDES(1 << 13, 1));
  check(c, &huge, CU_LINES, "huge");
  close_all(c);
}
END_TEST

/* ---- rows ---- */

START_TEST(folds) {
  kn_context *c = open_all();
  if (!c) return;
  static const kn_op all[] = {KN_OP_sum, KN_OP_mean, KN_OP_prod,   KN_OP_amax,  KN_OP_amin,
                              KN_OP_all, KN_OP_any,  KN_OP_argmax, KN_OP_argmin};
  static const kn_dtype dtypes[] = {KN_F32, KN_BF16, KN_I32, KN_BOOL};
  static const struct {
    int64_t rows, cols, strides[2];
    cu_way way;
    const char *name;
  } cases[] = {{1 << 16, 256, {256, 1}, CU_WARP, "short rows"},
               {1 << 13, 8192, {8192, 1}, CU_BLOCK, "long rows"},
               {4, 1 << 22, {1 << 22, 1}, CU_BLOCK, "few rows"},
               {1 << 13, 1 << 12, {1, 1 << 13}, CU_COLUMN, "columns"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    for (size_t k = 0; k < 4; k++) {
      kn_dtype d = dtypes[(i + k) % 4], to = d;
      if (all[i] == KN_OP_mean && !kn_dtype_is_float(d)) continue;
      if (all[i] == KN_OP_all || all[i] == KN_OP_any) to = KN_BOOL;
      if (all[i] == KN_OP_argmax || all[i] == KN_OP_argmin) to = KN_I64;
      cu_chain chain = sized(cases[k].rows, cases[k].cols, 1);
      int x = read(&chain, d, cases[k].strides);
      write(&chain, cu_chain_step(&chain, all[i], NULL, &x, 1, d, to), STRIDES(1, 0));
      check(c, &chain, cases[k].way, cases[k].name);
    }
  close_all(c);
}
END_TEST

#define STEP(op, as, dtype, ...)                                                                             \
  cu_chain_step(&chain, KN_OP_##op, NULL, (int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int),  \
                as, dtype)

/* softmax(x) as reduce.c has it, and layer norm with weight and bias, of rows of this length. */
static void chains_of_rows(kn_context *c, kn_dtype d, int64_t cols, cu_way way) {
  const double one = 1;
  const float eps = 1e-5f;
  cu_chain chain = sized(4096, cols, 1);
  int x = STEP(cast, KN_F32, KN_F32, read(&chain, d, STRIDES(cols, 1)));
  int e = STEP(exp, KN_F32, KN_F32, STEP(sub, KN_F32, KN_F32, x, STEP(amax, KN_F32, KN_F32, x)));
  int scale = STEP(div, KN_F64, KN_F64, cu_chain_number(&chain, KN_F64, &one), STEP(sum, KN_F32, KN_F64, e));
  write(&chain, STEP(mul, KN_F32, d, e, STEP(cast, KN_F32, KN_F32, scale)), STRIDES(cols, 1));
  check(c, &chain, way, "softmax");
  chain = sized(4096, cols, 1);
  x = STEP(cast, KN_F32, KN_F32, read(&chain, d, STRIDES(cols, 1)));
  int mean = STEP(mean, KN_F32, KN_F32, x), from = STEP(sub, KN_F32, KN_F32, x, mean);
  int variance = STEP(mean, KN_F32, KN_F32, STEP(mul, KN_F32, KN_F32, from, from));
  int rstd =
      STEP(rsqrt, KN_F32, KN_F32, STEP(add, KN_F32, KN_F32, variance, cu_chain_number(&chain, KN_F32, &eps)));
  int y = STEP(mul, KN_F32, KN_F32, STEP(mul, KN_F32, KN_F32, from, rstd), read(&chain, d, STRIDES(0, 1)));
  write(&chain, STEP(add, KN_F32, d, y, read(&chain, d, STRIDES(0, 1))), STRIDES(cols, 1));
  write(&chain, mean, STRIDES(1, 0));
  write(&chain, rstd, STRIDES(1, 0));
  check(c, &chain, way, "layer norm");
}

START_TEST(rows_that_go_on) {
  kn_context *c = open_all();
  if (!c) return;
  static const kn_dtype dtypes[] = {KN_F32, KN_BF16};
  for (size_t d = 0; d < 2; d++) {
    chains_of_rows(c, dtypes[d], 512, CU_WARP);
    chains_of_rows(c, dtypes[d], 4096, CU_BLOCK);
    chains_of_rows(c, dtypes[d], 50257, CU_BLOCK);
  }
  close_all(c);
}
END_TEST

/* Names of what steps make are nobody else's: there were a u8, a u16 and a u32. */
START_TEST(sums_of_every_step) {
  kn_context *c = open_all();
  if (!c) return;
  for (int before = 8; before <= 32; before *= 2) {
    cu_chain chain = sized(64, 256, 1);
    int x = read(&chain, KN_F32, STRIDES(256, 1));
    for (int i = 2; i < before; i++) x = STEP(neg, KN_F32, KN_F32, x);
    x = STEP(where, KN_F32, KN_F32, STEP(gt, KN_F32, KN_BOOL, x, x), x, x);
    write(&chain, STEP(sum, KN_F32, KN_F32, x), STRIDES(1, 0));
    check(c, &chain, CU_WARP, "a sum behind so many steps");
  }
  close_all(c);
}
END_TEST

START_TEST(scans) {
  kn_context *c = open_all();
  if (!c) return;
  cu_scan some[] = {{KN_F32, KN_F32, false}, {KN_BF16, KN_BF16, true}, {KN_U8, KN_I64, false}};
  for (size_t i = 0; i < 3; i++) check_source(c, cu_scan_write, &some[i], "scan");
  close_all(c);
}
END_TEST

/* What does not fit in one kernel is refused, and nothing is written past the end. */
START_TEST(full_chains) {
  kn_context *c = suite_context();
  static cu_layout plan;
  cu_chain chain = sized(8, 8, 0);
  for (int i = 0; i < 3 * CU_CHAIN_STEPS; i++)
    cu_chain_step(&chain, KN_OP_exp, NULL, (int[]){read(&chain, KN_F32, STRIDES(8, 1))}, 1, KN_F32, KN_F32);
  for (int i = 0; i < 3 * CU_CHAIN_OUTPUTS; i++) write(&chain, 0, STRIDES(8, 1));
  FAILS(c, KN_UNSUPPORTED, "more steps or operands", cu_chain_lay(c, &h200, &chain, &plan));
  suite_done(c);
}
END_TEST

SUITE("cuda_chains", every_formula, layouts, folds, rows_that_go_on, sums_of_every_step, scans, full_chains)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_chains", no_headers)
#endif
