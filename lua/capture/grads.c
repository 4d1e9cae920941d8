/* Gradients inside captured functions; see grads.h. What the builder holds so far is differentiated by
 * graph/grad; which tensors require grad, and whose gradients are there already, is looked at outside and
 * guarded. */
#include "lua/capture/grads.h"
#include "core/grad/tape.h"
#include "graph/grad/grad.h"
#include "lua/capture/grad_options.h"
#include "lua/capture/handle.h"
#include <lauxlib.h>
#include <string.h>

/* ---- tensors that require grad ---- */

typedef struct leaves { /* present values, and what they are of */
  kn_value **x;
  kc_val *of;
  kc_look **look;
  uint32_t n;
} leaves;

static void add_leaf(kc_cap *c, leaves *l, kn_value *v, kc_val of, kc_look *look) {
  l->x = kc_more(c, &c->arena, l->x, l->n, sizeof *l->x);
  l->of = kc_more(c, &c->arena, l->of, l->n, sizeof *l->of);
  l->look = kc_more(c, &c->arena, l->look, l->n, sizeof *l->look);
  l->x[l->n] = v;
  l->of[l->n] = of;
  l->look[l->n++] = look;
}

static bool visible(const kn_value *v, const kn_region *from) {
  for (; from; from = from->owner ? from->owner->region : NULL)
    if (v->region == from) return true;
  return false;
}

static bool is_undef(const kn_value *v) { return v->def && v->def->op == KN_NODE_undef; }

/* The value that history leads to: a write without gradients has changed the elements only, so what was used
 * before it and after it are uses of one tensor. Across branches and finished loops where all paths agree. */
static kn_value *root(kn_value *v, int depth) {
  kn_node *n = v->def;
  kn_value *a = NULL;
  if (!n || depth > 60) return v;
  if (n->op == KN_NODE_with_history) return root(n->in[1], depth + 1);
  if (n->op == KN_NODE_select || n->op == KN_NODE_if) {
    bool two = n->op == KN_NODE_select;
    kn_value *b = root(two ? n->in[2] : n->regions[1]->yields[v->index], depth + 1);
    a = root(two ? n->in[1] : n->regions[0]->yields[v->index], depth + 1);
    if (is_undef(a)) a = b;
    if (a != b && !is_undef(b)) return v;
  } else if (n->op == KN_NODE_loop) {
    kn_region *r = n->regions[0];
    a = root(r->yields[1 + r->nparams + v->index], depth + 1);
    if (a->def || a->region != r) return v;
    if (root(r->yields[1 + a->index], depth + 1) != a) return v;
    a = root(n->in[a->index], depth + 1);
  }
  return a ? a : v;
}

static kn_value *leaf_value(kc_cap *c, kc_state *s, kc_val a) {
  kn_value *v = kc_tensor_value(c, s, a), *r = root(v, 0);
  return visible(r, c->b.at) ? r : v;
}

kc_res kc_ask_grad(kc_cap *c) {
  if (c->asks_grad) return KC_GO;
  c->asks_grad = true;
  return c->grad_mode ? KC_GO : KC_RESTART; /* nodes so far did not know that gradients are off */
}

static kc_res gather(kc_cap *c, kc_state *s, leaves *l) {
  *l = (leaves){0};
  KC_TRY(kc_ask_grad(c));
  if (c->arg_requires)
    return kc_fail(
        c,
        "the argument '%s' requires grad: inside a captured function gradients are for tensors from "
        "outside and for those made inside; give it detached, or call backward on the result",
        c->arg_requires);
  for (kc_look *k = c->looks; k; k = k->next) {
    const kn_tensor *t = k->slot && k->slot->type.kind == KN_V_TENSOR ? k->slot->tensor : NULL;
    if (!t || k->again || k->kind == KC_LOOK_GRAD || !kn_requires_grad(t)) continue;
    if (!kn_is_leaf(t))
      return kc_fail(
          c,
          "'%s' requires grad and was computed outside: a gradient would have to leave the function "
          "through it; detach it",
          k->name);
    add_leaf(c, l, leaf_value(c, s, k->seen), k->seen, k);
  }
  for (uint32_t i = 0; i < c->ninner; i++) {
    if (c->inner[i].k == KC_V_HANDLE && !kc_hold_of(c, s, c->inner[i].id)) continue;
    kn_value *v = leaf_value(c, s, c->inner[i]);
    if (visible(v, c->b.at)) add_leaf(c, l, v, c->inner[i], NULL);
  }
  return KC_GO;
}

