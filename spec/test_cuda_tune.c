/* Products of graphs by the algorithm that was measured as the fastest: on the software device, of whose
 * three the second is the fastest by its clock. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/blas.h"
#include "spec/cuda/compare.h"
#include "spec/cuda/software.h"
#include "spec/exec.h"
#include <unistd.h>

static suite_lines lines;

typedef struct stage {
  kn_context *c;
  cu_device *d;
  kn_graph *g;
  kn_session *s;
  kn_rvalue in[3];
} stage;

static const char text[] =
    "graph g(%a: float32[64,128]@cuda, %b: float32[128,96]@cuda, %c: float32[96]@cuda) {\n"
    "  %x = matmul %a, %b\n"
    "  %y = add %x, %c\n"
    "  %z = relu %y\n"
    "  return %z\n"
    "}\n";

static const char convolution[] =
    "graph g(%a: float32[2,8,16,16]@cuda, %b: float32[16,8,3,3]@cuda, %c: float32[16]@cuda) {\n"
    "  %x = conv2d %a, %b, %c {padding = {1, 1}}\n"
    "  %y = relu %x\n"
    "  return %y\n"
    "}\n";

/* float32 may be rounded, or there would be one engine only. */
static void open_stage(stage *s, const char *folder, kn_tuning tuning, bool product) {
  const kn_target *const *targets;
  const kn_ints of_product[] = {DIMS(64, 128), DIMS(128, 96), DIMS(96)},
                of_convolution[] = {DIMS(2, 8, 16, 16), DIMS(16, 8, 3, 3), DIMS(16)},
                *sizes = product ? of_product : of_convolution;
  int n;
  s->c = software_context();
  if (folder) OK(s->c, kn_registry_remember(s->c, folder));
  s->c->tuning = tuning;
  s->c->float32_precision = KN_FLOAT32_HIGH;
  s->c->debug |= 1u << KN_DEBUG_DISPATCH;
  OK(s->c, cu_device_of(s->c, &s->d));
  for (int i = 0; i < 3; i++) {
    kn_type type = type_of(KN_F32, sizes[i]);
    kn_tensor *t;
    OK(s->c, kn_tensor_new(s->c, &type, &t));
    for (int64_t k = 0; k < kn_tensor_numel(t); k++) set_element(t, k, (double)(k * 7 % 23) / 8 - 1);
    s->in[i] = T(on_cuda(s->c, t));
    kn_tensor_release(t);
  }
  s->g = parse(s->c, product ? text : convolution);
  OK(s->c, kn_registry_targets(s->c, &targets, &n));
  OK(s->c, kn_session_new(s->c, s->g, targets, n, &s->s));
  suite_keep_lines(kn_session_context(s->s), &lines);
}

static void close_stage(stage *s) {
  kn_session_free(s->s);
  kn_graph_release(s->g);
  for (int i = 0; i < 3; i++) kn_tensor_release(s->in[i].tensor);
  kn_registry_close(s->c);
  suite_done(s->c);
}

/* Of cuDNN's double the first that it names is number 1. */
static int engine_of(const stage *s) { return (int)SIM_VALUE(s->d, CU_DNN, int64_t, "sim_dnn_engine") - 1; }

/* A sum over the results; which algorithm there was. */
static double run_stage(stage *s, int *chosen, bool product) {
  kn_rvalue out;
  double sum = 0;
  OK(kn_session_context(s->s), kn_session_run(s->s, s->in, 3, &out, 1));
  kn_tensor *host = from_cuda(s->c, out.tensor);
  for (int64_t k = 0; k < kn_tensor_numel(host); k++) sum += (double)(k % 17) * element(host, k);
  kn_tensor_release(host), kn_tensor_release(out.tensor);
  *chosen = product ? cu_blas_last(s->d).chosen : engine_of(s);
  return sum;
}

static bool measured(void) { return strstr(lines.text, "measured cu") != NULL; }

static void look_at_rounds(bool product) {
  static const struct {
    kn_tuning tuning;
    bool measures;
    int chosen;
  } rounds[] = {{KN_TUNING_KNOWN, false, 0},
                {KN_TUNING_MEASURE, true, 1},
                {KN_TUNING_MEASURE, false, 1},
                {KN_TUNING_KNOWN, false, 1},
                {KN_TUNING_FIXED, false, 0}};
  char folder[] = "/tmp/kiln-tune-XXXXXX", command[64];
  double sums[COUNT(rounds)];
  ck_assert_ptr_nonnull(mkdtemp(folder));
  for (size_t i = 0; i < COUNT(rounds); i++) {
    stage s;
    int chosen;
    open_stage(&s, folder, rounds[i].tuning, product);
    sums[i] = run_stage(&s, &chosen, product);
    ck_assert_msg(chosen == rounds[i].chosen && measured() == rounds[i].measures, "round %d: algorithm %d%s",
                  (int)i, chosen, measured() ? ", measured" : "");
    ck_assert(sums[i] == sums[0] && sums[i] > 0);
    close_stage(&s);
  }
  snprintf(command, sizeof command, "rm -r %s", folder);
  ck_assert_int_eq(system(command), 0);
}

START_TEST(the_fastest_is_remembered) {
  look_at_rounds(true);
  look_at_rounds(false);
}
END_TEST

/* Asked to prepare, a session measures; its next run has a new plan. */
START_TEST(measured_when_prepared) {
  stage s;
  int chosen;
  kn_run_memory memory;
  open_stage(&s, NULL, KN_TUNING_KNOWN, true);
  run_stage(&s, &chosen, true);
  ck_assert(chosen == 0 && !measured());
  OK(kn_session_context(s.s), kn_session_prepare(s.s, s.in, 3, &memory));
  const bool may = measured(); /* without a folder nothing is */
  run_stage(&s, &chosen, true);
  ck_assert_int_eq(chosen, may ? 1 : 0);
  close_stage(&s);
}
END_TEST

SUITE("cuda_tune", the_fastest_is_remembered, measured_when_prepared)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_tune", no_headers)
#endif
