/* kiln.from_safetensors, kiln.to_safetensors: tables of tensors by name. The format is graph's. */
#include "bindings/lua/owned.h"
#include "graph/tensors_file.h"
#include <string.h>

static void checked(lua_State *L, kn_status st, const char *name) {
  if (st != KN_OK) kn_error_prefix(kl_context(L), "%s", name);
  kl_check(L, st);
}

/* ---- reading ---- */

static void close_file(void *block) { kn_tensors_close(block); }

/* from_safetensors(path): the tensors by name, and the metadata, texts by name. */
static int from_safetensors(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const char *path = kl_check_text(L, 1, "from_safetensors", "a path", NULL);
  lua_settop(L, 1);
  kn_tensors_file *f = kl_push_owned(L, sizeof *f, close_file); /* 2 */
  checked(L, kn_tensors_open(ctx, path, f), "from_safetensors");
  lua_newtable(L);
  for (uint32_t i = 0; i < f->header.ntensors; i++) {
    const kn_st_tensor *v = &f->header.tensors[i];
    lua_pushlstring(L, v->name.s, v->name.n);
    kn_tensor **slot = kl_reserve_tensor(L), *t;
    kn_status st = kn_tensors_get(ctx, f, v, &t);
    if (st != KN_OK) kn_error_prefix(ctx, "%s", path);
    checked(L, st, "from_safetensors");
    kl_fill_tensor(L, slot, t);
    lua_rawset(L, -3);
  }
  lua_newtable(L);
  for (uint32_t i = 0; i < f->header.nmeta; i++) {
    const kn_st_meta *m = &f->header.meta[i];
    lua_pushlstring(L, m->key.s, m->key.n);
    lua_pushlstring(L, m->value.s, m->value.n);
    lua_rawset(L, -3);
  }
  kl_give_back(L, 2);
  return 2;
}

/* ---- writing ---- */

static uint32_t count_entries(lua_State *L, int idx) {
  uint32_t n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n++;
  return n;
}

/* The key under the value on top: a string, which must not be converted in place. */
static kn_span key_of(lua_State *L, const char *what) {
  kn_span s = {.n = 0};
  if (lua_type(L, -2) != LUA_TSTRING)
    kl_error(L, KN_ARG, "to_safetensors: %s must be strings, got %s", what, kl_kind(L, -2));
  s.s = lua_tolstring(L, -2, &s.n);
  return s;
}

static void read_tensors(lua_State *L, kn_named_tensor *to) {
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1), to++) {
    to->name = key_of(L, "names of tensors");
    to->tensor = kl_test_tensor(L, -1);
    if (!to->tensor)
      kl_error(L, KN_ARG, "to_safetensors: '%s' must be a tensor, got %s", to->name.s, kl_kind(L, -1));
    if (to->tensor->storage) kl_check(L, kn_read_data(kl_context(L), to->tensor));
  }
}

static void read_meta(lua_State *L, kn_st_meta *to) {
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1), to++) {
    to->key = key_of(L, "names of metadata");
    if (lua_type(L, -1) != LUA_TSTRING)
      kl_error(L, KN_ARG, "to_safetensors: metadata '%s' must be a string, got %s", to->key.s,
               kl_kind(L, -1));
    to->value.s = lua_tolstring(L, -1, &to->value.n);
  }
}

/* to_safetensors(path, tensors [, metadata]) */
static int to_safetensors(lua_State *L) {
  const char *path = kl_check_text(L, 1, "to_safetensors", "a path", NULL);
  lua_settop(L, 3);
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "to_safetensors: a table of tensors by name is needed after the path, got %s",
                    kl_kind(L, 2));
  if (luaL_getmetafield(L, 2, "__call") != LUA_TNIL)
    return kl_error(L, KN_ARG,
                    "to_safetensors: a table of tensors by name is needed; a module gives one: "
                    "net:state_dict()");
  bool meta = !lua_isnil(L, 3);
  if (meta && lua_type(L, 3) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "to_safetensors: metadata must be a table of strings, got %s", kl_kind(L, 3));
  uint32_t n = count_entries(L, 2), nmeta = meta ? count_entries(L, 3) : 0;
  kn_named_tensor *tensors = lua_newuserdatauv(L, n * sizeof *tensors, 0);
  kn_st_meta *texts = lua_newuserdatauv(L, nmeta * sizeof *texts, 0);
  read_tensors(L, tensors);
  if (meta) read_meta(L, texts);
  checked(L, kn_tensors_save(kl_context(L), path, tensors, n, texts, nmeta), "to_safetensors");
  return 0;
}

void kl_open_weights(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"from_safetensors", from_safetensors}, {"to_safetensors", to_safetensors}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
