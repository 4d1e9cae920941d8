/* Tape nodes: what they save, and how long chains of them are freed without recursion. */
#include "core/grad/node.h"
#include "core/grad/checkpoint.h"
#include <stdio.h>
#include <string.h>

kn_grad *kn_grad_new(kn_heap *heap, kn_node *node, int output) {
  kn_grad *g = kn_calloc(heap, 1, sizeof *g);
  if (!g) return NULL;
  atomic_init(&g->refs, 1);
  atomic_init(&g->owners, 1);
  g->heap = heap;
  if (node) atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
  g->node = node;
  g->output = output;
  g->requires_grad = node != NULL;
  return g;
}

kn_grad *kn_grad_share(kn_grad *g) {
  atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&g->owners, 1, memory_order_relaxed);
  return g;
}

/* Nobody else can see what only one refers to, so its count is taken down without a locked instruction. */
static bool last(atomic_int *count) {
  if (atomic_load_explicit(count, memory_order_acquire) != 1)
    return atomic_fetch_sub_explicit(count, 1, memory_order_acq_rel) == 1;
  atomic_store_explicit(count, 0, memory_order_relaxed);
  return true;
}

/* Puts the node before `list` if that was its last reference. */
static kn_node *drop_node(kn_node *node, kn_node *list) {
  if (!node || !last(&node->refs)) return list;
  node->next = list;
  return node;
}

static kn_node *drop_link(kn_grad *g, kn_node *list) {
  if (!g || !last(&g->refs)) return list;
  if (g->retains) g->node->extra->keeper[g->output] = NULL;
  if (g->hooks) kn_hooks_free(g->hooks);
  list = drop_node(g->node, list);
  kn_free(g->heap, g, sizeof *g);
  return list;
}

static void free_extra(kn_node *node) {
  kn_extra *e = node->extra;
  kn_hooks_free(e->hooks);
  if (e->release) e->release(e->ud);
  kn_free(node->heap, e, e->bytes);
}

static void free_nodes(kn_node *list) {
  while (list) {
    kn_node *node = list;
    list = node->next;
    for (int i = 0; i < node->n; i++) list = drop_link(node->edge[i], list);
    for (int i = 0; i < node->n + node->outs + node->extras; i++) {
      kn_storage_release(node->saved[i].storage);
      if (node->saved[i].lost) kn_checkpoint_release(node->saved[i].lost);
    }
    if (node->extra) free_extra(node);
    kn_free(node->heap, node, node->bytes);
  }
}

void kn_link_release(kn_grad *g) { free_nodes(drop_link(g, NULL)); }

void kn_node_release(kn_node *node) { free_nodes(drop_node(node, NULL)); }

void kn_grad_free(kn_grad *g) {
  if (!g) return;
  if (last(&g->owners)) {
    kn_tensor *sum = g->sum;
    g->sum = NULL;
    kn_tensor_release(sum);
  }
  free_nodes(drop_link(g, NULL));
}

/* ---- making ---- */

kn_status kn_node_extra(kn_context *ctx, kn_node *node) {
  if (node->extra) return KN_OK;
  size_t bytes = sizeof(kn_extra) + (size_t)node->outs * sizeof(kn_grad *);
  kn_extra *e = kn_claim(ctx, bytes);
  if (!e) return kn_fail_nomem(ctx, bytes);
  memset(e, 0, bytes);
  e->bytes = bytes;
  node->extra = e;
  return KN_OK;
}

const char *kn_node_name(const kn_node *node) {
  return node->op == KN_OP_COUNT ? node->extra->name : kn_op_name(node->op);
}

