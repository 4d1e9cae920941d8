/* Which way a product of a graph is computed: by the fixed rule, or as was measured (backends/tune.h). Eager
 * ops always go by the fixed rule. */
#ifndef KN_ONEDNN_CHOICE_H
#define KN_ONEDNN_CHOICE_H
#include "backends/onednn/state.h"
#include "graph/graph.h"

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

#endif
