/* What an op costs by its class and the sizes of its tensors: an estimate for reports, not what a backend
 * does. */
#include "graph/cost.h"

/* Also of tensors that no memory could hold: views repeat elements. */
static double elements(const kn_type *t) {
  double n = 1;
  for (int i = 0; i < t->rank; i++) n *= (double)t->dims[i];
  return kn_type_known(t) ? n : 0;
}

static double last(const kn_type *t) { return t->rank ? (double)t->dims[t->rank - 1] : 1; }

/* Products of the filter with a piece of the input: one a place of what slides, which is the result of the op
 * going forward, and the gradient of that result (the first input) going back. */
static double convolution(const kn_node *n, const kn_type *in, const kn_type *out) {
  bool forward = n->op == KN_OP_conv2d;
  const kn_type *w = &in[n->op == KN_OP_conv2d_grad_weight ? 2 : 1];
  double places = elements(forward ? out : &in[0]), filters = w->rank ? (double)w->dims[0] : 1;
  return filters > 0 ? 2 * places * elements(w) / filters : 0;
}

/* Each step multiplies the state by a matrix: a row of it for each element of what came from the input, or of
 * the gates, which is the first tensor. */
static double recurrence(const kn_node *n, const kn_type *in) {
  double width = 1;
  for (uint32_t i = 0; i < n->ntensor; i++)
    if (in[i].rank == 2) width = last(&in[i]);
  return 2 * elements(&in[0]) * width;
}

/* Products with keys and with values, and five of their size for gradients. */
static double attention(const kn_node *n, const kn_type *in) {
  const double scores = elements(&in[0]) * (double)in[1].dims[in[1].rank - 2];
  return scores * (n->op == KN_OP_fused_attention ? 4 : 10);
}

static double decomposition(const kn_type *in) {
  if (in->rank < 2) return elements(in);
  double rows = (double)in->dims[in->rank - 2], columns = last(in);
  return elements(in) * (rows < columns ? rows : columns);
}

static double flops(const kn_node *n, const kn_type *in, const kn_type *out) {
  switch (kn_ops[n->op].op_class) {
  case KN_CLASS_ELEMENTWISE:
  case KN_CLASS_RANDOM: return elements(out);
  case KN_CLASS_REDUCE:
  case KN_CLASS_POOL: return n->ntensor ? elements(in) : 0;
  case KN_CLASS_SOFTMAX: return 4 * elements(out); /* largest, exp of the difference, sum, quotient */
  case KN_CLASS_MATMUL: return 2 * elements(out) * last(in);
  case KN_CLASS_CONV: return convolution(n, in, out);
  case KN_CLASS_RECURRENT: return recurrence(n, in);
  case KN_CLASS_ATTENTION: return attention(n, in);
  case KN_CLASS_LINALG: return decomposition(in);
  case KN_CLASS_VIEW:
  case KN_CLASS_MOVE:
  case KN_CLASS_INDEX:
  case KN_CLASS_CREATE:
  case KN_CLASS_HOST:
  case KN_CLASS_COMPOSITE: break;
  }
  return 0;
}

static double bytes(const kn_type *t) { return elements(t) * (double)kn_dtype_size((kn_dtype)t->dtype); }

kn_cost kn_node_cost(const kn_node *n, const kn_type *in, const kn_type *out) {
  kn_cost c = {0, 0};
  if (!kn_opcode_is_op(n->op)) return c;
  c.flops = flops(n, in, out);
  if (kn_ops[n->op].op_class == KN_CLASS_VIEW) return c; /* nothing is touched */
  for (uint32_t i = 0; i < n->ntensor; i++) c.bytes += bytes(&in[i]);
  for (uint32_t i = 0; i < n->nout; i++) c.bytes += bytes(&out[i]);
  return c;
}

bool kn_cost_by_types(const kn_node *n, const kn_type *types, kn_cost *c) {
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  bool known = true;
  *c = (kn_cost){0, 0};
  if (!kn_opcode_is_op(n->op)) return true;
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = types[n->in[i]->id], known &= kn_type_known(&in[i]);
  for (uint32_t i = 0; i < n->nout; i++) out[i] = types[n->out[i]->id], known &= kn_type_known(&out[i]);
  *c = kn_node_cost(n, in, out);
  return known;
}

bool kn_cost_by_tensors(const kn_node *n, kn_tensor *const *vals, kn_cost *c) {
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  if (!kn_opcode_is_op(n->op)) return false;
  for (uint32_t i = 0; i < n->ntensor; i++) {
    if (!vals[n->in[i]->id]) return false;
    in[i] = vals[n->in[i]->id]->type;
  }
  for (uint32_t i = 0; i < n->nout; i++) {
    if (!vals[n->out[i]->id]) return false;
    out[i] = vals[n->out[i]->id]->type;
  }
  *c = kn_node_cost(n, in, out);
  return true;
}
