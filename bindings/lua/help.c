/* kiln.help(name): what the op table says of an op, and a sentence on each function that makes or uses
 * graphs. Some names are both: kiln.trace and kiln.cond tell by their arguments which is meant. */
#include "bindings/lua/state.h"
#include "core/op.h"
#include <string.h>

static const struct {
  const char *name, *form, *text;
} about[] = {
    {"script", "script(f [, {inputs =, cache_limit =}])",
     "a Lua function or module as a Graph, captured from its bytecode when it is first called, or at once "
     "where "
     "`inputs` describes its arguments"},
    {"spec", "spec(dtype, sizes)",
     "what a tensor argument is: kiln.spec(\"float32\", {\"N\", 10}); a string names a size that is free"},
    {"trace", "trace(f, inputs [, {check_inputs =, strict =, rtol =, atol =, warn =}])",
     "runs f once and gives a Graph of the ops it did; warns where data became a Lua value"},
    {"builder", "builder([name])",
     "a graph by hand: b:input(name, spec) gives symbols, b:build{ y = y } the Graph, which takes and gives "
     "tables"},
    {"cond", "cond(pred, f, g, …)", "f(…) when pred is true, else g(…); in a graph a branch"},
    {"while_loop", "while_loop(cond, body, …)",
     "while cond(…) is true, the values become body(…); gives the last ones; in a graph a loop"},
    {"fork", "fork(f, …)",
     "runs f(…) as a part of its own, and gives a future; kiln.wait(future) gives its results"},
    {"wait", "wait(future)", "the results of what kiln.fork ran; an error in it is raised here"},
    {"ignore", "ignore(f [, {name =, results =}])",
     "f stays a call back into the host, by name, in graphs; `results` lists what it gives"},
    {"unused", "unused(f)", "stands for f where it is never to be called: reached, it raises"},
    {"is_capturing", "is_capturing()", "whether the caller is being captured"},
    {"lint", "lint(f)", "a list of what capture would refuse or burn in, with lines, without capturing"},
    {"explain", "explain(f, …)",
     "what f became when captured and what a run on these arguments does: a table that prints itself"},
    {"parse", "parse(text)", "the Graph that tostring(g) was the text of"},
    {"save", "save(path, {name = graph, …})", "Graphs as entry points of one file; g:save(path) saves one"},
    {"load", "load(path)", "the Graph in a file, or a table of them by name"},
};

static bool alias_of(const char *name, kn_op *op) {
  for (const kn_op_alias *a = kn_op_aliases; a->name; a++)
    if (!strcmp(a->name, name)) return *op = a->op, true;
  return false;
}

static bool add_about(luaL_Buffer *b, const char *name) {
  for (size_t i = 0; i < sizeof about / sizeof *about; i++) {
    if (strcmp(about[i].name, name) != 0) continue;
    luaL_addstring(b, about[i].form);
    luaL_addstring(b, ": ");
    luaL_addstring(b, about[i].text);
    return true;
  }
  return false;
}

static bool add_op(luaL_Buffer *b, const char *name, bool after) {
  kn_op op;
  bool alias = !kn_op_parse(name, &op);
  if (alias && !alias_of(name, &op)) return false;
  if (after) luaL_addchar(b, '\n');
  if (alias) {
    luaL_addstring(b, name);
    luaL_addstring(b, " is another name of ");
  }
  luaL_addstring(b, kn_op_name(op));
  luaL_addstring(b, ": ");
  luaL_addstring(b, kn_ops[op].doc);
  const kn_field *f = kn_attrs_describe(kn_ops[op].attrs).fields;
  if (f->name) luaL_addstring(b, "\n  options, in order:");
  for (; f->name; f++) {
    luaL_addchar(b, ' ');
    luaL_addstring(b, f->name);
    if (f->required) luaL_addstring(b, " (required)");
  }
  return true;
}

static int help(lua_State *L) {
  luaL_Buffer b;
  if (lua_type(L, 1) != LUA_TSTRING)
    return kl_error(L, KN_ARG, "help: the name of an op is needed, got %s", kl_kind(L, 1));
  const char *name = lua_tostring(L, 1);
  luaL_buffinit(L, &b);
  bool function = add_about(&b, name), op = add_op(&b, name, function);
  if (!function && !op)
    return kl_error(L, KN_ARG, "help: there is no op '%s', and no such function of graphs", name);
  luaL_pushresult(&b);
  return 1;
}

void kl_open_help(lua_State *L) {
  static const luaL_Reg functions[] = {{"help", help}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