static kc_res failed(kc_cap *c) { return kc_fail(c, "%s", kc_format(c, "%s", kn_error(c->ctx))); }

static kc_res depends(kc_cap *c, const leaves *l, kn_value *v, bool *out) {
  *out = false;
  return !l->n || kn_values_depend(&c->b, &v, 1, l->x, l->n, out) ? KC_GO : failed(c);
}

/* ---- places ---- */

static kc_look *look_of(kc_cap *c, kc_val a) {
  for (kc_look *l = c->looks; l; l = l->next)
    if (l->slot && l->slot->type.kind == KN_V_TENSOR && l->kind != KC_LOOK_GRAD && kc_same(l->seen, a))
      return l;
  return NULL;
}

static bool is_inner(const kc_cap *c, kc_val a) {
  for (uint32_t i = 0; i < c->ninner; i++)
    if (kc_same(c->inner[i], a)) return true;
  return false;
}

/* NULL for a tensor that can have no gradient: neither from outside nor made to require grad. */
static kc_grad_place *place_of(kc_cap *c, kc_val a) {
  for (uint32_t i = 0; i < c->ngrads; i++)
    if (kc_same(c->grads[i]->of, a)) return c->grads[i];
  kc_look *leaf = look_of(c, a);
  if (!leaf && !is_inner(c, a)) return NULL;
  kc_grad_place *p = kc_new(c, sizeof *p);
  *p = (kc_grad_place){.of = a, .leaf = leaf, .cell = kc_new_cell_id(c)};
  c->cell[p->cell] =
      (kc_cell_info){.object = UINT32_MAX, .grad = p}; /* like one of outside: never forgotten */
  c->grads = kc_more(c, &c->arena, c->grads, c->ngrads, sizeof *c->grads);
  c->grads[c->ngrads++] = p;
  return p;
}

/* The userdata itself: the gradient is that of this tensor, not of whatever stands at its place later. */
static uint32_t object_of(kc_cap *c, const kc_look *l) {
  luaL_checkstack(c->L, 4, "capture");
  kc_push_object(c, l->container);
  if (l->kind == KC_LOOK_UPVALUE)
    lua_getupvalue(c->L, -1, (int)l->key.i);
  else {
    kc_push(c, l->key);
    lua_rawget(c->L, -2);
  }
  uint32_t id = kc_intern(c, -1);
  lua_pop(c->L, 2);
  return id;
}

static kc_look *grad_look(kc_cap *c, kc_grad_place *p) {
  kc_look *l = kc_new_look(c, KC_LOOK_GRAD, object_of(c, p->leaf), KC_NILV);
  l->guard = "gradient";
  l->name = kc_keep(c, kc_format(c, "%s.grad", p->leaf->name));
  p->leaf->identity = true;
  return p->entry = l;
}

kc_res kc_grad_entry(kc_cap *c, uint32_t cell, kc_val *out) {
  kc_grad_place *p = c->cell[cell].grad;
  *out = KC_NILV;
  if (!p->leaf) return KC_GO;
  if (!p->entry) {
    kc_look *l = grad_look(c, p);
    kn_tensor *g = kn_grad_of(p->leaf->slot->tensor);
    kn_value *v;
    bool again;
    if (g) {
      KC_TRY(kc_import_tensor(c, g, l->name, KN_SLOT_STATE, &l->slot, &v, &again));
      l->seen = kc_sym(v);
    }
  }
  *out = p->entry->seen;
  return KC_GO;
}

