/* Lua arguments to op inputs and attributes: see args.h. Driven by the tables of core alone. Uses only calls
 * of Lua's API that cannot raise, so tensors may be held meanwhile. */
#include "bindings/lua/args.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include <stdio.h>
#include <string.h>

/* ---- single values ---- */

static kn_status wrong(kn_context *ctx, const char *name, const char *what, const char *wanted, lua_State *L,
                       int idx) {
  return kn_fail(ctx, KN_ARG, "%s: %s must be %s, got %s", name, what, wanted, kl_kind(L, idx));
}

static kn_status read_symbol(kn_context *ctx, const kn_scalar *s, const char *name, const char *what,
                             kl_rule rule, int64_t *out) {
  kn_recorder *rec = ctx->recorder;
  kn_scalar_kind kind;
  kn_scalar at = *s;
  if (!rec)
    return kn_fail(ctx, KN_STATE, "%s: %s is known only in a graph, and none is being recorded", name, what);
  if (kl_scalar_kind(s, &kind) && kind != KN_SCALAR_INT)
    return kn_fail(ctx, KN_ARG, "%s: %s must be an integer", name, what);
  if (rule != KL_PLAIN) {
    if (!rec->position) return kn_fail(ctx, KN_ARG, "%s: %s must be a known integer here", name, what);
    KN_TRY(rec->position(rec, ctx, s, rule == KL_LAST, &at));
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
  if (!whole) return wrong(ctx, name, what, "an integer", L, idx);
  if (v <= KN_REQUIRED) return kn_fail(ctx, KN_ARG, "%s: %s is out of range", name, what);
  if (rule != KL_PLAIN && v == 0)
    return kn_fail(ctx, KN_INDEX, "%s: %s is 0, but counting starts at 1 (-1 is the last)", name, what);
  if (rule == KL_POSITION && v > 0) v--;
  if (rule == KL_LAST && v < 0) v = v == -1 ? KN_TO_END : v + 1;
  *out = v;
  return KN_OK;
}

static kn_status read_number(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
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
  return wrong(ctx, name, what, "a number", L, idx);
}

/* The same for a field that keeps integers exactly. */
static kn_status read_exact(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
                            kn_number *out) {
  double x;
  if (lua_isinteger(L, idx)) {
    *out = kn_number_of(lua_tointeger(L, idx));
    return KN_OK;
  }
  KN_TRY(read_number(L, ctx, idx, name, what, &x));
  *out = (kn_number){x, 0};
  return KN_OK;
}

kn_status kl_read_dtype(lua_State *L, kn_context *ctx, int idx, const char *name, kn_dtype *out) {
  if (lua_type(L, idx) != LUA_TSTRING) return wrong(ctx, name, "dtype", "a string", L, idx);
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
  if (lua_type(L, idx) != LUA_TSTRING) return wrong(ctx, name, "device", "a string", L, idx);
  const char *text = lua_tostring(L, idx);
  kn_device_id d;
  if (!kn_device_parse(text, &d)) return kn_fail(ctx, KN_ARG, "%s: there is no device '%s'", name, text);
  if (!ctx->providers[d][0])
    return kn_fail(ctx, KN_UNSUPPORTED,
                   "%s: device '%s' cannot be used here: no backend computes on it (kiln.backends() "
                   "says why)",
                   name, text);
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
  if (lua_type(a->L, idx) != LUA_TSTRING) return wrong(a->ctx, a->name, f->name, "a string", a->L, idx);
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
      return wrong(a->ctx, a->name, f->name, "an integer or a table of integers", L, idx);
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

static kn_status read_field(kl_args *a, const kn_field *f, int idx) {
  lua_State *L = a->L;
  void *at = kn_field_at(&a->attrs, f);
  a->given |= 1u << (f - a->info.fields);
  switch (f->kind) {
  case KN_FIELD_INT: return kl_read_int(L, a->ctx, idx, a->name, f->name, rule_of(a, f), true, at);
  case KN_FIELD_INDEX: return kl_read_int(L, a->ctx, idx, a->name, f->name, KL_POSITION, true, at);
  case KN_FIELD_AXIS: return kl_read_int(L, a->ctx, idx, a->name, f->name, KL_POSITION, false, at);
  case KN_FIELD_FLOAT: return read_number(L, a->ctx, idx, a->name, f->name, at);
  case KN_FIELD_NUMBER: return read_exact(L, a->ctx, idx, a->name, f->name, at);
  case KN_FIELD_BOOL:
    if (lua_type(L, idx) != LUA_TBOOLEAN) return wrong(a->ctx, a->name, f->name, "true or false", L, idx);
    *(bool *)at = lua_toboolean(L, idx);
    return KN_OK;
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: return read_list(a, f, idx, at);
  case KN_FIELD_DTYPE: return kl_read_dtype(L, a->ctx, idx, a->name, at);
  case KN_FIELD_ENUM: return read_choice(a, f, idx, at);
  }
  return KN_OK;
}

static const kn_field *find_field(const kl_args *a, const char *name) {
  for (const kn_field *f = a->info.fields; f->name; f++)
    if (!strcmp(f->name, name)) return f;
  return NULL;
}

kn_status kl_args_field(kl_args *a, const char *field, int idx) {
  return read_field(a, find_field(a, field), idx);
}

/* May the integers of a list stand side by side, reshape(2, 3)? Not before another number. */
static bool may_spread(const kn_field *f) {
  if (f->kind != KN_FIELD_AXES && f->kind != KN_FIELD_SIZES && f->kind != KN_FIELD_INTS) return false;
  return !f[1].name || f[1].kind == KN_FIELD_BOOL || f[1].kind == KN_FIELD_DTYPE;
}

static bool integer_like(lua_State *L, int idx) {
  kn_scalar s;
  return lua_type(L, idx) == LUA_TNUMBER || (lua_type(L, idx) == LUA_TUSERDATA && kl_test_scalar(L, idx, &s));
}

static kn_status read_spread(kl_args *a, const kn_field *f) {
  kn_ints list = {.n = 0};
  a->given |= 1u << (f - a->info.fields);
  for (; a->next <= a->top && integer_like(a->L, a->next); a->next++) {
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
    else if (may_spread(f) && integer_like(a->L, a->next))
      KN_TRY(read_spread(a, f));
    else
      KN_TRY(read_field(a, f, a->next++));
  }
  while (a->next <= a->top && lua_isnil(a->L, a->next)) a->next++;
  if (a->next <= a->top)
    return kn_fail(a->ctx, KN_ARG, "%s: too many arguments: %s was not expected", a->name,
                   kl_kind(a->L, a->next));
  return KN_OK;
}

/* ---- the options table ---- */

static kn_status unknown_option(kl_args *a, const char *key) {
  char known[256] = "";
  for (const kn_field *f = a->info.fields; f->name; f++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", f->name);
  }
  size_t at = strlen(known);
  if (a->makes)
    snprintf(known + at, sizeof known - at, "%s%sdevice, requires_grad", at ? ", " : "",
             find_field(a, "dtype") ? "" : "dtype, ");
  if (!known[0]) return kn_fail(a->ctx, KN_ARG, "%s: there is no option '%s', nor any other", a->name, key);
  return kn_fail(a->ctx, KN_ARG, "%s: there is no option '%s'; there are %s", a->name, key, known);
}

/* Options that every op making a tensor has: key at -2, value at -1. */
static kn_status read_make_option(kl_args *a, const char *key) {
  kn_device_id device;
  if (!strcmp(key, "device")) return kl_read_device(a->L, a->ctx, -1, a->name, &device);
  if (!strcmp(key, "requires_grad")) {
    if (lua_type(a->L, -1) != LUA_TBOOLEAN) return wrong(a->ctx, a->name, key, "true or false", a->L, -1);
    a->requires_grad = lua_toboolean(a->L, -1);
    return KN_OK;
  }
  if (!strcmp(key, "dtype")) {
    a->cast = true;
    return kl_read_dtype(a->L, a->ctx, -1, a->name, &a->dtype);
  }
  return unknown_option(a, key);
}

static kn_status read_option(kl_args *a) {
  if (lua_type(a->L, -2) != LUA_TSTRING)
    return kn_fail(a->ctx, KN_ARG, "%s: option names must be strings, got %s", a->name, kl_kind(a->L, -2));
  const char *key = lua_tostring(a->L, -2);
  const kn_field *f = find_field(a, key);
  if (f && a->given >> (f - a->info.fields) & 1u)
    return kn_fail(a->ctx, KN_ARG, "%s: %s is given twice", a->name, key);
  if (f) return read_field(a, f, lua_gettop(a->L));
  return a->makes ? read_make_option(a, key) : unknown_option(a, key);
}

kn_status kl_args_options(kl_args *a) {
  if (a->options) {
    lua_pushnil(a->L);
    while (lua_next(a->L, a->options)) {
      kn_status st = read_option(a);
      lua_pop(a->L, 1);
      if (st != KN_OK) {
        lua_pop(a->L, 1);
        return st;
      }
    }
  }
  for (const kn_field *f = a->info.fields; f->name; f++)
    if (f->required && !(a->given >> (f - a->info.fields) & 1u))
      return kn_fail(a->ctx, KN_ARG, "%s: %s is missing", a->name, f->name);
  return KN_OK;
}

/* ---- inputs ---- */

/* dtype that a number takes at input i: by the tensors beside it. The condition of `where` is not beside.
 * Beside smaller integers an integer stays int64, so that it is compared and computed with as it is, where
 * that does not change the dtype of the result: beside tensors with dims, and in comparisons. */
static kn_status number_dtype(kl_args *a, const int *place, const kn_scalar *s, int i, uint64_t numbers,
                              kn_dtype *out) {
  kn_scalar_kind kind, other;
  bool known = kl_scalar_kind(s, &kind), beside = false, stays = a->row->infer == kn_infer_compare;
  kn_dtype d = KN_BOOL;
  for (int k = a->op == KN_OP_where; k < a->n; k++) {
    kn_scalar o;
    if (!(numbers >> k & 1u)) {
      d = beside ? kn_dtype_promote(d, kn_tensor_dtype(a->in[k])) : kn_tensor_dtype(a->in[k]);
      beside = true;
      stays |= a->in[k]->type.rank > 0;
    } else if (k != i && kl_test_scalar(a->L, place[k], &o) && kl_scalar_kind(&o, &other)) {
      d = kn_scalar_dtype(other, d); /* two numbers: the wider kind */
    }
  }
  if (known && kind == KN_SCALAR_INT && stays && !kn_dtype_is_float(d))
    *out = KN_I64;
  else if (known)
    *out = kn_scalar_dtype(kind, d);
  else if (kn_dtype_is_float(d))
    *out = d;
  else
    return kn_fail(a->ctx, KN_ARG,
                   "%s: input %d may be an integer or a float when the graph runs; say which with "
                   "math.tointeger or `+ 0.0`",
                   a->name, i + 1);
  return KN_OK;
}

/* place[i]: where input i stands on the stack. */
static kn_status numbers_to_tensors(kl_args *a, const int *place, uint64_t numbers) {
  for (int i = 0; i < a->n; i++) {
    kn_scalar s;
    kn_dtype d = KN_F32;
    if (!(numbers >> i & 1u)) continue;
    kl_test_scalar(a->L, place[i], &s);
    KN_TRY(number_dtype(a, place, &s, i, numbers, &d));
    kn_status st = kn_scalar_tensor(a->ctx, &s, d, &a->in[i]);
    if (st != KN_OK) {
      kn_error_prefix(a->ctx, "%s", a->name);
      return st;
    }
    a->owned[a->nowned++] = a->in[i];
  }
  return KN_OK;
}

static kn_status read_variadic(kl_args *a) {
  lua_State *L = a->L;
  if (a->next > a->top) return kn_fail(a->ctx, KN_ARG, "%s: a table of tensors is needed, got nil", a->name);
  if (lua_type(L, a->next) != LUA_TTABLE)
    return wrong(a->ctx, a->name, "input 1", "a table of tensors", L, a->next);
  size_t n = lua_rawlen(L, a->next);
  if (n < a->row->min_in) return kn_fail(a->ctx, KN_ARG, "%s: the table of tensors is empty", a->name);
  if (n > KN_MAX_INPUTS) /* ops.c splits longer lists before they come here */
    return kn_fail(a->ctx, KN_LIMIT, "%s: at most %d tensors at once, got %zu", a->name, KN_MAX_INPUTS, n);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, a->next, (lua_Integer)i + 1);
    a->in[i] = kl_test_tensor(L, -1);
    lua_pop(L, 1); /* the table keeps it */
    if (a->in[i]) continue;
    lua_rawgeti(L, a->next, (lua_Integer)i + 1);
    kn_status st = kn_fail(a->ctx, KN_ARG, "%s: entry %zu of the table must be a tensor, got %s", a->name,
                           i + 1, kl_kind(L, -1));
    lua_pop(L, 1);
    return st;
  }
  a->n = (int)n;
  a->next++;
  return KN_OK;
}

