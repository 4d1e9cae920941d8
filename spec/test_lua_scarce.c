/* Lua entry points without memory: each snippet below runs with the engine's n-th allocation failing, for
 * every n, once and from there on, then with Lua's. Each time: it gets through or raises an error about
 * memory, nothing is lost, and the same state runs it to the end afterwards. */
#include "spec/suite.h"
#include "spec/scarce.h"
#include "backends/registry.h"
#include "bindings/lua/kiln_lua.h"
#include "bindings/lua/kl.h"
#include <lualib.h>

static const char setup[] = "nn, optim, F = kiln.nn, kiln.optim, kiln.nn.functional\n"
                            "a, b = kiln.arange(12.0):reshape(3, 4), kiln.ones(3, 4)\n"
                            "w = kiln.ones(4, 2):requires_grad_()\n"
                            "mask, list = a:gt(5), kiln.tensor { 3, 1 }\n"
                            "net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))\n"
                            "state = net:state_dict()\n"
                            "path = os.tmpname()\n"
                            "script = function(x, n)\n"
                            "  for i = 1, n do x = x * 2 + i end\n"
                            "  if x:sum() > 100 then return x:mean(), n else return x:relu():sum(), n end\n"
                            "end\n"
                            "graph = kiln.script(script)\n"
                            "graph(a, 2)\n"
                            "text = tostring(graph)\n"
                            "graph:save(path)\n"
                            "kiln.to_npy(path .. '.npy', a)\n";

static const char *const snippets[] = {
    "local t = kiln.tensor { { 1, 2 }, { 3, 4 } }; kiln.tensor({ 1.5 }, { dtype = 'float64' })",
    "kiln.tensor(3); kiln.tensor { true, false }; kiln.zeros(2, 3, { requires_grad = true }); kiln.eye(3)",
    "kiln.rand(3); kiln.randn({ 2, 2 }); kiln.randint(0, 5, { 4 }); kiln.randperm(5); kiln.linspace(0, 1, 3)",
    "local _ = a[1], a[{ 1, 2 }], a[{ { 1, 2 }, {} }], a[mask], a[list], a[{ {}, -1 }]",
    "local t = a:clone(); t[1] = 5; t[{ {}, 1 }] = b[{ {}, 1 }]; t[mask] = 0; t[list] = kiln.ones(2, 4)",
    "local t = a:clone(); t:add_(1):mul_(b); t:copy_(b); t:zero_(); t:fill_(3)",
    "local _ = a + 1, 2 - a, a / b, a // 2, a % 3, a ^ 2, -a, a:lt(b), kiln.tensor { 1 } & 3",
    "kiln.cat { a, b }; kiln.stack({ a, b }, 2); a:split(2, 2); a:chunk(2, 2); kiln.einsum('ij,kj->ik', a, "
    "b)",
    "a:max(); local v, i = a:max(2); a:sort(1); a:topk(2, 2); a:unique(); a:var(1); a:quantile(0.3)",
    "local y = (a:matmul(w) * 2):relu():sum(); y:backward(); w.grad = nil",
    "local y = (w * w * w):sum(); local g = kiln.grad(y, { w }, { create_graph = true })[1]; "
    "kiln.grad(g:sum(), { w })",
    "kiln.no_grad(function() return a:matmul(w) + 1 end); w:detach(); a:clone():requires_grad_()",
    "tostring(a); tostring(w); tostring(kiln.zeros(50, 50)); tostring(mask); tostring(kiln.tensor(1e-9))",
    "a:totable(); a:to 'int32'; a:float(); a:allclose(b); a:equal(b); a:sum():item()",
    "local g = kiln.script(script); g(a, 2); g(b, 3)",
    "local g = kiln.script(function(t) return { t.x:exp(), n = t.x + t.y } end); g { x = a, y = b }",
    "local g = kiln.script(function(x) return net(x):softmax(2) end); g(a)",
    "graph(a, 3); graph:code(); graph:nodes(); graph:guards(); graph:inputs(); graph:outputs(); "
    "tostring(graph)",
    "kiln.parse(text)(a, 2)",
    "graph:save(path); local g = kiln.load(path); g(a, 2)",
    "kiln.from_npy(path .. '.npy'); kiln.to_npy(path .. '.npy', b)",
    "local l = nn.Sequential(nn.Linear(4, 3), nn.Tanh()); l(a); tostring(l); l:parameters()",
    "local opt = optim.Adam(net:parameters(), { lr = 0.01 })\n"
    "for _ = 1, 2 do opt:zero_grad(); F.cross_entropy(net(a), kiln.tensor { 1, 2, 1 }):backward(); "
    "opt:step() end\n"
    "opt:zero_grad()",
    "net:load_state_dict(state); net:state_dict(); net:zero_grad()",
    "for _, x, y in kiln.data.batches(2, a, b, { shuffle = true }) do local _ = x + y end",
    "do local t <close> = kiln.ones(5); local u = t[{ { 1, 2 } }]; u:release() end; kiln.memory_stats()",
    "kiln.set_rng_state(kiln.get_rng_state()); kiln.manual_seed(3); kiln.help('add')",
    "pcall(function() return a + kiln.zeros(7) end); pcall(function() return a[9] end); pcall(kiln.zeros, "
    "-1)",
};
enum { SNIPPETS = sizeof snippets / sizeof *snippets };

