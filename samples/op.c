/* A C host with an op of its own: distances on a sphere, in metres, which the program scripts in Lua, eager
 * and captured, differentiates, and saves. It then loads what was saved without Lua.
 *
 *   op op.lua OP.kiln          Lua scripts it, and saves the graph
 *   op OP.kiln                 the graph alone, in a context that has the op; no Lua runs
 *
 * The op comes with its shape rule, its kernel and its gradient, and is kiln.op.distance in Lua. */
#include "kiln.h"
#include "kiln_lua.h"
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const char *why) {
  fprintf(stderr, "op: %s: %s\n", what, why);
  exit(1);
}

/* ---- the op: from points a [N,2] and b [N,2], latitude and longitude in radians, to distances [N] ---- */

static kiln_status refuse(kiln_op_call *call, kiln_status status, const char *why) {
  snprintf(call->error, call->error_size, "%s", why);
  return status;
}

/* Sizes below 0 are not known yet. */
static int may_be(int64_t size, int64_t wanted) { return size < 0 || wanted < 0 || size == wanted; }

static kiln_status shape(kiln_op_call *call) {
  const kiln_op_tensor *a = &call->inputs[0], *b = &call->inputs[1];
  kiln_op_tensor *out = &call->outputs[0];
  if (a->dtype != KILN_FLOAT64 || b->dtype != KILN_FLOAT64)
    return refuse(call, KILN_DTYPE, "points are float64");
  if (a->rank != 2 || b->rank != 2 || !may_be(a->sizes[1], 2) || !may_be(b->sizes[1], 2))
    return refuse(call, KILN_SHAPE, "points are [N,2]: latitude and longitude");
  if (!may_be(a->sizes[0], b->sizes[0]))
    return refuse(call, KILN_SHAPE, "as many points to as from are needed");
  out->rank = 1;
  out->sizes[0] = a->sizes[0];
  return KILN_OK;
}

/* The sine of half the angle, squared (the haversine formula). */
static double half(const double *a, const double *b) {
  const double u = sin((b[0] - a[0]) / 2), v = sin((b[1] - a[1]) / 2);
  return u * u + cos(a[0]) * cos(b[0]) * v * v;
}

static kiln_status kernel(kiln_op_call *call) {
  const double *a = call->inputs[0].data, *b = call->inputs[1].data, radius = call->attributes[0];
  double *out = call->outputs[0].data;
  for (int64_t i = 0; i < call->inputs[0].sizes[0]; i++) {
    if (fabs(a[2 * i]) > 1.5708 || fabs(b[2 * i]) > 1.5708)
      return refuse(call, KILN_ARG, "a latitude is beyond the poles: points are in radians");
    out[i] = 2 * radius * asin(sqrt(half(a + 2 * i, b + 2 * i)));
  }
  return KILN_OK;
}

/* Inputs: a, b, the distances, and their gradients. Outputs: gradients of a and of b. */
static kiln_status vjp(kiln_op_call *call) {
  const double *a = call->inputs[0].data, *b = call->inputs[1].data, *g = call->inputs[3].data;
  double *ga = call->outputs[0].data, *gb = call->outputs[1].data;
  for (int64_t i = 0; i < call->inputs[0].sizes[0]; i++, a += 2, b += 2, ga += 2, gb += 2) {
    const double h = half(a, b), v = sin((b[1] - a[1]) / 2);
    /* d distance / d h; points that are one have no direction, so no gradient */
    const double by = h > 0 ? g[i] * call->attributes[0] / sqrt(h * (1 - h)) : 0;
    const double lat = sin(b[0] - a[0]) / 2, lon = cos(a[0]) * cos(b[0]) * sin(b[1] - a[1]) / 2;
    ga[0] = by * (-lat - sin(a[0]) * cos(b[0]) * v * v);
    gb[0] = by * (lat - cos(a[0]) * sin(b[0]) * v * v);
    ga[1] = by * -lon;
    gb[1] = by * lon;
  }
  return KILN_OK;
}

static void add_op(kiln_context *ctx) {
  const kiln_op_attribute radius = {"radius", 6371008.8}; /* of the Earth */
  const kiln_op op = {.size = sizeof op,
                      .name = "distance",
                      .inputs = 2,
                      .outputs = 1,
                      .shape = shape,
                      .kernel = kernel,
                      .vjp = vjp,
                      .attribute_count = 1,
                      .attributes = &radius};
  if (kiln_context_register_op(ctx, &op)) die("kiln", kiln_error(ctx));
}

/* ---- with Lua ---- */

static int open_lua(lua_State *L) {
  luaL_openlibs(L);
  if (!kiln_lua_setcontext(L, lua_touserdata(L, 1))) return luaL_error(L, "kiln has a context already");
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  return 0;
}

static void run_script(kiln_context *ctx, const char *script, const char *graph) {
  lua_State *L = luaL_newstate();
  if (!L) die("Lua", "out of memory");
  lua_pushcfunction(L, open_lua);
  lua_pushlightuserdata(L, ctx);
  if (lua_pcall(L, 1, 0, 0) || luaL_loadfilex(L, script, "t")) die(script, lua_tostring(L, -1));
  lua_pushstring(L, graph);
  if (lua_pcall(L, 1, 0, 0)) die(script, lua_tostring(L, -1));
  lua_close(L);
}

/* ---- without ---- */

static void run_graph(kiln_context *ctx, const char *path) {
  kiln_graph *graph;
  kiln_session *session;
  kiln_tensor *from, *lengths;
  const int64_t sizes[] = {3, 2};
  double route[] = {0.9163, 0.2339, 0.8527, 0.0410, 0.8993, -0.0022}, /* Berlin, Paris, London */
      legs[2];
  if (kiln_graph_load(ctx, path, NULL, &graph)) die("kiln", kiln_error(ctx));
  if (kiln_session_new(ctx, graph, &session)) die("kiln", kiln_error(ctx));
  if (kiln_tensor_wrap(ctx, KILN_FLOAT64, 2, sizes, route, NULL, NULL, &from)) die("kiln", kiln_error(ctx));
  if (kiln_session_set_tensor(session, "route", from) || kiln_session_run(session) ||
      kiln_session_get_tensor(session, "1", &lengths))
    die("kiln", kiln_session_error(session));
  if (kiln_tensor_read(ctx, lengths, legs, sizeof legs)) die("kiln", kiln_error(ctx));
  printf("Berlin to Paris %.0f km, Paris to London %.0f km\n", legs[0] / 1000, legs[1] / 1000);
  kiln_tensor_release(lengths);
  kiln_tensor_release(from);
  kiln_session_free(session);
  kiln_graph_release(graph);
}

int main(int argc, char **argv) {
  if (argc < 2) die("usage", "op [SCRIPT.lua] GRAPH.kiln");
  kiln_context *ctx, *bare;
  kiln_graph *graph;
  char error[512];
  if (kiln_context_new(NULL, &ctx, error, sizeof error)) die("kiln", error);
  add_op(ctx);
  if (argc > 2) run_script(ctx, argv[1], argv[2]);
  run_graph(ctx, argv[argc - 1]);
  kiln_context_free(ctx);

  /* Who has not got the op is told so when the file is loaded. */
  if (kiln_context_new(NULL, &bare, error, sizeof error)) die("kiln", error);
  if (!kiln_graph_load(bare, argv[argc - 1], NULL, &graph))
    die("kiln", "loaded a graph without the op it needs");
  printf("without the op: %s\n", kiln_error(bare));
  kiln_context_free(bare);
  return 0;
}
