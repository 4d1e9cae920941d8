/* The IR: Lua's numbers against Lua itself, the builder, the recorder, the verifier. */
#include "spec/suite.h"
#include "graph/record.h"
#include "graph/scalar.h"
#include "graph/text.h"
#include "graph/verify.h"
#include <inttypes.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <math.h>

static kn_scalar I(int64_t i) { return (kn_scalar){KN_SCALAR_INT, {.i = i}}; }
static kn_scalar F(double f) { return (kn_scalar){KN_SCALAR_FLOAT, {.f = f}}; }
static kn_scalar B(bool b) { return (kn_scalar){KN_SCALAR_BOOL, {.b = b}}; }

static kn_vtype tensor_type(kn_dtype d, int rank, int64_t a, int64_t b) {
  return (kn_vtype){KN_V_TENSOR, {.dtype = (uint8_t)d, .rank = (uint8_t)rank, .dims = {a, b}}};
}

/* ---- numbers ---- */

static void push(lua_State *L, const kn_scalar *s) {
  if (s->kind == KN_SCALAR_INT)
    lua_pushinteger(L, s->as.i);
  else if (s->kind == KN_SCALAR_FLOAT)
    lua_pushnumber(L, s->as.f);
  else
    lua_pushboolean(L, s->as.b);
}

static const char *show(const kn_scalar *s, char *buf) {
  if (s->kind == KN_SCALAR_INT)
    sprintf(buf, "%" PRId64, s->as.i);
  else if (s->kind == KN_SCALAR_FLOAT)
    sprintf(buf, "%a", s->as.f);
  else
    sprintf(buf, "%s", s->as.b ? "true" : "false");
  return buf;
}

static bool same_scalar(lua_State *L, int idx, const kn_scalar *s) {
  if (s->kind == KN_SCALAR_BOOL) return lua_isboolean(L, idx) && lua_toboolean(L, idx) == s->as.b;
  if (s->kind == KN_SCALAR_INT) return lua_isinteger(L, idx) && lua_tointeger(L, idx) == s->as.i;
  double x = lua_tonumber(L, idx);
  return lua_type(L, idx) == LUA_TNUMBER && !lua_isinteger(L, idx) &&
         ((isnan(x) && isnan(s->as.f)) || !memcmp(&x, &s->as.f, sizeof x));
}

static const struct {
  kn_opcode op;
  const char *lua; /* a function of Lua that does the same */
  int n;
} number_ops[] = {
    {KN_NODE_lua_add, "function(a, b) return a + b end", 2},
    {KN_NODE_lua_sub, "function(a, b) return a - b end", 2},
    {KN_NODE_lua_mul, "function(a, b) return a * b end", 2},
    {KN_NODE_lua_mod, "function(a, b) return a % b end", 2},
    {KN_NODE_lua_pow, "function(a, b) return a ^ b end", 2},
    {KN_NODE_lua_div, "function(a, b) return a / b end", 2},
    {KN_NODE_lua_idiv, "function(a, b) return a // b end", 2},
    {KN_NODE_lua_band, "function(a, b) return a & b end", 2},
    {KN_NODE_lua_bor, "function(a, b) return a | b end", 2},
    {KN_NODE_lua_bxor, "function(a, b) return a ~ b end", 2},
    {KN_NODE_lua_shl, "function(a, b) return a << b end", 2},
    {KN_NODE_lua_shr, "function(a, b) return a >> b end", 2},
    {KN_NODE_lua_eq, "function(a, b) return a == b end", 2},
    {KN_NODE_lua_lt, "function(a, b) return a < b end", 2},
    {KN_NODE_lua_le, "function(a, b) return a <= b end", 2},
    {KN_NODE_lua_unm, "function(a) return -a end", 1},
    {KN_NODE_lua_bnot, "function(a) return ~a end", 1},
    {KN_NODE_lua_floor, "math.floor", 1},
    {KN_NODE_lua_ceil, "math.ceil", 1},
    {KN_NODE_lua_abs, "math.abs", 1},
    {KN_NODE_lua_sqrt, "math.sqrt", 1},
    {KN_NODE_lua_exp, "math.exp", 1},
    {KN_NODE_lua_log, "math.log", 1},
    {KN_NODE_lua_sin, "math.sin", 1},
    {KN_NODE_lua_cos, "math.cos", 1},
    {KN_NODE_lua_tofloat, "function(a) return a * 1.0 end", 1},
};

static const double numbers_f[] = {
    0.0,     -0.0,   0.5,       -0.5,  1,      -1,     2,        -2,         3,       -3,     2.5,
    -2.5,    63,     64,        -64,   65,     1e15,   0x1p53,   0x1p53 + 2, -0x1p53, 0x1p62, 0x1p63,
    -0x1p63, 0x1p64, -0x1.8p63, 1e300, -1e300, 5e-324, INFINITY, -INFINITY,  NAN};
static const int64_t numbers_i[] = {0,
                                    1,
                                    -1,
                                    2,
                                    -2,
                                    3,
                                    -3,
                                    7,
                                    -7,
                                    62,
                                    63,
                                    64,
                                    65,
                                    -63,
                                    -64,
                                    -65,
                                    INT64_C(1) << 53,
                                    (INT64_C(1) << 53) + 1,
                                    -(INT64_C(1) << 53) - 1,
                                    (INT64_C(1) << 62),
                                    INT64_MAX,
                                    INT64_MAX - 1,
                                    INT64_MIN,
                                    INT64_MIN + 1};
