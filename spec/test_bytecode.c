/* Reading bytecode: every opcode decodes, line tables agree with Lua's own, damaged dumps are refused without
 * reading past their end, and the probe holds. */
#include "spec/suite.h"
#include "bindings/lua/kiln_lua.h"
#include "lua/capture/bytecode.h"
#include "lua/capture/capture.h"
#include "lua/capture/cfg.h"
#include <lauxlib.h>
#include <lualib.h>

static const char *const chunks[] = {
    "return 1",
    "local a, b = ... for i = 1, #a do b[i] = a[i] + 1 end return b, a == b, a < b",
    "local t = {} for k, v in pairs(t) do t[k] = v .. 'x' end while t do if t.x then break end t = nil end",
    "local function f(...) local a <close> = nil return select('#', ...), ... end return f(1, 2, f(3))",
    "goto out do local x = function() return x end end ::out:: return -1, ~1, not nil, #'x', 1 // 2, 2 ^ 3",
    "local a = ... return a + 1, a - 2.5, a * 3, a % 4, a / 5, a // 6, a & 7, a | 8, a ~ 9, a << 1, a >> 2, "
    "3 << a",
    "local a, b = ... return a and b or a, a <= 3, a > 4, a >= 5, a == 'k', a == 6, a ~= nil",
    "local t = {1, 2, 3, x = {y = function(self) return self.z end}} t.x:y() t.x.y = 1 t[1] = 2 G = t return "
    "t",
    "local up = 0 return function() up = up + 1 return function() up = up * 2 return up end end",
    "local a, b = ... return a + b, a - b, a * b, a % b, a / b, a // b, a ^ b, a & b, a | b, a ~ b, a << b, "
    "a >> b",
    "local a, b = ... local t = a[3] return not a, -a, ~b, t, a + 1.5, a - 1.5, a ^ 2.5, false, a <= b, a ~= "
    "2",
    "local s = 0 for x = 1.0, 0, -0.25 do s = s + x end repeat local q = s s = s - 1 until q < 0 return s",
};
enum { CHUNKS = sizeof chunks / sizeof *chunks };

typedef struct fixture {
  lua_State *L;
  kn_context *ctx;
  kn_arena arena;
  uint8_t *bytes;
  size_t n, size;
} fixture;

static fixture open(const char *source) {
  fixture f = {.L = luaL_newstate(), .ctx = suite_context()};
  luaL_openlibs(f.L);
  kn_arena_init(&f.arena, f.ctx->heap);
  ck_assert_msg(luaL_loadstring(f.L, source) == LUA_OK, "%s", lua_tostring(f.L, -1));
  OK(f.ctx, kc_dump(f.L, f.ctx, -1, &f.bytes, &f.n, &f.size));
  return f;
}

static void done(fixture *f) {
  kn_free(f->ctx->heap, f->bytes, f->size);
  kn_arena_free(&f->arena);
  lua_close(f->L);
  suite_done(f->ctx);
}

static void mark_opcodes(const kc_proto *p, bool *seen) {
  for (int i = 0; i < p->ncode; i++) seen[kc_op(p->code[i])] = true;
  for (int i = 0; i < p->np; i++) mark_opcodes(p->p[i], seen);
}

/* A long list of constants brings LOADKX, and a long table an EXTRAARG that counts. */
static char *long_chunk(void) {
  size_t size = 4u << 20, at = 0;
  char *s = malloc(size);
  ck_assert_ptr_nonnull(s);
  at += (size_t)snprintf(s, size, "local t = {");
  for (int i = 0; i < 140000; i++) at += (size_t)snprintf(s + at, size - at, "%d.25,", i);
  snprintf(s + at, size - at, "} return t");
  return s;
}

