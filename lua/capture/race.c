/* Races between forked parts. The events of a path are a list: what was touched by which part, which parts
 * began and which were waited for, by whom. A part that has ended comes before another when it was waited for
 * by that one, by one that forked it, or by one that itself comes before it. See race.h. */
#include "lua/capture/race.h"
#include <stdio.h>

typedef enum event_kind { BEGAN, WAITED, TOUCHED } event_kind;
struct kc_event {
  const kc_event *older;
  uint32_t depth; /* how many are older, and this one */
  event_kind kind;
  uint32_t part; /* that began, that was waited for, that touched */
  uint32_t by;   /* who forked it, who waited */
  bool write;
  kc_place place;
  const char *line;
};

static void add(kc_cap *c, const kc_event **list, kc_event e) {
  e.older = *list;
  e.depth = e.older ? e.older->depth + 1 : 1;
  *list = kc_dup(c, &e, sizeof e);
}

/* ---- order ---- */

/* Is x the part, or one that it runs inside of? */
static bool holds(const kc_cap *c, uint32_t x, uint32_t part) {
  while (part && part != x) part = c->parts[part].by;
  return part == x;
}

/* Has what part x did happened before what `now` does? */
static bool is_before(const kc_cap *c, const kc_event *list, uint32_t x, uint32_t now) {
  if (holds(c, x, now)) return true;
  for (const kc_event *e = list; e; e = e->older)
    if (e->kind == WAITED && e->part == x && is_before(c, list, e->by, now)) return true;
  return false;
}

/* ---- places ---- */

static bool same_place(const kc_place *a, const kc_place *b) {
  return a->kind == b->kind && a->id == b->id && kc_same(a->key, b->key);
}

static bool may_meet(const kc_place *a, const kc_place *b) {
  return a->kind == b->kind && a->id == b->id &&
         (a->key.k == KC_V_POISON || b->key.k == KC_V_POISON || kc_same(a->key, b->key));
}

static const char *name_of(kc_cap *c, const kc_place *p) {
  if (p->kind == KC_PLACE_TENSOR) return "tensor";
  if (p->kind == KC_PLACE_VARIABLE) return "variable";
  if (p->key.k == KC_V_STRING) return kc_format(c, "field '%s'", c->obj[p->key.id].s);
  if (p->key.k == KC_V_INT) return kc_format(c, "field [%lld]", (long long)p->key.i);
  return "table";
}

static const char *verb(bool write) { return write ? "writes" : "reads"; }

static void refuse(kc_cap *c, const kc_event *a, const kc_event *b) {
  if (c->b.status != KN_OK) return;
  const kc_place *p = a->place.key.k == KC_V_POISON ? &b->place : &a->place;
  c->b.status =
      kn_fail(c->ctx, KN_CAPTURE,
              "a race between forked parts: %s %s a %s that %s %s beside it; wait for the part before "
              "(kiln.wait), or let it return the value",
              a->line, verb(a->write), name_of(c, p), b->line, verb(b->write));
}

/* ---- what happens ---- */

void kc_note_touch(kc_cap *c, kc_state *s, kc_place place, bool write) {
  char line[160];
  kc_event now = {.kind = TOUCHED, .part = s->part, .place = place, .write = write};
  for (const kc_event *e = s->events; e; e = e->older) {
    if (e->kind != TOUCHED || (!e->write && !write && e->part != s->part)) continue;
    /* it was compared with all that is older */
    if (e->part == s->part && (e->write || !write) && same_place(&e->place, &place)) return;
    if ((e->write || write) && may_meet(&e->place, &place) && !is_before(c, s->events, e->part, s->part)) {
      kc_position(c, line, sizeof line);
      now.line = line;
      refuse(c, e, &now);
      return;
    }
  }
  kc_position(c, line, sizeof line);
  now.line = kc_keep(c, line);
  add(c, &s->events, now);
}

const kc_event *kc_join_events(kc_cap *c, const kc_event *a, const kc_event *b) {
  const kc_event *x = a, *y = b;
  while (x != y) {
    if (!y || (x && x->depth >= y->depth))
      x = x->older;
    else
      y = y->older;
  }
  const kc_event *common = x;
  uint32_t n = 0;
  const kc_event **all = kc_new(c, ((a ? a->depth : 0) + (size_t)(b ? b->depth : 0) + 1) * sizeof *all);
  for (const kc_event *e = a; e != common; e = e->older) all[n++] = e;
  uint32_t na = n;
  for (const kc_event *e = b; e != common; e = e->older) all[n++] = e;
  const kc_event *out = common;
  for (uint32_t i = n; i-- > 0;) {
    const kc_event *other = i < na ? b : a, *e = all[i];
    bool holds_here = e->kind != WAITED;
    /* waited for on both paths, or begun on this one */
    for (const kc_event *o = other; o != common && !holds_here; o = o->older)
      holds_here = o->kind == WAITED && o->part == e->part && o->by == e->by;
    for (uint32_t k = i < na ? 0 : na; k < (i < na ? na : n) && !holds_here; k++)
      holds_here = all[k]->kind == BEGAN && all[k]->part == e->part;
    if (holds_here) add(c, &out, *e);
  }
  return out;
}

