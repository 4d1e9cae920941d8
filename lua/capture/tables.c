/* Models of Lua's table library. Sorting: where the order is known while capturing; which of two equals comes
 * first Lua does not say, so a list with equals that can be told apart is refused. */
#include "lua/capture/growing.h"
#include "lua/capture/models.h"
#include "lua/capture/text.h"
#include <string.h>

static kc_val text(kc_cap *c, const char *s) { return kc_string(c, s, strlen(s)); }

/* A table that works raw, where no metamethod could tell. */
static kc_res need_list(kc_cap *c, kc_state *s, kc_val f, kc_val t) {
  KC_TRY(kc_need_table(c, f, t));
  static const char *const odd[] = {"__index", "__newindex", "__len"};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    kc_val h;
    KC_TRY(kc_metafield(c, s, t, odd[i], &h));
    if (h.k != KC_V_NIL)
      return kc_fail(c, "'%s' on a table with %s cannot be captured", kc_name_of(c, f), odd[i]);
  }
  return KC_GO;
}

kc_res kc_m_insert(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  out->n = 0;
  KC_TRY(need_list(c, *s, f, ARG(0)));
  if (n != 2 && n != 3) return kc_complain(c, "wrong number of arguments to 'insert'");
  kc_val t = a[0], v;
  int64_t len, pos;
  if (n == 2 && kc_list_of(*s, t.id)) return kc_list_append(c, *s, t.id, a[1]);
  KC_TRY(kc_border(c, *s, t.id, &len));
  pos = len + 1;
  if (n == 3) {
    KC_TRY(kc_known_int(c, f, a[1], 2, &pos));
    if (pos < 1 || pos > len + 1)
      return kc_complain(c, "bad argument #2 to 'insert' (position out of bounds)");
  }
  for (int64_t i = len + 1; i > pos; i--) {
    KC_TRY(kc_raw_get(c, *s, t.id, kc_int(i - 1), &v));
    KC_TRY(kc_raw_set(c, *s, t.id, kc_int(i), v));
  }
  return kc_raw_set(c, *s, t.id, kc_int(pos), a[n - 1]);
}

kc_res kc_m_remove(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  KC_TRY(need_list(c, *s, f, ARG(0)));
  kc_val t = a[0], taken, v;
  int64_t len, pos;
  KC_TRY(kc_border(c, *s, t.id, &len));
  pos = len;
  if (n > 1) {
    KC_TRY(kc_known_int(c, f, a[1], 2, &pos));
    if ((uint64_t)pos - 1 > (uint64_t)len && !(len == 0 && pos == 0))
      return kc_complain(c, "bad argument #2 to 'remove' (position out of bounds)");
  }
  KC_TRY(kc_raw_get(c, *s, t.id, kc_int(pos), &taken));
  for (; pos < len; pos++) {
    KC_TRY(kc_raw_get(c, *s, t.id, kc_int(pos + 1), &v));
    KC_TRY(kc_raw_set(c, *s, t.id, kc_int(pos), v));
  }
  kc_val last;
  KC_TRY(kc_raw_get(c, *s, t.id, kc_int(pos), &last));
  if (last.k != KC_V_NIL) KC_TRY(kc_raw_set(c, *s, t.id, kc_int(pos), KC_NILV));
  return kc_give1(c, out, taken);
}

kc_res kc_m_unpack(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  int64_t i = 1, e;
  kc_val len;
  if (ARG(1).k != KC_V_NIL) KC_TRY(kc_known_int(c, f, ARG(1), 2, &i));
  if (ARG(2).k != KC_V_NIL)
    KC_TRY(kc_known_int(c, f, ARG(2), 3, &e));
  else {
    KC_TRY(kc_length(c, s, ARG(0), &len));
    KC_TRY(kc_known_int(c, f, len, 3, &e));
  }
  if (i > e) return kc_give(c, out, 0, KC_NILV, KC_NILV, KC_NILV);
  if ((uint64_t)e - (uint64_t)i >= 240) return kc_complain(c, "too many results to unpack");
  int count = (int)(e - i + 1);
  kc_val *v = kc_vals(c, count);
  for (int k = 0; k < count; k++) KC_TRY(kc_index(c, s, ARG(0), kc_int(i + k), &v[k]));
  return kc_give_all(c, *s, out, v, count);
}

