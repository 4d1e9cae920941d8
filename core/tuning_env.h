/* What KILN_TUNE, KILN_CACHE and KILN_CUDA_LIBRARIES say, for executables and the Lua module; libkiln itself
 * never reads the environment, so this is a header that no file of it includes. */
#ifndef KN_TUNING_ENV_H
#define KN_TUNING_ENV_H
#include "core/context.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KN_CACHE_DIR = 960, KN_LIBRARY_DIRS = 2048 };

/* The folder for caches: KILN_CACHE, $XDG_CACHE_HOME/kiln or ~/.cache/kiln; NULL where there is no home. */
static inline const char *kn_env_cache(char room[KN_CACHE_DIR]) {
  static const struct {
    const char *name, *below;
  } places[] = {{"KILN_CACHE", ""}, {"XDG_CACHE_HOME", "/kiln"}, {"HOME", "/.cache/kiln"}};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    const char *text = getenv(places[i].name);
    if (!text || !*text || (i && *text != '/')) continue;
    int n = snprintf(room, KN_CACHE_DIR, "%s%s", text, places[i].below);
    return n < KN_CACHE_DIR ? room : NULL;
  }
  return NULL;
}

/* Folders for CUDA's libraries: KILN_CUDA_LIBRARIES, where the loader looks (an empty one), a toolkit's and
 * those of Python's packages that the environment names. */
static inline const char *kn_env_libraries(char room[KN_LIBRARY_DIRS]) {
  static const struct {
    const char *name, *below;
  } places[] = {{"KILN_CUDA_LIBRARIES", ":"},
                {"CUDA_PATH", "/lib64:"},
                {"CUDA_HOME", "/lib64:"},
                {"VIRTUAL_ENV", "/lib/python3*/site-packages/nvidia/*/lib:"},
                {"CONDA_PREFIX", "/lib/python3*/site-packages/nvidia/*/lib:"}};
  size_t at = 0;
  room[0] = 0;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    const char *text = getenv(places[i].name);
    if (!text || !*text) text = NULL;
    int n = snprintf(room + at, KN_LIBRARY_DIRS - at, "%s%s%s", text ? text : "", text ? places[i].below : "",
                     i ? "" : ":");
    if (n < 0 || (size_t)n >= KN_LIBRARY_DIRS - at)
      room[at] = 0; /* no room: left out */
    else
      at += (size_t)n;
  }
  return room;
}

/* KILN_TUNE: 0 never, 1 whenever a plan is made, else when one is prepared and can be remembered. False where
 * it is something else. */
static inline bool kn_env_tuning(const char *cache, kn_tuning *out) {
  const char *text = getenv("KILN_TUNE");
  *out = cache ? KN_TUNING_KNOWN : KN_TUNING_FIXED;
  if (!text || !*text) return true;
  if (!strcmp(text, "1")) *out = KN_TUNING_MEASURE;
  if (!strcmp(text, "0")) *out = KN_TUNING_FIXED;
  return !strcmp(text, "0") || !strcmp(text, "1");
}

#endif
