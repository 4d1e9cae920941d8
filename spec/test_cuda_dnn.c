/* Convolutions and attention on the software device, whose cuDNN computes the graphs that it is given:
 * against the reference, by every way they may go; which engines are taken; what is remembered. */
#define _GNU_SOURCE /* mkdtemp */
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/attention.h"
#include "backends/cuda/conv.h"
#include "spec/cuda/compare.h"
#include <dlfcn.h>

static kn_tensor *uneven(kn_context *c, kn_dtype dtype, kn_ints dims, int salt) {
  kn_type type = type_of(dtype, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, 2 * ((double)((k * 37 + salt * 11 + 5) % 101) / 101) - 1);
  return t;
}

typedef struct window {
  kn_ints x, w; /* [N,C,H,W], [O,C/groups,KH,KW] */
  kn_attrs_conv2d attrs;
} window;
#define WINDOW(s0, s1, p0, p1, d0, d1, g)                                                                    \
  { .stride = {2, {s0, s1}}, .padding = {2, {p0, p1}}, .dilation = {2, {d0, d1}}, .groups = g }
static const window windows[] = {
    {{4, {2, 4, 7, 6}}, {4, {6, 4, 3, 2}}, WINDOW(1, 1, 0, 0, 1, 1, 1)},
    {{4, {2, 4, 9, 8}}, {4, {6, 4, 3, 2}}, WINDOW(2, 3, 1, 2, 2, 1, 1)},
    {{4, {1, 4, 5, 5}}, {4, {6, 2, 3, 3}}, WINDOW(1, 1, 1, 1, 1, 1, 2)},
    {{4, {2, 3, 5, 5}}, {4, {6, 1, 3, 3}}, WINDOW(2, 2, 1, 1, 1, 1, 3)},
    {{4, {2, 5, 4, 4}}, {4, {3, 5, 1, 1}}, WINDOW(1, 1, 0, 0, 1, 1, 1)},
    {{4, {0, 4, 5, 5}}, {4, {3, 4, 3, 3}}, WINDOW(1, 1, 1, 1, 1, 1, 1)},
    {{4, {2, 0, 5, 5}}, {4, {3, 0, 3, 3}}, WINDOW(1, 1, 1, 1, 1, 1, 1)},
};
enum { WINDOWS = sizeof windows / sizeof *windows };

/* conv2d with and without a bias, and both gradients, of images and filters that lie in order or with
 * channels last. */
static void convolve(kn_context *c, kn_context *ref, const window *v, kn_dtype dtype, bool last) {
  kn_tensor *host[3], *in[3], *y;
  for (int i = 0; i < 3; i++) {
    kn_ints dims = i == 0 ? v->x : i == 1 ? v->w : (kn_ints){1, {v->w.v[0]}};
    if (last && i < 2) dims = (kn_ints){4, {dims.v[0], dims.v[2], dims.v[3], dims.v[1]}};
    host[i] = uneven(ref, dtype, dims, i);
    in[i] = on_cuda(c, host[i]);
    for (int k = 0; last && i < 2 && k < 2; k++) {
      kn_tensor **t = k ? &in[i] : &host[i], *out;
      OK(c, kn_apply(k ? c : ref, KN_OP_permute, &(kn_attrs_axes){.dims = {4, {0, 3, 1, 2}}}, t, 1, &out));
      kn_tensor_release(*t);
      *t = out;
    }
  }
  OK(ref, kn_apply(ref, KN_OP_conv2d, &v->attrs, host, 2, &y));
  kn_tensor *g = uneven(
      ref, dtype, (kn_ints){4, {y->type.dims[0], y->type.dims[1], y->type.dims[2], y->type.dims[3]}}, 4);
  kn_tensor *dg = on_cuda(c, g);
  sim_compare(c, ref, KN_OP_conv2d, &v->attrs, host, in, 2, "conv2d");
  sim_compare(c, ref, KN_OP_conv2d, &v->attrs, host, in, 3, "conv2d with a bias");
  sim_compare(c, ref, KN_OP_conv2d_grad_input, &v->attrs, (kn_tensor *[]){g, host[1], host[0]},
              (kn_tensor *[]){dg, in[1], in[0]}, 3, "conv2d_grad_input");
  sim_compare(c, ref, KN_OP_conv2d_grad_weight, &v->attrs, (kn_tensor *[]){g, host[0], host[1]},
              (kn_tensor *[]){dg, in[0], in[1]}, 3, "conv2d_grad_weight");
  kn_tensor *all[] = {y, g, dg, host[0], host[1], host[2], in[0], in[1], in[2]};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) kn_tensor_release(all[i]);
}

