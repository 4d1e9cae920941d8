/* The backend's row in a build without CUDA's headers. */
#include "backends/cuda/cuda.h"
#include <stdio.h>

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  (void)ctx, (void)state, (void)version;
  snprintf(why, size, "this build was made without the headers of CUDA 13 and cuDNN 9");
  return false;
}

const kn_backend kn_cuda_backend = {.name = "cuda", .device = KN_CUDA, .probe = probe};
