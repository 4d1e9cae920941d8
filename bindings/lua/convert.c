/* Methods that are not rows of the op table: other dtypes and devices, tensors to Lua values, whole-tensor
 * comparisons, filling in place. */
#include "bindings/lua/args.h"
#include "core/device.h"
#include "core/expr.h"
#include "core/grad/tape.h"
#include <string.h>

/* One result made by C code that may fail. */
static int give(lua_State *L, kn_tensor **slot, kn_status st, kn_tensor *const *made) {
  kl_check(L, st);
  kl_fill_tensor(L, slot, *made);
  return 1;
}

/* ---- dtype and device ---- */

static int cast_to(lua_State *L, kn_dtype dtype) {
  kn_tensor *t = kl_check_tensor(L, 1), *out = NULL;
  if (kn_tensor_dtype(t) == dtype) {
    lua_pushvalue(L, 1);
    return 1;
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  return give(L, slot, kn_apply(kl_context(L), KN_OP_cast, &(kn_attrs_cast){.dtype = dtype}, &t, 1, &out),
              &out);
}

/* PyTorch's methods: X(name, dtype) */
/* clang-format off */
#define CONVERSIONS(X)                                                                                       \
  X(float, F32) X(double, F64) X(half, F16) X(bfloat16, BF16)                                                \
  X(char, I8) X(byte, U8) X(short, I16) X(int, I32) X(long, I64) X(bool, BOOL)
/* clang-format on */
#define X(name, dtype)                                                                                       \
  static int to_##name(lua_State *L) { return cast_to(L, KN_##dtype); }
CONVERSIONS(X)
#undef X

static int type_as(lua_State *L) { return cast_to(L, kn_tensor_dtype(kl_check_tensor(L, 2))); }

typedef struct target {
  kn_dtype dtype;
  kn_device_id device;
} target;

/* What "float32", "cpu", a tensor or {dtype =, device =} asks for. */
static kn_status read_target(lua_State *L, kn_context *ctx, int idx, target *to) {
  kn_tensor *like = kl_test_tensor(L, idx);
  if (like) {
    *to = (target){kn_tensor_dtype(like), (kn_device_id)like->type.device};
    return KN_OK;
  }
  if (lua_type(L, idx) == LUA_TSTRING) {
    kn_device_id named;
    if (kn_dtype_parse(lua_tostring(L, idx), &to->dtype)) return KN_OK;
    if (kn_device_parse(lua_tostring(L, idx), &named) || !strncmp(lua_tostring(L, idx), "cuda:", 5))
      return kl_read_device(L, ctx, idx, "to", &to->device);
    return kn_fail(ctx, KN_ARG, "to: '%s' is neither a dtype nor a device", lua_tostring(L, idx));
  }
  if (lua_type(L, idx) != LUA_TTABLE)
    return kn_fail(ctx, KN_ARG, "to: a dtype, a device, a tensor or a table is needed, got %s",
                   kl_kind(L, idx));
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    kn_status st = !strcmp(key, "dtype") ? kl_read_dtype(L, ctx, -1, "to", &to->dtype)
                   : !strcmp(key, "device")
                       ? kl_read_device(L, ctx, -1, "to", &to->device)
                       : kn_fail(ctx, KN_ARG, "to: there is no option '%s'; there are dtype, device", key);
    lua_pop(L, 1);
    if (st != KN_OK) {
      lua_pop(L, 1);
      return st;
    }
  }
  return KN_OK;
}

/* Itself where nothing changes. The fewest bytes go over. */
static int give_as(lua_State *L, target to) {
  kn_context *ctx = kl_context(L);
  kn_tensor *t = kl_check_tensor(L, 1), *out = NULL;
  const kn_dtype from = kn_tensor_dtype(t);
  if (t->type.device == to.device) {
    lua_settop(L, 1);
    return cast_to(L, to.dtype);
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  kn_scope s;
  kn_scope_open(&s, ctx);
  if (kn_dtype_size(to.dtype) < kn_dtype_size(from)) t = kx_cast(&s, t, to.dtype);
  t = kx_to_device(&s, t, to.device);
  if (t && kn_tensor_dtype(t) != to.dtype) t = kx_cast(&s, t, to.dtype);
  kn_status st = kn_scope_close(&s, t, &out);
  return give(L, slot, st, &out);
}

static int tensor_to(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  target to = {kn_tensor_dtype(t), (kn_device_id)t->type.device};
  int top = lua_gettop(L);
  if (top < 2) return kl_error(L, KN_ARG, "to: a dtype or a device is needed");
  for (int i = 2; i <= top; i++) kl_check(L, read_target(L, kl_context(L), i, &to));
  return give_as(L, to);
}

static int tensor_cpu(lua_State *L) {
  return give_as(L, (target){kn_tensor_dtype(kl_check_tensor(L, 1)), KN_CPU});
}

static int tensor_cuda(lua_State *L) {
  const kn_memory *m;
  target to = {kn_tensor_dtype(kl_check_tensor(L, 1)), KN_CUDA};
  kn_status st = kn_device_memory(kl_context(L), KN_CUDA, &m);
  if (st != KN_OK) kn_error_prefix(kl_context(L), "cuda");
  kl_check(L, st);
  return give_as(L, to);
}

/* Itself when its elements already lie in order. */
static int contiguous(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1), *out = NULL;
  bool in_order;
  kl_check(L, kn_is_contiguous(kl_context(L), t, &in_order));
  if (in_order) {
    lua_settop(L, 1);
    return 1;
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  return give(L, slot, kn_apply(kl_context(L), KN_OP_clone, NULL, &t, 1, &out), &out);
}

static int detach(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1), *out = NULL;
  kn_tensor **slot = kl_reserve_tensor(L);
  give(L, slot, kn_detach(kl_context(L), t, &out), &out);
  kl_check(L, kn_note_detached(kl_context(L), out));
  return 1;
}

