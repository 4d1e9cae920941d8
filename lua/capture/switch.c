/* Tables indexed by a number that only the graph knows: the integer keys are known, so the number is compared
 * with them, halving their range, and each case does what it would do with a known key. Joins make one value
 * of what the cases give; a number that is no key gives nil. Longer lists belong into a tensor. See interp.h.
 */
#include "lua/capture/growing.h"
#include "lua/capture/protect.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 64 };

typedef struct switching {
  uint32_t table;
  kc_val k;     /* SYM: integer, float or either */
  int64_t *key; /* ascending */
  uint32_t n;
  bool dense; /* without gaps, and k is an integer: it need not be compared in the end */
  bool simple;
  const kc_val *set; /* what is put there; NULL: the field is read */
} switching;

typedef struct range {
  const switching *x;
  uint32_t first, n; /* n 0: no key */
} range;

typedef kc_res (*case_fn)(kc_cap *c, kc_state **s, const range *r, kc_values *out);

/* ---- one way or another ---- */

typedef struct sides {
  case_fn fn;
  const range *yes, *no;
} sides;

static kc_res side(kc_cap *c, kc_state **s, bool yes, void *ud, kc_values *out) {
  const sides *x = ud;
  return x->fn(c, s, yes ? x->yes : x->no, out);
}

static kc_res either(kc_cap *c, kc_state **s, kc_val cond, case_fn fn, const range *yes, const range *no,
                     kc_values *out) {
  sides x = {fn, yes, no};
  cond = kc_resolve(c, *s, cond);
  return cond.k == KC_V_BOOL ? side(c, s, cond.i, &x, out) : kc_either(c, s, cond.v, side, &x, out);
}

/* ---- keys ---- */

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* False: it has keys that cannot be told apart here, or too many. */
static kc_res find_keys(kc_cap *c, kc_state *s, switching *x, bool *fine) {
  kn_vkind kind;
  kc_val k = KC_NILV, v;
  x->key = kc_new(c, MAX_KEYS * sizeof *x->key);
  x->simple = true;
  *fine = true;
  for (;;) {
    KC_TRY(kc_next(c, s, x->table, k, &k, &v));
    if (k.k == KC_V_NIL) break;
    if (k.k == KC_V_FLOAT || (k.k == KC_V_INT && x->n == MAX_KEYS)) *fine = false;
    if (k.k != KC_V_INT || !*fine) continue;
    x->key[x->n++] = k.i;
    x->simple &= kc_scalar_kind(v, &kind) || kc_is_tensor(v) || v.k == KC_V_STRING;
  }
  qsort(x->key, x->n, sizeof *x->key, ascending);
  x->dense = x->n && x->key[x->n - 1] - x->key[0] == (int64_t)x->n - 1 && x->k.v->type.kind == KN_V_INT;
  return KC_GO;
}

/* ---- cases ---- */

static kc_res at_key(kc_cap *c, kc_state **s, const range *r, kc_values *out) {
  kc_val key = kc_int(r->n ? r->x->key[r->first] : 0), v = KC_NILV;
  if (r->x->set) return out->n = 0, kc_raw_set(c, *s, r->x->table, key, *r->x->set);
  if (r->n) KC_TRY(kc_raw_get(c, *s, r->x->table, key, &v));
  return kc_one(c, v, out);
}

/* The key is in this range, or none. */
static kc_res among(kc_cap *c, kc_state **s, const range *r, kc_values *out) {
  const switching *x = r->x;
  if (r->n <= 1) {
    if (x->dense || x->set || !r->n) return at_key(c, s, r, out);
    kc_val is = kc_sym(kc_emit(c, KN_NODE_lua_eq, 2, x->k, kc_int(x->key[r->first]), KC_NILV));
    return either(c, s, is, at_key, r, &(range){.x = x}, out);
  }
  range low = {x, r->first, r->n / 2}, high = {x, r->first + r->n / 2, r->n - r->n / 2};
  kc_val less = kc_sym(kc_emit(c, KN_NODE_lua_lt, 2, x->k, kc_int(x->key[high.first]), KC_NILV));
  return either(c, s, less, among, &low, &high, out);
}

static kc_val within(kc_cap *c, const switching *x) {
  kc_val low = kc_sym(kc_emit(c, KN_NODE_lua_le, 2, kc_int(x->key[0]), x->k, KC_NILV));
  kc_val high = kc_sym(kc_emit(c, KN_NODE_lua_le, 2, x->k, kc_int(x->key[x->n - 1]), KC_NILV));
  return kc_sym(kc_emit(c, KN_NODE_select, 3, low, high, kc_bool(false)));
}

/* ---- the two uses ---- */

static kc_res refuse(kc_cap *c, kc_val k, const char *what) {
  return kc_fail(
      c,
      "a table %s by a %s; keep the values in one tensor (kiln.stack) and index that, or compare the "
      "index with each case",
      what, kc_kind_name(k));
}

kc_res kc_index_by_data(kc_cap *c, kc_state **s, uint32_t table, kc_val k, kc_val *out) {
  switching x = {.table = table, .k = k};
  kc_values made = {0};
  bool fine;
  if (kc_list_of(*s, table)) return kc_list_read(c, *s, table, k, out);
  KC_TRY(find_keys(c, *s, &x, &fine));
  if (!fine || !x.simple || !x.n) KC_TRY(kc_burn(c, k));
  if (!fine) return refuse(c, k, "of many keys is indexed");
  if (!x.n)
    *out = KC_NILV;
  else {
    range all = {&x, 0, x.n}, none = {.x = &x};
    KC_TRY(x.dense ? either(c, s, within(c, &x), among, &all, &none, &made) : among(c, s, &all, &made));
    *out = made.v[0];
  }
  return KC_GO;
}

/* Where the key is not there, a graph cannot follow the program: that is an error when it runs. */
kc_res kc_set_by_data(kc_cap *c, kc_state **s, uint32_t table, kc_val k, kc_val v) {
  switching x = {.table = table, .k = k, .set = &v};
  kc_values none = {0};
  bool fine;
  char pos[200];
  if (kc_list_of(*s, table)) return kc_list_set(c, *s, table, k, v);
  KC_TRY(find_keys(c, *s, &x, &fine));
  if (!fine || !x.simple || !x.n || !x.dense) {
    KC_TRY(kc_burn(c, k));
    return refuse(c, k, x.n && fine ? "whose keys are no list of integers 1, 2, 3 … is set" : "is set");
  }
  KC_TRY(kc_may_raise(c));
  kc_position(c, pos, sizeof pos);
  kn_value *inside = kc_value(c, within(c, &x));
  kn_add_raise(&c->b, KN_NODE_assert, inside,
               kc_format(c, "%s%sa list of %u is set where it has no element, which a graph cannot do", pos,
                         *pos ? ": " : "", x.n));
  kc_add_fact(c, *s, inside, true);
  return among(c, s, &(range){&x, 0, x.n}, &none);
}
