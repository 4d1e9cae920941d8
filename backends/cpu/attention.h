/* Attention in graphs: the nodes that compute softmax(q kT, scaled and masked) v as one walk over blocks of
 * queries, whose scores stay in the caches. backends/attention_find.c finds the nodes, attention.c walks,
 * runs_attention.c has the loops of a block, compiled once for each instruction set. */
#ifndef KN_CPU_ATTENTION_H
#define KN_CPU_ATTENTION_H
#include "backends/attention_find.h"
#include "backends/cpu/run.h"
#include "graph/target.h"

struct cp_set;
struct cp_kit;

/* ---- between the walk and the loops; numbers of elements throughout, strides too ---- */

typedef struct cp_score_op {
  kn_score_step step;
  double number;
  const char *data; /* of the first query of the block and the first key */
  int64_t row, column;
  const int32_t *limits; /* KEEP, by query: the first so many keys are kept; NULL: look at data */
} cp_score_op;

/* A block of queries with all keys of their batch. */
typedef struct cp_attend {
  const struct cp_kit *kit;
  int64_t queries, keys, width, values; /* width: of a query and a key; values: of a result */
  const char *q, *k, *v;
  int64_t q_row, q_column, k_row, k_column, v_row, v_column; /* rows: from a query or key to the next */
  char *to;
  int64_t to_row;
  bool scaled, divided; /* queries are multiplied with, or divided by, a number first */
  double scale;
  uint32_t nops;
  cp_score_op ops[KN_SCORE_STEPS];
  const char *kept; /* bool, by query: false: all its weights are `unkept`; NULL: none is so */
  int64_t kept_row;
  double unkept;
} cp_attend;

typedef struct cp_attends {
  int64_t queries[KN_DTYPE_COUNT]; /* of a block at most; 0: there are no loops */
  size_t (*room[KN_DTYPE_COUNT])(const cp_attend *);
  void (*block[KN_DTYPE_COUNT])(const cp_attend *, char *room); /* room: aligned to 64 bytes */
} cp_attends;

/* ---- for the target ---- */

typedef struct cp_attention cp_attention;
/* The nodes that begin with node `first` of the part; *out is NULL where they are something else. */
kn_status cp_attention_new(kn_context *ctx, const struct cp_set *set, const kn_part *part, uint32_t first,
                           cp_attention **out);
void cp_attention_free(kn_context *ctx, cp_attention *a);                    /* NULL is fine */
uint32_t cp_attention_length(const cp_attention *a);                         /* nodes */
uint32_t cp_attention_others(const cp_attention *a, const uint32_t **which); /* to be run before */
kn_status cp_attention_run(kn_context *ctx, cp_attention *a, kn_tensor **vals);

/* Does n begin such nodes, that this backend should have whatever others do with n alone? */
bool cp_attention_wants(const struct cp_set *set, const kn_part *so_far, const kn_node *n);
/* Is n one of such nodes, of which the part has those before? */
bool cp_attention_joins(const struct cp_set *set, const kn_part *so_far, const kn_node *n);

#endif
