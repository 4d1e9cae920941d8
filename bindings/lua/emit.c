/* kiln.cond and kiln.while_loop where a graph is being written: their functions are captured, so that both
 * sides are seen, and put into it as regions. Run eagerly, or captured themselves, they are Lua
 * (lua/kiln/cond.lua, while_loop.lua). */
#include "bindings/lua/emit.h"
#include "bindings/lua/graph_parts.h"
#include "core/grad/tape.h"
#include "graph/inline.h"
#include <stdlib.h>
#include <string.h>

enum { MOST = 60 }; /* arguments, results */

bool kl_find_emitter(lua_State *L, int first, int last, kl_emitter *out) {
  return kl_trace_emitter(L, out) || kl_builder_emitter(L, first, last, out);
}

typedef struct part { /* a function as a region */
  kn_graph *graph;
  kc_outer outer;
  kn_value *out[2 * MOST];
} part;

typedef struct flow {
  lua_State *L;
  kl_emitter e;
  const char *name;
  int first, n; /* arguments on the stack */
  kn_value *value[MOST];
  kc_arg arg[MOST];
} flow;

/* ---- arguments ---- */

static void describe(flow *f, int i, const kn_vtype *type) {
  kc_arg *a = &f->arg[i];
  const kn_graph *g = f->e.b->graph;
  *a = (kc_arg){.kind = KC_ARG_SPEC, .type = *type};
  for (int d = 0; type->kind == KN_V_TENSOR && d < type->tensor.rank; d++) {
    uint64_t k = kn_dim_symbol_of(type->tensor.dims[d]);
    if (kn_dim_known(type->tensor.dims[d])) continue;
    a->type.tensor.dims[d] = KN_DIM_UNKNOWN;
    if (type->tensor.dims[d] != KN_DIM_UNKNOWN && k < g->nsymbols) a->sizes[d] = g->symbols[k];
  }
}

static void read_arguments(flow *f) {
  lua_State *L = f->L;
  if (f->n > MOST) kl_error(L, KN_LIMIT, "%s: more than %d values", f->name, MOST);
  for (int i = 0; i < f->n; i++) {
    int idx = f->first + i;
    kn_scalar s;
    kn_tensor *t = kl_test_tensor(L, idx);
    if (t)
      f->value[i] = f->e.value(f->e.ud, t);
    else if (kl_test_scalar(L, idx, &s))
      f->value[i] = kn_add_const(f->e.b, s);
    else if (lua_isnil(L, idx) || lua_type(L, idx) == LUA_TSTRING) {
      f->arg[i] = (kc_arg){.kind = KC_ARG_BY_VALUE};
      continue;
    } else
      kl_error(
          L, KN_ARG,
          "%s: value %d is %s; tensors and numbers are given, what else the functions need they reach by "
          "themselves",
          f->name, i + 1, kl_kind(L, idx));
    kl_check(L, f->e.b->status);
    describe(f, i, &f->value[i]->type);
  }
}

/* ---- a function as a region ---- */

static int part_gc(lua_State *L) {
  part *p = lua_touserdata(L, 1);
  kn_graph_release(p->graph);
  p->graph = NULL;
  return 0;
}

/* Freed with the userdata that is left on the stack. */
static part *capture_part(flow *f, int func) {
  lua_State *L = f->L;
  kn_context *ctx = kl_context(L);
  kl_load_files(L);
  luaL_checkstack(L, f->n + 20, "capture");
  part *p = lua_newuserdatauv(L, sizeof *p, 0);
  memset(p, 0, sizeof *p);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, part_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  kn_recorder *recorder = ctx->recorder;
  ctx->recorder = NULL;
  kn_status st = kc_capture_part(L, kl_host(), func, f->first, f->n, f->arg, &p->outer, &p->graph);
  ctx->recorder = recorder;
  if (st != KN_OK) { /* begins with its place */
    lua_pushstring(L, kn_error(ctx));
    lua_error(L);
  }
  return p;
}

static kn_value *slot_value(void *ud, const kn_slot *s) {
  flow *f = ud;
  if (s->tensor) return f->e.value(f->e.ud, s->tensor);
  kl_error(f->L, KN_CAPTURE, "%s: '%s' is a number kept outside; give it as an argument", f->name, s->name);
  return NULL;
}

