/* Ops that a host registers: described wrongly and well, called from Lua, captured, differentiated, in
 * training steps, saved, and loaded where they are, are not, or are others; kernels and rules that fail or
 * talk nonsense. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "bindings/c/session.h"
#include "bindings/lua/kiln_lua.h"
#include "spec/capi.h"
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>

/* ---- ops ---- */

static kiln_status fails(kiln_op_call *c, kiln_status status, const char *why) {
  snprintf(c->error, c->error_size, "%s", why);
  return status;
}

static int64_t numel(const kiln_op_tensor *t) {
  int64_t n = 1;
  for (int d = 0; d < t->rank; d++) n *= t->sizes[d];
  return n;
}

/* scale(x, {k}): k x, float32. Its ud counts calls, and its sentence comes where x has a 13. */
static kiln_status scale(kiln_op_call *c) {
  const float *x = c->inputs[0].data;
  float *y = c->outputs[0].data;
  ck_assert(c->size == sizeof *c && c->ninputs == 1 && c->noutputs == 1 && !strcmp(c->name, "scale"));
  ++*(atomic_int *)c->ud;
  for (int64_t i = 0; i < numel(&c->inputs[0]); i++) {
    if (x[i] == 13) return fails(c, KILN_ARG, "thirteen is not scaled");
    if (x[i] == 14) return KILN_IO;
    y[i] = (float)c->attributes[0] * x[i];
  }
  return KILN_OK;
}

static kiln_status scale_shape(kiln_op_call *c) {
  ck_assert_ptr_null(c->inputs[0].data);
  return c->inputs[0].dtype == KILN_FLOAT32 ? KILN_OK : fails(c, KILN_DTYPE, "only float32 is scaled");
}

static kiln_status scale_vjp(kiln_op_call *c) {
  const float *g = c->inputs[2].data;
  ck_assert(c->ninputs == 3 && c->noutputs == 1);
  for (int64_t i = 0; i < numel(&c->inputs[0]); i++)
    ((float *)c->outputs[0].data)[i] = (float)c->attributes[0] * g[i];
  return KILN_OK;
}

/* sincos(x): both, of float64. */
static kiln_status sincos_(kiln_op_call *c) {
  const double *x = c->inputs[0].data;
  for (int64_t i = 0; i < numel(&c->inputs[0]); i++) {
    ((double *)c->outputs[0].data)[i] = sin(x[i]);
    ((double *)c->outputs[1].data)[i] = cos(x[i]);
  }
  return KILN_OK;
}

static kiln_status sincos_vjp(kiln_op_call *c) {
  const double *s = c->inputs[1].data, *k = c->inputs[2].data, *gs = c->inputs[3].data,
               *gk = c->inputs[4].data;
  for (int64_t i = 0; i < numel(&c->inputs[0]); i++)
    ((double *)c->outputs[0].data)[i] = gs[i] * k[i] - gk[i] * s[i];
  return KILN_OK;
}

/* pick(x [N,D], row [M] int64, w [M]): row row[m] of x, times w[m]: [M,D]. No gradient for row. */
static kiln_status pick_shape(kiln_op_call *c) {
  const kiln_op_tensor *in = c->inputs;
  if (in[0].dtype != KILN_FLOAT64 || in[1].dtype != KILN_INT64 || in[2].dtype != KILN_FLOAT64)
    return fails(c, KILN_DTYPE, "float64, int64 and float64 are picked from");
  if (in[0].rank != 2 || in[1].rank != 1 || in[2].rank != 1)
    return fails(c, KILN_SHAPE, "[N,D], [M] and [M]");
  if (in[1].sizes[0] >= 0 && in[2].sizes[0] >= 0 && in[1].sizes[0] != in[2].sizes[0])
    return fails(c, KILN_SHAPE, "a weight for each row is needed");
  c->outputs[0].sizes[0] = in[1].sizes[0];
  return KILN_OK;
}

static kiln_status pick(kiln_op_call *c) {
  const double *x = c->inputs[0].data, *w = c->inputs[2].data;
  const int64_t *row = c->inputs[1].data, n = c->inputs[0].sizes[0], d = c->inputs[0].sizes[1];
  for (int64_t m = 0; m < c->inputs[1].sizes[0]; m++) {
    if (row[m] < 1 || row[m] > n) return fails(c, KILN_INDEX, "there is no such row");
    for (int64_t k = 0; k < d; k++)
      ((double *)c->outputs[0].data)[m * d + k] = x[(row[m] - 1) * d + k] * w[m];
  }
  return KILN_OK;
}

