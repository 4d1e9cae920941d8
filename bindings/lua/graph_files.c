/* kiln.load, kiln.save, kiln.parse and g:save. */
#include "bindings/lua/args.h"
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/owned.h"
#include "graph/file.h"
#include "graph/text.h"
#include <string.h>

/* ---- entries on their way to or from a file, freed with their userdata ---- */

typedef struct entries {
  kn_context *ctx;
  kn_heap *heap;
  kn_entry *list;
  uint32_t n;
  size_t room; /* of the list, when it is ours */
  bool loaded; /* by kn_file_load: names and list are its own */
} entries;

static void free_entries(void *block) {
  entries *e = block;
  if (e->list && e->loaded)
    kn_file_free_entries(e->heap, e->list, e->n);
  else if (e->list) {
    for (uint32_t i = 0; i < e->n; i++) kn_graph_release(e->list[i].graph);
    kn_free(e->heap, e->list, e->room * sizeof *e->list);
  }
}

static entries *push_entries(lua_State *L) {
  entries *e = kl_push_owned(L, sizeof *e, free_entries);
  e->ctx = kl_context(L);
  e->heap = e->ctx->heap;
  return e;
}

/* ---- saving ---- */

/* The graph with the present values of its slots: what was captured, as it is now. */
static kn_status with_values(kn_context *ctx, const kn_graph *g, kn_session *s, kn_graph **out) {
  char *text;
  size_t n;
  kn_graph *copy;
  KN_TRY(kn_graph_print(ctx, g, KN_TEXT_FULL, &text, &n));
  kn_status st = kn_graph_parse(ctx, text, n, &copy);
  kn_free(ctx->heap, text, n + 1);
  KN_TRY(st);
  for (uint32_t i = 0; i < g->nslots && st == KN_OK; i++) {
    kn_slot *slot = copy->slots[i];
    kn_rvalue v;
    st = kn_session_get_slot(s, i, &v);
    if (st != KN_OK)
      kn_fail(ctx, st, "%s", kn_error(kn_session_context(s)));
    else if (slot->type.kind != KN_V_TENSOR)
      slot->scalar = v.scalar;
    else {
      kn_tensor_release(slot->tensor);
      slot->tensor = v.tensor;
    }
  }
  if (st != KN_OK)
    kn_graph_release(copy);
  else
    *out = copy;
  return st;
}

void kl_check_storable(lua_State *L, const kl_variant *v, const char *name) {
  const char *object = v->live ? kc_live_object(v->live) : NULL;
  if (object)
    kl_error(
        L, KN_UNSUPPORTED,
        "%s: the argument '%s' of graph %s is a function or object that the graph knows by its identity, "
        "which a file cannot hold; reach it as an upvalue instead",
        name, object, v->graph->name);
  const char *place = v->live ? kc_live_unsteady(v->live) : NULL;
  if (place)
    kl_error(L, KN_UNSUPPORTED,
             "%s: '%s' is nil either when graph %s begins or when it has run, so that it holds for one run "
             "only; call it once more first",
             name, place, v->graph->name);
}

kn_graph *kl_graph_now(lua_State *L, kl_variant *v, const char *name) {
  kn_graph *now = NULL;
  kl_check_storable(L, v, name);
  kn_session *s = kl_variant_session(L, v);
  kl_load_live(L, v);
  kl_check(L, with_values(kl_context(L), v->graph, s, &now));
  return now;
}

static void add_entry(lua_State *L, entries *e, const char *name, kl_variant *v) {
  kn_entry *entry = &e->list[e->n];
  entry->graph = kl_graph_now(L, v, "save");
  entry->name = name;
  e->n++;
}

static void make_room(lua_State *L, entries *e, size_t n) {
  e->list = kn_calloc(e->ctx->heap, n, sizeof *e->list);
  e->room = n;
  if (!e->list) kl_check(L, kn_fail_nomem(e->ctx, n * sizeof *e->list));
}

static int save(lua_State *L, const entries *e, const char *path) {
  kn_status st = kn_file_save(e->ctx, path, e->list, e->n);
  if (st != KN_OK) kn_error_prefix(e->ctx, "save");
  kl_check(L, st);
  return 0;
}

/* g:save(path): one entry, under the graph's name. */
static int graph_save(lua_State *L) {
  kl_variant *v = kl_newest_variant(L, 1);
  const char *path = kl_check_text(L, 2, "save", "a path", NULL);
  entries *e = push_entries(L);
  make_room(L, e, 1);
  add_entry(L, e, v->graph->name, v);
  return save(L, e, path);
}

