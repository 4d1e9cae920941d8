/* g:profile(inputs…, {runs =, nodes =, trace =}): what each node and each line of the program takes, as an
 * object with tables and a text. What is measured, and how, is graph/profile.h's business. */
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/options.h"
#include "graph/profile.h"
#include <stdio.h>
#include <string.h>

static const char profile_key = 0; /* of the metatable in the registry */

/* ---- numbers of the report ---- */

/* Seconds, of a run and of all of them; what was reached in that time, and of the peaks. */
static void set_work(lua_State *L, const kn_profile *p, double own, double median, const kn_cost *c) {
  kn_rates r = kn_profile_rates(p, median, c);
  kl_set_number(L, "time", median);
  kl_set_number(L, "total", own);
  kl_set_number(L, "share", r.share);
  kl_set_number(L, "flops", c->flops / p->done);
  kl_set_number(L, "bytes", c->bytes / p->done);
  kl_set_number(L, "gflops", r.flops * 1e-9);
  kl_set_number(L, "gbs", r.bytes * 1e-9);
  kl_set_number(L, "flops_of_peak", r.flops_of_peak);
  kl_set_number(L, "bytes_of_peak", r.bytes_of_peak);
}

static void set_parts(lua_State *L, const kn_profile_row *r) {
  lua_createtable(L, (int)r->n, 0);
  for (uint32_t i = 0; i < r->n; i++) {
    lua_createtable(L, 0, 3);
    kl_set_text(L, "op", kn_opcode_describe(r->nodes[i]->op).text);
    if (r->nodes[i]->nout) kl_set_text(L, "name", r->nodes[i]->out[0]->name);
    kl_set_where(L, r->nodes[i]->where);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "nodes");
}

