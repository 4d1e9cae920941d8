/* g:freeze, g:optimize_for_inference and g:report. What they do is graph/optimize.h's; here are their
 * options, their samples, and what the report looks like. */
#include "backends/registry.h"
#include "bindings/lua/graph_parts.h"
#include "bindings/lua/owned.h"
#include "graph/optimize.h"
#include <string.h>

/* ---- what C owns while Lua may raise ---- */

typedef struct made {
  kn_graph *graph; /* NULL: nothing to free */
  kn_optimize_report report;
} made;

static void free_made(void *block) {
  made *m = block;
  if (!m->graph) return;
  kn_graph_release(m->graph);
  kn_optimize_report_free(&m->report);
}

/* ---- options ---- */

typedef struct asked {
  lua_State *L;
  const char *name; /* of the method */
  int table;        /* of options; 0: none */
  kl_variant *v;
  kn_optimize o;
} asked;

static void check_names(const asked *a) {
  lua_State *L = a->L;
  for (lua_pushnil(L); lua_next(L, a->table); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : kl_kind(L, -2);
    if (strcmp(key, "preserve") != 0 && strcmp(key, "tolerance") != 0 && strcmp(key, "samples") != 0)
      kl_error(L, KN_ARG, "%s: there is no option '%s'; there are preserve, tolerance, samples", a->name,
               key);
  }
}

/* A name or a list of names; they stay on the stack as long as the table does. */
static void read_preserve(asked *a) {
  lua_State *L = a->L;
  lua_getfield(L, a->table, "preserve");
  if (lua_type(L, -1) == LUA_TSTRING) {
    lua_createtable(L, 1, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, 1);
  }
  if (lua_isnil(L, -1)) return;
  if (lua_type(L, -1) != LUA_TTABLE)
    kl_error(L, KN_ARG, "%s: preserve must be a list of names of parameters, got %s", a->name,
             kl_kind(L, -1));
  int list = lua_gettop(L);
  size_t n = lua_rawlen(L, list);
  const char **names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
  for (size_t i = 0; i < n; i++) {
    if (lua_rawgeti(L, list, (lua_Integer)i + 1) != LUA_TSTRING)
      kl_error(L, KN_ARG, "%s: preserve must be a list of names of parameters, got %s in it", a->name,
               kl_kind(L, -1));
    names[i] = lua_tostring(L, -1); /* anchored in the list */
    lua_pop(L, 1);
  }
  a->o.preserve = names;
  a->o.npreserve = (uint32_t)n;
}

static double number_on_top(const asked *a, const char *what) {
  lua_State *L = a->L;
  if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0))
    kl_error(L, KN_ARG, "%s: %s must be a number that is not negative, or {ulp = number}, got %s", a->name,
             what, lua_type(L, -1) == LUA_TNUMBER ? "another" : kl_kind(L, -1));
  return lua_tonumber(L, -1);
}

/* A number, relative to the largest element, or {ulp = number}. */
static bool read_tolerance(asked *a) {
  lua_State *L = a->L;
  bool given = lua_getfield(L, a->table, "tolerance") != LUA_TNIL;
  if (given && lua_type(L, -1) == LUA_TTABLE) {
    lua_getfield(L, -1, "ulp");
    a->o.budget = (kn_budget){number_on_top(a, "tolerance.ulp"), true};
    lua_pop(L, 1);
  } else if (given)
    a->o.budget = (kn_budget){number_on_top(a, "tolerance"), false};
  lua_pop(L, 1);
  return given;
}

/* One argument that is a tensor, or a list of arguments. */
static void read_sample(asked *a, int list, lua_Integer i, kn_rvalue *in) {
  lua_State *L = a->L;
  int at = lua_gettop(L) + 1;
  lua_rawgeti(L, list, i);
  if (!kl_test_tensor(L, at)) {
    if (lua_type(L, at) != LUA_TTABLE)
      kl_error(L, KN_ARG, "%s: samples[%d] must be a table of arguments, or a tensor, got %s", a->name,
               (int)i, kl_kind(L, at));
    lua_Integer n = (lua_Integer)lua_rawlen(L, at);
    if (n > 200) kl_error(L, KN_LIMIT, "%s: samples[%d] has more than 200 arguments", a->name, (int)i);
    luaL_checkstack(L, (int)n + 8, "too many arguments");
    for (lua_Integer k = 1; k <= n; k++) lua_rawgeti(L, at, k);
    lua_remove(L, at);
  }
  kl_flatten(L, a->v, at, lua_gettop(L) - at + 1, in);
}

