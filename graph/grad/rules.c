/* The walk back over the nodes of one region, in the order in which the tape goes (so that sums of gradients
 * are the same to the bit), and core's vjp rules run on symbolic tensors. */
#include "graph/grad/inside.h"
#include "core/grad/vjp.h"
#include <string.h>

/* ---- uses: values that a node reads and to which a gradient may flow ---- */

typedef void (*use_fn)(kg_walk *w, kn_value *v, void *ud);

static bool reads_nothing(const kn_node *n) {
  return kn_opcode_is_op(n->op) && (n->no_grad || !kn_ops[n->op].vjp);
}

static void each_use(kg_walk *w, const kn_node *n, use_fn fn, void *ud);

static void each_use_inside(kg_walk *w, const kn_node *n, const kn_region *r, use_fn fn, void *ud) {
  uint32_t before = r->owner && r->owner->op == KN_NODE_loop ? 1 : 0;
  KN_EACH_NODE (m, r) each_use(w, m, fn, ud);
  for (uint32_t i = before; i < r->nyields; i++)
    if (kg_needs(w, r->yields[i])) fn(w, r->yields[i], ud);
  (void)n;
}

static void each_use(kg_walk *w, const kn_node *n, use_fn fn, void *ud) {
  if (reads_nothing(n) || n->op == KN_NODE_detach || n->op == KN_NODE_host_call) return;
  uint32_t count = kn_opcode_is_op(n->op) ? n->ntensor : n->nin;
  for (uint32_t i = n->op == KN_NODE_with_history; i < count; i++)
    if (kg_needs(w, n->in[i])) fn(w, n->in[i], ud);
  for (int k = 0; k < n->nregions; k++) each_use_inside(w, n, n->regions[k], fn, ud);
}

/* ---- the order ---- */

typedef struct place {
  kn_node *n;
  uint32_t pending; /* uses not walked over yet */
} place;

typedef struct order {
  kg_map places; /* by the id of the first result */
  place **list;
  uint32_t n;
  place **ready;
  uint32_t nready;
} order;

static bool in_scope(const kg_walk *w, const kn_node *n) {
  const kg_frame *f = w->f;
  return f->kind == KG_TOP ? kg_visible(n->out[0], f->fwd) : n->region == f->fwd;
}

static place *place_of(kg_walk *w, order *o, kn_value *v) {
  kn_node *n = v->def;
  if (!n || !in_scope(w, n)) return NULL;
  place *p = kg_get(&o->places, n->out[0]->id);
  if (p) return p;
  p = kg_alloc(w, sizeof *p);
  place **list = p ? kn_arena_grow(&w->arena, o->list, o->n, sizeof *list) : NULL;
  if (!list || !kg_put(w, &o->places, n->out[0]->id, p)) return NULL;
  o->list = list;
  o->list[o->n++] = p;
  p->n = n;
  return p;
}

static void count_use(kg_walk *w, kn_value *v, void *ud) {
  place *p = place_of(w, ud, v);
  if (p) p->pending++;
}

static void free_use(kg_walk *w, kn_value *v, void *ud) {
  order *o = ud;
  place *p = place_of(w, o, v);
  if (p && --p->pending == 0) o->ready[o->nready++] = p;
}

static void order_nodes(kg_walk *w, order *o, kn_value *const *ys, uint32_t ny) {
  for (uint32_t i = 0; i < ny; i++)
    if (kg_needs(w, ys[i])) place_of(w, o, ys[i]);
  for (uint32_t i = 0; i < o->n && kg_ok(w); i++) each_use(w, o->list[i]->n, count_use, o);
  o->ready = kg_alloc(w, (o->n + 1) * sizeof(place *));
  for (uint32_t i = 0; o->ready && i < o->n; i++)
    if (!o->list[i]->pending) o->ready[o->nready++] = o->list[i];
  for (uint32_t i = 0; kg_ok(w) && i < o->nready; i++) each_use(w, o->ready[i]->n, free_use, o);
}

/* ---- ops ---- */

typedef struct stand_in { /* in place of a value of which a rule may only ask the sizes; id 0 marks it */
  kn_value value;
  kn_value *of;
} stand_in;

