/* Choices by measurement: the file that remembers them, in good and in bad condition; which way is taken
 * when; and that products and convolutions of graphs go that way. */
#define _GNU_SOURCE /* mkdtemp */
#include "backends/tune.h"
#include "backends/registry.h"
#include "spec/exec.h"
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a folder of its own ---- */

typedef struct place {
  char top[64], dir[96], log[4096];
  kn_context *c;
} place;

static void keep(void *ud, kn_out kind, const char *text, size_t len) {
  char *log = ud;
  size_t at = strlen(log);
  if (kind != KN_OUT_LOG || at + len + 2 > sizeof((place *)0)->log) return;
  memcpy(log + at, text, len);
  strcpy(log + at + len, "\n");
}

static void open_place(place *p) {
  strcpy(p->top, "/tmp/kiln-tune-XXXXXX"); /* the X are mkdtemp's */
  ck_assert_ptr_nonnull(mkdtemp(p->top));
  snprintf(p->dir, sizeof p->dir, "%s/not/yet", p->top);
  p->c = suite_context();
  p->log[0] = 0;
  p->c->output = keep;
  p->c->output_ud = p->log;
}

static void close_place(place *p) {
  char command[128];
  suite_done(p->c);
  snprintf(command, sizeof command, "rm -rf %s", p->top);
  ck_assert_int_eq(system(command), 0);
}

static kn_tuner *tuner(place *p, const char *machine) {
  kn_tuner *t = kn_tuner_new(p->c->heap, p->dir, machine);
  ck_assert_ptr_nonnull(t);
  return t;
}

static bool says(place *p, kn_tuner *t, const char *key, const char *way) {
  char name[KN_TUNE_NAME] = "";
  bool found = kn_tuner_find(p->c, t, key, name);
  return way ? found && !strcmp(name, way) : !found;
}

static void add_text(const char *path, const char *text) {
  FILE *f = fopen(path, "ab");
  ck_assert_ptr_nonnull(f);
  fputs(text, f);
  fclose(f);
}

/* ---- the file ---- */

START_TEST(remembered) {
  place p;
  struct stat about;
  open_place(&p);
  kn_tuner *t = tuner(&p, "machine A");
  ck_assert_int_ne(stat(p.dir, &about), 0); /* nothing is made before there is something to say */
  ck_assert(says(&p, t, "matmul 1x2", NULL));
  ck_assert_int_ne(stat(p.dir, &about), 0);
  kn_tuner_note(p.c, t, "matmul 1x2", "packed", "packed 1.00, given 2.00");
  kn_tuner_note(p.c, t, "matmul 3x4", "given", "");
  kn_tuner_note(p.c, t, "matmul 3x4", "elsewhere", "given 2.00, elsewhere 1.00");
  ck_assert(says(&p, t, "matmul 1x2", "packed"));
  ck_assert(says(&p, t, "matmul 3x4", "elsewhere"));
  ck_assert_int_eq(kn_tuner_count(t), 2);
  kn_tuner *again = tuner(&p, "machine A"), *other = tuner(&p, "machine B");
  ck_assert_str_eq(kn_tuner_path(t), kn_tuner_path(again));
  ck_assert_str_ne(kn_tuner_path(t), kn_tuner_path(other));
  ck_assert(says(&p, again, "matmul 1x2", "packed"));
  ck_assert(says(&p, again, "matmul 3x4", "elsewhere"));
  ck_assert(says(&p, again, "matmul", NULL));
  ck_assert(says(&p, other, "matmul 1x2", NULL));
  ck_assert_str_eq(p.log, "");
  kn_tuner_free(t), kn_tuner_free(again), kn_tuner_free(other);
  close_place(&p);
}
END_TEST

