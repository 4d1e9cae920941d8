/* The backend's row in a build without oneDNN's headers. */
#include "backends/onednn/onednn.h"
#include <stdio.h>

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  (void)ctx, (void)state, (void)version;
  snprintf(why, size, "this build was made without oneDNN's headers");
  return false;
}

const kn_backend kn_onednn_backend = {.name = "onednn", .device = KN_CPU, .probe = probe};
