/* The oneDNN backend against the reference kernels: sweeps of every op it offers over shapes, layouts and
 * attributes, what it declines and why, the bound of its cache, threads, failing allocation. Compared with
 * the reference in float64, so that the tolerance is about oneDNN alone. Where oneDNN is absent only its
 * reason is tested. */
#include "spec/suite.h"
#include "backends/registry.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "graph/exec.h"
#include "graph/text.h"
#include <math.h>
#include <pthread.h>
#include <stdarg.h>

extern const kn_backend kn_onednn_backend;

/* ---- contexts ---- */

static bool available(void) {
  kn_backend_report r = {.name = ""};
  kn_context *c = suite_context();
  OK(c, kn_registry_open(c, NULL));
  for (int i = 0; strcmp(r.name, "onednn") && i < kn_registry_count(); i++) kn_registry_report(c, i, &r);
  kn_registry_close(c);
  suite_done(c);
  if (!r.available) printf("skipped, as there is no oneDNN: %s\n", r.reason);
  return r.available;
}

/* oneDNN and the reference alone, so that nobody else takes what it leaves. NULL where oneDNN is absent: the
 * test is then over. */
static kn_context *context(const char *debug, suite_lines *log) {
  if (!available()) return NULL;
  kn_context *c = kn_context_new(NULL, debug);
  ck_assert_ptr_nonnull(c);
  if (log) {
    suite_keep_lines(c, log);
  }
  OK(c, kn_registry_open(c, "onednn"));
  return c;
}

static void done(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* ---- tensors ---- */

typedef enum lay { DENSE, SWAPPED, STEPPED, PADDED, EXPANDED, LAYS } lay;

static uint32_t noise(uint32_t *s) { return *s = *s * 1664525u + 1013904223u; }

static kn_tensor *empty(kn_context *c, kn_dtype d, int rank, const int64_t *dims) {
  kn_type t = {.dtype = (uint8_t)d, .rank = (uint8_t)rank};
  if (rank) memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
  kn_tensor *x;
  OK(c, kn_tensor_new(c, &t, &x));
  return x;
}

static void fill(kn_tensor *t, uint32_t seed) {
  float *p = t->storage->data;
  for (size_t i = 0; i < t->storage->bytes / sizeof *p; i++)
    p[i] = (float)(noise(&seed) >> 8) / 8388608.0f - 1;
}

/* A float32 tensor of these sizes with one of several layouts. */
static kn_tensor *make(kn_context *c, lay how, uint32_t seed, int rank, const int64_t *dims) {
  int64_t d[KN_MAX_RANK];
  for (int i = 0; i < rank; i++) d[i] = dims[i];
  int last = rank - 1, but = rank - 2;
  if (rank < 2 && how != STEPPED) how = DENSE;
  if (how == SWAPPED) d[last] = dims[but], d[but] = dims[last];
  if (how == STEPPED) d[last] = dims[last] * 2 + 1;
  if (how == PADDED) d[last] += 3, d[but] += 1;
  if (how == EXPANDED) d[0] = 1;
  kn_tensor *t = empty(c, KN_F32, rank, d);
  fill(t, seed);
  for (int i = 0; i < rank; i++) t->type.dims[i] = dims[i];
  if (how == SWAPPED) {
    int64_t s = t->strides[last];
    t->strides[last] = t->strides[but];
    t->strides[but] = s;
  }
  if (how == STEPPED) t->strides[last] = 2, t->offset = 1;
  if (how == PADDED) t->offset = 2;
  if (how == EXPANDED) t->strides[0] = 0;
  return t;
}

#define DIMS(...) ((int64_t[]){__VA_ARGS__})

static kn_tensor *widened(kn_context *c, kn_tensor *t) {
  kn_tensor *w;
  kn_attrs_cast to = {.dtype = KN_F64};
  w = empty(c, KN_F64, t->type.rank, t->type.dims);
  OK(c, kn_kernel_cast(c, &to, &t, 1, &w));
  return w;
}

/* ---- one op both ways ---- */

static kn_tensor *result(kn_context *c, kn_op op, const void *attrs, kn_tensor *const *in, int n) {
  kn_type types[4], out;
  for (int i = 0; i < n; i++) types[i] = in[i]->type;
  OK(c, kn_infer_types(c, op, attrs, types, n, &out));
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &out, &t));
  return t;
}

