/* kiln-run: runs a saved graph, from files or numbers to files or the terminal. Made of kiln.h alone, besides
 * the .npy format, so it is also an example of a host; it contains no Lua. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "bindings/bin/env.h"
#include "bindings/c/kiln.h"
#include "bindings/io/npy.h"
#include "bindings/bin/show.h"
#include <stdarg.h>
#include <time.h>

enum { FAILED = 1, USAGE = 2 }; /* exit codes */

static const char usage_text[] =
    "usage: kiln-run MODEL.kiln [options]\n"
    "Runs a graph saved by kiln and prints its outputs.\n"
    "\n"
    "  --entry NAME        which graph, when the file holds several\n"
    "  --input NAME=FILE   an .npy file for a tensor input; for the others a number, true or false\n"
    "  --each NAME         run once for each slice along the first dimension of that input's file; a slice\n"
    "                      keeps that dimension, of size 1, unless the graph's input has one less\n"
    "  --output NAME=FILE  write an output as .npy; with --each those of all runs, stacked along a new "
    "first\n"
    "                      dimension (numbers and booleans as an array of one dimension)\n"
    "  --print             print outputs, also with --output, --time or --profile\n"
    "  --time N            run N times more (with --each: all slices) and print how long one run takes\n"
    "  --profile           show what each line and node takes, in as many more runs as --time says, or 10 "
    "(with\n"
    "                      --each: of the first slice)\n"
    "  --trace FILE        the same, and write each step as JSON for chrome://tracing or Perfetto\n"
    "  --verify            run the test vectors stored in the file, on this machine, and compare; with "
    "--entry "
    "those\n"
    "                      of that graph. Ends with 2 when the file has none\n"
    "  --info              tell what the file holds: versions, producer, notes, inputs, outputs, slots, "
    "functions\n"
    "                      of the host, guards, test vectors; do not run\n"
    "  --upgrade FILE      write it as this version does, with equal weights; do not run\n"
    "  --backend NAME      use this backend, and the reference for what it declines\n"
    "  --device NAME       compute on cpu or cuda, wherever the graph was saved\n"
    "  --help, --version\n"
    "\n"
    "Environment: KILN_BACKEND, KILN_DEBUG (topics, comma-separated: exec shows who computed each node),\n"
    "KILN_CHECK=1 (compare each node with the reference), KILN_NUM_THREADS.\n"
    "Exit code: 0 done, 1 it failed, 2 it was not understood or cannot be done with this file.\n";

