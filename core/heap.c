/* The allocator door: counting, the limit, alignment. Policy-free; the host's function does the work. */
#include "core/heap.h"
#include "core/spare.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct kn_heap {
  atomic_int refs;
  kn_alloc_fn fn;
  void *ud;
  atomic_size_t limit, bytes, peak;
  atomic_ullong blocks, calls;
  kn_spares spares; /* of large aligned blocks; only when the memory is libc's */
};

static void *libc_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud, (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  return realloc(ptr, nsize);
}

kn_heap *kn_heap_new(kn_alloc_fn fn, void *ud, size_t limit) {
  if (!fn) fn = libc_alloc;
  kn_heap *h = fn(ud, NULL, 0, sizeof *h);
  if (!h) return NULL;
  memset(h, 0, sizeof *h);
  atomic_init(&h->refs, 1);
  h->fn = fn;
  h->ud = ud;
  atomic_init(&h->limit, limit);
  return h;
}

kn_heap *kn_heap_retain(kn_heap *h) {
  atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
  return h;
}

/* A host's own function sees every call, and the sanitizer every use of what was freed. */
#if defined(__SANITIZE_ADDRESS__)
static int keeps_spares(const kn_heap *h) { return (void)h, 0; }
#else
static int keeps_spares(const kn_heap *h) { return h->fn == libc_alloc; }
#endif

static void spare_leaves(void *ud, void *raw, size_t size) {
  kn_heap *h = ud;
  h->fn(h->ud, raw, size, 0);
}

static void drop_spares(kn_heap *h) { kn_spares_drop(&h->spares, spare_leaves, h); }

void kn_heap_release(kn_heap *h) {
  if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1) return;
  drop_spares(h);
  h->fn(h->ud, h, sizeof *h, 0);
}

void kn_heap_set_limit(kn_heap *h, size_t limit) { atomic_store(&h->limit, limit); }

kn_heap_stats kn_heap_read_stats(const kn_heap *h) {
  kn_heap *m = (kn_heap *)(uintptr_t)h; /* atomic loads want a non-const object before C17 */
  return (kn_heap_stats){atomic_load(&m->bytes), atomic_load(&m->peak), atomic_load(&m->limit),
                         atomic_load(&m->blocks), atomic_load(&m->calls)};
}

void kn_heap_reset_peak(kn_heap *h) { atomic_store(&h->peak, atomic_load(&h->bytes)); }

/* Reserve the growth first so that concurrent callers cannot pass the limit together. */
static int reserve(kn_heap *h, size_t more) {
  size_t now = atomic_fetch_add_explicit(&h->bytes, more, memory_order_relaxed) + more;
  size_t limit = atomic_load_explicit(&h->limit, memory_order_relaxed);
  if (now < more || (limit && now > limit)) {
    atomic_fetch_sub_explicit(&h->bytes, more, memory_order_relaxed);
    return 0;
  }
  size_t spare = atomic_load_explicit(&h->spares.bytes, memory_order_relaxed);
  if (limit && spare && now > limit - (spare < limit ? spare : limit)) drop_spares(h);
  size_t peak = atomic_load_explicit(&h->peak, memory_order_relaxed);
  while (now > peak && !atomic_compare_exchange_weak(&h->peak, &peak, now)) {
  }
  return 1;
}

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
static void renew(void *p, size_t size) { memset(p, 0xA5, size); }
#else
static void *resize(kn_heap *h, void *p, size_t osize, size_t nsize) { return h->fn(h->ud, p, osize, nsize); }
static void spoil(void *p, size_t size) { (void)p, (void)size; }
static void renew(void *p, size_t size) { (void)p, (void)size; }
#endif

