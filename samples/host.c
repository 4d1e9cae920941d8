/* A complete C host: loads the graph that digits.lua saved and runs it on images from IDX files. No Lua
 * anywhere.
 *
 *   host digits.kiln IMAGES.idx3-ubyte LABELS.idx1-ubyte [PREDICTIONS]
 *
 * Prints accuracy, how many images the cheap head answered alone, and the time an image takes. PREDICTIONS
 * gets a line for each image: class confidence deep. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "kiln.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void die(const char *what, const char *why) {
  fprintf(stderr, "host: %s: %s\n", what, why);
  exit(1);
}

/* The bytes of an IDX file whose elements are bytes, `each` of them an item; *count gets the number of items.
 */
static unsigned char *read_idx(const char *path, size_t each, size_t *count) {
  unsigned char head[16];
  FILE *f = fopen(path, "rb");
  if (!f) die(path, "cannot be opened");
  if (fread(head, 1, 4, f) != 4 || head[0] || head[1] || head[2] != 8 || head[3] < 1 || head[3] > 3 ||
      fread(head + 4, 4, head[3], f) != head[3])
    die(path, "is no IDX file of bytes");
  size_t n = (size_t)head[4] << 24 | (size_t)head[5] << 16 | (size_t)head[6] << 8 | head[7];
  unsigned char *data = malloc(n * each + 1);
  if (!data || fread(data, each, n, f) != n) die(path, "is shorter than it says");
  fclose(f);
  *count = n;
  return data;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void log_line(void *ud, kiln_output kind, const char *text, size_t length) {
  (void)ud, (void)kind;
  fprintf(stderr, "%.*s\n", (int)length, text);
}

int main(int argc, char **argv) {
  if (argc < 4) die("usage", "host MODEL.kiln IMAGES LABELS [PREDICTIONS]");
  size_t n, labelled;
  unsigned char *pixels = read_idx(argv[2], 64, &n), *labels = read_idx(argv[3], 1, &labelled);
  if (!n || n != labelled) die(argv[3], "does not have a label for each image");
  FILE *predictions = argc > 4 ? fopen(argv[4], "w") : NULL;
  if (argc > 4 && !predictions) die(argv[4], "cannot be written");

  kiln_context_options options = {.size = sizeof options,
                                  .backend = getenv("KILN_BACKEND"),
                                  .debug = getenv("KILN_DEBUG"),
                                  .output = log_line};
  kiln_context *ctx;
  kiln_graph *graph;
  kiln_session *session;
  char error[512];
  if (kiln_context_new(&options, &ctx, error, sizeof error)) die("kiln", error);
  if (kiln_graph_load(ctx, argv[1], NULL, &graph)) die("kiln", kiln_error(ctx));
  if (kiln_session_new(ctx, graph, &session)) die("kiln", kiln_error(ctx));

  /* The image is our memory, seen by the graph as a tensor: filling it anew is enough for the next run. */
  float image[64];
  const int64_t sizes[4] = {1, 1, 8, 8};
  kiln_tensor *x;
  if (kiln_tensor_wrap(ctx, KILN_FLOAT32, 4, sizes, image, NULL, NULL, &x)) die("kiln", kiln_error(ctx));
  if (kiln_session_set_tensor(session, "x", x)) die("kiln", kiln_session_error(session));

  size_t right = 0, early = 0;
  double start = seconds();
  for (size_t i = 0; i < n; i++) {
    kiln_value class, confidence, deep; /* what predict returns, in order */
    for (int k = 0; k < 64; k++) image[k] = (float)pixels[64 * i + (size_t)k] / 16.0f;
    if (kiln_session_run(session) || kiln_session_get(session, 0, &class) ||
        kiln_session_get(session, 1, &confidence) || kiln_session_get(session, 2, &deep))
      die("kiln", kiln_session_error(session));
    right += class.i == labels[i] + 1; /* classes count from 1 */
    early += !deep.b;
    if (predictions)
      fprintf(predictions, "%d %.9g %s\n", (int)class.i, confidence.f, deep.b ? "true" : "false");
  }
  double each = (seconds() - start) / (double)n * 1e6;
  printf("%zu images: %.2f %% right, %zu early exits, %.1f us an image\n", n,
         100.0 * (double)right / (double)n, early, each);
  if (predictions && fclose(predictions)) die(argv[4], "could not be written");

  kiln_tensor_release(x);
  kiln_session_free(session);
  kiln_graph_release(graph);
  kiln_context_free(ctx);
  free(pixels);
  free(labels);
  return 0;
}
