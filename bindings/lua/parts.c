/* Functions whose results or arguments do not fit a row of the op table: split, chunk, tensor_split and
 * unbind give a table of views; einsum takes an equation; index_put takes a table of indices. */
#include "bindings/lua/args.h"
#include "core/einsum.h"
#include <string.h>

/* ---- tables of parts ---- */

static int read_dim(lua_State *L, int idx, const kn_tensor *x, const char *name) {
  int64_t dim = 0;
  if (!lua_isnoneornil(L, idx))
    kl_check(L, kl_read_int(L, kl_context(L), idx, name, "dim", KL_POSITION, false, &dim));
  if (dim < 0) dim += x->type.rank;
  if (dim < 0 || dim >= x->type.rank)
    return kl_error(L, KN_ARG, "%s: there is no such dim in %d dimensions", name, x->type.rank);
  return (int)dim;
}

static int64_t known_size(lua_State *L, const kn_tensor *x, int dim, const char *name) {
  int64_t size = x->type.dims[dim];
  if (!kn_dim_known(size))
    return kl_error(L, KN_SHAPE, "%s: the size of dim %d must be known: it decides how many parts there are",
                    name, dim + 1);
  return size;
}

/* The part as entry `i` of the table on top. */
static void add_part(lua_State *L, kn_tensor *x, kn_op op, const void *attrs, lua_Integer i) {
  kn_tensor **slot = kl_reserve_tensor(L), *part;
  kl_check(L, kn_apply(kl_context(L), op, attrs, &x, 1, &part));
  kl_fill_tensor(L, slot, part);
  lua_rawseti(L, -2, i);
}

static void add_range(lua_State *L, kn_tensor *x, int dim, int64_t start, int64_t stop, lua_Integer i) {
  kn_attrs_slice range = {.dim = dim, .start = start, .stop = stop, .step = 1};
  add_part(L, x, KN_OP_slice, &range, i);
}

/* Parts of `each` elements; the last may be shorter. */
static int split_evenly(lua_State *L, kn_tensor *x, int dim, int64_t size, int64_t each) {
  lua_newtable(L);
  lua_Integer n = 0;
  for (int64_t at = 0; at < size || n == 0; at += each)
    add_range(L, x, dim, at, size - at < each ? size : at + each, ++n);
  return 1;
}

/* The sizes at idx, checked against that of dim, which need not be known. */
static int read_sizes(lua_State *L, int idx, const kn_tensor *x, int dim, int64_t *sizes) {
  size_t n = lua_rawlen(L, idx);
  int64_t size = x->type.dims[dim], sum = 0;
  if (n > KN_MAX_INPUTS) return kl_error(L, KN_LIMIT, "split: at most %d sizes", KN_MAX_INPUTS);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i + 1);
    kl_check(L, kl_read_int(L, kl_context(L), lua_gettop(L), "split", "a size", KL_PLAIN, false, &sizes[i]));
    lua_pop(L, 1);
    if (sizes[i] < 0 || __builtin_add_overflow(sum, sizes[i], &sum))
      return kl_error(L, KN_ARG, "split: %lld cannot be a size", (long long)sizes[i]);
  }
  if (kn_dim_known(size) && sum != size)
    return kl_error(L, KN_SHAPE, "split: the sizes do not add up to the %lld elements of dim %d",
                    (long long)size, dim + 1);
  return (int)n;
}

/* split(x, size [, dim]) or split(x, {size, …} [, dim]) */
static int split(lua_State *L) {
  kn_tensor *x = kl_check_tensor(L, 1);
  int dim = read_dim(L, 3, x, "split");
  int64_t each = 0, sizes[KN_MAX_INPUTS], at = 0;
  if (lua_type(L, 2) != LUA_TTABLE) {
    kl_check(L, kl_read_int(L, kl_context(L), 2, "split", "size", KL_PLAIN, false, &each));
    if (each < 1) return kl_error(L, KN_ARG, "split: the size must be at least 1, not %lld", (long long)each);
    return split_evenly(L, x, dim, known_size(L, x, dim, "split"), each);
  }
  int n = read_sizes(L, 2, x, dim, sizes);
  lua_newtable(L);
  for (int i = 0; i < n; at += sizes[i++]) add_range(L, x, dim, at, at + sizes[i], i + 1);
  return 1;
}

