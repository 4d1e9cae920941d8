/* Plans of the real cuDNN for machines with GPUs that are not here: the library finds engines and makes plans
 * for a device that a JSON text describes, and the kernels it compiles are loaded by a libcuda that only says
 * yes (spec/cuda/fake). Which engine it takes is not asked: on a device it may take another. Without the
 * libraries all is skipped. KILN_SWEEP=whole makes every plan of the tables; without it a part. */
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/attention.h"
#include "backends/cuda/blas.h"
#include "backends/cuda/conv.h"
#include "core/heap.h"
#include <dlfcn.h>

/* ---- the library, and machines ---- */

static cu_api api;
static void *fake;

static bool no_library(void) {
  char path[512], why[256];
  /* It loads and unloads libraries that keep memory, whose names are gone when leaks are looked for. */
  if (getenv("KILN_SANITIZED")) return suite_skips("cuDNN under a sanitizer");
  if (api.filled[CU_DNN]) return false;
  const char *build = getenv("KILN_BUILD");
  snprintf(path, sizeof path, "%s/spec/cuda/fake/libcuda.so.1", build ? build : "build");
  if (!fake) fake = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (!fake) return suite_skips("there is no toolkit whose libcuda plans could be made with");
  if (!cu_api_open(&api, CU_DNN, why, sizeof why)) return suite_skips(why);
  ck_assert_msg(!dlsym(api.handle[CU_DNN], "sim_dnn_calls"), "this is the software device's");
  return false;
}

/* What matters to plans: generation, multiprocessors, shared memory of a block. */
typedef struct machine {
  const char *name;
  int generation, processors, shared;
} machine;
static const machine machines[] = {
    {"sm_80", 800, 108, 166912}, {"sm_90", 900, 132, 232448}, {"sm_100", 1000, 148, 232448}};
enum { MACHINES = sizeof machines / sizeof *machines, HOPPER = 1 };

static cu_dnn *open_machine(kn_context *c, const machine *m) {
  char json[1024];
  snprintf(
      json, sizeof json,
      "{\"deviceVer\":%d,\"multiProcessorCount\":%d,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
      "\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
      "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"regsPerBlock\":65536,"
      "\"totalGlobalMem\":68719476736,\"smClockRateKHz\":1500000,\"l2CacheSize\":41943040,"
      "\"maxBlockSize\":[1024,1024,64],\"memClockRateKHz\":2000000,\"maxGridSize\":[2147483647,65535,65535],"
      "\"supportCoopLaunch\":1,\"pciDeviceId\":0,\"isTccDriver\":0,\"cudaDeviceId\":0,\"driverVer\":13000,"
      "\"deviceName\":\"%s\"}",
      m->generation, m->processors, m->shared, m->name);
  cu_dnn *s = NULL;
  OK(c, cu_dnn_open_without(c, &api, json, &s));
  return s;
}

static bool whole(void) {
  const char *s = getenv("KILN_SWEEP");
  return s && !strcmp(s, "whole");
}

/* ---- convolutions ---- */

typedef struct layer {
  const char *name;
  int64_t n, c, h, w, o, k, stride, pad, groups;
} layer;
static const layer layers[] = {
    {"ResNet-50 first", 32, 3, 224, 224, 64, 7, 2, 3, 1},
    {"ResNet-50 1x1", 32, 64, 56, 56, 256, 1, 1, 0, 1},
    {"ResNet-50 3x3", 32, 64, 56, 56, 64, 3, 1, 1, 1},
    {"ResNet-50 3x3 deep", 32, 512, 7, 7, 512, 3, 1, 1, 1},
    {"ResNet-50 down", 32, 256, 56, 56, 512, 1, 2, 0, 1},
    {"ResNet-50 3x3 down", 32, 128, 56, 56, 128, 3, 2, 1, 1},
    {"depthwise", 32, 96, 56, 56, 96, 3, 1, 1, 96},
    {"four groups", 32, 128, 28, 28, 128, 3, 1, 1, 4},
    {"one image", 1, 16, 32, 32, 32, 3, 1, 1, 1},
};
enum { LAYERS = sizeof layers / sizeof *layers };

static void lay(cu_conv_tensor *t, int64_t n, int64_t c, int64_t h, int64_t w, bool last) {
  *t = (cu_conv_tensor){{n, c, h, w}, {c * h * w, h * w, w, 1}, 16};
  if (last) t->strides[1] = 1, t->strides[2] = w * c, t->strides[3] = c;
}