enum { NF = sizeof numbers_f / sizeof *numbers_f, NI = sizeof numbers_i / sizeof *numbers_i, NN = NF + NI };
static kn_scalar number_at(int i) { return i < NF ? F(numbers_f[i]) : I(numbers_i[i - NF]); }

/* Our result and Lua's for one case, errors included. */
static void compare_case(kn_context *c, lua_State *L, kn_opcode op, const kn_scalar *in, int n) {
  char a[64], b[64], r[64] = "error";
  kn_scalar out = B(false);
  kn_status st = kn_scalar_eval(c, op, in, (uint32_t)n, &out);
  lua_pushvalue(L, 1);
  for (int i = 0; i < n; i++) push(L, &in[i]);
  int failed = lua_pcall(L, n, 1, 0);
  const char *name = kn_opcode_describe(op).text;
  if (failed) {
    const char *sentence = lua_tostring(L, -1), *colon = strstr(sentence, ": ");
    ck_assert_msg(st == KN_RAISED, "%s(%s, %s): Lua raises %s", name, show(&in[0], a),
                  n > 1 ? show(&in[1], b) : "", sentence);
    ck_assert_msg(!strcmp(colon ? colon + 2 : sentence, kn_error(c)), "\"%s\" instead of \"%s\"", kn_error(c),
                  sentence);
  } else {
    if (st == KN_OK) show(&out, r);
    ck_assert_msg(st == KN_OK && same_scalar(L, -1, &out), "%s(%s, %s) is %s, Lua gives %s", name,
                  show(&in[0], a), n > 1 ? show(&in[1], b) : "", r, luaL_tolstring(L, -1, NULL));
    bool same = !kn_scalar_quick(op, &in[0], &in[n - 1], &out) || same_scalar(L, 2, &out);
    ck_assert_msg(same, "%s(%s), done quickly, is %s", name, show(&in[0], a), show(&out, r));
  }
  lua_settop(L, 1);
}

START_TEST(numbers_as_lua) {
  kn_context *c = suite_context();
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  for (size_t k = 0; k < sizeof number_ops / sizeof *number_ops; k++) {
    char chunk[128];
    sprintf(chunk, "return %s", number_ops[k].lua);
    /* Lua names a variable in these errors; a stripped function has no names */
    ck_assert(!luaL_loadstring(L, "local s = ... local f = load(s)() return pcall(string.dump, f) and "
                                  "load(string.dump(f, true)) or f"));
    lua_pushstring(L, chunk);
    ck_assert(!lua_pcall(L, 1, 1, 0));
    for (int i = 0; i < NN; i++)
      for (int j = 0; j < (number_ops[k].n == 2 ? NN : 1); j++)
        compare_case(c, L, number_ops[k].op, (kn_scalar[]){number_at(i), number_at(j)}, number_ops[k].n);
    lua_settop(L, 0);
  }
  lua_close(L);
  suite_done(c);
}
END_TEST

START_TEST(numeric_for_as_lua) {
  kn_context *c = suite_context();
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  ck_assert(!luaL_loadstring(L, "return function(a, b, s) local n = 0 for i = a, b, s do n = n + 1 if n == "
                                "100 then break end end return n end"));
  ck_assert(!lua_pcall(L, 0, 1, 0));
  static const int64_t ends[] = {
      0, 1, -1, 5, -5, INT64_MAX, INT64_MAX - 1, INT64_MAX - 7, INT64_MIN, INT64_MIN + 1, INT64_MIN + 7};
  static const int64_t steps[] = {0, 1, -1, 2, -2, 3, INT64_MAX, INT64_MIN, INT64_MIN + 1};
  for (size_t i = 0; i < sizeof ends / 8; i++)
    for (int j = 0; j < NN; j++)
      for (size_t k = 0; k < sizeof steps / 8; k++) {
        kn_scalar in[3] = {I(ends[i]), number_at(j), I(steps[k])}, skip, count;
        kn_status st = kn_scalar_eval(c, KN_NODE_for_skip, in, 3, &skip);
        lua_pushvalue(L, 1);
        for (int m = 0; m < 3; m++) push(L, &in[m]);
        if (lua_pcall(L, 3, 1, 0)) {
          ck_assert_int_eq(st, KN_RAISED);
          ck_assert_str_eq(kn_error(c), "'for' step is zero");
        } else {
          OK(c, st);
          OK(c, kn_scalar_eval(c, KN_NODE_for_count, in, 3, &count));
          uint64_t trips = skip.as.b ? 0 : (uint64_t)count.as.i + 1;
          if (trips > 100 || (!skip.as.b && trips == 0)) trips = 100;
          ck_assert_msg(trips == (uint64_t)lua_tointeger(L, -1), "for %" PRId64 ", %g: %d trips, not %d",
                        ends[i], in[1].kind == KN_SCALAR_INT ? (double)in[1].as.i : in[1].as.f,
                        (int)lua_tointeger(L, -1), (int)trips);
        }
        lua_settop(L, 1);
      }
  lua_close(L);
  suite_done(c);
}
END_TEST

