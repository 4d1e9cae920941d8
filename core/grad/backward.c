/* The walk back over the tape: finds the nodes below the results, orders them (both without recursion), runs
 * the rules and adds up. Nothing is committed before everything has succeeded. The graph is only read: it
 * lives as long as tensors refer to it, so a second backward works, and several threads may walk one graph.
 */
#include "core/grad/checkpoint.h"
#include "core/grad/node.h"
#include "core/grad/vjp.h"
#include "core/expr.h"
#include <string.h>

/* A node, or a leaf's link, met on the walk. */
typedef struct place {
  kn_node *node;                  /* borrowed; NULL for a leaf */
  kn_grad *leaf;                  /* borrowed; NULL for a node */
  size_t pending;                 /* uses not walked over yet */
  bool target;                    /* its gradient was asked for */
  bool useful;                    /* a target is below it */
  kn_tensor *few[KN_MAX_OUTPUTS]; /* gradients so far, owned */
  kn_tensor **many;               /* the same for a custom function of more results */
} place;

static kn_tensor **sums(place *p) { return p->many ? p->many : p->few; }
static int results(const place *p) { return p->node ? p->node->outs : 1; }

typedef struct walk {
  kn_context *ctx;
  bool create_graph;
  place *places;
  size_t n, room;
  size_t *slots; /* hash table of place numbers + 1, by address; its size is slot_room, a power of two */
  size_t slot_room;
  size_t *order;         /* places, each after all its uses */
  kn_storage *blank;     /* behind tensors of which only sizes were saved */
  kn_checkpoint *filled; /* whose values were computed again */
  kn_grad **ends;        /* links of the results, then of the inputs: a hook may release these tensors or give
                            them another history */
  int ny, nx;
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
    place made = {.node = g->node, .leaf = g->node ? NULL : g};
    if (results(&made) > KN_MAX_OUTPUTS) {
      size_t bytes = (size_t)results(&made) * sizeof *made.many;
      if (!(made.many = kn_claim(w->ctx, bytes))) return kn_fail_nomem(w->ctx, bytes);
      memset(made.many, 0, bytes);
    }
    w->places[w->n] = made;
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
  kn_tensor **sum = &sums(known(w, link))[link->node ? link->output : 0];
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

enum { MOST_SAVED = 3 * KN_CUSTOM_MAX };

/* What the rule of a custom function reads must be what it was; kept[i] is NULL for the rest. */
static kn_status check_kept(walk *w, kn_node *node, kn_tensor *const *t, const uint32_t *version,
                            kn_tensor **kept) {
  for (int i = 0, all = node->n + node->outs + node->extras; i < all; i++) {
    const kn_saved *s = &node->saved[i];
    kept[i] = s->storage || s->lost ? t[i] : NULL;
    if (!kept[i] || atomic_load(&t[i]->storage->version) == version[i]) continue;
    bool result = i >= node->n && i < node->n + node->outs;
    kn_tape_fail_changed(w->ctx, t[i],
                         result        ? "result"
                         : i < node->n ? "input"
                                       : "saved tensor",
                         1 + (i < node->n ? i
                              : result    ? i - node->n
                                          : i - node->n - node->outs));
    return KN_STATE;
  }
  return KN_OK;
}

/* Zeros where no gradient came. */
static kn_status complete(walk *w, kn_node *node, kn_tensor *const *t, kn_tensor **sum) {
  kn_attrs_value zero = {.value = 0};
  for (int k = 0; k < node->outs; k++)
    if (!sum[k]) KN_TRY(kn_apply(w->ctx, KN_OP_full_like, &zero, &t[node->n + k], 1, &sum[k]));
  return KN_OK;
}

static kn_status run_custom(walk *w, kn_node *node, kn_tensor *const *t, const uint32_t *version,
                            kn_tensor **sum, const bool *need, kn_tensor **gin) {
  kn_tensor *kept[MOST_SAVED];
  kn_extra *e = node->extra;
  kn_status st = check_kept(w, node, t, version, kept);
  if (st == KN_OK) st = complete(w, node, t, sum);
  if (st == KN_OK) st = e->custom(w->ctx, e->ud, &(kn_custom_call){sum, kept, need, gin});
  for (int i = 0; i < node->n && st == KN_OK; i++)
    if (gin[i] && !need[i]) {
      kn_tensor_release(gin[i]);
      gin[i] = NULL;
    } else if (gin[i]) {
      st = kn_vjp_fit(w->ctx, &t[i]->type, i, &gin[i]);
    }
  if (st == KN_OK) return KN_OK;
  for (int i = 0; i < node->n; i++) {
    kn_tensor_release(gin[i]);
    gin[i] = NULL;
  }
  kn_error_prefix(w->ctx, "backward of %s", e->name);
  return st;
}

static kn_status run_row(walk *w, kn_node *node, kn_tensor *const *t, const uint32_t *version,
                         kn_tensor *const *gout, const bool *need, kn_tensor **gin) {
  kn_vjp v = {.op = node->op,
              .attrs = node->attrs,
              .n = node->n,
              .in = t,
              .out = t + node->n,
              .version = version,
              .gout = gout,
              .need = need};
  return kn_vjp_run(w->ctx, &v, gin);
}

static kn_status run_rule(walk *w, kn_node *node, kn_tensor **sum, kn_tensor **gin) {
  kn_tensor *t[MOST_SAVED];
  uint32_t version[MOST_SAVED];
  bool need[KN_MAX_INPUTS];
  int all = node->n + node->outs + node->extras, made = 0;
  kn_status st = make_blank(w);
  for (; st == KN_OK && made < all; made += st == KN_OK)
    st = kn_node_unpack(w->ctx, node, made, w->create_graph, w->blank, &w->filled, &t[made], &version[made]);
  for (int i = 0; i < node->n; i++) need[i] = wanted(w, node->edge[i]);
  if (st == KN_OK)
    st = node->op == KN_OP_COUNT ? run_custom(w, node, t, version, sum, need, gin)
                                 : run_row(w, node, t, version, sum, need, gin);
  for (int i = 0; i < made; i++) kn_tensor_release(t[i]);
  return st;
}

/* ---- hooks ---- */

static kn_status check_replacement(walk *w, const kn_tensor *g, const kn_tensor *by) {
  if (kn_type_equal(&g->type, &by->type)) return KN_OK;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  return kn_fail(w->ctx, KN_SHAPE, "a hook gave %s in place of a gradient %s",
                 kn_type_text(&by->type, a, sizeof a), kn_type_text(&g->type, b, sizeof b));
}

/* The hooks of one result (or leaf) on its complete gradient. */
static kn_status run_hooks(walk *w, kn_hook *list, int output, kn_tensor **g) {
  for (kn_hook *h = list; h && *g; h = h->next) {
    if (!h->fn || h->after || h->output != output) continue;
    kn_tensor *by = NULL;
    atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed); /* it may remove itself */
    kn_status st = h->fn(w->ctx, h->ud, *g, &by);
    if (st == KN_OK && by) st = check_replacement(w, *g, by);
    if (st == KN_OK && by) {
      kn_tensor_release(*g);
      *g = by;
    } else {
      kn_tensor_release(by);
    }
    kn_hook_release(h);
    KN_TRY(st);
  }
  return KN_OK;
}

