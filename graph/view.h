/* Views as values: in the IR nothing is overwritten, so a view of a tensor that changed is derived again, and
 * a write through a view becomes a new value of what it shows. For recorders and capture. */
#ifndef KN_VIEW_H
#define KN_VIEW_H
#include "graph/graph.h"

/* `view` is a node of class VIEW, whose first input is what it shows. `in` stands for all its inputs (NULL:
 * its own); the first is not looked at, `base` takes its place. NULL on failure (b->status). */
kn_value *kn_view_again(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base);
/* `base` with v (of the view's type) where the view shows it. */
kn_value *kn_view_put(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base, kn_value *v);

/* The strides of the view of x, whose sizes and strides are known. False when it would be a copy, or when
 * attributes are not known (`*sure` is then false). */
bool kn_view_strides(kn_context *ctx, kn_op op, const void *attrs, const kn_tensor *x, const kn_type *type,
                     int64_t strides[KN_MAX_RANK], bool *sure);
/* Whether a write to the view would reach an element twice: ARG with the sentence of the eager engine,
 * CAPTURE where sizes do not tell. `name` is the op that writes. */
kn_status kn_view_writable(kn_context *ctx, const char *name, const kn_node *view, const kn_type *base,
                           const kn_type *type);

#endif
