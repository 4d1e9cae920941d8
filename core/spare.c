/* A short list under a lock that is held for a few instructions. */
#include "core/spare.h"
#include <string.h>

static void lock(kn_spares *s) {
  while (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire)) {
  }
}

static void unlock(kn_spares *s) { atomic_flag_clear_explicit(&s->busy, memory_order_release); }

static struct kn_spare_block remove_at(kn_spares *s, int i) {
  struct kn_spare_block b = s->block[i];
  s->count--;
  memmove(s->block + i, s->block + i + 1, (size_t)(s->count - i) * sizeof b);
  atomic_fetch_sub_explicit(&s->bytes, b.size, memory_order_relaxed);
  return b;
}

/* The one that came in last is the one most likely still in the cache, so of equals it is taken. */
void *kn_spares_take(kn_spares *s, size_t size, size_t *whole) {
  if (!atomic_load_explicit(&s->bytes, memory_order_relaxed)) return NULL;
  struct kn_spare_block b = {NULL, 0};
  lock(s);
  int best = -1;
  for (int i = s->count - 1; i >= 0; i--)
    if (s->block[i].size >= size && s->block[i].size - size <= size / 4 &&
        (best < 0 || s->block[i].size < s->block[best].size))
      best = i;
  if (best >= 0) b = remove_at(s, best);
  unlock(s);
  if (b.raw) *whole = b.size;
  return b.raw;
}

void kn_spares_put(kn_spares *s, void *raw, size_t size, kn_spares_leave_fn leave, void *ud) {
  if (size > KN_SPARE_MOST) {
    leave(ud, raw, size);
    return;
  }
  struct kn_spare_block out[KN_SPARES];
  int n = 0;
  lock(s);
  while (s->count == KN_SPARES ||
         atomic_load_explicit(&s->bytes, memory_order_relaxed) + size > KN_SPARE_MOST)
    out[n++] = remove_at(s, 0);
  s->block[s->count++] = (struct kn_spare_block){raw, size};
  atomic_fetch_add_explicit(&s->bytes, size, memory_order_relaxed);
  unlock(s);
  for (int i = 0; i < n; i++) leave(ud, out[i].raw, out[i].size);
}

void kn_spares_drop(kn_spares *s, kn_spares_leave_fn leave, void *ud) {
  for (;;) {
    struct kn_spare_block b = {NULL, 0};
    lock(s);
    if (s->count) b = remove_at(s, s->count - 1);
    unlock(s);
    if (!b.raw) return;
    leave(ud, b.raw, b.size);
  }
}