/* Runs it through the list of providers; gives who ran it. */
static const char *both(kn_context *c, kn_op op, const void *attrs, kn_tensor *const *in, int n, double rtol,
                        const char *what) {
  kn_tensor *got = result(c, op, attrs, in, n), *wide[4], *want;
  const char *impl = "nobody";
  OK(c, kn_device_run(c, op, attrs, in, n, &got, &impl));
  for (int i = 0; i < n; i++) wide[i] = widened(c, in[i]);
  want = result(c, op, attrs, wide, n);
  OK(c, kn_ops[op].kernel(c, attrs, wide, n, &want));
  const double *b = kn_tensor_data(want);
  kn_dtype dtype = kn_tensor_dtype(got);
  double most = 0;
  for (int64_t i = 0; i < kn_tensor_numel(got); i++)
    if (isfinite(b[i]) && fabs(b[i]) > most) most = fabs(b[i]);
  for (int64_t i = 0; i < kn_tensor_numel(got); i++) {
    double a = kn_element_float(dtype, (char *)kn_tensor_data(got) + i * (int64_t)kn_dtype_size(dtype));
    bool same = isfinite(b[i]) ? fabs(a - b[i]) <= rtol * (most + 1) : isnan(b[i]) ? isnan(a) : a == b[i];
    if (!same) /* Check writes a file for each assertion, so not one for each element */
      ck_abort_msg("%s %s: element %lld is %.9g, not %.9g", kn_op_name(op), what, (long long)i, a, b[i]);
  }
  for (int i = 0; i < n; i++) kn_tensor_release(wide[i]);
  kn_tensor_release(got);
  kn_tensor_release(want);
  return impl;
}

static void must_be(const char *impl, const char *want, kn_op op, const char *what) {
  ck_assert_msg(!strcmp(impl, want), "%s %s ran on %s, not on %s", kn_op_name(op), what, impl, want);
}

/* ---- matmul ---- */

START_TEST(matmul_of_all_ranks_and_layouts) {
  static const struct {
    int ra, rb;
    int64_t a[5], b[5];
  } shapes[] = {
      {1, 1, {7}, {7}},
      {1, 2, {7}, {7, 5}},
      {2, 1, {6, 7}, {7}},
      {2, 2, {1, 1}, {1, 1}},
      {2, 2, {1, 32}, {32, 10}},
      {2, 2, {33, 1}, {1, 17}},
      {2, 2, {5, 7}, {7, 1}},
      {2, 2, {64, 65}, {65, 33}},
      {2, 2, {130, 128}, {128, 96}},
      {3, 3, {4, 5, 6}, {4, 6, 7}},
      {3, 3, {4, 5, 6}, {1, 6, 7}},
      {3, 3, {1, 5, 6}, {4, 6, 7}},
      {3, 3, {4, 1, 6}, {4, 6, 7}},
      {3, 2, {4, 5, 6}, {6, 7}},
      {3, 2, {4, 1, 6}, {6, 7}},
      {2, 3, {5, 6}, {4, 6, 7}},
      {3, 1, {4, 5, 6}, {6}},
      {1, 3, {6}, {4, 6, 7}},
      {4, 4, {2, 3, 5, 6}, {2, 3, 6, 7}},
      {4, 4, {2, 1, 5, 6}, {1, 3, 6, 7}},
      {4, 3, {2, 3, 5, 6}, {3, 6, 7}},
      {5, 4, {2, 1, 3, 4, 5}, {2, 1, 5, 6}},
      {3, 3, {12, 64, 32}, {12, 32, 64}},
  };
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  int on_onednn = 0, all = 0;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (lay la = DENSE; la < LAYS; la++)
      for (lay lb = DENSE; lb < LAYS; lb++) {
        char what[96];
        snprintf(what, sizeof what, "shapes %zu, layouts %d and %d", i, la, lb);
        kn_tensor *in[2] = {make(c, la, 1, shapes[i].ra, shapes[i].a),
                            make(c, lb, 2, shapes[i].rb, shapes[i].b)};
        on_onednn += !strcmp(both(c, KN_OP_matmul, NULL, in, 2, 2e-6, what), "onednn");
        all++;
        kn_tensor_release(in[0]);
        kn_tensor_release(in[1]);
      }
  ck_assert_int_eq(on_onednn, all);
  done(c);
}
END_TEST

/* ---- convolution ---- */

typedef struct conv_case {
  int64_t n, ch, h, w, filters, kh, kw, groups, stride[2], padding[2], dilation[2];
} conv_case;

