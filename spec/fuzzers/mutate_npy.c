/* Changes of .npy files and of archives of them: words of the header, then lengths that fit again, so that
 * what is behind the checks of lengths is reached. */
#include "spec/fuzzers/fuzz.h"
#include <stdio.h>
#include <zlib.h>

/* ---- .npy ---- */

typedef struct npy_header {
  char text[512];
  size_t n, bytes; /* of the text, and of the elements it promises, where they are few */
} npy_header;

static npy_header make_header(random_state *r) {
  static const char *const words[] = {"|b1", "|u1", "|i1", "<i2", ">i2", "<i4",  ">i4", "<i8",
                                      ">i8", "<f2", ">f2", "<f4", ">f4", "<f8",  ">f8", "=f4",
                                      "<c8", "|O",  "<U3", "|S1", "|V2", "<f16", "",    "f4"};
  static const char *const sizes[] = {
      "0", "1", "2", "3", "5", "7", "16", "-1", "4294967296", "9223372036854775807", "2L", " 4 "};
  const char *word = words[random_below(r, sizeof words / sizeof *words)];
  unsigned rank = random_below(r, 16) ? random_below(r, 5) : 8 + random_below(r, 2);
  npy_header h;
  h.bytes = *word ? (size_t)(word[strlen(word) - 1] - '0') : 0;
  h.n = (size_t)sprintf(h.text, "{'descr': '%s', 'fortran_order': %s, 'shape': (", word,
                        random_below(r, 2) ? "True" : "False");
  for (unsigned i = 0; i < rank; i++) {
    const char *size = sizes[random_below(r, random_below(r, 8) ? 6 : sizeof sizes / sizeof *sizes)];
    h.n += (size_t)sprintf(h.text + h.n, "%s%s", size, rank == 1 || i + 1 < rank ? ", " : "");
    h.bytes = h.bytes % 1024 * (size_t)atoi(size);
  }
  h.n += (size_t)sprintf(h.text + h.n, "), }");
  return h;
}

/* Magic, version, length of the header, then as much data as the header wants, if that is little. */
static void fit(fuzz_change *c, const npy_header *h) {
  const unsigned version = 1 + random_below(&c->r, 3);
  const size_t at = version == 1 ? 10 : 12, start = (at + h->n + 1 + 15) / 16 * 16,
               bytes = random_below(&c->r, 16) ? h->bytes : random_below(&c->r, 64);
  if (start > c->most || bytes > c->most - start) return;
  c->size = start + bytes;
  memset(c->data, ' ', start);
  memcpy(c->data, "\x93NUMPY", 6);
  c->data[6] = (uint8_t)version;
  c->data[7] = 0;
  for (size_t i = 8; i < at; i++) c->data[i] = (uint8_t)((start - at) >> 8 * (i - 8));
  memcpy(c->data + at, h->text, h->n);
  c->data[start - 1] = '\n';
  for (size_t i = start; i < c->size; i++) c->data[i] = (uint8_t)random_below(&c->r, 4);
}

void fuzz_change_npy(fuzz_change *c) {
  const npy_header h = make_header(&c->r);
  if (random_below(&c->r, 4) == 0)
    fit(c, &h);
  else
    fuzz_change_bytes(c);
}

/* ---- .npz ---- */

static void put(uint8_t **p, unsigned bytes, uint64_t v) {
  for (; bytes; bytes--, v >>= 8) *(*p)++ = (uint8_t)v;
}

/* What the local and the central header of an entry share. */
static void put_entry(uint8_t **p, uint32_t sum, size_t size, size_t name) {
  put(p, 2, 20);                                     /* version */
  put(p, 2, 0), put(p, 2, 0), put(p, 4, 0x21 << 16); /* flags, stored, time and date */
  put(p, 4, sum), put(p, 4, size), put(p, 4, size);
  put(p, 2, name), put(p, 2, 0);
}

void fuzz_change_npz(fuzz_change *c) {
  enum { ENTRIES = 3, MOST = 512, ROOM = ENTRIES * (MOST + 200) + 22 };
  uint8_t out[ROOM], central[ENTRIES * 100], *p = out, *q = central;
  const unsigned n = 1 + random_below(&c->r, ENTRIES);
  if (c->most < ROOM || random_below(&c->r, 2)) {
    fuzz_change_bytes(c);
    return;
  }
  for (unsigned i = 0; i < n; i++) {
    static const char *const names[] = {"a.npy", "b.npy", ".npy", "a.npz", "x/y.npy"};
    const char *name = names[random_below(&c->r, random_below(&c->r, 4) ? 2 : 5)];
    uint8_t data[MOST];
    const npy_header h = make_header(&c->r);
    fuzz_change entry = {.data = data, .most = MOST, .r = c->r};
    fit(&entry, &h);
    c->r = entry.r;
    const uint32_t sum = (uint32_t)crc32(0, data, (uInt)entry.size);
    const size_t at = (size_t)(p - out), length = strlen(name);
    put(&p, 4, 0x04034b50), put_entry(&p, sum, entry.size, length);
    memcpy(p, name, length), p += length;
    memcpy(p, data, entry.size), p += entry.size;
    put(&q, 4, 0x02014b50), put(&q, 2, 20), put_entry(&q, sum, entry.size, length);
    put(&q, 2, 0), put(&q, 2, 0), put(&q, 2, 0), put(&q, 4, 0), put(&q, 4, at);
    memcpy(q, name, length), q += length;
  }
  const size_t at = (size_t)(p - out), size = (size_t)(q - central);
  memcpy(p, central, size), p += size;
  put(&p, 4, 0x06054b50), put(&p, 4, 0), put(&p, 2, n), put(&p, 2, n), put(&p, 4, size), put(&p, 4, at),
      put(&p, 2, 0);
  (void)fuzz_take(c, out, (size_t)(p - out));
  if (random_below(&c->r, 4) == 0) fuzz_change_bytes(c);
}