static void die(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
static void die(int code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fflush(stdout);
  fputs("kiln-run: ", stderr);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
  exit(code);
}

static void *allocate(void *old, size_t size) {
  void *p = realloc(old, size ? size : 1);
  if (!p) die(FAILED, "out of memory");
  return p;
}

/* As the lua program: warnings are off until the graph itself turns them on. ud: whether they are on. */
static void output(void *ud, kiln_output kind, const char *text, size_t length) {
  bool *warns = ud;
  if (kind == KILN_OUTPUT_WARN && length && *text == '@') {
    if (length == 3 && !memcmp(text, "@on", 3)) *warns = true;
    if (length == 4 && !memcmp(text, "@off", 4)) *warns = false;
    return;
  }
  if (kind == KILN_OUTPUT_WARN && !*warns) return;
  if (kind == KILN_OUTPUT_WARN) fputs("Lua warning: ", stderr);
  fwrite(text, 1, length, kind == KILN_OUTPUT_PRINT ? stdout : stderr);
  if (kind == KILN_OUTPUT_LOG || kind == KILN_OUTPUT_WARN) fputc('\n', stderr);
}

/* ---- arguments ---- */

typedef struct pair { /* NAME=TEXT */
  const char *name, *text;
} pair;

typedef struct arguments {
  const char *model, *entry, *backend, *device, *each, *trace, *upgrade;
  pair *in, *out;
  int nin, nout;
  long time;
  bool print, verify, info, profile;
} arguments;

static void usage_error(const char *what, const char *which) {
  die(USAGE, "%s%s%s; see kiln-run --help", what, which ? " " : "", which ? which : "");
}

static pair read_pair(char *text, const char *option) {
  char *eq = strchr(text, '=');
  if (!eq || eq == text || !eq[1])
    die(USAGE, "%s wants NAME=VALUE, not '%s'; see kiln-run --help", option, text);
  *eq = 0;
  return (pair){text, eq + 1};
}

static long read_count(const char *text, const char *option) {
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  if (errno || *end || n < 1 || n > 100000000)
    die(USAGE, "%s wants a whole number above 0, not '%s'", option, text);
  return n;
}

/* `in` and `out` have room for as many pairs as there are arguments. */
static arguments read_arguments(int argc, char **argv, pair *in, pair *out) {
  arguments a = {.in = in, .out = out};
  for (int i = 1; i < argc; i++) {
    char *o = argv[i];
    bool option = !strncmp(o, "--", 2), takes = true;
    if (!option && a.model) usage_error("there is one model, not also", o);
    if (!option) {
      a.model = o;
      continue;
    }
    if (!strcmp(o, "--help")) fputs(usage_text, stdout), exit(0);
    if (!strcmp(o, "--version")) printf("kiln-run %s\n", kiln_version_text()), exit(0);
    if (!strcmp(o, "--print")) a.print = true, takes = false;
    if (!strcmp(o, "--verify")) a.verify = true, takes = false;
    if (!strcmp(o, "--profile")) a.profile = true, takes = false;
    if (!strcmp(o, "--info")) a.info = true, takes = false;
    if (!takes) continue;
    static const char *const known[] = {"--entry",   "--input",  "--output", "--each",   "--time",
                                        "--backend", "--device", "--trace",  "--upgrade"};
    int k = 0, n = sizeof known / sizeof *known;
    while (k < n && strcmp(o, known[k])) k++;
    if (k == n) usage_error("there is no option", o);
    if (++i == argc) usage_error("a value is missing after", o);
    switch (k) {
    case 0: a.entry = argv[i]; break;
    case 1: a.in[a.nin++] = read_pair(argv[i], o); break;
    case 2: a.out[a.nout++] = read_pair(argv[i], o); break;
    case 3: a.each = argv[i]; break;
    case 4: a.time = read_count(argv[i], o); break;
    case 5: a.backend = argv[i]; break;
    case 6: a.device = argv[i]; break;
    case 7: a.trace = argv[i]; break;
    default: a.upgrade = argv[i];
    }
  }
  if (!a.model) usage_error("which model?", NULL);
  a.profile |= a.trace != NULL;
  return a;
}

/* ---- inputs ---- */

typedef struct input {
  kiln_info info;
  const char *text; /* FILE or number; NULL: not given */
  kn_npy file;      /* TENSOR: shape of the whole file */
  char *elements;
  bool each;
  bool drop;    /* slices lose the first dimension */
  size_t slice; /* bytes */
} input;

typedef struct column { /* one output over all runs, row-major */
  kiln_info info;
  kiln_kind kind; /* as it came */
  kiln_dtype dtype;
  int rank;
  int64_t sizes[KILN_MAX_RANK]; /* of one run */
  char *data;
  size_t bytes, room;
  const char *text; /* STRING: the graph's; the same in every run, as nil is */
  size_t length;
} column;

typedef struct program {
  kiln_context *ctx;
  kiln_graph *graph;
  kiln_session *session;
  input *in;
  column *out;
  int nin, nout;
  int64_t runs; /* slices */
  bool each;
  bool warns; /* the graph turned warnings on */
} program;

static void must(program *p, kiln_status st) {
  if (st != KILN_OK) die(FAILED, "%s", kiln_error(p->ctx));
}

static char *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (!f) die(FAILED, "%s: %s", path, strerror(errno));
  size_t n = 0, room = 1 << 16;
  char *data = allocate(NULL, room);
  for (size_t got; (got = fread(data + n, 1, room - n, f)) > 0;)
    if ((n += got) == room) data = allocate(data, room *= 2);
  if (ferror(f)) die(FAILED, "%s: could not be read", path);
  fclose(f);
  *size = n;
  return data;
}

