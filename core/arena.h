/* A bump arena: things that die together. Blocks are zeroed and never move; there is no per-object free. */
#ifndef KN_ARENA_H
#define KN_ARENA_H
#include "core/heap.h"
#include <stdbool.h>

typedef struct kn_arena_block kn_arena_block;
typedef struct kn_arena {
  kn_heap *heap; /* borrowed: outlives the arena */
  kn_arena_block *last;
  char *at, *end;
} kn_arena;

void kn_arena_init(kn_arena *a, kn_heap *heap);
void kn_arena_free(kn_arena *a);                   /* frees all; the arena may be used again */
void *kn_arena_alloc(kn_arena *a, size_t size);    /* zeroed, 16-byte aligned; NULL when out of memory */
char *kn_arena_strdup(kn_arena *a, const char *s); /* NULL gives NULL */
void *kn_arena_dup(kn_arena *a, const void *p, size_t size);
bool kn_arena_holds(const kn_arena *a, const void *p); /* does p, which may be anything, point into it? */
/* Grow an arena array of `count` elements to hold one more, doubling; returns the (maybe moved) array. */
void *kn_arena_grow(kn_arena *a, void *p, size_t count, size_t elem);

#endif