static const conv_case convs[] = {
    {1, 1, 8, 8, 16, 3, 3, 1, {1, 1}, {1, 1}, {1, 1}},    {1, 16, 8, 8, 32, 3, 3, 1, {1, 1}, {1, 1}, {1, 1}},
    {5, 16, 4, 4, 32, 3, 3, 1, {1, 1}, {1, 1}, {1, 1}},   {2, 3, 9, 7, 5, 3, 3, 1, {2, 2}, {1, 1}, {1, 1}},
    {2, 3, 9, 10, 5, 2, 3, 1, {2, 1}, {0, 2}, {1, 1}},    {2, 4, 11, 9, 6, 3, 3, 1, {1, 2}, {2, 2}, {2, 2}},
    {2, 4, 12, 12, 6, 3, 2, 1, {3, 1}, {1, 0}, {1, 3}},   {3, 5, 6, 6, 7, 1, 1, 1, {1, 1}, {0, 0}, {1, 1}},
    {3, 64, 6, 6, 64, 1, 1, 1, {2, 2}, {0, 0}, {1, 1}},   {3, 16, 7, 8, 24, 1, 1, 1, {2, 3}, {0, 0}, {1, 1}},
    {2, 8, 7, 7, 8, 3, 3, 8, {1, 1}, {1, 1}, {1, 1}},     {2, 32, 7, 7, 32, 3, 3, 32, {1, 1}, {1, 1}, {1, 1}},
    {2, 6, 7, 8, 9, 3, 3, 3, {1, 1}, {1, 1}, {1, 1}},     {2, 32, 8, 8, 64, 3, 3, 2, {2, 2}, {1, 1}, {1, 1}},
    {1, 4, 5, 5, 4, 5, 5, 1, {1, 1}, {2, 2}, {1, 1}},     {1, 2, 3, 3, 2, 3, 3, 1, {1, 1}, {3, 3}, {1, 1}},
    {7, 64, 10, 10, 48, 3, 3, 1, {1, 1}, {1, 1}, {1, 1}}, {1, 3, 32, 32, 8, 7, 7, 1, {4, 4}, {3, 3}, {1, 1}},
};

static void sweep_conv(lay lx, lay lw) {
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  int on_onednn = 0, all = 0;
  for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) {
    const conv_case *v = &convs[i];
    kn_attrs_conv2d a = {.stride = {2, {v->stride[0], v->stride[1]}},
                         .padding = {2, {v->padding[0], v->padding[1]}},
                         .dilation = {2, {v->dilation[0], v->dilation[1]}},
                         .groups = v->groups};
    char what[96];
    snprintf(what, sizeof what, "case %zu, layouts %d and %d", i, lx, lw);
    kn_tensor *x = make(c, lx, 3, 4, DIMS(v->n, v->ch, v->h, v->w));
    kn_tensor *w = make(c, lw, 4, 4, DIMS(v->filters, v->ch / v->groups, v->kh, v->kw));
    kn_tensor *b = make(c, lx == DENSE ? DENSE : STEPPED, 5, 1, DIMS(v->filters));
    kn_tensor *y = result(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, w}, 2);
    kn_tensor *g = make(c, lx, 6, 4, y->type.dims);
    const char *by[] = {
        both(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, w}, 2, 2e-6, what),
        both(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, w, b}, 3, 2e-6, what),
        both(c, KN_OP_conv2d_grad_input, &a, (kn_tensor *[]){g, w, x}, 3, 2e-6, what),
        both(c, KN_OP_conv2d_grad_weight, &a, (kn_tensor *[]){g, x, w}, 3, 4e-6, what),
    };
    for (int k = 0; k < 4; k++) all++, on_onednn += !strcmp(by[k], "onednn");
    kn_tensor *mine[] = {x, w, b, y, g};
    for (int k = 0; k < 5; k++) kn_tensor_release(mine[k]);
  }
  /* Machines may have nothing but oneDNN's reference code for some. */
  ck_assert_msg(on_onednn >= all * 9 / 10, "only %d of %d convolutions ran on oneDNN", on_onednn, all);
  done(c);
}

START_TEST(conv2d_and_its_gradients) { sweep_conv(DENSE, DENSE); }
END_TEST
/* What it leaves to the backend beside it is computed there, not by the reference. */
START_TEST(small_convolutions_find_a_backend) {
  static const int64_t sides[][2] = {{3, 1}, {4, 1}, {3, 2}, {9, 1}, {3, 9}, {13, 1}};
  if (!available()) return;
  kn_context *c = kn_context_new(NULL, NULL);
  OK(c, kn_registry_open(c, NULL));
  int elsewhere = 0;
  for (int64_t side = 4; side <= 13; side++)
    for (int64_t filters = 8; filters <= 64; filters += 8)
      for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        for (int64_t pad = 0; pad <= sides[i][0] / 2; pad += 1 + sides[i][0] / 3) {
          const int64_t k = sides[i][0], step = sides[i][1];
          const kn_attrs_conv2d a = {
              .stride = {2, {step, step}}, .padding = {2, {pad, pad}}, .dilation = {2, {1, 1}}, .groups = 1};
          if (side + 2 * pad < k) continue;
          char what[96];
          snprintf(what, sizeof what, "side %d, kernel %d, %d filters, stride %d, padding %d", (int)side,
                   (int)k, (int)filters, (int)step, (int)pad);
          kn_tensor *in[] = {make(c, DENSE, 3, 4, DIMS(1, 2, side, side)),
                             make(c, DENSE, 4, 4, DIMS(filters, 2, k, k))};
          const char *by = both(c, KN_OP_conv2d, &a, in, 2, 2e-6, what);
          ck_assert_msg(strcmp(by, "ref") != 0, "conv2d of %s ran on the reference", what);
          elsewhere += strcmp(by, "onednn") != 0;
          kn_tensor_release(in[0]);
          kn_tensor_release(in[1]);
        }
  ck_assert_int_gt(elsewhere, 100);
  done(c);
}
END_TEST

