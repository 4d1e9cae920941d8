/* kiln_lua.h as a host uses it: states made and given, chunks, calls by name, tensors and graphs to and fro,
 * captures, tracebacks, limits, and memory that runs out at every allocation. */
#define _POSIX_C_SOURCE 200809L /* mkstemp, fdopen */
#include "spec/suite.h"
#include "spec/scarce.h"
#include "bindings/lua/kiln_lua.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <unistd.h>

#define GOOD(L, call)                                                                                        \
  do {                                                                                                       \
    kiln_status suite_s_ = (call);                                                                           \
    ck_assert_msg(suite_s_ == KILN_OK, "%s: %s: %s", #call, kiln_status_text(suite_s_), kiln_lua_error(L));  \
  } while (0)

/* Fails with the status and a report that contains `part`, and leaves the stack as it was. */
#define BAD(L, status, part, call)                                                                           \
  do {                                                                                                       \
    int suite_top_ = lua_gettop(L);                                                                          \
    kiln_status suite_s_ = (call);                                                                           \
    ck_assert_msg(suite_s_ == (status), "%s: \"%s\" instead of \"%s\": %s", #call,                           \
                  kiln_status_text(suite_s_), kiln_status_text(status), kiln_lua_error(L));                  \
    ck_assert_msg(strstr(kiln_lua_error(L), (part)) != NULL, "%s: no \"%s\" in \"%s\"", #call, (part),       \
                  kiln_lua_error(L));                                                                        \
    ck_assert_int_eq(lua_gettop(L), suite_top_);                                                             \
  } while (0)

static kiln_status run(lua_State *L, const char *text) {
  return kiln_lua_run(L, text, strlen(text), "test", 0);
}

static lua_State *open_state(const kiln_lua_options *o) {
  lua_State *L = NULL;
  char error[256] = "";
  ck_assert_msg(kiln_lua_new(o, &L, error, sizeof error) == KILN_OK, "%s", error);
  return L;
}

static kiln_context *open_context(kiln_alloc_fn alloc, void *ud, size_t limit) {
  kiln_context *ctx = NULL;
  const kiln_context_options o = {
      .size = sizeof o, .alloc = alloc, .alloc_ud = ud, .memory_limit = limit, .backend = "ref"};
  ck_assert_int_eq(kiln_context_new(&o, &ctx, NULL, 0), KILN_OK);
  return ctx;
}

static uint64_t blocks_of(const kiln_context *ctx) {
  kiln_memory m = {.size = sizeof m};
  kiln_context_memory(ctx, &m);
  return m.blocks;
}

typedef struct lent { /* memory of the host, and how often it was given back */
  float numbers[4];
  int released;
} lent;

static void release(void *ud, void *data, size_t bytes) {
  lent *l = ud;
  ck_assert_ptr_eq(data, l->numbers);
  ck_assert_uint_eq(bytes, sizeof l->numbers);
  l->released++;
}

static kiln_tensor *lend(lua_State *L, lent *l) {
  kiln_tensor *t = NULL;
  *l = (lent){.numbers = {1, 2, 3, 4}};
  GOOD(L, kiln_tensor_wrap(kiln_lua_context(L), KILN_FLOAT32, 1, (const int64_t[]){4}, l->numbers, release, l,
                           &t));
  return t;
}

/* ---- states ---- */

START_TEST(states_are_made) {
  char error[128] = "";
  lua_State *L = open_state(NULL);
  ck_assert_str_eq(kiln_lua_error(L), "");
  GOOD(L, run(L, "assert(io and os and debug and kiln.ones(2):sum():item() == 2)"));
  ck_assert_int_eq(lua_gettop(L), 0);
  kiln_lua_free(L);
  kiln_lua_free(NULL);

  L = open_state(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .libraries = "os"});
  GOOD(L, run(L, "assert(os and not io and not debug and string and utf8)\n"
                 "local f = kiln.script(function(x) return kiln.nn.functional.relu(x) end)\n"
                 "assert(f(kiln.ones(2)):sum():item() == 2)"));
  kiln_lua_free(L);

  ck_assert_int_eq(kiln_lua_new(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .libraries = "io,net"},
                                &L, error, sizeof error),
                   KILN_ARG);
  ck_assert_ptr_nonnull(strstr(error, "'net'"));
  ck_assert_int_eq(kiln_lua_new(&(kiln_lua_options){.size = 0}, &L, NULL, 0), KILN_ARG);
  ck_assert_int_eq(kiln_lua_new(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .memory_limit = 1000},
                                &L, error, sizeof error),
                   KILN_NOMEM);
  kiln_context *ctx = open_context(NULL, NULL, 0);
  ck_assert_int_eq(
      kiln_lua_new(
          &(kiln_lua_options){.size = sizeof(kiln_lua_options), .context = ctx, .memory_limit = 1 << 20}, &L,
          error, sizeof error),
      KILN_ARG);
  uint64_t blocks = blocks_of(ctx);
  L = open_state(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .context = ctx});
  ck_assert_ptr_eq(kiln_lua_context(L), ctx);
  GOOD(L, run(L, "keep = kiln.ones(100)"));
  kiln_lua_free(L);
  ck_assert_uint_eq(blocks_of(ctx), blocks);
  kiln_context_free(ctx);
}
END_TEST