typedef struct rig {
  scarce engine, lua;
  kn_context *c;
  lua_State *L;
} rig;

static void must_run(rig *r, const char *text) {
  ck_assert_msg(luaL_dostring(r->L, text) == LUA_OK, "%s", lua_tostring(r->L, -1));
  lua_settop(r->L, 0);
}

static void open_rig(rig *r) {
  *r = (rig){.engine.left = -1, .lua.left = -1};
  kn_heap *heap = kn_heap_new(scarce_alloc, &r->engine, 0);
  ck_assert_ptr_nonnull(r->c = kn_context_new(heap, NULL));
  kn_heap_release(heap);
  OK(r->c, kn_registry_open(r->c, "ref"));
  ck_assert_ptr_nonnull(r->L = lua_newstate(scarce_alloc, &r->lua));
  luaL_openlibs(r->L);
  kiln_lua_setcontext(r->L, (struct kiln_context *)r->c);
  luaL_requiref(r->L, "kiln", luaopen_kiln, 1);
  must_run(r, setup);
}

static void close_rig(rig *r) {
  must_run(r, "os.remove(path); os.remove(path .. '.npy')");
  lua_close(r->L);
  kn_registry_close(r->c);
  suite_done(r->c);
}

static uint64_t settled_blocks(rig *r) {
  for (int i = 0; i < 3; i++) lua_gc(r->L, LUA_GCCOLLECT);
  return kn_heap_read_stats(r->c->heap).blocks;
}

/* The snippet as a function at index 1, with `memory` refusing. */
static void starve(rig *r, const char *text, scarce *memory, bool once) {
  const char *sweep = getenv("KILN_SWEEP");
  bool whole = sweep && !strcmp(sweep, "whole"), refused = true;
  must_run(r, text);
  ck_assert_int_eq(luaL_loadstring(r->L, text), LUA_OK);
  uint64_t blocks = settled_blocks(r);
  for (long n = 0; refused; n += whole || n < 16 ? 1 : n / 8) {
    lua_settop(r->L, 1);
    lua_pushvalue(r->L, 1);
    scarce_begin(memory, n, once);
    int rc = lua_pcall(r->L, 0, 0, 0);
    refused = scarce_end(memory);
    if (rc != LUA_OK) {
      const char *why = lua_tostring(r->L, -1);
      ck_assert_msg(why && strstr(why, "memory"), "allocation %ld of \"%s\": %s", n + 1, text,
                    why ? why : "nil");
    }
    ck_assert_msg(refused || rc == LUA_OK, "\"%s\": %s", text, lua_tostring(r->L, -1));
    lua_settop(r->L, 1);
    must_run(r, "w.grad = nil; net:zero_grad()");
    ck_assert_int_eq(luaL_loadstring(r->L, text), LUA_OK);
    ck_assert_msg(settled_blocks(r) <= blocks, "allocation %ld of \"%s\": %lld blocks are lost", n + 1, text,
                  (long long)(settled_blocks(r) - blocks));
    ck_assert_int_lt(n, 100000);
  }
  lua_settop(r->L, 0);
  must_run(r, text);
}

static void starve_all(bool lua, bool once) {
  rig r;
  open_rig(&r);
  for (int i = 0; i < SNIPPETS; i++) starve(&r, snippets[i], lua ? &r.lua : &r.engine, once);
  close_rig(&r);
}

START_TEST(engine_once) { starve_all(false, true); }
END_TEST

START_TEST(engine_for_good) { starve_all(false, false); }
END_TEST

START_TEST(lua_once) { starve_all(true, true); }
END_TEST

START_TEST(lua_for_good) { starve_all(true, false); }
END_TEST

SUITE("lua scarce", engine_once, engine_for_good, lua_once, lua_for_good)
