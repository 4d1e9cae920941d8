/* What the two files of merging share. */
#ifndef KC_MERGE_H
#define KC_MERGE_H
#include "lua/capture/handle.h"
#include "graph/mutant.h"
#include "lua/capture/interp.h"
#include "lua/capture/reach.h"

typedef struct kc_merge_work {
  enum {
    KC_WORK_TABLES,
    KC_WORK_TABLE,
    KC_WORK_CELLS,
    KC_WORK_CELL,
    KC_WORK_HANDLES,
    KC_WORK_HANDLE,
    KC_WORK_NEW_TABLE,
    KC_WORK_NEW_CELL,
    KC_WORK_NEW_HANDLE
  } what;
  uint32_t a, b;
  int side;
} kc_merge_work;

typedef struct kc_recoded kc_recoded; /* a tag of the second side whose alternatives have other codes now */
struct kc_recoded {
  kc_val tag, now;
  int n;
  int64_t from[KC_MAX_ALTS], to[KC_MAX_ALTS];
  const kc_recoded *next;
};

typedef struct kc_merge_job {
  kc_cap *c;
  kc_merge_mode mode;
  int side, pc;
  kc_state *s1, *s2, *out; /* s2 NULL in the modes that see one state */
  kc_if *f;
  kc_loop_node *l;
  const char *name; /* of the place being merged */
  bool *changed, conflict, renamed, lost;
  bool contents; /* what is merged is what a handle holds, no tensor of its own */
  uint32_t owner;
  kc_map t12, t21, c12, c21, h12, h21; /* id in s1 ↔ id in s2, plus 1 */
  kc_map seen_tab, seen_cell, seen_han, made_tab, made_cell, made_han;
  kc_merge_work *work;
  uint32_t nwork, done;
  kc_reach q1, q2;
  const kc_recoded *recoded;
} kc_merge_job;

/* merge.c */
kc_val kc_merge_single(kc_merge_job *m, kc_val a, int side);
kc_val kc_merge_places(kc_merge_job *m, kc_val a, kc_val b);
kc_val kc_pair_values(kc_merge_job *m, kc_val a, kc_val b); /* what is known of them is used up already */
bool kc_type_of(kc_val a, kn_vtype *t);                     /* of scalars and tensors */
bool kc_is_param(const kc_merge_job *m, kc_val a);          /* of the loop being generalised */
kc_val kc_new_param(kc_merge_job *m, const kn_vtype *type, kn_value *init, kc_val next);
void kc_bind_param(kc_merge_job *m, kc_val param, kc_val next);
/* merge_union.c */
kc_val kc_pair_unions(kc_merge_job *m, kc_val a, kc_val b);
kc_val kc_carry_union(kc_merge_job *m, kc_val a, kc_val b);
bool kc_may_carry(const kc_merge_job *m, kc_val a);
/* A value that only the back edge has becomes one of the next trip's entry, undefined in the first. */
kc_val kc_carry_new(kc_merge_job *m, kc_val b);
/* merge_heap.c */
void kc_adopt_table(kc_merge_job *m, uint32_t id); /* objects of the back edge for kc_carry_new */
void kc_adopt_cell(kc_merge_job *m, uint32_t id);
void kc_adopt_handle(kc_merge_job *m, uint32_t id);
bool kc_known_to_both(const kc_merge_job *m, bool table, uint32_t id);
bool kc_seen_after(kc_merge_job *m, kc_val a); /* a table or handle: by the second state */
/* May the two be one object from here on? Queues the merging of their contents. */
bool kc_pair_tables(kc_merge_job *m, uint32_t a, uint32_t b);
bool kc_pair_cells(kc_merge_job *m, uint32_t a, uint32_t b);
bool kc_pair_closures(kc_merge_job *m, uint32_t a, uint32_t b);
bool kc_pair_handles(kc_merge_job *m, uint32_t a, uint32_t b);
void kc_mark_pair(kc_merge_job *m, kc_map *ab, kc_map *ba, uint32_t a, uint32_t b);
void kc_note_cell(kc_merge_job *m, uint32_t cell);
/* An object that one path brings: false when it cannot be told apart from one that was merged. */
bool kc_touch_table(kc_merge_job *m, uint32_t id, int side);
bool kc_touch_cell(kc_merge_job *m, uint32_t id, int side);
bool kc_touch_closure(kc_merge_job *m, uint32_t id, int side);
bool kc_touch_handle(kc_merge_job *m, uint32_t id, int side);
kc_res kc_merge_heap(kc_merge_job *m);

#endif
