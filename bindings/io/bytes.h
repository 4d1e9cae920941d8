/* Bytes in memory of a heap: whole files, and what encoders make. */
#ifndef KN_BYTES_H
#define KN_BYTES_H
#include "core/context.h"
#include <stdbool.h>

typedef struct kn_bytes {
  kn_heap *heap; /* borrowed */
  char *p;
  size_t n, room;
} kn_bytes;

static inline void kn_bytes_free(kn_bytes *b) {
  kn_free(b->heap, b->p, b->room);
  b->p = NULL;
  b->n = b->room = 0;
}
/* Room for `more` bytes behind the n that are there. False when out of memory; the bytes stay. */
bool kn_bytes_reserve(kn_bytes *b, size_t more);
bool kn_bytes_add(kn_bytes *b, const void *p, size_t n);

/* The whole file, of at most `limit` bytes (0: any). Sentences begin with the path. */
kn_status kn_read_file(kn_context *ctx, const char *path, uint64_t limit, kn_bytes *out);
/* A file being written beside `path`, which it takes the place of when it is closed well. Not waited for
 * until it is on the disk: what must survive that is saved as safetensors. */
typedef struct kn_new_file {
  void *file; /* FILE * */
  char *path, *temp;
  size_t room; /* of each */
  kn_heap *heap;
} kn_new_file;
kn_status kn_new_file_open(kn_context *ctx, const char *path, kn_new_file *out);
/* `good` false: the file is dropped, and KN_OK returned. */
kn_status kn_new_file_close(kn_context *ctx, kn_new_file *f, bool good);

/* Compressed bytes as what is in them: gzip (also several after each other), whose checksums are checked. */
bool kn_is_gzip(const void *p, size_t n);
kn_status kn_gunzip(kn_context *ctx, const void *p, size_t n, uint64_t limit, kn_bytes *out); /* gzip.c */

#endif
