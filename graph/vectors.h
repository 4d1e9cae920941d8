/* Test vectors: calls of a graph and what it gave for them, kept in its file, so that whoever loads it can
 * find out whether it computes the same there. They are one story: run in their order from the graph's own
 * state, with the random numbers of seed 0, so that what a call stores is seen by the next. */
#ifndef KN_VECTORS_H
#define KN_VECTORS_H
#include "graph/exec.h"

enum { KN_VECTORS_MAX = 10000 };

typedef struct kn_vectors {
  atomic_int refs;
  kn_heap *heap; /* retained */
  uint32_t n, nin, nout, room;
  double tolerance;  /* see kn_vectors_test; negative: none was told */
  kn_rvalue *values; /* of each the inputs, then the outputs, flat as sessions have them. Tensors are
                        retained, on the host, contiguous; NULL for outputs that were undefined */
} kn_vectors;

kn_status kn_vectors_new(kn_context *ctx, const kn_graph *g, kn_vectors **out); /* none yet */
kn_status kn_vectors_add(kn_context *ctx, kn_vectors *v); /* one more, empty; LIMIT beyond KN_VECTORS_MAX */
kn_vectors *kn_vectors_retain(kn_vectors *v);
void kn_vectors_release(kn_vectors *v); /* NULL is fine */
kn_rvalue *kn_vectors_in(const kn_vectors *v, uint32_t i);
kn_rvalue *kn_vectors_out(const kn_vectors *v, uint32_t i);

/* Runs the calls in a session of the graph and keeps what they give. State and random numbers of the session
 * are afterwards what they were, as they are after the next. */
kn_status kn_vectors_record(kn_session *s, kn_vectors *v);
/* Runs them and compares: STATE with a sentence that names call, output, element and both values where an
 * element differs by more than the tolerance times the largest element of that output, or 0.001 where that is
 * larger. Untold it goes by the dtype: 1e-9 for float64, 1e-4 for float32 and for numbers, 0.01 and 0.05 for
 * halves. Integers and booleans are equal. */
kn_status kn_vectors_test(kn_session *s, const kn_vectors *v);

/* "2.label (y)": an output of the graph as the C API calls it. */
char *kn_output_text(const kn_graph *g, uint32_t output, char *buf, size_t size);

#endif