START_TEST(conv2d_of_other_layouts) {
  sweep_conv(SWAPPED, PADDED);
  sweep_conv(STEPPED, SWAPPED);
  sweep_conv(EXPANDED, STEPPED);
}
END_TEST

/* ---- pooling ---- */

START_TEST(pooling) {
  static const struct {
    int64_t n, ch, h, w, kernel[2], stride[2], padding[2];
  } cases[] = {
      {1, 1, 8, 8, {2, 2}, {0, 0}, {0, 0}},    {1, 16, 8, 8, {2, 2}, {2, 2}, {0, 0}},
      {3, 5, 9, 7, {3, 3}, {2, 2}, {1, 1}},    {2, 16, 9, 7, {3, 2}, {1, 3}, {1, 1}},
      {4, 32, 6, 6, {6, 6}, {1, 1}, {0, 0}},   {2, 17, 13, 11, {5, 4}, {2, 3}, {2, 2}},
      {2, 64, 16, 16, {3, 3}, {2, 2}, {1, 1}},
  };
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (lay l = DENSE; l < LAYS; l++) {
      kn_attrs_pool2d a = {.kernel_size = {2, {cases[i].kernel[0], cases[i].kernel[1]}},
                           .stride = {2, {cases[i].stride[0], cases[i].stride[1]}},
                           .padding = {2, {cases[i].padding[0], cases[i].padding[1]}},
                           .dilation = {1, {1}}};
      kn_attrs_avg_pool2d m = {
          .kernel_size = a.kernel_size, .stride = a.stride, .padding = a.padding, .count_include_pad = true};
      char what[64];
      snprintf(what, sizeof what, "case %zu, layout %d", i, l);
      kn_tensor *x = make(c, l, 7, 4, DIMS(cases[i].n, cases[i].ch, cases[i].h, cases[i].w));
      kn_tensor *y = result(c, KN_OP_avg_pool2d, &m, &x, 1), *g = make(c, l, 8, 4, y->type.dims);
      must_be(both(c, KN_OP_max_pool2d, &a, &x, 1, 0, what), "onednn", KN_OP_max_pool2d, what);
      must_be(both(c, KN_OP_avg_pool2d, &m, &x, 1, 5e-7, what), "onednn", KN_OP_avg_pool2d, what);
      both(c, KN_OP_avg_pool2d_grad, &m, (kn_tensor *[]){g, x}, 2, 1e-6, what);
      both(c, KN_OP_max_pool2d_grad, &a, (kn_tensor *[]){g, x}, 2, 1e-6, what);
      a.ceil_mode = m.ceil_mode = true; /* and what is not oneDNN's still has its values */
      both(c, KN_OP_max_pool2d, &a, &x, 1, 0, what);
      both(c, KN_OP_avg_pool2d, &m, &x, 1, 5e-7, what);
      kn_tensor_release(x);
      kn_tensor_release(y);
      kn_tensor_release(g);
    }
  done(c);
}
END_TEST

/* nan and infinities mean what they mean to the reference. */
START_TEST(special_values) {
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  const float odd[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; i++)
    for (int all = 0; all < 2; all++) {
      kn_attrs_pool2d two = {
          .kernel_size = {1, {2}}, .stride = {1, {0}}, .padding = {1, {0}}, .dilation = {1, {1}}};
      kn_attrs_avg_pool2d mean = {
          .kernel_size = {1, {2}}, .stride = {1, {0}}, .padding = {1, {0}}, .count_include_pad = true};
      kn_tensor *x = make(c, DENSE, 10, 2, DIMS(4, 256)), *p = make(c, DENSE, 11, 4, DIMS(2, 16, 4, 4));
      for (int k = 0; k < (all ? 256 : 1); k++) ((float *)kn_tensor_data(x))[256 + k] = odd[i];
      for (int k = 0; k < (all ? 16 : 1); k++) ((float *)kn_tensor_data(p))[32 + k] = odd[i];
      both(c, KN_OP_max_pool2d, &two, &p, 1, 0, "of special values");
      both(c, KN_OP_avg_pool2d, &mean, &p, 1, 1e-6, "of special values");
      kn_tensor *w = make(c, DENSE, 12, 2, DIMS(256, 3));
      both(c, KN_OP_matmul, NULL, (kn_tensor *[]){x, w}, 2, 2e-6, "of special values");
      kn_tensor_release(x);
      kn_tensor_release(p);
      kn_tensor_release(w);
    }
  done(c);
}
END_TEST

