/* Random well-formed graphs, and what they mean: an evaluator that walks the IR with kn_apply and plans
 * nothing. A graph takes %x, %y: float32[N,3], an integer and a float; its values are mostly float32[N,3], so
 * that any of them fits anywhere, among them views, results of branches and loops, and carried values that
 * swap places. */
#ifndef SPEC_RANDOM_GRAPH_H
#define SPEC_RANDOM_GRAPH_H
#include "graph/exec.h"
#include "graph/scalar.h"
#include "spec/tensors.h"

/* ---- making ---- */

enum { RG_POOL = 400 };
typedef struct rg_pool { /* what may be used here; a region sees those around it */
  kn_value *t[RG_POOL], *i[RG_POOL], *f[RG_POOL], *b[RG_POOL];
  int nt, ni, nf, nb;
} rg_pool;

typedef struct rg {
  kn_builder *b;
  uint64_t seed, drawn;
  int budget; /* steps left */
  bool plain; /* nothing that only a host can do: sizes that change, lists, positions by data, state, draws */
  kn_device_id device;
  kn_slot *state, *param;
} rg;

static inline int rg_draw(rg *g, int n) {
  return (int)(kn_random_word(g->seed, 0, g->drawn++) % (uint32_t)n);
}

static inline kn_value *rg_op(rg *g, kn_op op, const void *attrs, int n, kn_value *a, kn_value *b) {
  kn_node *m = kn_add_op(g->b, op, attrs, (kn_value *[]){a, b}, (uint32_t)n, NULL, 0);
  return m ? m->out[0] : NULL;
}
static inline kn_value *rg_unary(rg *g, kn_value *x) {
  static const kn_op ops[] = {KN_OP_neg, KN_OP_tanh, KN_OP_relu, KN_OP_sin, KN_OP_sigmoid, KN_OP_clone};
  return rg_op(g, ops[rg_draw(g, 6)], NULL, 1, x, NULL);
}
static inline kn_value *rg_binary(rg *g, kn_value *x, kn_value *y) {
  static const kn_op ops[] = {KN_OP_add, KN_OP_sub, KN_OP_mul, KN_OP_maximum};
  return rg_op(g, ops[rg_draw(g, 4)], NULL, 2, x, y);
}
static inline kn_value *rg_transpose(rg *g, kn_value *x) {
  return rg_op(g, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, 1, x, NULL);
}
static inline kn_value *rg_t(rg *g, rg_pool *p) { return p->t[rg_draw(g, p->nt)]; }

static inline kn_value *rg_int(rg *g, int64_t i) {
  return kn_add_const(g->b, (kn_scalar){KN_SCALAR_INT, {.i = i}});
}

static inline kn_value *rg_number(rg *g, double f) {
  kn_value *k = kn_add_const(g->b, (kn_scalar){KN_SCALAR_FLOAT, {.f = f}});
  return kn_add_to_tensor(g->b, k, KN_F32);
}

/* What rules of simplify are about, on a float32[N,3]. */
static inline kn_value *rg_idle(rg *g, kn_value *x, kn_value *y) {
  static const double numbers[] = {1, 0, -0.0, 2, 0.5, -1, 3};
  static const kn_op ops[] = {KN_OP_mul, KN_OP_div, KN_OP_sub, KN_OP_add, KN_OP_pow};
  static const kn_op twice[] = {KN_OP_neg, KN_OP_abs, KN_OP_relu, KN_OP_floor, KN_OP_round};
  kn_attrs_cast same = {.dtype = KN_F32}, wide = {.dtype = KN_F64};
  kn_value *t = rg_number(g, numbers[rg_draw(g, 7)]);
  kn_op op = ops[rg_draw(g, 5)], unary = twice[rg_draw(g, 5)];
  switch (rg_draw(g, 9)) {
  case 0: return rg_op(g, op, NULL, 2, x, t);
  case 1: return op == KN_OP_pow || op == KN_OP_div ? x : rg_op(g, op, NULL, 2, t, x);
  case 2: return rg_op(g, unary, NULL, 1, rg_op(g, unary, NULL, 1, x, NULL), NULL);
  case 3: return rg_op(g, KN_OP_abs, NULL, 1, rg_op(g, KN_OP_neg, NULL, 1, x, NULL), NULL);
  case 4: return rg_binary(g, x, rg_op(g, KN_OP_neg, NULL, 1, y, NULL));
  case 5:
    return rg_op(g, KN_OP_maximum, NULL, 2,
                 rg_op(g, KN_OP_neg, NULL, 1, rg_op(g, KN_OP_mul, NULL, 2, x, t), NULL), y);
  case 6: return rg_transpose(g, rg_transpose(g, x));
  case 7: return rg_op(g, KN_OP_cast, &same, 1, rg_op(g, KN_OP_cast, &wide, 1, x, NULL), NULL);
  default: return rg_op(g, KN_OP_expand_as, NULL, 2, rg_op(g, KN_OP_sum_to, NULL, 2, x, x), x);
  }
}