/* ---- anomalies: nan found where it comes up, with the place that made the op ---- */

static kn_status has_nan(walk *w, kn_tensor *g, bool *found) {
  kn_scope s;
  kn_scalar yes = {.kind = KN_SCALAR_BOOL};
  bool mode = w->ctx->grad_enabled;
  if (kn_tensor_is_symbolic(g)) return KN_OK;
  w->ctx->grad_enabled = false;
  kn_scope_open(&s, w->ctx);
  kn_attrs_reduce all = {.keepdim = false};
  kn_tensor *any = kx_apply(&s, KN_OP_any, &all, (kn_tensor *[]){kx_isnan(&s, g)}, 1);
  if (any) kx_fail(&s, kn_item(w->ctx, any, &yes));
  kn_status st = kn_scope_close(&s, NULL, NULL);
  w->ctx->grad_enabled = mode;
  *found = yes.as.b;
  return st;
}

static kn_status find_nan(walk *w, const kn_node *node, kn_tensor *const *gin) {
  for (int i = 0; i < node->n; i++) {
    bool found = false;
    if (gin[i]) KN_TRY(has_nan(w, gin[i], &found));
    if (found)
      return kn_fail(w->ctx, KN_STATE, "backward of %s gave nan for input %d", kn_node_name(node), i + 1);
  }
  return KN_OK;
}

