/* Folds that change rounding: what an inference pass would put in the place of values, found first and made
 * one by one, so that each can be measured before it is kept (graph/optimize.h). */
#ifndef KN_FOLDING_H
#define KN_FOLDING_H
#include "graph/known.h"
#include "graph/pipeline.h"

typedef struct kn_fold {
  const kn_node *node;   /* which one it is told as */
  const char *what;      /* "conv2d + batch_norm" */
  const char *of;        /* the parameter it concerns; NULL */
  const char *never;     /* why it is not made at all; NULL: it may be */
  kn_value *const *from; /* the values that others take the place of, all of one region … */
  uint32_t n;
  kn_node *last; /* … and the node behind which these are made */
  void *plan;    /* the pass's own; all of this lives in the graph's arena */
} kn_fold;

typedef struct kn_folding {
  kn_pass pass; /* finds and makes all */
  /* Appends what there is; the order depends on the graph alone. */
  kn_status (*find)(kn_builder *b, kn_known *k, kn_fold **list, uint32_t *n);
  /* Makes the new values, behind the fold's last node; what there was stays. False: the builder's status. */
  bool (*make)(kn_builder *b, kn_known *k, const kn_fold *f, kn_value **to);
} kn_folding;

extern const kn_folding kn_folding_affine; /* graph/passes/NAME.c, one each */

/* From here on everybody reads `to` instead. */
void kn_fold_replace(kn_graph *g, kn_value *from, kn_value *to);
/* Finds all, and makes those that `only` (NULL: all) says, by number. As a pass has it. */
kn_status kn_folding_run(kn_builder *b, const kn_folding *folding, const bool *only, uint32_t *changes);
/* A node that was appended comes to stand behind `last`; returns it. */
kn_node *kn_fold_place(kn_node *n, kn_node *last);

#endif
