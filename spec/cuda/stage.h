/* One graph on the CPU's reference and on the software device, for C suites: both must agree. */
#ifndef SPEC_CUDA_STAGE_H
#define SPEC_CUDA_STAGE_H
#include "backends/cuda/launch.h"
#include "spec/cuda/software.h"
#include "spec/exec.h"
#include "spec/whole_texts.h"

typedef struct stage { /* one graph on both devices */
  kn_context *c;
  cu_device *d;
  kn_graph *g[2];
  kn_session *s[2];
  kn_target ref;
} stage;

static inline kn_graph *on_device(kn_context *c, const char *text, const char *device) {
  char made[WHOLE_TEXT];
  return parse(c, text_on(made, text, device));
}

static inline kn_tensor *to(kn_context *c, kn_tensor *t, kn_device_id d) {
  kn_tensor *out;
  OK(c, kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = d}, &t, 1, &out));
  return out;
}

static inline void stage_open(stage *s, const char *text) {
  const kn_target *const *targets;
  int n;
  s->c = software_context();
  OK(s->c, cu_device_of(s->c, &s->d));
  kn_tensor *x = number(s->c, KN_F32, 1), *there = to(s->c, x, KN_CUDA);
  kn_tensor_release(x), kn_tensor_release(there);
  s->g[0] = on_device(s->c, text, "");
  s->g[1] = on_device(s->c, text, "@cuda");
  ck_assert(kn_ref_backend.target(s->c, NULL, &s->ref));
  OK(s->c, kn_session_new(s->c, s->g[0], (const kn_target *[]){&s->ref}, 1, &s->s[0]));
  OK(s->c, kn_registry_targets(s->c, &targets, &n));
  OK(s->c, kn_session_new(s->c, s->g[1], targets, n, &s->s[1]));
}

static inline void stage_close(stage *s) {
  for (int i = 0; i < 2; i++) kn_session_free(s->s[i]), kn_graph_release(s->g[i]);
  kn_registry_close(s->c);
  suite_done(s->c);
}

static inline void near_values(kn_context *c, const kn_rvalue *want, const kn_rvalue *got) {
  if (!want->tensor) {
    ck_assert_int_eq(want->scalar.kind, got->scalar.kind);
    if (want->scalar.kind == KN_SCALAR_FLOAT)
      ck_assert(near(want->scalar.as.f, got->scalar.as.f, 1e-5));
    else
      ck_assert(want->scalar.as.i == got->scalar.as.i);
    return;
  }
  kn_tensor *host = to(c, got->tensor, KN_CPU);
  for (int64_t k = 0; k < kn_tensor_numel(host); k++)
    ck_assert_msg(near(element(host, k), element(want->tensor, k), 1e-5), "element %d: %.9g instead of %.9g",
                  (int)k + 1, element(host, k), element(want->tensor, k));
  kn_tensor_release(host);
}

/* The sentence, whose types name no device. */
static inline const char *sentence(kn_session *s, char buf[400]) {
  size_t n = 0;
  for (const char *at = kn_error(kn_session_context(s)); *at && n < 399; at++) {
    if (!strncmp(at, "@cuda", 5)) at += 5;
    buf[n++] = *at;
  }
  buf[n] = 0;
  return buf;
}

/* Inputs are the CPU's; takes the tensors over. Results agree, or sentences do. */
static inline void agree(stage *s, kn_rvalue *in, uint32_t nin, uint32_t nout) {
  kn_rvalue x[4], y[4], there[4];
  char a[400], b[400];
  for (uint32_t i = 0; i < nin; i++) {
    there[i] = in[i];
    if (in[i].tensor) there[i].tensor = to(s->c, in[i].tensor, KN_CUDA);
  }
  kn_status want = kn_session_run(s->s[0], in, nin, x, nout),
            got = kn_session_run(s->s[1], there, nin, y, nout);
  ck_assert_msg(want == got, "\"%s\" instead of \"%s\"", sentence(s->s[1], a), sentence(s->s[0], b));
  if (want != KN_OK) ck_assert_str_eq(sentence(s->s[1], a), sentence(s->s[0], b));
  for (uint32_t i = 0; i < nout && want == KN_OK; i++) {
    near_values(s->c, &x[i], &y[i]);
    kn_tensor_release(x[i].tensor), kn_tensor_release(y[i].tensor);
  }
  for (uint32_t i = 0; i < nin; i++) {
    if (want == KN_OK && in[i].tensor) near_values(s->c, &in[i], &there[i]); /* what was updated */
    kn_tensor_release(in[i].tensor);
    if (in[i].tensor) kn_tensor_release(there[i].tensor);
  }
}
#define AGREE(s, nout, ...) agree(s, (kn_rvalue[]){__VA_ARGS__}, COUNT(((kn_rvalue[]){__VA_ARGS__})), nout)

static inline kn_tensor *vector(stage *s, double a, double b, double c) {
  return make(s->c, KN_F32, DIMS(3), LIST(a, b, c));
}

/* So many launches, of which so many waited, and graphs. */
static inline void launched(stage *s, int launches, int waits, int captured) {
  const kn_device_launches n = cu_launches_of(s->d);
  ck_assert_msg((int)n.launches == launches && (int)n.waits == waits && (int)n.captured == captured,
                "%d launches, %d waited, %d graphs", (int)n.launches, (int)n.waits, (int)n.captured);
}

#endif
