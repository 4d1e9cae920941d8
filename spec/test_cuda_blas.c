/* Products on the software device: every rank rule, dtype and way to lie, against the reference; which
 * precision is asked for; epilogues. */
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/blas.h"
#include "backends/cuda/product.h"
#include "spec/cuda/compare.h"
#include <dlfcn.h>

/* Uneven numbers; whole ones are small enough for int8 to wrap now and then. */
static kn_tensor *uneven(kn_context *c, kn_dtype dtype, const int64_t *dims, int rank, int salt) {
  kn_type type = {.dtype = (uint8_t)dtype, .device = KN_CPU, .rank = (uint8_t)rank};
  kn_tensor *t;
  memcpy(type.dims, dims, (size_t)rank * sizeof *dims);
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) {
    double u = (double)((k * 37 + salt * 11 + 5) % 101) / 101;
    set_element(t, k, kn_dtype_is_float(dtype) ? 2 * u - 1 : floor(40 * u));
  }
  return t;
}

/* How a factor comes to lie. */
typedef enum lying { AS_IT_IS, TURNED, EVERY_OTHER, EXPANDED } lying;

static void view(kn_context *c, kn_op op, const void *attrs, kn_tensor **t) {
  kn_tensor *out;
  OK(c, kn_apply(c, op, attrs, t, 1, &out));
  kn_tensor_release(*t);
  *t = out;
}

/* A tensor of these sizes on each device, lying so. */
static void factor(kn_context *c, kn_context *ref, kn_dtype dtype, const int64_t *dims, int rank, lying how,
                   int salt, kn_tensor **host, kn_tensor **device) {
  int64_t room[KN_MAX_RANK];
  memcpy(room, dims, (size_t)rank * sizeof *dims);
  bool turned = how == TURNED && rank > 1, skips = how == EVERY_OTHER, expanded = how == EXPANDED && rank > 2;
  if (turned) room[rank - 1] = dims[rank - 2], room[rank - 2] = dims[rank - 1];
  if (skips) room[rank - 1] = 2 * dims[rank - 1];
  if (expanded) room[0] = 1;
  *host = uneven(ref, dtype, room, rank, salt);
  *device = on_cuda(c, *host);
  kn_context *contexts[] = {ref, c};
  kn_tensor **ts[] = {host, device};
  for (int i = 0; i < 2; i++) {
    if (turned)
      view(contexts[i], KN_OP_transpose, &(kn_attrs_swap){.dim0 = rank - 2, .dim1 = rank - 1}, ts[i]);
    if (skips)
      view(contexts[i], KN_OP_slice,
           &(kn_attrs_slice){.dim = rank - 1, .start = 0, .stop = KN_TO_END, .step = 2}, ts[i]);
    if (expanded) {
      kn_attrs_sizes a = {0};
      a.sizes.n = rank;
      memcpy(a.sizes.v, dims, (size_t)rank * sizeof *dims);
      view(contexts[i], KN_OP_expand, &a, ts[i]);
    }
  }
}

typedef struct shapes {
  int a_rank, b_rank;
  int64_t a[4], b[4];
} shapes;
static const shapes cases[] = {
    {2, 2, {5, 7}, {7, 3}},
    {1, 2, {7}, {7, 3}},
    {2, 1, {5, 7}, {7}},
    {1, 1, {7}, {7}},
    {3, 2, {4, 5, 7}, {7, 3}},
    {2, 3, {5, 7}, {4, 7, 3}},
    {3, 3, {4, 5, 7}, {4, 7, 3}},
    {4, 3, {2, 4, 5, 7}, {4, 7, 3}},
    {4, 4, {2, 1, 5, 7}, {1, 3, 7, 2}},
    {1, 3, {7}, {4, 7, 3}},
    {3, 1, {4, 5, 7}, {7}},
    {2, 2, {0, 7}, {7, 3}},
    {2, 2, {5, 0}, {0, 3}},
    {3, 3, {0, 5, 7}, {0, 7, 3}},
    {2, 2, {1, 7}, {7, 1}},
    {2, 2, {33, 65}, {65, 40}},
};
enum { CASES = sizeof cases / sizeof *cases };

