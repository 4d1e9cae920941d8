/* Graphs of the software device, conditional nodes included, with the limits that the real one has
 * (CUDA 13.0's cuda.h). Nodes run in an order that their edges alone decide: SIM_ORDER=last takes of those
 * that are ready the one made last, so that a missing edge shows. */
#define _GNU_SOURCE
#include "inside.h"
#include <stdlib.h>
#include <string.h>

static unsigned graphs;

static const char *const whats[] = {"kernel", "copy",  "set",       "library",
                                    "empty",  "child", "condition", "graph"};

API CUresult cuGraphCreate(CUgraph *out, unsigned flags) {
  CUgraph g = calloc(1, sizeof *g);
  if (!g || flags) return free(g), CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&sim_lock);
  g->last = &g->first;
  g->number = ++graphs;
  pthread_mutex_unlock(&sim_lock);
  *out = g;
  return CUDA_SUCCESS;
}

CUgraphNode sim_node(CUgraph g, sim_what what, const CUgraphNode *needs, size_t n) {
  CUgraphNode x = calloc(1, sizeof *x);
  x->what = what;
  x->graph = g;
  x->number = ++g->nodes;
  x->needs = malloc((n + 1) * sizeof *x->needs);
  x->nneeds = n;
  for (size_t i = 0; i < n; i++) {
    if (needs[i]->graph != g)
      sim_die("a node of graph g%u depends on one of g%u", g->number, needs[i]->graph->number);
    x->needs[i] = needs[i];
  }
  *g->last = x;
  g->last = &x->next;
  return x;
}

static void free_graph(CUgraph g) {
  while (g->first) {
    CUgraphNode n = g->first;
    g->first = n->next;
    for (unsigned i = 0; i < n->nbodies; i++) free_graph(n->bodies[i]);
    free(n->bodies);
    free(n->needs);
    free(n->kernel.arguments);
    free(n->work.arg);
    free(n);
  }
  while (g->conditions) {
    sim_condition *c = g->conditions;
    g->conditions = c->next;
    free(c);
  }
  free(g);
}

void sim_graph_free(CUgraph g) { free_graph(g); }

static CUresult destroy(CUgraph g) {
  if (!g || g->owner) return CUDA_ERROR_INVALID_VALUE;
  sim_drain();
  g->destroyed = true;
  if (!g->instances) free_graph(g);
  return CUDA_SUCCESS;
}
API CUresult cuGraphDestroy(CUgraph g) { return LOCKED(destroy(g)); }

/* ---- adding nodes ---- */

static CUresult add_kernel(CUgraph g, const CUgraphNode *needs, size_t n, const CUDA_KERNEL_NODE_PARAMS_v3 *p,
                           CUgraphNode *out) {
  sim_kernel k;
  if (!p->func || p->extra) return CUDA_ERROR_INVALID_VALUE;
  CUresult r = sim_kernel_make(&k, p->func, (unsigned[]){p->gridDimX, p->gridDimY, p->gridDimZ},
                               (unsigned[]){p->blockDimX, p->blockDimY, p->blockDimZ}, p->sharedMemBytes,
                               p->kernelParams);
  if (r) return r;
  *out = sim_node(g, SIM_KERNEL, needs, n);
  (*out)->kernel = k;
  if (sim_traces()) sim_trace("  node kernel %s in g%u", p->func->name, g->number);
  return CUDA_SUCCESS;
}

static CUresult add_copy(CUgraph g, const CUgraphNode *needs, size_t n, const CUDA_MEMCPY3D *p,
                         CUgraphNode *out) {
  bool from_host = p->srcMemoryType == CU_MEMORYTYPE_HOST, to_host = p->dstMemoryType == CU_MEMORYTYPE_HOST;
  if (p->Height > 1 || p->Depth > 1 || p->srcXInBytes || p->dstXInBytes || p->srcY || p->dstY)
    return CUDA_ERROR_NOT_SUPPORTED;
  const void *from = from_host ? p->srcHost : (const void *)(uintptr_t)p->srcDevice;
  void *to = to_host ? p->dstHost : (void *)(uintptr_t)p->dstDevice;
  if ((!from_host && !sim_is_device(p->srcDevice, p->WidthInBytes)) ||
      (!to_host && !sim_is_device(p->dstDevice, p->WidthInBytes)))
    return CUDA_ERROR_INVALID_VALUE;
  bool pageable = (from_host && !sim_is_pinned(from)) || (to_host && !sim_is_pinned(to));
  if (pageable && g->owner) return CUDA_ERROR_NOT_SUPPORTED;
  *out = sim_node(g, SIM_COPY, needs, n);
  (*out)->copying.to = to;
  (*out)->copying.from = from;
  (*out)->copying.bytes = p->WidthInBytes;
  if (sim_traces()) sim_trace("  node copy %zu in g%u", p->WidthInBytes, g->number);
  return CUDA_SUCCESS;
}