/* Ops that index along a dim, and rows with the flag EARLY, take their first attribute behind the tensors or,
 * as in PyTorch, behind the first: gather(x, dim, index), layer_norm(x, {5}, w, b).
 */
static kn_status read_early(kl_args *a) {
  const kn_field *f = a->info.fields;
  bool early = a->row->flags & KN_FLAG_EARLY, indexes = a->row->attrs == KN_ATTRS_axis && a->row->min_in > 1;
  if ((!early && !indexes) || a->next > a->top || (a->given & 1u)) return KN_OK;
  if (!integer_like(a->L, a->next) && !(early && lua_type(a->L, a->next) == LUA_TTABLE)) return KN_OK;
  return read_field(a, f, a->next++);
}

kn_status kl_args_inputs(kl_args *a) {
  lua_State *L = a->L;
  if (a->row->max_in == KN_VARIADIC) return read_variadic(a);
  uint64_t numbers = 0;
  int place[KN_MAX_INPUTS] = {0}; /* of input i on the stack */
  kn_scalar s;
  for (int i = 0; i < a->row->max_in; i++) {
    if (i == 1) KN_TRY(read_early(a));
    int idx = a->next;
    bool optional = i >= a->row->min_in, there = idx <= a->top;
    kn_tensor *t = there ? kl_test_tensor(L, idx) : NULL;
    if (optional && !t) {
      bool nil = there && lua_isnil(L, idx);
      if (nil) a->next++;
      if (!nil || !(a->row->flags & KN_FLAG_HOLES)) break;
      a->in[i] = NULL; /* and maybe others are given behind it */
      continue;
    }
    if (!t) {
      if ((a->row->flags & KN_FLAG_SCALARS) && there && kl_test_scalar(L, idx, &s))
        numbers |= UINT64_C(1) << i;
      if (!(numbers >> i & 1u)) {
        char what[24];
        snprintf(what, sizeof what, "input %d", i + 1);
        return kn_fail(a->ctx, KN_ARG, "%s: %s must be %s, got %s", a->name, what,
                       a->row->flags & KN_FLAG_SCALARS ? "a tensor or a number" : "a tensor",
                       there ? kl_kind(L, idx) : "nil");
      }
    }
    a->in[i] = t;
    place[i] = idx;
    a->n = i + 1;
    a->next++;
  }
  if (!numbers) return KN_OK;
  if (numbers == (UINT64_C(1) << a->n) - 1)
    return kn_fail(a->ctx, KN_ARG, "%s: at least one input must be a tensor", a->name);
  return numbers_to_tensors(a, place, numbers);
}