static inline void rg_put(kn_value **list, int *n, kn_value *v) {
  if (v && *n < RG_POOL) list[(*n)++] = v;
}

/* One more float32[N,3]. */
static inline kn_value *rg_tensor(rg *g, rg_pool *p) {
  kn_value *x = rg_t(g, p), *y = rg_t(g, p), *t, *d[2];
  kn_attrs_sizes flat = {.sizes = {1, {-1}}}, like = {.sizes = {2, {KN_DYN(0), 3}}};
  kn_node *n;
  int what = rg_draw(g, 18);
  switch (g->plain && what == 12 ? 0 : what) {
  case 0:
  case 1: return rg_unary(g, x);
  case 2:
  case 3: return rg_binary(g, x, y);
  case 4: return rg_transpose(g, rg_unary(g, rg_transpose(g, x)));
  case 5:
    return rg_op(g, KN_OP_reshape_as, NULL, 2, rg_op(g, KN_OP_reshape, &flat, 1, rg_transpose(g, x), NULL),
                 y);
  case 6: /* the first row, to all */
    t = rg_op(g, KN_OP_slice, &(kn_attrs_slice){.dim = 0, .start = 0, .stop = 1, .step = 1}, 1, x, NULL);
    return rg_op(g, KN_OP_expand_as, NULL, 2, t, y);
  case 7: return rg_op(g, KN_OP_matmul, NULL, 2, x, kn_add_slot_node(g->b, KN_NODE_param, g->param));
  case 8: return rg_op(g, KN_OP_softmax, &(kn_attrs_axis){.dim = rg_draw(g, 2)}, 1, x, NULL);
  case 9: /* joined, and its last or first part taken again */
    t = rg_op(g, KN_OP_cat, &(kn_attrs_axis_first){.dim = 0}, 2, x, y);
    d[0] = kn_add_size(g->b, x, 0);
    n = rg_draw(g, 2)
            ? kn_add_op(g->b, KN_OP_slice, &(kn_attrs_slice){0, 0, KN_DYN(0), KN_TO_END, 1}, &t, 1, d, 1)
            : kn_add_op(g->b, KN_OP_slice, &(kn_attrs_slice){0, 0, 0, KN_DYN(0), 1}, &t, 1, d, 1);
    return n ? rg_op(g, KN_OP_reshape_as, NULL, 2, n->out[0], y) : NULL;
  case 10:
    d[0] = kn_add_size(g->b, x, 0);
    n = kn_add_op(g->b, KN_OP_reshape, &like, (kn_value *[]){rg_op(g, KN_OP_reshape, &flat, 1, x, NULL)}, 1,
                  d, 1);
    return n ? rg_op(g, KN_OP_reshape_as, NULL, 2, n->out[0], x) : NULL;
  case 11:
    return p->nf ? rg_binary(g, x, kn_add_to_tensor(g->b, p->f[rg_draw(g, p->nf)], KN_F32)) : rg_unary(g, x);
  case 12: /* at a position that data decides */
    t = p->i[rg_draw(g, p->ni)];
    d[0] = kn_add_scalar(g->b, KN_NODE_lua_mod, (kn_value *[]){t, kn_add_size(g->b, x, 0)}, 2);
    n = kn_add_op(g->b, KN_OP_select, &(kn_attrs_select){0, 0, KN_DYN(0)}, &x, 1, d, 1);
    if (!n || !rg_draw(g, 3)) return n ? rg_binary(g, y, n->out[0]) : NULL;
    d[0] = kn_add_scalar(g->b, KN_NODE_lua_mod,
                         (kn_value *[]){p->i[rg_draw(g, p->ni)], kn_add_size(g->b, y, 0)}, 2);
    n = kn_add_op(g->b, KN_OP_select_put, &(kn_attrs_select){0, 0, KN_DYN(0)}, (kn_value *[]){y, n->out[0]},
                  2, d, 1);
    return n ? n->out[0] : NULL;
  case 13: { /* as another dtype, and back */
    kn_attrs_cast to = {.dtype = (kn_dtype)rg_draw(g, KN_DTYPE_COUNT)}, back = {.dtype = KN_F32};
    t = rg_op(g, KN_OP_cast, &to, 1, x, NULL);
    if (to.dtype != KN_BOOL) t = rg_op(g, KN_OP_add, NULL, 2, t, t);
    return rg_op(g, KN_OP_cast, &back, 1, t, NULL);
  }
  case 14:
  case 15: return rg_idle(g, x, y);
  case 16: /* the same twice */
    t = rg_op(g, KN_OP_tanh, NULL, 1, x, NULL);
    return rg_binary(g, t, rg_draw(g, 2) ? rg_op(g, KN_OP_tanh, NULL, 1, x, NULL) : rg_binary(g, x, y));
  default:
    if (!p->nb) return rg_unary(g, x);
    return kn_add_select(g->b, p->b[rg_draw(g, p->nb)], x, y);
  }
}

