/* Beginning and ending captures, and whether the driver is good for them: see capture.h. */
#include "backends/cuda/capture.h"
#include "backends/cuda/cuda.h"
#include "backends/registry.h"
#include "graph/attempt.h"

/* A loop that does nothing. */
static CUresult try_loop(const cu_device *d, CUgraph graph) {
  CUgraphConditionalHandle handle;
  CUDA_GRAPH_INSTANTIATE_PARAMS how = {0};
  CUgraphNode node;
  CUgraphExec exec;
  CUresult r =
      d->api.cuGraphConditionalHandleCreate(&handle, graph, d->context, 0, CU_GRAPH_COND_ASSIGN_DEFAULT);
  if (r != CUDA_SUCCESS) return r;
  CUgraphNodeParams p = {.type = CU_GRAPH_NODE_TYPE_CONDITIONAL};
  p.conditional.handle = handle;
  p.conditional.type = CU_GRAPH_COND_TYPE_WHILE;
  p.conditional.size = 1;
  p.conditional.ctx = d->context;
  r = d->api.cuGraphAddNode(&node, graph, NULL, NULL, 0, &p);
  if (r != CUDA_SUCCESS) return r;
  CUgraphNodeParams empty = {.type = CU_GRAPH_NODE_TYPE_EMPTY};
  r = d->api.cuGraphAddNode(&node, p.conditional.phGraph_out[0], NULL, NULL, 0, &empty);
  if (r == CUDA_SUCCESS) r = d->api.cuGraphInstantiateWithParams(&exec, graph, &how);
  return r == CUDA_SUCCESS ? d->api.cuGraphExecDestroy(exec) : r;
}

kn_status cu_capture_offered(kn_context *ctx, cu_device *d) {
  pthread_mutex_lock(&d->lock);
  if (d->conditions == CU_UNTRIED) {
    CUgraph graph;
    CUresult r = d->api.cuGraphCreate(&graph, 0);
    if (r == CUDA_SUCCESS) {
      r = try_loop(d, graph);
      (void)d->api.cuGraphDestroy(graph);
    }
    d->conditions = r == CUDA_SUCCESS ? CU_OFFERED : CU_NOT_OFFERED;
  }
  const bool offered = d->conditions == CU_OFFERED;
  pthread_mutex_unlock(&d->lock);
  if (offered) return KN_OK;
  return kn_fail(ctx, KN_UNSUPPORTED, "the driver (%d) takes no graph with conditional nodes", d->driver);
}

void cu_room_free_suspects(kn_heap *heap, cu_room *room) {
  kn_free(heap, room->suspects, room->nsuspects * sizeof *room->suspects);
  room->suspects = NULL;
  room->nsuspects = 0;
}

/* Without memory its sentence has no line. */
void cu_capture_meets(kn_context *ctx, const kn_node *n) {
  cu_device *d = kn_backend_state(ctx, &kn_cuda_backend);
  cu_capture *c = d ? cu_capture_of(ctx, d) : NULL;
  if (!c) return;
  c->meets = n;
  if (!kn_data_may_raise(n)) return;
  cu_room *r = c->room;
  const size_t bytes = r->nsuspects * sizeof *r->suspects;
  cu_suspect *more = kn_realloc(ctx->heap, r->suspects, bytes, bytes + sizeof *more);
  if (!more) return;
  r->suspects = more;
  r->suspects[r->nsuspects++] = (cu_suspect){n, r->turns};
}

/* ---- captures ---- */

cu_capture *cu_capture_of(const kn_context *ctx, cu_device *d) {
  if (!atomic_load(&d->captures.first)) return NULL;
  pthread_mutex_lock(&d->captures.lock);
  cu_capture *c = d->captures.first;
  while (c && c->ctx != ctx) c = c->next;
  pthread_mutex_unlock(&d->captures.lock);
  return c;
}

kn_status cu_capture_begin(kn_context *ctx, cu_device *d, cu_capture *c) {
  if (cu_captures(ctx, d)) return kn_fail(ctx, KN_UNSUPPORTED, "another graph is being captured");
  CU_TRY(ctx, d, d->api.cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING), "a stream to capture");
  cu_room_free_suspects(ctx->heap, c->room);
  c->room->used = 0;
  c->room->live = 0;
  c->room->turns = 0;
  c->ctx = ctx;
  pthread_mutex_lock(&d->captures.lock);
  c->next = d->captures.first;
  atomic_store(&d->captures.first, c);
  pthread_mutex_unlock(&d->captures.lock);
  return KN_OK;
}

cu_held *cu_capture_end(cu_device *d, cu_capture *c) {
  pthread_mutex_lock(&d->captures.lock);
  if (d->captures.first == c)
    atomic_store(&d->captures.first, c->next);
  else
    for (cu_capture *at = d->captures.first; at; at = at->next)
      if (at->next == c) at->next = c->next;
  pthread_mutex_unlock(&d->captures.lock);
  (void)d->api.cuStreamDestroy(c->stream);
  return cu_pool_held(d->pool, c->hold);
}
