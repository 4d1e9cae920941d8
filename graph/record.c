/* The recorder behind capture, trace, builder and gradients: what kn_apply sees becomes nodes. */
#include "graph/record.h"
#include "graph/internal.h"
#include "graph/lie.h"
#include "graph/record_numbers.h"
#include "graph/text.h"
#include <stdio.h>
#include <string.h>

/* ---- tensors met so far: open addressing, at most half full, keyed by address ---- */

typedef struct kn_record_known {
  kn_tensor *tensor; /* retained, so that the address stays its own */
  kn_value *value;   /* of a real one: its present value */
  kn_tensor *parent; /* of a view: retained */
  const kn_node *view;
  kn_value *const *in;
  kn_value *of;
  bool unsure; /* where its elements lie is known as far as lie_of says */
  bool tracked;
  bool loud; /* written to with gradients on */
} known;
typedef kn_record_table table;

static known *find(known *at, size_t cap, const kn_tensor *t) {
  size_t i = ((uintptr_t)t >> 4) * 0x9E3779B97F4A7C15u & (cap - 1);
  while (at[i].tensor && at[i].tensor != t) i = (i + 1) & (cap - 1);
  return &at[i];
}

static known *known_of(const kn_record *r, const kn_tensor *t) {
  const table *in = kn_tensor_is_symbolic(t) ? &r->handles : &r->reals;
  known *k = in->n ? find(in->at, in->cap, t) : NULL;
  return k && k->tensor ? k : NULL;
}

static kn_status make_room(kn_record *r, table *in) {
  kn_heap *heap = r->b->ctx->heap;
  size_t cap = in->cap ? in->cap * 2 : 16;
  if (in->cap >= 2 * ((size_t)in->n + 1)) return KN_OK;
  known *at = kn_calloc(heap, cap, sizeof *at);
  if (!at) return kn_fail_nomem(r->b->ctx, cap * sizeof *at);
  for (size_t i = 0; i < in->cap; i++)
    if (in->at[i].tensor) *find(at, cap, in->at[i].tensor) = in->at[i];
  kn_free(heap, in->at, in->cap * sizeof *at);
  in->at = at;
  in->cap = cap;
  return KN_OK;
}

static kn_status remember(kn_record *r, const known *what) {
  kn_tensor *t = what->tensor;
  table *in = kn_tensor_is_symbolic(t) ? &r->handles : &r->reals;
  KN_TRY(make_room(r, in));
  known *k = find(in->at, in->cap, t);
  *k = *what;
  kn_tensor_retain(t);
  if (k->parent) kn_tensor_retain(k->parent);
  in->n++;
  return KN_OK;
}

/* A slot read at the very start of the body, so that every region sees it. */
static kn_value *own_slot(kn_record *r, kn_tensor *t) {
  kn_builder *b = r->b;
  char name[32];
  snprintf(name, sizeof name, "tensor.%u", r->reals.n + r->handles.n + 1);
  kn_slot *s = kn_add_slot(b, KN_SLOT_PARAM, name, &(kn_vtype){KN_V_TENSOR, t->type}, t);
  kn_region *at = b->at;
  kn_node *first = b->graph->body->first;
  b->at = b->graph->body;
  kn_value *v = kn_add_slot_node(b, KN_NODE_param, s);
  b->at = at;
  if (!v) return NULL;
  while (first && first->op == KN_NODE_param && first != v->def) first = first->next;
  if (first) kn_node_move_before(v->def, first);
  return v;
}

/* A view's value, derived again when what it shows has another by now. */
static kn_value *view_value(kn_record *r, kn_tensor *t) {
  kn_value *of = kn_record_value(r, known_of(r, t)->parent);
  known *k = known_of(r, t);
  if (!of || (of == k->of && t->value)) return of ? t->value : NULL;
  kn_value *v = k->view ? kn_view_again(r->b, k->view, k->in, of) : kn_add_detach(r->b, of);
  if (!v) return NULL;
  k->of = of;
  return t->value = v;
}

