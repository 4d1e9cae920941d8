/* A product with its scale and shift folded into weight and bias: see affine.c, which found them. */
#include "core/expr.h"
#include "graph/internal.h"
#include "graph/passes/affine.h"
#include <string.h>

/* ---- elements ---- */

/* A tensor of `rank` dims, all 1 but one, where `like` is. */
static kn_status channel_tensor(kn_context *ctx, const double *of, int64_t n, int rank, int dim,
                                const kn_type *like, kn_tensor **out) {
  kn_type type = {.dtype = KN_F64, .rank = (uint8_t)rank};
  kn_tensor *t;
  for (int i = 0; i < rank; i++) type.dims[i] = i == dim ? n : 1;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  memcpy(kn_tensor_data(t), of, (size_t)n * sizeof *of);
  return kn_known_move(ctx, (kn_device_id)like->device, t, out);
}

/* The usual one: float32, in order. Without a wide copy of it. */
static kn_status scaled_floats(kn_context *ctx, const kn_affine *a, const kn_tensor *w, int dim,
                               kn_tensor **out) {
  int64_t inner = 1, n = kn_tensor_numel(w);
  KN_TRY(kn_tensor_new(ctx, &w->type, out));
  for (int d = dim + 1; d < w->type.rank; d++) inner *= w->type.dims[d];
  const float *from = kn_tensor_data(w);
  float *to = kn_tensor_data(*out);
  for (int64_t i = 0, c = 0; i < n; i += inner, c = c + 1 < a->channels ? c + 1 : 0) {
    const double scale = a->scale[c];
    for (int64_t k = i; k < i + inner; k++) to[k] = (float)((double)from[k] * scale);
  }
  return KN_OK;
}

/* The weight times the scale, rounded once; as the weight lies in memory, so with dims exchanged if `flip`.
 */
static kn_status scaled_weight(kn_context *ctx, const kn_affine *a, kn_tensor *w, bool flip,
                               kn_tensor **out) {
  int dim = flip ? 1 - a->row->weight : a->row->weight;
  kn_tensor *scale;
  kn_scope s;
  if (kn_tensor_dtype(w) == KN_F32 && w->type.device == KN_CPU && !flip && kn_tensor_contiguous(w) &&
      w->type.dims[dim] == a->channels)
    return scaled_floats(ctx, a, w, dim, out);
  KN_TRY(channel_tensor(ctx, a->scale, a->channels, w->type.rank, dim, &w->type, &scale));
  kn_scope_open(&s, ctx);
  kx_own(&s, scale);
  kn_tensor *from = flip ? kx_transpose(&s, w, 0, 1) : w;
  kn_tensor *wide = kx_mul(&s, kx_cast(&s, from, KN_F64), scale);
  return kn_scope_close(&s, kx_cast(&s, wide, kn_tensor_dtype(w)), out);
}

static kn_status shift_tensor(kn_context *ctx, const kn_affine *a, int rank, int dim, kn_tensor **out) {
  const kn_type *like = &a->node->out[0]->type.tensor;
  kn_tensor *wide;
  kn_scope s;
  KN_TRY(channel_tensor(ctx, a->shift, a->channels, rank, dim, like, &wide));
  kn_scope_open(&s, ctx);
  kx_own(&s, wide);
  return kn_scope_close(&s, kx_cast(&s, wide, (kn_dtype)like->dtype), out);
}

/* ---- nodes ---- */

typedef struct maker {
  kn_builder *b;
  kn_known *k;
  const kn_affine *a;
  kn_node *last; /* what is made next stands behind it */
  const char *bias;
} maker;

static kn_value *place(maker *m, kn_node *n) {
  if (!n) return NULL;
  m->last = kn_fold_place(n, m->last);
  return n->out[0];
}

/* Reads a constant of these elements (taken), under the name if nobody else needs that. */
static kn_value *constant(maker *m, const char *name, kn_slot *instead, kn_tensor *owned) {
  kn_builder *b = m->b;
  uint32_t before = b->graph->nslots;
  kn_slot *s = kn_known_slot(b, name, owned);
  if (!s) return NULL;
  if (instead && b->graph->nslots > before) { /* the old one goes, its name and place stay */
    const char *unused = s->name;
    s->name = instead->name;
    s->where = instead->where;
    instead->name = unused;
  }
  kn_value *v = kn_add_slot_node(b, KN_NODE_tensor, s);
  return v ? place(m, v->def) : NULL;
}

/* "net.conv.bias" beside "net.conv.weight" */
static const char *bias_name(kn_builder *b, const kn_slot *weight) {
  const char *name = weight ? weight->name : "", *end = strrchr(name, '.');
  size_t stem = end ? (size_t)(end + 1 - name) : 0;
  char *made = kn_build_alloc(b, stem + sizeof "bias");
  if (!made) return "bias";
  memcpy(made, name, stem);
  memcpy(made + stem, "bias", sizeof "bias");
  return made;
}