static cu_conv conv_of(const layer *l, cu_conv_kind kind, kn_dtype dtype, bool last) {
  cu_conv c;
  memset(&c, 0, sizeof c);
  int64_t oh = (l->h + 2 * l->pad - l->k) / l->stride + 1, ow = (l->w + 2 * l->pad - l->k) / l->stride + 1;
  c.kind = (int32_t)kind, c.dtype = (int32_t)dtype, c.groups = (int32_t)l->groups;
  lay(&c.x, l->n, l->c, l->h, l->w, last);
  lay(&c.w, l->o, l->c / l->groups, l->k, l->k, last);
  lay(&c.y, l->n, l->o, oh, ow, last);
  for (int i = 0; i < 2; i++) c.padding[i] = l->pad, c.stride[i] = l->stride, c.dilation[i] = 1;
  return c;
}

static const char *const kinds[] = {"forward", "grad input", "grad weight"};
enum { MOST_WORKSPACE = 1 << 30 };

/* There is a plan, its workspace is bounded, and what is written down is read back. */
static void has_plan(kn_context *c, cu_dnn *s, const cu_conv *q, const char *text) {
  const cu_plan *p;
  const char *why = NULL;
  kn_status st = cu_conv_plan(c, s, q, &p, &why);
  ck_assert_msg(st == KN_OK, "%s: %s", text, st == KN_DECLINED ? why : kn_error(c));
  cu_plan_facts f = cu_plan_read(p);
  ck_assert_msg(f.workspace >= 0 && f.workspace <= MOST_WORKSPACE, "%s: %lld bytes", text,
                (long long)f.workspace);
  ck_assert_msg(f.configurations >= 1, "%s", text);
  ck_assert_msg(q->dtype != KN_F32 || !f.tensor_cores || kn_context_precision(c) != KN_FLOAT32_HIGHEST,
                "%s: float32 is rounded to TF32", text);
  ck_assert_msg(!kn_context_deterministic(c) || f.deterministic, "%s: not deterministic", text);
  char *json;
  size_t bytes;
  OK(c, cu_plan_write(c, s, p, &json, &bytes));
  ck_assert_msg(cu_plan_reads(s, json, bytes), "%s: its text is not read back", text);
  kn_free(c->heap, json, bytes + 1);
  if (getenv("KILN_PLANS"))
    printf("%-64s engine %lld of %d, workspace %lld%s%s\n", text, (long long)f.engine, f.configurations,
           (long long)f.workspace, f.tensor_cores ? ", tensor cores" : "",
           f.deterministic ? "" : ", not deterministic");
}

/* Every kind of every step-th layer. */
static void each_conv(kn_context *c, int which, kn_dtype dtype, bool last, int first, int step) {
  cu_dnn *s = open_machine(c, &machines[which]);
  for (int i = first; i < LAYERS; i += step)
    for (int k = 0; k < CU_CONV_KINDS; k++) {
      char text[128];
      cu_conv q = conv_of(&layers[i], (cu_conv_kind)k, dtype, last);
      snprintf(text, sizeof text, "%s %s %s %s %s", machines[which].name, layers[i].name, kinds[k],
               kn_dtype_name(dtype), last ? "NHWC" : "NCHW");
      has_plan(c, s, &q, text);
    }
  cu_dnn_free(s);
}

START_TEST(convolutions_have_plans) {
  static const kn_dtype dtypes[] = {KN_F32, KN_BF16, KN_F16};
  if (no_library()) return;
  kn_context *c = suite_context();
  for (int m = 0; m < MACHINES; m++)
    for (int t = 0; t < 3; t++)
      for (int last = 0; last < 2; last++)
        if (whole())
          each_conv(c, m, dtypes[t], last, 0, 1);
        else if (m == HOPPER || (t == 1 && last))
          each_conv(c, m, dtypes[t], last, m == HOPPER && t == 1 && last ? 0 : 2, m == HOPPER ? 3 : 7);
  suite_done(c);
}
END_TEST

