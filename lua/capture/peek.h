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
  uint8_t tag, key_tag;
  int32_t next;
  uint64_t key;
} kc_peek_node;

typedef struct kc_peek_table {
  const void *link;
  uint8_t tt, marked, flags, log2_nodes;
  uint32_t limit;
  const kc_peek_value *array;
  const kc_peek_node *nodes, *last_free;
  const struct kc_peek_table *meta;
} kc_peek_table;

enum { KC_PEEK_NODES = 32 }; /* larger tables are not searched */

/* Is this Lua as described? Tried out with tables made on the stack, which is left as it was. */
bool kc_peek_works(lua_State *L);

static inline bool kc_peek_is_nil(uint8_t tag) { return (tag & 15) == 0; }
static inline uint32_t kc_peek_count(const kc_peek_table *t) { return 1u << t->log2_nodes; }

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
