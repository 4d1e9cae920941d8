/* Lists as a run holds them: counted, and persistent. A list is a length and a buffer that it may share with
 * others; appending writes behind its end when nobody has done so yet, so a list that grows and is then
 * forgotten costs O(1) an element. Used by one thread at a time. NULL is the empty list of any type. */
#ifndef KN_LIST_H
#define KN_LIST_H
#include "graph/graph.h"

typedef struct kn_list kn_list;
/* One of these: a tensor (NULL: undefined), a list, or a scalar, as the list's type says. */
typedef struct kn_element {
  kn_tensor *tensor;
  kn_list *list;
  kn_scalar scalar;
} kn_element;

kn_list *kn_list_retain(kn_list *l);
void kn_list_release(kn_list *l); /* NULL is fine */
uint32_t kn_list_length(const kn_list *l);
kn_vkind kn_list_kind(const kn_list *l);                    /* of the list itself; not of NULL */
const kn_element *kn_list_at(const kn_list *l, uint32_t i); /* from 0, below the length */
size_t
kn_list_bytes(const kn_list *l); /* that it keeps, about: tensors and elements, those of its lists too */
/* l with e at its end; e is taken over, on failure too. kind: of the list. l is borrowed, *out owned. */
kn_status kn_list_append(kn_context *ctx, kn_list *l, kn_vkind kind, kn_element e, kn_list **out);
/* l's elements, then undefined ones: n of them, in a buffer of its own; *out is not empty for n above 0. */
kn_status kn_list_copy(kn_context *ctx, kn_list *l, kn_vkind kind, uint32_t n, kn_list **out);
/* Another element i (from 0) of a list that nobody else has; e is taken over. */
void kn_list_put(kn_list *l, uint32_t i, kn_element e);
/* What the node list_stack gives. */
kn_status kn_list_stack(kn_context *ctx, const kn_list *l, kn_tensor **out);
/* What list_sum and list_with give; v is borrowed and kept. */
kn_status kn_list_sum(kn_context *ctx, kn_list *a, kn_list *b, kn_vkind kind, kn_list **out);
kn_status kn_list_with(kn_context *ctx, kn_list *l, kn_vkind kind, int64_t n, int64_t i, kn_tensor *v,
                       kn_list **out);
/* The first n elements, or of these the first and every `step`-th after it. l is borrowed, *out owned. What l
 * has behind them is let go of when nobody else has it, at the latest at the next of these calls. */
kn_status kn_list_part(kn_context *ctx, kn_list *l, uint32_t n, uint32_t step, kn_list **out);

#endif