static kiln_status pick_vjp(kiln_op_call *c) {
  const double *x = c->inputs[0].data, *w = c->inputs[2].data, *g = c->inputs[4].data;
  const int64_t *row = c->inputs[1].data, d = c->inputs[0].sizes[1];
  double *gx = c->outputs[0].data, *gw = c->outputs[1].data;
  ck_assert(c->ninputs == 5 && c->noutputs == 2);
  memset(gx, 0, (size_t)numel(&c->inputs[0]) * sizeof *gx);
  for (int64_t m = 0; m < c->inputs[1].sizes[0]; m++) {
    gw[m] = 0;
    for (int64_t k = 0; k < d; k++) {
      gx[(row[m] - 1) * d + k] += g[m * d + k] * w[m];
      gw[m] += g[m * d + k] * x[(row[m] - 1) * d + k];
    }
  }
  return KILN_OK;
}

/* wild(x, {kind}): a rule that talks nonsense, each kind another one. */
static kiln_status wild_shape(kiln_op_call *c) {
  kiln_op_tensor *y = &c->outputs[0];
  switch ((int)c->attributes[0]) {
  case 1: y->rank = 9; break;
  case 2: y->rank = -1; break;
  case 3: y->sizes[0] = -1; break;
  case 4: y->sizes[0] = -77; break;
  case 5: y->dtype = (kiln_dtype)77; break;
  case 6: y->sizes[0] = INT64_MAX; break;
  case 7: return KILN_INTERNAL;
  default: break;
  }
  return KILN_OK;
}

static kiln_status copies(kiln_op_call *c) {
  memcpy(c->outputs[0].data, c->inputs[0].data,
         (size_t)numel(&c->inputs[0]) * kiln_dtype_size(c->inputs[0].dtype));
  return KILN_OK;
}

static const kiln_op_attribute by_two = {"k", 2}, kind = {"kind", 0};
static atomic_int scaled;

static const kiln_op ops[] = {
    {.size = sizeof(kiln_op),
     .name = "scale",
     .inputs = 1,
     .outputs = 1,
     .shape = scale_shape,
     .kernel = scale,
     .vjp = scale_vjp,
     .ud = &scaled,
     .attribute_count = 1,
     .attributes = &by_two},
    {.size = sizeof(kiln_op),
     .name = "sincos",
     .inputs = 1,
     .outputs = 2,
     .kernel = sincos_,
     .vjp = sincos_vjp},
    {.size = sizeof(kiln_op),
     .name = "pick",
     .inputs = 3,
     .outputs = 1,
     .shape = pick_shape,
     .kernel = pick,
     .vjp = pick_vjp},
    {.size = sizeof(kiln_op),
     .name = "wild",
     .inputs = 1,
     .outputs = 1,
     .shape = wild_shape,
     .kernel = copies,
     .attribute_count = 1,
     .attributes = &kind},
};

static kiln_context *new_context(const char *backend) {
  kiln_context *ctx;
  char error[256] = "";
  kiln_context_options o = {.size = sizeof o, .backend = backend, .threads = 2};
  GOOD(kiln_context_new(&o, &ctx, error, sizeof error), error);
  return ctx;
}

static void add_ops(kiln_context *ctx) {
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    GOOD(kiln_context_register_op(ctx, &ops[i]), kiln_error(ctx));
}

/* ---- registering ---- */

START_TEST(what_is_registered) {
  kiln_context *ctx = new_context("ref"), *child;
  static const kiln_op_attribute twice[] = {{"k", 1}, {"k", 2}}, odd[] = {{"a b", 1}};
  static const struct {
    const char *name;
    int inputs, outputs;
    kiln_op_fn kernel;
    int count;
    const kiln_op_attribute *attributes;
    const char *part;
  } rows[] = {
      {NULL, 1, 1, copies, 0, NULL, "letters, digits and underscores"},
      {"", 1, 1, copies, 0, NULL, "letters, digits and underscores"},
      {"a-b", 1, 1, copies, 0, NULL, "letters, digits and underscores"},
      {"1st", 1, 1, copies, 0, NULL, "no digit first"},
      {"a123456789012345678901234567890123456789012345678901234567890123", 1, 1, copies, 0, NULL,
       "63 at most"},
      {"none", 0, 1, copies, 0, NULL, "op 'none': it may have 1 to 32 inputs, not 0"},
      {"many", 33, 1, copies, 0, NULL, "1 to 32 inputs, not 33"},
      {"gives", 1, 5, copies, 0, NULL, "1 to 4 outputs, not 5"},
      {"gives", 1, 0, copies, 0, NULL, "1 to 4 outputs, not 0"},
      {"idle", 1, 1, NULL, 0, NULL, "op 'idle' has no kernel"},
      {"more", 1, 1, copies, 9, twice, "0 to 8 attributes, not 9"},
      {"twin", 1, 1, copies, 2, twice, "attribute k is there twice"},
      {"odd", 1, 1, copies, 1, odd, "the name of an attribute is letters"},
      {"scale", 1, 1, copies, 0, NULL, "an op 'scale' in this context already"},
  };
  add_ops(ctx);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const kiln_op op = {.size = sizeof op,
                        .name = rows[i].name,
                        .inputs = rows[i].inputs,
                        .outputs = rows[i].outputs,
                        .kernel = rows[i].kernel,
                        .attribute_count = rows[i].count,
                        .attributes = rows[i].attributes};
    BAD(KILN_ARG, rows[i].part, kiln_context_register_op(ctx, &op), kiln_error(ctx));
  }
  const kiln_op small = {.size = 8};
  BAD(KILN_ARG, "does not say its size", kiln_context_register_op(ctx, &small), kiln_error(ctx));
  GOOD(kiln_context_child(ctx, &child), kiln_error(ctx));
  BAD(KILN_ARG, "op 'sincos' in this", kiln_context_register_op(child, &ops[1]), kiln_error(child));
  const kiln_op old = {
      .size = offsetof(kiln_op, vjp), .name = "old", .inputs = 1, .outputs = 1, .kernel = copies};
  GOOD(kiln_context_register_op(child, &old), kiln_error(child)); /* of a host that knows less; in its root */
  BAD(KILN_ARG, "op 'old' in this", kiln_context_register_op(ctx, &old), kiln_error(ctx));
  kiln_context_free(child);
  kiln_context_free(ctx);
}
END_TEST

