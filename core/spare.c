/* Lists under a lock that is held for a few instructions. */
#include "core/spare.h"

static void lock(kn_spares *s) {
  while (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire)) {
  }
}

static void unlock(kn_spares *s) { atomic_flag_clear_explicit(&s->busy, memory_order_release); }

/* The exponent and the two bits below the highest. */
static int class_of(size_t size) {
  int exponent = 0;
  for (size_t rest = size; rest >>= 1;) exponent++;
  return 4 * exponent + (int)(exponent < 2 ? 0 : size >> (exponent - 2) & 3);
}

static void unlink_spare(kn_spares *s, kn_spare *b) {
  *(b->previous ? &b->previous->next : &s->classes[class_of(b->size)]) = b->next;
  if (b->next) b->next->previous = b->previous;
  *(b->newer ? &b->newer->older : &s->newest) = b->older;
  *(b->older ? &b->older->newer : &s->oldest) = b->newer;
  atomic_fetch_sub_explicit(&s->bytes, b->size, memory_order_relaxed);
}

static void link_spare(kn_spares *s, kn_spare *b) {
  kn_spare **head = &s->classes[class_of(b->size)];
  b->previous = NULL;
  b->next = *head;
  if (b->next) b->next->previous = b;
  *head = b;
  b->newer = NULL;
  b->older = s->newest;
  *(s->newest ? &s->newest->newer : &s->oldest) = b;
  s->newest = b;
  atomic_fetch_add_explicit(&s->bytes, b->size, memory_order_relaxed);
}

/* The one that came last is the one most likely still in the cache. In the class of the size itself it may be
 * too small; of the next two classes any will do. */
void *kn_spares_take(kn_spares *s, size_t size, size_t *whole) {
  if (!atomic_load_explicit(&s->bytes, memory_order_relaxed)) return NULL;
  int at = class_of(size);
  kn_spare *b = NULL;
  lock(s);
  for (int i = at; i < at + 3 && i < KN_SPARE_CLASSES; i++)
    if ((b = s->classes[i]) && b->size >= size) break;
  if (b && b->size < size) b = NULL;
  if (b) unlink_spare(s, b);
  unlock(s);
  if (b) *whole = b->size;
  return b;
}

void kn_spares_put(kn_spares *s, void *raw, size_t size, kn_spares_leave_fn leave, void *ud) {
  if (size > KN_SPARE_MOST) {
    leave(ud, raw, size);
    return;
  }
  kn_spare *b = raw, *out = NULL;
  b->size = size;
  lock(s);
  while (atomic_load_explicit(&s->bytes, memory_order_relaxed) + size > KN_SPARE_MOST) {
    kn_spare *old = s->oldest;
    unlink_spare(s, old);
    old->next = out;
    out = old;
  }
  link_spare(s, b);
  unlock(s);
  for (kn_spare *next; out; out = next) {
    next = out->next;
    leave(ud, out, out->size);
  }
}

void kn_spares_drop(kn_spares *s, kn_spares_leave_fn leave, void *ud) {
  for (;;) {
    lock(s);
    kn_spare *b = s->newest;
    if (b) unlink_spare(s, b);
    unlock(s);
    if (!b) return;
    leave(ud, b, b->size);
  }
}
