/* A call of a graph as one node on the tape; see call.h. */
#include "graph/grad/call.h"
#include "core/grad/tape.h"
#include <stdio.h>
#include <string.h>

struct kn_taped {
  atomic_int refs;
  kn_heap *heap;
  kn_context *ctx; /* borrowed: outlives it */
  kn_graph *graph;
  kn_grad_pair pair;
  kn_session *forward, *backward;
  bool *wants;
  uint32_t nwants, nslots;
  size_t memory;
  const kn_target *const *targets; /* borrowed: outlive it */
  int ntargets;
  kn_poll_fn poll; /* of its sessions */
  void *poll_ud;
  const char *once; /* what the graph does besides, so that it cannot be computed again; NULL: nothing */
  kn_graph *joint;  /* for gradients of gradients, made when they are asked for … */
  kn_taped *twice;  /* … and for each set of what requires grad then, by `next` */
  kn_taped *next;
  void *room;   /* of a call, when none is under way; NULL */
  char *broken; /* why it has no gradient; told when one is asked for */
};

/* What a call works in: one block, which is kept for the next one. */
typedef struct call_room {
  kn_rvalue *all; /* forward's results */
  kn_tensor **xs, **ys;
  bool *keep;
} call_room;

static size_t room_bytes(const kn_taped *t) {
  size_t results = t->pair.forward->body->nyields + 1u, ny = t->pair.ny;
  return results * sizeof(kn_rvalue) + (t->nwants + ny) * sizeof(kn_tensor *) + t->nwants + 2 * ny;
}

static call_room room_at(const kn_taped *t, void *at) {
  call_room c = {.all = memset(at, 0, room_bytes(t))};
  c.xs = (kn_tensor **)(void *)(c.all + t->pair.forward->body->nyields + 1);
  c.ys = c.xs + t->nwants;
  c.keep = (bool *)(void *)(c.ys + t->pair.ny);
  return c;
}

/* ---- life ---- */

kn_taped *kn_taped_retain(kn_taped *t) {
  atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}

void kn_taped_release(kn_taped *t) {
  if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
  kn_heap *heap = t->heap;
  for (kn_taped *x = t->twice, *next; x; x = next) {
    next = x->next;
    kn_taped_release(x);
  }
  kn_graph_release(t->joint);
  kn_session_free(t->forward);
  kn_session_free(t->backward);
  if (t->room) kn_free(heap, t->room, room_bytes(t));
  if (t->pair.heap) kn_grad_pair_free(&t->pair);
  kn_graph_release(t->graph);
  kn_free(heap, t->wants, t->nwants + 1u);
  kn_free(heap, t->broken, KN_ERROR_SIZE);
  kn_free(heap, t, sizeof *t);
  kn_heap_release(heap);
}

/* No gradient can be derived: forward is the graph itself, and all its floating results end at the node. */
static kn_status without_gradient(kn_context *ctx, kn_taped *t, kn_graph *g) {
  kn_grad_pair *p = &t->pair;
  if (!(t->broken = kn_alloc(ctx->heap, KN_ERROR_SIZE))) return kn_fail_nomem(ctx, KN_ERROR_SIZE);
  memcpy(t->broken, ctx->error, KN_ERROR_SIZE);
  *p = (kn_grad_pair){.heap = ctx->heap, .results = g->body->nyields};
  p->ys = kn_calloc(ctx->heap, p->results + 1u, sizeof *p->ys);
  if (!p->ys) return kn_fail_nomem(ctx, p->results);
  p->forward = kn_graph_retain(g);
  for (uint32_t i = 0; i < p->results; i++) {
    const kn_value *y = g->body->yields[i];
    if (y->def && y->type.kind == KN_V_TENSOR && kn_dtype_is_float((kn_dtype)y->type.tensor.dtype))
      p->ys[p->ny++] = i;
  }
  for (uint32_t i = 0; i < t->nwants; i++) p->nx += t->wants[i];
  return KN_OK;
}

static bool stores(const kn_region *r, const kn_slot *s) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_store_state && n->slot == s) return true;
    for (int k = 0; k < n->nregions; k++)
      if (stores(n->regions[k], s)) return true;
  }
  return false;
}

/* A gradient for what the graph itself overwrites: eager would find it changed. */
static kn_status check_wants(kn_context *ctx, const kn_graph *g, const bool *wants) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (wants[g->body->nparams + i] && g->slots[i]->kind == KN_SLOT_STATE && stores(g->body, g->slots[i]))
      return kn_fail(ctx, KN_STATE,
                     "the graph overwrites '%s', which requires grad, so its results have no gradient",
                     g->slots[i]->name);
  return KN_OK;
}

