/* One Lua value to one attribute, and the positional ones in order: see args.h. Uses only calls of Lua's API
 * that cannot raise, so tensors may be held meanwhile. */
#include "bindings/lua/args.h"
#include "core/device.h"
#include <stdio.h>
#include <string.h>

/* ---- single values ---- */

kn_status kl_args_wrong(kn_context *ctx, const char *name, const char *what, const char *wanted, lua_State *L,
                        int idx) {
  return kn_fail(ctx, KN_ARG, "%s: %s must be %s, got %s", name, what, wanted, kl_kind(L, idx));
}

static kn_status read_symbol(kn_context *ctx, const kn_scalar *s, const char *name, const char *what,
                             kl_rule rule, int64_t *out) {
  kn_recorder *rec = kn_recorder_of(ctx);
  kn_scalar_kind kind;
  kn_scalar at = *s;
  if (!rec)
    return kn_fail(ctx, KN_STATE, "%s: %s is known only in a graph, and none is being recorded", name, what);
  if (!kl_scalar_kind(s, &kind))
    return kn_fail(ctx, KN_ARG, "%s: %s must be an integer, and this number is not known to be one", name,
                   what);
  if (kind != KN_SCALAR_INT) return kn_fail(ctx, KN_ARG, "%s: %s must be an integer", name, what);
  if (rule != KL_PLAIN) {
    if (!rec->position) return kn_fail(ctx, KN_ARG, "%s: %s must be a known integer here", name, what);
    char said[120];
    snprintf(said, sizeof said, "%s: %s", name, what);
    KN_TRY(rec->position(rec, ctx, said, s, rule == KL_LAST, &at));
  }
  return rec->dynamic(rec, ctx, &at, out);
}

kn_status kl_read_int(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
                      kl_rule rule, bool dynamic, int64_t *out) {
  kn_scalar s;
  int whole = 0;
  lua_Integer v = 0;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    v = lua_tointegerx(L, idx, &whole);
  } else if (kl_test_scalar(L, idx, &s) && s.kind == KN_SCALAR_SYMBOL) {
    if (dynamic) return read_symbol(ctx, &s, name, what, rule, out);
    return kn_fail(ctx, KN_ARG, "%s: %s must be a known integer: it is part of the graph's structure", name,
                   what);
  }
  if (!whole) return kl_args_wrong(ctx, name, what, "an integer", L, idx);
  if (v <= KN_REQUIRED) return kn_fail(ctx, KN_ARG, "%s: %s is out of range", name, what);
  if (rule != KL_PLAIN && v == 0)
    return kn_fail(ctx, KN_INDEX, "%s: %s is 0, but counting starts at 1 (-1 is the last)", name, what);
  if (rule == KL_POSITION && v > 0) v--;
  if (rule == KL_LAST && v < 0) v = v == -1 ? KN_TO_END : v + 1;
  *out = v;
  return KN_OK;
}

kn_status kl_read_number(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
                         double *out) {
  kn_scalar s;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    *out = lua_tonumber(L, idx);
    return KN_OK;
  }
  if (lua_type(L, idx) == LUA_TBOOLEAN) {
    *out = lua_toboolean(L, idx);
    return KN_OK;
  }
  if (kl_test_scalar(L, idx, &s))
    return kn_fail(ctx, KN_ARG, "%s: %s must be a known number: it is part of the graph's structure", name,
                   what);
  return kl_args_wrong(ctx, name, what, "a number", L, idx);
}

/* The same for a field that keeps integers exactly; `free`: it may be known only when the graph runs. */
static kn_status read_exact(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
                            bool free, kn_number *out) {
  double x;
  kn_scalar s;
  kn_scalar_kind kind = KN_SCALAR_INT;
  kn_recorder *rec = kn_recorder_of(ctx);
  if (free && rec && kl_test_scalar(L, idx, &s) && s.kind == KN_SCALAR_SYMBOL &&
      !(kl_scalar_kind(&s, &kind) && kind == KN_SCALAR_BOOL)) {
    int64_t place;
    KN_TRY(rec->dynamic(rec, ctx, &s, &place));
    *out = kn_number_waiting(place);
    return KN_OK;
  }
  if (lua_isinteger(L, idx)) {
    *out = kn_number_of(lua_tointeger(L, idx));
    return KN_OK;
  }
  KN_TRY(kl_read_number(L, ctx, idx, name, what, &x));
  *out = (kn_number){x, 0};
  return KN_OK;
}

