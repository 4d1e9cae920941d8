/* What the nodes are to cuDNN, and a run of them: see attended.h. Nothing that was between them is in memory
 * when they run, so a plan is made before; an operand that then lies in another way than the plan was told is
 * copied. */
#include "backends/cuda/attended.h"
#include "backends/attention_find.h"
#include "backends/cuda/attention.h"
#include "backends/cuda/chain.h"
#include "backends/cuda/work.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { Q, K, V, MASK, OPERANDS };
enum { MOST_CASTS = 8, MOST_BEFORE = MOST_CASTS + KN_ATTENTION_LOOK, ALIGNED = 16 };
enum { BATCH, HEADS, ROWS, COLUMNS, RANK };

/* A tensor of halves as [batch, heads, rows, columns], as the plan has it. */
typedef struct operand {
  uint32_t v;
  bool turned; /* its own last two dims are columns and rows */
  int64_t dims[RANK], strides[RANK];
} operand;

struct cu_attended {
  cu_attention a;
  const cu_plan *plan; /* lives as long as the device is open */
  operand in[OPERANDS];
  uint32_t n, out;
  uint32_t numbers[1 + KN_SCORE_STEPS], nnumbers; /* values whose product is the scale … */
  bool divides[1 + KN_SCORE_STEPS];               /* … or by which it is divided */
  uint32_t before[MOST_BEFORE], nbefore;
};

typedef struct search {
  const kn_part *part;
  const kn_node *const *list; /* casts, then what was found */
  uint32_t casts;
  uint32_t uses[MOST_CASTS]; /* of each cast, by these nodes */
  bool wide;                 /* float32 between casts */
  kn_attention_nodes f;
  cu_attended *a;
  char *why;
  size_t size;
} search;

static const kn_type *type_of(const search *s, uint32_t v) { return &s->part->types[v]; }

static bool refuse(const search *s, const char *reason) {
  snprintf(s->why, s->size, "%s", reason);
  return false;
}

static bool is_half(uint32_t dtype) { return dtype == KN_F16 || dtype == KN_BF16; }

static bool is_cast(const kn_part *part, const kn_node *n) {
  char why[64];
  return n->op == KN_OP_cast && kn_node_static(n, part->types, why, sizeof why) &&
         part->root[n->out[0]->id] == n->out[0]->id && part->types[n->out[0]->id].device == KN_CUDA;
}

static bool widens(const kn_part *part, const kn_node *n) {
  return is_cast(part, n) && is_half(part->types[n->in[0]->id].dtype) &&
         part->types[n->out[0]->id].dtype == KN_F32;
}

/* ---- operands ---- */

static const kn_value *read_by(const search *s, uint32_t v) {
  for (uint32_t i = 0; i < s->casts + s->f.length; i++)
    for (uint32_t k = 0; k < s->list[i]->ntensor; k++)
      if (s->list[i]->in[k]->id == v) return s->list[i]->in[k];
  return NULL;
}

static bool exchanges_last(const kn_node *n, int rank) {
  if (!n || n->op != KN_OP_transpose || n->nin != n->ntensor) return false;
  const kn_attrs_swap *a = n->attrs;
  const int64_t d0 = a->dim0 < 0 ? a->dim0 + rank : a->dim0, d1 = a->dim1 < 0 ? a->dim1 + rank : a->dim1;
  return d0 + d1 == 2 * rank - 3 && (d0 == rank - 1 || d1 == rank - 1);
}

static void swap_last(int64_t *x) {
  const int64_t rows = x[ROWS];
  x[ROWS] = x[COLUMNS], x[COLUMNS] = rows;
}

/* Of a tensor of halves: dims in front are of the size 1. */
static void stretch(const operand *o, const kn_type *t, const int64_t *strides, int64_t *dims, int64_t *to) {
  for (int d = 0; d < RANK; d++) {
    const int at = d - (RANK - t->rank);
    dims[d] = at < 0 ? 1 : t->dims[at];
    to[d] = at < 0 ? kn_type_numel(t) : strides[at];
  }
  if (o->turned) swap_last(dims), swap_last(to);
}

static bool lies_well(const operand *o) {
  bool well = o->strides[COLUMNS] == 1;
  for (int d = 0; d < COLUMNS; d++) well &= o->strides[d] % (ALIGNED / 2) == 0;
  return well;
}

