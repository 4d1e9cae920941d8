/* Tensors and symbolic numbers as userdata: made, recognised, freed, and looked at. Ops are in ops.c,
 * indexing in index.c. */
#include "bindings/lua/emit.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include <limits.h>
#include <string.h>

static const char tensor_key, symbol_key, methods_key; /* registry keys: metatables, the table of methods */

/* ---- telling the collector ----
 * Lua sees a tensor as a few bytes. What the heap has grown by is handed to it as if Lua's own memory had
 * grown by the same share: `budget` bytes of tensors count like one more Lua heap, so a round of the
 * collector starts after that many and a loop that drops its tensors stays flat. A round costs what Lua's
 * heap is large, not what tensors are, so a small Lua heap has one often: garbage that is still in the cache
 * is the quickest memory for the next op. */

enum { TELL_EVERY = 256 << 10, LEAST_BUDGET = 1 << 20, COMMON_BUDGET = 32 << 20, BUDGET_PER_BYTE = 4 };

static size_t most_of(size_t live) { return live / 2 > COMMON_BUDGET ? live / 2 : COMMON_BUDGET; }

static size_t budget_of(const kl_state *s, size_t lua_bytes) {
  size_t most = most_of(s->live), budget = lua_bytes * BUDGET_PER_BYTE;
  return budget < LEAST_BUDGET ? LEAST_BUDGET : budget > most ? most : budget;
}

static void tell(lua_State *L, kl_state *s, size_t now, size_t grown) {
  s->seen = now;
  if (!lua_gc(L, LUA_GCISRUNNING)) return;
  size_t lua_kb = (size_t)lua_gc(L, LUA_GCCOUNT);
  double kb = (double)lua_kb * (double)grown / (double)budget_of(s, lua_kb << 10) + 1;
  bool round = lua_gc(L, LUA_GCSTEP, kb < INT_MAX / 2 ? (int)kb : INT_MAX / 2);
  kl_bury(s);
  if (round) s->live = kn_heap_bytes(s->ctx->heap);
  if (now > s->full + most_of(s->full) + (lua_kb << 10)) { /* minor rounds leave old tensors alone */
    lua_gc(L, LUA_GCCOLLECT);
    kl_bury(s);
    s->seen = s->live = s->full = kn_heap_bytes(s->ctx->heap);
  } else if (round && s->live < s->full) {
    s->full = s->live;
  }
}

void kl_tell_of(lua_State *L, kl_state *s) {
  size_t now = kn_heap_bytes(s->ctx->heap);
  if (now < s->live) s->live = now;
  if (now < s->full) s->full = now;
  if (now < s->seen) s->seen = now;
  if (now - s->seen >= TELL_EVERY) tell(L, s, now, now - s->seen);
}

void kl_tell_collector(lua_State *L) { kl_tell_of(L, kl_state_of(L)); }

void kl_make_room(lua_State *L) {
  kl_state *s = kl_state_of(L);
  if (!kn_heap_read_stats(s->ctx->heap).limit) return;
  lua_gc(L, LUA_GCCOLLECT);
  kl_bury(s);
}

/* ---- tensors ---- */

kn_tensor **kl_reserve_tensor(lua_State *L) {
  kl_state *s = kl_state_of(L);
  if (s->boxes->ndead) kl_bury(s);
  kl_box *box = kl_new_box(L, s);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tensor_key);
  lua_setmetatable(L, -2);
  return &box->tensor;
}

void kl_put_tensor(kn_tensor **slot, kn_tensor *owned) { *slot = owned; }

void kl_fill_tensor(lua_State *L, kn_tensor **slot, kn_tensor *owned) {
  kl_put_tensor(slot, owned);
  kl_tell_collector(L);
}

kn_tensor *kl_on_host(lua_State *L, kn_tensor *t) {
  kl_check(L, kn_read_data(kl_context(L), t));
  if (t->type.device == KN_CPU) return t;
  kn_tensor **slot = kl_reserve_tensor(L), *host;
  kl_check(L, kn_to_host(kl_context(L), t, &host));
  kl_fill_tensor(L, slot, host);
  return host;
}

/* The reference must not be lost when Lua has no memory for the userdata. */
static int push_protected(lua_State *L) {
  *(kn_tensor ***)lua_touserdata(L, 1) = kl_reserve_tensor(L);
  return 1;
}

