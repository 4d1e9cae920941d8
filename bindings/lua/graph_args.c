/* Lua values to a graph's inputs and its outputs to Lua values, by the graph's trees of arguments and
 * results. */
#include "bindings/lua/graph_parts.h"
#include <stdio.h>
#include <string.h>

/* ---- arguments ---- */

typedef struct step { /* into a table */
  const struct step *up;
  const kn_tree *key;
} step;

typedef struct flattener {
  lua_State *L;
  const kl_variant *v;
  kn_rvalue *in;
  int ins;          /* stack index of the first input's Lua value */
  int tables;       /* of a table: tables met by number, and as keys; 0: the guards have seen to it */
  uint32_t met;     /* inputs that have their value */
  uint32_t arg;     /* where it is: the argument … */
  const step *path; /* … and the keys that led on, innermost first */
  char text[200];
} flattener;

static void add_keys(flattener *f, const step *s) {
  if (!s) return;
  add_keys(f, s->up);
  size_t n = strlen(f->text);
  if (s->key->kind == KN_TREE_INT)
    snprintf(f->text + n, sizeof f->text - n, "[%lld]", (long long)s->key->i);
  else
    snprintf(f->text + n, sizeof f->text - n, ".%s", s->key->text);
}

/* "argument 1 (x).scale" */
static const char *path_text(flattener *f) {
  const kn_tree *t = &f->v->graph->args[f->arg];
  const char *name = t->kind == KN_TREE_VALUE ? t->value->name : NULL;
  snprintf(f->text, sizeof f->text, name ? "argument %u (%s)" : "argument %u", f->arg + 1, name ? name : "");
  add_keys(f, f->path);
  return f->text;
}

static int bad(flattener *f, const char *want, int idx) {
  return kl_error(f->L, KN_ARG, "graph %s: %s: %s is needed, got %s", f->v->graph->name, path_text(f), want,
                  kl_kind(f->L, idx));
}

static void read_scalar(flattener *f, const kn_value *v, int idx, kn_rvalue *out) {
  lua_State *L = f->L;
  kn_vkind kind = v->type.kind;
  int whole;
  *out = (kn_rvalue){0};
  kn_scalar *s = &out->scalar;
  if (kind == KN_V_BOOL) {
    if (!lua_isboolean(L, idx)) bad(f, "a boolean", idx);
    *s = (kn_scalar){KN_SCALAR_BOOL, {.b = lua_toboolean(L, idx)}};
    return;
  }
  if (lua_type(L, idx) != LUA_TNUMBER) bad(f, kind == KN_V_INT ? "an integer" : "a number", idx);
  if (!f->v->live && kind != KN_V_NUMBER && lua_isinteger(L, idx) != (kind == KN_V_INT) &&
      kn_find_need(f->v->graph, v, KN_NEED_exact))
    bad(f, kind == KN_V_INT ? "an integer" : "a float", idx);
  if (kind == KN_V_FLOAT || (kind == KN_V_NUMBER && !lua_isinteger(L, idx)))
    *s = (kn_scalar){KN_SCALAR_FLOAT, {.f = lua_tonumber(L, idx)}};
  else {
    *s = (kn_scalar){KN_SCALAR_INT, {.i = lua_tointegerx(L, idx, &whole)}};
    if (!whole)
      kl_error(L, KN_ARG, "graph %s: %s: number has no integer representation", f->v->graph->name,
               path_text(f));
  }
}

static bool same_value(lua_State *L, int a, int b) {
  kn_tensor *x = kl_test_tensor(L, a), *y = kl_test_tensor(L, b);
  return x || y ? x == y : lua_rawequal(L, a, b) && lua_isinteger(L, a) == lua_isinteger(L, b);
}

static void read_value(flattener *f, const kn_tree *t, int idx) {
  lua_State *L = f->L;
  int at = f->ins + (int)t->i;
  if ((uint32_t)t->i < f->met) { /* captured as one value in two places */
    if (!same_value(L, idx, at))
      kl_error(L, KN_ARG, "graph %s: %s must be the same as an argument before it", f->v->graph->name,
               path_text(f));
    return;
  }
  f->met++;
  kn_rvalue *in = &f->in[t->i];
  if (t->value->type.kind == KN_V_TENSOR) {
    *in = (kn_rvalue){.tensor = kl_test_tensor(L, idx)};
    if (!in->tensor) bad(f, "a tensor", idx);
  } else
    read_scalar(f, t->value, idx, in);
  lua_pushvalue(L, idx);
  lua_replace(L, at);
}

void kl_push_constant(lua_State *L, const kn_tree *t) {
  switch (t->kind) {
  case KN_TREE_BOOL: lua_pushboolean(L, t->i != 0); break;
  case KN_TREE_INT: lua_pushinteger(L, t->i); break;
  case KN_TREE_FLOAT: lua_pushnumber(L, t->f); break;
  case KN_TREE_STRING: lua_pushlstring(L, t->text, t->n); break;
  default: lua_pushnil(L);
  }
}