kn_status kn_taped_new(kn_context *ctx, kn_graph *g, const bool *wants, size_t memory,
                       const kn_target *const *targets, int ntargets, kn_taped **out) {
  kn_taped *t = kn_calloc(ctx->heap, 1, sizeof *t);
  if (!t) return kn_fail_nomem(ctx, sizeof *t);
  atomic_init(&t->refs, 1);
  t->heap = kn_heap_retain(ctx->heap);
  t->ctx = ctx;
  t->graph = kn_graph_retain(g);
  t->memory = memory, t->targets = targets, t->ntargets = ntargets;
  t->once = kn_grad_effects(g);
  t->nslots = g->nslots;
  t->nwants = g->body->nparams + g->nslots;
  kn_status st = (t->wants = kn_calloc(ctx->heap, t->nwants + 1u, 1)) ? KN_OK : kn_fail_nomem(ctx, t->nwants);
  if (st == KN_OK) memcpy(t->wants, wants, t->nwants);
  if (st == KN_OK) st = check_wants(ctx, g, wants);
  if (st == KN_OK) st = kn_grad_split(ctx, g, wants, memory, &t->pair);
  if (st != KN_OK && st != KN_NOMEM && t->wants) st = without_gradient(ctx, t, g);
  if (st == KN_OK) st = kn_session_new(ctx, t->pair.forward, targets, ntargets, &t->forward);
  if (st == KN_OK && !t->broken) st = kn_session_new(ctx, t->pair.backward, targets, ntargets, &t->backward);
  if (st != KN_OK) {
    kn_taped_release(t);
    return st;
  }
  kn_session_context(t->forward)->reclaims = true;
  if (t->backward) kn_session_context(t->backward)->reclaims = true;
  *out = t;
  return KN_OK;
}

void kn_taped_set_poll(kn_taped *t, kn_poll_fn fn, void *ud) {
  t->poll = fn, t->poll_ud = ud;
  kn_session_set_poll(t->forward, fn, ud);
  kn_session_set_watch(t->forward, false);
  if (!t->backward) return;
  kn_session_set_poll(t->backward, fn, ud);
  kn_session_set_watch(t->backward, false);
}

bool kn_taped_is_for(const kn_taped *t, const bool *wants) { return !memcmp(t->wants, wants, t->nwants); }
kn_session *kn_taped_session(kn_taped *t) { return t->forward; }

/* ---- what a call keeps for its gradient ---- */

typedef struct kept {
  kn_rvalue v;
  uint32_t version;
} kept;

typedef struct held { /* the node's; one block */
  kn_taped *t;
  uint32_t n, nall;
  kept *all; /* inputs, then slots, to compute it all again */
  kn_random random;
  uint32_t *of_y; /* by result of the graph that may get a gradient: 1 + which of the node's it is; 0: this
                     call did not define it */
  kept saved[];   /* in the order of backward's inputs */
} held;

static size_t held_bytes(const kn_grad_pair *p) {
  return sizeof(held) + p->nsaved * sizeof(kept) + p->ny * sizeof(uint32_t);
}

static void release_held(void *ud) {
  held *h = ud;
  kn_heap *heap = kn_heap_retain(h->t->heap);
  for (uint32_t i = 0; i < h->n; i++) {
    kn_tensor_release(h->saved[i].v.tensor);
    if (!h->saved[i].v.tensor) kn_list_release(h->saved[i].v.list);
  }
  for (uint32_t i = 0; i < h->nall; i++) kn_tensor_release(h->all[i].v.tensor);
  kn_free(heap, h->all, (h->t->nwants + 1u) * sizeof *h->all);
  kn_taped *t = h->t;
  kn_free(heap, h, held_bytes(&t->pair));
  kn_taped_release(t);
  kn_heap_release(heap);
}