/* x:t(): a matrix transposed; what has fewer dims as it is. */
static int transposed(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1), *out = NULL;
  if (t->type.rank > 2)
    return kl_error(L, KN_SHAPE, "t: a tensor of at most 2 dimensions is needed, got %d; use transpose",
                    t->type.rank);
  kn_tensor **slot = kl_reserve_tensor(L);
  kn_attrs_swap a = {.dim0 = 0, .dim1 = t->type.rank == 2};
  return give(L, slot, kn_apply(kl_context(L), KN_OP_transpose, &a, &t, 1, &out), &out);
}

/* ---- to Lua ---- */

static void push_element(lua_State *L, const kn_tensor *t, int64_t at) {
  kn_dtype d = kn_tensor_dtype(t);
  const void *x = (const char *)t->storage->data + at * (int64_t)kn_dtype_size(d);
  switch (kn_dtypes[d].category) {
  case KN_CAT_BOOL: lua_pushboolean(L, kn_element_int(d, x) != 0); break;
  case KN_CAT_INT: lua_pushinteger(L, kn_element_int(d, x)); break;
  case KN_CAT_FLOAT: lua_pushnumber(L, kn_element_float(d, x)); break;
  }
}

static void push_nested(lua_State *L, const kn_tensor *t, int dim, int64_t at) {
  if (dim == t->type.rank) {
    push_element(L, t, at);
    return;
  }
  int64_t n = t->type.dims[dim];
  luaL_checkstack(L, 4, "totable");
  lua_createtable(L, n < INT32_MAX ? (int)n : 0, 0);
  for (int64_t i = 0; i < n; i++) {
    push_nested(L, t, dim + 1, at + i * t->strides[dim]);
    lua_rawseti(L, -2, i + 1);
  }
}

static int totable(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  if (!t->storage) return kl_error(L, KN_STATE, "totable: the elements are known only when the graph runs");
  t = kl_on_host(L, t);
  push_nested(L, t, 0, t->offset);
  return 1;
}

/* ---- comparing whole tensors ---- */

static bool same_shape(const kn_tensor *a, const kn_tensor *b) {
  if (a->type.rank != b->type.rank) return false;
  for (int i = 0; i < a->type.rank; i++) {
    int64_t m = a->type.dims[i], n = b->type.dims[i];
    if (kn_dim_known(m) && kn_dim_known(n) && m != n) return false;
  }
  return true;
}

static int give_truth(lua_State *L, kn_context *ctx, kn_status st, kn_tensor *const *made) {
  kn_tensor *t = *made;
  kn_scalar s;
  if (st == KN_OK) {
    st = kn_item(ctx, t, &s);
    kn_tensor_release(t);
  }
  kl_check(L, st);
  kl_push_scalar(L, &s);
  return 1;
}