START_TEST(damaged) {
  place p;
  open_place(&p);
  kn_tuner *t = tuner(&p, "A");
  kn_tuner_note(p.c, t, "one", "given", "");
  kn_tuner_note(p.c, t, "two", "given", "");
  char path[1200];
  snprintf(path, sizeof path, "%s", kn_tuner_path(t));
  kn_tuner_free(t);
  add_text(path, "nonsense\n01234567 three = given | \n\n00000000\n\x01\xff = \n");
  add_text(path, "89abcdef four = packed | cut sho"); /* and without an end */
  t = tuner(&p, "A");
  ck_assert(says(&p, t, "one", "given") && says(&p, t, "two", "given"));
  ck_assert(says(&p, t, "three", NULL) && says(&p, t, "four", NULL));
  ck_assert_ptr_nonnull(strstr(p.log, "6 damaged lines"));
  kn_tuner_note(p.c, t, "five", "packed", "");
  kn_tuner_free(t);
  p.log[0] = 0;
  t = tuner(&p, "A"); /* it was written anew */
  ck_assert(says(&p, t, "one", "given") && says(&p, t, "five", "packed"));
  ck_assert_str_eq(p.log, "");
  kn_tuner_free(t);
  close_place(&p);
}
END_TEST

typedef struct asker { /* a host that asks while it is told */
  kn_context *c;
  kn_tuner *t;
  int told;
  bool found;
} asker;

static void ask(void *ud, kn_out kind, const char *text, size_t len) {
  asker *a = ud;
  char name[KN_TUNE_NAME];
  (void)kind, (void)text, (void)len;
  a->told++;
  a->found = kn_tuner_find(a->c, a->t, "one", name);
}

/* What is said is said without the lock, or who listens and asks would wait for ever. */
START_TEST(asked_while_it_says) {
  place p;
  open_place(&p);
  kn_tuner *t = tuner(&p, "A");
  kn_tuner_note(p.c, t, "one", "given", "");
  add_text(kn_tuner_path(t), "nonsense\n");
  kn_tuner_free(t);
  asker a = {p.c, tuner(&p, "A"), 0, false};
  char name[KN_TUNE_NAME];
  p.c->output = ask;
  p.c->output_ud = &a;
  ck_assert(kn_tuner_find(p.c, a.t, "one", name) && a.found && a.told == 1);
  kn_tuner_free(a.t);
  strcpy(p.dir, "/dev/null/not"); /* where no folder can be made */
  a.t = tuner(&p, "A");
  kn_tuner_note(p.c, a.t, "one", "packed", "");
  ck_assert(a.found && a.told == 2);
  kn_tuner_free(a.t);
  close_place(&p);
}
END_TEST

/* Every byte of a small file in turn is another one; every length of it. */
START_TEST(damaged_anywhere) {
  place p;
  open_place(&p);
  kn_tuner *t = tuner(&p, "A");
  kn_tuner_note(p.c, t, "one", "given", "given 1.00");
  kn_tuner_note(p.c, t, "two", "packed", "");
  char text[512], path[1200];
  snprintf(path, sizeof path, "%s", kn_tuner_path(t));
  kn_tuner_free(t);
  FILE *f = fopen(path, "rb");
  size_t n = fread(text, 1, sizeof text, f);
  fclose(f);
  ck_assert_uint_lt(n, sizeof text);
  for (size_t i = 0; i < 2 * n; i++) {
    char was = text[i % n];
    if (i < n) text[i] = (char)(was ^ (i % 3 ? 0x15 : was));
    f = fopen(path, "wb");
    fwrite(text, 1, i < n ? n : i - n, f);
    fclose(f);
    text[i % n] = was;
    p.log[0] = 0;
    t = tuner(&p, "A");
    ck_assert(says(&p, t, "one", "given") || says(&p, t, "one", NULL));
    ck_assert(says(&p, t, "two", "packed") || says(&p, t, "two", NULL));
    kn_tuner_note(p.c, t, "three", "given", "");
    kn_tuner_free(t);
    t = tuner(&p, "A");
    ck_assert(says(&p, t, "three", "given"));
    kn_tuner_free(t);
  }
  close_place(&p);
}
END_TEST

START_TEST(carried_from_another_machine) {
  place p;
  open_place(&p);
  kn_tuner *a = tuner(&p, "A"), *b = tuner(&p, "B");
  kn_tuner_note(p.c, a, "one", "given", "");
  ck_assert_int_eq(rename(kn_tuner_path(a), kn_tuner_path(b)), 0);
  ck_assert(says(&p, b, "one", NULL));
  ck_assert_ptr_nonnull(strstr(p.log, "another machine"));
  kn_tuner_note(p.c, b, "two", "given", "");
  kn_tuner_free(b);
  b = tuner(&p, "B");
  ck_assert(says(&p, b, "one", NULL) && says(&p, b, "two", "given"));
  kn_tuner_free(a), kn_tuner_free(b);
  close_place(&p);
}
END_TEST

