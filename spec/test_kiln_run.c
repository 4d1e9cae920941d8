/* The kiln-run executable: what it prints, what it writes, and its exit codes. */
#define _POSIX_C_SOURCE 200809L /* popen, mkdtemp, setenv */
#include "bindings/io/npy.h"
#include "graph/file.h"
#include "graph/text.h"
#include "spec/suite.h"
#include <sys/wait.h>
#include <unistd.h>

static const char predict_text[] = "graph predict(%x: float32[1,3], %k: float) {\n"
                                   "  slot param \"w\": float32[3,2]\n"
                                   "  %w = param \"w\"\n"
                                   "  %y: float32[1,2] = matmul %x, %w\n"
                                   "  %s: float32[] = sum %y {dim = {}, keepdim = false}\n"
                                   "  %f: float = item %s\n"
                                   "  %big: boolean = lua.lt %k, %f\n"
                                   "  %n: number = if %big {\n"
                                   "    %one = const 1\n"
                                   "    yield %one\n"
                                   "  } else {\n"
                                   "    yield %f\n"
                                   "  }\n"
                                   "  return %y, {sum = %f, big = %big}, \"done\", %n, nil\n"
                                   "}\n";
static const char other_text[] = "graph other(%a: integer, %b: boolean) {\n  return %a, %b\n}\n";

typedef struct place {
  kn_context *c;
  char dir[32], out[1 << 14]; /* what the last command printed, errors included */
} place;

static void save(place *p, const char *name, const kn_entry *entries, uint32_t n) {
  char path[64];
  snprintf(path, sizeof path, "%s/%s", p->dir, name);
  OK(p->c, kn_file_save(p->c, path, entries, n));
}

static kn_tensor *array(place *p, kn_type type, const float *data) {
  kn_tensor *t;
  OK(p->c, kn_tensor_new(p->c, &type, &t));
  memcpy(kn_tensor_data(t), data, t->storage->bytes);
  return t;
}

static void write_array(place *p, const char *name, kn_type type, const float *data) {
  char path[64];
  kn_tensor *t = array(p, type, data);
  snprintf(path, sizeof path, "%s/%s", p->dir, name);
  OK(p->c, kn_npy_write(p->c, path, t));
  kn_tensor_release(t);
}

static kn_tensor *read_array(place *p, const char *name) {
  char path[64];
  kn_tensor *t;
  snprintf(path, sizeof path, "%s/%s", p->dir, name);
  OK(p->c, kn_npy_read(p->c, path, &t));
  return t;
}

#define F32(...)                                                                                             \
  ((kn_type){.dtype = KN_F32, .rank = sizeof((int64_t[]){__VA_ARGS__}) / 8, .dims = {__VA_ARGS__}})

static void start(place *p) {
  static const float w[6] = {1, 0, 0, 1, 1, 1}, xs[12] = {1, 2, 3, 0, 0, 0, 10, 20, 30, -1, -2, -3};
  kn_entry both[2] = {{.name = "predict"}, {.name = "other"}};
  p->c = suite_context();
  strcpy(p->dir, "/tmp/kiln-run-XXXXXX"); /* the X are mkdtemp's */
  ck_assert_ptr_nonnull(mkdtemp(p->dir));
  OK(p->c, kn_graph_parse(p->c, predict_text, sizeof predict_text - 1, &both[0].graph));
  OK(p->c, kn_graph_parse(p->c, other_text, sizeof other_text - 1, &both[1].graph));
  both[0].graph->slots[0]->tensor = array(p, F32(3, 2), w);
  save(p, "one.kiln", both, 1);
  save(p, "two.kiln", both, 2);
  kn_graph_release(both[0].graph);
  kn_graph_release(both[1].graph);
  write_array(p, "x.npy", F32(1, 3), xs);
  write_array(p, "kept.npy", F32(4, 3), xs);
  write_array(p, "dropped.npy", F32(4, 1, 3), xs);
}

static void stop(place *p) {
  char command[64];
  snprintf(command, sizeof command, "rm -r %s", p->dir);
  ck_assert_int_eq(system(command), 0);
  suite_done(p->c);
}

