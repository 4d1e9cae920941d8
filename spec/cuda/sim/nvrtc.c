/* libnvrtc.so.13 of the software device: what follows the prelude is compiled by tcc, or by the C compiler
 * where there is no tcc, behind emu.h; the "cubin" is a shared library. For each kernel it holds, beside the
 * kernel: how many bytes its arguments have, and how it is called with their addresses. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <nvrtc.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
extern char **environ;

struct _nvrtcProgram {
  char *source, *log, *image;
  size_t bytes;
};

static const int archs[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

API nvrtcResult nvrtcVersion(int *major, int *minor) {
  *major = 13, *minor = 0;
  return NVRTC_SUCCESS;
}
API const char *nvrtcGetErrorString(nvrtcResult r) {
  return r == NVRTC_SUCCESS             ? "NVRTC_SUCCESS"
         : r == NVRTC_ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION"
                                        : "NVRTC_ERROR";
}
API nvrtcResult nvrtcGetNumSupportedArchs(int *n) {
  *n = (int)(sizeof archs / sizeof *archs);
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetSupportedArchs(int *out) {
  memcpy(out, archs, sizeof archs);
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcCreateProgram(nvrtcProgram *out, const char *source, const char *name, int headers,
                                   const char *const *text, const char *const *names) {
  (void)name, (void)text, (void)names;
  if (headers) return NVRTC_ERROR_INVALID_INPUT;
  nvrtcProgram p = calloc(1, sizeof *p);
  if (!p || !(p->source = strdup(source))) return NVRTC_ERROR_OUT_OF_MEMORY;
  *out = p;
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcDestroyProgram(nvrtcProgram *p) {
  free((*p)->source), free((*p)->log), free((*p)->image), free(*p);
  *p = NULL;
  return NVRTC_SUCCESS;
}

/* ---- the C that is compiled ---- */

/* The end of an argument's type: where its name begins. */
static const char *name_of(const char *from, const char *to) {
  while (to > from && (to[-1] == ' ' || to[-1] == '\n')) to--;
  while (to > from && (to[-1] == '_' || (to[-1] | 32) >= 'a' ? (to[-1] | 32) <= 'z' || to[-1] == '_'
                                                             : to[-1] >= '0' && to[-1] <= '9'))
    to--;
  return to;
}

/* Behind the kernel NAME(arguments): emu_bytes_NAME and emu_call_NAME. */
static void describe(FILE *f, const char *name, size_t length, const char *arguments) {
  const char *end = arguments;
  for (int depth = 1; depth; end++) depth += *end == '(' ? 1 : *end == ')' ? -1 : !*end ? -depth : 0;
  end--;
  fprintf(f, "\nconst size_t emu_bytes_%.*s[] = {", (int)length, name);
  for (int pass = 0; pass < 2; pass++) {
    int i = 0;
    for (const char *at = arguments; at < end; i++) {
      const char *to = at;
      while (to < end && *to != ',') to++;
      const char *type_end = name_of(at, to);
      int type = (int)(type_end - at);
      if (pass == 0)
        fprintf(f, "sizeof(%.*s), ", type, at);
      else
        fprintf(f, "%s*(%.*s *)a[%d]", i ? ", " : "", type, at, i);
      at = to + 1;
    }
    if (pass == 0)
      fprintf(f, "0};\nvoid emu_call_%.*s(void **a) { (void)a; emu_kernel_%.*s(", (int)length, name,
              (int)length, name);
  }
  fprintf(f, "); }\n");
}

static void write_source(FILE *f, const char *source) {
  static const char last[] = "cudaGraphSetConditional(unsigned long long handle, unsigned int value);\n";
  const char *body = strstr(source, last);
  body = body ? body + sizeof last - 1 : source;
  /* Threads that wait for each other need stacks of their own. */
  int waits = strstr(body, "SYNC(") || strstr(body, "warp_");
  fprintf(f, "#include \"%s/emu.h\"\n#line 1 \"kernels\"\n%s\nconst int emu_waits = %d;\n", SIM_HOME, body,
          waits);
  for (const char *k = body; (k = strstr(k, "KERNEL(")); k++) {
    const char *line = k;
    while (line > body && line[-1] != '\n') line--;
    if (*line == '#') continue;
    const char *name = strchr(k, ',') + 1, *close = strchr(name, ')'),
               *open = close ? strchr(close, '(') : NULL;
    while (*name == ' ') name++;
    if (open) describe(f, name, (size_t)(close - name), open + 1);
  }
}

/* ---- compiling ---- */

