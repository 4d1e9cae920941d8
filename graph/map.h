/* A table from pieces of text (or other bytes) to pointers: open addressing, at most half full, keys are
 * borrowed. And sorting. */
#ifndef KN_MAP_H
#define KN_MAP_H
#include "core/heap.h"
#include <stdbool.h>

typedef struct kn_span { /* a piece of text */
  const char *s;
  size_t n;
} kn_span;

typedef struct kn_map {
  struct kn_map_entry *entries;
  size_t cap, n;
} kn_map;

void *kn_map_find(const kn_map *m, kn_span key); /* NULL when it is not there */
/* key is new and outlives the map; v is not NULL. False when out of memory. */
bool kn_map_add(kn_heap *heap, kn_map *m, kn_span key, void *v);
void kn_map_free(kn_heap *heap, kn_map *m);
/* Heap sort: no recursion, no memory of its own; not stable. */
void kn_sort(void **list, size_t n, bool (*before)(const void *a, const void *b));
size_t kn_hash(const char *s, size_t n);

#endif
