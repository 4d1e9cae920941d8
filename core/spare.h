/* Large blocks that were freed and wait to be used again. The system takes a large block back as soon as it
 * is freed and hands out a new one page by page, zeroed, which costs more than most ops do with it. Raw
 * blocks only: who may have them, and how they are counted, is the heap's business. */
#ifndef KN_SPARE_H
#define KN_SPARE_H
#include <stdatomic.h>
#include <stddef.h>

enum { KN_SPARE_LEAST = 64 << 10, KN_SPARE_MOST = 256 << 20, KN_SPARE_CLASSES = 4 * 64 };

/* A waiting block holds its own links. */
typedef struct kn_spare {
  size_t size;
  struct kn_spare *next, *previous; /* of its class; the one that came last is first */
  struct kn_spare *newer, *older;   /* of all */
} kn_spare;

/* Zeroed memory is an empty one. Any thread may use it. */
typedef struct kn_spares {
  atomic_flag busy;
  atomic_size_t bytes; /* of all blocks */
  kn_spare *newest, *oldest;
  kn_spare *classes[KN_SPARE_CLASSES]; /* by size: four for each power of two */
} kn_spares;

/* A block of at least `size` bytes that is at most half as large again, and its size; NULL when there is
 * none. */
void *kn_spares_take(kn_spares *s, size_t size, size_t *whole);
/* Keep a block of at least sizeof(kn_spare). The oldest ones leave when there would be more than
 * KN_SPARE_MOST bytes: they are handed to `leave`, which frees them. */
typedef void (*kn_spares_leave_fn)(void *ud, void *raw, size_t size);
void kn_spares_put(kn_spares *s, void *raw, size_t size, kn_spares_leave_fn leave, void *ud);
/* All of them leave. */
void kn_spares_drop(kn_spares *s, kn_spares_leave_fn leave, void *ud);

#endif
