/* Host slots: see host.c. The interface for those who run graphs is in exec.h. */
#ifndef KN_HOST_H
#define KN_HOST_H
#include "graph/exec.h"

enum { KN_HOST_VALUES = 32 }; /* most arguments, and results, of a call */

/* "integer", "float", "boolean", "float32[N,3]": names of sizes that the graph does not have are unknown. */
bool kn_host_type(const kn_builder *b, const char *text, kn_vtype *out);
/* The first call of the graph's i-th host slot; NULL past the last. */
const kn_node *kn_host_call(const kn_graph *g, uint32_t i);
/* What is wrong with the node; NULL: nothing. */
const char *kn_host_check(const kn_node *n);
/* The call, for a run. `out` is owned on success; its types are the node's. */
kn_status kn_host_run(kn_session *s, const kn_node *n, const kn_rvalue *in, kn_rvalue *out);

#endif
