/* The mutators as a library for AFL++ (AFL_CUSTOM_MUTATOR_LIBRARY), of the target that KILN_FUZZ_TARGET
 * names. */
#include "spec/fuzzers/fuzz.h"

#define API __attribute__((visibility("default")))

typedef struct mutator {
  void (*change)(fuzz_change *);
  random_state r;
  uint8_t *out;
  size_t room;
} mutator;

API void *afl_custom_init(void *afl, unsigned seed);
API size_t afl_custom_fuzz(mutator *m, uint8_t *in, size_t size, uint8_t **out, uint8_t *other,
                           size_t other_size, size_t most);
API void afl_custom_deinit(mutator *m);

void *afl_custom_init(void *afl, unsigned seed) {
  const char *target = getenv("KILN_FUZZ_TARGET");
  mutator *m = calloc(1, sizeof *m);
  (void)afl;
  if (!m) return NULL;
  m->r.s = seed;
#define X(name, mutator, most)                                                                               \
  if (target && !strcmp(target, #name)) m->change = fuzz_change_##mutator, m->room = most;
#include "spec/fuzzers/targets.def"
#undef X
  m->out = m->room ? malloc(m->room) : NULL;
  if (m->out) return m;
  free(m);
  return NULL;
}

size_t afl_custom_fuzz(mutator *m, uint8_t *in, size_t size, uint8_t **out, uint8_t *other, size_t other_size,
                       size_t most) {
  fuzz_change c = {.data = m->out,
                   .most = most < m->room ? most : m->room,
                   .other = other,
                   .other_size = other_size,
                   .r = m->r};
  *out = m->out;
  (void)fuzz_take(&c, in, size < c.most ? size : c.most);
  m->change(&c);
  m->r = c.r;
  return c.size;
}

void afl_custom_deinit(mutator *m) {
  free(m->out);
  free(m);
}