/* ---- in Lua ---- */

static lua_State *open_lua(kiln_context *ctx) {
  lua_State *L = luaL_newstate();
  ck_assert_ptr_nonnull(L);
  luaL_openlibs(L);
  ck_assert_int_eq(kiln_lua_setcontext(L, ctx), 1);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_settop(L, 0);
  return L;
}

/* Runs it with `path` as its argument; it must get through. */
static void must_run(lua_State *L, const char *text, const char *path) {
  ck_assert_msg(luaL_loadbuffer(L, text, strlen(text), "=script") == LUA_OK, "%s", lua_tostring(L, -1));
  lua_pushstring(L, path);
  ck_assert_msg(lua_pcall(L, 1, 0, 0) == LUA_OK, "%s", lua_tostring(L, -1));
}

static const char prelude[] =
    "op, T = kiln.op, kiln.tensor\n"
    "function D(t) return T(t, { dtype = 'float64' }) end\n"
    "function equal(a, b) assert(kiln.equal(a, b), tostring(a) .. tostring(b)) end\n"
    "function raises(part, f, ...)\n"
    "  local ok, why = pcall(f, ...)\n"
    "  assert(not ok, 'it did not raise: ' .. part)\n"
    "  assert(tostring(why):find(part, 1, true), tostring(why) .. ': no ' .. part)\n"
    "end\n";

static const char eager_text[] =
    "equal(op.scale(T { 1, 2.5 }), T { 2, 5.0 })\n"
    "equal(op.scale(T { { 1.0, 2 }, { 3, 4 } }:t(), { k = -1 }), T { { -1.0, -3 }, { -2, -4 } "
    "})\n"                           /* not
                                        contiguous
                                      */
    "equal(op.scale(3.0), T(6.0))\n" /* a number */
    "equal(op.scale(kiln.zeros(0, 4)), kiln.zeros(0, 4))\n"
    "local s, c = op.sincos(D { 0, 1 })\n"
    "equal(s, D { 0, math.sin(1) })\n"
    "equal(c, D { 1, math.cos(1) })\n"
    "equal(op.pick(D { { 1, 2 }, { 3, 4 } }, T { 2, 2, 1 }, D { 1, 10, 100 }), D { { 3, 4 }, "
    "{ 30, 40 }, { "
    "100, 200 } })\n"
    "equal(kiln.host_op({ T { 1.0 } }, 'scale', { 3 }), T { 3.0 })\n" /* the row itself */
    "assert(op.nothing == nil and rawget(op, 'scale') == op.scale)\n"
    "raises('scale: only float32 is scaled', op.scale, D { 1 })\n"
    "raises('scale: thirteen is not scaled', op.scale, T { 1.0, 13 })\n"
    "raises('scale: input/output error', op.scale, T { 14.0 })\n"
    "raises('script:', function() return op.scale(T { 13.0 }) end)\n"
    "raises(\"scale: there is no option 'q'; there are k\", op.scale, T { 1.0 }, { q = 1 })\n"
    "raises('scale: k must be a number, got a string', op.scale, T { 1.0 }, { k = 'x' })\n"
    "raises(\"sincos: there is no option 'k', nor any other\", op.sincos, T { 1.0 }, { k = 1 "
    "})\n"
    "raises('scale: input 1 must be a tensor or a number, got nil', op.scale)\n"
    "raises('pick: input 3 must be a tensor or a number, got nil', op.pick, D { { 1 } }, T { "
    "1 })\n"
    "raises('takes 1 tensor and a table of options, got 3 arguments', op.scale, T { 1.0 }, "
    "{}, 4)\n"
    "raises('what follows its inputs must be a table of options', op.scale, T { 1.0 }, 4)\n"
    "raises('pick: a weight for each row is needed', op.pick, D { { 1 } }, T { 1, 1 }, D { 1 "
    "})\n"
    "raises('pick: there is no such row', op.pick, D { { 1 } }, T { 3 }, D { 1 })\n"
    "raises(\"op 'other' is the host's, and this context has none\", kiln.host_op, { T { 1 } "
    "}, 'other')\n"
    "raises(\"op 'scale' has 1 values, not 0\", kiln.host_op, { T { 1.0 } }, 'scale')\n"
    "raises(\"op 'sincos' has 2 results\", kiln.host_op, { T { 1.0 } }, 'sincos')\n"
    "raises('sincos: takes 1 tensor, got 2', kiln.host_op_2, { T { 1.0 }, T { 1.0 } }, "
    "'sincos')\n"
    "raises('wild: its shape rule gave 9 as rank', op.wild, T { 1 }, { kind = 1 })\n"
    "raises('wild: its shape rule gave -1 as rank', op.wild, T { 1 }, { kind = 2 })\n"
    "raises('wild: its shape rule gave -1 as size 1 of result 1', op.wild, T { 1 }, { kind = "
    "3 })\n"
    "raises('wild: its shape rule gave -77 as size 1', op.wild, T { 1 }, { kind = 4 })\n"
    "raises('dtype', op.wild, T { 1 }, { kind = 5 })\n"
    "raises('too large', op.wild, T { 1 }, { kind = 6 })\n"
    "raises('wild: internal error', op.wild, T { 1 }, { kind = 7 })\n";

