/* What a value may be when a flag is known: see when.h. Understood are the results of an `if` whose condition
 * the flag is, or of which another result is a number that the flag compares with a constant, through
 * branches in branches. */
#include "graph/when.h"

static bool whole_number(const kn_value *v, int64_t *out) {
  const kn_node *d = v->def;
  if (!d || d->op != KN_NODE_const || d->scalar.kind != KN_SCALAR_INT) return false;
  *out = d->scalar.as.i;
  return true;
}

/* Can the number be `k`, or not be `k`, as `equal` says? */
static bool may_be(const kn_value *number, int64_t k, bool equal) {
  int64_t n, other;
  const kn_node *d = number->def;
  if (whole_number(number, &n)) return (n == k) == equal;
  if (d && d->op == KN_NODE_select && whole_number(d->in[1], &n) && whole_number(d->in[2], &other))
    return (n == k) == equal || (other == k) == equal;
  return true;
}

/* v when the number is k, or is not. */
static bool any_by_number(const kn_value *v, const kn_value *number, int64_t k, bool equal, kn_when_fn fn,
                          void *ud) {
  const kn_node *d = v->def;
  if (!d || d->op != KN_NODE_if || number->def != d) return fn(ud, v);
  for (int side = 0; side < 2; side++) {
    const kn_region *r = d->regions[side];
    const uint32_t i = v->index, j = number->index;
    if (i >= r->nyields || j >= r->nyields) return fn(ud, v);
    if (may_be(r->yields[j], k, equal) && any_by_number(r->yields[i], r->yields[j], k, equal, fn, ud))
      return true;
  }
  return false;
}

bool kn_any_when(const kn_value *v, const kn_value *flag, bool truth, kn_when_fn fn, void *ud) {
  const kn_node *d = v->def, *by = flag->def;
  int64_t k;
  while (by && by->op == KN_NODE_lua_not) {
    flag = by->in[0];
    by = flag->def;
    truth = !truth;
  }
  if (d && d->op == KN_NODE_if && d->in[0] == flag && v->index < d->regions[!truth]->nyields)
    return fn(ud, d->regions[!truth]->yields[v->index]);
  if (by && by->op == KN_NODE_lua_eq && whole_number(by->in[1], &k))
    return any_by_number(v, by->in[0], k, truth, fn, ud);
  return fn(ud, v);
}