static CUresult add_set(CUgraph g, const CUgraphNode *needs, size_t n, const CUDA_MEMSET_NODE_PARAMS_v2 *p,
                        CUgraphNode *out) {
  if (p->height > 1 || !sim_is_device(p->dst, p->width * p->elementSize)) return CUDA_ERROR_INVALID_VALUE;
  *out = sim_node(g, SIM_SET, needs, n);
  (*out)->set.to = p->dst, (*out)->set.value = p->value, (*out)->set.width = p->elementSize,
  (*out)->set.n = p->width;
  return CUDA_SUCCESS;
}

/* A handle's graph, or the one that its bodies are in: the node must be in it. */
static CUresult add_condition(CUgraph g, const CUgraphNode *needs, size_t n, CUDA_CONDITIONAL_NODE_PARAMS *p,
                              CUgraphNode *out) {
  static const unsigned most[] = {
      [CU_GRAPH_COND_TYPE_IF] = 2, [CU_GRAPH_COND_TYPE_WHILE] = 1, [CU_GRAPH_COND_TYPE_SWITCH] = 1u << 16};
  static const char *const names[] = {[CU_GRAPH_COND_TYPE_IF] = "if",
                                      [CU_GRAPH_COND_TYPE_WHILE] = "while",
                                      [CU_GRAPH_COND_TYPE_SWITCH] = "switch"};
  sim_condition *c = (sim_condition *)(uintptr_t)p->handle;
  if (p->type > CU_GRAPH_COND_TYPE_SWITCH || !c || !p->size || p->size > most[p->type])
    return CUDA_ERROR_INVALID_VALUE;
  if (c->graph != g || c->node) return CUDA_ERROR_INVALID_VALUE; /* made for another graph, or used already */
  CUgraphNode x = sim_node(g, SIM_CONDITION, needs, n);
  x->condition = c;
  c->node = x;
  x->type = p->type;
  x->nbodies = p->size;
  x->bodies = calloc(p->size, sizeof *x->bodies);
  for (unsigned i = 0; i < p->size; i++) {
    x->bodies[i] = calloc(1, sizeof **x->bodies);
    x->bodies[i]->last = &x->bodies[i]->first;
    x->bodies[i]->number = ++graphs;
    x->bodies[i]->owner = x;
  }
  p->phGraph_out = x->bodies;
  if (sim_traces())
    sim_trace("  node %s in g%u: g%u%s", names[p->type], g->number, x->bodies[0]->number,
              p->size > 1 ? " and next" : "");
  *out = x;
  return CUDA_SUCCESS;
}

static bool has_condition(CUgraph g) {
  for (CUgraphNode n = g->first; n; n = n->next)
    if (n->what == SIM_CONDITION || (n->what == SIM_CHILD && has_condition(n->bodies[0]))) return true;
  return false;
}

static CUgraph copy_graph(CUgraph g, CUgraphNode owner);

static CUresult add_child(CUgraph g, const CUgraphNode *needs, size_t n, CUgraph child, CUgraphNode *out) {
  if (!child || has_condition(child)) return CUDA_ERROR_NOT_SUPPORTED;
  *out = sim_node(g, SIM_CHILD, needs, n);
  (*out)->nbodies = 1;
  (*out)->bodies = calloc(1, sizeof(CUgraph));
  (*out)->bodies[0] = copy_graph(child, *out);
  return CUDA_SUCCESS;
}

