/* The backend's row. */
#include "backends/cuda/cuda.h"
#include "backends/cuda/device.h"
#include "backends/cuda/host.h"
#include "backends/cuda/provider.h"
#include "backends/cuda/target.h"
#include <stdio.h>
#include <string.h>

/* UNVERIFIED.md lists what no device has run; as long as it lists anything, versions say so. */
#define VERIFIED "not verified on a device"

/* "CUDA 13.0 (not verified on a device), sm_90, NVIDIA H200, without libcudnn.so.9" */
static void describe(cu_device *d, char *version) {
  char text[KN_BACKEND_VERSION + 256], file[64];
  int at = snprintf(text, sizeof text, "CUDA %d.%d (" VERIFIED "), sm_%d, %s", d->driver / 1000,
                    d->driver % 1000 / 10, d->capability, d->name);
  for (cu_library l = CU_BLAS; l < CU_LIBRARY_COUNT; l++)
    if (!cu_api_there(&d->api, l))
      at += snprintf(text + at, sizeof text - (size_t)at, ", without %s", cu_api_file(l, file, sizeof file));
  snprintf(version, KN_BACKEND_VERSION, "%.*s", KN_BACKEND_VERSION - 1, text);
}

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  cu_device *d = cu_device_find(ctx, why, size);
  if (d) describe(d, version);
  *state = d;
  return d != NULL;
}

static void close_state(kn_context *ctx, void *state) {
  (void)ctx;
  cu_device_close(state);
}

/* The device is opened by the first tensor. */
static const kn_memory *memory(kn_context *ctx, void *state) {
  cu_device *d = state;
  (void)ctx;
  return &d->tensors;
}

static const kn_provider *provider(void) { return &cu_provider; }
static const kn_provider *rest(void) { return &cu_host_provider; }

const kn_backend kn_cuda_backend = {.name = "cuda",
                                    .device = KN_CUDA,
                                    .probe = probe,
                                    .close = close_state,
                                    .provider = provider,
                                    .rest = rest,
                                    .door = &cu_door,
                                    .memory = memory,
                                    .target = cu_target};
