/* tostring(t), whose text is core/show.c's, and kiln.set_printoptions. */
#include "bindings/lua/emit.h"
#include "core/grad/tape.h"
#include "core/show.h"
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static void add(void *b, const char *text, size_t n) { luaL_addlstring(b, text, n); }

static void add_history(lua_State *L, luaL_Buffer *b, const kn_tensor *t) {
  const char *op = kn_grad_op(t);
  if (op) {
    lua_pushfstring(L, " from %s", op);
    luaL_addvalue(b);
  } else if (kn_requires_grad(t)) {
    luaL_addstring(b, " requires_grad");
  }
}

static int tensor_tostring(lua_State *L) {
  if (kl_is_released(L, 1)) { /* for whoever looks what it is */
    lua_pushliteral(L, "a tensor that was released");
    return 1;
  }
  kn_tensor *t = kl_check_tensor(L, 1);
  if (!t->storage && t->value && kl_describe_symbol(L, t->value)) return 1;
  kn_tensor *host = t->storage ? kl_on_host(L, t) : NULL;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (host) {
    kn_show_tensor(host, (kn_device_id)t->type.device, &kl_context(L)->print, add, &b);
  } else {
    char text[KN_TYPE_TEXT];
    luaL_addstring(&b, "a tensor known only when the graph runs: ");
    luaL_addstring(&b, kn_type_text(&t->type, text, sizeof text));
  }
  add_history(L, &b, t);
  luaL_pushresult(&b);
  return 1;
}

/* ---- options ---- */

/* The options that are numbers. */
typedef struct option {
  const char *name;
  size_t at;
  lua_Integer least, most;
} option;

#define AT(field) offsetof(kn_print_options, field)
static const option options[] = {{"precision", AT(precision), 0, KN_SHOW_PRECISION},
                                 {"edgeitems", AT(edgeitems), 1, 1000000},
                                 {"linewidth", AT(linewidth), 1, 1000000},
                                 {"threshold", AT(threshold), 0, INT32_MAX}};
enum { OPTIONS = sizeof options / sizeof *options };

static int *field_of(kn_print_options *p, const option *o) { return (int *)(void *)((char *)p + o->at); }

static void set_option(lua_State *L, kn_print_options *p) { /* name at -2, value at -1 */
  const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
  for (int i = 0; i < OPTIONS; i++) {
    const option *o = &options[i];
    if (strcmp(name, o->name)) continue;
    int whole = 0;
    lua_Integer v = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (o->at == AT(threshold) && lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) == HUGE_VAL)
      v = INT32_MAX, whole = 1;
    if (!whole || v < o->least || v > o->most)
      kl_error(L, KN_ARG, "set_printoptions: %s must be an integer from %lld to %lld, got %s", name,
               (long long)o->least, (long long)o->most, whole ? lua_tostring(L, -1) : kl_kind(L, -1));
    *field_of(p, o) = (int)v;
    return;
  }
  if (!strcmp(name, "sci_mode")) {
    bool automatic = lua_type(L, -1) == LUA_TSTRING && !strcmp(lua_tostring(L, -1), "auto");
    if (!automatic && lua_type(L, -1) != LUA_TBOOLEAN)
      kl_error(L, KN_ARG, "set_printoptions: sci_mode must be true, false or \"auto\", got %s",
               kl_kind(L, -1));
    p->sci_mode = automatic ? -1 : lua_toboolean(L, -1);
    return;
  }
  if (!strcmp(name, "profile")) return; /* read before the others */
  kl_error(L, KN_ARG,
           "set_printoptions: there is no option '%s'; there are precision, threshold, edgeitems, linewidth, "
           "sci_mode, profile",
           name);
}

/* As torch: "default", "short" (two digits, less of long tensors), "full" (all elements). */
static void set_profile(lua_State *L, kn_print_options *p) { /* value at -1 */
  const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  int width = p->linewidth;
  kn_print_options made = kn_print_usual;
  made.columns = p->columns;
  if (!strcmp(name, "short")) {
    made.precision = 2;
    made.edgeitems = 2;
  } else if (!strcmp(name, "full"))
    made.threshold = INT32_MAX;
  else if (strcmp(name, "default"))
    kl_error(L, KN_ARG, "set_printoptions: profile must be \"default\", \"short\" or \"full\", got %s",
             *name ? name : kl_kind(L, -1));
  *p = made;
  if (strcmp(name, "default")) p->linewidth = width;
}

static int set_printoptions(lua_State *L) {
  kn_print_options made = kl_context(L)->print;
  if (lua_type(L, 1) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "set_printoptions: a table of options is needed, got %s", kl_kind(L, 1));
  lua_settop(L, 1);
  if (lua_getfield(L, 1, "profile") != LUA_TNIL) set_profile(L, &made);
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) set_option(L, &made);
  kl_context(L)->print = made;
  return 0;
}

/* What is set, as set_printoptions takes it; linewidth only when it was given. */
static int get_printoptions(lua_State *L) {
  kn_print_options p = kl_context(L)->print;
  lua_createtable(L, 0, OPTIONS + 1);
  for (int i = 0; i < OPTIONS; i++) {
    if (options[i].at == AT(linewidth) && !p.linewidth) continue;
    lua_pushinteger(L, *field_of(&p, &options[i]));
    lua_setfield(L, -2, options[i].name);
  }
  if (p.sci_mode < 0)
    lua_pushliteral(L, "auto");
  else
    lua_pushboolean(L, p.sci_mode);
  lua_setfield(L, -2, "sci_mode");
  return 1;
}

void kl_set_columns(lua_State *L, int columns) { kl_context(L)->print.columns = columns; }

void kl_open_show(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"set_printoptions", set_printoptions}, {"get_printoptions", get_printoptions}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  kl_push_tensor_metatable(L);
  lua_pushcfunction(L, tensor_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
}
