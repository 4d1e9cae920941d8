/* The inside of a kiln_session, shared by session.c, host.c and profile.c. */
#ifndef KILN_SESSION_H
#define KILN_SESSION_H
#include "bindings/c/handle.h"
#include "graph/host.h"

typedef struct kiln_bound { /* a function of the host */
  struct kiln_bound *next;
  const char *name; /* the graph's */
  kiln_host_fn fn;
  void *ud;
} kiln_bound;

struct kiln_session {
  kn_heap *heap;
  kn_session *core;
  kiln_graph *graph;   /* retained */
  kn_rvalue *in, *out; /* tensors owned */
  bool *given;         /* by input */
  bool ran;            /* out holds results */
  atomic_int cancels;  /* runs that are still to be ended */
  kiln_bound *bound;
  char *profile; /* text of the last one, profile_bytes with its end; NULL: none */
  size_t profile_bytes;
};

/* Between values as C sees them and core's. A tensor read is retained, one written is borrowed. */
kn_status kiln_read_value(kn_context *ctx, const kiln_value *v, kn_rvalue *out);
void kiln_write_value(const kn_rvalue *r, kiln_value *out);
void kiln_free_bound(kiln_session *s);
kn_status kiln_all_given(kiln_session *s); /* STATE when an input was never set */

#endif
