/* luaopen_kiln: the module table from its parts, in the order they need each other. */
#include "bindings/lua/kiln_lua.h"
#include "bindings/lua/state.h"

int luaopen_kiln(lua_State *L) {
  luaL_checkversion(L); /* first: nothing else is safe in a Lua of another version */
  kl_state_open(L, NULL);
  lua_createtable(L, 0, 256);
  kl_open_tensor(L);
  kl_open_ops(L);
  kl_open_linalg(L);
  kl_open_parts(L);
  kl_open_grids(L);
  kl_open_recurrent(L);
  kl_open_index(L);
  kl_open_create(L);
  kl_open_convert(L);
  kl_open_show(L);
  kl_open_autograd(L);
  kl_open_hooks(L);
  kl_open_system(L);
  kl_open_cuda(L);
  kl_open_npy(L);
  kl_open_buffers(L);
  kl_open_weights(L);
  kl_open_readers(L);
  kl_open_directory(L);
  kl_open_graph(L);
  kl_open_script(L);
  kl_open_tracer(L);
  kl_open_emit(L);
  kl_open_host(L);
  kl_open_host_ops(L);
  kl_open_builder(L);
  kl_open_help(L);
  kl_open_files(L);
  return 1;
}