static CUresult add(CUgraphNode *out, CUgraph g, const CUgraphNode *needs, size_t n, CUgraphNodeParams *p) {
  if (!g || !p || p->reserved0[0] || p->reserved0[1] || p->reserved0[2] || p->reserved2)
    return CUDA_ERROR_INVALID_VALUE;
  switch (p->type) {
  case CU_GRAPH_NODE_TYPE_KERNEL: return add_kernel(g, needs, n, &p->kernel, out);
  case CU_GRAPH_NODE_TYPE_MEMCPY: return add_copy(g, needs, n, &p->memcpy.copyParams, out);
  case CU_GRAPH_NODE_TYPE_MEMSET: return add_set(g, needs, n, &p->memset, out);
  case CU_GRAPH_NODE_TYPE_GRAPH: return add_child(g, needs, n, p->graph.graph, out);
  case CU_GRAPH_NODE_TYPE_EMPTY: return *out = sim_node(g, SIM_EMPTY, needs, n), CUDA_SUCCESS;
  case CU_GRAPH_NODE_TYPE_CONDITIONAL: return add_condition(g, needs, n, &p->conditional, out);
  default: return CUDA_ERROR_NOT_SUPPORTED;
  }
}
API CUresult cuGraphAddNode(CUgraphNode *out, CUgraph g, const CUgraphNode *needs,
                            const CUgraphEdgeData *data, size_t n, CUgraphNodeParams *p) {
  (void)data;
  return LOCKED(add(out, g, needs, n, p));
}

static CUresult make_handle(CUgraphConditionalHandle *out, CUgraph g, unsigned initial, unsigned flags) {
  sim_condition *c = calloc(1, sizeof *c);
  *c = (sim_condition){
      .next = g->conditions, .graph = g, .value = initial, .initial = initial, .flags = flags};
  c->handle = (CUgraphConditionalHandle)(uintptr_t)c;
  g->conditions = c;
  *out = c->handle;
  return CUDA_SUCCESS;
}
API CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle *out, CUgraph g, CUcontext ctx,
                                            unsigned initial, unsigned flags) {
  (void)ctx;
  return LOCKED(make_handle(out, g, initial, flags));
}

API CUresult cuGraphGetNodes(CUgraph g, CUgraphNode *out, size_t *n) {
  size_t k = 0;
  for (CUgraphNode x = g->first; x; x = x->next, k++)
    if (out && k < *n) out[k] = x;
  *n = k;
  return CUDA_SUCCESS;
}
API CUresult cuGraphNodeGetType(CUgraphNode n, CUgraphNodeType *out) {
  static const CUgraphNodeType types[] = {
      [SIM_KERNEL] = CU_GRAPH_NODE_TYPE_KERNEL,        [SIM_COPY] = CU_GRAPH_NODE_TYPE_MEMCPY,
      [SIM_SET] = CU_GRAPH_NODE_TYPE_MEMSET,           [SIM_WORK] = CU_GRAPH_NODE_TYPE_KERNEL,
      [SIM_EMPTY] = CU_GRAPH_NODE_TYPE_EMPTY,          [SIM_CHILD] = CU_GRAPH_NODE_TYPE_GRAPH,
      [SIM_CONDITION] = CU_GRAPH_NODE_TYPE_CONDITIONAL};
  *out = types[n->what];
  return CUDA_SUCCESS;
}
API CUresult cuGraphKernelNodeGetParams(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS *p) {
  memset(p, 0, sizeof *p);
  p->func = n->kernel.f;
  return CUDA_SUCCESS;
}
API CUresult cuGraphKernelNodeGetAttribute(CUgraphNode n, CUkernelNodeAttrID what,
                                           CUkernelNodeAttrValue *out) {
  (void)n, (void)what;
  memset(out, 0, sizeof *out);
  return CUDA_SUCCESS;
}
API CUresult cuGraphDebugDotPrint(CUgraph g, const char *path, unsigned flags) {
  FILE *f = fopen(path, "w");
  (void)flags;
  if (!f) return CUDA_ERROR_INVALID_VALUE;
  fprintf(f, "digraph g%u {\n", g->number);
  for (CUgraphNode n = g->first; n; n = n->next) {
    fprintf(f, "  n%u [label=\"%s\"];\n", n->number,
            n->what == SIM_KERNEL ? n->kernel.f->name : whats[n->what]);
    for (size_t i = 0; i < n->nneeds; i++) fprintf(f, "  n%u -> n%u;\n", n->needs[i]->number, n->number);
  }
  fprintf(f, "}\n");
  fclose(f);
  return CUDA_SUCCESS;
}