static inline void rg_scalar(rg *g, rg_pool *p) {
  kn_value *x = rg_t(g, p), *s, *a = p->i[rg_draw(g, p->ni)], *c = p->i[rg_draw(g, p->ni)];
  switch (rg_draw(g, 5)) {
  case 0:
    s = rg_op(g, KN_OP_mean, &(kn_attrs_reduce){0}, 1, x, NULL);
    rg_put(p->f, &p->nf, kn_add_item(g->b, s));
    break;
  case 1: rg_put(p->i, &p->ni, kn_add_size(g->b, x, 0)); break;
  case 2:
    rg_put(p->i, &p->ni,
           kn_add_scalar(g->b, rg_draw(g, 2) ? KN_NODE_lua_add : KN_NODE_lua_sub, (kn_value *[]){a, c}, 2));
    break;
  case 3: rg_put(p->b, &p->nb, kn_add_scalar(g->b, KN_NODE_lua_lt, (kn_value *[]){a, c}, 2)); break;
  default:
    if (p->nf > 1)
      rg_put(p->b, &p->nb,
             kn_add_scalar(g->b, KN_NODE_lua_le,
                           (kn_value *[]){p->f[rg_draw(g, p->nf)], p->f[rg_draw(g, p->nf)]}, 2));
  }
}

static inline void rg_steps(rg *g, rg_pool *p, int n, int depth);

static inline void rg_if(rg *g, rg_pool *p, int depth) {
  kn_region *outer = g->b->at;
  kn_node *n = kn_add_if(g->b, p->b[rg_draw(g, p->nb)]);
  if (!n) return;
  kn_value *t[2][2], *i[2];
  for (int side = 0; side < 2; side++) {
    rg_pool *in = malloc(sizeof *in);
    *in = *p;
    g->b->at = n->regions[side];
    rg_steps(g, in, rg_draw(g, 5), depth + 1);
    for (int k = 0; k < 2; k++) t[side][k] = rg_draw(g, 3) ? in->t[in->nt - 1 - k] : rg_t(g, in);
    i[side] = in->i[rg_draw(g, in->ni)];
    free(in);
  }
  g->b->at = outer;
  int outs = rg_draw(g, 3);
  for (int k = 0; k < outs; k++) rg_put(p->t, &p->nt, kn_if_output(g->b, n, NULL, NULL, t[0][k], t[1][k]));
  rg_put(p->i, &p->ni, kn_if_output(g->b, n, NULL, NULL, i[0], i[1]));
}

/* An element of the list, at a position that data decides. */
static inline kn_value *rg_element(rg *g, kn_value *list, rg_pool *p, kn_value *like) {
  kn_value *at[2] = {p->i[rg_draw(g, p->ni)], kn_add_list_length(g->b, list)};
  at[0] = kn_add_scalar(g->b, KN_NODE_lua_mod, at, 2);
  at[1] = rg_int(g, 1);
  kn_value *t = kn_add_list_get(g->b, list, kn_add_scalar(g->b, KN_NODE_lua_add, at, 2));
  return rg_op(g, KN_OP_reshape_as, NULL, 2, t, like);
}