START_TEST(every_opcode) {
  bool seen[KC_NOPCODES] = {false};
  char *text = long_chunk();
  for (int i = 0; i <= CHUNKS; i++) {
    fixture f = open(i < CHUNKS ? chunks[i] : text);
    kc_proto *p;
    OK(f.ctx, kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
    mark_opcodes(p, seen);
    done(&f);
  }
  free(text);
  char missing[512] = "";
  for (int o = 0; o < KC_NOPCODES; o++)
    if (!seen[o]) {
      strcat(missing, " ");
      strcat(missing, kc_opcode_name((kc_opcode)o));
    }
  ck_assert_str_eq(missing, "");
}
END_TEST

/* Lines of the function on top of the stack, and of those it defines where they can be reached. */
START_TEST(lines_agree) {
  for (int i = 0; i < CHUNKS; i++) {
    char text[2000] = "\n\n", *to = text + 2;
    for (const char *s = chunks[i]; *s && to < text + 1900; s++) { /* a line for each word */
      *to++ = *s == ' ' ? '\n' : *s;
      if (*s == ' ' && to[-2] == '\'') to[-1] = ' ';
    }
    *to = 0;
    fixture f = open(text);
    kc_proto *p;
    OK(f.ctx, kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
    lua_Debug ar;
    lua_pushvalue(f.L, -1);
    lua_getinfo(f.L, ">L", &ar);
    for (int pc = p->vararg ? 1 : 0; pc < p->ncode; pc++) {
      lua_rawgeti(f.L, -1, kc_line(p, pc));
      ck_assert_msg(lua_toboolean(f.L, -1), "chunk %d, instruction %d: line %d", i, pc, kc_line(p, pc));
      lua_pop(f.L, 1);
    }
    done(&f);
  }
}
END_TEST

START_TEST(long_functions_have_lines) { /* past the distance where absolute lines are kept */
  size_t size = 1u << 16, at = 0;
  char *s = malloc(size);
  for (int i = 0; i < 1000; i++)
    at += (size_t)snprintf(s + at, size - at, "%sx = %d", i % 3 ? "\n" : "\n\n\n", i);
  fixture f = open(s);
  free(s);
  kc_proto *p;
  OK(f.ctx, kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
  int line = 0;
  for (int pc = 1; pc + 1 < p->ncode; pc++) {
    ck_assert_int_ge(kc_line(p, pc), line);
    line = kc_line(p, pc);
  }
  ck_assert_int_eq(kc_line(p, p->ncode - 2), 1 + 334 * 3 + 666 - 1 + 1);
  ck_assert_int_eq(kc_line(p, p->ncode + 5), 0);
  done(&f);
}
END_TEST

START_TEST(names_of_locals) {
  fixture f = open("local first, second = 1, 2 do local inner = first end return second");
  kc_proto *p;
  OK(f.ctx, kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
  ck_assert_str_eq(kc_local_name(p, 0, 3), "first");
  ck_assert_str_eq(kc_local_name(p, 1, 3), "second");
  ck_assert_ptr_null(kc_local_name(p, 0, 0));
  ck_assert_ptr_null(kc_local_name(p, 9, 3));
  char buf[64];
  ck_assert_str_eq(kc_chunk_name("@a/b.lua", buf, sizeof buf), "a/b.lua");
  ck_assert_str_eq(kc_chunk_name("=stdin", buf, sizeof buf), "stdin");
  ck_assert_str_eq(kc_chunk_name("x = 1\ny = 2", buf, sizeof buf), "[string \"x = 1...\"]");
  done(&f);
}
END_TEST

/* What can be parsed can be analysed: run the flow analysis on every function that passes. */
static void analyse(kn_arena *a, kc_proto *p) {
  ck_assert_ptr_nonnull(kc_flow_of(a, p));
  for (int pc = 0; pc < p->ncode; pc++) kc_line(p, pc);
  for (int i = 0; i < p->np; i++) analyse(a, p->p[i]);
}

/* The bytes in a block of exactly their size, so that a sanitizer sees a read past the end. */
static void try_bytes(kn_context *ctx, const uint8_t *bytes, size_t n) {
  uint8_t *exact = malloc(n ? n : 1);
  memcpy(exact, bytes, n);
  kn_arena arena;
  kn_arena_init(&arena, ctx->heap);
  kc_proto *p;
  kn_status st = kc_parse(ctx, &arena, exact, n, &p);
  ck_assert(st == KN_OK || st == KN_FORMAT);
  if (st == KN_OK) analyse(&arena, p);
  kn_arena_free(&arena);
  free(exact);
}

START_TEST(truncated) {
  for (int i = 0; i < CHUNKS; i++) {
    fixture f = open(chunks[i]);
    for (size_t n = 0; n < f.n; n++) {
      kc_proto *p;
      kn_arena arena;
      kn_arena_init(&arena, f.ctx->heap);
      uint8_t *exact = malloc(n ? n : 1);
      memcpy(exact, f.bytes, n);
      FAILS(f.ctx, KN_FORMAT, "bytecode", kc_parse(f.ctx, &arena, exact, n, &p));
      free(exact);
      kn_arena_free(&arena);
    }
    done(&f);
  }
}
END_TEST

START_TEST(flipped) {
  for (int i = 0; i < CHUNKS; i++) {
    fixture f = open(chunks[i]);
    for (size_t at = 0; at < f.n; at++)
      for (int bit = 0; bit < 8; bit++) {
        f.bytes[at] ^= (uint8_t)(1 << bit);
        try_bytes(f.ctx, f.bytes, f.n);
        f.bytes[at] ^= (uint8_t)(1 << bit);
      }
    for (size_t at = 0; at < f.n; at++) { /* and whole bytes, where counts are */
      uint8_t was = f.bytes[at];
      f.bytes[at] = 0xff;
      try_bytes(f.ctx, f.bytes, f.n);
      f.bytes[at] = was;
    }
    done(&f);
  }
}
END_TEST

START_TEST(other_formats) {
  fixture f = open("return 1");
  kc_proto *p;
  f.bytes[4] = 0x55; /* Lua 5.5 */
  FAILS(f.ctx, KN_FORMAT, "not that of Lua 5.4", kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
  f.bytes[4] = 0x54;
  f.bytes[13] = 4; /* 32-bit integers */
  FAILS(f.ctx, KN_FORMAT, "not that of Lua 5.4", kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
  done(&f);
}
END_TEST

START_TEST(loops_and_liveness) {
  fixture f = open("local n, s = ... while n do if s then break end s = n n = s end return s");
  kc_proto *p;
  OK(f.ctx, kc_parse(f.ctx, &f.arena, f.bytes, f.n, &p));
  const kc_flow *flow = kc_flow_of(&f.arena, p);
  ck_assert_int_eq(flow->nloops, 1);
  ck_assert_int_eq(flow->loop[0].kind, KC_LOOP_WHILE);
  int header = flow->block[flow->loop[0].header].start;
  ck_assert(kc_regs_has(&flow->live[header], 0)); /* n decides */
  ck_assert(kc_regs_has(&flow->live[header], 1)); /* s is returned */
  ck_assert(!kc_regs_has(&flow->live[p->ncode - 1], 0));
  done(&f);
}
END_TEST

START_TEST(the_probe) {
  fixture f = open("return 1");
  OK(f.ctx, kc_check_lua(f.L, f.ctx));
  OK(f.ctx, kc_check_lua(f.L, f.ctx));
  ck_assert_int_eq(lua_gettop(f.L), 1);
  done(&f);
}
END_TEST

/* A Lua with other bytecode is one for which the probe reads otherwise: here, because it is another chunk. */
START_TEST(another_lua) {
  lua_State *L = luaL_newstate();
  kn_context *ctx = suite_context();
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_pop(L, 1);
  FAILS(ctx, KN_UNSUPPORTED, "functions run eagerly only", kc_check_lua_by(L, ctx, "return 1", 8));
  FAILS(ctx, KN_UNSUPPORTED, "not that of Lua 5.4", kc_check_lua(L, ctx));
  const char *program =
      "local x = kiln.tensor { 1.0, 2 }\n"
      "local function f(y) if y:sum() > 1 then return y * 2 end return y end\n"
      "assert(f(x):sum():item() == 6)\n"
      "local w = kiln.tensor { 3.0 }:requires_grad_(); (w * w):sum():backward() assert(w.grad:item() == 6)\n"
      "assert(kiln.nn.Linear(2, 3)(x:reshape(1, 2)):size(2) == 3)\n"
      "local g = kiln.script(f)\n"
      "for _ = 1, 2 do\n"
      "  local ok, why = pcall(g, x)\n"
      "  assert(not ok and why:find('functions run eagerly only', 1, true), why)\n"
      "end\n"
      "local ok, why = pcall(kiln.script, f, { inputs = { kiln.spec('float32', { 2 }) } })\n"
      "assert(not ok and why:find('Lua 5.4', 1, true), why)\n"
      "local h = kiln.parse('graph h(%x: float32[2]) {\\n  %y: float32[2] = add %x, %x\\n  return "
      "%y\\n}\\n')\n"
      "assert(h(x):sum():item() == 6)\n";
  ck_assert_msg(luaL_dostring(L, program) == LUA_OK, "%s", lua_tostring(L, -1));
  lua_close(L);
  suite_done(ctx);
}
END_TEST

SUITE("bytecode", every_opcode, lines_agree, long_functions_have_lines, names_of_locals, truncated, flipped,
      other_formats, loops_and_liveness, the_probe, another_lua)
