/* Life of storages and tensors. Most tensors are one block: tensor, storage and, when there are few, the
 * elements. The storage may outlive the tensor (a view, something saved for backward) or be given up before
 * it, so the block is freed with the later of the two. */
#include "core/tensor.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include <string.h>

typedef struct block {
  kn_tensor t; /* its `parts`: how many of the two are alive; its `room`: bytes of elements behind them */
  kn_storage s;
} block;

/* What is aligned for tensors is aligned for their elements. */
enum { HEAD = 256, CLOSE_BYTES = 768 };
_Static_assert(sizeof(block) <= HEAD && HEAD % 64 == 0, "elements lie behind the block");

void kn_strides_contiguous(const kn_type *type, int64_t strides[KN_MAX_RANK]) {
  memset(strides, 0, KN_MAX_RANK * sizeof *strides);
  int64_t step = 1;
  for (int i = type->rank - 1; i >= 0; i--) {
    strides[i] = step; /* wraps for types too large to exist, which have no storage */
    if (type->dims[i] > 1) step = (int64_t)((uint64_t)step * (uint64_t)type->dims[i]);
  }
}

static bool is_empty(const kn_type *t) {
  for (int i = 0; i < t->rank; i++)
    if (t->dims[i] == 0) return true;
  return false;
}

bool kn_tensor_contiguous(const kn_tensor *t) {
  uint64_t step = 1;
  for (int i = t->type.rank - 1; i >= 0; i--) {
    const int64_t n = t->type.dims[i];
    if (n == 1 || !kn_dim_known(n)) continue;
    if (!n || t->strides[i] != (int64_t)step) return is_empty(&t->type);
    step *= (uint64_t)n;
  }
  return true;
}

/* ---- storages ---- */

kn_storage *kn_storage_retain(kn_storage *s) {
  atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
  return s;
}

