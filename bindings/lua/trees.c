/* Lua values as trees: see trees.h. */
#include "bindings/lua/trees.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 60, PATH = 160 };

static void *room(kl_tree_maker *m, size_t size) {
  void *p = kn_arena_alloc(&m->b->graph->arena, size ? size : 1);
  if (!p) kl_check(m->L, kn_fail_nomem(m->b->ctx, size));
  return memset(p, 0, size ? size : 1);
}

kn_tree *kl_new_trees(kl_tree_maker *m, size_t n) { return room(m, n * sizeof(kn_tree)); }

static void make(kl_tree_maker *m, int idx, const char *path, int depth, kn_tree *to);

static void make_string(kl_tree_maker *m, int idx, kn_tree *to) {
  size_t n;
  const char *s = lua_tolstring(m->L, idx, &n);
  char *copy = room(m, n + 1);
  memcpy(copy, s, n);
  *to = (kn_tree){.kind = KN_TREE_STRING, .text = copy, .n = (uint32_t)n};
}

static bool met_before(kl_tree_maker *m, int idx, const char *path, kn_tree *to) {
  lua_State *L = m->L;
  if (!m->memo) return false;
  lua_pushvalue(L, idx);
  bool met = lua_rawget(L, m->memo) == LUA_TNUMBER;
  uint32_t number = met ? (uint32_t)lua_tointeger(L, -1) : ++m->ntables;
  lua_pop(L, 1);
  to->same_as = number;
  if (met) return true;
  (void)path;
  lua_pushvalue(L, idx);
  lua_pushinteger(L, number);
  lua_rawset(L, m->memo);
  return false;
}

/* Integers before strings, each in order: the text of a graph is the same in every run. */
static int by_key(const void *a, const void *b) {
  const kn_tree *x = a, *y = b;
  if (x->kind != y->kind) return x->kind == KN_TREE_INT ? -1 : 1;
  if (x->kind == KN_TREE_INT) return x->i < y->i ? -1 : x->i > y->i;
  int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
  return order ? order : x->n < y->n ? -1 : x->n > y->n;
}

static void make_table(kl_tree_maker *m, int idx, const char *path, int depth, kn_tree *to) {
  lua_State *L = m->L;
  char inner[PATH];
  uint32_t n = 0;
  luaL_checkstack(L, 10, "nested tables");
  if (lua_getmetatable(L, idx))
    kl_error(L, KN_ARG, "%s: %s is a table with a metatable; a plain table is needed", m->name, path);
  if (depth > DEPTH) kl_error(L, KN_ARG, "%s: %s is nested too deeply, or contains itself", m->name, path);
  *to = (kn_tree){.kind = KN_TREE_TABLE};
  met_before(m, idx, path, to);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n++;
  to->keys = room(m, n * sizeof *to->keys);
  to->items = room(m, n * sizeof *to->items);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    kn_tree *k = &to->keys[to->n++];
    if (lua_type(L, -2) == LUA_TSTRING)
      make_string(m, lua_gettop(L) - 1, k);
    else if (lua_isinteger(L, -2))
      *k = (kn_tree){.kind = KN_TREE_INT, .i = lua_tointeger(L, -2)};
    else
      kl_error(L, KN_ARG, "%s: %s has a key that is no string or integer", m->name, path);
  }
  qsort(to->keys, to->n, sizeof *to->keys, by_key);
  for (uint32_t i = 0; i < to->n; i++) {
    const kn_tree *k = &to->keys[i];
    if (k->kind == KN_TREE_INT) {
      snprintf(inner, sizeof inner, "%.100s[%lld]", path, (long long)k->i);
      lua_rawgeti(L, idx, k->i);
    } else {
      snprintf(inner, sizeof inner, "%.100s.%.50s", path, k->text);
      lua_pushlstring(L, k->text, k->n);
      lua_rawget(L, idx);
    }
    make(m, lua_gettop(L), inner, depth + 1, &to->items[i]);
    lua_pop(L, 1);
  }
}

static void make(kl_tree_maker *m, int idx, const char *path, int depth, kn_tree *to) {
  lua_State *L = m->L;
  kn_value *v = m->leaf(m->ud, L, idx, path);
  if (v || m->b->status != KN_OK) {
    kl_check(L, m->b->status);
    *to = (kn_tree){.kind = KN_TREE_VALUE, .value = v};
    return;
  }
  switch (lua_type(L, idx)) {
  case LUA_TNIL: *to = (kn_tree){.kind = KN_TREE_NIL}; return;
  case LUA_TBOOLEAN: *to = (kn_tree){.kind = KN_TREE_BOOL, .i = lua_toboolean(L, idx)}; return;
  case LUA_TSTRING: make_string(m, idx, to); return;
  case LUA_TTABLE: make_table(m, idx, path, depth, to); return;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx))
      *to = (kn_tree){.kind = KN_TREE_INT, .i = lua_tointeger(L, idx)};
    else
      *to = (kn_tree){.kind = KN_TREE_FLOAT, .f = lua_tonumber(L, idx)};
    return;
  default:
    kl_error(L, KN_ARG, "%s: %s is %s, which a graph cannot take or give", m->name, path, kl_kind(L, idx));
  }
}

void kl_make_tree(kl_tree_maker *m, int idx, const char *path, kn_tree *to) {
  make(m, lua_absindex(m->L, idx), path, 0, to);
}
