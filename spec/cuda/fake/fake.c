/* A libcuda.so.1 without a device, for plans of the real cuDNN on machines that have none: cuDNN compiles
 * kernels and loads them while it makes a plan, and here loading succeeds and does nothing. All other
 * functions of the driver (refused.c, made from the names that the toolkit's stub exports) answer
 * CUDA_ERROR_STUB_LIBRARY, so that nothing can be run by it. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { DRIVER = 13000, NOT_FOUND = 500 };

/* Handles are only handed back to here: any address that is not NULL does. */
static char thing;

EXPORT int cuDriverGetVersion(int *version) { return *version = DRIVER, 0; }
EXPORT int cuLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned na, void *c,
                             void *d, unsigned nc) {
  (void)code, (void)a, (void)b, (void)na, (void)c, (void)d, (void)nc;
  return *library = &thing, 0;
}
EXPORT int cuLibraryUnload(void *library) { return (void)library, 0; }
EXPORT int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
  (void)library, (void)name;
  return *kernel = &thing, 0;
}
EXPORT int cuLibraryGetModule(void **module, void *library) { return (void)library, *module = &thing, 0; }
EXPORT int cuKernelGetFunction(void **function, void *kernel) { return (void)kernel, *function = &thing, 0; }
EXPORT int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
  return (void)attribute, (void)value, (void)kernel, (void)device, 0;
}
EXPORT int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) {
  (void)attribute, (void)kernel, (void)device;
  return *value = 0, 0;
}
EXPORT int cuFuncSetAttribute(void *function, int attribute, int value) {
  return (void)function, (void)attribute, (void)value, 0;
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, void *function) {
  return (void)attribute, (void)function, *value = 0, 0;
}
EXPORT int cuModuleLoadData(void **module, const void *code) { return (void)code, *module = &thing, 0; }
EXPORT int cuModuleLoadDataEx(void **module, const void *code, unsigned n, void *options, void *values) {
  (void)code, (void)n, (void)options, (void)values;
  return *module = &thing, 0;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module, (void)name;
  return *function = &thing, 0;
}
EXPORT int cuModuleUnload(void *module) { return (void)module, 0; }

/* The runtime asks for everything by its bare name. */
EXPORT int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status) {
  char newer[128];
  (void)version, (void)flags;
  void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  snprintf(newer, sizeof newer, "%s_v2", name);
  *out = dlsym(self, newer);
  if (!*out) *out = dlsym(self, name);
  if (self) dlclose(self);
  if (status) *status = *out ? 0 : 1;
  return *out ? 0 : NOT_FOUND;
}
EXPORT int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, out, version, flags, NULL);
}
