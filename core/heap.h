/* The one allocator door. Every byte that libkiln allocates comes through a heap, which counts it and may
 * refuse it; a heap is shared by contexts, tensors and graphs, and may be used from any thread (the host's
 * function must be thread-safe if threads share it). It lives as long as somebody retains it or a block of it
 * is not freed: what is made of its blocks needs not retain it.
 *
 * A heap without a function of the host keeps small freed blocks for the next who asks, a few megabytes at
 * most and never past the limit; they do not count as in use. Hostile and sanitized builds keep none. */
#ifndef KN_HEAP_H
#define KN_HEAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kn_heap kn_heap;

/* Lua's allocator signature: nsize == 0 frees; ptr == NULL allocates; else resizes. Alignment as malloc. */
typedef void *(*kn_alloc_fn)(void *ud, void *ptr, size_t osize, size_t nsize);

typedef struct kn_heap_stats {
  size_t bytes;    /* now in use */
  size_t peak;     /* most in use since the heap was made, or since kn_heap_reset_peak */
  size_t limit;    /* 0: none */
  uint64_t blocks; /* live blocks */
  uint64_t calls;  /* allocations and resizes so far, failed ones included */
  size_t cached;   /* freed and kept for the next who asks: in nobody's use, and not in `bytes` */
} kn_heap_stats;

/* fn == NULL means realloc/free. limit == 0 means none. NULL when even the heap cannot be allocated. */
kn_heap *kn_heap_new(kn_alloc_fn fn, void *ud, size_t limit);
kn_heap *kn_heap_retain(kn_heap *h);
void kn_heap_release(kn_heap *h);
void kn_heap_set_limit(kn_heap *h, size_t limit); /* what is in use already may be more */
void kn_heap_reset_peak(kn_heap *h);
void kn_heap_empty_cache(kn_heap *h); /* what is kept goes back to the allocator */
kn_heap_stats kn_heap_read_stats(const kn_heap *h);
bool kn_heap_is_own(const kn_heap *h); /* without a function of the host: any thread may use it */
/* Now in use, with what tensors have in the memory of devices; cheap. */
size_t kn_heap_bytes(const kn_heap *h);
/* Bytes that a tensor has got in a device's memory, or (not `more`) given back: only counted, for those who
 * collect garbage. */
void kn_heap_count_elsewhere(kn_heap *h, size_t bytes, bool more);

/* NULL on failure or overflow. Zero sizes give a valid unique block. kn_free accepts NULL. */
void *kn_alloc(kn_heap *h, size_t size);
void *kn_calloc(kn_heap *h, size_t count, size_t size);
void *kn_realloc(kn_heap *h, void *p, size_t osize, size_t nsize);
void kn_free(kn_heap *h, void *p, size_t size);

/* The same, aligned to 64 bytes: tensor data and arenas. */
void *kn_alloc_aligned(kn_heap *h, size_t size);
void kn_free_aligned(kn_heap *h, void *p, size_t size);

#endif
