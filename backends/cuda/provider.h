/* Eager kernels of the CUDA backend. */
#ifndef KN_CUDA_PROVIDER_H
#define KN_CUDA_PROVIDER_H
#include "core/device.h"

extern const kn_provider cu_provider;

#endif
