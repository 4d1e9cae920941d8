/* The reference backend's row for the registry. */
#ifndef KN_REF_H
#define KN_REF_H
#include "backends/backend.h"

extern const kn_backend kn_ref_backend;

#endif
