/* For suites that run graphs: a graph from text, a session over the reference target, values in and out. */
#ifndef SPEC_EXEC_H
#define SPEC_EXEC_H
#include "backends/ref/ref.h"
#include "graph/exec.h"
#include "graph/text.h"
#include "spec/tensors.h"

typedef struct rig {
  kn_context *c; /* the session's parent */
  kn_graph *g;
  kn_session *s;
  kn_target target;
  char log[20000]; /* what was logged so far, lines ended by \n */
} rig;

static inline void rig_log(void *ud, kn_out kind, const char *text, size_t len) {
  rig *r = ud;
  size_t at = strlen(r->log);
  if (kind == KN_OUT_LOG && at + len + 2 < sizeof r->log) {
    memcpy(r->log + at, text, len);
    strcpy(r->log + at + len, "\n");
  }
}

static inline kn_graph *parse(kn_context *c, const char *text) {
  kn_graph *g = NULL;
  OK(c, kn_graph_parse(c, text, strlen(text), &g));
  return g;
}

/* debug: KILN_DEBUG's value or NULL. In place: the log callback keeps its address. */
static inline void rig_open_debug(rig *r, const char *text, const char *debug) {
  r->c = kn_context_new(NULL, debug);
  ck_assert_ptr_nonnull(r->c);
  r->c->threads = 2;
  r->log[0] = 0;
  r->c->output = rig_log;
  r->c->output_ud = r;
  r->g = parse(r->c, text);
  ck_assert(kn_ref_backend.target(r->c, NULL, &r->target));
  OK(r->c, kn_session_new(r->c, r->g, (const kn_target *[]){&r->target}, 1, &r->s));
}
static inline void rig_open(rig *r, const char *text) { rig_open_debug(r, text, NULL); }

static inline void rig_close(rig *r) {
  kn_session_free(r->s);
  kn_graph_release(r->g);
  suite_done(r->c);
}

static inline kn_context *rig_ctx(rig *r) { return kn_session_context(r->s); }

static inline kn_rvalue T(kn_tensor *t) { return (kn_rvalue){.tensor = t}; }
static inline kn_rvalue INT(int64_t i) { return (kn_rvalue){.scalar = {KN_SCALAR_INT, {.i = i}}}; }
static inline kn_rvalue NUM(double f) { return (kn_rvalue){.scalar = {KN_SCALAR_FLOAT, {.f = f}}}; }
static inline kn_rvalue BOOL(bool b) { return (kn_rvalue){.scalar = {KN_SCALAR_BOOL, {.b = b}}}; }

#define COUNT(a) (sizeof(a) / sizeof *(a))
/* in: an array of kn_rvalue in parentheses or a compound literal; out: room for nout. */
#define RUN(r, out, nout, ...)                                                                               \
  kn_session_run((r)->s, (kn_rvalue[]){__VA_ARGS__}, COUNT(((kn_rvalue[]){__VA_ARGS__})), out, nout)

static inline kn_tensor *f32(rig *r, kn_ints dims, const double *values) {
  return make(r->c, KN_F32, dims, values);
}
#define VEC(r, ...) f32(r, DIMS(COUNT(LIST(__VA_ARGS__))), LIST(__VA_ARGS__))

/* Compares and releases. */
static inline void gives(kn_rvalue *v, kn_ints dims, const double *values) {
  ck_assert_ptr_nonnull(v->tensor);
  expect(v->tensor, kn_tensor_dtype(v->tensor), dims, values);
  kn_tensor_release(v->tensor);
  v->tensor = NULL;
}
#define GIVES(v, ...) gives(v, DIMS(COUNT(LIST(__VA_ARGS__))), LIST(__VA_ARGS__))

#endif
