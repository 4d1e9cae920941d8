/* Handles: what they hold, views of them, and where the tensors come from that must be handles. See handle.h.
 */
#include "graph/mutant.h"
#include "lua/capture/handle.h"
#include <string.h>

/* ---- making ---- */

static uint32_t new_handle(kc_cap *c) {
  if (c->nhan == 0) c->han = kc_more(c, &c->arena, c->han, c->nhan++, sizeof *c->han); /* id 0 is none */
  c->han = kc_more(c, &c->arena, c->han, c->nhan, sizeof *c->han);
  c->han[c->nhan] = (kc_handle_info){0};
  return c->nhan++;
}

static void hold(kc_cap *c, kc_state *s, uint32_t id, const kc_hold *h) {
  kc_map_set(c, &s->holds, s->owner, id, kc_dup(c, h, sizeof *h));
}

uint32_t kc_handle_new(kc_cap *c, kc_state *s, kn_value *contents) {
  uint32_t id = new_handle(c);
  hold(c, s, id, &(kc_hold){.now = contents});
  return id;
}

uint32_t kc_handle_outside(kc_cap *c, kn_value *initial, const kn_tensor *t) {
  uint32_t id = new_handle(c);
  kc_handle_info *info = &c->han[id];
  info->initial = initial;
  info->first = kc_new(c, sizeof(kc_hold));
  *info->first = (kc_hold){.now = initial};
  if (t && !kn_tensor_contiguous(t)) {
    info->strided = true;
    memcpy(info->strides, t->strides, sizeof info->strides);
  }
  return id;
}

bool kc_same_view(const kn_node *a, const kn_node *b) {
  if (a == b || !a || !b) return a == b;
  size_t size = kn_attrs_describe(kn_ops[a->op].attrs).size;
  return a->op == b->op && a->nin == b->nin && a->ntensor == b->ntensor &&
         (kn_ops[a->op].attrs == KN_ATTRS_none || !memcmp(a->attrs, b->attrs, size));
}

/* ---- contents ---- */

const kc_hold *kc_hold_of(kc_cap *c, const kc_state *s, uint32_t id) {
  const kc_hold *h = kc_map_get(&s->holds, id);
  uint32_t parent = c->han[id].parent;
  if (!h) h = c->han[id].first;
  return h && (!parent || kc_hold_of(c, s, parent)) ? h : NULL; /* a view of what is forgotten is, too */
}

bool kc_held(const kc_cap *c, const kc_state *s, uint32_t id) {
  while (id && (kc_map_get(&s->holds, id) || c->han[id].first)) id = c->han[id].parent;
  return !id;
}

kn_value *kc_contents(kc_cap *c, kc_state *s, uint32_t id) {
  const kc_hold *h = kc_hold_of(c, s, id);
  const kc_handle_info *info = &c->han[id];
  if (!h || !info->parent) return h ? h->now : NULL;
  kn_value *base = kc_contents(c, s, info->parent);
  if (!base || (h->now && (h->of == base || KN_MUTANT(view_not_derived_again)))) return base ? h->now : NULL;
  c->b.where = kc_where(c);
  kc_hold next = *h;
  next.of = base;
  next.now = info->view ? kn_view_again(&c->b, info->view, h->in, base) : kn_add_detach(&c->b, base);
  if (next.now) hold(c, s, id, &next);
  return next.now;
}

void kc_set_contents(kc_cap *c, kc_state *s, uint32_t id, kn_value *v) {
  hold(c, s, id, &(kc_hold){.now = v});
}

kn_value *kc_tensor_value(kc_cap *c, kc_state *s, kc_val a) {
  kn_value *v = a.k == KC_V_HANDLE ? kc_contents(c, s, a.id) : a.v;
  return v ? v : kc_dummy(c);
}

/* ---- dims in another order of dims in another order: one view ---- */

typedef struct order { /* dim i is dim [i] of what it shows */
  int rank, dim[KN_MAX_RANK];
} order;

static int axis(const order *o, int64_t d) { return (int)(d < 0 ? d + o->rank : d); }

