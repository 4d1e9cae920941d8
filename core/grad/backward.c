/* backward and grad: where a walk over the tape begins, and what becomes of the gradients it leaves. Nothing
 * is committed before everything has succeeded. The graph is only read: it lives as long as tensors refer to
 * it, so a second backward works, and several threads may walk one graph. */
#include "core/grad/walk.h"
#include "core/expr.h"
#include <string.h>

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
  bool fits = g->type.rank == y->type.rank && g->type.device == y->type.device;
  for (int i = 0; fits && i < y->type.rank; i++)
    fits = g->type.dims[i] == y->type.dims[i] || !kn_dim_known(g->type.dims[i]) ||
           !kn_dim_known(y->type.dims[i]);
  return fits ? KN_OK : kn_fail(ctx, KN_SHAPE, "backward: a gradient %s was given for a tensor %s", b, a);
}

static kn_status seed(kn_walk *w, const kn_grad *link, kn_tensor *y, kn_tensor *g) {
  if (g) return kn_walk_add(w, link, kn_tensor_retain(g));
  kn_attrs_value one = {.value = 1};
  KN_TRY(kn_apply(w->ctx, KN_OP_full_like, &one, &y, 1, &g));
  return kn_walk_add(w, link, g);
}

static kn_status hold_end(kn_walk *w, kn_tensor *t, int i) {
  KN_TRY(kn_tape_freshen(w->ctx, t));
  if (t->grad) atomic_fetch_add_explicit(&t->grad->refs, 1, memory_order_relaxed);
  w->ends[i] = t->grad;
  return KN_OK;
}

