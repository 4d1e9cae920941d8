/* Every row of the op table as kiln.name, tensor:name, operator and in-place form: one C closure for all,
 * with the row as its upvalue. Ops whose arguments or results differ from their row (max, comparisons) stand
 * at the end. */
#include "bindings/lua/args.h"
#include <stdio.h>
#include <string.h>

/* ---- the closure ---- */

/* What a closure is made with, so that a call has to look up nothing. Upvalues: 1 its address, 2 the
 * metatable of tensors. All of them lie in one userdata that the registry keeps. */
typedef struct op_call {
  kl_state *state;
  const kn_op_info *row;
  const char *name; /* as the user writes it */
  kn_op op;
  bool inplace;
  kn_op form; /* the row that it is when more is given; KN_OP_COUNT: none */
  bool plain; /* takes nothing but a fixed number of tensors, or numbers for them */
} op_call;

static const char calls_key; /* registry: op_call[2][KN_OP_COUNT], the second ones in place */

static int call_op(lua_State *L);

static op_call *call_of(lua_State *L, kn_op op, bool inplace) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &calls_key);
  op_call *calls = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return &calls[inplace ? KN_OP_COUNT + op : op];
}

static void push_closure(lua_State *L, kn_op op, bool inplace, lua_CFunction f) {
  lua_pushlightuserdata(L, call_of(L, op, inplace));
  kl_push_tensor_metatable(L);
  lua_pushcclosure(L, f, 2);
}

static const op_call *this_call(lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }

/* Arguments that are what the row takes, tensors all of them, need no reading. */
static bool all_tensors(lua_State *L, const op_call *c, int top, kn_tensor **in) {
  if (!c->plain || top != c->row->max_in) return false;
  for (int i = 0; i < top; i++) {
    kl_box *box = kl_box_at(c->state, L, i + 1);
    if (!box || !box->tensor) return false;
    in[i] = box->tensor;
  }
  return true;
}

/* Which of its two rows a call means: that of the op, unless there are more tensors than it takes, fewer than
 * it needs, or an option where it has none. */
static kn_op meant(lua_State *L, const op_call *c, int top) {
  int tensors = 0;
  if (c->form == KN_OP_COUNT || (top <= c->row->max_in && c->row->flags & KN_FLAG_SCALARS)) return c->op;
  for (int i = 1; i <= top; i++) tensors += kl_test_tensor(L, i) != NULL;
  bool options = c->row->attrs == KN_ATTRS_none && top > c->row->max_in;
  bool fewer = !(c->row->flags & KN_FLAG_SCALARS) && tensors < c->row->min_in;
  return tensors > c->row->max_in || options || fewer ? c->form : c->op;
}

static kn_status read_and_apply(lua_State *L, const op_call *c, int top, kn_tensor **out) {
  kl_args a;
  KN_TRY(kl_args_read(&a, L, c->state->ctx, meant(L, c, top), c->name, 1, top));
  kn_status st = kl_args_apply(&a, c->inplace, out);
  kl_args_done(&a);
  return st;
}

/* Userdata for the results come first, so that nothing is owned where Lua may raise. */
static int apply(lua_State *L, const op_call *c) {
  kl_state *s = c->state;
  int top = lua_gettop(L), outs = c->row->outs;
  kn_tensor *out[KN_MAX_OUTPUTS], *in[3];
  kl_box *box[KN_MAX_OUTPUTS];
  if (!kl_usable(s)) kl_state_of(L);
  if (s->boxes->ndead) kl_bury(s);
  for (int i = 0; i < outs; i++) {
    box[i] = kl_new_box(L, s);
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_setmetatable(L, -2);
  }
  bool read = !all_tensors(L, c, top, in);
  kn_status st = read         ? read_and_apply(L, c, top, out)
                 : c->inplace ? kn_apply_inplace(s->ctx, c->op, NULL, in, top, out)
                              : kn_apply(s->ctx, c->op, NULL, in, top, out);
  kl_check(L, st);
  if (out[0] == (read ? kl_test_tensor(L, 1) : in[0])) { /* the same tensor, so the same userdata */
    kn_tensor_release(out[0]);
    lua_settop(L, 1);
    return 1;
  }
  for (int i = 0; i < outs; i++) box[i]->tensor = out[i];
  kl_tell_of(L, s);
  return outs;
}