START_TEST(booleans_and_refusals) {
  kn_context *c = suite_context();
  kn_scalar r;
  OK(c, kn_scalar_eval(c, KN_NODE_lua_not, (kn_scalar[]){B(false)}, 1, &r));
  ck_assert(r.as.b);
  OK(c, kn_scalar_eval(c, KN_NODE_lua_eq, (kn_scalar[]){B(true), B(false)}, 2, &r));
  ck_assert(!r.as.b);
  OK(c, kn_scalar_eval(c, KN_NODE_select, (kn_scalar[]){B(false), I(1), F(2)}, 3, &r));
  ck_assert(r.kind == KN_SCALAR_FLOAT && r.as.f == 2);
  FAILS(c, KN_INTERNAL, "lua.add", kn_scalar_eval(c, KN_NODE_lua_add, (kn_scalar[]){B(true), I(1)}, 2, &r));
  FAILS(c, KN_INTERNAL, "for_skip",
        kn_scalar_eval(c, KN_NODE_for_skip, (kn_scalar[]){F(1), I(1), I(1)}, 3, &r));
  kn_vkind k;
  ck_assert(kn_scalar_result(KN_NODE_lua_add, (kn_vkind[]){KN_V_NUMBER, KN_V_INT}, 2, &k) &&
            k == KN_V_NUMBER);
  ck_assert(kn_scalar_result(KN_NODE_lua_add, (kn_vkind[]){KN_V_NUMBER, KN_V_FLOAT}, 2, &k) &&
            k == KN_V_FLOAT);
  ck_assert(kn_scalar_result(KN_NODE_lua_floor, (kn_vkind[]){KN_V_FLOAT}, 1, &k) && k == KN_V_NUMBER);
  ck_assert(!kn_scalar_result(KN_NODE_lua_lt, (kn_vkind[]){KN_V_BOOL, KN_V_BOOL}, 2, &k));
  suite_done(c);
}
END_TEST

/* ---- opcodes ---- */

START_TEST(opcodes_have_their_own_text) {
  for (unsigned i = 0; i < KN_OPCODE_COUNT; i++) {
    kn_opcode back;
    const char *text = kn_opcode_describe((kn_opcode)i).text;
    ck_assert_msg(kn_opcode_parse(text, strlen(text), &back) && back == i, "%s is two opcodes", text);
  }
  kn_opcode op;
  ck_assert(!kn_opcode_parse("add", 2, &op) && !kn_opcode_parse("", 0, &op) &&
            !kn_opcode_parse("nosuch", 6, &op));
  ck_assert_int_eq(kn_opcode_describe(KN_OP_rand).effect, KN_EFFECT);
  ck_assert_int_eq(kn_opcode_describe(KN_OP_gather).effect, KN_RAISES);
  ck_assert_int_eq(kn_opcode_describe(KN_OP_add).effect, KN_PURE);
  ck_assert_int_eq(kn_opcode_describe(KN_NODE_loop).nin, KN_VARIADIC);
}
END_TEST

/* ---- builder ---- */

typedef struct made {
  kn_context *c;
  kn_graph *g;
  kn_builder b;
} made;

static made start(void) {
  made m = {.c = suite_context()};
  OK(m.c, kn_graph_new(m.c, "g", &m.g));
  kn_builder_init(&m.b, m.c, m.g);
  return m;
}
static void stop(made *m) {
  kn_graph_release(m->g);
  suite_done(m->c);
}

static void prints(made *m, const char *want) {
  char *text;
  size_t len;
  OK(m->c, kn_graph_print(m->c, m->g, KN_TEXT_FULL, &text, &len));
  ck_assert_str_eq(text, want);
  kn_free(m->c->heap, text, len + 1);
}

START_TEST(builds_straight_line) {
  made m = start();
  kn_builder *b = &m.b;
  int64_t n = kn_symbol_intern(b, "N");
  ck_assert_int_eq(n, kn_symbol_intern(b, "N"));
  kn_vtype t = tensor_type(KN_F32, 2, n, 4);
  kn_value *x = kn_add_input(b, "x", &t);
  kn_value *s = kn_add_input(b, "s", &(kn_vtype){.kind = KN_V_FLOAT});
  b->where = kn_where_intern(b, "a.lua", 3, NULL);
  kn_node *y = kn_add_op(b, KN_OP_relu, NULL, &x, 1, NULL, 0);
  kn_value *k = kn_add_size(b, x, 0), *four = kn_add_size(b, x, 1);
  ck_assert(k->def->op == KN_NODE_size && four->def->op == KN_NODE_const && four->def->scalar.as.i == 4);
  kn_value *d = kn_add_scalar(b, KN_NODE_lua_mul, (kn_value *[]){k, four}, 2);
  ck_assert_int_eq(d->type.kind, KN_V_INT);
  kn_value_name(b, d, "count");
  kn_node *r = kn_add_op(b, KN_OP_reshape, &(kn_attrs_sizes){.sizes = {1, {KN_DYN(0)}}}, y->out, 1, &d, 1);
  ck_assert(r && r->nin == 2 && r->ntensor == 1);
  kn_value *st = kn_add_to_tensor(b, s, KN_F32);
  kn_node *z = kn_add_op(b, KN_OP_mul, NULL, (kn_value *[]){r->out[0], st}, 2, NULL, 0);
  ck_assert(kn_set_results(b, NULL, 0, &(kn_tree){.kind = KN_TREE_VALUE, .value = z->out[0]}, 1));
  OK(m.c, kn_graph_finish(b));
  FAILS(m.c, KN_STATE, "finished", kn_graph_finish(b));
  ck_assert(!kn_add_const(b, I(1)));
  prints(&m, "graph g(%x: float32[N,4], %s: float) {\n"
             "  %3: float32[N,4] = relu %x                                     ; a.lua:3\n"
             "  %4: integer = size %x {dim = 1}                                ; a.lua:3\n"
             "  %5 = const 4                                                   ; a.lua:3\n"
             "  %count: integer = lua.mul %4, %5                               ; a.lua:3\n"
             "  %7: float32[?] = reshape %3 {sizes = {%count}}                 ; a.lua:3\n"
             "  %8: float32[] = to_tensor %s                                   ; a.lua:3\n"
             "  %9: float32[?] = mul %7, %8                                    ; a.lua:3\n"
             "  return %9\n}\n");
  stop(&m);
}
END_TEST