static kn_status add_place(walk *w, const kn_node *node, kn_status st) {
  const char *at = node->extra ? node->extra->place : "";
  if (st != KN_OK && *at)
    kn_error_prefix(w->ctx, "in the gradient of what was computed at %s", at);
  else if (st != KN_OK && w->ctx->anomaly)
    kn_error_prefix(w->ctx, "in the gradient of what was computed outside of detect_anomaly");
  return st;
}

static kn_status run_node(walk *w, kn_node *node, kn_tensor **sum, kn_tensor **gin) {
  kn_status st = run_rule(w, node, sum, gin);
  if (st == KN_OK && w->ctx->anomaly && (st = find_nan(w, node, gin)) != KN_OK)
    for (int i = 0; i < node->n; i++) kn_tensor_release(gin[i]);
  return add_place(w, node, st);
}

static kn_status pass_node(walk *w, place *p) {
  kn_node *node = p->node;
  kn_tensor *gin[KN_MAX_INPUTS] = {NULL}, **sum = sums(p);
  bool any = false;
  for (int k = 0; k < node->outs; k++) any |= sum[k] != NULL;
  if (!any || !(p->useful || p->target)) return KN_OK;
  for (int k = 0; k < node->outs && node->extra; k++)
    KN_TRY(add_place(w, node, run_hooks(w, node->extra->hooks, k, &sum[k])));
  if (!p->useful) return KN_OK;
  KN_TRY(run_node(w, node, sum, gin));
  for (int k = 0; k < node->outs && !p->target; k++) {
    if (node->extra && node->extra->keeper[k]) continue;
    kn_tensor_release(sum[k]);
    sum[k] = NULL;
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

static kn_status seed(walk *w, const kn_grad *link, kn_tensor *y, kn_tensor *g) {
  if (g) return add_to(w, link, kn_tensor_retain(g));
  kn_attrs_value one = {.value = 1};
  KN_TRY(kn_apply(w->ctx, KN_OP_full_like, &one, &y, 1, &g));
  return add_to(w, link, g);
}

static kn_status hold_end(walk *w, kn_tensor *t, int i) {
  KN_TRY(kn_tape_freshen(w->ctx, t));
  if (t->grad) atomic_fetch_add_explicit(&t->grad->refs, 1, memory_order_relaxed);
  w->ends[i] = t->grad;
  return KN_OK;
}

static kn_status hold_ends(walk *w, kn_tensor *const *ys, int ny, kn_tensor *const *xs, int nx) {
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

static void walk_free(walk *w) {
  kn_heap *heap = w->ctx->heap;
  for (size_t i = 0; i < w->n; i++) {
    place *p = &w->places[i];
    for (int k = 0; k < results(p); k++) kn_tensor_release(sums(p)[k]);
    kn_free(heap, p->many, (size_t)results(p) * sizeof *p->many);
  }
  kn_checkpoints_clear(w->filled);
  kn_free(heap, w->order, w->n * sizeof *w->order);
  kn_free(heap, w->slots, w->slot_room * sizeof *w->slots);
  kn_free(heap, w->places, w->room * sizeof *w->places);
  for (int i = 0; w->ends && i < w->ny + w->nx; i++)
    if (w->ends[i]) kn_link_release(w->ends[i]);
  kn_free(heap, w->ends, ((size_t)w->ny + (size_t)w->nx) * sizeof *w->ends);
  kn_storage_release(w->blank);
}

/* From ys down. xs NULL: every leaf is a target. Leaves the gradients in w->places. Once hooks run, ys and xs
 * may be gone. */
static kn_status walk_back(walk *w, kn_tensor *const *ys, int ny, kn_tensor *const *gs, kn_tensor *const *xs,
                           int nx) {
  size_t at;
  KN_TRY(hold_ends(w, ys, ny, xs, nx));
  for (int i = 0; i < ny; i++) {
    KN_TRY(check_seed(w->ctx, ys[i], gs ? gs[i] : NULL));
    KN_TRY(find(w, w->ends[i], &at));
  }
  KN_TRY(discover(w));
  KN_TRY(sort(w));
  for (int i = 0; i < nx; i++) {
    place *p = known(w, w->ends[ny + i]);
    if (p) p->target = true;
  }
  for (size_t i = 0; !xs && i < w->n; i++)
    w->places[i].target = w->places[i].leaf && w->places[i].leaf->requires_grad;
  mark_useful(w);
  for (int i = 0; i < ny; i++) KN_TRY(seed(w, w->ends[i], ys[i], gs ? gs[i] : NULL));
  for (size_t i = 0; i < w->n; i++) {
    place *p = &w->places[w->order[i]];
    if (p->node)
      KN_TRY(pass_node(w, p));
    else if (p->leaf->hooks && p->target)
      KN_TRY(run_hooks(w, p->leaf->hooks, 0, &p->few[0]));
  }
  return KN_OK;
}

/* Where the gradient for input i is; NULL: the input does not take part. */
static kn_tensor **sum_of_input(walk *w, int i) {
  const kn_grad *link = w->ends[w->ny + i];
  place *p = known(w, link);
  return p ? &sums(p)[p->node ? link->output : 0] : NULL;
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

static void deposits_free(walk *w, deposits *d) {
  for (size_t i = 0; i < d->n; i++) {
    kn_tensor_release(d->list[i].sum);
    kn_link_release(d->list[i].link);
  }
  kn_free(w->ctx->heap, d->list, d->room * sizeof *d->list);
}

/* Adds what link will hold: *slot, or that and what it has. `take`: nobody else will ask the walk for it, so
 * it need not be copied. */
static kn_status plan_deposit(walk *w, deposits *d, kn_grad *link, kn_tensor **slot, bool take) {
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

static kn_status plan_place(walk *w, deposits *d, place *p, bool leaves) {
  if (p->leaf)
    return leaves && p->few[0] && p->target ? plan_deposit(w, d, p->leaf, &p->few[0], true) : KN_OK;
  for (int k = 0; k < p->node->outs && p->node->extra; k++) {
    kn_grad *keeper = p->node->extra->keeper[k];
    if (keeper && sums(p)[k]) KN_TRY(plan_deposit(w, d, keeper, &sums(p)[k], false));
  }
  return KN_OK;
}

static kn_status plan_all(walk *w, deposits *d, bool leaves) {
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

static kn_status run_after(walk *w, deposits *d) {
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
  walk w = {.ctx = ctx, .create_graph = create_graph};
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
  walk_free(&w);
  deposits_free(&w, &d);
  return st;
}

kn_status kn_backward(kn_context *ctx, kn_tensor *y, kn_tensor *g, bool create_graph) {
  return kn_backward_into(ctx, &y, 1, &g, NULL, 0, create_graph);
}

/* ---- gradients of some with respect to others ---- */

static kn_status collect(walk *w, kn_tensor **out) {
  int nx = w->nx;
  for (int i = 0; i < nx; i++) {
    kn_tensor **slot = sum_of_input(w, i);
    out[i] = slot && *slot ? kn_tensor_retain(*slot) : NULL;
  }
  walk_free(w); /* which may leave out[] as the only owner */
  *w = (walk){.ctx = w->ctx};
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
  ctx->walks++;
  kn_status st = walk_back(&w, ys, ny, gs, xs, nx);
  if (st == KN_OK) st = collect(&w, found);
  ctx->grad_enabled = grad_mode;
  ctx->walks--;
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
