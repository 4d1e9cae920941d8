/* kiln.builder(): a graph built by hand. Symbols are tensors without data and numbers known only when it
 * runs; ops on them go through a recorder that is asked only for symbols (ctx->symbols), so other work goes
 * on beside. A builder's graph is kept as long as a symbol of it can be met, built or not. */
#include "bindings/lua/emit.h"
#include "bindings/lua/trees.h"
#include "graph/pipeline.h"
#include "graph/record.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char builder_key, hands_key; /* registry: the metatable; the hands of this state */

typedef enum hand_state { OPEN, BUILT, LOST } hand_state;
typedef struct hand {
  struct hand *next;
  struct hands *all;
  kn_graph *graph;
  kn_builder b;
  kn_record record;
  hand_state state;
  const char *names[64]; /* inputs */
  kn_value *inputs[64];
  kn_tensor *handles[64]; /* of inputs that are tensors: what is written to them the caller's tensors take */
  uint32_t ninputs;
} hand;

struct hands { /* all builders of a Lua state */
  kn_recorder base;
  kl_state *state;
  hand *first, *last_used;
};
typedef struct hands hands;

/* ---- whose symbol ---- */

static hand *owner(const hands *all, const kn_value *v) {
  hand *h = all->first;
  while (h && h->graph != v->region->graph) h = h->next;
  return h;
}

static kn_status cannot_use(kn_context *ctx, const hand *h, const kn_value *v) {
  char name[64] = "a symbol";
  if (v->name) snprintf(name, sizeof name, "symbol '%.50s'", v->name);
  if (h && h->state == OPEN) return KN_OK;
  return kn_fail(ctx, KN_STATE, "%s belongs to a graph that %s", name,
                 h && h->state == BUILT ? "has been built: begin a new one with kiln.builder()"
                                        : "is not being built here");
}

/* The builder of `v`, ready for a node at this place of the program. */
static kn_status use(hands *all, kn_context *ctx, const kn_value *v, hand **out) {
  hand *h = owner(all, v);
  char text[LUA_IDSIZE + 32], *colon;
  KN_TRY(cannot_use(ctx, h, v));
  if (*out && *out != h)
    return kn_fail(ctx, KN_STATE, "symbols of two builders in one op: each graph is built from its own");
  if (h->b.at == h->graph->body) {
    kl_write_where(all->state->main, text, sizeof text);
    h->b.where = NULL;
    if ((colon = strrchr(text, ':'))) {
      *colon = 0;
      h->b.where = kn_where_intern(&h->b, text, atoi(colon + 1), NULL);
    }
  }
  *out = all->last_used = h;
  return KN_OK;
}

/* A failure is the op's, not the builder's: the next line may do better. */
static kn_status settle(hand *h, kn_status st) {
  h->b.status = KN_OK;
  return st;
}

/* ---- the recorder ---- */

static kn_status hands_apply(kn_recorder *r, kn_context *ctx, kn_op op, const void *attrs,
                             kn_tensor *const *in, int n, const kn_type *types, kn_tensor **out) {
  hands *all = (hands *)r;
  hand *h = NULL;
  kn_status st = KN_OK;
  for (int i = 0; i < n && st == KN_OK; i++)
    if (in[i] && !in[i]->storage) st = use(all, ctx, in[i]->value, &h);
  if (!h && all->last_used) h = all->last_used; /* only sizes are symbols */
  if (st == KN_OK && kn_ops[op].flags & KN_FLAG_WRITES && n && in[0]->storage)
    st = kn_fail(ctx, KN_CAPTURE, "%s: a symbol has no values that a real tensor could take", kn_op_name(op));
  if (st != KN_OK) {
    kn_error_prefix(ctx, "%s", kn_op_name(op));
    return st;
  }
  kn_recorder *own = &h->record.base;
  return settle(h, own->apply(own, ctx, op, attrs, in, n, types, out));
}

static kn_status hands_item(kn_recorder *r, kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, t->value, &h));
  return settle(h, h->record.base.item(&h->record.base, ctx, t, out));
}

static kn_status hands_size(kn_recorder *r, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, t->value, &h));
  return settle(h, h->record.base.size(&h->record.base, ctx, t, dim, out));
}

static kn_status hands_expect(kn_recorder *r, kn_context *ctx, kn_tensor *t, int dim, int64_t wanted,
                              const char *sentence, kn_tensor *a, kn_tensor *b) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, t->value, &h));
  return settle(h, h->record.base.expect(&h->record.base, ctx, t, dim, wanted, sentence, a, b));
}

