/* Graphs on CUDA: node by node by the eager kernels, in parts that launch.c makes one. */
#ifndef KN_CUDA_TARGET_H
#define KN_CUDA_TARGET_H
#include "graph/target.h"

bool cu_target(kn_context *ctx, void *state, kn_target *out);

#endif
