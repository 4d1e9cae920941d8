/* The target: it supports every node whose result is on the device, as the eager kernels do. */
#include "backends/cuda/target.h"
#include "backends/by_node.h"
#include "backends/cuda/capture.h"
#include "backends/cuda/launch.h"

bool cu_target(kn_context *ctx, void *state, kn_target *out) {
  static const kn_by_node by = {.name = "cuda", .eager = true, .meets = cu_capture_meets};
  (void)ctx, (void)state;
  kn_by_node_target(&by, out);
  out->device = KN_CUDA;
  out->launcher = &cu_launcher;
  return true;
}
