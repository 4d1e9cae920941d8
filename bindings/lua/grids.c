/* Functions over several tensors that do not fit a row of the op table: meshgrid and broadcast_tensors give a
 * table, tensordot takes a number of dims or two lists of them. */
#include "bindings/lua/args.h"
#include "core/type.h"
#include <string.h>

/* The tensors at [1, top], or those of a table that stands first; *rest is the argument behind them. */
static int read_tensors(lua_State *L, const char *name, kn_tensor **in, int *rest) {
  int top = lua_gettop(L), n = 0;
  bool table = lua_type(L, 1) == LUA_TTABLE;
  size_t count = table ? (size_t)lua_rawlen(L, 1) : (size_t)top;
  for (size_t i = 1; i <= count; i++) {
    if (table) lua_rawgeti(L, 1, (lua_Integer)i); /* the table keeps it */
    kn_tensor *t = kl_test_tensor(L, table ? -1 : (int)i);
    if (!t && !table && n > 0) break;
    if (!t)
      return kl_error(L, KN_ARG, "%s: tensors are needed, got %s", name, kl_kind(L, table ? -1 : (int)i));
    if (n == KN_MAX_INPUTS)
      return kl_error(L, KN_LIMIT, "%s: at most %d tensors at once", name, KN_MAX_INPUTS);
    if (table) lua_pop(L, 1);
    in[n++] = t;
  }
  if (n == 0) return kl_error(L, KN_ARG, "%s: a tensor or more are needed", name);
  *rest = table ? 2 : n + 1;
  return n;
}

/* op(x, attrs) as entry i of the table at idx. */
static kn_tensor *put(lua_State *L, int idx, int i, kn_op op, const void *attrs, kn_tensor *const *x, int n) {
  kn_tensor **slot = kl_reserve_tensor(L), *made;
  kl_check(L, kn_apply(kl_context(L), op, attrs, x, n, &made));
  kl_fill_tensor(L, slot, made);
  lua_rawseti(L, idx, i);
  return made;
}

/* Each expanded as their sum would be, without adding them. */
static int broadcast_tensors(lua_State *L) {
  kn_tensor *in[KN_MAX_INPUTS];
  int rest, n = read_tensors(L, "broadcast_tensors", in, &rest);
  kn_ints sizes = {0};
  for (int i = 0; i < n; i++)
    for (int d = 0; d < in[i]->type.rank; d++)
      if (!kn_dim_known(in[i]->type.dims[d]))
        return kl_error(L, KN_SHAPE, "broadcast_tensors: the sizes must be known here");
  for (int i = 0; i < n; i++) {
    int rank = in[i]->type.rank, more = rank - sizes.n;
    for (int d = sizes.n - 1; more > 0 && d >= 0; d--) sizes.v[d + more] = sizes.v[d];
    for (int d = 0; d < more; d++) sizes.v[d] = 1;
    if (more > 0) sizes.n = rank;
    for (int d = 0; d < rank; d++) {
      int64_t *to = &sizes.v[sizes.n - rank + d], size = in[i]->type.dims[d];
      if (size == *to || size == 1) continue;
      if (*to != 1)
        return kl_error(L, KN_SHAPE, "broadcast_tensors: sizes %lld and %lld of tensor %d do not broadcast",
                        (long long)*to, (long long)size, i + 1);
      *to = size;
    }
  }
  lua_newtable(L);
  int table = lua_gettop(L);
  const kn_attrs_sizes to = {.sizes = sizes};
  for (int i = 0; i < n; i++) put(L, table, i + 1, KN_OP_expand, &to, &in[i], 1);
  return 1;
}

/* The word at idx, or in its option `indexing`: "ij" (the default) or "xy". */
static bool crosses(lua_State *L, int idx) {
  if (lua_isnoneornil(L, idx)) return false;
  if (lua_type(L, idx) == LUA_TTABLE) {
    lua_getfield(L, idx, "indexing");
    lua_replace(L, idx);
  }
  const char *word = lua_type(L, idx) == LUA_TSTRING ? lua_tostring(L, idx) : "";
  if (strcmp(word, "ij") != 0 && strcmp(word, "xy") != 0)
    kl_error(L, KN_ARG, "meshgrid: indexing must be 'ij' or 'xy'");
  return word[0] == 'x';
}