/* Who holds the only reference needs not count down: nobody else can see it. */
static bool last(atomic_int *refs) {
  return atomic_load_explicit(refs, memory_order_acquire) == 1 ||
         atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static void free_block(block *b) { kn_free_aligned(b->t.heap, b, HEAD + b->t.room); }

static void drop_part(block *b) {
  if (atomic_fetch_sub_explicit(&b->t.parts, 1, memory_order_acq_rel) == 1) free_block(b);
}

static void drop_data(kn_storage *s) {
  if (s->release) {
    if (s->device != KN_CPU) kn_heap_count_elsewhere(s->heap, s->bytes, false);
    s->release(s->release_ud, s->data, s->bytes);
  } else if (!s->close)
    kn_free_aligned(s->heap, s->data, s->bytes);
}

void kn_storage_release(kn_storage *s) {
  if (!s || !last(&s->refs)) return;
  drop_data(s);
  if (s->inside)
    drop_part((block *)(void *)((char *)s - offsetof(block, s)));
  else
    kn_free(s->heap, s, sizeof *s);
}

static void init_storage(kn_storage *s, kn_context *ctx, uint8_t device, void *data, size_t bytes) {
  *s = (kn_storage){.device = device,
                    .inference = ctx->inference,
                    .heap = kn_claim_heap(ctx),
                    .data = data,
                    .bytes = bytes};
  atomic_init(&s->refs, 1);
}

/* ---- tensors ---- */

static void init_tensor(kn_tensor *t, kn_context *ctx, const kn_type *type, void *value) {
  atomic_init(&t->refs, 1);
  t->history = 0;
  t->storage = NULL;
  t->offset = 0;
  t->grad = NULL;
  t->base = NULL;
  t->value = value;
  t->heap = kn_claim_heap(ctx);
  t->made_untracked = t->whole = false;
  t->type = *type;
  kn_strides_contiguous(type, t->strides);
}

kn_status kn_tensor_symbolic(kn_context *ctx, const kn_type *type, void *value, kn_tensor **out) {
  kn_tensor *t = kn_claim(ctx, sizeof *t);
  if (!t) return kn_fail_nomem(ctx, sizeof *t);
  init_tensor(t, ctx, type, value);
  *out = t;
  return KN_OK;
}

/* Tensor and storage in one, with room for so many bytes of elements. NULL when there is no memory. */
static block *block_new(kn_context *ctx, const kn_type *type, size_t room) {
  block *b = kn_claim_aligned(ctx, HEAD + room);
  if (!b) return NULL;
  init_tensor(&b->t, ctx, type, NULL);
  init_storage(&b->s, ctx, type->device, (char *)b + HEAD, room);
  b->t.whole = b->s.inside = b->s.close = true;
  b->t.storage = &b->s;
  b->t.room = (uint16_t)room;
  atomic_init(&b->t.parts, 2);
  return b;
}

static kn_status checked_bytes(kn_context *ctx, const kn_type *type, size_t *bytes) {
  if (kn_type_bytes(type, bytes)) return KN_OK;
  char text[KN_TYPE_TEXT];
  return kn_fail(ctx, KN_SHAPE, "a tensor %s is too large or has unknown sizes",
                 kn_type_text(type, text, sizeof text));
}

/* Memory of the type's device; `m` is NULL where it is the heap's. */
static kn_status get_data(kn_context *ctx, const kn_type *type, size_t bytes, const kn_memory **m,
                          void **data) {
  KN_TRY(kn_device_memory(ctx, (kn_device_id)type->device, m));
  if (*m) return (*m)->alloc((*m)->self, ctx, bytes, data);
  *data = kn_claim_aligned(ctx, bytes);
  return *data ? KN_OK : kn_fail_nomem(ctx, bytes);
}

kn_status kn_tensor_allocate(kn_context *ctx, kn_tensor *t, const kn_type *type) {
  size_t bytes;
  const kn_memory *m;
  void *data;
  KN_TRY(checked_bytes(ctx, type, &bytes));
  KN_TRY(get_data(ctx, type, bytes, &m, &data));
  kn_storage *s = kn_claim(ctx, sizeof *s);
  if (!s) {
    if (m)
      m->release(m->self, data, bytes);
    else
      kn_free_aligned(kn_claim_heap(ctx), data, bytes);
    return kn_fail_nomem(ctx, sizeof *s);
  }
  init_storage(s, ctx, type->device, data, bytes);
  if (m) {
    s->release = m->release;
    s->release_ud = m->self;
    kn_heap_count_elsewhere(s->heap, bytes, true);
  }
  kn_storage_release(t->storage);
  t->storage = s;
  t->type = *type;
  t->offset = 0;
  kn_strides_contiguous(type, t->strides);
  return KN_OK;
}

/* The headers stay with the host. */
static kn_status new_elsewhere(kn_context *ctx, const kn_type *type, size_t bytes, kn_tensor **out) {
  const kn_memory *m;
  void *data;
  KN_TRY(get_data(ctx, type, bytes, &m, &data));
  return kn_tensor_wrap(ctx, type, data, m->release, m->self, out);
}

kn_status kn_tensor_new(kn_context *ctx, const kn_type *type, kn_tensor **out) {
  size_t bytes;
  KN_TRY(checked_bytes(ctx, type, &bytes));
  if (type->device != KN_CPU) return new_elsewhere(ctx, type, bytes, out);
  bool close = bytes <= CLOSE_BYTES;
  block *b = block_new(ctx, type, close ? bytes : 0);
  if (!b) return kn_fail_nomem(ctx, HEAD + (close ? bytes : 0));
  if (!close) {
    void *data = kn_claim_aligned(ctx, bytes);
    if (!data) {
      free_block(b);
      return kn_fail_nomem(ctx, bytes);
    }
    b->s.close = false;
    b->s.data = data;
    b->s.bytes = bytes;
  }
  *out = &b->t;
  return KN_OK;
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
  kn_status st = checked_bytes(ctx, type, &bytes);
  block *b = st == KN_OK ? block_new(ctx, type, 0) : NULL;
  if (!b) {
    if (release) release(ud, data, bytes);
    return st == KN_OK ? kn_fail_nomem(ctx, HEAD) : st;
  }
  b->s.close = false;
  b->s.data = data;
  b->s.bytes = bytes;
  b->s.release = release ? release : keep_borrowed;
  b->s.release_ud = ud;
  if (type->device != KN_CPU) kn_heap_count_elsewhere(ctx->heap, bytes, true);
  *out = &b->t;
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
  if (!t || !last(&t->refs)) return;
  kn_tensor *base = t->base; /* no view itself, so this goes one step deep */
  block *b = t->whole ? (block *)(void *)t : NULL;
  if (t->grad) {
    kn_tape_forget(t);
    kn_grad_free(t->grad);
  }
  if (!b) {
    kn_storage_release(t->storage);
    kn_free(t->heap, t, sizeof *t);
  } else if (t->storage == &b->s && atomic_load_explicit(&b->s.refs, memory_order_acquire) == 1) {
    drop_data(&b->s); /* most often: nobody else has seen either */
    free_block(b);
  } else {
    kn_storage_release(t->storage);
    drop_part(b);
  }
  if (base) kn_tensor_release(base);
}