START_TEST(builds_regions) {
  made m = start();
  kn_builder *b = &m.b;
  kn_vtype t = tensor_type(KN_F32, 1, 3, 0), u = tensor_type(KN_F32, 1, 2, 0), whole = {.kind = KN_V_INT};
  kn_value *x = kn_add_input(b, "x", &t), *y = kn_add_input(b, "y", &u),
           *c = kn_add_input(b, NULL, &(kn_vtype){.kind = KN_V_BOOL});
  kn_node *n = kn_add_if(b, c);
  b->at = n->regions[0];
  kn_value *one = kn_add_const(b, I(1));
  b->at = n->regions[1];
  kn_value *half = kn_add_const(b, F(0.5));
  b->at = m.g->body;
  kn_value *num = kn_if_output(b, n, NULL, "num", one, half), *ten = kn_if_output(b, n, NULL, "t", x, y);
  ck_assert_int_eq(num->type.kind, KN_V_NUMBER);
  ck_assert_int_eq(ten->type.tensor.dims[0], KN_DIM_UNKNOWN);
  kn_node *l = kn_add_loop(b);
  kn_value *zero = kn_add_const(b, I(0));
  kn_node_move_before(zero->def, l);
  kn_value *i = kn_loop_param(b, l, &whole, "i", zero);
  b->at = l->regions[0];
  kn_value *more = kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){i, num}, 2);
  kn_value *step = kn_add_const(b, I(1)),
           *next = kn_add_scalar(b, KN_NODE_lua_add, (kn_value *[]){i, step}, 2);
  b->at = m.g->body;
  ck_assert(kn_loop_finish(b, l, more, &next));
  kn_value *exit = kn_loop_output(b, l, NULL, "i", next);
  ck_assert(kn_value_inside(next, l->regions[0]) && kn_value_inside(next, m.g->body) &&
            !kn_value_inside(exit, l->regions[0]));
  kn_tree items[2] = {{.kind = KN_TREE_VALUE, .value = ten}, {.kind = KN_TREE_VALUE, .value = exit}};
  kn_tree keys[2] = {{.kind = KN_TREE_INT, .i = 1}, {.kind = KN_TREE_STRING, .text = "count", .n = 5}};
  kn_tree result = {.kind = KN_TREE_TABLE, .n = 2, .keys = keys, .items = items};
  ck_assert(kn_set_results(b, NULL, 0, &result, 1));
  OK(m.c, kn_graph_finish(b));
  prints(&m, "graph g(%x: float32[3], %y: float32[2], %3: boolean) {\n"
             "  %num: number, %t: float32[?] = if %3 {\n"
             "    %6 = const 1\n"
             "    yield %6, %x\n"
             "  } else {\n"
             "    %7 = const 0.5\n"
             "    yield %7, %y\n"
             "  }\n"
             "  %8 = const 0\n"
             "  %i.9: integer = loop (%i.10: integer = %8) {\n"
             "    %11: boolean = lua.lt %i.10, %num\n"
             "    %12 = const 1\n"
             "    %13: integer = lua.add %i.10, %12\n"
             "    continue_if %11 next(%13) exit(%13)\n"
             "  }\n"
             "  return {%t, count = %i.9}\n}\n");
  stop(&m);
}
END_TEST

