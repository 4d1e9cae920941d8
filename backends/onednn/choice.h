/* Which way a product or convolution of a graph is computed: by the fixed rule, or as was measured
 * (backends/tune.h). Eager ops always go by the fixed rule. */
#ifndef KN_ONEDNN_CHOICE_H
#define KN_ONEDNN_CHOICE_H
#include "backends/onednn/group.h"
#include "backends/onednn/state.h"

typedef struct dn_choice {
  bool measured;  /* else the fixed rule says what follows */
  bool elsewhere; /* another backend does it */
  bool packed;    /* a constant matrix is laid out as oneDNN likes it */
  int threads;
} dn_choice;

/* A product of operands that lie as `in` says, which `p` describes; `constant`: the second one is a matrix
 * that never changes. */
typedef struct dn_product {
  const kn_node *node;
  const dn_view *in;
  const kn_type *out;
  const dn_problem *p;
  bool constant;
} dn_product;

dn_choice dn_choose_product(dn_state *s, kn_context *ctx, const dn_product *m);

/* ---- convolutions with constant filters: choice_conv.c ---- */

typedef struct dn_conv_way {
  const char *name;
  bool free; /* its image is brought into the layout that oneDNN likes best; else taken as it lies */
  int nth;   /* of the implementations that oneDNN then has, in its own order */
  int threads;
} dn_conv_way;

typedef struct dn_conv {
  const char *key;
  double flops;
  dn_md_ref image;          /* as it lies */
  bool reads[DN_MAX_POSTS]; /* the thing that is folded in reads an operand of its own */
  void *ud;
  /* With as many threads as are set now. Another status than success: there is no such way. */
  dnnl_status_t (*describe)(void *ud, const dn_conv_way *way, dnnl_primitive_desc_t *pd);
} dn_conv;

/* *way: by the fixed rule, and after that the one to go. False: the fixed rule holds. */
bool dn_choose_conv(dn_state *s, kn_context *ctx, const dn_conv *c, dn_conv_way *way);

#endif
