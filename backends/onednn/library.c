/* Finding oneDNN's shared library and the functions in it. */
#include "backends/onednn/library.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

/* The file names of the version whose headers this was compiled with, exact first. Distributions number the
 * soname differently (2.6: .so.2, 3.7 on Debian 13: .so.3.6 with a link .so.3.7). */
static const char *const names[] = {
    "libdnnl.so." TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR),
    "libdnnl.so." TEXT(DNNL_VERSION_MAJOR),
};

/* ISO C has no conversion from object to function pointer; POSIX guarantees that the bits are the same. */
static bool find(void *handle, const char *name, void *function) {
  void *p = dlsym(handle, name);
  memcpy(function, &p, sizeof p);
  return p != NULL;
}

static bool find_all(dn_library *l, char *why, size_t size) {
#define F(name)                                                                                              \
  if (!find(l->handle, "dnnl_" #name, &l->name)) {                                                           \
    snprintf(why, size, "the oneDNN library lacks dnnl_" #name);                                             \
    return false;                                                                                            \
  }
  DN_COMMON_FUNCTIONS(F)
  DN_OWN_FUNCTIONS(F)
#undef F
  /* dlsym looks into the libraries that the handle depends on, so this is the runtime oneDNN itself uses. */
  if (!find(l->handle, "omp_get_max_threads", &l->omp_get_max_threads) ||
      !find(l->handle, "omp_set_num_threads", &l->omp_set_num_threads))
    l->omp_get_max_threads = NULL;
  return true;
}

bool dn_library_open(dn_library *l, char version[DN_VERSION_TEXT], char *why, size_t size) {
  memset(l, 0, sizeof *l);
  /* NODELETE: OpenMP threads and generated code may outlive the last context that used the library. */
  for (size_t i = 0; i < sizeof names / sizeof *names && !l->handle; i++)
    l->handle = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
  if (!l->handle) {
    const char *said = dlerror();
    snprintf(why, size, "%s cannot be opened: %s", names[0], said ? said : "no reason given");
    return false;
  }
  if (!find_all(l, why, size)) {
    dn_library_close(l);
    return false;
  }
  const dnnl_version_t *v = l->version();
  snprintf(version, DN_VERSION_TEXT, "%d.%d.%d", v->major, v->minor, v->patch);
  if (v->major != DNNL_VERSION_MAJOR) {
    snprintf(why, size, "oneDNN %s was found, but this was built for %d.%d", version, DNNL_VERSION_MAJOR,
             DNNL_VERSION_MINOR);
    dn_library_close(l);
    return false;
  }
  return true;
}

void dn_library_close(dn_library *l) {
  if (l->handle) dlclose(l->handle);
  l->handle = NULL;
}

const char *dn_status_text(dnnl_status_t s) {
  switch (s) {
  case dnnl_success: return "success";
  case dnnl_out_of_memory: return "out of memory";
  case dnnl_invalid_arguments: return "invalid arguments";
  case dnnl_unimplemented: return "not implemented";
  case dnnl_runtime_error: return "run-time error";
  default: return "failure";
  }
}

int dn_threads_set(const dn_library *l, int threads) {
  if (!l->omp_get_max_threads) return 0;
  int before = l->omp_get_max_threads();
  if (before == threads) return 0;
  l->omp_set_num_threads(threads);
  return before;
}

void dn_threads_restore(const dn_library *l, int before) {
  if (before) l->omp_set_num_threads(before);
}
