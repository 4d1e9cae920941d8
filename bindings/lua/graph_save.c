/* g:save and kiln.save: graphs with the present values of their slots, notes, and calls to test them by. */
#include "bindings/lua/graph_entries.h"
#include "core/device.h"
#include "graph/file_keys.h"
#include "graph/safetensors.h"
#include <string.h>

/* ---- what is saved ---- */

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

/* Of a path that leads through somebody's folders the last name. */
static const char *last_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash && (*path == '/' || *path == '~' || strstr(path, "../")) ? slash + 1 : path;
}

/* Nobody needs to know where on whose machine the program was. The graph is ours alone. */
static void shorten_places(kn_graph *g) {
  for (uint32_t i = 0; i < g->nplaces; i++) {
    kn_where *w = (kn_where *)(uintptr_t)g->places[i];
    w->chunk = last_name(w->chunk);
  }
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

/* ---- options ---- */

typedef struct save_options { /* stack indices; 0: not given */
  int vectors, notes;
  double tolerance;
  bool paths; /* as they are */
} save_options;

/* Leaves the tables on the stack. */
static save_options read_options(lua_State *L, int idx) {
  save_options o = {.tolerance = -1};
  if (lua_isnoneornil(L, idx)) return o;
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "save: a table of options is needed, got %s", kl_kind(L, idx));
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    if (!strcmp(key, "tolerance")) {
      o.tolerance = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
      if (!(o.tolerance >= 0))
        kl_error(L, KN_ARG, "save: tolerance must be a number that is not negative, got %s", kl_kind(L, -1));
    } else if (!strcmp(key, "paths")) {
      if (lua_type(L, -1) != LUA_TBOOLEAN)
        kl_error(L, KN_ARG, "save: paths must be true or false, got %s", kl_kind(L, -1));
      o.paths = lua_toboolean(L, -1);
    } else if (!strcmp(key, "vectors") || !strcmp(key, "notes")) {
      if (lua_type(L, -1) != LUA_TTABLE)
        kl_error(L, KN_ARG, "save: %s must be a table, got %s", key, kl_kind(L, -1));
    } else
      kl_error(L, KN_ARG, "save: there is no option '%s'; there are notes, paths, tolerance, vectors",
               luaL_tolstring(L, -2, NULL));
  }
  if (lua_getfield(L, idx, "vectors") == LUA_TTABLE) o.vectors = lua_gettop(L);
  if (lua_getfield(L, idx, "notes") == LUA_TTABLE) o.notes = lua_gettop(L);
  return o;
}

/* Names in their order, so that a file does not depend on the order of a table. */
static void push_sorted_names(lua_State *L, int idx, bool graphs) {
  lua_newtable(L);
  lua_Integer n = 0;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    if (lua_type(L, -2) != LUA_TSTRING || (graphs && !kl_test_graph(L, -1))) {
      const char *got = kl_kind(L, -1);
      kl_error(L, KN_ARG, "save: a table of %s by name is needed, got %s under %s",
               graphs ? "Graphs" : "notes", got, luaL_tolstring(L, -2, NULL));
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

/* notes = {licence = "MIT", classes = 10} */
static void add_notes(lua_State *L, kl_entries *e, int idx) {
  if (!idx) return;
  kl_check(L, kn_notes_new(e->ctx, &e->notes));
  push_sorted_names(L, idx, false);
  const int names = lua_gettop(L);
  for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, names); i <= n; i++) {
    lua_rawgeti(L, names, i);
    lua_pushvalue(L, -1);
    lua_rawget(L, idx);
    if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER && lua_type(L, -1) != LUA_TBOOLEAN)
      kl_error(L, KN_ARG, "save: note %s must be a string, number or boolean, got %s", lua_tostring(L, -2),
               kl_kind(L, -1));
    size_t length, name_length;
    const char *text = luaL_tolstring(L, -1, &length), *name = lua_tolstring(L, -3, &name_length);
    if (strlen(text) != length || strlen(name) != name_length)
      kl_error(L, KN_ARG, "save: note %s holds a zero byte", name);
    kn_status st = kn_notes_add(e->ctx, e->notes, name, text);
    if (st != KN_OK) kn_error_prefix(e->ctx, "save");
    kl_check(L, st);
    lua_pop(L, 3);
  }
  lua_pop(L, 1);
}

