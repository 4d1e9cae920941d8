/* needs: nothing.
 * does:  replaces what two tables of rules say (rewrite.h says where a rule may be applied). Those of `exact`
 * keep every bit, -0, inf and nan included (which nan is not kept); `close`, for inference, rounding and the
 * sign of zero aside: what is no number stays none, so 0 * x is not 0.
 * keeps: sizes, dtypes, effects, what raises; handles that somebody sees; gradients, which simplify_close
 * leaves to rounding. What is not read any more is dce's. */
#include "graph/internal.h"
#include "graph/rewrite.h"
#include <math.h>

static const kn_type *type_of(const kn_match *m, char letter) {
  return &m->value[KN_LETTER(letter)]->type.tensor;
}

/* ---- what else must be ---- */

static bool is_whole(kn_match *m) {
  const kn_vtype *t = &m->node->out[0]->type;
  return t->kind == KN_V_INT || (t->kind == KN_V_TENSOR && kn_dtypes[t->tensor.dtype].category == KN_CAT_INT);
}

static bool is_float(kn_match *m) {
  const kn_vtype *t = &m->node->out[0]->type;
  return t->kind == KN_V_FLOAT || (t->kind == KN_V_TENSOR && kn_dtype_is_float((kn_dtype)t->tensor.dtype));
}

/* No tensor is cast before it is computed with: whole numbers wrap around at another size. */
static bool all_alike(kn_match *m) {
  uint8_t dtype = m->node->out[0]->type.tensor.dtype;
  for (char c = 'x'; c <= 'z'; c++)
    if (m->value[KN_LETTER(c)] && type_of(m, c)->dtype != dtype) return false;
  return true;
}

static bool all_float(kn_match *m) { return all_alike(m) && is_float(m); }

/* 1/a is a number, too, and no smaller than what is normal. */
static bool is_power_of_two(kn_match *m) {
  int exponent;
  double a = m->number[KN_LETTER('a')];
  return all_float(m) && isfinite(a) && fabs(frexp(a, &exponent)) == 0.5 && exponent > -12 && exponent < 12;
}

/* The dimensions of a permute or transpose, from 0; false: not told. */
static bool order_of(const kn_node *n, int rank, int order[KN_MAX_RANK]) {
  for (int i = 0; i < rank; i++) order[i] = i;
  if (n->op == KN_OP_transpose) {
    const kn_attrs_swap *a = n->attrs;
    int64_t x = a->dim0 < 0 ? a->dim0 + rank : a->dim0, y = a->dim1 < 0 ? a->dim1 + rank : a->dim1;
    if (x < 0 || y < 0 || x >= rank || y >= rank) return rank == 0;
    order[x] = (int)y, order[y] = (int)x;
    return true;
  }
  const kn_attrs_axes *a = n->attrs;
  for (int i = 0; i < rank && i < a->dims.n; i++) {
    int64_t d = a->dims.v[i] < 0 ? a->dims.v[i] + rank : a->dims.v[i];
    if (d < 0 || d >= rank) return false;
    order[i] = (int)d;
  }
  return a->dims.n == rank;
}

/* B after A, as a permute; *none: it leaves all where it was. */
static bool compose(kn_match *m, bool *none) {
  int rank = type_of(m, 'x')->rank, first[KN_MAX_RANK], second[KN_MAX_RANK];
  kn_attrs_axes *made = (void *)&m->made;
  const kn_node *b = m->attrs[KN_LETTER('B')];
  *none = true;
  if (!order_of(m->attrs[KN_LETTER('A')], rank, first)) return false;
  for (int i = 0; i < rank; i++) second[i] = i;
  if (b && !order_of(b, rank, second)) return false;
  *made = (kn_attrs_axes){.dims.n = rank};
  for (int i = 0; i < rank; i++) {
    made->dims.v[i] = first[second[i]];
    *none &= first[second[i]] == i;
  }
  return m->same_sizes = m->same_lie = true;
}

static bool cancels(kn_match *m) {
  bool none;
  return compose(m, &none) && none;
}

static bool composes(kn_match *m) {
  bool none;
  return compose(m, &none) && !none;
}