static void read_npy(input *in) {
  char why[160];
  size_t size;
  char *file = read_file(in->text, &size);
  if (!kn_npy_parse(file, size, &in->file, why, sizeof why)) die(FAILED, "%s: %s", in->text, why);
  in->elements = allocate(NULL, in->file.bytes);
  kn_npy_elements(&in->file, file, in->elements);
  free(file);
}

static kiln_dtype dtype_of(const kn_npy *file) {
  const char *name = kn_dtype_name((kn_dtype)file->type.dtype);
  for (int d = KILN_FLOAT32; d <= KILN_BOOL; d++) {
    const char *other = kiln_dtype_name((kiln_dtype)d);
    if (other && !strcmp(other, name)) return (kiln_dtype)d;
  }
  die(FAILED, "dtype %s is not known", name);
}

/* The run's tensor: the whole file, or slice k of it. */
static void set_tensor(program *p, int i, int64_t k) {
  input *in = &p->in[i];
  int64_t sizes[KILN_MAX_RANK];
  int rank = 0;
  for (int d = 0; d < in->file.type.rank; d++)
    if (d || !in->each)
      sizes[rank++] = in->file.type.dims[d];
    else if (!in->drop)
      sizes[rank++] = 1;
  kiln_value v = {.kind = KILN_TENSOR};
  must(p, kiln_tensor_new(p->ctx, dtype_of(&in->file), rank, sizes, in->elements + (size_t)k * in->slice,
                          &v.tensor));
  kiln_tensor *there;
  must(p, kiln_tensor_to(p->ctx, v.tensor, in->info.device, &there));
  kiln_value_clear(&v);
  v = (kiln_value){.kind = KILN_TENSOR, .tensor = there};
  if (kiln_session_set(p->session, i, &v) != KILN_OK) die(FAILED, "%s", kiln_session_error(p->session));
  kiln_value_clear(&v);
}

/* "3", "3.5", "true" */
static kiln_value read_value(const input *in) {
  kiln_value v = {.kind = KILN_BOOLEAN};
  if (!strcmp(in->text, "true") || !strcmp(in->text, "false")) {
    v.b = in->text[0] == 't';
    return v;
  }
  char *end;
  errno = 0;
  v.kind = KILN_INTEGER;
  v.i = strtoll(in->text, &end, 10);
  if (!errno && !*end) {
    if (in->info.kind == KILN_FLOAT) v.kind = KILN_FLOAT, v.f = (double)v.i;
    return v;
  }
  v.kind = KILN_FLOAT;
  v.f = strtod(in->text, &end);
  if (*end)
    die(USAGE, "input %s is no tensor: it wants a number, true or false, not '%s'", in->info.name, in->text);
  return v;
}

static void split(program *p, input *in) {
  const kn_type *t = &in->file.type;
  if (in->info.kind != KILN_TENSOR) die(USAGE, "--each %s: that input is no tensor", in->info.name);
  if (!t->rank) die(FAILED, "--each %s: %s holds a single number", in->info.name, in->text);
  in->each = p->each = true;
  in->drop = in->info.rank < t->rank;
  p->runs = t->dims[0];
  in->slice = p->runs ? in->file.bytes / (size_t)p->runs : 0;
}

