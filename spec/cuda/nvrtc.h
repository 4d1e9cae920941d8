/* The real NVRTC, which needs neither driver nor device: every source must compile for every kind of device
 * that we name, and keep everything in registers. */
#ifndef SPEC_CUDA_NVRTC_H
#define SPEC_CUDA_NVRTC_H
#include "backends/cuda/api.h"
#include "spec/suite.h"
#include <dlfcn.h>

static const int nvrtc_archs[] = {80, 90, 100};

/* False: there is none, and the caller skips; or the software device's double is open already, which the real
 * one would find where it looks for itself. So suites come here before they open that device. */
static inline bool nvrtc_open(cu_api *api) {
  char why[256];
  *api = (cu_api){.folders = "/usr/local/cuda/lib64:/opt/cuda/lib64"};
  void *open = dlopen("libnvrtc.so.13", RTLD_NOW | RTLD_NOLOAD);
  bool is_double = open && !dlsym(open, "nvrtcAddNameExpression"); /* which knows no names of C++ */
  if (open) dlclose(open);
  return !is_double && cu_api_open(api, CU_NVRTC, why, sizeof why);
}

/* The log of a compilation with the assembler's report; NULL when it failed. From malloc. */
static inline char *nvrtc_log(const cu_api *api, const char *source, int arch, bool *compiled) {
  char option[48], *log;
  const char *options[] = {option, "--std=c++17", "--minimal", "--ptxas-options=-v", "-w"};
  nvrtcProgram p;
  size_t n = 0;
  snprintf(option, sizeof option, "--gpu-architecture=sm_%d", arch);
  ck_assert_int_eq(api->nvrtcCreateProgram(&p, source, "kernels", 0, NULL, NULL), 0);
  *compiled = !api->nvrtcCompileProgram(p, 5, options);
  ck_assert_int_eq(api->nvrtcGetProgramLogSize(p, &n), 0);
  log = calloc(1, n + 1);
  ck_assert_int_eq(api->nvrtcGetProgramLog(p, log), 0);
  api->nvrtcDestroyProgram(&p);
  return log;
}

/* "12 bytes spill stores": is any of the numbers before `what` not 0? */
static inline bool nvrtc_any(const char *log, const char *what) {
  for (const char *at = log; (at = strstr(at, what)); at++) {
    const char *number = at;
    while (number > log && number[-1] != '\n' && number[-1] != ',') number--;
    if (atoi(number)) return true;
  }
  return false;
}

/* A kn_context's cu_source_hook, too: ud is the cu_api. */
static inline void nvrtc_check(void *ud, const char *key, const char *source) {
  for (size_t i = 0; i < sizeof nvrtc_archs / sizeof *nvrtc_archs; i++) {
    bool compiled;
    char *log = nvrtc_log(ud, source, nvrtc_archs[i], &compiled);
    ck_assert_msg(compiled, "%.200s for sm_%d: %.800s\n%.2000s", key, nvrtc_archs[i], log, source);
    ck_assert_msg(!nvrtc_any(log, "bytes spill"), "%.200s for sm_%d spills: %.2000s", key, nvrtc_archs[i],
                  log);
    free(log);
  }
}

#endif
