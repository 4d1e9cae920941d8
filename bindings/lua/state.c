/* The binding's record in a Lua state: its context, how errors are raised, what capture may call, and how
 * tensor bytes reach Lua's collector. Nothing about tensors or ops. */
#include "bindings/lua/state.h"
#include "backends/registry.h"
#include "core/tuning_env.h"
#include "bindings/lua/kiln_lua.h"
#include "core/parallel.h"
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char state_key, engine_key; /* their addresses are keys of the registry */

/* ---- the record ---- */

kl_state *kl_find_state(lua_State *L) {
  kl_state *s = kl_state_of_boxes(L);
  if (s) return s;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return s;
}

kl_state *kl_state_of(lua_State *L) {
  kl_state *s = kl_find_state(L);
  if (!s || !s->ctx) luaL_error(L, "kiln is not open in this Lua state");
  if (s->reclaiming) luaL_error(L, "kiln cannot be used by a finalizer that runs because memory is short");
  return s;
}

kn_context *kl_context(lua_State *L) { return kl_state_of(L)->ctx; }

enum { RESERVE = 4096 };

void kl_collect(kl_state *s) {
  kn_free(s->ctx->heap, s->reserve, RESERVE);
  s->reserve = NULL;
  lua_gc(s->main, LUA_GCCOLLECT);
  kl_bury(s);
  if (!s->reserve) s->reserve = kn_alloc(s->ctx->heap, RESERVE);
}

/* An op found no memory: tensors that nobody can reach any more are let go. */
static void reclaim(void *ud) {
  kl_state *s = ud;
  s->reclaiming = true;
  kl_collect(s);
  s->reclaiming = false;
}

static int close_state(lua_State *L) {
  kl_state *s = lua_touserdata(L, 1);
  kn_context *ctx = s->ctx;
  if (ctx) {
    kl_close_calls(s);
    kn_free(ctx->heap, s->reserve, RESERVE);
  }
  s->ctx = NULL;
  if (ctx) kn_context_remove_reclaimer(ctx, &s->reclaimer);
  if (ctx) ctx->interrupt = NULL;
  kl_close_anchor(s, ctx);
  kl_close_boxes(s);
  if (ctx && s->owned) {
    kn_registry_close(ctx);
    kn_context_free(ctx);
  }
  return 0;
}

/* Where io.write writes: io.output(), in which Lua's io library keeps it; NULL when it is closed. */
static FILE *default_output(lua_State *L) {
  FILE *to = stdout;
  if (!lua_checkstack(L, 4)) return to;
  if (lua_getfield(L, LUA_REGISTRYINDEX, "_IO_output") == LUA_TUSERDATA) {
    const luaL_Stream *s = luaL_testudata(L, -1, LUA_FILEHANDLE);
    if (s) to = s->closef ? s->f : NULL;
  }
  lua_pop(L, 1);
  return to;
}

/* What a graph prints goes where Lua's own functions would have sent it. */
static void output(void *ud, kn_out kind, const char *text, size_t len) {
  kl_state *s = ud;
  FILE *to = kind == KN_OUT_PRINT ? stdout : stderr;
  if (kind == KN_OUT_WARN) {
    char *copy = kn_alloc(s->ctx->heap, len + 1); /* text is not terminated */
    if (!copy) return;
    memcpy(copy, text, len);
    copy[len] = 0;
    lua_warning(s->main, copy, 0);
    kn_free(s->ctx->heap, copy, len + 1);
    return;
  }
  if (kind == KN_OUT_WRITE && !(to = default_output(s->main))) return;
  fwrite(text, 1, len, to);
  if (kind == KN_OUT_LOG) fputc('\n', to);
  if (kind == KN_OUT_PRINT) fflush(to); /* as print does */
}

void kl_own_context(kl_state *s) {
  s->owned = true;
  s->ctx->output = output;
  s->ctx->output_ud = s;
}

static void warn_of_topics(kn_context *ctx, const char *debug) {
  static const char known[] =
#define X(e, name, doc) " " name
      KN_DEBUG_TOPICS(X)
#undef X
          " ";
  while (debug && *debug) {
    size_t n = strcspn(debug, ",");
    char word[34] = " ";
    if (n > 0 && n < sizeof word - 2) {
      memcpy(word + 1, debug, n);
      memcpy(word + 1 + n, " ", 2);
      if (!strstr(known, word))
        kn_log(ctx, "KILN_DEBUG: there is no topic%.*s; known are%.*s", (int)n + 1, word,
               (int)sizeof known - 2, known);
    }
    debug += n + (debug[n] == ',');
  }
}

static void set_threads(kn_context *ctx) {
  const char *text = getenv("KILN_NUM_THREADS");
  if (!text || !*text) return;
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  if (errno || *end || n < 1 || n > 4096)
    kn_log(ctx, "KILN_NUM_THREADS: '%s' is not a number of threads", text);
  else
    ctx->threads = (int)n;
}

static void set_tuning(lua_State *L, kn_context *ctx) {
  char room[KN_CACHE_DIR];
  const char *cache = kn_env_cache(room);
  if (!kn_env_tuning(cache, &ctx->tuning))
    kn_log(ctx, "KILN_TUNE: '%s' is neither 0 nor 1", getenv("KILN_TUNE"));
  if (kn_registry_remember(ctx, cache) != KN_OK) luaL_error(L, "%s", kn_error(ctx));
}