static kn_status hands_to_tensor(kn_recorder *r, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                                 kn_tensor **out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, s->as.value, &h));
  return settle(h, h->record.base.to_tensor(&h->record.base, ctx, s, dtype, out));
}

static kn_status hands_dynamic(kn_recorder *r, kn_context *ctx, const kn_scalar *s, int64_t *out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, s->as.value, &h));
  return settle(h, h->record.base.dynamic(&h->record.base, ctx, s, out));
}

static kn_status hands_position(kn_recorder *r, kn_context *ctx, const char *what, const kn_scalar *s,
                                bool last, kn_scalar *out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, s->as.value, &h));
  return settle(h, h->record.base.position(&h->record.base, ctx, what, s, last, out));
}

static kn_status hands_within(kn_recorder *r, kn_context *ctx, const kn_scalar *position, kn_tensor *part,
                              int dim, const char *name) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, position->as.value, &h));
  return settle(h, h->record.base.within(&h->record.base, ctx, position, part, dim, name));
}

static kn_status hands_writable(kn_recorder *r, kn_context *ctx, const char *name, kn_tensor *t) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, t->value, &h));
  return settle(h, h->record.base.writable(&h->record.base, ctx, name, t));
}

static kn_status hands_contiguous(kn_recorder *r, kn_context *ctx, kn_tensor *t, bool *out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, t->value, &h));
  return settle(h, h->record.base.contiguous(&h->record.base, ctx, t, out));
}

static kn_status hands_alias(kn_recorder *r, kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  hand *h = NULL;
  KN_TRY(use((hands *)r, ctx, t->value, &h));
  return settle(h, h->record.base.alias(&h->record.base, ctx, t, out));
}

static bool is_held(const kl_state *s, const kn_tensor *t) { /* by a handle of the program */
  for (uint32_t i = 0; i < s->boxes->room; i++)
    if (s->boxes->box[i] && s->boxes->box[i]->tensor == t) return true;
  return false;
}

/* A real tensor: a plain number beside a symbol is a constant, anything else a slot that stays what it is. */
static kn_value *outside(void *ud, kn_tensor *t) {
  hand *h = ud;
  kn_builder *b = &h->b;
  char name[32], type[KN_TYPE_TEXT];
  if (t->type.rank == 0 && t->type.device == KN_CPU && !is_held(h->all->state, t))
    return kn_add_to_tensor(b, kn_add_const(b, kn_scalar_read(t)), kn_tensor_dtype(t));
  snprintf(name, sizeof name, "tensor.%u", h->graph->nslots + 1);
  kn_slot *slot = kn_add_slot(b, KN_SLOT_PARAM, name, &(kn_vtype){KN_V_TENSOR, t->type}, t);
  kn_add_guard(b, "parameter", name, kn_type_text(&t->type, type, sizeof type), b->where);
  kn_region *at = b->at;
  kn_node *first = h->graph->body->first;
  while (first && first->slot) first = first->next;
  b->at = h->graph->body;
  kn_value *v = slot ? kn_add_slot_node(b, KN_NODE_param, slot) : NULL;
  b->at = at;
  if (v && first) kn_node_move_before(v->def, first);
  return v;
}

/* ---- life ---- */

static void free_hand(hand *h) {
  kn_heap *heap = kn_heap_retain(h->b.ctx->heap);
  for (uint32_t i = 0; i < h->ninputs; i++) kn_tensor_release(h->handles[i]);
  kn_record_free(&h->record);
  kn_graph_release(h->graph);
  kn_free(heap, h, sizeof *h);
  kn_heap_release(heap);
}

static bool has_symbols(const hands *all, const hand *h) {
  const kl_boxes *boxes = all->state->boxes;
  for (uint32_t i = 0; i < boxes->room; i++) {
    const kn_tensor *t = boxes->box[i] ? boxes->box[i]->tensor : NULL;
    /* the graph of another symbol may be gone: its value is not looked into */
    if (t && !t->storage && t->value && kn_arena_holds(&h->graph->arena, t->value)) return true;
  }
  return false;
}

/* Lets go of graphs that nobody has a symbol of. Symbols of numbers hold their builder, so it is LOST then.
 */
static void sweep(hands *all) {
  for (hand **at = &all->first; *at;) {
    hand *h = *at;
    if (h->state == LOST && !has_symbols(all, h)) {
      *at = h->next;
      if (all->last_used == h) all->last_used = NULL;
      free_hand(h);
    } else
      at = &h->next;
  }
}

