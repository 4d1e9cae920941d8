/* kiln.lint: what capture would refuse or burn in, found by reading bytecode alone. Each instruction is
 * looked at once, in order, with what is known to lie in registers: values of upvalues and globals, and
 * fields of those. It follows calls of Lua functions that are known so. It is no capture: what data decides
 * it does not see. */
#include "lua/capture/interp.h"
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MOST_FUNCTIONS = 500, PATH = 120 };

typedef struct lint {
  lua_State *L;
  kn_context *ctx;
  const kc_host *host;
  kn_arena arena;
  int list, seen; /* stack indices: findings; functions and texts met */
  int functions;
} lint;

typedef struct frame { /* a function being read */
  lint *l;
  const kc_proto *p;
  int func;              /* stack index of the closure; 0: a nested function, whose upvalues are not known */
  int values;            /* stack index of a table: register + 1 → value known to be there */
  const char *path[256]; /* how that value is reached */
} frame;

/* ---- findings ---- */

static void say(frame *f, int pc, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void say(frame *f, int pc, const char *kind, const char *fmt, ...) {
  lua_State *L = f->l->L;
  char what[400], chunk[LUA_IDSIZE], text[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  int line = kc_line(f->p, pc);
  snprintf(text, sizeof text, "%s:%d: %s", kc_chunk_name(f->p->source, chunk, sizeof chunk), line, what);
  lua_pushstring(L, text);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, f->l->seen) == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, f->l->seen);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushinteger(L, line);
    lua_setfield(L, -2, "line");
    lua_pushstring(L, what);
    lua_setfield(L, -2, "what");
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "text");
    lua_rawseti(L, f->l->list, (lua_Integer)lua_rawlen(L, f->l->list) + 1);
  }
  lua_pop(L, 2);
}

/* ---- what lies in registers ---- */

static void set(frame *f, int reg, const char *path) { /* the value is on top; pops it */
  if (lua_isnil(f->l->L, -1) || reg < 0 || reg > 255) path = NULL;
  f->path[reg & 255] = path;
  lua_rawseti(f->l->L, f->values, reg + 1);
}

static void forget(frame *f, int reg) {
  lua_pushnil(f->l->L);
  set(f, reg, NULL);
}

static const char *join(frame *f, const char *base, const char *key) {
  char text[PATH];
  snprintf(text, sizeof text, "%s%s%s", base ? base : "", base && *base ? "." : "", key);
  const char *kept = kn_arena_strdup(&f->l->arena, text);
  return kept ? kept : "?";
}

/* A plain value that is read outside: it becomes part of the graph, and a guard. */
static void note_read(frame *f, int pc, const char *path) { /* value on top */
  lua_State *L = f->l->L;
  int type = lua_type(L, -1);
  if (type != LUA_TNUMBER && type != LUA_TSTRING && type != LUA_TBOOLEAN) return;
  luaL_tolstring(L, -1, NULL);
  say(f, pc, "burn", type == LUA_TSTRING ? "burns in '%s' = \"%.60s\"" : "burns in '%s' = %.60s", path,
      lua_tostring(L, -1));
  lua_pop(L, 1);
}

