/* Changes of bytes that know nothing of what they stand for, and what the other mutators are made of. */
#include "spec/fuzzers/fuzz.h"

bool fuzz_take(fuzz_change *c, const void *p, size_t n) {
  if (n > c->most) return false;
  memmove(c->data, p, n);
  c->size = n;
  return true;
}

bool fuzz_splice(fuzz_change *c, size_t at, size_t cut, const void *with, size_t n) {
  if (c->size - cut + n > c->most) return false;
  memmove(c->data + at + n, c->data + at + cut, c->size - at - cut);
  if (n) memcpy(c->data + at, with, n);
  c->size = c->size - cut + n;
  return true;
}

/* A number of 1, 2, 4 or 8 bytes, at one of the edges of what fits. */
static void put_number(fuzz_change *c, size_t at) {
  static const uint64_t edges[] = {0,
                                   1,
                                   2,
                                   7,
                                   8,
                                   16,
                                   127,
                                   128,
                                   255,
                                   256,
                                   32767,
                                   65535,
                                   65536,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   (uint64_t)1 << 32,
                                   INT64_MAX,
                                   (uint64_t)1 << 63,
                                   UINT64_MAX};
  uint64_t v = edges[random_below(&c->r, sizeof edges / sizeof *edges)];
  const size_t n = (size_t)1 << random_below(&c->r, 4);
  for (size_t i = 0; i < n && at + i < c->size; i++, v >>= 8) c->data[at + i] = (uint8_t)v;
}

/* A piece of the input, or of the other one, to another place. */
static void put_piece(fuzz_change *c, size_t at) {
  const bool others = c->other_size && random_below(&c->r, 2);
  const uint8_t *from = others ? c->other : c->data;
  const size_t size = others ? c->other_size : c->size;
  uint8_t piece[64];
  size_t start = random_below(&c->r, (unsigned)size), n = 1 + random_below(&c->r, sizeof piece);
  if (n > size - start) n = size - start;
  memcpy(piece, from + start, n);
  const size_t left = c->size - at;
  (void)fuzz_splice(c, at, random_below(&c->r, 2) ? 0 : n < left ? n : left, piece, n);
}

void fuzz_change_bytes(fuzz_change *c) {
  if (!c->size) {
    const uint8_t any = (uint8_t)random_below(&c->r, 256);
    (void)fuzz_splice(c, 0, 0, &any, 1);
  }
  for (unsigned times = 1 + random_below(&c->r, 4); times && c->size; times--) {
    const size_t at = random_below(&c->r, (unsigned)c->size), left = c->size - at;
    switch (random_below(&c->r, 7)) {
    case 0: c->data[at] ^= (uint8_t)(1u << random_below(&c->r, 8)); break;
    case 1: c->data[at] = (uint8_t)random_below(&c->r, 256); break;
    case 2: c->data[at] = (uint8_t)(c->data[at] + random_below(&c->r, 9) - 4); break;
    case 3: put_number(c, at); break;
    case 4: {
      const size_t n = 1 + random_below(&c->r, 32);
      (void)fuzz_splice(c, at, n < left ? n : left, NULL, 0);
      break;
    }
    default: put_piece(c, at);
    }
  }
}
