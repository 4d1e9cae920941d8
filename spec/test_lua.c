/* The binding in a host's Lua states: contexts given and made, several at once, and allocations that fail one
 * after the other, Lua's and the engine's: an error each time, nothing lost, nothing torn. */
#include "spec/suite.h"
#include "backends/registry.h"
#include "bindings/lua/kiln_lua.h"
#include "bindings/lua/kl.h"
#include <lualib.h>
#include <string.h>

/* Touches every way in which the binding owns things: makers, ops with numbers, lists, indexing, gradients,
 * errors. */
static const char script[] =
    "local a = kiln.tensor { { 1.0, 2 }, { 3, 4 } }\n"
    "local w = kiln.ones(2, 2):requires_grad_()\n"
    "local y = (a:matmul(w) * 2 + 1 - 0.5):relu()\n"
    "local values, where = y:max(2)\n"
    "local z = kiln.cat({ y, kiln.stack { values, values } }, 1)[{ { 1, 3 }, 2 }]\n"
    "z:sum():backward()\n"
    "local g = kiln.grad((w * w):sum(), { w }, { create_graph = true })[1]\n"
    "a[{ 1, {} }] = 5\n"
    "a[a:gt(4)] = 0\n"
    "a[kiln.tensor { 2 }] = kiln.tensor { 7, 8 }\n"
    "local ok = pcall(function() return a + kiln.zeros(3) end)\n"
    "local text = tostring(a) .. tostring(w.grad)\n"
    "local t = a:totable()\n"
    "assert(not ok and #text > 0 and t[2][1] == 7 and where:dim() == 1 and g:equal(w * 2))\n"
    "a:add_(1):copy_(w:detach())\n"
    "local e = kiln.full({ 2 }, 3):to 'float64':allclose(kiln.full({ 2 }, 3.0, { dtype = 'float64' }))\n"
    "assert(e == true)\n";

/* An allocator that refuses the n-th request; with `forever`, all after it too. */
typedef struct ration {
  long left; /* requests until a refusal; negative: none is refused */
  long refused;
  bool forever;
} ration;

static void *rationed(void *ud, void *p, size_t osize, size_t nsize) {
  ration *r = ud;
  (void)osize;
  if (nsize == 0) {
    free(p);
    return NULL;
  }
  if (!p || nsize > osize) { /* shrinking never fails in Lua */
    if (r->left == 0) {
      r->refused++;
      if (!r->forever) r->left = -1;
      return NULL;
    }
    if (r->left > 0) r->left--;
  }
  return realloc(p, nsize);
}

static kn_context *host_context(ration *r) {
  kn_heap *heap = kn_heap_new(r ? rationed : NULL, r, 0);
  ck_assert_ptr_nonnull(heap);
  kn_context *ctx = kn_context_new(heap, NULL);
  kn_heap_release(heap);
  ck_assert_ptr_nonnull(ctx);
  OK(ctx, kn_registry_open(ctx, "ref"));
  return ctx;
}

static void done(kn_context *ctx) {
  kn_registry_close(ctx);
  suite_done(ctx);
}

static int open_all(lua_State *L) {
  kn_context *ctx = lua_touserdata(L, 1);
  if (ctx) kiln_lua_setcontext(L, (struct kiln_context *)ctx);
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  return 0;
}

static int open_kiln(lua_State *L, kn_context *ctx) {
  lua_pushcfunction(L, open_all);
  lua_pushlightuserdata(L, ctx);
  return lua_pcall(L, 1, 0, 0);
}

static int run(lua_State *L, const char *text) {
  int st = luaL_loadstring(L, text);
  return st == LUA_OK ? lua_pcall(L, 0, 0, 0) : st;
}

#define RUNS(L, text)                                                                                        \
  do {                                                                                                       \
    int suite_rc_ = run(L, text);                                                                            \
    ck_assert_msg(suite_rc_ == LUA_OK, "%s", lua_tostring(L, -1));                                           \
  } while (0)