/* The field of a known table; metatables' __index tables are looked through. Pushes it or nil. */
static void push_field(lua_State *L, int table, const char *key, size_t n) {
  lua_pushvalue(L, table);
  for (int depth = 0; depth < 20; depth++) {
    if (lua_type(L, -1) != LUA_TTABLE) break;
    lua_pushlstring(L, key, n);
    if (lua_rawget(L, -2) != LUA_TNIL) {
      lua_remove(L, -2);
      return;
    }
    lua_pop(L, 1);
    if (!luaL_getmetafield(L, -1, "__index")) break;
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  lua_pushnil(L);
}

static bool push_upvalue(frame *f, int i) {
  if (f->func && lua_getupvalue(f->l->L, f->func, i + 1)) return true;
  lua_pushnil(f->l->L);
  return false;
}

static bool is_globals(frame *f, int i) { return f->p->up[i].name && !strcmp(f->p->up[i].name, "_ENV"); }

/* ---- calls ---- */

static void read_function(lint *l, int func, const kc_proto *p);

static void follow(lint *l, int func) {
  lua_State *L = l->L;
  uint8_t *bytes;
  size_t n, size;
  kc_proto *p = NULL;
  luaL_checkstack(L, 30, "lint");
  lua_pushvalue(L, func);
  bool met = lua_rawget(L, l->seen) != LUA_TNIL;
  lua_pop(L, 1);
  if (met || l->functions++ >= MOST_FUNCTIONS) return;
  lua_pushvalue(L, func);
  lua_pushboolean(L, 1);
  lua_rawset(L, l->seen);
  if (kc_dump(L, l->ctx, func, &bytes, &n, &size) != KN_OK) return;
  kn_status st = kc_parse(l->ctx, &l->arena, bytes, n, &p);
  kn_free(l->ctx->heap, bytes, size);
  if (st == KN_OK && strncmp(p->source, "=kiln/", 6)) read_function(l, func, p);
}

static void check_call(frame *f, int pc, int reg) {
  lint *l = f->l;
  lua_State *L = l->L;
  const char *path = f->path[reg], *hint;
  if (!path) return;
  lua_rawgeti(L, f->values, reg + 1);
  int func = lua_gettop(L);
  kc_called called;
  bool graph = lua_type(L, func) == LUA_TUSERDATA && l->host->called(L, func, &called);
  if (graph && called.graph) {
    lua_settop(L, func - 1);
    return;
  }
  if (graph) { /* its function */
    lua_pushvalue(L, func + 1);
    lua_replace(L, func);
    lua_settop(L, func);
  }
  if (lua_type(L, func) == LUA_TTABLE) { /* a module: what it runs */
    push_field(L, func, "forward", 7);
    lua_replace(L, func);
  }
  if (lua_iscfunction(L, func)) {
    if (!l->host->is_engine(L, func) && !kc_has_model(L, func)) {
      hint = kc_call_hint(path);
      say(f, pc, "refuse", "calls the C function '%s', which cannot be captured; %s", path, hint);
    }
  } else if (lua_type(L, func) == LUA_TFUNCTION)
    follow(l, func);
  else if (lua_type(L, func) == LUA_TUSERDATA && !l->host->test_tensor(L, func))
    say(f, pc, "refuse", "calls '%s', an object that capture does not know", path);
  lua_settop(L, func - 1);
}

/* ---- instructions ---- */

static const char *key_text(const frame *f, int k, size_t *n) {
  const kc_const *c = &f->p->k[k];
  *n = c->n;
  return c->kind == KC_CONST_STRING ? c->s : NULL;
}

static void get_field(frame *f, int pc, int reg, const char *key, size_t n,
                      const char *base) { /* table on top */
  lua_State *L = f->l->L;
  const char *path = join(f, base, key);
  push_field(L, lua_gettop(L), key, n);
  lua_remove(L, -2);
  note_read(f, pc, path);
  set(f, reg, path);
}

static void read_one(frame *f, int pc) {
  lua_State *L = f->l->L;
  kc_code i = f->p->code[pc];
  int a = kc_a(i);
  size_t n = 0;
  const char *key;
  switch (kc_op(i)) {
  case KC_MOVE:
    lua_rawgeti(L, f->values, kc_b(i) + 1);
    set(f, a, f->path[kc_b(i)]);
    return;
  case KC_GETUPVAL:
    if (push_upvalue(f, kc_b(i)) && !is_globals(f, kc_b(i)))
      note_read(f, pc, f->p->up[kc_b(i)].name ? f->p->up[kc_b(i)].name : "upvalue");
    set(f, a, f->p->up[kc_b(i)].name ? f->p->up[kc_b(i)].name : "upvalue");
    return;
  case KC_GETTABUP:
    key = key_text(f, kc_c(i), &n);
    if (!f->func && is_globals(f, kc_b(i))) /* nested functions see the same globals */
      lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    else
      push_upvalue(f, kc_b(i));
    if (key) return get_field(f, pc, a, key, n, is_globals(f, kc_b(i)) ? "" : f->p->up[kc_b(i)].name);
    lua_pop(L, 1);
    break;
  case KC_GETFIELD:
  case KC_SELF:
    if (kc_op(i) == KC_SELF && !kc_k(i)) break;
    key = key_text(f, kc_c(i), &n);
    lua_rawgeti(L, f->values, kc_b(i) + 1);
    if (key && f->path[kc_b(i)]) return get_field(f, pc, a, key, n, f->path[kc_b(i)]);
    lua_pop(L, 1);
    break;
  case KC_SETUPVAL:
    if (f->func || !f->p->up[kc_b(i)].in_stack)
      say(f, pc, "state", "writes '%s', which exists outside: it becomes state of the graph",
          f->p->up[kc_b(i)].name ? f->p->up[kc_b(i)].name : "an upvalue");
    return;
  case KC_SETTABUP:
    key = key_text(f, kc_b(i), &n);
    if (is_globals(f, a))
      say(f, pc, "state", "writes the global '%s': it becomes state of the graph", key ? key : "?");
    else if (f->func || !f->p->up[a].in_stack)
      say(f, pc, "state", "writes '%s', which exists outside: it becomes state of the graph",
          join(f, f->p->up[a].name, key ? key : "?"));
    return;
  case KC_SETFIELD:
    key = key_text(f, kc_b(i), &n);
    if (f->path[a])
      say(f, pc, "state", "writes '%s', which exists outside: it becomes state of the graph",
          join(f, f->path[a], key ? key : "?"));
    return;
  case KC_CALL:
  case KC_TAILCALL:
    check_call(f, pc, a);
    for (int r = a; r < f->p->maxstack && r < 256; r++) forget(f, r);
    return;
  case KC_TBC: say(f, pc, "refuse", "has a variable to be closed, which cannot be captured"); return;
  default: break;
  }
  if (*kc_opcode_operands(kc_op(i)) == 'w') forget(f, a);
}

static void read_proto(lint *l, int func, const kc_proto *p) {
  lua_State *L = l->L;
  frame *f = kn_arena_alloc(&l->arena, sizeof *f);
  if (!f) return;
  luaL_checkstack(L, 20, "lint");
  lua_newtable(L);
  memset(f, 0, sizeof *f);
  f->l = l, f->p = p, f->func = func, f->values = lua_gettop(L);
  for (int pc = 0; pc < p->ncode; pc++) read_one(f, pc);
  for (int i = 0; i < p->np; i++) read_proto(l, 0, p->p[i]);
  lua_settop(L, f->values - 1);
}

static void read_function(lint *l, int func, const kc_proto *p) {
  read_proto(l, lua_absindex(l->L, func), p);
}

static int protected_lint(lua_State *L) { /* the lint, the function */
  lint *l = lua_touserdata(L, 1);
  lua_newtable(L);
  l->list = lua_gettop(L);
  lua_newtable(L);
  l->seen = lua_gettop(L);
  follow(l, 2);
  lua_settop(L, l->list);
  return 1;
}

kn_status kc_lint(lua_State *L, const kc_host *host, int func) {
  kn_context *ctx = host->context(L);
  lint l = {.L = L, .ctx = ctx, .host = host};
  KN_TRY(kc_check_lua(L, ctx));
  kn_arena_init(&l.arena, ctx->heap);
  func = lua_absindex(L, func);
  lua_pushcfunction(L, protected_lint);
  lua_pushlightuserdata(L, &l);
  lua_pushvalue(L, func);
  int rc = lua_pcall(L, 2, 1, 0);
  kn_arena_free(&l.arena);
  if (rc == LUA_OK) return KN_OK;
  kn_fail(ctx, KN_NOMEM, "lint: %s", lua_tostring(L, -1) ? lua_tostring(L, -1) : "out of memory");
  lua_pop(L, 1);
  return KN_NOMEM;
}
