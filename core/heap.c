/* The allocator door: counting, the limit, alignment, and the small blocks that are kept for the next who asks.
 * One lock guards the counts and the lists; it is held for a few instructions, never while the host's function
 * works. */
#include "core/heap.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

/* Small blocks go by size class: plain ones in steps of 32 bytes, aligned ones in steps of 64. */
enum { ALIGN = 64, EXTRA = ALIGN + sizeof(void *) }; /* an aligned block keeps its own start just before it */
enum { PLAIN_STEP = 32, ALIGNED_STEP = 64, CLASSES = 16, KEPT_BYTES = 8 << 20 };

typedef struct spare {
  struct spare *next;
} spare;

struct kn_heap {
  atomic_bool busy; /* the lock */
  bool keeps;       /* freed small blocks are kept, up to KEPT_BYTES of them */
  int refs;
  kn_alloc_fn fn;
  void *ud;
  size_t limit, peak, kept;
  atomic_size_t bytes; /* written under the lock, read by anybody */
  uint64_t blocks, calls;
  spare *plain[CLASSES + 1], *aligned[CLASSES + 1];
};

/* ---- what fills and empties blocks ---- */

static void *libc_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud, (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  return realloc(ptr, nsize);
}

/* A block kept is one whose misuse nobody sees, so not where misuse is looked for. A host's own function decides
 * itself what it keeps. */
#if defined(KN_HOSTILE) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MAY_KEEP = 0 };
#else
enum { MAY_KEEP = 1 };
#endif

#ifdef KN_HOSTILE
/* For tests: fresh bytes are 0xA5, freed ones 0x5A, and every resize moves the block, so that code which
 * counts on zeros, on freed memory or on a block staying where it was is found out. */
static void *resize(kn_heap *h, void *p, size_t osize, size_t nsize) {
  unsigned char *q = h->fn(h->ud, NULL, 0, nsize);
  if (!q) return NULL;
  size_t kept = osize < nsize ? osize : nsize;
  if (kept) memcpy(q, p, kept);
  memset(q + kept, 0xA5, nsize - kept);
  if (p) {
    memset(p, 0x5A, osize);
    h->fn(h->ud, p, osize, 0);
  }
  return q;
}

static void spoil(void *p, size_t size) { memset(p, 0x5A, size); }
#else
static void *resize(kn_heap *h, void *p, size_t osize, size_t nsize) { return h->fn(h->ud, p, osize, nsize); }
static void spoil(void *p, size_t size) { (void)p, (void)size; }
#endif

static void *start_of(void *aligned) {
  void *raw;
  memcpy(&raw, (char *)aligned - sizeof raw, sizeof raw);
  return raw;
}

/* ---- the lock, and counts under it ---- */

static void lock(kn_heap *h) {
  for (int tries = 1; atomic_exchange_explicit(&h->busy, true, memory_order_acquire); tries++)
    if (tries % 64 == 0) thrd_yield(); /* its owner does not run */
}

static void unlock(kn_heap *h) { atomic_store_explicit(&h->busy, false, memory_order_release); }

static size_t in_use(kn_heap *h) { return atomic_load_explicit(&h->bytes, memory_order_relaxed); }

static void set_bytes(kn_heap *h, size_t bytes) {
  atomic_store_explicit(&h->bytes, bytes, memory_order_relaxed);
}

/* Growth is counted before it is asked for, so that two threads cannot pass the limit together. */
static bool count_more(kn_heap *h, size_t more) {
  size_t now = in_use(h) + more;
  h->calls++;
  if (now < more || (h->limit && now > h->limit)) return false;
  set_bytes(h, now);
  if (now > h->peak) h->peak = now;
  return true;
}

static bool forgotten(const kn_heap *h) { return h->refs == 0 && h->blocks == 0; }

/* ---- kept blocks ---- */

static int class_of(const kn_heap *h, size_t size, size_t step) {
  return h->keeps && size && size <= CLASSES * step ? (int)((size + step - 1) / step) : 0;
}

