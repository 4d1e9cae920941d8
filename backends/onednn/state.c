/* The state of a context: library, engine, and the primitive cache: a hash table threaded by a list in order
 * of use. */
#include "backends/onednn/state.h"
#include "backends/backend.h"
#include "core/parallel.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { BUCKETS = 2 * DN_CACHE_SIZE, WHY = 96 };

typedef struct entry entry;
struct entry {
  entry *next; /* in the bucket */
  entry *newer, *older;
  uint64_t hash;
  dn_problem problem;
  dn_primitive *primitive; /* NULL: declined */
  char why[WHY];
};

struct dn_state {
  kn_heap *heap; /* retained */
  dn_library lib;
  dnnl_engine_t engine;
  int threads;
  dn_shelf shelf;
  pthread_mutex_t lock; /* guards all below */
  entry *buckets[BUCKETS];
  entry *newest, *oldest;
  dn_cache_stats stats;
};

dn_state *dn_state_open(kn_context *ctx, char version[DN_VERSION_TEXT], char *why, size_t size) {
  dn_state *s = kn_calloc(ctx->heap, 1, sizeof *s);
  if (!s) {
    snprintf(why, size, KN_WHY_MEMORY);
    return NULL;
  }
  if (!dn_library_open(&s->lib, version, why, size)) {
    kn_free(ctx->heap, s, sizeof *s);
    return NULL;
  }
  dnnl_status_t st = s->lib.engine_create(&s->engine, dnnl_cpu, 0);
  if (!st && pthread_mutex_init(&s->lock, NULL)) {
    s->lib.engine_destroy(s->engine);
    st = dnnl_out_of_memory;
  }
  if (st) {
    snprintf(why, size, "oneDNN %s could not make a CPU engine: %s", version, dn_status_text(st));
    dn_library_close(&s->lib);
    kn_free(ctx->heap, s, sizeof *s);
    return NULL;
  }
  if (!dn_shelf_open(&s->shelf, &s->lib, ctx->heap)) {
    snprintf(why, size, "no lock could be made");
    pthread_mutex_destroy(&s->lock);
    s->lib.engine_destroy(s->engine);
    dn_library_close(&s->lib);
    kn_free(ctx->heap, s, sizeof *s);
    return NULL;
  }
  s->heap = kn_heap_retain(ctx->heap);
  s->threads = kn_parallel_library_threads(ctx);
  return s;
}

static void unlink_use(dn_state *s, entry *e) {
  *(e->newer ? &e->newer->older : &s->newest) = e->older;
  *(e->older ? &e->older->newer : &s->oldest) = e->newer;
}

static void link_newest(dn_state *s, entry *e) {
  e->newer = NULL;
  e->older = s->newest;
  *(s->newest ? &s->newest->newer : &s->oldest) = e;
  s->newest = e;
}

static void drop(dn_state *s, entry *e) {
  unlink_use(s, e);
  entry **at = &s->buckets[e->hash % BUCKETS];
  while (*at != e) at = &(*at)->next;
  *at = e->next;
  dn_primitive_release(e->primitive);
  kn_free(s->heap, e, sizeof *e);
  s->stats.entries--;
}

void dn_state_close(dn_state *s) {
  if (!s) return;
  while (s->oldest) drop(s, s->oldest);
  dn_shelf_close(&s->shelf);
  pthread_mutex_destroy(&s->lock);
  s->lib.engine_destroy(s->engine);
  dn_library_close(&s->lib);
  kn_heap *heap = s->heap;
  kn_free(heap, s, sizeof *s);
  kn_heap_release(heap);
}

/* Problems are made of 8-byte words. */
static uint64_t hash_of(const dn_problem *p) {
  uint64_t h = UINT64_C(0x9E3779B97F4A7C15), w;
  for (size_t i = 0; i < sizeof *p; i += sizeof w) {
    memcpy(&w, (const char *)p + i, sizeof w);
    h = (h ^ w) * UINT64_C(0xFF51AFD7ED558CCD);
    h ^= h >> 32;
  }
  return h;
}

static entry *find(dn_state *s, const dn_problem *p, uint64_t hash) {
  for (entry *e = s->buckets[hash % BUCKETS]; e; e = e->next)
    if (e->hash == hash && !memcmp(&e->problem, p, sizeof *p)) return e;
  return NULL;
}

static kn_status add(dn_state *s, kn_context *ctx, const dn_problem *p, uint64_t hash, entry **out) {
  entry *e = kn_calloc(s->heap, 1, sizeof *e);
  if (!e) return kn_fail_nomem(ctx, sizeof *e);
  kn_status st = dn_primitive_new(ctx, &s->lib, s->engine, p, &e->primitive, e->why, sizeof e->why);
  if (st != KN_OK && st != KN_DECLINED) {
    kn_free(s->heap, e, sizeof *e);
    return st;
  }
  if (s->stats.entries == DN_CACHE_SIZE) drop(s, s->oldest);
  e->hash = hash;
  e->problem = *p;
  e->next = s->buckets[hash % BUCKETS];
  s->buckets[hash % BUCKETS] = e;
  link_newest(s, e);
  s->stats.entries++;
  *out = e;
  return KN_OK;
}

kn_status dn_state_primitive(dn_state *s, kn_context *ctx, const dn_problem *p, dn_primitive **out, char *why,
                             size_t size) {
  uint64_t hash = hash_of(p);
  kn_status st = KN_OK;
  pthread_mutex_lock(&s->lock);
  entry *e = find(s, p, hash);
  if (e) {
    s->stats.hits++;
    unlink_use(s, e);
    link_newest(s, e);
  } else {
    s->stats.misses++;
    st = add(s, ctx, p, hash, &e);
  }
  if (st == KN_OK && e->primitive)
    *out = dn_primitive_retain(e->primitive);
  else if (st == KN_OK) {
    snprintf(why, size, "%s", e->why);
    st = KN_DECLINED;
  }
  pthread_mutex_unlock(&s->lock);
  return st;
}

dn_cache_stats dn_state_stats(dn_state *s) {
  pthread_mutex_lock(&s->lock);
  dn_cache_stats stats = s->stats;
  pthread_mutex_unlock(&s->lock);
  return stats;
}

const dn_library *dn_state_library(const dn_state *s) { return &s->lib; }
dnnl_engine_t dn_state_engine(const dn_state *s) { return s->engine; }
dn_shelf *dn_state_shelf(dn_state *s) { return &s->shelf; }
kn_heap *dn_state_heap(const dn_state *s) { return s->heap; }
int dn_state_threads(const dn_state *s) { return s->threads; }