static bool was_there(const kc_cap *c, const kc_state *s, const kc_place *p) {
  switch (p->kind) {
  case KC_PLACE_FIELD: return c->tab[p->id].object || c->tab[p->id].argument || kc_table_get(s, p->id);
  case KC_PLACE_VARIABLE: return c->cell[p->id].object || kc_map_get(&s->cells, p->id);
  case KC_PLACE_TENSOR: return c->han[p->id].initial || kc_map_get(&s->holds, p->id);
  }
  return true;
}

void kc_touch_again(kc_cap *c, const kc_state *a, const kc_state *b) {
  for (const kc_event *e = b->events; e && e != a->events; e = e->older) {
    if (e->kind != TOUCHED || !was_there(c, a, &e->place) || is_before(c, b->events, e->part, b->part))
      continue;
    for (const kc_event *x = b->events; x && x != a->events; x = x->older)
      if (x->kind == TOUCHED && (x->write || e->write) && may_meet(&x->place, &e->place)) {
        refuse(c, e, x);
        return;
      }
  }
}

/* ---- the marks ---- */

static kc_res begin(kc_cap *c, kc_state *s, kc_values *out) {
  if (!c->nparts) c->parts = kc_more(c, &c->arena, c->parts, c->nparts++, sizeof *c->parts);
  c->parts = kc_more(c, &c->arena, c->parts, c->nparts, sizeof *c->parts);
  uint32_t part = c->nparts++;
  c->parts[part] = (kc_part){.by = s->part};
  add(c, &s->events, (kc_event){.kind = BEGAN, .part = part, .by = s->part});
  s->part = part;
  c->part_begins = true;
  out->v = kc_vals(c, 1);
  out->v[0] = kc_int(part);
  out->n = 1;
  return KC_GO;
}

/* When the function itself has waited for everything, nothing of before can race any more. */
static void forget(kc_cap *c, kc_state *s) {
  for (const kc_event *e = s->events; e; e = e->older)
    if (e->kind == BEGAN && !is_before(c, s->events, e->part, s->part)) return;
  if (!s->part) s->events = NULL;
}

/* What a part wrote before it raised is lost in the graph, which nobody can see when the error is raised. */
static kc_res lost(kc_cap *c, uint32_t part, const char *who) {
  return kc_fail(
      c,
      "%s a forked part that may raise an error at %s, when it has written to a table, variable or "
      "tensor of outside; write after that, or let the part return the value",
      who, c->parts[part].late);
}

kc_res kc_check_waited(kc_cap *c, const kc_state *s) {
  for (const kc_event *e = s->events; e; e = e->older)
    if (e->kind == BEGAN && c->parts[e->part].late && !is_before(c, s->events, e->part, 0))
      return lost(c, e->part, "the function does not wait on each path for");
  return KC_GO;
}

/* A future may be one of several: then all of these may have been waited for. */
static kc_res wait_for(kc_cap *c, kc_state *s, kc_val part) {
  const kc_event *all = s->events;
  for (const kc_event *e = all; e && c->protect; e = e->older)
    if (e->kind == BEGAN && (part.k != KC_V_INT || part.i == (int64_t)e->part) && c->parts[e->part].late)
      return lost(c, e->part, "a protected call waits for");
  for (const kc_event *e = all; e; e = e->older)
    if (e->kind == BEGAN && !holds(c, e->part, s->part) && (part.k != KC_V_INT || part.i == (int64_t)e->part))
      add(c, &s->events, (kc_event){.kind = WAITED, .part = e->part, .by = s->part});
  forget(c, s);
  return KC_GO;
}

kc_res kc_m_fork_mark(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  kc_val part = n > 1 ? kc_resolve(c, *s, a[1]) : KC_NILV;
  out->n = 0;
  if (n && kc_is_str(c, a[0], "fork")) return begin(c, *s, out);
  if (n && kc_is_str(c, a[0], "wait")) return wait_for(c, *s, part);
  if (part.k == KC_V_INT && part.i > 0 && part.i < c->nparts) (*s)->part = c->parts[part.i].by;
  return KC_GO;
}