/* Lists longer than one op takes: groups of them, then the results. What they share is their dim, which the
 * results of the groups have too; so those of `stack` are joined by `cat`. The groups go through the closure
 * of the op again. */
static int call_groups(lua_State *L, kn_op op) {
  int top = lua_gettop(L), results = top + 1;
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1), at = 0;
  lua_createtable(L, (int)(n / KN_MAX_INPUTS + 1), 0);
  for (int group = 1; at < n; group++) {
    push_closure(L, op, false, call_op);
    lua_createtable(L, KN_MAX_INPUTS, 0);
    for (int i = 1; i <= KN_MAX_INPUTS && at < n; i++) {
      lua_rawgeti(L, 1, ++at);
      lua_rawseti(L, -2, i);
    }
    for (int i = 2; i <= top; i++) lua_pushvalue(L, i);
    lua_call(L, top, 1);
    lua_rawseti(L, results, group);
  }
  lua_replace(L, 1); /* the results take the place of the list */
  op = op == KN_OP_stack ? KN_OP_cat : op;
  push_closure(L, op, false, call_op);
  lua_insert(L, 1);
  lua_call(L, top, 1);
  return 1;
}

static int call_op(lua_State *L) {
  const op_call *c = this_call(L);
  bool list = c->row->max_in == KN_VARIADIC && lua_type(L, 1) == LUA_TTABLE;
  if (list && lua_rawlen(L, 1) > KN_MAX_INPUTS) return call_groups(L, c->op);
  return apply(L, c);
}

/* Lua hands unary operators their operand twice. */
static int call_unary(lua_State *L) {
  lua_settop(L, 1);
  return apply(L, this_call(L));
}

static int call_inplace(lua_State *L) { return apply(L, this_call(L)); }

/* ---- comparisons as operators ---- */

/* item(), whose error says what compares more elements. */
static kn_status one_boolean(kn_context *ctx, kn_tensor *r, kn_op op, const char *symbol, kn_scalar *out) {
  char name[48];
  snprintf(name, sizeof name, "%s (a:%s(b) compares element by element)", symbol, kn_op_name(op));
  const kn_within compare = {name, ctx->within}, part = {KN_UNNAMED, &compare};
  ctx->within = &part;
  kn_status st = kn_item(ctx, r, out);
  ctx->within = compare.up;
  if (st == KN_OK) return st;
  if (st == KN_SHAPE) kn_error_unname(ctx, "item");
  if (st == KN_SHAPE) kn_error_prefix(ctx, "%s", name);
  return st;
}

/* Lua makes a boolean of the result, so it must be one element. */
static int compare(lua_State *L, kn_op op, const char *symbol) {
  kn_context *ctx = kl_context(L);
  kl_args a;
  kn_tensor *r = NULL;
  kn_scalar s;
  kn_status st = kl_args_read(&a, L, ctx, op, symbol, 1, 2);
  if (st == KN_OK) {
    st = kn_apply(ctx, op, NULL, a.in, a.n, &r);
    kl_args_done(&a);
  }
  if (st == KN_OK) {
    st = one_boolean(ctx, r, op, symbol, &s);
    kn_tensor_release(r);
  }
  kl_check(L, st);
  if (s.kind == KN_SCALAR_SYMBOL && !ctx->recorder) /* of a graph that is built by hand: Lua would say true */
    return kl_error(
        L, KN_CAPTURE,
        "%s: the truth of a comparison is known only when the graph runs; a:%s(b) gives a tensor, "
        "kiln.cond chooses by it",
        symbol, kn_op_name(op));
  kl_push_scalar(L, &s);
  return 1;
}

static int less(lua_State *L) { return compare(L, KN_OP_lt, "<"); }
static int less_equal(lua_State *L) { return compare(L, KN_OP_le, "<="); }

/* ---- max, min ---- */

typedef struct extreme {
  const char *name;
  kn_op reduce, position, pairwise;
} extreme;

