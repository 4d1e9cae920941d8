/* Runs that compare: a graph on samples, and how far two results are apart. Nothing outside is touched: state
 * begins as the graph has it, inputs that are overwritten are copies, what is printed is dropped. */
#ifndef KN_MEASURE_H
#define KN_MEASURE_H
#include "graph/optimize.h"

/* The graph's outputs (owned) on one sample. values: a session of a graph with the same slots, whose present
 * values are used; NULL: the graph's own. any_sizes: the sample is of an attempt with other sizes than the
 * graph says. fn, ud: an observer of every node, or NULL. */
kn_status kn_measure_run(kn_context *ctx, const kn_optimize *o, kn_graph *g, kn_session *values,
                         const kn_rvalue *in, bool any_sizes, kn_observe_fn fn, void *ud, kn_rvalue *out);
void kn_measure_release(kn_rvalue *list, uint32_t n);
/* How far `got` is from `want`, as a budget counts it; infinite where they are no numbers that can be near.
 */
kn_status kn_measure_tensors(kn_context *ctx, bool ulps, kn_tensor *got, kn_tensor *want, double *error);
/* The largest of all outputs, each over what the budget allows it (so that 1 is the most); and as it is. */
kn_status kn_measure_outputs(kn_context *ctx, const kn_budget *b, const kn_rvalue *got, const kn_rvalue *want,
                             uint32_t n, double *share, double *error);
/* What the budget allows a tensor of this dtype. */
double kn_measure_limit(const kn_budget *b, kn_dtype dtype);
enum { KN_MEASURE_SMALLER = 2 }; /* attempts below have smaller sizes than the graph says */
/* Random inputs (owned) of the graph's types; attempts 0, 1 … choose sizes, and those that would be as the
 * next one is are left out. False, with why: there is no such attempt, or the types do not tell enough. */
bool kn_measure_invent(kn_context *ctx, const kn_graph *g, int *attempt, kn_rvalue *in, const char **why,
                       kn_status *st);

#endif
