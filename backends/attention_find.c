/* Which nodes are attention: softmax of a product, with what is done to scores in between, times a matrix. As
 * core/composite_norm.c writes it down, and as scripts do: numbers that scale queries or scores, masks that
 * are added or choose, in any order. Nodes that have nothing to do with it may stand between. Asks for types
 * and reads alone; whether tensors lie this way or that does not matter. */
#include "backends/attention_find.h"

typedef struct search {
  const kn_part *part;
  const kn_node *const *list;
  uint32_t n, at; /* nodes; the last one that was taken */
  kn_type scores;
  kn_attention_nodes *f;
} search;

static const kn_type *type_of(const search *s, const kn_value *v) { return &s->part->types[v->id]; }

static bool same_dims(const kn_type *a, const kn_type *b) {
  bool same = a->rank == b->rank;
  for (int d = 0; same && d < a->rank; d++) same = a->dims[d] == b->dims[d];
  return same;
}

static bool spreads_to(const kn_type *t, const kn_type *to) {
  bool fits = t->rank <= to->rank;
  for (int d = 0; fits && d < t->rank; d++)
    fits = t->dims[d] == 1 || t->dims[d] == to->dims[d + to->rank - t->rank];
  return fits;
}

static bool is_number(const search *s, const kn_value *v) {
  return type_of(s, v)->rank == 0 && type_of(s, v)->dtype == s->scores.dtype;
}

static bool takes(const search *s, const kn_node *n) {
  char why[64];
  return kn_opcode_is_op(n->op) && n->nout == 1 && s->part->root[n->out[0]->id] == n->out[0]->id &&
         kn_node_static(n, s->part->types, why, sizeof why);
}

/* How many nodes to come read v for its sizes alone, by views of it. */
static uint32_t sized_by(const search *s, const kn_value *v) {
  uint32_t count = 0;
  for (uint32_t i = s->at + 1; i < s->n; i++) {
    if (s->list[i]->op != KN_OP_full_like) continue;
    const kn_value *x = s->list[i]->in[0];
    while (x != v && x->def && x->def->op == KN_OP_select && s->part->reads[x->id] == 1) x = x->def->in[0];
    count += x == v;
  }
  return count;
}

/* The node that reads what the last one gave, which nobody else may; NULL: there is none. Those before it are
 * none of ours. */
static const kn_node *next(search *s) {
  const kn_value *v = s->list[s->at]->out[0];
  if (s->part->reads[v->id] != 1 + sized_by(s, v)) return NULL;
  for (uint32_t i = s->at + 1; i < s->n; i++) {
    const kn_node *n = s->list[i];
    if (!takes(s, n)) return NULL;
    for (uint32_t k = 0; k < n->ntensor; k++) {
      if (n->in[k] != v || n->op == KN_OP_full_like) continue;
      s->f->hidden[s->f->nhidden++] = v->id;
      s->at = i;
      return n;
    }
    s->f->others[s->f->nothers++] = i;
  }
  return NULL;
}

/* mul or div of `of` by a number, which is given back; 0: it is something else. */
static uint32_t number_of(const search *s, const kn_node *n, const kn_value *of) {
  if (n->ntensor != 2 || (n->op != KN_OP_mul && n->op != KN_OP_div)) return 0;
  if (n->in[0] == of && is_number(s, n->in[1])) return n->in[1]->id;
  return n->op == KN_OP_mul && n->in[1] == of && is_number(s, n->in[0]) ? n->in[0]->id : 0;
}

static bool find_product(search *s) {
  const kn_node *n = s->list[0];
  const kn_type *t = type_of(s, n->out[0]);
  kn_attention_nodes *f = s->f;
  s->scores.dtype = t->dtype;
  if (n->op == KN_OP_mul || n->op == KN_OP_div) {
    const kn_value *q = n->in[n->ntensor == 2 && type_of(s, n->in[0])->rank == 0];
    f->scale = number_of(s, n, q);
    if (!f->scale || !same_dims(type_of(s, q), t) || type_of(s, q)->dtype != t->dtype) return false;
    f->q = q->id;
    f->divided = n->op == KN_OP_div;
    n = next(s);
    if (!n || s->at != 1) return false; /* or it begins with the product */
    if (n->op != KN_OP_matmul || n->in[0] != s->list[0]->out[0] || n->in[1] == n->in[0]) return false;
  }
  if (n->op != KN_OP_matmul) return false;
  if (!f->scale) f->q = n->in[0]->id;
  f->k = n->in[1]->id;
  f->scores = n->out[0]->id;
  s->scores = *type_of(s, n->out[0]);
  return type_of(s, n->in[0])->rank >= 2 && type_of(s, n->in[1])->rank >= 2 &&
         type_of(s, n->in[0])->dtype == s->scores.dtype && type_of(s, n->in[1])->dtype == s->scores.dtype &&
         kn_type_numel(&s->scores) > 0 && kn_type_numel(type_of(s, n->in[0])) > 0;
}

/* Is it where(mask, scores, number), or the other way round? */
static bool find_choice(const search *s, const kn_node *n, const kn_value *of, kn_attention_op *o) {
  if (n->op != KN_OP_where || n->ntensor != 3 || type_of(s, n->in[0])->dtype != KN_BOOL) return false;
  const bool keeps = n->in[1] == of, drops = n->in[2] == of;
  if (keeps == drops || !is_number(s, n->in[keeps ? 2 : 1])) return false;
  *o = (kn_attention_op){keeps ? KN_SCORE_KEEP : KN_SCORE_DROP, n->in[0]->id, n->in[keeps ? 2 : 1]->id};
  return spreads_to(type_of(s, n->in[0]), &s->scores);
}

