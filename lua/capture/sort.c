/* table.sort on a list whose length and order are known while capturing. Which of two equals comes first Lua
 * does not say, so a list with equals that can be told apart is refused. */
#include "lua/capture/heap.h"
#include "lua/capture/interp.h"
#include "lua/capture/text.h"
#include <string.h>

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
  KC_TRY(kc_need_list(c, *s, f, n ? a[0] : KC_NILV));
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
