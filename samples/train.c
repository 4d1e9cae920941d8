/* A C program that trains: runs the step that train.lua saved on points of its own, looks how well the
 * network does by the graph saved beside it, and keeps a checkpoint that it goes on from when it is started
 * again. No Lua anywhere.
 *
 *   train train.kiln CHECKPOINT.safetensors [EPOCHS]
 *
 * Stopped and started again it gives the numbers that it would have given without, to the bit. */
#include "kiln.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARMS = 3, POINTS = 3072, BATCH = 64, BATCHES = POINTS / BATCH, TESTS = 600 };

static void die(const char *what, const char *why) {
  fprintf(stderr, "train: %s: %s\n", what, why);
  exit(1);
}

/* ---- the data: spiral arms, each point a function of its number ---- */

static double uniform(uint32_t number) { /* from 0 to 1, by Wang's hash */
  uint32_t h = number;
  h = (h ^ 61) ^ (h >> 16);
  h *= 9;
  h ^= h >> 4;
  h *= 0x27d4eb2d;
  h ^= h >> 15;
  return h / 4294967296.0;
}

static void make_points(uint32_t first, int n, float *x, int64_t *y) {
  for (int i = 0; i < n; i++) {
    const uint32_t number = 4 * (first + (uint32_t)i);
    const int arm = (int)(uniform(number) * ARMS);
    const double r = uniform(number + 1), noise = uniform(number + 2) - 0.5;
    const double angle = 2.0 * 3.14159265358979 * arm / ARMS + 6.0 * r + 0.5 * noise;
    x[2 * i] = (float)(r * cos(angle));
    x[2 * i + 1] = (float)(r * sin(angle));
    y[i] = arm + 1; /* classes count from 1 */
  }
}

/* ---- a graph of the file with its session ---- */

typedef struct entry {
  kiln_graph *graph;
  kiln_session *session;
} entry;

static entry open_entry(kiln_context *ctx, const char *path, const char *name) {
  entry e;
  if (kiln_graph_load(ctx, path, name, &e.graph)) die("kiln", kiln_error(ctx));
  if (kiln_session_new(ctx, e.graph, &e.session)) die("kiln", kiln_error(ctx));
  return e;
}

static void close_entry(entry *e) {
  kiln_session_free(e->session);
  kiln_graph_release(e->graph);
}

static void check(const entry *e, kiln_status status) {
  if (status) die(kiln_graph_name(e->graph), kiln_session_error(e->session));
}

/* Our memory, seen by the graph as a tensor: filling it anew is enough for the next run. */
static void lend(kiln_context *ctx, entry *e, const char *name, kiln_dtype dtype, int rank,
                 const int64_t *sizes, void *data) {
  kiln_tensor *t;
  if (kiln_tensor_wrap(ctx, dtype, rank, sizes, data, NULL, NULL, &t)) die(name, kiln_error(ctx));
  check(e, kiln_session_set_tensor(e->session, name, t));
  kiln_tensor_release(t); /* the session holds it */
}

/* What both graphs have under one name, parameters and buffers, as the first has it now. */
static void copy_slots(entry *from, entry *to) {
  for (int i = 0; i < kiln_graph_slot_count(to->graph); i++) {
    kiln_info slot = {.size = sizeof slot};
    kiln_value v;
    kiln_graph_slot(to->graph, i, &slot);
    const int at = kiln_graph_find_slot(from->graph, slot.name);
    if (at < 0) continue;
    check(from, kiln_session_get_slot(from->session, at, &v));
    check(to, kiln_session_set_slot(to->session, i, &v));
    kiln_value_clear(&v);
  }
}

/* ---- training ---- */

/* Steps that the optimiser has taken: one of the slots. */
static int64_t steps_taken(entry *step) {
  kiln_value v;
  const int at = kiln_graph_find_slot(step->graph, "opt.state[1].step");
  if (at < 0) die(kiln_graph_name(step->graph), "has no opt.state[1].step");
  check(step, kiln_session_get_slot(step->session, at, &v));
  return v.i;
}

static double train_epoch(entry *step, int epoch, float *x, int64_t *y) {
  double sum = 0;
  check(step, kiln_session_set_float(step->session, "rate", 0.01 * pow(0.9, epoch)));
  for (int i = 0; i < BATCHES; i++) {
    double loss;
    make_points((uint32_t)(epoch * POINTS + i * BATCH), BATCH, x, y);
    check(step, kiln_session_run(step->session));
    check(step, kiln_session_get_float(step->session, "1", &loss));
    sum += loss;
  }
  return sum / BATCHES;
}

static double accuracy(entry *predict, const int64_t *y) {
  kiln_tensor *class;
  int right = 0;
  check(predict, kiln_session_run(predict->session));
  check(predict, kiln_session_get_tensor(predict->session, "1", &class));
  for (int i = 0; i < TESTS; i++) right += ((const int64_t *)kiln_tensor_data(class))[i] == y[i];
  kiln_tensor_release(class);
  return 100.0 * right / TESTS;
}

int main(int argc, char **argv) {
  if (argc < 3) die("usage", "train MODEL.kiln CHECKPOINT.safetensors [EPOCHS]");
  const int epochs = argc > 3 ? atoi(argv[3]) : 10;
  kiln_context_options options = {.size = sizeof options, .backend = getenv("KILN_BACKEND"), .threads = 1};
  kiln_context *ctx;
  char error[512];
  if (kiln_context_new(&options, &ctx, error, sizeof error)) die("kiln", error);
  entry step = open_entry(ctx, argv[1], "step"), predict = open_entry(ctx, argv[1], "predict");

  float x[2 * BATCH], test_x[2 * TESTS];
  int64_t y[BATCH], test_y[TESTS];
  make_points(1u << 28, TESTS, test_x, test_y);
  lend(ctx, &step, "x", KILN_FLOAT32, 2, (const int64_t[]){BATCH, 2}, x);
  lend(ctx, &step, "y", KILN_INT64, 1, (const int64_t[]){BATCH}, y);
  lend(ctx, &predict, "x", KILN_FLOAT32, 2, (const int64_t[]){TESTS, 2}, test_x);

  const int64_t before = steps_taken(&step); /* train.lua's own */
  FILE *kept = fopen(argv[2], "rb");
  if (kept) {
    fclose(kept);
    check(&step, kiln_session_restore(step.session, argv[2]));
  }
  for (int epoch = (int)((steps_taken(&step) - before) / BATCHES); epoch < epochs; epoch++) {
    const double loss = train_epoch(&step, epoch, x, y);
    copy_slots(&step, &predict);
    printf("epoch %d: loss %.9g, %.2f %% right\n", epoch + 1, loss, accuracy(&predict, test_y));
    check(&step, kiln_session_checkpoint(step.session, argv[2]));
  }
  close_entry(&step);
  close_entry(&predict);
  kiln_context_free(ctx);
  return 0;
}