kn_value *kn_record_value(kn_record *r, kn_tensor *t) {
  known *k = known_of(r, t);
  if (k && k->parent && !r->see) return view_value(r, t);
  if (t->value) return r->see ? r->see(r->see_ud, t->value, -1) : t->value;
  if (k && k->value) return k->value;
  kn_value *v = r->outside ? r->outside(r->ud, t) : own_slot(r, t);
  if (!v) {
    if (r->b->status == KN_OK)
      kn_build_fail(r->b,
                    kn_fail(r->b->ctx, KN_INTERNAL, "a tensor from outside the graph was not given a name"));
    return NULL;
  }
  kn_status st = remember(r, &(known){.tensor = t, .value = v});
  return st == KN_OK ? v : kn_build_fail(r->b, st);
}

bool kn_record_knows(const kn_record *r, const kn_tensor *t) { return known_of(r, t) != NULL; }

kn_status kn_record_tensor(kn_record *r, kn_value *v, kn_tensor **out) {
  if (r->b->status != KN_OK) return r->b->status;
  if (!v || v->type.kind != KN_V_TENSOR)
    return kn_fail(r->b->ctx, KN_INTERNAL, "a graph value is not a tensor");
  return kn_tensor_symbolic(r->b->ctx, &v->type.tensor, v, out);
}

/* ---- handles: see record.h ---- */

bool kn_record_view_of(const kn_record *r, const kn_tensor *t, kn_record_shown *out) {
  const known *k = known_of(r, t);
  if (!k || !k->parent) return false;
  *out = (kn_record_shown){k->parent, k->view, k->in ? k->in : k->view ? k->view->in : NULL,
                           t->value,  k->of,   k->unsure};
  return true;
}

static bool is_tracked(const kn_record *r, const kn_tensor *t) {
  const known *k = known_of(r, t);
  while (k && k->parent) k = known_of(r, t = k->parent);
  return k && k->tracked;
}

/* Sizes known: the strides say so. */
static bool has_strides(const kn_record *r, const kn_tensor *t) {
  const known *k = known_of(r, t);
  return (t->storage || kn_type_known(&t->type)) && !(k && k->unsure);
}

static kn_lie lie_of(const kn_record *r, const kn_tensor *t) {
  const known *k = known_of(r, t);
  if (has_strides(r, t)) return kn_lie_of_strides(t);
  if (!k || !k->parent) return kn_lie_in_order; /* what an op makes */
  kn_lie of = lie_of(r, k->parent);
  if (!k->view) return of;
  return kn_lie_of_view((kn_op)k->view->op, k->view->attrs, &of, &k->parent->type, &t->type);
}

/* How elements lie: contiguous, not, or it depends on sizes that are not known. */
typedef enum layout { UNSURE, CONTIGUOUS, OTHER } layout;

static layout layout_of(const kn_record *r, const kn_tensor *t) {
  if (has_strides(r, t)) return kn_tensor_contiguous(t) ? CONTIGUOUS : OTHER;
  kn_lie lie = lie_of(r, t);
  return kn_lie_contiguous(&lie, &t->type) ? CONTIGUOUS : UNSURE;
}

static bool surely_shows(const kn_record *r, const kn_tensor *x, const kn_type *type) {
  kn_lie of = lie_of(r, x), as;
  return kn_lie_shows(&of, &x->type, type, &as);
}

/* Notes that t shows `parent`, and where its elements lie. Not when it is a copy. */
static kn_status note_view(kn_record *r, kn_tensor *t, known *k) {
  kn_op op = k->view ? (kn_op)k->view->op : KN_OP_reshape_as;
  const kn_tensor *x = k->parent;
  bool reshapes = op == KN_OP_reshape || op == KN_OP_reshape_as, sure = true;
  k->tensor = t;
  if (!k->view)
    memcpy(t->strides, x->strides, sizeof t->strides);
  else if ((x->storage || kn_type_known(&x->type)) && kn_type_known(&t->type)) {
    layout of = layout_of(r, x);
    bool view =
        of != UNSURE && kn_view_strides(r->b->ctx, op, k->view->attrs, x, &t->type, t->strides, &sure);
    if (reshapes && of != UNSURE && !view) return KN_OK; /* a copy */
    k->unsure = of == UNSURE || !sure;
  } else
    k->unsure = true;
  if (k->unsure && reshapes && is_tracked(r, x) && !surely_shows(r, x, &t->type)) r->unsure = true;
  return remember(r, k);
}