static kn_value *number(kg_walk *w, double f, kn_dtype d) {
  kn_tensor *t;
  kn_recorder *recording = w->ctx->recorder;
  kn_type type = {.dtype = (uint8_t)d, .device = KN_CPU};
  kn_status st = kn_tensor_new(w->ctx, &type, &t);
  if (st != KN_OK) return kn_build_fail(w->b, st);
  kn_scalar_write(&(kn_scalar){KN_SCALAR_FLOAT, {.f = f}}, t);
  kn_value *v = kn_record_value(w->r, t);
  kn_tensor_release(t);
  w->ctx->recorder = recording;
  return v;
}

/* A single zero of that dtype, on that device. */
static kn_value *zero_beside(kg_walk *w, const kn_type *t) {
  const kn_attrs_fill zero = {.dtype = (kn_dtype)t->dtype, .device = t->device};
  if (t->device == KN_CPU) return number(w, 0, (kn_dtype)t->dtype);
  kn_node *made = kn_add_op(w->b, KN_OP_full, &zero, NULL, 0, NULL, 0);
  return made ? made->out[0] : NULL;
}

/* Zeros of the sizes of v, one element stretched. */
static kn_value *zeros_like(kg_walk *w, kn_value *v) {
  const kn_type *t = &v->type.tensor;
  kn_attrs_sizes to = {.sizes = {.n = t->rank}};
  kn_value *dyn[KN_MAX_RANK], *zero = zero_beside(w, t);
  uint32_t n = 0;
  for (int i = 0; i < t->rank; i++) {
    to.sizes.v[i] = t->dims[i];
    if (kn_dim_known(t->dims[i])) continue;
    dyn[n] = kg_see_size(w, v, i);
    to.sizes.v[i] = KN_DYN(n++);
  }
  if (!t->rank) return zero;
  kn_node *made = kn_add_op(w->b, KN_OP_expand, &to, &zero, 1, dyn, n);
  return made ? made->out[0] : NULL;
}

/* kn_record.see */
static kn_value *see(void *ud, kn_value *v, int dim) {
  kg_walk *w = ud;
  kn_value *of = v->id ? NULL : ((stand_in *)v)->of;
  if (dim >= 0) return kg_see_size(w, of ? of : v, dim);
  return of ? zeros_like(w, of) : kg_see(w, v);
}

static bool symbolic(kg_walk *w, const kn_node *n, kn_value *v, bool read, kn_tensor **out) {
  bool again = n && kg_is_again(w, n, v);
  if (read && again && !(v = kg_compute_again(w, v))) return false;
  if (!read && (again || !kg_visible(v, w->b->at))) {
    stand_in *s = kn_build_alloc(w->b, sizeof *s);
    if (!s) return false;
    *s = (stand_in){*v, v};
    s->value.id = 0;
    v = &s->value;
  }
  kn_status st = kn_record_tensor(w->r, v, out);
  if (st != KN_OK) kn_build_fail(w->b, st);
  return st == KN_OK;
}

typedef struct rebinding { /* placeholders of a forward node as the recorder's */
  kg_walk *w;
  const kn_node *n;
} rebinding;

static void rebind(void *ud, int64_t *x) {
  rebinding *r = ud;
  if (!kn_is_dyn(*x)) return;
  kn_value *v = kg_see(r->w, r->n->in[r->n->ntensor + kn_dyn_index(*x)]);
  if (!v) return;
  kn_status st =
      r->w->r->base.dynamic(&r->w->r->base, r->w->ctx, &(kn_scalar){KN_SCALAR_SYMBOL, {.value = v}}, x);
  if (st != KN_OK) kn_build_fail(r->w->b, st);
}

typedef struct call { /* what a rule is given, owned */
  kn_tensor *in[KN_MAX_INPUTS], *out[KN_MAX_OUTPUTS], *gout[KN_MAX_OUTPUTS], *gin[KN_MAX_INPUTS];
  bool need[KN_MAX_INPUTS];
  kn_attrs_any attrs;
} call;

