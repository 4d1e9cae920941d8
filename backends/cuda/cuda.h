/* The CUDA backend's row. Its driver and libraries are opened when it is first needed; without CUDA's headers
 * at build time it is absent.c, which says so. */
#ifndef KN_CUDA_H
#define KN_CUDA_H
#include "backends/backend.h"

extern const kn_backend kn_cuda_backend;

#endif
