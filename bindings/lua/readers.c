/* kiln.io: files as bytes, packed or not, and archives entry by entry; kiln.from_npz, kiln.to_npz. */
#include "bindings/lua/readers.h"
#include "bindings/io/npz.h"
#include <stdio.h>
#include <string.h>

void kl_checked(lua_State *L, kn_status st, const char *name) {
  if (st != KN_OK) kn_error_prefix(kl_context(L), "%s", name);
  kl_check(L, st);
}

static void free_bytes(void *block) {
  kn_bytes *b = block;
  if (b->heap) kn_bytes_free(b);
}

kn_bytes *kl_push_bytes(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kn_bytes *b = kl_push_owned(L, sizeof *b, free_bytes);
  b->heap = ctx->heap;
  return b;
}

const void *kl_check_bytes(lua_State *L, int idx, const char *name, size_t *n) {
  kn_tensor *t = kl_test_tensor(L, idx);
  if (!t) return kl_check_text(L, idx, name, "a string of bytes (or a uint8 tensor)", n);
  if (kn_tensor_dtype(t) != KN_U8 || !t->storage || !kn_tensor_contiguous(t))
    kl_error(L, KN_DTYPE, "%s: the bytes must be a string or a contiguous uint8 tensor", name);
  if (t->type.device != KN_CPU)
    kl_error(L, KN_ARG, "%s: the bytes are on another device; t:cpu() brings them here", name);
  kl_check(L, kn_read_data(kl_context(L), t));
  *n = (size_t)kn_tensor_numel(t);
  return kn_tensor_data(t);
}

/* ---- files ---- */

/* read_file(path [, {raw = false, max_bytes =}]): what is in it; unpacked where it is gzip, bzip2, xz or
 * zstd. */
static int read_file(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const char *path = kl_check_text(L, 1, "read_file", "a path", NULL);
  bool raw = false;
  int64_t most = 0;
  kl_read_options(L, 2, "read_file",
                  (const kl_option[]){{"raw", KL_OPTION_BOOL, &raw, 0},
                                      {"max_bytes", KL_OPTION_INT, &most, 1},
                                      {NULL, KL_OPTION_INT, NULL, 0}});
  kn_bytes *file = kl_push_bytes(L), *unpacked = kl_push_bytes(L), *out = file;
  int block = lua_gettop(L);
  kl_checked(L, kn_read_file(ctx, path, (uint64_t)most, file), "read_file");
  bool gzip = kn_is_gzip(file->p, file->n);
  if (!raw && (gzip || kn_is_packed(file->p, file->n))) {
    kn_status st = (gzip ? kn_gunzip : kn_unpack)(ctx, file->p, file->n, (uint64_t)most, out = unpacked);
    if (st != KN_OK) kn_error_prefix(ctx, "%s", path);
    kl_checked(L, st, "read_file");
  }
  lua_pushlstring(L, out->n ? out->p : "", out->n);
  kl_give_back(L, block);
  kl_give_back(L, block - 1);
  return 1;
}

/* write_file(path, bytes): takes the place of what is there, whole or not at all. */
static int write_file(lua_State *L) {
  kn_context *ctx = kl_context(L);
  size_t n;
  const char *path = kl_check_text(L, 1, "write_file", "a path", NULL);
  const void *p = kl_check_bytes(L, 2, "write_file", &n);
  kn_new_file f;
  kl_checked(L, kn_new_file_open(ctx, path, &f), "write_file");
  bool good = fwrite(p, 1, n, f.file) == n;
  (void)good; /* closing tells, with the reason */
  kl_checked(L, kn_new_file_close(ctx, &f, true), "write_file");
  return 0;
}

/* ---- archives ---- */

typedef struct opened {
  kn_archive *a;
  kn_bytes bytes;
} opened;

static void close_archive(void *block) {
  opened *o = block;
  kn_archive_close(o->a);
  if (o->bytes.heap) kn_bytes_free(&o->bytes);
  o->a = NULL;
}

static opened *push_archive(lua_State *L, const char *path, const kn_archive_limits *limits,
                            const char *name) {
  kn_context *ctx = kl_context(L);
  opened *o = kl_push_owned(L, sizeof *o, close_archive);
  o->bytes.heap = ctx->heap;
  kl_checked(L, kn_archive_open(ctx, path, limits, &o->a), name);
  return o;
}

/* The iterator: upvalue 1 is the block, 2 the archive in it. */
static int next_entry(lua_State *L) {
  opened *o = lua_touserdata(L, lua_upvalueindex(2));
  const char *name;
  bool found;
  if (!o->a) return kl_error(L, KN_STATE, "archive: it has come to its end");
  kl_checked(L, kn_archive_next(kl_context(L), o->a, &found, &name, &o->bytes), "archive");
  if (!found) {
    kl_give_back(L, lua_upvalueindex(1));
    return 0;
  }
  lua_pushstring(L, name);
  lua_pushlstring(L, o->bytes.n ? o->bytes.p : "", o->bytes.n);
  return 2;
}

