/* What kernel.c and kernel_disk.c share: compiled programs as bytes, and the folder that keeps them. */
#ifndef KN_CUDA_KERNEL_INSIDE_H
#define KN_CUDA_KERNEL_INSIDE_H
#include "backends/cuda/kernel.h"
#include "backends/registry.h"

typedef struct cu_image { /* a cubin, or PTX */
  void *data;             /* from the heap */
  size_t bytes;
} cu_image;

typedef struct cu_disk {
  kn_heap *heap;
  char dir[1024];    /* "": nothing is kept */
  uint64_t capacity; /* bytes of all files at most */
  uint64_t bytes;    /* of all files, when last looked at, and what was written since */
  bool looked;
} cu_disk;

typedef struct cu_kernels cu_kernels;

void cu_disk_open(cu_disk *k, kn_heap *heap, const char *cache);
/* Is there a file of just this program, undamaged? */
bool cu_disk_read(cu_disk *k, const char *identity, const char *key, const char *source, cu_image *out);
/* What cannot be written is not. */
void cu_disk_write(cu_disk *k, const char *identity, const char *key, const char *source, const cu_image *i);
uint64_t cu_hash(const void *data, size_t n);

#endif