static void set_refusals(kn_context *c, int what) {
  cu_device *d;
  cu_dnn *s;
  const char *why;
  OK(c, cu_device_of(c, &d));
  OK(c, cu_dnn_of(c, d, &s, &why)); /* opens the library */
  SIM_VALUE(d, CU_DNN, int, "sim_dnn_refuses") = what;
}

static const kn_dtype dtypes[] = {KN_F32, KN_F64, KN_F16, KN_BF16};

static void all_windows(int refusals) {
  kn_context *c = sim_context();
  if (!c) return;
  kn_context *ref = suite_context();
  set_refusals(c, refusals);
  for (int i = 0; i < WINDOWS; i++)
    for (int t = 0; t < 4; t++)
      for (int last = 0; last < 2; last++) convolve(c, ref, &windows[i], dtypes[t], last);
  set_refusals(c, 0);
  suite_done(ref);
  sim_done(c);
}

START_TEST(by_plans) { all_windows(0); }
END_TEST
/* No engine adds a bias: it is added after. */
START_TEST(bias_after) { all_windows(1); }
END_TEST
/* No engine at all: loops of our own. */
START_TEST(by_loops) { all_windows(2); }
END_TEST

/* ---- engines and plans ---- */

START_TEST(precision_is_obeyed) {
  kn_context *c = sim_context();
  if (!c) return;
  kn_context *ref = suite_context();
  cu_device *d;
  set_refusals(c, 0);
  OK(c, cu_device_of(c, &d));
  convolve(c, ref, &windows[0], KN_F32, false);
  ck_assert_int_eq(SIM_VALUE(d, CU_DNN, int64_t, "sim_dnn_engine"), 2);
  int64_t plans = SIM_VALUE(d, CU_DNN, int64_t, "sim_dnn_plans");
  convolve(c, ref, &windows[0], KN_F32, false);
  ck_assert_int_eq(SIM_VALUE(d, CU_DNN, int64_t, "sim_dnn_plans"), plans); /* they are kept */
  c->float32_precision = KN_FLOAT32_HIGH;
  kn_tensor *in[] = {uneven(c, KN_F32, windows[0].x, 1), uneven(c, KN_F32, windows[0].w, 2)}, *y;
  for (int i = 0; i < 2; i++) {
    kn_tensor *t = on_cuda(c, in[i]);
    kn_tensor_release(in[i]);
    in[i] = t;
  }
  OK(c, kn_apply(c, KN_OP_conv2d, &windows[0].attrs, in, 2, &y));
  ck_assert_int_eq(SIM_VALUE(d, CU_DNN, int64_t, "sim_dnn_engine"), 1);
  kn_tensor_release(y), kn_tensor_release(in[0]), kn_tensor_release(in[1]);
  suite_done(ref);
  sim_done(c);
}
END_TEST

/* What one process wrote the next one reads, and numbers are the same. */
START_TEST(plans_are_kept_on_disk) {
  char folder[] = "/tmp/kiln-plans-XXXXXX", command[64];
  int64_t reads[2];
  double sums[2] = {0};
  ck_assert_ptr_nonnull(mkdtemp(folder));
  for (int i = 0; i < 2; i++) {
    kn_context *c = sim_context();
    cu_device *d;
    if (!c) return;
    OK(c, kn_registry_remember(c, folder));
    set_refusals(c, 0);
    OK(c, cu_device_of(c, &d));
    int64_t before = SIM_VALUE(d, CU_DNN, int64_t, "sim_dnn_reads");
    kn_tensor *in[2], *y;
    for (int k = 0; k < 2; k++) {
      kn_tensor *t = uneven(c, KN_F32, k ? windows[1].w : windows[1].x, k);
      in[k] = on_cuda(c, t);
      kn_tensor_release(t);
    }
    OK(c, kn_apply(c, KN_OP_conv2d, &windows[1].attrs, in, 2, &y));
    kn_tensor *back = from_cuda(c, y);
    for (int64_t k = 0; k < kn_tensor_numel(back); k++) sums[i] += (double)(k + 1) * element(back, k);
    reads[i] = SIM_VALUE(d, CU_DNN, int64_t, "sim_dnn_reads") - before;
    kn_tensor *all[] = {in[0], in[1], y, back};
    for (int k = 0; k < 4; k++) kn_tensor_release(all[k]);
    sim_done(c);
  }
  ck_assert_int_eq(reads[0], 0);
  ck_assert_int_eq(reads[1], 1);
  ck_assert(sums[0] == sums[1] && sums[0] != 0);
  snprintf(command, sizeof command, "rm -r %s", folder);
  ck_assert_int_eq(system(command), 0);
}
END_TEST

