/* Graphs for inference: a copy whose parameters are constants, and what follows from that. Folds that change
 * rounding are measured on samples against the graph as it was, one by one and all together, and left out
 * where they would cost more than the budget. */
#ifndef KN_OPTIMIZE_H
#define KN_OPTIMIZE_H
#include "graph/exec.h"
#include "graph/pipeline.h"

/* How far results may be from what they were: the largest difference in a tensor over its largest element,
 * or, in ulps, over the last place of that. */
typedef struct kn_budget {
  double most; /* negative: KN_BUDGET, or what a result's dtype can tell where that is more */
  bool ulps;
} kn_budget;
#define KN_BUDGET 1e-5

typedef struct kn_optimize {
  kn_session *session; /* of the graph, holding the values that become constants; nothing runs in it */
  kn_pipeline level;   /* FREEZE, or INFERENCE: with folds */
  const char *const *preserve; /* slots that stay what they are, by name, or all below a name */
  uint32_t npreserve;
  const kn_target *const *targets; /* for the runs that measure */
  int ntargets;
  const kn_rvalue *const *samples; /* inputs, flat */
  uint32_t nsamples;
  bool invent; /* where there are no samples make one, if the inputs' types tell how */
  kn_budget budget;
} kn_optimize;

typedef struct kn_fold_note {
  const char *fold, *what, *where; /* "affine", "conv2d + batch_norm", "net.lua:3" or NULL */
  const char *of;                  /* the parameter it concerns: "net.conv.weight"; NULL */
  const char *why;                 /* it was left out, or not measured; NULL */
  double error;                    /* of the values it replaces; negative: not measured */
  bool kept;
} kn_fold_note;

typedef struct kn_optimize_report { /* all texts are its own */
  kn_arena arena;
  const char *graph;
  kn_fold_note *folds;
  kn_guard *guards;            /* dropped; where: NULL */
  const char **places;         /* of those guards; entries may be NULL */
  const char **frozen, **stay; /* names of slots */
  uint32_t nfolds, nguards, nfrozen, nstay;
  uint64_t nodes[2], bytes[2]; /* before and after; of slots */
  uint32_t samples;            /* runs that were compared */
  bool invented;               /* their inputs are random … */
  bool smaller;                /* … and of smaller sizes than the graph says */
  bool doubt;                  /* the samples did not come to some fold, or spoke against it */
  const char *unmeasured;      /* why there were none; NULL */
  double error;                /* of the results, against the graph as it was; negative: not measured */
  bool over; /* more than the budget allows, though no fold is to blame: constants lie otherwise */
  kn_budget budget;
  const char *hint; /* what in the graph looks as if it was not meant; NULL */
} kn_optimize_report;

/* The report is the caller's to free, on success. The new graph shares no memory with the session's slots but
 * for preserved ones. */
kn_status kn_optimize_graph(kn_context *ctx, const kn_optimize *o, kn_optimize_report *report,
                            kn_graph **out);
void kn_optimize_report_free(kn_optimize_report *r);

#endif