/* The first failure sticks; each case says what is wrong. */
START_TEST(builder_refuses) {
  kn_vtype t = tensor_type(KN_F32, 2, 2, 3), u = tensor_type(KN_F32, 2, 4, 5),
           w = tensor_type(KN_I64, 2, 2, 3), real = {.kind = KN_V_FLOAT};
  for (int k = 0; k < 12; k++) {
    made m = start();
    kn_builder *b = &m.b;
    kn_value *x = kn_add_input(b, "x", &t), *y = kn_add_input(b, "y", &u), *s = kn_add_input(b, "s", &real),
             *v = kn_add_input(b, "v", &w);
    kn_value *c = kn_add_const(b, B(true));
    kn_node *n = k == 7 || k == 8 ? kn_add_if(b, c) : NULL;
    const char *want = "";
    switch (k) {
    case 0:
      kn_add_op(b, KN_OP_matmul, NULL, (kn_value *[]){x, y}, 2, NULL, 0);
      want = "matmul";
      break;
    case 1:
      kn_add_op(b, KN_OP_relu, NULL, &s, 1, NULL, 0);
      want = "relu: a tensor is needed (got float)";
      break;
    case 2:
      kn_add_scalar(b, KN_NODE_lua_add, (kn_value *[]){s, c}, 2);
      want = "lua.add: cannot take float, boolean";
      break;
    case 3:
      kn_add_size(b, x, 2);
      want = "dimension 3 of a tensor with 2";
      break;
    case 4:
      kn_add_item(b, x);
      want = "item: a tensor of one element is needed (got float32[2,3])";
      break;
    case 5:
      kn_add_select(b, s, s, s);
      want = "boolean";
      break;
    case 6:
      kn_add_if(b, s);
      want = "boolean";
      break;
    case 7:
      kn_if_output(b, n, NULL, "h", x, v);
      want = "h is float32[2,3] on one path and int64[2,3] on the other";
      break;
    case 8:
      kn_if_output(b, n, NULL, "h", x, s);
      want = "a value h is float32[2,3] on one path and float";
      break;
    case 9:
      kn_add_slot(b, KN_SLOT_PARAM, "w", &(kn_vtype){KN_V_TENSOR, {.rank = 1, .dims = {KN_DIM_UNKNOWN}}},
                  NULL);
      want = "slot w";
      break;
    case 10:
      kn_add_op(b, KN_OP_reshape, &(kn_attrs_sizes){.sizes = {1, {KN_DYN(0)}}}, &x, 1, &s, 1);
      want = "placeholder";
      break;
    case 11:
      b->budget = 1;
      kn_add_const(b, I(1));
      want = "more than 1 node";
      break;
    }
    ck_assert_msg(b->status != KN_OK && strstr(kn_error(m.c), want), "case %d: %s", k, kn_error(m.c));
    kn_status first = b->status;
    char sentence[KN_ERROR_SIZE];
    strcpy(sentence, kn_error(m.c));
    ck_assert_ptr_null(kn_add_const(b, I(1)));
    ck_assert_ptr_null(kn_add_size(b, x, 9));
    ck_assert(!kn_set_results(b, &x, 1, NULL, 0));
    ck_assert_int_eq(kn_graph_finish(b), first);
    ck_assert_str_eq(kn_error(m.c), sentence);
    stop(&m);
  }
}
END_TEST

START_TEST(names_slots_apart) {
  made m = start();
  kn_vtype whole = {.kind = KN_V_INT};
  ck_assert_str_eq(kn_add_slot(&m.b, KN_SLOT_STATE, "w", &whole, NULL)->name, "w");
  ck_assert_str_eq(kn_add_slot(&m.b, KN_SLOT_STATE, "w", &whole, NULL)->name, "w.2");
  ck_assert_str_eq(kn_add_slot(&m.b, KN_SLOT_STATE, "w", &whole, NULL)->name, "w.3");
  ck_assert_str_eq(kn_add_slot(&m.b, KN_SLOT_STATE,
                               "a\xff"
                               "b",
                               &whole, NULL)
                       ->name,
                   "a?b");
  stop(&m);
}
END_TEST

START_TEST(truncates_and_removes) {
  made m = start();
  kn_value *a = kn_add_const(&m.b, I(1)), *c = kn_add_const(&m.b, I(2)), *d = kn_add_const(&m.b, I(3));
  kn_node_remove(c->def);
  ck_assert(m.g->body->first == a->def && m.g->body->last == d->def && a->def->next == d->def);
  kn_node_move_before(d->def, a->def);
  ck_assert(m.g->body->first == d->def && m.g->body->last == a->def);
  kn_region_truncate(m.g->body, d->def);
  ck_assert(m.g->body->last == d->def && !d->def->next);
  kn_region_truncate(m.g->body, NULL);
  ck_assert(!m.g->body->first && !m.g->body->last);
  OK(m.c, kn_graph_finish(&m.b));
  stop(&m);
}
END_TEST

/* ---- verifier: one broken rule a case, in an otherwise good graph ---- */

