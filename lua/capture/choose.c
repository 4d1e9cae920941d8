/* One value or another by a boolean, both there already: for things that become one after they were made.
 * What joins and loops do is in merge_union.c. */
#include "lua/capture/choose.h"
#include "lua/capture/text.h"

/* Of one class: the same object, or a value of the graph. */
static kc_val choose_alike(kc_cap *c, kc_val is, kc_val a, kc_val b) {
  kn_vkind kind;
  if (kc_same(a, b)) return a;
  if (a.k == KC_V_TEXT && b.k == KC_V_TEXT) {
    kc_val *v = kc_new(c, (a.t->n + 1) * sizeof *v);
    for (uint32_t i = 0; i < a.t->n; i++) v[i] = choose_alike(c, is, a.t->v[i], b.t->v[i]);
    return kc_text_with(c, a.t, v);
  }
  if (!kc_scalar_kind(a, &kind) || !kc_scalar_kind(b, &kind)) return KC_POISONED;
  return kc_sym(kc_emit(c, KN_NODE_select, 3, is, a, b));
}

static kc_val choose_tag(kc_cap *c, kc_val is, kc_val a, kc_val b) {
  if (kc_same(a, b)) return a;
  kc_val tag = kc_sym(kc_emit(c, KN_NODE_select, 3, is, a, b));
  if (a.k == KC_V_INT && b.k == KC_V_INT)
    *kc_note_of(c, tag.v, true) = (kc_note){.choice = is.v, .a = a.i, .b = b.i};
  return tag;
}

kc_val kc_choose(kc_cap *c, kc_val is, kc_val a, kc_val b) {
  kc_union x, y, u;
  if (is.k != KC_V_SYM) return is.i ? a : b;
  if (kc_same(a, b)) return a;
  if (a.k == KC_V_POISON || b.k == KC_V_POISON || a.k == KC_V_NONE || b.k == KC_V_NONE) return KC_POISONED;
  kc_alts(c, a, &x);
  kc_alts(c, b, &y);
  if (x.n == 1 && y.n == 1 && x.alt[0].code == y.alt[0].code)
    return choose_alike(c, is, x.alt[0].v, y.alt[0].v);
  u = x;
  for (int i = 0; i < x.n; i++) {
    const kc_val *other = kc_alt_find(&y, x.alt[i].code);
    if (other) u.alt[i].v = choose_alike(c, is, x.alt[i].v, *other);
  }
  for (int i = 0; i < y.n; i++) {
    if (kc_alt_find(&x, y.alt[i].code)) continue;
    if (u.n == KC_MAX_ALTS) return KC_POISONED;
    u.alt[u.n++] = y.alt[i];
  }
  u.tag = choose_tag(c, is, x.tag, y.tag);
  return kc_make_union(c, &u);
}