/* Runs one to four times; the last value carried may grow by a row a trip. */
static inline void rg_loop(rg *g, rg_pool *p, int depth) {
  kn_region *outer = g->b->at;
  kn_value *zero = rg_int(g, 0), *one = rg_int(g, 1), *four = rg_int(g, 4);
  kn_value *left = kn_add_scalar(g->b, KN_NODE_lua_mod, (kn_value *[]){p->i[rg_draw(g, p->ni)], four}, 2);
  bool grows = !rg_draw(g, 3) && !g->plain, lists = !rg_draw(g, 2) && !g->plain;
  int nt = 1 + rg_draw(g, 3), at_list = 1 + nt + grows;
  kn_value *init[4], *param[7], *next[7];
  for (int k = 0; k < nt; k++) init[k] = rg_t(g, p);
  kn_node *n = kn_add_loop(g->b);
  if (!n) return;
  rg_pool *in = malloc(sizeof *in);
  *in = *p;
  param[0] = kn_loop_param(g->b, n, NULL, NULL, left);
  for (int k = 0; k < nt; k++)
    rg_put(in->t, &in->nt, param[1 + k] = kn_loop_param(g->b, n, NULL, NULL, init[k]));
  kn_vtype open = {KN_V_TENSOR,
                   {.dtype = KN_F32, .device = (uint8_t)g->device, .rank = 2, .dims = {KN_DIM_UNKNOWN, 3}}};
  if (grows) param[1 + nt] = kn_loop_param(g->b, n, &open, NULL, init[0]);
  kn_value *empty = lists ? kn_add_list(g->b, &init[0]->type) : NULL;
  if (empty) {
    kn_node_move_before(empty->def, n);
    empty = kn_add_append(g->b, empty, init[0]);
    kn_node_move_before(empty->def, n);
    kn_vtype of = kn_list_of(open);
    param[at_list] = kn_loop_param(g->b, n, &of, NULL, empty);
  }
  rg_put(in->i, &in->ni, param[0]);
  g->b->at = n->regions[0];
  rg_steps(g, in, 1 + rg_draw(g, 5), depth + 1);
  next[0] = kn_add_scalar(g->b, KN_NODE_lua_sub, (kn_value *[]){param[0], one}, 2);
  for (int k = 0; k < nt; k++) {
    int how = rg_draw(g, 4); /* itself, another parameter, anything, something made here */
    next[1 + k] = how == 0   ? param[1 + k]
                  : how == 1 ? param[1 + rg_draw(g, nt)]
                  : how == 2 ? rg_t(g, in)
                             : in->t[in->nt - 1];
  }
  if (grows) {
    kn_value *row = rg_op(g, KN_OP_slice, &(kn_attrs_slice){0, 0, 0, 1, 1}, 1, rg_t(g, in), NULL);
    next[1 + nt] = rg_op(g, KN_OP_cat, &(kn_attrs_axis_first){.dim = 0}, 2, param[1 + nt], row);
  }
  if (empty) { /* appended to twice: one of them has to copy */
    kn_value *other = rg_draw(g, 2) ? kn_add_append(g->b, param[at_list], rg_t(g, in)) : NULL;
    next[at_list] = kn_add_append(g->b, param[at_list], in->t[in->nt - 1]);
    if (other) rg_put(in->t, &in->nt, rg_element(g, other, in, rg_t(g, in)));
  }
  kn_value *more = kn_add_scalar(g->b, KN_NODE_lua_lt, (kn_value *[]){zero, param[0]}, 2);
  kn_value *exits[2] = {rg_t(g, in), in->t[in->nt - 1]};
  g->b->at = outer;
  free(in);
  kn_loop_finish(g->b, n, more, next);
  for (int k = 0; k < 2; k++) rg_put(p->t, &p->nt, kn_loop_output(g->b, n, NULL, NULL, exits[k]));
  if (empty && g->b->status == KN_OK) {
    kn_value *all = kn_loop_output(g->b, n, NULL, NULL, next[at_list]);
    rg_put(p->i, &p->ni, kn_add_list_length(g->b, all));
    rg_put(p->t, &p->nt, rg_element(g, all, p, rg_t(g, p)));
    kn_value *rows =
        rg_op(g, KN_OP_sum, &(kn_attrs_reduce){.dim = {1, {0}}}, 1, kn_add_list_stack(g->b, all), NULL);
    rg_put(p->t, &p->nt, rg_op(g, KN_OP_reshape_as, NULL, 2, rows, rg_t(g, p)));
  }
  if (grows && g->b->status == KN_OK) {
    kn_value *all = kn_loop_output(g->b, n, NULL, NULL, rg_draw(g, 2) ? next[1 + nt] : param[1 + nt]);
    kn_value *sum =
        rg_op(g, KN_OP_sum, &(kn_attrs_reduce){.dim = {1, {0}}, .keepdim = true}, 1, rg_unary(g, all), NULL);
    rg_put(p->t, &p->nt, rg_binary(g, sum, rg_t(g, p)));
  }
}

static inline void rg_steps(rg *g, rg_pool *p, int n, int depth) {
  for (int k = 0; k < n && g->budget > 0 && g->b->status == KN_OK; k++) {
    g->budget--;
    int what = rg_draw(g, 20);
    if (g->plain && what >= 7 && what <= 9) what = 10;
    if (what < 2 && p->nb && depth < 4)
      rg_if(g, p, depth);
    else if (what < 4 && depth < 3)
      rg_loop(g, p, depth);
    else if (what < 7)
      rg_scalar(g, p);
    else if (what == 7)
      rg_put(p->t, &p->nt,
             kn_add_slot_node(g->b, KN_NODE_load_state, g->state)
                 ? rg_binary(g, rg_t(g, p), kn_add_slot_node(g->b, KN_NODE_load_state, g->state))
                 : NULL);
    else if (what == 8)
      kn_add_store(g->b, g->state,
                   rg_op(g, KN_OP_mean, &(kn_attrs_reduce){.dim = {1, {0}}}, 1, rg_t(g, p), NULL));
    else if (what == 9)
      rg_put(p->t, &p->nt,
             rg_binary(g,
                       rg_op(g, KN_OP_rand,
                             &(kn_attrs_create){.sizes = {1, {3}}, .dtype = KN_F32, .device = (int)g->device},
                             0, NULL, NULL),
                       rg_t(g, p)));
    else
      rg_put(p->t, &p->nt, rg_tensor(g, p));
  }
}

