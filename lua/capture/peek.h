/* A look into a Lua table without a call: where its values lie in memory, as Lua 5.4 lays tables out on
 * machines with pointers of 8 bytes. Only for guards, which are gone through at every call and say
 * "unchanged, certainly" by it; whatever else they find they ask again by Lua's interface. kc_peek_works has
 * tried it out on a table of its own. Reads only, of tables that are held elsewhere. Private to this room. */
#ifndef KC_PEEK_H
#define KC_PEEK_H
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct kc_peek_value {
  uint64_t bits; /* pointer, integer or float; nothing for nil, true and false */
  uint8_t tag;
} kc_peek_value;

typedef struct kc_peek_node {
  uint64_t bits;
  union {
    struct {
      uint8_t tag, key_tag;
      int32_t next;
    };
    uint64_t word;
  };
  uint64_t key;
} kc_peek_node;

typedef struct kc_peek_string { /* a short one: one object for all that are equal */
  const void *link;
  uint8_t tt, marked, extra, length;
  uint32_t hash;
} kc_peek_string;

typedef struct kc_peek_table {
  const void *link;
  uint8_t tt, marked, flags, log2_nodes;
  uint32_t limit;
  const kc_peek_value *array;
  const kc_peek_node *nodes, *last_free;
  const struct kc_peek_table *meta;
} kc_peek_table;

typedef struct kc_peek_upvalue { /* shared by the closures that see it */
  const void *link;
  uint8_t tt, marked;
  const kc_peek_value *at; /* on a stack as long as it is open */
} kc_peek_upvalue;

typedef struct kc_peek_closure { /* of a Lua function */
  const void *link;
  uint8_t tt, marked, count;
  const void *gray, *proto;
  const kc_peek_upvalue *up[];
} kc_peek_closure;

enum { KC_PEEK_CLOSURE = LUA_TFUNCTION, KC_PEEK_UPVALUE = 9 }; /* their tt */
enum { KC_PEEK_STRING = LUA_TSTRING | 64 }; /* the tag of a short string, which can be collected */
enum { KC_PEEK_LONG_STRING = KC_PEEK_STRING | 16 };
enum { KC_PEEK_NODES = 32 }; /* most that the keys of a table are remembered of */

/* Is this Lua as described? Tried out with tables made on the stack, which is left as it was. */
bool kc_peek_works(lua_State *L);

/* The n-th upvalue of a Lua function at a place of the stack, if it lies as described and holds the object
 * `ptr`; else NULL. */
const kc_peek_upvalue *kc_peek_upvalue_of(lua_State *L, int idx, int n, const void *ptr);

static inline bool kc_peek_is_nil(uint8_t tag) { return (tag & 15) == 0; }
/* The word that tag, key_tag and next share. */
static inline uint64_t kc_peek_word(uint8_t tag, uint8_t key_tag, int32_t next) {
  kc_peek_node n;
  n.word = 0;
  n.tag = tag, n.key_tag = key_tag, n.next = next;
  return n.word;
}
static inline uint32_t kc_peek_count(const kc_peek_table *t) { return 1u << t->log2_nodes; }

/* The node of a short string; where it is not `there`, the node where it should be, or from which it would be
 * reached: another key, or another `next`, is written to that when the key is put into the table. NULL: no
 * idea. */
static inline const kc_peek_node *kc_peek_find(const kc_peek_table *t, uint64_t key, uint8_t key_tag,
                                               uint32_t hash, bool *there) {
  uint32_t n = kc_peek_count(t), at = hash & (n - 1);
  const kc_peek_node *first = &t->nodes[at];
  *there = false;
  for (uint32_t steps = 0; steps < n && at < n; steps++) {
    const kc_peek_node *node = &t->nodes[at];
    if (node->key_tag && node->key == key) { /* with nil, or forgotten by the collector: it may come back */
      *there = true;
      return node->key_tag == key_tag ? node : NULL;
    }
    if (!node->next) return first;
    at += (uint32_t)node->next;
  }
  return NULL;
}

/* The place of an integer key in the array part, from 0; false when it is not there. */
static inline bool kc_peek_in_array(const kc_peek_table *t, int64_t key) {
  return key >= 1 && (uint64_t)key <= t->limit;
}

/* How large the array part is: `limit` may be a hint for the length, then it is the power of two from there.
 */
static inline uint32_t kc_peek_array_size(const kc_peek_table *t) {
  uint32_t n = 1;
  if (!(t->flags & 0x80) || !t->limit) return t->limit;
  while (n < t->limit) n *= 2;
  return n;
}

#endif
