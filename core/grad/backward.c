/* The walk back over the tape: finds the nodes below the results, orders them (both without recursion), runs
 * the rules and adds up. Nothing is committed before everything has succeeded. The graph is only read: it
 * lives as long as tensors refer to it, so a second backward works, and several threads may walk one graph.
 */
#include "core/grad/node.h"
#include "core/grad/vjp.h"
#include <string.h>

/* A node, or a leaf's link, met on the walk. */
typedef struct place {
  kn_node *node;                  /* borrowed; NULL for a leaf */
  kn_grad *leaf;                  /* borrowed; NULL for a node */
  size_t pending;                 /* uses not walked over yet */
  bool target;                    /* its gradient was asked for */
  bool useful;                    /* a target is below it */
  kn_tensor *sum[KN_MAX_OUTPUTS]; /* gradients so far, owned */
} place;

typedef struct walk {
  kn_context *ctx;
  bool create_graph;
  place *places;
  size_t n, room;
  size_t *slots; /* hash table of place numbers + 1, by address; its size is slot_room, a power of two */
  size_t slot_room;
  size_t *order;     /* places, each after all its uses */
  kn_storage *blank; /* behind tensors of which only sizes were saved */
} walk;

static size_t hash(const void *p, size_t room) {
  uint64_t h = (uint64_t)(uintptr_t)p * UINT64_C(0x9E3779B97F4A7C15);
  return (size_t)(h >> 20) & (room - 1);
}

static const void *key_of(const place *p) { return p->node ? (const void *)p->node : (const void *)p->leaf; }

static size_t *slot_of(walk *w, const void *key) {
  size_t i = hash(key, w->slot_room);
  while (w->slots[i] && key_of(&w->places[w->slots[i] - 1]) != key) i = (i + 1) & (w->slot_room - 1);
  return &w->slots[i];
}

/* Room for one more place; the table stays at most half full. */
static kn_status grow(walk *w) {
  if (w->n < w->room) return KN_OK;
  size_t room = w->room ? 2 * w->room : 32;
  place *places = kn_realloc(w->ctx->heap, w->places, w->room * sizeof *places, room * sizeof *places);
  if (!places) return kn_fail_nomem(w->ctx, room * sizeof *places);
  w->places = places;
  w->room = room;
  size_t *slots = kn_calloc(w->ctx->heap, 2 * room, sizeof *slots);
  if (!slots) return kn_fail_nomem(w->ctx, 2 * room * sizeof *slots);
  kn_free(w->ctx->heap, w->slots, w->slot_room * sizeof *slots);
  w->slots = slots;
  w->slot_room = 2 * room;
  for (size_t i = 0; i < w->n; i++) *slot_of(w, key_of(&w->places[i])) = i + 1;
  return KN_OK;
}

/* The place a link belongs to, made when new. */
static kn_status find(walk *w, kn_grad *g, size_t *at) {
  const void *key = g->node ? (const void *)g->node : (const void *)g;
  size_t *slot = w->slots ? slot_of(w, key) : NULL;
  if (!slot || !*slot) {
    KN_TRY(grow(w));
    slot = slot_of(w, key);
    w->places[w->n] = (place){.node = g->node, .leaf = g->node ? NULL : g};
    *slot = ++w->n;
  }
  *at = *slot - 1;
  return KN_OK;
}

static place *known(walk *w, const kn_grad *g) {
  const void *key = g->node ? (const void *)g->node : (const void *)g;
  size_t slot = w->slots ? *slot_of(w, key) : 0;
  return slot ? &w->places[slot - 1] : NULL;
}

/* ---- finding and ordering ---- */

/* Everything below the places found so far; counts uses. The places themselves are the queue. */
static kn_status discover(walk *w) {
  for (size_t i = 0; i < w->n; i++) {
    kn_node *node = w->places[i].node;
    for (int k = 0; node && k < node->n; k++) {
      size_t at;
      if (!node->edge[k]) continue;
      KN_TRY(find(w, node->edge[k], &at));
      w->places[at].pending++;
    }
  }
  return KN_OK;
}