/* a:equal(b): same shape and elements (of any dtypes). */
static int equal(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kn_tensor *a = kl_check_tensor(L, 1), *b = kl_check_tensor(L, 2), *out = NULL;
  if (!same_shape(a, b)) {
    lua_pushboolean(L, 0);
    return 1;
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_attrs_reduce over = {.keepdim = false};
  kn_tensor *r = kx_apply(&s, KN_OP_all, &over, (kn_tensor *[]){kx_eq(&s, a, b)}, 1);
  return give_truth(L, ctx, kn_scope_close(&s, r, &out), &out);
}

typedef struct tolerance {
  double rtol, atol;
  bool equal_nan;
} tolerance;

static kn_status read_tolerance(lua_State *L, kn_context *ctx, int idx, tolerance *t) {
  if (lua_isnoneornil(L, idx)) return KN_OK;
  if (lua_type(L, idx) != LUA_TTABLE)
    return kn_fail(ctx, KN_ARG, "allclose: options must be a table, got %s", kl_kind(L, idx));
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    bool number = lua_type(L, -1) == LUA_TNUMBER, known = true;
    if (!strcmp(key, "rtol") && number)
      t->rtol = lua_tonumber(L, -1);
    else if (!strcmp(key, "atol") && number)
      t->atol = lua_tonumber(L, -1);
    else if (!strcmp(key, "equal_nan"))
      t->equal_nan = lua_toboolean(L, -1);
    else
      known = false;
    if (!known) {
      kn_fail(ctx, KN_ARG, "allclose: option '%s' is unknown or no number; there are rtol, atol, equal_nan",
              key);
      lua_pop(L, 2);
      return KN_ARG;
    }
    lua_pop(L, 1);
  }
  return KN_OK;
}

/* |a - b| <= atol + rtol |b|, in float64; equal infinities are close. */
static int allclose(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kn_tensor *a = kl_check_tensor(L, 1), *b = kl_check_tensor(L, 2), *out = NULL;
  tolerance t = {1e-5, 1e-8, false};
  kl_check(L, read_tolerance(L, ctx, 3, &t));
  if (!same_shape(a, b)) {
    lua_pushboolean(L, 0);
    return 1;
  }
  bool grad = ctx->grad_enabled;
  ctx->grad_enabled = false;
  kn_scope s;
  kn_scope_open(&s, ctx);
  a = kx_cast(&s, a, KN_F64);
  b = kx_cast(&s, b, KN_F64);
  kn_tensor *room = kx_add(&s, kx_mul(&s, kx_abs(&s, b), kx_number(&s, t.rtol, b)), kx_number(&s, t.atol, b));
  kn_tensor *finite = kx_lt(&s, kx_abs(&s, b), kx_number(&s, HUGE_VAL, b));
  kn_tensor *near = kx_bitwise_and(&s, finite, kx_le(&s, kx_abs(&s, kx_sub(&s, a, b)), room));
  kn_tensor *close = kx_bitwise_or(&s, near, kx_eq(&s, a, b));
  if (t.equal_nan) close = kx_bitwise_or(&s, close, kx_bitwise_and(&s, kx_isnan(&s, a), kx_isnan(&s, b)));
  kn_attrs_reduce over = {.keepdim = false};
  kn_tensor *r = kx_apply(&s, KN_OP_all, &over, (kn_tensor *[]){close}, 1);
  kn_status st = kn_scope_close(&s, r, &out);
  ctx->grad_enabled = grad;
  return give_truth(L, ctx, st, &out);
}

/* ---- filling in place ---- */

static int fill_with(lua_State *L, const char *name, const kn_scalar *v) {
  kn_context *ctx = kl_context(L);
  kn_tensor *t = kl_check_tensor(L, 1), *value, *same;
  kl_check(L, kn_scalar_tensor_for(ctx, name, v, kn_tensor_dtype(t), &value));
  kn_status st = kn_apply(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){t, value}, 2, &same);
  kn_tensor_release(value);
  if (st != KN_OK) {
    kn_error_prefix(ctx, "%s", name);
    return kl_fail(L);
  }
  kn_tensor_release(same);
  lua_settop(L, 1);
  return 1;
}

static int fill(lua_State *L) {
  kn_scalar s;
  if (!kl_test_scalar(L, 2, &s))
    return kl_error(L, KN_ARG, "fill_: a number is needed, got %s", kl_kind(L, 2));
  return fill_with(L, "fill_", &s);
}

static int zero(lua_State *L) { return fill_with(L, "zero_", &(kn_scalar){KN_SCALAR_INT, {.i = 0}}); }

void kl_open_convert(lua_State *L) {
  static const luaL_Reg engine[] = {{"to", tensor_to},
#define X(name, dtype) {#name, to_##name},
                                    CONVERSIONS(X)
#undef X
                                        {"type_as", type_as},
                                    {"cpu", tensor_cpu},
                                    {"cuda", tensor_cuda},
                                    {"contiguous", contiguous},
                                    {"detach", detach},
                                    {"t", transposed},
                                    {"fill_", fill},
                                    {"zero_", zero},
                                    {NULL, NULL}};
  static const luaL_Reg both[] = {{"equal", equal}, {"allclose", allclose}, {NULL, NULL}};
  static const luaL_Reg plain[] = {{"totable", totable}, {NULL, NULL}};
  kl_set_methods(L, engine, false, true);
  kl_set_methods(L, both, true, true);
  kl_set_methods(L, plain, false, false);
}