/* Its results, at where the builder stands, for these values. */
static void place_part(flow *f, part *p, kn_value *const *values) {
  lua_State *L = f->L;
  kn_value *in[2 * MOST + 8];
  uint32_t n = 0;
  for (int i = 0; i < f->n; i++)
    if (f->arg[i].kind == KC_ARG_SPEC) in[n++] = values[i];
  for (uint32_t i = 0; i < p->outer.n; i++) in[n++] = p->outer.value[i];
  for (uint32_t i = 0; i < p->outer.n; i++)
    if (((kn_value *)p->outer.value[i])->region->graph != f->e.b->graph)
      kl_error(L, KN_CAPTURE, "%s: a symbol of another graph is used", f->name);
  if (p->graph->body->nyields > 2 * MOST) kl_error(L, KN_LIMIT, "%s: too many results", f->name);
  kn_inlining x = {
      .b = f->e.b, .graph = p->graph, .in = in, .out = p->out, .slot = slot_value, .ud = f, .name = f->name};
  kl_check(L, kn_inline(&x));
}

/* ---- results ---- */

static kn_value *leaf_value(flow *f, const part *p, const kn_tree *t, kn_region *r) {
  kn_builder *b = f->e.b;
  kn_region *at = b->at;
  kn_value *v = NULL;
  b->at = r;
  if (t->kind == KN_TREE_VALUE) v = p->out[t->i];
  if (t->kind == KN_TREE_INT) v = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = t->i}});
  if (t->kind == KN_TREE_FLOAT) v = kn_add_const(b, (kn_scalar){KN_SCALAR_FLOAT, {.f = t->f}});
  if (t->kind == KN_TREE_BOOL) v = kn_add_const(b, (kn_scalar){KN_SCALAR_BOOL, {.b = t->i != 0}});
  b->at = at;
  return v;
}

static bool same_constant(const kn_tree *a, const kn_tree *b) {
  if (a->kind != b->kind || a->kind == KN_TREE_VALUE || kn_tree_has_items(a->kind) ||
      a->kind == KN_TREE_AGAIN)
    return false;
  if (a->kind == KN_TREE_STRING) return a->n == b->n && !memcmp(a->text, b->text, a->n);
  return a->kind == KN_TREE_FLOAT ? !memcmp(&a->f, &b->f, sizeof a->f)
                                  : a->kind == KN_TREE_NIL || a->i == b->i;
}

/* The symbol, or, where ops run, a copy of the real result at `real` that is known to hold v. */
static void push_value(flow *f, kn_value *v, int real) {
  lua_State *L = f->L;
  kn_context *ctx = kl_context(L);
  kl_check(L, f->e.b->status);
  if (!f->e.define) {
    kl_push_graph_value(L, ctx, v);
    return;
  }
  kn_tensor *t = kl_test_tensor(L, real), *copy;
  if (!t || v->type.kind != KN_V_TENSOR)
    kl_error(L, KN_CAPTURE,
             "%s: a result is %s that depends on the branch taken; in a traced function results are tensors",
             f->name, kl_kind(L, real));
  kn_tensor **slot = kl_reserve_tensor(L);
  kn_recorder *recorder = ctx->recorder;
  ctx->recorder = NULL;
  kn_status st = kn_apply(ctx, KN_OP_clone, NULL, &t, 1, &copy);
  ctx->recorder = recorder;
  kl_check(L, st);
  kl_put_tensor(slot, copy);
  if (kn_requires_grad(copy)) f->e.opaque(f->e.ud);
  kl_check(L, f->e.define(f->e.ud, copy, v));
}

static void push_joined(flow *f, kn_node *n, const part *p, const part *q, const kn_tree *a, const kn_tree *b,
                        int real);

static const kn_tree *item_of(const kn_tree *t, const kn_tree *key) {
  for (uint32_t i = 0; i < t->n; i++)
    if (same_constant(&t->keys[i], key)) return &t->items[i];
  return NULL;
}

