/* What the rest of a path can still see of the shadow heap, from live registers, results and outside places
 * on. Private to this room. */
#ifndef KC_REACH_H
#define KC_REACH_H
#include "lua/capture/state.h"

/* How a table, closure or handle is referred to: as these alternatives of unions with these tags, and perhaps
 * otherwise. */
enum { KC_MAX_TAGS = 8 };
typedef struct kc_referred {
  kn_value *tag[KC_MAX_TAGS];
  int64_t code[KC_MAX_TAGS];
  uint32_t via[KC_MAX_TAGS]; /* by a view of it, which this is; 0: by itself */
  int n;
  bool otherwise;
} kc_referred;

#define KC_SHARED UINT32_MAX
typedef struct kc_reach {
  uint8_t *tab, *cell, *han; /* by id */
  bool refs;
  kc_map by_han, by_tab,
      by_clos;     /* kc_referred, where `refs`; of a handle that a view shows: otherwise, too */
  kc_map by_shown; /* of handles that are no views: by a view as by itself */
  uint32_t *owner; /* of each cell the closure it is an upvalue of; 0: none, KC_SHARED: more */
} kc_reach;

/* Of the state when its top frame goes on at pc (negative: it returns). How they are referred to is noted
 * where `refs`. */
void kc_reach_of(kc_cap *c, kc_state *s, int pc, bool refs, kc_reach *q);
/* What a frame can still read: one that waits for a call reads neither its arguments nor what it sets. */
kc_regs kc_live_in(const kc_frame *f, bool top, int pc);

#endif