/* What a block of `size` bytes is asked for with: all of a class are equally large. */
static size_t room_of(const kn_heap *h, size_t size) {
  return class_of(h, size, PLAIN_STEP) ? (size + PLAIN_STEP - 1) / PLAIN_STEP * PLAIN_STEP : size;
}

/* Gives all kept blocks back; under the lock, for it is rare. */
static void give_back(kn_heap *h) {
  for (int c = 1; c <= CLASSES; c++) {
    for (spare *s; (s = h->plain[c]);) {
      h->plain[c] = s->next;
      h->fn(h->ud, s, (size_t)c * PLAIN_STEP, 0);
    }
    for (spare *s; (s = h->aligned[c]);) {
      h->aligned[c] = s->next;
      h->fn(h->ud, start_of(s), (size_t)c * ALIGNED_STEP + EXTRA, 0);
    }
  }
  h->kept = 0;
}

static void *take(kn_heap *h, spare **list, size_t room) {
  spare *s = *list;
  if (!s) return NULL;
  *list = s->next;
  h->kept -= room;
  __builtin_prefetch(s->next, 1); /* who takes it is rarely the last */
  return s;
}

static bool keep(kn_heap *h, spare **list, void *p, size_t room) {
  if (h->kept + room > KEPT_BYTES || (h->limit && in_use(h) + h->kept > h->limit)) return false;
  spare *s = p;
  s->next = *list;
  *list = s;
  h->kept += room;
  return true;
}

/* A block that has been counted, from the host's function; uncounted again if there is none. */
static void *fresh(kn_heap *h, size_t counted, size_t room) {
  void *p = resize(h, NULL, 0, room);
  if (!p && h->keeps) {
    lock(h);
    give_back(h);
    unlock(h);
    p = resize(h, NULL, 0, room);
  }
  if (p) return p;
  lock(h);
  h->blocks--;
  set_bytes(h, in_use(h) - counted);
  unlock(h);
  return NULL;
}

/* A block of class c (0: none) of the lists, or NULL with *counted telling whether it may be made. */
static void *start(kn_heap *h, spare **lists, int c, size_t counted, size_t room, bool *may) {
  lock(h);
  *may = count_more(h, counted);
  void *p = *may && c ? take(h, &lists[c], room) : NULL;
  if (*may) h->blocks++;
  if (!p && h->limit && h->kept && in_use(h) + h->kept > h->limit) give_back(h);
  unlock(h);
  return p;
}

/* Whether the heap is done with the block: kept, and no longer counted. */
static bool stop(kn_heap *h, spare **lists, int c, void *p, size_t counted, size_t room) {
  lock(h);
  bool kept = !c || keep(h, &lists[c], p, room); /* without a class it has been freed already */
  bool last = false;
  if (kept) {
    set_bytes(h, in_use(h) - counted);
    h->blocks--;
    last = forgotten(h);
  }
  unlock(h);
  if (last) {
    give_back(h);
    h->fn(h->ud, h, sizeof *h, 0);
  }
  return kept;
}

/* ---- heaps ---- */

kn_heap *kn_heap_new(kn_alloc_fn fn, void *ud, size_t limit) {
  bool own = !fn;
  if (own) fn = libc_alloc;
  kn_heap *h = fn(ud, NULL, 0, sizeof *h);
  if (!h) return NULL;
  memset(h, 0, sizeof *h);
  h->refs = 1;
  h->keeps = own && MAY_KEEP;
  h->fn = fn;
  h->ud = ud;
  h->limit = limit;
  return h;
}

kn_heap *kn_heap_retain(kn_heap *h) {
  lock(h);
  h->refs++;
  unlock(h);
  return h;
}

void kn_heap_release(kn_heap *h) {
  if (!h) return;
  lock(h);
  h->refs--;
  bool last = forgotten(h);
  unlock(h);
  if (!last) return;
  give_back(h);
  h->fn(h->ud, h, sizeof *h, 0);
}

