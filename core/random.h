/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). A draw of n values takes a block of counters, so value i of a draw depends on the seed, the
 * draw's place in the program and i alone: not on threads, not on devices. */
#ifndef KN_RANDOM_H
#define KN_RANDOM_H
#include <stdint.h>

typedef struct kn_random {
  uint64_t seed;
  uint64_t offset; /* counters used so far; each yields four 32-bit words */
} kn_random;

void kn_random_seed(kn_random *r, uint64_t seed);
/* Take enough counters for n 32-bit words; returns the first counter. */
uint64_t kn_random_take(kn_random *r, uint64_t words);
/* The seed of another stream: a function of the place in this one, which goes on one counter later. */
uint64_t kn_random_split(kn_random *r);
/* The four words of one counter. */
void kn_philox(uint64_t seed, uint64_t counter, uint32_t out[4]);
/* The same of block `block` behind a counter, of which the stream itself is block 0: a stream of its own for
 * whoever needs an unknown number of words. */
void kn_philox_block(uint64_t seed, uint64_t counter, uint32_t block, uint32_t out[4]);
/* Word `i` of the draw that starts at `first`. */
uint32_t kn_random_word(uint64_t seed, uint64_t first, uint64_t i);
/* Uniform in [0, 1): 24 bits for float32, 53 for float64 (from two words). */
float kn_uniform_f32(uint32_t word);
double kn_uniform_f64(uint32_t hi, uint32_t lo);

#endif
