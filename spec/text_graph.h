/* Random, valid graphs for property tests: ops, numbers, branches, loops, slots, guards, places, names. */
#ifndef SPEC_TEXT_GRAPH_H
#define SPEC_TEXT_GRAPH_H
#include "spec/suite.h"
#include "graph/graph.h"
#include "spec/mutate.h"

enum { RANDOM_VISIBLE = 400 };
typedef struct random_maker {
  random_state r;
  kn_builder *b;
  kn_value *v[RANDOM_VISIBLE]; /* values that can be used here */
  int n, depth, size;
} random_maker;

static inline kn_value *random_pick(random_maker *m, kn_vkind kind) {
  for (int tries = 0; tries < 20; tries++) {
    kn_value *v = m->v[random_below(&m->r, (unsigned)m->n)];
    if (v->type.kind == kind) return v;
  }
  for (int i = 0; i < m->n; i++) /* every kind is among the inputs */
    if (m->v[i]->type.kind == kind) return m->v[i];
  return NULL;
}

static inline void random_keep(random_maker *m, kn_value *v) {
  static const char *const names[] = {"x",   "h", "loss",        "fc1.weight", "l.0.w", "a b",
                                      "x.1", "7", "caf\xc3\xa9", "q\n\"\\",    "_",     "end"};
  OK(m->b->ctx, m->b->status);
  if (random_below(&m->r, 3) == 0)
    kn_value_name(m->b, v, names[random_below(&m->r, sizeof names / sizeof *names)]);
  if (m->n < RANDOM_VISIBLE) m->v[m->n++] = v;
}

static inline kn_scalar random_number(random_maker *m) {
  static const double floats[] = {0.5, -0.0, 1e300, 3, 0.1, -1.0 / 3, 5e-324};
  if (random_below(&m->r, 2)) return (kn_scalar){KN_SCALAR_FLOAT, {.f = floats[random_below(&m->r, 7)]}};
  return (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)random_below(&m->r, 7) - 3}};
}

/* All tensors here are float32 [?, 4]-like, so that elementwise ops fit. */
static inline void random_op(random_maker *m) {
  static const kn_op unary[] = {KN_OP_relu, KN_OP_exp, KN_OP_neg, KN_OP_clone},
                     binary[] = {KN_OP_maximum, KN_OP_where};
  kn_builder *b = m->b;
  kn_value *x = random_pick(m, KN_V_TENSOR), *out = NULL;
  kn_attrs_cast to = {.dtype = (kn_dtype)random_below(&m->r, KN_DTYPE_COUNT)}, back = {.dtype = KN_F32};
  switch (random_below(&m->r, 12)) {
  case 10: out = kn_add_detach(b, x); break;
  case 11: { /* lists, one in the other */
    kn_value *list = kn_add_append(b, kn_add_list(b, &x->type), x), *one = random_pick(m, KN_V_INT);
    kn_value *outer = kn_add_append(b, kn_add_list(b, &list->type), list);
    random_keep(m, kn_add_list_length(b, list));
    random_keep(m, kn_add_defined(b, x));
    random_keep(
        m, kn_add_of_list(b, KN_NODE_list_bytes, kn_add_of_list(b, KN_NODE_list_thin, list, NULL), NULL));
    list = kn_add_of_list(b, KN_NODE_list_first, list, one);
    if (x->type.tensor.rank == 2) kn_add_list_stack(b, list);
    out = kn_add_list_get(b, kn_add_list_get(b, outer, one), one);
    break;
  }
  case 8:
    out = kn_add_op(b, KN_OP_cast, &to, &x, 1, NULL, 0)->out[0];
    out = kn_add_op(b, KN_OP_cast, &back, &out, 1, NULL, 0)->out[0];
    break;
  case 0:
  case 1: out = kn_add_op(b, unary[random_below(&m->r, 4)], NULL, &x, 1, NULL, 0)->out[0]; break;
  case 2: out = kn_add_op(b, binary[0], NULL, (kn_value *[]){x, x}, 2, NULL, 0)->out[0]; break;
  case 3: {
    kn_value *n = kn_add_size(b, x, 0);
    out = kn_add_op(b, KN_OP_reshape, &(kn_attrs_sizes){.sizes = {2, {KN_DYN(0), -1}}}, &x, 1, &n, 1)->out[0];
    break;
  }
  case 4:
    out = kn_add_op(b, KN_OP_clamp, &(kn_attrs_clamp){.min = -0.25 * random_below(&m->r, 5), .max = 1}, &x, 1,
                    NULL, 0)
              ->out[0];
    break;
  case 5: {
    kn_value *s = kn_add_op(b, KN_OP_sum, &(kn_attrs_reduce){.keepdim = false}, &x, 1, NULL, 0)->out[0];
    random_keep(m, kn_add_item(b, s));
    return;
  }
  case 6:
    out =
        kn_add_op(b, KN_OP_rand, &(kn_attrs_create){.sizes = {2, {2, 4}}, .dtype = KN_F32}, NULL, 0, NULL, 0)
            ->out[0];
    break;
  case 7:
    out =
        kn_add_op(b, KN_OP_slice,
                  &(kn_attrs_slice){.dim = 0, .start = random_below(&m->r, 2), .stop = KN_TO_END, .step = 1},
                  &x, 1, NULL, 0)
            ->out[0];
    break;
  default: out = kn_add_op(b, KN_OP_softmax, &(kn_attrs_axis){.dim = -1}, &x, 1, NULL, 0)->out[0];
  }
  if (out->def && kn_opcode_is_op(out->def->op)) out->def->no_grad = random_below(&m->r, 6) == 0;
  random_keep(m, out);
}