/* ---- all together ---- */

/* A table with string keys only, or the empty one where no list is awaited. */
static bool is_options(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE || lua_rawlen(L, idx) > 0) return false;
  lua_pushnil(L);
  if (!lua_next(L, idx)) return false;
  bool yes = lua_type(L, -2) == LUA_TSTRING;
  lua_pop(L, 2);
  return yes;
}

static bool makes_tensors(const kn_op_info *row) {
  size_t n = strlen(row->name);
  return row->max_in == 0 || (n > 5 && !strcmp(row->name + n - 5, "_like"));
}

void kl_args_open(kl_args *a, lua_State *L, kn_context *ctx, kn_op op, const char *name, int first, int top) {
  a->L = L;
  a->ctx = ctx;
  a->op = op;
  a->row = &kn_ops[op];
  a->info = kn_attrs_describe(a->row->attrs);
  a->name = name;
  a->next = first;
  a->top = top;
  a->options = 0;
  a->given = 0;
  a->n = a->nowned = 0;
  a->makes = makes_tensors(a->row);
  a->requires_grad = a->cast = false;
  kn_attrs_default(a->row->attrs, &a->attrs);
  bool may = a->makes || a->info.fields[0].name;
  if (may && a->top >= first && is_options(L, a->top)) a->options = a->top--;
}