/* What they are stays on the stack. */
static void read_samples(asked *a) {
  lua_State *L = a->L;
  uint32_t nin = a->v->graph->body->nparams;
  if (lua_getfield(L, a->table, "samples") == LUA_TNIL) return;
  if (lua_type(L, -1) != LUA_TTABLE)
    kl_error(L, KN_ARG, "%s: samples must be a list of tables of arguments, got %s", a->name, kl_kind(L, -1));
  int list = lua_gettop(L);
  size_t n = lua_rawlen(L, list);
  if (n > 10000) kl_error(L, KN_LIMIT, "%s: more than 10000 samples", a->name);
  const kn_rvalue **all = lua_newuserdatauv(L, (n + 1) * sizeof *all, 0);
  for (size_t i = 0; i < n; i++) {
    luaL_checkstack(L, (int)nin + 16, "too many samples");
    kn_rvalue *in = lua_newuserdatauv(L, (nin + 1u) * sizeof *in, 0);
    read_sample(a, list, (lua_Integer)i + 1, in);
    all[i] = in;
  }
  a->o.samples = all;
  a->o.nsamples = (uint32_t)n;
}

/* ---- the report ---- */

static const char *side_text(char *buf, size_t size, uint64_t bytes) {
  if (bytes < 10000)
    snprintf(buf, size, "%llu bytes", (unsigned long long)bytes);
  else
    snprintf(buf, size, "%.1f %s", (double)bytes / (bytes < 10000000 ? 1e3 : 1e6),
             bytes < 10000000 ? "kB" : "MB");
  return buf;
}

