/* Parts that kiln.fork runs, and what they and the program beside them touch: two of them that may run at one
 * time must not use one place when one writes it. What is touched is noted on each path from the first fork
 * until everything is waited for; the rest of a capture pays nothing. Results do not depend on it: parts run
 * in the order of the program. */
#ifndef KC_RACE_H
#define KC_RACE_H
#include "lua/capture/interp.h"

typedef enum kc_place_kind { KC_PLACE_FIELD, KC_PLACE_VARIABLE, KC_PLACE_TENSOR } kc_place_kind;
typedef struct kc_place {
  kc_place_kind kind;
  uint32_t id; /* of the table, cell or handle */
  kc_val key;  /* of a field; POISON: all of them */
} kc_place;

void kc_note_touch(kc_cap *c, kc_state *s, kc_place place, bool write);
/* The place is read or written here. A race makes the builder fail, which the main loop sees. */
static inline void kc_touch(kc_cap *c, kc_state *s, kc_place place, bool write) {
  if (s->events) kc_note_touch(c, s, place, write);
}
/* What happened on either of two paths that meet. */
const kc_event *kc_join_events(kc_cap *c, const kc_event *a, const kc_event *b);
/* The body of a loop node, from `a` to `b`, runs again beside the parts of the trip before. */
void kc_touch_again(kc_cap *c, const kc_state *a, const kc_state *b);

/* At the end of the function. Refuses parts whose errors might never be raised, and what they wrote be
 * missed.
 */
kc_res kc_check_waited(kc_cap *c, const kc_state *s);

/* kiln.fork_mark("fork"), ("end", part), ("wait", part): the model. */
kc_res kc_m_fork_mark(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);

#endif