static void prepare_inputs(program *p, const arguments *a) {
  p->nin = kiln_graph_input_count(p->graph);
  p->in = allocate(NULL, sizeof *p->in * (size_t)(p->nin + 1));
  p->runs = 1;
  for (int i = 0; i < p->nin; i++) {
    p->in[i] = (input){.info.size = sizeof(kiln_info)};
    kiln_graph_input(p->graph, i, &p->in[i].info);
  }
  for (int k = 0; k < a->nin; k++) {
    int i = kiln_graph_find_input(p->graph, a->in[k].name);
    if (i < 0) die(USAGE, "%s has no input '%s'; see kiln-run %s --info", a->model, a->in[k].name, a->model);
    p->in[i].text = a->in[k].text;
  }
  for (int i = 0; i < p->nin; i++) {
    input *in = &p->in[i];
    if (!in->text) die(USAGE, "input %s is not given; see kiln-run %s --info", in->info.name, a->model);
    if (in->info.kind == KILN_TENSOR) read_npy(in);
    if (a->each && !strcmp(a->each, in->info.name)) split(p, in);
  }
  if (a->each && !p->each) die(USAGE, "--each %s: %s has no such input", a->each, a->model);
  for (int i = 0; i < p->nin; i++) {
    if (p->in[i].info.kind == KILN_TENSOR) {
      if (!p->in[i].each) set_tensor(p, i, 0);
      continue;
    }
    kiln_value v = read_value(&p->in[i]);
    if (kiln_session_set(p->session, i, &v) != KILN_OK) die(FAILED, "%s", kiln_session_error(p->session));
  }
}

/* ---- running ---- */

static void run(program *p, int64_t k) {
  for (int i = 0; p->each && i < p->nin; i++)
    if (p->in[i].each) set_tensor(p, i, k);
  if (kiln_session_run(p->session) == KILN_OK) return;
  if (p->each) die(FAILED, "slice %" PRId64 ": %s", k + 1, kiln_session_error(p->session));
  die(FAILED, "%s", kiln_session_error(p->session));
}

static void append(column *c, const void *data, size_t bytes) {
  if (c->room - c->bytes < bytes) {
    c->room = c->room * 2 + bytes;
    c->data = allocate(c->data, c->room);
  }
  if (bytes) memcpy(c->data + c->bytes, data, bytes);
  c->bytes += bytes;
}

static void keep_tensor(program *p, column *c, kiln_tensor *t, int64_t k) {
  bool same = kiln_tensor_rank(t) == c->rank && kiln_tensor_dtype(t) == c->dtype;
  if (k == 0) {
    c->rank = kiln_tensor_rank(t);
    c->dtype = kiln_tensor_dtype(t);
    for (int d = 0; d < c->rank; d++) c->sizes[d] = kiln_tensor_size(t, d);
  } else {
    for (int d = 0; same && d < c->rank; d++) same = c->sizes[d] == kiln_tensor_size(t, d);
    if (!same)
      die(FAILED, "output %s of slice %" PRId64 " has other sizes than those before it", c->info.name, k + 1);
  }
  size_t bytes = (size_t)kiln_tensor_numel(t) * kiln_dtype_size(kiln_tensor_dtype(t));
  char *data = allocate(NULL, bytes);
  must(p, kiln_tensor_read(p->ctx, t, data, bytes));
  append(c, data, bytes);
  free(data);
}

/* A number is an integer in some runs and a float in others: then all are floats. Both take 8 bytes. */
static void make_floats(column *c) {
  for (size_t at = 0; at < c->bytes; at += 8) {
    int64_t i;
    memcpy(&i, c->data + at, 8);
    memcpy(c->data + at, &(double){(double)i}, 8);
  }
  c->dtype = KILN_FLOAT64;
}

