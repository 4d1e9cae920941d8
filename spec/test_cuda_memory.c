/* The caching allocator of devices, on memory that there is none of: addresses are handed out by a counter,
 * and the model of what should be where is held against it. */
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/memory.h"

typedef struct driver { /* whom segments are asked of */
  size_t left, given;
  CUdeviceptr next;
  int calls, segments;
} driver;

static bool get(void *ud, size_t bytes, CUdeviceptr *out) {
  driver *d = ud;
  d->calls++;
  ck_assert_int_eq(bytes % (2 << 20), 0);
  if (bytes > d->left) return false;
  d->left -= bytes, d->given += bytes, d->segments++;
  *out = d->next;
  d->next += bytes + (2 << 20); /* segments are never neighbours */
  return true;
}

static void give_back(void *ud, CUdeviceptr p, size_t bytes) {
  driver *d = ud;
  (void)p;
  d->left += bytes, d->given -= bytes, d->segments--;
}

typedef struct world {
  kn_context *c;
  driver d;
  cu_pool *p;
} world;

static void start(world *w, size_t memory) {
  w->c = suite_context();
  w->d = (driver){.left = memory, .next = 1 << 20};
  w->p = cu_pool_new(w->c->heap, &(cu_base){&w->d, get, give_back});
  ck_assert_ptr_nonnull(w->p);
}

static void finish(world *w) {
  cu_pool_close(w->p);
  ck_assert_int_eq(w->d.given, 0);
  ck_assert_int_eq(w->d.segments, 0);
  suite_done(w->c);
}

static void holds(world *w, size_t allocated, size_t reserved, uint64_t blocks, uint64_t segments) {
  cu_memory_stats s = cu_pool_stats(w->p);
  ck_assert_msg(
      s.allocated == allocated && s.reserved == reserved && s.blocks == blocks && s.segments == segments,
      "%zu of %zu in %d blocks, %d segments", s.allocated, s.reserved, (int)s.blocks, (int)s.segments);
  ck_assert_int_eq(s.reserved, w->d.given);
}

enum { KB = 1 << 10, MB = 1 << 20 };

START_TEST(blocks_are_used_again) {
  world w;
  start(&w, 64 * MB);
  CUdeviceptr a = cu_pool_get(w.p, 1, NULL), b = cu_pool_get(w.p, 513, NULL), c = cu_pool_get(w.p, 0, NULL);
  ck_assert(a && b == a + 512 && c == b + 1024);
  holds(&w, 512 + 1024 + 512, 2 * MB, 3, 1);
  cu_pool_put(w.p, b);
  holds(&w, 1024, 2 * MB, 2, 1);
  ck_assert(cu_pool_get(w.p, 1000, NULL) == b); /* the smallest that fits, not the rest of the segment */
  cu_pool_put(w.p, a), cu_pool_put(w.p, b), cu_pool_put(w.p, c);
  holds(&w, 0, 2 * MB, 0, 1);
  ck_assert(cu_pool_get(w.p, MB, NULL) == a); /* one block again */
  ck_assert_int_eq(w.d.calls, 1);
  CUdeviceptr big = cu_pool_get(w.p, MB + 1, NULL); /* a segment of its own */
  holds(&w, MB + 2 * MB, 4 * MB, 2, 2);             /* what is left of it is too little for others */
  cu_pool_put(w.p, big);
  ck_assert(cu_pool_get(w.p, 2 * MB, NULL) == big);
  cu_pool_put(w.p, a);
  cu_pool_put(w.p, 12345); /* nobody's */
  cu_pool_trim(w.p);
  holds(&w, 2 * MB, 2 * MB, 1, 1);
  cu_pool_put(w.p, big);
  finish(&w);
}
END_TEST

START_TEST(peaks) {
  world w;
  start(&w, 64 * MB);
  CUdeviceptr a = cu_pool_get(w.p, 5 * MB, NULL), b = cu_pool_get(w.p, 3 * MB, NULL);
  cu_pool_put(w.p, a);
  cu_memory_stats s = cu_pool_stats(w.p);
  ck_assert(s.peak_allocated == 8 * MB && s.allocated == 3 * MB && s.peak_reserved == 10 * MB);
  cu_pool_reset_peak(w.p);
  s = cu_pool_stats(w.p);
  ck_assert(s.peak_allocated == 3 * MB && s.peak_reserved == 10 * MB && s.calls == 2);
  cu_pool_put(w.p, b);
  finish(&w);
}
END_TEST