/* The functions work in a state of the host's, too, and say so where kiln is not open. */
START_TEST(states_of_the_host) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  ck_assert_int_eq(run(L, "x = 1"), KILN_STATE);
  ck_assert_ptr_nonnull(strstr(kiln_lua_error(L), "not open"));
  ck_assert_ptr_null(kiln_lua_context(L));
  lua_pushnil(L);
  ck_assert_int_eq(kiln_lua_pcall(L, 0, 0), KILN_STATE);
  ck_assert_int_eq(lua_gettop(L), 0);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_settop(L, 0);
  GOOD(L, run(L, "x = kiln.ones(3)"));
  BAD(L, KILN_RAISED, "traceback", run(L, "error 'no'"));
  lua_close(L);
}
END_TEST

typedef struct lines {
  char text[256];
} lines;

static void add_output(void *ud, kiln_output kind, const char *text, size_t length) {
  lines *l = ud;
  size_t n = strlen(l->text);
  snprintf(l->text + n, sizeof l->text - n, "%d:%.*s;", (int)kind, (int)length, text);
}

START_TEST(output_is_the_contexts) {
  lines l = {""};
  kiln_context *ctx;
  const kiln_context_options o = {.size = sizeof o, .output = add_output, .output_ud = &l};
  ck_assert_int_eq(kiln_context_new(&o, &ctx, NULL, 0), KILN_OK);
  lua_State *L = open_state(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .context = ctx});
  GOOD(L, run(L, "print('a', 1, nil) warn 'w'"));
  ck_assert_str_eq(l.text, "0:a\t1\tnil\n;2:w;");
  l.text[0] = 0;
  GOOD(L, run(L, "local f = kiln.script(function(x) print('seen', 2) return x + 1 end) f(kiln.ones(2)) "
                 "f(kiln.ones(2))"));
  ck_assert_str_eq(l.text, "0:seen\t2\n;0:seen\t2\n;");
  kiln_lua_free(L);
  kiln_context_free(ctx);
}
END_TEST

/* ---- chunks ---- */