static bool prepare(kg_walk *w, const kn_node *n, const kn_gradient *g, call *c) {
  const kn_op_info *row = &kn_ops[n->op];
  for (uint32_t i = 0; i < n->ntensor; i++) {
    c->need[i] = kg_needs(w, n->in[i]);
    if (!symbolic(w, n, n->in[i], row->saves & KN_SAVE_INPUTS, &c->in[i])) return false;
  }
  for (uint32_t k = 0; k < n->nout; k++) {
    if (!symbolic(w, n, n->out[k], row->saves & KN_SAVE_OUTPUTS, &c->out[k])) return false;
    if (g[k].v && !symbolic(w, NULL, g[k].v, true, &c->gout[k])) return false;
  }
  if (n->attrs && row->attrs != KN_ATTRS_none) {
    memcpy(&c->attrs, n->attrs, kn_attrs_describe(row->attrs).size);
    rebinding r = {w, n};
    kn_attrs_each_int(row->attrs, &c->attrs, rebind, &r);
  }
  return kg_ok(w);
}

static kn_status run_rule(kg_walk *w, const kn_node *n, call *c) {
  kn_recorder *recorder = w->ctx->recorder;
  bool grad = w->ctx->grad_enabled;
  kn_vjp v = {.op = (kn_op)n->op,
              .attrs = n->attrs && kn_ops[n->op].attrs != KN_ATTRS_none ? &c->attrs : NULL,
              .n = (int)n->ntensor,
              .in = c->in,
              .out = c->out,
              .gout = c->gout,
              .need = c->need};
  w->ctx->recorder = &w->r->base;
  w->ctx->grad_enabled = false;
  w->r->reader = n;
  kn_status st = kn_vjp_run(w->ctx, &v, c->gin);
  w->r->reader = NULL;
  w->ctx->recorder = recorder;
  w->ctx->grad_enabled = grad;
  return st;
}

static void op_rule(kg_walk *w, kn_node *n, const kn_gradient *g) {
  call *c = kg_alloc(w, sizeof *c);
  if (!c) return;
  if (prepare(w, n, g, c)) {
    kn_status st = run_rule(w, n, c);
    if (st != KN_OK) kn_build_fail(w->b, st);
  }
  for (uint32_t i = 0; i < n->ntensor && kg_ok(w); i++)
    if (c->gin[i]) kg_add(w, n->in[i], (kn_gradient){kn_record_value(w->r, c->gin[i]), false});
  for (uint32_t i = 0; i < n->ntensor; i++) {
    kn_tensor_release(c->in[i]);
    kn_tensor_release(c->gin[i]);
  }
  for (uint32_t k = 0; k < n->nout; k++) {
    kn_tensor_release(c->out[k]);
    kn_tensor_release(c->gout[k]);
  }
}

/* g where it is defined, else zeros. */
static kn_gradient filled(kg_walk *w, kn_gradient g, kn_value *like) {
  if (!g.v || !g.maybe) return g;
  kn_region *at = w->b->at;
  kn_node *n = kn_add_if(w->b, kn_add_defined(w->b, g.v));
  if (!n) return g;
  w->b->at = n->regions[1];
  kn_value *zero = zeros_like(w, like);
  w->b->at = at;
  return (kn_gradient){kn_if_output(w->b, n, NULL, NULL, g.v, zero), false};
}

/* A node whose results get a gradient on some paths only passes it on there, and nothing elsewhere. */
static void guarded_op_rule(kg_walk *w, kn_node *n) {
  kn_gradient g[KN_MAX_OUTPUTS];
  kn_value *any = NULL;
  bool sure = false;
  for (uint32_t k = 0; k < n->nout; k++) {
    g[k] = kg_find(w, n->out[k]);
    sure |= g[k].v && !g[k].maybe;
  }
  for (uint32_t k = 0; k < n->nout && !sure; k++) {
    if (!g[k].v) continue;
    kn_value *is = kn_add_defined(w->b, g[k].v);
    any = any ? kn_add_select(w->b, any, any, is) : is;
  }
  uint32_t several = n->nout > 1;
  if (sure) {
    for (uint32_t k = 0; k < n->nout; k++) g[k] = filled(w, g[k], n->out[k]);
    op_rule(w, n, g);
    return;
  }
  kg_branch b;
  if (!any || !kg_open(w, &b, any)) return;
  kg_enter(w, &b.side[0]);
  for (uint32_t k = 0; k < n->nout; k++)
    g[k] = several ? filled(w, g[k], n->out[k]) : (kn_gradient){g[k].v, false};
  op_rule(w, n, g);
  kg_leave(w);
  kg_close(w, &b);
}

