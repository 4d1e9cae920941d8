/* Sources that suites have had compiled for the software device (SIM_SOURCES) are compiled by the real NVRTC
 * for sm_80, sm_90 and sm_100, and must keep everything in registers; KILN_SWEEP=whole: all of them. Runs
 * behind all other suites. What was compiled once is written down and not compiled again, as long as compiler
 * and source are the same. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "spec/cuda/nvrtc.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 2, MOST = 1 << 16 };

typedef struct sources {
  char folder[1024], known_path[1100];
  char *known;      /* lines of "HASH-sm_90 with 13.0" that compiled */
  char (*name)[32]; /* HASH.cu */
  int n, major, minor;
  cu_api api;
} sources;

static char *contents(const char *path) {
  char *text = calloc(1, 1);
  size_t n = 0;
  FILE *f = fopen(path, "r");
  for (char part[4096]; f;) {
    const size_t got = fread(part, 1, sizeof part, f);
    if (!got) break;
    text = realloc(text, n + got + 1);
    memcpy(text + n, part, got);
    text[n += got] = 0;
  }
  if (f) fclose(f);
  return text;
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

static void open_sources(sources *s) {
  const char *build = getenv("KILN_BUILD");
  snprintf(s->folder, sizeof s->folder, "%s/spec/cuda/sources", build ? build : "build");
  snprintf(s->known_path, sizeof s->known_path, "%s/spec/cuda/compiled.txt", build ? build : "build");
  s->name = calloc(MOST, sizeof *s->name);
  DIR *d = opendir(s->folder);
  for (const struct dirent *e; d && (e = readdir(d));) {
    const size_t n = strlen(e->d_name);
    if (n != 19 || strcmp(e->d_name + 16, ".cu")) continue;
    ck_assert_int_lt(s->n, MOST);
    strcpy(s->name[s->n++], e->d_name);
  }
  if (d) closedir(d);
  qsort(s->name, (size_t)s->n, sizeof *s->name, by_name);
  s->known = contents(s->known_path);
}

/* Chains are many and alike, and spec/test_cuda_chains.c has each formula and layout: of them only some are
 * compiled for one kind of device, of all others each for all. */
static bool is_meant(const char *name, const char *source, int arch) {
  const char *sweep = getenv("KILN_SWEEP");
  const unsigned long long hash = strtoull(name, NULL, 16);
  const bool whole = sweep && !strcmp(sweep, "whole"),
             chain = strstr(source, ", chain)(chain_arguments a)") != NULL;
  return whole || !chain || (hash % 8 == 0 && nvrtc_archs[hash / 8 % 3] == arch);
}

/* In a process of its own: no assertions. */
static bool compiles(const sources *s, const char *name, const char *source, int arch) {
  char line[64];
  bool fine;
  snprintf(line, sizeof line, "%.16s-sm_%d with %d.%d\n", name, arch, s->major, s->minor);
  if (strstr(s->known, line)) return true;
  char *log = nvrtc_log(&s->api, source, arch, &fine);
  fine = fine && strstr(log, "ptxas") && !nvrtc_any(log, "bytes spill");
  if (!fine) {
    printf("%s/%s for sm_%d: %.900s\n", s->folder, name, arch, log);
  } else {
    const int f = open(s->known_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (f < 0 || write(f, line, strlen(line)) < 0) printf("%s cannot be written\n", s->known_path);
    if (f >= 0) close(f);
  }
  free(log);
  return fine;
}

/* Every so manieth: how many fail. */
static int compile_part(sources *s, int first) {
  int failed = 0;
  for (int i = first; i < s->n; i += PROCESSES) {
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", s->folder, s->name[i]);
    char *source = contents(path);
    for (size_t k = 0; k < sizeof nvrtc_archs / sizeof *nvrtc_archs; k++)
      failed +=
          is_meant(s->name[i], source, nvrtc_archs[k]) && !compiles(s, s->name[i], source, nvrtc_archs[k]);
    free(source);
  }
  fflush(stdout);
  return failed;
}

START_TEST(all_compile) {
  static sources s;
  pid_t child[PROCESSES];
  int failed = 0;
  if (getenv("KILN_SANITIZED") && suite_skips("sources are those of the plain build")) return;
  if (!nvrtc_open(&s.api) && suite_skips("there is no NVRTC")) return;
  open_sources(&s);
  if (!s.n && suite_skips("no suite has left a source: ./dev test cuda_sweep cuda_sources")) return;
  ck_assert_int_eq(s.api.nvrtcVersion(&s.major, &s.minor), 0);
  fflush(stdout);
  for (int i = 0; i < PROCESSES; i++)
    if (!(child[i] = fork())) _exit(compile_part(&s, i) > 0);
  for (int i = 0; i < PROCESSES; i++) {
    int status = 1;
    ck_assert(child[i] > 0 && waitpid(child[i], &status, 0) == child[i]);
    failed += status != 0;
  }
  printf("%d sources\n", s.n);
  ck_assert_msg(!failed, "some sources do not compile, or spill");
  cu_api_close(&s.api);
  free(s.known), free(s.name);
}
END_TEST

SUITE("cuda_sources", all_compile)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_sources", no_headers)
#endif