kc_res kc_m_move(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  kc_val to = n > 4 && a[4].k != KC_V_NIL ? a[4] : ARG(0), v;
  int64_t from, end, at;
  KC_TRY(kc_need_table(c, f, ARG(0)));
  KC_TRY(kc_known_int(c, f, ARG(1), 2, &from));
  KC_TRY(kc_known_int(c, f, ARG(2), 3, &end));
  KC_TRY(kc_known_int(c, f, ARG(3), 4, &at));
  KC_TRY(kc_need_table(c, f, to));
  if (end < from) return kc_give1(c, out, to);
  if ((uint64_t)end - (uint64_t)from >= 1000000 || at > INT64_MAX - (end - from))
    return kc_complain(c, "bad argument #3 to 'move' (too many elements to move)");
  bool up = at > from && at <= end && kc_same(to, a[0]); /* what is not read yet is not written */
  for (int64_t k = 0; k <= end - from; k++) {
    int64_t i = up ? end - from - k : k;
    KC_TRY(kc_index(c, s, a[0], kc_int(from + i), &v));
    KC_TRY(kc_set_index(c, s, to, kc_int(at + i), v));
  }
  return kc_give1(c, out, kc_resolve(c, *s, to));
}

kc_res kc_m_pack(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  uint32_t id = kc_table_new(c, *s);
  kc_table *t = kc_table_write(c, *s, id);
  for (int i = 0; i < n; i++) kc_table_put(c, t, kc_int(i + 1), a[i]);
  kc_table_put(c, t, text(c, "n"), kc_int(n));
  return kc_give1(c, out, kc_ref(KC_V_TABLE, id));
}

kc_res kc_m_concat(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  KC_TRY(need_list(c, *s, f, ARG(0)));
  int64_t i = 1, e;
  KC_TRY(kc_border(c, *s, a[0].id, &e));
  if (ARG(2).k != KC_V_NIL) KC_TRY(kc_known_int(c, f, ARG(2), 3, &i));
  if (ARG(3).k != KC_V_NIL) KC_TRY(kc_known_int(c, f, ARG(3), 4, &e));
  kc_val all = text(c, ""), v, pair[3];
  for (int64_t k = i; k <= e; k++) {
    KC_TRY(kc_raw_get(c, *s, a[0].id, kc_int(k), &v));
    if (!kc_is_text(v) && v.k != KC_V_UNION)
      return v.k == KC_V_POISON ? kc_fail(c, "table.concat of a %s", kc_kind_name(v))
                                : kc_complain(c, "invalid value (%s) at index %lld in table for 'concat'",
                                              kc_type_name(v), (long long)k);
    pair[0] = all, pair[1] = k > i && ARG(1).k != KC_V_NIL ? ARG(1) : text(c, ""), pair[2] = v;
    KC_TRY(kc_concat(c, s, pair, 3, &all));
  }
  return kc_give1(c, out, all);
}

/* ---- sort ---- */

typedef struct sorting {
  kc_state **s;
  kc_val less; /* the caller's function, or nil */
} sorting;

/* Strings and numbers in their own order, as `<` has it. */
static kc_res plain_before(kc_cap *c, kc_val a, kc_val b, bool *out) {
  bool numbers = kc_is_number(a) && kc_is_number(b), strings = a.k == KC_V_STRING && b.k == KC_V_STRING;
  if (!numbers && !strings) {
    if (a.k == KC_V_TABLE || a.k == KC_V_UNION || a.k == KC_V_POISON || kc_is_tensor(a) || kc_is_tensor(b))
      return kc_fail(c, "table.sort of %ss without a function that compares them cannot be captured",
                     kc_kind_name(kc_is_tensor(b) ? b : a));
    const char *x = kc_type_name(a), *y = kc_type_name(b);
    return strcmp(x, y) ? kc_complain(c, "attempt to compare %s with %s", x, y)
                        : kc_complain(c, "attempt to compare two %s values", x);
  }
  kc_push(c, a);
  kc_push(c, b);
  *out = lua_compare(c->L, -2, -1, LUA_OPLT);
  lua_pop(c->L, 2);
  return KC_GO;
}

