/* The state of the interpreter on one path: frames, shadow heap, facts. A snapshot is O(1): maps are
 * persistent tries and frames and tables are copied when first written after it. Private to this room. */
#ifndef KC_STATE_H
#define KC_STATE_H
#include "lua/capture/value.h"

typedef struct kc_map_node kc_map_node;
typedef struct kc_map { /* uint32 → pointer */
  kc_map_node *root;
  int levels;
} kc_map;
void *kc_map_get(const kc_map *m, uint32_t key);
void kc_map_set(kc_cap *c, kc_map *m, uint32_t owner, uint32_t key, void *p);
/* Calls fn for keys whose pointers differ, in order of keys. */
typedef kc_res (*kc_map_fn)(void *ud, uint32_t key, void *a, void *b);
kc_res kc_map_diff(const kc_map *a, const kc_map *b, kc_map_fn fn, void *ud);

/* What both have: of a where they are the same, what `join` makes of two that differ (NULL: nothing), nothing
 * where only one has something. New nodes belong to `owner`; what is shared stays shared. */
typedef void *(*kc_map_join_fn)(void *a, void *b);
kc_map kc_map_common(kc_cap *c, const kc_map *a, const kc_map *b, uint32_t owner, kc_map_join_fn join);

/* Contents of a table. For outside tables only what was written; the rest is looked up outside. */
typedef struct kc_table {
  uint32_t owner, n, cap, nhash;
  kc_val *key, *val; /* in order of insertion; a removed key stays with nil */
  uint32_t *hash;    /* positions + 1; NULL while small */
  kc_val meta;       /* inside tables */
} kc_table;

/* What a handle holds now: never changed once it is in a state. */
typedef struct kc_hold {
  kn_value *now; /* contents; of a view what was last derived (NULL: nothing) … */
  kn_value *of;  /* … when what it shows held this */
  kn_value **in; /* of a view: the inputs of its node from the second on, as they are seen here */
  uint32_t nin;
} kc_hold;

typedef struct kc_active kc_active; /* a loop being run; innermost first */
struct kc_active {
  kc_loop_try *loop;
  int arrivals, iteration;
  const kc_active *up;
};

typedef struct kc_frame kc_frame;
struct kc_frame {
  uint32_t owner;
  kc_frame *up;
  kc_proto *p;
  const kc_flow *flow;
  uint32_t clos;
  kc_val *r;      /* maxstack */
  uint32_t *cell; /* of registers that are upvalues of some closure; 0: none */
  kc_val *va;
  kc_val *open; /* open results beyond the last register */
  int nva, top, pc, want;
  const kc_active *active;
  const kn_where *at;     /* of the call */
  uint32_t values_before; /* made before it was called: later ones were made in it, or in calls of it */
};

typedef struct kc_tag_fact { /* what is known of an integer tag */
  int64_t code;
  bool equal;
  const struct kc_tag_fact *next;
} kc_tag_fact;

typedef struct kc_event kc_event;
struct kc_state {
  uint32_t owner;
  kc_frame *top;
  int depth;
  kc_map tabs, cells; /* kc_table, kc_val */
  kc_map holds;       /* kc_hold, by handle */
  kc_map facts, tags; /* by value id: truth + 1, kc_tag_fact */
  kc_val *ret;
  int nret;
  const kc_event *events; /* since a forked part began that is not waited for (race.h); newest first */
  uint32_t part;          /* the forked part that runs; 0: the function itself */
};

kc_state *kc_state_new(kc_cap *c);
kc_state *kc_snapshot(kc_cap *c, kc_state *s);
kc_frame *kc_frame_new(kc_cap *c, kc_state *s, kc_proto *p, uint32_t clos);
kc_frame *kc_top(kc_cap *c, kc_state *s); /* the top frame, to be written */
void kc_add_fact(kc_cap *c, kc_state *s, kn_value *cond, bool truth);
/* The value with what is known on this path used: unions narrowed, booleans known. */
kc_val kc_resolve(kc_cap *c, const kc_state *s, kc_val a);

/* Registers, through the upvalue they may be. */
kc_val kc_get_reg(kc_cap *c, kc_state *s, int r);
void kc_set_reg(kc_cap *c, kc_state *s, int r, kc_val v); /* names graph values by the local at pc + 1 */

/* Tables of the state by id. */
kc_table *kc_table_get(const kc_state *s, uint32_t id);        /* NULL: outside and not written */
kc_table *kc_table_write(kc_cap *c, kc_state *s, uint32_t id); /* a copy of this state's own */
kc_table *kc_table_copy(kc_cap *c, const kc_table *t, uint32_t owner);
uint32_t kc_table_new(kc_cap *c, kc_state *s);
int64_t kc_table_find(const kc_table *t, kc_val key); /* position or -1 */
void kc_table_put(kc_cap *c, kc_table *t, kc_val key, kc_val v);
uint32_t kc_new_table_id(kc_cap *c, uint32_t object);
uint32_t kc_new_cell_id(kc_cap *c);
uint32_t kc_new_closure_id(kc_cap *c, kc_proto *p, uint32_t object);
kc_val kc_normal_key(kc_val k); /* floats with integer values are integers */

#endif