START_TEST(chunks) {
  lua_State *L = open_state(NULL);
  const char text[] = "return 1, 'two', ...";
  GOOD(L, kiln_lua_run(L, text, strlen(text), "c", -1));
  ck_assert_int_eq(lua_gettop(L), 2);
  ck_assert_str_eq(lua_tostring(L, 2), "two");
  GOOD(L, kiln_lua_run(L, text, 8, "c", 3)); /* not terminated there: "return 1" */
  ck_assert_int_eq(lua_gettop(L), 5);
  lua_settop(L, 0);

  BAD(L, KILN_FORMAT, "c:1:", kiln_lua_run(L, "x = = 1", 7, "c", 0));
  GOOD(L, run(L, "code = string.dump(function() end)"));
  lua_getglobal(L, "code");
  size_t n;
  const char *code = lua_tolstring(L, -1, &n);
  BAD(L, KILN_FORMAT, "binary", kiln_lua_run(L, code, n, "c", 0));

  char path[] = "/tmp/kiln-capi-XXXXXX";
  FILE *f = fdopen(mkstemp(path), "wb");
  fwrite(code, 1, n, f);
  fclose(f);
  BAD(L, KILN_FORMAT, "binary", kiln_lua_run_file(L, path, 0));
  f = fopen(path, "wb");
  fputs("#!/usr/bin/lua\nlocal function inner() error(\"broken\") end\nfunction outer() inner() end\n", f);
  fclose(f);
  GOOD(L, kiln_lua_run_file(L, path, 0));
  unlink(path);
  BAD(L, KILN_IO, path, kiln_lua_run_file(L, path, 0));

  lua_getglobal(L, "outer");
  lua_pushinteger(L, 1);
  int top = lua_gettop(L);
  ck_assert_int_eq(kiln_lua_pcall(L, 1, 1), KILN_RAISED);
  ck_assert_int_eq(lua_gettop(L), top - 2);
  const char *report = kiln_lua_error(L), *sentence = kiln_error(kiln_lua_context(L));
  ck_assert_msg(strstr(report, ":2: broken\nstack traceback:") && strstr(report, "'outer'"), "%s", report);
  ck_assert_msg(strstr(sentence, ":2: broken") && !strchr(sentence, '\n'), "%s", sentence);
  BAD(L, KILN_RAISED, "a table value", run(L, "error {}"));
  BAD(L, KILN_RAISED, "told", run(L, "error(setmetatable({}, {__tostring = function() return 'told' end}))"));
  /* what kiln raises keeps its status */
  BAD(L, KILN_SHAPE, "add", run(L, "return kiln.ones(2) + kiln.ones(3)"));
  BAD(L, KILN_RAISED, "mine",
      run(L, "pcall(function() return kiln.ones(2) + kiln.ones(3) end) error 'mine'"));
  kiln_lua_free(L);
}
END_TEST

/* ---- calls ---- */