/* Tensors are taken as they lie: views of larger ones, filters that lie otherwise than images. */
START_TEST(any_strides_have_plans) {
  if (no_library()) return;
  kn_context *c = suite_context();
  cu_dnn *s = open_machine(c, &machines[HOPPER]);
  for (int t = 0; t < 2; t++)
    for (int k = 0; k < CU_CONV_KINDS; k++) {
      kn_dtype dtype = t ? KN_BF16 : KN_F32;
      cu_conv q = conv_of(&layers[2], (cu_conv_kind)k, dtype, false);
      const cu_conv last = conv_of(&layers[2], (cu_conv_kind)k, dtype, true);
      q.w = last.w;
      has_plan(c, s, &q, "filters that lie otherwise");
      q.x = last.x;
      has_plan(c, s, &q, "a result that lies otherwise");
      lay(&q.x, 32, 64, 60, 56, false);
      q.x.dims[2] = 56;
      has_plan(c, s, &q, "some of the rows");
      for (int i = 0; i < 4; i++) q.x.strides[i] *= 2;
      has_plan(c, s, &q, "every other element");
    }
  cu_dnn_free(s);
  suite_done(c);
}
END_TEST

START_TEST(switches_choose_engines) {
  if (no_library()) return;
  kn_context *c = suite_context();
  cu_dnn *s = open_machine(c, &machines[HOPPER]);
  cu_conv q = conv_of(&layers[2], CU_CONV_GRAD_WEIGHT, KN_F32, false);
  has_plan(c, s, &q, "exact");
  c->deterministic = true; /* checked by has_plan */
  has_plan(c, s, &q, "exact and deterministic");
  c->deterministic = false;
  c->float32_precision = KN_FLOAT32_HIGH;
  const cu_plan *p;
  const char *why;
  OK(c, cu_conv_plan(c, s, &q, &p, &why));
  ck_assert_msg(cu_plan_read(p).tensor_cores, "TF32 was allowed and not taken");
  cu_dnn_free(s);
  suite_done(c);
}
END_TEST

START_TEST(bias_and_relu_are_fused) {
  if (no_library()) return;
  kn_context *c = suite_context();
  cu_dnn *s = open_machine(c, &machines[HOPPER]);
  for (int i = 1; i < (whole() ? LAYERS : 4); i++)
    for (int t = 0; t < 2; t++) {
      cu_conv q = conv_of(&layers[i], CU_CONV_FORWARD, t ? KN_F32 : KN_BF16, !t);
      q.bias = q.relu = 1;
      has_plan(c, s, &q, layers[i].name);
    }
  cu_conv q = conv_of(&layers[2], CU_CONV_FORWARD, KN_BF16, true);
  q.bias = q.add = q.relu = 1;
  has_plan(c, s, &q, "with a sum");
  cu_dnn_free(s);
  suite_done(c);
}
END_TEST

/* ---- attention ---- */

static cu_attention attention_of(kn_dtype dtype, int64_t queries, int64_t keys, int64_t depth, bool causal,
                                 bool back) {
  cu_attention a;
  memset(&a, 0, sizeof a);
  a.dtype = (int32_t)dtype, a.causal = causal, a.backward = back, a.keeps = !back;
  a.batch = 4, a.heads = a.kv_heads = 16, a.queries = queries, a.keys = keys, a.depth = a.value_depth = depth;
  cu_attention_dense(a.q, a.heads, queries, depth);
  cu_attention_dense(a.k, a.heads, keys, depth);
  cu_attention_dense(a.v, a.heads, keys, depth);
  cu_attention_dense(a.o, a.heads, queries, depth);
  memcpy(a.grad, a.o, sizeof a.o), memcpy(a.dq, a.q, sizeof a.q);
  memcpy(a.dk, a.k, sizeof a.k), memcpy(a.dv, a.v, sizeof a.v);
  return a;
}

static void share_keys(cu_attention *a, int64_t heads) {
  int64_t *to[] = {a->k, a->v, a->dk, a->dv};
  a->kv_heads = heads;
  for (int i = 0; i < 4; i++) cu_attention_dense(to[i], heads, a->keys, a->depth);
}

