/* What the environment says to the executables. libkiln itself never reads it. */
#ifndef KILN_BIN_ENV_H
#define KILN_BIN_ENV_H
#include "bindings/c/kiln.h"
#include "core/debug.h"
#include "core/tuning_env.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void env_warn_of_topics(const char *program, const char *text) {
  static const char *const topics[] = {
#define X(e, name, doc) name,
      KN_DEBUG_TOPICS(X)
#undef X
  };
  while (*text) {
    size_t n = strcspn(text, ","), i = 0;
    while (i < KN_DEBUG_COUNT && (n != strlen(topics[i]) || strncmp(text, topics[i], n))) i++;
    if (n && i == KN_DEBUG_COUNT) {
      fprintf(stderr, "%s: KILN_DEBUG has no topic '%.*s'; known are", program, (int)n, text);
      for (i = 0; i < KN_DEBUG_COUNT; i++) fprintf(stderr, " %s", topics[i]);
      fputc('\n', stderr);
    }
    text += n + (text[n] == ',');
  }
}

typedef struct env_room { /* what options point to */
  char cache[KN_CACHE_DIR], libraries[KN_LIBRARY_DIRS];
} env_room;

static inline void env_tuning(const char *program, kiln_context_options *o, env_room *room) {
  kn_tuning tuning;
  o->cache = kn_env_cache(room->cache);
  if (!kn_env_tuning(o->cache, &tuning))
    fprintf(stderr, "%s: KILN_TUNE: '%s' is neither 0 nor 1\n", program, getenv("KILN_TUNE"));
  o->tune = tuning == KN_TUNING_FIXED     ? KILN_TUNE_NEVER
            : tuning == KN_TUNING_MEASURE ? KILN_TUNE_ALWAYS
                                          : KILN_TUNE_PREPARED;
}

/* KILN_BACKEND, KILN_DEBUG, KILN_NUM_THREADS, KILN_TUNE, KILN_CACHE and KILN_CUDA_LIBRARIES into the options;
 * what is not understood is said on standard error. `room` lives as long as the options. */
static inline void env_options(const char *program, kiln_context_options *o, env_room *room) {
  const char *debug = getenv("KILN_DEBUG"), *threads = getenv("KILN_NUM_THREADS");
  o->backend = getenv("KILN_BACKEND");
  o->debug = debug;
  env_tuning(program, o, room);
  o->libraries = kn_env_libraries(room->libraries);
  if (debug) env_warn_of_topics(program, debug);
  if (!threads || !*threads) return;
  char *end;
  errno = 0;
  long n = strtol(threads, &end, 10);
  if (errno || *end || n < 1 || n > 4096)
    fprintf(stderr, "%s: KILN_NUM_THREADS: '%s' is not a number of threads\n", program, threads);
  else
    o->threads = (int)n;
}

/* KILN_CHECK=1 */
static inline int env_check(void) {
  const char *text = getenv("KILN_CHECK");
  return text && *text && strcmp(text, "0") != 0;
}

#endif
