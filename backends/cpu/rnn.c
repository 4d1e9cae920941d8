/* The driver of recurrent layers in one direction: step by step a product with the recurrent weight, which
 * few rows take as it lies and many take turned once for all steps, and then a pass over rows of units.
 * Compiled once. Gradients are the reference's. */
#include "backends/cpu/rnn.h"
#include "core/kernels/kernel.h"
#include <string.h>

typedef struct layer {
  kn_op op;
  const cp_cells *cells;
  int64_t steps, n, h, gates; /* gates: how many products a unit has */
  bool reverse, relu;
  const float *x, *w, *h0, *c0, *bias; /* contiguous */
  float *states, *cells_out, *gates_out;
  float *part;
  const float *before_h, *before_c; /* of the step at hand */
  int64_t at;
} layer;

static void rows(void *ud, int64_t begin, int64_t end) {
  const layer *l = ud;
  for (int64_t r = begin; r < end; r++) {
    const int64_t row = l->at * l->n + r, h = l->h;
    const float *x = l->x + row * l->gates * h, *part = l->part + r * l->gates * h;
    float *state = l->states + row * h;
    if (l->op == KN_OP_lstm_layer)
      l->cells->lstm(h, x, part, l->before_c + r * h, state, l->cells_out + row * h,
                     l->gates_out + row * 4 * h);
    else if (l->op == KN_OP_gru_layer)
      l->cells->gru(h, x, part, l->bias, l->before_h + r * h, state, l->gates_out + row * 4 * h);
    else
      l->cells->rnn(h, x, part, l->relu, state);
  }
}

/* ---- the product of a step ---- */

typedef struct products {
  cp_gemm few;                   /* of few rows */
  kn_tensor *from, *weight, *to; /* of many: operands and result, as tensors of which the first one moves */
} products;

static kn_status matrix(kn_context *ctx, int64_t rows_of, int64_t columns, kn_tensor **out) {
  kn_type type = {.dtype = KN_F32, .rank = 2, .dims = {rows_of, columns}};
  return kn_tensor_new(ctx, &type, out);
}

/* w [gates H, H] turned round and laid out anew. */
static kn_status turned(kn_context *ctx, kn_tensor *w, kn_tensor **out) {
  kn_tensor *t;
  KN_TRY(kn_tensor_alias(ctx, w, &t));
  t->type.dims[0] = w->type.dims[1], t->type.dims[1] = w->type.dims[0];
  t->strides[0] = w->strides[1], t->strides[1] = w->strides[0];
  kn_status st = kk_contiguous(ctx, t, out);
  kn_tensor_release(t);
  return st;
}

static kn_status product(kn_context *ctx, layer *l, products *p) {
  if (!p->weight) {
    p->few.a = (const char *)l->before_h;
    return cp_gemm_run(ctx, &p->few);
  }
  /* Through whatever the device has for large products: what it reads has to be a tensor. */
  memcpy(kn_tensor_data(p->from), l->before_h, (size_t)(l->n * l->h) * sizeof(float));
  return kn_device_run(ctx, KN_OP_matmul, NULL, (kn_tensor *[]){p->from, p->weight}, 2, &p->to, NULL);
}

static kn_status open_products(kn_context *ctx, const layer *l, const cp_kit *kit, kn_tensor *w,
                               products *p) {
  KN_TRY(matrix(ctx, l->n, l->gates * l->h, &p->to));
  p->few = (cp_gemm){.kit = kit,
                     .m = l->n,
                     .n = l->gates * l->h,
                     .k = l->h,
                     .a_row = l->h,
                     .a_column = 1,
                     .b = (const char *)l->w,
                     .b_row = 1,
                     .b_column = l->h,
                     .c = kn_tensor_data(p->to),
                     .c_row = l->gates * l->h};
  if (l->n <= CP_MOST_ROWS) return KN_OK;
  KN_TRY(matrix(ctx, l->n, l->h, &p->from));
  return turned(ctx, w, &p->weight);
}

/* ---- the walk ---- */

static kn_status walk(kn_context *ctx, layer *l, products *p) {
  const int64_t all = l->n * l->h, grain = CP_DEAR / (4 * l->h + 1) + 1;
  kn_status st = KN_OK;
  for (int64_t i = 0; i < l->steps && st == KN_OK; i++) {
    int64_t last = l->reverse ? l->steps - i : i - 1;
    l->at = l->reverse ? l->steps - 1 - i : i;
    l->before_h = i ? l->states + last * all : l->h0;
    l->before_c = i && l->cells_out ? l->cells_out + last * all : l->c0;
    st = product(ctx, l, p);
    if (st == KN_OK) kn_parallel_for(ctx, l->n, grain, rows, l);
  }
  return st;
}

static bool floats(kn_tensor *const *in, int n) {
  for (int i = 0; i < n; i++)
    if (in[i] && kn_tensor_dtype(in[i]) != KN_F32) return false;
  return true;
}

static void set(layer *l, const void *attrs, kn_tensor *const *as, int n, kn_tensor *const *out) {
  const bool lstm = l->op == KN_OP_lstm_layer, gru = l->op == KN_OP_gru_layer;
  l->gates = lstm ? 4 : gru ? 3 : 1;
  l->x = kn_tensor_data(as[0]), l->w = kn_tensor_data(as[1]), l->h0 = kn_tensor_data(as[2]);
  if (lstm) l->c0 = kn_tensor_data(as[3]);
  if (gru && n > 3 && as[3]) l->bias = kn_tensor_data(as[3]);
  if (l->op == KN_OP_rnn_layer) {
    const kn_attrs_rnn_direction *a = attrs;
    l->reverse = a->reverse, l->relu = a->nonlinearity == KN_CHOICE_nonlinearity_relu;
  } else
    l->reverse = ((const kn_attrs_direction *)attrs)->reverse;
  l->states = kn_tensor_data(out[0]);
  if (lstm) l->cells_out = kn_tensor_data(out[1]);
  if (lstm || gru) l->gates_out = kn_tensor_data(out[lstm ? 2 : 1]);
}

kn_status cp_recurrent(kn_context *ctx, const cp_cells *cells, const cp_kit *const kits[KN_DTYPE_COUNT],
                       kn_op op, const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out) {
  kn_tensor *as[4] = {NULL}, *zeros = NULL;
  const int64_t *x = in[0]->type.dims;
  if (!floats(in, n) || !kits[KN_F32]) return KN_DECLINED;
  layer l = {.op = op, .cells = cells, .steps = x[0], .n = x[1], .h = in[1]->type.dims[1]};
  if (!l.steps || !l.n || !l.h) return KN_OK; /* no results */
  KN_TRY(kk_contiguous_all(ctx, in, n, as));
  set(&l, attrs, as, n, out);
  products p = {.weight = NULL};
  kn_status st = open_products(ctx, &l, kits[KN_F32], as[1], &p);
  if (st == KN_OK && op == KN_OP_gru_layer && !l.bias) {
    st = matrix(ctx, 1, l.gates * l.h, &zeros);
    if (st == KN_OK) kk_zero(ctx, zeros), l.bias = kn_tensor_data(zeros);
  }
  if (p.to) l.part = kn_tensor_data(p.to);
  if (st == KN_OK) st = walk(ctx, &l, &p);
  kn_tensor_release(zeros);
  kn_tensor_release(p.from);
  kn_tensor_release(p.weight);
  kn_tensor_release(p.to);
  kk_release_all(as, n);
  return st;
}