/* The value of t, unless it is not to be kept, or computed again when it is needed. */
static kn_status save_value(kn_context *ctx, kn_saved *s, kn_tensor *t) {
  kn_checkpoint *point = ctx->checkpoint;
  if (t->storage->inference && !ctx->inference)
    return kn_fail(ctx, KN_STATE,
                   "a tensor made in inference mode cannot be saved for backward; clone it, or make it under "
                   "no_grad");
  memcpy(s->ints + s->rank, t->strides, s->rank * sizeof *s->ints);
  s->offset = t->offset;
  if (point) {
    KN_TRY(kn_checkpoint_note(ctx, point, t, &s->version));
    if (!kn_checkpoint_collects(point)) {
      s->lost = kn_checkpoint_retain(point);
      return KN_OK;
    }
  }
  s->storage = kn_storage_retain(t->storage);
  s->version = atomic_load(&t->storage->version);
  return KN_OK;
}

/* *ints is moved on past what is used of it. */
static kn_status save(kn_context *ctx, kn_saved *s, kn_tensor *t, bool keep, int64_t **ints) {
  s->dtype = t->type.dtype;
  s->device = t->type.device;
  s->rank = t->type.rank;
  s->symbolic = kn_tensor_is_symbolic(t);
  s->value = t->value;
  s->ints = *ints;
  *ints += 2 * s->rank;
  memcpy(s->ints, t->type.dims, s->rank * sizeof **ints);
  return s->symbolic || !keep ? KN_OK : save_value(ctx, s, t);
}

typedef struct plan {
  kn_op op;
  const void *attrs;
  kn_tensor *const *in, *const *out, *const *extra;
  int n, outs, extras;
  const bool *keep;
} plan;

static kn_status make(kn_context *ctx, const plan *q, kn_node **node) {
  int n = q->n, outs = q->outs, all = n + outs + q->extras;
  size_t ints = 0, attrs_size = q->attrs ? kn_attrs_describe(kn_ops[q->op].attrs).size : 0;
  for (int i = 0; i < n; i++) ints += 2u * q->in[i]->type.rank;
  for (int i = 0; i < outs; i++) ints += 2u * q->out[i]->type.rank;
  for (int i = 0; i < q->extras; i++) ints += 2u * q->extra[i]->type.rank;
  size_t edges_at = sizeof(kn_node), saved_at = edges_at + (size_t)n * sizeof(kn_grad *);
  size_t ints_at = saved_at + (size_t)all * sizeof(kn_saved);
  size_t attrs_at = ints_at + ints * sizeof(int64_t), bytes = attrs_at + attrs_size;
  char *block = kn_claim(ctx, bytes);
  if (!block) return kn_fail_nomem(ctx, bytes);
  for (int i = 0; i < n; i++) /* before the block is written: a locked instruction waits for what was */
    if (kn_requires_grad(q->in[i])) atomic_fetch_add_explicit(&q->in[i]->grad->refs, 1, memory_order_relaxed);
  memset(block, 0, bytes);

  kn_node *p = (kn_node *)(void *)block;
  atomic_init(&p->refs, 1);
  p->op = q->op;
  p->n = n;
  p->outs = outs;
  p->extras = q->extras;
  p->bytes = bytes;
  p->heap = ctx->heap;
  p->edge = (kn_grad **)(void *)(block + edges_at);
  p->saved = (kn_saved *)(void *)(block + saved_at);
  if (q->attrs) p->attrs = memcpy(block + attrs_at, q->attrs, attrs_size);
  int64_t *at = (int64_t *)(void *)(block + ints_at);
  kn_status st = KN_OK;
  for (int i = 0; i < n; i++) p->edge[i] = kn_requires_grad(q->in[i]) ? q->in[i]->grad : NULL;
  for (int i = 0; i < all && st == KN_OK; i++) {
    kn_tensor *t = i < n ? q->in[i] : i < n + outs ? q->out[i - n] : q->extra[i - n - outs];
    st = save(ctx, &p->saved[i], t, i >= n + outs || q->keep[i], &at);
  }
  if (st == KN_OK)
    *node = p;
  else
    kn_node_release(p);
  return st;
}

/* Values are kept when the rule reads them. While recording everything is: constants of a graph are known by
 * their storage, and a symbolic tensor is its value. */
