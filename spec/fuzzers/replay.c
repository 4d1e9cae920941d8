/* Every file of the corpus through its target, and some changes of it through the mutator: a suite.
 *   fuzzers                     all of corpus/
 *   fuzzers TARGET FILE …       these files alone, named as they come: what a fuzzer has found */
#include "spec/fuzzers/fuzz.h"
#include <dirent.h>
#include <stdio.h>

typedef struct target {
  const char *name;
  void (*run)(const uint8_t *, size_t);
  void (*change)(fuzz_change *);
  size_t most;
} target;

static const target targets[] = {
#define X(name, mutator, most) {#name, fuzz_##name, fuzz_change_##mutator, most},
#include "spec/fuzzers/targets.def"
#undef X
};

/* In a block of its own, so that a read past its end is seen. */
static void run(const target *t, const uint8_t *data, size_t size) {
  uint8_t *exact = malloc(size ? size : 1);
  if (size) memcpy(exact, data, size);
  fuzz_call(t->run, exact, size);
  free(exact);
}

static bool play(const target *t, const char *path, unsigned changes) {
  FILE *f = fopen(path, "rb");
  if (!f) return false;
  uint8_t *data = malloc(1 << 20), *changed = malloc(t->most);
  const size_t size = fread(data, 1, 1 << 20, f);
  const bool fine = !ferror(f);
  fclose(f);
  if (fine) run(t, data, size);
  fuzz_change c = {
      .data = changed, .most = t->most, .other = data, .other_size = size, .r = {fuzz_seed(data, size)}};
  for (unsigned i = 0; fine && i < changes; i++) {
    if (i % 4 == 0 && !fuzz_take(&c, data, size)) break;
    t->change(&c);
    FUZZ_HOLDS(c.size <= c.most);
    run(t, changed, c.size);
  }
  free(data);
  free(changed);
  return fine;
}

static unsigned play_folder(const target *t, const char *root) {
  char folder[512], path[1024];
  unsigned n = 0;
  snprintf(folder, sizeof folder, "%s/spec/fuzzers/corpus/%s", root, t->name);
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (*e->d_name != '.') n += play(t, path, 8);
  }
  if (d) closedir(d);
  return n;
}

int main(int argc, char **argv) {
  const char *root = getenv("KILN_SOURCE");
  unsigned passed = 0, failed = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
    if (argc > 1 && strcmp(argv[1], targets[i].name) != 0) continue;
    for (int k = 2; k < argc; k++) {
      printf("%s\n", argv[k]);
      if (play(&targets[i], argv[k], 0))
        passed++;
      else
        failed++;
    }
    if (argc > 2) continue;
    const unsigned n = play_folder(&targets[i], root ? root : ".");
    printf("%s: %u inputs\n", targets[i].name, n);
    passed += n;
    failed += n == 0;
  }
  if (argc > 1 && !passed && !failed) fprintf(stderr, "there is no target %s\n", argv[1]), failed = 1;
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0;
}
