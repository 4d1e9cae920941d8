/* The backend contract: one struct each, listed once in registry.c. */
#ifndef KN_BACKEND_H
#define KN_BACKEND_H
#include "core/device.h"
#include "graph/target.h"

enum { KN_BACKEND_VERSION = 128, KN_BACKEND_REASON = 256 };

typedef struct kn_device_facts {
  char name[128];
  int major, minor; /* of its capability */
  int processors;
  size_t memory; /* bytes */
} kn_device_facts;

typedef struct kn_device_usage { /* bytes, but where said; zeros before the first tensor */
  size_t allocated, reserved;    /* by tensors and workspaces; from the driver, what is cached included */
  size_t peak_allocated, peak_reserved;
  uint64_t blocks, segments, calls, retries; /* numbers of */
} kn_device_usage;

/* Pieces of graphs that run as one launch each, so far; zeros before the first. */
typedef struct kn_device_launches {
  uint64_t captured, launches,
      waits;      /* graphs made, launches of them, those that waited for numbers or faults */
  uint64_t syncs; /* the host has waited for the device, for whatever reason */
  double seconds; /* in the driver's calls that launch graphs */
} kn_device_launches;

/* What front ends ask of the devices beside the CPU that a backend computes on; it uses one of them. */
typedef struct kn_device_door {
  int (*count)(void *state);
  kn_status (*facts)(void *state, kn_context *ctx, int i, kn_device_facts *out);
  int (*current)(void *state);
  kn_status (*choose)(void *state, kn_context *ctx, int i); /* before its first tensor, or STATE */
  kn_status (*room)(void *state, kn_context *ctx, size_t *left, size_t *all); /* of its memory */
  kn_device_usage (*usage)(void *state);
  kn_device_launches (*launches)(void *state);
  void (*reset_peak)(void *state);
  void (*empty_cache)(void *state);
} kn_device_door;

#define KN_WHY_MEMORY "out of memory"

typedef struct kn_backend {
  const char *name;
  kn_device_id device;
  /* False with the reason when it cannot work here; where that is KN_WHY_MEMORY it is asked again. Fills
   * `version` (KN_BACKEND_VERSION) or `why`. Opens its library at first use, and only here. *state is the
   * backend's own, freed by close. */
  bool (*probe)(kn_context *ctx, void **state, char *version, char *why, size_t size);
  void (*close)(kn_context *ctx, void *state);
  /* Eager kernels for this machine, always the same; NULL: none. They find the state by kn_backend_state. */
  const kn_provider *(*provider)(void);
  /* Who computes what that has no kernel for or declines; NULL: nobody. */
  const kn_provider *(*rest)(void);
  /* Where tensors of `device` lie, for as long as the backend is open; NULL, or none given: the host's
   * memory. Of the rows of a device the first that works and gives one is asked. */
  const kn_memory *(*memory)(kn_context *ctx, void *state);
  const kn_device_door *door; /* NULL: it computes on the CPU */
  /* Fill a target (self = state or more); false: graphs are not offered. */
  bool (*target)(kn_context *ctx, void *state, kn_target *out);
} kn_backend;

#endif