static const char gradient_text[] =
    "local x = T { 1.0, 2 }:requires_grad_()\n"
    "op.scale(x, { k = 5 }):sum():backward()\n"
    "equal(x.grad, T { 5.0, 5 })\n"
    "assert(kiln.gradcheck(op.sincos, { D { 0.3, -1.2 }:requires_grad_() }))\n"
    "assert(kiln.gradcheck(function(y) local s, c = op.sincos(y) return c end, { D { 0.3 }:requires_grad_() "
    "}))\n"
    "assert(kiln.gradcheck(function(a, w) return op.pick(a, T { 2, 1, 2 }, w) end,\n"
    "  { D { { 1, 2 }, { 3, 4 } }:requires_grad_(), D { 0.5, 2, 3 }:requires_grad_() }))\n"
    "local a = D { { 1, 2 } }\n" /* only one of two wants a gradient */
    "local w = D { 4 }:requires_grad_()\n"
    "op.pick(a, T { 1 }, w):sum():backward()\n"
    "equal(w.grad, D { 3 })\n"
    "raises('has no gradient: it was registered without a vjp', function()\n"
    "  op.wild(T { 1.0 }:requires_grad_()):sum():backward()\n"
    "end)\n"
    "raises(\"the gradient of op 'scale' is not differentiable\", function()\n"
    "  local z = T { 1.0 }:requires_grad_()\n"
    "  local g = kiln.grad((op.scale(z * z)):sum(), { z }, { create_graph = true })[1]\n"
    "  g = kiln.grad((op.scale(op.scale(z)):sum()), { z }, { create_graph = true })[1]\n"
    "  g:sum():backward()\n"
    "end)\n";

/* Captured as eager: branches, loops, caught errors, sizes that are known only when it runs, gradients. */
static const char captured_text[] =
    "local function same(f, ...)\n"
    "  local want = table.pack(pcall(f, ...))\n"
    "  local g = kiln.script(f)\n"
    "  for _ = 1, 2 do\n"
    "    local got = table.pack(pcall(g, ...))\n"
    "    assert(got[1] == want[1], tostring(got[2]))\n"
    "    if not want[1] then return g end\n"
    "    for i = 2, want.n do equal(got[i], want[i]) end\n"
    "  end\n"
    "  return g\n"
    "end\n"
    "same(function(x) return op.scale(op.scale(x), { k = 3 }) + 1 end, T { 1.0, 2 })\n"
    "same(function(x)\n"
    "  for i = 1, 3 do x = op.scale(x) end\n"
    "  if x:sum():item() > 3 then return op.scale(x, { k = 0.5 }) end\n"
    "  return x\n"
    "end, T { 1.0, 2 })\n"
    "same(function(x) local s, c = op.sincos(x) return s * c, c end, D { 1, 2, 3 })\n"
    "same(function(x) return op.pick(x, x:sum(2):gt(2.5):nonzero():reshape(-1), "
    "x:sum(2):gt(2.5):nonzero():reshape(-1):double()) end,\n"
    "  D { { 1, 1 }, { 2, 2 }, { 3, 3 } })\n"
    "same(function(x) return op.scale(x) end, T { 13.0 })\n"
    "local g = same(function(x)\n"
    "  local ok, y = pcall(op.scale, x)\n"
    "  return ok and y or x * 0\n"
    "end, T { 13.0, 1 })\n"
    "equal(g(T { 1.0, 2 }), T { 2.0, 4 })\n"
    "local x, w = D { { 1, 2 }, { 3, 4 } }:requires_grad_(), D { 1, 2, 3 }:requires_grad_()\n"
    "local function step(k)\n"
    "  local y = op.pick(x, T { 1, 2, 1 }, w * k)\n"
    "  local s, c = op.sincos(y)\n"
    "  return kiln.grad((s * 2 + c):sum(), { x, w })\n"
    "end\n"
    "local want, got = step(2.0), kiln.script(step)(2.0)\n"
    "equal(got[1], want[1])\n"
    "equal(got[2], want[2])\n";

