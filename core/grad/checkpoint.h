/* Values that are not kept for backward but computed again when it needs them. While a checkpoint is on
 * (ctx->checkpoint), nodes keep numbers in place of values; to get a value the function is run again, with
 * the checkpoint collecting: the same ops save the same values in the same order. */
#ifndef KN_CHECKPOINT_H
#define KN_CHECKPOINT_H
#include "core/tensor.h"

typedef struct kn_checkpoint kn_checkpoint;

/* Runs the function again. What it gives is thrown away. */
typedef kn_status (*kn_again_fn)(kn_context *ctx, void *ud);

/* A new one, which remembers the state of the random stream, grad mode and autocast. `release` (may be NULL)
 * is called with ud when the last node that needs it is gone, and at once if this fails. */
kn_status kn_checkpoint_new(kn_context *ctx, kn_again_fn again, void *ud, void (*release)(void *ud),
                            kn_checkpoint **out);
kn_checkpoint *kn_checkpoint_retain(kn_checkpoint *c);
void kn_checkpoint_release(kn_checkpoint *c);

/* For nodes: value t is saved as number *number. */
kn_status kn_checkpoint_note(kn_context *ctx, kn_checkpoint *c, kn_tensor *t, uint32_t *number);
bool kn_checkpoint_collects(const kn_checkpoint *c);
/* Value `number`, borrowed until kn_checkpoints_clear. If the function has to run for it, c is added to the
 * list *filled. STATE when it does not save what it did before. */
kn_status kn_checkpoint_value(kn_context *ctx, kn_checkpoint *c, uint32_t number, const kn_type *type,
                              kn_checkpoint **filled, kn_tensor **out, uint32_t *version);
/* Gives up the values of a list of them. */
void kn_checkpoints_clear(kn_checkpoint *filled);

#endif