START_TEST(nowhere_to_write) {
  place p;
  open_place(&p);
  char file[80];
  snprintf(file, sizeof file, "%s/file", p.top);
  add_text(file, "");
  snprintf(p.dir, sizeof p.dir, "%s/below", file);
  kn_tuner *t = tuner(&p, "A");
  kn_tuner_note(p.c, t, "one", "given", "");
  ck_assert_ptr_nonnull(strstr(p.log, "cannot be written"));
  p.log[0] = 0;
  kn_tuner_note(p.c, t, "two", "packed", "");
  ck_assert_str_eq(p.log, ""); /* said once */
  ck_assert(says(&p, t, "one", "given") && says(&p, t, "two", "packed"));
  kn_tuner_free(t);
  t = kn_tuner_new(p.c->heap, NULL, "A"); /* nobody asked for a file */
  kn_tuner_note(p.c, t, "one", "given", "");
  ck_assert(says(&p, t, "one", "given"));
  ck_assert_str_eq(kn_tuner_path(t), "");
  kn_tuner_free(t);
  t = tuner(&p, ""); /* nor is there one of a machine that is not known */
  ck_assert_str_eq(kn_tuner_path(t), "");
  kn_tuner_free(t);
  ck_assert_str_eq(p.log, "");
  close_place(&p);
}
END_TEST

/* Nobody writes to the pipe: who waited for that would never end. A file that goes nowhere stays so. */
START_TEST(no_file_by_that_name) {
  place p;
  struct stat about;
  char path[1200], end[1200];
  open_place(&p);
  snprintf(p.dir, sizeof p.dir, "%s", p.top);
  snprintf(end, sizeof end, "%s/elsewhere", p.top);
  kn_tuner *t = tuner(&p, "A");
  snprintf(path, sizeof path, "%s", kn_tuner_path(t));
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  ck_assert(says(&p, t, "one", NULL));
  kn_tuner_note(p.c, t, "one", "given", "");
  kn_tuner_free(t);
  ck_assert(!lstat(path, &about) && S_ISREG(about.st_mode));
  t = tuner(&p, "A");
  ck_assert(says(&p, t, "one", "given"));
  kn_tuner_free(t);
  ck_assert_int_eq(unlink(path), 0);
  ck_assert_int_eq(symlink(end, path), 0);
  t = tuner(&p, "A");
  kn_tuner_note(p.c, t, "two", "given", "");
  ck_assert(says(&p, t, "two", "given"));
  ck_assert_int_ne(stat(end, &about), 0); /* nothing is made there */
  kn_tuner_free(t);
  add_text(end, "somebody's\n"); /* a file of another is not written to: the name gets one of its own */
  t = tuner(&p, "A");
  kn_tuner_note(p.c, t, "three", "given", "");
  kn_tuner_free(t);
  ck_assert(!stat(end, &about) && about.st_size == 11);
  t = tuner(&p, "A");
  ck_assert(says(&p, t, "three", "given"));
  kn_tuner_free(t);
  close_place(&p);
}
END_TEST

START_TEST(several_writers) {
  enum { WRITERS = 4, LINES = 150 };
  place p;
  open_place(&p);
  for (int w = 0; w < WRITERS; w++) {
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child) continue;
    kn_tuner *t = tuner(&p, "A");
    for (int i = 0; i < LINES; i++) {
      char key[32];
      snprintf(key, sizeof key, "key %d.%d", w, i);
      kn_tuner_note(p.c, t, key, i % 2 ? "given" : "packed", "given 1.00, packed 2.00");
    }
    _exit(0);
  }
  for (int w = 0; w < WRITERS; w++) {
    int how = 1;
    ck_assert_int_gt(wait(&how), 0);
    ck_assert_int_eq(how, 0);
  }
  kn_tuner *t = tuner(&p, "A");
  ck_assert(says(&p, t, "key 0.0", "packed"));
  ck_assert_int_eq(kn_tuner_count(t), WRITERS * LINES);
  ck_assert_str_eq(p.log, "");
  kn_tuner_free(t);
  close_place(&p);
}
END_TEST