static void run_text(const char *text) {
  for (int b = 0; b < 2; b++) {
    kiln_context *ctx = new_context(b ? NULL : "ref");
    lua_State *L = open_lua(ctx);
    add_ops(ctx); /* after the module was opened */
    must_run(L, prelude, NULL);
    must_run(L, text, NULL);
    lua_close(L);
    kiln_context_free(ctx);
  }
}

START_TEST(eager) { run_text(eager_text); }
END_TEST
START_TEST(gradients) { run_text(gradient_text); }
END_TEST
START_TEST(captured) { run_text(captured_text); }
END_TEST

/* ---- saved ---- */

/* A training step with the op in it, a counter and its random numbers; and a function of any N. */
static const char saved_text[] = "local w = T { 1.0, 2 }:requires_grad_()\n"
                                 "local opt = kiln.optim.SGD({ w }, { lr = 0.1, momentum = 0.9 })\n"
                                 "local function step(x)\n"
                                 "  local loss = (op.scale(x * w, { k = 3 }) - kiln.rand(2)):pow(2):sum()\n"
                                 "  opt:zero_grad()\n"
                                 "  loss:backward()\n"
                                 "  opt:step()\n"
                                 "  return loss, op.scale(x)\n"
                                 "end\n"
                                 "local g = kiln.script(step)\n"
                                 "local e = kiln.script(function(x) return op.scale(x, { k = 7 }) end, { "
                                 "inputs = { kiln.spec('float32', { 'N', 2 }) } })\n"
                                 "for i = 1, 3 do g(T { 0.5, i }) end\n"
                                 "kiln.save(..., { step = g, each = e })\n";

static void save_model(char path[PATH_ROOM]) {
  kiln_context *ctx = new_context("ref");
  add_ops(ctx);
  lua_State *L = open_lua(ctx);
  new_file(path);
  must_run(L, prelude, NULL);
  must_run(L, saved_text, path);
  lua_close(L);
  kiln_context_free(ctx);
}

static kiln_tensor *floats(kiln_context *ctx, int rank, const int64_t *sizes, const float *data) {
  kiln_tensor *t = NULL;
  GOOD(kiln_tensor_new(ctx, KILN_FLOAT32, rank, sizes, data, &t), kiln_error(ctx));
  return t;
}

static void set_x(kiln_context *ctx, kiln_session *s, int rank, const int64_t *sizes, const float *data) {
  kiln_tensor *x = floats(ctx, rank, sizes, data);
  GOOD(kiln_session_set_tensor(s, "x", x), kiln_session_error(s));
  kiln_tensor_release(x);
}

static const int64_t two[] = {2};

/* What output 1 gives, as floats. */
static void output(kiln_context *ctx, kiln_session *s, int index, float *to, size_t n) {
  kiln_value v = {KILN_NIL};
  GOOD(kiln_session_get(s, index, &v), kiln_session_error(s));
  GOOD(kiln_tensor_read(ctx, v.tensor, to, n * sizeof *to), kiln_error(ctx));
  kiln_value_clear(&v);
}

START_TEST(saved_graphs_run_without_lua) {
  char path[PATH_ROOM];
  float losses[2][3];
  save_model(path);
  for (int b = 0; b < 2; b++) {
    kiln_context *ctx = new_context(b ? NULL : "ref");
    kiln_graph *g, *each;
    kiln_session *s;
    add_ops(ctx);
    GOOD(kiln_graph_load(ctx, path, "step", &g), kiln_error(ctx));
    GOOD(kiln_session_new(ctx, g, &s), kiln_error(ctx));
    for (int i = 0; i < 3; i++) {
      float y[2];
      set_x(ctx, s, 1, two, (float[]){1, (float)i});
      GOOD(kiln_session_run(s), kiln_session_error(s));
      output(ctx, s, 0, &losses[b][i], 1);
      output(ctx, s, 1, y, 2);
      ck_assert(y[0] == 2 && y[1] == 2 * (float)i && losses[b][i] > 0);
    }
    /* a kernel that fails: nothing stays of the step */
    kiln_value before, after;
    const int slot = kiln_graph_find_slot(g, "w");
    ck_assert_int_ge(slot, 0);
    GOOD(kiln_session_get_slot(s, slot, &before), "");
    const kn_random random = *kn_session_random(s->core);
    set_x(ctx, s, 1, two, (float[]){13, 1});
    BAD(KILN_RAISED, "scale: thirteen is not scaled", kiln_session_run(s), kiln_session_error(s));
    GOOD(kiln_session_get_slot(s, slot, &after), "");
    ck_assert(!memcmp(kiln_tensor_data(before.tensor), kiln_tensor_data(after.tensor), 8) &&
              random.offset == kn_session_random(s->core)->offset);
    kiln_value_clear(&before);
    kiln_value_clear(&after);
    kiln_session_free(s);
    GOOD(kiln_graph_load(ctx, path, "each", &each), kiln_error(ctx));
    GOOD(kiln_session_new(ctx, each, &s), kiln_error(ctx));
    for (int n = 0; n < 4; n++) { /* any N */
      float y[6];
      set_x(ctx, s, 2, (int64_t[]){n, 2}, (float[]){1, 2, 3, 4, 5, 6});
      GOOD(kiln_session_run(s), kiln_session_error(s));
      output(ctx, s, 0, y, 2 * (size_t)n);
      for (int i = 0; i < 2 * n; i++) ck_assert(y[i] == 7 * (float)(i + 1));
    }
    kiln_session_set_check(s, 1); /* beside the reference, which is the same kernel */
    GOOD(kiln_session_run(s), kiln_session_error(s));
    kiln_session_free(s);
    kiln_graph_release(each);
    kiln_graph_release(g);
    kiln_context_free(ctx);
  }
  for (int i = 0; i < 3; i++) ck_assert(fabsf(losses[0][i] - losses[1][i]) <= 1e-5f * losses[0][i]);
  unlink(path);
}
END_TEST