kn_status kn_node_new(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                      kn_tensor *const *out, kn_node **node) {
  bool keep[KN_MAX_INPUTS + KN_MAX_OUTPUTS];
  int outs = kn_ops[op].outs;
  memset(keep, ctx->recorder || kn_ops[op].saves & KN_SAVE_INPUTS, (size_t)n);
  memset(keep + n, ctx->recorder || kn_ops[op].saves & KN_SAVE_OUTPUTS, (size_t)outs);
  plan q = {.op = op, .attrs = attrs, .in = in, .out = out, .n = n, .outs = outs, .keep = keep};
  kn_status st = make(ctx, &q, node);
  if (st == KN_STATE) kn_error_prefix(ctx, "%s", kn_op_name(op));
  if (st != KN_OK || !ctx->anomaly || !ctx->where) return st;
  st = kn_node_extra(ctx, *node);
  if (st == KN_OK)
    ctx->where(ctx->where_ud, (*node)->extra->place, sizeof(*node)->extra->place);
  else
    kn_node_release(*node);
  return st;
}

kn_status kn_node_custom(kn_context *ctx, const char *name, kn_tensor *const *in, int n,
                         kn_tensor *const *out, int outs, const bool *keep, kn_tensor *const *extra,
                         int extras, kn_node **node) {
  plan q = {KN_OP_COUNT, NULL, in, out, extra, n, outs, extras, keep};
  KN_TRY(make(ctx, &q, node));
  kn_status st = kn_node_extra(ctx, *node);
  if (st != KN_OK) {
    kn_node_release(*node);
    return st;
  }
  snprintf((*node)->extra->name, sizeof(*node)->extra->name, "%s", name);
  if (ctx->anomaly && ctx->where)
    ctx->where(ctx->where_ud, (*node)->extra->place, sizeof(*node)->extra->place);
  return KN_OK;
}

/* ---- reading ---- */

static kn_status link_again(kn_context *ctx, kn_node *node, int i, kn_tensor *t) {
  if (i >= node->n + node->outs) return KN_OK;
  if (i < node->n) {
    kn_grad *g = node->edge[i];
    if (g) t->grad = g->node ? kn_grad_new(ctx->heap, g->node, g->output) : kn_grad_share(g);
    return g && !t->grad ? kn_fail_nomem(ctx, sizeof *g) : KN_OK;
  }
  if (!kn_dtype_is_float(kn_tensor_dtype(t))) return KN_OK;
  t->grad = kn_grad_new(ctx->heap, node, i - node->n);
  return t->grad ? KN_OK : kn_fail_nomem(ctx, sizeof(kn_grad));
}

kn_status kn_node_unpack(kn_context *ctx, kn_node *node, int i, bool linked, kn_storage *blank,
                         kn_checkpoint **filled, kn_tensor **out, uint32_t *version) {
  const kn_saved *s = &node->saved[i];
  kn_type type = {.dtype = s->dtype, .device = s->device, .rank = s->rank};
  memcpy(type.dims, s->ints, s->rank * sizeof(int64_t));
  kn_tensor *t, *again = NULL;
  *version = s->version;
  if (s->lost) KN_TRY(kn_checkpoint_value(ctx, s->lost, s->version, &type, filled, &again, version));
  KN_TRY(kn_tensor_symbolic(ctx, &type, s->value, &t));
  if (s->storage || again) {
    memcpy(t->strides, again ? again->strides : s->ints + s->rank, s->rank * sizeof(int64_t));
    t->storage = kn_storage_retain(again ? again->storage : s->storage);
    t->offset = again ? again->offset : s->offset;
  } else if (!s->symbolic) {
    memset(t->strides, 0, sizeof t->strides);
    t->storage = kn_storage_retain(blank);
  }
  kn_status st = linked ? link_again(ctx, node, i, t) : KN_OK;
  if (st != KN_OK)
    kn_tensor_release(t);
  else
    *out = t;
  return st;
}