START_TEST(verifier_refuses) {
  kn_vtype t = tensor_type(KN_F32, 1, 3, 0), whole = {.kind = KN_V_INT};
  for (int k = 0; k < 22; k++) {
    made m = start();
    kn_builder *b = &m.b;
    kn_value *x = kn_add_input(b, "x", &t), *c = kn_add_const(b, B(true)), *one = kn_add_const(b, I(1));
    kn_slot *slot = kn_add_slot(b, KN_SLOT_PARAM, "w", &t, NULL);
    kn_value *w = kn_add_slot_node(b, KN_NODE_param, slot);
    kn_node *y = kn_add_op(b, KN_OP_add, NULL, (kn_value *[]){x, w}, 2, NULL, 0);
    kn_node *r = kn_add_op(b, KN_OP_expand, &(kn_attrs_sizes){.sizes = {2, {KN_DYN(0), 3}}}, &x, 1, &one, 1);
    kn_node *n = kn_add_if(b, c);
    b->at = n->regions[0];
    kn_value *inner = kn_add_op(b, KN_OP_neg, NULL, &x, 1, NULL, 0)->out[0];
    b->at = m.g->body;
    kn_value *z = kn_if_output(b, n, NULL, NULL, inner, w);
    kn_node *l = kn_add_loop(b);
    kn_value *p = kn_loop_param(b, l, &whole, NULL, one);
    b->at = l->regions[0];
    kn_value *flag = kn_add_const(b, B(false));
    b->at = m.g->body;
    kn_loop_finish(b, l, flag, &p);
    kn_value *out = kn_loop_output(b, l, NULL, NULL, p);
    kn_value *outs[] = {y->out[0], r->out[0], z, out};
    kn_set_results(b, outs, 4, NULL, 0);
    OK(m.c, b->status);
    OK(m.c, kn_graph_verify(m.c, m.g, false));
    const char *want = "";
    switch (k) {
    case 0:
      y->in[0] = inner;
      want = "input 1 is not defined where it is used";
      break;
    case 1:
      kn_node_move_before(y, m.g->body->first);
      want = "not defined where it is used";
      break;
    case 2:
      y->out[0]->type.tensor.dims[0] = 4;
      want = "declared float32[4] but is float32[3]";
      break;
    case 3:
      y->nin = y->ntensor = 1;
      want = "add";
      break;
    case 4:
      y->in[1] = one;
      want = "input 2 is not a tensor";
      break;
    case 5:
      r->nin = 1;
      want = "do not match";
      break;
    case 6:
      n->regions[0]->nyields = 0;
      want = "yields one value per result";
      break;
    case 7:
      n->regions[0]->yields[0] = one;
      want = "first region";
      break;
    case 8:
      n->regions[1]->yields[0] = inner;
      want = "not defined there";
      break;
    case 9:
      l->regions[0]->yields[0] = p;
      want = "flag";
      break;
    case 10:
      l->regions[0]->yields[1] = flag;
      want = "for the next trip";
      break;
    case 11:
      l->nin = 0;
      want = "parameter per input";
      break;
    case 12:
      y->next = NULL;
      want = "last";
      break;
    case 13:
      slot->kind = KN_SLOT_STATE;
      want = "slot w is of kind state";
      break;
    case 14:
      slot->index = 7;
      want = "slot 1 is malformed";
      break;
    case 15:
      y->out[0]->id = r->out[0]->id;
      want = "no id of its own";
      break;
    case 16:
      m.g->body->yields[0] = inner;
      want = "result 1 is not defined";
      break;
    case 17:
      y->op = KN_OP_linear;
      want = "composite";
      break;
    case 18:
      x->type.tensor.dims[0] = KN_DIM_SYMBOL(5);
      want = "size without a name";
      break;
    case 19:
      x->index = 1;
      want = "not linked";
      break;
    case 20:
      y->op = KN_OPCODE_COUNT;
      want = "unknown opcode";
      break;
    case 21:
      y->op = KN_OP_copy_;
      want = "allowed";
      break;
    }
    if (k < 21) FAILS(m.c, KN_INTERNAL, want, kn_graph_verify(m.c, m.g, false));
    FAILS(m.c, KN_FORMAT, want, kn_graph_verify(m.c, m.g, true));
    stop(&m);
  }
}
END_TEST

START_TEST(verifier_limits_depth) {
  made m = start();
  kn_value *c = kn_add_input(&m.b, "c", &(kn_vtype){.kind = KN_V_BOOL});
  for (int i = 0; i < 201; i++) m.b.at = kn_add_if(&m.b, c)->regions[0];
  FAILS(m.c, KN_LIMIT, "nested more than 200 deep", kn_graph_finish(&m.b));
  stop(&m);
}
END_TEST

/* ---- recorder ---- */

/* Trips run again to walk `trips` of them back from their start with room for so many more checkpoints. */
static int64_t run_again(kn_context *c, int64_t trips, int64_t room) {
  int64_t kept[64] = {0}, n = 1, runs = 0;
  for (int64_t turn = trips - 1; turn >= 0; turn--) {
    int64_t at = kept[n - 1];
    while (at < turn) {
      kn_scalar after;
      OK(c, kn_scalar_eval(c, KN_NODE_checkpoint_after, (kn_scalar[]){I(turn - at), I(room + 1 - n)}, 2,
                           &after));
      ck_assert(after.as.i > 0 && after.as.i <= turn - at);
      runs += after.as.i;
      at += after.as.i;
      if (at < turn) kept[n++] = at;
      ck_assert(n <= room + 1);
    }
    if (kept[n - 1] == turn) n--;
  }
  return runs;
}

/* With room for s checkpoints more, C(s + r, r) trips are run at most r times again. */
START_TEST(checkpoints_are_where_they_cost_least) {
  kn_context *c = suite_context();
  for (int64_t room = 1; room <= 40; room = room * 2 + 1)
    for (int64_t trips = 1; trips <= 3000; trips = trips * 3 / 2 + 1) {
      int64_t r = 0, length = 1;
      while (length < trips) r++, length = length * (room + r) / r;
      int64_t runs = run_again(c, trips, room);
      ck_assert_msg(runs <= r * trips, "%d trips, room for %d: %d run, not at most %d times as many",
                    (int)trips, (int)room, (int)runs, (int)r);
    }
  ck_assert_int_eq(run_again(c, 10, 0), 45);
  suite_done(c);
}
END_TEST