static void add_line(luaL_Buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_line(luaL_Buffer *b, const char *fmt, ...) {
  char line[1200];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  luaL_addstring(b, line);
  luaL_addchar(b, '\n');
}

static void add_names(luaL_Buffer *b, const char *head, const char *const *names, uint32_t n) {
  enum { SHOWN = 8 };
  luaL_addstring(b, head);
  for (uint32_t i = 0; i < n && i < SHOWN; i++) {
    luaL_addstring(b, i ? ", " : "");
    luaL_addstring(b, names[i]);
  }
  luaL_addstring(b, n > SHOWN ? ", …\n" : "\n");
}

static const char *unit(const kn_optimize_report *r) { return r->budget.ulps ? " ulp" : ""; }

static void add_fold(luaL_Buffer *b, const kn_optimize_report *r, const kn_fold_note *f) {
  char error[64] = "not measured";
  if (f->error >= 0) snprintf(error, sizeof error, "error %.2g%s", f->error, unit(r));
  add_line(b, "  %-7s %s%s%s%s%s, %s%s%s", f->kept ? "kept" : "left", f->what, f->of ? " of " : "",
           f->of ? f->of : "", f->where ? " at " : "", f->where ? f->where : "", error, f->why ? ": " : "",
           f->why ? f->why : "");
}

static void add_measured(luaL_Buffer *b, const kn_optimize_report *r) {
  char most[80] = "1e-05, or what the dtype can tell";
  if (r->budget.most >= 0) snprintf(most, sizeof most, "%.3g%s", r->budget.most, unit(r));
  if (r->nfolds || r->over) add_line(b, "tolerance: %s", most);
  if (r->unmeasured)
    add_line(b, "not measured: %s", r->unmeasured);
  else if (r->error >= 0)
    add_line(b, "results differ by %.2g%s at most, on %u sample%s%s%s", r->error, unit(r), r->samples,
             r->samples == 1 ? "" : "s", r->invented ? " of random numbers" : "",
             r->smaller ? ", smaller than the inputs" : "");
  if (r->over)
    add_line(b,
             "that is over the tolerance with no fold made: where weights are constants, backends lay them "
             "out in ways of their own and add up in another order");
}

static void push_text(lua_State *L, const kn_optimize_report *r) {
  luaL_Buffer b;
  char before[40], after[40];
  uint32_t kept = 0;
  for (uint32_t i = 0; i < r->nfolds; i++) kept += r->folds[i].kept;
  luaL_buffinit(L, &b);
  add_line(&b, "graph %s: %llu nodes became %llu, %s of tensors %s", r->graph,
           (unsigned long long)r->nodes[0], (unsigned long long)r->nodes[1],
           side_text(before, sizeof before, r->bytes[0]), side_text(after, sizeof after, r->bytes[1]));
  add_line(&b, "constants: %u parameters and buffers; guards dropped: %u", r->nfrozen, r->nguards);
  if (r->nstay) add_names(&b, "not constant: ", r->stay, r->nstay);
  if (r->nfolds) add_line(&b, "folds: %u of %u kept", kept, r->nfolds);
  for (uint32_t i = 0; i < r->nfolds; i++) add_fold(&b, r, &r->folds[i]);
  add_measured(&b, r);
  if (r->hint) add_line(&b, "note: %s", r->hint);
  luaL_pushresult(&b);
}

static void set_names(lua_State *L, const char *key, const char *const *names, uint32_t n) {
  lua_createtable(L, (int)n, 0);
  for (uint32_t i = 0; i < n; i++) {
    lua_pushstring(L, names[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, key);
}

static void set_folds(lua_State *L, const kn_optimize_report *r) {
  lua_createtable(L, (int)r->nfolds, 0);
  for (uint32_t i = 0; i < r->nfolds; i++) {
    const kn_fold_note *f = &r->folds[i];
    lua_createtable(L, 0, 7);
    kl_set_text(L, "kind", f->fold);
    kl_set_text(L, "node", f->what);
    kl_set_text(L, "where", f->where);
    kl_set_text(L, "parameter", f->of);
    kl_set_text(L, "why", f->why);
    if (f->error >= 0) kl_set_number(L, "error", f->error);
    lua_pushboolean(L, f->kept);
    lua_setfield(L, -2, "kept");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "folds");
}

static void set_guards(lua_State *L, const kn_optimize_report *r) {
  lua_createtable(L, (int)r->nguards, 0);
  for (uint32_t i = 0; i < r->nguards; i++) {
    lua_createtable(L, 0, 4);
    kl_set_text(L, "kind", r->guards[i].kind);
    kl_set_text(L, "name", r->guards[i].name);
    kl_set_text(L, "value", r->guards[i].value);
    kl_set_text(L, "where", r->places[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "guards");
}

static int report_text(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  return 1;
}

static void push_report(lua_State *L, const kn_optimize_report *r) {
  luaL_checkstack(L, 12, "report");
  lua_createtable(L, 0, 9);
  set_folds(L, r);
  set_guards(L, r);
  set_names(L, "constants", r->frozen, r->nfrozen);
  set_names(L, "stay", r->stay, r->nstay);
  if (r->error >= 0) kl_set_number(L, "error", r->error);
  kl_set_count(L, "samples", r->samples);
  kl_set_count(L, "bytes", r->bytes[1]);
  lua_pushboolean(L, r->over);
  lua_setfield(L, -2, "over");
  kl_set_text(L, "unmeasured", r->unmeasured);
  kl_set_text(L, "note", r->hint);
  lua_createtable(L, 0, 2);
  push_text(L, r);
  lua_pushcclosure(L, report_text, 1);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "Report");
  lua_setfield(L, -2, "__name");
  lua_setmetatable(L, -2);
}

/* ---- the methods ---- */

static void read_options(asked *a) {
  lua_State *L = a->L;
  bool tolerance = false;
  if (lua_isnoneornil(L, 2)) {
    lua_settop(L, 1);
    lua_newtable(L);
  }
  lua_settop(L, 2);
  a->table = 2;
  if (lua_type(L, 2) != LUA_TTABLE)
    kl_error(L, KN_ARG, "%s: options must be a table, got %s", a->name, kl_kind(L, 2));
  check_names(a);
  read_preserve(a);
  tolerance = read_tolerance(a);
  read_samples(a);
  if (tolerance) a->o.level = KN_PIPELINE_INFERENCE;
  a->o.invent = a->o.level == KN_PIPELINE_INFERENCE;
}

static int optimize(lua_State *L, const char *name, kn_pipeline level) {
  kn_context *ctx = kl_context(L);
  asked a = {
      .L = L, .name = name, .v = kl_newest_variant(L, 1), .o = {.level = level, .budget = {-1, false}}};
  if (ctx->recorder)
    return kl_error(L, KN_UNSUPPORTED, "%s: not inside a function that is being captured; do it outside",
                    name);
  read_options(&a);
  kl_check_storable(L, a.v, name);
  a.o.session = kl_variant_session(L, a.v);
  kl_load_live(L, a.v);
  kl_check(L, kn_registry_targets(ctx, &a.o.targets, &a.o.ntargets));
  kl_graph *g = kl_push_graph(L);
  int self = lua_gettop(L);
  made *m = kl_push_owned(L, sizeof *m, free_made);
  kl_make_room(L);
  kn_status st = kn_optimize_graph(ctx, &a.o, &m->report, &m->graph);
  if (st != KN_OK) {
    m->graph = NULL;
    kn_error_prefix(ctx, "%s", name);
  }
  kl_check(L, st);
  kl_add_variant(L, g, kn_graph_retain(m->graph), NULL);
  push_report(L, &m->report);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, self, 3);
  lua_pushvalue(L, self);
  lua_insert(L, -2);
  return 2;
}

/* g:freeze{preserve =, tolerance =, samples =}: parameters become constants; with a tolerance, folds that
 * change rounding are made as far as it allows. */
static int graph_freeze(lua_State *L) { return optimize(L, "freeze", KN_PIPELINE_FREEZE); }

static int graph_optimize_for_inference(lua_State *L) {
  return optimize(L, "optimize_for_inference", KN_PIPELINE_INFERENCE);
}

/* g:report(): what freeze said of it. */
static int graph_report(lua_State *L) {
  kl_check_graph(L, 1);
  if (lua_getiuservalue(L, 1, 3) == LUA_TTABLE) return 1;
  return kl_error(L, KN_STATE, "report: this Graph is not what g:freeze or g:optimize_for_inference gave");
}

void kl_set_optimize_methods(lua_State *L) {
  static const luaL_Reg list[] = {{"freeze", graph_freeze},
                                  {"optimize_for_inference", graph_optimize_for_inference},
                                  {"report", graph_report},
                                  {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}
