/* Finding CUDA's shared libraries and the functions in them. */
#define _POSIX_C_SOURCE 200809L
#include "backends/cuda/api.h"
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

static const struct {
  const char *files, *doc;
} libraries[] = {
#define LIBRARY(name, files, doc) {files, doc},
#define FUNCTION(library, name)
#include "backends/cuda/api.def"
#undef LIBRARY
#undef FUNCTION
};

static const struct {
  cu_library library;
  const char *name;
  size_t at;
} functions[] = {
#define LIBRARY(name, files, doc)
#define FUNCTION(library, name) {CU_##library, TEXT(name), offsetof(cu_api, name)},
#include "backends/cuda/api.def"
#undef LIBRARY
#undef FUNCTION
};

/* Where toolkits and Python's packages have them, after the folders of the host. An empty folder is where the
 * loader looks. */
static const char places[] = ":/usr/local/cuda/lib64:/opt/cuda/lib64"
                             ":/usr/local/lib/python3*/*-packages/nvidia/*/lib"
                             ":/usr/lib/python3*/*-packages/nvidia/*/lib";

/* Takes the next of several words, each ended by ':' or the list's end; those that are too long are left out.
 */
static bool next_word(const char **list, char *word, size_t size) {
  while (**list) {
    const char *from = *list;
    size_t n = strcspn(from, ":");
    *list += n + (from[n] == ':');
    if (n < size) return snprintf(word, size, "%.*s", (int)n, from) >= 0;
  }
  return false;
}

typedef bool (*try_fn)(cu_api *api, cu_library library, const char *path);

static bool open_path(cu_api *api, cu_library library, const char *path) {
  /* NODELETE: the driver's threads outlive the last context that used it. */
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle) return false;
  api->handle[library] = handle;
  snprintf(api->path[library], sizeof api->path[library], "%s", path);
  return true;
}

/* One that only the loader finds must be opened to know. */
static bool path_is_there(cu_api *api, cu_library library, const char *path) {
  if (!strchr(path, '/')) return open_path(api, library, path);
  bool there = !access(path, R_OK);
  if (there) snprintf(api->path[library], sizeof api->path[library], "%s", path);
  return there;
}

/* Asks for each file in a folder, which may be a pattern. */
static bool try_folder(cu_api *api, cu_library library, const char *folder, try_fn fn) {
  char file[64], path[512];
  const char *files = libraries[library].files;
  bool found = false;
  while (!found && next_word(&files, file, sizeof file)) {
    glob_t matches;
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", file);
    if (!strpbrk(folder, "*?["))
      found = fn(api, library, path);
    else if (!glob(path, 0, NULL, &matches)) {
      for (size_t i = 0; i < matches.gl_pathc && !found; i++) found = fn(api, library, matches.gl_pathv[i]);
      globfree(&matches);
    }
  }
  return found;
}

static bool try_all(cu_api *api, cu_library library, try_fn fn) {
  const char *lists[] = {api->folders ? api->folders : "", places};
  char folder[256];
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    for (const char *list = lists[i]; next_word(&list, folder, sizeof folder);)
      if (try_folder(api, library, folder, fn)) return true;
  return false;
}

bool cu_api_there(cu_api *api, cu_library library) {
  return api->handle[library] || try_all(api, library, path_is_there);
}

/* ISO C has no conversion from object to function pointer; POSIX guarantees that the bits are the same. */
static bool fill(cu_api *api, cu_library library, char *why, size_t size) {
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    if (functions[i].library != library) continue;
    void *p = dlsym(api->handle[library], functions[i].name);
    memcpy((char *)api + functions[i].at, &p, sizeof p);
    if (p) continue;
    snprintf(why, size, "%s is too old: %s lacks %s", libraries[library].doc, api->path[library],
             functions[i].name);
    return false;
  }
  return true;
}

static void close_one(cu_api *api, cu_library library) {
  if (api->handle[library]) dlclose(api->handle[library]);
  api->handle[library] = NULL;
}

const char *cu_api_file(cu_library library, char *text, size_t size) {
  const char *files = libraries[library].files;
  (void)next_word(&files, text, size);
  return text;
}

bool cu_api_open(cu_api *api, cu_library library, char *why, size_t size) {
  char file[64];
  if (api->filled[library]) return true;
  if (!api->handle[library] && !try_all(api, library, open_path)) {
    cu_api_file(library, file, sizeof file);
    (void)dlerror();
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    const char *said = handle ? NULL : dlerror();
    if (handle) dlclose(handle);
    snprintf(why, size, "%s is not there: %s", libraries[library].doc, said ? said : file);
    return false;
  }
  if (fill(api, library, why, size)) return api->filled[library] = true;
  close_one(api, library);
  return false;
}

void cu_api_close(cu_api *api) {
  for (int i = CU_LIBRARY_COUNT; i-- > 0;) {
    close_one(api, (cu_library)i);
    api->filled[i] = false;
  }
}

const char *cu_error_text(const cu_api *api, CUresult r, char *text, size_t size) {
  const char *name = NULL;
  if (api->cuGetErrorName && !api->cuGetErrorName(r, &name) && name)
    snprintf(text, size, "%s (%d)", name, (int)r);
  else
    snprintf(text, size, "error %d", (int)r);
  return text;
}
