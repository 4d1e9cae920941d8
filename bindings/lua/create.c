/* kiln.tensor: Lua tables to tensors; and the makers whose positional arguments are not simply the fields of
 * their row: full, arange, randint, normal, rand_like, from_npy. */
#include "bindings/lua/args.h"
#include "core/device.h"
#include "core/expr.h"
#include "core/grad/tape.h"
#include <string.h>

/* ---- nested tables ---- */

typedef struct scan { /* what a nested table has been found to hold */
  lua_State *L;
  kn_context *ctx;
  int rank; /* -1 until a leaf is met */
  int64_t dims[KN_MAX_RANK];
  bool ints, floats, bools, nodes; /* nodes: tensors or symbols among the leaves */
  kn_dtype dtype;                  /* of the tensors among them */
} scan;

static kn_status ragged(const scan *s) {
  return kn_fail(s->ctx, KN_SHAPE,
                 "tensor: the tables are ragged: all at one depth must have the same length");
}

static kn_status set_rank(scan *s, int rank) {
  if (s->rank >= 0 && s->rank != rank) return ragged(s);
  s->rank = rank;
  return KN_OK;
}

static kn_status scan_leaf(scan *s, int idx, int depth) {
  kn_scalar v;
  kn_tensor *t = kl_test_tensor(s->L, idx);
  if (t) {
    s->dtype = s->nodes ? kn_dtype_promote(s->dtype, kn_tensor_dtype(t)) : kn_tensor_dtype(t);
    s->nodes = true;
  } else if (kl_test_scalar(s->L, idx, &v)) {
    kn_scalar_kind kind;
    if (!kl_scalar_kind(&v, &kind))
      return kn_fail(s->ctx, KN_ARG,
                     "tensor: a number that may be an integer or a float when the graph runs; say which "
                     "with math.tointeger or `+ 0.0`");
    if (v.kind == KN_SCALAR_SYMBOL && !s->nodes) {
      s->nodes = true;
      s->dtype = KN_BOOL;
    }
    s->ints |= kind == KN_SCALAR_INT;
    s->floats |= kind == KN_SCALAR_FLOAT;
    s->bools |= kind == KN_SCALAR_BOOL;
  } else {
    return kn_fail(s->ctx, KN_ARG, "tensor: numbers, booleans or tables of them are needed, got %s",
                   kl_kind(s->L, idx));
  }
  return set_rank(s, depth);
}

static kn_status scan_value(scan *s, int idx, int depth) {
  lua_State *L = s->L;
  if (lua_type(L, idx) != LUA_TTABLE) return scan_leaf(s, idx, depth);
  if (depth == KN_MAX_RANK)
    return kn_fail(s->ctx, KN_SHAPE, "tensor: tables are nested deeper than %d dimensions", KN_MAX_RANK);
  int64_t n = (int64_t)lua_rawlen(L, idx);
  if (s->dims[depth] >= 0 && s->dims[depth] != n) return ragged(s);
  s->dims[depth] = n;
  if (n == 0) return set_rank(s, depth + 1);
  for (int64_t i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, i);
    kn_status st = scan_value(s, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
    if (st != KN_OK) return st;
  }
  return KN_OK;
}

static kn_dtype dtype_of(const scan *s) {
  if (s->nodes) {
    kn_dtype d = s->dtype;
    if (s->bools) d = kn_scalar_dtype(KN_SCALAR_BOOL, d);
    if (s->ints) d = kn_scalar_dtype(KN_SCALAR_INT, d);
    return s->floats ? kn_scalar_dtype(KN_SCALAR_FLOAT, d) : d;
  }
  if (s->floats || !(s->ints || s->bools)) return KN_F32;
  return s->ints ? KN_I64 : KN_BOOL;
}

/* ---- plain numbers: written one after the other ---- */

typedef struct fill {
  lua_State *L;
  kn_context *ctx;
  kn_dtype dtype;
  char *at;
} fill;

static kn_status fill_leaf(fill *f, int idx) {
  kn_scalar v;
  kl_test_scalar(f->L, idx, &v); /* a number or a boolean: the scan has seen to it */
  kn_status st = kn_scalar_check(f->ctx, &v, f->dtype);
  if (st != KN_OK) {
    kn_error_prefix(f->ctx, "tensor");
    return st;
  }
  if (v.kind == KN_SCALAR_FLOAT)
    kn_element_put_float(f->dtype, f->at, v.as.f);
  else
    kn_element_put_int(f->dtype, f->at, v.kind == KN_SCALAR_BOOL ? v.as.b : v.as.i);
  f->at += kn_dtype_size(f->dtype);
  return KN_OK;
}