static void push_joined_table(flow *f, kn_node *n, const part *p, const part *q, const kn_tree *a,
                              const kn_tree *b, int real) {
  lua_State *L = f->L;
  luaL_checkstack(L, 10, "nested results");
  lua_createtable(L, 0, (int)a->n);
  int made = lua_gettop(L);
  for (uint32_t i = 0; i < a->n; i++) {
    const kn_tree *other = item_of(b, &a->keys[i]);
    if (!other || a->n != b->n)
      kl_error(L, KN_CAPTURE, "%s: a table given back has other keys on one path than on the other", f->name);
    kl_push_constant(L, &a->keys[i]);
    kl_push_constant(L, &a->keys[i]);
    if (real) lua_gettable(L, real);
    push_joined(f, n, p, q, &a->items[i], other, lua_gettop(L));
    lua_remove(L, -2);
    lua_settable(L, made);
  }
}

static void push_joined(flow *f, kn_node *n, const part *p, const part *q, const kn_tree *a, const kn_tree *b,
                        int real) {
  lua_State *L = f->L;
  if (a->kind == KN_TREE_TABLE && b->kind == KN_TREE_TABLE) {
    push_joined_table(f, n, p, q, a, b, f->e.define ? real : 0);
    return;
  }
  if (same_constant(a, b)) {
    kl_push_constant(L, a);
    return;
  }
  kn_value *x = leaf_value(f, p, a, n->regions[0]), *y = leaf_value(f, q, b, n->regions[1]);
  if (!x || !y)
    kl_error(L, KN_CAPTURE, "%s: a result is of one kind on one path and of another on the other", f->name);
  kn_value *v = kn_if_output(f->e.b, n, NULL, NULL, x, y);
  if (!v) kn_error_prefix(kl_context(L), "%s", f->name);
  push_value(f, v, real);
}

/* ---- conditions ---- */

static kn_value *condition(flow *f, kn_value *v) {
  kn_builder *b = f->e.b;
  if (v && v->type.kind == KN_V_TENSOR) {
    if (v->type.tensor.dtype != KN_BOOL) {
      kn_attrs_cast to = {.dtype = KN_BOOL};
      kn_node *n = kn_add_op(b, KN_OP_cast, &to, &v, 1, NULL, 0);
      v = n ? n->out[0] : NULL;
    }
    v = v ? kn_add_item(b, v) : NULL;
  }
  if (b->status != KN_OK) kn_error_prefix(b->ctx, "%s", f->name);
  kl_check(f->L, b->status);
  if (v->type.kind != KN_V_BOOL)
    kl_error(f->L, KN_ARG, "%s: the condition must be a boolean or a tensor of one element", f->name);
  return v;
}

/* Runs the function at func for real on the arguments; results follow the top. */
static int run_real(flow *f, int func) {
  lua_State *L = f->L;
  kn_context *ctx = kl_context(L);
  int top = lua_gettop(L);
  lua_pushvalue(L, func);
  for (int i = 0; i < f->n; i++) lua_pushvalue(L, f->first + i);
  kn_recorder *recorder = ctx->recorder;
  ctx->recorder = NULL;
  int rc = lua_pcall(L, f->n, LUA_MULTRET, 0);
  ctx->recorder = recorder;
  if (rc != LUA_OK) lua_error(L);
  return top + 1;
}

static void set_place(lua_State *L, kn_builder *b) {
  char text[LUA_IDSIZE + 32], *colon;
  kl_write_where(L, text, sizeof text);
  b->where = NULL;
  if (!(colon = strrchr(text, ':'))) return;
  *colon = 0;
  b->where = kn_where_intern(b, text, atoi(colon + 1), NULL);
}