static bool order_of(const kn_node *view, order *o) {
  if (!view || (view->op != KN_OP_transpose && view->op != KN_OP_permute)) return false;
  o->rank = view->out[0]->type.tensor.rank;
  for (int i = 0; i < o->rank; i++) o->dim[i] = i;
  if (view->op == KN_OP_transpose) {
    const kn_attrs_swap *a = view->attrs;
    int x = axis(o, a->dim0), y = axis(o, a->dim1);
    o->dim[x] = y;
    o->dim[y] = x;
  } else
    for (int i = 0; i < o->rank; i++) o->dim[i] = axis(o, ((const kn_attrs_axes *)view->attrs)->dims.v[i]);
  return true;
}

static kn_node *reorder(kc_cap *c, kn_value *v, const order *o) {
  kn_attrs_swap swap = {.dim0 = 0, .dim1 = 0};
  kn_attrs_axes axes = {.dims = {.n = o->rank}};
  int moved = 0;
  for (int i = 0; i < o->rank; i++) {
    axes.dims.v[i] = o->dim[i];
    if (o->dim[i] == i) continue;
    if (moved++ == 0) swap.dim0 = i, swap.dim1 = o->dim[i];
  }
  c->b.where = kc_where(c);
  return moved > 2 ? kn_add_op(&c->b, KN_OP_permute, &axes, &v, 1, NULL, 0)
                   : kn_add_op(&c->b, KN_OP_transpose, &swap, &v, 1, NULL, 0);
}

/* A loop that turns a matrix round again and again has two views of it, not one more in every trip. */
static bool view_of_order(kc_cap *c, kc_state *s, uint32_t parent, const kn_record_shown *shown,
                          uint32_t *id) {
  order child, up;
  uint32_t base = parent;
  if (!order_of(shown->view, &child)) return false;
  for (; c->han[base].parent && order_of(c->han[base].view, &up); base = c->han[base].parent) {
    if (c->han[base].view->no_grad && !shown->view->no_grad) break; /* has no history */
    for (int i = 0; i < child.rank; i++) child.dim[i] = up.dim[child.dim[i]];
  }
  if (base == parent) return false;
  kn_value *of = kc_contents(c, s, base);
  kn_node *n = of ? reorder(c, of, &child) : NULL;
  if (!n) return false;
  *id = new_handle(c);
  c->han[*id].parent = base;
  c->han[*id].view = n;
  kc_hold h = {.now = n->out[0], .of = of, .nin = n->nin};
  h.in = kc_dup(c, n->in, n->nin * sizeof *h.in);
  hold(c, s, *id, &h);
  return true;
}

/* ---- another shape of another shape ---- */

static bool is_shape(const kn_node *view) {
  return view && (view->op == KN_OP_reshape || view->op == KN_OP_reshape_as || view->op == KN_OP_squeeze ||
                  view->op == KN_OP_unsqueeze);
}

/* What a view of `parent` shows in the end: the same elements in the same order as far as the parents are but
 * other shapes (or detached) of what they show. A loop that has a view of a view again and again has one. */
static uint32_t shown_in_the_end(const kc_cap *c, uint32_t parent, const kn_node *view) {
  bool shape = view && (view->op == KN_OP_reshape || view->op == KN_OP_reshape_as);
  while ((!view || shape) && c->han[parent].parent) {
    const kn_node *up = c->han[parent].view;
    if (view ? !is_shape(up) || (up->no_grad && !view->no_grad) : up != NULL) break;
    parent = c->han[parent].parent;
  }
  return parent;
}

uint32_t kc_handle_view(kc_cap *c, kc_state *s, uint32_t parent, const kn_record_shown *shown) {
  uint32_t turned, base = shown_in_the_end(c, parent, shown->view);
  if (view_of_order(c, s, parent, shown, &turned)) return turned;
  uint32_t id = new_handle(c), nin = shown->view ? shown->view->nin : 0;
  c->han[id].parent = base;
  c->han[id].view = shown->view;
  kc_hold h = {.now = shown->now, .of = base == parent ? shown->of : kc_contents(c, s, base), .nin = nin};
  h.in = kc_dup(c, shown->in, nin * sizeof *h.in);
  hold(c, s, id, &h);
  return id;
}

