/* Blocks and segments. Free blocks are in bins by the powers of two of their sizes; the smallest that fits is
 * taken, and what it has too much stays a block of its own. Neighbours that are both free become one. */
#include "backends/cuda/memory.h"
#include <string.h>

typedef struct cu_held block;
struct cu_held {
  CUdeviceptr at;
  size_t bytes;
  bool used, small;
  block *left, *right; /* neighbours in the segment; NULL at its ends */
  block *next, *prev;  /* in a bin, of free ones; of used ones `next` is the next of the same hash */
  block *held;         /* the next of those of the same hold, or that the same graph keeps */
  bool of_hold, kept;  /* it was got for a hold that has not ended; put meanwhile */
};

enum { BINS = 64, HASHES = 4096 };
/* Blocks of up to SMALL come from segments of their own, SEGMENT bytes each; segments of others are multiples
 * of that. What is left of a large block becomes one from SMALL on. */
static const size_t SMALL = (size_t)1 << 20, SEGMENT = (size_t)2 << 20;

struct cu_pool {
  pthread_mutex_t lock;
  kn_heap *heap; /* retained */
  cu_base base;
  bool closed;
  block *bins[2][BINS]; /* [small] */
  block *used[HASHES];
  cu_memory_stats s;
};

/* ---- lists ---- */

static int bin_of(size_t bytes) {
  int n = 0;
  for (size_t x = bytes / CU_ROUND; x > 1; x >>= 1) n++;
  return n;
}

static block **hash_of(cu_pool *p, CUdeviceptr at) {
  return &p->used[at / CU_ROUND * UINT64_C(0x9E3779B97F4A7C15) >> 52];
}

static void add_free(cu_pool *p, block *b) {
  block **bin = &p->bins[b->small][bin_of(b->bytes)];
  b->used = false;
  b->prev = NULL;
  b->next = *bin;
  if (*bin) (*bin)->prev = b;
  *bin = b;
}

static void remove_free(cu_pool *p, block *b) {
  *(b->prev ? &b->prev->next : &p->bins[b->small][bin_of(b->bytes)]) = b->next;
  if (b->next) b->next->prev = b->prev;
}

static void add_used(cu_pool *p, block *b) {
  block **list = hash_of(p, b->at);
  b->used = true;
  b->next = *list;
  *list = b;
  p->s.blocks++;
  p->s.allocated += b->bytes;
  if (p->s.allocated > p->s.peak_allocated) p->s.peak_allocated = p->s.allocated;
}

static block **find_used(cu_pool *p, CUdeviceptr at) {
  block **list = hash_of(p, at);
  while (*list && (*list)->at != at) list = &(*list)->next;
  return list;
}

static block *take_used(cu_pool *p, CUdeviceptr at) {
  block **list = find_used(p, at), *b;
  if (!(b = *list)) return NULL;
  *list = b->next;
  p->s.blocks--;
  p->s.allocated -= b->bytes;
  return b;
}

/* ---- segments ---- */

static block *add_segment(cu_pool *p, size_t bytes, bool small) {
  size_t whole = small ? SEGMENT : (bytes + SEGMENT - 1) / SEGMENT * SEGMENT;
  block *b = whole < bytes ? NULL : kn_calloc(p->heap, 1, sizeof *b);
  if (!b) return NULL;
  if (!p->base.get(p->base.ud, whole, &b->at)) {
    kn_free(p->heap, b, sizeof *b);
    return NULL;
  }
  b->bytes = whole;
  b->small = small;
  p->s.segments++;
  p->s.reserved += whole;
  if (p->s.reserved > p->s.peak_reserved) p->s.peak_reserved = p->s.reserved;
  add_free(p, b);
  return b;
}

static void drop_segment(cu_pool *p, block *b) {
  p->base.give_back(p->base.ud, b->at, b->bytes);
  p->s.segments--;
  p->s.reserved -= b->bytes;
  kn_free(p->heap, b, sizeof *b);
}

static bool trim(cu_pool *p) {
  bool any = false;
  for (int small = 0; small < 2; small++)
    for (int i = 0; i < BINS; i++)
      for (block *b = p->bins[small][i], *next; b; b = next) {
        next = b->next;
        if (b->left || b->right) continue;
        remove_free(p, b);
        drop_segment(p, b);
        any = true;
      }
  return any;
}

/* ---- blocks ---- */

static block *find_free(const cu_pool *p, size_t bytes, bool small) {
  for (int i = bin_of(bytes); i < BINS; i++) {
    block *best = NULL;
    for (block *b = p->bins[small][i]; b && (!best || best->bytes > bytes); b = b->next)
      if (b->bytes >= bytes && (!best || b->bytes < best->bytes)) best = b;
    if (best) return best;
  }
  return NULL;
}

/* The front of a free block; false: no memory of the host for what is left. */
static bool split(cu_pool *p, block *b, size_t bytes) {
  if (b->bytes - bytes < (b->small ? CU_ROUND : SMALL)) return true;
  block *rest = kn_calloc(p->heap, 1, sizeof *rest);
  if (!rest) return false;
  *rest = (block){
      .at = b->at + bytes, .bytes = b->bytes - bytes, .small = b->small, .left = b, .right = b->right};
  if (b->right) b->right->left = rest;
  b->right = rest;
  b->bytes = bytes;
  add_free(p, rest);
  return true;
}

