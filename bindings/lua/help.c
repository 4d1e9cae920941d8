/* What kiln.help (lua/kiln/help.lua) is told from here: what the op table says of an op, a sentence on each
 * function written in C (help.def), and the files written in Lua, whose comments it reads. Some names are
 * both an op and a function: kiln.trace and kiln.cond tell by their arguments which is meant. */
#include "bindings/lua/files.h"
#include "bindings/lua/state.h"
#include "core/op.h"
#include <string.h>

static const struct {
  const char *name, *form, *text;
} about[] = {
#define ABOUT(name, form, text) {name, form, text},
#include "bindings/lua/help.def"
#undef ABOUT
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

/* " = 1" as Lua writes it; nothing where the default is not one value. */
static void add_default(luaL_Buffer *b, const kn_field *f) {
  lua_State *L = b->L;
  switch (f->kind) {
  case KN_FIELD_FLOAT:
  case KN_FIELD_NUMBER: lua_pushfstring(L, " = %f", f->number); break;
  case KN_FIELD_BOOL: lua_pushstring(L, f->integer ? " = true" : " = false"); break;
  case KN_FIELD_ENUM: lua_pushfstring(L, " = \"%s\"", f->names[f->integer]); break;
  case KN_FIELD_INT:
  case KN_FIELD_INTS:
  case KN_FIELD_AXIS:
  case KN_FIELD_INDEX: {
    bool place = f->kind == KN_FIELD_AXIS || f->kind == KN_FIELD_INDEX;
    if (f->integer == KN_NONE) return;
    lua_pushfstring(L, " = %I", (LUAI_UACINT)(f->integer + (place && f->integer >= 0)));
    break;
  }
  default: return;
  }
  luaL_addvalue(b);
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
    if (f->required)
      luaL_addstring(b, " (required)");
    else
      add_default(b, f);
    if (f[1].name) luaL_addchar(b, ',');
  }
  return true;
}

/* "abs_" is abs in place, "linalg.svd" is svd. */
static bool add_variant(luaL_Buffer *b, const char *name) {
  static const char prefix[] = "linalg.";
  size_t n = strlen(name);
  char plain[64];
  if (!strncmp(name, prefix, sizeof prefix - 1)) return add_op(b, name + sizeof prefix - 1, false);
  if (n < 2 || n > sizeof plain || name[n - 1] != '_') return false;
  memcpy(plain, name, n - 1), plain[n - 1] = '\0';
  kn_op op;
  if (!kn_op_parse(plain, &op) && !alias_of(plain, &op)) return false;
  luaL_addstring(b, "in place, ");
  return add_op(b, plain, false);
}

/* help_texts.of(name): what is said of an op or a function written in C; nil for others. */
static int text_of(lua_State *L) {
  luaL_Buffer b;
  const char *name = luaL_checkstring(L, 1);
  luaL_buffinit(L, &b);
  bool function = add_about(&b, name), op = add_op(&b, name, function);
  bool told = function || op || add_variant(&b, name);
  luaL_pushresult(&b);
  if (!told) lua_pushnil(L);
  return 1;
}

/* help_texts.sources(): the texts of the files written in Lua, by module. */
static int sources(lua_State *L) {
  lua_newtable(L);
  for (const kl_file *f = kl_files; f->module; f++) {
    lua_pushlstring(L, f->data, f->size);
    lua_setfield(L, -2, f->module);
  }
  return 1;
}

void kl_open_help(lua_State *L) {
  static const luaL_Reg texts[] = {{"of", text_of}, {"sources", sources}, {NULL, NULL}};
  luaL_newlib(L, texts);
  lua_setfield(L, -2, "help_texts");
}
