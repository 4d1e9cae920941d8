/* From the program of a piece (graph/whole.h) to an instantiated graph: see launch.h. Straight stretches are
 * captured into the graph that is being made, conditional nodes are added behind them, and their bodies are
 * captured in turn. */
#include "backends/cuda/launch.h"
#include "backends/cuda/capture.h"
#include "backends/cuda/fault.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/place.h"
#include "backends/cuda/provider.h"
#include "backends/cuda/wait.h"
#include <stdio.h>
#include <string.h>

struct kn_launch {
  cu_device *d;
  uint64_t id;
  CUgraph graph;
  CUgraphExec exec;
  CUdeviceptr block; /* the cell of faults, then those of numbers */
  size_t bytes;      /* of cells */
  char *seen;        /* what was read of the block */
  uint64_t draws;    /* how far the draws move the stream, where each is made once */
  uint64_t budget;   /* of trips, as the device knows it */
  cu_room room;
  cu_held *held; /* memory that what was captured works in */
};

typedef struct capture {
  kn_context *ctx;
  cu_device *d;
  const kn_plan *plan;
  const kn_whole *w;
  kn_launch *l;
  cu_capture now;
  cu_hold hold;
  const kn_node *culprit; /* that could not be captured; NULL */
  CUgraph graph;          /* that is being made: the whole, or the body of a conditional node */
  CUgraphNode tail;       /* the last node in it; NULL: none */
  int depth;
  bool open; /* the stream captures */
} capture;

static kn_status wrong(const capture *c, CUresult r, const char *what) {
  return cu_fail(c->ctx, c->d, r, what);
}
static CUdeviceptr cells_of(const kn_launch *l) { return l->block + CU_FAULT_BYTES; }

#define TRY(call, what)                                                                                      \
  do {                                                                                                       \
    const CUresult r_ = (call);                                                                              \
    if (r_ != CUDA_SUCCESS) return wrong(c, r_, what);                                                       \
  } while (0)

/* ---- capturing ---- */

static kn_status begin(capture *c) {
  if (c->open) return KN_OK;
  TRY(c->d->api.cuStreamBeginCaptureToGraph(c->now.stream, c->graph, c->tail ? &c->tail : NULL, NULL,
                                            c->tail != NULL, CU_STREAM_CAPTURE_MODE_RELAXED),
      "capturing into a graph");
  c->open = true;
  return KN_OK;
}

/* What was captured ends in one node. */
static kn_status join(capture *c, const CUgraphNode *tails, size_t n) {
  if (n == 1) c->tail = tails[0];
  if (n < 2) return KN_OK;
  CUgraphNodeParams p = {.type = CU_GRAPH_NODE_TYPE_EMPTY};
  TRY(c->d->api.cuGraphAddNode(&c->tail, c->graph, tails, NULL, n, &p), "joining what was captured");
  return KN_OK;
}

/* Edges to what comes next may be of kinds that wait for a part of a kernel only; here all wait for the
 * whole. */
static kn_status end(capture *c) {
  enum { MOST_TAILS = 64 };
  CUgraphNode tails[MOST_TAILS];
  const CUgraphNode *now = NULL;
  const CUgraphEdgeData *edges = NULL;
  CUstreamCaptureStatus status;
  CUgraph graph;
  cuuint64_t id;
  size_t n = 0;
  if (!c->open) return KN_OK;
  CUresult r = c->d->api.cuStreamGetCaptureInfo(c->now.stream, &status, &id, &graph, &now, &edges, &n);
  const bool fits = r == CUDA_SUCCESS && n <= MOST_TAILS;
  if (fits && n) memcpy(tails, now, n * sizeof *tails);
  c->open = false;
  CUresult ended = c->d->api.cuStreamEndCapture(c->now.stream, &graph);
  TRY(r, "what was captured");
  TRY(ended, "ending a capture");
  if (!fits) return kn_fail(c->ctx, KN_UNSUPPORTED, "what was captured ends in %zu nodes", n);
  return join(c, tails, n);
}

/* ---- steps ---- */

static kn_status capture_block(capture *c, CUgraph graph, uint32_t block, const cu_condition *again);

static kn_status numbers(capture *c, uint32_t first, uint32_t n, const cu_condition *condition) {
  const uint64_t drawn = c->ctx->random.offset - c->now.random_base;
  KN_TRY(begin(c));
  const cu_cells cells = {cells_of(c->l), c->l->block, (CUdeviceptr)(uintptr_t)c->d->launches.stop, c->l->id};
  c->now.random_base += drawn;
  return cu_numbers(c->ctx, c->d, c->w, &cells, first, n, condition, drawn);
}