static bool find_op(const search *s, const kn_node *n, const kn_value *of, kn_attention_op *o) {
  const uint32_t number = number_of(s, n, of);
  if (!same_dims(type_of(s, n->out[0]), &s->scores)) return false;
  *o = (kn_attention_op){n->op == KN_OP_mul ? KN_SCORE_MUL : KN_SCORE_DIV, 0, number};
  if (number) return true;
  if (n->op != KN_OP_add || n->ntensor != 2) return find_choice(s, n, of, o);
  const kn_value *other = n->in[n->in[0] == of];
  *o = (kn_attention_op){KN_SCORE_ADD, other->id, 0};
  return other != of && type_of(s, other)->dtype == s->scores.dtype &&
         spreads_to(type_of(s, other), &s->scores);
}

static const kn_node *find_softmax(search *s) {
  const kn_node *n;
  while ((n = next(s)) && n->op != KN_OP_softmax) {
    const kn_value *of = NULL;
    for (uint32_t k = 0; k < n->ntensor; k++)
      if (n->in[k]->id == s->f->hidden[s->f->nhidden - 1]) of = n->in[k];
    if (s->f->nops == KN_SCORE_STEPS || !find_op(s, n, of, &s->f->ops[s->f->nops++])) return NULL;
  }
  if (!n) return NULL;
  const int64_t dim = ((const kn_attrs_axis *)n->attrs)->dim;
  return dim == -1 || dim == s->scores.rank - 1 ? n : NULL;
}

/* where(rows, weights, number), the rows being [..., 1]. */
static bool find_kept(search *s, const kn_node *n, const kn_value *weights) {
  kn_attention_op o;
  const kn_type *rows = n->ntensor ? type_of(s, n->in[0]) : NULL;
  if (!find_choice(s, n, weights, &o) || o.step != KN_SCORE_KEEP) return false;
  if (rows->rank && rows->dims[rows->rank - 1] != 1) return false;
  if (!same_dims(type_of(s, n->out[0]), &s->scores)) return false;
  s->f->kept = o.operand;
  s->f->unkept = o.number;
  return true;
}

/* [..., heads, queries, values] as [..., queries, heads * values] behind it: written there at once. Where a
 * size is 1 that is no copy but a view. */
static void find_turned(search *s, const kn_node *product) {
  const kn_node *n = s->at + 1 < s->n ? s->list[s->at + 1] : NULL, *turn = NULL;
  const kn_value *v = product->out[0];
  if (n && takes(s, n) && n->op == KN_OP_reshape && n->ntensor == 1) turn = n->in[0]->def;
  if (!turn || turn->op != KN_OP_transpose || turn->in[0] != v || turn->nin != turn->ntensor) return;
  if (s->part->reads[v->id] != 1 || s->part->reads[turn->out[0]->id] != 1) return;
  const kn_type *t = type_of(s, v), *to = type_of(s, n->out[0]);
  const kn_attrs_swap *a = turn->attrs;
  const int rank = t->rank;
  const int64_t d0 = a->dim0 < 0 ? a->dim0 + rank : a->dim0, d1 = a->dim1 < 0 ? a->dim1 + rank : a->dim1;
  if (rank < 3 || d0 + d1 != 2 * rank - 5 || (d0 != rank - 3 && d1 != rank - 3)) return;
  bool fits = to->rank == rank - 1 && t->dims[rank - 3] > 1 && t->dims[rank - 2] > 1 &&
              t->dims[rank - 1] > 1 && to->dims[rank - 2] == t->dims[rank - 3] * t->dims[rank - 1] &&
              to->dims[rank - 3] == t->dims[rank - 2];
  for (int d = 0; fits && d < rank - 3; d++) fits = to->dims[d] == t->dims[d];
  if (!fits) return;
  s->f->hidden[s->f->nhidden++] = v->id;
  s->f->out = n->out[0]->id;
  s->f->turned = true;
  s->f->length++;
}

bool kn_attention_find(const kn_part *part, const kn_node *const *list, uint32_t n,
                       kn_attention_nodes *found) {
  *found = (kn_attention_nodes){0};
  search s = {.part = part, .list = list, .n = n < KN_ATTENTION_LOOK ? n : KN_ATTENTION_LOOK, .f = found};
  if (!n || !takes(&s, list[0]) || !find_product(&s)) return false;
  const kn_node *soft = find_softmax(&s), *last = soft ? next(&s) : NULL;
  const kn_value *weights = soft ? soft->out[0] : NULL;
  if (last && find_kept(&s, last, weights)) {
    weights = last->out[0];
    last = next(&s);
  }
  if (!last || last->op != KN_OP_matmul || last->in[0] != weights || last->in[1] == weights) return false;
  const kn_type *v = type_of(&s, last->in[1]), *to = type_of(&s, last->out[0]);
  if (v->rank < 2 || v->dtype != s.scores.dtype || to->rank != s.scores.rank || !kn_type_numel(to))
    return false;
  for (int d = 0; d < to->rank - 2; d++)
    if (to->dims[d] != s.scores.dims[d]) return false;
  found->v = last->in[1]->id;
  found->out = last->out[0]->id;
  found->length = s.at + 1;
  find_turned(&s, last);
  return true;
}