static kc_res get(kc_cap *c, kc_state *s, kc_grad_place *p, kc_val *out) {
  return kc_cell_get(c, s, p->cell, out);
}

static void set(kc_cap *c, kc_state *s, kc_grad_place *p, kc_val v) {
  kc_map_set(c, &s->cells, s->owner, p->cell, kc_dup(c, &v, sizeof v));
}

/* ---- fields ---- */

static kc_res give(kc_cap *c, kc_values *out, kc_val v) {
  out->v = kc_vals(c, 1);
  out->v[0] = v;
  out->n = 1;
  return KC_GO;
}

static kc_res set_field(kc_cap *c, kc_state **s, kc_val t, kc_val v) {
  kc_grad_place *p = place_of(c, t);
  v = kc_resolve(c, *s, v);
  if (!p)
    return kc_fail(
        c, "sets the gradient of a tensor that is neither from outside nor was made to require grad here");
  if (v.k != KC_V_NIL && !kc_is_tensor(v)) return kc_fail(c, "sets a gradient to a %s", kc_kind_name(v));
  set(c, *s, p, v);
  return KC_GO;
}

kc_res kc_grad_field(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out, bool *done) {
  *done = false;
  if (n < 2 || !kc_is_tensor(a[0]) || a[1].k != KC_V_STRING) return KC_GO;
  bool grad = kc_is_str(c, a[1], "grad"), requires = kc_is_str(c, a[1], "requires_grad"),
       leaf = kc_is_str(c, a[1], "is_leaf");
  if (kc_is_str(c, a[1], "grad_fn"))
    return kc_fail(c, "reads 'grad_fn' of a tensor, which captured ones have not");
  if (!grad && !requires && !leaf) return KC_GO;
  *done = true;
  if (n == 3) {
    *out = (kc_values){0};
    *done = grad;
    return grad ? set_field(c, s, a[0], a[2]) : KC_GO;
  }
  kc_val v = KC_NILV;
  if (grad) {
    kc_grad_place *p = place_of(c, a[0]);
    if (p) KC_TRY(get(c, *s, p, &v));
    return give(c, out, v);
  }
  leaves l;
  bool yes;
  KC_TRY(gather(c, *s, &l));
  KC_TRY(depends(c, &l, kc_tensor_value(c, *s, a[0]), &yes));
  bool is_one = false;
  for (uint32_t i = 0; i < l.n; i++) is_one |= kc_same(l.of[i], a[0]);
  return give(c, out, kc_bool(requires ? yes || is_one : !yes || is_one));
}

kc_res kc_require_grad(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out) {
  kc_val t = n ? kc_resolve(c, *s, a[0]) : KC_NILV;
  if (!kc_is_tensor(t))
    return kc_engine_complain(c, kc_format(c, "requires_grad_: a tensor is needed, got %s", kc_kind_name(t)));
  if (n > 1 && a[1].k != KC_V_NIL && !(a[1].k == KC_V_BOOL && a[1].i))
    return kc_fail(c, "requires_grad_(false) inside a captured function is not supported; detach the tensor");
  kc_look *l = look_of(c, t);
  leaves all;
  bool yes;
  KC_TRY(gather(c, *s, &all));
  KC_TRY(depends(c, &all, kc_tensor_value(c, *s, t), &yes));
  kn_value *v = kc_tensor_value(c, *s, t);
  if (!l && !v->def && v->region == c->b.graph->body)
    return kc_fail(c, "makes an argument require grad, which the caller would see; detach it first");
  if (l && !yes) return kc_fail(c, "makes '%s', which exists outside, require grad; do it outside", l->name);
  if (!yes && !is_inner(c, t)) {
    c->inner = kc_more(c, &c->arena, c->inner, c->ninner, sizeof *c->inner);
    c->inner[c->ninner++] = t;
  }
  return give(c, out, t);
}

