/* CRC-64/XZ by eight tables. */
#include "graph/checksum.h"
#include <string.h>

void kn_crc_start(kn_crc *c) {
  for (unsigned i = 0; i < 256; i++) {
    uint64_t v = i;
    for (int k = 0; k < 8; k++) v = v & 1 ? v >> 1 ^ 0xC96C5795D7870F42u : v >> 1;
    c->table[0][i] = v;
  }
  for (unsigned i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++)
      c->table[k][i] = c->table[k - 1][i] >> 8 ^ c->table[0][c->table[k - 1][i] & 255];
  c->state = UINT64_MAX;
}

void kn_crc_feed(kn_crc *c, const void *data, size_t n) {
  const unsigned char *p = data;
  uint64_t s = c->state;
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t w; /* eight bytes, the first one lowest on any machine */
    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    s ^= w;
    s = c->table[7][s & 255] ^ c->table[6][s >> 8 & 255] ^ c->table[5][s >> 16 & 255] ^
        c->table[4][s >> 24 & 255] ^ c->table[3][s >> 32 & 255] ^ c->table[2][s >> 40 & 255] ^
        c->table[1][s >> 48 & 255] ^ c->table[0][s >> 56];
  }
  for (; n; n--, p++) s = s >> 8 ^ c->table[0][(s ^ *p) & 255];
  c->state = s;
}

uint64_t kn_crc_value(const kn_crc *c) { return ~c->state; }