static int hands_gc(lua_State *L) {
  hands *all = lua_touserdata(L, 1);
  while (all->first) {
    hand *next = all->first->next;
    free_hand(all->first);
    all->first = next;
  }
  if (all->state->ctx && all->state->ctx->symbols == &all->base) all->state->ctx->symbols = NULL;
  return 0;
}

static hands *hands_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &hands_key);
  hands *all = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return all;
}

static hand *check_builder(lua_State *L, int idx) {
  hand **box = NULL;
  if (lua_type(L, idx) == LUA_TUSERDATA && lua_getmetatable(L, idx)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &builder_key);
    if (lua_rawequal(L, -1, -2)) box = lua_touserdata(L, idx);
    lua_pop(L, 2);
  }
  if (!box) kl_error(L, KN_ARG, "a builder is needed, as in b:input(…), got %s", kl_kind(L, idx));
  if ((*box)->state == BUILT)
    kl_error(L, KN_STATE, "this builder has built its graph; begin a new one with kiln.builder()");
  return *box;
}

static int builder_gc(lua_State *L) {
  hand **box = lua_touserdata(L, 1);
  if (*box) (*box)->state = LOST;
  *box = NULL;
  return 0;
}

/* kiln.builder([name]) */
static int new_builder(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const char *name = lua_isnoneornil(L, 1) ? "built" : kl_check_text(L, 1, "builder", "a name", NULL);
  hands *all = hands_of(L);
  if (ctx->recorder) return kl_error(L, KN_CAPTURE, "builder: a graph is being captured or traced already");
  sweep(all);
  hand **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  hand *h = kn_calloc(ctx->heap, 1, sizeof *h);
  if (!h) kl_check(L, kn_fail_nomem(ctx, sizeof *h));
  kn_status st = kn_graph_new(ctx, name, &h->graph);
  if (st != KN_OK) kn_free(ctx->heap, h, sizeof *h);
  kl_check(L, st);
  kn_builder_init(&h->b, ctx, h->graph);
  kn_record_init(&h->record, &h->b);
  h->record.outside = outside;
  h->record.ud = h;
  h->all = all;
  h->next = all->first;
  all->first = h;
  ctx->symbols = &all->base;
  *box = h;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &builder_key);
  lua_setmetatable(L, -2);
  return 1;
}

/* ---- methods ---- */

void kl_push_graph_value(lua_State *L, kn_context *ctx, kn_value *v) {
  kn_tensor *t;
  if (v->type.kind != KN_V_TENSOR) {
    kl_push_scalar(L, &(kn_scalar){KN_SCALAR_SYMBOL, {.value = v}});
    return;
  }
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, kn_tensor_symbolic(ctx, &v->type.tensor, v, &t));
  kl_fill_tensor(L, slot, t);
}

/* b:input(name, spec): a symbol. */
static int add_input(lua_State *L) {
  hand *h = check_builder(L, 1);
  kc_arg a;
  const char *name = kl_check_text(L, 2, "input", "a name", NULL);
  for (uint32_t i = 0; i < h->ninputs; i++)
    if (!strcmp(h->names[i], name)) return kl_error(L, KN_ARG, "input: there is an input '%s' already", name);
  if (h->ninputs == sizeof h->names / sizeof *h->names)
    return kl_error(L, KN_LIMIT, "input: a built graph has at most %d inputs", (int)h->ninputs);
  kl_read_spec(L, 3, "input", name, &a);
  for (int d = 0; a.type.kind == KN_V_TENSOR && d < a.type.tensor.rank; d++)
    if (a.sizes[d]) a.type.tensor.dims[d] = kn_symbol_intern(&h->b, a.sizes[d]);
  kn_value *v = kn_add_input(&h->b, name, &a.type);
  if (!v || !v->name) return settle(h, KN_OK), kl_error(L, KN_ARG, "input: '%s' cannot be a name", name);
  h->names[h->ninputs] = v->name;
  h->inputs[h->ninputs++] = v;
  kl_push_graph_value(L, h->b.ctx, v);
  if (a.type.kind == KN_V_TENSOR) h->handles[h->ninputs - 1] = kn_tensor_retain(kl_test_tensor(L, -1));
  return 1;
}

static kn_value *take_result(void *ud, lua_State *L, int idx, const char *path) {
  hand *h = ud;
  kn_scalar s;
  kn_tensor *t = kl_test_tensor(L, idx);
  const kn_value *symbol = t && !t->storage ? t->value : NULL;
  if (!t && lua_type(L, idx) == LUA_TUSERDATA && kl_test_scalar(L, idx, &s)) symbol = s.as.value;
  if (symbol && owner(h->all, symbol) != h)
    kl_error(L, KN_STATE, "build: %s is a symbol of another builder", path);
  if (symbol && !t) return (kn_value *)(uintptr_t)symbol;
  return t ? kn_record_value(&h->record, t) : NULL;
}