/* ---- what it declines, and that it says why ---- */

START_TEST(what_is_declined_is_said) {
  static suite_lines log;
  kn_context *c = context("dispatch", &log);
  if (!c) return;
  kn_tensor *none[2] = {empty(c, KN_F32, 2, DIMS(2, 0)), empty(c, KN_F32, 2, DIMS(0, 2))};
  kn_tensor *nan = make(c, DENSE, 1, 4, DIMS(2, 3, 8, 8));
  ((float *)kn_tensor_data(nan))[5] = NAN;
  for (int d = KN_BOOL + 1; d < KN_DTYPE_COUNT; d++) {
    kn_tensor *other[2] = {empty(c, (kn_dtype)d, 2, DIMS(2, 3)), empty(c, (kn_dtype)d, 2, DIMS(3, 2))};
    char want[80];
    for (int i = 0; i < 2; i++) memset(kn_tensor_data(other[i]), 0, other[i]->storage->bytes);
    snprintf(want, sizeof want, "onednn declines matmul: %s is not supported", kn_dtypes[d].name);
    if (d != KN_F32) {
      must_be(both(c, KN_OP_matmul, NULL, other, 2, 0, kn_dtypes[d].name), "ref", KN_OP_matmul,
              kn_dtypes[d].name);
      ck_assert_ptr_nonnull(strstr(log.text, want));
    }
    for (int i = 0; i < 2; i++) kn_tensor_release(other[i]);
  }
  must_be(both(c, KN_OP_matmul, NULL, none, 2, 0, "empty"), "ref", KN_OP_matmul, "empty");
  ck_assert_ptr_nonnull(strstr(log.text, "onednn declines matmul: a tensor without elements"));
  kn_attrs_pool2d two = {
      .kernel_size = {1, {2}}, .stride = {1, {0}}, .padding = {1, {0}}, .dilation = {1, {1}}};
  must_be(both(c, KN_OP_max_pool2d, &two, &nan, 1, 0, "nan"), "ref", KN_OP_max_pool2d, "nan");
  ck_assert_ptr_nonnull(strstr(log.text, "onednn declines max_pool2d: the input holds nan or infinity"));
  for (int i = 0; i < 2; i++) kn_tensor_release(none[i]);
  kn_tensor_release(nan);
  done(c);
}
END_TEST

/* ---- the cache ---- */

static void one_matmul(kn_context *c, int64_t m, int64_t k) {
  kn_tensor *in[2] = {make(c, DENSE, 1, 2, DIMS(m, k)), make(c, DENSE, 2, 2, DIMS(k, 3))};
  must_be(both(c, KN_OP_matmul, NULL, in, 2, 2e-6, "in a series"), "onednn", KN_OP_matmul, "in a series");
  kn_tensor_release(in[0]);
  kn_tensor_release(in[1]);
}

START_TEST(the_cache_is_bounded_and_used) {
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  for (int i = 1; i <= 300; i++) one_matmul(c, i, 5);
  kn_heap_stats full = kn_heap_read_stats(c->heap);
  for (int i = 301; i <= 400; i++) one_matmul(c, i, 5);
  kn_heap_stats later = kn_heap_read_stats(c->heap);
  ck_assert_uint_eq(full.blocks, later.blocks); /* each new one took the place of an old one */
  one_matmul(c, 400, 5);
  kn_heap_stats before = kn_heap_read_stats(c->heap);
  kn_tensor *in[2] = {make(c, DENSE, 1, 2, DIMS(400, 5)), make(c, DENSE, 2, 2, DIMS(5, 3))};
  kn_tensor *out = result(c, KN_OP_matmul, NULL, in, 2);
  uint64_t calls = kn_heap_read_stats(c->heap).calls;
  OK(c, kn_device_run(c, KN_OP_matmul, NULL, in, 2, &out, NULL));
  ck_assert_uint_le(kn_heap_read_stats(c->heap).calls - calls,
                    1); /* at most a workspace: nothing is made again */
  kn_tensor_release(in[0]), kn_tensor_release(in[1]), kn_tensor_release(out);
  ck_assert_uint_eq(kn_heap_read_stats(c->heap).blocks, before.blocks);
  done(c);
}
END_TEST

