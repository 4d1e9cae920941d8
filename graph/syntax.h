/* What printer and parser of the text form must agree on. */
#ifndef KN_SYNTAX_H
#define KN_SYNTAX_H
#include "graph/graph.h"

enum { KN_INLINE_ELEMENTS = 64, KN_REGION_DEPTH = 200, KN_WHERE_DEPTH = 200 };

extern const char *const kn_slot_words[3]; /* by kn_slot_kind: "param", "state", "const" */
/* A letter or _, then letters, digits and _: stands without quotes as graph name, size name, key. */
bool kn_plain_word(const char *s, size_t n);
/* Words joined by points (later ones may start with a digit), not ending in ".digits": stands after %
 * unquoted. */
bool kn_plain_value_name(const char *s);
/* The data of this slot is written in the text. */
bool kn_slot_inline(const kn_slot *s);

static inline bool kn_is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static inline bool kn_is_digit(char c) { return c >= '0' && c <= '9'; }

#endif
