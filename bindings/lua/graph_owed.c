/* Methods of Graphs that are promised and not there yet: each says so, and what there is instead (a row goes
 * when its method comes); methods of modules, which the module has; and names that are misspelt. */
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/state.h"

static const struct {
  const char *name, *instead;
} owed[] = {
    {"dot", "g:code() and tostring(g) show a graph as text"},
    {"html", "g:code() and tostring(g) show a graph as text"},
    {"debug",
     "kiln.explain(g, …) tells which branches were taken, KILN_DEBUG=exec lists each node as it runs"},
    {"quantize_dynamic", "a graph runs in the dtypes it was captured with"},
};

static int not_there(lua_State *L) {
  int row = (int)lua_tointeger(L, lua_upvalueindex(1));
  return kl_error(L, KN_UNSUPPORTED, "%s: this method of Graphs is not there yet; until then, %s",
                  owed[row].name, owed[row].instead);
}

static const char *const of_modules[] = {
    "children",        "eval",           "load_state_dict", "modules", "named_parameters",
    "register_buffer", "requires_grad_", "state_dict",      "to",      "train",
    "zero_grad"};

static int ask_the_module(lua_State *L) {
  return kl_error(
      L, KN_ARG,
      "%s: this is a method of modules, not of Graphs: call it on the module that kiln.script was given "
      "(nn.module_of(graph))",
      lua_tostring(L, lua_upvalueindex(1)));
}

static int no_method(lua_State *L) { /* __index of the table of methods */
  kl_check_misspelt(L, 2, 1, "Graph", "method");
  return 0;
}

void kl_set_owed_methods(lua_State *L) {
  for (size_t i = 0; i < sizeof owed / sizeof *owed; i++) {
    lua_pushinteger(L, (lua_Integer)i);
    lua_pushcclosure(L, not_there, 1);
    lua_setfield(L, -2, owed[i].name);
  }
  for (size_t i = 0; i < sizeof of_modules / sizeof *of_modules; i++) {
    lua_pushstring(L, of_modules[i]);
    lua_pushcclosure(L, ask_the_module, 1);
    lua_setfield(L, -2, of_modules[i]);
  }
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, no_method);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
}