/* What the call began with, slots as they are: the graph does not change them. */
static kn_status hold_all(kn_context *ctx, held *h, const kn_rvalue *in) {
  kn_taped *t = h->t;
  uint32_t inputs = t->nwants - t->nslots;
  if (t->once) return KN_OK;
  if (!(h->all = kn_calloc(ctx->heap, t->nwants + 1u, sizeof *h->all)))
    return kn_fail_nomem(ctx, t->nwants * sizeof *h->all);
  for (; h->nall < t->nwants; h->nall++) {
    kn_rvalue v = {0};
    kn_tensor *alias = NULL;
    bool slot = h->nall >= inputs;
    if (!slot)
      v = in[h->nall];
    else if (kn_session_get_slot(t->forward, h->nall - inputs, &v) != KN_OK)
      v = (kn_rvalue){0}; /* no data */
    kn_status st = v.tensor ? kn_tensor_alias(ctx, v.tensor, &alias) : KN_OK;
    if (slot) kn_tensor_release(v.tensor);
    KN_TRY(st);
    v.tensor = alias;
    h->all[h->nall] = (kept){v, alias ? atomic_load(&alias->storage->version) : 0};
  }
  return KN_OK;
}

/* Takes what backward reads from the inputs, the slots and forward's results. */
static kn_status hold(kn_context *ctx, kn_taped *t, const kn_rvalue *in, const kn_rvalue *results,
                      const kn_random *random, held **out) {
  const kn_grad_pair *p = &t->pair;
  held *h = kn_calloc(ctx->heap, 1, held_bytes(p));
  if (!h) return kn_fail_nomem(ctx, held_bytes(p));
  h->of_y = (uint32_t *)(void *)(h->saved + p->nsaved);
  h->t = kn_taped_retain(t);
  h->random = *random;
  kn_status st = hold_all(ctx, h, in);
  for (uint32_t i = 0; st == KN_OK && i < p->nsaved; i++) {
    kn_saved_value from = p->saved[i];
    kn_rvalue v = {0};
    if (from.from == KN_SAVED_SLOT)
      st = kn_session_get_slot(t->forward, from.index, &v);
    else {
      v = from.from == KN_SAVED_INPUT ? in[from.index] : results[from.index];
      bool list = kn_is_list(p->backward->body->params[i]->type.kind);
      if (list && v.list) kn_list_retain(v.list);
      if (!list) v.list = NULL;
      if (v.tensor) kn_tensor_retain(v.tensor);
    }
    kn_tensor *alias = NULL; /* without the history, which may hold this very node */
    if (st == KN_OK && v.tensor) st = kn_tensor_alias(ctx, v.tensor, &alias);
    kn_tensor_release(v.tensor);
    v.tensor = alias;
    if (st != KN_OK) break;
    h->saved[h->n++] = (kept){v, v.tensor ? atomic_load(&v.tensor->storage->version) : 0};
  }
  if (st != KN_OK) {
    release_held(h);
    return st;
  }
  *out = h;
  return KN_OK;
}

/* ---- backward ---- */

static kn_status fail_in(kn_context *ctx, kn_session *s, kn_status st) {
  kn_context *run = kn_session_context(s);
  bool placed = run->error_placed;
  kn_fail(ctx, st, "%s", kn_error(run));
  ctx->error_placed = placed;
  return st;
}

/* ---- backward that has a gradient itself: the graph and its gradient as one graph, called like any ---- */

static kn_status taped_twice(kn_context *ctx, kn_taped *t, const bool *wants, kn_taped **out) {
  for (kn_taped *x = t->twice; x; x = x->next)
    if (kn_taped_is_for(x, wants)) return *out = x, KN_OK;
  if (!t->joint) KN_TRY(kn_grad_joint(ctx, t->graph, t->wants, t->memory, &t->joint));
  KN_TRY(kn_taped_new(ctx, t->joint, wants, t->memory, t->targets, t->ntargets, out));
  kn_taped_set_poll(*out, t->poll, t->poll_ud);
  (*out)->next = t->twice;
  t->twice = *out;
  return KN_OK;
}

/* What the call began with, wanted tensors with their histories. in, slots: owned, of nwants. */
static kn_status begin_again(kn_context *ctx, held *h, const kn_custom_call *call, kn_rvalue *now) {
  kn_taped *t = h->t;
  for (uint32_t i = 0, x = 0; i < t->nwants; i++) {
    const kept *k = &h->all[i];
    now[i] = k->v;
    if (!k->v.tensor) continue;
    now[i].tensor = NULL;
    if (atomic_load(&k->v.tensor->storage->version) != k->version)
      return kn_tape_fail_changed(ctx, k->v.tensor, "input", (int)i + 1);
    KN_TRY(kn_tensor_alias(ctx, k->v.tensor, &now[i].tensor));
    if (t->wants[i]) KN_TRY(kn_tape_join(ctx, now[i].tensor, call->in[x++]));
  }
  return KN_OK;
}

