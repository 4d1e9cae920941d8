/* Life of storages and tensors. */
#include "core/tensor.h"
#include "core/grad/tape.h"
#include <string.h>

void kn_strides_contiguous(const kn_type *type, int64_t strides[KN_MAX_RANK]) {
  memset(strides, 0, KN_MAX_RANK * sizeof *strides);
  int64_t step = 1;
  for (int i = type->rank - 1; i >= 0; i--) {
    strides[i] = step; /* wraps for types too large to exist, which have no storage */
    if (type->dims[i] > 1) step = (int64_t)((uint64_t)step * (uint64_t)type->dims[i]);
  }
}

bool kn_tensor_contiguous(const kn_tensor *t) {
  int64_t step = 1;
  for (int i = 0; i < t->type.rank; i++)
    if (t->type.dims[i] == 0) return true;
  for (int i = t->type.rank - 1; i >= 0; i--) {
    if (t->type.dims[i] > 1) {
      if (t->strides[i] != step) return false;
      step = (int64_t)((uint64_t)step * (uint64_t)t->type.dims[i]);
    }
  }
  return true;
}

kn_storage *kn_storage_retain(kn_storage *s) {
  atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
  return s;
}

void kn_storage_release(kn_storage *s) {
  if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
  if (s->release)
    s->release(s->release_ud, s->data, s->bytes);
  else
    kn_free_aligned(s->heap, s->data, s->bytes);
  kn_heap *heap = s->heap;
  kn_free(heap, s, sizeof *s);
  kn_heap_release(heap);
}

static kn_storage *storage_new(kn_context *ctx, void *data, size_t bytes) {
  kn_storage *s = kn_claim(ctx, sizeof *s);
  if (!s) return NULL;
  memset(s, 0, sizeof *s);
  atomic_init(&s->refs, 1);
  s->heap = kn_heap_retain(ctx->heap);
  s->data = data;
  s->bytes = bytes;
  return s;
}

kn_status kn_tensor_symbolic(kn_context *ctx, const kn_type *type, void *value, kn_tensor **out) {
  kn_tensor *t = kn_claim(ctx, sizeof *t);
  if (!t) return kn_fail_nomem(ctx, sizeof *t);
  memset(t, 0, sizeof *t);
  atomic_init(&t->refs, 1);
  t->type = *type;
  t->value = value;
  t->heap = kn_heap_retain(ctx->heap);
  kn_strides_contiguous(type, t->strides);
  *out = t;
  return KN_OK;
}

static kn_status checked_bytes(kn_context *ctx, const kn_type *type, size_t *bytes) {
  if (kn_type_bytes(type, bytes)) return KN_OK;
  char text[KN_TYPE_TEXT];
  return kn_fail(ctx, KN_SHAPE, "a tensor %s is too large or has unknown sizes",
                 kn_type_text(type, text, sizeof text));
}

kn_status kn_tensor_allocate(kn_context *ctx, kn_tensor *t, const kn_type *type) {
  size_t bytes;
  KN_TRY(checked_bytes(ctx, type, &bytes));
  void *data = kn_claim_aligned(ctx, bytes);
  if (!data) return kn_fail_nomem(ctx, bytes);
  kn_storage *s = storage_new(ctx, data, bytes);
  if (!s) {
    kn_free_aligned(ctx->heap, data, bytes);
    return kn_fail_nomem(ctx, sizeof *s);
  }
  s->device = (kn_device_id)type->device;
  s->inference = ctx->inference;
  kn_storage_release(t->storage);
  t->storage = s;
  t->type = *type;
  t->offset = 0;
  kn_strides_contiguous(type, t->strides);
  return KN_OK;
}

kn_status kn_tensor_new(kn_context *ctx, const kn_type *type, kn_tensor **out) {
  kn_tensor *t;
  KN_TRY(kn_tensor_symbolic(ctx, type, NULL, &t));
  kn_status st = kn_tensor_allocate(ctx, t, type);
  if (st == KN_OK)
    *out = t;
  else
    kn_tensor_release(t);
  return st;
}

void kn_tensor_set_view(kn_tensor *t, const kn_tensor *base, int64_t offset,
                        const int64_t strides[KN_MAX_RANK]) {
  kn_storage *s = kn_storage_retain(base->storage);
  kn_storage_release(t->storage);
  t->storage = s;
  t->offset = offset;
  memcpy(t->strides, strides, sizeof t->strides);
}

void kn_tensor_set_base(kn_tensor *t, kn_tensor *x, bool tracked) {
  t->base = kn_tensor_retain(x->base ? x->base : x);
  t->history = x->history; /* as old as x's own, which this one's is made of */
  t->made_untracked = !tracked || x->made_untracked;
}

/* Borrowed memory without a callback: nothing to do, and not ours to free. */
static void keep_borrowed(void *ud, void *data, size_t bytes) { (void)ud, (void)data, (void)bytes; }

kn_status kn_tensor_wrap(kn_context *ctx, const kn_type *type, void *data, kn_release_fn release, void *ud,
                         kn_tensor **out) {
  size_t bytes = 0;
  kn_tensor *t = NULL;
  kn_status st = checked_bytes(ctx, type, &bytes);
  if (st == KN_OK) st = kn_tensor_symbolic(ctx, type, NULL, &t);
  if (st == KN_OK && !(t->storage = storage_new(ctx, data, bytes))) {
    kn_tensor_release(t);
    st = kn_fail_nomem(ctx, sizeof(kn_storage));
  }
  if (st != KN_OK) {
    if (release) release(ud, data, bytes);
    return st;
  }
  t->storage->release = release ? release : keep_borrowed;
  t->storage->release_ud = ud;
  *out = t;
  return KN_OK;
}

kn_status kn_tensor_alias(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_tensor *a;
  KN_TRY(kn_tensor_symbolic(ctx, &t->type, t->value, &a));
  memcpy(a->strides, t->strides, sizeof a->strides);
  a->offset = t->offset;
  a->storage = t->storage ? kn_storage_retain(t->storage) : NULL;
  *out = a;
  return KN_OK;
}

kn_tensor *kn_tensor_retain(kn_tensor *t) {
  atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}

void kn_tensor_release(kn_tensor *t) {
  if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
  kn_tensor *base = t->base; /* no view itself, so this goes one step deep */
  kn_grad_free(t->grad);
  kn_storage_release(t->storage);
  kn_heap *heap = t->heap;
  kn_free(heap, t, sizeof *t);
  kn_heap_release(heap);
  if (base) kn_tensor_release(base);
}
