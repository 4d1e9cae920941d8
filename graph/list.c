/* Persistent lists of a run; see list.h. */
#include "graph/list.h"
#include <string.h>

typedef struct buffer { /* shared by lists; holds what the longest of them has */
  uint32_t refs, n, room;
  kn_heap *heap;
  kn_element *at;
} buffer;

struct kn_list {
  uint32_t refs, n;
  size_t bytes;
  kn_vkind kind;
  kn_heap *heap; /* blocks keep it alive */
  buffer *b;
};

static kn_element retained(kn_element e) {
  if (e.tensor) kn_tensor_retain(e.tensor);
  if (e.list) kn_list_retain(e.list);
  return e;
}

static void drop(kn_element *e) {
  kn_tensor_release(e->tensor);
  kn_list_release(e->list);
}

static void buffer_release(buffer *b) {
  if (!b || --b->refs) return;
  for (uint32_t i = 0; i < b->n; i++) drop(&b->at[i]);
  kn_free(b->heap, b->at, b->room * sizeof *b->at);
  kn_free(b->heap, b, sizeof *b);
}

kn_list *kn_list_retain(kn_list *l) {
  l->refs++;
  return l;
}

void kn_list_release(kn_list *l) {
  if (!l || --l->refs) return;
  buffer_release(l->b);
  kn_free(l->heap, l, sizeof *l);
}

uint32_t kn_list_length(const kn_list *l) { return l ? l->n : 0; }
kn_vkind kn_list_kind(const kn_list *l) { return l->kind; }
const kn_element *kn_list_at(const kn_list *l, uint32_t i) { return &l->b->at[i]; }

size_t kn_list_bytes(const kn_list *l) { return l ? l->bytes : 0; }

/* Blocks have a head and are rounded up; a buffer has up to twice the room. */
static size_t bytes_of(const kn_element *e) {
  enum { BLOCK = 64 };
  size_t sum = 2 * sizeof *e + kn_list_bytes(e->list);
  if (e->tensor) sum += sizeof *e->tensor + BLOCK;
  if (e->tensor && e->tensor->storage) sum += sizeof(kn_storage) + e->tensor->storage->bytes + 2 * BLOCK;
  return sum;
}

/* A buffer of its own, with each `step`-th of the first n elements of l and room for one more. */
static kn_status copied(kn_context *ctx, const kn_list *l, uint32_t n, uint32_t step, buffer **out) {
  uint32_t room = 4;
  while (room <= n / step && room < UINT32_MAX / 2) room *= 2;
  buffer *b = kn_claim(ctx, sizeof *b);
  if (!b) return kn_fail_nomem(ctx, sizeof *b);
  *b = (buffer){
      .refs = 1, .room = room, .heap = kn_claim_heap(ctx), .at = kn_claim(ctx, room * sizeof *b->at)};
  if (!b->at) {
    kn_free(kn_claim_heap(ctx), b, sizeof *b);
    return kn_fail_nomem(ctx, room * sizeof *b->at);
  }
  for (uint32_t i = 0; i < n; i += step) b->at[b->n++] = retained(l->b->at[i]);
  *out = b;
  return KN_OK;
}

/* Nobody can see what lies behind the end of a list that has its buffer alone. */
static void trim(const kn_list *l) {
  while (l->b->refs == 1 && l->b->n > l->n) drop(&l->b->at[--l->b->n]);
}

static kn_status grow(kn_context *ctx, buffer *b) {
  if (b->n < b->room) return KN_OK;
  uint32_t room = b->room * 2;
  if (room <= b->room) return kn_fail(ctx, KN_LIMIT, "append: the list is too long");
  kn_element *at = kn_realloc(b->heap, b->at, b->room * sizeof *at, room * sizeof *at);
  if (!at) return kn_fail_nomem(ctx, room * sizeof *at);
  b->at = at;
  b->room = room;
  return KN_OK;
}

static kn_status append(kn_context *ctx, kn_list *l, kn_vkind kind, kn_element e, kn_list **out) {
  kn_list *made = kn_claim(ctx, sizeof *made);
  if (!made) return kn_fail_nomem(ctx, sizeof *made);
  *made = (kn_list){.refs = 1, .kind = kind, .heap = kn_claim_heap(ctx)};
  if (l) trim(l);
  bool behind = l && l->b->n == l->n; /* nobody has written there */
  kn_status st = behind ? grow(ctx, l->b) : copied(ctx, l, kn_list_length(l), 1, &made->b);
  if (st != KN_OK) {
    kn_free(kn_claim_heap(ctx), made, sizeof *made);
    return st;
  }
  if (behind) {
    made->b = l->b;
    made->b->refs++;
  }
  made->b->at[made->b->n++] = e;
  made->n = made->b->n;
  made->bytes = kn_list_bytes(l) + bytes_of(&e);
  *out = made;
  return KN_OK;
}

kn_status kn_list_append(kn_context *ctx, kn_list *l, kn_vkind kind, kn_element e, kn_list **out) {
  kn_status st = append(ctx, l, kind, e, out);
  if (st != KN_OK) drop(&e);
  return st;
}

static size_t bytes_in(const buffer *b, uint32_t n) {
  size_t sum = 0;
  for (uint32_t i = 0; i < n; i++) sum += bytes_of(&b->at[i]);
  return sum;
}

kn_status kn_list_part(kn_context *ctx, kn_list *l, uint32_t n, uint32_t step, kn_list **out) {
  if (!l || !n) {
    *out = NULL;
    return KN_OK;
  }
  trim(l);
  kn_list *made = kn_claim(ctx, sizeof *made);
  if (!made) return kn_fail_nomem(ctx, sizeof *made);
  *made = (kn_list){.refs = 1, .n = n, .kind = l->kind, .heap = kn_claim_heap(ctx)};
  if (step == 1) {
    made->b = l->b;
    made->b->refs++;
    made->bytes = l->bytes;
    for (uint32_t i = n; i < l->n; i++) made->bytes -= bytes_of(&l->b->at[i]);
  } else {
    made->n = (n + step - 1) / step;
    kn_status st = copied(ctx, l, n, step, &made->b);
    if (st != KN_OK) {
      kn_free(kn_claim_heap(ctx), made, sizeof *made);
      return st;
    }
    made->bytes = bytes_in(made->b, made->n);
  }
  *out = made;
  return KN_OK;
}

kn_status kn_list_copy(kn_context *ctx, kn_list *l, kn_vkind kind, uint32_t n, kn_list **out) {
  static const kn_element none;
  kn_list *made = kn_claim(ctx, sizeof *made);
  if (!made) return kn_fail_nomem(ctx, sizeof *made);
  *made = (kn_list){.refs = 1, .n = n, .kind = kind, .heap = kn_claim_heap(ctx)};
  uint32_t have = kn_list_length(l);
  kn_status st = copied(ctx, l, have < n ? have : n, 1, &made->b);
  while (st == KN_OK && made->b->n < n && (st = grow(ctx, made->b)) == KN_OK)
    made->b->at[made->b->n++] = none;
  if (st != KN_OK) {
    kn_list_release(made);
    return st;
  }
  made->bytes = bytes_in(made->b, n);
  *out = made;
  return KN_OK;
}

void kn_list_put(kn_list *l, uint32_t i, kn_element e) {
  l->bytes += bytes_of(&e) - bytes_of(&l->b->at[i]);
  drop(&l->b->at[i]);
  l->b->at[i] = e;
}