/* Runs it in the folder; the exit code. */
static int run(place *p, const char *arguments) {
  char command[1024];
  const char *build = getenv("KILN_BUILD");
  snprintf(command, sizeof command, "cd %s && exec %s/kiln-run %s 2>&1", p->dir, build, arguments);
  FILE *f = popen(command, "r");
  ck_assert_ptr_nonnull(f);
  size_t n = fread(p->out, 1, sizeof p->out - 1, f);
  p->out[n] = 0;
  int status = pclose(f);
  ck_assert_msg(WIFEXITED(status), "kiln-run %s ended by signal", arguments);
  return WEXITSTATUS(status);
}

#define RUN(p, code, arguments)                                                                              \
  do {                                                                                                       \
    int code_ = run(p, arguments);                                                                           \
    ck_assert_msg(code_ == (code), "kiln-run %s: exit code %d:\n%s", arguments, code_, (p)->out);            \
  } while (0)
#define SAYS(p, part) ck_assert_msg(strstr((p)->out, part) != NULL, "no \"%s\" in:\n%s", part, (p)->out)

static bool built(void) {
  char path[512];
  const char *build = getenv("KILN_BUILD");
  if (!build) return false;
  snprintf(path, sizeof path, "%s/kiln-run", build);
  return access(path, X_OK) == 0;
}

START_TEST(prints) {
  place p;
  start(&p);
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=3.5");
  ck_assert_str_eq(
      p.out, "1 (y) = float32[1,2]\n  [[4, 5]]\n2.sum (f) = 9\n2.big (big) = true\n3 = \"done\"\n4 (n) = 1\n"
             "5 = nil\n");
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=100 --backend ref");
  SAYS(&p, "2.big (big) = false\n");
  SAYS(&p, "4 (n) = 9\n");
  RUN(&p, 0, "two.kiln --entry other --input a=-7 --input b=true");
  ck_assert_str_eq(p.out, "1 (a) = -7\n2 (b) = true\n");
  RUN(&p, 0, "one.kiln --info");
  ck_assert_str_eq(strstr(p.out, "graph "),
                   "graph predict\ninput x: float32[1,3]\ninput k: float\noutput 1 (y): float32[1,2]\n"
                   "output 2.sum (f): float\noutput 2.big (big): boolean\noutput 3: string, constant\n"
                   "output 4 (n): number\noutput 5: nil, constant\nslot w: float32[3,2]\n");
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=1 --time 20");
  SAYS(&p, "time: median ");
  SAYS(&p, "of 20 runs");
  RUN(&p, 0, "--help");
  SAYS(&p, "usage: kiln-run MODEL.kiln");
  RUN(&p, 0, "--version");
  SAYS(&p, "kiln-run 0.1.0");
  stop(&p);
}
END_TEST

START_TEST(writes) {
  place p;
  start(&p);
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=3 --output y=y.npy --output 2.sum=s.npy --output big=b.npy");
  ck_assert_str_eq(p.out, "");
  kn_tensor *y = read_array(&p, "y.npy"), *s = read_array(&p, "s.npy"), *b = read_array(&p, "b.npy");
  ck_assert(y->type.rank == 2 && ((float *)kn_tensor_data(y))[1] == 5);
  ck_assert(s->type.rank == 0 && s->type.dtype == KN_F64 && *(double *)kn_tensor_data(s) == 9);
  ck_assert(b->type.rank == 0 && b->type.dtype == KN_BOOL && *(uint8_t *)kn_tensor_data(b) == 1);
  kn_tensor_release(y), kn_tensor_release(s), kn_tensor_release(b);
  RUN(&p, 1, "one.kiln --input x=x.npy --input k=3 --output 3=t.npy");
  SAYS(&p, "cannot be an array");
  stop(&p);
}
END_TEST