/* For the real compiler, under its hash; whole when it is seen. */
static void leave_source(const char *source) {
  const char *folder = getenv("SIM_SOURCES");
  unsigned long long hash = 0xcbf29ce484222325ull;
  char path[600], unfinished[640];
  if (!folder) return;
  for (const char *c = source; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3ull;
  (void)mkdir(folder, 0777);
  snprintf(path, sizeof path, "%s/%016llx.cu", folder, hash);
  snprintf(unfinished, sizeof unfinished, "%s.%ld", path, (long)getpid());
  FILE *f = access(path, F_OK) ? fopen(unfinished, "w") : NULL;
  if (!f) return;
  fputs(source, f);
  fclose(f);
  rename(unfinished, path);
}

static char *contents(const char *path, size_t *bytes) {
  FILE *f = fopen(path, "rb");
  char *s = NULL;
  *bytes = 0;
  if (!f) return NULL;
  if (!fseek(f, 0, SEEK_END)) {
    long n = ftell(f);
    rewind(f);
    s = n >= 0 ? malloc((size_t)n + 1) : NULL;
    if (s) *bytes = fread(s, 1, (size_t)n, f), s[*bytes] = 0;
  }
  fclose(f);
  return s;
}

static int run(const char *log, char **argv) {
  posix_spawn_file_actions_t files;
  pid_t pid;
  int status = 1;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 2, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&files, 2, 1);
  if (posix_spawnp(&pid, argv[0], &files, NULL, argv, environ) || waitpid(pid, &status, 0) < 0) status = 127;
  posix_spawn_file_actions_destroy(&files);
  return status;
}

API nvrtcResult nvrtcCompileProgram(nvrtcProgram p, int n, const char *const *options) {
  (void)n, (void)options;
  const char *temporary = getenv("TMPDIR"), *chosen = getenv("SIM_CC");
  char dir[256], c[300], so[300], log[300];
  snprintf(dir, sizeof dir, "%s/kiln-sim-XXXXXX",
           temporary && *temporary ? temporary : "/tmp"); /* mkdtemp's pattern */
  if (!mkdtemp(dir)) return NVRTC_ERROR_INTERNAL_ERROR;
  snprintf(c, sizeof c, "%s/k.c", dir);
  snprintf(so, sizeof so, "%s/k.so", dir);
  snprintf(log, sizeof log, "%s/log", dir);
  FILE *f = fopen(c, "w");
  if (!f) return NVRTC_ERROR_INTERNAL_ERROR;
  write_source(f, p->source);
  fclose(f);
  char *tcc[] = {"tcc", "-w", "-shared", "-o", so, c, "-lm", NULL};
  char *cc[] = {(char *)(chosen ? chosen : "cc"),
                "-std=gnu11",
                "-O1",
                "-ffp-contract=off",
                "-w",
                "-shared",
                "-fPIC",
                "-o",
                so,
                c,
                "-lm",
                NULL};
  int failed = chosen ? run(log, cc) : run(log, tcc);
  if (failed && !chosen && WEXITSTATUS(failed) == 127) failed = run(log, cc);
  size_t ignored;
  free(p->log), free(p->image);
  p->log = contents(log, &ignored);
  p->image = failed ? NULL : contents(so, &p->bytes);
  if (getenv("SIM_KEEP") == NULL)
    unlink(c), unlink(so), unlink(log), rmdir(dir);
  else
    fprintf(stderr, "sim: kept %s\n", dir);
  if (p->image) leave_source(p->source);
  return p->image ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

API nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t *n) {
  *n = p->bytes + sizeof p->bytes;
  return p->image ? NVRTC_SUCCESS : NVRTC_ERROR_INVALID_PROGRAM;
}
/* Its length first, as cuModuleLoadData is given none. */
API nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char *out) {
  if (!p->image) return NVRTC_ERROR_INVALID_PROGRAM;
  memcpy(out, &p->bytes, sizeof p->bytes);
  memcpy(out + sizeof p->bytes, p->image, p->bytes);
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetPTXSize(nvrtcProgram p, size_t *n) { return nvrtcGetCUBINSize(p, n); }
API nvrtcResult nvrtcGetPTX(nvrtcProgram p, char *out) { return nvrtcGetCUBIN(p, out); }
API nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram p, size_t *n) {
  *n = p->log ? strlen(p->log) + 1 : 1;
  return NVRTC_SUCCESS;
}
API nvrtcResult nvrtcGetProgramLog(nvrtcProgram p, char *out) {
  strcpy(out, p->log ? p->log : "");
  return NVRTC_SUCCESS;
}