void kn_heap_set_limit(kn_heap *h, size_t limit) {
  lock(h);
  h->limit = limit;
  if (limit) give_back(h);
  unlock(h);
}

kn_heap_stats kn_heap_read_stats(const kn_heap *heap) {
  kn_heap *h = (kn_heap *)(uintptr_t)heap; /* locking changes nothing that is seen */
  lock(h);
  kn_heap_stats s = {in_use(h), h->peak, h->limit, h->blocks, h->calls};
  unlock(h);
  return s;
}

void kn_heap_reset_peak(kn_heap *h) {
  lock(h);
  h->peak = in_use(h);
  unlock(h);
}

size_t kn_heap_bytes(const kn_heap *heap) { return in_use((kn_heap *)(uintptr_t)heap); }

/* ---- blocks ---- */

void *kn_alloc(kn_heap *h, size_t size) {
  if (size == 0) size = 1;
  int c = class_of(h, size, PLAIN_STEP);
  size_t room = room_of(h, size);
  bool may;
  void *p = start(h, h->plain, c, size, room, &may);
  return p || !may ? p : fresh(h, size, room);
}

void *kn_calloc(kn_heap *h, size_t count, size_t size) {
  if (size && count > SIZE_MAX / size) return NULL;
  void *p = kn_alloc(h, count * size);
  if (p) memset(p, 0, count * size);
  return p;
}

void *kn_realloc(kn_heap *h, void *p, size_t osize, size_t nsize) {
  if (!p) return kn_alloc(h, nsize);
  if (osize == 0) osize = 1;
  if (nsize == 0) nsize = 1;
  lock(h);
  bool may = count_more(h, nsize > osize ? nsize - osize : 0);
  unlock(h);
  if (!may) return NULL;
  void *q = resize(h, p, room_of(h, osize), room_of(h, nsize));
  size_t less = !q ? (nsize > osize ? nsize - osize : 0) : nsize < osize ? osize - nsize : 0;
  if (less) {
    lock(h);
    set_bytes(h, in_use(h) - less);
    unlock(h);
  }
  return q;
}

void kn_free(kn_heap *h, void *p, size_t size) {
  if (!p) return;
  if (size == 0) size = 1;
  int c = class_of(h, size, PLAIN_STEP);
  size_t room = room_of(h, size);
  spoil(p, size);
  if (c && stop(h, h->plain, c, p, size, room)) return;
  h->fn(h->ud, p, room, 0);
  stop(h, NULL, 0, NULL, size, room);
}

void *kn_alloc_aligned(kn_heap *h, size_t size) {
  if (size > SIZE_MAX - EXTRA) return NULL;
  int c = class_of(h, size, ALIGNED_STEP);
  size_t room = (c ? (size_t)c * ALIGNED_STEP : size) + EXTRA;
  bool may;
  void *p = start(h, h->aligned, c, size + EXTRA, room, &may);
  if (p || !may) return p;
  void *raw = fresh(h, size + EXTRA, room);
  if (!raw) return NULL;
  uintptr_t at = ((uintptr_t)raw + EXTRA - 1) & ~(uintptr_t)(ALIGN - 1);
  p = (char *)raw + (at - (uintptr_t)raw);
  memcpy((char *)p - sizeof raw, &raw, sizeof raw);
  return p;
}

void kn_free_aligned(kn_heap *h, void *p, size_t size) {
  if (!p) return;
  int c = class_of(h, size, ALIGNED_STEP);
  size_t room = (c ? (size_t)c * ALIGNED_STEP : size) + EXTRA;
  spoil(p, size);
  if (c && stop(h, h->aligned, c, p, size + EXTRA, room)) return;
  h->fn(h->ud, start_of(p), room, 0);
  stop(h, NULL, 0, NULL, size + EXTRA, room);
}