/* ---- threads ---- */

typedef struct worker {
  kn_context *ctx;
  uint32_t seed;
  int wrong;
} worker;

/* The same ops at the same time, on values of its own; results are compared with a first run. */
static void *work(void *ud) {
  worker *w = ud;
  kn_context *c = w->ctx;
  kn_attrs_conv2d a = {.stride = {1, {1}}, .padding = {1, {1}}, .dilation = {1, {1}}, .groups = 1};
  kn_tensor *x = make(c, DENSE, w->seed, 4, DIMS(2, 16, 8, 8)),
            *f = make(c, DENSE, w->seed + 1, 4, DIMS(32, 16, 3, 3));
  kn_tensor *m[2] = {make(c, DENSE, w->seed + 2, 2, DIMS(40, 50)),
                     make(c, SWAPPED, w->seed + 3, 2, DIMS(50, 60))};
  kn_tensor *y[2] = {0}, *p[2] = {0};
  for (int i = 0; i < 200; i++) {
    int k = i > 0;
    if (!y[k])
      y[k] = result(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, f}, 2),
      p[k] = result(c, KN_OP_matmul, NULL, m, 2);
    OK(c, kn_device_run(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, f}, 2, &y[k], NULL));
    OK(c, kn_device_run(c, KN_OP_matmul, NULL, m, 2, &p[k], NULL));
    if (k && (memcmp(kn_tensor_data(y[0]), kn_tensor_data(y[1]), y[0]->storage->bytes) ||
              memcmp(kn_tensor_data(p[0]), kn_tensor_data(p[1]), p[0]->storage->bytes)))
      w->wrong++;
  }
  kn_tensor *mine[] = {x, f, m[0], m[1], y[0], y[1], p[0], p[1]};
  for (int i = 0; i < 8; i++) kn_tensor_release(mine[i]);
  return NULL;
}

START_TEST(two_threads_at_once) {
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  worker w[2] = {{kn_context_child(c), 1, 0}, {kn_context_child(c), 100, 0}};
  pthread_t t[2];
  for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&t[i], NULL, work, &w[i]), 0);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  ck_assert_int_eq(w[0].wrong + w[1].wrong, 0);
  for (int i = 0; i < 2; i++) kn_context_free(w[i].ctx);
  done(c);
}
END_TEST

START_TEST(the_thread_count_is_the_contexts) {
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  int before = kn_parallel_default_threads();
  for (c->threads = 1; c->threads <= 3; c->threads++) {
    kn_tensor *in[2] = {make(c, DENSE, 1, 2, DIMS(128, 128)), make(c, DENSE, 2, 2, DIMS(128, 128))};
    must_be(both(c, KN_OP_matmul, NULL, in, 2, 2e-6, "threads"), "onednn", KN_OP_matmul, "threads");
    kn_tensor_release(in[0]), kn_tensor_release(in[1]);
    ck_assert_int_eq(kn_parallel_default_threads(), before); /* OpenMP's own setting is left as it was */
  }
  done(c);
}
END_TEST

/* ---- out of memory ---- */

typedef struct rationed {
  long left; /* allocations until failure; < 0: no limit */
} rationed;

static void *ration(void *ud, void *ptr, size_t osize, size_t nsize) {
  rationed *r = ud;
  (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  if (r->left == 0) return NULL;
  if (r->left > 0) r->left--;
  return realloc(ptr, nsize);
}

START_TEST(memory_that_runs_out) {
  rationed r = {-1};
  kn_heap *h = kn_heap_new(ration, &r, 0);
  kn_context *c = kn_context_new(h, NULL);
  OK(c, kn_registry_open(c, NULL));
  kn_attrs_conv2d a = {.stride = {1, {1}}, .padding = {1, {1}}, .dilation = {1, {1}}, .groups = 1};
  kn_tensor *x = make(c, SWAPPED, 1, 4, DIMS(1, 4, 6, 5)), *f = make(c, SWAPPED, 2, 4, DIMS(8, 4, 3, 3));
  kn_tensor *y = result(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, f}, 2);
  kn_status st = KN_NOMEM;
  for (long n = 0; st != KN_OK; n++) {
    ck_assert_int_lt(n, 100);
    uint64_t blocks = kn_heap_read_stats(h).blocks;
    r.left = n;
    st = kn_device_run(c, KN_OP_conv2d, &a, (kn_tensor *[]){x, f}, 2, &y, NULL);
    r.left = -1;
    if (st == KN_OK) break;
    ck_assert_int_eq(st, KN_NOMEM);
    ck_assert_ptr_nonnull(strstr(kn_error(c), "out of memory"));
    ck_assert_uint_le(blocks, kn_heap_read_stats(h).blocks); /* what is kept is kept for the next try */
  }
  kn_tensor_release(x), kn_tensor_release(f), kn_tensor_release(y);
  kn_registry_close(c);
  kn_context_free(c);
  ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
  kn_heap_release(h);
}
END_TEST

