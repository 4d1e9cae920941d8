/* Large blocks that were freed and wait to be used again. The system takes a large block back as soon as it
 * is freed and hands out a new one page by page, zeroed, which costs more than most ops do with it. Raw
 * blocks only: who may have them, and how they are counted, is the heap's business. */
#ifndef KN_SPARE_H
#define KN_SPARE_H
#include <stdatomic.h>
#include <stddef.h>

enum { KN_SPARES = 32, KN_SPARE_LEAST = 64 << 10, KN_SPARE_MOST = 256 << 20 };

/* Zeroed memory is an empty one. Any thread may use it. Blocks are ordered by the time they came in. */
typedef struct kn_spares {
  atomic_flag busy;
  atomic_size_t bytes; /* of all blocks */
  int count;
  struct kn_spare_block {
    void *raw;
    size_t size;
  } block[KN_SPARES];
} kn_spares;

/* The smallest block of at least `size` bytes that is not much larger, and its size; NULL when there is none.
 */
void *kn_spares_take(kn_spares *s, size_t size, size_t *whole);
/* Keep a block. The oldest ones leave when there are too many or their bytes are too many: they are handed to
 * `leave`, which frees them. */
typedef void (*kn_spares_leave_fn)(void *ud, void *raw, size_t size);
void kn_spares_put(kn_spares *s, void *raw, size_t size, kn_spares_leave_fn leave, void *ud);
/* All of them leave. */
void kn_spares_drop(kn_spares *s, kn_spares_leave_fn leave, void *ud);

#endif