START_TEST(never_too_many) {
  place p;
  open_place(&p);
  kn_tuner *t = tuner(&p, "A");
  char key[32];
  for (int i = 0; i < 2 * KN_TUNE_MOST + 100; i++) {
    snprintf(key, sizeof key, "key %d", i);
    kn_tuner_note(p.c, t, key, "given", "");
  }
  ck_assert_int_le(kn_tuner_count(t), KN_TUNE_MOST);
  ck_assert_int_gt(kn_tuner_count(t), KN_TUNE_MOST / 3);
  ck_assert(says(&p, t, key, "given") && says(&p, t, "key 0", NULL));
  struct stat about;
  ck_assert_int_eq(stat(kn_tuner_path(t), &about), 0);
  ck_assert_int_lt(about.st_size, 64 * 2 * KN_TUNE_MOST);
  kn_tuner_free(t);
  t = tuner(&p, "A");
  ck_assert(says(&p, t, key, "given"));
  ck_assert_int_le(kn_tuner_count(t), KN_TUNE_MOST);
  kn_tuner_free(t);
  close_place(&p);
}
END_TEST

/* ---- the choice ---- */

typedef struct fake {
  double seconds[3]; /* below 0: cannot be done */
  int begun, ended, trials;
  double grows; /* by so much each time */
  bool refuses;
} fake;
static bool fake_begin(void *ud) { return ((fake *)ud)->begun++, !((fake *)ud)->refuses; }
static void fake_end(void *ud) { ((fake *)ud)->ended++; }
static bool fake_trial(void *ud, int way, double *seconds) {
  fake *f = ud;
  f->trials++;
  *seconds = f->seconds[way];
  if (*seconds >= 0) f->seconds[way] += f->grows;
  return *seconds >= 0;
}

static int choose_beside(place *p, kn_tuner *t, const char *key, fake *f, int light, size_t keeps) {
  kn_question q = {.key = key,
                   .ways = {"usual", "second", "third"},
                   .n = 3,
                   .flops = 1e7,
                   .ud = f,
                   .begin = fake_begin,
                   .trial = fake_trial,
                   .end = fake_end};
  if (light >= 0) q.light[light] = true;
  q.keeps[0] = keeps;
  int way = kn_tune(p->c, t, &q);
  ck_assert_int_eq(f->begun, f->ended);
  return way;
}

static int choose(place *p, kn_tuner *t, const char *key, fake *f, int light) {
  return choose_beside(p, t, key, f, light, 0);
}

START_TEST(chosen) {
  place p;
  open_place(&p);
  kn_tuner *t = tuner(&p, "A");
  fake f = {.seconds = {3e-5, 2e-5, 1e-5}};
  p.c->tuning_left = 1;
  ck_assert_int_eq(choose(&p, t, "a", &f, -1), -1); /* fixed */
  p.c->tuning = KN_TUNING_KNOWN;
  ck_assert_int_eq(choose(&p, t, "a", &f, -1), -1);
  ck_assert_int_eq(f.begun, 0);
  p.c->tuning = KN_TUNING_MEASURE;
  ck_assert_int_eq(choose(&p, t, "a", &f, -1), 2);
  int trials = f.trials;
  ck_assert_int_gt(trials, 3);
  ck_assert_int_eq(choose(&p, t, "a", &f, -1), 2); /* known now */
  p.c->tuning = KN_TUNING_KNOWN;
  ck_assert_int_eq(choose(&p, t, "a", &f, -1), 2);
  ck_assert_int_eq(f.trials, trials);
  kn_context *child = kn_context_child(p.c);
  ck_assert_int_eq(kn_context_tuning(child), KN_TUNING_KNOWN);
  p.c->deterministic = true;
  ck_assert_int_eq(choose(&p, t, "a", &f, -1), -1);
  ck_assert_int_eq(kn_context_tuning(child), KN_TUNING_FIXED);
  p.c->deterministic = false;
  kn_context_free(child);
  p.c->tuning = KN_TUNING_MEASURE;
  f.seconds[2] = -1;
  ck_assert_int_eq(choose(&p, t, "b", &f, -1), 1); /* it cannot be done in the third way */
  f.seconds[1] = 2.95e-5;
  ck_assert_int_eq(choose(&p, t, "c", &f, -1), 0); /* no clear gain */
  f.seconds[1] = 3.03e-5;
  ck_assert_int_eq(choose(&p, t, "d", &f, 1), 1); /* as fast, and takes less */
  f.seconds[0] = -1, f.seconds[1] = -1;
  ck_assert_int_eq(choose(&p, t, "e", &f, -1), -1);
  f.seconds[0] = 1, f.seconds[1] = 2; /* as long as that: few rounds, and nothing more for this plan */
  f.trials = 0;
  ck_assert_int_eq(choose(&p, t, "f", &f, -1), 0);
  ck_assert_int_le(f.trials, 8);
  ck_assert_int_eq(choose(&p, t, "g", &f, -1), -1);
  p.c->tuning_left = 1;
  f.seconds[0] = 1e-3, f.seconds[1] = 1e-5; /* nothing is that much slower */
  ck_assert_int_eq(choose(&p, t, "busy", &f, -1), -1);
  f.seconds[0] = 2e-5, f.grows = 1e-5; /* nor is one trial that unlike the next */
  ck_assert_int_eq(choose(&p, t, "busy", &f, -1), -1);
  f.grows = 0;
  f.seconds[0] = 2e-5, f.seconds[1] = 1e-5;
  ck_assert_int_eq(choose(&p, t, "busy", &f, -1), 1);
  f.refuses = true;
  ck_assert_int_eq(choose(&p, t, "h", &f, -1), -1);
  kn_tuner_note(p.c, t, "i", "way of a later version", "");
  kn_tuner_note(p.c, t, "j", "fourth", "");
  ck_assert_int_eq(choose(&p, t, "j", &f, -1), -1);
  ck_assert_int_eq(kn_tune(p.c, NULL, &(kn_question){.key = "k", .n = 2, .flops = 1e9}), -1);
  kn_tuner_free(t);
  close_place(&p);
}
END_TEST