static inline kn_graph *random_graph_of(kn_context *c, uint64_t seed, int steps, bool plain, kn_device_id d) {
  kn_graph *g;
  kn_builder b;
  OK(c, kn_graph_new(c, "random", &g));
  kn_builder_init(&b, c, g);
  kn_vtype t = {KN_V_TENSOR,
                {.dtype = KN_F32, .device = (uint8_t)d, .rank = 2, .dims = {kn_symbol_intern(&b, "N"), 3}}};
  kn_vtype m = {KN_V_TENSOR, {.dtype = KN_F32, .device = (uint8_t)d, .rank = 2, .dims = {3, 3}}},
           s = {KN_V_TENSOR, {.dtype = KN_F32, .device = (uint8_t)d, .rank = 1, .dims = {3}}};
  rg r = {.b = &b, .seed = seed, .budget = steps, .plain = plain, .device = d};
  r.param = kn_add_slot(&b, KN_SLOT_PARAM, "m", &m, NULL);
  r.state = kn_add_slot(&b, KN_SLOT_STATE, "s", &s, NULL);
  rg_pool *p = calloc(1, sizeof *p);
  p->t[p->nt++] = kn_add_input(&b, "x", &t);
  p->t[p->nt++] = kn_add_input(&b, "y", &t);
  p->i[p->ni++] = kn_add_input(&b, "i", &(kn_vtype){.kind = KN_V_INT});
  p->f[p->nf++] = kn_add_input(&b, "f", &(kn_vtype){.kind = KN_V_FLOAT});
  p->b[p->nb++] = kn_add_scalar(&b, KN_NODE_lua_lt, (kn_value *[]){p->i[0], rg_int(&r, 2)}, 2);
  rg_steps(&r, p, steps, 0);
  kn_value *outs[6];
  int n = 0;
  for (int k = 0; k < 4; k++) outs[n++] = k < 2 ? p->t[p->nt - 1 - k] : rg_t(&r, p);
  outs[n++] = p->i[p->ni - 1];
  outs[n++] = p->f[p->nf - 1];
  free(p);
  kn_set_results(&b, outs, (uint32_t)n, NULL, 0);
  OK(c, b.status);
  OK(c, kn_graph_finish(&b));
  return g;
}

static inline kn_graph *random_graph(kn_context *c, uint64_t seed, int steps) {
  return random_graph_of(c, seed, steps, false, KN_CPU);
}

/* ---- meaning ---- */

typedef struct ev {
  kn_context *c;
  kn_tensor **t; /* by value id, owned */
  kn_scalar *s;
  kn_list **l;
  kn_rvalue *slots; /* tensors owned */
} ev;

static inline void ev_set(ev *e, const kn_value *to, kn_tensor *owned) {
  kn_tensor_release(e->t[to->id]);
  e->t[to->id] = owned;
}
static inline void ev_list(ev *e, const kn_value *to, kn_list *owned) {
  kn_list_release(e->l[to->id]);
  e->l[to->id] = owned;
}
static inline kn_list *ev_held(ev *e, const kn_value *v) {
  return e->l[v->id] ? kn_list_retain(e->l[v->id]) : NULL;
}
static inline kn_tensor *ev_tensor(ev *e, const kn_value *v) {
  return e->t[v->id] ? kn_tensor_retain(e->t[v->id]) : NULL;
}
static inline void ev_copy(ev *e, const kn_value *to, const kn_value *from) {
  ev_list(e, to, ev_held(e, from));
  if (to->type.kind == KN_V_TENSOR)
    ev_set(e, to, ev_tensor(e, from));
  else
    e->s[to->id] = e->s[from->id];
}

static inline kn_status ev_region(ev *e, const kn_region *r);

static inline kn_status ev_op(ev *e, const kn_node *n) {
  kn_attrs_any room;
  kn_scalar dyn[KN_MAX_DYN];
  kn_tensor *in[KN_MAX_INPUTS], *out[KN_MAX_OUTPUTS];
  for (uint32_t i = 0; i < n->nin; i++) {
    if (i < n->ntensor)
      in[i] = e->t[n->in[i]->id];
    else
      dyn[i - n->ntensor] = e->s[n->in[i]->id];
  }
  KN_TRY(kn_node_attrs(e->c, n, dyn, &room));
  KN_TRY(kn_apply(e->c, (kn_op)n->op, n->attrs ? &room : NULL, in, (int)n->ntensor, out));
  for (uint32_t i = 0; i < n->nout; i++) ev_set(e, n->out[i], out[i]);
  return KN_OK;
}

static inline kn_status ev_loop(ev *e, const kn_node *n) {
  const kn_region *r = n->regions[0];
  kn_rvalue next[200];
  for (uint32_t i = 0; i < r->nparams; i++) ev_copy(e, r->params[i], n->in[i]);
  for (;;) {
    KN_TRY(ev_region(e, r));
    if (!e->s[r->yields[0]->id].as.b) break;
    for (uint32_t i = 0; i < r->nparams; i++) {
      const kn_value *v = r->yields[1 + i];
      next[i] = (kn_rvalue){v->type.kind == KN_V_TENSOR ? ev_tensor(e, v) : NULL, e->s[v->id], ev_held(e, v)};
    }
    for (uint32_t i = 0; i < r->nparams; i++) {
      ev_list(e, r->params[i], next[i].list);
      if (r->params[i]->type.kind == KN_V_TENSOR)
        ev_set(e, r->params[i], next[i].tensor);
      else
        e->s[r->params[i]->id] = next[i].scalar;
    }
  }
  for (uint32_t i = 0; i < n->nout; i++) ev_copy(e, n->out[i], r->yields[1 + r->nparams + i]);
  return KN_OK;
}

