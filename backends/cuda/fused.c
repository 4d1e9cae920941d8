/* Which nodes share a kernel, and the chain that they make with the operands of a run: see fused.h. */
#include "backends/cuda/fused.h"
#include "backends/cuda/chain_layout.h"
#include "graph/attempt.h"
#include <string.h>

enum { MOST = 40, MOST_VIEWS = 8, NOBODY = -1 };

typedef enum kind {
  EACH,
  FOLD,
  SOFTMAX,
  SAME, /* another name for its input */
  FILL  /* a number */
} kind;

/* Which dims of the list's sizes a value's dims are; -1: none, it is the same all along it. */
typedef struct place {
  int8_t of[KN_MAX_RANK];
} place;

typedef struct link {
  const kn_node *node;
  kind kind;
  kn_op op; /* FOLD: what it is to chains */
  int8_t by[3];
  place at;
  bool stored; /* somebody else reads it */
} link;

struct cu_fused {
  kn_part part; /* its arrays live as long as the plan */
  uint32_t n;
  kn_type shape;
  uint32_t over; /* dims of `shape` that rows span; 0: nothing is folded */
  link links[MOST];
};

/* ---- dims ---- */

static bool same_dims(const kn_type *a, const kn_type *b) {
  bool same = a->rank == b->rank;
  for (int d = 0; same && d < a->rank; d++) same = a->dims[d] == b->dims[d];
  return same;
}

static place whole_of(int rank) {
  place p;
  for (int d = 0; d < KN_MAX_RANK; d++) p.of[d] = (int8_t)(d < rank ? d : -1);
  return p;
}

static const kn_type *type_of(const cu_fused *f, const kn_value *v) { return &f->part.types[v->id]; }

static bool is_full(const cu_fused *f, const link *l) {
  return same_dims(type_of(f, l->node->out[0]), &f->shape);
}

/* Does a value of one number a row have these sizes? All that differs from row to row is among them. */
static bool is_rows(const cu_fused *f, const kn_type *t, const place *p) {
  uint32_t met = 0;
  for (int d = 0; d < t->rank; d++) {
    if (t->dims[d] == 1) continue;
    const int s = p->of[d];
    if (s < 0 || f->over >> s & 1 || t->dims[d] != f->shape.dims[s]) return false;
    met |= UINT32_C(1) << s;
  }
  for (int s = 0; s < f->shape.rank; s++)
    if (f->shape.dims[s] != 1 && !(f->over >> s & 1) && !(met >> s & 1)) return false;
  return true;
}

/* ---- views of what the list makes ---- */

static bool is_resized(const kn_node *n) {
  return n->op == KN_OP_reshape || n->op == KN_OP_reshape_as || n->op == KN_OP_unsqueeze ||
         n->op == KN_OP_squeeze;
}

/* Of `to` as a view of `from`, whose places are *p. */
static bool see(const kn_node *n, const kn_type *from, const kn_type *to, place *p) {
  place q = {{-1, -1, -1, -1, -1, -1, -1, -1}};
  if (n->op == KN_OP_expand || n->op == KN_OP_expand_as) {
    for (int d = 0, lead = to->rank - from->rank; d < from->rank; d++)
      q.of[d + lead] = from->dims[d] == to->dims[d + lead] ? p->of[d] : -1;
  } else if (is_resized(n)) { /* but for ones the same dims */
    int a = 0;
    for (int b = 0; b < to->rank; b++) {
      if (to->dims[b] == 1) continue;
      while (a < from->rank && from->dims[a] == 1) a++;
      if (a == from->rank || from->dims[a] != to->dims[b]) return false;
      q.of[b] = p->of[a++];
    }
    while (a < from->rank && from->dims[a] == 1) a++;
    if (a < from->rank) return false;
  } else if (n->op == KN_OP_sum_to) /* to the sizes that it has */
    return same_dims(from, to);
  else
    return false;
  *p = q;
  return true;
}

static int maker(const cu_fused *f, const kn_value *v) {
  for (uint32_t k = 0; k < f->n; k++)
    if (f->links[k].node->out[0]->id == v->id) return (int)k;
  return NOBODY;
}

/* Who of the list makes v or what it is a view of, and where its dims are. False: it shows what the list
 * makes in a way that no chain reads. */
