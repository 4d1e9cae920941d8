/* The order of the passes: readable tables in pipeline.c. A pass works on a graph that is still being built
 * (before kn_graph_finish); after each: dump if asked (KILN_DEBUG=passes), verify in debug builds, and the
 * guilty pass is named. */
#ifndef KN_PIPELINE_H
#define KN_PIPELINE_H
#include "graph/graph.h"

typedef struct kn_pass {
  const char *name;
  kn_status (*run)(kn_builder *b, uint32_t *changes);
} kn_pass;
extern const kn_pass kn_pass_cse, kn_pass_cse_all, kn_pass_dce, kn_pass_fold, kn_pass_history, kn_pass_hoist,
    kn_pass_hoist_all, kn_pass_recompute, kn_pass_unroll, kn_pass_simplify,
    kn_pass_simplify_all; /* graph/passes/NAME.c, one each */

extern const kn_pass kn_pass_constants;
extern const kn_pass kn_pass_origins; /* for plans whose pieces run as one: not in the tables */
extern const struct kn_folding kn_folding_simplify;

/* CAPTURE: what every graph gets; results stay what they were to the bit. FREEZE: that, and what constants
 * make possible; elements of constants may be rounded as another backend would. INFERENCE: that, and what
 * changes how results are rounded. The last two only when asked for, on a copy of a graph (graph/optimize.h).
 */
typedef enum kn_pipeline {
  KN_PIPELINE_CAPTURE,
  KN_PIPELINE_FREEZE,
  KN_PIPELINE_INFERENCE,
  KN_PIPELINE_COUNT
} kn_pipeline;

/* Fails with the builder's status, which then sticks. */
kn_status kn_pipeline_run(kn_builder *b, kn_pipeline which);
/* The rows of the last level, which are made and measured one fold at a time. NULL past the last. */
const struct kn_folding *kn_pipeline_folding(uint32_t i);
/* One pass, with the dump and the check. */
kn_status kn_pass_run(kn_builder *b, const kn_pass *pass, uint32_t *changes);

#endif
