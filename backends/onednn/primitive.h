/* A problem made runnable: the primitives, the reorders around them, and how much scratch memory they need.
 * Immutable, counted, usable from several threads at once: all that changes during a run lives in a runner,
 * one per thread at a time. Scratch memory is always the caller's, because oneDNN's own is not safe to share.
 */
#ifndef KN_ONEDNN_PRIMITIVE_H
#define KN_ONEDNN_PRIMITIVE_H
#include "backends/onednn/library.h"
#include "backends/onednn/problem.h"

typedef struct dn_primitive dn_primitive;
typedef struct dn_runner dn_runner;

/* OK; KN_DECLINED with a short reason in `why` when oneDNN has nothing better than its own reference code; or
 * a failure with the sentence in ctx. Made on ctx's heap. */
kn_status dn_primitive_new(kn_context *ctx, const dn_library *l, dnnl_engine_t engine, const dn_problem *p,
                           dn_primitive **out, char *why, size_t size);
dn_primitive *dn_primitive_retain(dn_primitive *q);
void dn_primitive_release(dn_primitive *q); /* NULL is fine */
/* oneDNN's name of the implementation: "brgconv:avx512_core". */
const char *dn_primitive_impl(const dn_primitive *q);
/* Bytes a run needs, 64-byte aligned, at the caller's choice from heap or arena. */
size_t dn_primitive_workspace(const dn_primitive *q);

/* Borrow a runner, an idle one if there is one; it keeps the primitive alive until it is given back. */
kn_status dn_runner_take(kn_context *ctx, dn_primitive *q, dn_runner **out);
void dn_runner_give(dn_runner *r); /* NULL is fine */
dn_primitive *dn_runner_primitive(const dn_runner *r);
/* data: of inputs, then at DN_OUT of the result, laid out as the problem says; those it does not read may be
 * NULL. */
kn_status dn_runner_run(kn_context *ctx, dn_runner *r, void *const data[DN_MAX_ARGS], void *workspace);

#endif