/* chunk(x, n [, dim]): at most n parts of one size, the last perhaps shorter. */
static int chunk(lua_State *L) {
  kn_tensor *x = kl_check_tensor(L, 1);
  int dim = read_dim(L, 3, x, "chunk");
  int64_t size = known_size(L, x, dim, "chunk"), n;
  kl_check(L, kl_read_int(L, kl_context(L), 2, "chunk", "the number of chunks", KL_PLAIN, false, &n));
  if (n < 1) return kl_error(L, KN_ARG, "chunk: the number of chunks must be at least 1");
  int64_t each = size / n + (size % n != 0);
  return split_evenly(L, x, dim, size, each ? each : 1);
}

/* In n parts, the first of them one longer where it does not come out even; or parts that begin at the places
 * in a table, the first before them. */
static int split_at(lua_State *L, const char *name, kn_tensor *x, int idx, int dim) {
  int64_t size = known_size(L, x, dim, name), n, at = 0;
  if (lua_type(L, idx) != LUA_TTABLE) {
    kl_check(L, kl_read_int(L, kl_context(L), idx, name, "the number of parts", KL_PLAIN, false, &n));
    if (n < 1)
      return kl_error(L, KN_ARG, "%s: the number of parts must be at least 1, not %lld", name, (long long)n);
    lua_newtable(L);
    for (int64_t i = 0, length; i < n; i++, at += length) {
      length = size / n + (i < size % n);
      add_range(L, x, dim, at, at + length, i + 1);
    }
    return 1;
  }
  size_t places = lua_rawlen(L, idx);
  lua_newtable(L);
  for (size_t i = 1; i <= places + 1; i++) {
    int64_t stop = size;
    if (i <= places) {
      lua_rawgeti(L, idx, (lua_Integer)i);
      kl_check(L, kl_read_int(L, kl_context(L), lua_gettop(L), name, "a place", KL_POSITION, false, &stop));
      lua_pop(L, 1);
    }
    if (stop < 0) stop = stop + size < 0 ? 0 : stop + size;
    if (stop > size) stop = size;
    add_range(L, x, dim, at, stop < at ? at : stop, (lua_Integer)i);
    at = stop;
  }
  return 1;
}

/* tensor_split(x, n or {place, …} [, dim]) */
static int tensor_split(lua_State *L) {
  kn_tensor *x = kl_check_tensor(L, 1);
  return split_at(L, "tensor_split", x, 2, read_dim(L, 3, x, "tensor_split"));
}

/* Along a dim of its own; n parts must be even. */
static int split_along(lua_State *L, const char *name, int dim, int rank) {
  kn_tensor *x = kl_check_tensor(L, 1);
  if (x->type.rank < rank)
    return kl_error(L, KN_SHAPE, "%s: at least %d dim%s needed", name, rank, rank == 1 ? " is" : "s are");
  int64_t size = known_size(L, x, dim, name);
  if (lua_isinteger(L, 2) && lua_tointeger(L, 2) > 0 && size % lua_tointeger(L, 2))
    return kl_error(L, KN_SHAPE, "%s: %lld elements do not make %lld even parts", name, (long long)size,
                    (long long)lua_tointeger(L, 2));
  return split_at(L, name, x, 2, dim);
}
static int hsplit(lua_State *L) { return split_along(L, "hsplit", kl_check_tensor(L, 1)->type.rank > 1, 1); }
static int vsplit(lua_State *L) { return split_along(L, "vsplit", 0, 2); }
static int dsplit(lua_State *L) { return split_along(L, "dsplit", 2, 3); }

/* unbind(x [, dim]): every position of dim, which is dropped. */
static int unbind(lua_State *L) {
  kn_tensor *x = kl_check_tensor(L, 1);
  int dim = read_dim(L, 2, x, "unbind");
  int64_t size = known_size(L, x, dim, "unbind");
  lua_newtable(L);
  for (int64_t i = 0; i < size; i++) {
    kn_attrs_select at = {.dim = dim, .index = i};
    add_part(L, x, KN_OP_select, &at, i + 1);
  }
  return 1;
}