/* The device's stream is where the draws have left it: before what may be run another number of times. */
static kn_status settle_draws(capture *c) {
  return c->ctx->random.offset == c->now.random_base ? KN_OK : numbers(c, 0, 0, NULL);
}

static kn_status new_condition(capture *c, const kn_whole_step *s, cu_condition *out) {
  const bool loop = s->kind == KN_WHOLE_LOOP;
  /* Of a loop that is met once the first value is there from the launch on. */
  const bool assigned = loop && !c->depth;
  out->set = !loop ? CU_SET_IF : assigned ? CU_SET_NONE : CU_SET_ENTER;
  out->cell = s->cell;
  TRY(c->d->api.cuGraphConditionalHandleCreate(&out->handle, c->graph, c->d->context, assigned,
                                               assigned ? CU_GRAPH_COND_ASSIGN_DEFAULT : 0),
      "a condition");
  return KN_OK;
}

/* `set`: its condition is set already. */
static kn_status conditional(capture *c, const kn_whole_step *s, const cu_condition *condition) {
  const bool loop = s->kind == KN_WHOLE_LOOP, otherwise = !loop && c->w->blocks[s->b].n;
  CUgraphNodeParams p = {.type = CU_GRAPH_NODE_TYPE_CONDITIONAL};
  CUgraphNode node;
  KN_TRY(settle_draws(c));
  KN_TRY(end(c));
  p.conditional.handle = condition->handle;
  p.conditional.type = loop ? CU_GRAPH_COND_TYPE_WHILE : CU_GRAPH_COND_TYPE_IF;
  p.conditional.size = otherwise ? 2 : 1;
  p.conditional.ctx = c->d->context;
  TRY(c->d->api.cuGraphAddNode(&node, c->graph, c->tail ? &c->tail : NULL, NULL, c->tail != NULL, &p),
      "a conditional node");
  const CUgraph outer = c->graph;
  const CUgraph bodies[2] = {p.conditional.phGraph_out[0], otherwise ? p.conditional.phGraph_out[1] : NULL};
  const cu_condition again = {CU_SET_AGAIN, condition->handle, s->cell};
  c->depth++;
  KN_TRY(capture_block(c, bodies[0], s->a, loop ? &again : NULL));
  if (otherwise) KN_TRY(capture_block(c, bodies[1], s->b, NULL));
  c->depth--;
  c->graph = outer;
  c->tail = node;
  return KN_OK;
}

static kn_status part(capture *c, const kn_whole_step *s) {
  const kn_part_plan *p = &c->plan->parts[s->a];
  KN_TRY(begin(c));
  c->now.meets = NULL;
  kn_status st = p->target->run(p->target->self, c->ctx, p->program, c->w->vals, NULL);
  if (st != KN_OK && st != KN_LIMIT) c->culprit = c->now.meets;
  return st;
}

static kn_status zero(capture *c, const kn_tensor *t) {
  const size_t bytes = (size_t)kn_tensor_numel(t) * kn_dtype_size(kn_tensor_dtype(t));
  if (!bytes) return KN_OK;
  KN_TRY(begin(c));
  TRY(c->d->api.cuMemsetD8Async(cu_address(t), 0, bytes, c->now.stream), "cuMemsetD8Async");
  return KN_OK;
}

static kn_status place(capture *c, const kn_whole_step *s) {
  KN_TRY(begin(c));
  const CUdeviceptr at = cells_of(c->l) + s->cell * sizeof(kn_scalar) + offsetof(kn_scalar, as);
  return (s->kind == KN_WHOLE_PICK ? cu_place_pick : cu_place_put)(c->ctx, c->d, (int)s->a, at, s->from,
                                                                   s->to);
}

static bool is_conditional(const kn_whole_step *s) {
  return s->kind == KN_WHOLE_IF || s->kind == KN_WHOLE_LOOP;
}

