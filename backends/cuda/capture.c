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
  if (d->conditions == CU_UNTRIED) {
    CUgraph graph;
    CUresult r = d->api.cuGraphCreate(&graph, 0);
    if (r == CUDA_SUCCESS) {
      r = try_loop(d, graph);
      (void)d->api.cuGraphDestroy(graph);
    }
    d->conditions = r == CUDA_SUCCESS ? CU_OFFERED : CU_NOT_OFFERED;
  }
  if (d->conditions == CU_OFFERED) return KN_OK;
  return kn_fail(ctx, KN_UNSUPPORTED, "the driver (%d) takes no graph with conditional nodes", d->driver);
}

void cu_room_free_suspects(kn_heap *heap, cu_room *room) {
  kn_free(heap, room->suspects, room->nsuspects * sizeof *room->suspects);
  room->suspects = NULL;
  room->nsuspects = 0;
}

/* Without memory its sentence has no line. */
void cu_capture_meets(kn_context *ctx, const kn_node *n) {
  const cu_device *d = kn_backend_state(ctx, &kn_cuda_backend);
  cu_room *r = d ? d->room : NULL;
  if (!r || !kn_data_may_raise(n)) return;
  const size_t bytes = r->nsuspects * sizeof *r->suspects;
  cu_suspect *more = kn_realloc(ctx->heap, r->suspects, bytes, bytes + sizeof *more);
  if (!more) return;
  r->suspects = more;
  r->suspects[r->nsuspects++] = (cu_suspect){n, d->turns};
}

kn_status cu_capture_begin(kn_context *ctx, cu_device *d, cu_room *room) {
  if (d->capturing) return kn_fail(ctx, KN_UNSUPPORTED, "another graph is being captured");
  room->used = 0;
  cu_room_free_suspects(ctx->heap, room);
  room->live = 0;
  d->room = room;
  d->capturing = true;
  cu_pool_hold(d->pool);
  return KN_OK;
}

cu_held *cu_capture_end(cu_device *d) {
  d->room = NULL;
  d->capturing = false;
  return cu_pool_held(d->pool);
}