/* A large copy has to save more than a small one. */
START_TEST(copies_pay) {
  static const struct {
    double kept, given; /* us */
    size_t keeps;
    int want;
  } rows[] = {{1000, 1010, 0, 1},        {1000, 1050, 0, 0},        {1000, 1050, 3 << 20, 0},
              {1000, 1050, 8 << 20, 1},  {1000, 1100, 4 << 20, 1},  {1000, 1110, 4 << 20, 0},
              {1000, 1140, 64 << 20, 1}, {1000, 1160, 64 << 20, 0}, {10000, 10500, 8 << 20, 0}};
  place p;
  open_place(&p);
  kn_tuner *t = tuner(&p, "A");
  p.c->tuning = KN_TUNING_MEASURE;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char key[32];
    snprintf(key, sizeof key, "copy %zu", i);
    fake f = {.seconds = {rows[i].kept * 1e-6, rows[i].given * 1e-6, -1}};
    p.c->tuning_left = 1;
    ck_assert_int_eq(choose_beside(&p, t, key, &f, 1, rows[i].keeps), rows[i].want);
  }
  kn_tuner_free(t);
  close_place(&p);
}
END_TEST

/* ---- products of graphs ---- */

enum { ROWS = 64, INNER = 96, COLUMNS = 160 };
#define PRODUCT "matmul t2 constant 64x96:96,1 96x160:160,1 64x160"

typedef struct world { /* relu(x w) by all backends */
  place p;
  kn_graph *g;
  kn_session *s;
  kn_tensor *x;
} world;

static kn_tensor *noise(kn_context *c, int64_t rows, int64_t columns) {
  kn_type t = {.dtype = KN_F32, .rank = 2, .dims = {rows, columns}};
  kn_tensor *x;
  OK(c, kn_tensor_new(c, &t, &x));
  float *v = kn_tensor_data(x);
  for (int64_t i = 0; i < rows * columns; i++) v[i] = (float)((i * 7919 + 13) % 1009) / 1009 - 0.5f;
  return x;
}

static kn_graph *graph_of(kn_context *c) {
  kn_builder b;
  kn_graph *g;
  kn_tensor *w = noise(c, INNER, COLUMNS);
  kn_vtype input = {.kind = KN_V_TENSOR, .tensor = {.dtype = KN_F32, .rank = 2, .dims = {ROWS, INNER}}},
           weight = {.kind = KN_V_TENSOR, .tensor = w->type};
  OK(c, kn_graph_new(c, "g", &g));
  kn_builder_init(&b, c, g);
  kn_value *x = kn_add_input(&b, "x", &input);
  kn_value *in[2] = {x,
                     kn_add_slot_node(&b, KN_NODE_tensor, kn_add_slot(&b, KN_SLOT_CONST, "w", &weight, w))};
  kn_value *y = kn_add_op(&b, KN_OP_matmul, NULL, in, 2, NULL, 0)->out[0];
  y = kn_add_op(&b, KN_OP_relu, NULL, &y, 1, NULL, 0)->out[0];
  kn_tree args[1] = {{.kind = KN_TREE_VALUE, .value = x}}, result = {.kind = KN_TREE_VALUE, .value = y};
  ck_assert(kn_set_args(&b, args, 1) && kn_set_results(&b, &y, 1, &result, 1));
  OK(c, kn_graph_finish(&b));
  kn_tensor_release(w);
  return g;
}

