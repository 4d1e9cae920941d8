/* needs: constants found (graph/known.h); chains of sums and products with constants.
 * does:  a convolution or matrix product by a constant weight, and what is added to, taken from, multiplied
 * with or divided by it by constants that differ along its channels at most, becomes one product with another
 * weight and at most one sum: batch norms, scales and biases. Views may stand between. keeps: products whose
 * result is read elsewhere, too; weights that are used elsewhere, unless they are small. Rounding changes. */
#include "graph/passes/affine.h"
#include "core/device.h"
#include "graph/internal.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SMALL = 64 << 10, MOST_NAMES = 200 };

static const kn_product products[] = {
    {KN_OP_conv2d, 1, 0, true},
    {KN_OP_matmul, -1, 1, false},
    {KN_OP_conv2d_grad_input, 1, 1, false}, /* a transposed convolution */
};

typedef struct use {
  uint32_t n;
  kn_node *by; /* the last one; NULL: a region's end */
} use;

typedef struct finder {
  kn_builder *b;
  kn_known *k;
  use *uses;       /* by value id */
  uint32_t *reads; /* by slot */
  kn_fold **list;
  uint32_t *n;
} finder;

typedef struct chain { /* as far as it has been followed */
  kn_affine *a;
  kn_value *v, *end; /* end: behind the last that is folded */
  int channel;       /* dim of v that is the product's channel; -1: lost, then numbers alone go on */
  uint32_t nviews, steps, folded; /* folded: steps up to the end */
  bool scales, folded_scales;
  double *scale, *shift; /* up to v */
  char what[MOST_NAMES];
  const char *last; /* name in it */
  size_t what_end;
} chain;

/* ---- who reads what ---- */

static void note_use(finder *f, const kn_value *v, kn_node *by) {
  f->uses[v->id].n++;
  f->uses[v->id].by = by;
}

static void note_uses(finder *f, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin; i++) note_use(f, n->in[i], n);
    for (int i = 0; i < n->nregions; i++) note_uses(f, n->regions[i]);
    if (n->slot) f->reads[n->slot->index]++;
  }
  for (uint32_t i = 0; i < r->nyields; i++) note_use(f, r->yields[i], NULL);
}

/* The slot that the weight alone reads, itself or by views; NULL: others read it, too. */
static kn_slot *own_slot(const finder *f, const kn_value *v) {
  for (;; v = v->def->in[0]) {
    const kn_node *n = v->def;
    if (!n || f->uses[v->id].n != 1) return NULL;
    if (n->op == KN_NODE_tensor) return f->reads[n->slot->index] == 1 ? n->slot : NULL;
    if (!kn_opcode_is_op(n->op) || kn_ops[n->op].op_class != KN_CLASS_VIEW) return NULL;
  }
}

/* ---- names ---- */

/* "batch_norm" of a part of that composite, else the op's. */
static const char *name_of(kn_builder *b, const kn_node *n) {
  const char *chunk = n->where ? n->where->chunk : "";
  size_t len = strlen(chunk);
  if (strncmp(chunk, "kiln/", 5) != 0 || len < 8 || strcmp(chunk + len - 2, "()") != 0)
    return kn_op_name((kn_op)n->op);
  char *name = kn_build_alloc(b, len);
  return name ? memcpy(name, chunk + 5, len - 7) : "";
}

static void add_name(kn_builder *b, chain *c, const kn_node *n) {
  const char *name = name_of(b, n);
  size_t len = strlen(c->what);
  if (c->last && !strcmp(c->last, name)) return;
  snprintf(c->what + len, sizeof c->what - len, "%s%s", len ? " + " : "", name);
  c->last = name;
}

/* ---- one step along the chain ---- */