/* ---- nodes ---- */

static void note_use(kg_walk *w, kn_value *v, void *ud) {
  (void)w, (void)v;
  *(bool *)ud = true;
}

static void node_rule(kg_walk *w, kn_node *n) {
  bool any = false, useful = false;
  for (uint32_t i = 0; i < n->nout; i++) any |= kg_find(w, n->out[i]).v != NULL;
  if (!any) return;
  each_use(w, n, note_use, &useful);
  if (!useful) return;
  w->b->where = n->where;
  if (kn_opcode_is_op(n->op))
    guarded_op_rule(w, n);
  else if (n->op == KN_NODE_if)
    kg_if_rule(w, n);
  else if (n->op == KN_NODE_loop)
    kg_loop_rule(w, n);
  else if (n->op == KN_NODE_select)
    kg_select_rule(w, n);
  else if (n->op == KN_NODE_with_history)
    kg_add(w, n->in[1], kg_find(w, n->out[0]));
  else
    kg_list_rule(w, n);
}

void kg_walk_back(kg_walk *w, kn_value *const *ys, uint32_t ny) {
  order o = {.n = 0};
  order_nodes(w, &o, ys, ny);
  for (uint32_t i = 0; i < o.nready && kg_ok(w); i++) node_rule(w, o.ready[i]->n);
}

/* ---- the request ---- */

static bool floats(const kn_value *v) {
  return kn_innermost(v->type.kind) == KN_V_TENSOR && kn_dtype_is_float((kn_dtype)v->type.tensor.dtype);
}

static bool mark(kg_walk *w, const kn_value *v, bool need) {
  if (!need || v->id > w->n0 || w->need[v->id] || !floats(v)) return false;
  return w->need[v->id] = true;
}

static bool any_in(const kg_walk *w, kn_value *const *list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (kg_needs(w, list[i])) return true;
  return false;
}

static void mark_region(kg_walk *w, const kn_region *r, const kn_node *until);

static void mark_node(kg_walk *w, const kn_node *n) {
  const kn_region *r = n->regions[0];
  if (kn_opcode_is_op(n->op)) {
    bool need = !reads_nothing(n) && any_in(w, n->in, n->ntensor);
    for (uint32_t i = 0; i < n->nout; i++) mark(w, n->out[i], need);
  } else if (n->op == KN_NODE_if) {
    for (int k = 0; k < 2; k++) {
      mark_region(w, n->regions[k], NULL);
      for (uint32_t i = 0; i < n->nout; i++) mark(w, n->out[i], kg_needs(w, n->regions[k]->yields[i]));
    }
  } else if (n->op == KN_NODE_loop) {
    bool changed = true;
    for (uint32_t i = 0; i < r->nparams; i++) mark(w, r->params[i], kg_needs(w, n->in[i]));
    while (changed) {
      changed = false;
      mark_region(w, r, NULL);
      for (uint32_t i = 0; i < r->nparams; i++)
        changed |= mark(w, r->params[i], kg_needs(w, r->yields[1 + i]));
    }
    for (uint32_t i = 0; i < n->nout; i++) mark(w, n->out[i], kg_needs(w, r->yields[1 + r->nparams + i]));
  } else if (n->op == KN_NODE_with_history) {
    mark(w, n->out[0], kg_needs(w, n->in[1]));
  } else if (n->op != KN_NODE_detach && n->op != KN_NODE_host_call) {
    for (uint32_t i = 0; i < n->nout; i++) mark(w, n->out[i], any_in(w, n->in, n->nin));
  }
}

static void mark_region(kg_walk *w, const kn_region *r, const kn_node *until) {
  for (const kn_node *n = r->first; n && n != until; n = n->next) mark_node(w, n);
}

/* What can be seen from r, which is still being built, and where it stands. */
static void mark_scope(kg_walk *w, const kn_region *r, const kn_node *until) {
  const kn_node *owner = r->owner;
  if (owner) mark_scope(w, owner->region, owner);
  for (uint32_t i = 0; owner && owner->op == KN_NODE_loop && i < r->nparams; i++)
    mark(w, r->params[i], kg_needs(w, owner->in[i]));
  mark_region(w, r, until);
}

