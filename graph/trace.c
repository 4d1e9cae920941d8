/* Trace: see trace.h. A storage that was met is kept until the end, so its address is its own. In it lie
 * *roots*, tensors that some node or slot gave, and views of them. A write in place gives the root a new
 * value; views made before it are taken from the root again when they are next read. */
#include "graph/trace.h"
#include "graph/internal.h"
#include <stdio.h>
#include <string.h>

typedef struct view {
  kn_type type;
  int64_t offset, strides[KN_MAX_RANK];
  kn_value *value;
  uint32_t version; /* of the memory when the value was right */
  uint32_t root;    /* which view it is a part of; its own number for a root */
  kn_slot *slot;    /* roots from outside */
  const char *arg;  /* roots that are arguments: the name … */
  kn_value *input;  /* … and the input */
} view;

typedef struct kn_trace_memory {
  struct kn_trace_memory *next;
  kn_storage *storage; /* retained */
  view *views;
  uint32_t nviews, nroots, version;
  kn_tensor **detached; /* handles that no gradient flows through; retained */
  uint32_t ndetached;
} memory;

/* ---- memory met so far ---- */

static uint32_t bucket(const kn_trace *t, const kn_storage *s) {
  return (uint32_t)(((uintptr_t)s >> 4) * 0x9E3779B97F4A7C15u >> 32) & (t->room - 1);
}

static memory *find(const kn_trace *t, const kn_storage *s) {
  memory *m = t->memory[bucket(t, s)];
  while (m && m->storage != s) m = m->next;
  return m;
}

static kn_status grow(kn_trace *t) {
  kn_heap *heap = t->b->ctx->heap;
  uint32_t room = t->room * 2, old = t->room;
  memory **from = t->memory, **to = kn_calloc(heap, room, sizeof *to);
  if (!to) return kn_fail_nomem(t->b->ctx, room * sizeof *to);
  t->memory = to;
  t->room = room;
  for (uint32_t i = 0; i < old; i++)
    for (memory *m = from[i], *next; m; m = next) {
      next = m->next;
      memory **at = &to[bucket(t, m->storage)];
      m->next = *at;
      *at = m;
    }
  kn_free(heap, from, old * sizeof *from);
  return KN_OK;
}

static memory *meet(kn_trace *t, kn_storage *s) {
  memory *m = find(t, s);
  if (m) return m;
  if (t->nmemory >= t->room) {
    kn_status st = grow(t);
    if (st != KN_OK) return kn_build_fail(t->b, st);
  }
  if (!(m = kn_build_alloc(t->b, sizeof *m))) return NULL;
  memory **at = &t->memory[bucket(t, s)];
  *m = (memory){.next = *at, .storage = kn_storage_retain(s)};
  *at = m;
  t->nmemory++;
  return m;
}

static bool same_place(const view *v, const kn_tensor *x) {
  if (v->offset != x->offset || !kn_type_equal(&v->type, &x->type)) return false;
  for (int d = 0; d < x->type.rank; d++)
    if (x->type.dims[d] > 1 && v->strides[d] != x->strides[d]) return false;
  return true;
}

static view *view_of(const memory *m, const kn_tensor *x) {
  for (uint32_t i = m->nviews; i-- > 0;)
    if (same_place(&m->views[i], x)) return &m->views[i];
  return NULL;
}

static view *add_view(kn_trace *t, memory *m, const kn_tensor *x, kn_value *value, uint32_t root) {
  view v = {.type = x->type, .offset = x->offset, .value = value, .version = m->version, .root = root};
  memcpy(v.strides, x->strides, sizeof v.strides);
  if (root == m->nviews) m->nroots++;
  return kn_build_push(t->b, &m->views, &m->nviews, &v, sizeof v) ? &m->views[m->nviews - 1] : NULL;
}

/* ---- parts of a root ---- */

static bool is_row_major(const view *v) {
  int64_t stride = 1;
  for (int d = v->type.rank - 1; d >= 0; d--) {
    if (v->type.dims[d] > 1 && v->strides[d] != stride) return false;
    stride *= v->type.dims[d];
  }
  return true;
}