static bool all_cases(kn_dtype dtype) {
  kn_context *c = sim_context();
  if (!c) return false;
  kn_context *ref = suite_context();
  for (int i = 0; i < CASES; i++)
    for (int how = 0; how < 16; how++) {
      const shapes *s = &cases[i];
      kn_tensor *host[2], *device[2];
      char text[96];
      if (how / 4 == EXPANDED && s->a_rank < 3 && how % 4 == EXPANDED) continue;
      factor(c, ref, dtype, s->a, s->a_rank, (lying)(how / 4), 1, &host[0], &device[0]);
      factor(c, ref, dtype, s->b, s->b_rank, (lying)(how % 4), 2, &host[1], &device[1]);
      snprintf(text, sizeof text, "%s, case %d, lying %d and %d", kn_dtype_name(dtype), i + 1, how / 4,
               how % 4);
      sim_compare(c, ref, KN_OP_matmul, NULL, host, device, 2, text);
      for (int k = 0; k < 2; k++) kn_tensor_release(host[k]), kn_tensor_release(device[k]);
    }
  suite_done(ref);
  sim_done(c);
  return true;
}

START_TEST(float32) { all_cases(KN_F32); }
END_TEST
START_TEST(float64) { all_cases(KN_F64); }
END_TEST
START_TEST(float16) { all_cases(KN_F16); }
END_TEST
START_TEST(bfloat16) { all_cases(KN_BF16); }
END_TEST
START_TEST(int64) { all_cases(KN_I64); }
END_TEST
START_TEST(small_integers) {
  if (all_cases(KN_I32)) all_cases(KN_I8);
}
END_TEST

/* Heads that lie between rows, as attention has them: two batch dims that are not one. */
START_TEST(heads_between_rows) {
  kn_context *c = sim_context();
  if (!c) return;
  kn_context *ref = suite_context();
  const int64_t dims[] = {2, 5, 3, 8}; /* batch, rows, heads, depth */
  kn_tensor *host[2], *device[2];
  for (int i = 0; i < 2; i++) {
    host[i] = uneven(ref, KN_F32, dims, 4, i);
    device[i] = on_cuda(c, host[i]);
    kn_attrs_swap heads = {.dim0 = 1, .dim1 = 2}, turn = {.dim0 = 2, .dim1 = 3};
    view(ref, KN_OP_transpose, &heads, &host[i]), view(c, KN_OP_transpose, &heads, &device[i]);
    if (i) view(ref, KN_OP_transpose, &turn, &host[i]), view(c, KN_OP_transpose, &turn, &device[i]);
  }
  sim_compare(c, ref, KN_OP_matmul, NULL, host, device, 2, "heads");
  for (int i = 0; i < 2; i++) kn_tensor_release(host[i]), kn_tensor_release(device[i]);
  suite_done(ref);
  sim_done(c);
}
END_TEST

/* ---- what is asked of the library ---- */

typedef struct bench {
  kn_context *c;
  cu_device *d;
  kn_tensor *a, *b, *out, *bias, *aux;
  cu_product p;
} bench;
enum { M = 6, K = 10, N = 8 };

static bool bench_open(bench *w, kn_dtype dtype) {
  *w = (bench){.c = sim_context()};
  if (!w->c) return false;
  OK(w->c, cu_device_of(w->c, &w->d));
  kn_tensor **ts[] = {&w->a, &w->b, &w->out, &w->bias, &w->aux};
  const int64_t dims[][2] = {{M, K}, {K, N}, {M, N}, {1, N}, {M, 128}};
  for (int i = 0; i < 5; i++) {
    kn_tensor *t = uneven(w->c, dtype, dims[i], 2, i);
    *ts[i] = on_cuda(w->c, t);
    kn_tensor_release(t);
  }
  cu_product_of(&w->p, cu_view_of(w->a), cu_view_of(w->b), &w->out->type);
  w->p.a.at = cu_address(w->a), w->p.b.at = cu_address(w->b), w->p.c = cu_address(w->out);
  return true;
}

static void bench_close(bench *w) {
  kn_tensor *ts[] = {w->a, w->b, w->out, w->bias, w->aux};
  for (int i = 0; i < 5; i++) kn_tensor_release(ts[i]);
  sim_done(w->c);
}

static double *read_all(bench *w, kn_tensor *t) {
  kn_tensor *back = from_cuda(w->c, t);
  double *out = malloc((size_t)kn_tensor_numel(back) * sizeof *out);
  for (int64_t k = 0; k < kn_tensor_numel(back); k++) out[k] = element(back, k);
  kn_tensor_release(back);
  return out;
}

START_TEST(precision_is_obeyed) {
  bench w;
  if (!bench_open(&w, KN_F32)) return;
  for (int i = KN_FLOAT32_HIGHEST; i <= KN_FLOAT32_MEDIUM; i++) {
    w.c->float32_precision = (uint8_t)i;
    OK(w.c, cu_product_run(w.c, w.d, &w.p));
    ck_assert_int_eq(cu_blas_last(w.d).compute, i ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F);
  }
  bench_close(&w);
  static const kn_dtype others[] = {KN_F16, KN_BF16, KN_F64};
  for (int i = 0; i < 3; i++) {
    if (!bench_open(&w, others[i])) return;
    w.c->float32_precision = KN_FLOAT32_HIGH; /* of float32 only */
    OK(w.c, cu_product_run(w.c, w.d, &w.p));
    ck_assert_int_eq(cu_blas_last(w.d).compute, i == 2 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F);
    bench_close(&w);
  }
}
END_TEST

