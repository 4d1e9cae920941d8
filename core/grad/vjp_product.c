/* Gradients of matmul, convolution and pooling. Those of conv2d and avg_pool2d are ops whose gradients are
 * again among them, so any order can be taken. */
#include "core/grad/vjp.h"

static kn_tensor *turned(kn_scope *s, kn_tensor *t) { return kx_transpose(s, t, -2, -1); }

static kn_tensor *as_rows(kn_scope *s, kn_tensor *t, int64_t columns) {
  kn_attrs_flatten rows = {.start_dim = 0, .end_dim = -2};
  if (!kn_dim_known(columns)) return kx_apply(s, KN_OP_flatten, &rows, &t, 1);
  kn_attrs_sizes at = {.sizes = {.n = 2, .v = {-1, columns}}};
  return kx_apply(s, KN_OP_reshape, &at, &t, 1);
}

static int64_t last_size(const kn_tensor *t) { return t->type.dims[t->type.rank - 1]; }

/* The last size of t, which is also that of b's dim. */
static int64_t size_of(const kn_tensor *t, const kn_tensor *b, int dim) {
  return kn_dim_known(last_size(t)) ? last_size(t) : b->type.dims[dim];
}

/* Does a matrix lie turned, as the weight of a linear layer does? */
static bool lies_turned(kn_context *ctx, const kn_tensor *t) {
  int last = t->type.rank - 1;
  kn_recorder *r = kn_recorder_of(ctx);
  if (kn_tensor_is_symbolic(t)) return r && r->turned && r->turned(r, t);
  return last > 0 && t->strides[last - 1] == 1 && t->strides[last] != 1;
}

/* Of x [M, K] times w [K, N]: w's gradient. It lies as w does, so that what w was turned from gets it in one
 * piece. */
static kn_tensor *right(kn_scope *s, kn_tensor *a, kn_tensor *g, const kn_tensor *b) {
  if (lies_turned(s->ctx, b)) return turned(s, kx_matmul(s, turned(s, g), a));
  return kx_matmul(s, turned(s, a), g);
}

/* The same of x [..., M, K], as in a linear layer: batch dims become rows, so that w's gradient is one
 * product and not a sum of many. */
static kn_tensor *shared_right(kn_scope *s, kn_tensor *a, kn_tensor *g, const kn_tensor *b) {
  a = as_rows(s, a, size_of(a, b, 0));
  g = as_rows(s, g, size_of(g, b, 1));
  return a && g ? right(s, a, g, b) : NULL;
}

/* A vector is a row on the left and a column on the right; the result lacks that dim. */
void kn_vjp_matmul(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *a = kv_in(v, 0), *b = kv_in(v, 1), *g = v->gout[0];
  if (!a || !b) return;
  bool row = a->type.rank == 1, column = b->type.rank == 1;
  if (row) {
    a = kx_axis(s, KN_OP_unsqueeze, a, 0);
    g = kx_axis(s, KN_OP_unsqueeze, g, column ? -1 : -2);
  }
  if (column) {
    b = kx_axis(s, KN_OP_unsqueeze, b, 1);
    g = kx_axis(s, KN_OP_unsqueeze, g, -1);
  }
  if (v->need[0]) v->gin[0] = kv_fit(v, kx_matmul(s, g, turned(s, b)), 0);
  if (!v->need[1] || !a || !g) return;
  bool fold = a->type.rank > 2 && v->in[1]->type.rank == 2 && size_of(a, b, 0) != 0 && size_of(g, b, 1) != 0;
  kn_tensor *gb = fold ? shared_right(s, a, g, b) : right(s, a, g, b);
  if (column) {
    kn_attrs_optional_axis last = {.dim = -1};
    gb = kx_apply(s, KN_OP_squeeze, &last, &gb, 1);
  }
  v->gin[1] = kv_fit(v, gb, 1);
}

/* ---- convolution: all three are linear in each of two tensors ---- */

static kn_tensor *conv(kn_vjp *v, kn_tensor *x, kn_tensor *w) {
  return kx_apply(v->s, KN_OP_conv2d, v->attrs, (kn_tensor *[]){x, w}, 2);
}
static kn_tensor *conv_input(kn_vjp *v, kn_tensor *g, kn_tensor *w, kn_tensor *like) {
  return kx_apply(v->s, KN_OP_conv2d_grad_input, v->attrs, (kn_tensor *[]){g, w, like}, 3);
}
static kn_tensor *conv_weight(kn_vjp *v, kn_tensor *g, kn_tensor *x, kn_tensor *like) {
  return kx_apply(v->s, KN_OP_conv2d_grad_weight, v->attrs, (kn_tensor *[]){g, x, like}, 3);
}

void kn_vjp_conv2d(kn_vjp *v) {
  kn_tensor *g = v->gout[0];
  if (v->need[0]) v->gin[0] = conv_input(v, g, kv_in(v, 1), kv_like(v, 0));
  if (v->need[1]) v->gin[1] = conv_weight(v, g, kv_in(v, 0), kv_like(v, 1));
  if (v->n > 2 && v->need[2]) v->gin[2] = kx_sum(v->s, g, &(kn_ints){.n = 3, .v = {0, 2, 3}}, false);
}

void kn_vjp_conv2d_grad_input(kn_vjp *v) { /* (g, w, x) */
  kn_tensor *gx = v->gout[0];
  if (v->need[0]) v->gin[0] = conv(v, gx, kv_in(v, 1));
  if (v->need[1]) v->gin[1] = conv_weight(v, kv_in(v, 0), gx, kv_like(v, 1));
}

void kn_vjp_conv2d_grad_weight(kn_vjp *v) { /* (g, x, w) */
  kn_tensor *gw = v->gout[0];
  if (v->need[0]) v->gin[0] = conv(v, kv_in(v, 1), gw);
  if (v->need[1]) v->gin[1] = conv_input(v, kv_in(v, 0), gw, kv_like(v, 1));
}

/* ---- pooling ---- */

static kn_tensor *pool(kn_vjp *v, kn_op op, kn_tensor *a, kn_tensor *b) {
  return kx_apply(v->s, op, v->attrs, (kn_tensor *[]){a, b}, b ? 2 : 1);
}

void kn_vjp_max_pool2d(kn_vjp *v) {
  kn_tensor *x = kv_in(v, 0);
  if (x) v->gin[0] = pool(v, KN_OP_max_pool2d_grad, v->gout[0], x);
}

/* What was put at the maxima is picked up there. */
void kn_vjp_max_pool2d_grad(kn_vjp *v) { /* (g, x) */
  const kn_attrs_flatten plane = {.start_dim = -2, .end_dim = -1};
  const kn_attrs_axis last = {.dim = -1};
  if (!v->need[0]) return;
  kn_tensor *places = pool(v, KN_OP_max_pool2d_indices, kv_in(v, 1), NULL);
  kn_tensor *in[] = {kx_apply(v->s, KN_OP_flatten, &plane, v->gout, 1),
                     kx_apply(v->s, KN_OP_flatten, &plane, &places, 1)};
  v->gin[0] = kx_reshape_as(v->s, kx_apply(v->s, KN_OP_gather, &last, in, 2), kv_like(v, 0));
}

void kn_vjp_avg_pool2d(kn_vjp *v) {
  kn_tensor *x = kv_like(v, 0);
  if (x) v->gin[0] = pool(v, KN_OP_avg_pool2d_grad, v->gout[0], x);
}

void kn_vjp_avg_pool2d_grad(kn_vjp *v) { /* (g, x) */
  if (v->need[0]) v->gin[0] = pool(v, KN_OP_avg_pool2d, v->gout[0], NULL);
}
