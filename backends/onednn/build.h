/* Between build.c and the files that make the steps of each kind of group (build_*.c). */
#ifndef KN_ONEDNN_BUILD_H
#define KN_ONEDNN_BUILD_H
#include "backends/onednn/sequence.h"

typedef struct dn_builder {
  kn_context *ctx;
  dn_state *state;
  const dn_library *lib;
  dnnl_engine_t engine;
  const kn_part *part;
  const dn_cut *cut;
  kn_tensor *const *vals;
  dn_sequence *q;
  uint32_t *uses;   /* by value id: reads by groups to come */
  bool *made;       /* by value id: some group before makes it */
  uint8_t *fold;    /* by node, as given to dn_build */
  uint32_t group;   /* that steps are made for */
  int64_t images;   /* a slice of the batch that they are made for; 0: all of it */
  int slices;       /* while there are images: how many */
  bool *leaves;     /* by value id: read by others than the slices that make it */
  int threads;      /* that primitives are made for now */
  bool measured;    /* the next step is as it is because that was the fastest */
  kn_status status; /* of what is no refusal of oneDNN's */
} dn_builder;

/* All give dnnl_unimplemented where it cannot be done; b->status then tells of failures that are no refusals.
 */
dnnl_status_t dn_build_conv(dn_builder *b, const dn_group *g);   /* build_conv.c */
dnnl_status_t dn_build_pool(dn_builder *b, const dn_group *g);   /* build_plain.c: POOL, MEAN */
dnnl_status_t dn_build_simple(dn_builder *b, const dn_group *g); /* FUNCTION, SUM */
dnnl_status_t dn_build_matmul(dn_builder *b, const dn_group *g); /* build_matmul.c */

/* ---- buffers; each gives DN_NO_BUFFER when it cannot ---- */

/* The elements of v as they were made or given. */
uint32_t dn_buffer_of(dn_builder *b, const kn_value *v);
/* The same, in the order of a contiguous tensor. */
uint32_t dn_buffer_plain(dn_builder *b, const kn_value *v);
/* The bytes of a plain or given buffer, seen as `md`. */
uint32_t dn_buffer_as(dn_builder *b, uint32_t buffer, dn_md_ref md);
/* The elements of v laid out as `md`: as they are, or by a reorder that others use too. */
uint32_t dn_buffer_reordered(dn_builder *b, const kn_value *v, dn_md_ref md);
/* A given vector of n elements that lie side by side. */
uint32_t dn_buffer_vector(dn_builder *b, const kn_value *v, int rank, int dim, int64_t n);
/* A constant laid out as `to`. */
uint32_t dn_buffer_packed(dn_builder *b, const kn_value *v, const kn_slot *slot, dn_md_ref from,
                          dn_md_ref to);
/* Where a group may write its result, laid out as `md`; `plain`: that is the order of a contiguous tensor.
 * With `sum`, a value whose elements are there when the group's step runs. */
uint32_t dn_buffer_result(dn_builder *b, const dn_group *g, dn_md_ref md, bool plain, const kn_value *sum);
/* A new buffer; its images are the builder's, its bytes those of `md`. */
uint32_t dn_add_buffer(dn_builder *b, dn_buffer buffer, dn_md_ref md);
/* The type of v, or of a slice of it. */
kn_type dn_type_of(const dn_builder *b, const kn_value *v);

/* ---- steps ---- */

/* Threads for what is made from here on: one where there is little to do. */
void dn_use_threads(dn_builder *b, double multiply_adds);
/* Takes pd, which may be NULL only where it fails. */
dnnl_status_t dn_add_step(dn_builder *b, dnnl_primitive_desc_t pd, uint32_t nargs, const int *arg,
                          const uint32_t *buffer);
/* One that runs the primitive of step `like` on other buffers, as many. */
dnnl_status_t dn_repeat_step(dn_builder *b, uint32_t like, const uint32_t *buffer);
/* After the group's step: brings the result to the value's own memory, where others read it. */
dnnl_status_t dn_finish_result(dn_builder *b, const dn_group *g, uint32_t buffer);
/* Makes the steps of groups `first` to `end`, each once. */
dnnl_status_t dn_build_groups(dn_builder *b, uint32_t first, uint32_t end, bool *refused);
/* The group reads its operands: once more, or once less, to come. */
void dn_count_uses(dn_builder *b, const dn_group *g, int by);
/* Brings what all slices of a group have left in `buffer` to the value's own memory. */
dnnl_status_t dn_bring_home(dn_builder *b, const dn_group *g, uint32_t buffer);
uint32_t dn_find_value(dn_builder *b, const kn_value *v); /* for as many images; DN_NO_BUFFER: none yet */
/* The group's posts; NULL when they cannot be said. Only for conv and matmul, whose result has `rank` dims,
 * the channels being dim `channel`. */
dnnl_status_t dn_posts_attr(dn_builder *b, const dn_group *g, int rank, int channel,
                            dnnl_primitive_attr_t *out);
/* Appends the arguments that the posts read. */
dnnl_status_t dn_posts_args(dn_builder *b, const dn_group *g, int rank, int channel, uint32_t *nargs,
                            int *arg, uint32_t *buffer);
const kn_value *dn_summed(const dn_group *g); /* the operand of a SUM, or NULL */
/* Is it oneDNN's reference code, or a product on rearranged images? */
bool dn_is_poor(dn_builder *b, dnnl_primitive_desc_t pd, bool gemm_too);
const char *dn_impl_of(dn_builder *b, dnnl_primitive_desc_t pd);
void dn_strides_of(dn_builder *b, const kn_value *v, int64_t strides[KN_MAX_RANK]);
dn_md_ref dn_md_of(dn_builder *b, uint32_t buffer); /* until the next buffer is made */

#endif