/* ---- instances ---- */

/* Of a graph without conditional nodes. */
static CUgraph copy_graph(CUgraph g, CUgraphNode owner) {
  CUgraph c = calloc(1, sizeof *c);
  c->last = &c->first;
  c->number = ++graphs;
  c->owner = owner;
  for (CUgraphNode n = g->first; n; n = n->next) {
    CUgraphNode x = sim_node(c, n->what, NULL, 0), *needs = malloc((n->nneeds + 1) * sizeof *needs);
    size_t bytes = 0;
    for (int i = 0; n->kernel.f && n->kernel.f->bytes[i]; i++)
      bytes += (n->kernel.f->bytes[i] + 15) & ~(size_t)15;
    n->copy = x;
    for (size_t i = 0; i < n->nneeds; i++) needs[i] = n->needs[i]->copy;
    free(x->needs);
    x->needs = needs;
    x->nneeds = n->nneeds;
    x->kernel = n->kernel;
    if (n->kernel.f) x->kernel.arguments = memcpy(malloc(bytes + 1), n->kernel.arguments, bytes);
    x->copying = n->copying;
    x->set = n->set;
    x->work = n->work;
    if (n->work.arg) x->work.arg = memcpy(malloc(n->work.bytes + 1), n->work.arg, n->work.bytes);
    if (n->what == SIM_CHILD) {
      x->nbodies = 1;
      x->bodies = calloc(1, sizeof(CUgraph));
      x->bodies[0] = copy_graph(n->bodies[0], x);
    }
  }
  return c;
}

static CUresult check(CUgraph g, bool body) {
  for (sim_condition *c = g->conditions; c; c = c->next)
    if (!c->node) return CUDA_ERROR_INVALID_VALUE; /* a handle that nobody uses */
  for (CUgraphNode n = g->first; n; n = n->next)
    for (unsigned i = 0; i < n->nbodies; i++) {
      CUresult r = check(n->bodies[i], true);
      if (r) return r;
    }
  (void)body;
  return CUDA_SUCCESS;
}

/* The one with conditional nodes is run itself, and stays until its one instance is gone. */
static CUresult instantiate(CUgraphExec *out, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS *p) {
  CUresult r = g && !g->owner ? check(g, false) : CUDA_ERROR_INVALID_VALUE;
  bool conditions = !r && has_condition(g);
  if (!r && conditions && g->instances) r = CUDA_ERROR_NOT_SUPPORTED; /* one at a time */
  if (p)
    p->result_out = r ? CUDA_GRAPH_INSTANTIATE_ERROR : CUDA_GRAPH_INSTANTIATE_SUCCESS, p->hErrNode_out = NULL;
  if (r) return r;
  CUgraphExec e = calloc(1, sizeof *e);
  e->source = g;
  g->instances++;
  e->graph = conditions ? g : copy_graph(g, NULL);
  if (sim_traces()) sim_trace("instantiate g%u", g->number);
  *out = e;
  return CUDA_SUCCESS;
}
API CUresult cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS *p) {
  return LOCKED(instantiate(out, g, p));
}

static CUresult destroy_exec(CUgraphExec e) {
  sim_drain();
  if (e->graph != e->source) free_graph(e->graph);
  if (!--e->source->instances && e->source->destroyed) free_graph(e->source);
  free(e);
  return CUDA_SUCCESS;
}
API CUresult cuGraphExecDestroy(CUgraphExec e) { return LOCKED(destroy_exec(e)); }

