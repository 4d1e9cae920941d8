/* Alternatives that nobody can tell apart. Where places hold one or another of several tensors, tables or
 * functions made inside, told apart by tags, as many of them are still there when the graph runs as there are
 * tags: so they become as many. The first is what the first tag says; the second what the second says, unless
 * that is the first; and so on. Without this every trip of a loop would add alternatives. Private to this
 * room. */
#ifndef KC_ALIKE_H
#define KC_ALIKE_H
#include "lua/capture/state.h"

/* A union with so many of them is worth looking at (kc_cap.crowded). */
enum { KC_CROWD = 3 };
void kc_note_crowd(kc_cap *c, const kc_union *u);

/* In the state that goes on at pc, at an instruction's start. */
kc_res kc_merge_alike(kc_cap *c, kc_state *s, int pc);

#endif
