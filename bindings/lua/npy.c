/* kiln.from_npy(path), kiln.to_npy(path, tensor): NumPy's files. The format is bindings/io's. */
#include "bindings/lua/state.h"
#include "bindings/io/npy.h"

static void checked(lua_State *L, kn_status st, const char *name) {
  if (st != KN_OK) kn_error_prefix(kl_context(L), "%s", name);
  kl_check(L, st);
}

static int from_npy(lua_State *L) {
  const char *path = kl_check_text(L, 1, "from_npy", "a path", NULL);
  kn_tensor **slot = kl_reserve_tensor(L), *t = NULL;
  checked(L, kn_npy_read(kl_context(L), path, &t), "from_npy");
  kl_fill_tensor(L, slot, t);
  return 1;
}

static int to_npy(lua_State *L) {
  const char *path = kl_check_text(L, 1, "to_npy", "a path", NULL);
  kn_tensor *t = kl_test_tensor(L, 2);
  if (!t) return kl_error(L, KN_ARG, "to_npy: a tensor is needed after the path, got %s", kl_kind(L, 2));
  if (!t->storage) return kl_error(L, KN_STATE, "to_npy: the elements are known only when the graph runs");
  kl_check(L, kn_read_data(kl_context(L), t));
  checked(L, kn_npy_write(kl_context(L), path, t), "to_npy");
  return 0;
}

void kl_open_npy(lua_State *L) {
  static const luaL_Reg functions[] = {{"from_npy", from_npy}, {"to_npy", to_npy}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