/* ---- gradients ---- */

/* Is the region one of those that lead here? */
static bool leads_here(const kc_cap *c, const kn_region *r) {
  const kn_region *at = c->b.at;
  while (at && at != r) at = at->owner ? at->owner->region : NULL;
  return at;
}

/* What v shows, and whether that is sure: a reshape may have copied. */
static const kn_value *shown_by(const kn_value *v, bool *sure) {
  *sure = true;
  while (v->def && ((kn_opcode_is_op(v->def->op) && kn_ops[v->def->op].op_class == KN_CLASS_VIEW) ||
                    v->def->op == KN_NODE_detach)) {
    *sure &= v->def->op != KN_OP_reshape && v->def->op != KN_OP_reshape_as;
    v = v->def->in[0];
  }
  return v;
}

/* May v, which was overwritten, be `of`, handed on by branches and loops? `late`: by a later trip. */
static bool may_be(const kn_value *v, const kn_value *of, int depth, bool *late) {
  const kn_node *n = v->def;
  if (v == of) return true;
  if (depth == 0) return false;
  if (!n) {
    const kn_node *loop = v->region->owner;
    if (!loop || loop->op != KN_NODE_loop) return false;
    if (may_be(loop->in[v->index], of, depth - 1, late)) return true;
    uint32_t at = 1 + v->index;
    return at < v->region->nyields && v->region->yields[at] &&
           may_be(v->region->yields[at], of, depth - 1, late) && (*late = true);
  }
  if (n->op == KN_NODE_select)
    return may_be(n->in[1], of, depth - 1, late) || may_be(n->in[2], of, depth - 1, late);
  if (n->op != KN_NODE_if && n->op != KN_NODE_loop) return false;
  for (int k = 0; k < n->nregions; k++) {
    const kn_region *r = n->regions[k];
    uint32_t at = n->op == KN_NODE_if ? v->index : 1 + r->nparams + v->index;
    if (at < r->nyields && r->yields[at] && may_be(r->yields[at], of, depth - 1, late)) return true;
  }
  return false;
}

void kc_saved_read(void *capture, const kn_value *v, const kn_node *reader, const char *what, int i) {
  kc_cap *c = capture;
  bool sure;
  const kn_value *of = shown_by(v, &sure);
  const struct kc_overwritten *by = NULL;
  for (uint32_t k = 0; k < c->noverwritten; k++) { /* the last write is the one that is named */
    const struct kc_overwritten *o = &c->overwritten[k];
    bool late = false;
    if (may_be(o->v, of, 12, &late) && (late || o->first > reader->out[0]->id)) by = o;
  }
  if (!by || c->stale) return;
  sure &= by->v == of;
  kn_tape_fail_written(c->ctx, by->writer, what, i);
  c->stale = kc_format(c, "backward of %s: %s", kn_op_name((kn_op)reader->op), kn_error(c->ctx));
  c->stale_surely = sure && by->where && leads_here(c, by->where) && leads_here(c, reader->region);
}

/* Eager raises where a gradient reads what was overwritten. */
static kc_res read_stale(kc_cap *c) {
  if (!c->stale) return KC_GO;
  if (c->stale_surely) return kc_engine_complain(c, c->stale);
  return kc_fail(c, "%s (it is so on some path, or may be; it depends on tensor data)", c->stale);
}

static kc_res emit(kc_cap *c, kn_value *const *ys, const kn_gradient *gs, uint32_t ny, const leaves *l,
                   kn_gradient *gx, const kc_grad_options *o) {
  bool before = c->b.no_grad;
  kn_gradient_request q = {&c->record, ys, gs, ny, l->x, l->n, o->memory};
  c->b.where = kc_where(c);
  c->b.no_grad = !o->again;
  c->stale = NULL;
  bool fine = kn_emit_gradients(&q, gx);
  c->b.no_grad = before;
  kn_record_forget(&c->record);
  return fine ? read_stale(c) : failed(c);
}

