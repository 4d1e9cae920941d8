/* Runs in memory that the caller lends. It holds, in this order: a list of holes; the plan's arena; a heap
 * over the rest, from which a run takes what it makes: results, and values without a place in the arena. Each
 * run begins with that heap anew, so it finds what it needs wherever the last one has left holes; that takes
 * that nothing of the last run is held any more. */
#include "graph/lent.h"
#include <stdint.h>
#include <string.h>
#include <threads.h>

/* ---- an allocator over a piece of memory ---- */

enum { GRAIN = 16, LINE = 64 };

typedef struct hole {
  struct hole *next; /* by address, no two side by side */
  size_t bytes;
} hole;
_Static_assert(sizeof(hole) <= GRAIN, "a hole fits in the smallest block");

typedef struct holes {
  atomic_flag taken; /* tensors may be released by any thread */
  hole *first;
} holes;

static size_t up(size_t bytes, size_t to) { return (bytes + to - 1) & ~(to - 1); }

static void *cut(holes *l, size_t bytes) {
  for (hole **at = &l->first; *at; at = &(*at)->next) {
    hole *h = *at, *rest = (hole *)(void *)((char *)h + bytes);
    if (h->bytes < bytes) continue;
    if (h->bytes == bytes) return *at = h->next, h;
    *rest = (hole){h->next, h->bytes - bytes};
    *at = rest;
    return h;
  }
  return NULL;
}

static void join(hole *h) {
  if ((char *)h + h->bytes != (char *)h->next) return;
  h->bytes += h->next->bytes;
  h->next = h->next->next;
}

static void put_back(holes *l, void *p, size_t bytes) {
  hole *before = NULL, *h = p, **at = &l->first;
  for (; *at && (uintptr_t)*at < (uintptr_t)p; at = &(*at)->next) before = *at;
  *h = (hole){*at, bytes};
  *at = h;
  join(h);
  if (before) join(before);
}

static void *from_holes(void *ud, void *p, size_t osize, size_t nsize) {
  holes *l = ud;
  if (nsize > SIZE_MAX - GRAIN) return NULL;
  const size_t old = p ? up(osize, GRAIN) : 0, bytes = up(nsize, GRAIN);
  if (p && bytes == old) return p;
  while (atomic_flag_test_and_set_explicit(&l->taken, memory_order_acquire)) thrd_yield();
  void *made = bytes ? cut(l, bytes) : NULL;
  if (made && p) memcpy(made, p, osize < nsize ? osize : nsize);
  if (p && (made || !bytes)) put_back(l, p, old);
  atomic_flag_clear_explicit(&l->taken, memory_order_release);
  return made;
}

/* ---- what a run takes ---- */

/* A tensor's header, and what heaps add to it and to its elements: see core/tensor.c and core/heap.c. */
enum { TENSOR_ROOM = 512 };

static size_t more(size_t a, size_t b) { return a > SIZE_MAX / 2 - b ? SIZE_MAX / 2 : a + b; }

static size_t tensor_room(const kn_type *t) {
  size_t bytes = 0;
  if (t->device == KN_CPU && !kn_type_bytes(t, &bytes)) bytes = 0; /* only the run knows */
  return more(TENSOR_ROOM, up(bytes > SIZE_MAX / 4 ? SIZE_MAX / 4 : bytes, LINE));
}

/* Asked for a heap, tells what that is. */
static void *told(void *ud, void *p, size_t osize, size_t nsize) {
  (void)p, (void)osize;
  *(size_t *)ud = nsize;
  return NULL;
}

static size_t heap_room(void) {
  size_t bytes = 0;
  kn_heap *none = kn_heap_new(told, &bytes, 0);
  kn_heap_release(none);
  return up(bytes, LINE);
}

/* Are its tensors made there, and not only bound by the node, or the host's? */
static bool is_made(const kn_node *n) {
  return n->op != KN_NODE_host_call && n->op != KN_NODE_if && n->op != KN_NODE_loop &&
         n->op != KN_NODE_select && !kn_node_passes(n) && n->op != KN_NODE_load_state &&
         n->op != KN_NODE_param && n->op != KN_NODE_tensor;
}

