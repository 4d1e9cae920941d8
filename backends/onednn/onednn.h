/* The oneDNN backend's row for the registry. Present in every build: without oneDNN's headers it says so. */
#ifndef KN_ONEDNN_H
#define KN_ONEDNN_H
#include "backends/backend.h"

extern const kn_backend kn_onednn_backend;

/* Between the files of this folder. */
extern const kn_provider dn_provider;
bool dn_target(kn_context *ctx, void *state, kn_target *out);

#endif