/* A gradient that some path leaves undefined is `other` there. */
static kc_val as_value_or(kc_cap *c, kn_gradient g, kc_val other) {
  if (!g.maybe) return kc_sym(g.v);
  kn_value *defined = kn_add_defined(&c->b, g.v);
  if (!defined) return kc_sym(g.v);
  int64_t there = kc_class_of(c, kc_sym(g.v));
  int64_t none = kc_class_of(c, other);
  kn_value *tag = kc_emit(c, KN_NODE_select, 3, kc_sym(defined), kc_int(there), kc_int(none));
  kc_union u = {.tag = kc_sym(tag), .n = 2};
  kc_note *note = kc_note_of(c, tag, true);
  note->choice = defined;
  note->a = there;
  note->b = none;
  u.alt[0] = (kc_alt){none, other};
  u.alt[1] = (kc_alt){there, kc_sym(g.v)};
  return kc_make_union(c, &u);
}

static kc_val as_value(kc_cap *c, kn_gradient g) { return as_value_or(c, g, KC_NILV); }

static kn_value *sum(kc_cap *c, kn_value *a, kn_value *b) {
  kn_node *n = kn_add_op(&c->b, KN_OP_add, NULL, (kn_value *[]){a, b}, 2, NULL, 0);
  return n ? n->out[0] : kc_dummy(c);
}

static kn_value *sum_if_there(kc_cap *c, kn_value *old, kn_gradient g) {
  if (!g.maybe) return sum(c, old, g.v);
  kn_region *at = c->b.at;
  kn_node *n = kn_add_if(&c->b, kn_add_defined(&c->b, g.v));
  if (!n) return kc_dummy(c);
  c->b.at = n->regions[0];
  kn_value *both = sum(c, old, g.v);
  c->b.at = at;
  kn_value *v = kn_if_output(&c->b, n, NULL, NULL, both, old);
  return v ? v : kc_dummy(c);
}

/* Is it a tensor where *there is true, and nil elsewhere? */
static bool on_some_path(kc_cap *c, kc_state *s, kc_val v, kn_value **there, kn_value **t) {
  if (v.k != KC_V_UNION) return false;
  kc_union u;
  kc_alts(c, v, &u);
  int k = u.n == 2 && u.alt[0].code == KC_CLASS_NIL ? 1 : 0;
  if (u.n != 2 || u.alt[!k].code != KC_CLASS_NIL || !kc_is_tensor(u.alt[k].v)) return false;
  *there = kc_emit(c, KN_NODE_lua_eq, 2, u.tag, kc_int(u.alt[k].code), KC_NILV);
  *t = kc_tensor_value(c, s, u.alt[k].v);
  return true;
}

/* g added to old, which is there where `there` is true. */
static kn_gradient sum_where(kc_cap *c, kn_value *there, kn_value *old, kn_gradient g) {
  kn_region *at = c->b.at;
  kn_node *n = kn_add_if(&c->b, there);
  if (!n) return g;
  c->b.at = n->regions[0];
  kn_value *both = sum_if_there(c, old, g);
  c->b.at = at;
  kn_value *v = kn_if_output(&c->b, n, NULL, NULL, both, g.v);
  return (kn_gradient){v ? v : kc_dummy(c), g.maybe};
}

static kc_res deposit(kc_cap *c, kc_state **s, kc_grad_place *p, kn_gradient g) {
  kc_val old;
  KC_TRY(get(c, *s, p, &old));
  kc_birth birth = {KC_BORN_HERE, kc_here(*s)};
  kn_value *there, *t;
  kc_val v;
  if (on_some_path(c, *s, old, &there, &t))
    v = as_value(c, sum_where(c, there, t, g));
  else if (old.k == KC_V_UNION || old.k == KC_V_POISON)
    return kc_fail(c, "adds to a gradient that is there on some path only; set it to nil, or test it, first");
  else
    v = old.k == KC_V_NIL ? as_value(c, g) : kc_sym(sum_if_there(c, kc_tensor_value(c, *s, old), g));
  if (v.k == KC_V_SYM && kc_is_born(c, birth)) v = kc_ref(KC_V_HANDLE, kc_handle_new(c, *s, v.v));
  set(c, *s, p, v);
  return KC_GO;
}