static kn_status hold_ends(kn_walk *w, kn_tensor *const *ys, int ny, kn_tensor *const *xs, int nx) {
  size_t n = (size_t)ny + (size_t)nx;
  w->ends = kn_calloc(w->ctx->heap, n, sizeof *w->ends);
  if (!w->ends) return kn_fail_nomem(w->ctx, n * sizeof *w->ends);
  w->ny = ny;
  w->nx = nx;
  for (int i = 0; i < nx; i++) KN_TRY(hold_end(w, xs[i], ny + i));
  for (int i = 0; i < ny; i++) KN_TRY(hold_end(w, ys[i], i));
  return KN_OK;
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

/* From ys down. xs NULL: every leaf is a target. Leaves the gradients in w->places. Once hooks run, ys and xs
 * may be gone. */
static kn_status walk_back(kn_walk *w, kn_tensor *const *ys, int ny, kn_tensor *const *gs,
                           kn_tensor *const *xs, int nx) {
  size_t at;
  KN_TRY(hold_ends(w, ys, ny, xs, nx));
  for (int i = 0; i < ny; i++) {
    KN_TRY(check_seed(w->ctx, ys[i], gs ? gs[i] : NULL));
    KN_TRY(kn_walk_find(w, w->ends[i], &at));
  }
  KN_TRY(kn_walk_discover(w));
  KN_TRY(kn_walk_sort(w));
  for (int i = 0; i < nx; i++) {
    kn_place *p = kn_walk_known(w, w->ends[ny + i]);
    if (p) p->target = true;
  }
  for (size_t i = 0; !xs && i < w->n; i++)
    w->places[i].target = w->places[i].leaf && w->places[i].leaf->requires_grad;
  kn_walk_mark(w);
  for (int i = 0; i < ny; i++) KN_TRY(seed(w, w->ends[i], ys[i], gs ? gs[i] : NULL));
  for (size_t i = 0; i < w->n; i++) {
    kn_place *p = &w->places[w->order[i]];
    if (p->node)
      KN_TRY(kn_walk_pass(w, p));
    else if (p->leaf->hooks && p->target)
      KN_TRY(kn_walk_hooks(w, p->leaf->hooks, 0, &p->few[0]));
  }
  return KN_OK;
}

/* Where the gradient for input i is; NULL: the input does not take part. */
static kn_tensor **sum_of_input(kn_walk *w, int i) {
  const kn_grad *link = w->ends[w->ny + i];
  kn_place *p = kn_walk_known(w, link);
  return p ? &kn_walk_sums(p)[p->node ? link->output : 0] : NULL;
}

/* ---- backward ---- */

/* What will take a gradient: all are computed, then all are put in place. */
typedef struct deposit {
  kn_grad *link; /* one reference */
  kn_tensor *sum;
} deposit;

typedef struct deposits {
  deposit *list;
  size_t n, room;
} deposits;

static void deposits_free(kn_walk *w, deposits *d) {
  for (size_t i = 0; i < d->n; i++) {
    kn_tensor_release(d->list[i].sum);
    kn_link_release(d->list[i].link);
  }
  kn_free(w->ctx->heap, d->list, d->room * sizeof *d->list);
}

/* Adds what link will hold: *slot, or that and what it has. `take`: nobody else will ask the walk for it, so
 * it need not be copied. */
static kn_status plan_deposit(kn_walk *w, deposits *d, kn_grad *link, kn_tensor **slot, bool take) {
  if (atomic_load(&link->owners) == 0) return KN_OK; /* the tensor is gone */
  for (size_t i = 0; i < d->n; i++)
    if (d->list[i].link == link) return KN_OK;
  if (d->n == d->room) {
    size_t room = d->room ? 2 * d->room : 16;
    deposit *list = kn_realloc(w->ctx->heap, d->list, d->room * sizeof *list, room * sizeof *list);
    if (!list) return kn_fail_nomem(w->ctx, room * sizeof *list);
    d->list = list;
    d->room = room;
  }
  kn_tensor *sum = NULL;
  if (link->sum) {
    KN_TRY(kn_apply(w->ctx, KN_OP_add, NULL, (kn_tensor *[]){link->sum, *slot}, 2, &sum));
  } else {
    sum = take ? *slot : kn_tensor_retain(*slot);
    if (take) *slot = NULL;
    kn_status st = make_own(w->ctx, &sum);
    if (st != KN_OK) {
      kn_tensor_release(sum);
      return st;
    }
  }
  atomic_fetch_add_explicit(&link->refs, 1, memory_order_relaxed);
  d->list[d->n++] = (deposit){link, sum};
  return KN_OK;
}

static kn_status plan_place(kn_walk *w, deposits *d, kn_place *p, bool leaves) {
  if (p->leaf)
    return leaves && p->few[0] && p->target ? plan_deposit(w, d, p->leaf, &p->few[0], true) : KN_OK;
  for (int k = 0; k < p->node->outs && p->node->extra; k++) {
    kn_grad *keeper = p->node->extra->keeper[k];
    if (keeper && kn_walk_sums(p)[k]) KN_TRY(plan_deposit(w, d, keeper, &kn_walk_sums(p)[k], false));
  }
  return KN_OK;
}

static kn_status plan_all(kn_walk *w, deposits *d, bool leaves) {
  for (size_t i = 0; i < w->n; i++) KN_TRY(plan_place(w, d, &w->places[i], leaves));
  for (int i = 0; i < w->nx; i++) {
    kn_tensor **slot = sum_of_input(w, i);
    if (slot && *slot) KN_TRY(plan_deposit(w, d, w->ends[w->ny + i], slot, false));
  }
  return KN_OK;
}

static void commit(deposits *d) {
  for (size_t i = 0; i < d->n; i++) {
    kn_tensor *old = d->list[i].link->sum;
    d->list[i].link->sum = d->list[i].sum;
    d->list[i].sum = old;
  }
}

static kn_status run_after(kn_walk *w, deposits *d) {
  for (size_t i = 0; i < d->n; i++) {
    kn_grad *link = d->list[i].link;
    for (kn_hook *h = link->hooks; h; h = h->next) {
      if (!h->fn || !h->after || atomic_load(&link->owners) == 0) continue;
      kn_tensor *unused = NULL;
      atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
      kn_status st = h->fn(w->ctx, h->ud, h->after, &unused);
      kn_tensor_release(unused);
      kn_hook_release(h);
      KN_TRY(st);
    }
  }
  return KN_OK;
}

kn_status kn_backward_into(kn_context *ctx, kn_tensor *const *ys, int ny, kn_tensor *const *gs,
                           kn_tensor *const *xs, int nx, bool create_graph) {
  kn_walk w = {.ctx = ctx, .create_graph = create_graph};
  deposits d = {NULL, 0, 0};
  bool grad_mode = ctx->grad_enabled;
  for (int i = 0; i < nx; i++)
    if (!kn_requires_grad(xs[i]))
      return kn_fail(ctx, KN_STATE, "backward: input %d does not require grad", i + 1);
  ctx->grad_enabled = create_graph;
  ctx->walks++;
  kn_status st = walk_back(&w, ys, ny, gs, xs, nx);
  if (st == KN_OK) st = plan_all(&w, &d, !xs);
  if (st == KN_OK) {
    commit(&d);
    st = run_after(&w, &d);
  }
  ctx->grad_enabled = grad_mode;
  ctx->walks--;
  kn_walk_free(&w);
  deposits_free(&w, &d);
  return st;
}

kn_status kn_backward(kn_context *ctx, kn_tensor *y, kn_tensor *g, bool create_graph) {
  return kn_backward_into(ctx, &y, 1, &g, NULL, 0, create_graph);
}

/* ---- gradients of some with respect to others ---- */

static kn_status collect(kn_walk *w, kn_tensor **out) {
  int nx = w->nx;
  for (int i = 0; i < nx; i++) {
    kn_tensor **slot = sum_of_input(w, i);
    out[i] = slot && *slot ? kn_tensor_retain(*slot) : NULL;
  }
  kn_walk_free(w); /* which may leave out[] as the only owner */
  *w = (kn_walk){.ctx = w->ctx};
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
  kn_walk w = {.ctx = ctx, .create_graph = create_graph};
  bool grad_mode = ctx->grad_enabled;
  ctx->grad_enabled = create_graph;
  ctx->walks++;
  kn_status st = walk_back(&w, ys, ny, gs, xs, nx);
  if (st == KN_OK) st = collect(&w, found);
  ctx->grad_enabled = grad_mode;
  ctx->walks--;
  kn_walk_free(&w);
  for (int i = 0; i < nx; i++) {
    if (st == KN_OK)
      out[i] = found[i];
    else
      kn_tensor_release(found[i]);
  }
  kn_free(ctx->heap, found, (size_t)nx * sizeof(kn_tensor *));
  return st;
}