/* archive(path [, {max_entry =, max_total =, max_entries =}]): for name, bytes in … */
static int archive(lua_State *L) {
  const char *path = kl_check_text(L, 1, "archive", "a path", NULL);
  int64_t entry = 0, total = 0, entries = 0;
  kl_read_options(L, 2, "archive",
                  (const kl_option[]){{"max_entry", KL_OPTION_INT, &entry, 1},
                                      {"max_total", KL_OPTION_INT, &total, 1},
                                      {"max_entries", KL_OPTION_INT, &entries, 1},
                                      {NULL, KL_OPTION_INT, NULL, 0}});
  opened *o = push_archive(L, path, &(kn_archive_limits){(uint64_t)entry, (uint64_t)total, (uint64_t)entries},
                           "archive");
  int block = lua_gettop(L);
  lua_pushvalue(L, block);
  lua_pushlightuserdata(L, o);
  lua_pushcclosure(L, next_entry, 2);
  lua_pushnil(L);
  lua_pushnil(L);
  lua_pushvalue(L, block); /* closed when the loop is left */
  return 4;
}

/* ---- .npz ---- */

/* from_npz(path): the arrays by name. */
static int from_npz(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const char *path = kl_check_text(L, 1, "from_npz", "a path", NULL), *name;
  lua_settop(L, 1);
  opened *o = push_archive(
      L, path, &(kn_archive_limits){.entry = UINT64_C(1) << 40, .total = UINT64_C(1) << 40}, "from_npz");
  lua_newtable(L);
  for (;;) {
    size_t length = 0;
    bool found;
    kn_tensor **slot = kl_reserve_tensor(L), *t;
    kn_status st = kn_npz_next(ctx, o->a, &o->bytes, &found, &name, &length, &t);
    if (st != KN_OK && !strstr(kn_error(ctx), path)) kn_error_prefix(ctx, "%s", path);
    kl_checked(L, st, "from_npz");
    if (!found) break;
    kl_fill_tensor(L, slot, t);
    lua_pushlstring(L, name, length);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, 3) != LUA_TNIL)
      return kl_error(L, KN_FORMAT, "from_npz: %s: array %s is there twice", path, lua_tostring(L, -2));
    lua_pop(L, 1);
    lua_insert(L, -2);
    lua_rawset(L, 3);
  }
  lua_pop(L, 1);
  kl_give_back(L, 2);
  return 1;
}

typedef struct zipping {
  kn_context *ctx;
  kn_zip *z;
} zipping;

static void drop_zip(void *block) {
  zipping *w = block;
  if (w->z) (void)!kn_zip_close(w->ctx, w->z, false);
}

/* The names in the table at idx, sorted: so that a file does not depend on the order of a table. */
static lua_Integer push_names(lua_State *L, int idx) {
  lua_Integer n = 0;
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      kl_error(L, KN_ARG, "to_npz: names of arrays must be strings, got %s", kl_kind(L, -2));
    const char *name = lua_tostring(L, -2);
    kn_tensor *t = kl_test_tensor(L, -1);
    if (!t) kl_error(L, KN_ARG, "to_npz: '%s' must be a tensor, got %s", name, kl_kind(L, -1));
    if (!t->storage)
      kl_error(L, KN_STATE, "to_npz: '%s': the elements are known only when the graph runs", name);
    if (strlen(name) != lua_rawlen(L, -2)) kl_error(L, KN_ARG, "to_npz: a name of an array has a zero byte");
    kl_check(L, kn_read_data(kl_context(L), t));
    lua_pushvalue(L, -2);
    lua_rawseti(L, -4, ++n);
  }
  lua_getglobal(L, "table");
  if (lua_type(L, -1) == LUA_TTABLE && lua_getfield(L, -1, "sort") == LUA_TFUNCTION) {
    lua_pushvalue(L, -3);
    lua_call(L, 1, 0);
    lua_pop(L, 1);
  } else
    lua_settop(L, 3);
  return n;
}

/* to_npz(path, tensors) */
static int to_npz(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const char *path = kl_check_text(L, 1, "to_npz", "a path", NULL);
  lua_settop(L, 2);
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "to_npz: a table of tensors by name is needed after the path, got %s",
                    kl_kind(L, 2));
  lua_Integer n = push_names(L, 2);                   /* 3 */
  zipping *w = kl_push_owned(L, sizeof *w, drop_zip); /* 4 */
  w->ctx = ctx;
  kl_checked(L, kn_zip_open(ctx, path, &w->z), "to_npz");
  kn_status st = KN_OK;
  for (lua_Integer i = 1; st == KN_OK && i <= n; i++) {
    lua_rawgeti(L, 3, i);
    lua_pushvalue(L, -1);
    lua_rawget(L, 2);
    kn_tensor *t = kl_test_tensor(L, -1);
    if (t) st = kn_npz_add(ctx, w->z, lua_tostring(L, -2), t);
    lua_pop(L, 2);
  }
  kn_zip *z = w->z;
  w->z = NULL;
  if (st == KN_OK) {
    st = kn_zip_close(ctx, z, true);
  } else {
    (void)!kn_zip_close(ctx, z, false);
    kn_error_prefix(ctx, "%s", path);
  }
  kl_checked(L, st, "to_npz");
  return 0;
}

void kl_open_readers(lua_State *L) {
  static const luaL_Reg module[] = {{"from_npz", from_npz}, {"to_npz", to_npz}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"read_file", read_file}, {"write_file", write_file}, {"archive", archive}, {NULL, NULL}};
  luaL_setfuncs(L, module, 0);
  luaL_newlib(L, functions);
  kl_open_pictures(L);
  kl_open_prefetcher(L);
  lua_setfield(L, -2, "io");
}