static inline kn_status ev_node(ev *e, const kn_node *n) {
  kn_scalar in[3];
  if (kn_opcode_is_op(n->op)) return ev_op(e, n);
  for (uint32_t i = 0; i < n->nin && i < 3; i++) in[i] = e->s[n->in[i]->id];
  kn_tensor *t = NULL;
  switch ((int)n->op) {
  case KN_NODE_const: e->s[n->out[0]->id] = n->scalar; return KN_OK;
  case KN_NODE_param:
  case KN_NODE_tensor:
  case KN_NODE_load_state:
    ev_set(e, n->out[0], kn_tensor_retain(e->slots[n->slot->index].tensor));
    return KN_OK;
  case KN_NODE_store_state:
    kn_tensor_release(e->slots[n->slot->index].tensor);
    e->slots[n->slot->index].tensor = NULL; /* what is stored has no history */
    return kn_tensor_alias(e->c, e->t[n->in[0]->id], &e->slots[n->slot->index].tensor);
  case KN_NODE_if: {
    const kn_region *r = n->regions[in[0].as.b ? 0 : 1];
    KN_TRY(ev_region(e, r));
    for (uint32_t i = 0; i < n->nout; i++) ev_copy(e, n->out[i], r->yields[i]);
    return KN_OK;
  }
  case KN_NODE_loop: return ev_loop(e, n);
  case KN_NODE_size:
    return kn_size(e->c, e->t[n->in[0]->id], (int)*(int64_t *)n->attrs, &e->s[n->out[0]->id]);
  case KN_NODE_item: return kn_item(e->c, e->t[n->in[0]->id], &e->s[n->out[0]->id]);
  case KN_NODE_to_tensor:
    KN_TRY(kn_scalar_tensor(e->c, &in[0], *(kn_dtype *)n->attrs, &t));
    ev_set(e, n->out[0], t);
    return KN_OK;
  case KN_NODE_undef: ev_set(e, n->out[0], NULL); return KN_OK;
  case KN_NODE_list_new: ev_list(e, n->out[0], NULL); return KN_OK;
  case KN_NODE_list_append: {
    kn_list *made;
    kn_element x = {n->in[1]->type.kind == KN_V_TENSOR ? ev_tensor(e, n->in[1]) : NULL, ev_held(e, n->in[1]),
                    in[1]};
    KN_TRY(kn_list_append(e->c, e->l[n->in[0]->id], n->out[0]->type.kind, x, &made));
    ev_list(e, n->out[0], made);
    return KN_OK;
  }
  case KN_NODE_list_get: {
    kn_list *l = e->l[n->in[0]->id];
    if (in[1].as.i < 1 || in[1].as.i > kn_list_length(l)) return kn_fail(e->c, KN_INDEX, "element");
    const kn_element *x = kn_list_at(l, (uint32_t)in[1].as.i - 1);
    ev_set(e, n->out[0], x->tensor ? kn_tensor_retain(x->tensor) : NULL);
    ev_list(e, n->out[0], x->list ? kn_list_retain(x->list) : NULL);
    e->s[n->out[0]->id] = x->scalar;
    return KN_OK;
  }
  case KN_NODE_list_first:
  case KN_NODE_list_thin: {
    kn_list *l = e->l[n->in[0]->id], *part;
    int64_t all = kn_list_length(l), count = n->nin > 1 ? in[1].as.i : all;
    if (count < 0 || count > all) return kn_fail(e->c, KN_INDEX, "the first");
    KN_TRY(kn_list_part(e->c, l, (uint32_t)count, n->nin > 1 ? 1 : 2, &part));
    ev_list(e, n->out[0], part);
    return KN_OK;
  }
  case KN_NODE_list_sum:
  case KN_NODE_list_with: {
    kn_list *l = e->l[n->in[0]->id], *made;
    KN_TRY(n->op == KN_NODE_list_sum ? kn_list_sum(e->c, l, e->l[n->in[1]->id], n->out[0]->type.kind, &made)
                                     : kn_list_with(e->c, l, n->out[0]->type.kind, in[1].as.i, in[2].as.i,
                                                    e->t[n->in[3]->id], &made));
    ev_list(e, n->out[0], made);
    return KN_OK;
  }
  case KN_NODE_list_bytes:
    e->s[n->out[0]->id] = (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)kn_list_bytes(e->l[n->in[0]->id])}};
    return KN_OK;
  case KN_NODE_list_length:
    e->s[n->out[0]->id] = (kn_scalar){KN_SCALAR_INT, {.i = kn_list_length(e->l[n->in[0]->id])}};
    return KN_OK;
  case KN_NODE_list_stack: {
    kn_list *l = e->l[n->in[0]->id];
    kn_tensor *all[16];
    for (uint32_t i = 0; i < kn_list_length(l) && i < 16; i++) all[i] = kn_list_at(l, i)->tensor;
    KN_TRY(kn_apply(e->c, KN_OP_stack, &(kn_attrs_axis_first){.dim = 0}, all, (int)kn_list_length(l), &t));
    ev_set(e, n->out[0], t);
    return KN_OK;
  }
  case KN_NODE_defined:
    e->s[n->out[0]->id] = (kn_scalar){KN_SCALAR_BOOL, {.b = e->t[n->in[0]->id] != NULL}};
    return KN_OK;
  case KN_NODE_with_history:
  case KN_NODE_detach:
    KN_TRY(kn_tensor_alias(e->c, e->t[n->in[0]->id], &t));
    ev_set(e, n->out[0], t);
    return KN_OK;
  case KN_NODE_select: ev_copy(e, n->out[0], n->in[in[0].as.b ? 1 : 2]); return KN_OK;
  default: return kn_scalar_eval(e->c, n->op, in, n->nin, &e->s[n->out[0]->id]);
  }
}