kn_status kl_read_dtype(lua_State *L, kn_context *ctx, int idx, const char *name, kn_dtype *out) {
  if (lua_type(L, idx) != LUA_TSTRING) return kl_args_wrong(ctx, name, "dtype", "a string", L, idx);
  if (kn_dtype_parse(lua_tostring(L, idx), out)) return KN_OK;
  char known[128] = "";
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", kn_dtypes[i].name);
  }
  return kn_fail(ctx, KN_DTYPE, "%s: there is no dtype '%s'; there are %s", name, lua_tostring(L, idx),
                 known);
}

kn_status kl_read_device(lua_State *L, kn_context *ctx, int idx, const char *name, kn_device_id *out) {
  if (lua_type(L, idx) != LUA_TSTRING) return kl_args_wrong(ctx, name, "device", "a string", L, idx);
  const char *text = lua_tostring(L, idx);
  kn_device_id d;
  if (!kn_device_parse(text, &d))
    return kn_fail(ctx, KN_ARG, "%s: there is no device '%s'%s", name, text,
                   strncmp(text, "cuda:", 5)
                       ? "; there are \"cpu\" and \"cuda\""
                       : ": one is used at a time, \"cuda\", and kiln.cuda.set_device(n) says which");
  const kn_memory *m;
  kn_status st = kn_device_memory(ctx, d, &m);
  if (st != KN_OK) {
    kn_error_prefix(ctx, "%s", name);
    return st;
  }
  *out = d;
  return KN_OK;
}

/* ---- fields ---- */

static kl_rule rule_of(const kl_args *a, const kn_field *f) {
  if (f->kind == KN_FIELD_INDEX || f->kind == KN_FIELD_AXIS || f->kind == KN_FIELD_AXES) return KL_POSITION;
  return a->row->attrs == KN_ATTRS_slice && !strcmp(f->name, "stop") ? KL_LAST : KL_PLAIN;
}

