/* Which nodes of a graph share a kernel on cuda, how many kernels that makes, and that it changes no bit: on
 * the software device. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/device.h"
#include "spec/chain_text.h"
#include "backends/cuda/kernel.h"
#include "spec/cuda/nvrtc.h"
#include "spec/cuda/software.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static suite_lines lines;

/* A context that has opened the device and logs what runs. */
static kn_context *open_context(void) {
  kn_context *c = software_context();
  kn_tensor *x = moved(c, number(c, KN_F32, 1), KN_CUDA);
  kn_tensor_release(x);
  c->debug |= 1u << KN_DEBUG_EXEC;
  suite_keep_lines(c, &lines);
  return c;
}

static void close_context(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* "a+b c d+e": the nodes of the last run by what ran together, views left out. A capture that wants more room
 * begins again. */
static void read_lines(char *out, size_t size) {
  size_t n = 0;
  char first[64] = "";
  out[0] = 0;
  for (char *at = lines.text, *end; (end = strchr(at, '\n')); at = end + 1) {
    char by[32], names[128], how[64], value[64];
    *end = 0;
    if (sscanf(at, "exec %31s %127s %63s %63s", by, names, how, value) != 4 || strcmp(by, "cuda")) continue;
    if (!strcmp(names, "one") || !strcmp(how, "view")) continue;
    if (!strcmp(value, first)) n = 0;
    if (!n) strcpy(first, value);
    n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", names);
  }
}

static void fill_with(kn_tensor *t, int64_t first) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) set_element(t, k, (double)((k * 7 + first) % 23) / 8 - 1);
}

typedef struct decision {
  const char
      *types; /* of inputs: "64,96 96 - h8,4": sizes, "-" for a number, "h": of bfloat16, else float32 */
  const char *text; /* of the graph's nodes */
  const char *runs;
  int kernels; /* of a run */
} decision;

/* Attention of bfloat16 as programs have it: in float32 between casts. */
#define WIDEN                                                                                                \
  "  %n = const 0.375\n  %f: float32[] = to_tensor %n\n  %l = const -inf\n  %low: float32[] = to_tensor "    \
  "%l\n"                                                                                                     \
  "  %q = cast %a {dtype = \"float32\"}\n  %k = cast %b {dtype = \"float32\"}\n  %v = cast %c {dtype = "     \
  "\"float32\"}\n"
#define SCORES "  %e = mul %q, %f\n  %t = transpose %k {dim0 = -2, dim1 = -1}\n  %s = matmul %e, %t\n"
#define NARROW "  %o = matmul %w, %v\n  %r = cast %o {dtype = \"bfloat16\"}\n"
#define HEADS "h2,4,16,32 h2,4,24,32 h2,4,24,16"

static kn_tensor *input_of(kn_context *c, const char *sizes, int64_t first) {
  const bool half = *sizes == 'h';
  kn_type t = {.dtype = half ? KN_BF16 : KN_F32};
  kn_tensor *x;
  for (const char *at = sizes + half; *at && *at != ' ' && *at != '-';
       at += strcspn(at, ", "), at += *at == ',')
    t.dims[t.rank++] = atoi(at);
  OK(c, kn_tensor_new(c, &t, &x));
  fill_with(x, first);
  return moved(c, x, KN_CUDA);
}

