/* t:sofmax() and kiln.sofmax(t): names that are not there and are about to be called. A field that is missing
 * is nil, as in Lua, unless the bytecode of the caller's line only ever calls it and a name that is there is
 * near: then the error says which. Reached only by misses, from __index. */
#include "bindings/lua/state.h"
#include "lua/capture/reads.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- the nearest name ---- */

enum { LONGEST = 40, FAR = 3 };

static int least(int a, int b, int c) {
  int m = a < b ? a : b;
  return m < c ? m : c;
}

static bool same(char a, char b) { return tolower((unsigned char)a) == tolower((unsigned char)b); }

/* Letters that are missing, too many, wrong, or two that changed places; small and capital ones are alike. */
static int distance(const char *a, size_t n, const char *b, size_t m) {
  int row[3][LONGEST + 1];
  for (size_t j = 0; j <= m; j++) row[0][j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    int *now = row[i % 3], *last = row[(i + 2) % 3], *older = row[(i + 1) % 3];
    now[0] = (int)i;
    for (size_t j = 1; j <= m; j++) {
      now[j] = least(last[j] + 1, now[j - 1] + 1, last[j - 1] + !same(a[i - 1], b[j - 1]));
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]) && older[j - 2] + 1 < now[j])
        now[j] = older[j - 2] + 1;
    }
  }
  return row[n % 3][m];
}

/* The string key of the table at `names` that is nearest; NULL when none is near. Of equals the first by
 * alphabet. The key lives as long as the table has it. */
static const char *nearest(lua_State *L, int names, const char *name, size_t n) {
  const char *best = NULL;
  int found = n < 5 ? 2 : FAR;
  if (n > LONGEST || n < 3) return NULL;
  for (lua_pushnil(L); lua_next(L, names); lua_pop(L, 1)) {
    size_t m;
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *key = lua_tolstring(L, -2, &m);
    if (m > LONGEST || m + FAR <= n || n + FAR <= m) continue;
    int d = distance(name, n, key, m);
    if (d < found || (d == found && best && strcmp(key, best) < 0)) {
      found = d;
      best = key;
    }
  }
  return best;
}

/* ---- what the caller does with it ---- */

/* Whether the Lua function that reads the field now can only be about to call it. */
static bool is_for_a_call(lua_State *L, kn_context *ctx, const char *name, size_t n) {
  lua_Debug ar;
  if (!lua_getstack(L, 1, &ar) || !lua_getinfo(L, "Sl", &ar) || *ar.what == 'C' || ar.currentline <= 0)
    return false;
  uint8_t *bytes;
  size_t length, size;
  kc_proto *p;
  lua_getinfo(L, "f", &ar);
  kn_status st = kc_dump(L, ctx, -1, &bytes, &length, &size);
  lua_pop(L, 1);
  if (st != KN_OK) return false;
  kn_arena a;
  kn_arena_init(&a, ctx->heap);
  bool yes = kc_parse(ctx, &a, bytes, length, &p) == KN_OK && kc_only_called(p, ar.currentline, name, n);
  kn_arena_free(&a);
  kn_free(ctx->heap, bytes, size);
  return yes;
}

static const char sentence[] = "%s has no %s '%s'; did you mean '%s'?";

void kl_check_misspelt(lua_State *L, int key, int names, const char *of, const char *kind) {
  size_t n;
  if (lua_type(L, key) != LUA_TSTRING || !lua_checkstack(L, 4)) return;
  const char *name = lua_tolstring(L, key, &n);
  const char *meant = nearest(L, lua_absindex(L, names), name, n);
  if (meant && is_for_a_call(L, kl_context(L), name, n)) kl_error(L, KN_ARG, sentence, of, kind, name, meant);
}

bool kl_missing(lua_State *L, int table, int key, char *why, size_t size) {
  size_t n;
  const char *of = "tensor", *name = lua_tolstring(L, key, &n);
  int top = lua_gettop(L);
  *why = 0;
  luaL_checkstack(L, 8, "capture");
  if (table) {
    of = luaL_getmetafield(L, table, "__index") != LUA_TNIL ? kl_module_of(L, -1) : NULL;
    lua_pushvalue(L, table);
  } else {
    kl_push_methods(L);
  }
  const char *meant = of ? nearest(L, lua_gettop(L), name, n) : NULL;
  if (meant) snprintf(why, size, sentence, of, table ? "function" : "method", name, meant);
  lua_settop(L, top);
  return of != NULL;
}