static int call_with(lua_State *L, kn_op op) {
  push_closure(L, op, false, call_op);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

/* The elements at the positions, so that the gradient goes to one of equal elements. */
static kn_status extreme_along(kn_context *ctx, const extreme *e, kn_tensor *x, int64_t dim, bool keepdim,
                               kn_tensor **values, kn_tensor **positions) {
  kn_attrs_argreduce at = {.dim = dim, .keepdim = true};
  kn_attrs_axis along = {.dim = dim};
  kn_attrs_optional_axis drop = {.dim = dim};
  kn_tensor *v = NULL, *p = NULL, *v2 = NULL, *p2 = NULL;
  kn_status st = kn_apply(ctx, e->position, &at, &x, 1, &p);
  if (st == KN_OK) st = kn_apply(ctx, KN_OP_gather, &along, (kn_tensor *[]){x, p}, 2, &v);
  if (st == KN_OK && !keepdim) {
    st = kn_apply(ctx, KN_OP_squeeze, &drop, &v, 1, &v2);
    if (st == KN_OK) st = kn_apply(ctx, KN_OP_squeeze, &drop, &p, 1, &p2);
    kn_tensor_release(v);
    kn_tensor_release(p);
    v = v2;
    p = p2;
  }
  if (st == KN_OK) {
    *values = v;
    *positions = p;
  } else {
    kn_tensor_release(v);
    kn_tensor_release(p);
  }
  return st;
}

/* x:max() all; x:max(dim [, keepdim]) values and positions; x:max(y) the larger of each pair. A Lua integer
 * is a dim, a tensor or a Lua float is the other operand. */
static int call_extreme(lua_State *L, const extreme *e) {
  kn_context *ctx = kl_context(L);
  kn_scalar s;
  if (kl_test_tensor(L, 2) || (lua_type(L, 2) == LUA_TNUMBER && !lua_isinteger(L, 2)) ||
      (lua_type(L, 2) == LUA_TUSERDATA && kl_test_scalar(L, 2, &s)))
    return call_with(L, e->pairwise);
  if (lua_isnoneornil(L, 2)) {
    lua_settop(L, 1);
    return call_with(L, e->reduce);
  }
  kl_args a;
  int top = lua_gettop(L);
  kn_tensor **values = kl_reserve_tensor(L), **positions = kl_reserve_tensor(L);
  kn_tensor *v = NULL, *p = NULL;
  kn_status st = kl_args_read(&a, L, ctx, e->position, e->name, 1, top);
  if (st == KN_OK) {
    st = a.attrs.argreduce.dim == KN_NONE
             ? kn_fail(ctx, KN_ARG, "%s: dim is missing", e->name)
             : extreme_along(ctx, e, a.in[0], a.attrs.argreduce.dim, a.attrs.argreduce.keepdim, &v, &p);
    if (st != KN_OK && a.attrs.argreduce.dim != KN_NONE) kn_error_prefix(ctx, "%s", e->name);
    kl_args_done(&a);
  }
  kl_check(L, st);
  kl_put_tensor(positions, p);
  kl_fill_tensor(L, values, v);
  return 2;
}

static int call_max(lua_State *L) {
  static const extreme e = {"max", KN_OP_amax, KN_OP_argmax, KN_OP_maximum};
  return call_extreme(L, &e);
}

static int call_min(lua_State *L) {
  static const extreme e = {"min", KN_OP_amin, KN_OP_argmin, KN_OP_minimum};
  return call_extreme(L, &e);
}

/* ---- registration ---- */

static bool has_inplace(kn_op op) {
  const kn_op_info *row = &kn_ops[op];
  if (row->op_class == KN_CLASS_ELEMENTWISE)
    return op != KN_OP_where && op != KN_OP_cast && op != KN_OP_clone;
  if (row->infer == kn_infer_scan || row->infer == kn_infer_triangle) return true;
  if (row->op_class == KN_CLASS_INDEX && row->min_in == 3) return true; /* what is put into x, at an index */
  if (row->attrs == KN_ATTRS_addmm) return true;
  if (row->op_class != KN_CLASS_COMPOSITE || row->min_in == 0 || strstr(row->name, "_like")) return false;
  bool one = row->max_in == 1 || (row->flags & KN_FLAG_SCALARS) || row->attrs == KN_ATTRS_value;
  return one &&
         (row->attrs == KN_ATTRS_none || row->attrs == KN_ATTRS_value || row->attrs == KN_ATTRS_dropout ||
          row->attrs == KN_ATTRS_slope || row->attrs == KN_ATTRS_rounding ||
          row->attrs == KN_ATTRS_decimals || row->attrs == KN_ATTRS_alpha ||
          row->attrs == KN_ATTRS_hardtanh || row->attrs == KN_ATTRS_threshold);
}

/* The closure on top becomes a function of the module (below it) and a method; it is popped. */
static void add_function(lua_State *L, const char *name, bool method) {
  kl_mark_engine(L, -1);
  if (method) {
    kl_push_methods(L);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
  }
  lua_setfield(L, -2, name);
}

/* kiln.linalg: the functions of the rows that say so, the same ones; the module is on top. */
static void add_linalg(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; i < KN_OP_COUNT; i++) {
    if (!(kn_ops[i].flags & KN_FLAG_LINALG)) continue;
    lua_getfield(L, -2, kn_ops[i].name);
    lua_setfield(L, -2, kn_ops[i].name);
  }
  lua_setfield(L, -2, "linalg");
}