static void check_const(flattener *f, const kn_tree *t, int idx) {
  lua_State *L = f->L;
  kl_push_constant(L, t);
  bool nan = t->kind == KN_TREE_FLOAT && t->f != t->f && lua_type(L, idx) == LUA_TNUMBER &&
             lua_tonumber(L, idx) != lua_tonumber(L, idx);
  bool same = nan || (lua_rawequal(L, idx, -1) && lua_isinteger(L, idx) == lua_isinteger(L, -1));
  if (!same) {
    const char *want = luaL_tolstring(L, -1, NULL), *got = luaL_tolstring(L, idx, NULL);
    kl_error(L, KN_ARG, "graph %s: %s: the graph was made for %s here, got %s", f->v->graph->name,
             path_text(f), want, got);
  }
  lua_pop(L, 1);
}

static void read_tree(flattener *f, const kn_tree *t, int idx);

/* A field that the graph knows nothing of would be ignored without a word. */
static void check_fields(flattener *f, const kn_tree *t, int idx) {
  lua_State *L = f->L;
  uint32_t n = 0;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    lua_pop(L, 1);
    n++;
    bool known = false;
    for (uint32_t i = 0; i < t->n && !known; i++) {
      kl_push_constant(L, &t->keys[i]);
      known = lua_rawequal(L, -1, -2);
      lua_pop(L, 1);
    }
    if (!known)
      kl_error(L, KN_ARG, "graph %s: %s: the graph has no use for field %s", f->v->graph->name, path_text(f),
               luaL_tolstring(L, -1, NULL));
  }
}

/* Tables are one where they were one when the graph was made, and only there; and plain. */
static void check_identity(flattener *f, const kn_tree *t, int idx) {
  lua_State *L = f->L;
  if (lua_getmetatable(L, idx)) bad(f, "a table without a metatable", idx);
  if (!t->same_as) return;
  lua_rawgeti(L, f->tables, t->same_as);
  lua_pushvalue(L, idx);
  lua_rawget(L, f->tables);
  bool fits = lua_isnil(L, -2) ? lua_isnil(L, -1) : lua_rawequal(L, -2, idx);
  lua_pop(L, 2);
  if (!fits)
    kl_error(L, KN_ARG, "graph %s: %s must %s table before it", f->v->graph->name, path_text(f),
             lua_rawgeti(L, f->tables, t->same_as) == LUA_TNIL ? "be another one than a"
                                                               : "be the same as a");
  lua_pushvalue(L, idx);
  lua_rawseti(L, f->tables, t->same_as);
  lua_pushvalue(L, idx);
  lua_pushboolean(L, 1);
  lua_rawset(L, f->tables);
}

static void read_table(flattener *f, const kn_tree *t, int idx) {
  lua_State *L = f->L;
  if (lua_type(L, idx) != LUA_TTABLE) bad(f, "a table", idx);
  luaL_checkstack(L, 6, "nested tables");
  if (!f->v->live) {
    check_fields(f, t, idx);
    check_identity(f, t, idx);
  }
  for (uint32_t i = 0; i < t->n; i++) {
    kl_push_constant(L, &t->keys[i]);
    lua_rawget(L, idx);
    const step here = {f->path, &t->keys[i]};
    f->path = &here;
    read_tree(f, &t->items[i], lua_gettop(L));
    f->path = here.up;
    lua_pop(L, 1);
  }
}

static void read_tree(flattener *f, const kn_tree *t, int idx) {
  if (t->kind == KN_TREE_VALUE)
    read_value(f, t, idx);
  else if (t->kind == KN_TREE_TABLE)
    read_table(f, t, idx);
  else if (!f->v->live)
    check_const(f, t, idx); /* else the guards have seen to it */
}

int kl_flatten(lua_State *L, const kl_variant *v, int first, int given, kn_rvalue *in) {
  const kn_graph *g = v->graph;
  flattener f = {.L = L, .v = v, .in = in, .ins = lua_gettop(L) + 1};
  for (int i = (int)g->nargs; i < given && !v->live; i++)
    if (!lua_isnil(L, first + i))
      kl_error(L, KN_ARG, "graph %s: takes %u argument%s, got %d", g->name, g->nargs,
               g->nargs == 1 ? "" : "s", given);
  bool tables = false;
  for (uint32_t i = 0; i < g->nargs; i++) tables |= g->args[i].kind == KN_TREE_TABLE;
  if (!v->live && tables) {
    lua_newtable(L);
    f.tables = lua_gettop(L);
    f.ins++;
  }
  for (uint32_t i = 0; i < g->body->nparams; i++) lua_pushnil(L);
  for (uint32_t i = 0; i < g->nargs; i++) {
    const kn_tree *t = &g->args[i];
    f.arg = i;
    int idx = first + (int)i;
    if ((int)i < given)
      read_tree(&f, t, idx);
    else {
      lua_pushnil(L);
      read_tree(&f, t, lua_gettop(L));
      lua_pop(L, 1);
    }
  }
  return f.ins;
}

/* ---- results ---- */