/* ---- one or another ---- */

static bool is_view(const kc_cap *c, kc_val a) { return a.k == KC_V_HANDLE && c->han[a.id].parent; }

static kn_value *choose(kc_cap *c, kc_state *s, const kc_union *u, int i, kn_value *yes, kn_value *no) {
  kc_val is = kc_resolve(c, s, kc_equals_code(c, u->tag, u->alt[i].code));
  if (is.k == KC_V_BOOL) return is.i ? yes : no;
  return yes == no ? yes : kc_emit(c, KN_NODE_select, 3, is, kc_sym(yes), kc_sym(no));
}

/* From alternative i on. A view is derived only where it is the one: what it shows may not be there
 * otherwise. */
static kn_value *choose_from(kc_cap *c, kc_state *s, const kc_union *u, int i) {
  kc_val a = u->alt[i].v;
  bool view = is_view(c, a);
  if (i == u->n - 1 && !view) return kc_tensor_value(c, s, a);
  kc_val is = i == u->n - 1 ? kc_bool(true) : kc_resolve(c, s, kc_equals_code(c, u->tag, u->alt[i].code));
  if (is.k == KC_V_BOOL && !is.i) return choose_from(c, s, u, i + 1);
  if (is.k == KC_V_BOOL) return kc_tensor_value(c, kc_snapshot(c, s), a);
  if (!view && i == u->n - 2 && !is_view(c, u->alt[i + 1].v))
    return kc_emit(c, KN_NODE_select, 3, is, kc_sym(kc_tensor_value(c, s, a)),
                   kc_sym(kc_tensor_value(c, s, u->alt[i + 1].v)));
  kn_region *at = c->b.at;
  c->b.where = kc_where(c);
  kn_node *n = kn_add_if(&c->b, is.v);
  if (!n) return NULL;
  c->b.at = n->regions[0];
  kn_value *yes = kc_tensor_value(c, kc_snapshot(c, s), a);
  c->b.at = n->regions[1];
  kn_value *no = choose_from(c, kc_snapshot(c, s), u, i + 1);
  c->b.at = at;
  kn_vtype type;
  if (!yes || !no || !kn_vtype_join(&yes->type, &no->type, &type)) return NULL;
  return kn_if_output(&c->b, n, &type, NULL, yes, no);
}

/* The class of a tensor: that of what it holds, of a view that of what it was made with. */
static int64_t tensor_class(kc_cap *c, const kc_state *s, kc_val a) {
  const kc_hold *h = a.k == KC_V_HANDLE ? kc_hold_of(c, s, a.id) : NULL;
  const kn_value *v = a.k == KC_V_SYM                      ? a.v
                      : is_view(c, a) && c->han[a.id].view ? c->han[a.id].view->out[0]
                      : h                                  ? h->now
                                                           : NULL;
  return v && v->type.kind == KN_V_TENSOR ? kc_class_of(c, kc_sym((kn_value *)(uintptr_t)v)) : -1;
}

kn_value *kc_chosen(kc_cap *c, kc_state *s, const kc_union *u) {
  int64_t first = tensor_class(c, s, u->alt[0].v);
  for (int i = 0; i < u->n; i++)
    if (first < 0 || tensor_class(c, s, u->alt[i].v) != first) return NULL;
  return choose_from(c, s, u, 0);
}

kc_res kc_set_chosen(kc_cap *c, kc_state *s, const kc_union *u, kn_value *v) {
  for (int i = 0; i < u->n; i++) {
    kc_val a = u->alt[i].v;
    if (is_view(c, a))
      return kc_fail(c, "overwrites a view of one tensor or another, depending on tensor data, in a list");
    if (a.k == KC_V_HANDLE)
      kc_set_contents(c, s, a.id, choose(c, s, u, i, v, kc_hold_of(c, s, a.id)->now));
    else
      KC_TRY(kc_must_be_handle(c, a.v));
  }
  return KC_GO;
}

