/* The software device for C suites: where its libraries are, a context that uses it, and what it has counted.
 */
#ifndef SPEC_CUDA_SOFTWARE_H
#define SPEC_CUDA_SOFTWARE_H
#include "backends/registry.h"
#include "spec/cuda/sim/sim.h"
#include "spec/suite.h"
#include <dlfcn.h>

static inline const char *software_folder(void) {
  static char folder[1024];
  const char *build = getenv("KILN_BUILD");
  snprintf(folder, sizeof folder, "%s/spec/cuda/sim", build ? build : "build");
  return folder;
}

/* Closed by kn_registry_close and suite_done. With KILN_SPEC_DEVICE the device of this machine is used
 * instead. */
static inline kn_context *software_context(void) {
  kn_context *c = suite_context();
  OK(c, kn_registry_open_with(c, NULL, getenv("KILN_SPEC_DEVICE") ? NULL : software_folder()));
  return c;
}

/* Once the driver is open. */
static inline sim_counts software_counts(void) {
  char path[1100];
  snprintf(path, sizeof path, "%s/libcuda.so.1", software_folder());
  void *driver = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  sim_counts (*count)(void) = NULL;
  if (driver) *(void **)&count = dlsym(driver, "sim_count");
  return count ? count() : (sim_counts){0};
}

#endif