kn_status kn_record_view(kn_record *r, kn_tensor *parent, const kn_node *view, kn_value *const *in,
                         kn_value *now, kn_value *of, kn_tensor **out) {
  kn_value *base = kn_record_value(r, parent);
  if (base && (!now || of != base))
    now = view ? kn_view_again(r->b, view, in, base) : kn_add_detach(r->b, base);
  kn_tensor *t;
  KN_TRY(kn_record_tensor(r, base ? now : NULL, &t));
  kn_status st = note_view(r, t, &(known){.parent = parent, .view = view, .in = in, .of = base});
  if (st == KN_OK)
    *out = t;
  else
    kn_tensor_release(t);
  return st;
}

kn_status kn_record_track(kn_record *r, kn_tensor *t) {
  known *k = known_of(r, t);
  if (k) return k->tracked = true, KN_OK;
  return remember(r, &(known){.tensor = t, .tracked = true});
}

static void release_all(table *in) {
  for (size_t i = 0; i < in->cap && in->n; i++) {
    if (!in->at[i].tensor) continue;
    kn_tensor_release(in->at[i].parent);
    kn_tensor_release(in->at[i].tensor);
    in->n--;
  }
}

static void drop_table(kn_record *r, table *in) {
  release_all(in);
  kn_free(r->b->ctx->heap, in->at, in->cap * sizeof *in->at);
  *in = (table){0};
}

bool kn_record_wrote_with_grad(const kn_record *r, const kn_tensor *t) {
  const known *k = known_of(r, t);
  return k && k->loud;
}

/* Asked after every call of an engine function: a small table is kept for the next. */
void kn_record_forget(kn_record *r) {
  table *in = &r->handles;
  if (!in->n) return;
  if (in->cap > 64) {
    drop_table(r, in);
    return;
  }
  release_all(in);
  memset(in->at, 0, in->cap * sizeof *in->at);
}

/* The handle has the value v from here on; what it shows has it put in. A write without gradients, or through
 * a detached handle, changes elements and leaves the history of what is written to. */
static kn_status write_value(kn_record *r, kn_tensor *t, kn_value *v, bool quiet) {
  known *k = known_of(r, t);
  if (!v) return r->b->status;
  if (k && k->parent) {
    kn_value *base = kn_record_value(r, k->parent);
    kn_value *whole = base && k->view ? kn_view_put(r->b, k->view, k->in, base, v) : v;
    if (!base) return r->b->status;
    KN_TRY(write_value(r, k->parent, whole, quiet || !k->view));
    k->of = quiet && k->view ? NULL : kn_record_value(r, k->parent);
  } else if (quiet && kn_dtype_is_float((kn_dtype)v->type.tensor.dtype)) {
    kn_value *old = kn_record_value(r, t);
    v = old ? kn_add_with_history(r->b, v, old) : NULL;
    if (!v) return r->b->status;
  }
  if (k) k->loud |= !quiet;
  if (kn_tensor_is_symbolic(t))
    t->value = v;
  else if (k)
    k->value = v;
  return KN_OK;
}

static bool same_sizes(const kn_type *a, const kn_type *b) {
  bool same = a->rank == b->rank;
  for (int d = 0; same && d < a->rank; d++) same = a->dims[d] == b->dims[d] && a->dims[d] != KN_DIM_UNKNOWN;
  return same;
}

/* copy_: the source, broadcast and cast, is the handle's value from here on. A value of its own: two tensors
 * that hold the same are told apart by theirs. */
