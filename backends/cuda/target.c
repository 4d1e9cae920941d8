/* The target: it supports every node whose result is on the device. Nodes that share a kernel run as one, the
 * rest as the eager kernels do it. */
#include "backends/cuda/target.h"
#include "backends/by_node.h"
#include "backends/cuda/capture.h"
#include "backends/cuda/fused.h"
#include "backends/cuda/joined.h"
#include "backends/cuda/launch.h"
#include <stdio.h>
#include <string.h>

typedef enum item_kind {
  ITEM_NODE,
  ITEM_OPEN, /* a node that is not static */
  ITEM_CHAIN,
  ITEM_JOINED
} item_kind;

typedef struct item { /* what runs as one: n nodes from `first` on */
  item_kind kind;
  uint32_t first, n;
  union {
    cu_fused *chain;
    cu_joined joined;
  } of;
} item;

struct kn_program {
  const kn_node *const *nodes; /* of the part */
  uint32_t n, nitems;
  item items[];
};

static const kn_by_node singly = {.name = "cuda", .eager = true, .meets = cu_capture_meets};

static bool supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                     size_t size) {
  (void)self, (void)ctx, (void)n, (void)types, (void)why, (void)size;
  return true;
}

static size_t program_size(uint32_t n) { return sizeof(kn_program) + n * sizeof(item); }

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  for (uint32_t i = 0; i < p->nitems; i++)
    if (p->items[i].kind == ITEM_CHAIN) cu_fused_free(ctx, p->items[i].of.chain);
  kn_free(ctx->heap, p, program_size(p->n));
}

static kn_status find_item(kn_context *ctx, cu_device *d, const kn_part *part, uint32_t i, item *x) {
  char why[64];
  *x = (item){.kind = ITEM_JOINED, .first = i, .n = 1};
  cu_joined_find(part, i, &x->of.joined);
  if (x->of.joined.n) {
    cu_joined_tune(ctx, d, &x->of.joined, part->types);
    return x->n = x->of.joined.n, KN_OK;
  }
  x->kind = ITEM_CHAIN;
  KN_TRY(cu_fused_new(ctx, d, part, i, &x->of.chain));
  if (x->of.chain) return x->n = cu_fused_length(x->of.chain), KN_OK;
  x->kind = kn_node_static(part->nodes[i], part->types, why, sizeof why) ? ITEM_NODE : ITEM_OPEN;
  return KN_OK;
}

static kn_status compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  kn_program *p = kn_calloc(ctx->heap, 1, program_size(part->n));
  if (!p) return kn_fail_nomem(ctx, program_size(part->n));
  p->nodes = part->nodes;
  p->n = part->n;
  for (uint32_t i = 0; i < part->n; i += p->items[p->nitems++].n) {
    kn_status st = find_item(ctx, self, part, i, &p->items[p->nitems]);
    if (st == KN_OK) continue;
    free_program(self, ctx, p);
    return st;
  }
  *out = p;
  return KN_OK;
}

/* "sub+mul+mean": one line for all, but to a profile they are a group. */
static void log_item(kn_context *ctx, const kn_node *const *nodes, uint32_t n, const char *how,
                     kn_tensor *const *vals) {
  char text[96];
  size_t at = 0;
  for (uint32_t i = 0; i < n && at < sizeof text; i++)
    at +=
        (size_t)snprintf(text + at, sizeof text - at, "%s%s", i ? "+" : "", kn_op_name((kn_op)nodes[i]->op));
  if (at >= sizeof text) memcpy(text + sizeof text - 4, "...", 4);
  if (ctx->profile)
    kn_log_group(ctx, "cuda", nodes, n, how, vals);
  else
    kn_log_nodes(ctx, "cuda", text, nodes[n - 1], how, vals);
}

static kn_status run_item(kn_context *ctx, cu_device *d, const kn_program *p, const item *x, kn_tensor **vals,
                          const kn_scalar *scalars) {
  const kn_node *const *nodes = p->nodes + x->first;
  const char *how = "chain";
  kn_status st = KN_OK;
  switch (x->kind) {
  case ITEM_NODE:
  case ITEM_OPEN: return kn_by_node_run(&singly, ctx, nodes[0], x->kind == ITEM_OPEN, vals, scalars);
  case ITEM_CHAIN: st = cu_fused_run(ctx, d, x->of.chain, vals); break;
  case ITEM_JOINED: st = cu_joined_run(ctx, d, &x->of.joined, vals, &how); break;
  }
  if (st != KN_OK) return kn_node_failed(ctx, nodes[0], st);
  if (kn_debugging(ctx, KN_DEBUG_EXEC)) log_item(ctx, nodes, x->n, how, vals);
  return KN_OK;
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  cu_device *d;
  (void)self;
  KN_TRY(cu_device_of(ctx, &d));
  for (uint32_t i = 0; i < p->nitems; i++) KN_TRY(run_item(ctx, d, p, &p->items[i], vals, scalars));
  return KN_OK;
}

bool cu_target(kn_context *ctx, void *state, kn_target *out) {
  (void)ctx;
  *out = (kn_target){.name = "cuda",
                     .device = KN_CUDA,
                     .launcher = &cu_launcher,
                     .supports = supports,
                     .compile = compile,
                     .run = run,
                     .free = free_program,
                     .self = state};
  return true;
}