static inline kn_status ev_region(ev *e, const kn_region *r) {
  KN_EACH_NODE (n, r) KN_TRY(ev_node(e, n));
  return KN_OK;
}

/* Slots are read and replaced on success; out is owned. */
static inline kn_status evaluate(kn_context *c, const kn_graph *g, kn_rvalue *slots, const kn_rvalue *in,
                                 kn_rvalue *out) {
  ev e = {c, calloc(g->nvalues + 1, sizeof *e.t), calloc(g->nvalues + 1, sizeof *e.s),
          calloc(g->nvalues + 1, sizeof *e.l), calloc(g->nslots + 1, sizeof *e.slots)};
  kn_random before = c->random;
  for (uint32_t i = 0; i < g->nslots; i++) e.slots[i].tensor = kn_tensor_retain(slots[i].tensor);
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    uint32_t v = g->body->params[i]->id;
    e.t[v] = in[i].tensor ? kn_tensor_retain(in[i].tensor) : NULL;
    e.s[v] = in[i].scalar;
  }
  kn_status st = ev_region(&e, g->body);
  for (uint32_t i = 0; st == KN_OK && i < g->body->nyields; i++) {
    uint32_t v = g->body->yields[i]->id;
    out[i] = (kn_rvalue){e.t[v] ? kn_tensor_retain(e.t[v]) : NULL, e.s[v], ev_held(&e, g->body->yields[i])};
  }
  if (st != KN_OK) c->random = before;
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_tensor_release(st == KN_OK ? slots[i].tensor : e.slots[i].tensor);
    if (st == KN_OK) slots[i].tensor = e.slots[i].tensor;
  }
  for (uint32_t v = 0; v <= g->nvalues; v++) kn_tensor_release(e.t[v]), kn_list_release(e.l[v]);
  free(e.l), free(e.t), free(e.s), free(e.slots);
  return st;
}

/* The same numbers to the bit. */
static inline bool same_result(const kn_rvalue *a, const kn_rvalue *b) {
  if (!a->tensor || !b->tensor)
    return !a->tensor && !b->tensor && a->scalar.kind == b->scalar.kind && a->scalar.as.i == b->scalar.as.i;
  if (!kn_type_equal(&a->tensor->type, &b->tensor->type)) return false;
  for (int64_t k = 0; k < kn_tensor_numel(a->tensor); k++)
    if (memcmp(element_at(a->tensor, k), element_at(b->tensor, k), kn_dtype_size(kn_tensor_dtype(a->tensor))))
      return false;
  return true;
}

/* What such a graph takes. */
static inline void rg_inputs(kn_context *c, uint64_t seed, int run, kn_rvalue in[4]) {
  kn_type t = type_of(KN_F32, DIMS(1 + run, 3));
  for (int i = 0; i < 2; i++) {
    OK(c, kn_tensor_new(c, &t, &in[i].tensor));
    for (int64_t k = 0; k < kn_tensor_numel(in[i].tensor); k++)
      set_element(in[i].tensor, k, (double)kn_random_word(seed, (uint64_t)i, (uint64_t)k) / 0x1p31 - 1);
  }
  in[2] = (kn_rvalue){.scalar = {KN_SCALAR_INT, {.i = run}}};
  in[3] = (kn_rvalue){.scalar = {KN_SCALAR_FLOAT, {.f = run * 0.3 - 0.5}}};
}

/* ---- a session against the evaluator ---- */

/* Takes t over. */
static inline kn_tensor *rg_moved(kn_context *c, kn_tensor *t, kn_device_id d) {
  kn_tensor *out;
  if (t->type.device == d) return t;
  OK(c, kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = d}, &t, 1, &out));
  kn_tensor_release(t);
  return out;
}