/* Whether all elements of a tensor at this place lie in the root, and how `strided` takes them from it. */
static bool lies_in(const view *root, const kn_tensor *x, kn_attrs_strided *at) {
  int64_t first = x->offset - root->offset, last = first;
  if (!is_row_major(root) || x->type.dtype != root->type.dtype) return false;
  *at = (kn_attrs_strided){.offset = first};
  for (int d = 0; d < x->type.rank; d++) {
    at->sizes.v[at->sizes.n++] = x->type.dims[d];
    at->strides.v[at->strides.n++] = x->type.dims[d] > 1 ? x->strides[d] : 0;
    if (x->type.dims[d] == 0) return at->offset = 0, true;
    last += (x->type.dims[d] - 1) * x->strides[d];
  }
  return first >= 0 && last < kn_type_numel(&root->type);
}

static view *root_around(const memory *m, const kn_tensor *x, kn_attrs_strided *at) {
  for (uint32_t i = 0; i < m->nviews; i++)
    if (m->views[i].root == i && lies_in(&m->views[i], x, at)) return &m->views[i];
  return NULL;
}

static kn_value *only(kn_node *n) { return n ? n->out[0] : NULL; }

static kn_value *take_part(kn_trace *t, const view *root, const kn_attrs_strided *at) {
  return only(kn_add_op(t->b, KN_OP_strided, at, &root->value, 1, NULL, 0));
}

/* ---- values of tensors ---- */

/* Slots are read at the very start of the body, in the order they were met. */
static kn_value *read_slot(kn_trace *t, kn_slot *slot) {
  kn_builder *b = t->b;
  kn_region *at = b->at, *body = b->graph->body;
  const kn_where *where = b->where;
  kn_node *first = body->first;
  while (first && first->slot) first = first->next;
  b->at = body;
  b->where = slot->where;
  kn_value *v = kn_add_slot_node(b, slot->kind == KN_SLOT_CONST ? KN_NODE_tensor : KN_NODE_param, slot);
  if (v && first) kn_node_move_before(v->def, first);
  const char *dot = strrchr(slot->name, '.');
  kn_value_name(b, v, dot && dot[1] ? dot + 1 : slot->name);
  b->at = at;
  b->where = where;
  return v;
}

static view *from_outside(kn_trace *t, memory *m, kn_tensor *x) {
  if (m->version > 0)
    return kn_build_fail(t->b, kn_fail(t->b->ctx, KN_CAPTURE,
                                       "a tensor that shares memory with one written in place was not seen "
                                       "before the write; make it inside the function, or clone it"));
  kn_slot *slot = t->outside(t->ud, x);
  kn_value *v = slot ? read_slot(t, slot) : NULL;
  view *made = v ? add_view(t, m, x, v, m->nviews) : NULL;
  if (made) made->slot = slot;
  return made;
}

static kn_value *held(kn_trace *t, kn_tensor *x) {
  kn_attrs_strided at;
  if (t->b->status != KN_OK) return NULL;
  if (!x->storage)
    return kn_build_fail(t->b,
                         kn_fail(t->b->ctx, KN_CAPTURE,
                                 "a symbol of a graph that is being built was used in a traced function"));
  memory *m = meet(t, x->storage);
  if (!m) return NULL;
  view *v = view_of(m, x);
  if (v && v->version == m->version) return v->value;
  const view *root = root_around(m, x, &at);
  if (!root) {
    if (v)
      return kn_build_fail(t->b, kn_fail(t->b->ctx, KN_CAPTURE,
                                         "a view whose memory was written in place cannot be read again in a "
                                         "trace: its base is not row-major; clone the base first"));
    v = from_outside(t, m, x);
    return v ? v->value : NULL;
  }
  uint32_t number = (uint32_t)(root - m->views);
  kn_value *part = take_part(t, root, &at);
  if (!part) return NULL;
  if (!v) return add_view(t, m, x, part, number) ? part : NULL;
  v->value = part;
  v->version = m->version;
  return part;
}