/* A gradient for the value that a loop still being built carries in would have to go to its earlier trips. */
static void check_params(kg_walk *w, const kn_gradient_request *q) {
  for (const kn_region *r = w->f->fwd; r->owner && kg_ok(w); r = r->owner->region)
    for (uint32_t i = 0; r->owner->op == KN_NODE_loop && i < r->nparams; i++) {
      const kn_value *p = r->params[i];
      bool asked = false;
      for (uint32_t k = 0; k < q->nx; k++) asked |= q->xs[k] == p;
      if (asked || !kg_own(w->f, p).v) continue;
      kn_build_fail(
          w->b, kn_fail(w->ctx, KN_CAPTURE,
                        "a gradient would have to flow through '%s' into earlier trips of the loop around; "
                        "detach it, or take the gradient after the loop",
                        p->name ? p->name : "a value"));
    }
}

/* Loops through which a gradient may flow: they share the memory. */
static size_t count_loops(const kg_walk *w, const kn_region *r) {
  size_t n = 0;
  KN_EACH_NODE (m, r) {
    bool need = false;
    for (uint32_t i = 0; i < m->nout; i++) need |= kg_needs(w, m->out[i]);
    n += need && m->op == KN_NODE_loop;
    for (int k = 0; k < m->nregions; k++) n += count_loops(w, m->regions[k]);
  }
  return n;
}

static size_t share_of(const kg_walk *w, size_t memory) {
  size_t loops = memory ? count_loops(w, w->b->graph->body) : 0;
  if (!loops) return memory;
  return memory < loops ? 1 : memory / loops;
}

static void seed(kg_walk *w, const kn_gradient_request *q, uint32_t i) {
  kn_gradient g = q->gs ? q->gs[i] : (kn_gradient){NULL, false};
  if (!kg_needs(w, q->ys[i])) return;
  if (!g.v) {
    kn_node *one = kn_add_op(w->b, KN_OP_full_like, &(kn_attrs_value){.value = 1}, &q->ys[i], 1, NULL, 0);
    if (one) g.v = one->out[0];
  }
  kg_add(w, q->ys[i], g);
}

/* Marks what depends on the xs. */
static bool open_walk(kg_walk *w, kn_builder *b, kn_value *const *xs, uint32_t nx) {
  *w = (kg_walk){.b = b, .ctx = b->ctx, .n0 = b->graph->nvalues};
  kn_arena_init(&w->arena, b->ctx->heap);
  w->need = kg_alloc(w, w->n0 + 1);
  if (!w->need) return false;
  for (uint32_t i = 0; i < nx; i++) mark(w, xs[i], true);
  mark_scope(w, b->at, NULL);
  return true;
}

bool kn_values_depend(kn_builder *b, kn_value *const *ys, uint32_t ny, kn_value *const *xs, uint32_t nx,
                      bool *out) {
  kg_walk w;
  bool fine = open_walk(&w, b, xs, nx);
  for (uint32_t i = 0; fine && i < ny; i++) out[i] = kg_needs(&w, ys[i]);
  kn_arena_free(&w.arena);
  return fine;
}

bool kn_emit_gradients(const kn_gradient_request *q, kn_gradient *out) {
  kn_builder *b = q->record->b;
  kg_walk w;
  kg_frame top = {.kind = KG_TOP, .fwd = b->at, .em = b->at};
  const kn_where *where = b->where;
  uint32_t again = b->again;
  b->again = 0;
  if (open_walk(&w, b, q->xs, q->nx)) {
    w.r = q->record;
    w.f = &top;
    w.memory = share_of(&w, q->memory);
    q->record->see = see;
    q->record->see_ud = &w;
    for (uint32_t i = 0; i < q->ny && kg_ok(&w); i++) seed(&w, q, i);
    kg_walk_back(&w, q->ys, q->ny);
    check_params(&w, q);
    q->record->see = NULL;
  }
  for (uint32_t i = 0; kg_ok(&w) && i < q->nx; i++) out[i] = kg_own(&top, q->xs[i]);
  b->where = where;
  b->again = again;
  kn_arena_free(&w.arena);
  return b->status == KN_OK;
}