static kn_status sort(walk *w) {
  w->order = kn_alloc(w->ctx->heap, w->n * sizeof *w->order);
  if (!w->order) return kn_fail_nomem(w->ctx, w->n * sizeof *w->order);
  size_t filled = 0;
  for (size_t i = 0; i < w->n; i++)
    if (!w->places[i].pending) w->order[filled++] = i;
  for (size_t i = 0; i < filled; i++) {
    kn_node *node = w->places[w->order[i]].node;
    for (int k = 0; node && k < node->n; k++) {
      if (!node->edge[k]) continue;
      place *p = known(w, node->edge[k]);
      if (--p->pending == 0) w->order[filled++] = (size_t)(p - w->places);
    }
  }
  return KN_OK;
}

static bool wanted(walk *w, const kn_grad *edge) {
  const place *p = edge ? known(w, edge) : NULL;
  return p && (p->target || p->useful);
}

static void mark_useful(walk *w) {
  for (size_t i = w->n; i-- > 0;) {
    place *p = &w->places[w->order[i]];
    for (int k = 0; p->node && k < p->node->n && !p->useful; k++) p->useful = wanted(w, p->node->edge[k]);
  }
}

/* ---- gradients ---- */

/* Adds g, which is taken over even on failure. */
static kn_status add_to(walk *w, const kn_grad *link, kn_tensor *g) {
  kn_tensor **sum = &known(w, link)->sum[link->node ? link->output : 0];
  if (!*sum) {
    *sum = g;
    return KN_OK;
  }
  kn_tensor *total;
  kn_status st = kn_apply(w->ctx, KN_OP_add, NULL, (kn_tensor *[]){*sum, g}, 2, &total);
  kn_tensor_release(g);
  if (st != KN_OK) return st;
  kn_tensor_release(*sum);
  *sum = total;
  return KN_OK;
}

/* Zeroed, so that a rule that reads what it should not is at least the same every time. */
static kn_status make_blank(walk *w) {
  if (w->blank) return KN_OK;
  kn_tensor *t;
  kn_type one = {.dtype = KN_F64, .device = KN_CPU};
  KN_TRY(kn_tensor_new(w->ctx, &one, &t));
  memset(t->storage->data, 0, t->storage->bytes);
  w->blank = kn_storage_retain(t->storage);
  kn_tensor_release(t);
  return KN_OK;
}

static kn_status run_rule(walk *w, kn_node *node, kn_tensor *const *gout, kn_tensor **gin) {
  kn_tensor *t[KN_MAX_INPUTS + KN_MAX_OUTPUTS];
  uint32_t version[KN_MAX_INPUTS + KN_MAX_OUTPUTS];
  bool need[KN_MAX_INPUTS];
  int all = node->n + node->outs, made = 0;
  kn_status st = make_blank(w);
  while (st == KN_OK && made < all) {
    version[made] = node->saved[made].version;
    st = kn_node_unpack(w->ctx, node, made, w->create_graph, w->blank, &t[made]);
    if (st == KN_OK) made++;
  }
  for (int i = 0; i < node->n; i++) need[i] = wanted(w, node->edge[i]);
  if (st == KN_OK) {
    kn_vjp v = {.op = node->op,
                .attrs = node->attrs,
                .n = node->n,
                .in = t,
                .out = t + node->n,
                .version = version,
                .gout = gout,
                .need = need};
    st = kn_vjp_run(w->ctx, &v, gin);
  }
  for (int i = 0; i < made; i++) kn_tensor_release(t[i]);
  return st;
}

static kn_status pass_node(walk *w, place *p) {
  kn_node *node = p->node;
  kn_tensor *gin[KN_MAX_INPUTS] = {NULL};
  bool any = false;
  for (int k = 0; k < node->outs; k++) any |= p->sum[k] != NULL;
  if (!any || !p->useful) return KN_OK;
  KN_TRY(run_rule(w, node, p->sum, gin));
  if (!p->target)
    for (int k = 0; k < node->outs; k++) {
      kn_tensor_release(p->sum[k]);
      p->sum[k] = NULL;
    }
  kn_status st = KN_OK;
  for (int i = 0; i < node->n; i++) {
    if (!gin[i]) continue;
    if (st == KN_OK)
      st = add_to(w, node->edge[i], gin[i]);
    else
      kn_tensor_release(gin[i]);
  }
  return st;
}

