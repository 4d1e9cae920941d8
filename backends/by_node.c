/* Nodes one after the other: see by_node.h. A node whose sizes no plan can know goes to whoever would compute
 * it eagerly. */
#include "backends/by_node.h"

typedef struct item {
  const kn_node *node; /* of the part */
  bool open; /* sizes or attributes are only known when it runs, so its types must be checked then */
} item;

struct kn_program {
  uint32_t n;
  item items[];
};

static size_t program_size(uint32_t n) { return sizeof(kn_program) + n * sizeof(item); }

static bool supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                     size_t size) {
  (void)self, (void)ctx, (void)n, (void)types, (void)why, (void)size;
  return true;
}

static kn_status compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  (void)self;
  char why[64];
  kn_program *p = kn_alloc(ctx->heap, program_size(part->n));
  if (!p) return kn_fail_nomem(ctx, program_size(part->n));
  p->n = part->n;
  for (uint32_t i = 0; i < part->n; i++)
    p->items[i] = (item){part->nodes[i], !kn_node_static(part->nodes[i], part->types, why, sizeof why)};
  *out = p;
  return KN_OK;
}

kn_status kn_by_node_run(const kn_by_node *by, kn_context *ctx, const kn_node *n, bool open, kn_tensor **vals,
                         const kn_scalar *scalars) {
  const char *impl;
  if (by->meets) by->meets(ctx, n);
  kn_status st = kn_node_run(ctx, n, open, by->eager || open, vals, scalars, &impl);
  if (st != KN_OK) return kn_node_failed(ctx, n, st);
  if (kn_debugging(ctx, KN_DEBUG_EXEC)) kn_log_node(ctx, by->name, n, impl, vals);
  return KN_OK;
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  for (uint32_t i = 0; i < p->n; i++)
    KN_TRY(kn_by_node_run(self, ctx, p->items[i].node, p->items[i].open, vals, scalars));
  return KN_OK;
}

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  kn_free(ctx->heap, p, program_size(p->n));
}

void kn_by_node_target(const kn_by_node *self, kn_target *out) {
  *out = (kn_target){.name = self->name,
                     .supports = supports,
                     .compile = compile,
                     .run = run,
                     .free = free_program,
                     .self = (void *)(uintptr_t)self};
}