static bool find_operand(search *s, int which, uint32_t id) {
  operand *o = &s->a->in[which];
  int64_t strides[KN_MAX_RANK];
  const kn_value *v = read_by(s, id);
  if (!v) return refuse(s, "an operand is not read");
  o->turned = which == K;
  if (which == K && exchanges_last(v->def, type_of(s, id)->rank)) {
    v = v->def->in[0];
    o->turned = false;
  }
  if (s->wide) {
    uint32_t c = 0;
    while (c < s->casts && s->list[c]->out[0] != v) c++;
    if (c == s->casts) return refuse(s, "attention of cuDNN is of halves");
    s->uses[c]++;
    v = s->list[c]->in[0];
  }
  const kn_type *t = type_of(s, v->id);
  if (!is_half(t->dtype)) return refuse(s, "attention of cuDNN is of halves");
  if (t->rank > RANK || t->device != KN_CUDA) return refuse(s, "it has more than four dims");
  if (which == Q) s->a->a.dtype = (int32_t)t->dtype;
  if ((int32_t)t->dtype != s->a->a.dtype) return refuse(s, "its operands are of two dtypes");
  o->v = v->id;
  kn_guess_strides(v, s->part->types, strides);
  stretch(o, t, strides, o->dims, o->strides);
  if (which != MASK && lies_well(o)) return true;
  for (int64_t d = RANK, step = 1; d-- > 0; step *= o->dims[d]) o->strides[d] = step;
  return true;
}

static bool find_operands(search *s) {
  return find_operand(s, Q, s->f.q) && find_operand(s, K, s->f.k) && find_operand(s, V, s->f.v);
}

/* ---- what is done to scores ---- */

static bool add_number(search *s, uint32_t v, bool divides) {
  cu_attended *a = s->a;
  a->divides[a->nnumbers] = divides;
  a->numbers[a->nnumbers++] = v;
  return type_of(s, v)->device == KN_CPU || refuse(s, "its scale is on the device");
}

/* A number that the graph holds; NAN: it is not known. */
static double known(const kn_value *v) {
  int64_t strides[KN_MAX_RANK];
  const kn_node *n = v ? v->def : NULL;
  const kn_slot *slot = v ? kn_constant_of(v, strides) : NULL;
  if (slot && slot->tensor->type.device == KN_CPU)
    return kn_element_float(kn_tensor_dtype(slot->tensor), kn_tensor_data(slot->tensor));
  if (!n || kn_opcode_is_op(n->op) || !n->nin) return NAN;
  n = n->in[0]->def;
  return n && n->op == KN_NODE_const && n->scalar.kind == KN_SCALAR_FLOAT ? n->scalar.as.f : NAN;
}

/* Ones at and below the main diagonal: v, or what v is a cast of. What makes it is marked in *made, by node
 * of those found. */
static bool is_causal(const search *s, const kn_value *v, uint32_t *made) {
  const kn_type *t = type_of(s, v->id), *scores = type_of(s, s->f.scores);
  bool tril = false;
  *made = 0;
  if (t->rank != 2 || t->dims[0] != scores->dims[scores->rank - 2] ||
      t->dims[1] != scores->dims[scores->rank - 1])
    return false;
  for (const kn_node *n = v->def; n; n = n->ntensor ? n->in[0]->def : NULL) {
    for (uint32_t i = 0; i < s->f.nothers; i++)
      if (s->list[s->casts + s->f.others[i]] == n || s->list[s->casts + s->f.others[i]]->out[0] == n->out[0])
        *made |= (uint32_t)(s->part->reads[n->out[0]->id] == 1) << s->f.others[i];
    if (n->op == KN_OP_full || n->op == KN_OP_full_like) {
      const kn_number one = n->op == KN_OP_full ? ((const kn_attrs_fill *)n->attrs)->value_number
                                                : ((const kn_attrs_value *)n->attrs)->value_number;
      return tril && n->nin == n->ntensor && one.near == 1;
    }
    if (n->op == KN_OP_tril && n->nin == n->ntensor)
      tril |= ((const kn_attrs_diagonal *)n->attrs)->diagonal == 0;
    else if (n->op != KN_OP_cast)
      return false;
  }
  return false;
}

static bool find_mask(search *s, uint32_t id) {
  cu_attention *a = &s->a->a;
  operand *o = &s->a->in[MASK];
  if (!find_operand(s, MASK, id)) return false;
  if (o->dims[ROWS] != a->queries || o->dims[COLUMNS] != a->keys)
    return refuse(s, "a mask has not all queries and keys");
  a->mask = 1;
  memcpy(a->mask_strides, o->strides, sizeof a->mask_strides);
  for (int d = BATCH; d <= HEADS; d++)
    if (o->dims[d] == 1) a->mask_strides[d] = 0;
  return true;
}