/* The arguments of one call, at idx as a list, into the vector. */
static void read_call(lua_State *L, const kn_graph *g, kn_vectors *v, int idx, uint32_t call) {
  kn_context *ctx = kl_context(L);
  const int top = lua_gettop(L);
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "save: test vector %u must be a table of arguments, got %s", call + 1,
             kl_kind(L, idx));
  lua_Integer n = luaL_len(L, idx);
  if (lua_getfield(L, idx, "n") == LUA_TNUMBER) n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (n < 0 || n > 1000) kl_error(L, KN_ARG, "save: test vector %u has too many arguments", call + 1);
  luaL_checkstack(L, (int)n + (int)v->nin + 16, "too many arguments");
  kn_rvalue *in = lua_newuserdatauv(L, (v->nin + 1) * sizeof *in, 0);
  for (lua_Integer i = 1; i <= n; i++) lua_geti(L, idx, i);
  const kl_variant as = {.graph = (kn_graph *)(uintptr_t)g};
  kl_flatten(L, &as, top + 2, (int)n, in);
  for (uint32_t i = 0; i < v->nin; i++) {
    kn_rvalue *to = kn_vectors_in(v, call) + i;
    to->scalar = in[i].scalar;
    if (!in[i].tensor) continue;
    kn_tensor *host = kl_on_host(L, in[i].tensor);
    kl_check(L, kn_safetensors_dense(ctx, host, &to->tensor));
  }
  lua_settop(L, top);
}

/* vectors = {{x, k}, {y, k}}: calls; what they give is recorded. */
static void add_vectors(lua_State *L, kn_entry *entry, int idx, double tolerance) {
  kn_context *ctx = kl_context(L);
  kl_check(L, kn_vectors_new(ctx, entry->graph, &entry->vectors));
  kn_vectors *v = entry->vectors;
  v->tolerance = tolerance;
  for (uint32_t i = 0, n = (uint32_t)lua_rawlen(L, idx); i < n; i++) {
    kl_check(L, kn_vectors_add(ctx, v));
    lua_rawgeti(L, idx, (lua_Integer)i + 1);
    read_call(L, entry->graph, v, lua_gettop(L), i);
    lua_pop(L, 1);
  }
  if (!v->n) kl_error(L, KN_ARG, "save: vectors must be a list of tables of arguments");
  kl_run_vectors(L, entry->graph, v, true);
}

/* ---- saving ---- */

/* "function at net.lua:12", where that of the Graph at idx begins, or what its file said; pushes it, or nil.
 */
static const char *push_origin(lua_State *L, int idx) {
  lua_Debug ar;
  if (lua_getiuservalue(L, idx, 4) == LUA_TSTRING) return lua_tostring(L, -1);
  lua_pop(L, 1);
  if (lua_getiuservalue(L, idx, 1) == LUA_TTABLE) {
    lua_getfield(L, -1, "f");
    lua_remove(L, -2);
  }
  if (lua_type(L, -1) != LUA_TFUNCTION || lua_iscfunction(L, -1)) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return NULL;
  }
  lua_getinfo(L, ">S", &ar);
  if (*ar.source != '@') return lua_pushnil(L), NULL;
  const char *made = lua_pushfstring(L, "function at %s:%d", last_name(ar.source + 1), ar.linedefined);
  if (kn_entry_name(made)) return made;
  lua_pop(L, 1); /* the name of a script may be anything */
  return lua_pushnil(L), NULL;
}