/* One dim put in and taken out again. */
static bool same_dim(kn_match *m) {
  int rank = type_of(m, 'x')->rank + 1;
  int64_t in = ((const kn_attrs_axis *)m->attrs[KN_LETTER('A')]->attrs)->dim;
  const kn_node *out = m->attrs[KN_LETTER('B')];
  int64_t dim = out->op == KN_OP_squeeze ? ((const kn_attrs_optional_axis *)out->attrs)->dim
                                         : ((const kn_attrs_select *)out->attrs)->dim;
  if (dim == KN_NONE) return false;
  return m->same_sizes = m->same_lie = (in < 0 ? in + rank : in) == (dim < 0 ? dim + rank : dim);
}

static bool lies_in_order(kn_match *m) { return kn_rewrite_in_order(m->value[KN_LETTER('x')]); }

static bool whole_range(kn_match *m) {
  const kn_attrs_slice *a = m->node->attrs;
  return m->node->nin == m->node->ntensor && a->step == 1 && a->start == 0;
}

static bool permutes_nothing(kn_match *m) { return cancels(m); }

/* Every value of x's dtype is one of A's, and both are floats or x is true or false. */
static bool loses_nothing(kn_match *m) {
  kn_dtype x = (kn_dtype)type_of(m, 'x')->dtype, b = (kn_dtype)m->node->out[0]->type.tensor.dtype;
  kn_dtype a = ((const kn_attrs_cast *)m->attrs[KN_LETTER('A')]->attrs)->dtype;
  if (x == KN_BOOL) return a != KN_BOOL;
  bool half = x == KN_F16 || x == KN_BF16;
  return kn_dtype_is_float(b) && ((half && (a == KN_F32 || a == KN_F64)) || (x == KN_F32 && a == KN_F64));
}

/* ---- the rules ---- */

static const kn_rule exact[] = {
    {"mul(x, 1)", "x", NULL},
    {"mul(1, x)", "x", NULL},
    {"div(x, 1)", "x", NULL},
    {"sub(x, 0)", "x", NULL}, /* -0 - 0 is -0, -0 + 0 is not */
    {"add(x, -0)", "x", NULL},
    {"add(-0, x)", "x", NULL},
    {"add(x, 0)", "x", is_whole},
    {"add(0, x)", "x", is_whole},
    {"pow(x, 2)", "mul(x, x)", NULL}, /* what the kernel does */
    {"div(x, a)", "mul(x, 1/a)", is_power_of_two},
    {"neg(neg(x))", "x", NULL},
    {"abs(neg(x))", "abs(x)", all_float},
    {"abs(abs(x))", "abs(x)", NULL},
    {"relu(relu(x))", "relu(x)", NULL},
    {"floor(floor(x))", "floor(x)", NULL},
    {"ceil(ceil(x))", "ceil(x)", NULL},
    {"trunc(trunc(x))", "trunc(x)", NULL},
    {"round(round(x))", "round(x)", NULL},
    {"bitwise_not(bitwise_not(x))", "x", NULL},
    {"maximum(x, x)", "x", NULL},
    {"minimum(x, x)", "x", NULL},
    {"where(y, x, x)", "x", NULL},
    {"mul(neg(x), neg(y))", "mul(x, y)", all_alike},
    {"mul(neg(x), a)", "mul(x, -1*a)", all_float},
    {"neg(mul(x, a))", "mul(x, -1*a)", all_float},
    {"add(x, neg(y))", "sub(x, y)", all_alike},
    {"add(neg(x), y)", "sub(y, x)", all_alike},
    {"sub(x, neg(y))", "add(x, y)", all_alike},
    {"cast(x, A)", "x", NULL}, /* to the dtype it has: the rest is checked for every rule */
    {"cast(cast(x, A), B)", "cast(x, B)", loses_nothing},
    {"clone(x)", "x", NULL},
    {"cat(x, A)", "x", NULL},
    {"sum_to(x, y)", "x", NULL}, /* to the sizes it has */
    {"expand(x, A)", "x", NULL},
    {"expand_as(x, y)", "x", NULL},
    {"reshape(x, A)", "x", NULL},
    {"reshape_as(x, y)", "x", NULL},
    {"squeeze(x, A)", "x", NULL},
    {"slice(x, A)", "x", whole_range},
    {"permute(x, A)", "x", permutes_nothing},
    {"transpose(x, A)", "x", permutes_nothing},
    {"transpose(transpose(x, A), B)", "x", cancels},
    {"permute(permute(x, A), B)", "x", cancels},
    {"permute(transpose(x, A), B)", "x", cancels},
    {"transpose(permute(x, A), B)", "x", cancels},
    {"transpose(transpose(x, A), B)", "permute(x, Z)", composes},
    {"permute(permute(x, A), B)", "permute(x, Z)", composes},
    {"permute(transpose(x, A), B)", "permute(x, Z)", composes},
    {"transpose(permute(x, A), B)", "permute(x, Z)", composes},
    {"squeeze(unsqueeze(x, A), B)", "x", same_dim},
    {"select(unsqueeze(x, A), B)", "x", same_dim},
    {"reshape(reshape(x, A), B)", "reshape(x, B)", lies_in_order},
    {"reshape(reshape_as(x, y), B)", "reshape(x, B)", lies_in_order},
    {"reshape_as(reshape(x, A), y)", "reshape_as(x, y)", lies_in_order},
    {"reshape_as(reshape_as(x, z), y)", "reshape_as(x, y)", lies_in_order},
    {"lua.add(i, 0)", "i", is_whole},
    {"lua.add(0, i)", "i", is_whole},
    {"lua.sub(i, 0)", "i", is_whole},
    {"lua.mul(i, 1)", "i", is_whole},
    {"lua.mul(1, i)", "i", is_whole},
    {"lua.idiv(i, 1)", "i", is_whole},
    {"lua.unm(lua.unm(i))", "i", NULL},
    {"lua.not(lua.not(i))", "i", NULL},
    {0},
};