static bool find_steps(search *s, uint32_t *made) {
  const kn_attention_nodes *f = &s->f;
  cu_attention *a = &s->a->a;
  if (f->scale && !add_number(s, f->scale, f->divided)) return false;
  for (uint32_t i = 0; i < f->nops; i++) {
    const kn_attention_op *op = &f->ops[i];
    const bool scales = op->step == KN_SCORE_MUL || op->step == KN_SCORE_DIV;
    if (a->causal || (a->mask && op->step != KN_SCORE_KEEP))
      return refuse(s, "scores are changed after their mask");
    if (scales) {
      if (!add_number(s, op->number, op->step == KN_SCORE_DIV)) return false;
    } else if (op->step == KN_SCORE_ADD) {
      if (!find_mask(s, op->operand)) return false;
    } else {
      a->causal = op->step == KN_SCORE_KEEP && known(read_by(s, op->number)) == -INFINITY &&
                  is_causal(s, read_by(s, op->operand), made) && *made;
      if (!a->causal) return refuse(s, "its mask is one of booleans");
    }
  }
  return !f->kept || refuse(s, "its weights are masked");
}

/* ---- all of it ---- */

static bool fill(search *s) {
  cu_attended *x = s->a;
  cu_attention *a = &x->a;
  operand *q = &x->in[Q], *k = &x->in[K], *v = &x->in[V];
  int64_t *to[] = {a->q, a->k, a->v};
  a->batch = q->dims[BATCH], a->heads = q->dims[HEADS], a->queries = q->dims[ROWS];
  a->kv_heads = k->dims[HEADS], a->keys = k->dims[ROWS];
  a->depth = q->dims[COLUMNS], a->value_depth = v->dims[COLUMNS];
  if (k->dims[BATCH] != a->batch || v->dims[BATCH] != a->batch || v->dims[HEADS] != a->kv_heads ||
      a->kv_heads > a->heads)
    return refuse(s, "keys and values are repeated along dims");
  for (int i = 0; i < 3; i++) memcpy(to[i], x->in[i].strides, sizeof a->q);
  cu_attention_dense(a->o, a->heads, a->queries, a->value_depth);
  return true;
}

/* Where it ends: the second product, or the cast back. */
static bool find_end(search *s) {
  kn_attention_nodes *f = &s->f;
  cu_attended *a = s->a;
  if (f->turned) { /* that is a copy behind it */
    f->length--;
    f->out = f->hidden[--f->nhidden];
  }
  a->n = s->casts + f->length;
  a->out = f->out;
  if (!s->wide) return true;
  const kn_node *n = s->list + a->n < s->part->nodes + s->part->n ? s->list[a->n] : NULL;
  if (!n || !is_cast(s->part, n) || n->in[0]->id != f->out || s->part->reads[f->out] != 1 ||
      (int32_t)type_of(s, n->out[0]->id)->dtype != a->a.dtype)
    return refuse(s, "attention of cuDNN is of halves");
  f->hidden[f->nhidden++] = f->out;
  a->out = n->out[0]->id;
  a->n++;
  return true;
}

static void tell(const search *s, uint32_t made) {
  const kn_part *part = s->part;
  cu_attended *a = s->a;
  for (uint32_t i = 0; i < s->casts; i++) {
    const uint32_t v = s->list[i]->out[0]->id;
    if (s->uses[i] == part->reads[v])
      part->room[v] = KN_ROOM_NONE;
    else
      a->before[a->nbefore++] = i;
  }
  for (uint32_t i = 0; i < s->f.nothers; i++) {
    const uint32_t at = s->f.others[i];
    if (made >> at & 1)
      part->room[s->list[s->casts + at]->out[0]->id] = KN_ROOM_NONE;
    else
      a->before[a->nbefore++] = s->casts + at;
  }
  for (uint32_t i = 0; i < s->f.nhidden; i++) part->room[s->f.hidden[i]] = KN_ROOM_NONE;
}

/* DECLINED with a reason where cuDNN does not take it. */
static kn_status prepare(kn_context *ctx, cu_device *d, search *s, uint32_t *made, const char **why) {
  cu_attended *a = s->a;
  cu_dnn *dnn = NULL;
  *why = s->why;
  if (!find_operands(s) || !fill(s) || !find_steps(s, made) || !find_end(s) ||
      !cu_attention_supports(&a->a, s->why, s->size))
    return KN_DECLINED;
  KN_TRY(cu_device_of(ctx, &d));
  KN_TRY(cu_dnn_of(ctx, d, &dnn, why));
  return cu_attention_plan(ctx, dnn, &a->a, &a->plan, why);
}

