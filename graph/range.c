/* See range.h. Intervals, computed from what values are made of; a parameter of a loop is understood where
 * each trip adds the same number to it, and the loop ends by a count. */
#include "graph/range.h"
#include "graph/when.h"

enum { MOST_LOOKS = 512, MOST_DEPTH = 24 };
static const kn_range all = {INT64_MIN, INT64_MAX};

typedef struct search {
  const kn_plan *p;
  int looks, depth;
} search;

static bool is_all(kn_range r) { return r.low == INT64_MIN || r.high == INT64_MAX; }
static bool is_one(kn_range r) { return r.low == r.high; }
static kn_range one(int64_t i) { return (kn_range){i, i}; }
static kn_range boolean(bool may_fail, bool may_hold) { return (kn_range){!may_fail, may_hold}; }

static kn_range either(kn_range a, kn_range b) {
  return (kn_range){a.low < b.low ? a.low : b.low, a.high > b.high ? a.high : b.high};
}

static kn_range look(search *s, const kn_value *v);

/* ---- arithmetic ---- */

static kn_range sum(kn_range a, kn_range b) {
  kn_range r;
  bool wraps = is_all(a) || is_all(b) || __builtin_add_overflow(a.low, b.low, &r.low) ||
               __builtin_add_overflow(a.high, b.high, &r.high);
  return wraps ? all : r;
}

static kn_range negative(kn_range a) { return is_all(a) ? all : (kn_range){-a.high, -a.low}; }

static kn_range product(kn_range a, kn_range b) {
  const int64_t x[2] = {a.low, a.high}, y[2] = {b.low, b.high};
  kn_range r = {INT64_MAX, INT64_MIN};
  if (is_all(a) || is_all(b)) return all;
  for (int i = 0; i < 4; i++) {
    int64_t xy;
    if (__builtin_mul_overflow(x[i / 2], y[i % 2], &xy)) return all;
    r = either(r, one(xy));
  }
  return r;
}

static kn_range absolute(kn_range a) {
  if (is_all(a) || a.low >= 0) return a;
  const kn_range n = negative(a);
  return a.high <= 0 ? n : (kn_range){0, a.high > n.high ? a.high : n.high};
}

static kn_range remainder_of(kn_range a, kn_range b) {
  if (!is_one(b) || b.low <= 0) return all;
  return !is_all(a) && a.low >= 0 && a.high < b.low ? a : (kn_range){0, b.low - 1};
}

static kn_range compared(kn_opcode op, kn_range a, kn_range b) {
  if (is_all(a) || is_all(b)) return boolean(true, true);
  switch ((int)op) {
  case KN_NODE_lua_lt: return boolean(a.high >= b.low, a.low < b.high);
  case KN_NODE_lua_le: return boolean(a.high > b.low, a.low <= b.high);
  default: return boolean(!is_one(a) || !is_one(b) || a.low != b.low, a.low <= b.high && b.low <= a.high);
  }
}

/* ---- loops ---- */

/* Of a value that each trip adds the same to: the parameter, its number, what it begins with. */
typedef struct course {
  const kn_node *loop;
  kn_range first;
  int64_t step;
} course;

static bool only_one(void *ud, const kn_value *v) {
  const kn_value **one = ud;
  const bool another = *one && *one != v;
  *one = v;
  return another;
}

/* What parameter i becomes in a trip that goes on, where that is one value. */
static const kn_value *next_of(const kn_region *loop, uint32_t i) {
  const kn_value *v = NULL, *next = loop->yields[1 + i];
  return kn_any_when(next, loop->yields[0], true, only_one, &v) || !v ? next : v;
}

/* Is `next` what a parameter becomes, and that plus a number? Values of the trip that goes on. */
static bool runs_on(search *s, const kn_value *next, course *c) {
  const kn_node *d = next->def;
  if (!d || (d->op != KN_NODE_lua_add && d->op != KN_NODE_lua_sub)) return false;
  const kn_value *param = d->in[0];
  const kn_region *r = param->region;
  if (param->def || !r->owner || r->owner->op != KN_NODE_loop || next_of(r, param->index) != next)
    return false;
  const kn_range by = look(s, d->in[1]);
  if (!is_one(by) || is_all(by)) return false;
  *c = (course){r->owner, look(s, r->owner->in[param->index]), d->op == KN_NODE_lua_add ? by.low : -by.low};
  return !is_all(c->first);
}

