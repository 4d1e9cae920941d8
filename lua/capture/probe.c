/* The probe: a chunk that every Lua 5.4 compiles to the same instructions, which between them show every
 * opcode but LOADKX. Capture reads bytecode only where the probe reads as expected: the patch level of a Lua
 * cannot be asked for, and a build with other opcodes or numbers must be told apart before anything is
 * believed. */
#include "lua/capture/bytecode.h"
#include "lua/capture/capture.h"
#include <lauxlib.h>

static const char source[] =
    "local up, big = 1, 0x7fffffff\n"
    "local function f(a, b, ...)\n"
    "  local n, t, u = nil, {1, 2, x = 3}, 2.0 local lf = false local ak = a + 7.5\n"
    "  local c = 100000\n"
    "  t.y = a t[b] = 5 t[3] = b up = a G = a\n"
    "  local g = t.y + t[b] + t[3] + G + up\n"
    "  local s = a + 1 local s2 = a + c local k1 = a - 7.5\n"
    "  local k2, k3, k4, k5, k6 = a * 2.5, a % 3.5, a ^ 2.5, a / 2.5, a // 2.5\n"
    "  local b1, b2, b3, b4, b5 = a & 1234567, a | 1234567, a ~ 1234567, a >> 3, 3 << a\n"
    "  local r1, r2, r3, r4, r5, r6, r7 = a + b, a - b, a * b, a % b, a ^ b, a / b, a // b\n"
    "  local q1, q2, q3, q4, q5 = a & b, a | b, a ~ b, a << b, a >> b\n"
    "  local m1, m2, m3, m4 = -a, ~a, not a, #t\n"
    "  local z = a .. b .. \"s\"\n"
    "  local e1 = a == b local e2 = a < b local e3 = a <= b\n"
    "  local e4 = a == \"k\" local e5 = a == 3\n"
    "  local e6 = a < 3 local e7 = a <= 3 local e8 = a > 3 local e9 = a >= 3\n"
    "  local o = a and b or c\n"
    "  if a then t:m(b) end\n"
    "  for i = 1, 3 do local h = function() return i end end\n"
    "  for k, v in pairs(t) do up = k end\n"
    "  do local w <close> = nil end\n"
    "  local va = {...}\n"
    "  local v1, v2 = ...\n"
    "  while a do if b then break end a = b end\n"
    "  if z then return end\n"
    "  if o then return a end\n"
    "  if u then return a, ... end\n"
    "  return f(a, b)\n"
    "end\n"
    "return f\n";

/* Instructions of the chunk and its functions, outermost first, in order of definition. */
static const kc_code expected[] = {
    0x00000051, 0x80000001, 0x00000083, 0x0000014f, 0x01028146, 0x010181c6, 0x00000151, 0x00000108,
    0x02010193, 0x00000052, 0x80000201, 0x80008281, 0x01008192, 0x000201ce, 0x80008202, 0x00000285,
    0x02000316, 0x06020030, 0x00018383, 0x00040192, 0x05018190, 0x01030191, 0x0000000a, 0x0006008f,
    0x0403040e, 0x0103048c, 0x09080422, 0x0609042e, 0x0303048d, 0x09080422, 0x0609042e, 0x0601048b,
    0x09080422, 0x0609042e, 0x00000489, 0x09080422, 0x0609042e, 0x80000495, 0x0680002f, 0x07000522,
    0x0607002e, 0x02000597, 0x07020030, 0x07000618, 0x08070030, 0x08000699, 0x09080030, 0x0700071a,
    0x0a070030, 0x0700079b, 0x0b070030, 0x0700081c, 0x0c070030, 0x0900089d, 0x0d090030, 0x0900091e,
    0x0e090030, 0x0900099f, 0x0f090030, 0x82000a20, 0x1182002f, 0x82000aa1, 0x1082802f, 0x01000b22,
    0x0601002e, 0x01000ba3, 0x0701002e, 0x01000c24, 0x0801002e, 0x01000ca5, 0x0901002e, 0x01000d26,
    0x0a01002e, 0x01000da7, 0x0b01002e, 0x01000e28, 0x0c01002e, 0x01000ea9, 0x0d01002e, 0x01000f2a,
    0x0e01002e, 0x01000fab, 0x0f01002e, 0x0100102c, 0x1001002e, 0x010010ad, 0x1101002e, 0x00001131,
    0x000011b2, 0x00001233, 0x000312b4, 0x00001300, 0x00011380, 0x00051403, 0x00031335, 0x00018039,
    0x80000038, 0x00001386, 0x00001387, 0x0001803a, 0x80000038, 0x00001406, 0x00001407, 0x0001803b,
    0x80000038, 0x00001486, 0x00001487, 0x000b803c, 0x80000038, 0x00001506, 0x00001507, 0x0082803d,
    0x80000038, 0x00001586, 0x00001587, 0x0082803e, 0x80000038, 0x00001606, 0x00001607, 0x0082803f,
    0x80000038, 0x00001686, 0x00001687, 0x00828040, 0x80000038, 0x00001706, 0x00001707, 0x00828041,
    0x80000038, 0x00001786, 0x00001787, 0x00000042, 0x800000b8, 0x00019843, 0x80000038, 0x00071800,
    0x00000042, 0x80000138, 0x0c039894, 0x00011980, 0x010318c4, 0x80001881, 0x80011901, 0x80001981,
    0x000118ca, 0x00001acf, 0x00001a36, 0x000198c9, 0x0d01188b, 0x00031900, 0x050218c4, 0x000098cb,
    0x00001a8a, 0x020018cc, 0x000198cd, 0x000018b6, 0x00001888, 0x000018b7, 0x000018b6, 0x00001893,
    0x00000052, 0x00001950, 0x000018ce, 0x03001950, 0x00000042, 0x800001b8, 0x000080c2, 0x800000b8,
    0x00010000, 0x7ffffcb8, 0x00001342, 0x80000038, 0x03019a46, 0x00001842, 0x80000038, 0x03028046,
    0x00000242, 0x80000138, 0x00001a00, 0x00001ad0, 0x03009a46, 0x00021a09, 0x00001a80, 0x00011b00,
    0x03039a45, 0x03009a46, 0x03019a46, 0x00000009, 0x00020048, 0x00010047,
};
enum { EXPECTED = sizeof expected / sizeof expected[0] };

