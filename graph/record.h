/* A recorder that emits what kn_apply sees into a graph: the one way tensor ops enter the IR, shared by
 * capture, trace, builder and gradients. Symbolic tensors carry their kn_value. A real tensor met as an input
 * becomes a slot, asked from `outside` (so the front end can name it) and remembered by identity.
 *
 * Tensors are handles: a write in place gives the handle another value, and no node overwrites anything.
 * Views remember what they show: one that is read after a write elsewhere is derived again, a write through
 * one is put into what it shows. */
#ifndef KN_RECORD_H
#define KN_RECORD_H
#include "graph/view.h"

typedef struct kn_record_table { /* of tensors, by address */
  struct kn_record_known *at;
  size_t cap;
  uint32_t n;
} kn_record_table;

typedef struct kn_record kn_record;
struct kn_record {
  kn_recorder base; /* install as ctx->recorder = &r.base */
  kn_builder *b;
  /* The graph value of a real tensor. NULL: a PARAM slot named "tensor.N". */
  kn_value *(*outside)(void *ud, kn_tensor *t);
  void *ud;
  /* NULL, or: the value that stands for v, or with dim >= 0 for that size of it, where nodes go now. */
  kn_value *(*see)(void *ud, kn_value *v, int dim);
  void *see_ud;
  kn_scalar *dyn; /* placeholders given so far */
  uint32_t ndyn;
  kn_record_table reals, handles; /* real tensors already seen; views and tracked handles */
  /* Of plain values, which are neither tracked nor views of what is: what `view` made last, and of what
   * (NULL: nothing); NULL, or whether `contiguous` gives v itself. */
  kn_value *viewed, *viewed_as;
  bool (*in_order)(void *ud, kn_value *v);
  /* The node whose gradient rule runs; NULL, or told what it reads of the forward computation. */
  const kn_node *reader;
  void (*reads)(void *ud, const kn_value *v, const kn_node *reader, const char *what, int i);
  int writer;  /* of the last write: as storage->writer */
  bool unsure; /* something depended on how a tracked handle's elements lie, and nobody knows */
};

void kn_record_init(kn_record *r, kn_builder *b);
void kn_record_free(kn_record *r);
/* A symbolic tensor for a graph value of kind TENSOR. Owned by the caller. */
kn_status kn_record_tensor(kn_record *r, kn_value *v, kn_tensor **out);
/* The present value of a tensor: its own when symbolic, a slot's otherwise. NULL on failure (b->status). */
kn_value *kn_record_value(kn_record *r, kn_tensor *t);

bool kn_record_knows(const kn_record *r, const kn_tensor *t); /* met as an input before */

/* ---- handles ---- */

/* Another handle that shows `parent` by the node `view` (NULL: all of it, detached) with the inputs `in`,
 * which are borrowed (NULL: the node's own). Its value, where it is known: `now`, made when the parent's was
 * `of`. */
kn_status kn_record_view(kn_record *r, kn_tensor *parent, const kn_node *view, kn_value *const *in,
                         kn_value *now, kn_value *of, kn_tensor **out);
/* What a view shows; false for what is no view. `*unsure`: it may as well be a copy (a reshape of elements
 * that may not lie in order). */
typedef struct kn_record_shown {
  kn_tensor *parent;
  const kn_node *view;
  kn_value *const *in;
  kn_value *now, *of;
  bool unsure;
} kn_record_shown;
bool kn_record_view_of(const kn_record *r, const kn_tensor *t, kn_record_shown *out);
/* It matters which handles show the elements of t: see `unsure`. */
kn_status kn_record_track(kn_record *r, kn_tensor *t);
/* Has it been written to with gradients on, other than through a detached handle? Of tracked ones. */
bool kn_record_wrote_with_grad(const kn_record *r, const kn_tensor *t);
/* Views and tracked handles are kept alive until they are forgotten, as is what they show. */
void kn_record_forget(kn_record *r);

#endif