static bool find_maker(const cu_fused *f, const kn_value *v, int *by, place *p) {
  const kn_value *views[MOST_VIEWS];
  int n = 0;
  while ((*by = maker(f, v)) == NOBODY && f->part.root[v->id] != v->id && v->def && v->def->ntensor) {
    if (n == MOST_VIEWS) return false;
    views[n++] = v;
    v = v->def->in[0];
  }
  if (*by == NOBODY) return true;
  *p = f->links[*by].at;
  while (n--) {
    if (!see(views[n]->def, type_of(f, v), type_of(f, views[n]), p)) return false;
    v = views[n];
  }
  return true;
}

/* May a node whose result's dims are at `to` read a value that lies at `p`? */
static bool meets(const kn_type *t, const place *p, const kn_type *result, const place *to) {
  const int lead = result->rank - t->rank;
  for (int d = 0; d < t->rank; d++)
    if (t->dims[d] != 1 && p->of[d] >= 0 && p->of[d] != to->of[d + lead]) return false;
  return lead >= 0;
}

/* ---- may a node be the next? ---- */

static bool admit_each(cu_fused *f, const kn_node *n, link *l) {
  const kn_type *t = type_of(f, n->out[0]);
  kn_type types[3];
  for (uint32_t i = 0; i < n->ntensor; i++) types[i] = *type_of(f, n->in[i]);
  const kn_dtype dtype = (kn_dtype)t->dtype;
  if (n->op == KN_OP_clone)
    l->kind = SAME;
  else if (!cu_formula_kind_of((kn_op)n->op) || n->op == KN_OP_copy_ ||
           !cu_chain_takes((kn_op)n->op, cu_formula_as((kn_op)n->op, types, (int)n->ntensor, dtype)))
    return false;
  const bool full = !f->n || same_dims(t, &f->shape);
  bool placed = full;
  if (!f->n) f->shape = *t;
  l->at = whole_of(t->rank);
  if (!full && t->rank != f->shape.rank)
    for (int d = 0; d < KN_MAX_RANK; d++) l->at.of[d] = -1;
  for (uint32_t i = 0; i < n->ntensor; i++) {
    int by;
    place p;
    if (!find_maker(f, n->in[i], &by, &p)) return false;
    l->by[i] = (int8_t)by;
    if (by != NOBODY && !placed && same_dims(type_of(f, n->in[i]), t)) l->at = p, placed = true;
  }
  if (!full && !(f->over && is_rows(f, t, &l->at))) return false;
  for (uint32_t i = 0; i < n->ntensor; i++) {
    int by;
    place p;
    if (find_maker(f, n->in[i], &by, &p) && by != NOBODY && !meets(&types[i], &p, t, &l->at)) return false;
  }
  return true;
}

static bool admit_fill(cu_fused *f, const kn_node *n, link *l) {
  if (!f->n) f->shape = *type_of(f, n->out[0]);
  l->kind = FILL;
  l->at = whole_of(f->shape.rank);
  return same_dims(type_of(f, n->out[0]), &f->shape);
}

/* All elements of what it reads are the list's. */
static bool reads_full(cu_fused *f, const kn_value *v, link *l) {
  int by;
  place p;
  const kn_type *t = type_of(f, v);
  if (!f->n) f->shape = *t;
  if (!same_dims(t, &f->shape) || !find_maker(f, v, &by, &p)) return false;
  l->by[0] = (int8_t)by;
  for (int d = 0; by != NOBODY && d < t->rank; d++)
    if (t->dims[d] != 1 && p.of[d] != d) return false;
  return true;
}

/* Rows are what these dims span, for the whole list. */
static bool spans(cu_fused *f, uint32_t over) {
  int64_t cols = 1;
  for (int d = 0; d < f->shape.rank; d++)
    if (over >> d & 1) cols *= f->shape.dims[d];
  if (cols < 2 || (f->over && f->over != over)) return false;
  f->over = over;
  return true;
}

static uint32_t dim_bit(int64_t dim, int rank) { return UINT32_C(1) << (dim < 0 ? dim + rank : dim); }