static inline void random_scalar(random_maker *m) {
  static const kn_opcode two[] = {KN_NODE_lua_add,  KN_NODE_lua_sub, KN_NODE_lua_mul, KN_NODE_lua_mod,
                                  KN_NODE_lua_idiv, KN_NODE_lua_div, KN_NODE_lua_pow, KN_NODE_lua_lt,
                                  KN_NODE_lua_le,   KN_NODE_lua_eq};
  static const kn_vkind numbers[] = {KN_V_INT, KN_V_FLOAT, KN_V_NUMBER};
  kn_builder *b = m->b;
  kn_value *x = random_pick(m, numbers[random_below(&m->r, 3)]),
           *y = random_pick(m, numbers[random_below(&m->r, 3)]);
  switch (random_below(&m->r, 6)) {
  case 0: random_keep(m, kn_add_const(b, random_number(m))); break;
  case 1: random_keep(m, kn_add_const(b, (kn_scalar){KN_SCALAR_BOOL, {.b = random_below(&m->r, 2)}})); break;
  case 2: random_keep(m, kn_add_select(b, random_pick(m, KN_V_BOOL), x, y)); break;
  case 3: random_keep(m, kn_add_scalar(b, KN_NODE_lua_floor, &x, 1)); break;
  default: random_keep(m, kn_add_scalar(b, two[random_below(&m->r, 10)], (kn_value *[]){x, y}, 2));
  }
}

static inline void random_text(random_maker *m) {
  kn_builder *b = m->b;
  kn_value *c = random_pick(m, KN_V_BOOL), *n = random_pick(m, KN_V_NUMBER), *i = random_pick(m, KN_V_INT),
           *x = m->v[0];
  kn_opcode op = (kn_opcode)(KN_NODE_print + random_below(&m->r, 4));
  switch (random_below(&m->r, 4)) {
  case 0: kn_add_raise(b, KN_NODE_assert, c, "must be \"true\"\n"); break;
  case 1: kn_add_text(b, KN_NODE_assert, "%d is not %%%5.1f", (kn_value *[]){c, i, n}, 3); break;
  case 2: kn_add_text(b, op, "\t%s %w %s%%z\n", (kn_value *[]){x, n, c}, 3); break;
  default: kn_add_text(b, op, "100%%", NULL, 0);
  }
}

static inline void random_effect(random_maker *m) {
  kn_graph *g = m->b->graph;
  kn_slot *s = g->slots[random_below(&m->r, g->nslots)];
  if (random_below(&m->r, 2))
    random_text(m);
  else if (s->kind == KN_SLOT_STATE && s->type.kind == KN_V_INT) {
    random_keep(m, kn_add_slot_node(m->b, KN_NODE_load_state, s));
    kn_add_store(m->b, s, random_pick(m, KN_V_INT));
  } else if (s->kind == KN_SLOT_PARAM)
    random_keep(m, kn_add_slot_node(m->b, KN_NODE_param, s));
  else if (s->kind == KN_SLOT_CONST) {
    kn_value *v = kn_add_slot_node(m->b, KN_NODE_tensor, s);
    kn_attrs_cast back = {.dtype = KN_F32}; /* the slot is of any dtype */
    random_keep(m, kn_add_op(m->b, KN_OP_cast, &back, &v, 1, NULL, 0)->out[0]);
  }
}

