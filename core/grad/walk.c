/* What a walk has met: places by node or leaf in a hash table, all found and put in order without recursion,
 * and the gradients that add up there. */
#include "core/grad/walk.h"
#include "core/dispatch.h"
#include <string.h>

static size_t hash(const void *p, size_t room) {
  uint64_t h = (uint64_t)(uintptr_t)p * UINT64_C(0x9E3779B97F4A7C15);
  return (size_t)(h >> 20) & (room - 1);
}

static const void *key_of(const kn_place *p) {
  return p->node ? (const void *)p->node : (const void *)p->leaf;
}

static size_t *slot_of(kn_walk *w, const void *key) {
  size_t i = hash(key, w->slot_room);
  while (w->slots[i] && key_of(&w->places[w->slots[i] - 1]) != key) i = (i + 1) & (w->slot_room - 1);
  return &w->slots[i];
}

/* Room for one more place; the table stays at most half full. */
static kn_status grow(kn_walk *w) {
  if (w->n < w->room) return KN_OK;
  size_t room = w->room ? 2 * w->room : 32;
  kn_place *places = kn_realloc(w->ctx->heap, w->places, w->room * sizeof *places, room * sizeof *places);
  if (!places) return kn_fail_nomem(w->ctx, room * sizeof *places);
  w->places = places;
  w->room = room;
  size_t *slots = kn_calloc(w->ctx->heap, 2 * room, sizeof *slots);
  if (!slots) return kn_fail_nomem(w->ctx, 2 * room * sizeof *slots);
  kn_free(w->ctx->heap, w->slots, w->slot_room * sizeof *slots);
  w->slots = slots;
  w->slot_room = 2 * room;
  for (size_t i = 0; i < w->n; i++) *slot_of(w, key_of(&w->places[i])) = i + 1;
  return KN_OK;
}

kn_status kn_walk_find(kn_walk *w, kn_grad *g, size_t *at) {
  const void *key = g->node ? (const void *)g->node : (const void *)g;
  size_t *slot = w->slots ? slot_of(w, key) : NULL;
  if (!slot || !*slot) {
    KN_TRY(grow(w));
    slot = slot_of(w, key);
    kn_place made = {.node = g->node, .leaf = g->node ? NULL : g};
    if (kn_walk_results(&made) > KN_MAX_OUTPUTS) {
      size_t bytes = (size_t)kn_walk_results(&made) * sizeof *made.many;
      if (!(made.many = kn_claim(w->ctx, bytes))) return kn_fail_nomem(w->ctx, bytes);
      memset(made.many, 0, bytes);
    }
    w->places[w->n] = made;
    *slot = ++w->n;
  }
  *at = *slot - 1;
  return KN_OK;
}

kn_place *kn_walk_known(kn_walk *w, const kn_grad *g) {
  const void *key = g->node ? (const void *)g->node : (const void *)g;
  size_t slot = w->slots ? *slot_of(w, key) : 0;
  return slot ? &w->places[slot - 1] : NULL;
}

/* ---- finding and ordering ---- */

/* Everything below the places found so far; counts uses. The places themselves are the queue. */
kn_status kn_walk_discover(kn_walk *w) {
  for (size_t i = 0; i < w->n; i++) {
    kn_node *node = w->places[i].node;
    for (int k = 0; node && k < node->n; k++) {
      size_t at;
      if (!node->edge[k]) continue;
      KN_TRY(kn_walk_find(w, node->edge[k], &at));
      w->places[at].pending++;
    }
  }
  return KN_OK;
}

kn_status kn_walk_sort(kn_walk *w) {
  w->order = kn_alloc(w->ctx->heap, w->n * sizeof *w->order);
  if (!w->order) return kn_fail_nomem(w->ctx, w->n * sizeof *w->order);
  size_t filled = 0;
  for (size_t i = 0; i < w->n; i++)
    if (!w->places[i].pending) w->order[filled++] = i;
  for (size_t i = 0; i < filled; i++) {
    kn_node *node = w->places[w->order[i]].node;
    for (int k = 0; node && k < node->n; k++) {
      if (!node->edge[k]) continue;
      kn_place *p = kn_walk_known(w, node->edge[k]);
      if (--p->pending == 0) w->order[filled++] = (size_t)(p - w->places);
    }
  }
  return KN_OK;
}

bool kn_walk_wants(kn_walk *w, const kn_grad *edge) {
  const kn_place *p = edge ? kn_walk_known(w, edge) : NULL;
  return p && (p->target || p->useful);
}

void kn_walk_mark(kn_walk *w) {
  for (size_t i = w->n; i-- > 0;) {
    kn_place *p = &w->places[w->order[i]];
    for (int k = 0; p->node && k < p->node->n && !p->useful; k++)
      p->useful = kn_walk_wants(w, p->node->edge[k]);
  }
}

/* ---- adding up, and the end ---- */

kn_status kn_walk_add(kn_walk *w, const kn_grad *link, kn_tensor *g) {
  kn_tensor **sum = &kn_walk_sums(kn_walk_known(w, link))[link->node ? link->output : 0];
  if (!*sum) {
    *sum = g;
    return KN_OK;
  }
  kn_tensor *total;
  kn_status st = kn_apply(w->ctx, KN_OP_add, NULL, (kn_tensor *[]){*sum, g}, 2, &total);
  kn_tensor_release(g);
  if (st != KN_OK) return st;
  kn_tensor_release(*sum);
  *sum = total;
  return KN_OK;
}

void kn_walk_free(kn_walk *w) {
  kn_heap *heap = w->ctx->heap;
  for (size_t i = 0; i < w->n; i++) {
    kn_place *p = &w->places[i];
    for (int k = 0; k < kn_walk_results(p); k++) kn_tensor_release(kn_walk_sums(p)[k]);
    kn_free(heap, p->many, (size_t)kn_walk_results(p) * sizeof *p->many);
  }
  kn_checkpoints_clear(w->filled);
  kn_free(heap, w->order, w->n * sizeof *w->order);
  kn_free(heap, w->slots, w->slot_room * sizeof *w->slots);
  kn_free(heap, w->places, w->room * sizeof *w->places);
  for (int i = 0; w->ends && i < w->ny + w->nx; i++)
    if (w->ends[i]) kn_link_release(w->ends[i]);
  kn_free(heap, w->ends, ((size_t)w->ny + (size_t)w->nx) * sizeof *w->ends);
  for (int d = 0; d < KN_DEVICE_COUNT; d++) kn_storage_release(w->blank[d]);
}