/* n elements of the constant, wherever it lies: stride `along` dim, or all the same one (-1). */
static bool read_elements(finder *f, kn_tensor *t, int along, int64_t n, double *out) {
  kn_dtype d = kn_tensor_dtype(t);
  kn_tensor *host;
  kn_status st = kn_to_host(f->b->ctx, t, &host);
  if (st != KN_OK) return kn_build_fail(f->b, st), false;
  const int64_t stride = along < 0 ? 0 : host->strides[along];
  for (int64_t i = 0; i < n; i++)
    out[i] = kn_element_float(d, (const char *)kn_tensor_data(host) + i * stride * (int64_t)kn_dtype_size(d));
  kn_tensor_release(host);
  return true;
}

/* The constant's element for each channel, or for all; false when it differs along another dim. */
static bool read_channels(finder *f, const chain *c, kn_tensor *t, double *out) {
  int rank = c->v->type.tensor.rank, at = c->channel - (rank - t->type.rank);
  int along = -1;
  if (t->type.rank > rank) return false;
  for (int i = 0; i < t->type.rank; i++) {
    if (t->type.dims[i] == 1) continue;
    if (c->channel < 0 || i != at || t->type.dims[i] != c->a->channels) return false;
    along = i;
  }
  return read_elements(f, t, along, c->a->channels, out);
}

static void apply(const chain *c, kn_op op, bool swapped, const double *by) {
  for (int64_t i = 0; i < c->a->channels; i++) {
    double *s = &c->scale[i], *t = &c->shift[i];
    switch ((int)op) {
    case KN_OP_add: *t += by[i]; break;
    case KN_OP_sub:
      if (swapped)
        *s = -*s, *t = by[i] - *t;
      else
        *t -= by[i];
      break;
    case KN_OP_mul: *s *= by[i], *t *= by[i]; break;
    case KN_OP_div: *s /= by[i], *t /= by[i]; break;
    default: *s = -*s, *t = -*t; /* neg */
    }
  }
}

/* `u` reads v, and is a sum or product with a constant. */
static bool step_affine(finder *f, chain *c, kn_node *u) {
  kn_op op = (kn_op)u->op;
  bool neg = op == KN_OP_neg, swapped = !neg && u->in[1] == c->v;
  double *by = NULL;
  if (op != KN_OP_add && op != KN_OP_sub && op != KN_OP_mul && op != KN_OP_div && !neg) return false;
  if ((op == KN_OP_div && swapped) || !kn_vtype_equal(&u->out[0]->type, &c->v->type)) return false;
  if (!neg) {
    kn_tensor *t = kn_known_at(f->k, u->in[!swapped]);
    by = kn_build_alloc(f->b, (size_t)(c->a->channels + 1) * sizeof *by);
    if (!t || !by || !read_channels(f, c, t, by)) return false;
    if (op == KN_OP_add && !c->steps && !c->a->row->bias) c->a->bias_slot = own_slot(f, u->in[!swapped]);
  }
  apply(c, op, swapped, by);
  c->scales |= op != KN_OP_add && op != KN_OP_sub;
  c->steps++;
  add_name(f->b, c, u);
  return true;
}

/* Where reshape keeps the channel's dim: what is before it, or behind it, stays. */
static int reshaped(const kn_type *from, const kn_type *to, int channel) {
  int behind = from->rank - channel;
  bool same = channel < to->rank, tail = behind <= to->rank;
  for (int i = 0; same && i <= channel; i++)
    same = from->dims[i] == to->dims[i] && from->dims[i] != KN_DIM_UNKNOWN;
  if (same) return channel;
  for (int i = 1; tail && i <= behind; i++)
    tail = from->dims[from->rank - i] == to->dims[to->rank - i] && kn_dim_known(to->dims[to->rank - i]);
  return tail ? to->rank - behind : -1;
}

