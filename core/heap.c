/* The allocator door: counting, the limit, alignment, and the small blocks that are kept for the next who
 * asks (large ones: core/spare.h). One lock guards the counts and the lists; it is held for a few
 * instructions, never while the host's function works. */
#include "core/heap.h"
#include "core/spare.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h> /* says whether it is glibc */
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <string.h>
#include <threads.h>

/* An aligned block keeps its own start and size just before the aligned address; its size may be more than
 * was asked for, when it was a spare one. Counted is what was asked for. */
typedef struct head {
  void *raw;
  size_t size;
} head;

/* Small blocks go by size class: plain ones in steps of 32 bytes, aligned ones in steps of 64. */
enum { ALIGN = 64, EXTRA = ALIGN + sizeof(head) };
enum { PLAIN_STEP = 32, ALIGNED_STEP = 64, CLASSES = 16, KEPT_BYTES = 8 << 20 };

typedef struct kept {
  struct kept *next;
} kept;

struct kn_heap {
  atomic_bool busy; /* the lock */
  bool keeps;       /* freed small blocks are kept, up to KEPT_BYTES of them */
  int refs;
  kn_alloc_fn fn;
  void *ud;
  size_t limit, peak, kept_bytes;
  atomic_size_t bytes; /* written under the lock, read by anybody */
  atomic_size_t elsewhere;
  uint64_t blocks, calls;
  kept *plain[CLASSES + 1], *aligned[CLASSES + 1];
  kn_spares spares; /* large aligned blocks; they have a lock of their own */
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

/* A block kept is one whose misuse nobody sees, so not where misuse is looked for. A host's own function
 * decides itself what it keeps. */
#if defined(KN_HOSTILE) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { KEEPS_SMALL = 0 };
#else
enum { KEEPS_SMALL = 1 };
#endif
#if defined(__SANITIZE_ADDRESS__)
enum { KEEPS_SPARES = 0 };
#else
enum { KEEPS_SPARES = 1 };
#endif

#ifdef KN_HOSTILE
/* For tests: fresh bytes are 0xA5, freed ones 0x5A, and every resize moves the block, so that code which
 * counts on zeros, on freed memory or on a block staying where it was is found out. */
static void *resize(kn_heap *h, void *p, size_t osize, size_t nsize) {
  unsigned char *q = h->fn(h->ud, NULL, 0, nsize);
  if (!q) return NULL;
  size_t common = osize < nsize ? osize : nsize;
  if (common) memcpy(q, p, common);
  memset(q + common, 0xA5, nsize - common);
  if (p) {
    memset(p, 0x5A, osize);
    h->fn(h->ud, p, osize, 0);
  }
  return q;
}

static void spoil(void *p, size_t size) { memset(p, 0x5A, size); }
static void renew(void *p, size_t size) { memset(p, 0xA5, size); }
#else
static void *resize(kn_heap *h, void *p, size_t osize, size_t nsize) { return h->fn(h->ud, p, osize, nsize); }
static void spoil(void *p, size_t size) { (void)p, (void)size; }
static void renew(void *p, size_t size) { (void)p, (void)size; }
#endif

static head head_of(void *aligned) {
  head d;
  memcpy(&d, (char *)aligned - sizeof d, sizeof d);
  return d;
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

/* ---- small blocks that are kept ---- */

static int class_of(const kn_heap *h, size_t size, size_t step) {
  return h->keeps && size && size <= CLASSES * step ? (int)((size + step - 1) / step) : 0;
}

/* What a plain block of `size` bytes is asked for with: all of a class are equally large. */
static size_t room_of(const kn_heap *h, size_t size) {
  int c = class_of(h, size, PLAIN_STEP);
  return c ? (size_t)c * PLAIN_STEP : size;
}

static void give_small_back(kn_heap *h) {
  for (int c = 1; c <= CLASSES; c++) {
    for (kept *k; (k = h->plain[c]);) {
      h->plain[c] = k->next;
      h->fn(h->ud, k, (size_t)c * PLAIN_STEP, 0);
    }
    for (kept *k; (k = h->aligned[c]);) {
      h->aligned[c] = k->next;
      h->fn(h->ud, head_of(k).raw, (size_t)c * ALIGNED_STEP + EXTRA, 0);
    }
  }
  h->kept_bytes = 0;
}

static void *take(kn_heap *h, kept **list, size_t room) {
  kept *k = *list;
  if (!k) return NULL;
  *list = k->next;
  h->kept_bytes -= room;
  __builtin_prefetch(k->next, 1); /* who takes one block will take another */
  return k;
}

static bool keep(kn_heap *h, kept **list, void *p, size_t room) {
  if (h->kept_bytes + room > KEPT_BYTES || (h->limit && in_use(h) + h->kept_bytes > h->limit)) return false;
  kept *k = p;
  k->next = *list;
  *list = k;
  h->kept_bytes += room;
  return true;
}

/* ---- the whole life of a block ---- */

static void spare_leaves(void *ud, void *raw, size_t size) {
  kn_heap *h = ud;
  h->fn(h->ud, raw, size, 0);
}

bool kn_heap_is_own(const kn_heap *h) { return h->fn == libc_alloc; }

static bool keeps_spares(const kn_heap *h) { return KEEPS_SPARES && h->fn == libc_alloc; }

static void give_all_back(kn_heap *h) {
  kn_spares_drop(&h->spares, spare_leaves, h);
  lock(h);
  give_small_back(h);
  unlock(h);
}

static size_t idle_bytes(kn_heap *h) {
  return h->kept_bytes + atomic_load_explicit(&h->spares.bytes, memory_order_relaxed);
}

static void end(kn_heap *h) {
  give_all_back(h);
  h->fn(h->ud, h, sizeof *h, 0);
}

/* Counts a block, and takes one from list c (0: none) if there is one. False: it would pass the limit. */
static bool start(kn_heap *h, kept **lists, int c, size_t counted, size_t room, void **p) {
  lock(h);
  bool may = count_more(h, counted), crowded = false;
  *p = may && c ? take(h, &lists[c], room) : NULL;
  if (may) h->blocks++;
  if (h->limit && !*p) crowded = idle_bytes(h) && in_use(h) + idle_bytes(h) > h->limit;
  unlock(h);
  if (crowded) give_all_back(h);
  return may;
}

/* The block is gone, and with the last one maybe the heap. */
static void uncount(kn_heap *h, size_t counted) {
  lock(h);
  set_bytes(h, in_use(h) - counted);
  h->blocks--;
  bool last = forgotten(h);
  unlock(h);
  if (last) end(h);
}

/* Puts a block on list c and uncounts it. False, and nothing done, when it is not to be kept. */
static bool stop(kn_heap *h, kept **lists, int c, void *p, size_t counted, size_t room) {
  lock(h);
  bool is_kept = keep(h, &lists[c], p, room), last = false;
  if (is_kept) {
    set_bytes(h, in_use(h) - counted);
    h->blocks--;
    last = forgotten(h);
  }
  unlock(h);
  if (last) end(h);
  return is_kept;
}

/* A block that has been counted, from the host's function; uncounted again if there is none. */
static void *fresh(kn_heap *h, size_t counted, size_t room) {
  void *p = resize(h, NULL, 0, room);
  if (!p && h->fn == libc_alloc) { /* others have their reasons */
    give_all_back(h);
    p = resize(h, NULL, 0, room);
  }
  if (!p) uncount(h, counted);
  return p;
}

/* ---- heaps ---- */

kn_heap *kn_heap_new(kn_alloc_fn fn, void *ud, size_t limit) {
  bool own = !fn;
  if (own) fn = libc_alloc;
  kn_heap *h = fn(ud, NULL, 0, sizeof *h);
  if (!h) return NULL;
  memset(h, 0, sizeof *h);
  h->refs = 1;
  h->keeps = own && KEEPS_SMALL;
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
  if (last) end(h);
}

void kn_heap_set_limit(kn_heap *h, size_t limit) {
  lock(h);
  h->limit = limit;
  unlock(h);
  if (limit) give_all_back(h);
}

kn_heap_stats kn_heap_read_stats(const kn_heap *heap) {
  kn_heap *h = (kn_heap *)(uintptr_t)heap; /* locking changes nothing that is seen */
  lock(h);
  kn_heap_stats s = {in_use(h), h->peak, h->limit, h->blocks, h->calls, idle_bytes(h)};
  unlock(h);
  return s;
}

void kn_heap_empty_cache(kn_heap *h) {
  give_all_back(h);
#ifdef __GLIBC__
  if (h->fn == libc_alloc) malloc_trim(0); /* pages between blocks that are in use go back as well */
#endif
}

void kn_heap_reset_peak(kn_heap *h) {
  lock(h);
  h->peak = in_use(h);
  unlock(h);
}

size_t kn_heap_bytes(const kn_heap *heap) {
  kn_heap *h = (kn_heap *)(uintptr_t)heap;
  return in_use(h) + atomic_load_explicit(&h->elsewhere, memory_order_relaxed);
}

void kn_heap_count_elsewhere(kn_heap *h, size_t bytes, bool more) {
  atomic_fetch_add_explicit(&h->elsewhere, more ? bytes : 0 - bytes, memory_order_relaxed);
}

/* ---- blocks ---- */

void *kn_alloc(kn_heap *h, size_t size) {
  if (size == 0) size = 1;
  size_t room = room_of(h, size);
  void *p;
  if (!start(h, h->plain, class_of(h, size, PLAIN_STEP), size, room, &p)) return NULL;
  return p ? p : fresh(h, size, room);
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
  uncount(h, size);
}

/* A block for `size` bytes and EXTRA, maybe a spare one; *whole is its size. */
static void *raw_block(kn_heap *h, size_t size, size_t room, size_t *whole) {
  void *raw = NULL;
  *whole = room;
  if (room >= KN_SPARE_LEAST && keeps_spares(h)) raw = kn_spares_take(&h->spares, room, whole);
  if (!raw) return fresh(h, size + EXTRA, room);
  renew(raw, *whole);
  return raw;
}

void *kn_alloc_aligned(kn_heap *h, size_t size) {
  if (size > SIZE_MAX - EXTRA) return NULL;
  int c = class_of(h, size, ALIGNED_STEP);
  size_t room = (c ? (size_t)c * ALIGNED_STEP : size) + EXTRA;
  void *p;
  if (!start(h, h->aligned, c, size + EXTRA, room, &p)) return NULL;
  if (p) return p;
  head d;
  d.raw = raw_block(h, size, room, &d.size);
  if (!d.raw) return NULL;
  uintptr_t at = ((uintptr_t)d.raw + EXTRA - 1) & ~(uintptr_t)(ALIGN - 1);
  p = (char *)d.raw + (at - (uintptr_t)d.raw);
  memcpy((char *)p - sizeof d, &d, sizeof d);
  return p;
}

void kn_free_aligned(kn_heap *h, void *p, size_t size) {
  if (!p) return;
  int c = class_of(h, size, ALIGNED_STEP);
  if (c && stop(h, h->aligned, c, p, size + EXTRA, (size_t)c * ALIGNED_STEP + EXTRA)) return;
  head d = head_of(p);
  spoil(d.raw, d.size);
  if (d.size >= KN_SPARE_LEAST && keeps_spares(h))
    kn_spares_put(&h->spares, d.raw, d.size, spare_leaves, h);
  else
    h->fn(h->ud, d.raw, d.size, 0);
  uncount(h, size + EXTRA);
}