/* emit_cond(pred, f, g, …) */
static int emit_cond(lua_State *L) {
  flow f = {.L = L, .name = "cond", .first = 4, .n = lua_gettop(L) - 3};
  int top = lua_gettop(L);
  kn_scalar s;
  if (!kl_find_emitter(L, 1, top, &f.e)) return kl_error(L, KN_STATE, "cond: no graph is being written");
  luaL_checkstack(L, 2 * f.n + 40, "cond");
  kn_tensor *t = kl_test_tensor(L, 1);
  bool truth = false;
  if (f.e.define && t) { /* which side runs now */
    kn_scalar now;
    kl_check(L, kn_scalar_of(kl_context(L), t, &now));
    truth = now.kind == KN_SCALAR_FLOAT  ? now.as.f != 0
            : now.kind == KN_SCALAR_BOOL ? now.as.b
                                         : now.as.i != 0;
    if (kn_tensor_numel(t) != 1) return kl_error(L, KN_SHAPE, "cond: the condition must have one element");
  } else if (lua_isboolean(L, 1)) { /* known: nothing to choose */
    lua_pushvalue(L, lua_toboolean(L, 1) ? 2 : 3);
    for (int i = 0; i < f.n; i++) lua_pushvalue(L, f.first + i);
    lua_call(L, f.n, LUA_MULTRET);
    return lua_gettop(L) - top;
  } else if (!t && !(kl_test_scalar(L, 1, &s) && s.kind == KN_SCALAR_SYMBOL))
    return kl_error(L, KN_ARG, "cond: the condition must be a boolean or a tensor of one element, got %s",
                    kl_kind(L, 1));
  set_place(L, f.e.b);
  read_arguments(&f);
  kn_builder *b = f.e.b;
  kn_region *at = b->at;
  kn_value *pred = condition(&f, t ? f.e.value(f.e.ud, t) : s.as.value);
  part *p = capture_part(&f, 2), *q = capture_part(&f, 3);
  if (p->graph->nresults != q->graph->nresults)
    return kl_error(L, KN_CAPTURE, "cond: %u results when the condition is true, %u when it is false",
                    p->graph->nresults, q->graph->nresults);
  kn_node *n = kn_add_if(b, pred);
  kl_check(L, b->status);
  b->at = n->regions[0];
  place_part(&f, p, f.value);
  b->at = n->regions[1];
  place_part(&f, q, f.value);
  b->at = at;
  int real = f.e.define ? run_real(&f, truth ? 2 : 3) : 0, base = lua_gettop(L);
  for (uint32_t i = 0; i < p->graph->nresults; i++)
    push_joined(&f, n, p, q, &p->graph->results[i], &q->graph->results[i], real ? real + (int)i : 0);
  kl_check(L, b->status);
  return lua_gettop(L) - base;
}

/* ---- loops ---- */

/* One try with these types; true when the body's results fit, else the types are widened. */
static bool try_loop(flow *f, kn_vtype *types, kn_value **outs) {
  lua_State *L = f->L;
  kn_builder *b = f->e.b;
  kn_region *at = b->at;
  kn_value *params[MOST], *next[MOST];
  kn_node *n = kn_add_loop(b);
  for (int i = 0; i < f->n; i++) {
    params[i] = kn_loop_param(b, n, &types[i], NULL, f->value[i]);
    if (params[i]) describe(f, i, &types[i]);
  }
  kl_check(L, b->status);
  part *test = capture_part(f, 1), *body = capture_part(f, 2);
  if (test->graph->nresults != 1)
    kl_error(L, KN_ARG, "while_loop: the condition gives %u values, not one", test->graph->nresults);
  if (body->graph->nresults != (uint32_t)f->n)
    kl_error(L, KN_ARG, "while_loop: the body gives %u values for %d", body->graph->nresults, f->n);
  b->at = n->regions[0];
  place_part(f, test, params);
  kn_value *go = condition(f, leaf_value(f, test, &test->graph->results[0], b->at));
  kn_node *step = kn_add_if(b, go);
  kl_check(L, b->status);
  b->at = step->regions[0];
  place_part(f, body, params);
  b->at = n->regions[0];
  bool fits = true;
  for (int i = 0; i < f->n; i++) {
    kn_value *v = leaf_value(f, body, &body->graph->results[i], step->regions[0]);
    kn_vtype join;
    char x[KN_TYPE_TEXT], y[KN_TYPE_TEXT];
    if (!v || !kn_vtype_join(&types[i], &v->type, &join))
      kl_error(L, KN_CAPTURE, "while_loop: value %d is %s before a trip and %s after it", i + 1,
               kn_vtype_text(b->graph, &types[i], x, sizeof x),
               v ? kn_vtype_text(b->graph, &v->type, y, sizeof y) : "no tensor or number");
    fits &= kn_vtype_equal(&join, &types[i]);
    types[i] = join;
    next[i] = kn_if_output(b, step, NULL, NULL, v, params[i]);
  }
  if (fits) kn_loop_finish(b, n, go, next);
  for (int i = 0; fits && i < f->n; i++) outs[i] = kn_loop_output(b, n, NULL, NULL, params[i]);
  b->at = at;
  kl_check(L, b->status);
  if (!fits) kn_node_remove(n);
  lua_pop(L, 2);
  return fits;
}

