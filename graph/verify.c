/* Verifier: being written in full next. */
#include "graph/verify.h"
kn_status kn_graph_verify(kn_context *ctx, const kn_graph *g, bool untrusted) {
  (void)ctx, (void)g, (void)untrusted;
  return KN_OK;
}