static void check_decision(kn_context *c, const decision *d) {
  enum { MOST = 6 };
  const double near = d->types[0] == 'h' ? 0.02 : 0; /* rounded more often, or less */
  char text[4000], got[2000];
  kn_rvalue in[MOST] = {{0}}, out[2][4];
  const kn_target *const *targets;
  kn_session *s[2];
  kn_graph *g;
  size_t n = 0;
  uint32_t nin = 0, nout = 1;
  n += (size_t)sprintf(text, "graph g(");
  for (const char *at = d->types; *at; at += strcspn(at, " "), at += *at == ' ') {
    const int half = *at == 'h', size = *at == '-' ? 0 : (int)strcspn(at, " ") - half;
    n += (size_t)sprintf(text + n, "%s%%%c: %s[%.*s]@cuda", nin ? ", " : "", 'a' + (int)nin,
                         half ? "bfloat16" : "float32", size, at + half);
    in[nin].tensor = input_of(c, at, 3 * nin);
    nin++;
  }
  sprintf(text + n, ") {\n%s}\n", d->text);
  for (const char *at = strstr(d->text, "return"); *at; at++) nout += *at == ',';
  int count;
  OK(c, kn_registry_targets(c, &targets, &count));
  g = parse(c, text);
  for (int i = 0; i < 2; i++) OK(c, kn_session_new(c, g, targets, count, &s[i]));
  kn_session_observe(s[1], watch, NULL);
  suite_keep_lines(c, &lines);
  OK(kn_session_context(s[0]), kn_session_run(s[0], in, nin, out[0], nout));
  read_lines(got, sizeof got);
  ck_assert_msg(!strcmp(got, d->runs), "\"%s\" instead of \"%s\":\n%s", got, d->runs, text);
  OK(kn_session_context(s[1]), kn_session_run(s[1], in, nin, out[1], nout));
  for (uint32_t i = 0; i < nout; i++) {
    kn_tensor *x = moved(c, out[0][i].tensor, KN_CPU), *y = moved(c, out[1][i].tensor, KN_CPU);
    for (int64_t k = 0; k < kn_tensor_numel(y); k++)
      ck_assert_msg(fabs(element(x, k) - element(y, k)) <= near,
                    "result %d, element %d: %.9g instead of %.9g:\n%s", (int)i + 1, (int)k + 1, element(x, k),
                    element(y, k), text);
    kn_tensor_release(x), kn_tensor_release(y);
  }
  for (int i = 0; i < 2; i++) { /* the second run is warm */
    const sim_counts before = software_counts();
    OK(kn_session_context(s[0]), kn_session_run(s[0], in, nin, out[0], nout));
    for (uint32_t k = 0; k < nout; k++) kn_tensor_release(moved(c, out[0][k].tensor, KN_CPU));
    const sim_counts now = software_counts();
    const int kernels =
        (int)(now.kernels - before.kernels - (now.launches - before.launches)); /* of graphs */
    ck_assert_msg(!i || !before.kernels || kernels == d->kernels, "%d kernels instead of %d:\n%s", kernels,
                  d->kernels, text);
  }
  for (int i = 0; i < 2; i++) kn_session_free(s[i]);
  for (uint32_t i = 0; i < nin; i++) kn_tensor_release(in[i].tensor);
  kn_graph_release(g);
}