/* Within `most` of the larger; 0: to the bit. */
static inline bool rg_near(const kn_rvalue *a, const kn_rvalue *b, double most) {
  if (!most || !a->tensor != !b->tensor) return same_result(a, b);
  if (!a->tensor) {
    if (a->scalar.kind != KN_SCALAR_FLOAT || b->scalar.kind != KN_SCALAR_FLOAT) return same_result(a, b);
    return near(a->scalar.as.f, b->scalar.as.f, most);
  }
  bool same = kn_type_equal(&a->tensor->type, &b->tensor->type);
  for (int64_t k = 0; same && k < kn_tensor_numel(a->tensor); k++)
    same = near(element(a->tensor, k), element(b->tensor, k), most);
  return same;
}

/* Releases both. */
static inline bool rg_same(kn_context *c, kn_rvalue *a, kn_rvalue *b, double most) {
  if (a->tensor) a->tensor = rg_moved(c, a->tensor, KN_CPU);
  if (b->tensor) b->tensor = rg_moved(c, b->tensor, KN_CPU);
  const bool same = rg_near(a, b, most);
  kn_tensor_release(a->tensor), kn_tensor_release(b->tensor);
  return same;
}

/* Which tensors the results are, where branches and loops hand them on. */
static inline void rg_same_tensors(const kn_graph *g, const kn_session *s, const kn_rvalue *in,
                                   const kn_rvalue *want, const kn_rvalue *got, uint64_t seed) {
  for (uint32_t i = 0; i < 4; i++) {
    const kn_node *d = g->body->yields[i]->def;
    const kn_origin from = kn_session_origin(s, i);
    if (!d || kn_opcode_is_op(d->op)) continue;
    bool input = false;
    for (uint32_t k = 0; k < 2 && !input; k++) {
      if ((input = want[i].tensor == in[k].tensor))
        ck_assert_msg(from.from == KN_FROM_INPUT && from.index == k, "seed %d: result %d is no input",
                      (int)seed, (int)i + 1);
    }
    ck_assert_msg(input || from.from != KN_FROM_INPUT, "seed %d: result %d is an input", (int)seed,
                  (int)i + 1);
    for (uint32_t k = 0; k < i && !input; k++)
      ck_assert_msg((want[i].tensor == want[k].tensor) == (got[i].tensor == got[k].tensor),
                    "seed %d: results %d and %d", (int)seed, (int)i + 1, (int)k + 1);
  }
}

enum { RG_RUNS = 6 };
/* Runs with several sizes and inputs on tensors of the device. */
static inline void rg_compare(kn_context *c, kn_graph *g, uint64_t seed, kn_device_id d,
                              const kn_target *const *targets, int n, double most) {
  kn_session *s;
  OK(c, kn_session_new(c, g, targets, n, &s));
  kn_context *inner = kn_session_context(s);
  kn_rvalue slots[2], in[4], a[6], b[6], state;
  slots[0].tensor =
      rg_moved(c, make(c, KN_F32, DIMS(3, 3), LIST(1, 0.5, -0.25, 0, 1, 0.75, 0.125, -1, 1)), d);
  slots[1].tensor = rg_moved(c, make(c, KN_F32, DIMS(3), LIST(0.5, -0.5, 1)), d);
  for (uint32_t i = 0; i < 2; i++) OK(inner, kn_session_set_slot(s, i, &slots[i]));
  for (int run = 0; run < RG_RUNS; run++) {
    rg_inputs(c, seed + (uint64_t)(run / 2), run / 2, in);
    for (int i = 0; i < 2; i++) in[i].tensor = rg_moved(c, in[i].tensor, d);
    kn_status want = evaluate(c, g, slots, in, a), got = kn_session_run(s, in, 4, b, 6);
    ck_assert_msg(want == got, "seed %d, run %d: \"%s\" instead of \"%s\"", (int)seed, run,
                  got == KN_OK ? "ok" : kn_error(inner), want == KN_OK ? "ok" : kn_error(c));
    if (want == KN_OK) rg_same_tensors(g, s, in, a, b, seed);
    for (int i = 0; i < 6 && want == KN_OK; i++)
      ck_assert_msg(rg_same(c, &a[i], &b[i], most), "seed %d, run %d, result %d differs", (int)seed, run,
                    i + 1);
    kn_rvalue copy = {.tensor = kn_tensor_retain(slots[1].tensor)};
    OK(inner, kn_session_get_slot(s, 1, &state));
    ck_assert_msg(rg_same(c, &state, &copy, most), "seed %d: the slot differs", (int)seed);
    ck_assert(c->random.offset == inner->random.offset);
    kn_tensor_release(in[0].tensor), kn_tensor_release(in[1].tensor);
  }
  kn_tensor_release(slots[0].tensor), kn_tensor_release(slots[1].tensor);
  kn_session_free(s);
}

#endif