static void push_rows(lua_State *L, const kn_profile *p) {
  char name[256];
  lua_createtable(L, (int)p->nrows, 0);
  for (uint32_t i = 0; i < p->nrows; i++) {
    const kn_profile_row *r = &p->rows[i];
    const kn_node *last = r->nodes[r->n - 1];
    lua_createtable(L, 0, 20);
    kl_set_text(L, "op", kn_profile_name(r, name, sizeof name));
    if (last->nout) kl_set_text(L, "name", last->out[0]->name);
    kl_set_where(L, r->nodes[0]->where);
    kl_set_text(L, "backend", r->backend);
    kl_set_text(L, "implementation", r->impl);
    kl_set_count(L, "depth", r->depth + 1u);
    kl_set_count(L, "calls", r->calls);
    set_work(L, p, r->own, r->median, &r->cost);
    kl_set_number(L, "inclusive", r->total);
    if (r->nodes[0]->op == KN_NODE_loop) kl_set_count(L, "trips", r->trips);
    if (r->n > 1) set_parts(L, r);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static void push_lines(lua_State *L, const kn_profile *p) {
  lua_createtable(L, (int)p->nlines, 0);
  for (uint32_t i = 0; i < p->nlines; i++) {
    const kn_profile_line *l = &p->lines[i];
    lua_createtable(L, 0, 14);
    if (l->where) {
      lua_pushfstring(L, l->where->line > 0 ? "%s:%d" : "%s:?", l->where->chunk, l->where->line);
      lua_setfield(L, -2, "where");
    }
    kl_set_count(L, "nodes", l->nodes);
    kl_set_count(L, "calls", l->calls);
    set_work(L, p, l->own, l->median, &l->cost);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static void push_report(lua_State *L, const kn_profile *p) {
  lua_createtable(L, 0, 8);
  kl_set_text(L, "name", p->graph->name);
  kl_set_count(L, "runs", p->done);
  kl_set_number(L, "time", p->plain_median);
  kl_set_number(L, "timed", p->timed_median);
  lua_createtable(L, 0, 3);
  kl_set_number(L, "gflops", p->peaks.flops * 1e-9);
  kl_set_number(L, "gbs", p->peaks.bytes * 1e-9);
  kl_set_count(L, "threads", (uint64_t)p->peaks.threads);
  lua_setfield(L, -2, "peaks");
  push_rows(L, p);
  lua_setfield(L, -2, "nodes");
  push_lines(L, p);
  lua_setfield(L, -2, "lines");
}

/* ---- the report ---- */

static kn_profile **test_report(lua_State *L, int idx) {
  kn_profile **p = lua_touserdata(L, idx);
  if (!p || !lua_getmetatable(L, idx)) return NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &profile_key);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? p : NULL;
}

static const kn_profile *check_report(lua_State *L, const char *what) {
  kn_profile **p = test_report(L, 1);
  if (!p || !*p) kl_error(L, KN_ARG, "%s: the report of g:profile is needed, got %s", what, kl_kind(L, 1));
  return *p;
}

static int report_gc(lua_State *L) {
  kn_profile **p = test_report(L, 1);
  if (p) {
    kn_profile_free(*p);
    *p = NULL;
  }
  return 0;
}

static int report_index(lua_State *L) { /* upvalue: the methods */
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  if (!lua_isnil(L, -1)) return 1;
  check_report(L, "profile");
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_gettable(L, -2);
  return 1;
}

static int push_text(lua_State *L) {
  const kn_writer *w = lua_touserdata(L, 1);
  lua_pushlstring(L, w->p, w->n);
  return 1;
}

static int report_text(lua_State *L) {
  const kn_profile *p = check_report(L, "tostring");
  kn_writer w = {.heap = kl_context(L)->heap};
  luaL_checkstack(L, 4, "a report");
  lua_pushcfunction(L, push_text);
  lua_pushlightuserdata(L, &w);
  kn_profile_text(p, &w);
  int status = w.failed ? LUA_ERRMEM : lua_pcall(L, 1, 1, 0);
  bool failed = w.failed;
  kn_writer_free(&w);
  if (failed) return kl_error(L, KN_NOMEM, "tostring: out of memory");
  return status == LUA_OK ? 1 : lua_error(L);
}

static int report_write(lua_State *L) {
  const kn_profile *p = check_report(L, "write");
  if (lua_type(L, 2) != LUA_TSTRING)
    kl_error(L, KN_ARG, "write: the name of a file is needed, got %s", kl_kind(L, 2));
  kl_check(L, kn_profile_trace(kl_context(L), p, lua_tostring(L, 2)));
  lua_settop(L, 1);
  return 1;
}

/* ---- the method ---- */

/* A last argument that holds options of this method and nothing else. */
static bool is_options(lua_State *L, int idx, const kl_option *rows) {
  bool any = false;
  if (lua_type(L, idx) != LUA_TTABLE) return false;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    bool known = false;
    for (const kl_option *r = rows; r->name && !known; r++)
      known = lua_type(L, -2) == LUA_TSTRING && !strcmp(lua_tostring(L, -2), r->name);
    lua_pop(L, 1);
    if (!known) return lua_pop(L, 1), false;
    any = true;
  }
  return any;
}

/* A new, empty report on top. */
static kn_profile **new_report(lua_State *L) {
  kn_profile **p = lua_newuserdatauv(L, sizeof *p, 1);
  *p = NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &profile_key);
  lua_setmetatable(L, -2);
  return p;
}

/* The arguments begin at 4, behind the Graph, the options and the report, into which it goes. */
static void profile(lua_State *L, const kn_profile_options *o, kn_profile **out) {
  kl_graph *g = kl_check_graph(L, 1);
  kn_context *ctx = kl_context(L);
  int given = lua_gettop(L) - 3;
  if (ctx->recorder) kl_error(L, KN_UNSUPPORTED, "profile: nothing runs while a function is being captured");
  kl_variant *v = kl_choose_variant(L, g, 1, 4);
  const kn_region *body = v->graph->body;
  luaL_checkstack(L, (int)body->nparams + 16, "too many inputs");
  kn_rvalue *in = lua_newuserdatauv(L, ((size_t)body->nparams + 1) * sizeof *in, 0);
  kl_flatten(L, v, 4, given, in);
  const char *why = kn_mode_needed(v->graph, ctx->grad_enabled);
  if (why && !v->live) kl_error(L, KN_ARG, "graph %s: %s", v->graph->name, why);
  kn_session *s = kl_variant_session(L, v);
  kl_offer_hosts(L, s);
  if (!v->loaded) kl_load_live(L, v);
  v->loaded = false;
  kn_context *run = kn_session_context(s);
  kn_session_use_random(s, &ctx->random);
  run->threads = ctx->threads;
  run->print = ctx->print;
  run->peaks = ctx->peaks;
  kn_status st = kn_session_profile(s, in, body->nparams, o, out);
  ctx->peaks = run->peaks; /* measured once */
  if (st != KN_OK) kl_session_fail(L, s, st);
}

static int graph_profile(lua_State *L) {
  int64_t runs = 0;
  bool nodes = false;
  const char *trace = NULL;
  const kl_option rows[] = {{"runs", KL_OPTION_INT, &runs, 1},
                            {"nodes", KL_OPTION_BOOL, &nodes, 0},
                            {"trace", KL_OPTION_TEXT, &trace, 0},
                            {NULL, KL_OPTION_INT, NULL, 0}};
  kl_check_graph(L, 1);
  luaL_checkstack(L, 16, "profile");
  if (lua_gettop(L) == 1 || !is_options(L, lua_gettop(L), rows)) lua_pushnil(L);
  lua_insert(L, 2);
  kl_read_options(L, 2, "profile", rows);
  if (runs > KN_PROFILE_MOST_RUNS)
    kl_error(L, KN_ARG, "profile: runs must be at most %d", KN_PROFILE_MOST_RUNS);
  kn_profile **report = new_report(L);
  lua_insert(L, 3);
  profile(L, &(kn_profile_options){(uint32_t)runs, nodes}, report);
  lua_settop(L, 3);
  push_report(L, *report);
  lua_setiuservalue(L, 3, 1);
  if (trace) kl_check(L, kn_profile_trace(kl_context(L), *report, trace));
  return 1;
}

static void open_reports(lua_State *L) {
  static const luaL_Reg meta[] = {{"__gc", report_gc}, {"__tostring", report_text}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"write", report_write}, {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, meta, 0);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_pushcclosure(L, report_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "Profile");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &profile_key);
}

void kl_set_profile_methods(lua_State *L) {
  open_reports(L);
  lua_pushcfunction(L, graph_profile);
  lua_setfield(L, -2, "profile");
}
