/* What a host waits for, and what it keeps: a graph of one input x loaded and run for the first time in a
 * fresh process, then a thousand times more with its results taken and released. Prints a line of what that
 * took.
 *
 *   start MODEL.kiln */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "kiln.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *count(void *ud, void *ptr, size_t old, size_t size) {
  (void)old;
  if (size) ++*(long *)ud;
  if (size) return realloc(ptr, size);
  free(ptr);
  return NULL;
}

static void must(kiln_status st, const char *why) {
  if (st == KILN_OK) return;
  fprintf(stderr, "start: %s\n", why);
  exit(1);
}

/* A run and all its results. */
static void run(kiln_session *s, int outputs) {
  must(kiln_session_run(s), kiln_session_error(s));
  for (int i = 0; i < outputs; i++) {
    kiln_value v;
    must(kiln_session_get(s, i, &v), kiln_session_error(s));
    kiln_value_clear(&v);
  }
}

int main(int argc, char **argv) {
  enum { RUNS = 1000 };
  double wall = seconds(CLOCK_MONOTONIC), busy = seconds(CLOCK_PROCESS_CPUTIME_ID);
  long allocations = 0;
  char error[512];
  kiln_context_options o = {.size = sizeof o, .alloc = count, .alloc_ud = &allocations};
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
  kiln_info x = {.size = sizeof x};
  kiln_tensor *t;
  if (argc < 2) must(KILN_ARG, "start MODEL.kiln");
  must(kiln_context_new(&o, &ctx, error, sizeof error), error);
  must(kiln_graph_load(ctx, argv[1], NULL, &g), kiln_error(ctx));
  must(kiln_graph_input(g, 0, &x), "no input");
  must(kiln_session_new(ctx, g, &s), kiln_error(ctx));
  must(kiln_tensor_new(ctx, x.dtype, x.rank, x.sizes, NULL, &t), kiln_error(ctx));
  must(kiln_session_set_tensor(s, x.name, t), kiln_session_error(s));
  int outputs = kiln_graph_output_count(g);
  run(s, outputs);
  wall = seconds(CLOCK_MONOTONIC) - wall;
  double all = seconds(CLOCK_PROCESS_CPUTIME_ID); /* from the program's start, the loader's work included */
  run(s, outputs);

  long before = allocations;
  double each = seconds(CLOCK_MONOTONIC);
  for (int i = 0; i < RUNS; i++) run(s, outputs);
  each = seconds(CLOCK_MONOTONIC) - each;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("first: %.2f ms by the clock, %.2f of the processor, %.2f with the loader; then %ld allocations in "
         "%d runs of "
         "%.1f us; %ld kB resident\n",
         wall * 1e3, (all - busy) * 1e3, all * 1e3, allocations - before, RUNS, each / RUNS * 1e6,
         used.ru_maxrss);
  kiln_tensor_release(t);
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(ctx);
  return 0;
}
