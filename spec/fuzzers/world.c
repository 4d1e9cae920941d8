/* What targets stand on: contexts, what counts as a finding, runs of graphs, bytes as a file. */
#define _GNU_SOURCE
#include "spec/fuzzers/fuzz.h"
#include "backends/registry.h"
#include "bindings/c/handle.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_MEMORY = 768 << 10, MOST_STEPS = 100 };

_Noreturn void fuzz_broken(const char *what, const char *file, int line) {
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  abort();
}

/* ---- contexts ---- */

static kn_context *contexts[FUZZ_BACKENDS];

kn_context *fuzz_context(fuzz_backend b) {
  static const char *const names[FUZZ_BACKENDS] = {"ref", "cpu"};
  if (contexts[b]) return contexts[b];
  kiln_context_options o = {.size = sizeof o, .backend = names[b], .threads = 1};
  kiln_context *made;
  char why[256];
  if (kiln_context_new(&o, &made, why, sizeof why) != KILN_OK) fuzz_broken(why, __FILE__, __LINE__);
  kn_context *ctx = contexts[b] = core_context(made);
  const kn_target *const *targets; /* opens the backends, which stay */
  int n;
  FUZZ_HOLDS(kn_registry_targets(ctx, &targets, &n) == KN_OK);
  kn_heap_set_limit(ctx->heap, kn_heap_read_stats(ctx->heap).bytes + MOST_MEMORY);
  return ctx;
}

static uint64_t blocks(void) {
  uint64_t n = 0;
  for (int b = 0; b < FUZZ_BACKENDS; b++)
    if (contexts[b]) n += kn_heap_read_stats(contexts[b]->heap).blocks;
  return n;
}

void fuzz_call(void (*target)(const uint8_t *, size_t), const uint8_t *data, size_t size) {
  for (int b = 0; b < FUZZ_BACKENDS; b++) fuzz_context((fuzz_backend)b);
  uint64_t left[3];
  for (int i = 0; i < 3; i++) { /* what is made once, at first use, may stay */
    const uint64_t before = blocks();
    target(data, size);
    left[i] = blocks() - before;
    if (!left[i]) return;
  }
  fprintf(stderr, "%llu blocks stay behind each time\n", (unsigned long long)left[2]);
  fuzz_broken("memory is given back", __FILE__, __LINE__);
}

/* ---- findings that are no crashes ---- */

bool fuzz_ok(kn_context *ctx, kn_status st) {
  if (st == KN_OK) return true;
  if (st != KN_INTERNAL && st != KN_DECLINED && *kn_error(ctx)) return false;
  fprintf(stderr, "status \"%s\": %s\n", kn_status_text(st), kn_error(ctx));
  fuzz_broken("bad input is answered by a status of its own and a sentence", __FILE__, __LINE__);
}

uint64_t fuzz_seed(const uint8_t *data, size_t size) {
  uint64_t s = 14695981039346656037u; /* FNV-1a */
  for (size_t i = 0; i < size; i++) s = (s ^ data[i]) * 1099511628211u;
  return s ^ s >> 29;
}

/* ---- graphs ---- */

void fuzz_run(kn_graph *g, uint64_t seed) {
  for (int b = 0; b < FUZZ_BACKENDS; b++) {
    kn_context *ctx = fuzz_context((fuzz_backend)b);
    const kn_target *const *targets;
    int n;
    if (fuzz_ok(ctx, kn_registry_targets(ctx, &targets, &n)))
      (void)fuzz_ok(ctx, run_damaged(ctx, g, seed, MOST_STEPS, targets, n));
  }
}

/* ---- files ---- */

const char *fuzz_path(const uint8_t *data, size_t size) {
  static char path[40];
  static int file = -1;
  if (file < 0) {
    file = memfd_create("fuzz", 0);
    FUZZ_HOLDS(file >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  }
  FUZZ_HOLDS(!ftruncate(file, 0) && pwrite(file, data, size, 0) == (ssize_t)size);
  return path;
}
