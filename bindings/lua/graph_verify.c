/* g:verify(inputs…, {rtol =, atol =}): runs the graph and the function it was made of on the same inputs with
 * the same random numbers, and raises where the results differ. */
#include "bindings/lua/graph_parts.h"
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct comparer {
  lua_State *L;
  double rtol, atol;
  bool told;      /* by the caller: else halves may be some roundings apart */
  char path[200]; /* "result 2.label" */
} comparer;

static int differ(comparer *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int differ(comparer *c, const char *fmt, ...) {
  char why[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return kl_error(c->L, KN_STATE, "verify: %s differs: %s", c->path, why);
}

static bool close_to(double rtol, double atol, double graph, double eager) {
  if (isnan(graph) || isnan(eager)) return isnan(graph) && isnan(eager);
  if (isinf(graph) || isinf(eager)) return graph == eager;
  return fabs(graph - eager) <= atol + rtol * fabs(eager);
}

static bool close_enough(const comparer *c, double graph, double eager) {
  return close_to(c->rtol, c->atol, graph, eager);
}

/* What runs as one is rounded once. */
static bool close_halves(const comparer *c, kn_dtype d, double graph, double eager) {
  const double step = d == KN_BF16 ? 0x1p-7 : 0x1p-10;
  return close_to(2 * step, step, graph, eager) || close_enough(c, graph, eager);
}

/* ---- tensors ---- */

static const void *place(const kn_tensor *t, int64_t offset) {
  return (const char *)kn_tensor_data(t) + offset * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
}

static double element(const kn_tensor *t, int64_t offset) {
  return kn_element_float(kn_tensor_dtype(t), place(t, offset));
}

/* Integers are compared as such: a double cannot tell all of them apart. */
static bool same_element(const comparer *c, const kn_tensor *a, int64_t i, const kn_tensor *b, int64_t k) {
  kn_dtype d = kn_tensor_dtype(a);
  if (!kn_dtype_is_float(d)) return kn_element_int(d, place(a, i)) == kn_element_int(d, place(b, k));
  const double x = element(a, i), y = element(b, k);
  return kn_dtypes[d].wide != d && !c->told ? close_halves(c, d, x, y) : close_enough(c, x, y);
}

static void compare_tensors(comparer *c, kn_tensor *a, kn_tensor *b) {
  char x[KN_TYPE_TEXT], y[KN_TYPE_TEXT], where[160] = "";
  if (!kn_type_equal(&a->type, &b->type)) {
    differ(c, "the graph gives %s, the function %s", kn_type_text(&a->type, x, sizeof x),
           kn_type_text(&b->type, y, sizeof y));
    return;
  }
  int top = lua_gettop(c->L);
  luaL_checkstack(c->L, 4, "copies on the host");
  a = kl_on_host(c->L, a);
  b = kl_on_host(c->L, b);
  int64_t n = kn_tensor_numel(a), at[KN_MAX_RANK] = {0}, wrong = 0, first[KN_MAX_RANK] = {0};
  double va = 0, vb = 0, worst = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t oa = 0, ob = 0;
    for (int d = 0; d < a->type.rank; d++) {
      oa += at[d] * a->strides[d];
      ob += at[d] * b->strides[d];
    }
    if (!same_element(c, a, oa, b, ob)) {
      double distance = fabs(element(a, oa) - element(b, ob));
      if (!wrong++) {
        va = element(a, oa);
        vb = element(b, ob);
        memcpy(first, at, sizeof first);
      }
      if (distance > worst) worst = distance;
    }
    for (int d = a->type.rank - 1; d >= 0 && ++at[d] == a->type.dims[d]; d--) at[d] = 0;
  }
  lua_settop(c->L, top);
  if (!wrong) return;
  size_t len = 0;
  for (int d = 0; d < a->type.rank && len < sizeof where; d++)
    len += (size_t)snprintf(where + len, sizeof where - len, "%s%" PRId64, d ? "," : "", first[d] + 1);
  differ(c,
         "%" PRId64 " of %" PRId64
         " elements, first [%s]: %.9g in the graph, %.9g in the function; at most by %.3g",
         wrong, n, where, va, vb, worst);
}

/* ---- any value: the graph's at a, the function's at b ---- */

static void compare(comparer *c, int a, int b, int depth);

static void compare_field(comparer *c, int a, int b, int depth) { /* key on top; pops it */
  lua_State *L = c->L;
  size_t n = strlen(c->path);
  if (lua_type(L, -1) == LUA_TSTRING)
    snprintf(c->path + n, sizeof c->path - n, ".%s", lua_tostring(L, -1));
  else
    snprintf(c->path + n, sizeof c->path - n, "[%s]", luaL_tolstring(L, -1, NULL)), lua_pop(L, 1);
  lua_pushvalue(L, -1);
  lua_rawget(L, a);
  lua_insert(L, -2);
  lua_rawget(L, b);
  int top = lua_gettop(L);
  compare(c, top - 1, top, depth + 1);
  lua_pop(L, 2);
  c->path[n] = 0;
}

static void compare_tables(comparer *c, int a, int b, int depth) {
  lua_State *L = c->L;
  luaL_checkstack(L, 8, "nested results");
  if (depth > 100) kl_error(L, KN_LIMIT, "verify: results are nested too deeply");
  for (int side = 0; side < 2; side++) {
    int t = side ? b : a;
    lua_pushnil(L);
    while (lua_next(L, t)) {
      lua_pop(L, 1);
      lua_pushvalue(L, -1);
      bool met = side && lua_rawget(L, a) != LUA_TNIL; /* in the first round */
      if (side) lua_pop(L, 1), lua_pushvalue(L, -1);
      if (met)
        lua_pop(L, 1);
      else
        compare_field(c, a, b, depth);
    }
  }
}

static void compare_numbers(comparer *c, int a, int b) {
  lua_State *L = c->L;
  bool whole = lua_isinteger(L, a);
  bool same =
      whole == lua_isinteger(L, b) && (whole ? lua_tointeger(L, a) == lua_tointeger(L, b)
                                             : close_enough(c, lua_tonumber(L, a), lua_tonumber(L, b)));
  if (!same)
    differ(c, "%s in the graph, %s in the function", luaL_tolstring(L, a, NULL), luaL_tolstring(L, b, NULL));
}

static void compare(comparer *c, int a, int b, int depth) {
  lua_State *L = c->L;
  luaL_checkstack(L, 4, "results");
  kn_tensor *x = kl_test_tensor(L, a), *y = kl_test_tensor(L, b);
  if (x && y)
    compare_tensors(c, x, y);
  else if (lua_type(L, a) == LUA_TNUMBER && lua_type(L, b) == LUA_TNUMBER)
    compare_numbers(c, a, b);
  else if (lua_type(L, a) == LUA_TTABLE && lua_type(L, b) == LUA_TTABLE)
    compare_tables(c, a, b, depth);
  else if (lua_type(L, a) == LUA_TSTRING && lua_type(L, b) == LUA_TSTRING && !lua_rawequal(L, a, b))
    differ(c, "'%s' in the graph, '%s' in the function", lua_tostring(L, a), lua_tostring(L, b));
  else if (!lua_rawequal(L, a, b))
    differ(c, "the graph gives %s, the function %s", kl_kind(L, a), kl_kind(L, b));
}

/* ---- the method ---- */

static double tolerance(lua_State *L, int idx, const char *key, double otherwise) {
  lua_getfield(L, idx, key);
  double v = otherwise;
  if (!lua_isnil(L, -1)) {
    v = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
    if (!(v >= 0)) kl_error(L, KN_ARG, "verify: %s must be a number that is not negative", key);
  }
  lua_pop(L, 1);
  return v;
}

/* A last argument that holds tolerances and nothing else. */
static bool is_options(lua_State *L, int idx) {
  bool any = false;
  if (lua_type(L, idx) != LUA_TTABLE) return false;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    bool known = !strcmp(key, "rtol") || !strcmp(key, "atol");
    lua_pop(L, 1);
    if (!known) return lua_pop(L, 1), false;
    any = true;
  }
  return any;
}

