/* Who computes an op eagerly. A device has a list of providers tried in order; each fills the rows it wants.
 * The reference provider fills every row and is always last on the CPU. */
#ifndef KN_DEVICE_H
#define KN_DEVICE_H
#include "core/op.h"

struct kn_provider {
  const char *name; /* the backend's name */
  /* NULL: not offered. A kernel of a composite of one result gets it bare, as for DYNAMIC rows, and must
   * round as the composite's parts do one after the other; it is asked only where nothing is recorded or
   * taped. */
  kn_kernel_fn kernel[KN_OP_COUNT];
};

extern const kn_provider kn_ref_provider;

/* "cpu", "cuda"; NULL is never returned. */
const char *kn_device_name(kn_device_id d);
/* "cuda" and "cuda:0" are the same. */
bool kn_device_parse(const char *name, kn_device_id *out);
/* Put a provider before those already there (so the reference stays last). STATE when the list is full. */
kn_status kn_device_add(kn_context *ctx, kn_device_id d, const kn_provider *p);
/* Takes it out again; nothing when it is not there. */
void kn_device_remove(kn_context *ctx, kn_device_id d, const kn_provider *p);
bool kn_device_offers(const kn_context *ctx, kn_device_id d, kn_op op);
/* Run the op's kernel: the first provider that does not decline. `impl` (may be NULL) gets its name. A
 * composite that all decline is KN_DECLINED. */
kn_status kn_device_run(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                        kn_tensor *const *out, const char **impl);

#endif
