/* A table from pieces of text to pointers; sorting. */
#include "graph/map.h"
#include <string.h>

typedef struct kn_map_entry {
  kn_span key;
  void *v;
} entry;

size_t kn_hash(const char *s, size_t n) {
  uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
  return (size_t)(h ^ h >> 32);
}

static entry *probe(entry *e, size_t cap, kn_span key) {
  size_t i = kn_hash(key.s, key.n) & (cap - 1);
  while (e[i].v && (e[i].key.n != key.n || memcmp(e[i].key.s, key.s, key.n))) i = (i + 1) & (cap - 1);
  return &e[i];
}

void *kn_map_find(const kn_map *m, kn_span key) { return m->cap ? probe(m->entries, m->cap, key)->v : NULL; }

bool kn_map_add(kn_heap *heap, kn_map *m, kn_span key, void *v) {
  if (2 * (m->n + 1) > m->cap) {
    size_t cap = m->cap ? m->cap * 2 : 64;
    entry *e = kn_calloc(heap, cap, sizeof *e);
    if (!e) return false;
    for (size_t i = 0; i < m->cap; i++)
      if (m->entries[i].v) *probe(e, cap, m->entries[i].key) = m->entries[i];
    if (m->entries) kn_free(heap, m->entries, m->cap * sizeof *e);
    m->entries = e;
    m->cap = cap;
  }
  *probe(m->entries, m->cap, key) = (entry){key, v};
  m->n++;
  return true;
}

void kn_map_free(kn_heap *heap, kn_map *m) {
  if (m->entries) kn_free(heap, m->entries, m->cap * sizeof *m->entries);
  *m = (kn_map){0};
}

/* ---- sorting ---- */

static void sift(void **list, size_t at, size_t n, bool (*before)(const void *, const void *)) {
  for (size_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && before(list[child], list[child + 1])) child++;
    if (!before(list[at], list[child])) return;
    void *t = list[at];
    list[at] = list[child];
    list[child] = t;
  }
}

void kn_sort(void **list, size_t n, bool (*before)(const void *a, const void *b)) {
  for (size_t i = n / 2; i-- > 0;) sift(list, i, n, before);
  for (size_t end = n; end > 1;) {
    void *t = list[0];
    list[0] = list[--end];
    list[end] = t;
    sift(list, 0, end, before);
  }
}