START_TEST(profiles) {
  place p;
  start(&p);
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=3.5 --profile");
  SAYS(&p, "profile of predict: 10 runs, median ");
  SAYS(&p, "matmul + sum %s  ["); /* a small product heads what follows it */
  SAYS(&p, "GFLOP/s");
  SAYS(&p, "around them");
  ck_assert_ptr_null(strstr(p.out, "float32[1,2]")); /* no outputs */
  RUN(&p, 0, "one.kiln --input x=kept.npy --each x --input k=3.5 --time 3 --trace t.json --print");
  SAYS(&p, "1 (y) = float32[4,1,2]");
  SAYS(&p, "time: median");
  SAYS(&p, "profile of predict: 3 runs");
  char path[64], text[64] = "";
  snprintf(path, sizeof path, "%s/t.json", p.dir);
  FILE *f = fopen(path, "r");
  ck_assert(f && fgets(text, sizeof text, f) && !strncmp(text, "{\"displayTimeUnit\"", 18));
  fclose(f);
  RUN(&p, 1, "one.kiln --input x=x.npy --input k=3.5 --trace /nowhere/t.json");
  SAYS(&p, "/nowhere/t.json");
  stop(&p);
}
END_TEST

/* Slices with and without their dimension, outputs stacked, numbers of both kinds made floats. */
START_TEST(each_slice) {
  place p;
  start(&p);
  for (int drop = 0; drop < 2; drop++) {
    RUN(&p, 0,
        drop ? "one.kiln --input x=dropped.npy --input k=1 --each x --output y=y.npy --output n=n.npy "
               "--output big=b.npy --print"
             : "one.kiln --input x=kept.npy --input k=1 --each x --output y=y.npy --output n=n.npy --output "
               "big=b.npy --print");
    kn_tensor *y = read_array(&p, "y.npy"), *n = read_array(&p, "n.npy"), *b = read_array(&p, "b.npy");
    ck_assert(y->type.rank == 3 && y->type.dims[0] == 4 && y->type.dims[1] == 1 && y->type.dims[2] == 2);
    ck_assert_int_eq(memcmp(kn_tensor_data(y), (float[]){4, 5, 0, 0, 40, 50, -4, -5}, 32), 0);
    ck_assert(n->type.dtype == KN_F64 && n->type.rank == 1);
    ck_assert_int_eq(memcmp(kn_tensor_data(n), (double[]){1, 0, 1, -9}, 32), 0);
    ck_assert_int_eq(memcmp(kn_tensor_data(b), "\1\0\1\0", 4), 0);
    SAYS(&p, "2.big (big) = bool[4]\n  [true, false, true, false]\n");
    kn_tensor_release(y), kn_tensor_release(n), kn_tensor_release(b);
  }
  stop(&p);
}
END_TEST

START_TEST(says_what_is_wrong) {
  static const struct {
    int code;
    const char *arguments, *says;
  } cases[] = {
      {2, "", "which model?"},
      {2, "a b", "there is one model, not also b"},
      {2, "one.kiln --fast", "there is no option --fast"},
      {2, "one.kiln --input", "a value is missing after --input"},
      {2, "one.kiln --input x", "wants NAME=VALUE"},
      {2, "one.kiln --time 0", "whole number above 0"},
      {2, "one.kiln --input x=x.npy", "input k is not given"},
      {2, "one.kiln --input y=x.npy", "no input 'y'"},
      {2, "one.kiln --input x=x.npy --input k=some", "it wants a number, true or false, not 'some'"},
      {2, "one.kiln --input x=x.npy --input k=1 --output q=q.npy", "no output 'q'"},
      {2, "one.kiln --input x=x.npy --input k=1 --each z", "has no such input"},
      {2, "one.kiln --input x=x.npy --input k=1 --each k", "is no tensor"},
      {2, "one.kiln --verify", "holds no test vectors"},
      {2, "one.kiln --backend abacus", "abacus"},
      {1, "nothing.kiln", "nothing.kiln"},
      {1, "x.npy", "x.npy"},
      {1, "two.kiln", "2 graphs, and none was named"},
      {1, "two.kiln", "choose one by --entry"},
      {1, "one.kiln --input x=one.kiln --input k=1", "no .npy file"},
      {1, "one.kiln --input x=gone.npy --input k=1", "gone.npy: "},
      {1, "one.kiln --input x=kept.npy --input k=1", "float32[1,3] is needed (got float32[4,3])"},
      {1, "one.kiln --input x=x.npy --input k=1 --output y=/nowhere/y.npy", "/nowhere/y.npy: "},
  };
  place p;
  start(&p);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    RUN(&p, cases[i].code, cases[i].arguments);
    SAYS(&p, cases[i].says);
    SAYS(&p, "kiln-run: ");
  }
  stop(&p);
}
END_TEST