/* How often it may go on where what runs on is at most `last` then, or at least, when it goes down. */
static int64_t trips_to(const course *c, int64_t last) {
  enum { MOST = INT32_MAX }; /* so that nothing wraps before it ends */
  const int64_t ends[] = {last, c->first.low, c->first.high};
  for (int i = 0; i < 3; i++)
    if (ends[i] > INT64_MAX / 4 || ends[i] < INT64_MIN / 4) return INT64_MAX;
  if (!c->step || c->step > MOST || c->step < -MOST) return INT64_MAX;
  const int64_t way = c->step > 0 ? last - c->first.low : c->first.high - last;
  return way < 0 ? 0 : way / (c->step > 0 ? c->step : -c->step);
}

static int64_t trips_compared(search *s, const kn_node *loop, const kn_node *d, bool truth) {
  const bool strict = (d->op == KN_NODE_lua_lt) == truth;
  for (int up = 0; up < 2; up++) { /* what stays below the other, or above it */
    course c;
    const kn_value *x = d->in[truth ? !up : up], *limit = d->in[truth ? up : !up];
    if (!runs_on(s, x, &c) || c.loop != loop || (c.step > 0) != up) continue;
    const kn_range to = look(s, limit);
    if (!is_all(to)) return trips_to(&c, up ? to.high - strict : to.low + strict);
  }
  return INT64_MAX;
}

/* Until a count, which goes down by one, is nothing. */
static int64_t trips_counted(search *s, const kn_node *loop, const kn_node *d) {
  const kn_value *param = d->in[0];
  course c;
  if (param->def || param->region->owner != loop) return INT64_MAX;
  const kn_range zero = look(s, d->in[1]);
  if (zero.low || zero.high || !runs_on(s, next_of(param->region, param->index), &c)) return INT64_MAX;
  return c.step == -1 && c.first.low >= 0 ? c.first.high : INT64_MAX;
}

static int64_t most_trips_while(search *s, const kn_node *loop, const kn_value *flag, bool truth);

/* While the number is k, or is not: by the branches that may have given it. */
static int64_t trips_by_number(search *s, const kn_node *loop, const kn_value *v, int64_t k, bool equal) {
  const kn_node *d = v->def;
  int64_t most = 0;
  if (!d || (d->op != KN_NODE_if && d->op != KN_NODE_select) || --s->looks < 0) return INT64_MAX;
  for (int side = 0; side < 2; side++) {
    const kn_region *r = d->regions[side];
    if (d->op == KN_NODE_if && v->index >= r->nyields) return INT64_MAX;
    const kn_value *from = d->op == KN_NODE_if ? r->yields[v->index] : d->in[1 + side];
    const kn_range range = look(s, from);
    if (equal ? k < range.low || k > range.high : is_one(range) && range.low == k) continue;
    int64_t trips = most_trips_while(s, loop, d->in[0], !side);
    if (trips == INT64_MAX) trips = trips_by_number(s, loop, from, k, equal);
    if (trips > most) most = trips;
  }
  return most;
}

/* The most trips that there are while the flag is so. */
static int64_t most_trips_while(search *s, const kn_node *loop, const kn_value *flag, bool truth) {
  const kn_node *d = flag->def;
  if (!d || --s->looks < 0) return INT64_MAX;
  const kn_value *side[2] = {NULL, NULL};
  switch ((int)d->op) {
  case KN_NODE_lua_not: return most_trips_while(s, loop, d->in[0], !truth);
  case KN_NODE_lua_lt:
  case KN_NODE_lua_le: return trips_compared(s, loop, d, truth);
  case KN_NODE_lua_eq: {
    const kn_range k = look(s, d->in[1]);
    const int64_t trips = truth ? INT64_MAX : trips_counted(s, loop, d);
    return trips < INT64_MAX || !is_one(k) ? trips : trips_by_number(s, loop, d->in[0], k.low, truth);
  }
  case KN_NODE_select: side[0] = d->in[1], side[1] = d->in[2]; break;
  case KN_NODE_if:
    for (int k = 0; k < 2; k++)
      if (flag->index < d->regions[k]->nyields) side[k] = d->regions[k]->yields[flag->index];
    break;
  default: break;
  }
  for (int k = 0; k < 2 && side[0] && side[1]; k++) { /* where it cannot be so by one, it is by the other */
    const kn_range r = look(s, side[k]);
    if (is_one(r) && r.low != truth) return most_trips_while(s, loop, side[!k], truth);
  }
  return INT64_MAX;
}