/* ---- what both entries share ---- */

static kn_status check_seed(kn_context *ctx, const kn_tensor *y, const kn_tensor *g) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  kn_type_text(&y->type, a, sizeof a);
  if (!kn_requires_grad(y)) return kn_fail(ctx, KN_STATE, "backward: the tensor %s does not require grad", a);
  if (!g) {
    if (kn_tensor_numel(y) == 1) return KN_OK;
    return kn_fail(ctx, KN_SHAPE,
                   "backward: a gradient must be given for a tensor %s; only one of a single element "
                   "can do without",
                   a);
  }
  kn_type_text(&g->type, b, sizeof b);
  if (g->type.dtype != y->type.dtype)
    return kn_fail(ctx, KN_DTYPE, "backward: a gradient %s was given for a tensor %s", b, a);
  bool fits = g->type.rank == y->type.rank;
  for (int i = 0; fits && i < y->type.rank; i++)
    fits = g->type.dims[i] == y->type.dims[i] || !kn_dim_known(g->type.dims[i]) ||
           !kn_dim_known(y->type.dims[i]);
  return fits ? KN_OK : kn_fail(ctx, KN_SHAPE, "backward: a gradient %s was given for a tensor %s", b, a);
}

static kn_status seed(walk *w, kn_tensor *y, kn_tensor *g) {
  if (g) return add_to(w, y->grad, kn_tensor_retain(g));
  kn_attrs_value one = {.value = 1};
  KN_TRY(kn_apply(w->ctx, KN_OP_full_like, &one, &y, 1, &g));
  return add_to(w, y->grad, g);
}

/* A tensor that shares neither handle nor elements with others, so that changing one gradient in place
 * changes no other. Takes t over and gives an owned one. Symbolic tensors cannot tell, and a clone of theirs
 * costs nothing. */
static kn_status make_own(kn_context *ctx, kn_tensor **t) {
  kn_tensor *g = *t, *copy;
  size_t bytes;
  if (ctx->grad_enabled && kn_requires_grad(g)) return KN_OK; /* not to be changed in place anyway */
  if (g->storage && !kn_requires_grad(g) && atomic_load(&g->refs) == 1 &&
      atomic_load(&g->storage->refs) == 1 && kn_tensor_contiguous(g) && kn_type_bytes(&g->type, &bytes) &&
      bytes == g->storage->bytes)
    return KN_OK;
  KN_TRY(kn_apply(ctx, KN_OP_clone, NULL, t, 1, &copy));
  kn_tensor_release(g);
  *t = copy;
  return KN_OK;
}

static void walk_free(walk *w) {
  for (size_t i = 0; i < w->n; i++)
    for (int k = 0; k < KN_MAX_OUTPUTS; k++) kn_tensor_release(w->places[i].sum[k]);
  kn_heap *heap = w->ctx->heap;
  kn_free(heap, w->order, w->n * sizeof *w->order);
  kn_free(heap, w->slots, w->slot_room * sizeof *w->slots);
  kn_free(heap, w->places, w->room * sizeof *w->places);
  kn_storage_release(w->blank);
}

/* From ys down. xs NULL: every leaf is a target. Leaves the gradients in w->places. */
static kn_status walk_back(walk *w, kn_tensor *const *ys, int ny, kn_tensor *const *gs, kn_tensor *const *xs,
                           int nx) {
  size_t at;
  for (int i = 0; i < ny; i++) {
    KN_TRY(check_seed(w->ctx, ys[i], gs ? gs[i] : NULL));
    KN_TRY(find(w, ys[i]->grad, &at));
  }
  KN_TRY(discover(w));
  KN_TRY(sort(w));
  for (int i = 0; i < nx; i++) {
    place *p = known(w, xs[i]->grad);
    if (p) p->target = true;
  }
  for (size_t i = 0; !xs && i < w->n; i++)
    w->places[i].target = w->places[i].leaf && w->places[i].leaf->requires_grad;
  mark_useful(w);
  for (int i = 0; i < ny; i++) KN_TRY(seed(w, ys[i], gs ? gs[i] : NULL));
  for (size_t i = 0; i < w->n; i++)
    if (w->places[w->order[i]].node) KN_TRY(pass_node(w, &w->places[w->order[i]]));
  return KN_OK;
}