/* The channel's dim behind a view; -1 where it is not one dim any more, or not all of it. */
static int channel_behind(const kn_node *u, int channel) {
  const kn_type *from = &u->in[0]->type.tensor, *to = &u->out[0]->type.tensor;
  int64_t d, e;
  if (channel < 0) return -1;
  switch ((int)u->op) {
  case KN_OP_reshape:
  case KN_OP_reshape_as: return reshaped(from, to, channel);
  case KN_OP_select:
  case KN_OP_slice:
    d = u->op == KN_OP_select ? ((const kn_attrs_select *)u->attrs)->dim
                              : ((const kn_attrs_slice *)u->attrs)->dim;
    d += d < 0 ? from->rank : 0;
    return d == channel ? -1 : channel - (u->op == KN_OP_select && d < channel);
  case KN_OP_squeeze:
    d = ((const kn_attrs_optional_axis *)u->attrs)->dim;
    if (d == KN_NONE || from->rank == to->rank) return from->rank == to->rank ? channel : -1;
    d += d < 0 ? from->rank : 0;
    return d == channel ? -1 : channel - (d < channel);
  case KN_OP_unsqueeze:
    d = ((const kn_attrs_axis *)u->attrs)->dim;
    d += d < 0 ? to->rank : 0;
    return channel + (d <= channel);
  case KN_OP_transpose:
    d = ((const kn_attrs_swap *)u->attrs)->dim0, e = ((const kn_attrs_swap *)u->attrs)->dim1;
    d += d < 0 ? from->rank : 0, e += e < 0 ? from->rank : 0;
    return channel == d ? (int)e : channel == e ? (int)d : channel;
  default: return -1;
  }
}

static bool step_view(finder *f, chain *c, kn_node *u) {
  if (kn_ops[u->op].op_class != KN_CLASS_VIEW || u->in[0] != c->v || u->nout != 1) return false;
  c->channel = channel_behind(u, c->channel);
  return kn_build_push(f->b, &c->a->views, &c->nviews, &u, sizeof u);
}

/* ---- the chain ---- */

/* Halves are computed in float32 by composites: the chain may go there, and has to come back. */
static bool step_cast(const chain *c, const kn_node *u) {
  return u->op == KN_OP_cast && u->in[0] == c->v && kn_dtype_is_float((kn_dtype)u->out[0]->type.tensor.dtype);
}

/* Up to v all is folded. */
static void end_here(chain *c) {
  size_t size = (size_t)c->a->channels * sizeof *c->scale;
  memcpy(c->a->scale, c->scale, size);
  memcpy(c->a->shift, c->shift, size);
  c->a->nviews = c->nviews;
  c->end = c->v;
  c->folded = c->steps;
  c->folded_scales = c->scales;
  c->what_end = strlen(c->what);
}

static void follow(finder *f, chain *c) {
  for (;;) {
    const use *by = &f->uses[c->v->id];
    kn_node *u = by->n == 1 ? by->by : NULL;
    if (!u || u->region != c->a->node->region || !kn_opcode_is_op(u->op) || u->nout != 1) return;
    if (!step_affine(f, c, u) && !step_view(f, c, u) && !step_cast(c, u)) return;
    c->v = u->out[0];
    bool back = c->v->type.tensor.dtype == c->a->node->out[0]->type.tensor.dtype;
    if (c->steps > c->folded && back) end_here(c);
  }
}

/* Its weight's dims, if it is a product of the row's kind that can be folded. */
static const kn_tensor *weight_of(const finder *f, const kn_product *row, const kn_node *n) {
  const kn_tensor *w = n->ntensor > 1 ? kn_known_at(f->k, n->in[1]) : NULL;
  if (!w || kn_known_at(f->k, n->in[0]) || !kn_dtype_is_float(kn_tensor_dtype(w)) || kn_tensor_numel(w) == 0)
    return NULL;
  if (row->op == KN_OP_matmul) return w->type.rank == 2 ? w : NULL;
  if (row->op != KN_OP_conv2d && ((const kn_attrs_conv2d *)n->attrs)->groups != 1) return NULL;
  return w->type.rank == 4 ? w : NULL;
}