START_TEST(given_context) {
  kn_context *ctx = host_context(NULL);
  uint64_t blocks = kn_heap_read_stats(ctx->heap).blocks;
  lua_State *L = luaL_newstate();
  ck_assert_int_eq(open_kiln(L, ctx), LUA_OK);
  ck_assert_ptr_eq(kl_context(L), ctx);
  ck_assert_int_eq(kiln_lua_setcontext(L, (struct kiln_context *)ctx), 0);
  RUNS(L, script);
  RUNS(L, "keep = kiln.ones(100)");
  lua_close(L); /* the context is the host's: it stays */
  ck_assert_uint_eq(kn_heap_read_stats(ctx->heap).blocks, blocks);
  done(ctx);
}
END_TEST

/* Tensors have no finalizer: the allocator tells of them. */
START_TEST(a_round_of_the_collector_releases) {
  kn_context *ctx = host_context(NULL);
  lua_State *L = luaL_newstate();
  ck_assert_int_eq(open_kiln(L, ctx), LUA_OK);
  RUNS(L, "for i = 1, 5000 do keep = kiln.ones(3) end collectgarbage()");
  uint64_t blocks = kn_heap_read_stats(ctx->heap).blocks;
  for (int mode = 0; mode < 2; mode++) {
    RUNS(L, mode ? "collectgarbage 'generational'" : "collectgarbage 'incremental'");
    RUNS(L, "for i = 1, 5000 do local t = kiln.ones(3) + 1 end collectgarbage()"); /* and no op after it */
    ck_assert_uint_eq(kn_heap_read_stats(ctx->heap).blocks, blocks);
  }
  /* other userdata and strings of the same size are no tensors, whatever they hold */
  RUNS(L, "for n = 1, 64 do local s = ('\\0'):rep(n) end collectgarbage() collectgarbage()\n"
          "assert(keep:sum():item() == 3 and not kiln.is_tensor(io.stdout) and not kiln.is_tensor('x'))");
  for (size_t bytes = 0; bytes < 40; bytes++) memset(lua_newuserdatauv(L, bytes, 0), 0, bytes);
  RUNS(L, "assert(keep:sum():item() == 3)");
  for (int i = 1; i <= lua_gettop(L); i++) ck_assert_ptr_null(kl_test_tensor(L, i));
  lua_settop(L, 0);
  RUNS(L, "collectgarbage() assert(keep:sum():item() == 3)");
  lua_close(L);
  done(ctx);
}
END_TEST

START_TEST(own_context) {
  lua_State *L = luaL_newstate();
  ck_assert_int_eq(open_kiln(L, NULL), LUA_OK);
  RUNS(L, script);
  kn_heap *heap = kn_heap_retain(kl_context(L)->heap);
  RUNS(L, "keep = kiln.ones(100)");
  /* finalizers of older objects run after kiln is closed, those of newer ones while it works */
  RUNS(L, "setmetatable({}, { __gc = function() late = kiln.ones(3) end })");
  lua_close(L);
  ck_assert_uint_eq(kn_heap_read_stats(heap).blocks, 0);
  kn_heap_release(heap);
}
END_TEST

START_TEST(several_states) {
  kn_context *ctx = host_context(NULL);
  lua_State *a = luaL_newstate(), *b = luaL_newstate(), *c = luaL_newstate();
  ck_assert_int_eq(open_kiln(a, ctx), LUA_OK);
  ck_assert_int_eq(open_kiln(b, ctx), LUA_OK); /* one context may serve two states, one at a time */
  ck_assert_int_eq(open_kiln(c, NULL), LUA_OK);
  RUNS(a, "kiln.manual_seed(1); x = kiln.rand(3)");
  RUNS(c, "kiln.manual_seed(2); x = kiln.rand(3)");
  RUNS(b, script);
  lua_close(a);
  RUNS(b, "x = kiln.rand(2)");
  RUNS(c, script);
  lua_close(b);
  lua_close(c);
  done(ctx);
}
END_TEST

START_TEST(closed_state_is_named) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  /* made before kiln is opened, so finalized after it is closed */
  RUNS(L, "older = setmetatable({}, { __gc = function() ok, why = pcall(function() return kiln.ones(3) end)\n"
          "  if ok or not why:find 'not open' then os.exit(3) end end })");
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_close(L);
}
END_TEST