static kn_status record_copy(kn_record *r, kn_tensor *const *in, kn_tensor **out) {
  kn_builder *b = r->b;
  kn_value *to = kn_record_value(r, in[0]), *v = to ? kn_record_value(r, in[1]) : NULL;
  if (!v) return b->status;
  const kn_attrs_cast cast = {.dtype = (kn_dtype)to->type.tensor.dtype};
  if (v->type.tensor.dtype != to->type.tensor.dtype) {
    kn_node *n = kn_add_op(b, KN_OP_cast, &cast, &v, 1, NULL, 0);
    if (!n) return b->status;
    v = n->out[0];
  }
  if (!same_sizes(&v->type.tensor, &to->type.tensor)) {
    const kn_where *at = b->where;
    const kn_within copy = {"copy_", NULL}, part = {KN_UNNAMED, &copy};
    b->where = kn_place_within(b, &part, at);
    kn_node *n = kn_add_op(b, KN_OP_expand_as, NULL, (kn_value *[]){v, to}, 2, NULL, 0);
    b->where = at;
    if (!n) return b->status;
    v = n->out[0];
  }
  known *target = known_of(r, in[0]);
  if (v == kn_record_value(r, in[1]) && !r->base.handing && !(target && target->parent)) {
    kn_node *n = kn_add_op(b, KN_OP_clone, NULL, &v, 1, NULL, 0);
    if (!n) return b->status;
    v = n->out[0];
  }
  KN_TRY(write_value(r, in[0], v, b->no_grad));
  r->writer = r->base.handing ? r->base.writer : KN_OP_copy_;
  *out = kn_tensor_retain(in[0]);
  return KN_OK;
}

static kn_status record_writable(kn_recorder *base, kn_context *ctx, const char *name, kn_tensor *t) {
  kn_record *r = (kn_record *)base;
  for (kn_record_shown s; kn_record_view_of(r, t, &s); t = s.parent)
    if (s.view) KN_TRY(kn_view_writable(ctx, name, s.view, &s.parent->type, &t->type));
  return KN_OK;
}

static void record_saved(kn_recorder *base, const kn_tensor *t, const char *what, int i) {
  kn_record *r = (kn_record *)base;
  const kn_value *v = t->value;
  if (r->reads && r->reader && v->id) r->reads(r->ud, v, r->reader, what, i);
}

static void record_viewed(kn_recorder *base, const kn_tensor *x, const kn_tensor *out) {
  kn_record *r = (kn_record *)base;
  if (is_tracked(r, x)) return;
  r->viewed = x->value;
  r->viewed_as = out->value;
}

static kn_status record_contiguous(kn_recorder *base, kn_context *ctx, kn_tensor *t, bool *out) {
  kn_record *r = (kn_record *)base;
  (void)ctx;
  if (r->in_order && t->value && !is_tracked(r, t)) return *out = r->in_order(r->ud, t->value), KN_OK;
  layout l = layout_of(r, t);
  if (l == UNSURE && is_tracked(r, t)) r->unsure = true;
  *out = l != OTHER; /* where it does not matter whose elements they are, a copy is not needed */
  return KN_OK;
}

static kn_status record_alias(kn_recorder *base, kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  (void)ctx;
  return kn_record_view((kn_record *)base, t, NULL, NULL, NULL, NULL, out);
}

/* ---- what kn_apply calls ---- */

typedef struct taking { /* the placeholders of one op, renumbered from 0 */
  kn_record *r;
  kn_value *dyn[KN_MAX_DYN];
  uint32_t n;
  bool bad;
} taking;

static void take_place(void *ud, int64_t *v) {
  taking *t = ud;
  if (!kn_is_dyn(*v)) return;
  uint32_t k = kn_dyn_index(*v);
  if (k >= t->r->ndyn || t->n == KN_MAX_DYN) {
    t->bad = true;
    return;
  }
  t->dyn[t->n] = t->r->dyn[k].as.value;
  *v = KN_DYN(t->n++);
}