static bool begin(finder *f, chain *c, const kn_product *row, kn_node *n, const kn_tensor *w) {
  kn_builder *b = f->b;
  int64_t channels = w->type.dims[row->weight];
  kn_affine *a = kn_build_alloc(b, sizeof *a);
  double *room = kn_build_alloc(b, (size_t)(4 * channels + 1) * sizeof *room);
  if (!a || !room) return false;
  *a = (kn_affine){.row = row, .node = n, .scale = room, .shift = room + channels, .channels = channels};
  *c = (chain){.a = a, .v = n->out[0], .scale = room + 2 * channels, .shift = room + 3 * channels};
  int rank = n->out[0]->type.tensor.rank;
  c->channel = row->channel < 0 ? rank + row->channel : row->channel;
  for (int64_t i = 0; i < channels; i++) c->scale[i] = 1;
  if (row->bias && n->ntensor > 2) {
    kn_tensor *bias = kn_known_at(f->k, n->in[2]);
    if (!bias || !read_elements(f, bias, 0, channels, c->shift)) return false;
  }
  add_name(b, c, n);
  return true;
}

static const char *never(const finder *f, const kn_affine *a, const kn_tensor *w) {
  for (int64_t i = 0; i < a->channels; i++)
    if (!isfinite(a->scale[i]) || !isfinite(a->shift[i])) return "its scale or shift is not finite";
  if (a->scales && !own_slot(f, a->node->in[1]) && kn_tensor_bytes(w) > SMALL)
    return "its weight is used elsewhere, and would be there twice";
  return NULL;
}

static bool find_node(finder *f, const kn_product *row, kn_node *n) {
  const kn_tensor *w = weight_of(f, row, n);
  chain c;
  if (!w || !begin(f, &c, row, n, w)) return f->b->status == KN_OK;
  follow(f, &c);
  kn_affine *a = c.a;
  bool worth = row->bias ? c.folded > 0 : c.folded_scales || c.folded > 1;
  if (!worth) return f->b->status == KN_OK;
  for (int64_t i = 0; i < a->channels; i++) {
    a->scales |= a->scale[i] != 1;
    a->shifts |= a->shift[i] != 0;
  }
  c.what[c.what_end] = 0;
  a->slot = own_slot(f, n->in[1]);
  if (row->bias && n->ntensor > 2) a->bias_slot = own_slot(f, n->in[2]);
  kn_value **from = kn_build_alloc(f->b, sizeof *from);
  kn_fold fold = {.node = n,
                  .what = kn_build_text(f->b, c.what),
                  .of = a->slot ? a->slot->name : NULL,
                  .never = never(f, a, w),
                  .from = from,
                  .n = 1,
                  .last = c.end->def,
                  .plan = a};
  if (!from || !fold.what) return false;
  *from = c.end;
  return kn_build_push(f->b, f->list, f->n, &fold, sizeof fold);
}

static bool find_region(finder *f, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++)
      if (!find_region(f, n->regions[i])) return false;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
      if (n->op == (kn_opcode)products[i].op && !find_node(f, &products[i], n)) return false;
  }
  return true;
}

static kn_status find(kn_builder *b, kn_known *k, kn_fold **list, uint32_t *n) {
  kn_graph *g = b->graph;
  finder f = {.b = b, .k = k, .list = list, .n = n};
  f.uses = kn_build_alloc(b, (g->nvalues + 1u) * sizeof *f.uses);
  f.reads = kn_build_alloc(b, (g->nslots + 1u) * sizeof *f.reads);
  if (!f.uses || !f.reads) return b->status;
  note_uses(&f, g->body);
  find_region(&f, g->body);
  return b->status;
}

static kn_status run(kn_builder *b, uint32_t *changes) {
  return kn_folding_run(b, &kn_folding_affine, NULL, changes);
}

const kn_folding kn_folding_affine = {{"affine", run}, find, kn_affine_make};