START_TEST(records_ops) {
  made m = start();
  kn_builder *b = &m.b;
  kn_record r;
  kn_record_init(&r, b);
  m.c->recorder = &r.base;
  int64_t n = kn_symbol_intern(b, "N");
  kn_vtype t = tensor_type(KN_F32, 2, n, 2);
  kn_value *x = kn_add_input(b, "x", &t);
  kn_tensor *tx, *real, *ty, *tz, *tv, *tk;
  OK(m.c, kn_record_tensor(&r, x, &tx));
  kn_type two = {.dtype = KN_F32, .rank = 1, .dims = {2}};
  OK(m.c, kn_tensor_new(m.c, &two, &real));
  memset(kn_tensor_data(real), 0, 8);
  OK(m.c, kn_apply(m.c, KN_OP_add, NULL, (kn_tensor *[]){tx, real}, 2, &ty));
  OK(m.c, kn_apply(m.c, KN_OP_mul, NULL, (kn_tensor *[]){ty, real}, 2, &tz)); /* the same slot again */
  ck_assert_ptr_eq(ty->value, ((kn_value *)tz->value)->def->in[0]);
  kn_scalar size, item;
  OK(m.c, kn_size(m.c, tz, 1, &size));
  ck_assert(size.kind == KN_SCALAR_INT && size.as.i == 2);
  OK(m.c, kn_size(m.c, tz, 0, &size));
  ck_assert_int_eq(size.kind, KN_SCALAR_SYMBOL);
  int64_t place;
  OK(m.c, r.base.dynamic(&r.base, m.c, &size, &place));
  ck_assert(kn_is_dyn(place));
  OK(m.c, r.base.dynamic(&r.base, m.c, &size, &place));
  OK(m.c, kn_apply(m.c, KN_OP_reshape, &(kn_attrs_sizes){.sizes = {3, {place, KN_DYN(0), -1}}}, &tz, 1, &tv));
  kn_node *node = ((kn_value *)tv->value)->def;
  ck_assert(node->nin == 3 && ((kn_attrs_sizes *)node->attrs)->sizes.v[0] == KN_DYN(0));
  OK(m.c, kn_scalar_tensor(m.c, &size, KN_I64, &tk));
  kn_tensor *sum;
  OK(m.c, kn_apply(m.c, KN_OP_sum, &(kn_attrs_reduce){0}, &tz, 1, &sum));
  OK(m.c, kn_item(m.c, sum, &item));
  ck_assert(((kn_value *)item.as.value)->type.kind == KN_V_FLOAT);
  kn_scalar truth = {KN_SCALAR_BOOL, {.b = true}};
  FAILS(m.c, KN_ARG, "integer", r.base.dynamic(&r.base, m.c, &truth, &place));
  OK(m.c, b->status); /* such errors belong to the op, not to the graph */
  kn_value *outs[] = {tv->value, tk->value, item.as.value};
  kn_set_results(b, outs, 3, NULL, 0);
  OK(m.c, kn_graph_finish(b));
  prints(&m, "graph g(%x: float32[N,2]) {\n"
             "  slot param \"tensor.1\": float32[2]\n"
             "  %2 = param \"tensor.1\"\n"
             "  %3: float32[N,2] = add %x, %2\n"
             "  %4: float32[N,2] = mul %3, %2\n"
             "  %5: integer = size %4 {dim = 1}\n"
             "  %6: float32[?,?,?] = reshape %4 {sizes = {%5, %5, -1}}\n"
             "  %7: int64[] = to_tensor %5\n"
             "  %8: float32[] = sum %4\n"
             "  %9: float = item %8\n"
             "  return %6, %7, %9\n}\n");
  m.c->recorder = NULL;
  kn_record_free(&r);
  kn_tensor *all[] = {tx, real, ty, tz, tv, tk, sum};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) kn_tensor_release(all[i]);
  stop(&m);
}
END_TEST

/* A write gives the handle another value; views follow what they show, and writes through them reach it. */
START_TEST(records_writes) {
  made m = start();
  kn_builder *b = &m.b;
  kn_record r;
  kn_record_init(&r, b);
  m.c->recorder = &r.base;
  kn_vtype t = tensor_type(KN_F32, 2, 3, 4);
  kn_value *x = kn_add_input(b, "x", &t);
  kn_tensor *tx, *row, *turned, *one, *same, *alias;
  OK(m.c, kn_record_tensor(&r, x, &tx));
  OK(m.c, kn_apply(m.c, KN_OP_select, &(kn_attrs_select){.dim = 0, .index = 1}, &tx, 1, &row));
  OK(m.c, kn_apply(m.c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, &tx, 1, &turned));
  OK(m.c, kn_apply_inplace(m.c, KN_OP_neg, NULL, &row, 1, &same));
  ck_assert_ptr_eq(same, row);
  kn_value *put = tx->value;
  ck_assert(put != x && put->def->op == KN_OP_select_put && put->def->in[1] == row->value);
  kn_value *now = kn_record_value(&r, turned); /* derived again */
  ck_assert(now->def->op == KN_OP_transpose && now->def->in[0] == put);
  ck_assert_ptr_eq(kn_record_value(&r, turned), now);
  OK(m.c, kn_detach(m.c, turned, &alias));
  OK(m.c, kn_apply(m.c, KN_OP_full, &(kn_attrs_fill){.value = 1, .dtype = KN_F32}, NULL, 0, &one));
  OK(m.c, kn_apply(m.c, KN_OP_copy_, NULL, (kn_tensor *[]){alias, one}, 2, &same));
  const kn_node *kept = ((kn_value *)tx->value)->def; /* put back the way it was turned; the history stays */
  ck_assert(kept->op == KN_NODE_with_history && kept->in[0]->def->op == KN_OP_transpose &&
            kept->in[1] == put);
  ck_assert(kn_record_value(&r, row)->def->in[0] == tx->value);
  kn_record_forget(&r);
  ck_assert_uint_eq(r.handles.n, 0);
  OK(m.c, b->status);
  m.c->recorder = NULL;
  kn_record_free(&r);
  kn_tensor *all[] = {tx, row, row, turned, alias, alias, one};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) kn_tensor_release(all[i]);
  stop(&m);
}
END_TEST