kn_status cu_attended_new(kn_context *ctx, cu_device *d, const kn_part *part, uint32_t first,
                          cu_attended **out, uint32_t *looked) {
  char text[96];
  const char *why;
  uint32_t made = 0;
  search s = {.part = part, .list = part->nodes + first, .why = text, .size = sizeof text};
  *out = NULL;
  *looked = 1;
  while (s.casts < MOST_CASTS && first + s.casts < part->n && widens(part, s.list[s.casts])) s.casts++;
  if (!kn_attention_find(part, s.list + s.casts, part->n - first - s.casts, &s.f)) return KN_OK;
  const kn_type *scores = &part->types[s.f.scores];
  if (scores->device != KN_CUDA) return KN_OK;
  s.wide = scores->dtype == KN_F32;
  *looked = s.casts + s.f.length;
  if (!(s.a = kn_calloc(ctx->heap, 1, sizeof *s.a))) return kn_fail_nomem(ctx, sizeof *s.a);
  kn_status st = prepare(ctx, d, &s, &made, &why);
  if (st == KN_OK) {
    tell(&s, made);
    part->together[first] = *looked = s.a->n;
    *out = s.a;
    return KN_OK;
  }
  cu_attended_free(ctx, s.a);
  if (st != KN_DECLINED) return st;
  cu_attention_refused(ctx, "softmax(q k) v", why);
  return KN_OK;
}

void cu_attended_free(kn_context *ctx, cu_attended *a) { kn_free(ctx->heap, a, a ? sizeof *a : 0); }

uint32_t cu_attended_length(const cu_attended *a) { return a->n; }

uint32_t cu_attended_before(const cu_attended *a, const uint32_t **which) {
  *which = a->before;
  return a->nbefore;
}

/* ---- a run ---- */

/* In workspace, as the plan has it. */
static kn_status copy_operand(kn_context *ctx, cu_device *d, const operand *o, const kn_tensor *t,
                              const int64_t *strides, kn_tensor **out) {
  kn_type type = {.dtype = t->type.dtype, .device = KN_CUDA, .rank = 1, .dims = {1}};
  cu_operand from = {.dtype = kn_tensor_dtype(t), .at = cu_address(t)}, to = {.dtype = kn_tensor_dtype(t)};
  cu_chain c = {.rank = RANK};
  for (int i = 0; i < RANK; i++) {
    type.dims[0] += (o->dims[i] - 1) * o->strides[i];
    c.dims[i] = o->dims[i];
    from.strides[i] = o->dims[i] > 1 ? strides[i] : 0;
    to.strides[i] = o->dims[i] > 1 ? o->strides[i] : 0;
  }
  KN_TRY(cu_work_tensor(ctx, d, &type, out));
  to.at = cu_address(*out);
  cu_chain_result(&c, cu_chain_operand(&c, &from), &to);
  return cu_chain_run(ctx, d, &c);
}

static kn_status place(kn_context *ctx, cu_device *d, const operand *o, const kn_tensor *t, CUdeviceptr *at,
                       kn_tensor **copy) {
  int64_t dims[RANK], strides[RANK];
  stretch(o, &t->type, t->strides, dims, strides);
  bool same = cu_address(t) % ALIGNED == 0;
  for (int i = 0; i < RANK; i++) same &= dims[i] == 1 || strides[i] == o->strides[i];
  *at = cu_address(t);
  if (same) return KN_OK;
  KN_TRY(copy_operand(ctx, d, o, t, strides, copy));
  *at = cu_address(*copy);
  return KN_OK;
}

static double scale_of(const cu_attended *a, kn_tensor *const *vals) {
  double scale = 1;
  for (uint32_t i = 0; i < a->nnumbers; i++) {
    const kn_tensor *t = vals[a->numbers[i]];
    const double x = kn_element_float(kn_tensor_dtype(t), kn_tensor_data(t));
    scale = a->divides[i] ? scale / x : scale * x;
  }
  return scale;
}

kn_status cu_attended_run(kn_context *ctx, cu_device *d, const cu_attended *a, kn_tensor *const *vals) {
  kn_tensor *copies[OPERANDS] = {NULL};
  cu_attention_data at = {.o = cu_address(vals[a->out]), .scale = (float)scale_of(a, vals)};
  CUdeviceptr *to[] = {&at.q, &at.k, &at.v, &at.mask};
  kn_status st = KN_OK;
  for (int i = 0; st == KN_OK && i < (a->a.mask ? OPERANDS : MASK); i++)
    st = place(ctx, d, &a->in[i], vals[a->in[i].v], to[i], &copies[i]);
  if (st == KN_OK) st = cu_attention_run(ctx, d, a->plan, &a->a, &at);
  for (int i = 0; i < OPERANDS; i++) kn_tensor_release(copies[i]);
  return st;
}