static kn_range parameter(search *s, const kn_value *v) {
  const kn_region *r = v->region;
  const kn_value *next;
  course c;
  int64_t way, far;
  if (!r->owner || r->owner->op != KN_NODE_loop) return all;
  const kn_range first = look(s, r->owner->in[v->index]);
  if ((next = next_of(r, v->index)) == v || is_all(first)) return first;
  if (!runs_on(s, next, &c) || c.loop != r->owner) return all;
  const int64_t most = most_trips_while(s, r->owner, r->yields[0], true);
  if (most == 0) return first;
  if (most == INT64_MAX || __builtin_mul_overflow(c.step, most, &way)) return all;
  if (__builtin_add_overflow(way > 0 ? c.first.high : c.first.low, way, &far)) return all;
  const kn_range later = c.step > 0 ? (kn_range){c.first.low, far} : (kn_range){far, c.first.high};
  return either(first, later);
}

/* ---- values ---- */

static kn_range chosen(search *s, kn_range by, const kn_value *a, const kn_value *b) {
  if (is_one(by)) return look(s, by.low ? a : b);
  const kn_range r = look(s, a);
  return is_all(r) ? all : either(r, look(s, b));
}

static kn_range from_branch(search *s, const kn_value *v, const kn_node *d) {
  const kn_region *a = d->regions[0], *b = d->regions[1];
  if (v->index >= a->nyields || v->index >= b->nyields) return all;
  return chosen(s, look(s, d->in[0]), a->yields[v->index], b->yields[v->index]);
}

static kn_range made(search *s, const kn_value *v, const kn_node *d) {
  switch ((int)d->op) {
  case KN_NODE_lua_add: return sum(look(s, d->in[0]), look(s, d->in[1]));
  case KN_NODE_lua_sub: return sum(look(s, d->in[0]), negative(look(s, d->in[1])));
  case KN_NODE_lua_mul: return product(look(s, d->in[0]), look(s, d->in[1]));
  case KN_NODE_lua_mod: return remainder_of(look(s, d->in[0]), look(s, d->in[1]));
  case KN_NODE_lua_unm: return negative(look(s, d->in[0]));
  case KN_NODE_lua_abs: return absolute(look(s, d->in[0]));
  case KN_NODE_lua_lt:
  case KN_NODE_lua_le:
  case KN_NODE_lua_eq: return compared(d->op, look(s, d->in[0]), look(s, d->in[1]));
  case KN_NODE_lua_not: {
    const kn_range r = look(s, d->in[0]);
    return is_one(r) ? one(!r.low) : boolean(true, true);
  }
  case KN_NODE_select: return chosen(s, look(s, d->in[0]), d->in[1], d->in[2]);
  case KN_NODE_if: return from_branch(s, v, d);
  case KN_NODE_loop: return look(s, d->regions[0]->yields[1 + d->regions[0]->nparams + v->index]);
  default: return all;
  }
}

static kn_range look(search *s, const kn_value *v) {
  const bool number = v->type.kind == KN_V_INT, flag = v->type.kind == KN_V_BOOL;
  if (s->p->known[v->id]) {
    const kn_scalar *x = &s->p->scalars[v->id];
    if (x->kind == KN_SCALAR_INT) return one(x->as.i);
    return x->kind == KN_SCALAR_BOOL ? one(x->as.b) : all;
  }
  if ((!number && !flag) || --s->looks < 0 || s->depth == MOST_DEPTH) return all;
  s->depth++;
  kn_range r = v->def ? made(s, v, v->def) : parameter(s, v);
  s->depth--;
  if (flag && is_all(r)) r = boolean(true, true);
  return r;
}

kn_range kn_range_of(const kn_plan *p, const kn_value *v) {
  search s = {.p = p, .looks = MOST_LOOKS};
  return look(&s, v);
}

int64_t kn_range_trips(const kn_plan *p, const kn_node *loop) {
  search s = {.p = p, .looks = MOST_LOOKS};
  return most_trips_while(&s, loop, loop->regions[0]->yields[0], true);
}