/* ---- lists of inputs ---- */

/* The tensors of the table at idx behind the n there are already. */
static int read_tensors(lua_State *L, int idx, const char *name, kn_tensor **in, int n) {
  size_t more = lua_rawlen(L, idx);
  if (more > (size_t)(KN_MAX_INPUTS - n))
    return kl_error(L, KN_LIMIT, "%s: at most %d tensors at once", name, KN_MAX_INPUTS - n);
  for (size_t i = 1; i <= more; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    in[n] = kl_test_tensor(L, -1);
    if (!in[n])
      return kl_error(L, KN_ARG, "%s: entry %d of the table must be a tensor, got %s", name, (int)i,
                      kl_kind(L, -1));
    lua_pop(L, 1); /* the table keeps it */
    n++;
  }
  return n;
}

/* einsum(equation, a, b, …) or einsum(equation, {a, b, …}) */
static int einsum(lua_State *L) {
  kn_tensor *in[KN_MAX_INPUTS], *result;
  int top = lua_gettop(L), n = 0;
  if (lua_type(L, 1) != LUA_TSTRING)
    return kl_error(L, KN_ARG, "einsum: the equation must be a string, got %s", kl_kind(L, 1));
  if (top == 2 && lua_type(L, 2) == LUA_TTABLE) {
    n = read_tensors(L, 2, "einsum", in, 0);
  } else {
    if (top - 1 > KN_MAX_INPUTS)
      return kl_error(L, KN_LIMIT, "einsum: at most %d tensors at once", KN_MAX_INPUTS);
    for (int i = 2; i <= top; i++) in[n++] = kl_check_tensor(L, i);
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, kn_einsum(kl_context(L), lua_tostring(L, 1), in, n, &result));
  kl_fill_tensor(L, slot, result);
  return 1;
}

/* true, or {accumulate = true} */
static bool read_accumulate(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE) return lua_toboolean(L, idx);
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "accumulate") != 0)
      kl_error(L, KN_ARG, "index_put: the only option is accumulate");
    lua_pop(L, 1);
  }
  lua_getfield(L, idx, "accumulate");
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

/* index_put(x, {i1, …}, values [, accumulate]) and x:index_put_(…) */
static int put_by_index(lua_State *L, bool inplace) {
  const char *name = inplace ? "index_put_" : "index_put";
  kn_tensor *in[KN_MAX_INPUTS] = {kl_check_tensor(L, 1), NULL}, *result;
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "%s: a table of index tensors is needed, got %s", name, kl_kind(L, 2));
  in[1] = kl_check_tensor(L, 3);
  kn_attrs_index_put how = {.accumulate = read_accumulate(L, 4)};
  int n = read_tensors(L, 2, name, in, 2);
  kn_context *ctx = kl_context(L);
  if (inplace) {
    kl_check(L, kn_apply_inplace(ctx, KN_OP_index_put, &how, in, n, &result));
    kn_tensor_release(result);
    lua_settop(L, 1);
    return 1;
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, kn_apply(ctx, KN_OP_index_put, &how, in, n, &result));
  kl_fill_tensor(L, slot, result);
  return 1;
}

static int index_put(lua_State *L) { return put_by_index(L, false); }
static int index_put_inplace(lua_State *L) { return put_by_index(L, true); }

void kl_open_parts(lua_State *L) {
  static const luaL_Reg methods[] = {{"split", split},
                                     {"chunk", chunk},
                                     {"unbind", unbind},
                                     {"tensor_split", tensor_split},
                                     {"hsplit", hsplit},
                                     {"vsplit", vsplit},
                                     {"dsplit", dsplit},
                                     {"index_put", index_put},
                                     {"index_put_", index_put_inplace},
                                     {NULL, NULL}};
  kl_set_methods(L, methods, true, true);
  lua_pushcfunction(L, einsum);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "einsum");
}