/* False where there is no oneDNN, and so nothing to choose from. */
static bool open_world(world *w, kn_tuning tuning) {
  kn_backend_report r = {.name = ""};
  open_place(&w->p);
  kn_context *c = w->p.c;
  c->threads = 2;
  c->debug |= 1u << KN_DEBUG_DISPATCH | 1u << KN_DEBUG_EXEC;
  OK(c, kn_registry_open(c, NULL));
  for (int i = 0; strcmp(r.name, "onednn") && i < kn_registry_count(); i++) kn_registry_report(c, i, &r);
  if (!r.available) {
    printf("skipped, as there is no oneDNN: %s\n", r.reason);
    kn_registry_close(c);
    close_place(&w->p);
    return false;
  }
  OK(c, kn_registry_remember(c, w->p.dir));
  c->tuning = tuning;
  w->g = graph_of(c);
  w->x = noise(c, ROWS, INNER);
  w->s = NULL;
  return true;
}

static void new_session(world *w) {
  const kn_target *const *targets;
  int n;
  kn_session_free(w->s);
  OK(w->p.c, kn_registry_targets(w->p.c, &targets, &n));
  OK(w->p.c, kn_session_new(w->p.c, w->g, targets, n, &w->s));
}

static kn_tensor *run(world *w) {
  kn_rvalue in = {.tensor = w->x}, out;
  w->p.log[0] = 0;
  OK(kn_session_context(w->s), kn_session_run(w->s, &in, 1, &out, 1));
  return out.tensor;
}

static void close_world(world *w) {
  kn_session_free(w->s);
  kn_graph_release(w->g);
  kn_tensor_release(w->x);
  kn_registry_close(w->p.c);
  close_place(&w->p);
}

static bool same_bits(const kn_tensor *a, const kn_tensor *b) {
  return !memcmp(kn_tensor_data(a), kn_tensor_data(b), (size_t)kn_tensor_numel(a) * sizeof(float));
}

static void alike(const kn_tensor *a, const kn_tensor *b) {
  const float *x = kn_tensor_data(a), *y = kn_tensor_data(b);
  for (int64_t i = 0; i < kn_tensor_numel(b); i++) ck_assert_msg(fabsf(x[i] - y[i]) < 1e-4f, "at %d", (int)i);
}

/* The key that the file holds. */
static void key_of(world *w, char key[KN_TUNE_KEY]) {
  char line[1024];
  FILE *f = fopen(kn_tuner_path(kn_registry_tuner(w->p.c)), "r");
  ck_assert_ptr_nonnull(f);
  for (int i = 0; i < 3; i++) ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
  char *end = strstr(line, " = ");
  ck_assert_ptr_nonnull(end);
  *end = 0;
  ck_assert_uint_lt(strlen(line), KN_TUNE_KEY);
  strcpy(key, line + 9);
  fclose(f);
}

