/* What a part of a graph runs: primitives one after the other, over buffers whose places are laid out in
 * advance. Made by build.c for operands that lie in a certain way; used by one thread at a time. */
#ifndef KN_ONEDNN_SEQUENCE_H
#define KN_ONEDNN_SEQUENCE_H
#include "backends/onednn/group.h"
#include "backends/onednn/state.h"

enum { DN_STEP_ARGS = 6 + DN_MAX_POSTS, DN_IMPL_TEXT = 48 };
#define DN_NO_BUFFER UINT32_MAX

typedef enum dn_at {
  DN_AT_VALUE, /* the tensor of a value */
  DN_AT_WORK,  /* in the workspace */
  DN_AT_FIXED  /* a packed constant */
} dn_at;

typedef struct dn_buffer {
  dn_at at;
  dn_md md;
  dnnl_memory_t memory;
  const kn_value *value;        /* whose elements it holds; NULL: a scratchpad, a constant */
  bool plain;                   /* they lie as in a contiguous tensor */
  bool given;                   /* VALUE: computed by others, before */
  int64_t strides[KN_MAX_RANK]; /* given: that it was made for */
  uint32_t same;                /* WORK: the buffer in whose bytes it lies, or itself */
  size_t bytes, offset;         /* WORK */
  uint32_t first, last;         /* WORK: steps that use it */
  int64_t images;               /* of so many, in a stretch that is run in slices (slices.h); 0: of all */
  bool later;                   /* a slice, not the first */
  size_t skip, pitch;           /* a slice of something whole: bytes before it, bytes to the next */
  uint32_t next;                /* the same of the slice after */
  dn_packed *packed;            /* FIXED */
  void *data;                   /* that memory points to now */
} dn_buffer;

typedef struct dn_look { /* at a value from outside of the part, which may hold nan or infinity */
  const kn_value *value;
  const void *numbers; /* where a constant lies that holds neither, … */
  unsigned version;    /* … as it was then; NULL: each run looks */
} dn_look;

typedef struct dn_step {
  uint32_t group;           /* index in the cut */
  bool apart;               /* no primitive: the group's node as eager ops would compute it */
  bool main;                /* what the group is, not a reorder before or after it */
  bool more;                /* main: further slices of the batch follow */
  uint32_t like;            /* the step whose primitive it runs: itself, or that of the first slice */
  dnnl_primitive_desc_t pd; /* until the primitive is made */
  dnnl_primitive_t primitive;
  uint32_t nargs;
  int arg[DN_STEP_ARGS];
  uint32_t buffer[DN_STEP_ARGS];
  dnnl_exec_arg_t args[DN_STEP_ARGS];
  int threads;
  char impl[DN_IMPL_TEXT];
} dn_step;

typedef struct dn_sequence {
  kn_heap *heap;
  dn_state *state;
  dn_buffer *buffers;
  dn_step *steps;
  dn_look *looks;
  uint32_t nbuffers, buffer_room, nsteps, step_room, nlooks, look_room;
  dnnl_stream_t stream;
  void *work;
  size_t bytes;
  bool odd_constant; /* a packed one holds nan or infinity */
} dn_sequence;

/* UNSUPPORTED where oneDNN has nothing for some groups: `fold` is then lowered for each of them, and the part
 * is to be cut again. vals: real tensors as they lie in this run, or NULL when the plan is made. */
kn_status dn_build(kn_context *ctx, dn_state *s, const kn_part *part, const dn_cut *cut,
                   kn_tensor *const *vals, uint8_t *fold, dn_sequence **out);
void dn_sequence_free(dn_sequence *q);           /* NULL is fine */
size_t dn_sequence_packed(const dn_sequence *q); /* bytes of its constants */

/* Do the operands lie as it was made for, and are the constants those that were packed? */
bool dn_sequence_fits(const dn_sequence *q, kn_tensor *const *vals);
/* Are all operands numbers? */
bool dn_sequence_ordinary(const dn_sequence *q, kn_tensor *const *vals);
/* Points the buffers to this run's tensors. */
dnnl_status_t dn_sequence_bind(dn_sequence *q, kn_tensor *const *vals);
dnnl_status_t dn_sequence_step(dn_sequence *q, const dn_step *t);

#endif