/* Numbers set the condition of what stands behind them, or of the loop that they end. */
static kn_status capture_block(capture *c, CUgraph graph, uint32_t block, const cu_condition *again) {
  const kn_whole_block *b = &c->w->blocks[block];
  cu_condition condition = {0};
  bool ready = false, set = !again;
  c->graph = graph;
  c->tail = NULL;
  for (uint32_t i = 0; i < b->n; i++) {
    const kn_whole_step *s = &b->steps[i], *next = i + 1 < b->n ? s + 1 : NULL;
    switch (s->kind) {
    case KN_WHOLE_PART: KN_TRY(part(c, s)); break;
    case KN_WHOLE_NUMBERS:
      if ((ready = next && is_conditional(next))) KN_TRY(new_condition(c, next, &condition));
      KN_TRY(numbers(c, s->a, s->b, ready ? &condition : !next ? again : NULL));
      set |= !next;
      break;
    case KN_WHOLE_COPY:
      KN_TRY(begin(c));
      KN_TRY(kn_node_copy(c->ctx, s->from, s->to));
      break;
    case KN_WHOLE_ZERO: KN_TRY(zero(c, s->to)); break;
    case KN_WHOLE_PICK:
    case KN_WHOLE_PUT: KN_TRY(place(c, s)); break;
    case KN_WHOLE_IF:
    case KN_WHOLE_LOOP:
      if (!ready) KN_TRY(new_condition(c, s, &condition));
      if (!ready && condition.set != CU_SET_NONE) KN_TRY(numbers(c, 0, 0, &condition));
      KN_TRY(conditional(c, s, &condition));
      ready = false;
      break;
    }
  }
  if (!set) KN_TRY(numbers(c, 0, 0, again));
  if (c->w->draws) KN_TRY(settle_draws(c));
  return end(c);
}

/* ---- life ---- */

static void free_launch(void *self, kn_context *ctx, kn_launch *l) {
  const CUdeviceptr blocks[] = {l->room.at, l->block};
  cu_device *d = l->d;
  (void)self;
  (void)d->api.cuCtxSetCurrent(d->context);
  if (l->exec) (void)d->api.cuGraphExecDestroy(l->exec);
  if (l->graph) (void)d->api.cuGraphDestroy(l->graph);
  cu_pool_put_held(d->pool, l->held);
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    if (blocks[i]) cu_pool_put(d->pool, blocks[i]);
  cu_room_free_suspects(ctx->heap, &l->room);
  kn_free(ctx->heap, l->seen, CU_FAULT_BYTES + l->bytes);
  kn_free(ctx->heap, l, sizeof *l);
}

static kn_status capture_once(capture *c) {
  const kn_random before = c->ctx->random;
  CUgraph graph;
  TRY(c->d->api.cuGraphCreate(&c->l->graph, 0), "a graph");
  c->now = (cu_capture){.room = &c->l->room,
                        .hold = &c->hold,
                        .random = c->w->random ? cells_of(c->l) + c->w->random * sizeof(kn_scalar) : 0,
                        .random_base = before.offset};
  KN_TRY(cu_capture_begin(c->ctx, c->d, &c->now));
  kn_status st = capture_block(c, c->l->graph, 0, NULL);
  if (c->open) (void)c->d->api.cuStreamEndCapture(c->now.stream, &graph);
  c->open = false;
  c->l->held = cu_capture_end(c->d, &c->now);
  c->l->draws = c->ctx->random.offset - before.offset;
  c->ctx->random = before;
  return st;
}

/* Again where there was too little room for workspaces: what is wanted is known then. */
static kn_status capture_all(capture *c) {
  enum { TRIES = 8 };
  kn_launch *l = c->l;
  for (int i = 0;; i++) {
    kn_status st = capture_once(c);
    if (st != KN_LIMIT || i == TRIES || l->room.wanted <= l->room.bytes) return st;
    cu_pool_put_held(c->d->pool, l->held);
    l->held = NULL;
    (void)c->d->api.cuGraphDestroy(l->graph);
    l->graph = NULL;
    cu_free(c->d, l->room.at, l->room.bytes);
    cu_room_free_suspects(c->ctx->heap, &l->room);
    l->room = (cu_room){.bytes = l->room.wanted, .faults = l->room.faults};
    c->depth = 0;
    KN_TRY(cu_alloc(c->ctx, c->d, l->room.bytes, &l->room.at));
  }
}

static kn_status instantiate(capture *c) {
  CUDA_GRAPH_INSTANTIATE_PARAMS p = {0};
  TRY(c->d->api.cuGraphInstantiateWithParams(&c->l->exec, c->l->graph, &p), "making a graph ready");
  TRY(c->d->api.cuGraphUpload(c->l->exec, c->d->main), "sending a graph");
  return KN_OK;
}

static kn_status fill(capture *c) {
  kn_launch *l = c->l;
  const size_t bytes = CU_FAULT_BYTES + c->w->ncells * sizeof(kn_scalar);
  KN_TRY(cu_stop_open(c->ctx, c->d));
  if (!(l->seen = kn_alloc(c->ctx->heap, bytes))) return kn_fail_nomem(c->ctx, bytes);
  l->bytes = bytes - CU_FAULT_BYTES;
  KN_TRY(cu_alloc(c->ctx, c->d, bytes, &l->block));
  l->room.faults = l->block;
  KN_TRY(cu_fault_clear(c->ctx, c->d, l->block));
  KN_TRY(capture_all(c));
  return instantiate(c);
}