static bool alike(CUgraph a, CUgraph b) {
  CUgraphNode x = a->first, y = b->first;
  for (; x && y; x = x->next, y = y->next) {
    if (x->what != y->what || x->nneeds != y->nneeds || x->what == SIM_CONDITION ||
        x->kernel.f != y->kernel.f)
      return false;
    if (x->what == SIM_CHILD && !alike(x->bodies[0], y->bodies[0])) return false;
  }
  return !x && !y;
}
/* Graphs of one shape, without conditional nodes. */
static CUresult update(CUgraphExec e, CUgraph g, CUgraphExecUpdateResultInfo *info) {
  bool fits = e->graph != e->source && alike(e->graph, g);
  if (info) {
    memset(info, 0, sizeof *info);
    info->result = fits ? CU_GRAPH_EXEC_UPDATE_SUCCESS : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  }
  if (!fits) return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  sim_drain();
  free_graph(e->graph);
  e->graph = copy_graph(g, NULL);
  return CUDA_SUCCESS;
}
API CUresult cuGraphExecUpdate(CUgraphExec e, CUgraph g, CUgraphExecUpdateResultInfo *info) {
  return LOCKED(update(e, g, info));
}
API CUresult cuGraphUpload(CUgraphExec e, CUstream s) {
  (void)s;
  return e ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static void start_conditions(CUgraph g) {
  for (sim_condition *c = g->conditions; c; c = c->next)
    if (c->flags & CU_GRAPH_COND_ASSIGN_DEFAULT) c->value = c->initial;
  for (CUgraphNode n = g->first; n; n = n->next)
    for (unsigned i = 0; i < n->nbodies; i++) start_conditions(n->bodies[i]);
}

static CUresult launch(CUgraphExec e, CUstream s) {
  if (!e) return CUDA_ERROR_INVALID_HANDLE;
  if (s && s->capture) return CUDA_ERROR_NOT_SUPPORTED;
  CUgraphNode n = sim_piece(s, SIM_GRAPH);
  n->graph = e->graph;
  sim_counted.graphs++;
  if (sim_traces()) sim_trace("launch graph g%u", e->source->number);
  sim_submit(s, n);
  return CUDA_SUCCESS;
}
API CUresult cuGraphLaunch(CUgraphExec e, CUstream s) { return LOCKED(launch(e, s)); }

/* ---- running ---- */

static void run_condition(CUgraphNode n) {
  sim_condition *c = n->condition;
  switch (n->type) {
  case CU_GRAPH_COND_TYPE_WHILE:
    while (c->value) sim_graph_run(n->bodies[0]);
    break;
  case CU_GRAPH_COND_TYPE_IF:
    if (c->value)
      sim_graph_run(n->bodies[0]);
    else if (n->nbodies > 1)
      sim_graph_run(n->bodies[1]);
    break;
  default:
    if (c->value < n->nbodies) sim_graph_run(n->bodies[c->value]);
  }
}

static void fill(CUdeviceptr to, unsigned value, unsigned width, size_t n) {
  for (size_t i = 0; i < n; i++) memcpy((char *)(uintptr_t)to + i * width, &value, width);
}

void sim_node_run(CUgraphNode n) {
  switch (n->what) {
  case SIM_KERNEL: sim_kernel_run(&n->kernel); break;
  case SIM_COPY: memmove(n->copying.to, n->copying.from, n->copying.bytes); break;
  case SIM_SET: fill(n->set.to, n->set.value, n->set.width, n->set.n); break;
  case SIM_WORK: n->work.run(n->work.arg); break;
  case SIM_EMPTY: break;
  case SIM_CHILD: sim_graph_run(n->bodies[0]); break;
  case SIM_CONDITION: run_condition(n); break;
  case SIM_GRAPH:
    start_conditions(n->graph);
    sim_graph_run(n->graph);
    break;
  }
}

static bool ready(const struct CUgraphNode_st *n) {
  for (size_t i = 0; i < n->nneeds; i++)
    if (!n->needs[i]->done) return false;
  return !n->done;
}

bool sim_order_is_last(void) {
  const char *order = getenv("SIM_ORDER");
  return order && !strcmp(order, "last");
}

/* In the order of their making, which no edge contradicts; or as far from it as the edges allow. */
void sim_graph_run(CUgraph g) {
  if (!sim_order_is_last()) {
    for (CUgraphNode n = g->first; n; n = n->next) sim_node_run(n);
    return;
  }
  for (CUgraphNode n = g->first; n; n = n->next) n->done = false;
  for (;;) {
    CUgraphNode next = NULL;
    for (CUgraphNode n = g->first; n; n = n->next)
      if (ready(n)) next = n;
    if (!next) return;
    sim_node_run(next);
    next->done = true;
  }
}