void kl_push_tensor(lua_State *L, kn_tensor *owned) {
  kn_tensor **slot;
  lua_pushcfunction(L, push_protected);
  lua_pushlightuserdata(L, &slot);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
    kn_tensor_release(owned);
    lua_error(L);
  }
  kl_fill_tensor(L, slot, owned);
}

static bool has_metatable(lua_State *L, int idx, const char *key) {
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx)) return false;
  lua_rawgetp(L, LUA_REGISTRYINDEX, key);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

static kl_box *test_box(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TUSERDATA) return NULL;
  kl_state *s = kl_find_state(L);
  return s ? kl_box_at(s, L, idx) : NULL;
}

kn_tensor *kl_test_tensor(lua_State *L, int idx) {
  kl_box *box = test_box(L, idx);
  return box ? box->tensor : NULL;
}

bool kl_is_released(lua_State *L, int idx) {
  kl_box *box = test_box(L, idx);
  return box && !box->tensor;
}

kn_tensor *kl_check_tensor(lua_State *L, int idx) {
  kn_tensor *t = kl_test_tensor(L, idx);
  if (t) return t;
  lua_Debug ar;
  bool named = lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar) && ar.name;
  kl_error(L, KN_ARG, "%s%sargument %d must be a tensor, got %s", named ? ar.name : "", named ? ": " : "",
           idx, kl_kind(L, idx));
  return NULL;
}

/* t:release() and the end of `local t <close>`: this handle gives up the tensor now. Its memory goes with the
 * last view of it, or the last thing saved for backward. A second time does nothing. */
static int tensor_release(lua_State *L) {
  kl_context(L);
  if (!kl_is_released(L, 1)) {
    kl_check_tensor(L, 1);
    kl_empty_box(kl_state_of(L)->boxes, lua_touserdata(L, 1));
  }
  return 0;
}

static int tensor_eq(lua_State *L) {
  kn_tensor *a = kl_test_tensor(L, 1), *b = kl_test_tensor(L, 2);
  lua_pushboolean(L, a && a == b);
  return 1;
}

/* ---- numbers ---- */

void kl_push_scalar(lua_State *L, const kn_scalar *s) {
  switch (s->kind) {
  case KN_SCALAR_INT: lua_pushinteger(L, s->as.i); return;
  case KN_SCALAR_FLOAT: lua_pushnumber(L, s->as.f); return;
  case KN_SCALAR_BOOL: lua_pushboolean(L, s->as.b); return;
  case KN_SCALAR_SYMBOL: break;
  }
  kn_scalar *symbol = lua_newuserdatauv(L, sizeof *symbol, 0);
  *symbol = *s;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &symbol_key);
  lua_setmetatable(L, -2);
}

bool kl_test_scalar(lua_State *L, int idx, kn_scalar *out) {
  switch (lua_type(L, idx)) {
  case LUA_TBOOLEAN: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = lua_toboolean(L, idx)}}; return true;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx))
      *out = (kn_scalar){KN_SCALAR_INT, {.i = lua_tointeger(L, idx)}};
    else
      *out = (kn_scalar){KN_SCALAR_FLOAT, {.f = lua_tonumber(L, idx)}};
    return true;
  case LUA_TUSERDATA:
    if (!has_metatable(L, idx, &symbol_key)) return false;
    *out = *(kn_scalar *)lua_touserdata(L, idx);
    return true;
  default: return false;
  }
}

bool kl_scalar_kind(const kn_scalar *s, kn_scalar_kind *out) {
  *out = s->kind;
  if (s->kind != KN_SCALAR_SYMBOL) return true;
  switch (((const kn_value *)s->as.value)->type.kind) {
  case KN_V_INT: *out = KN_SCALAR_INT; return true;
  case KN_V_FLOAT: *out = KN_SCALAR_FLOAT; return true;
  case KN_V_BOOL: *out = KN_SCALAR_BOOL; return true;
  case KN_V_TENSOR:
  case KN_V_LIST:
  case KN_V_NUMBER: break;
  }
  return false;
}

static int symbol_misused(lua_State *L) {
  return kl_error(L, KN_STATE,
                  "a number known only when the graph runs was used outside the function being captured");
}

/* ---- fields ---- */