START_TEST(calls_by_name) {
  lua_State *L = open_state(NULL);
  GOOD(L,
       run(L,
           "function all(...) return ... end\n"
           "game = { units = { update = function(t, k) t:mul_(k) return t, t[{{1, 2}}], 'done', 7 end } }\n"
           "package.loaded.far = { off = function() return 2.5 end }\n"
           "object = setmetatable({}, { __index = { f = function() return true end } })\n"));
  lent l;
  kiln_tensor *t = lend(L, &l);
  const kiln_value args[6] = {{.kind = KILN_NIL},
                              {.kind = KILN_TENSOR, .tensor = t},
                              {.kind = KILN_INTEGER, .i = -3},
                              {.kind = KILN_FLOAT, .f = 0.5},
                              {.kind = KILN_BOOLEAN, .b = 1},
                              {.kind = KILN_STRING, .text = "a\0b", .length = 3}};
  kiln_value out[7];
  GOOD(L, kiln_lua_call(L, "all", args, 6, out, 7));
  ck_assert(out[0].kind == KILN_NIL && out[6].kind == KILN_NIL);
  ck_assert(out[1].kind == KILN_TENSOR && kiln_tensor_data(out[1].tensor) == l.numbers);
  ck_assert(out[2].kind == KILN_INTEGER && out[2].i == -3 && out[3].kind == KILN_FLOAT && out[3].f == 0.5);
  ck_assert(out[4].kind == KILN_BOOLEAN && out[4].b == 1 && out[5].kind == KILN_STRING);
  ck_assert(out[5].length == 3 && !memcmp(out[5].text, "a\0b", 4));
  kiln_value_clear(&out[1]);

  const kiln_value scale[2] = {{.kind = KILN_TENSOR, .tensor = t}, {.kind = KILN_INTEGER, .i = 2}};
  GOOD(L, kiln_lua_call(L, "game.units.update", scale, 2, out, 3));
  ck_assert_float_eq(l.numbers[3], 8); /* written in place */
  ck_assert_int_eq(kiln_tensor_numel(out[1].tensor), 2);
  ck_assert_str_eq(out[2].text, "done"); /* the fourth was dropped */
  kiln_value_clear(&out[0]);
  kiln_value_clear(&out[1]);
  GOOD(L, kiln_lua_call(L, "far.off", NULL, 0, out, 1));
  ck_assert_double_eq(out[0].f, 2.5);
  GOOD(L, kiln_lua_call(L, "object.f", NULL, 0, out, 1));
  ck_assert_int_eq(out[0].b, 1);
  GOOD(L, kiln_lua_call(L, "kiln.nn.functional.relu", scale, 1, out, 1)); /* loaded when first asked for */
  kiln_value_clear(&out[0]);
  GOOD(L, kiln_lua_call(L, "all", NULL, 0, NULL, 0));

  out[0] = (kiln_value){.kind = KILN_INTEGER, .i = 42};
  BAD(L, KILN_ARG, "no 'none'", kiln_lua_call(L, "none", NULL, 0, out, 1));
  BAD(L, KILN_ARG, "'game.none' is nil", kiln_lua_call(L, "game.none.f", NULL, 0, out, 1));
  BAD(L, KILN_RAISED, "call a table", kiln_lua_call(L, "game", NULL, 0, out, 1));
  BAD(L, KILN_ARG, "argument 1", kiln_lua_call(L, "all", &(kiln_value){.kind = KILN_NUMBER}, 1, out, 1));
  BAD(L, KILN_ARG, "below 0", kiln_lua_call(L, "all", NULL, -1, out, 1));
  GOOD(L, run(L, "function odd() return kiln.ones(2), {} end"));
  BAD(L, KILN_ARG, "result 2 is a table", kiln_lua_call(L, "odd", NULL, 0, out, 2));
  ck_assert_int_eq((int)out[0].i, 42);
  kiln_tensor_release(t);
  kiln_lua_free(L);
  ck_assert_int_eq(l.released, 1);
}
END_TEST

/* ---- tensors ---- */

static int fetch_inside(lua_State *L) { /* a host's function that captured code calls */
  kiln_tensor *t;
  lua_pushinteger(L, kiln_lua_to_tensor(L, 1, &t));
  return 1;
}

START_TEST(tensors_go_over) {
  lua_State *L = open_state(NULL);
  lent l;
  kiln_tensor *t = lend(L, &l), *back;
  GOOD(L, kiln_lua_push_tensor(L, t));
  lua_setglobal(L, "x");
  GOOD(L, run(L, "assert(x.dtype == 'float32' and x:sum():item() == 10) x:requires_grad_()\n"
                 "y = (x * 2):sum() y:backward() assert(x.grad:sum():item() == 8)\n"
                 "view = x:detach():reshape(2, 2):t() view[2][1] = 30 assert(x[3]:item() ~= 2)"));
  ck_assert_float_eq(l.numbers[1], 30);
  lua_getglobal(L, "view");
  GOOD(L, kiln_lua_to_tensor(L, -1, &back));
  ck_assert(kiln_tensor_data(back) == l.numbers && kiln_tensor_stride(back, 0) == 1);
  lua_getglobal(L, "y"); /* with a gradient: what is fetched has none */
  kiln_tensor *y;
  GOOD(L, kiln_lua_to_tensor(L, -1, &y));
  BAD(L, KILN_ARG, "nil", kiln_lua_to_tensor(L, 100, &y));
  lua_pushinteger(L, 3);
  BAD(L, KILN_ARG, "an integer", kiln_lua_to_tensor(L, -1, &y));
  lua_pushcfunction(L, fetch_inside);
  lua_setglobal(L, "fetch_inside");
  GOOD(L,
       run(L, "local seen b = kiln.builder() seen = fetch_inside(b:input('x', kiln.spec('float32', {2})))\n"
              "assert(seen == 6, seen)"));
  kiln_lua_free(L); /* what was fetched lives on */
  ck_assert_int_eq(l.released, 0);
  float total;
  ck_assert_int_eq(kiln_tensor_numel(y), 1);
  memcpy(&total, kiln_tensor_data(y), sizeof total);
  ck_assert_float_eq(total, 20);
  kiln_tensor_release(y);
  kiln_tensor_release(t);
  ck_assert_int_eq(l.released, 0);
  kiln_tensor_release(back);
  ck_assert_int_eq(l.released, 1);
}
END_TEST

