/* Bytes of a file that tensors borrow: counted, released with the last tensor. And files written whole or not
 * at all. */
#ifndef KN_MAPPING_H
#define KN_MAPPING_H
#include "core/tensor.h"

typedef struct kn_mapping kn_mapping; /* counted atomically */
struct kn_mapping {
  atomic_int refs;
  kn_heap *heap; /* retained */
  char *bytes;
  size_t size;
  kn_release_fn release; /* of the bytes */
  void *ud;
};

/* Maps a file: private, so writing to a tensor changes neither the file nor what others see. */
kn_status kn_mapping_open(kn_context *ctx, const char *path, kn_mapping **out);
/* Takes over bytes; release is called at once if this fails. release NULL: the bytes are copied. */
kn_status kn_mapping_new(kn_context *ctx, const void *bytes, size_t size, kn_release_fn release, void *ud,
                         kn_mapping **out);
kn_mapping *kn_mapping_retain(kn_mapping *m);
void kn_mapping_release(kn_mapping *m);                          /* NULL is fine */
void kn_mapping_tensor_gone(void *ud, void *data, size_t bytes); /* a kn_release_fn; ud is the mapping */

/* Pieces, one after the other, into a new file beside `path` that takes its place once it is on the disk (it
 * and the folder are synced, so that a crash leaves the old file or the new one). Who has the old one open or
 * mapped keeps it. The mode is the old file's, else 0644 less the umask; a symbolic link stays and what it
 * shows is replaced; what is no regular file is refused, other names of the same file keep the old one. */
typedef struct kn_piece {
  const void *p;
  size_t n;
} kn_piece;
kn_status kn_write_file(kn_context *ctx, const char *path, const kn_piece *pieces, size_t n);

#endif
