/* The backend contract: one struct each, listed once in registry.c. */
#ifndef KN_BACKEND_H
#define KN_BACKEND_H
#include "core/device.h"
#include "graph/target.h"

enum { KN_BACKEND_VERSION = 128, KN_BACKEND_REASON = 256 };

typedef struct kn_backend {
  const char *name;
  kn_device_id device;
  /* False with the reason when it cannot work here. Fills `version` (KN_BACKEND_VERSION) or `why`. Opens its
   * library at first use, and only here. *state is the backend's own, freed by close. */
  bool (*probe)(kn_context *ctx, void **state, char *version, char *why, size_t size);
  void (*close)(kn_context *ctx, void *state);
  /* Eager kernels for this machine, always the same; NULL: none. They find the state by kn_backend_state. */
  const kn_provider *(*provider)(void);
  /* Who computes what that has no kernel for or declines; NULL: nobody. */
  const kn_provider *(*rest)(void);
  /* Where tensors of `device` lie, for as long as the backend is open; NULL, or none given: the host's
   * memory. Of the rows of a device the first that works and gives one is asked. */
  const kn_memory *(*memory)(kn_context *ctx, void *state);
  /* Fill a target (self = state or more); false: graphs are not offered. */
  bool (*target)(kn_context *ctx, void *state, kn_target *out);
} kn_backend;

#endif