/* ---- backward ---- */

/* Leaves' new gradients: computed for all of them, then put in place. */
static kn_status accumulate(walk *w) {
  for (size_t i = 0; i < w->n; i++) {
    place *p = &w->places[i];
    if (!p->leaf || !p->sum[0]) continue;
    kn_tensor *old = p->leaf->sum;
    if (old)
      KN_TRY(add_to(w, p->leaf, kn_tensor_retain(old)));
    else
      KN_TRY(make_own(w->ctx, &p->sum[0]));
  }
  for (size_t i = 0; i < w->n; i++) {
    place *p = &w->places[i];
    if (!p->leaf || !p->sum[0] || !p->target) continue;
    if (atomic_load(&p->leaf->owners) == 0) continue; /* the tensor is gone */
    kn_tensor *old = p->leaf->sum;
    p->leaf->sum = p->sum[0];
    p->sum[0] = old; /* released with the walk */
  }
  return KN_OK;
}

kn_status kn_backward(kn_context *ctx, kn_tensor *y, kn_tensor *g, bool create_graph) {
  walk w = {.ctx = ctx, .create_graph = create_graph};
  bool grad_mode = ctx->grad_enabled;
  ctx->grad_enabled = create_graph;
  kn_status st = walk_back(&w, &y, 1, &g, NULL, 0);
  if (st == KN_OK) st = accumulate(&w);
  ctx->grad_enabled = grad_mode;
  walk_free(&w);
  return st;
}

/* ---- gradients of some with respect to others ---- */

static kn_status collect(walk *w, kn_tensor *const *xs, int nx, kn_tensor **out) {
  for (int i = 0; i < nx; i++) {
    const place *p = known(w, xs[i]->grad);
    kn_tensor *g = p ? p->sum[xs[i]->grad->node ? xs[i]->grad->output : 0] : NULL;
    out[i] = g ? kn_tensor_retain(g) : NULL;
  }
  walk_free(w); /* which may leave out[] as the only owner */
  w->n = 0;
  for (int i = 0; i < nx; i++)
    if (out[i]) KN_TRY(make_own(w->ctx, &out[i]));
  return KN_OK;
}

kn_status kn_gradients(kn_context *ctx, kn_tensor *const *ys, int ny, kn_tensor *const *gs,
                       kn_tensor *const *xs, int nx, bool create_graph, kn_tensor **out) {
  for (int i = 0; i < nx; i++)
    if (!kn_requires_grad(xs[i]))
      return kn_fail(ctx, KN_STATE, "grad: input %d does not require grad", i + 1);
  kn_tensor **found = kn_calloc(ctx->heap, (size_t)nx, sizeof(kn_tensor *));
  if (!found) return kn_fail_nomem(ctx, (size_t)nx * sizeof(kn_tensor *));
  walk w = {.ctx = ctx, .create_graph = create_graph};
  bool grad_mode = ctx->grad_enabled;
  ctx->grad_enabled = create_graph;
  kn_status st = walk_back(&w, ys, ny, gs, xs, nx);
  if (st == KN_OK) {
    st = collect(&w, xs, nx, found);
    w = (walk){.ctx = ctx};
  }
  ctx->grad_enabled = grad_mode;
  walk_free(&w);
  for (int i = 0; i < nx; i++) {
    if (st == KN_OK)
      out[i] = found[i];
    else
      kn_tensor_release(found[i]);
  }
  kn_free(ctx->heap, found, (size_t)nx * sizeof(kn_tensor *));
  return st;
}