/* ---- attention ---- */

enum { B = 2, H = 4, Q = 5, KEYS = 7, D = 8 };

static cu_attention attention_of(bool causal, bool mask, bool backward, int kv_heads) {
  cu_attention a;
  memset(&a, 0, sizeof a);
  a.dtype = KN_F16, a.causal = causal, a.mask = mask, a.backward = backward, a.keeps = !backward;
  a.batch = B, a.heads = H, a.kv_heads = kv_heads, a.queries = Q, a.keys = KEYS, a.depth = a.value_depth = D;
  int64_t *strides[] = {a.q, a.o, a.grad, a.dq, a.k, a.v, a.dk, a.dv};
  for (int i = 0; i < 8; i++) cu_attention_dense(strides[i], i < 4 ? H : kv_heads, i < 4 ? Q : KEYS, D);
  a.mask_strides[2] = KEYS, a.mask_strides[3] = 1;
  return a;
}

/* softmax(q kᵀ scale + mask) v of one head, by the formula; the weights are left in p. */
static void attend(const double *q, const double *k, const double *mask, bool causal, double scale,
                   double p[Q][KEYS]) {
  for (int i = 0; i < Q; i++) {
    double most = -INFINITY, sum = 0;
    for (int j = 0; j < KEYS; j++) {
      double s = 0;
      for (int x = 0; x < D; x++) s += q[i * D + x] * k[j * D + x];
      p[i][j] = causal && j > i ? -INFINITY : s * scale + (mask ? mask[i * KEYS + j] : 0);
      most = fmax(most, p[i][j]);
    }
    for (int j = 0; j < KEYS; j++) sum += p[i][j] = exp(p[i][j] - most);
    for (int j = 0; j < KEYS; j++) p[i][j] /= sum;
  }
}

typedef struct scene {
  kn_context *c;
  cu_device *d;
  kn_tensor *t[12]; /* q k v o mask statistics grad dq dk dv room */
  double *v[12];
  cu_attention_data at;
} scene;
enum { TQ, TK, TV, TO, TMASK, TSTATISTICS, TGRAD, TDQ, TDK, TDV, TROOM, TENSORS };

static void read_values(scene *s, int i) {
  kn_tensor *back = from_cuda(s->c, s->t[i]);
  free(s->v[i]);
  s->v[i] = malloc((size_t)kn_tensor_numel(back) * sizeof(double));
  for (int64_t k = 0; k < kn_tensor_numel(back); k++) s->v[i][k] = element(back, k);
  kn_tensor_release(back);
}

static bool open_scene(scene *s, int kv_heads) {
  *s = (scene){.c = sim_context()};
  if (!s->c) return false;
  OK(s->c, cu_device_of(s->c, &s->d));
  const kn_ints query = {4, {B, H, Q, D}}, key = {4, {B, kv_heads, KEYS, D}}, rows = {3, {B, H, Q}},
                mask = {2, {Q, KEYS}}, room = {1, {4096}};
  const kn_ints dims[] = {query, key, key, query, mask, rows, query, query, key, key, room};
  CUdeviceptr *to[] = {&s->at.q,    &s->at.k,  &s->at.v,  &s->at.o,  &s->at.mask, &s->at.statistics,
                       &s->at.grad, &s->at.dq, &s->at.dk, &s->at.dv, &s->at.room};
  for (int i = 0; i < TENSORS; i++) {
    kn_tensor *t = uneven(s->c, i == TSTATISTICS || i == TROOM ? KN_F32 : KN_F16, dims[i], i);
    s->t[i] = on_cuda(s->c, t);
    kn_tensor_release(t);
    *to[i] = cu_address(s->t[i]);
    read_values(s, i);
  }
  s->at.scale = 0.5f;
  return true;
}

static void close_scene(scene *s) {
  for (int i = 0; i < TENSORS; i++) {
    kn_tensor_release(s->t[i]);
    free(s->v[i]);
  }
  sim_done(s->c);
}

static void run_attention(scene *s, const cu_attention *a) {
  const cu_plan *p;
  const char *why = "";
  char reason[96];
  cu_dnn *dnn;
  ck_assert_msg(cu_attention_supports(a, reason, sizeof reason), "%s", reason);
  ck_assert_int_le((int64_t)cu_attention_room(a), 4096 * 4);
  OK(s->c, cu_dnn_of(s->c, s->d, &dnn, &why));
  ck_assert_msg(cu_attention_plan(s->c, dnn, a, &p, &why) == KN_OK, "%s", why);
  OK(s->c, cu_attention_run(s->c, s->d, p, a, &s->at));
}

