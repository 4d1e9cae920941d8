/* Storage and tensor. A storage is counted bytes on a device; a tensor is a typed, strided view of one.
 * Counts are atomic. Arguments are borrowed, results are owned by the caller; the verbs are retain and
 * release. A *symbolic* tensor has a type and a graph value but no storage: ops on it are recorded, not run.
 */
#ifndef KN_TENSOR_H
#define KN_TENSOR_H
#include "core/context.h"
#include <stdatomic.h>

typedef void (*kn_release_fn)(void *ud, void *data, size_t bytes);

typedef struct kn_storage {
  atomic_int refs;
  atomic_uint version; /* bumped by each write through any view; catches values changed after being saved */
  atomic_int writer;   /* the op of the last such write and whether its in-place form (core/grad/tape.h) */
  uint8_t device;      /* kn_device_id */
  bool inference;      /* made in inference mode: outside of it neither saved for backward nor written to */
  bool inside;         /* part of the block of a tensor (tensor.c) */
  bool close;          /* so is its data */
  kn_heap *heap;
  void *data; /* 64-byte aligned when ours */
  size_t bytes;
  kn_release_fn release; /* NULL: data is ours, from heap */
  void *release_ud;
} kn_storage;

struct kn_grad; /* core/grad/tape.h: what autograd knows of a tensor */

typedef struct kn_tensor { /* what is looked at most comes first */
  atomic_int refs;
  uint32_t history; /* of a base: how often writes have replaced `grad`; of a view: its base's when `grad` was
                       made, so a view with another number has to look again (core/grad/inplace.c) */
  kn_storage *storage;    /* NULL when symbolic */
  int64_t offset;         /* in elements from the start of storage */
  struct kn_grad *grad;   /* NULL when autograd has nothing to do with it; owned */
  struct kn_tensor *base; /* what it is a view of, for autograd: retained, and no view itself; NULL: none */
  void *value;            /* graph value of a symbolic tensor; borrowed from the graph */
  kn_heap *heap;
  bool made_untracked; /* a view made under no_grad or inference_mode */
  bool whole;          /* its first storage is part of its block; the two below are about that (tensor.c) */
  atomic_uchar parts;
  uint16_t room;
  kn_type type;
  int64_t strides[KN_MAX_RANK]; /* in elements; may be 0 (expanded) */
} kn_tensor;

/* Contiguous, uninitialised. Fails with NOMEM or SHAPE (too large). */
kn_status kn_tensor_new(kn_context *ctx, const kn_type *type, kn_tensor **out);
/* Wraps contiguous host memory; release (may be NULL) is called when the last view is gone, and at once
 * if this call fails. */
kn_status kn_tensor_wrap(kn_context *ctx, const kn_type *type, void *data, kn_release_fn release, void *ud,
                         kn_tensor **out);
/* No storage: a graph value (see kn_recorder), or what a view kernel is about to fill. */
kn_status kn_tensor_symbolic(kn_context *ctx, const kn_type *type, void *value, kn_tensor **out);
/* For kernels that get an out tensor without storage (core/op.h): give it its final type and fresh storage,
 * or make it a view of `base`. `offset` is from the start of the storage. */
kn_status kn_tensor_allocate(kn_context *ctx, kn_tensor *t, const kn_type *type);
void kn_tensor_set_view(kn_tensor *t, const kn_tensor *base, int64_t offset,
                        const int64_t strides[KN_MAX_RANK]);
/* Autograd shall see t as a view of x, or of what x is a view of. Both share a storage. */
void kn_tensor_set_base(kn_tensor *t, kn_tensor *x, bool tracked);
/* Same storage and type, no autograd link, no view for autograd. Shares data and version counter. */
kn_status kn_tensor_alias(kn_context *ctx, kn_tensor *t, kn_tensor **out);

kn_tensor *kn_tensor_retain(kn_tensor *t);
void kn_tensor_release(kn_tensor *t); /* NULL is fine */
kn_storage *kn_storage_retain(kn_storage *s);
void kn_storage_release(kn_storage *s);

static inline bool kn_tensor_is_symbolic(const kn_tensor *t) { return !t->storage; }
static inline kn_dtype kn_tensor_dtype(const kn_tensor *t) { return (kn_dtype)t->type.dtype; }
static inline int64_t kn_tensor_numel(const kn_tensor *t) { return kn_type_numel(&t->type); }
bool kn_tensor_contiguous(const kn_tensor *t);
void kn_strides_contiguous(const kn_type *type, int64_t strides[KN_MAX_RANK]);

/* First element. Real tensors only. */
static inline void *kn_tensor_data(const kn_tensor *t) {
  return (char *)t->storage->data + (size_t)t->offset * kn_dtype_size(kn_tensor_dtype(t));
}

#endif
