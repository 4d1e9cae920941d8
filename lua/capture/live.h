/* What capture leaves behind for each call: see capture.h (kc_live). Private to this room. */
#ifndef KC_LIVE_H
#define KC_LIVE_H
#include "lua/capture/heap.h"

/* How one argument looked. */
typedef enum kc_leaf_kind {
  KC_LEAF_TENSOR,
  KC_LEAF_NUMBER,
  KC_LEAF_FREE,
  KC_LEAF_CONST,
  KC_LEAF_TABLE
} kc_leaf_kind;
typedef struct kc_leaf kc_leaf;
struct kc_leaf {
  kc_leaf_kind kind;
  const char *name;
  bool spec;    /* given by kiln.spec: the session checks it */
  kn_type type; /* TENSOR: sizes 1 and burnt-in ones are literal, others symbols */
  kc_laid laid; /* TENSOR: what is guarded where it is no handle */
  bool handle;  /* TENSOR: overwritten somewhere; its elements lie in order, or so: */
  bool strided;
  int64_t strides[KN_MAX_RANK];
  uint32_t number, same; /* TENSOR: counted from 1; which one before it is the same tensor, 0: none */
  bool integer;          /* NUMBER */
  kc_val value;          /* CONST */
  uint32_t n;            /* TABLE */
  kc_val *keys;
  kc_leaf *items;
  uint32_t same_as; /* TABLE: which argument table, counted from 1, it is again; 0: a new one */
  uint32_t table;   /* TABLE: shadow table */
};

/* Copies what is needed out of the capture; raises only out of memory (then nothing is owed). */
/* An empty one; NULL when out of memory. */
kc_live *kc_live_new(kn_context *ctx);
/* Numbers outside that are not what they were at an earlier capture become free in this one. */
void kc_live_free_numbers(kc_cap *c, const kc_live *before);
/* What an earlier capture of the function found out by starting over is known to this one from the start:
 * which outside places it writes, which tensors are written to (recall.c). */
void kc_live_recall(kc_cap *c, const kc_live *before);
kn_status kc_live_make(kc_cap *c, const kc_leaf *args, int nargs, kn_graph *g, kc_live **out);

#endif
