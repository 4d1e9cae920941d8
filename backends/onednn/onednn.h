/* The oneDNN backend's row for the registry. Present in every build: without oneDNN's headers it says so. */
#ifndef KN_ONEDNN_H
#define KN_ONEDNN_H
#include "backends/backend.h"
#include "backends/onednn/problem.h"

extern const kn_backend kn_onednn_backend;

/* Between the files of this folder. */
extern const kn_provider dn_provider;
/* Whether the eager kernel leaves this call to another backend. Graphs ask too, so that they give eager's
 * bits. */
bool dn_better_elsewhere(const kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in);
bool dn_offered_elsewhere(const kn_context *ctx, kn_op op);
/* The same by sizes and strides alone, were there another backend. */
bool dn_is_slow(kn_op op, const void *attrs, const dn_view *in);
bool dn_target(kn_context *ctx, void *state, kn_target *out);

#endif
