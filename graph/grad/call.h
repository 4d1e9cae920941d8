/* Calls of a graph that the tape remembers: forward runs at once, backward when gradients come. No Lua here.
 */
#ifndef KN_GRAD_CALL_H
#define KN_GRAD_CALL_H
#include "graph/exec.h"
#include "graph/grad/split.h"

/* A graph made differentiable with respect to some inputs and slots; memory: as kn_gradient_request. Counted:
 * what is on the tape keeps it.
 */
typedef struct kn_taped kn_taped;
kn_status kn_taped_new(kn_context *ctx, kn_graph *g, const bool *wants, size_t memory,
                       const kn_target *const *targets, int ntargets, kn_taped **out);
void kn_taped_set_poll(kn_taped *t, kn_poll_fn fn,
                       void *ud); /* as kn_session_set_poll, for all its runs, which watch over no launch */
kn_taped *kn_taped_retain(kn_taped *t);
void kn_taped_release(kn_taped *t); /* NULL is fine */
/* Whether it is for these, as kn_grad_split has them. */
bool kn_taped_is_for(const kn_taped *t, const bool *wants);
/* Of forward: its first slots are those of the graph. Where slots are set and state is found, as if the graph
 * ran in it. */
kn_session *kn_taped_session(kn_taped *t);
/* As kn_session_run of the graph; results that depend on the inputs and slots wanted get a history. On
 * failure the sentence is in ctx. */
kn_status kn_taped_run(kn_context *ctx, kn_taped *t, const kn_rvalue *in, uint32_t nin, kn_rvalue *out,
                       uint32_t nout);

#endif