/* The same functions under another name. */
static void add_alias(lua_State *L, const kn_op_alias *a) {
  const kn_op_info *row = &kn_ops[a->op];
  char from[64], to[64];
  lua_getfield(L, -1, row->name);
  add_function(L, a->name, row->min_in > 0 && row->max_in != KN_VARIADIC);
  if (!has_inplace(a->op)) return;
  snprintf(from, sizeof from, "%s_", row->name);
  snprintf(to, sizeof to, "%s_", a->name);
  lua_getfield(L, -1, from);
  add_function(L, to, true);
}

static void add_operator(lua_State *L, kn_op op) {
  const kn_op_info *row = &kn_ops[op];
  kl_push_tensor_metatable(L);
  push_closure(L, op, false, row->max_in == 1 ? call_unary : call_op);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, row->metamethod);
  lua_pop(L, 1);
}

/* Names of in-place forms lie behind the calls. */
static void make_calls(lua_State *L) {
  enum { NAME = 48 };
  size_t calls = 2 * KN_OP_COUNT * sizeof(op_call);
  op_call *c = lua_newuserdatauv(L, calls + (size_t)KN_OP_COUNT * NAME, 0);
  char *names = (char *)c + calls;
  for (int i = 0; i < 2 * KN_OP_COUNT; i++) {
    bool inplace = i >= KN_OP_COUNT;
    kn_op op = (kn_op)(i % KN_OP_COUNT);
    const kn_op_info *row = &kn_ops[op];
    bool fixed = row->min_in == row->max_in && row->max_in > 0 && row->max_in <= 3;
    char *name = names + (size_t)op * NAME;
    snprintf(name, NAME, "%s_", row->name);
    c[i] = (op_call){.state = kl_state_of(L),
                     .row = row,
                     .name = inplace ? name : row->name,
                     .op = op,
                     .inplace = inplace,
                     .form = kn_op_form(op),
                     .plain = fixed && row->attrs == KN_ATTRS_none};
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &calls_key);
}

void kl_open_ops(lua_State *L) {
  make_calls(L);
  for (int i = 0; i < KN_OP_COUNT; i++) {
    const kn_op_info *row = &kn_ops[i];
    push_closure(L, (kn_op)i, false, call_op);
    add_function(L, row->name, row->min_in > 0 && row->max_in != KN_VARIADIC);
    if (row->metamethod[0]) add_operator(L, (kn_op)i);
    if (has_inplace((kn_op)i)) {
      char name[64];
      snprintf(name, sizeof name, "%s_", row->name);
      push_closure(L, (kn_op)i, true, call_inplace);
      add_function(L, name, true);
    }
  }
  for (const kn_op_alias *a = kn_op_aliases; a->name; a++) add_alias(L, a);
  add_linalg(L);
  static const luaL_Reg extremes[] = {{"max", call_max}, {"min", call_min}, {NULL, NULL}};
  kl_set_methods(L, extremes, true, true);
  kl_push_tensor_metatable(L);
  static const luaL_Reg orders[] = {{"__lt", less}, {"__le", less_equal}, {NULL, NULL}};
  kl_set_engine_functions(L, orders);
  lua_pop(L, 1);
}