static kc_res before(kc_cap *c, const sorting *x, kc_val a, kc_val b, bool *out) {
  kc_val v, truth;
  if (x->less.k == KC_V_NIL) return plain_before(c, a, b, out);
  KC_TRY(kc_call1(c, x->s, x->less, (kc_val[]){a, b}, 2, &v));
  KC_TRY(kc_truth(c, *x->s, v, &truth));
  KC_TRY(kc_burn(c, a));
  KC_TRY(kc_burn(c, b));
  if (truth.k != KC_V_BOOL)
    return kc_fail(c, "the order of this table depends on tensor data; stack its values and use kiln.sort");
  *out = truth.i;
  return KC_GO;
}

/* v to where it belongs among the n sorted ones before it, behind its equals. */
static kc_res insert(kc_cap *c, const sorting *x, kc_val *list, int64_t n, kc_val v) {
  int64_t low = 0, high = n;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    bool first;
    KC_TRY(before(c, x, v, list[middle], &first));
    *(first ? &high : &low) = first ? middle : middle + 1;
  }
  memmove(list + low + 1, list + low, (size_t)(n - low) * sizeof *list);
  list[low] = v;
  return KC_GO;
}

static kc_res check_equals(kc_cap *c, const sorting *x, const kc_val *list, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    bool first;
    if (kc_same(list[i - 1], list[i])) continue;
    KC_TRY(before(c, x, list[i - 1], list[i], &first));
    if (!first)
      return kc_fail(c,
                     "table.sort of a table in which two values are neither less nor more than each other; "
                     "Lua does not say which comes first");
  }
  return KC_GO;
}

static kc_res known(kc_cap *c, kc_val v) {
  if (v.k == KC_V_SYM && v.v->type.kind != KN_V_TENSOR) {
    KC_TRY(kc_burn(c, v));
    return kc_fail(c, "table.sort of a %s; stack the values and use kiln.sort", kc_kind_name(v));
  }
  return kc_settle_text(c, v);
}

kc_res kc_m_sort(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  sorting x = {s, n > 1 ? a[1] : KC_NILV};
  int64_t count;
  *out = (kc_values){0};
  KC_TRY(need_list(c, *s, f, n ? a[0] : KC_NILV));
  KC_TRY(kc_border(c, *s, a[0].id, &count));
  if (count > 1000000) return kc_fail(c, "table.sort of %lld values", (long long)count);
  if (count > 1 && x.less.k != KC_V_NIL && x.less.k != KC_V_CLOSURE && x.less.k != KC_V_CFUNCTION)
    return kc_complain(c, "bad argument #2 to 'sort' (function expected, got %s)", kc_type_name(x.less));
  kc_val *list = kc_new(c, ((size_t)count + 1) * sizeof *list), v;
  for (int64_t i = 0; i < count; i++) {
    KC_TRY(kc_raw_get(c, *s, a[0].id, kc_int(i + 1), &v));
    if (x.less.k == KC_V_NIL) KC_TRY(known(c, v));
    KC_TRY(insert(c, &x, list, i, v));
  }
  KC_TRY(check_equals(c, &x, list, count));
  for (int64_t i = 0; i < count; i++) {
    KC_TRY(kc_raw_get(c, *s, a[0].id, kc_int(i + 1), &v));
    if (!kc_same(v, list[i])) KC_TRY(kc_raw_set(c, *s, a[0].id, kc_int(i + 1), list[i]));
  }
  return KC_GO;
}