static const kn_rule close[] = {
    {"add(x, 0)", "x", NULL},
    {"add(0, x)", "x", NULL},
    {"sub(0, x)", "neg(x)", NULL},
    {"neg(sub(x, y))", "sub(y, x)", all_alike},
    {"div(x, a)", "mul(x, 1/a)", all_float},
    {"mul(mul(x, a), b)", "mul(x, a*b)", all_float},
    {"mul(a, mul(x, b))", "mul(x, a*b)", all_float},
    {"add(add(x, a), b)", "add(x, a+b)", all_float},
    {"pow(x, 1)", "x", NULL},
    {"pow(x, 0.5)", "sqrt(x)", is_float},
    {"pow(x, -0.5)", "rsqrt(x)", is_float},
    {"pow(x, -1)", "div(1, x)", is_float},
    {"div(1, sqrt(x))", "rsqrt(x)", all_float},
    {"div(x, sqrt(y))", "mul(x, rsqrt(y))", all_float},
    {"log(softmax(x, A))", "log_softmax(x, A)", all_float},
    {"exp(log_softmax(x, A))", "softmax(x, A)", NULL},
    {"div(1, add(exp(neg(x)), 1))", "sigmoid(x)", NULL},
    {"div(1, add(1, exp(neg(x))))", "sigmoid(x)", NULL},
    {0},
};

static kn_status run(kn_builder *b, uint32_t *changes) { return kn_rewrite(b, exact, false, changes); }
static kn_status run_all(kn_builder *b, uint32_t *changes) { return kn_rewrite(b, exact, true, changes); }
const kn_pass kn_pass_simplify = {"simplify", run}, kn_pass_simplify_all = {"simplify_all", run_all};

static kn_status find(kn_builder *b, kn_known *k, kn_fold **list, uint32_t *n) {
  (void)k;
  return kn_rewrite_find(b, close, list, n);
}
static bool make(kn_builder *b, kn_known *k, const kn_fold *f, kn_value **to) {
  (void)k;
  return kn_rewrite_make(b, f, to);
}
static kn_status run_close(kn_builder *b, uint32_t *changes) {
  return kn_folding_run(b, &kn_folding_simplify, NULL, changes);
}
const kn_folding kn_folding_simplify = {{"simplify_close", run_close}, find, make};