/* Names in their order, so that a file does not depend on the order of a table. */
static void push_sorted_names(lua_State *L, int idx) {
  lua_newtable(L);
  lua_Integer n = 0;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    if (lua_type(L, -2) != LUA_TSTRING || !kl_test_graph(L, -1)) {
      const char *got = kl_kind(L, -1);
      kl_error(L, KN_ARG, "save: a table of Graphs by name is needed, got %s under %s", got,
               luaL_tolstring(L, -2, NULL));
    }
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, ++n);
  }
  for (lua_Integer i = 2; i <= n; i++) /* few: insertion sort */
    for (lua_Integer k = i; k > 1; k--) {
      lua_rawgeti(L, -1, k - 1);
      lua_rawgeti(L, -2, k);
      bool fine = strcmp(lua_tostring(L, -2), lua_tostring(L, -1)) <= 0;
      if (fine)
        lua_pop(L, 2);
      else {
        lua_rawseti(L, -3, k - 1);
        lua_rawseti(L, -2, k);
      }
    }
}

/* kiln.save(path, {step = g1, predict = g2}) */
static int save_graphs(lua_State *L) {
  const char *path = kl_check_text(L, 1, "save", "a path", NULL);
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "save: a table of Graphs by name is needed, got %s", kl_kind(L, 2));
  lua_settop(L, 2);
  push_sorted_names(L, 2);
  size_t n = lua_rawlen(L, 3);
  if (!n) return kl_error(L, KN_ARG, "save: there is no graph to save");
  entries *e = push_entries(L);
  make_room(L, e, n);
  for (size_t i = 0; i < n; i++) { /* names stay anchored in the table at 3 */
    lua_rawgeti(L, 3, (lua_Integer)i + 1);
    const char *name = lua_tostring(L, -1);
    lua_rawget(L, 2);
    add_entry(L, e, name, kl_newest_variant(L, lua_gettop(L)));
    lua_pop(L, 1);
  }
  return save(L, e, path);
}

/* ---- loading ---- */

static void push_loaded(lua_State *L, kn_graph *g) {
  kl_graph *object = kl_push_graph(L);
  kl_add_variant(L, object, kn_graph_retain(g), NULL);
}

/* Whether the options name a device, at *on. */
static bool read_load_options(lua_State *L, int idx, kn_device_id *on) {
  kn_context *ctx = kl_context(L);
  bool named = false;
  if (lua_isnoneornil(L, idx)) return false;
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "load: a table of options is needed, got %s", kl_kind(L, idx));
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "device"))
      kl_error(L, KN_ARG, "load: there is no option '%s'; there is device", luaL_tolstring(L, -2, NULL));
    kl_check(L, kl_read_device(L, ctx, -1, "load", on));
    named = true;
    lua_pop(L, 1);
  }
  return named;
}

/* kiln.load(path[, {device =}]): the Graph in a file, or a table of Graphs by name when there are several. */
static int load(lua_State *L) {
  const char *path = kl_check_text(L, 1, "load", "a path", NULL);
  kn_device_id on;
  const bool moves = read_load_options(L, 2, &on);
  entries *e = push_entries(L);
  kn_status st = kn_file_load(e->ctx, path, moves ? &on : NULL, &e->list, &e->n);
  if (st != KN_OK) kn_error_prefix(e->ctx, "load");
  if (st != KN_OK) e->list = NULL;
  e->loaded = true;
  kl_check(L, st);
  if (e->n == 1) {
    push_loaded(L, e->list[0].graph);
    return 1;
  }
  lua_newtable(L);
  for (uint32_t i = 0; i < e->n; i++) {
    push_loaded(L, e->list[i].graph);
    lua_setfield(L, -2, e->list[i].name);
  }
  return 1;
}

/* kiln.parse(text): what tostring(g) shows, as a Graph again; slots written by name only have no data. */
static int parse(lua_State *L) {
  size_t n;
  const char *text = kl_check_text(L, 1, "parse", "the text of a graph", &n);
  entries *e = push_entries(L);
  make_room(L, e, 1);
  e->n = 1;
  kn_status st = kn_graph_parse(e->ctx, text, n, &e->list[0].graph);
  if (st != KN_OK) { /* the sentence begins with line and column of the text */
    lua_pushstring(L, kn_error(e->ctx));
    return kl_error(L, st, "parse: %s", lua_tostring(L, -1));
  }
  push_loaded(L, e->list[0].graph);
  return 1;
}

void kl_set_file_methods(lua_State *L) {
  static const luaL_Reg list[] = {{"save", graph_save}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}

void kl_set_file_functions(lua_State *L) {
  static const luaL_Reg list[] = {{"load", load}, {"save", save_graphs}, {"parse", parse}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}