static int push_sizes(lua_State *L, kn_tensor *t) {
  lua_createtable(L, t->type.rank, 0);
  for (int i = 0; i < t->type.rank; i++) {
    kn_scalar s;
    kl_check(L, kn_size(kl_context(L), t, i, &s));
    kl_push_scalar(L, &s);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int get_shape(lua_State *L) { return push_sizes(L, kl_check_tensor(L, 1)); }

static int get_dtype(lua_State *L) {
  lua_pushstring(L, kn_dtype_name(kn_tensor_dtype(kl_check_tensor(L, 1))));
  return 1;
}

static int get_is_cuda(lua_State *L) {
  lua_pushboolean(L, kl_check_tensor(L, 1)->type.device == KN_CUDA);
  return 1;
}

static int get_device(lua_State *L) {
  lua_pushstring(L, kn_device_name((kn_device_id)kl_check_tensor(L, 1)->type.device));
  return 1;
}

static int get_requires_grad(lua_State *L) {
  lua_pushboolean(L, kn_requires_grad(kl_check_tensor(L, 1)));
  return 1;
}

static int get_grad(lua_State *L) {
  kn_tensor *g = kn_grad_of(kl_check_tensor(L, 1));
  if (!g) return 0;
  kl_push_tensor(L, kn_tensor_retain(g));
  return 1;
}

static int get_is_leaf(lua_State *L) {
  lua_pushboolean(L, kn_is_leaf(kl_check_tensor(L, 1)));
  return 1;
}

/* The dims in reverse order; of matrices the last two exchanged. */
static int get_turned(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1), *out;
  kn_attrs_axes order = {.dims.n = t->type.rank};
  for (int d = 0; d < t->type.rank; d++) order.dims.v[d] = t->type.rank - 1 - d;
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, kn_apply(kl_context(L), KN_OP_permute, &order, &t, 1, &out));
  kl_fill_tensor(L, slot, out);
  return 1;
}

static int get_matrices_turned(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1), *out;
  const kn_attrs_swap last = {.dim0 = -2, .dim1 = -1};
  char text[KN_TYPE_TEXT];
  if (t->type.rank < 2)
    return kl_error(L, KN_SHAPE, "mT: matrices are needed (got %s)",
                    kn_type_text(&t->type, text, sizeof text));
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, kn_apply(kl_context(L), KN_OP_transpose, &last, &t, 1, &out));
  kl_fill_tensor(L, slot, out);
  return 1;
}

/* Fields by name: what t.name computes. */
static const luaL_Reg fields[] = {{"shape", get_shape},
                                  {"dtype", get_dtype},
                                  {"device", get_device},
                                  {"is_cuda", get_is_cuda},
                                  {"requires_grad", get_requires_grad},
                                  {"grad", get_grad},
                                  {"is_leaf", get_is_leaf},
                                  {"T", get_turned},
                                  {"mT", get_matrices_turned},
                                  {NULL, NULL}};

/* ---- methods ---- */

static int dim_argument(lua_State *L, const kn_tensor *t, int idx) {
  int is_int;
  lua_Integer d = lua_tointegerx(L, idx, &is_int);
  int rank = t->type.rank;
  if (lua_type(L, idx) != LUA_TNUMBER || !is_int)
    kl_error(L, KN_ARG, "size: dim must be an integer, got %s", kl_kind(L, idx));
  if (d == 0 || d > rank || d < -rank)
    kl_error(L, KN_ARG, "size: dim %lld does not exist in a tensor of %d dimensions", (long long)d, rank);
  return (int)(d > 0 ? d - 1 : d + rank);
}

static int tensor_size(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  if (lua_isnoneornil(L, 2)) return push_sizes(L, t);
  kn_scalar s;
  kl_check(L, kn_size(kl_context(L), t, dim_argument(L, t, 2), &s));
  kl_push_scalar(L, &s);
  return 1;
}

static int tensor_len(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  kn_scalar s;
  if (t->type.rank == 0) return kl_error(L, KN_SHAPE, "#: a tensor without dimensions has no length");
  kl_check(L, kn_size(kl_context(L), t, 0, &s));
  kl_push_scalar(L, &s);
  return 1;
}

static int tensor_dim(lua_State *L) {
  lua_pushinteger(L, kl_check_tensor(L, 1)->type.rank);
  return 1;
}