kn_value *kn_trace_value(kn_trace *t, kn_tensor *x) {
  kn_value *v = held(t, x);
  const memory *m = v ? find(t, x->storage) : NULL;
  for (uint32_t i = 0; m && i < m->ndetached; i++)
    if (m->detached[i] == x) return kn_add_detach(t->b, v);
  return v;
}

static kn_status trace_detached(kn_recorder *base, kn_context *ctx, kn_tensor *x) {
  kn_trace *t = (kn_trace *)base;
  (void)ctx;
  t->place(t->ud);
  if (!held(t, x)) return t->b->status;
  memory *m = find(t, x->storage);
  if (kn_build_push(t->b, &m->detached, &m->ndetached, &x, sizeof(kn_tensor *))) kn_tensor_retain(x);
  return t->b->status;
}

kn_status kn_trace_define(kn_trace *t, kn_tensor *x, kn_value *v) {
  memory *m = meet(t, x->storage);
  if (m && m->nviews == 0) add_view(t, m, x, v, 0);
  return t->b->status;
}

kn_status kn_trace_input(kn_trace *t, kn_tensor *x, kn_value *v, const char *name) {
  memory *m = meet(t, x->storage);
  if (m && m->nviews)
    return kn_fail(t->b->ctx, KN_CAPTURE,
                   "trace: arguments '%s' and '%s' share memory; give a clone of one of them",
                   m->views[0].arg ? m->views[0].arg : "?", name);
  view *made = m ? add_view(t, m, x, v, 0) : NULL;
  if (made) made->arg = kn_build_text(t->b, name);
  if (made) made->input = v;
  return t->b->status;
}

/* ---- writes ---- */

/* src as the whole new contents of something of this type. */
static kn_value *fit(kn_trace *t, kn_value *src, const kn_type *type) {
  kn_builder *b = t->b;
  if (src && src->type.tensor.dtype != type->dtype) {
    kn_attrs_cast to = {.dtype = (kn_dtype)type->dtype};
    src = only(kn_add_op(b, KN_OP_cast, &to, &src, 1, NULL, 0));
  }
  bool same = src && src->type.tensor.rank == type->rank;
  for (int d = 0; same && d < type->rank; d++) same = src->type.tensor.dims[d] == type->dims[d];
  if (same || !src) return src;
  kn_attrs_strided all = {0};
  int64_t stride = 1;
  for (int d = type->rank - 1; d >= 0; d--)
    all.strides.v[d] = type->dims[d] > 1 ? stride : 0, stride *= type->dims[d];
  for (int d = 0; d < type->rank; d++) all.sizes.v[d] = type->dims[d];
  all.sizes.n = all.strides.n = type->rank;
  kn_attrs_fill zero = {.dtype = (kn_dtype)type->dtype, .device = type->device};
  zero.sizes = all.sizes;
  kn_value *base = only(kn_add_op(b, KN_OP_full, &zero, NULL, 0, NULL, 0));
  return base ? only(kn_add_op(b, KN_OP_strided_put, &all, (kn_value *[]){base, src}, 2, NULL, 0)) : NULL;
}

/* The memory of x takes the values of src. */
static kn_status write(kn_trace *t, kn_tensor *x, kn_value *src) {
  kn_builder *b = t->b;
  kn_attrs_strided at;
  memory *m = find(t, x->storage);
  view *v = view_of(m, x), *root = &m->views[v->root];
  if (m->nroots > 1)
    return kn_fail(b->ctx, KN_CAPTURE,
                   "a tensor from outside is written in place, and others from outside share its memory: "
                   "clone it first");
  kn_value *now;
  if (v == root)
    now = fit(t, src, &x->type);
  else if (lies_in(root, x, &at))
    now = only(kn_add_op(b, KN_OP_strided_put, &at, (kn_value *[]){root->value, src}, 2, NULL, 0));
  else
    return kn_fail(b->ctx, KN_CAPTURE,
                   "a view of a tensor that is not row-major is written in place: clone the base first");
  if (!now) return b->status;
  if (!now->name) kn_value_name(b, now, root->value->name);
  root->value = now;
  root->version = ++m->version;
  if (v != root) v->version = m->version - 1; /* what is there now is taken from the root */
  return KN_OK;
}