/* Sizes are such that the device is kept as busy as by the nodes alone. */
static const decision decisions[] = {
    {"512,96 96 96",
     "  %m = mean %a {dim = {-1}, keepdim = true}\n  %d = sub %a, %m\n  %s = mul %d, %d\n"
     "  %v = mean %s {dim = {-1}, keepdim = true}\n  %e = add %v, %v\n  %r = rsqrt %e\n  %y = mul %d, %r\n"
     "  %z = mul %y, %b\n  %w = add %z, %c\n  return %w\n",
     "mean+sub+mul+mean+add+rsqrt+mul+mul+add", 1},
    {"512,96 96", "  %x = add %a, %b\n  %p = mul %x, %x\n  %e = erf %p\n  %o = mul %e, %x\n  return %o, %x\n",
     "add+mul+erf+mul", 1},
    {"512,96 96 -", "  %x = mul %a, %c\n  %y = add %x, %b\n  %z = softmax %y {dim = -1}\n  return %z\n",
     "mul+add+softmax", 1},
    /* a loss: rows of everything, cut for the whole device */
    {"512,960 512,960", "  %d = sub %a, %b\n  %s = mul %d, %d\n  %m = mean %s\n  return %m\n", "sub+mul+mean",
     2},
    /* what is stored beside it would leave most of the device idle */
    {"512,960 512,960", "  %d = sub %a, %b\n  %s = mul %d, %d\n  %m = mean %s\n  return %m, %s\n",
     "sub+mul mean", 3},
    /* sums of columns, of which nobody sees the elements; and of which somebody does */
    {"4096,96 96", "  %x = mul %a, %b\n  %s = sum_to %x, %b\n  %t = neg %s\n  return %t\n", "mul+sum_to+neg",
     2},
    {"4096,96 96", "  %x = mul %a, %b\n  %n = neg %x\n  %s = sum_to %n, %b\n  return %s, %n\n",
     "mul+neg sum_to", 3},
    /* rows in another order, views of what is made */
    {"64,8,96 8", "  %m = amax %a {dim = {1, 3}}\n  %n = sub %m, %b\n  return %n\n", "amax+sub", 1},
    {"512,96",
     "  %s = sum %a {dim = {-1}}\n  %u = unsqueeze %s {dim = 2}\n  %w = expand_as %u, %a\n  %d = div %a, %w\n"
     "  return %d\n",
     "sum+div", 1},
    /* a transposed view of what is made is read from memory */
    {"96,96",
     "  %x = neg %a\n  %y = abs %x\n  %t = transpose %y {dim0 = 1, dim1 = 2}\n  %z = add %t, %a\n"
     "  return %z\n",
     "neg+abs add", 2},
    /* two parameters of one size, and their states */
    {"64,9 64,9 64,9 64,9 64,9 64,9",
     "  %m = mul %a, %b\n  %n = add %m, %c\n  %o = sub %a, %n\n  %p = mul %d, %e\n  %q = add %p, %f\n"
     "  %r = sub %d, %q\n  return %n, %o, %q, %r\n",
     "mul+add+sub+mul+add+sub", 1},
    {"64,9 64,9", "  %n = full_like %a {value = 2}\n  %m = mul %n, %b\n  %o = add %m, %a\n  return %o\n",
     "full_like+mul+add", 1},
    /* products and convolutions with what follows them, in one call */
    {"8,5,32 32,24 24", "  %x = matmul %a, %b\n  %y = add %x, %c\n  %z = relu %y\n  return %z\n",
     "matmul+add+relu", 0},
    {"8,32 32,24", "  %x = matmul %a, %b\n  %z = relu %x\n  return %z\n", "matmul+relu", 0},
    {"8,32 32,24 24", "  %x = matmul %a, %b\n  %y = add %x, %c\n  %z = relu %y\n  return %z, %x\n",
     "matmul add+relu", 1},
    {"8,32 32,24 24",
     "  %x = matmul %a, %b\n  %y = add %c, %x\n  %p = mul %y, %y\n  %z = erf %p\n  return %z, %y\n",
     "matmul+add mul+erf", 1},
    /* a bias that does not lie side by side */
    {"8,32 32,24 1 24",
     "  %e = expand_as %c, %d\n  %x = matmul %a, %b\n  %y = add %x, %e\n  %z = relu %y\n  return %z\n",
     "matmul+add+relu", 1},
    /* attention: as it is, causal, with a mask; with keys of all heads; in halves throughout */
    {HEADS, WIDEN SCORES "  %w = softmax %s {dim = -1}\n" NARROW "  return %r\n",
     "cast+cast+cast+mul+matmul+softmax+matmul+cast", 0},
    {HEADS,
     WIDEN SCORES "  %x = select %s {dim = 1, index = 1}\n  %y = select %x {dim = 1, index = 1}\n"
                  "  %z = full_like %y {value = 1}\n  %u = tril %z\n  %m = cast %u {dtype = \"bool\"}\n"
                  "  %p = where %m, %s, %low\n  %w = softmax %p {dim = -1}\n" NARROW "  return %r\n",
     "cast+cast+cast+mul+matmul+full_like+tril+cast+where+softmax+matmul+cast", 0},
    {HEADS " h16,24",
     WIDEN "  %m = cast %d {dtype = \"float32\"}\n" SCORES
           "  %p = add %s, %m\n  %w = softmax %p {dim = -1}\n" NARROW "  return %r\n",
     "cast+cast+cast+cast+mul+matmul+add+softmax+matmul+cast", 0},
    {"h2,4,16,32 h2,1,24,32 h2,1,24,16", WIDEN SCORES "  %w = softmax %s {dim = -1}\n" NARROW "  return %r\n",
     "cast+cast+cast+mul+matmul+softmax+matmul+cast", 0},
    {"h2,4,16,32 h2,4,32,24 h2,4,24,16",
     "  %s = matmul %a, %b\n  %w = softmax %s {dim = -1}\n  %r = matmul %w, %c\n  return %r\n",
     "matmul+softmax+matmul", 1},
    /* somebody reads the weights; a depth that cuDNN has not; a mask of booleans */
    {HEADS, WIDEN SCORES "  %w = softmax %s {dim = -1}\n" NARROW "  return %r, %w\n",
     "cast cast cast mul matmul softmax matmul cast", 6},
    {"h2,4,16,12 h2,4,24,12 h2,4,24,16", WIDEN SCORES "  %w = softmax %s {dim = -1}\n" NARROW "  return %r\n",
     "cast cast cast mul matmul softmax matmul cast", 6},
    {"2,3,8,8 4,3,3,3 4 2,4,8,8",
     "  %x = conv2d %a, %b, %c {padding = {1, 1}}\n  %y = add %x, %d\n  %z = relu %y\n  return %z\n",
     "conv2d+add+relu", 0},
};