static kn_status run_joint(kn_context *ctx, held *h, kn_taped *twice, kn_rvalue *in, const kn_rvalue *now,
                           kn_tensor **gin) {
  kn_taped *t = h->t;
  kn_session *s = kn_taped_session(twice);
  uint32_t inputs = t->nwants - t->nslots, nin = inputs + t->pair.ny;
  kn_random random = h->random;
  kn_status st = KN_OK;
  for (uint32_t i = 0; i < t->nslots && st == KN_OK; i++) {
    bool tensor = t->graph->slots[i]->type.kind == KN_V_TENSOR;
    if (!tensor || now[inputs + i].tensor) st = kn_session_set_slot(s, i, &now[inputs + i]);
    if (st != KN_OK) kn_fail(ctx, st, "%s", kn_error(kn_session_context(s)));
  }
  kn_rvalue *out = kn_calloc(ctx->heap, t->pair.nx + 1u, sizeof *out);
  if (!out) return kn_fail_nomem(ctx, t->pair.nx * sizeof *out);
  kn_session_use_random(s, &random);
  kn_session_context(s)->threads = ctx->threads;
  if (st == KN_OK) st = kn_taped_run(ctx, twice, in, nin, out, t->pair.nx);
  kn_session_use_random(s, NULL);
  for (uint32_t i = 0; st == KN_OK && i < t->pair.nx; i++) gin[i] = out[i].tensor;
  kn_free(ctx->heap, out, (t->pair.nx + 1u) * sizeof *out);
  return st;
}

static kn_status run_twice(kn_context *ctx, held *h, const kn_custom_call *call) {
  kn_taped *t = h->t, *twice = NULL;
  uint32_t inputs = t->nwants - t->nslots, ny = t->pair.ny, all = t->nwants + ny + 1u;
  if (t->once)
    return kn_fail(
        ctx, KN_UNSUPPORTED,
        "gradients of gradients (create_graph) compute a captured graph again, and graph %s %s; call "
        "the function it was made of",
        t->graph->name, t->once);
  kn_rvalue *now = kn_calloc(ctx->heap, 2u * all, sizeof *now), *in = now + all;
  bool *wants = kn_calloc(ctx->heap, all, 1);
  kn_status st = now && wants ? begin_again(ctx, h, call, now) : kn_fail_nomem(ctx, 2u * all * sizeof *now);
  for (uint32_t i = 0; i < inputs && st == KN_OK; i++) in[i] = now[i];
  if (st == KN_OK) {
    memcpy(wants, t->wants, inputs);
    memcpy(wants + inputs + ny, t->wants + inputs, t->nslots);
  }
  for (uint32_t i = 0; i < ny && st == KN_OK; i++) {
    kn_tensor *g = h->of_y[i] ? call->gout[h->of_y[i] - 1] : NULL;
    in[inputs + i].tensor = g;
    wants[inputs + i] = g && kn_requires_grad(g);
  }
  if (st == KN_OK) st = taped_twice(ctx, t, wants, &twice);
  if (st == KN_OK) st = run_joint(ctx, h, twice, in, now, call->gin);
  for (uint32_t i = 0; now && i < t->nwants; i++) kn_tensor_release(now[i].tensor);
  kn_free(ctx->heap, now, 2u * all * sizeof *now);
  kn_free(ctx->heap, wants, all);
  return st;
}

static kn_status run_backward(kn_context *ctx, void *ud, const kn_custom_call *call) {
  held *h = ud;
  kn_taped *t = h->t;
  const kn_grad_pair *p = &t->pair;
  if (t->broken) return kn_fail(ctx, KN_UNSUPPORTED, "%s", t->broken);
  if (ctx->grad_enabled) return run_twice(ctx, h, call);
  uint32_t n = p->nsaved + p->ny;
  size_t bytes = (n + p->nx + 1u) * sizeof(kn_rvalue);
  kn_rvalue *in = kn_calloc(ctx->heap, n + p->nx + 1u, sizeof *in), *out = in + n;
  if (!in) return kn_fail_nomem(ctx, bytes);
  kn_status st = KN_OK;
  for (uint32_t i = 0; st == KN_OK && i < p->nsaved; i++) {
    in[i] = h->saved[i].v;
    if (in[i].tensor && atomic_load(&in[i].tensor->storage->version) != h->saved[i].version)
      st = kn_tape_fail_changed(ctx, in[i].tensor, "saved tensor", (int)i + 1);
  }
  for (uint32_t i = 0; i < p->ny; i++)
    if (h->of_y[i]) in[p->nsaved + i].tensor = call->gout[h->of_y[i] - 1];
  kn_session_context(t->backward)->threads = ctx->threads;
  if (st == KN_OK) {
    st = kn_session_run(t->backward, in, n, out, p->nx);
    if (st != KN_OK) fail_in(ctx, t->backward, st);
  }
  for (uint32_t i = 0; st == KN_OK && i < p->nx; i++) call->gin[i] = out[i].tensor;
  kn_free(ctx->heap, in, bytes);
  return st;
}

