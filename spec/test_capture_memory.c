/* Capture without memory: with the Nth allocation failing, for every N, a capture either succeeds or answers
 * with an error about memory, and nothing is lost. */
#include "spec/suite.h"
#include "backends/registry.h"
#include "bindings/lua/kiln_lua.h"
#include "bindings/lua/state.h"
#include <lauxlib.h>
#include <lualib.h>

static const char source[] = "local m = {w = kiln.tensor {1.0, 2}}\n"
                             "local c = 0\n"
                             "return kiln.script(function(x)\n"
                             "  c = c + 1\n"
                             "  local t = {h = x}\n"
                             "  if x:sum() > 0 then t.h = t.h * m.w else t.h = t.h:relu() end\n"
                             "  while t.h:sum() > 1 do t = {h = t.h * 0.5} end\n"
                             "  local function add(v) return v + 1 end\n"
                             "  return add(t.h), c\n"
                             "end), kiln.tensor {1.0, 2}\n";

typedef struct budget {
  long left; /* allocations until one fails; negative: none does */
  long used;
} budget;

static void *alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  budget *b = ud;
  (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  b->used++;
  if (b->left == 0) return NULL;
  if (b->left > 0) b->left--;
  return realloc(ptr, nsize);
}

/* Captures and runs with the nth allocation, and all after it, failing. How many allocations it takes. */
static long attempt(long n) {
  budget b = {-1, 0};
  kn_heap *heap = kn_heap_new(alloc, &b, 0);
  kn_context *ctx = kn_context_new(heap, NULL);
  ck_assert_int_eq(kn_registry_open(ctx, "ref"), KN_OK);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  kiln_lua_setcontext(L, (struct kiln_context *)ctx);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_pop(L, 1);
  ck_assert_msg(luaL_dostring(L, source) == LUA_OK, "%s", lua_tostring(L, -1));
  kl_load_files(L);
  b.used = 0;
  b.left = n;
  int rc = lua_pcall(L, 1, 2, 0);
  b.left = -1;
  long used = b.used;
  if (n < 0) ck_assert_msg(rc == LUA_OK, "%s", lua_tostring(L, -1));
  if (rc != LUA_OK) {
    const char *why = lua_tostring(L, -1);
    ck_assert_msg(why && strstr(why, "memory"), "allocation %ld: %s", n, why ? why : "nil");
  }
  lua_close(L);
  kn_registry_close(ctx);
  kn_context_free(ctx);
  ck_assert_msg(kn_heap_read_stats(heap).blocks == 0, "allocation %ld: %llu blocks are lost", n,
                (unsigned long long)kn_heap_read_stats(heap).blocks);
  kn_heap_release(heap);
  return used;
}

START_TEST(every_allocation) {
  long all = attempt(-1);
  ck_assert_int_gt(all, 20);
  for (long n = 0; n < all; n++) attempt(n);
}
END_TEST

SUITE("capture memory", every_allocation)