static bool check_forward(bool causal, bool mask, int kv_heads) {
  scene s;
  if (!open_scene(&s, kv_heads)) return false;
  cu_attention a = attention_of(causal, mask, false, kv_heads);
  run_attention(&s, &a);
  read_values(&s, TO);
  for (int h = 0; h < B * H; h++) {
    int kv = h / (H / kv_heads);
    double p[Q][KEYS];
    attend(s.v[TQ] + h * Q * D, s.v[TK] + kv * KEYS * D, mask ? s.v[TMASK] : NULL, causal, 0.5, p);
    for (int i = 0; i < Q; i++)
      for (int x = 0; x < D; x++) {
        double sum = 0;
        for (int j = 0; j < KEYS; j++) sum += p[i][j] * s.v[TV][(kv * KEYS + j) * D + x];
        double got = s.v[TO][(h * Q + i) * D + x];
        ck_assert_msg(near(got, sum, 4e-3), "head %d, query %d: %g instead of %g", h, i, got, sum);
      }
  }
  close_scene(&s);
  return true;
}

START_TEST(attention) {
  if (!check_forward(false, false, H)) return;
  check_forward(true, false, H);
  check_forward(false, true, H);
  check_forward(true, false, 2); /* heads that share keys */
}
END_TEST

/* Against the formula of the gradient, with the weights of float64. */
static bool check_backward(bool causal, bool mask, int kv_heads) {
  scene s;
  if (!open_scene(&s, kv_heads)) return false;
  cu_attention forward = attention_of(causal, mask, false, kv_heads),
               back = attention_of(causal, mask, true, kv_heads);
  double dk[B * H][KEYS][D] = {0}, dv[B * H][KEYS][D] = {0};
  run_attention(&s, &forward);
  run_attention(&s, &back);
  for (int i = TO; i < TENSORS; i++) read_values(&s, i);
  for (int h = 0; h < B * H; h++) {
    const int kv = h / (H / kv_heads);
    const double *q = s.v[TQ] + h * Q * D, *k = s.v[TK] + kv * KEYS * D, *v = s.v[TV] + kv * KEYS * D,
                 *g = s.v[TGRAD] + h * Q * D;
    double p[Q][KEYS], ds[Q][KEYS], dq[Q][D] = {0};
    attend(q, k, mask ? s.v[TMASK] : NULL, causal, 0.5, p);
    for (int i = 0; i < Q; i++) {
      double dot = 0, dp[KEYS] = {0};
      for (int j = 0; j < KEYS; j++) {
        for (int x = 0; x < D; x++) dp[j] += g[i * D + x] * v[j * D + x];
        dot += dp[j] * p[i][j];
      }
      for (int j = 0; j < KEYS; j++) ds[i][j] = (dp[j] - dot) * p[i][j] * 0.5;
    }
    for (int i = 0; i < Q; i++)
      for (int j = 0; j < KEYS; j++)
        for (int x = 0; x < D; x++) {
          dq[i][x] += ds[i][j] * k[j * D + x];
          dk[kv][j][x] += ds[i][j] * q[i * D + x];
          dv[kv][j][x] += p[i][j] * g[i * D + x];
        }
    for (int i = 0; i < Q; i++)
      for (int x = 0; x < D; x++) ck_assert(near(s.v[TDQ][(h * Q + i) * D + x], dq[i][x], 8e-3));
  }
  for (int kv = 0; kv < B * kv_heads; kv++)
    for (int j = 0; j < KEYS; j++)
      for (int x = 0; x < D; x++) {
        ck_assert(near(s.v[TDK][(kv * KEYS + j) * D + x], dk[kv][j][x], 8e-3));
        ck_assert(near(s.v[TDV][(kv * KEYS + j) * D + x], dv[kv][j][x], 8e-3));
      }
  close_scene(&s);
  return true;
}

START_TEST(attention_backward) {
  if (!check_backward(false, false, H)) return;
  check_backward(true, false, H);
  check_backward(false, true, H);
  check_backward(true, false, 2);
  check_backward(false, true, 1);
}
END_TEST

START_TEST(kernels_compile) { sim_compiles("convolve", cu_convolve_write, dtypes, 4); }
END_TEST

SUITE("cuda_dnn", kernels_compile, by_plans, bias_after, by_loops, precision_is_obeyed,
      plans_are_kept_on_disk, attention, attention_backward)
#else
START_TEST(no_headers) { suite_skips("kiln was built without CUDA's headers"); }
END_TEST
SUITE("cuda_dnn", no_headers)
#endif
