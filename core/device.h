/* Who computes an op eagerly, and where its tensors lie. A device has a list of providers tried in order;
 * each fills the rows it wants. The reference provider fills every row and is always last on the CPU. The
 * memory of other devices is not the host's: a kn_memory makes it and copies to and from it. */
#ifndef KN_DEVICE_H
#define KN_DEVICE_H
#include "core/op.h"

typedef enum kn_copy_way { KN_TO_DEVICE, KN_TO_HOST, KN_WITHIN_DEVICE } kn_copy_way;

/* Memory of a device that the host cannot read. A storage there has its address as `data`, on the host never
 * looked through, and `release`. */
struct kn_memory {
  void *self;
  kn_status (*alloc)(void *self, kn_context *ctx, size_t bytes, void **data); /* of 0 bytes: anything */
  /* Of a storage; ud = self. Comes from any thread, and after the backend was closed where tensors live
   * longer than their context: then there is nothing left to free. */
  kn_release_fn release;
  /* In the order of what was asked of the device before. TO_DEVICE: `from` may be changed at once; TO_HOST:
   * complete when it returns. */
  kn_status (*copy)(void *self, kn_context *ctx, void *to, const void *from, size_t bytes, kn_copy_way way);
  kn_status (*synchronize)(void *self, kn_context *ctx); /* waits for all that was asked of the device */
};

struct kn_provider {
  const char *name; /* the backend's name */
  /* NULL: not offered. A kernel of a composite of one result gets it bare, as for DYNAMIC rows, and must
   * round as the composite's parts do one after the other; it is asked only where nothing is recorded or
   * taped. */
  kn_kernel_fn kernel[KN_OP_COUNT];
  /* Whether it computes an op that could as well be written in others better than those are computed: asked
   * before such an op is used at all. Symbolic inputs have types alone. NULL: no op. */
  bool (*prefers)(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n);
};

extern const kn_provider kn_ref_provider;

/* "cpu", "cuda"; NULL is never returned. */
const char *kn_device_name(kn_device_id d);
/* "cuda" and "cuda:0" are the same. */
bool kn_device_parse(const char *name, kn_device_id *out);
/* NULL for the CPU. The device's backend is opened when it is first asked for; UNSUPPORTED with its reason
 * when there is none. Borrowed from the root context. */
kn_status kn_device_memory(kn_context *ctx, kn_device_id d, const kn_memory **out);
/* The elements on a device: t itself, retained, or a copy. Neither recorded nor taped. */
kn_status kn_move_to(kn_context *ctx, kn_tensor *t, kn_device_id d, kn_tensor **out);
/* The same where the host can read them, once all that computes them is done. */
kn_status kn_to_host(kn_context *ctx, kn_tensor *t, kn_tensor **out);
/* Put a provider before those already there (so the reference stays last). STATE when the list is full. */
kn_status kn_device_add(kn_context *ctx, kn_device_id d, const kn_provider *p);
/* Takes it out again; nothing when it is not there. */
void kn_device_remove(kn_context *ctx, kn_device_id d, const kn_provider *p);
/* Does one of its providers prefer the op to the ops that it could be written in? */
bool kn_device_prefers(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n);
bool kn_device_offers(const kn_context *ctx, kn_device_id d, kn_op op);
/* Run the op's kernel: the first provider that does not decline. `impl` (may be NULL) gets its name. A
 * composite that all decline is KN_DECLINED. */
kn_status kn_device_run(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                        kn_tensor *const *out, const char **impl);

#endif