/* ---- graphs ---- */

static const char net[] =
    "graph net(%x: float32[N,4,8,8]) {\n"
    "  slot param \"f\": float32[8,4,3,3]\n"
    "  slot param \"w\": float32[6,128]\n"
    "  %f = param \"f\"\n"
    "  %w = param \"w\"\n"
    "  %c: float32[N,8,8,8] = conv2d %x, %f {stride = {1}, padding = {1}, dilation = {1}, groups = 1}\n"
    "  %r: float32[N,8,8,8] = relu %c\n"
    "  %p: float32[N,8,4,4] = max_pool2d %r {kernel_size = {2}, stride = {0}, padding = {0}}\n"
    "  %n = size %x {dim = 1}\n"
    "  %v: float32[N,128] = reshape %p {sizes = {-1, 128}}\n"
    "  %t: float32[128,6] = transpose %w {dim0 = 1, dim1 = 2}\n"
    "  %y: float32[N,6] = matmul %v, %t\n"
    "  return %y\n"
    "}\n";

/* A session over all targets, or over the reference alone, on the same parameters. */
static kn_session *session(kn_context *c, kn_graph *g, bool ref, kn_tensor *f, kn_tensor *w) {
  const kn_target *const *targets;
  int n;
  kn_session *s;
  OK(c, kn_registry_targets(c, &targets, &n));
  OK(c, kn_session_new(c, g, ref ? targets + n - 1 : targets, ref ? 1 : n, &s));
  OK(kn_session_context(s), kn_session_set_slot(s, 0, &(kn_rvalue){.tensor = f}));
  OK(kn_session_context(s), kn_session_set_slot(s, 1, &(kn_rvalue){.tensor = w}));
  return s;
}

static void same_result(kn_session *a, kn_session *b, kn_tensor *x) {
  kn_rvalue in = {.tensor = x}, ya, yb;
  OK(kn_session_context(a), kn_session_run(a, &in, 1, &ya, 1));
  OK(kn_session_context(b), kn_session_run(b, &in, 1, &yb, 1));
  const float *p = kn_tensor_data(ya.tensor), *q = kn_tensor_data(yb.tensor);
  ck_assert_int_eq(kn_tensor_numel(ya.tensor), kn_tensor_numel(yb.tensor));
  for (int64_t i = 0; i < kn_tensor_numel(ya.tensor); i++)
    if (!(isnan(p[i]) && isnan(q[i])) && !(fabsf(p[i] - q[i]) < 1e-4f))
      ck_abort_msg("element %lld is %g, not %g", (long long)i, (double)p[i], (double)q[i]);
  kn_tensor_release(ya.tensor);
  kn_tensor_release(yb.tensor);
}

START_TEST(a_graph_runs_on_it_and_says_so) {
  static suite_lines log;
  kn_context *c = context("exec", &log);
  if (!c) return;
  kn_graph *g;
  OK(c, kn_graph_parse(c, net, sizeof net - 1, &g));
  for (lay l = DENSE; l < EXPANDED; l++) { /* parameters and inputs in any layout */
    kn_tensor *f = make(c, l, 20, 4, DIMS(8, 4, 3, 3)), *w = make(c, l, 21, 2, DIMS(6, 128));
    kn_session *mine = session(c, g, false, f, w), *ref = session(c, g, true, f, w);
    for (int64_t n = 1; n <= 3; n++) {
      kn_tensor *x = make(c, l, 22, 4, DIMS(n, 4, 8, 8));
      for (int again = 0; again < 2; again++) same_result(mine, ref, x);
      ((float *)kn_tensor_data(x))[3] = NAN; /* max_pool2d then goes to the reference, this once */
      same_result(mine, ref, x);
      kn_tensor_release(x);
    }
    kn_session_free(mine);
    kn_session_free(ref);
    kn_tensor_release(f);
    kn_tensor_release(w);
  }
  kn_graph_release(g);
  static const char *const said[] = {"exec onednn   conv2d ", "exec onednn   max_pool2d ",
                                     "exec onednn   matmul ", "exec ref      relu ",
                                     "ref (the input holds nan or infinity)"};
  for (size_t i = 0; i < sizeof said / sizeof *said; i++)
    ck_assert_msg(strstr(log.text, said[i]) != NULL, "no \"%s\" in the log:\n%.1500s", said[i], log.text);
  done(c);
}
END_TEST

