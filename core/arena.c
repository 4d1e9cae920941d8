/* Bump arena over a heap. */
#include "core/arena.h"
#include <string.h>

struct kn_arena_block {
  kn_arena_block *prev;
  size_t size;
};

enum { HEADER = 16, BLOCK = 16 * 1024 - HEADER };

void kn_arena_init(kn_arena *a, kn_heap *heap) { *a = (kn_arena){.heap = heap}; }

void kn_arena_free(kn_arena *a) {
  for (kn_arena_block *b = a->last; b;) {
    kn_arena_block *prev = b->prev;
    kn_free(a->heap, b, b->size);
    b = prev;
  }
  kn_arena_init(a, a->heap);
}

void *kn_arena_alloc(kn_arena *a, size_t size) {
  if (size > SIZE_MAX - HEADER - 16) return NULL;
  size = size ? (size + 15) & ~(size_t)15 : 16; /* nothing has an address too: NULL means out of memory */
  if ((size_t)(a->end - a->at) < size) {
    size_t body = size > BLOCK ? size : BLOCK;
    kn_arena_block *b = kn_alloc(a->heap, body + HEADER);
    if (!b) return NULL;
    b->prev = a->last;
    b->size = body + HEADER;
    a->last = b;
    a->at = (char *)b + HEADER;
    a->end = a->at + body;
  }
  void *p = a->at;
  a->at += size;
  return memset(p, 0, size);
}

void *kn_arena_dup(kn_arena *a, const void *p, size_t size) {
  void *q = kn_arena_alloc(a, size);
  if (q && size) memcpy(q, p, size);
  return q;
}

bool kn_arena_holds(const kn_arena *a, const void *p) {
  uintptr_t at = (uintptr_t)p;
  for (const kn_arena_block *b = a->last; b; b = b->prev)
    if (at >= (uintptr_t)b && at < (uintptr_t)b + b->size) return true;
  return false;
}

char *kn_arena_strdup(kn_arena *a, const char *s) { return s ? kn_arena_dup(a, s, strlen(s) + 1) : NULL; }

void *kn_arena_grow(kn_arena *a, void *p, size_t count, size_t elem) {
  if (p && (count < 4 || (count & (count - 1)))) return p; /* capacity is the next power of two, from 4 */
  size_t cap = count < 4 ? 4 : count * 2;
  void *q = kn_arena_alloc(a, cap * elem);
  if (q && count) memcpy(q, p, count * elem);
  return q;
}
