/* The reference backend: graphs run node by node on the kernels of core. Supports every op and every size, so
 * it ends every list of targets; what other backends compute is compared with it. Nothing here is fast, or
 * new: eager kernels are core's own provider. */
#include "backends/ref/ref.h"
#include "backends/by_node.h"
#include "core/device.h"
#include <string.h>

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  (void)ctx, (void)state, (void)why, (void)size;
  strcpy(version, KN_VERSION_TEXT);
  return true;
}

static bool target(kn_context *ctx, void *state, kn_target *out) {
  static const kn_by_node by = {.name = "ref"};
  (void)ctx, (void)state;
  kn_by_node_target(&by, out);
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