typedef struct runner {
  kn_session *mine, *ref;
  kn_tensor *x;
} runner;

static void *run_many(void *ud) {
  runner *r = ud;
  for (int i = 0; i < 100; i++) same_result(r->mine, r->ref, r->x);
  return NULL;
}

START_TEST(two_sessions_at_once) {
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  kn_graph *g;
  OK(c, kn_graph_parse(c, net, sizeof net - 1, &g));
  kn_tensor *f = make(c, DENSE, 20, 4, DIMS(8, 4, 3, 3)), *w = make(c, DENSE, 21, 2, DIMS(6, 128));
  runner r[2];
  pthread_t t[2];
  for (int i = 0; i < 2; i++)
    r[i] = (runner){session(c, g, false, f, w), session(c, g, true, f, w),
                    make(c, DENSE, 30 + i, 4, DIMS(1 + i, 4, 8, 8))};
  for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&t[i], NULL, run_many, &r[i]), 0);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  for (int i = 0; i < 2; i++) {
    kn_session_free(r[i].mine);
    kn_session_free(r[i].ref);
    kn_tensor_release(r[i].x);
  }
  kn_tensor_release(f);
  kn_tensor_release(w);
  kn_graph_release(g);
  done(c);
}
END_TEST

/* A product at the end of many transpositions, planned and run on a small stack. */
static void *run_chain(void *ud) {
  runner *r = ud;
  kn_rvalue in = {.tensor = r->x}, y;
  OK(kn_session_context(r->mine), kn_session_run(r->mine, &in, 1, &y, 1));
  ck_assert(*(float *)kn_tensor_data(y.tensor) == 64);
  kn_tensor_release(y.tensor);
  return NULL;
}

START_TEST(long_chains_need_no_stack) {
  enum { LINES = 30000, LINE = 64 };
  kn_context *c = context(NULL, NULL);
  if (!c) return;
  char *text = malloc((LINES + 8) * LINE), *p = text;
  p += sprintf(p, "graph g(%%x: float32[64,64]) {\n  %%0 = abs %%x\n");
  for (int i = 1; i <= LINES; i++)
    p += sprintf(p, "  %%%d = transpose %%%d {dim0 = 1, dim1 = 2}\n", i, i - 1);
  p += sprintf(p, "  %%y = matmul %%x, %%%d\n  return %%y\n}\n", LINES);
  const kn_target *const *targets;
  kn_graph *g;
  int n;
  runner r = {.x = NULL};
  OK(c, kn_graph_parse(c, text, (size_t)(p - text), &g));
  OK(c, kn_registry_targets(c, &targets, &n));
  OK(c, kn_session_new(c, g, targets, n, &r.mine));
  OK(c, kn_apply(c, KN_OP_full, &(kn_attrs_fill){.sizes = {2, {64, 64}}, .value = 1, .dtype = KN_F32}, NULL,
                 0, &r.x));
  pthread_attr_t small;
  pthread_t t;
  ck_assert_int_eq(pthread_attr_init(&small), 0);
  ck_assert_int_eq(pthread_attr_setstacksize(&small, 512 << 10), 0);
  ck_assert_int_eq(pthread_create(&t, &small, run_chain, &r), 0);
  pthread_join(t, NULL);
  pthread_attr_destroy(&small);
  kn_session_free(r.mine);
  kn_tensor_release(r.x);
  kn_graph_release(g);
  free(text);
  done(c);
}
END_TEST

START_TEST(its_row_tells_version_or_reason) {
  kn_context *c = suite_context();
  OK(c, kn_registry_open(c, NULL));
  int seen = 0;
  for (int i = 0; i < kn_registry_count(); i++) {
    kn_backend_report r;
    kn_registry_report(c, i, &r);
    if (strcmp(r.name, "onednn")) continue;
    seen++;
    printf("oneDNN: %s\n", r.available ? r.version : r.reason);
    if (r.available)
      ck_assert_msg(r.version[0] == '2' || r.version[0] == '3', "version \"%s\"", r.version);
    else
      ck_assert_int_gt((int)strlen(r.reason), 0);
  }
  ck_assert_int_eq(seen, 1);
  done(c);
}
END_TEST

SUITE("onednn", its_row_tells_version_or_reason, matmul_of_all_ranks_and_layouts, conv2d_and_its_gradients,
      small_convolutions_find_a_backend, conv2d_of_other_layouts, pooling, special_values,
      what_is_declined_is_said, the_cache_is_bounded_and_used, two_threads_at_once,
      the_thread_count_is_the_contexts, memory_that_runs_out, a_graph_runs_on_it_and_says_so,
      two_sessions_at_once, long_chains_need_no_stack)
