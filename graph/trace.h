/* A recorder that lets ops run and writes down what they did: trace. Tensors stay real; which graph value one
 * holds is known by its memory, so views, aliases and writes in place come out right. It knows no Lua: who
 * traces names what is met outside, and is told where data leaves the graph. */
#ifndef KN_TRACE_H
#define KN_TRACE_H
#include "graph/graph.h"

typedef struct kn_trace kn_trace;
struct kn_trace {
  kn_recorder base; /* install as ctx->recorder = &t.base */
  kn_builder *b;
  /* The slot of a tensor that the trace has not seen made. NULL on failure (b->status). */
  kn_slot *(*outside)(void *ud, kn_tensor *t);
  void (*place)(void *ud); /* sets b->where before nodes are made */
  /* An element became a number of the program: "item" and its like. Not OK ends the trace with it. */
  kn_status (*leak)(void *ud, kn_tensor *t);
  void *ud;
  bool opaque;                     /* something ran that is not recorded op by op: gradients would miss it */
  struct kn_trace_memory **memory; /* by storage: open hashing */
  uint32_t nmemory, room;
};

kn_status kn_trace_init(kn_trace *t, kn_builder *b);
void kn_trace_free(kn_trace *t);
/* An argument: the tensor is this input. Two arguments that share memory are refused. */
kn_status kn_trace_input(kn_trace *t, kn_tensor *x, kn_value *v, const char *name);
/* What the tensor holds now, its own value or a slot's. NULL on failure (b->status). */
kn_value *kn_trace_value(kn_trace *t, kn_tensor *x);
/* The tensor, which nobody has seen yet, holds this value. */
kn_status kn_trace_define(kn_trace *t, kn_tensor *x, kn_value *v);
/* The tensor as a result, `n`th of the values in `given`: never a value that stands for another tensor. */
kn_value *kn_trace_result(kn_trace *t, kn_tensor *x, kn_value *const *given, uint32_t n);
/* Slots that were written become state, stored at the end; arguments that were written are updated. */
kn_status kn_trace_stores(kn_trace *t);

#endif
