/* Checkpoints: see core/grad/checkpoint.h. */
#include "core/grad/checkpoint.h"
#include "core/random.h"
#include <string.h>

typedef struct value {
  kn_tensor *tensor; /* without a history, owned */
  uint32_t version;
} value;

struct kn_checkpoint {
  atomic_int refs;
  kn_heap *heap; /* retained */
  kn_again_fn again;
  void *ud;
  void (*release)(void *ud);
  kn_random random; /* as it was when the function began, … */
  uint8_t autocast; /* … as this was */
  uint32_t count;   /* values noted the first time */
  bool collects, full;
  uint32_t have, room; /* values there now */
  value *values;
  kn_checkpoint *next; /* in a list of filled ones, which holds a reference */
};

kn_status kn_checkpoint_new(kn_context *ctx, kn_again_fn again, void *ud, void (*release)(void *ud),
                            kn_checkpoint **out) {
  kn_checkpoint *c = kn_claim(ctx, sizeof *c);
  if (!c) {
    if (release) release(ud);
    return kn_fail_nomem(ctx, sizeof *c);
  }
  memset(c, 0, sizeof *c);
  atomic_init(&c->refs, 1);
  c->heap = kn_heap_retain(ctx->heap);
  c->again = again;
  c->ud = ud;
  c->release = release;
  c->random = ctx->random;
  c->autocast = ctx->autocast;
  *out = c;
  return KN_OK;
}

kn_checkpoint *kn_checkpoint_retain(kn_checkpoint *c) {
  atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  return c;
}

static void clear(kn_checkpoint *c) {
  for (uint32_t i = 0; i < c->have; i++) kn_tensor_release(c->values[i].tensor);
  kn_free(c->heap, c->values, c->room * sizeof *c->values);
  c->values = NULL;
  c->have = c->room = 0;
  c->full = false;
}

void kn_checkpoint_release(kn_checkpoint *c) {
  if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
  clear(c);
  if (c->release) c->release(c->ud);
  kn_heap *heap = c->heap;
  kn_free(heap, c, sizeof *c);
  kn_heap_release(heap);
}

bool kn_checkpoint_collects(const kn_checkpoint *c) { return c->collects; }

kn_status kn_checkpoint_note(kn_context *ctx, kn_checkpoint *c, kn_tensor *t, uint32_t *number) {
  if (!c->collects) {
    *number = c->count++;
    return KN_OK;
  }
  if (c->have == c->room) {
    uint32_t room = c->room ? 2 * c->room : 16;
    value *more = kn_realloc(c->heap, c->values, c->room * sizeof *more, room * sizeof *more);
    if (!more) return kn_fail_nomem(ctx, room * sizeof *more);
    c->values = more;
    c->room = room;
  }
  kn_tensor *same;
  KN_TRY(kn_tensor_alias(ctx, t, &same));
  c->values[c->have++] = (value){same, atomic_load(&t->storage->version)};
  return KN_OK;
}

static kn_status run_again(kn_context *ctx, kn_checkpoint *c) {
  kn_random random = ctx->random;
  kn_checkpoint *before = ctx->checkpoint;
  bool grad = ctx->grad_enabled, inference = ctx->inference;
  const uint8_t autocast = ctx->autocast;
  ctx->random = c->random;
  ctx->autocast = c->autocast;
  ctx->checkpoint = c;
  ctx->grad_enabled = true;
  ctx->inference = false;
  c->collects = true;
  kn_status st = c->again(ctx, c->ud);
  c->collects = false;
  ctx->inference = inference;
  ctx->grad_enabled = grad;
  ctx->autocast = autocast;
  ctx->checkpoint = before;
  ctx->random = random;
  if (st == KN_OK && c->have != c->count)
    st = kn_fail(
        ctx, KN_STATE,
        "checkpoint: the function saved %u values for backward, and %u when it was run again; it must "
        "do the same each time",
        c->count, c->have);
  if (st != KN_OK) clear(c);
  return st;
}

kn_status kn_checkpoint_value(kn_context *ctx, kn_checkpoint *c, uint32_t number, const kn_type *type,
                              kn_checkpoint **filled, kn_tensor **out, uint32_t *version) {
  if (!c->full) {
    if (c->collects)
      return kn_fail(ctx, KN_STATE, "checkpoint: the function needs its own gradient to be run");
    KN_TRY(run_again(ctx, c));
    c->full = true;
    c->next = *filled;
    *filled = kn_checkpoint_retain(c);
  }
  kn_tensor *t = c->values[number].tensor;
  if (!kn_type_equal(&t->type, type)) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    return kn_fail(
        ctx, KN_STATE,
        "checkpoint: the function saved %s for backward, and %s in its place when it was run again; "
        "it must do the same each time",
        kn_type_text(type, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  }
  *out = t;
  *version = c->values[number].version;
  return KN_OK;
}

void kn_checkpoints_clear(kn_checkpoint *filled) {
  while (filled) {
    kn_checkpoint *c = filled;
    filled = c->next;
    c->next = NULL;
    clear(c);
    kn_checkpoint_release(c);
  }
}