/* Lua's n-th allocation fails, for every n until the script gets through. */
START_TEST(lua_out_of_memory) {
  kn_context *ctx = host_context(NULL);
  uint64_t blocks = kn_heap_read_stats(ctx->heap).blocks;
  ration r = {.left = -1};
  long n = 0;
  for (bool through = false; !through; n++) {
    lua_State *L = lua_newstate(rationed, &r);
    ck_assert_ptr_nonnull(L);
    r = (ration){.left = n, .forever = n % 2}; /* Lua collects garbage and tries once more */
    int st = open_kiln(L, ctx);
    if (st == LUA_OK) st = run(L, script);
    through = r.refused == 0;
    ck_assert_msg(st == LUA_OK || r.refused > 0, "%s", lua_tostring(L, -1));
    r.left = -1;
    lua_close(L);
    ck_assert_msg(kn_heap_read_stats(ctx->heap).blocks == blocks, "after request %ld: %llu blocks are left",
                  n, (unsigned long long)(kn_heap_read_stats(ctx->heap).blocks - blocks));
  }
  ck_assert_int_gt(n, 400);
  done(ctx);
}
END_TEST

/* The engine's n-th allocation fails: an error that says so, after which everything still works. */
START_TEST(engine_out_of_memory) {
  ration r = {.left = -1};
  kn_context *ctx = host_context(&r);
  long n = 0;
  for (bool through = false; !through; n++) {
    uint64_t blocks = kn_heap_read_stats(ctx->heap).blocks;
    lua_State *L = luaL_newstate();
    ck_assert_int_eq(open_kiln(L, ctx), LUA_OK);
    r = (ration){.left = n};
    int st = run(L, script);
    through = r.refused == 0;
    if (!through && st != LUA_OK) {
      const char *text = lua_tostring(L, -1);
      ck_assert_msg(strstr(text, "memory") || strstr(text, "assertion failed"), "request %ld: %s", n, text);
    }
    r.left = -1;
    RUNS(L, script);
    lua_close(L);
    ck_assert_uint_eq(kn_heap_read_stats(ctx->heap).blocks, blocks);
  }
  ck_assert_int_gt(n, 50);
  done(ctx);
}
END_TEST

/* ---- a program that is to stop ---- */

typedef struct listener { /* sets a hook, as at Ctrl-C, when a node of a graph is told of */
  lua_State *L;
  int nodes;
  bool stops;
} listener;

static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "to stop");
}

static void listen(void *ud, kn_out kind, const char *text, size_t len) {
  listener *l = ud;
  if (kind != KN_OUT_LOG || len < 5 || memcmp(text, "exec ", 5) != 0) return;
  l->nodes++;
  if (l->stops) lua_sethook(l->L, stop, LUA_MASKCOUNT, 1);
}

/* Gradients of several graphs are one call of Lua's: the next graph ends, too. */
START_TEST(stopped_between_graphs) {
  listener l = {0};
  int whole = 0;
  kn_context *ctx = kn_context_new(NULL, "exec");
  OK(ctx, kn_registry_open(ctx, "ref"));
  l.L = luaL_newstate();
  ctx->output = listen;
  ctx->output_ud = &l;
  ck_assert_int_eq(open_kiln(l.L, ctx), LUA_OK);
  RUNS(l.L, "local f = kiln.script(function(x) return (x * 2):tanh() end)\n"
            "local g = kiln.script(function(x) return (x * 3):sin() end)\n"
            "function back() local x = kiln.ones(4):requires_grad_()\n"
            "  local y = f(g(x)):sum() return function() y:backward() end end");
  for (int stops = 0; stops < 2; stops++) {
    RUNS(l.L, "local b = back() run = function() b() end");
    l.nodes = 0;
    l.stops = stops;
    int st = run(l.L, "run()");
    if (!stops) whole = l.nodes;
    ck_assert_int_eq(st, stops ? LUA_ERRRUN : LUA_OK);
  }
  ck_assert_ptr_nonnull(strstr(lua_tostring(l.L, -1), "to"));
  ck_assert_msg(l.nodes > 0 && l.nodes < whole, "%d of %d nodes ran", l.nodes, whole);
  lua_close(l.L);
  done(ctx);
}
END_TEST

SUITE("lua", given_context, a_round_of_the_collector_releases, own_context, several_states,
      closed_state_is_named, lua_out_of_memory, engine_out_of_memory, stopped_between_graphs)