void *kn_realloc(kn_heap *h, void *p, size_t osize, size_t nsize) {
  if (!p)
    osize = 0;
  else if (osize == 0)
    osize = 1;
  if (nsize == 0) nsize = 1;
  atomic_fetch_add_explicit(&h->calls, 1, memory_order_relaxed);
  if (nsize > osize && !reserve(h, nsize - osize)) return NULL;
  void *q = resize(h, p, osize, nsize);
  if (!q) {
    if (nsize > osize) atomic_fetch_sub_explicit(&h->bytes, nsize - osize, memory_order_relaxed);
    return NULL;
  }
  if (nsize < osize) atomic_fetch_sub_explicit(&h->bytes, osize - nsize, memory_order_relaxed);
  if (!p) atomic_fetch_add_explicit(&h->blocks, 1, memory_order_relaxed);
  return q;
}

void *kn_alloc(kn_heap *h, size_t size) { return kn_realloc(h, NULL, 0, size); }

void *kn_calloc(kn_heap *h, size_t count, size_t size) {
  if (size && count > SIZE_MAX / size) return NULL;
  void *p = kn_alloc(h, count * size);
  if (p) memset(p, 0, count * size);
  return p;
}

void kn_free(kn_heap *h, void *p, size_t size) {
  if (!p) return;
  if (size == 0) size = 1;
  spoil(p, size);
  h->fn(h->ud, p, size, 0);
  atomic_fetch_sub_explicit(&h->bytes, size, memory_order_relaxed);
  atomic_fetch_sub_explicit(&h->blocks, 1, memory_order_relaxed);
}

/* An aligned block keeps its own start and size just before the aligned address; its size may be more than
 * was asked for, when it was a spare one. Counted is what was asked for. */
typedef struct head {
  void *raw;
  size_t size;
} head;
enum { ALIGN = 64, EXTRA = ALIGN + sizeof(head) };

static void *spare_block(kn_heap *h, size_t size, size_t *whole) {
  if (size < KN_SPARE_LEAST || !keeps_spares(h)) return NULL;
  void *raw = kn_spares_take(&h->spares, size, whole);
  if (!raw) return NULL;
  atomic_fetch_add_explicit(&h->calls, 1, memory_order_relaxed);
  if (!reserve(h, size)) {
    kn_spares_put(&h->spares, raw, *whole, spare_leaves, h);
    return NULL;
  }
  atomic_fetch_add_explicit(&h->blocks, 1, memory_order_relaxed);
  renew(raw, *whole);
  return raw;
}

static bool keep_spare(kn_heap *h, void *raw, size_t size, size_t whole) {
  if (whole < KN_SPARE_LEAST || !keeps_spares(h)) return false;
  spoil(raw, whole);
  atomic_fetch_sub_explicit(&h->bytes, size, memory_order_relaxed);
  atomic_fetch_sub_explicit(&h->blocks, 1, memory_order_relaxed);
  kn_spares_put(&h->spares, raw, whole, spare_leaves, h);
  return true;
}

void *kn_alloc_aligned(kn_heap *h, size_t size) {
  if (size > SIZE_MAX - EXTRA) return NULL;
  head d = {.size = size + EXTRA};
  d.raw = spare_block(h, size + EXTRA, &d.size);
  if (!d.raw) d.raw = kn_alloc(h, size + EXTRA);
  if (!d.raw && atomic_load_explicit(&h->spares.bytes, memory_order_relaxed)) {
    drop_spares(h);
    d.raw = kn_alloc(h, size + EXTRA);
  }
  if (!d.raw) return NULL;
  uintptr_t at = ((uintptr_t)d.raw + EXTRA - 1) & ~(uintptr_t)(ALIGN - 1);
  void *p = (char *)d.raw + (at - (uintptr_t)d.raw);
  memcpy((char *)p - sizeof d, &d, sizeof d);
  return p;
}

void kn_free_aligned(kn_heap *h, void *p, size_t size) {
  if (!p) return;
  head d;
  memcpy(&d, (char *)p - sizeof d, sizeof d);
  if (!keep_spare(h, d.raw, size + EXTRA, d.size)) kn_free(h, d.raw, size + EXTRA);
}