static const char checked_key; /* its address: the result of the check in the registry */

/* Instructions that agree from *at on; false at the first that does not. */
static bool agrees(const kc_proto *p, uint32_t *at) {
  for (int i = 0; i < p->ncode; i++)
    if (*at >= EXPECTED || p->code[i] != expected[(*at)++]) return false;
  for (int i = 0; i < p->np; i++)
    if (!agrees(p->p[i], at)) return false;
  return true;
}

static kn_status probe(lua_State *L, kn_context *ctx, const char *text, size_t len) {
  uint8_t *bytes;
  size_t n, size;
  kn_arena arena;
  kc_proto *p = NULL;
  if (luaL_loadbufferx(L, text, len, "=probe", "t") != LUA_OK) {
    lua_pop(L, 1);
    return kn_fail(ctx, KN_UNSUPPORTED, "capture: this Lua does not compile Lua 5.4");
  }
  kn_status st = kc_dump(L, ctx, -1, &bytes, &n, &size);
  lua_pop(L, 1);
  if (st != KN_OK) return st;
  kn_arena_init(&arena, ctx->heap);
  st = kc_parse(ctx, &arena, bytes, n, &p);
  uint32_t at = 0;
  if (st == KN_OK && (!agrees(p, &at) || at != EXPECTED))
    st = kn_fail(ctx, KN_UNSUPPORTED,
                 "capture: this Lua's bytecode is not that of Lua 5.4 (instruction %u of the probe differs); "
                 "functions run eagerly only",
                 at);
  kn_arena_free(&arena);
  kn_free(ctx->heap, bytes, size);
  return st;
}

kn_status kc_check_lua_by(lua_State *L, kn_context *ctx, const char *text, size_t len) {
  if (!lua_checkstack(L, 8)) return kn_fail_nomem(ctx, 0);
  kn_status st = probe(L, ctx, text, len);
  if (st == KN_NOMEM) return st;
  if (st == KN_OK)
    lua_pushboolean(L, 1);
  else
    lua_pushstring(L, kn_error(ctx));
  lua_rawsetp(L, LUA_REGISTRYINDEX, &checked_key);
  return st;
}

kn_status kc_check_lua(lua_State *L, kn_context *ctx) {
  if (!lua_checkstack(L, 8)) return kn_fail_nomem(ctx, 0);
  int known = lua_rawgetp(L, LUA_REGISTRYINDEX, &checked_key);
  kn_status st = known == LUA_TSTRING ? kn_fail(ctx, KN_UNSUPPORTED, "%s", lua_tostring(L, -1)) : KN_OK;
  lua_pop(L, 1);
  return known == LUA_TNIL ? kc_check_lua_by(L, ctx, source, sizeof source - 1) : st;
}
