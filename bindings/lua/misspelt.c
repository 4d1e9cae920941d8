/* t:sofmax() and kiln.sofmax(t): names that are not there and are about to be called. A field that is missing
 * is nil, as in Lua, unless the bytecode of the caller's line only ever calls it and a name that is there is
 * near: then the error says which. Reached only by misses, from __index. */
#include "bindings/lua/state.h"
#include "lua/capture/bytecode.h"
#include <string.h>

/* ---- the nearest name ---- */

enum { LONGEST = 40, FAR = 3 };

static int least(int a, int b, int c) {
  int m = a < b ? a : b;
  return m < c ? m : c;
}

/* Letters that are missing, too many, wrong, or two that changed places. */
static int distance(const char *a, size_t n, const char *b, size_t m) {
  int row[3][LONGEST + 1];
  for (size_t j = 0; j <= m; j++) row[0][j] = (int)j;
  for (size_t i = 1; i <= n; i++) {
    int *now = row[i % 3], *last = row[(i + 2) % 3], *older = row[(i + 1) % 3];
    now[0] = (int)i;
    for (size_t j = 1; j <= m; j++) {
      now[j] = least(last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && older[j - 2] + 1 < now[j])
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

/* The key that an instruction reads a field by; NULL: it reads none. */
static const kc_const *key_of(const kc_proto *p, kc_code i) {
  kc_opcode o = kc_op(i);
  bool reads = o == KC_GETFIELD || o == KC_GETTABUP || (o == KC_SELF && kc_k(i));
  return reads ? &p->k[kc_c(i)] : NULL;
}

/* What may stand between a function and its call: its arguments, where nothing is decided. */
static bool is_straight(kc_opcode o) {
  return o < KC_JMP || o == KC_CALL || o == KC_VARARG || o == KC_CLOSURE || o == KC_SETLIST ||
         o == KC_EXTRAARG;
}

/* Is what the instruction at pc reads surely called? */
static bool is_called(const kc_proto *p, int pc) {
  int reg = kc_a(p->code[pc]);
  if (kc_op(p->code[pc]) == KC_SELF) return true;
  for (int k = pc + 1; k < p->ncode; k++) {
    kc_code i = p->code[k];
    kc_opcode o = kc_op(i);
    if ((o == KC_CALL || o == KC_TAILCALL) && kc_a(i) <= reg) return kc_a(i) == reg;
    if (!is_straight(o) || (kc_opcode_operands(o)[0] == 'w' && kc_a(i) <= reg)) return false;
  }
  return false;
}

static bool only_called(const kc_proto *p, int line, const char *name, size_t n) {
  bool any = false;
  for (int pc = 0; pc < p->ncode; pc++) {
    const kc_const *key = kc_line(p, pc) == line ? key_of(p, p->code[pc]) : NULL;
    if (!key || key->kind != KC_CONST_STRING || key->n != n || memcmp(key->s, name, n)) continue;
    if (!is_called(p, pc)) return false;
    any = true;
  }
  return any;
}

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
  bool yes = kc_parse(ctx, &a, bytes, length, &p) == KN_OK && only_called(p, ar.currentline, name, n);
  kn_arena_free(&a);
  kn_free(ctx->heap, bytes, size);
  return yes;
}

void kl_check_misspelt(lua_State *L, int key, int names, const char *of, const char *kind) {
  size_t n;
  if (lua_type(L, key) != LUA_TSTRING || !lua_checkstack(L, 4)) return;
  const char *name = lua_tolstring(L, key, &n);
  const char *meant = nearest(L, lua_absindex(L, names), name, n);
  if (meant && is_for_a_call(L, kl_context(L), name, n))
    kl_error(L, KN_ARG, "%s has no %s '%s'; did you mean '%s'?", of, kind, name, meant);
}