static void keep_outputs(program *p, int64_t k) {
  for (int i = 0; i < p->nout; i++) {
    column *c = &p->out[i];
    kiln_value v;
    if (kiln_session_get(p->session, i, &v) != KILN_OK) die(FAILED, "%s", kiln_session_error(p->session));
    c->kind = v.kind;
    char b = (char)v.b;
    switch (v.kind) {
    case KILN_TENSOR: keep_tensor(p, c, v.tensor, k); break;
    case KILN_BOOLEAN: c->dtype = KILN_BOOL, append(c, &b, 1); break;
    case KILN_INTEGER:
      if (k == 0) c->dtype = KILN_INT64;
      v.f = (double)v.i;
      append(c, c->dtype == KILN_INT64 ? (void *)&v.i : (void *)&v.f, 8);
      break;
    case KILN_FLOAT:
      if (k == 0) c->dtype = KILN_FLOAT64;
      if (c->dtype == KILN_INT64) make_floats(c);
      append(c, &v.f, 8);
      break;
    default: c->text = v.text, c->length = v.length;
    }
    kiln_value_clear(&v);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b) {
  double x, y;
  memcpy(&x, a, sizeof x), memcpy(&y, b, sizeof y);
  return (x > y) - (x < y);
}

static void time_runs(program *p, long rounds) {
  size_t n = (size_t)rounds * (size_t)p->runs;
  if (!n) return;
  double *us = allocate(NULL, n * sizeof *us);
  for (size_t i = 0; i < n; i++) {
    double start = now();
    run(p, (int64_t)(i % (size_t)p->runs));
    us[i] = now() - start;
  }
  qsort(us, n, sizeof *us, by_value);
  printf("time: median %.1f us, 10 %% %.1f, 90 %% %.1f, 99 %% %.1f, least %.1f, most %.1f, of %zu runs\n",
         us[n / 2], us[n / 10], us[n - 1 - n / 10], us[n - 1 - n / 100], us[0], us[n - 1], n);
  free(us);
}

static void profile(program *p, const arguments *a) {
  const char *text;
  kiln_profile_options o = {.size = sizeof o, .runs = (int)a->time, .trace = a->trace};
  for (int i = 0; p->each && i < p->nin; i++)
    if (p->in[i].each) set_tensor(p, i, 0);
  if (kiln_session_profile(p->session, &o, &text) != KILN_OK)
    die(FAILED, "%s", kiln_session_error(p->session));
  fputs(text, stdout);
}

/* ---- outputs ---- */

/* With --each one dimension more, in front. */
static show_array whole(const program *p, const column *c, int64_t sizes[KILN_MAX_RANK + 1]) {
  int rank = 0;
  if (p->each) sizes[rank++] = p->runs;
  for (int d = 0; d < c->rank; d++) sizes[rank++] = c->sizes[d];
  return (show_array){c->dtype, rank, sizes, c->data};
}

static void print_outputs(program *p) {
  for (int i = 0; i < p->nout; i++) {
    const column *c = &p->out[i];
    int64_t sizes[KILN_MAX_RANK + 1];
    printf(c->info.label ? "%s (%s) = " : "%s = ", c->info.name, c->info.label);
    show_array a = whole(p, c, sizes);
    if (c->kind == KILN_NIL)
      puts("nil");
    else if (c->kind == KILN_STRING)
      printf("\"%.*s\"\n", (int)c->length, c->text);
    else if (c->kind == KILN_TENSOR || p->each)
      show(&a);
    else
      show_element(&a, 0), putchar('\n');
  }
}

static void write_output(program *p, const char *model, const pair *o) {
  int i = kiln_graph_find_output(p->graph, o->name);
  if (i < 0) die(USAGE, "%s has no output '%s'; see kiln-run %s --info", model, o->name, model);
  const column *c = &p->out[i];
  int64_t sizes[KILN_MAX_RANK + 1];
  char header[KN_NPY_HEADER];
  kn_type type = {0};
  kn_dtype dtype = KN_BOOL;
  if (c->kind == KILN_NIL || c->kind == KILN_STRING)
    die(FAILED, "output %s is no number and cannot be an array", o->name);
  show_array a = whole(p, c, sizes);
  if (a.rank > KILN_MAX_RANK) die(FAILED, "output %s has too many dimensions to be stacked", o->name);
  kn_dtype_parse(kiln_dtype_name(c->dtype), &dtype);
  type.dtype = (uint8_t)dtype;
  type.rank = (uint8_t)a.rank;
  memcpy(type.dims, sizes, (size_t)a.rank * sizeof *sizes);
  size_t n = kn_npy_header(&type, header);
  if (!n) die(FAILED, "output %s: the .npy format has no %s", o->name, kn_dtype_name(dtype));
  FILE *f = fopen(o->text, "wb");
  if (!f) die(FAILED, "%s: %s", o->text, strerror(errno));
  bool good = fwrite(header, 1, n, f) == n && fwrite(c->data, 1, c->bytes, f) == c->bytes;
  if (fclose(f) || !good) die(FAILED, "%s: could not be written", o->text);
}

/* ---- what the file holds ---- */

static void print_line(void *ud, const char *text) {
  (void)ud;
  puts(text);
}

static void verify(program *p, const arguments *a) {
  const int n = kiln_graph_vector_count(p->graph);
  if (!n) die(USAGE, "%s holds no test vectors", a->model);
  must(p, kiln_session_new(p->ctx, p->graph, &p->session));
  kiln_session_set_check(p->session, env_check());
  if (kiln_session_test(p->session) != KILN_OK) die(FAILED, "%s", kiln_session_error(p->session));
  printf("%d test vector%s of graph %s agree%s\n", n, n == 1 ? "" : "s", kiln_graph_name(p->graph),
         n == 1 ? "s" : "");
}

/* ---- all of it ---- */

static void open_context(program *p, const arguments *a) {
  char error[512];
  env_room room;
  kiln_context_options o = {.size = sizeof o, .output = output, .output_ud = &p->warns};
  env_options("kiln-run", &o, &room);
  if (a->backend) o.backend = a->backend;
  kiln_status st = kiln_context_new(&o, &p->ctx, error, sizeof error);
  if (st != KILN_OK) die(st == KILN_ARG ? USAGE : FAILED, "%s", error);
}

static void load(program *p, const arguments *a) {
  kiln_status st = kiln_graph_load_on(p->ctx, a->model, a->entry, a->device, &p->graph);
  if (st == KILN_ARG && !a->entry) die(FAILED, "%s; choose one by --entry", kiln_error(p->ctx));
  must(p, st);
}

static void run_all(program *p, const arguments *a) {
  must(p, kiln_session_new(p->ctx, p->graph, &p->session));
  kiln_session_set_check(p->session, env_check());
  prepare_inputs(p, a);
  if (!p->runs) die(FAILED, "--each %s: the file holds no slice", a->each);
  p->nout = kiln_graph_output_count(p->graph);
  p->out = allocate(NULL, sizeof *p->out * (size_t)(p->nout + 1));
  for (int i = 0; i < p->nout; i++) {
    p->out[i] = (column){.info.size = sizeof(kiln_info)};
    kiln_graph_output(p->graph, i, &p->out[i].info);
  }
  for (int64_t k = 0; k < p->runs; k++) {
    run(p, k);
    keep_outputs(p, k);
  }
  for (int i = 0; i < a->nout; i++) write_output(p, a->model, &a->out[i]);
  if (a->print || (!a->nout && !a->time && !a->profile)) print_outputs(p);
  if (a->time) time_runs(p, a->time);
  if (a->profile) profile(p, a);
}

static void close_program(program *p) {
  for (int i = 0; i < p->nin && p->in; i++) free(p->in[i].elements);
  for (int i = 0; i < p->nout && p->out; i++) free(p->out[i].data);
  free(p->in);
  free(p->out);
  kiln_session_free(p->session);
  kiln_graph_release(p->graph);
  kiln_context_free(p->ctx);
}

int main(int argc, char **argv) {
  pair in[argc + 1], out[argc + 1]; /* on the stack, so that an early exit leaves nothing behind */
  arguments a = read_arguments(argc, argv, in, out);
  program p = {0};
  open_context(&p, &a);
  if (a.info) must(&p, kiln_file_info(p.ctx, a.model, a.entry, print_line, NULL));
  if (a.upgrade) must(&p, kiln_file_upgrade(p.ctx, a.model, a.upgrade));
  if (!a.info && !a.upgrade) {
    load(&p, &a);
    if (a.verify)
      verify(&p, &a);
    else
      run_all(&p, &a);
  }
  close_program(&p);
  if (fflush(stdout)) die(FAILED, "standard output: %s", strerror(errno));
  return 0;
}
