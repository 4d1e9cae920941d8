/* Finding libarchive's shared library and the functions in it. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/io/libarchive.h"
#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

/* The library's one ABI since version 3.0: libarchive.so.13 on Linux. */
static const char *const names[] = {"libarchive.so.13", "libarchive.so"};

/* ISO C has no conversion from object to function pointer; POSIX guarantees that the bits are the same. */
static bool find(void *handle, const char *name, void *function) {
  void *p = dlsym(handle, name);
  memcpy(function, &p, sizeof p);
  return p != NULL;
}

kn_status kn_libarchive_open(kn_context *ctx, kn_libarchive *out) {
  kn_libarchive l = {.handle = NULL};
  for (size_t i = 0; i < sizeof names / sizeof *names && !l.handle; i++)
    l.handle = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
  if (!l.handle) {
    const char *said = dlerror();
    return kn_fail(ctx, KN_UNSUPPORTED, "%s cannot be opened: %s", names[0], said ? said : "no reason given");
  }
  const char *lacking = NULL;
#define X(name)                                                                                              \
  if (!find(l.handle, "archive_" #name, &l.name)) lacking = "archive_" #name;
  KN_ARCHIVE_FUNCTIONS(X)
#undef X
  if (!find(l.handle, "archive_errno", &l.error_number)) lacking = "archive_errno";
  if (lacking) {
    kn_libarchive_close(&l);
    return kn_fail(ctx, KN_UNSUPPORTED, "%s lacks %s", names[0], lacking);
  }
  l.utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
  *out = l;
  return KN_OK;
}

void kn_libarchive_close(kn_libarchive *l) {
  if (l->utf8) freelocale(l->utf8);
  l->utf8 = (locale_t)0;
  if (l->handle) dlclose(l->handle);
  l->handle = NULL;
}

locale_t kn_libarchive_enter(const kn_libarchive *l) { return l->utf8 ? uselocale(l->utf8) : (locale_t)0; }

void kn_libarchive_leave(const kn_libarchive *l, locale_t before) {
  if (l->utf8) uselocale(before);
}