/* b takes over its right neighbour; neither is in a bin. */
static void join_right(cu_pool *p, block *b) {
  block *r = b->right;
  b->bytes += r->bytes;
  b->right = r->right;
  if (b->right) b->right->left = b;
  kn_free(p->heap, r, sizeof *r);
}

static size_t rounded(size_t bytes) {
  if (bytes > SIZE_MAX - CU_ROUND) return 0;
  return bytes ? (bytes + CU_ROUND - 1) / CU_ROUND * CU_ROUND : CU_ROUND;
}

CUdeviceptr cu_pool_get(cu_pool *p, size_t bytes, cu_hold *hold) {
  size_t size = rounded(bytes);
  CUdeviceptr at = 0;
  if (!size) return 0;
  pthread_mutex_lock(&p->lock);
  bool small = size <= SMALL;
  block *b = p->closed ? NULL : find_free(p, size, small);
  if (!b && !p->closed) b = add_segment(p, size, small);
  if (!b && !p->closed && trim(p)) {
    p->s.retries++;
    b = add_segment(p, size, small);
  }
  if (b) {
    remove_free(p, b);
    if (split(p, b, size)) {
      add_used(p, b);
      at = b->at;
      b->kept = false;
      if ((b->of_hold = hold != NULL)) {
        b->held = hold->first;
        hold->first = b;
      }
    } else
      add_free(p, b);
  }
  p->s.calls++;
  pthread_mutex_unlock(&p->lock);
  return at;
}

static void free_pool(cu_pool *p) {
  pthread_mutex_unlock(&p->lock);
  pthread_mutex_destroy(&p->lock);
  kn_heap *heap = p->heap;
  kn_free(heap, p, sizeof *p);
  kn_heap_release(heap);
}

void cu_pool_put(cu_pool *p, CUdeviceptr at) {
  pthread_mutex_lock(&p->lock);
  block *b = *find_used(p, at);
  if (b && b->of_hold)
    b->kept = true;
  else if ((b = take_used(p, at)) && p->closed) {
    kn_free(p->heap, b, sizeof *b);
    if (!p->s.blocks) {
      free_pool(p);
      return;
    }
  } else if (b) {
    if (b->right && !b->right->used) remove_free(p, b->right), join_right(p, b);
    if (b->left && !b->left->used) {
      b = b->left;
      remove_free(p, b);
      join_right(p, b);
    }
    add_free(p, b);
  }
  pthread_mutex_unlock(&p->lock);
}

/* ---- what graphs keep ---- */

cu_held *cu_pool_held(cu_pool *p, cu_hold *hold) {
  block *held = NULL;
  pthread_mutex_lock(&p->lock);
  for (block *b = hold->first, *next; b; b = next) {
    next = b->held;
    b->of_hold = false;
    if (!b->kept) continue; /* somebody has it still, and puts it */
    b->held = held;
    held = b;
  }
  hold->first = NULL;
  pthread_mutex_unlock(&p->lock);
  return held;
}

void cu_pool_put_held(cu_pool *p, cu_held *h) {
  while (h) {
    block *next = h->held;
    cu_pool_put(p, h->at);
    h = next;
  }
}

/* ---- pools ---- */

cu_pool *cu_pool_new(kn_heap *heap, const cu_base *base) {
  cu_pool *p = kn_calloc(heap, 1, sizeof *p);
  if (!p || pthread_mutex_init(&p->lock, NULL)) {
    kn_free(heap, p, sizeof *p);
    return NULL;
  }
  p->heap = kn_heap_retain(heap);
  p->base = *base;
  return p;
}

void cu_pool_close(cu_pool *p) {
  pthread_mutex_lock(&p->lock);
  (void)trim(p);
  for (int i = 0; i < HASHES; i++) /* from each block that is in use to the ends of its segment */
    for (block *b = p->used[i]; b; b = b->next) {
      block *first = b;
      size_t bytes = b->bytes;
      if (!b->left && !b->right && !b->bytes) continue; /* done with another block of its segment */
      while (first->left) first = first->left;
      CUdeviceptr at = first->at;
      bytes = 0;
      for (block *x = first, *next; x; x = next) {
        next = x->right;
        bytes += x->bytes;
        x->left = x->right = NULL;
        x->bytes = 0;
        if (x->used) continue;
        kn_free(p->heap, x, sizeof *x);
      }
      p->base.give_back(p->base.ud, at, bytes);
    }
  p->closed = true;
  p->s.allocated = p->s.reserved = 0;
  if (!p->s.blocks) {
    free_pool(p);
    return;
  }
  pthread_mutex_unlock(&p->lock);
}

void cu_pool_trim(cu_pool *p) {
  pthread_mutex_lock(&p->lock);
  (void)trim(p);
  pthread_mutex_unlock(&p->lock);
}

cu_memory_stats cu_pool_stats(cu_pool *p) {
  pthread_mutex_lock(&p->lock);
  cu_memory_stats s = p->s;
  pthread_mutex_unlock(&p->lock);
  return s;
}

void cu_pool_reset_peak(cu_pool *p) {
  pthread_mutex_lock(&p->lock);
  p->s.peak_allocated = p->s.allocated;
  p->s.peak_reserved = p->s.reserved;
  pthread_mutex_unlock(&p->lock);
}