static void attends(kn_context *c, cu_dnn *s, const cu_attention *a, const char *text) {
  const cu_plan *p;
  const char *why = NULL;
  char reason[128];
  ck_assert_msg(cu_attention_supports(a, reason, sizeof reason), "%s: %s", text, reason);
  kn_status st = cu_attention_plan(c, s, a, &p, &why);
  ck_assert_msg(st == KN_OK, "%s: %s", text, st == KN_DECLINED ? why : kn_error(c));
  cu_plan_facts f = cu_plan_read(p);
  if (getenv("KILN_PLANS"))
    printf("%s: engine %lld, workspace %lld\n", text, (long long)f.engine, (long long)f.workspace);
  /* At most gradients of q, k and v once more in float32: for heads that share them, or sums in parts. */
  ck_assert_msg(f.workspace <= (16 << 20) + 12 * a->batch * a->heads * (a->queries + 2 * a->keys) * a->depth,
                "%s: %lld bytes", text, (long long)f.workspace);
}

static const int64_t between_heads[] = {1024 * 16 * 64, 64, 16 * 64, 1};

START_TEST(attention_has_plans) {
  if (no_library()) return;
  kn_context *c = suite_context();
  for (int m = 0; m < MACHINES; m++) {
    if (m != HOPPER && !whole()) continue;
    cu_dnn *s = open_machine(c, &machines[m]);
    if (getenv("KILN_PLANS")) printf("%s\n", machines[m].name);
    cu_attention a = attention_of(KN_BF16, 1024, 1024, 128, true, false);
    attends(c, s, &a, "causal, kept for its gradient");
    a = attention_of(KN_BF16, 1024, 1024, 64, true, true);
    attends(c, s, &a, "the gradient");
    a.causal = 0, a.mask = 1, a.mask_strides[2] = 1024, a.mask_strides[3] = 1;
    attends(c, s, &a, "the gradient, with a mask");
    a.wide = 1, a.mask_strides[0] = 1024 * 1024, a.mask_strides[2] = 1024;
    memcpy(a.grad, between_heads, sizeof between_heads), memcpy(a.q, between_heads, sizeof between_heads);
    attends(c, s, &a, "with one of float32, rows between those of other heads");
    a = attention_of(KN_BF16, 1024, 1024, 64, true, true);
    share_keys(&a, 4);
    attends(c, s, &a, "the gradient, of shared keys");
    if (whole()) {
      a = attention_of(KN_F16, 1000, 1000, 64, false, false);
      attends(c, s, &a, "of no even length");
      a = attention_of(KN_BF16, 1, 1024, 128, false, false);
      a.keeps = 0, a.kv_heads = 4;
      attends(c, s, &a, "one query, shared keys");
      a = attention_of(KN_BF16, 512, 512, 64, false, false);
      a.mask = 1, a.mask_strides[2] = 512, a.mask_strides[3] = 1;
      attends(c, s, &a, "with a mask");
      a = attention_of(KN_BF16, 512, 512, 64, true, false);
      int64_t between[] = {512 * 16 * 64, 64, 16 * 64, 1};
      memcpy(a.q, between, sizeof between), memcpy(a.k, between, sizeof between);
      memcpy(a.v, between, sizeof between), memcpy(a.o, between, sizeof between);
      attends(c, s, &a, "heads between rows");
      a.backward = 1, a.keeps = 0;
      attends(c, s, &a, "its gradient");
    }
    cu_dnn_free(s);
  }
  suite_done(c);
}
END_TEST

/* A function of elements of images that do not lie channels last: known to have no engine. */
static void make_relu(cu_graph *g, const void *problem) {
  const cu_shape s = cu_shape_dense(CUDNN_DATA_BFLOAT16, 4, problem);
  cu_desc x = cu_graph_tensor(g, &s, CU_MEMORY, 16), y = cu_graph_tensor(g, &s, CU_MEMORY, 16);
  cu_graph_pointwise(g, CUDNN_POINTWISE_RELU_FWD, CUDNN_DATA_FLOAT, 0, x, NULL, NULL, y);
}