START_TEST(contexts_without_the_op_refuse) {
  char path[PATH_ROOM];
  save_model(path);
  kiln_context *has = new_context("ref"), *lacks = new_context("ref"), *differs = new_context("ref");
  kiln_graph *g;
  kiln_session *s;
  add_ops(has);
  BAD(KILN_FORMAT, "op 'scale' is the host's, and this context has none of that name",
      kiln_graph_load(lacks, path, "each", &g), kiln_error(lacks));
  GOOD(kiln_graph_load(has, path, "each", &g), kiln_error(has));
  GOOD(kiln_session_new(lacks, g, &s), kiln_error(lacks)); /* a graph may go to any context */
  set_x(lacks, s, 2, (int64_t[]){1, 2}, (float[]){1, 2});
  BAD(KILN_UNSUPPORTED, "op 'scale' is the host's", kiln_session_run(s), kiln_session_error(s));
  kiln_session_free(s);
  /* there is one of that name, which is another */
  const kiln_op wide = {.size = sizeof wide,
                        .name = "scale",
                        .inputs = 1,
                        .outputs = 1,
                        .shape = pick_shape,
                        .kernel = copies,
                        .attribute_count = 1,
                        .attributes = &by_two};
  GOOD(kiln_context_register_op(differs, &wide), kiln_error(differs));
  GOOD(kiln_session_new(differs, g, &s), kiln_error(differs));
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(differs);
  kiln_context_free(lacks);
  kiln_context_free(has);
  unlink(path);
}
END_TEST

/* wider(x): as float64, or of one more element. */
static kiln_status wider(kiln_op_call *c) {
  if (c->attributes[0] == 0) c->outputs[0].dtype = KILN_FLOAT64;
  if (c->attributes[0] == 1) c->outputs[0].rank = 2, c->outputs[0].sizes[1] = 3;
  if (c->attributes[0] == 2) c->outputs[0].sizes[0] = 3;
  return KILN_OK;
}

static kiln_status zeros(kiln_op_call *c) {
  memset(c->outputs[0].data, 0, (size_t)numel(&c->outputs[0]) * kiln_dtype_size(c->outputs[0].dtype));
  return KILN_OK;
}

/* What was stored as float32 [2] would come as something else: the slot, and all that reads it, would be read
 * beyond its end. */