START_TEST(memory_is_given_back_once) {
  lent l;
  for (int how = 0; how < 4; how++) {
    lua_State *L = open_state(NULL);
    kiln_tensor *t = lend(L, &l);
    GOOD(L, kiln_lua_push_tensor(L, t));
    kiln_tensor_release(t);
    lua_setglobal(L, "x");
    if (how == 1) GOOD(L, run(L, "x = nil collectgarbage() collectgarbage()"));
    if (how == 2) GOOD(L, run(L, "x:release()"));
    if (how == 3) BAD(L, KILN_SHAPE, "add", run(L, "return x + kiln.ones(3)"));
    ck_assert_int_eq(l.released, how == 1 || how == 2);
    kiln_lua_free(L);
    ck_assert_int_eq(l.released, 1);
  }
  /* gone from Lua by an error in the middle of a call */
  lua_State *L = open_state(NULL);
  GOOD(L, run(L, "function f(x) local y = x:reshape(2, 2) error 'no' end"));
  kiln_tensor *t = lend(L, &l);
  BAD(L, KILN_RAISED, "no",
      kiln_lua_call(L, "f", &(kiln_value){.kind = KILN_TENSOR, .tensor = t}, 1, NULL, 0));
  kiln_tensor_release(t);
  GOOD(L, run(L, "collectgarbage() collectgarbage()"));
  ck_assert_int_eq(l.released, 1);
  kiln_lua_free(L);
  ck_assert_int_eq(l.released, 1);
}
END_TEST

/* ---- limits ---- */

START_TEST(instructions_are_limited) {
  lua_State *L =
      open_state(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .instruction_limit = 20000});
  static const char *const endless[] = {
      "while true do end",
      "while true do pcall(function() while true do end end) end",
      "local co = coroutine.wrap(function() while true do pcall(function() while true do end end) end end)\n"
      "while true do pcall(co) end",
      "while true do coroutine.wrap(function() for i = 1, 100 do end end)() end",
      "local function f() return f() end f()",
      "setmetatable({}, { __close = function() while true do end end })\n"
      "local x <close> = setmetatable({}, { __close = function() while true do end end })",
      "while true do xpcall(error, function() while true do end end) end",
      "local f = kiln.script(function(n) local i = 0 while i < n do i = i + 1 end return i end)\n"
      "f(1 << 60)",
  };
  for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) {
    kiln_status st = run(L, endless[i]);
    ck_assert_msg(st == KILN_LIMIT, "%s: %s: %s", endless[i], kiln_status_text(st), kiln_lua_error(L));
    ck_assert_msg(strstr(kiln_lua_error(L), "limit"), "%s", kiln_lua_error(L));
    GOOD(L, run(L, "local n = 0 for i = 1, 1000 do n = n + i end assert(n == 500500)")); /* each call anew */
  }
  ck_assert_ptr_nonnull(strstr(kiln_lua_error(L), "traceback"));
  GOOD(L, run(L, "function busy() for i = 1, 5000 do end end"));
  for (int i = 0; i < 10; i++) GOOD(L, kiln_lua_call(L, "busy", NULL, 0, NULL, 0));
  kiln_lua_limit_instructions(L, 0);
  GOOD(L, run(L, "for i = 1, 100000 do end"));
  kiln_lua_limit_instructions(L, 3);
  BAD(L, KILN_LIMIT, "3 instructions", run(L, "local a, b, c, d = f, g, h, i"));
  kiln_lua_free(L);
}
END_TEST