/* emit_while(cond, body, …) */
static int emit_while(lua_State *L) {
  flow f = {.L = L, .name = "while_loop", .first = 3, .n = lua_gettop(L) - 2};
  int top = lua_gettop(L), real = 0;
  kn_vtype types[MOST];
  kn_value *outs[MOST];
  if (!kl_find_emitter(L, 1, top, &f.e))
    return kl_error(L, KN_STATE, "while_loop: no graph is being written");
  luaL_checkstack(L, 2 * f.n + 40, "while_loop");
  set_place(L, f.e.b);
  read_arguments(&f);
  for (int i = 0; i < f.n; i++) {
    if (!f.value[i])
      return kl_error(L, KN_ARG, "while_loop: value %d is %s; tensors and numbers are needed", i + 1,
                      kl_kind(L, f.first + i));
    types[i] = f.value[i]->type;
  }
  for (int tries = 0; !try_loop(&f, types, outs); tries++)
    if (tries == 10) return kl_error(L, KN_CAPTURE, "while_loop: the types of its values do not settle");
  if (f.e.define) { /* upvalue 1: the eager loop */
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    f.first = 2, f.n = top;
    real = run_real(&f, 1);
    f.n = top - 2;
  }
  int base = lua_gettop(L);
  for (int i = 0; i < f.n; i++) push_value(&f, outs[i], real ? real + i : 0);
  return lua_gettop(L) - base;
}

/* Calls upvalue 1, emit_cond or emit_while. What a failure left half done is taken back: the builder may go
 * on. */
static int protected_emit(lua_State *L) {
  kl_emitter e;
  int n = lua_gettop(L);
  if (!kl_find_emitter(L, 1, n, &e)) return kl_error(L, KN_STATE, "no graph is being written here");
  kn_region *at = e.b->at;
  kn_node *mark = at->last;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  if (lua_pcall(L, n, LUA_MULTRET, 0) == LUA_OK) return lua_gettop(L);
  kn_region_truncate(at, mark);
  e.b->at = at;
  if (!e.define) e.b->status = KN_OK;
  return lua_error(L);
}

/* emitter(eager loop): emit_while with it. */
static int make_while(lua_State *L) {
  lua_settop(L, 1);
  lua_pushcclosure(L, emit_while, 1);
  lua_pushcclosure(L, protected_emit, 1);
  return 1;
}

/* ---- a Graph called in a traced function ---- */

static int run_variant(lua_State *L) { /* the Graph, the variant, its arguments */
  return kl_run_graph(L, lua_touserdata(L, 1), lua_touserdata(L, 2), 3, KL_RUN_CALL);
}

/* The real results at idx hold what these outputs are. */
static void define_results(flow *f, const part *p, const kn_tree *t, int idx) {
  lua_State *L = f->L;
  if (t->kind == KN_TREE_TABLE) {
    luaL_checkstack(L, 6, "nested results");
    for (uint32_t i = 0; i < t->n; i++) {
      kl_push_constant(L, &t->keys[i]);
      lua_gettable(L, idx);
      define_results(f, p, &t->items[i], lua_gettop(L));
      lua_pop(L, 1);
    }
  } else if (t->kind == KN_TREE_CHOICE) {
    kl_error(L, KN_CAPTURE,
             "graph %s: a result is of one kind or another; a traced function cannot keep that",
             p->graph->name);
  } else if (t->kind == KN_TREE_VALUE) {
    kn_tensor *r = kl_test_tensor(L, idx);
    if (!r)
      kl_error(L, KN_CAPTURE,
               "graph %s: a result is %s that depends on data; a traced function cannot keep that",
               p->graph->name, kl_kind(L, idx));
    kl_check(L, f->e.define(f->e.ud, r, p->out[t->i]));
  }
}