static void make_arguments(lua_State *L, hand *h, kl_tree_maker *m) {
  kn_tree *all = kl_new_trees(m, 1), *keys = kl_new_trees(m, h->ninputs),
          *items = kl_new_trees(m, h->ninputs);
  for (uint32_t i = 0; i < h->ninputs; i++) {
    keys[i] = (kn_tree){.kind = KN_TREE_STRING, .text = h->names[i], .n = (uint32_t)strlen(h->names[i])};
    items[i] = (kn_tree){.kind = KN_TREE_VALUE, .value = h->inputs[i]};
  }
  *all = (kn_tree){.kind = KN_TREE_TABLE, .n = h->ninputs, .keys = keys, .items = items};
  kn_set_args(&h->b, all, h->ninputs != 0);
  kl_check(L, settle(h, h->b.status));
}

/* b:build{ y = … }: the Graph, from a table by name to a table by name. */
static int build(lua_State *L) {
  hand *h = check_builder(L, 1);
  if (lua_type(L, 2) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "build: a table of results is needed, as in b:build{ y = y }, got %s",
                    kl_kind(L, 2));
  lua_settop(L, 2);
  kl_tree_maker m = {.L = L, .b = &h->b, .name = "build", .leaf = take_result, .ud = h};
  kn_tree *results = kl_new_trees(&m, 1);
  kl_make_tree(&m, 2, "the result", results);
  make_arguments(L, h, &m);
  kn_set_results(&h->b, NULL, 0, results, 1);
  for (uint32_t i = 0; i < h->ninputs; i++) {
    kn_value *now = h->handles[i] ? kn_record_value(&h->record, h->handles[i]) : NULL;
    if (now && now != h->inputs[i]) kn_add_update(&h->b, h->inputs[i], now);
  }
  kl_graph *g = kl_push_graph(L);
  h->state = BUILT; /* the passes change it: there is no way back */
  h->b.where = NULL;
  kl_check(L, h->b.status);
  kl_check(L, kn_pipeline_run(&h->b, KN_PIPELINE_CAPTURE));
  kl_check(L, kn_graph_finish(&h->b));
  kl_add_variant(L, g, kn_graph_retain(h->graph), NULL);
  return 1;
}

static int builder_text(lua_State *L) {
  hand **box = lua_touserdata(L, 1);
  const hand *h = *box;
  if (!h || h->state == BUILT) {
    lua_pushliteral(L, "builder (built)");
    return 1;
  }
  luaL_Buffer text;
  luaL_buffinit(L, &text);
  luaL_addstring(&text, "builder(");
  for (uint32_t i = 0; i < h->ninputs; i++) {
    char type[KN_TYPE_TEXT];
    lua_pushfstring(L, "%s%s: %s", i ? ", " : "", h->names[i],
                    kn_vtype_text(h->graph, &h->inputs[i]->type, type, sizeof type));
    luaL_addvalue(&text);
  }
  luaL_addstring(&text, ")");
  luaL_pushresult(&text);
  return 1;
}

/* ---- symbols ---- */

bool kl_builder_emitter(lua_State *L, int first, int last, kl_emitter *out) {
  hands *all = hands_of(L);
  hand *h = NULL;
  for (int i = first; i <= last; i++) {
    kn_scalar s;
    const kn_tensor *t = kl_test_tensor(L, i);
    const kn_value *v = t && !t->storage ? t->value : NULL;
    if (!t && lua_type(L, i) == LUA_TUSERDATA && kl_test_scalar(L, i, &s) && s.kind == KN_SCALAR_SYMBOL)
      v = s.as.value;
    if (v) kl_check(L, use(all, kl_context(L), v, &h));
  }
  if (!h) return false;
  *out = (kl_emitter){
      .b = &h->b, .value = (kn_value * (*)(void *, kn_tensor *)) kn_record_value, .ud = &h->record};
  return true;
}

bool kl_describe_symbol(lua_State *L, const kn_value *v) {
  hands *all = hands_of(L);
  hand *h = all ? owner(all, v) : NULL;
  char type[KN_TYPE_TEXT];
  if (!h) return false;
  lua_pushfstring(L, "symbol%s%s: %s", v->name ? " " : "", v->name ? v->name : "",
                  kn_vtype_text(h->graph, &v->type, type, sizeof type));
  return true;
}