START_TEST(another_algorithm) {
  bench w;
  if (!bench_open(&w, KN_F32)) return;
  ck_assert(!cu_blas_choose(w.c, w.d, &w.p, 1)); /* not known yet */
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  cu_blas_choice first = cu_blas_last(w.d);
  ck_assert_int_eq(first.chosen, 0);
  ck_assert_int_gt(first.found, 1);
  ck_assert(cu_blas_choose(w.c, w.d, &w.p, 1));
  ck_assert(!cu_blas_choose(w.c, w.d, &w.p, first.found));
  double *before = read_all(&w, w.out);
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  ck_assert_int_eq(cu_blas_last(w.d).chosen, 1);
  ck_assert_int_gt(cu_blas_last(w.d).workspace, 0);
  double *after = read_all(&w, w.out);
  for (int i = 0; i < M * N; i++) ck_assert(before[i] == after[i]);
  free(before), free(after);
  bench_close(&w);
}
END_TEST

START_TEST(sums_are_added) {
  bench w;
  if (!bench_open(&w, KN_F32)) return;
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *once = read_all(&w, w.out);
  w.p.add = w.p.c;
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *twice = read_all(&w, w.out);
  for (int i = 0; i < M * N; i++) ck_assert(near(twice[i], 2 * once[i], 1e-6));
  free(once), free(twice);
  bench_close(&w);
}
END_TEST

START_TEST(epilogues) {
  bench w;
  if (!bench_open(&w, KN_F32)) return;
  char why[96];
  double *bias = read_all(&w, w.bias), *a = read_all(&w, w.a), *b = read_all(&w, w.b);
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *plain = read_all(&w, w.out);
  w.p.epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
  ck_assert(!cu_blas_supports(&w.p, why, sizeof why) && strstr(why, "bias"));
  w.p.bias = cu_address(w.bias), w.p.aux = cu_address(w.aux), w.p.aux_row = 128;
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *got = read_all(&w, w.out);
  for (int i = 0; i < M * N; i++) ck_assert(near(got[i], fmax(0, plain[i] + bias[i % N]), 1e-5));
  /* Backwards: what was negative gives nothing; the bias takes the sums of columns. */
  w.p.epilogue = CUBLASLT_EPILOGUE_DRELU_BGRAD;
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *slope = read_all(&w, w.out), *sums = read_all(&w, w.bias);
  for (int j = 0; j < N; j++) {
    double sum = 0;
    for (int i = 0; i < M; i++) {
      ck_assert(near(slope[i * N + j], got[i * N + j] > 0 ? plain[i * N + j] : 0, 1e-5));
      sum += slope[i * N + j];
    }
    ck_assert(near(sums[j], sum, 1e-5));
  }
  /* Sums of a factor over k: of b's columns, N of them, and of a's rows, M. */
  w.p.epilogue = CUBLASLT_EPILOGUE_BGRADA, w.p.aux = 0;
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *of_b = read_all(&w, w.bias);
  w.p.epilogue = CUBLASLT_EPILOGUE_BGRADB;
  OK(w.c, cu_product_run(w.c, w.d, &w.p));
  double *of_a = read_all(&w, w.bias);
  for (int j = 0; j < N; j++) {
    double sum_b = 0, sum_a = 0;
    for (int k = 0; k < K; k++) sum_b += b[k * N + j], sum_a += j < M ? a[j * K + k] : 0;
    ck_assert(near(of_b[j], sum_b, 1e-5));
    if (j < M) ck_assert(near(of_a[j], sum_a, 1e-5));
  }
  double *all[] = {bias, a, b, plain, got, slope, sums, of_b, of_a};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  bench_close(&w);
}
END_TEST

START_TEST(kernels_compile) {
  static const kn_dtype dtypes[] = {KN_F32, KN_F64, KN_F16, KN_BF16, KN_I64, KN_I32, KN_I16, KN_I8, KN_U8};
  sim_compiles("product", cu_tiles_write, dtypes, 9);
}
END_TEST

SUITE("cuda_blas", kernels_compile, float32, float64, float16, bfloat16, int64, small_integers,
      heads_between_rows, precision_is_obeyed, another_algorithm, sums_are_added, epilogues)
#else
START_TEST(no_headers) { suite_skips("kiln was built without CUDA's headers"); }
END_TEST
SUITE("cuda_blas", no_headers)
#endif