/* ---- where they are born ---- */

uint64_t kc_here(const kc_state *s) {
  uint64_t x = 0x9E3779B97F4A7C15u;
  for (const kc_frame *f = s->top; f; f = f->up) {
    x = (x ^ (uint64_t)(uint32_t)f->pc) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (uint64_t)(uint32_t)f->p->line_defined ^ (uint64_t)(uint32_t)f->p->ncode << 32) *
        0x94D049BB133111EBu;
    x ^= x >> 29;
  }
  return x;
}

bool kc_is_born(const kc_cap *c, kc_birth b) {
  for (uint32_t i = 0; i < c->nbirths; i++)
    if (c->births[i].how == b.how && c->births[i].place == b.place) return true;
  return false;
}

void kc_note_birth(kc_cap *c, kc_birth b) {
  if (kc_is_born(c, b)) return;
  c->births = kc_more(c, &c->keep, c->births, c->nbirths, sizeof *c->births);
  c->births[c->nbirths++] = b;
}

typedef struct tracing {
  kc_cap *c;
  uint8_t *seen; /* values by id */
  kc_birth *found;
  uint32_t n;
  bool outside, lost;
} tracing;

static void found(tracing *t, int how, uint64_t place) {
  for (uint32_t i = 0; i < t->n; i++)
    if ((int)t->found[i].how == how && t->found[i].place == place) return;
  t->found = kc_more(t->c, &t->c->arena, t->found, t->n, sizeof *t->found);
  t->found[t->n++] = (kc_birth){how, place};
  t->outside |= how != KC_BORN_HERE;
}

/* The call of an engine function that made the value. */
static void found_here(tracing *t, const kn_value *v) {
  uint32_t lo = 0, hi = t->c->nmade;
  while (lo < hi) {
    uint32_t mid = (lo + hi) / 2;
    if (t->c->made[mid].last <= v->id)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo < t->c->nmade && t->c->made[lo].first <= v->id)
    found(t, KC_BORN_HERE, t->c->made[lo].place);
  else
    t->lost = true;
}

static void trace(tracing *t, const kn_value *v);

static void trace_yield(tracing *t, const kn_region *r, uint32_t at) {
  if (at < r->nyields) trace(t, r->yields[at]);
}

static void trace_param(tracing *t, const kn_value *v) {
  const kn_node *loop = v->region->owner;
  if (loop) { /* what comes by the back edge is not known yet: it meets this one when it is */
    for (uint32_t i = 0; i < t->c->ncarried; i++)
      if (t->c->carried[i].param == v) found(t, (int)t->c->carried[i].born.how, t->c->carried[i].born.place);
    trace(t, loop->in[v->index]);
    trace_yield(t, v->region, 1 + v->index);
    return;
  }
  for (uint32_t i = 0; i < t->c->ninput; i++)
    if (t->c->input[i].value == v) {
      found(t, KC_BORN_ARGUMENT, t->c->input[i].leaf);
      return;
    }
  t->lost = true;
}

static void trace(tracing *t, const kn_value *v) {
  if (t->seen[v->id]) return;
  t->seen[v->id] = 1;
  const kn_node *n = v->def;
  if (!n) {
    trace_param(t, v);
    return;
  }
  switch ((int)n->op) {
  case KN_NODE_if:
    trace_yield(t, n->regions[0], v->index);
    trace_yield(t, n->regions[1], v->index);
    return;
  case KN_NODE_loop: trace_yield(t, n->regions[0], 1 + n->regions[0]->nparams + v->index); return;
  case KN_NODE_select: trace(t, n->in[1]), trace(t, n->in[2]); return;
  case KN_NODE_with_history:
  case KN_NODE_detach: trace(t, n->in[0]); return;
  case KN_NODE_undef: return;
  case KN_NODE_param:
  case KN_NODE_load_state: found(t, KC_BORN_OUTSIDE, (uintptr_t)n->slot->tensor); return;
  default: break;
  }
  if (kn_opcode_is_op(n->op) && kn_ops[n->op].op_class == KN_CLASS_VIEW) {
    trace(t, n->in[0]);
    if (n->op != KN_OP_reshape && n->op != KN_OP_reshape_as) return; /* those may be copies */
  }
  found_here(t, v);
}