static void open_backends(lua_State *L, kn_context *ctx) {
  char room[KN_LIBRARY_DIRS];
  if (kn_registry_open_with(ctx, getenv("KILN_BACKEND"), kn_env_libraries(room)) != KN_OK)
    luaL_error(L, "%s", kn_error(ctx));
}

kl_state *kl_state_open(lua_State *L, kn_context *ctx) {
  kl_state *s = kl_find_state(L);
  if (s) return s;
  s = lua_newuserdatauv(L, sizeof *s, 0);
  *s = (kl_state){.ctx = ctx};
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_state);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  if (!ctx) {
    const char *debug = getenv("KILN_DEBUG");
    s->ctx = ctx = kn_context_new(NULL, debug);
    if (!ctx) luaL_error(L, "kiln: out of memory");
    kl_own_context(s);
    warn_of_topics(ctx, debug);
    set_threads(ctx);
    open_backends(L, ctx);
    set_tuning(L, ctx);
  }
  s->seen = s->live = s->full = kn_heap_read_stats(ctx->heap).bytes;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  s->main = lua_tothread(L, -1);
  lua_pop(L, 1);
  kl_open_boxes(L, s);
  s->reserve = kn_alloc(ctx->heap, RESERVE); /* without it one may be lost */
  s->reclaimer = (kn_reclaimer){.fn = reclaim, .ud = s};
  kn_context_add_reclaimer(ctx, &s->reclaimer);
  ctx->interrupt = kl_interrupt;
  ctx->interrupt_ud = s;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return s;
}

int kiln_lua_setcontext(lua_State *L, struct kiln_context *ctx) {
  if (kl_find_state(L)) return 0;
  kl_state_open(L, (kn_context *)ctx); /* kiln.h's name of the same struct */
  return 1;
}

/* ---- errors ---- */

void kl_write_where(lua_State *L, char *text, size_t size) {
  lua_Debug ar;
  text[0] = 0;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || !strncmp(ar.source, "=kiln/", 6)) continue;
    snprintf(text, size, "%s:%d", ar.short_src, ar.currentline);
    return;
  }
}

void kl_push_where(lua_State *L) {
  char text[LUA_IDSIZE + 32];
  kl_write_where(L, text, sizeof text);
  lua_pushfstring(L, *text ? "%s: " : "%s", text);
}

void kl_push_placed(lua_State *L, const char *text, bool keep) {
  const char *rest = strncmp(text, "kiln/", 5) ? NULL : strstr(text, ": ");
  char user[LUA_IDSIZE + 32] = "";
  if (rest) kl_write_where(L, user, sizeof user);
  if (*user)
    lua_pushfstring(L, "%s: %s", user, keep ? text : rest + 2);
  else
    lua_pushstring(L, text);
}

int kl_fail(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kl_push_where(L);
  lua_pushstring(L, kn_error(ctx));
  lua_concat(L, 2);
  return lua_error(L);
}

void kl_check(lua_State *L, kn_status st) {
  if (st != KN_OK) kl_fail(L);
}

int kl_error(lua_State *L, kn_status st, const char *fmt, ...) {
  kn_context *ctx = kl_context(L);
  char text[KN_ERROR_SIZE];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  kn_fail(ctx, st, "%s", text);
  return kl_fail(L);
}

const char *kl_check_text(lua_State *L, int idx, const char *name, const char *wanted, size_t *n) {
  if (lua_type(L, idx) != LUA_TSTRING)
    kl_error(L, KN_ARG, "%s: %s is needed, got %s", name, wanted, kl_kind(L, idx));
  return lua_tolstring(L, idx, n);
}

const char *kl_kind(lua_State *L, int idx) {
  kn_scalar s;
  switch (lua_type(L, idx)) {
  case LUA_TNONE:
  case LUA_TNIL: return "nil";
  case LUA_TBOOLEAN: return "a boolean";
  case LUA_TNUMBER: return lua_isinteger(L, idx) ? "an integer" : "a number";
  case LUA_TSTRING: return "a string";
  case LUA_TTABLE: return "a table";
  case LUA_TFUNCTION: return "a function";
  case LUA_TTHREAD: return "a coroutine";
  default: break;
  }
  if (kl_test_tensor(L, idx)) return "a tensor";
  if (kl_is_released(L, idx)) return "a tensor that was released";
  if (kl_test_scalar(L, idx, &s)) return "a number known only when the graph runs";
  return "a userdata";
}

/* ---- functions that capture may call ---- */

static void push_engine(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &engine_key) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &engine_key);
}

void kl_mark_engine(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  push_engine(L);
  lua_pushvalue(L, idx);
  lua_pushboolean(L, 1);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

bool kl_is_engine(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  push_engine(L);
  lua_pushvalue(L, idx);
  bool yes = lua_rawget(L, -2) == LUA_TBOOLEAN;
  lua_pop(L, 2);
  return yes;
}

void kl_set_engine_functions(lua_State *L, const luaL_Reg *list) {
  for (; list->name; list++) {
    lua_pushcfunction(L, list->func);
    kl_mark_engine(L, -1);
    lua_setfield(L, -2, list->name);
  }
}