START_TEST(products_go_the_way_that_is_known) {
  world w;
  kn_run_memory memory;
  char key[KN_TUNE_KEY];
  if (!open_world(&w, KN_TUNING_KNOWN)) return;
  kn_context *c = w.p.c;
  new_session(&w);
  kn_tensor *rule = run(&w); /* a run measures nothing */
  ck_assert_int_eq(kn_tuner_count(kn_registry_tuner(c)), 0);
  ck_assert_ptr_null(strstr(w.p.log, "measured"));
  kn_rvalue in = {.tensor = w.x};
  for (int i = 0; i < 200 && !kn_tuner_count(kn_registry_tuner(c)); i++) { /* until the machine is quiet */
    w.p.log[0] = 0; /* preparing does, though there is a plan from the run */
    OK(kn_session_context(w.s), kn_session_prepare(w.s, &in, 1, &memory));
  }
  if (!kn_tuner_count(kn_registry_tuner(c))) kn_tuner_note(c, kn_registry_tuner(c), PRODUCT, "given", "");
  key_of(&w, key);
  ck_assert_str_eq(key, PRODUCT);
  static const char *const ways[] = {"given", "packed", "given/1", "packed/1", "elsewhere"};
  for (int i = 0; i < 5; i++) {
    kn_tuner_note(c, kn_registry_tuner(c), key, ways[i], "");
    new_session(&w);
    kn_tensor *y = run(&w);
    ck_assert_ptr_nonnull(strstr(w.p.log, i < 4 ? "(measured)" : "measured: others do it faster"));
    ck_assert(!strstr(w.p.log, "(measured)") == (i == 4));
    alike(y, rule);
    kn_tensor_release(y);
  }
  c->deterministic = true; /* the session's plan is another one, too */
  kn_tensor *y = run(&w);
  ck_assert_ptr_null(strstr(w.p.log, "measured"));
  ck_assert(same_bits(y, rule));
  kn_tensor_release(y);
  c->deterministic = false;
  kn_session_free(w.s);
  w.s = NULL;
  kn_tensor_release(rule);
  kn_registry_close(c); /* as another process begins */
  OK(c, kn_registry_open(c, NULL));
  OK(c, kn_registry_remember(c, w.p.dir));
  new_session(&w);
  kn_tensor_release(run(&w));
  ck_assert_ptr_nonnull(strstr(w.p.log, "measured: others do it faster"));
  close_world(&w);
}
END_TEST

/* A plan from before anything was known is not what preparing leaves. */
START_TEST(prepared_after_a_run) {
  world w;
  kn_run_memory memory;
  if (!open_world(&w, KN_TUNING_KNOWN)) return;
  kn_rvalue in = {.tensor = w.x};
  new_session(&w);
  for (int i = 0; i < 2; i++) {
    kn_tensor_release(run(&w));
    ck_assert(!strstr(w.p.log, "(measured)") == !i);
    if (i) break;
    kn_tuner_note(w.p.c, kn_registry_tuner(w.p.c), PRODUCT, "given", "");
    OK(kn_session_context(w.s), kn_session_prepare(w.s, &in, 1, &memory));
  }
  close_world(&w);
}
END_TEST

START_TEST(fixed_means_the_same_bits) {
  world w;
  kn_run_memory memory;
  if (!open_world(&w, KN_TUNING_FIXED)) return;
  kn_tensor *first = NULL;
  for (int i = 0; i < 3; i++) {
    kn_rvalue in = {.tensor = w.x};
    new_session(&w);
    OK(kn_session_context(w.s), kn_session_prepare(w.s, &in, 1, &memory));
    kn_tensor *y = run(&w);
    if (first) ck_assert(same_bits(first, y));
    if (!first) first = kn_tensor_retain(y);
    kn_tensor_release(y);
  }
  struct stat about;
  ck_assert_int_ne(stat(w.p.dir, &about), 0);
  kn_tensor_release(first);
  close_world(&w);
}
END_TEST

START_TEST(every_plan_measures_when_asked_to) {
  world w;
  if (!open_world(&w, KN_TUNING_MEASURE)) return;
  w.p.c->threads = 1;
  for (int i = 0; i < 500 && !strstr(w.p.log, "measured matmul"); i++) { /* until the machine is quiet */
    new_session(&w);
    kn_tensor_release(run(&w));
  }
  ck_assert_int_eq(kn_tuner_count(kn_registry_tuner(w.p.c)), 1);
  FAILS(w.p.c, KN_STATE, "too late", kn_registry_remember(w.p.c, "/tmp"));
  close_world(&w);
}
END_TEST

/* ---- convolutions of graphs ---- */

#define IMAGES "conv2d t2 nchw 2x8x20x20 32x8x3x3 s1,1 p1,1 d1,1 g1 bias relu"

static kn_tensor *noise4(kn_context *c, int64_t a, int64_t b, int64_t height, int64_t width) {
  kn_tensor *x = noise(c, a * b, height * width);
  x->type = (kn_type){.dtype = KN_F32, .rank = 4, .dims = {a, b, height, width}};
  kn_strides_contiguous(&x->type, x->strides);
  return x;
}

