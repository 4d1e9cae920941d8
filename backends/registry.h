/* The one static list of backends, in order of preference, and which of them a context uses. */
#ifndef KN_REGISTRY_H
#define KN_REGISTRY_H
#include "backends/backend.h"
#include "backends/tune.h"

typedef struct kn_backend_report {
  const char *name;
  bool available;
  char version[KN_BACKEND_VERSION];
  char reason[KN_BACKEND_REASON]; /* why not, "" when available */
} kn_backend_report;

/* Who computes on a device beside the CPU, probed if it was not yet; UNSUPPORTED with the reason. */
kn_status kn_registry_door(kn_context *ctx, kn_device_id d, const kn_device_door **door, void **state);

/* What KILN_BACKEND may be: NULL or "" for all that work; a name restricts its device to it and the
 * reference. ARG for an unknown name (listing the known), UNSUPPORTED with the reason for one that cannot
 * work. Probing is lazy: it happens at the first op or plan that a backend could serve, at
 * kn_registry_report, or for a name given here. */
kn_status kn_registry_open(kn_context *ctx, const char *choice);
/* The same, with folders, joined by ':', in which libraries of CUDA are looked for first; an empty one stands
 * for where the loader looks. NULL: where they usually are. */
kn_status kn_registry_open_with(kn_context *ctx, const char *choice, const char *libraries);
const char *kn_registry_libraries(const kn_context *ctx); /* those; borrowed */
void kn_registry_close(kn_context *ctx);                  /* before kn_context_free of a root context */
int kn_registry_count(void);
const kn_provider *kn_registry_provider(int i); /* eager kernels of row i on the CPU; NULL: none */
void kn_registry_report(kn_context *ctx, int i, kn_backend_report *out);
/* Folder of the file that remembers what was measured (tune.h), and of compiled kernels; before the first
 * plan. NULL: none. */
kn_status kn_registry_remember(kn_context *ctx, const char *dir);
const char *kn_registry_cache(const kn_context *ctx); /* that folder; borrowed */
/* What was measured in this context or its parents; NULL where there is nothing to choose from. */
kn_tuner *kn_registry_tuner(kn_context *ctx);
/* Targets for sessions, preferred first, reference last. Borrowed from the context. Of devices beside the CPU
 * those that were asked for before. */
kn_status kn_registry_targets(kn_context *ctx, const kn_target *const **targets, int *n);
/* The state of a backend in this context or its parents, probed if it was not yet; NULL where it cannot work
 * or the registry is not open. Cheap: eager kernels ask at every call. */
void *kn_backend_state(kn_context *ctx, const kn_backend *b);

#endif
