/* CRC-64/XZ (ECMA-182, reflected): every error burst of up to 64 bits changes it, so a flipped bit anywhere
 * in a file is seen. Eight bytes a step, about 1.5 GB/s. It guards against damage, not against forgery. */
#ifndef KN_CHECKSUM_H
#define KN_CHECKSUM_H
#include <stddef.h>
#include <stdint.h>

typedef struct kn_crc {
  uint64_t table[8][256];
  uint64_t state;
} kn_crc; /* 16 KB: make one, feed it, read it */

void kn_crc_start(kn_crc *c);
void kn_crc_feed(kn_crc *c, const void *data, size_t n);
uint64_t kn_crc_value(const kn_crc *c);

#endif