kn_graph *kl_graph_now(lua_State *L, kl_variant *v, const char *name) {
  kn_graph *now = NULL;
  kl_check_storable(L, v, name);
  kn_session *s = kl_variant_session(L, v);
  kl_load_live(L, v);
  kl_check(L, with_values(kl_context(L), v->graph, s, &now));
  return now;
}

/* Leaves a value on the stack, which must stay there. */
static void add_entry(lua_State *L, kl_entries *e, const char *name, int graph, const save_options *o) {
  kl_variant *v = kl_newest_variant(L, graph);
  kn_entry *entry = &e->list[e->n];
  entry->graph = kl_graph_now(L, v, "save");
  if (!o->paths) shorten_places(entry->graph);
  entry->name = name;
  entry->notes = e->notes;
  e->n++;
  entry->origin = push_origin(L, graph);
}

static int save(lua_State *L, const kl_entries *e, const char *path) {
  kn_status st = kn_file_save(e->ctx, path, e->list, e->n);
  if (st != KN_OK) kn_error_prefix(e->ctx, "save");
  kl_check(L, st);
  return 0;
}

/* g:save(path[, {vectors =, tolerance =, notes =, paths =}]): one entry, under the graph's name. */
static int graph_save(lua_State *L) {
  kl_variant *v = kl_newest_variant(L, 1);
  const char *path = kl_check_text(L, 2, "save", "a path", NULL);
  lua_settop(L, 3);
  const save_options o = read_options(L, 3);
  kl_entries *e = kl_push_entries(L);
  kl_make_entries(L, e, 1);
  add_notes(L, e, o.notes);
  add_entry(L, e, v->graph->name, 1, &o);
  if (o.vectors) add_vectors(L, &e->list[0], o.vectors, o.tolerance);
  return save(L, e, path);
}

/* kiln.save(path, {step = g1, predict = g2}[, {vectors = {step = …}, tolerance =, notes =, paths =}]) */
static int save_graphs(lua_State *L) {
  const char *path = kl_check_text(L, 1, "save", "a path", NULL);
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "save: a table of Graphs by name is needed, got %s", kl_kind(L, 2));
  lua_settop(L, 3);
  push_sorted_names(L, 2, true);
  size_t n = lua_rawlen(L, 4);
  if (!n) return kl_error(L, KN_ARG, "save: there is no graph to save");
  const save_options o = read_options(L, 3);
  kl_entries *e = kl_push_entries(L);
  kl_make_entries(L, e, n);
  add_notes(L, e, o.notes);
  luaL_checkstack(L, (int)n + 16, "too many graphs");
  for (size_t i = 0; i < n; i++) { /* names stay anchored in the table at 4, origins on the stack */
    lua_rawgeti(L, 4, (lua_Integer)i + 1);
    const char *name = lua_tostring(L, -1);
    lua_rawget(L, 2);
    const int graph = lua_gettop(L);
    add_entry(L, e, name, graph, &o);
    lua_remove(L, graph);
  }
  if (o.vectors) {
    uint32_t met = 0, given = 0;
    for (size_t i = 0; i < n; i++) {
      if (lua_getfield(L, o.vectors, e->list[i].name) == LUA_TTABLE) {
        add_vectors(L, &e->list[i], lua_gettop(L), o.tolerance);
        met++;
      }
      lua_pop(L, 1);
    }
    for (lua_pushnil(L); lua_next(L, o.vectors); lua_pop(L, 1)) given++;
    if (given != met)
      return kl_error(L, KN_ARG, "save: vectors must be a table of lists by the names of the Graphs");
  }
  return save(L, e, path);
}

void kl_set_file_methods(lua_State *L) {
  static const luaL_Reg list[] = {{"save", graph_save}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}

void kl_set_save_functions(lua_State *L) {
  static const luaL_Reg list[] = {{"save", save_graphs}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}