static kn_status apply_here(kn_record *r, kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in,
                            int n, kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  if (row->flags & KN_FLAG_WRITES) {
    if (op == KN_OP_copy_) return record_copy(r, in, out);
    return kn_fail(ctx, KN_INTERNAL, "%s: how this overwrites is not known to the recorder", row->name);
  }
  kn_value *values[KN_MAX_INPUTS];
  for (int i = 0; i < n; i++)
    if (!(values[i] = kn_record_value(r, in[i]))) return r->b->status;
  kn_attrs_any copy = {0};
  taking t = {.r = r};
  if (attrs) {
    memcpy(&copy, attrs, kn_attrs_describe(row->attrs).size);
    kn_attrs_each_int(row->attrs, &copy, take_place, &t);
    if (t.bad) return kn_fail(ctx, KN_INTERNAL, "%s: a size placeholder is unknown here", row->name);
  }
  kn_node *node = kn_add_op(r->b, op, attrs ? &copy : NULL, values, (uint32_t)n, t.dyn, t.n);
  if (!node) return r->b->status;
  for (int i = 0; i < row->outs; i++) {
    kn_status st = kn_record_tensor(r, node->out[i], &out[i]);
    if (st == KN_OK && row->op_class == KN_CLASS_VIEW) {
      st = note_view(r, out[i], &(known){.parent = in[0], .view = node, .of = values[0]});
      if (st != KN_OK) kn_tensor_release(out[i]);
    }
    if (st == KN_OK) continue;
    while (i-- > 0) kn_tensor_release(out[i]);
    return st;
  }
  return KN_OK;
}

/* Of a value that is an exchange of its last two dims, made of one that is none. */
static bool exchanges(const kn_node *n, int rank) {
  if (!n || rank < 2) return false;
  if (n->op == KN_OP_transpose) {
    const kn_attrs_swap *a = n->attrs;
    int64_t d0 = a->dim0 < 0 ? a->dim0 + rank : a->dim0, d1 = a->dim1 < 0 ? a->dim1 + rank : a->dim1;
    return d0 != d1 && d0 >= rank - 2 && d1 >= rank - 2;
  }
  if (n->op != KN_OP_permute) return false;
  const kn_ints *dims = &((const kn_attrs_axes *)n->attrs)->dims;
  int64_t last = dims->v[rank - 1];
  return (last < 0 ? last + rank : last) == rank - 2;
}

static bool record_turned(kn_recorder *r, const kn_tensor *t) {
  const kn_value *v = t->value;
  (void)r;
  if (!v || v->type.kind != KN_V_TENSOR || !exchanges(v->def, t->type.rank)) return false;
  const kn_value *from = v->def->in[0];
  return !exchanges(from->def, t->type.rank);
}

static kn_status record_apply(kn_recorder *base, kn_context *ctx, kn_op op, const void *attrs,
                              kn_tensor *const *in, int n, const kn_type *types, kn_tensor **out) {
  (void)types; /* the node's own rule says the same */
  kn_record *r = (kn_record *)base;
  if (r->b->status != KN_OK) return r->b->status;
  const kn_where *at = r->b->where;
  r->b->where = kn_place_within(r->b, ctx->within, at);
  kn_status st = apply_here(r, ctx, op, attrs, in, n, out);
  r->b->where = at;
  return st;
}

void kn_record_init(kn_record *r, kn_builder *b) {
  *r = (kn_record){.base = {.apply = record_apply,
                            .item = kn_record_item,
                            .size = kn_record_size,
                            .expect = kn_record_expect,
                            .to_tensor = kn_record_to_tensor,
                            .dynamic = kn_record_dynamic,
                            .position = kn_record_position,
                            .within = kn_record_within,
                            .writable = record_writable,
                            .viewed = record_viewed,
                            .saved = record_saved,
                            .contiguous = record_contiguous,
                            .turned = record_turned,
                            .alias = record_alias},
                   .b = b};
}

void kn_record_free(kn_record *r) {
  kn_heap *heap = r->b->ctx->heap;
  size_t cap = 16;
  while (cap < r->ndyn) cap *= 2;
  kn_free(heap, r->dyn, cap * sizeof *r->dyn);
  drop_table(r, &r->handles);
  drop_table(r, &r->reals);
  r->dyn = NULL;
  r->ndyn = 0;
}
