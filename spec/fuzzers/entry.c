/* One target as libFuzzer and AFL++ want it: FUZZ_TARGET is its name, FUZZ_MUTATOR what changes its inputs.
 */
#include "spec/fuzzers/fuzz.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_call(JOIN(fuzz_, FUZZ_TARGET), data, size);
  return 0;
}

#ifdef FUZZ_LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t most, unsigned seed);

/* libFuzzer's own mutations know what was compared with what. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
  if (seed % 5 == 0) return LLVMFuzzerMutate(data, size, most);
  fuzz_change c = {.data = data, .size = size, .most = most, .r = {seed}};
  JOIN(fuzz_change_, FUZZ_MUTATOR)(&c);
  return c.size;
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t most, unsigned seed) {
  fuzz_change c = {.data = out, .most = most, .other = b, .other_size = b_size, .r = {seed}};
  if (!fuzz_take(&c, a, a_size)) return 0;
  JOIN(fuzz_change_, FUZZ_MUTATOR)(&c);
  return c.size;
}
#endif
