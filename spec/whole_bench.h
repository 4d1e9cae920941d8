/* A graph as pieces that are one launch each, by the launcher of mock_launch.h, beside the plain reference.
 */
#ifndef SPEC_WHOLE_BENCH_H
#define SPEC_WHOLE_BENCH_H
#include "spec/exec.h"
#include "spec/mock_launch.h"
#include "spec/random_graph.h"
#include "spec/whole_texts.h"

typedef struct bench {
  rig r; /* of the plain reference */
  mock m;
  kn_session *s; /* of the mock */
} bench;

static inline void bench_open(bench *b, const char *text) {
  char made[WHOLE_TEXT];
  rig_open(&b->r, text_on(made, text, ""));
  mock_init(&b->m, KN_CPU, 0);
  OK(b->r.c, kn_session_new(b->r.c, b->r.g, (const kn_target *[]){&b->m.target}, 1, &b->s));
}
static inline void bench_close(bench *b) {
  kn_session_free(b->s);
  rig_close(&b->r);
}

/* The same results, or the same sentence, from both; so often. */
static inline void agree(bench *b, const kn_rvalue *in, uint32_t nin, uint32_t nout) {
  kn_rvalue x[8], y[8];
  kn_status want = kn_session_run(b->r.s, in, nin, x, nout), got = kn_session_run(b->s, in, nin, y, nout);
  ck_assert_msg(want == got, "\"%s\" instead of \"%s\"", kn_error(kn_session_context(b->s)),
                kn_error(kn_session_context(b->r.s)));
  if (want != KN_OK)
    ck_assert_str_eq(kn_error(kn_session_context(b->s)), kn_error(kn_session_context(b->r.s)));
  for (uint32_t i = 0; i < nout && want == KN_OK; i++) {
    ck_assert_msg(same_result(&x[i], &y[i]), "result %d differs", (int)i + 1);
    kn_tensor_release(x[i].tensor), kn_tensor_release(y[i].tensor);
  }
}
#define AGREE(b, nout, ...) agree(b, (kn_rvalue[]){__VA_ARGS__}, COUNT(((kn_rvalue[]){__VA_ARGS__})), nout)

static inline void reads(const bench *b, const char *want) { ck_assert_str_eq(b->m.text, want); }

#endif