static kc_res lacks_grad(kc_cap *c, const kn_value *y) {
  char text[KN_TYPE_TEXT];
  return kc_complain(c, "backward: the tensor %s does not require grad",
                     kn_vtype_text(c->b.graph, &y->type, text, sizeof text));
}

/* A size that is known only when the graph runs is what it must be. */
static void assert_size(kc_cap *c, kn_value *v, int dim, kn_value *wanted, const char *text) {
  kn_value *size = kn_add_size(&c->b, v, dim);
  if (size && wanted)
    kn_add_raise(&c->b, KN_NODE_assert, kc_emit(c, KN_NODE_lua_eq, 2, kc_sym(size), kc_sym(wanted), KC_NILV),
                 text);
}

/* Given a gradient, it is of y's dtype and sizes; without one y has a single element. */
static kc_res check_output(kc_cap *c, kn_value *y, kn_value *g) {
  const kn_type *t = &y->type.tensor, *gt = g ? &g->type.tensor : NULL;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT] = "";
  kn_vtype_text(c->b.graph, &y->type, a, sizeof a);
  if (g) kn_vtype_text(c->b.graph, &g->type, b, sizeof b);
  const char *text = kc_format(
      c,
      g ? "backward: a gradient %s was given for a tensor %s"
        : "backward: a gradient must be given for a tensor %s%s; only one of a single element can do without",
      g ? b : a, g ? a : "");
  if (g && (gt->dtype != t->dtype || gt->rank != t->rank)) return kc_complain(c, "%s", text);
  for (int i = 0; i < t->rank; i++) {
    int64_t have = t->dims[i], want = g ? gt->dims[i] : 1;
    if (kn_dim_known(have) && kn_dim_known(want) && have != want) return kc_complain(c, "%s", text);
    if (have == want && have != KN_DIM_UNKNOWN) continue;
    kn_value *number =
        g ? kn_add_size(&c->b, g, i) : kn_add_const(&c->b, (kn_scalar){KN_SCALAR_INT, {.i = 1}});
    assert_size(c, y, i, number, text);
  }
  return KC_GO;
}

/* Of the leaves, those that backward was given as its inputs. */
static kc_res keep_only(kc_cap *c, kc_state *s, leaves *l, const kc_val *only, uint32_t n) {
  uint32_t kept = 0;
  for (uint32_t k = 0; k < n; k++) {
    bool leaf = false;
    for (uint32_t i = 0; i < l->n; i++) leaf |= kc_same(l->of[i], only[k]);
    if (leaf) continue;
    bool yes;
    KC_TRY(depends(c, l, kc_tensor_value(c, s, only[k]), &yes));
    if (!yes) return kc_complain(c, "backward: input %u does not require grad", k + 1);
    return kc_fail(c, "input %u of backward is computed from what requires grad; use kiln.grad for it",
                   k + 1);
  }
  for (uint32_t i = 0; i < l->n; i++) {
    bool wanted = false;
    for (uint32_t k = 0; k < n; k++) wanted |= kc_same(l->of[i], only[k]);
    if (!wanted) continue;
    l->x[kept] = l->x[i];
    l->of[kept] = l->of[i];
    l->look[kept++] = l->look[i];
  }
  l->n = kept;
  return KC_GO;
}

