/* Branches and loops in each other as one launch, as golden text: the graphs of spec/cuda/golden with their
 * memory, the program that a piece becomes, and what the driver is then asked for, in two runs. With
 * KILN_GOLDEN=write the texts are written anew: look at what has changed. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "graph/session.h"
#include "graph/whole.h"
#include "graph/writer.h"
#include "spec/cuda/software.h"
#include "spec/exec.h"
#include <dirent.h>
#include <unistd.h>

static char folder[1024], trace[1100];
enum { ROOM = 1 << 16 };

static void read_text(const char *path, long from, char *text) {
  FILE *f = fopen(path, "r");
  ck_assert_msg(f != NULL, "%s cannot be read", path);
  fseek(f, from, SEEK_SET);
  text[fread(text, 1, ROOM - 1, f)] = 0;
  fclose(f);
}

static long bytes_of(const char *path) {
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  fseek(f, 0, SEEK_END);
  long n = ftell(f);
  fclose(f);
  return n;
}

/* Blocks and graphs are numbered in the order in which they are met here: "m1", "g1". */
static void put_trace(kn_writer *o, const char *text) {
  int met[2][64] = {{0}}, n[2] = {0};
  for (const char *at = text; *at; at++) {
    const int kind = *at == 'm' ? 0 : *at == 'g' ? 1 : -1;
    char *end;
    if (kind < 0 || (at > text && strchr(" :>", at[-1]) == NULL) || at[1] < '0' || at[1] > '9') {
      kn_put(o, at, 1);
      continue;
    }
    const int number = (int)strtol(at + 1, &end, 10);
    int k = 0;
    while (k < n[kind] && met[kind][k] != number) k++;
    ck_assert_int_lt(k, 64);
    if (k == n[kind]) met[kind][n[kind]++] = number;
    kn_putf(o, "%c%d", *at, k + 1);
    at = end - 1;
  }
}

/* Of a float tensor or an integer. */
static kn_rvalue input(kn_context *c, const kn_value *v, int run) {
  kn_rvalue out = INT(3 - run);
  if (v->type.kind != KN_V_TENSOR) return out;
  kn_type type = v->type.tensor;
  kn_tensor *host;
  type.device = KN_CPU;
  OK(c, kn_tensor_new(c, &type, &host));
  for (int64_t k = 0; k < kn_tensor_numel(host); k++) set_element(host, k, 0.25 + (double)k * 0.5 + 2 * run);
  OK(c, kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = KN_CUDA}, &host, 1, &out.tensor));
  kn_tensor_release(host);
  return out;
}

static void run_graph(kn_context *c, kn_session *s, const kn_graph *g, int run) {
  kn_rvalue in[4] = {0}, out[4] = {0};
  const uint32_t nin = g->body->nparams, nout = g->body->nyields;
  for (uint32_t i = 0; i < nin; i++) in[i] = input(c, g->body->params[i], run);
  OK(kn_session_context(s), kn_session_run(s, in, nin, out, nout));
  for (uint32_t i = 0; i < nin; i++) kn_tensor_release(in[i].tensor);
  for (uint32_t i = 0; i < nout; i++) kn_tensor_release(out[i].tensor);
}

static void describe(kn_context *c, const char *text, size_t n, kn_writer *o) {
  const kn_target *const *targets;
  suite_lines lines;
  char traced[ROOM];
  int ntargets;
  kn_graph *g;
  kn_session *s;
  kn_context *session;
  const kn_memory *m;
  OK(c, kn_device_memory(c, KN_CUDA, &m)); /* opens it */
  OK(c, kn_graph_parse(c, text, n, &g));
  OK(c, kn_registry_targets(c, &targets, &ntargets));
  OK(c, kn_session_new(c, g, targets, ntargets, &s));
  session = kn_session_context(s);
  suite_keep_lines(session, &lines);
  session->debug = 1u << KN_DEBUG_MEM;
  const long before = bytes_of(trace);
  run_graph(c, s, g, 0);
  session->debug = 0;
  kn_put(o, text, n);
  kn_puts(o, "---- memory\n");
  kn_puts(o, lines.text);
  kn_puts(o, "---- program\n");
  for (uint32_t i = 0; i < s->plans->nwholes; i++) kn_whole_print(s->plans, s->plans->wholes[i], o);
  run_graph(c, s, g, 1);
  kn_puts(o, "---- driver\n");
  read_text(trace, before, traced);
  put_trace(o, traced);
  kn_session_free(s);
  kn_graph_release(g);
}

static void check_file(const char *name) {
  char path[1300], want[ROOM];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  read_text(path, 0, want);
  const char *end = strstr(want, "\n----");
  kn_context *c = software_context();
  kn_writer o = {.heap = c->heap};
  describe(c, want, end ? (size_t)(end + 1 - want) : strlen(want), &o);
  ck_assert(!o.failed);
  const char *golden = getenv("KILN_GOLDEN");
  if (golden && !strcmp(golden, "write")) {
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fwrite(o.p, 1, o.n, f);
    fclose(f);
  } else {
    kn_put(&o, "", 1);
    ck_assert_msg(!strcmp(o.p, want), "%s is not what is made now (KILN_GOLDEN=write writes it):\n%s", name,
                  o.p);
  }
  kn_writer_free(&o);
  kn_registry_close(c);
  suite_done(c);
}

START_TEST(as_they_were) {
  const char *source = getenv("KILN_SOURCE"), *build = getenv("KILN_BUILD");
  int n = 0;
  snprintf(folder, sizeof folder, "%s/spec/cuda/golden", source ? source : ".");
  snprintf(trace, sizeof trace, "%s/spec/cuda/trace-%ld.txt", build ? build : "build", (long)getpid());
  setenv("SIM_TRACE", trace, 1);
  DIR *d = opendir(folder);
  ck_assert_ptr_nonnull(d);
  for (const struct dirent *e; (e = readdir(d));)
    if (strstr(e->d_name, ".txt")) check_file(e->d_name), n++;
  closedir(d);
  unlink(trace);
  ck_assert_int_gt(n, 4);
}
END_TEST

SUITE("cuda_trace", as_they_were)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_trace", no_headers)
#endif