kn_status kl_args_read(kl_args *a, lua_State *L, kn_context *ctx, kn_op op, const char *name, int first,
                       int top) {
  kl_args_open(a, L, ctx, op, name, first, top);
  kn_status st = kl_args_inputs(a);
  if (st == KN_OK) st = kl_args_fields(a);
  if (st == KN_OK) st = kl_args_options(a);
  if (st != KN_OK) kl_args_done(a);
  return st;
}

void kl_args_done(kl_args *a) {
  for (int i = 0; i < a->nowned; i++) kn_tensor_release(a->owned[i]);
  a->nowned = 0;
}

/* The value of full_like must not pass through the dtype of x on its way to the one that is asked for. */
static kn_status full_like_cast(kl_args *a, kn_tensor **out) {
  kn_attrs_cast to = {.dtype = a->dtype};
  kn_tensor *like;
  KN_TRY(kn_apply(a->ctx, KN_OP_cast, &to, a->in, 1, &like));
  kn_status st = kn_apply(a->ctx, a->op, &a->attrs, &like, 1, out);
  kn_tensor_release(like);
  return st;
}

kn_status kl_args_apply(kl_args *a, bool inplace, kn_tensor **out) {
  kn_context *ctx = a->ctx;
  const void *attrs = a->info.fields[0].name ? &a->attrs : NULL;
  if (inplace) return kn_apply_inplace(ctx, a->op, attrs, a->in, a->n, out);
  bool full = a->cast && a->op == KN_OP_full_like;
  KN_TRY(full ? full_like_cast(a, out) : kn_apply(ctx, a->op, attrs, a->in, a->n, out));
  kn_status st = KN_OK;
  if (a->cast && !full) {
    kn_tensor *t;
    kn_attrs_cast to = {.dtype = a->dtype};
    st = kn_apply(ctx, KN_OP_cast, &to, out, 1, &t);
    if (st == KN_OK) {
      kn_tensor_release(out[0]);
      out[0] = t;
    }
  }
  if (st == KN_OK && a->requires_grad) st = kn_set_requires_grad(ctx, out[0], true);
  if (st != KN_OK) kn_tensor_release(out[0]);
  return st;
}