static tracing traced(kc_cap *c, const kn_value *v) {
  tracing t = {.c = c, .seen = kc_new(c, c->b.graph->nvalues + 1)};
  trace(&t, v);
  return t;
}

void kc_note_carried(kc_cap *c, const kn_value *param, const kn_value *v) {
  if (v->type.kind != KN_V_TENSOR) return;
  tracing t = traced(c, v);
  for (uint32_t i = 0; i < t.n; i++) {
    uint32_t k = 0;
    while (k < c->ncarried && (c->carried[k].param != param || c->carried[k].born.how != t.found[i].how ||
                               c->carried[k].born.place != t.found[i].place))
      k++;
    if (k < c->ncarried) continue;
    c->carried = kc_more(c, &c->arena, c->carried, c->ncarried, sizeof *c->carried);
    c->carried[c->ncarried++] = (kc_carried){param, t.found[i]};
  }
}

static bool note_births(kc_cap *c, const tracing *t) {
  uint32_t before = c->nbirths;
  for (uint32_t i = 0; i < t->n; i++) kc_note_birth(c, t->found[i]);
  return c->nbirths > before;
}

bool kc_make_handle(kc_cap *c, const kn_value *v) {
  tracing t = traced(c, v);
  if (note_births(c, &t)) c->doomed = true;
  return c->doomed; /* the attempt goes on, to find the others, and is then given up */
}

kc_res kc_must_be_handle(kc_cap *c, const kn_value *v) {
  if (kc_make_handle(c, v)) return KC_GO;
  return kc_fail(c,
                 "overwrites a tensor that cannot be followed to where it was made; write to a clone of it");
}

bool kc_wants_handle(kc_cap *c, const kn_value *v) {
  tracing t = traced(c, v);
  return !t.outside && !t.lost && note_births(c, &t) && (c->doomed = true);
}

/* ---- found together ---- */

void kc_note_meeting(kc_cap *c, const kn_value *a, const kn_value *b) {
  c->met = kc_more(c, &c->arena, c->met, c->nmet, sizeof *c->met);
  c->met[c->nmet++] = (kc_meeting){a, b};
}

/* A tensor of one call that is a handle in the next attempt, and no view. */
static bool will_be_handle(const kc_cap *c, const kn_value *v, const tracing *t) {
  if (v->def && kn_opcode_is_op(v->def->op) && kn_ops[v->def->op].op_class == KN_CLASS_VIEW) return false;
  return t->n == 1 && !t->outside && !t->lost && kc_is_born(c, t->found[0]);
}

static bool meet(kc_cap *c, const kn_value *v, const tracing *x, const tracing *y) {
  return will_be_handle(c, v, x) && !y->outside && !y->lost && note_births(c, y);
}

void kc_spread_births(kc_cap *c) {
  tracing *t = kc_new(c, 2 * (size_t)c->nmet * sizeof *t);
  uint8_t *seen = kc_new(c, c->b.graph->nvalues + 1);
  for (uint32_t i = 0; i < c->nmet; i++) {
    const kn_value *v[2] = {c->met[i].a, c->met[i].b};
    for (uint32_t k = 0; k < 2; k++) {
      t[2 * i + k] = (tracing){.c = c, .seen = seen};
      memset(seen, 0, c->b.graph->nvalues + 1);
      trace(&t[2 * i + k], v[k]);
    }
  }
  for (bool more = true; more;) {
    more = false;
    for (uint32_t i = 0; i < c->nmet; i++) {
      const kc_meeting *m = &c->met[i];
      more |= meet(c, m->a, &t[2 * i], &t[2 * i + 1]) || meet(c, m->b, &t[2 * i + 1], &t[2 * i]);
    }
  }
}