static kn_status fill_value(fill *f, int idx) {
  if (lua_type(f->L, idx) != LUA_TTABLE) return fill_leaf(f, idx);
  int64_t n = (int64_t)lua_rawlen(f->L, idx);
  for (int64_t i = 1; i <= n; i++) {
    lua_rawgeti(f->L, idx, i);
    kn_status st = fill_value(f, lua_gettop(f->L));
    lua_pop(f->L, 1);
    if (st != KN_OK) return st;
  }
  return KN_OK;
}

/* ---- tensors and symbols among the leaves: stacked ---- */

static kn_status cast_to(kn_context *ctx, kn_tensor *t, kn_dtype dtype, kn_tensor **out) {
  if (kn_tensor_dtype(t) != dtype)
    return kn_apply(ctx, KN_OP_cast, &(kn_attrs_cast){.dtype = dtype}, &t, 1, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

static kn_status stack_value(lua_State *L, kn_context *ctx, int idx, kn_dtype dtype, kn_tensor **out) {
  kn_tensor *t = kl_test_tensor(L, idx), *parts[KN_MAX_INPUTS];
  kn_scalar v;
  if (t) return cast_to(ctx, t, dtype, out);
  if (kl_test_scalar(L, idx, &v)) return kn_scalar_tensor(ctx, &v, dtype, out);
  size_t n = lua_rawlen(L, idx), made = 0;
  if (n == 0 || n > KN_MAX_INPUTS)
    return kn_fail(ctx, KN_LIMIT,
                   "tensor: a table with tensors in it may have 1 to %d entries, not %zu; use kiln.stack",
                   KN_MAX_INPUTS, n);
  kn_status st = KN_OK;
  for (; st == KN_OK && made < n; made += st == KN_OK) {
    lua_rawgeti(L, idx, (lua_Integer)made + 1);
    st = stack_value(L, ctx, lua_gettop(L), dtype, &parts[made]);
    lua_pop(L, 1);
  }
  kn_attrs_axis_first along = {.dim = 0};
  kn_device_id device = KN_CPU; /* numbers go where tensors beside them are */
  for (size_t i = 0; i < made; i++)
    if (parts[i]->type.device != KN_CPU) device = (kn_device_id)parts[i]->type.device;
  for (size_t i = 0; st == KN_OK && i < made; i++)
    if (parts[i]->type.rank == 0 && (st = kl_move(ctx, device, &parts[i])) != KN_OK) parts[i] = NULL;
  if (st == KN_OK) st = kn_apply(ctx, KN_OP_stack, &along, parts, (int)n, out);
  for (size_t i = 0; i < made; i++) kn_tensor_release(parts[i]);
  return st;
}

kn_status kl_read_tensor(lua_State *L, kn_context *ctx, int idx, kn_dtype dtype, kn_tensor **out) {
  scan s = {.L = L, .ctx = ctx, .rank = -1, .dims = {-1, -1, -1, -1, -1, -1, -1, -1}};
  if (!lua_checkstack(L, KN_MAX_RANK + 8)) return kn_fail(ctx, KN_LIMIT, "tensor: Lua's stack is full");
  idx = lua_absindex(L, idx);
  KN_TRY(scan_value(&s, idx, 0));
  if (s.bools && (s.ints || s.floats) && !s.nodes)
    return kn_fail(ctx, KN_ARG, "tensor: booleans and numbers are mixed in one table");
  if (dtype == KN_DTYPE_COUNT) dtype = dtype_of(&s);
  if (s.nodes) return stack_value(L, ctx, idx, dtype, out);
  kn_type type = {.dtype = (uint8_t)dtype, .device = KN_CPU, .rank = (uint8_t)s.rank};
  for (int i = 0; i < s.rank; i++) type.dims[i] = s.dims[i] < 0 ? 0 : s.dims[i];
  kn_tensor *t;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  fill f = {.L = L, .ctx = ctx, .dtype = dtype, .at = kn_tensor_data(t)};
  kn_status st = fill_value(&f, idx);
  if (st != KN_OK) {
    kn_tensor_release(t);
    return st;
  }
  *out = t;
  return KN_OK;
}

kn_tensor *kl_to_tensor(lua_State *L, int idx) {
  kn_tensor *t = kl_test_tensor(L, idx);
  if (t) return kn_tensor_retain(t);
  kl_check(L, kl_read_tensor(L, kl_context(L), idx, KN_DTYPE_COUNT, &t));
  return t;
}

/* ---- kiln.tensor ---- */

static kn_status read_options(lua_State *L, kn_context *ctx, int idx, kn_dtype *dtype, kn_device_id *device,
                              bool *requires_grad) {
  if (lua_isnoneornil(L, idx)) return KN_OK;
  if (lua_type(L, idx) != LUA_TTABLE)
    return kn_fail(ctx, KN_ARG, "tensor: options must be a table, got %s", kl_kind(L, idx));
  kn_status st = KN_OK;
  lua_pushnil(L);
  while (st == KN_OK && lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (!strcmp(key, "dtype"))
      st = kl_read_dtype(L, ctx, -1, "tensor", dtype);
    else if (!strcmp(key, "device"))
      st = kl_read_device(L, ctx, -1, "tensor", device);
    else if (!strcmp(key, "requires_grad"))
      *requires_grad = lua_toboolean(L, -1);
    else
      st = kn_fail(ctx, KN_ARG, "tensor: there is no option '%s'; there are dtype, device, requires_grad",
                   key);
    lua_pop(L, 1);
  }
  if (st != KN_OK) lua_pop(L, 1);
  return st;
}

/* A fresh tensor; while everything is recorded, fresh in every run of the graph too. */
static kn_status make_tensor(lua_State *L, kn_context *ctx, kn_dtype dtype, kn_tensor **out) {
  kn_tensor *t = kl_test_tensor(L, 1), *made;
  if (t && dtype != KN_DTYPE_COUNT && dtype != kn_tensor_dtype(t)) return cast_to(ctx, t, dtype, out);
  if (t) return kn_apply(ctx, KN_OP_clone, NULL, &t, 1, out);
  KN_TRY(kl_read_tensor(L, ctx, 1, dtype, &made));
  *out = made;
  if (!ctx->recorder || !ctx->recorder->all || kn_tensor_is_symbolic(made)) return KN_OK;
  kn_status st = kn_apply(ctx, KN_OP_clone, NULL, &made, 1, out);
  kn_tensor_release(made);
  return st;
}

static int create_tensor(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kn_dtype dtype = KN_DTYPE_COUNT;
  bool requires_grad = false, grad_mode = ctx->grad_enabled;
  lua_settop(L, 2);
  kn_tensor **slot = kl_reserve_tensor(L), *t = kl_test_tensor(L, 1);
  kn_device_id device = t ? (kn_device_id)t->type.device : KN_CPU; /* numbers: the host's */
  kl_check(L, read_options(L, ctx, 2, &dtype, &device, &requires_grad));
  ctx->grad_enabled = grad_mode && !kl_test_tensor(L, 1); /* a copy of a tensor starts a history of its own */
  kn_status st = make_tensor(L, ctx, dtype, &t);
  if (st == KN_OK) st = kl_move(ctx, device, &t);
  ctx->grad_enabled = grad_mode;
  if (st == KN_OK && requires_grad && (st = kn_set_requires_grad(ctx, t, true)) != KN_OK)
    kn_tensor_release(t);
  kl_check(L, st);
  kl_fill_tensor(L, slot, t);
  return 1;
}

/* ---- makers with special arguments ---- */

static bool field_given(const kl_args *a, const char *name) {
  for (const kn_field *f = a->info.fields; f->name; f++)
    if (!strcmp(f->name, name)) return a->given >> (f - a->info.fields) & 1u;
  return false;
}

static int finish(lua_State *L, kl_args *a, kn_tensor **slot, kn_status st) {
  kn_tensor *out = NULL;
  if (st == KN_OK) st = kl_args_apply(a, false, &out);
  kl_check(L, st);
  kl_fill_tensor(L, slot, out);
  return 1;
}

static kn_status make_options(kl_args *a, kn_tensor *t) {
  kn_status st = a->requires_grad ? kn_set_requires_grad(a->ctx, t, true) : KN_OK;
  if (st != KN_OK) kn_tensor_release(t);
  return st;
}

/* A value that is known only in the graph: one element, repeated. */
static kn_status full_of(kl_args *a, const kn_scalar *s, kn_tensor **out) {
  kn_tensor *one, *wide;
  kn_attrs_sizes to = {.sizes = a->attrs.fill.sizes};
  KN_TRY(kn_scalar_tensor_for(a->ctx, a->name, s, a->attrs.fill.dtype, &one));
  kn_status st = kn_apply(a->ctx, KN_OP_expand, &to, &one, 1, &wide);
  kn_tensor_release(one);
  KN_TRY(st);
  st = kn_apply(a->ctx, KN_OP_clone, NULL, &wide, 1, out);
  kn_tensor_release(wide);
  if (st == KN_OK) st = kl_move(a->ctx, (kn_device_id)a->attrs.fill.device, out);
  return st == KN_OK ? make_options(a, *out) : st;
}

/* full(sizes, value): the dtype is the value's. */
static int create_full(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kl_args a;
  kn_scalar s = {KN_SCALAR_FLOAT, {.f = 0}};
  int top = lua_gettop(L);
  kn_tensor **slot = kl_reserve_tensor(L), *out;
  kl_args_open(&a, L, ctx, KN_OP_full, "full", 1, top);
  int value = 2;
  if (a.options && a.top < 2) {
    lua_pushliteral(L, "value");
    lua_rawget(L, a.options);
    value = lua_gettop(L);
  }
  bool is_number = kl_test_scalar(L, value, &s);
  kn_scalar_kind kind = KN_SCALAR_FLOAT;
  if (is_number && !kl_scalar_kind(&s, &kind)) kind = KN_SCALAR_FLOAT;
  bool known = s.kind != KN_SCALAR_SYMBOL;
  if (is_number && !known) { /* the field is a known number: give it something, and the value afterwards */
    lua_pushinteger(L, 0);
    lua_replace(L, value);
  }
  kn_status st = kl_args_fields(&a);
  if (st == KN_OK) st = kl_args_options(&a);
  if (st == KN_OK && !field_given(&a, "dtype")) a.attrs.fill.dtype = kn_scalar_dtype(kind, KN_BOOL);
  if (known || st != KN_OK) return finish(L, &a, slot, st);
  kl_check(L, full_of(&a, &s, &out));
  kl_fill_tensor(L, slot, out);
  return 1;
}

/* Whether the number at idx makes a range one of floats; *open: only the graph knows. */
static bool is_float(lua_State *L, int idx, bool *open) {
  kn_scalar s;
  kn_scalar_kind kind;
  if (!kl_test_scalar(L, idx, &s)) return false;
  if (kl_scalar_kind(&s, &kind)) return kind == KN_SCALAR_FLOAT;
  *open = true;
  return false;
}

/* arange(end), arange(start, end), arange(start, end, step): int64 when all of them are Lua integers. */
static int create_arange(lua_State *L) {
  static const char *const names[] = {"start", "end", "step"};
  kl_args a;
  int top = lua_gettop(L), n = 0;
  kn_tensor **slot = kl_reserve_tensor(L);
  bool floats = false, open = false;
  kl_args_open(&a, L, kl_context(L), KN_OP_arange, "arange", 1, top);
  while (n < 3 && a.next + n <= a.top && lua_type(L, a.next + n) != LUA_TSTRING) n++;
  kn_status st = KN_OK;
  for (int i = 0; st == KN_OK && i < n; i++) {
    floats |= is_float(L, a.next, &open);
    st = kl_args_field(&a, names[n == 1 ? 1 : i], a.next++);
  }
  for (int i = 0; a.options && i < 3; i++) {
    lua_pushstring(L, names[i]);
    lua_rawget(L, a.options);
    floats |= is_float(L, -1, &open);
    lua_pop(L, 1);
  }
  if (st == KN_OK) st = kl_args_options(&a);
  while (st == KN_OK && a.next <= a.top && !field_given(&a, "dtype"))
    st = kl_args_field(&a, "dtype", a.next++);
  if (st == KN_OK && a.next <= a.top) st = kl_args_fields(&a);
  if (st == KN_OK && floats && !field_given(&a, "dtype")) a.attrs.range.dtype = KN_F32;
  if (st == KN_OK && open && !floats && !field_given(&a, "dtype"))
    st =
        kn_fail(a.ctx, KN_ARG,
                "arange: a number may be an integer or a float when the graph runs, which decides the dtype; "
                "give the dtype, or say which with math.tointeger or `+ 0.0`");
  return finish(L, &a, slot, st);
}

/* randint(high, sizes) or randint(low, high, sizes). */
static int create_randint(lua_State *L) {
  kl_args a;
  int top = lua_gettop(L);
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_args_open(&a, L, kl_context(L), KN_OP_randint, "randint", 1, top);
  kn_status st = KN_OK;
  if (a.next <= a.top && (a.next == a.top || lua_type(L, a.next + 1) == LUA_TTABLE)) {
    st = kl_args_field(&a, "high", a.next++);
    if (st == KN_OK && a.next <= a.top) st = kl_args_field(&a, "sizes", a.next++);
    if (st == KN_OK && a.next <= a.top) st = kl_args_field(&a, "dtype", a.next++);
    if (st == KN_OK && a.next <= a.top) st = kn_fail(a.ctx, KN_ARG, "randint: too many arguments");
  } else {
    st = kl_args_fields(&a);
  }
  if (st == KN_OK) st = kl_args_options(&a);
  return finish(L, &a, slot, st);
}

/* rand_like(x), randn_like(x): the sizes of x. */
static int create_random_like(lua_State *L, kn_op op, const char *name) {
  kn_context *ctx = kl_context(L);
  kn_tensor *x = kl_check_tensor(L, 1);
  kl_args a;
  int top = lua_gettop(L);
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_args_open(&a, L, ctx, op, name, 2, top);
  kn_ints sizes = {.n = x->type.rank};
  kn_status st = KN_OK;
  for (int i = 0; st == KN_OK && i < sizes.n; i++) {
    kn_scalar s;
    st = kn_size(ctx, x, i, &s);
    if (st == KN_OK && s.kind == KN_SCALAR_SYMBOL)
      st = kn_recorder_of(ctx)->dynamic(kn_recorder_of(ctx), ctx, &s, &sizes.v[i]);
    else if (st == KN_OK)
      sizes.v[i] = s.as.i;
  }
  a.attrs.create.sizes = sizes;
  a.attrs.create.dtype = kn_tensor_dtype(x);
  a.attrs.create.device = x->type.device;
  a.given |= 1;
  if (st == KN_OK) st = kl_args_fields(&a);
  if (st == KN_OK) st = kl_args_options(&a);
  return finish(L, &a, slot, st);
}

static int create_rand_like(lua_State *L) { return create_random_like(L, KN_OP_rand, "rand_like"); }
static int create_randn_like(lua_State *L) { return create_random_like(L, KN_OP_randn, "randn_like"); }

/* normal(mean, std [, sizes …]) of two numbers; of tensors it is the op. */
static int create_normal(lua_State *L) {
  kn_context *ctx = kl_context(L);
  int top = lua_gettop(L);
  kl_args a;
  if (kl_test_tensor(L, 1) || kl_test_tensor(L, 2)) {
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, top, 1);
    return 1;
  }
  double value[2] = {0, 1};
  for (int i = 0; i < 2; i++) {
    if (lua_type(L, i + 1) != LUA_TNUMBER)
      return kl_error(L, KN_ARG, "normal: %s must be a number or a tensor, got %s", i ? "std" : "mean",
                      kl_kind(L, i + 1));
    value[i] = lua_tonumber(L, i + 1);
  }
  if (!(value[1] >= 0)) return kl_error(L, KN_ARG, "normal: std must be at least 0, not %f", value[1]);
  kn_tensor **slot = kl_reserve_tensor(L), *out = NULL;
  kl_args_open(&a, L, ctx, KN_OP_randn, "normal", 3, top);
  kn_status st = kl_args_fields(&a);
  if (st == KN_OK) st = kl_args_options(&a);
  kn_scope s;
  if (st == KN_OK) {
    kn_scope_open(&s, ctx);
    kn_tensor *z = kx_apply(&s, KN_OP_randn, &a.attrs, NULL, 0);
    z = z ? kx_mul(&s, z, kx_number(&s, value[1], z)) : NULL;
    z = z ? kx_add(&s, z, kx_number(&s, value[0], z)) : NULL;
    st = kn_scope_close(&s, z, &out);
  }
  if (st == KN_OK) st = make_options(&a, out);
  kl_check(L, st);
  kl_fill_tensor(L, slot, out);
  return 1;
}

void kl_open_create(lua_State *L) {
  static const luaL_Reg makers[] = {{"tensor", create_tensor},
                                    {"full", create_full},
                                    {"arange", create_arange},
                                    {"randint", create_randint},
                                    {"rand_like", create_rand_like},
                                    {"randn_like", create_randn_like},
                                    {NULL, NULL}};
  kl_set_engine_functions(L, makers);
  lua_getfield(L, -1, "normal"); /* the op, for tensors */
  lua_pushcclosure(L, create_normal, 1);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "normal");
  static const char *const same[][2] = {{"empty", "zeros"}, {"empty_like", "zeros_like"}};
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) { /* fresh memory is always cleared */
    lua_getfield(L, -1, same[i][1]);
    lua_setfield(L, -2, same[i][0]);
  }
}