/* ---- sources, for the real NVRTC, which does not get on with its double: this program once more has it ----
 */

static const char asked[] = "SPEC_SOURCES";
enum { ABSENT = 77 };
static pid_t compiler;
static int sources;

static char *next_text(void) {
  size_t n;
  char *text = fread(&n, sizeof n, 1, stdin) == 1 ? calloc(1, n + 1) : NULL;
  return text && fread(text, 1, n, stdin) == n ? text : NULL;
}

static void compile_all(void) {
  cu_api api;
  if (!nvrtc_open(&api)) _exit(ABSENT);
  for (char *key, *text; (key = next_text()) && (text = next_text()); free(key), free(text))
    nvrtc_check(&api, key, text);
  cu_api_close(&api);
}

static void begin_compiler(void) {
  int ends[2];
  ck_assert_int_eq(pipe(ends), 0);
  compiler = fork();
  if (!compiler) {
    dup2(ends[0], 0), dup2(2, 1);
    close(ends[0]), close(ends[1]);
    setenv(asked, "1", 1);
    execl("/proc/self/exe", "test_cuda_fused", (char *)NULL);
    _exit(1);
  }
  close(ends[0]);
  signal(SIGPIPE, SIG_IGN); /* where there is no NVRTC */
  sources = ends[1];
}

static void send_text(const char *text) {
  const size_t n = strlen(text);
  if (write(sources, &n, sizeof n) == sizeof n) (void)!write(sources, text, n);
}

static void send_source(void *ud, const char *key, const char *source) {
  (void)ud;
  send_text(key), send_text(source);
}

START_TEST(what_shares_a_kernel) {
  if (getenv(asked)) {
    compile_all();
    return;
  }
  begin_compiler();
  kn_context *c = open_context();
  cu_device *d;
  OK(c, cu_device_of(c, &d));
  cu_kernels_watch(d, send_source, NULL);
  for (size_t i = 0; i < COUNT(decisions); i++) check_decision(c, &decisions[i]);
  close_context(c);
  close(sources);
}
END_TEST

START_TEST(nothing_is_spilled) {
  int how;
  if (getenv(asked)) return;
  ck_assert_int_eq(waitpid(compiler, &how, 0), compiler);
  if (WEXITSTATUS(how) == ABSENT && suite_skips("there is no NVRTC")) return;
  ck_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}
END_TEST

/* Elements, rows and sums, to the bit what the nodes alone give. */
START_TEST(random_chains) {
  static const int64_t sizes[][3] = {{2, 3, 5}, {1, 1, 1}, {3, 1, 700}, {1, 40, 33}, {0, 2, 3}, {5, 8, 64}};
  if (getenv(asked)) return;
  kn_context *c = open_context();
  const kn_target *const *targets;
  maker m = {.device = KN_CUDA};
  int n;
  c->debug = 0;
  OK(c, kn_registry_targets(c, &targets, &n));
  for (uint64_t seed = 1; seed <= 12; seed++) {
    const int64_t *at = sizes[seed % COUNT(sizes)];
    random_text(&m, seed, dtype_for(seed), seed % 2, 10 + (int)(seed % 40));
    run_both_by(c, &m, targets, targets, n, true, dtype_for(seed), at[0], at[1], at[2]);
  }
  close_context(c);
}
END_TEST

SUITE("cuda_fused", what_shares_a_kernel, random_chains, nothing_is_spilled)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_fused", no_headers)
#endif