static uint32_t dims_of(const cu_fused *f, const kn_node *n) {
  const kn_type *x = type_of(f, n->in[0]);
  const uint32_t all = (UINT32_C(1) << x->rank) - 1;
  uint32_t over = 0;
  if (n->op == KN_OP_sum_to) {
    const kn_type *b = type_of(f, n->out[0]);
    const int lead = x->rank - b->rank;
    for (int d = 0; d < x->rank; d++)
      if (d < lead || (b->dims[d - lead] == 1 && x->dims[d] != 1)) over |= UINT32_C(1) << d;
    return over;
  }
  if (n->op == KN_OP_argmax || n->op == KN_OP_argmin) {
    const int64_t dim = ((const kn_attrs_argreduce *)n->attrs)->dim;
    return dim == KN_NONE ? all : dim_bit(dim, x->rank);
  }
  const kn_ints *dim = &((const kn_attrs_reduce *)n->attrs)->dim;
  for (int i = 0; i < dim->n; i++) over |= dim_bit(dim->v[i], x->rank);
  return dim->n ? over : all;
}

static bool admit_fold(cu_fused *f, const kn_node *n, link *l) {
  const kn_type *t = type_of(f, n->out[0]);
  const bool to = n->op == KN_OP_sum_to;
  if (!reads_full(f, n->in[0], l)) return false;
  if (to && same_dims(t, &f->shape)) {
    l->kind = SAME;
    l->at = whole_of(t->rank);
    return t->dtype == type_of(f, n->in[0])->dtype;
  }
  l->kind = FOLD;
  l->op = to ? KN_OP_sum : (kn_op)n->op;
  if (!f->shape.rank || !spans(f, dims_of(f, n))) return false;
  const int lead = f->shape.rank - t->rank;
  for (int d = 0, kept = 0; d < t->rank; d++) {
    while (kept < f->shape.rank && f->over >> kept & 1) kept++;
    l->at.of[d] = (int8_t)(to || !lead ? d + lead : kept++);
  }
  return is_rows(f, t, &l->at);
}

static bool admit_softmax(cu_fused *f, const kn_node *n, link *l) {
  const int64_t dim = ((const kn_attrs_axis *)n->attrs)->dim;
  l->kind = SOFTMAX;
  if (!reads_full(f, n->in[0], l) || !f->shape.rank) return false;
  l->at = whole_of(f->shape.rank);
  return kn_dtype_is_float((kn_dtype)f->shape.dtype) && spans(f, dim_bit(dim, f->shape.rank));
}

static bool admit(cu_fused *f, const kn_node *n) {
  char why[64];
  link *l = &f->links[f->n];
  *l = (link){.node = n, .by = {NOBODY, NOBODY, NOBODY}};
  memset(&l->at, -1, sizeof l->at);
  if (!kn_opcode_is_op(n->op) || n->nout != 1 || !n->ntensor || n->ntensor > 3) return false;
  if (kn_ops[n->op].flags & (KN_FLAG_WRITES | KN_FLAG_RANDOM) || kn_data_may_raise(n)) return false;
  if (!kn_node_static(n, f->part.types, why, sizeof why)) return false;
  const kn_type *x = type_of(f, n->in[0]), *t = type_of(f, n->out[0]);
  if (t->device != KN_CUDA || !kn_type_numel(x) || !kn_type_numel(t)) return false;
  if (f->part.root[n->out[0]->id] != n->out[0]->id) return false;
  const uint32_t over = f->over;
  bool fits;
  if (n->op == KN_OP_softmax || n->op == KN_OP_log_softmax)
    fits = admit_softmax(f, n, l);
  else if (n->op == KN_OP_full_like)
    fits = admit_fill(f, n, l);
  else if (n->op == KN_OP_sum_to || cu_chain_folds((kn_op)n->op))
    fits = admit_fold(f, n, l);
  else
    fits = admit_each(f, n, l);
  if (!fits) f->over = over;
  f->n += fits;
  return fits;
}

/* ---- the chain ---- */

/* Which dim of the chain a dim of the list is: those of rows last. */
static void order_dims(const cu_fused *f, cu_chain *c, int8_t at[KN_MAX_RANK]) {
  *c = (cu_chain){.rank = f->shape.rank};
  int n = 0;
  for (uint32_t last = 0; last < 2; last++)
    for (int d = 0; d < f->shape.rank; d++) {
      if ((f->over >> d & 1) != last) continue;
      c->dims[n] = f->shape.dims[d];
      at[d] = (int8_t)n++;
      c->over += (int)last;
    }
}

/* A tensor that is read, or written, along dims that lie at `to`. Without tensors: in one piece, at an
 * address of its own. */
