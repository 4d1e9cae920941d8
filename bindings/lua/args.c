/* Lua arguments to op inputs, and all of them together: see args.h. Attributes are in args_fields.c. Driven
 * by the tables of core alone. Uses only calls of Lua's API that cannot raise, so tensors may be held
 * meanwhile. */
#include "bindings/lua/args.h"
#include "core/autocast.h"
#include "core/grad/tape.h"
#include <stdio.h>
#include <string.h>

/* ---- the options table ---- */

static kn_status unknown_option(kl_args *a, const char *key) {
  char known[256] = "";
  for (const kn_field *f = a->info.fields; f->name; f++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", f->name);
  }
  size_t at = strlen(known);
  if (a->makes)
    snprintf(known + at, sizeof known - at, "%s%s%srequires_grad", at ? ", " : "",
             kl_args_find(a, "dtype") ? "" : "dtype, ", kl_args_find(a, "device") ? "" : "device, ");
  if (!known[0]) return kn_fail(a->ctx, KN_ARG, "%s: there is no option '%s', nor any other", a->name, key);
  return kn_fail(a->ctx, KN_ARG, "%s: there is no option '%s'; there are %s", a->name, key, known);
}

/* Options that every op making a tensor has: key at -2, value at -1. */
static kn_status read_make_option(kl_args *a, const char *key) {
  if (!strcmp(key, "device")) {
    a->moves = true;
    return kl_read_device(a->L, a->ctx, -1, a->name, &a->device);
  }
  if (!strcmp(key, "requires_grad")) {
    if (lua_type(a->L, -1) != LUA_TBOOLEAN)
      return kl_args_wrong(a->ctx, a->name, key, "true or false", a->L, -1);
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
  const kn_field *f = kl_args_find(a, key);
  if (f && a->given >> (f - a->info.fields) & 1u)
    return kn_fail(a->ctx, KN_ARG, "%s: %s is given twice", a->name, key);
  if (f) return kl_args_put(a, f, lua_gettop(a->L));
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
  d = kn_autocast_dtype(a->ctx, a->row, d);
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
    KN_TRY(kn_scalar_tensor_for(a->ctx, a->name, &s, d, &a->in[i]));
    a->owned[a->nowned++] = a->in[i];
  }
  return KN_OK;
}

static kn_status read_variadic(kl_args *a) {
  lua_State *L = a->L;
  if (a->next > a->top) return kn_fail(a->ctx, KN_ARG, "%s: a table of tensors is needed, got nil", a->name);
  if (lua_type(L, a->next) != LUA_TTABLE)
    return kl_args_wrong(a->ctx, a->name, "input 1", "a table of tensors", L, a->next);
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
  if (!kl_args_integer_like(a->L, a->next) && !(early && lua_type(a->L, a->next) == LUA_TTABLE)) return KN_OK;
  return kl_args_put(a, f, a->next++);
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
  a->requires_grad = a->cast = a->moves = false;
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

kn_status kl_move(kn_context *ctx, kn_device_id device, kn_tensor **t) {
  kn_tensor *moved;
  if ((*t)->type.device == device) return KN_OK;
  kn_status st = kn_apply(ctx, KN_OP_to_device, &(kn_attrs_device){.device = (int32_t)device}, t, 1, &moved);
  kn_tensor_release(*t);
  if (st == KN_OK) *t = moved;
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
  if (st == KN_OK && a->moves && (st = kl_move(ctx, a->device, &out[0])) != KN_OK) return st;
  if (st == KN_OK && a->requires_grad) st = kn_set_requires_grad(ctx, out[0], true);
  if (st != KN_OK) kn_tensor_release(out[0]);
  return st;
}