kc_res kc_backward(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out) {
  kc_val y = n ? kc_resolve(c, *s, a[0]) : KC_NILV, g = n > 1 ? kc_resolve(c, *s, a[1]) : KC_NILV;
  kc_val options = n > 2 ? a[2] : KC_NILV, *only = NULL;
  uint32_t nonly = 0;
  kc_grad_options o;
  *out = (kc_values){0};
  if (!kc_is_tensor(y)) return kc_complain(c, "backward: a tensor is needed, got %s", kc_kind_name(y));
  if (g.k == KC_V_TABLE) options = g, g = KC_NILV;
  if (g.k != KC_V_NIL && !kc_is_tensor(g))
    return kc_complain(c, "backward: the gradient must be a tensor, got %s", kc_kind_name(g));
  KC_TRY(kc_grad_options_read(c, *s, options, KC_OF_BACKWARD, &o));
  if (o.inputs.k != KC_V_NIL)
    KC_TRY(kc_grad_list(c, *s, o.inputs, "backward", "inputs", false, &only, &nonly));
  uint32_t first = c->b.graph->nvalues + 1;
  kn_value *yv = kc_tensor_value(c, *s, y);
  leaves l;
  bool yes;
  KC_TRY(gather(c, *s, &l));
  KC_TRY(depends(c, &l, yv, &yes));
  if (!yes || !c->grad_mode) return lacks_grad(c, yv);
  KC_TRY(check_output(c, yv, g.k == KC_V_NIL ? NULL : kc_tensor_value(c, *s, g)));
  kn_gradient seed = {g.k == KC_V_NIL ? NULL : kc_tensor_value(c, *s, g), false};
  if (only) KC_TRY(keep_only(c, *s, &l, only, nonly));
  kn_gradient *gx = kc_new(c, (l.n + 1) * sizeof *gx);
  KC_TRY(emit(c, &yv, &seed, 1, &l, gx, &o));
  for (uint32_t i = 0; i < l.n; i++) {
    if (!gx[i].v) continue;
    kc_grad_place *p = place_of(c, l.of[i]);
    if (!p) return kc_fail(c, "internal: a leaf without a place for its gradient");
    KC_TRY(deposit(c, s, p, gx[i]));
  }
  kc_note_made(c, first, kc_here(*s));
  return KC_GO;
}

/* ---- kiln.grad ---- */

static kc_res one_gradient(kc_cap *c, kn_gradient g, uint32_t i, bool unused, bool single, kc_val *out) {
  const char *text =
      kc_format(c, "grad: input %u takes no part in the outputs (allow_unused = true gives %s for it)", i + 1,
                single ? "nil" : "false");
  *out = single ? KC_NILV : kc_bool(false);
  if (!g.v) return unused ? KC_GO : kc_complain(c, "%s", text);
  *out = kc_sym(g.v);
  if (!g.maybe) return KC_GO;
  if (unused) {
    *out = as_value_or(c, g, single ? KC_NILV : kc_bool(false));
    return KC_GO;
  }
  kn_add_raise(&c->b, KN_NODE_assert, kn_add_defined(&c->b, g.v), text);
  return KC_GO;
}

