/* What the files of a graph's live side share: live.c (making, checking, life), live_slots.c (tensors in and
 * out). Private to them. */
#ifndef KC_LIVE_INSIDE_H
#define KC_LIVE_INSIDE_H
#include "lua/capture/guards.h"
#include "lua/capture/live.h"

typedef struct kc_expected { /* a concrete value without the capture */
  int type;                  /* LUA_T…; a number is also `integer` or not */
  bool integer;
  union {
    int64_t i;
    double f;
    const void *ptr;
  } as;
  const char *s; /* strings */
  size_t n;
  int anchor; /* of objects and strings; 0: none */
} kc_expected;

typedef struct kc_check {
  kc_look_kind kind;
  int container; /* anchor */
  kc_expected key, want;
  kn_slot *slot; /* of a tensor or state number: its type is what is checked */
  bool in_graph, written, number;
  uint32_t object;          /* the handle that was there, 0: none */
  const kn_value *stored;   /* what the graph stores to the slot */
  bool sometimes;           /* a gradient: nil where the run did not store it */
  bool born, blind, clears; /* nil before; never looked at; nil afterwards */
  bool identity, requires;  /* the tensor must be the slot's own; it requires grad */
  bool quiet;               /* what overwrites it does so with gradients off */
  kn_slot *was;             /* whose value overwrites the tensor, where its own is for the place */
  bool handle, overwritten; /* the tensor may share memory with no other one; it gets other contents */
  kc_laid laid;             /* what is guarded of one that is no handle */
  bool strided;
  int64_t strides[KN_MAX_RANK];
  int same; /* the tensor must be that of this check, 0: none */
  kc_expected *keys;
  uint32_t nkeys, order;
  kc_guard_keys *noted; /* KEYS: where they lay when they were found the same; NULL: not known */
  uint32_t quick;       /* which of the quick guards, from 1; 0: none */
  const char *guard, *name, *text, *where;
} kc_check;

typedef struct kc_seen { /* memory of a tensor, and of those that are overwritten the one that has it */
  const kn_storage *of;
  const kc_check *handle;
} kc_seen;

struct kc_live {
  kn_heap *heap; /* retained */
  kn_arena arena;
  int ref; /* of the anchor table */
  kc_check *checks;
  uint32_t nchecks;
  kc_guards quick;
  uint32_t *special, *slots; /* checks that are not in the quick list; that find the graph's slots */
  uint32_t nspecial, nslots;
  bool all_quick;           /* of the slots */
  bool stores;              /* something outside is changed after a run */
  const kn_session *loaded; /* the session that has `given` of all quick guards */
  kc_leaf *args;
  kc_expected *consts; /* of CONST leaves, by value.i */
  uint32_t nconsts;
  int nargs;
  uint32_t ntables; /* argument tables: their addresses are compared */
  const void **tables, **outside;
  uint32_t noutside;
  const kn_tensor **tensors; /* of the arguments, then of the checks: scratch while checking */
  uint32_t ntensors;
  kc_seen *seen; /* scratch, too: a table, at most half full */
  uint32_t nseen;
  bool handles;          /* some are overwritten */
  bool grads, grad_mode; /* it matters what requires grad; and gradients must be on, or off, as here */
  uint8_t autocast;      /* as of the context, when it was captured */
  kc_birth *births;      /* made here or given: for the next capture */
  uint32_t nbirths;
  struct unrolled {
    const char *where;
    int64_t trips;
  } * unrolled; /* for reports */
  uint32_t nunrolled;
};

/* Pushes what is at the place now; the container is on top. */
void kc_look_again(lua_State *L, int anchors, const kc_check *k);
void kc_push_key(lua_State *L, int anchors, const kc_expected *e);

#endif