START_TEST(memory_is_limited) {
  const size_t limit = 24 << 20;
  lua_State *L = open_state(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .memory_limit = limit});
  kiln_memory m = {.size = sizeof m};
  static const char *const greedy[] = {
      "local s = 'x' while true do s = s:rep(2) end",
      "local t = {} for i = 1, 1 << 40 do t[i] = i end",
      "local s = 'x' while true do s = s .. s end",
      "local t = {} while true do t[#t + 1] = kiln.ones(1000) end",
      "local t = {} while true do t[#t + 1] = kiln.ones(1000) t[#t + 1] = ('x'):rep(4000) end",
      "kiln.ones(1 << 30)",
      "local function f(n) return f(n + 1) + 1 end return f(1)",
      "local co = {} while true do co[#co + 1] = coroutine.create(function() end) end",
  };
  for (size_t i = 0; i < sizeof greedy / sizeof *greedy; i++) {
    kiln_status st = run(L, greedy[i]);
    ck_assert_msg(st == KILN_NOMEM, "%s: %s: %s", greedy[i], kiln_status_text(st), kiln_lua_error(L));
    kiln_context_memory(kiln_lua_context(L), &m);
    ck_assert_uint_le(m.peak, limit);
    GOOD(L, run(L, "assert(kiln.ones(1000):sum():item() == 1000 and #('x'):rep(1 << 20) == 1 << 20)"));
  }
  /* what tensors in garbage hold is there for Lua, and the other way round */
  GOOD(L, run(L, "local part = ('x'):rep(3 << 20) collectgarbage 'stop'\n"
                 "for i = 1, 100 do\n"
                 "  for k = 1, 18 do local t = kiln.ones(250000) end\n"
                 "  local s = part .. i\n"
                 "end"));
  kiln_lua_free(L);
}
END_TEST

/* ---- graphs ---- */

static double number_of(kiln_tensor *t) {
  float x;
  memcpy(&x, kiln_tensor_data(t), sizeof x);
  return (double)x;
}

/* Runs it on one tensor of ones and gives the first element of its first result. */
static double run_session(kiln_context *ctx, kiln_graph *g, int64_t n) {
  kiln_session *s;
  kiln_tensor *x;
  kiln_value y;
  float ones[16];
  for (int i = 0; i < 16; i++) ones[i] = 1;
  ck_assert_int_eq(kiln_session_new(ctx, g, &s), KILN_OK);
  ck_assert_int_eq(kiln_tensor_new(ctx, KILN_FLOAT32, 1, &n, ones, &x), KILN_OK);
  ck_assert_int_eq(kiln_session_set(s, 0, &(kiln_value){.kind = KILN_TENSOR, .tensor = x}), KILN_OK);
  ck_assert_msg(kiln_session_run(s) == KILN_OK, "%s", kiln_session_error(s));
  ck_assert_int_eq(kiln_session_get(s, 0, &y), KILN_OK);
  double r = number_of(y.tensor);
  kiln_value_clear(&y);
  kiln_tensor_release(x);
  kiln_session_free(s);
  return r;
}