START_TEST(another_op_of_the_name_is_seen) {
  static const char *const parts[] = {"gives float64[2] here, and float32[2] where the graph was made",
                                      "gives float32[2,3] here", "gives float32[3] here"};
  for (int how = 0; how < 3; how++)
    for (int open = 0; open < 2; open++) { /* sizes known to the plan, or only to the run */
      char text[600];
      snprintf(text, sizeof text,
               "graph g(%%x: float32[2], %%at: int64[N]) {\n  slot state \"s\": float32[2]\n"
               "  %%p: int64[?,1] = nonzero %%at\n  %%q: int64[?] = reshape %%p {sizes = {-1}}\n"
               "  %%z: float32[?] = index_select %%x, %%q {dim = 1}\n"
               "  %%y: float32[%s] = host_op %%%s {name = \"same\", values = {%d.0}}\n"
               "%s  return %%y\n}\n",
               open ? "?" : "2", open ? "z" : "x", how, open ? "" : "  store_state \"s\", %y\n");
      const char *texts[] = {text};
      char path[PATH_ROOM];
      kiln_context *ctx = new_context("ref"), *differs = new_context("ref");
      kiln_op op = {.size = sizeof op,
                    .name = "same",
                    .inputs = 1,
                    .outputs = 1,
                    .kernel = copies,
                    .attribute_count = 1,
                    .attributes = &kind};
      GOOD(kiln_context_register_op(ctx, &op), kiln_error(ctx));
      op.shape = wider;
      op.kernel = zeros;
      GOOD(kiln_context_register_op(differs, &op), kiln_error(differs));
      kn_context *c = core_context(ctx);
      kn_graph *made = parsed(c, texts[0]);
      write_graphs(c, path, &made, 1);
      kiln_graph *g;
      kiln_session *s;
      GOOD(kiln_graph_load(ctx, path, NULL, &g), kiln_error(ctx));
      for (int other = 0; other < 2; other++) {
        kiln_context *on = other ? differs : ctx;
        kiln_tensor *at;
        GOOD(kiln_session_new(on, g, &s), kiln_error(on));
        set_x(on, s, 1, two, (float[]){1, 2});
        GOOD(kiln_tensor_new(on, KILN_INT64, 1, two, (int64_t[]){1, 1}, &at), kiln_error(on));
        GOOD(kiln_session_set_tensor(s, "at", at), "");
        kiln_tensor_release(at);
        if (!other || (open && how == 2))
          GOOD(kiln_session_run(s), kiln_session_error(s));
        else
          BAD(KILN_SHAPE, open && how == 0 ? "gives float64[2] here, and float32[?]" : parts[how],
              kiln_session_run(s), kiln_session_error(s));
        kiln_session_free(s);
      }
      kiln_graph_release(g);
      kiln_context_free(differs);
      kiln_context_free(ctx);
      unlink(path);
    }
}
END_TEST

/* What a file gives a gradient may fit by its names of sizes, and not in the run. */
START_TEST(gradients_are_given_what_belongs_to_them) {
  static const char *const text =
      "graph g(%x: float32[N], %m: float32[M]) {\n"
      "  %y: float32[N] = host_op %x, %m, %m {name = \"scale\", values = {1.5}, gradient = true}\n"
      "  return %y\n}\n";
  char path[PATH_ROOM];
  kiln_context *ctx = new_context("ref");
  kiln_graph *g;
  kiln_session *s;
  add_ops(ctx);
  kn_graph *made = parsed(core_context(ctx), text);
  write_graphs(core_context(ctx), path, &made, 1);
  GOOD(kiln_graph_load(ctx, path, NULL, &g), kiln_error(ctx));
  GOOD(kiln_session_new(ctx, g, &s), kiln_error(ctx));
  for (int64_t m = 1; m < 4; m++) {
    kiln_tensor *t = floats(ctx, 1, &m, (float[]){1, 2, 3});
    set_x(ctx, s, 1, two, (float[]){1, 2});
    GOOD(kiln_session_set_tensor(s, "m", t), kiln_session_error(s));
    kiln_tensor_release(t);
    if (m == 2)
      GOOD(kiln_session_run(s), kiln_session_error(s));
    else
      BAD(KILN_SHAPE, "is given what is no result of it", kiln_session_run(s), kiln_session_error(s));
  }
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(ctx);
  unlink(path);
}
END_TEST

/* ---- texts from outside ---- */