kc_res kc_gradients(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out) {
  kc_val *ys, *xs, *gs = NULL;
  uint32_t ny, nx, ngs = 0;
  kc_grad_options o;
  if (n < 2) return kc_complain(c, "grad: outputs and inputs are needed");
  KC_TRY(kc_grad_list(c, *s, a[0], "grad", "outputs", false, &ys, &ny));
  KC_TRY(kc_grad_list(c, *s, a[1], "grad", "inputs", false, &xs, &nx));
  KC_TRY(kc_grad_options_read(c, *s, n > 2 ? a[2] : KC_NILV, KC_OF_GRAD, &o));
  if (o.outputs.k != KC_V_NIL)
    KC_TRY(kc_grad_list(c, *s, o.outputs, "grad", "grad_outputs", true, &gs, &ngs));
  if (gs && ngs != ny) return kc_complain(c, "grad: as many grad_outputs as outputs are needed");
  uint32_t first = c->b.graph->nvalues + 1;
  leaves all, l = {0};
  KC_TRY(gather(c, *s, &all));
  for (uint32_t i = 0; i < nx; i++) {
    bool yes;
    kn_value *v = leaf_value(c, *s, xs[i]);
    KC_TRY(depends(c, &all, v, &yes));
    for (uint32_t k = 0; k < all.n; k++) yes |= all.x[k] == v;
    if (!yes) return kc_complain(c, "grad: input %u does not require grad", i + 1);
    add_leaf(c, &l, v, xs[i], NULL);
  }
  kn_value **yv = kc_new(c, (ny + 1) * sizeof *yv);
  kn_gradient *gv = kc_new(c, (ny + 1) * sizeof *gv), *gx = kc_new(c, (nx + 1) * sizeof *gx);
  for (uint32_t i = 0; i < ny; i++) {
    yv[i] = kc_tensor_value(c, *s, ys[i]);
    if (gs && kc_is_tensor(gs[i])) gv[i].v = kc_tensor_value(c, *s, gs[i]);
    bool yes;
    KC_TRY(depends(c, &all, yv[i], &yes));
    for (uint32_t k = 0; k < all.n; k++) yes |= all.x[k] == yv[i];
    if (!yes) return lacks_grad(c, yv[i]);
    KC_TRY(check_output(c, yv[i], gv[i].v));
  }
  KC_TRY(emit(c, yv, gv, ny, &l, gx, &o));
  bool single = kc_is_tensor(kc_resolve(c, *s, a[1]));
  kc_val v;
  if (single) {
    KC_TRY(one_gradient(c, gx[0], 0, o.unused, true, &v));
    kc_note_made(c, first, kc_here(*s));
    return give(c, out, v);
  }
  uint32_t id = kc_table_new(c, *s);
  for (uint32_t i = 0; i < nx; i++) {
    KC_TRY(one_gradient(c, gx[i], i, o.unused, false, &v));
    kc_table_put(c, kc_table_write(c, *s, id), kc_int((int64_t)i + 1), v);
  }
  kc_note_made(c, first, kc_here(*s));
  return give(c, out, kc_ref(KC_V_TABLE, id));
}

/* ---- at the end ---- */

static kc_res store(kc_cap *c, kc_state *s, kc_grad_place *p, kc_val v) {
  bool fresh = !p->entry;
  kc_look *l = fresh ? grad_look(c, p) : p->entry;
  l->blind = fresh;
  if (v.k == KC_V_NIL) {
    l->clears = true;
    return KC_GO;
  }
  kn_value *there = NULL, *t = NULL;
  kn_region *at = c->b.at;
  if (!on_some_path(c, s, v, &there, &t) && !kc_is_tensor(v))
    return kc_fail(
        c, "whether '%s' is there when the function ends depends on tensor data; set it to nil at the end",
        l->name);
  kn_vtype type = {.kind = KN_V_TENSOR, .tensor = p->leaf->slot->type.tensor};
  if (!l->slot) l->slot = kn_add_slot(&c->b, KN_SLOT_STATE, l->name, &type, NULL);
  kn_node *n = there ? kn_add_if(&c->b, there) : NULL;
  if (n) c->b.at = n->regions[0];
  bool fine = l->slot && kn_add_store(&c->b, l->slot, there ? t : kc_tensor_value(c, s, v));
  c->b.at = at;
  if (!fine) return kc_fail(c, "gradient");
  l->sometimes = there != NULL;
  l->born = l->seen.k == KC_V_NIL;
  l->written = true;
  return KC_GO;
}

kc_res kc_grad_stores(kc_cap *c, kc_state *s) {
  for (uint32_t i = 0; i < c->ngrads; i++) {
    kc_grad_place *p = c->grads[i];
    const kc_val *v = kc_map_get(&s->cells, p->cell);
    if (!p->leaf || !v) continue;
    kc_val now = kc_resolve(c, s, *v);
    if (p->entry && kc_same(now, p->entry->seen)) continue;
    KC_TRY(store(c, s, p, now));
  }
  return KC_GO;
}