START_TEST(graphs_are_captured) {
  lua_State *L = open_state(NULL);
  kiln_context *ctx = kiln_lua_context(L);
  kiln_graph *g, *same;
  GOOD(L, run(L, "w = kiln.full({ 4 }, 3.0)\n"
                 "function f(x) if x:sum() > 100 then return x:sum() end return (x * w):sum() end"));
  lua_getglobal(L, "f");
  GOOD(L, kiln_lua_script(L, -1, "kiln.spec('float32', {4})", 0, &g));
  ck_assert_int_eq(lua_gettop(L), 1);
  ck_assert_double_eq(run_session(ctx, g, 4), 12);
  GOOD(L, run(L, "w:mul_(2)")); /* Lua goes on; the graph is as it was */
  ck_assert_double_eq(run_session(ctx, g, 4), 12);

  GOOD(L, run(L, "specs = { kiln.spec('float32', { 'N' }) } function free(x) return x:sum() + 1 end"));
  lua_getglobal(L, "free");
  lua_getglobal(L, "specs");
  GOOD(L, kiln_lua_script(L, -2, NULL, -1, &same));
  ck_assert_int_eq(lua_gettop(L), 3);
  ck_assert_double_eq(run_session(ctx, same, 7), 8);
  kiln_graph_release(same);

  /* back into Lua, and out again: slots as they are in Lua's session */
  GOOD(L, kiln_lua_push_graph(L, g));
  GOOD(L, kiln_lua_to_graph(L, -1, &same));
  kiln_graph_release(same);
  lua_setglobal(L, "g");
  GOOD(L, run(L, "assert(g(kiln.ones(4)):item() == 12 and g:inputs()[1].name == 'x')"));
  lua_getglobal(L, "g");
  GOOD(L, kiln_lua_to_graph(L, -1, &same));
  ck_assert_double_eq(run_session(ctx, same, 4), 12);
  kiln_graph_release(same);

  BAD(L, KILN_ARG, "a table", kiln_lua_to_graph(L, 3, &same));
  GOOD(L, run(L, "later = kiln.script(f)"));
  lua_getglobal(L, "later");
  BAD(L, KILN_STATE, "not been captured", kiln_lua_to_graph(L, -1, &same));
  lua_settop(L, 0);
  GOOD(L, run(L, "local weak = {} function bad(x) return x[io.read()] end"));
  lua_getglobal(L, "bad");
  BAD(L, KILN_CAPTURE, "test:1:", kiln_lua_script(L, -1, "kiln.spec('float32', {4})", 0, &same));
  BAD(L, KILN_FORMAT, "specs", kiln_lua_script(L, -1, "kiln.spec(", 0, &same));
  BAD(L, KILN_ARG, "dtype", kiln_lua_script(L, -1, "kiln.spec('float31', {4})", 0, &same));
  BAD(L, KILN_ARG, "inputs", kiln_lua_script(L, -1, NULL, -1, &same));
  lua_pushinteger(L, 1);
  BAD(L, KILN_ARG, "function or module", kiln_lua_script(L, -1, "", 0, &same));
  kiln_lua_free(L); /* with its context: graphs live on */
  ctx = open_context(NULL, NULL, 0);
  ck_assert_double_eq(run_session(ctx, g, 4), 12);
  kiln_graph_release(g);
  kiln_context_free(ctx);
}
END_TEST

/* ---- memory that runs out ---- */

static const char setup[] = "w = kiln.full({ 4 }, 3.0) function f(x) return (x * w):sum() end\n"
                            "function give(x) return x * 2, 'text', 5 end\n"
                            "function fails() error 'broken' end";

/* Every function once. Gives the first status that is not OK. */
static kiln_status everything(lua_State *L, kiln_tensor *t, kiln_graph *graph) {
  kiln_status st, first = KILN_OK;
  kiln_tensor *back;
  kiln_graph *g;
  const kiln_value arg = {.kind = KILN_TENSOR, .tensor = t};
  kiln_value out[3];
#define TRY(call, done)                                                                                      \
  do {                                                                                                       \
    st = (call);                                                                                             \
    if (st == KILN_OK) {                                                                                     \
      done;                                                                                                  \
    } else {                                                                                                 \
      ck_assert_ptr_nonnull(strstr(kiln_lua_error(L), "memory"));                                            \
      ck_assert_int_eq(lua_gettop(L), 0);                                                                    \
      if (!first) first = st;                                                                                \
    }                                                                                                        \
    lua_settop(L, 0);                                                                                        \
  } while (0)
  TRY(kiln_lua_run(L, "return kiln.ones(3) + 1, {}", 27, "r", -1), ck_assert_int_eq(lua_gettop(L), 2));
  TRY(kiln_lua_call(L, "give", &arg, 1, out, 3), {
    ck_assert_str_eq(out[1].text, "text");
    kiln_value_clear(&out[0]);
  });
  TRY(kiln_lua_push_tensor(L, t), {
    if (kiln_lua_to_tensor(L, 1, &back) == KILN_OK) kiln_tensor_release(back);
  });
  TRY(kiln_lua_push_graph(L, graph), {
    if (kiln_lua_to_graph(L, 1, &g) == KILN_OK) kiln_graph_release(g);
  });
  lua_getglobal(L, "f");
  st = kiln_lua_script(L, 1, "kiln.spec('float32', {4})", 0, &g);
  if (st == KILN_OK) kiln_graph_release(g);
  if (!first) first = st;
  lua_settop(L, 0);
  st = kiln_lua_call(L, "fails", NULL, 0, NULL, 0);
  ck_assert_msg(st == KILN_RAISED || st == KILN_NOMEM, "%s", kiln_lua_error(L));
  return first;
}