/* An operand as a value of the builder. */
static kn_value *operand(lua_State *L, hand *h, int idx, const char *symbol) {
  kn_scalar s;
  if (!kl_test_scalar(L, idx, &s) || s.kind == KN_SCALAR_BOOL)
    kl_error(L, KN_ARG, "%s: a number is needed, got %s", symbol, kl_kind(L, idx));
  return kn_add_const(&h->b, s);
}

static const struct {
  const char *event, *symbol;
  kn_opcode op;
} arithmetic[] = {{"__add", "+", KN_NODE_lua_add},    {"__sub", "-", KN_NODE_lua_sub},
                  {"__mul", "*", KN_NODE_lua_mul},    {"__div", "/", KN_NODE_lua_div},
                  {"__mod", "%", KN_NODE_lua_mod},    {"__pow", "^", KN_NODE_lua_pow},
                  {"__idiv", "//", KN_NODE_lua_idiv}, {"__unm", "-", KN_NODE_lua_unm}};

/* Upvalue 1: the row. A tensor beside the number knows better. */
static int symbol_arithmetic(lua_State *L) {
  int row = (int)lua_tointeger(L, lua_upvalueindex(1));
  bool unary = arithmetic[row].op == KN_NODE_lua_unm;
  hands *all = hands_of(L);
  hand *h = NULL;
  kn_scalar s;
  for (int i = 1; i <= 2; i++)
    if (kl_test_tensor(L, i)) {
      luaL_getmetafield(L, i, arithmetic[row].event);
      lua_pushvalue(L, 1);
      lua_pushvalue(L, 2);
      lua_call(L, 2, 1);
      return 1;
    }
  for (int i = 1; i <= 2; i++)
    if (lua_type(L, i) == LUA_TUSERDATA && kl_test_scalar(L, i, &s))
      kl_check(L, use(all, kl_context(L), s.as.value, &h));
  kn_value *in[2] = {operand(L, h, 1, arithmetic[row].symbol),
                     unary ? NULL : operand(L, h, 2, arithmetic[row].symbol)};
  kn_value *v = kn_add_scalar(&h->b, arithmetic[row].op, in, unary ? 1 : 2);
  kl_check(L, settle(h, h->b.status));
  kl_push_graph_value(L, h->b.ctx, v);
  return 1;
}

static int symbol_compared(lua_State *L) {
  return kl_error(
      L, KN_CAPTURE,
      "a comparison of numbers known only when the graph runs: Lua would make a plain boolean of it; "
      "compare inside the functions of kiln.cond or kiln.while_loop, or as tensors (a:lt(b))");
}

static int symbol_text(lua_State *L) {
  kn_scalar s;
  if (!kl_test_scalar(L, 1, &s) || s.kind != KN_SCALAR_SYMBOL || !kl_describe_symbol(L, s.as.value))
    lua_pushliteral(L, "a number known only when the graph runs");
  return 1;
}

void kl_set_symbol_arithmetic(lua_State *L) { /* the metatable of symbols is on top */
  for (size_t i = 0; i < sizeof arithmetic / sizeof *arithmetic; i++) {
    lua_pushinteger(L, (lua_Integer)i);
    lua_pushcclosure(L, symbol_arithmetic, 1);
    lua_setfield(L, -2, arithmetic[i].event);
  }
  static const luaL_Reg list[] = {
      {"__lt", symbol_compared}, {"__le", symbol_compared}, {"__tostring", symbol_text}, {NULL, NULL}};
  luaL_setfuncs(L, list, 0);
}

void kl_open_builder(lua_State *L) {
  static const luaL_Reg methods[] = {{"input", add_input}, {"build", build}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", builder_gc}, {"__tostring", builder_text}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"builder", new_builder}, {NULL, NULL}};
  hands *all = lua_newuserdatauv(L, sizeof *all, 0);
  *all = (hands){.base = {.apply = hands_apply,
                          .item = hands_item,
                          .size = hands_size,
                          .expect = hands_expect,
                          .to_tensor = hands_to_tensor,
                          .dynamic = hands_dynamic,
                          .position = hands_position,
                          .within = hands_within,
                          .writable = hands_writable,
                          .contiguous = hands_contiguous,
                          .alias = hands_alias},
                 .state = kl_state_of(L)};
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, hands_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &hands_key);
  lua_newtable(L);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "builder");
  lua_setfield(L, -2, "__name");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &builder_key);
  luaL_setfuncs(L, functions, 0);
}
