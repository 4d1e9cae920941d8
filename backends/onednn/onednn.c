/* The backend's row. */
#include "backends/onednn/onednn.h"
#include "backends/onednn/state.h"

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  dn_state *s = dn_state_open(ctx, version, why, size);
  if (s) *state = s;
  return s != NULL;
}

static void close_state(kn_context *ctx, void *state) {
  (void)ctx;
  dn_state_close(state);
}

static const kn_provider *provider(void) { return &dn_provider; }

const kn_backend kn_onednn_backend = {
    .name = "onednn",
    .device = KN_CPU,
    .probe = probe,
    .close = close_state,
    .provider = provider,
    .target = dn_target,
};