/* Of unknown sizes only the recorder knows the product: the sum of ones. */
static int tensor_numel(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  kn_scalar s = {KN_SCALAR_INT, {.i = kn_tensor_numel(t)}};
  if (s.as.i == KN_DIM_UNKNOWN) {
    kn_context *ctx = kl_context(L);
    kn_tensor *ones = NULL, *count = NULL;
    kn_attrs_cast to = {.dtype = KN_I64};
    kn_attrs_reduce all = {.keepdim = false};
    kn_status st = kn_apply(ctx, KN_OP_ones_like, NULL, &t, 1, &ones);
    kn_tensor *whole = NULL;
    if (st == KN_OK) st = kn_apply(ctx, KN_OP_cast, &to, &ones, 1, &whole);
    if (st == KN_OK) st = kn_apply(ctx, KN_OP_sum, &all, &whole, 1, &count);
    if (st == KN_OK) st = kn_item(ctx, count, &s);
    kn_tensor_release(ones);
    kn_tensor_release(whole);
    kn_tensor_release(count);
    kl_check(L, st);
  }
  kl_push_scalar(L, &s);
  return 1;
}

static int tensor_item(lua_State *L) {
  kn_scalar s;
  kl_check(L, kn_item(kl_context(L), kl_check_tensor(L, 1), &s));
  kl_push_scalar(L, &s);
  return 1;
}

static int is_contiguous(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  lua_pushboolean(L, t->storage && kn_tensor_contiguous(t));
  return 1;
}

static int is_tensor(lua_State *L) {
  lua_pushboolean(L, kl_test_tensor(L, 1) != NULL);
  return 1;
}

static const luaL_Reg functions[] = {{"is_tensor", is_tensor}, {NULL, NULL}};
static const luaL_Reg plain_methods[] = {
    {"is_contiguous", is_contiguous}, {"release", tensor_release}, {NULL, NULL}};
static const luaL_Reg engine_methods[] = {
    {"size", tensor_size}, {"dim", tensor_dim}, {"numel", tensor_numel}, {"item", tensor_item}, {NULL, NULL}};

/* ---- tables ---- */

void kl_push_methods(lua_State *L) { lua_rawgetp(L, LUA_REGISTRYINDEX, &methods_key); }
void kl_push_tensor_metatable(lua_State *L) { lua_rawgetp(L, LUA_REGISTRYINDEX, &tensor_key); }

void kl_set_methods(lua_State *L, const luaL_Reg *list, bool module, bool engine) {
  int top = lua_gettop(L);
  kl_push_methods(L);
  for (; list->name; list++) {
    lua_pushcfunction(L, list->func);
    if (engine) kl_mark_engine(L, -1);
    if (module) {
      lua_pushvalue(L, -1);
      lua_setfield(L, top, list->name);
    }
    lua_setfield(L, -2, list->name);
  }
  lua_pop(L, 1);
}

static void make_symbols(lua_State *L) {
  static const char *const events[] = {"__add", "__sub",   "__mul",      "__div",  "__mod",     "__pow",
                                       "__unm", "__idiv",  "__band",     "__bor",  "__bxor",    "__shl",
                                       "__shr", "__bnot",  "__concat",   "__len",  "__eq",      "__lt",
                                       "__le",  "__index", "__newindex", "__call", "__tostring"};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    lua_pushcfunction(L, symbol_misused);
    lua_setfield(L, -2, events[i]);
  }
  kl_set_symbol_arithmetic(L);
  lua_pushliteral(L, "kiln.symbol");
  lua_setfield(L, -2, "__name");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &symbol_key);
}

void kl_open_tensor(lua_State *L) {
  make_symbols(L);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &methods_key);
  lua_newtable(L); /* the metatable; index.c and ops.c add the rest of its events */
  static const luaL_Reg events[] = {{"__close", tensor_release}, {"__eq", tensor_eq}, {NULL, NULL}};
  luaL_setfuncs(L, events, 0);
  lua_pushcfunction(L, tensor_len);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "__len");
  lua_pushliteral(L, "kiln.tensor");
  lua_setfield(L, -2, "__name");
  lua_newtable(L); /* fields: found by __index, computed by calling them */
  kl_set_engine_functions(L, fields);
  lua_setfield(L, -2, "fields");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tensor_key);
  kl_set_methods(L, engine_methods, false, true);
  kl_set_methods(L, plain_methods, false, false);
  kl_set_engine_functions(L, functions);
}