typedef struct builder {
  lua_State *L;
  const kn_graph *g;
  kc_live *live;         /* NULL: a graph by itself */
  int ins, outs, tables; /* tables: stack index of a Lua table from same_as to table, 0: none yet */
  const kn_rvalue *out;
  kn_session *s;
} builder;

static void push_tree(builder *b, const kn_tree *t);

/* What the run has put into an input or an outside tensor: nodes at the end of the body say so. */
static bool push_overwritten(builder *b, const kn_value *v) {
  const kn_node *n = b->g->body->last;
  for (; n && (n->op == KN_NODE_update || n->op == KN_NODE_store_state); n = n->prev) {
    if (n->op == KN_NODE_update && n->in[1] == v) {
      lua_pushvalue(b->L, b->ins + (int)n->in[0]->index);
      return true;
    }
    if (n->op == KN_NODE_store_state && n->in[0] == v && b->live &&
        kc_live_push_overwritten(b->L, b->live, n->slot))
      return true;
  }
  return false;
}

/* A tensor of the caller's or from outside that is returned is that very tensor; a value returned twice is
 * one value. */
static void push_value(builder *b, const kn_tree *t) {
  const kn_region *body = b->g->body;
  const kn_value *v = t->value;
  if (v->type.kind != KN_V_TENSOR) {
    kl_push_scalar(b->L, &b->out[t->i].scalar);
    return;
  }
  if (!v->def && v->region == body) {
    lua_pushvalue(b->L, b->ins + (int)v->index);
    return;
  }
  bool slot = v->def && (v->def->op == KN_NODE_param || v->def->op == KN_NODE_load_state);
  if (slot && b->live && kc_live_push_slot(b->L, b->live, v->def->slot)) return;
  if (push_overwritten(b, v)) return;
  kn_origin from = kn_session_origin(b->s, (uint32_t)t->i);
  if (from.from == KN_FROM_INPUT) {
    lua_pushvalue(b->L, b->ins + (int)from.index);
    return;
  }
  if (from.from == KN_FROM_SLOT && b->live && kc_live_push_slot(b->L, b->live, b->g->slots[from.index]))
    return;
  if (from.from == KN_FROM_OUTPUT) {
    lua_pushvalue(b->L, b->outs + (int)from.index);
    return;
  }
  uint32_t i = 0;
  while (body->yields[i] != v) i++;
  lua_pushvalue(b->L, b->outs + (int)i);
}

static void push_table(builder *b, const kn_tree *t) {
  lua_State *L = b->L;
  luaL_checkstack(L, 6, "nested tables");
  if (t->same_as && lua_rawgeti(L, b->tables, t->same_as) == LUA_TTABLE) return;
  if (t->same_as) lua_pop(L, 1);
  lua_createtable(L, 0, 0);
  if (t->same_as) {
    lua_pushvalue(L, -1);
    lua_rawseti(L, b->tables, t->same_as);
  }
  for (uint32_t i = 0; i < t->n; i++) {
    kl_push_constant(L, &t->keys[i]);
    push_tree(b, &t->items[i]);
    lua_rawset(L, -3);
  }
}

static void push_tree(builder *b, const kn_tree *t) {
  if (t->kind == KN_TREE_VALUE)
    push_value(b, t);
  else if (t->kind == KN_TREE_TEXT) {
    const char *text;
    size_t n;
    kn_status st = kn_session_text(b->s, t, b->out, &text, &n);
    if (st != KN_OK) kl_session_fail(b->L, b->s, st);
    lua_pushlstring(b->L, text, n);
  } else if (t->kind == KN_TREE_CHOICE) {
    int64_t which = b->out[t->items[0].i].scalar.as.i;
    if (which < 1 || which >= t->n)
      kl_error(b->L, KN_FORMAT, "graph %s: a result is none of its %u kinds", b->g->name, t->n - 1);
    push_tree(b, &t->items[which]);
  } else if (t->kind == KN_TREE_TABLE)
    push_table(b, t);
  else if (t->kind == KN_TREE_AGAIN)
    lua_rawgeti(b->L, b->tables, t->same_as);
  else
    kl_push_constant(b->L, t);
}

/* No result, here and after it. */
static bool is_none(const builder *b, const kn_tree *t) {
  if (t->kind != KN_TREE_CHOICE) return false;
  int64_t which = b->out[t->items[0].i].scalar.as.i;
  return which >= 1 && which < t->n && t->items[which].kind == KN_TREE_NONE;
}

int kl_unflatten(lua_State *L, const kl_variant *v, int ins, int outs, const kn_rvalue *out) {
  const kn_graph *g = v->graph;
  builder b = {.L = L, .g = g, .s = v->session, .live = v->live, .ins = ins, .outs = outs, .out = out};
  bool tables = false;
  for (uint32_t i = 0; i < g->nresults; i++) tables |= kn_tree_has_items(g->results[i].kind);
  luaL_checkstack(L, (int)g->nresults + 8, "too many results");
  if (tables) {
    lua_newtable(L);
    b.tables = lua_gettop(L);
  }
  uint32_t n = 0;
  while (n < g->nresults && !is_none(&b, &g->results[n])) push_tree(&b, &g->results[n++]);
  return (int)n;
}
