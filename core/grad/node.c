/* Tape nodes: what they save, and how long chains of them are freed without recursion. */
#include "core/grad/node.h"
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

static bool last(atomic_int *count) { return atomic_fetch_sub_explicit(count, 1, memory_order_acq_rel) == 1; }

/* Puts the node before `list` if that was its last reference. */
static kn_node *drop_node(kn_node *node, kn_node *list) {
  if (!node || !last(&node->refs)) return list;
  node->next = list;
  return node;
}

static kn_node *drop_link(kn_grad *g, kn_node *list) {
  if (!g || !last(&g->refs)) return list;
  list = drop_node(g->node, list);
  kn_free(g->heap, g, sizeof *g);
  return list;
}

static void free_nodes(kn_node *list) {
  while (list) {
    kn_node *node = list;
    list = node->next;
    for (int i = 0; i < node->n; i++) list = drop_link(node->edge[i], list);
    for (int i = 0; i < node->n + node->outs; i++) kn_storage_release(node->saved[i].storage);
    kn_free(node->heap, node, node->bytes);
  }
}

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

/* Values are kept when the rule reads them. While recording everything is: constants of a graph are known by
 * their storage, and a symbolic tensor is its value. */
static bool keeps(kn_context *ctx, kn_op op, bool output) {
  return ctx->recorder || (kn_ops[op].saves & (output ? KN_SAVE_OUTPUTS : KN_SAVE_INPUTS));
}

static int64_t *save(kn_saved *s, const kn_tensor *t, bool keep, int64_t *ints) {
  s->dtype = t->type.dtype;
  s->device = t->type.device;
  s->rank = t->type.rank;
  s->symbolic = kn_tensor_is_symbolic(t);
  s->value = t->value;
  s->ints = ints;
  memcpy(ints, t->type.dims, s->rank * sizeof *ints);
  if (s->symbolic || !keep) return ints + s->rank;
  memcpy(ints + s->rank, t->strides, s->rank * sizeof *ints);
  s->storage = kn_storage_retain(t->storage);
  s->version = atomic_load(&t->storage->version);
  s->offset = t->offset;
  return ints + 2 * s->rank;
}

kn_status kn_node_new(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                      kn_tensor *const *out, kn_node **node) {
  int outs = kn_ops[op].outs;
  size_t ints = 0, attrs_size = attrs ? kn_attrs_describe(kn_ops[op].attrs).size : 0;
  for (int i = 0; i < n; i++) ints += 2u * in[i]->type.rank;
  for (int i = 0; i < outs; i++) ints += 2u * out[i]->type.rank;
  size_t edges_at = sizeof(kn_node), saved_at = edges_at + (size_t)n * sizeof(kn_grad *);
  size_t ints_at = saved_at + (size_t)(n + outs) * sizeof(kn_saved);
  size_t attrs_at = ints_at + ints * sizeof(int64_t), bytes = attrs_at + attrs_size;
  char *block = kn_claim(ctx, bytes);
  if (!block) return kn_fail_nomem(ctx, bytes);
  memset(block, 0, bytes);

  kn_node *p = (kn_node *)(void *)block;
  atomic_init(&p->refs, 1);
  p->op = op;
  p->n = n;
  p->outs = outs;
  p->bytes = bytes;
  p->heap = ctx->heap;
  p->edge = (kn_grad **)(void *)(block + edges_at);
  p->saved = (kn_saved *)(void *)(block + saved_at);
  if (attrs) p->attrs = memcpy(block + attrs_at, attrs, attrs_size);
  int64_t *at = (int64_t *)(void *)(block + ints_at);
  for (int i = 0; i < n; i++) {
    at = save(&p->saved[i], in[i], keeps(ctx, op, false), at);
    if (!kn_requires_grad(in[i])) continue;
    p->edge[i] = in[i]->grad;
    atomic_fetch_add_explicit(&p->edge[i]->refs, 1, memory_order_relaxed);
  }
  for (int i = 0; i < outs; i++) at = save(&p->saved[n + i], out[i], keeps(ctx, op, true), at);
  *node = p;
  return KN_OK;
}

static kn_status link_again(kn_context *ctx, kn_node *node, int i, kn_tensor *t) {
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
                         kn_tensor **out) {
  const kn_saved *s = &node->saved[i];
  kn_type type = {.dtype = s->dtype, .device = s->device, .rank = s->rank};
  memcpy(type.dims, s->ints, s->rank * sizeof(int64_t));
  kn_tensor *t;
  KN_TRY(kn_tensor_symbolic(ctx, &type, s->value, &t));
  if (s->storage) {
    memcpy(t->strides, s->ints + s->rank, s->rank * sizeof(int64_t));
    t->storage = kn_storage_retain(s->storage);
    t->offset = s->offset;
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