/* Numbers among the choices of a field, by the names that they have there. */
static const char *number_choice(double x) {
  static const struct {
    double x;
    const char *name;
  } names[] = {{INFINITY, "inf"}, {-INFINITY, "minus_inf"}, {1, "one"}, {-1, "minus_one"},
               {2, "two"},        {-2, "minus_two"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (names[i].x == x) return names[i].name;
  return NULL;
}

static kn_status read_choice(kl_args *a, const kn_field *f, int idx, int32_t *out) {
  char known[128];
  if (!strcmp(f->name, "device")) { /* which may not work here */
    kn_device_id d;
    KN_TRY(kl_read_device(a->L, a->ctx, idx, a->name, &d));
    *out = (int32_t)d;
    return KN_OK;
  }
  if (lua_type(a->L, idx) == LUA_TNUMBER) {
    const char *number = number_choice(lua_tonumber(a->L, idx));
    int choice = number ? kn_field_choice(f, number, strlen(number)) : -1;
    if (choice < 0 && kn_field_choice(f, "inf", 3) >= 0)
      return kn_fail(a->ctx, KN_ARG, "%s: %s must be %s, or the number of that name, not %g", a->name,
                     f->name, kn_field_choices(f, known, sizeof known), lua_tonumber(a->L, idx));
    if (choice >= 0) {
      *out = choice;
      return KN_OK;
    }
  }
  if (lua_type(a->L, idx) != LUA_TSTRING)
    return kl_args_wrong(a->ctx, a->name, f->name, "a string", a->L, idx);
  size_t n;
  const char *name = lua_tolstring(a->L, idx, &n);
  int choice = kn_field_choice(f, name, n);
  if (choice < 0)
    return kn_fail(a->ctx, KN_ARG, "%s: %s must be %s, not '%s'", a->name, f->name,
                   kn_field_choices(f, known, sizeof known), name);
  *out = choice;
  return KN_OK;
}

/* {2, 3, keepdim = true} would lose what is not in the list. */
static kn_status check_plain_list(kl_args *a, const kn_field *f, int idx, size_t n) {
  idx = lua_absindex(a->L, idx);
  if (!lua_checkstack(a->L, 3)) return kn_fail_nomem(a->ctx, 0);
  for (lua_pushnil(a->L); lua_next(a->L, idx); lua_pop(a->L, 1)) {
    if (lua_isinteger(a->L, -2) && lua_tointeger(a->L, -2) >= 1 && (size_t)lua_tointeger(a->L, -2) <= n)
      continue;
    const char *key = lua_type(a->L, -2) == LUA_TSTRING ? lua_tostring(a->L, -2) : kl_kind(a->L, -2);
    kn_status st = kn_fail(a->ctx, KN_ARG,
                           "%s: %s is a list and has the key '%s' too; options go in a table of "
                           "their own",
                           a->name, f->name, key);
    lua_pop(a->L, 2);
    return st;
  }
  return KN_OK;
}

static kn_status read_list(kl_args *a, const kn_field *f, int idx, kn_ints *out) {
  lua_State *L = a->L;
  kl_rule rule = rule_of(a, f);
  bool dynamic = f->kind != KN_FIELD_AXES;
  if (lua_type(L, idx) != LUA_TTABLE) {
    if (lua_type(L, idx) != LUA_TNUMBER && lua_type(L, idx) != LUA_TUSERDATA)
      return kl_args_wrong(a->ctx, a->name, f->name, "an integer or a table of integers", L, idx);
    *out = (kn_ints){.n = 1};
    return kl_read_int(L, a->ctx, idx, a->name, f->name, rule, dynamic, &out->v[0]);
  }
  size_t n = lua_rawlen(L, idx);
  if (n > KN_MAX_RANK)
    return kn_fail(a->ctx, KN_ARG, "%s: %s has %zu entries, more than %d dimensions", a->name, f->name, n,
                   KN_MAX_RANK);
  kn_ints list = {.n = (int32_t)n};
  KN_TRY(check_plain_list(a, f, idx, n));
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i + 1);
    kn_status st = kl_read_int(L, a->ctx, -1, a->name, f->name, rule, dynamic, &list.v[i]);
    lua_pop(L, 1);
    if (st != KN_OK) return st;
  }
  *out = list;
  return KN_OK;
}

static kn_status read_text(kl_args *a, const kn_field *f, int idx, kn_text *out) {
  size_t n;
  if (lua_type(a->L, idx) != LUA_TSTRING)
    return kl_args_wrong(a->ctx, a->name, f->name, "a string", a->L, idx);
  const char *text = lua_tolstring(a->L, idx, &n);
  if (kn_text_set(out, text, n)) return KN_OK;
  return kn_fail(a->ctx, KN_ARG, "%s: %s has more than %d bytes, or a zero byte", a->name, f->name,
                 KN_TEXT_ROOM - 1);
}

static kn_status read_numbers(kl_args *a, const kn_field *f, int idx, kn_numbers *out) {
  if (lua_type(a->L, idx) != LUA_TTABLE)
    return kl_args_wrong(a->ctx, a->name, f->name, "a table of numbers", a->L, idx);
  size_t n = lua_rawlen(a->L, idx);
  if (n > KN_MAX_RANK)
    return kn_fail(a->ctx, KN_ARG, "%s: %s has %zu entries, more than %d", a->name, f->name, n, KN_MAX_RANK);
  KN_TRY(check_plain_list(a, f, idx, n));
  out->n = (int32_t)n;
  kn_status st = KN_OK;
  for (size_t i = 0; i < n && st == KN_OK; i++) {
    lua_rawgeti(a->L, idx, (lua_Integer)i + 1);
    st = kl_read_number(a->L, a->ctx, -1, a->name, f->name, &out->v[i]);
    lua_pop(a->L, 1);
  }
  return st;
}