static void push_function(lua_State *L) {
  int type = lua_getiuservalue(L, 1, 1);
  if (type == LUA_TTABLE) {
    lua_getfield(L, -1, "f");
    lua_remove(L, -2);
  }
  if (lua_isnoneornil(L, -1))
    kl_error(L, KN_STATE, "verify: this Graph was loaded or frozen, there is no function to compare it with");
}

static int graph_verify(lua_State *L) {
  kl_graph *g = kl_check_graph(L, 1);
  kn_context *ctx = kl_context(L);
  comparer c = {.L = L, .rtol = 1e-4, .atol = 1e-5};
  if (lua_gettop(L) > 1 && is_options(L, lua_gettop(L))) {
    c.told = true;
    c.rtol = tolerance(L, lua_gettop(L), "rtol", c.rtol);
    c.atol = tolerance(L, lua_gettop(L), "atol", c.atol);
    lua_settop(L, lua_gettop(L) - 1);
  }
  int nargs = lua_gettop(L) - 1;
  push_function(L);
  int f = lua_gettop(L);
  luaL_checkstack(L, 2 * nargs + 16, "too many arguments");
  for (int i = 0; i < nargs; i++) lua_pushvalue(L, 2 + i);
  kl_variant *v = kl_choose_variant(L, g, 1, f + 1);
  kn_random start = ctx->random;
  int n = kl_run_graph(L, kl_check_graph(L, 1), v, f + 1,
                       KL_RUN_LOOK); /* what it stores is dropped: the function stores it below */
  int ours = lua_gettop(L) - n + 1;
  ctx->random = start;
  lua_pushvalue(L, f);
  for (int i = 0; i < nargs; i++) lua_pushvalue(L, 2 + i);
  lua_call(L, nargs, LUA_MULTRET);
  int theirs = ours + n, m = lua_gettop(L) - theirs + 1;
  if (m != n) return kl_error(L, KN_STATE, "verify: the graph gives %d results, the function %d", n, m);
  for (int i = 0; i < n; i++) {
    snprintf(c.path, sizeof c.path, "result %d", i + 1);
    compare(&c, ours + i, theirs + i, 0);
  }
  lua_pushboolean(L, 1);
  return 1;
}

void kl_set_verify_methods(lua_State *L) {
  static const luaL_Reg list[] = {{"verify", graph_verify}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}
