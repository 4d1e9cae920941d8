/* The flat list of what is checked at every call: see guards.c. Private to this room. */
#ifndef KC_GUARDS_H
#define KC_GUARDS_H
#include "lua/capture/heap.h"
#include "lua/capture/peek.h"

typedef enum kc_guard_how {
  KC_GUARD_FIELD,   /* the value at a key that is an object */
  KC_GUARD_INDEX,   /* at an integer key */
  KC_GUARD_UPVALUE, /* i-th */
  KC_GUARD_META,
  KC_GUARD_LENGTH /* raw length of a table */
} kc_guard_how;

/* What is gone through at every call as long as it lies where it was found: lists of one kind each, as little
 * as will do. First the tables' own few words, which say that what they point to is still theirs; then what
 * lies there, by its address. */
typedef struct kc_guard_up { /* an upvalue that holds an object: whose it is, where it lies */
  const kc_peek_upvalue *const *of;
  const kc_peek_upvalue *up;
  const kc_peek_value *at;
  uint64_t bits;
  uint8_t tag;
} kc_guard_up;
typedef struct kc_guard_head { /* every table that is read */
  const kc_peek_table *table, *meta;
  const kc_peek_node *nodes;
  uint8_t log2_nodes;
} kc_guard_head;
typedef struct kc_guard_part { /* one whose array part is read, up to `need` */
  const kc_peek_table *table;
  const kc_peek_value *array;
  uint32_t need;
} kc_guard_part;
typedef struct kc_guard_slot { /* a value in the array part */
  const kc_peek_value *at;
  uint64_t bits, mask; /* mask: 0 where the value is all in its tag */
  uint8_t tag;
} kc_guard_slot;
typedef struct kc_guard_node { /* a key and its value */
  const kc_peek_node *at;
  uint64_t key, bits, word;
} kc_guard_node;
typedef struct kc_guard_key { /* a key, and of the word beside it what its list says */
  const kc_peek_node *at;
  uint64_t key, word;
} kc_guard_key;
typedef struct kc_guard_unused { /* a node that was never used: no key */
  const kc_peek_node *at;
  uint64_t word;
} kc_guard_unused;
typedef struct kc_guard_tensor {
  kn_tensor *const *box;
  const kn_tensor *given; /* what the session was given last, and keeps alive */
  uint32_t guard;
} kc_guard_tensor;
typedef struct kc_guard_fast {
  kc_guard_up *ups;
  kc_guard_head *heads;
  kc_guard_part *parts;
  kc_guard_slot *slots;
  kc_guard_node *nodes;
  kc_guard_key *kinds; /* keys that are there, and the types of their values */
  kc_guard_key *ways;  /* keys on the way to those that are not there, and how the way goes on */
  kc_guard_unused *unused;
  kc_guard_tensor *tensors;
  uint32_t *rest; /* guards that must be asked for */
  uint32_t nups, nheads, nparts, nslots, nnodes, nkinds, nways, nunused, ntensors, nrest;
  uint32_t first_way, first_unused; /* of the table that was seen last */
  uint32_t room;                    /* of ways */
  bool made;
  bool given; /* all tensors, while the host had emptied so many objects: */
  uint64_t emptied;
} kc_guard_fast;

typedef struct kc_guard {
  uint8_t how; /* kc_guard_how */
  int8_t type; /* LUA_T… that must be there; a number is also `integer` or not */
  bool integer;
  int container, key_place; /* places in the list's own stack */
  int last;  /* tensors: where the object met last is kept, so that its address stays its own; else 0 */
  int64_t i; /* INDEX, UPVALUE */
  union {
    int64_t i;
    double f;
    const void *ptr; /* objects; the bytes of a string */
  } want;
  const kn_type *tensor; /* a tensor of this type must be there instead; NULL: no tensor */
  kn_tensor **box;       /* a tensor: of the object met last */
  uint32_t fast;         /* a tensor: which of the fast ones, from 1; 0: not yet */
  bool seen;             /* in memory, by the lists above; else it is one of the rest */
} kc_guard;

typedef struct kc_guards {
  lua_State *T; /* holds containers, keys and strings on its stack; anchored by `ref` */
  int ref;
  kc_guard *list;
  kc_guard_fast fast;
  uint32_t n;
  const uint64_t *emptied; /* the host's */
  bool peeks;              /* kc_peek_works */
  bool moved;              /* the last check found a tensor that is not what the session was given */
} kc_guards;

/* The keys of a table as they were found: where they lie. */
typedef struct kc_guard_keys {
  const kc_peek_value *array;
  const kc_peek_node *nodes;
  uint32_t full, size, count; /* of the array part: from the first on, and all; of the nodes */
  uint64_t key[KC_PEEK_NODES];
  uint8_t key_tag[KC_PEEK_NODES]; /* 0: nothing there */
} kc_guard_keys;
/* False where they cannot be described: holes in the array part, many nodes. */
bool kc_guard_keys_note(const kc_peek_table *t, kc_guard_keys *k);
bool kc_guard_keys_same(const kc_peek_table *t, const kc_guard_keys *k);

/* An empty list for at most `room` guards with `objects` objects beside them. Raises out of memory. */
void kc_guards_open(kc_cap *c, kc_guards *g, kn_arena *a, uint32_t room, uint32_t objects);
/* Moves the value on top of L to the list's stack: its place there. */
int kc_guards_keep(lua_State *L, kc_guards *g);
/* Do all hold? Raises nothing, allocates nothing. */
bool kc_guards_hold(kc_guards *g, const kc_host *host);
/* After a check that said yes. Has the session been given the tensor that is there? It is given it now; and
 * what it has been given is no longer known. */
bool kc_guards_is_given(const kc_guards *g, uint32_t i);
kn_tensor *kc_guards_give(kc_guards *g, uint32_t i);
void kc_guards_forget(kc_guards *g);
/* Looks at the place of a tensor's guard again; NULL when there is no tensor. */
kn_tensor *kc_guards_tensor(kc_guards *g, const kc_host *host, uint32_t i);
void kc_guards_free(lua_State *L, kc_guards *g);

#endif
