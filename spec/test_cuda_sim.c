/* The software device itself: kernels whose threads wait for each other, what it refuses as a driver does,
 * graphs with conditional nodes. What stands on it is tested elsewhere. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/kernel.h"
#include "spec/cuda/software.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static kn_context *ctx;
static cu_device *d;

static void open_device(void) {
  ctx = software_context();
  OK(ctx, cu_device_of(ctx, &d));
}
static void close_device(void) {
  kn_registry_close(ctx);
  suite_done(ctx);
}
#define DRIVER(call) ck_assert_int_eq(d->api.call, CUDA_SUCCESS)
#define REFUSED(call) ck_assert_int_ne(d->api.call, CUDA_SUCCESS)

/* Draws the same letters every time, for the software device too. */
static int drawn;
__attribute__((visibility("default"))) int mkstemp(char *pattern) {
  char letters[16];
  snprintf(letters, sizeof letters, "%06u", (unsigned)getpid() % 1000000);
  memcpy(strstr(pattern, "XXXXXX"), letters, 6);
  drawn++;
  return open(pattern, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static void put(void *text, cu_text *t) { cu_put(t, "%s", (const char *)text); }
static CUfunction kernel(const char *name, const char *text) {
  CUfunction f;
  OK(ctx, cu_kernel(ctx, d, text, name, put, (void *)(uintptr_t)text, &f));
  return f;
}
static void launch(CUfunction f, unsigned blocks, unsigned threads, void **arguments) {
  OK(ctx, cu_launch(ctx, d, f, (const unsigned[]){blocks, 1, 1}, threads, 0, arguments));
}
static CUdeviceptr room(size_t bytes) {
  CUdeviceptr p;
  DRIVER(cuMemAlloc(&p, bytes));
  return p;
}
static int number(CUdeviceptr p) {
  int x;
  DRIVER(cuMemcpyDtoHAsync(&x, p, sizeof x, d->main));
  DRIVER(cuStreamSynchronize(d->main));
  return x;
}

static const char sums[] = "KERNEL(256, sums)(const float *x, float *y, u32 n) {\n"
                           "  SHARED(float, part, 8);\n"
                           "  float s = 0;\n"
                           "  for (u32 i = THREAD; i < n; i += THREADS) s += x[BLOCK * n + i];\n"
                           "  for (int o = 16; o; o >>= 1) s += warp_xor_f32(s, o);\n"
                           "  if (THREAD % 32 == 0) part[THREAD / 32] = s;\n"
                           "  SYNC();\n"
                           "  if (THREAD == 0) {\n"
                           "    for (u32 w = 1; w < THREADS / 32; w++) s += part[w];\n"
                           "    y[BLOCK] = s;\n"
                           "  }\n"
                           "}\n";

START_TEST(threads_wait_for_each_other) {
  open_device();
  enum { ROWS = 3, N = 1000 };
  float x[ROWS * N], y[ROWS];
  for (int i = 0; i < ROWS * N; i++) x[i] = (float)(i % 7);
  CUdeviceptr dx = room(sizeof x), dy = room(sizeof y);
  DRIVER(cuMemcpyHtoDAsync(dx, x, sizeof x, d->main));
  unsigned n = N;
  launch(kernel("sums", sums), ROWS, 256, (void *[]){&dx, &dy, &n});
  DRIVER(cuMemcpyDtoHAsync(y, dy, sizeof y, d->main));
  DRIVER(cuStreamSynchronize(d->main));
  for (int r = 0; r < ROWS; r++) {
    float want = 0;
    for (int i = 0; i < N; i++) want += x[r * N + i];
    ck_assert_float_eq(y[r], want);
  }
  DRIVER(cuMemFree(dx));
  DRIVER(cuMemFree(dy));
  close_device();
}
END_TEST

START_TEST(a_module_is_not_mistaken_for_an_earlier_one) {
  open_device();
  enum { MODULES = 5 };
  const int before = drawn;
  for (int i = 1; i <= MODULES; i++) {
    char text[64];
    snprintf(text, sizeof text, "KERNEL(1, give)(int *n) { *n = %d; }\n", i);
    CUdeviceptr n = room(4);
    launch(kernel("give", text), 1, 1, (void *[]){&n});
    ck_assert_int_eq(number(n), i);
    DRIVER(cuMemFree(n));
  }
  ck_assert_int_eq(drawn - before, MODULES);
  close_device();
}
END_TEST

static const char steps[] =
    "KERNEL(1, step)(int *n) { *n += 1; }\n"
    "KERNEL(1, twice)(int *n) { *n *= 2; }\n"
    "KERNEL(1, below)(const int *n, int most, u64 h) { cudaGraphSetConditional(h, *n < most); }\n"
    "KERNEL(1, odd)(const int *n, u64 h) { cudaGraphSetConditional(h, *n & 1); }\n";

static CUgraph capturing(CUgraphNode *tail) {
  CUstreamCaptureStatus status;
  CUgraph g;
  const CUgraphNode *needs;
  size_t n;
  DRIVER(cuStreamGetCaptureInfo(d->main, &status, NULL, &g, &needs, NULL, &n));
  ck_assert_int_eq(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  *tail = n ? needs[n - 1] : NULL;
  return g;
}

/* Adds a conditional node behind what is captured. */
static void condition(CUgraphConditionalHandle h, CUgraphConditionalNodeType type, unsigned size,
                      CUgraph *bodies) {
  CUgraphNode tail, node;
  CUgraph g = capturing(&tail);
  CUgraphNodeParams p = {.type = CU_GRAPH_NODE_TYPE_CONDITIONAL};
  p.conditional.handle = h;
  p.conditional.type = type;
  p.conditional.size = size;
  p.conditional.ctx = d->context;
  DRIVER(cuGraphAddNode(&node, g, &tail, NULL, tail ? 1 : 0, &p));
  for (unsigned i = 0; i < size; i++) bodies[i] = p.conditional.phGraph_out[i];
  DRIVER(cuStreamUpdateCaptureDependencies(d->main, &node, NULL, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
}

static CUgraphConditionalHandle handle(void) {
  CUgraphNode tail;
  CUgraphConditionalHandle h;
  CUgraph g = capturing(&tail);
  DRIVER(cuGraphConditionalHandleCreate(&h, g, d->context, 0, CU_GRAPH_COND_ASSIGN_DEFAULT));
  return h;
}

static void resume(CUstream s, CUgraph g) {
  DRIVER(cuStreamBeginCaptureToGraph(s, g, NULL, NULL, 0, CU_STREAM_CAPTURE_MODE_RELAXED));
}

START_TEST(a_capture_that_waits_is_broken) {
  open_device();
  CUgraph g;
  CUdeviceptr n = room(4);
  DRIVER(cuStreamBeginCapture(d->main, CU_STREAM_CAPTURE_MODE_RELAXED));
  launch(kernel("step", steps), 1, 1, (void *[]){&n});
  REFUSED(cuStreamSynchronize(d->main));
  REFUSED(cuStreamEndCapture(d->main, &g));
  DRIVER(cuMemFree(n));
  close_device();
}
END_TEST

/* while (n < 100) { if (n odd) n += 1 else n *= 2 }, as one launch; from 3: 4 8 16 32 64 128. */
static CUgraphExec captured(CUdeviceptr n, CUgraph *g) {
  CUfunction step = kernel("step", steps), twice = kernel("twice", steps), below = kernel("below", steps),
             odd = kernel("odd", steps);
  CUstream outer = d->main, inner, innermost;
  CUgraph body, arms[2], done;
  CUgraphExec e;
  int most = 100;
  DRIVER(cuStreamCreate(&inner, CU_STREAM_NON_BLOCKING));
  DRIVER(cuStreamCreate(&innermost, CU_STREAM_NON_BLOCKING));
  DRIVER(cuStreamBeginCapture(d->main, CU_STREAM_CAPTURE_MODE_RELAXED));
  CUgraphConditionalHandle loop = handle();
  launch(below, 1, 1, (void *[]){&n, &most, &loop});
  condition(loop, CU_GRAPH_COND_TYPE_WHILE, 1, &body);
  d->main = inner;
  resume(inner, body);
  CUgraphConditionalHandle branch = handle();
  launch(odd, 1, 1, (void *[]){&n, &branch});
  condition(branch, CU_GRAPH_COND_TYPE_IF, 2, arms);
  for (int i = 0; i < 2; i++) {
    d->main = innermost;
    resume(innermost, arms[i]);
    launch(i ? twice : step, 1, 1, (void *[]){&n});
    DRIVER(cuStreamEndCapture(innermost, &done));
  }
  d->main = inner;
  launch(below, 1, 1, (void *[]){&n, &most, &loop});
  DRIVER(cuStreamEndCapture(inner, &done));
  d->main = outer;
  DRIVER(cuStreamEndCapture(d->main, g));
  CUDA_GRAPH_INSTANTIATE_PARAMS p = {0};
  DRIVER(cuGraphInstantiateWithParams(&e, *g, &p));
  REFUSED(cuGraphInstantiateWithParams(&e, *g, &p)); /* one at a time, with conditional nodes */
  DRIVER(cuStreamDestroy(inner));
  DRIVER(cuStreamDestroy(innermost));
  return e;
}

START_TEST(a_graph_runs_again) {
  static const char *const orders[] = {"", "last"};
  open_device();
  CUgraph g;
  CUdeviceptr n = room(4);
  CUgraphExec e = captured(n, &g);
  for (int k = 0; k < 4; k++) {
    int from = k % 2 ? 5 : 3;
    setenv("SIM_ORDER", orders[k / 2], 1);
    sim_counts before = software_counts();
    DRIVER(cuMemcpyHtoDAsync(n, &from, 4, d->main));
    DRIVER(cuGraphLaunch(e, d->main));
    sim_counts after = software_counts();
    ck_assert_uint_eq(after.graphs - before.graphs, 1);
    ck_assert_uint_eq(after.launches, before.launches);
    ck_assert_uint_eq(after.waits, before.waits);
    ck_assert_int_eq(number(n), k % 2 ? 192 : 128); /* 5 6 12 24 48 96 192 */
  }
  unsetenv("SIM_ORDER");
  DRIVER(cuGraphExecDestroy(e));
  DRIVER(cuGraphDestroy(g));
  DRIVER(cuMemFree(n));
  close_device();
}
END_TEST

START_TEST(refuses_what_a_driver_refuses) {
  open_device();
  CUgraph g;
  CUgraphExec e;
  CUgraphConditionalHandle h;
  CUDA_GRAPH_INSTANTIATE_PARAMS p = {0};
  CUdeviceptr x = room(64);
  char host[64];
  DRIVER(cuGraphCreate(&g, 0));
  DRIVER(cuGraphConditionalHandleCreate(&h, g, d->context, 0, 0));
  REFUSED(cuGraphInstantiateWithParams(&e, g, &p)); /* a handle that no node has */
  DRIVER(cuGraphDestroy(g));
  REFUSED(cuMemcpyHtoDAsync(x, host, 65, d->main));
  REFUSED(cuMemFree(x + 1));
  CUfunction f;
  CUmodule m;
  char nothing[128] = "no module";
  REFUSED(cuModuleLoadData(&m, nothing));
  ck_assert_int_eq(
      cu_kernel(ctx, d, "bad", "bad", put, (void *)(uintptr_t) "KERNEL(1, bad)(int *x) { x = = 1; }", &f),
      KN_INTERNAL);
  ck_assert_ptr_nonnull(strstr(kn_error(ctx), "cannot be compiled"));
  DRIVER(cuMemFree(x));
  close_device();
}
END_TEST

SUITE("cuda_sim", threads_wait_for_each_other, a_module_is_not_mistaken_for_an_earlier_one,
      a_capture_that_waits_is_broken, a_graph_runs_again, refuses_what_a_driver_refuses)
#else
START_TEST(without_cuda) { (void)suite_skips("built without CUDA's headers"); }
END_TEST
SUITE("cuda_sim", without_cuda)
#endif