START_TEST(what_is_cached_is_given_back_for_more) {
  world w;
  start(&w, 16 * MB);
  CUdeviceptr kept = cu_pool_get(w.p, 100, NULL), a = cu_pool_get(w.p, 6 * MB, NULL),
              b = cu_pool_get(w.p, 6 * MB, NULL);
  ck_assert(kept && a && b);
  ck_assert(!cu_pool_get(w.p, 6 * MB, NULL) && !cu_pool_get(w.p, SIZE_MAX, NULL) &&
            !cu_pool_get(w.p, SIZE_MAX - 600, NULL));
  cu_pool_put(w.p, a), cu_pool_put(w.p, b);
  CUdeviceptr c = cu_pool_get(w.p, 13 * MB, NULL); /* neither cached one is large enough */
  ck_assert(c != 0);
  ck_assert_int_eq(cu_pool_stats(w.p).retries, 1);
  holds(&w, 512 + 13 * MB, 16 * MB, 2, 2);
  cu_pool_put(w.p, c), cu_pool_put(w.p, kept);
  finish(&w);
}
END_TEST

/* Tensors may outlive their device. */
START_TEST(blocks_outlive_the_device) {
  world w;
  start(&w, 64 * MB);
  CUdeviceptr a[5];
  for (int i = 0; i < 5; i++) a[i] = cu_pool_get(w.p, i == 4 ? 7 * MB : 3 * KB, NULL);
  cu_pool_put(w.p, a[1]), cu_pool_put(w.p, a[3]);
  cu_pool_close(w.p);
  ck_assert_int_eq(w.d.given, 0);
  ck_assert(!cu_pool_get(w.p, 3, NULL));
  cu_pool_put(w.p, a[0]), cu_pool_put(w.p, a[4]), cu_pool_put(w.p, a[2]);
  suite_done(w.c);
}
END_TEST

/* No two blocks overlap, all lie in segments, and nothing is lost. */
START_TEST(random_sizes) {
  enum { N = 300 };
  struct {
    CUdeviceptr at;
    size_t bytes;
  } live[N] = {{0}};
  uint32_t r = 7;
  size_t sum = 0;
  world w;
  start(&w, 90 * MB);
  for (int step = 0; step < 20000; step++) {
    int i = (int)((r = r * 1664525 + 1013904223) >> 8) % N;
    if (live[i].at) {
      cu_pool_put(w.p, live[i].at);
      sum -= live[i].bytes;
      live[i].at = 0;
      continue;
    }
    r = r * 1664525 + 1013904223;
    size_t bytes = r >> 30 ? (r >> 8) % 5000 : (r >> 8) % (5 * MB);
    CUdeviceptr at = cu_pool_get(w.p, bytes, NULL);
    if (!at) continue;
    ck_assert_int_eq(at % CU_ROUND, 0);
    cu_memory_stats s = cu_pool_stats(w.p);
    ck_assert(s.reserved == w.d.given && s.allocated > sum);
    live[i].at = at;
    live[i].bytes = s.allocated - sum;
    ck_assert(live[i].bytes >= bytes && live[i].bytes < bytes + MB + CU_ROUND);
    sum = s.allocated;
    for (int k = 0; k < N; k++)
      ck_assert(k == i || !live[k].at || live[k].at + live[k].bytes <= at ||
                at + live[i].bytes <= live[k].at);
  }
  ck_assert_int_gt((int)cu_pool_stats(w.p).retries, 0);
  for (int i = 0; i < N; i++)
    if (live[i].at) cu_pool_put(w.p, live[i].at);
  cu_pool_trim(w.p);
  holds(&w, 0, 0, 0, 0);
  finish(&w);
}
END_TEST

/* What is taken for a hold stays in use, what others take and give back meanwhile does not. */
START_TEST(blocks_of_a_hold_stay) {
  world w;
  cu_hold hold = {0};
  start(&w, 64 * MB);
  CUdeviceptr kept = cu_pool_get(w.p, 1000, &hold), other = cu_pool_get(w.p, 1000, NULL),
              later = cu_pool_get(w.p, 1000, &hold);
  cu_pool_put(w.p, kept), cu_pool_put(w.p, other);
  ck_assert(cu_pool_get(w.p, 1000, NULL) == other);
  cu_held *held = cu_pool_held(w.p, &hold);
  cu_pool_put(w.p, later); /* it was in use when the hold ended */
  holds(&w, 2 * 1024, 2 * MB, 2, 1);
  cu_pool_put_held(w.p, held);
  holds(&w, 1024, 2 * MB, 1, 1);
  cu_pool_put(w.p, other);
  finish(&w);
}
END_TEST

SUITE("cuda_memory", blocks_are_used_again, peaks, what_is_cached_is_given_back_for_more,
      blocks_outlive_the_device, random_sizes, blocks_of_a_hold_stay)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_memory", no_headers)
#endif