/* Elements that share memory are not written to; where sizes do not say which do, that is said. */
START_TEST(records_what_may_not_be_written) {
  made m = start();
  kn_builder *b = &m.b;
  kn_record r;
  kn_record_init(&r, b);
  m.c->recorder = &r.base;
  kn_vtype t = tensor_type(KN_F32, 2, 3, 1);
  kn_tensor *tx, *wide, *open, *windows, *same;
  OK(m.c, kn_record_tensor(&r, kn_add_input(b, "x", &t), &tx));
  OK(m.c, kn_apply(m.c, KN_OP_expand, &(kn_attrs_sizes){.sizes = {2, {3, 4}}}, &tx, 1, &wide));
  FAILS(m.c, KN_ARG, "neg_: cannot write to an expanded tensor (dim 2 repeats one element)",
        kn_apply_inplace(m.c, KN_OP_neg, NULL, &wide, 1, &same));
  OK(m.c, kn_apply(m.c, KN_OP_unfold, &(kn_attrs_unfold){.dim = 0, .size = 2, .step = 1}, &tx, 1, &windows));
  FAILS(m.c, KN_ARG, "overlapping windows", kn_apply_inplace(m.c, KN_OP_neg, NULL, &windows, 1, &same));
  kn_vtype n = tensor_type(KN_F32, 1, kn_symbol_intern(b, "N"), 0);
  kn_tensor *tn;
  OK(m.c, kn_record_tensor(&r, kn_add_input(b, "n", &n), &tn));
  OK(m.c, kn_apply(m.c, KN_OP_unfold, &(kn_attrs_unfold){.dim = 0, .size = 2, .step = 1}, &tn, 1, &open));
  FAILS(m.c, KN_CAPTURE, "depends on sizes", kn_apply_inplace(m.c, KN_OP_neg, NULL, &open, 1, &same));
  m.c->recorder = NULL;
  kn_record_free(&r);
  kn_tensor *all[] = {tx, wide, open, windows, tn};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) kn_tensor_release(all[i]);
  stop(&m);
}
END_TEST

/* A real tensor first met inside a branch is read where every region sees it. */
START_TEST(records_outside_tensors_at_the_top) {
  made m = start();
  kn_builder *b = &m.b;
  kn_record r;
  kn_record_init(&r, b);
  m.c->recorder = &r.base;
  kn_vtype t = tensor_type(KN_F32, 1, 2, 0);
  kn_tensor *tx, *a, *c, *real[40];
  OK(m.c, kn_record_tensor(&r, kn_add_input(b, "x", &t), &tx));
  kn_value *flag = kn_add_input(b, "c", &(kn_vtype){.kind = KN_V_BOOL});
  kn_node *n = kn_add_if(b, flag);
  b->at = n->regions[0];
  for (int i = 0; i < 40; i++) { /* enough for the table to grow */
    OK(m.c, kn_tensor_new(m.c, &t.tensor, &real[i]));
    OK(m.c, kn_apply(m.c, KN_OP_add, NULL, (kn_tensor *[]){tx, real[i]}, 2, &a));
    if (i < 39) kn_tensor_release(a);
  }
  b->at = n->regions[1];
  OK(m.c, kn_apply(m.c, KN_OP_add, NULL, (kn_tensor *[]){tx, real[0]}, 2, &c));
  b->at = m.g->body;
  kn_value *v = kn_if_output(b, n, NULL, NULL, a->value, c->value);
  kn_set_results(b, &v, 1, NULL, 0);
  OK(m.c, kn_graph_finish(b));
  ck_assert_uint_eq(m.g->nslots, 40);
  m.c->recorder = NULL;
  kn_record_free(&r);
  for (int i = 0; i < 40; i++) kn_tensor_release(real[i]);
  kn_tensor_release(tx);
  kn_tensor_release(a);
  kn_tensor_release(c);
  stop(&m);
}
END_TEST

SUITE("graph", numbers_as_lua, numeric_for_as_lua, booleans_and_refusals, opcodes_have_their_own_text,
      builds_straight_line, builds_regions, builder_refuses, names_slots_apart, truncates_and_removes,
      verifier_refuses, verifier_limits_depth, checkpoints_are_where_they_cost_least, records_ops,
      records_writes, records_what_may_not_be_written, records_outside_tensors_at_the_top)