static inline void random_block(random_maker *m);

static inline void random_if(random_maker *m) {
  kn_region *outer = m->b->at;
  int visible = m->n;
  kn_node *n = kn_add_if(m->b, random_pick(m, KN_V_BOOL));
  kn_value *v[2][4];
  static const kn_vkind kinds[4] = {KN_V_TENSOR, KN_V_INT, KN_V_FLOAT, KN_V_TENSOR};
  for (int k = 0; k < 2; k++) {
    m->b->at = n->regions[k];
    random_block(m);
    for (int i = 0; i < 4; i++) v[k][i] = random_pick(m, i == 2 && k ? KN_V_INT : kinds[i]);
    if (k && random_below(&m->r, 4) == 0) v[1][3] = kn_add_undef(m->b, &v[0][3]->type);
    m->n = visible;
  }
  m->b->at = outer;
  for (unsigned i = 0, count = random_below(&m->r, 5); i < count; i++)
    random_keep(m, kn_if_output(m->b, n, NULL, NULL, v[0][i], v[1][i]));
}

static inline void random_loop(random_maker *m) {
  kn_region *outer = m->b->at;
  int visible = m->n;
  kn_node *n = kn_add_loop(m->b);
  kn_vtype wide = {KN_V_TENSOR, {.dtype = KN_F32, .rank = 2, .dims = {KN_DIM_UNKNOWN, KN_DIM_UNKNOWN}}},
           number = {.kind = KN_V_NUMBER};
  unsigned count = random_below(&m->r, 4);
  kn_value *next[4];
  for (unsigned i = 0; i < count; i++) {
    kn_value *init = random_pick(m, i % 2 ? KN_V_INT : KN_V_TENSOR);
    if (init->type.kind == KN_V_TENSOR && init->type.tensor.rank != 2) init = m->v[0];
    next[i] = kn_loop_param(m->b, n, i % 2 ? &number : &wide, i == 1 ? "i" : NULL, init);
  }
  m->b->at = n->regions[0];
  for (unsigned i = 0; i < count; i++) random_keep(m, next[i]);
  random_block(m);
  for (unsigned i = 0; i < count; i++)
    if (random_below(&m->r, 4)) {
      kn_value *v = random_pick(m, i % 2 ? KN_V_FLOAT : KN_V_TENSOR);
      if (v->type.kind != KN_V_TENSOR || v->type.tensor.rank == 2) next[i] = v;
    }
  kn_value *flag = random_pick(m, KN_V_BOOL),
           *exits[2] = {random_pick(m, KN_V_TENSOR), random_pick(m, KN_V_INT)};
  m->n = visible;
  m->b->at = outer;
  kn_loop_finish(m->b, n, flag, next);
  for (unsigned i = 0, outs = random_below(&m->r, 3); i < outs; i++)
    random_keep(m, kn_loop_output(m->b, n, NULL, NULL, exits[i]));
}

static inline void random_block(random_maker *m) {
  m->depth++;
  for (unsigned i = 0, n = 2 + random_below(&m->r, 8); i < n && m->size > 0; i++) {
    const kn_where *inlined =
        random_below(&m->r, 3) ? NULL : kn_where_intern(m->b, "main <- odd.lua", 7, NULL);
    if (random_below(&m->r, 3) == 0)
      m->b->where = kn_where_intern(m->b, "net.lua", (int)random_below(&m->r, 20), inlined);
    if (random_below(&m->r, 5) == 0) m->b->where = NULL;
    m->size--;
    unsigned kind = random_below(&m->r, 12);
    if (kind < 4)
      random_op(m);
    else if (kind < 8)
      random_scalar(m);
    else if (kind < 9)
      random_effect(m);
    else if (m->depth < 5 && kind < 11)
      random_if(m);
    else if (m->depth < 5)
      random_loop(m);
  }
  m->depth--;
}

