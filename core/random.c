/* Philox4x32-10 and the mapping of its words to uniforms. */
#include "core/random.h"

void kn_random_seed(kn_random *r, uint64_t seed) { *r = (kn_random){.seed = seed}; }

uint64_t kn_random_take(kn_random *r, uint64_t words) {
  uint64_t first = r->offset;
  r->offset += (words + 3) / 4;
  return first;
}

uint64_t kn_random_split(kn_random *r) {
  uint32_t w[4];
  kn_philox(r->seed, kn_random_take(r, 4), w);
  return (uint64_t)w[0] << 32 | w[1];
}

void kn_philox(uint64_t seed, uint64_t counter, uint32_t out[4]) { kn_philox_block(seed, counter, 0, out); }

void kn_philox_block(uint64_t seed, uint64_t counter, uint32_t block, uint32_t out[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = block, c3 = 0;
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = UINT64_C(0xD2511F53) * c0, p1 = UINT64_C(0xCD9E8D57) * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += UINT32_C(0x9E3779B9);
    k1 += UINT32_C(0xBB67AE85);
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint32_t kn_random_word(uint64_t seed, uint64_t first, uint64_t i) {
  uint32_t w[4];
  kn_philox(seed, first + i / 4, w);
  return w[i % 4];
}

float kn_uniform_f32(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }

double kn_uniform_f64(uint32_t hi, uint32_t lo) {
  return (double)(((uint64_t)hi << 32 | lo) >> 11) * 0x1p-53;
}