START_TEST(texts_are_checked) {
  static const struct {
    const char *line, *part; /* NULL: it is right, and prints as it stands */
  } rows[] = {
      {"%y: float32[N] = host_op %x {name = \"scale\", values = {1.5}}", NULL},
      {"%y: float32[N] = host_op %x, %x, %x {name = \"scale\", values = {1.5}, gradient = true}", NULL},
      {"%y: float64[N], %z: float64[N] = host_op_2 %w {name = \"sincos\"}", NULL},
      {"%y: float64[N] = host_op %w, %w, %w, %w, %w {name = \"sincos\", gradient = true}", NULL},
      {"%y: float32[N] = host_op %x {name = \"scale\"}", "op 'scale' has 1 values, not 0"},
      {"%y: float32[N] = host_op %x {values = {1.5}}", "attribute name is missing"},
      {"%y: float32[N] = host_op %x {name = \"gone\"}", "op 'gone' is the host's"},
      {"%y: float32[N] = host_op %x {name = 3}", "a quoted string is missing"},
      {"%y: float32[N] = host_op %x {name = \"scale\", values = 1.5}", "2:"},
      {"%y: float32[N] = host_op %x {name = \"scale\", values = {true}}", "a number is missing"},
      {"%y: float32[N] = host_op %x {name = \"scale\", values = {1, 2, 3, 4, 5, 6, 7, 8, 9}}", "at most 8"},
      {"%y: float32[N] = host_op %x "
       "{name = \"a1234567890123456789012345678901234567890123456789012345678901234\"}",
       "more than 63 bytes"},
      {"%y: float64[N] = host_op %x {name = \"scale\", values = {1.5}}",
       "declared float64[N] but is float32[N]"},
      {"%y: float32[3] = host_op %x {name = \"scale\", values = {1.5}}",
       "declared float32[3] but is float32[N]"},
      {"%y: float64[N] = host_op %w {name = \"scale\", values = {1.5}}", "only float32 is scaled"},
      {"%y: float32[N] = host_op %x, %x {name = \"scale\", values = {1.5}}", "takes 1 tensor, got 2"},
      {"%y: float32[N] = host_op %x, %x {name = \"scale\", values = {1.5}, gradient = true}",
       "takes 3 tensors, got 2"},
      {"%y: float32[N], %z: float32[N] = host_op_2 %x {name = \"scale\", values = {1.5}}",
       "op 'scale' has 1 results"},
      {"%y: float64[N] = host_op %w {name = \"sincos\"}", "op 'sincos' has 2 results"},
      {"%y: float32[N] = host_op %x, %m, %x {name = \"scale\", values = {1.5}, gradient = true}",
       "is given what is no result of it"},
      {"%y: float32[N] = host_op %x, %w, %x {name = \"scale\", values = {1.5}, gradient = true}",
       "is given what is no result of it"},
      {"%y: float32[N], %z: float32[N] = host_op_2 %x, %x, %x {name = \"scale\", values = {1.5}, gradient = "
       "true}",
       "has no gradient for 2 inputs"},
      {"%y: float32[N] = host_op %x, %x, %x {name = \"wild\", values = {0.0}, gradient = true}",
       "op 'wild' has no gradient"},
      {"%y: float32[N] = host_op %x {name = \"wild\", values = {4.0}}", "gave -77 as size 1"},
      {"%y: float32[N] = host_op %x {name = \"wild\", values = {3.0}}",
       "declared float32[N] but is float32[?]"},
      {"%y: float32[?] = host_op %x {name = \"wild\", values = {3.0}}", NULL},
  };
  kiln_context *ctx = new_context("ref");
  kn_context *c = core_context(ctx);
  add_ops(ctx);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char text[400], *again;
    size_t n;
    kn_graph *g;
    snprintf(text, sizeof text,
             "graph g(%%x: float32[N], %%w: float64[N], %%m: float32[M,2]) {\n  %s\n  return %%y\n}\n",
             rows[i].line);
    if (rows[i].part) {
      const kn_status st = kn_graph_parse(c, text, strlen(text), &g);
      ck_assert_msg(st == KN_FORMAT && strstr(kn_error(c), rows[i].part), "%s: %s", rows[i].line,
                    kn_error(c));
      continue;
    }
    OK(c, kn_graph_parse(c, text, strlen(text), &g));
    OK(c, kn_graph_print(c, g, KN_TEXT_FULL, &again, &n));
    ck_assert_str_eq(again, text);
    kn_free(c->heap, again, n + 1);
    kn_graph_release(g);
  }
  kiln_context_free(ctx);
}
END_TEST

/* ---- without memory ---- */

/* The whole of a host, with what it can free freed. */
static kiln_status everything(account *memory, const char *path) {
  kiln_context *ctx;
  kiln_graph *g = NULL;
  kiln_session *s = NULL;
  kiln_tensor *x = NULL;
  float y[4];
  kiln_context_options o = {
      .size = sizeof o, .alloc = count, .alloc_ud = memory, .backend = "ref", .threads = 1};
  kiln_status st = kiln_context_new(&o, &ctx, NULL, 0);
  if (st != KILN_OK) return st;
  for (size_t i = 0; i < sizeof ops / sizeof *ops && st == KILN_OK; i++)
    st = kiln_context_register_op(ctx, &ops[i]);
  if (st == KILN_OK) st = kiln_graph_load(ctx, path, "step", &g);
  if (st == KILN_OK) st = kiln_session_new(ctx, g, &s);
  if (st == KILN_OK) st = kiln_tensor_new(ctx, KILN_FLOAT32, 1, two, (float[]){1, 2}, &x);
  if (st == KILN_OK) st = kiln_session_set_tensor(s, "x", x);
  if (st == KILN_OK) st = kiln_session_run(s);
  if (st == KILN_OK) output(ctx, s, 1, y, 2);
  kiln_tensor_release(x);
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(ctx);
  return st;
}

START_TEST(memory_that_runs_out_anywhere) {
  char path[PATH_ROOM];
  save_model(path);
  for (int once = 0; once < 2; once++)
    for (long n = 0;; n++) {
      account memory = {.left = n, .once = once};
      const kiln_status st = everything(&memory, path);
      ck_assert_msg(memory.live == 0, "%ld blocks were lost when allocation %ld failed", memory.live, n);
      if (st == KILN_OK && n > 50) break;
      ck_assert_msg(st == KILN_NOMEM || (once && st == KILN_OK), "allocation %ld: %s", n,
                    kiln_status_text(st));
      ck_assert_int_lt(n, 20000);
    }
  unlink(path);
}
END_TEST

SUITE("capi_op", what_is_registered, eager, gradients, captured, saved_graphs_run_without_lua,
      contexts_without_the_op_refuse, another_op_of_the_name_is_seen,
      gradients_are_given_what_belongs_to_them, texts_are_checked, memory_that_runs_out_anywhere)