int kl_run_in_trace(lua_State *L, kl_graph *g, kl_variant *v, int first) {
  flow f = {.L = L, .name = "graph", .first = first};
  part p = {.graph = v->graph};
  kn_context *ctx = kl_context(L);
  const kn_region *body = v->graph->body;
  int given = lua_gettop(L) - first + 1;
  kl_trace_emitter(L, &f.e);
  if (body->nparams > MOST || body->nyields > 2 * MOST)
    return kl_error(L, KN_LIMIT, "graph: too many inputs");
  luaL_checkstack(L, given + (int)body->nparams + 20, "too many arguments");
  set_place(L, f.e.b);
  kn_rvalue in[MOST];
  kn_value *values[MOST];
  kl_flatten(L, v, first, given, in);
  kl_check(L, kn_check_needs(ctx, v->graph, in));
  for (uint32_t i = 0; i < body->nparams; i++) {
    values[i] = in[i].tensor ? f.e.value(f.e.ud, in[i].tensor) : kn_add_const(f.e.b, in[i].scalar);
    kl_check(L, f.e.b->status);
  }
  kn_inlining x = {.b = f.e.b,
                   .graph = v->graph,
                   .in = values,
                   .out = p.out,
                   .slot = slot_value,
                   .ud = &f,
                   .name = "graph"};
  kl_check(L, kn_inline(&x));
  int top = lua_gettop(L);
  lua_pushcfunction(L, run_variant);
  lua_pushlightuserdata(L, g);
  lua_pushlightuserdata(L, v);
  for (int i = 0; i < given; i++) lua_pushvalue(L, first + i);
  kn_recorder *recorder = ctx->recorder;
  ctx->recorder = NULL;
  int rc = lua_pcall(L, given + 2, LUA_MULTRET, 0);
  ctx->recorder = recorder;
  if (rc != LUA_OK) return lua_error(L);
  f.e.opaque(f.e.ud);
  int n = lua_gettop(L) - top;
  for (int i = 0; i < n; i++) define_results(&f, &p, &v->graph->results[i], top + 1 + i);
  return n;
}

/* emits(…): whether a graph is being written that these are values of. False inside captured code, whose
 * branches are seen as they are. */
static int emits(lua_State *L) {
  kl_emitter e;
  kn_recorder *r = kl_context(L)->recorder;
  lua_pushboolean(L, !(r && !r->runs) && kl_find_emitter(L, 1, lua_gettop(L), &e));
  return 1;
}

/* truth(x): of a boolean, or of a tensor's only element. */
static int truth(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kn_scalar s;
  kn_tensor *t = kl_test_tensor(L, 1), *b = NULL;
  if (t) {
    kn_attrs_cast to = {.dtype = KN_BOOL};
    kn_status st = kn_apply(ctx, KN_OP_cast, &to, &t, 1, &b);
    if (st == KN_OK) st = kn_item(ctx, b, &s);
    kn_tensor_release(b);
    if (st != KN_OK) kn_error_prefix(ctx, "condition");
    kl_check(L, st);
    kl_push_scalar(L, &s);
    return 1;
  }
  kn_scalar_kind kind = KN_SCALAR_INT;
  if (!kl_test_scalar(L, 1, &s) || !kl_scalar_kind(&s, &kind) || kind != KN_SCALAR_BOOL)
    return kl_error(L, KN_ARG, "the condition must be a boolean or a tensor of one element, got %s",
                    kl_kind(L, 1));
  lua_settop(L, 1);
  return 1;
}

void kl_open_emit(lua_State *L) { /* kiln.tracer is filled */
  lua_pushnil(L); /* the op of that name is called by lua/kiln/cond.lua, which takes its place */
  lua_setfield(L, -2, "cond");
  static const luaL_Reg engine[] = {{"emits", emits}, {"truth", truth}, {NULL, NULL}};
  static const luaL_Reg list[] = {{"make_while", make_while}, {NULL, NULL}};
  lua_getfield(L, -1, "tracer");
  luaL_setfuncs(L, list, 0);
  kl_set_engine_functions(L, engine);
  lua_pushcfunction(L, emit_cond);
  lua_pushcclosure(L, protected_emit, 1);
  lua_setfield(L, -2, "cond");
  lua_pop(L, 1);
}