/* ---- what kn_apply calls ---- */

/* A size that depends on data is what it was: whatever was computed from it would be wrong for another. */
static kn_status hold_sizes(kn_trace *t, kn_op op, kn_value *v, const kn_tensor *x) {
  kn_builder *b = t->b;
  char text[200];
  for (int d = 0; d < x->type.rank; d++) {
    if (kn_dim_known(v->type.tensor.dims[d])) continue;
    long long size = (long long)x->type.dims[d];
    snprintf(text, sizeof text,
             "%s: the result has another size than when this graph was traced (%lld in dim %d): sizes that "
             "depend on data are fixed by a trace; use kiln.script",
             kn_op_name(op), size, d + 1);
    kn_value *is = kn_add_size(b, v, d), *was = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = size}});
    if (is && was)
      kn_add_raise(b, KN_NODE_assert, kn_add_scalar(b, KN_NODE_lua_eq, (kn_value *[]){is, was}, 2), text);
  }
  return b->status;
}

static kn_status take_outputs(kn_trace *t, const kn_node *n, kn_tensor *const *in, int nin, kn_tensor **out) {
  for (uint32_t i = 0; i < n->nout; i++) {
    kn_value *v = n->out[i];
    memory *m = meet(t, out[i]->storage);
    if (!m) return t->b->status;
    if (kn_ops[n->op].flags & KN_FLAG_DYNAMIC) KN_TRY(hold_sizes(t, (kn_op)n->op, v, out[i]));
    view *known = view_of(m, out[i]);
    if (known && known->version == m->version) continue; /* the op gave its input back */
    if (known) {
      known->value = v;
      known->version = m->version;
      continue;
    }
    uint32_t root = m->nviews;
    for (int k = 0; k < nin && root == m->nviews; k++) {
      const view *from = in[k] && in[k]->storage == out[i]->storage ? view_of(m, in[k]) : NULL;
      if (from) root = from->root;
    }
    if (!add_view(t, m, out[i], v, root)) return t->b->status;
  }
  return KN_OK;
}

static kn_status run(kn_trace *t, kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                     const kn_type *types, kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  kn_value *values[KN_MAX_INPUTS];
  if (t->opaque && ctx->walks)
    return kn_fail(
        ctx, KN_CAPTURE,
        "backward in a traced function does not see into kiln.cond, kiln.while_loop and Graphs that "
        "were called: use kiln.script");
  t->place(t->ud);
  t->b->no_grad = !ctx->grad_enabled;
  for (int i = 0; i < n; i++)
    if (!(values[i] = kn_trace_value(t, in[i]))) return t->b->status;
  KN_TRY(kn_run_now(ctx, op, attrs, in, n, types, out));
  if (row->flags & KN_FLAG_WRITES) return write(t, in[0], values[1]);
  kn_node *node = kn_add_op(t->b, op, attrs, values, (uint32_t)n, NULL, 0);
  return node ? take_outputs(t, node, in, n, out) : t->b->status;
}

static kn_status trace_apply(kn_recorder *base, kn_context *ctx, kn_op op, const void *attrs,
                             kn_tensor *const *in, int n, const kn_type *types, kn_tensor **out) {
  kn_trace *t = (kn_trace *)base;
  kn_tensor *made[KN_MAX_OUTPUTS] = {NULL};
  if (t->b->status != KN_OK) return t->b->status;
  kn_status st = run(t, ctx, op, attrs, in, n, types, made);
  for (int i = 0; i < kn_ops[op].outs; i++) {
    if (st == KN_OK)
      out[i] = made[i];
    else
      kn_tensor_release(made[i]);
  }
  if (st != KN_OK && t->b->status == KN_OK && st == KN_CAPTURE) t->b->status = st; /* half recorded */
  return st;
}

static kn_status trace_item(kn_recorder *base, kn_context *ctx, kn_tensor *x, kn_scalar *out) {
  kn_trace *t = (kn_trace *)base;
  if (!x->storage)
    return kn_fail(ctx, KN_CAPTURE, "item: a symbol of a graph that is being built has no data");
  KN_TRY(t->leak(t->ud, x));
  return kn_scalar_of(ctx, x, out);
}

