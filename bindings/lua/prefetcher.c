/* kiln.prefetcher{…}: files read and pictures decoded ahead by threads; p:push(job), p:pop(), p:pending(),
 * p:close(). The work is bindings/io's. */
#include "bindings/io/prefetch.h"
#include "bindings/lua/pictures.h"
#include "bindings/lua/readers.h"
#include <string.h>

typedef struct box {
  kn_prefetcher *p; /* NULL once closed */
} box;

static const char name_key[] = "kiln.prefetcher";

static int close_box(lua_State *L) {
  box *b = luaL_checkudata(L, 1, name_key);
  kn_prefetcher *p = b->p;
  b->p = NULL;
  kn_prefetcher_free(p);
  return 0;
}

static kn_prefetcher *check_open(lua_State *L, const char *name) {
  box *b = luaL_testudata(L, 1, name_key);
  if (!b) kl_error(L, KN_ARG, "%s: a prefetcher is needed, got %s", name, kl_kind(L, 1));
  if (!b->p) kl_error(L, KN_STATE, "%s: the prefetcher is closed", name);
  return b->p;
}

/* p:push{path = | bytes =, decode = "image" | "bytes", mode = "UNCHANGED"}: false when `depth` are pending.
 */
static int push(lua_State *L) {
  kn_prefetcher *p = check_open(L, "push");
  const char *path = NULL, *bytes = NULL, *decode = "image", *mode = "UNCHANGED";
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "push: a job is a table with path or bytes, got %s", kl_kind(L, 2));
  kl_read_options(L, 2, "push",
                  (const kl_option[]){{"path", KL_OPTION_TEXT, (void *)&path, 0},
                                      {"bytes", KL_OPTION_TEXT, (void *)&bytes, 0},
                                      {"decode", KL_OPTION_TEXT, (void *)&decode, 0},
                                      {"mode", KL_OPTION_TEXT, (void *)&mode, 0},
                                      {NULL, KL_OPTION_INT, NULL, 0}});
  if (!path == !bytes) return kl_error(L, KN_ARG, "push: a job has either path or bytes");
  kn_job job = {.path = path, .bytes = bytes, .image = !strcmp(decode, "image")};
  if (!job.image && strcmp(decode, "bytes") != 0)
    return kl_error(L, KN_ARG, "push: decode must be 'image' or 'bytes', not '%s'", decode);
  job.mode = kl_check_mode(L, "push", mode);
  if (bytes) {
    lua_getfield(L, 2, "bytes");
    job.n = lua_rawlen(L, -1);
  }
  bool taken;
  kl_checked(L, kn_prefetcher_push(kl_context(L), p, &job, &taken), "push");
  lua_pushboolean(L, taken);
  return 1;
}

/* p:pop(): the oldest job's tensor, or nil and why there is none. */
static int pop(lua_State *L) {
  kn_prefetcher *p = check_open(L, "pop");
  kn_context *ctx = kl_context(L);
  if (!kn_prefetcher_pending(p)) return kl_error(L, KN_STATE, "pop: nothing is pending");
  kn_tensor **slot = kl_reserve_tensor(L), *t;
  if (kn_prefetcher_pop(ctx, p, &t) == KN_OK) {
    kl_fill_tensor(L, slot, t);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, kn_error(ctx));
  return 2;
}

static int pending(lua_State *L) {
  lua_pushinteger(L, kn_prefetcher_pending(check_open(L, "pending")));
  return 1;
}

/* prefetcher{workers = 2, depth = 4 * workers, max_pixels =, max_bytes =} */
static int prefetcher(lua_State *L) {
  int64_t workers = 2, depth = 0, pixels = 0, bytes = 0;
  enum { WORKERS, DEPTH };
  unsigned given = kl_read_options(L, 1, "prefetcher",
                                   (const kl_option[]){{"workers", KL_OPTION_INT, &workers, 0},
                                                       {"depth", KL_OPTION_INT, &depth, 1},
                                                       {"max_pixels", KL_OPTION_INT, &pixels, 1},
                                                       {"max_bytes", KL_OPTION_INT, &bytes, 1},
                                                       {NULL, KL_OPTION_INT, NULL, 0}});
  if (workers > INT16_MAX) workers = INT16_MAX; /* which is refused in words */
  if (!(given >> DEPTH & 1u)) depth = workers ? 4 * workers : 1;
  if (depth > INT32_MAX) depth = INT32_MAX;
  box *b = lua_newuserdatauv(L, sizeof *b, 0);
  b->p = NULL;
  luaL_setmetatable(L, name_key);
  kl_checked(L,
             kn_prefetcher_new(kl_context(L),
                               &(kn_prefetch_options){.workers = (int)workers,
                                                      .depth = (int)depth,
                                                      .max_pixels = pixels,
                                                      .max_bytes = (uint64_t)bytes},
                               &b->p),
             "prefetcher");
  return 1;
}

void kl_open_prefetcher(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"push", push}, {"pop", pop}, {"pending", pending}, {"close", close_box}, {NULL, NULL}};
  luaL_newmetatable(L, name_key);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, close_box);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, close_box);
  lua_setfield(L, -2, "__close");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  lua_pushcfunction(L, prefetcher);
  lua_setfield(L, -3, "prefetcher");
}