static cu_operand lying(const cu_fused *f, const kn_value *v, kn_tensor *const *vals, const kn_type *along,
                        const place *to, const int8_t *at) {
  const kn_type *t = type_of(f, v);
  const int lead = along->rank - t->rank;
  int64_t own[KN_MAX_RANK];
  const int64_t *strides = vals ? vals[v->id]->strides : own;
  cu_operand x = {.dtype = (kn_dtype)t->dtype,
                  .at = vals ? cu_address(vals[v->id]) : (CUdeviceptr)v->id << 40};
  kn_strides_contiguous(t, own);
  for (int d = 0; d < t->rank; d++)
    if (t->dims[d] != 1 && to->of[d + lead] >= 0) x.strides[at[to->of[d + lead]]] = strides[d];
  return x;
}

static int input(const cu_fused *f, cu_chain *c, const link *l, uint32_t i, kn_tensor *const *vals,
                 const int8_t *at) {
  const kn_value *v = l->node->in[i];
  const place all = whole_of(f->shape.rank);
  const bool each = l->kind == EACH || l->kind == SAME;
  if (vals && vals[v->id]->type.device == KN_CPU) return cu_chain_input(c, vals[v->id]);
  cu_operand x = lying(f, v, vals, each ? type_of(f, l->node->out[0]) : &f->shape, each ? &l->at : &all, at);
  return cu_chain_operand(c, &x);
}

static uint32_t operands_of(const kn_node *n) { return n->op == KN_OP_sum_to ? 1 : n->ntensor; }

static int fill(cu_chain *c, const kn_node *n, kn_dtype dtype) {
  const kn_number x = ((const kn_attrs_value *)n->attrs)->value_number;
  uint64_t bits = 0;
  if (dtype == KN_I64)
    kn_element_put_int(dtype, &bits, kn_number_int(x));
  else
    kn_element_put_float(dtype, &bits, x.near);
  return cu_chain_number(c, dtype, &bits);
}

static int step(const cu_fused *f, cu_chain *c, const link *l, const int *in) {
  const kn_node *n = l->node;
  const kn_dtype dtype = (kn_dtype)type_of(f, n->out[0])->dtype;
  kn_type types[3];
  switch (l->kind) {
  case SAME: return in[0];
  case FILL: return fill(c, n, dtype);
  case SOFTMAX: return cu_chain_softmax(c, n->op == KN_OP_log_softmax, in[0]);
  case FOLD: return cu_chain_step(c, l->op, NULL, in, 1, (kn_dtype)type_of(f, n->in[0])->dtype, dtype);
  case EACH: break;
  }
  for (uint32_t i = 0; i < n->ntensor; i++) types[i] = *type_of(f, n->in[i]);
  return cu_chain_elementwise(c, (kn_op)n->op, n->attrs, in, types, (int)n->ntensor, dtype);
}

static void build(const cu_fused *f, kn_tensor *const *vals, cu_chain *c) {
  int8_t at[KN_MAX_RANK];
  int value[MOST];
  order_dims(f, c, at);
  for (uint32_t k = 0; k < f->n && !c->full; k++) {
    const link *l = &f->links[k];
    const uint32_t n = l->kind == FILL ? 0 : operands_of(l->node);
    int in[3] = {0};
    for (uint32_t i = 0; i < n; i++)
      in[i] = l->by[i] == NOBODY ? input(f, c, l, i, vals, at) : value[l->by[i]];
    value[k] = step(f, c, l, in);
  }
  for (uint32_t k = 0; k < f->n && !c->full; k++) {
    const link *l = &f->links[k];
    if (!l->stored) continue;
    const kn_value *v = l->node->out[0];
    cu_operand x = lying(f, v, vals, type_of(f, v), &l->at, at);
    cu_chain_result(c, value[k], &x);
  }
}

/* ---- is it worth it? ---- */

static bool gives_elements(const cu_layout *p) {
  for (int k = 0; k < p->c->outputs; k++)
    if (p->lie[CU_CHAIN_INPUTS + k] != CU_STILL) return true;
  return false;
}