typedef enum shortage { ONCE, LIMIT } shortage;

/* One request fails, for each that there is; or there are so many bytes and no more, whoever frees some. */
static void starve(shortage how) {
  scarce memory = {.left = -1};
  const char *sweep = getenv("KILN_SWEEP");
  bool whole = sweep && !strcmp(sweep, "whole"), refused = true;
  kiln_context *ctx = open_context(scarce_alloc, &memory, 0);
  kn_heap *heap = ((kn_context *)ctx)->heap;
  uint64_t blocks = blocks_of(ctx);
  lua_State *L = open_state(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .context = ctx});
  GOOD(L, run(L, setup));
  lent l;
  kiln_tensor *t = lend(L, &l);
  kiln_graph *graph;
  lua_getglobal(L, "f");
  GOOD(L, kiln_lua_script(L, 1, "kiln.spec('float32', {4})", 0, &graph));
  lua_settop(L, 0);
  ck_assert_int_eq(everything(L, t, graph), KILN_OK);
  for (long n = 0; refused; n += whole || n < 200 ? 1 : n / 60) {
    if (how == LIMIT) {
      lua_gc(L, LUA_GCCOLLECT);
      kn_heap_set_limit(heap, kn_heap_bytes(heap) + 64 * (size_t)n);
    } else
      scarce_begin(&memory, n, true);
    kiln_status st = everything(L, t, graph);
    kn_heap_set_limit(heap, 0);
    refused = scarce_end(&memory) || (how == LIMIT && st != KILN_OK);
    ck_assert_msg(st == KILN_OK || refused, "%s", kiln_lua_error(L));
    ck_assert_int_lt(n, 1000000);
  }
  ck_assert_int_eq(everything(L, t, graph), KILN_OK);
  kiln_graph_release(graph);
  kiln_tensor_release(t);
  kiln_lua_free(L);
  ck_assert_int_eq(l.released, 1);
  ck_assert_uint_eq(blocks_of(ctx), blocks);
  kiln_context_free(ctx);
}

START_TEST(starved_once) { starve(ONCE); }
END_TEST

START_TEST(starved_by_a_limit) { starve(LIMIT); }
END_TEST

START_TEST(starved_when_made) {
  scarce memory = {.left = -1};
  bool refused = true;
  kiln_context *ctx = open_context(scarce_alloc, &memory, 0);
  uint64_t blocks = blocks_of(ctx);
  for (long n = 0; refused; n += n < 100 ? 1 : n / 30) {
    lua_State *L;
    char error[256] = "";
    scarce_begin(&memory, n, n % 2);
    kiln_status st = kiln_lua_new(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .context = ctx}, &L,
                                  error, sizeof error);
    refused = scarce_end(&memory);
    ck_assert_msg(st == KILN_OK || (refused && strstr(error, "memory")), "%s", error);
    if (st == KILN_OK) kiln_lua_free(L);
    ck_assert_msg(blocks_of(ctx) == blocks, "request %ld: blocks are left", n);
  }
  kiln_context_free(ctx);
}
END_TEST

SUITE("embed", states_are_made, states_of_the_host, output_is_the_contexts, chunks, calls_by_name,
      tensors_go_over, memory_is_given_back_once, instructions_are_limited, memory_is_limited,
      graphs_are_captured, starved_once, starved_by_a_limit, starved_when_made)