kn_status kl_args_put(kl_args *a, const kn_field *f, int idx) {
  lua_State *L = a->L;
  void *at = kn_field_at(&a->attrs, f);
  a->given |= 1u << (f - a->info.fields);
  switch (f->kind) {
  case KN_FIELD_INT: return kl_read_int(L, a->ctx, idx, a->name, f->name, rule_of(a, f), true, at);
  case KN_FIELD_INDEX: return kl_read_int(L, a->ctx, idx, a->name, f->name, KL_POSITION, true, at);
  case KN_FIELD_AXIS: return kl_read_int(L, a->ctx, idx, a->name, f->name, KL_POSITION, false, at);
  case KN_FIELD_FLOAT: return kl_read_number(L, a->ctx, idx, a->name, f->name, at);
  case KN_FIELD_NUMBER: return read_exact(L, a->ctx, idx, a->name, f->name, f->free, at);
  case KN_FIELD_BOOL:
    if (lua_type(L, idx) != LUA_TBOOLEAN)
      return kl_args_wrong(a->ctx, a->name, f->name, "true or false", L, idx);
    *(bool *)at = lua_toboolean(L, idx);
    return KN_OK;
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: return read_list(a, f, idx, at);
  case KN_FIELD_DTYPE: return kl_read_dtype(L, a->ctx, idx, a->name, at);
  case KN_FIELD_ENUM: return read_choice(a, f, idx, at);
  case KN_FIELD_TEXT: return read_text(a, f, idx, at);
  case KN_FIELD_NUMBERS: return read_numbers(a, f, idx, at);
  }
  return KN_OK;
}

const kn_field *kl_args_find(const kl_args *a, const char *name) {
  for (const kn_field *f = a->info.fields; f->name; f++)
    if (!strcmp(f->name, name)) return f;
  return NULL;
}

kn_status kl_args_field(kl_args *a, const char *field, int idx) {
  return kl_args_put(a, kl_args_find(a, field), idx);
}

/* May the integers of a list stand side by side, reshape(2, 3)? Not before another number. */
static bool may_spread(const kn_field *f) {
  if (f->kind != KN_FIELD_AXES && f->kind != KN_FIELD_SIZES && f->kind != KN_FIELD_INTS) return false;
  return !f[1].name || f[1].kind == KN_FIELD_BOOL || f[1].kind == KN_FIELD_DTYPE;
}

bool kl_args_integer_like(lua_State *L, int idx) {
  kn_scalar s;
  return lua_type(L, idx) == LUA_TNUMBER || (lua_type(L, idx) == LUA_TUSERDATA && kl_test_scalar(L, idx, &s));
}

static kn_status read_spread(kl_args *a, const kn_field *f) {
  kn_ints list = {.n = 0};
  a->given |= 1u << (f - a->info.fields);
  for (; a->next <= a->top && kl_args_integer_like(a->L, a->next); a->next++) {
    if (list.n == KN_MAX_RANK)
      return kn_fail(a->ctx, KN_ARG, "%s: %s has more than %d entries", a->name, f->name, KN_MAX_RANK);
    KN_TRY(kl_read_int(a->L, a->ctx, a->next, a->name, f->name, rule_of(a, f), f->kind != KN_FIELD_AXES,
                       &list.v[list.n]));
    list.n++;
  }
  *(kn_ints *)kn_field_at(&a->attrs, f) = list;
  return KN_OK;
}

kn_status kl_args_fields(kl_args *a) {
  for (const kn_field *f = a->info.fields; f->name && a->next <= a->top; f++) {
    if (a->given >> (f - a->info.fields) & 1u) continue;
    if (lua_isnil(a->L, a->next))
      a->next++; /* nil: the default */
    else if (may_spread(f) && kl_args_integer_like(a->L, a->next))
      KN_TRY(read_spread(a, f));
    else
      KN_TRY(kl_args_put(a, f, a->next++));
  }
  while (a->next <= a->top && lua_isnil(a->L, a->next)) a->next++;
  if (a->next <= a->top)
    return kn_fail(a->ctx, KN_ARG, "%s: too many arguments: %s was not expected", a->name,
                   kl_kind(a->L, a->next));
  return KN_OK;
}
