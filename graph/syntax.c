/* What printer and parser of the text form must agree on. */
#include "graph/syntax.h"
#include <string.h>

const char *const kn_slot_words[3] = {
    [KN_SLOT_PARAM] = "param", [KN_SLOT_STATE] = "state", [KN_SLOT_CONST] = "const"};

bool kn_plain_word(const char *s, size_t n) {
  if (!n || !kn_is_letter(s[0])) return false;
  for (size_t i = 1; i < n; i++)
    if (!kn_is_letter(s[i]) && !kn_is_digit(s[i])) return false;
  return true;
}

bool kn_plain_value_name(const char *s) {
  if (!kn_is_letter(*s)) return false;
  bool digits = true; /* the last part is all digits */
  size_t part = 0;
  bool first = true;
  for (; *s; s++) {
    if (*s == '.') {
      if (!part) return false;
      part = 0;
      digits = true;
      first = false;
      continue;
    }
    if (!kn_is_letter(*s) && !kn_is_digit(*s)) return false;
    digits &= kn_is_digit(*s);
    part++;
  }
  return part && (first || !digits);
}