static inline kn_tree random_tree(random_maker *m, kn_tree *pool, int *used, int depth) {
  kn_tree t = {.kind = (kn_tree_kind)random_below(&m->r, 11)};
  if (t.kind > KN_TREE_CHOICE || t.kind == KN_TREE_NONE || t.kind == KN_TREE_AGAIN ||
      (kn_tree_has_items(t.kind) && (depth > 2 || *used > 40)))
    t.kind = KN_TREE_VALUE;
  t.i = random_below(&m->r, 2);
  t.f = random_below(&m->r, 2) ? 0.5 : (double)INFINITY;
  if (t.kind == KN_TREE_VALUE) t.value = m->v[random_below(&m->r, (unsigned)m->n)];
  if (t.kind == KN_TREE_STRING) t.text = "a\0\xff", t.n = 3;
  if (!kn_tree_has_items(t.kind)) return t;
  bool choice = t.kind == KN_TREE_CHOICE;
  t.n = choice ? 3 : random_below(&m->r, 4);
  t.same_as = random_below(&m->r, 3);
  t.keys = pool + *used;
  t.items = pool + *used + t.n;
  *used += 2 * (int)t.n;
  for (uint32_t i = 0; i < t.n; i++) {
    t.keys[i] = (kn_tree){.kind = KN_TREE_INT, .i = (int64_t)i + 1};
    if (random_below(&m->r, 3) == 0)
      t.keys[i] = (kn_tree){.kind = KN_TREE_STRING, .text = i ? "k" : "not plain", .n = i ? 1 : 9};
    if (random_below(&m->r, 5) == 0) t.keys[i].i = -4, t.keys[i].kind = KN_TREE_INT;
    t.items[i] = random_tree(m, pool, used, depth + 1);
    if (choice) t.keys[i] = (kn_tree){.kind = KN_TREE_INT, .i = (int64_t)i};
    if (choice && i == 0) {
      t.keys[i] = (kn_tree){.kind = KN_TREE_STRING, .text = "which", .n = 5};
      t.items[i] = (kn_tree){.kind = KN_TREE_VALUE, .value = random_pick(m, KN_V_INT)};
    } else if (choice && depth == 0 && random_below(&m->r, 2))
      t.items[i] = (kn_tree){.kind = KN_TREE_NONE};
  }
  if (choice) t.same_as = 0;
  if (t.same_as && t.n > 1 && !random_below(&m->r, 4))
    t.items[t.n - 1] = (kn_tree){.kind = KN_TREE_AGAIN, .same_as = t.same_as};
  return t;
}

static inline kn_graph *random_graph(kn_context *c, unsigned seed) {
  kn_graph *g;
  kn_builder b;
  OK(c, kn_graph_new(c, seed % 3 ? "g" : "odd name", &g));
  kn_builder_init(&b, c, g);
  random_maker m = {.r = {seed}, .b = &b, .size = 60};
  int64_t dim = kn_symbol_intern(&b, seed % 2 ? "N" : "a b");
  kn_vtype t = {KN_V_TENSOR, {.dtype = KN_F32, .rank = 2, .dims = {dim, 4}}},
           u = {KN_V_TENSOR, {.dtype = KN_F32, .rank = 2, .dims = {2, 4}}};
  random_keep(&m, kn_add_input(&b, "x", &t));
  static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_NUMBER, KN_V_BOOL};
  for (int i = 0; i < 4; i++) random_keep(&m, kn_add_input(&b, NULL, &(kn_vtype){.kind = kinds[i]}));
  kn_tensor *data, *other;
  kn_vtype odd = u;
  odd.tensor.dtype = (uint8_t)(seed % KN_DTYPE_COUNT);
  OK(c, kn_tensor_new(c, &u.tensor, &data));
  OK(c, kn_tensor_new(c, &odd.tensor, &other));
  size_t size = kn_dtype_size((kn_dtype)odd.tensor.dtype);
  for (int i = 0; i < 8; i++) {
    ((float *)kn_tensor_data(data))[i] = 0.1f * (float)i;
    kn_element_put_float((kn_dtype)odd.tensor.dtype, (char *)kn_tensor_data(other) + (size_t)i * size,
                         1.3 * i);
  }
  kn_add_slot(&b, KN_SLOT_CONST, "k", &odd, other);
  kn_tensor_release(other);
  kn_add_slot(&b, KN_SLOT_PARAM, "net.w", &u, data);
  kn_add_slot(&b, KN_SLOT_STATE, "count", &(kn_vtype){.kind = KN_V_INT}, NULL);
  kn_tensor_release(data);
  kn_add_guard(&b, "global", "n", "3", kn_where_intern(&b, "a.lua", 1, NULL));
  random_block(&m);
  random_block(&m);
  kn_tree pool[200], results[3];
  int used = 0;
  for (int i = 0; i < 3; i++) results[i] = random_tree(&m, pool, &used, 0);
  kn_set_results(&b, NULL, 0, results, random_below(&m.r, 4));
  OK(c, kn_graph_finish(&b));
  return g;
}

#endif
