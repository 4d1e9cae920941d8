/* Lua programs on a device whose memory the host cannot read (spec/fake_device.h): spec/lua/device.lua, which
 * also runs where there is a real one, and specs that know nothing of devices, with all of their tensors on
 * it. */
#define _DEFAULT_SOURCE /* mmap's MAP_ANONYMOUS */
#include "backends/registry.h"
#include "bindings/lua/kiln_lua.h"
#include "bindings/lua/kl.h"
#include "spec/fake_device.h"
#include <lualib.h>

static int open_all(lua_State *L) {
  kiln_lua_setcontext(L, (struct kiln_context *)lua_touserdata(L, 1));
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  return 0;
}

/* Runs a spec, after `before`; says how many of its tests passed. */
static lua_Integer run_spec(const char *file, const char *before) {
  static const char run[] = "local file, before = ...\n"
                            "package.path = 'spec/lua/?.lua;' .. package.path\n"
                            "local check = require 'check'\n"
                            "check.file = file\n"
                            "assert(load(before))()\n"
                            "if file ~= '' then dofile('spec/lua/' .. file) end\n"
                            "return check.passed, check.failed\n";
  kn_context *ctx = suite_context();
  fake_device f;
  OK(ctx, kn_registry_open(ctx, "ref"));
  fake_device_open(&f, ctx);
  lua_State *L = luaL_newstate();
  lua_pushcfunction(L, open_all);
  lua_pushlightuserdata(L, ctx);
  ck_assert_int_eq(lua_pcall(L, 1, 0, 0), LUA_OK);
  ck_assert_int_eq(luaL_loadstring(L, run), LUA_OK);
  lua_pushstring(L, file);
  lua_pushstring(L, before);
  ck_assert_msg(lua_pcall(L, 2, 2, 0) == LUA_OK, "%s: %s", file, lua_tostring(L, -1));
  const lua_Integer passed = lua_tointeger(L, -2), failed = lua_tointeger(L, -1);
  ck_assert_msg(failed == 0, "%s: %d failed", file, (int)failed);
  lua_close(L);
  fake_device_close(&f);
  kn_registry_close(ctx);
  suite_done(ctx);
  return passed;
}

/* What is dropped in a loop is collected, though nothing but headers lies on the heap. */
START_TEST(collected) {
  static const char loop[] = "kiln.x = kiln.ones(250000, { device = 'cuda' })\n"
                             "for i = 1, 300 do local y = kiln.x + i end\n";
  ck_assert_int_eq(run_spec("", loop), 0);
}
END_TEST

START_TEST(on_the_device) { ck_assert_int_gt(run_spec("device.lua", ""), 20); }
END_TEST

/* What makes tensors makes them on the device, also for who knows nothing of it. */
START_TEST(all_on_the_device) {
  static const char *const files[] = {"autograd.lua",     "distributions.lua", "index.lua", "inplace.lua",
                                      "linalg.lua",       "metrics.lua",       "nn.lua",    "nn_blocks.lua",
                                      "nn_init.lua",      "nn_utils.lua",      "ops.lua",   "optim.lua",
                                      "optim_groups.lua", "promotion.lua",     "random.lua"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    ck_assert_int_gt(run_spec(files[i], "require 'on_device' 'cuda'"), 3);
}
END_TEST

SUITE("device_lua", collected, on_the_device, all_on_the_device)