START_TEST(refusals_say_why) {
  char why[128];
  cu_attention a = attention_of(KN_F32, 64, 64, 64, false, false);
  ck_assert(!cu_attention_supports(&a, why, sizeof why) && strstr(why, "halves"));
  a = attention_of(KN_F16, 64, 64, 60, false, false);
  ck_assert(!cu_attention_supports(&a, why, sizeof why) && strstr(why, "multiple of 8"));
  a = attention_of(KN_F16, 64, 64, 64, false, true);
  a.value_depth = 32;
  ck_assert(!cu_attention_supports(&a, why, sizeof why) && strstr(why, "another depth"));
  if (no_library()) return;
  kn_context *c = suite_context();
  cu_dnn *s = open_machine(c, &machines[HOPPER]);
  cu_conv q = conv_of(&layers[2], CU_CONV_FORWARD, KN_BF16, true);
  q.w.dims[1] = 48; /* no divisor of the image's channels */
  const cu_plan *p;
  const char *reason = NULL;
  for (int i = 0; i < 2; i++) { /* the second answer is remembered */
    ck_assert_int_eq(cu_conv_plan(c, s, &q, &p, &reason), KN_DECLINED);
    ck_assert_msg(reason && strlen(reason) > 10, "no reason: %s", reason ? reason : "");
  }
  if (getenv("KILN_PLANS")) printf("refused: %s\n", reason);
  const int64_t dims[] = {64, 1024, 1, 1};
  ck_assert_int_eq(cu_dnn_plan(c, s, make_relu, dims, sizeof dims, false, 0, &p, &reason), KN_DECLINED);
  ck_assert_msg(strstr(reason, "no engine for it: CUDNN_STATUS_NOT_SUPPORTED_LAYOUT; Reason: "),
                "no reason: %s", reason);
  if (getenv("KILN_PLANS")) printf("refused: %s\n", reason);
  ck_assert(!cu_plan_reads(s, "{}", 2));
  cu_dnn_free(s);
  kn_context *other = suite_context();
  FAILS(other, KN_INTERNAL, "cuDNN", cu_dnn_open_without(other, &api, "{\"deviceVer\":900}", &s));
  suite_done(other);
  suite_done(c);
}
END_TEST

/* ---- products ---- */

/* The real cuBLASLt has no heuristics without a device, but takes descriptors. */
START_TEST(products_are_described) {
  static const cublasLtEpilogue_t epilogues[] = {
      CUBLASLT_EPILOGUE_DEFAULT,       CUBLASLT_EPILOGUE_RELU,        CUBLASLT_EPILOGUE_BIAS,
      CUBLASLT_EPILOGUE_RELU_BIAS,     CUBLASLT_EPILOGUE_RELU_AUX,    CUBLASLT_EPILOGUE_RELU_AUX_BIAS,
      CUBLASLT_EPILOGUE_GELU,          CUBLASLT_EPILOGUE_GELU_BIAS,   CUBLASLT_EPILOGUE_GELU_AUX,
      CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DRELU,       CUBLASLT_EPILOGUE_DRELU_BGRAD,
      CUBLASLT_EPILOGUE_DGELU,         CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,
      CUBLASLT_EPILOGUE_BGRADB};
  static const kn_dtype dtypes[] = {KN_F32, KN_F64, KN_F16, KN_BF16};
  char why[256];
  kn_context *c = suite_context();
  cu_device d = {.heap = c->heap};
  /* It stays open: what a library keeps that is gone has no name for lsan.supp. */
  if (cu_api_open(&d.api, CU_BLAS, why, sizeof why) || !suite_skips(why)) {
    for (int t = 0; t < 4; t++)
      for (size_t i = 0; i < sizeof epilogues / sizeof *epilogues; i++) {
        cu_product p = {.dtype = dtypes[t], .m = 64, .n = 128, .k = 32, .rank = i ? 0 : 1, .dims = {5}};
        p.a = (cu_factor){1 << 20, 32, 1, {64 * 32}}, p.b = (cu_factor){2 << 20, 1, 32, {0}};
        p.c = 3 << 20, p.bias = 4 << 20, p.aux = 5 << 20, p.aux_row = 128, p.epilogue = i ? epilogues[i] : 0;
        ck_assert(dtypes[t] == KN_F64 && i ? !cu_blas_supports(&p, why, sizeof why)
                                           : cu_blas_supports(&p, why, sizeof why));
        OK(c, cu_blas_describe(c, &d, &p));
      }
  }
  suite_done(c);
}
END_TEST

SUITE("cuda_plans", products_are_described, convolutions_have_plans, any_strides_have_plans,
      switches_choose_engines, bias_and_relu_are_fused, attention_has_plans, refusals_say_why)
#else
START_TEST(no_headers) { suite_skips("kiln was built without CUDA's headers"); }
END_TEST
SUITE("cuda_plans", no_headers)
#endif
