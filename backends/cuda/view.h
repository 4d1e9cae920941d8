/* How a tensor lies, where there may be no tensor yet. */
#ifndef KN_CUDA_VIEW_H
#define KN_CUDA_VIEW_H
#include "core/tensor.h"

typedef struct cu_view {
  const kn_type *type;
  const int64_t *strides; /* elements */
} cu_view;

static inline cu_view cu_view_of(const kn_tensor *t) { return (cu_view){&t->type, t->strides}; }

/* The power of two, `most` at most, that an address is a multiple of. */
static inline int32_t cu_alignment(uint64_t at, int32_t most) {
  while (at % (uint64_t)most) most /= 2;
  return most;
}

#endif