static kn_value *constant(kn_builder *b, kn_tensor *t) {
  kn_vtype type = {.kind = KN_V_TENSOR, .tensor = t->type};
  kn_value *v = kn_add_slot_node(b, KN_NODE_tensor, kn_add_slot(b, KN_SLOT_CONST, "w", &type, t));
  kn_tensor_release(t);
  return v;
}

/* relu(conv2d(x, w, bias)) in place of the product. */
static void take_images(world *w) {
  kn_context *c = w->p.c;
  kn_builder b;
  kn_graph_release(w->g);
  kn_tensor_release(w->x);
  w->x = noise4(c, 2, 8, 20, 20);
  kn_vtype input = {.kind = KN_V_TENSOR, .tensor = w->x->type};
  kn_attrs_conv2d a = {.stride = {1, {1}}, .padding = {1, {1}}, .dilation = {1, {1}}, .groups = 1};
  OK(c, kn_graph_new(c, "g", &w->g));
  kn_builder_init(&b, c, w->g);
  kn_value *x = kn_add_input(&b, "x", &input);
  kn_tensor *bias = noise(c, 1, 32);
  bias->type = (kn_type){.dtype = KN_F32, .rank = 1, .dims = {32}};
  bias->strides[0] = 1;
  kn_value *in[3] = {x, constant(&b, noise4(c, 32, 8, 3, 3)), constant(&b, bias)};
  kn_value *y = kn_add_op(&b, KN_OP_conv2d, &a, in, 3, NULL, 0)->out[0];
  y = kn_add_op(&b, KN_OP_relu, NULL, &y, 1, NULL, 0)->out[0];
  kn_tree args[1] = {{.kind = KN_TREE_VALUE, .value = x}}, result = {.kind = KN_TREE_VALUE, .value = y};
  ck_assert(kn_set_args(&b, args, 1) && kn_set_results(&b, &y, 1, &result, 1));
  OK(c, kn_graph_finish(&b));
}

START_TEST(convolutions_go_the_way_that_is_known) {
  world w;
  kn_run_memory memory;
  char key[KN_TUNE_KEY];
  if (!open_world(&w, KN_TUNING_KNOWN)) return;
  take_images(&w);
  kn_context *c = w.p.c;
  kn_tuner *t = kn_registry_tuner(c);
  new_session(&w);
  kn_tensor *rule = run(&w);
  ck_assert_int_eq(kn_tuner_count(t), 0);
  ck_assert_ptr_null(strstr(w.p.log, "measured"));
  kn_rvalue in = {.tensor = w.x};
  for (int i = 0; i < 200 && !kn_tuner_count(t); i++) { /* until the machine is quiet */
    new_session(&w);
    w.p.log[0] = 0;
    OK(kn_session_context(w.s), kn_session_prepare(w.s, &in, 1, &memory));
  }
  if (!kn_tuner_count(t)) kn_tuner_note(c, t, IMAGES, "free", "");
  key_of(&w, key);
  ck_assert_str_eq(key, IMAGES);
  int ways = 0;
  static const char *const all[] = {"free", "free/1", "free 2", "given", "given 2"};
  for (int i = 0; i < 5; i++) {
    kn_tuner_note(c, t, key, all[i], "");
    new_session(&w);
    kn_tensor *y = run(&w);
    bool taken = strstr(w.p.log, "(measured)") != NULL; /* else there is no such way on this machine */
    ck_assert(taken || i > 1);
    ways += taken;
    alike(y, rule);
    if (!taken) ck_assert(same_bits(y, rule));
    kn_tensor_release(y);
  }
  ck_assert_int_ge(ways, 2);
  kn_tuner_note(c, t, key, "free", "");
  c->deterministic = true;
  kn_tensor *y = run(&w);
  ck_assert_ptr_null(strstr(w.p.log, "measured"));
  ck_assert(same_bits(y, rule));
  kn_tensor_release(y);
  kn_tensor_release(rule);
  close_world(&w);
}
END_TEST

SUITE("tune", remembered, damaged, asked_while_it_says, damaged_anywhere, carried_from_another_machine,
      nowhere_to_write, no_file_by_that_name, several_writers, never_too_many, chosen, copies_pay,
      products_go_the_way_that_is_known, prepared_after_a_run, convolutions_go_the_way_that_is_known,
      fixed_means_the_same_bits, every_plan_measures_when_asked_to)
