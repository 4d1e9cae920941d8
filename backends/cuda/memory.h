/* The caching allocator of a device. Memory comes from the driver in segments and is cut into blocks; freed
 * blocks are given out again at once, as all work of a device is in the order of one stream, so what was
 * launched before reads and writes them before what is launched after. Where segments come from is a
 * function, so that the allocator runs without a device, too.
 *
 * It may be used from any thread, and lives until the last block is freed, its device or not. */
#ifndef KN_CUDA_MEMORY_H
#define KN_CUDA_MEMORY_H
#include "backends/cuda/device.h"

typedef struct cu_base { /* whom segments are asked of */
  void *ud;
  bool (*get)(void *ud, size_t bytes, CUdeviceptr *out); /* false: there is no memory */
  void (*give_back)(void *ud, CUdeviceptr p, size_t bytes);
} cu_base;

typedef struct cu_memory_stats {
  size_t allocated, reserved;           /* bytes in blocks that are in use; of all segments */
  size_t peak_allocated, peak_reserved; /* the most since the last reset */
  uint64_t blocks, segments;
  uint64_t calls, retries; /* allocations so far; those that needed cached segments to be given back */
} cu_memory_stats;

typedef struct cu_pool cu_pool;

enum { CU_ROUND = 512 }; /* sizes and addresses of blocks */

cu_pool *cu_pool_new(kn_heap *heap, const cu_base *base); /* NULL: no memory of the host */
/* Its segments go back, those with blocks in use, too: the device is about to be closed. Blocks that are
 * freed later free nothing. */
void cu_pool_close(cu_pool *p);
/* Blocks that were got for a hold, zero at first, stay in use when they are put, until it ends; what `held`
 * then gives are they, to be put by `put_held`. For graphs, which work in them at each launch. */
typedef struct cu_held cu_held;
typedef struct cu_hold {
  cu_held *first;
} cu_hold;
/* 0: there is no memory. A block of no bytes is one of CU_ROUND. hold: NULL for none. */
CUdeviceptr cu_pool_get(cu_pool *p, size_t bytes, cu_hold *hold);
void cu_pool_put(cu_pool *p, CUdeviceptr at);
cu_held *cu_pool_held(cu_pool *p, cu_hold *hold); /* NULL: none */
void cu_pool_put_held(cu_pool *p, cu_held *h);
/* Segments that hold no block in use go back to the driver. */
void cu_pool_trim(cu_pool *p);
cu_memory_stats cu_pool_stats(cu_pool *p);
void cu_pool_reset_peak(cu_pool *p);

/* What core allocates tensors with, made before the device is opened. */
bool cu_memory_open(cu_device *d);
void cu_memory_close(cu_device *d);

#endif
