/* kiln.linalg.norm: of a vector or of a matrix, by what it is given; the norms themselves are rows of the op
 * table. */
#include "bindings/lua/state.h"
#include <string.h>

enum { ORD = 2, DIM = 3, KEEPDIM = 4 };

/* A table of options behind the arguments goes where they stand. */
static void spread_options(lua_State *L) {
  static const char *const names[] = {[ORD] = "ord", [DIM] = "dim", [KEEPDIM] = "keepdim"};
  int last = lua_gettop(L);
  if (last < 2 || lua_type(L, last) != LUA_TTABLE || lua_rawlen(L, last) > 0) {
    lua_settop(L, KEEPDIM);
    return;
  }
  lua_insert(L, 1); /* the options; everything else is one further */
  lua_settop(L, KEEPDIM + 1);
  for (lua_pushnil(L); lua_next(L, 1);) {
    int i = ORD;
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : kl_kind(L, -2);
    while (i <= KEEPDIM && strcmp(names[i], key)) i++;
    if (i > KEEPDIM) kl_error(L, KN_ARG, "norm: there is no option '%s'; there are ord, dim, keepdim", key);
    if (!lua_isnil(L, i + 1)) kl_error(L, KN_ARG, "norm: %s is given twice", key);
    lua_replace(L, i + 1);
  }
  lua_remove(L, 1);
}

/* Of matrices: two dims are named, or none and an order, and there are two. */
static bool is_of_matrix(lua_State *L, const kn_tensor *x) {
  if (lua_isnil(L, ORD)) return false;
  if (!lua_isnil(L, DIM)) return lua_type(L, DIM) == LUA_TTABLE && lua_rawlen(L, DIM) != 1;
  if (x->type.rank != 1 && x->type.rank != 2) {
    char type[KN_TYPE_TEXT];
    kl_error(L, KN_ARG, "norm: an order without dim is that of a vector or a matrix (got %s)",
             kn_type_text(&x->type, type, sizeof type));
  }
  return x->type.rank == 2;
}

/* norm(x [, ord [, dim [, keepdim]]]). Upvalues: vector_norm, matrix_norm. */
static int norm(lua_State *L) {
  kl_check_tensor(L, 1);
  spread_options(L);
  bool matrix = is_of_matrix(L, kl_check_tensor(L, 1));
  if (lua_isnil(L, ORD)) {
    lua_pushinteger(L, 2);
    lua_replace(L, ORD);
  }
  lua_pushvalue(L, lua_upvalueindex(matrix ? 2 : 1));
  lua_insert(L, 1);
  lua_call(L, KEEPDIM, 1);
  return 1;
}

void kl_open_linalg(lua_State *L) {
  lua_getfield(L, -1, "linalg");
  lua_getfield(L, -1, "vector_norm");
  lua_getfield(L, -2, "matrix_norm");
  lua_pushcclosure(L, norm, 2);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "norm");
  lua_pop(L, 1);
}
