/* What optimize.c (the order of things) and optimize_folds.c (which folds are kept) share. Private to them.
 */
#ifndef KN_OPTIMIZE_INSIDE_H
#define KN_OPTIMIZE_INSIDE_H
#include "graph/optimize.h"

typedef struct kn_samples { /* what the graph as it was gives on them */
  const kn_rvalue **in;
  kn_rvalue **want; /* owned lists of owned values */
  kn_rvalue *own;   /* the one that was made here; NULL */
  uint32_t n, nin, nout;
  uint32_t room; /* of in and want */
  bool smaller;  /* `own` may have, and then has, other sizes than the graph says */
} kn_samples;

/* The largest error of g over the samples, and its share of the budget. */
kn_status kn_samples_measure(kn_context *ctx, const kn_optimize *o, const kn_samples *s, kn_graph *g,
                             double *share, double *error);
/* Every folding of the last level, one after the other: *g becomes another graph. */
kn_status kn_optimize_folds(kn_context *ctx, const kn_optimize *o, const kn_samples *s, kn_optimize_report *r,
                            kn_graph **g);
/* Text in the report's arena; NULL gives NULL, as no memory does. */
const char *kn_report_text(kn_optimize_report *r, const char *s);

#endif