START_TEST(the_environment_is_heard) {
  place p;
  start(&p);
  setenv("KILN_DEBUG", "exec,nonsense", 1);
  setenv("KILN_CHECK", "1", 1);
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=1");
  SAYS(&p, "KILN_DEBUG has no topic 'nonsense'");
  SAYS(&p, "exec ");
  SAYS(&p, "matmul");
  unsetenv("KILN_CHECK");
  unsetenv("KILN_DEBUG");
  setenv("KILN_BACKEND", "abacus", 1);
  RUN(&p, 2, "one.kiln --input x=x.npy --input k=1");
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=1 --backend ref"); /* the option wins */
  setenv("KILN_BACKEND", "ref", 1);
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=1");
  unsetenv("KILN_BACKEND");
  setenv("KILN_NUM_THREADS", "many", 1);
  RUN(&p, 0, "one.kiln --input x=x.npy --input k=1");
  SAYS(&p, "'many' is not a number of threads");
  unsetenv("KILN_NUM_THREADS");
  stop(&p);
}
END_TEST

/* Vector lanes lose what the reference, which sums in double, does not: a difference that needs no liar. */
START_TEST(checks) {
  static const char text[] = "graph sums(%x: float32[1,32]) {\n"
                             "  %y: float32[1,32] = neg %x  ; net.lua:31\n"
                             "  %s: float32[1] = sum %y {dim = {2}}  ; net.lua:33\n"
                             "  return %s\n}\n";
  float xs[32];
  place p;
  start(&p);
  kn_entry e = {.name = "sums"};
  OK(p.c, kn_graph_parse(p.c, text, sizeof text - 1, &e.graph));
  save(&p, "sums.kiln", &e, 1);
  kn_graph_release(e.graph);
  for (int i = 0; i < 32; i++) xs[i] = i == 0 ? -1e8f : i == 31 ? 1e8f : -1;
  write_array(&p, "far.npy", F32(1, 32), xs);
  RUN(&p, 0, "sums.kiln --input x=far.npy --backend cpu");
  setenv("KILN_CHECK", "1", 1);
  RUN(&p, 1, "sums.kiln --input x=far.npy --backend cpu");
  SAYS(&p, "kiln-run: net.lua:33: sum by cpu");
  SAYS(&p, "differs from the reference: element [1] is ");
  SAYS(&p, " instead of 30");
  RUN(&p, 0, "sums.kiln --input x=far.npy --backend ref");
  unsetenv("KILN_CHECK");
  stop(&p);
}
END_TEST

