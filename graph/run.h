/* The inside of a run, shared by run.c (its steps) and results.c (its end). Not for others. */
#ifndef KN_RUN_H
#define KN_RUN_H
#include "graph/session.h"

typedef struct kn_run {
  kn_session *s;
  kn_plan *p;
  kn_context *ctx;
} kn_run;

/* A contiguous copy of t outside the arena. */
kn_status kn_run_clone(kn_run *r, kn_tensor *t, kn_tensor **out);
/* When all steps have run: results to s->out, origins of them and of what was stored. */
kn_status kn_run_results(kn_run *r);

#endif
