/* The host route: every op of the table, on copies in the host's memory (host.c). */
#ifndef KN_CUDA_HOST_H
#define KN_CUDA_HOST_H
#include "core/device.h"

extern const kn_provider cu_host_provider;

#endif