/* What is in the file of a stranger, of this version and of a newer one; brought up to date; checked. */
START_TEST(files) {
  static const char text[] = "graph twice(%x: float32[N,2]) {\n"
                             "  guard global \"scale\" = \"2\"  ; net.lua:3\n"
                             "  slot state \"count\": integer = 3\n"
                             "  slot param \"w\": float32[2]\n"
                             "  %n = load_state \"count\"\n"
                             "  %one = const 1\n"
                             "  %m = lua.add %n, %one\n"
                             "  %w = param \"w\"\n"
                             "  %z = mul %x, %w  ; net.lua:4\n"
                             "  %h: float32[N,2], %k: integer = host_call %z, %m \"seen\"  ; net.lua:5\n"
                             "  store_state \"count\", %m\n"
                             "  return %z, %k\n}\n";
  place p;
  start(&p);
  kn_entry e = {.name = "twice\x7f", .origin = "function at net.lua:2"};
  OK(p.c, kn_graph_parse(p.c, text, sizeof text - 1, &e.graph));
  e.graph->slots[1]->tensor = array(&p, F32(2), (float[]){1, 2});
  OK(p.c, kn_notes_new(p.c, &e.notes));
  OK(p.c, kn_notes_add(p.c, e.notes, "licence", "MIT\nor so"));
  save(&p, "host.kiln", &e, 1);
  kn_graph_release(e.graph);
  kn_notes_release(e.notes);
  RUN(&p, 0, "host.kiln --info");
  SAYS(&p, "format 1\nproducer kiln " KN_VERSION_TEXT "\nchecksum ");
  SAYS(&p, " 8 of them in 1 tensors\n"
           "ops mul 1, const 1, param 1, load_state 1, store_state 1, lua.add 1, host_call 1\n"
           "origin of twice\\127: function at net.lua:2\n"
           "note licence: MIT\\010or so\n"
           "graph twice\\127\n"
           "input x: float32[N,2]\n"
           "output 1 (z): float32[N,2]\n"
           "output 2 (k): integer\n"
           "slot count: integer, written by runs\n"
           "slot w: float32[2]\n"
           "host seen(float32[N,2], integer) -> (float32[N,2], integer)  ; net.lua:5\n"
           "guard global scale = 2  ; net.lua:3\n");
  RUN(&p, 0, "host.kiln --upgrade new.kiln");
  ck_assert_str_eq(p.out, "");
  char command[96];
  snprintf(command, sizeof command, "cd %s && cmp host.kiln new.kiln", p.dir);
  ck_assert_int_eq(system(command), 0);
  RUN(&p, 0, "two.kiln --info --entry other");
  ck_assert_ptr_null(strstr(p.out, "graph predict"));
  SAYS(&p, "graph other\ninput a: integer\n");
  RUN(&p, 1, "two.kiln --info --entry third");
  SAYS(&p, "no graph \"third\"");
  RUN(&p, 1, "x.npy --info");
  RUN(&p, 1, "one.kiln --upgrade /nowhere/new.kiln");
  SAYS(&p, "/nowhere/new.kiln");
  stop(&p);
}
END_TEST

/* Vectors agree with what any backend computes, and not with what was changed since. */
START_TEST(verifies) {
  place p;
  start(&p);
  kn_entry e = {.name = "sums"};
  static const char text[] =
      "graph sums(%x: float32[1,3]) {\n  %y = sum %x  ; net.lua:3\n  return {y = %y}\n}\n";
  OK(p.c, kn_graph_parse(p.c, text, sizeof text - 1, &e.graph));
  for (int wrong = 0; wrong < 2; wrong++) {
    OK(p.c, kn_vectors_new(p.c, e.graph, &e.vectors));
    OK(p.c, kn_vectors_add(p.c, e.vectors));
    kn_vectors_in(e.vectors, 0)->tensor = array(&p, F32(1, 3), (float[]){1, 2, 3});
    kn_tensor *sum;
    OK(p.c, kn_tensor_new(p.c, &(kn_type){.dtype = KN_F32}, &sum));
    *(float *)kn_tensor_data(sum) = wrong ? 7 : 6;
    kn_vectors_out(e.vectors, 0)->tensor = sum;
    save(&p, wrong ? "wrong.kiln" : "right.kiln", &e, 1);
    kn_vectors_release(e.vectors);
  }
  kn_graph_release(e.graph);
  RUN(&p, 0, "right.kiln --verify");
  ck_assert_str_eq(p.out, "1 test vector of graph sums agrees\n");
  RUN(&p, 0, "right.kiln --verify --backend ref");
  RUN(&p, 1, "wrong.kiln --verify");
  SAYS(&p,
       "test vector 1: output 1.y (y) differs: element [] is 6, the file has 7; they may be 0.0007 apart");
  RUN(&p, 0, "wrong.kiln --info");
  SAYS(&p, "test vectors 1\n");
  stop(&p);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      files, verifies, prints, writes, each_slice, profiles, says_what_is_wrong, the_environment_is_heard,
      checks};
  if (!built()) {
    puts("kiln-run was not built, or KILN_BUILD does not say where\n0 passed, 1 failed");
    return 1;
  }
  return suite_run("kiln_run", tests, sizeof tests / sizeof *tests);
}