/* ---- forward ---- */

/* The tensors wanted, which the node's edges go to; slots' are owned. */
static kn_status gather(kn_taped *t, const kn_rvalue *in, kn_tensor **xs, uint32_t *n) {
  uint32_t inputs = t->nwants - t->nslots;
  *n = 0;
  for (uint32_t i = 0; i < t->nwants; i++) {
    if (!t->wants[i]) continue;
    kn_rvalue v = {0};
    if (i < inputs)
      v.tensor = kn_tensor_retain(in[i].tensor);
    else
      KN_TRY(kn_session_get_slot(t->forward, i - inputs, &v));
    xs[(*n)++] = v.tensor;
  }
  return KN_OK;
}

static kn_status put_on_tape(kn_context *ctx, kn_taped *t, const call_room *c, uint32_t nx,
                             const kn_rvalue *in, const kn_random *random) {
  const kn_grad_pair *p = &t->pair;
  const kn_rvalue *results = c->all;
  kn_tensor **ys = c->ys;
  held *h = NULL;
  kn_status st = hold(ctx, t, in, results, random, &h);
  uint32_t ny = 0;
  for (uint32_t i = 0; st == KN_OK && i < p->ny; i++) {
    kn_tensor *y = results[p->ys[i]].tensor;
    if (!y) continue;
    ys[ny++] = y;
    h->of_y[i] = ny;
  }
  char name[64];
  snprintf(name, sizeof name, "graph %.50s", t->graph->name);
  kn_custom f = {.name = name,
                 .in = c->xs,
                 .out = ys,
                 .n = (int)nx,
                 .outs = (int)ny,
                 .keep = c->keep,
                 .flat = c->keep + nx + p->ny,
                 .holes = true,
                 .fn = run_backward,
                 .ud = h,
                 .release = release_held};
  return st == KN_OK ? kn_tape_custom(ctx, &f) : st;
}

static kn_status run_forward(kn_context *ctx, kn_taped *t, const kn_rvalue *in, uint32_t nin,
                             kn_rvalue *all) {
  uint32_t n = t->pair.forward->body->nyields;
  kn_status st = kn_session_run(t->forward, in, nin, all, n);
  return st == KN_OK ? st : fail_in(ctx, t->forward, st);
}

kn_status kn_taped_run(kn_context *ctx, kn_taped *t, const kn_rvalue *in, uint32_t nin, kn_rvalue *out,
                       uint32_t nout) {
  uint32_t n = t->pair.forward->body->nyields, nx = 0;
  const size_t bytes = room_bytes(t);
  void *at = t->room ? t->room : kn_alloc(ctx->heap, bytes);
  if (!at) return kn_fail_nomem(ctx, bytes);
  t->room = NULL; /* a call within this one makes its own */
  call_room c = room_at(t, at);
  kn_random random = *kn_session_random(t->forward);
  kn_status st = nout == t->pair.results ? KN_OK : kn_fail(ctx, KN_INTERNAL, "graph: %u results", nout);
  if (st == KN_OK) st = gather(t, in, c.xs, &nx);
  if (st == KN_OK && (st = run_forward(ctx, t, in, nin, c.all)) == KN_OK) {
    st = put_on_tape(ctx, t, &c, nx, in, &random);
    uint32_t keep = st == KN_OK ? nout : 0;
    memcpy(out, c.all, keep * sizeof *out);
    for (uint32_t i = keep; i < n; i++) {
      kn_tensor_release(c.all[i].tensor);
      kn_list_release(c.all[i].list);
    }
  }
  for (uint32_t i = 0; i < nx; i++) kn_tensor_release(c.xs[i]);
  if (t->room)
    kn_free(ctx->heap, at, bytes);
  else
    t->room = at;
  return st;
}
