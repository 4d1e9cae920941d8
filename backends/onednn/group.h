/* A part of a graph cut into groups: one computation of oneDNN each, with the nodes that follow it folded
 * into it (bias, functions, sums), and by which values of the part need no memory of the plan. Asks the graph
 * alone, not oneDNN: what oneDNN has nothing for is cut again with less. */
#ifndef KN_ONEDNN_GROUP_H
#define KN_ONEDNN_GROUP_H
#include "graph/target.h"

enum { DN_MAX_POSTS = 6, DN_PATTERN_NODES = 12, DN_GROUP_NODES = 2 + DN_MAX_POSTS * DN_PATTERN_NODES };

/* What is done to the result, element by element, in order. */
typedef enum dn_post_kind {
  DN_POST_FUNCTION, /* of `alg` with alpha and beta */
  DN_POST_CHANNEL,  /* `alg` with `value`, an element for each channel (conv) or column (matmul) */
  DN_POST_SUM       /* plus `value`, a tensor of the same sizes */
} dn_post_kind;
typedef struct dn_post {
  dn_post_kind kind;
  int alg; /* dnnl_alg_kind_t */
  float alpha, beta;
  const kn_value *value;
  const char *name; /* "relu" */
} dn_post;

typedef enum dn_group_kind {
  DN_GROUP_CONV,
  DN_GROUP_MATMUL,
  DN_GROUP_POOL,
  DN_GROUP_MEAN,     /* over height and width */
  DN_GROUP_FUNCTION, /* the posts alone, of the first input */
  DN_GROUP_SUM,      /* of two tensors of the same sizes */
  DN_GROUP_APART     /* a node as eager ops would compute it */
} dn_group_kind;

typedef struct dn_group {
  dn_group_kind kind;
  const kn_node *main;                  /* FUNCTION: the first node */
  uint32_t first, last;                 /* nodes of the part; others may lie between */
  const kn_value *in;                   /* FUNCTION: value that it is of */
  const kn_value *out;                  /* that the last node gives */
  const kn_value *bias;                 /* conv, matmul; NULL: none */
  const kn_node *nodes[DN_GROUP_NODES]; /* all, in the order of the computation */
  uint32_t nnodes;
  uint32_t nposts;
  dn_post posts[DN_MAX_POSTS];
} dn_group;

typedef struct dn_cut {
  dn_group *groups; /* in the order of their last nodes: the order in which they run */
  uint32_t n, room;
  bool *inner;    /* by value id: made and read by groups alone, so its memory and layout are ours */
  bool *hidden;   /* by value id: inner, or between two nodes of a group: it has no memory of the plan */
  bool drops_nan; /* some function gives a number for nan */
} dn_cut;

/* By node of the part: how much may be folded into it. 0: it is computed APART, 1: by oneDNN alone, 2 + n:
 * with n posts. */
enum { DN_FOLD_ALL = 2 + DN_MAX_POSTS, DN_FOLD_WHOLE = 64 /* beside it: of the whole batch at once */ };
kn_status dn_cut_new(kn_context *ctx, const kn_part *part, const uint8_t *fold, dn_cut *out);
void dn_cut_free(kn_context *ctx, const kn_part *part, dn_cut *c);

/* Ids of the operands of g whose layout is free; how many. */
uint32_t dn_free_operands(const dn_group *g, uint32_t v[DN_MAX_POSTS + 2]);

/* A convolution with constant filters, or a product: what others are folded into. */
bool dn_cut_leads(const kn_node *n);
/* May n follow the nodes so far, because it can be folded into one of them or reads what lies in a layout of
 * ours? */
bool dn_cut_joins(const kn_part *so_far, const kn_node *n);

/* A tensor whose data never changes: a constant of the graph, or that transposed. `strides` as it lies. */
const kn_slot *dn_constant(const kn_value *v, int64_t strides[KN_MAX_RANK]);

/* ---- pattern.c ---- */

typedef struct dn_found {
  dn_post post;
  const kn_node *nodes[DN_PATTERN_NODES]; /* in the order of the pattern; the last gives the result */
  uint32_t n;
  uint32_t reads; /* of the value, by them */
} dn_found;
/* The nodes among `next` that compute a function of v, whose parts nobody else reads, nor v unless `shared`.
 */
bool dn_find_function(const kn_part *part, const kn_node *const *next, uint32_t n, uint32_t v, bool shared,
                      dn_found *f);
/* The number that a value of one element is known to hold. */
bool dn_number(const kn_value *v, double *x);

#endif