/* meshgrid(a, b, … or {a, b, …}, "ij" or "xy"): for each list a tensor with its elements along its own dim.
 */
static int meshgrid(lua_State *L) {
  kn_tensor *in[KN_MAX_INPUTS];
  int rest, n = read_tensors(L, "meshgrid", in, &rest);
  bool xy = crosses(L, rest);
  kn_attrs_sizes whole = {.sizes = {.n = n}};
  if (n > KN_MAX_RANK) return kl_error(L, KN_SHAPE, "meshgrid: at most %d lists", KN_MAX_RANK);
  int dim[KN_MAX_RANK];
  for (int i = 0; i < n; i++) {
    int64_t size = in[i]->type.rank ? in[i]->type.dims[0] : 1;
    dim[i] = xy && n > 1 && i < 2 ? 1 - i : i;
    if (in[i]->type.rank > 1)
      return kl_error(L, KN_SHAPE, "meshgrid: tensor %d has more than one dim", i + 1);
    if (!kn_dim_known(size)) return kl_error(L, KN_SHAPE, "meshgrid: the sizes must be known here");
    whole.sizes.v[dim[i]] = size;
  }
  lua_newtable(L);
  int table = lua_gettop(L);
  for (int i = 0; i < n; i++) {
    kn_attrs_sizes own = {.sizes = {.n = n}};
    for (int d = 0; d < n; d++) own.sizes.v[d] = d == dim[i] ? whole.sizes.v[d] : 1;
    kn_tensor *turned = put(L, table, i + 1, KN_OP_reshape, &own, &in[i], 1);
    put(L, table, i + 1, KN_OP_expand, &whole, &turned, 1);
  }
  return 1;
}

static void read_list(lua_State *L, int idx, kn_ints *out) {
  size_t n = lua_type(L, idx) == LUA_TTABLE ? lua_rawlen(L, idx) : KN_MAX_RANK + 1;
  if (n > KN_MAX_RANK) kl_error(L, KN_ARG, "tensordot: dims must be a number of dims or two lists of them");
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    kl_check(L, kl_read_int(L, kl_context(L), lua_gettop(L), "tensordot", "a dim", KL_POSITION, false,
                            &out->v[out->n++]));
    lua_pop(L, 1);
  }
}

/* tensordot(a, b [, n]): over the last n dims of a and the first n of b; or ({…}, {…}): over these. */
static int tensordot(lua_State *L) {
  kn_tensor *in[2] = {kl_check_tensor(L, 1), kl_check_tensor(L, 2)}, *made;
  kn_attrs_tensordot at = {0};
  int64_t count = 2;
  lua_settop(L, 3);
  if (lua_type(L, 3) == LUA_TTABLE && lua_getfield(L, 3, "dims") != LUA_TNIL) lua_replace(L, 3);
  lua_settop(L, 3);
  if (lua_type(L, 3) == LUA_TTABLE) {
    lua_rawgeti(L, 3, 1);
    lua_rawgeti(L, 3, 2);
    read_list(L, 4, &at.dims_self);
    read_list(L, 5, &at.dims_other);
  } else {
    if (!lua_isnil(L, 3))
      kl_check(L, kl_read_int(L, kl_context(L), 3, "tensordot", "dims", KL_PLAIN, false, &count));
    if (count < 0 || count > in[0]->type.rank || count > in[1]->type.rank)
      return kl_error(L, KN_ARG, "tensordot: there are no %lld dims in each of the tensors",
                      (long long)count);
    for (int i = 0; i < (int)count; i++) {
      at.dims_self.v[at.dims_self.n++] = i - count;
      at.dims_other.v[at.dims_other.n++] = i;
    }
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, kn_apply(kl_context(L), KN_OP_tensordot, &at, in, 2, &made));
  kl_fill_tensor(L, slot, made);
  return 1;
}

void kl_open_grids(lua_State *L) {
  static const luaL_Reg of_module[] = {
      {"meshgrid", meshgrid}, {"broadcast_tensors", broadcast_tensors}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"tensordot", tensordot}, {NULL, NULL}};
  kl_set_engine_functions(L, of_module);
  kl_set_methods(L, methods, true, true);
}
