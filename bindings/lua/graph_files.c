/* kiln.load, kiln.parse; saving is in graph_save.c. */
#include "backends/registry.h"
#include "bindings/lua/args.h"
#include "bindings/lua/graph_entries.h"
#include "graph/text.h"
#include <string.h>

static void free_entries(void *block) {
  kl_entries *e = block;
  if (e->list && e->loaded)
    kn_file_free_entries(e->heap, e->list, e->n);
  else if (e->list) {
    for (uint32_t i = 0; i < e->n; i++) {
      kn_graph_release(e->list[i].graph);
      kn_vectors_release(e->list[i].vectors);
    }
    kn_free(e->heap, e->list, e->room * sizeof *e->list);
  }
  kn_notes_release(e->notes);
}

kl_entries *kl_push_entries(lua_State *L) {
  kl_entries *e = kl_push_owned(L, sizeof *e, free_entries);
  e->ctx = kl_context(L);
  e->heap = e->ctx->heap;
  return e;
}

void kl_make_entries(lua_State *L, kl_entries *e, size_t n) {
  e->list = kn_calloc(e->ctx->heap, n, sizeof *e->list);
  e->room = n;
  if (!e->list) kl_check(L, kn_fail_nomem(e->ctx, n * sizeof *e->list));
}

/* ---- sessions of test vectors ---- */

static void free_session(void *block) { kn_session_free(*(kn_session **)block); }

void kl_run_vectors(lua_State *L, kn_graph *g, kn_vectors *v, bool record) {
  kn_context *ctx = kl_context(L);
  const kn_target *const *targets;
  int n;
  kl_note_hook(L);
  kl_check(L, kn_registry_targets(ctx, &targets, &n));
  kn_session **s = kl_push_owned(L, sizeof *s, free_session);
  kl_check(L, kn_session_new(ctx, g, targets, n, s));
  kn_session_set_poll(*s, kl_poll_hook, kl_state_of(L));
  kn_session_set_watch(*s, false);
  kl_offer_hosts(L, *s);
  kn_session_context(*s)->threads = ctx->threads;
  kn_status st = record ? kn_vectors_record(*s, v) : kn_vectors_test(*s, v);
  if (st != KN_OK) kn_fail(ctx, st, "%s", kn_error(kn_session_context(*s)));
  kl_give_back(L, -1);
  lua_pop(L, 1);
  if (st != KN_OK) kn_error_prefix(ctx, record ? "save" : "load");
  kl_check(L, st);
}

/* ---- loading ---- */

static void push_loaded(lua_State *L, const kn_entry *e) {
  kl_graph *object = kl_push_graph(L);
  kl_add_variant(L, object, kn_graph_retain(e->graph), NULL);
  if (!e->origin) return;
  lua_pushstring(L, e->origin);
  lua_setiuservalue(L, -2, 4);
}

typedef struct load_options {
  kn_device_id on;
  bool moves, verify;
} load_options;

static load_options read_load_options(lua_State *L, int idx) {
  kn_context *ctx = kl_context(L);
  load_options o = {.moves = false};
  if (lua_isnoneornil(L, idx)) return o;
  if (lua_type(L, idx) != LUA_TTABLE)
    kl_error(L, KN_ARG, "load: a table of options is needed, got %s", kl_kind(L, idx));
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    if (!strcmp(key, "device")) {
      kl_check(L, kl_read_device(L, ctx, -1, "load", &o.on));
      o.moves = true;
    } else if (!strcmp(key, "verify")) {
      if (lua_type(L, -1) != LUA_TBOOLEAN)
        kl_error(L, KN_ARG, "load: verify must be true or false, got %s", kl_kind(L, -1));
      o.verify = lua_toboolean(L, -1);
    } else
      kl_error(L, KN_ARG, "load: there is no option '%s'; there are device, verify",
               luaL_tolstring(L, -2, NULL));
    lua_pop(L, 1);
  }
  return o;
}

static void verify(lua_State *L, const kl_entries *e, const char *path) {
  bool any = false;
  for (uint32_t i = 0; i < e->n; i++) {
    if (!e->list[i].vectors) continue;
    kl_run_vectors(L, e->list[i].graph, e->list[i].vectors, false);
    any = true;
  }
  if (!any) kl_error(L, KN_ARG, "load: %s holds no test vectors to verify", path);
}

static int push_notes(lua_State *L, const kn_notes *notes) {
  if (!notes) return 0;
  lua_newtable(L);
  for (uint32_t i = 0; i < notes->n; i++) {
    lua_pushstring(L, notes->list[i].text);
    lua_setfield(L, -2, notes->list[i].name);
  }
  return 1;
}

/* kiln.load(path[, {device =, verify =}]): the Graph in a file, or a table of Graphs by name when there are
 * several, and the notes that were saved with it, if any. */
static int load(lua_State *L) {
  const char *path = kl_check_text(L, 1, "load", "a path", NULL);
  const load_options o = read_load_options(L, 2);
  kl_entries *e = kl_push_entries(L);
  kn_status st = kn_file_load(e->ctx, path, o.moves ? &o.on : NULL, &e->list, &e->n);
  if (st != KN_OK) kn_error_prefix(e->ctx, "load");
  if (st != KN_OK) e->list = NULL;
  e->loaded = true;
  kl_check(L, st);
  if (o.verify) verify(L, e, path);
  if (e->n == 1) {
    push_loaded(L, &e->list[0]);
    return 1 + push_notes(L, e->list[0].notes);
  }
  lua_newtable(L);
  for (uint32_t i = 0; i < e->n; i++) {
    push_loaded(L, &e->list[i]);
    lua_setfield(L, -2, e->list[i].name);
  }
  return 1 + push_notes(L, e->list[0].notes);
}

/* kiln.parse(text): what tostring(g) shows, as a Graph again; slots written by name only have no data. */
static int parse(lua_State *L) {
  size_t n;
  const char *text = kl_check_text(L, 1, "parse", "the text of a graph", &n);
  kl_entries *e = kl_push_entries(L);
  kl_make_entries(L, e, 1);
  e->n = 1;
  kn_status st = kn_graph_parse(e->ctx, text, n, &e->list[0].graph);
  if (st != KN_OK) { /* the sentence begins with line and column of the text */
    lua_pushstring(L, kn_error(e->ctx));
    return kl_error(L, st, "parse: %s", lua_tostring(L, -1));
  }
  push_loaded(L, &e->list[0]);
  return 1;
}

void kl_set_file_functions(lua_State *L) {
  static const luaL_Reg list[] = {{"load", load}, {"parse", parse}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
  kl_set_save_functions(L);
}