/* Would one fold by itself cut its rows for the whole device? */
static bool cuts_alone(kn_context *ctx, const cu_device *d, const cu_chain *like) {
  cu_layout p;
  cu_chain c = {.rank = like->rank, .over = like->over};
  cu_operand x = {.dtype = KN_F32, .at = 256}, y = x;
  int64_t step = 1;
  memcpy(c.dims, like->dims, sizeof c.dims);
  for (int i = c.rank; i-- > 0; step *= c.dims[i]) x.strides[i] = step;
  int in = cu_chain_operand(&c, &x);
  cu_chain_result(&c, cu_chain_step(&c, KN_OP_sum, NULL, &in, 1, KN_F32, KN_F32), &y);
  return cu_chain_lay(ctx, d, &c, &p) == KN_OK && p.split;
}

/* What runs as one must fit in a kernel, and keep the device as busy as its folds would alone. */
static bool fits(kn_context *ctx, const cu_device *d, const cu_fused *f) {
  cu_chain c;
  cu_layout p;
  build(f, NULL, &c);
  if (c.full || !c.outputs || cu_chain_lay(ctx, d, &c, &p) != KN_OK) return false;
  if (!f->over || p.split) return true;
  return !(p.way == CU_COLUMN && gives_elements(&p)) && !cuts_alone(ctx, d, &c);
}

static void find_stored(cu_fused *f) {
  for (uint32_t k = 0; k < f->n; k++) {
    const uint32_t v = f->links[k].node->out[0]->id;
    uint32_t reads = 0;
    for (uint32_t j = 0; j < f->n; j++) {
      const link *l = &f->links[j];
      for (uint32_t i = 0; i < operands_of(l->node); i++) reads += l->node->in[i]->id == v;
    }
    f->links[k].stored = reads != f->part.reads[v];
  }
}

/* As many nodes as may be, `most` at most. */
static void gather(cu_fused *f, const kn_part *part, uint32_t first, uint32_t most) {
  f->part = *part;
  f->n = f->over = 0;
  while (f->n < most && admit(f, part->nodes[first + f->n])) continue;
  find_stored(f);
}

/* How many values the next nodes read of those that the first n have made. */
static uint32_t crossing(const cu_fused *f, uint32_t first, uint32_t n) {
  uint32_t all = 0;
  for (uint32_t k = 0; k < n; k++) {
    const kn_value *v = f->links[k].node->out[0];
    bool read = false;
    for (uint32_t j = first + n; j < f->part.n && j < first + 2 * MOST && !read; j++)
      for (uint32_t i = 0; i < f->part.nodes[j]->ntensor; i++) read |= f->part.nodes[j]->in[i] == v;
    all += read;
  }
  return all;
}

/* Where more would go together than a kernel takes, it ends where least is handed on. */
static uint32_t best_end(const cu_fused *f, uint32_t first) {
  uint32_t best = f->n, least = crossing(f, first, best);
  for (uint32_t n = f->n; n-- > f->n / 2 + 1 && least;) {
    const uint32_t now = crossing(f, first, n);
    if (now < least) best = n, least = now;
  }
  return best;
}

kn_status cu_fused_new(kn_context *ctx, cu_device *d, const kn_part *part, uint32_t first, cu_fused **out) {
  const uint32_t most = part->n - first < MOST ? part->n - first : MOST;
  cu_fused *f = most < 2 ? NULL : kn_alloc(ctx->heap, sizeof *f);
  *out = NULL;
  if (!f) return most < 2 ? KN_OK : kn_fail_nomem(ctx, sizeof *f);
  gather(f, part, first, most);
  bool cut = f->n == MOST;
  while (f->n > 1 && !fits(ctx, d, f)) {
    cut = true;
    gather(f, part, first, f->n - 1);
  }
  if (cut && f->n > 2) gather(f, part, first, best_end(f, first));
  if (f->n < 2 || !fits(ctx, d, f)) {
    cu_fused_free(ctx, f);
    return KN_OK;
  }
  part->together[first] = f->n;
  for (uint32_t k = 0; k < f->n; k++)
    if (!f->links[k].stored) part->room[f->links[k].node->out[0]->id] = KN_ROOM_NONE;
  *out = f;
  return KN_OK;
}

void cu_fused_free(kn_context *ctx, cu_fused *f) { kn_free(ctx->heap, f, f ? sizeof *f : 0); }

uint32_t cu_fused_length(const cu_fused *f) { return f->n; }

kn_status cu_fused_run(kn_context *ctx, cu_device *d, const cu_fused *f, kn_tensor *const *vals) {
  cu_chain c;
  build(f, vals, &c);
  return cu_chain_run(ctx, d, &c);
}