/* Whatever goes wrong, but for memory, the steps can still run one by one. */
static kn_status make(void *self, kn_context *ctx, const kn_plan *p, const kn_whole *w, kn_launch **out,
                      const kn_node **culprit) {
  capture c = {.ctx = ctx, .plan = p, .w = w};
  KN_TRY(cu_device_of(ctx, &c.d));
  KN_TRY(cu_capture_offered(ctx, c.d));
  c.l = kn_calloc(ctx->heap, 1, sizeof *c.l);
  if (!c.l) return kn_fail_nomem(ctx, sizeof *c.l);
  c.l->d = c.d;
  c.l->id = 1 + atomic_fetch_add(&c.d->launches.ids, 1);
  kn_status st = fill(&c);
  if (st != KN_OK) {
    free_launch(self, ctx, c.l);
    *culprit = c.culprit;
    return st == KN_NOMEM || st == KN_CANCELLED ? st : KN_UNSUPPORTED;
  }
  c.d->launches.captured++;
  *out = c.l;
  return KN_OK;
}

/* ---- running ---- */

/* Faults of parts, with the lines of their nodes. */
static kn_status check_parts(kn_context *ctx, cu_device *d, const kn_launch *l) {
  const cu_room *r = &l->room;
  const kn_node *n = NULL;
  uint64_t turn;
  kn_status st = cu_fault_say(ctx, l->seen, &turn);
  if (!turn) return KN_OK;
  for (size_t i = 0; i < r->nsuspects && r->suspects[i].turns < turn; i++) n = r->suspects[i].node;
  if (n) st = kn_node_failed(ctx, n, st);
  const kn_status cleared = cu_fault_clear(ctx, d, r->faults);
  return cleared == KN_OK ? st : cleared;
}

/* Trips that are limited are counted from 0. */
static kn_status give_budget(kn_context *ctx, cu_device *d, kn_launch *l, uint64_t budget) {
  const uint64_t words[] = {budget, 0};
  if (!budget && !l->budget) return KN_OK;
  l->budget = budget;
  return d->tensors.copy(d->tensors.self, ctx,
                         (void *)(uintptr_t)(l->block + CU_GUARD_BUDGET * sizeof *words), words, sizeof words,
                         KN_TO_DEVICE);
}

static uint64_t trips_of(const kn_launch *l) {
  uint64_t n;
  memcpy(&n, l->seen + CU_GUARD_TRIPS * sizeof n, sizeof n);
  return n;
}

static kn_status run(void *self, kn_context *ctx, kn_launch *l, kn_whole *w, bool fresh, bool wait,
                     kn_watch *watch) {
  cu_device *d;
  (void)self;
  KN_TRY(cu_device_of(ctx, &d));
  const kn_memory *m = &d->tensors;
  void *cells = (void *)(uintptr_t)cells_of(l);
  if (fresh) KN_TRY(m->copy(m->self, ctx, cells, w->cells, l->bytes, KN_TO_DEVICE));
  ctx->random.offset += l->draws;
  KN_TRY(give_budget(ctx, d, l, watch ? watch->budget : 0));
  const double before = cu_clock();
  CU_TRY(ctx, d, d->api.cuGraphLaunch(l->exec, d->main), "launching a graph");
  d->launches.nanoseconds += (uint64_t)(1e9 * (cu_clock() - before));
  d->launches.launches++;
  if (watch)
    KN_TRY(cu_wait_asking(ctx, d, l->id, watch->ask, watch->ud, &watch->said));
  else if (w->loops)
    atomic_store(&d->launches.loops, true);
  if (!wait) return KN_OK;
  d->launches.waits++;
  KN_TRY(m->copy(m->self, ctx, l->seen, (void *)(uintptr_t)l->block, CU_FAULT_BYTES + l->bytes, KN_TO_HOST));
  memcpy(w->cells, l->seen + CU_FAULT_BYTES, l->bytes);
  if (watch) watch->trips = trips_of(l);
  return check_parts(ctx, d, l);
}

/* Only what has a kernel here: the others take the host route, which no graph does. */
static bool supports(void *self, const kn_node *n, char *why, size_t size) {
  (void)self;
  if (cu_provider.kernel[n->op]) return true;
  snprintf(why, size, "the host computes it");
  return false;
}

const kn_launcher cu_launcher = {supports, make, run, free_launch};

kn_device_launches cu_launches_of(cu_device *d) {
  return (kn_device_launches){.captured = d->launches.captured,
                              .launches = d->launches.launches,
                              .waits = d->launches.waits,
                              .syncs = d->launches.syncs,
                              .seconds = 1e-9 * (double)d->launches.nanoseconds};
}