static kn_value *weight(maker *m) {
  const kn_affine *a = m->a;
  kn_builder *b = m->b;
  kn_value *old = a->node->in[1], *v;
  kn_tensor *w = kn_known_at(m->k, old), *made;
  if (!a->scales) return old;
  bool flip = w->type.rank == 2 && !kn_tensor_contiguous(w);
  kn_status st = scaled_weight(b->ctx, a, w, flip, &made);
  if (st != KN_OK) return kn_build_fail(b, st);
  v = constant(m, a->slot ? a->slot->name : "weight", a->slot, made);
  if (v) kn_value_name(b, v, old->name ? old->name : "weight");
  if (!v || !flip) return v;
  kn_attrs_swap swap = {.dim0 = 0, .dim1 = 1};
  return place(m, kn_add_op(b, KN_OP_transpose, &swap, &v, 1, NULL, 0));
}

static kn_value *shift(maker *m, int rank, int dim) {
  kn_slot *old = m->a->bias_slot;
  kn_tensor *t;
  kn_status st = shift_tensor(m->b->ctx, m->a, rank, dim, &t);
  if (st != KN_OK) return kn_build_fail(m->b, st);
  kn_value *v = constant(m, old ? old->name : m->bias, old, t);
  if (v) kn_value_name(m->b, v, "bias");
  return v;
}

/* The product again, with other inputs; what stands for its sizes stays. */
static kn_value *product(maker *m, kn_value *w, kn_value *bias) {
  const kn_node *n = m->a->node;
  uint32_t nt = bias && n->ntensor < 3 ? 3 : n->ntensor, ndyn = n->nin - n->ntensor;
  kn_value *in[KN_MAX_INPUTS + KN_MAX_DYN];
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = n->in[i];
  for (uint32_t i = 0; i < ndyn; i++) in[nt + i] = n->in[n->ntensor + i];
  in[1] = w;
  if (bias) in[2] = bias;
  kn_node *made = kn_add_node(m->b, n->op, n->attrs, in, nt + ndyn, &n->out[0]->type, 1);
  if (made) made->ntensor = nt;
  return place(m, made);
}

static kn_value *view(maker *m, const kn_node *like, kn_value *of) {
  kn_value *in[KN_MAX_INPUTS + KN_MAX_DYN];
  memcpy(in, like->in, like->nin * sizeof *in);
  in[0] = of;
  kn_vtype type = like->out[0]->type;
  type.tensor.dtype = of->type.tensor.dtype; /* of a chain that went to float32 and back */
  kn_node *made = kn_add_node(m->b, like->op, like->attrs, in, like->nin, &type, 1);
  if (!made) return NULL;
  made->ntensor = like->ntensor;
  made->where = like->where;
  made->no_grad = like->no_grad;
  return place(m, made);
}

/* Without a bias of its own: a sum behind it. */
static kn_value *added(maker *m, kn_value *v) {
  int rank = v->type.tensor.rank, channel = m->a->row->channel, behind = channel < 0 ? 1 : rank - channel;
  kn_value *t = shift(m, behind, 0);
  kn_value *in[2] = {v, t};
  return t ? place(m, kn_add_node(m->b, (kn_opcode)KN_OP_add, NULL, in, 2, &v->type, 1)) : NULL;
}

static kn_value *make(maker *m) {
  const kn_affine *a = m->a;
  kn_value *w = weight(m), *bias = NULL;
  if (w && a->row->bias && (a->shifts || a->node->ntensor > 2) && !(bias = shift(m, 1, 0))) return NULL;
  kn_value *v = w ? product(m, w, bias) : NULL;
  if (v && !a->row->bias && a->shifts) v = added(m, v);
  for (uint32_t i = 0; v && i < a->nviews; i++) v = view(m, a->views[i], v);
  return v;
}

bool kn_affine_make(kn_builder *b, kn_known *k, const kn_fold *f, kn_value **to) {
  const kn_affine *a = f->plan;
  maker m = {b, k, a, f->last, bias_name(b, a->slot)};
  kn_region *at = b->at;
  const kn_where *where = b->where;
  bool no_grad = b->no_grad;
  b->at = a->node->region;
  b->where = a->node->where;
  b->no_grad = a->node->no_grad;
  *to = make(&m);
  if (*to) kn_value_name(b, *to, f->from[0]->name);
  b->at = at;
  b->where = where;
  b->no_grad = no_grad;
  return *to != NULL && b->status == KN_OK;
}