static kn_status trace_read(kn_recorder *base, kn_context *ctx, kn_tensor *x) {
  kn_trace *t = (kn_trace *)base;
  (void)ctx;
  return t->leak(t->ud, x);
}

static kn_status trace_number(kn_recorder *base, kn_context *ctx, const kn_scalar *s, kn_tensor *x) {
  kn_trace *t = (kn_trace *)base;
  (void)ctx;
  if (t->b->status != KN_OK) return t->b->status;
  t->place(t->ud);
  kn_value *v = kn_add_to_tensor(t->b, kn_add_const(t->b, *s), kn_tensor_dtype(x));
  return v ? kn_trace_define(t, x, v) : t->b->status;
}

static kn_status no_symbols(kn_recorder *base, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                            kn_tensor **out) {
  (void)base, (void)s, (void)dtype, (void)out;
  return kn_fail(ctx, KN_CAPTURE, "a number of a graph that is being built was used in a traced function");
}

static kn_status no_sizes(kn_recorder *base, kn_context *ctx, kn_tensor *x, int dim, kn_scalar *out) {
  (void)x, (void)dim;
  return no_symbols(base, ctx, out, KN_F32, NULL);
}

static kn_status no_placeholder(kn_recorder *base, kn_context *ctx, const kn_scalar *s, int64_t *out) {
  (void)out;
  return no_symbols(base, ctx, s, KN_F32, NULL);
}

/* ---- the end ---- */

kn_value *kn_trace_result(kn_trace *t, kn_tensor *x, kn_value *const *given, uint32_t n) {
  kn_value *v = kn_trace_value(t, x);
  const memory *m = v ? find(t, x->storage) : NULL;
  const view *at = m ? view_of(m, x) : NULL;
  bool taken = at && !v->def && at->input != v; /* an input that is not this tensor */
  for (uint32_t i = 0; i < n && v; i++) taken |= given[i] == v;
  return taken ? only(kn_add_op(t->b, KN_OP_clone, NULL, &v, 1, NULL, 0)) : v;
}

kn_status kn_trace_stores(kn_trace *t) {
  kn_builder *b = t->b;
  for (uint32_t i = 0; i < t->room; i++)
    for (const memory *m = t->memory[i]; m; m = m->next) {
      const view *v = m->views;
      if (!m->version || !m->nviews) continue;
      if (v->arg) { /* the caller's tensor takes it */
        kn_add_update(b, v->input, v->value);
        continue;
      }
      if (!v->slot) continue;
      kn_node *read = b->graph->body->first;
      while (read && read->slot != v->slot) read = read->next;
      v->slot->kind = KN_SLOT_STATE;
      if (read) read->op = KN_NODE_load_state;
      kn_add_store(b, v->slot, v->value);
    }
  return b->status;
}

kn_status kn_trace_init(kn_trace *t, kn_builder *b) {
  *t = (kn_trace){.base = {.all = true,
                           .apply = trace_apply,
                           .item = trace_item,
                           .size = no_sizes,
                           .to_tensor = no_symbols,
                           .dynamic = no_placeholder,
                           .number = trace_number,
                           .read = trace_read,
                           .detached = trace_detached,
                           .runs = true},
                  .b = b,
                  .room = 64};
  t->memory = kn_calloc(b->ctx->heap, t->room, sizeof *t->memory);
  return t->memory ? KN_OK : kn_fail_nomem(b->ctx, t->room * sizeof *t->memory);
}

void kn_trace_free(kn_trace *t) {
  for (uint32_t i = 0; i < t->room && t->memory; i++)
    for (memory *m = t->memory[i]; m; m = m->next) {
      for (uint32_t k = 0; k < m->ndetached; k++) kn_tensor_release(m->detached[k]);
      kn_storage_release(m->storage);
    }
  if (t->memory) kn_free(t->b->ctx->heap, t->memory, t->room * sizeof *t->memory);
  t->memory = NULL;
}