static size_t made_in(const kn_plan *p, const kn_region *r) {
  size_t sum = 0;
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout && is_made(n); i++) {
      const uint32_t v = n->out[i]->id;
      const bool loose = p->place[v] == KN_PLACE_LOOSE || p->place[v] == KN_PLACE_FRESH;
      if (loose && n->out[i]->type.kind == KN_V_TENSOR && !p->undefined[v])
        sum = more(sum, tensor_room(&p->types[v]));
    }
    for (uint32_t i = 0; i < n->nin && n->op == KN_NODE_host_call; i++) /* which may keep it */
      if (n->in[i]->type.kind == KN_V_TENSOR) sum = more(sum, tensor_room(&p->types[n->in[i]->id]));
    for (int i = 0; i < n->nregions; i++) sum = more(sum, made_in(p, n->regions[i]));
  }
  return sum;
}

/* Results that are copies of what lies in the arena, is an input, or a slot's. */
static size_t copies(const kn_plan *p) {
  const kn_region *body = p->graph->body;
  size_t sum = 0;
  for (uint32_t i = 0; i < body->nyields; i++) {
    const kn_value *v = body->yields[i];
    if (v->type.kind == KN_V_TENSOR && p->place[v->id] != KN_PLACE_FRESH && !p->undefined[v->id])
      sum = more(sum, tensor_room(&p->types[v->id]));
  }
  return sum;
}

static size_t arena_at(void) { return up(sizeof(holes), LINE); }
static size_t heap_at(const kn_plan *p) { return more(arena_at(), up(p->bytes[KN_CPU], LINE)); }

size_t kn_lent_need(const kn_plan *p) {
  return more(heap_at(p), more(heap_room(), more(made_in(p, p->graph->body), copies(p))));
}

/* ---- a run ---- */

/* Nothing of the last one may be held any more. */
static kn_status let_go(kn_session *s) {
  kn_lent *l = &s->lent;
  const uint64_t held = l->heap ? kn_heap_read_stats(l->heap).blocks : 0;
  if (held)
    return kn_fail(s->ctx, KN_STATE,
                   "results of the last run, or what it gave to functions of the host, are still held, and "
                   "lie in the session's arena; release them first (kiln_tensor_read copies them)");
  kn_heap_release(l->heap);
  l->heap = NULL;
  return KN_OK;
}

kn_status kn_lent_begin(kn_session *s, kn_plan *p) {
  kn_lent *l = &s->lent;
  const size_t need = kn_lent_need(p), at = heap_at(p);
  KN_TRY(let_go(s));
  if (need > l->bytes)
    return kn_fail(s->ctx, KN_NOMEM,
                   "the session's arena has %zu bytes; a run of graph %s with these inputs needs %zu",
                   l->bytes, p->graph->name, need);
  holes *h = (holes *)(void *)l->memory;
  hole *rest = (hole *)(void *)(l->memory + at);
  *rest = (hole){NULL, (l->bytes - at) & ~(size_t)(GRAIN - 1)};
  h->first = rest;
  atomic_flag_clear(&h->taken);
  l->heap = kn_heap_new(from_holes, h, 0);
  kn_plan_place_at(p, KN_CPU, l->memory + arena_at());
  return l->heap ? KN_OK : kn_fail_nomem(s->ctx, need);
}

kn_status kn_session_lend(kn_session *s, void *memory, size_t bytes) {
  KN_TRY(kn_session_at_rest(s));
  if ((uintptr_t)memory % LINE)
    return kn_fail(s->ctx, KN_ARG, "an arena must be aligned to %d bytes (this one is at %p)", LINE, memory);
  kn_heap_release(s->lent.heap); /* which lives on for what is still held */
  s->lent = (kn_lent){.memory = memory, .bytes = bytes};
  return KN_OK;
}

void kn_session_lend_aside(kn_session *s, bool on) { s->lent.aside = on; }
