/* The reference backend: graphs run node by node on the kernels of core. Supports every op and every size, so
 * it ends every list of targets; what other backends compute is compared with it. Nothing here is fast, or
 * new: eager kernels are core's own provider. A node whose sizes no plan can know goes to whoever would
 * compute it eagerly. */
#include "backends/ref/ref.h"
#include "core/device.h"
#include <string.h>

typedef struct ref_node {
  const kn_node *node; /* of the part */
  bool open; /* sizes or attributes are only known when it runs, so its types must be checked then */
} ref_node;

struct kn_program {
  uint32_t n;
  ref_node nodes[];
};

static size_t program_size(uint32_t n) { return sizeof(kn_program) + n * sizeof(ref_node); }

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
    p->nodes[i] = (ref_node){part->nodes[i], !kn_node_static(part->nodes[i], part->types, why, sizeof why)};
  *out = p;
  return KN_OK;
}

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  kn_free(ctx->heap, p, program_size(p->n));
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  (void)self;
  for (uint32_t i = 0; i < p->n; i++) {
    const kn_node *n = p->nodes[i].node;
    const char *impl;
    kn_status st = kn_node_run(ctx, n, p->nodes[i].open, p->nodes[i].open, vals, scalars, &impl);
    if (st != KN_OK) return kn_node_failed(ctx, n, st);
    if (kn_debugging(ctx, KN_DEBUG_EXEC)) kn_log_node(ctx, "ref", n, impl, vals);
  }
  return KN_OK;
}

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  (void)ctx, (void)state, (void)why, (void)size;
  strcpy(version, KN_VERSION_TEXT);
  return true;
}

static bool target(kn_context *ctx, void *state, kn_target *out) {
  (void)ctx, (void)state;
  *out =
      (kn_target){.name = "ref", .supports = supports, .compile = compile, .run = run, .free = free_program};
  return true;
}

static const kn_provider *provider(void) { return &kn_ref_provider; }

const kn_backend kn_ref_backend = {
    .name = "ref",
    .device = KN_CPU,
    .probe = probe,
    .provider = provider,
    .target = target,
};
