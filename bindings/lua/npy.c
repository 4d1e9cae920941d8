/* kiln.from_npy(path), kiln.to_npy(path, tensor): NumPy's files. The format is bindings/io's. */
#include "bindings/lua/state.h"
#include "bindings/io/npy.h"

static const char *path_argument(lua_State *L, const char *name) {
  if (lua_type(L, 1) != LUA_TSTRING) kl_error(L, KN_ARG, "%s: a path is needed, got %s", name, kl_kind(L, 1));
  return lua_tostring(L, 1);
}

static int from_npy(lua_State *L) {
  const char *path = path_argument(L, "from_npy");
  kn_tensor **slot = kl_reserve_tensor(L), *t = NULL;
  kl_check(L, kn_npy_read(kl_context(L), path, &t));
  kl_fill_tensor(L, slot, t);
  return 1;
}

static int to_npy(lua_State *L) {
  const char *path = path_argument(L, "to_npy");
  kn_tensor *t = kl_test_tensor(L, 2);
  if (!t) return kl_error(L, KN_ARG, "to_npy: a tensor is needed after the path, got %s", kl_kind(L, 2));
  if (!t->storage) return kl_error(L, KN_STATE, "to_npy: the elements are known only when the graph runs");
  kl_check(L, kn_npy_write(kl_context(L), path, t));
  return 0;
}

void kl_open_npy(lua_State *L) {
  static const luaL_Reg functions[] = {{"from_npy", from_npy}, {"to_npy", to_npy}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
